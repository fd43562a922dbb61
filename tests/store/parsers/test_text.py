"""Streams of csv rows: fast and line by line the same, the same as Python, and exact in errors."""

from __future__ import annotations

import csv
import io
import itertools
import threading
import tracemalloc
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.dlc import csv as dlc_csv
from kpms_zarr.store.parsers.dlc import h5 as dlc_h5
from kpms_zarr.store.parsers.text import reading as text
from kpms_zarr.store.parsers.text import rows as text_rows
from kpms_zarr.store.parsers.text.reading import Dialect, Table, read_blocks

LINES: tuple = ()
PANDAS = (text_rows.by_pandas,)
ARROW = (text_rows.by_arrow,)
ENGINES = {"lines": LINES, "pandas": PANDAS}
if text_rows.has_arrow():
    ENGINES["arrow"] = ARROW
each_engine = pytest.mark.parametrize("engines", ENGINES.values(), ids=ENGINES)
NAMES = ("nose x", "nose y", "tail x")


def table_of(path, n_lines=0, n_fields=4, columns=(1, 2, 3), names=NAMES, delimiter=","):
    return Table(path, n_lines, n_fields, columns, names, Dialect(delimiter=delimiter))


def write(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def outcome(table, block_frames=3, **options):
    """All rows, and the error after them, if any."""
    blocks = []
    try:
        for block in read_blocks(table, block_frames, **options):
            assert block.dtype == np.float32
            assert 0 < len(block) <= block_frames
            assert all(len(before) == block_frames for before in blocks)
            blocks.append(block)
    except InputError as error:
        return np.concatenate([np.empty((0, len(table.columns))), *blocks]), str(error)
    return np.concatenate([np.empty((0, len(table.columns))), *blocks]), ""


def python_number(cell):
    """What Python makes of a cell; None if nothing."""
    cell = cell.strip()
    if cell in text_rows.MISSING:
        return np.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    with np.errstate(over="ignore"):
        number = np.float32(value)
    return None if "_" in cell else number if np.isfinite(number) else np.nan


# --- rows ------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.floats(-1e4, 1e4).map(repr),
    st.floats(-1e4, 1e4).map("{:.3f}".format),
    st.floats(0, 1e-3).map(repr),
    st.sampled_from(["", "0", "1", "-7", "nan", "NA", " ", "1e400", "16777217", "-inf", " 7 "]),
)
ODD_CELLS = st.one_of(
    CELLS,
    CELLS.map(lambda cell: f'"{cell}"'),
    st.sampled_from(
        ["oops", "1_0", "True", '"a,b"', '"', "1.5\0", "é", "\x85", "１", "1 2", "\x1c"]
    ),
)


@st.composite
def csv_files(draw):
    """Bytes of a file of four columns in which something may be wrong."""
    odd = draw(st.sampled_from([0, 0, 1, 1, 3]))
    rows = draw(st.lists(st.tuples(st.sampled_from(["0", "frame 1", "é"]), CELLS, CELLS, CELLS)))
    rows = [list(row) for row in rows]
    for _ in range(odd if rows else 0):
        row = draw(st.sampled_from(rows))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            row[draw(st.integers(0, len(row) - 1))] = draw(ODD_CELLS)
        elif kind == 1:
            row.append(draw(ODD_CELLS))
        elif len(row) > 1:
            row.pop()
    lines = [",".join(row) for row in rows]
    if odd and draw(st.booleans()):
        lines.insert(
            draw(st.integers(0, len(lines))), draw(st.sampled_from(["", "  ", "\t", ",,,"]))
        )
    ends = ["\n", "\r\n", "\r"] if odd > 1 else [draw(st.sampled_from(["\n", "\r\n", "\r"]))]
    content = "".join(line + draw(st.sampled_from(ends)) for line in lines)
    content += draw(st.sampled_from(["", "", "\n", " \n\n", "\r\n"]))
    if draw(st.booleans()):
        content = content.rstrip("\r\n")
    data = content.encode()
    if odd and data and draw(st.booleans()):
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + draw(st.sampled_from([b"\xff", b"\xc3", b"", b"\0"])) + data[place:]
    return data


