"""Ingest: tracking files become sessions of a store, all of them or none."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import zarr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.locking import Lock, sessions_lock
from kpms_zarr.store.core.names import tidy
from kpms_zarr.store.cores import n_cores
from kpms_zarr.store.errors import InputError, OtherKindError, Problem, readable
from kpms_zarr.store.ingest.annotate import annotate_sessions, check_rows, read_metadata
from kpms_zarr.store.ingest.choices import IngestChoices
from kpms_zarr.store.ingest.finding import FileFinder, nothing_there
from kpms_zarr.store.ingest.loading import (
    LoadedTrack,
    LoadTask,
    Probe,
    ProbeTask,
    TrackTask,
    load,
    probe,
)
from kpms_zarr.store.ingest.own_times import keep_own_times
from kpms_zarr.store.ingest.planning import (
    IngestPlan,
    PlannedFile,
    PlannedTrack,
    plan_files,
    raise_all,
)
from kpms_zarr.store.ingest.remove import remove
from kpms_zarr.store.ingest.rows import NewSession, RowAllocator, is_unfinished
from kpms_zarr.store.ingest.time_tables import TimesLike, sources_of
from kpms_zarr.store.ingest.timeline import (
    DEFAULT_MAX_GAP,
    check_time_unit,
    parse_max_gap,
)
from kpms_zarr.store.ingest.timestamp_versions import TimestampWriter
from kpms_zarr.store.ingest.timestamps import timestamps as write_timestamps
from kpms_zarr.store.ingest.trimming import check_downsample, parse_trim
from kpms_zarr.store.ingest.twins import check_preferred
from kpms_zarr.store.ingest.workers import WorkerLost, Workers, seconds_for
from kpms_zarr.store.parsers import wrong_format
from kpms_zarr.store.parsers.arrays import hash_of, tracks_in_memory
from kpms_zarr.store.parsers.base import ReadOptions
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.plausibility import Correction, doubts
from kpms_zarr.store.study.session_names import Scheme
from kpms_zarr.store.study.settings import (
    StudySettings,
    named_twice,
    write_settings,
)
from kpms_zarr.store.study.tables import SessionTable, frame_rates, read_mapping
from kpms_zarr.store.wording import counted

_BYTES_PER_WORKER = 30_000_000
"""A process takes a second to start; below so many bytes another one is not worth it."""
_THREADS = 8
"""For stores that are far away, where threads wait most of the time."""


@dataclass(frozen=True)
class IngestSummary(ShownAsTable):
    """Result of :func:`ingest`, or of its rehearsal.

    Attributes
    ----------
    store : str
    added : tuple of str
        Names of the new sessions.
    known : tuple of str
        Names of the sessions that were already there with the same content.
    n_frames : int
        Frames added, or in a dry run those that would be.
    notes : tuple of str
        What a person should know: individuals left out, files without likelihood, ...
    bad : tuple of str
        Files that could not be used and were skipped, as asked.
    recognised : dict of str to str
        File -> its format, and why.
    is_dry : bool
        Whether nothing was written.
    reasons : dict of str to str
        What is wrong with each of the bad files.
    warnings : tuple of str
        What asks for a choice: several results of one video.
    """

    store: str
    added: tuple[str, ...]
    known: tuple[str, ...]
    n_frames: int
    notes: tuple[str, ...]
    bad: tuple[str, ...] = ()
    recognised: dict[str, str] = field(default_factory=dict)
    is_dry: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all files could be used; if not, the command ends with exit code 3."""
        return not self.bad


@dataclass(frozen=True)
class IngestProgress:
    """Progress of an ingest.

    Attributes
    ----------
    stage : str
        ``"look"`` (headers, checksums) or ``"load"`` (frames).
    n_done, n_files : int
    n_frames : int
        Loaded so far.
    """

    stage: str
    n_done: int
    n_files: int
    n_frames: int


