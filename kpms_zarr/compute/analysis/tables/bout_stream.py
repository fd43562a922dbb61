"""Frames and bouts of a session, block by block: the blocks leave no trace in what is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession
from kpms_zarr.store.run_lengths import run_starts
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.store.study.timestamps import SessionTimes


class FrameBlock(NamedTuple):
    """Consecutive frames of one session.

    Attributes
    ----------
    start : int
        Number of the first.
    interval : ndarray, (frame,) int64
        Interval of the epochs of the session; -1 = in none.
    epoch : ndarray, (frame,) int64
        Number of the epoch in its session; -1 = in none.
    syllable : ndarray, (frame,) int64
        -1 = none.
    certainty : ndarray or None, (frame,) float64
        NaN = not known.
    centroid : ndarray or None, (frame, space) float64
        In units of position.
    heading : ndarray or None, (frame,) float64
        In rad.
    speed : ndarray or None, (frame,) float64
        Length of the way from the frame before, per second between the two: units of position / s;
        NaN in the first frame of a session and where a position is not known. In the model it is
        the syllable of a frame that leads there from the frame before (model.md, 2), and that has
        the speed.
    turning : ndarray or None, (frame,) float64
        Change of heading from the frame before, from -pi to before pi, in rad; NaN as for speed.
    step : ndarray or None, (frame,) float64
        Time from the frame before, in units of 1 / fps; NaN in the first frame of a session; None
        without timestamps, where all are 1.
    """

    start: int
    interval: np.ndarray
    epoch: np.ndarray
    syllable: np.ndarray
    certainty: np.ndarray | None
    centroid: np.ndarray | None
    heading: np.ndarray | None
    speed: np.ndarray | None
    turning: np.ndarray | None
    step: np.ndarray | None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.syllable)


class EpochBouts(NamedTuple):
    """Bouts of one session, in order: runs of one syllable, cut where an interval ends.

    Attributes
    ----------
    epoch : ndarray, (bout,) int64
        Number of the epoch in its session.
    syllable : ndarray, (bout,) int64
        Never -1.
    start, stop : ndarray, (bout,) int64
        First frame and the frame after the last one.
    previous, following : ndarray, (bout,) int64
        Syllables of the bouts that it touches in the same interval; -1 = none: an edge, or frames
        without a label.
    certainty : ndarray, (bout,) float64
        Mean over the frames in which it is known; NaN = in none.
    ticks : ndarray, (bout,) int64
        Duration in ticks of the times of the session: frames, or with timestamps microseconds.
    """

    epoch: np.ndarray
    syllable: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    previous: np.ndarray
    following: np.ndarray
    certainty: np.ndarray
    ticks: np.ndarray


def session_blocks(
    labels: PosedLabels, one: EpochSession, block_frames: int = BLOCK_FRAMES
) -> Iterator[tuple[FrameBlock, EpochBouts]]:
    """Read a session in blocks: their frames, and the bouts that end in them.

    Parameters
    ----------
    labels : PosedLabels
    one : EpochSession
    block_frames : int
        Frames that are read at once.

    Yields
    ------
    frames : FrameBlock
        Of the last block the bouts are those that end in it, and at the end of the session.
    bouts : EpochBouts
    """
    session, finder = one.session, BoutFinder(one.epochs, labels.n_states, one.times)
    for start in range(0, session.n_frames, block_frames):
        stop = min(start + block_frames, session.n_frames)
        frames = _frames(labels, one, start, stop)
        yield frames, finder.add(frames, is_last=stop == session.n_frames)


def session_bouts(
    labels: PosedLabels, one: EpochSession, block_frames: int = BLOCK_FRAMES
) -> Iterator[EpochBouts]:
    """Read the bouts of a session from its labels alone, those that end in a block at once."""
    session, finder = one.session, BoutFinder(one.epochs, labels.n_states, one.times)
    for start in range(0, session.n_frames, block_frames):
        stop = min(start + block_frames, session.n_frames)
        frames = FrameBlock(start, *_labelled(labels, one, start, stop), *[None] * 6)
        yield finder.add(frames, is_last=stop == session.n_frames)


def _labelled(
    labels: PosedLabels, one: EpochSession, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interval, epoch and syllable of some frames, (frame,) int64 each."""
    interval = one.epochs.at(start, stop)
    epoch = np.where(interval >= 0, one.epochs.epoch[interval], -1)
    return interval, epoch, labels.syllable(one.session.index, start, stop).astype(np.int64)


def _frames(labels: PosedLabels, one: EpochSession, start: int, stop: int) -> FrameBlock:
    row = one.session.index
    certainty = labels.certainty(row, start, stop)
    certainty = None if certainty is None else certainty.astype(np.float64)
    centroid, speed = speeds(labels, row, one.times, start, stop)
    heading, turning = turnings(labels, row, start, stop)
    return FrameBlock(
        start,
        *_labelled(labels, one, start, stop),
        certainty,
        centroid,
        heading,
        speed,
        turning,
        one.times.steps(start, stop),
    )


