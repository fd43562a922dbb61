"""Inference from time stamps: the usual step, lost frames, and the likely unit."""

from __future__ import annotations

import math

import numpy as np

from kpms_zarr.store.parsers.time.gaps import MOST_GAPS, Gaps, RowConflict

SLOWEST, FASTEST = 1.0, 2_000.0
"""Frames per second that cameras take; others are a question."""

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86_400.0}
"""Unit of time stamps -> seconds."""

UNIT_NAMES = {
    "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "min": "minutes", "h": "hours", "d": "days",
}  # fmt: skip

_FIRST = 4096
# Steps from the usual place; a lost frame is farther off, the jitter of a camera is not.
_JITTER = 0.4
# In such steps: what is longer is a gap, whatever its length.
_GAP = 2.5
# More than this share of steps that are neither one nor several of the usual, and there is none.
_MOST_ODD = 0.05
# Rows on both sides that tell a late time stamp from a lost frame; of several that were given at
# once, the first is very late.
_NEAR, _FAR, _VERY_LATE = 4, 32, 4
_LONG = 10
_MOST_MISSING = 2**40
# Of many frames per second; what is so near a whole number is meant to be one.
_NEARLY = 5e-5
_COMMON_FPS = 40.0


def is_plausible(fps: float) -> bool:
    """Whether cameras take so many frames per second."""
    return SLOWEST * 0.999 <= fps <= FASTEST * 1.001


def likely_unit(step: float) -> str | None:
    """Unit in which a time between two frames is that of a camera."""
    rates = {unit: 1 / (step * seconds) for unit, seconds in SECONDS.items()}
    found = [unit for unit, fps in rates.items() if is_plausible(fps)]
    if "s" in found:
        return "s"
    return min(found, key=lambda unit: abs(math.log(rates[unit] / _COMMON_FPS)), default=None)


class Stamps:
    """Inference from time stamps, block after block."""

    def __init__(self) -> None:
        self.n = 0
        self.first = self.last = math.nan
        self.is_finite = True
        self.is_constant = True
        self.fault: RowConflict | None = None
        self.has_too_many_gaps = False
        self._usual = math.nan
        self._n_odd = self._n_regular = 0
        self._sum_regular = 0.0
        # Rows that are looked at again together with the next ones, the first of them, and the
        # first step that is still to be judged.
        self._kept = np.empty(0)
        self._kept_from = 0
        self._next = 1
        self._row: list[np.ndarray] = []
        self._n_missing: list[np.ndarray] = []
        self._n_gaps = 0

    def add(self, times: np.ndarray) -> None:
        """Look at the next time stamps, of which the first few thousand are to come together."""
        if not len(times) or not self.is_finite:
            return
        self.is_finite = bool(np.isfinite(times).all())
        if not self.is_finite:
            return
        self.first = self.first if self.n else float(times[0])
        self._look_back(times)
        self.last = float(times[-1])
        self.is_constant &= bool((times == self.first).all())
        self.n += len(times)
        if self.fault:  # there is nothing to be learnt any more
            self._kept = np.empty(0)
            return
        self._kept = np.concatenate([self._kept, times])
        if math.isnan(self._usual) and self.n > 1:
            self._usual = _usual_step(np.diff(self._kept[: _FIRST + 1]))
        self._judge(self.n - _FAR)

    def end(self) -> None:
        """Take in the end of the time stamps."""
        self._judge(self.n)

    def _look_back(self, times: np.ndarray) -> None:
        before = self.last if self.n else -math.inf
        back = np.flatnonzero(~(np.diff(times, prepend=before) > 0))
        if len(back):
            at = int(back[0])
            earlier = float(times[at - 1]) if at else before
            n = len(back) + (self.fault.n if self.fault else 0)
            where = self.fault or RowConflict(self.n + at, earlier, float(times[at]))
            self.fault = RowConflict(where.row, where.before, where.after, n)

    def _judge(self, stop: int) -> None:
        """Find lost frames before the rows from the next one up to `stop`."""
        if self.fault or not self._usual > 0 or stop <= self._next:
            return
        steps = np.diff(self._kept) / self._usual
        missing = _missing(steps)
        # Step i leads to row i + 1 of those that are kept.
        here = slice(self._next - 1 - self._kept_from, stop - 1 - self._kept_from)
        step, lost = steps[here], missing[here]
        is_odd = (np.abs(step - np.rint(step)) > _JITTER) & (step < _GAP)
        self._n_odd += int((is_odd | (step < _JITTER)).sum())
        # Across short gaps too, so that the jitter at their ends does not count.
        is_regular = lost <= _LONG
        self._n_regular += int((1 + lost[is_regular]).sum())
        self._sum_regular += float(step[is_regular].sum())
        rows = np.flatnonzero(lost)
        self._n_gaps += len(rows)
        self.has_too_many_gaps = self._n_gaps > MOST_GAPS
        if len(rows) and not self.has_too_many_gaps:
            self._row.append(rows + self._next)
            self._n_missing.append(lost[rows].astype(np.int64))
        self._next = stop
        keep_from = max(self._kept_from, stop - 1 - _FAR)
        self._kept = self._kept[keep_from - self._kept_from :]
        self._kept_from = keep_from

    @property
    def is_regular(self) -> bool:
        """Whether most of them are one usual step, or some of them, apart."""
        return self._usual > 0 and self._n_odd <= _MOST_ODD * self.n and self._n_regular > 0

    @property
    def step(self) -> float:
        """Mean time from one frame to the next."""
        if not self._n_regular:
            return self._usual
        return self._usual * self._sum_regular / self._n_regular

    def fps(self, unit: str) -> float:
        """Frames per second, when they are in this unit."""
        fps = 1.0 / (self.step * SECONDS[unit])
        return float(round(fps)) if abs(fps - round(fps)) < _NEARLY * fps else round(fps, 4)

    def gaps(self, source: str) -> Gaps | None:
        """Lost frames, if any."""
        if not self._row or self.has_too_many_gaps:
            return None
        return Gaps(np.concatenate(self._row), np.concatenate(self._n_missing), source)


