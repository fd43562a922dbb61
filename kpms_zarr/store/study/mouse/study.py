"""A simulated study of mice in an open field, whose syllables and groups are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from kpms_zarr.store.study.mouse.behaviour import NAMES, Temper
from kpms_zarr.store.study.mouse.body import KEYPOINTS, SKELETON, keypoints_of
from kpms_zarr.store.study.mouse.motion import Motion, move, smooth_noise
from kpms_zarr.store.study.mouse.tracker import Tracking, track
from kpms_zarr.store.study.settings import StudySettings

EPOCHS = ("arrival", "settled")
"""First and second half of a session."""
SETTLING: Mapping[str, float] = MappingProxyType({"walk": 0.7, "run": 0.5})
"""How many times as often an animal that has settled chooses a syllable."""
GROUPS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"saline": MappingProxyType({}), "drug": MappingProxyType({"groom": 1.8, "rear": 0.5})}
)
"""How many times as often a group chooses a syllable."""
SIGNAL_RATE = 20.0
"""Samples of the simulated photometry per s."""
_RISE, _FALL = 0.12, 0.9  # s, of a transient
_SPONTANEOUS = 0.10  # transients per s that have nothing to do with behaviour


@dataclass(frozen=True)
class MouseStudy:
    """Study of mice, one session each, that is simulated session by session, always the same.

    Each mouse is a body of rigid bones that walks, runs, turns, rears, grooms, sniffs and pauses in
    a round open field, as chains of syllables of 0.2 to 2 s, and is tracked with the faults that
    trackers have: errors that grow as the confidence falls, gaps, left and right exchanged, points
    that jump. Groups choose some syllables more often than others; animals differ, too.

    Attributes
    ----------
    n_animals : int
        Of each group.
    n_frames : int
        Of a session.
    n_space : int
        2: a camera above, in px; 3: triangulated, in mm.
    fps : float
        Frames per second.
    seed : int
    groups : mapping of str to (mapping of str to float)
        Name of a group -> syllable -> how many times as often it is chosen.
    """

    n_animals: int = 8
    n_frames: int = 3_600
    n_space: int = 2
    fps: float = 30.0
    seed: int = 0
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: GROUPS)

    @property
    def syllables(self) -> tuple[str, ...]:
        """Names of the syllables, by label."""
        return NAMES

    @property
    def settings(self) -> StudySettings:
        """Keypoints from rear to front, heading and bones."""
        space = ("x", "y", "z")[: self.n_space]
        return StudySettings(KEYPOINTS, space, ("nose",), ("tail_base",), SKELETON)

    @property
    def session_names(self) -> tuple[str, ...]:
        """``mouse01``, ..., the groups in turn."""
        return tuple(f"mouse{i + 1:02d}" for i in range(self.n_animals * len(self.groups)))

    def group(self, index: int) -> str:
        """Group of a session."""
        return list(self.groups)[index % len(self.groups)]

    @property
    def epoch(self) -> np.ndarray:
        """Place in ``EPOCHS`` of each frame, (frame,)."""
        return np.arange(self.n_frames) * len(EPOCHS) // self.n_frames

    def session(self, index: int) -> MouseSession:
        """Simulate one session; independent of the other sessions."""
        rng = np.random.default_rng([self.seed, index])
        effects = self.groups[self.group(index)]
        settled = {
            name: effects.get(name, 1.0) * SETTLING.get(name, 1.0) for name in self.syllables
        }
        temper = Temper.draw(rng, effects, settled)
        motion = move(rng, temper, self.n_frames, self.fps, self.epoch)
        point = keypoints_of(rng, motion, temper.size, self.fps)
        found = track(rng, point, motion, self.n_space, self.fps)
        signal = _photometry(rng, motion.syllable == NAMES.index("groom"), self.fps)
        return MouseSession(
            found.position.astype(np.float32),
            found.confidence.astype(np.float32),
            motion.syllable.astype(np.int16),
            point, motion, found, signal,
        )  # fmt: skip


@dataclass(frozen=True)
class MouseSession:
    """One simulated session.

    Attributes
    ----------
    position : ndarray, (frame, keypoint, space) float32
        As tracked, NaN in gaps.
    confidence : ndarray, (frame, keypoint) float32
    syllable : ndarray, (frame,) int16
        The truth, as places in ``MouseStudy.syllables``.
    point : ndarray, (frame, keypoint, 3)
        The truth, in mm.
    motion : Motion
        What the body does.
    tracking : Tracking
        Where the tracker is wrong.
    signal : ndarray, (sample,)
        Photometry at ``SIGNAL_RATE``, dF/F in %, that rises when grooming begins.
    """

    position: np.ndarray
    confidence: np.ndarray
    syllable: np.ndarray
    point: np.ndarray
    motion: Motion
    tracking: Tracking
    signal: np.ndarray


def _photometry(rng: np.random.Generator, is_grooming: np.ndarray, fps: float) -> np.ndarray:
    """Transients at the onsets of grooming, and at any time; noise, and a slow drift."""
    n = int(len(is_grooming) / fps * SIGNAL_RATE) + 1  # to the end
    onset = np.flatnonzero(np.diff(is_grooming.astype(int), prepend=0) == 1) / fps
    spike = np.zeros(n)
    at = (onset * SIGNAL_RATE).astype(int).clip(0, n - 1)
    np.add.at(spike, at, rng.gamma(6.0, 3.0 / 6.0, len(at)))
    spike += (rng.random(n) < _SPONTANEOUS / SIGNAL_RATE) * rng.gamma(4.0, 2.0 / 4.0, n)
    time = np.arange(0, 6 * _FALL, 1 / SIGNAL_RATE)
    kernel = np.exp(-time / _FALL) - np.exp(-time / _RISE)
    signal = np.convolve(spike, kernel / kernel.max())[:n]
    drift = smooth_noise(rng, (n,), 10.0, SIGNAL_RATE)
    return np.asarray(signal + 0.3 * drift + 0.5 * rng.normal(size=n))
