"""The page Change points: what the command wrote, a model's onsets, a session over time."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.pages import changepoints as page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.syllables.changepoints import read_strip, session_rates


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


@pytest.fixture(autouse=True)
def fewer_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "_SHUFFLES", 200)


def opened(store: Path, **choices: Any) -> tuple[State, Any]:
    state = State(Study(store), **{"page": "changepoints", **choices})
    return state, page_module.page(state)


def words(view: Any) -> str:
    panes = view.select(lambda one: isinstance(getattr(one, "object", None), str))
    return " ".join(pane.object for pane in panes)


def test_page__says_which_command_to_type(fresh: Path, failures: list[Any]) -> None:
    state, view = opened(fresh)
    assert f"kpms-zarr changepoints {fresh}" in words(view)
    kpms_zarr.changepoints(fresh)  # somebody does
    state.refresh()
    assert "change points in 3 sessions" in words(view)
    assert "Fit one" in words(view)  # the onsets need a model
    assert not failures


def test_page__numbers_are_those_of_the_command(whole: Path, failures: list[Any]) -> None:
    _, view = opened(whole)
    found = kpms_zarr.changepoints  # the same numbers as the command, which writes: on a copy
    copy = whole.parent / "copy.zarr"
    shutil.copytree(whole, copy)
    points = found(copy, model="two", shuffles=200)
    facts, said = points.attrs, words(view)
    assert f"{facts['n_changepoints']:,} change points in 4 sessions" in said
    assert f"At the {facts['n_onsets']:,} onsets the change score is" in said
    assert f"p {facts['onset_p']:.2g}" in said
    assert page_module.onsets_in_words(points) in said
    if np.isfinite(facts["target_duration"]):
        least, most = page_module.target_of(facts)
        assert f"--target-durations {least}ms:{most}ms:5" in said
    assert not failures
    shutil.rmtree(copy)


def test_target__is_from_half_to_the_whole() -> None:
    assert page_module.target_of({"target_duration": 908.0}) == (460, 910)
    assert page_module.target_of({"target_duration": 3.0}) == (10, 20)
    assert page_module.target_of({"target_duration": float("nan")}) is None


def test_strip__is_what_is_in_the_store(whole: Path) -> None:
    points = kpms_zarr.open_changepoints(whole)
    found = read_strip(points, "session_002", 2.0, 12.0)
    assert found is not None
    score = points["change_score"].values[2, 60:360]
    np.testing.assert_array_equal(found.score, score)
    np.testing.assert_allclose(found.time, np.arange(60, 360) / 30)
    at = np.flatnonzero(points["changepoint"].values[2, 60:360] == 1)
    np.testing.assert_allclose(found.point_time, (60 + at) / 30)
    assert found.n_points == len(at)
    assert read_strip(points, "nobody", 0, 1) is None
    assert read_strip(points, "session_002", 40, 50) is None


def test_strip__of_a_long_time_keeps_its_peaks(whole: Path, monkeypatch: Any) -> None:
    from kpms_zarr.viz.syllables import changepoints as views

    monkeypatch.setattr(views, "_MOST_DRAWN", 40)
    points = kpms_zarr.open_changepoints(whole)
    found = read_strip(points, "session_000", 0.0, 30.0)
    assert found is not None
    score = points["change_score"].values[0, :900]
    assert len(found.score) <= 45
    assert np.nanmax(found.score) == np.nanmax(score)
    assert found.n_points == int((points["changepoint"].values[0] == 1).sum())


def test_rates__are_in_order_and_of_all_sessions(whole: Path) -> None:
    points = kpms_zarr.open_changepoints(whole)
    dots = next(iter(session_rates(points, chosen="session_001")))
    rates, names = (dots.dimension_values(name) for name in ("rate", "session"))
    assert (np.diff(rates) >= 0).all()
    assert sorted(map(str, names)) == [f"session_00{i}" for i in range(4)]
    minutes = 900 / 30 / 60
    by_name = dict(zip(map(str, names), rates, strict=True))
    for name, n in zip(points["session"].values, points["n_changepoints"].values, strict=True):
        assert by_name[str(name)] == pytest.approx(n / minutes)


def test_page__of_sessions_that_came_later(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "more.zarr"
    shutil.copytree(whole, copy)
    array = np.random.default_rng(0).normal(size=(300, 6, 2))
    names = [f"point{i}" for i in range(6)]
    kpms_zarr.ingest(copy, arrays={"new": array}, fps=30, keypoint_names=names)
    state, view = opened(copy, session="new")
    said = words(view)
    assert "1 session came later, such as new" in said
    assert "are not in the store" in said
    state.session = "session_001"
    assert "are not in the store" not in words(view)


@pytest.mark.full
def test_page__of_a_study_without_points(tmp_path: Path, failures: list[Any]) -> None:
    """Keypoints that never change together: the page says so, and draws what there is."""
    path = tmp_path / "still.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=400, n_keypoints=4))
    kpms_zarr.changepoints(path, false_rate=1e-6)
    _, view = opened(path)
    view.get_root()
    assert "change points in 1 session" in words(view)
    assert not failures
