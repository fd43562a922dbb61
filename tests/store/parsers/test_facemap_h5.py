"""The Facemap parser, on small files written as Facemap writes them: no real file is at hand."""

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
from kpms_zarr.store.parsers.base import NO_OPTIONS
from kpms_zarr.store.parsers.facemap_h5 import PARSER

# In the order of HDF5, which is that of the names.
NAMES = ("eye(back)", "nose(tip)", "paw", "whisker(II)")
COLUMNS = ("x", "y", "likelihood")


def numbers(n_frames, n_keypoints=4, seed=0, missing=0.2):
    """(frame, keypoint, column) float32."""
    rng = np.random.default_rng(seed)
    values = rng.normal(300, 100, (n_frames, n_keypoints, 3)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return values


def write(path, values, names=NAMES, *, columns=COLUMNS, **how):
    """Write ``Facemap/<name>/<column>``, each with one number a frame."""
    with h5py.File(path, "w") as file:
        for number, name in enumerate(names):
            part = file.create_group(f"Facemap/{name}")
            for column in columns:
                data = values[:, number, COLUMNS.index(column)]
                part.create_dataset(column, data=data, **how)
    return path


@pytest.mark.parametrize("how", [{}, {"chunks": (5,), "compression": "gzip"}, {"dtype": "f8"}])
def test_read__gives_what_was_written(tmp_path, load, how):
    values = numbers(40)
    path = write(tmp_path / "m1_FacemapPose.h5", values, **how)
    assert "`Facemap`" in PARSER.sniff(path)
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["m1_FacemapPose"], values[:, :, :2])
    np.testing.assert_array_equal(found.confidence["m1_FacemapPose"], values[:, :, 2])
    assert found.header.tracks[0].keypoints == NAMES
    assert found.header.space == ("x", "y")
    assert found.header.notes == ()


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
        st.text("abc ()-é€", min_size=1),
        min_size=1,
        max_size=4,
        unique=True,
    ),
)
def test_read__blocks_of_any_size_give_the_same(load, n_frames, block_frames, seed, names):
    names = sorted(names, key=str.encode)
    values = numbers(n_frames, len(names), seed)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.h5", values, names)
        found = load(PARSER, path, NO_OPTIONS, block_frames=block_frames)
    assert found.header.tracks[0].keypoints == tuple(names)
    np.testing.assert_array_equal(found.position["a"], values[:, :, :2])
    np.testing.assert_array_equal(found.confidence["a"], values[:, :, 2])


def test_integers_and_infinite_values(tmp_path, load):
    path = write(tmp_path / "a.h5", numbers(5, missing=0))
    with h5py.File(path, "a") as file:
        del file["Facemap/paw/x"]
        file["Facemap/paw/x"] = np.arange(5)
        file["Facemap/paw/y"][1:3] = [np.inf, -np.inf]
    position = load(PARSER, path).position["a"]
    assert position[:, 2, 0].tolist() == [0, 1, 2, 3, 4]
    assert np.argwhere(np.isnan(position)).tolist() == [[1, 2, 1], [2, 2, 1]]


def test_without_likelihood__is_read_without_confidence(tmp_path, load):
    path = write(tmp_path / "a.h5", numbers(5), columns=("x", "y"))
    found = load(PARSER, path)
    assert found.confidence == {}
    assert found.header.notes == ("no likelihood for the file: read without confidence",)
    path = write(tmp_path / "a.h5", numbers(5))
    with h5py.File(path, "a") as file:
        del file["Facemap/paw/likelihood"]
    assert load(PARSER, path).header.notes == ("no likelihood for `paw`: read without confidence",)


def test_other_members__are_left_out_with_a_note(tmp_path, load):
    path = write(tmp_path / "a.h5", numbers(5))
    with h5py.File(path, "a") as file:
        file["Facemap/bbox"] = [1, 2, 3]
        file["Facemap/elsewhere"] = h5py.ExternalLink("other.h5", "/Facemap/paw")
        file["Facemap/soft"] = h5py.SoftLink("/Facemap")
        file["motSVD"] = np.zeros((4, 4))
    header = load(PARSER, path).header
    assert header.tracks[0].keypoints == NAMES
    assert header.notes == ("left out what is no keypoint: `bbox`, `elsewhere`, `soft`",)


