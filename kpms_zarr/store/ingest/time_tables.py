"""Tables of times of frames: files and tables of several sessions, or one file for each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from kpms_zarr.store.errors import InputError, Problem, unreadable
from kpms_zarr.store.parsers.table.files import batches, is_parquet, names_of
from kpms_zarr.store.parsers.table.mapping import unit_in
from kpms_zarr.store.parsers.text.reading import first_rows
from kpms_zarr.store.parsers.time.stamps import SECONDS
from kpms_zarr.store.wording import listed

TimesLike: TypeAlias = (
    "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame | Mapping[str, Any]"
)
"""Files or a table of times, arrays of them by session, or ``"none"``."""

_AT_ONCE = 262_144
_SESSION = ("session", "recording", "source", "file", "video", "name")
FRAME, VIDEO_FRAME = "frame", "video_frame"
_FRAME = {
    "frame": FRAME, "frame_index": FRAME, "frame_number": FRAME, "video_frame": VIDEO_FRAME,
}  # fmt: skip
_TIME = {"time", "times", "timestamp", "timestamps", "t"}
_ENDING = re.compile(r"[ ._-]*(time ?stamps?|times?)$", re.IGNORECASE)
"""What files of times are called behind the name of what they are of."""


@dataclass(frozen=True)
class TimePiece:
    """Consecutive rows of one session, as they are in a table.

    Attributes
    ----------
    key : str
        What the table calls the session.
    row : ndarray, (row,) int64
        Their numbers, as people count them.
    time : ndarray, (row,) float64
        In s; NaN = none.
    frame : ndarray or None, (row,) float64
        Numbers of frames, where the table has some.
    """

    key: str
    row: np.ndarray
    time: np.ndarray
    frame: np.ndarray | None = None


@dataclass(frozen=True)
class TimeSource:
    """Times of some sessions, that can be read several times over.

    Attributes
    ----------
    where : str
        Named in errors.
    keys : dict of str to int
        What sessions are called, and the number of the first row of each; 0 = not in a row.
    counts : str
        What numbers of frames are: ``"frame"`` of the session, ``"video_frame"`` of its video, ""
        = there are none, rows follow one another.
    notes : tuple of str
    """

    where: str
    keys: Mapping[str, int]
    counts: str
    _read: Any = field(repr=False)
    notes: tuple[str, ...] = ()

    def pieces(self) -> Iterator[TimePiece]:
        """Read the rows: those of each session in their order."""
        yield from self._read()


def sources_of(table: TimesLike, session: str | None = None) -> list[TimeSource]:
    """Look at tables of times (see :func:`kpms_zarr.timestamps`).

    Parameters
    ----------
    table : path, sequence of path, DataFrame or mapping
    session : str, optional
        That a single file without names of sessions is of.

    Raises
    ------
    InputError
        With all files that cannot be read or are no tables of times.
    """
    if isinstance(table, pd.DataFrame):
        return [_of_frame(table)]
    if isinstance(table, Mapping):
        return [_of_arrays(table)]
    given: Any = [table] if isinstance(table, str | os.PathLike) else table
    paths = [Path(one) for one in given]
    if session is not None and len(paths) != 1:
        raise InputError(
            expected="one file, where a session is named",
            found=f"{len(paths)} files",
            where="`session=`",
            fix="give the files one after the other, or call each like its session",
        )
    found, problems = [], list[Problem]()
    for path in paths:
        try:
            found.append(_of_file(path, session))
        except InputError as error:
            problems += error.problems
    if not paths:
        problems.append(_no_times("no files", "`table=`"))
    if problems:
        raise InputError.of(problems)
    return found


def _no_times(found: str, where: str) -> Problem:
    return Problem(
        "a time for each frame: the columns session, time_s and perhaps frame, or numbers alone",
        found,
        where,
        "write a row for each frame, such as mouse1,0,12.345 below session,frame,time_s; or one "
        "file for each session, called like it",
    )


# ------------------------------------------------------------------ in memory


def _of_arrays(arrays: Mapping[str, Any]) -> TimeSource:
    where, problems = "`table=`", list[Problem]()
    found: dict[str, np.ndarray] = {}
    for key, values in arrays.items():
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            problems.append(_no_numbers(array, f"{where}, session {key}"))
        found[str(key)] = array
    if not arrays:
        problems.append(_no_times("no arrays", where))
    if problems:
        raise InputError.of(problems)

    def read() -> Iterator[TimePiece]:
        for key, array in found.items():
            yield from _cut(key, array, 0)

    return TimeSource(where, dict.fromkeys(found, 0), "", read)


def _no_numbers(array: np.ndarray, where: str) -> Problem:
    return Problem(
        "an array (frame,) of numbers, in s",
        f"one of shape {array.shape} and type {array.dtype}",
        where,
        "give a number for each frame of the session",
    )


def _cut(key: str, array: np.ndarray, row: int) -> Iterator[TimePiece]:
    for start in range(0, len(array), _AT_ONCE):
        part = np.asarray(array[start : start + _AT_ONCE], np.float64)
        yield TimePiece(key, row + np.arange(start, start + len(part)), part)


def _of_frame(table: pd.DataFrame) -> TimeSource:
    where = "`table=`"
    names = [str(name) for name in table.columns]
    columns = _TimeColumns.of(names, where)
    if columns.session is None:
        raise InputError.of([_no_times(f"the columns {listed(names)}", where)])
    code, texts = pd.factorize(table.iloc[:, columns.session].astype(str))

    def numbers(place: int) -> np.ndarray:
        values = pd.to_numeric(table.iloc[:, place], errors="coerce")
        return values.to_numpy(np.float64, na_value=np.nan)

    keys = {str(text): int((code == number).argmax()) for number, text in enumerate(texts)}

    def read() -> Iterator[TimePiece]:
        time = numbers(columns.time) * columns.scale
        frame = None if columns.frame is None else numbers(columns.frame)
        for number, text in enumerate(texts):
            rows = np.flatnonzero(code == number)
            own = None if frame is None else frame[rows]
            yield TimePiece(str(text), rows, time[rows], own)

    return TimeSource(where, keys, columns.counts, read)


# ------------------------------------------------------------------ files


@dataclass(frozen=True)
class _TimeColumns:
    """Which columns hold what, and seconds per unit of the times."""

    session: int | None
    frame: int | None
    counts: str
    time: int
    scale: float

    @classmethod
    def of(cls, names: Sequence[str], where: str) -> _TimeColumns:
        """Find the columns by their names; an InputError without times, or with several."""
        lower = [name.strip().lower() for name in names]
        times = [n for n, name in enumerate(lower) if re.split(r"[\W_]+", name)[0] in _TIME]
        if "time_s" in lower:
            times = [lower.index("time_s")]
        if len(times) != 1:
            found = f"the columns {listed(map(repr, names))}"
            if times:
                found = f"several columns of times, {listed(repr(names[n]) for n in times)}"
            raise InputError.of([_no_times(found, where)])
        unit = unit_in(lower[times[0]]) or "s"
        session = next((lower.index(name) for name in _SESSION if name in lower), None)
        frame = next((name for name in _FRAME if name in lower), None)
        return cls(
            session,
            None if frame is None else lower.index(frame),
            "" if frame is None else _FRAME[frame],
            times[0],
            SECONDS[unit],
        )


def _of_file(path: Path, session: str | None) -> TimeSource:
    try:
        with path.open("rb") as raw:
            is_array = raw.read(6) == b"\x93NUMPY"
        parquet = is_parquet(path) if path.stat().st_size > 8 else False
    except OSError as error:
        raise unreadable(path, error) from error
    key = session if session is not None else _name_of(path)
    if is_array:
        return _of_npy(path, key)
    rows = [names_of(path)] if parquet else first_rows(path, 2)
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise InputError.of([_no_times("an empty file", str(path))])
    has_header = parquet or not all(map(_is_number, rows[0]))
    if len(rows[0]) == 1 and not parquet:
        return _of_lines(path, key, rows[0][0].strip() if has_header else "")
    if not has_header:
        found = f"{len(rows[0])} columns without names"
        raise InputError.of([_no_times(found, str(path))])
    columns = _TimeColumns.of(rows[0], str(path))
    if columns.session is None:
        read = partial(_rows, path, columns, key)
        return TimeSource(str(path), {key: 0}, columns.counts, read)
    if session is not None:
        raise InputError(
            expected="a file of one session, where that is named",
            found=f"one with a column {rows[0][columns.session]!r}",
            where=str(path),
            fix="leave `session=` out: the column says which session each row is of",
        )
    first: dict[str, int] = {}
    for batch in batches(path, (columns.time,), (columns.session,), ()):
        code, texts = batch.texts[0]
        at, place = np.unique(code, return_index=True)
        for number, row in zip(at.tolist(), place.tolist(), strict=True):
            first.setdefault(texts[number], batch.row + row)
    return TimeSource(str(path), first, columns.counts, partial(_rows, path, columns, ""))


def _name_of(path: Path) -> str:
    """What a file of times is of, by its name."""
    name = path.name
    for suffix in (".gz", path.with_suffix("").suffix if name.endswith(".gz") else path.suffix):
        name = name.removesuffix(suffix) if suffix else name
    return _ENDING.sub("", name) or name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_npy(path: Path, key: str) -> TimeSource:
    where = str(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            expected="a whole file of one array",
            found=f"one that NumPy cannot read ({error})",
            where=where,
            fix="write it again: numpy.save(path, times)",
        ) from error
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise InputError.of([_no_numbers(array, where)])
    return TimeSource(where, {key: 0}, "", lambda: _cut(key, array, 0))


def _of_lines(path: Path, key: str, header: str) -> TimeSource:
    """A file of one column; whatever its name is, it holds the times."""
    scale = SECONDS[unit_in(header) or "s"] if header else 1.0
    first = 2 if header else 1

    def read() -> Iterator[TimePiece]:
        row = first
        try:
            with pd.read_csv(
                path, sep="\x1f", header=0 if header else None, names=["time"], dtype=str,
                chunksize=_AT_ONCE, keep_default_na=False,
            ) as chunks:  # fmt: skip
                for chunk in chunks:
                    text = chunk["time"].str.strip()
                    time = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
                    yield TimePiece(key, np.arange(row, row + len(time)), time * scale)
                    row += len(time)
        except OSError as error:
            raise unreadable(path, error) from error
        except UnicodeDecodeError as error:
            raise InputError.of([_no_times("what is no text", str(path))]) from error

    return TimeSource(str(path), {key: 0}, "", read)


def _rows(path: Path, columns: _TimeColumns, key: str) -> Iterator[TimePiece]:
    """Rows of a file with several columns."""
    numeric = (columns.time,) if columns.frame is None else (columns.time, columns.frame)
    textual = () if columns.session is None else (columns.session,)
    for batch in batches(path, numeric, textual, ()):
        time = batch.numbers[:, 0] * columns.scale
        frame = None if columns.frame is None else batch.numbers[:, 1]
        if columns.session is None:
            yield TimePiece(key, batch.row + np.arange(len(time)), time, frame)
            continue
        code, texts = batch.texts[0]
        for number in np.unique(code).tolist():
            rows = np.flatnonzero(code == number)
            own = None if frame is None else frame[rows]
            yield TimePiece(texts[number], batch.row + rows, time[rows], own)
