"""How a text file with a table is written: packing, encoding, separators, decimal marks."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, cast

from kpms_zarr.store.errors import InputError, Problem, readable
from kpms_zarr.store.parsers.base import remembered

HEAD_BYTES = 65_536
"""Of a file, to tell its dialect from."""
_BLOCK_BYTES = 262_144
_DELIMITERS = ",;\t"
_MOST_LINES = 200
_LONGEST_NUMBER = 400
_MOST_BLANK_BYTES = 64_000_000
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EXCEL_LINE = re.compile(r"\"?sep=([,;\t])\"?[,;\t]*\Z", re.IGNORECASE)

_EXPONENT = r"(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"[+-]?(?:\d+|\d+[.,]\d*|[.,]\d+){_EXPONENT}")
_WITH_COMMA = re.compile(rf"[+-]?(?:\d+,\d*|,\d+){_EXPONENT}")
_WITH_POINT = re.compile(rf"[+-]?(?:\d+\.\d*|\.\d+){_EXPONENT}")
_THOUSANDS = re.compile(
    r"[+-]?\d{1,3}(?:(?:\.\d{3})+,\d*|(?:,\d{3})+\.\d*|(?:\.\d{3}){2,}|(?:,\d{3}){2,}"
    r"|(?:[ '’\u00a0\u202f]\d{3})+(?:[.,]\d*)?)"
)
PLAIN_NUMBERS = (
    "write numbers as 1234.5: in Excel take the thousands separator off (Format Cells, Number), "
    "then save as `CSV UTF-8`; from pandas write with to_csv(decimal='.')"
)


ONE_MARK = "numbers with one decimal mark and without thousands separators"


@dataclass(frozen=True)
class Dialect:
    """How a text file with a table is written; as it stands here, in the plain way.

    Attributes
    ----------
    is_packed : bool
        With gzip.
    is_text : bool
        Whether it looks like text with rows.
    encoding : str
    delimiter : str
        One ASCII character.
    decimal : str
        ``"."`` or ``","``.
    names_delimiter : bool
        The first line says which delimiter the others have, as Excel understands it.
    end : int, optional
        Bytes of the unpacked file to be read: up to its last row that holds something.
    n_blank_rows : int
        Rows of nothing but separators at the end, after that.
    n_inner_blank_rows : int
        Such rows before that.
    n_kept : int, optional
        Lines at the beginning that stay as they are, while such rows are left out of the others;
        None = none is left out.
    notes : tuple of str
        What a person should know.
    problem : Problem, optional
        Why the numbers cannot be read.
    """

    is_packed: bool = False
    is_text: bool = True
    encoding: str = "utf-8"
    delimiter: str = ","
    decimal: str = "."
    names_delimiter: bool = False
    end: int | None = None
    n_blank_rows: int = 0
    n_inner_blank_rows: int = 0
    n_kept: int | None = None
    notes: tuple[str, ...] = ()
    problem: Problem | None = field(default=None, compare=False)

    @property
    def is_decoded(self) -> bool:
        """Whether the bytes have to be written anew to be plain text."""
        return self.names_delimiter or self.encoding != "utf-8"

    def for_rows(self, *, are_counted: bool, n_header: int) -> Dialect:
        """Say whether rows that hold only separators are left out.

        They are where the rows of frames are counted, by an index for example. Elsewhere, frames in
        which nothing was found look alike.

        Parameters
        ----------
        are_counted : bool
        n_header : int
            Lines above the first frame.
        """
        found, notes = self, list(self.notes)
        if self.n_inner_blank_rows and are_counted:
            found = replace(found, n_kept=n_header)
            notes.append(
                f"left out {_rows_of(self.n_inner_blank_rows)} with nothing but separators"
            )
        if self.n_blank_rows:
            what = f"{_rows_of(self.n_blank_rows)} at the end with nothing but separators"
            if are_counted:
                notes.append(f"left out {what}")
            else:
                found = replace(found, end=None)
                notes.append(
                    f"{what}: read as frames in which nothing was found, as the rows have no "
                    "numbers"
                )
        return replace(found, notes=tuple(notes))


def _rows_of(number: int) -> str:
    return "a row" if number == 1 else f"{number} rows"


PLAIN = Dialect()


def is_thousands(cell: str) -> bool:
    """Whether a cell is a number with thousands separators."""
    return _THOUSANDS.fullmatch(cell.strip()) is not None


@contextmanager
def unpacked(path: Path, is_packed: bool) -> Iterator[IO[bytes]]:
    """Open the bytes of a file, unpacked as they are read; a broken archive is an InputError."""
    if not is_packed:
        with path.open("rb") as raw:
            yield raw
        return
    try:
        with gzip.open(path, "rb") as packed:
            yield cast(IO[bytes], packed)
    except EOFError as error:
        raise InputError.of([_broken(path, "one that is cut off")]) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError.of([_broken(path, f"one that is damaged ({error})")]) from error


def _broken(path: Path, found: str) -> Problem:
    return Problem(
        expected="a complete gzip archive",
        found=found,
        where=str(path),
        fix="copy or download it again, or pack the file again: gzip FILE",
    )


@remembered
def dialect_of(path: Path) -> Dialect:
    """Tell how a file is written from its beginning and its end.

    What is no table in text is plain, and so is what a gzip archive holds that is no text.

    Raises OSError.
    """
    with path.open("rb") as raw:
        is_packed = raw.read(len(_GZIP)) == _GZIP
    try:
        with unpacked(path, is_packed) as raw:
            head = raw.read(HEAD_BYTES)
    except InputError as error:
        return Dialect(is_packed, False, problem=error.problems[0])
    encoding = _encoding(head)
    lines = [] if encoding is None else _lines(head, encoding)
    if encoding is None or not lines or lines[0].lstrip()[:1] in ("{", "["):
        return Dialect(is_packed, is_text=False)
    said = _EXCEL_LINE.match(lines[0].strip(" "))
    lines = lines[1:] if said else lines
    delimiter = said[1] if said else _delimiter(lines)
    decimal, problem, cells = ".", None, []
    if delimiter != "," or encoding == "cp1252" or any('"' in line for line in lines):
        cells = [cell.strip() for row in _rows(lines, delimiter) for cell in row]
        decimal, problem = _decimal(cells, delimiter, path)
    end, n_blank_rows, n_inner = None, 0, 0
    try:
        decimal = decimal or _later_decimal(path, is_packed, encoding, delimiter)
        end, n_blank_rows = _end(path, is_packed, encoding, delimiter)
        n_inner = _inner_blank_rows(path, is_packed, encoding, delimiter, end)
    except InputError as error:
        problem = error.problems[0]
    return Dialect(
        is_packed=is_packed,
        encoding=encoding,
        delimiter=delimiter,
        decimal=decimal,
        names_delimiter=said is not None,
        end=end,
        n_blank_rows=n_blank_rows,
        n_inner_blank_rows=n_inner,
        notes=tuple(_notes(encoding, delimiter, decimal, cells)),
        problem=problem,
    )


# ------------------------------------------------------------------ encoding


def _encoding(head: bytes) -> str | None:
    """Name of the encoding as Python has it, None for what is no text."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        # Every other byte of plain letters.
        even, odd = head[:400:2], head[1:400:2]
        if len(head) < 4 or not head.isascii():
            return None
        if not any(odd) and all(even):
            return "utf-16-le"
        return "utf-16-be" if not any(even) and all(odd) else None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252" if _is_windows(head) else "utf-8"
    return "utf-8"


