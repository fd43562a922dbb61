"""Generic tables, wide and long, csv and parquet, with and without a mapping."""

from __future__ import annotations

import builtins
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import ReadOptions
from kpms_zarr.store.parsers.table import parser as table
from kpms_zarr.store.parsers.table import rows as table_rows
from kpms_zarr.store.parsers.table.files import batches
from kpms_zarr.store.parsers.table.parser import PARSER

pytest.importorskip("pyarrow")

KINDS = ["csv", "parquet"]


def write(path, frame, **options):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, **options)
    return path


def some_poses(n_frames=30, n_keypoints=3, n_dims=2, individuals=("",), seed=0):
    """(frame, individual, keypoint, space), and confidences."""
    rng = np.random.default_rng(seed)
    shape = (n_frames, len(individuals), n_keypoints)
    position = rng.normal(100, 30, (*shape, n_dims)).astype(np.float32)
    position[rng.random(shape) < 0.1] = np.nan
    return position, rng.uniform(0, 1.5, shape).astype(np.float32)


def names_of(n_keypoints):
    return [f"point_{k}" for k in range(n_keypoints)]


def wide(position, confidence=None, between="_", score="confidence"):
    """One individual; columns NAME_x, NAME_y, ..."""
    columns = {}
    for k, name in enumerate(names_of(position.shape[2])):
        for d in range(position.shape[3]):
            columns[f"{name}{between}{'xyz'[d]}"] = position[:, 0, k, d]
        if confidence is not None:
            columns[f"{name}{between}{score}"] = confidence[:, 0, k]
    return pd.DataFrame(columns)


def long(position, confidence, individuals, first=0, step=1):
    n_keypoints, n_dims = position.shape[2:]
    at = np.indices(position.shape[:3]).reshape(3, -1)
    columns = {"frame": first + step * at[0]}
    if individuals != ("",):
        columns["individual"] = np.array(individuals)[at[1]]
    columns["keypoint"] = np.array(names_of(n_keypoints))[at[2]]
    columns |= {"xyz"[d]: position[..., d].ravel() for d in range(n_dims)}
    if confidence is not None:
        columns["confidence"] = confidence.ravel()
    return pd.DataFrame(columns)


def with_mapping(**mapping):
    return ReadOptions(mapping=json.loads(json.dumps(mapping)))


def refused(path, options=None):
    with pytest.raises(InputError) as caught:
        list(PARSER.read(path, 10, options or ReadOptions()))
    for problem in caught.value.problems:
        assert all((problem.expected, problem.found, problem.where, problem.fix))
    return str(caught.value)


# --- plain tables --------------------------------------------------------------------


