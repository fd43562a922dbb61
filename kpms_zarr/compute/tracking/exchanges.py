"""Stretches of frames in which the tracker exchanged left and right.

A keypoint and its mirror image, such as the two ears, lie on either side of the line from the rear
to the front. Where both are on the wrong side, and got there by a jump onto each other's place, the
tracker has exchanged them; an animal that turns or rolls carries them along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kpms_zarr.compute.alignment.alignment import Compass, heading_of, is_valid
from kpms_zarr.store.rotation import rotate

N_STRETCHES = 5
"""Longest stretches of a session and pair that are kept."""

_SIDES = ("left", "right")
_SURE = 0.3
"""Share of the usual distance from side to side that both must have to count as on a side."""
_SHORT = 0.4
"""Share of the usual length of the animal below which its direction is not known."""
_FAR = 3.0
_GAP_SECONDS = 0.2
_JUMP = 0.5
_MIRRORED = 0.35


# ------------------------------------------------------------------ pairs


def pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Left and right keypoints with the same name but for the side, by number.

    ``ear_left`` and ``ear_right``, ``leftEar`` and ``rightEar``, ``L_hip`` and ``R_hip``,
    ``earL`` and ``earR``, and ``earl`` where there is ``earr``.
    """
    sides: list[dict[str, int]] = [{}, {}]
    for number, name in enumerate(names):
        found = _side_of(name)
        if found is not None:
            side, rest = found
            sides[side].setdefault(rest, number)
    both = sides[0].keys() & sides[1].keys()
    paired = {side[rest] for side in sides for rest in both}
    free = {name.lower(): number for number, name in enumerate(names) if number not in paired}
    for name, number in free.items():
        if len(name) > 2 and name.endswith("l") and f"{name[:-1]}r" in free:
            sides[0][name[:-1]], sides[1][name[:-1]] = number, free[f"{name[:-1]}r"]
    return tuple((sides[0][rest], sides[1][rest]) for rest in sides[0] if rest in sides[1])


