"""The body of a simulated mouse: where its keypoints are, given how it moves."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from kpms_zarr.store.study.mouse.motion import (
    ARENA_RADIUS,
    BEND_SHARE,
    SPINE_LENGTH,
    Motion,
    smooth_noise,
)

SPINE = ("tail_base", "lower_back", "mid_back", "upper_back", "neck", "nose")
EARS = ("left_ear", "right_ear")
TAIL = ("tail_mid", "tail_tip")
FOREPAWS = ("left_forepaw", "right_forepaw")
HINDPAWS = ("left_hindpaw", "right_hindpaw")
KEYPOINTS = (*TAIL[::-1], *SPINE, *EARS, *FOREPAWS, *HINDPAWS)
SKELETON = (
    ("tail_tip", "tail_mid"),
    ("tail_mid", "tail_base"),
    ("tail_base", "lower_back"),
    ("lower_back", "mid_back"),
    ("mid_back", "upper_back"),
    ("upper_back", "neck"),
    ("neck", "left_ear"),
    ("neck", "right_ear"),
    ("left_ear", "nose"),
    ("right_ear", "nose"),
    ("upper_back", "left_forepaw"),
    ("upper_back", "right_forepaw"),
    ("lower_back", "left_hindpaw"),
    ("lower_back", "right_hindpaw"),
)
RIGID = SKELETON[:10]
"""Bones whose lengths never change; those of the paws are legs, which bend."""

GROOM_RATE = 6.0
"""Strokes of the forepaws over the face, in Hz."""
_GROOM_JITTER = 0.5  # rad, of their phase, slowly
_TAIL_LENGTH = (38.0, 36.0)  # mm
_TAIL_LAG = (0.22, 0.45)  # s behind the heading
_TAIL_FLOOR = (5.0, 3.0)  # mm above the floor
_EAR = (4.0, 9.5, 5.0)  # forward, to the side, up from the neck, in mm, in the frame of the head
_FORE_HOME, _HIND_HOME = (10.0, 9.5), (9.0, 14.0)  # forward, to the side, in mm
_FORE_REACH, _HIND_REACH = 36.0, 34.0
"""Longest leg from the shoulder and from the hip, in mm."""
_DUTY = 0.6
"""Share of a stride in which a paw stands."""
_PHASE = {"left_hindpaw": 0.0, "right_forepaw": 0.05, "right_hindpaw": 0.5, "left_forepaw": 0.55}
"""Of the four paws in a stride: nearly a trot."""
_TURN_EFFORT = 60.0  # mm: how far the feet walk, for a rad of turning
_FEWEST_STRIDES = 0.03  # Hz


def stride_rate(speed: np.ndarray, turning: np.ndarray) -> np.ndarray:
    """Strides per second: mice step faster and further the faster they are.

    Parameters
    ----------
    speed : ndarray, (frame,)
        In mm/s.
    turning : ndarray, (frame,)
        In rad/s.
    """
    effort = np.abs(speed) + _TURN_EFFORT * np.abs(turning)
    return np.asarray(_FEWEST_STRIDES + 6.5 * effort / (effort + 170.0) * (effort > 12.0))


def keypoints_of(rng: np.random.Generator, motion: Motion, size: float, fps: float) -> np.ndarray:
    """Place the keypoints of an animal.

    Parameters
    ----------
    motion : Motion
    size : float
        Factor of all lengths.
    fps : float

    Returns
    -------
    ndarray, (frame, keypoint, 3)
        In mm, in the order of ``KEYPOINTS``.
    """
    stride = np.cumsum(_calm(stride_rate(motion.speed, motion.turning), fps)) / fps
    jitter = _GROOM_JITTER * smooth_noise(rng, motion.heading.shape, 0.4, fps)
    stroke = 2 * np.pi * GROOM_RATE * np.arange(len(stride)) / fps + jitter
    spine, frame = _spine(motion, stride, stroke, size)
    found = dict(zip(SPINE, np.moveaxis(spine, 1, 0), strict=True))
    for name, side in zip(EARS, (1, -1), strict=True):
        found[name] = found["neck"] + size * _along(frame, _EAR[0], side * _EAR[1], _EAR[2])
    found |= _tail(rng, motion, found["tail_base"], size, fps)
    found |= _paws(motion, found, frame, stride, stroke, size)
    return np.stack([found[name] for name in KEYPOINTS], 1)


def _calm(values: np.ndarray, fps: float) -> np.ndarray:
    return np.asarray(gaussian_filter1d(values, 0.05 * fps, mode="nearest"))


def _direction(yaw: np.ndarray, pitch: np.ndarray | float = 0.0) -> np.ndarray:
    """Unit vectors (..., 3)."""
    flat = np.cos(pitch)
    return np.stack(np.broadcast_arrays(flat * np.cos(yaw), flat * np.sin(yaw), np.sin(pitch)), -1)


def _spine(
    motion: Motion, stride: np.ndarray, stroke: np.ndarray, size: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Points of the spine (frame, point, 3), and the frame of the head: forward, left, up."""
    gait = np.clip(motion.speed / 120, 0, 1)
    sway = 0.07 * gait[:, None] * np.sin(2 * np.pi * stride[:, None] - np.linspace(0, 1.5, 5))
    yaw = motion.heading[:, None] + motion.bend[:, None] * BEND_SHARE + sway
    yaw[:, -1] += motion.head_yaw
    bob = motion.grooming * np.sin(stroke)
    pitch = motion.pitch + bob[:, None] * np.deg2rad([0, 0, 1.5, 3.5, 8.0])
    height = size * motion.height + 1.0 * gait * np.sin(4 * np.pi * stride)
    start = np.column_stack([motion.root, height])
    bones = size * SPINE_LENGTH[:, None] * _direction(yaw, pitch)
    spine = np.concatenate([start[:, None], start[:, None] + np.cumsum(bones, 1)], 1)
    # No point goes through the floor: the whole animal is higher then.
    spine[..., 2] += np.maximum(0, 4.0 * size - spine[..., 2].min(1))[:, None]
    forward = _direction(yaw[:, -1], pitch[:, -1])
    left = _direction(yaw[:, -1] + np.pi / 2)
    return spine, (forward, left, np.cross(forward, left))


