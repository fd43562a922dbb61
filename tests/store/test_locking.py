"""One fit of a model at a time, on a disk and on storage without locks."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import zarr

import kpms_zarr
from kpms_zarr.store.core import access, locking
from kpms_zarr.store.core.locking import model_lock

HOLD = """
import sys, time
from kpms_zarr.store.core import access
from kpms_zarr.store.core.locking import model_lock
with model_lock(access.open_group(sys.argv[1], "r+"), sys.argv[1], "m"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def local(tmp_path: Path) -> Path:
    access.create(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(locking, "_SETTLE_SECONDS", 0.05)
    url = f"memory://{tmp_path.name}/s.zarr"
    access.create(url)
    yield url
    fsspec.filesystem("memory").store.clear()


def hold(store: str | Path):
    return model_lock(access.open_group(store, "r+"), store, "m")


# ------------------------------------------------------------------ on a disk


def test_local__is_refused_while_held_and_free_after_it(local):
    with hold(local), pytest.raises(kpms_zarr.InputError, match="another process") as caught:
        hold(local).__enter__()
    assert "another `model=`" in str(caught.value)
    with hold(local), model_lock(access.open_group(local, "r+"), local, "other"):
        pass


def test_local__goes_with_a_process_that_is_killed(local):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(local)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(kpms_zarr.InputError, match="another process"):
            hold(local).__enter__()
        process.kill()
    with hold(local):
        pass


def test_local__a_folder_that_cannot_be_written_is_said_at_once(local, monkeypatch):
    with hold(local):
        pass
    # Root may write everywhere; what a read-only disk answers is simulated.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OSError, match="cannot be written") as caught:
        hold(local).__enter__()
    assert "models/m" in str(caught.value)


def test_local__without_locks_of_the_file_system_there_is_a_lease(local, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    with hold(local):
        assert (local / "models/m/lock").is_dir()
        with pytest.raises(kpms_zarr.InputError, match=f"process {os.getpid()}"):
            hold(local).__enter__()
    assert not (local / "models/m/lock").exists()


# ------------------------------------------------------------------ elsewhere


def test_remote__is_refused_while_held_and_free_after_it(remote):
    with hold(remote), pytest.raises(kpms_zarr.InputError, match="try again in") as caught:
        hold(remote).__enter__()
    assert f"process {os.getpid()}" in str(caught.value)
    with hold(remote) as lock:
        lock.renew()


def test_remote__of_a_process_that_died_ends_by_itself(remote, monkeypatch):
    abandoned = hold(remote)
    abandoned.__enter__()
    now = time.time()
    monkeypatch.setattr(locking.time, "time", lambda: now + locking.LEASE_SECONDS + 1)
    with hold(remote):
        pass


def test_remote__a_holder_that_slept_too_long_is_told(remote, monkeypatch):
    """Somebody else took the model meanwhile: the first holder must not write any more."""
    lock = hold(remote)
    first = lock.__enter__()
    clock = itertools.count(time.time(), locking.LEASE_SECONDS)
    monkeypatch.setattr(locking.time, "time", clock.__next__)
    first.renew()
    group = access.open_group(remote, "r+")["models/m/lock"]
    group.attrs.put({"owner": "somebody", "host": "elsewhere", "process": 7, "renewed": 1e12})
    with pytest.raises(kpms_zarr.InputError, match="process 7 on elsewhere"):
        first.renew()
    lock.__exit__(None, None, None)
    # And leaves the lease of the other alone.
    assert access.open_group(remote)["models/m/lock"].attrs["owner"] == "somebody"


@pytest.mark.parametrize("settle", [None, 0.0])
def test_remote__of_two_at_the_same_moment_one_has_it(remote, monkeypatch, settle):
    """Both find it free before either has written; without waiting both would go on."""
    monkeypatch.setattr(locking, "_SETTLE_SECONDS", 1.5 if settle is None else settle)
    subgroup, both, looked = access.subgroup, threading.Barrier(2), set()

    def slow(root: zarr.Group, path: str) -> zarr.Group | None:
        found, name = subgroup(root, path), threading.current_thread().name
        if path.endswith("lock") and name not in looked:
            looked.add(name)
            both.wait(10)
            time.sleep(0.2 * (name == "later"))
        return found

    monkeypatch.setattr(access, "subgroup", slow)
    held, refused, end = [], [], threading.Event()

    def try_it() -> None:
        try:
            with hold(remote):
                held.append(threading.current_thread().name)
                end.wait(10)
        except kpms_zarr.InputError:
            refused.append(threading.current_thread().name)

    threads = [threading.Thread(target=try_it, name=name) for name in ("sooner", "later")]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while len(held) + len(refused) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    end.set()
    for thread in threads:
        thread.join()
    if settle is None:
        assert (held, refused) == (["later"], ["sooner"])
    else:
        assert len(held) == 2


@pytest.mark.parametrize("where", ["remote", "local"])
def test_a_group_that_another_makes_at_the_same_moment_is_taken(where, request, monkeypatch):
    """Zarr looks whether a group is there and then makes it: another may come in between."""
    root = access.open_group(request.getfixturevalue(where), "r+")

    def late(self: zarr.Group, name: str) -> zarr.Group:
        monkeypatch.undo()
        self.create_group(name, attributes={"by": "another"})
        return self.create_group(name)

    monkeypatch.setattr(zarr.Group, "require_group", late)
    assert dict(access.require_group(root, "models/m").attrs) == {"by": "another"}


def test_remote__storage_that_is_away_does_not_end_a_lease(remote, monkeypatch):
    with hold(remote) as lock:
        later = time.time() + locking.LEASE_SECONDS + 1
        monkeypatch.setattr(locking.time, "time", lambda: later)
        with monkeypatch.context() as patch:

            def away(*_: object) -> None:
                raise ConnectionError("gone")

            patch.setattr(access, "subgroup", away)
            lock.renew()
        lock.renew()


# ------------------------------------------------------------------ for those who only look


def test_is_fitted_now__on_a_disk_and_elsewhere(local, remote):
    for store in (local, remote):
        root = access.open_group(store)
        assert not locking.is_fitted_now(root, store, "m")
        with hold(store):
            assert locking.is_fitted_now(root, store, "m")
            assert not locking.is_fitted_now(root, store, "other")
        assert not locking.is_fitted_now(root, store, "m")


def test_is_fitted_now__never_stops_a_fit(local):
    root, end = access.open_group(local), threading.Event()

    def look() -> None:
        while not end.is_set():
            locking.is_fitted_now(root, local, "m")
            time.sleep(0.001)

    with hold(local):
        pass
    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(300):
            with hold(local):
                pass
    finally:
        end.set()
        thread.join()
