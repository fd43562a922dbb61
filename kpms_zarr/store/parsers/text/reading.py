"""Tables of numbers in text files, read as a stream: ranges of lines in threads, rows in order."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from kpms_zarr.store.cores import n_cores
from kpms_zarr.store.errors import InputError, unreadable
from kpms_zarr.store.parsers.text.dialect import Dialect, dialect_of
from kpms_zarr.store.parsers.text.plain_text import plain_bytes, plain_text
from kpms_zarr.store.parsers.text.rows import (
    NOT_TEXT,
    Engine,
    Fault,
    Piece,
    Table,
    by_arrow,
    by_pandas,
    fields,
    has_arrow,
    read_rows,
)

__all__ = [
    "Dialect", "Table", "column_cells", "dialect_of", "first_rows", "opened", "read_blocks",
    "read_pieces", "sniffed_rows",
]  # fmt: skip

_LONGEST_LINE = 4_000_000
"""Bytes; far more than a real line. Stops at once in a large file without line ends."""

_RANGE_BYTES = 1_000_000
# Small, so that the first frames of a file cost little.
_FIRST_RANGE_BYTES = 100_000
_MOST_THREADS = 4
_LINE_END = re.compile(rb"\r\n?|\n")
# Of an index, in bytes; paths of images are longer, and no plain numbers then.
_LONGEST_INDEX = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_blocks(
    table: Table,
    block_frames: int,
    *,
    threads: int | None = None,
    range_bytes: int | None = None,
    engines: tuple[Engine, ...] | None = None,
) -> Iterator[np.ndarray]:
    """Rows of numbers in blocks.

    Parameters
    ----------
    table : Table
    block_frames : int
        Rows of every block but the last.
    threads : int, optional
        How many ranges are read at the same time. Default: one per core, at most four.
    range_bytes : int, optional
    engines : tuple of Engine, optional
        What to try on each range, before it is read line by line; the result is the same. Default:
        for large files Arrow if pyarrow is installed, then pandas.

    Yields
    ------
    ndarray, (row, column)
        NaN where a cell is empty or says so in words.

    Raises
    ------
    InputError
        Text in a cell, rows of another length, text that is not UTF-8, a file that cannot be
        read. Names row and column; complete blocks before it are given first.
    """
    kept: list[np.ndarray] = []
    n_kept = 0
    for piece in read_pieces(table, threads=threads, range_bytes=range_bytes, engines=engines):
        kept.append(piece.values)
        n_kept += len(piece.values)
        if n_kept >= block_frames:
            rows = np.concatenate(kept) if len(kept) > 1 else kept[0]
            n_full = n_kept - n_kept % block_frames
            for start in range(0, n_full, block_frames):
                yield rows[start : start + block_frames]
            kept, n_kept = [rows[n_full:]], n_kept - n_full
    if n_kept:
        yield np.concatenate(kept)


def read_pieces(
    table: Table,
    *,
    threads: int | None = None,
    range_bytes: int | None = None,
    engines: tuple[Engine, ...] | None = None,
) -> Iterator[Piece]:
    """Rows of numbers and texts as `read_blocks` gives them, in pieces of any length."""
    row = table.n_lines + 1
    for piece, end in _pieces(table, threads or _n_threads(), range_bytes, engines):
        if len(piece.values):
            yield piece
        if piece.fault:
            rest_is_blank = piece.fault.is_last and _is_blank_from(table, end)
            if piece.fault.is_blank and rest_is_blank:
                return
            raise _error(table, piece.fault, row, rest_is_blank)
        row += len(piece.values)


def column_cells(table: Table, column: int) -> Iterator[np.ndarray]:
    """One cell of every row, (row,) bytes without quotes and blanks around them, in blocks.

    Without empty lines, and only up to a row of another length: of these, `read_blocks` speaks.
    """
    with _readable(table.path), plain_bytes(table.path, table.dialect) as file:
        _skip_lines(file, table)
        for text, _ in _ranges(file, table, _RANGE_BYTES):
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            cells, is_whole = _cells(text, table, column)
            if len(cells):
                yield cells
            if not is_whole:
                return


def _cells(text: bytes, table: Table, column: int) -> tuple[np.ndarray, bool]:
    """One cell of every row, and whether all rows are as long as they should be."""
    letters = np.frombuffer(text, np.uint8)
    end = np.append(np.flatnonzero(letters == ord("\n")), len(letters))
    start = np.append(0, end[:-1] + 1)
    mark = np.flatnonzero(letters == ord(table.delimiter))
    if b'"' in text:
        mark = mark[np.cumsum(letters == ord('"'))[mark] % 2 == 0]
    first = np.searchsorted(mark, start)
    n_marks = np.searchsorted(mark, end) - first
    is_row = end > start
    is_odd = is_row & (n_marks != table.n_fields - 1)
    is_row &= ~np.maximum.accumulate(is_odd)
    first, start, end = first[is_row], start[is_row], end[is_row]
    if not len(start):
        return np.empty(0, "S1"), not is_odd.any()
    mark = np.append(mark, len(letters))
    start = start if not column else mark[first + column - 1] + 1
    end = np.minimum(end, mark[first + column])
    width = np.arange(int(np.clip((end - start).max(), 1, _LONGEST_INDEX)))
    place = start[:, np.newaxis] + width
    shown = np.where(place < end[:, np.newaxis], letters[np.minimum(place, len(letters) - 1)], 0)
    if table.has_decimal_commas:
        shown[shown == ord(",")] = ord(".")
    cells = shown.astype(np.uint8).view(f"S{len(width)}").ravel()
    has_around = ((shown > 0) & (shown <= ord('"'))).any()
    return np.char.strip(cells, b'" \t') if has_around else cells, not is_odd.any()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What the operating system or the decoder dislikes in the body is an InputError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(
            expected="text in UTF-8",
            found=f"the byte {error.object[error.start : error.start + 1]!r}",
            where=str(path),
            fix=NOT_TEXT,
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _check_dialect(path: Path) -> None:
    """Refuse a file with numbers that can be read in several ways, or in none."""
    problem = dialect_of(path).problem
    if problem is not None:
        raise InputError.of([problem])


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open text for reading; what cannot be read is an InputError."""
    with _readable(path):
        _check_dialect(path)
        with plain_text(path) as file:
            yield file


