"""Verification that a store holds all that it should, as it was written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import zarr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.consolidation import consolidate, is_consolidated, is_current
from kpms_zarr.store.core.locking import sessions_lock
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, GROUPS
from kpms_zarr.store.ingest.loading import add_checksum
from kpms_zarr.store.ingest.rows import UNFINISHED, RowAllocator, leftover_rows, lost_rows
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import call, counted

_COPY = "restore it from a copy of the store, or ingest the files into a new store"
_PIECE_CHUNKS = 256
_HARMLESS = (
    "quality", "pca", "names", "epochs", "timestamps", "signals", "calibration", "annotations",
    "changepoints", "scans", "scan_chains",
)  # fmt: skip
"""Kinds of groups of which an unfinished one hides nothing: it is made again, or of no use."""


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
class VerifySummary(ShownAsTable):
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


# ------------------------------------------------------------------ what is read


@dataclass(frozen=True)
class SessionPiece:
    """Piece of a store: the frames of a session.

    Attributes
    ----------
    checksum : int
        That is known of them; -1 = none.
    """

    session: Session
    checksum: int

    @property
    def n_chunks(self) -> int:
        """Chunks to read."""
        return 2 * -(-self.session.n_frames // FRAMES_PER_CHUNK)


@dataclass(frozen=True)
class ArrayPiece:
    """Piece of a store: some chunks of an array, counted along its last dim first.

    Attributes
    ----------
    group, name : str
        Path of the group, and name of the array in it.
    start, stop : int
        Numbers of the chunks.
    """

    group: str
    name: str
    start: int
    stop: int

    @property
    def n_chunks(self) -> int:
        """Chunks to read."""
        return self.stop - self.start


Piece: TypeAlias = SessionPiece | ArrayPiece


class PieceFindings(NamedTuple):
    """Findings of one piece; numbers as in :class:`VerifySummary`."""

    n_chunks: int
    n_sessions: int
    n_checksums: int
    damages: tuple[Damage, ...]


ReadPieces: TypeAlias = Callable[[Sequence[Piece]], Iterable[PieceFindings]]
"""Reads pieces, wherever, and gives what was found of each, in their order."""


def read_piece(root: zarr.Group, store: StoreLike, piece: Piece) -> PieceFindings:
    """Read a piece, chunk by chunk.

    Parameters
    ----------
    store : path or URL
        As it is called in what is said.
    """
    if isinstance(piece, SessionPiece):
        return _read_session(root, store, piece)
    return _read_chunks(root, piece)


def _read_session(root: zarr.Group, store: StoreLike, piece: SessionPiece) -> PieceFindings:
    group, session = access.keypoints_group(root), piece.session
    assert group is not None
    where = f"{layout.KEYPOINTS}, session {session.name!r}"
    fix = f"{call('remove', store, session.name)}, then ingest its file again"
    total = n_chunks = 0
    for start in range(0, session.n_frames, FRAMES_PER_CHUNK):
        frames = slice(start, min(start + FRAMES_PER_CHUNK, session.n_frames))
        for name in ("position", "confidence"):
            n_chunks += 1
            values = _read(group[name], (session.index, frames))
            if isinstance(values, Exception):
                what = f"{name} of frames {frames.start} to {frames.stop - 1} cannot be read"
                damage = Damage(where, f"{what} ({values})", fix)
                return PieceFindings(n_chunks, 0, 0, (damage,))
            total = add_checksum(total, values)
    if piece.checksum < 0:
        return PieceFindings(n_chunks, 1, 0, ())
    damages: tuple[Damage, ...] = ()
    if total != piece.checksum:
        what = "not the numbers that were written: chunks lost or altered"
        damages = (Damage(where, what, fix),)
    return PieceFindings(n_chunks, 1, 1, damages)


def _read_chunks(root: zarr.Group, piece: ArrayPiece) -> PieceFindings:
    group = access.subgroup(root, piece.group)
    array = None if group is None else group.get(piece.name)
    if not isinstance(array, zarr.Array):  # removed meanwhile, as by a fit that runs
        return PieceFindings(0, 0, 0, ())
    counts = _chunk_counts(array)
    damages = []
    for number in range(piece.start, piece.stop):
        place = tuple(int(i) for i in np.unravel_index(number, counts)) if counts else ()
        chunks = zip(place, array.chunks, strict=True)
        values = _read(array, tuple(slice(i * c, (i + 1) * c) for i, c in chunks))
        if isinstance(values, Exception):
            what = f"chunk {place} cannot be read ({values})"
            where = f"{piece.group}/{piece.name}"
            damages.append(Damage(where, what, _rebuild(piece.group)))
    return PieceFindings(piece.n_chunks, 0, 0, tuple(damages))


def _read(array: Any, where: Any) -> Any:
    """Values of a region, or the error that reading it ended in."""
    try:
        return np.asarray(array[where])
    except Exception as error:
        return error


def _chunk_counts(array: Any) -> tuple[int, ...]:
    """Chunks of an array along each dim."""
    return tuple(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))


# ------------------------------------------------------------------ the whole store


def verify(
    store: StoreLike,
    *,
    repair: bool = False,
    on_progress: Callable[[str], None] | None = None,
    read: ReadPieces | None = None,
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
    read : callable, optional
        See ``ReadPieces`` (default: one after the other, in this process).

    Returns
    -------
    VerifySummary

    Raises
    ------
    InputError
        When there is no store.
    """
    root = access.open_group(store, "r+" if repair else "r")

    def one_by_one(pieces: Sequence[Piece]) -> Iterator[PieceFindings]:
        return (read_piece(root, store, piece) for piece in pieces)

    check = _Audit(
        root, store, VerifySummary(os.fspath(store)), on_progress or (lambda text: None),
        read or one_by_one,
    )  # fmt: skip
    for part, where in ((check.keypoints, layout.KEYPOINTS), (check.others, "other groups")):
        try:
            part()
        except (ValueError, KeyError, TypeError) as error:  # metadata that are none
            check.damage(where, f"metadata cannot be read ({error})", _COPY)
    check.leftovers(repair=repair)
    return check.summary


