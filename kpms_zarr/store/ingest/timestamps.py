"""Timestamps of frames written into the store: every call is a new version, the old ones stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import zarr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.ingest.session_keys import match_keys
from kpms_zarr.store.ingest.time_filling import TimeAudit, TimeFiller
from kpms_zarr.store.ingest.time_tables import TimesLike, TimeSource, sources_of
from kpms_zarr.store.ingest.timestamp_versions import TimestampWriter, put_none_in_force
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.epochs import current_epochs
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.timestamps import FramesOf, StudyTimes, frames_in


@dataclass(frozen=True)
class TimestampsSummary(ShownAsTable):
    """Result of :func:`timestamps`.

    Attributes
    ----------
    store : str
    version : str
        Of the timestamps, such as ``"v1"``; "" where none are in force now.
    sessions : tuple of str
        That the times are of.
    n_frames : int
        Of these.
    notes : tuple of str
        How sessions were found, times that were interpolated, sessions without timestamps.
    """

    store: str
    version: str
    sessions: tuple[str, ...]
    n_frames: int
    notes: tuple[str, ...]


def timestamps(
    store: StoreLike, table: TimesLike, *, session: str | None = None
) -> TimestampsSummary:
    """Write the time of each frame of sessions into the store; every table and export goes by it.

    Without timestamps, frame k of a session is at k / fps. With them it is at the time that the
    camera or the acquisition system gave it, on the clock of the recording, so that syllables can
    be laid beside what else was recorded, and frames that were late or lost make no difference to
    durations and speeds. The model itself goes by frames. The sessions of the table get its times
    in place of those that they had, the others keep theirs.

    Parameters
    ----------
    store : path or URL
    table : path, sequence of path, DataFrame, mapping of str to array, or ``"none"``
        One of these:

        - csv or parquet files, or a DataFrame, with the columns ``session`` (its name, recording,
          file or video, or a beginning that no other has), ``time_s`` (s; or ``time_ms``,
          ``time_us``, ``time_ns``) and perhaps ``frame``, rows of a session in order. Without
          frames, a row for each frame. ``frame`` counts from the first frame of the session, from
          0 on; ``video_frame`` counts those of the video (rows of other frames are left out).
          Times of frames between two rows are interpolated;
        - files of one session each, called like it (``mouse1.csv``, ``mouse1_timestamps.npy``) or
          named by ``session``: csv or parquet without that column, text with a number in each row,
          npy with an array (frame,);
        - arrays (frame,) by session, s;
        - ``"none"``: times are frame / fps again.
    session : str, optional
        What the one file is of.

    Returns
    -------
    TimestampsSummary

    Raises
    ------
    InputError
        With everything that is wrong with the times: unknown sessions; others than as many as there
        are frames; times that do not increase, are not finite, or cannot be seconds at the frame
        rate. Nothing is written then.
    """
    where = os.fspath(store)
    root = access.open_group(store, "r+")
    access.require_sessions(root, where)
    notes: list[str] = []
    with sessions_lock(root, store, notes.append):
        if _is_none(table):
            put_none_in_force(root)
            return TimestampsSummary(where, "", (), 0, tuple(notes))
        jobs = time_jobs(sources_of(table, session), access.sessions(root), named_sessions(root),
                         {one.session: one for one in frames_in(root)})  # fmt: skip
        version = jobs.write(root)
        notes += [*jobs.notes(), *_notes_on_others(root)]
    return TimestampsSummary(
        where,
        version,
        tuple(audit.session.name for audit in jobs.audits),
        sum(audit.session.n_frames for audit in jobs.audits),
        tuple(notes),
    )


def _is_none(table: TimesLike) -> bool:
    return (isinstance(table, str) and table == "none") or (
        isinstance(table, list | tuple) and list(table) == ["none"]
    )


def _notes_on_others(root: zarr.Group) -> list[str]:
    notes = StudyTimes(root).notes(access.sessions(root))
    if current_epochs(root):
        notes.append(
            "epochs of the store keep their frames: write those again that were given in s "
            "(`kpms_zarr.epochs(STORE, 'FILE.csv')`)"
        )
    return notes


@dataclass(frozen=True)
class TimeJobs:
    """Times that were found to be right, and the sessions that they are of.

    Attributes
    ----------
    sources : sequence of TimeSource
    audits : list of TimeAudit
        By session.
    places : dict of (int, str) to list of int
        Of each source and key, places of its sessions among the audits.
    frames : dict of str to FramesOf
        By session.
    found : list of str
        Notes on how these were found.
    """

    sources: Sequence[TimeSource]
    audits: list[TimeAudit]
    places: dict[tuple[int, str], list[int]]
    frames: dict[str, FramesOf]
    found: list[str]

    def write(self, root: zarr.Group) -> str:
        """Write them as a version, and put it in force; the lock of the sessions is held."""
        writer = TimestampWriter(root, [self.frames[one.session.name] for one in self.audits])
        try:
            rows = [writer.row(number) for number in range(len(self.audits))]
            fillers = [TimeFiller() for _ in rows]
            audits = self._new_audits()
            for number, source in enumerate(self.sources):
                for piece in source.pieces():
                    for place in self.places[number, piece.key]:
                        taken = audits[place].taken(piece.time, piece.frame, piece.row)
                        for times in fillers[place].add(*taken):
                            rows[place].add(times)
            for audit in audits:
                audit.end()
            _raise([audit.problem for audit in audits])  # files that changed meanwhile
        except BaseException:
            writer.discard()
            raise
        files = [Path(one.where).name for one in self.sources if "`" not in one.where]
        writer.publish({"tables": files[:100]} if files else {})
        return writer.version

    def _new_audits(self) -> list[TimeAudit]:
        return [audit.again() for audit in self.audits]

    def notes(self) -> list[str]:
        """What a person should know."""
        return [*self.found, *(note for audit in self.audits for note in audit.notes())]


def time_jobs(
    sources: Sequence[TimeSource],
    sessions: Sequence[Session],
    named: Sequence[Named],
    frames: dict[str, FramesOf],
) -> TimeJobs:
    """Read times of sessions, and check them.

    Parameters
    ----------
    sources : sequence of TimeSource
    sessions : sequence of Session
    named : sequence of Named
        What these can be called by.
    frames : dict of str to FramesOf
        By session.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    lengths = {session.name: session for session in sessions}
    audits: list[TimeAudit] = []
    places: dict[tuple[int, str], list[int]] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    of: dict[str, str] = {}
    for number, source in enumerate(sources):
        keys, more, found = match_keys(source.keys, named, source.where)
        problems += [replace(one, where=one.where.replace(", row 0", "")) for one in more]
        notes += found
        for key, names in keys.items():
            for name in names:
                if name in of:
                    problems.append(_twice(name, of[name], source.where))
                    continue
                of[name] = source.where
                own = frames[name]
                audit = TimeAudit(
                    lengths[name], source.where, source.counts, own.first_frame, own.frame_step
                )
                places.setdefault((number, key), []).append(len(audits))
                audits.append(audit)
    for number, source in enumerate(sources) if not problems else ():
        for piece in source.pieces():
            for place in places[number, piece.key]:
                audits[place].taken(piece.time, piece.frame, piece.row)
    for audit in audits if not problems else ():
        audit.end()
    problems += [audit.problem for audit in audits if audit.problem is not None]
    _raise(problems)
    return TimeJobs(sources, audits, places, frames, list(dict.fromkeys(notes)))


def _twice(session: str, one: str, other: str) -> Problem:
    return Problem(
        f"times of session {session} in one file",
        f"others in {one}" if one != other else "its times under two names",
        other,
        "leave one of them out",
    )


def _raise(problems: Sequence[Problem | None]) -> None:
    found = [problem for problem in problems if problem is not None]
    if found:
        raise InputError.of(dict.fromkeys(found))
