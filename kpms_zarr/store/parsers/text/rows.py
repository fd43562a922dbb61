"""Rows of a range of a text file: by Arrow or NumPy if they are simple, else line by line.

Line by line is what the other two have to agree with, in every value and in every error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.parsers.base import float32
from kpms_zarr.store.parsers.text.dialect import PLAIN, PLAIN_NUMBERS, Dialect, is_thousands

# Python reads "nan" in any case by itself.
MISSING = (
    "", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "Null", "None", "none", "NONE", "<NA>", "-",
    "#NV", "#NUM!", "#VALUE!", "#DIV/0!",
)  # fmt: skip
"""What stands in cells without a number."""

NOT_TEXT = "save the file as `CSV UTF-8`; if it should be text already, it may be damaged"
_CORRECT_ROW = "correct this row, or export the file again"


@dataclass(frozen=True)
class Table:
    """Where the numbers are in a text file.

    Attributes
    ----------
    path : Path
    n_lines : int
        Lines before the first row of numbers.
    n_fields : int
        Cells in every row, at least two.
    columns : tuple of int
        Numbers of the cells to read, from 0, increasing; whatever stands in others is ignored.
    names : tuple of str
        What to call these columns in errors.
    delimiter : str
        One ASCII character.
    dialect : Dialect
        How the file is written. The numbers of lines, and all else here, are those of the plain
        text that it is read as.
    """

    path: Path
    n_lines: int
    n_fields: int
    columns: tuple[int, ...]
    names: tuple[str, ...]
    delimiter: str = ","
    dialect: Dialect = PLAIN

    @property
    def row_bytes(self) -> bytes:
        """What separates the cells of a row, and ends it."""
        return self.delimiter.encode() * (self.n_fields - 1) + b"\n"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line of a range, the first line being 0.

    `is_short`: perhaps the last line of a file that was cut off. `is_blank`: nothing wrong if only
    empty lines follow; `is_last` says that only such lines follow in this range.
    """

    line: int
    expected: str
    found: str
    fix: str
    column: str = ""
    is_short: bool = False
    is_blank: bool = False
    is_last: bool = False


@dataclass(frozen=True)
class Piece:
    """What a range holds: its rows, float32, up to the first one with a fault."""

    values: np.ndarray
    fault: Fault | None = None


Engine = Callable[[Table, bytes], Piece | None]
"""Reads whole lines, or returns None if it cannot. Called in threads."""


def fields(line: str, delimiter: str = ",") -> list[str]:
    """Cells of a line, quotes taken off."""
    line = line.rstrip("\n")
    if '"' in line:
        return next(csv.reader([line], delimiter=delimiter), [])
    return line.split(delimiter)


def has_arrow() -> bool:
    """Whether pyarrow is installed, which lets threads run side by side."""
    return find_spec("pyarrow") is not None


def read_rows(table: Table, text: bytes, engines: tuple[Engine, ...]) -> Piece:
    """Read a range of whole lines with the first engine that can, or line by line."""
    for engine in engines:
        piece = engine(table, text)
        if piece is not None:
            return piece
    return by_lines(table, text)


def _simple_rows(text: bytes) -> tuple[bytes, bool] | None:
    r"""Lines without what needs care, and whether empty ones follow; None if they are not so.

    Between the lines is a "\n", and none after the last.
    """
    if b'"' in text or not _is_utf8(text):
        return None
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            return None
    rows = text.rstrip(b"\n")
    return rows, len(text) > len(rows) + 1


def _is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


# --- Arrow -------------------------------------------------------------------------------


def by_arrow(table: Table, text: bytes) -> Piece | None:
    """With pyarrow, if it finds nothing but numbers and empty cells."""
    simple = _simple_rows(text)
    # Arrow takes "nan(1)" for a number, and a byte order mark off.
    if simple is None or not simple[0] or b"(" in text or text[:3] == b"\xef\xbb\xbf":
        return None
    rows, blank_follows = simple
    try:
        arrow, arrow_csv, options = _arrow(table)
    except ImportError:
        return None
    try:
        read = arrow_csv.read_csv(arrow.BufferReader(rows), **options)
    except arrow.ArrowException:
        return None
    # Arrow leaves empty lines out.
    n_rows = 1 + int(np.count_nonzero(np.frombuffer(rows, np.uint8) == ord("\n")))
    if read.num_rows != n_rows:
        return None
    values = np.empty((n_rows, len(table.columns)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for place, number in enumerate(table.columns):
            column = read.column(str(number)).combine_chunks()
            values[:, place] = column.to_numpy(zero_copy_only=False)
    return Piece(float32(values), _blank_line(table, n_rows, True) if blank_follows else None)


@lru_cache(maxsize=8)
def _arrow(table: Table) -> tuple[Any, Any, dict[str, Any]]:
    arrow, arrow_csv = import_module("pyarrow"), import_module("pyarrow.csv")
    names = [str(number) for number in dict.fromkeys(table.columns)]
    options = {
        "read_options": arrow_csv.ReadOptions(
            use_threads=False,
            block_size=2**24,
            column_names=[str(number) for number in range(table.n_fields)],
        ),
        "parse_options": arrow_csv.ParseOptions(
            delimiter=table.delimiter, quote_char=False, double_quote=False
        ),
        "convert_options": arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, arrow.float64()),
            include_columns=names,
            null_values=list(MISSING),
        ),
    }
    return arrow, arrow_csv, options


