"""Selection of sessions by name, by pattern or by coordinate."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import zarr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.names import hint, match, parse_selectors
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.wording import call, listed

_MOST_EXAMPLES = 6
_MOST_HINTS = 3
"""Selectors that get near names; one takes 0.4 s in a store of 10,000 sessions."""


def select_sessions(
    store_or_root: StoreLike | zarr.Group,
    selectors: Sequence[str] | None,
    where: str = "",
) -> tuple[Session, ...]:
    """Select the sessions that at least one selector names.

    A selector is the first of these that it can be:

    - the name of a session;
    - ``coordinate=value``, where the coordinate is an array over the dimension ``session`` alone
      in the group ``keypoints``: ``individual``, ``recording``, ``source``, ``fps``, ... or one
      that somebody has added. A number is compared as a number where the coordinate holds
      numbers (``fps=30``); a value that none equals is read as a pattern;
    - a shell pattern over the names, upper and lower case told apart: ``mouse_*``, ``day?_[ab]``.

    Parameters
    ----------
    store_or_root : path, URL or zarr.Group
    selectors : sequence of str, or None
        None = all sessions.
    where : str
        Option or argument that the selectors came from, for errors, such as ``"--sessions"``.

    Returns
    -------
    tuple of Session
        In the order of the store, each once, whatever the order of the selectors.

    Raises
    ------
    InputError
        When there are no sessions or no selectors; with all selectors that choose nothing, and
        all coordinates that the store does not have.
    """
    if isinstance(store_or_root, zarr.Group):
        root, store = store_or_root, str(store_or_root.store_path).removeprefix("file://")
    else:
        root, store = access.open_group(store_or_root), str(store_or_root)
    sessions = access.require_sessions(root, store)
    if selectors is None:
        return sessions
    group = access.keypoints_group(root)
    assert group is not None  # there are sessions
    table = _SessionIndex(store, where or "selection of sessions", sessions, group)
    rows: set[int] = set()
    for selector in dict.fromkeys([selectors] if isinstance(selectors, str) else selectors):
        rows |= table.rows(selector)
    if not (rows or table.problems):
        table.add(
            "at least one session name, pattern or coordinate=value",
            "none",
            "name sessions, or leave it out for all of them",
        )
    if table.problems:
        raise InputError.of(table.problems)
    return tuple(session for session in sessions if session.index in rows)


class _SessionIndex:
    """Sessions by name and, once a selector asks for them, the coordinates over them.

    Parameters
    ----------
    store : str
        Path or URL.
    where : str
        Where the selectors came from.
    sessions : tuple of Session
    group : zarr.Group
        ``keypoints``.

    Attributes
    ----------
    problems : list of Problem
        What was wrong with the selectors so far.
    """

    def __init__(
        self, store: str, where: str, sessions: tuple[Session, ...], group: zarr.Group
    ) -> None:
        self.problems: list[Problem] = []
        self._store = store
        self._where = where
        self._group = group
        self._index = {session.name: session.index for session in sessions}
        self._values: dict[str, np.ndarray | None] = {}

    def add(self, expected: str, found: str, fix: str) -> None:
        """Note something that is wrong with the selectors."""
        self.problems.append(Problem(expected, found, self._where, fix))

    def rows(self, selector: str) -> set[int]:
        """Rows of the session dimension that a selector chooses; when none, ``problems`` grow."""
        called = self._called(selector)
        if called is not None:
            return {self._index[called]}
        name, is_pair, value = (part.strip() for part in selector.partition("="))
        if is_pair and self._has(name):
            return self._rows_of_value(selector, name, value)
        matches = re.compile(fnmatch.translate(selector)).match
        rows = {index for known, index in self._index.items() if matches(known)}
        if not rows and is_pair:
            self._add_no_coordinate(selector, name)
        elif not rows:
            self._add_no_name(selector)
        return rows

    def _called(self, selector: str) -> str | None:
        """Find the session of a name, also where it is quoted as in a list of names."""
        names = list(self._index)
        found = match(selector, names)
        if found is None and selector.startswith('"'):
            with contextlib.suppress(ValueError):
                found = match(",".join(parse_selectors(selector)), names)
        return found

    def _rows_of_value(self, selector: str, name: str, value: str) -> set[int]:
        if name not in self._values:
            self._values[name] = self._read(name)
        values = self._values[name]
        if values is None:  # said when it was read
            return set()
        found = _equal(values, value)
        rows = {
            index for index, is_equal in zip(self._index.values(), found, strict=True) if is_equal
        }
        if not rows:
            self._add_no_value(selector, name, value, values)
        return rows

    # -------------------------------------------------------------- coordinates

    @cached_property
    def _coordinates(self) -> list[str]:
        arrays = access.arrays_below(self._group)
        return sorted(name for name, array in arrays if _is_coordinate(array))

    def _has(self, name: str) -> bool:
        """Whether there is a coordinate of this name; listed, for text may be no path at all."""
        return name in self._coordinates

    def _read(self, name: str) -> np.ndarray | None:
        """Values of a coordinate, (session,) of the selection; None where there are too few."""
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        rows = list(self._index.values())
        n_rows, n_values = self._n_rows(), array.shape[0]
        if n_values > max(rows):
            return np.asarray(array[:])[rows]
        self.add(
            f"a {name!r} for each of the {n_rows} sessions",
            f"{n_values}, fewer than there are sessions",
            f"set those of the sessions added since: array = {self._opened()}[{name!r}]; "
            f"array.resize(({n_rows},)); array[{n_values}:] = [...]",
        )
        return None

    def _n_rows(self) -> int:
        return int(self._group["session"].shape[0])  # type: ignore[union-attr]

    def _opened(self) -> str:
        """Python that opens the group for writing."""
        return f'zarr.open_group({self._store!r}, path="keypoints", mode="r+")'

    # -------------------------------------------------------------- problems

    def _add_no_name(self, selector: str) -> None:
        names = list(self._index)
        self.add(
            f"a name, a pattern or coordinate=value of the {len(names)} sessions "
            f"({_examples(names)})",
            f"{selector!r}, which matches none of them",
            f"{self._did_you_mean(selector, names)}list them with: {call('info', self._store)}",
        )

    def _add_no_value(self, selector: str, name: str, value: str, values: np.ndarray) -> None:
        texts = _texts(np.unique(values))
        near = self._did_you_mean(value, texts, f"{name}=")
        self.add(
            f"a {name!r} of the {len(values)} sessions ({_examples(texts)})",
            f"{selector!r}, which matches none of them",
            f"{near}give one of these values, or a pattern such as '{name}=a*'",
        )

    def _add_no_coordinate(self, selector: str, name: str) -> None:
        known = self._coordinates
        add = call("annotate", self._store, "FILE.csv")
        self.add(
            f"one of the coordinates over the sessions: {', '.join(known)}",
            f"{name!r} in {selector!r}",
            f"{self._did_you_mean(name, known)}add one, with a value for each session: {add}",
        )

    def _did_you_mean(self, text: str, names: Sequence[str], prefix: str = "") -> str:
        if len(self.problems) >= _MOST_HINTS:
            return ""
        return hint(text, names, prefix=prefix, max_names=3)


def _is_coordinate(node: object) -> bool:
    """Whether a member of the group is an array over the session dimension alone."""
    return isinstance(node, zarr.Array) and getattr(node.metadata, "dimension_names", None) == (
        "session",
    )


def _equal(values: np.ndarray, text: str) -> np.ndarray:
    """Mask of where a coordinate, (session,), equals a value given as text: (session,) bool."""
    kind = values.dtype.kind
    number = _number(text, float if kind == "f" else int) if kind in "biuf" else None
    if number is not None and kind == "f":
        precision = np.finfo(values.dtype).eps
        return np.isclose(values, number, rtol=precision, atol=0, equal_nan=True)
    if number is not None:
        return np.asarray(values == number)
    texts = _texts(values)
    if text in texts:
        return np.array([value == text for value in texts])
    matches = re.compile(fnmatch.translate(text)).match
    return np.array([matches(value) is not None for value in texts])


def _number(text: str, first: type[int] | type[float]) -> int | float | None:
    """Parse a number, as an integer where possible and asked for."""
    for kind in (first, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _texts(values: np.ndarray) -> list[str]:
    """Format values as a person writes them: 30, 29.97, a."""
    texts = [str(value) for value in values]
    return [text.removesuffix(".0") for text in texts] if values.dtype.kind == "f" else texts


def _examples(texts: Sequence[str]) -> str:
    """List the first few, and how many more."""
    return listed((text or repr(text) for text in texts), _MOST_EXAMPLES)
