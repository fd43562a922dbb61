"""Mean poses around the onsets of syllables, seen from the animal at the onset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from kpms_zarr.compute.mapreduce import map_reduce
from kpms_zarr.compute.runs.hierarchy.posed_frames import PosedFrames
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.rotation import rotate

SECONDS = (-0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Moments after the onset of a bout: about the median length of a syllable, and what leads in."""


@dataclass(frozen=True)
class OnsetPoses:
    """Sums of the poses of bouts; those of several blocks add up.

    Attributes
    ----------
    total : ndarray, (state, moment, keypoint, space)
        In units of the model; centroid 0 and heading along the first axis at the onset.
    n_bouts : ndarray, (state,) int64
        Bouts that they are of.
    n_left_out : int
        Bouts that are not, for they begin or end too near to an end of their session, or a pose is
        not a number.
    """

    total: np.ndarray
    n_bouts: np.ndarray
    n_left_out: int

    def plus(self, other: OnsetPoses) -> OnsetPoses:
        """Add the sums of other bouts."""
        return OnsetPoses(
            self.total + other.total,
            self.n_bouts + other.n_bouts,
            self.n_left_out + other.n_left_out,
        )

    @property
    def mean(self) -> np.ndarray:
        """Mean poses, (state, moment, keypoint, space); NaN of states without a bout."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = self.total / self.n_bouts[:, None, None, None]
        return found


def onset_poses(
    frames: PosedFrames,
    seconds: tuple[float, ...] = SECONDS,
    block_frames: int = FRAMES_PER_CHUNK,
) -> OnsetPoses:
    """Add up the poses around all onsets, block by block.

    Parameters
    ----------
    frames : PosedFrames
        With positions of keypoints.
    seconds : tuple of float, (moment,)
        After the onset, the first of the frames of a bout; the nearest frame is taken.
    block_frames : int
        That are read at once; the sums depend on it by rounding alone.
    """
    blocks = iter_blocks(frames.labels.sessions, block_frames)
    return map_reduce(partial(_of_block, frames, seconds), blocks, OnsetPoses.plus)


def _of_block(frames: PosedFrames, seconds: tuple[float, ...], block: Block) -> OnsetPoses:
    assert frames.loading is not None
    assert frames.mean is not None
    n_states, row = frames.labels.n_states, block.session
    session = next(one for one in frames.labels.sessions if one.index == row)
    offset = np.rint(np.asarray(seconds) * session.fps).astype(np.int64)
    total = np.zeros((n_states, len(offset), *frames.mean.shape))
    before = max(block.start - 1, 0)
    syllable = frames.labels.syllable(row, before, block.stop).astype(np.int64)
    # The first frame of a session is in the middle of a bout, whose onset nobody saw.
    onset = before + 1 + np.flatnonzero((syllable[1:] != syllable[:-1]) & (syllable[1:] >= 0))
    is_inside = (onset + offset.min() >= 0) & (onset + offset.max() < session.n_frames)
    n_left_out, onset = int((~is_inside).sum()), onset[is_inside]
    if not len(onset):
        return OnsetPoses(total, np.zeros(n_states, np.int64), n_left_out)
    state = syllable[onset - before]
    first = max(0, block.start + int(offset.min()))
    last = min(session.n_frames, block.stop + max(1, int(offset.max()) + 1))
    latent, centroid, heading = frames.place(row, first, last)
    is_known = np.isfinite(latent).all(1) & np.isfinite(centroid).all(1) & np.isfinite(heading)
    is_whole = is_known[onset - first]
    for step in offset:
        is_whole &= is_known[onset + step - first]
    n_left_out += int((~is_whole).sum())
    order = np.flatnonzero(is_whole)
    order = order[np.argsort(state[order], kind="stable")]
    at, state = onset[order] - first, state[order]
    states, begin = np.unique(state, return_index=True)
    for moment, step in enumerate(offset) if len(at) else ():
        pose = frames.mean + np.tensordot(latent[at + step], frames.loading, axes=1)
        pose = rotate(pose, heading[at + step] - heading[at])
        moved = rotate((centroid[at + step] - centroid[at])[:, None], -heading[at])
        total[states, moment] = np.add.reduceat(pose + moved, begin, axis=0)
    n_bouts = np.bincount(state, minlength=n_states)
    return OnsetPoses(total, n_bouts, n_left_out)


def distances(mean: np.ndarray) -> np.ndarray:
    """Root mean square distance of keypoints between mean poses, over keypoints and moments.

    Parameters
    ----------
    mean : ndarray, (state, moment, keypoint, space)

    Returns
    -------
    ndarray, (state, state)
        0 on the diagonal; NaN where either has no poses.
    """
    flat = mean.reshape(len(mean), -1)
    n_points = mean.shape[1] * mean.shape[2]
    square = np.stack([np.square(flat - one).sum(1) for one in flat]) / n_points
    return np.sqrt(square)
