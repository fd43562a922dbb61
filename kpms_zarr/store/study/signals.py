"""Signals of sessions that a store holds: a value for each frame, such as photometry."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.timestamps import StudyTimes
from kpms_zarr.store.wording import listed

SINCE = "since"
"""Attribute of a signal: versions up to this number no longer hold."""


def versions_of(group: zarr.Group) -> list[str]:
    """Finished versions of a signal, oldest first, also those that no longer hold."""
    found: list[str] = []
    while True:
        version = access.subgroup(group, f"v{len(found) + 1}")
        if version is None or "provenance" not in version.attrs:
            return found
        found.append(f"v{len(found) + 1}")


def holding_versions(root: zarr.Group, name: str) -> list[str]:
    """Versions of a signal that hold, oldest first: of a session the newest that has it."""
    group = access.subgroup(root, layout.signal_path(name))
    if group is None:
        return []
    since = int(attributes.read(dict(group.attrs)).get(SINCE, 0))
    return versions_of(group)[since:]


def signal_names(store: StoreLike | zarr.Group) -> list[str]:
    """Names of the signals that a store holds, sorted."""
    root = store if isinstance(store, zarr.Group) else access.open_group(store)
    above = access.subgroup(root, layout.SIGNALS)
    names = [name for name, _ in access.groups_below(above)] if above is not None else []
    return [name for name in names if holding_versions(root, name)]


class StoredSignal:
    """A signal of a store, read by frames.

    Parameters
    ----------
    store : path or URL
    name : str

    Attributes
    ----------
    name, units : str
    sessions : tuple of str
        That have it.

    Raises
    ------
    InputError
        When there is no such signal.
    """

    def __init__(self, store: StoreLike, name: str) -> None:
        self.name, self._where = name, os.fspath(store)
        root = access.open_group(store)
        versions = holding_versions(root, name)
        if not versions:
            raise InputError(
                expected=f"one of the signals {listed(signal_names(root), 12) or '(none)'}",
                found=repr(name),
                where=str(store),
                fix="add it: `kpms_zarr.signals(STORE, 'FILE.csv')`",
            )
        self._rows: dict[str, tuple[Any, int, int]] = {}
        self.units = ""
        for version in versions:
            group = access.subgroup(root, f"{layout.signal_path(name)}/{version}")
            assert group is not None
            self.units = str(attributes.read(dict(group.attrs)).get("units", ""))
            lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
            for row, session in enumerate(np.asarray(group["session"][:])):  # type: ignore[index]
                self._rows[str(session)] = (group["value"], row, int(lengths[row]))
        self.sessions = tuple(self._rows)

    def has(self, session: Session) -> bool:
        """Whether there are values of a session.

        Raises
        ------
        InputError
            When they are of a session of another length, as when it was taken out and another
            added under its name.
        """
        if session.name not in self._rows:
            return False
        n_frames = self._rows[session.name][2]
        if n_frames != session.n_frames:
            raise InputError(
                expected=f"signal {self.name!r} of the {session.n_frames:,} frames of session "
                f"{session.name}",
                found=f"one of {n_frames:,} frames",
                where=self._where,
                fix=f"add it again: `kpms_zarr.signals(STORE, 'FILE.csv', name={self.name!r})`",
            )
        return True

    def read(self, session: Session, start: int, stop: int) -> np.ndarray:
        """Read the values of some frames, (frame,) float64; NaN = missing."""
        array, row, _ = self._rows[session.name]
        return np.asarray(array[row, start:stop], np.float64)


def open_signal(store: StoreLike, name: str, session: str) -> xr.DataArray:
    """Open a signal of a session.

    Parameters
    ----------
    store : path or URL
    name : str
        Of the signal.
    session : str

    Returns
    -------
    DataArray, (frame,) float64
        NaN = missing; coordinate ``time`` in s: timestamps, without these frame / fps.

    Raises
    ------
    InputError
        When there is no such signal or session.
    """
    stored = StoredSignal(store, name)
    known = {one.name: one for one in access.sessions(store)}
    if session not in known or not stored.has(known[session]):
        raise InputError(
            expected=f"one of the sessions with the signal {name!r}: {listed(stored.sessions, 12)}",
            found=repr(session),
            where=str(store),
            fix="choose one of these",
        )
    one = known[session]
    time = ("frame", StudyTimes(store).of(one).at(0, one.n_frames), {"units": "s"})
    attrs = {"units": stored.units} if stored.units else {}
    values = stored.read(one, 0, one.n_frames)
    return xr.DataArray(values, dims=("frame",), coords={"time": time}, name=name, attrs=attrs)