# --- what is wrong is said ---------------------------------------------------------------


def test_keypoints_without_a_coordinate_and_lengths__are_reported_together(tmp_path):
    path = write(tmp_path / "a.h5", numbers(5))
    with h5py.File(path, "a") as file:
        del file["Facemap/paw/y"]
        del file["Facemap/nose(tip)/x"]
        file["Facemap/nose(tip)/x"] = np.zeros(4)
    assert PARSER.sniff(path)
    with pytest.raises(InputError) as caught:
        PARSER.inspect(path)
    assert len(caught.value.problems) == 2
    assert "no `paw/y`" in str(caught.value)
    assert "(4,) in `/Facemap/nose(tip)/x`" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(), (5, 1), (5, 2)])
def test_another_shape__is_an_error(tmp_path, shape):
    path = write(tmp_path / "a.h5", numbers(5), columns=("x", "y"))
    with h5py.File(path, "a") as file:
        file["Facemap/paw/likelihood"] = np.zeros(shape)
    with pytest.raises(InputError, match="one number a frame, equally many"):
        PARSER.inspect(path)


def test_text__is_an_error(tmp_path):
    path = write(tmp_path / "a.h5", numbers(5), columns=("x", "y"))
    with h5py.File(path, "a") as file:
        file["Facemap/paw/likelihood"] = [b"high"] * 5
    with pytest.raises(InputError, match="numbers in `/Facemap/paw/likelihood`"):
        PARSER.inspect(path)


def test_no_frames__is_an_error(tmp_path):
    path = write(tmp_path / "a.h5", numbers(0))
    assert PARSER.sniff(path)
    with pytest.raises(InputError, match="at least one frame, found 0 frames"):
        PARSER.inspect(path)


@pytest.mark.parametrize("members", [[], ["other/x"], ["Facemap"], ["Facemap/x"]])
def test_another_hdf5__is_not_claimed_and_refused(tmp_path, members):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in members:
            file[name] = np.zeros(5)
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match=r"a\.h5"):
        PARSER.inspect(path)


def test_sniff__leaves_other_formats_alone(real):
    assert not [path for path in real.others("facemap_h5") if PARSER.sniff(path)]


def test_links_in_a_circle__are_not_followed_for_ever(tmp_path):
    path = write(tmp_path / "a.h5", numbers(5))
    with h5py.File(path, "a") as file:
        file["Facemap/again"] = file["Facemap"]
        file["Facemap/paw/up"] = file["/"]
    assert PARSER.sniff(path)
    with pytest.raises(InputError, match="no `again/x`, `again/y`"):
        PARSER.inspect(path)


def test_shape_far_beyond_the_file__is_refused(tmp_path):
    path = write(tmp_path / "a.h5", numbers(5))
    with h5py.File(path, "a") as file:
        for name in ("x", "y", "likelihood"):
            for keypoint in NAMES:
                del file[f"Facemap/{keypoint}/{name}"]
                file[f"Facemap/{keypoint}"].create_dataset(name, (10**12,), "f8", chunks=(1000,))
    assert path.stat().st_size < 100_000
    for work in (PARSER.inspect, lambda path: list(PARSER.read(path, 10**12))):
        with pytest.raises(InputError, match="as many values"):
            work(path)


def test_damaged_bytes__give_no_other_error(tmp_path, survives_damage):
    path = write(tmp_path / "good.h5", numbers(30), chunks=(8,), compression="gzip")
    assert 0 < survives_damage(PARSER, path, 150, most=30) < 150


def test_cut_off__is_an_error(tmp_path):
    path = write(tmp_path / "a.h5", numbers(50))
    path.write_bytes(path.read_bytes()[:-200])
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match="a complete HDF5 file"):
        PARSER.inspect(path)