def _is_windows(head: bytes) -> bool:
    """Whether letters of Windows are in names alone, and nothing looks like damage."""
    try:
        text = head.decode("cp1252")
    except UnicodeDecodeError:
        return False
    cells = (cell.strip(" \"'") for cell in re.split(r"[,;\t\r\n]+", text) if not cell.isascii())
    return all(
        cell[0].isalpha() and cell.isprintable() and not _is_utf8_twice(cell)
        for cell in filter(None, cells)
    )


def _is_utf8_twice(cell: str) -> bool:
    """Whether letters of UTF-8 are there too: then it is UTF-8 with damage."""
    try:
        cell.encode("cp1252").decode()
    except UnicodeError:
        return False
    return True


def _lines(head: bytes, encoding: str) -> list[str]:
    """Whole lines at the beginning that are not blank."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    lines = re.split(r"\r\n?|\n", text.removeprefix("\ufeff"))
    if len(head) == HEAD_BYTES and len(lines) > 1:
        lines.pop()
    return [line for line in lines[:_MOST_LINES] if line.strip()]


# ------------------------------------------------------------------ separators, decimal marks


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return []


def _delimiter(lines: list[str]) -> str:
    """The one with which all lines have as many cells, most of them numbers."""

    def fitness(delimiter: str) -> tuple[bool, float, int]:
        rows = _rows(lines, delimiter)
        if not rows or len(rows[0]) < 2:
            return False, 0.0, 0
        # The first line, of names of scorers, may be shorter.
        is_even = len({len(row) for row in rows[1:]}) < 2
        cells = [cell.strip() for row in rows[1:] for cell in row if cell.strip()]
        n_numbers = sum(bool(_NUMBER.fullmatch(cell)) for cell in cells)
        return is_even, n_numbers / max(1, len(cells)), len(rows[0])

    possible = [mark for mark in _DELIMITERS if any(mark in line for line in lines)]
    if possible in ([], [","]):
        return ","
    best = max(possible, key=fitness)
    return best if fitness(best)[2] else ","


def _decimal(cells: list[str], delimiter: str, path: Path) -> tuple[str, Problem | None]:
    """The decimal mark, "" where no number says it, and why numbers cannot be read."""
    with_comma = [cell for cell in cells if _WITH_COMMA.fullmatch(cell)]
    with_point = [cell for cell in cells if _WITH_POINT.fullmatch(cell)]
    thousands = [cell for cell in cells if _THOUSANDS.fullmatch(cell)]
    if thousands:
        found = f"numbers with thousands separators, such as `{thousands[0]}`"
        return ".", _no_plain_numbers(found, path)
    if with_comma and with_point:
        if delimiter == ",":  # cells in quotes, perhaps of a column that nobody reads
            return ".", None
        found = f"some numbers with a comma, `{with_comma[0]}`, others with a point, "
        return ".", _no_plain_numbers(f"{found}`{with_point[0]}`", path)
    if with_comma:
        return ",", None
    return ("." if with_point or delimiter == "," else ""), None


def _no_plain_numbers(found: str, path: Path) -> Problem:
    return Problem(expected=ONE_MARK, found=found, where=str(path), fix=PLAIN_NUMBERS)


def _later_decimal(path: Path, is_packed: bool, encoding: str, delimiter: str) -> str:
    """The decimal mark of the first number that has one, wherever it is."""
    around = rf'[{delimiter}\r\n"]'
    number = re.compile(rf"{around} *[+-]?(?:\d+([.,])\d*|([.,])\d+){_EXPONENT} *{around}")
    text = ""
    with (
        unpacked(path, is_packed) as raw,
        io.TextIOWrapper(raw, encoding, errors="replace") as file,
    ):
        while block := file.read(_BLOCK_BYTES):
            # A cell may go on in the next block.
            text = text[-_LONGEST_NUMBER:] + block
            if found := number.search(text):
                return found[1] or found[2]
    found = number.search(text[-_LONGEST_NUMBER:] + "\n")
    return (found[1] or found[2]) if found else "."


def _notes(encoding: str, delimiter: str, decimal: str, cells: list[str]) -> Iterator[str]:
    if encoding == "cp1252":
        odd = next((cell for cell in cells if not cell.isascii()), "")
        yield (
            f"text in no Unicode, read as that of Windows (cp1252): `{readable(odd)}`; if this is "
            "wrong, save the file as `CSV UTF-8`"
        )
    if decimal == ",":
        between = "tabs" if delimiter == "\t" else f"`{delimiter}`"
        yield f"numbers are read with decimal commas, {between} between them"


# ------------------------------------------------------------------ the end


def _end(path: Path, is_packed: bool, encoding: str, delimiter: str) -> tuple[int | None, int]:
    """Where the last row that holds something ends, and how many of separators follow."""
    unit = {"utf-16": 2, "utf-32": 4}.get(encoding[:6], 1)
    if is_packed:
        n_bytes, tail = _packed_tail(path, delimiter)
    else:
        n_bytes, tail = _tail(path, delimiter)
    tail = tail[-(len(tail) // unit * unit) :] if unit > 1 else tail
    kept = tail.rstrip(_blank(delimiter))
    if not kept or len(kept) == len(tail):
        return None, 0
    if unit > 1:
        kept = tail[: -(-len(kept) // unit) * unit]
    ends = [at for at in (tail.find(b"\n", len(kept)), tail.find(b"\r", len(kept))) if at >= 0]
    if not ends:
        return None, 0
    rest = tail[min(ends) :].replace(b"\0", b"").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    n_rows = sum(delimiter.encode() in line for line in rest.split(b"\n"))
    if not n_rows:
        return None, 0
    # Up to the line end, which stays out.
    at = min(ends) // unit * unit
    return n_bytes - len(tail) + at, n_rows


def _inner_blank_rows(
    path: Path, is_packed: bool, encoding: str, delimiter: str, end: int | None
) -> int:
    """How many rows before the end hold nothing but separators."""
    mark = re.escape(delimiter.encode())
    blank = re.compile(rb'(?<=[\r\n])[ "]*' + mark + rb'[ "' + mark + rb"]*(?=[\r\n])")
    begins = [
        line_end + first for line_end in (b"\n", b"\r") for first in (delimiter.encode(), b'""')
    ]
    rest, place, found = b"", 0, 0
    with unpacked(path, is_packed) as raw:
        while block := raw.read(_BLOCK_BYTES):
            block = block if end is None else block[: max(0, end - place)]
            place += len(block)
            # Wide letters of UTF-16 apart, it is ASCII that is looked for.
            here = rest + (block.replace(b"\0", b"") if encoding[4:6] in ("16", "32") else block)
            if any(begin in here for begin in begins):
                found += len(blank.findall(here))
            # From the last line end on: a row may go on in the next block.
            rest = here[max(0, here.rfind(b"\n"), here.rfind(b"\r")) :]
    return found


def _blank(delimiter: str) -> bytes:
    return b'\0" \t\r\n' + delimiter.encode()


def _tail(path: Path, delimiter: str) -> tuple[int, bytes]:
    """Length of a file, and its end from a row that holds something."""
    n_bytes = path.stat().st_size
    size = HEAD_BYTES
    with path.open("rb") as raw:
        while True:
            raw.seek(max(0, n_bytes - size))
            tail = raw.read(size)
            if tail.rstrip(_blank(delimiter)) or not 0 < size < min(n_bytes, _MOST_BLANK_BYTES):
                return n_bytes, tail
            size *= 8


def _packed_tail(path: Path, delimiter: str) -> tuple[int, bytes]:
    """The same of an archive, which is read to its end, so that a broken one is found."""
    n_bytes, tail = 0, b""
    with unpacked(path, is_packed=True) as raw:
        while block := raw.read(_BLOCK_BYTES):
            n_bytes += len(block)
            is_blank = not block.rstrip(_blank(delimiter)) and len(tail) < _MOST_BLANK_BYTES
            tail = tail + block if is_blank else block
    return n_bytes, tail
