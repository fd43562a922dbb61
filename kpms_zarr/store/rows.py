"""Rows of the session dimension: handed out, made visible, taken back.

A row exists once its ``n_frames`` is above zero, which is written last. Rows of removed sessions
stay empty until a new session gets them.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync

from kpms_zarr.store import access, layout
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.consolidation import consolidate
from kpms_zarr.store.keypoints import create_keypoints, set_session_count
from kpms_zarr.store.provenance import provenance
from kpms_zarr.store.retry import patiently
from kpms_zarr.store.schema import KEYPOINTS, Variable
from kpms_zarr.store.study import StudySettings

COMMIT_SECONDS = 5.0
"""Sessions that are loaded become visible together, after at most this time."""
_UNFINISHED = "ingest_unfinished"

TABLE = tuple(var for var in KEYPOINTS if var.dims == ("session",) and var.name != "n_frames")
"""What is known of a session besides its length."""


@dataclass(frozen=True)
class NewSession:
    """A session whose frames have been written: its row, length and entries in the table."""

    row: int
    n_frames: int
    entries: dict[str, Any]


class Rows:
    """Rows for new sessions, by one process at a time.

    Parameters
    ----------
    root : zarr.Group
    store : path or URL
    settings : StudySettings
        For the group of tracked data, where there is none yet.
    """

    def __init__(self, root: zarr.Group, store: StoreLike, settings: StudySettings) -> None:
        self._root, self._store = root, store
        group = access.keypoints_group(root)
        there = access.sessions(root)
        if group is None or not there:
            group = create_keypoints(root, settings)
        self.group = group
        _add_missing(group)
        self._before = group["n_frames"].shape[0]  # type: ignore[union-attr]
        self._longest = self._longest_before = group["position"].shape[1]  # type: ignore[union-attr]
        self._lengths: list[int] = np.asarray(group["n_frames"][:]).tolist()  # type: ignore[index]
        if group.attrs.get(_UNFINISHED):  # a killed process may have enlarged some arrays only
            set_session_count(group, self._before, self._longest)
            self._sweep()
        else:
            group.attrs[_UNFINISHED] = True
        self._publish()
        self._free = [row for row, n in enumerate(self._lengths) if n == 0]
        self._columns: dict[str, list[Any]] = {
            var.name: np.asarray(group[var.name][:]).tolist()  # type: ignore[index]
            for var in TABLE
        }
        self._taken: list[int] = []
        self._waiting: list[NewSession] = []
        self._visible: list[int] = []
        self._since = time.monotonic()

    def take(self, n: int) -> list[int]:
        """Rows that nobody has: the empty ones first, then new ones."""
        taken, self._free = self._free[:n], self._free[n:]
        new = range(len(self._lengths), len(self._lengths) + n - len(taken))
        self._lengths += [0] * len(new)
        self._taken += [*taken, *new]
        return [*taken, *new]

    def add(self, sessions: list[NewSession]) -> None:
        """Make sessions visible, now or with others a little later."""
        self._waiting += sessions
        if time.monotonic() - self._since >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make all sessions visible that were added."""
        if not self._waiting:
            return
        for session in self._waiting:
            self._lengths[session.row] = session.n_frames
            for name, column in self._columns.items():
                column += [_fill(name)] * (session.row + 1 - len(column))
                column[session.row] = session.entries.get(name, _fill(name))
        rows = [session.row for session in self._waiting]
        patiently(lambda: self._write(rows), self._store)
        self._visible += rows
        self._waiting = []
        self._since = time.monotonic()

    def finish(self, settings: dict[str, Any]) -> None:
        """After the last session: what is true of all, and no row more than there are sessions."""
        self.commit()
        for row in self._taken:
            if not self._lengths[row]:  # of a file that could not be read to its end
                self._delete(row)
        n_rows = max((row + 1 for row, n in enumerate(self._lengths) if n), default=0)
        patiently(
            lambda: set_session_count(self.group, n_rows, max(self._lengths, default=0)),
            self._store,
        )
        attrs = provenance("ingest", settings) if self._visible else {}
        self._unmark(attrs)

    def undo(self) -> None:
        """Take all back that was added since the beginning, visible or not."""
        for row in self._taken:
            self._lengths[row] = 0
            for name, column in self._columns.items():
                if row < len(column):
                    column[row] = _fill(name)
        if self._visible:
            self._write(self._visible)
        for row in self._taken:
            self._delete(row)
        set_session_count(self.group, self._before, self._longest_before)
        self._unmark({})

    def _publish(self) -> None:
        """Have readers see all arrays at their new length at once, and not one after the other."""
        consolidate(self._root, [layout.KEYPOINTS])

    def _delete(self, row: int) -> None:
        for name in ("position", "confidence"):
            delete_row(self.group[name], row)  # type: ignore[arg-type]

    def _unmark(self, attrs: dict[str, Any]) -> None:
        kept = {name: value for name, value in self.group.attrs.items() if name != _UNFINISHED}
        if {**kept, **attrs} != dict(self.group.attrs):
            self.group.attrs.put({**kept, **attrs})
        self._publish()

    def _write(self, rows: list[int]) -> None:
        """Entries of some rows, whole chunks of them; their lengths last.

        Consolidated metadata come before the lengths: whoever reads by them then has room for every
        session that exists.
        """
        n_rows = max(self.group["n_frames"].shape[0], max(rows) + 1)  # type: ignore[union-attr]
        self._longest = max(self._longest, *(self._lengths[row] for row in rows))
        has_grown = (n_rows, self._longest) != self.group["position"].shape[:2]  # type: ignore[union-attr]
        if has_grown:
            set_session_count(self.group, n_rows, self._longest)
        for name, column in self._columns.items():
            self._write_column(name, column, rows, n_rows)
        if has_grown:
            self._publish()
        self._write_column("n_frames", self._lengths, rows, n_rows)

    def _write_column(self, name: str, column: list[Any], rows: list[int], n_rows: int) -> None:
        array = self.group[name]
        chunk = array.chunks[0]  # type: ignore[union-attr]
        for first in sorted({row // chunk * chunk for row in rows}):
            values = column[first : min(first + chunk, n_rows)]
            values = values + [_fill(name)] * (min(chunk, n_rows - first) - len(values))
            dtype = object if isinstance(_fill(name), str) else None
            array[first : first + len(values)] = np.asarray(values, dtype)  # type: ignore[index]

    def _sweep(self) -> None:
        """Delete frames of rows that do not exist, such as a killed process leaves."""
        for row in leftover_rows(self.group):
            self._delete(row)


def _fill(name: str) -> Any:
    return 0 if name == "n_frames" else _VARIABLES[name].fill


_VARIABLES: dict[str, Variable] = {var.name: var for var in TABLE}


def _add_missing(group: zarr.Group) -> None:
    """Create columns of the table that stores of an earlier version lack."""
    n_sessions = group["n_frames"].shape[0]  # type: ignore[union-attr]
    names = tuple(var.name for var in TABLE if var.name not in group)
    if names:
        layout.create_arrays(group, "keypoints", {"session": n_sessions}, names)


def is_unfinished(root: zarr.Group) -> bool:
    """Whether an ingest was killed and nobody has tidied up since."""
    group = access.keypoints_group(root)
    return group is not None and bool(group.attrs.get(_UNFINISHED))


def leftover_rows(group: zarr.Group) -> list[int]:
    """Rows with frames that do not exist as sessions."""
    lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
    arrays = (group[name] for name in ("position", "confidence"))
    rows = {row for array in arrays for row in _rows_with_chunks(array)}  # type: ignore[arg-type]
    return sorted(row for row in rows if row >= len(lengths) or not lengths[row])


def _rows_with_chunks(array: zarr.Array[Any]) -> list[int]:
    place = array.store_path / "c"

    async def names() -> list[str]:
        return [name async for name in place.store.list_dir(place.path)]

    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(int(name) for name in sync(names()) if name.isdigit())
    return []


def delete_row(array: zarr.Array[Any], row: int) -> None:
    """Delete the stored chunks of one session."""
    place = array.store_path / f"c/{row}"
    sync(place.store.delete_dir(place.path))
