"""The player in a headless browser: on a page of its own, and in the application."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.embed import components

import kpms_zarr
from helpers.browser import Server, Window, chromium
from kpms_zarr.store.ingest.annotate import annotate
from kpms_zarr.store.model import models
from kpms_zarr.viz.player.data import find_bout, open_session
from kpms_zarr.viz.player.player import player
from kpms_zarr.viz.shared.embedding import bokeh_script

pytestmark = pytest.mark.slow

FPS = 30.0
_NOW = """() => {
  const models = [...Bokeh.documents[0]._all_models.values()];
  const {now} = models.find((model) => model.kpms_player).kpms_player;
  return {...now, host: null, canvas: null, holder: null, video_view: null, line: null,
    swatch: null, ms: performance.now()};
}"""
_NUMBER = """(canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, canvas.height / 4, canvas.width, 1);
  return [...Array(8).keys()].reduce((sum, bit) =>
    sum + (data[4 * Math.floor((bit + 0.5) * canvas.width / 8) + 1] > 127 ? 2 ** bit : 0), 0);
}"""


class Screen(Window):
    """A player in the browser."""

    @property
    def now(self) -> Any:
        """Where it is: ``frame`` of the window, whether it is ``playing``, and the clock in ms."""
        return self.page.evaluate(_NOW)

    @property
    def words(self) -> str:
        """What it says about the frame."""
        return str(self.page.locator(".readout").inner_text())

    @property
    def cursors(self) -> list[float]:
        """Places of the cursors over time, in px of the page."""
        found = self.page.locator(".cursor").all()
        return [one.bounding_box()["x"] for one in found]

    def press(self, name: str) -> None:
        """Press the button of that name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def wait(self, milliseconds: int = 300) -> None:
        self.page.wait_for_timeout(milliseconds)

    def rate(self, milliseconds: int) -> float:
        """Play for so long on a clock that only the test moves; frames a second."""
        self.page.clock.install()
        self.page.clock.pause_at(self.page.evaluate("Date.now()") + 1000)
        self.press("Play")
        self.page.clock.run_for(300)
        before = self.now["frame"]
        self.page.clock.run_for(milliseconds)
        return float(self.now["frame"] - before) / milliseconds * 1000

    def until(self, words: str) -> None:
        """Wait until it says something about the frame."""
        pattern = re.compile(words)
        self.page.locator(".readout").filter(has_text=pattern).wait_for()


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture
def screen(browser):
    one = Screen(browser)
    yield one
    assert one.problems == []
    assert [url for url in one.foreign if not url.startswith("file:")] == []
    one.close()


def write_page(path: Path, layout: Any) -> None:
    """A page of its own that opens without a network."""
    script, div = components(layout)
    start = f"<!DOCTYPE html><meta charset='utf-8'><script>{bokeh_script(with_widgets=True)}"
    path.write_text(f"{start}</script>{script}{div}", "utf-8")


@pytest.fixture(scope="module")
def page(two_stages, tmp_path_factory):
    """A page of its own with ten seconds of a session, from second 5 on."""
    path = tmp_path_factory.mktemp("page") / "player.html"
    layout = player(two_stages, model="two", start=5, seconds=10, keypoint="point3")
    write_page(path, layout)
    return path.as_uri()


# ------------------------------------------------------------------ a page of its own


@pytest.mark.full
def test_page__plays_at_the_pace_of_the_video(screen, page):
    screen.open(page)
    assert screen.now["frame"] == 0
    rate = screen.rate(3000)
    places = screen.cursors
    assert rate == pytest.approx(FPS, rel=0.05)
    assert screen.now["shown"] > 15
    screen.page.clock.run_for(2000)
    later = screen.cursors
    assert len(places) == 4  # labels, speed, heading, the chosen trace
    assert min(np.subtract(later, places)) > 30
    screen.picture("player_playing")
    screen.press("Pause")
    stopped = screen.now["frame"]
    screen.page.clock.run_for(400)
    assert screen.now["frame"] == stopped
    assert np.ptp(screen.cursors) < 1
    assert f"frame {150 + stopped}" in screen.words


@pytest.mark.parametrize(("speed", "factor"), [("0.25×", 0.25), ("4×", 4)])
def test_page__plays_slower_and_faster(screen, page, speed, factor):
    screen.open(page)
    screen.page.get_by_label("Speed").select_option(label=speed)
    assert screen.rate(1500) == pytest.approx(factor * FPS, rel=0.1)


