"""Labels, certainties, parameters and figures of syllables after some have become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.runs.hierarchy.grouping import Grouping
from kpms_zarr.compute.sampler.chain import NO_STATE
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.model.replicability import Replicability

_FLOOR = 1e-100
"""Of weights and probabilities of states that are gone: a fit that goes on takes their logs."""
_NUMBERS = ("window_syllable", "member_syllable")
"""Variables of the parameters whose values are syllables."""


def merged_frames(values: Mapping[str, np.ndarray], number: np.ndarray) -> dict[str, np.ndarray]:
    """Variables by frame of merged labels.

    A frame has the syllable that its own has become. Its certainty is that of its own and, where
    the second choice has become the same, of both: at least that, for of the others only the sum is
    known. A second choice that has become the first leaves none behind it: the third is not known.

    Parameters
    ----------
    values : mapping
        Of the labels before, (frame, ...).
    number : ndarray, (state,)
        That each syllable becomes.
    """
    found = dict(values)
    number = np.append(number, NO_STATE).astype(np.int16)
    first = found["syllable"] = number[values["syllable"]]
    if "second_syllable" not in values:
        return found
    second = number[values["second_syllable"]]
    is_one = (second == first) & (second >= 0)
    found["second_syllable"] = np.where(is_one, NO_STATE, second).astype(np.int16)
    if "second_certainty" in values:
        of_second = values["second_certainty"]
        found["second_certainty"] = np.where(is_one, np.float16(np.nan), of_second)
        if "certainty" in values:
            both = np.minimum(values["certainty"].astype(np.float32) + of_second, 1)
            is_known = is_one & np.isfinite(both)
            kept = values["certainty"]
            found["certainty"] = np.where(is_known, both, kept).astype(np.float16)
    return found


def merged_parameters(
    found: xr.Dataset, grouping: Grouping, pooled: Dynamics | None
) -> dict[str, np.ndarray]:
    """Parameters of merged syllables, by name, numbered as the labels are.

    Syllables that are alone keep theirs. Those of a group are what it is as one state: dynamics
    given the frames of all, weights and transitions the sums over its states, rows weighted by
    usage, as of a lumped Markov chain (after Kemeny and Snell, *Finite Markov Chains*, 1960).
    States that are gone stand behind all others, with their own dynamics, and are never entered.
    Traces are those of the fit, states of a group added up.

    Parameters
    ----------
    found : Dataset
        Parameters of the version before.
    pooled : Dynamics or None
        Of each target given the frames of its group, (state, ...), in the order of the version
        before; None: a group keeps the dynamics of its most frequent syllable.
    """
    order = np.argsort(grouping.own)
    values = {str(name): found[name].values for name in found.variables}
    if "ar_weight" in found:
        values |= _merged(Parameters.from_store(found.variables), grouping, pooled).reordered(
            order
        ).to_store()  # fmt: skip
    if "trace_usage" in found:
        usage = _joined(values["trace_usage"].T, grouping.target).T[:, order]
        values["trace_usage"] = usage
        values["trace_n_used"] = (usage >= USED_FRACTION).sum(1)
    for name in _NUMBERS:
        if name in values:
            values[name] = np.append(grouping.number, NO_STATE).astype(np.int16)[values[name]]
    return values


def _merged(parameters: Parameters, grouping: Grouping, pooled: Dynamics | None) -> Parameters:
    """Parameters in the order of the version before."""
    target, is_gone = grouping.target, grouping.is_gone
    is_group = np.bincount(target, minlength=len(target)) > 1
    dynamics = parameters.dynamics
    if pooled is not None:
        where = is_group[:, None, None]
        dynamics = Dynamics(
            *(np.where(where, new, old) for new, old in zip(pooled, dynamics, strict=True))
        )
    usage = np.maximum(_joined(parameters.usage, target), _FLOOR)
    columns = _joined(parameters.transition.T, target).T
    weight = np.maximum(parameters.usage, _FLOOR)
    total = _joined(weight, target)
    rows = _joined(columns * weight[:, None], target) / np.where(is_gone, 1, total)[:, None]
    transition = np.where((is_group & ~is_gone)[:, None], rows, columns)
    return Parameters(dynamics, usage, np.maximum(transition, _FLOOR))


def _joined(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sums over the states that become one, (state, ...), 0 of those that are gone."""
    found = np.zeros_like(values)
    np.add.at(found, target, values)
    return found