def plain_reading(data, names=NAMES, n_fields=4):
    """Rows before the first fault, and where the fault is: (row, word of the message)."""
    lines = []
    for line in io.BytesIO(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append(None)
    rows = []
    for number, line in enumerate(lines, start=1):
        if line is None:
            return rows, (number, "UTF-8")
        if not line.strip():
            if any(rest is None or rest.strip() for rest in lines[number:]):
                return rows, (number, "an empty line")
            break
        cells = text_rows.fields(line, ",")
        if len(cells) != n_fields:
            last = not any(rest is None or rest.strip() for rest in lines[number:])
            cut_off = last and len(cells) < n_fields
            return rows, (number, "cut off" if cut_off else f"found {len(cells)} fields")
        values = [python_number(cell) for cell in cells[1:]]
        if None in values:
            return rows, (number, f"column {names[values.index(None)]}: expected a number")
        rows.append(values)
    return rows, None


@settings(max_examples=examples(250), deadline=None)
@given(csv_files(), st.integers(1, 7), st.integers(1, 200), st.integers(1, 3))
@example(b"0,1,2,3\n0,1,2,3,\n0,1,2\n", 2, 500, 1)  # in all the right number of cells
@example(b"0,1,2,3\n\n\n0,1,2,3\n", 2, 9, 2)
@example(b"0,1,2,3\n\n0,1,2,3\n", 2, 9, 2)  # the empty line ends a range
@example(b"0,1,2,3\r0,4,5,6", 2, 3, 2)
@example(b"\xef\xbb\xbf0,1,2,3\n", 2, 3, 2)
def test_files_with_odd_cells__same_rows_or_same_error_in_every_way(
    tmp_path_factory, data, block_frames, range_bytes, threads
):
    table = table_of(write(tmp_path_factory.getbasetemp(), data, "odd.csv"))
    rows, fault = plain_reading(data.removeprefix(b"\xef\xbb\xbf"))
    n_given = len(rows) // block_frames * block_frames if fault else len(rows)
    want = np.array(rows, dtype=np.float32).reshape(-1, 3)[:n_given]
    errors = set()
    ways = [{"engines": engines} for engines in ENGINES.values()]
    ways += [{**way, "range_bytes": range_bytes, "threads": threads} for way in ways]
    for way in ways:
        found, error = outcome(table, block_frames, **way)
        np.testing.assert_array_equal(found, want)
        assert bool(error) is (fault is not None), error
        errors.add(error)
    assert len(errors) == 1
    if fault:
        row, words = fault
        assert f"odd.csv, row {row}" in error
        assert words in error


def numbers(n_frames, n_columns=3, missing=0.1, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 300, (n_frames, n_columns))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def csv_of(values, index=str, end="\n", delimiter=","):
    rows = [
        [index(n), *("" if v != v else repr(v) for v in r)] for n, r in enumerate(values.tolist())
    ]
    return "".join(delimiter.join(row) + end for row in rows)


@settings(max_examples=examples(20), deadline=None)
@given(
    st.integers(0, 400),
    st.integers(1, 500),
    st.integers(1, 20_000),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([",", ";", "\t"]),
    st.integers(0, 2),
)
def test_rows__blocks_and_ranges_of_any_size_give_the_same(
    tmp_path_factory, n_frames, block_frames, range_bytes, end, delimiter, n_lines
):
    values = numbers(n_frames)
    head = f"head{delimiter}é{end}" * n_lines
    content = head + csv_of(values, lambda n: f"frame{n}", end, delimiter)
    path = write(tmp_path_factory.getbasetemp(), content, "rows.csv")
    table = table_of(path, n_lines, delimiter=delimiter)
    found, error = outcome(table, block_frames, range_bytes=range_bytes, threads=2)
    assert not error
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_rows__some_columns_only__whatever_stands_in_others(tmp_path):
    path = write(tmp_path, "frame 1,oops,1.5,1_0\nframe 2,True,,\n")
    for engines in ENGINES.values():
        for columns in ((2,), (2, 2)):
            table = table_of(path, columns=columns, names=("x",) * len(columns))
            want = [[1.5] * len(columns), [np.nan] * len(columns)]
            np.testing.assert_array_equal(outcome(table, engines=engines)[0], want)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("n_lines", [0, 1, 3])
@pytest.mark.parametrize("range_bytes", [1, 2, 5, 100])
def test_rows__header_lines_are_left_out(tmp_path, bom, end, n_lines, range_bytes, monkeypatch):
    monkeypatch.setattr(text, "_FIRST_RANGE_BYTES", range_bytes)
    lines = [b"", b"some,head", b'"quote', b"0,1,2,3", b"1,4,5,6"][3 - n_lines :]
    table = table_of(write(tmp_path, bom + end.join(lines)), n_lines)
    np.testing.assert_array_equal(outcome(table)[0], [[1, 2, 3], [4, 5, 6]])
    rows, error = outcome(table_of(table.path, 9))
    assert (len(rows), error) == (0, "")


@each_engine
def test_errors__come_after_the_complete_blocks_before_them(tmp_path, engines):
    lines = csv_of(numbers(5000)).splitlines()
    lines[4321] = "4321,1,oops,3"
    table = table_of(write(tmp_path, "\n".join(lines)))
    found, error = outcome(table, 100, range_bytes=10_000, engines=engines)
    assert len(found) == 4300
    assert "a.csv, row 4322, column nose y: expected a number" in error
    assert "found the text 'oops'" in error


def test_errors__a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent.*No such file"):
        next(read_blocks(table_of(tmp_path / "absent"), 3))


@each_engine
def test_errors__text_without_line_ends__stops_early(tmp_path, engines):
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.truncate(2**33)  # takes no space
    tracemalloc.start()
    try:
        for n_lines in (0, 1):
            _, error = outcome(table_of(path, n_lines), engines=engines)
            assert "lines of at most 4,000,000 characters" in error
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cell", ["9" * 300_000, "x" * 300_000, '"' + "x" * 300_000])
def test_errors__a_huge_cell(tmp_path, cell):
    table = table_of(write(tmp_path, f"0,1,2,3\n0,{cell},1,1\n"))
    rows, error = outcome(table, 1)
    assert len(rows) == (2 if cell[0] == "9" else 1)
    assert bool(error) is (cell[0] != "9")
    assert len(error) < 1000
    assert error == outcome(table, 1, engines=LINES)[1]


def test_rows__memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for n_frames in (20_000, 100_000):
        table = table_of(write(tmp_path, csv_of(numbers(1000)) * (n_frames // 1000)))
        tracemalloc.start()
        n = sum(len(block) for block in read_blocks(table, 500, threads=2, range_bytes=100_000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n == n_frames
    assert peaks[1] < 2 * peaks[0]


def test_rows__reading_that_is_given_up__leaves_no_threads(tmp_path):
    table = table_of(write(tmp_path, csv_of(numbers(5000))))
    blocks = read_blocks(table, 100, range_bytes=5000, threads=3)
    for _ in range(10):
        next(blocks)
    assert any(thread.name.startswith("csv") for thread in threading.enumerate())
    blocks.close()
    assert not any(thread.name.startswith("csv") for thread in threading.enumerate())


NAMES_IN_ROWS = st.sampled_from(["nose", " nose ", "", "left, ear", "a;b", "True", "NA", "7", "é"])
WORDS = ("lost", "-1")


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(
        st.tuples(CELLS | st.sampled_from([*WORDS, "-1.0", *text_rows.MISSING]), NAMES_IN_ROWS)
    ),
    st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", ","), (",", ",")]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from([(), ("lost",), WORDS]),
    st.sampled_from([np.float32, np.float64]),
)
def test_columns_of_text_and_said_words__same_rows_or_same_error_in_every_way(
    tmp_path_factory, rows, marks, quoting, missing, dtype
):
    delimiter, decimal = marks
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    cells = [(cell.replace(".", decimal), name) for cell, name in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n")
        writer.writerows((*row, "x") for row in cells)
    kind = Dialect(delimiter=delimiter, decimal=decimal)
    table = Table(path, 0, 3, (0,), ("c",), kind, texts=(1,), missing=missing, dtype=dtype)
    want, wrong = [], ""
    for cell, name in rows:
        is_said = cell.strip() in missing
        value = np.nan if is_said or cell.strip() in text_rows.MISSING else cell
        try:
            want.append((float(value), name.strip()))
        except ValueError:
            wrong = cell
            break
    numbers_of_rows = np.array([number for number, _ in want])
    with np.errstate(over="ignore"):
        numbers_of_rows = numbers_of_rows.astype(dtype)
    if dtype is np.float32:
        numbers_of_rows[~np.isfinite(numbers_of_rows)] = np.nan
    for engines in ENGINES.values():
        found, names, error = [], [], ""
        try:
            for piece in text.read_pieces(table, engines=engines, range_bytes=50):
                found += piece.values[:, 0].tolist()
                ((codes, known),) = piece.texts
                names += [known[code] for code in codes]
                assert piece.values.dtype == dtype
        except InputError as caught:
            error = str(caught)
        np.testing.assert_array_equal(found, numbers_of_rows)
        assert names == [name for _, name in want]
        assert bool(error) is bool(wrong)
        assert not wrong or f"row {len(want) + 1}, column c" in error


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", ","), (",", ",")])
@pytest.mark.parametrize("name", ["arrow", "pandas"])
def test_quoted_rows__are_not_read_line_by_line(tmp_path, name, delimiter, decimal):
    if name == "arrow":
        pytest.importorskip("pyarrow")
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    cells = [[str(cell).replace(".", decimal) for cell in row] for row in numbers(50, missing=0)]
    writer.writerows(["a, b", *row] for row in cells)
    kind = Dialect(delimiter=delimiter, decimal=decimal)
    table = Table(tmp_path, 0, 4, (1, 2, 3), NAMES, kind, texts=(0,))
    piece = getattr(text_rows, f"by_{name}")(table, out.getvalue().encode())
    want = text_rows.by_lines(table, out.getvalue().encode())
    np.testing.assert_array_equal(piece.values, want.values)
    assert piece.texts[0][1] == want.texts[0][1] == ["a, b"]


@pytest.mark.parametrize("name", ["arrow", "pandas"])
def test_simple_rows__are_not_read_line_by_line(tmp_path, name):
    if name == "arrow":
        pytest.importorskip("pyarrow")
    text_of_rows = csv_of(numbers(100), lambda n: f"frame{n:04d}", "\r\n")
    text_of_rows += "7,,NA,1e-300\r\n\r\n"
    table = table_of(tmp_path)
    engine = getattr(text_rows, f"by_{name}")
    piece = engine(table, text_of_rows.encode())
    want = text_rows.by_lines(table, text_of_rows.encode())
    np.testing.assert_array_equal(piece.values, want.values)
    assert piece.fault == want.fault
    assert want.fault.is_blank


@pytest.mark.parametrize("name", ["arrow", "pandas"])
def test_libraries__cells_of_all_kinds__as_python_reads_them(tmp_path, name):
    if name == "arrow":
        pytest.importorskip("pyarrow")
    cells = ["".join(cell) for n in range(5) for cell in itertools.product("05.-e+", repeat=n)]
    cells += ["inf", "-Infinity", "nan", "nan(1)", "-nan", "NA", "0x10", "1_0", " 7", "7\t", "True"]
    cells += ["1e400", "1e-400", "0." + "0" * 30 + "5" * 30, "9" * 400, "1\0", "1 2", "1d5", "1e 5"]
    table = table_of(tmp_path, n_fields=2, columns=(1,), names=("x",))
    for want, group in itertools.groupby(sorted(cells, key=is_refused), key=is_refused):
        group = list(group)
        for together in [group] if not want else [[cell] for cell in group[:400] + group[-20:]]:
            lines = "".join(f"0,{cell}\n" for cell in together).encode()
            piece = getattr(text_rows, f"by_{name}")(table, lines)
            if want:
                assert piece is None, together
            elif piece is not None:
                values = [python_number(cell) for cell in together]
                np.testing.assert_array_equal(piece.values[:, 0], np.array(values, "f4"))


def is_refused(cell):
    return python_number(cell) is None


@each_engine
def test_rows__byte_order_mark_within_the_file__is_text(tmp_path, engines):
    content = b"\xef\xbb\xbf1,2\n\xef\xbb\xbf3,4\n"
    table = table_of(write(tmp_path, content), n_fields=2, columns=(0, 1), names=("x", "y"))
    for range_bytes in (5, 100):
        rows, error = outcome(table, 1, engines=engines, range_bytes=range_bytes)
        assert rows.tolist() == [[1, 2]]
        assert r"row 2, column x: expected a number or an empty cell" in error


def test_engines__without_pyarrow__pandas_alone(tmp_path, monkeypatch):
    table = table_of(write(tmp_path, csv_of(numbers(5000))))
    monkeypatch.setattr(text, "has_arrow", lambda: False)
    monkeypatch.setattr(text_rows, "_arrow", None)
    want = outcome(table, engines=LINES)[0]
    np.testing.assert_array_equal(outcome(table, range_bytes=5000)[0], want)


def test_engines__pyarrow_that_cannot_be_imported__is_left_alone(tmp_path, monkeypatch):
    def broken(_):
        raise ImportError

    table = table_of(write(tmp_path, csv_of(numbers(500))))
    monkeypatch.setattr(text_rows, "_arrow", broken)
    want = outcome(table, engines=LINES)[0]
    np.testing.assert_array_equal(outcome(table, engines=ARROW)[0], want)


# --- DeepLabCut ------------------------------------------------------------------------------


def dlc_csv_of(path, head, values):
    rows = [",".join([name, *cells]) for name, cells in head]
    path.write_text("\n".join(rows) + "\n" + csv_of(values))
    return path


def test_real_files__all_engines_give_the_same(real):
    paths = [
        real.folder / name
        for folder in ("dlc_csv", "dlc_multi", "lightningpose_csv")
        for name in real.names(folder)
        if name.endswith(".csv")
    ]
    assert len(paths) == 22
    for path in paths:
        header = dlc_csv._read_header(path)
        columns = tuple((header.layout.used + header.n_index).tolist())
        table = Table(path, header.n_lines, header.n_fields, columns, tuple(map(str, columns)))
        (want, error), *others = (outcome(table, 1000, engines=e) for e in ENGINES.values())
        assert not error
        for found, error in others:
            assert not error
            np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("names", [("scorer", "bodyparts", "coords"), ("", "", "")])
def test_dlc_csv__3d_without_likelihood(tmp_path, load, names):
    cells = [["DLC_3D"] * 6, ["nose"] * 3 + ["tail"] * 3, ["x", "y", "z"] * 2]
    values = numbers(50, 6)
    path = dlc_csv_of(tmp_path / "a.csv", list(zip(names, cells, strict=True)), values)
    assert dlc_csv.PARSER.sniff(path)
    found = load(dlc_csv.PARSER, path)
    assert found.header.space == ("x", "y", "z")
    assert not found.header.has_confidence
    assert "no likelihood" in found.header.notes[0]
    np.testing.assert_array_equal(found.position["a"], values.reshape(50, 2, 3).astype(np.float32))


@pytest.mark.parametrize("names", [["scorer", "bodyparts", "coords"], [None, None, None]])
def test_dlc_h5__3d_without_likelihood_or_names_of_levels(tmp_path, load, names):
    values = numbers(50, 6)
    path = tmp_path / "a.h5"
    axes = [["DLC_3D"], ["nose", "tail"], ["x", "y", "z"]]
    codes = [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2]
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs.update({"pandas_type": "frame", "nblocks": 1, "axis0_nlevels": 3})
        group.attrs["block0_items_nlevels"] = 3
        group["axis1"] = np.arange(50)
        group["block0_values"] = values
        for axis in ("axis0", "block0_items"):
            for n, (labels, code) in enumerate(zip(axes, codes, strict=True)):
                level = group.create_dataset(f"{axis}_level{n}", data=np.array(labels, "S9"))
                level.attrs["name"] = names[n] or "N."
                group[f"{axis}_label{n}"] = np.array(code, "i1")
    found = load(dlc_h5.PARSER, path)
    assert (found.header.space, found.header.has_confidence) == (("x", "y", "z"), False)
    np.testing.assert_array_equal(found.position["a"], values.reshape(50, 2, 3).astype(np.float32))


def multi_animal(path, values, individuals):
    cells = [["s"] * 3 * len(individuals), [i for i in individuals for _ in range(3)]]
    cells += [["nose"] * 3 * len(individuals), ["x", "y", "likelihood"] * len(individuals)]
    names = ["scorer", "individuals", "bodyparts", "coords"]
    return dlc_csv_of(path, list(zip(names, cells, strict=True)), values)


@pytest.mark.parametrize("first_frame", [0, 300, 1999])
def test_dlc_csv__individuals_are_looked_for_in_the_whole_file(tmp_path, load, first_frame):
    individuals = ["a", "ghost", "b", "late", "single"]
    values = numbers(2000, 15, missing=0).reshape(2000, 5, 3)
    values[:, 1, :2] = np.nan
    values[:first_frame, 3] = np.nan
    path = multi_animal(tmp_path / "a.csv", values.reshape(2000, -1), individuals)
    found = load(dlc_csv.PARSER, path)
    assert [track.individual for track in found.header.tracks] == ["a", "b", "late"]
    assert any("`ghost`" in note for note in found.header.notes)
    assert any("`single`" in note for note in found.header.notes)
    np.testing.assert_array_equal(found.position["a_late"][:, 0], values[:, 3, :2].astype("f4"))


def test_dlc_csv__search_reads_columns_of_unseen_individuals_only(tmp_path, monkeypatch):
    values = numbers(2000, 9, missing=0)
    values[:, 3:6] = np.nan
    path = multi_animal(tmp_path / "a.csv", values, ["a", "ghost", "b"])
    seen = []
    read = text.read_blocks
    monkeypatch.setattr(
        dlc_csv, "read_blocks", lambda table, n: seen.append(table.columns) or read(table, n)
    )
    dlc_csv.PARSER.inspect(path)
    assert seen == [tuple(range(1, 10)), (4, 5, 6)]


def test_dlc_csv__nothing_warns(tmp_path):
    values = np.full((300, 6), np.nan)
    values[:, 0] = 1e300
    path = multi_animal(tmp_path / "a.csv", values, ["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="at least one individual"):
            dlc_csv.PARSER.inspect(path)


def test_sniff__any_bytes__never_raises(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(60):
        path = write(tmp_path, rng.integers(0, 256, n * 7, dtype=np.uint8).tobytes())
        assert dlc_csv.PARSER.sniff(path) is None


def test_dlc_csv__damaged_anywhere__reads_or_is_an_input_error(tmp_path):
    rng = np.random.default_rng(1)
    values = numbers(30, 6, missing=0)
    good = multi_animal(tmp_path / "good.csv", values, ["a", "b"]).read_bytes()
    errors = []
    for _ in range(200):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), rng.integers(1, 4)):
            bad[place] = rng.integers(0, 256)
        path = write(tmp_path, bytes(bad[: rng.integers(1, len(bad) + 1)]))
        dlc_csv.PARSER.sniff(path)
        try:
            dlc_csv.PARSER.inspect(path)
            list(dlc_csv.PARSER.read(path, 7))
        except InputError as error:
            errors.append(error)
    assert len(errors) > 100
    for problem in (problem for error in errors for problem in error.problems):
        assert all((problem.expected, problem.found, problem.where, problem.fix))


@each_engine
def test_pieces__of_text_alone_have_every_row(tmp_path, engines):
    path = write(tmp_path, "session,condition\na,x\na,\nb b,y\n")
    table = Table(path, 1, 2, (), (), texts=(0, 1))
    found = [[], []]
    for piece in text.read_pieces(table, engines=engines):
        assert piece.values.shape == (len(piece.texts[0][0]), 0)
        for column, (codes, names) in zip(found, piece.texts, strict=True):
            column += [names[code] for code in codes]
    assert found == [["a", "a", "b b"], ["x", "", "y"]]
    short = Table(write(tmp_path, "a,x\nb\nc,y\n"), 0, 2, (), (), texts=(0, 1))
    with pytest.raises(InputError, match="found 1 fields"):
        list(text.read_pieces(short, engines=engines))
