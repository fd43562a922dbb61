"""Tracking error by confidence from deviations, or from annotations, and the line through it.

Noise is that of the model of a fit (model.md 2): a multivariate Student t distribution along all
axes, whose scale is the tracking error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from kpms_zarr.compute.tracking.deviations import N_BINS, WEIGHTS, DeviationCounts

NOISE_DOF = 5
"""Degrees of freedom of the noise, as a fit has them by default."""
LEAST_COMPARED = 50
"""Fewer deviations than that say nothing of a bin."""
_ROUNDS, _STEPS = 4, 6
_VARIANCE = NOISE_DOF / (NOISE_DOF - 2)
_EXCESS = 6 / (NOISE_DOF - 4)
_MOST_EXCESS = 6.0
_LARGEST_RATIO = 6.0
"""Of movement in sixth and in fourth differences: that of movement at 0.28 of the frame rate."""
_MEDIAN_VARIANCE, _MISFIT = 0.3, 0.03
"""Of log10 of an error from n deviations: about 0.3 / n, and by how much bins are off the line."""
_BINOMIALS = np.array([2.0, 6.0, 20.0])
_GRID = np.linspace(1e-3, _MOST_EXCESS, 120)


class ErrorLine(NamedTuple):
    """Line log10(error) = slope log10(confidence + pseudocount) + intercept, standard errors."""

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float


class ErrorCurve(NamedTuple):
    """Tracking error by keypoint and bin of the confidence.

    Attributes
    ----------
    log_confidence : ndarray, (keypoint, bin)
        Mean log10(confidence + pseudocount).
    error : ndarray, (keypoint, bin)
        NaN where it is not known.
    number : ndarray, (keypoint, bin) int64
        Positions that were compared.
    n_still, n_moving : int
        Bins of a keypoint left out: of keypoints that do not move at all from frame to frame, and
        of those whose error cannot be told from their movement.
    """

    log_confidence: np.ndarray
    error: np.ndarray
    number: np.ndarray
    n_still: int
    n_moving: int


def _median_ratio(excess: np.ndarray, n_space: int) -> np.ndarray:
    """Median squared length of noise over its variance along an axis, by its excess kurtosis.

    A sum of several Student t variables is taken for one of as many degrees of freedom as have the
    kurtosis of the sum.
    """
    dof = 4 + 6 / _GRID
    ratio = (dof - 2) / dof * n_space * stats.f.ppf(0.5, n_space, dof)
    return np.interp(excess, _GRID, ratio)


def _weight_sums(counts: DeviationCounts, power: int) -> np.ndarray:
    """Mean sum of the weights to a power of keypoint and neighbours, (order, keypoint, bin, bin).

    By the bin of the keypoint, and the bin of whose weights they are.
    """
    number = np.maximum(counts.number, 1)[:, :, None]
    found = np.einsum("of,fkbc->okbc", np.abs(WEIGHTS) ** power, counts.neighbours) / number
    return found + (counts.number > 0)[:, :, None] * np.eye(N_BINS)


def error_curve(
    counts: DeviationCounts, n_space: int, *, subtracts_movement: bool = True
) -> ErrorCurve:
    """Tracking error by confidence from the deviations of all keypoints.

    The deviation of a keypoint is its own error, those of its neighbours by their weights, and what
    its true path turns away from the prediction. The second part is known from bins of higher
    confidence on, from which neighbours come. The third is told from noise by its size at three
    orders of prediction: noise has the same in all, apart from the known weights, while movement,
    which is slow against the frame rate, falls from order to order, in sixth differences as much
    again as in fourth ones, or less (moments of its spectrum, log-convex by Hölder's inequality).
    So what is subtracted is never more than there is of movement, and what remains is above the
    error rather than below. The variance of noise in differences of higher order: after Gasser,
    Sroka and Jennen-Steinmetz, Biometrika 73:625 (1986).

    Parameters
    ----------
    counts : DeviationCounts
    n_space : int
    subtracts_movement : bool
        False: all of the deviation from the cubic prediction is taken for noise.

    Returns
    -------
    ErrorCurve
    """
    median, number = counts.medians(), counts.number
    squares, fourths = (_weight_sums(counts, power) for power in (2, 4))
    log_confidence = counts.log_confidence / np.maximum(number, 1) / 1e6
    error = np.full(number.shape, np.nan)
    n_still = n_moving = 0
    for point in range(len(number)):
        enough = number[point] >= LEAST_COMPARED
        is_still = enough & (median[:, point] <= 0).any(0)
        used = np.flatnonzero(enough & ~is_still)
        n_still += int(is_still.sum())
        of_point = _Point(
            median[:, point], squares[:, point], fourths[:, point], number[point], n_space
        )
        variance = of_point.solve(used[::-1].tolist(), subtracts_movement)
        n_moving += int((~(variance[used] > 0)).sum())
        with np.errstate(invalid="ignore"):
            error[point] = np.sqrt(np.where(variance > 0, variance, np.nan))
    is_known = number > 0
    return ErrorCurve(np.where(is_known, log_confidence, np.nan), error, number, n_still, n_moving)


class _Point(NamedTuple):
    """Deviations of one keypoint: medians (order, bin), sums of weights (order, bin, bin)."""

    median: np.ndarray
    squares: np.ndarray
    fourths: np.ndarray
    number: np.ndarray
    n_space: int

    def solve(self, bins: Sequence[int], subtracts_movement: bool) -> np.ndarray:
        """Squared scale of the noise by bin, (bin,); NaN where not known, bins from the highest."""
        ratio = 0.0
        for _ in range(_ROUNDS if subtracts_movement else 1):
            found = np.full(N_BINS, np.nan)
            movement = np.zeros((2, N_BINS))
            for one in bins:
                found[one], movement[:, one] = self._of_bin(one, found, ratio, subtracts_movement)
            weight = np.where(np.isfinite(found), self.number, 0)
            first, second = (weight * movement).sum(1)
            is_moving = first > 0 and second > 0
            ratio = min(second / first, _LARGEST_RATIO) if is_moving else 0.0
        return found

    def _of_bin(
        self, one: int, found: np.ndarray, ratio: float, subtracts_movement: bool
    ) -> tuple[float, np.ndarray]:
        """Squared scale of a bin, and the movement in its second and fourth differences."""
        is_open = ~np.isfinite(found)  # of the bin itself, or unknown: taken for it
        known = np.where(is_open, 0, found)
        raw = _BINOMIALS**2
        own = (self.squares[:, one] * is_open).sum(1) * _VARIANCE * raw
        others = (self.squares[:, one] @ known) * _VARIANCE * raw
        median = self.median[:, one]
        total = median / _median_ratio(np.full(len(WEIGHTS), _EXCESS), self.n_space)
        value = total[-1] * raw[-1] / (own[-1] + 1e-300)
        for _ in range(_STEPS):
            scales = np.where(is_open, max(value, 0), known) * _VARIANCE
            excess = _EXCESS * (self.fourths[:, one] @ scales**2) / np.square(total)
            total = median / _median_ratio(np.minimum(excess, _MOST_EXCESS), self.n_space)
            rest = total * raw - others
            if subtracts_movement:
                value = (rest[2] - ratio * rest[1]) / (own[2] - ratio * own[1])
            else:
                value = rest[1] / own[1]
        moved = np.maximum(rest - own * value, 0)[:2] if value > 0 else np.zeros(2)
        return (value if value > 0 else np.nan), moved


def line_through(curve: ErrorCurve) -> ErrorLine:
    """Weighted least squares line through the bins of all keypoints.

    Weights are those of the error of a median and of a misfit of every bin, so that the bin of the
    highest confidence, which most frames are in, does not decide alone.
    """
    used = np.isfinite(curve.error)
    x, y = curve.log_confidence[used], np.log10(curve.error[used])
    weight = 1 / (_MEDIAN_VARIANCE / curve.number[used] + _MISFIT**2)
    design = np.stack([x, np.ones_like(x)], 1)
    inverse = np.linalg.inv((design * weight[:, None]).T @ design)
    slope, intercept = inverse @ (design.T @ (weight * y))
    rest = y - slope * x - intercept
    spread = max(1.0, float(weight @ rest**2) / max(1, len(x) - 2))
    errors = np.sqrt(np.diag(inverse) * spread)
    return ErrorLine(float(slope), float(intercept), float(errors[0]), float(errors[1]))


# ------------------------------------------------------------------ annotations


def line_of_annotations(log_confidence: np.ndarray, deviation: np.ndarray) -> ErrorLine:
    """Most likely line of the noise, from deviations of tracked from annotated positions.

    Parameters
    ----------
    log_confidence : ndarray, (annotation,)
        Log10(confidence + pseudocount).
    deviation : ndarray, (annotation, space)

    Returns
    -------
    ErrorLine
        Standard errors from the information of a Student t distribution on its log scale (Lange,
        Little and Taylor, J. Am. Stat. Assoc. 84:881, 1989).
    """
    n_space = deviation.shape[1]
    square = np.square(deviation).sum(1)
    typical = np.sqrt(np.median(square) / n_space)
    square = square / typical**2
    design = np.stack([log_confidence, np.ones_like(log_confidence)], 1)
    middle = design[:, 0].mean()
    centred = design - [middle, 0]

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        log_scale = np.log(10) * (centred @ line)
        away = square * np.exp(-2 * np.clip(log_scale, -100, 100)) / NOISE_DOF
        value = n_space * log_scale + (NOISE_DOF + n_space) / 2 * np.log1p(away)
        slope = n_space - (NOISE_DOF + n_space) * away / (1 + away)
        return float(value.mean()), np.log(10) * (slope @ centred) / len(centred)

    found = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    information = 2 * n_space * NOISE_DOF / (NOISE_DOF + n_space + 2) * np.log(10) ** 2
    errors = np.sqrt(np.diag(np.linalg.inv(information * design.T @ design)))
    intercept = found[1] - found[0] * middle + np.log10(typical)
    return ErrorLine(float(found[0]), float(intercept), float(errors[0]), float(errors[1]))


def scale_of_lengths(square: np.ndarray, n_space: int) -> float:
    """Scale of noise by the median of its squared lengths."""
    return float(np.sqrt(np.median(square) / (n_space * stats.f.ppf(0.5, n_space, NOISE_DOF))))
