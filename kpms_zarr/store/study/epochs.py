"""Epochs of sessions: named sets of frames, such as before and after an injection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.schema import EPOCHS
from kpms_zarr.store.errors import InputError, Problem

WHOLE = ""
"""Name of the epoch of a session without epochs: all its frames."""


@dataclass(frozen=True)
class SessionEpochs:
    """Epochs of one session.

    Attributes
    ----------
    names, conditions : tuple of str
        By epoch, in the order in which they begin.
    epoch : ndarray, (interval,) int64
        Epoch that an interval belongs to.
    start, stop : ndarray, (interval,) int64
        Its first frame and the frame after its last one: ascending, none overlapping.
    """

    names: tuple[str, ...]
    conditions: tuple[str, ...]
    epoch: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def whole(cls, n_frames: int) -> SessionEpochs:
        """One epoch of all frames of a session."""
        place = np.zeros(1, np.int64)
        return cls((WHOLE,), ("",), place, place, np.array([n_frames], np.int64))

    @classmethod
    def of(
        cls, names: Iterable[str], conditions: Iterable[str], start: np.ndarray, stop: np.ndarray
    ) -> SessionEpochs:
        """Epochs of intervals in any order that do not overlap.

        Parameters
        ----------
        names, conditions : iterable of str
            By interval; an epoch has the condition of its first one.
        start, stop : ndarray, (interval,) int
        """
        start, stop = np.asarray(start, np.int64), np.asarray(stop, np.int64)
        order = np.argsort(start, kind="stable")
        names, conditions = list(names), list(conditions)
        place: dict[str, int] = {}
        said: list[str] = []
        epoch = np.zeros(len(order), np.int64)
        for number, one in enumerate(order.tolist()):
            if names[one] not in place:
                place[names[one]] = len(place)
                said.append(conditions[one])
            epoch[number] = place[names[one]]
        return cls(tuple(place), tuple(said), epoch, start[order], stop[order])

    @property
    def n_frames(self) -> int:
        """Frames in epochs."""
        return int((self.stop - self.start).sum())

    def at(self, start: int, stop: int) -> np.ndarray:
        """Find the interval of each of consecutive frames, (frame,) int64; -1 = none."""
        frame = np.arange(start, stop)
        place = np.searchsorted(self.start, frame, side="right") - 1
        return np.where((place >= 0) & (frame < self.stop[place]), place, -1)


def stored_epochs(store: StoreLike | zarr.Group) -> tuple[str, dict[str, SessionEpochs]]:
    """Read the epochs that a store holds: their version, "" without, and those of each session."""
    root = store if isinstance(store, zarr.Group) else access.open_group(store)
    version = current_epochs(root)
    if not version:
        return "", {}
    group = access.subgroup(root, f"{layout.EPOCHS}/{version}")
    assert group is not None
    columns = {var.name: np.asarray(group[var.name][:]) for var in EPOCHS}  # type: ignore[index]
    sessions = columns["session"].astype(object)
    names, place = np.unique(sessions.astype(str), return_inverse=True)
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(len(names) + 1))
    found = {}
    for number, name in enumerate(names.tolist()):
        rows = order[bounds[number] : bounds[number + 1]]
        called, said = (
            [str(text) for text in columns[key][rows]] for key in ("epoch", "condition")
        )
        found[name] = SessionEpochs.of(called, said, columns["start"][rows], columns["stop"][rows])
    return version, found


def current_epochs(root: zarr.Group) -> str:
    """The version of the epochs that holds; "" = the store has none."""
    above = access.subgroup(root, layout.EPOCHS)
    version = "" if above is None else str(attributes.read(dict(above.attrs)).get("current", ""))
    has_arrays = version and access.subgroup(root, f"{layout.EPOCHS}/{version}") is not None
    return version if has_arrays else ""


def open_epochs(store: StoreLike) -> xr.Dataset:
    """Open the epochs of a store.

    Parameters
    ----------
    store : path or URL

    Returns
    -------
    xarray.Dataset
        By ``interval``, consecutive frames that belong to one epoch: coordinates ``session``,
        ``epoch``, ``condition``; ``start`` and ``stop``, the first frame of the session and the
        frame after the last one. Empty where the store has no epochs. Attribute ``version``.

    Raises
    ------
    InputError
        When there is no such store.
    """
    root = access.open_group(store)
    version = current_epochs(root)
    if version:
        found = access.dataset(store, f"{layout.EPOCHS}/{version}").load()
        return found.assign_attrs(version=version)
    kinds: tuple[dict, dict] = ({}, {})
    for var in EPOCHS:
        empty = np.zeros(0, object if var.dtype == "str" else var.dtype)
        kinds[var.is_coordinate][var.name] = (var.dims, empty, var.attrs)
    return xr.Dataset(*kinds, {"version": ""})


def check_epochs(
    epochs: Mapping[str, SessionEpochs], sessions: Iterable[Session], where: str
) -> dict[str, SessionEpochs]:
    """Take the epochs of some sessions; those without epochs get one of all their frames.

    Raises
    ------
    InputError
        For those that reach beyond the end of their session, as when it was taken out and another
        added under its name.
    """
    found, problems = {}, []
    for session in sessions:
        own = epochs.get(session.name) or SessionEpochs.whole(session.n_frames)
        if own.stop[-1] > session.n_frames:
            problems.append(
                Problem(
                    f"epochs within the {session.n_frames:,} frames of session {session.name}",
                    f"one up to frame {own.stop[-1]:,}",
                    where,
                    "write its epochs again: `kpms_zarr.epochs(STORE, 'FILE.csv')`",
                )
            )
        found[session.name] = own
    if problems:
        raise InputError.of(problems)
    return found
