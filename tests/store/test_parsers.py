"""The DeepLabCut parsers, on real files against EXPECTED.json and on small written ones."""

from __future__ import annotations

import csv
import json
import pickle
import tempfile
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store import parsers
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers import Parser, recognise
from kpms_zarr.store.parsers.dlc import csv as dlc_csv
from kpms_zarr.store.parsers.dlc import h5 as dlc_h5

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FOLDERS = ("dlc_csv", "dlc_h5", "dlc_multi", "lightningpose_csv")
MULTI = "dlc_multi/mlfpm_deepof/test2DLC_"

EXPECTED = json.loads((DATA / "EXPECTED.json").read_text()) if DATA.is_dir() else {}
DLC_FILES = [name for name in EXPECTED if name.split("/")[0] in FOLDERS]
OTHER_FILES = [name for name in EXPECTED if name.split("/")[0] not in FOLDERS]

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real files: {DATA} is absent")


def load(path, *, block_frames=1000, format="auto"):
    """Header, and the joined blocks by individual."""
    parser, _ = recognise(path, format)
    header = parser.inspect(path)
    blocks = list(parser.read(path, block_frames))
    assert [block.start for block in blocks] == list(
        range(0, sum(block.n_frames for block in blocks), block_frames)
    )
    names = [track.individual for track in header.tracks]
    assert all(list(block.position) == names for block in blocks)
    join = {
        kind: {
            name: np.concatenate([getattr(block, kind)[name] for block in blocks])
            for name in (names if kind == "position" or header.has_confidence else ())
        }
        for kind in ("position", "confidence")
    }
    for name, position in join["position"].items():
        keypoints = next(t.keypoints for t in header.tracks if t.individual == name)
        assert position.dtype == np.float32
        assert position.shape[1:] == (len(keypoints), len(header.space))
    return header, join["position"], join["confidence"]


def session(path, individual):
    stem = path.name.removesuffix(path.suffix)
    return f"{stem}_{individual}" if individual else stem


