"""SLEAP-anipose h5: the real file against EXPECTED.json, and small ones written here."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import NO_OPTIONS, ReadOptions
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.sleap import anipose as sleap_anipose_h5

PARSER = sleap_anipose_h5.PARSER
FOLDER = "sleap_anipose_h5"


def write(path, position, **storage):
    """Tracks as sleap-anipose writes them; `position` (frame, track, node, 3)."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("tracks", data=position, **storage)
        data.attrs["Description"] = "Shape: (n_frames, n_tracks, n_nodes, 3)."
    return path


def random_position(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 100, (*shape, 3))


# --- real file -------------------------------------------------------------------------


def test_real_file__agrees_with_expected(real):
    (name,) = real.names(FOLDER)
    # The reference calls them so, and makes up a confidence of 1.
    names = tuple(f"bodypart{i}" for i in range(15))
    real.check(real.load(PARSER, name, ReadOptions(names)), name, confidence=False)
    header = PARSER.inspect(real.folder / name)
    assert PARSER.sniff(real.folder / name) is not None
    assert header.space == ("x", "y", "z")
    assert header.tracks[0].keypoints == tuple(f"keypoint_{i}" for i in range(15))
    assert any("`keypoint_names=`" in note for note in header.notes)
    assert any("confidence" in note for note in header.notes)


def test_sniff__leaves_other_formats_alone(real):
    assert [path for path in real.others(FOLDER) if PARSER.sniff(path) is not None] == []


# --- small files written here --------------------------------------------------------------


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 3), st.integers(1, 5)),
    dtype=st.sampled_from(["f8", "f4", "i4"]),
    storage=st.sampled_from([{}, {"chunks": True, "compression": "gzip"}]),
    block_frames=st.integers(1, 25),
    share=st.floats(0, 0.8),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape__comes_back(load, shape, dtype, storage, block_frames, share, seed):
    position = random_position(*shape, seed=seed).astype(dtype)
    if dtype != "i4":
        gone = np.random.default_rng(seed).random(shape) < share
        gone[-1, :, -1] = False
        position[gone] = np.nan
    names = tuple(f"node {i}" for i in range(shape[2]))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "any.h5", position, **storage)
        assert PARSER.sniff(path) is not None
        found = load(PARSER, path, ReadOptions(names), block_frames=block_frames)
    keys = ["any"] if shape[1] == 1 else [f"any_track{i}" for i in range(shape[1])]
    assert list(found.position) == keys
    for i, key in enumerate(keys):
        np.testing.assert_array_equal(found.position[key], np.float32(position[:, i]))
        assert found.header.tracks[i].keypoints == names


def test_track_without_positions__is_left_out_with_a_note(tmp_path, load):
    position = random_position(9, 3, 2)
    position[:, 1] = np.nan
    found = load(PARSER, write(tmp_path / "a.h5", position))
    assert list(found.position) == ["a_track0", "a_track2"]
    np.testing.assert_array_equal(found.position["a_track2"], np.float32(position[:, 2]))
    assert any("left out `track1`" in note for note in found.header.notes)


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ("a", "a")])
def test_wrong_names__are_refused(tmp_path, names):
    path = write(tmp_path / "a.h5", random_position(4, 1, 2))
    options = replace(NO_OPTIONS, keypoint_names=names)
    with pytest.raises(InputError, match="keypoint_names="):
        PARSER.inspect(path, options)
    with pytest.raises(InputError, match="keypoint_names="):
        next(PARSER.read(path, 10, options))


@pytest.mark.parametrize("name", ["node_names", "track_names", "track_occupancy"])
def test_sniff__leaves_files_of_sleap_itself_alone(tmp_path, name):
    path = write(tmp_path / "a.h5", random_position(4, 1, 3))
    with h5py.File(path, "a") as file:
        file[name] = np.zeros(3)
    assert PARSER.sniff(path) is None


# --- damaged and hostile -----------------------------------------------------------------------


def raw(**dataset):
    def make(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("tracks", **dataset)

    return make


def external(path):
    with h5py.File(path, "w") as file:
        file["tracks"] = h5py.ExternalLink("other.h5", "/tracks")


HOSTILE = {
    "nothing in it": lambda path: h5py.File(path, "w").close(),
    "two dimensions": raw(data=np.zeros((4, 1, 3, 2))),
    "three axes": raw(data=np.zeros((4, 3, 3))),
    "no frames": raw(data=np.zeros((0, 1, 3, 3))),
    "no tracks": raw(data=np.zeros((4, 0, 3, 3))),
    "no nodes": raw(data=np.zeros((4, 1, 0, 3))),
    "text": raw(data=np.full((4, 1, 3, 3), b"1.5")),
    "no shape": raw(data=h5py.Empty("f8")),
    "claims 700 GB": raw(shape=(10**10, 1, 3, 3), dtype="f8", chunks=True),
    "external link": external,
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


def test_huge_chunk__is_refused(tmp_path, monkeypatch):
    # HDF5 would take memory for all of it.
    position = random_position(40, 1, 3)
    path = write(tmp_path / "a.h5", position, chunks=position.shape)
    assert PARSER.inspect(path).tracks
    monkeypatch.setattr(hdf5, "_LARGEST_CHUNK_BYTES", position.nbytes - 1)
    with pytest.raises(InputError, match="as many values"):
        PARSER.inspect(path)


def test_cut_off_or_flipped__never_raises_anything_else(tmp_path, survives_damage):
    position = random_position(40, 2, 3)
    whole = write(tmp_path / "a.h5", position, compression="gzip").read_bytes()
    path = tmp_path / "b.h5"
    for n in np.linspace(0, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:n])
        PARSER.sniff(path)
        with pytest.raises(InputError):
            list(PARSER.read(path, 10))
    assert 0 < survives_damage(PARSER, tmp_path / "a.h5", 100, most=1) < 100
