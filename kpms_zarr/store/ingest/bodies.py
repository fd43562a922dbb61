"""Choice of the individuals that become sessions: those asked for, of one kind of body."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from kpms_zarr.store.errors import Problem, readable
from kpms_zarr.store.parsers.base import FileHeader, TrackHeader, some
from kpms_zarr.store.wording import option


class Individuals:
    """The individuals that a person asks for, by name or pattern.

    A pattern is compared with the name of the individual, of the part (camera, pose object) that it
    is in, and with both together (``part_individual``).

    Parameters
    ----------
    patterns : sequence of str, optional
        None = all individuals.
    """

    def __init__(self, patterns: Sequence[str] | None) -> None:
        self._patterns = None if patterns is None else tuple(patterns)
        self._used: set[str] = set()
        self._seen: dict[str, None] = {}

    def of(self, header: FileHeader) -> tuple[tuple[TrackHeader, ...], list[str]]:
        """Tracks of a file that are asked for, and a note on the others."""
        if self._patterns is None:
            return header.tracks, []
        taken: list[TrackHeader] = []
        others: list[TrackHeader] = []
        for track in header.tracks:
            names = {track.individual, track.part, track.key}
            self._seen |= dict.fromkeys(name for name in sorted(names) if name)
            hits = {p for p in self._patterns if any(_matches(p, name) for name in names)}
            self._used |= hits
            (taken if hits else others).append(track)
        note = f"individuals not asked for, left out: {_named(others)}"
        return tuple(taken), [note] if others else []

    def problems(self) -> list[Problem]:
        """Patterns that no individual of any file matches."""
        lost = [pattern for pattern in self._patterns or () if pattern not in self._used]
        if not lost:
            return []
        there = some([readable(name) for name in self._seen], 20)
        return [
            Problem(
                f"individuals or parts that there are: {there}"
                if there
                else "files that name their individuals",
                f"nothing for {some(lost)}",
                "`individuals=`",
                "name those that there are, or a pattern such as 'mouse*'"
                if there
                else "leave `individuals=` out",
            )
        ]


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or fnmatchcase(name, pattern)


def _named(tracks: Sequence[TrackHeader]) -> str:
    return some([readable(track.key) or "one without a name" for track in tracks])


def with_keypoints(
    tracks: tuple[TrackHeader, ...], keypoints: Sequence[str]
) -> tuple[tuple[TrackHeader, ...], list[str]]:
    """Tracks that have all keypoints asked for, and a note on the others; all where none has."""
    fitting = tuple(track for track in tracks if set(keypoints) <= set(track.keypoints))
    others = [track for track in tracks if track not in fitting]
    if not (fitting and others):
        return tracks, []
    return fitting, [f"individuals without the keypoints asked for, left out: {_named(others)}"]


Kinds = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
"""Of the bodies in a file: their keypoints, and the names to choose them by."""


def kinds_of(tracks: Sequence[TrackHeader]) -> Kinds:
    """Kinds of bodies among the tracks of a file, in its order."""
    by_kind: dict[tuple[str, ...], list[TrackHeader]] = {}
    for track in tracks:
        by_kind.setdefault(track.keypoints, []).append(track)
    kinds = []
    for keypoints, same in by_kind.items():
        others = [track for track in tracks if track.keypoints != keypoints]
        names = [_telling(track, others) for track in same]
        kinds.append((keypoints, tuple(dict.fromkeys(names))))
    return tuple(kinds)


def _telling(track: TrackHeader, others: Sequence[TrackHeader]) -> str:
    """The shortest name that no other kind of body goes by."""
    taken = {name for other in others for name in (other.individual, other.part, other.key)}
    return next((n for n in (track.individual, track.part) if n and n not in taken), track.key)


def several_bodies(files: Sequence[Path], kinds: Kinds, wanted: Sequence[str]) -> Problem:
    """Problem of files with bodies of several kinds."""
    kinds = tuple(sorted(kinds, key=lambda kind: kind[0] != tuple(wanted)))
    found = "; ".join(f"{some(names)} with {some(keypoints)}" for keypoints, names in kinds)
    options = " or ".join(option("individuals", names) for _, names in kinds)
    more = f" and {len(files) - 1} more with the same bodies" if len(files) > 1 else ""
    return Problem(
        "one kind of body in a study",
        f"individuals with different keypoints: {found}",
        f"{files[0]}{more}",
        f"take one kind: {options}; or {option('keypoints', kinds[0][0])}, which leaves out "
        "individuals that lack one of them",
    )
