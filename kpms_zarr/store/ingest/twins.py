"""Twins: copies, formats, filtered and raw results of one video under several names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kpms_zarr.store.errors import InputError, readable
from kpms_zarr.store.ingest.loading import Probe
from kpms_zarr.store.study.result_names import _FILTERED, Result, result_of
from kpms_zarr.store.study.session_names import split_name
from kpms_zarr.store.wording import option

_SUFFIXES = ("csv", "h5", "hdf5", "slp", "nwb", "nc", "mat", "json", "parquet")
WORDS = ("filtered", "raw", *_SUFFIXES)
"""What can be preferred."""


def cleanest(paths: Sequence[Path]) -> Path:
    """Choose among files of the same content: none with the marks of a copy, then the shortest."""

    def key(path: Path) -> tuple[bool, int, int, str]:
        result = result_of(path.name)
        is_copy = result.without_copy != result.stem
        return is_copy, len(path.name), len(str(path)), str(path)

    return min(paths, key=key)


def check_preferred(words: Sequence[str] | str | None) -> tuple[str, ...]:
    """Check the preference among results of one video; an InputError for unknown words."""
    words = [words] if isinstance(words, str) else list(words or ())
    wrong = [word for word in words if word.lower().strip(".") not in WORDS]
    if wrong:
        raise InputError(
            expected=f"filtered, raw, or the suffix of a format ({', '.join(_SUFFIXES)})",
            found=", ".join(map(repr, wrong)),
            where="`prefer=`",
            fix="write for example `prefer='filtered'`, or name the files",
        )
    return tuple(word.lower().strip(".") for word in words)


@dataclass(frozen=True)
class Stored:
    """A session that is there already: its name, and the file that it is from."""

    session: str
    result: Result


@dataclass
class TwinChoice:
    """Choice among results of the same videos.

    Attributes
    ----------
    probes : list of Probe
        What is taken.
    notes, warnings : list of str
    """

    probes: list[Probe]
    notes: list[str]
    warnings: list[str]


def without_copies(probes: Sequence[Probe]) -> tuple[list[Probe], list[str]]:
    """Keep one of the files of the same content, whatever their order; note the others."""
    by_content: dict[str, list[Path]] = {}
    for probe in probes:
        by_content.setdefault(probe.file_hash, []).append(probe.header.path)
    kept = {content: cleanest(paths) for content, paths in by_content.items()}
    notes = [
        f"{path}: the same content as {kept[content]}, left out"
        for content, paths in by_content.items()
        for path in paths
        if path != kept[content]
    ]
    return [probe for probe in probes if probe.header.path == kept[probe.file_hash]], notes


def choose(
    probes: Sequence[Probe],
    folders: Sequence[tuple[str, ...]],
    is_known: Sequence[bool],
    stored: Sequence[Stored],
    preferred: Sequence[str],
) -> TwinChoice:
    """Choose among several results of one video, as far as a person said how.

    Parameters
    ----------
    probes : sequence of Probe
    folders : sequence of tuple of str
        Of each: names of its folders, the nearest first.
    is_known : sequence of bool
        Whether all of it is in the store.
    stored : sequence of Stored
    preferred : sequence of str
        Of `WORDS`, the most important first.
    """
    results = [result_of(x.header.path.name, f) for x, f in zip(probes, folders, strict=True)]
    everything = [*results, *(one.result for one in stored)]
    gone: set[int] = set()
    notes: list[str] = []
    doubled: list[list[str]] = []
    choices: set[str] = set()
    for group in _groups(everything, probes):
        members = [n for n in group if n < len(probes)]
        kept = members
        for word in preferred:
            kept = [n for n in kept if _is_such(results[n], word)] or kept
        why = f"another result of the same video is taken ({option('prefer', list(preferred))})"
        dropped = {n: why for n in members if n not in kept}
        dropped |= _in_other_formats(kept, probes, results, is_known)
        dropped = {n: why for n, why in dropped.items() if not is_known[n]}
        notes += [f"{probes[n].header.path}: left out, {why}" for n, why in dropped.items()]
        gone |= dropped.keys()
        new = [n for n in members if n not in gone and not is_known[n]]
        there = [n for n in group if n >= len(probes)]
        sessions = sorted({stored[n - len(probes)].session for n in there})
        if new and len(new) + len(sessions) > 1:
            names = [str(probes[n].header.path) for n in new]
            doubled.append([*names, *(f"the session {name!r}" for name in sessions)])
            choices |= _choices([everything[n] for n in (*new, *there)])
    warnings = [_warning(doubled, sorted(choices))] if doubled else []
    return TwinChoice([x for n, x in enumerate(probes) if n not in gone], notes, warnings)


def _is_such(result: Result, word: str) -> bool:
    if word in ("filtered", "raw"):
        return result.is_filtered is (word == "filtered")
    return result.suffix.partition(".")[0] == word


def _in_other_formats(
    candidates: Sequence[int],
    probes: Sequence[Probe],
    results: Sequence[Result],
    is_known: Sequence[bool],
) -> dict[int, str]:
    """Choose between the csv and the h5 file of one DeepLabCut result, and say why."""
    by_name: dict[str, list[int]] = {}
    for n in candidates:
        if probes[n].header.format in _OF_DEEPLABCUT:
            by_name.setdefault(results[n].stem, []).append(n)
    dropped = {}
    for same in by_name.values():
        best = max(same, key=lambda n: (is_known[n], probes[n].header.format == "dlc_h5", -n))
        for n in same:
            if n != best and results[n].folder == results[best].folder:
                suffix = results[n].suffix
                dropped[n] = (
                    f"the same analysis in another format is taken ({option('prefer', suffix)})"
                )
    return dropped


_OF_DEEPLABCUT = ("dlc_csv", "dlc_h5")


def _choices(results: Sequence[Result]) -> set[str]:
    """Words of the preference that choose between results."""
    found: set[str] = set()
    if len({result.is_filtered for result in results}) > 1:
        found |= {"filtered", "raw"}
    suffixes = {result.suffix for result in results}
    return found | (suffixes & set(_SUFFIXES) if len(suffixes) > 1 else set())


def _warning(doubled: Sequence[Sequence[str]], choices: Sequence[str]) -> str:
    listed = "; ".join(" and ".join(names) for names in doubled[:_MOST_TOLD])
    more = f"; and {len(doubled) - _MOST_TOLD} more" if len(doubled) > _MOST_TOLD else ""
    of = "1 video has" if len(doubled) == 1 else f"{len(doubled)} videos have"
    options = [option("prefer", word) for word in choices]
    return readable(
        f"{of} several results, of which each counts as a recording of its own: {listed}{more}. "
        f"Choose one: {', '.join([*options, 'or name the files'])}"
    )


_MOST_TOLD = 20


# ------------------------------------------------------------------ what is of one video


def _groups(results: Sequence[Result], probes: Sequence[Probe]) -> list[list[int]]:
    """Numbers of results that are of the same video, in order; those alone are a group, too."""
    leader = list(range(len(results)))

    def first(n: int) -> int:
        while leader[n] != n:
            n = leader[n]
        return n

    def join(numbers: Iterable[int]) -> None:
        numbers = sorted({first(n) for n in numbers})
        for n in numbers[1:]:
            leader[n] = numbers[0]

    for same in _by_key(results, probes):
        join(same)
    for pair in _filtered_elsewhere(results, first):
        join(pair)
    groups: dict[int, list[int]] = {}
    for n in range(len(results)):
        groups.setdefault(first(n), []).append(n)
    return list(groups.values())


def _by_key(results: Sequence[Result], probes: Sequence[Probe]) -> list[list[int]]:
    """Results in one folder that have the name of a video in common, or the video itself."""
    bare = {(r.folder, r.video) for r in results if r.stem == r.without_copy}
    by_key: dict[tuple[object, ...], list[int]] = {}
    for n, result in enumerate(results):
        place = (result.folder, result.video)
        if not result.folder:
            continue
        # (1), (2) and (3) without one that has no number are counted, not copied.
        is_counted = result.stem != result.without_copy and place not in bare
        by_key.setdefault((*place, result.stem if is_counted else ""), []).append(n)
    for n, probe in enumerate(probes):
        videos = {_stem_of_video(track.video) for track in probe.header.tracks} - {""}
        for video in videos | {results[n].video}:
            by_key.setdefault(("video", results[n].folder, video), []).append(n)
    return [
        same
        for key, same in by_key.items()
        if key[0] != "video" or _is_one_of_each(same, results, probes)
    ]


def _is_one_of_each(
    same: Sequence[int], results: Sequence[Result], probes: Sequence[Probe]
) -> bool:
    """Whether files of one tracker on a video are of different animals: these are no twins."""
    names = {(probes[n].header.format, results[n].video) for n in same}
    formats = {format for format, _ in names}
    return 1 < len(formats) == len(names)


def _stem_of_video(video: str) -> str:
    name = re.split(r"[\\/]", video)[-1]
    return split_name(name)[0].lower()


def _filtered_elsewhere(
    results: Sequence[Result], first: Callable[[int], int]
) -> list[tuple[int, int]]:
    """Pair filtered results with the raw ones in another folder, where there is no doubt."""
    sizes = Counter(first(n) for n in range(len(results)))
    alone = [n for n in range(len(results)) if sizes[first(n)] == 1]
    raw: dict[str, list[int]] = {}
    for n in alone:
        if not results[n].is_filtered:
            raw.setdefault(results[n].without_copy.lower(), []).append(n)
    pairs = []
    for n in alone:
        name = _FILTERED.sub("", results[n].without_copy).lower()
        if results[n].is_filtered and len(raw.get(name, ())) == 1:
            pairs.append((n, raw[name][0]))
    return pairs
