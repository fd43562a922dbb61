"""Lines between the keypoints of a study that came without a skeleton: a tree from its poses."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import xarray as xr
from scipy.sparse.csgraph import minimum_spanning_tree

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.study.tracking import read_tracked

GUESSED = (
    "The lines between keypoints are guessed from the typical pose; give your own as "
    "skeleton to ingest, such as nose-neck,neck-tailbase."
)
_MOST_SESSIONS = 8
"""The first ones of a store, so that lines stay when sessions are added."""
_MOST_FRAMES = 500
"""Of a session."""
_MOST_DISTANCES = 2e7
_LENGTH = 0.2
"""Weight of the length of a line against how much it varies: measured on mice, flies and rats."""


@dataclass(frozen=True)
class DrawnSettings(StudySettings):
    """Settings of a study as its views draw it.

    Attributes
    ----------
    is_guessed : bool
        Whether the skeleton was guessed.
    """

    is_guessed: bool = False


def drawn_settings(store: StoreLike, root: access.Group | None = None) -> DrawnSettings:
    """Settings of a store, with a skeleton also where nobody has given one.

    Reads a piece of a few sessions, once in a process; where those cannot be read, there are no
    lines. ``root``: the store, where it is open already.
    """
    root = access.open_group(store) if root is None else root
    found = read_settings(root)
    given = {field.name: getattr(found, field.name) for field in fields(found)}
    if found.skeleton or len(found.keypoints) < 2:
        return DrawnSettings(**given)
    first = tuple(access.sessions(root)[:_MOST_SESSIONS])
    try:
        rows = _guessed(os.fspath(store), found.keypoints, first)
    except (OSError, ValueError, RuntimeError):  # who reads on will say what is damaged
        return DrawnSettings(**given)
    lines = tuple((found.keypoints[i], found.keypoints[j]) for i, j in rows)
    return DrawnSettings(**{**given, "skeleton": lines}, is_guessed=bool(lines))


def note_on(settings: StudySettings) -> str:
    """Note for people where lines are guessed, or ""."""
    return GUESSED if isinstance(settings, DrawnSettings) and settings.is_guessed else ""


@lru_cache(maxsize=16)
def _guessed(
    store: str, keypoints: tuple[str, ...], sessions: tuple[Session, ...]
) -> tuple[tuple[int, int], ...]:
    data = access.dataset(store, layout.KEYPOINTS)
    pairs = max(1, len(keypoints) ** 2)
    most = max(10, min(_MOST_FRAMES, int(_MOST_DISTANCES / pairs / max(1, len(sessions)))))
    poses = [_sample(data, session, most) for session in sessions]
    return tuple(guessed_bones(np.concatenate(poses))) if poses else ()


def _sample(data: xr.Dataset, session: Session, max_frames: int) -> np.ndarray:
    """Poses from the first chunk of a session, their typical size 1."""
    stop = min(session.n_frames, FRAMES_PER_CHUNK)
    position, _ = read_tracked(data, session.index, slice(0, stop, -(-stop // max_frames)))
    position = position.astype(np.float64)  # squares of any float32
    seen = np.isfinite(position).all((1, 2))
    whole = position[seen] if seen.any() else position
    spread = np.nanmax(whole, 1, initial=-np.inf) - np.nanmin(whole, 1, initial=np.inf)
    size = float(np.median(np.linalg.norm(spread, axis=-1))) if len(spread) else 0.0
    return position / size if np.isfinite(size) and size > 0 else position


def guessed_bones(position: np.ndarray) -> list[tuple[int, int]]:
    """Lines that join keypoints whose distance varies least, as short ones as possible.

    A tree: all keypoints that are ever seen together are joined, without circles.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
        NaN = missing; in frames of different sessions in the same units.

    Returns
    -------
    list of (int, int)
        Rows of keypoints, ascending.
    """
    weight = np.zeros((position.shape[1],) * 2)
    for one in range(1, position.shape[1]):
        distance = np.linalg.norm(position[:, :one] - position[:, one : one + 1], axis=-1)
        known = np.isfinite(distance).any(0)
        if not known.any():
            continue
        low, middle, high = np.nanpercentile(distance[:, known], (10, 50, 90), axis=0)
        # SciPy takes what is below 1e-8 for no line.
        weight[one, :one][known] = high - low + _LENGTH * middle + 1e-6
    tree = minimum_spanning_tree(weight).tocoo()
    return sorted((int(j), int(i)) for i, j in zip(tree.row, tree.col, strict=True))
