"""Tracking files -> sessions of a store, all of them or none."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import zarr

from kpms_zarr.store import access, regions
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.blocks import Block
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.parsers import PARSERS, formats, recognise
from kpms_zarr.store.parsers.base import FileHeader, Parser, PoseBlock
from kpms_zarr.store.provenance import provenance
from kpms_zarr.store.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.study import (
    StudySettings,
    parse_skeleton,
    read_settings,
    settings_from_names,
    write_settings,
)


@dataclass(frozen=True)
class IngestSummary:
    """What :func:`ingest` did.

    Attributes
    ----------
    store : str
    added : tuple of str
        Names of the new sessions.
    known : tuple of str
        Names of the sessions that were already there with the same content.
    n_frames : int
        Frames added.
    notes : tuple of str
        What a person should know: individuals left out, files without likelihood, ...
    """

    store: str
    added: tuple[str, ...]
    known: tuple[str, ...]
    n_frames: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _PlannedTrack:
    session: str
    individual: str
    source_hash: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class _PlannedFile:
    parser: Parser
    header: FileHeader
    tracks: tuple[_PlannedTrack, ...]


def ingest(
    store: StoreLike,
    files: str | Path | Iterable[str | Path],
    *,
    format: str = "auto",
    fps: float = 30.0,
    keypoints: Sequence[str] | None = None,
    anterior: Sequence[str] | None = None,
    posterior: Sequence[str] | None = None,
    skeleton: str | Sequence[tuple[str, str]] | None = None,
) -> IngestSummary:
    """Add tracking files to a store, which is made when it does not exist.

    One session per individual, named ``<file>`` or ``<file>_<individual>``. A file that is
    already in the store (same content) is left alone. One block of frames is in memory at a time.

    Parameters
    ----------
    store : path or URL
    files : iterable of path
        Files, folders (searched with their subfolders) or glob patterns.
    format : str
        Name of the format, or ``"auto"`` to recognise each file by its content.
    fps : float
        Frame rate of the videos, in frames per second.
    keypoints : sequence of str, optional
        Keypoints to take, in this order (default: all of the first file, in its order).
    anterior, posterior : sequence of str, optional
        Keypoints at the front and at the rear of the animal; they define its heading.
    skeleton : str or sequence of (str, str), optional
        Bones, for drawing only, as pairs of keypoints or as text: ``"a-b,b-c"``.

    Returns
    -------
    IngestSummary

    Raises
    ------
    InputError
        With every problem found in the files. The store is then as it was.
    """
    problems = _wrong_options(format, fps, keypoints)
    if problems:
        raise InputError.of(problems)
    files = [files] if isinstance(files, str | Path) else files
    anterior, posterior = (
        [names] if isinstance(names, str) else names for names in (anterior, posterior)
    )
    is_new = not access.exists(store)
    taken = {} if is_new else _sources(store)
    settings = read_settings(store) if taken else StudySettings()
    notes: list[str] = []
    found = _expand(files, format, notes, problems)
    planned = _plan(store, found, keypoints, settings, taken, notes, problems)
    settings = planned.settings
    try:
        if isinstance(skeleton, str):
            skeleton = parse_skeleton(skeleton, settings.keypoints)
        settings = settings_from_names(
            settings, anterior=anterior, posterior=posterior, skeleton=skeleton
        )
    except InputError as error:
        problems += error.problems if settings.keypoints else ()
    if problems:
        raise InputError.of(dict.fromkeys(problems))
    root = access.create(store) if is_new else access.open_group(store, "r+")
    try:
        added, n_frames = _write(root, planned, settings, fps, notes)
        write_settings(root, settings)
    except BaseException:
        if is_new:
            access.remove(store)
        raise
    notes += _notes_on_settings(store, planned, settings, fps)
    return IngestSummary(str(store), added, planned.known, n_frames, tuple(dict.fromkeys(notes)))


def _notes_on_settings(
    store: StoreLike, planned: _Plan, settings: StudySettings, fps: float
) -> list[str]:
    """What was set besides the sessions, and what was asked for but not done."""
    notes = []
    kept = [s for s in access.sessions(store) if s.name in planned.known and s.fps != fps]
    if kept:
        notes.append(
            f"{len(kept)} known sessions keep their frame rate of {kept[0].fps:g} frames per second"
        )
    before = planned.settings
    if before.anterior and (before.anterior, before.posterior) != (
        settings.anterior,
        settings.posterior,
    ):
        notes.append(
            f"heading of the study changed to {', '.join(settings.posterior)} -> "
            f"{', '.join(settings.anterior)}; models fitted before keep the old one"
        )
    if not (settings.anterior and settings.posterior):
        notes.append("no heading yet: give --anterior and --posterior, here or in kpms-zarr pca")
    return notes


# ------------------------------------------------------------------ what to read


def _wrong_options(format: str, fps: float, keypoints: Sequence[str] | None) -> list[Problem]:
    problems = []
    if not (np.isfinite(fps) and fps > 0):
        problems.append(
            Problem(
                "a positive number of frames per second",
                str(fps),
                "--fps",
                "give the frame rate of the video, such as --fps 30",
            )
        )
    if format not in ("auto", *formats()):
        problems.append(
            Problem(
                f"one of {', '.join(('auto', *formats()))}",
                repr(format),
                "--format",
                "choose a known format, or leave the option out",
            )
        )
    if keypoints and len(set(keypoints)) != len(keypoints):
        twice = dict.fromkeys(name for name in keypoints if list(keypoints).count(name) > 1)
        problems.append(
            Problem(
                "every keypoint once",
                f"{', '.join(twice)} more than once",
                "--keypoints",
                "name each keypoint once",
            )
        )
    return problems


def _expand(
    files: Iterable[str | Path], format: str, notes: list[str], problems: list[Problem]
) -> list[tuple[Path, Parser]]:
    """Files behind paths, folders and patterns, with their parsers, sorted by path."""
    found: dict[Path, Parser] = {}
    for item in files:
        text = str(item)
        path = Path(text)
        if path.is_dir():
            inside = _in_folder(path, format, notes)
            if not inside:
                problems.append(_nothing(text, "a folder without any tracking file"))
            found.update(inside)
            continue
        matches = (
            [path] if path.exists() else [Path(p) for p in sorted(glob.glob(text, recursive=True))]
        )
        if not matches:
            problems.append(_nothing(text, "nothing there"))
        for match in matches:
            try:
                found[match] = recognise(match, format)[0]
            except InputError as error:
                problems += error.problems
    if not found and not problems:
        problems.append(_nothing("FILE_OR_DIR_OR_GLOB", "no files named"))
    return sorted(found.items(), key=lambda item: str(item[0]))


def _nothing(where: str, found: str) -> Problem:
    formats = ", ".join(parser.title for parser in PARSERS)
    return Problem(
        f"tracking files ({formats})", found, where, "check the path; quote a pattern: 'data/*.csv'"
    )


def _in_folder(folder: Path, format: str, notes: list[str]) -> dict[Path, Parser]:
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(p.startswith(".") or p.endswith(".zarr") for p in parts):
            continue
        try:
            found[path] = recognise(path, format)[0]
        except InputError:
            notes.append(f"{path}: not a tracking file, left out")
    return found


# ------------------------------------------------------------------ what to write


@dataclass(frozen=True)
class _Plan:
    files: tuple[_PlannedFile, ...]
    known: tuple[str, ...]
    settings: StudySettings


def _plan(
    store: StoreLike,
    files: list[tuple[Path, Parser]],
    keypoints: Sequence[str] | None,
    settings: StudySettings,
    taken: dict[str, str],
    notes: list[str],
    problems: list[Problem],
) -> _Plan:
    """Decide session names and columns for every file; every problem is put to the others."""
    by_hash = {value: name for name, value in taken.items()}
    planned: list[_PlannedFile] = []
    known: list[str] = []
    origin: dict[str, str] = dict.fromkeys(taken, "the store")
    wanted = tuple(keypoints) if keypoints else settings.keypoints
    if settings.keypoints and wanted != settings.keypoints:
        problems.append(_other_keypoints(str(store), settings.keypoints, wanted))
        wanted = settings.keypoints
    for path, parser in files:
        try:
            header = parser.inspect(path)
        except InputError as error:
            problems += error.problems
            continue
        notes += [f"{path.name}: {note}" for note in header.notes]
        file_hash = _file_hash(path)
        tracks = []
        for track in header.tracks:
            wanted = wanted or track.keypoints
            settings = replace(settings, keypoints=wanted, space=settings.space or header.space)
            session = f"{path.stem}_{track.individual}" if track.individual else path.stem
            content = hashlib.sha256(f"{file_hash}{track.individual}".encode()).hexdigest()
            if content in by_hash:
                known.append(by_hash[content])
                if by_hash[content] != session:
                    notes.append(f"{path.name}: same content as session {by_hash[content]!r}")
                continue
            exact = not taken and not keypoints
            columns, wrong = _columns(path, track.keypoints, wanted, exact=exact)
            extra = [name for name in track.keypoints if name not in wanted]
            if extra and not (exact or keypoints):
                notes.append(
                    f"{path.name}: keypoints the store has not, left out: {', '.join(extra)}"
                )
            problems += wrong
            if header.space != settings.space:
                problems.append(_other_space(path, settings.space, header.space))
            if session in origin:
                problems.append(_same_name(path, session, origin[session]))
            origin[session] = str(path)
            by_hash[content] = session
            tracks.append(_PlannedTrack(session, track.individual, content, columns))
        if tracks:
            planned.append(_PlannedFile(parser, header, tuple(tracks)))
    return _Plan(tuple(planned), tuple(known), settings)


def _sources(store: StoreLike) -> dict[str, str]:
    root = access.open_group(store)
    group = access.keypoints_group(root)
    if group is None:
        return {}
    hashes = np.asarray(group["source_hash"][:])  # type: ignore[index]
    return {session.name: str(hashes[session.index]) for session in access.sessions(root)}


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _columns(
    path: Path, found: tuple[str, ...], wanted: tuple[str, ...], *, exact: bool
) -> tuple[tuple[int, ...], list[Problem]]:
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted] if exact else []
    if not missing and not extra:
        return tuple(found.index(name) for name in wanted), []
    said = [f"without {', '.join(missing)}"] if missing else []
    said += [f"with {', '.join(extra)} besides"] if extra else []
    common = ",".join(name for name in wanted if name in found)
    fix = (
        f"take the keypoints that all files have: --keypoints {common}"
        if common
        else ("put recordings with different keypoints into different stores")
    )
    return (), [Problem(f"the keypoints {', '.join(wanted)}", " and ".join(said), str(path), fix)]


def _other_keypoints(where: str, has: tuple[str, ...], wanted: tuple[str, ...]) -> Problem:
    return Problem(
        f"the keypoints of the store: {', '.join(has)}",
        f"--keypoints {','.join(wanted)}",
        where,
        "leave --keypoints out, or make another store",
    )


def _other_space(path: Path, has: tuple[str, ...], found: tuple[str, ...]) -> Problem:
    return Problem(
        f"{len(has)}-D positions ({', '.join(has)}) like the other sessions",
        f"{len(found)}-D positions",
        str(path),
        "put 2-D and 3-D recordings into different stores",
    )


def _same_name(path: Path, session: str, other: str) -> Problem:
    return Problem(
        "a session name of its own for each file",
        f"the name {session!r}, taken by {other}",
        str(path),
        "rename one of the files, or name only one of them (a pattern such as '*.h5' takes one "
        "of two formats of the same recording)",
    )


# ------------------------------------------------------------------ writing


def _write(
    root: zarr.Group, planned: _Plan, settings: StudySettings, fps: float, notes: list[str]
) -> tuple[tuple[str, ...], int]:
    """Append the sessions; ``n_frames`` last, so that until then none of them exists."""
    if not planned.files:
        return (), 0
    there = access.sessions(root)
    before, longest = len(there), max((s.n_frames for s in there), default=0)
    group = access.keypoints_group(root)
    if group is None or not there:
        group = create_keypoints(root, settings)
    set_session_count(group, before, longest)  # sweeps up what a killed ingest left
    try:
        rows, lengths, files = _write_frames(group, planned, settings, before, notes)
        set_session_count(group, before + len(rows), max(longest, *lengths, 0))
        if rows:
            _write_table(group, rows, files, before, fps)
            group.attrs.update(
                provenance("ingest", {"files": [f.header.path.name for f in planned.files]})
            )
            group["n_frames"][before:] = np.asarray(lengths)  # type: ignore[index]
    except BaseException:
        set_session_count(group, before, longest)
        raise
    return tuple(track.session for track in rows), int(sum(lengths))


def _write_frames(
    group: zarr.Group,
    planned: _Plan,
    settings: StudySettings,
    before: int,
    notes: list[str],
) -> tuple[list[_PlannedTrack], list[int], list[_PlannedFile]]:
    """Write position and confidence of every track; all problems of all files at once."""
    problems: list[Problem] = []
    rows: list[_PlannedTrack] = []
    lengths: list[int] = []
    files: list[_PlannedFile] = []
    for file in planned.files:
        try:
            kept, n_frames = _write_file(
                group, file, before + len(rows), notes, is_dry=bool(problems)
            )
        except InputError as error:
            problems += error.problems
            continue
        rows += kept
        lengths += [n_frames] * len(kept)
        files += [file] * len(kept)
    if not rows and not problems and not planned.known:
        problems.append(_nothing(str(planned.files[0].header.path), "no keypoint in any frame"))
    if problems:
        raise InputError.of(problems)
    return rows, lengths, files


def _write_file(
    group: zarr.Group, file: _PlannedFile, first: int, notes: list[str], *, is_dry: bool
) -> tuple[tuple[_PlannedTrack, ...], int]:
    """Write one file from row ``first`` on; returns the tracks ever seen, and the length."""
    n_frames, seen = _write_tracks(group, file, first, is_dry=is_dry)
    if all(seen):
        return file.tracks, n_frames
    kept = tuple(track for track, was_seen in zip(file.tracks, seen, strict=True) if was_seen)
    for track in file.tracks:
        if track not in kept:
            notes.append(f"{track.session}: none of the keypoints is ever tracked, left out")
    if not is_dry:
        for name in ("position", "confidence"):
            array = group[name]
            array.resize((first, *array.shape[1:]))  # type: ignore[union-attr]
        if kept:
            _write_tracks(group, replace(file, tracks=kept), first, is_dry=False)
    return kept, n_frames


def _write_tracks(
    group: zarr.Group, file: _PlannedFile, first: int, *, is_dry: bool
) -> tuple[int, list[bool]]:
    n_frames = 0
    seen = [False] * len(file.tracks)
    for block in file.parser.read(file.header.path, FRAMES_PER_CHUNK):
        for i, track in enumerate(file.tracks):
            position = block.position[track.individual][:, track.columns]
            seen[i] = seen[i] or bool(np.isfinite(position).all(-1).any())
            if not is_dry:
                _write_block(group, block, track, first + i, position)
        n_frames = block.start + block.n_frames
    return n_frames, seen


def _write_block(
    group: zarr.Group, block: PoseBlock, track: _PlannedTrack, row: int, position: np.ndarray
) -> None:
    stop = block.start + block.n_frames
    arrays = {"position": position}
    if track.individual in block.confidence:
        arrays["confidence"] = block.confidence[track.individual][:, track.columns]
    for name in ("position", "confidence"):
        array = group[name]
        shape = (max(array.shape[0], row + 1), max(array.shape[1], stop))  # type: ignore[union-attr]
        if shape != array.shape[:2]:  # type: ignore[union-attr]
            array.resize((*shape, *array.shape[2:]))  # type: ignore[union-attr]
        if name in arrays:
            regions.write(array, Block(row, block.start, stop), arrays[name], n_frames=stop)  # type: ignore[arg-type]


def _write_table(
    group: zarr.Group,
    rows: list[_PlannedTrack],
    files: list[_PlannedFile],
    before: int,
    fps: float,
) -> None:
    """Write the session coordinates except ``n_frames``."""
    headers = [file.header for file in files]
    table = {
        "session": [track.session for track in rows],
        "individual": [track.individual for track in rows],
        "recording": [header.path.stem for header in headers],
        "source": [header.path.name for header in headers],
        "source_hash": [track.source_hash for track in rows],
        "source_format": [header.format for header in headers],
    }
    write_session_rows(group, before, table, fps)
