"""Denoised positions from the labels: the formula, laziness, and versions of all kinds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import LabelWriter, open_labels, write_parameters
from kpms_zarr.store.model.reconstruction import reconstruct
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=3, n_frames=250, n_keypoints=5, is_ragged=True)
N_LATENT = 3
SCALE = (0.5, 2.0, 31.0)


@dataclass
class Written:
    """What a version was written from, one entry a session."""

    latent: list[np.ndarray]
    centroid: list[np.ndarray]
    heading: list[np.ndarray]
    noise_scale: list[np.ndarray]
    loading: np.ndarray
    mean: np.ndarray
    settings: StudySettings


def write_model(
    store: Path, *, keypoints: tuple[str, ...] | None = None, scale=SCALE, full: bool = True
) -> Written:
    """Publish hand-made labels and parameters of a model named ``m``."""
    rng = np.random.default_rng(0)
    root = access.open_group(store, "r+")
    sessions = access.sessions(root)
    settings = read_settings(root)
    settings = replace(settings, keypoints=keypoints or settings.keypoints)
    n_space, n_keypoints = len(settings.space), len(settings.keypoints)
    names = ("syllable", "latent", "centroid", "heading") + ("noise_scale",) * full
    writer = LabelWriter(
        root,
        "m",
        sessions=sessions,
        settings=settings,
        names=names,
        n_latent=N_LATENT,
        scale=scale,
    )
    shapes = {
        "latent": (N_LATENT,),
        "centroid": (n_space,),
        "heading": (),
        "noise_scale": (n_keypoints,),
    }
    values = {
        name: [
            (rng.normal(size=(s.n_frames, *shape)) * 3).astype(np.float32) ** (1 + (name[0] == "n"))
            for s in sessions
        ]
        for name, shape in shapes.items()
    }
    for block in iter_blocks(sessions, writer.block_frames):
        parts = {
            n: values[n][block.session][block.start : block.stop] for n in names if n != "syllable"
        }
        writer.write(block, {"syllable": np.zeros(block.n_frames), **parts})
    loading = rng.normal(size=(N_LATENT, n_keypoints, n_space))
    mean = rng.normal(size=(n_keypoints, n_space)) * 10
    parameters = {
        "keypoint": list(settings.keypoints),
        "space": list(settings.space),
        "pose_loading": loading,
        "pose_mean": mean,
    }
    write_parameters(root, "m", writer.version, parameters, {})
    writer.publish("fit", {})
    return Written(**values, loading=loading, mean=mean, settings=settings)


def naive(written: Written, session: int, *, scale: float = 1.0) -> np.ndarray:
    """Oracle: frame by frame, keypoint by keypoint, in float64."""
    latent, centroid = written.latent[session], written.centroid[session]
    n_keypoints, n_space = written.mean.shape
    found = np.zeros((len(latent), n_keypoints, n_space))
    for t, angle in enumerate(written.heading[session].astype(float)):
        rotation = np.eye(n_space)
        rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        for k in range(n_keypoints):
            pose = written.mean[k] + latent[t].astype(float) @ written.loading[:, k]
            found[t, k] = centroid[t] + scale * rotation @ pose
    return found


@pytest.fixture(scope="module", params=[2, 3])
def fresh(request, tmp_path_factory):
    """A store without a model."""
    place = tmp_path_factory.mktemp("fresh") / "study.zarr"
    write_store(place, replace(STUDY, n_space=request.param))
    return place


@pytest.fixture
def store(fresh, tmp_path):
    return shutil.copytree(fresh, tmp_path / "study.zarr")


@pytest.fixture(scope="module")
def whole(fresh, tmp_path_factory):
    """A store with a model, and what was written; nobody writes to it."""
    store = shutil.copytree(fresh, tmp_path_factory.mktemp("whole") / "study.zarr")
    return store, write_model(store)


def test_reconstruct__is_the_formula(whole):
    store, written = whole
    for row, name in enumerate(STUDY.session_names):
        found = reconstruct(store, "m", name)
        assert found.dims == ("frame", "keypoint", "space")
        assert (found.name, found.dtype) == ("position", np.float32)
        expected = naive(written, row, scale=SCALE[row])
        np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-4)
        assert str(found["session"].values) == name
    # Wrong twin: the scale belongs to its session.
    assert not np.allclose(reconstruct(store, "m", "session_000").values, naive(written, 0))
    assert found["keypoint"].values.tolist() == list(written.settings.keypoints)
    assert found["space"].values.tolist() == list(written.settings.space)
    assert "px" in found.attrs["units"]
    assert found.attrs["long_name"]
    assert set(found.coords) == {"session", "keypoint", "space", "n_frames", "fps"}


def test_reconstruct__all_sessions_with_padding(whole):
    store, written = whole
    found = kpms_zarr.reconstruct(store, "m")
    assert found.dims == ("session", "frame", "keypoint", "space")
    assert found["session"].values.tolist() == list(STUDY.session_names)
    lengths = [len(latent) for latent in written.latent]
    assert found["n_frames"].values.tolist() == lengths
    assert found.sizes["frame"] == max(lengths)
    values = found.values
    for row, n_frames in enumerate(lengths):
        expected = naive(written, row, scale=SCALE[row])
        np.testing.assert_allclose(values[row, :n_frames], expected, rtol=1e-6, atol=1e-4)
        assert np.isnan(values[row, n_frames:]).all()
    one = found.sel(session="session_001", keypoint="point2")[: lengths[1]]
    other = reconstruct(store, "m", "session_001").sel(keypoint="point2")
    np.testing.assert_array_equal(one.values, other.values)


def test_reconstruct__of_some_of_the_keypoints(store):
    chosen = ("point3", "point0", "point1")
    written = write_model(store, keypoints=chosen)
    found = reconstruct(store, "m", "session_002")
    assert found["keypoint"].values.tolist() == list(chosen)
    expected = naive(written, 2, scale=SCALE[2])
    np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-4)
    # Aligned by name with the tracking, which has more keypoints.
    raw = access.dataset(store, "keypoints")["position"].sel(session="session_002")
    raw = raw[: len(expected)].load()
    shift = (raw - found).compute()
    assert set(shift["keypoint"].values) == set(chosen)
    at_point0 = raw.sel(keypoint="point0").values - expected[:, 1]
    np.testing.assert_allclose(shift.sel(keypoint="point0").values, at_point0, atol=1e-3)


def test_reconstruct__versions_without_scale_or_noise(store):
    written = write_model(store, scale=None, full=False)
    np.testing.assert_array_equal(open_labels(store, "m")["scale"], 1)
    np.testing.assert_allclose(
        reconstruct(store, "m", "session_001").values, naive(written, 1), rtol=1e-6, atol=1e-4
    )
    labels = access.open_group(store, "r+")["models/m/labels/v1"]
    del labels["scale"]
    labels.attrs["coordinates"] = "n_frames fps"
    before = reconstruct(store, "m")
    np.testing.assert_allclose(
        before.values[1, : len(written.latent[1])], naive(written, 1), rtol=1e-6, atol=1e-4
    )


def test_reconstruct__computes_nothing_until_asked(whole, monkeypatch):
    store, _ = whole
    root = access.open_group(store)

    def refuse(*_, **__):
        raise AssertionError("something was computed")

    # A length read from the disk is fine; positions are not.
    monkeypatch.setattr("kpms_zarr.store.model.reconstruction.place_pose", refuse)
    found = reconstruct(store, "m")
    assert dask.is_dask_collection(found.data)
    assert found.chunks[0] == (1, 1, 1)
    assert len(found.data.dask) < 40 * found.data.npartitions
    with pytest.raises(AssertionError, match="computed"):
        found.compute()
    assert root["models/m/labels/v1/latent"].chunks[:2] == (1, FRAMES_PER_CHUNK)


def test_reconstruct__reads_only_the_chunks_it_needs(tmp_path):
    study = replace(STUDY, n_sessions=1, n_frames=2 * FRAMES_PER_CHUNK + 9, is_ragged=False)
    store = tmp_path / "study.zarr"
    write_store(store, study)
    write_model(store, scale=(2.0,))
    whole = reconstruct(store, "m", "session_000").values
    for name in ("latent", "centroid", "heading"):
        chunks = store / "models/m/labels/v1" / name / "c/0"
        for damaged in (chunks / "0", chunks / "2"):
            for file in [damaged] if damaged.is_file() else damaged.rglob("*"):
                if file.is_file():
                    file.write_bytes(b"not a chunk")
    middle = slice(FRAMES_PER_CHUNK + 5, 2 * FRAMES_PER_CHUNK)
    found = reconstruct(store, "m", "session_000")[middle].values
    np.testing.assert_array_equal(found, whole[middle])


def test_reconstruct__an_older_version(tmp_path):
    store = tmp_path / "study.zarr"
    write_store(store, STUDY)
    write_model(store)
    first = reconstruct(store, "m").compute()
    write_model(store, scale=None)
    assert reconstruct(store, "m", version="v1").identical(first)
    assert not reconstruct(store, "m").equals(first)


def test_reconstruct__names_what_is_wrong(tmp_path):
    store = tmp_path / "study.zarr"
    write_store(store, STUDY)
    with pytest.raises(InputError, match="a fitted model named 'm'"):
        reconstruct(store, "m")
    write_model(store)
    with pytest.raises(InputError, match="session_000, session_001") as error:
        reconstruct(store, "m", "sesion_001")
    assert "did you mean 'session_001'" in str(error.value)
    with pytest.raises(InputError, match="'v7'"):
        reconstruct(store, "m", version="v7")
    root = access.open_group(store, "r+")
    writer = LabelWriter(root, "bare", sessions=access.sessions(root), settings=read_settings(root))
    writer.publish("fit", {})
    with pytest.raises(InputError, match="latent, centroid, heading"):
        reconstruct(store, "bare")
    del root["models/m/parameters/v1"]
    with pytest.raises(InputError, match="pose_loading"):
        reconstruct(store, "m")


# --- what the writer adds --------------------------------------------------------------


def test_label_writer__noise_scale_and_scale(store):
    written = write_model(store, keypoints=("point4", "point1"))
    labels = open_labels(store, "m")
    assert labels["noise_scale"].dims == ("session", "frame", "keypoint")
    assert labels["noise_scale"].dtype == np.float32
    assert labels["keypoint"].values.tolist() == ["point4", "point1"]
    assert "scale" in labels.coords
    assert labels["scale"].values.tolist() == list(SCALE)
    for row, noise in enumerate(written.noise_scale):
        np.testing.assert_array_equal(labels["noise_scale"][row, : len(noise)], noise)
        assert np.isnan(labels["noise_scale"][row, len(noise) :]).all()
    plain = xr.open_zarr(str(store), group="models/m/labels/v1", consolidated=False)
    assert plain["scale"].dims == ("session",)


def test_label_writer__no_keypoints_without_noise_scale(store):
    write_model(store, full=False)
    labels = open_labels(store, "m")
    assert "keypoint" not in labels.variables
    assert "noise_scale" not in labels.variables


def test_label_writer__blocks_are_whole_chunks_of_every_array(store):
    root = access.open_group(store, "r+")
    for names in (("syllable", "noise_scale"), ("noise_scale",)):
        writer = LabelWriter(
            root,
            "n",
            sessions=access.sessions(root),
            settings=read_settings(root),
            names=names,
        )
        group = root[f"models/n/labels/{writer.version}"]
        for name in names:
            assert writer.block_frames % group[name].chunks[1] == 0
            assert group[name].chunks[0] == 1
    assert LABEL_FRAMES_PER_CHUNK % FRAMES_PER_CHUNK == 0


@pytest.mark.parametrize("scale", [(1.0, 2.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)])
def test_label_writer__refuses_scales_that_fit_no_sessions(store, scale):
    with pytest.raises(ValueError, match="3 positive numbers"):
        write_model(store, scale=scale)
