"""Text files, packed or in any encoding, as streams of plain text: UTF-8, rows that say something.

Separators and decimal marks stay as they are.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.text.dialect import Dialect, dialect_of, unpacked

_BLOCK_BYTES = 262_144
_LINE_END = re.compile(rb"\r\n?|\n")


@contextmanager
def plain_bytes(path: Path, dialect: Dialect) -> Iterator[BinaryIO]:
    """Open as plain text, in bytes; a file that is plain already as it is."""
    is_cut = dialect.end is not None or dialect.n_kept is not None
    if not (dialect.is_packed or dialect.is_decoded or is_cut):
        with path.open("rb") as raw:
            yield raw
        return
    with _Stream(lambda: _whole_rows(path, dialect)) as stream:
        yield cast(BinaryIO, io.BufferedReader(stream, _BLOCK_BYTES))


@contextmanager
def plain_text(path: Path) -> Iterator[TextIO]:
    """Open as plain text, whatever the dialect.

    Raises OSError, or ValueError for what cannot be decoded or unpacked.
    """
    with (
        plain_bytes(path, dialect_of(path)) as raw,
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
    mark = re.escape(dialect.delimiter.encode())
    blank = re.compile(rb'(?<![^\r\n])[ "]*%b[ "%b]*(?:\r\n?|\n|\Z)' % (mark, mark))
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
        yield head + blank.sub(b"", lines)
    yield rest if n_kept else blank.sub(b"", rest)


def _line_end(lines: bytes) -> int:
    match = _LINE_END.search(lines)
    return len(lines) if match is None else match.end()


def _plain_blocks(path: Path, dialect: Dialect) -> Generator[bytes]:
    left = dialect.end
    decoded = _Decoder(path, dialect) if dialect.is_decoded else None
    with unpacked(path, dialect.is_packed) as raw:
        while block := raw.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)):
            left = None if left is None else left - len(block)
            yield block if decoded is None else decoded.plain(block)
    if decoded is not None:
        yield decoded.plain(b"", is_last=True)


class _Decoder:
    """Writes text in UTF-8, with line feeds, as it comes."""

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self._path = path
        self._drop_line = dialect.names_delimiter
        self._n_lines = 1
        # Bytes that are no UTF-8 stay as they are: parsers know where in the file they are.
        errors = "surrogateescape" if dialect.encoding == "utf-8" else "strict"
        encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
        decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    def plain(self, block: bytes, *, is_last: bool = False) -> bytes:
        """The next bytes; those of the line that names the delimiter are left out."""
        try:
            text = self._decoder.decode(block, final=is_last)
        except UnicodeDecodeError as error:
            raise InputError(
                expected=f"text in {error.encoding}, as at the beginning of the file",
                found=f"the bytes {error.object[error.start : error.end]!r}, which are none",
                where=f"{self._path}, below row {self._n_lines}",
                fix="the file is cut off or damaged: copy or export it again",
            ) from error
        self._n_lines += text.count("\n")
        if self._drop_line:
            _, line_end, text = text.partition("\n")
            self._drop_line = not line_end
        return text.encode("utf-8", "surrogateescape")
