"""Names of sessions: unique, the same whatever the order of files, kept by those that are there."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.study.session_names import (
    Origin,
    Scheme,
    Wanted,
    is_same_place,
    names_of,
    split_name,
)

HEADER = "scorer,net,net,net\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n"


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{i},{seed}.5,{i}.25,0.9\n" for i in range(3)))
    return path


def origin(path):
    parts = Path(path).parts
    stem, suffix = split_name(parts[-1])
    return Origin(stem, tuple(reversed(parts[:-1])), suffix, parts[:-1])


def named(*paths, stored=(), taken=(), scheme="stem"):
    files = [Wanted(origin(path), ("",)) for path in paths]
    return names_of(files, [origin(path) for path in stored], taken, Scheme(scheme))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.csv", "b/y.csv"], ["x", "y"]),
        (["a/x.csv", "b/x.csv"], ["a_x", "b_x"]),
        (["a/p/x.csv", "b/p/x.csv", "c/y.csv"], ["a_x", "b_x", "y"]),
        (
            ["m1/d1/p/x.csv", "m1/d2/p/x.csv", "m2/d1/p/x.csv"],
            ["m1_d1_x", "m1_d2_x", "m2_d1_x"],
        ),
        (["x.csv", "b/x.csv"], ["x", "b_x"]),
        (["a/x.csv", "a/x.h5"], ["x_csv", "x_h5"]),
        (["a/x.csv", "b/a_x.csv", "b/x.csv"], ["a_x_csv", "a_x", "b_x_csv"]),
        (["a_b/x.csv", "a/b_x.csv", "c/x.csv"], ["a_b_x", "b_x", "c_x"]),
    ],
)
def test_names__take_the_folders_that_tell_them_apart(paths, names):
    assert named(*paths) == names


@pytest.mark.parametrize(
    ("scheme", "names"),
    [
        ("stem", ["m1_d1_x", "m1_d2_x", "m2_d1_x", "y"]),
        ("parent", ["m1_d1", "m1_d2_x", "m2_d1", "m1_d2_y"]),
        ("path", ["m1_d1_x", "m1_d2_x", "m2_d1_x", "m1_d2_y"]),
        ("{parent2}-{parent}-{name}", ["m1-d1-x.csv", "m1-d2-x.csv", "m2-d1-x.csv", "m1-d2-y.csv"]),
    ],
)
def test_schemes__say_what_names_begin_with(scheme, names):
    paths = ["m1/d1/x.csv", "m1/d2/x.csv", "m2/d1/x.csv", "m1/d2/y.csv"]
    found = named(*paths, scheme=scheme)
    if scheme == "parent":  # words that tell apart are added, as few as are needed
        assert found[0] != found[2]
        assert {"x", "y"} <= {name.rpartition("_")[2] for name in found if "d2" in name}
    else:
        assert found == names


@pytest.mark.parametrize("scheme", ["", "name", "{animal}", "{stem", "{}", "{stem}{nose.x}"])
def test_scheme__with_other_fields_is_refused(scheme):
    with pytest.raises(InputError, match="name_by="):
        Scheme(scheme)


def test_names__of_sessions_that_are_there_are_left_to_them():
    assert named("b/x.csv", stored=["a/x.csv"], taken=["x"]) == ["b_x"]
    # The one that is there has another name, and the newcomer must not look like the only one.
    assert named("m2/d1/x.csv", stored=["m1/d1/x.csv"], taken=["d1_x"]) == ["m2_x"]
    assert named("b/y.csv", stored=["a/x.csv"], taken=["x"]) == ["y"]
    assert named("b/y.csv", taken=["y"]) == ["b_y"]


words = st.sampled_from(["a", "b", "a_b", "x", "cam"])
paths = st.lists(words, min_size=1, max_size=4).map(lambda parts: "/".join(parts) + ".csv")


def test_names__that_only_a_number_tells_apart_have_the_same_in_any_order():
    files = [Wanted(origin(p), ("",)) for p in ("a.csv", "a/a.csv", "a/b.csv", "b.csv")]
    found = names_of(files, [], (), Scheme("parent"))
    assert names_of(files[::-1], [], (), Scheme("parent")) == found[::-1]


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(paths, unique=True, min_size=1, max_size=7), st.data())
def test_names__are_unique_and_do_not_depend_on_the_order(chosen, data):
    scheme = data.draw(st.sampled_from(["stem", "parent", "path", "{parent}-{stem}"]))
    keys = data.draw(st.lists(st.sampled_from(["", "x", "b_x"]), min_size=7, max_size=7))
    taken = data.draw(st.sets(st.sampled_from(["a", "b_a", "x", "cam_x"])))
    order = data.draw(st.permutations(range(len(chosen))))
    n_stored = data.draw(st.integers(0, len(chosen) - 1))
    files = [Wanted(origin(p), (k,)) for p, k in zip(chosen, keys, strict=False)]
    stored, new = [one.origin for one in files[:n_stored]], files[n_stored:]
    found = names_of(new, stored, taken, Scheme(scheme))
    sessions = [s for file, name in zip(new, found, strict=True) for s in file.sessions(name)]
    assert len(set(sessions)) == len(sessions)
    assert taken.isdisjoint(sessions)
    order = [i for i in order if i < len(new)]
    again = names_of([new[i] for i in order], stored[::-1], taken, Scheme(scheme))
    assert again == [found[i] for i in order]


# ------------------------------------------------------------------ in a store


TREE = ("m1/d1/p/cam.csv", "m1/d2/p/cam.csv", "m2/d1/p/cam.csv", "m2/d1/p/other.csv")


@pytest.fixture
def tree(tmp_path):
    return [write(tmp_path / "data" / name, seed) for seed, name in enumerate(TREE)]


def test_ingest__files_of_one_name_are_told_apart_and_said(tree, tmp_path):
    store = tmp_path / "x.zarr"
    result = ingest(store, tmp_path / "data")
    assert result.added == ("m1_d1_cam", "m1_d2_cam", "m2_d1_cam", "other")
    assert [note for note in result.notes if "`m1_d2_cam`" in note and "`name_by=`" in note]
    again = ingest(store, tmp_path / "data")
    assert (again.added, again.known) == ((), result.added)
    assert not [note for note in again.notes if "`name_by=`" in note]
    later = write(tmp_path / "data" / "m3" / "d1" / "p" / "cam.csv", 9)
    assert ingest(store, later).added == ("m3_d1_cam",)
    assert ingest(store, tmp_path / "data").known == (*result.added[:3], "other", "m3_d1_cam")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_ingest__one_folder_at_a_time_gives_names_that_tell_where(tree, tmp_path, order):
    store = tmp_path / "x.zarr"
    for number in order:
        ingest(store, tree[number].parent.parent)
    source = access.dataset(store, "keypoints")
    names = source.session.values.tolist()
    assert len(set(names)) == 4
    before = dict(zip(source.source_hash.values.tolist(), names, strict=True))
    assert set(ingest(store, tmp_path / "data").known) == set(names)
    after = access.dataset(store, "keypoints")
    assert dict(zip(after.source_hash.values.tolist(), after.session.values.tolist(), strict=True)) == before  # fmt: skip  # noqa: E501
    # All but the first say in which folder they were.
    assert sum(name == "cam" for name in names) == 1


def test_ingest__subsets_in_any_order_lose_and_rename_nothing(tree, tmp_path):
    for number, (first, second) in enumerate(itertools.combinations(range(3), 2)):
        store = tmp_path / f"{number}.zarr"
        one = ingest(store, tree[first]).added
        two = ingest(store, [tree[second], tree[first]])
        assert two.known == one
        assert len(two.added) == 1
        rest = ingest(store, tmp_path / "data")
        assert set(rest.known) == {*one, *two.added}
        assert len({*rest.known, *rest.added}) == 4


def test_ingest__name_by_reaches_the_store(tree, tmp_path):
    result = ingest(tmp_path / "x.zarr", tmp_path / "data", name_by="{parent3}-{parent2}-{stem}")
    assert result.added == ("m1-d1-cam", "m1-d2-cam", "m2-d1-cam", "m2-d1-other")
    assert not [note for note in result.notes if "`name_by=`" in note]
    with pytest.raises(InputError, match="name_by="):
        ingest(tmp_path / "y.zarr", tree, name_by="{mouse}")


def test_ingest__remote_stores_name_alike(tree, tmp_path):
    store = f"memory://{tmp_path.name}/names.zarr"
    assert ingest(store, tree[0]).added == ("cam",)
    assert ingest(store, tree[2]).added == ("m2_cam",)
    access.remove(store)


def test_same_place__is_told_by_the_folders_that_are_known():
    assert is_same_place(origin("a/b/x.csv"), origin("a/b/x.csv"))
    assert is_same_place(Origin("x", ("b",), ".csv"), origin("a/b/x.csv"))
    assert not is_same_place(Origin("x", (), ".csv"), origin("a/b/x.csv"))
    assert not is_same_place(origin("a/b/x.h5"), origin("a/b/x.csv"))
    assert not is_same_place(origin("a/c/x.csv"), origin("a/b/x.csv"))
