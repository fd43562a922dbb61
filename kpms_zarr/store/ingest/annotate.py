"""Annotation of sessions, such as the group of the animal, as coordinates of the store."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.core.schema import KEYPOINTS, Variable
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.rows import TABLE, is_same
from kpms_zarr.store.model.models import labelled_sessions, list_models
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.session_rows import is_plain_number
from kpms_zarr.store.study.tables import SessionTable, rate_problems, read_table
from kpms_zarr.store.wording import call, listed

_SETTABLE = ("fps", "video", "individual")
"""Columns of the store's own table that a person may set."""
_TAKEN = {
    *(var.name for var in KEYPOINTS), "frame", "n_frames", "state", "syllable", "label", "latent",
    "c", "chain", "progress", "lock",
}  # fmt: skip
_NAME = re.compile(r"[^\W\d_][\w-]{0,99}")


@dataclass(frozen=True)
class AnnotateSummary(ShownAsTable):
    """Result of :func:`annotate`.

    Attributes
    ----------
    store : str
    columns : tuple of str
        Coordinates that were written.
    n_sessions : int
        Sessions that the table is about.
    notes : tuple of str
        How sessions were found, sessions without a row, what had to be understood.
    """

    store: str
    columns: tuple[str, ...]
    n_sessions: int
    notes: tuple[str, ...]


def annotate(store: StoreLike, table: str | Path) -> AnnotateSummary:
    """Write what a table says about sessions into the store, as coordinates of ``session``.

    Columns become coordinates of the same name: numbers where all entries are numbers, else text;
    empty entries are NaN or "". A coordinate that is there is replaced for the sessions of the
    table and kept for the others. ``fps`` sets the frame rate, ``video`` the path of the video.
    Times of labels that were published before follow a new frame rate; durations that were
    published with them do not, which a note says.

    Parameters
    ----------
    store : path or URL
    table : path
        A csv file with one row per session, as spreadsheets write it (any separator and encoding,
        decimal commas). The first column, or the one named session, recording, source, file or
        name, says which session: by its name, recording, file or video, or by a beginning that no
        other has, in this order; what was found in which way is noted.

    Returns
    -------
    AnnotateSummary

    Raises
    ------
    InputError
        With everything that is wrong with the table, such as rows that are about no session or may
        be about several; nothing is written then.
    """
    return annotate_from(store, read_table(table))


def annotate_from(store: StoreLike, table: SessionTable) -> AnnotateSummary:
    """Write a table that was read as :func:`annotate` does."""
    read = _checked_columns(table)
    root = access.open_group(store, "r+")
    access.require_sessions(root, os.fspath(store))
    notes: list[str] = []
    with sessions_lock(root, store, notes.append):
        read = check_rows(root, store, read, is_strict=True)
        notes += annotate_sessions(root, read)
        consolidate(root, [layout.KEYPOINTS])
    return AnnotateSummary(os.fspath(store), read.columns, len(read.found), tuple(notes))


def read_metadata(path: str | Path, option: str = "") -> SessionTable:
    """A table of sessions whose columns can become coordinates.

    Raises
    ------
    InputError
        Column names that cannot, frame rates that are none.
    """
    return _checked_columns(read_table(path, option))


def _checked_columns(table: SessionTable) -> SessionTable:
    """Table whose columns can become coordinates; an InputError for others."""
    table = _without_blanks(table)
    problems: list[Problem] = []
    lower = [name.lower() for name in table.columns]
    for name in table.columns:
        if lower.count(name.lower()) > 1:
            problems.append(
                Problem(
                    "column names that differ in more than blanks and capitals",
                    f"{name!r} more than once",
                    f"{table.where}, columns",
                    "name the column otherwise",
                )
            )
        is_taken = name in _TAKEN and name not in _SETTABLE
        if is_taken or not _NAME.fullmatch(name):
            problems.append(
                Problem(
                    "a name that the store does not use itself"
                    if is_taken
                    else "a name of letters, digits, '_' and '-', a letter first",
                    repr(name),
                    f"{table.where}, columns",
                    "name the column otherwise",
                )
            )
    rates = {row: fps for row, entries in table.rows.items() if (fps := entries.get("fps"))}
    problems += rate_problems(rates, table.where)
    if problems:
        raise InputError.of(problems)
    return table


