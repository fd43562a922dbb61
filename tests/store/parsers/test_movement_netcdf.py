"""Datasets of movement: netCDF files written with xarray as movement does, and in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import ReadOptions
from kpms_zarr.store.parsers.movement import netcdf as movement_netcdf
from kpms_zarr.store.parsers.movement.netcdf import PARSER, tracks_of_dataset

pytest.importorskip("h5netcdf")

SPACE = ["x", "y", "z"]


def poses(
    n_frames=40, n_dims=2, n_keypoints=3, individuals=("m1", "m2"), *, fps=None, seed=0, plural=True
):
    """Dataset as movement makes it from a tracking file."""
    rng = np.random.default_rng(seed)
    dims = ["time", "space", "keypoints", "individuals"]
    position = rng.normal(100, 30, (n_frames, n_dims, n_keypoints, len(individuals)))
    position[rng.random(position.shape) < 0.1] = np.nan
    position[0] = 1
    data = xr.Dataset(
        {
            "position": (dims, position),
            "confidence": ([dims[0], *dims[2:]], rng.random(position[:, 0].shape)),
        },
        coords={
            "time": np.arange(n_frames) / (fps or 1) if fps else np.arange(n_frames),
            "space": SPACE[:n_dims],
            "keypoints": [f"point {k}" for k in range(n_keypoints)],
            "individuals": list(individuals),
        },
        attrs={
            "source_software": "SLEAP",
            "ds_type": "poses",
            "time_unit": "seconds" if fps else "frames",
            "source_file": "folder/video.slp",
        }
        | ({"fps": fps} if fps else {}),
    )
    return data if plural else data.rename(keypoints="keypoint", individuals="individual")


def write(path, data, engine="h5netcdf"):
    data.to_netcdf(path, engine=engine)
    return path


def assert_same(found, data, individuals=("m1", "m2")):
    """Compare with the dataset by labels, whatever the order of its dimensions."""
    plural = data.rename(
        {
            k: v
            for k, v in {"keypoint": "keypoints", "individual": "individuals"}.items()
            if k in data.dims
        }
    )
    for name in individuals:
        one = plural.sel(individuals=name)
        key = f"x_{name}" if len(individuals) > 1 else "x"
        wanted = one.position.transpose("time", "keypoints", "space").sel(
            space=SPACE[: one.sizes["space"]]
        )
        np.testing.assert_array_equal(found.position[key], wanted.values.astype(np.float32))
        if "confidence" in one:
            wanted = one.confidence.transpose("time", "keypoints")
            np.testing.assert_array_equal(found.confidence[key], wanted.values.astype(np.float32))


def refused(path_or_data):
    def use():
        if isinstance(path_or_data, Path):
            return list(PARSER.read(path_or_data, 10))
        return tracks_of_dataset(path_or_data, "x")

    with pytest.raises(InputError) as caught:
        use()
    problem = caught.value.problems[0]
    assert all((problem.expected, problem.found, problem.where, problem.fix))
    return str(caught.value)


# --- reading ------------------------------------------------------------------------


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n_frames=st.integers(1, 30),
    n_dims=st.sampled_from([2, 3]),
    n_keypoints=st.integers(1, 4),
    n_individuals=st.integers(1, 3),
    order=st.permutations(["time", "space", "keypoints", "individuals"]),
    plural=st.booleans(),
    engine=st.sampled_from(["h5netcdf", "scipy"]),
    block_frames=st.integers(1, 40),
    fps=st.sampled_from([None, 30.0]),
)
def test_round_trip__is_exact_in_any_order_and_blocks_of_any_size(
    load, n_frames, n_dims, n_keypoints, n_individuals, order, plural, engine, block_frames, fps
):
    individuals = tuple(f"m{n}" for n in range(n_individuals))
    data = poses(n_frames, n_dims, n_keypoints, individuals, fps=fps).transpose(*order)
    data = data if plural else data.rename(keypoints="keypoint", individuals="individual")
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "x.nc", data, engine)
        assert PARSER.sniff(path)
        found = load(PARSER, path, block_frames=block_frames)
    assert_same(found, data, individuals)
    assert {track.fps for track in found.header.tracks} == {fps}
    names = tuple(f"point {k}" for k in range(n_keypoints))
    assert {track.keypoints for track in found.header.tracks} == {names}


@pytest.mark.parametrize(
    "encoding",
    [{"zlib": True}, {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -1}, {"dtype": "f4"}],
)
def test_encodings__are_undone(tmp_path, load, encoding):
    data = poses()
    path = tmp_path / "x.nc"
    data.to_netcdf(path, engine="h5netcdf", encoding={"position": encoding})
    found = load(PARSER, path).position["x_m1"]
    wanted = data.position.sel(individuals="m1").transpose("time", "keypoints", "space").values
    np.testing.assert_allclose(found, wanted, atol=0.006)


def test_single_individual__is_named_by_the_file(tmp_path, load):
    found = load(PARSER, write(tmp_path / "x.nc", poses(individuals=["Ida"])))
    assert set(found.position) == {"x"}
    found = load(PARSER, write(tmp_path / "y.nc", poses().sel(individuals="m2")))
    assert set(found.position) == {"y"}


def test_axes__are_put_in_order_by_their_labels(tmp_path, load):
    data = poses().isel(space=[1, 0])
    assert_same(load(PARSER, write(tmp_path / "x.nc", data)), data)


@pytest.mark.parametrize("how", ["absent", "nan"])
def test_confidence__may_be_lacking(tmp_path, load, how):
    data = poses()
    if how == "absent":
        data = data.drop_vars("confidence")
    else:  # movement fills it with NaN where the tracker gave none
        data["confidence"] = data.confidence * np.nan
    found = load(PARSER, write(tmp_path / "x.nc", data))
    assert not found.header.has_confidence
    assert any("without confidence" in note for note in found.header.notes)


def test_an_individual_that_never_appears__is_left_out(tmp_path, load):
    data = poses(individuals=["m1", "m2", "m3"])
    data["position"] = data.position.where(data.individuals != "m2")
    found = load(PARSER, write(tmp_path / "x.nc", data), block_frames=7)
    assert set(found.position) == {"x_m1", "x_m3"}
    assert any("`m2`" in note for note in found.header.notes)
    assert_same(found, data, ("m1", "m3"))


def test_time__gives_frame_rate_and_first_frame(tmp_path, load):
    def track(data):
        return load(PARSER, write(tmp_path / "x.nc", data)).header.tracks[0]

    in_seconds = poses(fps=25.0)
    assert (track(in_seconds).fps, track(in_seconds).first_frame) == (25.0, 0)
    assert track(in_seconds.isel(time=slice(10, None))).first_frame == 10
    assert (track(poses()).fps, track(poses()).first_frame) == (None, 0)
    assert track(poses().isel(time=slice(10, None))).first_frame == 10
    del in_seconds.attrs["fps"]
    assert track(in_seconds).fps == pytest.approx(25)
    assert track(poses().drop_vars("time")).fps is None


@pytest.mark.parametrize("fps", ["none", np.nan, -1.0, [30.0, 25.0]])
def test_a_useless_frame_rate__does_not_matter(tmp_path, load, fps):
    data = poses(fps=25.0)
    data.attrs["fps"] = fps
    found = load(PARSER, write(tmp_path / "x.nc", data)).header.tracks[0].fps
    assert found == pytest.approx(25)


def test_keypoints_without_names__can_be_named(tmp_path, load):
    path = write(tmp_path / "x.nc", poses().drop_vars("keypoints"))
    assert load(PARSER, path).header.tracks[0].keypoints[0] == "keypoint_0"
    named = load(PARSER, path, ReadOptions(keypoint_names=("a", "b", "c")))
    assert named.header.tracks[0].keypoints == ("a", "b", "c")
    with pytest.raises(InputError, match="keypoint_names="):
        PARSER.inspect(path, ReadOptions(keypoint_names=("a", "b")))


def test_other_variables__do_not_matter(tmp_path, load):
    data = poses()
    data["velocity"] = data.position * 2
    data["label"] = ("time", ["x"] * 40)
    assert_same(load(PARSER, write(tmp_path / "x.nc", data)), data)


# --- in memory ------------------------------------------------------------------------


@pytest.mark.parametrize("is_lazy", [False, True])
def test_dataset_in_memory__is_the_same_as_its_file(tmp_path, load, is_lazy):
    data = poses(fps=25.0)
    found = load(PARSER, write(tmp_path / "x.nc", data))
    before = data.copy(deep=True)
    tracks = tracks_of_dataset(data.chunk({"time": 7}) if is_lazy else data, "x")
    assert tracks.header.tracks == found.header.tracks
    assert tracks.header.format == "array"
    for track in tracks.header.tracks:
        np.testing.assert_array_equal(tracks.position[track.key], found.position[f"x_{track.key}"])
        confidence = found.confidence[f"x_{track.key}"]
        np.testing.assert_array_equal(tracks.confidence[track.key], confidence)
    xr.testing.assert_identical(data, before)


def test_dataset_in_memory__can_be_something_else():
    assert "an xarray.Dataset" in refused({"position": 1})


# --- refused --------------------------------------------------------------------------


def text_positions(data):
    return data.assign(position=data.position.astype(str))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.isel(keypoints=0, drop=True), "bounding boxes and centroids"),
        (lambda d: d.drop_vars("position"), "a variable named position"),
        (lambda d: d.isel(time=0, drop=True), "position over"),
        (lambda d: d.isel(time=slice(0)), "none of them empty"),
        (lambda d: d.expand_dims(view=["a", "b"]), "ds.isel(view=0)"),
        (lambda d: d.assign_coords(space=["rho", "phi"]), "`rho`, `phi`"),
        (lambda d: d.assign_coords(keypoints=["a", "b", "a"]), "keypoints with different names"),
        (lambda d: d.assign_coords(individuals=["a", "a"]), "individuals with different names"),
        (lambda d: d.assign(confidence=d.confidence.isel(keypoints=0)), "confidence over"),
        (lambda d: d.assign(position=d.position * np.nan), "no coordinates at all"),
        (text_positions, "numbers in position"),
    ],
)
def test_what_cannot_be_used__is_refused_in_files_and_in_memory(tmp_path, change, said):
    data = change(poses())
    assert said in refused(data)
    if change is text_positions:
        said = "expected numbers"
    message = refused(write(tmp_path / "x.nc", data))
    assert said in message


def test_bounding_boxes__are_refused(tmp_path):
    data = poses().isel(keypoints=0, drop=True)
    data["shape"] = data.position
    data.attrs["ds_type"] = "bboxes"
    path = write(tmp_path / "x.nc", data)
    assert PARSER.sniff(path)
    assert "poses dataset" in refused(path)


def test_without_h5netcdf__says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "x.nc", poses())
    monkeypatch.setattr(movement_netcdf.importlib.util, "find_spec", lambda name: None)
    assert PARSER.sniff(path)
    assert "pip install 'kpms_zarr[movement]'" in refused(path)


@pytest.mark.parametrize("links", ["external", "soft"])
def test_links__are_refused(tmp_path, links):
    path = write(tmp_path / "x.nc", poses())
    with h5py.File(path, "a") as file:
        link = h5py.ExternalLink("o.h5", "/a") if links == "external" else h5py.SoftLink("/time")
        file["more"] = link
    assert "links for `more`" in refused(path)


@pytest.mark.parametrize("name", ["time", "position", "keypoints"])
def test_huge_claims__are_refused(tmp_path, name):
    path = write(tmp_path / "x.nc", poses())
    with h5py.File(path, "a") as file:
        shape = {"position": (10**11, 2, 3, 2)}.get(name, (10**12,))
        del file[name]
        file.create_dataset(name, shape, "f8", chunks=tuple(min(n, 1000) for n in shape))
    refused(path)


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_damaged_files__raise_input_errors_only(tmp_path, engine, survives_damage):
    path = write(tmp_path / "x.nc", poses(10), engine)
    end = None if engine == "h5netcdf" else 600
    assert survives_damage(PARSER, path, 60, end=end) < 50


# --- recognising -----------------------------------------------------------------------


def test_sniff__leaves_other_formats_alone(real):
    assert not [path for path in real.others("movement") if PARSER.sniff(path)]


@pytest.mark.parametrize("content", [b"", b"CDF\x01", b"CDF\x01 position", b"\x89HDF\r\n\x1a\n"])
def test_other_content__is_not_claimed(tmp_path, content):
    (tmp_path / "x.nc").write_bytes(content)
    assert PARSER.sniff(tmp_path / "x.nc") is None
    refused(tmp_path / "x.nc")


def test_no_such_file__is_no_error_of_sniff(tmp_path):
    assert PARSER.sniff(tmp_path / "none.nc") is None
    refused(tmp_path / "none.nc")


def test_netcdf_without_poses__is_not_claimed(tmp_path):
    data = xr.Dataset({"position": ("time", [1.0, 2.0])})
    assert PARSER.sniff(write(tmp_path / "x.nc", data)) is None