def ingest(
    store: StoreLike,
    files: str | Path | Iterable[str | Path] = (),
    *,
    arrays: Mapping[str, Any] | None = None,
    confidences: Mapping[str, Any] | None = None,
    format: str = "auto",
    fps: float | str | Path | Mapping[str, float] | None = None,
    keypoints: Sequence[str] | None = None,
    individuals: Sequence[str] | None = None,
    name_by: str = "stem",
    prefer: str | Sequence[str] | None = None,
    keypoint_names: Sequence[str] | None = None,
    ignore_case: bool = False,
    anterior: Sequence[str] | None = None,
    posterior: Sequence[str] | None = None,
    skeleton: str | Sequence[tuple[str, str]] | None = None,
    mapping: Mapping[str, Any] | str | Path | None = None,
    trim: str | None = None,
    downsample: int = 1,
    max_gap: str | int = DEFAULT_MAX_GAP,
    time_unit: str = "auto",
    min_visible: float = 0.0,
    confidence_scale: float | str = 1.0,
    missing_value: float | None = None,
    metadata: str | Path | None = None,
    timestamps: TimesLike | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestSummary:
    """Add recordings to a store, as :func:`kpms_zarr.ingest` describes it, and do no more."""
    raise_all(_wrong_options(format, keypoints, keypoint_names, min_visible, workers))
    names = tuple(keypoint_names or ())
    unit = check_time_unit(time_unit)
    memory = tracks_in_memory(arrays, confidences, names, unit)
    read = ReadOptions(names, read_mapping(mapping), memory, unit)
    table = None if metadata is None else read_metadata(metadata, "`metadata=`")
    if timestamps is not None:
        _check_times(timestamps)
    run = _Ingest(
        os.fspath(store),
        read,
        IngestChoices(
            frame_rates(fps), keypoints, _names(individuals), Scheme(name_by),
            check_preferred(prefer), parse_trim(trim), check_downsample(downsample),
            min_visible, Correction.of(confidence_scale, missing_value), anterior, posterior,
            skeleton, parse_max_gap(max_gap), ignore_case,
        ),
        excluded=[
            option for option in (fps, mapping, metadata, *_files_of(timestamps))
            if isinstance(option, str | Path)
        ],
        skip_bad=skip_bad,
        workers=workers,
        on_progress=on_progress or (lambda progress: None),
    )  # fmt: skip
    if read.mapping is not None and format == "auto":
        format = "table"  # whose columns it describes
    with closing(run):
        run.probe([files] if isinstance(files, str | Path) else list(files), format)
        if dry_run:
            plan, settings = run.plan()
            return run.summary(plan, settings, run.read_files(plan), is_dry=True)
        is_new = not access.exists(store)
        done = _carried_out(run, store, table)
    return done if timestamps is None else _timed(done, store, timestamps, is_new)


def _names(names: str | Sequence[str] | None) -> Sequence[str] | None:
    return [names] if isinstance(names, str) else names or None


def _files_of(timestamps: TimesLike | None) -> list[str | Path]:
    if isinstance(timestamps, str | os.PathLike):
        return [Path(timestamps)]
    return [Path(one) for one in timestamps] if isinstance(timestamps, list | tuple) else []


def _check_times(timestamps: TimesLike) -> None:
    """Refuse what are no tables of times, before anything is done."""
    try:
        sources_of(timestamps)
    except InputError as error:
        raise _of_timestamps(error) from error


def _of_timestamps(error: InputError) -> InputError:
    """The error of :func:`kpms_zarr.timestamps` in the words of who called an ingest."""
    ours = [(one, one.where.replace("`table=`", "`timestamps=`")) for one in error.problems]
    return InputError.of([replace(one, where=where) for one, where in ours])


def _timed(
    done: IngestSummary, store: StoreLike, timestamps: TimesLike, is_new: bool
) -> IngestSummary:
    """Write the times of frames, or take the new sessions back."""
    try:
        found = write_timestamps(store, timestamps)
    except InputError as error:
        if done.added:
            remove(store, done.added)
        if is_new and not access.sessions(store):  # of somebody else
            access.remove(store)
        raise _of_timestamps(error) from error
    said = f"timestamps {found.version} of {counted(len(found.sessions), 'session')}"
    return replace(done, notes=(*done.notes, said, *found.notes))


def _carried_out(run: _Ingest, store: StoreLike, table: SessionTable | None) -> IngestSummary:
    """Write the recordings whose headers were read."""
    while True:
        is_new = not access.exists(store)
        root = access.create(store) if is_new else access.open_group(store, "r+")
        with sessions_lock(root, store, run.say) as lock:
            if not access.exists(store):
                continue  # whoever had made it has taken it back
            try:
                plan, settings = run.plan()
                if table is not None:
                    table = check_rows(root, store, table, plan.named)  # before anything is written
                added = run.load(root, plan, lock)
                write_settings(root, settings)
                if table is not None and access.sessions(root):
                    run.notes += annotate_sessions(root, table)
                    consolidate(root, [layout.KEYPOINTS])
            except BaseException:
                if is_new and not access.sessions(store):
                    access.remove(store)
                raise
        return run.summary(plan, settings, added)


def _wrong_options(
    format: str,
    keypoints: Sequence[str] | None,
    keypoint_names: Sequence[str] | None,
    min_visible: float,
    workers: int | None,
) -> list[Problem]:
    problems = named_twice([tidy(name) for name in keypoints or ()], "`keypoints=`")
    problems += named_twice([tidy(name) for name in keypoint_names or ()], "`keypoint_names=`")
    problems += wrong_format(format)
    if not 0 <= min_visible <= 1:
        problems.append(
            Problem("a share from 0 to 1", str(min_visible), "`min_visible=`", "give e.g. 0.05")
        )
    if workers is not None and workers < 1:
        problems.append(Problem("1 or more", str(workers), "`workers=`", "leave it out, or give 1"))
    return problems


class _Ingest:
    """State of one call of :func:`ingest`."""

    def __init__(
        self,
        store: str,
        read: ReadOptions,
        choice: IngestChoices,
        *,
        excluded: Iterable[str | Path],
        skip_bad: bool,
        workers: int | None,
        on_progress: Callable[[IngestProgress], None],
    ) -> None:
        self.store, self.read, self.choice = store, read, choice
        self.apart = excluded
        self.skip_bad, self.workers, self.on_progress = skip_bad, workers, on_progress
        self.token = uuid.uuid4().hex
        self.probes: list[Probe] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.problems: list[Problem] = []
        self.bad: dict[str, InputError] = {}
        self._n_files = 0
        self.all_trimmed: list[str] = []
        self.n_frames = 0
        self._staff = Workers()

    def say(self, text: str) -> None:
        """Report a note that cannot wait until the end."""
        self.notes.append(text)
        logging.getLogger("kpms_zarr").warning(text)

    def probe(self, files: Sequence[str | Path], format: str) -> None:
        """Read the headers of arrays and of all files, in order of their paths."""
        memory = self.read.memory or {}
        self.probes = [Probe(t.header, hash_of(t), "in memory") for t in memory.values()]
        finder = FileFinder(self.store, self.apart)
        found = finder.find(files) if files or not memory else []
        self.notes += finder.notes
        self.problems += finder.problems
        self._n_files = len(found) + len(finder.bad)
        for path, problem in finder.bad:
            self._failed(path, InputError.of([problem]))
        read = replace(self.read, memory=None)
        tasks = [ProbeTask(one.path, format, read, one.is_named) for one in found]
        probes: dict[int, Probe] = {}
        others: list[Path] = []
        seconds = [seconds_for(one.path) for one in found]
        self._staff = Workers("process", self._n_workers([one.path for one in found]))
        with closing(self._staff.run(probe, tasks, seconds=seconds)) as done:
            for n_done, (index, result) in enumerate(done, start=1):
                path = found[index].path
                if isinstance(result, OtherKindError) and not found[index].is_named:
                    others.append(path)
                    what = result.problems[0].found
                    but = f"but {what}" if what else "left out"
                    self.notes.append(f"{path}: not a tracking file, {but}")
                elif isinstance(result, Exception):
                    self._failed(path, result)
                else:
                    probes[index] = replace(result, below=found[index].below)
                self.on_progress(IngestProgress("look", n_done, len(tasks), 0))
        self.probes += [probes[index] for index in sorted(probes)]
        tracking = {one.path for one in found} - set(others) | {path for path, _ in finder.bad}
        self.problems += finder.nothing_in(tracking)

    def close(self) -> None:
        """End the workers."""
        self._staff.close()

    def _n_workers(self, paths: Sequence[Path]) -> int:
        if self.workers is not None:
            return 0 if self.workers == 1 else min(self.workers, len(paths))
        size = sum(path.stat().st_size for path in paths if path.is_file())
        return min(n_cores(), len(paths), 1 + size // _BYTES_PER_WORKER)

    def _failed(self, path: Path, error: Exception) -> None:
        if isinstance(error, WorkerLost | MemoryError):
            error = _too_much(path, error)
        if not isinstance(error, InputError):
            raise error
        problems = error.problems
        if self.skip_bad:
            self.bad[str(path)] = error
        elif self._n_files > 1:
            self.problems += [
                replace(one, fix=f"{one.fix}; or take the other files: `skip_bad=True`")
                for one in problems
            ]
        else:
            self.problems += problems

    def plan(self) -> tuple[IngestPlan, StudySettings]:
        """Plan the tracks to load, and the settings that the study will have.

        Raises
        ------
        InputError
            With every problem found so far.
        """
        plan = plan_files(self.store, self.probes, self.choice)
        self.notes += plan.notes
        self.warnings = plan.warnings
        for path in dict(plan.bad):
            wrong = [problem for one, problem in plan.bad if one == path]
            self._failed(path, InputError.of(wrong))
        problems = [*self.problems, *plan.problems]
        if not (plan.files or plan.known):
            problems += self._all_bad()
        settings = plan.settings
        try:
            settings = self.choice.settings(settings)
        except InputError as error:
            problems += error.problems if settings.keypoints else ()
        raise_all(problems)
        return plan, settings

    def _all_bad(self) -> list[Problem]:
        """Problems of the files left out, for when there are no others."""
        return [problem for error in self.bad.values() for problem in error.problems]

    def load(self, root: zarr.Group, plan: IngestPlan, lock: Lock) -> list[str]:
        """Write the frames of all planned files; returns the sessions that are there now.

        Raises
        ------
        InputError
            When a file cannot be read to its end; all rows are as they were.
        """
        if not plan.files and not is_unfinished(root):
            return []
        rows = RowAllocator(root, self.store, plan.settings, lock)
        times: TimestampWriter | None = None
        try:
            times = keep_own_times(root, plan.files, replace(self.read, memory=None), self.notes)
            added = self.read_files(plan, rows)
            names = [file.probe.header.path.name for file in plan.files]
            rows.finish({"files": names[:100], "n_files": len(names)})
        except BaseException:
            rows.undo()
            if times is not None:
                times.withdraw()
            raise
        return added

    def _check_any(self, plan: IngestPlan, added: Sequence[str]) -> None:
        """Refuse files of which none became a session."""
        if not (added or plan.known or self.problems):
            self.problems += self._all_bad()
        if plan.files and not (added or plan.known or self.problems):
            where = str(plan.files[0].probe.header.path)
            if self.all_trimmed:
                self.problems.append(
                    Problem(
                        "frames between the two ends of `trim=`",
                        "none in any file",
                        "`trim=`",
                        "give frames of the files, or seconds of the videos, that there are",
                    )
                )
            else:
                self.problems.append(nothing_there(where, "no keypoint in any frame"))

    def read_files(self, plan: IngestPlan, rows: RowAllocator | None = None) -> list[str]:
        """Read all planned files to their ends, into rows or, without any, nowhere.

        Returns the sessions that are there now, or would be.

        Raises
        ------
        InputError
            When a file cannot be read, or none became a session.
        """
        turns = _Turns(rows)
        tasks = [self._task(file, is_dry=rows is None) for file in plan.files]
        staff = self._staff
        if any(t.options.memory for t in tasks) or (rows and access.is_remote(self.store)):
            n = _THREADS if self.workers is None else self.workers
            staff = Workers("thread", 0 if n == 1 else n)
        seconds = [seconds_for(task.header.path) for task in tasks]
        added: dict[int, list[str]] = {}
        # Whatever stops this, nobody writes any more when it has ended.
        with closing(staff.run(load, tasks, turns.rows, seconds, turns.close)) as done:
            for n_done, (index, result) in enumerate(done, start=1):
                turns.has_ended(index)
                file = plan.files[index]
                if isinstance(result, Exception):
                    self._failed(file.probe.header.path, result)
                elif not self.problems:
                    new = self._sessions(file, result)
                    added[index] = [str(session.entries["session"]) for session in new]
                    self.n_frames += sum(session.n_frames for session in new)
                    if rows is not None:
                        rows.add(new)
                self.on_progress(IngestProgress("load", n_done, len(tasks), self.n_frames))
        names = [name for index in sorted(added) for name in added[index]]
        self._check_any(plan, names)
        raise_all(self.problems)
        return names

    def _task(self, file: PlannedFile, *, is_dry: bool) -> LoadTask:
        header = file.probe.header
        is_array = header.format == "array"
        read = self.read if is_array else replace(self.read, memory=None)
        tracks = tuple(TrackTask(t.header.block_key, t.columns, t.window) for t in file.tracks)
        return LoadTask(
            self.store, self.token, header, read, tracks, self.choice.min_visible, file.probe.stamp,
            self.choice.correction, is_dry,
        )  # fmt: skip

    def _sessions(self, file: PlannedFile, loaded: Sequence[LoadedTrack]) -> list[NewSession]:
        by_key = {track.key: track for track in loaded}
        found = []
        for track in file.tracks:
            one = by_key[track.header.block_key]
            if one.readings is not None:
                names = [track.header.keypoints[column] for column in track.columns]
                doubtful = doubts(one.readings, names)
                self.notes += [f"{track.session}: {text}" for text in doubtful]
            if one.row is not None:
                entries = self._entries(file, track, one)
                found.append(NewSession(one.row, one.n_frames, entries))
            elif not one.n_frames:
                self.notes.append(f"{track.session}: no frames left after trimming, left out")
                self.all_trimmed.append(track.session)
            elif not one.visible:
                self.notes.append(
                    f"{track.session}: none of the keypoints is ever tracked, left out"
                )
            else:
                self.notes.append(
                    f"{track.session}: {100 * one.visible:.2g} % of the positions are there, "
                    f"less than `min_visible={self.choice.min_visible:g}`, left out"
                )
        return found

    def _entries(
        self, file: PlannedFile, track: PlannedTrack, loaded: LoadedTrack
    ) -> dict[str, Any]:
        header = file.probe.header
        return {
            "session": track.session,
            "fps": track.fps,
            "individual": track.header.individual,
            "recording": track.recording,
            "source": "" if header.format == "array" else header.path.name,
            "source_hash": track.source_hash,
            "source_format": header.format,
            "video": readable(track.header.video),
            "first_frame": track.first_frame,
            "frame_step": track.frame_step,
            "checksum": loaded.checksum,
            "ingest": self.choice.entry(header, loaded.visible),
        }

    def summary(
        self,
        plan: IngestPlan,
        settings: StudySettings,
        added: Sequence[str],
        *,
        is_dry: bool = False,
    ) -> IngestSummary:
        """Summarise the ingest."""
        before = plan.before
        heading = (settings.anterior, settings.posterior)
        if before.anterior and (before.anterior, before.posterior) != heading:
            self.notes.append(
                f"heading of the study changed to {', '.join(settings.posterior)} -> "
                f"{', '.join(settings.anterior)}; models fitted before keep the old one"
            )
        if not all(heading):
            self.notes.append(
                "no heading yet: give `anterior=` and `posterior=`, here or in `kpms_zarr.pca`"
            )
        recognised = {
            str(probe.header.path): f"{probe.header.format}: {probe.reason}"
            for probe in self.probes
        }
        return IngestSummary(
            self.store,
            tuple(added),
            tuple(plan.known),
            self.n_frames,
            tuple(dict.fromkeys(self.notes)),
            tuple(self.bad),
            recognised,
            is_dry,
            {path: "; ".join(_reason(p, path) for p in e.problems) for path, e in self.bad.items()},
            tuple(self.warnings),
        )


def _reason(problem: Problem, path: str) -> str:
    """Format a problem of a file as one line: what was found, and where in it."""
    place = problem.where.removeprefix(path).strip(" ,:")
    if not place or place == problem.where:
        return problem.found
    return f"{place}: expected {problem.expected}, found {problem.found}"


def _too_much(path: Path, error: Exception) -> InputError:
    """What to say of a file that no process could read to its end."""
    found = str(error) if isinstance(error, WorkerLost) else "that memory runs out when it is read"
    return InputError(
        expected="a file that can be read within the memory and time that are usual for its size",
        found=found,
        where=str(path),
        fix="the file is damaged, most likely: copy or export it again; where it is sound and "
        "memory is short, use fewer `workers`, or `workers=1`, which has no limits",
    )


class _Turns:
    """Turnstile that hands out rows in the order of the files, whichever is loaded first."""

    def __init__(self, rows: RowAllocator | None) -> None:
        self._rows, self._turn = rows, threading.Condition()
        self._next, self._ended, self._is_closed = 0, set[int](), False

    def close(self) -> None:
        """End all waiting, and all work that asks for rows."""
        with self._turn:
            self._is_closed = True
            self._turn.notify_all()

    def rows(self, index: int, n: int) -> list[int]:
        """Get rows for a file; waits until all files before it have theirs, or have ended.

        Raises
        ------
        RuntimeError
            When nobody wants them any more.
        """
        with self._turn:
            if n:
                self._turn.wait_for(lambda: self._is_closed or self._next == index)
            if self._is_closed:
                raise RuntimeError("the ingest has ended")
            if not n and self._next != index:
                return []
            taken = self._rows.take(n) if self._rows else [0] * n
            self._pass_on(index)
            return taken

    def has_ended(self, index: int) -> None:
        """Note that a file has ended: it needs no rows any more."""
        with self._turn:
            self._pass_on(index)

    def _pass_on(self, index: int) -> None:
        self._ended.add(index)
        while self._next in self._ended:
            self._ended.remove(self._next)
            self._next += 1
        self._turn.notify_all()