@dataclass
class _Section:
    """Section of a store, in order: what is said before it is read, what is wrong, what to read."""

    line: str
    damages: list[Damage] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


class _Audit:
    def __init__(
        self,
        root: zarr.Group,
        store: StoreLike,
        summary: VerifySummary,
        notify: Callable[[str], None],
        read: ReadPieces,
    ) -> None:
        self.root, self.store, self.summary, self.notify = root, store, summary, notify
        self.read = read

    def damage(self, where: str, what: str, fix: str) -> None:
        self.summary.damages.append(Damage(where, what, fix))

    def take(self, sections: Sequence[_Section]) -> None:
        """Read all pieces of some sections, and take what is wrong in their order."""
        found = iter(self.read([piece for section in sections for piece in section.pieces]))
        for section in sections:
            self.notify(section.line)
            self.summary.damages += section.damages
            for _ in section.pieces:
                one = next(found)
                self.summary.n_chunks += one.n_chunks
                self.summary.n_sessions += one.n_sessions
                self.summary.n_checksums += one.n_checksums
                self.summary.damages += one.damages

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
        lacking = _lacking(group, "keypoints")
        self.summary.damages += lacking
        if lacking or not self._table(group):
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
        self.take(
            [
                _Section(
                    f"{layout.KEYPOINTS}: {session.name}",
                    pieces=[SessionPiece(session, int(checksums[session.index]))],
                )
                for session in sessions
            ]
        )

    def _table(self, group: zarr.Group) -> bool:
        """Read every array of the table, and look for entries that every session has."""
        is_sound = True
        columns: dict[str, np.ndarray] = {}
        for name, array in access.arrays_below(group):
            if name in ("position", "confidence"):
                continue
            self.summary.n_chunks += 1
            values = _read(array, ...)
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

    # -------------------------------------------------------------- the rest

    def others(self) -> None:
        """Read all other groups, chunk by chunk."""
        sections: list[_Section] = []
        try:
            for path, group in _groups(self.root):
                if path.split("/")[0] != layout.KEYPOINTS and "lock" not in path.split("/"):
                    sections.append(self._section(path, group))
        finally:  # what comes before metadata that are none
            self.take(sections)

    def _section(self, path: str, group: zarr.Group) -> _Section:
        """What there is to read of a group."""
        kind, found = _kind(path), _Section(path)
        if kind == "levels" and "provenance" not in group.attrs:
            self.summary.notes.append(f"{path}: not finished ({_rebuild(path)})")
            return found
        is_unfinished = "provenance" not in group.attrs
        if is_unfinished and (kind in _HARMLESS or _is_unpublished(self.root, path, kind)):
            self.summary.notes.append(f"{path}: left by a process that was killed; harmless")
            return found
        arrays = access.arrays_below(group)
        if kind in GROUPS and arrays:
            found.damages += _lacking(group, kind)
        for name, array in arrays:
            n_chunks = int(np.prod(_chunk_counts(array), dtype=np.int64))
            for start in range(0, n_chunks, _PIECE_CHUNKS):
                stop = min(start + _PIECE_CHUNKS, n_chunks)
                found.pieces.append(ArrayPiece(path, name, start, stop))
        return found

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


def _lacking(group: zarr.Group, kind: str) -> list[Damage]:
    """Arrays that a group of a kind must have and has not, or not with their dims."""
    found, fix = [], "restore it from a copy of the store"
    for var in GROUPS[kind]:
        where = f"{group.path}/{var.name}"
        try:
            array = group.get(var.name)
        except Exception as error:
            found.append(Damage(where, f"metadata cannot be read ({error})", fix))
            continue
        if array is None and not var.optional:
            found.append(Damage(where, "missing", fix))
        elif isinstance(array, zarr.Array):
            dims = array.metadata.dimension_names  # type: ignore[union-attr]
            if dims != var.dims:
                what = f"dimensions {dims} instead of {var.dims}"
                found.append(Damage(where, what, fix))
    return found


def _groups(root: zarr.Group, path: str = "") -> Iterator[tuple[str, zarr.Group]]:
    for name, group in access.groups_below(root):
        place = f"{path}/{name}" if path else name
        yield place, group
        yield from _groups(group, place)


def _is_unpublished(root: zarr.Group, path: str, kind: str) -> bool:
    """Whether unfinished labels or parameters are of a version that nobody was shown."""
    if kind not in ("labels", "parameters"):
        return False
    model, version = path.rsplit("/", 2)[0], path.rsplit("/", 1)[1]
    labels = access.subgroup(root, f"{model}/labels")
    if labels is None:
        return True
    if kind == "labels":
        current = str(labels.attrs.get("current", ""))
        return not current or int(current[1:]) < int(version[1:])
    published = [one for _, one in access.groups_below(labels) if "provenance" in one.attrs]
    return version not in [one.attrs.get("parameters") for one in published]


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
    if parts[0] in (layout.QUALITY, layout.PCA, layout.CHANGEPOINTS):
        return f"run `kpms_zarr.{parts[0]}` again"
    if parts[0] == layout.CALIBRATION:
        return "run `kpms_zarr.calibrate` again"
    if parts[0] in (layout.EPOCHS, layout.TIMESTAMPS):
        return f"write them again: `kpms_zarr.{parts[0]}(STORE, 'FILE.csv')`"
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
