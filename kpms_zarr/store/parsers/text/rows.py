"""Rows of a range of a text file: by Arrow or pandas if they are simple, else line by line.

Line by line is what the other two have to agree with, in every value and in every error.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.parsers.base import float32
from kpms_zarr.store.parsers.text.dialect import (
    ONE_MARK,
    PLAIN,
    PLAIN_NUMBERS,
    Dialect,
    is_thousands,
)

# Python reads "nan" in any case by itself.
MISSING = (
    "", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "Null", "None", "none", "NONE", "<NA>", "-",
    "#NV", "#NUM!", "#VALUE!", "#DIV/0!",
)  # fmt: skip
"""What stands in cells without a number."""

NOT_TEXT = "save the file as `CSV UTF-8`; if it should be text already, it may be damaged"
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d*(\.\d*)?")
_UNIT_SEPARATOR = "\x1f"
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
        Numbers of the cells to read, from 0; whatever stands in others is ignored.
    names : tuple of str
        What to call these columns in errors.
    dialect : Dialect
        How the file is written. The numbers of lines are those of the plain text that it is read
        as.
    texts : tuple of int
        Numbers of the cells to read as text.
    missing : tuple of str
        What stands for no number, besides `MISSING`.
    dtype : type
        Of the numbers: float32, or float64 where these are frames or times. Infinite ones are
        missing in float32.
    """

    path: Path
    n_lines: int
    n_fields: int
    columns: tuple[int, ...]
    names: tuple[str, ...]
    dialect: Dialect = PLAIN
    texts: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    dtype: type[np.floating] = np.float32

    @property
    def delimiter(self) -> str:
        """What separates the cells of a row."""
        return self.dialect.delimiter

    @property
    def has_decimal_commas(self) -> bool:
        """Whether numbers are written like 1,5."""
        return self.dialect.decimal == ","

    @property
    def words(self) -> tuple[str, ...]:
        """What stands for no number."""
        return (*MISSING, *self.missing)

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


Texts = tuple[np.ndarray, list[str]]
"""A column of text: number of the text of every row, (row,) int, and the texts."""


@dataclass(frozen=True)
class Piece:
    """What a range holds: its rows up to the first one with a fault.

    Attributes
    ----------
    values : ndarray, (row, column)
        Of the dtype that the table asks for; NaN = missing.
    fault : Fault, optional
    texts : tuple of Texts
        One for every column of text.
    """

    values: np.ndarray
    fault: Fault | None = None
    texts: tuple[Texts, ...] = ()


Engine = Callable[[Table, bytes], Piece | None]
"""Reads whole lines, or returns None if it cannot. Called in threads."""


def fields(line: str, delimiter: str) -> list[str]:
    """Cells of a line, quotes taken off; raises csv.Error."""
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


@dataclass(frozen=True)
class _Simple:
    r"""Lines without what needs care, and whether empty ones follow.

    Between the lines is a "\n", and none after the last. The delimiter may be another than that of
    the file.
    """

    table: Table
    rows: bytes
    blank_follows: bool

    @property
    def n_rows(self) -> int:
        return self.rows.count(b"\n") + 1

    def piece(self, values: np.ndarray, texts: Sequence[Texts]) -> Piece:
        """What a library has read."""
        fault = _blank_line(self.table, len(values), True) if self.blank_follows else None
        return Piece(_numbers(self.table, values), fault, tuple(texts))


def _simple(table: Table, text: bytes) -> _Simple | None:
    """Lines as libraries read them without a mistake; None if they are not so."""
    # Libraries take a byte order mark off, and stop at a zero.
    if b"\0" in text or text[:3] == b"\xef\xbb\xbf" or not _is_utf8(text):
        return None
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            return None
    if b'"' in text:
        unquoted = _unquoted(table, text)
        if unquoted is None:
            return None
        table, text = unquoted
    rows = text.rstrip(b"\n")
    return _Simple(table, rows, len(text) > len(rows) + 1) if rows else None


