"""Movies of syllables: written, decoded again and looked at."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from kpms_zarr import annotate
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store
from kpms_zarr.viz.movies import study as movie_study
from kpms_zarr.viz.movies.grid import MovieClock
from kpms_zarr.viz.movies.movies import movies
from kpms_zarr.viz.movies.overlays import overlay_movie
from kpms_zarr.viz.shared import drawing
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.drawing import Camera, Skeleton, fitted, legible, round_length, write
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.video import video
from kpms_zarr.viz.video.encoding import write_movie
from kpms_zarr.viz.video.video import VideoReader

av = pytest.importorskip("av")

STUDY = SyntheticStudy(n_sessions=4, n_frames=300, n_syllables=4, mean_duration=25, seed=5)
SIZE = 600
SMALL = {"rows": 2, "columns": 3, "cell": 96, "before": 0.5, "after": 1.0}
GAP, HEAD = 4, 40  # of the grid


@pytest.fixture(scope="module")
def simulated():
    """The sessions as they were simulated."""
    return [simulate_session(STUDY, index) for index in range(STUDY.n_sessions)]


@pytest.fixture(scope="module")
def fitted_store(tmp_path_factory, helpers):
    """A store with poses and labels; tests only read it."""
    path = tmp_path_factory.mktemp("movies") / "study.zarr"
    write_store(path, STUDY)
    helpers.publish_two_stages(path, model="m", study=STUDY, scale=1.0)
    return path


@pytest.fixture(scope="module")
def camera(tmp_path_factory, write_video, simulated):
    """Videos in which an arrow lies on the animal: green at the front, blue at the rear."""
    folder = tmp_path_factory.mktemp("camera")
    for name, session in zip(STUDY.session_names, simulated, strict=True):
        write_video(folder / f"{name}.mp4", arrows(session), keyframe_every=100)
    return folder


def arrows(session):
    """Pictures of an arrow from 35 px behind the centroid to 35 px before it."""
    for center, heading in zip(session.centroid, session.heading, strict=True):
        image = Image.new("RGB", (SIZE, SIZE), "#505050")
        draw = ImageDraw.Draw(image)
        ahead = 35 * np.array([np.cos(heading), np.sin(heading)])
        draw.line([*(center - ahead), *(center + ahead)], fill="white", width=9)
        for end, color in ((center + ahead, "#00ff00"), (center - ahead, "#0000ff")):
            draw.ellipse([*(end - 11), *(end + 11)], fill=color)
        yield np.asarray(image)


def decoded(path):
    """All frames of a movie, and its frames per second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate


def cells_of(frame, size, n, columns):
    """Cells of a frame of a grid movie."""
    places = [divmod(i, columns) for i in range(n)]
    width, height = size
    return [
        frame[HEAD + row * (height + GAP) :, GAP + column * (width + GAP) :][:height, :width]
        for row, column in places
    ]


def middle_of(cell, channel):
    """Middle (x, y) of what is clearly of one colour; None where nothing is."""
    others = [c for c in range(3) if c != channel]
    is_it = cell[..., channel].astype(int) - cell[..., others].max(-1).astype(int) > 70
    is_it[:3] = is_it[-3:] = is_it[:, :3] = is_it[:, -3:] = is_it[:22, -22:] = False  # the mark
    if is_it.sum() < 8:
        return None
    row, column = np.nonzero(is_it)
    return np.array([column.mean(), row.mean()])


