"""The page of onsets: averages of signals, the typical trajectory, and what a link holds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kpms_zarr
from helpers.ar_labels import make_store, publish, simulate
from helpers.browser import SIZES, Server, Window, chromium
from kpms_zarr.viz.explore import link, parts
from kpms_zarr.viz.explore.pages import onsets as page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study

LENGTHS = (900, 900)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the signal ``dFF`` of one of two sessions, which is up while syllable 2 is."""
    folder = tmp_path_factory.mktemp("onsets")
    path, data = make_store(folder / "s.zarr", LENGTHS), simulate(lengths=LENGTHS)
    publish(path, data)
    z, rng = data.syllable["s0"], np.random.default_rng(0)
    values = (z == 2) + rng.normal(0, 0.1, len(z))
    lines = [f"s0,{frame},{value:.4f}" for frame, value in enumerate(values)]
    (folder / "dFF.csv").write_text("\n".join(["session,frame,dFF", *lines, ""]))
    kpms_zarr.signals(path, folder / "dFF.csv")
    return path


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


@pytest.fixture(autouse=True)
def fewer_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "_SHUFFLES", 200)


def opened(store: Path, **choices: Any) -> tuple[State, page_module._OnsetsPage]:
    state = State(Study(store), **{"page": "onsets", **choices})
    return state, page_module._OnsetsPage(state)


def words(view: Any) -> str:
    panes = view.select(lambda one: isinstance(getattr(one, "object", None), str))
    return " ".join(pane.object for pane in panes)


def test_page__averages_are_those_of_the_command(made, failures):
    state, page = opened(made, signal="dFF", syllable=2)
    assert list(page._signal.options.values()) == ["speed", "angular_velocity", "dFF"]
    shuffles = page_module._affordable(state.study.opened("m"))
    expected = kpms_zarr.triggered_average(made, model="m", signal="dFF", shuffles=shuffles)
    found = page._found
    np.testing.assert_array_equal(found["mean"], expected["mean"])
    np.testing.assert_array_equal(found["q"], expected["q"])
    keys = [card["key"] for card in page._cards.cards]
    q = found["q"].sel(syllable=keys).values
    assert (np.diff(q) >= 0).all()
    assert keys.index(2) == 0 or q[keys.index(2)] == q[0]
    assert all("<svg" in card["picture"] for card in page._cards.cards)
    said = words(page.view)
    assert "Syllable 2: average around the onset" in said
    assert "triggered-average" in said
    assert "--signal dFF" in said
    page.view.get_root()
    assert not failures


def test_page__typical_trajectory_is_that_of_the_command_and_is_played(made, failures):
    state, page = opened(made, syllable=1)
    expected = kpms_zarr.trajectories(made, model="m", syllables=[1])
    bouts = page._poses.select(page_module.Cards)[0]
    assert len(bouts.cards) == int(expected["n_examples"][0])
    n_core = int(expected["n_core"][0])
    assert f"the median of the {n_core} of" in words(page._poses)
    bouts.clicks = [1, 0]
    assert (state.page, state.session) == ("player", str(expected["session"].values[0, 0]))
    onset = int(expected["onset_frame"][0, 0]) / 30
    assert state.start == pytest.approx(max(0, onset - 1))
    assert not failures


def test_page__follows_syllable_and_signal_and_the_link_holds_them(made, failures):
    state, page = opened(made)
    first = page._cards.chosen
    assert first == page._cards.cards[0]["key"]
    other = page._cards.cards[-1]["key"]
    page._cards.clicks = [1, other]
    assert state.syllable == other
    assert f"Syllable {other}: average" in words(page._one)
    page._signal.value = "dFF"
    assert state.signal == "dFF"
    assert page._found.attrs["signal"] == "dFF"
    again, page = opened(made, **link.read(link.write(state, "")))
    assert (again.signal, again.syllable) == ("dFF", other)
    assert page._found.attrs["signal"] == "dFF"
    _, page = opened(made, signal="nothing", syllable=7)  # in use by no frame
    assert page._found.attrs["signal"] == "speed"
    assert "or is not in use" in words(page._one)
    assert not failures


def test_page__notices_another_version_of_the_signal(made, tmp_path):
    store = Path(shutil.copytree(made, tmp_path / "s.zarr"))
    state, page = opened(store, signal="dFF")
    before = page._found
    assert int(before.attrs["n_sessions"]) == 1
    table = tmp_path / "dFF.csv"
    table.write_text("\n".join(["session,frame,dFF", *(f"s1,{n},{n % 7}" for n in range(900)), ""]))
    kpms_zarr.signals(store, table)
    state.refresh()
    assert int(page._found.attrs["n_sessions"]) == 2
    kpms_zarr.signals(store, "none", name="dFF")
    state.refresh()
    assert page._found.attrs["signal"] == "speed"


def test_page__averages_when_it_is_looked_at_and_large_studies_when_asked(made, monkeypatch):
    state = State(Study(made), page="fit")
    page = page_module._OnsetsPage(state)
    assert page._found is None
    monkeypatch.setattr(page_module, "_AT_ONCE", (10, 10))
    state.page = "onsets"
    assert page._found is None
    (button,) = page._place.select(lambda one: hasattr(one, "clicks"))
    button.clicks += 1
    assert page._found is not None


def test_page__of_labels_alone_has_the_signals_of_the_store(made, tmp_path, failures):
    store = Path(shutil.copytree(made, tmp_path / "s.zarr"))
    without = ("latent", "centroid", "heading")
    publish(store, simulate(lengths=LENGTHS), "bare", without=without, has_parameters=False)
    _, page = opened(store, model="bare")
    assert list(page._signal.options) == ["dFF"]
    kpms_zarr.signals(store, "none", name="dFF")
    _, page = opened(store, model="bare")
    assert "kpms-zarr signals" in words(page.view)
    assert not failures


def test_shuffles__fit_into_their_memory(made, monkeypatch):
    model = State(Study(made)).study.opened("m")
    monkeypatch.setattr(page_module, "_SHUFFLES", 1000)
    assert page_module._affordable(model) == 1000
    # 32 bytes of each syllable, time and shuffle; 91 times at 30 frames per second.
    each = 32 * len(model.used) * 91
    monkeypatch.setattr(page_module, "_MOST_BYTES", 350 * each)
    assert page_module._affordable(model) == 300
    monkeypatch.setattr(page_module, "_MOST_BYTES", each)
    assert page_module._affordable(model) == 200


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_browser__signal_syllable_and_bouts(made, size):
    server = Server(made)
    try:
        with chromium() as browser:
            window = Window(browser, size=size)
            page = window.open(server.url(page="onsets", signal="dFF"))
            group = page.get_by_role("group", name="Averages around the onsets of syllables")
            group.wait_for()
            group.get_by_role("button", name="Syllable 3").click()
            page.get_by_role("heading", name="Syllable 3: average").wait_for()
            page.get_by_role("heading", name="Syllable 3: typical trajectory").wait_for()
            page.get_by_role("group", name="Example bouts").wait_for()
            window.settle(1500)
            window.picture(f"onsets_dff_{size[0]}")
            assert "syllable=3" in page.url
            assert window.unnamed() == []
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            assert window.problems == []
            window.close()
    finally:
        server.stop()
    assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]
