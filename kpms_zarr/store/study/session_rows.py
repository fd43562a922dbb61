"""Small tables from spreadsheets, whatever separator, encoding and decimal sign they have."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kpms_zarr.store.errors import InputError, Problem

SAVE_AS_CSV = (
    "save the sheet as csv: in Excel with File > Save As > CSV UTF-8 (Comma delimited), in "
    "LibreOffice with File > Save As > Text CSV"
)
A_ROW_PER_SESSION = "a csv file with one row per session"
_MOST_BYTES = 100_000_000
_WORKBOOKS = (
    (b"PK\x03\x04", "a workbook or another packed file (such as xlsx or ods)"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an older Excel (xls)"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = ",;\t"
_SAID_BY_EXCEL = re.compile(r"\s*\"?sep=([,;\t|])\"?[ ,;\t]*(\r\n|\r|\n)", re.IGNORECASE)
# 007 is the name of an animal.
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WITH_COMMA = re.compile(r"[+-]?(0|[1-9][0-9]*),[0-9]+([eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")


@dataclass(frozen=True)
class Sheet:
    """The cells of a table that is small, without what is empty.

    Attributes
    ----------
    header : tuple of str
    rows : tuple of (int, tuple of str)
        Number of the row as a spreadsheet counts, and as many cells as the header has or more.
    notes : tuple of str
        What was not as in a plain csv file and had to be understood.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    notes: tuple[str, ...]


def is_plain_number(text: str) -> bool:
    """Whether a text is a number and nothing else; 007 is the name of an animal."""
    return bool(_NUMBER.fullmatch(text))


def read_sheet(path: Path, where: str, expected: str = A_ROW_PER_SESSION) -> Sheet:
    """Read a table; empty last columns and empty rows do not count.

    Parameters
    ----------
    path : Path
    where, expected : str
        The table and what it should be, for errors.

    Raises
    ------
    InputError
        No file, a workbook, no text, quotes without an end, numbers that can be read in two ways.
    """
    text, notes = _text(path, where, expected)
    excel_line = _SAID_BY_EXCEL.match(text)
    text = text[excel_line.end() :] if excel_line else text
    separator, found = excel_line[1] if excel_line else "", []
    if not separator:
        separator = _separator(text)
    try:
        # Without the io, line breaks in cells would be lost.
        found = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(
            expected=expected,
            found=f"one that ends within quotes, or has quotes within cells ({error})",
            where=where,
            fix=f'correct the quotes (write " within a cell as ""), or {SAVE_AS_CSV}',
        ) from error
    lines = [
        (number, tuple(_clean(cell) for cell in cells))
        for number, cells in enumerate(found, start=2 if excel_line else 1)
    ]
    lines = [(number, _without_end(cells)) for number, cells in lines if any(cells)]
    header, rows = lines[0][1] if lines else (), lines[1:]
    rows = [(number, cells + ("",) * (len(header) - len(cells))) for number, cells in rows]
    header, rows = _without_unused(header, rows)
    rows, more = _with_points(header, rows, separator, where)
    return Sheet(header, tuple(rows), (*notes, *more))


def _text(path: Path, where: str, expected: str) -> tuple[str, list[str]]:
    """Decode the text of a file, with a note on its encoding."""
    fix = "check the path"
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        found = error.strerror or str(error)
        raise _no_table(expected, found, where, fix) from error
    for start, kind in _WORKBOOKS:
        if raw.startswith(start):
            raise _no_table(expected, kind, where, SAVE_AS_CSV)
    if len(raw) > _MOST_BYTES:
        raise _no_table(expected, "more than 100 MB", where, "name the table, not the tracking")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "")
    encoding = encoding or _unmarked(raw[:2000])
    notes = []
    try:
        try:
            text = raw.decode(encoding or "utf-8")
        except UnicodeDecodeError:
            if encoding:
                raise
            text = raw.decode("cp1252")
            notes = ["not in UTF-8: read as Windows text (cp1252)"]
    except UnicodeDecodeError as error:
        raise _no_table(
            expected, f"bytes that are no text ({error.reason})", where, SAVE_AS_CSV
        ) from error
    if "\0" in text:
        raise _no_table(expected, "bytes that are no text", where, SAVE_AS_CSV)
    return text, notes


def _unmarked(start: bytes) -> str:
    """Guess UTF-16 without a mark: in most languages every other byte is 0; else ""."""
    pairs = len(start) // 2
    for encoding, zeros, others in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if pairs and zeros.count(0) > pairs / 2 and not others.count(0):
            return encoding
    return ""


def _no_table(expected: str, found: str, where: str, fix: str) -> InputError:
    return InputError(expected=expected, found=found, where=where, fix=fix)


def _clean(cell: str) -> str:
    return cell.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ").strip()


def _separator(text: str) -> str:
    """Find the separator that gives rows as many cells as the header; else most cells."""

    def quality(separator: str) -> tuple[int, float, int]:
        try:
            cells = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            widths = [len(_without_end(row)) for row in cells if any(row)]
        except csv.Error:
            return 0, 0.0, 0
        header = widths[0] if widths else 0
        n_fitting = sum(1 < width <= header for width in widths)
        return int(header > 1), n_fitting / max(1, len(widths)), header

    return max(_SEPARATORS, key=quality)


def _without_end(cells: Sequence[str]) -> tuple[str, ...]:
    """Cells without the empty ones at the end."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return tuple(cells[:n])


_Rows = list[tuple[int, tuple[str, ...]]]


def _without_unused(header: tuple[str, ...], rows: _Rows) -> tuple[tuple[str, ...], _Rows]:
    """Drop columns that have neither a name nor anything in them."""
    used = [i for i, name in enumerate(header) if name or any(row[i] for _, row in rows)]
    if len(used) == len(header):
        return header, rows
    kept = [(n, tuple(row[i] for i in used) + row[len(header) :]) for n, row in rows]
    return tuple(header[i] for i in used), kept


def _with_points(
    header: tuple[str, ...], rows: _Rows, separator: str, where: str
) -> tuple[_Rows, list[str]]:
    """Convert columns of numbers with decimal commas to points."""
    changed, problems = [], []
    for column, name in enumerate(header):
        cells = [(number, row[column]) for number, row in rows if row[column]]
        commas = [(number, cell) for number, cell in cells if _WITH_COMMA.fullmatch(cell)]
        others = [cell for _, cell in cells if not _WITH_COMMA.fullmatch(cell)]
        if not commas or not all(map(is_plain_number, others)):
            continue
        # 1,234 is one and a bit where numbers have commas, and more than a thousand elsewhere.
        is_told = separator == ";" or any(not _THOUSANDS.fullmatch(cell) for _, cell in commas)
        doubtful = [
            (number, cell)
            for number, cell in cells
            if _THOUSANDS.fullmatch(cell) and ("." in cell or not is_told)
        ]
        if doubtful:
            number, cell = doubtful[0]
            problems.append(
                Problem(
                    "numbers that can be read in one way only",
                    f"{cell!r}, a decimal or a thousands separator, beside {commas[0][1]!r}",
                    f"{where}, row {number}, column {name!r}",
                    "write all numbers of the column with a decimal point and no separators",
                )
            )
        changed.append(column)
    if problems:
        raise InputError.of(problems)
    if not changed:
        return rows, []
    new = [
        (number, tuple(_with_point(c) if i in changed else c for i, c in enumerate(row)))
        for number, row in rows
    ]
    names = ", ".join(header[column] for column in changed)
    return new, [f"decimal commas are read as points in {names}"]


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if _WITH_COMMA.fullmatch(cell) else cell