# --- NumPy -------------------------------------------------------------------------------


def by_numpy(table: Table, text: bytes) -> Piece | None:
    """With NumPy, if all lines have all their cells, and these nothing but numbers or nothing."""
    simple = _simple_rows(text)
    if simple is None or not simple[0]:
        return None
    rows, blank_follows = simple
    if not _has_all_cells(table, rows):
        return None
    mark = table.delimiter
    plain = f"\n{rows.decode()}\n".replace(mark * 2, f"{mark}nan{mark}")
    plain = plain.replace(mark * 2, f"{mark}nan{mark}").replace(f"{mark}\n", f"{mark}nan\n")
    plain = plain.replace(f"\n{mark}", f"\nnan{mark}")
    try:
        values = np.loadtxt(
            io.StringIO(plain), delimiter=mark, comments=None, usecols=table.columns, ndmin=2
        )
    except ValueError:
        return None
    if len(values) != rows.count(b"\n") + 1:
        return None
    return Piece(float32(values), _blank_line(table, len(values), True) if blank_follows else None)


def _has_all_cells(table: Table, rows: bytes) -> bool:
    """Whether every line has as many cells as there are columns, which NumPy does not mind."""
    text = np.frombuffer(rows + b"\n", np.uint8)
    marks = text[(text == ord(table.delimiter)) | (text == ord("\n"))]
    wanted = np.frombuffer(table.row_bytes, np.uint8)
    if len(marks) % table.n_fields:
        return False
    return bool((marks.reshape(-1, table.n_fields) == wanted).all())


# --- line by line ------------------------------------------------------------------------


def by_lines(table: Table, text: bytes) -> Piece:
    """With Python's own reader."""
    fault = None
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        # Lines before the wrong byte are read first.
        line_end = max(text.rfind(mark, 0, error.start) for mark in (b"\n", b"\r")) + 1
        decoded = text[:line_end].decode()
        byte = text[error.start : error.start + 1]
        fault = Fault(0, "text in UTF-8", f"the byte {byte!r}", NOT_TEXT)
    # The lines that a file opened as text has.
    lines = list(io.StringIO(decoded, newline=None))
    rows, found = _rows(table, lines, is_whole=fault is None)
    if found is None and fault is not None:
        found = Fault(len(rows), fault.expected, fault.found, fault.fix)
    return Piece(float32(np.array(rows).reshape(-1, len(table.columns))), found)


def _rows(
    table: Table, lines: list[str], *, is_whole: bool
) -> tuple[list[list[float]], Fault | None]:
    """Numbers of the lines up to the first fault. Not `is_whole`: other lines follow."""
    pick = itemgetter(*table.columns)
    one = len(table.columns) == 1
    rows: list[list[float]] = []
    for number, line in enumerate(lines):
        try:
            cells = fields(line, table.delimiter)
        except csv.Error as error:
            return rows, Fault(number, "cells of a csv file", f"{error}", _CORRECT_ROW)
        if len(cells) != table.n_fields:
            is_last = is_whole and not any(text.strip() for text in lines[number + 1 :])
            return rows, _wrong_length(table, number, line, len(cells), is_last)
        picked = [pick(cells)] if one else pick(cells)
        try:
            # Python alone would read 1_0 as ten.
            if "_" in line and any("_" in cell for cell in picked):
                raise ValueError
            rows.append([float(cell) if cell else np.nan for cell in picked])
        except ValueError:
            values = [_number(cell) for cell in picked]
            if None in values:
                wrong = values.index(None)
                return rows, _no_number(picked[wrong], number, table.names[wrong])
            rows.append([value for value in values if value is not None])
    return rows, None


def _wrong_length(table: Table, line: int, text: str, n_cells: int, is_last: bool) -> Fault:
    if n_cells <= 1 and not text.strip():
        return _blank_line(table, line, is_last)
    expected, found = f"{table.n_fields} fields", f"{n_cells} fields"
    is_short = n_cells < table.n_fields
    return Fault(line, expected, found, _CORRECT_ROW, is_short=is_short, is_last=is_last)


def _blank_line(table: Table, line: int, is_last: bool) -> Fault:
    expected, found = f"{table.n_fields} fields", "an empty line"
    return Fault(line, expected, found, _CORRECT_ROW, is_blank=True, is_last=is_last)


def _number(cell: str) -> float | None:
    """What a cell says, or None for other text."""
    cell = cell.strip()
    if cell in MISSING:
        return np.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _no_number(cell: str, line: int, column: str) -> Fault:
    fix = "correct this cell (empty it where the point is missing), or export the file again"
    return Fault(
        line,
        "a number or an empty cell",
        f"the text {cell.strip()[:40]!r}",
        PLAIN_NUMBERS if is_thousands(cell) else fix,
        column,
    )