def _along(frame: tuple[np.ndarray, ...], *amounts: np.ndarray | float) -> np.ndarray:
    """Sum of so much of each axis, (frame, 3)."""
    found = np.zeros(3)
    for axis, amount in zip(frame, amounts, strict=True):
        found = found + np.asarray(amount)[..., None] * axis
    return found


# ------------------------------------------------------------------ the tail


def _tail(
    rng: np.random.Generator, motion: Motion, base: np.ndarray, size: float, fps: float
) -> dict[str, np.ndarray]:
    """Follow the body with the tail, which bends along the wall where it would be outside."""
    found, point = {}, base
    wander = smooth_noise(rng, (len(base), 2), 0.7, fps) * (0.12, 0.3)
    for i, name in enumerate(TAIL):
        length = size * _TAIL_LENGTH[i]
        keep = np.exp(-1 / (_TAIL_LAG[i] * fps))
        late = lfilter([1 - keep], [1, -keep], motion.heading, zi=[keep * motion.heading[0]])[0]
        behind = np.tanh((late - motion.heading + wander[:, i]) / 1.6) * 1.6
        yaw = motion.heading + behind + np.pi
        drop = np.clip(_TAIL_FLOOR[i] * size - point[:, 2], -0.8 * length, 0.8 * length)
        flat = np.sqrt(length**2 - drop**2)
        yaw = _off_the_wall(point, yaw, flat)
        point = point + np.column_stack([flat * np.cos(yaw), flat * np.sin(yaw), drop])
        found[name] = point
    return found