@settings(
    max_examples=examples(80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n_frames=st.integers(1, 30),
    n_keypoints=st.integers(1, 4),
    n_dims=st.sampled_from([2, 3]),
    score=st.sampled_from([None, "confidence", "likelihood", "score", "conf", "p"]),
    counter=st.sampled_from([None, "frame", "Frame_idx"]),
    first=st.integers(0, 1000),
    block_frames=st.integers(1, 40),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_wide_round_trip__is_exact_in_blocks_of_any_size(
    load, n_frames, n_keypoints, n_dims, score, counter, first, block_frames, kind, seed
):
    position, confidence = some_poses(n_frames, n_keypoints, n_dims, seed=seed)
    frame = wide(position, confidence if score else None, score=score)
    if counter:
        frame.insert(0, counter, first + np.arange(n_frames))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"x.{kind}", frame)
        assert PARSER.sniff(path)
        found = load(PARSER, path, block_frames=block_frames)
    assert found.header.tracks[0].keypoints == tuple(names_of(n_keypoints))
    assert found.header.tracks[0].first_frame == (first if counter else 0)
    np.testing.assert_array_equal(found.position["x"], position[:, 0])
    if score:
        np.testing.assert_array_equal(found.confidence["x"], confidence[:, 0])


@settings(
    max_examples=examples(80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n_frames=st.integers(1, 25),
    n_keypoints=st.integers(1, 4),
    n_dims=st.sampled_from([2, 3]),
    individuals=st.sampled_from([("",), ("m1",), ("a b", "Ü", "7")]),
    has_confidence=st.booleans(),
    first=st.integers(0, 1000),
    step=st.sampled_from([1, 5]),
    left_out=st.floats(0, 0.5),
    shuffle=st.booleans(),
    block_frames=st.integers(1, 30),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_long_round_trip__is_exact_with_rows_left_out_and_in_any_order(
    load, n_frames, n_keypoints, n_dims, individuals, has_confidence, first, step, left_out,
    shuffle, block_frames, kind, seed,
):  # fmt: skip
    position, confidence = some_poses(n_frames, n_keypoints, n_dims, individuals, seed)
    rng = np.random.default_rng(seed)
    is_kept = rng.random(position.shape[:3]) >= left_out
    # So that the order of names, and the frames, are known.
    is_kept[0] = is_kept[-1] = True
    is_kept[:, 0, 0] = True
    frame = long(position, confidence if has_confidence else None, individuals, first, step)
    frame = frame[is_kept.ravel()]
    if shuffle:
        order = rng.permutation(np.arange(n_keypoints * len(individuals), len(frame)))
        order = np.concatenate([np.arange(len(frame) - len(order)), order])
        frame = frame.iloc[order]
    position[~is_kept], confidence[~is_kept] = np.nan, np.nan
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"x.{kind}", frame)
        assert PARSER.sniff(path)
        found = load(PARSER, path, block_frames=block_frames)
    header = found.header.tracks[0]
    assert header.keypoints == tuple(names_of(n_keypoints))
    assert (header.first_frame, header.frame_step) == (first, step if n_frames > 1 else 1)
    for number, name in enumerate(individuals):
        key = f"x_{name}" if name else "x"
        np.testing.assert_array_equal(found.position[key], position[:, number])
        if has_confidence:
            np.testing.assert_array_equal(found.confidence[key], confidence[:, number])


def test_small_batches__give_the_same(tmp_path, load, monkeypatch):
    position, confidence = some_poses(300, individuals=("a", "b"))
    path = write(tmp_path / "x.csv", long(position, confidence, ("a", "b")))
    whole = load(PARSER, path)
    monkeypatch.setattr("kpms_zarr.store.parsers.text.reading._RANGE_BYTES", 100)
    monkeypatch.setattr(table, "_BLOCK_BYTES", 500)
    found = load(PARSER, path, block_frames=128)
    for key, values in whole.position.items():
        np.testing.assert_array_equal(found.position[key], values)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_without_rows__are_missing(tmp_path, load, kind):
    position, _ = some_poses(10)
    frame = wide(position)
    frame["frame"] = np.arange(10)
    found = load(PARSER, write(tmp_path / f"x.{kind}", frame.drop([3, 4, 7])), block_frames=4)
    position[[3, 4, 7]] = np.nan
    np.testing.assert_array_equal(found.position["x"], position[:, 0])


def test_time_column__gives_the_frame_rate(tmp_path, load):
    frame = wide(some_poses(50)[0])
    frame.insert(0, "time", 2 + np.arange(50) / 25)
    path = write(tmp_path / "x.csv", frame)
    assert PARSER.sniff(path)
    track = load(PARSER, path).header.tracks[0]
    assert (track.fps, track.first_frame) == (25.0, 0)
    frame["number"] = 100 + 2 * np.arange(50)
    options = with_mapping(pattern="{keypoint}_{coord}", time="time", frame="number")
    track = load(PARSER, write(path, frame), options).header.tracks[0]
    # Of the video, of which every other frame is in the table.
    assert (track.fps, track.first_frame, track.frame_step) == (50.0, 100, 2)


def test_index_of_pandas__does_not_matter(tmp_path, load):
    position, _ = some_poses()
    wide(position).to_csv(tmp_path / "x.csv")
    assert PARSER.sniff(tmp_path / "x.csv")
    np.testing.assert_array_equal(load(PARSER, tmp_path / "x.csv").position["x"], position[:, 0])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_flavours_of_csv__are_the_same(tmp_path, load, delimiter, end, bom):
    position, confidence = some_poses()
    text = wide(position, confidence).to_csv(
        index=False, sep=delimiter, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC
    )
    (tmp_path / "x.csv").write_bytes(bom + text.encode() + b"\n\n")
    np.testing.assert_array_equal(load(PARSER, tmp_path / "x.csv").position["x"], position[:, 0])


@pytest.mark.parametrize("word", ["", "NA", "nan", "NaN", "None", "null", " "])
def test_missing_cells__are_missing(tmp_path, load, word):
    (tmp_path / "x.csv").write_text(f"a_x,a_y\n1,2\n{word},{word}\n3,4\n")
    found = load(PARSER, tmp_path / "x.csv").position["x"][:, 0]
    np.testing.assert_array_equal(found, [[1, 2], [np.nan, np.nan], [3, 4]])


def test_infinite_values__are_missing(tmp_path, load):
    (tmp_path / "x.csv").write_text("a_x,a_y\n1,2\ninf,-Infinity\n1e300,4\n")
    found = load(PARSER, tmp_path / "x.csv").position["x"][:, 0]
    np.testing.assert_array_equal(found, [[1, 2], [np.nan, np.nan], [np.nan, 4]])


def test_confidence_of_some_keypoints__is_left_out_with_a_note(tmp_path, load):
    (tmp_path / "x.csv").write_text("a_x,a_y,b_x,b_y,b_p\n1,2,3,4,5\n")
    header = load(PARSER, tmp_path / "x.csv").header
    assert not header.has_confidence
    assert any("no confidence for `a`" in note for note in header.notes)


# --- recognising ------------------------------------------------------------------------


def test_sniff__leaves_all_other_formats_alone(real):
    assert not [path for path in real.others("table") if PARSER.sniff(path)]


@pytest.mark.parametrize(
    "header",
    [
        "a,b",
        "x,y",
        "a_x,a_y,other",
        "a_x,a_y,a_error,a_ncams,a_score",
        "a_x,a_y,b_x",
        "a_x,a_y,b_x,b_y,b_z",
        "a_x,a_y,a_x",
        "a_x,a_y,frame,time",
        "a_x,a_y,a_p,a_score",
        "frame,keypoint,x",
        "frame,keypoint,x,y,speed",
        "scorer,net,net,net",
        "a_p,b_p",
        "",
    ],
)
def test_doubtful_columns__are_not_claimed(tmp_path, header):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n1\n")
    assert PARSER.sniff(path) is None
    if header:
        names = header.split(",")
        frame = pd.DataFrame([range(len(set(names)))], columns=list(dict.fromkeys(names)))
        if len(frame.columns) == len(names):
            assert PARSER.sniff(write(tmp_path / "x.parquet", frame)) is None


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" * 9, bytes(3000), b"\xff"])
def test_other_content__is_not_claimed(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    assert PARSER.sniff(tmp_path / "x.csv") is None
    refused(tmp_path / "x.csv")


def test_no_such_file__is_no_error_of_sniff(tmp_path):
    assert PARSER.sniff(tmp_path / "none.csv") is None
    refused(tmp_path / "none.csv")


def test_without_pyarrow__parquet_is_claimed_and_says_what_to_install(tmp_path, monkeypatch):
    poses = some_poses()
    claimed = [
        write(tmp_path / "wide.parquet", wide(*poses)),
        write(tmp_path / "long.parquet", long(*poses, ("",))),
        write(tmp_path / "many.parquet", wide(*some_poses(n_keypoints=80))),
    ]
    other = write(tmp_path / "other.parquet", wide(*poses).assign(speed=1.0))
    real_import = builtins.__import__

    def no_pyarrow(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    assert PARSER.sniff(other) is None
    for path in claimed:
        assert PARSER.sniff(path)
        assert "pip install 'kpms_zarr[table]'" in refused(path)


@pytest.mark.parametrize(
    ("header", "example"),
    [
        ("noseX,noseY,t", {"pattern": "{keypoint}{coord}", "coords": {"x": "X", "y": "Y"}}),
        ("x_nose,y_nose,i", {"pattern": "{coord}_{keypoint}"}),
        ("frame,nose.x,nose.y,speed", {"pattern": "{keypoint}.{coord}", "frame": "frame"}),
        (
            "Frame,bodypart,X,Y",
            {"frame": "Frame", "keypoint": "bodypart", "x": "X", "y": "Y"},
        ),
        ("one,two", {"keypoints": {"nose": {"x": "one", "y": "two"}}}),
    ],
)
def test_unclear_columns__are_answered_with_a_mapping_that_works(tmp_path, load, header, example):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n{','.join('1234'[: header.count(',') + 1])}\n")
    message = refused(path)
    assert json.dumps(example) in message
    assert "`mapping=`" in message
    assert load(PARSER, path, ReadOptions(mapping=example)).position["x"].shape == (1, 1, 2)


# --- mappings -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_explicit_columns__are_read_in_the_order_of_the_mapping(tmp_path, load, kind):
    frame = pd.DataFrame({"tail H": [1.0, 2], "no": ["a", "b"], "tail V": [3.0, 4], "NX": [5, 6],
                          "NY": [7, 8]})  # fmt: skip
    options = with_mapping(
        keypoints={"nose": {"x": "NX", "y": "NY"}, "tail": {"x": "tail H", "y": "tail V"}}
    )
    found = load(PARSER, write(tmp_path / f"x.{kind}", frame), options)
    assert found.header.tracks[0].keypoints == ("nose", "tail")
    np.testing.assert_array_equal(found.position["x"], [[[5, 7], [1, 3]], [[6, 8], [2, 4]]])
    assert any("left out columns: `no`" in note for note in found.header.notes)


def test_pattern__with_individuals_and_other_words(tmp_path, load):
    header = "m1/left_ear/X,m1/left_ear/Y,m1/left_ear/ok,m2/nose/X,m2/nose/Y,m2/nose/ok,speed"
    (tmp_path / "x.csv").write_text(f"{header}\n1,2,0.5,3,4,0.6,9\n")
    options = with_mapping(
        pattern="{individual}/{keypoint}/{coord}",
        coords={"x": "X", "y": "Y", "confidence": "ok"},
    )
    found = load(PARSER, tmp_path / "x.csv", options)
    assert [(t.individual, t.keypoints) for t in found.header.tracks] == [
        ("m1", ("left_ear",)),
        ("m2", ("nose",)),
    ]
    np.testing.assert_array_equal(found.position["x_m2"], [[[3, 4]]])
    np.testing.assert_allclose(found.confidence["x_m2"], [[0.6]])


@pytest.mark.parametrize("kind", KINDS)
def test_wide_rows_of_several_individuals__are_told_apart(tmp_path, load, kind):
    position, _ = some_poses(12, individuals=("a", "b"))
    tables = [wide(position[:, n : n + 1]).assign(frame=np.arange(12), who=n + 7) for n in (0, 1)]
    frame = pd.concat(tables).sort_values("frame", kind="stable").iloc[:-1]
    options = with_mapping(pattern="{keypoint}_{coord}", frame="frame", individual="who")
    found = load(PARSER, write(tmp_path / f"x.{kind}", frame), options, block_frames=5)
    np.testing.assert_array_equal(found.position["x_7"], position[:, 0])
    np.testing.assert_array_equal(found.position["x_8"][:-1], position[:-1, 1])
    assert np.isnan(found.position["x_8"][-1]).all()


def test_missing_values__can_be_said(tmp_path, load):
    (tmp_path / "x.csv").write_text("a_x,a_y,a_p\n-1,-1,-1\nlost,5,0.5\n0,6,0\n")
    options = with_mapping(pattern="{keypoint}_{coord}", missing=[-1, "lost"])
    found = load(PARSER, tmp_path / "x.csv", options)
    np.testing.assert_array_equal(found.position["x"][:, 0], [[np.nan] * 2, [np.nan, 5], [0, 6]])
    np.testing.assert_array_equal(found.confidence["x"][:, 0], [-1, 0.5, 0])


def test_a_mapping__is_used_for_plain_tables_too(tmp_path, load):
    path = write(tmp_path / "x.csv", wide(some_poses()[0]))
    options = with_mapping(keypoints={"a": {"x": "point_1_x", "y": "point_1_y"}})
    assert load(PARSER, path, options).header.tracks[0].keypoints == ("a",)


PATTERN = "{keypoint}_{coord}"
LONG = {"frame": "frame", "keypoint": "keypoint", "x": "x", "y": "y"}


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"patern": PATTERN}, ["`patern`, did you mean `pattern`?"]),
        ({"pattern": PATTERN, "fram": "f"}, ["`fram`, did you mean `frame`?"]),
        ({"pattern": PATTERN, "keypoints": {}}, ["2 of them"]),
        ({}, ["0 of them"]),
        ([1], ["[1]"]),
        ({"pattern": "{keypoint}"}, ["{keypoint}, {coord}"]),
        ({"pattern": "{keypoint}_{axis}"}, ["{keypoint}, {coord}"]),
        ({"pattern": 3}, ["the name of a column"]),
        ({"pattern": "q{keypoint}_{coord}"}, ["none like"]),
        ({"pattern": PATTERN, "coords": {"w": "x"}}, ["text for x, y, z"]),
        ({"pattern": PATTERN, "coords": {"x": "y"}}, ["without"]),
        ({"pattern": PATTERN, "frame": "framee"}, ["no `framee`, did you mean `frame`?"]),
        ({"pattern": PATTERN, "individual": "frame"}, ["`frame`", "number of their frame"]),
        ({"pattern": PATTERN, "missing": [None]}, ["numbers or texts"]),
        ({"keypoints": {"nose": {"x": "a_x"}}}, ["names of columns for x, y"]),
        ({"keypoints": {"nose": {"x": "a_x", "y": "a_q"}}}, ["no `a_q`, did you mean"]),
        ({"keypoints": {"n": {"x": "a_x", "y": "a_x"}}}, ["`a_x` twice"]),
        ({"keypoints": []}, ["columns by keypoint"]),
        ({"keypoint": "keypoint", "x": "x"}, ["expected `y`", "expected `frame`"]),
        (LONG | {"indivdual": "a"}, ["`indivdual`, did you mean `individual`?"]),
        (LONG | {"x": ["x"]}, ["the name of a column"]),
        ({"pattern": PATTERN, "zz": 1, "frame": 2}, ["`zz`", "`mapping=`, frame"]),
    ],
)
def test_wrong_mapping__says_all_that_is_wrong(tmp_path, mapping, said):
    (tmp_path / "x.csv").write_text("frame,a_x,a_y,keypoint,x,y\n1,2,3,a,4,5\n")
    if isinstance(mapping, dict) and "coords" not in mapping and mapping.get("pattern") == PATTERN:
        (tmp_path / "x.csv").write_text("frame,a_x,a_y\n1,2,3\n")
    message = refused(tmp_path / "x.csv", ReadOptions(mapping=mapping))
    for words in said:
        assert words in message


