"""SLEAP analysis h5 files, in any of the orders of axes that their writers use."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
)
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.sleap.tracks import (
    RENAME,
    Grid,
    individuals,
    names_note,
    wrong_names,
)

_SPACE = ("x", "y")

# SLEAP's export and sleap-io's default; sleap-io's other one; SLEAP's export "for Python".
_MATLAB = ("track", "xy", "node", "frame")
_STANDARD = ("frame", "track", "node", "xy")
_NOT_TRANSPOSED = ("frame", "node", "xy", "track")
_PRESETS = {"matlab": _MATLAB, "standard": _STANDARD}


def sniff(path: Path) -> str | None:
    """Recognise the datasets; see `Parser`."""
    with h5py.File(path, "r") as file:
        if hdf5.dataset(file, "tracks") is None:
            return None
        names = [n for n in ("node_names", "track_occupancy") if hdf5.dataset(file, n) is not None]
    return f"HDF5 datasets tracks, {', '.join(names)}" if names else None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read the names, and of files with several tracks find which appear; see `Parser`."""
    with hdf5.opened(path) as file:
        return _inspect(file, path)[0]


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    with hdf5.opened(path) as file:
        yield from _inspect(file, path)[1].blocks(block_frames)


def _inspect(file: h5py.File, path: Path) -> tuple[FileHeader, Grid]:
    where = str(path)
    tracks, scores = hdf5.dataset(file, "tracks"), hdf5.dataset(file, "point_scores")
    nodes, names = _names(file, "node_names", where), _names(file, "track_names", where)
    if tracks is None or not nodes:
        raise InputError(
            expected="datasets `tracks` and `node_names`",
            found=f"no `{'tracks' if tracks is None else 'node_names'}`, or an empty one",
            where=where,
            fix="check that this is an analysis file of SLEAP (Export Analysis HDF5)",
        )
    for data in (tracks, scores):
        if data is not None:
            hdf5.check_numbers(data, where)
    axes = _axes(file, len(nodes), len(names), where)
    keys = individuals(int(tracks.shape[axes.index("track")]))
    grid = Grid(tracks, axes, scores, {key: i for i, key in enumerate(keys)})
    problems = [*wrong_names(nodes, where, RENAME), *grid.problems(where)]
    if problems:
        raise InputError.of(problems)
    video, fps = _video(file)
    headers = [TrackHeader(key, tuple(nodes), fps=fps, video=video) for key in keys]
    grid, left, notes = grid.only_appearing(headers, where)
    if scores is None:
        notes = (*notes, "no `point_scores` in the file: read without confidence")
    header = FileHeader(
        format=PARSER.name,
        path=path,
        space=_SPACE,
        tracks=left,
        has_confidence=scores is not None,
        notes=(*names_note(names), *notes),
    )
    return header, grid


def _names(file: h5py.File, name: str, where: str) -> list[str]:
    """Text of a dataset; none when it is absent, or empty (SLEAP then writes it as numbers)."""
    data = hdf5.dataset(file, name)
    if data is None or not data.size:
        return []
    if h5py.check_string_dtype(data.dtype) is None:
        raise InputError(
            expected=f"text in `{name}`",
            found=f"values of type {data.dtype}",
            where=where,
            fix="export the file again",
        )
    return hdf5.texts(data)


