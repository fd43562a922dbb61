"""The page Calibration: frames of videos, clicks that are kept, and the line through them."""

from __future__ import annotations

import re
import shutil
import sys
from typing import Any

import numpy as np
import panel as pn
import pytest

import kpms_zarr
from helpers.browser import SIZES, Server, Window, chromium
from kpms_zarr.store.core import access
from kpms_zarr.store.study.calibration import stored_calibration
from kpms_zarr.store.study.clicks import Click, keep_click, stored_clicks
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.pages import calibration
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.style import load
from kpms_zarr.viz.tracking.annotating import VIEWS, piece_of
from kpms_zarr.viz.video.video import VideoReader

N_FRAMES, WIDTH, HEIGHT = 240, 320, 240
NAMES = ["nose", "left", "right", "tail"]
BODY = np.array([[20.0, 0], [5, 12], [5, -12], [-20, 0]])
CONFIDENCES = np.array([0.9, 0.3, 0.06, 0.01])


def true_path() -> np.ndarray:
    """Whole px, so that a square around each is where it is."""
    angle = np.arange(N_FRAMES) / 40
    middle = 120 + 60 * np.stack([np.cos(angle) + 0.6, np.sin(angle)], -1)
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1),
                     np.stack([np.sin(angle), np.cos(angle)], -1)], 1)  # fmt: skip
    return np.rint(middle[:, None] + np.einsum("fab,kb->fka", turn, BODY))


TRUE = true_path()


def picture(number: int) -> np.ndarray:
    drawn = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for x, y in TRUE[number].astype(int).tolist():
        drawn[y - 2 : y + 3, x - 2 : x + 3] = 250
    return drawn


@pytest.fixture(scope="module")
def filmed(tmp_path_factory, write_video):
    """A session of frames 20 to 220 of a video, tracked with errors that confidences tell."""
    folder = tmp_path_factory.mktemp("filmed")
    video = write_video(folder / "film.mp4", (picture(number) for number in range(N_FRAMES)))
    rng = np.random.default_rng(0)
    confidence = rng.choice(CONFIDENCES, TRUE.shape[:2])
    scale = 0.5 * confidence**-0.5
    position = TRUE + rng.normal(size=TRUE.shape) * scale[..., None]
    store = folder / "study.zarr"
    kpms_zarr.ingest(
        store, arrays={"film": position}, confidences={"film": confidence}, fps=30, trim="20:220",
        keypoint_names=NAMES, anterior=["nose"], posterior=["tail"], skeleton="nose-left,nose-tail",
    )  # fmt: skip
    table = folder / "table.csv"
    table.write_text(f"session,video\nfilm,{video}\n")
    kpms_zarr.annotate(store, table)
    return store


