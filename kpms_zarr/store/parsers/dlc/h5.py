"""DeepLabCut h5 files, which are pandas tables, read by rows with h5py alone."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import (
    FileHeader,
    Parser,
    PoseBlock,
    ReadOptions,
    no_frames,
    remembered,
    some,
)
from kpms_zarr.store.parsers.dlc.header import (
    SCAN_FRAMES,
    Layout,
    lay_out,
    of_appearing,
    refuse_labelled_frames,
)
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.hdf5.reading import DAMAGE, opened, text
from kpms_zarr.store.parsers.time.clock import ROWS, Timing
from kpms_zarr.store.parsers.time.row_index import RowIndex

# Keys that DeepLabCut itself gives its tables.
_DLC_KEYS = ("df_with_missing", "tracks")

_INDEX_AT_ONCE = 500_000

_Columns = list[tuple[str, ...]]


@dataclass(frozen=True)
class _Values:
    """Some columns of a table: pandas stores columns of the same dtype together."""

    dataset: str
    field: str | None
    columns: _Columns
    frames_first: bool = True


@dataclass(frozen=True)
class _PandasTable:
    """One pandas table of a file."""

    key: str
    names: tuple[str, ...]
    columns: _Columns
    values: tuple[_Values, ...]
    n_frames: int
    n_index: int
    first_index: str
    index: str = ""
    index_field: str = ""
    n_written: int = 0


def sniff(path: Path) -> str | None:
    """Recognise pandas tables with DeepLabCut's columns; see `Parser`."""
    for key, table in tables_in(path):
        if isinstance(table, InputError):
            # Claimed all the same, so that `inspect` says what is wrong with it.
            return f"pandas table `/{key}`"
        if _is_tracking(table):
            return f"pandas table `/{key}` with columns x, y"
    return None


def inspect(path: Path, options: ReadOptions) -> FileHeader:
    """Read the column names, and for multi-animal files find who appears; see `Parser`."""
    table, layout = _inspected(path)
    return layout.header(PARSER.name, path, _timing(path, table, options))


def _timing(path: Path, table: _PandasTable, options: ReadOptions) -> Timing:
    """What the row index says of the frames."""
    if options.time_unit == ROWS or not table.index:
        return Timing()
    where = f"{path}, table `/{table.key}`"
    with opened(path) as file:
        data = hdf5.dataset(file, table.index)
        if data is None:
            return Timing()
        hdf5.check_inside(data, where)
        hdf5.check_size(data, where)
        kind = text(data.attrs.get("index_kind" if table.index_field else "kind", ""))
        dtype = data.dtype[table.index_field] if table.index_field else data.dtype
        if dtype.kind not in "fiuS":
            note = "the row index is neither numbers nor text: rows are read as consecutive frames"
            return Timing(notes=(note,))
        stated = "ns" if kind.startswith(("datetime64", "timedelta64")) else None
        index = RowIndex(unit=options.time_unit, where=where, stated=stated)
        rows = data.fields(table.index_field) if table.index_field else data
        for start in range(0, table.n_frames, _INDEX_AT_ONCE):
            index.add(np.asarray(rows[start : start + _INDEX_AT_ONCE]))
        return index.timing()


def read(path: Path, block_frames: int, options: ReadOptions) -> Iterator[PoseBlock]:
    """Stream the frames; see `Parser`."""
    table, layout = _inspected(path)
    with opened(path) as file:
        yield from _blocks(file, table, layout, path, block_frames)


@remembered
def _inspected(path: Path) -> tuple[_PandasTable, Layout]:
    with opened(path) as file:
        return _inspect(file, path)


def _inspect(file: h5py.File, path: Path) -> tuple[_PandasTable, Layout]:
    table, notes = _choose(file, path)
    where = f"{path}, table `/{table.key}`"
    refuse_labelled_frames(table.first_index, table.n_index, where)
    if table.n_frames == 0:
        raise InputError.of([no_frames(where)])
    layout = lay_out(table.names, table.columns, where)
    _check_values(file, table, layout, where)
    if table.n_written > table.n_frames:
        written = f"{table.n_written} frames were written, {table.n_frames} are in the file"
        notes = (*notes, f"{written}: it may have been cut")
    layout = replace(layout, notes=(*notes, *layout.notes))
    scan = partial(_blocks, file, table, layout, path, SCAN_FRAMES)
    return table, of_appearing(layout, scan, where)


def _pandas_keys(file: h5py.File) -> list[str]:
    keys: list[str] = []

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Group) or "pandas_type" not in item.attrs:
            return
        if text(item.attrs["pandas_type"]) in ("frame", "frame_table"):
            keys.append(name)

    # Follows no external or soft links, so stays in this file.
    file.visititems(visit)
    return keys


@remembered
def tables_in(path: Path) -> list[tuple[str, _PandasTable | InputError]]:
    """All pandas tables of a file by key, or what is wrong with them."""
    found: list[tuple[str, _PandasTable | InputError]] = []
    with opened(path) as file:
        for key in _pandas_keys(file):
            try:
                found.append((key, _describe(file, key, path)))
            except InputError as error:
                found.append((key, error))
    return found