def _without_blanks(table: SessionTable) -> SessionTable:
    """Replace blanks in column names; xarray lists names of coordinates with blanks in between."""
    new = {name: _coordinate(name) for name in table.columns}
    rows = {key: {new[n]: text for n, text in row.items()} for key, row in table.rows.items()}
    renamed = [
        f"{old!r} is called {name}" for old, name in new.items() if set(old) & set(_BRACKETS)
    ]
    notes = (f"{table.path.name}: column {', '.join(renamed)}",) if renamed else ()
    # Two columns that become one keep two entries here, which is then refused.
    columns = tuple(new[name] for name in table.columns)
    return replace(table, columns=columns, rows=rows, notes=(*table.notes, *notes))


_BRACKETS = "()[]"
"""Around the unit of a column, such as ``weight (g)``."""


def _coordinate(name: str) -> str:
    return "_".join("".join(" " if c in _BRACKETS else c for c in name).split())


def table_stamp(root: zarr.Group) -> str:
    """Stamp of what people said of the sessions: names and values of their coordinates."""
    group = access.keypoints_group(root)
    if group is None:
        return ""
    stamp = hashlib.sha256()
    own = {variable.name for variable in TABLE} - {"video"}
    for name in sorted({*str(group.attrs.get("coordinates", "")).split()} - own):
        array = group.get(name)
        if isinstance(array, zarr.Array) and array.ndim == 1:
            stamp.update(f"{name}: {np.asarray(array[:]).tolist()!r};".encode())
    return stamp.hexdigest()


def check_rows(
    root: zarr.Group,
    store: StoreLike,
    table: SessionTable,
    new: Sequence[Named] = (),
    *,
    is_strict: bool = False,
) -> SessionTable:
    """Find the sessions of a table, and refuse one that cannot be written, before anything is.

    Parameters
    ----------
    root : zarr.Group
    store : path or URL
    table : SessionTable
    new : sequence of Named
        Sessions that are about to be added.
    is_strict : bool
        Whether every row must be about a session.

    Returns
    -------
    SessionTable
        With the rows of sessions found.

    Raises
    ------
    InputError
        When it is about none of the sessions, may be about several, or would convert values of
        other sessions.
    """
    known = named_sessions(root)
    taken = {named.session for named in new}
    names = [*new, *(named for named in known if named.session not in taken)]
    matches = table.matches(names)
    if names and not (matches.rows or matches.problems):
        raise InputError(
            expected=f"sessions, such as {', '.join(n.session for n in names[:3])}, in the column "
            f"{table.key!r}",
            found=", ".join(list(table.rows)[:3]),
            where=table.where,
            fix=f"use the names that {call('info', store)} shows, or those of files or videos",
        )
    read = table.about(names, is_strict=is_strict)
    group = access.keypoints_group(root)
    if group is not None:
        rows, _ = _rows(root, read)
        for name in table.columns:
            _column(group, name, rows, read, set(read.found.values()))
    return read


def annotate_sessions(root: zarr.Group, table: SessionTable) -> list[str]:
    """Write what :func:`check_rows` returned into the store; returns what a person should know."""
    group = access.keypoints_group(root)
    assert group is not None  # there are sessions
    rows, without = _rows(root, table)
    before = {session.name: session.fps for session in access.sessions(root)}
    for name in table.columns:
        _write_column(group, name, *_column(group, name, rows, table, set(rows.values())))
    notes = list(table.notes)
    if without:
        notes.append(f"{table.path.name}: nothing about {listed(without)}")
    return notes + _of_other_rates(root, before)


def _of_other_rates(root: zarr.Group, before: Mapping[str, float]) -> list[str]:
    """What does not follow where frame rates of labelled sessions have changed."""
    changed = {
        one.name for one in access.sessions(root) if before.get(one.name) not in (None, one.fps)
    }
    fitted = [
        model.name
        for model in (list_models(root) if changed else ())
        if changed & set(labelled_sessions(root, model.name, model.current))
    ]
    if not fitted:
        return []
    return [
        f"new frame rates of sessions that {listed(fitted)} labelled: times, tables, exports and "
        "pictures follow; durations in ms that were published with the labels, as `summary` shows "
        "them, and the stickiness that was adapted to a target duration do not: fit again"
    ]


