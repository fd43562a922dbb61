"""Agreement of two labellings on when the syllable changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Changes(NamedTuple):
    """Changes of label at which two labellings can be compared; they add up over blocks.

    A change of one labelling is at a frame whose label differs from that of the frame before; it
    counts where both labellings have a label in both of these frames, a *place*.

    Attributes
    ----------
    a, b : int
        Changes of each.
    a_met, b_met : int
        Those of them that have a change of the other within the tolerance.
    near_a, near_b : int
        Places within the tolerance of a change of a, or of b.
    places : int
    """

    a: int
    b: int
    a_met: int
    b_met: int
    near_a: int
    near_b: int
    places: int

    def add(self, other: Changes) -> Changes:
        """Add the counts of both."""
        return Changes(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def f1(self) -> float:
        """Harmonic mean of the shares of the changes of a, and of b, that the other has too.

        NaN where neither has any.
        """
        return _harmonic_mean(_share(self.a_met, self.a), _share(self.b_met, self.b))

    @property
    def f1_by_chance(self) -> float:
        """F1 that is expected when the changes of each lie anywhere, as often as they do."""
        near_b, near_a = _share(self.near_b, self.places), _share(self.near_a, self.places)
        return _harmonic_mean(near_b if self.a else np.nan, near_a if self.b else np.nan)


def count_changes(
    a: np.ndarray, b: np.ndarray, *, start: int, stop: int, tolerance: int
) -> Changes:
    """Count the changes of two labellings in a block of one session.

    Parameters
    ----------
    a, b : ndarray, (frame,) int
        Labels, -1 = none, also of ``tolerance + 1`` frames before the block and ``tolerance``
        behind it, where the session has them.
    start, stop : int
        Where the block begins and ends in ``a`` and ``b``.
    tolerance : int
        Frames between two changes that count as one.
    """
    is_both = (a >= 0) & (b >= 0)
    is_place = np.zeros(len(a), bool)
    is_place[1:] = is_both[1:] & is_both[:-1]
    is_a, is_b = (is_place.copy() for _ in range(2))
    is_a[1:] &= a[1:] != a[:-1]
    is_b[1:] &= b[1:] != b[:-1]
    near_a, near_b = _widened(is_a, tolerance), _widened(is_b, tolerance)
    each = (
        is_a,
        is_b,
        is_a & near_b,
        is_b & near_a,
        is_place & near_a,
        is_place & near_b,
        is_place,
    )
    return Changes(*(int(np.count_nonzero(one[start:stop])) for one in each))


def _widened(is_there: np.ndarray, tolerance: int) -> np.ndarray:
    """Whether any is there within the tolerance of each frame."""
    below = np.cumsum(np.pad(is_there, (tolerance + 1, tolerance)), dtype=np.int32)
    return np.asarray(below[2 * tolerance + 1 :] > below[: len(is_there)])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _harmonic_mean(one: float, two: float) -> float:
    if np.isnan(one) or np.isnan(two):
        return float("nan") if np.isnan(one) and np.isnan(two) else 0.0
    return 2 * one * two / (one + two) if one + two else 0.0
