"""FreiPose prediction files (json), decoded one frame after another, never as a whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    float32,
    some,
)
from kpms_zarr.store.parsers.naming import keypoint_names
from kpms_zarr.store.parsers.text.reading import opened

_SPACE = ("x", "y", "z")
_POINTS = "kp_xyz"
_SCORES = "kp_score"

_CHUNK = 1_000_000
# A frame has some hundred numbers; many times that is no frame.
_LONGEST_FRAME = 4_000_000
_NUMBERS_AT_ONCE = 1_000_000

_BLANK = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
# Deep nesting and integers of thousands of digits are not JSONDecodeErrors.
_UNDECODABLE = (ValueError, RecursionError, MemoryError)


def sniff(path: Path) -> str | None:
    """Recognise a list that begins with a frame; see `Parser`."""
    with path.open(encoding="utf-8-sig") as file:
        beginning = re.match(r"\s*\[\s*(?=\{)", text := file.read(_CHUNK))
    if beginning is None:
        return None
    frame, _ = _DECODER.raw_decode(text, beginning.end())
    if _POINTS in frame:
        return f"list of frames with {_POINTS}"
    # Claimed all the same, so that `inspect` says what is missing.
    return "list of frames with boxes and xyz" if {"boxes", "xyz"} <= frame.keys() else None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read up to the first frame with a pose; see `Parser`."""
    n_keypoints, has_confidence = _shape(path)
    names, notes = keypoint_names(options, n_keypoints, str(path))
    scale = f"the confidence is `{_SCORES}`, which is no likelihood and may exceed 1"
    lacking = f"no `{_SCORES}`: read without confidence"
    return FileHeader(
        format=PARSER.name,
        path=path,
        space=_SPACE,
        tracks=(TrackHeader("", names),),
        has_confidence=has_confidence,
        notes=(*notes, scale if has_confidence else lacking),
    )


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    n_keypoints, has_confidence = _shape(path)
    start = 0
    with opened(path) as file:
        # The rest of a frame (boxes) is dropped at once.
        frames = (
            {key: frame.get(key) for key in (_POINTS, _SCORES)} for frame in _frames(file, path)
        )
        at_once = min(block_frames, 1 + _NUMBERS_AT_ONCE // n_keypoints)
        while block := list(islice(frames, at_once)):
            points = _values(block, _POINTS, (n_keypoints, len(_SPACE)), start, path)
            confidence = {}
            if has_confidence:
                confidence[""] = float32(_values(block, _SCORES, (n_keypoints,), start, path))
            yield PoseBlock(start, {"": float32(points)}, confidence)
            start += len(block)


def _shape(path: Path) -> tuple[int, bool]:
    """Shape of the poses, and whether there are scores, by the first frame with a pose."""
    known: list[str] = []
    number = -1
    with opened(path) as file:
        for number, frame in enumerate(_frames(file, path)):
            if not frame.get(_POINTS):
                known = known or list(frame)
                continue
            found = _shape_of(frame[_POINTS])
            shape = found[1:] if len(found) == 3 and found[0] == 1 else found
            if len(shape) != 2 or shape[0] < 1 or shape[1] != len(_SPACE):
                raise InputError(
                    expected=f"`{_POINTS}` of shape (1, keypoints, 3)",
                    found=f"shape {found}" if found else "something else than lists of numbers",
                    where=f"{path}, frame {number}",
                    fix="check that this is the prediction of one animal by FreiPose",
                )
            return shape[0], bool(frame.get(_SCORES))
    frames = f"{number + 1} frames, the first with {some(known)}"
    raise InputError(
        expected=f"frames with `{_POINTS}`",
        found=frames if known else "no frame",
        where=str(path),
        fix="run predict_pose.py of FreiPose after predict_bb.py, and use the file that it writes",
    )


def _shape_of(value: Any) -> tuple[int, ...]:
    """Shape of nested lists of numbers; () for anything else, also for ragged ones."""
    try:
        return np.array(value, dtype=object).shape if isinstance(value, list) else ()
    except ValueError:
        return ()


def _frames(file: TextIO, path: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the objects of the list in the file, of which only a piece is in memory."""
    text = file.read(_CHUNK)
    at = _BLANK.match(text).end()  # type: ignore[union-attr]
    closing, number = "[", 0
    while True:
        # Between frames there is a comma, before the first the bracket; "]" ends the list.
        text, at = _beyond(file, text, at)
        mark = text[at : at + 1]
        if mark == "]" and closing == ",":
            break
        if mark != closing:
            raise _damaged(f"{mark!r} where {closing!r} belongs", number, path)
        text, at = _beyond(file, text, at + 1)
        if number == 0 and text[at : at + 1] == "]":
            break
        frame, text, at = _decoded(file, text, at, number, path)
        if not isinstance(frame, dict):
            raise _damaged("something else than an object", number, path)
        yield frame
        closing, number = ",", number + 1
    text, at = _beyond(file, text, at + 1)
    if at < len(text):
        raise _damaged("text behind the end of the list", number, path)


def _beyond(file: TextIO, text: str, at: int) -> tuple[str, int]:
    """Skip white space, reading on where the text ends."""
    while True:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if at < len(text) or not (more := file.read(_CHUNK)):
            return text, at
        text, at = more, 0


def _decoded(file: TextIO, text: str, at: int, number: int, path: Path) -> tuple[Any, str, int]:
    """Decode one value, reading on while it is incomplete."""
    while True:
        try:
            value, end = _DECODER.raw_decode(text, at)
            return value, text, end
        except _UNDECODABLE as error:
            more = file.read(_CHUNK) if len(text) - at < _LONGEST_FRAME else ""
            if not more:
                at_end = isinstance(error, json.JSONDecodeError) and len(text) - error.pos < 20
                reason = "the end of the file within it" if at_end else str(error)[:200]
                raise _damaged(reason, number, path) from error
            text, at = text[at:] + more, 0


def _damaged(found: str, number: int, path: Path) -> InputError:
    return InputError(
        expected="a list of frames in complete JSON",
        found=found,
        where=f"{path}, frame {number}",
        fix="the file is cut off or damaged: copy it again, or run the prediction again",
    )


def _values(
    block: list[dict[str, Any]], key: str, shape: tuple[int, ...], start: int, path: Path
) -> np.ndarray:
    """Numbers of some frames, (frame, *shape) float64; NaN for frames without them."""
    rows = [frame.get(key) for frame in block]
    try:
        values = np.array(rows)
    except (ValueError, OverflowError):
        values = np.empty(0, dtype=object)
    if values.dtype.kind in "fiu" and values.shape[1:] in (shape, (1, *shape)):
        return values.reshape(len(rows), *shape)
    values = np.full((len(rows), *shape), np.nan)
    for number, row in enumerate(rows):
        if row:
            values[number] = _checked(row, key, shape, f"{path}, frame {start + number}")
    return values


def _checked(row: Any, key: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Check the numbers of a frame in which some are missing (null), or wrong."""
    found = _shape_of(row)
    if found not in (shape, (1, *shape)):
        raise InputError(
            expected=f"`{key}` of shape {(1, *shape)}",
            found=f"shape {found}" if found else "something else than lists of numbers",
            where=where,
            fix="all frames of a file have the same keypoints: run the prediction again",
        )
    flat = list(chain.from_iterable(np.array(row, dtype=object).reshape(-1, 1).tolist()))
    wrong = [v for v in flat if v is not None and (type(v) not in (int, float))]
    if wrong:
        raise InputError(
            expected=f"numbers in `{key}`",
            found=f"{str(wrong[0])[:40]!r}",
            where=where,
            fix="correct it (null where the point is missing), or run the prediction again",
        )
    return np.array([_number(value) for value in flat]).reshape(shape)


def _number(value: int | float | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf


PARSER = Parser("freipose_json", "FreiPose json", sniff, inspect, read)
