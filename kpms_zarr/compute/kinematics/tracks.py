"""Changes of velocity of the pose of sessions, in egocentric coordinates, block by block."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kpms_zarr.compute.alignment.alignment import Aligner, is_valid
from kpms_zarr.compute.kinematics.change_score import (
    ChangeSums,
    Whitening,
    Window,
    change_of,
    shares_of,
)
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK


@dataclass(frozen=True)
class EgocentricTracks:
    """Egocentric keypoints of sessions, whose rows here are those of what is written."""

    aligner: Aligner
    sessions: tuple[Session, ...]
    milliseconds: float

    def blocks(self, n_frames: int = FRAMES_PER_CHUNK) -> list[Block]:
        """Blocks of all sessions, by row."""
        rows = (replace(session, index=row) for row, session in enumerate(self.sessions))
        return list(iter_blocks(rows, n_frames))

    def window(self, row: int) -> Window:
        """Window in frames of a session."""
        return Window.of(self.milliseconds, self.sessions[row].fps)

    def sums(self, last: Whitening | None, block: Block) -> ChangeSums:
        """Sums of a block, without the frames at its ends that need those beyond."""
        margin = self.window(block.session).margin
        change, is_known = self._change(block.session, block.start + margin, block.stop - margin)
        return ChangeSums.of_block(change, is_known, last)

    def shares(self, block: Block, whitening: Whitening, margin: int) -> np.ndarray:
        """Shares of usual changes that are smaller: (margin + frame + margin, coordinate).

        NaN = not known, as beyond the ends of sessions.
        """
        window = self.window(block.session)
        start, stop = block.start - margin, block.stop + margin
        w = window.n_frames  # whole windows of the session, in all blocks the same
        first = (start - window.reach) // w * w - w
        last = -(-(stop + window.reach) // w) * w + w
        n_frames = self.sessions[block.session].n_frames
        low, high = max(0, first), min(n_frames, last)
        change, is_known = self._change(block.session, low, high)
        is_known = is_known[:, whitening.kept]
        size = np.where(is_known, np.abs(_mapped(change, whitening.weight)), np.nan)
        found = shares_of(size, window)
        pad = (max(0, low - start), max(0, stop - high))
        found = found[max(0, start - low) : len(found) - max(0, high - stop)]
        return np.pad(found, (pad, (0, 0)), constant_values=np.nan)

    def _change(self, row: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Changes of frames, and which are known; those at the ends of sessions are not."""
        session, window = self.sessions[row], self.window(row)
        stop = max(start, stop)
        before, after = start - window.margin, stop + window.margin
        first = min(max(0, before), session.n_frames)
        last = max(first, min(session.n_frames, after))
        n_points = len(self.aligner.study.keypoints)
        if first == last:
            n_space = self.aligner.observations.first_value.shape[-1]
            shape = (stop - start, n_points * n_space)
            return np.zeros(shape), np.zeros(shape, bool)
        there = Block(session.index, first, last)
        pose, valid = self.aligner.align(there).pose, self._valid(there, session.n_frames)
        pad = ((first - before, after - last), (0, 0))
        pose, valid = np.pad(pose, (*pad, (0, 0))), np.pad(valid, pad)
        change, is_known = change_of(pose, valid, window)
        # An average that reaches beyond the session is not one.
        frame = np.arange(start, stop)
        is_whole = (frame >= window.margin) & (frame < session.n_frames - window.margin)
        is_known &= is_whole[:, None]
        return np.where(is_known, change, 0.0), is_known

    def _valid(self, block: Block, n_frames: int) -> np.ndarray:
        reader, threshold = self.aligner.reader, self.aligner.settings.confidence_threshold
        parts = []
        first = block.start - block.start % FRAMES_PER_CHUNK
        for start in range(first, block.stop, FRAMES_PER_CHUNK):  # as the aligner reads them
            whole = Block(block.session, start, min(start + FRAMES_PER_CHUNK, n_frames))
            valid = is_valid(reader.position(whole), reader.confidence(whole), threshold)
            parts.append(valid[max(block.start - start, 0) : block.stop - start])
        return np.concatenate(parts)


def _mapped(change: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coordinates mapped by a matrix, one term after the other: bits do not depend on the cut."""
    total = np.zeros((len(change), weight.shape[1]))
    for column, row in zip(change.T, weight, strict=True):
        total = total + column[:, None] * row
    return total
