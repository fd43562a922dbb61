"""Interface of the parsers: a header first, then frames in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.time.gaps import Gaps
from kpms_zarr.store.wording import listed

R = TypeVar("R")


@dataclass(frozen=True)
class ReadOptions:
    """Options for what files do not say themselves.

    Attributes
    ----------
    keypoint_names : tuple of str
        Names for the keypoints of files that hold none, in file order.
    mapping : mapping, optional
        Which columns of a table hold what, see ``parsers/table/mapping.py``.
    memory : mapping of str to Tracks, optional
        Sessions that are in memory and in no file, by name.
    time_unit : str
        What indices, frame numbers and time stamps count: see ``TIME_UNITS`` in ``time/clock.py``.
    """

    keypoint_names: tuple[str, ...] = ()
    mapping: Mapping[str, Any] | None = None
    memory: Mapping[str, Tracks] | None = None
    time_unit: str = "auto"


@dataclass(frozen=True)
class Tracks:
    """A recording in memory.

    Attributes
    ----------
    header : FileHeader
    position : dict of str to ndarray, (frame, keypoint, space)
        By key of the track.
    confidence : dict of str to ndarray, (frame, keypoint)
        By key of the track; may lack some.
    """

    header: FileHeader
    position: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]


NO_OPTIONS = ReadOptions()


@dataclass(frozen=True)
class TrackHeader:
    """One individual in one recording of a file: what becomes a session.

    Attributes
    ----------
    individual : str
        Name of the individual, "" where the format does not name one.
    keypoints : tuple of str
        Keypoint names in file order.
    part : str
        Which recording it is, in files that hold several; "" where there is one only.
    first_frame, frame_step : int
        Frame i of the track is frame ``first_frame + frame_step * i`` of the video.
    gaps : Gaps, optional
        Frames of the track that the file has no rows of: whoever reads it fills them in.
    fps : float, optional
        Frames of the video per second, where the file says so.
    video : str
        Path of the video, where the file says so.
    key_in_file : str
        Its key before its names were made as they are stored; "" where that is the same.
    time_scale : float
        Seconds per unit of its time stamps, where these can be kept; 0 = there are none.
    """

    individual: str
    keypoints: tuple[str, ...]
    part: str = ""
    first_frame: int = 0
    frame_step: int = 1
    fps: float | None = None
    video: str = ""
    gaps: Gaps | None = field(default=None, compare=False)
    key_in_file: str = ""
    time_scale: float = field(default=0.0, compare=False)

    @property
    def key(self) -> str:
        """Name within the file, by which the session is named."""
        return "_".join(name for name in (self.part, self.individual) if name)

    @property
    def block_key(self) -> str:
        """Name under which its blocks are found."""
        return self.key_in_file or self.key


@dataclass(frozen=True)
class FileHeader:
    """Header of a file, read without keeping its frames in memory.

    Attributes
    ----------
    format : str
        Registry name of the format, such as ``"dlc_csv"``.
    path : Path
    space : tuple of str
        ``("x", "y")`` or ``("x", "y", "z")``.
    tracks : tuple of TrackHeader
        The individuals that become sessions: those that appear at least once. Their keys differ.
    has_confidence : bool
        Whether the file has a tracker confidence for every keypoint.
    notes : tuple of str
        What a person should know (individuals left out, no likelihood, ...).
    """

    format: str
    path: Path
    space: tuple[str, ...]
    tracks: tuple[TrackHeader, ...]
    has_confidence: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PoseBlock:
    """Consecutive frames of some or all of the tracks of a file.

    Attributes
    ----------
    start : int
        Index of the first frame of the block within its tracks, or of its first row in tracks with
        gaps that are not filled in.
    position : dict of str to ndarray, (frame, keypoint, space) float32
        By key of the track; units of the file (usually pixels); NaN = missing.
    confidence : dict of str to ndarray, (frame, keypoint) float32
        By key of the track; empty when the file has none. As in the file: scores of some trackers
        exceed 1.
    """

    start: int
    position: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Number of frames in this block."""
        return len(next(iter(self.position.values())))


@dataclass(frozen=True)
class Parser:
    """A pose format: how to recognise it, and how to read it.

    Attributes
    ----------
    name : str
        Registry name, used with ``--format``.
    title : str
        Name of the format for people.
    times : callable, optional
        Reads the time stamps of the rows of a track by its key, (row,) float64 in the unit of the
        file, in pieces; None = the format has none that are kept.
    """

    name: str
    title: str
    _sniff: Callable[[Path], str | None]
    _inspect: Callable[[Path, ReadOptions], FileHeader]
    _read: Callable[[Path, int, ReadOptions], Iterator[PoseBlock]]
    times: Callable[[Path, str, ReadOptions], Iterator[np.ndarray]] | None = None

    def sniff(self, path: Path) -> str | None:
        """Say why a file is of the format (one phrase), or None when it is not; never raises.

        By the beginning of the content, never only by the file name.
        """
        try:
            return self._sniff(path)
        except Exception:  # of a damaged file, whatever a library raises
            return None

    def inspect(self, path: Path, options: ReadOptions = NO_OPTIONS) -> FileHeader:
        """Read the header; an InputError when the file is of the format but cannot be used."""
        return self._inspect(path, options)

    def read(
        self, path: Path, block_frames: int, options: ReadOptions = NO_OPTIONS
    ) -> Iterator[PoseBlock]:
        """Stream the frames of each track in order, at most so many a block.

        Tracks of the same length share their blocks, others follow one another. An InputError for a
        truncated file or for text where numbers should be, naming file and row.
        """
        if block_frames < 1:  # a mistake in code, not in an input
            raise ValueError(f"block_frames is at least 1, got {block_frames}")
        return self._read(path, block_frames, options)


def remembered(function: Callable[[Path], R]) -> Callable[[Path], R]:
    """Cache the result of a function of a file for as long as the file is the same.

    A file is looked at when it is recognised, inspected and read.
    """

    @lru_cache(maxsize=64)
    def look(path: Path, *stamp: int) -> R:
        return function(path)

    @wraps(function)
    def remember(path: Path) -> R:
        try:
            now = path.stat()
        except OSError:
            return function(path)  # which knows what to say
        return look(path, now.st_size, now.st_mtime_ns, now.st_ino)

    return remember


def some(names: Sequence[str], limit: int = 5) -> str:
    """List names for a message, at most `limit` of them."""
    return listed((f"`{shortened(name)}`" for name in names), limit)


def shortened(name: str, max_length: int = 100) -> str:
    """Shorten a name for a message where it is very long."""
    return name if len(name) <= max_length else f"{name[:max_length]}..."


def float32(values: np.ndarray) -> np.ndarray:
    """Convert numbers for the store; infinite ones and those too large for float32 are missing."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.asarray(values).astype(np.float32)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


# ------------------------------------------------------------------ said by several formats


def no_frames(where: str, what: str = "frame") -> Problem:
    """Problem of a file without frames."""
    return Problem(
        f"at least one {what}",
        f"0 {what.partition(' ')[0]}s",
        where,
        "export the tracking of this video again, or leave the file out",
    )


def no_package(package: str, kind: str, extra: str, where: str) -> InputError:
    """Error for a file that takes an optional package to be read."""
    return InputError(
        expected=f"the package {package}, which reads {kind} files",
        found="none that can be imported",
        where=where,
        fix=f"pip install 'kpms_zarr[{extra}]'",
    )


def without_confidence(what: str, lacking: Sequence[str], n_all: int) -> tuple[str, ...]:
    """Note on keypoints without a confidence: the whole file is read without any then."""
    whom = "the file" if len(lacking) == n_all else some(lacking)
    return (f"no {what} for {whom}: read without confidence",) if lacking else ()
