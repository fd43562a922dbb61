"""Plausibility of keypoints given the others of a frame: a robust Gaussian of the pose."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from kpms_zarr.store.rotation import rotate

FEWEST_POINTS = 4
"""Keypoints that a frame must have so that one of them can be judged by the others."""

_LEAST_LIMIT = 0.5
"""Of the limit of a Mahalanobis distance, in scales: 3 at the usual scale of 6."""

_FEWEST_KEPT = 3
_FREE = 10.0
"""Variance of what a pose is free to do: move and turn. In body lengths squared."""
_ANGLES = 24
_WORST_SQUARE = 9.0
_REFINEMENTS = 4
_LIKELY_PAIRS = 6
_PATTERNS_KEPT = 256
_CHUNK_FRAMES = 4096
_ROUNDS = 6
_WINSOR = 3.0
_TO_DEVIATION = 1.4826
"""Standard deviation of a Gaussian for a median absolute deviation of 1."""


class PoseDistribution(NamedTuple):
    """Gaussian distribution of poses in body lengths, whatever the place and the heading.

    Attributes
    ----------
    mean : ndarray, (keypoint, space)
    covariance : ndarray, (keypoint, space, keypoint, space)
    limit : ndarray, (keypoint,)
        Of the Mahalanobis distance from where the other keypoints have the keypoint.
    is_turning : bool
        Whether poses are free to turn about the vertical axis.
    """

    mean: np.ndarray
    covariance: np.ndarray
    limit: np.ndarray
    is_turning: bool


class Judged(NamedTuple):
    """Judgement of a pose model on some frames.

    Attributes
    ----------
    is_off : ndarray, (frame, keypoint) bool
        Further from where the other keypoints have it than the limit.
    is_clear : ndarray, (frame,) bool
        Whether all that is left agrees; where it does not, nothing is off.
    turned : ndarray, (frame, keypoint, space)
        The pose, turned and moved to the mean.
    """

    is_off: np.ndarray
    is_clear: np.ndarray
    turned: np.ndarray


# ------------------------------------------------------------------ judging frames


def judge(pose: np.ndarray, is_trusted: np.ndarray, model: PoseDistribution) -> Judged:
    """Find the keypoints that the others of the same frame do not predict.

    Keypoints leave one after the other, the one that is furthest off first, until what is left
    agrees; then all that left are judged by what is left. Not more than a minority may leave. Where
    that does not help, two keypoints may have each other's names.

    Parameters
    ----------
    pose : ndarray, (frame, keypoint, space)
        In body lengths, anywhere and turned in any way; not finite = missing.
    is_trusted : ndarray, (frame, keypoint) bool
        Keypoints that others are judged by, and that count for the position of the animal.
    """
    is_present = np.isfinite(pose).all(-1)
    is_trusted = is_trusted & is_present
    pose = np.where(is_present[..., None], pose, 0.0)
    predictor = _Predictor(model)
    parts = [
        _judge_chunk(pose[part], is_trusted[part], is_present[part], model, predictor)
        for part in (slice(i, i + _CHUNK_FRAMES) for i in range(0, len(pose), _CHUNK_FRAMES))
    ]
    return Judged(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _judge_chunk(
    pose: np.ndarray,
    is_trusted: np.ndarray,
    is_present: np.ndarray,
    model: PoseDistribution,
    predictor: _Predictor,
) -> Judged:
    square = np.square(model.limit)
    kept = is_trusted.copy()
    turned = _to_mean(pose, kept, model)
    enough = kept.sum(1) >= FEWEST_POINTS
    distance = predictor.distances(turned - model.mean, kept)
    bad = np.flatnonzero(enough & (kept & (distance > square)).any(1))
    if bad.size:
        turned[bad] = _best_angle(pose[bad], kept[bad], model)
        kept[bad] = _without_worst(turned[bad] - model.mean, kept[bad], predictor, square)
        turned[bad] = _to_mean(pose[bad], kept[bad], model)
        distance[bad] = predictor.distances(turned[bad] - model.mean, kept[bad])
    is_clear = enough & ~(kept & (distance > square)).any(1)
    is_off = is_present & (distance > square) & is_clear[:, None]
    dim = bad[~is_clear[bad]]
    if dim.size:
        turned[dim], is_clear[dim], is_off[dim] = _exchanged(
            pose[dim], is_trusted[dim], model, predictor
        )
    return Judged(is_off, is_clear, turned)


def _exchanged(
    pose: np.ndarray, is_trusted: np.ndarray, model: PoseDistribution, predictor: _Predictor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find frames in which all agrees once two keypoints exchange their names: both are off.

    Returns the poses as they then are, which frames these are, and what is off.
    """
    square, frame = np.square(model.limit), np.arange(len(pose))
    best, least = np.zeros_like(pose), np.ones(len(pose))
    pair = np.full((len(pose), 2), -1)
    for one, other in _likely_pairs(pose, is_trusted, model):
        turned = _to_mean(_with_exchanged(pose, frame, one, other), is_trusted, model)
        distance = predictor.distances(turned - model.mean, is_trusted)
        left = np.where(is_trusted, distance / square, 0.0).max(1)
        is_better = (left < least) & is_trusted[frame, one] & is_trusted[frame, other]
        least[is_better], best[is_better] = left[is_better], turned[is_better]
        pair[is_better] = np.stack([one, other], 1)[is_better]
    is_clear = pair[:, 0] >= 0
    is_off = np.zeros(is_trusted.shape, bool)
    is_off[is_clear, pair[is_clear, 0]] = is_off[is_clear, pair[is_clear, 1]] = True
    return best, is_clear, is_off