def assert_same(first, second):
    for one, other in zip(first[1:], second[1:], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


# --- real files ------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("name", DLC_FILES or ["absent"])
def test_real_file__agrees_with_expected(name):
    wanted = EXPECTED[name]
    path = DATA / name
    header, position, confidence = load(path)
    assert header.format == ("dlc_csv" if path.suffix == ".csv" else "dlc_h5")
    if "fails" in wanted:  # for the reference, not for us
        assert {p.shape[0] for p in position.values()} == {wanted["frames"]}
        assert len(position) == wanted["animals"]
        nan = np.mean([np.isnan(p) for p in position.values()])
        assert nan == pytest.approx(wanted["nan_frac"], abs=1e-6)
        return
    assert not wanted.get("reference_is_wrong")
    assert {session(path, track.individual) for track in header.tracks} == set(wanted["keys"])
    for track in header.tracks:
        # Where the reference lost the order, EXPECTED lists the names sorted, but keeps the
        # order of the file in the middle frame.
        names = sorted(track.keypoints) if wanted["bodyparts_is_set"] else list(track.keypoints)
        assert names == wanted["bodyparts"]
        check_numbers(
            position[track.individual],
            confidence[track.individual],
            wanted["keys"][session(path, track.individual)],
        )


def check_numbers(position, confidence, wanted):
    assert list(position.shape) == wanted["shape"]
    assert np.isnan(position).mean() == pytest.approx(wanted["nan_frac"], abs=1e-6)
    values = position.astype(np.float64)
    assert np.nanmean(values) == pytest.approx(wanted["coord_mean"], abs=1e-3)
    assert np.nanstd(values) == pytest.approx(wanted["coord_std"], abs=1e-3)
    conf = confidence.astype(np.float64)
    assert np.isnan(conf).mean() == pytest.approx(wanted["conf_nan_frac"], abs=1e-6)
    assert np.nanmean(conf) == pytest.approx(wanted["conf_mean"], abs=2e-6)
    assert np.nanmax(conf) == pytest.approx(wanted["conf_max"], abs=2e-6)
    middle = wanted["middle_frame"]
    coords = np.array(wanted["middle_frame_coords"], dtype=float)
    np.testing.assert_allclose(values[middle], coords, atol=2e-4, rtol=0)
    confs = np.array(wanted["middle_frame_confs"], dtype=float)
    np.testing.assert_allclose(conf[middle], confs, atol=2e-6, rtol=0)


@needs_data
@pytest.mark.parametrize("name", OTHER_FILES or ["absent"])
def test_sniff__leaves_other_formats_alone(name):
    assert dlc_csv.PARSER.sniff(DATA / name) is None
    assert dlc_h5.PARSER.sniff(DATA / name) is None


@needs_data
@pytest.mark.parametrize(
    "stem",
    [
        f"{MULTI}csv_table_madlc.csv {MULTI}h5_table_madlc.h5",
        *(
            "dlc_csv/YttriLab_B-SOID/{0}.csv dlc_h5/YttriLab_B-SOID/{0}.h5".format(
                "raw_clip1DLC_resnet50_OpenFieldHighResApr8shuffle1_1030000"
            ),
        ),
    ],
)
def test_real_pair__csv_equals_h5(stem):
    one, other = (load(DATA / name) for name in stem.split())
    assert one[0].tracks == other[0].tracks
    assert_same(one, other)


@needs_data
def test_two_tables__uses_the_name_that_deeplabcut_gives():
    header, *arrays = load(DATA / f"{MULTI}h5_table_madlc.twokeys.h5")
    assert "`/tracks`, 901 frames" in header.notes[0]
    assert "`/test, 100 frames`" in header.notes[0]
    assert_same((header, *arrays), load(DATA / f"{MULTI}h5_table_madlc.h5"))


@needs_data
def test_unique_bodyparts__are_left_out_with_a_note():
    header, position, _ = load(DATA / "dlc_multi/DeepLabCut_DeepLabCut/montblanc_tracks.h5")
    assert list(position) == ["bird1", "bird2", "bird3"]
    assert any("`single`" in note for note in header.notes)


@needs_data
@pytest.mark.parametrize("block_frames", [1, 7, 900, 901, 10_000])
@pytest.mark.parametrize("name", ["csv_table_madlc.csv", "h5_table_madlc.h5"])
def test_real_file__blocks_of_any_size_give_the_same(name, block_frames):
    assert_same(
        load(DATA / f"{MULTI}{name}", block_frames=block_frames), load(DATA / (MULTI + name))
    )


# --- small files written here ------------------------------------------------------------


def columns_of(individuals=("",), bodyparts=("nose", "tail"), coords=("x", "y", "likelihood")):
    return [("scorer", i, b, c) for i in individuals for b in bodyparts for c in coords]


def levels_of(columns):
    """Header level names and columns; without the individuals where there are none."""
    if any(column[1] for column in columns):
        return ("scorer", "individuals", "bodyparts", "coords"), columns
    return ("scorer", "bodyparts", "coords"), [(s, b, c) for s, _, b, c in columns]


def write_csv(path, columns, values, *, index=None, names=None, end="\n"):
    """DeepLabCut csv; `values` (frame, column), NaN as an empty cell."""
    levels, columns = levels_of(columns)
    rows = [
        [name, *cells]
        for name, cells in zip(names or levels, zip(*columns, strict=True), strict=True)
    ]
    for frame, row in enumerate(values):
        cells = ["" if isinstance(v, float) and np.isnan(v) else str(v) for v in row]
        rows.append([str(frame) if index is None else index[frame], *cells])
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end).writerows(rows)
    return path


def text(value):
    """Text as PyTables stores it in an attribute: of fixed length, marked as UTF-8."""
    return np.array(value.encode(), dtype=h5py.string_dtype("utf-8", len(value.encode())))


def write_fixed(path, columns, values, *, key="df_with_missing", dtypes=("f8",), mode="w"):
    """Write what pandas' `fixed` format writes (checked below against pandas itself)."""
    levels, columns = levels_of(columns)
    with h5py.File(path, mode) as file:
        file.attrs.update(CLASS=text("GROUP"), PYTABLES_FORMAT_VERSION=text("2.1"))
        group = file.create_group(key)
        group.attrs.update(
            CLASS=text("GROUP"),
            pandas_type=text("frame"),
            pandas_version=text("0.15.2"),
            encoding=text("UTF-8"),
            errors=text("strict"),
            ndim=2,
            nblocks=len(dtypes),
            axis1_variety=text("regular"),
        )
        axis = array(group, "axis1", np.arange(len(values)), kind="integer")
        axis.attrs["name"] = pickled(None)
        write_axis(group, "axis0", levels, columns, columns)
        for number, dtype in enumerate(dtypes):
            mine = list(range(number, len(columns), len(dtypes)))
            write_axis(group, f"block{number}_items", levels, columns, [columns[m] for m in mine])
            array(group, f"block{number}_values", values[:, mine].astype(dtype))
    return path


