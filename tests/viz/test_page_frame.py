"""What every page of explore has: downloads of its pictures, its address to copy, its keys."""

from __future__ import annotations

import csv
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
from bokeh.document import Document
from panel.io.state import set_curdoc
from PIL import Image

import kpms_zarr
from helpers.browser import Server, Window, chromium, download
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.ethograms.binning import AFTER_END, Binned
from kpms_zarr.viz.ethograms.raster import runs_of_view
from kpms_zarr.viz.explore import app, page_frame, parts
from kpms_zarr.viz.explore.app import PAGES, page_module, session_options, syllable_options
from kpms_zarr.viz.explore.cards import Cards
from kpms_zarr.viz.explore.chooser import TimeField
from kpms_zarr.viz.explore.page_frame import KINDS, file_name, picture_file
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.picture_data import figures_in, table_of
from kpms_zarr.viz.shared.style import load

SESSIONS = [f"session_00{i}" for i in range(4)]
"""Of the study ``whole``, in groups a and b in turn."""


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


@pytest.fixture(autouse=True)
def fewer_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    for name in ("onsets", "changepoints"):
        monkeypatch.setattr(page_module(name), "_SHUFFLES", 200)


def pictures(view: Any) -> dict[str, Any]:
    return figures_in([view.get_root()])


def unnamed(view: Any) -> list[str]:
    """Titles of pictures that files could not be named after."""
    return [str(figure.title.text) for figure, tag in pictures(view).values() if tag is None]


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), comment="#")


# ------------------------------------------------------------------ pictures of all pages


@pytest.mark.parametrize("name", PAGES)
def test_pages__give_every_picture_and_its_data(
    whole: Path, name: str, failures: list[Any]
) -> None:
    """All pictures of all pages: a new one without a name, or without data, fails here."""
    state = State(Study(whole), page=name, syllable=1)
    view = page_module(name).page(state)
    roots = [view.get_root()]
    found = figures_in(roots)
    assert not failures
    assert found, "the page draws nothing, so that this test looks at nothing"
    assert unnamed(view) == []
    for key, (figure, _) in found.items():
        for kind in KINDS:
            made = picture_file(state, roots, key, kind)
            assert made is not None
            assert made.name.startswith(f"{name}_two_")
            assert made.name.endswith(f".{kind}")
            assert bool(made.text) == (kind == "csv")
        rows = table_of(figure).rows
        again = read(made.text) if len(rows.columns) else rows
        assert made.text.startswith("# ")
        assert "kpms-zarr tables" in made.text
        assert list(again) == [str(column) for column in rows]
        assert len(again) == len(rows)
        for column in again:
            if again[column].dtype.kind in "iuf" and rows[column].dtype.kind in "iuf":
                np.testing.assert_allclose(again[column], rows[column], rtol=1e-6)
    assert any(len(table_of(figure).rows) for figure, _ in found.values())


@pytest.mark.parametrize("name", ["syllables", "onsets"])
def test_cards__give_their_pictures_and_data(whole: Path, name: str, failures: list[Any]) -> None:
    state = State(Study(whole), page=name, syllable=1)
    view = page_module(name).page(state)
    view.get_root()
    n_files = 0
    for cards in view.select(Cards):
        for entry in cards.cards:
            if not entry["picture"]:
                continue
            for kind in KINDS:
                n_files += 1
                cards.asked = [n_files, entry["key"], kind]
                made = cards.answer
                assert made["number"] == n_files
                assert "error" not in made, made
                assert made["name"].startswith(f"{name}_two_")
                assert made["name"].endswith(f".{kind}")
                assert bool(made["text"]) == (kind == "csv")
            rows = read(made["text"])
            assert len(rows) > 3
            assert rows.select_dtypes("number").notna().any().all()
    assert not failures
    assert n_files


def test_unnamed_picture__would_be_found() -> None:
    load()
    named = parts.plot(hv.Curve([1, 2]), "curve")
    assert unnamed(parts.column(named)) == []
    assert unnamed(parts.column(named, pn.pane.HoloViews(hv.Curve([1, 2]).opts(title="new")))) == [
        "new"
    ]


def test_file__of_a_picture_that_is_gone_and_of_another_kind(whole: Path) -> None:
    state = State(Study(whole), page="pose_space")
    roots = [page_module("pose_space").page(state).get_root()]
    key = next(iter(figures_in(roots)))
    assert picture_file(state, roots, "p0", "csv") is None
    assert picture_file(state, roots, key, "exe") is None


@pytest.mark.parametrize(
    ("parts_of_name", "name"),
    [
        (("player", "m", "mouse 1", "speed"), "player_m_mouse-1_speed.csv"),
        (("fit", "", "", "trace 1"), "fit_trace-1.csv"),
        (("quality", "../m", "a/b\\c:*?", "x" * 99), f"quality_m_a-b-c_{'x' * 60}.csv"),
        (("player", "m", "Käfig_1", "pose"), "player_m_Käfig_1_pose.csv"),
    ],
)
def test_file_name__tells_page_model_session_and_picture(
    parts_of_name: tuple[str, str, str, str], name: str
) -> None:
    assert file_name(*parts_of_name, "csv") == name


