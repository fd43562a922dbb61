"""Loading of one tracking file into the store, in any process or thread.

Frames are written to rows of the session dimension that nobody sees yet; who is in charge makes
them visible afterwards. Memory does not grow with the length of the file.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, layout, regions
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError, OtherKindError, unreadable
from kpms_zarr.store.ingest.workers import Ask
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.parsers import parser_named, recognise
from kpms_zarr.store.parsers.base import FileHeader, PoseBlock, ReadOptions
from kpms_zarr.store.parsers.contents import Verdict, content_of, has_tracking_suffix, is_unfinished
from kpms_zarr.store.parsers.time.gaps import Gaps
from kpms_zarr.store.study.plausibility import AS_IN_THE_FILE, Correction, Readings

_KEPT_BYTES = 64_000_000
"""Frames of a file that are kept while it is not yet known which of its tracks are taken."""


@dataclass(frozen=True)
class FrameWindow:
    """Frames of a track that are taken: ``start:stop:step``, stop None = to the end."""

    start: int = 0
    stop: int | None = None
    step: int = 1


@dataclass(frozen=True)
class ProbeTask:
    """Task to read a header: format "auto" or a name; file named itself, or found in a folder."""

    path: Path
    format: str
    options: ReadOptions
    is_named: bool = True


@dataclass(frozen=True)
class Probe:
    """Result of reading a header: SHA-256 of the content, the reason for the format, the stamp.

    ``below``: the folders between what a person named and the file.
    """

    header: FileHeader
    file_hash: str
    reason: str
    stamp: tuple[int, ...] = ()
    below: tuple[str, ...] = ()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Stamp of a file, which changes when somebody writes to it."""
    now = path.stat()
    return now.st_size, now.st_mtime_ns, now.st_ino


def probe(task: ProbeTask, ask: Ask) -> Probe:
    """Recognise a file and read its header.

    Raises
    ------
    InputError
        A file that cannot be used.
    OtherKindError
        One that is sound and no tracking; also one that was found, with a name that is not one of
        tracking files, and is not recognised.
    """
    try:
        return _probe(task)
    except InputError as error:
        if task.is_named:
            raise
        raise _of_a_found_file(task, error) from error


def _probe(task: ProbeTask) -> Probe:
    parser, reason = recognise(task.path, task.format)
    if not task.is_named and is_unfinished(task.path.name):
        raise InputError(
            expected="a whole file",
            found="one that is still being copied or downloaded, by its name",
            where=str(task.path),
            fix="wait until it is there, or delete it",
        )
    stamp = stamp_of(task.path)
    header = parser.inspect(task.path, task.options)
    return Probe(header, file_hash(task.path), reason, stamp)


