"""Out-of-core PCA: equal to a dense SVD, for any split, on simulated and real sessions."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.alignment.alignment import Aligner, AlignmentSettings
from kpms_zarr.compute.alignment.heading_names import suggest_heading
from kpms_zarr.compute.pose.concentration import Spread
from kpms_zarr.compute.pose.pca import (
    MAX_COMPONENTS,
    Moments,
    add,
    centering,
    components_of,
    finalise,
    of_block,
    pca,
    projection,
)
from kpms_zarr.compute.tracking.outliers import screen_of
from kpms_zarr.store.core import access, schema
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import read_settings, subset_keypoints
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store


def latent_of_pose(pose, dataset, n_latent):
    """Least-squares solution of the projection: (frame, latent)."""
    matrix, mean = projection(dataset, n_latent)
    return ((pose.reshape(len(pose), -1) - mean) @ np.linalg.pinv(matrix)).astype(np.float32)


REAL = Path(__file__).parents[3] / "shared/data/dlc_csv/Rensykes_dlc-keypoint-moseq-utils"


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def store(request, tmp_path_factory):
    """Ragged sessions of 1 to 3 blocks, with missing keypoints."""
    path = tmp_path_factory.mktemp("pca") / "study.zarr"
    study = SyntheticStudy(
        n_sessions=3, n_frames=24_000, n_keypoints=6, n_space=request.param, seed=3,
        missing_fraction=0.02, is_ragged=True,
    )  # fmt: skip
    write_store(path, study)
    return path


@pytest.fixture(scope="module")
def found(store):
    return pca(store)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.zarr"
    write_store(path, SyntheticStudy(n_sessions=2, n_frames=3000, n_keypoints=5))
    return path


def aligned_poses(store, *, confident_only=True, outlier_scale=6.0, **options) -> np.ndarray:
    """Every aligned pose in memory: (frame, keypoint, space)."""
    alignment = AlignmentSettings(**options)
    screen = screen_of(store, read_settings(store), alignment, outlier_scale)
    aligner = Aligner.of(store, alignment, screen=screen)
    parts = [aligner.align(block) for block in iter_blocks(aligner.sessions)]
    return np.concatenate([p.pose[p.is_confident] if confident_only else p.pose for p in parts])


def assert_is_dense_svd(dataset: xr.Dataset, pose: np.ndarray) -> None:
    """Variances, components and mean equal those of an SVD of all poses at once."""
    n_frames, n_keypoints, n_space = pose.shape
    assert dataset.attrs["n_frames"] == n_frames
    values = (centering(n_keypoints).T @ pose).reshape(n_frames, -1)
    _, singular, vectors = np.linalg.svd(values - values.mean(0), full_matrices=False)
    variance = singular**2 / (n_frames - 1)
    total = variance.sum()
    np.testing.assert_allclose(
        dataset["explained_variance"], variance, rtol=1e-6, atol=1e-9 * total
    )
    np.testing.assert_allclose(dataset["explained_variance_ratio"].sum(), 1)
    np.testing.assert_allclose(dataset["pose_mean"], pose.mean(0), rtol=1e-6, atol=1e-9)
    loading = dataset["pose_loading"].values.reshape(len(variance), -1)
    back = np.kron(centering(n_keypoints), np.eye(n_space)) @ vectors.T * np.sqrt(variance)
    for ours, dense in zip(loading, back.T, strict=True):
        if dense @ dense < 1e-9 * total:
            continue
        dense = dense * np.sign(dense @ ours)
        np.testing.assert_allclose(ours, dense, atol=1e-6 * np.abs(dense).max())


# ------------------------------------------------------------------ statistics


@pytest.mark.parametrize("n_keypoints", [2, 3, 8, 20])
def test_centering__is_an_orthonormal_basis_of_what_sums_to_zero(n_keypoints):
    basis = centering(n_keypoints)
    assert basis.shape == (n_keypoints, n_keypoints - 1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n_keypoints - 1), atol=1e-12)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-12)


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    at=st.lists(st.integers(0, 50), max_size=6).map(sorted),
    far=st.sampled_from([0.0, 1e3, 1e6]),
)
def test_moments__are_the_same_for_any_split(seed, at, far):
    values = np.random.default_rng(seed).normal(size=(50, 3)) + far
    total = reduce(add, (of_block(part) for part in np.split(values, at)))
    assert total.n_frames == 50
    np.testing.assert_allclose(total.mean, values.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(total.scatter / 49, np.cov(values.T), rtol=1e-8, atol=1e-8)


def test_moments__of_raw_sums_would_lose_their_digits():
    """The wrong twin: E[x x'] - E[x] E[x]' in place of Chan's formula fails the test above."""
    values = np.random.default_rng(0).normal(size=(50, 3)) + 1e8
    naive = values.T @ values - 50 * np.outer(values.mean(0), values.mean(0))
    chan = add(of_block(values[:20]), of_block(values[20:])).scatter
    truth = np.cov((values - 1e8).T) * 49
    np.testing.assert_allclose(chan, truth, rtol=1e-5, atol=1e-5)
    assert not np.allclose(naive, truth, rtol=1e-2)


def test_finalise__gives_the_largest_displacement_a_plus(store, found):
    flat = found["pose_loading"].values.reshape(found.sizes["component"], -1)
    largest = flat[np.arange(len(flat)), np.abs(flat).argmax(1)]
    assert (largest >= 0).all()
    assert (np.diff(found["explained_variance"]) <= 0).all()


def test_finalise__does_not_depend_on_the_sign_of_the_eigenvectors(monkeypatch):
    moments = of_block(np.random.default_rng(0).normal(size=(100, 6)))
    expected = finalise(Moments(*moments), centering(4))
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (eigh(a)[0], -eigh(a)[1]))
    for a, b in zip(finalise(moments, centering(4)), expected, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------ the public verb


def test_pca__equals_a_dense_svd(store, found):
    pose = aligned_poses(store)
    assert len(pose) < sum(session.n_frames for session in access.sessions(store))
    assert_is_dense_svd(found, pose)


def test_pca__without_rotation_equals_a_dense_svd(small):
    assert_is_dense_svd(pca(small, fix_heading=True), aligned_poses(small, fix_heading=True))


def test_pca__of_other_frames_would_not_pass(store, found):
    """The wrong twin: interpolated frames as well give another answer."""
    with pytest.raises(AssertionError):
        assert_is_dense_svd(found, aligned_poses(store, confident_only=False))


@pytest.mark.parametrize(
    "options",
    [
        {"scheduler": "synchronous"},
        pytest.param({"scheduler": "threads", "num_workers": 1}, marks=pytest.mark.full),
        {"scheduler": "threads", "num_workers": 5},
    ],
    ids=str,
)
def test_pca__is_the_same_to_the_bit_with_any_scheduler(store, found, options):
    with dask.config.set(options):
        xr.testing.assert_identical(pca(store).drop_attrs(), found.drop_attrs())


@pytest.mark.parametrize(
    "store", [2, pytest.param(3, marks=pytest.mark.full)], ids=["2d", "3d"], indirect=True
)
def test_pca__is_the_same_to_the_bit_with_processes(store, found):
    with dask.config.set({"scheduler": "processes", "num_workers": 2}):
        xr.testing.assert_identical(pca(store).drop_attrs(), found.drop_attrs())


def test_pca__finds_the_subspace_that_was_simulated(tmp_path):
    study = SyntheticStudy(n_sessions=2, n_frames=6000, n_latent=3, outlier_fraction=0.0)
    write_store(tmp_path / "s.zarr", study)
    ratio = pca(tmp_path / "s.zarr")["explained_variance_ratio"].values
    assert ratio[:3].sum() > 0.97  # the heading takes part of it, hence not 3 exactly


def test_pca__is_written_as_declared(store, found):
    stored = access.dataset(store, "pca").load()
    for entry in schema.PCA:
        assert stored[entry.name].dims == entry.dims == found[entry.name].dims
        np.testing.assert_array_equal(stored[entry.name], found[entry.name])
    kept = provenance_of({"provenance": stored.attrs.pop("provenance")})["settings"]
    assert stored.attrs == {k: v for k, v in found.attrs.items() if k != "provenance"} == kept
    assert kept["n_components"] == found.attrs["n_components"]
    assert kept["sessions"] == ["session_000", "session_001", "session_002"]
    assert kept["anterior"] == ["point5"]
    assert [note.split(":")[0] for note in kept["notes"]] == [
        "confident points taken for missing because they are outlying"
    ]
    assert kept["outlier_scale"] == 6
    assert not kept["scaled"]


def test_pca__takes_as_many_components_as_the_variance_needs(small):
    ratio = pca(small)["explained_variance_ratio"].values
    for share in (0.3, 0.9, 0.99):
        n = pca(small, variance=share).attrs["n_components"]
        assert ratio[:n].sum() >= share > ratio[: n - 1].sum()


def test_pca__takes_ten_components_at_most(tmp_path):
    write_store(
        tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=4000, n_keypoints=9, n_space=3)
    )
    found = pca(tmp_path / "s.zarr", variance=1.0)
    assert found.attrs["n_components"] == MAX_COMPONENTS
    assert found.sizes["component"] == 24