def _side_of(name: str) -> tuple[int, str] | None:
    """Split a name into its side, 0 = left or 1 = right, and the rest in small letters."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    lower = [word.lower() for word in words]
    for side, long in enumerate(_SIDES):
        for word in (long, long[0]):
            if lower.count(word) == 1 and len(lower) > 1:
                return side, " ".join(one for one in lower if one != word)
        glued = re.fullmatch(rf"({long})(.+)|(.+)({long})", name.lower())
        if glued:
            return side, (glued[2] or glued[3]).strip("_-. ")
    return None


def pairs_by_geometry(pose: np.ndarray, paired: Sequence[int] = ()) -> tuple[tuple[int, int], ...]:
    """Keypoints that are each other's nearest mirror image, left one first.

    Parameters
    ----------
    pose : ndarray, (keypoint, space)
        Typical, the animal facing +x, centred on its long axis; NaN = not known.
    paired : sequence of int
        Keypoints that are paired already.
    """
    free = [k for k in range(len(pose)) if k not in paired and np.isfinite(pose[k]).all()]
    if len(free) < 2:
        return ()
    points = pose[free]
    mirrored = points * np.array([1.0, -1.0, 1.0][: pose.shape[1]])
    distance = np.linalg.norm(points[:, None] - mirrored[None], axis=-1)
    nearest = distance.argmin(1)
    found = []
    for i, j in enumerate(nearest):
        if i < j and nearest[j] == i:
            apart = abs(points[i, 1] - points[j, 1])
            if distance[i, j] < _MIRRORED * apart:
                # y grows to the left of an animal that faces +x, where y points up
                found.append((free[i], free[int(j)]))
    return tuple(found)


# ------------------------------------------------------------------ first pass: what is usual


class Usual(NamedTuple):
    """Sums over frames with a known direction, in lengths of the animal.

    Attributes
    ----------
    n_frames, n_undefined : int
        Frames with both ends, and those of them in which the ends are on the same spot.
    log_length : float
        Sum of the logarithms of the distance between the ends.
    position : ndarray, (keypoint, space)
        Sum of positions in the frame of the animal, the middle between its ends at 0.
    number : ndarray, (keypoint,)
        Of the positions.
    """

    n_frames: int
    n_undefined: int
    log_length: float
    position: np.ndarray
    number: np.ndarray

    @classmethod
    def of_block(cls, position: np.ndarray, valid: np.ndarray, compass: Compass) -> Usual:
        """Sum over frames: position (frame, keypoint, space), valid (frame, keypoint)."""
        n_keypoints, n_space = position.shape[1:]
        if not (compass.anterior and compass.posterior):
            return cls(0, 0, 0.0, np.zeros((n_keypoints, n_space)), np.zeros(n_keypoints))
        known = valid[:, [*compass.anterior, *compass.posterior]].all(1)
        own, length = _own_frame(position[known].astype(np.float64), compass)
        is_there = length > 0
        unit = own[is_there] / length[is_there, None, None]
        counted = valid[known][is_there]
        clipped = np.where(counted[..., None], np.clip(unit, -_FAR, _FAR), 0)
        return cls(
            int(known.sum()),
            int((~is_there).sum()),
            float(np.log(length[is_there]).sum()),
            clipped.sum(0),
            counted.sum(0).astype(np.float64),
        )

    def add(self, other: Usual) -> Usual:
        """Add the counts of other frames."""
        both: list[Any] = [a + b for a, b in zip(self, other, strict=True)]  # type: ignore[operator]
        return Usual(*both)

    @property
    def length(self) -> float:
        """Length of the animal, geometric mean; NaN without a direction."""
        n_known = self.n_frames - self.n_undefined
        return float(np.exp(self.log_length / n_known)) if n_known else float("nan")

    @property
    def pose(self) -> np.ndarray:
        """Typical pose, (keypoint, space) in lengths of the animal; NaN where not known."""
        number = np.where(self.number > 0, self.number, np.nan)
        return np.asarray(self.position / number[:, None])


def _own_frame(position: np.ndarray, compass: Compass) -> tuple[np.ndarray, np.ndarray]:
    """Positions as the animal sees them, its middle at 0, and the distance of its ends."""
    front = position[:, compass.anterior].mean(1)
    rear = position[:, compass.posterior].mean(1)
    length = np.linalg.norm((front - rear)[:, :2], axis=-1)
    middle = (front + rear) / 2
    own = rotate(position - middle[:, None], -heading_of(position, compass))
    return own, length


# ------------------------------------------------------------------ second pass: who is where


class Sides(NamedTuple):
    """Sides on which a pair is in consecutive frames, as changes; adds up across borders.

    Attributes
    ----------
    frame : ndarray, (2,) int64
        First and last frame in which the sides are known; -1 = in none.
    is_wrong : ndarray, (2,) bool
        Whether the two are exchanged in these frames.
    place : ndarray, (2, 2, space)
        Positions of the left and the right one there.
    before, after : ndarray, (change,) int64
        Last frame before a change, and first one after it.
    jumped : ndarray, (change,) int8
        1 = by a jump onto each other's place, -1 = on their own way, 0 = unseen, in a gap.
    """

    frame: np.ndarray
    is_wrong: np.ndarray
    place: np.ndarray
    before: np.ndarray
    after: np.ndarray
    jumped: np.ndarray

    @classmethod
    def of_block(cls, across: np.ndarray, place: np.ndarray, start: int, most_gap: int) -> Sides:
        """Sides in a block.

        Parameters
        ----------
        across : ndarray, (frame,)
            How far the right one is from the left one to its usual side, in usual distances; NaN
            where not known.
        place : ndarray, (frame, 2, space)
        start : int
            First frame.
        most_gap : int
            Frames that a jump may take.
        """
        at = np.flatnonzero(np.abs(np.nan_to_num(across)) > _SURE)
        if not at.size:
            none = np.zeros(0, np.int64)
            return cls(
                np.full(2, -1), np.zeros(2, bool), np.zeros((2, *place.shape[1:])),
                none, none, none.astype(np.int8),
            )  # fmt: skip
        wrong = across[at] < 0
        change = np.flatnonzero(wrong[1:] != wrong[:-1])
        before, after = at[change], at[change + 1]
        ends = at[[0, -1]]
        return cls(
            ends + start, wrong[[0, -1]], place[ends], before + start, after + start,
            _jumped(place[before], place[after], after - before, most_gap),
        )  # fmt: skip

    def add(self, later: Sides, most_gap: int) -> Sides:
        """Add the sides in the frames that follow."""
        if self.frame[0] < 0:
            return later
        if later.frame[0] < 0:
            return self
        changes = [(self.before, self.after, self.jumped)]
        if self.is_wrong[1] != later.is_wrong[0]:
            step = later.frame[:1] - self.frame[1:]
            jumped = _jumped(self.place[1:], later.place[:1], step, most_gap)
            changes.append((self.frame[1:], later.frame[:1], jumped))
        changes.append((later.before, later.after, later.jumped))
        return Sides(
            np.array([self.frame[0], later.frame[1]]),
            np.array([self.is_wrong[0], later.is_wrong[1]]),
            np.stack([self.place[0], later.place[1]]),
            *(np.concatenate(values) for values in zip(*changes, strict=True)),
        )

    def stretches(self) -> np.ndarray:
        """First frames and frames after the last, (stretch, 2), of what the tracker exchanged."""
        if self.frame[0] < 0:
            return np.zeros((0, 2), np.int64)
        begin = np.append(self.frame[0], self.after)
        end = np.append(self.before, self.frame[1]) + 1
        evidence = np.concatenate([[0], self.jumped, [0]]).astype(int)
        wrong = (np.arange(len(begin)) % 2 == 0) == bool(self.is_wrong[0])
        ends = np.stack([evidence[:-1], evidence[1:]])
        is_exchange = wrong & (ends.max(0) == 1) & (ends.min(0) >= 0)
        return np.stack([begin, end], 1)[is_exchange]


def _jumped(
    before: np.ndarray, after: np.ndarray, n_frames: np.ndarray, most_gap: int
) -> np.ndarray:
    """Whether pairs moved onto each other's place: places (change, 2, space)."""
    own = np.linalg.norm(after - before, axis=-1).sum(-1)
    crossed = np.linalg.norm(after[:, ::-1] - before, axis=-1).sum(-1)
    seen = n_frames <= most_gap
    return np.where(~seen, 0, np.where(crossed < _JUMP * own, 1, -1)).astype(np.int8)


