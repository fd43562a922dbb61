"""Tables of positions that a person annotated by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.names import hint, match
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.session_keys import match_keys
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.session_rows import read_sheet
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.wording import listed

AnnotationsLike: TypeAlias = "str | os.PathLike[str] | pd.DataFrame"
"""A csv file or DataFrame with a row for each annotated keypoint."""
_MOST_PROBLEMS = 20


class Annotations(NamedTuple):
    """Annotated positions.

    Attributes
    ----------
    session, frame, keypoint : ndarray, (annotation,) int64
        Index of the session, frame of the session, index of the keypoint.
    position : ndarray, (annotation, space) float64
        In units of position of the store.
    notes : tuple of str
    """

    session: np.ndarray
    frame: np.ndarray
    keypoint: np.ndarray
    position: np.ndarray
    notes: tuple[str, ...]


def read_annotations(
    table: AnnotationsLike,
    study: StudySettings,
    sessions: Sequence[Session],
    named: Sequence[Named],
) -> Annotations:
    """Read a table of annotated positions.

    Parameters
    ----------
    table : path or DataFrame
        Columns ``session`` (name, recording, file, video or a beginning that only one has),
        ``frame`` (of the session, from 0 on), ``keypoint`` and ``x``, ``y`` (in 3-D ``z``).
    study : StudySettings
    sessions : sequence of Session
    named : sequence of Named
        What these can be called by.

    Raises
    ------
    InputError
        With everything that is wrong with the table.
    """
    wanted = ("session", "frame", "keypoint", *study.space)
    expected = f"a csv file with a row for each annotated keypoint: {','.join(wanted)}"
    notes: list[str] = []
    if isinstance(table, pd.DataFrame):
        where, header = "`annotations=`", [str(name) for name in table.columns]
        rows = [
            (number, tuple("" if pd.isna(cell) else str(cell).strip() for cell in row))
            for number, row in enumerate(table.itertuples(index=False))
        ]
    else:
        where = os.fspath(table)
        sheet = read_sheet(Path(table), where, expected)
        header, rows, notes = list(sheet.header), list(sheet.rows), list(sheet.notes)
    place = {name.strip().lower(): number for number, name in enumerate(header)}
    lacking = [name for name in wanted if name not in place]
    if lacking or not rows:
        found = f"no column {listed(lacking)}" if lacking else "no rows"
        raise InputError(
            expected=expected,
            found=found,
            where=where,
            fix="write the header and a row for each keypoint that was annotated",
        )
    columns = {name: [cells[place[name]] for _, cells in rows] for name in wanted}
    numbers = [number for number, _ in rows]
    return _checked(columns, numbers, study, sessions, named, where, notes)


def _checked(
    columns: dict[str, list[str]],
    numbers: Sequence[int],
    study: StudySettings,
    sessions: Sequence[Session],
    named: Sequence[Named],
    where: str,
    notes: list[str],
) -> Annotations:
    first: dict[str, int] = {}
    for key, number in zip(columns["session"], numbers, strict=True):
        first.setdefault(key, number)
    matched, problems, said = match_keys(first, named, where)
    by_name = {session.name: session for session in sessions}
    found: list[tuple[int, int, int, list[float]]] = []
    for row, number in enumerate(numbers):
        at = f"{where}, row {number}"
        names = matched.get(columns["session"][row], [])
        if len(names) > 1:
            problems.append(
                Problem(
                    "a row about one animal",
                    f"{columns['session'][row]!r}, the file of {listed(names)}",
                    at,
                    "write the name of the session",
                )
            )
        keypoint = match(columns["keypoint"][row], study.keypoints)
        if keypoint is None:
            text = columns["keypoint"][row]
            fix = hint(text, study.keypoints).strip() or "give names as in the store"
            problems.append(Problem("a keypoint of the store", repr(text), at, fix))
        position = [_number(columns[axis][row]) for axis in study.space]
        if any(math.isnan(value) for value in position):
            text = ", ".join(columns[axis][row] or "nothing" for axis in study.space)
            problems.append(
                Problem(f"numbers as {', '.join(study.space)}", text, at, "correct this row")
            )
        frame = _number(columns["frame"][row])
        session = by_name.get(names[0]) if len(names) == 1 else None
        n_frames = session.n_frames if session else math.inf
        if not (frame == math.floor(frame) if math.isfinite(frame) else False) or not (
            0 <= frame < n_frames
        ):
            of = f" of the {n_frames:,} of session {names[0]}" if session else ""
            problems.append(
                Problem(
                    f"a frame{of}, counted from 0", repr(columns["frame"][row]), at,
                    "count from the first frame of the session",
                )
            )  # fmt: skip
        elif session and keypoint is not None:
            point = study.keypoints.index(keypoint)
            found.append((session.index, int(frame), point, position))
    if problems:
        raise InputError.of(list(dict.fromkeys(problems))[:_MOST_PROBLEMS])
    session_index, frames, points, positions = zip(*found, strict=True)
    of_session, of_frame, of_point = (
        np.array(one, np.int64) for one in (session_index, frames, points)
    )
    return Annotations(
        of_session, of_frame, of_point, np.array(positions, np.float64), (*notes, *said)
    )


def _number(text: str) -> float:
    """Parse a finite number; NaN for what is none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
