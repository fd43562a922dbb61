"""Gaps: frames of the video that a file has no rows of, by whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

LARGEST_FRAME = 2**53
MOST_GAPS = 1_000_000
"""So many are kept in memory; more are no lost frames."""

# Frames by which two sources may differ.
_LATE = 2
# Steps looked at to know the usual one.
_FIRST = 4096


@dataclass(frozen=True, eq=False)
class Gaps:
    """Frames that a file has no rows of.

    Attributes
    ----------
    row : ndarray, (gap,) int64
        Row that follows each gap, increasing, from 0.
    n_missing : ndarray, (gap,) int64
        Frames that are missing before it, counted in steps of the track.
    source : str
        What says so, such as "the row index".
    is_filled : bool
        Whether the parser fills them in itself, so that its blocks count frames, not rows.
    """

    row: np.ndarray
    n_missing: np.ndarray
    source: str
    is_filled: bool = False

    @cached_property
    def _before(self) -> np.ndarray:
        """Frames missing before the rows that follow 0, 1, 2, ... of the gaps."""
        return np.concatenate([[0], np.cumsum(self.n_missing)])

    @property
    def total(self) -> int:
        """Frames missing in all of them."""
        return int(self._before[-1])

    def longest_within(self, start: int, stop: int | None) -> tuple[int, int]:
        """Frames missing in the longest of some frames of the track, and the last one before it.

        To the last frame where stop is None. Without any, (0, 0).
        """
        before, after = self.row - 1 + self._before[:-1], self.row + self._before[1:]
        n_missing = np.where(after > start, self.n_missing, 0)
        if stop is not None:
            n_missing[before >= stop - 1] = 0
        longest = int(np.argmax(n_missing))
        n = int(n_missing[longest])
        return n, int(before[longest]) if n else 0

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frame of the track that each of some rows is, (row,) int64."""
        rows = np.arange(start, stop)
        return rows + self._before[np.searchsorted(self.row, rows, side="right")]


@dataclass(frozen=True)
class RowConflict:
    """Conflict of two rows: the second, and the two numbers."""

    row: int
    before: float
    after: float
    n: int = 1


class Count:
    """Count of whole numbers, block after block, each larger than the one before."""

    def __init__(self) -> None:
        self.n = 0
        self.first = self.last = 0
        self.is_whole = True
        self.has_fractions = False
        self.step = 0
        self.common_step = 0
        self.fault: RowConflict | None = None
        self.has_too_many_gaps = False
        self._row: list[np.ndarray] = []
        self._apart: list[np.ndarray] = []
        self._n_kept = 0

    def add(self, numbers: np.ndarray) -> None:
        """Look at the next numbers, of which the first few thousand are to come together."""
        with np.errstate(invalid="ignore"):
            has_fraction = numbers != np.floor(numbers)
            is_large = ~(np.abs(numbers) < LARGEST_FRAME)
        self.has_fractions |= bool(has_fraction.any())
        self.is_whole &= not (self.has_fractions or is_large.any())
        if not self.is_whole or not len(numbers):
            return
        whole = numbers.astype(np.int64)
        is_first = not self.n
        apart = np.diff(whole) if is_first else np.diff(whole, prepend=self.last)
        rows = self.n + is_first + np.arange(len(apart))
        if is_first:
            self.first = int(whole[0])
        if not self.step and len(apart):
            values, counts = np.unique(apart[:_FIRST], return_counts=True)
            self.step = int(values[np.argmax(counts)])
        self._look(apart, rows, whole)
        self.n += len(whole)
        self.last = int(whole[-1])

    def _look(self, steps: np.ndarray, rows: np.ndarray, whole: np.ndarray) -> None:
        back = np.flatnonzero(steps <= 0)
        if len(back):
            first = int(back[0])
            after = int(whole[first + len(whole) - len(steps)])
            n = len(back) + (self.fault.n if self.fault else 0)
            where = self.fault or RowConflict(int(rows[first]), after - int(steps[first]), after)
            self.fault = RowConflict(where.row, where.before, where.after, n)
        odd = np.flatnonzero(steps != self.step)
        self.common_step = int(np.gcd.reduce(np.append(steps[odd], [self.common_step, self.step])))
        self._n_kept += len(odd)
        self.has_too_many_gaps = self._n_kept > MOST_GAPS
        if len(odd) and not self.has_too_many_gaps:
            self._row.append(rows[odd])
            self._apart.append(steps[odd])

    def gaps(self, source: str) -> Gaps | None:
        """Gaps, if any, when rows are `common_step` apart."""
        if not self._row or self.has_too_many_gaps:
            return None
        n_missing = np.concatenate(self._apart) // self.common_step - 1
        return Gaps(np.concatenate(self._row), n_missing, source)


def contradiction(one: Gaps | None, other: Gaps | None, sources: tuple[str, str]) -> str:
    """Describe where two sources disagree on the frames that are missing; "" if they agree.

    What is short may be a frame that was late, or one more or less.
    """
    found = [gaps.row for gaps in (one, other) if gaps]
    if not found:
        return ""
    rows = np.unique(np.concatenate(found))
    n_missing = [_before(rows, gaps) for gaps in (one, other)]
    apart = np.abs(n_missing[0] - n_missing[1])
    is_other = apart > np.maximum(_LATE, np.maximum(*n_missing) // 10)
    if not is_other.any():
        return ""
    at = int(np.argmax(is_other))
    counts = " and ".join(
        f"{int(n[at]):,} by {source}" for n, source in zip(n_missing, sources, strict=True)
    )
    return f"frames missing before frame {int(rows[at])} of those that are there: {counts}"


def _before(rows: np.ndarray, gaps: Gaps | None) -> np.ndarray:
    """Frames missing before some rows."""
    n_missing = np.zeros(len(rows), np.int64)
    if gaps is not None:
        n_missing[np.searchsorted(rows, gaps.row)] = gaps.n_missing
    return n_missing
