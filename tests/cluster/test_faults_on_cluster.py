"""Workers that retire, sleep or lose their disk: the bits of one process all the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import kpms_zarr
from helpers.on_cluster import CONFIG, After, Notes, assert_same, make_study, published
from kpms_zarr.compute.cluster import crew as crew_module
from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.runs import plan


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("faults") / "study.zarr")


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


@pytest.fixture(scope="module")
def quiet(original: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a fit in this process publishes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_FRAMES", 320)
        store = Path(shutil.copytree(original, tmp_path_factory.mktemp("quiet") / "study.zarr"))
        kpms_zarr.fit(store, model="m", config=CONFIG)
    return published(store)


# ------------------------------------------------------------------ walltime


@contextmanager
def retiring_workers(folder: Path, n: int, lifetime: str) -> Iterator[str]:
    """A scheduler, and workers that end after their lifetime and are begun again."""
    file = folder / "scheduler.json"
    quietly: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file",
                 str(file), "--port", "0", "--no-dashboard"]  # fmt: skip
    worker = [
        sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file),
        "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder), "--lifetime",
        lifetime, "--lifetime-restart", "--lifetime-stagger", "2s", "--memory-limit", "2GB",
    ]  # fmt: skip
    begun = [subprocess.Popen(line, **quietly) for line in (scheduler, *[worker] * n)]
    try:
        while not file.exists():
            time.sleep(0.1)
        yield str(file)
    finally:
        for process in reversed(begun):
            process.terminate()
        for process in begun:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.full
@pytest.mark.slow
def test_fit__outlives_the_walltime_of_its_workers(
    store: Path, quiet: list[Any], tmp_path: Path, small_shards_plugin: Any
) -> None:
    """Each of them ends and is begun again, some of them more than once."""
    with (
        retiring_workers(tmp_path, 2, "30s") as file,
        Client(scheduler_file=file, set_as_default=False) as client,
    ):
        client.register_plugin(small_shards_plugin)
        client.wait_for_workers(2)
        first, seen = set(client.scheduler_info()["workers"]), set()

        def wait() -> None:
            time.sleep(5)
            seen.update(client.scheduler_info()["workers"])

        kpms_zarr.fit(
            store, model="m", config=CONFIG, cluster=client, save_every=3,
            callbacks=[After(1, wait, again=True)],
        )  # fmt: skip
        assert seen - first  # some came for those that had retired
    assert_same(published(store), quiet)


# ------------------------------------------------------------------ stragglers


@pytest.mark.slow
def test_calls__to_a_worker_that_sleeps_are_made_elsewhere(
    two_workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer counts; nobody waits for the other one."""
    monkeypatch.setattr(crew_module, "_SLOW_SECONDS", 0.5)
    _, client = two_workers
    notes: list[str] = []
    crew = Crew(client, notes.append)
    sleepy, awake = sorted(crew.workers())
    parts = [Part(f"part {i}", worker) for i, worker in enumerate((sleepy, awake, awake))]

    def nap(number: int, where: str) -> int:
        import time

        from distributed import get_worker

        time.sleep(5.0 if get_worker().address == where else 0.05)
        return number

    began = time.monotonic()
    found = crew.call(parts, nap, lambda part, is_whole: (part, sleepy))
    assert found == [0, 1, 2]
    assert time.monotonic() - began < 4.5
    assert parts[0].worker == awake
    assert notes == ["part 0 takes long: tried elsewhere as well"]


