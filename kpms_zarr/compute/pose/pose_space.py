"""The linear pose space of the full stage: components and headings fitted to each other."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.alignment.alignment import Aligner, Compass, heading_of
from kpms_zarr.compute.mapreduce import map_reduce
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.rotation import rotate

_SAMPLE_FRAMES = 50_000
_FRAMES_PER_COORDINATE = 10
_MAX_ROUNDS = 100
_SMALLEST_GAIN = 1e-3
_NEWTON_STEPS = 8
_LOOK_AHEAD = 3
_EDGE = 1 / 3
_NOTHING = 1e-6
_LARGEST_TURN = 0.3


class PoseSpace(NamedTuple):
    """Pose = mean + latent @ loading, with a latent of unit variance.

    Attributes
    ----------
    loading : ndarray, (latent, keypoint, space)
    mean : ndarray, (keypoint, space)
    """

    loading: np.ndarray
    mean: np.ndarray


class Refined(NamedTuple):
    """A pose space fitted together with the headings.

    Attributes
    ----------
    before, after : float
        Share of the variance of the pose around its mean that the space does not hold.
    """

    space: PoseSpace
    before: float
    after: float


def turn_of(pose: np.ndarray, space: PoseSpace) -> np.ndarray:
    """Angle to add to each heading so that the pose lies closest to the pose space.

    The squared distance is a trigonometric polynomial of degree two in the angle; Newton's method
    finds its minimum from the heading that the keypoints suggest.

    Parameters
    ----------
    pose : ndarray, (frame, keypoint, space)
        Aligned.

    Returns
    -------
    ndarray, (frame,)
        In rad; turning the pose by its negative brings it there.
    """
    n_frames = len(pose)
    basis = np.linalg.qr(space.loading.reshape(len(space.loading), -1).T)[0]
    flat = np.zeros(pose.shape)
    flat[..., :2] = pose[..., :2]
    turned = np.zeros(pose.shape)
    turned[..., 0], turned[..., 1] = -pose[..., 1], pose[..., 0]
    p, q = flat.reshape(n_frames, -1), turned.reshape(n_frames, -1)
    still = (pose - flat - space.mean).reshape(n_frames, -1)
    a, b, e = p @ basis, q @ basis, still @ basis
    alpha = (e * a).sum(-1) - (still * p).sum(-1)
    beta = (e * b).sum(-1) - (still * q).sum(-1)
    difference = ((b * b).sum(-1) - (a * a).sum(-1)) / 2
    mixed = (a * b).sum(-1)
    # Closeness g = 2 alpha cos + 2 beta sin + a'a cos^2 + b'b sin^2 + 2 mixed cos sin.
    angle = np.zeros(n_frames)
    for _ in range(_NEWTON_STEPS):
        cos, sin, cos2, sin2 = (f(k * angle) for k in (1, 2) for f in (np.cos, np.sin))
        slope = beta * cos - alpha * sin + difference * sin2 + mixed * cos2
        curve = alpha * cos + beta * sin - 2 * difference * cos2 + 2 * mixed * sin2
        newton = slope / np.where(curve > 0, curve, np.inf)
        uphill = np.sign(slope) * _LARGEST_TURN
        step = np.where(curve > 0, np.clip(newton, -_LARGEST_TURN, _LARGEST_TURN), uphill)
        angle = angle + step
    return -angle


def wrap(angle: np.ndarray) -> np.ndarray:
    """Wrap angles to between -pi and pi."""
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


def refine(aligner: Aligner, n_latent: int, *, max_latent: int) -> Refined | None:
    """Fit pose space and headings to each other.

    In the full stage the heading of every frame is free, so what matters is how far a pose lies
    from the pose space after the best turn. Components of poses that were turned by the direction
    from a few posterior to a few anterior keypoints are curved: bending the body turns the line
    between these keypoints. Alternating between the best turn of every pose and the components
    of the turned poses flattens them: each round lowers the residual variance.

    Flattened components often fall off at an edge. Components up to an edge right behind the ones
    asked for are taken too: those each of which leaves less than a third of what was missed in each
    of the dimensions that remain. Noise, which is spread evenly over these, has no edge.

    Parameters
    ----------
    n_latent : int
        Components to start with.
    max_latent : int
        Components that may be taken; ``n_latent`` keeps their number.

    Returns
    -------
    Refined or None
        Turned as a whole so that the mean pose looks along +x. From an even sample of at most
        50,000 frames in which all keypoints are valid; None when there are too few of these.
    """
    pose = _sample(aligner)
    size = pose[0].size if len(pose) else 1
    if len(pose) < _FRAMES_PER_COORDINATE * size:
        return None
    # Centred poses that can be turned: the dimensions in which they can differ.
    n_free = size - pose.shape[-1] - 1
    max_latent = min(max_latent, n_free * 2 // 3)
    found = _alternate(pose, n_latent)
    taken, more = n_latent, 1
    while found.after > _NOTHING and more <= min(_LOOK_AHEAD, max_latent - taken):
        other = _alternate(pose, taken + more)
        missed, left = found.after / (n_free - taken), other.after / (n_free - taken - more)
        if left < missed * _EDGE**more:
            found, taken, more = other, taken + more, 1
        else:
            more += 1
    return found._replace(space=_facing(found.space, aligner.compass))


def _alternate(pose: np.ndarray, n_latent: int) -> Refined:
    space, before = _components(pose, n_latent)
    last = before
    for _ in range(_MAX_ROUNDS):
        space, after = _components(rotate(pose, -turn_of(pose, space)), n_latent)
        if after > last * (1 - _SMALLEST_GAIN):
            break
        last = after
    return Refined(space, max(before, 0.0), max(after, 0.0))


def _sample(aligner: Aligner) -> np.ndarray:
    """Aligned poses of an even sample of the confident frames."""
    ordered = sorted(aligner.sessions, key=lambda session: session.name)
    stride = max(1, -(-sum(session.n_frames for session in ordered) // _SAMPLE_FRAMES))
    return map_reduce(
        partial(_every, aligner, stride), iter_blocks(ordered), lambda a, b: np.concatenate([a, b])
    )


def _every(aligner: Aligner, stride: int, block: Block) -> np.ndarray:
    aligned = aligner.align(block)
    chosen = np.arange(-block.start % stride, block.n_frames, stride)
    return aligned.pose[chosen[aligned.is_confident[chosen]]]


def _components(pose: np.ndarray, n_latent: int) -> tuple[PoseSpace, float]:
    """Largest principal components, whitened, and the share of the variance that they lack."""
    mean = pose.mean(0)
    flat = (pose - mean).reshape(len(pose), -1)
    variance, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    variance, vectors = variance[::-1], vectors[:, ::-1]
    loading = vectors[:, :n_latent] * np.sqrt(np.maximum(variance[:n_latent], 0))
    lost = variance[n_latent:].sum() / variance.sum()
    return PoseSpace(loading.T.reshape(n_latent, *mean.shape), mean), float(lost)


def _facing(space: PoseSpace, compass: Compass) -> PoseSpace:
    """Turn a pose space so that its mean looks along +x, and settle its signs."""
    angle = heading_of(space.mean[None], compass)
    mean = rotate(space.mean[None], -angle)[0]
    loading = rotate(space.loading, np.repeat(-angle, len(space.loading)))
    flat = loading.reshape(len(loading), -1)
    largest = np.take_along_axis(flat, np.abs(flat).argmax(1)[:, None], axis=1)
    return PoseSpace(loading * np.where(largest < 0, -1.0, 1.0)[..., None], mean)
