"""Comparison of each two groups: Dunn's statistic by permutation, effect sizes with intervals."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from kpms_zarr.compute.analysis.groups.bootstrap import intervals
from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.omnibus import smallest_p
from kpms_zarr.compute.analysis.groups.permutation import (
    by_pattern,
    centred,
    permuted,
    rank_scores,
    seed_of,
)

EFFECTS = ("difference", "rank_biserial")
"""Effect sizes that have an interval."""


def pairs_of(n_groups: int) -> list[tuple[int, int]]:
    """Each two groups."""
    return list(combinations(range(n_groups), 2))


def compare_pairs(
    values: np.ndarray,
    design: Design,
    n_groups: int,
    *,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Compare each two groups, for each item.

    z is that of Dunn (1964, Technometrics 6:241): the difference of the mean ranks of all groups,
    over its standard deviation where no group differs. Its p is by permutation, of the units of
    the two groups alone, so that it holds whatever the other groups do. ``difference`` is that of
    the means (second minus first; with blocks, of those within blocks), ``rank_biserial`` how much
    more often a unit of the second group has the larger value than one of the first (Cliff 1993,
    Psychol Bull 114:494; within blocks where there are any), −1 to 1; both with bootstrap
    intervals (:func:`intervals`).

    Parameters
    ----------
    values : ndarray, (item, unit)
        NaN = missing.
    design : Design
    n_groups, n_permutations, n_bootstrap, seed : int

    Returns
    -------
    dict of str to ndarray, (pair, item)
        ``z``, ``p``, ``smallest_p``, ``difference``, ``rank_biserial`` and their ``_low`` and
        ``_high``; NaN where there is none.
    """
    pairs = pairs_of(n_groups)
    names = ["z", "p", "smallest_p"]
    names += [name + end for name in EFFECTS for end in ("", "_low", "_high")]
    found = {name: np.full((len(pairs), len(values)), np.nan) for name in names}
    for items, units in by_pattern(values, design):
        whole = design.subset(units)
        part = values[np.ix_(items, units)]
        ranks = rank_scores(part, whole.block)
        spread = (ranks**2).sum(1) / max(1, len(units) - len(np.unique(whole.block)))
        for number, pair in enumerate(pairs):
            of_pair = np.isin(whole.group, pair)
            if not all((whole.group == one).any() for one in pair):
                continue
            places = np.flatnonzero(of_pair)
            places = places[whole.subset(places).informative]
            if not len(places):
                continue
            two = whole.subset(places)
            two = Design((two.group == pair[1]).astype(np.int64), two.block)
            found["smallest_p"][number, items] = smallest_p(two, n_permutations)
            if two.least_p(n_permutations) < 1:
                scores = centred(ranks[:, places], two.block)
                done = permuted(
                    scores, two, n_permutations=n_permutations, seed=seed_of(seed, units[places])
                )
                side = np.sign(scores @ centred(two.group[None] * 1.0, two.block)[0])
                z = np.sqrt(done.between / np.where(spread > 0, spread, 1))
                found["z"][number, items] = side * z
                found["p"][number, items] = done.p
            effects = intervals(
                part[:, places], two, n_bootstrap=n_bootstrap, seed=seed_of(seed, units[places])
            )
            for name, value in effects.items():
                found[name][number, items] = value
    return found