# --- refused rows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a_x,a_y\n", "0 rows"),
        (
            "a_x,a_y\n1,2\n3\n",
            "row 3: expected 2 fields, found 1 fields.\n  What to do: the file is",
        ),
        ("a_x,a_y\n1\n3,4\n", "row 2: expected 2 fields"),
        ("a_x,a_y\n1,2\n3,4,5\n", "found 3 fields"),
        ("a_x,a_y\n1,2\n\n3,4\n", "an empty line"),
        ("a_x,a_y\n1,2\n3,four\n", "row 3, column a_y: expected a number"),
        ("a_x,a_y\n1,2\n3,1_0\n", "the text '1_0'"),
        ("a_x,a_y\n1,2\n3,\0\n", "row 3, column a_y"),
        ("a_x,a_y\n1,2\n3,True\n", "the text 'True'"),
        ("a_x;a_y\n1,5;2.5\n", "one decimal mark"),
        ("a_x;a_y\n1.5;2,5,5\n", "the text '2,5,5'"),
        ("frame,a_x,a_y\n0,1,2\n1.5,1,2\n", "row 3: expected a frame number"),
        ("frame,a_x,a_y\n0,1,2\n,1,2\n", "found none"),
        ("frame,a_x,a_y\n-1,1,2\n", "found -1"),
        ("frame,a_x,a_y\n1e300,1,2\n", "found 1e+300"),
        ("frame,a_x,a_y\n0,1,2\n1,1,2\n1,5,6\n", "several for frame 1"),
        ("frame,a_x,a_y\n5,1,2\n1,1,2\n5,5,6\n", "several for frame 5"),
        ("frame,a_x,a_y\n0,1,2\n1,1,2\n900000000000,5,6\n", "numbers from 0 to 900000000000"),
        ("frame,keypoint,x,y\n0,a,1,2\n0,a,3,4\n", "several for frame 0 a.\n"),
        ("frame,keypoint,x,y\n0,a,1,2\n0,a,3,4\n", "as `individual`"),
        ("frame,keypoint,x,y\n0,a,1,2\n1,,3,4\n", "row 3: expected the name of the keypoint"),
        ("frame,keypoint,individual,x,y\n7,a,m,1,2\n7,a,m,3,4\n", "several for frame 7 m a"),
        ('a_x,a_y\n1,"2\n3,4"\n', "row 3, column a_y"),
    ],
)
def test_wrong_rows__are_named(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text)
    assert said in refused(tmp_path / "x.csv")