def _of_a_found_file(task: ProbeTask, error: InputError) -> InputError:
    """Error for a file that a person did not name: not everything in a folder is meant."""
    path, is_tracking_name = task.path, has_tracking_suffix(task.path.name)
    other = OtherKindError.of([replace(problem, found="") for problem in error.problems])
    try:
        parser, _ = recognise(path)
    except OtherKindError as kind:
        return kind if is_tracking_name else other
    except InputError:
        may_be = is_tracking_name or content_of(path).verdict is Verdict.TRACKING
        return error if may_be else other
    if task.format in ("auto", parser.name):
        return error
    return OtherKindError(
        expected=f"a file of the format {task.format}",
        found=f"one of the format {parser.name}",
        where=str(path),
        fix="name files of one format, or leave `format=` out",
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


@dataclass(frozen=True)
class TrackTask:
    """A track to be loaded: its key in the file, and the keypoints to take, by number."""

    key: str
    columns: tuple[int, ...]
    window: FrameWindow = FrameWindow()


@dataclass(frozen=True)
class LoadTask:
    """A file to be loaded.

    Attributes
    ----------
    store : str
    token : str
        Of this ingest, and of no other.
    header : FileHeader
    options : ReadOptions
    tracks : tuple of TrackTask
    min_visible : float
        Tracks with a smaller share of positions, 0 to 1, are left out, as are those with none.
    stamp : tuple of int
        Of the file when it was looked at.
    correction : Correction
        Is applied before anything is counted or written.
    is_dry : bool
        Whether the file is read to its end and nothing is written.
    """

    store: str
    token: str
    header: FileHeader
    options: ReadOptions
    tracks: tuple[TrackTask, ...]
    min_visible: float = 0.0
    stamp: tuple[int, ...] = ()
    correction: Correction = AS_IN_THE_FILE
    is_dry: bool = False


@dataclass(frozen=True)
class LoadedTrack:
    """A track that was loaded, or left out (row None).

    Attributes
    ----------
    key : str
    row : int or None
        Along the session dimension.
    n_frames : int
    visible : float
        Share of positions that are not missing (see :func:`kpms_zarr.store.missing.is_missing`).
    checksum : int
        CRC-32 of position and confidence as stored, chunk after chunk.
    readings : Readings or None
        What the numbers look like; None without frames.
    """

    key: str
    row: int | None
    n_frames: int
    visible: float
    checksum: int
    readings: Readings | None = None


def load(task: LoadTask, ask: Ask) -> tuple[LoadedTrack, ...]:
    """Write the frames of a file; asks for as many rows as there are tracks to keep.

    Before each piece it asks for no rows, which ends it once nobody wants its work any more.

    Raises
    ------
    InputError
        What the parser raises for a damaged file, and for one that was written to meanwhile; rows
        asked for are then of no use.
    """
    loaded = _load(task, ask)
    _check_unchanged(task)
    return loaded


def _kept_keys(task: LoadTask, tallies: Mapping[str, _Tally]) -> list[str]:
    """Keys of the tracks that are seen often enough."""
    return [
        key
        for key, tally in tallies.items()
        if tally.n_visible and tally.visible >= task.min_visible
    ]


def _check_unchanged(task: LoadTask) -> None:
    path = task.header.path
    if task.stamp and stamp_of(path) != task.stamp:
        raise InputError(
            expected="a file that nobody writes to",
            found="that it changed while it was read",
            where=str(path),
            fix="wait until it is complete, and ingest it then",
        )


def _load(task: LoadTask, ask: Ask) -> tuple[LoadedTrack, ...]:
    pieces = _TrackPieces(task)
    stream = pieces.read()
    if task.is_dry:
        for _ in stream:
            pass
        return _write(task, pieces, (), ask)
    kept: list[_TrackPiece] = []
    n_bytes = 0
    for piece in stream:
        kept.append(piece)
        n_bytes += piece.position.nbytes
        if n_bytes > _KEPT_BYTES:
            break
    else:
        return _write(task, pieces, kept, ask)
    if task.min_visible == 0 and all(tally.n_visible for tally in pieces.tallies.values()):
        return _write(task, pieces, itertools.chain(kept, stream), ask)
    del kept
    for _ in stream:  # to its end, as every track counts
        pass
    return _write(task, pieces, _TrackPieces(task).read(), ask)


# ------------------------------------------------------------------ cutting


@dataclass(frozen=True)
class _TrackPiece:
    """Frames of a track that fill one chunk, the last of a track perhaps less."""

    key: str
    start: int
    position: np.ndarray
    confidence: np.ndarray | None


_Frames = tuple[np.ndarray, ...]
"""Positions, (frame, keypoint, space), and confidences, (frame, keypoint), where there are any."""


@dataclass
class _Tally:
    """Running counts of a track."""

    n_frames: int = 0
    n_visible: int = 0
    n_points: int = 0
    readings: Readings | None = None

    @property
    def visible(self) -> float:
        return self.n_visible / max(1, self.n_points)


class _TrackPieces:
    """The tracks of a file in pieces as large as a chunk, trimmed and downsampled."""

    def __init__(self, task: LoadTask) -> None:
        self._task = task
        self._parser = parser_named(task.header.format)
        self._tracks = {track.key: track for track in task.tracks}
        self.tallies = {track.key: _Tally() for track in task.tracks}

    def read(self) -> Iterator[_TrackPiece]:
        """Pieces of all tracks, those of one track in order."""
        waiting: dict[str, list[_Frames]] = {key: [] for key in self._tracks}
        header, options = self._task.header, self._task.options
        gaps = {track.key: track.gaps for track in header.tracks}
        for block in self._parser.read(header.path, FRAMES_PER_CHUNK, options):
            for key in block.position.keys() & self._tracks.keys():
                for frames in filled(block, key, gaps.get(key)):
                    taken = self._taken(frames, key)
                    if taken is not None:
                        waiting[key].append(taken)
                        yield from self._full(key, waiting[key])
        for key, parts in waiting.items():
            yield from self._full(key, parts, is_last=True)

    def _taken(self, block: PoseBlock, key: str) -> _Frames | None:
        """The frames and keypoints of a block that are taken, if any."""
        track = self._tracks[key]
        window, stop = track.window, block.start + block.n_frames
        first = max(window.start, block.start)
        first += (window.start - first) % window.step
        last = stop if window.stop is None else min(stop, window.stop)
        if first >= last:
            return None
        frames = slice(first - block.start, last - block.start, window.step)
        columns = list(track.columns)
        taken = []
        for values in (block.position[key], block.confidence.get(key)):
            if values is None:
                continue
            values = values[frames]
            if window.step > 1:  # else all frames would be kept for the few that are taken
                values = values.copy()
            taken.append(values if columns == [*range(values.shape[1])] else values[:, columns])
        return tuple(taken)

    def _full(
        self, key: str, parts: list[_Frames], *, is_last: bool = False
    ) -> Iterator[_TrackPiece]:
        n_frames = sum(len(part[0]) for part in parts)
        while n_frames >= FRAMES_PER_CHUNK or (is_last and n_frames):
            whole = [
                same[0] if len(same) == 1 else np.concatenate(same)
                for same in zip(*parts, strict=True)
            ]
            n = min(n_frames, FRAMES_PER_CHUNK)
            yield self._piece(key, *(values[:n] for values in whole))
            parts[:] = [tuple(values[n:] for values in whole)] if n < n_frames else []
            n_frames -= n

    def _piece(
        self, key: str, position: np.ndarray, confidence: np.ndarray | None = None
    ) -> _TrackPiece:
        tally = self.tallies[key]
        position, confidence = self._task.correction.apply(position, confidence)
        piece = _TrackPiece(key, tally.n_frames, position, confidence)
        readings = Readings.of_block(position, confidence)
        tally.readings = readings if tally.readings is None else tally.readings.add(readings)
        is_seen = ~is_missing(position, confidence)
        tally.n_frames += len(position)
        tally.n_visible += int(is_seen.sum())
        tally.n_points += is_seen.size
        return piece


def filled(block: PoseBlock, key: str, gaps: Gaps | None) -> Iterator[PoseBlock]:
    """Fill gaps: rows of a track as frames, with those missing before and between as NaN.

    Parameters
    ----------
    block : PoseBlock
        Counts the rows of the file.
    key : str
        Of the track, which is alone in what is given where frames are missing.
    gaps : Gaps, optional

    Yields
    ------
    PoseBlock
        Counts the frames of the track; at most a chunk of them where some are missing.
    """
    if gaps is None or gaps.is_filled:
        yield block
        return
    rows = gaps.frames(max(0, block.start - 1), block.start + block.n_frames)
    # The frame after the row before; gaps are before rows that there are.
    start = int(rows[0]) + 1 if block.start else 0
    frames = rows[1:] if block.start else rows
    if frames[-1] - start == block.n_frames - 1:
        yield PoseBlock(start, block.position, block.confidence)
        return
    position, confidence = block.position[key], block.confidence.get(key)
    first = 0
    while first < len(frames):
        stop = min(start + FRAMES_PER_CHUNK, int(frames[-1]) + 1)
        last = int(np.searchsorted(frames, stop))
        here = slice(first, last), frames[first:last] - start, stop - start
        yield PoseBlock(
            start,
            {key: _spread(position, *here)},
            {} if confidence is None else {key: _spread(confidence, *here)},
        )
        start, first = stop, last


def _spread(values: np.ndarray, rows: slice, places: np.ndarray, n_frames: int) -> np.ndarray:
    """Place rows among frames, NaN at the others."""
    spread = np.full((n_frames, *values.shape[1:]), np.nan, np.float32)
    spread[places] = values[rows]
    return spread


# ------------------------------------------------------------------ writing


def _write(
    task: LoadTask, seen: _TrackPieces, pieces: Iterable[_TrackPiece], ask: Ask
) -> tuple[LoadedTrack, ...]:
    """Write the tracks that are seen often enough, to the rows that are handed out."""
    tallies = seen.tallies
    keys = _kept_keys(task, tallies)
    row = dict(zip(keys, ask(len(keys)), strict=True))
    checksum = dict.fromkeys(keys, 0)
    arrays = {} if task.is_dry else _arrays(task.store, task.token)
    for piece in pieces:
        if piece.key not in row:
            continue
        ask(0)
        stop = piece.start + len(piece.position)
        block = Block(row[piece.key], piece.start, stop)
        for name, values in (("position", piece.position), ("confidence", piece.confidence)):
            if values is not None:
                _write_piece(arrays[name], block, values)
                checksum[piece.key] = add_checksum(checksum[piece.key], values)
    return tuple(
        LoadedTrack(
            key, row.get(key), tally.n_frames, tally.visible, checksum.get(key, 0), tally.readings
        )
        for key, tally in tallies.items()
    )


@lru_cache(maxsize=4)
def _arrays(store: str, token: str) -> dict[str, zarr.Array[Any]]:
    """Arrays to be written to, opened once by each worker of an ingest."""
    group = access.subgroup(access.open_group(store, "r+"), layout.KEYPOINTS)
    assert group is not None
    return {
        name: regions.unbounded(group[name])  # type: ignore[arg-type]
        for name in ("position", "confidence")
    }


def _write_piece(array: zarr.Array[Any], block: Block, values: np.ndarray) -> None:
    """Write a piece as a whole chunk: of part of one, Zarr would read the rest of it first."""
    n_more = -block.stop % array.chunks[1]
    if n_more:
        values = np.concatenate([values, np.full((n_more, *values.shape[1:]), np.nan, "f4")])
        block = Block(block.session, block.start, block.stop + n_more)
    regions.write(array, block, values, n_frames=block.stop)


def add_checksum(before: int, values: np.ndarray) -> int:
    """CRC-32 of what came before and these float32 values.

    Values that are missing count as one and the same, whatever the bits of their NaN, and missing
    as a whole as nothing, as chunks of nothing are not stored.
    """
    is_nan = np.isnan(values)
    if is_nan.all():
        return before
    values = np.ascontiguousarray(values, "<f4")
    if is_nan.any():
        values = np.where(is_nan, np.float32(np.nan), values)
    return zlib.crc32(values.view(np.uint8).data, before)
