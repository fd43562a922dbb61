"""Packages that some exports need, and what to do without them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from kpms_zarr.store.errors import InputError


def has_package(name: str) -> bool:
    """Whether a package is installed."""
    return find_spec(name) is not None


def package(name: str, what: str, extra: str) -> Any:
    """Import a package that an export needs.

    Parameters
    ----------
    name : str
    what : str
        What it writes.
    extra : str
        Extra of this package that installs it.

    Raises
    ------
    InputError
        When it is not installed.
    """
    if not has_package(name):
        raise InputError(
            expected=f"the package {name}, which writes {what} files",
            found="that it is not installed",
            where="`to=`",
            fix=f"install it: pip install 'kpms_zarr[{extra}]'",
        )
    return import_module(name)
