"""Plain files of tables, written a batch of rows at a time: parquet or csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from kpms_zarr.compute.analysis.tables.table_columns import TableColumn
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.replacing import replaced

FORMATS = ("parquet", "csv")
_ROWS_AT_ONCE = 262_144


class Coded(NamedTuple):
    """Text of many rows, few of which differ.

    Attributes
    ----------
    code : ndarray, (row,) int
    texts : sequence of str
    """

    code: np.ndarray
    texts: Sequence[str]


class _Sink(Protocol):
    def write(self, columns: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class TableWriter:
    """Writes one table.

    Parameters
    ----------
    path : Path
    columns : sequence of TableColumn
    to : str
        One of :data:`FORMATS`.

    Attributes
    ----------
    n_rows : int
        Written so far.
    """

    def __init__(self, path: Path, columns: Sequence[TableColumn], to: str) -> None:
        self.columns, self.n_rows = tuple(columns), 0
        self._sink: _Sink = (_Parquet if to == "parquet" else _Csv)(path, self.columns)

    def write(self, values: Mapping[str, np.ndarray | Coded]) -> None:
        """Write rows: an array (row,) or coded text for each column."""
        names = [column.name for column in self.columns]
        n_rows = len(_code(values[names[0]]))
        for start in range(0, n_rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            self._sink.write({name: _part(values[name], part) for name in names})
        self.n_rows += n_rows

    def close(self) -> None:
        """Finish the file."""
        self._sink.close()


def require_format(to: str) -> None:
    """Refuse parquet where pyarrow is not installed (InputError)."""
    if to == "parquet":
        _arrow()


@contextmanager
def table_writers(
    folder: Path, tables: Mapping[str, Sequence[TableColumn]], to: str
) -> Iterator[dict[str, TableWriter]]:
    """Writers of some tables, whose files take their places together unless something is raised."""
    with ExitStack() as places:
        writers = {}
        for name, columns in tables.items():
            partial = places.enter_context(replaced(folder / f"{name}.{to}"))
            writers[name] = TableWriter(partial, columns, to)
        try:
            yield writers
        finally:
            for writer in writers.values():
                writer.close()


def _code(values: np.ndarray | Coded) -> np.ndarray:
    return values.code if isinstance(values, Coded) else values


def _part(values: np.ndarray | Coded, part: slice) -> np.ndarray | Coded:
    return Coded(values.code[part], values.texts) if isinstance(values, Coded) else values[part]


def _is_missing(column: TableColumn, values: np.ndarray) -> np.ndarray | None:
    """Mask of missing numbers; None where no number can be."""
    if column.kind in ("float", "float32"):
        return np.isnan(values)
    return None if column.is_signed else values < 0


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            expected="the package pyarrow, which writes parquet files",
            found="none that can be imported",
            where="`to='parquet'`",
            fix="pip install 'kpms_zarr[table]', or write `to='csv'`",
        ) from error
    return pyarrow


class _Parquet:
    """A parquet file, a row group for each so many rows."""

    def __init__(self, path: Path, columns: Sequence[TableColumn]) -> None:
        arrow = self._arrow = _arrow()
        kinds = {
            "text": arrow.string(),
            "int": arrow.int64(),
            "float": arrow.float64(),
            "float32": arrow.float32(),
        }
        self._columns = columns
        self._schema = arrow.schema(
            [
                arrow.field(one.name, kinds[one.kind], metadata={"meaning": one.meaning})
                for one in columns
            ]
        )
        self._file = arrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def write(self, columns: Mapping[str, Any]) -> None:
        arrays = [self._array(column, columns[column.name]) for column in self._columns]
        self._waiting.append(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        if sum(len(one) for one in self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(self._arrow.concat_tables(self._waiting))
        self._waiting = []

    def _array(self, column: TableColumn, values: np.ndarray | Coded) -> Any:
        arrow = self._arrow
        if isinstance(values, Coded):
            texts = arrow.array([str(text) for text in values.texts], arrow.string())
            code = arrow.array(values.code.astype(np.int32))
            return arrow.DictionaryArray.from_arrays(code, texts).cast(arrow.string())
        if column.kind == "text":
            return arrow.array([str(text) for text in values], arrow.string())
        kind = self._schema.field(column.name).type
        return arrow.array(values, type=kind, mask=_is_missing(column, values))


class _Csv:
    """A csv file in UTF-8, cells of missing numbers empty."""

    def __init__(self, path: Path, columns: Sequence[TableColumn]) -> None:
        self._columns = columns
        self._file = path.open("w", encoding="utf-8", newline="")
        pd.DataFrame(columns=[one.name for one in columns]).to_csv(self._file, index=False)

    def write(self, columns: Mapping[str, Any]) -> None:
        frame = pd.DataFrame(
            {one.name: self._cells(one, columns[one.name]) for one in self._columns}
        )
        frame.to_csv(self._file, index=False, header=False)

    def close(self) -> None:
        self._file.close()

    def _cells(self, column: TableColumn, values: np.ndarray | Coded) -> Any:
        if isinstance(values, Coded):
            texts = np.array([str(text) for text in values.texts], dtype=object)
            return texts[values.code]
        if column.kind != "int":
            return values
        missing = _is_missing(column, values)
        if missing is None or not missing.any():
            return values
        return pd.arrays.IntegerArray(values.astype(np.int64), missing)
