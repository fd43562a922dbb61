"""Signals of sessions written into the store: every change is a new version, the old ones stay."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes, layout, regions
from kpms_zarr.store.core.access import StoreLike, columns_of
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.ingest.signal_files import SignalClock, SignalFile
from kpms_zarr.store.model.models import make_group
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.signals import SINCE, holding_versions, signal_names, versions_of
from kpms_zarr.store.study.timestamps import StudyTimes
from kpms_zarr.store.wording import listed

_TAKEN = ("speed", "angular_velocity", "height", "none")


@dataclass(frozen=True)
class SignalsSummary(ShownAsTable):
    """Result of :func:`signals`.

    Attributes
    ----------
    store : str
    names : tuple of str
        Signals that were added.
    versions : tuple of str
        Of each.
    n_sessions : int
        That they were added to.
    missing : tuple of float
        Share of the frames of these without a value, of each signal.
    notes : tuple of str
        How sessions were found, and how samples were brought to frames.
    """

    store: str
    names: tuple[str, ...]
    versions: tuple[str, ...]
    n_sessions: int
    missing: tuple[float, ...]
    notes: tuple[str, ...]


def signals(
    store: StoreLike,
    file: str | os.PathLike[str],
    *,
    session: str | None = None,
    column: Sequence[str] | None = None,
    name: str | None = None,
    start: float | None = None,
    max_gap: float = 1.0,
    units: str | None = None,
) -> SignalsSummary:
    """Write signals of sessions, such as photometry, into the store: a value for each frame.

    Frames are at their timestamps (:func:`kpms_zarr.timestamps`), without these at k / fps. Samples
    with times are brought to the frames: where there are two or more in a frame on average, a frame
    has the mean of those within half a frame of it; else it is interpolated linearly between the
    samples before and behind. Frames without are NaN. A session gets its new values in place of
    those that it had, others keep theirs; versions are kept, of which for each session the newest
    that has it holds.

    Parameters
    ----------
    store : path or URL
    file : path or ``"none"``
        One of these:

        - a csv or parquet file with a row for each sample: ``session`` (its name, recording,
          file or video, or a beginning that no other has; without that column, see ``session``),
          ``time`` in s (or ``time_ms``) on the clock of the timestamps, without these from the
          first frame of the session on, or ``frame``, from 0 on, or neither where there is a row
          for each frame; and columns of values. Rows are sorted by session and time;
        - an NWB file with a TimeSeries (or another series of numbers with times);
        - ``"none"``: the signal ``name`` is no longer one.
    session : str, optional
        That the file is about (default: its column ``session``, or the one called like the file).
    column : sequence of str, optional
        Columns of values, or series of the NWB file by name or path, ``NAME[2]`` for a channel
        (default: all).
    name : str, optional
        Of the signal, where it is one (default: that of the column).
    start : float, optional
        Time of the first frame of the session on the clock of the file, in s (default: its
        timestamp, 0 without).
    max_gap : float
        Longest time between two samples that is interpolated over, in s.
    units : str, optional
        Of the values (default: those that the file says).

    Returns
    -------
    SignalsSummary

    Raises
    ------
    InputError
        With what is wrong with the file; the store is as it was then.
    """
    root = access.open_group(store, "r+")
    sessions = access.require_sessions(root, os.fspath(store))
    column = [column] if isinstance(column, str) else column
    _check(column, name, start, max_gap)
    notes: list[str] = []
    if os.fspath(file) == "none":
        with sessions_lock(root, store, notes.append):
            _forget(root, store, name)
        return SignalsSummary(os.fspath(store), (), (), 0, (), tuple(notes))
    path = Path(file)
    known = {one.name: one for one in sessions}
    source = SignalFile(
        path,
        known,
        named_sessions(root),
        session,
        column,
        SignalClock(start, max_gap, StudyTimes(root)),
    )
    names = _names(source.columns, name, notes)
    settings = {
        "file": path.name, "columns": list(source.columns), "start": start, "max_gap": max_gap,
    }  # fmt: skip
    with sessions_lock(root, store, notes.append):
        writers = [_VersionWriter(root, one, source) for one in names]
        means = np.zeros(len(names), np.int64)
        try:
            for number, values, is_mean in source.read():
                means += is_mean
                for writer, found in zip(writers, values, strict=True):
                    writer.write(number, found)
            missing = [writer.missing() for writer in writers]
        except BaseException:
            for writer in writers:
                writer.discard()
            raise
        for writer, unit in zip(writers, source.units, strict=True):
            writer.publish(unit if units is None else units, settings)
        consolidate(root, [layout.SIGNALS])
    n = len(source.sessions)
    notes += source.notes
    for one, n_means in zip(names, means.tolist(), strict=True):
        if n_means:
            notes.append(
                f"{one}: frames have the mean of their samples ({n_means} of {n} sessions), as "
                "there are two or more in each"
            )
    return SignalsSummary(
        os.fspath(store), tuple(names), tuple(writer.version for writer in writers), n,
        tuple(missing), tuple(notes),
    )  # fmt: skip


def _check(
    column: Sequence[str] | None, name: str | None, start: float | None, max_gap: float
) -> None:
    problems = []
    if start is not None and not np.isfinite(start):
        problems.append(Problem("a number of seconds", repr(start), "`start=`", "give another"))
    if not (np.isfinite(max_gap) and max_gap >= 0):
        fix = "give another number of seconds"
        problems.append(Problem("0 s or more", repr(max_gap), "`max_gap=`", fix))
    if name in _TAKEN:
        fix = "give the signal another name with `name=`"
        problems.append(Problem("a name of its own", repr(name), "`name=`", fix))
    if problems:
        raise InputError.of(problems)
    if name is not None:
        layout.signal_path(name)


def _names(columns: Sequence[str], name: str | None, notes: list[str]) -> list[str]:
    """Names of the signals, as folders can be called."""
    if name is not None and len(columns) > 1:
        raise InputError(
            expected=f"one column for the signal {name!r}",
            found=listed(columns),
            where="`name=`",
            fix="choose one with `column=`, or leave the name out: each is called like its column",
        )
    if name is not None:
        return [name]
    found = [
        re.sub(r"[^A-Za-z0-9._-]+", "_", one).strip("._-")[:100] or "signal" for one in columns
    ]
    taken = [one for one in found if one in _TAKEN]
    if len(set(found)) < len(found) or taken:
        raise InputError(
            expected="columns whose names differ, and are not those of other signals",
            found=listed(columns),
            where="`column=`",
            fix="add one at a time, with a `name=` of its own",
        )
    notes += [f"{a!r} is called {b}" for a, b in zip(columns, found, strict=True) if a != b]
    return found


def _forget(root: zarr.Group, store: StoreLike, name: str | None) -> None:
    if name is None or not holding_versions(root, name):
        raise InputError(
            expected=f"one of the signals {listed(signal_names(root), 12) or '(none)'}",
            found="no name" if name is None else repr(name),
            where="`name=`",
            fix="name the signal that is to be one no longer",
        )
    path = layout.signal_path(name)
    group = access.subgroup(root, path)
    assert group is not None
    update_attributes(root, path, {SINCE: len(versions_of(group))})


class _VersionWriter:
    """Writes a version of a signal; the lock is held."""

    def __init__(self, root: zarr.Group, name: str, source: SignalFile) -> None:
        self._above = make_group(root, layout.signal_path(name), "signals")
        self.version = f"v{1 + len(versions_of(self._above))}"
        # What a killed process left of this number was never finished.
        self._group: Any = self._above.create_group(self.version, overwrite=True)
        self._sessions = source.sessions
        sizes = {
            "session": len(source.sessions),
            "frame": max(one.n_frames for one in source.sessions),
        }
        layout.create_arrays(self._group, "signals", sizes)
        group: Any = self._group
        for key, values in columns_of(source.sessions).items():
            group[key][:] = values
        self._n_missing, self._n_written = 0, 0

    def write(self, number: int, values: np.ndarray) -> None:
        """Write the values of a session, (frame,)."""
        n = self._sessions[number].n_frames
        for first in range(0, n, FRAMES_PER_CHUNK):
            block = Block(number, first, min(first + FRAMES_PER_CHUNK, n))
            regions.write(self._group["value"], block, values[first : block.stop], n_frames=n)
        self._n_missing += int(np.isnan(values).sum())
        self._n_written += n

    def missing(self) -> float:
        """Share of the frames without a value."""
        return self._n_missing / max(1, self._n_written)

    def discard(self) -> None:
        """Remove what was written."""
        del self._above[self.version]

    def publish(self, units: str, settings: dict[str, Any]) -> None:
        """Finish the version: from now on it holds."""
        attributes.write(self._group, {"units": units, **provenance("signals", settings)})