def _off_the_wall(point: np.ndarray, yaw: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Turn what ends beyond the wall along it, by the law of cosines."""
    inner = ARENA_RADIUS - 2.0
    radius = np.maximum(np.linalg.norm(point[:, :2], axis=1), 1e-9)
    outward = np.arctan2(point[:, 1], point[:, 0])
    cosine = (inner**2 - radius**2 - length**2) / (2 * radius * length)
    least = np.arccos(np.clip(cosine, -1, 1))
    away = (yaw - outward + np.pi) % (2 * np.pi) - np.pi
    side = np.where(away >= 0, 1.0, -1.0)
    return np.asarray(np.where(np.abs(away) < least, outward + side * least, yaw))


# ------------------------------------------------------------------ the paws


def _paws(
    motion: Motion,
    found: dict[str, np.ndarray],
    head: tuple[np.ndarray, np.ndarray, np.ndarray],
    stride: np.ndarray,
    stroke: np.ndarray,
    size: float,
) -> dict[str, np.ndarray]:
    """Step with all four; the forepaws wipe the nose in grooming, and hang in rearing."""
    paws = {}
    pelvis = motion.heading
    chest = motion.heading + BEND_SHARE[3] * motion.bend
    places = zip(
        (*FOREPAWS, *HINDPAWS),
        (chest, chest, pelvis, pelvis),
        ("upper_back", "upper_back", "tail_base", "tail_base"),
        (_FORE_HOME, _FORE_HOME, _HIND_HOME, _HIND_HOME),
        (1, -1, 1, -1),
        strict=True,
    )
    for name, yaw, anchor, (ahead, aside), side in places:
        ground = found[anchor][:, :2] + size * (
            ahead * _direction(yaw)[:, :2] + side * aside * _direction(yaw + np.pi / 2)[:, :2]
        )
        paws[name] = _steps(ground, stride + _PHASE[name], size)
        is_fore = name in FOREPAWS
        joint = found["upper_back" if is_fore else "lower_back"] + _along(
            (_direction(yaw), _direction(yaw + np.pi / 2)), 0.0, side * size * 7.0
        )
        if is_fore:
            lifted = _along(
                (_direction(chest), _direction(chest + np.pi / 2), np.array([0.0, 0.0, 1.0])),
                size * 15.0, side * size * 8.0, -size * 6.0,
            )  # fmt: skip
            wiping = _along(
                head,
                size * (-7.0 + 6.0 * np.sin(stroke + 0.4 * side)),
                side * size * (6.0 + 2.0 * np.cos(stroke)),
                size * -5.0,
            )
            paws[name] = _mixed(paws[name], joint + lifted, motion.rearing)
            paws[name] = _mixed(paws[name], found["nose"] + wiping, motion.grooming)
        paws[name] = _within(joint, paws[name], size * (_FORE_REACH if is_fore else _HIND_REACH))
        paws[name][:, 2] = np.maximum(paws[name][:, 2], 0.0)
    return paws


def _mixed(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.asarray(a + share[:, None] * (b - a))


def _steps(ground: np.ndarray, phase: np.ndarray, size: float) -> np.ndarray:
    """Stand on one place for a share of each stride, and swing to the next.

    A paw stands where its place under the body is in the middle of the stance.

    Parameters
    ----------
    ground : ndarray, (frame, 2)
        Its place under the body.
    phase : ndarray, (frame,)
        Ascending; a stance begins at each whole number.
    """
    stance = np.floor(phase)
    along = phase - stance
    here, there = (
        np.column_stack([np.interp(stance + k + _DUTY / 2, phase, column) for column in ground.T])
        for k in (0, 1)
    )
    swing = np.clip((along - _DUTY) / (1 - _DUTY), 0, 1)
    moved = swing**2 * (3 - 2 * swing)
    flat = here + moved[:, None] * (there - here)
    return np.column_stack([flat, 6.0 * size * np.sin(np.pi * swing)])


def _within(joint: np.ndarray, paw: np.ndarray, reach: float) -> np.ndarray:
    """Pull a paw to where its leg reaches."""
    leg = paw - joint
    far = np.linalg.norm(leg, axis=1, keepdims=True)
    return np.asarray(joint + leg * np.minimum(1, reach / np.maximum(far, 1e-9)))
