"""Single frames of video files, by their number, whatever the file says about time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.shared.extra import require
from kpms_zarr.viz.video.index import Even, FrameTimes, Uneven, timing, timing_of_all

_MAX_OPEN = 4
_LOOK = 6
"""First frames whose times are checked."""
_NEAR = 16
"""Frames that are decoded on, rather than looked for by a keyframe."""


def require_av() -> ModuleType:
    """Import PyAV, which decodes and encodes videos.

    Raises
    ------
    InputError
        When it is not installed.
    """
    return require("av", "PyAV, which reads and writes videos")


def video_of(data: xr.Dataset, row: int) -> str:
    """Path of the video of a session as the store has it; "" where none is known.

    Parameters
    ----------
    data : Dataset
        The group ``keypoints``.
    row : int
        Along its session dimension.
    """
    return str(data["video"][row].values) if "video" in data.variables else ""


def video_frames(data: xr.Dataset, row: int, frames: np.ndarray) -> np.ndarray:
    """Frames of the video that frames of a session are: ``first_frame + frame_step * frame``.

    Parameters
    ----------
    data : Dataset
        The group ``keypoints``; without the two coordinates the session is the whole video.
    row : int
        Along its session dimension.
    frames : ndarray of int
    """
    first = int(data["first_frame"][row]) if "first_frame" in data.variables else 0
    step = int(data["frame_step"][row]) if "frame_step" in data.variables else 1
    return first + step * np.asarray(frames, dtype=np.int64)


def check_length(reader: VideoReader, n_frames: int) -> None:
    """Check that a video has all the frames that a session needs.

    Parameters
    ----------
    n_frames : int
        Last frame of the video that the session needs, plus one.

    Raises
    ------
    InputError
        When the video is shorter: it was cut or encoded again since it was tracked, or belongs to
        another session.
    """
    if n_frames > reader.n_frames:
        raise InputError(
            expected=f"a video of at least {n_frames:,} frames, as the session needs",
            found=f"{reader.n_frames:,} frames",
            where=reader.path,
            fix="name the video that was tracked (`kpms_zarr.annotate(STORE, 'FILE.csv')` with a "
            "column video), not one that was cut or encoded again",
        )


class VideoReader:
    """Frames of a video file in the order in which they are shown, counted from 0.

    Opening looks at the index of the file and decodes its first frame. Where the index does not
    say when each frame is shown, the whole file is read once, without being decoded. Frames are
    turned upright where the file says how it was filmed, as OpenCV does, with which most trackers
    read videos. Several threads may share a reader; one of them decodes at a time.

    Parameters
    ----------
    path : path
        Of a local file.

    Attributes
    ----------
    n_frames : int
        Frames in the file.
    fps : float
        Mean frames per second as the file says; NaN where it does not.
    width, height : int
        In px, as shown.
    n_decoded : int
        Frames decoded so far.

    Raises
    ------
    InputError
        When there is no such file, or no video that can be decoded in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._av = require_av()
        self._lock = threading.RLock()
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._first, self._last = 0, -1  # numbers of the frames decoded first and last
        self._frame: Any = None
        self._counts = self._is_doubtful = False
        self.n_decoded = 0
        try:
            self._open()
            first = next(iter(self._decoded()), None)
            if first is None:
                raise self._error("no frame that can be decoded")
            self._timing = self._timing_by(first)
            self._reopen()
        except InputError:
            self.close()
            raise
        except (self._av.error.FFmpegError, OSError) as error:
            self.close()
            raise self._error(_words(error)) from error
        self._turns = round(int(getattr(first, "rotation", 0)) / 90) % 4
        size = (first.width, first.height)
        self.width, self.height = size[::-1] if self._turns % 2 else size
        self.n_frames = self._timing.n_frames
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else float("nan")

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._frames, self._frame, self._last = iter(()), None, -1
            if self._container is not None:
                self._container.close()
                self._container = None

    def read(
        self, indices: Iterable[int], width: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode some frames, one after the other.

        Frames that lie close together are decoded in one go; rising numbers are the fastest.

        Parameters
        ----------
        width : int, optional
            In px; frames are scaled to it (default: as they are).

        Yields
        ------
        (int, ndarray (row, column, rgb) uint8)
            Number and picture.

        Raises
        ------
        InputError
            For a frame that the file does not have, or that cannot be decoded.
        """
        for index in indices:
            yield int(index), self.frame(int(index), width)

    def frame(self, index: int, width: int | None = None) -> np.ndarray:
        """One frame, (row, column, rgb) uint8; see :meth:`read`."""
        if not 0 <= index < self.n_frames:
            raise InputError(
                expected=f"a frame from 0 to {self.n_frames - 1:,}",
                found=f"frame {index:,}",
                where=self.path,
                fix="check that this is the video that was tracked",
            )
        with self._lock:
            if self._container is None:
                raise ValueError(f"{self.path} was closed")
            return self._picture(self._find(index), width)

    # -------------------------------------------------------------- finding a frame

    def _find(self, index: int) -> Any:
        """Decode the frame of a number."""
        if index == self._last and self._frame is not None:
            return self._frame
        try:
            try:
                found = self._forward(index) if self._is_near(index) else self._seek(index)
            except Uneven:
                self._counts = True
                self._reopen()
                found = self._forward(index)
        except (self._av.error.FFmpegError, OSError) as error:
            self._reopen()
            raise self._lost(index, _words(error)) from error
        if found is None:
            last = self._last
            self._reopen()
            found = "it is left out by the decoder" if last > index else f"the end after {last:,}"
            raise self._lost(index, found)
        return found

    def _is_near(self, index: int) -> bool:
        """Whether decoding on from the last frame is the way to a frame."""
        if index <= self._last:
            return False
        if self._counts or index - self._last <= _NEAR:
            return True
        return self._timing.key_before(index) <= max(self._last, 0)

    def _forward(self, index: int) -> Any | None:
        """Decode on to a frame; None when it is not among what can be decoded."""
        for frame in self._frames:
            following = self._last + 1 if self._last >= 0 else self._first
            number = following if self._counts else self._timing.number(frame.pts)
            if number < following:
                if self._is_doubtful and self._last >= 0:
                    raise Uneven
                # Shown before the keyframe it refers to what was not decoded; else it is damaged.
                continue
            self._last, self._frame = number, frame
            if number >= index:
                return frame if number == index else None
        return None

    def _seek(self, index: int) -> Any | None:
        """Go to the keyframe before a frame and decode on from there."""
        if self._counts:
            self._reopen()
            return self._forward(index)
        for key in self._timing.keys_before(index):
            if key <= 0:
                break
            try:
                self._container.seek(self._timing.time(key), stream=self._stream, backward=True)
                packet = next(iter(self._container.demux(self._stream)))
            except (self._av.error.FFmpegError, StopIteration):
                break
            number = -1 if packet.pts is None else self._timing.number(packet.pts)
            if packet.is_keyframe and 0 <= number <= index:
                self._container.seek(self._timing.time(key), stream=self._stream, backward=True)
                self._start(number)
                return self._forward(index)
        self._reopen()
        return self._forward(index)

    def _start(self, first: int) -> None:
        """Decode from where the file is now, whose first frame has a number."""
        self._frames, self._frame, self._last, self._first = self._decoded(), None, -1, first

    def _decoded(self) -> Iterator[Any]:
        """Frames one after the other; damaged packets are left out, as trackers do."""
        for packet in self._container.demux(self._stream):
            try:
                for frame in packet.decode():
                    self.n_decoded += 1
                    yield frame
            except self._av.error.InvalidDataError:
                continue

    def _picture(self, frame: Any, width: int | None) -> np.ndarray:
        size = {}
        if width is not None:
            height = max(1, round(self.height * width / self.width))
            across, down = (height, width) if self._turns % 2 else (width, height)
            size = {"width": across, "height": down}
        picture = frame.to_ndarray(format="rgb24", **size)
        return np.rot90(picture, self._turns) if self._turns else picture

    # -------------------------------------------------------------- opening

    def _timing_by(self, first: Any) -> Even | FrameTimes:
        """Read when frames are shown, by the index of the file or by all its packets."""
        found: Even | FrameTimes | None = timing(self._container, self._stream, first)
        if found is None:
            self._reopen()
            found, self._counts = timing_of_all(self._container, self._stream)
        if not found.n_frames:
            raise self._error("no frames")
        self._reopen()
        numbers = [found.number(frame.pts) for frame in islice(self._decoded(), _LOOK)]
        # Fields that are packets of their own, pictures that are not shown, times of decoding.
        codec = self._stream.codec_context.name
        self._counts |= numbers != list(range(len(numbers))) or "vp8" in codec
        self._is_doubtful = "avi" in self._container.format.name and codec in ("h264", "hevc")
        return found

    def _open(self) -> None:
        if not os.path.isfile(self.path):
            raise self._error("a folder" if os.path.isdir(self.path) else "no such file")
        self._container = self._av.open(self.path)
        streams = self._container.streams.video
        if not streams:
            raise self._error("no video in the file")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise self._error("a video in a format that cannot be decoded here")
        self._stream.thread_type = "AUTO"

    def _reopen(self) -> None:
        """Open the file again: the only way back to the first frame that works for every file."""
        self.close()
        self._open()
        self._start(0)

    def _error(self, found: str) -> InputError:
        return InputError(
            expected="a video file that can be decoded",
            found=found,
            where=self.path,
            fix="check the path; if a player cannot show the file either, copy it again or encode "
            "it anew from the original with all its frames",
        )

    def _lost(self, index: int, found: str) -> InputError:
        return InputError(
            expected=f"frame {index:,} of the video",
            found=found,
            where=self.path,
            fix="the file is damaged there: copy it again",
        )


class VideoPool:
    """Readers of many videos, few of which are open at a time.

    Parameters
    ----------
    max_open : int
        The one that was not used for longest is closed when another one is needed.
    """

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        if max_open < 1:
            raise ValueError(f"max_open: expected 1 or more, found {max_open}")
        self._max_open = max_open
        self._lock = threading.RLock()
        self._readers: OrderedDict[str, VideoReader] = OrderedDict()

    def __enter__(self) -> VideoPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_open(self) -> int:
        """Open files."""
        return len(self._readers)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._readers:
                self._readers.popitem()[1].close()

    def open(self, path: str | os.PathLike[str]) -> VideoReader:
        """The reader of a video; it is closed when ``max_open`` others were asked for since.

        Raises
        ------
        InputError
            When the file cannot be read as a video.
        """
        key = os.path.abspath(path)
        with self._lock:
            if key not in self._readers:
                while len(self._readers) >= self._max_open:
                    self._readers.popitem(last=False)[1].close()
                self._readers[key] = VideoReader(path)
            self._readers.move_to_end(key)
            return self._readers[key]

    def frame(
        self, path: str | os.PathLike[str], index: int, width: int | None = None
    ) -> np.ndarray:
        """One frame of a video, (row, column, rgb) uint8; safe in several threads."""
        with self._lock:
            return self.open(path).frame(index, width)


def find_video(name: str, folders: Iterable[str | os.PathLike[str]] = ()) -> str:
    """Find a video as it is named, or the file of that name in one of some folders.

    Parameters
    ----------
    name : str
        Path as the store has it, perhaps of another machine.

    Returns
    -------
    str
        An existing file, or the name as it is.
    """
    if os.path.isfile(name):
        return name
    relative = name.replace("\\", "/")
    for folder in folders:
        for part in (relative, relative.rsplit("/", 1)[-1]):
            path = Path(folder) / part.lstrip("/")
            if part and path.is_file():
                return os.fspath(path)
    return name


def _words(error: BaseException) -> str:
    """Message of a library without its numbers and paths."""
    text = getattr(error, "strerror", None) or str(error)
    known = {
        "Invalid data found when processing input": "no video, or a damaged one",
        "moov atom not found": "a file whose end is missing",
    }
    return known.get(text, text)
