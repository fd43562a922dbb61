"""Tables of sessions as spreadsheets write them: what they say, which session a row is about."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.study.matching import Named, match
from kpms_zarr.store.study.tables import read_table

SUFFIX = "DLC_resnet50_ofJan1shuffle1_5000"
MICE = ("001", "002", "010", "mouse A", "mouse AB", "day1_b")
KNOWN = [Named(f"{m}{SUFFIX}", f"{m}{SUFFIX}", f"{m}{SUFFIX}.csv") for m in MICE]


def found(keys, known=KNOWN):
    """Session -> key, for a table whose rows say nothing."""
    return match({key: {"k": key} for key in keys}, {}, known, "t")


# ------------------------------------------------------------------ reading

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")
GROUPS = ("control", "Größe, 1", 'a "b"', "first\nsecond", "007", "")
WEIGHTS = ("23.5", "7", "0.25", "1234.75", "-3", "")


@st.composite
def written(draw):
    """Bytes of a table, and what is in it: names, groups, weights."""
    separator = draw(st.sampled_from(",;\t"))
    n = draw(st.integers(1, len(MICE)))
    groups = draw(st.lists(st.sampled_from(GROUPS), min_size=n, max_size=n))
    weights = draw(st.lists(st.sampled_from(WEIGHTS), min_size=n, max_size=n))
    has_commas = draw(st.booleans())
    rows = [
        [mouse, group, weight.replace(".", ",") if has_commas else weight]
        for mouse, group, weight in zip(MICE, groups, weights, strict=False)
    ]
    rows = [["animal", "group", "weight"], *rows]
    if draw(st.booleans()):
        rows = [[*row, "", " "] for row in rows]
    for place in draw(st.lists(st.integers(1, n + 1), max_size=3)):
        rows.insert(place, [""] * draw(st.sampled_from((0, 3, 5))))
    out = io.StringIO()
    ending = draw(st.sampled_from(("\n", "\r\n")))
    quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    csv.writer(out, delimiter=separator, lineterminator=ending, quoting=quoting).writerows(rows)
    said = f"sep={separator}{ending}" if draw(st.booleans()) else ""
    return (said + out.getvalue()).encode(draw(st.sampled_from(ENCODINGS))), groups, weights


@settings(deadline=None, max_examples=examples(200))
@given(written())
def test_read_table__any_spreadsheet_says_what_the_plain_table_says(tmp_path_factory, drawn):
    raw, groups, weights = drawn
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    path.write_bytes(raw)
    table = read_table(path, "--metadata")
    assert table.columns == ("group", "weight")
    assert list(table.rows) == list(MICE[: len(groups)])
    assert [row["group"] for row in table.rows.values()] == groups
    assert [row["weight"] for row in table.rows.values()] == weights


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"PK\x03\x04abc", "CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\0\0", "CSV UTF-8"),
        (b"a,b\n\x00\x01\x02,\x00\n", "no text"),
        (b'session,group\na,"b\nc,d\n', "quotes"),
        (b'session,weight\na,"1,234"\nb,"2,500"\n', "one way only"),
        (b"session;weight\na;1.234\nb;23,5\n", "one way only"),
        (b"session,group,\na,b,c\n", "3 fields where"),
        (b"session,,group\na,b,c\n", "a name of its own"),
        (b"session,group\na,b,c\n", "3 fields where the header has 2"),
        (b"session,group\na,b\n,c\n", "no name"),
        (b"session,group\na,b\na,c\n", "row 3: .*'a' a second time, with other values than in row"),
    ],
)
def test_read_table__what_can_be_read_in_several_ways_is_refused(tmp_path, raw, words):
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=words):
        read_table(path, "--metadata")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["23,5", "7"], ["23.5", "7"]),
        (["23,5", "007"], ["23,5", "007"]),
        (["1,2,3", "4,5"], ["1,2,3", "4,5"]),
        (["23,5", "heavy"], ["23,5", "heavy"]),
        (["1.234,5", "2.345,5"], ["1.234,5", "2.345,5"]),
    ],
)
def test_read_table__only_columns_of_numbers_have_decimal_commas(tmp_path, cells, said):
    path = tmp_path / "t.csv"
    path.write_text("session;w\n" + "".join(f"s{i};{cell}\n" for i, cell in enumerate(cells)))
    table = read_table(path, "--metadata")
    assert [row["w"] for row in table.rows.values()] == said


# ------------------------------------------------------------------ matching


def ways_of(mouse):
    """All that a person may write for the session of a mouse."""
    full = f"{mouse}{SUFFIX}"
    return [
        full, f"{full}.csv", mouse, f"{mouse}.mp4", f"{mouse}DLC", full[:-5],
        f"D:\\videos\\{mouse}.avi", f"videos/{mouse}.MP4", full.upper(), mouse.lstrip("0"),
    ]  # fmt: skip


@settings(deadline=None, max_examples=examples(200))
@given(st.data())
def test_match__every_way_of_naming_finds_the_same_sessions(data):
    mice = data.draw(st.lists(st.sampled_from(MICE), min_size=1, unique=True))
    keys = {data.draw(st.sampled_from(ways_of(mouse))): mouse for mouse in mice}
    matches = found(keys)
    assert not matches.problems
    assert not matches.unused
    assert matches.rows == {f"{mouse}{SUFFIX}": key for key, mouse in keys.items()}


@pytest.mark.parametrize("key", ["0", "mouse", "1DLC_other", "ouse A", "01.5", "mouse ABC", ""])
def test_match__what_names_no_session_alone_finds_none(key):
    matches = found([key])
    assert not matches.rows
    assert matches.unused or matches.problems


def test_match__exact_ways_go_before_beginnings():
    known = [Named(name, name, f"{name}.csv") for name in ("mouse1", "mouse10", "mouse1_b", "m2x")]
    assert found(["mouse1", "mouse10", "m2"], known).rows == {
        "mouse1": "mouse1", "mouse10": "mouse10", "m2x": "m2",
    }  # fmt: skip
    (problem,) = found(["mouse"], known).problems
    assert "mouse1 or mouse10 or mouse1_b" in problem.found
    # The rest of a session that has a row of its own is not given to another.
    assert found(["mouse1_b", "mouse1_"], known).unused == ("mouse1_",)


def test_match__a_recording_stands_for_all_its_animals_but_a_name_not_for_two_files():
    tracks = [Named(f"a_{m}", "a", "a.slp", "/v/film.mp4") for m in ("m1", "m2")]
    for key in ("a", "a.slp", "film", "film.mp4", "/elsewhere/film.avi"):
        assert found([key], tracks).rows == {"a_m1": key, "a_m2": key}
    twins = [Named(f"{day}_a", f"{day}_a", "a.csv") for day in ("d1", "d2")]
    (problem,) = found(["a.csv"], twins).problems
    assert "d1_a or d2_a" in problem.found


def test_match__two_rows_for_one_session_must_say_the_same():
    rows = {"001": {"g": "a"}, KNOWN[0].source: {"g": "b"}}
    (problem,) = match(rows, {"001": 2, KNOWN[0].source: 3}, KNOWN, "t").problems
    assert problem.where == "t, row 2 and row 3"
    same = {key: {"g": "a"} for key in rows}
    assert not match(same, {}, KNOWN, "t").problems


# ------------------------------------------------------------------ written into a store


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "study.zarr"
    points = np.random.default_rng(0).normal(size=(10, 3, 2))
    arrays = {f"{mouse}{SUFFIX}": points + i for i, mouse in enumerate(MICE)}
    ingest(path, arrays=arrays, fps=30)
    return path


def test_annotate__habits_of_spreadsheets_all_at_once(store, tmp_path):
    rows = ["Tier;Größe (cm);note;;", '1;23,5;"a\r\nb";;', ";;;;", "mouse A.mp4;7;007;;", ";;;;"]
    path = tmp_path / "t.csv"
    path.write_bytes("\r\n".join(rows).encode("cp1252"))
    result = kpms_zarr.annotate(store, path)
    assert result.columns == ("Größe_cm", "note")
    assert result.n_sessions == 2
    said = "\n".join(result.notes)
    for words in ("cp1252", "decimal commas", "2 sessions found", "leading zeros", "Größe_cm"):
        assert words in said
    data = access.dataset(store, "keypoints").load()
    first, other = (f"{mouse}{SUFFIX}" for mouse in ("001", "mouse A"))
    assert data["Größe_cm"].sel(session=[first, other]).values.tolist() == [23.5, 7]
    assert data["note"].sel(session=[first, other]).values.tolist() == ["a\nb", "007"]
    assert not data["note"].sel(session=f"002{SUFFIX}")


def test_annotate__all_rows_that_fit_none_or_several_are_named_and_nothing_is_written(
    store, tmp_path
):
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    path = tmp_path / "t.csv"
    path.write_text("animal,group\n001,a\n001.mp4,b\n003,c\nmous,d\n")
    with pytest.raises(InputError) as caught:
        kpms_zarr.annotate(store, path)
    text = str(caught.value)
    for words in ("row 2 and row 3", "row 4", "row 5", f"mouse A{SUFFIX} or mouse AB{SUFFIX}"):
        assert words in text
    assert "metadata=" not in text  # which nobody typed
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_fps__rows_are_found_by_video_and_have_decimal_commas(tmp_path):
    points = np.random.default_rng(0).normal(size=(10, 3, 2))
    arrays = {f"{mouse}{SUFFIX}": points + i for i, mouse in enumerate(MICE[:2])}
    path = tmp_path / "fps.csv"
    path.write_text("video;fps\n001.mp4;29,97\n2;25\n")
    ingest(tmp_path / "s.zarr", arrays=arrays, fps=path)
    assert access.dataset(tmp_path / "s.zarr", "keypoints").fps.values.tolist() == [29.97, 25]
    path.write_text("video;fps\n001.mp4;29,97\n0;25\n00;30\n")
    with pytest.raises(InputError, match="a frame rate for every session"):
        ingest(tmp_path / "t.zarr", arrays=arrays, fps=path)
