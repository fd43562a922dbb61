"""Choosing sessions by name, by pattern and by coordinate."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.cli import main
from kpms_zarr.store.core import access
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.selection import parse_selectors, select_sessions
from kpms_zarr.store.study.synthetic import SyntheticStudy

NAMES = ("mouse_1", "mouse_2", "Mouse_3", "rat_1", "a*", "ab", "fps=30", "day[1]", "killed")
INDIVIDUALS = ("left", "right", "left", "", "x*", "xy", "left", "a=b", "left")
FPS = (30.0, 29.97, 30.0, 60.0, 60.0, 60.0, 25.0, 25.0, 30.0)
GROUP = ("control", "drug", "drug", "control", "d*", "dr", "", "drug b", "control")


def make_store(path):
    """A session table without frames, its last session unfinished."""
    root = access.create(path)
    group = create_keypoints(root, SyntheticStudy(n_keypoints=2).settings)
    set_session_count(group, len(NAMES), 3)
    same = {n: list(NAMES) for n in ("session", "recording", "source", "source_hash")}
    table = {**same, "individual": list(INDIVIDUALS), "source_format": ["csv"] * len(NAMES)}
    write_session_rows(group, 0, table, 30.0)
    group["fps"][:] = np.array(FPS)
    group["n_frames"][:] = np.array([1, 2, 3, 1, 1, 1, 1, 1, 0])
    return path


def add(store, name, values):
    """A coordinate of a user, with Zarr alone."""
    group = zarr.open_group(store, path="keypoints", mode="r+")
    values = np.asarray(values)
    is_text = values.dtype.kind in "UT"
    dtype = str if is_text else values.dtype
    array = group.create_array(name, shape=values.shape, dtype=dtype, dimension_names=("session",))
    array[:] = values.astype(object) if is_text else values


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("selection") / "study.zarr")


@pytest.fixture
def store(base, tmp_path):
    """A copy that may be changed, with a coordinate of the user."""
    shutil.copytree(base, tmp_path / "study.zarr")
    add(tmp_path / "study.zarr", "group", GROUP)
    return tmp_path / "study.zarr"


def names_of(store, *selectors, where=""):
    return [session.name for session in select_sessions(store, selectors, where)]


def problems_of(store, *selectors):
    with pytest.raises(InputError) as caught:
        select_sessions(store, selectors, "`sessions=`")
    assert all(problem.where == "`sessions=`" for problem in caught.value.problems)
    return caught.value.problems


# --- what is chosen --------------------------------------------------------------------


def test_select__none_is_all(store):
    assert select_sessions(store, None) == access.require_sessions(store)
    assert select_sessions(str(store), ["*"]) == access.require_sessions(store)
    assert select_sessions(access.open_group(store), "mouse_1")[0].fps == 30


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("mouse_*", ["mouse_1", "mouse_2"]),
        ("[mM]ouse_?", ["mouse_1", "mouse_2", "Mouse_3"]),
        ("a*", ["a*"]),  # the name, though it is a pattern
        ("a?", ["a*", "ab"]),
        ("day[1]", ["day[1]"]),
        ("fps=30", ["fps=30"]),  # the name, though it is a coordinate and a value
        ("fps=30.0", ["mouse_1", "Mouse_3"]),
        ("fps = 6e1", ["rat_1", "a*", "ab"]),
        ("fps=29.97", ["mouse_2"]),
        ("fps=2*", ["mouse_2", "fps=30", "day[1]"]),
        ("fp?=30", ["fps=30"]),  # no coordinate of that name, but a session
        ("n_frames=3", ["Mouse_3"]),
        ("individual=left", ["mouse_1", "Mouse_3", "fps=30"]),
        ("individual=", ["rat_1"]),
        ("individual=x*", ["a*"]),
        ("individual=x?", ["a*", "ab"]),
        ("individual=a=b", ["day[1]"]),
        ("source=rat*", ["rat_1"]),
        ("session=mouse_2", ["mouse_2"]),
        ("group=control", ["mouse_1", "rat_1"]),
        ("group=dr*", ["mouse_2", "Mouse_3", "ab", "day[1]"]),
        ("group=d*", ["a*"]),
    ],
)
def test_select__by(store, selector, expected):
    assert names_of(store, selector) == expected


@pytest.mark.parametrize(
    ("values", "value", "expected"),
    [
        (np.array([0.1, 0.2, np.nan] * 3, np.float32), "0.1", [0, 3, 6]),
        (np.array([0.1, 0.2, np.nan] * 3), "nan", [2, 5]),
        (np.array([20240101.0, 20240102.0, 1] * 3), "20240101", [0, 3, 6]),
        (np.arange(2**60, 2**60 + 9), str(2**60 + 1), [1]),
        (np.arange(9, dtype=np.uint8), "[13]", [1, 3]),
        (np.arange(9) % 3 == 0, "True", [0, 3, 6]),
        (np.arange(9) % 3 == 0, "1", [0, 3, 6]),
    ],
)
def test_select__numbers_compare_as_numbers(store, values, value, expected):
    add(store, "x", values)
    assert [s.index for s in select_sessions(store, [f"x={value}"])] == expected


def test_select__reads_only_the_coordinates_it_needs(store):
    for name in ("individual", "recording", "source", "position"):
        shutil.rmtree(store / "keypoints" / name)
    assert names_of(store, "mouse_1", "group=drug", "group=d*") == [
        "mouse_1",
        "mouse_2",
        "Mouse_3",
        "a*",
    ]


def test_select__other_arrays_are_no_coordinates(store):
    group = zarr.open_group(store, path="keypoints", mode="r+")
    group.create_array("unnamed", data=np.arange(len(NAMES)))
    group.create_group("below").create_array("x", data=np.arange(3), dimension_names=("session",))
    for selector in ("unnamed=1", "position=1", "below/x=1", "../fps=1", "..=1", "=1", "below=1"):
        (problem,) = problems_of(store, selector)
        assert problem.expected.startswith("one of the coordinates over the sessions: ")
        assert not {"unnamed", "x", "below", "position"} & set(
            problem.expected.partition(": ")[2].split(", ")
        )


ALL_SELECTORS = [
    *NAMES[:-1],
    "mouse_*",
    "*_1",
    "fps=30.0",
    "fps=60",
    "individual=left",
    "session=a?",
]


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(st.sampled_from(ALL_SELECTORS), min_size=1, max_size=6), st.randoms())
def test_select__union_whatever_the_order(base, selectors, random):
    found = select_sessions(base, selectors)
    single = [set(select_sessions(base, [selector])) for selector in selectors]
    assert set(found) == set().union(*single)
    assert list(found) == sorted(found, key=lambda session: session.index)
    shuffled = random.sample(selectors, len(selectors))
    assert select_sessions(base, [*shuffled, shuffled[0]]) == found


@settings(deadline=None, max_examples=examples(25))
@given(st.sets(st.sampled_from(NAMES[:-1]), min_size=1))
def test_select__a_selector_for_each_name_gives_exactly_these(base, names):
    assert set(names_of(base, *names)) == names


@settings(deadline=None, max_examples=examples(25))
@given(st.text(max_size=12))
@example("\0=")
@example("\ud800=1")
@example("x" * 300 + "=1")
@example("../models=1")
def test_select__any_text_is_answered(base, text):
    try:
        found, said = select_sessions(base, [text]), ""
    except InputError as error:
        found, said = (), str(error)
    assert found or repr(text) in said


# --- a coordinate of the user ----------------------------------------------------------


def contents_of(store):
    group = zarr.open_group(store, path="keypoints", mode="r")
    arrays = dict(group.arrays())
    values = {name: np.asarray(array[:]).tolist() for name, array in arrays.items()}
    del values["position"], values["confidence"]
    return dict(group.attrs), {n: a.metadata.to_dict() for n, a in arrays.items()}, values


def test_coordinate__by_the_words_of_the_error(base, tmp_path):
    store = shutil.copytree(base, tmp_path / "study.zarr")
    before = contents_of(store)[2]
    (problem,) = problems_of(store, "grp=drug")
    command = for_shell(problem.fix).split("each session: kpms-zarr ")[1].split()
    table = tmp_path / "FILE.csv"
    with table.open("w", newline="") as file:
        rows = zip(NAMES, GROUP, strict=True)
        there = set(names_of(store, "*"))
        csv.writer(file).writerows([("session", "grp"), *(row for row in rows if row[0] in there)])
    assert main([*command[:-1], str(table)]) == 0
    assert names_of(store, "grp=dr*") == ["mouse_2", "Mouse_3", "ab", "day[1]"]
    after = contents_of(store)[2]
    assert before == {name: value for name, value in after.items() if name != "grp"}
    with xr.open_zarr(store, group="keypoints") as data:
        assert data["grp"].dims == ("session",)
        # The last one has no frames: it is no session yet.
        assert data["grp"].values.tolist() == [*GROUP[:-1], ""]
        assert "n_frames" in data.coords


def test_coordinate__by_xarray(base, tmp_path):
    store = shutil.copytree(base, tmp_path / "study.zarr")
    before = contents_of(store)
    # xarray replaces the attributes of the group; without these, the store looks empty.
    attrs = dict(zarr.open_group(store, path="keypoints", mode="r").attrs)
    values = {
        "group": ("session", np.array(GROUP, dtype=object)),
        "dose": ("session", np.arange(len(GROUP)) / 4),
    }
    added = xr.Dataset(values, attrs=attrs)
    added.to_zarr(store, group="keypoints", mode="a", consolidated=False)
    assert names_of(store, "group=dr*") == ["mouse_2", "Mouse_3", "ab", "day[1]"]
    assert names_of(store, "dose=0.25", "dose=1") == ["mouse_2", "a*"]
    for had, has in zip(before, contents_of(store), strict=True):
        assert had == {name: value for name, value in has.items() if name not in values}


def test_coordinate__by_xarray_without_the_attributes_loses_nothing(base, tmp_path):
    """to_zarr(mode="a") takes the attributes of the group away, and with them its provenance."""
    store = shutil.copytree(base, tmp_path / "study.zarr")
    before = access.sessions(store)
    values = {"group": ("session", np.array(GROUP, dtype=object))}
    xr.Dataset(values).to_zarr(store, group="keypoints", mode="a", consolidated=False)
    assert "provenance" not in zarr.open_group(store, path="keypoints", mode="r").attrs
    assert access.sessions(store) == before
    group = access.open_group(store, "r+")["keypoints"]
    group["n_frames"][:] = 0
    assert access.sessions(store) == ()  # but what a killed ingest leaves is no group of data


def test_coordinate__grows_with_the_store(store):
    group = access.open_group(store, "r+")["keypoints"]
    set_session_count(group, len(NAMES) + 2, 3)
    assert group["group"].shape == (len(NAMES) + 2,)
    with xr.open_zarr(store, group="keypoints", consolidated=False) as data:
        assert data["group"].values.tolist() == [*GROUP, "", ""]


def test_coordinate__shorter_than_the_store_has_sessions(store):
    group = zarr.open_group(store, path="keypoints", mode="r+")
    group["group"].resize((6,))
    (problem,) = problems_of(store, "group=drug", "group=control", "mouse_1")
    assert problem.expected == "a 'group' for each of the 9 sessions"
    assert problem.found == "6, fewer than there are sessions"
    code = problem.fix.split("since: ")[1].replace("[...]", "['new'] * 3")
    exec(code, {"zarr": zarr})
    assert names_of(store, "group=new") == ["fps=30", "day[1]"]


# --- errors ----------------------------------------------------------------------------


def test_errors__all_at_once(store):
    problems = problems_of(store, "mose_1", "mouse_2", "MOUSE_*", "fps=31", "grup=drug", "mose_1")
    assert [problem.found for problem in problems] == [
        "'mose_1', which matches none of them",
        "'MOUSE_*', which matches none of them",
        "'fps=31', which matches none of them",
        "'grup' in 'grup=drug'",
    ]


def test_errors__name(store):
    (problem,) = problems_of(store, "mose_1")
    assert problem.expected == (
        "a name, a pattern or coordinate=value of the 8 sessions "
        "(mouse_1, mouse_2, Mouse_3, rat_1, a*, ab and 2 more)"
    )
    assert problem.fix.startswith("did you mean 'mouse_1' or 'mouse_2' or ")
    assert problem.fix.endswith(f"list them with: `kpms_zarr.info({str(store)!r})`")
    assert "killed" not in str(problems_of(store, "killed")[0].expected)
    assert problems_of(store, "qqqqqq")[0].fix.startswith("list them with")


def test_errors__value(store):
    (problem,) = problems_of(store, "group=contol")
    assert problem.expected == ("a 'group' of the 8 sessions ('', control, d*, dr, drug, drug b)")
    assert problem.fix.startswith("did you mean 'group=control'? give one of these values")
    (problem,) = problems_of(store, "fps=3")
    assert problem.expected == "a 'fps' of the 8 sessions (25, 29.97, 30, 60)"


def test_errors__coordinate(store):
    (problem,) = problems_of(store, "grup=drug")
    assert problem.expected == (
        "one of the coordinates over the sessions: checksum, first_frame, fps, frame_step, group, "
        "individual, ingest, n_frames, recording, session, source, source_format, source_hash, "
        "video"
    )
    assert for_shell(problem.fix) == (
        "did you mean 'group'? add one, with a value for each session: "
        f"kpms-zarr annotate {store} FILE.csv"
    )


def test_errors__nothing_to_choose_from(store, tmp_path):
    (problem,) = problems_of(store)
    assert problem.found == "none"
    access.create(tmp_path / "empty.zarr")
    with pytest.raises(InputError, match="at least one session in the store"):
        select_sessions(tmp_path / "empty.zarr", ["a"])
    with pytest.raises(InputError, match="no Zarr group there"):
        select_sessions(tmp_path / "missing.zarr", None)


def test_errors__name_hints_are_few(store):
    problems = problems_of(store, *(f"mouse_{i}" for i in range(100, 150)))
    assert len(problems) == 50
    assert sum("did you mean" in problem.fix for problem in problems) == 3


# --- command line ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" , ", ()),
        ("mouse_1", ("mouse_1",)),
        (" mouse_*, group=drug b ,fps=30,", ("mouse_*", "group=drug b", "fps=30")),
    ],
)
def test_parse_selectors(text, expected):
    assert parse_selectors(text) == expected
