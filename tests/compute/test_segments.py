"""Cutting sessions and packing tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpms_zarr.compute.config import FRAMES_PER_DEVICE_TILE, FRAMES_PER_LARGE_DEVICE_TILE
from kpms_zarr.compute.kernels.rng import frame_uniforms, session_words, stream_keys
from kpms_zarr.compute.sampler.chain import MOST_SHARDS, ChainIndex
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape, cut, schedule, tiles
from kpms_zarr.store.core.access import Session


def index_of(lengths, lags=3, **options) -> ChainIndex:
    sessions = [Session(f"s{i:03d}", i, n, 30.0) for i, n in enumerate(lengths)]
    return ChainIndex.of(sessions, lags, **options)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=60), st.integers(1, 4000))
def test_shards__are_whole_sessions_in_order_and_as_full_as_they_may_be(lengths, shard_frames):
    index = index_of(lengths, shard_frames=shard_frames)
    most = max(shard_frames, -(-sum(lengths) // MOST_SHARDS))
    numbers = index.shard.tolist()
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(len(set(numbers))))
    members = [index.length[index.shard == number].tolist() for number in set(numbers)]
    for own, following in zip(members, [*members[1:], None], strict=True):
        assert sum(own) <= most or sum(n > 0 for n in own) == 1
        assert following is None or sum(own) + following[0] > most
    # Whatever the others are, those of some sessions stay together.
    some = index.only(np.arange(len(lengths)) % 2 == 0)
    assert some.shard.tolist() == numbers[::2]


def test_shards__are_few_in_a_long_study():
    index = index_of([200_000] * 2000)
    assert MOST_SHARDS / 2 <= index.shard[-1] + 1 <= 2 * MOST_SHARDS
    assert set(index_of([5000] * 20).shard.tolist()) == {0}


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=12),
    st.integers(1, 5),
    st.sampled_from([8, 64, 256]),
    st.integers(0, 2**40),
    st.integers(0, 1000),
)
def test_cut__covers_every_modelled_frame_once_and_neighbours_alternate(
    lengths, lags, segment_frames, seed, sweep
):
    index = index_of(lengths, lags)
    shape = TileShape.of(index, segment_frames)
    seen = [np.zeros(n, int) for n in index.length]
    parity = [np.full(n, -1) for n in index.length]
    for which, segments in enumerate(cut(index, shape, seed, sweep)):
        assert (segments.length >= 1).all()
        assert (segments.length <= shape.n_frames).all()
        for session, start, length in zip(*vars(segments).values(), strict=True):
            seen[session][start : start + length] += 1
            parity[session][start : start + length] = which
            # The frames on both sides of a segment belong to the other half.
            for outside in (start - 1, start + length):
                if index.lags <= outside < index.length[session]:
                    assert parity[session][outside] != which
    for n, count in zip(index.length, seen, strict=True):
        assert (count[:lags] == 0).all()
        assert (count[lags:] == 1).all()
        assert len(count) == n


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    st.integers(0, 99),
    st.sampled_from([1, 3000, 20_000, 10**6]),
)
def test_tiles__hold_all_segments_in_order_within_the_shape_and_a_shard(
    lengths, sweep, shard_frames
):
    index = index_of(lengths, shard_frames=shard_frames)
    shape = TileShape.of(index, 256)
    n_tiles = 0
    for segments in cut(index, shape, 7, sweep):
        parts = tiles(segments, shape, index.shard)
        n_tiles += len(parts)
        assert all(len(part.session) <= shape.n_segments for part in parts)
        assert all(len(set(index.shard[part.session].tolist())) == 1 for part in parts)
        joined = (
            [np.concatenate([getattr(p, k) for p in parts]) for k in vars(segments)]
            if parts
            else []
        )
        for found, wanted in zip(joined, vars(segments).values(), strict=bool(parts)):
            np.testing.assert_array_equal(found, wanted)
    assert n_tiles <= shape.n_tiles(index)


def test_cut__moves_from_sweep_to_sweep_and_ignores_the_other_sessions():
    one, many = index_of([5000]), index_of([5000, 9000, 300])
    shape = TileShape(64, 256)
    starts = {int(cut(one, shape, 0, i)[1].start[0]) for i in range(40)}
    assert len(starts) > 30
    for i in range(5):
        alone, among = cut(one, shape, 0, i)[1], cut(many, shape, 0, i)[1]
        np.testing.assert_array_equal(alone.start, among.start[among.session == 0])


def identity(task: Task) -> tuple[object, ...]:
    """What tells a tile from the others of a sweep."""
    columns = (values.tobytes() for values in vars(task.tile).values())
    return (task.is_odd, *columns)


def needed(index: ChainIndex, even: list[Tile], odd: Tile) -> int:
    """Even tiles up to the last that holds a neighbour of a segment of an odd one."""
    touching = {
        (session, place)
        for session, start, length in zip(*vars(odd).values(), strict=True)
        for place in (start, start + length)
    }
    return 1 + max(
        number
        for number, tile in enumerate(even)
        for session, start, length in zip(*vars(tile).values(), strict=True)
        if {(session, start), (session, start + length)} & touching
    )


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=12),
    n_segments=st.integers(1, 9),
    n_frames=st.sampled_from([4, 16, 64]),
    sweep=st.integers(0, 1000),
    lag=st.integers(0, 40),
    is_kept=st.lists(st.booleans(), min_size=12, max_size=12),
    shard_frames=st.sampled_from([1, 700, 2000, 10**6]),
)
def test_schedule__every_tile_once_and_odd_ones_after_all_their_neighbours(
    lengths, n_segments, n_frames, sweep, lag, is_kept, shard_frames
):
    index = index_of(lengths, shard_frames=shard_frames)
    if any(is_kept[: len(lengths)]):  # also of some of the sessions alone
        index = index.only(np.array(is_kept[: len(lengths)]))
    shape = TileShape(n_segments, n_frames)
    tasks = schedule(index, shape, 5, sweep, lag)
    even, odd = (tiles(part, shape, index.shard) for part in cut(index, shape, 5, sweep))
    expected = [Task(False, tile, 0) for tile in even] + [Task(True, tile, 0) for tile in odd]
    assert len(tasks) == len(expected)
    assert {identity(task) for task in tasks} == {identity(task) for task in expected}
    # Each kind in its own order, in which the sums over tiles are taken.
    for is_odd in (False, True):
        own = [identity(task) for task in tasks if task.is_odd == is_odd]
        assert own == [identity(task) for task in expected if task.is_odd == is_odd]
    n_even = 0
    for task in tasks:
        if task.is_odd:
            assert task.needs == needed(index, even, task.tile)
            assert n_even >= min(task.needs + lag, len(even))
        n_even += not task.is_odd
        assert (index.shard[task.tile.session] == task.shard).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=9), st.integers(0, 99))
def test_schedule__any_lag_gives_the_same_tiles_and_needs(lengths, sweep):
    index, shape = index_of(lengths), TileShape(3, 16)
    found = [
        {(identity(task), task.needs) for task in schedule(index, shape, 5, sweep, lag)}
        for lag in (0, 1, 7, 10**6)
    ]
    assert found.count(found[0]) == len(found)


def test_schedule__odd_tiles_follow_closely_behind():
    """So that the data around them are still at hand; also in a study of many tiles."""
    index, shape = index_of([20_000] * 10), TileShape(8, 64)
    for lag in (1, 4):
        n_even, behind = 0, []
        for task in schedule(index, shape, 5, 0, lag):
            if task.is_odd:
                behind.append(n_even - task.needs)
            n_even += not task.is_odd
        assert len(behind) > 150
        assert max(behind[:-lag]) == lag
    # Wrong twin: all even ones first.
    behind = [n_even - t.needs for t in schedule(index, shape, 5, 0, 10**6) if t.is_odd]
    assert max(behind) > 150


def test_shape__stays_bounded_as_studies_grow():
    shapes = [TileShape.of(index_of([n] * 5), 256) for n in (2000, 20_000, 2_000_000)]
    assert max(s.n_segments for s in shapes) <= 64
    assert all(s.n_frames == 256 for s in shapes)


@pytest.mark.parametrize(
    ("lengths", "tile_frames", "n_segments", "n_tiles"),
    [
        ([10_000] * 10, FRAMES_PER_DEVICE_TILE, 216, 2),
        ([2_000_000] * 5, FRAMES_PER_DEVICE_TILE, 1960, 20),
        ([2_000_000] * 5, FRAMES_PER_LARGE_DEVICE_TILE, 7816, 6),
        ([10_000] * 10, FRAMES_PER_DEVICE_TILE - 1, 112, 4),  # as for a CPU: in pairs
    ],
)
def test_shape__of_devices_other_than_a_cpu_is_wide(lengths, tile_frames, n_segments, n_tiles):
    index = index_of(lengths, shard_frames=2 * tile_frames)
    shape = TileShape.of(index, 256, tile_frames)
    assert (shape.n_segments, shape.n_frames) == (n_segments, 256)
    assert shape.n_tiles(index) == n_tiles
    tasks = schedule(index, shape, 0, 1, lag=3)
    assert len(tasks) == n_tiles
    assert max(len(task.tile.session) for task in tasks) <= n_segments


def uniforms(first: int, n: int, *, seed=1, sweep=0, conditional=0, name="a") -> np.ndarray:
    words = np.array([session_words(name)], np.uint32)
    seed_words = np.array([0, seed], np.uint32)
    keys = stream_keys(seed_words, np.int32(sweep), conditional, words)
    return np.asarray(frame_uniforms(keys, np.array([first], np.int32), n, np.float32))[:, 0]


def test_uniforms__belong_to_the_frame_and_not_to_the_segment():
    whole = uniforms(3, 100)
    np.testing.assert_array_equal(whole[40:70], uniforms(43, 30))


def test_uniforms__differ_between_addresses_and_are_uniform():
    n = 20_000
    base = uniforms(0, n)
    for other in ({"seed": 2}, {"sweep": 1}, {"conditional": 1}, {"name": "b"}):
        found = uniforms(0, n, **other)
        assert abs(np.corrcoef(base, found)[0, 1]) < 5 / np.sqrt(n)
        assert (found == base).mean() < 0.01
    assert base.min() > 0
    assert base.max() <= 1
    counts = np.histogram(base, 50, (0, 1))[0]
    assert ((counts - n / 50) ** 2 / (n / 50)).sum() < 49 + 5 * np.sqrt(2 * 49)
    assert abs(np.corrcoef(base[1:], base[:-1])[0, 1]) < 5 / np.sqrt(n)


def test_session_words__tell_similar_names_apart():
    names = [f"session_{i:05d}" for i in range(20_000)]
    assert len({session_words(name) for name in names}) == len(names)
