"""Simulated sessions that are drawn from the model, of syllables that are hard to tell apart.

The generator of :mod:`synthetic` is easy, and no draw of the model that is fitted. These are
draws of it (docs/model.md, section 2), so that labels by the true parameters say how much of the
truth a fit can find at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.study.synthetic import SyntheticSession, affine_scan, body_of

LAGS = 3
"""Autoregressive order; the oldest lag has no weight."""
NOISE_DOF, NOISE_SLOPE, NOISE_INTERCEPT, PSEUDOCOUNT = 5, -0.5, 0.25, 1e-3
"""Of the noise of a keypoint in a frame, the defaults of a fit."""
START_VARIANCE = 1.0
"""Of the latent pose in the first frames of a session."""
CENTROID_START_VARIANCE = 1e6
_CLEAR_RUN, _VISIBLE_RUN = 60.0, 3.0
"""Mean frames of a stretch in which all is visible, and of a run in which a keypoint is, else."""


class TrueParameters(NamedTuple):
    """Parameters that sessions are drawn with, in units of position.

    Attributes
    ----------
    weight : ndarray, (state, latent, lagged_latent)
        A, oldest lag first.
    bias : ndarray, (state, latent)
    covariance : ndarray, (state, latent, latent)
        Q.
    usage : ndarray, (state,)
    transition : ndarray, (state, state)
    loading : ndarray, (latent, keypoint, space)
    mean : ndarray, (keypoint, space)
    """

    weight: np.ndarray
    bias: np.ndarray
    covariance: np.ndarray
    usage: np.ndarray
    transition: np.ndarray
    loading: np.ndarray
    mean: np.ndarray


@dataclass(frozen=True)
class ClosePairs:
    """A study drawn from the switching model, its syllables in close pairs, always the same.

    A syllable is a damped oscillation of second order about a target pose. Syllables ``2 i`` and
    ``2 i + 1`` are a pair. Those of the first half of the pairs differ in speed alone: same target,
    same path, same spread of poses, run through ``speed`` times as fast. Those of the others hold
    nearly the same pose and move differently about it. Bouts are geometric; which syllable follows
    depends on the one before.

    Keypoints have the noise of the model: heavy tails, and in a share of outliers a low confidence
    that tells of them. They are missing in runs, all are visible in some stretches. The heading
    wanders, of which the model makes no use.

    Attributes
    ----------
    lengths : tuple of int
        Frames of each session.
    n_pairs, n_keypoints, n_latent : int
    speed : float
        Of the faster of two syllables over that of the slower.
    gap : float
        Between the targets of a close pair, in standard deviations of targets.
    spread : float
        Standard deviation of the pose within a syllable, in the same.
    mean_duration : float
        Mean bout length, in frames.
    missing_fraction, outlier_fraction : float
        Of the keypoints, and of those that are observed.
    clear_fraction : float
        Share of the frames in stretches in which all keypoints are observed.
    noise_variance, step_variance : float
        sigma2 of the keypoints and sigma2_loc of the centroid, in units of position squared.
    turn : float
        Standard deviation of the step of the heading, in rad.
    fps : float
    seed : int
    """

    lengths: tuple[int, ...] = (8_000,) * 6
    n_pairs: int = 12
    n_keypoints: int = 8
    n_latent: int = 4
    speed: float = 1.8
    gap: float = 0.25
    spread: float = 0.4
    mean_duration: float = 12.0
    missing_fraction: float = 0.6
    outlier_fraction: float = 0.02
    clear_fraction: float = 0.2
    noise_variance: float = 1.0
    step_variance: float = 4.0
    turn: float = 0.04
    fps: float = 30.0
    seed: int = 0

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.lengths)

    @property
    def session_names(self) -> tuple[str, ...]:
        """``session_000``, ..."""
        return tuple(f"session_{i:03d}" for i in range(self.n_sessions))

    @property
    def settings(self) -> StudySettings:
        """Names of the keypoints, from rear to front, and the heading."""
        names = tuple(f"point{i}" for i in range(self.n_keypoints))
        return StudySettings(names, ("x", "y"), (names[-1],), (names[0],), tuple(pairwise(names)))

    @cached_property
    def truth(self) -> TrueParameters:
        """Parameters that all sessions are drawn with."""
        rng, m, n = np.random.default_rng([self.seed, 0]), self.n_latent, 2 * self.n_pairs
        mean, loading = body_of(rng, self.n_keypoints, m, 2)
        target = np.repeat(rng.normal(size=(self.n_pairs, m)), 2, 0)
        basis = np.linalg.qr(rng.normal(size=(n, m, m)))[0]
        decay = np.exp(-1 / rng.uniform(6, 14, (n, m)))
        angle = rng.uniform(0.15, 0.5, (n, m))
        variance = np.square(self.spread * rng.uniform(0.5, 1.5, (n, m)))
        n_speed = 2 * ((self.n_pairs + 1) // 2)
        slow, fast = slice(0, n_speed, 2), slice(1, n_speed, 2)
        basis[fast], variance[fast] = basis[slow], variance[slow]
        decay[fast], angle[fast] = decay[slow] ** self.speed, angle[slow] * self.speed
        target[n_speed + 1 :: 2] += self.gap * rng.normal(size=(self.n_pairs - n_speed // 2, m))
        # x_t = first x_{t-1} + second x_{t-2} + ... has that spread, dim by dim of the basis.
        first, second = 2 * decay * np.cos(angle), -(decay**2)
        innovation = variance * (1 + second) * ((1 - second) ** 2 - first**2) / (1 - second)

        def turned(diagonal: np.ndarray) -> np.ndarray:
            found: np.ndarray = np.einsum("nij,nj,nkj->nik", basis, diagonal, basis)
            return found

        one, two = turned(first), turned(second)
        weight = np.concatenate([np.zeros((n, m, m * (LAGS - 2))), two, one], -1)
        bias = target - np.einsum("nij,nj->ni", one + two, target)
        hop = rng.gamma(0.5, size=n - 1) + 0.02
        stay = 1 - 1 / self.mean_duration
        transition = np.zeros((n, n))
        rows = np.arange(n)
        transition[rows, rows] = stay
        for step, share in enumerate(hop / hop.sum(), 1):
            transition[rows, (rows + step) % n] = (1 - stay) * share
        usage = np.full(n, 1 / n)
        return TrueParameters(weight, bias, turned(innovation), usage, transition, loading, mean)

    def session(self, index: int) -> SyntheticSession:
        """Simulate one session; independent of the others."""
        truth, m, n_frames = self.truth, self.n_latent, self.lengths[index]
        rng = np.random.default_rng([self.seed, 1, index])
        syllable = self._syllables(rng, n_frames)
        latent = np.empty((n_frames, m))
        latent[:LAGS] = rng.normal(size=(min(LAGS, n_frames), m)) * START_VARIANCE**0.5
        z = syllable[LAGS:]
        if len(z):
            root = np.linalg.cholesky(truth.covariance)
            drive = np.zeros((len(z), 2 * m))
            drive[:, m:] = truth.bias[z]
            drive[:, m:] += np.einsum("tij,tj->ti", root[z], rng.normal(size=(len(z), m)))
            # Of two frames at once: [x_{t-1}, x_t] from [x_{t-2}, x_{t-1}].
            both = np.zeros((len(truth.bias), 2 * m, 2 * m))
            both[:, :m, m:] = np.eye(m)
            both[:, m:] = truth.weight[:, :, -2 * m :]
            start = latent[LAGS - 2 : LAGS].ravel()
            latent[LAGS:] = affine_scan(both[z], drive, start)[:, m:]
        heading = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.normal(size=n_frames) * self.turn)
        step = rng.normal(size=(n_frames, 2)) * self.step_variance**0.5
        step[:1] = rng.normal(size=(1, 2)) * CENTROID_START_VARIANCE**0.5
        centroid = np.cumsum(step, 0)
        pose = truth.mean + np.tensordot(latent, truth.loading, 1)
        position, confidence = self._observe(rng, rotate(pose, heading) + centroid[:, None])
        return SyntheticSession(
            position.astype(np.float32),
            confidence.astype(np.float32),
            syllable.astype(np.int16),
            latent,
            np.angle(np.exp(1j * heading)),
            centroid,
        )

    def _syllables(self, rng: np.random.Generator, n_frames: int) -> np.ndarray:
        """Draw labels: geometric bouts, the next syllable so many numbers further on."""
        n = 2 * self.n_pairs
        leave = self.truth.transition[0, 1:]
        n_bouts = n_frames + 1
        hop = rng.choice(np.arange(1, n), size=n_bouts, p=leave / leave.sum())
        duration = rng.geometric(1 / self.mean_duration, n_bouts)
        first = int(rng.integers(n))
        drawn = np.repeat((first + np.cumsum(hop) - hop[0]) % n, duration)
        found = np.empty(n_frames, np.int64)
        found[LAGS:] = drawn[: max(0, n_frames - LAGS)]
        found[:LAGS] = first  # before the first frame that has a state
        return found

    def _observe(
        self, rng: np.random.Generator, position: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add the noise of the tracker, and leave keypoints out."""
        n_frames, n_points, _ = position.shape
        is_outlier = rng.random((n_frames, n_points)) < self.outlier_fraction
        low, high = (
            rng.uniform(*limits, (n_frames, n_points)) for limits in ((0.005, 0.1), (0.85, 1.0))
        )
        confidence = np.where(is_outlier, low, high).astype(np.float32).astype(np.float64)
        usual = NOISE_SLOPE * np.log10(confidence + PSEUDOCOUNT) + NOISE_INTERCEPT
        noise = NOISE_DOF * 100**usual / rng.chisquare(NOISE_DOF, (n_frames, n_points))
        noise = np.sqrt(self.noise_variance * noise)
        position = position + noise[..., None] * rng.normal(size=position.shape)
        share = min(1.0, self.missing_fraction / (1 - self.clear_fraction))
        covered = _CLEAR_RUN * (1 - self.clear_fraction) / max(1e-9, self.clear_fraction)
        is_clear = _runs(rng, n_frames, _CLEAR_RUN, covered)
        hidden = _VISIBLE_RUN * share / max(1e-9, 1 - share)
        is_missing = np.stack(
            [~_runs(rng, n_frames, _VISIBLE_RUN, hidden) for _ in range(n_points)], 1
        )
        is_missing &= ~is_clear[:, None]
        position = np.where(is_missing[..., None], np.nan, position)
        return position, np.where(is_missing, 0.0, confidence)


def _runs(rng: np.random.Generator, n_frames: int, mean: float, mean_between: float) -> np.ndarray:
    """Frames in runs of geometric length, with gaps of geometric length: (frame,) bool."""
    if not mean_between:
        return np.ones(n_frames, bool)
    lengths = np.empty(2 * n_frames + 2, np.int64)
    lengths[0::2] = rng.geometric(min(1.0, 1 / mean), n_frames + 1)
    lengths[1::2] = rng.geometric(min(1.0, 1 / mean_between), n_frames + 1)
    is_on = np.arange(len(lengths)) % 2 == 0
    if rng.random() >= mean / (mean + mean_between):  # geometric runs forget how they began
        lengths, is_on = lengths[1:], is_on[1:]
    ends = np.searchsorted(np.cumsum(lengths), n_frames) + 1
    return np.repeat(is_on[:ends], lengths[:ends])[:n_frames]
