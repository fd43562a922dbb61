"""DeepLabCut and Lightning Pose csv files, read as a stream of lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TextIO

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import FileHeader, Parser, PoseBlock
from kpms_zarr.store.parsers.dlc import (
    COORDS,
    SCAN_FRAMES,
    Layout,
    check_block_frames,
    lay_out,
    only_appearing,
    refuse_labelled_frames,
)

# scorer, individuals, bodyparts, coords, the name of the index, two frames
_FIRST_LINES = 7
# Far more than a real header line; stops at once in a large file without line ends.
_LONGEST_LINE = 4_000_000

# Python reads "nan" in any case by itself.
_MISSING = ("", "NA", "N/A", "#N/A", "null", "NULL", "None", "<NA>")


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
    try:
        with path.open(encoding="utf-8-sig") as file:
            rows = _first_rows(file)
    except (OSError, ValueError, csv.Error):
        return None
    first_cells = [row[0].strip().lower() for row in rows if row]
    if first_cells[:2] in (["scorer", "bodyparts"], ["scorer", "individuals"]):
        return f"header rows {', '.join(c for c in first_cells[:4] if c.isalpha())}"
    if _coords_row(rows) in (2, 3):
        return "three or four header rows that end with x, y"
    return None


def inspect(path: Path) -> FileHeader:
    """Read the header, and for multi-animal files find who appears; see `Parser`."""
    return _inspect(path)[1].header(PARSER.name, path)


def read(path: Path, block_frames: int) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    check_block_frames(block_frames)
    header, layout = _inspect(path)
    yield from _blocks(path, header, layout, block_frames)


def _inspect(path: Path) -> tuple[_Header, Layout]:
    header = _read_header(path)
    scan = partial(_blocks, path, header, header.layout, SCAN_FRAMES)
    return header, only_appearing(header.layout, scan, str(path))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open for reading; what the operating system or the decoder dislikes is an InputError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(
            expected="text in UTF-8",
            found=f"the byte {error.object[error.start : error.start + 1]!r}",
            where=str(path),
            fix="save the file as `CSV UTF-8`; if it should be text already, it may be damaged",
        ) from error
    except csv.Error as error:
        raise _not_a_header(path, str(error)) from error
    except OSError as error:
        raise InputError(
            expected="a file that can be read",
            found=error.strerror or str(error),
            where=str(path),
            fix="check the path and the permissions",
        ) from error


def _first_rows(file: TextIO) -> list[list[str]]:
    lines = (file.readline(_LONGEST_LINE) for _ in range(_FIRST_LINES))
    return [_fields(line) for line in lines if line]


def _fields(line: str) -> list[str]:
    return next(csv.reader([line.rstrip("\n")]), [])


def _coords_row(rows: list[list[str]]) -> int | None:
    """Number of the header row that says x, y, likelihood."""
    for number, row in enumerate(rows):
        cells = [cell.strip().lower() for cell in row]
        rest = {cell for cell in cells[1:] if cell}
        if {"x", "y"} <= set(cells) and (cells[0] == "coords" or rest <= COORDS):
            return number
    return None


def _read_header(path: Path) -> _Header:
    with _opened(path) as file:
        rows = _first_rows(file)
    last = _coords_row(rows)
    if last is None:
        cells = ", ".join(repr(row[0][:40]) for row in rows[:4] if row)
        raise _not_a_header(path, f"rows that begin with {cells}" if cells else "an empty file")
    head, frames = rows[: last + 1], rows[last + 1 :]
    n_fields = len(head[-1])
    n_index = 0 if head[-1][0].strip().lower() in COORDS else _index_columns(head[-1])
    names = [row[0] if n_index and row else "" for row in head]
    columns = _columns(head, n_index, path)
    layout = lay_out(names, columns, f"{path}, header")
    skipped = 1 if n_index and _is_index_name(frames) else 0
    if not any(len(row) > 1 for row in frames[skipped:]):
        raise InputError(
            expected="at least one frame below the header",
            found="0 frames",
            where=str(path),
            fix="export the tracking of this video again, or leave the file out",
        )
    first_index = frames[skipped][0] if n_index else ""
    refuse_labelled_frames(first_index, max(n_index, 1), str(path))
    return _Header(layout, columns, len(head) + skipped, n_fields, n_index)


def _not_a_header(path: Path, found: str) -> InputError:
    return InputError(
        expected="header rows scorer, (individuals,) bodyparts, coords",
        found=found,
        where=str(path),
        fix="check that this is a csv file written by DeepLabCut or Lightning Pose, with commas",
    )


def _index_columns(coords: list[str]) -> int:
    """Fields before the first coordinate: one, or several in files of labelled frames."""
    n_index = 1
    while n_index < len(coords) and not coords[n_index].strip():
        n_index += 1
    return n_index


def _columns(head: list[list[str]], n_index: int, path: Path) -> list[tuple[str, ...]]:
    """Header cells of every data column; empty columns at the end (spreadsheets) are dropped."""
    width = len(head[-1])
    if any(len(row) != width for row in head[1:]):
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
    while columns and not any(columns[-1][1:]):
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


def _blocks(path: Path, header: _Header, layout: Layout, block_frames: int) -> Iterator[PoseBlock]:
    start = 0
    with _opened(path) as file:
        lines = _lines(file, header, path)
        while block := list(islice(lines, block_frames)):
            first_row = header.n_lines + 1 + start
            yield layout.block(start, _numbers(block, header, first_row, path))
            start += len(block)


def _lines(file: TextIO, header: _Header, path: Path) -> Iterator[str]:
    """Lines of the frames, each with the right number of fields.

    A short line is otherwise the last one of a file that was cut off, or a damaged one.
    """
    lines = enumerate(islice(file, header.n_lines, None), start=header.n_lines + 1)
    for row, line in lines:
        n_fields = len(_fields(line)) if '"' in line else line.count(",") + 1
        if n_fields == header.n_fields and not line.isspace():
            yield line
            continue
        rest = next((text for _, text in lines if not text.isspace()), None)
        if line.isspace() and rest is None:
            return
        cut_off = rest is None and n_fields < header.n_fields
        raise InputError(
            expected=f"{header.n_fields} fields",
            found="an empty line" if line.isspace() else f"{n_fields} fields",
            where=f"{path}, row {row}",
            fix="the file is cut off: copy or export it again, or delete its last, incomplete row"
            if cut_off
            else "correct this row, or export the file again",
        )


def _numbers(lines: list[str], header: _Header, first_row: int, path: Path) -> np.ndarray:
    """Numbers of the used columns, (frame, column) float64.

    NumPy's C reader takes a block of plain numbers and empty cells; a block with anything else
    (quotes, NA, a wrong cell) is read cell by cell, which names the one that is wrong.
    """
    plain = _plain_numbers(lines, header)
    return _checked_numbers(lines, header, first_row, path) if plain is None else plain


def _plain_numbers(lines: list[str], header: _Header) -> np.ndarray | None:
    """The block by NumPy's reader, which rounds as `float` does; None when it is not plain."""
    text = "".join(lines).replace(",,", ",nan,").replace(",,", ",nan,").replace(",\n", ",nan\n")
    text = text + "nan" if text.endswith(",") else text
    wanted = (header.layout.used + header.n_index).tolist()
    try:
        values = np.loadtxt(
            io.StringIO(text), delimiter=",", comments=None, usecols=wanted, ndmin=2
        )
    except ValueError:
        return None
    return values if values.shape == (len(lines), len(wanted)) else None


