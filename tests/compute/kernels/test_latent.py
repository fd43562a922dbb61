"""Latent poses of segments against the dense Gaussian of all their frames."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from kpms_zarr.compute.kernels.hmm import hmm_tables
from kpms_zarr.compute.kernels.latent import (
    Elimination,
    eliminate_forward,
    factor_table,
    substitute_backward,
)
from kpms_zarr.compute.kernels.pose import PoseMap, latent_evidence

N_STATES, N_FRAMES, K = 3, 6, 4
INITIAL = 10.0


class Lane(NamedTuple):
    """A segment: whether it begins its session, its frames, and how many frames follow."""

    is_start: bool
    length: int
    n_right: int


class Problem(NamedTuple):
    """Model and tile; keypoints with NaN where missing."""

    weight: np.ndarray  # (state, latent, lag * latent)
    bias: np.ndarray
    covariance: np.ndarray
    pose: PoseMap
    y: np.ndarray  # (keypoint, space, frame + lag, segment)
    precision: np.ndarray  # (keypoint, frame + lag, segment)
    h: np.ndarray  # (frame + lag, segment)
    v: np.ndarray  # (space, frame + lag, segment)
    x: np.ndarray  # (frame + 2 lag, latent, segment)
    z: np.ndarray  # (frame + lag, segment)
    is_drawn: np.ndarray  # (frame + lag, segment)
    lanes: tuple[Lane, ...]

    @property
    def lags(self) -> int:
        return self.x.shape[0] - self.y.shape[2]


def lanes_of(lags: int) -> tuple[Lane, ...]:
    n = N_FRAMES
    return (
        Lane(False, n, lags),
        Lane(True, n, lags),
        Lane(False, n, 0),
        Lane(True, n, 0),
        Lane(False, n - 2, lags - 1),
        Lane(True, n - 3, 1),
        Lane(False, 1, lags),
        Lane(True, 1, 0),
        Lane(False, 2, 1),
        Lane(False, 0, 0),
    )


def turn(n_space: int, angle: float) -> np.ndarray:
    matrix = np.eye(n_space)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def problem(m: int, lags: int, n_space: int, lanes: tuple[Lane, ...] = ()) -> Problem:
    """Random model, random tile; garbage nowhere but in frames that do not exist."""
    rng = np.random.default_rng([m, lags, n_space])
    lanes = lanes or lanes_of(lags)
    n, n_rows = len(lanes), lags + N_FRAMES
    root = rng.normal(size=(N_STATES, m, m))
    is_start, length, n_right = (np.array(column) for column in zip(*lanes, strict=True))
    row = np.arange(n_rows)[:, None]
    is_drawn = ((row >= lags) | is_start) & (row < lags + length) & (length > 0)
    z = rng.integers(N_STATES, size=(n_rows, n))
    z[row >= length + n_right] = N_STATES
    x = rng.normal(size=(n_rows + lags, m, n))
    exists = np.arange(n_rows + lags)[:, None] < lags + length + n_right
    x = np.where((exists & (length > 0))[:, None], x, 0)
    y = rng.normal(size=(K, n_space, n_rows, n)) * 2
    y[(rng.random((K, n_rows, n)) < 1 / 3)[:, None].repeat(n_space, 1)] = np.nan
    y[:, :, lags + 1] = np.nan
    return Problem(
        rng.normal(size=(N_STATES, m, m * lags)) * 0.7 / np.sqrt(lags * m),
        rng.normal(size=(N_STATES, m)),
        root @ root.transpose(0, 2, 1) / m + 0.2 * np.eye(m),
        PoseMap(rng.normal(size=(K, n_space, m)), rng.normal(size=(K, n_space))),
        y,
        rng.gamma(1.0, size=(K, n_rows, n)),
        rng.uniform(-4, 4, size=(n_rows, n)),
        rng.normal(size=(n_space, n_rows, n)),
        x,
        z.astype(np.int32),
        is_drawn,
        lanes,
    )


@jax.jit
def forward(tables, pose, weight, offset, h, z, x, is_drawn) -> Elimination:
    precision, information = latent_evidence(pose, weight, offset, h)
    return eliminate_forward(factor_table(tables), z, precision, information, x, is_drawn, INITIAL)


backward = jax.jit(substitute_backward)


def eliminate(p: Problem, dtype=np.float64) -> Elimination:
    tables = hmm_tables(p.weight, p.bias, p.covariance, np.full((N_STATES, N_STATES), 1 / N_STATES))
    is_missing = np.isnan(p.y).any(1) | ~p.is_drawn
    floats = (
        tables,
        p.pose,
        np.where(is_missing, 0, p.precision),
        np.where(is_missing[:, None], 0, p.y) - p.v,
        p.h,
    )
    floats = jax.tree.map(lambda a: np.asarray(a, dtype), floats)
    with jax.enable_x64(dtype is np.float64):
        return forward(*floats, p.z, p.x.astype(dtype), p.is_drawn)


def repeat(elimination: Elimination, p: Problem, lane: int, n: int) -> tuple:
    """One lane many times: elimination, x, is_drawn."""

    def times(a):
        return np.repeat(np.asarray(a)[..., lane, None], n, -1)

    return jax.tree.map(times, elimination), times(p.x), times(p.is_drawn)


def draw(elimination, x, is_drawn, noise, dtype=np.float64) -> np.ndarray:
    with jax.enable_x64(dtype is np.float64):
        found = backward(elimination, x.astype(dtype), is_drawn, noise.astype(dtype))
        assert found.dtype == dtype
        return np.asarray(found, np.float64)


def dense(p: Problem, lane: int, *, n_right: int | None = None) -> tuple[np.ndarray, ...]:
    """Indices of what is drawn among (frame, latent), its precision and mean, by definition."""
    rows, m = p.x.shape[:2]
    lags = p.lags
    joint, information = np.zeros((rows * m, rows * m)), np.zeros(rows * m)
    last = p.lanes[lane].length + (p.lanes[lane].n_right if n_right is None else n_right)
    for t in range(last):
        i = p.z[t, lane]
        inverse = np.linalg.inv(p.covariance[i])
        b = np.hstack([-p.weight[i], np.eye(m)])
        window = slice(t * m, (t + lags + 1) * m)
        joint[window, window] += b.T @ inverse @ b
        information[window] += b.T @ inverse @ p.bias[i]
    for t in np.flatnonzero(p.is_drawn[:, lane]):
        own = slice(t * m, (t + 1) * m)
        if t < lags:
            joint[own, own] += np.eye(m) / INITIAL
        for k in range(len(p.y)):
            if np.isfinite(p.y[k, :, t, lane]).all():
                h = turn(p.y.shape[1], p.h[t, lane])
                loading = h @ p.pose.loading[k]
                seen = p.y[k, :, t, lane] - p.v[:, t, lane] - h @ p.pose.mean[k]
                joint[own, own] += p.precision[k, t, lane] * loading.T @ loading
                information[own] += p.precision[k, t, lane] * loading.T @ seen
    drawn = np.zeros((rows, m), bool)
    drawn[: len(p.is_drawn)] = p.is_drawn[:, lane, None]
    index = np.flatnonzero(drawn)
    known = np.flatnonzero(~drawn)
    precision = joint[np.ix_(index, index)]
    rest = information[index] - joint[np.ix_(index, known)] @ p.x[..., lane].ravel()[known]
    return index, precision, np.linalg.solve(precision, rest)


def log_joint(p: Problem, lane: int, x: np.ndarray) -> float:
    """Of the generative model, with its normal densities one by one; x is (frame, latent)."""
    total = 0.0
    m, lags = x.shape[1], p.lags
    for t in range(p.lanes[lane].length + p.lanes[lane].n_right):
        i = p.z[t, lane]
        mean = p.weight[i] @ x[t : t + lags].ravel() + p.bias[i]
        total += multivariate_normal(mean, p.covariance[i]).logpdf(x[t + lags])
    for t in np.flatnonzero(p.is_drawn[:, lane]):
        if t < lags:
            total += multivariate_normal(np.zeros(m), INITIAL * np.eye(m)).logpdf(x[t])
        for k in range(len(p.y)):
            if np.isfinite(p.y[k, :, t, lane]).all():
                pose = p.pose.loading[k] @ x[t] + p.pose.mean[k]
                centre = turn(p.y.shape[1], p.h[t, lane]) @ pose + p.v[:, t, lane]
                law = multivariate_normal(centre, 1 / p.precision[k, t, lane])
                total += law.logpdf(p.y[k, :, t, lane])
    return total


@pytest.mark.parametrize("n_space", [2, 3])
def test_dense__oracle_is_the_log_density_of_the_model(n_space):
    p = problem(2, 2, n_space)
    rng = np.random.default_rng(0)
    for lane in (1, 4, 5):
        index, precision, mean = dense(p, lane)
        values, logs = [], []
        for _ in range(3):
            x = p.x[..., lane].copy()
            drawn = rng.normal(size=len(index)) * 2
            x.reshape(-1)[index] = drawn
            values.append(-0.5 * (drawn - mean) @ precision @ (drawn - mean))
            logs.append(log_joint(p, lane, x))
        np.testing.assert_allclose(np.diff(values), np.diff(logs), rtol=1e-9)


SHAPES = [
    *[(1, 1, 2), (1, 3, 3), (1, 5, 2)],
    *[(2, 1, 3), (2, 2, 2), (2, 3, 3)],
    *[(4, 1, 2), (4, 3, 2), (4, 2, 3)],
    *[(7, 2, 3), (7, 5, 2)],
]


@pytest.mark.parametrize(("m", "lags", "n_space"), SHAPES)
def test_latent__mean_and_covariance_are_those_of_the_dense_gaussian(m, lags, n_space):
    p = problem(m, lags, n_space)
    elimination = eliminate(p)
    n_rows = lags + N_FRAMES
    size = m * n_rows
    # The draw is linear in the noise: without noise, and one unit of each number.
    noise = np.zeros((m, n_rows, 1 + size))
    noise[..., 1:] = np.eye(size).reshape(m, n_rows, size)
    for lane, (_, length, n_right) in enumerate(p.lanes):
        found = draw(*repeat(elimination, p, lane, 1 + size), noise)
        flat = found.reshape(size, -1)
        index, precision, mean = dense(p, lane)
        known = np.delete(np.arange(size), index)
        values = p.x[:n_rows, :, lane].ravel()[known]
        np.testing.assert_array_equal(flat[known], values[:, None].repeat(1 + size, 1))
        if length == 0:
            assert len(index) == 0
            continue
        np.testing.assert_allclose(flat[index, 0], mean, rtol=1e-9, atol=1e-9)
        root = flat[index, 1:] - flat[index, :1]
        covariance = np.linalg.inv(precision)
        np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-8, atol=1e-10)
        if n_right:
            # Wrong twin: the frames on the right forgotten.
            _, twin_precision, twin_mean = dense(p, lane, n_right=0)
            assert np.abs(flat[index, 0] - twin_mean).max() > 1e-3
            twin = np.linalg.inv(twin_precision)
            assert np.abs(root @ root.T - twin).max() > 1e-4


def test_latent__does_not_depend_on_frames_that_do_not_exist_or_on_current_values():
    p = problem(2, 3, 3)
    noise = np.random.default_rng(0).normal(size=(2, 3 + N_FRAMES, len(p.lanes)))
    found = draw(eliminate(p), p.x, p.is_drawn, noise)
    x = p.x.copy()
    for lane, (is_start, length, n_right) in enumerate(p.lanes):
        x[3 + length + n_right :, :, lane] = 1e3
        if length:
            x[0 if is_start else 3 : 3 + length, :, lane] = -1e3
    y = np.where(p.is_drawn, p.y, 1e3)
    q = p._replace(x=x, y=y, h=p.h + ~p.is_drawn)
    again = draw(eliminate(q), q.x, q.is_drawn, noise)
    drawn = p.is_drawn[:, None].repeat(2, 1)
    np.testing.assert_array_equal(again[drawn], found[drawn])


def test_latent__lanes_do_not_depend_on_each_other():
    p = problem(2, 3, 3)
    noise = np.random.default_rng(0).normal(size=(2, 3 + N_FRAMES, len(p.lanes)))
    found = draw(eliminate(p), p.x, p.is_drawn, noise)
    order = np.arange(len(p.lanes))[::-1]
    turned = {
        name: getattr(p, name)[..., order]
        for name in ("y", "precision", "h", "v", "x", "z", "is_drawn")
    }
    q = p._replace(**turned, lanes=tuple(p.lanes[i] for i in order))
    again = draw(eliminate(q), q.x, q.is_drawn, noise[..., order])
    np.testing.assert_array_equal(again[..., order], found)


def smooth(innovation: float, seen: float, n_frames: int = 40) -> Problem:
    """One whole session of a smooth pose, observed now and then; every draw the same precision."""
    m, lags, n_space = 4, 3, 2
    rng = np.random.default_rng(1)
    n_rows = lags + n_frames
    eye = np.eye(m)
    # x_t = x_{t-1} + 0.9 (x_{t-1} - x_{t-2}), a little different in every state.
    weight = np.hstack([0 * eye, -0.9 * eye, 1.9 * eye])
    weight = weight + rng.normal(size=(N_STATES, *weight.shape)) * 0.01
    y = rng.normal(size=(K, n_space, n_rows, 1))
    y[:, :, rng.random(n_rows) < 0.3] = np.nan
    z = rng.integers(N_STATES, size=(n_rows, 1))
    z[n_frames:] = N_STATES
    return Problem(
        weight,
        rng.normal(size=(N_STATES, m)) * innovation**0.5,
        innovation * np.broadcast_to(eye, (N_STATES, m, m)),
        PoseMap(rng.normal(size=(K, n_space, m)), rng.normal(size=(K, n_space))),
        y,
        seen * rng.gamma(2.0, size=(K, n_rows, 1)),
        rng.uniform(-4, 4, size=(n_rows, 1)),
        np.zeros((n_space, n_rows, 1)),
        np.zeros((n_rows + lags, m, 1)),
        z.astype(np.int32),
        np.ones((n_rows, 1), bool),
        (Lane(True, n_frames, 0),),
    )


CONDITIONED = [
    (1e-3, 0.1, 3e4),
    (1e-4, 0.1, 3e5),
    (1e-5, 0.1, 3e6),
    (1e-6, 0.1, 3e7),
    (1e-7, 1.0, 3e7),
]


@pytest.mark.parametrize(("innovation", "seen", "condition"), CONDITIONED)
def test_latent__float32_draws_have_z_scores_of_one(innovation, seen, condition):
    p = smooth(innovation, seen)
    n = 200
    index, precision, mean = dense(p, 0)
    assert condition / 1.5 < np.linalg.cond(precision) < condition * 1.5
    noise = np.random.default_rng(2).normal(size=(4, len(p.is_drawn), n))
    scores = {}
    for dtype in (np.float64, np.float32):
        elimination = eliminate(p, dtype)
        kept = np.asarray(elimination.relative_pivot).min()
        assert kept > 2e-5
        found = draw(*repeat(elimination, p, 0, n), noise, dtype).reshape(-1, n)[index]
        assert np.isfinite(found).all()
        scores[dtype] = np.linalg.cholesky(precision).T @ (found - mean[:, None])
    assert np.sqrt((scores[np.float64] ** 2).mean()) == pytest.approx(1, abs=0.02)
    assert 0.9 < np.sqrt((scores[np.float32] ** 2).mean()) < 1.15
    # In every direction of the joint density: 200 draws, so a standard error of 5 %. (Where less
    # than 1e-4 is left, the mean of the softest directions is off by a standard deviation.)
    vectors = np.linalg.eigh(precision)[1]
    turned = vectors.T @ np.linalg.solve(np.linalg.cholesky(precision).T, scores[np.float32])
    rms = np.sqrt((turned**2).mean(1) * np.linalg.eigvalsh(precision))
    assert rms.min() > 0.7
    assert rms.max() < (1.35 if kept > 1e-4 else 2)
    # Wrong twin: innovations of twice the variance.
    twin = dense(p._replace(covariance=2 * p.covariance), 0)
    wrong = np.linalg.cholesky(twin[1]).T @ (found - twin[2][:, None])
    assert not 0.9 < np.sqrt((wrong**2).mean()) < 1.15


def scalar(innovation: float, seen: float, n_frames: int = 6) -> Problem:
    """One latent dimension, one lag, one state that repeats the pose, one whole session."""
    n_rows = 1 + n_frames
    z = np.zeros((n_rows, 1), np.int32)
    z[n_frames:] = N_STATES
    return Problem(
        np.ones((N_STATES, 1, 1)),
        np.zeros((N_STATES, 1)),
        np.full((N_STATES, 1, 1), innovation),
        PoseMap(np.array([[[1.0], [0.0]]]), np.zeros((1, 2))),
        np.zeros((1, 2, n_rows, 1)),
        np.full((1, n_rows, 1), seen),
        np.zeros((n_rows, 1)),
        np.zeros((2, n_rows, 1)),
        np.zeros((n_rows + 1, 1, 1)),
        z,
        np.ones((n_rows, 1), bool),
        (Lane(True, n_frames, 0),),
    )


@pytest.mark.parametrize(
    ("innovation", "seen"), [(1e-6, 1e-9), (1e-2, 1e-9), (1.0, 1.0), (1e-3, 30.0), (1e3, 30.0)]
)
def test_relative_pivot__is_the_share_that_the_elimination_leaves(innovation, seen):
    p = scalar(innovation, seen)
    kept = np.asarray(eliminate(p).relative_pivot)[:, 0]
    carried = 1 / INITIAL + seen
    for t in range(N_FRAMES):
        lost = innovation**-2 / (carried + 1 / innovation)
        after = seen + 1 / innovation
        assert kept[t] == pytest.approx((after - lost) / after, rel=1e-7)
        carried = after - lost


def test_relative_pivot__is_small_when_a_precision_cancels_and_near_1_otherwise():
    small = np.asarray(eliminate(scalar(1e-6, 1e-9)).relative_pivot)[:N_FRAMES]
    assert (small < 1e-6).all()
    # Most precision comes from the keypoints of the frame itself.
    large = np.asarray(eliminate(scalar(1e3, 30.0)).relative_pivot)
    assert (large > 0.999).all()


def test_relative_pivot__flags_what_float32_cannot_do():
    """Where a draw in float32 has wrong variances or none, a share is below 1e-3."""
    p = smooth(1e-8, 0.1)
    index, precision, mean = dense(p, 0)
    assert np.linalg.cond(precision) > 1e9
    for dtype, smallest in ((np.float32, 1e-3), (np.float64, 1e-13)):
        kept = np.asarray(eliminate(p, dtype).relative_pivot)
        assert bool((kept > smallest).all()) == (dtype is np.float64)
    noise = np.random.default_rng(2).normal(size=(4, len(p.is_drawn), 200))
    found = draw(*repeat(eliminate(p), p, 0, 200), noise).reshape(-1, 200)[index]
    score = np.linalg.cholesky(precision).T @ (found - mean[:, None])
    assert np.sqrt((score**2).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seen", [1e4, 1e5])
def test_relative_pivot__flags_latent_dims_of_a_frame_that_the_keypoints_do_not_tell_apart(seen):
    """The subtractions inside a frame cancel, too: J has rank 1, the dynamics are weak."""
    p = scalar(100.0, seen)
    eye = np.broadcast_to(np.eye(2), (N_STATES, 2, 2))
    p = p._replace(
        weight=0 * eye,
        bias=np.zeros((N_STATES, 2)),
        covariance=100.0 * eye,
        pose=PoseMap(np.array([[[1.0, 1.0], [0.0, 0.0]]]), np.zeros((1, 2))),
        x=np.zeros((p.x.shape[0], 2, 1)),
    )
    variance = {}
    for dtype in (np.float32, np.float64):
        elimination = eliminate(p, dtype)
        size = 2 * len(p.is_drawn)
        noise = np.eye(size).reshape(2, -1, size)
        root = draw(*repeat(elimination, p, 0, size), noise, dtype)
        variance[dtype] = ((root[:, 0] - root[:, 1]) ** 2).sum(1) / 2
    np.testing.assert_allclose(variance[np.float64], [10.0] + [100.0] * N_FRAMES, rtol=1e-5)
    is_right = np.allclose(variance[np.float32], variance[np.float64], rtol=0.01)
    kept = np.asarray(eliminate(p, np.float32).relative_pivot)
    assert is_right or not (kept > 1e-3).all()
