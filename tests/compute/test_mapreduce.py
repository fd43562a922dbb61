"""map_reduce: fixed order, few results held, small graphs; flat memory of what builds on it."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import threading
from functools import partial
from operator import add
from pathlib import Path
from types import ModuleType

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute import mapreduce
from kpms_zarr.compute.mapreduce import BlockReader, map_reduce
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store


def one(item: int) -> tuple[int, ...]:
    return (item,)


def noisy(item: int) -> np.float32:
    return np.float32(np.random.default_rng(item).normal() * 10.0 ** (item % 9))


@settings(deadline=None, max_examples=examples(30))
@given(n_items=st.integers(1, 900), batch=st.integers(1, 9))
def test_map_reduce__keeps_the_order_of_the_items(n_items, batch):
    assert map_reduce(one, range(n_items), add, batch=batch) == tuple(range(n_items))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("n_workers", [1, 2, 7])
def test_map_reduce__rounds_the_same_way_with_any_scheduler(scheduler, n_workers):
    expected = map_reduce(noisy, range(777), add)
    with dask.config.set(scheduler=scheduler, num_workers=n_workers):
        assert map_reduce(noisy, range(777), add) == expected


def test_map_reduce__order_matters_to_the_rounding():
    """The wrong twin: another order gives other bits, so the tests above can fail."""
    assert map_reduce(noisy, reversed(range(777)), add) != map_reduce(noisy, range(777), add)


def test_map_reduce__refuses_no_items():
    with pytest.raises(ValueError, match="at least one item"):
        map_reduce(one, [], add)


def test_map_reduce__passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        map_reduce(partial(divmod, 1), [1, 0], add)


class Held:
    """A result that counts how many of its kind exist."""

    lock = threading.Lock()
    alive = 0
    most = 0

    def __init__(self, total: int) -> None:
        self.total = total
        with Held.lock:
            Held.alive += 1
            Held.most = max(Held.most, Held.alive)

    def __del__(self) -> None:
        with Held.lock:
            Held.alive -= 1


def test_map_reduce__holds_few_results():
    def plus(a: Held, b: Held) -> Held:
        return Held(a.total + b.total)

    with dask.config.set(num_workers=2):
        assert map_reduce(Held, range(5000), plus).total == sum(range(5000))
    assert Held.most < 30


def test_map_reduce__graph_does_not_grow(monkeypatch):
    sizes = []
    compute = dask.compute

    def watched(node):
        sizes.append(len(dict(node.__dask_graph__())))
        return compute(node)

    monkeypatch.setattr(mapreduce.dask, "compute", watched)
    map_reduce(one, range(4000), add)
    assert max(sizes) < 200


def test_map_reduce__reads_items_as_it_goes():
    taken, seen = [], []

    def items():
        for item in range(4000):
            taken.append(item)
            yield item

    def look(item: int) -> int:
        seen.append(len(taken))
        return item

    map_reduce(look, items(), add)
    assert seen[0] <= 300


def test_block_reader__reads_the_frames_of_a_block_after_a_journey(tmp_path):
    study = SyntheticStudy(n_sessions=2, n_frames=300)
    write_store(tmp_path / "s.zarr", study)
    reader = BlockReader(tmp_path / "s.zarr")
    truth = simulate_session(study, 1)
    for each in (reader, pickle.loads(pickle.dumps(reader))):
        np.testing.assert_array_equal(each.position(Block(1, 20, 90)), truth.position[20:90])
        np.testing.assert_array_equal(each.confidence(Block(1, 20, 90)), truth.confidence[20:90])
    assert len(pickle.dumps(reader)) < 1000
    assert not reader.is_scaled


def test_block_reader__selects_and_scales_after_a_journey(tmp_path):
    study = SyntheticStudy(n_sessions=2, n_frames=300)
    write_store(tmp_path / "s.zarr", study)
    reader = BlockReader(tmp_path / "s.zarr", keypoints=[5, 0, 3], scale={1: 0.02})
    assert reader.store == str(tmp_path / "s.zarr")
    assert reader.is_scaled
    for each in (reader, pickle.loads(pickle.dumps(reader))):
        for session, scale in ((0, 1.0), (1, 0.02)):
            truth = simulate_session(study, session)
            position = each.position(Block(session, 20, 90))
            expected = truth.position[20:90][:, [5, 0, 3]] / scale
            np.testing.assert_allclose(position, expected, rtol=1e-6)
            assert position.dtype == np.float32
            assert position.flags.c_contiguous
            confidence = each.confidence(Block(session, 20, 90))
            np.testing.assert_array_equal(confidence, truth.confidence[20:90][:, [5, 0, 3]])


def test_block_reader__is_silent_where_a_scaled_position_leaves_float32(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=30))
    access.open_group(tmp_path / "s.zarr", "r+")["keypoints/position"][0, 0] = 3e38
    position = BlockReader(tmp_path / "s.zarr", scale={0: 1e-3}).position(Block(0, 0, 30))
    assert np.isinf(position[0]).all()
    assert np.isfinite(position[1:]).all()


def test_block_reader__a_scale_of_one_changes_nothing(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=30))
    reader = BlockReader(tmp_path / "s.zarr", scale={0: 1.0})
    assert not reader.is_scaled
    plain = BlockReader(tmp_path / "s.zarr").position(Block(0, 0, 30))
    np.testing.assert_array_equal(reader.position(Block(0, 0, 30)), plain)


# ------------------------------------------------------------------ memory


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "memory_out_of_core.py"
    spec = importlib.util.spec_from_file_location("memory_out_of_core", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stores(benchmark, tmp_path_factory) -> dict[str, Path]:
    """A small store, one with 8 times the sessions, one with a session 8 times as long."""
    folder = tmp_path_factory.mktemp("stores")
    found = {name: folder / f"{name}.zarr" for name in ("small", "many", "long")}
    benchmark.write_repeated(found["small"], 2)
    benchmark.write_repeated(found["many"], 16)
    benchmark.write_repeated(found["long"], 2, 8 * benchmark.SESSION_FRAMES)
    return found


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
@pytest.mark.parametrize("larger", ["many", "long"])
@pytest.mark.parametrize("verbs", [("quality", "pca"), ("changepoints",)])
def test_memory__does_not_grow_with_the_study(benchmark, stores, larger, verbs):
    small, large = (
        benchmark.measure(stores[name], verbs)["megabytes"] for name in ("small", larger)
    )
    assert large < 1.3 * small + 40


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_memory__the_measurement_sees_what_is_held(benchmark, stores):
    """The wrong twin: reading everything at once is found out."""
    small = benchmark.measure(stores["small"], ("hold_everything",))["megabytes"]
    many = benchmark.measure(stores["many"], ("hold_everything",))["megabytes"]
    assert many > 1.3 * small + 40
