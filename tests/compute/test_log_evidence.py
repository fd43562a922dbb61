"""The log evidence of both stages against one term after the other, in float64, of a tiny study."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.kernels.dynamics import prior_mean
from kpms_zarr.store.core import access
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.1, lengths=(60, 41)
)
CONFIG = replace(
    SMALL, average_sweeps=1, save_noise_scale=True, outlier_scale=None, kappa=50.0, ar_kappa=80.0
)
LAGS, M, N = CONFIG.lags, CONFIG.latent_dim, CONFIG.n_states


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evidence") / "study.zarr"
    synthetic.write_store(path, STUDY)
    kpms_zarr.pca(path)
    return path


def fitted(store: Path, model: str, **settings: object):
    kpms_zarr.fit(store, model=model, config=replace(CONFIG, **settings))
    return kpms_zarr.open_labels(store, model).load(), kpms_zarr.open_parameters(store, model)


def sessions_of(labels):
    """Latent pose and labels of each session, in float64."""
    for row, n in enumerate(labels["n_frames"].values):
        of_session = labels.isel(session=row, frame=slice(0, n))
        yield row, of_session["latent"].values.astype(float), of_session["syllable"].values


def of_labels(labels, kappa: float) -> float:
    """Polya urns, one label after the other."""
    urns = np.full((N, N), CONFIG.alpha / N) + kappa * np.eye(N)
    total = 0.0
    for _, _, z in sessions_of(labels):
        total -= np.log(N)
        for before, after in itertools.pairwise(z[LAGS:]):
            total += np.log(urns[before, after] / urns[before].sum())
            urns[before, after] += 1
    return total


def of_latent(labels) -> float:
    """Student's t of one frame after the other, given those before it in its state."""
    mean = prior_mean(M, LAGS)
    precision = {state: np.eye(M * LAGS + 1) / CONFIG.weight_scale for state in range(N)}
    right = dict.fromkeys(range(N), mean / CONFIG.weight_scale)
    square = {
        state: CONFIG.innovation_scale * np.eye(M) + mean @ mean.T / CONFIG.weight_scale
        for state in range(N)
    }
    dof, total = np.full(N, float(M + CONFIG.innovation_dof)), 0.0
    for _, x, z in sessions_of(labels):
        for t in range(LAGS, len(z)):
            i, d = z[t], np.append(x[t - LAGS : t].ravel(), 1)
            centre = np.linalg.solve(precision[i], right[i].T).T
            free = dof[i] - M + 1
            scatter = (square[i] - centre @ right[i].T) / free
            spread = scatter * (1 + d @ np.linalg.solve(precision[i], d))
            total += stats.multivariate_t(centre @ d, spread, free).logpdf(x[t])
            precision[i] = precision[i] + np.outer(d, d)
            right[i] = right[i] + np.outer(x[t], d)
            square[i] = square[i] + np.outer(x[t], x[t])
            dof[i] += 1
    return total


def of_the_rest(store: Path, labels, parameters) -> float:
    """Positions, noise scales, centroids, first latent poses, noise variance: one by one."""
    group = access.open_group(store)["keypoints"]
    variance = parameters["noise_variance"].values
    total = stats.invgamma(
        CONFIG.noise_variance_dof / 2,
        scale=CONFIG.noise_variance_dof * CONFIG.noise_variance / 2,
    ).logpdf(variance[0])
    loading, mean = parameters["pose_loading"].values, parameters["pose_mean"].values
    step = np.sqrt(parameters.attrs["centroid_step_variance"])
    for row, x, z in sessions_of(labels):
        n, scale = len(z), float(labels["scale"][row])
        of_session = labels.isel(session=row, frame=slice(0, n))
        v = of_session["centroid"].values.astype(float) / scale
        placed = rotate(mean + np.tensordot(x, loading, 1), of_session["heading"].values)
        placed = placed + v[:, None]
        s = of_session["noise_scale"].values.astype(float) / (variance * scale**2)
        y = np.asarray(group["position"][row, :n], float) / scale
        confidence = np.asarray(group["confidence"][row, :n], float)
        total += stats.norm(0, np.sqrt(CONFIG.latent_start_variance)).logpdf(x[:LAGS]).sum()
        total += stats.norm(0, np.sqrt(CONFIG.centroid_start_variance)).logpdf(v[0]).sum()
        total += stats.norm(0, step).logpdf(np.diff(v, axis=0)).sum()
        for t, k in np.ndindex(n, N_KEYPOINTS):
            if np.isnan(y[t, k]).any() or confidence[t, k] <= 0:
                continue
            s0 = 10 ** (2 * (-0.5 * np.log10(confidence[t, k] + 1e-3) + 0.25))
            nu, width = CONFIG.noise_dof, np.sqrt(s[t, k] * variance[k])
            total += stats.invgamma(nu / 2, scale=nu * s0 / 2).logpdf(s[t, k])
            total += stats.norm(placed[t, k], width).logpdf(y[t, k]).sum()
    return total


def n_modelled(labels) -> int:
    return int((labels["n_frames"] - LAGS).sum())


def test_log_evidence__of_the_full_stage_is_that_of_all_that_the_chain_holds(store):
    labels, parameters = fitted(store, "full")
    n, trace = n_modelled(labels), parameters["trace_log_evidence"].values
    found = trace[-1] * n
    rest = of_the_rest(store, labels, parameters)
    expected = of_labels(labels, CONFIG.kappa) + of_latent(labels) + rest
    assert found == pytest.approx(expected, abs=2e-3 * n)
    # Wrong twins: the noise variance without its prior; a term of the sweep that is given the
    # parameters counted beside the one in which they are integrated out.
    prior = stats.invgamma(5, scale=5).logpdf(parameters["noise_variance"].values[0])
    assert found != pytest.approx(expected - prior, abs=2e-3 * n)
    terms = parameters["trace_log_probability"][-1]
    for name in ("syllable", "latent"):
        assert found != pytest.approx(expected + n * float(terms.sel(term=name)), abs=2e-3 * n)
    assert np.isfinite(trace).all()


def test_log_evidence__without_a_noise_variance_that_is_drawn(store):
    labels, parameters = fitted(store, "fixed", sample_noise_variance="none")
    n = n_modelled(labels)
    expected = of_labels(labels, CONFIG.kappa) + of_latent(labels)
    expected += of_the_rest(store, labels, parameters) - stats.invgamma(5, scale=5).logpdf(1.0)
    found = parameters["trace_log_evidence"].values[-1]
    assert found == pytest.approx(expected / n, abs=2e-3)


def test_log_evidence__of_the_ar_stage_is_that_of_pose_and_labels(store):
    labels, parameters = fitted(store, "ar", stage="ar", sweeps=4)
    expected = of_labels(labels, CONFIG.kappa) + of_latent(labels)
    found = parameters["trace_log_evidence"].values[-1]
    assert found == pytest.approx(expected / n_modelled(labels), abs=2e-3)
