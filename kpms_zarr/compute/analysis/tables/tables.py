"""Tables of the syllables of a model as plain files, streamed from the store."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.bout_counts import EpochCounter
from kpms_zarr.compute.analysis.tables.bout_stream import session_blocks
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import StudyRows, study_rows
from kpms_zarr.compute.analysis.tables.syllable_table import state_coordinates
from kpms_zarr.compute.analysis.tables.table_columns import COLUMNS, TABLES, TableColumn
from kpms_zarr.compute.analysis.tables.table_files import FORMATS, require_format, table_writers
from kpms_zarr.compute.analysis.tables.table_rows import (
    write_bouts,
    write_counts,
    write_distances,
    write_frames,
)
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.epoch_tables import EpochsLike
from kpms_zarr.store.replacing import replaced
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.wording import listed

_MOST_KEYS = 2**62
_DICTIONARY = "columns.csv"


@dataclass(frozen=True)
class TableFile:
    """A file that was written: table, path, rows and bytes."""

    table: str
    path: str
    n_rows: int
    n_bytes: int


@dataclass(frozen=True)
class TablesSummary(ShownAsTable):
    """Result of :func:`tables`.

    Attributes
    ----------
    store, model, version : str
        Labels that the tables are of.
    epochs : str
        Version of the epochs of the store; "" = none from there.
    out : str
        The folder.
    n_rows : int
        Sessions and epochs.
    files : tuple of TableFile
    notes : tuple of str
    """

    store: str
    model: str
    version: str
    epochs: str
    out: str
    n_rows: int
    files: tuple[TableFile, ...]
    notes: tuple[str, ...]


def tables(
    store: StoreLike,
    *,
    model: str,
    out: str | os.PathLike[str],
    to: str = "parquet",
    version: str | None = None,
    epochs: EpochsLike | None = None,
    sessions: Sequence[str] | None = None,
    include: Sequence[str] | None = None,
    ngrams: int = 3,
    block_frames: int = BLOCK_FRAMES,
) -> TablesSummary:
    """Write the syllables of a model as plain tables, for any other program.

    The key of every table is (session, epoch); a session without epochs is one, whose name is
    empty. ``epochs``: what is known of each, and entropies; ``frames``: syllable, certainty,
    position, heading, speed and angular velocity of every frame of an epoch; ``bouts``;
    ``syllables``: frequencies, durations, speed and turning of each syllable that occurs;
    ``transitions``: pairs of bouts that touch, as count, bigram, row and column shares;
    ``ngrams``: longer runs of bouts; ``distances``: Jensen-Shannon distance between each two rows.
    Columns have their units in their names, those of position are those of the tracking file;
    ``columns.csv`` says what each means. Bouts, definitions and sources are those of
    :func:`~kpms_zarr.compute.analysis.tables.syllable_table.syllable_table`.
    One pass over the labels, block by block, whatever the size of the study.

    Parameters
    ----------
    store : path or URL
    model : str
    out : path
        Folder, made where it is missing; files of the same names are replaced, all at the end.
    to : str
        ``"parquet"`` (extra ``table``) or ``"csv"``.
    version : str, optional
        Of the labels (default: the current one).
    epochs : path, DataFrame, mapping or ``"none"``, optional
        In place of those of the store, see :func:`kpms_zarr.epochs`; ``"none"`` = sessions whole.
    sessions : sequence of str, optional
        Names, patterns, ``coordinate=value`` (default: all that have labels).
    include : sequence of str, optional
        Only these tables (default: all).
    ngrams : int
        Longest run of bouts in the table ``ngrams``, which begins with 3.
    block_frames : int
        Frames in memory at once.

    Returns
    -------
    TablesSummary

    Raises
    ------
    InputError
        When there is no such store, model or version; wrong epochs, sessions or tables; a place
        that is no folder; parquet without pyarrow. No file is written or replaced then.
    """
    folder = Path(out)
    wanted = _checked(folder, to, include, ngrams)
    labels = PosedLabels(store, model, version)
    states = state_coordinates(store, labels)
    taken = {column.name for columns in COLUMNS.values() for column in columns}
    rows = study_rows(store, labels, epochs=epochs, sessions=sessions, taken=sorted(taken))
    longest = tuple(range(3, ngrams + 1)) if "ngrams" in wanted else ()
    _check_ngrams(labels, rows, ngrams if longest else 0)
    columns = {name: _present(name, labels, rows, states) for name in wanted}
    folder.mkdir(exist_ok=True)
    with table_writers(folder, columns, to) as writers:
        usage = [np.zeros((rows.n_rows, labels.n_states), np.int64) for _ in range(2)]
        for one in rows.sessions:
            counter = EpochCounter(len(one.epochs.names), labels.n_states, longest)
            for frames, bouts in session_blocks(labels, one, block_frames):
                counter.add(frames, bouts)
                if "frames" in writers:
                    write_frames(writers["frames"], rows, one, frames, labels)
                if "bouts" in writers:
                    write_bouts(writers["bouts"], rows, one, bouts)
            counts = counter.counts()
            of = slice(one.first, one.first + len(one.epochs.names))
            usage[0][of], usage[1][of] = counts.n_frames, counts.n_bouts
            write_counts(writers, rows, one, counts, states)
        if "distances" in writers:
            write_distances(writers["distances"], rows, usage[0], usage[1])
    _write_dictionary(folder / _DICTIONARY, columns)
    files = [
        TableFile(
            name,
            str(folder / f"{name}.{to}"),
            writer.n_rows,
            (folder / f"{name}.{to}").stat().st_size,
        )
        for name, writer in writers.items()
    ]
    return TablesSummary(
        os.fspath(store), model, labels.version, rows.version, str(folder), rows.n_rows,
        tuple(files), rows.notes,
    )  # fmt: skip


# ------------------------------------------------------------------ what is asked for


def _checked(folder: Path, to: str, include: Sequence[str] | None, ngrams: int) -> tuple[str, ...]:
    """Tables that are wanted, in their order.

    Raises
    ------
    InputError
    """
    problems = []
    if to not in FORMATS:
        problems.append(
            Problem("parquet or csv", repr(to), "`to=`", "write `to='csv'` or `to='parquet'`")
        )
    include = [include] if isinstance(include, str) else include
    unknown = [name for name in include or () if name not in TABLES]
    if unknown or (include is not None and not include):
        problems.append(
            Problem(
                f"some of the tables {', '.join(TABLES)}",
                listed(map(repr, unknown)) or "none",
                "`include=`",
                "name some of these, or leave it out for all of them",
            )
        )
    if isinstance(ngrams, bool) or not isinstance(ngrams, int | np.integer) or ngrams < 2:
        problems.append(
            Problem(
                "a number of bouts, 2 or more",
                repr(ngrams),
                "`ngrams=`",
                "leave it out to have 3; 2 = none beside the transitions",
            )
        )
    if folder.exists() and not folder.is_dir():
        problems.append(
            Problem("a folder for the tables", "a file of that name", str(folder), "name a folder")
        )
    elif not folder.absolute().parent.is_dir():
        problems.append(
            Problem(
                "a folder that exists",
                "no such folder",
                str(folder.parent),
                "make the folder first, or name another place with `out=`",
            )
        )
    if problems:
        raise InputError.of(problems)
    require_format(to)
    return tuple(name for name in TABLES if include is None or name in include)


def _check_ngrams(labels: PosedLabels, rows: StudyRows, longest: int) -> None:
    n_epochs = max(len(one.epochs.names) for one in rows.sessions)
    n_states = max(2, labels.n_states)
    most = max(n for n in range(2, 63) if n_states**n * n_epochs < _MOST_KEYS)
    if longest > most:
        raise InputError(
            expected=f"runs of at most {most} bouts, with {labels.n_states} syllables",
            found=str(longest),
            where="`ngrams=`",
            fix="ask for shorter ones",
        )


def _present(
    table: str, labels: PosedLabels, rows: StudyRows, states: Mapping[str, np.ndarray]
) -> tuple[TableColumn, ...]:
    """Columns that a table has for this model, and those of the sessions."""
    left = set()
    left |= {"name"} if "name" not in states else set()
    left |= {"family"} if "family" not in states else set()
    if not labels.has_certainty:
        left |= {"certainty", "mean_certainty"}
    if not labels.space:
        left |= {"centroid_x_units", "centroid_y_units", "speed_units_per_s",
                 "mean_speed_units_per_s", "std_speed_units_per_s"}  # fmt: skip
    left |= {"height_units"} if len(labels.space) < 3 else set()
    if not labels.has_heading:
        left |= {"heading_rad", "angular_velocity_rad_per_s", "mean_turning_rad_per_s",
                 "mean_absolute_turning_rad_per_s", "turning_resultant_length",
                 "turning_circular_std_rad", "mean_heading_rad",
                 "heading_resultant_length"}  # fmt: skip
    found = tuple(column for column in COLUMNS[table] if column.name not in left)
    if table in ("epochs", "syllables"):
        found = (*found[:3], *_of_sessions(rows), *found[3:])
    return found


def _of_sessions(rows: StudyRows) -> list[TableColumn]:
    kinds = {"O": "text", "f": "float"}
    return [
        TableColumn(name, kinds.get(values.dtype.kind, "int"), "what people said of the session",
                    is_signed=True)
        for name, values in rows.coordinates.items()
        if name not in ("session", "epoch", "condition")
    ]  # fmt: skip


def _write_dictionary(path: Path, tables: Mapping[str, Sequence[TableColumn]]) -> None:
    """Say what each column of each table means."""
    with replaced(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("table", "column", "meaning"))
        for table, columns in tables.items():
            writer.writerows((table, column.name, column.meaning) for column in columns)
