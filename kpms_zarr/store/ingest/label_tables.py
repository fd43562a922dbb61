"""Labels of several fits of the same sessions, from files alone: no store is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.label_numbers import LabelNumbers
from kpms_zarr.store.ingest.label_sources import LabelPiece, LabelsLike, source_of
from kpms_zarr.store.wording import listed

ONE_SESSION = "session"
"""What the session is called where no file names it."""
Rates = float | Mapping[str, float] | None
"""Frames per second: of all sessions, or of each; None = not known."""


@dataclass(frozen=True)
class TableLabels:
    """Labels of one fit, in memory: two bytes for each frame.

    Attributes
    ----------
    name, where : str
        What they are called, and what messages call the file.
    numbers : ndarray, (label,) int64
        Syllables as the file numbers them, ascending.
    sessions : tuple of Session
        Each with its row as index.
    frames : tuple of range or ndarray, (frame,) int64
        Of each session: numbers of its frames, ascending.
    labels : tuple of ndarray, (frame,) int16
        Of each session, as places in ``numbers``; -1 = none.
    is_named : bool
        Whether the file names its sessions.
    """

    name: str
    where: str
    numbers: np.ndarray
    sessions: tuple[Session, ...]
    frames: tuple[range | np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    is_named: bool

    def syllable(self, row: int, start: int, stop: int) -> np.ndarray:
        """Labels, (frame,) int16, as places in ``numbers``; -1 = none."""
        return self.labels[row][start:stop]

    def certainty(self, row: int, start: int, stop: int) -> np.ndarray | None:
        """None: files say nothing of it."""
        return None


def by_name(labels: Mapping[str, LabelsLike] | Sequence[LabelsLike]) -> dict[str, LabelsLike]:
    """Labels of each fit by a name: that of its file, or of its path where files are called alike.

    Raises
    ------
    InputError
        For one file or folder in place of several, or one that is there twice.
    """
    if isinstance(labels, Mapping):
        return {str(name): one for name, one in labels.items()}
    if isinstance(labels, str | os.PathLike):
        raise InputError(
            expected="a list of files, one for each fit",
            found=repr(os.fspath(labels)),
            where="`labels=`",
            fix="put it into a list, with those of other fits",
        )
    given = list(labels)
    paths = [None if isinstance(one, Mapping) else os.fspath(one) for one in given]
    stems = [None if path is None else Path(path).stem.removesuffix(".csv") for path in paths]
    found: dict[str, LabelsLike] = {}
    for place, (one, path, stem) in enumerate(zip(given, paths, stems, strict=True)):
        name = str(place + 1) if path is None or stem is None else stem
        if path is not None and stems.count(stem) > 1:
            name = path
        if name in found:
            raise InputError(
                expected="each file once",
                found=f"{name!r} more than once",
                where="`labels=`",
                fix="leave it out the second time: the same labels twice agree with themselves",
            )
        found[name] = one
    return found


def read_tables(
    labels: Mapping[str, LabelsLike], fps: Rates = None, unknown: float = float("nan")
) -> Iterator[TableLabels]:
    """Read the labels of one fit after the other; all must have the same sessions and frames.

    Parameters
    ----------
    labels : mapping of str to path or mapping
        See :func:`kpms_zarr.consensus_of_labels`.
    fps : float, mapping or None
    unknown : float
        Frame rate of the sessions where none is given.

    Yields
    ------
    TableLabels
        Sessions as the first file orders and, if any does, names them.

    Raises
    ------
    InputError
        For a file that cannot be read; after the last one, for those whose sessions or frames
        are not those of the first.
    """
    first: TableLabels | None = None
    problems: list[Problem] = []
    for name, given in labels.items():
        one = _read(name, given)
        if first is None:
            first = replace(one, labels=())
        elif found := _differences(first, one):
            problems += found
            continue
        order = _rows(first, one)
        names = [s.name for s in (one if one.is_named else first).sessions]
        if first.is_named:
            names = [session.name for session in first.sessions]
        if one.is_named and not first.is_named:
            first = replace(first, sessions=one.sessions, is_named=True)
        yield replace(
            one,
            sessions=tuple(
                Session(session, row, len(frames), _rate(fps, session, unknown))
                for row, (session, frames) in enumerate(zip(names, first.frames, strict=True))
            ),
            frames=first.frames,
            labels=tuple(one.labels[row] for row in order),
        )
    if problems:
        raise InputError.of(problems)


def gaps_in_words(table: TableLabels) -> list[str]:
    """Say of which sessions frames are left out in the files, which are taken for no gap."""
    rows = zip(table.sessions, table.frames, strict=True)
    names = [session.name for session, frames in rows if not isinstance(frames, range)]
    if not names:
        return []
    return [
        f"rows are missing between the frames of {listed(names, 3)}: those on either side are "
        "taken for neighbours (write -1 for a frame without a label)"
    ]


# ------------------------------------------------------------------ one file


def _read(name: str, given: LabelsLike) -> TableLabels:
    where = f"labels {name!r}" if isinstance(given, Mapping) else os.fspath(given)
    source = source_of(given, where)
    if not source.keys:
        raise InputError(
            expected="labels of a session",
            found="none",
            where=where,
            fix="write a table with the columns session, frame, syllable",
        )
    met = LabelNumbers(where)
    pieces: dict[str, list[LabelPiece]] = {key: [] for key in source.keys}
    filled = dict.fromkeys(source.keys, 0)
    for piece in source.pieces(source.keys):
        codes = met.codes(piece)
        if source.is_padded:
            assert isinstance(piece.frame, int)
            there = np.flatnonzero(~np.isnan(piece.values))
            end = piece.frame + int(there[-1]) + 1 if there.size else 0
            filled[piece.key] = max(filled[piece.key], end)
        pieces[piece.key].append(LabelPiece(piece.key, piece.frame, codes))
    numbers = np.array(met.numbers, np.int64)
    order = np.argsort(numbers)
    place = np.full(len(numbers) + 1, -1, np.int16)  # -1 indexes the last entry and stays -1
    place[order] = np.arange(len(numbers), dtype=np.int16)
    frames, labels = [], []
    for key in source.keys:
        length = filled[key] if source.is_padded else None
        numbered, codes = _joined(pieces.pop(key), length, f"{where}, {key!r}")
        frames.append(numbered)
        labels.append(place[codes])
    sessions = tuple(
        Session(key if source.is_named else ONE_SESSION, row, len(frames[row]), float("nan"))
        for row, key in enumerate(source.keys)
    )
    if not len(numbers):
        raise InputError(
            expected="a label for some of the frames",
            found="none in any of them",
            where=where,
            fix="look at the column of the syllables, or leave the file out",
        )
    return TableLabels(
        name, where, numbers[order], sessions, tuple(frames), tuple(labels), source.is_named
    )


def _joined(
    pieces: Sequence[LabelPiece], length: int | None, where: str
) -> tuple[range | np.ndarray, np.ndarray]:
    """Numbers of the frames of a session, ascending, and their labels, (frame,) int16."""
    none = [np.zeros(0, np.int16)]
    labels = np.concatenate([*none, *(piece.values for piece in pieces)])[:length]
    if all(isinstance(piece.frame, int) for piece in pieces):
        return range(len(labels)), labels
    frame = np.concatenate([np.asarray(piece.frame, np.int64) for piece in pieces])
    if (np.diff(frame) <= 0).any():
        order = np.argsort(frame, kind="stable")
        frame, labels = frame[order], labels[order]
        twice = frame[1:][frame[1:] == frame[:-1]]
        if twice.size:
            raise InputError(
                expected="one row for each frame of a session",
                found=f"frame {twice[0]} more than once",
                where=where,
                fix="take the rows away that are there twice",
            )
    step = int(frame[1] - frame[0]) if len(frame) > 1 else 1
    if (np.diff(frame) == step).all():
        return range(int(frame[0]), int(frame[-1]) + 1, step), labels
    return frame, labels


# ------------------------------------------------------------------ the same sessions and frames


def _rows(first: TableLabels, one: TableLabels) -> list[int]:
    """Rows of the sessions of a table, in the order of the first one."""
    if not (first.is_named and one.is_named):
        return list(range(len(first.sessions)))
    row = {session.name: session.index for session in one.sessions}
    return [row[session.name] for session in first.sessions]


def _differences(first: TableLabels, one: TableLabels) -> list[Problem]:
    """Sessions and frames that are not those of the first table."""
    fix = f"leave {one.where} out, or write labels of the same sessions and frames into each file"
    names, own = ([session.name for session in table.sessions] for table in (first, one))
    is_named = first.is_named and one.is_named
    if set(names) != set(own) if is_named else len(names) != len(own):
        missing = [name for name in names if name not in own] if one.is_named else []
        further = [name for name in own if name not in names] if first.is_named else []
        parts = [f"no {listed(map(repr, missing), 3)}"] if missing else []
        parts += [f"also {listed(map(repr, further), 3)}"] if further else []
        if not is_named:
            parts = ["a file that names no session"] if first.is_named else [listed(own, 3)]
        expected = listed(map(repr, names), 3) if first.is_named else "one session without a name"
        return [Problem(f"the sessions of {first.where}: {expected}", " and ".join(parts),
                        one.where, fix)]  # fmt: skip
    found = []
    for row, other in enumerate(_rows(first, one)):
        a, b = first.frames[row], one.frames[other]
        if not _are_equal(a, b):
            name = (first if first.is_named else one).sessions[row].name
            found.append(
                Problem(
                    f"the frames of {first.where}: {_frames_in_words(a)}",
                    f"{_frames_in_words(b)}{_first_difference(a, b)}",
                    f"{one.where}, session {name!r}",
                    fix,
                )
            )
    return found


def _are_equal(a: range | np.ndarray, b: range | np.ndarray) -> bool:
    if isinstance(a, range) or isinstance(b, range):
        return isinstance(a, range) and isinstance(b, range) and a == b
    return np.array_equal(a, b)


def _frames_in_words(frames: Any) -> str:
    if not len(frames):
        return "none"
    return f"{len(frames):,}, from {frames[0]} to {frames[-1]}"


def _first_difference(a: Any, b: Any) -> str:
    """Where two lists of frames that begin and end alike are not the same."""
    if len(a) != len(b) or not len(a) or a[0] != b[0]:
        return ""
    place = int(np.flatnonzero(np.asarray(a) != np.asarray(b))[0])
    return f", with frame {b[place]} in place of {a[place]}"


def _rate(fps: Rates, session: str, unknown: float) -> float:
    if fps is None:
        return unknown
    found = fps.get(session) if isinstance(fps, Mapping) else fps
    is_number = isinstance(found, int | float | np.number) and not isinstance(found, bool)
    if not is_number or not 0 < float(found) < np.inf:  # type: ignore[arg-type]
        raise InputError(
            expected=f"frames per second of session {session!r}",
            found="none" if found is None else repr(found),
            where="`fps=`",
            fix="give one number for all sessions, or a mapping with each of them",
        )
    return float(found)  # type: ignore[arg-type]
