"""Any csv or parquet table whose columns are plain from their names, or described by a mapping.

A mapping says which columns hold what. There are two kinds of tables. Wide ones have a row for
each frame; their columns follow a pattern, or are named one by one::

    {"pattern": "{keypoint}_{coord}", "frame": "frame"}

    {"keypoints": {"nose": {"x": "nose X", "y": "nose Y", "confidence": "nose P"},
                   "tail": {"x": "tail X", "y": "tail Y", "confidence": "tail P"}}}

Long ones have a row for each keypoint in each frame::

    {"frame": "frame", "keypoint": "bodypart", "x": "x", "y": "y", "confidence": "score",
     "individual": "animal"}

More keys, all optional:

``frame``
    Column with the number of the frame (needed in long tables). Frames without a row are missing.
``time``
    Column with the time in seconds, for the frame rate.
``individual``
    Column with the name of the animal, if rows are of several; wide tables with several animals in
    a row have ``{individual}`` in their pattern.
``coords``
    With a pattern: what stands for x, y, z and confidence, such as ``{"x": "X", "y": "Y"}``.
``missing``
    Numbers or texts that stand for a coordinate that is missing, such as ``[-1, "lost"]``; empty
    cells, ``nan`` and words such as ``NA`` and ``null`` always do.

A file that needs no mapping has the columns frame, keypoint, x, y and perhaps z, confidence,
individual; or those of SLEAP's csv export (track, frame_idx, instance.score, NAME.x, NAME.y,
NAME.score); or NAME_x, NAME_y and perhaps NAME_z, NAME_confidence (or _likelihood, _score, _conf,
_p) for each keypoint and at most one column of frames or times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    float32,
)
from kpms_zarr.store.parsers.table.files import Batch, names_of, sniffed_names
from kpms_zarr.store.parsers.table.mapping import Columns, columns_of, plain, unit_in
from kpms_zarr.store.parsers.table.rows import (
    Rows,
    batches_of,
    check_frames,
    codes_of,
    dialect_in,
    frames_of,
    scan,
)
from kpms_zarr.store.parsers.time.clock import ROWS, Clock, Timing, told
from kpms_zarr.store.parsers.time.gaps import Count, contradiction

_BLOCK_BYTES = 32_000_000
# Rows in any order are put in place in memory, as long as that takes no more than this.
_UNSORTED_BYTES = 256_000_000


@dataclass(frozen=True)
class _Table:
    """A table that was found to be right.

    Attributes
    ----------
    path : Path
    columns : Columns
    rows : Rows
    tracks : tuple of TrackHeader
    cells : dict of str to ndarray
        Key of the track -> its cells. The coordinates of a frame are in one row of cells:
        individual by individual, in each keypoint by keypoint.
    n_cells : int
    notes : tuple of str
    """

    path: Path
    columns: Columns
    rows: Rows
    tracks: tuple[TrackHeader, ...]
    cells: dict[str, np.ndarray]
    n_cells: int
    notes: tuple[str, ...]

    @property
    def frame_bytes(self) -> int:
        return self.n_cells * (len(self.columns.space) + 1) * 4


def sniff(path: Path) -> str | None:
    """Recognise columns that leave no doubt; see `Parser`."""
    mapping = plain(sniffed_names(path))
    if mapping is None:
        return None
    if "pattern" in mapping:
        return "columns track, frame_idx, instance.score, NAME.x, NAME.y"
    return "columns NAME_x, NAME_y" if "keypoints" in mapping else "columns frame, keypoint, x, y"


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Find columns, frames, and names in rows; see `Parser`."""
    table = _inspect(path, options)
    has_confidence = bool(table.columns.confidence)
    return FileHeader(
        PARSER.name,
        path,
        table.columns.space,
        table.tracks,
        has_confidence,
        (*dialect_in(path, table.columns).notes, *table.notes),
    )


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    table = _inspect(path, options)
    start = 0
    for position, confidence in _windows(table, block_frames):
        for first in range(0, len(position), block_frames):
            frames = slice(first, first + block_frames)
            yield PoseBlock(
                start + first,
                {key: position[frames, cells] for key, cells in table.cells.items()},
                {key: confidence[frames, cells] for key, cells in table.cells.items()}
                if table.columns.confidence
                else {},
            )
        start += len(position)