def test_page__stops_at_the_end_and_begins_again(screen, page):
    screen.open(page)
    screen.page.get_by_label("Speed").select_option(label="4×")
    screen.press("Play")
    screen.page.get_by_role("button", name="Play", exact=True).wait_for()
    assert (screen.now["frame"], screen.now["playing"]) == (299, False)
    screen.press("Play")
    screen.wait(400)
    assert 0 < screen.now["frame"] < 150


def test_page__is_moved_by_keys(screen, page):
    screen.open(page)
    screen.page.locator(".readout").click()  # the player has the focus now
    seen = []
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "ArrowLeft", "End", "Home"):
        screen.page.keyboard.press(key)
        screen.wait(80)
        seen.append(screen.now["frame"])
    assert seen == [1, 2, 12, 11, 299, 0]
    screen.page.keyboard.press(" ")
    screen.wait(500)
    assert screen.now["playing"]
    screen.page.keyboard.press(" ")
    frame = screen.now["frame"]
    assert frame > 0
    screen.wait(300)
    assert (screen.now["playing"], screen.now["frame"]) == (False, frame)


def test_page__is_reached_by_the_tabulator_key_alone(screen, page):
    screen.open(page)
    screen.page.keyboard.press("Tab")
    screen.page.keyboard.press("ArrowRight")
    screen.wait(80)
    assert screen.now["frame"] == 1
    screen.page.keyboard.press("Tab")  # the button that plays
    screen.page.keyboard.press(" ")
    screen.wait(300)
    assert screen.now["playing"]
    screen.page.keyboard.press(" ")
    screen.wait(80)
    assert not screen.now["playing"]


def test_page__is_moved_by_buttons_and_by_clicks(screen, page, two_stages):
    screen.open(page)
    screen.press("Forward 10")
    screen.press("Forward 1")
    screen.press("Back 1")
    assert screen.now["frame"] == 10
    opened = open_session(two_stages, model="two")
    screen.press("Next bout")
    assert screen.now["frame"] == find_bout(opened, -1, 160, forward=True) - 150
    screen.press("Previous bout")
    box = screen.page.locator(".cursor").first.bounding_box()
    screen.page.mouse.click(box["x"] + 300, box["y"] + 20)
    screen.wait()
    first = screen.now["frame"]
    moved = screen.page.locator(".cursor").first.bounding_box()
    assert abs(moved["x"] - box["x"] - 300) < 4
    screen.page.mouse.click(box["x"] + 600, box["y"] + 100)  # on a trace
    screen.wait()
    assert screen.now["frame"] > first


def test_page__jumps_to_bouts_of_one_syllable(screen, page, two_stages):
    opened = open_session(two_stages, model="two")
    screen.open(page)
    screen.page.get_by_label("Bouts of").select_option(label="5")
    wanted = find_bout(opened, 5, 150, forward=True)
    screen.press("Next bout")
    screen.until("syllable 5")
    assert screen.now["frame"] + 150 == wanted
    screen.press("Next bout")
    screen.until("no further one in this window")
    assert screen.now["frame"] + 150 == wanted


def test_page__shows_all_views_and_traces(screen, page):
    screen.open(page)
    for view in ("Centred", "Arena", "Egocentric"):
        screen.page.get_by_label("View").select_option(label=view)
        screen.wait(80)
    for trace in ("latent pose", "point1", "point2"):
        screen.page.get_by_label("Last trace").select_option(label=trace)
        screen.wait(80)
    for part in ("Tracked (orange)", "Denoised (blue)"):
        screen.press(part)
    screen.wait()


# ------------------------------------------------------------------ the video


@pytest.fixture(scope="module")
def filmed(tmp_path_factory, write_video):
    """A session of every second frame of a part of a video whose pictures show their number.

    The first coordinate of the first keypoint is the frame of the video.
    """
    folder = tmp_path_factory.mktemp("filmed")

    def picture(number: int) -> np.ndarray:
        bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8) * 255
        upper = np.kron(bits, np.ones((120, 80), np.uint8))
        both = np.concatenate([upper, np.full_like(upper, 90)])
        return np.repeat(both[..., None], 3, axis=2)

    video = write_video(folder / "film.mp4", (picture(number) for number in range(256)))
    position = np.tile(np.array([[0.0, 50.0], [20, 60], [40, 70]]), (256, 1, 1))
    position[:, :, 0] += np.arange(256)[:, None]
    store = folder / "study.zarr"
    kpms_zarr.ingest(store, arrays={"film": position}, fps=30, trim="6:246", downsample=2)
    table = folder / "table.csv"
    table.write_text(f"session,video\nfilm,{video}\n")
    annotate(store, table)
    return store


