"""Kruskal-Wallis tests by permutation, of any difference between the groups."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.permutation import (
    between_of,
    by_pattern,
    permuted,
    rank_scores,
    seed_of,
)


def kruskal_wallis(
    values: np.ndarray, design: Design, *, n_permutations: int, seed: int
) -> dict[str, np.ndarray]:
    """Test whether the groups differ, for each item.

    H is that of Kruskal and Wallis (1952, J Am Stat Assoc 47:583), corrected for ties; with blocks
    it is that of aligned ranks (Hodges and Lehmann 1962), which groups explain beyond blocks. p is
    by permutation. ε² = H / (n − number of blocks) is the share of the variance of the ranks that
    groups explain (Kelley 1935, PNAS 21:554), 0 to 1.

    Parameters
    ----------
    values : ndarray, (item, unit)
        NaN = missing; such a unit is not in the test of the item.
    design : Design
    n_permutations, seed : int

    Returns
    -------
    dict of str to ndarray, (item,)
        ``h``, ``p``, ``epsilon_squared``, ``n_units``, ``smallest_p``; NaN where no test is
        possible.
    """
    n_items = len(values)
    found = {name: np.full(n_items, np.nan) for name in ("h", "p", "epsilon_squared", "smallest_p")}
    found["n_units"] = np.isfinite(values).sum(1)
    for items, units in by_pattern(values, design):
        part = design.subset(units)
        found["n_units"][items] = len(units)
        found["smallest_p"][items] = smallest_p(part, n_permutations)
        if part.least_p(n_permutations) >= 1:
            continue
        scores = rank_scores(values[np.ix_(items, units)], part.block)
        done = permuted(scores, part, n_permutations=n_permutations, seed=seed_of(seed, units))
        total = (scores**2).sum(1)
        share = done.between / np.where(total > 0, total, 1)
        found["epsilon_squared"][items] = share
        found["h"][items] = share * (len(units) - len(np.unique(part.block)))
        found["p"][items] = done.p
    return found


def smallest_p(design: Design, n_permutations: int) -> float:
    """Smallest p that a test of ranks without ties can have by so many permutations.

    Where groups are exchanged between all units, and all assignments are listed: the share of them
    that part the ranks as far as any. 3 against 4: 2 of 35, the 4 highest ranks or the 4 lowest.
    """
    least = design.least_p(n_permutations)
    if len(design.composition) > 1 or not design.is_exact(n_permutations):
        return least
    return _smallest_of_ranks(tuple(sorted(design.composition[0].tolist())))


@lru_cache(maxsize=256)
def _smallest_of_ranks(sizes: tuple[int, ...]) -> float:
    group = np.repeat(np.arange(len(sizes)), sizes)
    design = Design(group, np.zeros_like(group))
    ranks = rank_scores(np.arange(len(group))[None] * 1.0, design.block)
    assigned = design.assignments(design.n_assignments, seed=0)
    best = between_of(ranks, design, assigned)
    return float(np.mean(best >= best.max() * (1 - 1e-9)))
