"""Tables that say more of sessions: a row for each."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpms_zarr.store.errors import InputError, Problem

_KEYS = ("session", "recording", "source", "file", "name")


@dataclass(frozen=True)
class Table:
    """Rows of a csv file about sessions.

    Attributes
    ----------
    path : Path
    key : str
        Name of the column that says which session a row is about.
    columns : tuple of str
        The others.
    rows : dict of str to dict
        Key -> column -> text.
    """

    path: Path
    key: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def row_of(self, session: str, recording: str, source: str) -> str | None:
        """Key of the row about a session: its own name, else its recording, else its file."""
        names = (session, recording, source, Path(source).stem)
        return next((name for name in names if name in self.rows), None)


def read_table(path: str | Path, option: str) -> Table:
    """Read a csv file with one row per session.

    Parameters
    ----------
    path : str or Path
        The first column, or the one named session, recording, source, file or name, holds names
        of sessions, recordings or files. Fields are separated by commas, semicolons or tabs.
    option : str
        Named in errors.

    Raises
    ------
    InputError
        No such file, no text, no rows, a row without or with a repeated name.
    """
    path = Path(path)
    where = f"{option} {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            expected="a csv file with one row per session, in UTF-8",
            found=getattr(error, "strerror", None) or str(error),
            where=where,
            fix="check the path; save the table as csv (UTF-8)",
        ) from error
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    lines = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(row)]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise InputError(
            expected="a header such as session,group and a row for each session",
            found=f"{len(lines)} rows of {len(lines[0]) if lines else 0} fields",
            where=where,
            fix="write names of sessions into the first column, what is known of them beside it",
        )
    header = [name.strip() for name in lines[0]]
    lower = [name.lower() for name in header]
    place = next((lower.index(key) for key in _KEYS if key in lower), 0)
    _check_rows(header, lines[1:], place, where)
    columns = tuple(name for i, name in enumerate(header) if i != place)
    rows = {
        row[place].strip(): {
            name: row[i].strip() if i < len(row) else ""
            for i, name in enumerate(header)
            if i != place
        }
        for row in lines[1:]
    }
    return Table(path, header[place], columns, rows)


def _check_rows(header: list[str], rows: list[list[str]], place: int, where: str) -> None:
    problems = []
    doubled = sorted({name for name in header if header.count(name) > 1 or not name})
    if doubled:
        problems.append(
            Problem(
                "a name of its own for every column",
                ", ".join(map(repr, doubled)),
                where,
                "name the columns",
            )
        )
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        name = row[place].strip() if place < len(row) else ""
        fault = "no name" if not name else f"{name!r} a second time" if name in seen else ""
        if not fault and len(row) > len(header):
            fault = f"{len(row)} fields where the header has {len(header)}"
        if fault:
            problems.append(
                Problem(
                    "one row per session, with its name",
                    fault,
                    f"{where}, row {number}",
                    "correct this row",
                )
            )
        seen.add(name)
    if problems:
        raise InputError.of(problems)


def frame_rates(fps: float | str | Path | Mapping[str, float] | None) -> Table | float | None:
    """Frame rate of all sessions, or a table of them.

    Raises
    ------
    InputError
        What is neither a positive number nor a table with a column ``fps`` of such.
    """
    if fps is None:
        return None
    if isinstance(fps, Mapping):
        rows = {str(name): {"fps": str(value)} for name, value in fps.items()}
        return _checked_rates(Table(Path("fps"), "session", ("fps",), rows), "fps")
    if isinstance(fps, str | Path) and not is_number(str(fps)):
        if not Path(fps).exists():
            raise InputError(
                expected="a number of frames per second, or a csv file of them",
                found=repr(str(fps)),
                where="--fps",
                fix="write for example --fps 30 or --fps rates.csv",
            )
        table = read_table(fps, "--fps")
        if "fps" not in table.columns:
            raise InputError(
                expected="a column named fps",
                found=f"the columns {', '.join((table.key, *table.columns))}",
                where=f"--fps {fps}",
                fix="name the column with frames per second fps",
            )
        return _checked_rates(table, f"--fps {fps}")
    return checked_rate(fps, "--fps")


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def checked_rate(value: object, where: str) -> float:
    """A positive number of frames per second.

    Raises
    ------
    InputError
    """
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0) or isinstance(value, bool):
        raise InputError(
            expected="a positive number of frames per second",
            found=str(value),
            where=where,
            fix="give the frame rate of the video, such as --fps 30",
        )
    return rate


def _checked_rates(table: Table, where: str) -> Table:
    problems: list[Problem] = []
    for name, row in table.rows.items():
        try:
            checked_rate(row["fps"], f"{where}, {name}")
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError.of(problems)
    return table


def read_mapping(mapping: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any] | None:
    """What the columns of a table hold, from a JSON file.

    Raises
    ------
    InputError
        No such file, or no JSON object in it.
    """
    if mapping is None or isinstance(mapping, Mapping):
        return mapping
    found: Any = None
    try:
        text = Path(mapping).read_text(encoding="utf-8-sig")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    else:
        reason = f"JSON with {type(found).__name__} in it"
    if isinstance(found, dict):
        return found
    raise InputError(
        expected="a JSON file with an object that says what the columns hold",
        found=reason,
        where=f"--mapping {mapping}",
        fix='write for example {"keypoints": ["nose", "tail"], "columns": "{keypoint}_{coord}"}',
    )
