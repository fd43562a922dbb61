"""Headings: the von Mises law at any concentration, and the evidence against the likelihood."""

import jax
import numpy as np
import pytest
from scipy import stats

from kpms_zarr.compute.kernels import heading, rng
from kpms_zarr.compute.kernels.heading import draw_heading, heading_evidence

CONCENTRATIONS = (0.0, 0.1, 0.34, 0.36, 1.0, 3.0, 30.0, 1e3, 1e5)
N = 8000

compiled = jax.jit(draw_heading)
words_of = jax.jit(rng.frame_words, static_argnums=(2, 3))


def keys_of(n_segments: int):
    words = np.array([rng.session_words(f"session {i}") for i in range(n_segments)], np.uint32)
    return jax.jit(rng.stream_keys)(np.uint32([3, 4]), 5, rng.HEADING, words)


def wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def draws(dtype, mode: np.ndarray, concentration: np.ndarray, n_frames: int = N) -> np.ndarray:
    """(frame, segment), one mode and one concentration a segment."""
    shape = (n_frames, len(mode))
    with jax.enable_x64(dtype is np.float64):
        a = np.broadcast_to(concentration * np.cos(mode), shape).astype(dtype)
        b = np.broadcast_to(concentration * np.sin(mode), shape).astype(dtype)
        first = np.zeros(len(mode), np.int32)
        found = compiled(a, b, keys_of(len(mode)), first, np.ones(shape, bool))
        assert found.dtype == dtype
        return np.asarray(found, np.float64)


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def sample(request) -> dict[float, np.ndarray]:
    """Headings less their mode by concentration; modes all around."""
    mode = np.linspace(-3.1, 3.1, len(CONCENTRATIONS))
    found = draws(request.param, mode, np.array(CONCENTRATIONS))
    assert np.abs(found).max() <= np.pi + 1e-6
    # Without evidence the mode is of no matter: a = b = 0.
    return {c: wrap(found[:, i] - mode[i]) for i, c in enumerate(CONCENTRATIONS)}


