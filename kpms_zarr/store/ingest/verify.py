"""Verification that a store holds all that it should, as it was written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.consolidation import consolidate, is_consolidated, is_current
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, GROUPS
from kpms_zarr.store.ingest.loading import add_checksum
from kpms_zarr.store.ingest.rows import UNFINISHED, RowAllocator, leftover_rows, lost_rows
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import call, counted

_COPY = "restore it from a copy of the store, or ingest the files into a new store"


@dataclass(frozen=True)
class Damage:
    """Damage: something that is not as it was written.

    Attributes
    ----------
    where : str
        Group, array and session or chunk.
    what : str
    fix : str
        What to do about it.
    """

    where: str
    what: str
    fix: str


@dataclass
class VerifySummary:
    """Result of :func:`verify`.

    Attributes
    ----------
    store : str
    n_chunks : int
        Chunks that were read.
    n_sessions : int
        Sessions of tracked data that were read; `n_checksums` of them against a checksum.
    n_checksums : int
    damages : list of Damage
        What is wrong and could not be repaired.
    repaired : list of str
        What was wrong and is right now.
    notes : list of str
        What is no damage but can be tidied up.
    """

    store: str
    n_chunks: int = 0
    n_sessions: int = 0
    n_checksums: int = 0
    damages: list[Damage] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages


def verify(
    store: StoreLike,
    *,
    repair: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> VerifySummary:
    """Read every chunk of a store and compare it with what is known about it.

    Tracked data are compared with their checksums, so that lost and altered chunks are found as
    well as those that cannot be read. One chunk is in memory at a time.

    Parameters
    ----------
    store : path or URL
    repair : bool
        Tidy up what killed processes left, and write consolidated metadata again. What is damaged
        is only named, with what to do.
    on_progress : callable, optional
        Is given a line before each group.

    Returns
    -------
    VerifySummary

    Raises
    ------
    InputError
        When there is no store.
    """
    root = access.open_group(store, "r+" if repair else "r")
    check = _Audit(root, store, VerifySummary(os.fspath(store)), on_progress or (lambda text: None))
    for part, where in ((check.keypoints, layout.KEYPOINTS), (check.others, "other groups")):
        try:
            part()
        except (ValueError, KeyError, TypeError) as error:  # metadata that are none
            check.damage(where, f"metadata cannot be read ({error})", _COPY)
    check.leftovers(repair=repair)
    return check.summary


class _Audit:
    def __init__(
        self,
        root: zarr.Group,
        store: StoreLike,
        summary: VerifySummary,
        notify: Callable[[str], None],
    ) -> None:
        self.root, self.store, self.summary, self.notify = root, store, summary, notify

    def damage(self, where: str, what: str, fix: str) -> None:
        self.summary.damages.append(Damage(where, what, fix))

    # -------------------------------------------------------------- tracked data

    def keypoints(self) -> None:
        """The table of sessions, and the frames of every one of them."""
        group = access.keypoints_group(self.root)
        try:
            lost = lost_rows(self.root, group)
        except Exception as error:
            lost = f"cannot be read ({error})"
        if lost:
            self.damage(layout.KEYPOINTS, lost, _COPY)
        if group is None:
            self.summary.notes += [] if lost else ["no sessions"]
            return
        self.notify(f"{layout.KEYPOINTS}: table of sessions")
        if not self._is_whole(group, "keypoints") or not self._table(group):
            return
        sessions = access.sessions(self.root)
        checksums = (
            np.asarray(group["checksum"][:])  # type: ignore[index]
            if "checksum" in group
            else np.full(group["n_frames"].shape[0], -1)  # type: ignore[union-attr]
        )
        for name, count in Counter(session.name for session in sessions).items():
            if count > 1:
                fix = "remove them and ingest their files again"
                self.damage(layout.KEYPOINTS, f"{count} sessions named {name!r}", fix)
        for session in sessions:
            self.notify(f"{layout.KEYPOINTS}: {session.name}")
            self._session(group, session, int(checksums[session.index]))

    def _table(self, group: zarr.Group) -> bool:
        """Read every array of the table, and look for entries that every session has."""
        is_sound = True
        columns: dict[str, np.ndarray] = {}
        for name, array in access.arrays_below(group):
            if name in ("position", "confidence"):
                continue
            values = self._read(array, ...)
            if isinstance(values, Exception):
                self.damage(f"{layout.KEYPOINTS}/{name}", f"cannot be read ({values})", _COPY)
                is_sound = False
            else:
                columns[name] = values
        if not is_sound:
            return False
        rows = np.flatnonzero(columns["n_frames"] > 0)
        fps = columns["fps"][rows]
        lacking = {
            "fps": ~(np.isfinite(fps) & (fps > 0)),
            "session": columns["session"][rows] == "",
            "source_hash": columns["source_hash"][rows] == "",
        }
        if "ingest" in columns:
            is_ours = columns["ingest"][rows] != ""
            lacking["checksum"] = is_ours & (columns["checksum"][rows] < 0)
        for name, is_lacking in lacking.items():
            if is_lacking.any():
                what = f"no {name} of {counted(int(is_lacking.sum()), 'session')}"
                self.damage(f"{layout.KEYPOINTS}/{name}", what, _COPY)
        for name in ("keypoint", "space"):
            if len(set(columns[name].tolist())) < len(columns[name]) or "" in columns[name]:
                self.damage(f"{layout.KEYPOINTS}/{name}", "names lost", _COPY)
        return True

    def _session(self, group: zarr.Group, session: Session, checksum: int) -> None:
        where = f"{layout.KEYPOINTS}, session {session.name!r}"
        fix = f"{call('remove', self.store, session.name)}, then ingest its file again"
        total = 0
        for start in range(0, session.n_frames, FRAMES_PER_CHUNK):
            frames = slice(start, min(start + FRAMES_PER_CHUNK, session.n_frames))
            for name in ("position", "confidence"):
                values = self._read(group[name], (session.index, frames))  # type: ignore[arg-type]
                if isinstance(values, Exception):
                    what = f"{name} of frames {frames.start} to {frames.stop - 1} cannot be read"
                    self.damage(where, f"{what} ({values})", fix)
                    return
                total = add_checksum(total, values)
        self.summary.n_sessions += 1
        if checksum >= 0:
            self.summary.n_checksums += 1
            if total != checksum:
                self.damage(where, "not the numbers that were written: chunks lost or altered", fix)

    def _read(self, array: zarr.Array[Any], where: Any) -> Any:
        self.summary.n_chunks += 1
        try:
            return np.asarray(array[where])
        except Exception as error:
            return error

    def _is_whole(self, group: zarr.Group, kind: str) -> bool:
        is_whole = True
        for var in GROUPS[kind]:
            where = f"{group.path}/{var.name}"
            fix = "restore it from a copy of the store"
            try:
                array = group.get(var.name)
            except Exception as error:
                self.damage(where, f"metadata cannot be read ({error})", fix)
                is_whole = False
                continue
            if array is None and not var.optional:
                self.damage(where, "missing", fix)
                is_whole = False
            elif isinstance(array, zarr.Array):
                dims = array.metadata.dimension_names  # type: ignore[union-attr]
                if dims != var.dims:
                    what = f"dimensions {dims} instead of {var.dims}"
                    self.damage(where, what, fix)
                    is_whole = False
        return is_whole

    # -------------------------------------------------------------- the rest

    def others(self) -> None:
        """Read all other groups, chunk by chunk."""
        for path, group in _groups(self.root):
            if path.split("/")[0] == layout.KEYPOINTS or "lock" in path.split("/"):
                continue
            self.notify(path)
            kind = _kind(path)
            if kind == "levels" and "provenance" not in group.attrs:
                self.summary.notes.append(f"{path}: not finished ({_rebuild(path)})")
                continue
            if (
                kind in ("names", "epochs", "signals", "scans", "scan_chains")
                and "provenance" not in group.attrs
            ):
                self.summary.notes.append(f"{path}: left by a process that was killed; harmless")
                continue
            if kind in GROUPS and access.arrays_below(group):
                self._is_whole(group, kind)
            for name, array in access.arrays_below(group):
                self._array(f"{path}/{name}", array)

    def _array(self, where: str, array: zarr.Array[Any]) -> None:
        counts = [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]
        for place in product(*(range(n) for n in counts)):
            region = tuple(
                slice(i * c, (i + 1) * c) for i, c in zip(place, array.chunks, strict=True)
            )
            values = self._read(array, region)
            if isinstance(values, Exception):
                group = where.rpartition("/")[0]
                self.damage(where, f"chunk {place} cannot be read ({values})", _rebuild(group))

    # -------------------------------------------------------------- leftovers

    def leftovers(self, *, repair: bool) -> None:
        """Report what killed processes left, and stale consolidated metadata."""
        if access.is_web(self.store):  # which lists nothing, and where nothing can be mended
            return
        group = access.keypoints_group(self.root)
        if group is not None and not self.summary.damages:
            rows = leftover_rows(group)
            if rows or group.attrs.get(UNFINISHED):
                what = f"frames of {counted(len(rows), 'session')} never finished, or removed"
                self._tidy(what, repair, lambda: _delete_rows(self.root, self.store))
        if not is_consolidated(self.root, "") or not is_current(self.root):
            what = "metadata in one object, older than the store"
            self._tidy(what, repair, lambda: consolidate(self.root))

    def _tidy(self, what: str, repair: bool, action: Callable[[], None]) -> None:
        if repair:
            action()
            self.summary.repaired.append(what)
        else:
            self.summary.notes.append(f"{what} (`kpms_zarr.verify(STORE, repair=True)` tidies up)")


def _delete_rows(root: zarr.Group, store: StoreLike) -> None:
    """Delete rows without sessions, as the next ingest would."""
    with sessions_lock(root, store, lambda text: None) as lock:
        RowAllocator(root, store, read_settings(root), lock).finish({})


def _groups(root: zarr.Group, path: str = "") -> Iterator[tuple[str, zarr.Group]]:
    for name, group in access.groups_below(root):
        place = f"{path}/{name}" if path else name
        yield place, group
        yield from _groups(group, place)


def _kind(path: str) -> str:
    """Kind of a group, as in the schema."""
    parts = path.split("/")
    if parts[0] == layout.SCANS:
        return {2: "scans", 4: "scan_chains"}.get(len(parts), "")
    if parts[0] != layout.MODELS:
        return parts[0]
    versioned = ("labels", "levels", "names", "parameters")
    return parts[2] if len(parts) == 4 and parts[2] in versioned else ""


def _rebuild(group: str) -> str:
    """Advise how to make a damaged group anew."""
    parts = group.split("/")
    if parts[0] in (layout.QUALITY, layout.PCA):
        return f"run `kpms_zarr.{parts[0]}` again"
    if parts[0] == layout.EPOCHS:
        return "write them again: `kpms_zarr.epochs(STORE, 'FILE.csv')`"
    if parts[0] == layout.SIGNALS and len(parts) > 1:
        return f"add it again: `kpms_zarr.signals(STORE, 'FILE.csv', name={parts[1]!r})`"
    if parts[0] == layout.SCANS and len(parts) > 1:
        return f"scan again: `kpms_zarr.scan(STORE, name={parts[1]!r}, overwrite=True)`"
    if parts[0] == layout.MODELS and parts[2:3] == ["levels"]:
        version = f", version={parts[3]!r}" if len(parts) > 3 else ""
        return f"in Python: kpms_zarr.build_levels(store, {parts[1]!r}{version}, overwrite=True)"
    if parts[0] == layout.MODELS and len(parts) > 3:
        return f"use another version of {parts[2]}, or fit the model {parts[1]!r} again"
    return "restore it from a copy of the store"
