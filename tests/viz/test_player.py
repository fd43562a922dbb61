"""A window of a session: what is read of it, and what a player gets of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from bokeh.embed import json_item

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.annotate import annotate
from kpms_zarr.store.model import models
from kpms_zarr.store.model.reconstruction import reconstruct
from kpms_zarr.store.model.syllable_names import name_syllable
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store
from kpms_zarr.viz.player import sources as player_sources
from kpms_zarr.viz.player.data import find_bout, open_session, read_window
from kpms_zarr.viz.player.player import player
from kpms_zarr.viz.shared.style import load

FPS = 30.0
SESSION = "session_000"


def player_window(store, *, start, stop, **names):
    return read_window(open_session(store, **names), start, stop)


def sent(layout) -> int:
    """Bytes that a page gets of a player, beside the libraries."""
    return len(json.dumps(json_item(layout)))


def source(layout, *columns: str):
    """The source of a player that has some columns."""
    found = [one for one in layout.select({}) if set(columns) <= set(getattr(one, "data", ()))]
    assert len(found) == 1
    return found[0]


# ------------------------------------------------------------------ the window


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (10.0, 12.5), (49.0, 99.0)])
def test_window__is_what_the_store_holds(two_stages, start, stop):
    window = player_window(two_stages, model="two", session=SESSION, start=start, stop=stop)
    data = access.dataset(two_stages, "keypoints")
    labels = models.open_labels(two_stages, "two")
    rows = slice(round(start * FPS), min(1500, round(stop * FPS)))
    position = data["position"][0, rows].values
    position[np.isnan(position).any(-1)] = np.nan
    np.testing.assert_array_equal(window.observed, position)
    np.testing.assert_array_equal(window.confidence, data["confidence"][0, rows].values)
    np.testing.assert_array_equal(window.syllable, labels["syllable"][0, rows].values)
    for name in ("latent", "centroid", "heading"):
        np.testing.assert_array_equal(getattr(window, name), labels[name][0, rows].values)
    np.testing.assert_array_equal(
        window.denoised, reconstruct(two_stages, "two", SESSION)[rows].values
    )
    np.testing.assert_array_equal(window.frame, np.arange(1500)[rows])
    np.testing.assert_allclose(window.time, np.arange(1500)[rows] / FPS)
    assert window.model_keypoints == ("point0", "point2", "point3", "point5", "point7")
    assert len(window.keypoints) == 8


def test_window__without_a_model_has_tracked_data_alone(two_stages):
    window = player_window(two_stages, session=SESSION, start=2, stop=4)
    assert window.denoised is window.syllable is window.certainty is window.latent is None
    truth = simulate_session(SyntheticStudy(2, 1500, missing_fraction=0.02, seed=3), 0)
    turn = np.angle(np.exp(1j * (window.heading - truth.heading[60:120])))
    assert np.median(np.abs(turn)) < 0.8
    assert np.isfinite(window.centroid).all()


def test_window__of_labels_without_poses_has_labels(store, labels):
    window = player_window(store, model="m", session="session_001", start=1, stop=3)
    assert window.denoised is None
    np.testing.assert_array_equal(window.syllable, labels[1][30:90])


def test_window__of_a_session_that_the_model_has_not_labelled(store, tmp_path):
    path = tmp_path / "more.zarr"
    shutil.copytree(store, path)
    position = np.zeros((90, 8, 2)) + np.arange(8)[:, None]
    names = [f"point{one}" for one in range(8)]
    kpms_zarr.ingest(path, arrays={"new": position}, keypoint_names=names, fps=30)
    window = player_window(path, model="m", session="new", start=0, stop=3)
    assert window.syllable is None
    assert window.n_frames == 90


def test_window__of_three_dimensions(tmp_path, helpers):
    path = tmp_path / "three.zarr"
    study = replace(helpers.two_stage_study, n_space=3)
    write_store(path, study)
    helpers.publish_two_stages(path, study=study)
    window = player_window(path, model="two", session=SESSION, start=1, stop=2)
    assert window.denoised is not None
    assert window.denoised.shape == (30, 5, 3)
    assert window.centroid.shape == (30, 3)


def test_window__has_the_certainty_where_there_is_one(two_stages):
    opened = open_session(two_stages, model="two")
    values = np.linspace(0, 1, 1500, dtype=np.float16)
    assert opened.labels is not None
    certain = replace(opened, labels=opened.labels.assign(certainty=("frame", values)))
    window = read_window(certain, 10, 20)
    assert window.certainty is not None
    assert window.certainty.dtype == np.float32
    np.testing.assert_array_equal(window.certainty, values[300:600].astype(np.float32))
    assert read_window(opened, 10, 20).certainty is None


def test_window__reads_nothing_else_of_the_session(tmp_path):
    path = tmp_path / "long.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=40_000))
    chunk = path / "keypoints" / "position" / "c" / "0" / "1" / "0" / "0"
    chunk.write_bytes(b"damaged")
    opened = open_session(path)
    assert read_window(opened, 500, 510).n_frames == 300
    with pytest.raises(Exception, match=r".+"):
        read_window(opened, 550, 560)  # frames 16,500 to 16,800 lie in the damaged chunk


def test_window__has_the_frames_of_a_trimmed_and_thinned_video(trimmed):
    window = player_window(trimmed, session="film", start=1, stop=2)
    np.testing.assert_array_equal(window.video_frame, 6 + 2 * np.arange(15, 30))
    np.testing.assert_array_equal(window.observed[:, 0, 0], window.video_frame)


def test_window__rounds_seconds_that_were_frames_to_the_same_frames(two_stages):
    opened = open_session(two_stages)
    for first in (0, 1, 7, 29, 31, 1001, 1498):
        window = read_window(opened, first / FPS, (first + 1) / FPS)
        np.testing.assert_array_equal(window.frame, [first])
        assert window.speed.tolist() == [0.0]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"session": "session_00", "start": 0, "stop": 1}, "did you mean 'session_00"),
        ({"model": "nobody", "start": 0, "stop": 1}, "kpms_zarr.fit"),
        ({"start": 60, "stop": 70}, "start before the end"),
        ({"start": 3, "stop": 3}, "start before the end"),
    ],
)
def test_window__says_what_is_wrong(two_stages, choices, words):
    with pytest.raises(InputError, match=re.escape(words)):
        player_window(two_stages, **{"session": SESSION, **choices})


def test_window__of_too_many_frames_is_refused(tmp_path):
    path = tmp_path / "long.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=30_000))
    with pytest.raises(InputError, match=r"20,000 frames"):
        player_window(path, session=SESSION, start=0, stop=900)


def test_tracked_pose__goes_on_over_gaps(tmp_path):
    position = np.zeros((60, 2, 2))
    position[:, 1, 1] = -10 + np.arange(60) / 10  # ahead, in the direction of -y
    position[20:30] = np.nan
    path = tmp_path / "gap.zarr"
    kpms_zarr.ingest(
        path,
        arrays={"one": position},
        fps=30,
        keypoint_names=["rear", "front"],
        posterior=["rear"],
        anterior=["front"],
    )
    window = player_window(path, session="one", start=0, stop=2)
    assert window.heading is not None
    np.testing.assert_allclose(window.heading, -np.pi / 2, atol=1e-6)
    np.testing.assert_allclose(window.centroid[:, 1], -5 + np.arange(60) / 20, atol=1e-5)
    nothing = player_window(path, session="one", start=20 / 30, stop=30 / 30)
    assert nothing.heading is None
    assert np.isnan(nothing.centroid).all()
    assert sent(player(path, session="one", start=20 / 30, seconds=10 / 30)) > 0


# ------------------------------------------------------------------ bouts


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("syllable", [-1, 2, 5])
def test_find_bout__finds_the_nearest_onset(two_stages, forward, syllable):
    opened = open_session(two_stages, model="two")
    assert opened.labels is not None
    values = opened.labels["syllable"].values
    onset = [
        frame
        for frame in range(1500)
        if (frame == 0 or values[frame] != values[frame - 1])
        and values[frame] >= 0
        and syllable in (-1, values[frame])
    ]
    for frame in (0, 1, 300, onset[3], onset[3] + 1, 1499):
        further = [one for one in onset if (one > frame if forward else one < frame)]
        wanted = (min(further) if forward else max(further)) if further else None
        assert find_bout(opened, syllable, frame, forward=forward) == wanted


@pytest.mark.parametrize("forward", [True, False])
def test_find_bout__looks_beyond_a_block(two_stages, forward):
    opened = open_session(two_stages, model="two")
    for frame in range(0, 1500, 50):
        wanted = find_bout(opened, 5, frame, forward=forward)
        assert find_bout(opened, 5, frame, forward=forward, block_frames=64) == wanted


def test_bouts__cover_the_window_and_tell_which_are_cut(two_stages, helpers):
    window = player_window(two_stages, model="two", session=SESSION, start=4, stop=14)
    columns = player_sources.bout_columns(window, str)
    assert columns["left"][0] == pytest.approx(4)
    assert columns["right"][-1] == pytest.approx(14)
    np.testing.assert_allclose(columns["left"][1:], columns["right"][:-1])
    syllable, length = helpers.runs(window.syllable)
    np.testing.assert_array_equal(columns["syllable"], syllable)
    np.testing.assert_array_equal(
        np.rint((columns["right"] - columns["left"]) * FPS).astype(int), length
    )
    assert columns["onset"][0] == -1
    np.testing.assert_array_equal(columns["onset"][1:], np.cumsum(length)[:-1])
    assert columns["duration"][0].startswith("at least")
    assert columns["duration"][1] == f"{length[1] * 1000 / FPS:.0f} ms"
    whole = player_window(two_stages, model="two", session=SESSION, start=0, stop=50)
    durations = player_sources.bout_columns(whole, str)["duration"]
    assert not any("at least" in one for one in durations)


def test_bouts__have_the_names_that_people_gave(two_stages, tmp_path):
    path = tmp_path / "named.zarr"
    shutil.copytree(two_stages, path)
    window = player_window(path, model="two", session=SESSION, start=0, stop=20)
    assert window.syllable is not None
    syllable = int(window.syllable[0])
    name_syllable(path, "two", syllable, name="turns to the left")
    layout = player(path, model="two", session=SESSION)
    columns = source(layout, "onset", "name").data
    named = {int(one): name for one, name in zip(columns["syllable"], columns["name"], strict=True)}
    assert named.pop(syllable) == "turns to the left"
    assert all(name == str(one) for one, name in named.items())


def test_text_on_colours__has_enough_contrast():
    for color, ink in (("#ffffff", "#000000"), ("#000000", "#ffffff"), ("#0072b2", "#ffffff")):
        assert player_sources.ink_on(color) == ink
    assert player_sources.ink_on("#e69f00") == "#000000"


# ------------------------------------------------------------------ the player


def test_player__of_twenty_seconds_and_ten_keypoints_is_small(tmp_path, helpers):
    load()
    path = tmp_path / "ten.zarr"
    study = replace(helpers.two_stage_study, n_keypoints=10)
    write_store(path, study)
    helpers.publish_two_stages(path, study=study, keypoints=study.settings.keypoints)
    layout = player(path, model="two", seconds=20)
    assert source(layout, "frame", "denoised").data["denoised"].shape == (600, 20)
    assert sent(layout) < 2_000_000


@pytest.mark.parametrize("model", [None, "m"])
def test_player__of_what_there_is(store: StoreLike, model: str | None):
    layout = player(store, model=model, start=3, seconds=2, keypoint="point3")
    columns = source(layout, "frame", "centroid").data
    assert "denoised" not in columns
    assert len(columns["frame"]) == 60
    labels = [one.label for one in layout.select({}) if hasattr(one, "label")]
    assert ("Next bout" in labels) is (model is not None)


def test_player__each_one_has_models_of_its_own(store):
    """What belongs to a page that was closed is emptied: another one must not need it."""
    first, second = player(store, model="m"), player(store, model="m")
    assert not {one.id for one in first.select({})} & {one.id for one in second.select({})}


def test_player__says_what_is_wrong(store):
    with pytest.raises(InputError, match=r"point0, point1"):
        player(store, keypoint="tail")
    with pytest.raises(InputError, match=r"kpms_zarr\.annotate"):
        player(store, with_video=True)


# ------------------------------------------------------------------ the video


def number_in(picture: np.ndarray) -> int:
    """The number that a picture of ``trimmed`` shows in its upper half."""
    width = picture.shape[1] / 8
    middle = ((np.arange(8) + 0.5) * width).astype(int)
    bits = picture[picture.shape[0] // 4, middle, 1] > 127
    return int((bits * 2 ** np.arange(8)).sum())


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory, write_video):
    """A store whose only session is every second frame of a part of a video.

    Pictures show their number, and the first coordinate of the first keypoint tells which frame
    of the video it was tracked in.
    """
    folder = tmp_path_factory.mktemp("trimmed")

    def picture(number: int) -> np.ndarray:
        bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8) * 255
        upper = np.kron(bits, np.ones((40, 80), np.uint8))
        both = np.concatenate([upper, np.full_like(upper, 90)])
        return np.repeat(both[..., None], 3, axis=2)

    video = write_video(folder / "film.mp4", (picture(number) for number in range(200)))
    position = np.tile(np.array([[0.0, 50.0], [20, 60], [40, 70]]), (200, 1, 1))
    position[:, :, 0] += np.arange(200)[:, None]
    kpms_zarr.ingest(
        folder / "study.zarr",
        arrays={"film": position},
        fps=30,
        trim="6:186",
        downsample=2,
    )
    table = folder / "table.csv"
    table.write_text(f"session,video\nfilm,{video}\n")
    annotate(folder / "study.zarr", table)
    return folder / "study.zarr"


def test_video__has_the_picture_of_every_frame(trimmed):
    av = pytest.importorskip("av")
    layout = player(trimmed, start=1, seconds=3, with_video=True)
    frames = source(layout, "frame", "centroid").data
    video = source(layout, "row", "url").data
    assert video["row"] == list(range(45))
    for row, url in zip(video["row"], video["url"], strict=True):
        head, data = url.split(",")
        assert head == "data:image/jpeg;base64"
        with av.open(io.BytesIO(base64.b64decode(data)), format="mjpeg") as container:
            picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert picture.shape == (50, 400, 3)
        number = number_in(picture)
        assert number == frames["video_frame"][row] == frames["observed"][row, 0]
    state = source(layout, "state").data
    assert (state["state"], state["width"], state["height"]) == (["done"], [640.0], [80.0])


def test_video__that_is_shorter_than_the_session_shows_what_it_has(trimmed, tmp_path, write_video):
    path = tmp_path / "short.zarr"
    shutil.copytree(trimmed, path)
    grey = np.full((32, 64, 3), 120, np.uint8)
    video = write_video(tmp_path / "short.mp4", (grey for _ in range(60)))
    table = tmp_path / "table.csv"
    table.write_text(f"session,video\nfilm,{video}\n")
    annotate(path, table)
    layout = player(path, start=1, seconds=3, with_video=True)
    # Frames 36, 38, ... 58 of the video are there.
    assert source(layout, "row", "url").data["row"] == list(range(12))


def test_video__that_is_no_video_is_reported(trimmed, tmp_path):
    path = tmp_path / "none.zarr"
    shutil.copytree(trimmed, path)
    table = tmp_path / "table.csv"
    table.write_text(f"session,video\nfilm,{tmp_path / 'gone.mp4'}\n")
    annotate(path, table)
    with pytest.raises(InputError, match="no such file"):
        player(path, with_video=True)


def test_extent__of_positions_as_large_as_files_may_hold(two_stages):
    window = player_window(two_stages, session=SESSION, start=0, stop=4)
    observed = window.observed.copy()
    observed[3, 0] = 3e38
    with np.errstate(over="raise"):
        found = player_sources.extent(replace(window, observed=observed))
    assert np.isfinite(found["radius"][0])