def p_value(values: np.ndarray, concentration: float) -> float:
    if concentration == 0:
        return stats.kstest(values, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue
    return stats.kstest(values, stats.vonmises(concentration).cdf).pvalue


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_heading__follows_the_von_mises_law(sample, concentration):
    assert p_value(sample[concentration], concentration) > 1e-3


@pytest.mark.parametrize("concentration", CONCENTRATIONS[2:])
def test_heading__of_wrong_twins_is_rejected(sample, concentration):
    assert p_value(sample[concentration], 2 * concentration) < 1e-3
    assert p_value(sample[concentration] + concentration**-0.5 / 5, concentration) < 1e-3
    if 1 <= concentration <= 3:
        # A normal density around the mode.
        twin = wrap(np.random.default_rng(0).normal(size=N) * concentration**-0.5)
        assert p_value(twin, concentration) < 1e-3


def test_heading__draws_of_frames_and_segments_are_independent():
    found = draws(np.float32, np.zeros(4), np.array([1.0, 1.0, 30.0, 0.1]))
    turned = np.exp(1j * found)
    turned = turned - turned.mean(0)

    def excess(a: np.ndarray, b: np.ndarray) -> float:
        scale = np.sqrt((np.abs(a) ** 2).mean() * (np.abs(b) ** 2).mean())
        return np.abs((a * b.conj()).mean()) / scale * np.sqrt(len(a))

    for i in range(4):
        assert excess(turned[1:, i], turned[:-1, i]) < 4
        for j in range(i):
            assert excess(turned[:, i], turned[:, j]) < 4
    # Wrong twin: the draws of one segment compared with themselves.
    assert excess(turned[:, 0], turned[:, 0]) > 50


def test_heading__depends_on_the_frame_of_the_session_only():
    n = 60
    rng_ = np.random.default_rng(1)
    a, b = rng_.normal(size=(2, n, 1)).astype(np.float32) * 3
    keys, drawn = keys_of(1), np.ones((40, 1), bool)
    begins = {begin: (a[begin:], b[begin:]) for begin in (0, 20)}
    found = {
        begin: np.asarray(compiled(p[:40], q[:40], keys, np.int32([begin]), drawn))
        for begin, (p, q) in begins.items()
    }
    np.testing.assert_allclose(found[20][:20], found[0][20:], rtol=1e-5, atol=1e-6)


def test_heading__is_nan_where_the_concentration_is_not_finite():
    values = np.float32([[np.nan, np.inf, -np.inf, 1.0, 3e38]])
    a, b = np.repeat(values, 3, 0), np.zeros((3, 5), np.float32)
    b[1] = a[1]
    found = np.asarray(compiled(a, b, keys_of(5), np.zeros(5, np.int32), np.ones((3, 5), bool)))
    assert np.isnan(found[:, :3]).all()
    assert np.isfinite(found[[0, 2], 3:]).all()
    # hypot(3e38, 3e38) is beyond float32.
    assert np.isfinite(found[1, 3])


def rounds(monkeypatch, a: np.ndarray, is_drawn: np.ndarray) -> tuple[int, np.ndarray]:
    """How often proposals are made, and the result: without compilation."""
    n_segments = a.shape[1]
    keys, calls = keys_of(n_segments), []

    def counted(*args, first_number: int) -> jax.Array:
        calls.append(first_number)
        with jax.disable_jit(False):
            return words_of(*args, first_number=first_number)

    with monkeypatch.context() as patch, jax.disable_jit():
        patch.setattr(heading.rng, "frame_words", counted)
        first = np.zeros(n_segments, np.int32)
        found = draw_heading(jax.numpy.asarray(a), jax.numpy.zeros(a.shape), keys, first, is_drawn)
    # Every round has numbers of its own.
    assert [int(number) for number in calls] == [4 * i for i in range(len(calls))]
    return len(calls), np.asarray(found)


def test_heading__does_not_wait_for_rows_that_do_not_matter(monkeypatch):
    a = np.full((40, 5), 2.0, np.float32)
    everywhere, of_all = rounds(monkeypatch, a, np.ones(a.shape, bool))
    assert 1 < everywhere < 20
    nowhere, of_none = rounds(monkeypatch, a, np.zeros(a.shape, bool))
    assert nowhere == 0
    np.testing.assert_array_equal(of_none, 0)
    bad = a.copy()
    bad[::2] = np.nan
    bad[1::4] = np.inf
    n, found = rounds(monkeypatch, bad, np.ones(a.shape, bool))
    assert n <= everywhere
    np.testing.assert_array_equal(found[3::4], of_all[3::4])
    some = np.zeros(a.shape, bool)
    some[:, 1] = True
    n, found = rounds(monkeypatch, a, some)
    assert n <= everywhere
    np.testing.assert_array_equal(found[some], of_all[some])


@pytest.mark.parametrize("n_space", [2, 3])
def test_heading_evidence__is_the_log_likelihood_of_the_keypoints(n_space):
    """Differences over h; wrong twins: the other sense of rotation, missing keypoints counted."""
    rng_ = np.random.default_rng(n_space)
    shape = (4, n_space, 6, 3)
    pose, offset = rng_.normal(size=(2, *shape)) * 3
    weight = rng_.gamma(1.0, size=(4, 6, 3)) * (rng_.random((4, 6, 3)) > 1 / 3)
    weight[:, 0, 0] = 0
    h = rng_.uniform(-np.pi, np.pi, size=(2, 6, 3))

    def log_likelihood(h: np.ndarray) -> np.ndarray:
        total = np.zeros(h.shape)
        for k, t, s in np.ndindex(weight.shape):
            turn = np.eye(n_space)
            cos, sin = np.cos(h[t, s]), np.sin(h[t, s])
            turn[:2, :2] = [[cos, -sin], [sin, cos]]
            if weight[k, t, s] > 0:
                e = offset[k, :, t, s] - turn @ pose[k, :, t, s]
                law = stats.norm(0, weight[k, t, s] ** -0.5)
                total[t, s] += law.logpdf(e).sum()
        return total

    with jax.enable_x64(True):
        a, b = map(np.asarray, heading_evidence(weight, pose, offset))
        counted = np.asarray(heading_evidence(weight + 0.1, pose, offset)[0])

    def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * (np.cos(h[0]) - np.cos(h[1])) + b * (np.sin(h[0]) - np.sin(h[1]))

    wanted = log_likelihood(h[0]) - log_likelihood(h[1])
    np.testing.assert_allclose(difference(a, b), wanted, rtol=1e-9, atol=1e-9)
    assert a[0, 0] == b[0, 0] == 0
    assert np.abs(difference(a, -b) - wanted).max() > 1
    assert np.abs(difference(counted, b) - wanted).max() > 0.1