def test_pca__never_takes_components_of_rounding_noise(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=2000, n_keypoints=3))
    found = pca(tmp_path / "s.zarr", variance=1.0)
    assert found.sizes["component"] == 4
    assert found.attrs["n_components"] == 3  # the heading has taken one
    projection(found, 3)
    with pytest.raises(InputError, match="between 1 and 3"):
        projection(found, 4)


def test_pca__uses_all_frames_when_too_few_are_confident(small):
    group = access.open_group(small, "r+")["keypoints"]
    group["confidence"][:, 30:, 2] = 0.1
    found = pca(small)
    assert found.attrs["n_frames"] == 6000
    assert "all frames used" in found.attrs["notes"][0]
    assert_is_dense_svd(found, aligned_poses(small, confident_only=False))


def test_pca__passes_the_notes_of_the_alignment_on(small):
    access.open_group(small, "r+")["keypoints/position"][1, :, 2] = np.nan
    notes = pca(small, outlier_scale="none").attrs["notes"]
    assert len(notes) == 1
    assert "session_001: point2 never tracked" in notes[0]


def test_pca__keeps_the_heading_keypoints_it_was_given(small):
    pca(small, anterior=["point3", "point4"], posterior=["point1"])
    study = read_settings(small)
    assert (study.anterior, study.posterior) == (("point3", "point4"), ("point1",))
    assert study.skeleton
    assert pca(small).attrs["anterior"] == ["point3", "point4"]