def test_sessions__are_in_names_of_pictures_of_one_alone(whole: Path) -> None:
    state = State(Study(whole), page="ethogram", session="session_001")
    state_names = []
    roots = [page_module("ethogram").page(state).get_root()]
    for key in figures_in(roots):
        made = picture_file(state, roots, key, "png")
        assert made is not None
        state_names.append(made.name)
    assert sorted(state_names) == [
        "ethogram_two_all-sessions.png", "ethogram_two_session_001_strip.png",
    ]  # fmt: skip


def test_ethogram__as_csv_is_runs_of_what_is_drawn(whole: Path) -> None:
    state = State(Study(whole), page="ethogram")
    roots = [page_module("ethogram").page(state).get_root()]
    (key,) = (k for k, (_, tag) in figures_in(roots).items() if tag and "all" in tag["called"])
    made = picture_file(state, roots, key, "csv")
    assert made is not None
    found, binned = read(made.text), Binned.of(state.study.opened("two"))
    view = binned.view()
    drawn = np.full(view.syllable.shape, AFTER_END, np.int64)
    names = [one.name for one in binned.sessions]
    for row in found.itertuples():
        first, last = (round((t - view.start) / view.seconds) for t in (row.start_s, row.stop_s))
        drawn[names.index(str(row.session)), first:last] = row.syllable
    np.testing.assert_array_equal(drawn, view.syllable)
    assert {"name", "certainty"} <= set(found)
    assert runs_of_view(view, None, names).rows["session"].tolist() == found["session"].tolist()


def test_player__as_csv_is_its_window(whole: Path) -> None:
    state = State(Study(whole), page="player", start=2.0, stop=5.0, keypoint="point2")
    view = page_module("player").page(state)
    roots = [view.get_root()]
    by_name = {tag["called"]: key for key, (_, tag) in figures_in(roots).items() if tag}
    text = {}
    for name, key in by_name.items():
        made = picture_file(state, roots, key, "csv")
        assert made is not None
        text[name] = read(made.text)
    labels = state.study.opened("two").labels["syllable"][0, 60:150].values
    strip = text["strip"]
    found = np.repeat(strip["syllable"], strip["stop_frame"] - strip["start_frame"])
    np.testing.assert_array_equal(found, labels)
    assert text["speed"]["frame"].tolist() == list(range(60, 150))
    tracked = state.study.keypoints()["position"][0, 60:150].values[:, 2]
    detail = text["detail"][["point2_tracked_x", "point2_tracked_y"]]
    np.testing.assert_allclose(detail, tracked, rtol=1e-5)
    assert len(text["pose"]) == 90 * 6


# ------------------------------------------------------------------ the frame


def test_window__has_one_frame_for_all_pages(whole: Path) -> None:
    state = State(Study(whole))
    tools = page_frame.frame_tools(state, app._shown_page)
    for name in (*PAGES, "nothing", PAGES[0]):
        state.page = name
        shown = page_module(name if name in PAGES else PAGES[0])
        assert tools.page_title == shown.TITLE
        for keys, what in (*tools.keys, *tools.general_keys):
            assert keys
            assert what
    state.page = "player"
    assert ["Space", "plays and pauses"] in tools.keys
    template = app.window(state.study)
    held = [root for root, *_ in template._render_items.values()]
    assert sum(isinstance(one, page_frame.FrameTools) for one in held) == 1


def test_frame__answers_what_the_browser_asks_for(whole: Path) -> None:
    state = State(Study(whole), page="pose_space")
    tools = page_frame.frame_tools(state, app._shown_page)
    view, document = page_module("pose_space").page(state), Document()
    root = view.get_root(document)
    document.add_root(root)
    key = next(iter(figures_in([root])))
    with set_curdoc(document):
        tools.asked = [1, key, "csv"]
    assert (tools.answer["number"], tools.answer["name"][-4:]) == (1, ".csv")
    assert csv.Sniffer().sniff(tools.answer["text"].splitlines()[-1]).delimiter == ","
    tools.asked = [2, "p0", "png"]
    assert "not shown" in tools.answer["error"]


# ------------------------------------------------------------------ choices


def test_syllables__are_chosen_by_name_and_colour(whole: Path) -> None:
    state = State(Study(whole))
    options = syllable_options(state)
    assert options[0] == {"value": "-1", "text": "none"}
    numbers = [int(one["value"]) for one in options[1:]]
    assert set(state.study.opened("two").used) <= set(numbers)
    assert all(one["color"].startswith("#") and "%" in one["detail"] for one in options[1:])
    state.syllable = 6  # rare or not: what is chosen can be seen
    assert "6" in [one["value"] for one in syllable_options(state)]


