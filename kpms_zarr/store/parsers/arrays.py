"""Arrays in memory, read like a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    TrackHeader,
    Tracks,
    float32,
)

_SPACE = ("x", "y", "z")


def tracks_in_memory(
    arrays: Mapping[str, Any] | None,
    confidences: Mapping[str, Any] | None = None,
    keypoint_names: Sequence[str] = (),
    time_unit: str = "auto",
) -> dict[str, Tracks] | None:
    """Sessions from arrays and from ``movement`` datasets; None without any.

    Parameters
    ----------
    arrays : mapping of str to array, (frame, keypoint, space), or to xarray.Dataset
        By session name; NaN = missing.
    confidences : mapping of str to array, (frame, keypoint), optional
        By session name; may lack some.
    keypoint_names : sequence of str, optional
        Default: ``keypoint_0``, ``keypoint_1``, ...
    time_unit : str
        Of the times of datasets, see `ReadOptions`.

    Raises
    ------
    InputError
        With all that is wrong with the arrays.
    """
    if arrays is None and not confidences:
        return None
    problems: list[Problem] = []
    found: dict[str, Tracks] = {}
    arrays, confidences = arrays or {}, confidences or {}
    for name in confidences.keys() - arrays.keys():
        problems.append(
            Problem("confidences of sessions in `arrays`", f"{name!r}", "confidences", "name it so")
        )
    for name, values in arrays.items():
        if hasattr(values, "data_vars"):
            from kpms_zarr.store.parsers.movement import (
                netcdf as movement_netcdf,  # it imports xarray
            )

            try:
                found[str(name)] = movement_netcdf.tracks_of_dataset(values, str(name), time_unit)
            except InputError as error:
                problems += error.problems
            continue
        position, wrong = _checked(name, values, confidences.get(name), keypoint_names)
        problems += wrong
        if wrong:
            continue
        n_keypoints, n_dims = position.shape[1:]
        names = tuple(keypoint_names) or tuple(f"keypoint_{i}" for i in range(n_keypoints))
        given = confidences.get(name)
        confidence = {} if given is None else {"": np.asarray(given)}
        header = FileHeader(
            "array", Path(str(name)), _SPACE[:n_dims], (TrackHeader("", names),), bool(confidence)
        )
        found[str(name)] = Tracks(header, {"": position}, confidence)
    if problems:
        raise InputError.of(problems)
    return found


def _checked(
    name: object, values: Any, confidence: Any, keypoint_names: Sequence[str]
) -> tuple[np.ndarray, list[Problem]]:
    where = f"arrays[{name!r}]"
    position = np.asarray(values)
    shape = "(frames, keypoints, 2 or 3) of numbers"
    fix = "give an array of shape (frames, keypoints, 2 or 3)"
    is_right = position.ndim == 3 and position.shape[2] in (2, 3) and position.dtype.kind in "fiu"
    if not (is_right and position.shape[0] and position.shape[1]):
        return position, [Problem(shape, f"{position.shape} of {position.dtype}", where, fix)]
    problems = []
    if not isinstance(name, str) or not name or "/" in name or "\\" in name:
        expected = "a session name: text without slashes"
        problems.append(Problem(expected, repr(name), "arrays", "name the session otherwise"))
    if keypoint_names and len(keypoint_names) != position.shape[1]:
        problems.append(
            Problem(
                f"{len(keypoint_names)} keypoints, as many as keypoint_names",
                str(position.shape[1]),
                where,
                "name every keypoint of the arrays, in their order",
            )
        )
    if confidence is not None:
        shape_of = np.shape(confidence)
        if shape_of != position.shape[:2] or np.asarray(confidence).dtype.kind not in "fiu":
            problems.append(
                Problem(
                    f"confidences of shape {position.shape[:2]}",
                    str(shape_of),
                    f"confidences[{name!r}]",
                    "give one number for every frame and keypoint",
                )
            )
    return position, problems


def hash_of(tracks: Tracks) -> str:
    """SHA-256 of what the tracks hold, in hexadecimal digits."""
    digest = hashlib.sha256()
    for track in tracks.header.tracks:
        digest.update(repr((track.key, track.keypoints)).encode())
        for by_key in (tracks.position, tracks.confidence):
            if track.key in by_key:
                values = np.ascontiguousarray(by_key[track.key])
                digest.update(repr((values.shape, values.dtype.str)).encode())
                digest.update(values.view(np.uint8).data)
    return digest.hexdigest()


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Make the header of a recording in memory; see `Parser`."""
    return _tracks(path, options).header


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Read the frames, track after track; see `Parser`."""
    tracks = _tracks(path, options)
    for key, position in tracks.position.items():
        confidence = tracks.confidence.get(key)
        for start in range(0, len(position), block_frames):
            frames = slice(start, start + block_frames)
            given = {} if confidence is None else {key: float32(confidence[frames])}
            yield PoseBlock(start, {key: float32(position[frames])}, given)


def _tracks(path: Path, options: ReadOptions) -> Tracks:
    assert options.memory is not None
    return options.memory[str(path)]


PARSER = Parser("array", "arrays in memory", lambda path: None, inspect, read)