def _is_tracking(table: _PandasTable) -> bool:
    coords = {column[-1] for column in table.columns if len(column) > 1}
    return {"x", "y"} <= coords


def _choose(file: h5py.File, path: Path) -> tuple[_PandasTable, tuple[str, ...]]:
    """Choose the table to read, with a note if there is more than one."""
    tables: list[_PandasTable] = []
    for _, table in tables_in(path):
        if isinstance(table, InputError):
            raise table
        tables += [table] if _is_tracking(table) else []
    if not tables:
        raise InputError(
            expected="a pandas table with DeepLabCut's columns",
            found=f"an HDF5 file with {some([text(key) for key in file]) or 'nothing in it'}",
            where=str(path),
            fix="check that DeepLabCut wrote this file, or name its format with `format=`",
        )
    same = all(t.columns == tables[0].columns and t.n_frames == tables[0].n_frames for t in tables)
    known = [table for key in _DLC_KEYS for table in tables if table.key == key]
    if len(tables) == 1:
        return tables[0], ()
    if len(known) == 1 or (known and same):
        chosen = known[0]
        others = [f"/{t.key}, {t.n_frames} frames" for t in tables if t is not chosen]
        note = f"read table `/{chosen.key}`, {chosen.n_frames} frames; left out {some(others)}"
        return chosen, (note,)
    raise InputError(
        expected="one tracking table, or one with a name that DeepLabCut gives "
        f"({', '.join(_DLC_KEYS)})",
        found=f"the tables {some([f'/{t.key}, {t.n_frames} frames' for t in tables])}",
        where=str(path),
        fix="write the right one to a file of its own: "
        "pandas.read_hdf(file, key=...).to_hdf(new_file, key='df_with_missing')",
    )


def _describe(file: h5py.File, key: str, path: Path) -> _PandasTable:
    group = file[key]
    try:
        if text(group.attrs["pandas_type"]) == "frame_table":
            return _describe_table(group, key)
        return _describe_fixed(group, key)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            expected="a pandas table with plain column names",
            found=f"one that cannot be read ({error})",
            where=f"{path}, table `/{key}`",
            fix="the file may be damaged, or unsafe if it is not yours: export it again",
        ) from error


def _describe_table(group: h5py.Group, key: str) -> _PandasTable:
    """Describe pandas' `table` format: one compound dataset, names in pickled attributes."""
    if "table" not in group:
        raise ValueError("it has no rows: writing it may have failed")
    rows = group["table"]
    # HDF5 reads rows that were never written as zeros, so a wrong length would not show.
    n_written = int(rows.attrs.get("NROWS", len(rows)))
    if len(rows) > n_written:
        raise ValueError(f"{len(rows)} rows where {n_written} were written")
    columns = _named(_unpickle(group.attrs["non_index_axes"])[0][1])
    names = _unpickle(group.attrs["info"]).get(1, {}).get("names") or ()
    fields = [name for name in rows.dtype.names if name.startswith("values_block_")]
    values = tuple(
        _Values(rows.name, field, _named(_unpickle(rows.attrs[f"{field}_kind"])))
        for field in fields
    )
    one_index = "index" in rows.dtype.names
    first = text(rows.fields("index")[:1][0]) if one_index and len(rows) else ""
    names = tuple(str(name or "") for name in names)
    if not one_index:
        return _PandasTable(key, names, columns, values, len(rows), 2, first, n_written=n_written)
    return _PandasTable(
        key, names, columns, values, len(rows), 1, first, rows.name, "index", n_written
    )


def _describe_fixed(group: h5py.Group, key: str) -> _PandasTable:
    """Describe pandas' `fixed` format: plain datasets, names as levels and codes."""
    names, columns = _fixed_columns(group, "axis0")
    values = tuple(
        _Values(
            dataset := group[f"block{block}_values"].name,
            None,
            _fixed_columns(group, f"block{block}_items")[1],
            bool(group[dataset].attrs.get("transposed", True)),
        )
        for block in range(int(group.attrs["nblocks"]))
    )
    if "axis1" not in group:
        n_index = int(group.attrs["axis1_nlevels"])
        n_frames = len(group["axis1_label0"])
        return _PandasTable(key, names, columns, values, n_frames, n_index, "")
    index = group["axis1"]
    # pandas writes one dummy row for an empty axis, and its real shape as an attribute.
    n_frames = 0 if "shape" in index.attrs else len(index)
    first = text(index[0]) if n_frames and index.dtype.kind == "S" else ""
    return _PandasTable(key, names, columns, values, n_frames, 1, first, index.name)


