"""Tables with a row for each session."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.study.matching import Matches, Named, lacking, match
from kpms_zarr.store.study.session_rows import Sheet, read_sheet
from kpms_zarr.store.wording import listed, option

_KEYS = ("session", "recording", "source", "file", "name")


@dataclass(frozen=True)
class SessionTable:
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
    numbers : dict of str to int
        Key -> number of its row in the file.
    notes : tuple of str
        What had to be understood.
    option : str
        What a person named it by, "" where the file stands for itself.
    found : dict of str to str
        Session -> key of its row, see :meth:`about`.
    """

    path: Path
    key: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    numbers: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    option: str = ""
    found: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The table as errors name it."""
        return f"{self.option} {self.path}".lstrip()

    def about(self, sessions: Sequence[Named], *, is_strict: bool) -> SessionTable:
        """Match the rows of the table to some sessions.

        Parameters
        ----------
        sessions : sequence of Named
        is_strict : bool
            Whether a row without a session is an error; else it is noted.

        Raises
        ------
        InputError
            For rows that may be about several sessions, or contradict each other.
        """
        matches = self.matches(sessions)
        problems = list(matches.problems)
        if is_strict:
            problems += lacking(matches.unused, self.numbers, sessions, matches, self.where)
        if problems:
            raise InputError.of(problems)
        name, notes = self.path.name, []
        if matches.rows:
            notes.append(f"{name}: {matches.note()}")
        if matches.unused:
            notes.append(f"{name}: no session for {listed(matches.unused)}")
        return replace(self, found=matches.rows, notes=(*self.notes, *notes))

    def matches(self, sessions: Sequence[Named]) -> Matches:
        """Match rows to some sessions."""
        return match(self.rows, self.numbers, sessions, self.where)

    def row_of(self, session: str) -> str | None:
        """Key of the row about a session, of those that were looked for."""
        return self.found.get(session)


def read_table(path: str | Path, option: str = "") -> SessionTable:
    """Read a csv file with one row per session.

    Parameters
    ----------
    path : str or Path
        The first column, or the one named session, recording, source, file or name, holds names
        of sessions, recordings, files or videos. Separators, encodings and decimal signs are
        those that spreadsheets write.
    option : str
        Named in errors, where the path was given behind one.

    Raises
    ------
    InputError
        No such file, no text, no rows, a row without a name, rows that contradict each other.
    """
    path = Path(path)
    where = f"{option} {path}".lstrip()
    sheet = read_sheet(path, where)
    header = sheet.header
    if not sheet.rows or len(header) < 2:
        raise InputError(
            expected="a header such as session,group and a row for each session",
            found=f"{len(sheet.rows) + bool(header)} rows of {len(header)} fields",
            where=where,
            fix="write names of sessions into the first column, what is known of them beside it",
        )
    lower = [name.lower() for name in header]
    place = next((lower.index(key) for key in _KEYS if key in lower), 0)
    _check_rows(sheet, place, where)
    columns = tuple(name for i, name in enumerate(header) if i != place)
    rows: dict[str, dict[str, str]] = {}
    numbers: dict[str, int] = {}
    for number, cells in sheet.rows:
        row = {name: cells[i] for i, name in enumerate(header) if i != place}
        rows.setdefault(cells[place], row)
        numbers.setdefault(cells[place], number)
    notes = tuple(f"{path.name}: {note}" for note in sheet.notes)
    return SessionTable(path, header[place], columns, rows, numbers, notes, option)


def _check_rows(sheet: Sheet, place: int, where: str) -> None:
    problems = []
    header = sheet.header
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
    seen: dict[str, tuple[int, tuple[str, ...]]] = {}
    for number, cells in sheet.rows:
        name = cells[place]
        first, before = seen.setdefault(name, (number, cells))
        fault = "" if name else "no name"
        if name and before != cells:
            fault = f"{name!r} a second time, with other values than in row {first}"
        if not fault and len(cells) > len(header):
            fault = f"{len(cells)} fields where the header has {len(header)}"
        if fault:
            problems.append(
                Problem(
                    "one row per session, with its name",
                    fault,
                    f"{where}, row {number}",
                    "correct this row",
                )
            )
    if problems:
        raise InputError.of(problems)


def frame_rates(
    fps: float | str | Path | Mapping[str, float] | None,
) -> SessionTable | float | None:
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
        return _checked_rates(SessionTable(Path("fps"), "session", ("fps",), rows), "fps")
    if isinstance(fps, str | Path) and not is_number(str(fps)):
        if not Path(fps).exists():
            raise InputError(
                expected="a number of frames per second, or a csv file of them",
                found=repr(str(fps)),
                where="`fps=`",
                fix="write for example `fps=30` or `fps='rates.csv'`",
            )
        table = read_table(fps, "`fps=`")
        if "fps" not in table.columns:
            raise InputError(
                expected="a column named fps",
                found=f"the columns {', '.join((table.key, *table.columns))}",
                where=option("fps", fps),
                fix="name the column with frames per second fps",
            )
        return _checked_rates(table, option("fps", fps))
    return checked_rate(fps, "`fps=`")


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def checked_rate(value: object, where: str) -> float:
    """Check a positive number of frames per second; an InputError otherwise."""
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0) or isinstance(value, bool):
        raise InputError(
            expected="a positive number of frames per second",
            found=str(value),
            where=where,
            fix="give the frame rate of the video, such as `fps=30`",
        )
    return rate


def rate_problems(rates: Mapping[str, str], where: str) -> list[Problem]:
    """Problems of frame rates by session that are no positive numbers."""
    problems: list[Problem] = []
    for name, rate in rates.items():
        try:
            checked_rate(rate, f"{where}, {name}")
        except InputError as error:
            problems += error.problems
    return problems


def _checked_rates(table: SessionTable, where: str) -> SessionTable:
    problems = rate_problems({name: row["fps"] for name, row in table.rows.items()}, where)
    if problems:
        raise InputError.of(problems)
    return table


def read_mapping(mapping: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any] | None:
    """Read from a JSON file what the columns of a table hold.

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
        where=option("mapping", mapping),
        fix='write for example {"keypoints": ["nose", "tail"], "columns": "{keypoint}_{coord}"}',
    )
