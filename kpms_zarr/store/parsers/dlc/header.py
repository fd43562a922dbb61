"""The column layout that DeepLabCut csv and h5 files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kpms_zarr.store.errors import InputError, OtherKindError, Problem
from kpms_zarr.store.parsers.appearing import only_appearing
from kpms_zarr.store.parsers.base import (
    FileHeader,
    PoseBlock,
    TrackHeader,
    float32,
    some,
    without_confidence,
)
from kpms_zarr.store.parsers.time.clock import Timing

SPACE = ("x", "y", "z")
LIKELIHOOD = "likelihood"
COORDS = frozenset((*SPACE, LIKELIHOOD))

# DeepLabCut files body parts that belong to no animal (a corner of the arena, an object)
# under an individual of this name.
UNIQUE_BODYPARTS = "single"

# Frames looked at in one go while searching for individuals that never appear.
SCAN_FRAMES = 4096

_LEVELS = {
    2: ("bodyparts", "coords"),
    3: ("scorer", "bodyparts", "coords"),
    4: ("scorer", "individuals", "bodyparts", "coords"),
}

# individual -> body part -> coordinate -> column number in the file
_Tree = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True)
class Layout:
    """Layout of columns: where the numbers of every individual are.

    Attributes
    ----------
    space : tuple of str
        ``("x", "y")`` or ``("x", "y", "z")``.
    tracks : tuple of TrackHeader
        Individuals in file order.
    used : ndarray, (column,) int
        Numbers of the data columns that are read, increasing.
    position : dict of str to ndarray, (keypoint, space) int
        By individual; indices into `used`.
    confidence : dict of str to ndarray, (keypoint,) int
        By individual; indices into `used`; empty without likelihood.
    notes : tuple of str
    """

    space: tuple[str, ...]
    tracks: tuple[TrackHeader, ...]
    used: np.ndarray
    position: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def block(self, start: int, values: np.ndarray) -> PoseBlock:
        """Pose block of consecutive frames.

        Parameters
        ----------
        start : int
            Index of the first frame.
        values : ndarray, (frame, column) float64 or float32
            One column for every entry of `used`. Infinite values count as missing; there are none
            in float32 ones.
        """
        numbers = values if values.dtype == np.float32 else float32(values)
        return PoseBlock(
            start=start,
            position={name: numbers[:, where] for name, where in self.position.items()},
            confidence={name: numbers[:, where] for name, where in self.confidence.items()},
        )

    def header(self, format: str, path: Path, timing: Timing) -> FileHeader:
        """Convert to the header that all formats share."""
        return FileHeader(
            format=format,
            path=path,
            space=self.space,
            tracks=tuple(timing.of(track) for track in self.tracks),
            has_confidence=bool(self.confidence),
            notes=(*self.notes, *timing.notes),
        )

    def of(self, names: Sequence[str]) -> Layout:
        """Layout with some of the individuals only."""
        kept = [{n: at[n] for n in names if n in at} for at in (self.position, self.confidence)]
        used = np.unique(np.concatenate([at.ravel() for some in kept for at in some.values()]))
        position, confidence = (
            {name: np.searchsorted(used, at) for name, at in some.items()} for some in kept
        )
        return replace(
            self,
            tracks=tuple(track for track in self.tracks if track.individual in names),
            used=self.used[used],
            position=position,
            confidence=confidence,
        )

    def only(self, tracks: Sequence[TrackHeader], notes: Sequence[str]) -> Layout:
        """Layout of some individuals, with notes. `used` stays, so the indices stay right."""
        left = {track.individual for track in tracks}
        return replace(
            self,
            tracks=tuple(tracks),
            position={name: at for name, at in self.position.items() if name in left},
            confidence={name: at for name, at in self.confidence.items() if name in left},
            notes=(*self.notes, *notes),
        )


def lay_out(names: Sequence[str], columns: Sequence[tuple[str, ...]], where: str) -> Layout:
    """Find every individual's columns from the header.

    Parameters
    ----------
    names : sequence of str
        Names of the header levels; where they are blank, the usual order is assumed.
    columns : sequence of tuple of str
        One entry per data column, one item per header level.
    where : str
        Named in errors.

    Raises
    ------
    InputError
        Unknown header levels, body parts without x or y, duplicated columns, no animal.
    """
    levels = header_levels(names, where)
    tree, doubled, ignored = _grow(levels, columns)
    notes = []
    if "individuals" in levels and tree.pop(UNIQUE_BODYPARTS, None) is not None:
        notes.append(
            f"left out `{UNIQUE_BODYPARTS}`: DeepLabCut's unique body parts, not an animal"
        )
    if ignored:
        notes.append(f"left out columns that are no coordinates: {some(ignored)}")
    space = (
        SPACE if any("z" in at for parts in tree.values() for at in parts.values()) else SPACE[:2]
    )
    problems = [*_doubled(doubled, where), *_incomplete(tree, space, where)]
    if not tree:
        problems.append(_no_animal(where))
    if problems:
        raise InputError.of(problems)
    lacking = [_label(*key) for key in _parts(tree) if LIKELIHOOD not in tree[key[0]][key[1]]]
    notes += without_confidence(LIKELIHOOD, lacking, len(_parts(tree)))
    return _index(tree, space, has_confidence=not lacking, notes=tuple(notes))


def header_levels(names: Sequence[str], where: str) -> dict[str, int]:
    """Position of scorer, individuals (multi-animal), bodyparts and coords in the header."""
    known = [str(name).strip().lower() for name in names]
    if {"bodyparts", "coords"} <= set(known):
        return {name: number for number, name in enumerate(known)}
    if len(known) not in _LEVELS:
        raise InputError(
            expected="header levels scorer, (individuals,) bodyparts, coords",
            found=f"{len(known)} header level(s): {', '.join(known)}",
            where=where,
            fix="export the tracking again with DeepLabCut, or check that this is its result file",
        )
    return {name: number for number, name in enumerate(_LEVELS[len(known)])}


def with_repeated_names(columns: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Take the numbers off that pandas adds to repeated names: nose, nose.1, nose.2.

    It does so in the first of the header rows that it reads; where each name stands once with x
    and y as it is, nothing is taken off.
    """
    last: dict[int, tuple[str, int]] = {}
    plain = []
    for column in columns:
        names = list(column)
        for level, name in enumerate(column[:-1]):
            before, count = last.get(level, ("", 0))
            count = count + 1 if before and name == f"{before}.{count + 1}" else 0
            last[level] = (before if count else name, count)
            names[level] = last[level][0]
        plain.append(tuple(names))
    raw_parts = {column[:-1] for column in columns}
    is_repeated = len(raw_parts) == len(columns) and len({c[:-1] for c in plain}) < len(columns)
    return plain if is_repeated and len(set(plain)) == len(plain) else list(columns)