def _likely_pairs(
    pose: np.ndarray, is_trusted: np.ndarray, model: PoseDistribution
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Propose pairs of keypoints of each frame, (frame,) and (frame,), likeliest first: with them
    exchanged, the pose lies closest to the mean."""
    variance = np.einsum("kdkd->k", model.covariance)
    pairs = np.array(list(combinations(range(pose.shape[1]), 2)))
    frame = np.arange(len(pose))
    cost = np.empty((len(pose), len(pairs)))
    for number, (one, other) in enumerate(pairs):
        turned = _to_mean(_with_exchanged(pose, frame, one, other), is_trusted, model)
        square = np.square(turned - model.mean).sum(-1) / variance
        cost[:, number] = np.where(is_trusted, square, 0.0).sum(1)
    likely = pairs[np.argsort(cost, axis=1, kind="stable")[:, :_LIKELY_PAIRS]]
    return [(likely[:, i, 0], likely[:, i, 1]) for i in range(likely.shape[1])]


def _with_exchanged(
    pose: np.ndarray, frame: np.ndarray, one: np.ndarray, other: np.ndarray
) -> np.ndarray:
    exchanged = pose.copy()
    exchanged[frame, one], exchanged[frame, other] = pose[frame, other], pose[frame, one]
    return exchanged


def _free(model: PoseDistribution) -> np.ndarray:
    """Covariance (coordinate, coordinate) of poses that may be anywhere, turned a bit."""
    n_points, n_space = model.mean.shape
    moved = np.tile(np.eye(n_space), (n_points, 1))
    free = moved @ moved.T
    if model.is_turning:
        turn = np.zeros(model.mean.shape)
        turn[:, 0], turn[:, 1] = -model.mean[:, 1], model.mean[:, 0]
        free += np.outer(turn, turn)
    size = n_points * n_space
    return model.covariance.reshape(size, size) + _FREE * free


def _to_mean(pose: np.ndarray, weight: np.ndarray, model: PoseDistribution) -> np.ndarray:
    """Poses moved and turned so that what has a weight lies closest to the mean.

    ``weight``: (frame, keypoint), of any size.
    """
    total = weight.sum(1)
    share = weight[..., None] / np.where(total > 0, total, 1.0)[:, None, None]
    centred = pose - (share * pose).sum(1, keepdims=True)
    shift = (share * model.mean).sum(1, keepdims=True)
    target = model.mean - shift
    if model.is_turning:
        x, y = centred[..., 0], centred[..., 1]
        cos = (share[..., 0] * (x * target[..., 0] + y * target[..., 1])).sum(1)
        sin = (share[..., 0] * (x * target[..., 1] - y * target[..., 0])).sum(1)
        centred = rotate(centred, np.arctan2(sin, cos))
    return centred + shift


def _best_angle(pose: np.ndarray, in_use: np.ndarray, model: PoseDistribution) -> np.ndarray:
    """Poses turned so that most of them lies close to the mean, whatever the rest does.

    By the best of some angles, then by weights that fall with the distance from the mean.
    """
    variance = np.einsum("kdkd->k", model.covariance)
    best, least = pose, np.full(len(pose), np.inf)
    angles = 2 * np.pi * np.arange(_ANGLES if model.is_turning else 1) / _ANGLES
    for angle in angles:
        turned = rotate(pose, np.full(len(pose), angle))
        gap = np.where(in_use[..., None], turned - model.mean, np.nan)
        shift = _median(gap)
        square = np.square(gap - shift).sum(-1) / variance
        cost = np.nansum(np.minimum(square, _WORST_SQUARE), axis=1)
        is_better = cost < least
        least = np.where(is_better, cost, least)
        best = np.where(is_better[:, None, None], turned - shift, best)
    for _ in range(_REFINEMENTS):
        square = np.square(best - model.mean).sum(-1) / variance
        best = _to_mean(best, in_use / (1 + square), model)
    return best


def _median(gap: np.ndarray) -> np.ndarray:
    """Median over the keypoints that are not NaN: (frame, 1, space)."""
    ordered = np.sort(gap, axis=1)  # NaN last
    n_kept = np.maximum(np.isfinite(gap[..., 0]).sum(1), 1)
    frame = np.arange(len(gap))
    middle = (ordered[frame, (n_kept - 1) // 2] + ordered[frame, n_kept // 2]) / 2
    return np.nan_to_num(middle)[:, None]


def _without_worst(
    gap: np.ndarray, in_use: np.ndarray, predictor: _Predictor, square: np.ndarray
) -> np.ndarray:
    """Mask of the keypoints that remain when the worst is left out until the others agree."""
    in_use = in_use.copy()
    most = np.minimum((in_use.sum(1) - 1) // 2, in_use.sum(1) - _FEWEST_KEPT)
    open_, n_gone = np.arange(len(in_use)), 0
    while open_.size:
        distance = predictor.distances(gap[open_], in_use[open_])
        excess = np.where(in_use[open_], distance / square, 0.0)
        is_bad = (excess.max(1) > 1) & (n_gone < most[open_])
        open_, excess, n_gone = open_[is_bad], excess[is_bad], n_gone + 1
        in_use[open_, excess.argmax(1)] = False
    return in_use


class _Others(NamedTuple):
    """Regression of each keypoint on some keypoints of the frame.

    Attributes
    ----------
    inverse : ndarray, (coordinate, coordinate)
        Of the covariance of those kept.
    own : ndarray, (keypoint, space, space)
        Precision of each kept one given the other kept ones, inverted.
    cross : ndarray, (coordinate, coordinate)
        Weights with which the kept ones predict those that left.
    left : ndarray, (keypoint, space, space)
        Precision of each of these, given the kept ones.
    """

    inverse: np.ndarray
    own: np.ndarray
    cross: np.ndarray
    left: np.ndarray

    @classmethod
    def of(cls, covariance: np.ndarray, pattern: np.ndarray, n_space: int) -> _Others:
        """Make the regression on the keypoints of a mask (keypoint,) bool."""
        blocks = np.arange(len(covariance)).reshape(-1, n_space)
        kept, gone = blocks[pattern].ravel(), blocks[~pattern].ravel()
        inverse = np.linalg.inv(covariance[np.ix_(kept, kept)])
        cross = covariance[np.ix_(gone, kept)] @ inverse
        left = covariance[np.ix_(gone, gone)] - cross @ covariance[np.ix_(kept, gone)]
        own = np.linalg.inv(_diagonal(inverse, n_space))
        return cls(inverse, own, cross, np.linalg.inv(_diagonal(left, n_space)))


class _Predictor:
    """Predictor of keypoints by the others: squared Mahalanobis distances."""

    def __init__(self, model: PoseDistribution) -> None:
        self._covariance = _free(model)
        self._n_space = model.mean.shape[1]
        self._found: dict[bytes, _Others] = {}

    def _others(self, pattern: np.ndarray) -> _Others:
        key = pattern.tobytes()
        found = self._found.get(key)
        if found is None:
            found = _Others.of(self._covariance, pattern, self._n_space)
            if len(self._found) < _PATTERNS_KEPT:
                self._found[key] = found
        return found

    def distances(self, gap: np.ndarray, in_use: np.ndarray) -> np.ndarray:
        """Distances of every keypoint given the others in use: (frame, keypoint).

        Parameters
        ----------
        gap : ndarray, (frame, keypoint, space)
            From the mean.
        in_use : ndarray, (frame, keypoint) bool
        """
        n_frames, n_points, n_space = gap.shape
        found = np.zeros((n_frames, n_points))
        for rows, pattern in _patterns(in_use):
            others = self._others(pattern)
            here = gap if len(rows) == n_frames else gap[rows]
            known = here[:, pattern].reshape(len(rows), -1)
            force = (known @ others.inverse).reshape(len(rows), -1, n_space)
            values = np.empty((len(rows), n_points))
            values[:, pattern] = _squares(force, others.own)
            if not pattern.all():
                expected = (known @ others.cross.T).reshape(len(rows), -1, n_space)
                values[:, ~pattern] = _squares(here[:, ~pattern] - expected, others.left)
            found[rows] = values
        return found


def _patterns(in_use: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Group frames (row,) that use the same keypoints (keypoint,)."""
    packed = np.packbits(in_use, axis=1)
    keys = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}")[:, 0]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(first)))
    for row, begin, end in zip(first, np.append(0, ends[:-1]), ends, strict=True):
        yield order[begin:end], in_use[row]


