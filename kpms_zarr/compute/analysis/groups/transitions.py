"""Differences between groups in which syllable follows which."""

from __future__ import annotations

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.correction import false_discovery_rate
from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.omnibus import kruskal_wallis
from kpms_zarr.compute.analysis.groups.permutation import centred, permuted, seed_of

MIN_SHARE = 0.01
"""Least share of the changes from a syllable, over all units, of a change that is tested."""


def outgoing(changes: np.ndarray) -> np.ndarray:
    """Share of the changes from a syllable that go to each other one, beside others none.

    Parameters
    ----------
    changes : ndarray, (..., state, state_next)

    Returns
    -------
    ndarray, (..., state, state_next)
        NaN where a syllable is never left.
    """
    total = changes.sum(-1, keepdims=True)
    return np.where(total > 0, changes / np.where(total > 0, total, 1), np.nan)


def compare_transitions(
    changes: np.ndarray,
    states: np.ndarray,
    design: Design,
    groups: tuple[str, ...],
    *,
    n_permutations: int,
    seed: int,
    min_share: float = MIN_SHARE,
) -> xr.Dataset:
    """Test whether groups differ in which syllable follows which, given how often each occurs.

    One test of all transitions at once: the pseudo-F of Anderson (2001, Austral Ecol 26:32) of the
    square roots of outgoing shares (Hellinger distances: Legendre and Gallagher 2001, Oecologia
    129:271), every syllable with the weight of its share of all changes. And a test of each change
    that has 1 % of the changes from its syllable or more, as for syllables.

    Parameters
    ----------
    changes : ndarray, (unit, state, state_next)
        Counts of the changes between the syllables that are tested; 0 on the diagonal.
    states : ndarray, (state,) int
        Their numbers.
    design : Design
    groups : tuple of str
    n_permutations, seed : int
    min_share : float

    Returns
    -------
    xarray.Dataset, (state, state_next)
        ``p``, ``q`` (over all changes tested), ``epsilon_squared``, ``smallest_p``; ``share``
        (group, state, state_next), mean over units. NaN where not tested. Attributes of the test
        of all: ``p``, ``r_squared`` (share of the variation that groups explain), ``smallest_p``.
    """
    share = outgoing(changes)
    total = changes.sum(0)
    pooled = np.nan_to_num(outgoing(total))
    rows, columns = np.nonzero(pooled >= min_share)
    n_states = len(states)
    found = {
        name: np.full((n_states, n_states), np.nan)
        for name in ("p", "epsilon_squared", "smallest_p")
    }
    if len(rows):
        tests = kruskal_wallis(
            share[:, rows, columns].T, design, n_permutations=n_permutations, seed=seed
        )
        for name, value in found.items():
            value[rows, columns] = tests[name]
    p, r_squared = _of_all(share, pooled, total, design, n_permutations, seed)
    found["q"] = false_discovery_rate(found["p"])
    means = [_mean(share[design.group == i]) for i in range(len(groups))]
    return xr.Dataset(
        {
            **{name: (("state", "state_next"), value) for name, value in found.items()},
            "share": (("group", "state", "state_next"), np.stack(means)),
        },
        {"state": states, "state_next": states, "group": np.asarray(groups, dtype=object)},
        {"p": p, "r_squared": r_squared, "smallest_p": design.least_p(n_permutations)},
    )


def _of_all(
    share: np.ndarray,
    pooled: np.ndarray,
    total: np.ndarray,
    design: Design,
    n_permutations: int,
    seed: int,
) -> tuple[float, float]:
    """p and share of the variation of one test of all transitions.

    Where a unit never leaves a syllable, it has the shares of all units there.
    """
    filled = np.where(np.isfinite(share), share, pooled)
    weight = total.sum(1) / max(1, total.sum())
    points = np.sqrt(filled * weight[:, None]).reshape(len(share), -1).T
    scores = centred(points[points.any(1)], design.block)
    size = (scores**2).sum()
    if not size > 0:
        return float("nan"), float("nan")
    units = np.arange(len(share))
    done = permuted(scores, design, n_permutations=n_permutations, seed=seed_of(seed, units))
    return done.joint_p, float(done.joint_between / size)


def _mean(share: np.ndarray) -> np.ndarray:
    """Mean over units (unit, ...), of those that have a value."""
    known = np.isfinite(share)
    n = known.sum(0)
    return np.where(n > 0, np.where(known, share, 0).sum(0) / np.maximum(n, 1), np.nan)
