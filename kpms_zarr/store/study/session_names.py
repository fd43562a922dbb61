"""Names of sessions: that of the file, with as much of its folders as makes it unique.

A name is made of *words*: word 0 is the name of the file without its suffix, word 1 the folder that
it is in, word 2 the folder above, and so on. A scheme says which words a name begins with; where
names clash, the words that tell the files apart are added in front. Sessions of the store keep
their names, whatever comes later.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kpms_zarr.store.core.names import tidy
from kpms_zarr.store.errors import InputError, readable

SCHEMES = {"stem": "{stem}", "parent": "{parent}", "path": "{path}"}
MOST_FOLDERS = 6
"""Of a path that are kept in the store, to tell later files from the ones that are there."""

_FIELD = re.compile(r"stem|name|path|parent[2-9]?")
_PACKED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Origin:
    """Origin of a file: the words of its path.

    Attributes
    ----------
    stem : str
        Its name without its suffix.
    folders : tuple of str
        Names of the folders that it is in, the nearest first; empty when not known.
    suffix : str
    below : tuple of str
        Names of the folders between what a person named and the file, the outermost first.
    """

    stem: str
    folders: tuple[str, ...] = ()
    suffix: str = ""
    below: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, below: Sequence[str] = ()) -> Origin:
        """Origin of a file."""
        stem, suffix = split_name(path.name)
        parts = Path.cwd().joinpath(path).parent.parts[1:]
        plain = [part for part in parts if part not in ("..", ".")]
        folders = tuple(readable(part) for part in reversed(plain[-MOST_FOLDERS:]))
        return cls(stem, folders, suffix, tuple(map(readable, below)))

    @property
    def words(self) -> tuple[str, ...]:
        """The words of names, the nearest to the file first."""
        return (self.stem, *self.folders)


def split_name(name: str) -> tuple[str, str]:
    """Split a file name into stem and suffix; that of a packed file has two parts."""
    path = Path(name)
    packed = path.suffix if path.suffix.lower() in _PACKED else ""
    inner = Path(path.stem) if packed else path
    return inner.stem, inner.suffix + packed


class Scheme:
    """Scheme by which files become names.

    Parameters
    ----------
    text : str
        ``stem``, ``parent``, ``path``, or a template with the fields ``{stem}``, ``{name}`` (with
        the suffix), ``{parent}``, ``{parent2}`` ... ``{parent9}`` (the folders, from the nearest
        on), ``{path}`` (the folders below the one that was named, and the stem, with ``_``).

    Raises
    ------
    InputError
        Other fields, or none.
    """

    def __init__(self, text: str = "stem") -> None:
        self.template = SCHEMES.get(text, text)
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(self.template) if name]
        except ValueError:
            fields = []
        wrong = [name for name in fields if not _FIELD.fullmatch(name)]
        if wrong or not fields:
            raise InputError(
                expected="stem, parent, path, or a template of {stem}, {name}, {parent}, "
                "{parent2}, {path}",
                found=repr(text),
                where="`name_by=`",
                fix="write for example `name_by='{parent}_{stem}'`",
            )
        self._fields = tuple(fields)

    def name(self, origin: Origin) -> str:
        """The name of a file that clashes with no other."""
        values = {"stem": origin.stem, "name": f"{origin.stem}{origin.suffix}"}
        values["path"] = "_".join((*origin.below, origin.stem))
        for number in range(1, 10):
            word = origin.words[number] if number < len(origin.words) else ""
            values["parent" if number == 1 else f"parent{number}"] = word
        name = self.template.format(**values)
        if not all(values[field] for field in self._fields):
            name = name.strip(" _/")  # what stood beside a folder that is not there
        return tidy(name) or tidy(origin.stem)

    def used(self, origin: Origin) -> set[int]:
        """Numbers of the words that are in the name."""
        found: set[int] = set()
        for name in self._fields:
            if name == "path":
                found |= set(range(len(origin.below) + 1))
            elif name.startswith("parent"):
                found.add(int(name[len("parent") :] or 1))
            else:
                found.add(0)
        return found


@dataclass(frozen=True)
class Wanted:
    """Request for a name: the place of a file, and the keys of its tracks."""

    origin: Origin
    keys: tuple[str, ...]

    def sessions(self, name: str) -> list[str]:
        """Names of its sessions."""
        return [session_name(name, key) for key in self.keys]


def session_name(name: str, key: str) -> str:
    """Name of a session: that of its file, and the key of its track in it."""
    return tidy(f"{name}_{key}" if key else name)


def names_of(
    files: Sequence[Wanted], stored: Sequence[Origin], taken: Iterable[str], scheme: Scheme
) -> list[str]:
    """Name every file so that no two sessions have the same name.

    The result does not depend on the order of the files.

    Parameters
    ----------
    files : sequence of Wanted
    stored : sequence of Origin
        Of the sessions that are there already.
    taken : iterable of str
        Names of sessions that cannot be had.
    scheme : Scheme
    """
    groups: dict[str, list[int]] = {}
    # By origin: where nothing but a number tells files apart, theirs is the same in any order.
    for number in sorted(range(len(files)), key=lambda n: repr(files[n])):
        groups.setdefault(scheme.name(files[number].origin), []).append(number)
    rivals: dict[str, set[Origin]] = {}
    for origin in stored:
        rivals.setdefault(scheme.name(origin), set()).add(origin)
    used, found = set(taken), [""] * len(files)

    def is_free(members: Sequence[int], names: Sequence[str]) -> bool:
        new = [s for number, name in zip(members, names, strict=True) for s in _of(number, name)]
        return len(set(new)) == len(new) and used.isdisjoint(new)

    def _of(number: int, name: str) -> list[str]:
        return files[number].sessions(name)

    # Those that need no more than their name have it first, whatever the others take then.
    simple = [name for name, of in groups.items() if len(of) == 1 and name not in rivals]
    for name in sorted(simple) + sorted(groups.keys() - set(simple)):
        members = groups[name]
        origins = [files[number].origin for number in members]
        tries = _lengthened(name, origins, sorted(rivals.get(name, ()), key=repr), scheme)
        if name in simple:
            tries = [[name], *tries]
        names = next(one for one in _with_numbers(tries) if is_free(members, one))
        for number, one in zip(members, names, strict=True):
            found[number] = one
            used |= set(_of(number, one))
    return found


def _lengthened(
    name: str, origins: list[Origin], rivals: list[Origin], scheme: Scheme
) -> list[list[str]]:
    """Yield names with more and more words in front, the shortest first."""
    everyone = [*origins, *rivals]
    most = max(len(origin.words) for origin in everyone)
    within = [scheme.used(origin) for origin in origins]
    enough = next((n for n in range(1, most + 1) if _are_distinct(origins, rivals, n)), most)
    telling = {n for n in range(enough) if len({_word(one, n) for one in everyone}) > 1}
    choices = [telling, *(set(range(n)) for n in range(enough, most + 1))]
    longer = [
        [
            _joined(name, origin, words - inside)
            for origin, inside in zip(origins, within, strict=True)
        ]
        for words in choices
    ]
    # Files of one name in one folder have different suffixes.
    suffixes = [origin.suffix.strip(".") for origin in origins]
    return longer + [
        [f"{one}_{suffix}" for one, suffix in zip(names, suffixes, strict=True)] for names in longer
    ]


def _are_distinct(origins: list[Origin], rivals: list[Origin], n: int) -> bool:
    beginnings = [origin.words[:n] for origin in origins]
    known = {origin.words[:n] for origin in rivals if origin.folders}
    return len(set(beginnings)) == len(beginnings) and known.isdisjoint(beginnings)


def _word(origin: Origin, number: int) -> str:
    return origin.words[number] if number < len(origin.words) else ""


def _joined(name: str, origin: Origin, words: set[int]) -> str:
    before = [_word(origin, number) for number in sorted(words, reverse=True) if number]
    behind = [origin.stem] if 0 in words else []
    return "_".join([*(word for word in before if word), name, *behind])


def _with_numbers(tries: list[list[str]]) -> Iterable[list[str]]:
    """Yield the names to try, then numbered ones without end."""
    yield from tries
    number = 2
    while True:
        yield [f"{name}_{number + place}" for place, name in enumerate(tries[-1])]
        number += 1


def is_same_place(one: Origin, other: Origin) -> bool:
    """Whether two files had the same path, as far as it is known."""
    n = min(len(one.folders), len(other.folders))
    is_same_name = (one.stem, one.suffix) == (other.stem, other.suffix)
    return is_same_name and n > 0 and one.folders[:n] == other.folders[:n]