def array(group, name, values, *, kind=None):
    data = group.create_dataset(name, data=values)
    data.attrs.update(CLASS=text("ARRAY"), FLAVOR=text("numpy"), transposed=np.uint8(1))
    data.attrs.update(TITLE=text(" "), VERSION=text("2.4"))
    if kind:
        data.attrs["kind"] = text(kind)
    return data


def write_axis(group, axis, levels, all_columns, columns):
    group.attrs[f"{axis}_variety"] = text("multi")
    group.attrs[f"{axis}_nlevels"] = len(levels)
    for number, level in enumerate(levels):
        labels = sorted({column[number] for column in all_columns})
        encoded = np.array([label.encode() for label in labels])
        data = array(group, f"{axis}_level{number}", encoded, kind="string")
        data.attrs.update({"name": text(level), f"{axis}_name{level}": text(level)})
        codes = np.array([labels.index(column[number]) for column in columns], dtype="i1")
        array(group, f"{axis}_label{number}", codes)


def pickled(value):
    return np.bytes_(pickle.dumps(value, protocol=0))


def write_table(
    path, columns, values, *, key="df_with_missing", dtypes=("f8",), axes=None, mode="w"
):
    """Write what pandas' `table` format writes (checked below against pandas itself)."""
    levels, columns = levels_of(columns)
    mine = {
        f"values_block_{n}": list(range(n, len(columns), len(dtypes))) for n in range(len(dtypes))
    }
    fields = [
        ("index", "i8"),
        *((f, d, (len(mine[f]),)) for f, d in zip(mine, dtypes, strict=True)),
    ]
    rows = np.zeros(len(values), dtype=fields)
    rows["index"] = np.arange(len(values))
    for field, numbers in mine.items():
        rows[field] = values[:, numbers]
    with h5py.File(path, mode) as file:
        file.attrs.update(CLASS=text("GROUP"), PYTABLES_FORMAT_VERSION=text("2.1"))
        group = file.create_group(key)
        group.attrs.update(
            CLASS=text("GROUP"),
            pandas_type=text("frame_table"),
            pandas_version=text("0.15.2"),
            table_type=text("appendable_frame"),
            encoding=text("UTF-8"),
            errors=text("strict"),
            levels=1,
            nan_rep=text("nan"),
            data_columns=pickled([]),
            index_cols=pickled([(0, "index")]),
            values_cols=pickled(list(mine)),
            non_index_axes=pickled([(1, columns)]) if axes is None else axes,
            info=pickled({1: {"names": list(levels), "type": "MultiIndex"}, "index": {}}),
        )
        table = group.create_dataset("table", data=rows, maxshape=(None,), chunks=(16,))
        table.attrs.update(CLASS=text("TABLE"), VERSION=text("2.7"), NROWS=len(values))
        table.attrs.update(TITLE=text(" "), index_kind=text("integer"))
        for number, (name, *_) in enumerate(fields):
            table.attrs[f"FIELD_{number}_NAME"] = text(name)
        for (field, numbers), dtype in zip(mine.items(), dtypes, strict=True):
            table.attrs[f"{field}_kind"] = pickled([columns[n] for n in numbers])
            table.attrs[f"{field}_dtype"] = text(np.dtype(dtype).name)
            table.attrs[f"{field}_meta"] = pickled(None)
    return path


WRITERS = {
    "pose.csv": write_csv,
    "fixed.h5": write_fixed,
    "table.h5": write_table,
    "fixed3.h5": partial(write_fixed, dtypes=("f4", "f8", "f8")),
    "table3.h5": partial(write_table, dtypes=("f4", "f8", "f8")),
}
each_writer = pytest.mark.parametrize("file_name", WRITERS)


