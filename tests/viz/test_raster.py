"""The raster, its links with other views, and the page around it."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import holoviews as hv
import numpy as np
import pytest

from helpers.browser import Server, Window, chromium
from kpms_zarr.store.ingest.annotate import annotate
from kpms_zarr.store.model import levels
from kpms_zarr.store.model.levels import bin_modes, build_levels
from kpms_zarr.store.model.syllable_names import name_syllable
from kpms_zarr.viz.ethograms import views as ethograms
from kpms_zarr.viz.ethograms.binning import AFTER_END, Binned
from kpms_zarr.viz.ethograms.raster import Raster, raster, strip
from kpms_zarr.viz.ethograms.shading import SHADES, code_colors, codes
from kpms_zarr.viz.explore.pages import ethogram as page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.colors import palette
from kpms_zarr.viz.shared.opened import OpenModel


@pytest.fixture(scope="module")
def levelled(tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace) -> Path:
    """A store with levels of detail and groups; tests only read it."""
    from kpms_zarr.store.study.synthetic import write_store

    path = tmp_path_factory.mktemp("raster") / "study.zarr"
    write_store(path, helpers.study)
    helpers.publish(path, helpers.truth())
    build_levels(path, "m")
    table = path.with_name("table.csv")
    table.write_text("session,group,weight\nsession_000,b,30\nsession_001,a,8\nsession_002,,\n")
    annotate(path, table)
    return path


def image_of(plot: hv.DynamicMap) -> hv.Image:
    (image,) = plot[()].traverse(lambda one: one, [hv.Image])
    return image


def stream_of(plot: hv.DynamicMap, kind: type) -> Any:
    def every(one: hv.DynamicMap) -> Iterator[Any]:
        yield from one.streams
        for below in getattr(one.callback, "inputs", ()):
            yield from every(below)

    return next(stream for stream in every(plot) if isinstance(stream, kind))


def decoded(image: hv.Image) -> np.ndarray:
    """Labels of an image, first row on top."""
    code = image.dimension_values("code", flat=False)[::-1].astype(int)
    return np.where(code == 0, AFTER_END, (code - 1) // SHADES - 1)


# ------------------------------------------------------------------ colours


def test_codes__hold_syllable_and_certainty() -> None:
    view = SimpleNamespace(
        syllable=np.array([[AFTER_END, -1, 0, 5]], np.int16),
        certainty=np.array([[np.nan, 0.0, 0.5, 1.0]], np.float16),
    )
    assert codes(view).tolist() == [[0, 1, 1 + SHADES + SHADES // 2, 1 + 7 * SHADES - 1]]
    view.certainty[:] = np.nan
    assert codes(view).tolist() == [[0, SHADES, 2 * SHADES, 7 * SHADES]]


def test_code_colors__are_those_of_all_views_and_pale_where_uncertain() -> None:
    colors = code_colors(6)
    assert len(colors) == 1 + 7 * SHADES
    assert list(colors[SHADES::SHADES]) == palette(6)
    brightness = [sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in colors]
    one = brightness[1 + 3 * SHADES : 1 + 4 * SHADES]
    assert one == sorted(one, reverse=True)
    assert one[0] > one[-1]
    assert set(code_colors(6, by_certainty=False)[1:]) == set(palette(6))


def test_code_colors__of_a_chosen_syllable_alone() -> None:
    colors = code_colors(6, highlight=2)
    assert colors[4 * SHADES] == palette(6)[3]
    others = set(colors[1 : 1 + 3 * SHADES]) | set(colors[1 + 4 * SHADES :])
    assert len(others) == 1
    assert not others & set(palette(6))


# ------------------------------------------------------------------ the plot


def test_raster__all_sessions_first_on_top(levelled: Path, labels: list[np.ndarray]) -> None:
    image = image_of(raster(levelled, model="m"))
    shown = decoded(image)
    assert len(shown) == len(labels)
    for row, truth in zip(shown, labels, strict=True):
        modes = bin_modes(truth, 2).syllable
        np.testing.assert_array_equal(row[: len(modes)], modes)
        assert (row[len(modes) :] == AFTER_END).all()
    n_bins = -(-max(map(len, labels)) // 2)
    assert image.bounds.lbrt() == pytest.approx((0, 0.5 - 3, n_bins * 2 / 30, 0.5))


def test_raster__a_zoom_reads_what_it_shows(levelled: Path, labels: list[np.ndarray]) -> None:
    plot = raster(levelled, model="m")
    hv.renderer("bokeh").get_plot(plot)
    stream_of(plot, hv.streams.RangeXY).event(x_range=(2.0, 3.0), y_range=(-1.2, -0.8))
    image = image_of(plot)
    shown = decoded(image)
    assert (shown == labels[1][60:90]).all()
    assert image.bounds.lbrt() == pytest.approx((2.0, -1.5, 3.0, -0.5))


def test_raster__says_how_fine_it_is(levelled: Path) -> None:
    made = Raster(Binned.of(OpenModel(levelled, "m")))
    figure = hv.renderer("bokeh").get_plot(made.plot).state
    assert figure.title.text == "3 sessions, 2 frames (67 ms) a column"
    assert (figure.x_range.start, figure.y_range.end) == (0, 0.5)
    assert figure.x_range.end == pytest.approx(made.binned.seconds)
    stream_of(made.plot, hv.streams.RangeXY).event(x_range=(2.0, 3.0), y_range=(-1.2, -0.8))
    assert figure.title.text == "1 session, single frames"


def test_raster__names_of_rows_that_are_seen(levelled: Path) -> None:
    made = Raster(Binned.of(OpenModel(levelled, "m")))
    axis = hv.renderer("bokeh").get_plot(made.plot).state.yaxis[0]
    assert axis.ticker.ticks == [0, -1, -2]
    stream_of(made.plot, hv.streams.RangeXY).event(x_range=(2.0, 3.0), y_range=(-1.3, -0.2))
    assert axis.ticker.ticks == pytest.approx([-0.35, -0.9])
    made._n, made._asked = 10_000, (0.0, 9.0, -9999.5, 0.5)
    ticks = made._ticks()
    assert ticks[:3] == [0, -2000, -4000]
    made._asked = (0.0, 9.0, -1202.0, -600.0)
    assert made._ticks() == list(range(-600, -1201, -100))


def test_raster__a_place_is_a_session_a_time_and_a_syllable(
    levelled: Path, labels: list[np.ndarray]
) -> None:
    made = Raster(Binned.of(OpenModel(levelled, "m")))
    session, time, syllable = made.at(50.5 / 30, -1.4)
    mode = bin_modes(labels[1][48:64], 16).syllable[0]
    assert (session.name, time, syllable) == ("session_001", 50.5 / 30, mode)
    assert made.at(1e6, 9.0)[0].name == "session_000"
    assert made.at(1e6, 9.0)[2] == AFTER_END


def test_raster__marks_and_colours_on_request(levelled: Path) -> None:
    made = Raster(Binned.of(OpenModel(levelled, "m")))
    plot = hv.renderer("bokeh").get_plot(made.plot)
    made.style.param.update(marked=("session_002", 1.0, 4.0), highlight=1)
    renderers = {type(r.glyph).__name__: r for r in plot.state.renderers}
    box = renderers["Quad"].data_source.data
    assert [box[side] for side in ("left", "right", "bottom", "top")] == [[1], [4], [-2.5], [-1.5]]
    assert renderers["HSpan"].data_source.data["y"].tolist() == [-0.5, -1.5]
    image = renderers["Image"].glyph
    assert tuple(image.color_mapper.palette) == code_colors(made.binned.n_states, 1)
    made.style.by_certainty = False
    assert tuple(image.color_mapper.palette) == code_colors(made.binned.n_states, 1, False)


def test_raster__is_forgotten_with_its_page(levelled: Path) -> None:
    drawn = Raster(Binned.of(OpenModel(levelled, "m")))
    plot = hv.renderer("bokeh").get_plot(drawn.plot)
    left = weakref.ref(drawn)
    del drawn
    gc.collect()
    assert left() is not None
    plot.cleanup()  # as Panel does
    del plot
    gc.collect()
    assert left() is None


def test_raster__names_of_syllables_in_the_hover_box(fresh: Path, helpers: SimpleNamespace) -> None:
    helpers.publish(fresh, helpers.truth())
    name_syllable(fresh, "m", 1, name="rear <b>")
    figure = hv.renderer("bokeh").get_plot(raster(fresh, model="m")).state
    hover = next(tool for tool in figure.tools if type(tool).__name__ == "HoverTool")
    assert hover.formatters["@image"].args["given"]["1"] == "1 rear <b>"


def test_strip__frame_by_frame(levelled: Path, labels: list[np.ndarray]) -> None:
    image, view = strip(Binned.of(OpenModel(levelled, "m")), "session_002", 1.0, 2.5)
    assert view.frames_per_bin == 1
    assert (decoded(image) == labels[2][30:75]).all()
    assert hv.renderer("bokeh").get_plot(image).state.xaxis.axis_label == "time (mm:ss)"


def test_ethogram__of_long_sessions_is_made_from_levels(
    levelled: Path, fresh: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ethograms, "_MOST_FRAMES", 0)
    values = ethograms.ethogram(levelled, model="m", n_bins=200).Image.I
    found = values.dimension_values("syllable", flat=False)[::-1]
    stored = levels.open_levels(levelled, "m")
    assert stored is not None
    n_real = -(-stored["n_frames"].values // 16)
    for row, n in enumerate(n_real):
        np.testing.assert_array_equal(found[row, :n], stored["syllable_16"].values[row, :n])
        assert np.isnan(found[row, n:]).all()
    helpers.publish(fresh, helpers.truth())  # no levels
    exact = ethograms.ethogram(fresh, model="m", n_bins=200).Image.I
    assert np.nanmax(exact.dimension_values("syllable")) == max(map(max, helpers.truth()))


# ------------------------------------------------------------------ the page


def page_of(store: Path, **choices: Any) -> tuple[State, page_module._EthogramPage]:
    state = State(Study(store), page="ethogram", **choices)
    page = page_module._EthogramPage(state)
    page.view.get_root()
    return state, page


def test_page__a_click_chooses_a_session_and_some_seconds(levelled: Path) -> None:
    state, page = page_of(levelled)
    assert page.raster is not None
    session = page.raster.binned.sessions[1]
    page._tapped(session, 40.0, 3)
    assert (state.session, state.start, state.stop) == ("session_001", 25.0, 55.0)
    assert page.raster.style.marked == ("session_001", 25.0, 55.0)
    page._show(10.0, 4.0)
    page._tapped(session, 1.0, 3)
    assert state.span == (0.0, 4.0)
    page._tapped(session, 1e6, AFTER_END)
    assert state.span == (0.0, session.n_frames / session.fps)


def test_page__buttons_move_within_the_session(levelled: Path) -> None:
    state, page = page_of(levelled, session="session_001", start=10.0, stop=14.0)
    page._move(1)
    assert state.span == (14.0, 18.0)
    page._move(-9)
    assert state.span == (0.0, 4.0)
    page._resize(2.0)
    assert state.span == (0.0, 8.0)
    page._resize(0.5)
    assert state.span == (2.0, 6.0)
    page._resize(1e9)
    session = state.session_row
    assert session is not None
    assert state.span == (0.0, session.n_frames / session.fps)


def test_page__what_is_zoomed_in_stays_when_the_store_has_news(levelled: Path) -> None:
    state, page = page_of(levelled)
    before = page.raster
    state.news += 1
    assert page.raster is before
    page._order.value = "session"
    assert page.raster is not before


def test_page__orders_by_what_is_known_of_the_sessions(levelled: Path) -> None:
    state, page = page_of(levelled)
    assert {"group", "weight"} <= set(page._order.options)
    assert not {"source_hash", "fps"} & set(page._order.options)
    names, rows = page_module.in_order(state, "group")
    assert names == ["session_001", "session_000", "session_002"]
    assert rows == ["a: session_001", "b: session_000", "session_002"]
    assert page_module.in_order(state, "weight")[0] == names


def test_page__a_session_without_labels_says_what_to_run(
    fresh: Path, helpers: SimpleNamespace
) -> None:
    helpers.publish(fresh, helpers.truth())
    state, page = page_of(fresh)
    page.raster.binned.sessions = page.raster.binned.sessions[:1]
    state.session = "session_002"
    assert "kpms-zarr apply" in page._strip().object


# ------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def window(levelled: Path) -> Iterator[Any]:
    with chromium() as browser:
        server = Server(levelled)
        one = Window(browser)
        one.open(server.url(page="ethogram"))
        yield one, server
        one.close()
        server.stop()


@pytest.mark.full
@pytest.mark.slow
def test_browser__click_zoom_and_choose(window: Any) -> None:
    one, server = window
    page = one.page
    canvas = page.locator("canvas").first
    box = canvas.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    page.mouse.click(*at(0.5, 0.4))
    page.wait_for_url(re.compile("session=session_001"))
    assert "start=" in page.url
    page.get_by_role("heading", name=re.compile("^session_001, ")).wait_for()
    one.settle()

    # A box in the plot zooms: fewer rows are shown.
    page.mouse.move(*at(0.4, 0.3))
    page.mouse.down()
    page.mouse.move(*at(0.5, 0.45), steps=3)
    page.mouse.up()
    shown = """() => [...Bokeh.documents[0]._all_models.values()]
      .some(m => m.type == "Title" && /^[12] sessions?, single frames/.test(m.text))"""
    page.wait_for_function(shown)

    # A click on the strip beneath chooses the syllable.
    strip_box = page.locator("canvas").nth(2).bounding_box()
    page.mouse.click(strip_box["x"] + 0.5 * strip_box["width"], strip_box["y"] + 30)
    page.wait_for_url(re.compile(r"syllable=\d"))
    one.settle()
    one.picture("ethogram_1280")
    assert one.problems == []
    assert one.foreign == []
    assert not any("Traceback" in line for line in server.log)
