"""Sums by shard: the same bits whichever process takes which shards."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.sampler.ar_model import ArModel
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import InOrder, Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters, SweepSums
from kpms_zarr.store.core.access import Session

LAGS, M, N = 2, 2, 5
LENGTHS = {"a": 900, "b": 333, "c": 40, "d": 1, "e": 512, "f": 700, "g": 65, "h": 3}
"""Sessions in shards of 1,000 frames: a; b, c, d, e; f, g, h."""


def parameters() -> Parameters:
    rng = np.random.default_rng(0)
    weight_bias = 0.2 * rng.normal(size=(N, M, M * LAGS + 1))
    covariance = np.broadcast_to(np.eye(M), (N, M, M)) * rng.uniform(0.5, 2, (N, 1, 1))
    transition = 0.9 * np.eye(N) + 0.1 / N
    return Parameters(Dynamics(weight_bias, covariance), np.full(N, 1 / N), transition)


def sweeper_of(n_in_flight: int = 2, *, has_shards: bool = True) -> Sweeper:
    sessions = [Session(name, i, n, 30.0) for i, (name, n) in enumerate(LENGTHS.items())]
    index = ChainIndex.of(sessions, LAGS, shard_frames=1000)
    if not has_shards:
        index = replace(index, shard=np.zeros(len(sessions), np.int64))
    chain = Chain(index, n_latent=M, n_space=2, dtype="float32")
    for session, first in zip(index.sessions, index.first, strict=True):
        rng = np.random.default_rng(ord(session.name))
        frames = slice(first, first + session.n_frames)
        chain.latent[frames] = rng.normal(size=(session.n_frames, M))
        labels = rng.integers(0, N, session.n_frames).astype(np.int16)
        labels[:LAGS] = NO_STATE
        chain.syllable[frames] = labels
    return Sweeper(
        chain=chain, n_states=N, pipeline=Pipeline(n_in_flight), seed=3, shape=TileShape(8, 16)
    )


def swept(sweeper: Sweeper, which: np.ndarray | None = None) -> tuple[SweepSums, np.ndarray]:
    """Sums of one sweep over some sessions, and the labels of the whole chain after it."""
    chain = sweeper.chain
    some = sweeper if which is None else replace(sweeper, chain=chain.only(which))
    sums = some.draw(ArModel(), parameters(), 4)
    return sums, np.asarray(chain.syllable[0 : chain.index.n_frames]).copy()


def bits(sums: SweepSums) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in sums]


def test_sessions__are_in_three_shards():
    assert sweeper_of().chain.index.shard.tolist() == [0, 1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("n_in_flight", [1, 3])
def test_sums__of_shards_taken_apart_are_those_of_all_to_the_bit(n_in_flight):
    expected, labels = swept(sweeper_of())
    whole = sweeper_of(n_in_flight)
    found, same = swept(whole)
    assert bits(found) == bits(expected)
    np.testing.assert_array_equal(same, labels)
    for order in ([0, 1, 2], [2, 0, 1]):
        apart = sweeper_of(n_in_flight)
        parts = {}
        for number in order:
            parts[number], drawn = swept(apart, apart.chain.index.shard == number)
        folded = reduce(SweepSums.plus, [parts[number] for number in sorted(parts)])
        assert bits(folded) == bits(expected)
        np.testing.assert_array_equal(drawn, labels)


@settings(deadline=None)
@given(st.permutations(range(6)), st.data())
def test_sums__that_come_in_any_order_are_added_in_that_of_the_shards(order, data):
    rng = np.random.default_rng(1)
    shards = {i: SweepSums(1e3 ** rng.normal(size=(2, 3))) for i in range(6)}
    expected = reduce(SweepSums.plus, shards.values(), SweepSums(np.zeros((2, 3))))
    found = InOrder(deque(sorted(shards)), SweepSums(np.zeros((2, 3))))
    while order:
        n = data.draw(st.integers(1, len(order)))
        found.add({i: shards[i] for i in order[:n]})
        order = order[n:]
    assert not found.shards
    assert bits(found.total) == bits(expected)


def test_sums__over_all_at_once_have_other_bits():
    """Wrong twin: without shards, parts that are taken apart do not fold to the same."""
    whole, _ = swept(sweeper_of(has_shards=False))
    apart = sweeper_of(has_shards=False)
    which = [apart.chain.index.only(np.ones(8, bool)).first < 1786]
    parts = [swept(apart, rows)[0] for rows in (*which, ~which[0])]
    folded = reduce(SweepSums.plus, parts)
    np.testing.assert_allclose(folded.moments, whole.moments, rtol=1e-5, atol=1e-4)
    assert bits(folded)[0] != bits(whole)[0]


def test_measure__is_by_shard_as_well():
    whole = sweeper_of()
    weight_bias = parameters().dynamics.weight_bias
    moments, _ = whole.measure(weight_bias)
    index = whole.chain.index
    total = np.zeros_like(moments)
    for number in (0, 1, 2):
        some = replace(whole, chain=whole.chain.only(index.shard == number))
        ((found, part),) = some.measure_by_shard(weight_bias)
        assert found == number
        total = total + part
    assert total.tobytes() == moments.tobytes()
