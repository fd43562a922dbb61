"""Change score: how many coordinates of the pose change their velocity at once, and its peaks.

After the change points of Wiltschko et al. (2015, *Neuron* 88:1121: filtered derivative of many
dimensions, counted) and Weinreb et al. (2024, *Nature Methods* 21:1329, Methods: keypoints in
egocentric coordinates against data whose keypoints are shifted in time); what is counted, and what
shifted data are, is defined here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from kpms_zarr.compute.mapreduce import Histogram

BINS = 64
"""Bins of a height of 1 in histograms of peaks."""
LOCAL_WINDOWS = 15
"""Windows before and after a frame whose changes say what is usual there, and by which keypoints
are shifted against each other at most."""
_FEWEST_SEEN = 0.5
"""Share of the frames of each of the three averages, and share of the coordinates."""
_FEWEST_LOCAL = 0.1
"""Share of the frames around that must be known."""
_SMALLEST_SHARE = 1e-3
"""Of the largest variance: directions that vary less, such as the centre of the pose, are none."""
_SMALLEST_CHANGE = 1e-6
"""Of the size of the pose: less is rounding."""
_USUAL = 0.6759782
"""(mean of the root of the absolute value of a standard normal variable) squared."""


class Window(NamedTuple):
    """Window of the averages that are compared.

    Attributes
    ----------
    half : int
        An average is of ``2 half + 1`` frames.
    """

    half: int

    @classmethod
    def of(cls, milliseconds: float, fps: float) -> Window:
        """Window of a duration, in an odd number of frames."""
        return cls(max(0, round((milliseconds / 1000 * fps - 1) / 2)))

    @property
    def n_frames(self) -> int:
        """Frames of an average."""
        return 2 * self.half + 1

    @property
    def margin(self) -> int:
        """Frames before and after a frame that its change depends on."""
        return self.n_frames + self.half

    @property
    def reach(self) -> int:
        """Frames before and after a frame that say what is usual there."""
        return LOCAL_WINDOWS * self.n_frames


def change_of(pose: np.ndarray, valid: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Change of the mean velocity of each keypoint, from the window before a frame to that after.

    ``s(t + w) - 2 s(t) + s(t - w)`` of the pose ``s`` averaged over ``w`` frames.

    Parameters
    ----------
    pose : ndarray, (margin + frame + margin, keypoint, space)
        In egocentric coordinates.
    valid : ndarray, (margin + frame + margin, keypoint) bool
        Whether a keypoint was observed.

    Returns
    -------
    change : ndarray, (frame, keypoint * space)
        In units of position per window; 0 where it is not known.
    is_known : ndarray, (frame, keypoint * space) bool
        Whether at least half of the frames of each of the three averages were observed.
    """
    w = window.n_frames
    n = len(pose) - 2 * window.margin
    total, seen = np.zeros_like(pose[: n + 2 * w]), np.zeros(valid[: n + 2 * w].shape)
    for shift in range(w):  # one after the other: the same bits however a session is cut
        total = total + pose[shift : shift + n + 2 * w]
        seen = seen + valid[shift : shift + n + 2 * w]
    mean = total / w
    step = mean[2 * w :] - 2 * mean[w : w + n] + mean[:n]
    fewest = np.minimum(np.minimum(seen[2 * w :], seen[w : w + n]), seen[:n])
    is_known = np.repeat(fewest >= _FEWEST_SEEN * w, pose.shape[2], axis=1)
    size = np.sqrt(np.square(pose[window.margin : window.margin + n]).mean((1, 2)))[:, None]
    change = step.reshape(n, pose.shape[1] * pose.shape[2])
    change = np.where(np.abs(change) > _SMALLEST_CHANGE * size, change, 0.0)
    is_known &= np.isfinite(change)
    return np.where(is_known, change, 0.0), is_known


# ------------------------------------------------------------------ coordinates made uncorrelated


@dataclass(frozen=True)
class ChangeSums:
    """Sums over frames of products of changes, each frame divided by its size; they add up.

    The size of a frame is the root mean square of its changes as the last map has made them, so
    that no tracking error, and no frame in which much happens, counts for more than others (steps
    of the estimator of Tyler 1987, Ann Stat 15:234; the first one, without a map, is a spatial
    sign covariance).

    Attributes
    ----------
    product, number : ndarray, (coordinate, coordinate)
        Sums, and frames in which both were known.
    """

    product: np.ndarray
    number: np.ndarray

    @classmethod
    def of_block(
        cls, change: np.ndarray, is_known: np.ndarray, last: Whitening | None = None
    ) -> ChangeSums:
        """Add up the changes of some frames, (frame, coordinate); 0 where they are not known."""
        n_known = np.maximum(1, is_known.sum(1, keepdims=True))
        mapped = change if last is None else change @ last.weight
        size = np.sqrt(np.square(mapped).sum(1, keepdims=True) / n_known)
        moves = size > 0
        unit = np.where(moves, change / np.where(moves, size, 1.0), 0.0)
        counted = (is_known & moves).astype(np.float64)
        return cls(unit.T @ unit, counted.T @ counted)

    def plus(self, other: ChangeSums) -> ChangeSums:
        """Add the sums of both."""
        return ChangeSums(self.product + other.product, self.number + other.number)


