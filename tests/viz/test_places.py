"""Where an animal was: what is read, counted and drawn, against NumPy."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.explore import arena
from kpms_zarr.viz.explore.arena import Arena
from kpms_zarr.viz.explore.pages import player
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.player import places as views
from kpms_zarr.viz.player.data import open_session, tracked_middle
from kpms_zarr.viz.player.places import (
    Occupancy,
    Places,
    gather,
    next_visit,
    occupancy,
    read_places,
)
from kpms_zarr.viz.shared.reading import MissingData

pytest.importorskip("datashader")

FPS = 30.0
SESSION = "session_000"


def made(x: np.ndarray, y: np.ndarray, *, fps: float = FPS, n_read: int = 0) -> Places:
    """Places of a session that is not in any store."""
    n_frames = len(x)
    position = pd.DataFrame({"x": np.float32(x), "y": np.float32(y)})
    return Places(
        Session("one", 0, n_frames, fps),
        0,
        n_frames,
        np.arange(n_frames, dtype=np.int32),
        position,
        position.min().to_numpy(np.float64),
        position.max().to_numpy(np.float64),
        n_read or n_frames,
        -1,
        True,
    )


@pytest.fixture
def wandering() -> Places:
    x, y = np.random.default_rng(0).normal(size=(2, 20_000)) * [[30], [10]]
    return made(x, y)


# ------------------------------------------------------------------ what is read


def test_places__are_centroids_of_the_model(two_stages: Path) -> None:
    found = read_places(open_session(two_stages, model="two", session=SESSION), 100, 900)
    centroid = models.open_labels(two_stages, "two")["centroid"][0, 100:900].values
    np.testing.assert_array_equal(found.position.to_numpy(), centroid[:, :2])
    np.testing.assert_array_equal(found.frame, np.arange(100, 900))
    assert found.seconds == pytest.approx(800 / FPS)


def test_places__without_a_model_are_medians_of_what_was_tracked(two_stages: Path) -> None:
    found = read_places(open_session(two_stages, session=SESSION), 0, 1500)
    position = access.dataset(two_stages, "keypoints")["position"][0].values
    position[np.isnan(position).any(-1)] = np.nan
    there = np.isfinite(position).any((1, 2))
    expected = np.nanmedian(position[there], axis=1)[:, :2]
    np.testing.assert_allclose(found.position.to_numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(found.frame, np.flatnonzero(there))


@pytest.mark.parametrize("n_keypoints", [1, 2, 5, 6])
def test_middle__is_the_median_of_those_that_are_there(n_keypoints: int) -> None:
    rng = np.random.default_rng(n_keypoints)
    position = rng.normal(size=(400, n_keypoints, 3)).astype(np.float32)
    position[rng.random(position.shape) < 0.2] = np.nan
    found = tracked_middle(position)
    for frame in range(400):  # a plain oracle
        rows = position[frame][np.isfinite(position[frame]).all(-1)]
        expected = np.median(rows, axis=0) if len(rows) else np.full(3, np.nan)
        np.testing.assert_allclose(found[frame], expected, rtol=1e-6)


def test_places__of_a_syllable_are_its_frames_in_the_same_arena(two_stages: Path) -> None:
    opened = open_session(two_stages, model="two", session=SESSION)
    every = read_places(opened, 0, 1500)
    syllable = int(opened.syllables[1])
    found = read_places(opened, 0, 1500, syllable=syllable)
    labels = models.open_labels(two_stages, "two")["syllable"][0, :1500].values
    np.testing.assert_array_equal(found.frame, np.flatnonzero(labels == syllable))
    np.testing.assert_array_equal(found.low, every.low)
    np.testing.assert_array_equal(found.high, every.high)


def test_places__of_a_long_session_are_a_sample_that_stands_for_all(monkeypatch, two_stages):
    n_frames = 40 * FRAMES_PER_CHUNK + 100
    monkeypatch.setattr(views, "MAX_BLOCKS", 4)
    rng = np.random.default_rng(1)
    centroid = rng.normal(size=(n_frames, 2)).astype(np.float32)
    opened = replace(
        open_session(two_stages, model="two", session=SESSION),
        session=Session("long", 0, n_frames, FPS),
        labels=xr.Dataset({"centroid": (("frame", "space"), centroid)}),
    )
    found = read_places(opened, 0, n_frames)
    assert found.n_read == 3 * FRAMES_PER_CHUNK + 100
    assert (found.frame[0], found.frame[-1]) == (0, n_frames - 1)
    np.testing.assert_array_equal(found.position.to_numpy(), centroid[found.frame])
    assert found.seconds == pytest.approx(n_frames / FPS)
    title = hv.render(Occupancy(found, is_y_down=True).plot[()]).title.text
    assert f"{found.n_read:,} of {n_frames:,} frames read" in title


@pytest.mark.parametrize(("start", "stop"), [(10, 10), (-1, 5), (0, 1501)])
def test_places__of_no_time_are_refused(two_stages, start, stop):
    with pytest.raises(InputError, match=SESSION):
        read_places(open_session(two_stages, session=SESSION), start, stop)


def test_places__that_are_none_are_said(two_stages: Path) -> None:
    with pytest.raises(MissingData, match=r"syllable 99 .*none from 0\.00 to 50\.00 s"):
        occupancy(two_stages, model="two", syllable=99)
    with pytest.raises(InputError, match="syllable 3 without one"):
        occupancy(two_stages, syllable=3)


@pytest.mark.parametrize(("start", "stop"), [(0, np.nan), (np.nan, 5), (60, None), (9, 9), (0, 0)])
def test_occupancy__of_no_time_is_refused(two_stages, start, stop):
    with pytest.raises(InputError, match=r"some of the 50\.00 s"):
        occupancy(two_stages, start=start, stop=stop)


@pytest.mark.parametrize("n_space", [2, 3])
def test_places__of_a_session_without_positions_are_said(two_stages: Path, n_space: int) -> None:
    opened = open_session(two_stages, session=SESSION)
    nothing = xr.full_like(opened.data["position"], np.nan)
    with pytest.raises(MissingData, match="frames with a position"):
        read_places(replace(opened, data=xr.Dataset({"position": nothing})), 0, 1500)


# ------------------------------------------------------------------ what is counted


def test_cells__hold_the_seconds_of_their_frames(wandering: Places) -> None:
    cells = gather(wandering, (-150.0, 150.0), (-60.0, 60.0))
    rows, columns = cells.seconds.shape
    assert cells.side == pytest.approx((cells.top - cells.bottom) / rows)
    expected = np.histogram2d(
        wandering.position["y"],
        wandering.position["x"],
        bins=(rows, columns),
        range=((cells.bottom, cells.top), (cells.left, cells.right)),
    )[0]
    np.testing.assert_allclose(np.nan_to_num(cells.seconds), expected / FPS)
    assert np.isnan(cells.seconds[expected == 0]).all()
    assert np.nansum(cells.seconds) == pytest.approx(20_000 / FPS)


def test_cells__become_smaller_in_a_part_and_hold_only_its_frames(wandering: Places) -> None:
    whole = gather(wandering, (-120.0, 120.0), (-40.0, 40.0))
    part = gather(wandering, (0.0, 20.0), (0.0, 10.0))
    assert part.side < whole.side
    x, y = wandering.position["x"], wandering.position["y"]
    n_inside = ((x >= 0) & (x <= part.right) & (y >= 0) & (y <= part.top)).sum()
    assert np.nansum(part.seconds) == pytest.approx(n_inside / FPS)


def test_cells__are_more_where_there_are_more_frames() -> None:
    def n_columns(n_frames: int) -> int:
        x, y = np.random.default_rng(2).uniform(0, 1, (2, n_frames))
        return gather(made(x, y), (0.0, 1.0), (0.0, 1.0)).seconds.shape[1]

    found = [n_columns(n) for n in (100, 40_000, 1_000_000)]
    assert found == [32, 63, 240]


@pytest.mark.parametrize("share", [1, 4])
def test_cells__count_what_was_not_read(share: int) -> None:
    x, y = np.random.default_rng(3).uniform(0, 1, (2, 1000))
    cells = gather(made(x, y, n_read=1000 // share), (0.0, 1.0), (0.0, 1.0))
    assert np.nansum(cells.seconds) == pytest.approx(share * 1000 / FPS)


# ------------------------------------------------------------------ visits


def test_visit__is_the_next_one_and_after_the_last_the_first() -> None:
    x = np.zeros(1000)
    for start, stop in ((100, 150), (160, 170), (400, 410), (800, 1000)):  # 10 frames are no gap
        x[start:stop] = 50
    places = made(x, np.zeros(1000))
    found, after = [], -1
    for _ in range(5):
        after = next_visit(places, 49.0, 0.5, radius=2.0, after=after)
        found.append(after)
    assert found == [100, 400, 800, 100, 400]


def test_visit__of_a_place_where_it_never_was_is_none(wandering: Places) -> None:
    assert next_visit(wandering, 1e4, 0.0, radius=5.0) is None


@pytest.mark.parametrize("fps", [0.2, 1.0, 240.0])
def test_visit__that_never_ends_is_one(fps: float) -> None:
    places = made(np.zeros(50), np.zeros(50), fps=fps)
    assert [next_visit(places, 0, 0, radius=1.0, after=after) for after in (-1, 0, 20)] == [0, 0, 0]


def test_visit__that_lasts_from_the_beginning_is_found() -> None:
    assert next_visit(made(np.zeros(50), np.zeros(50)), 0.0, 0.0, radius=1.0) == 0


# ------------------------------------------------------------------ what is drawn


def test_picture__is_zoomed_anew(wandering: Places) -> None:
    drawn = Occupancy(wandering, is_y_down=False)
    plot = hv.renderer("bokeh").get_plot(drawn.plot)
    whole = drawn.cells
    figure, image = plot.state, plot.handles["source"]
    np.testing.assert_allclose(image.data["image"][0], whole.seconds)
    assert "in view" not in figure.title.text
    (stream,) = drawn.plot.streams
    stream.event(x_range=(0.0, 20.0), y_range=(0.0, 10.0))
    assert drawn.cells.side < whole.side
    np.testing.assert_allclose(image.data["image"][0], drawn.cells.seconds)
    mapper = plot.handles["color_mapper"]
    assert mapper.high == pytest.approx(np.nanmax(drawn.cells.seconds))
    assert "s of it in view" in figure.title.text
    stream.event(x_range=None, y_range=None)
    np.testing.assert_allclose(image.data["image"][0], whole.seconds)


@pytest.mark.parametrize("is_y_down", [True, False])
def test_picture__has_one_scale_and_y_as_in_the_video(wandering: Places, is_y_down: bool) -> None:
    figure = hv.render(Occupancy(wandering, is_y_down=is_y_down).plot)
    across = (figure.x_range.end - figure.x_range.start) / figure.frame_width
    up = (figure.y_range.end - figure.y_range.start) / figure.frame_height
    assert abs(up) == pytest.approx(across)
    assert (up < 0) is is_y_down
    assert figure.x_range.start < wandering.low[0]
    assert figure.x_range.end > wandering.high[0]


def test_picture__of_an_animal_that_never_moves() -> None:
    drawn = Occupancy(made(np.full(300, 7.0), np.full(300, -3.0)), is_y_down=True)
    hv.render(drawn.plot)
    assert np.nansum(drawn.cells.seconds) == pytest.approx(10.0)


def test_picture__of_a_place_where_it_never_was(wandering: Places) -> None:
    drawn = Occupancy(wandering, is_y_down=False)
    plot = hv.renderer("bokeh").get_plot(drawn.plot)
    drawn.plot.streams[0].event(x_range=(500.0, 600.0), y_range=(500.0, 600.0))
    assert np.isnan(plot.handles["source"].data["image"][0]).all()
    assert "0 s of it in view" in plot.state.title.text


@pytest.mark.parametrize("n_frames", [1, 3])
def test_picture__says_times_of_less_than_a_second(n_frames: int) -> None:
    figure = hv.render(
        Occupancy(made(np.arange(n_frames), np.zeros(n_frames)), is_y_down=True).plot
    )
    assert figure.title.text.startswith(f"{n_frames / FPS:.3g} s;")


def test_picture__is_forgotten_with_its_page(wandering: Places) -> None:
    """HoloViews keeps options of what is alive: they must not keep it alive themselves."""
    drawn = Occupancy(wandering, is_y_down=False)
    plot = hv.renderer("bokeh").get_plot(drawn.plot)
    left = weakref.ref(drawn)
    del drawn
    gc.collect()
    assert left() is not None  # it can be zoomed
    plot.cleanup()  # as Panel does
    del plot
    gc.collect()
    assert left() is None


def test_occupancy__of_a_study_in_3d_is_seen_from_above(tmp_path: Path) -> None:
    store = tmp_path / "solid.zarr"
    write_store(store, SyntheticStudy(n_sessions=1, n_frames=1000, n_keypoints=5, n_space=3))
    figure = hv.render(occupancy(store, start=1.0, stop=21.0))
    assert figure.y_range.start < figure.y_range.end
    assert figure.title.text.startswith("20 s")


def test_occupancy__names_its_syllable(two_stages: Path) -> None:
    opened = open_session(two_stages, model="two")
    syllable = int(opened.syllables[0])
    figure = hv.render(kpms_zarr.viz.occupancy(two_stages, model="two", syllable=syllable))
    assert f"s of syllable {opened.names.label(syllable)}" in figure.title.text


# ------------------------------------------------------------------ without Datashader


def test_without_datashader_it_is_said_how_to_have_it(monkeypatch, two_stages):
    monkeypatch.setitem(sys.modules, "datashader", None)
    with pytest.raises(InputError, match=r"pip install 'kpms_zarr\[viz\]'"):
        occupancy(two_stages)


def test_page__without_datashader_says_how_to_have_it(monkeypatch, two_stages):
    monkeypatch.setattr("kpms_zarr.viz.explore.arena.is_installed", lambda name: False)
    shown = Arena(State(Study(two_stages)), lambda: open_session(two_stages), go=print, say=print)
    shown.draw()
    assert "pip install" in str(shown.view.objects[-1][0].object)


# ------------------------------------------------------------------ the page


class Page:
    """The page Player without a browser, and what was read for its arena."""

    def __init__(self, store: Path, monkeypatch: pytest.MonkeyPatch, **choices: Any) -> None:
        self.read: list[tuple[str, int, int, int]] = []
        self.arenas: list[Arena] = []
        page = self

        def reads(opened: Any, start: int, stop: int, *, syllable: int = -1) -> Places:
            self.read.append((opened.session.name, start, stop, syllable))
            return read_places(opened, start, stop, syllable=syllable)

        class Kept(Arena):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                page.arenas.append(self)

        monkeypatch.setattr(arena, "read_places", reads)
        monkeypatch.setattr(player, "Arena", Kept)
        self.state = State(Study(store), page="player", **choices)
        self.view = player.page(self.state)
        (self.arena,) = self.arenas

    def tap(self, frame: int) -> None:
        """Click where the animal was in a frame."""
        picture = self.arena.picture
        assert picture is not None
        position = picture._places.position.iloc[frame - int(picture._places.frame[0])]
        picture._tapped(float(position["x"]), float(position["y"]))


@pytest.fixture
def page(two_stages, monkeypatch) -> Page:
    return Page(two_stages, monkeypatch)


def test_page__shows_the_session_that_is_chosen_whatever_changes_first(page: Page) -> None:
    assert page.read == [(SESSION, 0, 1500, -1)]
    page.state.param.update(start=5, stop=15, session="session_001")
    assert page.read[-1] == ("session_001", 150, 450, -1)
    page.state.param.update(session=SESSION, start=6, stop=16)
    assert page.read[-1] == (SESSION, 180, 480, -1)
    page.state.syllable = int(open_session(page.state.study.store, model="two").syllables[0])
    assert page.read[-1] == (SESSION, 180, 480, page.state.syllable)
    assert len(page.arenas) == 1


def test_page__is_not_drawn_anew_for_what_does_not_matter(page: Page) -> None:
    in_time, of_syllable = page.arena.view.objects[2].objects
    in_time.value = of_syllable.value = False
    before, picture = list(page.read), page.arena.picture
    page.state.param.update(start=5, stop=15, syllable=3)
    assert page.read == before
    assert page.arena.picture is picture
    in_time.value = True
    assert page.read[len(before) :] == [(SESSION, 150, 450, -1)]


def test_page__click_leaves_the_chosen_time_alone(page: Page) -> None:
    page.state.param.update(start=10, stop=45)
    n_read = len(page.read)
    page.tap(305)  # less than a second after the beginning
    assert page.state.span == (10, 45)
    assert len(page.read) == n_read


def test_page__without_the_player_has_no_arena(two_stages, monkeypatch, caplog):
    page = Page(two_stages, monkeypatch)
    assert page.arena.view.visible

    def broken(state: State) -> None:
        raise InputError(expected="a", found="b", where="c", fix="d")

    monkeypatch.setattr(player, "_SessionPlayer", broken)
    tap = page.arena.picture._tapped
    page.state.session = "session_001"
    assert not page.arena.view.visible
    tap(0.0, 0.0)  # on a picture that the browser still shows


def test_page__of_a_session_without_that_syllable_says_so(page: Page) -> None:
    page.state.syllable = 99
    (shown,) = page.arena.view.objects[-1]
    assert "syllable 99" in shown.object
    page.state.syllable = -1
    assert page.arena.picture is not None
