"""What all rows of a table say together: which frames, individuals and keypoints there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import no_frames
from kpms_zarr.store.parsers.table.files import Batch, batches
from kpms_zarr.store.parsers.table.mapping import Columns
from kpms_zarr.store.parsers.text.dialect import Dialect, dialect_of
from kpms_zarr.store.parsers.time.clock import Clock
from kpms_zarr.store.parsers.time.gaps import Count

_MOST_KEYPOINTS = 1_000
_MOST_INDIVIDUALS = 10_000
_MOST_CELLS = 200_000
# Frames for every row, and in any case; more are wrong numbers, not frames without a row.
_MOST_FRAMES_PER_ROW = 20
_ALWAYS_FINE_FRAMES = 100_000


@dataclass
class Rows:
    """What all rows of a table say together."""

    n_rows: int = 0
    first: int = 0
    last: int = 0
    step: int = 0
    is_sorted: bool = True
    individuals: dict[str, int] = field(default_factory=dict)
    keypoints: dict[str, int] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Number of frames from the first to the last."""
        return (self.last - self.first) // max(1, self.step) + 1


def _asked(columns: Columns) -> tuple[list[int], list[int]]:
    """Columns to read: coordinates, confidences, frame and time; individual and keypoint."""
    numeric = [n for at in columns.position for n in at] + list(columns.confidence)
    numeric += [n for n in (columns.frame, columns.time) if n is not None]
    return numeric, [n for n in (columns.individual, columns.keypoint) if n is not None]


def batches_of(path: Path, columns: Columns) -> Iterator[Batch]:
    """The rows of the columns that are read."""
    missing = [text for text in columns.missing if isinstance(text, str)]
    numeric, textual = _asked(columns)
    return batches(path, numeric, textual, missing, dialect_in(path, columns))


def dialect_in(path: Path, columns: Columns) -> Dialect:
    """How the file is written, and whether rows of nothing but separators at its end count."""
    in_rows = (columns.frame, columns.time, columns.individual, columns.keypoint)
    is_counted = any(column is not None for column in in_rows) or columns.has_index
    return dialect_of(path).for_rows(are_counted=is_counted, n_header=1)


def scan(path: Path, columns: Columns, clock: Clock, count: Count) -> Rows:
    """Look at all rows, or at the first alone where there is nothing to be learnt from the rest.

    The clock is shown the times, the count the numbers of frames.
    """
    rows = Rows()
    in_rows = (columns.frame, columns.time, columns.individual, columns.keypoint)
    is_needed = any(column is not None for column in in_rows)
    before = -1
    for batch in batches_of(path, columns):
        is_new = np.ones(len(batch.numbers), bool)
        if columns.frame is not None:
            frames = frames_of(batch, columns, path)
            is_new = np.diff(frames, prepend=before) != 0
            _add_frames(rows, frames, before)
            before = int(frames[-1])
            if rows.is_sorted:
                count.add(frames[is_new].astype(np.float64))
        if columns.time is not None:
            clock.add(batch.numbers[is_new, -1])
        codes_of(batch, columns, rows, path)
        rows.n_rows += len(batch.numbers)
        if not is_needed:
            break
    return rows


def frames_of(batch: Batch, columns: Columns, path: Path) -> np.ndarray:
    """Numbers of the frames of a batch, (row,) int64."""
    values = batch.numbers[:, -1 if columns.time is None else -2]
    with np.errstate(invalid="ignore"):
        is_wrong = ~((values >= 0) & (values < 2**53) & (values == np.floor(values)))
    if is_wrong.any():
        wrong = int(np.argmax(is_wrong))
        raise InputError(
            expected="a frame number: a whole number, 0 or more",
            found="none" if np.isnan(values[wrong]) else f"{values[wrong]:g}",
            where=f"{path}, row {batch.row + wrong}",
            fix="correct this cell; if the column holds times in seconds, map it as `time`",
        )
    return values.astype(np.int64)


def _add_frames(rows: Rows, frames: np.ndarray, before: int) -> None:
    if not rows.n_rows:
        rows.first = rows.last = int(frames[0])
    rows.is_sorted &= bool(frames[0] >= before and (np.diff(frames) >= 0).all())
    apart = int(np.gcd.reduce(np.abs(frames - rows.first)))
    # From whichever frame they are counted, distances have the same divisor.
    rows.step = int(np.gcd(rows.step, apart))
    rows.first = min(rows.first, int(frames.min()))
    rows.last = max(rows.last, int(frames.max()))


def codes_of(batch: Batch, columns: Columns, rows: Rows, path: Path) -> tuple[np.ndarray, ...]:
    """Number of the individual and of the keypoint of every row, new names added."""
    texts = iter(batch.texts)
    zeros = np.zeros(len(batch.numbers), np.int64)
    found = []
    for column, known, most, what in (
        (columns.individual, rows.individuals, _MOST_INDIVIDUALS, "individual"),
        (columns.keypoint, rows.keypoints, _MOST_KEYPOINTS, "keypoint"),
    ):
        if column is None:
            found.append(zeros)
            continue
        codes, names = next(texts)
        problem = ""
        is_untracked = (
            what == "individual" and columns.may_lack_tracks and not any({*known, *names})
        )
        if "" in names and not is_untracked:
            problem, row = "none", batch.row + int(np.argmax(codes == names.index("")))
        elif "" in known and any(names):
            problem, row = "none in rows before", batch.row
        elif len(known.keys() | set(names)) > most:
            problem, row = f"more than {most} different ones", batch.row
        if problem:
            raise InputError(
                expected=f"the name of the {what}",
                found=problem,
                where=f"{path}, row {row}",
                fix=f"correct this row, or map another column as `{what}`",
            )
        numbers = [known.setdefault(name, len(known)) for name in names]
        found.append(np.array(numbers, np.int64)[codes] if len(codes) else zeros)
    return tuple(found)


def check_frames(rows: Rows, columns: Columns, path: Path) -> None:
    if not rows.n_rows:
        raise InputError.of([no_frames(str(path), "row below the header")])
    n_cells = max(1, len(rows.individuals)) * max(len(rows.keypoints), len(columns.slots))
    if n_cells > _MOST_CELLS:
        raise InputError(
            expected=f"at most {_MOST_CELLS} keypoints of all individuals together",
            found=f"{n_cells}, as there are {len(rows.individuals)} individuals",
            where=str(path),
            fix="map another column as `individual`, or take away individuals seen only shortly",
        )
    most = _ALWAYS_FINE_FRAMES + _MOST_FRAMES_PER_ROW * rows.n_rows
    if columns.frame is not None and rows.n_frames > most:
        raise InputError(
            expected="frame numbers that follow one another, with a few left out",
            found=f"numbers from {rows.first} to {rows.last} in {rows.n_rows} rows",
            where=str(path),
            fix="correct the wrong number, or map another column as `frame`",
        )
