"""The DANNCE parser, on real files against EXPECTED.json and on small written ones."""

from __future__ import annotations

import struct
import tempfile
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat, whosmat

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers import mat5
from kpms_zarr.store.parsers.base import ReadOptions
from kpms_zarr.store.parsers.dannce_mat import PARSER

AVG = "dannce_mat/spoonsso_dannce/save_data_AVG.mat"
MAX = "dannce_mat/spoonsso_dannce/save_data_AVG_MAX.mat"
MOCAP = "dannce_mat/talmolab_stac-mjx/test_rodent_mocap_1000_frames.mat"


def numbers(*shape, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    values = rng.normal(30, 40, shape).astype(np.float32).astype(np.float64)
    values[rng.random(shape) < missing] = np.nan
    return values


def write_v5(path, arrays, *, compress=False):
    savemat(path, arrays, do_compression=compress)
    return path


def write_v73(path, arrays, **how):
    """Write what MATLAB 7.3 writes: HDF5 behind a block of text, with its axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            data = file.create_dataset(name, data=np.asarray(values).T, **how)
            data.attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124))
        file.write(b"\x00\x02IM")
    return path


WRITERS = {
    "v5": write_v5,
    "v5z": partial(write_v5, compress=True),
    "v73": write_v73,
    "v73z": partial(write_v73, chunks=True, compression="gzip"),
}
each_writer = pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)


def pose(n_frames=20, n_keypoints=4, n_animals=None, **how):
    """Arrays `pred` and `p_max`."""
    animals = () if n_animals is None else (n_animals,)
    peak = np.abs(numbers(n_frames, *animals, n_keypoints, seed=1, missing=0)) / 1000
    return {"pred": numbers(n_frames, *animals, 3, n_keypoints, **how), "p_max": peak}


# --- real files ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [AVG, MAX, MOCAP])
def test_real_file__agrees_with_expected(real, name):
    found = real.load(PARSER, name)
    # The reference gives all points the confidence 1, which these files do not say.
    real.check(found, name, confidence=False)
    assert found.header.tracks[0].keypoints[:2] == ("keypoint_0", "keypoint_1")
    assert found.header.space == ("x", "y", "z")


def test_real_file__confidence_is_p_max(real):
    found = real.load(PARSER, AVG)
    confidence = found.confidence["save_data_AVG"]
    assert confidence.shape == (1000, 22)
    assert np.mean(confidence, dtype=float) == pytest.approx(0.070, abs=5e-4)
    assert confidence[0, :2].tolist() == np.float32([0.08890407, 0.27471617]).tolist()
    assert "median 0.026" in found.header.notes[1]
    assert "`confidence_threshold=`" in found.header.notes[1]
    assert real.load(PARSER, MOCAP).confidence == {}


@pytest.mark.parametrize("name", [AVG, MAX])
def test_real_file__sample_numbers_are_a_note_only(real, name):
    # 1, 11, 21, ...: milliseconds of consecutive frames at 100 Hz, or every tenth frame.
    header = real.load(PARSER, name).header
    assert (header.tracks[0].first_frame, header.tracks[0].frame_step) == (0, 1)
    assert "count from 1 in steps of 10" in header.notes[2]
    assert "would be 100 frames per second" in header.notes[2]


def test_real_file__names_can_be_given(real):
    names = tuple(f"point {n}" for n in range(23))
    header = real.load(PARSER, MOCAP, ReadOptions(keypoint_names=names)).header
    assert header.tracks[0].keypoints == names
    assert header.notes == ("no `p_max`: read without confidence",)
    with pytest.raises(InputError, match=r"23 names.*found 2 in `keypoint_names=`"):
        real.load(PARSER, MOCAP, ReadOptions(keypoint_names=("a", "b")))


def test_sniff__leaves_other_formats_alone(real):
    assert all(PARSER.sniff(real.folder / name) for name in (AVG, MAX, MOCAP))
    assert not [path for path in real.others("dannce_mat") if PARSER.sniff(path)]


# --- what is written is read -------------------------------------------------------------


@each_writer
@pytest.mark.parametrize("n_animals", [None, 1])
def test_read__gives_what_was_written(tmp_path, load, writer, n_animals):
    arrays = pose(40, 5, n_animals)
    path = writer(tmp_path / "a b.mat", {"other": np.zeros(3), **arrays, "data": arrays["pred"]})
    assert PARSER.sniff(path) == f"MATLAB file with `pred` of shape {arrays['pred'].shape}"
    found = load(PARSER, path)
    want = arrays["pred"].reshape(40, 3, 5).swapaxes(1, 2).astype(np.float32)
    np.testing.assert_array_equal(found.position["a b"], want)
    want = arrays["p_max"].reshape(40, 5).astype(np.float32)
    np.testing.assert_array_equal(found.confidence["a b"], want)
    assert found.header.tracks[0].individual == ""


@each_writer
def test_several_animals__are_tracks_and_absent_ones_are_left_out(tmp_path, load, writer):
    arrays = pose(30, 4, 3, missing=0)
    arrays["pred"][:, 1] = np.nan
    arrays["pred"][:29, 2] = np.nan
    path = writer(tmp_path / "a.mat", arrays)
    found = load(PARSER, path)
    assert list(found.position) == list(found.confidence) == ["a_animal0", "a_animal2"]
    for number in (0, 2):
        want = arrays["pred"][:, number].swapaxes(1, 2).astype(np.float32)
        np.testing.assert_array_equal(found.position[f"a_animal{number}"], want)
        want = arrays["p_max"][:, number].astype(np.float32)
        np.testing.assert_array_equal(found.confidence[f"a_animal{number}"], want)
    assert found.header.notes[-1].startswith("left out `animal1`: no coordinates in the whole file")


@each_writer
def test_several_animals__none_appears__is_an_error(tmp_path, writer):
    arrays = pose(5, 4, 2)
    arrays["pred"][:] = np.nan
    with pytest.raises(InputError, match="at least one animal with coordinates"):
        PARSER.inspect(writer(tmp_path / "a.mat", arrays))


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(1, 20),
    st.integers(1, 30),
    st.integers(1, 5),
    st.sampled_from([None, 1, 2, 3]),
    st.integers(0, 2**16),
    st.sampled_from([*WRITERS]),
    st.sampled_from(["f8", "f4", "i2", "u1", ">f8"]),
)
def test_read__blocks_of_any_size_give_the_same(
    load, n_frames, block_frames, n_keypoints, n_animals, seed, writer, dtype
):
    arrays = pose(n_frames, n_keypoints, n_animals, seed=seed, missing=0.2 if "f" in dtype else 0)
    arrays["pred"] = np.abs(arrays["pred"]).clip(0, 250).astype(dtype)
    arrays["pred"][0, ..., 0] = 1  # all animals appear
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[writer](Path(folder) / "a.mat", arrays)
        found = load(PARSER, path, block_frames=block_frames)
    animals = n_animals or 1
    want = arrays["pred"].reshape(n_frames, animals, 3, n_keypoints).swapaxes(2, 3)
    for number, track in enumerate(found.header.tracks):
        session = f"a_{track.key}" if track.key else "a"
        np.testing.assert_array_equal(found.position[session], want[:, number].astype("f4"))
    assert len(found.position) == animals


@each_writer
def test_infinite_and_too_large_values__count_as_missing(tmp_path, load, writer):
    arrays = pose(5, 2, missing=0)
    arrays["pred"][1, 0, 0], arrays["pred"][2, 2, 1] = np.inf, 1e300
    position = load(PARSER, writer(tmp_path / "a.mat", arrays)).position["a"]
    assert np.argwhere(np.isnan(position)).tolist() == [[1, 0, 0], [2, 1, 2]]


def test_mat5__agrees_with_scipy(tmp_path):
    arrays = {
        "a": numbers(3, 4, 5),
        "long_name_of_an_array": np.arange(6, dtype="i8").reshape(2, 3),
        "small": np.array([[7]], dtype="u1"),
        "single": np.float32([[1.5, 2.5]]),
        "text": "hello",
        "struct": {"x": 1.0, "y": [1, 2, 3]},
        "logical": np.array([[True, False]]),
        "empty": np.zeros((0, 3)),
        "imaginary": np.array([[1j]]),
    }
    for compress in (False, True):
        path = write_v5(tmp_path / "a.mat", arrays, compress=compress)
        found = {variable.name: variable for variable in mat5.variables(path)}
        known = loadmat(path)
        assert list(found) == [name for name, *_ in whosmat(path)] == list(arrays)
        assert not any(found[name].is_numbers for name in ("text", "struct", "imaginary"))
        for name in ("a", "long_name_of_an_array", "small", "single", "logical", "empty"):
            np.testing.assert_array_equal(mat5.values(path, found[name]), known[name])


def test_mat5__real_files_agree_with_scipy(real):
    for name in (AVG, MAX, MOCAP):
        known = loadmat(real.folder / name)
        for variable in mat5.variables(real.folder / name):
            if variable.is_numbers:
                values = mat5.values(real.folder / name, variable)
                np.testing.assert_array_equal(values, known[variable.name])


def test_mat5__big_endian(tmp_path, load):
    values = numbers(6, 3, 2)
    path = tmp_path / "a.mat"
    parts = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIiiiI", 5, 12, 6, 3, 2, 0)
    parts += struct.pack(">HH4s", 4, 1, b"pred") + struct.pack(">II", 9, values.nbytes)
    parts += values.astype(">f8").tobytes(order="F")
    path.write_bytes(
        b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(parts)) + parts
    )
    np.testing.assert_array_equal(
        load(PARSER, path).position["a"], values.swapaxes(1, 2).astype(np.float32)
    )


# --- confidence and sample numbers ---------------------------------------------------------


@each_writer
def test_p_max__of_another_shape_is_left_out_with_a_note(tmp_path, load, writer):
    arrays = pose(9, 4)
    for shape in ((9, 3), (4, 9), (9, 2, 4), (9,)):
        arrays["p_max"] = np.ones(shape)
        header = load(PARSER, writer(tmp_path / "a.mat", arrays)).header
        assert not header.has_confidence
        assert "left out `p_max`, whose shape" in header.notes[1]


@each_writer
@pytest.mark.parametrize(
    ("n_animals", "shape"), [(None, (9, 1, 4)), (None, (9, 4)), (1, (9, 4)), (1, (9, 1, 4))]
)
def test_p_max__of_one_animal_with_or_without_its_axis(tmp_path, load, writer, n_animals, shape):
    arrays = pose(9, 4, n_animals) | {"p_max": np.arange(36.0).reshape(shape)}
    found = load(PARSER, writer(tmp_path / "a.mat", arrays))
    np.testing.assert_array_equal(found.confidence["a"], np.arange(36).reshape(9, 4))


def test_p_max__without_a_number(tmp_path, load):
    arrays = pose(9, 4) | {"p_max": np.full((9, 4), np.nan)}
    assert (
        "without a number in it"
        in load(PARSER, write_v5(tmp_path / "a.mat", arrays)).header.notes[1]
    )


@each_writer
@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (np.arange(9), None),
        (np.arange(1, 10), None),
        (np.arange(9) * 20.0 + 1, "from 1 in steps of 20, and the file does not say of what"),
        (np.arange(9) * 1000 / 30 + 1, "which would be 30 frames per second"),
        (np.array([1, 2, 3, 4, 5, 6, 7, 8, 20]), "11 frames are missing after frame 7"),
        (np.zeros(9), "the same in all rows"),
        (np.array([np.nan, *range(8)]), "missing in some rows"),
        (np.array([np.inf] * 9), "missing in some rows"),
        (np.arange(8), "does not fit 9 frames"),
    ],
)
def test_sample_numbers(tmp_path, load, writer, samples, note):
    arrays = pose(9, 4) | {"sampleID": samples[np.newaxis]}
    header = load(PARSER, writer(tmp_path / "a.mat", arrays)).header
    assert (header.tracks[0].first_frame, header.tracks[0].frame_step) == (0, 1)
    assert len(header.notes) == (2 if note is None else 3)
    assert note is None or note in header.notes[2]


def test_sample_numbers__are_what_a_person_says(tmp_path):
    arrays = pose(9, 4) | {"sampleID": (np.delete(np.arange(10), 4) * 20.0 + 1)[np.newaxis]}
    path = write_v5(tmp_path / "a.mat", arrays)

    def track(unit):
        return PARSER.inspect(path, ReadOptions(time_unit=unit)).tracks[0]

    assert (track("ms").fps, track("ms").frame_step) == (50, 1)
    assert (track("frames").fps, track("frames").frame_step) == (None, 20)
    assert [track(unit).gaps.total for unit in ("auto", "ms", "frames")] == [1, 1, 1]
    assert track("rows").gaps is None


def test_sample_numbers__say_the_first_frame_where_they_count_frames(tmp_path):
    arrays = pose(9, 4) | {"sampleID": np.arange(50, 59)[np.newaxis]}
    assert PARSER.inspect(write_v5(tmp_path / "a.mat", arrays)).tracks[0].first_frame == 50


def test_sample_numbers__that_go_back_are_refused(tmp_path):
    arrays = pose(9, 4) | {"sampleID": np.arange(9)[np.newaxis, ::-1]}
    with pytest.raises(InputError, match="increase from row to row"):
        PARSER.inspect(write_v5(tmp_path / "a.mat", arrays))


# --- what is wrong is said ---------------------------------------------------------------


@each_writer
@pytest.mark.parametrize(
    ("shape", "fix"),
    [
        ((9, 4), "that DANNCE wrote"),
        ((9, 4, 5), "that DANNCE wrote"),
        ((9, 4, 3), "swap its last two axes"),
        ((9, 2, 4, 3), "swap its last two axes"),
        ((2, 9, 2, 3, 4), "that DANNCE wrote"),
    ],
)
def test_pred_of_another_shape__is_an_error(tmp_path, writer, shape, fix):
    path = writer(tmp_path / "a.mat", {"pred": np.zeros(shape)})
    assert bool(PARSER.sniff(path)) is ("swap" in fix)
    with pytest.raises(InputError, match=r"an array `pred` of shape \(frames, 3, keypoints\)") as e:
        PARSER.inspect(path)
    assert fix in str(e.value)
    assert f"found shape {shape}" in str(e.value)


@each_writer
def test_without_pred__is_an_error(tmp_path, writer):
    path = writer(tmp_path / "a.mat", {"com": np.zeros((9, 3)), "sampleID": np.zeros((1, 9))})
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match="found no such array"):
        PARSER.inspect(path)


@pytest.mark.parametrize("writer", ["v5", "v5z", "v73"])
def test_no_frames__is_an_error(tmp_path, writer):
    path = WRITERS[writer](tmp_path / "a.mat", {"pred": np.zeros((0, 3, 4))})
    with pytest.raises(InputError, match="at least one frame"):
        PARSER.inspect(path)


@pytest.mark.parametrize("value", [{"a": 1.0}, "text", np.ones((4, 3, 2)) * 1j])
def test_pred_that_is_no_numbers__is_an_error(tmp_path, value):
    path = write_v5(tmp_path / "a.mat", {"pred": value})
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match="numbers in `pred`"):
        PARSER.inspect(path)


def test_v73_pred_that_is_no_numbers__is_an_error(tmp_path):
    path = write_v73(tmp_path / "a.mat", {"pred": np.full((4, 3, 2), b"x")})
    with pytest.raises(InputError, match="numbers in `/pred`"):
        PARSER.inspect(path)
    with h5py.File(path, "a") as file:
        del file["pred"]
        file["pred"] = h5py.ExternalLink("other.h5", "/pred")
    with pytest.raises(InputError, match="found no such array"):
        PARSER.inspect(path)


def test_plain_hdf5_with_pred__is_no_matlab_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pred"] = np.zeros((4, 3, 9))
    assert PARSER.sniff(tmp_path / "a.h5") is None


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"\0" * 500, b"frame,x,y\n0,1,2\n"])
def test_something_else__is_not_claimed_and_refused(tmp_path, content):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError, match="a complete MATLAB file"):
        PARSER.inspect(path)


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "no.mat"):
        assert PARSER.sniff(path) is None
        with pytest.raises(InputError, match="complete"):
            PARSER.inspect(path)


@each_writer
def test_cut_off__is_an_error(tmp_path, writer):
    path = writer(tmp_path / "a.mat", pose(200))
    for share in (0.97, 0.6, 0.3):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match="complete"):
            list(PARSER.read(path, 10))
        if writer is write_v5:
            assert PARSER.sniff(path)  # so that the reason is given


def variable(name, shape, n_data, payload, *, kind=9, compress=True):
    """A variable as it stands in a file, with any claims."""
    parts = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<II", 5, 4 * len(shape))
    parts += struct.pack(f"<{len(shape)}i", *shape) + bytes(4 * (len(shape) % 2))
    parts += struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    parts += struct.pack("<II", kind, n_data)
    body = struct.pack("<II", 14, (len(parts) + n_data) % 2**32) + parts
    if not compress:
        return body + payload
    squeezed = zlib.compress(body + payload, 1)
    return struct.pack("<II", 15, len(squeezed)) + squeezed


def bomb(path, *elements):
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(elements))
    return path


ZEROS = bytes(100_000_000)


@pytest.mark.parametrize(
    ("shape", "n_data", "payload"),
    [
        ((10, 3, 4), len(ZEROS), ZEROS),  # more than the shape says
        ((10, 3, 4), 960, ZEROS),  # more than the tag says
        ((2**31 - 1, 3, 2**31 - 1), 960, b""),
        ((2_000_000, 3, 22), 1_056_000_000, b""),  # less than both say
        ((-10, 3, 4), 960, b""),
        ((3_500_000, 3, 22), 1_848_000_000, b""),
        ((5_000_000, 3, 22), 2_640_000_000, b""),
    ],
)
@pytest.mark.parametrize("compress", [True, False])
def test_claims_beyond_the_file__take_little_memory(tmp_path, shape, n_data, payload, compress):
    if not compress:
        payload = payload[:960]
    element = variable(b"pred", shape, n_data, payload, compress=compress)
    path = bomb(tmp_path / "a.mat", element)
    assert path.stat().st_size < 3_000_000
    tracemalloc.start()
    try:
        PARSER.sniff(path)
        for work in (PARSER.inspect, lambda path: list(PARSER.read(path, 10**9))):
            if payload and n_data == 960:
                work(path)  # what is too much is not looked at
                continue
            with pytest.raises(InputError):
                work(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_flipped_byte_in_compressed_numbers__is_noticed(tmp_path):
    path = write_v5(tmp_path / "a.mat", {"pred": numbers(200, 3, 4)}, compress=True)
    data = bytearray(path.read_bytes())
    data[-40] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError, match="a complete MATLAB file"):
        list(PARSER.read(path, 10))


@pytest.mark.parametrize("compress", [True, False])
def test_v73_shape_far_beyond_the_file__is_refused(tmp_path, compress):
    path = write_v73(tmp_path / "a.mat", {})
    with h5py.File(path, "a") as file:
        how = {"compression": "gzip"} if compress else {}
        file.create_dataset("pred", (22, 3, 10**11), "f8", chunks=(22, 3, 100), **how)
    assert path.stat().st_size < 100_000
    for work in (PARSER.inspect, lambda path: list(PARSER.read(path, 10**12))):
        with pytest.raises(InputError, match="as many values"):
            work(path)


@each_writer
def test_damaged_bytes__give_no_other_error(tmp_path, writer, survives_damage):
    arrays = pose(12, 3, 2) | {"sampleID": np.arange(12)[np.newaxis]}
    path = writer(tmp_path / "good.mat", arrays)
    # Half of them near the beginning, where the tags are.
    n_read = survives_damage(PARSER, path, 50) + survives_damage(PARSER, path, 50, end=300, seed=1)
    assert n_read < 100
