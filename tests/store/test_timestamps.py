"""Times of frames: every way in, what is stored, and a wrong input for each error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest import time_filling, timestamp_versions
from kpms_zarr.store.ingest.time_filling import TimeAudit, TimeFiller
from kpms_zarr.store.ingest.verify import verify
from kpms_zarr.store.study import timestamps as module
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.timestamps import SessionTimes, StudyTimes

STUDY = SyntheticStudy(n_sessions=2, lengths=(100, 60), n_keypoints=3, fps=10)
ONE, TWO = STUDY.session_names
LENGTHS = dict(zip(STUDY.session_names, (100, 60), strict=True))


def times_of(session, seed=0):
    """Irregular times of a session, one of them late by half a second."""
    rng = np.random.default_rng([seed, *session.encode()])
    step = 0.1 + rng.uniform(-0.02, 0.02, LENGTHS[session])
    step[40] += 0.5
    return 1234.5 + np.cumsum(step)


@pytest.fixture
def store(tmp_path):
    place = tmp_path / "s.zarr"
    write_store(place, STUDY)
    return place


@pytest.fixture
def table(tmp_path):
    """Write the rows of a csv file."""

    def write(*rows, name="times.csv"):
        path = tmp_path / name
        path.write_text("\n".join(rows) + "\n")
        return path

    return write


def stored(store, session):
    one = next(one for one in access.sessions(store) if one.name == session)
    times = StudyTimes(store).of(one)
    return times.at(0, one.n_frames) if times.is_given else None


def files_of(store):
    return sorted(str(path.relative_to(store)) for path in store.rglob("*"))


# --- times of frames ---------------------------------------------------------------------


@st.composite
def irregular(draw):
    """Times, and the length of a window of them."""
    steps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=40))
    return 100 + np.cumsum(steps) / 64, draw(st.integers(1, 12))


@given(irregular(), st.data())
def test_frame_times__equal_a_loop_whatever_the_windows(case, data):
    times, window = case
    n = len(times)
    found = SessionTimes.of_array(times, 30.0, window)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert found.at(start, stop).tolist() == times[start:stop].tolist()
    interval = np.median(np.diff(times)) if n > 1 else 1 / 30
    assert found.end == times[-1] + interval
    padded = np.append(times, found.end)
    frames = np.array(data.draw(st.lists(st.integers(0, n), max_size=9)), np.int64)
    assert found.of(frames).tolist() == padded[frames].tolist()
    assert found.elapsed(frames, n).tolist() == (padded[n] - padded[frames]).tolist()
    steps = found.steps(start, stop)
    assert np.array_equal(steps, (np.diff(times, prepend=np.nan) * 30)[start:stop], equal_nan=True)
    seconds = data.draw(st.floats(0, 60))
    after = [k for k in range(n) if times[k] - times[0] >= seconds - 1e-6]
    beyond = n + (seconds - 1e-6 > padded[n] - times[0])
    assert found.frame_after(seconds) == (after[0] if after else beyond)


@pytest.mark.parametrize("window", [7, 1000])
def test_steady_rate__is_that_of_a_regular_clock_alone(window):
    regular = 5 + np.arange(100) / 29.97
    for fps in (30, 29.97):
        found = SessionTimes.of_array(regular, fps, window).steady_rate
        assert found == pytest.approx(29.97, rel=1e-9)
    assert SessionTimes.of_array(regular, 29.97, window).steady_rate == 29.97
    for place in (0, 50, 99):
        late = regular.copy()
        late[place] += 3e-6
        assert SessionTimes.of_array(late, 29.97, window).steady_rate is None
    assert SessionTimes(100, 30).steady_rate is None


def test_frame_times__without_timestamps_are_frame_by_fps():
    found = SessionTimes(7, 30.0)
    assert not found.is_given
    assert found.at(2, 5).tolist() == (np.arange(2, 5) / 30).tolist()
    assert found.of(np.array([0, 7])).tolist() == [0, 7 / 30]
    assert (found.end, found.tick_ms, found.steps(0, 3)) == (7 / 30, 1000 / 30, None)
    assert found.ticks(np.array([1]), np.array([4])).tolist() == [3]
    assert [found.frame_after(s) for s in (0, 0.03, 0.0333333, 1)] == [0, 1, 1, 30]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=30), st.integers(1, 9), st.data())
def test_filler__interpolates_alike_whatever_the_blocks(apart, block, data):
    frame = np.cumsum([0, *apart])
    rng = np.random.default_rng(len(apart))
    time = 50 + np.cumsum(rng.uniform(0.01, 0.2, len(frame)))
    every = np.arange(frame[-1] + 1)
    chunk = data.draw(st.integers(1, 7))
    filler, found = TimeFiller(), []
    kept, time_filling.FRAMES_PER_CHUNK = time_filling.FRAMES_PER_CHUNK, chunk
    try:
        for start in range(0, len(frame), block):
            found += filler.add(frame[start : start + block], time[start : start + block])
    finally:
        time_filling.FRAMES_PER_CHUNK = kept
    assert max(map(len, found)) <= chunk
    assert np.concatenate(found).tolist() == np.interp(every, frame, time).tolist()
    assert np.concatenate(found)[frame].tolist() == time.tolist()
    assert filler.n_filled == len(every) - len(frame)


# --- ways in -----------------------------------------------------------------------------


def rows_of(session, frames=None):
    times = times_of(session).tolist()
    frames = range(len(times)) if frames is None else frames
    return [f"{session},{frame},{times[frame]!r}" for frame in frames]


def given_times(kind, tmp_path):
    """The times of both sessions, in one of the ways in which they can be given."""
    both = {name: times_of(name) for name in (ONE, TWO)}
    if kind == "arrays":
        return both
    frame = pd.concat(
        [pd.DataFrame({"session": n, "frame": np.arange(len(t)), "time_s": t})
         for n, t in both.items()]
    )  # fmt: skip
    if kind == "DataFrame":
        return frame
    if kind == "interleaved":  # rows of the sessions in turn
        frame = frame.sort_values("frame", kind="stable").drop(columns="frame")
    if kind == "milliseconds":
        frame = frame.assign(time_ms=frame.time_s * 1000).drop(columns="time_s")
    if kind in ("csv", "interleaved", "milliseconds"):
        frame.to_csv(tmp_path / "all.csv", index=False)
        return tmp_path / "all.csv"
    if kind == "semicolons":
        frame.to_csv(tmp_path / "all.csv", index=False, sep=";", decimal=",")
        return tmp_path / "all.csv"
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(tmp_path / "all.parquet")
        return [tmp_path / "all.parquet"]
    paths = []
    for name, times in both.items():
        if kind == "npy":
            paths.append(tmp_path / f"{name}_timestamps.npy")
            np.save(paths[-1], times)
        elif kind == "columns":
            paths.append(tmp_path / f"{name}.csv")
            own = pd.DataFrame({"frame": np.arange(len(times)), "timestamp": times})
            own.to_csv(paths[-1], index=False)
        else:
            paths.append(tmp_path / f"{name}.{kind.split()[0]}")
            head = ["anything"] if "header" in kind else []
            paths[-1].write_text("\n".join([*head, *map(repr, times.tolist())]) + "\n\n")
    return paths


@pytest.mark.parametrize(
    "kind",
    ["arrays", "DataFrame", "csv", "interleaved", "milliseconds", "semicolons", "parquet", "npy",
     "columns", "txt", "csv header"],
)  # fmt: skip
def test_timestamps__come_back_as_they_were_given(store, tmp_path, kind):
    result = kpms_zarr.timestamps(store, given_times(kind, tmp_path))
    assert (result.version, result.n_frames) == ("v1", 160)
    assert sorted(result.sessions) == [ONE, TWO]
    for name in (ONE, TWO):
        found = stored(store, name)
        if kind == "milliseconds":
            np.testing.assert_allclose(found, times_of(name), rtol=1e-15)
        else:
            # pandas 2 reads some numbers in text to the one beside.
            is_text = kind in ("txt", "csv header")
            np.testing.assert_array_max_ulp(found, times_of(name), maxulp=int(is_text))
    assert verify(store).is_sound
    assert is_current(access.open_group(store))


def test_open_timestamps__shows_those_that_hold(store):
    assert dict(kpms_zarr.open_timestamps(store).sizes) == {"session": 0, "frame": 0}
    kpms_zarr.timestamps(store, {TWO: times_of(TWO)})
    kpms_zarr.timestamps(store, {ONE: times_of(ONE)})
    found = kpms_zarr.open_timestamps(store)
    assert found.session.values.tolist() == [ONE, TWO]
    assert found.version.values.tolist() == ["v2", "v1"]
    assert found.timestamp.attrs["units"] == "s"
    np.testing.assert_array_equal(found.timestamp[0], times_of(ONE))
    np.testing.assert_array_equal(found.timestamp[1, :60], times_of(TWO))
    assert np.isnan(found.timestamp[1, 60:]).all()
    plain = xr.open_zarr(store, group="timestamps/v1")
    assert plain.session.values.tolist() == [TWO]
    np.testing.assert_array_equal(plain.timestamp[0], times_of(TWO))


def test_timestamps__of_a_session_are_the_newest(store):
    for seed in (1, 2):
        kpms_zarr.timestamps(store, {ONE: times_of(ONE, seed), TWO: times_of(TWO, seed)})
    result = kpms_zarr.timestamps(store, {TWO: times_of(TWO, 3)})
    assert result.version == "v3"
    # v1 holds of no session, and nobody reads it.
    assert StudyTimes(store).versions == ("v2", "v3")
    assert stored(store, ONE).tolist() == times_of(ONE, 2).tolist()
    assert stored(store, TWO).tolist() == times_of(TWO, 3).tolist()
    assert kpms_zarr.timestamps(store, "none").version == ""
    assert stored(store, ONE) is None
    assert is_current(access.open_group(store))
    said = kpms_zarr.timestamps(store, {TWO: times_of(TWO, 4)})
    assert said.version == "v4"
    assert "sessions without timestamps, whose times are frame / fps" in " ".join(said.notes)
    assert stored(store, ONE) is None
    assert access.open_group(store)["timestamps/v1/timestamp"].shape == (2, 100)


def test_timestamps__of_a_session_that_is_another_now_are_not_used(tmp_path):
    store, rng = tmp_path / "s.zarr", np.random.default_rng(0)
    first, second = rng.normal(size=(2, 100, 3, 2))
    kpms_zarr.ingest(store, arrays={"a": first}, fps=10)
    kpms_zarr.timestamps(store, {"a": times_of(ONE)})
    kpms_zarr.remove(store, "a")
    # As labels of it may still be there.
    assert StudyTimes(store).of(Session("a", 0, 100, 10.0)).is_given
    assert not StudyTimes(store).of(Session("a", 0, 99, 10.0)).is_given
    kpms_zarr.ingest(store, arrays={"a": second}, fps=10)
    times = StudyTimes(store)
    assert not times.of(Session("a", 0, 100, 10.0)).is_given
    assert "not used: a" in " ".join(times.notes(access.sessions(store)))
    kpms_zarr.remove(store, "a")
    kpms_zarr.ingest(store, arrays={"a": first}, fps=10)
    assert stored(store, "a").tolist() == times_of(ONE).tolist()


def test_timestamps__between_frames_are_interpolated(store, table):
    frames = [0, 1, 2, 7, *range(9, 100)]
    said = kpms_zarr.timestamps(store, table("session,frame,time_s", *rows_of(ONE, frames)))
    expected = np.interp(np.arange(100), frames, times_of(ONE)[frames])
    assert stored(store, ONE).tolist() == expected.tolist()
    assert "times of 5 frames interpolated" in " ".join(said.notes)


def test_timestamps__of_frames_of_the_video(tmp_path, table):
    store = tmp_path / "s.zarr"
    array = np.random.default_rng(0).normal(size=(100, 3, 2))
    kpms_zarr.ingest(store, arrays={"a": array}, fps=20, trim="10:91", downsample=2)
    video = 7 + np.cumsum(np.random.default_rng(1).uniform(0.04, 0.06, 100))
    rows = [f"{frame},{time!r}" for frame, time in enumerate(video.tolist())]
    path = table("video_frame,time_s", *rows, name="a.csv")
    kpms_zarr.timestamps(store, path)
    assert stored(store, "a").tolist() == video[10:91:2].tolist()


def test_timestamps__of_one_file_for_a_session_that_is_named(store, table):
    path = table(*map(repr, times_of(TWO).tolist()), name="camera 7.txt")
    assert kpms_zarr.timestamps(store, path, session=TWO).sessions == (TWO,)
    np.testing.assert_array_max_ulp(stored(store, TWO), times_of(TWO), maxulp=1)


def test_frame_rates_that_differ__are_said(store):
    said = kpms_zarr.timestamps(store, {ONE: np.arange(100) / 25})
    assert "25 frames per second by its timestamps, 10 by its frame rate" in " ".join(said.notes)


# --- what is wrong -----------------------------------------------------------------------

HEADER = "session,frame,time_s"


def wrong_tables():
    """Rows of a csv file, and what is said of them."""
    times = times_of(ONE)

    def of(values):
        return ["session,time_s", *(f"{ONE},{value}" for value in values)]

    late = times.copy()
    late[50] = times[49]
    return {
        "nobody": (["session,time_s", "nobody,0"], "a session, such as"),
        "too few": (of(times[:-1]), "a time for each of the 100 frames of session .*found 99"),
        "too many": (of([*times, 2e3]), "a time for each of the 100 frames of session .*found 101"),
        "no number": (of([*times[:50], "", *times[51:]]), "in every row, found no number"),
        "infinite": (of([*times[:99], "inf"]), "in every row, found inf"),
        "twice": (of(late), "increase from frame to frame, found .* after"),
        "backwards": (of(times[::-1]), "increase from frame to frame"),
        "milliseconds": (of(1000 * times), "look like milliseconds.\n.*divide them by 1,000, or "
                         "call the column time_ms"),
        "microseconds": (of(1e6 * times), "look like microseconds"),
        "minutes": (of(times / 60), "look like minutes"),
        "numbers": (of(range(100)), "as numbers of frames are"),
        "too slow": (of(47 * times), r"apart.\n.*if the frame rate is wrong, correct it"),
        "out of range": ([HEADER, f"{ONE},0,1", f"{ONE},100,2"], "frames 0 to 99 .* frame 100"),
        "half": ([HEADER, f"{ONE},0,1", f"{ONE},0.5,2"], "a whole number for each frame.* 0.5"),
        "no frame": ([HEADER, f"{ONE},0,1", f"{ONE},,2"], "a whole number for each frame.* none"),
        "in disorder": ([HEADER, f"{ONE},0,1", f"{ONE},2,2", f"{ONE},1,3"], "in their order, each"),
        "frame twice": ([HEADER, f"{ONE},0,1", f"{ONE},0,2"], "in their order, each once"),
        "no last": ([HEADER, *rows_of(ONE, range(99))], "of frames 0 to 98"),
        "no first": ([HEADER, *rows_of(ONE, range(2, 100))], "of frames 2 to 99"),
        "other frames": (["session,video_frame,time_s", f"{ONE},500,1"], "of none of its frames"),
        "no times": (["session,frame", f"{ONE},0"], "a time for each frame: the columns session"),
        "several": (["session,time_a,time_b", f"{ONE},0,1"], "several columns of times"),
        "no names": (["1,2", "3,4"], "2 columns without names"),
        "empty": ([""], "an empty file"),
        "text": (["time_s", "soon", "later"], "a session, such as"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(wrong_tables()))
def test_timestamps__refuse_what_is_wrong_and_change_nothing(store, table, kind):
    rows, words = wrong_tables()[kind]
    before = files_of(store)
    with pytest.raises(InputError, match=f"(?s){words}"):
        kpms_zarr.timestamps(store, table(*rows))
    assert files_of(store) == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nobody": [0.0]}, "a session, such as"),
        ({ONE: [[0.0]]}, r"an array \(frame,\) of numbers"),
        ({ONE: ["a"]}, r"an array \(frame,\) of numbers"),
        ({ONE: times_of(ONE)[:5]}, "for each of the 100 frames"),
        ({}, "no arrays"),
        ([], "no files"),
        ("nothing.csv", "nothing.csv"),
        (pd.DataFrame({"frame": [1], "time_s": [0.0]}), "the columns frame, time_s"),
    ],
    ids=str,
)
def test_timestamps__refuse_wrong_tables_in_python(store, given, words):
    before = files_of(store)
    with pytest.raises(InputError, match=words):
        kpms_zarr.timestamps(store, given)
    assert files_of(store) == before


def test_timestamps__say_all_that_is_wrong_at_once(store):
    with pytest.raises(InputError) as caught:
        kpms_zarr.timestamps(store, {ONE: np.arange(3.0), TWO: times_of(TWO) * 1000})
    assert len(caught.value.problems) == 2


def test_timestamps__of_one_session_twice_or_of_no_session(store, table):
    one = table(*map(repr, times_of(ONE).tolist()), name=f"{ONE}.txt")
    two = table("session,time_s", *(f"{ONE},{time}" for time in times_of(ONE)), name="all.csv")
    with pytest.raises(InputError, match="in one file"):
        kpms_zarr.timestamps(store, [one, two])
    with pytest.raises(InputError, match="one file, where a session is named"):
        kpms_zarr.timestamps(store, [one, one], session=ONE)
    with pytest.raises(InputError, match="leave `session=` out"):
        kpms_zarr.timestamps(store, two, session=ONE)
    (one.parent / "bad.npy").write_bytes(b"\x93NUMPY and no more")
    with pytest.raises(InputError, match="NumPy cannot read"):
        kpms_zarr.timestamps(store, one.parent / "bad.npy")


def test_audit__finds_a_fault_whatever_the_blocks():
    times = times_of(ONE)
    times[63] = times[62]
    session = Session(ONE, 0, 100, 10.0)
    said = set()
    for block in (1, 7, 63, 64, 100):
        audit = TimeAudit(session, "here", "")
        for start in range(0, 100, block):
            rows = np.arange(start, min(start + block, 100))
            audit.taken(times[rows], None, rows + 1)
        audit.end()
        said.add(str(audit.problem))
    assert len(said) == 1
    assert "row 64" in said.pop()


def test_timestamps__that_are_right_pass_the_audit():
    """The twin of the tests of what is refused: the audit does not refuse everything."""
    for fps in (1.0, 9.9, 30.0, 500.0):
        audit = TimeAudit(Session("a", 0, 200, fps), "here", "")
        audit.taken(np.arange(200) / fps, None, np.arange(200))
        audit.end()
        assert audit.problem is None


# --- processes that are killed -----------------------------------------------------------

KILLED = """
import os, signal, sys
import numpy as np
import kpms_zarr
from kpms_zarr.store.core import consolidation
from kpms_zarr.store.ingest import timestamp_versions as module