class Exchanges(NamedTuple):
    """Sides of all pairs of a session, and the frames that a jump may take."""

    sides: tuple[Sides, ...]
    most_gap: int

    def add(self, later: Exchanges) -> Exchanges:
        """Add the sides in the frames that follow."""
        pairs = zip(self.sides, later.sides, strict=True)
        return Exchanges(tuple(a.add(b, self.most_gap) for a, b in pairs), self.most_gap)

    def finalise(self) -> dict[str, np.ndarray]:
        """Frames, (pair,), and longest stretches, (pair, stretch); -1 = none."""
        n_frames = np.zeros(len(self.sides), np.int64)
        kept = np.full((len(self.sides), N_STRETCHES, 2), -1, np.int64)
        for pair, sides in enumerate(self.sides):
            found = sides.stretches()
            length = found[:, 1] - found[:, 0]
            n_frames[pair] = length.sum()
            longest = found[np.argsort(-length, kind="stable")[:N_STRETCHES]]
            kept[pair, : len(longest)] = longest
        return {
            "exchanged_frames": n_frames,
            "exchange_start": kept[..., 0],
            "exchange_stop": kept[..., 1],
        }


class Search(NamedTuple):
    """Search of the second pass over a session.

    Attributes
    ----------
    pairs : tuple of (int, int)
    across : ndarray, (pair,)
        Usual place of the right one seen from the left one, to the side, in units of position.
    length : float
        Of the animal.
    threshold : float
        Of confidence.
    most_gap : int
        Frames that a jump may take.
    """

    pairs: tuple[tuple[int, int], ...]
    across: np.ndarray
    length: float
    compass: Compass
    threshold: float
    most_gap: int

    def of_block(self, position: np.ndarray, confidence: np.ndarray, start: int) -> Exchanges:
        """Sides of all pairs in a block of frames."""
        valid = is_valid(position, confidence, self.threshold)
        ends = [*self.compass.anterior, *self.compass.posterior]
        known = valid[:, ends].all(1)
        position = np.where(valid[..., None], position, 0).astype(np.float64)
        own, length = _own_frame(position, self.compass)
        known &= length > _SHORT * self.length
        found = []
        for (left, right), usual in zip(self.pairs, self.across, strict=True):
            is_seen = known & valid[:, left] & valid[:, right]
            across = np.where(is_seen, (own[:, right, 1] - own[:, left, 1]) / usual, np.nan)
            place = position[:, [left, right]]
            found.append(Sides.of_block(across, place, start, self.most_gap))
        return Exchanges(tuple(found), self.most_gap)


def pairs_of(names: Sequence[str], usual: Mapping[int, Usual]) -> tuple[tuple[int, int], ...]:
    """Pairs of a study: by name, and by the typical pose of all sessions for the rest."""
    pairs = pairs_by_name(names)
    sums = [one for one in usual.values() if one.n_frames > one.n_undefined]
    if not sums:
        return ()
    whole = sums[0]
    for one in sums[1:]:
        whole = whole.add(one)
    taken = [point for pair in pairs for point in pair]
    return (*pairs, *pairs_by_geometry(whole.pose, taken))


def search_of(
    usual: Usual,
    pairs: Sequence[tuple[int, int]],
    compass: Compass,
    threshold: float,
    fps: float,
) -> Search:
    """Make the search of a session; pairs that lie on no side of it are never sure."""
    pose = usual.pose
    left, right = (np.array([pair[i] for pair in pairs], int) for i in (0, 1))
    across = (pose[right, 1] - pose[left, 1]) * usual.length
    small = np.abs(across) < 0.02 * usual.length
    gap = max(1, round(_GAP_SECONDS * fps)) if np.isfinite(fps) else 1
    return Search(
        tuple(pairs), np.where(small, np.nan, across), usual.length, compass, threshold, gap
    )