@dataclass(frozen=True)
class Whitening:
    """Linear map that makes the changes of coordinates uncorrelated, each as near to itself as can.

    What moves several keypoints by itself, as the bones between them, tracking errors of those of
    the heading, and the subtraction of the centre, is correlated in all frames and no sign of a
    change of behaviour. Of all such maps this one (ZCA: Kessy, Lewin and Strimmer 2018, Am Stat
    72:309) changes the coordinates least, so that an error of one keypoint stays with it.

    Attributes
    ----------
    weight : ndarray, (coordinate, kept)
    kept : ndarray, (kept,) int
        Coordinates that move.
    n_directions : int
        In which the pose changes at all.
    spread : float
        Variance of the change score of uncorrelated changes over that of independent coordinates;
        1 where there are as many directions as coordinates.
    """

    weight: np.ndarray
    kept: np.ndarray
    n_directions: int
    spread: float

    @classmethod
    def of(cls, sums: ChangeSums) -> Whitening:
        """Find the map."""
        matrix = sums.product / np.maximum(1, sums.number)
        value, vector = np.linalg.eigh(matrix)
        is_one = value > max(_SMALLEST_SHARE * value[-1], 0)
        if not is_one.any():
            return cls(np.zeros((len(matrix), 0)), np.zeros(0, np.int64), 0, 1.0)
        value, vector = value[is_one], vector[:, is_one]
        # Coordinates are as many as ever; what is left of their correlation is that of fewer
        # directions.
        left = vector @ vector.T
        size = np.sqrt(np.diag(left))
        kept = np.flatnonzero(size > _SMALLEST_SHARE)
        correlation = left[np.ix_(kept, kept)] / np.outer(size[kept], size[kept])
        spread = float(np.square(correlation).sum() / len(kept))
        weight = (vector / np.sqrt(value)) @ vector[kept].T
        return cls(weight, kept, len(value), spread)


# ------------------------------------------------------------------ against what is usual