def _fixed_columns(group: h5py.Group, axis: str) -> tuple[tuple[str, ...], _Columns]:
    if f"{axis}_nlevels" not in group.attrs:
        # One level of names: somebody else's table.
        return (), []
    names, levels = [], []
    for number in range(int(group.attrs[f"{axis}_nlevels"])):
        level, codes = group[f"{axis}_level{number}"], group[f"{axis}_label{number}"]
        for data in (level, codes):
            hdf5.check_size(data, f"{group.file.filename}, table `{group.name}`")
        labels = [text(label) for label in level[:]]
        levels.append([labels[code] if code >= 0 else "" for code in codes[:]])
        name = text(level.attrs.get("name", b""))
        names.append("" if name == "N." else name)  # a pickled None
    return tuple(names), list(zip(*levels, strict=True))


def _named(columns: Any) -> _Columns:
    return [
        tuple(text(level) for level in column) if isinstance(column, tuple) else (text(column),)
        for column in columns
    ]


def _check_values(file: h5py.File, table: _PandasTable, layout: Layout, where: str) -> None:
    """Check that every column to read is in a block, of numbers, with all its frames."""
    wanted = {table.columns[number] for number in layout.used}
    problem = ""
    for block in table.values:
        dataset = hdf5.dataset(file, block.dataset)
        if dataset is None:  # a link to somewhere else
            continue
        dtype = dataset.dtype[block.field] if block.field else dataset.dtype
        here = wanted.intersection(block.columns)
        wanted -= here
        names = some([" ".join(column[1:]) for column in block.columns if column in here])
        if here:
            hdf5.check_inside(dataset, where)
            hdf5.check_size(dataset, where)
        if here and dtype.base.kind not in "fiu":
            problem = f"text or objects in the columns {names}"
        elif here and not problem:
            frames = dataset.shape[0 if block.frames_first else -1]
            width = dtype.shape[0] if block.field else dataset.shape[1 if block.frames_first else 0]
            if (frames, width) != (table.n_frames, len(block.columns)):
                problem = f"{frames} frames of {width} values in the columns {names}"
    if wanted and not problem:
        problem = f"no values for {some(sorted(' '.join(column[1:]) for column in wanted))}"
    if problem:
        raise InputError(
            expected=f"numbers for {table.n_frames} frames in every column",
            found=problem,
            where=where,
            fix="export the file again; with pandas, convert the table to float before to_hdf",
        )


def _blocks(
    file: h5py.File, table: _PandasTable, layout: Layout, path: Path, block_frames: int
) -> Iterator[PoseBlock]:
    place = {table.columns[number]: k for k, number in enumerate(layout.used)}
    # Kept open, so that HDF5 keeps the chunk that it has unpacked last.
    datasets = [hdf5.dataset(file, block.dataset) for block in table.values]
    for start in range(0, table.n_frames, block_frames):
        stop = min(start + block_frames, table.n_frames)
        values = np.empty((stop - start, len(layout.used)))
        for data, block in zip(datasets, table.values, strict=True):
            pairs = [(place[c], n) for n, c in enumerate(block.columns) if c in place]
            if not pairs:
                continue
            assert data is not None
            into, out_of = zip(*pairs, strict=True)
            try:
                # NaN of any bit pattern is missing; numpy warns of some when it widens them.
                with np.errstate(invalid="ignore"):
                    values[:, into] = _rows(data, block, start, stop)[:, out_of]
            except (OSError, RuntimeError) as error:
                raise InputError(
                    expected=f"frames {start} to {stop - 1}",
                    found=f"data that HDF5 cannot read ({error})",
                    where=f"{path}, table `/{table.key}`",
                    fix="the file is damaged: copy or export it again",
                ) from error
        yield layout.block(start, values)


def _rows(data: h5py.Dataset, block: _Values, start: int, stop: int) -> np.ndarray:
    if block.field:
        return data.fields(block.field)[start:stop]
    return data[start:stop] if block.frames_first else data[:, start:stop].T


class _Safe:
    """Stands in for a callable that a pickle names; a pickle cannot alter it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("refused: a pickle that alters a function")


class _Dtype:
    """The little of numpy.dtype that a pickled scalar needs."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[iufbSU]\d{1,4}", code):
            raise pickle.UnpicklingError(f"refused: values of dtype {code!r}")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def value(self, raw: bytes) -> Any:
        return np.frombuffer(raw, dtype=self.order + self.code, count=1)[0].item()


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_SAFE = {
    ("numpy", "dtype"): _Safe(_Dtype),
    **{(module, "scalar"): _Safe(lambda dtype, raw: dtype.value(raw)) for module in _NUMPY},
    ("_codecs", "encode"): _Safe(lambda text, _: text.encode("latin-1")),
    # Older pandas pickled its own list class.
    ("pandas.core.base", "FrozenList"): _Safe(list),
    ("pandas.core.indexes.frozen", "FrozenList"): _Safe(list),
}


class _NamesOnly(pickle.Unpickler):
    """Unpickles containers, text and numbers; anything that could run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _SAFE[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused: column names that call {module}.{name}"
            ) from None


def _unpickle(attribute: Any) -> Any:
    data = attribute if isinstance(attribute, bytes) else str(attribute).encode("latin-1")
    return _NamesOnly(io.BytesIO(bytes(data)), encoding="utf-8", errors="replace").load()


PARSER = Parser("dlc_h5", "DeepLabCut h5", sniff, inspect, read)
