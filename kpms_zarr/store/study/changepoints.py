"""Change points that a store holds: written as a version that takes its place when it is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.errors import InputError


def current_changepoints(root: zarr.Group) -> str:
    """The version of the change points that holds; "" = the store has none."""
    above = access.subgroup(root, layout.CHANGEPOINTS)
    version = "" if above is None else str(above.attrs.get("current", ""))
    return version if version and access.made(root, changepoints_path(version)) else ""


def changepoints_path(version: str) -> str:
    """Group path of a version of the change points."""
    return f"{layout.CHANGEPOINTS}/{version}"


def open_changepoints(store: StoreLike) -> xr.Dataset:
    """Open the change points of a store, as they were found last.

    Parameters
    ----------
    store : path or URL

    Returns
    -------
    xarray.Dataset
        As of :func:`kpms_zarr.changepoints` without a model: ``change_score`` (session, frame) and
        ``changepoint`` (session, frame), both lazy, and counts.

    Raises
    ------
    InputError
        When there is no such store, or nobody has looked for change points.
    """
    version = current_changepoints(access.open_group(store))
    if not version:
        raise InputError(
            expected="change points",
            found="none in the store",
            where=os.fspath(store),
            fix="find them: `kpms_zarr.changepoints(STORE)`",
        )
    return access.dataset(store, changepoints_path(version))


class ChangepointWriter:
    """Writer of a version; the lock of the change points is held.

    The version before stays until the next one is begun, for those who have it open.

    Parameters
    ----------
    root : zarr.Group
    sessions : sequence of Session
        A row each.

    Attributes
    ----------
    path : str
        Of the group, in which ``change_score`` and ``changepoint`` (session, frame) wait for their
        values.
    """

    def __init__(self, root: zarr.Group, sessions: Sequence[Session]) -> None:
        self._root = root
        above = access.require_group(root, layout.CHANGEPOINTS)
        if "provenance" not in above.attrs:
            attributes.write(above, provenance("changepoints"))
        current = current_changepoints(root)
        there = access.names_below(above.store_path)
        gone = [name for name in there if name.startswith("v") and name != current]
        for name in gone:
            access.delete_group(root, changepoints_path(name))
        if gone:
            consolidate(root, [layout.CHANGEPOINTS])
        self._version = f"v{1 + int(current[1:] or 0)}"
        self.path = changepoints_path(self._version)
        group = root.create_group(self.path)
        n_frames = max(session.n_frames for session in sessions)
        sizes = {"session": len(sessions), "frame": n_frames}
        names = ("change_score", "changepoint")
        layout.create_arrays(group, layout.CHANGEPOINTS, sizes, names)

    def publish(
        self, values: Mapping[str, Any], attrs: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Write all that has no frame dim, and let the version hold."""
        group = access.subgroup(self._root, self.path)
        assert group is not None
        layout.write_values(group, layout.CHANGEPOINTS, values)
        attributes.write(group, {**attrs, **provenance("changepoints", settings)})
        consolidate(self._root, [layout.CHANGEPOINTS])
        update_attributes(self._root, layout.CHANGEPOINTS, {"current": self._version})

    def discard(self) -> None:
        """Delete what was written, of a version that does not hold."""
        access.delete_group(self._root, self.path)