@pytest.mark.full
@pytest.mark.slow
def test_fit__with_a_worker_that_sleeps_in_mid_sweep(
    workers: Any, store: Path, quiet: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "_SLOW_SECONDS", 2.0)
    monkeypatch.setattr(crew_module, "_SLOW", 2.0)
    notes = Notes()
    with workers(2) as (_, client):

        def sleep_once() -> None:
            import time

            from kpms_zarr.compute.runs import bundle

            carry_out = bundle._Bundle.carry_out

            def slowly(self: Any, *given: Any) -> None:
                bundle._Bundle.carry_out = carry_out
                time.sleep(15)
                carry_out(self, *given)

            bundle._Bundle.carry_out = slowly

        def fall_asleep() -> None:
            client.run(sleep_once, workers=[min(client.scheduler_info()["workers"])])

        kpms_zarr.fit(
            store, model="m", config=CONFIG, cluster=client, save_every=3,
            callbacks=[notes, After(4, fall_asleep)],
        )  # fmt: skip
    assert any("tried elsewhere as well" in note for note in notes)
    assert_same(published(store), quiet)


# ------------------------------------------------------------------ storage


@pytest.mark.slow
def test_calls__that_the_disk_of_one_worker_refuses_are_made_elsewhere(two_workers: Any) -> None:
    """Where that of another does, too, it is the error of the storage."""
    _, client = two_workers
    notes: list[str] = []
    crew = Crew(client, notes.append)
    bad, good = sorted(crew.workers())

    def read(where: str) -> int:
        from distributed import get_worker

        if get_worker().address == where or not where:
            raise PermissionError(13, "Permission denied", "/data")
        return 1

    for options in ({}, {"anywhere": True}):
        parts = [Part("part 0", bad), Part("part 1", good)]
        assert crew.call(parts, read, lambda part, is_whole: (bad,), **options) == [1, 1]
    assert len(notes) == 2
    assert "Permission denied" in notes[0]
    with pytest.raises(PermissionError):
        crew.call([Part("part 0", bad)], read, lambda part, is_whole: ("",))


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refuses", "is gone"])
def test_fit__with_a_worker_that_loses_its_storage(
    workers: Any, store: Path, quiet: list[Any], kind: str
) -> None:
    """Another one does what it cannot."""
    notes = Notes()
    with workers(2) as (_, client):

        def lose(kind: str) -> None:
            from kpms_zarr.compute.runs import bundle
            from kpms_zarr.store.core import access

            def refuse(*given: Any, **more: Any) -> None:
                raise OSError(5, "Input/output error")

            if kind == "refuses":
                bundle.ChainRows.write = refuse
                bundle.restore_rows = refuse
            else:
                access.subgroup = lambda root, path: None

        def fall_out() -> None:
            client.run(lose, kind, workers=[min(client.scheduler_info()["workers"])])

        kpms_zarr.fit(
            store, model="m", config=CONFIG, cluster=client, save_every=3,
            callbacks=[notes, After(4, fall_out)],
        )  # fmt: skip
    if kind == "refuses":
        assert any("Input/output error): tried elsewhere" in note for note in notes)
    assert_same(published(store), quiet)


@pytest.mark.full
@pytest.mark.slow
def test_fit__whose_workers_all_lose_their_storage_says_how_to_go_on(
    workers: Any, store: Path, quiet: list[Any]
) -> None:
    with workers(2) as (_, client):

        def lose() -> None:
            from kpms_zarr.compute.runs import bundle

            def refuse(*given: Any, **more: Any) -> None:
                raise OSError(28, "No space left on device")

            bundle.ChainRows.write = refuse

        with pytest.raises(OSError, match="sweep 3 is committed") as caught:
            kpms_zarr.fit(
                store, model="m", config=CONFIG, cluster=client, save_every=3,
                callbacks=[After(4, lambda: client.run(lose))],
            )  # fmt: skip
    assert "No space left" in str(caught.value)
    assert "resume=True" in str(caught.value)
    kpms_zarr.fit(store, model="m", resume=True)
    assert_same(published(store), quiet)


# ------------------------------------------------------------------ threads


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize(("n", "threads"), [(1, 2), (2, 3)])
def test_fit__on_workers_of_several_threads(
    workers: Any, store: Path, quiet: list[Any], n: int, threads: int
) -> None:
    with workers(n, threads) as (_, client):
        kpms_zarr.fit(store, model="m", config=CONFIG, cluster=client, save_every=4)
    assert_same(published(store), quiet)
