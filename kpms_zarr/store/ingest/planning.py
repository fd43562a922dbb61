"""Plan of an ingest: a name, columns and frames for every track; all problems at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.names import match, quoted, tidy, typed
from kpms_zarr.store.errors import InputError, Problem, readable
from kpms_zarr.store.ingest.bodies import (
    Individuals,
    Kinds,
    kinds_of,
    several_bodies,
    with_keypoints,
)
from kpms_zarr.store.ingest.choices import IngestChoices
from kpms_zarr.store.ingest.loading import FrameWindow, Probe
from kpms_zarr.store.ingest.timeline import rate_note, rate_problem
from kpms_zarr.store.ingest.twins import Stored, choose, without_copies
from kpms_zarr.store.parsers.base import FileHeader, TrackHeader, some
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.result_names import result_of
from kpms_zarr.store.study.session_names import (
    Origin,
    Wanted,
    is_same_place,
    names_of,
    session_name,
    split_name,
)
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.study.tables import SessionTable
from kpms_zarr.store.wording import STORE, call, counted, listed, option

DEFAULT_FPS = 30.0
_MOST_KEYPOINTS = 1_000
"""Of an animal: so many times the frames of a chunk still fit the memory of any machine."""


@dataclass(frozen=True)
class PlannedTrack:
    """A track that becomes a session.

    Attributes
    ----------
    session, recording : str
    header : TrackHeader
    source_hash : str
    columns : tuple of int
        Its keypoints that are taken, in the order of the store.
    fps : float
        Frames of the session per second.
    window : FrameWindow
    """

    session: str
    recording: str
    header: TrackHeader
    source_hash: str
    columns: tuple[int, ...]
    fps: float
    window: FrameWindow

    @property
    def first_frame(self) -> int:
        """Frame of the video that is frame 0 of the session."""
        return self.header.first_frame + self.header.frame_step * self.window.start

    @property
    def frame_step(self) -> int:
        """Frames of the video per frame of the session."""
        return self.header.frame_step * self.window.step


@dataclass(frozen=True)
class PlannedFile:
    """A file with at least one track that becomes a session."""

    probe: Probe
    tracks: tuple[PlannedTrack, ...]


@dataclass
class IngestPlan:
    """Plan of an ingest: files to load, notes and problems.

    Attributes
    ----------
    settings : StudySettings
        Of the store: keypoints and space are those of the first file in a new one.
    before : StudySettings
    files : list of PlannedFile
    known : list of str
        Sessions that are there already.
    notes : list of str
    warnings : list of str
        What asks for a choice.
    problems : list of Problem
    bad : list of (Path, Problem)
        Files that do not go with the store, whatever the others are.
    """

    settings: StudySettings
    before: StudySettings
    files: list[PlannedFile] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    bad: list[tuple[Path, Problem]] = field(default_factory=list)

    @property
    def named(self) -> list[Named]:
        """Names by which the new sessions can be found."""
        return [
            Named(track.session, track.recording, file.probe.header.path.name, track.header.video)
            for file in self.files
            for track in file.tracks
        ]


def plan_files(store: StoreLike, probes: Sequence[Probe], choice: IngestChoices) -> IngestPlan:
    """Decide what becomes of every track of some files; the store may not exist yet."""
    planner = _Planner(store, choice)
    probes = planner.one_of_each(probes)
    selected = [(one, planner.select_tracks(one)) for one in probes]
    planner.name([(one, tracks) for one, tracks in selected if tracks])
    planner.match_rates(selected)
    for one, tracks in selected:
        planner.add(one, tracks)
    planner.close()
    return planner.plan


class _Planner:
    def __init__(self, store: StoreLike, choice: IngestChoices) -> None:
        self._choice, self._rates = choice, choice.rates
        self._there = _there(store)
        settings = read_settings(store) if self._there else StudySettings()
        self.plan = IngestPlan(settings, settings)
        self._asked = _meant(choice.keypoints or (), settings)
        self._individuals = Individuals(choice.individuals)
        self._wanted = self._asked or settings.keypoints
        if settings.keypoints and self._wanted != settings.keypoints:
            self.plan.problems.append(
                Problem(
                    f"the keypoints of the store: {', '.join(map(quoted, settings.keypoints))}",
                    option("keypoints", self._wanted),
                    str(store),
                    "leave `keypoints=` out, or make another store",
                )
            )
            self._wanted = settings.keypoints
        self._by_hash = {known.source_hash: name for name, known in self._there.items()}
        self._by_source: dict[str, list[str]] = {}
        for name, known in self._there.items():
            self._by_source.setdefault(known.source, []).append(name)
        self._names: dict[Path, str] = {}
        self._kept: dict[str, list[str]] = {}
        self._assumed: list[str] = []
        self._unlike: dict[tuple[str, ...], list[Path]] = {}
        self._bodies: dict[Kinds, list[Path]] = {}

    def _refuse(self, path: Path, expected: str, found: str, fix: str) -> None:
        """Note that a file does not go with the store, whatever the others are."""
        self.plan.bad.append((path, Problem(expected, found, str(path), fix)))

    def one_of_each(self, probes: Sequence[Probe]) -> list[Probe]:
        """Drop copies and, of several results of one video, those that are not preferred."""
        probes, notes = without_copies(probes)
        self.plan.notes += map(readable, notes)
        arrays = [probe for probe in probes if probe.header.format == "array"]
        files = [probe for probe in probes if probe.header.format != "array"]
        stored = [
            Stored(name, result_of(known.source, known.origin.folders))
            for name, known in self._there.items()
            if known.source
        ]
        choice = choose(
            files,
            [Origin.of(probe.header.path).folders for probe in files],
            [
                all(self._content(probe, t) in self._by_hash for t in probe.header.tracks)
                for probe in files
            ],
            stored,
            self._choice.preferred,
        )
        self.plan.notes += map(readable, choice.notes)
        self.plan.warnings += choice.warnings
        return [*arrays, *choice.probes]

    def select_tracks(self, probe: Probe) -> tuple[TrackHeader, ...]:
        """Individuals of a file that are taken, if the file can be."""
        header = probe.header
        path = header.path
        self.plan.notes += [readable(f"{path.name}: {note}") for note in header.notes]
        names = list(
            dict.fromkeys(n for t in header.tracks for n in (t.individual, t.part, *t.keypoints))
        )
        if odd := [name for name in names if name != readable(name, len(name))]:
            fix = "rename them, or export the file again if it is damaged"
            self._refuse(path, "names of keypoints and individuals that are text", some(odd), fix)
            return ()
        widest = max((len(track.keypoints) for track in header.tracks), default=0)
        if widest > _MOST_KEYPOINTS:
            self._refuse(
                path,
                f"at most {_MOST_KEYPOINTS:,} keypoints of an animal",
                f"{widest:,}",
                "export it with fewer of them, or again if it has not so many: it may be damaged",
            )
            return ()
        if problems := [*_alike(path, header.tracks)]:
            self.plan.problems += problems
            return ()
        self.plan.notes += _tidied(path, names)
        tracks = self._selected(self._named(header))
        self._wanted = self._wanted or (tracks[0].keypoints if tracks else ())
        return tracks

    def name(self, files: Sequence[tuple[Probe, tuple[TrackHeader, ...]]]) -> None:
        """Give every file a name: that of its sessions in the store, if there are any."""
        taken, scheme = set(self._there), self._choice.scheme
        wanted: list[tuple[Path, Wanted]] = []
        for probe, tracks in files:
            path = probe.header.path
            new = tuple(t.key for t in tracks if self._content(probe, t) not in self._by_hash)
            known = [t for t in probe.header.tracks if self._content(probe, t) in self._by_hash]
            if probe.header.format == "array":
                self._names[path] = path.name
                names = Wanted(Origin(path.name), new).sessions(path.name)
                self.plan.problems += [
                    Problem(
                        "a session name of its own for each array",
                        f"the name {name!r}, taken by the store",
                        str(path),
                        "name the array otherwise",
                    )
                    for name in names
                    if name in taken
                ]
                taken |= set(names)
            elif known:
                session = self._by_hash[self._content(probe, known[0])]
                self._names[path] = session.removesuffix(f"_{tidy(known[0].key)}")
            elif (other := self._at_same_place(path)) is not None:
                self._refuse(
                    path,
                    f"the content that session {other!r} was made of",
                    "another content: the file has changed since",
                    f"take the session out first ({call('remove', STORE, other)}), or rename the "
                    "file to have both",
                )
            else:
                wanted.append((path, Wanted(Origin.of(path, probe.below), new)))
        stored = [known.origin for known in self._there.values() if known.source]
        found = names_of([file for _, file in wanted], stored, taken, scheme)
        self._names |= {path: name for (path, _), name in zip(wanted, found, strict=True)}
        self.plan.notes += _longer(found, [scheme.name(file.origin) for _, file in wanted])

    def match_rates(self, files: Sequence[tuple[Probe, tuple[TrackHeader, ...]]]) -> None:
        """Find the rows of a table of frame rates that are about the sessions of the files."""
        if not isinstance(self._rates, SessionTable):
            return
        named = [
            Named(
                session_name(self._names[path], track.key),
                session_name(self._names[path], track.part),
                path.name,
                track.video,
            )
            for path, tracks in ((probe.header.path, tracks) for probe, tracks in files)
            for track in tracks
            if path in self._names
        ]
        try:
            self._rates = self._rates.about(named, is_strict=False)
        except InputError as error:
            self.plan.problems += error.problems
            self._rates = None  # which sessions have no rate is not known then

    def _at_same_place(self, path: Path) -> str | None:
        """Session that came from a file at this place, if any."""
        origin = Origin.of(path)
        alike = self._by_source.get(path.name, ())
        return next((n for n in alike if is_same_place(self._there[n].origin, origin)), None)

    @staticmethod
    def _content(probe: Probe, track: TrackHeader) -> str:
        return hashlib.sha256(f"{probe.file_hash}{track.block_key}".encode()).hexdigest()

    def add(self, probe: Probe, tracks: Sequence[TrackHeader]) -> None:
        """Plan the tracks of one file, if it has a name."""
        if probe.header.path not in self._names:
            return
        planned = [self._planned(probe, track) for track in tracks]
        new = tuple(track for track in planned if track is not None)
        if new and probe.header.path not in dict(self.plan.bad):
            self.plan.files.append(PlannedFile(probe, new))

    def _named(self, header: FileHeader) -> FileHeader:
        """Tidy the names in a header."""
        tracks = (
            replace(
                track,
                key_in_file=track.key,
                individual=tidy(track.individual),
                part=tidy(track.part),
                keypoints=self._called(track.keypoints),
            )
            for track in header.tracks
        )
        return replace(header, tracks=tuple(tracks))

    def _called(self, keypoints: Sequence[str]) -> tuple[str, ...]:
        """Match keypoints of a file to those of the study, where it has them."""
        found = tuple(match(name, self._wanted) or tidy(name) for name in keypoints)
        if not self._choice.ignore_case:
            return found
        known = {name.casefold(): name for name in self._wanted}
        same = tuple(known.get(name.casefold(), name) for name in found)
        return same if len(set(same)) == len(found) else found

    def _selected(self, header: FileHeader) -> tuple[TrackHeader, ...]:
        """Individuals of a file that are taken; of several kinds of bodies none, with a problem."""
        tracks, notes = self._individuals.of(header)
        if self._asked:
            tracks, more = with_keypoints(tracks, self._asked)
            notes = [*notes, *more]
        self.plan.notes += [readable(f"{header.path.name}: {note}") for note in notes]
        kinds = kinds_of(tracks)
        wanted = self._wanted or (kinds[0][0] if kinds else ())
        if len(kinds) > 1 and any(self._is_unlike(found, wanted) for found, _ in kinds):
            self._wanted = wanted
            self._bodies.setdefault(kinds, []).append(header.path)
            return ()
        return tracks

    def _is_unlike(self, keypoints: Sequence[str], wanted: Sequence[str]) -> bool:
        """Whether the keypoints of a track do not go with those of the study."""
        is_exact = not self._there and not self._asked
        return not set(wanted) <= set(keypoints) or (is_exact and not set(keypoints) <= set(wanted))

    def _planned(self, probe: Probe, track: TrackHeader) -> PlannedTrack | None:
        plan, header = self.plan, probe.header
        path = header.path
        self._wanted = self._wanted or track.keypoints
        plan.settings = replace(
            plan.settings, keypoints=self._wanted, space=plan.settings.space or header.space
        )
        name = self._names[path]
        session, recording = session_name(name, track.key), session_name(name, track.part)
        content = self._content(probe, track)
        fps = self._rate(session, track)
        window = self._choice.trim.window(fps, track.frame_step, self._choice.downsample)
        fps /= track.frame_step * window.step
        columns = self._columns(path, track)
        planned = PlannedTrack(session, recording, track, content, columns, fps, window)
        if content in self._by_hash:
            self._is_known(planned, self._by_hash[content], path)
            return None
        if self._is_untimely(probe, planned):
            return None
        if header.space != plan.settings.space:
            has, found = plan.settings.space, header.space
            self._refuse(
                path,
                f"{len(has)}-D positions ({', '.join(has)}) like the other sessions",
                f"{len(found)}-D positions",
                "put 2-D and 3-D recordings into different stores",
            )
            return None
        return planned

    def _is_untimely(self, probe: Probe, planned: PlannedTrack) -> bool:
        """Whether the times of a file are implausible; adds a problem then."""
        path, track = probe.header.path, planned.header
        fps = planned.fps * planned.frame_step
        problem = self._choice.max_gap.problem(path, track, fps, planned.window)
        if self._rate_given(planned.session) is None:
            problem = rate_problem(path, fps) or problem
        elif note := rate_note(fps, track.fps, planned.session):
            self.plan.notes.append(note)
        if problem is not None and (path, problem) not in self.plan.bad:
            self.plan.bad.append((path, problem))
        return problem is not None

    def _is_known(self, planned: PlannedTrack, name: str, path: Path) -> None:
        self.plan.known.append(name)
        known = self._there[name]
        is_other = known.source != path.name if known.source else name != planned.session
        if is_other:
            self.plan.notes.append(f"{path.name}: same content as session {name!r}")
        if known.session.fps != planned.fps:
            self._keep(f"frame rate of {known.session.fps:g} frames per second", name)
        if (known.first_frame, known.frame_step) != (planned.first_frame, planned.frame_step):
            self._keep("frames: they were trimmed, downsampled or numbered otherwise", name)

    def _keep(self, what: str, name: str) -> None:
        self._kept.setdefault(what, []).append(name)

    def _rate(self, session: str, track: TrackHeader) -> float:
        """Frames of the video per second."""
        given = self._rate_given(session)
        if given is not None:
            return given
        if track.fps is not None:
            return track.fps
        self._assumed.append(session)
        return DEFAULT_FPS

    def _rate_given(self, session: str) -> float | None:
        """Frames of the video per second, as a person says."""
        if not isinstance(self._rates, SessionTable):
            return self._rates
        row = self._rates.row_of(session)
        return None if row is None else float(self._rates.rows[row]["fps"])

    def _columns(self, path: Path, track: TrackHeader) -> tuple[int, ...]:
        found, wanted = track.keypoints, self._wanted
        extra = [name for name in found if name not in wanted]
        if self._is_unlike(found, wanted):
            files = self._unlike.setdefault(found, [])
            if path not in files:
                files.append(path)
            return ()
        if extra and not self._asked:
            self.plan.notes.append(
                f"{path.name}: keypoints the store has not, left out: {some(extra)}"
            )
        return tuple(found.index(name) for name in wanted)

    def close(self) -> None:
        """Add the problems that show only after the last file."""
        notes = self.plan.notes
        self.plan.problems += [
            _other_columns(
                files,
                found,
                self._wanted,
                is_in_store=bool(self._there),
                is_case_told=self._choice.ignore_case,
            )
            for found, files in self._unlike.items()
        ]
        self.plan.problems += [
            several_bodies(files, kinds, self._wanted) for kinds, files in self._bodies.items()
        ]
        self.plan.problems += self._individuals.problems()
        for what, names in self._kept.items():
            notes.append(f"{len(names)} known sessions keep their {what}")
        new = {track.session for file in self.plan.files for track in file.tracks}
        assumed = [name for name in self._assumed if name in new]
        if assumed and isinstance(self._rates, SessionTable):
            self.plan.problems.append(
                Problem(
                    "a frame rate for every session",
                    f"none for {listed(assumed)}",
                    option("fps", self._rates.path),
                    "add them to the table, by session, recording or file",
                )
            )
        elif assumed:
            notes.append(
                f"{counted(len(assumed), 'file')} without a frame rate: taken as {DEFAULT_FPS:g} "
                "frames per second (`fps=`)"
            )
        if isinstance(self._rates, SessionTable):
            notes += self._rates.notes


@dataclass(frozen=True)
class _Known:
    """Entry of a session that is in the store already."""

    session: Session
    source_hash: str
    source: str
    origin: Origin
    first_frame: int
    frame_step: int


def _there(store: StoreLike) -> dict[str, _Known]:
    """Entries of the sessions of a store, by name."""
    if not access.exists(store):
        return {}
    root = access.open_group(store)
    group = access.keypoints_group(root)
    if group is None:
        return {}
    names = ("source_hash", "source", "ingest", "first_frame", "frame_step")
    columns = {name: np.asarray(group[name][:]) for name in names if name in group}  # type: ignore[index]

    def value(name: str, session: Session, default: Any) -> Any:
        return columns[name][session.index] if name in columns else default

    return {
        session.name: _Known(
            session,
            str(value("source_hash", session, "")),
            source := str(value("source", session, "")),
            Origin(*_split(source, str(value("ingest", session, "")))),
            int(value("first_frame", session, 0)),
            int(value("frame_step", session, 1)),
        )
        for session in access.sessions(root)
    }


def _split(source: str, entry: str) -> tuple[str, tuple[str, ...], str]:
    """Stem, folders and suffix of the file that a session came from."""
    stem, suffix = split_name(source) if source else ("", "")
    try:
        folders = json.loads(entry).get("folders", [])
    except (ValueError, AttributeError):
        folders = []
    return stem, tuple(map(str, folders)), suffix


def _longer(names: Sequence[str], simple: Sequence[str]) -> list[str]:
    """Notes on names that are longer than they would be if no others clashed with them."""
    by_name: dict[str, list[str]] = {}
    for name, short in zip(names, simple, strict=True):
        if name != short:
            by_name.setdefault(short, []).append(name)
    return [
        readable(
            f"{len(found)} files would be sessions of the same name {short!r} as others: named "
            f"{some(found, 10)} (`name_by=`)"
        )
        for short, found in by_name.items()
    ]


def _other_columns(
    files: list[Path],
    found: tuple[str, ...],
    wanted: tuple[str, ...],
    *,
    is_in_store: bool,
    is_case_told: bool,
) -> Problem:
    """Problem of files with other keypoints, those with the same ones together."""
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    # Where only the case differs and that was said already, several names are one without it.
    folded = {} if is_case_told else {name.casefold(): name for name in extra}
    case = {name: folded[name.casefold()] for name in missing if name.casefold() in folded}
    missing = [name for name in missing if name not in case]
    extra = [name for name in extra if name not in case.values()]
    pairs = [f"{typed(other)} for {typed(name)}" for name, other in case.items()]
    differences = [f"other upper and lower case ({listed(pairs)})"] if case else []
    differences += [f"without {listed(map(typed, missing))}"] if missing else []
    differences += [f"with {listed(map(typed, extra))} besides"] if extra else []
    common = [name for name in wanted if name not in missing]
    more = f" and {len(files) - 1} more with the same keypoints" if len(files) > 1 else ""
    return Problem(
        f"the keypoints {listed(map(typed, wanted))}",
        " and ".join(differences),
        f"{files[0]}{more}",
        " and ".join(_ways_out(case, missing, extra, common, is_in_store)),
    )


def _ways_out(
    case: dict[str, str],
    missing: list[str],
    extra: list[str],
    common: list[str],
    is_in_store: bool,
) -> list[str]:
    """Ways to make files with other keypoints fit."""
    found = ["add `ignore_case=True`"] if case else []
    if (missing or (extra and not is_in_store)) and common:
        where = "make a new store of all files with" if is_in_store else "take"
        found.append(f"{where} the keypoints that all files have: {option('keypoints', common)}")
    return found or ["put recordings with different keypoints into different stores"]


def _meant(keypoints: Sequence[str], settings: StudySettings) -> tuple[str, ...]:
    """Match requested keypoints to the names that the store has."""
    return tuple(match(name, settings.keypoints) or tidy(name) for name in keypoints)


def _tidied(path: Path, names: list[str]) -> list[str]:
    """A note on names that are stored otherwise than they are in the file."""
    changed = [f"{name!r} is {typed(tidy(name))}" for name in names if tidy(name) != name]
    if not changed:
        return []
    return [readable(f"{path.name}: blanks and accents in names made alike: {listed(changed)}")]


def _alike(path: Path, tracks: Sequence[TrackHeader]) -> Iterator[Problem]:
    """Problem of names that are empty, or the same, without the blanks around them."""
    for names, what in (
        *((track.keypoints, "keypoint") for track in tracks[:1]),
        (tuple(track.key for track in tracks if track.key), "individual"),
    ):
        by_name: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            by_name.setdefault(tidy(name), []).append(name)
        wrong = [same for name, same in by_name.items() if len(same) > 1 or not name]
        if wrong:
            yield Problem(
                f"a name of its own for every {what}, blanks around it left out",
                ", ".join(" and ".join(map(repr, same)) for same in wrong),
                str(path),
                "rename them in the file",
            )


def raise_all(problems: Sequence[Problem]) -> None:
    """Raise all problems, each once, as an InputError, if there are any."""
    if problems:
        raise InputError.of(dict.fromkeys(problems))