def test_pca__changes_nothing_when_it_fails(small):
    before = read_settings(small)
    group = access.open_group(small, "r+")["keypoints"]
    group["position"][...] = np.broadcast_to(np.arange(10.0).reshape(5, 2), (2, 3000, 5, 2))
    with pytest.raises(InputError, match="the same aligned pose in all frames"):
        pca(small, anterior=["point3"])
    assert read_settings(small) == before
    assert access.subgroup(access.open_group(small), "pca") is None


def test_pca__refuses_a_stiff_animal_that_walks(small):
    """A pose that changes by the rounding of float32 alone is no pose that changes."""
    group = access.open_group(small, "r+")["keypoints"]
    walk = np.cumsum(np.random.default_rng(0).normal(size=(2, 3000, 1, 2)), axis=1) + 300
    group["position"][...] = (walk + np.arange(10.0).reshape(5, 2) * 10).astype(np.float32)
    with pytest.raises(InputError, match="the same aligned pose"):
        pca(small)


def test_pca__refuses_unknown_keypoints(small):
    with pytest.raises(InputError, match="did you mean 'point3'"):
        pca(small, anterior=["pont3"])


def test_pca__asks_for_the_heading_keypoints(small):
    access.open_group(small, "r+").attrs["anterior_keypoints"] = []
    with pytest.raises(InputError, match="anterior="):
        pca(small)
    assert pca(small, fix_heading=True).attrs["n_frames"] > 0


@pytest.mark.parametrize(
    "options", [{"variance": 0}, {"variance": 1.1}, {"confidence_threshold": np.nan}]
)
def test_pca__refuses_settings_out_of_range(small, options):
    with pytest.raises(InputError, match=r"`[a-z_]+=`"):
        pca(small, **options)


def test_pca__refuses_a_single_keypoint(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=90, n_keypoints=1))
    access.open_group(tmp_path / "s.zarr", "r+").attrs["posterior_keypoints"] = []
    with pytest.raises(InputError, match="two keypoints or more"):
        pca(tmp_path / "s.zarr", fix_heading=True)


def test_pca__works_in_memory():
    write_store("memory://pca.zarr", SyntheticStudy(n_sessions=2, n_frames=2000))
    assert pca("memory://pca.zarr").attrs["n_frames"] > 1000


@pytest.mark.skipif(not REAL.is_dir(), reason=f"real recordings are not at {REAL}")
def test_pca__of_nine_real_sessions_equals_a_dense_svd(tmp_path):
    from kpms_zarr.store.ingest.ingest import ingest

    done = ingest(tmp_path / "real.zarr", [REAL])
    assert len(done.added) == 9
    front, rear = suggest_heading(read_settings(tmp_path / "real.zarr").keypoints)
    assert front
    assert rear
    found = pca(tmp_path / "real.zarr", anterior=front, posterior=rear, outlier_scale="none")
    # The tail moves on its own, and the user is told.
    assert found.attrs["notes"][0].startswith("tail alone makes up most of component 1 (")
    assert_is_dense_svd(found, aligned_poses(tmp_path / "real.zarr", outlier_scale=None))
    assert 1 <= found.attrs["n_components"] <= MAX_COMPONENTS


