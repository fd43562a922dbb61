"""Idioms that all of the package shares: runs of equal values, and turning in the plane."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.run_lengths import run_bounds, run_starts


@settings(deadline=None)
@given(st.lists(st.integers(-1, 2), max_size=30), st.integers(1, 40))
def test_runs__are_those_of_groupby_also_when_cut(values, frames):
    labels = np.array(values, np.int16)
    start, stop = run_bounds(labels)
    expected = [(key, len(list(group))) for key, group in itertools.groupby(values)]
    found = [(values[a], b - a) for a, b in zip(start.tolist(), stop.tolist(), strict=True)]
    assert found == expected
    assert start.dtype == stop.dtype == np.int64
    cut = set(start.tolist()) | set(range(0, len(values), frames))
    assert run_starts(labels, slice(None, None, frames)).tolist() == sorted(cut)
    assert run_starts(labels, np.arange(0, len(values), frames)).tolist() == sorted(cut)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]), st.sampled_from([(), (5,), (2, 3)]))
def test_rotate__is_a_product_with_the_rotation_matrix(seed, n_space, shape):
    rng = np.random.default_rng(seed)
    vectors, angle = rng.normal(size=(*shape, 4, n_space)), rng.uniform(-9, 9, shape)
    before = vectors.copy()
    turned = rotate(vectors, angle)
    for at in np.ndindex(*shape):
        c, s = np.cos(angle[at]), np.sin(angle[at])
        np.testing.assert_allclose(turned[at][:, :2], vectors[at][:, :2] @ [[c, s], [-s, c]])
        np.testing.assert_array_equal(turned[at][:, 2:], vectors[at][:, 2:])
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_allclose(rotate(vectors, 0.5), rotate(vectors, np.full(shape, 0.5)))
