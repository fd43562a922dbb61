"""Tracked data by blocks: the same whatever is kept, read once where it fits, retried."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import wait
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.sampler import tracked
from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.compute.sampler.tracked import NoiseByConfidence, TrackedData, observe
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.study import synthetic

N_COLUMNS, BLOCK = 3, 8
ROW_BYTES = 4 * N_COLUMNS
BLOCK_BYTES = BLOCK * ROW_BYTES


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracked, "FRAMES_PER_CHUNK", BLOCK)
        yield


class Store:
    """Data of sessions whose rows in the store are in another order than their names."""

    def __init__(self, lengths, lags: int = 2) -> None:
        order = np.random.default_rng(1).permutation(len(lengths))
        sessions = [Session(f"s{i:02}", int(order[i]), int(n), 30.0) for i, n in enumerate(lengths)]
        self.index = ChainIndex.of(sessions, lags)
        rng = np.random.default_rng(0)
        self.values = rng.normal(size=(self.index.n_frames, N_COLUMNS)).astype(np.float32)
        self.values[rng.random(self.values.shape) < 0.1] = np.nan
        self.begin = dict(zip(order.tolist(), self.index.first.tolist(), strict=True))
        self.reads: Counter[Block] = Counter()
        self.fails: Counter[Block] = Counter()
        self.seconds = 0.0
        self._lock = threading.Lock()

    @property
    def n_blocks(self) -> int:
        return int((-(-self.index.length // BLOCK)).sum())

    def read(self, block: Block) -> np.ndarray:
        assert block.n_frames <= BLOCK
        assert block.start % BLOCK == 0
        with self._lock:
            self.reads[block] += 1
            is_away = self.fails[block] > 0
            self.fails[block] -= is_away
        time.sleep(self.seconds)
        if is_away:
            raise OSError("the storage is away")
        first = self.begin[block.session]
        return self.values[first + block.start : first + block.stop].copy()

    def open(self, kept: int, recent: int) -> TrackedData:
        return TrackedData(
            self.read, self.index, N_COLUMNS, kept_bytes=kept, recent_bytes=recent
        )  # fmt: skip

    def spans(self, rng: np.random.Generator, n: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Segments within sessions, in any order, some of them empty."""
        session = rng.integers(len(self.index.length), size=n)
        length = self.index.length[session]
        start = (rng.random(n) * length).astype(int)
        stop = np.minimum(start + rng.integers(0, most + 1, n), length)
        return self.index.first[session] + start, self.index.first[session] + stop

    def sliced(self, begin, end, *, n_rows, n_segments, fill) -> np.ndarray:
        """What a gather is to give, from the whole in memory."""
        found = np.full((n_segments, n_rows, N_COLUMNS), fill, np.float32)
        for i, (first, last) in enumerate(zip(begin, end, strict=True)):
            found[i, : last - first] = self.values[first:last]
        return found


SIZES = st.sampled_from([0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 3, 5 * BLOCK_BYTES, 10**9])


@settings(deadline=None, max_examples=examples(60))
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    kept=SIZES,
    recent=SIZES,
    asked=st.lists(st.booleans(), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
)
def test_gather__equals_slices_of_the_whole_however_much_is_kept(
    lengths, kept, recent, asked, seed
):
    store, rng = Store(lengths), np.random.default_rng(seed)
    with closing(store.open(kept, recent)) as data:
        assert data.shape == store.values.shape
        for is_ahead in asked:
            begin, end = store.spans(rng, int(rng.integers(0, 5)), 20)
            if is_ahead:
                data.prefetch(begin, end)
            options = {"n_rows": 20, "n_segments": 5, "fill": float(rng.integers(-2, 2))}
            expected = store.sliced(begin, end, **options)
            np.testing.assert_array_equal(data.gather(begin, end, **options), expected)
            columns = slice(1, 3)
            found = data.gather(begin, end, **options, columns=columns)
            np.testing.assert_array_equal(found, expected[..., columns])
            assert held(data) <= kept + max(recent, BLOCK_BYTES)
            assert sum(data._size(key) for key in data._kept) <= kept
    if kept == 10**9:
        assert set(store.reads.values()) <= {1}
    assert data.n_bytes_read == sum(n * b.n_frames for b, n in store.reads.items()) * ROW_BYTES


def held(data: TrackedData) -> int:
    """Bytes of all blocks that are held."""
    blocks = [*data._kept.values(), *data._recent.values()]
    return sum(block.result().nbytes for block in blocks)


def test_gather__of_a_wrong_place_is_seen():
    """Wrong twin of the comparison: sessions in the order of the store instead of their names."""
    store = Store([20, 30, 10])
    first = np.cumsum([0, 10, 30])[np.argsort([2, 0, 1])]
    store.begin = dict(enumerate(first.tolist()))
    begin, end = store.index.first, store.index.first + 10
    options = {"n_rows": 10, "n_segments": 3, "fill": 0}
    with closing(store.open(10**9, 0)) as data:
        found = data.gather(begin, end, **options)
    assert not np.array_equal(found, store.sliced(begin, end, **options), equal_nan=True)


def sweep(data: TrackedData, store: Store, n_ahead: int = 4, n_frames: int = 12) -> None:
    """Pass over everything in order, reading ahead."""
    spans = [
        (np.array([first + start]), np.array([first + min(start + n_frames, n)]))
        for first, n in zip(store.index.first, store.index.length, strict=True)
        for start in range(0, n, n_frames)
    ]
    for ahead in spans[:n_ahead]:
        data.prefetch(*ahead)
    for number, (begin, end) in enumerate(spans):
        if number + n_ahead < len(spans):
            data.prefetch(*spans[number + n_ahead])
        options = {"n_rows": n_frames, "n_segments": 1, "fill": 0}
        found = data.gather(begin, end, **options)
        np.testing.assert_array_equal(found, store.sliced(begin, end, **options))


