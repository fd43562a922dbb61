"""DANNCE mat files: those of MATLAB 7.3 are read by rows, older ones as a whole (up to 2 GB)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.parsers import mat5
from kpms_zarr.store.parsers.appearing import left_out, nobody_appears
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    float32,
)
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.naming import keypoint_names
from kpms_zarr.store.parsers.time.clock import ROWS, Clock, Timing

_SPACE = ("x", "y", "z")
_POSE, _PEAK, _SAMPLES = "pred", "p_max", "sampleID"
_SHAPES = "(frames, 3, keypoints) or (frames, animals, 3, keypoints)"
_MATLAB_73 = b"MATLAB 7.3"
_FRAMES_AT_ONCE = 4096
_FRAMES_OF_MEDIAN = 100_000


class _Array(Protocol):
    """An array of a file, with its axes in the order that MATLAB shows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Some of the rows, as numbers of any type."""
        ...


class _Rows:
    """Of a file of MATLAB 7.3, in which axes are reversed."""

    def __init__(self, data: h5py.Dataset) -> None:
        self._data = data
        self.shape: tuple[int, ...] = tuple(int(n) for n in data.shape[::-1])

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._data[..., start:stop].T


class _Whole:
    """Of an older file, read when it is first needed."""

    def __init__(self, path: Path, variable: mat5.Variable) -> None:
        self._path = path
        self._variable = variable
        self.shape: tuple[int, ...] = variable.shape

    @cached_property
    def _values(self) -> np.ndarray:
        return mat5.values(self._path, self._variable)

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._values[start:stop]


@dataclass(frozen=True)
class _Contents:
    """The arrays of a file; `peak` has the shape of `pose` without its space axis."""

    pose: _Array
    peak: _Array | None
    samples: _Array | None
    notes: tuple[str, ...]

    @property
    def n_frames(self) -> int:
        return self.pose.shape[0]

    @property
    def n_animals(self) -> int:
        return self.pose.shape[1] if len(self.pose.shape) == 4 else 1

    def positions(self, start: int, stop: int) -> np.ndarray:
        """(frame, animal, keypoint, space)."""
        values = self.pose.rows(start, stop)
        return values.reshape(len(values), self.n_animals, *values.shape[-2:]).swapaxes(2, 3)

    def peaks(self, peak: _Array, start: int, stop: int) -> np.ndarray:
        """(frame, animal, keypoint)."""
        values = peak.rows(start, stop)
        return values.reshape(len(values), self.n_animals, values.shape[-1])


def sniff(path: Path) -> str | None:
    """Recognise an array ``pred`` of poses in a MATLAB file; see `Parser`."""
    with path.open("rb") as file:
        is_73 = file.read(len(_MATLAB_73)) == _MATLAB_73
    if is_73:
        with h5py.File(path, "r") as h5:
            data = hdf5.dataset(h5, _POSE)
            shape = None if data is None else data.shape[::-1]
    else:
        found = (v.shape for v in mat5.variables(path) if v.name == _POSE and v.is_numbers)
        shape = next(found, None)
    if shape is None or len(shape) not in (3, 4) or len(_SPACE) not in shape[1:]:
        return None
    return f"MATLAB file with `{_POSE}` of shape {tuple(int(n) for n in shape)}"


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read shapes, sample numbers and the scale of the confidence; see `Parser`."""
    with _opened(path) as contents:
        names, notes = keypoint_names(options, contents.pose.shape[-1], str(path))
        animals, absent = _animals(contents, path)
        timing = _timing(contents, options, path)
        if contents.peak is not None:
            notes = (*notes, _scale(contents.peak, contents.n_frames))
    return FileHeader(
        format=PARSER.name,
        path=path,
        space=_SPACE,
        tracks=tuple(timing.of(TrackHeader(name, names)) for name in animals),
        has_confidence=contents.peak is not None,
        notes=(*notes, *contents.notes, *timing.notes, *absent),
    )


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    with _opened(path) as contents:
        animals, _ = _animals(contents, path)
        for start in range(0, contents.n_frames, block_frames):
            stop = min(start + block_frames, contents.n_frames)
            positions = float32(contents.positions(start, stop))
            confidence = {}
            if contents.peak is not None:
                peaks = float32(contents.peaks(contents.peak, start, stop))
                confidence = {name: peaks[:, at] for name, at in animals.items()}
            yield PoseBlock(
                start, {name: positions[:, at] for name, at in animals.items()}, confidence
            )


@contextmanager
def _opened(path: Path) -> Iterator[_Contents]:
    """Open for reading; what is wrong with the file is an InputError."""
    if h5py.is_hdf5(path):
        with hdf5.opened(path) as file:
            names = (_POSE, _PEAK, _SAMPLES)
            found = {n: data for n in names if (data := hdf5.dataset(file, n)) is not None}
            for data in found.values():
                hdf5.check_inside(data, str(path))
                hdf5.check_numbers(data, str(path))
            yield _contents({name: _Rows(data) for name, data in found.items()}, path)
        return
    try:
        yield _contents(
            {v.name: _Whole(path, v) for v in mat5.variables(path) if _is_usable(v, path)}, path
        )
    except InputError:
        raise
    except (*hdf5.DAMAGE, zlib.error) as error:
        raise InputError(
            expected="a complete MATLAB file",
            found=f"parts that cannot be read ({error})",
            where=str(path),
            fix="the file is cut off, damaged or no MATLAB file: copy it again, or run the "
            "prediction again",
        ) from error