def numbers(n_frames, n_columns, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    # float32 numbers, so that every dtype of a file holds them exactly
    values = rng.normal(300, 100, (n_frames, n_columns)).astype(np.float32).astype(np.float64)
    values[rng.random(values.shape) < missing] = np.nan
    return values


@each_writer
@pytest.mark.parametrize("coords", ["x y", "x y likelihood", "x y z likelihood", "likelihood y x"])
@pytest.mark.parametrize("individuals", [("",), ("mouse 1", "b/ö")])
def test_read__gives_what_was_written(tmp_path, file_name, coords, individuals):
    bodyparts = ("left ear, tip", "Butt/Proximal Tail", "nose")
    columns = columns_of(individuals, bodyparts, coords.split())
    values = numbers(40, len(columns))
    path = WRITERS[file_name](tmp_path / file_name, columns, values)
    header, position, confidence = load(path, block_frames=16)
    assert header.space == (("x", "y", "z") if "z" in coords else ("x", "y"))
    assert header.has_confidence is ("likelihood" in coords)
    assert list(position) == list(individuals)
    for name in individuals:
        for k, part in enumerate(bodyparts):
            for d, coord in enumerate(header.space):
                want = values[:, columns.index(("scorer", name, part, coord))]
                np.testing.assert_array_equal(position[name][:, k, d], want.astype(np.float32))
            if header.has_confidence:
                want = values[:, columns.index(("scorer", name, part, "likelihood"))]
                np.testing.assert_array_equal(confidence[name][:, k], want.astype(np.float32))
    assert all(track.keypoints == bodyparts for track in header.tracks)
    assert bool(header.notes) is ("likelihood" not in coords)


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**16), st.sampled_from([*WRITERS]))
def test_read__blocks_of_any_size_give_the_same(n_frames, block_frames, seed, file_name):
    columns = columns_of(("a", "b"))
    values = numbers(n_frames, len(columns), seed)
    values[0, :3] = values[0, 6:9] = 1.0  # both appear
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[file_name](Path(folder) / file_name, columns, values)
        _, position, confidence = load(path, block_frames=block_frames)
    pairs = values.reshape(n_frames, 2, 2, 3).astype(np.float32)
    for number, name in enumerate("ab"):
        np.testing.assert_array_equal(position[name], pairs[:, number, :, :2])
        np.testing.assert_array_equal(confidence[name], pairs[:, number, :, 2])


@each_writer
def test_individuals__that_never_appear_are_left_out_with_a_note(tmp_path, file_name):
    columns = columns_of(("a", "ghost", "b"))
    values = numbers(30, len(columns), missing=0)
    values[:, 6:12] = np.nan
    values[:, 8] = 0.0  # a likelihood alone is no appearance
    values[:29, 12:] = np.nan  # b appears in the last frame only
    path = WRITERS[file_name](tmp_path / file_name, columns, values)
    header, position, confidence = load(path, block_frames=7)
    assert list(position) == list(confidence) == ["a", "b"]
    assert any("`ghost`" in note for note in header.notes)
    np.testing.assert_array_equal(position["b"][29, 0], values[29, 12:14].astype(np.float32))


@each_writer
@pytest.mark.parametrize("mark", [(-1.0, -1.0, -1.0), (0.0, 0.0, 0.0), (7.0, np.nan, 0.9)])
def test_individuals__marked_as_not_found_are_left_out(tmp_path, file_name, mark):
    """As SuperAnimal, YOLO and others mark them: numbers, but no confidence."""
    columns = columns_of(("a", "ghost", "late"))
    values = numbers(30, len(columns), missing=0)
    values[:, 6:] = np.tile(mark, 4)
    values[29, 12:15] = 5.0, 6.0, 0.01
    path = WRITERS[file_name](tmp_path / file_name, columns, values)
    header, position, confidence = load(path, block_frames=7)
    assert list(position) == list(confidence) == ["a", "late"]
    assert any("`ghost`" in note and "0 or below" in note for note in header.notes)
    # What is in the file is stored, as it is there.
    np.testing.assert_array_equal(confidence["late"][:29, 0], np.float32(mark[2]))


@each_writer
def test_individuals__none_appears__is_an_error(tmp_path, file_name):
    columns = columns_of(("a", "b"))
    path = WRITERS[file_name](tmp_path / file_name, columns, np.full((5, 12), np.nan))
    with pytest.raises(InputError, match="at least one individual with coordinates"):
        load(path)


@each_writer
def test_individuals__may_have_different_bodyparts(tmp_path, file_name):
    columns = [
        *columns_of(("a",)),
        *columns_of(("b",), ("beak",)),
        *columns_of(("single",), ("c",)),
    ]
    values = numbers(9, len(columns), missing=0)
    header, position, _ = load(WRITERS[file_name](tmp_path / file_name, columns, values))
    assert {t.individual: t.keypoints for t in header.tracks} == {
        "a": ("nose", "tail"),
        "b": ("beak",),
    }
    assert position["b"].shape == (9, 1, 2)
    assert "`single`" in header.notes[0]


@each_writer
def test_individuals__only_unique_bodyparts__is_an_error(tmp_path, file_name):
    columns = columns_of(("single",))
    path = WRITERS[file_name](tmp_path / file_name, columns, numbers(9, 6))
    with pytest.raises(InputError, match="unique body parts"):
        load(path)


