"""The pages Quality and Pose space in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import panel as pn
import pytest

import kpms_zarr
from helpers.browser import SIZES, Server, Window, chromium
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.tracking import open_quality
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.pages import pose_space as pose_space_page
from kpms_zarr.viz.explore.pages import quality as page
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.style import load

# Where a cell of the heat map is, in px of the window.
CELL = """([session, keypoint]) => {
  for (const document of Bokeh.documents)
    for (const model of document._all_models.values())
      if (model.y_range?.factors?.includes(session)) {
        const {frame, canvas_view} = Bokeh.index.find_one(model);
        const {left, top} = canvas_view.el.getBoundingClientRect();
        return {x: left + frame.x_scale.compute(keypoint), y: top + frame.y_scale.compute(session)};
      }
}"""
# Ends of the time axes of the traces.
TIMES = """() => [...Bokeh.documents[0]._all_models.values()]
  .filter((model) => model.title?.text?.includes("frames") && model.x_range)
  .map(({x_range}) => [x_range.start, x_range.end])"""


@pytest.fixture(scope="module")
def study(two_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gap of point2 from 20 to 26 s in session_001."""
    path = tmp_path_factory.mktemp("pages") / "two.zarr"
    shutil.copytree(two_stages, path)
    access.open_group(path, "r+")["keypoints"]["position"][1, 600:780, 2] = np.nan
    kpms_zarr.quality(path)
    kpms_zarr.pca(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def server(study: Path, browser: Any) -> Iterator[Server]:
    one = Server(study)
    yield one
    one.stop()
    # Not of others: a window that is closed while it is told something is no error of ours.
    assert "kpms_zarr/viz" not in "".join(one.log)


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    one = Window(browser)
    yield one
    assert one.problems == []
    one.close()


def choices(window: Window) -> dict[str, str]:
    found = parse_qs(urlsplit(window.page.url).query)
    return {name: values[0] for name, values in found.items()}


def wait_for(window: Window, **expected: str | float) -> None:
    """Until the link holds some choices."""
    script = """(expected) => {
      const found = new URLSearchParams(location.search);
      const same = (text, value) => typeof value === "number" ? +text === value : text === value;
      return Object.entries(expected).every(([name, value]) => same(found.get(name), value));
    }"""
    window.page.wait_for_function(script, arg=expected)


@pytest.mark.slow
def test_quality_page__leads_from_a_cell_to_its_worst_frames(
    server: Server, window: Window, study: Path
) -> None:
    window.open(server.url())
    window.picture("quality_1280")
    cell = window.page.evaluate(CELL, ["session_001", "point2"])
    window.page.mouse.click(cell["x"], cell["y"])
    wait_for(window, session="session_001", keypoint="point2")
    window.settle()
    chosen = choices(window)
    start = open_quality(study)["worst_start"].sel(
        session="session_001", keypoint="point2", problem="missing"
    )
    assert float(chosen["start"]) == pytest.approx(float(start) / 30 - 2.5, abs=1e-3)
    assert float(chosen["stop"]) == pytest.approx(float(start) / 30 + 12.5, abs=1e-3)
    window.page.get_by_role("heading", name="session_001, point2").wait_for()
    times = [float(chosen["start"]), float(chosen["stop"])]
    window.page.wait_for_function(
        f"(times) => ({TIMES})().some((one) => one.every((t, i) => Math.abs(t - times[i]) < 1e-3))",
        arg=times,
    )
    window.picture("quality_cell_1280")


@pytest.mark.full
@pytest.mark.slow
def test_quality_page__works_by_keyboard_and_its_link_is_enough(
    server: Server, window: Window
) -> None:
    link = server.url(session="session_001", keypoint="point2", start=10, stop=20)
    window.open(link)
    window.page.get_by_role("button", name="Later").focus()
    window.page.keyboard.press("Enter")
    wait_for(window, start=18, stop=28)
    window.page.get_by_role("button", name="Narrower").focus()
    window.page.keyboard.press("Enter")
    wait_for(window, start=20.5, stop=25.5)
    window.open(window.page.url)
    window.page.get_by_role("heading", name="session_001, point2").wait_for()
    window.page.get_by_label("Keypoint").select_option("point3")
    wait_for(window, keypoint="point3", start=20.5)
    window.page.get_by_role("button", name="Look at these frames in the player").click()
    wait_for(window, page="player", session="session_001", start=20.5, stop=25.5)


@pytest.mark.slow
def test_quality_page__zooming_in_reads_again(server: Server, window: Window) -> None:
    window.open(server.url(session="session_000", keypoint="point1"))
    canvas = window.page.locator("canvas").nth(2).bounding_box()
    y = canvas["y"] + canvas["height"] / 2
    window.page.mouse.move(canvas["x"] + 0.3 * canvas["width"], y)
    window.page.mouse.down()
    window.page.mouse.move(canvas["x"] + 0.6 * canvas["width"], y, steps=5)
    window.page.mouse.up()
    window.page.wait_for_function("location.search.includes('stop=')")
    window.settle()
    chosen = choices(window)
    times = window.page.evaluate(TIMES)
    expected = [float(chosen["start"]), float(chosen["stop"])]
    assert any(np.allclose(one, expected, atol=1e-2) for one in times), (times, expected)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_pose_space_page__draws_everything(
    server: Server, browser: Any, size: tuple[int, int]
) -> None:
    window = Window(browser, size=size)
    page = window.open(server.url(page="pose_space"))
    page.get_by_role("heading", name="Scores by group").wait_for()
    assert page.get_by_label("Latent dimension across").input_value() == "0"
    titles = page.evaluate(
        "[...Bokeh.documents[0]._all_models.values()].map((m) => m.title?.text).filter(Boolean)"
    )
    assert any("hold" in title for title in titles)
    assert sum(title.startswith("component ") for title in titles) >= 3
    assert any("sessions)" in title for title in titles)
    page.get_by_label("Latent dimension across").select_option("2")
    window.settle()
    labels = "[...Bokeh.documents[0]._all_models.values()].map((m) => m.axis_label)"
    page.wait_for_function(f"{labels}.includes('latent 2')")
    window.picture(f"pose_space_{size[0]}")
    assert window.problems == []
    window.close()


# ------------------------------------------------------------------ without a browser


@pytest.fixture
def state(study: Path) -> State:
    load()
    return State(Study(study))


def words(view: Any) -> str:
    """All that a page says."""
    panes = view.select(pn.pane.HTML) if hasattr(view, "select") else []
    return " ".join(str(pane.object) for pane in panes)


def test_choose__shows_the_worst_stretch(state: State) -> None:
    page.choose(state, "session_001", "point2", "missing")
    assert (state.session, state.keypoint) == ("session_001", "point2")
    assert state.start <= 20 <= 26 <= state.stop
    assert state.stop - state.start == pytest.approx(15, abs=0.01)


def test_choose__of_what_never_happens_shows_the_beginning(fresh: Path) -> None:
    access.open_group(fresh, "r+")["keypoints"]["confidence"][:, :, 0] = 1.0
    kpms_zarr.quality(fresh)
    load()
    state = State(Study(fresh))
    page.choose(state, "session_000", "point0", "low_confidence")
    assert (state.start, state.stop, state.keypoint) == (0, 12.5, "point0")


@pytest.mark.parametrize(
    ("given", "by", "zoom", "expected"),
    [
        ((10, 20), 0.8, 1, (18, 28)),
        ((10, 20), -0.8, 1, (2, 12)),
        ((0, 10), -0.8, 1, (0, 10)),
        ((95, 100), 0.8, 1, (95, 100)),
        ((10, 20), 0, 0.5, (12.5, 17.5)),
        ((10, 20), 0, 2, (5, 25)),
        ((10, 90), 0, 2, (0, 100)),
    ],
)
def test_shifted__stays_inside_the_session(given, by, zoom, expected) -> None:
    assert parts.shifted(*given, 100, by=by, zoom=zoom) == pytest.approx(expected)


def test_pages__say_what_to_run_first(fresh: Path) -> None:
    load()
    state = State(Study(fresh))
    assert f"kpms-zarr quality {fresh}" in words(page.page(state))
    said = words(pose_space_page.page(state))
    assert f"kpms-zarr pca {fresh}" in said
    assert f"kpms-zarr fit {fresh}" in said


def test_pages__notice_that_the_quality_was_counted(fresh: Path) -> None:
    load()
    state = State(Study(fresh))
    view = page.page(state)
    kpms_zarr.quality(fresh)
    state.refresh()
    assert state.news == 1
    assert "kpms-zarr quality" not in words(view)
    assert "Sessions 1 to 3 of 3" in words(view)


def test_pages__show_problems_in_words(
    study: Path, monkeypatch: pytest.MonkeyPatch, helpers: SimpleNamespace
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise InputError(expected="a map", found="none", where="here", fix="draw one")

    load()
    monkeypatch.setattr(page, "table", broken)
    assert "Expected a map; found none (here)" in words(page.page(State(Study(study))))


def test_traces__of_times_between_frames_are_drawn_once(state: State) -> None:
    """Drawing tells of the ranges of the axes, which must not count as a person's zoom."""
    view = page.page(state)
    view.get_root()
    seen: list[tuple[float, float]] = []
    state.param.watch(lambda *_: seen.append((state.start, state.stop)), ["start", "stop"])
    state.show("session_000", 3.017, 5.351)
    view.get_root()
    assert set(seen) == {(3.017, 5.351)}
