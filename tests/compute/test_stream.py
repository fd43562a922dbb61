"""Tiles in threads: order, dependencies, memory that runs out, and how busy the device was."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.errors import OutOfMemoryError
from kpms_zarr.compute.sampler import stream
from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape, schedule
from kpms_zarr.compute.sampler.stream import (
    BusyMeter,
    Pipeline,
    in_flight,
    is_out_of_memory,
    run_tasks,
)
from kpms_zarr.store.core.access import Session

NO_MEMORY = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."


def tasks_of(n: int) -> list[Task]:
    """Tiles without anything in them, which need nothing."""
    none = np.zeros(0, np.int64)
    return [Task(False, Tile(np.array([i]), none, none), 0) for i in range(n)]


def number_of(task: Task) -> int:
    return int(task.tile.session[0])


class Machine:
    """Updates tiles; has memory for so many at once."""

    def __init__(self, n_fit: float = np.inf, seconds: float = 0.0) -> None:
        self.n_fit, self.seconds = n_fit, seconds
        self.n_running = self.most = self.n_failed = 0
        self.finished: list[Task] = []
        self._lock = threading.Lock()

    def __call__(self, task: Task) -> int:
        with self._lock:
            self.n_running += 1
            self.most = max(self.most, self.n_running)
            is_too_much = self.n_running > self.n_fit
            self.n_failed += is_too_much
        try:
            time.sleep(self.seconds)
            if is_too_much:
                raise RuntimeError(NO_MEMORY)
            with self._lock:
                self.finished.append(task)
            return number_of(task) ** 2
        finally:
            with self._lock:
                self.n_running -= 1


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(0, 30), st.integers(1, 8))
def test_run_tasks__results_come_in_order_and_no_more_run_than_may(n_tasks, n):
    machine, ahead, told = Machine(seconds=1e-4), [], []
    pipeline = Pipeline(n)
    tasks = tasks_of(n_tasks)
    found = list(
        run_tasks(
            machine, tasks, pipeline, is_double=False,
            read_ahead=lambda task: ahead.append((number_of(task), len(machine.finished))),
            on_tile=lambda *what: told.append(what),
        )
    )  # fmt: skip
    assert [result for _, result in found] == [i**2 for i in range(n_tasks)]
    assert [task for task, _ in found] == tasks
    assert machine.most <= n
    assert told == [(i + 1, n_tasks) for i in range(n_tasks)]
    # Each is read ahead once, in order, and not so early that it needs much room.
    assert [number for number, _ in ahead] == list(range(n_tasks))
    assert all(number < n_done + n + pipeline.n_ahead for number, n_done in ahead)


def test_run_tasks__reads_ahead_of_the_turn():
    ahead, late = [], []

    def update(task: Task) -> None:
        if number_of(task) not in ahead:
            late.append(task)

    pipeline = Pipeline(2)
    for task, _ in run_tasks(
        update, tasks_of(20), pipeline, is_double=False,
        read_ahead=lambda task: ahead.append(number_of(task)),
    ):  # fmt: skip
        assert max(ahead) >= min(19, number_of(task) + pipeline.n_ahead - 1)
    assert not late


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("lag", [0, 1, 5])
def test_run_tasks__odd_tiles_wait_for_the_even_ones_around_them(n, lag):
    lengths = [900, 30, 400, 5, 650]
    index = ChainIndex.of([Session(f"s{i}", i, m, 30.0) for i, m in enumerate(lengths)], 3)
    shape = TileShape(3, 16)
    rng = np.random.default_rng(0)
    early, is_done = [], np.zeros(index.n_frames, bool)
    pause = {}

    def rows(tile: Tile) -> list[slice]:
        begin = index.first[tile.session] + tile.start
        return [slice(a, b) for a, b in zip(begin, begin + tile.length, strict=True)]

    def update(task: Task) -> None:
        if task.is_odd:
            for session, part in zip(task.tile.session, rows(task.tile), strict=True):
                first = index.first[session]
                inside = (part.start - 1, part.stop)
                places = [
                    t for t in inside if first + index.lags <= t < first + index.length[session]
                ]
                if not is_done[places].all():
                    early.append(task)
        time.sleep(pause[id(task)])
        for part in rows(task.tile):
            is_done[part] = True

    tasks = schedule(index, shape, 0, 4, lag)
    assert sum(task.is_odd for task in tasks) > 10
    pause.update({id(task): 0.002 * rng.random() for task in tasks})
    list(run_tasks(update, tasks, Pipeline(n), is_double=False))
    assert not early
    assert is_done.sum() == index.n_modelled.sum()
    # Wrong twin: tiles that are said to need nothing.
    is_done[:] = False
    careless = [Task(task.is_odd, task.tile, 0) for task in tasks[::-1]]
    pause.update({id(task): 0.0 for task in careless})
    list(run_tasks(update, careless, Pipeline(n), is_double=False))
    assert early


# ------------------------------------------------------------------ memory that runs out


@settings(deadline=None, max_examples=examples(40))
@given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 16))
def test_out_of_memory__halves_what_is_in_flight_until_it_fits(n_tasks, n, n_fit):
    """Also when many fail at once, and when what was found too much has failed before."""
    machine, told = Machine(n_fit, seconds=5e-4), []
    pipeline = Pipeline(n, on_less=told.append)
    found = list(run_tasks(machine, tasks_of(n_tasks), pipeline, is_double=False))
    assert [result for _, result in found] == [i**2 for i in range(n_tasks)]
    assert sorted(map(number_of, machine.finished)) == list(range(n_tasks))
    halved = [n // 2**i for i in range(1, 6) if n // 2**i]
    assert told == halved[: len(told)]
    # No less than fits: once it is that few, nothing fails any more.
    assert all(before > n_fit for before in [n, *told[:-1]][: len(told)])
    if n <= n_fit:
        assert not told
        assert not machine.n_failed
    assert pipeline.n == (told or [n])[-1]


def test_out_of_memory__stays_halved_for_the_sweeps_that_follow():
    machine = Machine(2, seconds=2e-3)
    pipeline = Pipeline(8)
    list(run_tasks(machine, tasks_of(30), pipeline, is_double=False))
    assert pipeline.n == 2
    n_failed = machine.n_failed
    list(run_tasks(machine, tasks_of(30), pipeline, is_double=False))
    assert machine.n_failed == n_failed > 0


@pytest.mark.parametrize("n", [1, 4, 5])
def test_out_of_memory__of_a_single_tile_is_an_error(n):
    told: list[int] = []
    pipeline = Pipeline(n, on_less=told.append)
    machine = Machine(0)
    with pytest.raises(OutOfMemoryError, match="RESOURCE_EXHAUSTED") as caught:
        list(run_tasks(machine, tasks_of(9), pipeline, is_double=False))
    assert told == [n // 2**i for i in range(1, 4) if n // 2**i]
    assert not machine.finished
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "`resume=True`" in str(caught.value)


def test_out_of_memory__that_passes_is_no_error():
    """Another process took the memory for a while: the same tile succeeds when it is run again."""
    machine = Machine(0)

    def update(task: Task) -> int:
        machine.n_fit = 0 if machine.n_failed < 3 else 10
        return machine(task)

    pipeline = Pipeline(8)
    found = list(run_tasks(update, tasks_of(12), pipeline, is_double=False))
    assert [result for _, result in found] == [i**2 for i in range(12)]
    assert pipeline.n >= 1


def test_other_errors__end_the_sweep_after_what_runs():
    machine = Machine(seconds=0.01)

    def update(task: Task) -> int:
        if number_of(task) == 3:
            raise ValueError("no memory of that")
        return machine(task)

    seen = []

    def sweep() -> None:
        with closing(run_tasks(update, tasks_of(20), Pipeline(4), is_double=False)) as parts:
            seen.extend(result for _, result in parts)

    with pytest.raises(ValueError, match="no memory of that"):
        sweep()
    assert seen == [0, 1, 4]
    # Nobody writes any more.
    n_finished = len(machine.finished)
    assert machine.n_running == 0
    time.sleep(0.03)
    assert len(machine.finished) == n_finished < 10


def test_is_out_of_memory__knows_both_kinds():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError(NO_MEMORY))
    assert is_out_of_memory(jax.errors.JaxRuntimeError(NO_MEMORY))
    assert not is_out_of_memory(RuntimeError("INTERNAL: something else"))


# ------------------------------------------------------------------ precision, and the meter


@pytest.mark.parametrize("is_double", [False, True])
def test_threads__have_the_precision_that_was_asked_for(is_double):
    def dtype(_: object) -> str:
        return str(jax.numpy.asarray(np.zeros(1)).dtype)

    def of_task(task: Task) -> str:
        return str(jax.numpy.asarray(np.zeros(1, np.float32)).astype(float).dtype)

    expected = "float64" if is_double else "float32"
    if is_double:
        assert list(in_flight(dtype, range(5), 2, is_double=True)) == [expected] * 5
    found = run_tasks(of_task, tasks_of(5), Pipeline(2), is_double=is_double)
    assert [result for _, result in found] == [expected] * 5
    assert not jax.config.jax_enable_x64


def test_meter__counts_when_nothing_runs(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(stream.time, "perf_counter", lambda: clock[0])

    def pass_by(seconds: float) -> None:
        clock[0] += seconds

    meter = BusyMeter()
    pass_by(2)
    with meter.busy():
        pass_by(3)
        with meter.busy():  # a second tile beside the first counts once
            pass_by(4)
    pass_by(1)
    assert meter.restart() == pytest.approx(3 / 10)
    pass_by(5)
    assert meter.restart() == 1
    with meter.busy():
        pass_by(7)
    assert meter.restart() == 0
    # Also what fails has kept the device busy.
    with suppress(RuntimeError), meter.busy():
        pass_by(6)
        raise RuntimeError(NO_MEMORY)
    pass_by(2)
    assert meter.restart() == pytest.approx(2 / 8)


def test_meter__of_threads_is_not_that_of_one_after_the_other():
    meter = BusyMeter()

    def run(_: object) -> None:
        with meter.busy():
            time.sleep(0.05)

    meter.restart()
    for _ in in_flight(run, range(4), 4, is_double=False):
        pass
    time.sleep(0.1)
    # One after the other would leave a third.
    assert 0.45 < meter.restart() < 0.9