# ------------------------------------------------------------------ in memory


def test_components_of__are_those_of_pca_and_write_nothing(small):
    found = components_of(Aligner.of(small), variance=0.9)
    assert access.subgroup(access.open_group(small), "pca") is None
    stored = pca(small, outlier_scale="none")
    of_pca = provenance_of({"provenance": stored.attrs.pop("provenance")})["settings"]
    assert of_pca == stored.attrs
    assert stored.attrs.pop("outlier_scale") == "none"
    assert stored.attrs == found.attrs
    xr.testing.assert_identical(stored, found)


def test_components_of__some_keypoints_equal_those_of_a_store_of_them(store, copy_store, tmp_path):
    names = ("point5", "point0", "point2", "point3")
    only = copy_store(store, tmp_path / "only.zarr", keypoints=names)
    study = subset_keypoints(read_settings(store), names)
    found = components_of(Aligner.of(store, study=study), variance=0.9)
    theirs = components_of(Aligner.of(only), variance=0.9)
    xr.testing.assert_identical(found, theirs)
    assert found.attrs["keypoints"] == list(names)
    assert not found.attrs["scaled"]


def test_components_of__scaled_poses_are_scaled_components(small):
    plain = components_of(Aligner.of(small), variance=0.9)
    scaled = components_of(Aligner.of(small, scale={0: 4.0, 1: 4.0}), variance=0.9)
    assert scaled.attrs["scaled"]
    assert scaled.attrs["n_components"] == plain.attrs["n_components"]
    for name, power in (("pose_loading", 1), ("pose_mean", 1), ("explained_variance", 2)):
        np.testing.assert_allclose(scaled[name] * 4**power, plain[name], rtol=1e-6, atol=1e-9)


def test_components_of__checks_its_settings(small):
    with pytest.raises(InputError, match="variance="):
        components_of(Aligner.of(small), variance=0.0)


# ------------------------------------------------------------------ pose -> latent


def test_latent_of_pose__is_white(store, found):
    pose = aligned_poses(store)
    latent = latent_of_pose(pose, found, 4)
    assert latent.shape == (len(pose), 4)
    assert latent.dtype == np.float32
    np.testing.assert_allclose(latent.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(latent.T.astype(float)), np.eye(4), atol=1e-4)


def test_latent_of_pose__undoes_the_projection(store, found):
    latent = np.random.default_rng(0).normal(size=(50, 5))
    matrix, mean = projection(found, 5)
    pose = (mean + latent @ matrix).reshape(50, *found["pose_mean"].shape)
    np.testing.assert_allclose(latent_of_pose(pose, found, 5), latent, atol=1e-5)


def test_latent_of_pose__with_all_components_loses_nothing(store, found):
    aligner = Aligner.of(store)
    pose = aligner.align(Block(0, 0, 200)).pose
    matrix, mean = projection(found, found.sizes["component"] - 1)
    latent = latent_of_pose(pose, found, len(matrix))
    np.testing.assert_allclose((mean + latent @ matrix).reshape(pose.shape), pose, atol=1e-3)


def test_projection__reads_what_is_on_disk(store, found):
    stored = access.dataset(store, "pca")
    for a, b in zip(projection(stored, 3), projection(found, 3), strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------ few frames


def test_pca__names_the_few_frames_that_hold_most_of_the_variance(small):
    assert not any("of the variance:" in note for note in pca(small).attrs["notes"])
    group = access.open_group(small, "r+")["keypoints"]
    group["position"][1, 70, 2] = 1e5
    group["confidence"][1, 70] = 1.0
    notes = pca(small, outlier_scale="none").attrs["notes"]
    (note,) = (note for note in notes if "of the variance:" in note)
    assert "hold 100% of the variance" in note
    assert "Furthest from the mean pose: session_001, frame 70;" in note
    assert not any("of the variance:" in note for note in pca(small).attrs["notes"])


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 200))
@settings(max_examples=examples(30), deadline=None)
def test_spread__of_any_split_is_that_of_all(seed, cut):
    square = np.random.default_rng(seed).lognormal(0, 3, 200)
    frame = np.arange(200)
    whole = Spread.of_block(square, frame, 0)
    both = Spread.of_block(square[:cut], frame[:cut], 0).add(
        Spread.of_block(square[cut:], frame[cut:], 0)
    )
    np.testing.assert_array_equal(both.number, whole.number)
    np.testing.assert_allclose(both.total, whole.total, rtol=1e-12)
    assert both.worst == whole.worst
    share, held = whole.fewest()
    largest = np.sort(square)[::-1][: round(share * 200)]
    assert held == pytest.approx(largest.sum() / square.sum())
    assert held >= 0.5