def _unquoted(table: Table, text: bytes) -> tuple[Table, bytes] | None:
    """Lines with quotes around whole cells without them; None if quotes are elsewhere too.

    Cells may hold the delimiter; then another one is put between them.
    """
    letters = np.frombuffer(b"\n%b\n" % text, np.uint8).copy()
    is_quote = letters == ord('"')
    is_inside = np.logical_xor.accumulate(is_quote)
    quotes = np.flatnonzero(is_quote)
    is_line_end, is_mark = letters == ord("\n"), letters == ord(table.delimiter)
    is_around = is_mark | is_line_end
    if (is_inside & is_line_end).any() or not (
        is_around[quotes[::2] - 1].all() and is_around[quotes[1::2] + 1].all()
    ):
        return None
    if (is_inside & is_mark).any():
        if _UNIT_SEPARATOR.encode() in text:
            return None
        letters[is_mark & ~is_inside] = ord(_UNIT_SEPARATOR)
        table = replace(table, dialect=replace(table.dialect, delimiter=_UNIT_SEPARATOR))
    return table, letters[~is_quote][1:-1].tobytes()


def _numbers(table: Table, values: np.ndarray) -> np.ndarray:
    return float32(values) if table.dtype is np.float32 else values


def _is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


# --- Arrow -------------------------------------------------------------------------------


def by_arrow(table: Table, text: bytes) -> Piece | None:
    """With pyarrow, if it finds nothing but numbers and empty cells."""
    simple = _simple(table, text)
    # Arrow takes "nan(1)" for a number.
    if simple is None or b"(" in text:
        return None
    try:
        arrow, arrow_csv, options = _arrow(simple.table)
    except ImportError:
        return None
    try:
        read = arrow_csv.read_csv(arrow.BufferReader(simple.rows), **options)
    except arrow.ArrowException:
        return None
    # Arrow leaves empty lines out.
    if read.num_rows != simple.n_rows:
        return None
    values = np.empty((read.num_rows, len(table.columns)), dtype=table.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for place, number in enumerate(table.columns):
            column = read.column(str(number)).combine_chunks()
            values[:, place] = column.to_numpy(zero_copy_only=False)
    texts = []
    for number in table.texts:
        column = read.column(str(number)).combine_chunks().dictionary_encode()
        names = [name.strip() for name in column.dictionary.to_pylist()]
        texts.append((column.indices.to_numpy(zero_copy_only=False), names))
    return simple.piece(values, texts)


@lru_cache(maxsize=8)
def _arrow(table: Table) -> tuple[Any, Any, dict[str, Any]]:
    arrow, arrow_csv = import_module("pyarrow"), import_module("pyarrow.csv")
    numbers = dict.fromkeys(map(str, table.columns), arrow.float64())
    types = numbers | dict.fromkeys(map(str, table.texts), arrow.string())
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
            column_types=types,
            include_columns=list(types),
            null_values=list(table.words),
            decimal_point=table.dialect.decimal,
        ),
    }
    return arrow, arrow_csv, options


# --- pandas ------------------------------------------------------------------------------


def by_pandas(table: Table, text: bytes) -> Piece | None:
    """With pandas, if all lines have all their cells, and these nothing but numbers or nothing."""
    simple = _simple(table, text)
    if simple is None or not _has_all_cells(simple):
        return None
    plain = replace(table, missing=())
    # Columns of True are numbers to pandas; and if "-1" is missing, -1.0 is missing too.
    is_misread = any(word in simple.rows for word in (b"rue", b"RUE", b"alse", b"ALSE"))
    if is_misread or any(_number(plain, word) is not None for word in table.missing):
        return None
    pandas, options = _pandas(simple.table)
    try:
        read = pandas.read_csv(io.BytesIO(simple.rows), **options)
    except (ValueError, OverflowError, MemoryError):
        return None
    if len(read) != simple.n_rows:
        return None
    texts = []
    for number in table.texts:
        codes, names = pandas.factorize(read[number])
        texts.append((codes, [str(name).strip() for name in names]))
    values = read[list(table.columns)].to_numpy(np.float64)
    return simple.piece(values, texts)


@lru_cache(maxsize=8)
def _pandas(table: Table) -> tuple[Any, dict[str, Any]]:
    pandas = import_module("pandas")
    words = [*table.words, "nan", "NaN", "NAN"]
    options = {
        "sep": table.delimiter,
        "decimal": table.dialect.decimal,
        "quoting": csv.QUOTE_NONE,
        "header": None,
        "names": range(table.n_fields),
        "index_col": False,
        "usecols": sorted({*table.columns, *table.texts}),
        "dtype": dict.fromkeys(table.columns, np.float64) | dict.fromkeys(table.texts, str),
        "na_values": dict.fromkeys(table.columns, words),
        "keep_default_na": False,
        "skip_blank_lines": False,
        "low_memory": False,
    }
    if tuple(map(int, pandas.__version__.split(".")[:2])) < (3, 1):
        # By default, these are wrong in the last digit.
        options["float_precision"] = "round_trip"
    return pandas, options