@each_writer
def test_infinite_and_too_large_values__count_as_missing(tmp_path, file_name):
    dtypes = {} if file_name == "pose.csv" else {"dtypes": ("f8",)}
    values = numbers(5, 6, missing=0)
    values[1, 0], values[2, 4], values[3, 2] = np.inf, 1e300, -np.inf
    writer = {"p": write_csv, "f": write_fixed, "t": write_table}[file_name[0]]
    _, position, confidence = load(writer(tmp_path / file_name, columns_of(), values, **dtypes))
    assert np.argwhere(np.isnan(position[""])).tolist() == [[1, 0, 0], [2, 1, 1]]
    assert np.argwhere(np.isnan(confidence[""])).tolist() == [[3, 0]]


@each_writer
def test_extra_coords__are_left_out_with_a_note(tmp_path, file_name):
    columns = columns_of(coords=("x", "y", "likelihood", "x_ens_var"))
    values = numbers(5, len(columns))
    header, position, _ = load(WRITERS[file_name](tmp_path / file_name, columns, values))
    np.testing.assert_array_equal(position[""][:, 1], values[:, 4:6].astype(np.float32))
    assert header.notes == ("left out columns that are no coordinates: `x_ens_var`",)


@each_writer
@pytest.mark.parametrize("lacking", ["x", "y"])
def test_bodypart_without_a_coordinate__is_an_error(tmp_path, file_name, lacking):
    columns = [c for c in columns_of() if c[2:] != ("tail", lacking)]
    path = WRITERS[file_name](tmp_path / file_name, columns, numbers(5, len(columns)))
    with pytest.raises(InputError, match=f"`tail without {lacking}`"):
        load(path)


@each_writer
def test_bodypart_without_likelihood__reads_without_confidence(tmp_path, file_name):
    columns = columns_of()[:5]
    path = WRITERS[file_name](tmp_path / file_name, columns, numbers(5, 5))
    header, *_ = load(path)
    assert not header.has_confidence
    assert header.notes == ("no likelihood for `tail`: read without confidence",)


@each_writer
def test_duplicated_and_incomplete_columns__are_reported_together(tmp_path, file_name):
    columns = [*columns_of(), *columns_of(bodyparts=("nose",)), ("scorer", "", "paw", "x")]
    path = WRITERS[file_name](tmp_path / file_name, columns, numbers(5, len(columns)))
    with pytest.raises(InputError) as caught:
        load(path)
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "`nose x`" in text
    assert "`paw without y`" in text
    assert str(path) in text


@each_writer
def test_no_frames__is_an_error(tmp_path, file_name):
    path = WRITERS[file_name](tmp_path / file_name, columns_of(), np.empty((0, 6)))
    with pytest.raises(InputError, match="0 frames"):
        recognise(path)[0].inspect(path)


# --- csv -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv__text_index_and_line_ends(tmp_path, end):
    values = numbers(12, 6)
    values[0] = np.nan  # looks like a row with a name of the index, but is a frame
    index = [f"frame_{n:04d}, cam" for n in range(12)]
    path = write_csv(tmp_path / "a.csv", columns_of(), values, index=index, end=end)
    path.write_bytes(path.read_bytes() + end.encode() * 2)
    assert load(path)[1][""].shape == (12, 2, 2)


@pytest.mark.parametrize("names", [("", "", ""), ("Scorer", "BodyParts", "Coords"), ("s", "", "")])
def test_csv__index_names_may_differ(tmp_path, names):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(6, 6), names=names)
    assert load(path)[1][""].shape == (6, 2, 2)


def test_csv__byte_order_mark_index_name_row_and_empty_last_column(tmp_path):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(6, 6, missing=0))
    lines = path.read_text().splitlines()
    lines.insert(3, "frame,,,,,,")
    path.write_text("".join(line + ",\n" for line in lines), encoding="utf-8-sig")
    header, position, _ = load(path)
    assert header.notes == ()
    assert not np.isnan(position[""]).any()
    assert len(position[""]) == 6


def test_csv__without_an_index_column(tmp_path):
    values = numbers(6, 6)
    path = write_csv(tmp_path / "a.csv", columns_of(), values)
    lines = [line.split(",", 1)[1] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    np.testing.assert_array_equal(load(path)[1][""][:, 1], values[:, 3:5].astype(np.float32))


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", "None", " ", '""'])
def test_csv__missing_cells(tmp_path, cell):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(3, 6, missing=0))
    lines = path.read_text().splitlines()
    lines[4] = f"1,5.5,{cell},0.5,1e1, 7 ,"
    path.write_text("\n".join(lines))
    _, position, confidence = load(path)
    np.testing.assert_array_equal(position[""][1], [[5.5, np.nan], [10, 7]])
    np.testing.assert_array_equal(confidence[""][1], [0.5, np.nan])


