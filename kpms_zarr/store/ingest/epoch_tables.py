"""Tables of epochs: intervals in seconds or frames, or a condition for each frame."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError, Problem, unreadable
from kpms_zarr.store.ingest.frame_conditions import conditions_by_frame, conditions_of_file
from kpms_zarr.store.ingest.session_keys import match_keys
from kpms_zarr.store.parsers.table.files import is_parquet, names_of
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.session_rows import read_sheet
from kpms_zarr.store.study.timestamps import SessionTimes, StudyTimes
from kpms_zarr.store.wording import listed

EpochsLike: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | Mapping[str, Any]"
"""A file or table of intervals or of frames, arrays of conditions by session, or ``"none"``."""

_EXPECTED = "a csv file with a row for each interval, such as session,start_s,stop_s,condition"
_KEYS = ("session", "recording", "source", "file", "video", "name")
_EDGES = ("start_s", "stop_s", "start_frame", "stop_frame", "start", "stop")
_SAME = {
    "end": "stop", "end_s": "stop_s", "end_frame": "stop_frame", "end_frames": "stop_frame",
    "start_frames": "start_frame", "stop_frames": "stop_frame", "unit": "units",
}  # fmt: skip
_UNITS = {
    "s": "s", "sec": "s", "second": "s", "seconds": "s", "frame": "frames", "frames": "frames",
}  # fmt: skip


def is_none(table: EpochsLike) -> bool:
    """Whether sessions are to be whole."""
    return isinstance(table, str) and table == "none"


def name_of(table: EpochsLike) -> str:
    """Name of the file that a table is from; "" without one."""
    return Path(table).name if isinstance(table, str | os.PathLike) else ""


def read_epochs(
    table: EpochsLike, sessions: Sequence[Session], named: Sequence[Named], times: StudyTimes
) -> tuple[dict[str, SessionEpochs], list[str]]:
    """Read a table of epochs (see :func:`kpms_zarr.epochs`).

    Parameters
    ----------
    table : path, DataFrame or mapping
    sessions : sequence of Session
    named : sequence of Named
        What these can be called by.
    times : StudyTimes
        By which seconds are those of frames.

    Returns
    -------
    epochs : dict of str to SessionEpochs
        By session, of those that the table is about.
    notes : list of str

    Raises
    ------
    InputError
        With everything that is wrong with the table.
    """
    where = str(table) if name_of(table) else "`table=`"
    lengths = {session.name: session for session in sessions}
    if isinstance(table, Mapping):
        return conditions_by_frame(table, lengths, named, where)
    if not isinstance(table, pd.DataFrame):
        path = Path(table)
        if _is_by_frame(path):
            return conditions_of_file(path, lengths, named)
        sheet = read_sheet(path, where, _EXPECTED)
        rows = [(number, list(cells)) for number, cells in sheet.rows]
        return _read(
            _Intervals.of(sheet.header, rows, where), lengths, named, times, list(sheet.notes)
        )
    header = [str(name) for name in table.columns]
    if not any(name.strip().lower() in (*_EDGES, *_SAME) for name in header):
        raise InputError(
            expected="a DataFrame with columns such as session, start_s, stop_s, condition",
            found=f"the columns {listed(map(repr, header)) or 'none'}",
            where=where,
            fix="conditions by frame are given as arrays: {'mouse1': array, ...}",
        )
    cells = [["" if pd.isna(value) else str(value).strip() for value in row]
             for row in table.itertuples(index=False)]  # fmt: skip
    return _read(_Intervals.of(header, list(enumerate(cells)), where), lengths, named, times, [])


def _is_by_frame(path: Path) -> bool:
    """Whether a file has a row for each frame: conditions, and neither start nor stop."""
    try:
        if not path.is_file():
            return False
        names = {name.lower() for name in names_of(path)}
        return is_parquet(path) or ("condition" in names and not names & {*_EDGES, *_SAME})
    except InputError:  # refused where it is read
        return False
    except OSError as error:
        raise unreadable(path, error) from error


@dataclass(frozen=True)
class _IntervalRow:
    """One interval as it is typed."""

    number: int
    key: str
    start: str
    stop: str
    unit: str
    epoch: str
    condition: str


@dataclass(frozen=True)
class _Intervals:
    """Rows of a table, and what its columns mean."""

    rows: list[_IntervalRow]
    where: str
    has_names: bool
    notes: list[str]

    @classmethod
    def of(
        cls, header: Sequence[str], rows: Sequence[tuple[int, list[str]]], where: str
    ) -> _Intervals:
        """Find the columns; an InputError without sessions, starts and stops of known units."""
        lower = [_SAME.get(name.strip().lower(), name.strip().lower()) for name in header]
        if not rows or len(header) < 2:
            raise _columns(header, where, f"{len(rows)} rows of {len(header)} columns")
        doubled = sorted({name for name in lower if lower.count(name) > 1 or not name})
        if doubled:
            raise _columns(header, where, f"{listed(map(repr, doubled))} more than once")
        pairs = [
            (unit, f"start{suffix}", f"stop{suffix}")
            for unit, suffix in (("s", "_s"), ("frames", "_frame"), ("", ""))
        ]
        used = [pair for pair in pairs if pair[1] in lower or pair[2] in lower]
        if len(used) != 1 or not {used[0][1], used[0][2]} <= set(lower):
            found = listed(name for name in header if lower[list(header).index(name)] in _EDGES)
            raise _columns(header, where, f"the columns {found or listed(header)}")
        unit, start, stop = used[0]
        if not unit and "units" not in lower:
            raise InputError(
                expected="start and stop in seconds or frames",
                found="start and stop, which do not say in which of them",
                where=where,
                fix="name the columns start_s and stop_s, or start_frame and stop_frame; or add a "
                "column units with s or frames",
            )
        place = {name: number for number, name in enumerate(lower)}
        key = next((place[name] for name in _KEYS if name in place), 0)

        def cell(cells: list[str], name: str) -> str:
            return cells[place[name]] if name in place else ""

        found_rows = [
            _IntervalRow(
                number, cells[key], cell(cells, start), cell(cells, stop),
                unit or cell(cells, "units").lower(), cell(cells, "epoch"),
                cell(cells, "condition"),
            )
            for number, cells in rows
        ]  # fmt: skip
        known = {lower[key], start, stop, "epoch", "condition", *([] if unit else ["units"])}
        others = [name for name, low in zip(header, lower, strict=True) if low not in known]
        notes = [f"not used: {listed(others)}"] if others else []
        return cls(found_rows, where, "epoch" in place, notes)

    def problem(self, row: _IntervalRow, expected: str, found: str, fix: str) -> Problem:
        """Make the problem of a row."""
        return Problem(expected, found, f"{self.where}, row {row.number}", fix)


def _columns(header: Sequence[str], where: str, found: str) -> InputError:
    return InputError(
        expected="the columns session, start_s and stop_s (or start_frame and stop_frame), and "
        "condition",
        found=found if header else "an empty table",
        where=where,
        fix="write a row for each interval, such as mouse1,0,600,saline; or for each frame one "
        "with the columns session, frame and condition",
    )


def _read(
    table: _Intervals,
    sessions: Mapping[str, Session],
    named: Sequence[Named],
    times: StudyTimes,
    notes: list[str],
) -> tuple[dict[str, SessionEpochs], list[str]]:
    problems = [
        table.problem(row, "a session in every row", "none", "name it, or take the row away")
        for row in table.rows
        if not row.key
    ]
    numbers: dict[str, int] = {}
    for row in table.rows:
        if row.key:
            numbers.setdefault(row.key, row.number)
    matched, more, found_how = match_keys(numbers, named, table.where)
    problems += more
    taken: dict[str, list[tuple[_IntervalRow, int, int]]] = {}
    of = {name: times.of(sessions[name]) for names in matched.values() for name in names}
    for row in table.rows:
        for name in matched.get(row.key, ()):
            bounds = _bounds(table, row, sessions[name], of[name])
            if isinstance(bounds, Problem):
                problems.append(bounds)
            else:
                taken.setdefault(name, []).append((row, *bounds))
    for name, intervals in taken.items():
        intervals.sort(key=lambda one: one[1:])
        problems += _overlaps(table, name, intervals)
        problems += _contradictions(table, name, intervals)
    if problems:
        raise InputError.of(dict.fromkeys(problems))
    found = {
        name: SessionEpochs.of(
            _names([row for row, _, _ in intervals], table.has_names),
            [row.condition for row, _, _ in intervals],
            np.array([start for _, start, _ in intervals]),
            np.array([stop for _, _, stop in intervals]),
        )
        for name, intervals in taken.items()
    }
    return found, [*notes, *table.notes, *found_how]


def _bounds(
    table: _Intervals, row: _IntervalRow, session: Session, times: SessionTimes
) -> tuple[int, int] | Problem:
    """First frame of an interval and the frame after its last; what is wrong with it."""
    unit = _UNITS.get(row.unit)
    if unit is None:
        return table.problem(
            row, "units of s or frames", repr(row.unit), "write s or frames in the column units"
        )
    edges: list[int] = []
    for text, name, default in ((row.start, "start", 0), (row.stop, "stop", session.n_frames)):
        value = _number(text, float(default))
        if value is None or (unit == "frames" and value != round(value)):
            kind = "a number of seconds" if unit == "s" else "a whole number of frames"
            return table.problem(row, f"{kind} as {name}", repr(text), "correct this row")
        if value < 0:
            return table.problem(
                row, f"a {name} of 0 or more", text, "count from the first frame of the session"
            )
        edges.append(times.frame_after(value) if unit == "s" and text else round(value))
    start, stop = edges
    length = f"{session.n_frames:,} frames ({times.end - times.first:.6g} s)"
    if max(edges) > session.n_frames:
        return table.problem(
            row,
            f"an interval within the {length} of session {session.name}",
            f"{_shown(row.start, unit)} to {_shown(row.stop, unit)}",
            "correct it, or leave the stop empty for the end of the session",
        )
    if stop <= start:
        return table.problem(
            row,
            "a stop after the start, with a frame between them",
            f"{_shown(row.start, unit)} to {_shown(row.stop, unit)}",
            f"correct this row; session {session.name} has {length}",
        )
    return start, stop


def _number(text: str, default: float) -> float | None:
    """Parse a finite number; an empty text is the default."""
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shown(text: str, unit: str) -> str:
    return f"{text} {unit}" if text else "the edge of the session"


def _overlaps(
    table: _Intervals, session: str, intervals: Sequence[tuple[_IntervalRow, int, int]]
) -> Iterator[Problem]:
    for (one, _, stop), (two, start, _) in pairwise(intervals):
        if start < stop:
            yield table.problem(
                two,
                f"intervals of session {session} that do not overlap",
                f"one that begins at frame {start:,}, before that of row {one.number} ends at "
                f"frame {stop:,}",
                "correct one of them; the stop is not part of the interval",
            )


def _contradictions(
    table: _Intervals, session: str, intervals: Sequence[tuple[_IntervalRow, int, int]]
) -> Iterator[Problem]:
    first: dict[str, _IntervalRow] = {}
    for row, _, _ in intervals if table.has_names else ():
        if not row.epoch:
            yield table.problem(
                row, "a name in the column epoch", "none", "name it, or leave the column out"
            )
        before = first.setdefault(row.epoch, row)
        if before.condition != row.condition:
            yield table.problem(
                row,
                f"one condition for epoch {row.epoch!r} of session {session}",
                f"{row.condition!r}, and {before.condition!r} in row {before.number}",
                "give the epochs different names",
            )


def _names(rows: Sequence[_IntervalRow], has_names: bool) -> list[str]:
    """Names of the epochs of a session, intervals in order."""
    if has_names:
        return [row.epoch for row in rows]
    wanted = [row.condition or "epoch" for row in rows]
    number = Counter(wanted)
    used = {name for name, n in number.items() if n == 1}
    counter: Counter[str] = Counter()
    found = []
    for name in wanted:
        if number[name] == 1:
            found.append(name)
            continue
        while True:
            counter[name] += 1
            numbered = f"{name} {counter[name]}"
            if numbered not in used:
                break
        used.add(numbered)
        found.append(numbered)
    return found
