"""One keypoint of an NWB file with ndx-pose: its name, its numbers and their times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from kpms_zarr.store.errors import Problem
from kpms_zarr.store.parsers.base import some
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.time.clock import ROWS, Clock, Timing

_TIMES_AT_ONCE = 1_000_000

# Words that tools put around the name of the keypoint.
_AFFIX = re.compile(r"^(pose_?estimation_?series)_?(?=.)|(?<=.)_?(pose_?estimation_?series)$", re.I)


@dataclass(frozen=True)
class Series:
    """Series of one keypoint: where its numbers are."""

    keypoint: str
    group: h5py.Group
    data: h5py.Dataset
    confidence: h5py.Dataset | None
    scale: float
    offset: float


def type_of(item: object) -> str:
    """NWB type of a group, "" where it has none."""
    is_group = isinstance(item, h5py.Group)
    return hdf5.text(hdf5.attribute(item, "neurodata_type", "")) if is_group else ""


def short_name(group: h5py.Group) -> str:
    """Last part of its path."""
    return clean(str(group.name).rsplit("/", 1)[-1])


def clean(name: str) -> str:
    """Clean a name so that it can be stored as UTF-8, whatever its bytes were."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def nodes_of(group: h5py.Group) -> list[str]:
    """Names of the keypoints in order: stored beside the series, or in the skeleton."""
    places = [group, *(hdf5.internal(group, name) for name in group)]
    for place in places:
        if place is not group and type_of(place) != "Skeleton":
            continue
        nodes = hdf5.internal(place, "nodes")
        if isinstance(nodes, h5py.Dataset) and nodes.shape is not None:
            hdf5.check_inside(nodes, str(group.file.filename))
            return hdf5.texts(nodes)
    return []


