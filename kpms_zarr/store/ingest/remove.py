"""Removal of sessions from a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.rows import UNFINISHED, delete_row
from kpms_zarr.store.model.models import list_models, open_labels
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.keypoints import set_session_count
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import call


@dataclass(frozen=True)
class RemoveSummary(ShownAsTable):
    """Result of :func:`remove`.

    Attributes
    ----------
    store : str
    removed : tuple of str
        Sessions that are gone.
    n_frames : int
        Of these.
    notes : tuple of str
        Models that have labels of them.
    """

    store: str
    removed: tuple[str, ...]
    n_frames: int
    notes: tuple[str, ...]


def remove(store: StoreLike, sessions: str | Sequence[str]) -> RemoveSummary:
    """Take sessions out of a store: their tracked data and their row in the table.

    The other sessions stay where they are; the next new session gets the empty row. Published
    labels are never modified, so those of the sessions stay in the versions that have them.

    Parameters
    ----------
    store : path or URL
    sessions : sequence of str
        Names, patterns or ``coordinate=value``, see :attr:`FitConfig.sessions`.

    Returns
    -------
    RemoveSummary

    Raises
    ------
    InputError
        When a name or pattern fits no session.
    """
    chosen = [sessions] if isinstance(sessions, str) else list(sessions)
    if not chosen:
        raise InputError(
            expected="names of sessions",
            found="none",
            where="SESSION",
            fix=f"name them as {call('info', store)} shows them",
        )
    root = access.open_group(store, "r+")
    notes: list[str] = []
    with sessions_lock(root, store, notes.append):
        found = select_sessions(root, chosen, "SESSION")
        group = access.keypoints_group(root)
        assert group is not None
        lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
        rows = [session.index for session in found]
        lengths[rows] = 0
        # Whoever adds sessions next finishes what is not finished here.
        update_attributes(root, layout.KEYPOINTS, {UNFINISHED: True})
        # From here on they do not exist.
        group["n_frames"][:] = lengths  # type: ignore[index]
        for name, array in access.arrays_below(group):
            dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
            if name in ("position", "confidence"):
                for row in rows:
                    delete_row(array, row)
            elif dims[:1] == ("session",) and name != "n_frames":
                values = np.asarray(array[:])
                values[rows] = array.fill_value
                array[:] = values
        n_rows = int(np.flatnonzero(lengths).max(initial=-1)) + 1
        set_session_count(group, n_rows, int(lengths.max(initial=0)))
        consolidate(root, [layout.KEYPOINTS])
        update_attributes(root, layout.KEYPOINTS, {}, without=(UNFINISHED,))
    notes += _labelled(store, {session.name for session in found})
    return RemoveSummary(
        os.fspath(store),
        tuple(session.name for session in found),
        sum(session.n_frames for session in found),
        tuple(notes),
    )


def _labelled(store: StoreLike, names: set[str]) -> list[str]:
    notes = []
    for model in list_models(store):
        if model.current:
            has = names & {str(name) for name in open_labels(store, model.name)["session"].values}
            if has:
                notes.append(f"the labels of model {model.name!r} keep {len(has)} of them")
    return notes