def _diagonal(matrix: np.ndarray, n_space: int) -> np.ndarray:
    """The blocks (keypoint, space, space) on the diagonal."""
    n_points = len(matrix) // n_space
    return np.einsum("kikj->kij", matrix.reshape(n_points, n_space, n_points, n_space))


def _squares(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Squares v' M v of vectors (frame, keypoint, space), matrix (keypoint, space, space)."""
    total = np.zeros(vectors.shape[:2])
    for i in range(vectors.shape[2]):
        for j in range(vectors.shape[2]):
            total += vectors[..., i] * vectors[..., j] * matrix[:, i, j]
    return total


# ------------------------------------------------------------------ learning what poses are like


def learn(
    pose: np.ndarray,
    is_trusted: np.ndarray,
    *,
    scale: float,
    smallest: float,
    is_turning: bool,
) -> PoseDistribution:
    """Fit a pose model to poses of which some keypoints are anywhere.

    Medians and winsorised moments to begin with; then, a few times, what the model so far finds
    off is taken for missing, and the moments are those that are expected of what is missing given
    the rest.

    Parameters
    ----------
    pose : ndarray, (frame, keypoint, space)
        In body lengths. With ``is_turning``, turned so that all look along +x, roughly.
    is_trusted : ndarray, (frame, keypoint) bool
    scale : float
        The limit of the distance of a keypoint is its median and this many median absolute
        deviations more, and half of it at least.
    smallest : float
        Deviation, in body lengths, below which nothing is off.
    """
    is_trusted = is_trusted & np.isfinite(pose).all(-1)
    pose = np.where(is_trusted[..., None], pose, 0.0)
    enough = is_trusted.sum(1) >= min(FEWEST_POINTS, pose.shape[1])
    pose, is_trusted = pose[enough], is_trusted[enough]
    model = _start(pose, is_trusted, smallest, is_turning)
    for _ in range(_ROUNDS):
        model = model._replace(limit=_limits(pose, is_trusted, model, scale))
        found = judge(pose, is_trusted, model)
        some = found.is_clear
        mean, covariance = _expected(found.turned[some], (is_trusted & ~found.is_off)[some], model)
        model = PoseDistribution(mean, _wider(covariance, smallest), model.limit, is_turning)
    return model._replace(limit=_limits(pose, is_trusted, model, scale))


def _start(
    pose: np.ndarray, is_trusted: np.ndarray, smallest: float, is_turning: bool
) -> PoseDistribution:
    n_points, n_space = pose.shape[1:]
    gap = np.where(is_trusted[..., None], pose, np.nan)
    gap = gap - _median(gap)
    mean = np.nan_to_num(np.nanmedian(gap, axis=0))
    identity = np.eye(n_points * n_space).reshape(n_points, n_space, n_points, n_space)
    model = PoseDistribution(mean, identity, np.full(n_points, np.inf), is_turning)
    for _ in range(2):
        turned = np.where(is_trusted[..., None], _to_mean(pose, is_trusted, model), np.nan)
        turned = turned - _median(turned - model.mean)
        model = model._replace(mean=np.nan_to_num(np.nanmedian(turned, axis=0)))
    gap = turned - model.mean
    deviation = _TO_DEVIATION * np.nanmedian(np.abs(gap), axis=0)
    gap = np.nan_to_num(np.clip(gap, -_WINSOR * deviation, _WINSOR * deviation))
    flat = gap.reshape(len(gap), -1)
    count = is_trusted.astype(float).T @ is_trusted
    each = np.repeat(np.repeat(count, n_space, 0), n_space, 1)
    covariance = flat.T @ flat / np.maximum(each, 1)
    values, vectors = np.linalg.eigh(covariance)  # pair by pair: not always positive
    covariance = vectors * np.maximum(values, 0) @ vectors.T
    return model._replace(covariance=_wider(covariance.reshape(identity.shape), smallest))


def _wider(covariance: np.ndarray, smallest: float) -> np.ndarray:
    n_points, n_space = covariance.shape[:2]
    size = n_points * n_space
    return covariance + (smallest**2 * np.eye(size)).reshape(covariance.shape)


def _limits(
    pose: np.ndarray, is_trusted: np.ndarray, model: PoseDistribution, scale: float
) -> np.ndarray:
    """Median of the distances of each keypoint, and ``scale`` deviations more."""
    turned = _to_mean(pose, is_trusted, model)
    distance = np.sqrt(_Predictor(model).distances(turned - model.mean, is_trusted))
    distance = np.where(is_trusted, distance, np.nan)
    seen = is_trusted.any(0)
    limit = np.full(pose.shape[1], np.inf)
    middle = np.nanmedian(distance[:, seen], axis=0)
    deviation = np.nanmedian(np.abs(distance[:, seen] - middle), axis=0)
    limit[seen] = np.maximum(middle + scale * deviation, _LEAST_LIMIT * scale)
    return limit


def _expected(
    turned: np.ndarray, in_use: np.ndarray, model: PoseDistribution
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of poses of which some keypoints are missing, these integrated out."""
    n_points, n_space = model.mean.shape
    size = n_points * n_space
    covariance = _free(model)
    blocks = np.arange(size).reshape(n_points, n_space)
    filled, extra = turned.copy(), np.zeros((size, size))
    centre = np.eye(size) - np.tile(np.eye(n_space), (n_points, n_points)) / n_points
    for rows, pattern in _patterns(in_use):
        if pattern.all():
            continue
        columns, others = blocks[pattern].ravel(), blocks[~pattern].ravel()
        gap = (turned[rows] - model.mean).reshape(len(rows), -1)
        inverse = np.linalg.inv(covariance[np.ix_(columns, columns)])
        cross = covariance[np.ix_(others, columns)] @ inverse
        left = covariance[np.ix_(others, others)] - cross @ covariance[np.ix_(columns, others)]
        lost = (gap[:, columns] @ cross.T).reshape(len(rows), -1, n_space)
        filled[np.ix_(rows, ~pattern)] = model.mean[~pattern] + lost
        one = np.zeros((size, size))
        one[np.ix_(others, others)] = left
        extra += len(rows) * one
    whole = np.ones(in_use.shape, bool)
    filled = _to_mean(filled, whole, model)
    flat = filled.reshape(len(filled), -1)
    mean = flat.mean(0)
    deviation = flat - mean
    found = (deviation.T @ deviation + centre @ extra @ centre) / len(flat)
    return mean.reshape(n_points, n_space), found.reshape(model.covariance.shape)