def test_sessions__are_found_by_what_is_said_of_them(whole: Path) -> None:
    options = session_options(Study(whole))
    assert [one["value"] for one in options] == SESSIONS
    assert [one["detail"] for one in options] == ["a", "b", "a", "b"]


def test_choices__keep_state_and_fields_equal(whole: Path) -> None:
    state = State(Study(whole))
    column = app._choices(state)
    fields = {one.name: one for one in column.select(pn.widgets.TextInput)}
    choosers = {one.label: one for one in column.select(app.Chooser)}
    first, last = (fields[name] for name in ("From (mm:ss)", "To (mm:ss, or end)"))
    assert (first.value, last.value) == ("00:00", "end")
    first.value = "0:05.5"
    last.value = "12"
    assert (state.start, state.stop) == (5.5, 12)
    assert (first.value, last.value) == ("00:05.5", "00:12")
    first.value = "what"
    assert (state.start, first.value) == (5.5, "00:05.5")
    last.value = "End"
    assert (state.stop, last.value) == (0, "end")
    choosers["Session"].value = "session_002"
    assert (state.session, state.start, first.value) == ("session_002", 0, "00:00")
    choosers["Syllable"].value = "2"
    assert state.syllable == 2
    state.syllable = -1
    assert choosers["Syllable"].value == "-1"
    state.show("session_001", 1.0, 2.0)
    assert (choosers["Session"].value, last.value) == ("session_001", "00:02")


def test_time_field__goes_by_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "study.zarr"
    write_store(path, SyntheticStudy(n_sessions=2, n_frames=300, n_keypoints=3))
    times = {"session_000": 100 + np.arange(300) / 15}  # half as fast as frames say
    kpms_zarr.timestamps(path, times)
    study = Study(path)
    clock = study.clock("session_000")
    assert clock.write(10.0, 1) == "00:20.0"
    assert study.clock("session_001").write(10.0) == "00:10"
    field, told = TimeField("From"), []
    field.when_typed(told.append)
    field.show(3.0, clock)
    assert field.text == "00:06"
    field._field.value = "0:08"
    assert told == [pytest.approx(4.0)]
    state = State(study, session="session_000", start=5.0, stop=8.0, page="player")
    page = page_module("player").page(state)
    roots = [page.get_root()]
    keys = {tag["called"]: k for k, (_, tag) in figures_in(roots).items() if tag}
    made = picture_file(state, roots, keys["speed"], "csv")
    assert made is not None
    assert read(made.text)["time_s"].iloc[0] == pytest.approx(10.0)


def test_beside__begins_when_the_browser_has_the_page() -> None:
    """What was handed over while the page was being sent could be lost."""
    document, made = Document(), threading.Event()
    document._session_context = object  # a page of a server
    with set_curdoc(document):
        parts.beside(made.set, lambda _: None, is_short=False)
        assert not made.wait(0.3)
        pn.state._on_load(document)
        assert made.wait(60)
        made.clear()
        parts.beside(made.set, lambda _: None, is_short=False)  # now at once
        assert made.wait(60)


# ------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.mark.slow
def test_downloads__arrive_as_files(served: Server, browser: Any) -> None:
    window = Window(browser)
    page = window.open(served.url(page="ethogram", session="session_001", start=2, stop=9))
    page.locator("button.kpms-download").nth(1).wait_for()
    name, content = download(page, "Download: time", "csv")  # the strip has no title
    assert name == "ethogram_m_session_001_strip.csv"
    rows = read(content.decode())
    assert set(rows["session"]) == {"session_001"}
    assert (rows["start_s"].min(), rows["stop_s"].max()) == pytest.approx((2, 9))
    name, content = download(page, "Download: time", "svg")
    assert (name[-4:], b"<svg" in content, b"</svg>" in content) == (".svg", True, True)
    name, content = download(page, "Download: 3 sessions", "png")
    assert name == "ethogram_m_all-sessions.png"
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert picture.shape[1] > 1200
    assert window.problems == []
    window.close()


@pytest.mark.slow
def test_frame__copies_the_link_and_tells_the_keys(served: Server, browser: Any) -> None:
    window = Window(browser)
    page = window.open(served.url(page="player", session="session_001"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    assert "session=session_001" in page.url
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    words = dialog.inner_text()
    assert "plays and pauses" in words
    assert "On the page Player" in words
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    # A field keeps its letters, and / leads to the search of sessions.
    page.keyboard.press("/")
    field = page.get_by_label("Session", exact=True)
    page.keyboard.type("?")
    assert (dialog.count(), field.input_value()) == (0, "?")
    page.keyboard.press("Escape")
    assert field.input_value() == "session_001"
    field.fill("2 SESS")  # parts of a name, in any order
    page.keyboard.press("Enter")
    page.wait_for_function("location.search.includes('session_002')")
    field = page.get_by_label("Syllable", exact=True)
    field.fill("2")
    page.keyboard.press("Enter")
    page.wait_for_function("location.search.includes('syllable=2')")
    assert window.problems == []
    window.close()
