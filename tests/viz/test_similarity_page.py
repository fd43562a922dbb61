"""The tree of syllables, cut and clicked: what would be one, and merging in the browser."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

import kpms_zarr
from helpers.amount import examples
from helpers.ar_labels import halved, make_store, publish, simulate
from helpers.browser import SIZES, Server, Window, chromium
from kpms_zarr.compute.runs.hierarchy.cutting import SyllableTree, as_groups
from kpms_zarr.store.model.syllable_names import name_syllable
from kpms_zarr.viz import dendrogram
from kpms_zarr.viz.explore import link, parts
from kpms_zarr.viz.explore.pages import similarity as page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.syllables.dendrogram import nearest_node, node_places

TWIN = halved(1, 4)
"""Half of the bouts of syllable 1 are called 4."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_store(tmp_path_factory.mktemp("similar") / "s.zarr")
    publish(path, simulate(), relabel=TWIN)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


def opened(store: Path, **choices: Any) -> tuple[State, page_module._SimilarityPage]:
    state = State(Study(store), **{"page": "similarity", **choices})
    return state, page_module._SimilarityPage(state)


def words(page: page_module._SimilarityPage) -> str:
    """All that the page says."""
    panes = page.view.select(lambda one: isinstance(getattr(one, "object", None), str))
    return " ".join(pane.object for pane in panes)


def tree_of(points: np.ndarray) -> xr.Dataset:
    """Result of a comparison of syllables 3, 4, 5, ... at some places of a line."""
    rows = linkage(points[:, None], "average", optimal_ordering=True)
    states = np.arange(len(points)) + 3
    leaf = states[np.asarray(_leaves(rows, len(points)))]
    return xr.Dataset(
        {"linkage": (("merge", "column"), rows), "leaf": ("leaf", leaf)}, {"state": states}
    )


def _leaves(rows: np.ndarray, n: int) -> list[int]:
    """Naive oracle: leaves from left to right."""

    def below(node: int) -> list[int]:
        if node < n:
            return [node]
        left, right = rows[node - n, :2].astype(int)
        return below(left) + below(right)

    return below(2 * n - 2)


# ------------------------------------------------------------------ the tree


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.integers(0, 200), min_size=2, max_size=9, unique=True), st.data())
def test_cut__is_that_of_scipy_and_as_many_as_asked(places, data):
    points = np.array(places) + 2.0 ** np.arange(len(places)) * 1e-4
    found = tree_of(points)
    assume(np.diff(found["linkage"].values[:, 2]).min(initial=1) > 1e-9)  # no ties
    tree = SyllableTree.of(found)
    n = data.draw(st.integers(1, len(points)))
    groups = tree.cut(n)
    assert len(points) - sum(len(one) - 1 for one in groups) == n
    height = tree.cut_height(n)
    if n == len(points):
        assert (groups, height) == ([], 0.0)
        return
    number = fcluster(found["linkage"].values, height, "distance")
    expected = [tuple((np.flatnonzero(number == one) + 3).tolist()) for one in np.unique(number)]
    assert groups == sorted(one for one in expected if len(one) > 1)


def test_node_places__are_where_the_picture_has_them():
    found = tree_of(np.array([0.0, 4.0, 0.5, 4.2, 9.0]))
    found["distance"] = ("state", np.zeros(5))
    drawn = dendrogram(found, cut=1.0, chosen=(4,))
    places = node_places(found)
    frames = drawn.Path.branches.split(datatype="dataframe")
    middles = {
        (round(float(one["place"].mean()), 6), round(float(one["distance"].max()), 6))
        for one in frames
    }
    assert middles == {tuple(np.round(row, 6)) for row in places[5:].tolist()}
    joined = [one["distance"].max() for one in drawn.Path.joined.split(datatype="dataframe")]
    assert sorted(joined) == sorted(
        one["distance"].max() for one in frames if one["distance"].max() < 1
    )
    assert len(drawn.Points.chosen) == 1
    for node, (x, y) in enumerate(places.tolist()):
        assert nearest_node(found, x, y) == node
    assert nearest_node(found, 0.0, -0.5) == int(np.flatnonzero(places[:5, 0] == 0)[0])
    assert nearest_node(found, 20.0, 3.0) == -1


# ------------------------------------------------------------------ the page


def test_page__cut_says_what_merge_makes_one(store, failures):
    state, page = opened(store)
    assert page._tree.states == (0, 1, 2, 3, 4)
    assert "Move the slider" in words(page)
    state.n_left = 4
    assert page._tree.cut(4) == [(1, 4)]
    said = words(page)
    assert "4 syllables are left" in said
    assert "--groups 1,4" in said
    state.measure = "trajectories"
    assert page._found.attrs["kind"] == "trajectories"
    page.view.get_root()
    assert not failures