def _has_all_cells(simple: _Simple) -> bool:
    """Whether every line has as many cells as there are columns, which pandas does not mind."""
    table, text = simple.table, np.frombuffer(simple.rows + b"\n", np.uint8)
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
    rows, texts, found = _rows(table, lines, is_whole=fault is None)
    if found is None and fault is not None:
        found = Fault(len(rows), fault.expected, fault.found, fault.fix)
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(table.columns))
    return Piece(_numbers(table, values), found, tuple(map(_coded, texts)))


def _coded(texts: list[str]) -> Texts:
    """Texts of rows as numbers of the different ones."""
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(text, len(codes)) for text in texts], np.int64), list(codes)


def _rows(
    table: Table, lines: list[str], *, is_whole: bool
) -> tuple[list[list[float]], list[list[str]], Fault | None]:
    """Numbers, and texts by column, of the lines up to the first fault.

    Not `is_whole`: other lines follow.
    """
    pick = _picking(table.columns)
    is_special = table.has_decimal_commas or bool(table.missing)
    rows: list[list[float]] = []
    texts: list[list[str]] = [[] for _ in table.texts]
    for number, line in enumerate(lines):
        try:
            cells = fields(line, table.delimiter)
        except csv.Error as error:
            fault = Fault(number, "cells of a csv file", f"{error}", _CORRECT_ROW)
            return rows, texts, fault
        if len(cells) != table.n_fields:
            is_last = is_whole and not any(text.strip() for text in lines[number + 1 :])
            return rows, texts, _wrong_length(table, number, line, len(cells), is_last)
        picked = pick(cells)
        try:
            # Python alone would read 1_0 as ten.
            if is_special or ("_" in line and any("_" in cell for cell in picked)):
                raise ValueError
            rows.append([float(cell) if cell else np.nan for cell in picked])
        except ValueError:
            values = [_number(table, cell) for cell in picked]
            if None in values:
                wrong = values.index(None)
                fault = _no_number(table, picked[wrong], number, table.names[wrong])
                return rows, texts, fault
            rows.append([value for value in values if value is not None])
        for column, at in zip(texts, table.texts, strict=True):
            column.append(cells[at].strip())
    return rows, texts, None


def _picking(columns: tuple[int, ...]) -> Callable[[list[str]], Sequence[str]]:
    """A function that picks cells of a row; none where there are no columns."""
    if len(columns) > 1:
        return itemgetter(*columns)
    return lambda cells: [cells[number] for number in columns]


def _wrong_length(table: Table, line: int, text: str, n_cells: int, is_last: bool) -> Fault:
    if n_cells <= 1 and not text.strip():
        return _blank_line(table, line, is_last)
    expected, found = f"{table.n_fields} fields", f"{n_cells} fields"
    is_short = n_cells < table.n_fields
    return Fault(line, expected, found, _CORRECT_ROW, is_short=is_short, is_last=is_last)


def _blank_line(table: Table, line: int, is_last: bool) -> Fault:
    expected, found = f"{table.n_fields} fields", "an empty line"
    return Fault(line, expected, found, _CORRECT_ROW, is_blank=True, is_last=is_last)


def _number(table: Table, cell: str) -> float | None:
    """What a cell says, or None for other text."""
    cell = cell.strip()
    if cell in MISSING or cell in table.missing:
        return np.nan
    if table.has_decimal_commas:
        cell = "_" if "." in cell else cell.replace(",", ".")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _no_number(table: Table, cell: str, line: int, column: str) -> Fault:
    cell = cell.strip()
    expected, found = "a number or an empty cell", f"the text {cell[:40]!r}"
    fix = "correct this cell (empty it where the point is missing), or export the file again"
    if table.has_decimal_commas and _number(replace(table, dialect=PLAIN), cell) is not None:
        expected, fix = ONE_MARK, PLAIN_NUMBERS
        found = f"`{cell[:40]}` among numbers with a decimal comma"
    elif is_thousands(cell):
        fix = PLAIN_NUMBERS
    elif _DECIMAL_COMMA.fullmatch(cell):
        fix = "write numbers with a decimal point, not a comma"
    return Fault(line, expected, found, fix, column)