def shown_picture(screen: Screen) -> int:
    """The number in the picture that is on the screen."""
    return int(screen.page.locator("canvas.video").evaluate(_NUMBER))


def tracked_frame(screen: Screen) -> int:
    """The frame of the video in which the pose on the screen was tracked, as its places tell."""
    screen.page.get_by_label("View").select_option(label="Arena")
    return round(
        screen.page.evaluate(
            """() => [...Bokeh.documents[0]._all_models.values()].find((model) =>
              model.data?.confidence && model.data?.alpha).data.x[0]"""
        )
    )


def test_video__runs_with_the_pose(screen, filmed, tmp_path):
    path = tmp_path / "video.html"
    layout = player(filmed, start=1, seconds=6, with_video=True)
    write_page(path, layout)
    screen.open(path.as_uri())
    screen.page.locator(".readout").click()
    for key in ("Home", "ArrowRight", "Shift+ArrowRight", "End", "ArrowLeft"):
        screen.page.keyboard.press(key)
        screen.wait(200)
        wanted = 6 + 2 * (15 + screen.now["frame"])
        assert shown_picture(screen) == tracked_frame(screen) == wanted
        assert f"frame {wanted} of the video" in screen.words
    screen.page.keyboard.press("Home")
    screen.press("Play")
    for _ in range(5):
        screen.wait(300)
        numbers = screen.page.evaluate(
            f"""() => {{
              const models = [...Bokeh.documents[0]._all_models.values()];
              const dots = models.find((model) => model.data?.confidence && model.data?.alpha);
              const {{now}} = models.find((model) => model.kpms_player).kpms_player;
              return [({_NUMBER})(now.canvas), Math.round(dots.data.x[0]), 36 + 2 * now.frame];
            }}"""
        )
        assert numbers[0] == numbers[1] == numbers[2]
    screen.picture("player_video")


# ------------------------------------------------------------------ the application


@pytest.fixture(scope="module")
def served(two_stages):
    one = Server(two_stages)
    yield one
    one.stop()


def test_application__plays_without_the_server(screen, served):
    sent: list[Any] = []
    screen.page.on(
        "websocket", lambda socket: socket.on("framesent", lambda data: sent.append(data))
    )
    screen.open(served.url(page="player", start=5, stop=20))
    assert screen.now["frame"] == 0
    screen.press("Play")
    screen.wait(200)
    before, start = len(sent), screen.now["frame"]
    screen.wait(2000)
    assert len(sent) - before <= 1  # one a second or so keeps the connection alive
    assert screen.now["frame"] > start + 20
    screen.picture("player_page")


@pytest.mark.full
def test_application__goes_on_in_the_next_window(screen, served, two_stages):
    screen.open(served.url(page="player", start=5, stop=6))
    screen.until("frame 150 ")
    screen.press("Next window")
    screen.until("frame 180 ")
    assert "start=6" in screen.page.url
    screen.press("Previous window")
    screen.until("frame 0 ")
    opened = open_session(two_stages, model="two")
    screen.page.get_by_label("Bouts of").select_option(label="5")
    wanted = find_bout(opened, 5, 0, forward=True)
    screen.press("Next bout")
    screen.until(f"frame {wanted:,} ")
    screen.page.wait_for_url(re.compile(r"syllable=5"))


@pytest.mark.full
def test_application__puts_the_moment_into_the_address(screen, served):
    screen.open(served.url(page="player"))
    screen.until("frame 0 ")
    screen.press("Forward 10")
    screen.press("Link to this moment")
    screen.page.wait_for_url(re.compile(r"start=0\.333"))
    screen.until("frame 10 .*leads here")
    screen.page.reload()
    screen.settle()
    screen.until("frame 10 ")


