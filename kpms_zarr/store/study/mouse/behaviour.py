"""What a simulated mouse does: its syllables, how long each lasts, and which follows which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SEGMENTS = ("rump", "loin", "back", "shoulder", "head")
"""Of the spine, from the base of the tail to the nose."""


@dataclass(frozen=True)
class Programme:
    """What the body aims at during one syllable; every bout draws its own amounts around it.

    Attributes
    ----------
    name : str
    duration : float
        Typical length of a bout, in s.
    pitch : tuple of float
        Of each of ``SEGMENTS`` against the floor, nose up positive, in degrees.
    height : float
        Of the base of the tail above the floor, in mm.
    speed : float
        Forward, in mm/s.
    turning : float
        Of the pelvis, in rad/s, left positive.
    bend : float
        Of the spine from the pelvis to the neck, in rad, left positive.
    head_yaw : float
        Yaw of the head against the neck, in rad, left positive.
    scanning : float
        Amplitude of the head's swings to both sides, in rad.
    grooming, rearing : float
        How far the forepaws are at the nose, or lifted with the chest; 0 to 1.
    """

    name: str
    duration: float
    pitch: tuple[float, ...]
    height: float = 13.0
    speed: float = 0.0
    turning: float = 0.0
    bend: float = 0.0
    head_yaw: float = 0.0
    scanning: float = 0.0
    grooming: float = 0.0
    rearing: float = 0.0

    @property
    def is_locomotion(self) -> bool:
        """Whether it needs room in front."""
        return self.speed > 60 and not self.turning


_STANDING = (26.0, 8.0, -6.0, -10.0, -16.0)
_TURNING = (24.0, 8.0, -6.0, -10.0, -14.0)

SYLLABLES = (
    Programme("pause", 0.60, (32.0, 14.0, -9.0, -14.0, -20.0), height=11.0),
    Programme("sniff", 0.65, (25.0, 7.0, -8.0, -16.0, -30.0), speed=14.0, scanning=0.50),
    Programme("groom", 1.00, (62.0, 46.0, 8.0, -38.0, -72.0), height=8.0, grooming=1.0),
    Programme("rear", 0.80, (52.0, 62.0, 66.0, 56.0, 24.0), height=10.0, rearing=1.0),
    Programme("walk", 0.60, _STANDING, speed=95.0),
    Programme("run", 0.45, (16.0, 4.0, -4.0, -2.0, -8.0), height=15.0, speed=260.0),
    Programme("turn left", 0.40, _TURNING, speed=28.0, turning=2.7, bend=0.80, head_yaw=0.30),
    Programme("turn right", 0.40, _TURNING, speed=28.0, turning=-2.7, bend=-0.80, head_yaw=-0.30),
)
"""Known to every simulated mouse; a label is a place here."""

NAMES = tuple(one.name for one in SYLLABLES)

_WEIGHT = np.array(
    [
        #  pau  sni  gro  rea  wal  run  left right
        [0.00, 0.35, 0.15, 0.05, 0.30, 0.03, 0.06, 0.06],
        [0.15, 0.00, 0.10, 0.18, 0.32, 0.05, 0.10, 0.10],
        [0.40, 0.40, 0.00, 0.03, 0.11, 0.00, 0.03, 0.03],
        [0.15, 0.45, 0.05, 0.00, 0.20, 0.03, 0.06, 0.06],
        [0.16, 0.25, 0.04, 0.10, 0.00, 0.15, 0.15, 0.15],
        [0.08, 0.07, 0.01, 0.04, 0.50, 0.00, 0.15, 0.15],
        [0.12, 0.22, 0.03, 0.08, 0.40, 0.10, 0.00, 0.05],
        [0.12, 0.22, 0.03, 0.08, 0.40, 0.10, 0.05, 0.00],
    ]
)
"""How often a syllable (row) is followed by another (column), in a mouse that got nothing."""

_GAMMA_SHAPE = 5.0
"""Of the lengths of bouts: a standard deviation of about 0.45 of the mean."""
_SHORTEST, _LONGEST = 0.2, 2.0  # s
_INDIVIDUALITY = 40.0
"""Shape of the gamma variables by which animals differ in each weight: about 16 %."""


@dataclass(frozen=True)
class Temper:
    """What one animal is like.

    Attributes
    ----------
    size, pace : float
        Factors of all lengths and of all speeds.
    weight : ndarray, (epoch, syllable, syllable)
        How often a syllable (row) is followed by another (column), in each part of the session.
    """

    size: float
    pace: float
    weight: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, *effects: Mapping[str, float]) -> Temper:
        """Draw an animal.

        Parameters
        ----------
        effects : mapping of str to float
            For each part of the session: how many times as often a syllable is chosen.
        """
        size, pace = 1 + 0.04 * rng.normal(), np.exp(0.10 * rng.normal())
        own = rng.gamma(_INDIVIDUALITY, 1 / _INDIVIDUALITY, _WEIGHT.shape)
        factors = np.array([[one.get(name, 1.0) for name in NAMES] for one in effects])
        weight = _WEIGHT * own * factors[:, None, :]
        return cls(float(size), float(pace), weight / weight.sum(-1, keepdims=True))


def next_syllable(rng: np.random.Generator, weight: np.ndarray) -> int:
    """Draw what follows, by a row of :class:`Temper`."""
    return int(
        np.searchsorted(np.cumsum(weight), rng.random() * weight.sum()).clip(0, len(weight) - 1)
    )


def bout_frames(rng: np.random.Generator, syllable: int, fps: float) -> int:
    """Draw the length of a bout, in frames."""
    typical = SYLLABLES[syllable].duration
    seconds = rng.gamma(_GAMMA_SHAPE, typical / _GAMMA_SHAPE)
    return max(2, round(float(np.clip(seconds, _SHORTEST, _LONGEST)) * fps))
