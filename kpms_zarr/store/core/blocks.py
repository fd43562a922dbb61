"""Blocks of frames that exist: (session, start, stop), aligned to chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK


@dataclass(frozen=True, order=True)
class Block:
    """Consecutive frames of one session.

    Attributes
    ----------
    session : int
        Index along the session dimension.
    start, stop : int
        Frames, ``start`` a multiple of the block length; never reaches into padding.
    """

    session: int
    start: int
    stop: int

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.stop - self.start


def iter_blocks(
    sessions: Iterable[Session], block_frames: int = FRAMES_PER_CHUNK
) -> Iterator[Block]:
    """Iterate over the blocks of some sessions, session by session, frames in order."""
    for session in sessions:
        for start in range(0, session.n_frames, block_frames):
            yield Block(session.index, start, min(start + block_frames, session.n_frames))
