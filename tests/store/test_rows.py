"""Rows of the session table: no frame of one session is ever seen in another, whatever stops."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore

import kpms_zarr
from helpers.amount import some
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest import rows
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv

SMALL = SyntheticStudy(n_sessions=3, n_frames=200, n_keypoints=4, missing_fraction=0.05)
NAMES = [f"point{i}" for i in range(4)]


@pytest.fixture
def files(tmp_path):
    return write_dlc_csv(tmp_path / "tracking", SMALL)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "study.zarr"


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Copies:
    """A copy of the store after every change of a file: what a kill there would leave."""

    def __init__(self, monkeypatch, store, folder):
        self.places = []
        for name in ("set", "delete", "delete_dir"):
            original = getattr(LocalStore, name)

            async def changed(this, *given, _original=original):
                await _original(this, *given)
                place = folder / f"copy{len(self.places)}.zarr"
                if store.exists():
                    shutil.copytree(store, place, ignore=shutil.ignore_patterns("*.partial"))
                    self.places.append(place)

            monkeypatch.setattr(LocalStore, name, changed)


def assert_sound(place):
    found = kpms_zarr.verify(place)
    assert found.is_sound, found.damages
    assert found.notes == []
    data = access.dataset(place, "keypoints").load()
    for session in access.sessions(place):
        assert session.name
        for name in ("position", "confidence"):
            assert np.isnan(data[name].values[session.index, session.n_frames :]).all()
    assert {s.name for s in access.sessions(place)} == set(data.session.values[data.n_frames > 0])


def test_killed_remove__leaves_nothing_to_the_next_session_of_the_row(
    files, store, tmp_path, monkeypatch
):
    table = tmp_path / "m.csv"
    table.write_text("session,group\nsession_000,a\nsession_001,control\nsession_002,b\n")
    ingest(store, files, metadata=table)
    with monkeypatch.context() as patch:
        copies = Copies(patch, store, tmp_path)
        kpms_zarr.remove(store, ["session_001"])
    assert len(copies.places) > 15
    short = {"short": np.ones((20, 4, 2))}
    for place in some(copies.places, 6):
        before = {session.name for session in access.sessions(place)}
        assert before in ({"session_000", "session_002"}, {f"session_00{i}" for i in range(3)})
        ingest(place, arrays=short, keypoint_names=NAMES)
        assert_sound(place)
        data = access.dataset(place, "keypoints").load()
        assert np.isnan(data.confidence.sel(session="short")).all()
        assert data.group.sel(session="short").item() == ""
        assert data.group.sel(session="session_002").item() == "b"


def test_killed_undo__leaves_no_session_without_a_name(files, store, tmp_path, monkeypatch):
    ingest(store, files[:1])
    good = files[2].read_text()
    files[2].write_text(good[:-30])
    monkeypatch.setattr(rows, "COMMIT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        copies = Copies(patch, store, tmp_path)
        with pytest.raises(InputError):
            ingest(store, files, workers=1)
    assert [s.name for s in access.sessions(store)] == ["session_000"]
    assert max(len(access.sessions(place)) for place in copies.places) == 2
    files[2].write_text(good)
    for place in some(copies.places, 5):
        assert {s.name for s in access.sessions(place)} <= set(SMALL.session_names)
        ingest(place, files)
        assert [s.name for s in access.sessions(place)] == list(SMALL.session_names)
        assert_sound(place)


@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_ingest__leaves_no_worker_writing(store, tmp_path, workers):
    study = SyntheticStudy(n_sessions=4, n_frames=3_000, n_keypoints=4)
    files = write_dlc_csv(tmp_path / "long", study)
    first = write_dlc_csv(tmp_path / "first", SMALL)[0]
    ingest(store, first.rename(tmp_path / "first.csv"))
    before = files_of(store)

    def stop(progress):
        if progress.stage == "load":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        ingest(store, files, workers=workers, on_progress=stop)
    now = files_of(store)
    time.sleep(1.0)
    assert files_of(store) == now == before
    assert ingest(store, files, workers=workers).added == study.session_names
    assert_sound(store)


_INGEST = """
import signal, sys
from kpms_zarr.store.ingest import ingest

class Turns(ingest._Turns):
    def rows(self, index, n):
        if index == 0:  # the large file is never at its end before the signal comes
            with self._turn:
                self._turn.wait_for(lambda: self._is_closed)
        return super().rows(index, n)

ingest._Turns = Turns
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
ingest.ingest(sys.argv[1], sys.argv[2:], workers=2)
"""


def test_ctrl_c__ends_an_ingest_whose_small_files_wait_for_a_large_one(store, tmp_path):
    large = SyntheticStudy(n_sessions=1, n_frames=5_000, n_keypoints=4)
    small = SyntheticStudy(n_sessions=3, n_frames=50, n_keypoints=4)
    files = [
        write_dlc_csv(tmp_path / "a", large)[0].rename(tmp_path / "a.csv"),
        *write_dlc_csv(tmp_path / "b", small),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", _INGEST, store, *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 60
    while not (store / "keypoints/position").exists() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)  # the small ones are read
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in words
    assert not store.exists()


@pytest.mark.parametrize("lost", ["n_frames/c/0", "zarr.json"])
def test_table_that_lost_its_lengths__is_damage_and_deletes_nothing(files, store, lost):
    ingest(store, files)
    (store / "keypoints" / lost).unlink()
    before = files_of(store)
    found = kpms_zarr.verify(store, repair=True)
    assert not found.is_sound
    with pytest.raises(InputError, match="whole table of sessions"):
        ingest(store, arrays={"more": np.ones((20, 4, 2))}, keypoint_names=NAMES)
    chunks = {p: b for p, b in before.items() if "/c/" in str(p)}
    assert {p: b for p, b in files_of(store).items() if "/c/" in str(p)} == chunks


def test_verify__looks_at_every_column_of_the_table(files, store):
    ingest(store, files)
    for array in ("source_hash", "keypoint", "space", "fps", "session", "recording", "checksum"):
        (chunk,) = (p for p in (store / "keypoints" / array / "c").rglob("*") if p.is_file())
        content = chunk.read_bytes()
        chunk.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        assert not kpms_zarr.verify(store).is_sound, array
        chunk.unlink()
        assert array == "recording" or not kpms_zarr.verify(store).is_sound, array
        chunk.write_bytes(content)
        assert kpms_zarr.verify(store).is_sound, array


def test_growing_store__is_opened_by_plain_xarray_at_any_moment(
    files, store, tmp_path, monkeypatch
):
    ingest(store, files[:1])
    with monkeypatch.context() as patch:
        copies = Copies(patch, store, tmp_path)
        ingest(store, files, workers=1)
    lengths = set()
    for place in some(copies.places, 12):
        data = xr.open_zarr(place, group="keypoints", consolidated=True)
        lengths.add(int((data.n_frames > 0).sum()))
        names = data.session.values[data.n_frames.values > 0]
        assert len(names) in (1, 3)
        assert "" not in names
    assert lengths == {1, 3}


def test_file_that_changes_while_it_is_read__is_refused(files, store, monkeypatch):
    def grow(progress):
        if progress.stage == "look" and progress.n_done == progress.n_files:
            with files[1].open("a") as file:
                file.write(files[1].read_text().splitlines()[-1].replace("199,", "200,", 1) + "\n")

    with pytest.raises(InputError, match="nobody writes to"):
        ingest(store, files, on_progress=grow, workers=1)
    assert not store.exists()
    assert ingest(store, files).n_frames == 601