def shares_of(size: np.ndarray, window: Window) -> np.ndarray:
    """Share of usual changes that are smaller: (frame, coordinate), 0 to 1.

    Usual are the changes of the coordinate from :data:`LOCAL_WINDOWS` windows before to as many
    after the frame, the near ones more than the far, so that rest and activity have their change
    points each; their share is that of normal changes of the same size, ``(mean of the root)^2``,
    which neither tracking errors nor frames without any change govern. Bounded, so that several
    coordinates must change together.

    Parameters
    ----------
    size : ndarray, (frame, coordinate)
        Of the changes; NaN = not known. The first frame begins a window of its session.

    Returns
    -------
    ndarray, (frame, coordinate)
        NaN = not known.
    """
    w, n = window.n_frames, len(size)
    n_bins = -(-n // w)
    known = np.isfinite(size)
    root, there = np.sqrt(np.where(known, size, 0.0)), known.astype(np.float64)
    pad = ((LOCAL_WINDOWS * w, (n_bins + LOCAL_WINDOWS) * w - n), (0, 0))
    total, number = (_sums(np.pad(values, pad), w, n_bins) for values in (root, there))
    most = (2 * (LOCAL_WINDOWS // 2) + 1) * (2 * (LOCAL_WINDOWS - LOCAL_WINDOWS // 2) + 1) * w
    enough = number >= _FEWEST_LOCAL * most
    usual = np.square(np.where(enough, total, np.nan) / np.maximum(number, 1))
    usual = np.repeat(np.where(usual > 0, usual, np.nan), w, axis=0)[:n]
    return np.asarray(erf(size / usual * (_USUAL / np.sqrt(2))))


def _sums(values: np.ndarray, w: int, n_bins: int) -> np.ndarray:
    """Sums of the bins of a window each and of their neighbours, in a fixed order.

    Neighbours weigh less the further away they are: where they all weighed alike, intervals of
    just more than their reach, at which one burst no longer hides the next, would be the commonest.
    """
    bins = values.reshape(-1, w, values.shape[1])
    one = np.zeros_like(bins[:, 0])
    for at in range(w):
        one = one + bins[:, at]
    for reach in (LOCAL_WINDOWS // 2, LOCAL_WINDOWS - LOCAL_WINDOWS // 2):
        n = len(one) - 2 * reach
        total = np.zeros_like(one[:n])
        for at in range(2 * reach + 1):
            total = total + one[at : at + n]
        one = total
    return one


def score_of(shares: np.ndarray, lags: np.ndarray, first: int, n_frames: int) -> np.ndarray:
    """Change score of frames: the mean share over coordinates, in its standard deviations.

    ``sqrt(12 n) (mean - 1/2)`` of the ``n`` coordinates that are known: 0 on average and 1 in
    standard deviation where changes are normal and independent.

    Parameters
    ----------
    shares : ndarray, (frame, coordinate)
        NaN = not known.
    lags : ndarray, (coordinate,) int
        Frames by which each coordinate is late; 0 for the data as they are, else the same for
        those of a keypoint.
    first, n_frames : int
        Frames of which the score is wanted; the others are there for the lags.

    Returns
    -------
    ndarray, (frame,)
        NaN where fewer than half of the coordinates that ever move are known.
    """
    total, number = np.zeros(n_frames), np.zeros(n_frames)
    for coordinate, lag in enumerate(lags.tolist()):
        part = shares[first - lag : first - lag + n_frames, coordinate]
        known = np.isfinite(part)
        total = total + np.where(known, part, 0.0)
        number = number + known
    enough = number >= np.maximum(1, _FEWEST_SEEN * shares.shape[1])
    n = np.maximum(number, 1)
    return np.where(enough, np.sqrt(12 * n) * (total / n - 0.5), np.nan)


def random_lags(
    rng: np.random.Generator, n_copies: int, n_keypoints: int, window: Window
) -> np.ndarray:
    """Draw lags of shifted data, (copy, keypoint): up to :attr:`Window.reach` either way.

    What each keypoint does stays as it is, also how active it is around a frame; that several do
    it at once is chance. Lags within a few windows, not of the whole session: coordinates of an
    animal that rests and runs would else be at rest and running each at its own time, and every
    frame in which all of it runs would pass for a change.
    """
    return rng.integers(-window.reach, window.reach + 1, (n_copies, n_keypoints))


# ------------------------------------------------------------------ peaks


def peaks_of(score: np.ndarray, window: Window) -> np.ndarray:
    """Whether a frame has the highest score within a window on either side.

    Parameters
    ----------
    score : ndarray, (window + frame + window,)
        NaN = lower than any.

    Returns
    -------
    ndarray, (frame,) bool
        Of equals the first.
    """
    w = window.n_frames
    values = np.where(np.isnan(score), -np.inf, score)
    middle = values[w : len(values) - w]
    found = np.isfinite(middle)
    for shift in range(1, w + 1):
        found &= middle > values[w - shift : len(values) - w - shift]
        found &= middle >= values[w + shift : len(values) - w + shift]
    return found


def heights(score: np.ndarray) -> Histogram:
    """Histogram of the heights of peaks, in bins of 1 / 64, by their lower edge."""
    return Histogram.of_block(np.floor(BINS * score).astype(np.int64))


def threshold_of(observed: Histogram, null: Histogram, n_copies: int, false_rate: float) -> float:
    """Lowest height from which on at most a share of the peaks is expected by chance.

    The share is that of the peaks of shifted data, per copy of the data, over the peaks of the
    data (false discovery rate; +1 where there are few: Phipson and Smyth, 2010).

    Returns
    -------
    float
        Infinity where there is none.
    """
    keys = observed.key
    real, above = _above(observed, null)
    is_low = (above + 1) / n_copies <= false_rate * real
    return float(keys[is_low][0] / BINS) if is_low.any() else float("inf")


def excess_of(observed: Histogram, null: Histogram, n_copies: int) -> int:
    """Peaks of the data beyond those of shifted data, from the height on where they are most.

    At least as many peaks are no chance, whether or not it can be said which.
    """
    real, above = _above(observed, null)
    return int(max(0.0, np.max(real - (above + 1) / n_copies, initial=0.0)))


def _above(observed: Histogram, null: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Peaks of the data, and of all copies, that are as high as each height of the data."""
    real = np.cumsum(observed.number[::-1])[::-1]
    first = np.searchsorted(null.key, observed.key)
    return real, np.append(np.cumsum(null.number[::-1])[::-1], 0)[first]
