"""NWB files with ndx-pose, read by rows with h5py alone, as pynwb refuses some that are fine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.appearing import only_appearing
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    float32,
    no_frames,
    some,
    without_confidence,
)
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.nwb.series import (
    Series,
    clean,
    named,
    nodes_of,
    other_times,
    series_of,
    short_name,
    times_of,
    timing_of,
    type_of,
)

_SPACE = ("x", "y", "z")
_SCAN_FRAMES = 4096
_READ_BYTES = 32_000_000
"""Numbers read in one go, so that a compressed chunk is not unpacked again for every block."""


@dataclass(frozen=True)
class _Pose:
    """One PoseEstimation: a track."""

    part: str
    group: h5py.Group
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    @property
    def n_frames(self) -> int:
        return max(len(series.data) for series in self.series)

    @property
    def longest(self) -> Series:
        return max(self.series, key=lambda series: len(series.data))


@dataclass(frozen=True)
class _PoseTracks:
    """Tracks of a file, and their timing."""

    poses: tuple[_Pose, ...]
    space: tuple[str, ...]
    has_confidence: bool
    notes: tuple[str, ...]


def sniff(path: Path) -> str | None:
    """Recognise an object of type PoseEstimation; see `Parser`."""
    with h5py.File(path, "r") as file:
        found = _pose_groups(file, max_groups=1)
    return f"PoseEstimation `/{found[0]}`" if found else None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Find the PoseEstimation objects, and what time stamps say; see `Parser`."""
    with hdf5.opened(path) as file:
        layout = _inspect(file, path)
        tracks, notes = [], list(layout.notes)
        for pose in layout.poses:
            where = f"{path}, `{clean(str(pose.longest.group.name))}`"
            timing = timing_of(pose.longest, options.time_unit, where)
            video, more = _video(pose.group)
            tracks.append(timing.of(replace(_track(pose), video=video)))
            prefix = f"`{pose.part}`: " if pose.part else ""
            notes += [prefix + note for note in (*pose.notes, *timing.notes, *more)]
    return FileHeader(
        PARSER.name, path, layout.space, tuple(tracks), layout.has_confidence, tuple(notes)
    )


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    with hdf5.opened(path) as file:
        yield from _blocks(_inspect(file, path), block_frames)


def times(path: Path, key: str, options: ReadOptions) -> Iterator[np.ndarray]:
    """Read the time stamps of a track; see `Parser`."""
    with hdf5.opened(path) as file:
        for pose in _inspect(file, path).poses:
            if _track(pose).key == key:
                yield from times_of(pose.longest)


def _inspect(file: h5py.File, path: Path) -> _PoseTracks:
    where = str(path)
    groups = [file[name] for name in _pose_groups(file)]
    if not groups:
        raise InputError(
            expected="at least one PoseEstimation (of the NWB extension ndx-pose)",
            found=f"an HDF5 file with {some([hdf5.text(key) for key in file]) or 'nothing in it'}",
            where=where,
            fix="check that poses were written to this file, or name its format with `format=`",
        )
    problems: list[Problem] = []
    poses, empty = [], []
    for group, part in zip(groups, _parts(groups, where), strict=True):
        pose = _pose(group, part, where, problems)
        if pose is not None and pose.n_frames:
            poses.append(pose)
        elif pose is not None:
            empty.append(part or short_name(group))
    n_dims = sorted({s.data.shape[1] for pose in poses for s in pose.series})
    if len(n_dims) > 1:
        fix = "write the series in 2-D and those in 3-D to files of their own"
        problems.append(Problem("x, y or x, y, z in all series", "both", where, fix))
    if not poses and not problems:
        problems.append(no_frames(where))
    if problems:
        raise InputError.of(problems)
    layout = _layout(poses, n_dims[0])
    if empty:
        layout = replace(layout, notes=(*layout.notes, f"left out {some(empty)}: no frames"))
    scan = partial(_blocks, layout, _SCAN_FRAMES)
    tracks, notes = only_appearing([_track(pose) for pose in poses], scan, where)
    keys = {track.key for track in tracks}
    seen = tuple(pose for pose in poses if _track(pose).key in keys)
    return replace(layout, poses=seen, notes=(*layout.notes, *notes))


def _layout(poses: Sequence[_Pose], n_dims: int) -> _PoseTracks:
    series = [one for pose in poses for one in pose.series]
    lacking = [one.keypoint for one in series if one.confidence is None]
    notes = without_confidence("confidence", lacking, len(series))
    return _PoseTracks(tuple(poses), _SPACE[:n_dims], not lacking, notes)


def _track(pose: _Pose) -> TrackHeader:
    return TrackHeader("", tuple(s.keypoint for s in pose.series), pose.part)


# ------------------------------------------------------------------ finding


