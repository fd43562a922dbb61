"""DeepLabCut and Lightning Pose csv files, read as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.appearing import appears
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    no_frames,
    remembered,
)
from kpms_zarr.store.parsers.dlc.header import (
    COORDS,
    SCAN_FRAMES,
    Layout,
    lay_out,
    of_appearing,
    refuse_labelled_frames,
    with_repeated_names,
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

# scorer, individuals, bodyparts, coords, the name of the index, two frames
_FIRST_LINES = 7
# Index columns, one for every time that pandas saved the file again.
_MOST_INDEX = 8
_LAST_LEVEL = "coords"
_NEW_INDEX = re.compile(r"Unnamed: \d+(_level_\d+)?(\.\d+)?")
# Few, because in most files all individuals appear at once.
_SEARCH_FRAMES = 256


@dataclass(frozen=True)
class _Header:
    """Shape of the text around the numbers.

    `n_lines` lines come before the first frame; every line has `n_fields` fields, of
    which the first `n_index` (0 or 1) are the frame index.
    """

    layout: Layout
    columns: list[tuple[str, ...]]
    n_lines: int
    n_fields: int
    n_index: int


def sniff(path: Path) -> str | None:
    """Recognise the header rows; see `Parser`."""
    rows = sniffed_rows(path, _FIRST_LINES)
    last = _coords_row(rows)
    at = _level_column(rows[: 4 if last is None else last + 1])
    levels = [row[at].strip().lower() for row in rows if len(row) > at]
    if levels[:2] in (["scorer", "bodyparts"], ["scorer", "individuals"]):
        return f"header rows {', '.join(c for c in levels[:4] if c.isalpha())}"
    if last in (1, 2, 3):
        return f"{('two', 'three', 'four')[last - 1]} header rows that end with x, y"
    return None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read the header, and for multi-animal files find who appears; see `Parser`."""
    header, layout = _inspect(path)
    found = layout.header(PARSER.name, path, _timing(path, header, layout, options))
    return replace(found, notes=(*_dialect(path, header).notes, *found.notes))


def _timing(path: Path, header: _Header, layout: Layout, options: ReadOptions) -> Timing:
    """What the row index says of the frames."""
    if not header.n_index or options.time_unit == ROWS:
        return Timing()
    index = RowIndex(unit=options.time_unit, where=str(path), first_row=header.n_lines + 1)
    for cells in column_cells(_table(path, header, layout), header.n_index - 1):
        index.add(cells)
    return index.timing()


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    header, layout = _inspect(path)
    yield from _blocks(path, header, layout, block_frames)


@remembered
def _inspect(path: Path) -> tuple[_Header, Layout]:
    header = _read_header(path)
    return header, of_appearing(header.layout, partial(_search, path, header), str(path))


def _coords_row(rows: list[list[str]]) -> int | None:
    """Number of the header row that says x, y, likelihood."""
    for number, row in enumerate(rows):
        cells = [cell.strip().lower() for cell in row]
        at = cells.index(_LAST_LEVEL) if _LAST_LEVEL in cells[:_MOST_INDEX] else 0
        rest = {cell for cell in cells[at + 1 :] if cell}
        if {"x", "y"} <= set(cells) and (cells[at] == _LAST_LEVEL or rest <= COORDS):
            return number
    return None


def _level_column(head: list[list[str]]) -> int:
    """Column with the names of the header rows: the first, or behind those that pandas put before.

    Read without ``index_col``, a table has them in a column of its own, after the new index.
    """
    if not head:
        return 0
    for at, cell in enumerate(head[-1][:_MOST_INDEX]):
        if cell.strip().lower() == _LAST_LEVEL:
            return at
        if cell.strip() and not (cell.strip().isdigit() or _NEW_INDEX.fullmatch(cell.strip())):
            break
    return 0


