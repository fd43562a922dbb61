"""The FreiPose parser, on small files written as documented: no real file is at hand."""

from __future__ import annotations

import json
import math
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import ReadOptions
from kpms_zarr.store.parsers.freipose_json import PARSER

NAMED = ReadOptions(keypoint_names=("nose", "paw", "tail"))
SCALE = "the confidence is `kp_score`, which is no likelihood and may exceed 1"


def numbers(n_frames, n_keypoints=3, seed=0, missing=0.2):
    """(frame, keypoint, x y z score) float64."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 0.3, (n_frames, n_keypoints, 4))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def frames_of(values, *, nested_scores=True):
    """Write what the tutorial of FreiPose describes: boxes of cameras, centre, pose, scores."""
    return [
        {
            "boxes": [[0.1, 0.2, 0.3, 0.4]] * 7,
            "xyz": [[-0.1204, 0.0304, 0.5414]],
            "kp_xyz": [frame[:, :3].tolist()],
            "kp_score": [frame[:, 3].tolist()] if nested_scores else frame[:, 3].tolist(),
        }
        for frame in values
    ]


def write(path, frames, **how):
    path.write_text(json.dumps(frames, **how))
    return path


def assert_read(found, path, values):
    want = values.astype(np.float32)
    np.testing.assert_array_equal(found.position[path.stem], want[:, :, :3])
    np.testing.assert_array_equal(found.confidence[path.stem], want[:, :, 3])


# --- what is written is read -------------------------------------------------------------


@pytest.mark.parametrize("nested_scores", [True, False])
@pytest.mark.parametrize("how", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_read__gives_what_was_written(tmp_path, load, nested_scores, how):
    values = numbers(40)
    path = write(
        tmp_path / "pred_run01__00.json", frames_of(values, nested_scores=nested_scores), **how
    )
    assert PARSER.sniff(path) == "list of frames with kp_xyz"
    found = load(PARSER, path, NAMED)
    assert_read(found, path, values)
    assert found.header.space == ("x", "y", "z")
    assert found.header.tracks[0].keypoints == NAMED.keypoint_names
    assert found.header.notes == (SCALE,)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**16))
def test_read__blocks_of_any_size_give_the_same(load, n_frames, block_frames, n_keypoints, seed):
    values = numbers(n_frames, n_keypoints, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.json", frames_of(values))
        assert_read(load(PARSER, path, block_frames=block_frames), path, values)


def test_pieces_of_a_file_may_end_anywhere(tmp_path, load, monkeypatch):
    values = numbers(9)
    path = write(tmp_path / "a.json", frames_of(values), indent=1)
    path.write_text("\n \t" + path.read_text() + "\n\n ", encoding="utf-8-sig")
    for size in (*range(1, 40), 1000):
        monkeypatch.setattr("kpms_zarr.store.parsers.freipose_json._CHUNK", size)
        assert_read(load(PARSER, path), path, values)


def test_names__are_numbers_with_a_note_unless_given(tmp_path):
    path = write(tmp_path / "a.json", frames_of(numbers(4)))
    header = PARSER.inspect(path)
    assert header.tracks[0].keypoints == ("keypoint_0", "keypoint_1", "keypoint_2")
    assert "`keypoint_0` to `keypoint_2`; name them with `keypoint_names=`" in header.notes[0]
    with pytest.raises(InputError, match=r"3 names.*found 2 in `keypoint_names=`"):
        PARSER.inspect(path, ReadOptions(keypoint_names=("a", "b")))


def test_scores__above_one_are_kept(tmp_path, load):
    values = numbers(4, missing=0)
    values[:, :, 3] = 1.7
    confidence = load(PARSER, write(tmp_path / "a.json", frames_of(values))).confidence["a"]
    assert (confidence == np.float32(1.7)).all()


def test_without_scores__is_read_without_confidence(tmp_path, load):
    frames = [{"kp_xyz": frame["kp_xyz"]} for frame in frames_of(numbers(4))]
    found = load(PARSER, write(tmp_path / "a.json", frames), NAMED)
    assert found.confidence == {}
    assert found.header.notes == ("no `kp_score`: read without confidence",)


def test_frames_and_points_without_a_pose__are_missing(tmp_path, load):
    frames = frames_of(numbers(6, missing=0))
    frames[0] = {"boxes": [], "xyz": None}
    frames[2]["kp_xyz"], frames[2]["kp_score"] = None, []
    frames[4]["kp_xyz"][0][1] = [1, None, 2**70]
    frames[5]["kp_xyz"][0][0] = [10**400, 1, 2]
    found = load(PARSER, write(tmp_path / "a.json", frames))
    position, confidence = found.position["a"], found.confidence["a"]
    assert np.isnan(position[[0, 2]]).all()
    assert np.isnan(confidence[[0, 2]]).all()
    np.testing.assert_array_equal(position[4, 1], np.float32([1, math.nan, 2.0**70]))
    np.testing.assert_array_equal(position[5, 0], [math.nan, 1, 2])
    assert np.isnan(position).sum() == 2 * 9 + 2


def test_integers_and_poses_without_the_first_axis(tmp_path, load):
    frames = [{"kp_xyz": [[i, i + 1, i + 2]], "kp_score": [1]} for i in range(5)]
    found = load(PARSER, write(tmp_path / "a.json", frames))
    assert found.position["a"][4].tolist() == [[4, 5, 6]]
    assert found.confidence["a"].tolist() == [[1]] * 5


def test_memory__is_that_of_a_piece_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("kpms_zarr.store.parsers.freipose_json._CHUNK", 50_000)
    path = tmp_path / "a.json"
    frame = json.dumps(frames_of(numbers(1, 12))[0])
    path.write_text("[" + ",".join([frame] * 1_500) + "]")
    assert path.stat().st_size > 1_500_000
    tracemalloc.start()
    try:
        n_frames = sum(block.n_frames for block in PARSER.read(path, 50))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_frames == 1_500
    assert peak < 750_000


# --- what is wrong is said ---------------------------------------------------------------


def test_boxes_alone__are_claimed_and_say_what_to_run(tmp_path):
    path = write(tmp_path / "a.json", [{"boxes": [[0, 0, 1, 1]], "xyz": [[0, 0, 0]]}] * 3)
    assert PARSER.sniff(path) == "list of frames with boxes and xyz"
    with pytest.raises(InputError, match=r"found 3 frames.*`boxes`, `xyz`.\n.*predict_pose"):
        PARSER.inspect(path)


@pytest.mark.parametrize("content", ["[]", " [ ] "])
def test_no_frames__is_an_error(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match="frames with `kp_xyz`, found no frame"):
        PARSER.inspect(path)


@pytest.mark.parametrize(
    ("points", "found"),
    [
        ([[[1, 2], [3, 4]]], "shape (1, 2, 2)"),
        ([[[1, 2, 3]], [[4, 5, 6]]], "shape (2, 1, 3)"),
        ([1, 2, 3], "shape (3,)"),
        ([[[1, 2, 3], [4, 5]]], "found "),
        ("abc", "something else than lists of numbers"),
        ({"a": 1}, "something else than lists of numbers"),
    ],
)
def test_pose_of_another_shape__is_an_error(tmp_path, points, found):
    path = write(tmp_path / "a.json", [{"kp_xyz": points}] * 3)
    with pytest.raises(InputError) as caught:
        PARSER.inspect(path)
    assert "`kp_xyz` of shape (1, keypoints, 3)" in str(caught.value)
    assert found in str(caught.value)
    assert "a.json, frame 0" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("kp_xyz", [[[1, 2, 3]]], "shape (1, 1, 3)"),
        ("kp_xyz", [[[1, 2, 3], [1, 2, 3], [1, 2]]], "found "),
        ("kp_xyz", [[[1, 2, 3], [1, "b", 3], [1, 2, 3]]], "'b'"),
        ("kp_xyz", [[[1, 2, 3], [1, True, None], [1, 2, 3]]], "'True'"),
        ("kp_xyz", {"a": 1}, "something else than lists of numbers"),
        ("kp_score", [[1, 2]], "shape (1, 2)"),
        ("kp_score", 7, "something else than lists of numbers"),
    ],
)
def test_frame_that_differs__is_named(tmp_path, key, value, found):
    frames = frames_of(numbers(30))
    frames[20][key] = value
    path = write(tmp_path / "a.json", frames)
    PARSER.inspect(path)
    blocks = PARSER.read(path, 8)
    next(blocks)
    with pytest.raises(InputError) as caught:
        list(blocks)
    assert "a.json, frame 20: expected" in str(caught.value)
    assert found in str(caught.value)


def test_cut_off__is_an_error(tmp_path):
    path = write(tmp_path / "a.json", frames_of(numbers(30)))
    path.write_text(path.read_text()[:-100])
    assert PARSER.sniff(path)
    with pytest.raises(InputError, match=r"a\.json, frame 29: .*the end of the file within it"):
        list(PARSER.read(path, 100))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text[:-1], "'' where ',' belongs"),
        (lambda text: text.replace("}, {", "} {", 1), "'{' where ',' belongs"),
        (lambda text: text.replace("}, {", "},, {", 1), "Expecting value"),
        (lambda text: text.replace("}, {", "}, 5, {", 1), "something else than an object"),
        (lambda text: text + "[]", "text behind the end of the list"),
        (lambda text: text.replace('"xyz"', "xyz"), "Expecting property name"),
        (lambda text: text[1:-1], "'{' where '[' belongs"),
        (lambda text: "", "'' where '[' belongs"),
    ],
)
def test_json_that_is_none__is_an_error(tmp_path, change, found):
    path = write(tmp_path / "a.json", frames_of(numbers(3)))
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=r"a list of frames in complete JSON") as caught:
        list(PARSER.read(path, 5))
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 2_000_000,
        "[" + '{"a":' * 500_000,
        '[{"kp_xyz": [[[' + "9" * 5_000_000,
        '[{"kp_xyz": "' + "a" * 9_000_000,
        '[{"kp_xyz": ' + "[" * 60 + "1" + "]" * 60 + "}]",
        '[{"kp_xyz": ' + "[" * 90 + "1" + "]" * 90 + "}]",
        " " * 5_000_000,
        '[{"kp_xyz": [[[1e999, -1e999, NaN]]]}, {"kp_xyz": [[["1", 2, 3]]]}]',
    ],
)
def test_hostile_content__is_refused(tmp_path, content, survives):
    path = tmp_path / "a.json"
    path.write_text(content)
    survives(PARSER, path)
    with pytest.raises(InputError):
        list(PARSER.read(path, 5))


def test_damaged_bytes__give_no_other_error(tmp_path, survives_damage):
    path = write(tmp_path / "good.json", frames_of(numbers(5)))
    assert survives_damage(PARSER, path, 200, most=4) < 200


@pytest.mark.parametrize(
    "content",
    ['{"kp_xyz": []}', '[{"keypoints": [1]}]', "[1, 2]", "kp_xyz", "", "\ufeff", "[{}]"],
)
def test_sniff__other_json_is_not_claimed(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert PARSER.sniff(path) is None


def test_sniff__leaves_other_formats_alone(real):
    assert not [path for path in real.others("freipose_json") if PARSER.sniff(path)]
    assert PARSER.sniff(real.folder / "EXPECTED.json") is None


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "no.json"):
        assert PARSER.sniff(path) is None
        with pytest.raises(InputError, match="a file that can be read"):
            PARSER.inspect(path)
