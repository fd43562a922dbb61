"""Fewer points: none of what is short disappears, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kpms_zarr.viz.shared.decimation import extremes, joined_runs, runs, thinned

VALUES = hnp.arrays(
    np.float64,
    st.integers(0, 300),
    elements=st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)),
)


@settings(deadline=None)
@given(VALUES, st.integers(2, 60))
def test_extremes__keep_the_highest_and_the_lowest_of_every_stretch(value, most):
    kept = extremes(value, most)
    assert len(kept) <= max(most, 0)
    assert np.array_equal(kept, np.unique(kept))
    if len(value) <= most:
        assert len(kept) == len(value)
        return
    width = -(-len(value) // (most // 2))
    for start in range(0, len(value), width):
        part = value[start : start + width]
        drawn = value[kept[(kept >= start) & (kept < start + width)]]
        if np.isnan(part).all():
            assert len(drawn) == 1
        else:
            assert np.nanmin(drawn) == np.nanmin(part)
            assert np.nanmax(drawn) == np.nanmax(part)


def test_extremes__show_a_single_frame_where_every_tenth_would_not():
    value = np.zeros(10_000)
    value[4_567] = 1e4
    assert 4_567 in extremes(value, 1_000)
    assert value[::10].max() == 0


@settings(deadline=None)
@given(st.data())
def test_thinned__keeps_a_mark_that_is_alone(data):
    stop = data.draw(st.integers(1, 500))
    is_marked = data.draw(hnp.arrays(bool, stop))
    at = np.flatnonzero(is_marked)
    value = data.draw(hnp.arrays(np.float64, len(at), elements=st.floats(-1e3, 1e3)))
    most = data.draw(st.integers(2, 40))
    kept = thinned(at, value, stop, most)
    assert len(kept) <= most or len(at) <= most
    assert np.array_equal(kept, np.unique(kept))
    stretch = at * (most // 2) // stop
    for number in np.unique(stretch):
        inside = np.flatnonzero(stretch == number)
        chosen = np.intersect1d(inside, kept)
        assert len(chosen) >= 1
        assert {value[inside].min(), value[inside].max()} <= set(value[chosen])


def naive_runs(is_true):
    found, start = [], None
    for at, one in enumerate([*is_true, False]):
        if one and start is None:
            start = at
        elif not one and start is not None:
            found.append([start, at])
            start = None
    return found


@settings(deadline=None)
@given(hnp.arrays(bool, st.integers(0, 60)), st.integers(1, 8))
def test_joined_runs__cover_all_runs_and_are_few(is_true, most):
    assert runs(is_true).tolist() == naive_runs(is_true)
    found = joined_runs(is_true, most)
    assert len(found) <= most
    covered = np.zeros(len(is_true), bool)
    for start, stop in found:
        assert is_true[start]
        assert is_true[stop - 1]
        covered[start:stop] = True
    assert not (is_true & ~covered).any()
    if len(naive_runs(is_true)) <= most:
        assert np.array_equal(covered, is_true)


@pytest.mark.parametrize(("most", "expected"), [(2, [[0, 4], [9, 10]]), (1, [[0, 10]])])
def test_joined_runs__join_those_that_lie_closest(most, expected):
    is_true = np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 1], bool)
    assert joined_runs(is_true, most).tolist() == expected
