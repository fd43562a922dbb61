"""Epochs of sessions: tables of all kinds, what is stored, and a wrong input for each error."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.verify import verify
from kpms_zarr.store.study.epochs import SessionEpochs, check_epochs, stored_epochs
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=2, lengths=(100, 60), n_keypoints=3, fps=10)
ONE, TWO = STUDY.session_names


@pytest.fixture
def store(tmp_path):
    place = tmp_path / "s.zarr"
    write_store(place, STUDY)
    return place


@pytest.fixture
def table(tmp_path):
    """Write the rows of a csv file."""

    def write(*rows):
        path = tmp_path / "epochs.csv"
        path.write_text("\n".join(rows) + "\n")
        return path

    return write


def intervals(store, session):
    """Epoch, start and stop of each interval of a session."""
    own = stored_epochs(store)[1][session]
    rows = zip(own.epoch.tolist(), own.start.tolist(), own.stop.tolist(), strict=True)
    return [(own.names[epoch], start, stop) for epoch, start, stop in rows]


def test_epochs__in_seconds_go_by_timestamps(store, table):
    times = 1000 + np.arange(100) / 10
    times[30:] += 2.0
    kpms_zarr.timestamps(store, {ONE: times})
    rows = ("session,start_s,stop_s,condition", f"{ONE},0,3,a", f"{ONE},3,5,b", f"{ONE},5,,c")
    with pytest.raises(InputError, match="a frame between them"):
        kpms_zarr.epochs(store, table(rows[0], f"{ONE},3,4.9,x"))
    with pytest.raises(InputError, match=r"within the 100 frames \(12 s\)"):
        kpms_zarr.epochs(store, table(rows[0], f"{ONE},0,12.1,x"))
    kpms_zarr.epochs(store, table(rows[0], f"{ONE},0,5,a", f"{ONE},5,12,b"))
    assert intervals(store, ONE) == [("a", 0, 30), ("b", 30, 100)]
    kpms_zarr.epochs(store, table(rows[0], f"{ONE},0,2.05,a", f"{ONE},5.3,,b"))
    assert intervals(store, ONE) == [("a", 0, 21), ("b", 33, 100)]
    said = kpms_zarr.timestamps(store, {ONE: times + 1})
    assert "epochs of the store keep their frames" in " ".join(said.notes)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_at__equals_a_loop(lengths):
    edges = np.cumsum([0, *lengths])
    pairs = [(a, b) for a, b in zip(edges[:-1:2], edges[1::2], strict=False) if b > a]
    if not pairs:
        return
    start, stop = np.array(pairs).T
    epochs = SessionEpochs.of(["a"] * len(pairs), [""] * len(pairs), start, stop)
    frames = range(int(edges[-1]) + 2)
    naive = [next((i for i, (a, b) in enumerate(pairs) if a <= f < b), -1) for f in frames]
    assert epochs.at(0, len(frames)).tolist() == naive


@pytest.mark.parametrize(
    "rows",
    [
        ("session,start_s,stop_s,condition", f"{ONE},0,4,dark", f"{ONE},4,,light"),
        ("session,start_frame,stop_frame,condition", f"{ONE},0,40,dark", f"{ONE},40,100,light"),
        ("recording;start;end;unit;condition", f"{ONE};40;100;frames;light", f"{ONE};0;4;s;dark"),
        ("Session,Start_s,Stop_s,Condition", f"{ONE},,3.95,dark", f"{ONE},3.9500001,10,light"),
    ],
    ids=["seconds", "frames", "units", "between frames"],
)
def test_epochs__of_seconds_and_frames(store, table, rows):
    result = kpms_zarr.epochs(store, table(*rows))
    assert (result.version, result.n_sessions, result.n_epochs) == ("v1", 1, 2)
    assert intervals(store, ONE) == [("dark", 0, 40), ("light", 40, 100)]
    found = kpms_zarr.open_epochs(store)
    assert found.attrs["version"] == "v1"
    assert found.session.values.tolist() == [ONE, ONE]
    assert found.condition.values.tolist() == ["dark", "light"]
    assert found.stop.attrs["units"] == "frames"
    assert verify(store).is_sound
    assert is_current(access.open_group(store))


def test_epochs__are_named_and_numbered(store, table):
    kpms_zarr.epochs(
        store,
        table("session,start_s,stop_s,condition", f"{ONE},0,1,x", f"{ONE},5,6,x", f"{ONE},2,3,x 1",
              f"{ONE},7,8,"),
    )  # fmt: skip
    assert intervals(store, ONE) == [
        ("x 2", 0, 10), ("x 1", 20, 30), ("x 3", 50, 60), ("epoch", 70, 80),
    ]  # fmt: skip
    kpms_zarr.epochs(
        store,
        table("session,start_s,stop_s,epoch", f"{ONE},0,1,on", f"{ONE},1,2,off", f"{ONE},2,3,on"),
    )
    assert intervals(store, ONE) == [("on", 0, 10), ("off", 10, 20), ("on", 20, 30)]
    assert stored_epochs(store)[0] == "v2"


def test_epochs__keep_those_of_other_sessions_and_old_versions(store, table):
    rows = ("session,start_s,stop_s,condition,dose", f"{ONE},0,1,x,3")
    said = " ".join(kpms_zarr.epochs(store, table(*rows)).notes)
    assert "not used: dose" in said
    assert "one epoch each: 1 of 2" in said
    kpms_zarr.epochs(store, table("session,start_s,stop_s,condition", f"{TWO},2,3,y"))
    assert intervals(store, ONE) == [("x", 0, 10)]
    assert intervals(store, TWO) == [("y", 20, 30)]
    assert access.open_group(store)["epochs/v1/start"].shape == (1,)
    kpms_zarr.epochs(store, "none")
    assert stored_epochs(store) == ("", {})
    assert kpms_zarr.open_epochs(store).sizes["interval"] == 0
    assert is_current(access.open_group(store))


def test_epochs__of_a_table_in_python(store):
    table = pd.DataFrame({"session": [ONE], "start_frame": [3], "stop_frame": [np.nan]})
    kpms_zarr.epochs(store, table)
    assert intervals(store, ONE) == [("epoch", 3, 100)]


@pytest.mark.parametrize("kind", ["arrays", "numbers", "csv", "parquet"])
def test_conditions_by_frame__are_epochs_of_runs(store, tmp_path, kind):
    values = np.repeat(["on", "", "off", "on"], [10, 20, 30, 40])
    if kind == "arrays":
        given = {ONE: values}
    elif kind == "numbers":
        number = {"on": 1.0, "off": 0.0, "": np.nan}
        given = {ONE: np.array([number[value] for value in values])}
    else:
        frame = np.arange(100)
        rows = pd.DataFrame({"session": ONE, "frame": frame, "condition": values})
        rows = rows.sample(frac=1, random_state=0)
        given = tmp_path / ("frames.parquet" if kind == "parquet" else "frames.csv")
        if kind == "parquet":
            pytest.importorskip("pyarrow")
            rows.to_parquet(given)
        else:
            rows.to_csv(given, index=False)
    result = kpms_zarr.epochs(store, given)
    on, off = ("1", "0") if kind == "numbers" else ("on", "off")
    assert intervals(store, ONE) == [(on, 0, 10), (off, 30, 60), (on, 60, 100)]
    assert result.n_epochs == 2


HEADER = "session,start_s,stop_s,condition"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((HEADER, "nobody,0,1,x"), "a session, such as"),
        ((HEADER, "session,0,1,x"), "what names one session"),
        ((HEADER, f"{ONE},0,1,x", f"{ONE.title()},2,3,x"), "the same name for a session"),
        ((HEADER, ",0,1,x"), "a session in every row"),
        ((HEADER, f"{ONE},0,10.1,x"), "within the 100 frames"),
        ((HEADER, f"{ONE},20,30,x"), "within the 100 frames"),
        ((HEADER, f"{ONE},-1,3,x"), "0 or more"),
        ((HEADER, f"{ONE},3,3,x"), "a stop after the start"),
        ((HEADER, f"{ONE},3,2,x"), "a stop after the start"),
        ((HEADER, f"{ONE},soon,2,x"), "a number of seconds as start"),
        ((HEADER, f"{ONE},0,inf,x"), "a number of seconds as stop"),
        ((HEADER, f"{ONE},0,3,x", f"{ONE},2,4,y"), "do not overlap"),
        (("session,start_frame,stop_frame", f"{ONE},0.5,4"), "a whole number of frames"),
        (("session,start,stop,condition", f"{ONE},0,4,x"), "do not say in which"),
        (("session,start,stop,units", f"{ONE},0,4,min"), "units of s or frames"),
        (("session,start_s,stop_frame", f"{ONE},0,4"), "the columns session, start_s and stop_s"),
        (("session,start_s,condition", f"{ONE},0,4"), "the columns session, start_s and stop_s"),
        (("session,start_s,start_s,stop_s", f"{ONE},0,0,4"), "more than once"),
        ((HEADER,), "the columns session, start_s and stop_s"),
        (("session,colour", f"{ONE},red"), "the columns session, start_s and stop_s"),
        (
            (f"{HEADER},epoch", f"{ONE},0,1,x,a", f"{ONE},1,2,y,a"),
            "one condition for epoch 'a'",
        ),
        ((f"{HEADER},epoch", f"{ONE},0,1,x,"), "a name in the column epoch"),
        (("session,frame,condition", f"{ONE},100,x"), "frames 0 to 99"),
        (("session,frame,condition", f"{ONE},1,x", f"{ONE},1,y"), "once"),
        (("session,frame,condition", "nobody,1,x"), "a session, such as"),
        (("session,frame,condition", f"{ONE},1,"), "a condition for some frames"),
        (("session,condition", f"{ONE},x"), "the columns session, frame and condition"),
        (("mouse,condition", f"{ONE},x"), "the columns session, frame and condition"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_epochs__refuse_what_is_wrong_and_change_nothing(store, table, rows, words):
    before = sorted(path.relative_to(store) for path in store.rglob("*"))
    with pytest.raises(InputError, match=words):
        kpms_zarr.epochs(store, table(*rows))
    assert sorted(path.relative_to(store) for path in store.rglob("*")) == before


def test_epochs__say_all_that_is_wrong_at_once(store, table):
    rows = (HEADER, "nobody,0,1,x", f"{ONE},5,2,x", f"{TWO},0,2,x", f"{TWO},1,9,x")
    with pytest.raises(InputError) as caught:
        kpms_zarr.epochs(store, table(*rows))
    assert [problem.where[-5:] for problem in caught.value.problems] == ["row 2", "row 3", "row 5"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({ONE: ["x"] * 99}, "a condition for each of the 100 frames"),
        ({"nobody": ["x"] * 99}, "a session, such as"),
        ({ONE: [""] * 100}, "a condition for some frames"),
        (pd.DataFrame({"session": [ONE], "condition": ["x"]}), "given as arrays"),
    ],
    ids=str,
)
def test_epochs__refuse_wrong_tables_in_python(store, given, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.epochs(store, given)
    assert stored_epochs(store) == ("", {})


def test_epochs__of_a_session_that_is_shorter_now_are_refused(store, table):
    kpms_zarr.epochs(store, table(HEADER, f"{ONE},0,9,x"))
    session = access.Session(ONE, 0, 50, 10.0)
    with pytest.raises(InputError, match="write its epochs again"):
        check_epochs(stored_epochs(store)[1], [session], "here")
