"""Placement of per-frame arrays: in host memory, in a scratch file, or on the device.

All three do the same: slices of frames for what runs in order, and segments side by side for what
runs in tiles. They hold the same bits; the plan chooses among them by what fits.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.errors import OutOfMemoryError
from kpms_zarr.store.errors import InputError

_PIECE_ROWS = 65_536
"""Of an array on the device that are handed over at once."""


class Segments(Protocol):
    """Arrays from which a tile can be gathered."""

    def gather(
        self,
        begin: np.ndarray,
        end: np.ndarray,
        *,
        n_rows: int,
        n_segments: int,
        fill: float,
        columns: slice | None = None,
    ) -> Any:
        """Rows ``begin[i]`` to ``end[i]`` of the flat array, segments side by side.

        Parameters
        ----------
        begin, end : ndarray, (segment,) int64
            At most ``n_segments`` of them.
        n_rows, n_segments : int
            Shape of the result.
        fill : float
            Where a segment has no row.
        columns : slice, optional
            Default: all.

        Returns
        -------
        array, (segment, row, ...)
        """
        ...


class FrameArray(Segments, Protocol):
    """A flat array (frame,) or (frame, column)."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, key: Any) -> np.ndarray: ...

    def __setitem__(self, key: Any, values: Any) -> None: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray: ...

    def put(self, first: np.ndarray, start: np.ndarray, stop: np.ndarray, values: Any) -> None:
        """Write rows ``start[i]`` to ``stop[i]`` of segment i to row ``first[i]`` on.

        Parameters
        ----------
        first, start, stop : ndarray, (segment,)
        values : array, (segment, row, ...)
        """
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Read single rows."""
        ...

    def close(self) -> None:
        """Free the array."""
        ...


def make_rows(
    home: str, name: str, dtype: str, shape: tuple[int, ...], scratch: str | None = None
) -> FrameArray:
    """Make an array of zeros in one of the placements.

    Parameters
    ----------
    home : str
        One of ``HOMES``.
    name : str
        For messages.
    shape : tuple of int
        (frame,) or (frame, column).
    scratch : path, optional
        Folder of scratch files (default: that of the environment variable TMPDIR).

    Raises
    ------
    InputError
        When the scratch folder has too little space.
    """
    if home == "device":
        return DeviceRows(dtype, shape)
    if home == "disk":
        return DiskRows(name, dtype, shape, scratch)
    return HostRows(np.zeros(shape, dtype))


class HostSegments:
    """Segments that are copied one after the other, in the memory of the host."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def _read_into(self, row: int, target: np.ndarray, columns: slice | None = None) -> None:
        """Copy rows from one on, as many as ``target`` has."""
        raise NotImplementedError

    def gather(
        self,
        begin: np.ndarray,
        end: np.ndarray,
        *,
        n_rows: int,
        n_segments: int,
        fill: float,
        columns: slice | None = None,
    ) -> np.ndarray:
        """See :class:`Segments`."""
        width = self.shape[1:]
        if columns is not None:
            width = (len(range(*columns.indices(self.shape[1]))),)
        found = np.full((n_segments, n_rows, *width), fill, self.dtype)
        for segment, (first, last) in enumerate(zip(begin, end, strict=True)):
            self._read_into(int(first), found[segment, : last - first], columns)
        return found


class _HostArray(HostSegments):
    """Array of the host that is also written."""

    def __getitem__(self, key: Any) -> np.ndarray:
        raise NotImplementedError

    def __setitem__(self, key: Any, values: Any) -> None:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype, copy=copy)

    def put(self, first: np.ndarray, start: np.ndarray, stop: np.ndarray, values: Any) -> None:
        """See :class:`FrameArray`."""
        values = np.asarray(values)
        for segment, (row, a, b) in enumerate(zip(first, start, stop, strict=True)):
            self[int(row) : int(row) + int(b - a)] = values[segment, a:b]


class HostRows(_HostArray):
    """Array in the memory of the process.

    Parameters
    ----------
    values : ndarray, (frame, ...)
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.values[key]

    def __setitem__(self, key: Any, values: Any) -> None:
        self.values[key] = values

    def _read_into(self, row: int, target: np.ndarray, columns: slice | None = None) -> None:
        rows = self.values[row : row + len(target)]
        target[...] = rows if columns is None else rows[:, columns]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`FrameArray`."""
        return self.values[rows]

    def close(self) -> None:
        """See :class:`FrameArray`."""