def _axes(file: h5py.File, n_nodes: int, n_names: int, where: str) -> tuple[str, ...]:
    """Find the axes of `tracks`: as the file says, else the order that all shapes agree with."""
    stated = _stated_axes(file["tracks"])
    fitting = [
        axes
        for axes in ([stated] if stated else [_MATLAB, _STANDARD, _NOT_TRANSPOSED])
        if _fits(file, axes, n_nodes, n_names)
    ]
    for is_preferred in (_is_named, _has_right_occupancy, _is_only_track):
        if len(fitting) > 1:
            fitting = [axes for axes in fitting if is_preferred(file, axes)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    raise InputError.of([_no_axes(file, n_nodes, n_names, bool(fitting), where)])


def _stated_axes(tracks: h5py.Dataset) -> tuple[str, ...] | None:
    """The axes that sleap-io writes down, or None."""
    try:
        stated = tuple(json.loads(hdf5.text(tracks.attrs["dims"])))
        return stated if sorted(stated) == sorted(_MATLAB) else None
    except hdf5.DAMAGE:
        return None


def _sizes(file: h5py.File, axes: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(axes, file["tracks"].shape, strict=True))


def _fits(file: h5py.File, axes: tuple[str, ...], n_nodes: int, n_names: int) -> bool:
    """Whether the shapes of all datasets agree with this order of axes."""
    if file["tracks"].ndim != len(axes):
        return False
    size = _sizes(file, axes)
    occupancy, scores = hdf5.dataset(file, "track_occupancy"), hdf5.dataset(file, "point_scores")
    return (
        size["xy"] == len(_SPACE)
        and size["node"] == n_nodes
        and n_names in (0, size["track"])
        and (occupancy is None or sorted(occupancy.shape) == sorted([size["frame"], size["track"]]))
        and (scores is None or scores.shape == tuple(size[axis] for axis in axes if axis != "xy"))
    )


def _is_named(file: h5py.File, axes: tuple[str, ...]) -> bool:
    """Whether an attribute of the file names this order."""
    if "preset" in file.attrs:
        return axes == _PRESETS.get(hdf5.text(file.attrs["preset"]))
    if "transpose" in file.attrs:
        return axes == (_MATLAB if bool(file.attrs["transpose"]) else _NOT_TRANSPOSED)
    return False


def _has_right_occupancy(file: h5py.File, axes: tuple[str, ...]) -> bool:
    """Whether `track_occupancy` is turned as by the writer of this order."""
    occupancy, size = hdf5.dataset(file, "track_occupancy"), _sizes(file, axes)
    first, second = ("track", "frame") if axes == _NOT_TRANSPOSED else ("frame", "track")
    return occupancy is not None and occupancy.shape == (size[first], size[second])


def _is_only_track(file: h5py.File, axes: tuple[str, ...]) -> bool:
    """Whether this order has one track: SLEAP leaves the names empty for an only, untracked one."""
    names = hdf5.dataset(file, "track_names")
    return names is not None and not names.size and _sizes(file, axes)["track"] == 1


def _no_axes(
    file: h5py.File, n_nodes: int, n_names: int, is_ambiguous: bool, where: str
) -> Problem:
    shapes = [
        f"`{name}` {data.shape}"
        for name in ("tracks", "point_scores", "track_occupancy")
        if (data := hdf5.dataset(file, name)) is not None
    ]
    return Problem(
        expected="`tracks` with the axes (track, xy, node, frame), (frame, track, node, xy) or "
        "(frame, node, xy, track), as the lengths of the other datasets tell",
        found=f"{', '.join(shapes)}, {n_nodes} node names, {n_names} track names: "
        + ("more than one order fits" if is_ambiguous else "no order fits"),
        where=where,
        fix="export the file again with SLEAP or sleap-io; "
        "or write the order to the file: file['tracks'].attrs['dims'] = "
        '\'["track", "xy", "node", "frame"]\'',
    )


def _video(file: h5py.File) -> tuple[str, float | None]:
    """Path of the video and frames per second, where the file says so."""
    data = hdf5.dataset(file, "video_path")
    if data is None or not data.size or h5py.check_string_dtype(data.dtype) is None:
        paths = [""]
    else:
        paths = hdf5.texts(data)
    try:
        metadata: Any = json.loads(hdf5.text(file.attrs["video_backend_metadata"]))
        fps = float(metadata["fps"])
    except hdf5.DAMAGE:
        fps = math.nan
    # SLEAP on Windows joins folder and name with a backslash, the rest with slashes.
    return paths[0].replace("\\", "/"), fps if math.isfinite(fps) and fps > 0 else None


PARSER = Parser("sleap_h5", "SLEAP analysis h5", sniff, inspect, read)
