"""Counts of transitions between syllables in a study, or in some of its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK, USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData

MOST_SHOWN = 40
"""Syllables in a view, the most frequent ones."""
NORMALISATIONS = {"row": "of the changes from the syllable", "overall": "of all changes"}
"""What shares are shares of."""


@dataclass(frozen=True)
class TransitionCounts:
    """Changes from one syllable to another at consecutive frames of a session.

    Attributes
    ----------
    changes : ndarray, (state, state_next) int64
        0 on the diagonal.
    frequency : ndarray, (state,) float64
        Share of the labelled frames.
    """

    changes: np.ndarray
    frequency: np.ndarray
    n_sessions: int

    def share(self, normalise: str = "row") -> np.ndarray:
        """Changes in %, (state, state_next): ``"row"``, of those from the syllable; ``"overall"``.

        Raises
        ------
        InputError
            For another normalisation.
        """
        if normalise not in NORMALISATIONS:
            raise InputError(
                expected=" or ".join(map(repr, NORMALISATIONS)),
                found=repr(normalise),
                where="normalise",
                fix="choose one of these",
            )
        total = self.changes.sum(1, keepdims=True) if normalise == "row" else self.changes.sum()
        return np.asarray(100 * self.changes / np.maximum(total, 1))

    @property
    def used(self) -> np.ndarray:
        """Syllables with 0.5 % of the frames or more, 40 at most, most frequent first."""
        order = np.argsort(-self.frequency, kind="stable")
        return order[self.frequency[order] >= USED_FRACTION][:MOST_SHOWN]


@dataclass(frozen=True)
class Neighbours:
    """Syllables before or after a syllable, most frequent first.

    Attributes
    ----------
    syllable : ndarray, (neighbour,) int
    share : ndarray, (neighbour,)
        In % of all changes to, or from, the syllable.
    count : ndarray, (neighbour,) int
    """

    syllable: np.ndarray
    share: np.ndarray
    count: np.ndarray


def count_transitions(
    opened: OpenModel,
    *,
    sessions: Sequence[str] | None = None,
) -> TransitionCounts:
    """Count the changes between syllables.

    Parameters
    ----------
    sessions : sequence of str, optional
        Selectors: names, patterns such as ``mouse_*``, ``coordinate=value`` (see
        ``store.selection``). Default: all sessions with labels, as they were counted when the
        labels were published. Others are read block by block; the last few answers are kept.

    Raises
    ------
    InputError
        When there is no such model, or no such session with labels.
    MissingData
        When no frame has a syllable.
    """
    names = None if sessions is None else _labelled(opened, sessions)
    created = str(opened.provenance.get("created", ""))
    found = _counted(str(opened.store), opened.model, opened.version, created, names)
    if not np.nansum(found.frequency) > 0:
        raise MissingData(
            expected="any syllable",
            found="sessions without",
            where=str(opened.store),
            fix="choose other sessions, or look at the tracking with `kpms_zarr.quality`",
        )
    return found


def _labelled(opened: OpenModel, selectors: Sequence[str]) -> tuple[str, ...]:
    """Names of the chosen sessions that have labels."""
    chosen = select_sessions(opened.store, selectors, "sessions")
    known = {session.name for session in opened.sessions}
    names = tuple(session.name for session in chosen if session.name in known)
    if not names:
        raise InputError(
            expected="sessions with labels",
            found=f"{len(chosen)} without",
            where="sessions",
            fix="label them with `kpms_zarr.apply`, or choose others",
        )
    return names


@lru_cache(maxsize=32)
def _counted(
    store: str, model: str, version: str, _created: str, names: tuple[str, ...] | None
) -> TransitionCounts:
    labels = OpenModel(store, model, version).labels
    sessions = reading.label_sessions(labels, names=names)
    if names is None and {"transition_count", "frequency"} <= set(labels.variables):
        changes, frequency = labels["transition_count"].values, labels["frequency"].values
        return TransitionCounts(changes, np.nan_to_num(frequency), len(sessions))
    return count_blocks(labels, sessions)


def count_blocks(
    labels: xr.Dataset,
    sessions: Sequence[Session],
    *,
    block_frames: int = LABEL_FRAMES_PER_CHUNK,
) -> TransitionCounts:
    """Count in one pass over the blocks of some sessions.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame).
    sessions : sequence of Session
        Rows of it.
    block_frames : int
        Frames read at once; the result does not depend on it.
    """
    n_states = int(labels.sizes.get("state", 0)) or 1
    changes, frames = np.zeros((n_states, n_states), np.int64), np.zeros(n_states, np.int64)
    before: tuple[int, int] = (-1, -1)  # session and last label of the block before
    for block, found in reading.label_blocks(labels, iter_blocks(sessions, block_frames)):
        syllable = found.astype(np.int64)
        last = before[1] if before[0] == block.session else -1
        changes, frames = _grown(changes, frames, int(syllable.max()) + 1)
        changes += _changes(np.append(last, syllable), len(frames))
        frames += np.bincount(syllable[syllable >= 0], minlength=len(frames))
        before = (block.session, int(syllable[-1]))
    return TransitionCounts(changes, frames / max(1, frames.sum()), len(sessions))


def _changes(syllable: np.ndarray, n_states: int) -> np.ndarray:
    """Changes between neighbouring frames: (state, state_next)."""
    here, after = syllable[:-1], syllable[1:]
    is_change = (here != after) & (here >= 0) & (after >= 0)
    pair = here[is_change] * n_states + after[is_change]
    return np.bincount(pair, minlength=n_states**2).reshape(n_states, n_states)


def _grown(changes: np.ndarray, frames: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for more syllables, where a version does not say how many there are."""
    more = max(0, n - len(frames))
    return np.pad(changes, (0, more)), np.pad(frames, (0, more))


def neighbours_of(
    changes: np.ndarray, syllable: int, *, max_neighbours: int
) -> tuple[Neighbours, Neighbours]:
    """Find what comes most often before a syllable, and after it.

    Parameters
    ----------
    changes : ndarray, (state, state_next) int
    max_neighbours : int
        Of each.

    Returns
    -------
    before, after : Neighbours
    """
    return (
        _most_frequent(changes[:, syllable], syllable, max_neighbours),
        _most_frequent(changes[syllable], syllable, max_neighbours),
    )


def _most_frequent(count: np.ndarray, syllable: int, max_neighbours: int) -> Neighbours:
    changes = np.array(count, dtype=np.int64)
    changes[syllable] = 0
    order = np.argsort(-changes, kind="stable")[:max_neighbours]
    order = order[changes[order] > 0]
    return Neighbours(order, 100 * changes[order] / max(1, changes.sum()), changes[order])