class DiskRows(_HostArray):
    """Array in a scratch file without a name, which goes with the process, however it ends.

    Read and written by calls, not mapped: pages of a mapped file count as memory of the process,
    and stay there for as long as the machine has room.

    Parameters
    ----------
    name, dtype, shape, scratch
        See :func:`make_rows`.
    """

    def __init__(
        self, name: str, dtype: str, shape: tuple[int, ...], scratch: str | None = None
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        self._lock = threading.Lock()
        folder = scratch or tempfile.gettempdir()
        n_bytes = shape[0] * self._row_bytes
        file = None
        try:
            file = self._file = tempfile.TemporaryFile(  # noqa: SIM115
                prefix=f"kpms_zarr_{name}_", dir=folder, buffering=0
            )
            # Reserve the space now: a disk that fills up later would end the fit.
            if n_bytes and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, n_bytes)
            else:
                self._file.truncate(n_bytes)
        except OSError as error:
            if file is not None:
                file.close()
            raise InputError(
                expected=f"{n_bytes:,} bytes of scratch space for {name}",
                found=f"{error.strerror}",
                where=os.fspath(folder),
                fix="free some space, name another folder with `scratch=` (or the environment "
                "variable TMPDIR), or give more `host_memory=`",
            ) from error

    def _read_into(self, row: int, target: np.ndarray, columns: slice | None = None) -> None:
        if columns is not None:
            target[...] = self[row : row + len(target)][:, columns]
        elif target.size:
            view = target.reshape(-1).view(np.uint8).data
            self._whole(view, row * self._row_bytes, is_read=True)

    def _write_from(self, row: int, source: np.ndarray) -> None:
        if not source.size:
            return
        view = np.ascontiguousarray(source, self.dtype).reshape(-1).view(np.uint8).data
        self._whole(view, row * self._row_bytes, is_read=False)

    def _whole(self, view: memoryview, offset: int, *, is_read: bool) -> None:
        done = 0
        while done < len(view):
            part = view[done:]
            n = self._read(part, offset + done) if is_read else self._write(part, offset + done)
            if n <= 0:
                raise OSError(f"the scratch file ended at byte {offset + done}")
            done += n

    def _read(self, part: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [part], offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(part) or 0

    def _write(self, part: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), part, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.write(part)

    def _bounds(self, key: Any) -> tuple[int, int]:
        if not isinstance(key, slice):
            raise TypeError(f"a scratch file is read by slices of frames, not {key!r}")
        start, stop, step = key.indices(self.shape[0])
        if step != 1:
            raise TypeError("a scratch file is read by slices without a step")
        return start, max(start, stop)

    def __getitem__(self, key: Any) -> np.ndarray:
        start, stop = self._bounds(key)
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self._read_into(start, found)
        return found

    def __setitem__(self, key: Any, values: Any) -> None:
        start, stop = self._bounds(key)
        shape = (stop - start, *self.shape[1:])
        self._write_from(start, np.broadcast_to(np.asarray(values, self.dtype), shape))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`FrameArray`."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for i, row in enumerate(rows):
            self._read_into(int(row), found[i : i + 1])
        return found

    def close(self) -> None:
        """See :class:`FrameArray`."""
        self._file.close()


class DeviceRows:
    """Array on the device; only sums and counts of labels cross over during a sweep.

    Parameters
    ----------
    dtype, shape
        See :func:`make_rows`.
    """

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        # One at a time: what is gathered must be asked for before the next write takes the array.
        self._lock = threading.Lock()
        with self._precision():
            self._values = jnp.zeros(shape, self.dtype)

    def _precision(self) -> Any:
        # JAX keeps this setting by thread; where it is off, float64 would become float32.
        return jax.enable_x64(self.dtype == np.float64)

    def __getitem__(self, key: Any) -> np.ndarray:
        start, stop, _ = key.indices(self.shape[0])
        found = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        for first, begin, rows in self._pieces(start, stop):
            with self._lock, self._precision():
                piece = np.asarray(_piece(self._values, np.int32(begin), n_rows=self._n_rows))
            found[first : first + rows.stop - rows.start] = piece[rows]
        return found

    def __setitem__(self, key: Any, values: Any) -> None:
        start, stop, _ = key.indices(self.shape[0])
        shape = (max(0, stop - start), *self.shape[1:])
        given = np.broadcast_to(np.asarray(values, self.dtype), shape)
        for first, begin, rows in self._pieces(start, stop):
            padded = np.zeros((self._n_rows, *self.shape[1:]), self.dtype)
            padded[rows] = given[first : first + rows.stop - rows.start]
            with self._lock, self._precision():
                self._values = _overwrite(
                    self._values, padded, np.int32(begin), np.int32(rows.start), np.int32(rows.stop)
                )

    @property
    def _n_rows(self) -> int:
        return min(_PIECE_ROWS, self.shape[0])

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """Pieces of one size, so that one program serves all: what is asked for lies in their
        ``rows``, and they begin early enough to end within the array.

        Yields (first of what is asked for, first row of the piece, rows of the piece).
        """
        for first in range(start, stop, max(1, self._n_rows)):
            begin = min(first, self.shape[0] - self._n_rows)
            end = min(stop, first + self._n_rows, begin + self._n_rows)
            yield first - start, begin, slice(first - begin, end - begin)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype, copy=copy)

    def gather(
        self,
        begin: np.ndarray,
        end: np.ndarray,
        *,
        n_rows: int,
        n_segments: int,
        fill: float,
        columns: slice | None = None,
    ) -> jax.Array:
        """See :class:`Segments`."""
        first, last = (_padded(rows, n_segments) for rows in (begin, end))
        span = None if columns is None else columns.indices(self.shape[1])[:2]
        with self._lock, self._precision():
            return _gather(
                self._values, first, last, np.asarray(fill, self.dtype), n_rows=n_rows, columns=span
            )

    def put(self, first: np.ndarray, start: np.ndarray, stop: np.ndarray, values: Any) -> None:
        """See :class:`FrameArray`."""
        n_segments = values.shape[0]
        if values.dtype != self.dtype:
            values = np.asarray(values).astype(self.dtype)
        rows = (_padded(part, n_segments) for part in (first, start, stop))
        try:
            with self._lock, self._precision():
                self._values = _put(self._values, *rows, values)
        except jax.errors.JaxRuntimeError as error:
            # The array was given away: there is no state that could be gone on from.
            raise OutOfMemoryError(str(error).splitlines()[0]) from error

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`FrameArray`."""
        with self._lock, self._precision():
            return np.asarray(self._values[rows])

    def close(self) -> None:
        """See :class:`FrameArray`."""
        self._values.delete()


def _padded(rows: np.ndarray, n_segments: int) -> np.ndarray:
    return np.pad(np.asarray(rows, np.int32), (0, n_segments - len(rows)))


@partial(jax.jit, static_argnames="n_rows")
def _piece(values: jax.Array, start: jax.Array, *, n_rows: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(values, start, n_rows)


@partial(jax.jit, donate_argnums=0)
def _overwrite(
    values: jax.Array, piece: jax.Array, start: jax.Array, low: jax.Array, high: jax.Array
) -> jax.Array:
    before = jax.lax.dynamic_slice_in_dim(values, start, len(piece))
    row = jnp.arange(len(piece)).reshape(-1, *(1,) * (values.ndim - 1))
    new = jnp.where((row >= low) & (row < high), piece, before)
    return jax.lax.dynamic_update_slice_in_dim(values, new, start, 0)


@partial(jax.jit, static_argnames=("n_rows", "columns"))
def _gather(
    values: jax.Array,
    begin: jax.Array,
    end: jax.Array,
    fill: jax.Array,
    *,
    n_rows: int,
    columns: tuple[int, int] | None,
) -> jax.Array:
    if columns is not None:
        values = values[:, slice(*columns)]
    rows = begin[:, None] + jnp.arange(n_rows, dtype=begin.dtype)
    found = values[jnp.minimum(rows, len(values) - 1)]
    is_there = (rows < end[:, None]).reshape(*rows.shape, *(1,) * (values.ndim - 1))
    return jnp.where(is_there, found, fill)


@partial(jax.jit, donate_argnums=0)
def _put(
    values: jax.Array, first: jax.Array, start: jax.Array, stop: jax.Array, given: jax.Array
) -> jax.Array:
    row = jnp.arange(given.shape[1], dtype=first.dtype)
    is_own = (row >= start[:, None]) & (row < stop[:, None])
    rows = jnp.where(is_own, (first - start)[:, None] + row, len(values))
    return values.at[rows].set(given, mode="drop")


class ColumnView:
    """Some columns of an array, by slices of frames.

    Parameters
    ----------
    rows : FrameArray, (frame, column)
    which : slice or int
        One column drops the dimension.
    """

    def __init__(self, rows: FrameArray, which: slice | int) -> None:
        self._rows, self.which = rows, which

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, column), or (frame,) for a single one."""
        if isinstance(self.which, int):
            return self._rows.shape[:1]
        start, stop, _ = self.which.indices(self._rows.shape[1])
        return (self._rows.shape[0], stop - start)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._rows[key][..., self.which]

    def __setitem__(self, key: Any, values: Any) -> None:
        held = np.array(self._rows[key])
        held[..., self.which] = values
        self._rows[key] = held

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # NumPy takes the word of this method for a copy where it asks for one.
        return np.array(self[:], dtype, copy=copy)
