"""Designs: in how many ways groups could have been assigned, and all or some of these ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, factorial, prod

import numpy as np

_CHUNK = 1 << 22
"""Numbers that are sorted at once."""


@dataclass(frozen=True)
class Design:
    """Groups of units, and the blocks within which they could have been assigned otherwise.

    Attributes
    ----------
    group : ndarray, (unit,) int
        Numbers of the groups; some may have no unit.
    block : ndarray, (unit,) int
        Groups are exchanged within blocks alone.
    """

    group: np.ndarray
    block: np.ndarray

    @property
    def composition(self) -> np.ndarray:
        """Units of each block and group, (block, group) int64; without empty blocks."""
        blocks, at = np.unique(self.block, return_inverse=True)
        found = np.zeros((len(blocks), int(self.group.max(initial=0)) + 1), np.int64)
        np.add.at(found, (at, self.group), 1)
        return found

    def subset(self, units: np.ndarray) -> Design:
        """The design of some units, (unit,) of bool or places."""
        return Design(self.group[units], self.block[units])

    @property
    def informative(self) -> np.ndarray:
        """Units in blocks with two groups or more, (unit,) bool."""
        several = (self.composition > 0).sum(1) > 1
        return np.asarray(several[np.unique(self.block, return_inverse=True)[1]], dtype=bool)

    @property
    def n_assignments(self) -> int:
        """Ways to assign the groups, as many units to each within each block."""
        return prod(_n_arrangements(tuple(row)) for row in self.composition.tolist())

    @property
    def n_equal(self) -> int:
        """Assignments that no statistic of differences tells from a given one.

        Those in which groups swap all their units, as groups of as many units in every block can.
        """
        columns = Counter(map(tuple, self.composition.T.tolist()))
        return prod(factorial(n) for column, n in columns.items() if any(column))

    def least_p(self, n_permutations: int) -> float:
        """Bound below which no statistic has p by so many permutations; 1 = no test is possible."""
        least = self.n_equal / self.n_assignments
        return least if self.is_exact(n_permutations) else max(least, 1 / (1 + n_permutations))

    def is_exact(self, n_permutations: int) -> bool:
        """Whether all assignments are no more than so many."""
        return self.n_assignments <= n_permutations

    def assignments(self, n_permutations: int, seed: int) -> np.ndarray:
        """All assignments where they are no more than asked for, else as many random ones.

        Parameters
        ----------
        n_permutations : int
        seed : int
            The same units of the same design get the same assignments.

        Returns
        -------
        ndarray, (permutation, unit) int16
        """
        if self.is_exact(n_permutations):
            return self._every()
        rng = np.random.default_rng(seed)
        order = np.argsort(self.block, kind="stable")
        sorted_group = self.group[order].astype(np.int16)
        found = np.empty((n_permutations, len(order)), np.int16)
        step = max(1, _CHUNK // max(1, len(order)))
        for start in range(0, n_permutations, step):
            part = found[start : start + step]
            key = rng.random(part.shape) + self.block[order]
            part[:, order] = sorted_group[np.argsort(key, axis=1)]
        return found

    def _every(self) -> np.ndarray:
        blocks = np.unique(self.block)
        found = np.zeros((1, len(self.block)), np.int16)
        for one, row in zip(blocks, self.composition.tolist(), strict=True):
            ways = _arrangements(tuple(row))
            n = len(found)
            found = np.repeat(found, len(ways), axis=0)
            found[:, self.block == one] = np.tile(ways, (n, 1))
        return found


def _n_arrangements(sizes: tuple[int, ...]) -> int:
    return prod(comb(sum(sizes[i:]), n) for i, n in enumerate(sizes))


@lru_cache(maxsize=256)
def _arrangements(sizes: tuple[int, ...]) -> np.ndarray:
    """All distinct rows of so many of each group: (arrangement, unit) int16."""
    *others, last = sizes
    if not others:
        return np.zeros((1, last), np.int16)
    inner = _arrangements(tuple(others))
    n = sum(sizes)
    places = np.array(list(combinations(range(n), last)), np.int64).reshape(-1, last)
    is_last = np.zeros((len(places), n), bool)
    is_last[np.arange(len(places))[:, None], places] = True
    found = np.full((len(places), len(inner), n), len(others), np.int16)
    for way, where in zip(found, ~is_last, strict=True):
        way[:, where] = inner
    every = found.reshape(-1, n)
    every.flags.writeable = False
    return every
