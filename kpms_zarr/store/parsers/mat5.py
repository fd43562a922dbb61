"""Arrays of numbers in MATLAB files of version 5 to 7.2, read without trusting their sizes.

SciPy reads them in a tenth of the lines, but crashes on some damaged ones (SciPy 1.17: 3 of 1,500
files without compression in which four bytes had changed), and with one worker or a remote store
the process that would be lost is that of the user. It also inflates whatever a compressed variable
holds before it looks at the shape.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

MOST_BYTES = 2_000_000_000

_HEADER_BYTES = 128
_Order = Literal["<", ">"]
_ORDERS: dict[bytes, _Order] = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_STORED_AS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
# double, single and the integers; the others are text, structs, cells, sparse matrices, ...
_CLASSES_OF_NUMBERS = range(6, 16)
_IS_COMPLEX = 0x0800
# Flags, up to 32 dimensions and the name fit in.
_BEGINNING = 2048
_AT_ONCE = 1 << 20
# What zlib can do at most, rounded up.
_MOST_EXPANSION = 1100


class DamagedError(ValueError):
    """The file is not what its tags say."""


@dataclass(frozen=True)
class Variable:
    """Where a variable is in the file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    is_numbers : bool
        Real numbers in a full array.
    dtype : dtype
        Of the numbers as stored, which may be smaller than their class.
    at, n_bytes : int
        Where the element with the variable begins in the file, and its length.
    within, n_data : int
        Where the numbers begin in the element (inflated, if it is compressed), and their length.
    is_compressed : bool
    """

    name: str
    shape: tuple[int, ...]
    is_numbers: bool
    dtype: np.dtype
    at: int
    n_bytes: int
    within: int
    n_data: int
    is_compressed: bool


def variables(path: Path) -> Iterator[Variable]:
    """The variables of a file, in its order, without their values.

    Raises
    ------
    DamagedError, OSError, zlib.error
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        order = _ORDERS.get(file.read(_HEADER_BYTES)[124:])
        if order is None:
            raise DamagedError("the header of a MATLAB file is missing")
        at = _HEADER_BYTES
        while at < size:
            file.seek(at)
            kind, n_bytes = _integers(file.read(8), order, 2)
            at += 8
            if kind == _COMPRESSED:
                beginning = zlib.decompressobj().decompress(
                    file.read(min(n_bytes, _BEGINNING)), _BEGINNING
                )
                kind, _ = _integers(beginning, order, 2)
                beginning, skipped = beginning[8:], 8
            else:
                beginning, skipped = file.read(min(n_bytes, _BEGINNING)), 0
            if kind == _MATRIX:
                # Also when it is cut off, so that the file is recognised, and then refused.
                yield _variable(beginning, order, at, n_bytes, skipped)
            if at + n_bytes > size:
                raise DamagedError(f"{size - at} bytes where {n_bytes} belong")
            at += n_bytes


def values(path: Path, variable: Variable) -> np.ndarray:
    """Numbers of a variable, in the shape that MATLAB shows.

    Raises
    ------
    DamagedError, OSError, zlib.error
        Also when there are more than `MOST_BYTES`.
    """
    check(variable)
    expected = variable.n_data
    with path.open("rb") as file:
        file.seek(variable.at)
        if variable.is_compressed:
            data = _inflated(file, variable)
        else:
            file.seek(variable.within, 1)
            data = np.fromfile(file, np.uint8, min(expected, variable.n_bytes - variable.within))
    if len(data) != expected:
        raise DamagedError(f"{len(data)} bytes in `{variable.name}` where {expected} belong")
    return data.view(variable.dtype).reshape(variable.shape, order="F")


def check(variable: Variable) -> None:
    """Refuse what is no array of numbers, or contradicts itself, by a DamagedError."""
    expected = math.prod(variable.shape) * variable.dtype.itemsize
    stored = variable.n_bytes * (_MOST_EXPANSION if variable.is_compressed else 1)
    if not variable.is_numbers or expected != variable.n_data or expected > stored:
        raise DamagedError(
            f"{min(variable.n_data, stored)} bytes in `{variable.name}` where its shape "
            f"{variable.shape} says {expected}"
        )
    if expected > MOST_BYTES:
        raise DamagedError(f"`{variable.name}` is too large: {expected} bytes")


def _inflated(file: BinaryIO, variable: Variable) -> np.ndarray:
    """Bytes of the numbers: no more than they should be, and checked when the stream ends."""
    stream = zlib.decompressobj()
    inflated = bytearray()
    wanted = variable.within + variable.n_data
    left = variable.n_bytes
    source = b""
    # A real element ends with at most 7 bytes of padding.
    while len(inflated) <= wanted + 8 and not stream.eof:
        if not source:
            source = file.read(min(left, _AT_ONCE))
            left -= len(source)
            if not source:
                inflated += stream.flush()
                break
        inflated += stream.decompress(source, _AT_ONCE)
        source = stream.unconsumed_tail
    return np.frombuffer(inflated, np.uint8)[variable.within : wanted]


def _variable(beginning: bytes, order: _Order, at: int, n_bytes: int, skipped: int) -> Variable:
    parts = _Parts(beginning, order)
    flags = parts.next(2)[0]
    shape = parts.next(32)
    name = bytes(parts.next_bytes()).decode("utf-8", "replace")
    is_numbers = (flags & 0xFF) in _CLASSES_OF_NUMBERS and not flags & _IS_COMPLEX
    kind, n_data, within = parts.tag() if is_numbers else (0, 0, 0)
    return Variable(
        name=name,
        shape=tuple(shape),
        is_numbers=is_numbers and kind in _STORED_AS and all(n >= 0 for n in shape),
        dtype=np.dtype(_STORED_AS.get(kind, "u1")).newbyteorder(order),
        at=at,
        n_bytes=n_bytes,
        within=within + skipped,
        n_data=n_data,
        is_compressed=bool(skipped),
    )


class _Parts:
    """The parts of a variable, one after another: flags, dimensions, name, numbers."""

    def __init__(self, data: bytes, order: _Order) -> None:
        self._data = data
        self._order = order
        self._at = 0

    def tag(self) -> tuple[int, int, int]:
        """Type, length and place of the next part; short ones stand in the tag itself."""
        kind, n_bytes = _integers(self._data[self._at : self._at + 8], self._order, 2)
        start, padded = self._at + 8, 8 + -(-n_bytes // 8) * 8
        if kind >> 16:
            kind, n_bytes, start, padded = kind & 0xFFFF, kind >> 16, self._at + 4, 8
        self._at += padded
        return kind, n_bytes, start

    def next_bytes(self) -> bytes:
        """Content of the next part."""
        _, n_bytes, start = self.tag()
        if start + n_bytes > len(self._data):
            raise DamagedError("a variable without beginning")
        return self._data[start : start + n_bytes]

    def next(self, most: int) -> list[int]:
        """Content of the next part as integers, at least one and not too many."""
        data = self.next_bytes()
        if not 4 <= len(data) <= 4 * most:
            raise DamagedError(f"{len(data)} bytes of flags or dimensions")
        return np.frombuffer(data[: len(data) // 4 * 4], f"{self._order}i4").tolist()


def _integers(data: bytes, order: _Order, n: int) -> list[int]:
    if len(data) < 4 * n:
        raise DamagedError("a tag that is cut off")
    return np.frombuffer(data[: 4 * n], f"{order}u4").tolist()
