"""Labels as other packages write them: files and folders, and the sessions that they are of."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError, unreadable
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.table.files import batches, is_parquet, names_of
from kpms_zarr.store.wording import listed

LabelsLike = str | os.PathLike[str] | Mapping[str, Any]
"""A file or folder of labels, or arrays by session."""

_SYLLABLE = ("syllable", "syllables", "label", "labels", "state", "motif")
_MOST_FOLDERS = 8
"""Folders in the name of a recording, which results files hold as groups within each other."""
_SESSION = ("session", "name", "recording", "file", "video")
_FRAME = ("frame", "frame_index", "frame_number", "frame_id")
_INDEX = ("", "index", "unnamed: 0", *_FRAME)
_BESIDE = ("frame", "certainty", "second_syllable", "second_certainty")
"""Arrays beside the labels of a session in an npz: ``NAME/frame``, ..."""
_HDF5 = (".h5", ".hdf5")
_TABLES = (".csv", ".tsv", ".txt", ".gz", ".parquet")
_MOST_FRAMES = 2**44
_KINDS = "npz, npy, csv, parquet or h5"


class LabelPiece(NamedTuple):
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
class LabelSource:
    """Labels as they are given.

    Attributes
    ----------
    keys : tuple of str
        The sessions as the file calls them.
    pieces : callable
        Reads those of some keys.
    is_padded : bool
        Whether shorter sessions end in empty cells.
    is_named : bool
        Whether it names its sessions: not a file of one session, which is called like the file.
    has_session_column : bool
        Whether it is a table that says of each row of which session it is.
    """

    keys: tuple[str, ...]
    pieces: Callable[[Collection[str]], Iterator[LabelPiece]]
    is_padded: bool = False
    is_named: bool = True
    has_session_column: bool = False


def source_of(given: LabelsLike, where: str) -> LabelSource:
    """Find out what is given; an InputError for what cannot be read."""
    if isinstance(given, Mapping):
        arrays = {str(key): np.asarray(values) for key, values in given.items()}
        return LabelSource(tuple(arrays), lambda keys: (LabelPiece(k, 0, arrays[k]) for k in keys))
    path = Path(given)
    try:
        if path.is_dir():
            return _folder(path, where)
        with path.open("rb"):
            suffix = path.suffix.lower()
        if suffix == ".npz":
            return _npz(path, where)
        if suffix == ".npy":
            return LabelSource(
                (path.stem,),
                lambda _: iter([LabelPiece(path.stem, 0, _npy(path, where))]),
                is_named=False,
            )
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


def _npz(path: Path, where: str) -> LabelSource:
    """An array for each session; what `consensus` writes beside them is left out."""

    def pieces(keys: Collection[str]) -> Iterator[LabelPiece]:
        with _loaded(path, where) as file:
            for key in keys:
                numbered = f"{key}/frame"
                frame = np.asarray(file[numbered]) if numbered in file.files else 0
                if not isinstance(frame, int):
                    frame = _frames(frame.astype(np.float64), key, where)
                yield LabelPiece(key, frame, file[key])

    with _loaded(path, where) as file:
        beside = {f"{key}/{name}" for key in file.files for name in _BESIDE}
        return LabelSource(tuple(key for key in file.files if key not in beside), pieces)


def _npy(path: Path, where: str) -> np.ndarray:
    with _loaded(path, where) as file:
        return np.asarray(file)


def _hdf5(path: Path, where: str) -> LabelSource:
    """Groups with a dataset ``syllable``, one for each session, or datasets by session.

    A recording whose name holds ``/`` lies in groups within each other.
    """

    def labels_of(item: Any) -> h5py.Dataset | None:
        if isinstance(item, h5py.Group):
            name = next((name for name in _SYLLABLE if name in item), "")
            item = hdf5.internal(item, name) if name else None
        return item if isinstance(item, h5py.Dataset) else None

    def below(group: h5py.Group, name: str = "", depth: int = 0) -> Iterator[str]:
        for key in group:
            if name and not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue  # which may lead in a circle
            item = hdf5.internal(group, key)
            if labels_of(item) is not None and (not name or isinstance(item, h5py.Group)):
                yield name + key
            elif isinstance(item, h5py.Group) and depth < _MOST_FOLDERS:
                yield from below(item, f"{name}{key}/", depth + 1)

    def inside(file: h5py.File, key: str) -> h5py.Dataset | None:
        item: Any = file
        for part in key.split("/"):
            item = hdf5.internal(item, part) if isinstance(item, h5py.Group) else None
        return labels_of(item)

    def pieces(keys: Collection[str]) -> Iterator[LabelPiece]:
        with hdf5.opened(path) as file:
            for key in keys:
                data = inside(file, key)
                assert data is not None
                hdf5.check_inside(data, where)
                hdf5.check_numbers(data, where)
                yield LabelPiece(key, 0, np.asarray(data[()]))

    with hdf5.opened(path) as file:
        keys = tuple(below(file))
    if not keys:
        raise InputError(
            expected="a group for each session with a dataset syllable, or a dataset for each",
            found="neither",
            where=where,
            fix="name the file with the results of the model, such as results.h5",
        )
    return LabelSource(keys, pieces)


def _folder(path: Path, where: str) -> LabelSource:
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

    def pieces(keys: Collection[str]) -> Iterator[LabelPiece]:
        for key in keys:
            one = source_of(files[key], f"{where}/{files[key].name}")
            if len(one.keys) != 1 or one.has_session_column:
                raise InputError(
                    expected="the labels of one session: a column syllable, or one column only",
                    found=f"columns {listed(map(repr, one.keys))}",
                    where=f"{where}/{files[key].name}",
                    fix="name a table of several sessions by itself, without its folder",
                )
            for piece in one.pieces(one.keys):
                yield piece._replace(key=key)

    return LabelSource(tuple(files), pieces)


# ------------------------------------------------------------------ tables


def _table(path: Path, where: str) -> LabelSource:
    """A table: session, frame, syllable; or a column for each session; or one of syllables.

    Frames that are not numbered follow each other in the order of the rows.
    """
    names = names_of(path)
    lower = [name.lower() for name in names]

    def column(choices: tuple[str, ...]) -> int | None:
        return next((lower.index(name) for name in choices if name in lower), None)

    syllable, session, frame = (column(names) for names in (_SYLLABLE, _SESSION, _FRAME))
    if syllable is not None and session is not None:
        return _long(path, session, frame, syllable, where)
    index = next((i for i, name in enumerate(lower) if name in _INDEX), None)
    if syllable is not None:
        one = path.stem.removesuffix(".csv")
        if frame is not None:
            return _numbered(path, one, frame, syllable, where)
        return replace(_wide(path, {one: syllable}, index, where), is_named=False)
    columns = {name: i for i, name in enumerate(names) if i != index and name}
    if len(columns) < len(names) - (index is not None):
        raise InputError(
            expected="a column for each session, named after it, or session, frame, syllable",
            found=f"the columns {listed(map(repr, names))}",
            where=where,
            fix="give each column a name of its own",
        )
    return _wide(path, columns, index, where)


def _wide(path: Path, columns: Mapping[str, int], index: int | None, where: str) -> LabelSource:
    """A column for each session, a row for each frame."""

    def pieces(keys: Collection[str]) -> Iterator[LabelPiece]:
        numeric = [*(columns[key] for key in keys), *([] if index is None else [index])]
        start = 0
        for batch in batches(path, numeric, (), ()):
            n = len(batch.numbers)
            if index is not None:
                _check_index(batch.numbers[:, -1], start, where)
            for place, key in enumerate(keys):
                yield LabelPiece(key, start, batch.numbers[:, place])
            start += n

    return LabelSource(tuple(columns), pieces, is_padded=len(columns) > 1)


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


def _long(path: Path, session: int, frame: int | None, syllable: int, where: str) -> LabelSource:
    """A row for each frame of each session."""
    keys: dict[str, None] = {}
    for batch in batches(path, (syllable,), (session,), ()):
        keys.update(dict.fromkeys(batch.texts[0][1]))
    columns = (syllable,) if frame is None else (syllable, frame)

    def pieces(wanted: Collection[str]) -> Iterator[LabelPiece]:
        done = dict.fromkeys(keys, 0)
        for batch in batches(path, columns, (session,), ()):
            of_row, texts = batch.texts[0]
            order = np.argsort(of_row, kind="stable")
            bounds = np.searchsorted(of_row[order], np.arange(len(texts) + 1))
            for number, text in enumerate(texts):
                rows = order[bounds[number] : bounds[number + 1]]
                if text in wanted and rows.size:
                    labels, *numbered = batch.numbers[rows].T
                    place = _frames(numbered[0], text, where) if numbered else done[text]
                    done[text] += len(rows)
                    yield LabelPiece(text, place, labels)

    return LabelSource(tuple(key for key in keys if key), pieces, has_session_column=True)


def _numbered(path: Path, key: str, frame: int, syllable: int, where: str) -> LabelSource:
    """A row for each frame of one session."""

    def pieces(_: Collection[str]) -> Iterator[LabelPiece]:
        for batch in batches(path, (frame, syllable), (), ()):
            frames, labels = batch.numbers.T
            yield LabelPiece(key, _frames(frames, key, where), labels)

    return LabelSource((key,), pieces, is_named=False)


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