def _is_usable(variable: mat5.Variable, path: Path) -> bool:
    if variable.name not in (_POSE, _PEAK, _SAMPLES):
        return False
    if not variable.is_numbers:
        raise InputError(
            expected=f"numbers in `{variable.name}`",
            found="a variable of another type",
            where=str(path),
            fix="use the `save_data` file that DANNCE wrote",
        )
    n_bytes = math.prod(variable.shape) * variable.dtype.itemsize
    if n_bytes > mat5.MOST_BYTES:
        raise InputError(
            expected=f"at most {mat5.MOST_BYTES / 1e9:g} GB in `{variable.name}`",
            found=f"{n_bytes / 1e9:.1f} GB",
            where=str(path),
            fix="save it from MATLAB with `-v7.3`, which is read in pieces",
        )
    mat5.check(variable)
    return True


def _contents(arrays: dict[str, _Array], path: Path) -> _Contents:
    pose = arrays.get(_POSE)
    shape = None if pose is None else pose.shape
    if pose is None or shape is None or len(shape) not in (3, 4) or shape[-2] != len(_SPACE):
        swapped = shape is not None and len(shape) in (3, 4) and shape[-1] == len(_SPACE)
        raise InputError(
            expected=f"an array `{_POSE}` of shape {_SHAPES}",
            found="no such array" if shape is None else f"shape {shape}",
            where=str(path),
            fix="swap its last two axes and save it again"
            if swapped
            else "use the `save_data` file that DANNCE wrote",
        )
    if 0 in shape:
        raise InputError(
            expected="at least one frame, one keypoint and one animal",
            found=f"`{_POSE}` of shape {shape}",
            where=str(path),
            fix="run the prediction of this video again, or leave the file out",
        )
    peak, notes = _peak(arrays.get(_PEAK), shape)
    samples = arrays.get(_SAMPLES)
    if samples is not None and math.prod(samples.shape) != shape[0]:
        odd = f"shape {samples.shape} does not fit {shape[0]} frames"
        samples, notes = None, (*notes, f"left out `{_SAMPLES}`, whose {odd}")
    return _Contents(pose, peak, samples, notes)


def _peak(peak: _Array | None, shape: tuple[int, ...]) -> tuple[_Array | None, tuple[str, ...]]:
    """The confidences, where they are those of all keypoints."""
    if peak is None:
        return None, (f"no `{_PEAK}`: read without confidence",)
    fitting = [(*shape[:-2], shape[-1])]
    if math.prod(shape[1:-2]) == 1:
        # One animal, with an axis of its own or without.
        fitting = [(shape[0], shape[-1]), (shape[0], 1, shape[-1])]
    if peak.shape in fitting:
        return peak, ()
    return None, (
        f"left out `{_PEAK}`, whose shape {peak.shape} does not fit `{_POSE}`: read without "
        "confidence",
    )


def _timing(contents: _Contents, options: ReadOptions, path: Path) -> Timing:
    """What the sample numbers say.

    They count time in any unit that the synchronisation of the cameras was written in: the script
    that DANNCE has for it writes milliseconds, others frames.
    """
    if contents.samples is None or options.time_unit == ROWS:
        return Timing()
    clock = Clock(
        f"the sample numbers `{_SAMPLES}`", "samples", unit=options.time_unit, where=str(path)
    )
    with np.errstate(all="ignore"):
        clock.add(contents.samples.rows(0, contents.samples.shape[0]).astype(np.float64))
    return clock.timing()


def _scale(peak: _Array, n_frames: int) -> str:
    values = float32(peak.rows(0, min(n_frames, _FRAMES_OF_MEDIAN)))
    values = values[np.isfinite(values)]
    median = f"median {np.median(values):.2g}" if len(values) else "without a number in it"
    return (
        f"the confidence is `{_PEAK}`, the peak of a probability map ({median}), which is not on "
        "the scale of a likelihood: choose `confidence_threshold=` accordingly"
    )


def _animals(contents: _Contents, path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Animals that appear, and their places; the file is read until all have been seen."""
    if contents.n_animals == 1:
        return {"": 0}, ()
    seen = np.zeros(contents.n_animals, dtype=bool)
    for start in range(0, contents.n_frames, _FRAMES_AT_ONCE):
        rows = (start, start + _FRAMES_AT_ONCE)
        peak = contents.peak
        peaks = None if peak is None else float32(contents.peaks(peak, *rows))
        seen |= ~is_missing(float32(contents.positions(*rows)), peaks).all(axis=(0, 2))
        if seen.all():
            break
    names = [f"animal{number}" for number in range(contents.n_animals)]
    absent = [name for name, is_seen in zip(names, seen, strict=True) if not is_seen]
    if len(absent) == len(names):
        raise nobody_appears(absent, str(path), "animal")
    present = {name: number for number, name in enumerate(names) if name not in absent}
    return present, (left_out(absent),) if absent else ()


PARSER = Parser("dannce_mat", "DANNCE mat", sniff, inspect, read)
