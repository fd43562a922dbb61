"""The page of syllables: cards, the detail of one, and naming it, on a store and in a browser."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.browser import SIZES, Server, Window, chromium, download
from kpms_zarr.store.model.syllable_names import name_syllable, read_names
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.pages import syllables as page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.syllables import data as syllable_data


@pytest.fixture(scope="module")
def own(two_stages, tmp_path_factory) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(two_stages, tmp_path_factory.mktemp("own") / "study.zarr"))


@pytest.fixture
def copy(two_stages, tmp_path) -> Path:
    return Path(shutil.copytree(two_stages, tmp_path / "study.zarr"))


@pytest.fixture
def failures(monkeypatch) -> list:
    """Errors that the page shows in place of a view."""
    caught: list = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


def opened(store, **choices):
    state = State(Study(store), page="syllables", **choices)
    return state, page_module._SyllablesPage(state)


# ------------------------------------------------------------------ without a browser


def test_page__has_a_card_for_every_syllable_in_use(copy, monkeypatch, failures):
    monkeypatch.setattr(page_module, "_PER_PAGE", 4)
    _, page = opened(copy)
    seen = []
    for _ in range(20):
        seen += [card["key"] for card in page._cards.cards]
        assert len(page._cards.cards) <= 4
        assert all("<svg" in card["picture"] for card in page._cards.cards)
        if page._after.disabled:
            break
        page._turned(4, None)
    assert seen == list(page._gallery.used)
    assert not failures


def test_page__turns_to_the_card_of_a_syllable_that_another_view_chose(copy, monkeypatch):
    monkeypatch.setattr(page_module, "_PER_PAGE", 4)
    state, page = opened(copy)
    last = page._gallery.used[-1]
    state.syllable = last
    assert last in [card["key"] for card in page._cards.cards]
    assert page._cards.chosen == last
    assert page._detail.syllable == last


def test_page__that_is_not_looked_at_waits(copy):
    state, page = opened(copy)
    state.page = "fit"
    state.syllable = 2
    assert page._detail is None
    state.page = "syllables"
    assert page._detail.syllable == 2


def test_page__finds_by_number_and_name_and_orders(copy):
    name_syllable(copy, "two", 2, name="Rear up")
    _, page = opened(copy)
    page._find.value = "rear"
    assert [card["key"] for card in page._cards.cards] == [2]
    page._find.value = "1"
    assert [card["key"] for card in page._cards.cards] == [1]
    page._find.value = "nothing"
    assert page._cards.cards == []
    assert "None found" in page._count.object
    page._find.value = ""
    page._order.value = "number"
    found = [card["key"] for card in page._cards.cards]
    assert found == sorted(found)


def test_save__is_seen_in_every_window_at_once(copy, failures):
    study = Study(copy)
    windows = [State(study, page="syllables", syllable=2) for _ in range(2)]
    pages = [page_module._SyllablesPage(state) for state in windows]
    form = pages[0]._detail._form
    form._name.value, form._description.value = "rear <b>", "up"
    form._save.clicks += 1
    assert "Saved as version 1" in form._message.object
    assert read_names(copy, "two").label(2) == "2 rear <b>"
    windows[1].refresh(wait=False)
    for page in pages:
        assert page._cards.cards[page._gallery.used.index(2)]["title"] == "rear <b>"
        assert "rear &lt;b&gt;" in page._detail._heading.object
        assert page._detail._form._name.value == "rear <b>"
    form._save.clicks += 1
    assert "Nothing has changed" in form._message.object
    assert not failures


def test_save__does_not_touch_what_another_window_is_writing(copy):
    study = Study(copy)
    windows = [State(study, page="syllables", syllable=2) for _ in range(2)]
    pages = [page_module._SyllablesPage(state) for state in windows]
    pages[1]._detail._form._name.value = "half a na"
    name_syllable(copy, "two", 2, name="rear")  # by another process
    study.refresh()
    for state in windows:
        state.refresh(wait=False)
    assert pages[0]._detail._form._name.value == "rear"
    assert pages[1]._detail._form._name.value == "half a na"


def test_save__where_nothing_can_be_written_says_why(copy, monkeypatch):
    _, page = opened(copy, syllable=2)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    form = page._detail._form
    form._name.value = "rear"
    form._save.clicks += 1
    assert "Not saved" in form._message.object
    assert "read only" in form._message.object
    form._name.value = "a\tb"
    form._save.clicks += 1
    assert "U+0009" in form._message.object
    assert read_names(copy, "two").version == ""


def test_play__shows_the_bout_in_the_player(copy):
    state, page = opened(copy, syllable=2)
    example, _ = page._gallery.snapshots(2)[3]
    cards = page._detail.view.select(page_module.Cards)[0]
    assert cards.label == "Example bouts"
    cards.clicks = [1, 3]
    assert (state.page, state.session) == ("player", example.session.name)
    fps = example.session.fps
    assert state.start == pytest.approx(max(0, example.onset / fps - 1))
    assert state.stop == pytest.approx(min(example.session.n_frames, example.stop + fps) / fps)


def test_page__of_labels_without_poses_has_the_rest(store, failures):
    state, page = opened(store, syllable=1)
    assert "no poses" in page._count.object
    assert page._detail.syllable == 1
    page.view.get_root()
    assert not failures
    assert state.syllable == 1


def test_page__of_a_very_large_store_counts_when_asked(copy, monkeypatch):
    counted = []
    monkeypatch.setattr(
        "kpms_zarr.viz.explore.syllable_detail.session_frames",
        lambda labels: counted.append(1) or syllable_data.session_frames(labels),
    )
    monkeypatch.setattr("kpms_zarr.viz.explore.syllable_detail._COUNTED_AT_ONCE", (10, 10))
    _, page = opened(copy, syllable=2)
    assert not counted
    (button,) = (one for one in page._detail.view.select(_button) if "Count" in one.name)
    button.clicks += 1
    button.clicks += 1
    assert len(counted) == 1


def _button(one) -> bool:
    return type(one).__name__ == "Button"


# ------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def served(own):
    one = Server(own)
    yield one
    one.stop()


def card(page, title: str):
    return page.get_by_role("group", name="Syllables in use").get_by_role("button", name=title)


@pytest.mark.slow
def test_browser__choose_name_save_reload_and_find(served, own, browser):
    window = Window(browser)
    page = window.open(served.url(page="syllables"))
    # With the keyboard: to the cards, to one of them, and choose.
    card(page, "Syllable 0:").wait_for()
    card(page, "Syllable 1:").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Syllable 1").wait_for()
    page.wait_for_function("location.search.includes('syllable=1')")
    assert card(page, "Syllable 1:").get_attribute("aria-pressed") == "true"
    window.settle(1500)
    page.locator("canvas:visible").nth(4).wait_for()
    page.get_by_label("Name", exact=True).fill("rear & <turn>")
    page.get_by_label("Description").fill("stands up, then turns")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved as version 1").wait_for()
    page.get_by_role("heading", name="Syllable 1 rear & <turn>").wait_for()
    card(page, "Syllable 1 rear & <turn>:").wait_for()
    window.picture("syllables_named")
    name, content = download(page, "Download: 0", "csv")
    assert name == "syllables_two_typical-poses-of-syllable-0.csv"
    rows = pd.read_csv(io.BytesIO(content), comment="#")
    assert {"syllable", "after_onset_s", "keypoint", "ahead", "across"} <= set(rows)
    name, content = download(page, "Download: 1 rear & <turn>", "png")
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert (picture.shape[1], (picture[0, 0] == 255).all()) == (1200, True)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    page.reload()
    window.settle()
    page.get_by_role("heading", name="Syllable 1 rear & <turn>").wait_for()
    assert page.get_by_label("Description").input_value() == "stands up, then turns"
    page.get_by_label("Find by number or name").fill("TURN")
    page.keyboard.press("Enter")
    page.get_by_text("1 to 1 of 1").wait_for()
    assert card(page, "Syllable").count() == 1
    assert read_names(own, "two").label(1) == "1 rear & <turn>"
    assert window.problems == []
    assert not [line for line in served.log if "Traceback" in line or "ERROR" in line]
    window.close()


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_browser__compare_and_play(served, browser, size):
    window = Window(browser, size=size)
    page = window.open(served.url(page="syllables", syllable=2))
    page.get_by_role("heading", name="Syllable 2").wait_for()
    page.locator("canvas:visible").nth(4).wait_for()
    window.settle(1500)
    before = page.locator("canvas:visible").count()
    page.get_by_label("Compare with").select_option("0")
    page.get_by_text("Syllable 2 and syllable 0").wait_for()
    window.settle(1500)
    page.locator("canvas:visible").nth(before).wait_for()
    window.picture(f"syllables_compared_{size[0]}")
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    group = page.get_by_role("group", name="Example bouts")
    group.get_by_role("button").first.click()
    page.wait_for_function("location.search.includes('page=player')")
    assert re.match(r"\d\d:\d\d", page.get_by_label("To (mm:ss, or end)").input_value())
    assert window.problems == []
    window.close()
