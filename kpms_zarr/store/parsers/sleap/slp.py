"""SLEAP .slp files: names through sleap-io, frames from the tables of the file in blocks.

The table of instances (some 50 bytes for each) is in memory as a whole, the points are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError, OtherKindError, Problem
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    float32,
    some,
)
from kpms_zarr.store.parsers.hdf5.reading import dataset, opened
from kpms_zarr.store.parsers.sleap.slp_names import SlpNames, check_file, read_names
from kpms_zarr.store.parsers.sleap.slp_tables import Instances, read_instances, read_points
from kpms_zarr.store.parsers.sleap.tracks import (
    LARGEST_BLOCK_BYTES,
    RENAME,
    names_note,
    wrong_names,
)

_SPACE = ("x", "y")
_TABLES = ("frames", "instances", "points", "pred_points", "videos_json", "tracks_json")

# A video may be labelled here and there; a far longer gap is a damaged frame number.
_ALWAYS_FINE_FRAMES = 1_000_000
_MOST_FRAMES_PER_LABELLED = 1_000
_FEWEST_STEPS = 3
"""From which on steps between labelled frames are more than chance."""


@dataclass
class _Recording:
    """The labelled frames of one video.

    Attributes
    ----------
    number : int
        Of the video, in the list of videos.
    n_frames : int
        From the first frame of the video, labelled or not; of a video of which every n-th frame
        was tracked, those.
    first_frame, frame_step : int
        Frame i is frame ``first_frame + frame_step * i`` of the video.
    tracks : tuple of int
        Numbers of the tracks that become individuals; (-1,) stands for the only animal.
    frame, slot, instance : ndarray, (instance,) int
        Which instance is in which frame of which track, at most one each, by increasing frame.
    headers : tuple of TrackHeader
    notes : list of str
    """

    number: int
    n_frames: int
    tracks: tuple[int, ...]
    frame: np.ndarray
    slot: np.ndarray
    instance: np.ndarray
    first_frame: int = 0
    frame_step: int = 1
    headers: tuple[TrackHeader, ...] = ()
    notes: list[str] = field(default_factory=list)


def sniff(path: Path) -> str | None:
    """Recognise the tables; see `Parser`."""
    with h5py.File(path, "r") as file:
        if any(dataset(file, name) is None for name in _TABLES):
            return None
        is_linked = isinstance(file.get("metadata", getlink=True), h5py.HardLink)
        is_ours = is_linked and "json" in file["metadata"].attrs
    return "HDF5 datasets frames, instances, pred_points" if is_ours else None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read names, frames and instances, but no points; see `Parser`."""
    with opened(path) as file:
        return _inspect(file, path)[0]


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames, one video after the other; see `Parser`."""
    with opened(path) as file:
        _, instances, recordings = _inspect(file, path)
        for recording in recordings:
            yield from _blocks(file, instances, recording, block_frames)


def _inspect(file: h5py.File, path: Path) -> tuple[FileHeader, Instances, list[_Recording]]:
    where = str(path)
    check_file(file, where)
    names = read_names(path, where)
    instances = read_instances(file, names, where)
    keypoints = instances.keypoints
    problems = [*wrong_names(keypoints, where, RENAME)]
    numbers = np.unique(instances.video).tolist()
    recordings = []
    for number in numbers:
        found = _recording(instances, number, names, len(numbers) > 1, where)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            recordings.append(found)
    if problems:
        raise InputError.of(problems)
    _refuse_labelled_frames(recordings, instances, where)
    _name(recordings, instances, names)
    videos = [names.videos[number].label for number in range(len(names.videos))]
    unlabelled = [label for number, label in enumerate(videos) if number not in numbers]
    left_out = [f"left out videos without instances: {some(unlabelled)}"] if unlabelled else []
    tracks = tuple(track for recording in recordings for track in recording.headers)
    is_told = len(names.tracks) == 1 or any(track.individual for track in tracks)
    header = FileHeader(
        format=PARSER.name,
        path=path,
        space=_SPACE,
        tracks=tracks,
        has_confidence=True,
        notes=(
            *(names_note(names.tracks) if is_told else ()),
            *left_out,
            *(
                f"{recording.headers[0].part}: {note}" if len(recordings) > 1 else note
                for recording in recordings
                for note in recording.notes
            ),
        ),
    )
    return header, instances, recordings


def _refuse_labelled_frames(
    recordings: Sequence[_Recording], instances: Instances, where: str
) -> None:
    """Refuse a project of training frames: they are not consecutive in time."""
    if not recordings or not instances.is_user.all():
        return
    n_labelled = [len(np.unique(one.frame)) for one in recordings]
    n_frames = [one.first_frame + (one.n_frames - 1) * one.frame_step + 1 for one in recordings]
    if any(n > of / 2 for n, of in zip(n_labelled, n_frames, strict=True)):
        return
    raise OtherKindError(
        expected="predictions for all frames of a video",
        found=f"frames labelled by hand ({sum(n_labelled)} of {sum(n_frames)}, without "
        "predictions)",
        where=where,
        fix="use the file of predictions that SLEAP's inference wrote, such as "
        "NAME.predictions.slp",
    )


def _recording(
    instances: Instances, number: int, names: SlpNames, is_one_of_many: bool, where: str
) -> _Recording | Problem:
    """Sort the instances of a video into frames and tracks, or say why that cannot be done."""
    where = f"{where}, video `{names.videos[number].label}`" if is_one_of_many else where
    labelled = instances.labelled_frames(number)
    n_frames = _n_frames(labelled, names.videos[number].n_frames)
    if not n_frames:
        return Problem(
            expected="frames of a video",
            found=f"{len(labelled)} frames, one with the number {labelled[-1]}",
            where=where,
            fix="the file may be damaged: save it again with SLEAP",
        )
    mine = np.flatnonzero(instances.video == number)
    track = instances.track[mine]
    frame = instances.frame[mine]
    n_at_once = _most_at_once(frame, instances.is_user[mine])
    used = np.unique(track[track >= 0]).tolist()
    notes = []
    tracks: tuple[int, ...]
    if len(used) <= 1 and n_at_once <= 1:
        # Whether or not it is tracked: the only animal.
        tracks = (-1,)
        slot = np.zeros(len(mine), dtype=np.int64)
    elif not used:
        return _untracked(n_at_once, where)
    else:
        # Of a file with one video all tracks, as of an analysis file; with several, its own.
        tracks = tuple(used) if is_one_of_many else tuple(range(len(names.tracks)))
        tracked = track >= 0
        slot = np.searchsorted(tracks, track[tracked])
        if not tracked.all():
            notes.append(f"left out {(~tracked).sum()} instances that belong to no track")
        mine, frame = mine[tracked], frame[tracked]
    chosen, n_doubled = _one_each(frame, slot, instances.is_user[mine])
    if n_doubled:
        notes.append(
            f"{n_doubled} instances share frame and track with another: the last one is read"
        )
    first, step = _steps(labelled)
    n_frames = -(-(n_frames - first) // step)
    frame = (frame[chosen] - first) // step
    recording = _Recording(number, n_frames, tracks, frame, slot[chosen], mine[chosen], first, step)
    if step > 1:
        notes.append(f"labelled frames are {step} apart: one of {step} of the video is read")
    recording.notes = [*notes, *_notes(recording, instances, len(labelled))]
    return recording


def _steps(labelled: np.ndarray) -> tuple[int, int]:
    """First frame and step where every n-th frame was tracked; 0 and 1 elsewhere.

    Parameters
    ----------
    labelled : ndarray of int
        Numbers of the labelled frames, increasing.
    """
    apart = np.diff(labelled)
    if len(apart) < _FEWEST_STEPS:
        return 0, 1
    step = int(np.gcd.reduce(apart))
    if step < 2 or np.median(apart) != step:
        return 0, 1
    return int(labelled[0]) % step, step


def _n_frames(labelled: np.ndarray, n_in_video: int) -> int:
    """Frames from the first of the video to the last labelled one or the end of the video.

    SLEAP exports all of them as well. None when too few are labelled to be believed.
    """
    n_frames = int(labelled[-1]) + 1
    most = max(_ALWAYS_FINE_FRAMES, _MOST_FRAMES_PER_LABELLED * len(labelled))
    if n_frames > most:
        return 0
    return n_in_video if n_frames < n_in_video <= most else n_frames


def _most_at_once(frame: np.ndarray, is_user: np.ndarray) -> int:
    """Most instances in one frame, those of people and those of a model counted apart.

    A corrected instance stays in the file beside its correction.
    """
    _, place = np.unique(frame, return_inverse=True)
    return max(int(np.bincount(place[kind]).max(initial=0)) for kind in (is_user, ~is_user))


def _one_each(frame: np.ndarray, slot: np.ndarray, is_user: np.ndarray) -> tuple[np.ndarray, int]:
    """Choose an instance for each frame and track: a person's rather than a model's.

    Returns
    -------
    chosen : ndarray of int
        By increasing frame.
    n_doubled : int
        Instances of the same kind as the chosen one, but earlier in the file.
    """
    order = np.lexsort((is_user, slot, frame))
    same = (np.diff(frame[order]) == 0) & (np.diff(slot[order]) == 0)
    is_last = np.append(~same, True)
    n_doubled = int((same & (np.diff(is_user[order].astype(np.int8)) == 0)).sum())
    return order[is_last[: len(order)]], n_doubled


def _untracked(n_at_once: int, where: str) -> Problem:
    return Problem(
        expected="tracks, as there are several animals in a frame",
        found=f"up to {n_at_once} instances in a frame, of which none belongs to a track",
        where=where,
        fix="track the instances in SLEAP (Predict > Run Tracking), check the identities, save",
    )


def _notes(recording: _Recording, instances: Instances, n_labelled: int) -> Iterator[str]:
    if n_labelled < recording.n_frames:
        n_missing = recording.n_frames - n_labelled
        yield f"{n_missing} of {recording.n_frames} frames are not labelled: missing there"
    n_user = int(instances.is_user[recording.instance].sum())
    if n_user:
        yield f"{n_user} of {len(recording.instance)} instances labelled by hand: confidence 1"
    seen = set(np.unique(recording.slot).tolist())
    slots = range(len(recording.tracks))
    absent = [_individual(recording, slot) for slot in slots if slot not in seen]
    if absent:
        yield f"no positions at all for {some(absent)}"


def _name(recordings: list[_Recording], instances: Instances, names: SlpNames) -> None:
    """Give every recording its track headers, with keys that differ."""
    videos = [names.videos[recording.number] for recording in recordings]
    stems = [PurePosixPath(video.file).stem for video in videos]
    folders = [PurePosixPath(video.file).parent.name for video in videos]
    parts_to_try: Sequence[list[str]] = (
        [""] if len(videos) == 1 else stems,
        ["_".join(filter(None, both)) for both in zip(folders, stems, strict=True)],
        [f"video{recording.number}" for recording in recordings],
    )
    for parts in parts_to_try:
        for recording, video, part in zip(recordings, videos, parts, strict=True):
            recording.headers = tuple(
                TrackHeader(
                    _individual(recording, slot),
                    instances.keypoints,
                    part=part,
                    first_frame=recording.first_frame,
                    frame_step=recording.frame_step,
                    fps=video.fps,
                    video=video.file,
                )
                for slot in range(len(recording.tracks))
            )
        keys = [track.key for recording in recordings for track in recording.headers]
        if len(set(keys)) == len(keys) and (len(videos) == 1 or all(parts)):
            return


def _individual(recording: _Recording, slot: int) -> str:
    return f"track{recording.tracks[slot]}" if len(recording.tracks) > 1 else ""


def _blocks(
    file: h5py.File, instances: Instances, recording: _Recording, block_frames: int
) -> Iterator[PoseBlock]:
    n_tracks, n_keypoints = len(recording.tracks), len(instances.keypoints)
    fitting = LARGEST_BLOCK_BYTES // (n_tracks * n_keypoints * 12)
    step = min(block_frames, max(1, fitting))
    keys = [track.key for track in recording.headers]
    for start in range(0, recording.n_frames, step):
        stop = min(start + step, recording.n_frames)
        here = slice(*np.searchsorted(recording.frame, [start, stop]).tolist())
        values = np.full((n_tracks, stop - start, n_keypoints, 3), np.nan, dtype=np.float32)
        place = (recording.slot[here], recording.frame[here] - start)
        values[place] = float32(read_points(file, instances, recording.instance[here]))
        yield PoseBlock(
            start,
            {key: values[slot, :, :, :2] for slot, key in enumerate(keys)},
            {key: values[slot, :, :, 2] for slot, key in enumerate(keys)},
        )


PARSER = Parser("slp", "SLEAP .slp", sniff, inspect, read)