def test_application__follows_the_other_choices(screen, served):
    screen.open(served.url(page="player"))
    screen.page.get_by_label("Session", exact=True).fill("001")
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_url(re.compile(r"session=session_001"))
    screen.page.get_by_label("From (mm:ss)").fill("0:20")
    screen.page.keyboard.press("Enter")
    screen.until("frame 600 ")
    screen.page.get_by_label("Last trace").select_option(label="point5")
    screen.page.wait_for_url(re.compile(r"keypoint=point5"))


def test_application__says_how_to_give_a_video(screen, served):
    screen.open(served.url(page="player"))
    screen.page.get_by_text("kpms-zarr annotate").wait_for()


_PLACE = """([x, y, words]) => {
  const has = (text) => text?.includes("; cells of") && text.includes(words);
  const view = [...Bokeh.index.all_views()].filter((one) => has(one.model.title?.text)).at(-1);
  if (!view) return null;
  view.el.scrollIntoView({block: "center", behavior: "instant"});
  const box = view.el.getBoundingClientRect();
  const {x_range, y_range, title} = view.model, {bbox, x_scale, y_scale} = view.frame;
  return {x: box.left + x_scale.compute(x), y: box.top + y_scale.compute(y), title: title.text,
    low: x_range.start, high: x_range.end, bottom: y_range.start, top: y_range.end};
}"""


def placed(screen: Screen, x: float, y: float, words: str = "") -> Any:
    """Where a place of the arena is on the screen, once the title of its picture has words."""
    found = screen.page.wait_for_function(_PLACE, arg=[x, y, words])
    return found.json_value()


def test_application__goes_where_the_animal_was(screen, served, two_stages):
    screen.open(served.url(page="player"))
    centroid = models.open_labels(two_stages, "two")["centroid"][0, :1500].values[:, :2]
    wanted = centroid[np.argmax(centroid[:, 0])].tolist()  # far from the beginning
    place = placed(screen, *wanted)
    assert place["title"].startswith("50 s")
    assert place["bottom"] > place["top"]  # y as in the video
    screen.page.mouse.click(place["x"], place["y"])
    screen.until("frame [1-9]")
    frame = int(re.search(r"frame ([\d,]+)", screen.words)[1].replace(",", ""))
    side = float(re.search(r"cells of ([\d.]+)", place["title"])[1])
    assert np.hypot(*(centroid[frame] - wanted)) < 3 * side
    assert np.hypot(*(centroid[0] - wanted)) > 3 * side  # else it would show nothing
    screen.picture("player_arena")
    # Where it was during one syllable, in the same arena.
    syllable = int(open_session(two_stages, model="two").syllables[0])
    screen.page.get_by_label("Syllable", exact=True).fill(str(syllable))
    screen.page.keyboard.press("Enter")
    now = placed(screen, *wanted, f"s of syllable {syllable}")
    assert (now["low"], now["high"]) == pytest.approx((place["low"], place["high"]))


def test_application__gathers_anew_where_one_zooms_in(screen, served):
    screen.open(served.url(page="player"))
    before = placed(screen, 0, 0)
    middle = [(before["low"] + before["high"]) / 2, (before["bottom"] + before["top"]) / 2]
    at = placed(screen, *middle)
    mouse = screen.page.mouse
    mouse.move(at["x"] - 60, at["y"] - 60)
    mouse.down()
    mouse.move(at["x"] + 60, at["y"] + 60, steps=4)
    mouse.up()
    now = placed(screen, 0, 0, "s of it in view")
    side = [float(re.search(r"cells of ([\d.]+)", one["title"])[1]) for one in (before, now)]
    assert side[1] < side[0] / 2
    assert now["high"] - now["low"] < (before["high"] - before["low"]) / 2


@pytest.mark.full
def test_application__shows_the_video_of_each_window(screen, filmed):
    server = Server(filmed)
    try:
        screen.open(server.url(page="player", start=1, stop=3))
        screen.page.get_by_text("No model yet").wait_for()
        for press, first in ((None, 15), ("Next window", 45), ("Previous window", 0)):
            if press:
                screen.press(press)
            screen.until(f"frame {first} ")
            picture = 6 + 2 * first
            screen.page.locator(f'canvas.video[data-frame="{picture}"]').wait_for()
            assert shown_picture(screen) == picture
        screen.picture("player_page_video")
    finally:
        server.stop()
    assert not any("Traceback" in line for line in server.log), server.log
