"""Text files of any dialect as streams of plain text: UTF-8, with commas, points and line feeds."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.text.dialect import Dialect, dialect_of, mixed_marks, unpacked

_BLOCK_BYTES = 262_144
_LONGEST_LINE = 4_000_000
_LINE_END = re.compile(rb"\r\n?|\n")
_BLANK_ROW = re.compile(rb'(?<![^\r\n])[ "]*,[ ",]*(?:\r\n?|\n|\Z)')
_EXPONENT = r"(?:[eE][+-]?\d+)?"


@contextmanager
def plain_bytes(path: Path, dialect: Dialect) -> Iterator[BinaryIO]:
    """Open as plain text, in bytes; a file that is plain already as it is."""
    is_cut = dialect.end is not None or dialect.n_kept is not None
    if not (dialect.is_packed or dialect.is_translated or is_cut):
        with path.open("rb") as raw:
            yield raw
        return
    with _Stream(lambda: _whole_rows(path, dialect)) as stream:
        yield cast(BinaryIO, io.BufferedReader(stream, _BLOCK_BYTES))


@contextmanager
def plain_text(path: Path, dialect: Dialect | None = None) -> Iterator[TextIO]:
    """Open as plain text, whatever the dialect; default: as it is found to be.

    Raises OSError, or ValueError for what cannot be decoded or unpacked.
    """
    with (
        plain_bytes(path, dialect or dialect_of(path)) as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig") as file,
    ):
        yield file


class _Stream(io.RawIOBase):
    """Blocks of bytes as a file; going back begins again."""

    def __init__(self, begin: Callable[[], Generator[bytes]]) -> None:
        self._begin = begin
        self._blocks = begin()
        self._block = memoryview(b"")
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._blocks.close()
        super().close()

    def readinto(self, buffer: object) -> int:
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._block = memoryview(block)
        size = min(len(into), len(self._block))
        into[:size] = self._block[:size]
        self._block = self._block[size:]
        self._place += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + (self._place if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("seek from the end")
        if place < self._place:
            self._blocks.close()
            self._blocks, self._block, self._place = self._begin(), memoryview(b""), 0
        while self._place < place and self.readinto(bytearray(min(place - self._place, 65_536))):
            pass
        return self._place


def _whole_rows(path: Path, dialect: Dialect) -> Generator[bytes]:
    """Blocks without the rows of nothing but separators, where these are no frames."""
    blocks = _plain_blocks(path, dialect)
    if dialect.n_kept is None:
        yield from blocks
        return
    rest, n_kept = b"", dialect.n_kept
    for block in blocks:
        rest += block
        cut = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1
        lines, rest = rest[:cut], rest[cut:]
        head = b""
        while n_kept and lines:
            line, lines = lines[: (at := _line_end(lines))], lines[at:]
            head += line
            n_kept -= 1
        yield head + _BLANK_ROW.sub(b"", lines)
    yield rest if n_kept else _BLANK_ROW.sub(b"", rest)


def _line_end(lines: bytes) -> int:
    match = _LINE_END.search(lines)
    return len(lines) if match is None else match.end()


def _plain_blocks(path: Path, dialect: Dialect) -> Generator[bytes]:
    left = dialect.end
    translation = _Translation(path, dialect) if dialect.is_translated else None
    with unpacked(path, dialect.is_packed) as raw:
        while block := raw.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)):
            left = None if left is None else left - len(block)
            yield block if translation is None else translation.add(block)
    if translation is not None:
        yield translation.add(b"", is_last=True)
        translation.check()


class _Translation:
    """Writes lines anew, as they come."""

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self._path = path
        self._delimiter = dialect.delimiter
        self._decimal = dialect.decimal
        self._drop_line = dialect.names_delimiter
        self._row = 1
        self._error: InputError | None = None
        self._rest = ""
        # Bytes that are no UTF-8 stay as they are: parsers know where in the file they are.
        errors = "surrogateescape" if dialect.encoding == "utf-8" else "strict"
        encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
        decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        before, after = rf"(?:(?<=[{self._delimiter}\n])|\A) *", rf" *(?=[{self._delimiter}\n]|\Z)"
        self._comma = re.compile(rf"{before}([+-]?)(?:(\d+),(\d*)|,(\d+))({_EXPONENT}){after}")
        # Anything but numbers with commas, and nan.
        self._odd = re.compile(rf"[^-+0-9eEnaNA, \n{self._delimiter}]")
        self._point = re.compile(rf"{before}[+-]?(?:\d+\.\d*|\.\d+){_EXPONENT}{after}")

    def add(self, block: bytes, *, is_last: bool = False) -> bytes:
        """Whole lines of what came so far, plain; what is wrong with a line is said after them."""
        self.check()
        try:
            text = self._rest + self._decoder.decode(block, final=is_last)
        except UnicodeDecodeError as error:
            raise InputError(
                expected=f"text in {error.encoding}, as at the beginning of the file",
                found=f"the bytes {error.object[error.start : error.end]!r}, which are none",
                where=f"{self._path}, below row {self._row}",
                fix="the file is cut off or damaged: copy or export it again",
            ) from error
        cut = len(text) if is_last or len(text) > _LONGEST_LINE else text.rfind("\n") + 1
        text, self._rest = text[:cut], text[cut:]
        if self._drop_line and text:
            self._drop_line = False
            text = text.partition("\n")[2]
            self._row += 1
        plain = self._plain(text)
        self._row += text.count("\n")
        return plain.encode("utf-8", "surrogateescape")

    def check(self) -> None:
        """Raise what is wrong with the line after the last one that was given."""
        if self._error is not None:
            raise self._error

    def _plain(self, text: str) -> str:
        if not self._decimal:
            match = self._comma.search(text), self._point.search(text)
            if any(match):
                self._decimal = "," if match[0] and not match[1] else "."
        if self._decimal == "," != self._delimiter and not self._odd.search(text):
            return text.translate({ord(","): ".", ord(self._delimiter): ","})
        if self._decimal == ",":
            point = self._point.search(text)
            if point is not None:
                row = self._row + text.count("\n", 0, point.end())
                self._error = mixed_marks(point[0], row, self._path)
                text = text[: text.rfind("\n", 0, point.start() + 1) + 1]
            if self._delimiter != ",":
                text = self._comma.sub(self._with_point, text)
        if '"' not in text and (self._delimiter == "," or "," not in text):
            return text.replace(self._delimiter, ",")
        return "".join(map(self._line, io.StringIO(text)))

    @staticmethod
    def _with_point(match: re.Match[str]) -> str:
        sign, whole, part, only_part, exponent = match.groups(default="")
        return f"{sign}{whole or '0'}.{part or only_part}{exponent}"

    def _line(self, line: str) -> str:
        """A line with quotes, or with commas in cells."""
        if '"' not in line and "," not in line:
            return line.replace(self._delimiter, ",")
        text = line.rstrip("\n")
        try:
            cells = next(csv.reader([text], delimiter=self._delimiter), [])
        except csv.Error:
            return line.replace(self._delimiter, ",")
        if self._decimal == ",":
            cells = [self._comma.sub(self._with_point, cell) for cell in cells]
        return ",".join(map(_quoted, cells)) + line[len(text) :]


def _quoted(cell: str) -> str:
    if "," in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell
