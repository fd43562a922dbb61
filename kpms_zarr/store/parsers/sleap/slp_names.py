"""The names in SLEAP .slp files: nodes, tracks and videos, read with sleap-io."""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import no_package, some
from kpms_zarr.store.parsers.hdf5.reading import check_size, text

# The tables are others from this version of the format on.
_NEXT_FORMAT = 3.0


@dataclass(frozen=True)
class Video:
    """Facts about a video, which is not opened.

    Attributes
    ----------
    file : str
        With forward slashes; "" when its images are in the file itself and nothing else is said.
    n_frames : int
        0 when it is not said.
    fps : float or None
    label : str
        For messages.
    """

    file: str
    n_frames: int
    fps: float | None
    label: str


@dataclass(frozen=True)
class SlpNames:
    """The names of a file.

    Attributes
    ----------
    skeletons : tuple of tuple of str
        Names of the nodes.
    tracks : tuple of str
    videos : tuple of Video
    video_ids : dict of int to int
        What the table of frames calls a video -> its place in `videos`.
    """

    skeletons: tuple[tuple[str, ...], ...]
    tracks: tuple[str, ...]
    videos: tuple[Video, ...]
    video_ids: dict[int, int]


def check_file(file: h5py.File, where: str) -> None:
    """Refuse what sleap-io would follow or load without asking.

    Raises
    ------
    InputError
        Links to elsewhere, datasets that claim more than there is, a newer format.
    """
    links: list[str] = []

    def visit(name: bytes, info: Any) -> None:
        if info.type != h5py.h5l.TYPE_HARD:
            links.append(text(name))

    file.id.links.visit(visit, info=True)
    if links:
        raise InputError(
            expected="a file that holds its tables itself",
            found=f"links to elsewhere: {some(links)}",
            where=where,
            fix="save the project again with SLEAP",
        )
    file.visititems(
        lambda _, item: check_size(item, where) if isinstance(item, h5py.Dataset) else None
    )
    number = version(file)
    if not 0 < number < _NEXT_FORMAT:
        raise InputError(
            expected=f"version 1 or 2 of the .slp format, below {_NEXT_FORMAT:g}",
            found=f"version {number:g}",
            where=where,
            fix="export the tracking as analysis HDF5 (.h5) with SLEAP or sleap-io",
        )


def version(file: h5py.File) -> float:
    """Version of the .slp format."""
    return float(text(file["metadata"].attrs["format_id"]))


def read_names(path: Path, where: str) -> SlpNames:
    """Read skeletons, tracks and videos with sleap-io; opens no video.

    Raises
    ------
    InputError
        Also when sleap-io is not installed.
    """
    try:
        # Late, as it takes a second and is not installed everywhere.
        reader = importlib.import_module("sleap_io.io.slp")
    except ImportError as error:
        raise no_package("sleap-io", ".slp", "sleap", where) from error
    try:
        skeletons = tuple(tuple(s.node_names) for s in reader.read_skeletons(str(path)))
        tracks = tuple(str(track.name) for track in reader.read_tracks(str(path)))
        found = reader.read_videos(str(path), open_backend=False)
        videos = tuple(_video(number, video, path) for number, video in enumerate(found))
        ids = [_embedded_id(video) for video in found]
    except Exception as error:  # Whatever damaged names make sleap-io raise.
        raise InputError(
            expected="names of nodes, tracks and videos",
            found=f"some that sleap-io cannot read ({type(error).__name__}: {error})"[:300],
            where=where,
            fix="the file may be damaged: open it in SLEAP and save it again",
        ) from error
    known = {number: number for number in range(len(videos))}
    embedded = {id: number for number, id in enumerate(ids) if id is not None}
    return SlpNames(skeletons, tracks, videos, {**known, **embedded})


def _video(number: int, video: Any, path: Path) -> Video:
    metadata = video.backend_metadata or {}
    shape, fps = metadata.get("shape"), metadata.get("fps")
    n_frames = shape[0] if isinstance(shape, list | tuple) and shape else 0
    source, name = video, video.filename
    # Images in the file itself: what matters is the video that they were taken from.
    while source is not None and not isinstance(name, list) and Path(name) == path:
        source = getattr(source, "source_video", None)
        name = "" if source is None else source.filename
    if isinstance(name, list):
        name = str(PurePosixPath(name[0]).parent) if name else ""
    is_fps = isinstance(fps, int | float) and math.isfinite(fps) and fps > 0
    return Video(
        file=str(name),
        n_frames=n_frames if isinstance(n_frames, int) and n_frames > 0 else 0,
        fps=float(fps) if fps and is_fps else None,
        label=PurePosixPath(name).stem or f"number {number}",
    )


def _embedded_id(video: Any) -> int | None:
    """Id in the table of frames of a video whose images are in dataset ``video<id>/video``."""
    found = re.match(r"video(\d{1,9})/", str((video.backend_metadata or {}).get("dataset") or ""))
    return int(found[1]) if found else None
