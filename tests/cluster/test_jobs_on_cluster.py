"""Jobs on workers that are no fit of one chain: what one process finds, whoever dies on the way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr

import kpms_zarr
from helpers.on_cluster import CONFIG, KillsOne, Notes, assert_same, make_study, published
from kpms_zarr.cli import main
from kpms_zarr.compute.cluster.connect import connected
from kpms_zarr.compute.cluster.crew import ClusterLost, Crew
from kpms_zarr.compute.events import ChainEnded
from kpms_zarr.compute.mapreduce import map_reduce
from kpms_zarr.compute.runs import remote
from kpms_zarr.store.core import access
from kpms_zarr.store.model.checkpoints import Checkpoints

AR = replace(CONFIG, stage="ar", average_sweeps=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("jobs") / "study.zarr")


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def copy_of(store: Path, name: str = "other") -> Path:
    return Path(shutil.copytree(store, store.parent / f"{name}.zarr"))


# ------------------------------------------------------------------ scans


def same_scan(one: Path, two: Path, name: str) -> None:
    """Figures and labels of all chains, to the bit."""
    tables = [kpms_zarr.open_scan(store, name).drop_vars("seconds") for store in (one, two)]
    assert tables[0].drop_attrs().identical(tables[1].drop_attrs())
    chains = [zarr.open_group(store, mode="r")[f"scans/{name}/chains"] for store in (one, two)]
    keys = sorted(chains[0].group_keys())
    assert keys == sorted(chains[1].group_keys())
    for key in keys:
        arrays = [dict(group[key].arrays()) for group in chains]
        assert arrays[0].keys() == arrays[1].keys()
        for array in arrays[0]:
            np.testing.assert_array_equal(arrays[0][array][...], arrays[1][array][...], f"{array}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "stage"),
    [
        ({"kappa": [10.0, 1e6]}, "ar"),
        pytest.param({"lags": "1,2"}, "ar", marks=pytest.mark.full),
        pytest.param({"kappa": [10.0, 1e6]}, "both", marks=pytest.mark.full),
    ],
)
def test_scan__on_workers_is_that_of_one_process_also_when_one_is_killed(
    workers: Any, store: Path, given: dict[str, Any], stage: str
) -> None:
    other, name = copy_of(store), next(iter(given))
    options: dict[str, Any] = {"chains": 2, "config": replace(CONFIG, stage=stage), **given}
    here = kpms_zarr.scan(store, **options)
    with workers(2) as (_, client):
        kill = KillsOne(client, lambda event: isinstance(event, ChainEnded))
        there = kpms_zarr.scan(other, **options, cluster=client, callbacks=[kill])
    assert kill.is_done
    assert here.n_chains == there.n_chains == 4
    assert here.recommendation == there.recommendation
    same_scan(store, other, name)


@pytest.mark.full
@pytest.mark.slow
def test_scan__begun_on_workers_goes_on_in_one_process(two_workers: Any, store: Path) -> None:
    other, (_, client) = copy_of(store), two_workers
    options: dict[str, Any] = {"chains": 2, "config": AR, "kappa": [10.0, 1e6]}
    kpms_zarr.scan(store, **options)

    def stop(event: object) -> None:
        if isinstance(event, ChainEnded) and event.number == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kpms_zarr.scan(other, **options, cluster=client, callbacks=[stop])
    assert kpms_zarr.scan(other, **options).n_chains in (1, 2)
    same_scan(store, other, "kappa")


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("given", [{"sessions": ("none_of_them",)}, {"n_states": 1}, {"lags": 400}])
def test_scan__that_cannot_be_is_refused_as_in_one_process(
    two_workers: Any, store: Path, given: dict[str, Any]
) -> None:
    said = []
    for cluster in (None, two_workers[1]):
        with pytest.raises(kpms_zarr.InputError) as caught:
            kpms_zarr.scan(
                store, kappa=[1.0], chains=1, config=replace(AR, **given), cluster=cluster
            )
        said.append(str(caught.value))
    assert said[0] == said[1]


# ------------------------------------------------------------------ consensus


@pytest.fixture(scope="module")
def members(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two short chains, and their consensus as one process makes it."""
    store = Path(shutil.copytree(original, tmp_path_factory.mktemp("members") / "study.zarr"))
    with pytest.MonkeyPatch.context() as patch:
        from kpms_zarr.compute.runs import plan

        patch.setattr(plan, "SHARD_FRAMES", 320)
        for seed in range(2):
            kpms_zarr.fit(store, model=f"a{seed}", config=replace(AR, seed=seed))
        kpms_zarr.consensus(store, models=["a0", "a1"], model="here", sweeps=4)
    return store