@pytest.fixture
def store(filmed, tmp_path):
    return shutil.copytree(filmed, tmp_path / "study.zarr")


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    for log in (parts._LOG, calibration._LOG):
        monkeypatch.setattr(log, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    return caught


def true_place(label: str) -> np.ndarray:
    """Where the keypoint that a label asks for is, in px of the video."""
    frame, keypoint = re.match(r".*\(frame (\d+)\) of film: mark (\w+)", label).groups()
    return TRUE[20 + int(frame), NAMES.index(keypoint)]


def click_truth(desk: Any) -> None:
    x, y = desk._piece.to_piece(true_place(desk._picture.label))
    desk._picture.clicks = [desk._picture.clicks[0] + 1, float(x), float(y)]


def words(view: Any) -> str:
    return " ".join(str(one.object) for one in view.select(pn.pane.HTML))


# ------------------------------------------------------------------ pieces of frames


@pytest.mark.parametrize("view", VIEWS)
def test_piece__holds_the_keypoint_where_it_says(filmed, view, monkeypatch):
    path = str(access.dataset(filmed, "keypoints")["video"].values[0])
    with VideoReader(path) as reader:
        for frame in range(0, N_FRAMES, 23):
            for keypoint in range(4):
                piece = piece_of(reader, frame, TRUE[frame], keypoint, VIEWS[view])
                x, y = piece.to_piece(TRUE[frame, keypoint])
                np.testing.assert_allclose(piece.to_video(x, y), TRUE[frame, keypoint])
                assert piece.picture[int(y), int(x)].min() > 150
                assert piece.picture.shape[0] % 2 == piece.picture.shape[1] % 2 == 0
        assert piece.picture.shape[1] == WIDTH or view != "the whole picture"
        # A keypoint that is lost is on it all the same, and a large piece is scaled down.
        lost = TRUE[0].copy()
        lost[1] = [4.0, 236.0]
        piece = piece_of(reader, 0, lost, 1, VIEWS[view])
        at = piece.to_piece(lost[1])
        assert (at >= 0).all()
        assert (at <= piece.picture.shape[1::-1]).all()
        monkeypatch.setattr("kpms_zarr.viz.tracking.annotating._WIDEST", 60)
        piece = piece_of(reader, 30, TRUE[30], 0, VIEWS[view])
        assert max(piece.picture.shape) <= 60
        x, y = piece.to_piece(TRUE[30, 0])
        assert piece.picture[int(y), int(x)].max() > 90


# ------------------------------------------------------------------ the page without a browser


def test_page__keeps_clicks_and_calibrates_from_them(store, failures):
    load()
    state = State(Study(store), page="calibration")
    desk = calibration._Annotating(state)
    assert desk._calibrate.disabled
    for number in range(30):
        if number == 5:
            desk._answer(())  # not visible
            desk._next()  # skipped
        click_truth(desk)
    kept = stored_clicks(store)
    assert len(kept) == 31
    assert sum(not click.position for click in kept) == 1
    for click in kept:
        if click.position:
            expected = TRUE[20 + click.frame, NAMES.index(click.keypoint)]
            np.testing.assert_allclose(click.position, expected)
    levels = {float(point.confidence) for point in desk._last}
    assert len(levels) == len(CONFIDENCES)
    desk._back()
    assert len(stored_clicks(store)) == 30
    click_truth(desk)
    desk._ask_to_calibrate(None)
    found = stored_calibration(access.open_group(store))
    assert found.source == "annotations"
    assert found.slope < -0.2
    assert "Calibrated from 30 clicks" in words(desk._message)
    assert "hand annotations" in words(calibration.calibration_picture(state))
    again = kpms_zarr.calibrate(store, annotations=True)
    assert (again.slope, again.n_compared) == (found.slope, 30)
    # Of a later window the frames are others.
    later = calibration._Annotating(State(Study(store)))
    assert later._point.place not in {click.place for click in kept}
    assert failures == []


def test_page__goes_on_to_the_end_of_the_frames(store, failures, monkeypatch):
    monkeypatch.setattr(calibration, "_AT_ONCE", 2)
    desk = calibration._Annotating(State(Study(store)))
    for _ in range(7):
        click_truth(desk)
    assert len(stored_clicks(store)) == 7
    monkeypatch.setattr(calibration, "choose_points", lambda *a, **k: [])
    for _ in range(2):
        if desk._desk.visible:
            desk._next()
    assert "no further frames" in words(desk._message)
    assert failures == []


def test_page__says_why_nothing_can_be_clicked(store, tmp_path, failures, monkeypatch):
    def said(place):
        return words(calibration.page(State(Study(place), page="calibration")))

    with monkeypatch.context() as patch:
        patch.setattr(calibration, "is_read_only", lambda store: True)
        assert "can only be read" in said(store)
    plain = tmp_path / "plain.zarr"
    rng = np.random.default_rng(0)
    given = {"confidences": {"a": np.full((40, 4), 0.9)}, "fps": 30}
    kpms_zarr.ingest(plain, arrays={"a": rng.normal(size=(40, 4, 2))}, **given)
    assert "No videos are known" in said(plain)
    assert "annotate" in said(plain)
    deep = tmp_path / "deep.zarr"
    kpms_zarr.ingest(deep, arrays={"a": rng.normal(size=(40, 4, 3))}, **given)
    assert "three" in said(deep)
    far = tmp_path / "far.zarr"
    video = str(access.dataset(store, "keypoints")["video"].values[0])
    arrays = {"a": TRUE[:40] * 0.01 - 7}
    kpms_zarr.ingest(far, arrays=arrays, **given)
    table = tmp_path / "t.csv"
    table.write_text(f"session,video\na,{video}\n")
    kpms_zarr.annotate(far, table)
    assert "positions in px of the video (320 x 240)" in said(far)
    table.write_text("session,video\na,elsewhere.mp4\n")
    kpms_zarr.annotate(far, table)
    assert "elsewhere.mp4 is not there" in said(far)
    bare = tmp_path / "bare.zarr"
    kpms_zarr.ingest(bare, arrays={"a": TRUE[:40]}, fps=30)
    table.write_text(f"session,video\na,{video}\n")
    kpms_zarr.annotate(bare, table)
    assert "has no confidences" in said(bare)
    assert failures == []


def test_page__says_that_a_click_was_not_kept(store, failures, monkeypatch):
    desk = calibration._Annotating(State(Study(store)))

    def denied(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(calibration, "keep_click", denied)
    click_truth(desk)
    assert "the disk is full" in words(desk._message)
    assert desk._clicks == {}
    assert len(failures) == 1


# ------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


def asked_of(page: Any, box: Any) -> str:
    """What the picture asks for, once it is there."""
    page.wait_for_function(
        "(box) => /: mark /.test(box.getAttribute('aria-label') ?? '')", arg=box.element_handle()
    )
    return str(box.get_attribute("aria-label"))


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_window__takes_clicks_by_mouse_and_keys_and_calibrates(store, browser, size):
    rng = np.random.default_rng(1)
    for frame in range(0, 190, 10):  # 19 of the 20 that are needed
        x, y = TRUE[20 + frame, 1] + rng.normal(size=2) * 0.1
        keep_click(store, Click("film", frame, "left", (x, y)))
    server = Server(store)
    window = Window(browser, size=size)
    try:
        page = window.open(server.url(page="calibration"))
        box = page.get_by_role("application")
        assert page.get_by_role("button", name="Calibrate from the clicks").is_disabled()
        page.get_by_label("Shown", exact=True).select_option("the whole picture")
        page.wait_for_function(
            "(box) => box.querySelector('svg').getAttribute('viewBox') === '0 0 320 240'",
            arg=box.element_handle(),
        )
        window.settle()
        labels = []
        for by_key in (False, True):
            labels.append(asked_of(page, box))
            x, y = true_place(labels[-1]) + 0.5
            if by_key:
                box.focus()
                at = press_towards(page, box, x, y)
                assert np.abs(at - (x, y)).max() < 1
                page.keyboard.press("Enter")
            else:
                page.mouse.click(*on_screen(box, x, y))
            page.wait_for_function(
                "([box, label]) => box.getAttribute('aria-label') !== label",
                arg=[box.element_handle(), labels[-1]],
            )
            window.settle(300)
        assert len(set(labels)) == 2
        page.get_by_text("21 clicks in the store").wait_for()
        kept = [one for one in stored_clicks(store)[-2:] if one.position]
        for label, click in zip(labels, kept, strict=True):
            assert np.abs(np.array(click.position) - true_place(label)).max() < 1
        page.get_by_role("button", name="Back").click()
        page.get_by_text("20 clicks in the store").wait_for()
        page.wait_for_function(
            "([box, label]) => box.getAttribute('aria-label') === label",
            arg=[box.element_handle(), labels[1]],
        )
        window.settle(300)
        page.get_by_role("button", name="Not visible").click()
        page.get_by_text("and 1 not visible").wait_for()
        assert window.unnamed() == []
        page.get_by_role("button", name="Calibrate from the clicks").click()
        page.get_by_text("Calibrated from").wait_for()
        page.get_by_text("from hand annotations").wait_for()
        window.settle(1000)
        window.picture(f"calibration_{size[0]}")
        assert stored_calibration(access.open_group(store)).source == "annotations"
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        assert window.problems == []
        assert window.foreign == []
        assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]
    finally:
        window.close()
        server.stop()


def on_screen(box: Any, x: float, y: float) -> list[float]:
    """Place in the window of a place in the picture."""
    return box.locator("svg").evaluate(
        """(svg, [x, y]) => {
          const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
          return [at.x, at.y];
        }""",
        [float(x), float(y)],
    )


def press_towards(page: Any, box: Any, x: float, y: float) -> np.ndarray:
    """Move the cross from the middle with the arrow keys; where it came to."""
    middle = np.array(on_screen(box, WIDTH / 2, HEIGHT / 2))
    steps = np.rint(np.array(on_screen(box, x, y)) - middle).astype(int).tolist()
    for step, keys in zip(steps, ("ArrowLeft ArrowRight", "ArrowUp ArrowDown"), strict=True):
        key = keys.split()[step > 0]
        for _ in range(abs(step) // 10):
            page.keyboard.press(f"Shift+{key}")
        for _ in range(abs(step) % 10):
            page.keyboard.press(key)
    scale = np.array(on_screen(box, 1, 1)) - on_screen(box, 0, 0)
    return np.array([WIDTH / 2, HEIGHT / 2]) + np.array(steps) / scale
