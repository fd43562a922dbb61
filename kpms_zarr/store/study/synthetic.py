"""Simulated sessions of a switching model with known syllables, for tests, demos and benchmarks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import StudySettings, write_settings


@dataclass(frozen=True)
class SyntheticStudy:
    """A study that can be simulated to any size, session by session, always the same.

    Each of ``n_syllables`` syllables is a damped rotation around a target pose with a turning
    rate and a speed of its own; bouts last 1 + geometric frames; observations have heavy tails
    and confidences that tell which ones.

    Attributes
    ----------
    n_sessions : int
    n_frames : int
        Frames of a session; with ``is_ragged`` the mean of lengths from 0.3 to 1.7 times that.
    n_syllables, n_keypoints, n_latent : int
    n_space : int
        2 or 3.
    mean_duration : float
        Mean bout length, in frames.
    outlier_fraction, missing_fraction : float
        Shares of keypoints that are misplaced, and that are NaN.
    fps : float
        Frames per second.
    seed : int
    is_ragged : bool
    lengths : tuple of int or None
        Frames of each session, in place of all that is said above about their number and length.
    """

    n_sessions: int = 10
    n_frames: int = 10_000
    n_syllables: int = 12
    n_keypoints: int = 8
    n_latent: int = 4
    n_space: int = 2
    mean_duration: float = 12.0
    outlier_fraction: float = 0.01
    missing_fraction: float = 0.0
    fps: float = 30.0
    seed: int = 0
    is_ragged: bool = False
    lengths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.lengths is not None:
            object.__setattr__(self, "n_sessions", len(self.lengths))

    @property
    def settings(self) -> StudySettings:
        """Names of the keypoints, from rear to front, and the heading."""
        names = tuple(f"point{i}" for i in range(self.n_keypoints))
        return StudySettings(
            names,
            ("x", "y", "z")[: self.n_space],
            (names[-1],),
            (names[0],),
            tuple(pairwise(names)),
        )

    @property
    def session_names(self) -> tuple[str, ...]:
        """``session_000``, ..."""
        width = max(3, len(str(self.n_sessions - 1)))
        return tuple(f"session_{i:0{width}d}" for i in range(self.n_sessions))

    def session(self, index: int) -> SyntheticSession:
        """Simulate one session; see :func:`simulate_session`."""
        return simulate_session(self, index)


@dataclass(frozen=True)
class SyntheticSession:
    """One simulated session.

    Attributes
    ----------
    position : ndarray, (frame, keypoint, space) float32
    confidence : ndarray, (frame, keypoint) float32
    syllable : ndarray, (frame,) int16
        The truth.
    latent : ndarray, (frame, latent)
    heading : ndarray, (frame,)
        In rad.
    centroid : ndarray, (frame, space)
    """

    position: np.ndarray
    confidence: np.ndarray
    syllable: np.ndarray
    latent: np.ndarray
    heading: np.ndarray
    centroid: np.ndarray


class SimulatedStudy(Protocol):
    """Study of which any session can be simulated, such as :class:`SyntheticStudy`."""

    @property
    def session_names(self) -> tuple[str, ...]: ...

    @property
    def settings(self) -> StudySettings: ...

    @property
    def fps(self) -> float: ...

    @property
    def seed(self) -> int: ...

    def session(self, index: int) -> SyntheticSession:
        """Simulate one session."""
        ...


@dataclass(frozen=True)
class _Truth:
    base: np.ndarray
    loading: np.ndarray
    target: np.ndarray
    dynamics: np.ndarray
    turn: np.ndarray
    speed: np.ndarray


def _truth(study: SyntheticStudy) -> _Truth:
    rng = np.random.default_rng([study.seed, 0])
    n, m = study.n_syllables, study.n_latent
    base, loading = body_of(rng, study.n_keypoints, m, study.n_space)
    skew = rng.normal(size=(n, m, m))
    dynamics = 0.88 * np.eye(m) + 0.1 * (skew - skew.transpose(0, 2, 1))
    radius = np.abs(np.linalg.eigvals(dynamics)).max(-1)
    dynamics /= np.maximum(1.0, radius / 0.93)[:, None, None]
    return _Truth(
        base,
        loading,
        rng.normal(size=(n, m)) * 1.5,
        dynamics,
        rng.normal(size=n) * 0.04,
        np.abs(rng.normal(size=n)) * 2.0,
    )


def body_of(
    rng: np.random.Generator, n_keypoints: int, n_latent: int, n_space: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a body: mean pose (keypoint, space) and loading (latent, keypoint, space)."""
    k, m, d = n_keypoints, n_latent, n_space
    base = np.zeros((k, d))
    base[:, 0] = np.linspace(-40, 40, k)
    base[:, 1] = 8 * np.sin(np.linspace(0, 3, k))
    loading = rng.normal(size=(m, k, d)) * np.array([4, 6, 5])[:d]
    # The heading is the direction from the rear to the front point, as in the alignment.
    base[:, 1] -= np.linspace(base[0, 1], base[-1, 1], k)
    loading[:, [0, -1], 1] = 0
    loading -= loading.mean(1, keepdims=True)
    return base, loading