def speeds(
    labels: PosedLabels, row: int, times: SessionTimes, start: int, stop: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Centroid (frame, space) and speed (frame,) of some frames, see :class:`FrameBlock`.

    Parameters
    ----------
    labels : PosedLabels
    row : int
        Of the session in the labels.
    times : SessionTimes
        Of the frames of the session.
    start, stop : int
    """
    before = max(0, start - 1)
    centroid = labels.centroid(row, before, stop)
    if centroid is None:
        return None, None
    centroid = centroid.astype(np.float64)
    step = np.diff(centroid, axis=0)
    square = step[:, 0] ** 2
    for axis in range(1, step.shape[1]):
        square += step[:, axis] ** 2
    speed, steps = _behind(np.sqrt(square) * times.fps, start), times.steps(start, stop)
    return centroid[start - before :], speed if steps is None else speed / steps


def turnings(
    labels: PosedLabels, row: int, start: int, stop: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Heading and its change of some frames, (frame,) each; see :func:`speeds`."""
    before = max(0, start - 1)
    heading = labels.heading(row, before, stop)
    if heading is None:
        return None, None
    heading = heading.astype(np.float64)
    return heading[start - before :], _behind(wrapped(np.diff(heading)), start)


def _behind(steps: np.ndarray, start: int) -> np.ndarray:
    """Values of the frames that steps lead to: NaN for the first frame of a session."""
    return steps if start else np.append(np.nan, steps)


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Wrap angles in rad to -pi <= angle < pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


class BoutFinder:
    """Finds the bouts of a session in blocks of its frames.

    Parameters
    ----------
    epochs : SessionEpochs
    n_states : int
    times : SessionTimes
    """

    def __init__(self, epochs: SessionEpochs, n_states: int, times: SessionTimes) -> None:
        self._epoch_of, self._n_states, self._times = epochs.epoch, max(1, n_states), times
        self._before = -1  # key of the run before the open one
        self._open: tuple[int, int, float, int] | None = None

    def add(self, frames: FrameBlock, *, is_last: bool) -> EpochBouts:
        """Find the bouts that end in the frames behind those before."""
        is_in = (frames.interval >= 0) & (frames.syllable >= 0)
        key = np.where(is_in, frames.interval * self._n_states + frames.syllable, -1)
        first = run_starts(key)
        start, key_of_run = frames.start + first, key[first]
        total, known = np.zeros(len(first)), np.zeros(len(first), np.int64)
        if self._open is not None:
            opened, since, *sums = self._open
            if opened == key_of_run[0]:
                start[0], total[0], known[0] = since, *sums
            else:
                key_of_run, start = np.append(opened, key_of_run), np.append(since, start)
                total, known = np.append(sums[0], total), np.append(sums[1], known)
        self._add_certainties(frames, first, total, known)
        stop = np.append(start[1:], frames.start + frames.n_frames)
        before = np.append(self._before, key_of_run[:-1])
        after = np.append(key_of_run[1:], -1)
        n_done = len(key_of_run) - (not is_last)
        self._open = (
            int(key_of_run[-1]), int(start[-1]), float(total[-1]), int(known[-1]),
        )  # fmt: skip
        self._before = int(before[-1])
        done = np.flatnonzero(key_of_run[:n_done] >= 0)
        with np.errstate(invalid="ignore"):
            certainty = total[done] / known[done]
        interval = key_of_run[done] // self._n_states
        return EpochBouts(
            self._epoch_of[interval],
            key_of_run[done] % self._n_states,
            start[done],
            stop[done],
            self._touching(before[done], interval),
            self._touching(after[done], interval),
            certainty,
            self._times.ticks(start[done], stop[done]),
        )

    def _add_certainties(
        self, frames: FrameBlock, first: np.ndarray, total: np.ndarray, known: np.ndarray
    ) -> None:
        """Add certainties to the sums of the last runs, one frame after the other."""
        if frames.certainty is None:
            return
        length = np.diff(first, append=frames.n_frames)
        run = np.repeat(np.arange(len(total) - len(first), len(total)), length)
        is_known = np.isfinite(frames.certainty)
        # In the order of the frames, with the sum of the block before in front.
        np.add.at(total, run[is_known], frames.certainty[is_known])
        np.add.at(known, run[is_known], 1)

    def _touching(self, key: np.ndarray, interval: np.ndarray) -> np.ndarray:
        is_same = (key >= 0) & (key // self._n_states == interval)
        return np.where(is_same, key % self._n_states, -1)