@pytest.mark.parametrize("cell", ["oops", "1_0", "1.5\0", "0x10", "1.5.2"])
def test_csv__text_in_a_cell__names_row_and_column(tmp_path, cell):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(30, 6, missing=0))
    lines = path.read_text().splitlines()
    cells = lines[20].split(",")
    lines[20] = ",".join([*cells[:5], cell, *cells[6:]])
    path.write_text("\n".join(lines))
    dlc_csv.PARSER.inspect(path)
    blocks = dlc_csv.PARSER.read(path, 8)
    next(blocks)
    with pytest.raises(InputError, match=r"a\.csv, row 21, column tail y: expected a number"):
        list(blocks)


def test_csv__truncated_last_row__is_an_error(tmp_path):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(30, 6, missing=0))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(InputError, match=r"a\.csv, row 33: expected 7 fields.*\n.*cut off"):
        load(path)


@pytest.mark.parametrize(
    ("row", "found"), [("3,1,2", "3 fields"), ("3" * 20 + "," * 9, "10 fields")]
)
def test_csv__row_of_another_length__is_an_error(tmp_path, row, found):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(9, 6))
    lines = path.read_text().splitlines()
    lines[6] = row
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"row 7: expected 7 fields, found {found}.\n.*correct"):
        load(path)


def test_csv__empty_line_between_frames__is_an_error(tmp_path):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(9, 6))
    path.write_text(path.read_text().replace("\n4,", "\n\n4,"))
    with pytest.raises(InputError, match="row 8: expected 7 fields, found an empty line"):
        load(path)


@pytest.mark.parametrize("n_lines", [2, 3])
def test_csv__cut_off_in_the_header__is_an_error(tmp_path, n_lines):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(9, 6))
    lines = path.read_text().splitlines()[:n_lines]
    path.write_text("\n".join(lines)[: -14 if n_lines == 3 else None])
    with pytest.raises(InputError, match="expected header rows"):
        load(path)


def test_csv__not_utf8__names_are_read_and_damage_is_an_error(tmp_path):
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(9, 6))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"nose", b"n\xf6se"))
    header = dlc_csv.PARSER.inspect(path)
    assert header.tracks[0].keypoints[0] == "nöse"
    assert "cp1252" in header.notes[0]
    path.write_bytes(data.replace(b"nose", b"n\x81se"))
    with pytest.raises(InputError, match="text in UTF-8"):
        load(path, format="dlc_csv")


@pytest.mark.parametrize("n_index", [1, 3])
def test_csv__labelled_frames__are_refused(tmp_path, n_index):
    index = [f"labeled-data/video/img{n:03d}.png" for n in range(4)]
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(4, 6), index=index)
    if n_index == 3:
        lines = path.read_text().splitlines()
        head = [line.replace(",", ",,,", 1) for line in lines[:3]]
        path.write_text("\n".join([*head, *(line.replace("/", ",") for line in lines[3:])]))
    with pytest.raises(InputError, match="labelled by hand"):
        load(path)


# --- h5 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_name", [name for name in WRITERS if name.endswith("h5")])
def test_h5_writers_of_this_file__agree_with_pandas(tmp_path, file_name):
    pytest.importorskip("tables", reason="PyTables is no dependency; run where it is installed")
    pandas = pytest.importorskip("pandas")
    columns = columns_of(("a", "bö"))
    values = numbers(20, len(columns))
    path = WRITERS[file_name](tmp_path / file_name, columns, values)
    table = pandas.read_hdf(path, key="df_with_missing")
    assert list(table.columns) == columns
    np.testing.assert_array_equal(table.to_numpy(dtype=float), values)
    format = file_name.rstrip("3.h5")
    table.to_hdf(tmp_path / "pandas.h5", key="df_with_missing", format=format)
    assert_same(load(path), load(tmp_path / "pandas.h5"))


@pytest.mark.parametrize("file_name", [name for name in WRITERS if name.endswith("h5")])
def test_h5__cut_off__is_an_error(tmp_path, file_name):
    path = WRITERS[file_name](tmp_path / file_name, columns_of(), numbers(50, 6))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=rf"{file_name}.*cut off.*\n.*again"):
        recognise(path)
    for work in (dlc_h5.PARSER.inspect, lambda path: next(dlc_h5.PARSER.read(path, 5))):
        with pytest.raises(InputError, match="complete HDF5 file"):
            work(path)


@pytest.mark.parametrize("file_name", ["fixed.h5", "table.h5"])
def test_h5__is_found_under_any_key(tmp_path, file_name):
    path = WRITERS[file_name](tmp_path / file_name, columns_of(), numbers(5, 6), key="a/b c")
    assert load(path)[1][""].shape == (5, 2, 2)