def _usual_step(steps: np.ndarray) -> float:
    """Time between two frames; rounding to whole milliseconds does not matter.

    Slope of time against frame between the gaps, by least squares: over 40 rows with two gaps and
    jitter it errs a tenth as much as the mean of the steps does, whose ends all count.
    """
    median = float(np.median(steps))
    if not median > 0:
        return math.nan
    n = np.maximum(np.rint(steps / median), 1)
    is_gap = n > 3
    part = np.append(0, np.cumsum(is_gap))
    # Gaps are left out of both, so that sums stay small.
    frame = np.append(0.0, np.cumsum(np.where(is_gap, 0, n)))
    time = np.append(0.0, np.cumsum(np.where(is_gap, 0, steps)))
    count = np.bincount(part)
    frame -= (np.bincount(part, frame) / count)[part]
    time -= (np.bincount(part, time) / count)[part]
    spread = float(frame @ frame)
    return float(frame @ time) / spread if spread else median


def _missing(steps: np.ndarray) -> np.ndarray:
    """Frames lost in each of some steps, in units of the usual one.

    A step that is too long is a lost frame, unless the steps around it are too short by as much:
    then a time stamp is late, or several were given at once.
    """
    missing = np.clip(np.rint(steps) - 1, 0, _MOST_MISSING)
    # How much of a frame a long gap is off says how well the usual step is known, and no more: what
    # is around one gap ends at the next.
    is_long = missing > _LONG
    row = np.arange(len(steps))
    after = np.maximum.accumulate(np.where(is_long, row + 1, 0))
    before = np.minimum.accumulate(np.where(is_long, row, len(steps))[::-1])[::-1]
    for reach, least in ((_NEAR, 1), (_FAR, _VERY_LATE)):
        at = np.flatnonzero(missing >= least)
        start = np.maximum(at - reach, np.where(at, after[at - 1], 0))
        stop = np.minimum(at + reach + 1, np.append(before, len(steps))[at + 1])
        excess = steps - 1
        if (
            reach > _NEAR
        ):  # so far, errors of the usual step add up: only what is clearly short counts
            excess = np.where(steps < 1 - _JITTER, excess, missing)
        time = np.concatenate([[0.0], np.cumsum(excess)])
        lost = np.concatenate([[0.0], np.cumsum(missing)])
        others = lost[stop] - lost[start] - missing[at]
        within = np.rint(time[stop] - time[start] - others)
        missing[at] = np.clip(within, 0, missing[at])
    return missing
