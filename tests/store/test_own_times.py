"""Times that NWB files bring along are kept by ingest, for the frames that are taken."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.verify import verify
from kpms_zarr.store.study.timestamps import StudyTimes

N = 60


def write_nwb(path, times=None, start=None):
    """A pose of three keypoints, as h5py writes what NWB has."""
    rng = np.random.default_rng(0)
    n = N if times is None else len(times)
    with h5py.File(path, "w") as file:
        pose = file.create_group("processing/behavior/pose")
        pose.attrs["neurodata_type"] = "PoseEstimation"
        for name in ("nose", "ear", "tail"):
            series = pose.create_group(name)
            series.attrs["neurodata_type"] = "PoseEstimationSeries"
            series["data"], series["confidence"] = rng.normal(size=(n, 2)), np.ones(n)
            if times is not None:
                series["timestamps"] = times
            else:
                series["starting_time"] = start
                series["starting_time"].attrs["rate"] = 25.0
    return path


def stored(store):
    (session,) = access.sessions(store)
    times = StudyTimes(store).of(session)
    return times.at(0, session.n_frames) if times.is_given else None


def jittered(n=N):
    return 40 + np.arange(n) / 25 + np.random.default_rng(1).uniform(-0.004, 0.004, n)


def test_times_of_nwb__are_kept(tmp_path):
    store, times = tmp_path / "s.zarr", jittered()
    done = kpms_zarr.ingest(store, write_nwb(tmp_path / "a.nwb", times), workers=1)
    assert stored(store).tolist() == times.tolist()
    assert any("timestamps v1" in note for note in done.notes)
    assert verify(store).is_sound
    assert is_current(access.open_group(store))
    kpms_zarr.ingest(store, tmp_path / "a.nwb", workers=1)
    assert StudyTimes(store).versions == ("v1",)


@pytest.mark.parametrize(("trim", "step"), [("7:50", 1), ("7:50", 3), ("1s:", 2)])
def test_times_of_nwb__are_those_of_the_frames_taken(tmp_path, trim, step):
    store, times = tmp_path / "s.zarr", jittered()
    write_nwb(tmp_path / "a.nwb", times)
    kpms_zarr.ingest(store, tmp_path / "a.nwb", trim=trim, downsample=step, workers=1)
    taken = times[7:50:step] if trim == "7:50" else times[25::step]
    assert stored(store).tolist() == taken.tolist()


def test_times_of_frames_that_were_lost__are_interpolated(tmp_path):
    store = tmp_path / "s.zarr"
    times = np.delete(jittered(), [20, 21, 22, 40])
    kpms_zarr.ingest(store, write_nwb(tmp_path / "a.nwb", times), workers=1)
    frames = np.delete(np.arange(N), [20, 21, 22, 40])
    assert stored(store).tolist() == np.interp(np.arange(N), frames, times).tolist()


def test_irregular_times__are_kept(tmp_path):
    store = tmp_path / "s.zarr"
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.3, N))
    kpms_zarr.ingest(store, write_nwb(tmp_path / "a.nwb", times), fps=7, workers=1)
    assert stored(store).tolist() == times.tolist()


def test_starting_times__are_kept(tmp_path):
    store = tmp_path / "s.zarr"
    kpms_zarr.ingest(store, write_nwb(tmp_path / "a.nwb", start=12.5), workers=1)
    assert stored(store).tolist() == (12.5 + np.arange(N) / 25).tolist()


@pytest.mark.parametrize("kind", ["rate", "regular", "rows"])
def test_times_that_say_nothing_new__are_not_kept(tmp_path, kind):
    store, path = tmp_path / "s.zarr", tmp_path / "a.nwb"
    times = {"rate": None, "regular": np.arange(N) / 25, "rows": jittered()}[kind]
    write_nwb(path, times, 0.0)
    unit = "rows" if kind == "rows" else "auto"
    kpms_zarr.ingest(store, path, time_unit=unit, workers=1)
    assert stored(store) is None
    assert not (store / "timestamps").exists()


def test_ingest_that_fails__takes_its_times_back(tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    kpms_zarr.ingest(store, write_nwb(tmp_path / "a.nwb", jittered()), workers=1)
    write_nwb(tmp_path / "b.nwb", jittered(40))

    def bad(task, ask):
        raise InputError(expected="a", found="b", where="c", fix="d")

    monkeypatch.setattr("kpms_zarr.store.ingest.ingest.load", bad)
    with pytest.raises(InputError):
        kpms_zarr.ingest(store, tmp_path / "b.nwb", workers=1)
    assert StudyTimes(store).versions == ("v1",)
    assert not (store / "timestamps" / "v2").exists()
    assert stored(store).tolist() == jittered().tolist()
    assert is_current(access.open_group(store))
