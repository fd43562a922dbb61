"""Versions of the timestamps of sessions: written chunk by chunk, in force when they are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes, layout, regions
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.model.models import finished_versions, make_group
from kpms_zarr.store.study.timestamps import FramesOf, StudyTimes, versions_in_force


class TimestampWriter:
    """Writer of a version; the lock of the sessions is held.

    Parameters
    ----------
    root : zarr.Group
    frames : sequence of FramesOf
        What it is of, one row each.

    Attributes
    ----------
    version : str
    """

    def __init__(self, root: zarr.Group, frames: Sequence[FramesOf]) -> None:
        self._root, self._frames = root, tuple(frames)
        self._before = versions_in_force(root)
        above = make_group(root, layout.TIMESTAMPS, "timestamps")
        self.version = f"v{1 + len(finished_versions(above))}"
        # What a killed process left of this number was never in force.
        group = above.create_group(self.version, overwrite=True)
        columns = {
            "session": [one.session for one in frames],
            "n_frames": [one.n_frames for one in frames],
            "source_hash": [one.source_hash for one in frames],
            "first_frame": [one.first_frame for one in frames],
            "frame_step": [one.frame_step for one in frames],
        }
        layout.write_values(group, "timestamps", columns)
        sizes = {"session": len(frames), "frame": max(one.n_frames for one in frames)}
        layout.create_arrays(group, "timestamps", sizes, ("timestamp",))

    def row(self, number: int) -> TimestampRow:
        """Writer of the times of one row."""
        return TimestampRow(self._root, self.version, number, self._frames[number].n_frames)

    def publish(self, settings: Mapping[str, Any]) -> None:
        """Put it in force; versions go out of it of whose sessions all have newer times."""
        group = access.subgroup(self._root, f"{layout.TIMESTAMPS}/{self.version}")
        assert group is not None
        attributes.write(group, provenance("timestamps", settings))
        held = StudyTimes(self._root).held
        current = {version for frames, (version, _) in held.items() if frames not in self._frames}
        ordered = sorted({*current, self.version}, key=lambda version: int(version[1:]))
        update_attributes(self._root, layout.TIMESTAMPS, {"current": ordered})
        consolidate(self._root, [layout.TIMESTAMPS])

    def withdraw(self) -> None:
        """Take it out of force and delete it: as if it had never been."""
        update_attributes(self._root, layout.TIMESTAMPS, {"current": list(self._before)})
        self.discard()
        consolidate(self._root, [layout.TIMESTAMPS])

    def discard(self) -> None:
        """Delete what was written."""
        access.delete_group(self._root, f"{layout.TIMESTAMPS}/{self.version}")


class TimestampRow:
    """Writer of the times of one session, in order, in whole chunks."""

    def __init__(self, root: zarr.Group, version: str, row: int, n_frames: int) -> None:
        group = access.subgroup(root, f"{layout.TIMESTAMPS}/{version}")
        assert group is not None
        self._array: Any = group["timestamp"]
        self._row, self._n_frames = row, n_frames
        self._start, self._waiting, self._n_waiting = 0, list[np.ndarray](), 0

    def add(self, times: np.ndarray) -> None:
        """Add the times of the next frames, (frame,) float64."""
        self._waiting.append(times)
        self._n_waiting += len(times)
        chunk = self._array.chunks[1]
        while self._n_waiting >= chunk or (
            self._n_waiting and self._start + self._n_waiting == self._n_frames
        ):
            every = np.concatenate(self._waiting)
            n = min(chunk, len(every))
            block = Block(self._row, self._start, self._start + n)
            regions.write(self._array, block, every[:n], n_frames=self._n_frames)
            self._waiting, self._n_waiting = [every[n:]], len(every) - n
            self._start += n


def put_none_in_force(root: zarr.Group) -> None:
    """Have no version hold: times are frame / fps again."""
    update_attributes(root, layout.TIMESTAMPS, {}, without=["current"])