def merged_figures(
    known: Replicability, member_agreement: np.ndarray | None, grouping: Grouping
) -> dict[str, Any]:
    """What is known of how far merged syllables replicate, and of their families.

    Those that are alone keep theirs. A merged one replicates at least as far as the least of those
    that it is made of: with A and B apart, |A u B n A' u B'| / |A u B u A' u B'| >= min(|A n A'| /
    |A u A'|, |B n B'| / |B u B'|), whichever syllables A' and B' of a half are matched, for
    (a + b) / (c + d) >= min(a / c, b / d). Its family is that in which most of its frames are.
    """
    target, own = grouping.target, grouping.own
    is_one = np.bincount(target, minlength=len(target)) == 1
    found: dict[str, Any] = {}

    def placed(values: np.ndarray) -> np.ndarray:
        numbered = np.full(len(values), np.nan)
        numbered[own] = values
        return numbered

    def least(values: np.ndarray) -> np.ndarray:
        lowest = np.full(len(values), np.inf)
        occurs = known.frequency > 0
        # Of a group whose other syllables are not known, nothing is.
        np.minimum.at(lowest, target[occurs], np.where(np.isnan(values), -np.inf, values)[occurs])
        return np.where(is_one, values, np.where(np.isfinite(lowest), lowest, np.nan))

    if known.is_known:
        found["replicability"] = placed(least(known.between_chains))
    if known.is_known_between_sessions:
        found["session_replicability"] = placed(least(known.between_sessions))
    if member_agreement is not None:
        found["member_agreement"] = placed(np.where(is_one, member_agreement, np.nan))
    if known.has_families:
        found["family"] = merged_families(known, grouping)
    return found


def merged_families(known: Replicability, grouping: Grouping) -> np.ndarray:
    """Family of each merged syllable, (state,) int16, the most frequent family first."""
    family, target = known.family, grouping.target
    table = np.zeros((len(family), max(1, family.max() + 1)))
    has = family >= 0
    np.add.at(table, (target[has], family[has]), known.frequency[has])
    is_there = np.bincount(target[has], minlength=len(family)) > 0
    chosen = np.where(is_there, table.argmax(1), NO_STATE)
    share = np.bincount(chosen[is_there], weights=table.sum(1)[is_there], minlength=table.shape[1])
    there = np.bincount(chosen[is_there], minlength=table.shape[1]) > 0
    order = np.flatnonzero(there)[np.argsort(-share[there], kind="stable")]
    rank = np.full(table.shape[1] + 1, NO_STATE, np.int64)
    rank[order] = np.arange(len(order))
    numbered = np.full(len(family), NO_STATE, np.int16)
    numbered[grouping.own] = rank[chosen]
    return numbered


def merged_halves(known: Replicability, rule: str) -> dict[str, float]:
    """Agreement of halves after a merge, as attributes.

    Of families that became the syllables it is that of the families; of other groups it is not
    known, and only what is said of the families stays.
    """
    found: dict[str, float] = {}
    pairs = (
        (known.family_halves, "half", "family_half"),
        (known.family_session_halves, "session_half", "family_session_half"),
    )
    for halves, whole, families in pairs:
        for name, value in halves._asdict().items():
            if not np.isnan(value):
                found[f"{families}_{name}"] = value
                if rule == "families":
                    found[f"{whole}_{name}"] = value
    return found