def of_appearing(layout: Layout, blocks: Callable[[], Iterator[PoseBlock]], where: str) -> Layout:
    """Leave out individuals without a single coordinate in the whole file.

    DeepLabCut writes a slot for every animal of a project, used in this video or not.
    The file is read only for multi-animal layouts, and only until all have been seen.
    """
    return layout.only(*only_appearing(layout.tracks, blocks, where))


def refuse_labelled_frames(first_index: str, n_index: int, where: str) -> None:
    """Refuse a file of hand-labelled training frames: they are not consecutive in time."""
    if n_index == 1 and not first_index.replace("\\", "/").startswith("labeled-data"):
        return
    raise OtherKindError(
        expected="predictions for all frames of a video",
        found="frames labelled by hand (their index names images of `labeled-data`)",
        where=where,
        fix="use the file that DeepLabCut's analyze_videos wrote next to the video",
    )


def _grow(
    levels: dict[str, int], columns: Sequence[tuple[str, ...]]
) -> tuple[_Tree, list[str], list[str]]:
    """Sort the columns into individuals and body parts; duplicates and others apart."""
    tree: _Tree = {}
    doubled: list[str] = []
    ignored: list[str] = []
    for number, column in enumerate(columns):
        individual = column[levels["individuals"]] if "individuals" in levels else ""
        bodypart = column[levels["bodyparts"]]
        coord = column[levels["coords"]].strip().lower()
        if coord not in COORDS:
            # Post-processing tools add their own, such as variances.
            if column[levels["coords"]] not in ignored:
                ignored.append(column[levels["coords"]])
            continue
        at = tree.setdefault(individual, {}).setdefault(bodypart, {})
        if coord in at:
            doubled.append(f"{_label(individual, bodypart)} {coord}")
        at.setdefault(coord, number)
    return tree, doubled, ignored


def _index(
    tree: _Tree, space: tuple[str, ...], has_confidence: bool, notes: tuple[str, ...]
) -> Layout:
    wanted = (*space, LIKELIHOOD) if has_confidence else space
    used = np.array(
        sorted(at[c] for parts in tree.values() for at in parts.values() for c in wanted), dtype=int
    )
    position, confidence = {}, {}
    for individual, parts in tree.items():
        columns = [[at[c] for c in wanted] for at in parts.values()]
        within = np.searchsorted(used, np.array(columns, dtype=int))
        position[individual] = within[:, : len(space)]
        if has_confidence:
            confidence[individual] = within[:, -1]
    tracks = tuple(TrackHeader(individual, tuple(parts)) for individual, parts in tree.items())
    return Layout(space, tracks, used, position, confidence, notes)


def _parts(tree: _Tree) -> list[tuple[str, str]]:
    return [(individual, part) for individual, parts in tree.items() for part in parts]


def _label(individual: str, bodypart: str) -> str:
    return f"{individual}: {bodypart}" if individual else bodypart


def _doubled(names: list[str], where: str) -> Iterator[Problem]:
    if names:
        yield Problem(
            expected="one column for every coordinate of a body part",
            found=f"duplicated columns {some(names)}",
            where=where,
            fix="give body parts different names, or keep the columns of one scorer only",
        )


def _incomplete(tree: _Tree, space: tuple[str, ...], where: str) -> Iterator[Problem]:
    lacking = [
        f"{_label(individual, part)} without {coord}"
        for individual, part in _parts(tree)
        for coord in space
        if coord not in tree[individual][part]
    ]
    if lacking:
        yield Problem(
            expected=f"columns {', '.join(space)} for every body part",
            found=some(lacking),
            where=where,
            fix="export the file again with all its columns, or remove the body part",
        )


def _no_animal(where: str) -> Problem:
    return Problem(
        expected="at least one individual with body parts and coordinates",
        found=f"none (`{UNIQUE_BODYPARTS}` holds unique body parts and does not count)",
        where=where,
        fix="check that this is the result of a DeepLabCut analysis",
    )
