"""Processes that read files are watched: whatever a file makes a library do, it has an end."""

from __future__ import annotations

import importlib
import os
import signal
import struct
import sys
import threading
import time
from contextlib import closing

import h5py
import numpy as np
import psutil
import pytest

from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest import workers
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.ingest.workers import WorkerLost, Workers
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv


@pytest.fixture
def limits(monkeypatch):
    """Little time and memory, for processes that are started from now on."""

    def limit(seconds, n_bytes):
        workers._end_spare()
        monkeypatch.setattr(workers, "MAX_SECONDS", seconds)
        monkeypatch.setattr(workers, "MAX_BYTES", n_bytes)

    yield limit
    workers._end_spare()


def sleap_file(path):
    with h5py.File(path, "w") as file:
        file["names"] = ["nose", "tail", "left ear"]
        file.create_group("group").attrs["kind"] = "a text"
        file["tracks"], file["node_names"] = np.zeros((1, 2, 3, 20)), [b"a", b"b", b"c"]
    return path


def overwrite(path, at, content):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def texts_without_end(path):
    """HDF5 looks for the end of a collection of texts, and never comes nearer to it."""
    start = sleap_file(path).read_bytes().index(b"GCOL")
    overwrite(path, start + 16, struct.pack("<HHIQ", 0, 0, 0, 0))


def names_in_a_circle(path):
    """HDF5 notes every free block of a list that has no end."""
    data = sleap_file(path).read_bytes()
    start = data.index(b"HEAP")
    place = struct.unpack_from("<Q", data, start + 24)[0]
    overwrite(path, start + 16, struct.pack("<Q", 16))
    overwrite(path, place + 16, struct.pack("<QQ", 16, 16))


@pytest.mark.parametrize(
    ("damage", "seconds", "n_bytes", "found"),
    [
        (texts_without_end, 3.0, 4_000_000_000, "takes more than 3 s of computing"),
        (names_in_a_circle, 60.0, 250_000_000, "memory|GB"),
    ],
)
def test_file_on_which_a_library_never_ends__is_refused_by_name(
    tmp_path, limits, damage, seconds, n_bytes, found
):
    study = SyntheticStudy(n_sessions=2, n_frames=50, n_keypoints=3)
    good = write_dlc_csv(tmp_path, study)
    bad, store = tmp_path / "bad.h5", tmp_path / "study.zarr"
    damage(bad)
    limits(seconds, n_bytes)
    with pytest.raises(InputError, match=found) as caught:
        ingest(store, [*good, bad])
    assert str(bad) in str(caught.value)
    assert "`workers=1`, which has no limits" in str(caught.value)
    assert not store.exists()
    result = ingest(store, [good[0], bad, good[1]], skip_bad=True)
    assert result.bad == (str(bad),)
    assert result.added == study.session_names
    assert len(access.sessions(store)) == 2
    workers._end_spare()
    assert not psutil.Process().children()


@pytest.mark.parametrize("is_fair", [True, False])
def test_large_file_that_takes_long__has_the_time_that_its_size_needs(
    tmp_path, limits, monkeypatch, is_fair
):
    study = SyntheticStudy(n_sessions=1, n_frames=60_000, n_keypoints=6)
    (path,) = write_dlc_csv(tmp_path, study)
    limits(0.05, 4_000_000_000)
    if is_fair:
        assert ingest(tmp_path / "study.zarr", path).added == study.session_names
        return
    monkeypatch.setattr(workers, "_BYTES_PER_SECOND", 1e12)  # all files alike
    with pytest.raises(InputError, match=r"takes more than 0 s of computing") as caught:
        ingest(tmp_path / "study.zarr", path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("number", "found"),
    [(signal.SIGSEGV, r"crashed \(SIGSEGV\)"), (signal.SIGKILL, "as memory ran out")],
)
def test_file_on_which_the_process_ends__is_refused_by_name(
    tmp_path, limits, monkeypatch, number, found
):
    study = SyntheticStudy(n_sessions=2, n_frames=50, n_keypoints=3)
    good, bad = write_dlc_csv(tmp_path, study)
    limits(30.0, 4_000_000_000)
    crash = (
        "import os; from kpms_zarr.store.ingest import loading; hash_of = loading.file_hash; "
        "loading.file_hash = lambda path: os.kill(os.getpid(), "
        f"{int(number)}) if path.name == {bad.name!r} else hash_of(path); from kpms_zarr"
    )
    monkeypatch.setattr(workers, "_START", workers._START.replace("from kpms_zarr", crash, 1))
    result = ingest(tmp_path / "study.zarr", [good, bad], skip_bad=True)
    assert len(result.added) == 1
    assert list(result.reasons) == [str(bad)]
    with pytest.raises(InputError, match=found) as caught:
        ingest(tmp_path / "study.zarr", bad)
    assert str(bad) in str(caught.value)
    workers._end_spare()
    assert not psutil.Process().children()


