"""NWB with ndx-pose, on real files against EXPECTED.json and on small written ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.nwb import pose as nwb
from kpms_zarr.store.parsers.nwb.pose import PARSER

FOLDER = "nwb_ndxpose"
# The reference fails for these; what they hold was looked up with h5py.
MINIMAL = "nwb_ndxpose/talmolab_sleap-io.js/minimal.pose.nwb"
RODENT = "nwb_ndxpose/talmolab_stac-mjx/test_rodent_mocap_1000_frames.nwb"


def typed(group, name):
    group.attrs.update(neurodata_type=name, namespace="ndx-pose")
    return group


def write_series(pose, name, data, confidence=None, *, rate=None, times=None, conversion=None):
    group = typed(pose.create_group(name), "PoseEstimationSeries")
    chunks = {"compression": "gzip", "chunks": True} if data.size else {}
    group.create_dataset("data", data=data, **chunks)
    if conversion:
        group["data"].attrs.update(conversion=conversion[0], offset=conversion[1])
    if confidence is not None:
        group["confidence"] = confidence
    if rate:
        group["starting_time"] = 0.0
        group["starting_time"].attrs["rate"] = rate
    if times is not None:
        group["timestamps"] = times
    return group


def write_nwb(path, poses, *, nodes=None, skeleton=False, names=None, **series):
    """`poses`: by name, (position, confidence or None); keypoints are a, b, c, ..."""
    with h5py.File(path, "w") as file:
        file.attrs["neurodata_type"] = "NWBFile"
        behavior = file.create_group("processing/behavior")
        for pose_name, (position, confidence) in poses.items():
            pose = typed(behavior.create_group(pose_name), "PoseEstimation")
            keys = names or [chr(ord("a") + k) for k in range(position.shape[1])]
            for k, name in enumerate(keys):
                of_point = None if confidence is None else confidence[:, k]
                write_series(pose, name, position[:, k], of_point, **series)
            if nodes and skeleton:
                typed(behavior.require_group("Skeletons/one"), "Skeleton")
                if "nodes" not in behavior["Skeletons/one"]:
                    behavior["Skeletons/one/nodes"] = nodes
                pose["skeleton"] = h5py.SoftLink("/processing/behavior/Skeletons/one")
            elif nodes:
                pose["nodes"] = nodes
    return path


def some_poses(n_frames=50, n_keypoints=3, n_dims=2, seed=0):
    rng = np.random.default_rng(seed)
    position = rng.normal(100, 20, (n_frames, n_keypoints, n_dims)).astype(np.float32)
    position[rng.random(position.shape[:2]) < 0.1] = np.nan
    return position, rng.uniform(0, 1.3, position.shape[:2]).astype(np.float32)


def refused(path):
    with pytest.raises(InputError) as caught:
        list(PARSER.read(path, 10))
    problem = caught.value.problems[0]
    assert all((problem.expected, problem.found, problem.where, problem.fix))
    return str(caught.value)


# --- real files ------------------------------------------------------------------------


def test_real_files__agree_with_expected(real):
    for name in real.names(FOLDER):
        if name not in (MINIMAL, RODENT):
            real.check(real.load(PARSER, name), name)


def test_real_files__have_names_videos_and_no_rate_from_frame_numbers(real):
    header = real.load(PARSER, "nwb_ndxpose/DeepLabCut_DLC2NWB/m3v1mp4.nwb").header
    assert header.tracks[0].keypoints[0] == "ind1_snout"
    assert header.tracks[0].video == "fake_path"
    assert header.tracks[0].fps is None
    assert any("numbers of frames" in note for note in header.notes)


def test_real_file_in_3d__is_read_though_pynwb_refuses_it(real):
    found = real.load(PARSER, RODENT)
    track = found.header.tracks[0]
    assert found.header.space == ("x", "y", "z")
    assert track.keypoints[:3] == ("Snout", "EarL", "EarR")
    assert track.fps == pytest.approx(30)
    (position,) = found.position.values()
    assert position.shape == (1000, 23, 3)
    with h5py.File(real.folder / RODENT) as file:
        pose = file["processing/behavior/PoseEstimation"]
        for k, name in enumerate(track.keypoints):
            np.testing.assert_allclose(position[:, k], pose[name]["data"][:], rtol=1e-6)


def test_real_file_with_two_tracks__are_two_sessions(real):
    # EXPECTED says that no coordinate is missing, but one series has no frames at all.
    found = real.load(PARSER, MINIMAL)
    one, two = (found.position[f"minimal.pose_track={n}"] for n in (1, 2))
    np.testing.assert_array_equal(one[:, 0], [[10, 20], [11, 21], [12, 22]])
    np.testing.assert_array_equal(two[:, 0], [[50, 60], [51, 61]])
    assert np.isnan(two[:, 1]).all()
    assert found.header.tracks[0].video == "/data/minimal.mp4"
    assert any("B, 0 frames" in note for note in found.header.notes)


def test_real_pair__agrees_with_the_deeplabcut_file(real):
    name = "dlc_h5/DeepLabCut_DLC2NWB/m3v1mp4DLC_resnet50_openfieldAug20shuffle1_30000.h5"
    (wanted,) = real.expected[name]["keys"].values()
    (position,) = real.load(PARSER, "nwb_ndxpose/DeepLabCut_DLC2NWB/m3v1mp4.nwb").position.values()
    middle = np.array(wanted["middle_frame_coords"])
    np.testing.assert_allclose(position[wanted["middle_frame"]], middle, atol=2e-4)


def test_sniff__leaves_other_formats_alone(real):
    assert not [path for path in real.others(FOLDER) if PARSER.sniff(path)]
    assert all(PARSER.sniff(real.folder / name) for name in real.names(FOLDER))


# --- small files written here ------------------------------------------------------------


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n_frames=st.integers(1, 40),
    n_keypoints=st.integers(1, 5),
    n_dims=st.sampled_from([2, 3]),
    block_frames=st.integers(1, 50),
    seed=st.integers(0, 1000),
    has_confidence=st.booleans(),
    has_nodes=st.booleans(),
)
def test_round_trip__is_exact_in_blocks_of_any_size(
    load, n_frames, n_keypoints, n_dims, block_frames, seed, has_confidence, has_nodes
):
    position, confidence = some_poses(n_frames, n_keypoints, n_dims, seed)
    names = [chr(ord("a") + k) for k in range(n_keypoints)]
    order = np.random.default_rng(seed).permutation(n_keypoints) if has_nodes else slice(None)
    nodes = np.array(names)[order].tolist() if has_nodes else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.nwb"
        write_nwb(path, {"P": (position, confidence if has_confidence else None)}, nodes=nodes)
        found = load(PARSER, path, block_frames=block_frames)
    assert list(found.header.tracks[0].keypoints) == (nodes or names)
    np.testing.assert_array_equal(found.position["x"], position[:, order])
    if has_confidence:
        np.testing.assert_array_equal(found.confidence["x"], confidence[:, order])


def test_small_reads__give_the_same_as_large_ones(tmp_path, load, monkeypatch):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses(200)})
    whole = load(PARSER, path)
    monkeypatch.setattr(nwb, "_READ_BYTES", 1)
    np.testing.assert_array_equal(
        load(PARSER, path, block_frames=7).position["x"], whole.position["x"]
    )


def test_skeleton__names_keypoints_by_way_of_a_soft_link(tmp_path, load):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()}, nodes=["c", "a", "b"], skeleton=True)
    assert load(PARSER, path).header.tracks[0].keypoints == ("c", "a", "b")


def test_affixes_of_series__are_taken_away_and_matched_loosely(tmp_path, load):
    names = ["PoseEstimationSeriesLeftEar", "PoseEstimationSeriesNose"]
    position, confidence = some_poses(n_keypoints=2)
    poses = {"P": (position, confidence)}
    bare = load(PARSER, write_nwb(tmp_path / "x.nwb", poses, names=names))
    assert bare.header.tracks[0].keypoints == ("LeftEar", "Nose")
    assert any("alphabetical" in note for note in bare.header.notes)
    path = write_nwb(tmp_path / "y.nwb", poses, names=names, nodes=["nose", "left_ear"])
    named = load(PARSER, path)
    assert named.header.tracks[0].keypoints == ("nose", "left_ear")
    np.testing.assert_array_equal(named.position["y"], position[:, ::-1])


def test_names_that_would_be_the_same__keep_their_affixes(tmp_path, load):
    names = ["NosePoseEstimationSeries", "PoseEstimationSeriesNose"]
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses(n_keypoints=2)}, names=names)
    assert load(PARSER, path).header.tracks[0].keypoints == tuple(names)


def test_nodes_and_series_that_differ__are_noted(tmp_path, load):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()}, nodes=["b", "tail", "a"])
    found = load(PARSER, path)
    assert found.header.tracks[0].keypoints == ("b", "a", "c")
    notes = " ".join(found.header.notes)
    assert "`tail`" in notes
    assert "`c`" in notes


def test_several_objects__are_named_and_may_differ_in_length(tmp_path, load):
    poses = {"m1": some_poses(30), "m2": some_poses(20, seed=1), "m3": some_poses(30, seed=2)}
    found = load(PARSER, write_nwb(tmp_path / "x.nwb", poses), block_frames=8)
    assert [track.part for track in found.header.tracks] == ["m1", "m2", "m3"]
    for name, (position, confidence) in poses.items():
        np.testing.assert_array_equal(found.position[f"x_{name}"], position)
        np.testing.assert_array_equal(found.confidence[f"x_{name}"], confidence)


def test_objects_of_the_same_name__are_told_apart_by_their_module(tmp_path, load):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()})
    with h5py.File(path, "a") as file:
        file.copy("processing/behavior", "processing/other")
    assert set(load(PARSER, path).position) == {"x_behavior_P", "x_other_P"}


def test_an_object_without_coordinates__is_left_out(tmp_path, load):
    position, confidence = some_poses()
    poses = {"m1": (position, confidence), "m2": (position * np.nan, confidence)}
    found = load(PARSER, write_nwb(tmp_path / "x.nwb", poses))
    assert set(found.position) == {"x_m1"}
    assert any("`m2`" in note for note in found.header.notes)


def test_conversion__is_applied(tmp_path, load):
    position, confidence = some_poses()
    path = write_nwb(tmp_path / "x.nwb", {"P": (position, confidence)}, conversion=(2.0, 5.0))
    found = load(PARSER, path)
    np.testing.assert_allclose(found.position["x"], position * 2 + 5, rtol=1e-6)
    assert any("multiplied by `2`" in note for note in found.header.notes)


def test_rate_and_times__give_the_frame_rate(tmp_path, load):
    poses = {"P": some_poses()}
    by_rate = load(PARSER, write_nwb(tmp_path / "x.nwb", poses, rate=29.97))
    assert by_rate.header.tracks[0].fps == 29.97
    times = 3 + np.arange(50) / 120
    by_times = load(PARSER, write_nwb(tmp_path / "x.nwb", poses, times=times))
    assert by_times.header.tracks[0].fps == pytest.approx(120)
    counted = load(PARSER, write_nwb(tmp_path / "x.nwb", poses, times=7.0 + np.arange(50)))
    assert (counted.header.tracks[0].fps, counted.header.tracks[0].first_frame) == (None, 7)


def test_links_inside__are_followed(tmp_path, load):
    position, confidence = some_poses()
    path = write_nwb(tmp_path / "x.nwb", {"P": (position, confidence)}, times=np.arange(50) / 25)
    with h5py.File(path, "a") as file:
        pose = file["processing/behavior/P"]
        file.move("processing/behavior/P/b", "elsewhere")
        pose["b"] = h5py.SoftLink("/elsewhere")
        del pose["c/timestamps"]
        pose["c/timestamps"] = h5py.SoftLink("/processing/behavior/P/a/timestamps")
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["x"], position)
    assert found.header.tracks[0].fps == 25


def test_infinite_values__are_missing(tmp_path, load):
    position, confidence = some_poses()
    position[3, 1, 0] = np.inf
    found = load(PARSER, write_nwb(tmp_path / "x.nwb", {"P": (position.astype("f8"), confidence)}))
    assert np.isnan(found.position["x"][3, 1, 0])


def test_confidence_of_some_series__is_left_out_with_a_note(tmp_path, load):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()})
    with h5py.File(path, "a") as file:
        del file["processing/behavior/P/b/confidence"]
    found = load(PARSER, path)
    assert not found.header.has_confidence
    assert any("no confidence for `b`" in note for note in found.header.notes)


# --- refused -------------------------------------------------------------------------


def change(path, do):
    with h5py.File(path, "a") as file:
        do(file["processing/behavior/P"])


def external_link(pose):
    del pose["a/data"]
    pose["a/data"] = h5py.ExternalLink("other.nwb", "/data")


def external_storage(pose):
    del pose["a/data"]
    pose["a"].create_dataset("data", (50, 2), "f4", external=[("/dev/zero", 0, 400)])


def virtual(pose):
    del pose["a/data"]
    layout = h5py.VirtualLayout((50, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (50, 2))
    pose["a"].create_virtual_dataset("data", layout)


def cycle(pose):
    del pose["a/data"]
    pose["a/data"] = h5py.SoftLink("/processing/behavior/P/a/data")


def huge(pose):
    del pose["a/data"], pose["a/confidence"]
    pose["a"].create_dataset("data", (10**12, 2), "f8", chunks=(1000, 2))


def wrong_shape(pose):
    del pose["a/data"]
    pose["a/data"] = np.zeros((50, 4))


def texts(pose):
    del pose["a/data"]
    pose["a/data"] = np.full((50, 2), b"abc")


def zero_scale(pose):
    pose["a/data"].attrs["conversion"] = 0.0


def other_space(pose):
    del pose["a/data"]
    pose["a/data"] = np.zeros((50, 3))


def short_confidence(pose):
    del pose["a/confidence"]
    pose["a/confidence"] = np.zeros(49)


def other_times(pose):
    pose["a/timestamps"] = 1 + np.arange(50) / 30
    pose["b/timestamps"] = 2 + np.arange(50) / 30


def no_series(pose):
    for name in "abc":
        del pose[name]


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (external_link, "none in this file"),
        (external_storage, "in other files"),
        (virtual, "in other files"),
        (cycle, "none in this file"),
        (huge, "0 bytes where"),
        (wrong_shape, "(50, 4)"),
        (texts, "values of type"),
        (zero_scale, "conversion 0"),
        (other_space, "x, y or x, y, z"),
        (short_confidence, "(49,)"),
        (other_times, "frame 0, at"),
        (no_series, "at least one PoseEstimationSeries"),
    ],
)
def test_what_cannot_be_read__is_refused(tmp_path, do, said):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()})
    change(path, do)
    assert said in refused(path)


def test_all_problems__are_named_at_once(tmp_path):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()})
    change(path, wrong_shape)
    change(path, lambda pose: pose.__delitem__("b/data"))
    message = refused(path)
    assert "series `a`" in message
    assert "series `b`" in message


def test_shorter_series__is_padded_unless_its_times_are_others(tmp_path, load):
    position, confidence = some_poses(6, 2)
    times = np.arange(6) / 30
    path = write_nwb(tmp_path / "x.nwb", {"P": (position, confidence)}, times=times)

    def shorten(rows):
        def do(pose):
            for name in ("data", "confidence", "timestamps"):
                values = np.concatenate(
                    [position[:, 1]]
                    if name == "data"
                    else [confidence[:, 1] if name == "confidence" else times]
                )
                if f"b/{name}" in pose:
                    del pose[f"b/{name}"]
                pose[f"b/{name}"] = values[rows]

        return do

    change(path, shorten(slice(4)))
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["x"][:4], position[:4])
    assert np.isnan(found.position["x"][4:, 1]).all()
    assert any("shorter than 6 frames" in note for note in found.header.notes)
    change(path, shorten([0, 1, 4]))
    assert "b, frame 2" in refused(path)


def test_hdf5_without_poses__is_not_claimed_and_refused(tmp_path):
    with h5py.File(tmp_path / "x.nwb", "w") as file:
        file.attrs["neurodata_type"] = "NWBFile"
        file["data"] = 1
    assert PARSER.sniff(tmp_path / "x.nwb") is None
    assert "PoseEstimation" in refused(tmp_path / "x.nwb")


def test_damaged_files__raise_input_errors_only(tmp_path, survives_damage):
    path = write_nwb(tmp_path / "x.nwb", {"P": some_poses()}, nodes=["c", "a", "b"], rate=30.0)
    assert survives_damage(PARSER, path, 150) < 120


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"text", bytes(5000)])
def test_other_content__is_not_claimed(tmp_path, content):
    (tmp_path / "x.nwb").write_bytes(content)
    assert PARSER.sniff(tmp_path / "x.nwb") is None
    refused(tmp_path / "x.nwb")
