"""Fits on workers: the bits of one process, whoever dies on the way."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.cluster.checkup import advise
from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.events import Noted, SessionsSettled, SweepEnded, TileDone, WorkersUsed
from kpms_zarr.compute.runs import plan, remote
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.model.checkpoints import read_checkpoint
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.05,
    lengths=(300, 2, 260, 5, 210, 290, 90, 310),
)  # fmt: skip
CONFIG = replace(
    SMALL, ar_sweeps=5, merge_sweeps=4, sweeps=5, target_duration=300.0, save_noise_scale=True,
    average_sweeps=4, tile_frames=160,  # shards of 320 frames, which have room for two tiles
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("cluster") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def result(store: Path, model: str = "m") -> list[Any]:
    return [
        opened(store, model).load() for opened in (kpms_zarr.open_labels, kpms_zarr.open_parameters)
    ]


@pytest.fixture(scope="module")
def quiet(original: Path, tmp_path_factory) -> list[Any]:
    """The result of a fit in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_FRAMES", 320)
        store = Path(shutil.copytree(original, tmp_path_factory.mktemp("quiet") / "study.zarr"))
        kpms_zarr.fit(store, model="m", config=CONFIG)
    return result(store)


def assert_same(store: Path, quiet: list[Any]) -> None:
    """All that is published, to the bit; wall times alone may differ."""
    for one, two in zip(result(store), quiet, strict=True):
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            if name != "trace_seconds":
                np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)


class At:
    """Does something once, after some sweep."""

    def __init__(self, sweep: int, act: Callable[[], object]) -> None:
        self.sweep, self.act = sweep, act

    def __call__(self, event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep == self.sweep:
            self.act()


class Notes(list[str]):
    """What was said."""

    def __call__(self, event: object) -> None:
        if isinstance(event, Noted):
            self.append(event.text)


def kill(client: Client, number: int = 0) -> None:
    """End a worker at once."""
    pids = client.run(os.getpid)
    os.kill(pids[sorted(pids)[number]], signal.SIGKILL)


# ------------------------------------------------------------------ the same bits


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, pytest.param(1, marks=pytest.mark.full),
                               pytest.param(4, marks=pytest.mark.full)])  # fmt: skip
