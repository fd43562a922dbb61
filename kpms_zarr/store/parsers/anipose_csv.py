"""anipose csv files of 3-D poses, read as a stream of lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    no_frames,
    some,
    without_confidence,
)
from kpms_zarr.store.parsers.text.reading import (
    Dialect,
    Table,
    column_cells,
    dialect_of,
    first_rows,
    read_blocks,
    sniffed_rows,
)
from kpms_zarr.store.parsers.time.clock import ROWS, Timing
from kpms_zarr.store.parsers.time.row_index import RowIndex

_SPACE = ("x", "y", "z")
_SCORE = "score"
# What anipose writes beside the coordinates of every keypoint.
_BESIDE = ("error", "ncams", _SCORE)
_FRAME_NUMBER = "fnum"
# The change of coordinates that anipose made: a matrix and a centre, the same in all rows.
_TRANSFORMATION = frozenset((*(f"M_{i}{j}" for i in range(3) for j in range(3)), "center")) | {
    f"center_{i}" for i in range(3)
}

# keypoint -> coordinate or other quantity -> number of the field
_Groups = dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Header:
    """Where the numbers are: `position` and `confidence` are indices into `used`."""

    fields: list[str]
    keypoints: tuple[str, ...]
    used: np.ndarray
    position: np.ndarray
    confidence: np.ndarray | None
    frame_number: int | None
    notes: tuple[str, ...]


def sniff(path: Path) -> str | None:
    """Recognise columns such as ``nose_x``, ``nose_y``, ``nose_z``, ``nose_error``."""
    groups, _ = _groups([name for row in sniffed_rows(path) for name in row])
    for name, at in groups.items():
        if {*_SPACE} < at.keys():
            others = ", ".join(f"_{what}" for what in _BESIDE if what in at)
            return f"columns {name[:40]}_x, _y, _z, {others}"
    return None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read the column names, and the frame numbers of all rows; see `Parser`."""
    header = _read_header(path)
    timing = _timing(path, header, options)
    track = timing.of(TrackHeader("", header.keypoints))
    has_confidence = header.confidence is not None
    notes = (*_dialect(path, header).notes, *header.notes, *timing.notes)
    return FileHeader(PARSER.name, path, _SPACE, (track,), has_confidence, notes)


def _timing(path: Path, header: _Header, options: ReadOptions) -> Timing:
    """What the frame numbers say."""
    if header.frame_number is None or options.time_unit == ROWS:
        return Timing()
    numbers = RowIndex(
        unit=options.time_unit, where=str(path), first_row=2, name=f"column `{_FRAME_NUMBER}`"
    )
    for cells in column_cells(_table(path, header), header.frame_number):
        numbers.add(cells)
    return numbers.timing()


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    header = _read_header(path)
    start = 0
    for values in read_blocks(_table(path, header), block_frames):
        confidence = header.confidence
        yield PoseBlock(
            start,
            {"": values[:, header.position]},
            {} if confidence is None else {"": values[:, confidence]},
        )
        start += len(values)


def _dialect(path: Path, header: _Header) -> Dialect:
    return dialect_of(path).for_rows(are_counted=header.frame_number is not None, n_header=1)


def _table(path: Path, header: _Header) -> Table:
    columns = tuple(header.used.tolist())
    names = tuple(header.fields[number].strip() for number in columns)
    return Table(path, 1, len(header.fields), columns, names, dialect=_dialect(path, header))


def _groups(names: list[str]) -> tuple[_Groups, list[str]]:
    """Columns by keypoint, and those that are there twice; the last `_` is where to split."""
    groups: _Groups = {}
    doubled = []
    for number, column in enumerate(names):
        name, _, what = column.strip().rpartition("_")
        if name and what in (*_SPACE, *_BESIDE):
            at = groups.setdefault(name, {})
            if what in at:
                doubled.append(column)
            at.setdefault(what, number)
    return groups, doubled


def _read_header(path: Path) -> _Header:
    names, first_frame = [*first_rows(path, 2), [""], [""]][:2]
    groups, doubled = _groups(names)
    # Other quantities may be called `stage_x` or `trial_score`: anipose writes both kinds.
    keypoints = {
        name: at for name, at in groups.items() if at.keys() & {*_SPACE} and at.keys() & {*_BESIDE}
    } or {name: at for name, at in groups.items() if {*_SPACE} <= at.keys()}
    problems = list(_problems(keypoints, doubled, path, names))
    if not problems and len(first_frame) == 1 and not first_frame[0].strip():
        problems.append(no_frames(str(path), "frame below the header"))
    if problems:
        raise InputError.of(problems)
    return _lay_out(names, keypoints)


def _problems(
    keypoints: _Groups, doubled: list[str], path: Path, names: list[str]
) -> Iterator[Problem]:
    where = f"{path}, header"
    if not keypoints:
        found = some(names[:5]) if len(names) > 1 else f"the text {names[0][:40]!r}"
        yield Problem(
            expected="columns NAME_x, NAME_y, NAME_z, NAME_error, NAME_ncams, NAME_score",
            found=found,
            where=where,
            fix="check that this is a csv file of `pose-3d` written by anipose, with commas",
        )
    lacking = [f"{n}_{c}" for n, at in keypoints.items() for c in _SPACE if c not in at]
    if lacking:
        yield Problem(
            expected="columns _x, _y, _z for every keypoint",
            found=f"no {some(lacking)}",
            where=where,
            fix="export the file again with all its columns, or remove the keypoint",
        )
    if doubled:
        yield Problem(
            expected="one column for every coordinate of a keypoint",
            found=f"duplicated columns {some(doubled)}",
            where=where,
            fix="give the keypoints different names",
        )


def _lay_out(names: list[str], keypoints: _Groups) -> _Header:
    unscored = [name for name, at in keypoints.items() if _SCORE not in at]
    notes = [*without_confidence("score", unscored, len(keypoints))]
    wanted = _SPACE if unscored else (*_SPACE, _SCORE)
    columns = np.array([[at[what] for what in wanted] for at in keypoints.values()], dtype=int)
    used = np.sort(columns, axis=None)
    within = np.searchsorted(used, columns)
    known = {number for at in keypoints.values() for number in at.values()}
    stripped = [name.strip() for name in names]
    others = [
        name
        for number, name in enumerate(stripped)
        if name and number not in known and name not in (_FRAME_NUMBER, *_TRANSFORMATION)
    ]
    if others:
        notes.append(f"left out columns that are no coordinates of keypoints: {some(others)}")
    return _Header(
        fields=names,
        keypoints=tuple(keypoints),
        used=used,
        position=within[:, : len(_SPACE)],
        confidence=None if unscored else within[:, -1],
        frame_number=stripped.index(_FRAME_NUMBER) if _FRAME_NUMBER in stripped else None,
        notes=tuple(notes),
    )


PARSER = Parser("anipose_csv", "anipose csv", sniff, inspect, read)
