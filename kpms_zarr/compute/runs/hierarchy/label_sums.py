"""Sums over the frames of published labels: what the evidence of states needs (model.md 3.9)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.kernels.ar import feature_pairs
from kpms_zarr.compute.mapreduce import map_reduce
from kpms_zarr.compute.runs.hierarchy.posed_frames import PosedFrames
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK

_PIECE_FRAMES = 8_192
"""Frames whose features exist at a time."""


@dataclass(frozen=True)
class LabelSums:
    """Sums of the frames of each state; those of several blocks add up.

    Attributes
    ----------
    moments : ndarray, (state, pair) float64
        Second moments of the features [lagged latent, 1, residual], as those of
        :func:`kernels.ar.tile_moments`, of residuals under the prior mean of the dynamics.
    transitions : ndarray, (state, state) int64
        Between consecutive frames of a session, stays included.
    n_left_out : int
        Labelled frames that count in neither: their latent pose, or that of a frame before them,
        is not a number.
    """

    moments: np.ndarray
    transitions: np.ndarray
    n_left_out: int

    def plus(self, other: LabelSums) -> LabelSums:
        """Add the sums of other frames."""
        return LabelSums(
            self.moments + other.moments,
            self.transitions + other.transitions,
            self.n_left_out + other.n_left_out,
        )


def label_sums(frames: PosedFrames, block_frames: int = LABEL_FRAMES_PER_CHUNK) -> LabelSums:
    """Add up all labelled frames behind the first ``lags`` of their session, block by block.

    Parameters
    ----------
    frames : PosedFrames
    block_frames : int
        That are read at once; the sums depend on it by rounding alone.
    """
    blocks = iter_blocks(frames.labels.sessions, block_frames)
    return map_reduce(partial(_of_block, frames), blocks, LabelSums.plus)


def _of_block(frames: PosedFrames, block: Block) -> LabelSums:
    n_states, lags, reference = frames.labels.n_states, frames.lags, frames.prior.dynamics.mean
    n_pairs = len(feature_pairs(frames.n_latent, lags)[0])
    total = LabelSums(
        np.zeros((n_states, n_pairs)), np.zeros((n_states, n_states), np.int64), 0
    )  # fmt: skip
    first = max(block.start, lags)
    if first >= block.stop:
        return total
    latent = frames.latent(block.session, first - lags, block.stop)
    before = max(first - 1, lags)
    syllable = frames.labels.syllable(block.session, before, block.stop).astype(np.int64)
    transitions = count_transitions(syllable, n_states)
    syllable = syllable[first - before :]
    total = LabelSums(total.moments, transitions, 0)
    for start in range(0, len(syllable), _PIECE_FRAMES):
        z = syllable[start : start + _PIECE_FRAMES]
        moments, n_left_out = moments_of(
            latent[start : start + lags + len(z)], z, reference, n_states
        )
        total = total.plus(LabelSums(moments, np.zeros_like(transitions), n_left_out))
    return total


def moments_of(
    latent: np.ndarray, syllable: np.ndarray, weight_bias: np.ndarray, n_states: int
) -> tuple[np.ndarray, int]:
    """Second moments by state of consecutive frames, in float64 (model.md 3.3).

    Parameters
    ----------
    latent : ndarray, (lag + frame, latent)
    syllable : ndarray, (frame,) int
        -1 = none: such frames are left out.
    weight_bias : ndarray, (latent, lag * latent + 1)
        [A b] that residuals are taken under, of all states.

    Returns
    -------
    moments : ndarray, (state, pair)
        As of :func:`kernels.ar.tile_moments`.
    n_left_out : int
        Labelled frames whose pose is not a number, now or within the lags.
    """
    n_frames, n_latent = len(syllable), latent.shape[1]
    lags = len(latent) - n_frames
    parts = [latent[lag : lag + n_frames] for lag in range(lags)]
    regressor = np.concatenate([*parts, np.ones((n_frames, 1))], axis=1)
    features = np.concatenate([regressor, latent[lags:] - regressor @ weight_bias.T], axis=1)
    is_known = np.isfinite(features).all(1)
    rows, columns = feature_pairs(n_latent, lags)
    found = np.zeros((n_states, len(rows)))
    counted = np.flatnonzero(is_known & (syllable >= 0))
    counted = counted[np.argsort(syllable[counted], kind="stable")]
    states, first = np.unique(syllable[counted], return_index=True)
    for state, start, stop in zip(states, first, [*first[1:], len(counted)], strict=True):
        of_state = features[counted[start:stop]]
        found[state] = (of_state.T @ of_state)[rows, columns]
    return found, int((~is_known & (syllable >= 0)).sum())


def count_transitions(syllable: np.ndarray, n_states: int) -> np.ndarray:
    """Count pairs of consecutive labels, (frame,) int64, neither of which is -1: (state, state)."""
    before, after = syllable[:-1], syllable[1:]
    is_known = (before >= 0) & (after >= 0)
    pair = before[is_known] * n_states + after[is_known]
    return np.bincount(pair, minlength=n_states**2).reshape(n_states, n_states)


def count_frames(labels: PosedLabels) -> np.ndarray:
    """Count the frames of each state, block by block: (state,) int64."""

    def of_block(block: Block) -> np.ndarray:
        syllable = labels.syllable(block.session, block.start, block.stop)
        return np.bincount(syllable[syllable >= 0], minlength=labels.n_states)

    blocks = iter_blocks(labels.sessions, BLOCK_FRAMES)
    return map_reduce(of_block, blocks, np.add) if labels.sessions else np.zeros(0, np.int64)