TASKS = """
import mmap, os, signal, sys, time
import numpy as np

def end_itself(task, ask):
    os.kill(os.getpid(), signal.SIGSEGV)

def place_of(task, ask):
    return os.getpid(), os.getcwd(), ask(task)

def packages(task, ask):
    import kpms_zarr.store.ingest.loading
    return {name.split(".")[0] for name in sys.modules}

def take(n_bytes, ask):
    taken = np.ones(n_bytes, np.uint8)
    time.sleep(1.0)
    return len(taken)

def map_whole(path, ask):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        total = sum(data[at] for at in range(0, len(data), 4096))
        time.sleep(1.0)
        return total

def sleep(seconds, ask):
    ask(None)
    time.sleep(seconds)

def refuse(task, ask):
    from kpms_zarr.store.errors import InputError
    from tblib import pickling_support

    class OfLibrary(ValueError):
        def __init__(self, one, two):
            super().__init__(one)

    pickling_support.install()
    try:
        raise OfLibrary("a", "b")
    except ValueError as error:
        raise InputError(expected="a table", found="none", where="here", fix="mend it") from error
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Functions of a module, so that another process finds them."""
    workers._end_spare()
    (tmp_path / "tasks_of_workers.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("tasks_of_workers")
    workers._end_spare()
    del sys.modules["tasks_of_workers"]


def results(staff, function, tasks):
    return [one for _, one in sorted(staff.run(function, tasks, lambda index, n: n + index))]


def test_lost_process__costs_its_task_only(tasks):
    with closing(Workers("process", 1)) as staff:
        (lost,) = results(staff, tasks.end_itself, [0])
        assert isinstance(lost, WorkerLost)
        assert "SIGSEGV" in str(lost)
        assert [answer for _, _, answer in results(staff, tasks.place_of, [5, 7])] == [5, 8]


def test_process__is_kept_for_the_next_ingest_and_follows_to_its_folder(
    tasks, tmp_path, monkeypatch
):
    with closing(Workers("process", 2)) as first:
        assert {one[1] for one in results(first, tasks.place_of, range(4))} == {os.getcwd()}
    assert len(workers._spare) == 1
    monkeypatch.chdir(tmp_path)
    with closing(Workers("process", 1)) as second:
        assert not workers._spare
        ((process, folder, _),) = results(second, tasks.place_of, [0])
        assert (process, folder) == (first._processes[0]._popen.pid, str(tmp_path))
    workers._end_spare()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_memory__is_that_of_values_and_not_of_files_that_are_mapped(tasks, limits, tmp_path):
    limits(30.0, 300_000_000)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 600_000_000)
    with closing(Workers("process", 1)) as staff:
        assert results(staff, tasks.map_whole, [tmp_path / "large"]) == [0]
        assert results(staff, tasks.take, [100_000_000]) == [100_000_000]
        (little_by_little,) = results(staff, tasks.take, [600_000_000])
        assert "more than 0.3 GB of memory" in str(little_by_little)
        (at_once,) = results(staff, tasks.take, [10**12])
        assert isinstance(at_once, MemoryError)


def test_error__comes_back_also_where_dask_distributed_has_changed_how_it_is_pickled(tasks):
    """With all that led to it, of which errors of libraries are often not read back."""
    pytest.importorskip("tblib")
    with closing(Workers("process", 1)) as staff:
        (error,) = results(staff, tasks.refuse, [0])
    assert isinstance(error, InputError)
    assert "expected a table" in str(error)


def test_processes_that_read__know_no_jax(tasks):
    with closing(Workers("process", 1)) as staff:
        (packages,) = results(staff, tasks.packages, [0])
    assert "h5py" in packages
    assert not {"jax", "jaxlib", "holoviews", "panel"} & packages


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, also where whoever started the tests ignores it (``pytest &``)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("waits", ["in the process", "for an answer"])
def test_ctrl_c__ends_all_work_at_once(tasks, waits, interruptible):
    begun, is_stopped = threading.Barrier(2, timeout=30), threading.Event()

    def answer(index, question):
        begun.wait()
        if index == 0:
            time.sleep(0.3)  # until the results are waited for
            os.kill(os.getpid(), signal.SIGINT)
        elif waits == "for an answer":
            is_stopped.wait(40)

    staff = Workers("process", 2)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), closing(staff):
        list(staff.run(tasks.sleep, [40, 40], answer, stop=is_stopped.set))
    assert time.monotonic() - start < 20
    assert not psutil.Process().children()


def test_process_that_cannot_be_started__is_no_fault_of_the_file(tmp_path, limits, monkeypatch):
    (path,) = write_dlc_csv(tmp_path, SyntheticStudy(n_sessions=1, n_frames=50, n_keypoints=3))
    limits(30.0, 4_000_000_000)
    monkeypatch.setattr(workers, "_START", "raise SystemExit(3)")
    with pytest.raises(OSError, match=r"could not be started .*status 3.*`workers=1`") as caught:
        ingest(tmp_path / "study.zarr", path, skip_bad=True)
    assert str(path) not in str(caught.value)
    assert ingest(tmp_path / "study.zarr", path, workers=1).n_frames == 50


def test_error_of_who_answers__is_not_one_of_the_process(tasks):
    def answer(index, question):
        raise OSError("no space left")

    with closing(Workers("process", 1)) as staff:
        ((_, error),) = staff.run(tasks.place_of, [0], answer)
    assert isinstance(error, OSError)
    assert "no space left" in str(error)
