"""Search for files behind paths, folders and patterns: each is a candidate or is noted."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kpms_zarr.store.errors import Problem, readable
from kpms_zarr.store.parsers import formats
from kpms_zarr.store.parsers.contents import has_tracking_suffix, is_other_by_name


@dataclass(frozen=True)
class FoundFile:
    """Candidate: a file that may hold tracking.

    Attributes
    ----------
    path : Path
    below : tuple of str
        Names of the folders between what was named and the file.
    is_named : bool
        Whether it was named itself, and not found in a folder or by a pattern.
    """

    path: Path
    below: tuple[str, ...] = ()
    is_named: bool = True


class FileFinder:
    """Search for files that remembers what it has left out.

    Parameters
    ----------
    store : str
        Is no tracking file, should it lie in a folder that is named.
    apart : iterable of path
        Nor are these, which are named in other options.

    Attributes
    ----------
    notes : list of str
    problems : list of Problem
        Paths behind which there is nothing.
    bad : list of (Path, Problem)
        Files and folders that are there and cannot be read.
    items : dict of str to list of Path
        Folders and patterns -> the candidates in them.
    """

    def __init__(self, store: str = "", excluded: Iterable[str | Path] = ()) -> None:
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self.bad: list[tuple[Path, Problem]] = []
        self.items: dict[str, list[Path]] = {}
        self._store = os.path.realpath(store) if store and "://" not in store else ""
        self._apart = {os.path.realpath(path) for path in excluded}
        self._found: dict[str, list[FoundFile]] = {}
        self._others: dict[str, Counter[str]] = {}

    def find(self, files: Iterable[str | Path]) -> list[FoundFile]:
        """Candidates behind paths, folders and patterns, sorted by path, each file once."""
        for item in files:
            self._item(str(item))
        if not (self._found or self.problems or self.bad or self.items):
            self.problems.append(nothing_there("FILE_OR_DIR_OR_GLOB", "no files named"))
        found = []
        for same in self._found.values():
            kept, *links = sorted(same, key=_clearest)
            found.append(kept)
            self.notes += [
                f"{one.path}: the same file as {kept.path}, left out"
                for one in links
                if one.path != kept.path
            ]
        for one in found:
            if not _is_text(one.path.name):
                fix = "rename the file"
                odd = Problem("a file name in UTF-8", "one that is no text", str(one.path), fix)
                self.bad.append((one.path, odd))
        return sorted((one for one in found if _is_text(one.path.name)), key=lambda f: str(f.path))

    def nothing_in(self, tracking: Iterable[Path]) -> list[Problem]:
        """Problems of the folders and patterns without any of these files."""
        problems = []
        known = {os.path.realpath(path) for path in tracking}
        for item, paths in self.items.items():
            if known.isdisjoint(map(os.path.realpath, paths)):
                kinds = self._others[item] + Counter(
                    path.suffix.lower() or "without suffix" for path in paths
                )
                others = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(4))
                found = "a folder without any tracking file" if Path(item).is_dir() else "none"
                problems.append(nothing_there(item, f"{found} ({others})" if others else found))
        return problems

    def _item(self, text: str) -> None:
        path = Path(text)
        if path.is_dir():
            self._start(text)
            self._folder(path, text)
        elif path.exists():
            self._add(FoundFile(path, _below(path)))
        elif path.is_symlink():
            self.bad.append((path, _broken(path)))
        elif matches := sorted(glob.glob(text, recursive=True)):
            self._start(text)
            for match in map(Path, matches):
                if match.is_dir():
                    self._folder(match, text, below=(*_below(match), match.name))
                else:
                    self._candidate(match, _below(match), text)
        else:
            self.problems.append(nothing_there(text, "nothing there"))

    def _start(self, item: str) -> None:
        self.items.setdefault(item, [])
        self._others.setdefault(item, Counter())

    def _folder(self, folder: Path, item: str, below: tuple[str, ...] = ()) -> None:
        """Search a folder: first without links, so that files have their real paths."""
        if self._is_store(folder):
            return
        seen = {os.path.realpath(folder)}
        waiting = [(folder, below)]
        links: list[tuple[Path, tuple[str, ...]]] = []
        while waiting or links:
            place, inside = waiting.pop(0) if waiting else links.pop(0)
            real = os.path.realpath(place)
            if place != folder and place.is_symlink():
                if real in seen:
                    self.notes.append(f"{place}: a link to a folder that is searched, not followed")
                    continue
                if os.path.realpath(folder).startswith(os.path.join(real, "")):
                    self.notes.append(f"{place}: a link back to a folder above, not followed")
                    continue
            elif place != folder and real in seen:
                continue
            seen.add(real)
            for entry in self._entries(place):
                if entry.is_dir() and not self._is_left_out(entry):
                    (links if entry.is_symlink() else waiting).append(
                        (entry, (*inside, entry.name))
                    )
                elif not entry.is_dir():
                    self._candidate(entry, inside, item)

    def _entries(self, folder: Path) -> Iterator[Path]:
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            found = error.strerror or str(error)
            fix = "check the permissions, or name other folders"
            problem = Problem("a folder that can be searched", found, str(folder), fix)
            self.bad.append((folder, problem))
            return
        hidden = [name for name in names if name.startswith(".")]
        if hidden:
            shown = ", ".join(hidden[:3]) + (", ..." if len(hidden) > 3 else "")
            self.notes.append(f"{folder}: {len(hidden)} hidden, not looked at ({readable(shown)})")
        yield from (folder / name for name in names if not name.startswith("."))

    def _is_left_out(self, folder: Path) -> bool:
        if self._is_store(folder):
            return True
        if folder.name.lower().endswith(".zarr"):
            self.notes.append(f"{folder}: a Zarr store, left out")
            return True
        return False

    def _is_store(self, folder: Path) -> bool:
        return bool(self._store) and os.path.realpath(folder) == self._store

    def _candidate(self, path: Path, below: tuple[str, ...], item: str) -> None:
        """Make a candidate of a file in a folder, unless its name says enough."""
        if path.is_symlink() and not path.exists():
            if has_tracking_suffix(path.name):
                self.bad.append((path, _broken(path)))
            else:
                self.notes.append(f"{path}: a link to nothing, left out")
            return
        other = is_other_by_name(path.name)
        if not path.is_file():
            other = "a device, a pipe or the like"
        elif os.path.realpath(path) in self._apart:
            other = "a table named in another option"
        if other:
            self._others[item][path.suffix.lower() or "without suffix"] += 1
            self.notes.append(f"{path}: not a tracking file, but {other}")
            return
        self.items[item].append(path)
        self._add(FoundFile(path, below, is_named=False))

    def _add(self, one: FoundFile) -> None:
        same = self._found.setdefault(os.path.realpath(one.path), [])
        if one not in same:
            same.append(one)


def _clearest(one: FoundFile) -> tuple[bool, bool, int, str]:
    """Key of an order: named before found, files before links to them, short before long."""
    return (not one.is_named, one.path.is_symlink(), len(str(one.path)), str(one.path))


def _below(path: Path) -> tuple[str, ...]:
    """Names of the folders that were written before the name of a file."""
    return tuple(part for part in path.parent.parts if part not in (path.anchor, "..", "."))


def _broken(path: Path) -> Problem:
    target = Path(os.readlink(path)).as_posix()
    if "annex/objects/" in target:
        found, fix = "a link of git-annex to a file that was not fetched", "fetch it: git annex get"
    else:
        found, fix = f"a link to nothing ({readable(target)})", "mend the link, or delete it"
    return Problem("a tracking file", found, str(path), fix)


def _is_text(name: str) -> bool:
    """Whether a name can be stored; on Linux, those of files are any bytes."""
    return name == readable(name)


def nothing_there(where: str, found: str) -> Problem:
    """Problem of a search without any file."""
    return Problem(
        f"tracking files ({', '.join(formats())})",
        found,
        where,
        "check the path; quote a pattern: 'data/*.csv'",
    )