def _read_header(path: Path) -> _Header:
    rows = first_rows(path, _FIRST_LINES)
    last = _coords_row(rows)
    if last is None:
        cells = ", ".join(repr(row[0][:40]) for row in rows[:4] if row)
        raise InputError(
            expected="header rows scorer, (individuals,) bodyparts, coords",
            found=f"rows that begin with {cells}" if cells else "an empty file",
            where=str(path),
            fix="check that this is a csv file written by DeepLabCut or Lightning Pose, with "
            "commas",
        )
    head, frames = rows[: last + 1], rows[last + 1 :]
    n_fields = len(head[-1])
    n_extra = _level_column(head)
    n_index = 0
    if head[-1][0].strip().lower() not in COORDS:
        n_index = n_extra + _index_columns(head[-1][n_extra:])
    names = [row[n_extra] if n_index and len(row) > n_extra else "" for row in head]
    columns = with_repeated_names(_columns(head, n_index, path))
    layout = lay_out(names, columns, f"{path}, header")
    skipped = 1 if n_index and _is_index_name([row[n_extra:] for row in frames]) else 0
    if not any(len(row) > 1 for row in frames[skipped:]):
        raise InputError.of([no_frames(str(path), "frame below the header")])
    first_index = frames[skipped][n_extra] if n_index else ""
    refuse_labelled_frames(first_index, max(n_index - n_extra, 1), str(path))
    return _Header(layout, columns, len(head) + skipped, n_fields, n_index)


def _index_columns(coords: list[str]) -> int:
    """Fields before the first coordinate: one, or several in files of labelled frames."""
    n_index = 1
    while n_index < len(coords) and not coords[n_index].strip():
        n_index += 1
    return n_index


def _columns(head: list[list[str]], n_index: int, path: Path) -> list[tuple[str, ...]]:
    """Header cells of every data column; empty columns at the end (spreadsheets) are dropped."""
    width = len(head[-1])
    if any(len(row) != width for row in head[1:] or head):
        found = "rows of " + ", ".join(str(len(row)) for row in head) + " fields"
        raise InputError(
            expected="header rows of the same length",
            found=found,
            where=f"{path}, header",
            fix="the file may be cut off or edited: export it again",
        )
    # The scorer row, which is not needed, may be shorter.
    padded = [row + [""] * (width - len(row)) for row in head]
    columns = list(zip(*(row[n_index:width] for row in padded), strict=True))
    while columns and not any(columns[-1][-2:]):
        columns.pop()
    return columns


def _is_index_name(frames: list[list[str]]) -> bool:
    """Whether the first row is a name of the index, which pandas puts on a row of its own.

    A first frame in which nothing was found looks alike if the index is text, so the next
    row has to be counted with a number.
    """
    if len(frames) < 2 or not frames[0] or not frames[1]:
        return False
    name, *rest = frames[0]
    return not any(rest) and bool(name) and not name.isdigit() and frames[1][0].isdigit()


def _dialect(path: Path, header: _Header) -> Dialect:
    return dialect_of(path).for_rows(are_counted=header.n_index > 0, n_header=header.n_lines)


def _table(path: Path, header: _Header, layout: Layout) -> Table:
    columns = [header.columns[number] for number in layout.used]
    return Table(
        path,
        header.n_lines,
        header.n_fields,
        columns=tuple((layout.used + header.n_index).tolist()),
        names=tuple(" ".join(column[1:] if len(column) > 2 else column) for column in columns),
        dialect=_dialect(path, header),
    )


def _blocks(path: Path, header: _Header, layout: Layout, block_frames: int) -> Iterator[PoseBlock]:
    start = 0
    for values in read_blocks(_table(path, header, layout), block_frames):
        yield layout.block(start, values)
        start += len(values)


def _search(path: Path, header: _Header) -> Iterator[PoseBlock]:
    """Blocks to look for individuals in: once some have been seen, of the others alone.

    An individual that never appears makes this a search of the whole file, but of its own columns
    only.
    """
    for block in _blocks(path, header, header.layout, _SEARCH_FRAMES):
        yield block
        unseen = [name for name in block.position if not appears(block, name)]
        break
    else:
        return
    if unseen:
        yield from _blocks(path, header, header.layout.of(unseen), SCAN_FRAMES)


PARSER = Parser("dlc_csv", "DeepLabCut or Lightning Pose csv", sniff, inspect, read)
