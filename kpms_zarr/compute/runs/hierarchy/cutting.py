"""The tree of syllables, cut where so many groups are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class SyllableTree:
    """Tree of syllables; nodes are numbered as :func:`scipy.cluster.hierarchy.linkage` does.

    Attributes
    ----------
    states : tuple of int
        Syllables; node ``i`` below their number is the leaf of ``states[i]``.
    members : tuple of tuple of int
        By node, the syllables below it, ascending.
    height : ndarray, (node,)
        Distance at which a node joins its two branches, in units of ``distance``; 0 of leaves.
    """

    states: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]
    height: np.ndarray

    @classmethod
    def of(cls, similarity: xr.Dataset) -> SyllableTree:
        """Tree of what :func:`kpms_zarr.similarity` returned."""
        states = tuple(int(one) for one in similarity["state"].values)
        members: list[tuple[int, ...]] = [(one,) for one in states]
        rows = similarity["linkage"].values
        for left, right, *_ in rows:
            members.append(tuple(sorted((*members[int(left)], *members[int(right)]))))
        return cls(states, tuple(members), np.append(np.zeros(len(states)), rows[:, 2]))

    @property
    def n_leaves(self) -> int:
        """Number of syllables."""
        return len(self.states)

    def cut(self, n_groups: int) -> list[tuple[int, ...]]:
        """Groups of two syllables or more, where all syllables are parted into so many groups.

        The pairs of branches that are nearest are joined first, as the tree has them.

        Parameters
        ----------
        n_groups : int
            From 1, all in one group, to the number of syllables, each alone.

        Returns
        -------
        list of tuple of int
            By their smallest syllable.
        """
        joined = self.members[self.n_leaves : self.n_leaves + self._n_joins(n_groups)]
        found: list[tuple[int, ...]] = []
        for group in joined:
            found = [one for one in found if not set(one) <= set(group)] + [group]
        return sorted(found)

    def cut_height(self, n_groups: int) -> float:
        """Distance between the last join of :meth:`cut` and the next one; 0 where none is joined.

        Above the last one, half its distance more.
        """
        n, joins = self._n_joins(n_groups), self.height[self.n_leaves :]
        if not n:
            return 0.0
        after = joins[n] if n < len(joins) else 1.5 * joins[n - 1]
        return float((joins[n - 1] + after) / 2)

    def _n_joins(self, n_groups: int) -> int:
        return min(max(0, self.n_leaves - n_groups), self.n_leaves - 1)


def as_groups(groups: Sequence[Sequence[int]]) -> str:
    """Groups as :func:`kpms_zarr.merge` reads them: ``"1,5;3,14"``."""
    return ";".join(",".join(map(str, group)) for group in groups)
