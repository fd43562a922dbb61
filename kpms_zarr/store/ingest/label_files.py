"""Labels that another package gave to the frames of a study, from files or arrays."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError, Problem, unreadable
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.table.files import batches, is_parquet, names_of
from kpms_zarr.store.study.matching import match
from kpms_zarr.store.wording import listed

LabelsLike = str | os.PathLike[str] | Mapping[str, Any]
"""A file or folder of labels, or arrays by session."""

MAX_SYLLABLES = 1_000
"""Distinct labels that a file may have: with more, it holds no syllables."""

_SYLLABLE = ("syllable", "syllables", "label", "labels", "state", "motif")
_SESSION = ("session", "name", "recording", "file", "video")
_FRAME = ("frame", "frame_index", "frame_number", "frame_id")
_INDEX = ("", "index", "unnamed: 0", *_FRAME)
_HDF5 = (".h5", ".hdf5")
_TABLES = (".csv", ".tsv", ".txt", ".gz", ".parquet")
_MOST_FRAMES = 2**44
_KINDS = "npz, npy, csv, parquet or h5"


class _Piece(NamedTuple):
    """Labels of some frames of a session.

    Attributes
    ----------
    key : str
        The session as the file calls it.
    frame : int or ndarray, (frame,) int64
        Of each label; one number where they follow each other from it on.
    values : ndarray, (frame,)
    """

    key: str
    frame: int | np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class _Source:
    """Labels as they are given.

    Attributes
    ----------
    keys : tuple of str
        The sessions as the file calls them.
    pieces : callable
        Reads those of some keys.
    has_frames : bool
        Whether frames are numbered, and so may be left out.
    is_padded : bool
        Whether shorter sessions end in empty cells.
    """

    keys: tuple[str, ...]
    pieces: Callable[[Collection[str]], Iterator[_Piece]]
    has_frames: bool = False
    is_padded: bool = False


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
        source = _source(given, where)
        self.notes: tuple[str, ...] = ()
        self._where, self._numbers = where, dict[int, int]()
        rows = self._matched(store, name, source)
        self._first = np.cumsum([0, *(session.n_frames for session in self._sessions)])
        handle, self._path = tempfile.mkstemp(prefix="kpms_zarr_labels_", suffix=".int16")
        os.close(handle)
        try:
            self._spool(source, rows)
        except BaseException:
            self.close()
            raise
        self.numbers = tuple(self._numbers)

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

    def _matched(self, store: StoreLike, name: str, source: _Source) -> dict[str, int]:
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

    def _spool(self, source: _Source, rows: dict[str, int]) -> None:
        """Write all labels into the scratch file."""
        n_frames = int(self._first[-1])
        labels = np.memmap(self._path, np.int16, "w+", shape=(max(1, n_frames),))
        labels[:] = -1
        reached = dict.fromkeys(rows, 0)
        for piece in source.pieces(rows):
            row = rows[piece.key]
            codes = self._codes(piece)
            if source.has_frames:
                self._place(labels, row, piece, codes)
                continue
            assert isinstance(piece.frame, int)
            end = piece.frame + len(codes)
            if source.is_padded:
                filled = np.flatnonzero(~np.isnan(piece.values))
                end = piece.frame + int(filled[-1]) + 1 if filled.size else 0
            reached[piece.key] = max(reached[piece.key], end)
            start = int(self._first[row]) + piece.frame
            n = max(0, min(len(codes), int(self._first[row + 1]) - start))
            labels[start : start + n] = codes[:n]
        labels.flush()
        if not source.has_frames:
            self._check_lengths(rows, reached)

    def _place(self, labels: np.ndarray, row: int, piece: _Piece, codes: np.ndarray) -> None:
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
                f"{reached[key]:,} labels",
                f"{self._where}, {key!r}",
                "write -1 for a frame without a label, or a table with the columns session, "
                "frame, syllable, in which frames may be left out",
            )
            for key, row in rows.items()
            for session in [self._sessions[row]]
            if reached[key] != session.n_frames
        ]
        if problems:
            raise InputError.of(problems)

    def _codes(self, piece: _Piece) -> np.ndarray:
        """Convert labels to places among those that were met, (frame,) int16; -1 = none."""
        values = _whole(piece.values, f"{self._where}, {piece.key!r}")
        is_label = values >= 0
        distinct, place = np.unique(values[is_label], return_inverse=True)
        for number in distinct.tolist():
            self._numbers.setdefault(number, len(self._numbers))
        if len(self._numbers) > MAX_SYLLABLES:
            raise InputError(
                expected=f"at most {MAX_SYLLABLES:,} different syllables",
                found="more",
                where=f"{self._where}, {piece.key!r}",
                fix="name the array or column that holds a syllable for each frame",
            )
        codes = np.full(len(values), -1, np.int16)
        if distinct.size:
            known = np.array([self._numbers[number] for number in distinct.tolist()], np.int16)
            codes[is_label] = known[place.ravel()]
        return codes


def _whole(values: np.ndarray, where: str) -> np.ndarray:
    """Labels as int64, -1 where there is none; an InputError for what is no whole number."""
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(
            expected="one whole number for each frame, -1 where there is no syllable",
            found=f"an array of {values.dtype} of shape {values.shape}",
            where=where,
            fix="write one array of labels (frame) for each session",
        )
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)
        wrong = values[(values != np.rint(values)) | (np.abs(values) > 2**53)]
        if wrong.size:
            raise InputError(
                expected="whole numbers of syllables",
                found=f"{wrong[0]:g}",
                where=where,
                fix="name the array or column that holds the syllables",
            )
    return values.astype(np.int64)


# ------------------------------------------------------------------ what can be given


def _source(given: LabelsLike, where: str) -> _Source:
    """Find out what is given; an InputError for what cannot be read."""
    if isinstance(given, Mapping):
        arrays = {str(key): np.asarray(values) for key, values in given.items()}
        return _Source(tuple(arrays), lambda keys: (_Piece(k, 0, arrays[k]) for k in keys))
    path = Path(given)
    try:
        if path.is_dir():
            return _folder(path, where)
        with path.open("rb"):
            suffix = path.suffix.lower()
        if suffix == ".npz":
            return _npz(path, where)
        if suffix == ".npy":
            return _Source((path.stem,), lambda _: iter([_Piece(path.stem, 0, _npy(path, where))]))
        if suffix in _HDF5:
            return _hdf5(path, where)
        if suffix in _TABLES or is_parquet(path):
            return _table(path, where)
    except OSError as error:
        raise unreadable(path, error) from error
    raise InputError(
        expected=f"labels in a file of the kind {_KINDS}, or a folder of such files",
        found=f"a file that ends in {suffix!r}" if suffix else "a file without a suffix",
        where=where,
        fix="write one array for each session with numpy.savez, or a csv table with the columns "
        "session, frame, syllable",
    )


@contextmanager
def _loaded(path: Path, where: str) -> Iterator[Any]:
    """Open a file of NumPy; what cannot be read of it is an InputError."""
    try:
        with path.open("rb") as file:  # NumPy leaves it open where it is no zip file
            yield np.load(file, allow_pickle=False)
    except InputError:
        raise
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, MemoryError) as error:
        raise InputError(
            expected="arrays of numbers as numpy.savez writes them",
            found=f"what NumPy cannot read ({error})",
            where=where,
            fix="save plain arrays of whole numbers, one for each session",
        ) from error


def _npz(path: Path, where: str) -> _Source:
    def pieces(keys: Collection[str]) -> Iterator[_Piece]:
        with _loaded(path, where) as file:
            for key in keys:
                yield _Piece(key, 0, file[key])

    with _loaded(path, where) as file:
        return _Source(tuple(file.files), pieces)


def _npy(path: Path, where: str) -> np.ndarray:
    with _loaded(path, where) as file:
        return np.asarray(file)


def _hdf5(path: Path, where: str) -> _Source:
    """Groups with a dataset ``syllable``, one for each session, or datasets by session."""

    def inside(file: h5py.File, key: str) -> h5py.Dataset | None:
        item = hdf5.internal(file, key)
        if isinstance(item, h5py.Group):
            name = next((name for name in _SYLLABLE if name in item), "")
            item = hdf5.internal(item, name) if name else None
        return item if isinstance(item, h5py.Dataset) else None

    def pieces(keys: Collection[str]) -> Iterator[_Piece]:
        with hdf5.opened(path) as file:
            for key in keys:
                data = inside(file, key)
                assert data is not None
                hdf5.check_inside(data, where)
                hdf5.check_numbers(data, where)
                yield _Piece(key, 0, np.asarray(data[()]))

    with hdf5.opened(path) as file:
        keys = tuple(key for key in file if inside(file, key) is not None)
    if not keys:
        raise InputError(
            expected="a group for each session with a dataset syllable, or a dataset for each",
            found="neither",
            where=where,
            fix="name the file with the results of the model, such as results.h5",
        )
    return _Source(keys, pieces)


def _folder(path: Path, where: str) -> _Source:
    """A file for each session, called by its name."""
    files = {
        one.stem: one
        for one in sorted(path.iterdir())
        if one.is_file() and one.suffix.lower() in (".npy", *_TABLES)
    }
    if not files:
        raise InputError(
            expected="a folder with a csv or npy file for each session",
            found="none of these in it",
            where=where,
            fix=f"name the folder of the results, or a file of the kind {_KINDS}",
        )

    def pieces(keys: Collection[str]) -> Iterator[_Piece]:
        for key in keys:
            one = _source(files[key], f"{where}/{files[key].name}")
            if len(one.keys) != 1 or one.has_frames:
                raise InputError(
                    expected="the labels of one session: a column syllable, or one column only",
                    found=f"columns {listed(map(repr, one.keys))}",
                    where=f"{where}/{files[key].name}",
                    fix="name a table of several sessions by itself, without its folder",
                )
            for piece in one.pieces(one.keys):
                yield piece._replace(key=key)

    return _Source(tuple(files), pieces)


# ------------------------------------------------------------------ tables


def _table(path: Path, where: str) -> _Source:
    """A table: session, frame, syllable; or a column for each session; or one of syllables."""
    names = names_of(path)
    lower = [name.lower() for name in names]

    def column(choices: tuple[str, ...]) -> int | None:
        return next((lower.index(name) for name in choices if name in lower), None)

    syllable, session, frame = (column(names) for names in (_SYLLABLE, _SESSION, _FRAME))
    if syllable is not None and session is not None:
        if frame is None:
            raise InputError(
                expected="the columns session, frame, syllable",
                found=f"no column frame among {listed(map(repr, names))}",
                where=where,
                fix="add the number of the frame, from 0 at the first frame of the session",
            )
        return _long(path, session, frame, syllable, where)
    index = next((i for i, name in enumerate(lower) if name in _INDEX), None)
    if syllable is not None:
        return _wide(path, {path.stem.removesuffix(".csv"): syllable}, index, where)
    columns = {name: i for i, name in enumerate(names) if i != index and name}
    if len(columns) < len(names) - (index is not None):
        raise InputError(
            expected="a column for each session, named after it, or session, frame, syllable",
            found=f"the columns {listed(map(repr, names))}",
            where=where,
            fix="give each column a name of its own",
        )
    return _wide(path, columns, index, where)


def _wide(path: Path, columns: Mapping[str, int], index: int | None, where: str) -> _Source:
    """A column for each session, a row for each frame."""

    def pieces(keys: Collection[str]) -> Iterator[_Piece]:
        numeric = [*(columns[key] for key in keys), *([] if index is None else [index])]
        start = 0
        for batch in batches(path, numeric, (), ()):
            n = len(batch.numbers)
            if index is not None:
                _check_index(batch.numbers[:, -1], start, where)
            for place, key in enumerate(keys):
                yield _Piece(key, start, batch.numbers[:, place])
            start += n

    return _Source(tuple(columns), pieces, is_padded=len(columns) > 1)


def _check_index(found: np.ndarray, start: int, where: str) -> None:
    """Refuse rows that are not frame after frame from 0 on (InputError)."""
    wrong = np.flatnonzero(found != start + np.arange(len(found)))
    if wrong.size:
        raise InputError(
            expected="a row for each frame, numbered from 0 on",
            found=f"frame {found[wrong[0]]:g} in place of {start + wrong[0]}",
            where=where,
            fix="write all frames in order, or a table with the columns session, frame, syllable",
        )


def _long(path: Path, session: int, frame: int, syllable: int, where: str) -> _Source:
    """A row for each frame of each session."""
    keys: dict[str, None] = {}
    for batch in batches(path, (frame,), (session,), ()):
        keys.update(dict.fromkeys(batch.texts[0][1]))

    def pieces(wanted: Collection[str]) -> Iterator[_Piece]:
        for batch in batches(path, (frame, syllable), (session,), ()):
            of_row, texts = batch.texts[0]
            order = np.argsort(of_row, kind="stable")
            bounds = np.searchsorted(of_row[order], np.arange(len(texts) + 1))
            for number, text in enumerate(texts):
                rows = order[bounds[number] : bounds[number + 1]]
                if text in wanted and rows.size:
                    frames, labels = batch.numbers[rows].T
                    yield _Piece(text, _frames(frames, text, where), labels)

    return _Source(tuple(key for key in keys if key), pieces, has_frames=True)


def _frames(found: np.ndarray, key: str, where: str) -> np.ndarray:
    """Numbers of frames as int64; an InputError for others."""
    is_whole = (found == np.rint(found)) & (np.abs(found) < _MOST_FRAMES)
    if not is_whole.all():
        raise InputError(
            expected="whole numbers of frames, from 0 on",
            found=f"{found[~is_whole][0]:g}",
            where=f"{where}, {key!r}",
            fix="number frames from the first frame of the session in the store",
        )
    return found.astype(np.int64)
