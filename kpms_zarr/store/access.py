"""Create, open and describe stores on local paths and fsspec URLs."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import xarray as xr
import zarr
from zarr.errors import ContainsArrayError, GroupNotFoundError

from kpms_zarr.store import layout
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.provenance import package_version, provenance
from kpms_zarr.store.schema import FORMAT_VERSION

StoreLike = str | os.PathLike[str]
Group = zarr.Group
"""An open store or group, for annotations where Zarr itself is not imported."""

_NO_GROUP = (GroupNotFoundError, ContainsArrayError, FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class Session:
    """One row of the session dimension.

    Attributes
    ----------
    name : str
    index : int
        Position along the session dimension of ``keypoints``.
    n_frames : int
    fps : float
        Frames per second.
    """

    name: str
    index: int
    n_frames: int
    fps: float


def is_remote(store: StoreLike) -> bool:
    """Whether the store is an fsspec URL rather than a local path."""
    return "://" in os.fspath(store)


def exists(store: StoreLike) -> bool:
    """Whether something with a Zarr group lies at the place."""
    _check_protocol(os.fspath(store))
    try:
        zarr.open_group(os.fspath(store), mode="r", zarr_format=3)
    except _NO_GROUP:
        return False
    except json.JSONDecodeError:
        return True
    return True


def open_group(store: StoreLike, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Open an existing store and check its format.

    Raises
    ------
    InputError
        When there is no store, it was not written by this package, or by a newer one.
    """
    where = os.fspath(store)
    _check_protocol(where)
    try:
        root = zarr.open_group(where, mode=mode, zarr_format=3)
    except json.JSONDecodeError as error:
        raise InputError(
            expected="a kpms_zarr store",
            found=f"a damaged zarr.json ({error})",
            where=where,
            fix="copy the store again, or make a new one from the tracking files",
        ) from error
    except _NO_GROUP as error:
        raise InputError(
            expected="a kpms_zarr store",
            found="no Zarr group there",
            where=where,
            fix="check the path, or make a store with: kpms-zarr ingest STORE FILES...",
        ) from error
    version = root.attrs.get("kpms_zarr_format")
    if not isinstance(version, int):
        raise InputError(
            expected="a store written by kpms_zarr (attribute kpms_zarr_format)",
            found="a Zarr group without it",
            where=where,
            fix="name the top folder of the store, the one given to kpms-zarr ingest",
        )
    if version > FORMAT_VERSION:
        raise InputError(
            expected=f"store format {FORMAT_VERSION} or older",
            found=f"format {version}, written by {root.attrs.get('created_by', 'a newer version')}",
            where=where,
            fix="upgrade with: pip install --upgrade kpms_zarr",
        )
    return root


def _check_protocol(where: str) -> None:
    if not is_remote(where):
        return
    try:
        fsspec.get_filesystem_class(where.split("://")[0])
    except (ImportError, ValueError) as error:
        raise InputError(
            expected="a URL that fsspec can open, such as s3://bucket/study.zarr",
            found=str(error),
            where=where,
            fix="install what it names (for s3: pip install 'kpms_zarr[s3]'), or check the URL",
        ) from error


def create(store: StoreLike) -> zarr.Group:
    """Create an empty store.

    Raises
    ------
    InputError
        When the place is taken by something that is not a store.
    """
    where = os.fspath(store)
    path = Path(where)
    if not is_remote(where) and (path.is_file() or (path.is_dir() and _holds_anything(path))):
        raise InputError(
            expected="a new or empty place for the store",
            found="a file" if path.is_file() else "a folder with other things in it",
            where=where,
            fix="name another place, usually one that ends in .zarr",
        )
    attrs = {
        "kpms_zarr_format": FORMAT_VERSION,
        "created_by": f"kpms_zarr {package_version()}",
        **provenance("create"),
    }
    return zarr.create_group(where, zarr_format=3, attributes=attrs)


def _holds_anything(folder: Path) -> bool:
    """Whether there is more than the unfinished file of a killed write."""
    return any(not path.name.endswith(".partial") for path in folder.iterdir())


def remove(store: StoreLike) -> None:
    """Delete a whole store (used to undo its creation)."""
    where = os.fspath(store)
    if is_remote(where):
        fs, path = fsspec.core.url_to_fs(where)
        fs.rm(path, recursive=True)
    else:
        shutil.rmtree(where, ignore_errors=True)


def subgroup(root: zarr.Group, path: str) -> zarr.Group | None:
    """A group below the root, or None."""
    node = root.get(path)
    return node if isinstance(node, zarr.Group) else None


def groups_below(group: zarr.Group) -> list[tuple[str, zarr.Group]]:
    """Groups by name; what a killed process left half written is none, and no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not recognized as a component")
        return sorted(group.groups(), key=lambda item: item[0])


def keypoints_group(root: zarr.Group) -> zarr.Group | None:
    """The group of tracked data, or None; one that a killed ingest left half made is none."""
    group = subgroup(root, layout.KEYPOINTS)
    if group is None or "provenance" in group.attrs:
        return group
    # xarray's to_zarr(mode="a"), by which people add coordinates, replaces attributes: what has
    # sessions is whole all the same.
    lengths = group.get("n_frames")
    return group if isinstance(lengths, zarr.Array) and np.any(lengths[...]) else None


def dataset(store: StoreLike, group: str, *, chunks: Any = None) -> xr.Dataset:
    """One group as an xarray dataset; lazy arrays, or Dask arrays with ``chunks={}``."""
    return xr.open_zarr(
        os.fspath(store), group=group, consolidated=False, chunks=chunks, zarr_format=3
    )


def sessions(store: StoreLike | zarr.Group) -> tuple[Session, ...]:
    """All sessions that are wholly in the store, in the order of the session dimension."""
    root = store if isinstance(store, zarr.Group) else open_group(store)
    group = keypoints_group(root)
    if group is None:
        return ()
    names = np.asarray(group["session"][:])  # type: ignore[index]
    lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
    fps = np.asarray(group["fps"][:])  # type: ignore[index]
    return tuple(
        Session(str(names[i]), i, int(lengths[i]), float(fps[i]))
        for i in range(len(lengths))
        if lengths[i] > 0
    )


def require_sessions(store: StoreLike | zarr.Group, where: str = "") -> tuple[Session, ...]:
    """Like :func:`sessions`, with an error when there are none."""
    found = sessions(store)
    if not found:
        raise InputError(
            expected="at least one session in the store",
            found="none",
            where=where or str(store),
            fix="add tracking files with: kpms-zarr ingest STORE FILES...",
        )
    return found