def test_fit__on_workers_has_the_bits_of_one_process(workers, store, quiet, n, monkeypatch):
    said: list[Any] = []
    monkeypatch.setattr(remote, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(remote, "_MOST_MESSAGES", float("inf"))
    hear = remote.RemoteSweeper._hear
    monkeypatch.setattr(
        remote.RemoteSweeper, "_hear", lambda self, one: (said.append(one), hear(self, one))
    )
    events: list[Any] = []
    used = []
    with workers(n) as (_, client):
        client.wait_for_workers(n)
        kpms_zarr.fit(
            store, model="m", config=CONFIG, cluster=client, save_every=3,
            callbacks=[
                events.append,
                At(8, lambda: used.append(kpms_zarr.open_progress(store, "m").attrs)),
            ],
        )  # fmt: skip
        assert_same(store, quiet)
        # Workers have told of every tile, and it was passed on as that of one process is.
        tiles = [event for event in events if isinstance(event, TileDone)]
        assert {one.part for one in said} == set(range(n))
        for sweep in range(1, 11):
            n_done = [event.n_done for event in tiles if event.sweep == sweep]
            assert n_done == sorted(set(n_done))
            assert n_done[-1] == tiles[0].n_tiles
        ended = [event.workers for event in events if isinstance(event, SweepEnded)]
        assert ended == [WorkersUsed(n, n, 0)] * 10
        (attrs,) = used
        assert attributes.read(attrs)["workers"] == {"n_workers": n, "n_parts": n, "n_again": 0}
        # What the workers remembered of it is gone.
        held = client.run(lambda: len(__import__(
            "kpms_zarr.compute.runs.bundle", fromlist=["_MEMORY"])._MEMORY.bundles))  # fmt: skip
        assert set(held.values()) == {0}


@pytest.mark.full
@pytest.mark.slow
def test_fit__that_moves_between_workers_and_this_process_has_them_too(two_workers, store, quiet):
    _, client = two_workers
    here, there = {}, {"cluster": client}
    for first, places in ((2, (here, there, here)), (4, (there, here, there))):
        copy = Path(shutil.copytree(store, store.parent / f"copy-{first}.zarr"))
        for i, place in enumerate(places):
            stop = At(first + 3 * i, lambda: os.kill(os.getpid(), signal.SIGINT))
            options = {"resume": True} if i else {"config": CONFIG}
            try:
                kpms_zarr.fit(
                    copy, model="m", callbacks=[stop] if i < 2 else [], **place, **options
                )
            except KeyboardInterrupt:
                assert i < 2
        assert_same(copy, quiet)


@pytest.mark.slow
def test_fit__without_shards_has_other_bits(store, quiet, monkeypatch):
    """Wrong twin: in tiles across shards, which no worker has all of, frames add up to others."""
    monkeypatch.setattr(plan, "SHARD_FRAMES", 10**9)
    kpms_zarr.fit(store, model="m", config=CONFIG)
    with pytest.raises(AssertionError):
        assert_same(store, quiet)


# ------------------------------------------------------------------ who dies on the way


@pytest.mark.full
@pytest.mark.slow
def test_fit__survives_workers_that_are_killed_added_and_retired(workers, store, quiet):
    notes = Notes()
    with workers(2) as (cluster, client):
        happenings = [
            At(2, lambda: kill(client)),  # the next sweep finds it gone
            At(4, lambda: cluster.scale(3)),
            At(7, lambda: (client.wait_for_workers(2), cluster.scale(1))),
        ]
        crew_calls = remote.RemoteSweeper.write

        def killed_in_commit(self: Any, path: str, order: Any) -> int:
            if path.endswith("s000000006"):
                kill(client)
            return crew_calls(self, path, order)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote.RemoteSweeper, "write", killed_in_commit)
            kpms_zarr.fit(
                store, model="m", config=CONFIG, cluster=client, save_every=3,
                callbacks=[*happenings, notes],
            )  # fmt: skip
    assert_same(store, quiet)


@pytest.mark.full
@pytest.mark.slow
def test_fit__killed_in_the_middle_of_a_sweep(workers, store, quiet):
    """A worker that dies with its call under way: another takes it, from the commit on."""
    with workers(2) as (_, client):
        submit = Crew._submit
        seen = []

        def killing(self: Any, keys: Any, *given: Any) -> Any:
            futures = submit(self, keys, *given)
            seen.extend([keys] if len(keys) > 1 else [])
            if len(keys) > 1 and len(seen) in (4, 9):
                time.sleep(0.2)
                kill(self.client, -1)
            return futures

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Crew, "_submit", killing)
            kpms_zarr.fit(store, model="m", config=CONFIG, cluster=client, save_every=4)
    assert_same(store, quiet)


