"""The group of tracked data: created once, grown session by session, a session visible last."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.study.settings import StudySettings


def create_keypoints(root: zarr.Group, settings: StudySettings) -> zarr.Group:
    """Create the group of tracked data, without sessions; its provenance last."""
    group = root.create_group(layout.KEYPOINTS, overwrite=True)
    sizes = {
        "session": 0,
        "frame": 0,
        "keypoint": len(settings.keypoints),
        "space": len(settings.space),
    }
    layout.create_arrays(group, "keypoints", sizes)
    group["keypoint"][:] = np.asarray(settings.keypoints, dtype=object)  # type: ignore[index]
    group["space"][:] = np.asarray(settings.space, dtype=object)  # type: ignore[index]
    attributes.write(group, provenance("ingest"))
    return group


def set_session_count(group: zarr.Group, n_sessions: int, n_frames: int) -> None:
    """Set both growing dims; shrinking deletes the chunks outside, growing writes none."""
    lengths = group["n_frames"]
    if n_sessions < lengths.shape[0]:  # type: ignore[union-attr]
        # Rows share a chunk: what is cut off now must not come back when the table grows.
        lengths[n_sessions:] = 0  # type: ignore[index]
    # Also what people have added, such as the group of the animal.
    for name, array in access.arrays_below(group):
        dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
        if name in ("position", "confidence"):
            _resize(array, (n_sessions, n_frames, *array.shape[2:]))
        elif dims[:1] == ("session",):
            _resize(array, (n_sessions, *array.shape[1:]))


def _resize(array: zarr.Array[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        array.resize(shape)


def write_session_rows(
    group: zarr.Group, first: int, table: dict[str, list[str]], fps: float
) -> None:
    """Write the text columns and the frame rate of sessions from row ``first`` on."""
    n_rows = len(table["session"])
    for name, values in table.items():
        group[name][first : first + n_rows] = np.asarray(values, dtype=object)  # type: ignore[index]
    group["fps"][first : first + n_rows] = np.full(n_rows, fps)  # type: ignore[index]