@pytest.mark.full
@pytest.mark.slow
def test_consensus__on_workers_is_that_of_one_process_also_when_one_is_killed(
    workers: Any, members: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(shutil.copytree(members, tmp_path / "study.zarr"))
    sweep, seen = remote.RemoteSweeper.sweep, []
    with workers(2) as (_, client):
        kill = KillsOne(client, lambda event: False)

        def killing(self: Any, *given: Any, **more: Any) -> Any:
            seen.append(1)
            if len(seen) == 3:
                kill.kill()
            return sweep(self, *given, **more)

        monkeypatch.setattr(remote.RemoteSweeper, "sweep", killing)
        kpms_zarr.consensus(store, models=["a0", "a1"], model="there", sweeps=4, cluster=client)
    assert len(seen) == 4
    assert kill.is_done
    assert_same(published(store, "here"), published(store, "there"))
    assert not (store / "models/there/chain").exists()
    assert kpms_zarr.verify(store).is_sound


@pytest.mark.full
def test_consensus__that_was_killed_is_no_fit_to_go_on_with(store: Path) -> None:
    root = access.open_group(store, "r+")
    access.require_group(root, "models/c")
    checkpoints = Checkpoints(root, store, "c")
    for action in ("fit", "consensus"):
        checkpoints.begin(action)
        root["models/c/chain"].attrs["current"] = "s000000004"
        is_fit = action == "fit"
        assert bool(kpms_zarr.info(store).unfinished) == is_fit
        if not is_fit:
            with pytest.raises(kpms_zarr.InputError, match="no such fit"):
                kpms_zarr.fit(store, model="c", resume=True)


@pytest.mark.full
@pytest.mark.slow
def test_chains__begun_again_go_on_with_what_a_killed_worker_had_committed(
    workers: Any, store: Path
) -> None:
    """`overwrite=True` begins each chain once, not once for each worker that has it."""
    config = replace(AR, target_duration=None, sweeps=30)
    kpms_zarr.fit(store, model="m", config=config, chains=2)
    before, notes, call = published(store, "m-01"), Notes(), Crew.call

    def has_committed(name: str) -> bool:
        chain = access.subgroup(access.open_group(store), f"models/{name}/chain")
        current = None if chain is None else chain.attrs.get("current")
        return current is not None and int(current[1:]) >= 2

    with workers(2) as (_, client):
        kill = KillsOne(client, lambda event: False)

        def watched(self: Any, *given: Any, **more: Any) -> Any:
            def look() -> None:
                more["on_poll"]()
                if not kill.is_done and has_committed("m-01") and has_committed("m-02"):
                    kill.kill()

            is_job = "on_poll" in more
            return call(self, *given, **{**more, "on_poll": look} if is_job else more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Crew, "call", watched)
            kpms_zarr.fit(
                store, model="m", config=config, chains=2, overwrite=True, cluster=client,
                save_every=1, callbacks=[notes],
            )  # fmt: skip
    assert kill.is_done
    assert any("going on after sweep" in note for note in notes)
    assert_same(before, published(store, "m-01"))


# ------------------------------------------------------------------ the whole store


def first_chunk(array: Path) -> Path:
    return min(path for path in (array / "c").rglob("*") if path.is_file())


def as_text(found: Any) -> list[Any]:
    return [found.n_chunks, found.n_sessions, found.n_checksums, *found.damages, *found.notes]


@pytest.mark.full
@pytest.mark.slow
def test_verify__on_workers_says_what_one_process_says(
    two_workers: Any, members: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, (_, client) = Path(shutil.copytree(members, tmp_path / "study.zarr")), two_workers
    lines: list[list[str]] = [[], []]
    here = kpms_zarr.verify(store, on_progress=lines[0].append)
    there = kpms_zarr.verify(store, on_progress=lines[1].append, cluster=client)
    assert here.is_sound
    assert here.n_chunks > 50
    assert as_text(here) == as_text(there)
    assert lines[0] == lines[1]
    for array in ("keypoints/position", "models/a0/labels/v1/latent"):
        first_chunk(store / array).write_bytes(b"nothing")
    shutil.rmtree(store / "models/a1/labels/v1/heading")
    here = kpms_zarr.verify(store)
    there = kpms_zarr.verify(store, cluster=client)
    assert len(here.damages) == 3
    assert as_text(here) == as_text(there)
    for where in ([], ["--cluster", client.scheduler.address]):
        main(["verify", str(store), *where])
    once = capsys.readouterr().out
    assert once[: len(once) // 2] == once[len(once) // 2 :]


@pytest.mark.full
@pytest.mark.slow
def test_verify__by_workers_that_see_no_such_store_is_done_here(
    two_workers: Any, store: Path
) -> None:
    _, client = two_workers

    def blind() -> None:
        from kpms_zarr.compute.cluster import store_work

        def refuse(*given: Any) -> None:
            raise OSError(13, "Permission denied")

        store_work.read_piece = refuse

    def see_again() -> None:
        from kpms_zarr.compute.cluster import store_work
        from kpms_zarr.store.ingest.verify import read_piece

        store_work.read_piece = read_piece

    here = kpms_zarr.verify(store)
    client.run(blind)
    try:
        there = kpms_zarr.verify(store, cluster=client)
    finally:
        client.run(see_again)
    assert there.is_sound
    assert there.n_chunks == here.n_chunks
    assert "that workers could not read" in there.notes[-1]


@pytest.mark.full
@pytest.mark.slow
def test_levels__that_workers_build_are_those_of_one_process(
    two_workers: Any, members: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (_, client) = Path(shutil.copytree(members, tmp_path / "study.zarr")), two_workers
    from kpms_zarr.store.core import layout

    before = kpms_zarr.open_levels(store, "here").load()
    monkeypatch.setattr(layout, "level_sessions", lambda n: 3)  # else all are one job
    kpms_zarr.build_levels(store, "here", overwrite=True)
    found = kpms_zarr.build_levels(store, "here", overwrite=True, cluster=client)
    assert found.has_built
    assert not kpms_zarr.build_levels(store, "here", cluster=client).has_built
    assert before.drop_attrs().identical(kpms_zarr.open_levels(store, "here").load().drop_attrs())


# ------------------------------------------------------------------ words


@pytest.mark.full
@pytest.mark.slow
def test_blocks__under_which_workers_die_end_in_a_sentence(workers: Any) -> None:
    """As those that take more memory than a worker has: not a traceback of Dask."""

    def fatal(item: int) -> int:
        import os

        os._exit(1)

    def add(one: int, two: int) -> int:
        return one + two

    def use(client: Any) -> None:
        with connected(client):
            map_reduce(fatal, [1, 2], add)

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        workers(1) as (_, client),
        pytest.raises(ClusterLost, match=r"lost 1 time under .* give them more"),
    ):
        use(client)
