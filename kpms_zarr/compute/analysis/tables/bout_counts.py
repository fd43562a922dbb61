"""Counts of one session by epoch and syllable, added up block by block in the order of frames.

Integers are exact; sums of floats are added one frame after the other (``numpy.add.at``), so that
neither depends on how the session was cut into blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.analysis.tables.bout_stream import EpochBouts, FrameBlock
from kpms_zarr.compute.mapreduce import Histogram

_LENGTH_BITS = 40


class EpochCounts(NamedTuple):
    """Counts of a session; a cell is an epoch and a syllable.

    Attributes
    ----------
    n_frames, n_bouts : ndarray, (epoch, state) int64
    lengths : Histogram
        Bouts by cell and duration in ticks of the session (frames, or with timestamps
        microseconds), in one number: see :func:`lengths_of`.
    transitions : Histogram
        Changes between bouts that touch, by (epoch * state + state) * state + next state.
    ngrams : dict of int to Histogram
        Of each n, runs of n bouts that touch, by epoch and their states in one number to the base
        of the number of states.
    sums : dict of str to ndarray, (epoch, state) float64
        Over the frames of the cell in which it is known, of ``certainty``; ``speed`` and its
        square ``speed_square``; cosine and sine of the change of heading, ``turning_cos`` and
        ``turning_sin``, and its amount per 1 / fps, ``turning_amount``; with timestamps the time
        that it took in units of 1 / fps, ``turning_step``; ``heading_cos``, ``heading_sin``.
    known : dict of str to ndarray, (epoch, state) int64
        Frames in which ``certainty``, ``speed``, ``turning`` and ``heading`` are known.
    """

    n_frames: np.ndarray
    n_bouts: np.ndarray
    lengths: Histogram
    transitions: Histogram
    ngrams: dict[int, Histogram]
    sums: dict[str, np.ndarray]
    known: dict[str, np.ndarray]

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.n_frames.shape[1])

    def sparse_transitions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """List transitions that occur: epoch, state, next state, count, (entry,) int64 each."""
        cell, following = np.divmod(self.transitions.key, max(1, self.n_states))
        epoch, state = np.divmod(cell, max(1, self.n_states))
        return epoch, state, following, self.transitions.number


def lengths_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take keys of lengths apart: cell = epoch * number of states + state, and ticks."""
    return keys >> _LENGTH_BITS, keys & ((1 << _LENGTH_BITS) - 1)


class EpochCounter:
    """Adds up the counts of one session.

    Parameters
    ----------
    n_epochs, n_states : int
    ngrams : sequence of int
        Numbers n of bouts that n-grams have.
    """

    def __init__(self, n_epochs: int, n_states: int, ngrams: tuple[int, ...] = ()) -> None:
        self._shape = (n_epochs, n_states)
        self._n_cells = n_epochs * n_states
        self._frames = np.zeros(self._n_cells, np.int64)
        self._bouts = np.zeros(self._n_cells, np.int64)
        empty = Histogram(np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._lengths = self._transitions = empty
        self._ngrams = dict.fromkeys(ngrams, empty)
        self._tail = np.zeros((3, 0), np.int64)
        self._sums: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}

    def add(self, frames: FrameBlock, bouts: EpochBouts) -> None:
        """Add a block, and the bouts that end in it."""
        self._add_frames(frames)
        cell = bouts.epoch * self._shape[1] + bouts.syllable
        self._bouts += np.bincount(cell, minlength=self._n_cells)
        key = (cell << _LENGTH_BITS) | np.minimum(bouts.ticks, (1 << _LENGTH_BITS) - 1)
        self._lengths = self._lengths.add(Histogram.of_block(key))
        has_next = bouts.following >= 0
        moves = cell[has_next] * self._shape[1] + bouts.following[has_next]
        self._transitions = self._transitions.add(Histogram.of_block(moves))
        if self._ngrams:
            self._add_ngrams(bouts)

    def counts(self) -> EpochCounts:
        """What was counted."""
        shaped = [
            {name: values.reshape(self._shape) for name, values in kind.items()}
            for kind in (self._sums, self._known)
        ]
        return EpochCounts(
            self._frames.reshape(self._shape),
            self._bouts.reshape(self._shape),
            self._lengths,
            self._transitions,
            dict(self._ngrams),
            shaped[0],
            shaped[1],
        )

    def _add_frames(self, frames: FrameBlock) -> None:
        is_in = (frames.epoch >= 0) & (frames.syllable >= 0)
        cell = frames.epoch[is_in] * self._shape[1] + frames.syllable[is_in]
        self._frames += np.bincount(cell, minlength=self._n_cells)

        def add(name: str, values: np.ndarray | None, **parts: np.ndarray) -> None:
            if values is None:
                return
            is_known = np.isfinite(values[is_in])
            place = cell[is_known]
            known = self._known.setdefault(name, np.zeros(self._n_cells, np.int64))
            known += np.bincount(place, minlength=self._n_cells)
            for part, array in (parts or {name: values}).items():
                total = self._sums.setdefault(part, np.zeros(self._n_cells))
                np.add.at(total, place, array[is_in][is_known])

        add("certainty", frames.certainty)
        if frames.speed is not None:
            add("speed", frames.speed, speed=frames.speed, speed_square=frames.speed**2)
        for name, angle in (("turning", frames.turning), ("heading", frames.heading)):
            if angle is not None:
                parts = {f"{name}_cos": np.cos(angle), f"{name}_sin": np.sin(angle)}
                amount = _amounts(angle, frames.step) if name == "turning" else {}
                add(name, angle, **parts, **amount)

    def _add_ngrams(self, bouts: EpochBouts) -> None:
        """Count runs of bouts; the last ones of the block before may go on."""
        rows = np.stack([bouts.epoch, bouts.syllable, bouts.previous >= 0])
        n_tail = self._tail.shape[1]
        epoch, state, is_linked = np.concatenate([self._tail, rows], axis=1)
        number = np.arange(len(epoch))
        # Bouts in a row that touch, up to each: since the last that touches none before it.
        since = np.maximum.accumulate(np.where(is_linked == 0, number, 0)) if len(epoch) else number
        run = number - since + 1
        for n in self._ngrams:
            last = np.flatnonzero((run >= n) & (number >= n_tail))
            key = epoch[last]
            for back in range(n - 1, -1, -1):
                key = key * self._shape[1] + state[last - back]
            self._ngrams[n] = self._ngrams[n].add(Histogram.of_block(key))
        longest = max(self._ngrams)
        tail = np.stack([epoch, state, is_linked])
        self._tail = tail[:, max(0, len(epoch) - (longest - 1)) :]


def _amounts(turning: np.ndarray, step: np.ndarray | None) -> dict[str, np.ndarray]:
    if step is None:
        return {"turning_amount": np.abs(turning)}
    return {"turning_amount": np.abs(turning) / step, "turning_step": step}
