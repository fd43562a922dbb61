"""Which columns of a table hold what: said by a person, or plain from their names."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.parsers.base import shortened, some, without_confidence

_SPACE = ("x", "y", "z")
_COORDS = (*_SPACE, "confidence")
_SCORES = ("confidence", "likelihood", "score", "conf", "p")

# One of these says how the table is laid out.
_KINDS = ("pattern", "keypoints", "keypoint")
_ROW_KEYS = ("frame", "time", "individual", "keypoint")
_COLUMN_KEYS = (*_ROW_KEYS, *_COORDS)
_KEYS = {
    "pattern": ("pattern", "coords", "frame", "time", "individual", "missing"),
    "keypoints": ("keypoints", "frame", "time", "individual", "missing"),
    "keypoint": ("keypoint", *_COORDS, "frame", "time", "individual", "missing"),
}
_EXAMPLES = (
    '{"pattern": "{keypoint}_{coord}", "frame": "frame"} or '
    '{"frame": "frame", "keypoint": "keypoint", "x": "x", "y": "y"}'
)

_FRAMES = ("frame", "frames", "frame_number", "frame_index", "frame_idx", "frame_id")
_UNITS = {
    "s": ("s", "sec", "secs", "seconds"),
    "ms": ("ms", "msec", "msecs", "millis", "milliseconds"),
    "us": ("us", "usec", "usecs", "micros", "microseconds"),
    "ns": ("ns", "nsec", "nanos", "nanoseconds"),
}
_TIMES = (
    "time",
    "times",
    "timestamp",
    "timestamps",
    *(f"{word}_{name}" for word in ("time", "timestamp") for of in _UNITS.values() for name in of),
    *(of[-1] for of in _UNITS.values()),
)
# Of a csv file that SLEAP exports: a row for each instance, which has no track without tracking.
_SLEAP = {"pattern": "{keypoint}.{coord}", "frame": "frame_idx", "individual": "track"}
_OF_INSTANCE = ("track", "frame_idx", "instance.score")
# What pandas calls the index of its rows.
_INDEX = ("", "Unnamed: 0", "__index_level_0__")
_WIDE = tuple(
    re.compile(rf"(.+){re.escape(between)}(x|y|z|{'|'.join(_SCORES)})") for between in "_ .-:"
)
_LONG = frozenset(("frame", "keypoint", "x", "y"))
_LONG_TOO = frozenset(("z", "confidence", "individual"))

_KEYPOINT_LIKE = (
    "keypoint",
    "bodypart",
    "body_part",
    "node",
    "label",
    "marker",
    "joint",
    "landmark",
    "part",
    "name",
)
_USUAL_PATTERNS = (
    *(f"{{keypoint}}{between}{{coord}}" for between in ("_", ".", " ", "-", ":")),
    *(f"{{coord}}{between}{{keypoint}}" for between in ("_", ".", " ", "-")),
    "{keypoint}{coord}",
)


@dataclass(frozen=True)
class Columns:
    """Numbers of the columns that are read.

    Attributes
    ----------
    space : tuple of str
    slots : tuple of (str, str)
        Individual and keypoint of every set of coordinates in a row; one of "" where the
        columns `keypoint` and `individual` say of whom they are.
    position : tuple of tuple of int
        By slot and axis.
    confidence : tuple of int
        By slot; empty without confidence.
    frame, time, individual, keypoint : int, optional
    missing : tuple of float or str
        What stands for a coordinate that is missing, besides the usual.
    may_lack_tracks : bool
        Whether rows may be of no individual, if all are.
    has_index : bool
        Whether the first column is an index as pandas writes it.
    notes : tuple of str
    """

    space: tuple[str, ...]
    slots: tuple[tuple[str, str], ...]
    position: tuple[tuple[int, ...], ...]
    confidence: tuple[int, ...]
    frame: int | None = None
    time: int | None = None
    individual: int | None = None
    keypoint: int | None = None
    missing: tuple[float | str, ...] = ()
    may_lack_tracks: bool = False
    has_index: bool = False
    notes: tuple[str, ...] = ()


def unit_in(name: str) -> str | None:
    """Unit that the name of a column of times ends with, such as ``time_ms`` or ``t [s]``."""
    word = re.split(r"[\W_]+", name.lower().rstrip(")] "))[-1]
    return next((unit for unit, words in _UNITS.items() if word in words), None)


# (individual, keypoint) -> coordinate -> name of the column
_Slots = dict[tuple[str, str], dict[str, str]]


def is_sleap(names: Sequence[str]) -> bool:
    """Whether these are the columns of a csv file that SLEAP exports."""
    others = set(names) - {*_OF_INSTANCE, *_INDEX}
    kinds = {name.rpartition(".")[2] for name in others}
    return set(names) >= set(_OF_INSTANCE) and {"x", "y"} <= kinds <= {"x", "y", "score"}


def plain(names: Sequence[str]) -> dict[str, Any] | None:
    """The mapping of a table whose columns leave no doubt, else None."""
    used = [name for name in names if name not in _INDEX]
    if len(set(used)) < len(used):
        return None
    if is_sleap(used):
        return dict(_SLEAP)
    if set(used) >= _LONG and set(used) <= _LONG | _LONG_TOO:
        return {name: name for name in used}
    keypoints: dict[str, dict[str, str]] = {}
    counters: dict[str, str] = {}
    wide = max(_WIDE, key=lambda pattern: sum(bool(pattern.fullmatch(name)) for name in used))
    for name in used:
        match = wide.fullmatch(name)
        if name.lower() in _FRAMES + _TIMES:
            counters["frame" if name.lower() in _FRAMES else "time"] = name
        elif match is None:
            return None
        else:
            coord = "confidence" if match[2] in _SCORES else match[2]
            at = keypoints.setdefault(match[1], {})
            if coord in at:
                return None
            at[coord] = name
    n_counters = sum(name.lower() in _FRAMES + _TIMES for name in used)
    if (
        not keypoints
        or n_counters > 1
        or not all({"x", "y"} <= at.keys() for at in keypoints.values())
    ):
        return None
    if len({"z" in at for at in keypoints.values()}) > 1:
        return None
    return {"keypoints": keypoints, **counters}


def columns_of(names: Sequence[str], mapping: Mapping[str, Any] | None, where: str) -> Columns:
    """Find the columns that a mapping names, or that are plain from their names.

    Raises
    ------
    InputError
        With all that is wrong with the mapping.
    """
    if mapping is None:
        mapping = plain(names)
        if mapping is None:
            raise InputError(
                expected="columns that are plain from their names, or a mapping",
                found=f"the columns {some(list(names), 12)}",
                where=where,
                fix=f"write which columns hold what to a JSON file, such as "
                f"{example(names)}, and name it with `mapping=`",
            )
    kind = _kind(mapping, names, where)
    problems = [*_wrong_keys(mapping, kind), *_wrong_values(mapping)]
    if not problems:
        slots = {"pattern": _by_pattern, "keypoints": _by_name, "keypoint": _by_row}[kind](
            mapping, names
        )
        problems = [*_wrong_slots(slots, kind, mapping), *_wrong_columns(mapping, slots, names)]
    if problems:
        raise InputError.of(problems)
    return _numbered(mapping, slots, names)


def example(names: Sequence[str]) -> str:
    """A mapping for columns of these names as far as can be guessed, as JSON."""
    lower = {name.lower(): name for name in names}
    guess: dict[str, Any] = {}
    for word in (*_FRAMES, *_TIMES):
        if word in lower and not guess:
            guess["frame" if word in _FRAMES else "time"] = lower[word]
    part = next((lower[word] for word in _KEYPOINT_LIKE if word in lower), None)
    if part and {"x", "y"} <= lower.keys():
        return json.dumps(guess | {"keypoint": part, "x": lower["x"], "y": lower["y"]})
    for coords in ({}, {"x": "X", "y": "Y"}):
        for pattern in _USUAL_PATTERNS:
            mapping = {"pattern": pattern, **({"coords": coords} if coords else {})}
            if any({"x", "y"} <= at.keys() for at in _by_pattern(mapping, names).values()):
                return json.dumps(mapping | guess)
    some_names = [name for name in names if name not in guess.values()]
    x, y = (*some_names, "...", "...")[:2]
    return json.dumps({"keypoints": {"nose": {"x": x, "y": y}}} | guess)


# ------------------------------------------------------------------ checking


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f", did you mean `{near[0]}`?" if near else ""


def _kind(mapping: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    kinds = [key for key in _KINDS if key in mapping] if isinstance(mapping, Mapping) else []
    if len(kinds) == 1:
        return kinds[0]
    found = f"{len(kinds)} of them" if isinstance(mapping, Mapping) else f"{mapping!r:.80}"
    keys = [str(key) for key in mapping if key not in kinds] if isinstance(mapping, Mapping) else []
    known = sorted({key for keys in _KEYS.values() for key in keys})
    hints = [f"`{key}`{_near(key, known)}" for key in keys if key not in known]
    raise InputError(
        expected="a mapping with one of the keys pattern, keypoints (columns for each keypoint), "
        "keypoint (a row for each keypoint)",
        found=" and ".join([found, *hints]),
        where="`mapping=`",
        fix=f"write, for example, {example(names)} ({where})",
    )


def _wrong_keys(mapping: Mapping[str, Any], kind: str) -> Iterator[Problem]:
    for key in mapping:
        if key not in _KEYS[kind]:
            yield Problem(
                f"keys {', '.join(_KEYS[kind])} beside `{kind}`",
                f"`{key}`{_near(str(key), _KEYS[kind])}",
                "`mapping=`",
                "correct this key, or take it away",
            )
    needed: tuple[str, ...] = ("x", "y", "frame") if kind == "keypoint" else ()
    needed = ("frame",) if "individual" in mapping and not needed else needed
    for key in needed:
        if key not in mapping:
            fix = "name the column, as rows are put together by the number of their frame"
            fix = fix if key == "frame" else f"name the column of {key}"
            yield Problem(f"`{key}`", "none", "`mapping=`", fix)


def _wrong_values(mapping: Mapping[str, Any]) -> Iterator[Problem]:
    for key in (*_COLUMN_KEYS, "pattern"):
        if key in mapping and not isinstance(mapping[key], str):
            yield _wrong("the name of a column", mapping[key], key)
    pattern = mapping.get("pattern", "{keypoint}{coord}")
    if isinstance(pattern, str):
        places = re.findall(r"\{(.*?)\}", pattern)
        if sorted(places) not in (["coord", "keypoint"], ["coord", "individual", "keypoint"]):
            yield _wrong(
                "{keypoint}, {coord} and perhaps {individual}, each once", pattern, "pattern"
            )
        elif "individual" in places and "individual" in mapping:
            yield _wrong(
                "{individual} in the pattern, or a column of individuals", "both", "pattern"
            )
    coords = mapping.get("coords", {})
    if not _is_texts(coords) or not coords.keys() <= set(_COORDS):
        yield _wrong('text for x, y, z, confidence, such as {"x": "X"}', coords, "coords")
    keypoints = mapping.get("keypoints", {"": {"x": "", "y": ""}})
    if not isinstance(keypoints, Mapping) or not keypoints:
        yield _wrong(
            'columns by keypoint, such as {"nose": {"x": ..., "y": ...}}', keypoints, "keypoints"
        )
    else:
        for name, at in keypoints.items():
            if not _is_texts(at) or not {"x", "y"} <= at.keys() <= set(_COORDS):
                wanted = "names of columns for x, y and perhaps z, confidence"
                yield _wrong(wanted, at, f"keypoints, {name!r}")
    missing = mapping.get("missing", [])
    for value in missing if isinstance(missing, list | tuple) else [missing]:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) or (is_number and math.isfinite(value))):
            yield _wrong("numbers or texts", value, "missing")


def _wrong(expected: str, found: object, key: str) -> Problem:
    return Problem(expected, f"{found!r:.80}", f"`mapping=`, {key}", f"such as {_EXAMPLES}")


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


def _wrong_slots(slots: _Slots, kind: str, mapping: Mapping[str, Any]) -> Iterator[Problem]:
    fix = "correct the pattern, or name the columns of each keypoint with `keypoints`"
    if not slots:
        found = f"none like {mapping['pattern']!r}"
        yield Problem("columns of keypoints", found, "`mapping=`, pattern", fix)
    space = _space(slots)
    lacking = [
        f"{' '.join(filter(None, slot))} without {axis}"
        for slot, at in slots.items()
        for axis in space
        if axis not in at
    ]
    if lacking:
        wanted = f"columns {', '.join(space)} for every keypoint"
        yield Problem(wanted, some(lacking), f"`mapping=`, {kind}", fix)


def _wrong_columns(
    mapping: Mapping[str, Any], slots: _Slots, names: Sequence[str]
) -> Iterator[Problem]:
    wanted = [mapping[key].strip() for key in _ROW_KEYS if key in mapping]
    wanted += [column for at in slots.values() for column in at.values()]
    n_there, n_wanted = Counter(names), Counter(wanted)
    absent = [n for n in n_wanted if n not in n_there]
    if absent:
        found = ", ".join(f"no `{shortened(n)}`{_near(n, names)}" for n in absent[:5])
        fix = f"use names of columns of the table: {some(list(names), 12)}"
        yield Problem("columns that the table has", found, "`mapping=`", fix)
    doubled = [n for n in n_wanted if n_there[n] > 1 or n_wanted[n] > 1]
    if doubled:
        fix = "give every column a name of its own, and name each once"
        yield Problem("one column for each name", f"{some(doubled)} twice", "`mapping=`", fix)


# ------------------------------------------------------------------ finding


def _by_pattern(mapping: Mapping[str, Any], names: Sequence[str]) -> _Slots:
    words = {word: axis for axis in _SPACE for word in [axis]} | dict.fromkeys(
        _SCORES, "confidence"
    )
    for coord, word in mapping.get("coords", {}).items():
        words = {w: c for w, c in words.items() if c != coord} | {word: coord}
    forms = {
        "keypoint": "(?P<keypoint>.+)",
        "individual": "(?P<individual>.+?)",
        "coord": f"(?P<coord>{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})",
    }
    pieces = re.split(r"\{(.*?)\}", mapping["pattern"].strip())
    regex = re.compile("".join(forms[p] if n % 2 else re.escape(p) for n, p in enumerate(pieces)))
    others = {mapping[key].strip() for key in ("frame", "time", "individual") if key in mapping}
    slots: _Slots = {}
    for name in names:
        match = regex.fullmatch(name)
        if match and name not in others:
            groups = match.groupdict("")
            at = slots.setdefault((groups.get("individual", ""), groups["keypoint"]), {})
            # Of two scores, the first.
            at.setdefault(words[groups["coord"]], name)
    return {slot: at for slot, at in slots.items() if at.keys() != {"confidence"}}


def _by_name(mapping: Mapping[str, Any], names: Sequence[str]) -> _Slots:
    return {
        ("", str(keypoint)): {coord: name.strip() for coord, name in at.items()}
        for keypoint, at in mapping["keypoints"].items()
    }


def _by_row(mapping: Mapping[str, Any], names: Sequence[str]) -> _Slots:
    return {("", ""): {coord: mapping[coord].strip() for coord in _COORDS if coord in mapping}}


def _space(slots: _Slots) -> tuple[str, ...]:
    return _SPACE if any("z" in at for at in slots.values()) else _SPACE[:2]


def _numbered(mapping: Mapping[str, Any], slots: _Slots, names: Sequence[str]) -> Columns:
    number = {name: index for index, name in enumerate(names)}
    lacking = [slot[1] for slot, at in slots.items() if "confidence" not in at]
    notes = [*without_confidence("confidence", lacking, len(slots))]
    space = _space(slots)
    position = tuple(tuple(number[at[axis]] for axis in space) for at in slots.values())
    confidence = () if lacking else tuple(number[at["confidence"]] for at in slots.values())
    others = {key: number[mapping[key].strip()] for key in _ROW_KEYS if key in mapping}
    used = {n for at in position for n in at} | {*confidence, *others.values()}
    of_sleap = _OF_INSTANCE if is_sleap(names) else ()
    known = {*_INDEX, *of_sleap}
    left = [name for index, name in enumerate(names) if index not in used and name not in known]
    if left:
        notes.append(f"left out columns: {some(left)}")
    missing = mapping.get("missing", [])
    missing = tuple(missing) if isinstance(missing, list | tuple) else (missing,)
    return Columns(
        space,
        tuple(slots),
        position,
        confidence,
        missing=missing,
        may_lack_tracks=bool(of_sleap),
        has_index=names[0] in _INDEX,
        notes=tuple(notes),
        **others,
    )
