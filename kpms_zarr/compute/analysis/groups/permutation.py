"""Permutation tests of differences between groups, of many items at once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from kpms_zarr.compute.analysis.groups.design import Design

_CHUNK = 1 << 22
"""Numbers that are held at once."""
_SAME = 1e-9
"""Relative difference of statistics that are the same but for rounding."""


class Permuted(NamedTuple):
    """A test of items.

    Attributes
    ----------
    between : ndarray, (item,)
        Sum of squares between groups of the scores.
    p : ndarray, (item,)
    joint_between, joint_p : float
        The same of the sum over all items.
    """

    between: np.ndarray
    p: np.ndarray
    joint_between: float
    joint_p: float


def permuted(scores: np.ndarray, design: Design, *, n_permutations: int, seed: int) -> Permuted:
    """Compare the sum of squares between groups with that after groups were assigned otherwise.

    The sum of squares is that which groups explain beyond blocks: T' C⁺ T, with T the sums of
    scores by group and C what T covaries like when groups are assigned within blocks. All
    assignments are taken where there are no more than ``n_permutations``: p is the share of them
    with as large a sum or a larger one. Else p is (1 + b) / (1 + n), b of the n random ones
    (Phipson and Smyth 2010, Stat Appl Genet Mol Biol 9:39): never 0, and never too small on
    average, nor below what the design allows. In blocks of bounded memory, each one matrix product.

    Parameters
    ----------
    scores : ndarray, (item, unit)
        With mean 0 in every block.
    design : Design
    n_permutations, seed : int
    """
    contrast = _contrasts(design)
    observed = _between(scores, contrast, design.group[None])[0]
    assigned = design.assignments(n_permutations, seed)
    least = np.append(observed, observed.sum()) * (1 - _SAME)
    least -= _SAME * np.append((scores**2).sum(1), (scores**2).sum()) * 1e-3
    n_as_large = np.zeros(len(least), np.int64)
    step = max(1, _CHUNK // max(1, contrast.shape[1] * max(scores.shape)))
    for start in range(0, len(assigned), step):
        found = _between(scores, contrast, assigned[start : start + step])
        n_as_large[:-1] += (found >= least[:-1]).sum(0)
        n_as_large[-1] += (found.sum(1) >= least[-1]).sum()
    extra = 0 if design.is_exact(n_permutations) else 1
    p = np.maximum((n_as_large + extra) / (len(assigned) + extra), design.least_p(n_permutations))
    return Permuted(observed, p[:-1], float(observed.sum()), float(p[-1]))


def between_of(scores: np.ndarray, design: Design, assigned: np.ndarray) -> np.ndarray:
    """Sums of squares between groups of one item, (permutation,).

    Parameters
    ----------
    scores : ndarray, (1, unit)
        With mean 0 in every block.
    design : Design
    assigned : ndarray, (permutation, unit) int
    """
    contrast = _contrasts(design)
    step = max(1, _CHUNK // (contrast.shape[1] * scores.shape[1]))
    return np.concatenate(
        [
            _between(scores, contrast, assigned[start : start + step])[:, 0]
            for start in range(0, len(assigned), step)
        ]
    )


def _between(scores: np.ndarray, contrast: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of squares between groups: (permutation, item), of groups (permutation, unit)."""
    n_permutations, n_units = group.shape
    coded = contrast[group]  # (permutation, unit, contrast)
    wide = coded.transpose(1, 0, 2).reshape(n_units, -1)
    sums = (scores @ wide).reshape(len(scores), n_permutations, -1)
    return np.einsum("ipr,ipr->pi", sums, sums)


def _contrasts(design: Design) -> np.ndarray:
    """Columns whose squared sums of scores add up to the sum of squares between groups."""
    n = design.composition.astype(np.float64)
    size = n.sum(1)
    spread = np.diag(n.sum(0)) - np.einsum("bk,bl,b->kl", n, n, 1 / size)
    value, vector = np.linalg.eigh(spread)
    real = value > 1e-9 * value.max(initial=1.0)
    return np.asarray(vector[:, real] / np.sqrt(value[real]))


def centred(values: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Values (item, unit) minus the means of their blocks (unit,)."""
    return values - block_means(values, block)


def block_means(values: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Mean of the block of each unit, (item, unit)."""
    number, at = np.unique(block, return_inverse=True)
    member = (at[:, None] == np.arange(len(number))).astype(np.float64)
    return np.asarray(((values @ member) / member.sum(0))[:, at])


def rank_scores(values: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Ranks of each item with mean 0 in every block; ties have their mean rank.

    Where there are several blocks, values are aligned first: minus the mean of their block
    (Hodges and Lehmann 1962, Ann Math Stat 33:482).

    Parameters
    ----------
    values : ndarray, (item, unit)
        None missing.
    block : ndarray, (unit,) int
    """
    if len(np.unique(block)) > 1:
        values = centred(values, block)
        size = np.abs(values).max(1, keepdims=True)
        values = np.round(values / np.where(size > 0, size, 1), 10)  # or rounding parts ties
    ranks = rankdata(values, axis=1)
    return centred(np.asarray(ranks, dtype=np.float64), block)


def by_pattern(values: np.ndarray, design: Design) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Items that have values in the same units, and these units: where a test is possible.

    Groups are then exchanged between the units that have a value, so that where values are missing
    may depend on the group.

    Parameters
    ----------
    values : ndarray, (item, unit)
        NaN = missing.
    """
    is_there = np.isfinite(values)
    patterns, at = np.unique(is_there, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        units = np.flatnonzero(pattern)
        if len(units):
            units = units[design.subset(units).informative]
        if len(units):
            yield np.flatnonzero(at.ravel() == number), units


def seed_of(seed: int, units: np.ndarray) -> int:
    """A seed for some units, that depends on nothing but the seed and these."""
    return zlib.crc32(np.asarray(units, np.int64).tobytes(), seed & 0xFFFFFFFF)
