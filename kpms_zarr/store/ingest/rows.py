"""Rows of the session dimension: allocated, made visible, released.

A row exists once its ``n_frames`` is above zero, which is written last. Rows of removed sessions
stay empty until a new session gets them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.locking import Lock
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.schema import KEYPOINTS, Variable
from kpms_zarr.store.core.zarr_internals import sync
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.wording import counted

COMMIT_SECONDS = 5.0
"""Sessions that are loaded become visible together, after at most this time."""
UNFINISHED = "ingest_unfinished"
"""Attribute of the group of tracked data while sessions are added or removed."""

TABLE = tuple(var for var in KEYPOINTS if var.dims == ("session",) and var.name != "n_frames")
"""What is known of a session besides its length."""


@dataclass(frozen=True)
class NewSession:
    """A session whose frames have been written: its row, length and entries in the table."""

    row: int
    n_frames: int
    entries: dict[str, Any]


class RowAllocator:
    """Allocator of rows for new sessions, used by one process at a time.

    Parameters
    ----------
    root : zarr.Group
    store : path or URL
    settings : StudySettings
        For the group of tracked data, where there is none yet.
    lock : Lock, optional
        Held by this process; renewed at each commit.

    Raises
    ------
    InputError
        When the table of sessions is damaged.
    """

    def __init__(
        self, root: zarr.Group, store: StoreLike, settings: StudySettings, lock: Lock | None = None
    ) -> None:
        self._root, self._lock = root, lock or Lock()
        group = access.keypoints_group(root)
        _refuse_damaged(root, store, group)
        if group is None or (not access.sessions(root) and read_settings(root) != settings):
            group = create_keypoints(root, settings)
        self.group = group
        _add_missing(group)
        was_unfinished = bool(group.attrs.get(UNFINISHED))
        self._before = group["n_frames"].shape[0]  # type: ignore[union-attr]
        self._longest = self._longest_before = group["position"].shape[1]  # type: ignore[union-attr]
        if was_unfinished:  # a killed process may have enlarged some arrays only
            set_session_count(group, self._before, self._longest)
        else:
            update_attributes(root, layout.KEYPOINTS, {UNFINISHED: True})
        self._lengths: list[int] = np.asarray(group["n_frames"][:]).tolist()  # type: ignore[index]
        for row in leftover_rows(group):
            self._delete(row)
        self._free = [row for row, n in enumerate(self._lengths) if n == 0]
        self._columns: dict[str, list[Any]] = {
            var.name: np.asarray(group[var.name][:]).tolist()  # type: ignore[index]
            for var in TABLE
        }
        self._taken: list[int] = []
        self._waiting: list[NewSession] = []
        self._has_added = False
        self._since = time.monotonic()
        if was_unfinished:
            self._forget(self._free)
        self._publish()

    def take(self, n: int) -> list[int]:
        """Allocate rows: empty ones first, then new ones."""
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
        self._lock.renew()
        for session in self._waiting:
            self._lengths[session.row] = session.n_frames
            for name, column in self._columns.items():
                column += [_fill(name)] * (session.row + 1 - len(column))
                column[session.row] = session.entries.get(name, _fill(name))
        rows = [session.row for session in self._waiting]
        self._has_added = True
        self._write(rows)
        self._waiting = []
        self._since = time.monotonic()

    def finish(self, settings: dict[str, Any]) -> None:
        """Finish after the last session: write what is true of all, and drop spare rows."""
        self.commit()
        self._lock.renew()
        for row in self._taken:
            if not self._lengths[row]:  # of a file that could not be read to its end
                self._delete(row)
        n_rows = max((row + 1 for row, n in enumerate(self._lengths) if n), default=0)
        set_session_count(self.group, n_rows, max(self._lengths, default=0))
        self._end(provenance("ingest", settings) if self._has_added else {})

    def undo(self) -> None:
        """Remove all that was added since the beginning, visible or not."""
        self._lock.renew()
        n_rows = self.group["n_frames"].shape[0]  # type: ignore[union-attr]
        there = [row for row in self._taken if row < n_rows]
        for row in self._taken:
            self._lengths[row] = 0
        if there and self._has_added:
            # First they cease to exist, then what is known of them goes.
            self._write_column("n_frames", self._lengths, there, n_rows)
            self._forget(there)
        for row in self._taken:
            self._delete(row)
        set_session_count(self.group, self._before, self._longest_before)
        self._end({})

    def _forget(self, rows: list[int]) -> None:
        """Empty what the table says of rows that are no sessions (any more)."""
        n_rows = self.group["n_frames"].shape[0]  # type: ignore[union-attr]
        for name, column in self._columns.items():
            fill = _fill(name)
            held = [r for r in rows if r < len(column) and not is_same(column[r], fill)]
            for row in held:
                column[row] = fill
            self._write_column(name, column, held, n_rows)

    def _end(self, attrs: dict[str, Any]) -> None:
        self._publish()
        update_attributes(self._root, layout.KEYPOINTS, attrs, without=(UNFINISHED,))

    def _publish(self) -> None:
        """Publish all arrays at their new length at once, not one after the other."""
        consolidate(self._root, [layout.KEYPOINTS])

    def _delete(self, row: int) -> None:
        for name in ("position", "confidence"):
            delete_row(self.group[name], row)  # type: ignore[arg-type]

    def _write(self, rows: list[int]) -> None:
        """Write entries of some rows, in whole chunks; their lengths last.

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
        clear_other_columns(self.group, [row for row in rows if row < self._before])
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


