"""Frames of videos by their number: every frame shows its number in its pixels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.video import video
from kpms_zarr.viz.video.video import VideoPool, VideoReader

av = pytest.importorskip("av")

N_FRAMES = 150
KINDS = {
    "h264.mp4": {"codec": "h264", "b_frames": 3},
    "open_gop.mp4": {
        "codec": "h264",
        "b_frames": 5,
        "options": {"x264-params": "open-gop=1:b-adapt=0:keyint=25:scenecut=0"},
    },
    "mpeg4.mp4": {},
    "mpeg4.avi": {"b_frames": 0},
    "mpeg4_b.avi": {},
    "h264_b.avi": {"codec": "h264", "b_frames": 3},
    "motion_jpeg.avi": {"codec": "mjpeg", "b_frames": None, "pixels": "yuvj420p"},
    "matroska.mkv": {},
    "transport.ts": {"codec": "mpeg2video"},
    "uneven.mp4": {"times": "uneven"},
    "uneven.mkv": {"times": "uneven"},
}


def picture(number: int) -> np.ndarray:
    """Black and white squares: the number in binary."""
    bits = np.array([number >> bit & 1 for bit in range(12)], dtype=np.uint8).reshape(3, 4)
    return np.repeat(np.kron(bits * 255, np.ones((16, 16), np.uint8))[..., None], 3, axis=2)


def number_in(frame: np.ndarray) -> int:
    """The number that a picture shows, however small it is."""
    size = frame.shape[0] / 3
    middle = ((np.arange(4) + 0.5) * size).astype(int)
    bits = frame[middle[:3]][:, middle, 1].ravel() > 127
    return int((bits * 2 ** np.arange(12)).sum())


@pytest.fixture(scope="module")
def videos(tmp_path_factory, write_video):
    """One video of every kind that can be encoded here."""
    folder = tmp_path_factory.mktemp("videos")
    uneven = np.cumsum(np.random.default_rng(0).integers(10, 90, N_FRAMES)).tolist()
    for name, options in KINDS.items():
        if options.get("codec") == "h264" and "libx264" not in av.codecs_available:
            continue
        times = uneven if "times" in options else None
        pictures = (picture(number) for number in range(N_FRAMES))
        write_video(folder / name, pictures, **{**options, "times": times})
    return folder


@pytest.fixture(scope="module", params=KINDS)
def path(videos, request):
    """Each of them in turn."""
    found = videos / request.param
    if not found.exists():
        pytest.skip("no h264 encoder here")
    return found


def test_read__gives_the_frame_of_the_number_in_any_order(path):
    order = np.random.default_rng(1).integers(0, N_FRAMES, 40).tolist()
    order += [0, N_FRAMES - 1, N_FRAMES - 2, 0, 1, 2, 2, 41, 40, 39]
    with VideoReader(path) as reader:
        assert reader.n_frames == N_FRAMES
        assert [(n, number_in(frame)) for n, frame in reader.read(order)] == [(n, n) for n in order]


def test_read__one_after_the_other_decodes_each_frame_once(path):
    with VideoReader(path) as reader:
        reader.frame(0)
        before = reader.n_decoded
        assert [number_in(frame) for _, frame in reader.read(range(N_FRAMES))] == list(
            range(N_FRAMES)
        )
        again = reader.n_decoded - before - N_FRAMES
    # Times that mean nothing may come to light once; the file is read from the start then.
    assert again <= 2 * video._NEAR


@pytest.mark.parametrize("name", ["mpeg4.mp4", "mpeg4.avi", "uneven.mp4", "matroska.mkv"])
def test_read__goes_to_the_keyframe_before_and_not_to_the_start(videos, name):
    with VideoReader(videos / name) as reader:
        reader.frame(0)
        before = reader.n_decoded
        assert number_in(reader.frame(125)) == 125
        # keyframes every 40 frames: five from the one at 120, and what lies in the threads
        assert 5 <= reader.n_decoded - before <= 30
        before = reader.n_decoded
        assert number_in(reader.frame(128)) == 128
        assert reader.n_decoded - before <= 3 + 16
        before = reader.n_decoded
        assert number_in(reader.frame(128)) == 128
        assert reader.n_decoded == before


def test_read__two_readings_of_one_file_do_not_disturb_each_other(videos):
    with VideoReader(videos / "mpeg4.mp4") as reader:
        one, other = reader.read([3, 60, 61, 140]), reader.read([100, 7, 8, 9])
        pairs = [(number_in(next(one)[1]), number_in(next(other)[1])) for _ in range(4)]
    assert pairs == [(3, 100), (60, 7), (61, 8), (140, 9)]


def test_read__scales_to_a_width(videos):
    with VideoReader(videos / "mpeg4.mp4") as reader:
        assert (reader.width, reader.height, reader.fps) == (64, 48, 30)
        frame = reader.frame(77, width=32)
    assert frame.shape == (24, 32, 3)
    assert frame.dtype == np.uint8
    assert number_in(frame) == 77


@pytest.mark.parametrize("number", [-1, N_FRAMES])
def test_read__refuses_a_frame_that_is_not_there(videos, number):
    with VideoReader(videos / "mpeg4.mp4") as reader:
        with pytest.raises(InputError, match="expected a frame from 0 to 149"):
            reader.frame(number)
        assert number_in(reader.frame(5)) == 5


def test_reader__says_in_words_what_is_wrong_with_a_file(tmp_path, videos):
    whole = (videos / "mpeg4.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.avi").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    found = {
        "cut.mp4": "damaged",
        "text.avi": "no video, or a damaged one",
        "empty.mp4": "damaged",
        "missing.mp4": "no such file",
        "": "a folder",
    }
    for name, words in found.items():
        with pytest.raises(InputError) as caught:
            VideoReader(tmp_path / name)
        assert words in caught.value.problems[0].found
        assert "Errno" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_reader__of_sound_alone_finds_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for _ in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video in the file"):
        VideoReader(tmp_path / "sound.mp4")


def test_read__of_a_file_with_damage_inside_gives_the_other_frames(tmp_path, videos):
    data = bytearray((videos / "mpeg4.mp4").read_bytes())
    with av.open(str(videos / "mpeg4.mp4")) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    rng = np.random.default_rng(0)
    for place in rng.integers(places[55], places[60], 200):
        data[place] = rng.integers(256)
    (tmp_path / "damaged.mp4").write_bytes(data)
    found: list[int | None] = []
    with VideoReader(tmp_path / "damaged.mp4") as reader:
        for number in range(N_FRAMES):
            try:
                found.append(number_in(reader.frame(number)))
            except InputError:
                found.append(None)
    # A keyframe ends the damage; the decoder may guess frames before it.
    assert found[:50] + found[80:] == [*range(50), *range(80, N_FRAMES)]
    assert None in found


def test_read__of_a_file_that_ends_early_says_so(tmp_path, write_video):
    options = {"movflags": "faststart"}
    with av.open(str(tmp_path / "whole.mp4"), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "short.mp4").write_bytes(data[: len(data) * 3 // 4])
    with VideoReader(tmp_path / "short.mp4") as reader:
        assert number_in(reader.frame(10)) == 10
        with pytest.raises(InputError, match="frame 59"):
            reader.frame(59)
        assert number_in(reader.frame(11)) == 11


def test_pool__keeps_few_files_open_and_closes_the_one_used_longest_ago(tmp_path, videos):
    data = (videos / "mpeg4.mp4").read_bytes()
    paths = [tmp_path / f"{n}.mp4" for n in range(12)]
    for path in paths:
        path.write_bytes(data)

    def opened() -> list[str]:
        links = Path("/proc/self/fd").iterdir() if sys.platform == "linux" else []
        names = {link.resolve() for link in links}
        return sorted(path.name for path in paths if path.resolve() in names)

    with VideoPool(max_open=3) as pool:
        for turn in range(2):
            for path in paths:
                assert number_in(pool.frame(path, 17 + turn)) == 17 + turn
                assert pool.n_open <= 3
                if sys.platform == "linux":
                    assert len(opened()) <= 3
        pool.open(paths[9])
        pool.open(paths[0])
        assert sys.platform != "linux" or opened() == ["0.mp4", "11.mp4", "9.mp4"]
        assert pool.open(paths[0]) is pool.open(paths[0])
    assert pool.n_open == 0
    assert opened() == []


def test_check_length__reports_a_video_that_is_too_short(videos):
    with VideoReader(videos / "mpeg4.mp4") as reader:
        video.check_length(reader, N_FRAMES)
        with pytest.raises(InputError, match=r"at least 151 frames.*found 150 frames"):
            video.check_length(reader, N_FRAMES + 1)


def test_video_of__is_empty_where_the_store_knows_none():
    data = xr.Dataset(coords={"session": ["a", "b"]})
    assert video.video_of(data, 1) == ""
    data = data.assign_coords(video=("session", ["", "b.mp4"]))
    assert [video.video_of(data, row) for row in range(2)] == ["", "b.mp4"]


def test_video_frames__counts_from_the_first_frame_in_steps():
    data = xr.Dataset(coords={"session": ["a", "b"]})
    frames = np.arange(3)
    assert video.video_frames(data, 1, frames).tolist() == [0, 1, 2]
    first, step = ("session", [0, 100]), ("session", [1, 3])
    data = data.assign_coords(first_frame=first, frame_step=step)
    assert video.video_frames(data, 1, frames).tolist() == [100, 103, 106]


def test_find_video__looks_in_folders_for_a_file_of_another_machine(tmp_path):
    (tmp_path / "one.mp4").touch()
    (tmp_path / "day1").mkdir()
    (tmp_path / "day1/two.mp4").touch()
    found = str(tmp_path / "one.mp4")
    assert video.find_video("C:\\videos\\one.mp4", [tmp_path]) == found
    assert video.find_video("/data/one.mp4", [tmp_path]) == found
    assert video.find_video("day1/two.mp4", [tmp_path]) == str(tmp_path / "day1/two.mp4")
    assert video.find_video(found) == found
    assert video.find_video("gone.mp4", [tmp_path]) == "gone.mp4"


def test_require_av__says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'kpms_zarr\[viz\]'"):
        VideoReader("any.mp4")
