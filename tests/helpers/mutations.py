"""Ways to spoil a file: bytes of a good file and a random generator -> bytes of a damaged one.

A mutation is a function (random, source, path) that gives the new content, or content and another
file name; ``None`` when it cannot be done to this file. Which ones apply is decided by ``kinds``
of the source.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Random = np.random.Generator
Made = bytes | tuple[bytes, str] | None


@dataclass(frozen=True)
class Source:
    """A good file.

    Attributes
    ----------
    name : str
        In the ids of cases.
    file_name : str
    data : bytes
    kinds : tuple of str
        Of ``text``, ``json``, ``hdf5``, ``mat5``, ``netcdf3``, ``parquet``.
    """

    name: str
    file_name: str
    data: bytes
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Mutation:
    """How to spoil a file.

    Attributes
    ----------
    make : callable (Random, Source, list of Source) -> Made
        With all sources, of which some mutations borrow.
    kind : str
        Kind of files it applies to, "" all.
    n : int
        How many different results are worth making of one file.
    is_heavy : bool
        Whether it takes seconds.
    """

    make: Callable[[Random, Source, list[Source]], Made]
    kind: str = ""
    n: int = 1
    is_heavy: bool = False


MUTATIONS: dict[str, Mutation] = {}


def mutation(kind: str = "", n: int = 1, *, is_heavy: bool = False) -> Callable[[Any], Any]:
    def add(make: Any) -> Any:
        MUTATIONS[make.__name__] = Mutation(make, kind, n, is_heavy)
        return make

    return add


def mutate(source: Source, name: str, seed: int, sources: list[Source]) -> tuple[bytes, str] | None:
    """Content and file name of a case; None where the mutation cannot be made."""
    random = np.random.default_rng(zlib.crc32(f"{source.name}~{name}~{seed}".encode()))
    made = MUTATIONS[name].make(random, source, sources)
    if made is None or isinstance(made, tuple):
        return made
    return made, f"mutant{Path(source.file_name).suffix}"


# ------------------------------------------------------------------ any bytes


def _span(random: Random, n: int, longest: int = 4096) -> tuple[int, int]:
    start = int(random.integers(0, n))
    return start, min(n, start + int(random.integers(1, max(2, min(longest, n // 2)))))


@mutation(n=4)
def cut_end(random, source, sources):
    n = len(source.data)
    # Anywhere, or so near the end that only a table of contents suffers.
    return source.data[: -random.integers(1, min(n, 64)) if random.random() < 0.3 else
                       random.integers(1, n)]  # fmt: skip


@mutation()
def cut_begin(random, source, sources):
    return source.data[random.integers(1, len(source.data)) :]


@mutation(n=4)
def flip_bits(random, source, sources):
    data = bytearray(source.data)
    for at in random.integers(0, len(data), random.integers(1, 9)):
        data[at] ^= 1 << random.integers(0, 8)
    return bytes(data)


@mutation(n=3)
def flip_bytes(random, source, sources):
    data = bytearray(source.data)
    for at in random.integers(0, len(data), random.integers(1, 60)):
        data[at] = random.integers(0, 256)
    return bytes(data)


_SIGNATURES = (
    b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"BTHD", b"BTLF", b"FADB",
    b"\x89HDF", b"PAR1", b"CDF", b"MATLAB", b"pandas", b"deflate",
)  # fmt: skip


def _place(random: Random, data: bytes | bytearray) -> int:
    """Where the structure of a file is: behind a signature, or near its beginning or its end."""
    found = []
    for signature in _SIGNATURES:
        start = data.find(signature)
        while start >= 0 and len(found) < 5000:
            found.append(start)
            start = data.find(signature, start + 1)
    chance = random.random()
    if found and chance < 0.6:
        at = found[random.integers(0, len(found))] + random.integers(0, 96)
    elif chance < 0.8:
        at = random.integers(0, min(len(data), 768))
    else:
        at = len(data) - random.integers(1, min(len(data), 768) + 1)
    return int(min(at, len(data) - 1))


@mutation(n=6)
def flip_structure(random, source, sources):
    data = bytearray(source.data)
    for _ in range(random.integers(1, 4)):
        at = _place(random, data)
        data[at] ^= 1 << random.integers(0, 8)
    return bytes(data)


_EXTREME = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 2**62,
            2**63 - 1, 2**63, 2**64 - 1, 65536, 2**20, 2**28)  # fmt: skip


@mutation(n=6)
def extreme_integer(random, source, sources):
    """A length, a count or an address that is far off."""
    data = bytearray(source.data)
    for _ in range(random.integers(1, 3)):
        size = int(random.choice([1, 2, 4, 8]))
        at = max(0, min(_place(random, data), len(data) - size)) // size * size
        value = int(_EXTREME[random.integers(0, len(_EXTREME))]) % 256**size
        data[at : at + size] = value.to_bytes(size, "big" if random.random() < 0.2 else "little")
    return bytes(data)


@mutation(n=2)
def zeros(random, source, sources):
    start, stop = _span(random, len(source.data))
    return source.data[:start] + bytes(stop - start) + source.data[stop:]


@mutation()
def ones(random, source, sources):
    start, stop = _span(random, len(source.data), 512)
    return source.data[:start] + b"\xff" * (stop - start) + source.data[stop:]


@mutation()
def noise(random, source, sources):
    start, stop = _span(random, len(source.data))
    return source.data[:start] + random.bytes(stop - start) + source.data[stop:]


@mutation()
def hole(random, source, sources):
    start, stop = _span(random, len(source.data))
    return source.data[:start] + source.data[stop:]


@mutation()
def repeated(random, source, sources):
    start, stop = _span(random, len(source.data))
    return source.data[:stop] + source.data[start:]


@mutation()
def exchanged(random, source, sources):
    n = len(source.data)
    size = int(random.integers(1, max(2, n // 4)))
    a, b = sorted(int(at) for at in random.integers(0, n - size + 1, 2))
    if b < a + size:
        return None
    data = source.data
    return (
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
    )


@mutation()
def doubled(random, source, sources):
    return source.data * 2


@mutation()
def longer(random, source, sources):
    return source.data + (random.bytes(999) if random.random() < 0.5 else bytes(99_999))


@mutation()
def empty(random, source, sources):
    return b""


@mutation()
def tiny(random, source, sources):
    return source.data[: random.integers(1, 20)]


@mutation()
def only_zeros(random, source, sources):
    return bytes(len(source.data))


@mutation(n=2)
def head_of_another(random, source, sources):
    """The beginning of a file of another format, the rest of this one."""
    other = sources[random.integers(0, len(sources))]
    n = int(random.choice([4, 8, 128, 512, 2048]))
    return other.data[:n] + source.data[n:]


_SUFFIXES = (".csv", ".h5", ".slp", ".nwb", ".nc", ".mat", ".json", ".parquet", ".txt", "", ".H5")


@mutation(n=2)
def other_extension(random, source, sources):
    suffix = _SUFFIXES[random.integers(0, len(_SUFFIXES))]
    data = source.data
    if random.random() < 0.5:  # changed, so that it is no copy of what is in the store
        data = flip_bits(random, source, sources)
    return data, f"mutant{suffix}"


_FILE_NAMES = (b"a\xff.x", b"line\nbreak.x", b"n" * 240 + b".x", "\U0001f42d é.x".encode(),
               b"-rf.x", b"[a-z]*?.x", b"a b,c;d.x", b".hidden.x", b"..x", b"%s{0}.x", b"a\\b.x",
               b"tab\there.x", b"a\x01.x", b"x.zarr")  # fmt: skip


@mutation(n=3)
def file_name(random, source, sources):
    name = os.fsdecode(_FILE_NAMES[random.integers(0, len(_FILE_NAMES))])
    suffix = Path(source.file_name).suffix
    data = source.data + b"\n"  # so that it is no copy of what is in the store
    return data, name.replace(".x", suffix) if name.endswith(".x") else name


# ------------------------------------------------------------------ tables in text


def _cells(source: Source) -> list[list[str]]:
    return [line.split(",") for line in source.data.decode().splitlines()]


def _text(rows: list[list[str]], end: str = "\n") -> bytes:
    return (end.join(",".join(row) for row in rows) + end).encode("utf-8", "surrogatepass")


def _column(random: Random, rows: list[list[str]]) -> int:
    return int(random.integers(0, max(1, len(rows[0]))))


def _header_rows(source: Source) -> int:
    """Rows before the first that begins with a number, as far as one can tell."""
    for n, row in enumerate(_cells(source)):
        if n and any(_is_number(cell) for cell in row[1:]):
            return n
    return 1


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@mutation("text", 2)
def drop_column(random, source, sources):
    rows = _cells(source)
    at = _column(random, rows)
    return _text([row[:at] + row[at + 1 :] for row in rows])


@mutation("text", 2)
def repeat_column(random, source, sources):
    rows = _cells(source)
    at, to = _column(random, rows), _column(random, rows)
    return _text([row[:to] + row[at : at + 1] + row[to:] for row in rows])


@mutation("text", 2)
def swap_columns(random, source, sources):
    rows = _cells(source)
    order = np.arange(len(rows[0]))
    if random.random() < 0.5:
        random.shuffle(order)
    else:
        a, b = random.integers(0, len(order), 2)
        order[[a, b]] = order[[b, a]]
    return _text([[row[i] for i in order if i < len(row)] for row in rows])


@mutation("text")
def very_many_columns(random, source, sources):
    rows = _cells(source)[:6]
    return _text([row * max(1, 60_000 // len(row)) for row in rows])


@mutation("text")
def very_many_numbered_columns(random, source, sources):
    """A header of 20,000 keypoints of different names."""
    rows = _cells(source)[:6]
    n = max(1, 20_000 // len(rows[0]))
    return _text([[f"{c}{k}" if not _is_number(c) and c else c for k in range(n) for c in row]
                  for row in rows])  # fmt: skip


@mutation("text", 2)
def rows_changed(random, source, sources):
    rows = _cells(source)
    how = random.integers(0, 6)
    at = int(random.integers(0, len(rows)))
    if how == 0:
        del rows[at]
    elif how == 1:
        rows.insert(at, rows[random.integers(0, len(rows))])
    elif how == 2:
        rows.reverse()
    elif how == 3:
        rows = rows[: _header_rows(source)]
    elif how == 4:
        rows[at] = rows[at][: random.integers(0, len(rows[at]) + 1)]
    else:
        rows.insert(at, [])
    return _text(rows)


_NUMBERS = ("1e308", "1e400", "-1e39", "3.5e38", "9" * 400, "1e-400", "inf", "-inf", "nan", "1e18",
            "-1", "10000000000000000000000", "99999999", "1_000", "0x1f", "1,5", "½", "١٢",
            "1e", "--1", "1.2.3", "", " ", "true", "None", "=1+1", "5e-324")  # fmt: skip


@mutation("text", 5)
def odd_number(random, source, sources):
    rows = _cells(source)
    value = _NUMBERS[random.integers(0, len(_NUMBERS))]
    first = _header_rows(source)
    if random.random() < 0.4:  # a whole column
        at = _column(random, rows)
        rows = [
            row if n < first or at >= len(row) else [*row[:at], value, *row[at + 1 :]]
            for n, row in enumerate(rows)
        ]
    else:
        row = rows[min(len(rows) - 1, first + int(random.integers(0, len(rows))))]
        row[random.integers(0, len(row))] = value
    return _text(rows)


_NAMES = ("", "../../x", "a" * 100_000, "\u202eevil", "\U0001f42d", "a\0b", "/", "x" * 300, '"',
          "a\tb", "\ufeff", "x", "likelihood", "\x1b[31m", "nan", "individuals", "None", "\ud800",
          "b'x'", "%s", "<script>", "\u2028")  # fmt: skip


@mutation("text", 4)
def odd_name(random, source, sources):
    """A cell of the header, or all of the same text."""
    rows = _cells(source)
    value = _NAMES[random.integers(0, len(_NAMES))]
    row = rows[random.integers(0, _header_rows(source))]
    old = row[random.integers(0, len(row))]
    everywhere = random.random() < 0.5
    at = int(random.integers(0, len(row)))
    for i, cell in enumerate(row):
        if (everywhere and cell == old) or (not everywhere and i == at):
            row[i] = value
    return _text(rows)


@mutation("text", 3)
def odd_quotes(random, source, sources):
    text = source.data.decode()
    at = int(random.integers(0, len(text)))
    put = ('"', '""', "'", '"a\n"', "\0", "\r", "\\", '","')[random.integers(0, 8)]
    return (text[:at] + put + text[at:]).encode()


_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp037")


@mutation("text", 4)
def other_encoding(random, source, sources):
    return source.data.decode().encode(_ENCODINGS[random.integers(0, len(_ENCODINGS))])


@mutation("text", 2)
def latin_1(random, source, sources):
    data = source.data
    at = int(random.integers(0, len(data) if random.random() < 0.5 else min(200, len(data))))
    return data[:at] + "Mäuse é".encode("latin-1") + data[at:]


@mutation("text", 2)
def other_ends(random, source, sources):
    end = ("\r", "\r\n", "\n\n", "\n\r", "\x0b", "\u2028")[random.integers(0, 6)]
    return _text(_cells(source), end)


@mutation("text", 2)
def other_delimiter(random, source, sources):
    delimiter = (";", "\t", "|", " ", ", ", ",,")[random.integers(0, 6)]
    return source.data.replace(b",", delimiter.encode())


@mutation("text")
def long_line(random, source, sources):
    at = int(random.integers(0, len(source.data)))
    fill = (b"1", b",", b"a", b'"', b" ", b"\0")[random.integers(0, 6)]
    return source.data[:at] + fill * 5_000_000 + source.data[at:]


# ------------------------------------------------------------------ JSON


def _walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from _walk(inner, (*path, key))


_VALUES = (None, True, "text", "", [], {}, [[]], [[[[[]]]]], -1, 10**400, 1e308, [None] * 5,
           {"a": {"b": []}}, "\ud800", [1, "a"], 0, float("nan"), float("inf"))  # fmt: skip


@mutation("json", 8)
def odd_value(random, source, sources):
    value = json.loads(source.data)
    places = [path for path in _walk(value) if path]
    for _ in range(random.integers(1, 4)):
        path = places[random.integers(0, len(places))]
        at = value
        try:
            for key in path[:-1]:
                at = at[key]
            how = random.integers(0, 4)
            if how == 0:
                del at[path[-1]]
            elif how == 1 and isinstance(at, list):
                at.insert(path[-1], at[path[-1]])
            else:
                at[path[-1]] = _VALUES[random.integers(0, len(_VALUES))]
        except (KeyError, IndexError, TypeError):
            continue  # something above it has been changed before
    return json.dumps(value).encode()


@mutation("json", 3)
def deep(random, source, sources):
    text = source.data.decode()
    number = [i for i in range(1, len(text)) if text[i].isdigit() and text[i - 1] in "[, "]
    at = number[random.integers(0, len(number))]
    depth = int(random.choice([50, 500, 5_000, 500_000, 3_000_000]))
    opening = "[" if random.random() < 0.5 else '{"a":'
    closing = ("]" if opening == "[" else "}") if random.random() < 0.5 else ""
    return (text[:at] + opening * depth + "1" + closing * depth + text[at:]).encode()


@mutation("json", 2)
def long_token(random, source, sources):
    text = source.data.decode()
    at = int(random.integers(0, len(text)))
    token = ("9" * 5_000_000, '"' + "a" * 5_000_000, " " * 5_000_000, "9" * 4_000, "[," * 10**6)
    return (text[:at] + token[random.integers(0, 5)] + text[at:]).encode()


@mutation("json", 2)
def other_json_encoding(random, source, sources):
    return source.data.decode().encode(_ENCODINGS[random.integers(0, len(_ENCODINGS))])


# ------------------------------------------------------------------ HDF5


def _changed(source: Source, change: Callable[[h5py.File], None]) -> Made:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(source.data)
        try:
            with h5py.File(path, "r+") as file:
                change(file)
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
            return None  # not with this member of this file
        return path.read_bytes()


def _members(file: h5py.File, kind: type) -> list[Any]:
    found = [file] if kind is not h5py.Dataset else []
    file.visititems(lambda name, item: found.append(item) if isinstance(item, kind) else None)
    return found


def _any(random: Random, values: list[Any]) -> Any:
    return values[random.integers(0, len(values))]


def _replace(dataset: h5py.Dataset, **how: Any) -> h5py.Dataset:
    file, name, attrs = dataset.file, dataset.name, dict(dataset.attrs)
    del file[name]
    new = file.create_dataset(name, **how)
    for key, value in attrs.items():
        if key not in ("DIMENSION_LIST", "REFERENCE_LIST"):
            new.attrs[key] = value
    return new


def _attributes() -> tuple[Any, ...]:
    return (
        "a" * 20_000_000, "[" * 50_000, '{"a":' * 50_000, "\udcff".encode("utf-8", "surrogatepass"),
        np.zeros(60_000, "u1"), h5py.Empty("f8"), -1, 10**18, np.nan, np.inf, "", "null", "[]",
        '{"fps": 1e999}', np.array([("a", 1)], [("x", "S3"), ("y", "i4")]), True, np.float64(0),
        np.array(["a", "b"], h5py.string_dtype()), "nan", b"\xff\xfe\0",
        "S'\\x80'\np0\n.", 2**63 - 1,
    )  # fmt: skip


@mutation("hdf5", 6)
def odd_attribute(random, source, sources):
    def change(file):
        items = [item for item in _members(file, object) if len(item.attrs)]
        item = _any(random, items or [file])
        name = _any(random, list(item.attrs) or ["x"])
        values = _attributes()
        value = values[random.integers(0, len(values))]
        if isinstance(value, bytes):
            value = np.bytes_(value)
        item.attrs[name] = value

    return _changed(source, change)


@mutation("hdf5")
def very_many_attributes(random, source, sources):
    def change(file):
        item = _any(random, _members(file, object))
        for n in range(3_000):
            item.attrs[f"a{n}"] = n

    return _changed(source, change)


@mutation("hdf5")
def very_many_members(random, source, sources):
    def change(file):
        group = _any(random, _members(file, h5py.Group))
        for n in range(3_000):
            group.create_group(f"m{n}")

    return _changed(source, change)


@mutation("hdf5", 3)
def no_such_attribute(random, source, sources):
    def change(file):
        item = _any(random, [item for item in _members(file, object) if len(item.attrs)])
        del item.attrs[_any(random, list(item.attrs))]

    return _changed(source, change)


@mutation("hdf5", 3)
def no_such_member(random, source, sources):
    def change(file):
        item = _any(random, _members(file, object)[1:])
        if random.random() < 0.5:
            file.move(item.name, item.name + "2")
        else:
            del file[item.name]

    return _changed(source, change)


@mutation("hdf5", 4)
def claims_without_data(random, source, sources):
    """A shape of thousands of millions, and nothing stored."""

    def change(file):
        dataset = _any(random, _members(file, h5py.Dataset))
        shape = list(dataset.shape or (1,)) or [1]
        shape[random.integers(0, len(shape))] = int(random.choice([10**7, 10**9, 10**12, 2**61]))
        chunks = tuple(min(n, 8) or 1 for n in shape)
        _replace(dataset, shape=shape, dtype=dataset.dtype, chunks=chunks)

    return _changed(source, change)


@lru_cache
def _zeros(n_bytes: int) -> bytes:
    return zlib.compress(bytes(n_bytes), 6)


@mutation("hdf5", 2, is_heavy=True)
def compressed_zeros(random, source, sources):
    """Zeros by the hundred million bytes, stored in little: all of them there."""

    def change(file):
        datasets = [d for d in _members(file, h5py.Dataset) if d.shape and d.dtype.kind in "fiuV"]
        dataset = _any(random, datasets)
        shape = [max(1, n) for n in dataset.shape]
        axis = int(np.argmax(shape)) if random.random() < 0.7 else random.integers(0, len(shape))
        row = dataset.dtype.itemsize * int(np.prod(shape)) // shape[axis]
        per_chunk = max(1, 8_000_000 // row)
        n_chunks = int(random.choice([8, 64]))
        shape[axis] = per_chunk * n_chunks
        chunks = list(shape)
        chunks[axis] = per_chunk
        new = _replace(dataset, shape=shape, dtype=dataset.dtype, chunks=tuple(chunks),
                       compression="gzip")  # fmt: skip
        data = _zeros(per_chunk * row)
        for n in range(n_chunks):
            at = [0] * len(shape)
            at[axis] = n * per_chunk
            new.id.write_direct_chunk(tuple(at), data)

    return _changed(source, change)


@mutation("hdf5", 2, is_heavy=True)
def one_huge_chunk(random, source, sources):
    """A chunk that HDF5 must unpack as a whole for one number."""

    def change(file):
        dataset = _any(random, [d for d in _members(file, h5py.Dataset) if d.shape])
        shape = [max(1, n) for n in dataset.shape]
        axis = int(random.integers(0, len(shape)))
        row = dataset.dtype.itemsize * int(np.prod(shape)) // shape[axis]
        shape[axis] = max(1, int(random.choice([100, 300, 900])) * 1_000_000 // row)
        new = _replace(dataset, shape=shape, dtype=dataset.dtype, chunks=tuple(shape),
                       compression="gzip")  # fmt: skip
        new.id.write_direct_chunk((0,) * len(shape), _zeros(shape[axis] * row))

    return _changed(source, change)


def _types() -> tuple[Any, ...]:
    return (
        "S4", "i1", ">f8", "?", "c16", h5py.string_dtype(), h5py.vlen_dtype("f8"), "f2", "u8",
        [("x", "f8"), ("y", "S3")], h5py.ref_dtype, "V16", h5py.enum_dtype({"a": 1}), ("f8", (3,)),
    )  # fmt: skip


@mutation("hdf5", 4)
def other_type(random, source, sources):
    def change(file):
        dataset = _any(random, _members(file, h5py.Dataset))
        shape = dataset.shape
        if random.random() < 0.15:
            _replace(dataset, data=h5py.Empty("f8"))
            return
        kinds = _types()
        _replace(dataset, shape=shape, dtype=kinds[random.integers(0, len(kinds))])

    return _changed(source, change)


@mutation("hdf5", 4)
def other_shape(random, source, sources):
    def change(file):
        dataset = _any(random, [d for d in _members(file, h5py.Dataset) if d.shape is not None])
        data = dataset[()]
        how = random.integers(0, 6)
        if how == 0:
            data = data[:-1] if data.ndim else data[None]
        elif how == 1:
            data = data[None]
        elif how == 2:
            data = data[:0] if data.ndim else data
        elif how == 3:
            data = data.ravel()
        elif how == 4 and data.ndim:
            data = data[0]
        elif data.ndim:
            data = np.repeat(data, 2, axis=int(random.integers(0, data.ndim)))
        _replace(dataset, data=data)

    return _changed(source, change)


@mutation("hdf5", 5)
def odd_numbers(random, source, sources):
    """Extreme numbers in a dataset or in a column of a table."""

    def change(file):
        datasets = [d for d in _members(file, h5py.Dataset) if d.size and d.dtype.kind in "fiuV"]
        dataset = _any(random, datasets)
        data = dataset[()]
        part = np.atleast_1d(data)
        if part.dtype.names:
            part = part[_any(random, list(part.dtype.names))]
        if part.dtype.kind not in "fiub":
            raise ValueError
        fits = part.dtype.kind == "f"
        values = (np.inf, -np.inf, np.nan, 1e308, 1e39, -1e39, 0.0) if fits else (
            0, 1, 255, 2**31 - 1, 2**63 - 1, 2**40, 10**9, 10**6)  # fmt: skip
        value = values[random.integers(0, len(values))]
        value = value if fits else min(value, np.iinfo(part.dtype).max) if part.dtype != "?" else 1
        with np.errstate(over="ignore"):
            if random.random() < 0.3:
                part[...] = value
            else:
                part[random.integers(0, len(part))] = value
        dataset[...] = data

    return _changed(source, change)


@mutation("hdf5", 4)
def odd_texts(random, source, sources):
    """Names that are doubled, empty, very long or no UTF-8."""

    def change(file):
        datasets = [
            d for d in _members(file, h5py.Dataset) if d.dtype.kind in "SO" and d.shape and d.size
        ]
        dataset = _any(random, datasets)
        data = [v if isinstance(v, bytes) else str(v).encode() for v in dataset[()].ravel()]
        odd = (b"", data[0], b"\xff\xfe", b"a" * 50_000, b"../../x", b"a\0b", b"\xed\xa0\x80",
               b"[" * 900, b"\x1b[31m", b"/", b'[0, "\\ud800"]', b"{}", b"null", b"[]",
               b'{"backend": {"filename": 5}}', b'{"backend": {"filename": "\\ud800"}}',
               b'{"backend": {"filename": "a", "shape": [1e400, {}, 0, -1]}}')  # fmt: skip
        data[random.integers(0, len(data))] = odd[random.integers(0, len(odd))]
        size = max(1, *(len(v) for v in data))
        _replace(dataset, data=np.array(data, f"S{size}").reshape(dataset.shape))

    return _changed(source, change)


@mutation("hdf5", 4)
def odd_links(random, source, sources):
    def change(file):
        items = _members(file, object)[1:]
        name = _any(random, items).name
        how = random.integers(0, 6)
        del file[name]
        if how == 0:
            file[name] = h5py.SoftLink(name)
        elif how == 1:
            file[name] = h5py.ExternalLink("other.h5", "/")
        elif how == 2:
            file[name] = file["/"]
        elif how == 3:
            file[name] = h5py.SoftLink("/nowhere")
        elif how == 4:
            file[name] = h5py.SoftLink(_any(random, [i.name for i in _members(file, object)]))
        else:
            file[name] = np.dtype("f8")

    return _changed(source, change)


@mutation("hdf5", 2)
def values_elsewhere(random, source, sources):
    def change(file):
        dataset = _any(random, [d for d in _members(file, h5py.Dataset) if d.shape])
        shape, dtype = dataset.shape, dataset.dtype
        if random.random() < 0.5:
            external = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
            _replace(dataset, shape=shape, dtype=dtype, external=external)
            return
        layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
        layout[...] = h5py.VirtualSource("nowhere.h5", "/x", shape=shape)
        name = dataset.name
        del file[name]
        file.create_virtual_dataset(name, layout, fillvalue=0)

    return _changed(source, change)


# ------------------------------------------------------------------ MATLAB 5


@mutation("mat5", 6)
def odd_variable(random, source, sources):
    """Sizes in the tags of variables, which stand on multiples of 8 bytes."""
    data = bytearray(source.data)
    at = 128 + 8 * int(random.integers(0, 16))
    if at + 8 > len(data):
        return None
    kind = int(random.choice([0, 1, 5, 6, 7, 9, 14, 15, 18, 2**31, 65545]))
    size = int(random.choice([0, 1, 7, 8, 960, 2**20, 2**31 - 1, 2**32 - 1]))
    how = random.integers(0, 3)
    if how != 1:
        data[at : at + 4] = struct.pack("<I", kind)
    if how != 0:
        data[at + 4 : at + 8] = struct.pack("<I", size)
    return bytes(data)


@mutation("mat5", 3)
def other_variables(random, source, sources):
    from scipy.io import loadmat, savemat

    arrays = {k: v for k, v in loadmat(io.BytesIO(source.data)).items() if k[0] != "_"}
    name = _any(random, list(arrays))
    value = arrays[name]
    odd = (
        value.astype(object), value[..., :1], value.ravel(), value * 1e300, value * np.inf,
        value.astype("u1"), np.nan * value, "text", {"a": value}, value[:0], value + 1j,
        np.repeat(value, 2, 0), np.moveaxis(value, 0, -1),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        arrays[name] = odd[random.integers(0, len(odd))]
    out = io.BytesIO()
    try:
        savemat(out, arrays, do_compression=bool(random.random() < 0.5))
    except TypeError:
        return None  # scipy cannot write all that it reads
    return out.getvalue()


@mutation("mat5", 2, is_heavy=True)
def mat_zeros(random, source, sources):
    """A recording of zeros in one compressed piece."""
    n_keypoints = 4
    n_frames = int(random.choice([1_000_000, 4_000_000]))  # such files are read as a whole
    n_data = n_frames * 3 * n_keypoints * 8
    parts = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<II", 5, 12)
    parts += struct.pack("<4i", n_frames, 3, n_keypoints, 0) + struct.pack("<II", 1, 4) + b"pred"
    parts += bytes(4) + struct.pack("<II", 9, n_data)
    pack = zlib.compressobj(1)
    squeezed = pack.compress(struct.pack("<II", 14, len(parts) + n_data) + parts)
    for _ in range(n_data // 8_000_000):
        squeezed += pack.compress(bytes(8_000_000))
    squeezed += pack.compress(bytes(n_data % 8_000_000)) + pack.flush()
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    return head + struct.pack("<II", 15, len(squeezed)) + squeezed


# ------------------------------------------------------------------ Parquet


def _parquet(table: Any, **how: Any) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out, **how)
    return out.getvalue()


@mutation("parquet", 8)
def other_table(random, source, sources):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(source.data))
    names, n = table.column_names, table.num_rows
    at = int(random.integers(0, len(names)))
    column = table.column(at)
    how = int(random.integers(0, 14))
    if how == 0:
        table = table.remove_column(at)
    elif how == 1:
        table = pa.table([*table.columns, column], names=[*names, names[at]])
    elif how == 2:
        table = table.select([names[i] for i in random.permutation(len(names))])
    elif how == 3:
        table = table.slice(0, 0)
    elif how == 4:
        table = table.set_column(at, names[at], pa.array(["text"] * n))
    elif how == 5:
        table = table.set_column(at, names[at], pa.nulls(n))
    elif how == 6:
        table = table.set_column(at, names[at], pa.array([[1.0, 2.0]] * n))
    elif how == 7:
        values = (1e308, np.inf, 1e39, 1e18, -1e18)
        table = table.set_column(at, names[at], pa.array([_any(random, list(values))] * n))
    elif how == 8:
        values = (2**62, -(2**62), 10**9, 10**12)
        table = table.set_column(at, names[at], pa.array([_any(random, list(values))] * n))
    elif how == 9:
        table = table.set_column(at, names[at], pa.array([{"x": 1.0}] * n))
    elif how == 10:
        table = table.set_column(at, names[at], pa.array([b"\xff\0"] * n, pa.binary()))
    elif how == 11:
        table = table.set_column(at, names[at], pa.array([0] * n, pa.timestamp("ns")))
    elif how == 12:
        odd = _any(random, [name for name in _NAMES if name.isprintable()])
        table = table.rename_columns([odd if i == at else name for i, name in enumerate(names)])
    else:
        table = table.cast(pa.schema([(name, pa.string()) for name in names]))
    return _parquet(table, row_group_size=max(1, n // 3))


@mutation("parquet", 2, is_heavy=True)
def parquet_zeros(random, source, sources):
    """Millions of rows that take little room."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(source.data))
    n = int(random.choice([1_000_000, 4_000_000]))
    arrays = []
    for column in table.columns:
        first = column[0].as_py()
        arrays.append(pa.array(np.full(n, first)) if not isinstance(first, str) else
                      pa.DictionaryArray.from_arrays(np.zeros(n, "i4"), [first]))  # fmt: skip
    return _parquet(pa.table(arrays, names=table.column_names), row_group_size=n)


@mutation("parquet")
def very_wide(random, source, sources):
    import pyarrow as pa

    columns = {f"k{i}_{axis}": np.zeros(3) for i in range(5_000) for axis in "xy"}
    return _parquet(pa.table(columns))
