"""Columns of csv and parquet files, a batch of rows at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.errors import InputError, unreadable
from kpms_zarr.store.parsers.base import no_package, some
from kpms_zarr.store.parsers.text.reading import (
    Dialect,
    Table,
    dialect_of,
    first_rows,
    read_pieces,
    sniffed_rows,
)
from kpms_zarr.store.parsers.text.rows import Texts

_CELLS_AT_ONCE = 500_000
_PARQUET = b"PAR1"
_MOST_FOOTER_BYTES = 1_000_000
# Code of this type in the footer, which is Thrift.
_STRUCTS = 12


@dataclass(frozen=True)
class Batch:
    """Consecutive rows.

    Attributes
    ----------
    row : int
        Number of the first row, as people count them.
    numbers : ndarray, (row, column) float64
        The columns of numbers, in the order asked for; NaN = missing.
    texts : sequence of Texts
        One for each column of text asked for.
    """

    row: int
    numbers: np.ndarray
    texts: Sequence[Texts]


def is_parquet(path: Path) -> bool:
    """Whether it begins and ends like one; raises OSError."""
    with path.open("rb") as raw:
        if raw.read(4) != _PARQUET:
            return False
        raw.seek(-4, io.SEEK_END)
        return raw.read(4) == _PARQUET


def names_of(path: Path) -> list[str]:
    """Names of the columns; an InputError where they cannot be read."""
    try:
        parquet = is_parquet(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if parquet:
        with _parquet(path) as file:
            return [str(name).strip() for name in file.schema_arrow.names]
    return _stripped(first_rows(path))


def sniffed_names(path: Path) -> list[str]:
    """Names of the columns, or what looks like them where no library can read them.

    Raises OSError, ValueError, or what a library raises for a damaged file.
    """
    if is_parquet(path):
        try:
            import pyarrow.parquet
        except ImportError:
            return _names_in_footer(path)
        return [str(name).strip() for name in pyarrow.parquet.read_schema(path).names]
    return _stripped(sniffed_rows(path))


def batches(
    path: Path,
    numeric: Sequence[int],
    textual: Sequence[int],
    missing: Sequence[str],
    dialect: Dialect | None = None,
) -> Iterator[Batch]:
    """The rows of a file.

    Parameters
    ----------
    path : Path
    numeric, textual : sequence of int
        Numbers of the columns to read, as numbers and as text.
    missing : sequence of str
        Texts that stand for a missing number, besides the usual ones.
    dialect : Dialect, optional
        How a file of text is read.

    Raises
    ------
    InputError
        For rows of the wrong length and for text where numbers should be, with their number.
    """
    if is_parquet(path):
        with _parquet(path) as file:
            yield from _parquet_batches(file, path, numeric, textual)
        return
    names = names_of(path)
    table = Table(
        path,
        n_lines=1,
        n_fields=len(names),
        columns=tuple(numeric),
        names=tuple(names[number] for number in numeric),
        dialect=dialect or dialect_of(path),
        texts=tuple(textual),
        missing=tuple(missing),
        dtype=np.float64,
    )
    row = 2
    for piece in read_pieces(table):
        yield Batch(row, piece.values, piece.texts)
        row += len(piece.values)


def _stripped(rows: list[list[str]]) -> list[str]:
    """Names in the first row."""
    return [cell.strip() for cell in rows[0]] if rows else [""]


# ------------------------------------------------------------------ parquet


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Open; what pyarrow dislikes, here or in the body, is an InputError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise no_package("pyarrow", "parquet", "table", str(path)) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise InputError(
            expected="a complete parquet file",
            found=f"one that pyarrow cannot read ({error})",
            where=str(path),
            fix="the file is damaged: copy or export it again",
        ) from error


def _parquet_batches(
    file: Any, path: Path, numeric: Sequence[int], textual: Sequence[int]
) -> Iterator[Batch]:
    names = file.schema_arrow.names
    _check_types(file, path, numeric, textual)
    wanted = [names[n] for n in dict.fromkeys([*numeric, *textual])]
    row = 1
    rows_at_once = max(64, _CELLS_AT_ONCE // max(1, len(wanted)))
    for batch in file.iter_batches(batch_size=rows_at_once, columns=wanted):
        numbers = [_numbers(batch.column(names[n])) for n in numeric]
        texts = [_texts(batch.column(names[n])) for n in textual]
        if len(batch):
            empty = np.empty((len(batch), 0))
            yield Batch(row, np.column_stack(numbers) if numbers else empty, texts)
        row += len(batch)


def _plain_type(kind: Any) -> Any:
    import pyarrow

    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def _check_types(file: Any, path: Path, numeric: Sequence[int], textual: Sequence[int]) -> None:
    from pyarrow import types

    schema = file.schema_arrow
    names, kinds = schema.names, schema.types  # lists that are made anew each time
    wrong = []
    for n in numeric:
        kind = _plain_type(kinds[n])
        is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        if not (is_number or types.is_null(kind)):
            wrong.append(f"{names[n]}, {kind}, no numbers")
    for n in textual:
        kind = _plain_type(kinds[n])
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
            wrong.append(f"{names[n]}, {kind}, no text")
    if wrong:
        raise InputError(
            expected="columns of numbers for coordinates, of text for names",
            found=some(wrong),
            where=str(path),
            fix="name other columns with `mapping=`, or convert these",
        )


def _numbers(column: Any) -> np.ndarray:
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = column.cast(pyarrow.float64(), safe=False)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _texts(column: Any) -> Texts:
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = column.cast(pyarrow.string()).fill_null("").dictionary_encode()
    names = [str(name).strip() for name in column.dictionary.to_pylist()]
    return column.indices.to_numpy(zero_copy_only=False), names


def _names_in_footer(path: Path) -> list[str]:
    """Names of columns: text of the footer after its length, as the schema has it."""
    with path.open("rb") as raw:
        raw.seek(-8, io.SEEK_END)
        size = int.from_bytes(raw.read(4), "little")
        raw.seek(-min(8 + size, path.stat().st_size), io.SEEK_END)
        footer = raw.read(min(size, _MOST_FOOTER_BYTES))
    # Version, then the list of the schema: its length in half a byte, or after it.
    start = footer.find(b"\x19")
    if start < 0 or start + 4 > len(footer) or footer[start + 1] & 15 != _STRUCTS:
        return []
    n_columns = footer[start + 1] >> 4
    if n_columns == 15:
        n_columns = footer[start + 2] & 127
        n_columns |= (footer[start + 3] << 7) if footer[start + 2] & 128 else 0
    found: list[str] = []
    at = start + 2
    while len(found) < n_columns and 0 <= (at := footer.find(b"\x18", at)) < len(footer) - 1:
        name = footer[at + 2 : at + 2 + footer[at + 1]].decode("utf-8", "replace")
        if name.isprintable() and name:
            found.append(name)
            at += 1 + footer[at + 1]
        at += 1
    # The first is the name of the whole schema.
    return found[1:]
