"""The video of a session with the denoised keypoints and the syllables drawn onto it."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.movies.cells import require_inside
from kpms_zarr.viz.movies.folder import MovieFolder
from kpms_zarr.viz.movies.study import (
    MoviesProgress,
    MoviesSummary,
    MovieStudy,
    ProgressReporter,
    check_format,
)
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.drawing import PAPER, fitted, write
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import INK
from kpms_zarr.viz.video.encoding import FORMATS, write_movie
from kpms_zarr.viz.video.sources import SessionVideos, Videos
from kpms_zarr.viz.video.video import VideoReader, require_av

_BLOCK = 4096
"""Frames of which poses are in memory."""
_HEAD, _STRIP = 40, 24
_MOST_BYTES = 100
"""Of a name of a session in that of a file, which has 255."""
_AROUND = 4.0
"""Seconds of labels to either side of the moment."""


def overlay_movie(
    store: StoreLike,
    *,
    model: str,
    session: str,
    version: str | None = None,
    out: str | os.PathLike[str] = "movies",
    start: float = 0.0,
    stop: float | None = None,
    videos: Videos = True,
    format: str = "mp4",
    speed: float = 1.0,
    width: int = 960,
    on_progress: Callable[[MoviesProgress], None] | None = None,
) -> MoviesSummary:
    """Write the video of a session with the denoised keypoints drawn onto it.

    Above the picture stand the syllable and the time, beneath it runs a strip of the labels of
    four seconds to either side.

    Parameters
    ----------
    store : path or URL
    model : str
    session : str
        Name.
    version : str, optional
        Of the labels (default: the current one).
    out : path
        Folder; a file of an earlier run of the same command is replaced, no other.
    start, stop : float
        Part of the session, in s (default: all of it).
    videos : True, path or mapping
        True = the video that the store knows (see :class:`SessionVideos`).
    format : str
        ``"mp4"`` or ``"gif"``.
    speed : float
        1 = as fast as it was, 0.5 = half as fast.
    width : int
        Of the picture, in px; a smaller video keeps its size.
    on_progress : callable, optional
        Is given :class:`MoviesProgress`.

    Returns
    -------
    MoviesSummary

    Raises
    ------
    InputError
        For a model or session that does not exist, a video that cannot be used, a place that
        cannot be written, or when PyAV is not installed.
    MissingData
        When the version has no poses.
    """
    require_av()
    began = time.monotonic()
    checks = {"width": (64 <= width <= 7680, "a width of 64 to 7680 px", width)}
    check_format(format, speed, checks)
    study = MovieStudy(OpenModel(store, model, version))
    chosen = reading.label_sessions(study.opened.labels, names=[session])[0]
    session = chosen.name
    frames, fps = _frames(chosen, start, stop, speed, FORMATS[format])
    part = "" if start <= 0 and stop is None else f"_{frames[0]}-{frames[-1]}"
    name = f"overlay_{_safe(session)}{part}.{format}"
    settings = {"session": session, "frames": [int(frames[0]), int(frames[-1])]}
    shown = {"speed": speed, "width": width, "format": format}
    folder = MovieFolder(out, {**study.origin, **settings, **shown})
    notes = study.notes + folder.replacing([name])
    with SessionVideos(store, study.opened.tracked, videos) as source:
        reader = source.reader(session)
        movie = _Overlay(study, chosen, reader, source.frames(session, frames), frames, width)
        n_bytes = write_movie(
            folder.prepare(name, settings),
            ProgressReporter(on_progress, name, 0, 1).reporting(movie.frame, len(frames)),
            n_frames=len(frames),
            fps=fps,
            format=format,
            is_photo=True,
            title=f"{session}, model {model}",
        )
        notes += source.notes
    ProgressReporter(on_progress, "", 1, 1).report()
    seconds = time.monotonic() - began
    return MoviesSummary(
        os.fspath(Path(out)), (name,), 0, len(frames), n_bytes, {}, tuple(notes), seconds
    )


class _Overlay:
    """The frames of an overlay movie.

    Parameters
    ----------
    session : Session
        Row of the labels.
    shown, frames : ndarray, (frame,) int
        Frames of the video and of the session.
    width : int
        Of the picture, at most.
    """

    def __init__(
        self,
        study: MovieStudy,
        session: Session,
        reader: VideoReader,
        shown: np.ndarray,
        frames: np.ndarray,
        width: int,
    ) -> None:
        _require_flat(study)
        self._study, self._session, self._reader = study, session, reader
        self._shown, self._frames = shown, frames
        self._width = min(width, reader.width)
        self._scale = self._width / reader.width
        radius = max(2.0, self._width / 300)
        self._skeleton = study.skeleton(is_video=True, radius=radius)
        around = round(_AROUND * session.fps)
        self._first = max(0, int(frames[0]) - around)
        stop = min(session.n_frames, int(frames[-1]) + around + 1)
        window = (session.index, slice(self._first, stop))
        self._syllable = study.opened.labels["syllable"][window].values
        self._poses, self._block = np.empty(0), -1
        require_inside(self._pose(int(frames[0])), reader)

    def frame(self, number: int) -> np.ndarray:
        """One frame of the movie, (row, column, rgb) uint8."""
        frame = int(self._frames[number])
        picture = self._reader.frame(int(self._shown[number]), self._width)
        image = Image.fromarray(picture)
        self._skeleton.draw(image, (self._pose(frame) + 0.5) * self._scale)
        height = _HEAD + image.height + _STRIP
        whole = Image.new("RGB", (image.width + image.width % 2, height + height % 2), PAPER)
        whole.paste(image, (0, _HEAD))
        self._caption(whole, frame)
        whole.paste(self._labels(frame, image.width), (0, _HEAD + image.height))
        return np.asarray(whole)

    def _pose(self, frame: int) -> np.ndarray:
        """Denoised keypoints (keypoint, space) of a frame of the session."""
        block = frame // _BLOCK
        if block != self._block:
            stop = min((block + 1) * _BLOCK, self._session.n_frames)
            row = self._session.index
            self._poses = self._study.poses.position(row, block * _BLOCK, stop)
            self._block = block
        return np.asarray(self._poses[frame - block * _BLOCK])

    def _caption(self, image: Image.Image, frame: int) -> None:
        state = int(self._syllable[frame - self._first])
        middle = _HEAD / 2
        box = (8, middle - 9, 26, middle + 9)
        ImageDraw.Draw(image).rectangle(box, fill=syllable_color(state))
        text = fitted(f"Syllable {self._study.opened.names.label(state)}", 18, image.width - 150)
        write(image, (36, middle), text, size=18, color=INK)
        seconds = f"{frame / self._session.fps:.2f} s"
        write(image, (image.width - 8, middle), seconds, size=15, color=INK, anchor="rm")

    def _labels(self, frame: int, width: int) -> Image.Image:
        """The labels around a frame as a strip, the frame in its middle."""
        around = _AROUND * self._session.fps
        frames = np.floor(frame + 0.5 + np.linspace(-around, around, width)).astype(int)
        places = frames - self._first
        is_known = (places >= 0) & (places < len(self._syllable))
        states = np.where(is_known, self._syllable[np.clip(places, 0, len(self._syllable) - 1)], -2)
        colors = np.array(
            [
                ImageColor.getrgb(syllable_color(int(state)) if state > -2 else PAPER)[:3]
                for state in np.unique(states)
            ],
            dtype=np.uint8,
        )
        row = colors[np.searchsorted(np.unique(states), states)]
        strip = Image.fromarray(np.repeat(row[None], _STRIP, axis=0))
        draw, middle = ImageDraw.Draw(strip), width // 2
        draw.rectangle((0, 0, width, 3), fill=PAPER)
        draw.line((middle, 0, middle, _STRIP), fill=INK, width=3)
        return strip


def _require_flat(study: MovieStudy) -> None:
    if not study.is_flat:
        raise InputError(
            expected="positions in the picture of a camera",
            found="3-D positions",
            where=str(study.opened.store),
            fix="make movies of the keypoints instead, without `session=` and `videos=`",
        )


def _frames(
    session: Session, start: float, stop: float | None, speed: float, max_rate: float
) -> tuple[np.ndarray, Fraction]:
    """Choose the frames of the session to show, and the frames per second of the movie."""
    first = int(np.ceil(max(0.0, start) * session.fps - 1e-9))
    end = session.n_frames if stop is None else int(stop * session.fps + 1e-9) + 1
    step = max(1, int(np.ceil(session.fps * speed / max_rate - 1e-9)))
    frames = np.arange(first, min(end, session.n_frames), step)
    if not len(frames):
        raise InputError(
            expected=f"a part of the {session.n_frames / session.fps:.1f} s of the session",
            found=f"{start:g} s to {'its end' if stop is None else f'{stop:g} s'}",
            where=f"session {session.name}",
            fix="give `start=` and `stop=` in seconds of the session",
        )
    return frames, Fraction(session.fps * speed / step).limit_denominator(1001)


def _safe(name: str) -> str:
    """Convert the name of a session to a part of a file name."""
    safe = re.sub(r"[^\w.+-]+", "-", name).encode()[:_MOST_BYTES].decode(errors="ignore")
    # Sessions whose names differ in what no file name can hold must not share a file.
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
