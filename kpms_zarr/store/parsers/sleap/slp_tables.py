"""The tables of SLEAP .slp files, checked against one another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import some
from kpms_zarr.store.parsers.hdf5.reading import text
from kpms_zarr.store.parsers.sleap.slp_names import SlpNames, version

_LARGEST_NUMBER = 2**53

# Before this version of the format, the middle of the first pixel was at 0.5.
_PIXEL_MIDDLE_SINCE = 1.1


@dataclass(frozen=True)
class Instances:
    """Instances: labelled animals in the order of their frames.

    Attributes
    ----------
    keypoints : tuple of str
    video, frame, track : ndarray, (instance,) int
        Place in the list of videos, number of the frame, number of the track (below 0 = none).
    is_user : ndarray, (instance,) bool
        Labelled by a person, not by a model.
    point : ndarray, (instance,) int
        Row of its first point.
    pixel_middle : float
        What is to be added to coordinates.
    labelled : ndarray, (frame, 2) int
        Video and number of all frames in the file, with or without instances.
    """

    keypoints: tuple[str, ...]
    video: np.ndarray
    frame: np.ndarray
    track: np.ndarray
    is_user: np.ndarray
    point: np.ndarray
    pixel_middle: float
    labelled: np.ndarray

    def labelled_frames(self, video: int) -> np.ndarray:
        """Numbers of the frames of a video that are in the file, each once."""
        return np.unique(self.labelled[self.labelled[:, 0] == video, 1])


def read_instances(file: h5py.File, names: SlpNames, where: str) -> Instances:
    """Read the instances in the tables, but no points.

    Raises
    ------
    InputError
        Tables that contradict themselves or one another; no instances; several skeletons.
    """
    frames = _whole_numbers(
        file, "frames", ("video", "frame_idx", "instance_id_start", "instance_id_end"), where
    )
    rows = _whole_numbers(
        file,
        "instances",
        ("instance_type", "skeleton", "track", "point_id_start", "point_id_end"),
        where,
    )
    video = _places(frames["video"], names, where)
    begin, n_each = frames["instance_id_start"], _lengths(frames, rows, where)
    if not n_each.sum():
        raise InputError(
            expected="at least one labelled animal",
            found=f"{len(video)} frames without instances",
            where=where,
            fix="run the prediction in SLEAP and save, or leave the file out",
        )
    in_frame = np.repeat(np.arange(len(n_each)), n_each)
    row = np.repeat(begin - np.cumsum(n_each) + n_each, n_each) + np.arange(len(in_frame))
    keypoints = _skeleton(rows["skeleton"][row], names, where)
    is_user = rows["instance_type"][row] == 0
    _check_points(file, {name: rows[name][row] for name in rows}, is_user, len(keypoints), where)
    track = rows["track"][row]
    if int(track.max()) >= len(names.tracks):
        raise _damaged(f"track {int(track.max())} of {len(names.tracks)} tracks", where)
    is_old = version(file) < _PIXEL_MIDDLE_SINCE
    return Instances(
        keypoints=keypoints,
        video=video[in_frame],
        frame=frames["frame_idx"][in_frame],
        track=track,
        is_user=is_user,
        point=rows["point_id_start"][row],
        pixel_middle=-0.5 if is_old else 0.0,
        labelled=np.stack([video, frames["frame_idx"]], axis=1),
    )


def _places(ids: np.ndarray, names: SlpNames, where: str) -> np.ndarray:
    """Find videos of the list by the ids of the table: positions, or ids of datasets."""
    used, place = np.unique(ids, return_inverse=True)
    n_videos = len(names.videos)
    known = names.video_ids
    if used.tolist() == list(range(n_videos)):
        known = dict(enumerate(range(n_videos)))
    unknown = [id for id in used.tolist() if id not in known]
    if unknown:
        raise _damaged(f"frames of video {unknown[0]}, of {n_videos} videos", where)
    return np.array([known[id] for id in used.tolist()], dtype=np.int64)[place]


def _lengths(frames: dict[str, np.ndarray], rows: dict[str, np.ndarray], where: str) -> np.ndarray:
    """Number of instances of every frame."""
    begin, end = frames["instance_id_start"], frames["instance_id_end"]
    n_rows = len(rows["track"])
    n_each = end - begin
    is_wrong = (begin < 0) | (n_each < 0) | (end > n_rows) | (frames["frame_idx"] < 0)
    # Frames that share instances could claim far more of them than there are.
    if is_wrong.any() or n_each.sum() > n_rows:
        raise _damaged(f"frames with other instances than the {n_rows} in the file", where)
    return n_each


def _skeleton(numbers: np.ndarray, names: SlpNames, where: str) -> tuple[str, ...]:
    used = np.unique(numbers).tolist()
    if not 0 <= used[0] <= used[-1] < len(names.skeletons):
        raise _damaged(f"skeleton {used[-1]} of {len(names.skeletons)} skeletons", where)
    if len({names.skeletons[number] for number in used}) > 1 or not names.skeletons[used[0]]:
        raise InputError(
            expected="one skeleton with at least one node",
            found=f"{len(used)} skeletons in use, the first of nodes "
            f"{some(names.skeletons[used[0]]) or 'none'}",
            where=where,
            fix="save the instances of each skeleton in SLEAP as a project of their own",
        )
    return names.skeletons[used[0]]


def _check_points(
    file: h5py.File, rows: dict[str, np.ndarray], is_user: np.ndarray, n_keypoints: int, where: str
) -> None:
    begin, end = rows["point_id_start"], rows["point_id_end"]
    for kind, name in ((is_user, "points"), (~is_user, "pred_points")):
        n_points = len(file[name])
        if kind.any() and not (begin[kind].min() >= 0 and end[kind].max() <= n_points):
            raise _damaged(f"instances with other points than the {n_points} in `{name}`", where)
    if not np.isin(rows["instance_type"], (0, 1)).all():
        raise _damaged("instances that neither a person nor a model labelled", where)
    n_wrong = int((end - begin != n_keypoints).sum())
    if n_wrong:
        raise _damaged(f"{n_wrong} instances with other than {n_keypoints} points", where)


def read_points(file: h5py.File, instances: Instances, chosen: np.ndarray) -> np.ndarray:
    """Points of some instances.

    Parameters
    ----------
    file : File
    instances : Instances
    chosen : ndarray, (n,) int

    Returns
    -------
    ndarray, (n, keypoint, 3) float64
        x, y and score; the score is 1 where a person labelled. Invisible points are missing.
    """
    values = np.ones((len(chosen), len(instances.keypoints), 3))
    is_user = instances.is_user[chosen]
    for which, name, fields in (
        (np.flatnonzero(is_user), "points", ("x", "y", "visible")),
        (np.flatnonzero(~is_user), "pred_points", ("x", "y", "visible", "score")),
    ):
        first = instances.point[chosen[which]]
        for part in _runs(first, values.shape[1]):
            start = int(first[part].min())
            stop = int(first[part].max()) + values.shape[1]
            table = _table(file, name, fields, start, stop)
            rows = (first[part] - start)[:, None] + np.arange(values.shape[1])
            for place, column in enumerate(column for column in fields if column != "visible"):
                values[which[part], :, place] = table[column][rows]
            # SLEAP keeps where a point was before somebody marked it as not visible.
            is_hidden = ~table["visible"][rows].astype(bool)
            values[which[part], :, :2] = np.where(
                is_hidden[..., None], np.nan, values[which[part], :, :2]
            )
    with np.errstate(all="ignore"):
        values[..., :2] += instances.pixel_middle
    return values


def _runs(first: np.ndarray, n_keypoints: int) -> Iterator[np.ndarray]:
    """Split instances into runs whose points are close together in the file."""
    if len(first):
        order = np.argsort(first, kind="stable")
        gaps = np.flatnonzero(np.diff(first[order]) > 8 * n_keypoints) + 1
        yield from np.split(order, gaps)


def _whole_numbers(
    file: h5py.File, name: str, fields: tuple[str, ...], where: str
) -> dict[str, np.ndarray]:
    """Read columns of a table as int64."""
    table = _table(file, name, fields)
    for field, values in table.items():
        is_fine = np.abs(values.astype(np.float64)) < _LARGEST_NUMBER
        if not is_fine.all() or (values.dtype.kind == "f" and (values % 1 != 0).any()):
            raise _damaged(f"`{field}` that is no whole number, in `{name}`", where)
        table[field] = values.astype(np.int64)
    return table


def _table(
    file: h5py.File,
    name: str,
    fields: tuple[str, ...],
    start: int = 0,
    stop: int | None = None,
) -> dict[str, np.ndarray]:
    """Read columns of a table, which JavaScript writes as plain numbers with names beside them.

    Raises
    ------
    ValueError
        Without these columns.
    """
    data = file[name]
    if data.dtype.names is not None and data.ndim == 1:
        if not all(data.dtype[field].kind in "fiub" for field in fields):
            raise ValueError(f"columns of `{name}` that are no numbers")
        rows = data.fields(list(fields))[start:stop]
        return {field: rows[field] for field in fields}
    columns = json.loads(text(data.attrs["field_names"]))
    if data.ndim != 2 or data.dtype.kind not in "fiu" or data.shape[1] != len(columns):
        raise ValueError(f"`{name}` is no table of numbers")
    values = data[start:stop]
    return {field: values[:, columns.index(field)] for field in fields}


def _damaged(found: str, where: str) -> InputError:
    return InputError(
        expected="tables that agree with one another",
        found=found,
        where=where,
        fix="the file is damaged, or was not saved to its end: save it again with SLEAP",
    )
