"""Time in datasets of the package movement: the coordinate ``time`` and the attribute ``fps``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.hdf5.reading import text
from kpms_zarr.store.parsers.time.clock import FRAMES, ROWS, Clock, Timing
from kpms_zarr.store.parsers.time.stamps import SECONDS

if TYPE_CHECKING:
    import xarray

_AT_ONCE = 1_000_000
# Two rates that are nearer than this are the same.
_SAME_RATE = 0.01
# Of a frame: between two frames, as after interpolation, a time is the number of neither.
_NEARLY = 0.01
# Seconds; later than any recording, it is the time of day.
_LATEST = 1e7


def timing_of(data: xarray.Dataset, unit: str, where: str) -> Timing:
    """Timing by the attributes and the coordinate ``time`` together.

    Parameters
    ----------
    data : Dataset
    unit : str
        As a person says, see `ReadOptions`.
    where : str
        Named in errors.

    Raises
    ------
    InputError
        When they contradict one another, or times contradict themselves.
    """
    fps = _rate(data.attrs.get("fps"))
    if unit == ROWS or "time" not in data.coords or not _numbers(data.coords["time"][:1]).size:
        return Timing(fps)
    is_frames = text(data.attrs.get("time_unit", "seconds")) == FRAMES
    clock = Clock(
        "the numbers of coordinate `time`" if is_frames else "the times of coordinate `time`",
        "frames" if is_frames else "time",
        unit=unit,
        stated=None if is_frames else "s",
        where=where,
    )
    for start in range(0, data.sizes["time"], _AT_ONCE):
        clock.add(_numbers(data.coords["time"][start : start + _AT_ONCE]))
    timing = clock.timing()
    if fps is None or is_frames:
        return replace(timing, fps=timing.fps if fps is None else fps)
    if timing.fps is None and data.sizes["time"] > 1:
        return replace(timing, fps=fps)
    first = float(_numbers(data.coords["time"][:1])[0]) * SECONDS[timing.unit or "s"]
    return _together(fps, first, timing, where)


def _numbers(times: xarray.DataArray) -> np.ndarray:
    """Convert times to numbers, those of a clock to seconds; empty where they are neither."""
    values = np.atleast_1d(times.values)
    if values.dtype.kind in "mM":
        nanoseconds = values.astype(f"{values.dtype.str[1:3]}[ns]")
        return np.where(np.isnat(values), np.nan, nanoseconds.astype(np.int64) / 1e9)
    return values.astype(np.float64) if values.dtype.kind in "fiu" else np.empty(0)


def _together(fps: float, first: float, timing: Timing, where: str) -> Timing:
    """Frame rate of the attribute and time stamps, the first in seconds."""
    number = first * fps
    if 0 <= first < _LATEST and abs(number - round(number)) < _NEARLY:
        timing = replace(timing, first_frame=round(number))
    if timing.fps is None:
        return replace(timing, fps=fps)
    step = round(fps / timing.fps)
    if step < 1 or abs(fps / timing.fps - step) > _SAME_RATE * step:
        raise InputError(
            expected="times and a frame rate that say the same",
            found=f"{timing.fps:g} frames per second by the coordinate `time`, {fps:g} by the "
            "attribute `fps`",
            where=where,
            fix="correct one of them, ds.attrs['fps'] or ds.assign_coords(time=...); or "
            "`time_unit='rows'` takes the rows as consecutive frames, `fps=` their rate",
        )
    notes = timing.notes
    if step > 1:
        notes = (
            f"coordinate `time` has {timing.fps:g} frames per second, attribute `fps` says {fps:g}:"
            f" one of {step} frames of the video is here",
            *notes,
        )
    return replace(timing, fps=fps, frame_step=step, notes=notes)


def _rate(value: object) -> float | None:
    """Read a positive number; None for anything else, also for several that differ."""
    try:
        (fps,) = set(np.asarray(value).ravel().astype(np.float64).tolist())
    except (TypeError, ValueError):
        return None
    return fps if np.isfinite(fps) and fps > 0 else None
