"""Times of the frames of a video, and which of them can be decoded without others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


class Uneven(Exception):
    """Error: times of frames do not rise one by one; frames are counted then."""


class _Keyframes:
    """Keyframes of a video."""

    keys: tuple[int, ...]

    def key_before(self, number: int) -> int:
        """The nearest keyframe."""
        return self.keys[max(0, bisect_right(self.keys, number) - 1)]

    def keys_before(self, number: int) -> Iterator[int]:
        """Yield the nearest keyframe, then ones that lie twice as far back each time."""
        at, back = bisect_right(self.keys, number) - 1, 1
        while at > 0:
            yield self.keys[at]
            at, back = at - back, 2 * back
        yield 0


@dataclass(frozen=True)
class Even(_Keyframes):
    """Frames at equal distances, as the index of the file says.

    Attributes
    ----------
    start, step : int
        Of the presentation times.
    keys : tuple of int
        Keyframes; where the first frames after one are shown before it, a few too early.
    """

    start: int
    step: int
    n_frames: int
    keys: tuple[int, ...]

    def number(self, time: int | None) -> int:
        """Number of the frame shown at a time; -1 = none."""
        number, rest = divmod((self.start if time is None else time) - self.start, self.step)
        return -1 if time is None or rest else number

    def time(self, number: int) -> int:
        return self.start + self.step * number


@dataclass(frozen=True)
class FrameTimes(_Keyframes):
    """Presentation time of every frame.

    Attributes
    ----------
    times : ndarray, (frame,) int64
    """

    times: np.ndarray
    keys: tuple[int, ...]

    @property
    def n_frames(self) -> int:
        return len(self.times)

    def number(self, time: int | None) -> int:
        """Number of the frame shown at a time; -1 = none."""
        if time is None:
            return -1
        number = int(np.searchsorted(self.times, time))
        return number if number < len(self.times) and self.times[number] == time else -1

    def time(self, number: int) -> int:
        return int(self.times[number])


def timing(container: Any, stream: Any, first: Any) -> Even | None:
    """Read times from the index of the file; None where that is not enough."""
    entries = getattr(stream, "index_entries", None)
    if entries is None or first.pts is None or not 1 < stream.frames == len(entries):
        return None
    if "avi" in container.format.name and stream.codec_context.has_b_frames:
        return None  # Times in this format are those of decoding.
    time, is_key = [], []
    for entry in entries:
        if entry.is_discard or not entry.size:
            return None
        time.append(entry.timestamp)
        is_key.append(entry.is_keyframe)
    step = np.unique(np.diff(time))
    if len(step) != 1 or step[0] <= 0:
        return None
    keys = tuple(int(key) for key in np.flatnonzero(is_key)) or (0,)
    return Even(int(first.pts), int(step[0]), len(time), keys)


def timing_of_all(container: Any, stream: Any) -> tuple[FrameTimes, bool]:
    """Read times of all packets of the file without decoding; whether some have none."""
    found = [
        (packet.pts, packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.size and not getattr(packet, "is_discard", False)
    ]
    lacks = any(time is None for time, _ in found)
    times = np.array([-1 if time is None else time for time, _ in found], dtype=np.int64)
    order = np.argsort(times, kind="stable")
    is_key = np.array([key for _, key in found], dtype=bool)[order]
    keys = tuple(int(number) for number in np.flatnonzero(is_key))
    return FrameTimes(times[order], keys or (0,)), lacks or len(np.unique(times)) < len(times)
