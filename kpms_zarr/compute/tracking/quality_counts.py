"""Counts of badly tracked frames that add up to the same for any split of the frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.mapreduce import Histogram
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.study.tracking import CONFIDENCE_EDGES, PROBLEMS, STRETCH_SECONDS


class MissingRuns(NamedTuple):
    """Runs of missing frames of consecutive frames; adds up across borders.

    Attributes
    ----------
    prefix, suffix, longest : ndarray, (keypoint,) int64
        Missing run at the beginning, at the end, and the longest one anywhere.
    """

    n_frames: int
    prefix: np.ndarray
    suffix: np.ndarray
    longest: np.ndarray

    @classmethod
    def of_block(cls, is_missing: np.ndarray) -> MissingRuns:
        """Runs of a block: (frame, keypoint) bool."""
        n_frames = len(is_missing)
        frame = np.arange(n_frames)[:, None]
        last_seen = np.maximum.accumulate(np.where(is_missing, -1, frame), axis=0)
        run = frame - last_seen
        prefix = np.where(is_missing.all(0), n_frames, (~is_missing).argmax(0))
        return cls(n_frames, prefix, run[-1], run.max(0))

    def add(self, after: MissingRuns) -> MissingRuns:
        """Runs of these frames and those that follow directly."""
        whole = self.prefix == self.n_frames
        whole_after = after.prefix == after.n_frames
        joined = self.suffix + after.prefix
        return MissingRuns(
            self.n_frames + after.n_frames,
            np.where(whole, joined, self.prefix),
            np.where(whole_after, joined, after.suffix),
            np.maximum(np.maximum(self.longest, after.longest), joined),
        )


class QualityCounts(NamedTuple):
    """Exact counts of consecutive frames of one session.

    Attributes
    ----------
    n_present : ndarray, (keypoint,) int64
        Frames in which it is not missing.
    n_rated, n_low : ndarray, (keypoint,) int64
        Those with a confidence, and of these the ones in which it is below the threshold.
    by_confidence : ndarray, (keypoint, bin) int64
        Those with a confidence, by the bins of ``CONFIDENCE_EDGES``.
    """

    gaps: MissingRuns
    n_present: np.ndarray
    n_rated: np.ndarray
    n_low: np.ndarray
    by_confidence: np.ndarray

    @classmethod
    def of_block(
        cls, position: np.ndarray, confidence: np.ndarray, threshold: float
    ) -> QualityCounts:
        """Counts of a block: position (frame, keypoint, space), confidence (frame, keypoint)."""
        missing = is_missing(position, confidence)
        rating = np.where(missing, np.float32(np.nan), confidence)
        return cls(
            MissingRuns.of_block(missing),
            (~missing).sum(0),
            (~np.isnan(rating)).sum(0),
            (rating < threshold).sum(0),
            confidence_histogram(rating),
        )

    def add(self, after: QualityCounts) -> QualityCounts:
        """Counts of these frames and those that follow directly."""
        sums = (a + b for a, b in zip(self[1:], after[1:], strict=True))
        return QualityCounts(self.gaps.add(after.gaps), *sums)


def confidence_histogram(confidence: np.ndarray) -> np.ndarray:
    """Histogram of frames by confidence.

    Edges are rounded to float32 as the confidences are, so that a confidence of 0.9 lies above
    the edge 0.9, and bins below a threshold hold what :class:`QualityCounts` calls low.

    Parameters
    ----------
    confidence : ndarray, (frame, keypoint) float32
        NaN is not counted.

    Returns
    -------
    ndarray, (keypoint, bin) int64
        Bin ``b`` holds ``edges[b] <= confidence < edges[b + 1]`` of ``CONFIDENCE_EDGES``, the
        first one smaller ones too, the last one larger ones.
    """
    inner = CONFIDENCE_EDGES[1:-1].astype(np.float32)
    n_keypoints, n_bins = confidence.shape[1], len(inner) + 1
    bin_of = np.searchsorted(inner, confidence, side="right") + n_bins * np.arange(n_keypoints)
    kept = bin_of[~np.isnan(confidence)]
    return np.bincount(kept, minlength=n_keypoints * n_bins).reshape(n_keypoints, n_bins)


# ------------------------------------------------------------------ where it is worst


def frames_per_second(session: Session) -> int:
    """Frames in the bins that stretches are made of: whole frames, about a second."""
    return max(1, round(session.fps)) if np.isfinite(session.fps) else 1


def bad_seconds(is_bad: np.ndarray, problem: str, first_frame: int, bin_frames: int) -> Histogram:
    """Count bad frames second by second.

    Parameters
    ----------
    is_bad : ndarray, (frame, keypoint) bool
    problem : str
        One of ``PROBLEMS``.
    first_frame : int
        Where the frames begin in their session.
    bin_frames : int
        Result of :func:`frames_per_second`.

    Returns
    -------
    Histogram
        Keys are ``(second * keypoints + keypoint) * problems + problem``.
    """
    n_frames, n_keypoints = is_bad.shape
    second = np.arange(first_frame // bin_frames, (first_frame + n_frames - 1) // bin_frames + 1)
    begin = np.maximum(second * bin_frames - first_frame, 0)
    number = np.add.reduceat(is_bad, begin, axis=0, dtype=np.int64)
    at, point = np.nonzero(number)
    key = (second[at] * n_keypoints + point) * len(PROBLEMS) + PROBLEMS.index(problem)
    return Histogram(key, number[at, point])


def worst_start(histogram: Histogram, session: Session, n_keypoints: int) -> np.ndarray:
    """Begin of the stretches with most bad frames, the earliest of equals.

    Parameters
    ----------
    histogram : Histogram
        Sum of the results of :func:`bad_seconds` over all frames of the session.

    Returns
    -------
    ndarray, (keypoint, problem) int64
        First frame of the stretch; -1 = no frame has the problem.
    """
    bin_frames = frames_per_second(session)
    n_bins = -(-session.n_frames // bin_frames)
    width = min(STRETCH_SECONDS, n_bins)
    start = np.full(n_keypoints * len(PROBLEMS), -1, dtype=np.int64)
    second, column = np.divmod(histogram.key, len(start))
    order = np.argsort(column, kind="stable")
    found, first = np.unique(column[order], return_index=True)
    # One after another: all at once would be large for recordings of days.
    for place, rows in zip(found, np.split(order, first)[1:], strict=True):
        total = np.zeros(n_bins + 1, dtype=np.int64)
        total[second[rows] + 1] = histogram.number[rows]
        np.cumsum(total, out=total)
        start[place] = bin_frames * (total[width:] - total[:-width]).argmax()
    return start.reshape(n_keypoints, len(PROBLEMS))