def simulate_session(study: SyntheticStudy, index: int) -> SyntheticSession:
    """Simulate one session of a study; independent of the other sessions."""
    truth = _truth(study)
    rng = np.random.default_rng([study.seed, 1, index])
    if study.lengths is not None:
        n_frames = study.lengths[index]
    else:
        n_frames = int(study.n_frames * (rng.uniform(0.3, 1.7) if study.is_ragged else 1))
    syllable = _bouts(rng, n_frames, study.n_syllables, study.mean_duration)
    noise = rng.normal(size=(n_frames, study.n_latent)) * 0.12
    target = truth.target[syllable]
    drive = target - np.einsum("tij,tj->ti", truth.dynamics[syllable], target) + noise
    latent = affine_scan(truth.dynamics[syllable], drive, target[0])
    heading = np.cumsum(truth.turn[syllable]) + rng.uniform(-np.pi, np.pi)
    step = truth.speed[syllable, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    centroid = np.zeros((n_frames, study.n_space))
    centroid[:, :2] = _fold(np.cumsum(step, 0) + rng.uniform(200, 400, 2), 50.0, 550.0)
    pose = truth.base + np.einsum("tm,mkd->tkd", latent, truth.loading)
    position = rotate(pose, heading) + centroid[:, None]
    position, confidence = _observe(rng, study, position)
    return SyntheticSession(
        position.astype(np.float32),
        confidence.astype(np.float32),
        syllable.astype(np.int16),
        latent,
        np.angle(np.exp(1j * heading)),
        centroid,
    )


def write_store(store: StoreLike, study: SimulatedStudy) -> None:
    """Write a whole study straight into a new store, one session in memory at a time."""
    root = access.create(store)
    write_settings(root, study.settings)
    group = create_keypoints(root, study.settings)
    lengths: list[int] = []
    for row, name in enumerate(study.session_names):
        session = study.session(row)
        n_frames = len(session.syllable)
        set_session_count(group, row + 1, max(n_frames, *lengths, 0))
        for start in range(0, n_frames, FRAMES_PER_CHUNK):
            block = Block(row, start, min(start + FRAMES_PER_CHUNK, n_frames))
            for array in ("position", "confidence"):
                values = getattr(session, array)[start : block.stop]
                regions.write(group[array], block, values, n_frames=n_frames)  # type: ignore[arg-type]
        table = {
            "session": [name],
            "recording": [name],
            "source": ["simulated"],
            "source_hash": [f"simulated-{study.seed}-{row}"],
            "source_format": ["synthetic"],
            "individual": [""],
        }
        write_session_rows(group, row, table, study.fps)
        lengths.append(n_frames)
    group["n_frames"][:] = np.asarray(lengths)  # type: ignore[index]


def write_dlc_csv(folder: str | Path, study: SyntheticStudy) -> list[Path]:
    """Write a 2-D study as DeepLabCut csv files, one a session; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, name in enumerate(study.session_names):
        session = simulate_session(study, index)
        path = folder / f"{name}.csv"
        write_dlc_session(path, study.settings.keypoints, session.position, session.confidence)
        paths.append(path)
    return paths


def write_dlc_session(
    path: Path, keypoints: Sequence[str], position: np.ndarray, confidence: np.ndarray
) -> None:
    """Write (frame, keypoint, 2) positions and (frame, keypoint) confidences as DeepLabCut csv."""
    header = [
        ["scorer"] + ["simulated"] * 3 * len(keypoints),
        ["bodyparts"] + [name for name in keypoints for _ in range(3)],
        ["coords"] + ["x", "y", "likelihood"] * len(keypoints),
    ]
    table = np.concatenate([position, confidence[..., None]], -1)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(header)
        frames = np.arange(len(table))[:, None]
        np.savetxt(
            file,
            np.concatenate([frames, table.reshape(len(table), -1)], 1),
            fmt=["%d"] + ["%.3f"] * 3 * len(keypoints),
            delimiter=",",
        )


def _bouts(rng: np.random.Generator, n_frames: int, n: int, mean_duration: float) -> np.ndarray:
    """Labels of bouts with 1 + geometric lengths; never the same syllable twice in a row."""
    n_bouts = n_frames // 2 + 1
    duration = 1 + rng.geometric(1 / (mean_duration - 1), n_bouts)
    hop = 1 + rng.integers(n - 1, size=n_bouts)
    return np.repeat((rng.integers(n) + np.cumsum(hop)) % n, duration)[:n_frames]


def affine_scan(weight: np.ndarray, drive: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Solve x_t = weight_t x_{t-1} + drive_t for all frames, in log2(frames) products."""
    drive = drive.copy()
    drive[0] += weight[0] @ start
    weight, shift = weight.copy(), 1
    while shift < len(drive):
        drive[shift:] += np.einsum("tij,tj->ti", weight[shift:], drive[:-shift])
        weight[shift:] = weight[shift:] @ weight[:-shift]
        shift *= 2
    return drive


def _fold(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Reflect an unbounded path at the walls of the arena."""
    span = high - low
    return low + span - np.abs((values - low) % (2 * span) - span)


def _observe(
    rng: np.random.Generator, study: SyntheticStudy, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shape = position.shape[:2]
    is_outlier = rng.random(shape) < study.outlier_fraction
    position = (
        position + rng.normal(size=position.shape) * np.where(is_outlier, 15.0, 0.7)[..., None]
    )
    low, high = rng.uniform(0.02, 0.4, shape), rng.uniform(0.85, 1.0, shape)
    confidence = np.where(is_outlier, low, high)
    is_missing = rng.random(shape) < study.missing_fraction
    return np.where(is_missing[..., None], np.nan, position), np.where(is_missing, 0.0, confidence)