def test_h5__two_tables_with_names_of_deeplabcut(tmp_path):
    columns, values = columns_of(), numbers(9, 6)
    path = write_fixed(tmp_path / "a.h5", columns, values, key="tracks")
    write_table(path, columns, values + 1, key="df_with_missing", mode="a")
    header, position, _ = load(path)
    assert "read table `/df_with_missing`" in header.notes[0]
    np.testing.assert_array_equal(position[""][:, 0], (values[:, :2] + 1).astype(np.float32))
    write_table(tmp_path / "b.h5", columns, values, key="tracks")
    write_table(tmp_path / "b.h5", columns, values[:5], key="df_with_missing", mode="a")
    with pytest.raises(InputError, match="`/df_with_missing, 5 frames`, `/tracks, 9 frames`"):
        load(tmp_path / "b.h5")


def test_h5__two_tables_of_unknown_names__is_an_error(tmp_path):
    path = write_fixed(tmp_path / "a.h5", columns_of(), numbers(9, 6), key="one")
    write_fixed(path, columns_of(), numbers(9, 6), key="two", mode="a")
    with pytest.raises(InputError, match=r"`/one, 9 frames`, `/two, 9 frames`[\s\S]*read_hdf"):
        load(path)


def test_h5__other_pandas_tables_are_no_tracking(tmp_path):
    path = write_fixed(tmp_path / "a.h5", columns_of(coords=("mean", "sd")), numbers(9, 4))
    assert dlc_h5.PARSER.sniff(path) is None
    with pytest.raises(InputError, match="pandas table with DeepLabCut's columns"):
        load(path, format="dlc_h5")


def test_h5__text_in_a_column__is_an_error(tmp_path):
    columns = columns_of(coords=("x", "y", "comment"))
    dtypes = ("f8", "f8", "S3")
    load(write_table(tmp_path / "a.h5", columns, np.full((4, 6), 7.0), dtypes=dtypes))
    path = write_fixed(tmp_path / "b.h5", columns_of(), np.full((4, 6), 7.0), dtypes=("S3",))
    with pytest.raises(InputError, match="text or objects in the columns `nose x`"):
        load(path)