place, moment = sys.argv[1:]

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "writing":
    module.TimestampRow.add = die
elif moment == "written":
    module.attributes.write = die
else:
    module.update_attributes = die
kpms_zarr.timestamps(place, {"session_000": np.arange(100) / 11})
"""


@pytest.mark.parametrize("moment", ["writing", "written", "whole"])
def test_timestamps__of_a_process_that_is_killed_are_not_there(store, moment):
    kpms_zarr.timestamps(store, {ONE: times_of(ONE)})
    done = subprocess.run([sys.executable, "-c", KILLED, store, moment], check=False)
    assert done.returncode == -9
    assert stored(store, ONE).tolist() == times_of(ONE).tolist()
    assert kpms_zarr.open_timestamps(store).version.values.tolist() == ["v1"]
    assert verify(store).is_sound
    verify(store, repair=True)
    assert is_current(access.open_group(store))
    result = kpms_zarr.timestamps(store, {ONE: times_of(ONE, 5)})
    assert result.version == ("v3" if moment == "whole" else "v2")
    assert stored(store, ONE).tolist() == times_of(ONE, 5).tolist()


def test_timestamps__that_cannot_be_written_leave_nothing(store, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(timestamp_versions.TimestampRow, "add", full)
    with pytest.raises(OSError, match="No space"):
        kpms_zarr.timestamps(store, {ONE: times_of(ONE)})
    assert stored(store, ONE) is None
    assert not any(name.startswith("timestamps/v") for name in files_of(store))


def test_windows__are_kept_in_bounds(store, monkeypatch):
    monkeypatch.setattr(module, "_WINDOW", 16)
    kpms_zarr.timestamps(store, {ONE: times_of(ONE), TWO: times_of(TWO)})
    every = StudyTimes(store)
    for session in access.sessions(store):
        times = SessionTimes(
            session.n_frames,
            session.fps,
            lambda number, s=session: every._window("v1", s.index, s.n_frames, number),
            window=16,
        )
        assert times.at(0, session.n_frames).tolist() == times_of(session.name).tolist()
    assert len(every._windows) <= module._WINDOWS_KEPT


# --- while files are added ---------------------------------------------------------------


ARRAYS = {name: np.random.default_rng(0).normal(size=(n, 3, 2)) for name, n in LENGTHS.items()}


@pytest.mark.parametrize("kind", ["table", "files", "arrays"])
def test_ingest__takes_timestamps_along(tmp_path, kind):
    given, folder = {name: times_of(name) for name in LENGTHS}, tmp_path / "files"
    folder.mkdir()
    for name, position in ARRAYS.items():
        columns = {
            f"p{k}_{axis}": position[:, k, i] for k in range(3) for i, axis in enumerate("xy")
        }
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    if kind == "table":
        times = folder / "times.csv"  # among the tracking files
        pd.concat(
            pd.DataFrame({"session": name, "time_s": values}) for name, values in given.items()
        ).to_csv(times, index=False)
    elif kind == "files":
        times = [folder / f"{name}_timestamps.npy" for name in given]
        for path, values in zip(times, given.values(), strict=True):
            np.save(path, values)
    else:
        times = given
    store = tmp_path / "s.zarr"
    done = kpms_zarr.ingest(store, folder, fps=10, timestamps=times)
    assert done.added == (ONE, TWO)
    assert any("timestamps v1 of 2 sessions" in note for note in done.notes)
    for name, values in given.items():
        np.testing.assert_allclose(stored(store, name), values)
    assert is_current(access.open_group(store))


def test_ingest__with_wrong_timestamps_leaves_the_store_as_it_was(store, tmp_path):
    before = kpms_zarr.info(store)
    new = {"new": np.zeros((100, 3, 2), np.float32)}
    names = list(STUDY.settings.keypoints)
    for times, words in (
        ({"new": np.arange(7.0)}, "`timestamps=`.*|a time for each of the 100 frames"),
        ({"nobody": np.arange(100.0)}, "a session, such as"),
        ({"new": np.zeros((2, 2))}, "an array .frame,. of numbers"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            kpms_zarr.ingest(store, arrays=new, keypoint_names=names, fps=10, timestamps=times)
        assert "`table=`" not in str(caught.value)
        assert kpms_zarr.info(store).sessions == before.sessions
        assert verify(store).is_sound
        with pytest.raises(InputError, match=words):
            kpms_zarr.ingest(tmp_path / "new.zarr", arrays=new, fps=10, timestamps=times)
        assert not (tmp_path / "new.zarr").exists()
