"""Whether the group of a unit can be told from how often it uses the syllables."""

from __future__ import annotations

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.permutation import centred, seed_of

SHRINKAGE = 0.5
"""Share of a multiple of the identity in the covariance."""
_CHUNK = 1 << 22
_SAME = 1e-9


def classify(
    usage: np.ndarray,
    design: Design,
    groups: tuple[str, ...],
    *,
    n_permutations: int,
    seed: int,
) -> xr.Dataset:
    """Tell the group of each unit from its usage, with a rule that has not seen its group.

    Square roots of usage (Legendre and Gallagher 2001, Oecologia 129:271) are classified by the
    nearest group mean, in the metric of their covariance, half of it shrunk to a multiple of the
    identity (regularised discriminant: Friedman 1989, JASA 84:165). The mean of a group never
    contains the unit that is classified, or any of its block: leave one session, animal or block
    out. The covariance is that of all units, whatever their groups. The baseline is the same after
    groups were assigned otherwise (Ojala and Garriga 2010, JMLR 11:1833), which is below 1 / groups
    as a mean that lacks a unit lies further from it.

    Parameters
    ----------
    usage : ndarray, (unit, state)
        Shares of the frames.
    design : Design
    groups : tuple of str
    n_permutations, seed : int

    Returns
    -------
    xarray.Dataset
        ``predicted`` (unit) int, ``confusion`` (group, predicted_group) int; attributes
        ``balanced_accuracy`` (mean over groups of the share that is told right), ``baseline`` and
        ``baseline_high`` (mean and 95 % quantile of it by permutation), ``p``, ``smallest_p``.
    """
    kernel = _kernel(usage, design.block)
    same = (design.block[:, None] == design.block) if len(np.unique(design.block)) > 1 else (
        np.eye(len(kernel), dtype=bool)
    )  # fmt: skip
    n_groups = len(groups)
    observed = _predicted(kernel, same, design.group[None], n_groups)[0]
    accuracy = _balanced(observed[None], design.group[None], n_groups)[0]
    assigned = design.assignments(n_permutations, seed_of(seed, np.arange(len(kernel))))
    step = max(1, _CHUNK // (n_groups * len(kernel)))
    every = np.concatenate(
        [
            _balanced(_predicted(kernel, same, part, n_groups), part, n_groups)
            for start in range(0, len(assigned), step)
            for part in [assigned[start : start + step]]
        ]
    )
    extra = 0 if design.is_exact(n_permutations) else 1
    share = ((every >= accuracy - _SAME).sum() + extra) / (len(every) + extra)
    p = max(float(share), design.least_p(n_permutations))
    confusion = np.zeros((n_groups, n_groups), np.int64)
    np.add.at(confusion, (design.group, observed), 1)
    return xr.Dataset(
        {
            "predicted": ("unit", observed),
            "confusion": (("group", "predicted_group"), confusion),
        },
        {
            "group": np.asarray(groups, dtype=object),
            "predicted_group": np.asarray(groups, dtype=object),
        },
        {
            "balanced_accuracy": float(accuracy),
            "baseline": float(every.mean()),
            "baseline_high": float(np.quantile(every, 0.95)),
            "p": p,
            "smallest_p": design.least_p(n_permutations),
        },
    )


def whitened(usage: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Square roots of usage in coordinates in which their shrunk covariance is the identity.

    Parameters
    ----------
    usage : ndarray, (unit, state)
    block : ndarray, (unit,) int
        Units differ from the mean of their block.

    Returns
    -------
    ndarray, (unit, component)
    """
    points = centred(np.sqrt(usage).T, block).T
    left, size, _ = np.linalg.svd(points, full_matrices=False)
    spread = size**2 / max(1, len(points) - 1)
    shrunk = (1 - SHRINKAGE) * spread + SHRINKAGE * spread.sum() / points.shape[1]
    return np.asarray(left * (size / np.sqrt(np.where(shrunk > 0, shrunk, 1))))


def _kernel(usage: np.ndarray, block: np.ndarray) -> np.ndarray:
    points = whitened(usage, block)
    return points @ points.T


def _predicted(
    kernel: np.ndarray, same: np.ndarray, group: np.ndarray, n_groups: int
) -> np.ndarray:
    """Group whose mean is nearest, (assignment, unit) int; means leave out what is ``same``.

    By products of the kernel (unit, unit) with the groups (assignment, unit) alone: the squared
    distance of unit i to the mean m of group k is K_ii - 2 K_im + K_mm.
    """
    member = (group[..., None] == np.arange(n_groups)).astype(np.float64)  # (assignment, unit, k)
    within = same.astype(np.float64)
    sums = np.einsum("ij,pjk->pik", kernel, member, optimize=True)
    left_sums = np.einsum("ij,pjk->pik", kernel * within, member, optimize=True)
    number = member.sum(1, keepdims=True) - np.einsum("ij,pjk->pik", within, member, optimize=True)
    whole = np.einsum("pjk,pjk->pk", member, sums)[:, None]
    cross = np.einsum("ij,pjk->pik", within, member * sums, optimize=True)
    own = np.einsum("ij,pjk->pik", within, member * left_sums, optimize=True)
    known = number > 0.5
    n = np.where(known, number, 1)
    distance = (whole - 2 * cross + own) / n**2 - 2 * (sums - left_sums) / n
    return np.asarray(np.where(known, np.round(distance, 9), np.inf).argmin(2))


def _balanced(predicted: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Balanced accuracy of each assignment, (assignment,)."""
    right = predicted == group
    shares = []
    for one in range(n_groups):
        of = group == one
        shares.append((right & of).sum(1) / np.maximum(of.sum(1), 1))
    return np.mean(shares, axis=0)
