"""A camera and a tracker that looks at a simulated mouse, with the faults that trackers have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from kpms_zarr.store.study.mouse.body import FOREPAWS, HINDPAWS, KEYPOINTS, SPINE
from kpms_zarr.store.study.mouse.motion import Motion

PIXELS_PER_MM = 1.2
IMAGE_CENTRE = (320.0, 320.0)  # px
_CAMERA_HEIGHT = 900.0
"""Above the floor, in mm: what is higher looks larger and further out."""

PAIRS = (("left_ear", "right_ear"), FOREPAWS, HINDPAWS)
"""What trackers take for each other."""

# The error of a keypoint, in px, is 10^(_INTERCEPT + _SLOPE log10(confidence)) on average: the
# line of nine real mice seen from above with a ResNet of DeepLabCut (docs/noise.md).
_SLOPE, _INTERCEPT, _MOST_ERROR = -0.88, -0.18, 12.0
_SURE = 4.3
"""Log odds of the confidence of a keypoint in plain sight."""
_HIDDEN = 6.0
"""By how much less those are of a keypoint that the body hides."""
_UNSURE = {"nose": 0.0, "tail_base": 0.8, "lower_back": 0.6, "mid_back": 1.4, "upper_back": 1.4,
           "neck": 1.0, "tail_mid": 0.8, "tail_tip": 1.6}  # fmt: skip
"""By how much less where nothing but fur marks the place."""

BLINK_RATE = 0.5
"""Short losses of confidence of a keypoint per s, one to six frames each."""
GAP_RATE = 0.06
"""Gaps of a keypoint per s, of one to ``GAP_FRAMES``."""
GAP_FRAMES = 9
WHOLE_GAP_RATE = 0.01
"""Gaps of the whole animal per s, of the same lengths."""
SWAP_RATE = 0.04
"""Exchanges of left and right per s and pair, of one to ``SWAP_FRAMES``."""
SWAP_FRAMES = 4
JUMP_SHARE = 0.002
"""Of the frames of a keypoint, in which it is somewhere else for one frame."""


@dataclass(frozen=True)
class Tracking:
    """What a tracker says, and where it is wrong.

    Attributes
    ----------
    position : ndarray, (frame, keypoint, space)
        In px, or in mm in 3-D; NaN in gaps.
    confidence : ndarray, (frame, keypoint)
        0 in gaps.
    is_gap, is_jump : ndarray, (frame, keypoint) bool
    is_swapped : ndarray, (frame, pair) bool
        Of ``PAIRS``.
    """

    position: np.ndarray
    confidence: np.ndarray
    is_gap: np.ndarray
    is_jump: np.ndarray
    is_swapped: np.ndarray


def photographed(point: np.ndarray) -> np.ndarray:
    """Image (..., 2), in px and y downward, of points (..., 3) in mm, from above the middle."""
    near = _CAMERA_HEIGHT / (_CAMERA_HEIGHT - point[..., 2:])
    flat = point[..., :2] * near * PIXELS_PER_MM
    return np.asarray(np.array(IMAGE_CENTRE) + flat * (1.0, -1.0))


def track(
    rng: np.random.Generator, point: np.ndarray, motion: Motion, n_space: int, fps: float
) -> Tracking:
    """Track an animal.

    Parameters
    ----------
    point : ndarray, (frame, keypoint, 3)
        In mm.
    motion : Motion
        Of the animal.
    n_space : int
        2: one camera above; 3: triangulated from several, which hide less.
    fps : float
    """
    seen = photographed(point) if n_space == 2 else point.copy()
    confidence = _confidence(rng, point, motion, n_space, fps)
    scale = 1.0 if n_space == 2 else 1 / PIXELS_PER_MM
    position = seen + scale * _error(rng, confidence, n_space)
    position, confidence, is_swapped = _swapped(rng, position, confidence, fps)
    position, confidence, is_jump = _jumping(rng, position, confidence, scale)
    shape = confidence.shape
    is_gap = _bursts(rng, shape, GAP_RATE / fps, GAP_FRAMES)
    is_gap |= _bursts(rng, (shape[0], 1), WHOLE_GAP_RATE / fps, GAP_FRAMES)
    return Tracking(
        np.where(is_gap[..., None], np.nan, position),
        np.where(is_gap, 0.0, confidence),
        is_gap, is_jump & ~is_gap, is_swapped,
    )  # fmt: skip


def _bursts(
    rng: np.random.Generator, shape: tuple[int, ...], rate: float, longest: int
) -> np.ndarray:
    """Whether a frame is in one of some bursts of 1 to ``longest`` frames, along the first axis."""
    begins = rng.random(shape) < rate
    length = rng.integers(1, longest + 1, shape)
    change = np.zeros((shape[0] + longest + 1, *shape[1:]), np.int64)
    at = np.nonzero(begins)
    np.add.at(change, at, 1)
    np.add.at(change, (at[0] + length[at], *at[1:]), -1)
    return np.asarray(np.cumsum(change, 0)[: shape[0]] > 0)


def _confidence(
    rng: np.random.Generator, point: np.ndarray, motion: Motion, n_space: int, fps: float
) -> np.ndarray:
    shape = point.shape[:2]
    odds = _SURE - np.array([_UNSURE.get(name, 0.5) for name in KEYPOINTS])
    slow = gaussian_filter1d(rng.normal(size=shape), 0.2 * fps, axis=0, mode="nearest")
    odds = odds + slow * np.sqrt(2 * np.sqrt(np.pi) * 0.2 * fps) + 0.7 * rng.normal(size=shape)
    hidden = _hidden(point, motion) * (1.0 if n_space == 2 else 0.4)
    odds -= _HIDDEN * hidden
    odds -= _bursts(rng, shape, BLINK_RATE / fps, 6) * rng.uniform(2.0, 6.0, shape)
    return np.asarray(expit(odds).clip(0.01, 0.9999))


def _hidden(point: np.ndarray, motion: Motion) -> np.ndarray:
    """How far the body hides a keypoint from above, (frame, keypoint), 0 to 1."""
    row = {name: i for i, name in enumerate(KEYPOINTS)}
    trunk = point[:, [row[name] for name in SPINE], :]
    trunk = np.concatenate([trunk, (trunk[:, 1:] + trunk[:, :-1]) / 2], 1)
    width = np.array([9, 13, 14, 13, 10, 6, 12, 14, 14, 11, 9.0])
    hidden = np.zeros(point.shape[:2])
    for name in (*FOREPAWS, *HINDPAWS):
        paw = point[:, row[name], None]
        aside = np.linalg.norm(paw[..., :2] - trunk[..., :2], axis=-1) - width
        aside = np.where(trunk[..., 2] > paw[..., 2], aside, 30.0)
        hidden[:, row[name]] = expit(-(aside.min(1)) / 1.5)
    # The nose is under the head of an animal that grooms.
    hidden[:, row["nose"]] = 0.45 * motion.grooming
    return hidden


def _error(rng: np.random.Generator, confidence: np.ndarray, n_space: int) -> np.ndarray:
    """Error of each keypoint, in px: half of it stays from one frame to the next."""
    size = np.minimum(10 ** (_INTERCEPT + _SLOPE * np.log10(confidence)), _MOST_ERROR)
    white = rng.normal(size=(len(confidence) + 1, confidence.shape[1], n_space))
    return size[..., None] * (white[1:] + white[:-1]) / np.sqrt(2)


def _swapped(
    rng: np.random.Generator, position: np.ndarray, confidence: np.ndarray, fps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exchange left and right for some frames, with no more than a little less confidence."""
    is_swapped = _bursts(rng, (len(position), len(PAIRS)), SWAP_RATE / fps, SWAP_FRAMES)
    position, confidence = position.copy(), confidence.copy()
    for pair, names in enumerate(PAIRS):
        frames = np.flatnonzero(is_swapped[:, pair])[:, None]
        both = np.array([KEYPOINTS.index(name) for name in names])
        position[frames, both] = position[frames, both[::-1]]
        confidence[frames, both] = 0.9 * confidence[frames, both[::-1]]
    return position, confidence, is_swapped


def _jumping(
    rng: np.random.Generator, position: np.ndarray, confidence: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put a keypoint onto another one of the animal, or somewhere else, for a frame."""
    is_jump = rng.random(confidence.shape) < JUMP_SHARE
    frame, keypoint = np.nonzero(is_jump)
    n, n_keypoints, n_space = len(frame), position.shape[1], position.shape[2]
    other = (keypoint + rng.integers(1, n_keypoints, n)) % n_keypoints
    away = rng.normal(size=(n, n_space))
    away *= scale * rng.uniform(30, 150, (n, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    place = np.where(
        rng.random((n, 1)) < 0.5, position[frame, other], position[frame, keypoint] + away
    )
    # One in four is believed by the tracker itself.
    believed = rng.uniform(0.6, 0.95, n)
    doubted = rng.uniform(0.05, 0.6, n)
    position, confidence = position.copy(), confidence.copy()
    position[frame, keypoint] = place
    confidence[frame, keypoint] = np.where(rng.random(n) < 0.25, believed, doubted)
    return position, confidence, is_jump
