"""Times of frames that tracking files bring along, kept with the sessions made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import zarr

from kpms_zarr.store.ingest.planning import PlannedFile, PlannedTrack
from kpms_zarr.store.ingest.time_filling import TimeFiller
from kpms_zarr.store.ingest.timestamp_versions import TimestampWriter
from kpms_zarr.store.parsers import parser_named
from kpms_zarr.store.parsers.base import FileHeader, ReadOptions
from kpms_zarr.store.study.timestamps import FramesOf, StudyTimes
from kpms_zarr.store.wording import counted

_NO_DIFFERENCE = 1e-6
"""Seconds by which times may differ from frame / fps without being kept: tables round to them."""


@dataclass(frozen=True)
class OwnTimes:
    """Times in a file of the frames of a planned session."""

    header: FileHeader
    options: ReadOptions
    track: PlannedTrack

    def blocks(self) -> Iterator[np.ndarray]:
        """Times of the frames that are taken, (frame,) float64 in s, in order."""
        track, window = self.track.header, self.track.window
        read = parser_named(self.header.format).times
        assert read is not None
        filler, row, frame = TimeFiller(), 0, 0
        for times in read(self.header.path, track.block_key, self.options):
            rows = np.arange(row, row + len(times))
            if track.gaps is not None and not track.gaps.is_filled:
                rows = track.gaps.frames(row, row + len(times))
            row += len(times)
            for part in filler.add(rows, times * track.time_scale):
                first = max(window.start - frame, 0)
                first += (window.start - frame - first) % window.step
                last = len(part) if window.stop is None else max(0, window.stop - frame)
                frame += len(part)
                yield part[first : last : window.step]

    def frames(self) -> FramesOf | None:
        """What they are of; None for times that are none, or say what frame / fps says."""
        n_frames, last, is_other = 0, -np.inf, False
        for times in self.blocks():
            if not (np.isfinite(times).all() and (np.diff(times, prepend=last) > 0).all()):
                return None
            plain = np.arange(n_frames, n_frames + len(times)) / self.track.fps
            is_other |= bool((np.abs(times - plain) > _NO_DIFFERENCE).any())
            n_frames += len(times)
            last = float(times[-1]) if len(times) else last
        if not (n_frames and is_other):
            return None
        track = self.track
        return FramesOf(
            track.session, n_frames, track.source_hash, track.first_frame, track.frame_step
        )


def keep_own_times(
    root: zarr.Group, files: Sequence[PlannedFile], options: ReadOptions, notes: list[str]
) -> TimestampWriter | None:
    """Write the times that files have of their frames, before there are sessions of them.

    Sessions that have times of these very frames already keep those. Whatever becomes of the
    sessions, times of frames that the store has not are those of nothing.

    Returns
    -------
    TimestampWriter or None
        Of the version that was put in force, to be withdrawn if the sessions are taken back.
    """
    own = [
        OwnTimes(file.probe.header, options, track)
        for file in files
        for track in file.tracks
        if track.header.time_scale and parser_named(file.probe.header.format).times is not None
    ]
    held = StudyTimes(root).held if own else {}
    found = [(one, frames) for one in own if (frames := one.frames()) and frames not in held]
    if not found:
        return None
    writer = TimestampWriter(root, [frames for _, frames in found])
    try:
        for number, (one, _) in enumerate(found):
            row = writer.row(number)
            for times in one.blocks():
                row.add(times)
        names = [one.header.path.name for one, _ in found]
        writer.publish({"files": list(dict.fromkeys(names))[:100]})
    except BaseException:
        writer.discard()
        raise
    notes.append(
        f"times of the frames of {counted(len(found), 'session')} kept as their files have them: "
        f"timestamps {writer.version} (`kpms_zarr.timestamps(STORE, 'none')` goes by frames per "
        "second)"
    )
    return writer
