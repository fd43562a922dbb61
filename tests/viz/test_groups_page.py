"""What groups do otherwise: pictures, the page of explore, and epochs as bands over time."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest

import kpms_zarr
from helpers.group_studies import simulate_table
from helpers.labels import publish_labels
from kpms_zarr.compute.analysis.groups.bootstrap import mean_intervals
from kpms_zarr.compute.analysis.groups.comparison import compare_groups_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz import group_statistics, transition_differences
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.pages import ethogram, groups
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.groups.drawing import in_order
from kpms_zarr.viz.player.data import open_session
from kpms_zarr.viz.player.player import build_player, read_window

STUDY = SyntheticStudy(n_sessions=8, n_frames=900, n_keypoints=4)


@pytest.fixture(scope="module")
def comparison() -> Any:
    table = simulate_table(np.random.default_rng(1), ["a"] * 6 + ["b"] * 6, effect=2.0, on="b")
    return compare_groups_of(table, by="group", n_permutations=500, n_bootstrap=300)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels ``m`` of eight sessions without groups; syllable 0 is longer in the last four."""
    place = tmp_path_factory.mktemp("page") / "study.zarr"
    write_store(place, STUDY)
    rng = np.random.default_rng(0)
    labels = {}
    for i, name in enumerate(STUDY.session_names):
        mean = np.array([14 if i > 3 else 4, 6, 6, 6])
        bouts = np.cumsum(rng.integers(1, 4, 400)) % 4
        length = 1 + rng.poisson(mean[bouts])
        labels[name] = np.repeat(bouts, length)[: STUDY.n_frames].astype(np.int16)
    publish_labels(place, STUDY, "m", labels)
    return place


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


# ------------------------------------------------------------------ intervals of means


def test_mean_intervals__cover_the_mean_and_say_nothing_of_one_unit():
    rng = np.random.default_rng(0)
    group = np.array([0] * 8 + [1] * 8 + [2])
    values = rng.normal(3.0, 1.0, (400, 17))
    low, high = mean_intervals(values, group, 3, n_bootstrap=800, seed=0)
    covered = ((low < 3.0) & (high > 3.0)).mean(0)
    assert np.isnan(low[:, 2]).all()
    # Binomial error of 400 items, twice: 0.95 +- 0.022, and the bootstrap's own shortfall.
    assert ((covered[:2] > 0.91) & (covered[:2] < 0.98)).all()
    # Wrong twin: percentiles that are not expanded for few units cover less.
    naive = [
        np.quantile(
            values[i, :8][rng.integers(0, 8, (800, 8))].mean(1), (0.025, 0.975)
        ) for i in range(400)
    ]  # fmt: skip
    assert np.mean([a < 3.0 < b for a, b in naive]) < covered[0]


def test_mean_intervals__leave_out_units_without_a_value():
    values = np.array([[1.0, 2.0, np.nan, 4.0, 5.0, np.nan]])
    low, high = mean_intervals(values, np.array([0, 0, 0, 0, 1, 1]), 2, n_bootstrap=200, seed=0)
    assert low[0, 0] < 7 / 3 < high[0, 0]
    assert np.isnan(low[0, 1])


# ------------------------------------------------------------------ pictures


def test_group_statistics__has_a_point_for_each_unit_and_a_star_for_a_difference(comparison):
    order = in_order(comparison.tests, "frequency")
    drawn = group_statistics(comparison.tests, comparison.values, statistic="frequency")
    points = [one for one in drawn if isinstance(one, hv.Points)]
    assert sum(map(len, points)) == 12 * len(order)
    values = comparison.values["value"].sel(statistic="frequency", state=order).values
    np.testing.assert_allclose(
        np.sort(np.concatenate([one["value"] for one in points])), np.sort(100 * values.ravel())
    )
    q = comparison.tests["q"].sel(statistic="frequency", state=order).values
    stars = next(one for one in drawn if isinstance(one, hv.Labels))
    np.testing.assert_array_equal(np.sort(stars["place"]), np.flatnonzero(q < 0.05))
    assert len(stars) > 0
    hv.renderer("bokeh").get_plot(drawn)
    with pytest.raises(InputError, match="expected one of frequency, duration"):
        group_statistics(comparison.tests, comparison.values, statistic="speed")


