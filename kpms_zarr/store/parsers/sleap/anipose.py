"""sleap-anipose h5 files: triangulated tracks, without any names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
)
from kpms_zarr.store.parsers.hdf5.reading import check_numbers, dataset, opened
from kpms_zarr.store.parsers.naming import keypoint_names
from kpms_zarr.store.parsers.sleap.tracks import Grid, individuals, wrong_names

_SPACE = ("x", "y", "z")
_AXES = ("frame", "track", "node", "xy")

# What SLEAP's own files have beside their tracks.
_OF_SLEAP = ("node_names", "track_names", "track_occupancy")


def sniff(path: Path) -> str | None:
    """Recognise nameless tracks in three dimensions; see `Parser`."""
    with h5py.File(path, "r") as file:
        tracks = dataset(file, "tracks")
        if tracks is None or any(name in file for name in _OF_SLEAP):
            return None
        is_ours = tracks.ndim == 4 and tracks.shape[3] == 3 and tracks.dtype.kind in "fiu"
    return "HDF5 dataset tracks of 3-D points, without names" if is_ours else None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read the shape, and of files with several tracks find which appear; see `Parser`."""
    with opened(path) as file:
        return _inspect(file, path, options)[0]


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    with opened(path) as file:
        yield from _inspect(file, path, options)[1].blocks(block_frames)


def _inspect(file: h5py.File, path: Path, options: ReadOptions) -> tuple[FileHeader, Grid]:
    where = str(path)
    tracks = dataset(file, "tracks")
    if tracks is None or tracks.ndim != 4 or tracks.shape[3] != 3:
        raise InputError(
            expected="a dataset `tracks` of shape (frames, tracks, nodes, 3)",
            found="none" if tracks is None else f"one of shape {tracks.shape}",
            where=where,
            fix="check that sleap-anipose's triangulation wrote this file",
        )
    check_numbers(tracks, where)
    keys = individuals(int(tracks.shape[1]))
    grid = Grid(tracks, _AXES, None, {key: i for i, key in enumerate(keys)})
    given = wrong_names(
        options.keypoint_names, "`keypoint_names=`", "name every keypoint differently"
    )
    problems = [*given, *grid.problems(where)]
    if problems:
        raise InputError.of(problems)
    names, naming = keypoint_names(options, grid.size("node"), where)
    grid, left, notes = grid.only_appearing([TrackHeader(key, names) for key in keys], where)
    header = FileHeader(
        format=PARSER.name,
        path=path,
        space=_SPACE,
        tracks=left,
        has_confidence=False,
        notes=(*naming, *notes, "no confidence in files of this format"),
    )
    return header, grid


PARSER = Parser("sleap_anipose_h5", "SLEAP-anipose h5", sniff, inspect, read)
