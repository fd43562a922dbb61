"""Libraries of the extra ``viz``, which an installation may lack."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from kpms_zarr.store.errors import InputError

INSTALL = "pip install 'kpms_zarr[viz]'"


def is_installed(name: str) -> bool:
    """Whether there is a module of that name; it is not imported."""
    return importlib.util.find_spec(name) is not None


def require(name: str, what: str) -> ModuleType:
    """Import a module of the extra.

    Parameters
    ----------
    what : str
        The library and what it does, for the error.

    Raises
    ------
    InputError
        When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            expected=what,
            found=f"no module named {name}",
            where="this Python",
            fix=f"install it with: {INSTALL}",
        ) from error
