"""A dataset of the package movement, lazy or in memory: checked, and cut into blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.appearing import only_appearing
from kpms_zarr.store.parsers.base import (
    FileHeader,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    float32,
    some,
)
from kpms_zarr.store.parsers.hdf5.reading import text
from kpms_zarr.store.parsers.naming import keypoint_names
from kpms_zarr.store.parsers.time.clock import Timing

if TYPE_CHECKING:
    import xarray

_SPACE = ("x", "y", "z")
NAMES = {
    "time": ("time",),
    "individual": ("individuals", "individual"),
    "keypoint": ("keypoints", "keypoint"),
    "space": ("space",),
}
_ORDER = tuple(NAMES)
_SCAN_FRAMES = 4096


@dataclass(frozen=True)
class Poses:
    """A dataset that was found to be right.

    Attributes
    ----------
    position, confidence : DataArray
        Their dimensions in any order; the latter is None where there are no values.
    dims : dict of str to hashable
        Ours -> name of the dimension of the dataset.
    space : tuple of str
    axes : tuple of int
        Index along space of x, y, z.
    tracks : tuple of TrackHeader
        Those that appear.
    numbers : dict of str to int
        Key of the track -> index along individuals.
    """

    position: xarray.DataArray
    confidence: xarray.DataArray | None
    dims: dict[str, Hashable]
    space: tuple[str, ...]
    axes: tuple[int, ...]
    tracks: tuple[TrackHeader, ...]
    numbers: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.position.sizes["time"])


# ------------------------------------------------------------------ checking


def poses_of(data: xarray.Dataset, where: str, options: ReadOptions) -> Poses:
    """Check a dataset, and find who is in it; `where` is named in errors."""
    position = data.get("position")
    if position is None:
        found = some([str(name) for name in data.data_vars]) or "no variables"
        raise InputError(
            expected="a variable named position",
            found=found,
            where=where,
            fix="give a poses dataset of movement, with all its variables",
        )
    dims = _dims(position, where)
    problems = list(_wrong_numbers(position, "position", where))
    axes, space = _axes(data, dims["space"], position, problems, where)
    keypoints, notes = _keypoints(data, dims, where, options)
    individuals = _individuals(data, dims)
    for kind, names in (("keypoints", keypoints), ("individuals", individuals)):
        doubled = sorted(name for name, n in Counter(names).items() if n > 1)
        if doubled:
            fix = f"rename them with ds.assign_coords({kind}=...)"
            problems.append(Problem(f"{kind} with different names", some(doubled), where, fix))
    confidence = data.get("confidence")
    if confidence is not None:
        problems += _wrong_confidence(confidence, position, dims, where)
    if problems:
        raise InputError.of(problems)
    tracks = tuple(TrackHeader(name, keypoints) for name in individuals)
    numbers = {track.key: number for number, track in enumerate(tracks)}
    poses = Poses(position, confidence, dims, space, axes, tracks, numbers, notes)
    return _seen(poses, where)


def _seen(poses: Poses, where: str) -> Poses:
    """Leave out individuals that never appear, and confidences that are all missing."""
    notes, confidence = list(poses.notes), poses.confidence
    if confidence is None:
        notes.append("no confidence in the file: read without confidence")
    elif not any(
        np.isfinite(confidence.isel(time=slice(start, start + _SCAN_FRAMES)).values).any()
        for start in range(0, poses.n_frames, _SCAN_FRAMES)
    ):
        # What movement writes for files without any.
        notes.append("all confidences are missing: read without confidence")
        confidence = None
    scan = partial(blocks_of, replace(poses, confidence=confidence), _SCAN_FRAMES)
    tracks, more = only_appearing(poses.tracks, scan, where)
    return replace(poses, confidence=confidence, tracks=tracks, notes=(*notes, *more))


def _dims(position: xarray.DataArray, where: str) -> dict[str, Hashable]:
    """Map our names of dimensions to those of the dataset; one individual needs none."""
    found: dict[str, Hashable] = {
        kind: name for kind, names in NAMES.items() for name in names if name in position.dims
    }
    other = [str(name) for name in position.dims if name not in found.values()]
    lacking = [kind for kind in _ORDER if kind not in found and kind != "individual"]
    if "keypoint" in lacking:
        fix = "give a poses dataset: bounding boxes and centroids have no pose to model"
        raise InputError(
            expected="position over keypoints",
            found=f"position over {some([str(name) for name in position.dims])}",
            where=where,
            fix=fix,
        )
    if other or lacking or len(found) != len(position.dims) or not all(position.shape):
        sizes = ", ".join(f"{name}: {n}" for name, n in position.sizes.items())
        raise InputError(
            expected="position over time, space, keypoints and individuals, none of them empty",
            found=f"position over {sizes}",
            where=where,
            fix=f"choose one of them, such as ds.isel({other[0]}=0)"
            if other
            else "check how the dataset was made",
        )
    return found


def _wrong_numbers(values: xarray.DataArray, name: str, where: str) -> Iterator[Problem]:
    if values.dtype.kind not in "fiu":
        fix = f"convert it with ds['{name}'].astype(float)"
        yield Problem(f"numbers in {name}", f"values of type {values.dtype}", where, fix)


def _wrong_confidence(
    confidence: xarray.DataArray, position: xarray.DataArray, dims: dict[str, Hashable], where: str
) -> Iterator[Problem]:
    wanted = {str(name): position.sizes[name] for name in position.dims if name != dims["space"]}
    found = {str(name): n for name, n in confidence.sizes.items()}
    if wanted != found:
        fix = "take it away with ds.drop_vars('confidence'), or check how the dataset was made"
        yield Problem(f"confidence over {wanted}", str(found), where, fix)
    yield from _wrong_numbers(confidence, "confidence", where)


def _axes(
    data: xarray.Dataset,
    dim: Hashable,
    position: xarray.DataArray,
    problems: list[Problem],
    where: str,
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    n_dims = int(position.sizes[dim])
    space = _SPACE[:n_dims]
    labels = _labels(data, dim) or space
    if n_dims not in (2, 3) or sorted(labels) != list(space):
        fix = "use Cartesian coordinates, labelled x, y(, z)"
        problems.append(Problem("space labelled x, y(, z)", some(labels), where, fix))
        return (), space
    return tuple(labels.index(axis) for axis in space), space


def _labels(data: xarray.Dataset, dim: Hashable) -> tuple[str, ...]:
    """Labels along a dimension, () where it has none."""
    if dim not in data.coords:
        return ()
    return tuple(text(label) for label in np.atleast_1d(data.coords[dim].values).tolist())


def _keypoints(
    data: xarray.Dataset, dims: dict[str, Hashable], where: str, options: ReadOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = _labels(data, dims["keypoint"])
    return (names, ()) if names else keypoint_names(options, data.sizes[dims["keypoint"]], where)


def _individuals(data: xarray.Dataset, dims: dict[str, Hashable]) -> tuple[str, ...]:
    """Names of the individuals; a single one needs none, as the session is named by the file."""
    if "individual" not in dims or data.sizes[dims["individual"]] == 1:
        return ("",)
    numbered = tuple(f"id_{number}" for number in range(data.sizes[dims["individual"]]))
    return _labels(data, dims["individual"]) or numbered


# ------------------------------------------------------------------ reading


def header_of(
    poses: Poses, data: xarray.Dataset, format: str, path: Path, timing: Timing
) -> FileHeader:
    """Convert to the header that all formats share."""
    tracks = tuple(timing.of(track) for track in poses.tracks)
    notes = [*poses.notes, *timing.notes]
    source = data.attrs.get("source_file")
    if isinstance(source, str) and source:
        notes.append(f"made from `{source}`")
    has_confidence = poses.confidence is not None
    return FileHeader(format, path, poses.space, tracks, has_confidence, tuple(notes))


def blocks_of(poses: Poses, block_frames: int) -> Iterator[PoseBlock]:
    """Iterate over the frames of all who appear, by slices of time."""
    for start in range(0, poses.n_frames, block_frames):
        frames = slice(start, min(start + block_frames, poses.n_frames))
        position = _piece(poses.position, frames, poses)
        position = position[..., list(poses.axes)]
        by_track = {track.key: poses.numbers[track.key] for track in poses.tracks}
        confidence = {}
        if poses.confidence is not None:
            values = _piece(poses.confidence, frames, poses)
            confidence = {key: values[:, number] for key, number in by_track.items()}
        yield PoseBlock(
            start, {key: position[:, number] for key, number in by_track.items()}, confidence
        )


def _piece(array: xarray.DataArray, frames: slice, poses: Poses) -> np.ndarray:
    """Some frames, (frame, individual, keypoint[, space]) float32."""
    order = [poses.dims[kind] for kind in _ORDER if poses.dims.get(kind) in array.dims]
    # First the frames, then their order: a transposed lazy array may be read as a whole.
    with np.errstate(invalid="ignore"):
        values = float32(array.isel(time=frames).transpose(*order).values)
    return values if "individual" in poses.dims else values[:, np.newaxis]
