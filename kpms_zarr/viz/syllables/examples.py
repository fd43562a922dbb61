"""Example bouts of syllables: found by reading some of the labels, and their aligned poses."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import POSE_BY_FRAME, OpenModel

_MOST_BLOCKS = 64
"""Blocks of labels that are read at most: 8 MB."""
_AT_ONCE = 8
_KEPT_CHUNKS = 64
"""Of poses: about 60 MB."""
_ENOUGH_SESSIONS = 8
"""Examples from so many sessions are a good mixture."""


@dataclass(frozen=True, order=True)
class Example:
    """A bout of a syllable.

    Attributes
    ----------
    session : Session
        ``index`` is the row of the labels.
    onset, stop : int
        Frames of the session; ``stop`` is the first one after the bout.
    """

    session: Session
    onset: int
    stop: int

    @property
    def seconds(self) -> float:
        """Duration in s."""
        return (self.stop - self.onset) / self.session.fps


def examples_in(
    labels: xr.Dataset,
    *,
    syllables: Sequence[int],
    per_syllable: int = 20,
    before: float = 0.5,
    after: float = 1.5,
    min_duration: float = 0.1,
    seed: int = 0,
) -> dict[int, tuple[Example, ...]]:
    """Example bouts of syllables, spread over the sessions.

    At most 64 blocks of labels are read, in a random order that goes through the sessions in
    turn; of rare syllables there may be fewer examples than asked for, or none.

    Parameters
    ----------
    per_syllable : int
        At most so many examples of each.
    before, after : float
        In s; the frames from ``before`` the onset to ``after`` it lie inside the session.
    min_duration : float
        In s; shorter bouts are no examples.
    seed : int
        The same seed finds the same examples.

    Returns
    -------
    dict of int to tuple of Example
        Every syllable asked for, in that order.
    """
    sessions = reading.label_sessions(labels)
    rng = np.random.default_rng(seed)
    order = _block_order(sessions, rng)
    enough = min(per_syllable, len(sessions), _ENOUGH_SESSIONS)
    found: dict[int, dict[int, list[Example]]] = {int(state): {} for state in syllables}
    rows = {session.index: session for session in sessions}

    with closing(reading.label_blocks(labels, order)) as blocks:
        for block, syllable in blocks:
            bouts = _bouts(syllable, block, rows[block.session], before, after, min_duration)
            _choose(bouts, rows[block.session], found, per_syllable, rng)
            if all(_is_enough(by, per_syllable, enough) for by in found.values()):
                break
    return {state: _in_turn(list(by.values()), per_syllable) for state, by in found.items()}


class PoseReader:
    """Denoised poses around bouts; the last chunks that were read are kept.

    Parameters
    ----------
    chunk_frames : int
        Frames read at once; the result does not depend on it.

    Raises
    ------
    MissingData
        When the version has no poses.
    """

    def __init__(self, opened: OpenModel, *, chunk_frames: int = FRAMES_PER_CHUNK) -> None:
        self._labels, self.pose = opened.labels, opened.pose
        self._chunk_frames = chunk_frames
        self._kept: OrderedDict[tuple[int, int], tuple[np.ndarray, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def position(self, row: int, start: int, stop: int) -> np.ndarray:
        """Denoised positions of some frames of a session (row of the labels).

        Returns
        -------
        ndarray, (frame, keypoint, space) float32
            In units of position.
        """
        return self.pose.place(*self._read(row, start, stop), row)

    def aligned(self, example: Example, before: float, after: float) -> np.ndarray:
        """Denoised pose around the onset of a bout; see the function of this name."""
        fps, onset = example.session.fps, example.onset
        start, stop = onset - round(before * fps), onset + round(after * fps) + 1
        low, high = max(0, start), min(stop, example.session.n_frames)
        row = example.session.index
        latent, centroid, heading = self._read(row, low, high)
        middle, angle = centroid[onset - low], float(heading[onset - low])
        turned = rotate(centroid - middle, -angle)
        pose = self.pose.place(latent, turned, heading - angle, row)
        outside = ((low - start, stop - high), (0, 0), (0, 0))
        return np.pad(pose, outside, constant_values=np.nan)

    def sampled(
        self, examples: Sequence[Example], seconds: Sequence[float] | np.ndarray
    ) -> np.ndarray:
        """Aligned poses of examples at the same moments, whatever the frame rates.

        Parameters
        ----------
        seconds : ndarray, (moment,) or (example, moment)
            After the onset (negative: before it), interpolated between frames.

        Returns
        -------
        ndarray, (example, moment, keypoint, space)
            In units of position of a session of median ``scale``: animals or cameras of
            different size are brought to the same one. NaN outside the session.
        """
        each = np.asarray(seconds, dtype=np.float64)
        each = np.broadcast_to(each, (len(examples), each.shape[-1]))
        common = float(np.median(self.pose.scale))

        def sample(example: Example, moments: np.ndarray) -> np.ndarray:
            before, after = max(0.0, -moments.min()), max(0.0, moments.max())
            fps, row = example.session.fps, example.session.index
            margin = 1 / fps  # so that there is a frame on either side
            pose = self.aligned(example, before + margin, after + margin)
            at = round((before + margin) * fps) + moments * fps
            first = np.clip(np.floor(at).astype(int), 0, len(pose) - 2)
            part = (at - first)[:, None, None]
            # A weight of 0 does not make NaN a number.
            left = np.where(part < 1, pose[first] * (1 - part), 0)
            right = np.where(part > 0, pose[first + 1] * part, 0)
            return np.asarray((left + right) * (common / self.pose.scale[row]))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(sample, examples, each))
        return np.stack(found) if found else np.empty((*each.shape, *self.pose.mean.shape))

    def _read(self, row: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = self._chunk_frames
        numbers = range(start // width, (stop - 1) // width + 1)
        chunks = [self._chunk(row, number) for number in numbers]
        first = numbers[0] * width
        window = slice(start - first, stop - first)
        latent, centroid, heading = zip(*chunks, strict=True)
        return (
            np.concatenate(latent)[window],
            np.concatenate(centroid)[window],
            np.concatenate(heading)[window],
        )

    def _chunk(self, row: int, number: int) -> tuple[np.ndarray, ...]:
        """A whole chunk, which any window of it takes to read; the last ones are kept."""
        key = (row, number)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        frames = slice(number * self._chunk_frames, (number + 1) * self._chunk_frames)
        values = tuple(self._labels[name][row, frames].values for name in POSE_BY_FRAME)
        with self._lock:
            self._kept[key] = values
            while len(self._kept) > _KEPT_CHUNKS:
                self._kept.popitem(last=False)
        return values


def _block_order(sessions: Sequence[Session], rng: np.random.Generator) -> list[Block]:
    """A block of every session in random order, then a second one of each, and so on."""
    shuffled = [sessions[i] for i in rng.permutation(len(sessions))]
    if len(shuffled) >= _MOST_BLOCKS:  # others would never be read
        shuffled = shuffled[:_MOST_BLOCKS]
    piles = []
    for session in shuffled:
        blocks = list(iter_blocks([session], LABEL_FRAMES_PER_CHUNK))
        piles.append([blocks[i] for i in rng.permutation(len(blocks))[:_MOST_BLOCKS]])
    longest = max(map(len, piles), default=0)
    order = [pile[turn] for turn in range(longest) for pile in piles if turn < len(pile)]
    return order[:_MOST_BLOCKS]


def _bouts(
    syllable: np.ndarray,
    block: Block,
    session: Session,
    before: float,
    after: float,
    min_duration: float,
) -> reading.Bouts:
    """Find whole bouts of a block that may be examples, in frames of the session."""
    start, stop = run_bounds(syllable)
    fps = session.fps
    keep = stop - start >= min_duration * fps - 1e-9
    # What begins or ends with the block may go on beyond it.
    keep &= (start > 0) | (block.start == 0)
    keep &= (stop < len(syllable)) | (block.stop == session.n_frames)
    onset = block.start + start
    keep &= (onset >= round(before * fps)) & (onset + round(after * fps) < session.n_frames)
    return reading.Bouts(onset[keep], (block.start + stop)[keep], syllable[start][keep])


def _choose(
    bouts: reading.Bouts,
    session: Session,
    examples: dict[int, dict[int, list[Example]]],
    max_examples: int,
    rng: np.random.Generator,
) -> None:
    """Add some bouts of each syllable, drawn at random, to the examples."""
    order = rng.permutation(len(bouts.start))
    for state, by_session in examples.items():
        mine = order[bouts.syllable[order] == state][:max_examples]
        if len(mine):
            by_session.setdefault(session.index, []).extend(
                Example(session, int(bouts.start[i]), int(bouts.stop[i])) for i in mine
            )


def _is_enough(by_session: dict[int, list[Example]], n_examples: int, n_sessions: int) -> bool:
    n_found = sum(map(len, by_session.values()))
    return n_found >= n_examples and len(by_session) >= n_sessions


def _in_turn(piles: Iterable[list[Example]], max_examples: int) -> tuple[Example, ...]:
    """Take the first of every pile, then the second of each, and so on."""
    piles = list(piles)
    longest = max(map(len, piles), default=0)
    chosen = [pile[turn] for turn in range(longest) for pile in piles if turn < len(pile)]
    return tuple(chosen[:max_examples])
