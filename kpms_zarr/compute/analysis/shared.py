"""Sessions that several labellings have, and blocks of them that all are read by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.wording import counted, listed

BLOCK_FRAMES = 8 * LABEL_FRAMES_PER_CHUNK
"""Many chunks, so that little is read twice for changes at the edges of blocks."""


class Labelling(Protocol):
    """Labels of some sessions, read block by block; picklable where work is sent elsewhere."""

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Sessions, each with its row as index."""
        ...

    def syllable(self, row: int, start: int, stop: int) -> np.ndarray:
        """Labels, (frame,) int; -1 = none."""
        ...

    def certainty(self, row: int, start: int, stop: int) -> np.ndarray | None:
        """Certainties of the labels, (frame,) float, NaN = not known; None where none is."""
        ...


@dataclass(frozen=True)
class Shared:
    """A session as some labellings have it.

    Attributes
    ----------
    number : int
        Its own among all sessions.
    rate : int
        Number of its frame rate.
    n_frames : int
    rows : tuple of int
        Its row in each labelling; -1 = not there.
    """

    number: int
    rate: int
    n_frames: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Stretch:
    """Frames of a session from ``start`` to before ``stop``."""

    session: Shared
    start: int
    stop: int


def stretches(sessions: Sequence[Shared], block_frames: int = BLOCK_FRAMES) -> Iterator[Stretch]:
    """Cut sessions into blocks of at most so many frames, in order."""
    for session in sessions:
        for start in range(0, session.n_frames, block_frames):
            yield Stretch(session, start, min(start + block_frames, session.n_frames))


def shared_sessions(
    labellings: Mapping[str, Labelling], wanted: set[str] | None
) -> tuple[list[Shared], list[float], list[str]]:
    """Sessions that are read, frame rates by number, and notes of what is left out.

    ``wanted``: names, None = all.
    """
    tables = [{s.name: s for s in one.sessions} for one in labellings.values()]
    every = list(dict.fromkeys(name for table in tables for name in table))
    if wanted is not None:
        every = [name for name in every if name in wanted]
    shared: list[Shared] = []
    rates: list[float] = []
    notes: list[str] = []
    unequal: list[str] = []
    for name in every:
        have = [table[name] for table in tables if name in table]
        if len({session.n_frames for session in have}) > 1:
            unequal.append(name)
            continue
        if have[0].fps not in rates:
            rates.append(have[0].fps)
        rows = tuple(table[name].index if name in table else -1 for table in tables)
        rate = rates.index(have[0].fps)
        shared.append(Shared(len(shared), rate, have[0].n_frames, rows))
    if unequal:
        verb = "has" if len(unequal) == 1 else "have"
        notes.append(f"{listed(unequal)} {verb} not the same length in all of them, left out")
    for name, table in zip(labellings, tables, strict=True):
        without = [one for one in every if one not in table and one not in unequal]
        if without:
            sessions = counted(len(without), "session")
            notes.append(
                f"{name} has no labels of {sessions}: {listed(without, 3)}; left out there"
            )
    return shared, rates, notes
