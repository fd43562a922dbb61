"""The pages Fit and Transitions in a browser, while a real fit runs beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.browser import MAIN, Server, Window, chromium
from kpms_zarr.store.core import access
from kpms_zarr.store.model import models
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.times import parse_clock
from kpms_zarr.viz.syllables.transition_counts import count_transitions

pytestmark = pytest.mark.slow

STUDY = SyntheticStudy(n_sessions=3, n_frames=1500, n_keypoints=5, n_latent=2, seed=1)
N_SWEEPS = 300
N_TRACES = 6
"""Figures of the AR stage before the heat map of its labels."""
FIT = [
    *("--stage", "ar", "--sweeps", str(N_SWEEPS), "--save-every", "5", "--n-states", "15"),
    *("--target-duration", "300ms"),
]

# Lengths of all columns of a name in the plots that are on the page.
COLUMNS = """(name) => {
  const lengths = [];
  for (const document of Bokeh.documents)
    for (const { data } of document._all_models.values()) {
      const column = data instanceof Map ? data.get(name) : data?.[name];
      if (column) lengths.push(column.length);
    }
  return lengths;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


def command(*words: object) -> subprocess.Popen[str]:
    """Starts ``kpms-zarr``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which nothing is fitted yet."""
    store = tmp_path_factory.mktemp("live") / "study.zarr"
    write_store(store, STUDY)
    finish(command("pca", store))
    return store


def shown_times(page: Any) -> list[float | None]:
    """The chosen span, as it stands in its fields."""
    fields = ("From (mm:ss)", "To (mm:ss, or end)")
    return [parse_clock(page.get_by_label(name).input_value()) for name in fields]


def n_sweeps(page: Any) -> int:
    """Sweeps in the trace of kappa that is drawn; 0 when none is."""
    return max(page.evaluate(COLUMNS, "trace_kappa"), default=0)


def wait_for_sweeps(page: Any, n: int) -> None:
    page.wait_for_function(f"(n) => Math.max(0, ...({COLUMNS})('trace_kappa')) >= n", arg=n)


def drag(page: Any, figure: Any, begin: float, end: float) -> None:
    """Drag across a figure, between two places from 0 to 1."""
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    y = box["y"] + 0.4 * box["height"]
    page.mouse.move(box["x"] + begin * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=8)
    page.mouse.up()


def drag_to_the_player(page: Any, figure: Any) -> None:
    """Choose frames; once more where a figure was drawn anew under the mouse."""
    from playwright.sync_api import TimeoutError

    for last in (False, False, True):
        drag(page, figure, 0.4, 0.6)
        try:
            page.wait_for_function("location.search.includes('page=player')")
        except TimeoutError:
            if last:
                raise
        else:
            return


@pytest.mark.full
def test_fit__is_followed_while_it_runs_and_after_it_was_killed(prepared: Path, browser: Any):
    server = Server(prepared)
    window = Window(browser)
    process = None
    try:
        page = window.open(server.url(page="fit"))
        assert page.get_by_text("No model yet").count() == 1
        process = command("fit", prepared, "--model", "live", *FIT)
        page.get_by_text("live: running").wait_for()
        wait_for_sweeps(page, 5)
        first = n_sweeps(page)
        window.picture("fit_running")
        wait_for_sweeps(page, first + 1)
        assert process.poll() is None  # it still runs
        second = n_sweeps(page)
        assert first < second <= N_SWEEPS
        assert page.get_by_text(f"of {N_SWEEPS} sweeps are committed").count() == 1
        process.kill()
        process.communicate()
        page.get_by_text("live: interrupted").wait_for()
        resume = page.locator("pre").filter(has_text="--resume").first.inner_text()
        assert resume == f"kpms-zarr fit {prepared} --model live --resume"
        window.picture("fit_interrupted")
        finish(command(*resume.split()[1:]))
        page.get_by_text("live: finished").wait_for()
        wait_for_sweeps(page, N_SWEEPS)
        window.settle()
        assert n_sweeps(page) == N_SWEEPS
        # Frames of the heat map lead to the player.
        page.get_by_text("Label stability").scroll_into_view_if_needed()
        window.picture("fit_finished")
        figure = page.locator(".bk-Figure").filter(has=page.locator("canvas")).nth(N_TRACES)
        drag_to_the_player(page, figure)
        start, stop = shown_times(page)
        assert 0 < start < stop <= 1500 / STUDY.fps
        assert window.problems == []
        assert window.foreign == []
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.communicate()
        window.close()
        server.stop()
    assert not any("Traceback" in line for line in server.log), "".join(server.log)


@pytest.fixture
def with_windows(fresh: Path, helpers: Any) -> Path:
    """A store whose model ``m`` keeps labels from sweep to sweep."""
    helpers.publish(fresh, helpers.truth())
    before = models.open_parameters(fresh, "m").load()
    values = {name: before[name].values for name in before.variables}
    values |= {
        "window_syllable": np.random.default_rng(0).integers(0, 5, (10, 1, 300)).astype(np.int16),
        "window_sweep": np.arange(141, 151),
        "window_session": ["session_001"],
        "window_start": [120],
        "window_length": [300],
    }
    models.write_parameters(access.open_group(fresh, "r+"), "m", "v1", values, {})
    return fresh


@pytest.mark.full
def test_frames__are_chosen_by_keyboard_as_well(with_windows: Path, helpers: Any, browser: Any):
    server = Server(with_windows)
    window = Window(browser)
    try:
        page = window.open(server.url(page="fit"))
        page.get_by_role("button", name="Show them in the player").focus()
        page.keyboard.press("Enter")
        page.wait_for_function("location.search.includes('page=player')")
        assert page.get_by_label("Session", exact=True).input_value() == "session_001"
        fps = helpers.study.fps
        assert shown_times(page) == pytest.approx([120 / fps, 420 / fps])
        assert window.problems == []
    finally:
        window.close()
        server.stop()


@pytest.mark.full
def test_transitions__of_chosen_sessions_and_a_tap_chooses_a_syllable(
    store: Path, served: Server, browser: Any
):
    window = Window(browser)
    try:
        page = window.open(served.url(page="transitions"))
        page.get_by_text("3 sessions,").wait_for()
        field = page.get_by_label("Sessions", exact=True)
        field.fill("session_00[01]")
        field.press("Enter")
        page.get_by_text("2 sessions,").wait_for()
        window.settle()
        assert page.get_by_text("No syllable is chosen").count() == 1
        figures = page.locator(".bk-Figure")
        box = figures.nth(0).bounding_box()
        page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])
        page.get_by_text("comes mostly after").wait_for()
        assert int(page.get_by_label("Syllable", exact=True).input_value()) >= 0
        # The uppermost node of the graph is the most frequent syllable.
        box = figures.nth(1).bounding_box()
        page.mouse.click(box["x"] + 240, box["y"] + 50)
        first = count_transitions(OpenModel(store, "m"), sessions=["session_00[01]"]).used[0]
        page.get_by_text(f"Syllable {first} comes mostly after").wait_for()
        assert page.get_by_label("Syllable", exact=True).input_value() == str(first)
        window.picture("transitions_chosen")
        field.fill("nobody")
        field.press("Enter")
        page.get_by_text("matches none of them").wait_for()
        assert window.problems == []
    finally:
        window.close()
    assert not any("Traceback" in line for line in served.log), "".join(served.log)