def sniffed_rows(path: Path, n_lines: int = 1) -> list[list[str]]:
    """Cells of the first lines.

    Raises OSError, csv.Error, or ValueError for what cannot be decoded or unpacked.
    """
    delimiter = dialect_of(path).delimiter
    with plain_text(path) as file:
        lines = (file.readline(_LONGEST_LINE) for _ in range(n_lines))
        return [fields(line, delimiter) for line in lines if line]


def first_rows(path: Path, n_lines: int = 1) -> list[list[str]]:
    """Cells of the first lines; what cannot be read is an InputError."""
    try:
        with _readable(path):
            _check_dialect(path)
            return sniffed_rows(path, n_lines)
    except csv.Error as error:
        raise InputError(
            expected="fields with separators between them",
            found=str(error),
            where=str(path),
            fix="the file is damaged: copy or export it again",
        ) from error


def _error(table: Table, fault: Fault, first_row: int, rest_is_blank: bool) -> InputError:
    where = f"{table.path}, row {first_row + fault.line}"
    cut_off = "the file is cut off: copy or export it again, or delete its last, incomplete row"
    return InputError(
        expected=fault.expected,
        found=fault.found,
        where=f"{where}, column {fault.column}" if fault.column else where,
        fix=cut_off if fault.is_short and rest_is_blank else fault.fix,
    )


def _n_threads() -> int:
    return min(_MOST_THREADS, n_cores())


# --- ranges ------------------------------------------------------------------------------


def _pieces(
    table: Table, threads: int, range_bytes: int | None, engines: tuple[Engine, ...] | None
) -> Iterator[tuple[Piece, int]]:
    """Ranges of the file, read, and where they end; the first one here, the others in threads."""
    with _readable(table.path), plain_bytes(table.path, table.dialect) as file:
        _skip_lines(file, table)
        # Small files are not worth the time to import a library.
        first = engines or ()
        if engines is None:
            engines = (by_arrow, by_pandas) if has_arrow() else (by_pandas,)
        ranges = _ranges(file, table, range_bytes or _RANGE_BYTES)
        for text, end in ranges:
            yield read_rows(table, text, first), end
            break
        waiting: deque[tuple[Future[Piece], int]] = deque()
        with ThreadPoolExecutor(threads, "csv") as pool:
            try:
                for text, end in ranges:
                    waiting.append((pool.submit(read_rows, table, text, engines), end))
                    if len(waiting) > threads:
                        yield waiting[0][0].result(), waiting.popleft()[1]
                while waiting:
                    yield waiting[0][0].result(), waiting.popleft()[1]
            finally:
                for future, _ in waiting:
                    future.cancel()


def _skip_lines(file: BinaryIO, table: Table) -> None:
    """Go to the first row of numbers."""
    head = b""
    place = len(_BYTE_ORDER_MARK) if file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK else 0
    file.seek(place)
    for _ in range(table.n_lines):
        # One byte more, because a carriage return may be half of a line end.
        while not (found := _LINE_END.search(head)) or found.end() == len(head):
            more = file.read(_FIRST_RANGE_BYTES)
            if not more or len(head) > _LONGEST_LINE:
                break
            head += more
        if not found:
            place += len(head)
            break
        place += found.end()
        head = head[found.end() :]
    file.seek(place)


def _ranges(file: BinaryIO, table: Table, range_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines of the file, and where in the file they end."""
    end = file.tell()
    rest = b""
    size = min(range_bytes, _FIRST_RANGE_BYTES)
    while more := file.read(size):
        text = rest + more
        cut = text.rfind(b"\n") + 1
        if not cut and b"\r" in text:
            # Lines of old computers. The last return may be half of a line end.
            cut = text.rfind(b"\r", 0, len(text) - 1) + 1
        if not cut and len(text) > _LONGEST_LINE:
            raise InputError(
                expected=f"lines of at most {_LONGEST_LINE:,} characters",
                found="a longer one",
                where=str(table.path),
                fix="check that this is a text file with one row a line; it may be damaged",
            )
        rest = text[cut:]
        end += cut
        size = range_bytes
        if cut:
            yield text[:cut], end
    if rest:
        yield rest, end + len(rest)


def _is_blank_from(table: Table, place: int) -> bool:
    with _readable(table.path), plain_bytes(table.path, table.dialect) as file:
        file.seek(place)
        return all(
            part.decode("utf-8", "replace").isspace()
            for part in iter(lambda: file.read(_RANGE_BYTES), b"")
        )
