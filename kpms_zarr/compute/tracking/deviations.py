"""Deviations of tracked keypoints from a local prediction, counted by confidence, out of core."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.mapreduce import BlockReader, Histogram
from kpms_zarr.store.core.blocks import Block

PSEUDOCOUNT = 1e-3
"""Added to confidences before their logarithm is taken, as a fit does by default."""
WEIGHTS = np.array([[1 / 2, 0, 0], [4 / 6, -1 / 6, 0], [15 / 20, -6 / 20, 1 / 20]])
"""Prediction of a position from those 1, 2 and 3 frames before and after it, (order, offset):
interpolation by a straight line, a cubic and a quintic (Lagrange), so that the deviation is the
second, fourth or sixth difference of the positions, times -1/2, 1/6 or -1/20."""
N_ORDERS, REACH = WEIGHTS.shape
_BIN_WIDTH, _FIRST_EDGE = 0.1, -3.0
N_BINS = 41
"""Bins of log10(confidence + pseudocount), a tenth wide from -3 on; the last holds larger ones."""
_VALUE_WIDTH, _VALUE_FIRST, _N_VALUES = 0.02, -20.0, 2000
_FIXED_POINT = 10**6


def bin_edges() -> np.ndarray:
    """Lower edges of the bins of log10(confidence + pseudocount), (bin,)."""
    return np.round(_FIRST_EDGE + _BIN_WIDTH * np.arange(N_BINS), 6)


def bin_of(log_confidence: np.ndarray) -> np.ndarray:
    """Bin of each log10(confidence + pseudocount), int64; any for NaN."""
    number = np.floor((np.nan_to_num(log_confidence) - _FIRST_EDGE) / _BIN_WIDTH)
    return np.clip(number, 0, N_BINS - 1).astype(np.int64)


class DeviationCounts(NamedTuple):
    """Counts of deviations, by whole numbers, so that any split of the frames gives the same.

    A keypoint in a frame counts when it and the same keypoint in the three frames before and after
    are there, and all of these are at least as confident, to within a bin.

    Attributes
    ----------
    size : Histogram
        Of the squared deviations, by order, keypoint, bin of the confidence and logarithm.
    neighbours : ndarray, (offset, keypoint, bin, bin) int64
        Neighbours by their offset, the bin of the keypoint, and their own.
    log_confidence : ndarray, (keypoint, bin) int64
        Sum of log10(confidence + pseudocount), in millionths.
    rated : ndarray, (2,) float64
        Smallest and largest confidence of all that is there; inf and -inf without any.
    """

    size: Histogram
    neighbours: np.ndarray
    log_confidence: np.ndarray
    rated: np.ndarray

    @classmethod
    def of_frames(
        cls, position: np.ndarray, confidence: np.ndarray, edge: int | None = None
    ) -> DeviationCounts:
        """Count the deviations of consecutive frames.

        Parameters
        ----------
        position : ndarray, (frame, keypoint, space)
            NaN = missing.
        confidence : ndarray, (frame, keypoint)
            NaN = not given: such a keypoint does not count.
        edge : int, optional
            Count only what takes frames before and from this one on.
        """
        n_keypoints = position.shape[1]
        position, rating = position.astype(np.float64), confidence.astype(np.float64)
        is_there = np.isfinite(position).all(-1) & np.isfinite(rating)
        log_rating = np.log10(np.where(is_there, np.maximum(rating, 0), 1) + PSEUDOCOUNT)
        bins = bin_of(log_rating)
        middle = np.arange(REACH, max(REACH, len(position) - REACH))
        if edge is not None:
            middle = middle[(middle - REACH < edge) & (edge <= middle + REACH)]
        counts = is_there[middle].copy()
        for offset in range(1, REACH + 1):
            for other in (middle - offset, middle + offset):
                counts &= is_there[other] & (bins[other] >= bins[middle])
        row, point = np.nonzero(counts)
        frame, own = middle[row], bins[middle[row], point]
        neighbours = np.zeros((REACH, n_keypoints, N_BINS, N_BINS), np.int64)
        sums = []
        for offset in range(1, REACH + 1):
            before, after = frame - offset, frame + offset
            sums.append(position[before, point] + position[after, point])
            for other in (before, after):
                place = (point * N_BINS + own) * N_BINS + bins[other, point]
                found = np.bincount(place, minlength=n_keypoints * N_BINS**2)
                neighbours[offset - 1] += found.reshape(n_keypoints, N_BINS, N_BINS)
        keys = []
        for order, weight in enumerate(WEIGHTS):
            predicted = sum(w * s for w, s in zip(weight, sums, strict=True))
            square = np.square(position[frame, point] - predicted).sum(-1)
            keys.append(_key(order, point, own, square, n_keypoints))
        millionths = np.rint(log_rating[frame, point] * _FIXED_POINT).astype(np.int64)
        log_confidence = np.zeros((n_keypoints, N_BINS), np.int64)
        np.add.at(log_confidence, (point, own), millionths)
        seen = rating[is_there] if edge is None else np.zeros(0)
        rated = np.array([seen.min(initial=np.inf), seen.max(initial=-np.inf)])
        return cls(Histogram.of_block(np.concatenate(keys)), neighbours, log_confidence, rated)

    def add(self, other: DeviationCounts) -> DeviationCounts:
        """Add the counts of both."""
        rated = np.array([min(self.rated[0], other.rated[0]), max(self.rated[1], other.rated[1])])
        return DeviationCounts(
            self.size.add(other.size),
            self.neighbours + other.neighbours,
            self.log_confidence + other.log_confidence,
            rated,
        )

    @property
    def number(self) -> np.ndarray:
        """Deviations by keypoint and bin, (keypoint, bin) int64."""
        return np.asarray(self.neighbours[0].sum(-1) // 2)

    def medians(self) -> np.ndarray:
        """Median squared deviation, (order, keypoint, bin); NaN without, 0 below 1e-20."""
        n_keypoints = self.neighbours.shape[1]
        found = np.full((N_ORDERS * n_keypoints * N_BINS,), np.nan)
        group, value = np.divmod(self.size.key, _N_VALUES)
        places, first = np.unique(group, return_index=True)
        for place, start, stop in zip(places, first, np.append(first, len(group))[1:], strict=True):
            number = np.cumsum(self.size.number[start:stop])
            half = number[-1] / 2
            at = int(np.searchsorted(number, half))
            below = number[at - 1] if at else 0
            inside = (half - below) / (number[at] - below)
            step = value[start + at]
            power = _VALUE_FIRST + _VALUE_WIDTH * (step + inside)
            found[place] = 10**power if step else 0.0
        return found.reshape(N_ORDERS, n_keypoints, N_BINS)


def _key(
    order: int, point: np.ndarray, own: np.ndarray, square: np.ndarray, n_keypoints: int
) -> np.ndarray:
    with np.errstate(divide="ignore"):
        power = (np.log10(square) - _VALUE_FIRST) / _VALUE_WIDTH
    step = np.clip(np.nan_to_num(power, neginf=0), 0, _N_VALUES - 1).astype(np.int64)
    return ((order * n_keypoints + point) * N_BINS + own) * _N_VALUES + step


class _Ends(NamedTuple):
    """First and last frames of some consecutive ones: at most twice the reach."""

    first: tuple[np.ndarray, np.ndarray]
    last: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, position: np.ndarray, confidence: np.ndarray) -> _Ends:
        both = (position, confidence)
        first, last = (
            tuple(np.array(values[part]) for values in both)
            for part in (slice(2 * REACH), slice(-2 * REACH, None))
        )
        return cls((first[0], first[1]), (last[0], last[1]))


class Deviations(NamedTuple):
    """Deviations of blocks of sessions, those across the edges of blocks included.

    Attributes
    ----------
    counts : DeviationCounts
    ends : dict
        By index of the session.
    """

    counts: DeviationCounts
    ends: dict[int, _Ends]

    @classmethod
    def of_block(cls, session: int, position: np.ndarray, confidence: np.ndarray) -> Deviations:
        """Deviations within a block: (frame, keypoint, space) and (frame, keypoint)."""
        counts = DeviationCounts.of_frames(position, confidence)
        return cls(counts, {session: _Ends.of(position, confidence)})

    def add(self, other: Deviations) -> Deviations:
        """Add those of later blocks; of a session in both, the blocks are neighbours."""
        counts, ends = self.counts.add(other.counts), {**self.ends, **other.ends}
        for session in self.ends.keys() & other.ends.keys():
            before, after = self.ends[session], other.ends[session]
            edge = len(before.last[0])
            frames = [np.concatenate(both) for both in zip(before.last, after.first, strict=True)]
            counts = counts.add(DeviationCounts.of_frames(frames[0], frames[1], edge))
            ends[session] = _joined(before, after)
        return Deviations(counts, ends)


def _joined(before: _Ends, after: _Ends) -> _Ends:
    first = [np.concatenate(both) for both in zip(before.first, after.first, strict=True)]
    last = [np.concatenate(both) for both in zip(before.last, after.last, strict=True)]
    return _Ends(
        (first[0][: 2 * REACH], first[1][: 2 * REACH]),
        (last[0][-2 * REACH :], last[1][-2 * REACH :]),
    )


def deviations_of(reader: BlockReader, block: Block) -> Deviations:
    """Read a block and count its deviations."""
    return Deviations.of_block(block.session, *reader.tracked(block))
