"""Arrays with an axis for the tracks, as HDF5 files of SLEAP and sleap-anipose have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import h5py
import numpy as np

from kpms_zarr.store.errors import Problem
from kpms_zarr.store.parsers.appearing import only_appearing
from kpms_zarr.store.parsers.base import PoseBlock, TrackHeader, float32, some

# Frames looked at in one go while searching for tracks that never appear.
_SCAN_FRAMES = 4096
LARGEST_BLOCK_BYTES = 64_000_000

RENAME = "rename the nodes of the skeleton in SLEAP, and export again"

_TARGET = ("track", "frame", "node", "xy")


def individuals(n_tracks: int) -> tuple[str, ...]:
    """Names of the individuals: of the only track none, else its number.

    Names that people or trackers give to tracks differ between the files of one study, and are
    neither unique nor safe in names of sessions: they are told in a note.
    """
    return ("",) if n_tracks == 1 else tuple(f"track{i}" for i in range(n_tracks))


def names_note(names: Sequence[str]) -> tuple[str, ...]:
    """Say what the file calls its tracks, unless it only numbers them."""
    named = [
        f"`{name}` is {individual}" if individual else f"`{name}`"
        for i, (name, individual) in enumerate(zip(names, individuals(len(names)), strict=True))
        if name not in ("", f"track_{i}", f"track{i}")
    ]
    more = ", ..." if len(named) > 5 else ""
    return (f"names of tracks in the file: {', '.join(named[:5])}{more}",) if named else ()


def wrong_names(names: Sequence[str], where: str, fix: str) -> Iterator[Problem]:
    """Problem of keypoints without a name, or with the same."""
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice or "" in names:
        yield Problem(
            expected="a name of its own for every keypoint",
            found=f"the name {some(twice)} more than once" if twice else "an empty name",
            where=where,
            fix=fix,
        )


@dataclass(frozen=True)
class Grid:
    """Arrays of a file that have one axis each for tracks, frames, nodes and space.

    Attributes
    ----------
    position : Dataset
    axes : tuple of str
        What the axes of `position` are: track, frame, node and xy, in the order of the file.
    confidence : Dataset or None
        With the same axes but xy.
    tracks : dict of str to int
        Which track is read under which key.
    """

    position: h5py.Dataset
    axes: tuple[str, ...]
    confidence: h5py.Dataset | None
    tracks: dict[str, int]

    def size(self, axis: str) -> int:
        """Length of an axis."""
        return int(self.position.shape[self.axes.index(axis)])

    def problems(self, where: str) -> Iterator[Problem]:
        """Problems of the shapes of the arrays, whatever their numbers."""
        empty = [axis for axis in ("frame", "track", "node") if self.size(axis) == 0]
        if empty:
            yield Problem(
                expected="at least one frame, track and node",
                found=f"0 {empty[0]}s",
                where=where,
                fix="export the tracking of this video again, or leave the file out",
            )

    def blocks(self, block_frames: int) -> Iterator[PoseBlock]:
        """Iterate over the frames, at most `block_frames` at a time, fewer of very many tracks."""
        n_frames = self.size("frame")
        step = min(block_frames, max(1, LARGEST_BLOCK_BYTES // self._frame_bytes()))
        piece = self._piece(step)
        for first in range(0, n_frames, piece):
            position = float32(self._slab(self.position, self.axes, first, piece))
            if self.confidence is not None:
                axes = tuple(axis for axis in self.axes if axis != "xy")
                confidence = float32(self._slab(self.confidence, axes, first, piece))
            for start in range(first, min(first + piece, n_frames), step):
                here = slice(start - first, start - first + step)
                yield PoseBlock(
                    start,
                    {key: position[track, here] for key, track in self.tracks.items()},
                    {}
                    if self.confidence is None
                    else {key: confidence[track, here] for key, track in self.tracks.items()},
                )

    def _piece(self, step: int) -> int:
        """Frames to read at once: a chunk at least, so that none is unpacked again and again."""
        chunk = self.position.chunks[self.axes.index("frame")] if self.position.chunks else 1
        piece = step * -(-chunk // step)
        return piece if piece * self._frame_bytes() <= LARGEST_BLOCK_BYTES else step

    def _frame_bytes(self) -> int:
        size = self.size("track") * self.size("node") * (self.size("xy") + 1)
        return max(1, size * max(4, self.position.dtype.itemsize))

    @staticmethod
    def _slab(data: h5py.Dataset, axes: tuple[str, ...], start: int, n: int) -> np.ndarray:
        where = tuple(slice(start, start + n) if axis == "frame" else slice(None) for axis in axes)
        return np.transpose(data[where], [axes.index(axis) for axis in _TARGET if axis in axes])

    def only_appearing(
        self, tracks: Sequence[TrackHeader], where: str
    ) -> tuple[Grid, tuple[TrackHeader, ...], tuple[str, ...]]:
        """Leave out tracks without a single position; the headers left, and notes."""
        left, notes = only_appearing(tracks, partial(self.blocks, _SCAN_FRAMES), where)
        keys = [track.key for track in left]
        return replace(self, tracks={key: self.tracks[key] for key in keys}), left, notes
