"""Addresses that hold what is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from panel.io.location import Location

import kpms_zarr
from kpms_zarr.viz.explore import link
from kpms_zarr.viz.explore.state import IN_URL, State
from kpms_zarr.viz.explore.study import Study

NAMES = ("001", "1", "1e3", "true", "nan", "[a]", "a & b=c?", "äö", "x y", "a,b", "-")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Sessions whose names look like something else."""
    path: Path = tmp_path_factory.mktemp("links") / "study.zarr"
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(300, 3, 2)) for name in NAMES}
    kpms_zarr.ingest(path, arrays=arrays, fps=30, keypoint_names=["a", "b", "c"])
    return Study(path)


def tied(study: Study, search: str = "") -> tuple[State, Location]:
    state, location = State(study), Location(search=search)
    link.tie(state, location)()
    return state, location


@pytest.mark.parametrize("name", NAMES)
def test_link__leads_to_the_same_choices(study: Study, name: str) -> None:
    first, location = tied(study)
    chosen: dict[str, Any] = {"session": name, "start": 2.5, "stop": 7.25, "keypoint": "b"}
    first.param.update(page="player", syllable=-1, **chosen)
    second, _ = tied(study, location.search)
    for choice in IN_URL:
        assert getattr(second, choice) == getattr(first, choice)
    assert second.session == name


@pytest.mark.parametrize(
    "search",
    [
        "?syllable=-1&keypoint=b&session=001",
        "?session=001&start=nan&syllable=what&stop=-3&keypoint=b",
        "?keypoint=b&stop=1e999&session=001&syllable=99999",
        "?page=&session=001&keypoint=b&model=none",
    ],
)
def test_link__one_bad_value_costs_no_other(study: Study, search: str) -> None:
    state, _ = tied(study, search)
    assert (state.session, state.keypoint, state.start, state.syllable) == ("001", "b", 0, -1)


def test_link__keeps_what_is_not_a_choice_as_it_is(study: Study) -> None:
    state, location = tied(study, "?token=007&session=1")
    state.session = "001"
    held = parse_qs(location.search[1:])
    assert held["token"] == ["007"]
    assert held["session"] == ["001"]


def test_link__going_back_tells_of_all_choices_at_once(study: Study) -> None:
    state, location = tied(study, "?session=001&start=1&stop=3")
    before = location.search
    state.show("true", 4.0, 6.0)
    told: list[tuple[str, float, float]] = []
    state.param.watch(
        lambda *_: told.append((state.session, *state.span)), ["start", "stop", "session"]
    )
    location.search = before  # the button of the browser
    assert told == [("001", 1.0, 3.0)]
    assert location.search == before


def test_link__to_a_session_that_is_gone_is_mended(study: Study) -> None:
    state, location = tied(study, "?session=gone&start=1&stop=3")
    assert state.session in NAMES
    assert state.span == (0.0, 10.0)
    assert "gone" not in location.search
