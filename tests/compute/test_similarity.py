"""Similarity of syllables against direct computation, of planted twins, and of odd labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.cluster import hierarchy

import kpms_zarr
from helpers.ar_labels import LAGS, LENGTHS, M, N, halved, make_store, publish, simulate
from kpms_zarr.compute.kernels.ar import tile_moments
from kpms_zarr.compute.kernels.dynamics import Dynamics, prior_mean
from kpms_zarr.compute.runs.hierarchy.label_sums import count_transitions, label_sums, moments_of
from kpms_zarr.compute.runs.hierarchy.onset_poses import SECONDS, onset_poses
from kpms_zarr.compute.runs.hierarchy.posed_frames import PosedFrames
from kpms_zarr.compute.runs.hierarchy.similarity import log_densities
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.store.rotation import rotate

DATA = simulate()
TWIN = halved(1, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model ``m``: syllable 4 is half of the bouts of syllable 1; ``bare``: labels alone."""
    path = make_store(tmp_path_factory.mktemp("similar") / "s.zarr")
    publish(path, DATA, relabel=TWIN)
    publish(path, DATA, "bare", relabel=TWIN, has_parameters=False)
    publish(
        path, DATA, "labels", relabel=TWIN, has_parameters=False,
        without=("latent", "centroid", "heading"),
    )  # fmt: skip
    return path


def dataset_of(state: int) -> tuple[np.ndarray, np.ndarray]:
    """Regressors and poses of the frames of a state, one after the other."""
    rows, poses = [], []
    for name, z in DATA.syllable.items():
        x, z = DATA.latent[name].astype(float), TWIN(z)
        for t in range(LAGS, len(z)):
            if z[t] == state:
                rows.append(np.append(x[t - LAGS : t].ravel(), 1))
                poses.append(x[t])
    return np.array(rows), np.array(poses)


def predictive(features: np.ndarray, poses: np.ndarray, attrs: dict) -> float:
    """Student's t of one frame after the other, given those before it."""
    mean, dof = prior_mean(M, LAGS), attrs["dof"]
    precision = np.eye(M * LAGS + 1) / attrs["weight_scale"]
    right = mean / attrs["weight_scale"]
    square = attrs["innovation_scale"] * np.eye(M) + mean @ mean.T / attrs["weight_scale"]
    total = 0.0
    for d, x in zip(features, poses, strict=True):
        centre = np.linalg.solve(precision, right.T).T
        free = dof - M + 1
        spread = (square - centre @ right.T) / free * (1 + d @ np.linalg.solve(precision, d))
        total += stats.multivariate_t(centre @ d, spread, free).logpdf(x)
        precision, right = precision + np.outer(d, d), right + np.outer(x, d)
        square, dof = square + np.outer(x, x), dof + 1
    return total


def of_labels(target: np.ndarray, attrs: dict) -> float:
    """Polya urns, one label after the other."""
    urns = np.full((N, N), attrs["alpha"] / N) + attrs["kappa"] * np.eye(N)
    total = 0.0
    for z in DATA.syllable.values():
        z = target[TWIN(z)]
        for a, b in zip(z[LAGS:-1], z[LAGS + 1 :], strict=True):
            total += np.log(urns[a, b] / urns[a].sum())
            urns[a, b] += 1
    return total