def _pose_groups(file: h5py.File, max_groups: int | None = None) -> list[str]:
    found: list[str] = []

    def visit(name: str, item: object) -> bool | None:
        if type_of(item) == "PoseEstimation":
            found.append(name)
        return True if max_groups and len(found) >= max_groups else None

    # Follows no external or soft links, so stays in this file.
    file.visititems(visit)
    return found


def _parts(groups: Sequence[h5py.Group], where: str) -> list[str]:
    """Name the objects uniquely, with the names of the groups around where needed."""
    if len(groups) == 1:
        return [""]
    paths = [clean(str(group.name)).strip("/").split("/") for group in groups]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["_".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise InputError(
        expected="PoseEstimation objects with different names",
        found=some(["/".join(path) for path in paths]),
        where=where,
        fix="rename them, or write them to files of their own",
    )


def _pose(group: h5py.Group, part: str, where: str, problems: list[Problem]) -> _Pose | None:
    """Read a PoseEstimation whose series can all be read; adds to the problems otherwise."""
    here = f"{where}, `{clean(str(group.name))}`"
    before = len(problems)
    found = {}
    for name in group:
        item = hdf5.internal(group, name)
        if type_of(item) == "PoseEstimationSeries":
            found[clean(name)] = item
    if not found:
        fix = "check that poses were written to this file"
        problems.append(Problem("at least one PoseEstimationSeries", "none", here, fix))
        return None
    pairs, notes = named(list(found), nodes_of(group))
    series = [series_of(keypoint, found[name], here, problems) for keypoint, name in pairs]
    if len(problems) > before:
        return None
    kept = tuple(s for s in series if s is not None)
    problems += other_times(kept, here)
    scales = {s.scale for s in kept}
    if scales != {1.0}:
        notes.append(f"coordinates multiplied by {some([f'{s:g}' for s in sorted(scales)])}")
    longest = max(len(s.data) for s in kept)
    short = [f"{s.keypoint}, {len(s.data)} frames" for s in kept if len(s.data) < longest]
    if short and longest:
        notes.append(f"shorter than {longest} frames, the rest is missing: {some(short)}")
    return _Pose(part, group, kept, tuple(notes))


def _video(group: h5py.Group) -> tuple[str, tuple[str, ...]]:
    """Path of the video, and a note if there are several."""
    data = hdf5.internal(group, "original_videos")
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        return "", ()
    hdf5.check_inside(data, str(group.file.filename))
    videos = hdf5.texts(data)
    if len(videos) == 1:
        return videos[0], ()
    return "", ((f"made from several videos: {some(videos)}",) if videos else ())


# ------------------------------------------------------------------ reading


def _blocks(layout: _PoseTracks, block_frames: int) -> Iterator[PoseBlock]:
    by_length = sorted(layout.poses, key=lambda pose: pose.n_frames)
    for n_frames, group in groupby(by_length, key=lambda pose: pose.n_frames):
        poses = list(group)
        row = sum(len(pose.series) for pose in poses) * (len(layout.space) + 1) * 4
        stride = max(block_frames, _READ_BYTES // row // block_frames * block_frames)
        for first in range(0, n_frames, stride):
            last = min(first + stride, n_frames)
            position = {pose.part: _positions(pose, first, last) for pose in poses}
            confidence = {}
            if layout.has_confidence:
                confidence = {pose.part: _confidences(pose, first, last) for pose in poses}
            for start in range(first, last, block_frames):
                frames = slice(start - first, min(start + block_frames, last) - first)
                yield PoseBlock(
                    start,
                    {key: values[frames] for key, values in position.items()},
                    {key: values[frames] for key, values in confidence.items()},
                )


def _positions(pose: _Pose, first: int, last: int) -> np.ndarray:
    """(frame, keypoint, space) float32."""
    found = []
    for series in pose.series:
        rows = series.data[first:last]
        if (series.scale, series.offset) != (1.0, 0.0):
            with np.errstate(all="ignore"):
                rows = rows * series.scale + series.offset
        found.append(rows)
    return _stacked(found, last - first)


def _confidences(pose: _Pose, first: int, last: int) -> np.ndarray:
    """(frame, keypoint) float32."""
    found = [one.confidence[first:last] for one in pose.series if one.confidence is not None]
    return _stacked(found, last - first)


def _stacked(columns: Sequence[np.ndarray], n_frames: int) -> np.ndarray:
    """Rows of the keypoints side by side, missing where a series has ended."""
    values = np.full((n_frames, len(columns), *columns[0].shape[1:]), np.nan, np.float32)
    for number, rows in enumerate(columns):
        values[: len(rows), number] = float32(rows)
    return values


PARSER = Parser("nwb", "NWB with ndx-pose", sniff, inspect, read, times)