def test_page__a_click_shows_the_syllables_below_and_plays_their_bouts(store, failures):
    name_syllable(store, "m", 4, name="turn <left>")
    state, page = opened(store)
    places = node_places(page._found)
    node = next(n for n, members in enumerate(page._tree.members) if set(members) == {1, 4})
    page._tapped(*places[node])
    assert state.node == node
    syllables, bouts = page._branch.select(page_module.Cards)
    assert [card["key"] for card in syllables.cards] == [1, 4]
    assert syllables.cards[1]["title"] == "turn <left>"
    assert "To make these alone one" in words(page)
    assert {line.split(",")[0] for card in bouts.cards for line in card["lines"]} == {
        "syllable 1", "syllable 4"
    }  # fmt: skip
    bouts.clicks = [1, 0]
    assert state.page == "player"
    state.page = "similarity"
    leaf = page._tree.states.index(2)
    page._tapped(*places[leaf])
    assert (state.node, state.syllable) == (leaf, 2)
    page._branch.select(page_module.Cards)[0].clicks = [1, 2]
    assert state.page == "syllables"
    assert not failures


def test_page__link_holds_measure_cut_and_branching(store):
    state, _ = opened(store, measure="prediction", n_left=3, node=5)
    given = link.read(link.write(state, ""))
    again, page = opened(store, **given)
    assert (again.measure, again.n_left, again.node) == ("prediction", 3, 5)
    assert page._found.attrs["kind"] == "prediction"
    assert page._left.value == 3
    # What the tree does not have is all of it.
    _, page = opened(store, measure="beauty", n_left=99, node=99)
    assert page._found.attrs["kind"] == "evidence"
    assert (page._left.value, page._members()) == (5, ())


def test_page__merges_as_the_command_does(store, failures):
    state, page = opened(store, n_left=4)
    before = kpms_zarr.open_labels(store, "m", "v1")["syllable"].values.copy()
    (button,) = (one for one in page._cut.select(lambda one: hasattr(one, "clicks")))
    button.clicks += 1
    said = words(page)
    assert "Merged: v2 of the labels of m has 4 syllables" in said
    assert "--use v1" in said
    assert state.study.version("m") == "v2"
    assert page._tree.n_leaves == 4
    assert (state.n_left, state.node) == (0, -1)
    np.testing.assert_array_equal(kpms_zarr.open_labels(store, "m", "v1")["syllable"], before)
    kpms_zarr.versions(store, model="m", use="v1")
    kpms_zarr.merge(store, model="m", groups="1,4")
    np.testing.assert_array_equal(
        *(kpms_zarr.open_labels(store, "m", one)["syllable"].values for one in ("v2", "v3"))
    )
    assert not failures


def test_page__that_cannot_write_says_why_and_goes_on(store, monkeypatch, failures):
    _, page = opened(store, n_left=4)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    page._merge("1,4", SimpleNamespace(obj=SimpleNamespace(disabled=False)))
    assert "Not merged" in words(page)
    assert page._tree.n_leaves == 5
    assert [one.versions for one in Study(store).models.values()] == [("v1",)]
    assert not failures


def test_page__compares_when_it_is_looked_at_and_large_studies_when_asked(store, monkeypatch):
    state = State(Study(store), page="fit")
    page = page_module._SimilarityPage(state)
    assert page._found is None
    monkeypatch.setattr(page_module, "_AT_ONCE", (10, 10))
    state.page = "similarity"
    assert page._found is None
    (button,) = page._place.select(lambda one: hasattr(one, "clicks"))
    button.clicks += 1
    assert page._found is not None


def test_page__without_poses_or_components_says_what_to_do(tmp_path, failures):
    path = make_store(tmp_path / "s.zarr")
    publish(path, simulate(), without=("latent", "centroid", "heading"), has_parameters=False)
    _, page = opened(path)
    assert "kpms-zarr pca" in words(page) or "kpms_zarr.pca" in words(page)
    assert not failures


def test_as_groups__is_what_merge_reads(store):
    done = kpms_zarr.merge(store, model="m", groups=as_groups([(1, 4), (0, 2)]), dry_run=True)
    assert sorted(sorted(one.syllables) for one in done.groups) == [[0, 2], [1, 4]]


# ------------------------------------------------------------------ in a browser


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_browser__slider_click_and_link(made, size):
    server = Server(made)
    try:
        with chromium() as browser:
            window = Window(browser, size=size)
            page = window.open(server.url(page="similarity", n_left=4))
            page.get_by_text("--groups 1,4").wait_for()
            window.settle(1500)
            canvas = page.locator("canvas:visible").first
            canvas.wait_for()
            window.picture(f"similarity_cut_{size[0]}")
            page.get_by_role("button", name="Merge, as a new version").wait_for()
            page.goto(server.url(page="similarity", node=5))
            window.settle(1500)
            group = page.get_by_role("group", name="Syllables of the branch")
            group.wait_for()
            window.picture(f"similarity_branch_{size[0]}")
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            assert window.unnamed() == []
            group.get_by_role("button").first.click()
            page.wait_for_function("location.search.includes('page=syllables')")
            assert window.problems == []
            window.close()
    finally:
        server.stop()
    assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]
