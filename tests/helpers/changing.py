"""Simulated keypoints that change their velocities at known frames, together or each on its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter1d

N_POINTS = 12


def turns(rng: np.random.Generator, seconds: float, mean: float = 0.6) -> np.ndarray:
    """Times of changes in s: gamma intervals of a mean, of shape 6."""
    times = np.cumsum(rng.gamma(6, mean / 6, int(3 * seconds / mean)))
    return times[times < seconds - 0.5]


def moving(times: np.ndarray, n_frames: int, fps: float, size: int, rng: np.random.Generator,
           activity: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
    """Numbers (frame, size) that run to another place from each time on: piecewise linear."""
    at, found = np.zeros(size), np.empty((n_frames, size))
    edges = np.concatenate([[0], np.round(times * fps).astype(int), [n_frames]])
    for begin, end in pairwise(edges):
        speed = 2.0 if activity is None else 2 * activity[begin]
        velocity = speed * (rng.normal(size=size) - 0.5 * at)  # stays near its place
        found[begin:end] = at + velocity * np.arange(end - begin)[:, None] / fps
        at = at + velocity * (end - begin) / fps
    return found


def activity(rng: np.random.Generator, n_frames: int, fps: float) -> np.ndarray:
    """Slow changes of activity, of a factor 2.2 for one standard deviation: (frame,)."""
    slow = gaussian_filter1d(rng.normal(size=n_frames + int(40 * fps)), 4 * fps)
    slow = slow[int(20 * fps) : int(20 * fps) + n_frames]
    return np.exp(0.8 * slow / slow.std())


def noise(rng: np.random.Generator, n_frames: int, together: float, n_space: int = 2) -> np.ndarray:
    """Tracking noise (frame, keypoint, space); of errors that several share as much as said."""
    own = rng.normal(size=(n_frames, N_POINTS * n_space))
    shared = rng.normal(size=(n_frames, 2)) @ rng.normal(size=(2, N_POINTS * n_space))
    return (own + together * shared).reshape(n_frames, N_POINTS, n_space)


def body(parts: np.ndarray) -> np.ndarray:
    """Positions in px of displacements (frame, keypoint, space) about a body that faces right."""
    number = np.arange(N_POINTS)
    rest = [np.linspace(1, -1, N_POINTS), np.sin(number), 0.5 * np.cos(number)]
    return (60 * np.stack(rest[: parts.shape[2]], 1) + 4 * parts).astype(np.float32)


def together(
    seconds: float,
    fps: float,
    seed: int,
    *,
    is_hard: bool = True,
    mean: float = 0.6,
    n_space: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of keypoints that change together, and the times in s at which they do.

    Hard: activity comes and goes, and keypoints share tracking errors.
    """
    rng = np.random.default_rng(seed)
    n = int(seconds * fps)
    times = turns(rng, seconds, mean)
    size = N_POINTS * n_space
    active = activity(rng, n, fps) if is_hard else None
    parts = moving(times, n, fps, size, rng, active) @ rng.normal(size=(size, size))
    parts = parts.reshape(n, N_POINTS, n_space) / np.sqrt(size)
    return body(parts + 0.05 * noise(rng, n, 0.3 if is_hard else 0.0, n_space)), times


def apart(seconds: float, fps: float, seed: int, *, n_space: int = 2) -> np.ndarray:
    """Positions of keypoints each of which changes at times of its own, as often."""
    rng = np.random.default_rng(seed)
    n = int(seconds * fps)
    parts = [moving(turns(rng, seconds), n, fps, n_space, rng) for _ in range(N_POINTS)]
    return body(np.stack(parts, 1) + 0.05 * noise(rng, n, 0.0, n_space))


def smooth(
    seconds: float, fps: float, seed: int, shared: float = 1.0, *, n_space: int = 2
) -> np.ndarray:
    """Positions without any changes: smooth normal movements of all keypoints together.

    Activity comes and goes, and keypoints share movements and tracking errors.
    """
    rng = np.random.default_rng(seed)
    n, size = int(seconds * fps), N_POINTS * n_space
    modes = gaussian_filter1d(rng.normal(size=(n, size)), 0.1 * fps, axis=0)
    modes *= activity(rng, n, fps)[:, None] / modes.std()
    parts = (modes @ rng.normal(size=(size, size))).reshape(n, N_POINTS, n_space) / np.sqrt(size)
    return body(parts + 0.1 * noise(rng, n, shared, n_space))
