"""Time stamps of frames: what they say of the frame rate and of the numbers of the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Steps looked at to know the usual one.
_FIRST = 4096
# Of the usual step; a lost frame is farther off, the jitter of a camera is not.
_JITTER = 0.5
# More than this share of odd steps, and there is no usual step.
_MOST_GAPS = 0.01
_SLOWEST, _FASTEST = 0.01, 100_000.0


@dataclass(frozen=True)
class Timing:
    """What is known of the time of the frames; see `TrackHeader`."""

    fps: float | None = None
    first_frame: int = 0
    notes: tuple[str, ...] = ()


class Clock:
    """Learns from time stamps as they pass by, block after block."""

    def __init__(self) -> None:
        self._n = 0
        self._first = self._last = np.nan
        self._step = np.nan
        self._n_odd = 0
        self._is_whole = self._is_finite = True

    def add(self, times: np.ndarray) -> None:
        """Look at the next time stamps."""
        times = np.asarray(times, dtype=np.float64)
        if not len(times) or not self._is_finite:
            return
        self._is_finite = bool(np.isfinite(times).all())
        if not self._is_finite:
            return
        steps = np.diff(times, prepend=[self._last] if self._n else [])
        if np.isnan(self._step) and len(steps):
            self._step = float(np.median(steps[:_FIRST]))
        self._n_odd += int((np.abs(steps - self._step) > _JITTER * abs(self._step)).sum())
        self._is_whole &= bool((times == np.floor(times)).all())
        self._first = times[0] if not self._n else self._first
        self._last = times[-1]
        self._n += len(times)

    def timing(self) -> Timing:
        """What they said."""
        if not self._is_finite:
            return Timing(notes=("some time stamps are missing: no frame rate taken from them",))
        if self._n < 2:
            return Timing()
        if not self._step > 0:
            return Timing(notes=("time stamps do not increase: no frame rate taken from them",))
        if self._is_whole:
            return self._counting()
        if self._n_odd > _MOST_GAPS * self._n:
            return Timing(notes=("time stamps are irregular: no frame rate taken from them",))
        mean = (self._last - self._first) / (self._n - 1)
        fps = round(1.0 / float(self._step if self._n_odd else mean), 4)
        if not _SLOWEST <= fps <= _FASTEST:
            found = f"time stamps are {self._step:g} apart, which cannot be seconds"
            return Timing(notes=(f"{found}: no frame rate taken from them",))
        return Timing(fps, notes=self._gaps())

    def _counting(self) -> Timing:
        """Time stamps without fractions number the frames, whatever their unit is said to be."""
        if self._step != 1:
            found = f"time stamps are whole numbers, {self._step:g} apart"
            return Timing(notes=(f"{found}: no frame rate taken from them",))
        note = "time stamps are numbers of frames: no frame rate taken from them"
        first = int(self._first) if 0 <= self._first < 2**53 else 0
        return Timing(None, first, (note, *self._gaps()))

    def _gaps(self) -> tuple[str, ...]:
        if not self._n_odd:
            return ()
        return (f"{self._n_odd} gaps in the time stamps: frames that were left out are not filled",)