def named_sessions(root: zarr.Group) -> list[Named]:
    """Names, files and videos by which the sessions of a store can be found."""
    group = access.keypoints_group(root)
    if group is None:
        return []
    columns = {
        name: np.asarray(group[name][:])  # type: ignore[index]
        for name in ("recording", "source", "video")
        if name in group
    }

    def text(name: str, row: int) -> str:
        return str(columns[name][row]) if name in columns and row < len(columns[name]) else ""

    return [
        Named(s.name, *(text(name, s.index) for name in ("recording", "source", "video")))
        for s in access.sessions(root)
    ]


def _rows(root: zarr.Group, table: SessionTable) -> tuple[dict[int, str], list[str]]:
    """Map rows of the store to rows of the table; list sessions without a row."""
    found: dict[int, str] = {}
    without = []
    for session in access.sessions(root):
        key = table.row_of(session.name)
        if key is None:
            without.append(session.name)
        else:
            found[session.index] = key
    return found, without


def _column(
    group: zarr.Group, name: str, rows: dict[int, str], table: SessionTable, used: set[str]
) -> tuple[Variable | None, np.ndarray]:
    """A variable where the array must be made anew, and values for all sessions.

    ``used``: rows of the table that say whether the column holds numbers.
    """
    own = next((var for var in TABLE if var.name == name), None)
    n_sessions = group["n_frames"].shape[0]  # type: ignore[union-attr]
    before = np.asarray(group[name][:n_sessions]) if name in group else None  # type: ignore[index]
    kind = "" if before is None else _kind_of(before.dtype)
    texts = [text for key in used if (text := table.rows[key][name])]
    if own is not None:
        wanted = "text" if own.dtype == "str" else "number"
    elif kind in ("text", "number") and (not texts or kind == "text"):
        wanted = kind
    else:
        is_numeric = bool(texts) and all(map(is_plain_number, texts))
        wanted = "number" if is_numeric else "text"
    if before is not None and kind != wanted:
        _refuse_conversion(group, name, before, rows, table)
    empty: Any = np.nan if wanted == "number" else ""
    values = np.full(n_sessions, empty, dtype=np.float64 if wanted == "number" else object)
    if before is not None and kind == wanted:
        values[: len(before)] = before
    for row, key in rows.items():
        text = table.rows[key][name]
        if text:
            values[row] = float(text) if wanted == "number" else text
        elif own is None:
            values[row] = empty
    return None if kind == wanted else (own or _declared(name, wanted)), values


def _kind_of(dtype: np.dtype[Any]) -> str:
    """``"number"`` and ``"text"`` can be written to as they are; others hold something else."""
    return "number" if dtype == np.float64 else "text" if dtype.kind in "TO" else "other"


def _refuse_conversion(
    group: zarr.Group, name: str, before: np.ndarray, rows: dict[int, str], table: SessionTable
) -> None:
    """Refuse to convert the values of other sessions: they might be lost on the way."""
    fill = group[name].fill_value  # type: ignore[union-attr]
    lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
    others = [
        row
        for row in range(min(len(before), len(lengths)))
        if lengths[row] and row not in rows and not is_same(before[row], fill)
    ]
    if others:
        raise InputError(
            expected=f"values of the kind that the coordinate {name!r} holds for other sessions "
            f"({before.dtype})",
            found="values of another kind",
            where=f"{table.where}, column {name!r}",
            fix="name the column otherwise, or give its values for all sessions",
        )


def _write_column(
    group: zarr.Group, name: str, variable: Variable | None, values: np.ndarray
) -> None:
    if variable is None:
        group[name][:] = values  # type: ignore[index]
        return
    layout.write_array(group, variable, values)
    known = str(group.attrs.get("coordinates", "")).split()
    if name not in known:
        attributes.write(group, {"coordinates": " ".join([*known, name])})


def _declared(name: str, kind: str) -> Variable:
    meaning = f"{name}, from a table of the sessions"
    dtype, fill = ("float64", np.nan) if kind == "number" else ("str", "")
    return Variable(name, ("session",), dtype, meaning, fill=fill, is_coordinate=True)
