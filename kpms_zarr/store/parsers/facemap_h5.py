"""Facemap h5 files: a group of datasets x, y, likelihood for every keypoint, read by rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError, Problem
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

_ROOT = "Facemap"
_SPACE = ("x", "y")
_LIKELIHOOD = "likelihood"


@dataclass(frozen=True)
class _KeypointDatasets:
    """The datasets of every keypoint, in file order; `confidence` is empty without likelihood."""

    keypoints: tuple[str, ...]
    position: list[list[h5py.Dataset]]
    confidence: list[h5py.Dataset]
    n_frames: int
    notes: tuple[str, ...]


def sniff(path: Path) -> str | None:
    """Recognise the group ``Facemap`` with keypoints in it; see `Parser`."""
    with h5py.File(path, "r") as file:
        root = _group(file, _ROOT)
        for name in () if root is None else root:
            part = _group(root, name)
            if part is not None and all(hdf5.dataset(part, c) is not None for c in _SPACE):
                return f"group `{_ROOT}` with keypoints such as `{name[:40]}`"
    return None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read names and lengths; see `Parser`."""
    with _opened(path) as contents:
        pass
    return FileHeader(
        format=PARSER.name,
        path=path,
        space=_SPACE,
        tracks=(TrackHeader("", contents.keypoints),),
        has_confidence=bool(contents.confidence),
        notes=contents.notes,
    )


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    with _opened(path) as contents:
        for start in range(0, contents.n_frames, block_frames):
            rows = slice(start, min(start + block_frames, contents.n_frames))
            position = [np.stack([data[rows] for data in at], -1) for at in contents.position]
            confidence = [data[rows] for data in contents.confidence]
            yield PoseBlock(
                start,
                {"": float32(np.stack(position, axis=1))},
                {"": float32(np.stack(confidence, axis=1))} if confidence else {},
            )


@contextmanager
def _opened(path: Path) -> Iterator[_KeypointDatasets]:
    with hdf5.opened(path) as file:
        yield _contents(file, path)


def _group(group: h5py.Group, name: str) -> h5py.Group | None:
    """A group below a group; links to other files are not followed."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    item = group.get(name)
    return item if isinstance(item, h5py.Group) else None


def _contents(file: h5py.File, path: Path) -> _KeypointDatasets:
    root = _group(file, _ROOT)
    names = [] if root is None else list(root)
    if root is None or not names:
        raise InputError(
            expected=f"a group `{_ROOT}` with a group for every keypoint",
            found="no such group" if root is None else "nothing in it",
            where=str(path),
            fix="check that this is the `_FacemapPose.h5` that Facemap wrote",
        )
    parts = {name: part for name in names if (part := _group(root, name)) is not None}
    ignored = [name for name in names if name not in parts]
    position = {n: [hdf5.dataset(part, c) for c in _SPACE] for n, part in parts.items()}
    likelihood = {n: hdf5.dataset(part, _LIKELIHOOD) for n, part in parts.items()}
    n_frames = _check(position, likelihood, f"{path}, group `{_ROOT}`")
    notes = [f"left out what is no keypoint: {some(ignored)}"] if ignored else []
    lacking = [name for name, data in likelihood.items() if data is None]
    notes += without_confidence(_LIKELIHOOD, lacking, len(parts))
    confidence = [] if lacking else [data for data in likelihood.values() if data is not None]
    found = [[data for data in at if data is not None] for at in position.values()]
    return _KeypointDatasets(tuple(parts), found, confidence, n_frames, tuple(notes))


def _check(
    position: dict[str, list[h5py.Dataset | None]],
    likelihood: dict[str, h5py.Dataset | None],
    where: str,
) -> int:
    """Number of frames, which all keypoints share."""
    problems = []
    lacking = [
        f"{name}/{coord}"
        for name, at in position.items()
        for coord, data in zip(_SPACE, at, strict=True)
        if data is None
    ]
    if lacking or not position:
        found = f"no {some(lacking)}" if lacking else "no keypoint"
        fix = "export the tracking again, or remove the keypoint"
        problems.append(Problem("datasets x and y for every keypoint", found, where, fix))
    lengths: dict[tuple[int, ...], str] = {}
    for name, at in position.items():
        for data in (*at, likelihood[name]):
            if data is not None:
                hdf5.check_inside(data, where)
                hdf5.check_numbers(data, where)
                lengths.setdefault(data.shape, data.name)
    if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
        found = ", ".join(f"{shape} in `{name}`" for shape, name in list(lengths.items())[:4])
        fix = "the file was not written to its end, or is damaged: export it again"
        problems.append(Problem("one number a frame, equally many", found, where, fix))
    elif not any(shape[0] for shape in lengths):
        problems.append(no_frames(where))
    if problems:
        raise InputError.of(problems)
    return int(next(iter(lengths))[0])


PARSER = Parser("facemap_h5", "Facemap h5", sniff, inspect, read)
