"""Processes that read files are watched: whatever a file makes a library do, it has an end."""

from __future__ import annotations

import importlib
import os
import signal
import struct
import sys
from contextlib import closing

import h5py
import numpy as np
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
    assert not store.exists()
    result = ingest(store, [good[0], bad, good[1]], skip_bad=True)
    assert result.bad == (str(bad),)
    assert result.added == study.session_names
    assert len(access.sessions(store)) == 2


TASKS = """
import os, signal

def end_itself(task, ask):
    os.kill(os.getpid(), signal.SIGSEGV)

def place_of(task, ask):
    return os.getpid(), os.getcwd(), ask(task)
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
        assert f"status {-signal.SIGSEGV}" in str(lost)
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
