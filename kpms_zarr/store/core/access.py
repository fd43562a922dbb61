"""Create, open and describe stores on local paths and fsspec URLs."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import xarray as xr
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError, GroupNotFoundError
from zarr.storage import StorePath

from kpms_zarr.store.core import attributes, layout
from kpms_zarr.store.core.provenance import package_version, provenance, provenance_of
from kpms_zarr.store.core.schema import FORMAT_VERSION
from kpms_zarr.store.core.zarr_internals import sync
from kpms_zarr.store.errors import InputError, ReadOnlyError

StoreLike = str | os.PathLike[str]
Group = zarr.Group
"""An open store or group, for annotations where Zarr itself is not imported."""

_WEB = ("http://", "https://")
# What others write must be seen, as must what is written through another instance.
_FRESH = {"use_listings_cache": False}
# One request for an object; else S3 is asked for its size first.
_S3 = {**_FRESH, "max_concurrency": 1}
_DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("s3", "s3a"), _S3),
    **dict.fromkeys(("gs", "gcs", "abfs", "az"), _FRESH),
}

_GIVEN: dict[str, dict[str, Any]] = {}

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


def absolute(store: StoreLike) -> str:
    """Path or URL of a store as other processes find it, wherever they were begun."""
    return os.fspath(store) if is_remote(store) else os.path.abspath(store)


def _place(store: StoreLike, mode: str) -> Any:
    """Convert a place to what Zarr takes: a path, or a store that retries remote requests."""
    where = os.fspath(store)
    if not is_remote(where):
        return where
    from kpms_zarr.store.core.remote import remote_store

    return remote_store(where, read_only=mode == "r")


def is_web(store: StoreLike) -> bool:
    """Whether the store lies at a web address, which can be read and not listed."""
    return os.fspath(store).startswith(_WEB)


def exists(store: StoreLike) -> bool:
    """Whether something with a Zarr group lies at the place."""
    _check_protocol(os.fspath(store))
    try:
        zarr.open_group(_place(store, "r"), mode="r", zarr_format=3, use_consolidated=False)
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
    if is_web(where) and mode != "r":
        raise ReadOnlyError(
            expected="a store that can be written to",
            found="a web address, which can only be read",
            where=where,
            fix="copy the store to a disk or to a bucket of yours",
        )
    try:
        # Web servers list no folders: there, what the store says of itself has to do.
        use = None if is_web(where) else False
        root = zarr.open_group(_place(where, mode), mode=mode, zarr_format=3, use_consolidated=use)
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
            fix="check the path, or make a store with: `kpms_zarr.ingest(STORE, [FILES, ...])`",
        ) from error
    version = root.attrs.get("kpms_zarr_format")
    if not isinstance(version, int):
        raise InputError(
            expected="a store written by kpms_zarr (attribute kpms_zarr_format)",
            found="a Zarr group without it",
            where=where,
            fix="name the top folder of the store, the one given to `kpms_zarr.ingest`",
        )
    if version > FORMAT_VERSION:
        raise InputError(
            expected=f"store format {FORMAT_VERSION} or older",
            found=f"format {version}, written by {root.attrs.get('created_by', 'a newer version')}",
            where=where,
            fix="upgrade with: pip install --upgrade kpms_zarr",
        )
    return root


def set_storage_options(store: StoreLike, options: Mapping[str, Any]) -> None:
    """Say how stores of the protocol of this one are reached, for the rest of this process.

    Nothing of it is saved or printed. Where possible, use the environment instead: the profile or
    variables of the cloud (``AWS_ACCESS_KEY_ID``, ...), or ``FSSPEC_S3_ENDPOINT_URL``.

    Parameters
    ----------
    store : URL
    options : mapping
        For the file system of fsspec, such as ``{"endpoint_url": "http://...", "anon": True}``.

    Raises
    ------
    InputError
        When the store is a local path.
    """
    where = os.fspath(store)
    if not is_remote(where):
        raise InputError(
            expected="a URL, such as s3://bucket/study.zarr, with options for reaching it",
            found="a local path",
            where=where,
            fix="set no storage options",
        )
    given = {where.split("://")[0]: dict(options)}
    for protocol, values in given.items():
        _GIVEN[protocol] = {**_GIVEN.get(protocol, {}), **values}
    use_storage_options(given)


def given_storage_options() -> dict[str, dict[str, Any]]:
    """Options that were set in this process, by protocol, for others that reach the same stores."""
    return {protocol: dict(values) for protocol, values in _GIVEN.items()}


def use_storage_options(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Use what :func:`given_storage_options` gave in another process; returns what was before."""
    before = {protocol: fsspec.config.conf.get(protocol) for protocol in given}
    for protocol, values in given.items():
        fsspec.config.conf[protocol] = {**(before[protocol] or {}), **values}
    return before


def restore_storage_options(before: Mapping[str, Any]) -> None:
    """Put back what :func:`use_storage_options` returned."""
    for protocol, values in before.items():
        if values is None:
            fsspec.config.conf.pop(protocol, None)
        else:
            fsspec.config.conf[protocol] = values


