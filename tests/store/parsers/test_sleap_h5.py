"""SLEAP analysis h5: real files against EXPECTED.json, and small ones written here."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.sleap import analysis as sleap_h5
from kpms_zarr.store.parsers.sleap import tracks as sleap

PARSER = sleap_h5.PARSER
FOLDER = "sleap_analysis_h5"
MATLAB = ("track", "xy", "node", "frame")
STANDARD = ("frame", "track", "node", "xy")
NOT_TRANSPOSED = ("frame", "node", "xy", "track")
ORDERS = {"matlab": MATLAB, "standard": STANDARD, "not_transposed": NOT_TRANSPOSED}

# The reference refuses files without point scores.
REFERENCE_FAILS = {f"{FOLDER}/talmolab_sleap/predictions.analysis.h5"}


def turned(values, axes):
    """(track, frame, node, xy) or without the last -> order of the file."""
    source = ("track", "frame", "node", "xy")[: values.ndim]
    return np.transpose(values, [source.index(axis) for axis in axes if axis in source])


def write(
    path,
    position,
    scores=None,
    *,
    axes=MATLAB,
    nodes=None,
    tracks=None,
    occupancy=True,
    dims=False,
    attrs=None,
    **storage,
):
    """Analysis file; `position` (track, frame, node, xy), `scores` (track, frame, node)."""
    n_tracks, _, n_nodes, _ = position.shape
    nodes = [f"node {i}" for i in range(n_nodes)] if nodes is None else nodes
    tracks = [f"track_{i}" for i in range(n_tracks)] if tracks is None else tracks
    with h5py.File(path, "w") as file:
        data = file.create_dataset("tracks", data=turned(position, axes), **storage)
        if dims:
            data.attrs["dims"] = json.dumps(axes)
        file["node_names"] = np.array([name.encode() for name in nodes])
        names = np.array([name.encode() for name in tracks])
        file["track_names"] = names if tracks else np.zeros(0)
        if occupancy:
            seen = np.isfinite(position).any((2, 3)).astype("u1")
            file["track_occupancy"] = seen if axes == NOT_TRANSPOSED else seen.T
        if scores is not None:
            file.create_dataset("point_scores", data=turned(scores, axes), **storage)
        file.attrs.update(attrs or {})
    return path


def random_values(n_tracks=2, n_frames=31, n_nodes=3, seed=0):
    random = np.random.default_rng(seed)
    position = random.normal(300, 100, (n_tracks, n_frames, n_nodes, 2))
    position[random.random((n_tracks, n_frames, n_nodes)) < 0.2] = np.nan
    return position, random.random((n_tracks, n_frames, n_nodes)) * 1.5


# --- real files ------------------------------------------------------------------------


def test_real_files__agree_with_expected(real):
    names = real.names(FOLDER)
    assert len(names) == 31
    for name in names:
        found, wanted = real.load(PARSER, name), real.expected[name]
        assert ("fails" in wanted) == (name in REFERENCE_FAILS)
        if name in REFERENCE_FAILS:
            stem = Path(name).stem
            assert set(found.position) == {f"{stem}_track0", f"{stem}_track1"}
            assert not found.confidence
            assert {p.shape for p in found.position.values()} == {(3000, 13, 2)}
            nan = np.mean([np.isnan(p) for p in found.position.values()])
            assert nan == pytest.approx(wanted["nan_frac"], abs=1e-6)
            continue
        real.check(found, name)
        assert PARSER.sniff(real.folder / name) is not None


def test_sniff__leaves_other_formats_alone(real):
    assert [path for path in real.others(FOLDER) if PARSER.sniff(path) is not None] == []


def test_real_file__tells_video_and_names(real):
    name = next(n for n in real.names(FOLDER) if n.endswith("C1_R1v2_ID1v2.analysis.h5"))
    header = PARSER.inspect(real.folder / name)
    assert header.tracks[0].video == "C:/Users/megha/Documents/Padilla-Coreano/SLEAP/" + (
        "C1_R1v2_ID1v2.mp4"
    )
    assert header.tracks[0].fps is None
    assert header.notes == ("names of tracks in the file: `1.1` is track0, `1.2` is track1",)


def test_real_file__without_scores_says_so(real):
    header = PARSER.inspect(real.folder / next(iter(REFERENCE_FAILS)))
    assert any("point_scores" in note for note in header.notes)
    assert not header.has_confidence


# --- small files written here --------------------------------------------------------------


@pytest.mark.parametrize("axes", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("block_frames", [1, 7, 31, 1000])
def test_orders_and_blocks__give_the_same(tmp_path, load, axes, block_frames):
    position, scores = random_values()
    for chunks in (None, True):
        path = write(tmp_path / "a.h5", position, scores, axes=axes, chunks=chunks)
        found = load(PARSER, path, block_frames=block_frames)
        for i in range(2):
            np.testing.assert_array_equal(found.position[f"a_track{i}"], np.float32(position[i]))
            np.testing.assert_array_equal(found.confidence[f"a_track{i}"], np.float32(scores[i]))


any_file = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@any_file
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(1, 5)),
    order=st.sampled_from(sorted(ORDERS)),
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        min_size=5,
        max_size=5,
        unique=True,
    ),
    dtype=st.sampled_from(["f8", "f4", ">f8"]),
    storage=st.sampled_from([{}, {"chunks": True}, {"compression": "gzip", "shuffle": True}]),
    block_frames=st.integers(1, 12),
    share=st.floats(0, 0.8),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape__comes_back(
    load, shape, order, names, dtype, storage, block_frames, share, seed
):
    n_tracks, _, n_nodes = shape
    random = np.random.default_rng(seed)
    position = random.normal(0, 1e4, (*shape, 2)).astype(dtype)
    scores = random.random(shape).astype(dtype)
    gone = random.random(shape) < share
    gone[:, -1, -1] = False
    position[gone], scores[gone] = np.nan, np.nan
    with tempfile.TemporaryDirectory() as folder:
        path = write(
            Path(folder) / "any.h5",
            position,
            scores,
            axes=ORDERS[order],
            dims=True,
            nodes=names[:n_nodes],
            **storage,
        )
        assert PARSER.sniff(path) is not None
        found = load(PARSER, path, block_frames=block_frames)
    keys = ["any"] if n_tracks == 1 else [f"any_track{i}" for i in range(n_tracks)]
    assert list(found.position) == keys
    for i, key in enumerate(keys):
        np.testing.assert_array_equal(found.position[key], np.float32(position[i]))
        np.testing.assert_array_equal(found.confidence[key], np.float32(scores[i]))
        assert found.header.tracks[i].keypoints == tuple(names[:n_nodes])


@pytest.mark.parametrize("axes", ORDERS.values(), ids=ORDERS)
def test_order__is_found_from_an_attribute(tmp_path, load, axes):
    # Without scores, two tracks in two frames of two nodes fit all orders.
    position, _ = random_values(2, 2, 2)
    position[:, 0] = 1.0
    with pytest.raises(InputError, match="more than one order fits"):
        load(PARSER, write(tmp_path / "a.h5", position, axes=axes))
    attrs = {"preset": "standard"} if axes == STANDARD else {"transpose": axes == MATLAB}
    found = load(PARSER, write(tmp_path / "a.h5", position, axes=axes, attrs=attrs))
    np.testing.assert_array_equal(found.position["a_track1"], np.float32(position[1]))


@pytest.mark.parametrize("axes", ORDERS.values(), ids=ORDERS)
def test_order__of_two_tracks_with_two_nodes_is_that_of_the_occupancy(tmp_path, load, axes):
    position, scores = random_values(2, 9, 2)
    position[:, :, 0] = 1.0
    found = load(PARSER, write(tmp_path / "a.h5", position, scores, axes=axes))
    np.testing.assert_array_equal(found.position["a_track1"], np.float32(position[1]))
    np.testing.assert_array_equal(found.confidence["a_track1"], np.float32(scores[1]))


@pytest.mark.parametrize("axes", [MATLAB, NOT_TRANSPOSED])
def test_order__of_an_untracked_animal_is_that_of_one_track(tmp_path, load, axes):
    # With two nodes, (1, 2, 2, 5) are 5 frames of a track, or 1 frame of 5 tracks.
    position, _ = random_values(1, 5, 2)
    path = write(tmp_path / "a.h5", position, axes=axes, tracks=[], occupancy=False)
    np.testing.assert_array_equal(load(PARSER, path).position["a"], np.float32(position[0]))
    with h5py.File(path, "a") as file:
        del file["track_names"]
    with pytest.raises(InputError, match="more than one order fits"):
        PARSER.inspect(path)


def test_dims__of_any_order_are_believed_only_if_they_fit(tmp_path, load):
    position, scores = random_values()
    axes = ("xy", "frame", "node", "track")
    found = load(PARSER, write(tmp_path / "a.h5", position, scores, axes=axes, dims=True))
    np.testing.assert_array_equal(found.position["a_track1"], np.float32(position[1]))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["tracks"].attrs["dims"] = json.dumps(MATLAB)
    with pytest.raises(InputError, match="no order fits"):
        load(PARSER, tmp_path / "a.h5")


@pytest.mark.parametrize("dims", ["[", "[1, 2, 3, 4]", '["frame"]', b"\xff", 3.5, "null"])
def test_dims__that_say_nothing_are_ignored(tmp_path, load, dims):
    position, scores = random_values()
    path = write(tmp_path / "a.h5", position, scores)
    with h5py.File(path, "a") as file:
        file["tracks"].attrs["dims"] = dims
    assert len(load(PARSER, path).position) == 2


def test_scores_absent__is_read_without_confidence(tmp_path, load):
    found = load(PARSER, write(tmp_path / "a.h5", random_values()[0]))
    assert found.confidence == {}
    assert any("without confidence" in note for note in found.header.notes)


def test_scores_of_another_shape__are_refused(tmp_path):
    position, scores = random_values()
    path = write(tmp_path / "a.h5", position, scores[:, 1:])
    with pytest.raises(InputError, match="no order fits"):
        PARSER.inspect(path)


def test_track_without_positions__is_left_out_with_a_note(tmp_path, load):
    position, scores = random_values(3, 9)
    position[1] = np.nan
    found = load(PARSER, write(tmp_path / "a.h5", position, scores))
    assert list(found.position) == ["a_track0", "a_track2"]
    assert list(found.confidence) == ["a_track0", "a_track2"]
    np.testing.assert_array_equal(found.position["a_track2"], np.float32(position[2]))
    assert any("left out `track1`" in note for note in found.header.notes)
    position[:] = np.nan
    with pytest.raises(InputError, match="no coordinates at all"):
        PARSER.inspect(write(tmp_path / "a.h5", position, scores))


def test_fps_and_video__are_told(tmp_path):
    metadata = {"video_backend_metadata": json.dumps({"fps": 29.97})}
    path = write(tmp_path / "a.h5", *random_values(), attrs=metadata)
    with h5py.File(path, "a") as file:
        file["video_path"] = "C:/mice\\run 1.mp4"
    assert {(t.fps, t.video) for t in PARSER.inspect(path).tracks} == {(29.97, "C:/mice/run 1.mp4")}
    for fps in ("-1", "NaN", '"x"', "[]", "1e999"):
        with h5py.File(path, "a") as file:
            file.attrs["video_backend_metadata"] = '{"fps": ' + fps + "}"
        assert PARSER.inspect(path).tracks[0].fps is None


def test_infinite_and_too_large__are_missing(tmp_path, load):
    position, scores = random_values(1)
    position[0, 3, 1], scores[0, 4, 0] = [np.inf, 1e300], -np.inf
    found = load(PARSER, write(tmp_path / "a.h5", position, scores))
    assert np.isnan(found.position["a"][3, 1]).all()
    assert np.isnan(found.confidence["a"][4, 0])


# --- damaged and hostile -----------------------------------------------------------------------


def wrong(change):
    """A good file, and one change to it."""

    def make(path):
        write(path, *random_values(), chunks=True)
        with h5py.File(path, "a") as file:
            change(file)

    return make


def replaced(name, **dataset):
    def change(file):
        del file[name]
        file.create_dataset(name, **dataset)

    return wrong(change)


def external(file):
    del file["tracks"]
    file["tracks"] = h5py.ExternalLink("other.h5", "/tracks")


def circle(file):
    del file["node_names"]
    file["node_names"] = h5py.SoftLink("/node_names")


HOSTILE = {
    "no frames": lambda path: write(path, np.zeros((2, 0, 3, 2))),
    "no tracks": lambda path: write(path, np.zeros((0, 4, 3, 2)), tracks=[]),
    "same node twice": lambda path: write(path, *random_values(), nodes=["a", "b", "a"]),
    "empty node name": lambda path: write(path, *random_values(), nodes=["a", "", "b"]),
    "no node names": wrong(lambda file: file.pop("node_names")),
    "other number of tracks": lambda path: write(path, *random_values(), tracks=["one"]),
    "nodes that are numbers": replaced("node_names", data=np.zeros(3)),
    "nodes that claim a lot": replaced("node_names", shape=(10**9,), dtype="S10", chunks=(99,)),
    "tracks as text": replaced("tracks", data=np.full((2, 2, 3, 31), b"1.5")),
    "tracks as complex": replaced("tracks", data=np.zeros((2, 2, 3, 31), dtype=complex)),
    "tracks of three axes": replaced("tracks", data=np.zeros((2, 3, 31))),
    "tracks without a shape": replaced("tracks", data=h5py.Empty("f8")),
    "scores as text": replaced("point_scores", data=np.full((2, 3, 31), b"1.5")),
    "claims 480 GB": replaced("tracks", shape=(2, 2, 3, 5 * 10**9), dtype="f8", chunks=True),
    "external link": wrong(external),
    "link to itself": wrong(circle),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile__is_refused_in_words(tmp_path, make):
    path = tmp_path / "a.h5"
    make(path)
    PARSER.sniff(path)
    with pytest.raises(InputError) as error:
        PARSER.inspect(path)
    for problem in error.value.problems:
        assert all((problem.expected, problem.found, problem.where, problem.fix))
    with pytest.raises(InputError):
        next(PARSER.read(path, 10))


@pytest.mark.parametrize("name", ["node_names", "track_names"])
def test_names__by_the_million_are_not_read(tmp_path, name):
    """Small in the file, hundreds of bytes each in memory."""
    path = tmp_path / "a.h5"
    replaced(name, shape=(10**7,), dtype="S5", chunks=(8,))(path)
    with pytest.raises(InputError, match=f"at most 1,000,000 names in `/{name}`, found 10,000,000"):
        PARSER.inspect(path)


def test_several_problems__are_told_at_once(tmp_path):
    path = write(tmp_path / "a.h5", np.zeros((2, 0, 3, 2)), nodes=["a", "b", "a"])
    with pytest.raises(InputError) as error:
        PARSER.inspect(path)
    assert len(error.value.problems) == 2


def test_cut_off_anywhere__is_refused(tmp_path, survives):
    whole = write(tmp_path / "a.h5", *random_values(n_frames=200), compression="gzip").read_bytes()
    cut = tmp_path / "cut.h5"
    for n in np.linspace(0, len(whole) - 1, 40).astype(int):
        cut.write_bytes(whole[:n])
        assert not survives(PARSER, cut)


def test_flipped_bytes__never_raise_anything_else(tmp_path, survives_damage):
    path = write(tmp_path / "a.h5", *random_values(), compression="gzip")
    assert 0 < survives_damage(PARSER, path, 300, most=3) < 300


@pytest.mark.parametrize("content", [b"", b"scorer,a,b", b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_sniff__of_anything_else_is_none(tmp_path, content):
    path = tmp_path / "a.analysis.h5"
    path.write_bytes(content)
    assert PARSER.sniff(path) is None
    assert PARSER.sniff(tmp_path) is None
    assert PARSER.sniff(tmp_path / "absent") is None
    with pytest.raises(InputError):
        PARSER.inspect(path)


def test_read__takes_whole_chunks_but_gives_blocks(tmp_path, monkeypatch):
    position, _ = random_values(1, 100)
    path = write(tmp_path / "a.h5", position, chunks=(1, 2, 3, 64))
    assert [block.n_frames for block in PARSER.read(path, 30)] == [30, 30, 30, 10]
    taken = []
    slab = staticmethod(
        lambda data, axes, start, n: taken.append(start) or read(data, axes, start, n)
    )
    read = sleap.Grid._slab
    monkeypatch.setattr(sleap.Grid, "_slab", slab)
    assert [block.start for block in PARSER.read(path, 30)] == [0, 30, 60, 90]
    assert taken == [0, 90]


def test_read__memory_does_not_grow_with_the_file(tmp_path):
    path = write(tmp_path / "a.h5", np.zeros((1, 1, 4, 2)))
    n_frames = 400_000
    with h5py.File(path, "a") as file:
        del file["tracks"], file["track_occupancy"]
        file.create_dataset("tracks", shape=(1, 2, 4, n_frames), dtype="f4", chunks=(1, 1, 4, 5000))
        file["tracks"][..., ::1000] = 2.0
    tracemalloc.start()
    n = sum(block.n_frames for block in PARSER.read(path, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == n_frames
    assert peak < 4_000_000
