"""Epochs of sessions written into the store: every change is a new version, the old ones stay."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.ingest.epoch_tables import EpochsLike, is_none, name_of, read_epochs
from kpms_zarr.store.model.models import finished_versions, make_group
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.epochs import SessionEpochs, stored_epochs
from kpms_zarr.store.study.timestamps import StudyTimes


@dataclass(frozen=True)
class EpochsSummary(ShownAsTable):
    """Result of :func:`epochs`.

    Attributes
    ----------
    store : str
    version : str
        Of the epochs, such as ``"v1"``; "" where there are none now.
    n_sessions : int
        Sessions that the table is about.
    n_epochs : int
        Of these.
    notes : tuple of str
        How sessions were found, and sessions without epochs.
    """

    store: str
    version: str
    n_sessions: int
    n_epochs: int
    notes: tuple[str, ...]


def epochs(store: StoreLike, table: EpochsLike) -> EpochsSummary:
    """Write the epochs of sessions into the store; every table and test then goes by them.

    An epoch is a named set of frames of one session, such as ``before`` and ``after`` an injection.
    Sessions of the table get its epochs in place of those that they had, the others keep theirs; a
    session without epochs is one epoch, whose name is empty. Frames in no epoch are left out of
    tables. Epochs are kept in versions, of which the newest holds.

    Parameters
    ----------
    store : path or URL
    table : path, DataFrame, mapping of str to array, or ``"none"``
        One of these:

        - a csv file or DataFrame with a row for each interval: ``session`` (its name, recording,
          file or video, or a beginning that no other has), where it begins and ends, and what is
          known of ``condition`` and ``epoch``. Columns ``start_s`` and ``stop_s`` are seconds
          since the first frame of the session, ``start_frame`` and ``stop_frame`` frames of the
          session from 0 on; or ``start`` and ``stop`` with a column ``units`` of ``s`` or
          ``frames``. The stop is not part of the interval; an empty one is the end of the session.
          A frame belongs to an interval when it was taken within it: at its timestamp
          (:func:`kpms_zarr.timestamps`), or frame k at k / fps.
          Intervals of one session must not overlap. Rows of the same ``epoch`` are one epoch of
          several intervals; without that column each row is an epoch of its own, called by its
          condition, and numbered where the session has several of these (``light 1``);
        - conditions by frame: a csv or parquet file with a row for each frame and the columns
          ``session``, ``frame`` and ``condition``, or arrays (frame,) by session. All frames of one
          condition are one epoch, frames without a condition in none;
        - ``"none"``: sessions are whole from now on.

    Returns
    -------
    EpochsSummary

    Raises
    ------
    InputError
        With everything that is wrong with the table: unknown sessions, overlaps, frames beyond the
        end of a session, seconds or frames that it does not tell apart; nothing is written then.
    """
    root = access.open_group(store, "r+")
    sessions = access.require_sessions(root, os.fspath(store))
    notes: list[str] = []
    with sessions_lock(root, store, notes.append):
        if is_none(table):
            update_attributes(root, layout.EPOCHS, {}, without=["current"])
            return EpochsSummary(os.fspath(store), "", 0, 0, tuple(notes))
        found, said = read_epochs(table, sessions, named_sessions(root), StudyTimes(root))
        there = {session.name for session in sessions}
        before = {name: one for name, one in stored_epochs(root)[1].items() if name in there}
        version = _write(root, {**before, **found}, name_of(table))
    whole = [session.name for session in sessions if session.name not in {**before, **found}]
    if whole:
        said.append(f"sessions without epochs are one epoch each: {len(whole)} of {len(sessions)}")
    n_epochs = sum(len(one.names) for one in found.values())
    return EpochsSummary(os.fspath(store), version, len(found), n_epochs, (*notes, *said))


def _write(root: zarr.Group, found: Mapping[str, SessionEpochs], source: str) -> str:
    """Write a version and make it current; the lock is held."""
    above = make_group(root, layout.EPOCHS, "epochs")
    version = f"v{1 + len(finished_versions(above))}"
    # What a killed process left of this number was never current.
    group = above.create_group(version, overwrite=True)
    rows = [(name, one) for name, one in sorted(found.items())]
    columns = {
        "session": [name for name, one in rows for _ in one.start],
        "epoch": [one.names[place] for _, one in rows for place in one.epoch.tolist()],
        "condition": [one.conditions[place] for _, one in rows for place in one.epoch.tolist()],
        "start": np.concatenate([one.start for _, one in rows]),
        "stop": np.concatenate([one.stop for _, one in rows]),
    }
    layout.write_values(group, "epochs", columns)
    attributes.write(group, provenance("epochs", {"table": source} if source else {}))
    update_attributes(root, layout.EPOCHS, {"current": version})
    consolidate(root, [layout.EPOCHS])
    return version
