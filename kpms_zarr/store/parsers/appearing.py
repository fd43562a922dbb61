"""Individuals that a file lists, but that never appear in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.parsers.base import PoseBlock, TrackHeader, some

_NOR = ", or only with a confidence of 0 or below"


def appears(block: PoseBlock, key: str) -> bool:
    """Whether a block holds a keypoint of a track that is not missing."""
    return not is_missing(block.position[key], block.confidence.get(key)).all()


def only_appearing(
    tracks: Sequence[TrackHeader], blocks: Callable[[], Iterator[PoseBlock]], where: str
) -> tuple[tuple[TrackHeader, ...], tuple[str, ...]]:
    """Leave out tracks of which nothing was tracked, with a note.

    A file of one animal without a name is not looked at, others only until all have been seen.

    Raises
    ------
    InputError
        When none of them appears.
    """
    absent = [track.key for track in tracks]
    if absent == [""]:
        return tuple(tracks), ()
    for block in blocks():
        absent = [key for key in absent if key not in block.position or not appears(block, key)]
        if not absent:
            return tuple(tracks), ()
    if len(absent) == len(tracks):
        raise nobody_appears(absent, where)
    return tuple(track for track in tracks if track.key not in absent), (left_out(absent),)


def left_out(absent: Sequence[str]) -> str:
    """Note on individuals that never appear."""
    return f"left out {some(list(absent))}: no coordinates in the whole file{_NOR}"


def nobody_appears(absent: Sequence[str], where: str, what: str = "individual") -> InputError:
    """Error for a file in which nobody appears."""
    return InputError(
        expected=f"at least one {what} with coordinates",
        found=f"no coordinates at all for {some(list(absent))}{_NOR}",
        where=where,
        fix="check the tracking of this video, or leave the file out",
    )
