"""What a worker remembers: any order of calls, lost and repeated ones, gives the same bits."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.cluster.crew import Forgotten
from kpms_zarr.compute.config import Budget
from kpms_zarr.compute.runs import bundle, plan
from kpms_zarr.compute.runs.bundle import (
    BundleWork,
    CountOrder,
    KeepOrder,
    Order,
    RelabelOrder,
    SweepOrder,
    bundles_of,
    forget,
    work,
)
from kpms_zarr.compute.runs.commit import read_preparation, restore
from kpms_zarr.compute.runs.preparation import load_data, make_chain, plan_of
from kpms_zarr.compute.runs.stages import make_sweeper, model_of
from kpms_zarr.compute.sampler.bouts import LabelCounts
from kpms_zarr.compute.sampler.draws import DrawSchedule
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.tile_model import SweepSums
from kpms_zarr.store.core import access
from kpms_zarr.store.model.checkpoints import read_checkpoint
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.05,
    lengths=(300, 2, 260, 5, 210, 90),
)  # fmt: skip
CONFIG = replace(SMALL, ar_sweeps=2, sweeps=4, average_sweeps=3)
SHARD_FRAMES = 320


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A fit that was stopped after its first full sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_FRAMES", SHARD_FRAMES)
        found = tmp_path_factory.mktemp("bundle") / "study.zarr"
        synthetic.write_store(found, STUDY)
        kpms_zarr.pca(found)

        def stop(event: object) -> None:
            if type(event).__name__ == "SweepEnded" and event.sweep == 3:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            kpms_zarr.fit(found, model="m", config=CONFIG, callbacks=[stop], save_every=1)
    return found


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(plan, "SHARD_FRAMES", SHARD_FRAMES)


def whole(store: Path) -> tuple[Any, Any, Any, Any]:
    """Chain and sweeper of all sessions in this process, at the commit."""
    checkpoint = read_checkpoint(access.open_group(store), "m")
    assert checkpoint is not None
    config, preparation = read_preparation(store, checkpoint)
    resources = plan_of(preparation, config, Budget(), lambda event: None)
    chain = make_chain(preparation, config, resources, None, DrawSchedule.of(config).n_draws)
    load_data(chain, preparation, config)
    progress = restore(chain, checkpoint, config)
    return make_sweeper(chain, config, Pipeline(2)), progress, preparation, config


def orders_of(progress: Any, n: int) -> list[Order]:
    """Sweeps with the parameters as they are, draws that are kept, states that become others."""
    target = np.arange(len(progress.parameters.usage))
    target[3] = 1
    found: list[Order] = []
    for number in range(n):
        noise = np.asarray(progress.noise_variance)
        states = np.array([0, 1, 2, 5, 7]) if number == 1 else None
        found.append(SweepOrder("full", 3 + number, progress.parameters, noise, False, states))
        found += [KeepOrder(0)] if number == 1 else []
        found += [RelabelOrder(target)] if number == 2 else []
    return [*found, CountOrder()]


def of_all(store: Path, orders: list[Order]) -> tuple[list[SweepSums], LabelCounts, np.ndarray]:
    """What they give in one process, by order; counts and labels at the end."""
    sweeper, _, preparation, config = whole(store)
    sums = []
    for order in orders:
        if isinstance(order, SweepOrder):
            model = model_of("full", preparation, config, order.noise_variance, states=order.states)
            sums.append(sweeper.draw(model, order.parameters, order.number))
        elif isinstance(order, RelabelOrder):
            sweeper.relabel(order.target)
    chain = sweeper.chain
    counts = sweeper.relabel(np.arange(config.n_states))
    return sums, counts, np.asarray(chain.syllable[0 : chain.index.n_frames]).copy()


def named(store: Path, n_bundles: int) -> list[tuple[str, ...]]:
    sweeper, *_ = whole(store)
    index = sweeper.chain.index
    which = bundles_of(index.shard, index.length, n_bundles)
    return [bundle.names_of(index.sessions, rows) for rows in which]


def asked(
    store: Path, sessions: tuple[str, ...], orders: list[Order], first: int, last: int, fit: str
) -> BundleWork:
    found = read_checkpoint(access.open_group(store), "m")
    return BundleWork(
        str(store), "m", fit, 1, sessions, found.name, 0, first, tuple(orders[first:last]), 30.0
    )  # fmt: skip


def total(parts: list[dict[int, SweepSums]]) -> SweepSums:
    every = reduce(dict.__or__, parts)
    return reduce(SweepSums.plus, [every[shard] for shard in sorted(every)])


@pytest.mark.slow
@settings(max_examples=examples(6), deadline=None)
@given(
    n_bundles=st.integers(1, 4),
    happenings=st.lists(
        st.sampled_from(["next", "next", "twice", "lost", "late", "other worker"]),
        min_size=4, max_size=10,
    ),
)  # fmt: skip
def test_work__any_course_gives_the_sums_of_one_process(store, n_bundles, happenings):
    _, progress, *_ = whole(store)
    orders = orders_of(progress, 4)
    expected, counts, _ = of_all(store, orders)
    bundles = named(store, n_bundles)
    fit = f"{n_bundles} {happenings}"
    done, found = 0, []
    for happening in [*happenings, *["next"] * len(orders)]:
        if done == len(orders):
            break
        if happening == "late" and done > 1:  # the call before the last comes once more
            with pytest.raises(Forgotten):
                work(asked(store, bundles[0], orders, done - 2, done - 1, fit))
            continue
        if happening == "lost":  # the process has ended; it is not told so
            forget(fit)
            if done:
                with pytest.raises(Forgotten):
                    work(asked(store, bundles[0], orders, done, done + 1, fit))
        is_whole = happening in ("lost", "other worker")
        calls = [
            asked(store, names, orders, 0 if is_whole else done, done + 1, fit)
            for names in bundles
        ]  # fmt: skip
        results = [work(call) for call in calls]
        if happening == "twice":
            again = [work(call) for call in calls]
            assert [bits(a.sums) for a in again] == [bits(b.sums) for b in results]
        if isinstance(orders[done], SweepOrder):
            found.append(total([result.sums for result in results]))
        done += 1
    for one, other in zip(found, expected, strict=True):
        assert [np.asarray(v).tobytes() for v in one] == [np.asarray(v).tobytes() for v in other]
    last = [work(asked(store, names, orders, 0, len(orders), fit)).counts for names in bundles]
    summed = reduce(LabelCounts.plus, last)
    np.testing.assert_array_equal(summed.transitions, counts.transitions)
    np.testing.assert_array_equal(summed.bouts, counts.bouts)
    forget(fit)
    assert not [key for key in bundle._MEMORY.bundles if key[0] == fit]


def bits(sums: dict[int, SweepSums]) -> list[bytes]:
    return [np.asarray(value).tobytes() for shard in sorted(sums) for value in sums[shard]]


def test_work__that_fails_half_way_is_forgotten(store, monkeypatch):
    _, progress, *_ = whole(store)
    orders = orders_of(progress, 2)
    (names,) = named(store, 1)
    work(asked(store, names, orders, 0, 1, "f"))
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "count_labels", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            work(asked(store, names, orders, 1, 2, "f"))
    with pytest.raises(Forgotten):
        work(asked(store, names, orders, 1, 2, "f"))
    expected, *_ = of_all(store, orders)
    again = work(asked(store, names, orders, 0, 1, "f"))
    assert total([again.sums]).moments.tobytes() == expected[0].moments.tobytes()
    forget("f")


def test_work__of_a_commit_that_is_gone(store):
    _, progress, *_ = whole(store)
    (names,) = named(store, 1)
    call = replace(asked(store, names, orders_of(progress, 1), 0, 1, "g"), commit="s000000099")
    with pytest.raises(Forgotten, match="s000000099"):
        work(call)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5000)), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_bundles__share_whole_shards_out_evenly(sessions, n_bundles):
    shard = np.cumsum([step for step, _ in sessions])
    frames = np.array([n for _, n in sessions])
    found = bundles_of(shard, frames, n_bundles)
    assert np.array(found).sum(0).tolist() == [1] * len(sessions)
    assert all(rows.any() for rows in found)
    assert len(found) == min(n_bundles, len(set(shard.tolist())))
    for number in set(shard.tolist()):
        assert sum((rows & (shard == number)).any() for rows in found) == 1
    # Of any list schedule (Graham, 1966).
    held = [frames[rows].sum() for rows in found]
    largest = max(frames[shard == number].sum() for number in set(shard.tolist()))
    assert max(held) <= frames.sum() / len(found) + largest