def begin_scheduler(tmp_path: Path) -> tuple[list[subprocess.Popen[bytes]], str]:
    """A scheduler and two workers, each a process of its own."""
    file = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(file),
         "--port", "0", "--no-dashboard"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    worker = [
        sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file),
        "--nthreads", "1", "--no-dashboard", "--death-timeout", "60",
        "--local-directory", str(tmp_path),
    ]  # fmt: skip
    found = [scheduler]
    for _ in range(2):
        found.append(subprocess.Popen(worker, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    while not file.exists():
        time.sleep(0.1)
    return found, str(file)


@pytest.mark.full
@pytest.mark.slow
def test_fit__whose_scheduler_is_killed_says_how_to_go_on(
    store, quiet, tmp_path, small_shards_plugin
):
    processes, file = begin_scheduler(tmp_path)
    try:
        with Client(scheduler_file=file, set_as_default=False, timeout="5s") as client:
            client.register_plugin(small_shards_plugin)
            die = At(6, lambda: processes[0].kill())
            with pytest.raises(OSError, match=r"sweep [0-9]+ is committed") as caught:
                kpms_zarr.fit(
                    store, model="m", config=CONFIG, cluster=client, save_every=2, callbacks=[die]
                )
            assert "resume=True" in str(caught.value)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    kpms_zarr.fit(store, model="m", resume=True)
    assert_same(store, quiet)


@pytest.mark.full
@pytest.mark.slow
def test_fit__whose_client_was_killed_goes_on_upon_the_same_workers(
    store, quiet, tmp_path, small_shards_plugin
):
    """They still remember what the dead client had them do."""
    processes, file = begin_scheduler(tmp_path)
    code = (
        "import sys, kpms_zarr, pickle, os\n"
        "from kpms_zarr.compute.runs import plan\n"
        "plan.SHARD_FRAMES = 320\n"
        "config = pickle.loads(bytes.fromhex(sys.argv[2]))\n"
        "def die(event):\n"
        "    if type(event).__name__ == 'SweepEnded' and event.sweep == 7: os._exit(9)\n"
        "if __name__ == '__main__':\n"
        "    kpms_zarr.fit(sys.argv[1], model='m', config=config, cluster=sys.argv[3],\n"
        "                  save_every=3, callbacks=[die])\n"
    )
    try:
        with Client(scheduler_file=file, set_as_default=False) as client:
            client.register_plugin(small_shards_plugin)
            client.wait_for_workers(2)
            line = [sys.executable, "-c", code, str(store), pickle.dumps(CONFIG).hex(), file]
            assert subprocess.run(line, check=False).returncode == 9
            kpms_zarr.fit(store, model="m", resume=True, cluster=client)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert_same(store, quiet)


@pytest.mark.full
@pytest.mark.slow
def test_fit__on_workers_that_see_another_disk_says_so(two_workers, store, tmp_path):
    _, client = two_workers

    def elsewhere() -> None:
        from kpms_zarr.compute.runs import bundle

        bundle.read_checkpoint = lambda root, model: None

    client.run(elsewhere)
    try:
        with pytest.raises(kpms_zarr.InputError, match="that all workers see") as caught:
            kpms_zarr.fit(store, model="m", config=CONFIG, cluster=client)
    finally:
        client.restart()
    assert "tcp://" in str(caught.value)


@pytest.mark.full
@pytest.mark.slow
def test_fit__that_waits_for_workers_can_be_stopped(workers, store):
    with workers(1) as (cluster, client):

        def leave() -> None:
            cluster.scale(0)
            threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT)).start()

        with pytest.raises(KeyboardInterrupt, match="is committed"):
            kpms_zarr.fit(
                store, model="m", config=CONFIG, cluster=client, save_every=2,
                callbacks=[At(5, leave)],
            )  # fmt: skip
    assert kpms_zarr.open_progress(store, "m").attrs["n_sweeps"] >= 4


@pytest.mark.slow
def test_fit__a_second_client_is_refused(two_workers, store):
    _, client = two_workers
    said = []

    def second() -> None:
        with pytest.raises(kpms_zarr.InputError, match="nobody is fitting") as caught:
            kpms_zarr.fit(store, model="m", cluster=client, resume=True)
        said.append(caught.value)

    kpms_zarr.fit(
        store, model="m", config=CONFIG, cluster=client, save_every=2, callbacks=[At(5, second)]
    )
    assert said


# ------------------------------------------------------------------ what is not a fit of one chain


@pytest.mark.slow
def test_quality_and_pca__on_workers_are_those_of_one_process(two_workers, store, original):
    _, client = two_workers
    here = kpms_zarr.quality(store)
    with client.as_current():
        there = kpms_zarr.quality(store, cluster=client)
        pca = kpms_zarr.pca(store, cluster=client)
    assert here.drop_attrs().identical(there.drop_attrs())
    assert access.dataset(original, "pca").load().drop_attrs().equals(pca.drop_attrs())


