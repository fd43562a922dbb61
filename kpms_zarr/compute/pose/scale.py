"""Lengths of a study in its own units: of the body, and of its movement in a frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kpms_zarr.compute.alignment.alignment import Aligner
from kpms_zarr.compute.config import SCALES
from kpms_zarr.compute.mapreduce import map_reduce, weighted_median
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError

BODY_LENGTH = 100.0
"""Length of a body in model units, for which the priors are stated (model.md, section 7)."""


_ENOUGH_FRAMES = 10
_FILTER_FRAMES = 5
_SMALLEST_SHARE = 1e-9


@dataclass(frozen=True)
class Lengths:
    """Typical lengths of the sessions of a store, and of all of them together.

    Attributes
    ----------
    body_length : dict of int to float
        Index of the session -> median length of the body, in units of position.
    step : dict of int to float
        Index of the session -> median displacement of the centroid from one frame to the next,
        in units of position per frame. It can be 0.
    dataset_body_length : float
        In units of position.
    dataset_step : float
        In units of position per frame.
    """

    body_length: dict[int, float]
    step: dict[int, float]
    dataset_body_length: float
    dataset_step: float


class _BlockLengths(NamedTuple):
    """Medians of one block; 0 frames where there is nothing to take a median of."""

    session: int
    body_length: float
    n_frames: int
    is_confident: bool
    step: float
    n_steps: int


# ------------------------------------------------------------------ one block of frames


def body_length(pose: np.ndarray) -> np.ndarray:
    """Length of the body in each frame: sqrt(12) times the RMS spread of the keypoints.

    The spread is the root of the mean squared distance of the keypoints from their mean. A
    uniform rod of length L has a spread of L / sqrt(12), so this is the length of the uniform
    rod that is spread as far as the keypoints are. It uses all keypoints, does not depend on
    the heading, and one keypoint that is a bit off changes it little.

    Parameters
    ----------
    pose : ndarray, (frame, keypoint, space)
        Centred on the mean of the keypoints, in any units and turned in any way.

    Returns
    -------
    ndarray, (frame,)
        In the units of the pose.
    """
    return np.sqrt(12 * np.square(pose).sum(-1).mean(-1))


def steps(centroid: np.ndarray) -> np.ndarray:
    """Displacements of the median-filtered centroid between consecutive frames.

    The filter is 5 frames wide, so that a centroid which jumps for two frames leaves no trace.
    Frames without two neighbours on each side have no filtered value.

    Parameters
    ----------
    centroid : ndarray, (frame, space)

    Returns
    -------
    ndarray, (frame - 5,)
        Euclidean distances, in units of the centroid per frame; empty for 5 frames or fewer.
    """
    if len(centroid) <= _FILTER_FRAMES:
        return np.zeros(0)
    windows = sliding_window_view(centroid, _FILTER_FRAMES, axis=0)
    filtered = np.sort(windows, axis=-1)[..., _FILTER_FRAMES // 2]
    return np.linalg.norm(np.diff(filtered, axis=0), axis=-1)


def _of_block(aligner: Aligner, block: Block) -> tuple[_BlockLengths]:
    aligned = aligner.align(block)
    is_confident = bool(aligned.is_confident.sum() >= _ENOUGH_FRAMES)
    chosen = aligned.is_confident if is_confident else slice(None)
    length = float(np.median(body_length(aligned.pose[chosen])))
    away = float(np.median(np.linalg.norm(aligned.centroid[chosen], axis=-1)))
    # Keypoints on the same spot are not exactly 0 from their mean: it is rounded.
    is_body = np.isfinite(length) and length > _SMALLEST_SHARE * away
    found = steps(aligned.centroid)
    step = float(np.median(found)) if found.size else 0.0
    n_frames = block.n_frames if is_body else 0
    return (_BlockLengths(block.session, length, n_frames, is_confident, step, found.size),)


# ------------------------------------------------------------------ all sessions


def measure_lengths(aligner: Aligner) -> Lengths:
    """Measure how long the bodies are and how far they move, block by block.

    Parameters
    ----------
    aligner : Aligner
        Without a scale.

    Returns
    -------
    Lengths
        Medians over the blocks of 16,384 frames of the medians of the blocks, weighted by their
        frames. Body lengths are measured in frames whose keypoints are all valid; in all frames
        of a block with fewer than 10 of these, and such blocks count only when a session has no
        others. A session without a body length or without a step gets the one of the dataset.

    Raises
    ------
    InputError
        When the keypoints lie on the same spot in all sessions.
    """
    # By name: what is made of many sessions shall not depend on the order of their ingest.
    ordered = sorted(aligner.sessions, key=lambda session: session.name)
    blocks = map_reduce(partial(_of_block, aligner), iter_blocks(ordered), add)
    by_session: dict[int, list[_BlockLengths]] = {session.index: [] for session in ordered}
    for block in blocks:
        by_session[block.session].append(block)
    trusted = {index: _trusted(of_session) for index, of_session in by_session.items()}
    dataset_length = _median_length([block for some in trusted.values() for block in some])
    if not dataset_length > 0:
        raise InputError(
            expected="keypoints that lie apart from each other",
            found="all keypoints on the same spot in all frames",
            where=f"{aligner.reader.store}, all {len(ordered)} sessions",
            fix="check that the files hold tracked animals and not one point many times, and that "
            "`use_keypoints=`, if given, names different parts of the body",
        )
    dataset_step = _or(_median_step(blocks), 0.0)
    return Lengths(
        {index: _or(_median_length(some), dataset_length) for index, some in trusted.items()},
        {index: _or(_median_step(some), dataset_step) for index, some in by_session.items()},
        dataset_length,
        dataset_step,
    )


def _trusted(blocks: list[_BlockLengths]) -> list[_BlockLengths]:
    """Select the blocks whose body lengths count."""
    return [block for block in blocks if block.is_confident and block.n_frames] or blocks


def _median_length(blocks: Sequence[_BlockLengths]) -> float:
    return weighted_median([b.body_length for b in blocks], [b.n_frames for b in blocks])


def _median_step(blocks: Sequence[_BlockLengths]) -> float:
    return weighted_median([b.step for b in blocks], [b.n_steps for b in blocks])


def _or(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise


def scale_of(lengths: Lengths, sessions: Iterable[Session], mode: str) -> dict[int, float]:
    """Units of position for one model unit, for each session.

    Parameters
    ----------
    mode : str
        ``"none"``: positions stay as they are. ``"dataset"``: one number for all sessions, so
        that the typical body is 100 model units long and differences in size between the
        sessions stay. ``"session"``: every session has a body of 100 model units.

    Returns
    -------
    dict of int to float
        By index of the session; for ``scale`` of :meth:`Aligner.of`.

    Raises
    ------
    InputError
        For another mode.
    """
    if mode not in SCALES:
        raise InputError(
            expected=f"one of {', '.join(SCALES)}",
            found=repr(mode),
            where="`scale=`",
            fix="give `scale='dataset'` for positions that are not in pixels, `scale='session'` "
            "for cameras or animals of different size",
        )
    if mode == "none":
        return {session.index: 1.0 for session in sessions}
    if mode == "dataset":
        return {session.index: lengths.dataset_body_length / BODY_LENGTH for session in sessions}
    return {session.index: lengths.body_length[session.index] / BODY_LENGTH for session in sessions}