def _check_protocol(where: str) -> None:
    if not is_remote(where):
        return
    protocol = where.split("://")[0]
    for name, value in _DEFAULTS.get(protocol, {}).items():
        fsspec.config.conf.setdefault(protocol, {}).setdefault(name, value)
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
    attrs = attributes.stored(
        {
            "kpms_zarr_format": FORMAT_VERSION,
            "created_by": f"kpms_zarr {package_version()}",
            **provenance("create"),
        }
    )
    try:
        return zarr.create_group(_place(where, "w"), zarr_format=3, attributes=attrs)
    except ContainsGroupError:  # somebody else was faster
        return open_group(where, "r+")


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
    """A group below the root, or None; as it is, not as consolidated metadata say."""
    node = root.get(path)
    if not isinstance(node, zarr.Group):
        return None
    return node if root.metadata.consolidated_metadata is not None else _plain(node)


def require_group(root: zarr.Group, path: str) -> zarr.Group:
    """A group below the root, made where it is missing; also where another makes it just now."""
    try:
        return root.require_group(path)
    except ContainsGroupError:  # it came between looking and making
        return root.require_group(path)


def delete_group(root: zarr.Group, path: str) -> None:
    """Delete a group and all below it; of a deletion that is cut short nothing counts as whole."""
    group = subgroup(root, path)
    if group is not None:
        _disown(group)
    sync((root.store_path / path).delete_dir())


def _disown(group: zarr.Group) -> None:
    """Take the provenance from a group and those below it, which then were never finished."""
    if "provenance" in group.attrs:
        attributes.write(group, {"provenance": None})
    for _, below in groups_below(group):
        _disown(below)


def made(root: zarr.Group, path: str) -> str:
    """Time when a group below the root was finished, by its provenance; "" without."""
    group = subgroup(root, path)
    if group is None or "provenance" not in group.attrs:
        return ""
    return str(provenance_of(dict(group.attrs)).get("created", "unknown"))


def _plain(group: zarr.Group) -> zarr.Group:
    if group.metadata.consolidated_metadata is None:
        return group
    metadata = replace(group.metadata, consolidated_metadata=None)
    return zarr.Group(zarr.AsyncGroup(metadata=metadata, store_path=group.store_path))


def groups_below(group: zarr.Group) -> list[tuple[str, zarr.Group]]:
    """Groups by name, without what is no group: half written, or deleted and still listed."""
    return [(name, one) for name, one in _below(group) if isinstance(one, zarr.Group)]


def arrays_below(group: zarr.Group) -> list[tuple[str, zarr.Array[Any]]]:
    """Arrays by name, without what is no array: half written, or deleted and still listed."""
    return [(name, one) for name, one in _below(group) if isinstance(one, zarr.Array)]


def _below(group: zarr.Group) -> list[tuple[str, Any]]:
    if group.metadata.consolidated_metadata is not None:
        return sorted(group.members(), key=lambda item: item[0])
    names = sorted(names_below(group.store_path))
    found = ((name, group.get(name)) for name in names if name != "zarr.json")
    return [
        (n, _plain(one) if isinstance(one, zarr.Group) else one)
        for n, one in found
        if one is not None
    ]


def names_below(place: StorePath) -> list[str]:
    """Names of what lies below a path, whole or half written; none without such a path."""

    async def names() -> list[str]:
        return [name.rstrip("/") async for name in place.store.list_dir(place.path)]

    try:
        return sync(names())
    except (FileNotFoundError, NotADirectoryError):
        return []


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
    """One group as an xarray dataset; lazy arrays, or Dask arrays with ``chunks={}``.

    As its consolidated metadata say, where it has them: what is being written beside them is not
    seen before it is whole.
    """
    where = os.fspath(store)
    try:
        # By those of the group, not of the root, which say nothing of what was deleted since.
        place = _place(f"{where.rstrip('/')}/{group}", "r")
        found = xr.open_zarr(place, consolidated=True, chunks=chunks, zarr_format=3)
    except (ValueError, KeyError, FileNotFoundError):
        with warnings.catch_warnings():
            # In a bucket, what a fit has just deleted beside it may still be listed.
            warnings.filterwarnings("ignore", "Object at .* is not recognized", UserWarning)
            found = xr.open_zarr(
                _place(where, "r"), group=group, consolidated=False, chunks=chunks, zarr_format=3
            )
    found.attrs = attributes.held(attributes.read(found.attrs))
    return found


def sessions(store: StoreLike | zarr.Group) -> tuple[Session, ...]:
    """All sessions that are wholly in the store, in the order of the session dimension."""
    root = store if isinstance(store, zarr.Group) else open_group(store)
    group = keypoints_group(root)
    if group is None:
        return ()
    # Lengths first: they are written last, so that all else is there of what has one.
    lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
    names = np.asarray(group["session"][:])  # type: ignore[index]
    fps = np.asarray(group["fps"][:])  # type: ignore[index]
    return tuple(
        Session(str(names[i]), i, int(lengths[i]), float(fps[i]))
        for i in range(min(len(lengths), len(names), len(fps)))
        if lengths[i] > 0
    )


def columns_of(sessions: Sequence[Session]) -> dict[str, np.ndarray]:
    """Names, lengths and frame rates of sessions, each (session,), by variable."""
    return {
        "session": np.asarray([s.name for s in sessions], dtype=object),
        "n_frames": np.asarray([s.n_frames for s in sessions]),
        "fps": np.asarray([s.fps for s in sessions]),
    }


def require_sessions(store: StoreLike | zarr.Group, where: str = "") -> tuple[Session, ...]:
    """List sessions like :func:`sessions`, with an error when there are none."""
    found = sessions(store)
    if not found:
        raise InputError(
            expected="at least one session in the store",
            found="none",
            where=where or str(store),
            fix="add tracking files with: `kpms_zarr.ingest(STORE, [FILES, ...])`",
        )
    return found
