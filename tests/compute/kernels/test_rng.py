"""Counter-based numbers: their bits, what they depend on, and their distributions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry2x32_p
from scipy import stats

from kpms_zarr.compute.kernels import rng

CONDITIONALS = {
    name: value
    for name, value in vars(rng).items()
    if name.isupper() and not name.startswith("_") and isinstance(value, int)
}
SEED = np.uint32([7, 11])
# Compiled, because one by one the operations take longer to compile.
stream_keys = jax.jit(rng.stream_keys)
frame_bits = jax.jit(rng.frame_bits, static_argnums=(2, 3))
threefry = jax.jit(rng.threefry)
normal = jax.jit(rng.normal, static_argnums=1)


def keys_of(conditional: int = rng.LATENT, *, seed=SEED, sweep: int = 3, sessions=("a", "b")):
    words = np.array([rng.session_words(name) for name in sessions], np.uint32)
    return stream_keys(seed, sweep, conditional, words)


def stream(n_frames: int = 5000, **address) -> np.ndarray:
    """Uniform numbers of one session, float64."""
    keys = keys_of(sessions=(address.pop("session", "a"),), **address)
    bits = frame_bits(keys, np.zeros(1, np.int32), n_frames, 1)
    return np.asarray(bits, np.float64).ravel() / 2**32


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """In units of its standard deviation under independence."""
    return abs(np.corrcoef(a, b)[0, 1]) * np.sqrt(len(a))


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry__gives_the_published_answers(key, counter, expected):
    found = threefry(*(tuple(np.uint32([word]) for word in pair) for pair in (key, counter)))
    assert tuple(int(word[0]) for word in found) == expected


def test_threefry__gives_the_bits_of_jax():
    words = np.random.default_rng(0).integers(2**32, size=(4, 500), dtype=np.uint32)
    found = threefry(tuple(words[:2]), tuple(words[2:]))
    np.testing.assert_array_equal(found, threefry2x32_p.bind(*map(jnp.asarray, words)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)],
)
def test_session_words__are_the_published_hash(name, value):
    high, low = rng.session_words(name)
    assert (high << 32) | low == value


def test_conditionals__have_different_numbers():
    assert len(CONDITIONALS) >= 10
    assert len(set(CONDITIONALS.values())) == len(CONDITIONALS)


@pytest.mark.parametrize("cuts", [(0, 40), (0, 1, 2, 40), (0, 17, 39, 40), (-3, 5, 30, 40)])
def test_frame_bits__do_not_depend_on_where_a_session_is_cut(cuts):
    keys, n = keys_of(), 3
    whole = np.asarray(frame_bits(keys, np.int32([-3, -3]), 43, n))
    for begin, end in itertools.pairwise(cuts):
        # All parts in tiles of one size, as in a fit.
        part = np.asarray(frame_bits(keys, np.int32([begin, begin]), 40, n))
        np.testing.assert_array_equal(part[:, : end - begin], whole[:, begin + 3 : end + 3])


def test_frame_bits__of_lanes_depend_on_their_own_key_and_frame_only():
    keys = keys_of(sessions=("a", "b", "a", "c"))
    found = np.asarray(frame_bits(keys, np.int32([0, 5, 20, 2]), 30, 2))
    alone = np.asarray(frame_bits(keys_of(sessions=("b",)), np.int32([5]), 30, 2))
    np.testing.assert_array_equal(found[:, :, 1], alone[:, :, 0])
    np.testing.assert_array_equal(found[:, 20:, 0], found[:, :10, 2])


def test_frame_bits__more_numbers_and_later_numbers_continue_the_same_stream():
    keys, first = keys_of(), np.int32([4, 9])
    long = np.asarray(frame_bits(keys, first, 6, 12))
    for n in (1, 2, 5):
        np.testing.assert_array_equal(frame_bits(keys, first, 6, n), long[:n])
    for start in (2, 4, 8):
        later = frame_bits(keys, first, 6, 4, first_number=start)
        np.testing.assert_array_equal(later, long[start : start + 4])


def test_frame_bits__repeat_no_word():
    bits = np.asarray(frame_bits(keys_of(), np.int32([-3, -3]), 500, 8))
    # 8,000 of 2^32 words: 0.007 repetitions are expected.
    assert len(np.unique(bits)) == bits.size


def test_streams__of_other_addresses_are_independent():
    """Wrong twin: two conditionals with one key, whose numbers are the same."""
    base = stream()
    others = {
        "sweep": stream(sweep=4),
        "session": stream(session="b"),
        "low seed": stream(seed=np.uint32([7, 12])),
        "high seed": stream(seed=np.uint32([8, 11])),
    } | {
        name: stream(conditional=value)
        for name, value in CONDITIONALS.items()
        if value != rng.LATENT
    }
    for name, other in others.items():
        assert correlation(base, other) < 4, name
        assert not (base == other).any(), name
    # Swapped words of seed or address are another stream, too.
    assert correlation(base, stream(seed=SEED[::-1].copy())) < 4
    assert correlation(stream(sweep=5, conditional=6), stream(sweep=6, conditional=5)) < 4
    twin = stream(conditional=rng.LATENT)
    assert correlation(base, twin) > 50


def test_streams__of_neighbouring_frames_and_numbers_are_independent():
    bits = np.asarray(frame_bits(keys_of(), np.int32([0, 0]), 5000, 4), np.float64)
    for lag in (1, 2, 3):
        assert correlation(bits[0, lag:, 0], bits[0, :-lag, 0]) < 4
    for i, j in itertools.combinations(range(4), 2):
        assert correlation(bits[i, :, 0], bits[j, :, 0]) < 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform__lies_above_zero_and_reaches_one(dtype):
    ends = np.uint32([0, 1, 255, 2**32 - 256, 2**32 - 1])
    with jax.enable_x64(dtype is np.float64):
        coarse = np.asarray(rng.uniform(jnp.asarray(ends), dtype))
        fine = np.asarray(rng.fine_uniform(jnp.asarray(ends), dtype))
    assert coarse.dtype == fine.dtype == dtype
    np.testing.assert_array_equal(coarse, dtype([2.0**-24] * 3 + [1.0] * 2))
    assert ((fine > 0) & (fine <= 1)).all()
    assert fine[0] == fine[1] == 2.0**-31


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_and_normal__have_their_distributions(dtype):
    with jax.enable_x64(dtype is np.float64):
        bits = frame_bits(keys_of(), np.int32([0, 0]), 2000, 6)
        drawn = {
            "coarse": np.asarray(rng.uniform(bits[:2], dtype)),
            "fine": np.asarray(rng.fine_uniform(bits[2:4], dtype)),
            "normal": np.asarray(normal(bits, dtype)),
        }
    for name, law in {"coarse": "uniform", "fine": "uniform", "normal": "norm"}.items():
        values = drawn[name].ravel().astype(np.float64)
        assert drawn[name].dtype == dtype
        assert stats.kstest(values, law).pvalue > 1e-3, name
        # Wrong twin: 5 % too wide.
        assert stats.kstest(1.05 * values, law).pvalue < 1e-3, name
    rows = drawn["normal"].reshape(6, -1)
    for i, j in itertools.combinations(range(6), 2):
        assert correlation(rows[i], rows[j]) < 4
        assert correlation(rows[i] ** 2, rows[j] ** 2) < 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal__is_finite_at_the_extreme_words(dtype):
    ends = np.uint32([0, 1, 2**31, 2**32 - 1])
    bits = np.stack([np.repeat(ends, 4), np.tile(ends, 4)])
    with jax.enable_x64(dtype is np.float64):
        values = np.asarray(normal(jnp.asarray(bits), dtype))
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 6.56


def test_frame_uniforms_and_normals__are_the_numbers_of_the_stream():
    address = (keys_of(), np.int32([0, 9]), 7)
    bits = frame_bits(*address, 6)
    found = jax.jit(rng.frame_uniforms, static_argnums=(2, 3))(*address, jnp.float32)
    np.testing.assert_array_equal(found, rng.uniform(bits[0], jnp.float32))
    found = jax.jit(rng.frame_normals, static_argnums=(2, 3, 4))(*address, 5, jnp.float32)
    assert found.shape == (5, 7, 2)
    np.testing.assert_allclose(found, normal(bits, jnp.float32)[:5], rtol=1e-5, atol=1e-6)


def test_even__rounds_up():
    assert [rng.even(n) for n in range(5)] == [0, 2, 2, 4, 4]


def test_host_generator__depends_on_all_of_its_address():
    address = (7, 3, rng.TRANSITION)
    base = rng.host_generator(*address).random(2000)
    np.testing.assert_array_equal(rng.host_generator(*address).random(2000), base)
    for other in ((8, 3, rng.TRANSITION), (7, 4, rng.TRANSITION), (7, 3, rng.DYNAMICS)):
        assert correlation(base, rng.host_generator(*other).random(2000)) < 4
