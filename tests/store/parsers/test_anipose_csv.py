"""The anipose parser, on a real file against EXPECTED.json and on small written ones."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.anipose_csv import PARSER
from kpms_zarr.store.parsers.base import ReadOptions

REAL = "anipose_csv/talmolab_stac-mjx/test_fly_treadmill_short.csv"
WITH_SPACES = ["top front chamber", "top back chamber", "back center chamber"]
NAMES = ("left ear, tip", "l-base", "Butt/Proximal_Tail")
COLUMNS = ("x", "y", "z", "error", "ncams", "score")


def numbers(n_frames, n_keypoints=3, n_columns=6, seed=0, missing=0.2):
    """(frame, keypoint, column) float64."""
    rng = np.random.default_rng(seed)
    values = rng.normal(3, 2, (n_frames, n_keypoints, n_columns))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def write(path, values, names=NAMES, *, columns=COLUMNS, before=None, fnum=True, end="\n"):
    """Write what anipose writes: NaN as an empty cell; `before` are columns of metadata."""
    before = before or {}
    head = [*before, *(f"{name}_{c}" for name in names for c in columns)]
    fixed = {f"M_{i}{j}": float(i == j) for i in range(3) for j in range(3)}
    fixed |= {f"center_{i}": 0.5 for i in range(3)}
    rows = [[*head, *fixed, *(["fnum"] if fnum is not False else [])]]
    for number, frame in enumerate(values):
        cells = ["" if np.isnan(v) else repr(float(v)) for v in frame.ravel()]
        counted = [] if fnum is False else [number if fnum is True else fnum[number]]
        rows.append([*(v[number] for v in before.values()), *cells, *fixed.values(), *counted])
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end).writerows(rows)
    return path


def assert_read(found, path, values):
    want = values.astype(np.float32)
    np.testing.assert_array_equal(found.position[path.stem], want[:, :, :3])
    np.testing.assert_array_equal(found.confidence[path.stem], want[:, :, 5])


# --- real files ------------------------------------------------------------------------


def test_real_file__agrees_with_expected_and_keeps_names_with_spaces(real):
    found = real.load(PARSER, REAL)
    wanted = real.expected[REAL]
    assert wanted["reference_is_wrong"]  # it drops the names with spaces
    (track,) = found.header.tracks
    assert list(track.keypoints) == WITH_SPACES + wanted["bodyparts"]
    (numbers_of,) = wanted["keys"].values()
    position = found.position["test_fly_treadmill_short"].astype(float)
    confidence = found.confidence["test_fly_treadmill_short"].astype(float)
    assert position.shape == (99, 12, 3)
    assert not np.isnan(position).any()
    assert np.mean(position[:, 3:]) == pytest.approx(numbers_of["coord_mean"], abs=1e-4)
    assert np.mean(confidence[:, 3:]) == pytest.approx(numbers_of["conf_mean"], abs=2e-6)
    middle = numbers_of["middle_frame"]
    np.testing.assert_allclose(
        position[middle, 3:], numbers_of["middle_frame_coords"], atol=2e-4, rtol=0
    )
    np.testing.assert_allclose(
        confidence[middle, 3:], numbers_of["middle_frame_confs"], atol=2e-6, rtol=0
    )
    np.testing.assert_allclose(
        position[0, 0], [4.02298358609465, -0.0001147231914027, -0.0007342074588714], rtol=1e-6
    )


def test_real_file__metadata_and_frame_numbers(real):
    header = real.load(PARSER, REAL).header
    assert (header.tracks[0].first_frame, header.tracks[0].frame_step) == (0, 1)
    assert header.notes == (
        "left out columns that are no coordinates of keypoints: `genotype`, `filename`, "
        "`fly number`, `trial number`, `belt speed (mm/s)` and 1 more",
    )


def test_sniff__leaves_other_formats_alone(real):
    assert PARSER.sniff(real.folder / REAL)
    assert not [path for path in real.others("anipose_csv") if PARSER.sniff(path)]
    assert PARSER.sniff(real.folder / "README.md") is None


# --- what is written is read -------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_read__gives_what_was_written(tmp_path, load, end, mark):
    values = numbers(40)
    before = {"trial, of day": ['"a", b'] * 40, "": range(40)}
    path = write(tmp_path / "a b.csv", values, before=before, end=end)
    path.write_bytes(mark.encode() + path.read_bytes() + end.encode() * 2)
    assert "_x, _y, _z, _error, _ncams, _score" in PARSER.sniff(path)
    found = load(PARSER, path)
    assert_read(found, path, values)
    assert found.header.space == ("x", "y", "z")
    assert found.header.tracks[0].keypoints == NAMES
    assert found.header.notes == (
        "left out columns that are no coordinates of keypoints: `trial, of day`",
    )


# The fixture is a plain function, the same for all examples.
@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(0, 2**16),
    st.lists(
        st.text("abc _-(),\"'é\u20ac", min_size=1).map(str.strip).filter(bool),
        min_size=1,
        max_size=4,
        unique=True,
    ),
)
def test_read__blocks_of_any_size_give_the_same(load, n_frames, block_frames, seed, names):
    values = numbers(n_frames, len(names), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.csv", values, names)
        found = load(PARSER, path, block_frames=block_frames)
        assert found.header.tracks[0].keypoints == tuple(names)
        assert_read(found, path, values)


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", " ", '""', "inf", "1e300"])
def test_missing_cells(tmp_path, load, cell):
    path = write(tmp_path / "a.csv", numbers(3, 2, missing=0), ("nose", "tail"), fnum=False)
    lines = path.read_text().splitlines()
    lines[2] = f"1.5,{cell}, 7 ,,,0.5" + "," * (lines[0].count(",") - 5)
    path.write_text("\n".join(lines))
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["a"][1, 0], [1.5, np.nan, 7])
    assert np.isnan(found.position["a"][1, 1]).all()
    assert found.confidence["a"][1, 0] == 0.5


def test_score__above_one_is_kept(tmp_path, load):
    values = numbers(4, missing=0)
    values[:, :, 5] = 2.0  # what anipose gives where no camera saw the point
    assert (load(PARSER, write(tmp_path / "a.csv", values)).confidence["a"] == 2).all()


@pytest.mark.parametrize("columns", ["x y z error ncams", "z x y error", "x y z ncams"])
def test_without_score__is_read_without_confidence(tmp_path, load, columns):
    values = numbers(9, n_columns=len(columns.split()))
    path = write(tmp_path / "a.csv", values, columns=columns.split())
    found = load(PARSER, path)
    assert found.confidence == {}
    assert found.header.notes == ("no score for the file: read without confidence",)
    at = [columns.split().index(c) for c in "xyz"]
    np.testing.assert_array_equal(found.position["a"], values[:, :, at].astype(np.float32))


def test_without_score_of_one_keypoint__is_said(tmp_path, load):
    path = write(tmp_path / "a.csv", numbers(9))
    path.write_text(path.read_text().replace("l-base_score", "l-base", 1))
    header = load(PARSER, path).header
    assert not header.has_confidence
    assert header.notes[0] == "no score for `l-base`: read without confidence"


def test_other_triplets__are_no_keypoints(tmp_path, load):
    before = {f"stage_{c}": range(5) for c in "xyz"} | {"trial_score": range(5), "view_x": range(5)}
    path = write(tmp_path / "a.csv", numbers(5), before=before)
    header = load(PARSER, path).header
    assert header.tracks[0].keypoints == NAMES
    assert "`stage_x`, `stage_y`, `stage_z`, `trial_score`, `view_x`" in header.notes[0]


# --- frame numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fnum", "first_frame", "frame_step"),
    [
        (True, 0, 1),
        (False, 0, 1),
        (range(17, 37), 17, 1),
        (range(5, 105, 5), 5, 5),
        ([float(n) for n in range(3, 23)], 3, 1),
    ],
)
def test_frame_numbers__say_first_frame_and_step(tmp_path, fnum, first_frame, frame_step):
    header = PARSER.inspect(write(tmp_path / "a.csv", numbers(20), fnum=fnum))
    (track,) = header.tracks
    assert (track.first_frame, track.frame_step) == (first_frame, frame_step)
    assert len(header.notes) == (frame_step > 1)


def test_frame_numbers__one_frame_only(tmp_path):
    header = PARSER.inspect(write(tmp_path / "a.csv", numbers(1), fnum=[12]))
    assert (header.tracks[0].first_frame, header.tracks[0].frame_step) == (12, 1)


@pytest.mark.parametrize(
    ("fnum", "note"),
    [
        (
            [0, 1, 2, 5, 6],
            "2 frames are missing after frame 2, as the numbers in column `fnum` say",
        ),
        ([-2, -1, 0, 1, 2], "begin at -2: taken as frame 0"),
        ([0, 1, "nan", 3, 4], "missing in some rows"),
        ([0, 1, "inf", 3, 4], "missing in some rows"),
        ([0, 1, "", 3, 4], "missing in some rows"),
        ([0, 0.04, 0.08, 0.12, 0.16], "read as seconds, 25 frames per second"),
        (["img1.png"] * 5, "text without plain frame numbers"),
    ],
)
def test_frame_numbers__odd_ones_are_a_note(tmp_path, load, fnum, note):
    header = load(PARSER, write(tmp_path / "a.csv", numbers(5), fnum=fnum)).header
    assert (header.tracks[0].first_frame, header.tracks[0].frame_step) == (0, 1)
    assert len(header.notes) == 1
    assert note in header.notes[0]


@pytest.mark.parametrize(
    ("fnum", "row", "found"),
    [
        ([0, 1, 2, 0, 1], 5, "frame 0 in the row after frame 2: the order of the rows says"),
        ([4, 4, 4, 4, 4], 3, "frame 4 in the row after frame 4 (and in 3 more rows)"),
    ],
)
def test_frame_numbers__that_go_back_are_refused(tmp_path, fnum, row, found):
    path = write(tmp_path / "a.csv", numbers(5), fnum=fnum)
    with pytest.raises(InputError, match="increase from row to row") as error:
        PARSER.inspect(path)
    assert f"row {row}: " in str(error.value)
    assert found in str(error.value)
    assert PARSER.inspect(path, ReadOptions(time_unit="rows")).tracks[0].gaps is None


def test_frame_numbers__are_found_in_front_too(tmp_path):
    path = write(tmp_path / "a.csv", numbers(9), before={"fnum": range(30, 39)}, fnum=False)
    assert PARSER.inspect(path).tracks[0].first_frame == 30


# --- what is wrong is said ---------------------------------------------------------------


def replaced(path, row, text):
    lines = path.read_text().splitlines()
    lines[row - 1] = text
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("cell", ["oops", "1_0", "1.5\0", "0x10", "1.5.2"])
def test_text_in_a_cell__names_row_and_column(tmp_path, cell):
    path = write(tmp_path / "a.csv", numbers(30, 2, missing=0), ("nose", "tail"))
    cells = path.read_text().splitlines()[20].split(",")
    replaced(path, 21, ",".join([*cells[:7], cell, *cells[8:]]))
    PARSER.inspect(path)
    blocks = PARSER.read(path, 8)
    next(blocks)
    with pytest.raises(InputError, match=r"a\.csv, row 21, column tail_y: expected a number"):
        list(blocks)


def test_cut_off__is_an_error(tmp_path):
    path = write(tmp_path / "a.csv", numbers(30, missing=0))
    path.write_text(path.read_text()[:-80])
    with pytest.raises(InputError, match=r"a\.csv, row 31: expected 31 fields.*\n.*cut off"):
        list(PARSER.read(path, 100))


@pytest.mark.parametrize(
    ("row", "found"), [("3,1,2", "3 fields"), ("3" + "," * 40, "41 fields"), ("", "an empty line")]
)
def test_row_of_another_length__is_an_error(tmp_path, row, found):
    path = replaced(write(tmp_path / "a.csv", numbers(9)), 5, row)
    with pytest.raises(InputError, match=rf"row 5: expected 31 fields, found {found}.\n.*correct"):
        list(PARSER.read(path, 4))


def test_row_of_separators__as_spreadsheets_leave_them_is_left_out_and_said(tmp_path, load):
    path = replaced(write(tmp_path / "a.csv", numbers(9)), 5, "," * 40)
    found = load(PARSER, path)
    (track,) = found.header.tracks
    assert [len(position) for position in found.position.values()] == [8]
    assert track.gaps.total == 1  # where the row was, as the numbers of the frames say
    assert any("left out a row with nothing but separators" in n for n in found.header.notes)


def test_columns__all_that_is_wrong_is_reported_together(tmp_path):
    path = write(tmp_path / "a.csv", numbers(5), ("nose", "nose", "tail"))
    path.write_text(path.read_text().replace("tail_y", "tail-y", 1))
    with pytest.raises(InputError) as caught:
        PARSER.inspect(path)
    assert len(caught.value.problems) == 2
    assert "`tail_y`" in str(caught.value)
    assert "`nose_x`, `nose_y`" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", "a;b;c\n1;2;3", "frame,nose_x,nose_y\n0,1,2\n"])
def test_something_else__is_not_claimed_and_refused(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match=r"a\.csv, header: expected columns NAME_x"):
        PARSER.inspect(path)


def test_asked_for_by_name__takes_coordinates_alone(tmp_path, load):
    path = write(tmp_path / "a.csv", numbers(5, n_columns=3), columns="xyz")
    assert PARSER.sniff(path) is None
    assert load(PARSER, path).header.tracks[0].keypoints == NAMES


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_no_frames__is_an_error(tmp_path, end):
    path = write(tmp_path / "a.csv", numbers(0))
    path.write_text(path.read_text().rstrip("\n") + end)
    assert PARSER.sniff(path)
    with pytest.raises(InputError, match="at least one frame below the header, found 0 frames"):
        PARSER.inspect(path)


def test_another_encoding__is_read_or_an_error(tmp_path):
    path = write(tmp_path / "a.csv", numbers(5), ("näse",))
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.encode("cp1252"))
    header = PARSER.inspect(path)
    assert header.tracks[0].keypoints == ("näse",)
    assert any("cp1252" in note and "näse_x" in note for note in header.notes)
    path.write_bytes(text.encode("utf-16"))
    assert PARSER.inspect(path).tracks[0].keypoints == ("näse",)
    path.write_bytes(text.encode("cp1252").replace(b"\xe4", b"\x81"))
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match=r"text in UTF-8, found the byte b'\\x81'"):
        PARSER.inspect(path)


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "no.csv"):
        assert PARSER.sniff(path) is None
        with pytest.raises(InputError, match="a file that can be read"):
            PARSER.inspect(path)


def test_damaged_bytes__give_no_other_error(tmp_path, survives_damage):
    path = write(tmp_path / "good.csv", numbers(12), before={"a": ['x"y'] * 12})
    assert survives_damage(PARSER, path, 150) < 150


@pytest.mark.parametrize("text", ["9", '"', ",", "nose_x,nose_y,nose_z,nose_error,", "\0"])
def test_without_line_ends__is_refused_soon(tmp_path, text, full):
    path = tmp_path / "a.csv"
    path.write_text(text * ((20_000_000 if full else 5_000_000) // len(text)))
    PARSER.sniff(path)
    with pytest.raises(InputError):
        PARSER.inspect(path)
