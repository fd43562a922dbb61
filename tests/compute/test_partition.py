"""Patterns, partitions and best paths against enumeration and naive loops; laws."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.analysis import patterns as patterns_module
from kpms_zarr.compute.analysis import smoothing
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.analysis.partition import Votes, first_partitions, least_variation, vote
from kpms_zarr.compute.analysis.patterns import Patterns, patterns_of_blocks
from kpms_zarr.compute.analysis.smoothing import best_path, price_for, scores_of

# ------------------------------------------------------------------ patterns

FRAMES = st.lists(st.tuples(*(st.integers(-1, 2) for _ in range(3))), min_size=1, max_size=60).map(
    lambda rows: np.array(rows, np.int16)
)


def counted(patterns: Patterns) -> Counter:
    return Counter(
        {tuple(row): int(n) for row, n in zip(patterns.label, patterns.n_frames, strict=True)}
    )


@settings(max_examples=examples(40), deadline=None)
@given(FRAMES, st.integers(1, 20))
def test_patterns__count_every_frame_once_in_any_blocks(frames, length):
    found = patterns_of_blocks(frames[i : i + length] for i in range(0, len(frames), length))
    assert counted(found) == Counter(map(tuple, frames.tolist()))
    parts = [Patterns.of(frames[i : i + length]) for i in range(0, len(frames), length)]
    total = parts[0]
    for part in parts[1:]:
        total = total.add(part)
    assert counted(total) == counted(found)
    for column, usage in zip(frames.T, total.usage, strict=True):
        assert Counter({i: n for i, n in enumerate(usage.tolist()) if n}) == Counter(
            column[column >= 0].tolist()
        )


def test_patterns__too_many_to_hold_lose_the_rarest(monkeypatch):
    monkeypatch.setattr(patterns_module, "MOST_PATTERNS", 4)
    often = np.repeat([[0, 0], [1, 1]], 5, 0)
    seldom = np.array([[0, 1], [1, 0], [2, 0]])
    found = Patterns.of(often).add(Patterns.of(seldom))
    assert counted(found) == Counter({(0, 0): 5, (1, 1): 5})
    assert found.n_dropped == 3
    assert [usage.sum() for usage in found.usage] == [13, 13]


# ------------------------------------------------------------------ partition


def expected_variation(item, weight, cluster) -> float:
    """R n E[VI(cluster, labelling)], frames without a state left out of neither entropy, by the
    definition: H(c) + H(z) - 2 I, summed over the labellings."""
    n, total = weight.sum(), 0.0

    def entropy(keys) -> float:
        mass = Counter()
        for key, w in zip(keys, weight, strict=True):
            mass[key] += w / n
        return -sum(p * np.log(p) for p in mass.values() if p > 0)

    for states in item.T:
        of_both = entropy(zip(cluster.tolist(), states.tolist(), strict=True))
        total += 2 * of_both - entropy(cluster.tolist()) - entropy(states.tolist())
    return n * total


def drawn_items(seed: int, n: int = 7):
    rng = np.random.default_rng(seed)
    item = np.stack(
        [rng.integers(0, 3, n), 3 + rng.integers(0, 3, n), 6 + rng.integers(0, 2, n)], 1
    )
    return item, rng.integers(1, 20, n).astype(float)


def partitions(n: int):
    """All partitions of n items, as restricted growth strings."""

    def grow(prefix, most):
        if len(prefix) == n:
            yield np.array(prefix)
            return
        for k in range(most + 2):
            yield from grow([*prefix, k], max(most, k))

    yield from grow([0], 0)


@pytest.mark.parametrize("seed", range(6))
def test_search__finds_a_partition_of_little_expected_variation(seed):
    item, weight = drawn_items(seed)
    every = [expected_variation(item, weight, c) for c in partitions(len(item))]
    order = np.random.default_rng(seed).permutation(len(item))
    starts = list(first_partitions(item, weight, 8))
    found = [least_variation(item, weight, start, order, 8) for start in starts]
    values = [expected_variation(item, weight, cluster) for cluster, _ in found]
    # What the search calls the value is that of the definition, but for a constant.
    first = expected_variation(item, weight, found[0][0]) - found[0][1]
    for (_, value), exact in zip(found, values, strict=True):
        assert exact - value == pytest.approx(first, abs=1e-6)
    # Single moves can end in a local minimum, which is among the best of all 877.
    assert min(values) <= np.quantile(every, 0.03)
    for cluster, _ in found:  # and no single move is better
        now = expected_variation(item, weight, cluster)
        for i, k in itertools.product(range(len(item)), range(len(item))):
            other = cluster.copy()
            other[i] = k
            assert expected_variation(item, weight, other) >= now - 1e-6


def noisy(rng, truth, share, n_labels, *, merges=()):
    z = truth.copy()
    wrong = rng.random(len(z)) < share
    z[wrong] = rng.integers(0, n_labels, wrong.sum())
    for a, b in merges:
        z[z == b] = a
    return rng.permutation(n_labels)[z]


def test_vote__finds_the_truth_behind_noisy_labels_of_any_numbers():
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.integers(0, 6, 400), 10)
    merges = [(), ((0, 1),), (), ((2, 3),), (), ()]
    labels = np.stack([noisy(rng, truth, 0.25, 6, merges=m) for m in merges], 1)
    votes = vote(Patterns.of(labels))
    share = votes.shares(labels)
    found = share.argmax(1)
    single = [adjusted_rand_index(z, truth) for z in labels.T]
    assert adjusted_rand_index(found, truth) > max(single) + 0.2
    assert votes.n_syllables == 6
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-6)
    assert (np.diff(np.bincount(found)) <= 30).all()  # numbered by frequency, about
    # A wrong twin: votes for numbers as they stand, without finding which are the same.
    plain = Votes(np.tile(np.arange(6, dtype=np.int16), (6, 1)), 6).shares(labels)
    assert adjusted_rand_index(plain.argmax(1), truth) < max(single)


def test_vote__does_not_depend_on_the_numbers_of_states():
    rng = np.random.default_rng(4)
    truth = np.repeat(rng.integers(0, 5, 200), 10)
    labels = np.stack([noisy(rng, truth, 0.2, 5) for _ in range(4)], 1)
    other = np.stack([rng.permutation(5)[z] for z in labels.T], 1)
    one, two = (vote(Patterns.of(z)).shares(z).argmax(1) for z in (labels, other))
    assert adjusted_rand_index(one, two) > 0.99


def test_vote__of_labellings_without_labels_has_no_syllables():
    votes = vote(Patterns.of(np.full((5, 2), -1)))
    assert votes.n_syllables == 0
    assert votes.shares(np.full((5, 2), -1)).shape == (5, 0)


def test_shares__leave_out_who_has_no_vote():
    votes = Votes(np.array([[0, 1], [0, -1], [1, 1]], np.int16), 2)
    share = votes.shares(np.array([[0, 0, 0], [1, 1, -1], [-1, 1, -1], [7, 0, 1]]))
    np.testing.assert_allclose(share, [[2 / 3, 1 / 3], [0, 1], [0, 0], [0.5, 0.5]], atol=1e-6)


# ------------------------------------------------------------------ best path


def naive_path(score, price):
    value, came = score[0].copy(), []
    for row in score[1:]:
        step = value[:, None] - price * (1 - np.eye(len(value)))
        came.append(step.argmax(0))
        value = step.max(0) + row
    z = [int(value.argmax())]
    for back in reversed(came):
        z.append(int(back[z[-1]]))
    return np.array(z[::-1])


def value_of(z, score, price):
    return score[np.arange(len(z)), z].sum() - price * np.count_nonzero(np.diff(z))


@pytest.mark.parametrize("length", [5, 7, 40])
@pytest.mark.parametrize("price", [0.0, 0.7, 3.0])
def test_best_path__is_that_of_viterbi_in_any_blocks(monkeypatch, length, price):
    monkeypatch.setattr(smoothing, "BLOCK_FRAMES", length)
    score = np.random.default_rng(1).normal(size=(37, 4)).astype(np.float32)
    z = best_path((score[i : i + length] for i in range(0, 37, length)), price)
    naive = naive_path(score.astype(float), price)
    assert value_of(z, score, price) == pytest.approx(value_of(naive, score, price), abs=1e-4)
    if not price:
        np.testing.assert_array_equal(z, score.argmax(1))


def test_best_path__changes_less_at_a_higher_price(monkeypatch):
    monkeypatch.setattr(smoothing, "BLOCK_FRAMES", 128)
    share = np.random.default_rng(2).dirichlet(np.ones(5), 300)
    score = scores_of(share)

    def changes(price):
        z = best_path((score[i : i + 128] for i in range(0, 300, 128)), price)
        return np.count_nonzero(np.diff(z))

    found = [changes(price) for price in (0, 0.5, 2, 8)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 100 > found[-1]


def test_price__is_the_lowest_that_is_enough():
    assert price_for(lambda price: 5 + 2 * price, 4) == 0
    assert price_for(lambda price: 2 * price, 10) == pytest.approx(5, abs=0.03)