def named(names: list[str], nodes: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of keypoint and series in the order of the nodes, and notes."""
    bare = [_AFFIX.sub("", name) for name in names]
    if len(set(bare)) < len(bare) or not all(_AFFIX.search(name) for name in names):
        bare = names
    if not nodes:
        note = "no `nodes` in the file: keypoints are named by their series, in alphabetical order"
        return list(zip(bare, names, strict=True)), [note]
    by_name = dict(zip(names, names, strict=True))
    loose: dict[str, str] = {}
    for name, key in zip(names, bare, strict=True):
        loose.setdefault(_loose(key), name)
    pairs, left, absent = [], dict.fromkeys(names), []
    for node in nodes:
        name = by_name.get(node, loose.get(_loose(node), ""))
        if name in left:
            pairs.append((node, name))
            del left[name]
        else:
            absent.append(node)
    notes = [f"left out {some(absent)}: nodes without a series"] if absent else []
    if left:
        notes.append(f"series that are no nodes come last: {some(list(left))}")
        taken = {keypoint for keypoint, _ in pairs}
        short = dict(zip(names, bare, strict=True))
        pairs += [(name if short[name] in taken else short[name], name) for name in left]
    return pairs, notes


def _loose(name: str) -> str:
    """Fold a name: tools change case and drop blanks and underscores, LeftEar for left_ear."""
    return re.sub(r"[\W_]+", "", name).casefold()


def series_of(
    keypoint: str, group: h5py.Group, where: str, problems: list[Problem]
) -> Series | None:
    here = f"{where}, series `{short_name(group)}`"
    fix = "export the file again"
    data, confidence = hdf5.internal(group, "data"), hdf5.internal(group, "confidence")
    if not isinstance(data, h5py.Dataset):
        problems.append(Problem("numbers named `data`", "none in this file", here, fix))
        return None
    if data.shape is None or len(data.shape) != 2 or data.shape[1] not in (2, 3):
        problems.append(Problem("data of shape (frames, 2 or 3)", f"{data.shape}", here, fix))
        return None
    if not isinstance(confidence, h5py.Dataset):
        confidence = None
    elif confidence.shape != data.shape[:1]:
        found = f"a confidence of shape {confidence.shape}"
        problems.append(Problem(f"{data.shape[0]} frames of confidence", found, here, fix))
        return None
    for numbers in (data, confidence):
        if numbers is not None:
            hdf5.check_inside(numbers, here)
            hdf5.check_numbers(numbers, here)
    scale, offset = _factor(data, "conversion", 1.0), _factor(data, "offset", 0.0)
    if not (np.isfinite(scale) and scale and np.isfinite(offset)):
        found = f"conversion {scale:g} and offset {offset:g}"
        fix = "set `conversion` to 1 and `offset` to 0 if the data are in pixels"
        problems.append(Problem("numbers to convert the data with", found, here, fix))
        return None
    return Series(keypoint, group, data, confidence, scale, offset)


def _factor(data: h5py.Dataset, name: str, default: float) -> float:
    value = np.asarray(hdf5.attribute(data, name, default))
    return float(value.ravel()[0]) if value.size == 1 and value.dtype.kind in "fiu" else np.nan


# ------------------------------------------------------------------ time


def _times(series: Series) -> h5py.Dataset | None:
    """Its time stamps, one for every frame."""
    times = hdf5.internal(series.group, "timestamps")
    if not isinstance(times, h5py.Dataset) or times.shape != series.data.shape[:1]:
        return None
    hdf5.check_inside(times, str(series.group.file.filename))
    hdf5.check_numbers(times, str(series.group.file.filename))
    return times


def _start(series: Series) -> tuple[float, float] | None:
    """Time of its first frame, and frames per second."""
    start = hdf5.internal(series.group, "starting_time")
    if not isinstance(start, h5py.Dataset) or start.shape != () or start.dtype.kind not in "fiu":
        return None
    hdf5.check_inside(start, str(series.group.file.filename))
    rate, first = _factor(start, "rate", np.nan), float(start[()])
    return (first, rate) if np.isfinite([first, rate]).all() and rate > 0 else None


def _time(series: Series, frame: int) -> float | None:
    start, times = _start(series), _times(series)
    if start is not None:
        return start[0] + frame / start[1]
    return float(times[frame]) if times is not None and times.shape[0] > frame else None


def other_times(series: Sequence[Series], where: str) -> list[Problem]:
    """Series that are not of the same frames as the longest: joined by number they would be off."""
    longest = max(series, key=lambda s: len(s.data))
    step = 0.0
    if len(longest.data) > 1:
        first, second = _time(longest, 0), _time(longest, 1)
        step = 0.0 if first is None or second is None else abs(second - first)
    other = []
    for one in series:
        for frame in {0, len(one.data) - 1} if len(one.data) else ():
            mine, its = _time(one, frame), _time(longest, frame)
            if mine is not None and its is not None and abs(mine - its) > 0.5 * step:
                other.append(f"{one.keypoint}, frame {frame}, at {mine:g} where {its:g} belongs")
                break
    if not other:
        return []
    fix = "write all series with the same time stamps, NaN where a point is missing"
    return [Problem("series of the same frames", some(other, 3), where, fix)]


def timing_of(series: Series, unit: str, where: str) -> Timing:
    """Timing of a series by its time stamps, or its rate; `unit` as given, `where` for errors."""
    if unit == ROWS:
        return Timing()
    clock = Clock(unit=unit, stated="s", where=where)
    start, times = _start(series), _times(series)
    if start is not None and start[1] != 1:
        return Timing(start[1], scale=1.0 if start[0] else 0.0)
    if start is not None:
        # Also written where nobody knew the rate.
        clock.add(start[0] + np.arange(2.0))
    elif times is not None:
        for first in range(0, times.shape[0], _TIMES_AT_ONCE):
            clock.add(times[first : first + _TIMES_AT_ONCE])
    return clock.timing()


def times_of(series: Series) -> Iterator[np.ndarray]:
    """Times of its frames, (row,) float64, in pieces."""
    start, times = _start(series), _times(series)
    for first in range(0, len(series.data), _TIMES_AT_ONCE):
        last = min(first + _TIMES_AT_ONCE, len(series.data))
        if start is not None:
            yield start[0] + np.arange(first, last) / start[1]
        elif times is not None:
            yield np.asarray(times[first:last], np.float64)
