"""Datasets of the package movement: netCDF files read by slices of time, or in memory."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from kpms_zarr.store.errors import InputError, unreadable
from kpms_zarr.store.parsers.base import (
    NO_OPTIONS,
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    Tracks,
    no_package,
    some,
)
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.movement.dataset import NAMES, blocks_of, header_of, poses_of
from kpms_zarr.store.parsers.movement.time import timing_of
from kpms_zarr.store.parsers.time.clock import AUTO

if TYPE_CHECKING:
    import xarray

_WANTED = ("position", "confidence", *(name for names in NAMES.values() for name in names))
_MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
# What netCDF writes on dimensions without a coordinate: they have no values to be read.
_NO_VALUES = "This is a netCDF dimension but not a netCDF variable"
# The header of a netCDF 3 file, which names all dimensions and variables, comes first.
_HEADER_BYTES = 65_536


def sniff(path: Path) -> str | None:
    """Recognise a netCDF file with positions in space and time; see `Parser`."""
    with path.open("rb") as raw:
        start = raw.read(_HEADER_BYTES)
    if start[:4] in _MAGIC:
        names = (b"position", b"space", b"time")
        return "netCDF 3 with position, space, time" if all(n in start for n in names) else None
    with h5py.File(path, "r") as file:
        if hdf5.dataset(file, "position") is None or hdf5.dataset(file, "time") is None:
            return None
        space = hdf5.dataset(file, "space")
        if space is None or hdf5.text(hdf5.attribute(space, "CLASS", "")) != "DIMENSION_SCALE":
            return None
    return "netCDF with position, space, time"


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Find the individuals and what is said of time; see `Parser`."""
    with _opened(path) as data:
        timing = timing_of(data, options.time_unit, str(path))
        return header_of(poses_of(data, str(path), options), data, PARSER.name, path, timing)


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    with _opened(path) as data:
        yield from blocks_of(poses_of(data, str(path), options), block_frames)


def tracks_of_dataset(dataset: xarray.Dataset, name: str, time_unit: str = AUTO) -> Tracks:
    """Sessions of a ``movement`` dataset in memory; an InputError with what is wrong with it.

    Of several individuals, the name of each follows that of the session. ``time_unit``: of the
    coordinate ``time``, see `ReadOptions`.
    """
    where = f"arrays[{name!r}]"
    if not hasattr(dataset, "data_vars"):
        found = f"a {type(dataset).__name__}"
        raise InputError(
            expected="an xarray.Dataset", found=found, where=where, fix="give a movement dataset"
        )
    poses = poses_of(dataset, where, NO_OPTIONS)
    block = next(blocks_of(poses, poses.n_frames))
    timing = timing_of(dataset, time_unit, where)
    header = header_of(poses, dataset, "array", Path(name), timing)
    return Tracks(header, block.position, block.confidence)


# ------------------------------------------------------------------ opening


@contextmanager
def _opened(path: Path) -> Iterator[xarray.Dataset]:
    """Open lazily; what xarray and the libraries below it dislike is an InputError."""
    engine, others = _prepared(path)
    import xarray

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = xarray.open_dataset(
                path,
                engine=engine,
                cache=False,
                decode_times=False,
                decode_timedelta=False,
                drop_variables=others,
            )
        with data:
            yield data
    except InputError:
        raise
    except Exception as error:  # of netCDF files that are damaged, any
        raise InputError(
            expected="a complete netCDF file",
            found=f"one that xarray cannot read ({type(error).__name__}: {error})",
            where=str(path),
            fix="the file is damaged: copy it again, or write it again with ds.to_netcdf(path)",
        ) from error


def _prepared(path: Path) -> tuple[Any, list[str]]:
    """The library to open a file with, and the variables not to look at."""
    try:
        with path.open("rb") as raw:
            if raw.read(4) in _MAGIC:
                return "scipy", []
    except OSError as error:
        raise unreadable(path, error) from error
    with hdf5.opened(path) as file:
        names = [str(name) for name in file]
        elsewhere = [n for n in names if not isinstance(file.get(n, getlink=True), h5py.HardLink)]
        if elsewhere:
            raise InputError(
                expected="all variables in this file",
                found=f"links for {some(elsewhere)}",
                where=str(path),
                fix="write the dataset again with ds.to_netcdf(path)",
            )
        for name in names:
            item = hdf5.dataset(file, name)
            if item is None:
                continue
            hdf5.check_inside(item, str(path))
            if name in ("position", "confidence"):
                hdf5.check_numbers(item, str(path))
            elif name in _WANTED:
                scale = hdf5.text(hdf5.attribute(item, "NAME", ""))
                if not scale.startswith(_NO_VALUES):
                    hdf5.check_size(item, str(path))
    if importlib.util.find_spec("h5netcdf") is None:
        raise no_package("h5netcdf", "netCDF", "movement", str(path))
    return "h5netcdf", [name for name in names if name not in _WANTED]


PARSER = Parser("movement", "movement netCDF", sniff, inspect, read)
