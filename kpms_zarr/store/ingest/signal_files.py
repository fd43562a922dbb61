"""Files of signals: csv and parquet tables, and series of NWB files, session by session."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.session_keys import match_keys
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.table.files import batches, names_of
from kpms_zarr.store.study.frame_times import FrameAligner
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.timestamps import StudyTimes
from kpms_zarr.store.wording import listed

_SESSION = ("session", "recording", "file", "video")
_FRAME = ("frame", "frame_index", "frame_number")
_TIME = {"time": 1.0, "time_s": 1.0, "seconds": 1.0, "timestamp": 1.0, "timestamps": 1.0,
         "t": 1.0, "time_ms": 1e-3}  # fmt: skip
_SAMPLES_AT_ONCE = 500_000
_NO_SIGNAL = ("PoseEstimationSeries", "ImageSeries", "ElectricalSeries")


@dataclass(frozen=True)
class SignalClock:
    """Relation of the clock of a file to the frames of sessions; see :class:`FrameAligner`."""

    start: float | None
    max_gap: float
    times: StudyTimes

    def aligner(self, session: Session, n_columns: int) -> FrameAligner:
        """What brings samples of a session to its frames."""
        times = self.times.of(session)
        return FrameAligner(times, n_columns, start=self.start, max_gap=self.max_gap)

    def span(self, session: Session) -> tuple[float, float]:
        """Times of the first and the last frame of a session on the clock of the file, s."""
        times = self.times.of(session)
        first, last = times.of(np.array([0, session.n_frames - 1])).tolist()
        shift = 0.0 if self.start is None else self.start - first
        return first + shift, last + shift


class SignalFile:
    """A file of signals.

    Parameters
    ----------
    path : Path
    sessions : mapping of str to Session
        Of the store.
    named : sequence of Named
        What these can be called by.
    session : str or None
        The only session that the file is about.
    columns : sequence of str or None
        Columns of a table, or series of an NWB file (default: all).
    clock : SignalClock

    Attributes
    ----------
    columns : tuple of str
    units : tuple of str
        Of each.
    sessions : tuple of Session
        In the order of the file.
    notes : list of str

    Raises
    ------
    InputError
        For a file that is none, and sessions or columns that are not there.
    """

    def __init__(
        self,
        path: Path,
        sessions: Mapping[str, Session],
        named: Sequence[Named],
        session: str | None,
        columns: Sequence[str] | None,
        clock: SignalClock,
    ) -> None:
        self.path, self._clock, self.notes = path, clock, list[str]()
        try:
            self._is_nwb = path.is_file() and h5py.is_hdf5(path)
        except OSError:  # refused where it is read
            self._is_nwb = False
        self._key: int | None = None
        keys: dict[str, int] = {}
        if self._is_nwb:
            with hdf5.opened(path) as file:
                found = _chosen_series(file, path, columns)
                self.columns = tuple(name for name, *_ in found)
                self.units = tuple(_unit(data) for _, _, data, _ in found)
        else:
            self.columns, self.units = self._table_columns(columns, session), ()
            self.units = ("",) * len(self.columns)
            keys = self._keys() if self._key is not None else {}
        if not keys:
            keys = {session if session is not None else path.stem: 0}
        where = f"{path}" if session is None else "`session=`"
        matched, problems, how = match_keys(keys, named, where)
        if problems and self._key is None and session is None:
            raise InputError(
                expected="a session of the store for the file",
                found=f"none that is called {path.stem!r}",
                where=str(path),
                fix="name it with `session=`, or give a table a column session",
            )
        if problems:
            raise InputError.of(problems)
        self.notes += how
        several = [key for key, names in matched.items() if len(names) > 1]
        if several:
            raise InputError(
                expected="one session for each name",
                found=f"several for {listed(map(repr, several))}",
                where=where,
                fix="give the sessions their names in the store",
            )
        self._named = {key: sessions[names[0]] for key, names in matched.items()}
        self.sessions = tuple(self._named[key] for key in keys)

    def read(self) -> Iterator[tuple[int, list[np.ndarray], list[bool]]]:
        """Read session by session.

        Yields
        ------
        int, list of ndarray (frame,) float64, list of bool
            Number of the session; values of each column, and whether they are means over frames.

        Raises
        ------
        InputError
            For rows that are not in the order of time, and what else is wrong with them.
        """
        if self._is_nwb:
            yield self._read_nwb()
        else:
            yield from self._read_table()

    # -------------------------------------------------------------- tables

    def _table_columns(self, columns: Sequence[str] | None, session: str | None) -> tuple[str, ...]:
        self._names = names_of(self.path)
        lower = [name.lower() for name in self._names]

        def place(choices: Sequence[str]) -> int | None:
            return next((lower.index(name) for name in choices if name in lower), None)

        self._key = place(_SESSION) if session is None else None
        self._frame, self._time = place(_FRAME), place(tuple(_TIME))
        self._unit = _TIME.get(lower[self._time], 1.0) if self._time is not None else 1.0
        about = {place(_SESSION), self._frame, self._time}
        others = [name for n, name in enumerate(self._names) if n not in about and name]
        unknown = [name for name in columns or () if name not in others]
        if unknown or not others or (columns is not None and not columns):
            raise InputError(
                expected=f"the columns {listed(unknown)}" if unknown else "a column of values",
                found=f"the columns {listed(self._names, 12)}",
                where=str(self.path),
                fix="write a row for each sample: session, time (s) or frame, and values; or name "
                "the columns of values with `column=`",
            )
        return tuple(columns if columns is not None else others)

    def _keys(self) -> dict[str, int]:
        first: dict[str, int] = {}
        assert self._key is not None
        number = self._names.index(self.columns[0])  # some column has to be read as numbers
        for batch in batches(self.path, (number,), (self._key,), ()):
            code, texts = batch.texts[0]
            at, place = np.unique(code, return_index=True)
            for number, row in sorted(zip(place.tolist(), at.tolist(), strict=True)):
                first.setdefault(texts[row], batch.row + number)
        if not first:
            raise self._wrong("rows of samples", "none")
        return first

    def _read_table(self) -> Iterator[tuple[int, list[np.ndarray], list[bool]]]:
        numeric = [self._names.index(name) for name in self.columns]
        clock = self._time if self._time is not None else self._frame
        numeric += [clock] if clock is not None else []
        done: set[int] = set()
        open_ = -1
        aligner: Any = None
        for row, key, rows in self._runs(numeric):
            number = 0 if key is None else list(self._named).index(key)
            if number != open_:
                if open_ >= 0:
                    yield open_, *self._aligned(aligner, open_)
                if number in done:
                    raise self._wrong(
                        "the rows of a session one behind the other",
                        f"session {self.sessions[number].name} again in row {row:,}",
                    )
                done.add(number)
                open_, aligner = number, _SignalRows(self, self.sessions[number])
            aligner.add(row, rows)
        if open_ < 0:
            raise self._wrong("rows of samples", "none")
        yield open_, *self._aligned(aligner, open_)

    def _runs(self, numeric: Sequence[int]) -> Iterator[tuple[int, str | None, np.ndarray]]:
        """Consecutive rows of one session: number of the first, key, and numbers."""
        textual = () if self._key is None else (self._key,)
        for batch in batches(self.path, numeric, textual, ()):
            if not textual:
                yield batch.row, None, batch.numbers
                continue
            code, texts = batch.texts[0]
            edges = [0, *(np.flatnonzero(np.diff(code)) + 1).tolist(), len(code)]
            for first, last in pairwise(edges):
                yield batch.row + first, texts[code[first]], batch.numbers[first:last]

    def _aligned(self, rows: _SignalRows, number: int) -> tuple[list[np.ndarray], list[bool]]:
        return self._checked(*rows.values(), self.sessions[number])

    def _checked(
        self, values: list[np.ndarray], means: list[bool], session: Session
    ) -> tuple[list[np.ndarray], list[bool]]:
        for name, found in zip(self.columns, values, strict=True):
            if not np.isfinite(found).any():
                raise InputError(
                    expected=f"values of {name} at the frames of session {session.name}: "
                    "{:.6g} to {:.6g} s".format(*self._clock.span(session)),
                    found="none",
                    where=str(self.path),
                    fix="check the times; `start=` is the time of the first frame on their clock, "
                    "`max_gap=` the longest gap in s that is interpolated over",
                )
        return values, means

    def _wrong(self, expected: str, found: str) -> InputError:
        return InputError(
            expected=expected,
            found=found,
            where=str(self.path),
            fix="sort the rows by session and time",
        )

    # -------------------------------------------------------------- NWB

    def _read_nwb(self) -> tuple[int, list[np.ndarray], list[bool]]:
        session, found, means = self.sessions[0], list[np.ndarray](), list[bool]()
        with hdf5.opened(self.path) as file:
            for name, group, data, channel in _chosen_series(file, self.path, self.columns):
                aligner = self._clock.aligner(session, 1)
                last = -np.inf
                for first in range(0, data.shape[0], _SAMPLES_AT_ONCE):
                    part = slice(first, min(first + _SAMPLES_AT_ONCE, data.shape[0]))
                    time = _times(group, data, part)
                    values = data[part] if data.ndim == 1 else data[part, channel]
                    values = np.asarray(values, np.float64) * _number(data, "conversion", 1.0)
                    values += _number(data, "offset", 0.0)
                    if not (np.diff(time, prepend=last) >= 0).all():
                        raise self._wrong("times that ascend", f"some that do not in {name!r}")
                    last = float(time[-1])
                    aligner.add(time, values[:, None])
                found.append(aligner.values(0))
                means.append(aligner.is_mean(0))
        return 0, *self._checked(found, means, session)


class _SignalRows:
    """Rows of a table about one session."""

    def __init__(self, file: SignalFile, session: Session) -> None:
        self._file, self._session = file, session
        n, columns = session.n_frames, len(file.columns)
        self._by_time = file._time is not None
        self._aligner = file._clock.aligner(session, columns)
        self._values = np.full((columns, 0 if self._by_time else n), np.nan)
        self._last, self._next = -np.inf, 0

    def add(self, row: int, rows: np.ndarray) -> None:
        file, n = self._file, len(self._file.columns)
        if self._by_time:
            time = rows[:, n] * file._unit
            step = np.diff(time, prepend=self._last)
            if not (step >= 0).all():
                at = row + int(np.flatnonzero(~(step >= 0))[0])
                raise file._wrong(
                    f"times of session {self._session.name} that ascend",
                    f"{time[at - row]:g} s in row {at:,}",
                )
            self._last = float(time[-1])
            self._aligner.add(time, rows[:, :n])
            return
        has_frames = file._frame is not None
        frame = rows[:, n] if has_frames else self._next + np.arange(len(rows), dtype=float)
        self._next += len(rows)
        is_wrong = ~((frame == np.rint(frame)) & (frame >= 0) & (frame < self._session.n_frames))
        if is_wrong.any():
            raise InputError(
                expected=f"frames 0 to {self._session.n_frames - 1:,} of session "
                f"{self._session.name}",
                found=f"frame {frame[is_wrong][0]:g}"
                if has_frames
                else "more rows than that, and neither a column frame nor one with times",
                where=f"{file.path}, row {row + int(np.flatnonzero(is_wrong)[0]):,}",
                fix="number frames from the first frame of the session in the store, from 0 on; or "
                "give a column time, in s",
            )
        place = frame.astype(np.int64)
        if len(np.unique(place)) < len(place) or not (np.append(self._last, place)[:-1]
                                                      < place).all():  # fmt: skip
            raise file._wrong(
                f"frames of session {self._session.name} that ascend", "some that do not"
            )
        self._last = float(place[-1])
        self._values[:, place] = rows[:, :n].T

    def values(self) -> tuple[list[np.ndarray], list[bool]]:
        file = self._file
        if self._by_time:
            places = range(len(file.columns))
            return (
                [self._aligner.values(n) for n in places],
                [self._aligner.is_mean(n) for n in places],
            )
        if file._frame is None and self._next != self._session.n_frames:
            raise InputError(
                expected=f"a row for each of the {self._session.n_frames:,} frames of session "
                f"{self._session.name}",
                found=f"{self._next:,} rows, and neither a column frame nor one with times",
                where=str(file.path),
                fix="add a column frame, or one called time, in s",
            )
        return list(self._values), [False] * len(file.columns)


# ------------------------------------------------------------------ series of NWB files

_Series = tuple[str, h5py.Group, h5py.Dataset, int]
_CHANNEL = re.compile(r"(?P<name>.+)\[(?P<channel>\d+)\]")


def _series(file: h5py.File) -> dict[str, tuple[h5py.Group, h5py.Dataset]]:
    """Series of numbers with times, by their paths."""
    found: dict[str, tuple[h5py.Group, h5py.Dataset]] = {}

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Group):
            return
        kind = hdf5.text(hdf5.attribute(item, "neurodata_type", ""))
        data = hdf5.internal(item, "data")
        if kind.endswith("Series") and kind not in _NO_SIGNAL and isinstance(data, h5py.Dataset):
            has_times = any(hdf5.internal(item, n) for n in ("timestamps", "starting_time"))
            if has_times and data.shape is not None and 1 <= len(data.shape) <= 2:
                found[name] = (item, data)

    file.visititems(visit)
    return found


def _chosen_series(file: h5py.File, path: Path, columns: Sequence[str] | None) -> list[_Series]:
    """Series of these names or paths, ``NAME[2]`` for a channel; all that have one channel."""
    every = _series(file)
    fix = "name series of the file with `column=`, NAME[0] for a channel of several"
    there = [
        f"{name.rsplit('/', 1)[-1]}" + (f"[0 to {data.shape[1] - 1}]" if _n(data) > 1 else "")
        for name, (_, data) in every.items()
    ]
    if columns is None:
        columns = [name.rsplit("/", 1)[-1] for name, (_, data) in every.items() if _n(data) == 1]
    found: list[_Series] = []
    problems = []
    for column in columns:
        part = _CHANNEL.fullmatch(column)
        name = part["name"] if part else column
        match = [one for path_, one in every.items()
                 if path_ == name.strip("/") or path_.rsplit("/", 1)[-1] == name]  # fmt: skip
        channel = int(part["channel"]) if part else 0
        if len(match) != 1 or channel >= _n(match[0][1]) or (not part and _n(match[0][1]) > 1):
            what = (
                f"{len(match)} of that name" if len(match) > 1 else f"{listed(there, 12) or 'none'}"
            )
            problems.append(Problem(f"one series {column!r}", what, str(path), fix))
            continue
        hdf5.check_inside(match[0][1], str(path))
        hdf5.check_numbers(match[0][1], str(path))
        found.append((column, *match[0], channel))
    if not columns:
        problems.append(
            Problem(
                "a series of one channel with times", listed(there, 12) or "none", str(path), fix
            )
        )
    if problems:
        raise InputError.of(problems)
    return found


def _n(data: h5py.Dataset) -> int:
    return int(data.shape[1]) if len(data.shape) > 1 else 1


def _number(item: h5py.Dataset, name: str, default: float) -> float:
    value = np.asarray(hdf5.attribute(item, name, default))
    is_number = value.size == 1 and value.dtype.kind in "fiu"
    return float(value.ravel()[0]) if is_number else default


def _unit(data: h5py.Dataset) -> str:
    text = hdf5.text(hdf5.attribute(data, "unit", ""))
    return "" if text in ("n.a.", "unknown", "a.u.") else text


def _times(group: h5py.Group, data: h5py.Dataset, part: slice) -> np.ndarray:
    """Times of some samples, in s."""
    stamps = hdf5.internal(group, "timestamps")
    if isinstance(stamps, h5py.Dataset):
        hdf5.check_inside(stamps, str(group.file.filename))
        hdf5.check_numbers(stamps, str(group.file.filename))
        if stamps.shape != data.shape[:1]:
            raise ValueError(f"{stamps.shape} timestamps of {data.shape[0]} samples")
        return np.asarray(stamps[part], np.float64)
    start: Any = hdf5.internal(group, "starting_time")
    rate = _number(start, "rate", np.nan)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError("a starting_time without a rate")
    return float(start[()]) + np.arange(part.start, part.stop) / rate
