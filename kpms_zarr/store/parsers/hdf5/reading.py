"""HDF5 files of other people: opened, read and refused in the same way by all parsers."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError

# What broken pickles, attributes and datasets make h5py, pickle and numpy raise.
DAMAGE = (
    OSError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    EOFError,
    MemoryError,
    OverflowError,
    pickle.UnpicklingError,
)

# Compressed tracking data are 2 to 20 times smaller than the numbers; zeros up to 1,000 times.
_MOST_EXPANSION = 2_000
_ALWAYS_FINE_BYTES = 64_000_000
# HDF5 takes memory for a whole chunk, whatever is read of it.
_LARGEST_CHUNK_BYTES = 256_000_000
# Of keypoints, tracks or videos; each takes hundreds of bytes in memory, whatever the file takes.
_MOST_TEXTS = 1_000_000
# Larger ones are unpacked again for every read, unless HDF5 is told to keep them.
_KEPT_ANYWAY_BYTES = 1_000_000


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open for reading; what h5py dislikes, here or in the body, is an InputError."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            expected="a complete HDF5 file",
            found=f"one that HDF5 cannot open ({error})",
            where=str(path),
            fix="the file may be cut off or no HDF5 file: copy or export it again",
        ) from error
    try:
        with file:
            yield file
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            expected="a complete HDF5 file",
            found=f"parts that HDF5 cannot read ({error})",
            where=str(path),
            fix="the file is damaged: copy or export it again",
        ) from error


def attribute(item: h5py.Group | h5py.Dataset, name: str, default: Any = None) -> Any:
    """Text or numbers of an attribute; HDF5 can crash on those of other, damaged types."""
    if name not in item.attrs:
        return default
    kind = item.attrs.get_id(name).get_type()
    is_plain = isinstance(kind, h5py.h5t.TypeStringID | h5py.h5t.TypeAtomicID)
    return item.attrs[name] if is_plain else default


def dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """A dataset below a group, or None; links to other files are not followed."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    item = group.get(name)
    if not isinstance(item, h5py.Dataset):
        return None
    n_bytes = chunk_bytes(item)
    if not _KEPT_ANYWAY_BYTES < n_bytes <= _LARGEST_CHUNK_BYTES:
        return item
    place = item.name.encode("utf-8", "surrogateescape")
    del item  # as long as it is open, it stays as it was opened
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(521, n_bytes, 1.0)
    return h5py.Dataset(h5py.h5d.open(group.file.id, place, access))


def chunk_bytes(data: h5py.Dataset) -> int:
    """What HDF5 unpacks to read any of it; 0 where the values are stored in one piece."""
    return math.prod(int(n) for n in data.chunks) * data.dtype.itemsize if data.chunks else 0


def internal(group: h5py.Group, name: str, hops: int = 8) -> h5py.Group | h5py.Dataset | None:
    """What is below a group, also by way of soft links; links to other files are not followed."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.HardLink):
        return group[name]
    if not isinstance(link, h5py.SoftLink) or hops < 1:
        return None
    item: Any = group.file if link.path.startswith("/") else group
    for part in link.path.split("/"):
        if part in ("", "."):
            continue
        item = internal(item, part, hops - 1) if isinstance(item, h5py.Group) else None
    return item


def check_inside(data: h5py.Dataset, where: str) -> None:
    """Refuse values that are in another file, by an InputError."""
    if data.external or data.is_virtual:
        raise InputError(
            expected=f"the values of `{data.name}` in this file",
            found="values that are in other files",
            where=where,
            fix="write all values into one file, for example with `h5repack`",
        )


def check_numbers(data: h5py.Dataset, where: str) -> None:
    """Refuse what is not numbers, or fails `check_size`, by an InputError."""
    if data.dtype.kind not in "fiu":
        raise InputError(
            expected=f"numbers in `{data.name}`",
            found=f"values of type {data.dtype}",
            where=where,
            fix="export the file again",
        )
    check_size(data, where)


def check_size(data: h5py.Dataset, where: str) -> None:
    """Refuse a dataset that claims far more values than the file can hold, by an InputError."""
    if data.shape is None:
        claimed, chunk = 0, 0
    else:
        claimed = math.prod(int(n) for n in data.shape) * data.dtype.itemsize
        chunk = chunk_bytes(data)
    stored = data.id.get_storage_size()
    too_many = claimed > _ALWAYS_FINE_BYTES and claimed > _MOST_EXPANSION * stored
    if too_many or chunk > _LARGEST_CHUNK_BYTES:
        raise InputError(
            expected=f"as many values in `{data.name}` as its shape {data.shape} says",
            found=f"{stored} bytes where {max(claimed, chunk)} belong",
            where=where,
            fix="the file was not written to its end, or is damaged: export it again",
        )


def texts(data: h5py.Dataset) -> list[str]:
    """All text of a dataset of names, decoded, flat; an InputError where there are too many."""
    where = str(data.file.filename)
    check_size(data, where)
    n = math.prod(int(size) for size in data.shape or ())
    if n > _MOST_TEXTS:
        raise InputError(
            expected=f"at most {_MOST_TEXTS:,} names in `{data.name}`",
            found=f"{n:,}",
            where=where,
            fix="the file is damaged: export it again",
        )
    if isinstance(data.id.get_type(), h5py.h5t.TypeVlenID):
        raise ValueError(f"`{data.name}` holds lists, no text")
    return [text(value) for value in np.asarray(data[()]).ravel().tolist()]


def text(value: Any) -> str:
    """Text of an attribute or a cell, whatever h5py makes of it."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
