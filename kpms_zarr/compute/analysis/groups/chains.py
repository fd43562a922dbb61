"""In how many chains of an ensemble a finding holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.omnibus import kruskal_wallis
from kpms_zarr.compute.analysis.groups.statistics import (
    STATISTICS,
    group_means,
    values_of,
)
from kpms_zarr.compute.analysis.groups.units import BY_FRAME, Units, units_of
from kpms_zarr.store.errors import InputError


def chains_that_agree(
    tests: xr.Dataset,
    chains: Sequence[xr.Dataset],
    units: Units,
    *,
    n_permutations: int,
    seed: int,
    alpha: float,
) -> xr.Dataset:
    """Count the chains in which each difference is found again.

    A chain agrees with a difference where its own p is no larger than ``alpha`` and the same groups
    have the largest and the smallest mean.

    Parameters
    ----------
    tests : xarray.Dataset, (statistic, state)
        With ``mean`` (statistic, state, group).
    chains : sequence of xarray.Dataset, (row, state)
        Tables of the chains, in the states of the ensemble.
    units : Units
        Of the ensemble.
    n_permutations, seed : int
    alpha : float

    Returns
    -------
    xarray.Dataset
        ``tests`` with ``n_chains`` and ``n_chains_tested``, (statistic, state) int.
    """
    shape = (tests.sizes["statistic"], tests.sizes["state"])
    n_agree, n_tested = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    states = tests["state"].values
    for chain in chains:
        of_chain = _same_units(chain, units)
        if of_chain is None:
            continue
        design = Design(of_chain.group, of_chain.block)
        there = of_chain.pooled["state"].values
        for row, name in enumerate(tests["statistic"].values):
            if STATISTICS[name].needs not in of_chain.pooled:
                continue
            values = np.full((len(states), len(of_chain.names)), np.nan)
            known = np.isin(states, there)
            at = np.searchsorted(there, states[known])
            values[known] = values_of(of_chain.pooled, name)[at]
            found = kruskal_wallis(values, design, n_permutations=n_permutations, seed=seed)
            n_tested[row] += np.isfinite(found["p"])
            same = _extremes(group_means(values, of_chain)) == _extremes(tests["mean"].values[row])
            n_agree[row] += (found["p"] <= alpha) & same.all(1)
    dims = ("statistic", "state")
    return tests.assign(n_chains=(dims, n_agree), n_chains_tested=(dims, n_tested))


def in_syllables_of(table: xr.Dataset, syllable: np.ndarray, n_states: int) -> xr.Dataset:
    """Table of a chain with its states pooled to the syllables of the ensemble.

    Durations are those of the chain's own bouts; changes between states of one syllable are none.

    Parameters
    ----------
    table : xarray.Dataset, (row, state)
    syllable : ndarray, (member_state,) int
        Syllable of each state of the chain; -1 = none.
    n_states : int
        Of the ensemble.
    """
    state = table["state"].values
    to = np.where(state < len(syllable), syllable[np.minimum(state, len(syllable) - 1)], -1)
    member = (to[:, None] == np.arange(n_states)).astype(np.float64)  # (state, syllable)
    frames, bouts = (table[name].values.astype(np.float64) for name in ("n_frames", "n_bouts"))
    found: dict[str, object] = {
        "n_frames": (("row", "state"), frames @ member),
        "n_bouts": (("row", "state"), bouts @ member),
    }
    weights = {"mean_duration": bouts, **dict.fromkeys(BY_FRAME, frames)}
    for name, weight in weights.items():
        if name in table:
            number = table[name].values.astype(np.float64)
            known = np.isfinite(number) & (weight > 0)
            total = np.where(known, weight, 0) @ member
            mean = np.where(known, weight * np.nan_to_num(number), 0) @ member
            found[name] = (
                ("row", "state"),
                np.where(total > 0, mean / np.where(total > 0, total, 1), np.nan),
            )
    coords = {name: one for name, one in table.coords.items() if one.dims == ("row",)}
    return xr.Dataset(found, {**coords, "state": np.arange(n_states)}, table.attrs)


def _same_units(chain: xr.Dataset, units: Units) -> Units | None:
    """Units of a chain, of the same design; None where it has not all the sessions."""
    try:
        found = units_of(
            chain,
            by=units.by,
            block=units.blocked_by or None,
            unit=units.unit,
            groups=units.groups,
        )
    except InputError:  # it has no session of a group
        return None
    is_same = found.names == units.names and np.array_equal(found.group, units.group)
    return found if is_same and np.array_equal(found.block, units.block) else None


def _extremes(mean: np.ndarray) -> np.ndarray:
    """Groups of the largest and smallest mean: (item, 2)."""
    known = np.isfinite(mean)
    largest = np.where(known, mean, -np.inf).argmax(1)
    return np.stack([largest, np.where(known, mean, np.inf).argmin(1)], axis=1)
