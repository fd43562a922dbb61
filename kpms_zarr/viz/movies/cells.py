"""Cells of a grid movie: keypoints, or parts of videos turned to the heading."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import xarray as xr
from PIL import Image

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.movies.grid import Cell, MovieClock, pose_cell, side_height
from kpms_zarr.viz.shared.drawing import Camera, Skeleton
from kpms_zarr.viz.syllables.examples import Example, PoseReader
from kpms_zarr.viz.video.sources import SessionVideos
from kpms_zarr.viz.video.video import VideoReader

_AT_ONCE = 8
_ROOM = (1.3, 3.0)
"""A cell reaches from its middle at least and at most so many radii of the body."""


class CellSource(Protocol):
    """A source of cells.

    Attributes
    ----------
    size : (int, int)
        Width and height of a cell, in px.
    """

    size: tuple[int, int]

    def make(self, examples: Sequence[Example], max_cells: int) -> list[tuple[Example, Cell]]:
        """CellSource of the first examples that can be shown; those made before are lost."""


@dataclass(frozen=True)
class CellSetup:
    """Settings that all cells of a set of movies have in common.

    Attributes
    ----------
    labels : Dataset
        With ``centroid`` and ``heading``.
    poses : PoseReader
        Of those labels.
    width : int
        Of a cell, in px.
    reach : float
        From the middle of a cell to its edge, in units of position of a session of median
        ``scale``: animals or cameras of different size look the same.
    """

    labels: xr.Dataset
    poses: PoseReader
    clock: MovieClock
    width: int
    reach: float
    skeleton: Skeleton

    @property
    def scale(self) -> float:
        """px per unit of position of a session of median ``scale``."""
        return self.width / 2 / self.reach

    def view(self, example: Example) -> Camera:
        """The camera over a session."""
        common = float(np.median(self.poses.pose.scale))
        factor = common / float(self.poses.pose.scale[example.session.index])
        return Camera(self.width, self.scale * factor)

    def frames(self, example: Example) -> np.ndarray:
        """Frames of the session by frame of the movie."""
        found = self.clock.frames(example.onset, example.session.fps)
        return np.clip(found, 0, example.session.n_frames - 1)

    def is_inside(self, example: Example) -> np.ndarray:
        """Frames of the movie that belong to the bout."""
        frames = self.frames(example)
        return (example.onset <= frames) & (frames < example.stop)

    def onset_of(self, example: Example) -> tuple[np.ndarray, float]:
        """Centroid (space) and heading (rad) at the onset."""
        place = (example.session.index, example.onset)
        return self.labels["centroid"][place].values, float(self.labels["heading"][place])

    def aligned(self, example: Example) -> np.ndarray:
        """Pose by frame of the movie, seen from the animal at the onset."""
        frames, fps = self.frames(example) - example.onset, example.session.fps
        before, after = -int(frames[0]), int(frames[-1])
        return self.poses.aligned(example, before / fps, after / fps)[frames + before]


class KeypointCells:
    """CellSource with the denoised keypoints alone."""

    def __init__(self, setup: CellSetup) -> None:
        self._setup = setup
        side = side_height(setup.width) if setup.poses.pose.n_space == 3 else 0
        self.size = (setup.width, setup.width + side)

    def make(self, examples: Sequence[Example], max_cells: int) -> list[tuple[Example, Cell]]:
        """CellSource of the first examples."""
        setup, chosen = self._setup, examples[:max_cells]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            poses = list(pool.map(setup.aligned, chosen))
        return [
            (one, Cell(pose_cell(pose, setup.view(one), setup.skeleton), setup.is_inside(one)))
            for one, pose in zip(chosen, poses, strict=True)
        ]


class VideoCells:
    """CellSource cut out of the videos; they wait in a temporary file, not in memory.

    Parameters
    ----------
    videos : SessionVideos
        What is wrong with a video is kept in its ``errors``.
    folder : path
        Where the temporary file lies.
    overlay : bool
        Whether the denoised keypoints are drawn as well.
    """

    def __init__(
        self, setup: CellSetup, videos: SessionVideos, folder: Path, *, overlay: bool
    ) -> None:
        self._setup, self._videos, self._overlay = setup, videos, overlay
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.size = (setup.width, setup.width)

    def __enter__(self) -> VideoCells:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def make(self, examples: Sequence[Example], max_cells: int) -> list[tuple[Example, Cell]]:
        """CellSource of the first examples whose videos can be used."""
        if self._file is not None:
            self._file.close()
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        made: dict[Example, Cell] = {}
        waiting = list(examples)
        while waiting and len(made) < max_cells:
            turn, waiting = waiting[: max_cells - len(made)], waiting[max_cells - len(made) :]
            # Those of one video after the other, from its beginning to its end.
            for example in sorted(turn, key=lambda one: (one.session.name, one.onset)):
                cell = self._cell(example, self._file, len(made))
                if cell is not None:
                    made[example] = cell
        return [(example, made[example]) for example in examples if example in made]

    def _cell(self, example: Example, file: IO[bytes], place: int) -> Cell | None:
        """Make one cell, written to a place of the file; None where the video cannot be used."""
        name, setup = example.session.name, self._setup
        if name in self._videos.errors:
            return None
        width = self.size[0]
        n_bytes = 3 * width * width
        start = place * len(setup.clock.seconds) * n_bytes
        try:
            file.seek(start)
            self._film(example, file)
        except InputError as error:
            self._videos.errors[name] = error
            return None

        def picture(number: int) -> Image.Image:
            file.seek(start + number * n_bytes)
            return Image.frombytes("RGB", (width, width), file.read(n_bytes))

        return Cell(picture, setup.is_inside(example))

    def _film(self, example: Example, file: IO[bytes]) -> None:
        """Write the pictures of a cell, one after the other.

        Raises
        ------
        InputError
            When the video cannot be used.
        """
        setup, session = self._setup, example.session
        view, frames = setup.view(example), setup.frames(example)
        center, heading = setup.onset_of(example)
        reader = self._videos.reader(session.name)
        require_inside(center[None], reader)
        places = view.place(setup.aligned(example)) if self._overlay else None
        shown = self._videos.frames(session.name, frames)
        for number, (_, picture) in enumerate(reader.read(shown)):
            image = view.crop(picture, center, heading)
            if places is not None:
                setup.skeleton.draw(image, places[number])
            file.write(image.tobytes())


def require_inside(position: np.ndarray, reader: VideoReader) -> None:
    """Refuse a video in whose picture none of some positions (keypoint, 2) is (InputError)."""
    size = np.array([reader.width, reader.height])
    if not ((position >= -1) & (position <= size)).all(1).any():
        x, y = position.mean(0)
        raise InputError(
            expected=f"the animal inside the picture of {size[0]} x {size[1]} px",
            found=f"it at {x:.0f}, {y:.0f}",
            where=reader.path,
            fix="name the video that was tracked, in the size in which it was tracked",
        )


def reach_of(poses: PoseReader, examples: Sequence[Example], *, after: float) -> float:
    """Distance from the middle of a cell to its edge that shows most bouts, in units of position.

    Far enough for four fifths of the bouts to stay inside while they last, but neither closer
    than the body needs nor so far that it looks small.

    Parameters
    ----------
    after : float
        Seconds after the onset that are shown.
    """
    common = float(np.median(poses.pose.scale))

    def distances(example: Example) -> tuple[float, float]:
        seconds = min(after, example.seconds)
        pose = poses.aligned(example, 0.0, seconds)
        distance = np.sqrt((pose[..., :2] ** 2).sum(-1)) * (
            common / poses.pose.scale[example.session.index]
        )
        return float(np.nanmax(distance[0])), float(np.nanmax(distance))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = np.array(list(pool.map(distances, examples)))
    body, far = float(np.nanmedian(found[:, 0])), float(np.nanquantile(found[:, 1], 0.8))
    return float(np.clip(1.1 * far, _ROOM[0] * body, _ROOM[1] * body))