def test_transition_differences__are_second_minus_first(comparison):
    table = comparison.transitions
    heat, dots = transition_differences(table, first="a", second="b")
    states = [str(one) for one in table["state"].values]
    share = 100 * table["share"].values
    tested = np.isfinite(table["p"].values)
    expected = {
        (states[i], states[j]): share[1, i, j] - share[0, i, j]
        for i, j in np.argwhere(tested).tolist()
    }
    columns = (heat[name] for name in ("syllable", "next", "difference"))
    found = {(str(a), str(b)): d for a, b, d in zip(*columns, strict=True) if np.isfinite(d)}
    assert found == pytest.approx(expected)
    assert len(dots) == int((table["q"].values < 0.05).sum())
    with pytest.raises(InputError, match="expected one of a, b"):
        transition_differences(table, first="c")


# ------------------------------------------------------------------ the page


def test_page__asks_for_groups_then_shows_what_differs(labelled, tmp_path, failures):
    state = State(Study(labelled), page="groups")
    page = groups._GroupsPage(state)
    assert "kpms-zarr annotate" in page._place[0].object
    table = tmp_path / "groups.csv"
    lines = [f"{name},{'ab'[i // 4]}" for i, name in enumerate(STUDY.session_names)]
    table.write_text("\n".join(["session,treatment", *lines, ""]))
    kpms_zarr.annotate(labelled, table)
    page._again.clicks += 1
    assert page._by.options == ["treatment"]
    assert page._result is not None
    assert page._result.smallest_p == pytest.approx(2 / 70)
    assert [card["key"] for card in page._cards.cards][:1] == [0]
    assert any(line.startswith("q ") for line in page._cards.cards[0]["lines"])
    page._tapped(0.1, 0.0)
    assert state.syllable == page._order[0]
    page._statistic.value = "duration"
    page._clicked(type("E", (), {"new": [1, 0]}))
    assert (state.syllable, state.page) == (0, "syllables")
    page.view.get_root()
    assert not failures


def test_page__notices_annotate_without_being_asked(labelled, tmp_path, failures):
    store = Path(shutil.copytree(labelled, tmp_path / "study.zarr"))
    state = State(Study(store), page="groups")
    page = groups._GroupsPage(state)
    assert page._result is None or page._by.options != ["cohort"]
    table = tmp_path / "cohorts.csv"

    def annotate(cohorts: str) -> None:
        lines = [f"{a},{b}" for a, b in zip(STUDY.session_names, cohorts, strict=True)]
        table.write_text("\n".join(["session,cohort", *lines, ""]))
        kpms_zarr.annotate(store, table)
        state.study.refresh()  # as the server does every few seconds
        state.refresh(wait=False)

    annotate("aaaabbbb")
    state.by = "cohort"
    before = page._result
    assert before.groups["group"].values.tolist() == ["a", "b"]
    annotate("aaccbbcc")
    assert page._result.groups["group"].values.tolist() == ["a", "b", "c"]
    stamp, news = state.study.table, state.news
    state.study.refresh()
    state.refresh(wait=False)
    assert (state.study.table, state.news) == (stamp, news)
    assert not failures


def test_bands__are_where_epochs_are(labelled, tmp_path, failures):
    name = STUDY.session_names[0]
    table = tmp_path / "epochs.csv"
    table.write_text(f"session,start_s,stop_s,condition\n{name},0,10,dark\n{name},10,20,light\n")
    kpms_zarr.epochs(labelled, table)
    study = Study(labelled)
    dark, light = study.epoch_bands(name)
    assert (dark.start, dark.stop, dark.name) == (0.0, 10.0, "dark")
    assert (light.start, light.stop) == (10.0, 20.0)
    assert study.epoch_bands(STUDY.session_names[1]) == ()
    assert study.epoch_colors() == {"dark": dark.color, "light": light.color}
    state = State(study, page="ethogram", session=name)
    ethogram.page(state).get_root()
    opened = open_session(labelled, model="m", session=name)
    player = build_player(opened, read_window(opened, 0.0, 5.0))
    drawn = player.sources["epochs"].data
    assert drawn["right"] == [10.0, 20.0]
    assert (drawn["text"], drawn["middle"][0]) == (["dark", ""], 2.5)  # what the window shows of it
    player.load(read_window(opened, 8.0, 16.0), opened.names.name)
    drawn = player.sources["epochs"].data
    assert (drawn["text"], drawn["middle"]) == (["dark", "light"], [9.0, 13.0])
    assert not failures