@pytest.mark.full
@pytest.mark.slow
def test_apply__on_workers_is_that_of_one_process_also_when_one_is_killed(workers, store):
    names = [session.name for session in access.sessions(store)]
    config = replace(CONFIG, sessions=tuple(names[:3]))
    kpms_zarr.fit(store, model="m", config=config)
    other = Path(shutil.copytree(store, store.parent / "other.zarr"))
    here = kpms_zarr.apply(store, model="m", sweeps=12)
    with workers(2) as (_, client):
        seen = []

        def kill_one(event: object) -> None:
            if isinstance(event, SessionsSettled) and not seen:
                seen.append(event)
                kill(client)

        there = kpms_zarr.apply(other, model="m", sweeps=12, cluster=client, callbacks=[kill_one])
    assert seen
    for one, two in zip(result(store), result(other), strict=True):
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)
    for name in ("labelled", "n_frames", "sweeps", "settled", "agreement", "new_agreement"):
        assert str(getattr(here, name)) == str(getattr(there, name)), name


@pytest.mark.full
@pytest.mark.slow
def test_apply__that_fails_on_a_worker_publishes_nothing_and_leaves_nothing(two_workers, store):
    _, client = two_workers
    names = [session.name for session in access.sessions(store)]
    kpms_zarr.fit(store, model="m", config=replace(CONFIG, sessions=tuple(names[:3])))
    before = sorted(path.name for path in (store / "models/m/labels").iterdir())

    def fail() -> None:
        from kpms_zarr.compute.runs import label_work

        def label(self: Any, *given: Any) -> None:
            raise OSError(28, "No space left on device")

        label_work.LabelBench.label = label

    client.run(fail)
    try:
        with pytest.raises(OSError, match="No space"):
            kpms_zarr.apply(store, model="m", cluster=client)
    finally:
        client.restart()
    assert sorted(path.name for path in (store / "models/m/labels").iterdir()) == before
    assert kpms_zarr.open_labels(store, "m").sizes["session"] == 3


@pytest.mark.full
@pytest.mark.slow
def test_chains__on_workers_are_those_of_one_process_also_when_one_is_killed(workers, store):
    config = replace(CONFIG, sweeps=4, ar_sweeps=6)
    other = Path(shutil.copytree(store, store.parent / "other.zarr"))
    kpms_zarr.fit(store, model="m", config=config, chains=3)
    notes = Notes()
    with workers(2) as (_, client):
        seen, pids = [], sorted(client.run(os.getpid).values())

        def kill_one(event: object) -> None:  # not by the client, in whose thread this runs
            if isinstance(event, Noted) and "m-02" in event.text and not seen:
                seen.append(event)
                os.kill(pids[0], signal.SIGKILL)

        kpms_zarr.fit(
            other, model="m", config=config, chains=3, cluster=client, save_every=1,
            callbacks=[notes, kill_one],
        )  # fmt: skip
    assert seen
    for model in ("m-01", "m-02", "m-03", "m"):
        for one, two in zip(result(store, model), result(other, model), strict=True):
            for name in one.variables:
                if name not in ("trace_seconds", "member_version"):
                    np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)


# dask-jobqueue does not wait for the processes that stand for jobs.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.full
@pytest.mark.slow
def test_fit__in_a_cluster_that_a_file_describes(store, quiet, tmp_path, monkeypatch):
    """Jobs that a batch system would run, run as processes of this machine."""
    (tmp_path / "cluster.yaml").write_text(
        "jobs: 2\njobqueue:\n  local:\n    cores: 1\n    memory: 2GB\n"
        f"    log-directory: {tmp_path}\n    local-directory: {tmp_path}\n"
        f"    python: {sys.executable}\n    interface: lo\n"
    )
    kpms_zarr.fit(store, model="m", config=CONFIG, cluster=tmp_path / "cluster.yaml")
    for one, two in zip(result(store), quiet, strict=True):
        assert set(one.variables) == set(two.variables)


