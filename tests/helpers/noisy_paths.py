"""Smooth paths of keypoints with tracking errors whose scale falls with the confidence."""

from __future__ import annotations

import numpy as np
from scipy import signal, stats

SLOPE, INTERCEPT = -0.6, 0.1
"""Of the log error against the log confidence, planted."""


def smooth_path(rng, n_frames, *, fps, speed, highest, n_keypoints, n_space):
    """Sums of waves up to a highest frequency (Hz), of about that speed in units/s."""
    shape = (24, n_keypoints, n_space)
    frequency = rng.uniform(0.05, highest, shape)
    size = speed / (2 * np.pi * frequency) / np.sqrt(12)
    phase = rng.uniform(0, 2 * np.pi, shape)
    time = np.arange(n_frames)[:, None, None] / fps
    return sum(
        a * np.cos(2 * np.pi * f * time + p) for a, f, p in zip(size, frequency, phase, strict=True)
    )


def tracked(
    seed, n_frames=12_000, *, fps=30, speed=100.0, highest=3.0, n_keypoints=4, n_space=2,
    slope=SLOPE, intercept=INTERCEPT, path=None,
):  # fmt: skip
    """Positions (frame, keypoint, space) with Student t errors, their confidences, the true path.

    Confidences are mostly high, with dips of a few frames.
    """
    rng = np.random.default_rng(seed)
    true = path
    if true is None:
        true = smooth_path(
            rng, n_frames, fps=fps, speed=speed, highest=highest, n_keypoints=n_keypoints,
            n_space=n_space,
        )  # fmt: skip
    noise = rng.normal(size=true.shape[:2])
    smooth = signal.lfilter([np.sqrt(1 - 0.6**2)], [1, -0.6], noise, axis=0)
    confidence = np.clip(stats.beta.ppf(stats.norm.cdf(smooth), 1.2, 0.4), 0.01, 1)
    confidence = confidence.astype(np.float32)
    scale = 10 ** (slope * np.log10(confidence + 1e-3) + intercept)
    tail = np.sqrt(5 / rng.chisquare(5, true.shape[:2]))
    error = rng.normal(size=true.shape) * (scale * tail)[..., None]
    return (true + error).astype(np.float32), confidence, true