def _checked_numbers(lines: list[str], header: _Header, first_row: int, path: Path) -> np.ndarray:
    """The block cell by cell."""
    wanted = header.layout.used + header.n_index
    pick = itemgetter(*wanted.tolist())
    values = np.empty((len(lines), len(wanted)))
    for number, line in enumerate(lines):
        cells = pick(_fields(line) if '"' in line else line.rstrip("\n").split(","))
        try:
            # Python alone would read 1_0 as ten.
            if any("_" in cell for cell in cells):
                raise ValueError
            values[number] = [float(cell) if cell else np.nan for cell in cells]
        except ValueError:
            row = f"{path}, row {first_row + number}"
            values[number] = [
                _number(cell, row, header.columns[column])
                for cell, column in zip(cells, header.layout.used, strict=True)
            ]
    return values


def _number(cell: str, row: str, column: tuple[str, ...]) -> float:
    """Read a cell of a row that is not all plain numbers."""
    cell = cell.strip()
    if cell in _MISSING:
        return np.nan
    try:
        if "_" not in cell:
            return float(cell)
    except ValueError:
        pass
    raise InputError(
        expected="a number or an empty cell",
        found=f"the text {cell[:40]!r}",
        where=f"{row}, column {' '.join(column[1:])}",
        fix="correct this cell (empty it where the point is missing), or export the file again",
    )


PARSER = Parser("dlc_csv", "DeepLabCut or Lightning Pose csv", sniff, inspect, read)
