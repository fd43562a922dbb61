"""Choice of tracked keypoints for a person to annotate: of all confidences, from many sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.tracking.deviations import PSEUDOCOUNT
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.study.settings import read_settings

MOST_SESSIONS = 12
"""Sessions of which a choice reads one block of frames each."""
_BIN_WIDTH = 0.5
"""Of log10(confidence + pseudocount): as many keypoints are chosen in each such bin."""
_APART = 10
"""Frames between two choices of the same keypoint, which else would err alike."""


@dataclass(frozen=True)
class TrackedPoint:
    """A keypoint in a frame, as the tracker found it.

    Attributes
    ----------
    session : str
    frame : int
        Of the session.
    keypoint : str
    confidence : float
    position : ndarray, (keypoint, space) float32
        Of all keypoints in this frame, in units of position; NaN = missing.
    """

    session: str
    frame: int
    keypoint: str
    confidence: float
    position: np.ndarray

    @property
    def place(self) -> tuple[str, int, str]:
        """What there is to look at."""
        return self.session, self.frame, self.keypoint


class _Candidates(NamedTuple):
    """Candidates of a block: (candidate,) each, and the positions of their frames."""

    frame: np.ndarray
    keypoint: np.ndarray
    bin: np.ndarray
    confidence: np.ndarray
    position: np.ndarray


def choose_points(
    store: StoreLike,
    sessions: Sequence[Session],
    number: int,
    *,
    seed: int = 0,
    without: Collection[tuple[str, int, str]] = (),
) -> list[TrackedPoint]:
    """Choose tracked keypoints at random: as many of each confidence and session as there are.

    Of at most twelve sessions, one random block of frames each is read, one after the other.
    Confidences fall into bins that are half a power of ten wide, from which keypoints are taken in
    turn, and of each bin from the sessions in turn.

    Parameters
    ----------
    store : path or URL
    sessions : sequence of Session
        That may be chosen from.
    number : int
        Keypoints to choose; fewer where there are not so many.
    seed : int
        The same for the same choice.
    without : collection of (session, frame, keypoint)
        Not to be chosen, nor what is within ten frames of them.

    Returns
    -------
    list of TrackedPoint
        In an order that tells nothing of their confidence.
    """
    rng = np.random.default_rng(seed)
    names = read_settings(access.open_group(store)).keypoints
    reader = BlockReader(store)
    chosen = [sessions[i] for i in rng.permutation(len(sessions))[:MOST_SESSIONS].tolist()]
    pool: dict[int, list[list[TrackedPoint]]] = {}
    for session in chosen:
        found = _candidates(reader, session, number, rng)
        for one in np.unique(found.bin).tolist():
            rows = np.flatnonzero(found.bin == one).tolist()
            points = [
                TrackedPoint(
                    session.name,
                    int(found.frame[row]),
                    names[found.keypoint[row]],
                    float(found.confidence[row]),
                    found.position[row],
                )
                for row in rows
            ]
            pool.setdefault(one, []).append(points)
    taken = _in_turn(pool, number, without)
    return [taken[i] for i in rng.permutation(len(taken)).tolist()]


def _candidates(
    reader: BlockReader, session: Session, number: int, rng: np.random.Generator
) -> _Candidates:
    """Read a random block of a session and take some candidates of each bin from it."""
    start = FRAMES_PER_CHUNK * int(rng.integers(-(-session.n_frames // FRAMES_PER_CHUNK)))
    block = Block(session.index, start, min(start + FRAMES_PER_CHUNK, session.n_frames))
    position, confidence = reader.tracked(block)
    is_there = np.isfinite(position).all(-1) & np.isfinite(confidence)
    row, point = np.nonzero(is_there)
    rating = confidence[row, point].astype(np.float64)
    bins = np.floor(np.log10(np.maximum(rating, 0) + PSEUDOCOUNT) / _BIN_WIDTH).astype(np.int64)
    order = rng.permutation(len(row))
    kept: list[int] = []
    for one in np.unique(bins).tolist():
        # Some more, as some will be too near to each other.
        kept += order[bins[order] == one][: 3 * number].tolist()
    return _Candidates(
        start + row[kept], point[kept], bins[kept], rating[kept], position[row[kept]]
    )


def _in_turn(
    pool: dict[int, list[list[TrackedPoint]]],
    number: int,
    without: Collection[tuple[str, int, str]],
) -> list[TrackedPoint]:
    """Take from the bins in turn, of each from its sessions in turn; what is chosen lies apart."""
    frames: dict[tuple[str, str], list[int]] = {}
    for session, frame, keypoint in without:
        frames.setdefault((session, keypoint), []).append(frame)
    taken: list[TrackedPoint] = []
    waiting = {one: [list(reversed(points)) for points in pool[one]] for one in sorted(pool)}
    of_bin: dict[int, Counter[str]] = {one: Counter() for one in waiting}
    of_session: Counter[str] = Counter()
    while waiting and len(taken) < number:
        for one in list(waiting):
            # Bins take turns apart, or a short choice would be of the first session alone.
            waiting[one].sort(key=lambda queue: _taken(queue, of_bin[one], of_session))
            point = _next(waiting[one], frames)
            if point is None:
                del waiting[one]
            elif len(taken) < number:
                taken.append(point)
                of_bin[one][point.session] += 1
                of_session[point.session] += 1
    return taken


def _taken(queue: list[TrackedPoint], *counts: Counter[str]) -> tuple[int, ...]:
    """How many are taken of the session of a queue, by each count; nothing is first of all."""
    return tuple(count[queue[-1].session] for count in counts) if queue else ()


def _next(
    queues: list[list[TrackedPoint]], frames: dict[tuple[str, str], list[int]]
) -> TrackedPoint | None:
    """The next point of the first queue that has one."""
    while queues:
        queue = queues[0]
        while queue:
            point = queue.pop()
            near = frames.setdefault((point.session, point.keypoint), [])
            if all(abs(point.frame - other) > _APART for other in near):
                near.append(point.frame)
                return point
        queues.pop(0)
    return None
