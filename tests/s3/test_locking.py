"""One holder of a lease on S3, also of many who find it free at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import kpms_zarr
from kpms_zarr.store.core import access, locking
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.core.remote import PatientStore

pytestmark = pytest.mark.s3

RACE = """
import sys
import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.locking import model_lock
root = access.open_group(sys.argv[1], "r+")
held = []
for model in sys.stdin:
    try:
        lock = model_lock(root, sys.argv[1], model.strip())
        lock.__enter__()
        held.append(lock)
        print("held", flush=True)
    except kpms_zarr.InputError:
        print("refused", flush=True)
"""
GONE = {"owner": "gone", "host": "elsewhere", "process": 7, "seconds": 600.0, "renewed": 1.0}


@pytest.fixture
def store(url):
    access.create(url)
    return url


def abandon(store: str, model: str = "m") -> None:
    """Leave the lease of a process that was killed long ago."""
    path = f"models/{model}/lock"
    access.require_group(access.open_group(store, "r+"), path).attrs.put(GONE)


def race(store: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What becomes of two who both look before either writes, the second of them later."""
    read, both, seen = locking._Lease._read, threading.Barrier(2), set()
    start, end = threading.Barrier(2), threading.Barrier(2)

    def slow(self: locking._Lease) -> dict:
        found = read(self)
        if self not in seen:
            seen.add(self)
            both.wait(30)
            time.sleep(0.3 * (threading.current_thread().name == "later"))
        return found

    monkeypatch.setattr(locking._Lease, "_read", slow)

    def try_it(name: str) -> str:
        threading.current_thread().name = name
        root = access.open_group(store, "r+")
        start.wait(30)
        try:
            with model_lock(root, store, "m"):
                end.wait(30)
                return f"{name} held"
        except kpms_zarr.InputError:
            end.wait(30)
            return f"{name} refused"

    with ThreadPoolExecutor(2) as pool:
        return sorted(pool.map(try_it, ("sooner", "later")))


@pytest.mark.parametrize("is_abandoned", [False, True])
def test_lease__the_first_has_it_and_need_not_wait(store, monkeypatch, is_abandoned):
    if is_abandoned:
        abandon(store)
    monkeypatch.setattr(locking, "_SETTLE_SECONDS", 1e6)
    assert race(store, monkeypatch) == ["later refused", "sooner held"]


@pytest.mark.parametrize("is_abandoned", [False, True])
@pytest.mark.parametrize("settle", [1.5, 0.0])
@pytest.mark.parametrize("how", ["ignored", "refused"])
def test_lease__without_conditions_the_last_has_it_after_waiting(
    store, reach, proxy, monkeypatch, is_abandoned, settle, how
):
    """Without waiting, both would."""
    if how == "refused":
        reach(proxy.port)
        proxy.knows_conditions = False
    else:
        import s3fs

        call = s3fs.S3FileSystem._call_s3

        async def deaf(self, method, *args, **kwargs):
            kept = {k: v for k, v in kwargs.items() if k not in ("IfMatch", "IfNoneMatch")}
            return await call(self, method, *args, **kept)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", deaf)
    if is_abandoned:
        abandon(store)
    monkeypatch.setattr(locking, "_SETTLE_SECONDS", settle)
    second = "sooner refused" if settle else "sooner held"
    assert race(store, monkeypatch) == ["later held", second]


def test_lease__of_processes_that_race_one_has_it(store):
    models = [f"m{i}" for i in range(6)]
    root = access.open_group(store, "r+")
    for model in models:
        access.require_group(root, f"models/{model}")
    for model in models[::2]:
        abandon(store, model)
    command = [sys.executable, "-c", RACE, store]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    found = []
    try:
        for model in models:
            for racer in racers:
                racer.stdin.write(f"{model}\n")
                racer.stdin.flush()
            found.append(sorted(racer.stdout.readline().strip() for racer in racers))
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert found == [["held", "refused", "refused"]] * len(models)


def test_lease__is_held_when_the_answer_to_taking_it_was_lost(store, monkeypatch):
    """The client asks again and is told that somebody has it: itself."""
    replace = PatientStore.replace

    async def lost(*given):
        assert await replace(*given)
        return await replace(*given)

    root = access.open_group(store, "r+")
    with monkeypatch.context() as patch:
        patch.setattr(PatientStore, "replace", lost)
        held = model_lock(root, store, "m")
        held.__enter__()
    with pytest.raises(kpms_zarr.InputError, match=f"process {os.getpid()}"):
        model_lock(root, store, "m").__enter__()
    held.__exit__(None, None, None)
    assert access.subgroup(root, "models/m/lock") is None
