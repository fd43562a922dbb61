"""Matching of table rows to sessions: by name, file, video or unique beginning."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kpms_zarr.store.errors import Problem
from kpms_zarr.store.study.result_names import result_of
from kpms_zarr.store.study.session_names import split_name
from kpms_zarr.store.wording import listed

_EXACT = ("session", "recording", "file", "video")
_START, _LOOSE_START = "beginning", "loose beginning"
_WORDS = {
    "session": "by name",
    "recording": "by recording",
    "file": "by file",
    "video": "by video name",
    _START: "by beginning",
    _LOOSE_START: "by beginning",
}
_FOLDED = ", leading zeros and capitals aside"
_SUFFIX = re.compile(r"\.(mp4|avi|mov|mkv|m4v|wmv|mpe?g|webm|mjpe?g|seq|ufmf)$", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """Names by which a session can be found.

    Attributes
    ----------
    session, recording : str
    source : str
        Name of the tracking file; "" without.
    video : str
        Path of the video, where known.
    """

    session: str
    recording: str
    source: str
    video: str = ""


@dataclass(frozen=True)
class Matches:
    """Result of matching: rows of the table by session.

    Attributes
    ----------
    rows : dict of str to str
        Session -> key of its row.
    how : dict of str to str
        Key -> in which way its sessions were found, in words.
    unused : tuple of str
        Keys that are those of no session.
    problems : tuple of Problem
        Keys that may be those of several sessions; sessions with rows that contradict each other.
    """

    rows: Mapping[str, str]
    how: Mapping[str, str]
    unused: tuple[str, ...]
    problems: tuple[Problem, ...]

    def note(self) -> str:
        """Note how many sessions were found in which way, with an example of inexact ones."""
        count = Counter(self.how[key] for key in self.rows.values())
        examples: dict[str, str] = {}
        for session, key in self.rows.items():
            examples.setdefault(self.how[key], f" (such as {key!r}: {session})")
        ways = [
            f"{n} {way}{examples[way] if 'beginning' in way or _FOLDED in way else ''}"
            for way, n in count.items()
        ]
        n_sessions = len(self.rows)
        return f"{n_sessions} session{'s' * (n_sessions != 1)} found: {', '.join(ways)}"


def match(
    rows: Mapping[str, Mapping[str, str]],
    numbers: Mapping[str, int],
    sessions: Sequence[Named],
    where: str,
) -> Matches:
    """Find the sessions of the rows of a table: in exact ways first, then in looser ones.

    Parameters
    ----------
    rows : dict of str to dict
        Key -> what the row says.
    numbers : dict of str to int
        Key -> number of its row, where it has one.
    sessions : sequence of Named
        Those that a row can be about.
    where : str
        The table, for messages.
    """
    found: dict[str, list[int]] = {}
    how: dict[str, str] = {}
    problems = []
    claimed: set[int] = set()
    left = sorted(rows, key=lambda key: (-len(key), key))
    for fold in (False, True):
        index = _Index(sessions, fold=fold)
        for way in (*_EXACT, _START, _LOOSE_START):
            for key in left:
                all_places = index.find(way, key)
                places = [place for place in all_places if place not in claimed]
                if not places and way in _EXACT:
                    places = all_places  # two rows, which may contradict each other
                if not places:
                    continue
                found[key], how[key] = places, _WORDS[way] + (_FOLDED if fold else "")
                if not _is_one_file([sessions[place] for place in places]):
                    names = [sessions[place].session for place in places]
                    problems.append(_several(key, names, _row(where, numbers, key)))
                    found[key] = []
                if way not in _EXACT:
                    claimed |= set(places)
            claimed |= {place for key in left for place in found.get(key, ())}
            left = [key for key in left if key not in found]
    taken, more = _one_each(rows, numbers, sessions, found, where)
    order = list(rows)
    unused = tuple(key for key in order if key not in found)
    return Matches(taken, how, unused, (*problems, *more))


def lacking(
    keys: Iterable[str],
    numbers: Mapping[str, int],
    sessions: Sequence[Named],
    matches: Matches,
    where: str,
) -> list[Problem]:
    """Problem of rows that are about no session."""
    names = [named.session for named in sessions]
    free = [name for name in names if name not in matches.rows] or names
    by_fold = {_fold(word): n.session for n in sessions for word in _words(n)}
    problems = []
    for key in keys:
        near = difflib.get_close_matches(_fold(key), by_fold, n=3, cutoff=0.6)
        likely = list(dict.fromkeys(by_fold[word] for word in near)) or free
        problems.append(
            Problem(
                f"a session, such as {listed(likely)}",
                repr(key),
                _row(where, numbers, key),
                "write the name of the session, of its file or of its video, or a beginning that "
                "no other has; or take the row away",
            )
        )
    return problems


class _Index:
    """Sessions by all that they can be called by."""

    def __init__(self, sessions: Sequence[Named], *, fold: bool) -> None:
        self._is_folded = fold
        self._exact: dict[str, dict[str, list[int]]] = {way: {} for way in _EXACT}
        starts = []
        for place, named in enumerate(sessions):
            for way in _EXACT:
                for word in _called(way, named):
                    self._exact[way].setdefault(self._folded(word), []).append(place)
            starts += [(self._folded(word), place) for word in _words(named)]
        self._starts = sorted(set(starts))

    def find(self, way: str, key: str) -> list[int]:
        """Places of the sessions that a key stands for."""
        bare = key.replace("\\", "/").rpartition("/")[2]
        if way in ("session", "recording"):
            words = [key]
        elif way == "file":
            words = [key, bare]
        else:
            words = [bare, _without_suffix(bare)]
            if way == "video":
                words.append(_VIDEO + _without_suffix(bare).lower())
        words = [self._folded(word) for word in dict.fromkeys(words) if word]
        if way in _EXACT:
            found = (self._exact[way].get(word, []) for word in words)
            return next((sorted(set(places)) for places in found if places), [])
        return self._beginning(words[-1], is_loose=way == _LOOSE_START) if words else []

    def _beginning(self, start: str, *, is_loose: bool) -> list[int]:
        places = set()
        for at in range(bisect_left(self._starts, (start, -1)), len(self._starts)):
            word, place = self._starts[at]
            if not word.startswith(start):
                break
            if _is_end(start, word[len(start) :], is_loose=is_loose):
                places.add(place)
        return sorted(places)

    def _folded(self, word: str) -> str:
        return _fold(word) if self._is_folded else word


def _called(way: str, named: Named) -> Iterator[str]:
    """Words that name a session exactly, each once."""
    if way in ("session", "recording"):
        yield getattr(named, way)
    elif way == "file" and named.source:
        yield from dict.fromkeys((named.source, split_name(named.source)[0]))
    elif way == "video":
        video = named.video.replace("\\", "/").rpartition("/")[2]
        words = [video, split_name(video)[0]] if video else []
        words.append(_video_key(named.source or f"{named.recording}.csv"))
        yield from dict.fromkeys(word for word in words if word)


# No name of a file or session begins so: what is behind it was put into small letters.
_VIDEO = "\0"


def _video_key(name: str) -> str:
    """Name of the video that the name of a tracking file tells, apart from exact names."""
    return _VIDEO + result_of(name).video


def _words(named: Named) -> list[str]:
    """Names that may begin with a key."""
    video = split_name(named.video.replace("\\", "/").rpartition("/")[2])[0]
    names = (named.session, named.recording, split_name(named.source)[0], video)
    return [name for name in dict.fromkeys(names) if name]


def _without_suffix(name: str) -> str:
    return _SUFFIX.sub("", name) or name


def _is_end(start: str, rest: str, *, is_loose: bool) -> bool:
    """Whether a name can end here: mouse1 does not begin mouse10, nor ctrl ctrls."""
    if not rest or (start[-1:].isdigit() and rest[:1].isdigit()):
        return not rest
    return is_loose or not rest[0].isalpha() or not start[-1].isalpha()


def _fold(word: str) -> str:
    """Fold a name: drop leading zeros, blanks and capitals, which spreadsheets lose."""
    return " ".join(re.sub(r"(?<!\d)0+(?=\d)", "", word).casefold().split())


def _is_one_file(found: Sequence[Named]) -> bool:
    """Whether sessions are those of one recording, or of one file with several."""
    if len({named.recording for named in found}) == 1:
        return True
    stem = split_name(found[0].source)[0]
    return len({named.source for named in found}) == 1 and all(
        stem and named.recording.startswith(stem) for named in found
    )


def _one_each(
    rows: Mapping[str, Mapping[str, str]],
    numbers: Mapping[str, int],
    sessions: Sequence[Named],
    found: Mapping[str, Sequence[int]],
    where: str,
) -> tuple[dict[str, str], list[Problem]]:
    """Choose a row for each session; problems where several say different things."""
    taken: dict[str, str] = {}
    problems = []
    for key in rows:
        for place in found.get(key, ()):
            session = sessions[place].session
            first = taken.setdefault(session, key)
            if rows[first] != rows[key]:
                both = " and ".join(_row("", numbers, one).strip(", ") for one in (first, key))
                problems.append(
                    Problem(
                        "one row for each session",
                        f"{first!r} and {key!r} with different values for session {session}",
                        f"{where}, {both}",
                        "take one of the rows away",
                    )
                )
    return taken, problems


def _several(key: str, names: Sequence[str], where: str) -> Problem:
    return Problem(
        "what names one session",
        f"{key!r}, which may be {listed(names, between=' or ')}",
        where,
        "write the whole name of the session or of its file",
    )


def _row(where: str, numbers: Mapping[str, int], key: str) -> str:
    return f"{where}, row {numbers[key]}" if key in numbers else f"{where}, {key}"