def test_fit__begun_by_an_earlier_version_is_refused(store):
    def stop() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kpms_zarr.fit(store, model="m", config=CONFIG, save_every=1, callbacks=[At(2, stop)])
    root = access.open_group(store, "r+")
    commit = read_checkpoint(root, "m").group
    commit.attrs.update({"sums": None})
    with pytest.raises(kpms_zarr.InputError, match="another order"):
        kpms_zarr.fit(store, model="m", resume=True)


@pytest.mark.full
@pytest.mark.slow
def test_doctor__looks_at_workers_and_at_the_store_from_there(two_workers, store):
    _, client = two_workers
    before = sorted(path.name for path in store.iterdir())
    found = kpms_zarr.doctor(0, cluster=client, store=store).cluster
    assert [worker.storage for worker in found.workers] == ["", ""]
    assert found.advice == ()
    assert all(worker.devices and abs(worker.clock) < 5 for worker in found.workers)
    assert sorted(path.name for path in store.iterdir()) == before
    # A worker that sees another disk, an older package, and a clock of its own.
    one, two = found.workers
    bad = replace(two, storage="FileNotFoundError: ", clock=-90.0, devices=("H100",),
                  versions={**two.versions, "jax": "0.4"})  # fmt: skip
    advice = " ".join(advise((one, bad), one.versions))
    for words in ("does not reach the store", "90 s behind", "several kinds", "jax is"):
        assert words in advice


@pytest.mark.full
@pytest.mark.slow
def test_jobs__go_also_to_workers_that_come_later(workers):
    """As those of a batch system do, one by one; one job at a time for each of them."""
    with workers(1) as (cluster, client):
        (first,) = Crew(client).workers()
        parts = [Part(f"job {i}", first) for i in range(8)]
        grown = []

        def grow(part: int, result: object) -> None:
            if not grown:
                grown.append(cluster.scale(3))

        Crew(client).call(parts, time.sleep, lambda part, _: (2.5,), anywhere=True, on_done=grow)
    assert len({part.worker for part in parts}) == 3


def test_jobs__whose_error_is_not_one_of_workers_raise_it_at_once(two_workers):
    _, client = two_workers
    parts = [Part("job", next(iter(Crew(client).workers())))]
    with pytest.raises(ZeroDivisionError):
        Crew(client).call(parts, divmod, lambda part, _: (1, 0), anywhere=True)


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("local:0", "local:N"),
        ("local:x", "local:N"),
        ("tcp://127.0.0.1:9", "answers"),
        ("nothing.json", "tcp://host:8786"),
        ("nothing.yaml", "can be read"),
    ],
)
def test_cluster__that_is_none_is_refused_in_words(original, monkeypatch, where, words):
    from kpms_zarr.compute.cluster import connect

    monkeypatch.setattr(connect, "_TIMEOUT", "1s")
    with pytest.raises(kpms_zarr.InputError, match=words):
        kpms_zarr.fit(original, model="never", cluster=where)


# What dask-jobqueue leaves of a cluster that it could not make.
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", "names and values"),
        ("a: [", "YAML"),
        ("jobs: 2", "jobqueue:"),
        ("jobs: 2\njobqueue: {torque: {}}", "jobqueue:"),
        ("jobqueue: {slurm: {cores: 1, memory: 1GB}}", "jobs: N"),
        ("jobs: 2\nclass: nowhere.Cluster", "installed"),
        ("jobs: 2\njobqueue: {slurm: {cores: 1}}", "memory"),
        ("jobs: 0\njobqueue: {slurm: {cores: 1, memory: 1GB}}", "jobs: N"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_file__that_says_too_little_is_refused_in_words(original, tmp_path, text, words):
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(kpms_zarr.InputError, match=words):
        kpms_zarr.fit(original, model="never", cluster=tmp_path / "cluster.yaml")