def has_dot(cell, color):
    """Whether the dot of the bout is in the upper right corner."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    corner = cell[8:16, -16:-8].astype(int).reshape(-1, 3)
    return bool(np.abs(corner - wanted).max(1).mean() < 40)


def record(folder):
    """What a folder says of its movies."""
    return json.loads((folder / "movies.json").read_text())["movies"]


# ------------------------------------------------------------------ keypoints alone


def test_movies__of_keypoints_have_the_frames_size_and_rate_they_should(fitted_store, tmp_path):
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[0, 2], **SMALL)
    assert result.files == ("syllable_000.mp4", "syllable_002.mp4")
    assert result.bad_videos == {}
    assert sorted(path.name for path in out.iterdir()) == ["movies.json", *result.files]
    for name in result.files:
        frames, fps = decoded(out / name)
        bouts = record(out)[name]["bouts"]
        # 0.5 s before and 1 s after the onset at 30 frames per second, both included
        assert frames.shape[0] == 15 + 30 + 1
        assert fps == 30
        rows = -(-len(bouts) // 3)
        assert frames.shape[2] == GAP + min(3, len(bouts)) * (96 + GAP)
        assert frames.shape[1] - (HEAD + rows * (96 + GAP)) in (0, 28)  # names of the keypoints
    assert result.n_frames == 2 * 46
    assert result.n_bytes == sum((out / name).stat().st_size for name in result.files)


def test_movies__show_the_dot_while_the_bout_lasts(fitted_store, tmp_path):
    out = tmp_path / "movies"
    movies(fitted_store, model="m", out=out, syllables=[1], **SMALL)
    frames, _ = decoded(out / "syllable_001.mp4")
    syllable = open_labels(fitted_store, "m")["syllable"]
    for number, bout in enumerate(record(out)["syllable_001.mp4"]["bouts"]):
        row = STUDY.session_names.index(bout["session"])
        labels = syllable[row].values
        onset = bout["onset_frame"]
        assert labels[onset] == 1
        assert labels[onset - 1] != 1
        stop = onset + int(np.argmin(labels[onset:] == 1))
        assert bout["duration_ms"] == round((stop - onset) / 30 * 1000)
        shown = [
            has_dot(cells_of(frame, (96, 96), 6, 3)[number], syllable_color(1)) for frame in frames
        ]
        at = np.arange(len(frames)) - 15 + onset
        assert shown == [bool(onset <= frame < stop) for frame in at]


def test_movies__turn_the_animal_to_the_right_and_center_it_at_the_onset(fitted_store, tmp_path):
    out = tmp_path / "movies"
    movies(fitted_store, model="m", out=out, syllables=[0], **SMALL)
    frames, _ = decoded(out / "syllable_000.mp4")
    n = len(record(out)["syllable_000.mp4"]["bouts"])
    for cell in cells_of(frames[15], (96, 96), n, 3):
        inner = cell[22:-3, 3:-3].astype(int)  # without the dot and the edge
        row, column = np.nonzero(inner.min(-1) < 200)
        assert np.ptp(column) > 1.2 * np.ptp(row)
        assert abs((column.min() + column.max()) / 2 + 3 - 48) < 14
        assert abs(row.mean() + 22 - 48) < 14


def test_movies__of_the_same_seed_are_the_same_and_of_another_are_not(fitted_store, tmp_path):
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / name
        movies(fitted_store, model="m", out=out, syllables=[3], seed=seed, **SMALL)
        found[name] = record(out)["syllable_003.mp4"]["bouts"], decoded(out / "syllable_003.mp4")[0]
    assert found["a"][0] == found["b"][0] != found["c"][0]
    assert np.array_equal(found["a"][1], found["b"][1])


@pytest.mark.parametrize(("speed", "n_frames", "fps"), [(0.5, 46, 15), (4, 23, 60)])
def test_movies__slower_or_faster_show_all_frames_or_leave_some_out(
    fitted_store, tmp_path, speed, n_frames, fps
):
    out = tmp_path / "movies"
    movies(fitted_store, model="m", out=out, syllables=[0], speed=speed, **SMALL)
    frames, rate = decoded(out / "syllable_000.mp4")
    assert (len(frames), rate) == (n_frames, fps)


def test_movies__as_gif_can_be_read_and_loop(fitted_store, tmp_path):
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[1], format="gif", **SMALL)
    assert result.files == ("syllable_001.gif",)
    with Image.open(out / "syllable_001.gif") as image:
        assert image.n_frames == 46
        assert image.info["loop"] == 0
        milliseconds = 0
        for number in range(46):
            image.seek(number)
            milliseconds += image.info["duration"]
            if number == 15:
                at_onset = np.asarray(image.convert("RGB"))
    assert milliseconds == pytest.approx(46 / 30 * 1000, abs=30)
    n = len(record(out)["syllable_001.gif"]["bouts"])
    assert all(has_dot(c, syllable_color(1)) for c in cells_of(at_onset, (96, 96), n, 3))


def test_movies__of_three_dimensions_show_two_sides(tmp_path, helpers):
    study = SyntheticStudy(
        n_sessions=2, n_frames=300, n_syllables=3, n_space=3, mean_duration=20, seed=1
    )
    write_store(tmp_path / "deep.zarr", study)
    helpers.publish_two_stages(tmp_path / "deep.zarr", model="m", study=study, scale=1.0)
    out = tmp_path / "movies"
    movies(tmp_path / "deep.zarr", model="m", out=out, syllables=[0], **SMALL)
    frames, _ = decoded(out / "syllable_000.mp4")
    bouts = record(out)["syllable_000.mp4"]["bouts"]
    height = 96 + 60
    rows = -(-len(bouts) // 3)
    assert frames.shape[1] - (HEAD + rows * (height + GAP)) in (0, 28)
    for cell in cells_of(frames[15], (96, height), len(bouts), 3):
        for part in (cell[22:92], cell[100:150]):
            assert (part[:, 4:-4].min(-1) < 200).sum() > 20
    with pytest.raises(InputError, match="found 3-D positions"):
        movies(tmp_path / "deep.zarr", model="m", out=tmp_path / "other", videos=True, **SMALL)
    assert not (tmp_path / "other").exists()


def test_movies__read_a_store_behind_a_url(fitted_store, tmp_path, helpers):
    url = "memory://movies/study.zarr"
    write_store(url, STUDY)
    helpers.publish_two_stages(url, model="m", study=STUDY, scale=1.0)
    movies(url, model="m", out=tmp_path / "url", syllables=[0], **SMALL)
    movies(fitted_store, model="m", out=tmp_path / "path", syllables=[0], **SMALL)
    one, other = (decoded(tmp_path / name / "syllable_000.mp4")[0] for name in ("url", "path"))
    assert np.array_equal(one, other)


def test_movies__tell_how_far_they_are(fitted_store, tmp_path):
    seen = []
    movies(
        fitted_store, model="m", out=tmp_path / "m", syllables=[0, 1], on_progress=seen.append,
        **SMALL,
    )  # fmt: skip
    assert [now.file for now in seen[:: len(seen) - 1]] == ["syllable_000.mp4", ""]
    assert [now.n_done for now in seen] == sorted(now.n_done for now in seen)
    assert (seen[-1].n_done, seen[-1].n_movies) == (2, 2)
    assert all(0 <= now.share < 1 for now in seen)


def test_movies__name_the_syllables_without_any_bout_to_show(fitted_store, tmp_path):
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[0, 9], **SMALL)
    assert result.files == ("syllable_000.mp4",)
    assert any("syllable 9: no bout found" in note for note in result.notes)
    with pytest.raises(InputError, match="syllable 9: no bout found"):
        movies(fitted_store, model="m", out=tmp_path / "none", syllables=[9], **SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0},
        {"columns": 50},
        {"cell": 3},
        {"before": -1},
        {"after": 0},
        {"after": float("nan")},
        {"speed": 0},
        {"format": "wmv"},
        {"syllables": [-1]},
        {"syllables": [1000]},
        {"syllables": []},
        {"overlay": True},
        {"videos": "no/such/folder"},
        {"model": "none"},
    ],
)
def test_movies__refuse_what_cannot_be(fitted_store, tmp_path, wrong):
    with pytest.raises(InputError):
        movies(fitted_store, out=tmp_path / "movies", **{"model": "m", **wrong})
    assert not (tmp_path / "movies").exists()


# ------------------------------------------------------------------ files


def test_folder__replaces_movies_of_the_same_command_only(fitted_store, tmp_path):
    out = tmp_path / "movies"
    first = movies(fitted_store, model="m", out=out, syllables=[0], **SMALL)
    assert first.notes == ()
    again = movies(fitted_store, model="m", out=out, syllables=[0, 1], **SMALL)
    assert again.notes == ("1 movie of the same command replaced",)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match=r"syllable_001\.mp4, made with other settings"):
        movies(fitted_store, model="m", out=out, syllables=[1], **{**SMALL, "after": 0.8})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "syllable_002.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"syllable_002\.mp4"):
        movies(fitted_store, model="m", out=out, syllables=[2], **SMALL)
    assert (out / "syllable_002.mp4").read_bytes() == b"mine"


def test_folder__that_is_a_file_is_refused(fitted_store, tmp_path):
    (tmp_path / "movies").touch()
    with pytest.raises(InputError, match="a file of that name"):
        movies(fitted_store, model="m", out=tmp_path / "movies", syllables=[0], **SMALL)


@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_write_movie__that_is_stopped_leaves_the_old_file(tmp_path, format):
    path = tmp_path / f"movie.{format}"
    write_movie(path, plain, n_frames=3, fps=Fraction(30), format=format)
    before = path.read_bytes()

    def breaks(number):
        if number == 2:
            raise KeyboardInterrupt
        return plain(number)

    with pytest.raises(KeyboardInterrupt):
        write_movie(path, breaks, n_frames=3, fps=Fraction(30), format=format)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def plain(number):
    return np.full((32, 48, 3), 60 * number, np.uint8)


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_write_movie__uses_the_encoder_that_is_there(tmp_path, monkeypatch, encoder):
    if encoder not in av.codecs_available:
        pytest.skip(f"no {encoder} here")
    monkeypatch.setattr(av, "codecs_available", {encoder})
    write_movie(tmp_path / "a.mp4", plain, n_frames=4, fps=Fraction(30000, 1001), title="title")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == {"libx264": "h264"}.get(encoder, encoder)
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(30000, 1001)
        assert container.metadata["title"] == "title"
    frames, _ = decoded(tmp_path / "a.mp4")
    assert np.abs(frames.mean((1, 2, 3)) - 60 * np.arange(4)).max() < 4


# ------------------------------------------------------------------ with videos


@pytest.mark.full
def test_movies__of_videos_turn_every_animal_the_same_way(fitted_store, camera, tmp_path):
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[0, 1], videos=camera, **SMALL)
    assert (result.bad_videos, result.notes) == ({}, ())
    for name in result.files:
        frames, _ = decoded(out / name)
        assert frames.shape[0] == 46
        bouts = record(out)[name]["bouts"]
        assert len({bout["session"] for bout in bouts}) > 1
        for cell in cells_of(frames[15], (96, 96), len(bouts), 3):
            front, rear = middle_of(cell, 1), middle_of(cell, 2)
            assert np.abs((front + rear) / 2 - 47.5).max() < 3
            angle = np.arctan2(*(front - rear)[::-1])
            assert abs(np.rad2deg(angle)) < 6


def test_movies__of_videos_show_the_frames_of_the_bout(fitted_store, camera, tmp_path, simulated):
    out = tmp_path / "movies"
    movies(fitted_store, model="m", out=out, syllables=[2], videos=camera, **SMALL)
    frames, _ = decoded(out / "syllable_002.mp4")
    bouts = record(out)["syllable_002.mp4"]["bouts"]
    scales = []
    for number, bout in enumerate(bouts):
        session = simulated[STUDY.session_names.index(bout["session"])]
        onset = bout["onset_frame"]
        for frame in (3, 30, 45):
            cell = cells_of(frames[frame], (96, 96), len(bouts), 3)[number]
            front, rear = middle_of(cell, 1), middle_of(cell, 2)
            if front is None or rear is None or not in_cell(front) or not in_cell(rear):
                continue
            turned = session.heading[onset + frame - 15] - session.heading[onset]
            angle = np.arctan2(*(front - rear)[::-1])
            assert abs(np.angle(np.exp(1j * (angle - turned)))) < 0.15
            scales.append(np.hypot(*(front - rear)) / 70)
    assert len(scales) > len(bouts)
    assert np.ptp(scales) < 0.1 * np.mean(scales)  # the same part of the world in all cells


def in_cell(place):
    return bool(((place > 16) & (place < 80)).all())


def test_movies__of_videos_find_them_by_the_store_a_table_or_a_mapping(camera, tmp_path, helpers):
    path = tmp_path / "own.zarr"
    write_store(path, STUDY)
    helpers.publish_two_stages(path, model="m", study=STUDY, scale=1.0)
    rows = [f"{name},{camera / name}.mp4" for name in STUDY.session_names]
    (tmp_path / "videos.csv").write_text("\n".join(["session,video", *rows]))
    given = {name: f"{camera / name}.mp4" for name in STUDY.session_names}
    with pytest.raises(InputError, match="found none; 3 more sessions"):
        movies(path, model="m", out=tmp_path / "x", syllables=[0], videos=True, **SMALL)
    shown = [
        movies(path, model="m", out=tmp_path / name, syllables=[0], videos=videos, **SMALL)
        for name, videos in (("a", tmp_path / "videos.csv"), ("b", given))
    ]
    annotate(path, tmp_path / "videos.csv")
    shown += [movies(path, model="m", out=tmp_path / "c", syllables=[0], videos=True, **SMALL)]
    assert [one.bad_videos for one in shown] == [{}, {}, {}]
    frames = [decoded(tmp_path / name / "syllable_000.mp4")[0] for name in "abc"]
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_movies__leave_bad_videos_out_and_go_on(fitted_store, camera, tmp_path, write_video):
    folder = tmp_path / "camera"
    folder.mkdir()
    good, cut, short, gone = STUDY.session_names
    (folder / f"{good}.mp4").symlink_to(camera / f"{good}.mp4")
    (folder / f"{cut}.mp4").write_bytes((camera / f"{cut}.mp4").read_bytes()[:5000])
    write_video(folder / f"{short}.mp4", (plain(0) for _ in range(100)))
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[0, 1], videos=folder, **SMALL)
    assert result.files == ("syllable_000.mp4", "syllable_001.mp4")
    assert result.bad_videos.keys() == {cut, short, gone}
    assert "damaged" in result.bad_videos[cut]
    assert "at least 300 frames" in result.bad_videos[short]
    assert "found 100 frames" in result.bad_videos[short]
    assert "found none" in result.bad_videos[gone]
    for name in result.files:
        bouts = record(out)[name]["bouts"]
        assert {bout["session"] for bout in bouts} == {good}
        frames, _ = decoded(out / name)
        for cell in cells_of(frames[15], (96, 96), len(bouts), 3):
            assert middle_of(cell, 1) is not None


def test_movies__leave_out_a_video_that_breaks_where_it_is_needed(
    fitted_store, camera, tmp_path, monkeypatch
):
    bad, real = STUDY.session_names[1], VideoReader.frame

    def frame(self, index, width=None):
        if bad in self.path and index > 40:
            raise InputError(expected="a frame", found="damage", where=self.path, fix="copy it")
        return real(self, index, width)

    monkeypatch.setattr(VideoReader, "frame", frame)
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[0], videos=camera, **SMALL)
    assert result.bad_videos.keys() == {bad}
    bouts = record(out)["syllable_000.mp4"]["bouts"]
    frames, _ = decoded(out / "syllable_000.mp4")
    cells = cells_of(frames[15], (96, 96), len(bouts), 3)
    # Those that take its place are whole, too.
    assert all(middle_of(cell, 1) is not None for cell in cells)


def test_movies__note_a_frame_rate_that_is_not_that_of_the_store(
    fitted_store, camera, tmp_path, write_video
):
    name = STUDY.session_names[0]
    fast = write_video(
        tmp_path / "fast.mp4", (np.full((SIZE, SIZE, 3), 9, np.uint8),) * 300, fps=60
    )
    videos = {one: str(camera / f"{one}.mp4") for one in STUDY.session_names}
    videos[name] = str(fast)
    out = tmp_path / "movies"
    result = movies(fitted_store, model="m", out=out, syllables=[0], videos=videos, **SMALL)
    assert [note for note in result.notes if "60 frames per second" in note and name in note]


def test_movies__refuse_videos_of_another_size(fitted_store, camera, tmp_path, write_video):
    small = write_video(tmp_path / "small.mp4", (plain(1),) * 300)
    videos = {name: str(small) for name in STUDY.session_names}
    with pytest.raises(InputError, match="the animal inside the picture of 48 x 32 px"):
        movies(fitted_store, model="m", out=tmp_path / "m", syllables=[0], videos=videos, **SMALL)
    assert not list((tmp_path / "m").glob("*.mp4"))


def test_movies__never_have_more_than_four_videos_open(tmp_path, write_video, helpers, monkeypatch):
    study = SyntheticStudy(n_sessions=9, n_frames=150, n_syllables=3, mean_duration=15, seed=2)
    write_store(tmp_path / "many.zarr", study)
    helpers.publish_two_stages(tmp_path / "many.zarr", model="m", study=study, scale=1.0)
    folder = tmp_path / "camera"
    folder.mkdir()
    data = write_video(folder / "one.mp4", (np.zeros((SIZE, SIZE, 3), np.uint8),) * 150)
    for name in study.session_names:
        (folder / f"{name}.mp4").write_bytes(data.read_bytes())
    data.unlink()
    counts, real = [], video.VideoReader.frame

    def frame(self, index, width=None):
        found = real(self, index, width)
        if sys.platform == "linux":
            links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
            counts.append(sum(folder == link.parent for link in links))
        return found

    monkeypatch.setattr(VideoReader, "frame", frame)
    out = tmp_path / "movies"
    few = {**SMALL, "rows": 3, "before": 0.1, "after": 0.2}
    movies(tmp_path / "many.zarr", model="m", out=out, syllables=[0], videos=folder, **few)
    bouts = record(out)["syllable_000.mp4"]["bouts"]
    assert len({bout["session"] for bout in bouts}) > 4
    assert not counts or 1 <= max(counts) <= 4
    if sys.platform == "linux":
        links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
        assert not any(folder == link.parent for link in links)


def test_movies__draw_the_keypoints_onto_the_videos(fitted_store, camera, tmp_path):
    given = {"model": "m", "syllables": [0], "videos": camera, **SMALL}
    plain_ = movies(fitted_store, out=tmp_path / "plain", **given)
    drawn = movies(fitted_store, out=tmp_path / "drawn", overlay=True, **given)
    one, other = (decoded(Path(r.folder) / r.files[0])[0] for r in (plain_, drawn))
    n = len(record(Path(drawn.folder))["syllable_000.mp4"]["bouts"])
    for a, b in zip(*(cells_of(f[15], (96, 96), n, 3) for f in (one, other)), strict=True):
        changed = np.abs(a.astype(int) - b.astype(int)).max(-1) > 60
        row, column = np.nonzero(changed)
        assert changed.sum() > 30
        assert np.ptp(column) > np.ptp(row)  # along the body, which points to the right


# ------------------------------------------------------------------ a whole video


def test_overlay_movie__draws_poses_and_syllables_onto_the_video(
    fitted_store, camera, tmp_path, simulated
):
    out, name = tmp_path / "movies", STUDY.session_names[1]
    result = overlay_movie(
        fitted_store, model="m", session=name, out=out, start=2, stop=4, videos=camera
    )
    assert result.files == (f"overlay_{name}_60-120.mp4",)
    frames, fps = decoded(out / result.files[0])
    assert (len(frames), fps, result.n_frames) == (61, 30, 61)
    assert frames.shape[1:] == (40 + SIZE + 24, SIZE, 3)
    session = simulated[1]
    with VideoReader(camera / f"{name}.mp4") as reader:
        for number in (0, 30, 60):
            original = reader.frame(60 + number).astype(int)
            changed = np.abs(frames[number, 40:-24].astype(int) - original).max(-1) > 70
            row, column = np.nonzero(changed)
            assert len(row) > 60
            middle = np.array([column.mean(), row.mean()])
            assert np.abs(middle - session.centroid[60 + number]).max() < 15
            # In the middle of the strip lies the label of the frame, above it its swatch.
            label = int(open_labels(fitted_store, "m")["syllable"][1, 60 + number])
            color = [int(syllable_color(label)[i : i + 2], 16) for i in (1, 3, 5)]
            assert np.abs(frames[number, 20, 16].astype(int) - color).max() < 40
            at = 60 + number + np.round(np.linspace(-4, 4, SIZE) * 30).astype(int)
            labels = open_labels(fitted_store, "m")["syllable"][1].values[np.clip(at, 0, None)]
            wanted = np.array([ImageColor.getrgb(syllable_color(int(one))) for one in labels])
            near = np.abs(frames[number, -8].astype(int) - wanted).max(-1) < 70
            assert near[at >= 0].mean() > 0.9


def test_overlay_movie__refuses_what_it_cannot_show(fitted_store, camera, tmp_path):
    given = {"model": "m", "out": tmp_path / "movies", "videos": camera}
    name = STUDY.session_names[0]
    with pytest.raises(InputError, match="names among the labelled sessions"):
        overlay_movie(fitted_store, session="nobody", **given)
    with pytest.raises(InputError, match=r"a part of the 10\.0 s of the session"):
        overlay_movie(fitted_store, session=name, start=20, **given)
    with pytest.raises(InputError, match="found none"):
        overlay_movie(fitted_store, session=name, **{**given, "videos": True})
    assert not (tmp_path / "movies").exists()


# ------------------------------------------------------------------ pieces


def test_clock__keeps_the_onset_and_the_real_time():
    clock = MovieClock.around_onset(120, before=1, after=2, speed=1, max_rate=60)
    assert clock.fps == 60
    assert 0 in clock.seconds
    assert (clock.seconds[0], clock.seconds[-1]) == (-1, 2)
    assert clock.frames(1000, 120)[[0, 60, -1]].tolist() == [880, 1000, 1240]
    assert clock.frames(1000, 30)[[0, 60, -1]].tolist() == [970, 1000, 1060]
    ntsc = MovieClock.around_onset(30000 / 1001, before=0.5, after=0.5, speed=1, max_rate=60)
    assert ntsc.fps == Fraction(30000, 1001)
    assert np.array_equal(ntsc.frames(50, 30000 / 1001), np.arange(36, 65))


@pytest.mark.parametrize("scale", [0.2, 0.9, 3.0])
def test_view__crop_agrees_with_the_places_of_positions(scale):
    rng = np.random.default_rng(0)
    view = Camera(120, scale)
    for _ in range(5):
        heading = rng.uniform(-np.pi, np.pi)
        center = rng.uniform(300, 500, 2)
        aligned = rng.uniform(-40, 40, 2) / scale
        turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])
        mark = center + turn @ aligned
        picture = np.zeros((800, 900, 3), np.uint8)
        radius = max(2, round(3 / scale))
        row, column = np.mgrid[:800, :900]
        picture[np.hypot(column - mark[0], row - mark[1]) <= radius] = 255
        cell = np.asarray(view.crop(picture, center, heading)).astype(float)[..., 0]
        cell = np.maximum(0, cell - 60)  # what lies outside is grey
        row, column = np.mgrid[:120, :120] + 0.5
        found = np.array([(column * cell).sum(), (row * cell).sum()]) / cell.sum()
        assert np.abs(found - view.place(aligned)).max() < 0.5 + 0.5 * scale


def test_view__crop_fills_what_lies_outside_the_picture():
    picture = np.full((100, 100, 3), 200, np.uint8)
    cell = np.asarray(Camera(40, 1.0).crop(picture, np.array([0.0, 50.0]), 0.0))
    assert (cell[:, 21:] == 200).all()
    assert (cell[:, :19] < 80).all()
    far = np.asarray(Camera(40, 1.0).crop(picture, np.array([-500.0, 50.0]), 0.0))
    assert (far < 80).all()


def test_skeleton__leaves_out_what_is_missing_or_outside():
    image = Image.new("RGB", (40, 40), "white")
    skeleton = Skeleton(((0, 1), (1, 2)), ("#ff0000", "#00ff00", "#0000ff"))
    skeleton.draw(image, np.array([[10, 10], [np.nan, 5], [1e12, -1e12]]))
    found = np.asarray(image).astype(int)
    assert found[9:11, 9:11, 1].max() < 60
    assert (found[20:, 20:] == 255).all()
    before = found.copy()
    skeleton.draw(image, np.full((3, 2), np.nan))
    skeleton.draw(image, np.full((3, 2), 500.0))
    assert np.array_equal(np.asarray(image), before)


def test_text__is_cut_and_lengths_are_round():
    assert fitted("short", 14, 200) == "short"
    cut = fitted("a name that is much too long for its place", 14, 100)
    assert cut.endswith("…")
    assert 5 < len(cut) < 30
    assert [round_length(most) for most in (0.037, 1, 9.9, 499, 500)] == [0.02, 1, 5, 200, 500]


def test_reach__does_not_depend_on_the_syllables_that_are_shown(fitted_store):
    study = movie_study.MovieStudy(OpenModel(fitted_store, "m"))
    style = movie_study.GridStyle("mp4", 2, 3, 0.5, 1.0, 1.0, 96)
    examples = [study.examples([state], style, n=3) for state in (0, 1)]
    assert study.reach(style, examples[0]) == study.reach(style, examples[1])
    # The simulated body is 80 long.
    assert 40 < study.reach(style, {}) < 200


# ------------------------------------------------------------------ letters


def test_legible__only_letters_that_the_typeface_draws():
    def drawn(text: str) -> np.ndarray:
        image = Image.new("L", (400, 30), "black")
        write(image, (2, 15), text, size=15, color="white")
        return np.asarray(image)

    said = "Zur\u00fcckweichen \u2212 5 \u00b5m, caf\u00e9 \u2265 3 \u2603"
    assert legible(said) == "Zuruckweichen - 5 um, cafe >= 3 ?"
    plain = "".join(map(chr, range(32, 127)))
    assert legible(plain) == plain
    np.testing.assert_array_equal(drawn("\u22120.50 s"), drawn("-0.50 s"))
    # All that the typeface lacks is the same box, which no text may show.
    box = drawing._font(15).getmask("\u2212")
    assert bytes(box) == bytes(drawing._font(15).getmask("\u2603"))
    assert all(
        bytes(drawing._font(15).getmask(letter)) != bytes(box)
        for letter in legible("".join(map(chr, range(160, 0x2600)))) if letter != " "
    )  # fmt: skip