def test_text_in_another_encoding__is_read_or_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("frame,keypoint,x,y\n0,Öhr,1,2\n".encode("cp1252"))
    assert PARSER.inspect(path).tracks[0].keypoints == ("Öhr",)
    path.write_bytes("a_x,a_y\n1,2\n".encode("utf-16"))
    assert PARSER.inspect(path).tracks[0].keypoints == ("a",)
    path.write_bytes(b"frame,keypoint,x,y\n0,nose,1,\xe42\n1,\xff,1,2\n")
    assert "the text" in refused(path)
    path.write_bytes(b"frame,keypoint,x,y\n0,nose\x81,1,2\n")
    assert "UTF-8" in refused(path)


@pytest.mark.parametrize("column", ["keypoint", "individual"])
def test_too_many_names__are_refused(tmp_path, column):
    n = {"keypoint": 1_001, "individual": 10_001}[column]
    frame = pd.DataFrame({"frame": np.arange(n), "keypoint": "a", "individual": "m", "x": 1.0,
                          "y": 1.0})  # fmt: skip
    frame[column] = np.arange(n)
    assert f"map another column as `{column}`" in refused(write(tmp_path / "x.csv", frame))


def test_too_many_cells__are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_rows, "_MOST_CELLS", 5)
    path = write(tmp_path / "x.csv", long(*some_poses(individuals=("a", "b")), ("a", "b")))
    assert "keypoints of all individuals together" in refused(path)


