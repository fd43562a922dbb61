"""SLEAP .slp: real files against EXPECTED.json and sleap-io itself, and small ones written here."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError, OtherKindError
from kpms_zarr.store.parsers.sleap import analysis as sleap_h5
from kpms_zarr.store.parsers.sleap import slp

PARSER = slp.PARSER
FOLDER = "slp"
PADILLA = f"{FOLDER}/padillacoreanolab_pose_tracking_repo/"

INSTANCE = np.dtype(
    [
        ("instance_id", "i8"),
        ("instance_type", "u1"),
        ("frame_id", "u8"),
        ("skeleton", "u4"),
        ("track", "i4"),
        ("from_predicted", "i8"),
        ("score", "f4"),
        ("point_id_start", "u8"),
        ("point_id_end", "u8"),
        ("tracking_score", "f4"),
    ]
)
FRAME = np.dtype(
    [
        ("frame_id", "u8"),
        ("video", "u4"),
        ("frame_idx", "u8"),
        ("instance_id_start", "u8"),
        ("instance_id_end", "u8"),
    ]
)
POINT = np.dtype([("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")])
PRED_POINT = np.dtype([*POINT.descr, ("score", "f8")])

NODES = ("nose", "left ear", "tail")
VIDEO = {"filename": "C:/mice\\run 1.mp4", "grayscale": True}


def animal(value, *, track=-1, by_hand=False, hidden=(), n_nodes=3):
    """An instance: x = value, y = value + node, score = value / 100."""
    points = np.zeros(n_nodes, dtype=POINT if by_hand else PRED_POINT)
    points["x"], points["y"] = value, value + np.arange(n_nodes)
    points["visible"] = ~np.isin(np.arange(n_nodes), hidden)
    if not by_hand:
        points["score"] = value / 100
    return track, by_hand, points


def write(path, frames, *, tracks=(), videos=(VIDEO,), nodes=NODES, version=1.2, flat=False):
    """Write a .slp file.

    `frames` (video, number of the frame, instances); `flat` as JavaScript writes tables.
    """
    rows, table, points = [], [], {True: [], False: []}
    counts = {True: 0, False: 0}
    for frame_id, (video, frame_idx, animals) in enumerate(frames):
        table.append((frame_id, video, frame_idx, len(rows), len(rows) + len(animals)))
        for track, by_hand, values in animals:
            begin = counts[by_hand]
            counts[by_hand] += len(values)
            rows.append(
                (len(rows), not by_hand, frame_id, 0, track, -1, 1.0, begin, counts[by_hand], 0.0)
            )
            points[by_hand].append(values)
    names = INSTANCE if version >= 1.2 else np.dtype(INSTANCE.descr[:-1])
    rows = np.array([row[: len(names)] for row in rows], dtype=names)
    with h5py.File(path, "w") as file:
        metadata = file.create_group("metadata")
        metadata.attrs["format_id"] = version
        metadata.attrs["json"] = np.bytes_(json.dumps(metadata_of(nodes)))
        write_table(file, "frames", np.array(table, dtype=FRAME), flat)
        write_table(file, "instances", rows, flat)
        for by_hand, name, dtype in ((True, "points", POINT), (False, "pred_points", PRED_POINT)):
            values = [np.zeros(0, dtype), *points[by_hand]]
            write_table(file, name, np.concatenate(values), flat)
        for name, values in (
            ("tracks_json", [json.dumps([0, track]) for track in tracks]),
            ("videos_json", [json.dumps({"backend": video}) for video in videos]),
            ("suggestions_json", []),
        ):
            encoded = np.array([value.encode() for value in values])
            file.create_dataset(name, data=encoded if values else np.zeros(0), maxshape=(None,))
    return path


def metadata_of(nodes):
    skeleton = {
        "directed": True,
        "graph": {"name": "Skeleton-0", "num_edges_inserted": 0},
        "links": [],
        "multigraph": True,
        # SLEAP numbers the nodes of a project in any order.
        "nodes": [{"id": len(nodes) - 1 - i} for i in range(len(nodes))],
    }
    return {
        "version": "2.0.0",
        "skeletons": [skeleton],
        "nodes": [{"name": name, "weight": 1.0} for name in reversed(nodes)],
        "videos": [],
        "tracks": [],
        "suggestions": [],
        "negative_anchors": {},
        "provenance": {},
    }


def write_table(file, name, rows, flat):
    if not flat:
        file.create_dataset(name, data=rows, maxshape=(None,))
        return
    columns = [rows[field].astype("f8") for field in rows.dtype.names]
    data = file.create_dataset(name, data=np.stack(columns, axis=1))
    data.attrs["field_names"] = json.dumps(rows.dtype.names)


def two_mice(n_frames=6):
    """Two tracks; the second is corrected by hand in every third frame."""
    frames = []
    for i in range(n_frames):
        animals = [animal(i, track=0), animal(50 + i, track=1)]
        if i % 3 == 0:
            animals.append(animal(90 + i, track=1, by_hand=True, hidden=(2,)))
        frames.append((0, i, animals))
    return frames


def by_sleap_io(path, video=0):
    """(frame, track, node, 3) of sleap-io; its lazy reader shows points that are hidden."""
    sleap_io = pytest.importorskip("sleap_io")
    labels = sleap_io.load_slp(str(path), open_videos=False, lazy=False)
    return labels.numpy(video=labels.videos[video], return_confidence=True)


def assert_equal(found, session, wanted):
    track = found.header.tracks[0]
    wanted = wanted[track.first_frame :: track.frame_step]
    np.testing.assert_array_equal(found.position[session], np.float32(wanted[..., :2]))
    np.testing.assert_array_equal(found.confidence[session], np.float32(wanted[..., 2]))


@pytest.fixture(autouse=True)
def _needs_sleap_io():
    pytest.importorskip("sleap_io")


# --- real files ------------------------------------------------------------------------


def test_real_files__agree_with_expected(real):
    names = real.names(FOLDER)
    assert len(names) == 17
    for name in names:
        assert "fails" not in real.expected[name]
        assert not real.expected[name].get("reference_is_wrong")
        found = real.load(PARSER, name)
        real.check(found, name)
        assert PARSER.sniff(real.folder / name) is not None


def test_sniff__leaves_other_formats_alone(real):
    assert [path for path in real.others(FOLDER) if PARSER.sniff(path) is not None] == []


@pytest.mark.parametrize(
    "name",
    [
        "CAGE1_TUBETEST_1.1v1.2.fixed.round_1.predictions.slp",
        "CAGE2_TUBETEST_2.4v2.1_BLACKMICE.mp4.predictions.slp",
    ],
)
def test_real_file__equals_all_that_sleap_io_reads(real, name):
    found = real.load(PARSER, PADILLA + name)
    array = by_sleap_io(real.folder / (PADILLA + name))
    for i, session in enumerate(found.position):
        assert_equal(found, session, array[:, i])


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("talmolab_sleap/predictions.slp", "talmolab_sleap/predictions.analysis.h5"),
        (
            "padillacoreanolab_pose_tracking_repo/C1_R1v2_ID1v2.mp4.predictions.corrected.slp",
            "padillacoreanolab_pose_tracking_repo/"
            "C1_R1v2_ID1v2.mp4.predictions.000_C1_R1v2_ID1v2.analysis_fixed.h5",
        ),
    ],
)
def test_real_pair__equals_the_analysis_file(real, name, pair):
    found = real.load(PARSER, f"{FOLDER}/{name}")
    exported = real.load(sleap_h5.PARSER, f"sleap_analysis_h5/{pair}")
    for one, other in zip(found.position.values(), exported.position.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert found.header.tracks[0].keypoints == exported.header.tracks[0].keypoints


@pytest.mark.parametrize("preset", ["matlab", "standard"])
def test_real_file__exported_by_sleap_io_is_the_same(real, tmp_path, load, preset):
    sleap_io = pytest.importorskip("sleap_io")
    name = f"{FOLDER}/talmolab_sleap-io.js/predictions_1.2.7_provenance_and_tracking.slp"
    labels = sleap_io.load_slp(str(real.folder / name), open_videos=False)
    path = tmp_path / "exported.h5"
    sleap_io.save_analysis_h5(labels, str(path), preset=preset)
    assert sleap_h5.PARSER.sniff(path) is not None
    exported, found = load(sleap_h5.PARSER, path), real.load(PARSER, name)
    for kind in ("position", "confidence"):
        one, other = getattr(exported, kind), getattr(found, kind)
        for i, values in enumerate(other.values()):
            np.testing.assert_array_equal(one[f"exported_track{i}"], values)
    assert exported.header.tracks[0].video == found.header.tracks[0].video


def test_real_file__says_what_a_person_should_know(real):
    name = f"{PADILLA}CAGE2_TUBETEST_2.4v2.1_BLACKMICE.mp4.predictions.slp"
    header = PARSER.inspect(real.folder / name)
    notes = " / ".join(header.notes)
    assert "`2.4` is track0, `2.1` is track1" in notes
    assert "left out 1 instances that belong to no track" in notes
    assert "no positions at all for `track2`, `track3`, `track4`, `track5`, `track6`" in notes
    assert "labelled by hand: confidence 1" in notes
    assert [track.key for track in header.tracks] == [f"track{i}" for i in range(7)]


# --- what wins, what is missing -------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("block_frames", [1, 4, 1000])
def test_correction__wins_and_hidden_points_are_missing(tmp_path, load, block_frames, flat):
    path = write(tmp_path / "a.slp", two_mice(), tracks=["x", "track_1"], flat=flat)
    found = load(PARSER, path, block_frames=block_frames)
    assert list(found.position) == ["a_track0", "a_track1"]
    np.testing.assert_array_equal(found.position["a_track0"][:, 0, 0], range(6))
    corrected = found.position["a_track1"]
    np.testing.assert_array_equal(corrected[:, 1, 0], [90, 51, 52, 93, 54, 55])
    np.testing.assert_array_equal(np.isnan(corrected[:, 2]).all(-1), [1, 0, 0, 1, 0, 0])
    confidence = found.confidence["a_track1"]
    np.testing.assert_allclose(confidence[:, 2], [1, 0.51, 0.52, 1, 0.54, 0.55], rtol=1e-6)
    assert found.header.tracks[0].keypoints == NODES
    assert found.header.tracks[0].video == "C:/mice/run 1.mp4"
    assert found.header.notes == (
        "names of tracks in the file: `x` is track0",
        "2 of 12 instances labelled by hand: confidence 1",
    )


def test_gaps__are_missing(tmp_path, load):
    frames = [(0, i, [animal(i, track=0)]) for i in (7, 4, 12)]
    path = write(tmp_path / "a.slp", frames, tracks=["m"], videos=[{**VIDEO, "fps": 25}])
    found = load(PARSER, path)
    assert found.header.tracks[0].first_frame == 0
    assert found.header.tracks[0].fps == 25.0
    nan = np.nan
    wanted = [nan, nan, nan, nan, 4, nan, nan, 7, nan, nan, nan, nan, 12]
    np.testing.assert_array_equal(found.position["a"][:, 0, 0], wanted)
    assert np.isnan(found.confidence["a"][1]).all()
    assert "10 of 13 frames are not labelled: missing there" in found.header.notes


@pytest.mark.parametrize("first", [0, 2, 32])
def test_every_third_frame__keeps_its_time(tmp_path, load, first):
    numbers = [first + 3 * i for i in (0, 1, 2, 3, 5, 6)]
    frames = [(0, n, [animal(n, track=0)]) for n in numbers]
    path = write(tmp_path / "a.slp", frames, tracks=["m"], videos=[{**VIDEO, "fps": 30}])
    found = load(PARSER, path)
    track = found.header.tracks[0]
    assert (track.first_frame, track.frame_step, track.fps) == (first % 3, 3, 30)
    value = found.position["a"][:, 0, 0]
    at = track.first_frame + 3 * np.arange(len(value))
    np.testing.assert_array_equal(value, np.where(np.isin(at, numbers), at, np.nan))
    assert any("3 apart" in note for note in found.header.notes)


def test_video_that_goes_on__gives_missing_frames(tmp_path, load):
    frames = [(0, 2, [animal(1)]), (0, 3, [animal(2)])]
    for n_frames, wanted in ((10, 10), (3, 4), (10**12, 4), ("many", 4)):
        videos = [{**VIDEO, "shape": [n_frames, 64, 64, 1]}]
        found = load(PARSER, write(tmp_path / "a.slp", frames, videos=videos))
        assert len(found.position["a"]) == wanted
        assert np.isfinite(found.position["a"]).all((1, 2)).sum() == 2
    # As sleap-io does.
    videos = [{**VIDEO, "shape": [10, 64, 64, 1]}]
    path = write(tmp_path / "a.slp", frames, videos=videos)
    assert_equal(load(PARSER, path), "a", by_sleap_io(path)[:, 0])


def test_old_pixels__are_moved(tmp_path, load):
    path = write(tmp_path / "a.slp", two_mice(), tracks=["a", "b"], version=1.0)
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["a_track0"][:, 0, 0], np.arange(6) - 0.5)
    assert_equal(found, "a_track1", by_sleap_io(path)[:, 1])


def test_same_track_twice_in_a_frame__last_is_read_with_a_note(tmp_path, load):
    frames = [(0, i, [animal(1, track=0), animal(2, track=0), animal(3, track=1)]) for i in (0, 1)]
    path = write(tmp_path / "a.slp", frames, tracks=["a", "b"])
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["a_track0"][:, 0, 0], [2, 2])
    assert any(note.startswith("2 instances share frame and track") for note in found.header.notes)
    assert_equal(found, "a_track0", by_sleap_io(path)[:, 0])


def test_points_in_any_order__are_found(tmp_path, load):
    # A merged project: instances of later frames come first, and far from one another.
    frames = two_mice(200)
    wanted = load(PARSER, write(tmp_path / "a.slp", frames, tracks=["a", "b"]))
    order = np.random.default_rng(0).permutation(200)
    path = write(tmp_path / "a.slp", [frames[i] for i in order], tracks=["a", "b"])
    found = load(PARSER, path, block_frames=17)
    for session in wanted.position:
        np.testing.assert_array_equal(found.position[session], wanted.position[session])
        np.testing.assert_array_equal(found.confidence[session], wanted.confidence[session])


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n_nodes=st.integers(1, 4),
    first=st.integers(0, 5),
    present=st.lists(
        st.lists(
            st.tuples(st.integers(0, 2), st.booleans(), st.sets(st.integers(0, 3))), max_size=5
        ),
        min_size=2,
        max_size=9,
    ),
    nan=st.booleans(),
    version=st.sampled_from([1.0, 1.1, 1.2, 1.3]),
    flat=st.booleans(),
    block_frames=st.integers(1, 10),
    names=st.lists(
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1),
        min_size=4,
        max_size=4,
        unique=True,
    ),
)
def test_any_tracks__equal_those_of_sleap_io(
    load, n_nodes, first, present, nan, version, flat, block_frames, names
):
    frames, value = [], 0
    # Three tracks in one frame, so that sleap-io does not take the file for one of a single animal.
    present = [[(0, False, set()), (1, True, set()), (2, False, set())], *present]
    for i, animals in enumerate(present):
        made = []
        for track, by_hand, hidden in animals:
            value += 1
            one = animal(value, track=track, by_hand=by_hand, hidden=list(hidden), n_nodes=n_nodes)
            if nan and value % 3 == 0:
                one[2]["x"][0] = one[2]["y"][0] = np.nan
            made.append(one)
        frames.append((0, first + 2 * i, made))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.slp"
        said = {"tracks": ["a", "b", "c"], "nodes": names[:n_nodes], "version": version}
        # sleap-io reads flat tables lazily only.
        wanted = by_sleap_io(write(path, frames, **said))
        write(path, frames, **said, flat=flat)
        assert PARSER.sniff(path) is not None
        found = load(PARSER, path, block_frames=block_frames)
    assert found.header.tracks[0].keypoints == tuple(names[:n_nodes])
    for i in range(3):
        assert_equal(found, f"any_track{i}", wanted[:, i])


# --- who is who ----------------------------------------------------------------------------


def test_untracked_animal__is_the_only_one(tmp_path, load):
    frames = [(0, i, [animal(i), *([animal(9, by_hand=True)] * (i == 1))]) for i in range(3)]
    found = load(PARSER, write(tmp_path / "a.slp", frames))
    np.testing.assert_array_equal(found.position["a"][:, 0, 0], [0, 9, 2])
    # The same when it belongs to a track here and there.
    frames[0] = (0, 0, [animal(0, track=2)])
    found = load(PARSER, write(tmp_path / "a.slp", frames, tracks=["a", "b", "c"]))
    np.testing.assert_array_equal(found.position["a"][:, 0, 0], [0, 9, 2])
    assert found.header.notes == ("1 of 3 instances labelled by hand: confidence 1",)


def test_untracked_animals__are_refused(tmp_path):
    path = write(tmp_path / "a.slp", [(0, 0, [animal(1), animal(2)])], tracks=["unused"])
    with pytest.raises(InputError, match="Run Tracking"):
        PARSER.inspect(path)


def test_untracked_beside_tracked__are_left_out_with_a_note(tmp_path, load):
    frames = [(0, 0, [animal(1, track=0), animal(2)]), (0, 1, [animal(3)])]
    found = load(PARSER, write(tmp_path / "a.slp", frames, tracks=["a"]))
    np.testing.assert_array_equal(found.position["a"][:, 0, 0], [1, np.nan])
    assert "left out 2 instances that belong to no track" in found.header.notes


def test_tracks_that_never_meet__stay_apart(tmp_path, load):
    # sleap-io would make one animal of them.
    frames = [(0, i, [animal(i, track=i % 2)]) for i in range(4)]
    found = load(PARSER, write(tmp_path / "a.slp", frames, tracks=["female", "male"]))
    nan = np.nan
    np.testing.assert_array_equal(found.position["a_track0"][:, 0, 0], [0, nan, 2, nan])
    np.testing.assert_array_equal(found.position["a_track1"][:, 0, 0], [nan, 1, nan, 3])


# --- videos -----------------------------------------------------------------------------------


def video_parts(path):
    return [(track.part, track.individual, track.video) for track in PARSER.inspect(path).tracks]


def test_several_videos__are_parts(tmp_path, load):
    frames = [
        (1, 0, [animal(1, track=1), animal(2, track=2)]),
        (1, 1, [animal(3, track=1), animal(4, track=2)]),
        (0, 5, [animal(5)]),
        (0, 6, [animal(6)]),
        (0, 7, []),
    ]
    videos = [VIDEO, {"filename": "/data/run 2.avi", "fps": 50}, {"filename": "unused.mp4"}]
    path = write(tmp_path / "a.slp", frames, tracks=["a", "b", "c"], videos=videos)
    found = load(PARSER, path, block_frames=2)
    assert list(found.position) == ["a_run 1", "a_run 2_track1", "a_run 2_track2"]
    np.testing.assert_array_equal(found.position["a_run 1"][5:, 0, 0], [5, 6, np.nan])
    np.testing.assert_array_equal(found.position["a_run 2_track2"][:, 0, 0], [2, 4])
    assert [track.fps for track in found.header.tracks] == [None, 50.0, 50.0]
    assert any("`unused`" in note for note in found.header.notes)


def test_videos_of_the_same_name__are_told_apart(tmp_path):
    frames = [(video, 0, [animal(video)]) for video in range(2)]

    def parts(*names):
        videos = [{"filename": name} for name in names]
        return [part for part, _, _ in video_parts(write(tmp_path / "a", frames, videos=videos))]

    assert parts("a/x.mp4", "b/x.mp4") == ["a_x", "b_x"]
    assert parts("a/x.mp4", "a/x.avi") == ["video0", "video1"]
    assert parts("a\\x.mp4", "b\\x.mp4") == ["a_x", "b_x"]
    assert parts("x.mp4", "b/x.mp4") == ["x", "b_x"]


def test_part_and_track__never_give_the_same_name_twice(tmp_path):
    frames = [
        (0, 0, [animal(1, track=0), animal(2, track=1)]),
        (1, 0, [animal(3)]),
    ]
    videos = [{"filename": "a.mp4"}, {"filename": "a_track1.mp4"}]
    path = write(tmp_path / "a.slp", frames, tracks=["x", "y"], videos=videos)
    keys = [track.key for track in PARSER.inspect(path).tracks]
    assert keys == ["video0_track0", "video0_track1", "video1"]


def test_images__are_told_as_their_folder(tmp_path):
    videos = [{"filename": "d/1.png", "filenames": ["d\\run 3\\1.png", "d\\run 3\\2.png"]}]
    path = write(tmp_path / "a.slp", [(0, 0, [animal(1)])], videos=videos)
    assert video_parts(path) == [("", "", "d/run 3")]


def test_embedded_images__are_told_as_their_source(tmp_path, load):
    videos = [{"filename": ".", "dataset": f"video{n}/video"} for n in (3, 11, 20)]
    frames = [(11, 4, [animal(1)]), (3, 8, [animal(2)])]
    path = write(tmp_path / "a.pkg.slp", frames, videos=videos)
    with h5py.File(path, "a") as file:
        for number in (3, 11):
            source = file.create_group(f"video{number}/source_video")
            name = {"backend": {"filename": f"C:\\clips\\{number}.mp4"}}
            source.attrs["json"] = json.dumps(name)
            file[f"video{number}/video"] = np.zeros(5, "u1")
    assert video_parts(path) == [("3", "", "C:/clips/3.mp4"), ("11", "", "C:/clips/11.mp4")]
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["a.pkg_11"][4:, 0, 0], [1])
    np.testing.assert_array_equal(found.position["a.pkg_3"][8:, 0, 0], [2])


def test_video__is_never_opened(tmp_path, monkeypatch):
    from sleap_io.io import video_reading
    from sleap_io.model import video

    opened = []
    monkeypatch.setattr(
        video_reading.VideoBackend, "from_filename", lambda name, **_: opened.append(name)
    )
    monkeypatch.setattr(video.Video, "open", lambda self, *_, **__: opened.append(self))
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    videos = [{"filename": str(tmp_path / "clip.mp4")}, {"filename": "https://a.b/c.mp4"}]
    frames = [(number, 0, [animal(1)]) for number in range(2)]
    path = write(tmp_path / "a.slp", frames, videos=videos)
    assert [part for part, _, _ in video_parts(path)] == ["clip", "c"]
    assert opened == []


# --- without sleap-io ---------------------------------------------------------------------------


def test_without_sleap_io__says_how_to_install_it(tmp_path, monkeypatch):
    path = write(tmp_path / "a.slp", two_mice(), tracks=["a", "b"])
    for name in [name for name in sys.modules if name.split(".")[0] == "sleap_io"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert PARSER.sniff(path) is not None
    with pytest.raises(InputError) as error:
        PARSER.inspect(path)
    assert error.value.problems[0].fix == "pip install 'kpms_zarr[sleap]'"
    with pytest.raises(InputError):
        next(PARSER.read(path, 10))


# --- damaged and hostile ------------------------------------------------------------------------


def changed(table, field, row, value):
    """A good file, but for one number in a table."""

    def make(path):
        write(path, two_mice(), tracks=["a", "b"])
        with h5py.File(path, "a") as file:
            rows = file[table][()]
            rows[field][row] = value
            file[table][...] = rows

    return make


def wrong(change):
    def make(path):
        write(path, two_mice(), tracks=["a", "b"])
        with h5py.File(path, "a") as file:
            change(file)

    return make


def replaced(name, **dataset):
    def change(file):
        del file[name]
        file.create_dataset(name, **dataset)

    return wrong(change)


def linked(name, link):
    def change(file):
        file.pop(name, None)
        file[name] = link

    return wrong(change)


def with_metadata(**values):
    def change(file):
        file["metadata"].attrs["json"] = json.dumps({**metadata_of(NODES), **values})

    return wrong(change)


def flat_of_halves(path):
    write(path, two_mice(), tracks=["a", "b"], flat=True)
    with h5py.File(path, "a") as file:
        file["frames"][2, 3] = 1.5


SKELETON = metadata_of(NODES)["skeletons"][0]
HUGE = {"shape": (10**10,), "chunks": (1000,)}

HOSTILE = {
    "no frames": lambda path: write(path, []),
    "no instances": lambda path: write(path, [(0, 0, []), (0, 1, [])]),
    "same node twice": lambda path: write(path, [(0, 0, [animal(1)])], nodes=("a", "b", "a")),
    "no nodes": lambda path: write(path, [(0, 0, [animal(1, n_nodes=0)])], nodes=()),
    "other number of points": lambda path: write(path, [(0, 0, [animal(1, n_nodes=2)])]),
    "track that is not there": changed("instances", "track", 1, 2),
    "skeleton that is not there": changed("instances", "skeleton", 1, 7),
    "video that is not there": changed("frames", "video", 1, 4),
    "instances that are not there": changed("frames", "instance_id_end", 5, 99),
    "instances backwards": changed("frames", "instance_id_start", 1, 6),
    "instances of all frames in one": changed("frames", "instance_id_start", 5, 0),
    "points that are not there": changed("instances", "point_id_end", 13, 2**40),
    "points backwards": changed("instances", "point_id_start", 1, 2**63),
    "instance of a third kind": changed("instances", "instance_type", 1, 2),
    "frame number of a million years": changed("frames", "frame_idx", 5, 2**60),
    "frame number of a year": changed("frames", "frame_idx", 5, 10**9),
    "half a frame": flat_of_halves,
    "frames without columns": replaced("frames", data=np.zeros((3, 5))),
    "frames of text": replaced("frames", data=np.array([b"a"])),
    "instances without tracks": replaced("instances", data=np.zeros(14, INSTANCE.descr[:4])),
    "points without x": replaced("pred_points", data=np.zeros(90, [("z", "f8")])),
    "points of text": replaced("pred_points", data=np.zeros(36, [("x", "S3"), ("y", "S3")])),
    "frames claim 360 GB": replaced("frames", dtype=FRAME, **HUGE),
    "instances claim 570 GB": replaced("instances", dtype=INSTANCE, **HUGE),
    "points claim 260 GB": replaced("pred_points", dtype=PRED_POINT, **HUGE),
    "tracks claim 100 GB": replaced("tracks_json", dtype="S10", **HUGE),
    "videos claim 100 GB": replaced("videos_json", dtype="S10", **HUGE),
    "tracks that are no json": replaced("tracks_json", data=np.array([b"[0,", b"a"])),
    "videos that are no json": replaced("videos_json", data=np.array([b"\xff"])),
    "videos without names": replaced("videos_json", data=np.array([b"{}"])),
    "no json in metadata": wrong(lambda file: file["metadata"].attrs.pop("json")),
    "metadata of a list": wrong(lambda file: file["metadata"].attrs.modify("json", b"[1]")),
    "json without an end": wrong(
        lambda file: file["metadata"].attrs.modify("json", np.bytes_(b"[" * 50_000))
    ),
    "nodes that are not there": with_metadata(nodes=[]),
    "links of no type": with_metadata(
        skeletons=[{**SKELETON, "links": [{"source": 0, "target": 1, "type": {}}]}]
    ),
    "a format of the future": wrong(lambda f: f["metadata"].attrs.modify("format_id", 3.0)),
    "a format that is no number": wrong(lambda f: f["metadata"].attrs.create("format_id", "x")),
    "no metadata": wrong(lambda file: file.pop("metadata")),
    "points elsewhere": linked("pred_points", h5py.ExternalLink("other.slp", "/points")),
    "images elsewhere": linked("video0", h5py.ExternalLink("other.slp", "/video0")),
    "circle": linked("tracks_json", h5py.SoftLink("/tracks_json")),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile__is_refused_in_words(tmp_path, make):
    path = tmp_path / "a.slp"
    make(path)
    PARSER.sniff(path)
    with pytest.raises(InputError) as error:
        list(PARSER.read(path, 10))
    for problem in error.value.problems:
        assert all((problem.expected, problem.found, problem.where, problem.fix))


def test_problems_of_several_videos__are_told_at_once(tmp_path):
    frames = [(video, 0, [animal(1), animal(2)]) for video in range(2)]
    videos = [{"filename": "one.mp4"}, {"filename": "two.mp4"}]
    with pytest.raises(InputError) as error:
        PARSER.inspect(write(tmp_path / "a.slp", frames, videos=videos))
    assert ["`one`" in p.where or "`two`" in p.where for p in error.value.problems] == [True] * 2


def test_cut_off_anywhere__is_refused(tmp_path, survives):
    whole = write(tmp_path / "a.slp", two_mice(30), tracks=["a", "b"]).read_bytes()
    path = tmp_path / "cut.slp"
    for n in np.linspace(0, len(whole) - 1, 30).astype(int):
        path.write_bytes(whole[:n])
        assert not survives(PARSER, path)


def test_flipped_bytes__never_raise_anything_else(tmp_path, survives_damage):
    path = write(tmp_path / "a.slp", two_mice(30), tracks=["a", "b"])
    assert 0 < survives_damage(PARSER, path, 120, most=3) < 120


@pytest.mark.parametrize("content", [b"", b"[0, 1]", b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_sniff__of_anything_else_is_none(tmp_path, content):
    path = tmp_path / "a.slp"
    path.write_bytes(content)
    assert PARSER.sniff(path) is None
    assert PARSER.sniff(tmp_path) is None
    assert PARSER.sniff(tmp_path / "absent") is None
    with pytest.raises(InputError):
        PARSER.inspect(path)


@pytest.mark.parametrize(("n_apart", "is_refused"), [(50, True), (1, False)])
def test_labels_by_hand_alone__are_no_tracking_unless_of_most_frames(tmp_path, n_apart, is_refused):
    frames = [(0, n_apart * n, [animal(n + 1, by_hand=True)]) for n in range(20)]
    path = write(tmp_path / "labels.slp", frames)
    if is_refused:
        with pytest.raises(OtherKindError, match=r"labelled by hand \(20 of 951") as caught:
            PARSER.inspect(path)
        assert caught.value.problems[0].expected == "predictions for all frames of a video"
    else:
        assert PARSER.inspect(path).tracks
    # With a prediction among them it is a project that has been run, sparse as it may be.
    PARSER.inspect(write(tmp_path / "mixed.slp", [*frames[:-1], (0, 950, [animal(3)])]))
