"""The path of a simulated mouse through its arena, and what its body aims at on the way."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import gaussian_filter1d

from kpms_zarr.store.study.mouse.behaviour import (
    NAMES,
    SEGMENTS,
    SYLLABLES,
    Programme,
    Temper,
    bout_frames,
    next_syllable,
)

ARENA_RADIUS = 225.0
"""Of the round open field, in mm."""
SPINE_LENGTH = np.array([18.0, 18.0, 19.0, 15.0, 23.0])
"""Of each of ``SEGMENTS``, in mm: 93 mm from the base of the tail to the nose."""
BEND_SHARE = np.array([0.0, 0.25, 0.55, 0.8, 1.0])
"""Of the bend of the spine, that the yaw of each segment has."""

_CHANNELS = (*SEGMENTS, "height", "speed", "turning", "bend", "head_yaw", "scanning", "grooming",
             "rearing")  # fmt: skip
_AT = {name: place for place, name in enumerate(_CHANNELS)}
_PITCH = slice(0, len(SEGMENTS))

_LAG = np.full(len(_CHANNELS), 0.055)
"""Time constants with which the body follows, in s."""
_LAG[_PITCH] = 0.09
_LAG[[_AT["height"], _AT["rearing"]]] = 0.09
_SCAN_RATE = 1.7  # Hz
_SLOWNESS = (0.25, 0.4, 0.3, 0.2)
"""Of the irregularities of speed, turning, bend and head, in s."""
_CLEARANCE = 18.0
"""Between the wall and the points of the midline, in mm: half of a head, and some noise."""

# Ways to keep off the wall, the mildest first: steering (rad/s), share of the speed and of the
# turning, whether the spine stays as it is.
_WAYS = np.array(
    sorted(
        product((0.0, 0.8, -0.8, 1.6, -1.6), (1.0, 0.6, 0.3, 0.0), (1.0, 0.6, 0.0), (0.0, 1.0)),
        key=lambda way: abs(way[0]) + 3 * (1 - way[1]) + 2 * (1 - way[2]) + 4 * way[3],
    )
)
_TURNS = (NAMES.index("turn left"), NAMES.index("turn right"))
_STAYS = (NAMES.index("pause"), NAMES.index("sniff"))
_LAST_WAY = int(np.flatnonzero((np.array([0, 0, 0, 1]) == _WAYS).all(1))[0])
"""Nothing moves; possible wherever the animal is."""


@dataclass(frozen=True)
class Motion:
    """Motion of one animal, in mm, s and rad; the floor is z = 0, its middle the origin.

    Attributes
    ----------
    syllable : ndarray, (frame,)
    root : ndarray, (frame, 2)
        Base of the tail.
    heading : ndarray, (frame,)
        Of the pelvis, not wrapped.
    speed, turning, bend, head_yaw, height, grooming, rearing : ndarray, (frame,)
        See :class:`Programme`; ``head_yaw`` with its scanning.
    pitch : ndarray, (frame, segment)
        In rad.
    """

    syllable: np.ndarray
    root: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    turning: np.ndarray
    bend: np.ndarray
    head_yaw: np.ndarray
    height: np.ndarray
    grooming: np.ndarray
    rearing: np.ndarray
    pitch: np.ndarray


@dataclass(frozen=True)
class _Noise:
    """Slow irregularities, each (frame,) with unit variance; ``scan`` swings from -1 to 1."""

    speed: np.ndarray
    turning: np.ndarray
    bend: np.ndarray
    head: np.ndarray
    scan: np.ndarray


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], seconds: float, fps: float
) -> np.ndarray:
    """Noise of unit variance along the first axis that changes within so many seconds."""
    width = seconds * fps
    noise = gaussian_filter1d(rng.normal(size=shape), width, axis=0, mode="wrap")
    return noise * np.sqrt(2 * np.sqrt(np.pi) * width)


def move(
    rng: np.random.Generator, temper: Temper, n_frames: int, fps: float, epoch: np.ndarray
) -> Motion:
    """Let an animal behave.

    Parameters
    ----------
    temper : Temper
    n_frames : int
    fps : float
    epoch : ndarray, (frame,) int
        Row of ``temper.weight`` that holds in each frame.
    """
    speed, turning, bend, head = (smooth_noise(rng, (n_frames,), s, fps) for s in _SLOWNESS)
    phase = 2 * np.pi * _SCAN_RATE * np.arange(n_frames) / fps
    scan = np.sin(phase + 2 * smooth_noise(rng, (n_frames,), 0.5, fps))
    noise = _Noise(speed, turning, bend, head, scan)
    mover = _Mover(rng, temper, fps, noise)
    syllable, start = int(rng.integers(len(SYLLABLES))), 0
    while start < n_frames:
        n = min(bout_frames(rng, syllable, fps), n_frames - start)
        mover.bout(syllable, slice(start, start + n))
        start += n
        if start < n_frames:
            syllable = next_syllable(rng, temper.weight[epoch[start], mover.last])
    return mover.motion()


class _Mover:
    """Mover: makes one bout after the other, each from where the last one has ended."""

    def __init__(self, rng: np.random.Generator, temper: Temper, fps: float, noise: _Noise) -> None:
        self.rng, self.temper, self.fps, self.noise = rng, temper, fps, noise
        radius, angle = ARENA_RADIUS * 0.4 * np.sqrt(rng.random()), rng.uniform(-np.pi, np.pi)
        self.root = radius * np.array([np.cos(angle), np.sin(angle)])
        self.heading = rng.uniform(-np.pi, np.pi)
        self.state = _aims(SYLLABLES[0])
        self.last = -1
        self.parts: list[tuple[np.ndarray, ...]] = []

    def bout(self, syllable: int, frames: slice) -> None:
        """Add a bout: what lacks the room becomes a turn, and what cannot turn stays there."""
        amounts = self.rng.normal(size=len(_CHANNELS))
        tried = {syllable: self._ways(SYLLABLES[syllable], amounts, frames)}
        for others in (_TURNS, _STAYS):
            if any(ways.is_faithful for ways in tried.values()):
                break
            for one in others:
                if one not in (syllable, self.last):
                    tried[one] = self._ways(SYLLABLES[one], amounts, frames)
        faithful = [one for one, ways in tried.items() if ways.is_faithful]
        syllable = min(faithful, key=lambda one: (tried[one].first, tried[one].end_radius))
        self._take(syllable, tried[syllable])

    def _ways(self, programme: Programme, amounts: np.ndarray, frames: slice) -> _Ways:
        aims = _varied(programme, amounts, self.temper.pace)
        seconds = np.arange(1, frames.stop - frames.start + 1)[:, None] / self.fps
        left = (1 + seconds / _LAG) * np.exp(-seconds / _LAG)
        channel = aims + (self.state - aims) * left
        # Mostly nothing is in the way.
        straight = _Ways(self, programme, channel, frames, _WAYS[:1])
        return straight if straight.is_possible else _Ways(self, programme, channel, frames, _WAYS)

    def _take(self, syllable: int, ways: _Ways) -> None:
        first, channel = ways.first, ways.channel.copy()
        channel[:, _AT["speed"]] = ways.speed[first]
        channel[:, _AT["turning"]] = ways.turning[first]
        channel[:, _AT["bend"]] = ways.bend[first]
        channel[:, _AT["head_yaw"]] = ways.head_yaw[first]
        root, heading = ways.root[first], ways.heading[first]
        self.parts.append((np.full(len(channel), syllable), root, heading, channel))
        self.root, self.heading, self.last = root[-1], float(heading[-1]), syllable
        # What is added to the channels themselves is added anew in the next bout.
        self.state = ways.plain(first)

    def motion(self) -> Motion:
        """Everything so far."""
        syllable, root, heading, channel = (
            np.concatenate(part) for part in zip(*self.parts, strict=True)
        )
        named = {name: channel[:, _AT[name]] for name in (
            "speed", "turning", "bend", "head_yaw", "height", "grooming", "rearing")}  # fmt: skip
        return Motion(syllable, root, heading, **named, pitch=np.deg2rad(channel[:, _PITCH]))


class _Ways:
    """Ways to do one bout, with those that end at the wall left out.

    Attributes
    ----------
    first : int
        The mildest that keeps the animal inside.
    is_possible : bool
        Whether it does.
    is_faithful : bool
        Whether the bout is still what it is called: it gets ahead, or turns. What happens on the
        spot always is.
    end_radius : float
        Distance of the animal from the middle at the end.
    """

    def __init__(
        self,
        mover: _Mover,
        programme: Programme,
        channel: np.ndarray,
        frames: slice,
        ways: np.ndarray,
    ) -> None:
        self.channel = channel
        steer, share, gain, hold = ways.T[:, :, None]
        noise = {
            name: getattr(mover.noise, name)[frames]
            for name in ("speed", "turning", "bend", "head", "scan")
        }
        column = {name: channel[:, place] for name, place in _AT.items()}
        self.speed = share * column["speed"] * (1 + 0.15 * noise["speed"])
        self._turning = gain * column["turning"]
        self.turning = self._turning + gain * 0.25 * noise["turning"] + steer
        before = mover.state
        self._bend = np.where(hold > 0, before[_AT["bend"]], column["bend"])
        self._head_yaw = np.where(hold > 0, before[_AT["head_yaw"]], column["head_yaw"])
        self.bend = self._bend + 0.07 * noise["bend"]
        seconds = np.arange(1, len(channel) + 1) / mover.fps
        ends = before[_AT["scanning"]] * np.exp(-seconds / 0.1)
        scanning = np.where(hold > 0, ends, column["scanning"])
        self.head_yaw = self._head_yaw + 0.08 * noise["head"] + scanning * noise["scan"]
        self.heading = mover.heading + np.cumsum(self.turning, 1) / mover.fps
        step = np.stack([np.cos(self.heading), np.sin(self.heading)], -1) * self.speed[..., None]
        self.root = mover.root + np.cumsum(step, 1) / mover.fps
        radius = self._midline_radius(mover.temper.size)
        # A head that swings may have come nearer: it may leave from there.
        most = ARENA_RADIUS - _CLEARANCE
        allowed = (radius <= np.clip(radius[:, :1] + 0.5, most, most + 7.0)).all(1)
        if not programme.is_locomotion:
            allowed &= ways[:, 0] == 0
        self.is_possible = bool(allowed.any())
        self.first = int(np.argmax(allowed)) if self.is_possible or len(ways) == 1 else _LAST_WAY
        self.way = ways[self.first]
        _, share, gain, hold = self.way
        self.is_faithful = bool(
            (not programme.is_locomotion or (share >= 0.6 and gain == 1 and not hold))
            and (not programme.turning or (gain >= 0.6 and not hold))
        )
        self.end_radius = float(np.linalg.norm(self.root[self.first, -1]))

    def _midline_radius(self, size: float) -> np.ndarray:
        """Distance of the outermost point of the midline from the middle, spine stretched out."""
        point, radius = self.root, np.linalg.norm(self.root, axis=-1)
        for share, length in zip(BEND_SHARE, SPINE_LENGTH * size, strict=True):
            yaw = self.heading + share * self.bend + (self.head_yaw if share == 1 else 0)
            point = point + length * np.stack([np.cos(yaw), np.sin(yaw)], -1)
            radius = np.maximum(radius, np.linalg.norm(point, axis=-1))
        return radius

    def plain(self, way: int) -> np.ndarray:
        """Channels at the end of the bout, without their irregularities."""
        state = self.channel[-1].copy()
        state[_AT["speed"]] *= self.way[1]
        state[_AT["turning"]] = self._turning[way, -1] + self.way[0]
        state[_AT["bend"]], state[_AT["head_yaw"]] = self._bend[way, -1], self._head_yaw[way, -1]
        return state


def _aims(programme: Programme) -> np.ndarray:
    named = {name: getattr(programme, name) for name in _CHANNELS if name not in SEGMENTS}
    return np.array([*programme.pitch, *(named[name] for name in _CHANNELS[len(SEGMENTS) :])])


def _varied(programme: Programme, amounts: np.ndarray, pace: float) -> np.ndarray:
    """What one bout aims at: pitches within some degrees, amounts within a fifth."""
    aims = _aims(programme)
    aims[_PITCH] += 3.0 * amounts[_PITCH]
    for name in ("speed", "turning", "bend", "head_yaw", "scanning"):
        aims[_AT[name]] *= np.exp(0.18 * amounts[_AT[name]])
    aims[_AT["speed"]] *= pace
    if not programme.turning:
        aims[_AT["bend"]] += 0.10 * amounts[_AT["bend"]]
        aims[_AT["head_yaw"]] += 0.12 * amounts[_AT["head_yaw"]]
        aims[_AT["turning"]] += 0.15 * amounts[_AT["turning"]] * (programme.speed > 0)
    return aims
