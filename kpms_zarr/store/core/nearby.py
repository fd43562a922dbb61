"""The store in a folder, for those who name the folder, or none."""

from __future__ import annotations

import os
from pathlib import Path

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import listed


def store_at(place: StoreLike) -> str:
    """Place of a store: the place itself, or the one store in the folder there.

    Raises
    ------
    InputError
        When several stores lie in the folder.
    """
    where = os.fspath(place)
    if access.is_remote(where) or not os.path.isdir(where) or (Path(where) / "zarr.json").exists():
        return where
    found = sorted(str(path.parent) for path in Path(where).glob("*/zarr.json") if _is_store(path))
    if len(found) > 1:
        raise InputError(
            expected="one store in the folder",
            found=f"{len(found)}: {listed(found)}",
            where=os.path.abspath(where),
            fix="name the one that you mean",
        )
    return found[0] if found else where


def _is_store(path: Path) -> bool:
    try:
        access.open_group(path.parent)
    except InputError:
        return False
    return True
