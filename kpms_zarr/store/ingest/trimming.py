"""Trimming and downsampling of a recording."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.loading import FrameWindow

_SIDE = re.compile(r"\s*(\d+|\d*\.?\d+\s*(?:s|min))?\s*")
_MOST_FRAMES = 2**40


@dataclass(frozen=True)
class Trim:
    """Beginning and end, each in frames (int), in seconds (float) or open (None)."""

    start: int | float | None = None
    stop: int | float | None = None

    def window(self, fps: float, frame_step: int, downsample: int) -> FrameWindow:
        """Frames of a file.

        Parameters
        ----------
        fps : float
            Frames of the video per second.
        frame_step : int
            Frames of the video per frame of the file.
        downsample : int
        """
        per_second = fps / frame_step
        start = _frames(self.start, per_second) or 0
        return FrameWindow(start, _frames(self.stop, per_second), downsample)


def _frames(side: int | float | None, per_second: float) -> int | None:
    return round(side * per_second) if isinstance(side, float) else side


def parse_trim(text: str | None) -> Trim:
    """Parse ``"100:2000"``, ``"10s:"`` or ``":1.5min"``.

    Raises
    ------
    InputError
        What is no such range, or holds no frame.
    """
    if text is None:
        return Trim()
    parts = text.split(":")
    matches = [_SIDE.fullmatch(part) for part in parts]
    if len(parts) == 2 and all(matches):
        start, stop = (_side(match[1] or "") for match in matches if match)
        same_kind = type(start) is type(stop)
        if not (same_kind and start is not None and stop is not None and start >= stop):
            return Trim(start, stop)
    raise InputError(
        expected="start:stop in frames or seconds, the start before the stop",
        found=repr(text),
        where="`trim=`",
        fix="write for example `trim='300:18000'`, `trim='10s:600s'` or `trim='10s:'`",
    )


def parse_length(text: str) -> int | float | None:
    """Frames (int) or seconds (float) of ``"300"``, ``"10s"`` or ``"1.5min"``; None of others."""
    match = _SIDE.fullmatch(text)
    return _side(match[1]) if match and match[1] else None


def _side(text: str) -> int | float | None:
    if not text:
        return None
    if text.isdigit():
        return min(int(text), _MOST_FRAMES)
    number = float(text.removesuffix("min").removesuffix("s"))
    return min(number * (60 if text.endswith("min") else 1), float(_MOST_FRAMES))


def check_downsample(value: int) -> int:
    """Check a whole number of frames, 1 or more; an InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            expected="a whole number, 1 or more: every so manieth frame is taken",
            found=repr(value),
            where="`downsample=`",
            fix="leave it out, or give for example `downsample=2`",
        )
    return value