def _inspect(path: Path, options: ReadOptions) -> _Table:
    names = names_of(path)
    columns = columns_of(names, options.mapping, str(path))
    if options.time_unit == ROWS:
        is_wide = columns.keypoint is None and columns.individual is None
        columns = replace(columns, time=None, frame=None if is_wide else columns.frame)
    rows, timing = _timed(path, columns, names, options.time_unit)
    tracks, cells = _tracks(columns, rows)
    n_cells = sum(map(len, cells.values()))
    table = _Table(
        path,
        columns,
        rows,
        tuple(timing.of(TrackHeader(individual, keypoints)) for individual, keypoints in tracks),
        cells,
        n_cells,
        (*columns.notes, *timing.notes),
    )
    if not rows.is_sorted and rows.n_frames * table.frame_bytes > _UNSORTED_BYTES:
        raise InputError(
            expected="rows sorted by frame, in a table of this size",
            found="frames in another order",
            where=str(path),
            fix="sort the table, for example with pandas: df.sort_values('frame')",
        )
    return table


def _timed(path: Path, columns: Columns, names: Sequence[str], unit: str) -> tuple[Rows, Timing]:
    """The rows, and what the columns of frames and times say together."""
    name = "" if columns.time is None else names[columns.time]
    source = f"the times in column `{name}`"
    clock = Clock(source, unit=unit, stated=unit_in(name), where=str(path), first_row=2)
    count = Count()
    rows = scan(path, columns, clock, count)
    check_frames(rows, columns, path)
    if columns.frame is None:
        return rows, clock.timing()
    counted = f"the numbers in column `{names[columns.frame]}`"
    step = max(1, rows.step)
    gaps = None
    if rows.is_sorted and count.common_step == step:
        gaps = count.gaps(counted)
        gaps = gaps and replace(gaps, is_filled=True)
    notes = told(gaps, rows.first, step)
    if columns.time is None or not rows.is_sorted:
        why = (f"{source} are not used: rows are not in the order of frames",)
        return rows, Timing(None, rows.first, step, gaps, notes if columns.time is None else why)
    timing = clock.timing()
    other = timing.gaps
    if timing.fps is not None and (found := contradiction(gaps, other, (counted, source))):
        raise InputError(
            expected="frame numbers and times that say the same",
            found=found,
            where=str(path),
            fix="correct one of the columns, or map only one of them as `frame` or `time`",
        )
    # Of time stamps, only what they say besides.
    notes = (*notes, *(note for note in timing.notes if note not in told(other)))
    return rows, Timing(timing.fps and timing.fps * step, rows.first, step, gaps, notes)


def _tracks(
    columns: Columns, rows: Rows
) -> tuple[list[tuple[str, tuple[str, ...]]], dict[str, np.ndarray]]:
    """Names of individuals and of their keypoints, and where they are among the cells."""
    if columns.individual is None and columns.keypoint is None:
        by_name: dict[str, list[int]] = {}
        for number, (individual, _) in enumerate(columns.slots):
            by_name.setdefault(individual, []).append(number)
        return [
            (individual, tuple(columns.slots[number][1] for number in numbers))
            for individual, numbers in by_name.items()
        ], {individual: np.array(numbers) for individual, numbers in by_name.items()}
    names = tuple(rows.keypoints) or tuple(keypoint for _, keypoint in columns.slots)
    individuals = list(rows.individuals) or [""]
    n = len(names)
    return [(individual, names) for individual in individuals], {
        individual: np.arange(number * n, (number + 1) * n)
        for number, individual in enumerate(individuals)
    }


# ------------------------------------------------------------------ frames


