"""Components and headings fitted to each other."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import kpms_zarr
from kpms_zarr.compute.alignment.alignment import Aligner
from kpms_zarr.compute.pose.pose_space import PoseSpace, refine, turn_of, wrap
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study import synthetic

N_LATENT, N_KEYPOINTS = 3, 6


def space_of(n_space: int, seed: int = 0) -> PoseSpace:
    """A pose space, centred, of an animal along +x that bends."""
    rng = np.random.default_rng(seed)
    mean = np.zeros((N_KEYPOINTS, n_space))
    mean[:, 0] = np.linspace(-40, 40, N_KEYPOINTS)
    loading = rng.normal(size=(N_LATENT, N_KEYPOINTS, n_space)) * 5
    return PoseSpace(loading - loading.mean(1, keepdims=True), mean)


def distance(pose: np.ndarray, space: PoseSpace, angle: float) -> float:
    """Squared distance of one pose from the space after turning it back by an angle."""
    turned = rotate(pose[None], np.array([-angle]))[0] - space.mean
    basis = space.loading.reshape(N_LATENT, -1).T
    coefficient, *_ = np.linalg.lstsq(basis, turned.ravel(), rcond=None)
    return float(np.square(turned.ravel() - basis @ coefficient).sum())


@pytest.mark.parametrize("n_space", [2, 3])
def test_turn__is_the_best_one(n_space):
    rng = np.random.default_rng(1)
    space = space_of(n_space)
    latent = rng.normal(size=(40, N_LATENT))
    pose = space.mean + np.tensordot(latent, space.loading, 1)
    pose += rng.normal(size=pose.shape)
    pose -= pose.mean(1, keepdims=True)
    off = rng.uniform(-0.7, 0.7, 40)
    found = turn_of(rotate(pose, off), space)
    for i in range(40):
        turned = rotate(pose[i : i + 1], off[i : i + 1])[0]
        best = minimize_scalar(
            lambda angle, turned=turned: distance(turned, space, angle),
            bounds=(off[i] - 0.5, off[i] + 0.5), method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        assert found[i] == pytest.approx(best.x, abs=1e-5)
    # Wrong twin: the other sense of rotation.
    assert np.abs(found + off).max() > 0.5
    assert np.abs(found - off).mean() < 0.05


def curved_store(path, n_space: int):
    """Sessions whose pose bends at both ends, so that the keypoints turn the heading with it."""
    study = synthetic.SyntheticStudy(
        n_sessions=2, n_frames=1500, n_keypoints=N_KEYPOINTS, n_space=n_space, n_latent=N_LATENT,
        outlier_fraction=0,
    )  # fmt: skip
    synthetic.write_store(path, study)
    group = kpms_zarr.store.core.access.open_group(path, "r+")["keypoints"]
    space = space_of(n_space)
    rng = np.random.default_rng(2)
    for row in range(2):
        latent = rng.normal(size=(1500, N_LATENT))
        pose = space.mean + np.tensordot(latent, space.loading, 1)
        heading = np.cumsum(rng.normal(size=1500)) * 0.1
        position = rotate(pose, heading) + 300 + rng.normal(size=pose.shape) * 0.05
        group["position"][row, :1500] = position.astype(np.float32)
        group["confidence"][row, :1500] = 1.0
    return path, space


@pytest.mark.parametrize("n_space", [2, 3])
def test_refine__flattens_the_components(tmp_path, n_space):
    store, truth = curved_store(tmp_path / "s.zarr", n_space)
    aligner = Aligner.of(store)
    found = refine(aligner, N_LATENT, max_latent=N_LATENT)
    assert found is not None
    assert found.before > 0.001
    assert found.after < found.before / 10
    # The space is the true one, turned as a whole.
    both = []
    for space in (found.space, truth):
        frame = np.concatenate([space.mean[None], space.loading]).reshape(N_LATENT + 1, -1)
        both.append(np.linalg.qr(frame.T)[0])
    turned = rotate(found.space.mean[None], np.array([0.0]))[0]
    assert np.linalg.norm(turned - found.space.mean) == 0
    angle = np.arctan2(*(truth.mean[-1] - truth.mean[0])[1::-1])
    assert abs(angle) < 1e-9
    overlap = np.linalg.svd(both[0].T @ both[1])[1]
    assert overlap.min() > 0.99
    # Wrong twin: the components of the aligned pose do not span it.
    plain = kpms_zarr.pca(store)["pose_loading"].values[:N_LATENT]
    basis = np.linalg.qr(plain.reshape(N_LATENT, -1).T)[0]
    true_basis = np.linalg.qr(truth.loading.reshape(N_LATENT, -1).T)[0]
    assert np.linalg.svd(basis.T @ true_basis)[1].min() < overlap.min()


def test_refine__takes_the_components_up_to_an_edge(tmp_path):
    store, _ = curved_store(tmp_path / "s.zarr", 2)
    aligner = Aligner.of(store)
    sizes = {
        (n, most): len(refine(aligner, n, max_latent=most).space.loading)
        for n, most in ((1, 10), (2, 10), (2, 2), (3, 10), (4, 10))
    }
    assert sizes == {(1, 10): 3, (2, 10): 3, (2, 2): 2, (3, 10): 3, (4, 10): 4}


def test_refine__does_not_take_full_rank_for_an_edge(tmp_path):
    """Four keypoints have five dimensions to differ in: with all of them nothing is missed."""
    study = synthetic.SyntheticStudy(
        n_sessions=1, n_frames=3000, n_keypoints=4, n_latent=2, outlier_fraction=0.05
    )
    store = tmp_path / "s.zarr"
    synthetic.write_store(store, study)
    assert len(refine(Aligner.of(store), 2, max_latent=10).space.loading) == 2
    assert len(refine(Aligner.of(store), 1, max_latent=10).space.loading) <= 2


def test_refine__needs_frames_with_all_keypoints(tmp_path):
    store, _ = curved_store(tmp_path / "s.zarr", 2)
    group = kpms_zarr.store.core.access.open_group(store, "r+")["keypoints"]
    confidence = group["confidence"][...]
    confidence[:, 50:, 2] = 0.1
    group["confidence"][...] = confidence
    assert refine(Aligner.of(store), N_LATENT, max_latent=5) is None


def test_wrap__stays_in_range():
    angle = np.array([0.0, 3.0, 4.0, -4.0, 100.0])
    wrapped = wrap(angle)
    assert (np.abs(wrapped) <= np.pi).all()
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angle))
