"""Centroids of segments against the dense Gaussian of their random walk."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from kpms_zarr.compute.kernels import centroid
from kpms_zarr.compute.kernels.centroid import centroid_evidence

N_ROWS = 9
STEP, INITIAL = 0.5, 1e4

draw_centroid = jax.jit(centroid.draw_centroid)


class Lane(NamedTuple):
    """A segment in a tile: rows before ``first`` are known, rows from ``end`` on are after it."""

    first: int
    end: int
    has_right: bool


LANES = (
    Lane(0, 9, True),
    Lane(0, 9, False),
    Lane(0, 1, False),
    Lane(0, 5, True),
    Lane(2, 9, True),
    Lane(2, 9, False),
    Lane(3, 6, True),
    Lane(1, 2, False),
    Lane(8, 9, True),
)


class Tile(NamedTuple):
    """Arguments of the kernel but for the noise."""

    precision: np.ndarray
    mean: np.ndarray
    v: np.ndarray
    is_drawn: np.ndarray
    has_next: np.ndarray


def tile_of(n_space: int, seed: int = 0) -> Tile:
    """Random observations, a third missing, with runs of missing frames."""
    rng = np.random.default_rng(seed)
    n = len(LANES)
    row = np.arange(N_ROWS)[:, None]
    first, end, has_right = (np.array(column) for column in zip(*LANES, strict=True))
    precision = rng.gamma(0.7, 2.0, size=(N_ROWS, n)) * (rng.random((N_ROWS, n)) > 1 / 3)
    precision[3:6, 4] = 0
    precision[:3, 0] = 0
    return Tile(
        precision,
        rng.normal(size=(n_space, N_ROWS, n)) * 30 * (precision > 0),
        rng.normal(size=(N_ROWS + 1, n_space, n)) * 30,
        (row >= first) & (row < end),
        (row + 1 < end) | has_right,
    )


def draw(
    tile: Tile, noise: np.ndarray, dtype=np.float64, *, step: float = STEP, initial: float = INITIAL
) -> np.ndarray:
    """(frame, space, segment)"""
    with jax.enable_x64(dtype is np.float64):
        floats = [np.asarray(a, dtype) for a in (*tile[:3], noise)]
        found = draw_centroid(
            *floats[:3], tile.is_drawn, tile.has_next, floats[3],
            step_variance=dtype(step), initial_variance=initial,
        )  # fmt: skip
        assert found.dtype == dtype
        return np.asarray(found, np.float64)


def repeat_lane(tile: Tile, lane: int, n: int) -> Tile:
    return Tile(*(np.repeat(a[..., lane, None], n, -1) for a in tile))


def jacobian(tile: Tile, lane: int, dtype=np.float64) -> np.ndarray:
    """d draw / d noise of the first space dim: (frame, frame). The draw is linear in the noise."""
    n_space, n_rows, _ = tile.mean.shape
    noise = np.zeros((n_space, n_rows, n_rows + 1))
    noise[0, :, :n_rows] = np.eye(n_rows)
    found = draw(repeat_lane(tile, lane, n_rows + 1), noise, dtype)
    np.testing.assert_array_equal(found[:, 1:, :], found[:, 1:, -1:].repeat(n_rows + 1, -1))
    return found[:, 0, :n_rows] - found[:, 0, n_rows:]


def dense(tile: Tile, lane: int, *, with_right: bool = True) -> tuple[np.ndarray, ...]:
    """Rows drawn, conditional precision (frame, frame) and mean (frame, space), from the model."""
    first, end, has_right = LANES[lane]
    n = N_ROWS + 1
    v = tile.v[..., lane]
    joint, information = np.zeros((n, n)), np.zeros((n, v.shape[1]))
    if first == 0:
        joint[0, 0] += 1 / INITIAL
    last = end if has_right and with_right else end - 1
    for t in range(1, last + 1):
        joint[np.ix_([t - 1, t], [t - 1, t])] += np.array([[1, -1], [-1, 1]]) / STEP
    for t in range(first, end):
        joint[t, t] += tile.precision[t, lane]
        information[t] += tile.precision[t, lane] * tile.mean[:, t, lane]
    rows = np.arange(first, end)
    known = np.setdiff1d(np.arange(n), rows)
    precision = joint[np.ix_(rows, rows)]
    rest = information[rows] - joint[np.ix_(rows, known)] @ v[known]
    return rows, precision, np.linalg.solve(precision, rest)


@pytest.mark.parametrize("n_space", [2, 3])
def test_centroid__without_noise_is_the_dense_mean(n_space):
    tile = tile_of(n_space)
    found = draw(tile, np.zeros_like(tile.mean))
    for lane in range(len(LANES)):
        rows, _, mean = dense(tile, lane)
        np.testing.assert_allclose(found[rows, :, lane], mean, rtol=1e-9, atol=1e-9)
        # Wrong twin: the frame on the right forgotten.
        if LANES[lane].has_right:
            twin = dense(tile, lane, with_right=False)[2]
            assert np.abs(found[rows, :, lane] - twin).max() > 1


def test_centroid__covariance_is_the_inverse_of_the_dense_precision():
    tile = tile_of(2)
    for lane in range(len(LANES)):
        rows, precision, _ = dense(tile, lane)
        root = jacobian(tile, lane)
        np.testing.assert_array_equal(np.delete(root, rows, 0), 0)
        covariance = np.linalg.inv(precision)
        np.testing.assert_allclose((root @ root.T)[np.ix_(rows, rows)], covariance, rtol=1e-8)
        if LANES[lane].has_right:
            twin = np.linalg.inv(dense(tile, lane, with_right=False)[1])
            assert np.abs(twin / covariance - 1).max() > 0.1


def test_centroid__known_frames_stay():
    tile = tile_of(3)
    noise = np.random.default_rng(1).normal(size=tile.mean.shape)
    found = draw(tile, noise)
    known = ~tile.is_drawn[:, None].repeat(3, 1)
    np.testing.assert_array_equal(found[known], tile.v[:-1][known])
    assert (np.abs(found - tile.v[:-1])[~known] > 0).all()


def test_centroid__does_not_depend_on_padding_or_on_other_lanes():
    tile = tile_of(2)
    noise = np.random.default_rng(1).normal(size=tile.mean.shape)
    found = draw(tile, noise)
    rng = np.random.default_rng(2)
    v, mean, precision = tile.v.copy(), tile.mean.copy(), tile.precision.copy()
    for lane, (first, end, has_right) in enumerate(LANES):
        beyond = slice(end + has_right, None)
        v[beyond, :, lane] = rng.normal(size=v[beyond, :, lane].shape) * 1e3
        outside = [t for t in range(N_ROWS) if not first <= t < end]
        mean[:, outside, lane] = 1e3
        precision[outside, lane] = 7.0
        v[first:end, :, lane] = -1e3
    again = draw(tile._replace(v=v, mean=mean, precision=precision), noise)
    drawn = tile.is_drawn[:, None].repeat(2, 1)
    np.testing.assert_array_equal(again[drawn], found[drawn])


def test_evidence__equals_the_loop_and_is_the_log_likelihood():
    rng = np.random.default_rng(3)
    weight = rng.gamma(1.0, size=(4, 5, 2)) * (rng.random((4, 5, 2)) > 0.4)
    weight[:, 0] = 0
    residual = rng.normal(size=(4, 3, 5, 2))
    v = rng.normal(size=(2, 3, 5, 2))
    with jax.enable_x64(True):
        precision, mean = map(np.asarray, centroid_evidence(weight, residual))
    assert (precision[0] == 0).all()
    assert (mean[:, 0] == 0).all()

    def log_likelihood(v: np.ndarray) -> np.ndarray:
        total = np.zeros((5, 2))
        for k, t, s in np.ndindex(weight.shape):
            e = residual[k, :, t, s] - v[:, t, s]
            total[t, s] -= 0.5 * weight[k, t, s] * e @ e
        return total

    wanted = log_likelihood(v[0]) - log_likelihood(v[1])
    found = [-0.5 * precision * ((v[i] - mean) ** 2).sum(0) for i in range(2)]
    np.testing.assert_allclose(found[0] - found[1], wanted, rtol=1e-9, atol=1e-12)


def long_tile(n_rows: int, n: int = 1, *, gap: slice, scale: float = 3.0) -> Tile:
    """One session of a random walk, not observed in a gap."""
    rng = np.random.default_rng(5)
    walk = np.cumsum(rng.normal(size=(2, n_rows, n)), 1) * STEP**0.5 + 400
    precision = np.full((n_rows, n), scale)
    precision[gap] = 0
    drawn = np.ones((n_rows, n), bool)
    has_next = np.arange(n_rows)[:, None] + 1 < np.full(n, n_rows)
    v = np.zeros((n_rows + 1, 2, n))
    mean = walk + rng.normal(size=walk.shape) * scale**-0.5
    return Tile(precision, mean * (precision > 0), v, drawn, has_next)


def covariance_of_gap(tile: Tile) -> np.ndarray:
    """Dense covariance of a whole session."""
    n = len(tile.precision)
    joint = np.diag(tile.precision[:, 0])
    joint[0, 0] += 1 / INITIAL
    for t, u in itertools.pairwise(range(n)):
        joint[t, t] += 1 / STEP
        joint[u, u] += 1 / STEP
        joint[t, u] = joint[u, t] = -1 / STEP
    return np.linalg.inv(joint)


@pytest.mark.parametrize("gap", [slice(10, 1010), slice(1000, None)])
def test_centroid__of_a_long_gap_is_right_in_float32(gap):
    """In the middle and at the end of a session."""
    tile = long_tile(1020, gap=gap)
    root = jacobian(tile._replace(mean=0 * tile.mean), 0, np.float32)
    variance = np.diag(covariance_of_gap(tile))
    np.testing.assert_allclose((root**2).sum(1), variance, rtol=1e-3)


def test_centroid__mean_of_a_gap_of_2000_frames_is_right_in_float32():
    tile = long_tile(2030, gap=slice(10, 2010))
    noise = np.random.default_rng(6).normal(size=tile.mean.shape)
    for numbers in (np.zeros_like(noise), noise):
        exact, found = draw(tile, numbers), draw(tile, numbers, np.float32)
        # Standard deviations are between 0.5 and 22, so that this is 10^-3 of the widest.
        assert np.abs(found - exact).max() < 0.02


@pytest.mark.parametrize(("step", "initial"), [(0.5, 1e6), (0.01, 1e6), (1e-4, 1e4)])
def test_centroid__of_a_session_that_begins_unobserved_is_right_in_float32(step, initial):
    """Steps are small beside the variance of the prior; they must not be lost."""
    n_unseen = 30
    tile = long_tile(n_unseen + 5, gap=slice(0, n_unseen), scale=1 / step)
    tile = tile._replace(mean=tile.mean * (step / STEP) ** 0.5)
    noise = np.random.default_rng(7).normal(size=tile.mean.shape)
    exact, found = (
        draw(tile, noise, dtype, step=step, initial=initial) for dtype in (np.float64, np.float32)
    )
    steps = np.diff(exact, axis=0)[:n_unseen], np.diff(found, axis=0)[:n_unseen]
    assert (np.abs(steps[0]) > 0.5 * step**0.5).any()
    # Numbers of a few hundred in float32 are 3e-5 apart.
    assert np.abs(steps[1] - steps[0]).max() < 5e-3 * step**0.5 + 2e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centroid__is_finite_for_any_precision(dtype):
    rng = np.random.default_rng(8)
    n = 40
    tile = long_tile(200, n, gap=slice(0, 0))
    precision = 10 ** rng.uniform(-8, 4, size=(200, n)) * (rng.random((200, n)) > 0.2)
    tile = tile._replace(precision=precision, mean=tile.mean * (precision > 0))
    noise = rng.normal(size=tile.mean.shape)
    found, exact = draw(tile, noise, dtype), draw(tile, noise)
    assert np.isfinite(found).all()
    assert np.abs(found - exact).max() < 0.05


def test_centroid__first_frame_has_the_prior_variance_whatever_the_step():
    """Also where a step is wider than the prior."""
    tile = long_tile(3, gap=slice(0, None))
    for step in (0.5, 2 * INITIAL):
        noise = np.zeros((2, 3, 1))
        noise[0, 0] = 1.0
        only_first = tile._replace(has_next=np.zeros((3, 1), bool))
        assert draw(only_first, noise, step=step)[0, 0, 0] ** 2 == pytest.approx(INITIAL)