def test_h5__names_that_claim_a_lot_and_values_elsewhere__are_refused(tmp_path):
    columns = columns_of()
    path = write_fixed(tmp_path / "names.h5", columns, numbers(20, len(columns)))
    with h5py.File(path, "a") as file:
        del file["df_with_missing/axis0_label1"]
        file["df_with_missing"].create_dataset("axis0_label1", (10**9,), "i1", chunks=(8,))
    with pytest.raises(InputError, match="as many values"):
        dlc_h5.PARSER.inspect(path)
    path = write_fixed(tmp_path / "elsewhere.h5", columns, numbers(20, len(columns)))
    with h5py.File(path, "a") as file:
        name = "df_with_missing/block0_values"
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, "f8", external=[(str(path), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(InputError, match="in other files"):
        dlc_h5.PARSER.inspect(path)


def test_h5__labelled_frames__are_refused(tmp_path):
    path = write_fixed(tmp_path / "a.h5", columns_of(), numbers(4, 6))
    with h5py.File(path, "a") as file:
        del file["df_with_missing/axis1"]
        array(file["df_with_missing"], "axis1", np.array([b"labeled-data/v/img1.png"] * 4))
    with pytest.raises(InputError, match="labelled by hand"):
        load(path)


def test_h5__table_without_its_values__is_an_error(tmp_path):
    path = write_fixed(tmp_path / "a.h5", columns_of(), numbers(4, 6))
    with h5py.File(path, "a") as file:
        del file["df_with_missing/block0_values"]
    with pytest.raises(InputError, match="table `/df_with_missing`: expected a pandas table"):
        load(path)


def test_h5__table_of_another_length_than_written__is_an_error(tmp_path):
    path = write_table(tmp_path / "a.h5", columns_of(), numbers(4, 6))
    with h5py.File(path, "a") as file:
        file["df_with_missing/table"].resize(10**12, axis=0)
    with pytest.raises(InputError, match="1000000000000 rows where 4 were written"):
        load(path)


@needs_data
def test_h5__fewer_rows_than_written__is_a_note():
    # A real file whose authors kept a tenth of the rows; it is right as it is.
    header, position, _ = load(DATA / "dlc_h5/mlfpm_deepof/test2DLC_square_arena.h5")
    assert len(position[""]) == 451
    assert header.notes == ("4512 frames were written, 451 are in the file: it may have been cut",)


class Malicious:
    """Creates a file when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class Builtin:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


@pytest.mark.parametrize("kind", [Malicious, Builtin])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_h5__malicious_pickle__is_refused_and_not_run(tmp_path, kind, protocol):
    target = tmp_path / "pwned"
    bomb = pickle.dumps([(1, [kind(target)])], protocol=protocol)
    pickle.loads(bomb)
    assert target.exists()  # the bomb works
    target.unlink()
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        dlc_h5._unpickle(bomb)
    if protocol == 0:  # the one that PyTables writes: the others hold null bytes
        axes = np.bytes_(bomb)
        path = write_table(tmp_path / "a.h5", columns_of(), numbers(4, 6), axes=axes)
        assert dlc_h5.PARSER.sniff(path)
        for work in (dlc_h5.PARSER.inspect, lambda path: list(dlc_h5.PARSER.read(path, 5))):
            with pytest.raises(InputError, match=r"a\.h5, table `/df_with_missing`.*refused"):
                work(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "bomb",
    [
        b"cnumpy\ndtype\n(S'O'\ntR.",  # an object dtype
        b"c_codecs\nencode\n(dS'__call__'\nNsb.",  # state put on an allowed callable
        b"cposix\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x95garbage",
        b"(lp0\n",
        b"",
    ],
)
def test_unpickle__refuses_what_is_not_plain(bomb):
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        dlc_h5._unpickle(bomb)


def test_unpickle__reads_names_as_numpy_and_old_pandas_wrote_them():
    value = [(1, [(np.str_("nösé"), np.int64(3), np.float32(1.5), "x")])]
    for protocol in (0, 2, 4):
        data = pickle.dumps(value, protocol=protocol)
        assert dlc_h5._unpickle(data) == [(1, [("nösé", 3, 1.5, "x")])]
    frozen = b"cpandas.core.indexes.frozen\nFrozenList\n((lVscorer\natR."
    assert dlc_h5._unpickle(frozen) == ["scorer"]


# --- registry ------------------------------------------------------------------------------


def test_formats__name_the_parsers():
    assert parsers.formats() == tuple(parser.name for parser in parsers.PARSERS)
    assert {"dlc_csv", "dlc_h5"} <= set(parsers.formats())


@each_writer
def test_recognise__goes_by_content_not_by_name(tmp_path, file_name):
    path = WRITERS[file_name](tmp_path / file_name, columns_of(), numbers(5, 6))
    path = path.rename(tmp_path / "pose.dat")
    parser, why = recognise(path)
    assert parser.name == ("dlc_csv" if file_name == "pose.csv" else "dlc_h5")
    assert why
    parser, why = recognise(str(path), "dlc_h5")
    assert (parser.name, why) == ("dlc_h5", "asked for with `format='dlc_h5'`")


def test_recognise__unknown_format__lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"auto, dlc_csv, dlc_h5.*found 'dlc'"):
        recognise(tmp_path / "a.csv", "dlc")


def test_recognise__absent_folder_or_empty__is_an_error(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.touch()
    for path, found in [
        (tmp_path / "absent.csv", "No such file"),
        (tmp_path, "a folder"),
        (empty, "an empty file"),
    ]:
        for format in ("auto", "dlc_csv"):
            with pytest.raises(InputError, match=f"{path}: .*{found}"):
                recognise(path, format)
        assert all(parser.sniff(path) is None for parser in parsers.PARSERS)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"frame,x,y\n0,1,2\n", "text beginning with 'frame,x,y'"),
        (b"\x00\x01\x02\xff", "unknown binary content"),
        (b"\n\n", "text beginning with ''"),
    ],
)
def test_recognise__something_else__says_what_it_is(tmp_path, content, found):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found):
        recognise(path)
    for parser in parsers.PARSERS:
        with pytest.raises(InputError, match=r"a\.csv"):
            parser.inspect(path)
        with pytest.raises(InputError, match=r"a\.csv"):
            list(parser.read(path, 10))


def test_recognise__several_formats__asks_for_one(tmp_path, monkeypatch):
    twin = Parser("twin", "Twin", lambda _: "also", dlc_csv.inspect, dlc_csv.read)
    monkeypatch.setattr(parsers, "PARSERS", (*parsers.PARSERS, twin))
    path = write_csv(tmp_path / "a.csv", columns_of(), numbers(5, 6))
    with pytest.raises(InputError, match="`format='dlc_csv'` or `format='twin'`"):
        recognise(path)
    assert recognise(path, "twin")[0] is twin