def _windows(table: _Table, block_frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and confidences of consecutive frames, (frame, cell[, space]).

    One window after another is filled; of a table that is not sorted, one for all frames.
    """
    size = min(block_frames, max(1, _BLOCK_BYTES // table.frame_bytes))
    if not table.rows.is_sorted:
        size = table.rows.n_frames
    window, n_seen, last = _Window(table, size), 0, -1
    for batch in batches_of(table.path, table.columns):
        at = np.arange(n_seen, n_seen + len(batch.numbers))
        if table.columns.frame is not None:
            frames = frames_of(batch, table.columns, table.path)
            at = (frames - table.rows.first) // max(1, table.rows.step)
        n_seen += len(batch.numbers)
        last = max(last, int(at.max()))
        pieces = window.pieces(batch)
        done = 0
        while done < len(at):
            stop = int(np.searchsorted(at, window.stop)) if table.rows.is_sorted else len(at)
            window.put(at[done:stop], *(piece[done:stop] for piece in pieces))
            done = stop
            if done < len(at):
                yield window.values()
                window = _Window(table, size, window.stop)
    if last >= window.start:
        position, confidence = window.values()
        yield position[: last + 1 - window.start], confidence[: last + 1 - window.start]


class _Window:
    """Coordinates of some frames, missing until a row has them."""

    def __init__(self, table: _Table, size: int, start: int = 0) -> None:
        self._table = table
        self.start, self.stop = start, start + size
        n_dims = len(table.columns.space)
        self._position = np.full((size, table.n_cells, n_dims), np.nan, np.float32)
        self._confidence = np.full((size, table.n_cells), np.nan, np.float32)
        self._is_seen = np.zeros(size * table.n_cells, bool)

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and confidences."""
        return self._position, self._confidence

    def pieces(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells, positions and confidences, (row, slot[, space])."""
        columns, rows = self._table.columns, self._table.rows
        n_slots, n_dims = len(columns.slots), len(columns.space)
        individual, keypoint = codes_of(batch, columns, rows, self._table.path)
        n_keypoints = len(rows.keypoints) if columns.keypoint is not None else n_slots
        cells = (individual * n_keypoints + keypoint)[:, np.newaxis] + np.arange(n_slots)
        position = float32(batch.numbers[:, : n_slots * n_dims])
        for value in columns.missing:
            if not isinstance(value, str):
                position[position == np.float32(value)] = np.nan
        confidence = float32(batch.numbers[:, n_slots * n_dims :][:, : len(columns.confidence)])
        return cells, position.reshape(-1, n_slots, n_dims), confidence

    def put(
        self, at: np.ndarray, cells: np.ndarray, position: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Fill in rows of the frames `at`, counted from the first of all."""
        if not len(at):
            return
        at = at - self.start
        if at.min() < 0 or at.max() >= self.stop - self.start or cells.max() >= self._table.n_cells:
            raise InputError(
                expected="the same rows as a moment ago",
                found="others",
                where=str(self._table.path),
                fix="wait until the file is written, and do it again",
            )
        self._check_once(at, cells[:, 0])
        frames = at[:, np.newaxis]
        self._position[frames, cells] = position
        if self._table.columns.confidence:
            self._confidence[frames, cells] = confidence

    def _check_once(self, at: np.ndarray, cell: np.ndarray) -> None:
        where = at * self._table.n_cells + cell
        order = np.sort(where)
        twice = np.concatenate([order[1:][order[1:] == order[:-1]], where[self._is_seen[where]]])
        self._is_seen[where] = True
        if not len(twice):
            return
        rows = self._table.rows
        frame, number = divmod(int(twice[0]), self._table.n_cells)
        frame = rows.first + (self.start + frame) * max(1, rows.step)
        fix = "take one of the rows away"
        if self._table.columns.individual is None:
            fix += ", or map the column that says which animal it is as `individual`"
        if self._table.columns.may_lack_tracks:
            fix = "track the instances in SLEAP (Tracking > Run Tracking) and export again"
        raise InputError(
            expected="one row for every frame, keypoint and individual",
            found=" ".join([f"several for frame {frame}", *self._names(number)]),
            where=str(self._table.path),
            fix=fix,
        )

    def _names(self, cell: int) -> Sequence[str]:
        for track in self._table.tracks:
            cells = self._table.cells[track.key].tolist()
            if cell in cells:
                keypoint = track.keypoints[cells.index(cell)]
                is_long = self._table.columns.keypoint is not None
                return [name for name in (track.individual, keypoint if is_long else "") if name]
        return []


PARSER = Parser("table", "generic csv or parquet table", sniff, inspect, read)
