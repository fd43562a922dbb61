"""Labels that another package gave to the frames of a study, read by blocks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.ingest.label_numbers import LabelNumbers
from kpms_zarr.store.ingest.label_sources import LabelPiece, LabelsLike, LabelSource, source_of
from kpms_zarr.store.study.matching import match
from kpms_zarr.store.wording import listed


class FileLabels:
    """Labels of another package, kept in a scratch file and read by blocks; close it in the end.

    Travels to other processes of this machine as the path of that file.

    Parameters
    ----------
    store : path or URL
        Of the study, which has the sessions.
    name : str
        What the labels are called.
    given : path, or mapping of str to array
        See :func:`kpms_zarr.compare`.

    Attributes
    ----------
    numbers : tuple of int
        Syllables as the file numbers them; labels are read as places in it.
    notes : tuple of str
        How sessions were found, and what was left out.

    Raises
    ------
    InputError
        For a file that cannot be read, sessions that are not found, labels that are not one whole
        number for each frame.
    """

    def __init__(self, store: StoreLike, name: str, given: LabelsLike) -> None:
        where = f"labels {name!r}"
        if not isinstance(given, Mapping):
            where += f", {os.fspath(given)}"
        source = source_of(given, where)
        self.notes: tuple[str, ...] = ()
        self._where, met = where, LabelNumbers(where)
        rows = self._matched(store, name, source)
        self._first = np.cumsum([0, *(session.n_frames for session in self._sessions)])
        handle, self._path = tempfile.mkstemp(prefix="kpms_zarr_labels_", suffix=".int16")
        os.close(handle)
        try:
            self._spool(source, rows, met)
        except BaseException:
            self.close()
            raise
        self.numbers = met.numbers

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Labelled sessions, each with its row as index."""
        return self._sessions

    def syllable(self, row: int, start: int, stop: int) -> np.ndarray:
        """Read labels, (frame,) int16, as places in ``numbers``; -1 = none."""
        first = int(self._first[row])
        n, dtype = stop - start, np.dtype(np.int16)
        return np.fromfile(self._path, dtype, n, offset=(first + start) * dtype.itemsize)

    def certainty(self, row: int, start: int, stop: int) -> np.ndarray | None:
        """None: other packages say nothing of it."""
        return None

    def close(self) -> None:
        """Remove the scratch file."""
        Path(self._path).unlink(missing_ok=True)

    # -------------------------------------------------------------- reading

    def _matched(self, store: StoreLike, name: str, source: LabelSource) -> dict[str, int]:
        """Find the sessions of the store; row of each by its key."""
        root = access.open_group(store)
        sessions = {session.name: session for session in access.sessions(root)}
        # Each row is unlike all others, so that two of them about one session are an error.
        table = {key: {"array": key} for key in source.keys}
        matches = match(table, {}, named_sessions(root), self._where)
        problems = list(matches.problems)
        keys = list(matches.rows.values())
        problems += [
            Problem(
                "labels of one session",
                f"{key!r}, which may be {listed(s for s, k in matches.rows.items() if k == key)}",
                self._where,
                "call the labels by the names of sessions, which `kpms_zarr.info` lists",
            )
            for key in dict.fromkeys(keys)
            if keys.count(key) > 1
        ]
        if problems:
            raise InputError.of(problems)
        if not keys:
            raise InputError(
                expected=f"labels of sessions of the store, such as {listed(sessions, 3)}",
                found=listed(map(repr, source.keys), 3) or "none",
                where=self._where,
                fix="call the arrays, columns or files by the names of sessions, recordings, "
                "tracking files or videos",
            )
        notes = [f"{name}: {matches.note()}"]
        if matches.unused:
            notes.append(f"{name}: no session for {listed(matches.unused)}, left out")
        self.notes = tuple(notes)
        self._sessions = tuple(
            Session(session, row, sessions[session].n_frames, sessions[session].fps)
            for row, session in enumerate(matches.rows)
        )
        return {key: row for row, key in enumerate(keys)}

    def _spool(self, source: LabelSource, rows: dict[str, int], met: LabelNumbers) -> None:
        """Write all labels into the scratch file."""
        n_frames = int(self._first[-1])
        labels = np.memmap(self._path, np.int16, "w+", shape=(max(1, n_frames),))
        labels[:] = -1
        reached = dict.fromkeys(rows, 0)
        for piece in source.pieces(rows):
            row = rows[piece.key]
            codes = met.codes(piece)
            if not isinstance(piece.frame, int):
                reached.pop(piece.key, None)
                self._place(labels, row, piece, codes)
                continue
            end = piece.frame + len(codes)
            if source.is_padded:
                filled = np.flatnonzero(~np.isnan(piece.values))
                end = piece.frame + int(filled[-1]) + 1 if filled.size else 0
            reached[piece.key] = max(reached[piece.key], end)
            start = int(self._first[row]) + piece.frame
            n = max(0, min(len(codes), int(self._first[row + 1]) - start))
            labels[start : start + n] = codes[:n]
        labels.flush()
        self._check_lengths(rows, reached)

    def _place(self, labels: np.ndarray, row: int, piece: LabelPiece, codes: np.ndarray) -> None:
        """Write labels of frames that are numbered."""
        frame = np.asarray(piece.frame)
        session = self._sessions[row]
        outside = frame[(frame < 0) | (frame >= session.n_frames)]
        if outside.size:
            raise InputError(
                expected=f"frames from 0 to {session.n_frames - 1} of session {session.name!r}",
                found=f"frame {outside[0]}",
                where=self._where,
                fix="number frames from the first frame of the session in the store",
            )
        place = int(self._first[row]) + frame
        if len(np.unique(frame)) < len(frame) or (labels[place] >= 0).any():
            twice = frame[labels[place] >= 0]
            distinct, number = np.unique(frame, return_counts=True)
            first = int(np.append(distinct[number > 1], twice)[0])
            raise InputError(
                expected="one row for each frame of a session",
                found=f"frame {first} of {piece.key!r} more than once",
                where=self._where,
                fix="take the rows away that are there twice",
            )
        labels[place] = codes

    def _check_lengths(self, rows: dict[str, int], reached: Mapping[str, int]) -> None:
        problems = [
            Problem(
                f"one label for each of the {session.n_frames:,} frames of session "
                f"{session.name!r}",
                f"{n_labels:,} labels",
                f"{self._where}, {key!r}",
                "write -1 for a frame without a label, or a table with the columns session, "
                "frame, syllable, in which frames may be left out",
            )
            for key, n_labels in reached.items()
            for session in [self._sessions[rows[key]]]
            if n_labels != session.n_frames
        ]
        if problems:
            raise InputError.of(problems)
