"""Signals of sessions: brought to frames, kept in versions, refused with the store as it was."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.frame_times import FrameAligner
from kpms_zarr.store.study.signals import StoredSignal, signal_names
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.timestamps import SessionTimes

STUDY = SyntheticStudy(lengths=(300, 240), n_keypoints=3)
ONE, TWO = STUDY.session_names
FPS = STUDY.fps


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    place = tmp_path_factory.mktemp("signals") / "study.zarr"
    write_store(place, STUDY)
    return place


@pytest.fixture
def store(empty, tmp_path):
    return str(shutil.copytree(empty, tmp_path / "study.zarr"))


@pytest.fixture
def table(tmp_path):
    def write(frame, name="photometry.csv"):
        path = tmp_path / name
        (frame.to_parquet if name.endswith("parquet") else frame.to_csv)(path, index=False)
        return path

    return write


# ------------------------------------------------------------------ times


@settings(deadline=None, max_examples=examples(200))
@example(seed=83, n_samples=83, rate=0.2, piece=1, max_gap=0.2)
@given(
    seed=st.integers(0, 10**6),
    n_samples=st.integers(1, 120),
    rate=st.floats(0.2, 6),
    piece=st.integers(1, 130),
    max_gap=st.floats(0.01, 3),
)
def test_aligner__equals_interpolation_or_means_in_any_pieces(
    seed, n_samples, rate, piece, max_gap
):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(-0.2, n_samples / rate / 20, n_samples)) + 5
    values = rng.normal(size=n_samples)
    values[rng.random(n_samples) < 0.2] = np.nan
    n = 40
    aligner = FrameAligner(SessionTimes(n, 20.0), 1, start=5.0, max_gap=max_gap)
    for first in range(0, n_samples, piece):
        aligner.add(time[first : first + piece], values[first : first + piece, None])
    there = np.isfinite(values)
    at, y = (time[there] - 5) * 20, values[there]
    expected, gap = np.full(n, np.nan), np.full(n, np.inf)
    for k in range(n):
        if aligner.is_mean(0):
            inside = (at >= k - 0.5) & (at < k + 0.5)
            expected[k] = y[inside].mean() if inside.any() else np.nan
            continue
        before, after = np.flatnonzero(at <= k), np.flatnonzero(at >= k)
        if len(before) and len(after):
            i, j = before[-1], after[0]
            gap[k] = at[j] - at[i]
            if gap[k] <= max_gap * 20:
                part = (k - at[i]) / (at[j] - at[i]) if at[j] > at[i] else 0
                expected[k] = y[i] + part * (y[j] - y[i])
    found = aligner.values(0)
    is_edge = np.array([len(at) > 0 and np.abs(at - k).min() < 0.02 for k in range(n)])
    is_edge |= np.abs(np.abs(at[:, None] - np.arange(n)) - 0.5).min(0, initial=1) < 1e-9
    is_edge |= np.abs(gap - max_gap * 20) < 0.02  # times are rounded
    np.testing.assert_allclose(found[~is_edge], expected[~is_edge], atol=1e-9)


def test_aligner__takes_rounded_times_of_frames_exactly():
    values = np.arange(90.0) ** 2
    aligner = FrameAligner(SessionTimes(90, 30.0), 1)
    aligner.add(np.round(np.arange(90) / 30, 3), values[:, None])
    np.testing.assert_allclose(aligner.values(0), values, rtol=0.02, atol=0.3)
    assert np.isfinite(aligner.values(0)).all()


@pytest.mark.parametrize("rate", [7.0, 400.0])
def test_aligner__goes_by_timestamps(rate):
    """Lost frames and a pause: a frame has the value of the moment at which it was taken."""
    rng = np.random.default_rng(0)
    step = rng.uniform(0.8, 1.2, 300) / 25
    step[[40, 90, 91]] *= (3, 2, 2)
    step[200] = 20.0  # the camera stood still
    taken = 100 + np.cumsum(step)
    time = np.arange(99, taken[-1] + 1, 1 / rate)
    values = np.sin(0.9 * time)
    times = SessionTimes.of_array(taken, 25.0)
    aligner = FrameAligner(times, 1)
    for part in np.array_split(np.arange(len(time)), 7):
        aligner.add(time[part], values[part, None])
    assert aligner.is_mean(0) == (rate > 100)
    np.testing.assert_allclose(aligner.values(0), np.sin(0.9 * taken), atol=0.02)
    # Wrong twin: frames at k / fps from the first one on.
    even = FrameAligner(SessionTimes(300, 25.0), 1, start=taken[0])
    even.add(time, values[:, None])
    assert np.nanmax(np.abs(even.values(0) - np.sin(0.9 * taken))) > 0.5
    # A clock of its own, on which the first frame is at 5.
    own = FrameAligner(times, 1, start=5.0)
    own.add(time - taken[0] + 5.0, values[:, None])
    np.testing.assert_allclose(own.values(0), aligner.values(0), atol=1e-9)


def test_aligner__does_not_bridge_a_long_gap_that_few_frames_lie_in():
    taken = np.array([0.0, 0.1, 0.2, 5.2, 5.3])
    aligner = FrameAligner(SessionTimes.of_array(taken, 10.0), 1, max_gap=1.0)
    aligner.add(np.array([0.0, 0.15, 5.25, 5.3]), np.array([[1.0], [2.0], [3.0], [4.0]]))
    found = aligner.values(0)
    np.testing.assert_array_equal(np.isnan(found), [False, False, True, True, False])


def test_aligner__does_not_alias():
    """A fast oscillation of a fast signal is averaged away, not sampled into a slow one."""
    time = np.arange(10_000) / 1000
    aligner = FrameAligner(SessionTimes(300, 30.0), 1)
    aligner.add(time, np.sin(2 * np.pi * 30.5 * time)[:, None])
    assert aligner.is_mean(0)
    assert np.abs(aligner.values(0)[1:-1]).max() < 0.1  # single samples would reach 1


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("name", ["photometry.csv", "photometry.parquet"])
def test_signals__of_a_table_of_sessions(store, table, name):
    time = np.arange(0, 10, 0.1)
    rows = [
        pd.DataFrame({"session": one, "time": time, "dF/F": time * k, "iso": 1.0})
        for k, one in enumerate((ONE, TWO), 1)
    ]
    found = kpms_zarr.signals(store, table(pd.concat(rows), name))
    assert (found.names, found.versions, found.n_sessions) == (("dF_F", "iso"), ("v1", "v1"), 2)
    assert any("'dF/F' is called dF_F" in note for note in found.notes)
    assert signal_names(store) == ["dF_F", "iso"]
    one = kpms_zarr.open_signal(store, "dF_F", TWO)
    np.testing.assert_allclose(one.values, 2 * one["time"].values, atol=1e-9)
    assert one.sizes["frame"] == 240
    long = kpms_zarr.open_signal(store, "dF_F", ONE)
    is_missing = np.isnan(long.values)
    assert is_missing.sum() == 2  # behind the last sample, at 9.9 s
    assert found.missing[0] == pytest.approx(2 / 540)
    assert kpms_zarr.verify(store).is_sound
    with access.dataset(store, "signals/iso/v1") as data:
        assert data["value"].dims == ("session", "frame")


def test_signals__of_frames_and_of_rows(store, table):
    values = np.arange(300.0)
    frame = pd.DataFrame({"frame": np.arange(0, 300, 2), "value": values[::2]})
    kpms_zarr.signals(store, table(frame), session=ONE)
    found = kpms_zarr.open_signal(store, "value", ONE).values
    np.testing.assert_array_equal(found[::2], values[::2])
    assert np.isnan(found[1::2]).all()  # a frame without a row has no value
    kpms_zarr.signals(store, table(pd.DataFrame({"value": values})), session=ONE, units="V")
    again = kpms_zarr.open_signal(store, "value", ONE)
    np.testing.assert_array_equal(again.values, values)
    assert again.attrs["units"] == "V"
    assert kpms_zarr.open_signal(store, "value", ONE).sizes["frame"] == 300


def test_signals__of_other_sessions_stay_and_old_versions_too(store, table):
    for name, factor in ((ONE, 1), (TWO, 2), (ONE, 3)):
        n = 300 if name == ONE else 240
        given_ = pd.DataFrame({"value": factor * np.arange(float(n))})
        # The session is found by the name of the file.
        kpms_zarr.signals(store, table(given_, f"{name}.csv"), name="light")
    assert kpms_zarr.open_signal(store, "light", ONE).values[1] == 3
    assert kpms_zarr.open_signal(store, "light", TWO).values[1] == 2
    with access.dataset(store, "signals/light/v1") as data:
        assert float(data["value"][0, 1]) == 1
    kpms_zarr.signals(store, "none", name="light")
    assert signal_names(store) == []
    kpms_zarr.signals(store, table(given_, f"{ONE}.csv"), name="light")
    assert StoredSignal(store, "light").sessions == (ONE,)


def test_signals__start_and_gap(store, table):
    time = np.array([100.0, 101.0, 104.0, 105.0])
    path = table(pd.DataFrame({"time": time, "value": time}))
    kpms_zarr.signals(store, path, session=ONE, start=100)
    found = kpms_zarr.open_signal(store, "value", ONE)
    np.testing.assert_allclose(found.values[:31], found["time"].values[:31] + 100)
    assert np.isnan(found.values[31:120]).all()
    kpms_zarr.signals(store, path, session=ONE, start=100, max_gap=3)
    assert np.isfinite(kpms_zarr.open_signal(store, "value", ONE).values[:151]).all()


# ------------------------------------------------------------------ NWB


def write_nwb(path, **series):
    """Write series as pynwb lays them out."""
    with h5py.File(path, "w") as file:
        for name, (data, times, rate) in series.items():
            group = file.create_group(f"processing/ophys/{name}")
            group.attrs["neurodata_type"] = "RoiResponseSeries"
            values = group.create_dataset("data", data=data)
            values.attrs["unit"], values.attrs["conversion"] = "volts", 2.0
            if rate:
                start = group.create_dataset("starting_time", data=times)
                start.attrs["rate"] = rate
            else:
                group.create_dataset("timestamps", data=times)


def test_signals__of_nwb_series(store, tmp_path):
    time = np.arange(0, 10, 0.05)
    path = tmp_path / f"{ONE}.nwb"
    write_nwb(path, stamped=(time, time, 0), rated=(time, 0.0, 20.0),
              two=(np.stack([time, -time], 1), time, 0))  # fmt: skip
    found = kpms_zarr.signals(store, path)
    assert set(found.names) == {"stamped", "rated"}
    for name in found.names:
        one = kpms_zarr.open_signal(store, name, ONE)
        np.testing.assert_allclose(one.values[:298], 2 * one["time"].values[:298], atol=1e-9)
        assert one.attrs["units"] == "volts"
    kpms_zarr.signals(store, path, column=["processing/ophys/two[1]"], name="second")
    one = kpms_zarr.open_signal(store, "second", ONE)
    np.testing.assert_allclose(one.values[:298], -2 * one["time"].values[:298], atol=1e-9)
    for column, words in (("two", r"two\[0 to 1\]"), ("none", "stamped"), ("two[2]", "two")):
        with pytest.raises(InputError, match=words):
            kpms_zarr.signals(store, path, column=[column])


def test_signals__of_nwb_as_pynwb_writes_it(store, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    file = pynwb.NWBFile("d", "i", datetime(2020, 1, 1, tzinfo=UTC))
    time = np.arange(400) / 40
    file.add_acquisition(
        pynwb.TimeSeries(name="photometry", data=np.cos(time), unit="a.u.", rate=40.0)
    )
    with pynwb.NWBHDF5IO(str(tmp_path / "p.nwb"), "w") as io:
        io.write(file)
    kpms_zarr.signals(store, tmp_path / "p.nwb", session=ONE, column=["photometry"])
    one = kpms_zarr.open_signal(store, "photometry", ONE)
    inside = slice(0, 299)
    np.testing.assert_allclose(one.values[inside], np.cos(one["time"].values[inside]), atol=1e-3)


# ------------------------------------------------------------------ refused

TIME = np.arange(0, 10, 0.1)
WRONG = {
    "unknown session": ({"session": "nobody", "time": TIME, "value": TIME}, {}, "nobody"),
    "no session": ({"time": TIME, "value": TIME}, {}, "`session=`"),
    "unknown, given": ({"time": TIME, "value": TIME}, {"session": "nobody"}, "nobody"),
    "no values": ({"session": ONE, "time": TIME}, {}, "a column of values"),
    "no column": ({"session": ONE, "time": TIME, "a": TIME}, {"column": ["b"]}, "the columns b"),
    "backwards": ({"session": ONE, "time": TIME[::-1], "a": TIME}, {}, "ascend"),
    "missing time": ({"session": ONE, "time": [0, np.nan], "a": [1, 2]}, {}, "ascend"),
    "in turns": ({"session": [ONE, TWO] * 50, "time": TIME, "a": TIME}, {}, "one behind the other"),
    "frame": ({"session": ONE, "frame": [0, 300], "a": [1, 2]}, {}, "frames 0 to 299"),
    "half a frame": ({"session": ONE, "frame": [0, 0.5], "a": [1, 2]}, {}, "frame 0.5"),
    "frame twice": ({"session": ONE, "frame": [0, 0], "a": [1, 2]}, {}, "ascend"),
    "rows": ({"session": ONE, "a": [1, 2]}, {}, "2 rows"),
    "elsewhere": ({"session": ONE, "time": TIME + 900, "a": TIME}, {}, "`start=`"),
    "text": ({"session": ONE, "time": [0, 1], "a": ["x", "y"]}, {}, "number"),
    "two names": ({"session": ONE, "time": TIME, "a": TIME, "b": TIME}, {"name": "c"}, "`name=`"),
    "taken": ({"session": ONE, "time": TIME, "speed": TIME}, {}, "speed"),
    "name": ({"session": ONE, "time": TIME, "a": TIME}, {"name": "a/b"}, "`name=`"),
    "gap": ({"session": ONE, "time": TIME, "a": TIME}, {"max_gap": -1}, "`max_gap=`"),
    "start": ({"session": ONE, "time": TIME, "a": TIME}, {"start": np.inf}, "`start=`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_signals__refuse_what_is_wrong_and_change_nothing(store, table, case):
    columns, options, words = WRONG[case]
    path = table(pd.DataFrame(columns))
    with pytest.raises(InputError, match=words):
        kpms_zarr.signals(store, path, **options)
    assert signal_names(store) == []
    found = kpms_zarr.verify(store)
    assert found.is_sound
    assert not any("signals" in note for note in found.notes)


def test_signals__that_are_none_are_refused(store, tmp_path):
    for file in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(InputError):
            kpms_zarr.signals(store, file, session=ONE)
    with pytest.raises(InputError, match="`name=`"):
        kpms_zarr.signals(store, "none", name="light")
    with pytest.raises(InputError, match="signals"):
        kpms_zarr.open_signal(store, "light", ONE)


def test_signals__of_a_session_of_another_length_now_are_refused(store, table):
    kpms_zarr.signals(store, table(pd.DataFrame({"value": np.arange(300.0)})), session=ONE)
    signal = StoredSignal(store, "value")
    with pytest.raises(InputError, match="299 frames"):
        signal.has(Session(ONE, 0, 299, FPS))
    with pytest.raises(InputError, match=TWO):
        kpms_zarr.open_signal(store, "value", TWO)


def test_signals__left_by_a_killed_process_are_harmless(store, table, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    path = table(pd.DataFrame({"value": np.arange(300.0)}))
    kpms_zarr.signals(store, path, session=ONE, name="light")
    with monkeypatch.context() as patch:
        patch.setattr("kpms_zarr.store.ingest.signals._VersionWriter.missing", killed)
        patch.setattr("kpms_zarr.store.ingest.signals._VersionWriter.discard", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            kpms_zarr.signals(store, path, session=ONE, name="light")
    found = kpms_zarr.verify(store)
    assert found.is_sound
    assert any("signals/light/v2" in note for note in found.notes)
    assert kpms_zarr.signals(store, path, session=ONE, name="light").versions == ("v2",)
    assert kpms_zarr.verify(store).is_sound
