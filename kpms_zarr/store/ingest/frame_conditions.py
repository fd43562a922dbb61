"""Conditions by frame, read as epochs: all frames of one condition are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.session_keys import match_keys
from kpms_zarr.store.parsers.table.files import batches, names_of
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.wording import listed

_SESSION = ("session", "recording", "file", "video", "name")
_FRAME = ("frame", "frame_index", "frame_number")

_Found = tuple[dict[str, SessionEpochs], list[str]]


def conditions_by_frame(
    arrays: Mapping[str, Any], sessions: Mapping[str, Session], named: Sequence[Named], where: str
) -> _Found:
    """Read a condition for each frame from arrays by session.

    Parameters
    ----------
    arrays : mapping of str to array, (frame,)
        Text or numbers; None, NaN and "" are no condition.
    sessions : mapping of str to Session
    named : sequence of Named
    where : str
        For errors.

    Raises
    ------
    InputError
        Unknown sessions, arrays of the wrong length, sessions without a condition.
    """
    arrays = {str(key): values for key, values in arrays.items()}
    keys, problems, notes = match_keys(dict.fromkeys(arrays, 0), named, where)
    problems = [_without_row(problem) for problem in problems]
    found = {}
    for key, names in keys.items():
        values = np.asarray(arrays[key])
        for name in names:
            n_frames = sessions[name].n_frames
            if values.shape != (n_frames,):
                problems.append(
                    Problem(
                        f"a condition for each of the {n_frames:,} frames of session {name}",
                        f"an array of shape {values.shape}",
                        where,
                        "give an array (frame,) for each session",
                    )
                )
                continue
            code, texts = pd.factorize(values)
            called = [_text(text) for text in texts]
            code = np.where(np.array([*map(bool, called), False])[code], code, -1)
            own = _epochs(code, called)
            if own is None:
                problems.append(_nothing(name, where))
            else:
                found[name] = own
    if problems:
        raise InputError.of(problems)
    return found, notes


def conditions_of_file(
    path: Path, sessions: Mapping[str, Session], named: Sequence[Named]
) -> _Found:
    """Read a file with a row for each frame: session, condition, and frame.

    Raises
    ------
    InputError
        Columns that are not there, unknown sessions, frames that are not there, or twice.
    """
    where = str(path)
    lower = [name.lower() for name in names_of(path)]

    def column(choices: Sequence[str]) -> int | None:
        return next((lower.index(name) for name in choices if name in lower), None)

    session, frame, condition = column(_SESSION), column(_FRAME), column(["condition"])
    if session is None or frame is None or condition is None:
        raise InputError(
            expected="the columns session, frame and condition, a row for each frame",
            found=f"the columns {listed(lower)}",
            where=where,
            fix="name the columns so; or write a csv file with a row for each interval: session, "
            "start_s, stop_s, condition",
        )
    first: dict[str, int] = {}
    for batch in batches(path, (frame,), (session,), ()):
        code, texts = batch.texts[0]
        at, place = np.unique(code, return_index=True)
        for number, row in zip(at.tolist(), place.tolist(), strict=True):
            first.setdefault(texts[number], batch.row + row)
    keys, problems, notes = match_keys(first, named, where)
    if problems:
        raise InputError.of(problems)
    codes = {
        name: np.full(sessions[name].n_frames, -2, np.int32) for of in keys.values() for name in of
    }
    called: dict[str, int] = {}
    for batch in batches(path, (frame,), (session, condition), ()):
        (of_row, texts), (said, conditions) = batch.texts
        number = np.array([called.setdefault(text, len(called)) for text in conditions], np.int32)
        for one in np.unique(of_row).tolist():
            rows = np.flatnonzero(of_row == one)
            for name in keys[texts[one]]:
                _fill(codes[name], batch.numbers[rows, 0], number[said[rows]], name, where)
    labels = list(called)
    is_none = np.array([not text for text in labels])
    found = {}
    for name, code in codes.items():
        code[code >= 0] = np.where(is_none[code[code >= 0]], -1, code[code >= 0])
        own = _epochs(code, labels)
        if own is None:
            problems.append(_nothing(name, where))
        else:
            found[name] = own
    if problems:
        raise InputError.of(problems)
    return found, notes


def _fill(
    codes: np.ndarray, frame: np.ndarray, values: np.ndarray, session: str, where: str
) -> None:
    """Put the conditions of rows where their frames are; an InputError where they cannot be."""
    n_frames = len(codes)
    is_wrong = ~((frame == np.rint(frame)) & (frame >= 0) & (frame < n_frames))
    if is_wrong.any():
        raise InputError(
            expected=f"frames 0 to {n_frames - 1:,} of session {session}",
            found=f"frame {frame[is_wrong][0]:g}",
            where=where,
            fix="number frames from the first frame of the session in the store, from 0 on",
        )
    place = frame.astype(np.int64)
    distinct, number = np.unique(place, return_counts=True)
    twice = distinct[(number > 1) | (codes[distinct] != -2)]
    if twice.size:
        raise InputError(
            expected=f"each frame of session {session} once",
            found=f"frame {twice[0]:,} twice",
            where=where,
            fix="take one of the rows away",
        )
    codes[place] = values


def _epochs(code: np.ndarray, called: Sequence[str]) -> SessionEpochs | None:
    """Epochs of runs of conditions, (frame,) int, below 0 = none; None without any."""
    start, stop = run_bounds(code)
    runs = code[start]
    is_real = runs >= 0
    names = [called[number] for number in runs[is_real].tolist()]
    return SessionEpochs.of(names, names, start[is_real], stop[is_real]) if names else None


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _nothing(session: str, where: str) -> Problem:
    return Problem(
        f"a condition for some frames of session {session}",
        "none",
        where,
        "leave the session out of the table: without epochs it is one epoch",
    )


def _without_row(problem: Problem) -> Problem:
    return Problem(
        problem.expected, problem.found, problem.where.replace(", row 0", ""), problem.fix
    )
