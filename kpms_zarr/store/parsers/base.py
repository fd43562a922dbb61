"""What every pose-format parser gives: a header first, then frames in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class TrackHeader:
    """One individual of a file.

    Attributes
    ----------
    individual : str
        Name of the individual, "" where the format does not name one.
    keypoints : tuple of str
        Keypoint names in file order.
    """

    individual: str
    keypoints: tuple[str, ...]


@dataclass(frozen=True)
class FileHeader:
    """What a file holds, learnt without keeping its frames in memory.

    Attributes
    ----------
    format : str
        Registry name of the format, such as ``"dlc_csv"``.
    path : Path
    space : tuple of str
        ``("x", "y")`` or ``("x", "y", "z")``.
    tracks : tuple of TrackHeader
        The individuals that become sessions: those that appear at least once.
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
    """Consecutive frames of all the tracks of a file.

    Attributes
    ----------
    start : int
        Index of the first frame of the block within the file.
    position : dict of str to ndarray, (frame, keypoint, space) float32
        By individual; units of the file (usually pixels); NaN = missing.
    confidence : dict of str to ndarray, (frame, keypoint) float32
        By individual; empty when the file has none.
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
    sniff : callable (Path) -> str or None
        Why this file is of the format (one phrase), or None when it is not. Looks at
        the beginning of the content, never only at the file name, and never raises.
    inspect : callable (Path) -> FileHeader
        Raises InputError when the file is of the format but cannot be used.
    read : callable (Path, int) -> iterator of PoseBlock
        Frames in order, at most the given number a block. Raises InputError for a
        truncated file or for text where numbers should be, naming file and row.
    """

    name: str
    title: str
    sniff: Callable[[Path], str | None]
    inspect: Callable[[Path], FileHeader]
    read: Callable[[Path, int], Iterator[PoseBlock]]
