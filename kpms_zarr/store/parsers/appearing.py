"""Individuals that a file has a place for, but that never appear in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import PoseBlock, TrackHeader, some


def only_appearing(
    tracks: Sequence[TrackHeader], blocks: Callable[[], Iterator[PoseBlock]], where: str
) -> tuple[tuple[TrackHeader, ...], tuple[str, ...]]:
    """Leave out tracks without a single coordinate, with a note.

    A file with one track is not looked at, others only until all tracks have been seen.

    Raises
    ------
    InputError
        When none of several appears.
    """
    if len(tracks) < 2:
        return tuple(tracks), ()
    absent = [track.key for track in tracks]
    for block in blocks():
        absent = [
            key
            for key in absent
            if key not in block.position or not np.isfinite(block.position[key]).any()
        ]
        if not absent:
            return tuple(tracks), ()
    if len(absent) == len(tracks):
        raise InputError(
            expected="at least one individual with coordinates",
            found=f"no coordinates at all for {some(absent)}",
            where=where,
            fix="check the tracking of this video, or leave the file out",
        )
    note = f"left out {some(absent)}: no coordinates in the whole file"
    return tuple(track for track in tracks if track.key not in absent), (note,)