def test_large_unsorted_tables__are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_UNSORTED_BYTES", 100)
    frame = long(*some_poses(), ("",))
    assert list(PARSER.read(write(tmp_path / "x.csv", frame), 100))
    assert "sort_values" in refused(write(tmp_path / "x.csv", frame.iloc[::-1]))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["a", "b"], "no numbers"),
        ([[1.0], [2.0]], "no numbers"),
        ([True, False], "no numbers"),
        (pd.to_datetime(["2020", "2021"]), "no numbers"),
    ],
)
def test_parquet_of_other_types__is_refused(tmp_path, column, said):
    path = write(tmp_path / "x.parquet", pd.DataFrame({"a_x": column, "a_y": [1.0, 2.0]}))
    assert said in refused(path)


def test_parquet_types__that_are_numbers_are_read(tmp_path, load):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "a_x": pa.array([1, None, 3], pa.int16()),
        "a_y": pa.array(["1.5", "2.5", None], pa.string()).cast(pa.decimal128(5, 2)),
        "b_x": pa.array([1.5, None, 2.5], pa.float32()).dictionary_encode(),
        "b_y": pa.nulls(3),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=2)
    found = load(PARSER, tmp_path / "x.parquet").position["x"]
    np.testing.assert_array_equal(found[:, 0, 0], [1, np.nan, 3])
    np.testing.assert_array_equal(found[:, 0, 1], [1.5, 2.5, np.nan])
    np.testing.assert_array_equal(found[:, 1, 0], [1.5, np.nan, 2.5])
    assert np.isnan(found[:, 1, 1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files__raise_input_errors_only(tmp_path, kind, survives_damage):
    poses = some_poses(40, individuals=("a", "b"))
    path = write(tmp_path / f"x.{kind}", long(*poses, ("a", "b")))
    assert survives_damage(PARSER, path, 200) < 150


# --- SLEAP's csv export ----------------------------------------------------------------


def as_sleap(position, confidence, tracks, first=0):
    """Rows of SLEAP: one for each instance with a point, in the order of frames."""
    n_frames, n_tracks, n_keypoints = position.shape[:3]
    at = np.indices((n_frames, n_tracks)).reshape(2, -1)
    columns = {"track": np.array(tracks)[at[1]], "frame_idx": first + at[0]}
    columns["instance.score"] = np.full(len(at[0]), 0.25)
    for k, name in enumerate(names_of(n_keypoints)):
        columns[f"{name}.x"], columns[f"{name}.y"] = position[..., k, :].reshape(-1, 2).T
        columns[f"{name}.score"] = confidence[..., k].ravel()
    is_there = np.isfinite(position).all(-1).any(-1).ravel()
    return pd.DataFrame(columns)[is_there]


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n_frames=st.integers(1, 30),
    tracks=st.sampled_from([("",), ("track_0",), ("track_0", "mouse b")]),
    first=st.integers(0, 1000),
    block_frames=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_sleap_csv_round_trip__is_exact_without_a_mapping(
    tmp_path, load, n_frames, tracks, first, block_frames, seed
):
    position, confidence = some_poses(n_frames, individuals=tracks, seed=seed)
    position[[0, -1]] = 1.0
    position[1:-1][np.random.default_rng(seed).random(max(0, n_frames - 2)) < 0.2] = np.nan
    is_missing = np.isnan(position).any(-1).all(-1)
    confidence[is_missing] = np.nan
    path = write(tmp_path / "a.csv", as_sleap(position, confidence, tracks, first))
    assert PARSER.sniff(path)
    found = load(PARSER, path, block_frames=block_frames)
    assert [track.individual for track in found.header.tracks] == list(tracks)
    assert {track.first_frame for track in found.header.tracks} == {first}
    assert found.header.tracks[0].keypoints == tuple(names_of(3))
    for place, track in enumerate(found.header.tracks):
        step, session = track.frame_step, "_".join(filter(None, ("a", track.individual)))
        np.testing.assert_array_equal(found.position[session], position[::step, place])
        np.testing.assert_array_equal(found.confidence[session], confidence[::step, place])


def test_sleap_csv__several_instances_a_frame_without_tracks_are_refused(tmp_path):
    position, confidence = some_poses(individuals=("a", "b"))
    frame = as_sleap(position, confidence, ("a", "b"))
    for names, words in ((("", ""), "Run Tracking"), (("", "b"), "name of the individual")):
        tracks = frame.assign(track=frame["track"].map(dict(zip("ab", names, strict=True))))
        assert words in refused(write(tmp_path / "a.csv", tracks))


# --- rows of text alone ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_batches__of_text_alone_have_every_row(tmp_path, kind):
    rows = {"session": ["a", "a", "b b"], "condition": ["x", "", "y"]}
    path = write(tmp_path / f"conditions.{kind}", pd.DataFrame(rows))
    found: dict[str, list] = {name: [] for name in rows}
    for batch in batches(path, (), (0, 1), ()):
        assert batch.numbers.shape == (len(batch.texts[0][0]), 0)
        for name, (code, texts) in zip(rows, batch.texts, strict=True):
            found[name] += [texts[one] for one in code]
    assert found == rows