def _fill(name: str) -> Any:
    return 0 if name == "n_frames" else _VARIABLES[name].fill


def is_same(value: Any, fill: Any) -> bool:
    """Whether an entry of the table is the one of an empty row."""
    return bool(value == fill or (value != value and fill != fill))


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
    return group is not None and bool(group.attrs.get(UNFINISHED))


def _refuse_damaged(root: zarr.Group, store: StoreLike, group: zarr.Group | None) -> None:
    """Refuse a table that has lost its lengths, for adding to it would delete all frames."""
    lost = lost_rows(root, group)
    if lost:
        raise InputError(
            expected="a whole table of sessions",
            found=lost,
            where=f"{os.fspath(store)}, group {layout.KEYPOINTS}",
            fix="restore the folder from a copy of the store, or make a new store; nothing was "
            "changed",
        )


def lost_rows(root: zarr.Group, group: zarr.Group | None) -> str:
    """Sign that the table of sessions is damaged; "" without one."""
    if group is None:
        place = root.store_path / f"{layout.KEYPOINTS}/position/c"
        is_there = (
            bool(access.names_below(place)) and access.subgroup(root, layout.KEYPOINTS) is None
        )
        return "frames, and no metadata of the group" if is_there else ""
    if group.attrs.get(UNFINISHED):
        return ""
    lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
    hashes = np.asarray(group["source_hash"][:])  # type: ignore[index]
    names = np.asarray(group["session"][:])  # type: ignore[index]
    n = min(len(lengths), len(hashes), len(names))
    lost = [i for i in range(n) if not lengths[i] and (hashes[i] or names[i])]
    nameless = [i for i in range(n) if lengths[i] and not names[i]]
    if lost:
        return f"{counted(len(lost), 'session')} without a length, such as {str(names[lost[0]])!r}"
    return f"{counted(len(nameless), 'session')} without a name" if nameless else ""


def clear_other_columns(group: zarr.Group, rows: list[int]) -> None:
    """Forget what people have added about sessions that were in these rows."""
    known = {var.name for var in KEYPOINTS}
    for name, array in access.arrays_below(group) if rows else ():
        dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
        if dims[:1] == ("session",) and name not in known:
            for row in rows:
                array[row] = array.fill_value


def leftover_rows(group: zarr.Group) -> list[int]:
    """Rows with frames that do not exist as sessions."""
    lengths = np.asarray(group["n_frames"][:])  # type: ignore[index]
    arrays = (group[name] for name in ("position", "confidence"))
    rows = {row for array in arrays for row in _rows_with_chunks(array)}  # type: ignore[arg-type]
    return sorted(row for row in rows if row >= len(lengths) or not lengths[row])


def _rows_with_chunks(array: zarr.Array[Any]) -> list[int]:
    return sorted(
        int(name) for name in access.names_below(array.store_path / "c") if name.isdigit()
    )


def delete_row(array: zarr.Array[Any], row: int) -> None:
    """Delete the stored chunks of one session."""
    place = array.store_path / f"c/{row}"
    sync(place.store.delete_dir(place.path))