@pytest.mark.parametrize("n_kept", [0, 3, 40, 100])
def test_sweeps__read_again_only_what_is_not_kept(n_kept):
    """Also while reading ahead: nothing is read twice within a sweep."""
    store = Store([300, 160, 5])
    # Room for what is read ahead: 5 tiles of 12 frames lie in at most 3 blocks each.
    with closing(store.open(n_kept * BLOCK_BYTES, 15 * BLOCK_BYTES)) as data:
        for number in range(1, 4):
            sweep(data, store)
            n_read = sum(store.reads.values())
            n_again = max(0, store.n_blocks - n_kept)
            assert n_read == store.n_blocks + (number - 1) * n_again, (number, n_kept)
    # Wrong twin: without room for what is read ahead, it is read again at its turn.
    store.reads.clear()
    with closing(store.open(n_kept * BLOCK_BYTES, 0)) as data:
        sweep(data, store)
    assert (sum(store.reads.values()) > store.n_blocks) == (n_kept < store.n_blocks)


def test_prefetch__reads_beside_whoever_asked():
    store = Store([200])
    store.seconds = 0.1
    begin, end = np.array([0]), np.array([200])
    with closing(store.open(10**9, 0)) as data:
        began = time.perf_counter()
        data.prefetch(begin, end)
        assert time.perf_counter() - began < 0.1 * store.n_blocks / 5
        options = {"n_rows": 200, "n_segments": 1, "fill": 0}
        found = data.gather(begin, end, **options)
        # Four readers: a quarter of the time that one takes, and some.
        assert time.perf_counter() - began < 0.1 * store.n_blocks / 2
    np.testing.assert_array_equal(found, store.sliced(begin, end, **options))


@pytest.mark.parametrize("kept", [0, 10**9])
@pytest.mark.parametrize("is_ahead", [False, True])
def test_gather__reads_again_what_could_not_be_read(kept, is_ahead):
    store = Store([40, 30])
    block = Block(store.index.sessions[1].index, 8, 16)
    store.fails[block] = 2
    begin, end = np.array([40 + 6, 3]), np.array([40 + 18, 12])
    options = {"n_rows": 12, "n_segments": 2, "fill": 0}
    with closing(store.open(kept, 10 * BLOCK_BYTES)) as data:
        if is_ahead:
            data.prefetch(begin, end)
            wait([*data._kept.values(), *data._recent.values()])
        n_errors = 0
        for _ in range(3):
            try:
                found = data.gather(begin, end, **options)
                break
            except OSError:
                n_errors += 1
        assert n_errors == (1 if is_ahead else 2)
        np.testing.assert_array_equal(found, store.sliced(begin, end, **options))
        n_reads = sum(store.reads.values())
        data.gather(begin, end, **options)
        assert sum(store.reads.values()) == n_reads
        assert held(data) <= kept + 10 * BLOCK_BYTES


@pytest.mark.parametrize(("kept", "recent"), [(10**9, 0), (5 * BLOCK_BYTES, 40 * BLOCK_BYTES)])
def test_gather__from_many_threads(kept, recent):
    store = Store([300, 80, 7, 150])
    store.seconds = 0.001
    failures: list[object] = []
    options = {"n_rows": 25, "n_segments": 4, "fill": 0}

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            begin, end = store.spans(rng, 4, 25)
            if rng.random() < 0.5:
                data.prefetch(begin, end)
            found = data.gather(begin, end, **options)
            expected = store.sliced(begin, end, **options)
            if not np.array_equal(found, expected, equal_nan=True):
                failures.append((begin, end))

    with closing(store.open(kept, recent)) as data:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert held(data) <= kept + recent
    assert not failures
    if kept == 10**9:
        assert set(store.reads.values()) == {1}


def test_close__ends_what_is_being_read():
    store = Store([400])
    store.seconds = 0.02
    data = store.open(10**9, 0)
    data.prefetch(np.array([0]), np.array([400]))
    began = time.perf_counter()
    data.close()
    assert time.perf_counter() - began < 0.02 * store.n_blocks / 2
    assert sum(store.reads.values()) < store.n_blocks


def test_observe__is_nan_where_nothing_was_seen(tmp_path):
    study = synthetic.SyntheticStudy(n_sessions=2, n_frames=50, n_keypoints=3, missing_fraction=0.1)
    synthetic.write_store(tmp_path / "s.zarr", study)
    reader = BlockReader(tmp_path / "s.zarr")
    config = FitConfig(noise_slope=-0.3, noise_intercept=0.1)
    for block in iter_blocks([Session("session_000", 0, 50, 30.0)]):
        found = observe(reader, block, NoiseByConfidence.of(config))
        position, confidence = reader.position(block), reader.confidence(block)
        position[(confidence == 0) | ~np.isfinite(position).all(-1)] = np.nan
        np.testing.assert_array_equal(found[:, :6].reshape(position.shape), position)
        assert np.isnan(found[:, :6]).any()
        expected = 10 ** (2 * (-0.3 * np.log10(confidence + 1e-3) + 0.1))
        np.testing.assert_allclose(found[:, 6:], expected, rtol=1e-5)
        assert found.dtype == np.float32