@pytest.mark.parametrize("pair", [(1, 4), (0, 3)])
def test_evidence__is_that_of_one_frame_after_the_other(store, pair):
    table = kpms_zarr.similarity(store, model="m")
    a, b = (dataset_of(state) for state in pair)
    both = tuple(np.concatenate(part) for part in zip(a, b, strict=True))
    expected = (
        predictive(*both, table.attrs) - predictive(*a, table.attrs) - predictive(*b, table.attrs)
    )
    found = table.sel(state=pair[0], state_other=pair[1])
    assert float(found["of_dynamics"]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    target = np.arange(N)
    target[pair[1]] = pair[0]
    changed = of_labels(target, table.attrs) - of_labels(np.arange(N), table.attrs)
    assert float(found["of_transitions"]) == pytest.approx(changed, rel=1e-6, abs=1e-6)
    assert float(found["log_bayes_factor"]) == pytest.approx(expected + changed, rel=1e-6)
    assert table.attrs["kappa"] == 50


def test_evidence__finds_twins_and_them_alone(store):
    table = kpms_zarr.similarity(store, model="m")
    assert table["state"].values.tolist() == [0, 1, 2, 3, 4]
    is_one = table["log_bayes_factor"].values > 0
    assert np.argwhere(is_one).tolist() == [[1, 4], [4, 1]]
    # Wrong twin: the fit of the pose alone, which two states never have worse than one, takes
    # nothing for one state.
    alone = [dataset_of(1), dataset_of(4)]
    together = tuple(np.concatenate(part) for part in zip(*alone, strict=True))
    assert best_fit(*together) - sum(best_fit(*one) for one in alone) < 0
    tree = table["linkage"].values
    assert sorted(table["state"].values[tree[0, :2].astype(int)]) == [1, 4]
    assert hierarchy.is_valid_linkage(tree)
    assert sorted(table["leaf"].values) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(table["distance"], table["distance"].T)


def best_fit(features: np.ndarray, poses: np.ndarray) -> float:
    """Log likelihood of the frames under the parameters that fit them best."""
    weight = np.linalg.lstsq(features, poses, rcond=None)[0]
    rest = poses - features @ weight
    covariance = rest.T @ rest / len(rest)
    return float(stats.multivariate_normal(np.zeros(M), covariance).logpdf(rest).sum())


def test_moments__are_those_of_the_sampler_and_of_any_blocks(store):
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(60 + LAGS, M)), rng.integers(-1, 4, 60)
    found, n_left_out = moments_of(x, z, prior_mean(M, LAGS), 4)
    same = np.broadcast_to(prior_mean(M, LAGS), (4, M, M * LAGS + 1))
    expected = tile_moments(
        x[..., None].astype(np.float32), np.maximum(z, 0)[:, None], (z >= 0)[:, None],
        same.astype(np.float32), LAGS,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert n_left_out == 0
    x[10] = np.nan
    assert moments_of(x, np.zeros(60, int), prior_mean(M, LAGS), 4)[1] == LAGS + 1
    frames = PosedFrames.of(store, "m", needs_pose=True)
    whole = label_sums(frames)
    for block_frames in (37, 64):
        parts = label_sums(frames, block_frames)
        np.testing.assert_allclose(parts.moments, whole.moments, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(parts.transitions, whole.transitions)
        poses, parts_of_poses = onset_poses(frames), onset_poses(frames, block_frames=block_frames)
        np.testing.assert_allclose(parts_of_poses.total, poses.total, rtol=1e-9, atol=1e-7)
        np.testing.assert_array_equal(parts_of_poses.n_bouts, poses.n_bouts)
        assert parts_of_poses.n_left_out == poses.n_left_out
    assert whole.transitions.sum() == sum(max(0, n - LAGS - 1) for n in LENGTHS)
    assert count_transitions(np.array([0, -1, 1, 1, 0]), 2).tolist() == [[0, 0], [1, 1]]


def test_prediction__is_the_density_of_the_frames_under_the_other(store):
    table = kpms_zarr.similarity(store, model="m", kind="prediction")
    parameters = open_parameters(store, "m").load()
    for a, b in ((0, 0), (0, 2), (2, 0), (1, 4)):
        features, poses = dataset_of(a)
        weight = np.column_stack([parameters["ar_weight"].values[b], parameters["ar_bias"][b]])
        noise = stats.multivariate_normal(np.zeros(M), parameters["ar_covariance"].values[b])
        expected = noise.logpdf(poses - features @ weight.T).mean()
        found = float(table["log_density"].sel(state=a, state_other=b))
        assert found == pytest.approx(expected, rel=1e-8)
    excess = table["excess"].sel(state=[0, 2], state_other=[0, 2]).values
    assert excess[0, 1] != pytest.approx(excess[1, 0])
    distance = table["distance"].sel(state=0, state_other=2)
    assert float(distance) == pytest.approx((excess[0, 1] + excess[1, 0]) / 2)
    assert table.attrs["parameters_from"] == "the parameters of the model"
    assert table["distance"].attrs["units"] == "nat / frame"
    of_labels_alone = kpms_zarr.similarity(store, model="bare", kind="prediction")
    assert of_labels_alone.attrs["parameters_from"] == "the posterior mean given the frames"
    order = np.argsort(of_labels_alone["distance"].sel(state=1).values)
    assert of_labels_alone["state"].values[order[:2]].tolist() == [1, 4]


def test_log_densities__wrong_reference_is_told():
    """Moments under one reference read as under another give another density."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(30 + LAGS, M)), np.zeros(30, int)
    mean = prior_mean(M, LAGS)
    moments, _ = moments_of(x, z, mean, 1)
    dynamics = Dynamics(mean[None], np.eye(M)[None])
    right = log_densities(moments, mean[None], dynamics)
    assert right != pytest.approx(log_densities(moments, 0 * mean[None], dynamics))


def test_trajectories__are_means_over_bouts_seen_from_the_animal(store):
    table = kpms_zarr.similarity(store, model="m", kind="trajectories")
    parameters = open_parameters(store, "m").load()
    loading, mean = parameters["pose_loading"].values, parameters["pose_mean"].values
    step = np.rint(np.asarray(SECONDS) * 30).astype(int)
    found: dict[int, list[np.ndarray]] = {state: [] for state in range(5)}
    for name, z in DATA.syllable.items():
        z, x = TWIN(z), DATA.latent[name].astype(float)
        centroid = DATA.centroid[name].astype(float)
        heading = DATA.heading[name].astype(float)
        for t in range(1, len(z)):
            if z[t] == z[t - 1] or t + step[0] < 0 or t + step[-1] >= len(z):
                continue
            at = t + step
            position = rotate(mean + np.tensordot(x[at], loading, 1), heading[at])
            position = position + centroid[at][:, None] - centroid[t]
            found[int(z[t])].append(rotate(position, np.full(len(at), -heading[t])))
    assert table["n_bouts"].values.tolist() == [len(one) for one in found.values()]
    a, b = (np.mean(found[state], 0) for state in (0, 3))
    expected = np.sqrt(np.square(a - b).sum(-1).mean())
    assert float(table["distance"].sel(state=0, state_other=3)) == pytest.approx(expected, rel=1e-6)
    assert table["distance"].attrs["units"]
    assert "at the ends of sessions" in table.attrs["left_out"]


def test_labels_alone__take_the_tracked_pose_or_say_what_is_missing(store):
    with pytest.raises(kpms_zarr.InputError, match=r"(?s)no components in the store.*pca"):
        kpms_zarr.similarity(store, model="labels")
    with pytest.raises(kpms_zarr.InputError, match="no components in the store"):
        kpms_zarr.similarity(store, model="bare", kind="trajectories")
    kpms_zarr.pca(store)
    for kind in ("evidence", "prediction", "trajectories"):
        table = kpms_zarr.similarity(store, model="labels", kind=kind)
        assert table.attrs["pose"] == "tracked"
        assert np.isfinite(table["distance"].values).all()
    assert kpms_zarr.similarity(store, model="m").attrs["pose"] == "published"


def test_similarity__refuses_what_is_not_there(store):
    with pytest.raises(kpms_zarr.InputError, match="evidence, prediction, trajectories"):
        kpms_zarr.similarity(store, model="m", kind="taste")
    with pytest.raises(kpms_zarr.InputError, match="7, which no frame has"):
        kpms_zarr.similarity(store, model="m", syllables=[0, 7])
    with pytest.raises(kpms_zarr.InputError, match="at least two"):
        kpms_zarr.similarity(store, model="m", syllables=[0])
    few = kpms_zarr.similarity(store, model="m", syllables=[3, 0])
    assert few["state"].values.tolist() == [0, 3]
    assert few["linkage"].shape == (1, 4)
