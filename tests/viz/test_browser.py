"""The report in a headless browser: all is drawn, nothing is loaded, controls work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kpms_zarr
from helpers.browser import Window, chromium
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.report.report import report

pytestmark = pytest.mark.slow

# Canvases of each section that hold more than a background.
DRAWN = """() => {
  function* canvases(node) {
    for (const child of node.querySelectorAll("*")) {
      if (child.tagName === "CANVAS") yield child;
      if (child.shadowRoot) yield* canvases(child.shadowRoot);
    }
  }
  function n_colors(canvas) {
    if (canvas.width < 100 || canvas.height < 50) return 0; // samples of a legend
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(data.buffer)).size;
  }
  const found = {};
  for (const section of document.querySelectorAll("section")) {
    const n = [...canvases(section)].map(n_colors).filter(n => n > 2).length;
    if (n) found[section.getAttribute("aria-labelledby")] = n;
  }
  return found;
}"""
FRAME = """() => [...Bokeh.documents[0]._all_models.values()]
  .find((model) => model.kpms_player).kpms_player.now.frame"""
POINTS = """() => [...Bokeh.documents[0]._all_models.values()]
  .filter((model) => model.data?.amount).map((model) => [...model.data.x])"""
STATISTICS = {"ethogram": 1, "bouts": 1, "frequencies": 1, "durations": 1, "transitions": 1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    one = Window(browser)
    yield one
    assert one.problems == []
    assert [url for url in one.foreign if not url.startswith("file:")] == []
    one.close()


def opened(window: Window, store: Path, model: str, folder: Path) -> Any:
    page = folder / "report.html"
    report(store, model=model, out=page)
    return window.open(page.as_uri())


def test_report__draws_with_nothing_loaded(window: Window, store: Path, tmp_path: Path) -> None:
    page = opened(window, store, "m", tmp_path)
    drawn = page.evaluate(DRAWN)
    assert drawn.pop("player") > 3
    assert drawn == {**STATISTICS, "graph": 1, "traces": 4, "poses": 4}


def test_report__works_by_itself(window: Window, tmp_path: Path, helpers: SimpleNamespace) -> None:
    """In 3-D, with all that a store can hold: every section is there, and what moves moves."""
    study = SyntheticStudy(n_sessions=3, n_frames=900, n_space=3, n_latent=3, seed=2)
    store = tmp_path / "deep.zarr"
    write_store(store, study)
    kpms_zarr.quality(store)
    kpms_zarr.pca(store)
    names = study.settings.keypoints
    helpers.publish_two_stages(store, study=study, keypoints=names)
    page = opened(window, store, "two", tmp_path)
    drawn = page.evaluate(DRAWN)
    assert drawn.pop("player") > 3
    assert drawn.pop("denoised") >= 2
    assert drawn.pop("components") >= 3
    assert drawn == {
        **STATISTICS, "graph": 1, "traces": 8, "poses": 3, "quality": 3, "confidence": 8,
        "scree": 1, "scores": 1, "similarity": 1,
    }  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert page.locator(".cards svg[role=img]").count() > 12
    page.locator(".cards summary").first.click()
    assert page.locator("figure.example svg").first.is_visible()
    page.wait_for_timeout(1200)
    assert window.unnamed() == []

    before = page.evaluate(POINTS)
    handle = page.get_by_role("slider", name="Azimuth (degrees)").last
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(old) => String((" + POINTS + ")()) !== String(old)", arg=before)

    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(f"({FRAME})() > 10")
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("heading", name="Watch").scroll_into_view_if_needed()
    window.picture("report_player")
