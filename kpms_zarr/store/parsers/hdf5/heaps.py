"""A kind of damage that makes HDF5 fill all memory: lists of free space that run in a circle."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# A local heap: names of the members of a group. Version 0, then three bytes of zero.
_HEAP = b"HEAP\0\0\0\0"
_END_OF_LIST = 1
_MOST_BLOCKS = 100_000
# All of usual files; of larger ones the beginning and the end, where groups are.
_SCANNED_BYTES = 128 << 20


def has_endless_heap(path: Path) -> bool:
    """Whether opening a group could take all memory: HDF5 follows free blocks without a limit.

    Raises
    ------
    OSError
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with data:
            size = len(data)
            base = _base(data)
            windows = {(0, min(size, _SCANNED_BYTES)), (max(0, size - _SCANNED_BYTES), size)}
            return any(_any_endless(data, base, start, stop) for start, stop in windows)


def _base(data: mmap.mmap) -> int:
    """Where the file begins behind a block of the user, as MATLAB has one: addresses count on."""
    at = 0
    while at + len(_SIGNATURE) <= len(data):
        if data[at : at + len(_SIGNATURE)] == _SIGNATURE:
            return at
        at = max(512, 2 * at)
    return 0


def _any_endless(data: mmap.mmap, base: int, start: int, stop: int) -> bool:
    at = data.find(_HEAP, start, stop)
    while at >= 0:
        if at + 32 <= len(data):
            n_bytes, free, where = struct.unpack("<QQQ", data[at + 8 : at + 32])
            if _is_endless(data, base + where, n_bytes, free):
                return True
        at = data.find(_HEAP, at + 1, stop)
    return False


def _is_endless(data: mmap.mmap, start: int, n_bytes: int, free: int) -> bool:
    """Whether the list visits more blocks than there can be in the heap."""
    left = min(n_bytes // 16 + 1, _MOST_BLOCKS)
    while free != _END_OF_LIST and free + 16 <= n_bytes and start + free + 16 <= len(data):
        if left == 0:
            return True
        left -= 1
        (free,) = struct.unpack("<Q", data[start + free : start + free + 8])
    return False
