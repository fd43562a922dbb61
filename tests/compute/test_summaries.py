"""Counts and durations against naive loops; agreement of labellings against pair counting."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index, normalized_mutual_information
from kpms_zarr.compute.mapreduce import weighted_median
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.sampler.bouts import count_labels, iter_bouts
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.store.core.access import Session


def naive_bouts(z) -> list[tuple[int, int]]:
    return [(k, len(list(g))) for k, g in itertools.groupby(z) if k >= 0]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_weighted_median__equals_numpy(values):
    distinct, counts = np.unique(values, return_counts=True)
    assert weighted_median(distinct, counts) == np.median(values)


@settings(deadline=None, max_examples=examples(40))
@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=40), min_size=1, max_size=5))
def test_count_labels__equals_a_loop_and_never_crosses_sessions(sessions):
    index = ChainIndex.of([Session(f"{i}", i, len(z), 30.0) for i, z in enumerate(sessions)], 2)
    with Chain(index, n_latent=1, n_space=2, dtype="float32") as chain:
        for first, z in zip(index.first, sessions, strict=True):
            chain.syllable[first + 2 : first + len(z)] = z[2:]
        found = count_labels(chain, 4)
        chunked = [np.concatenate(c).tolist() for c in zip(*iter_bouts(chain, 7), strict=True)]
        # As when published: the first frames have the label of the first modelled one.
        for first in index.first:
            chain.syllable[first : first + 2] = chain.syllable[first + 2]
        statistics = label_statistics(chain, 4)
    modelled = [z[2:] for z in sessions]
    transitions = np.zeros((4, 4), int)
    for z in modelled:
        for a, b in itertools.pairwise(z):
            transitions[a, b] += 1
    np.testing.assert_array_equal(found.transitions, transitions)
    np.testing.assert_array_equal(found.frames, np.bincount(np.concatenate(modelled), minlength=4))
    runs = [(i, *run) for i, z in enumerate(modelled) for run in naive_bouts(z)]
    assert list(zip(*chunked[:3], strict=True)) == runs
    np.fill_diagonal(transitions, 0)
    np.testing.assert_array_equal(statistics["transition_count"], transitions)
    durations = [n for z in modelled for _, n in naive_bouts(z)]
    assert found.median_duration == np.median(durations)
    published = [n for z in modelled for _, n in naive_bouts([z[0], z[0], *z])]
    overall = statistics["median_duration_overall"]
    assert overall == pytest.approx(np.median(published) * 1000 / 30)
    assert statistics["duration_count"].sum() == statistics["n_bouts"].sum() == len(durations)


def test_statistics__durations_are_in_ms_of_each_session():
    sessions = [Session("fast", 0, 13, 60.0), Session("slow", 1, 13, 30.0)]
    index = ChainIndex.of(sessions, 1)
    with Chain(index, n_latent=1, n_space=2, dtype="float32") as chain:
        for first in index.first:
            chain.syllable[first + 1 : first + 13] = [0] * 6 + [1] * 6
        found = label_statistics(chain, 3)
        counts = count_labels(chain, 3)
    assert counts.fps == 60
    assert counts.median_duration * 1000 / counts.fps == 150
    np.testing.assert_allclose(found["median_duration"], [150, 150, np.nan])
    np.testing.assert_allclose(found["mean_duration"][:2], 150)
    bins = found["duration"][found["duration_count"].sum(0) > 0]
    np.testing.assert_allclose(bins, [100, 200])


def naive_ari(a, b) -> float:
    pairs = list(itertools.combinations(range(len(a)), 2))
    same_a = np.array([a[i] == a[j] for i, j in pairs])
    same_b = np.array([b[i] == b[j] for i, j in pairs])
    both, expected = (same_a & same_b).sum(), same_a.sum() * same_b.sum() / len(pairs)
    most = (same_a.sum() + same_b.sum()) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=25))
def test_ari__equals_counting_pairs(pairs):
    a, b = np.array(pairs).T
    assert adjusted_rand_index(a, b) == pytest.approx(naive_ari(a, b))
    assert adjusted_rand_index(a, (b + 1) % 4) == pytest.approx(adjusted_rand_index(a, b))


def test_agreement__leaves_unlabelled_frames_out():
    a, b = np.array([-1, 0, 0, 1, 1]), np.array([3, 5, 5, 2, -1])
    assert adjusted_rand_index(a, b) == 1
    assert normalized_mutual_information(a, b) == 1
    rng = np.random.default_rng(0)
    x, y = rng.integers(5, size=(2, 20_000))
    assert abs(adjusted_rand_index(x, y)) < 0.01
    assert normalized_mutual_information(x, y) < 0.01
