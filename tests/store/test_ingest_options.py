"""What can be said at ingest: frame rates, trimming, metadata, what is left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.core import access
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest import loading
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.ingest.trimming import parse_trim
from kpms_zarr.store.parsers.base import FileHeader, PoseBlock, ReadOptions, TrackHeader, Tracks
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv

SMALL = SyntheticStudy(n_sessions=3, n_frames=200, n_keypoints=4, missing_fraction=0.05)


@pytest.fixture
def files(tmp_path):
    return write_dlc_csv(tmp_path / "tracking", SMALL)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "study.zarr"


def keypoints(store):
    return access.dataset(store, "keypoints").load()


def array(n_frames, n_keypoints=3, n_space=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n_frames, n_keypoints, n_space)) * 10


# ------------------------------------------------------------------ arrays


def test_arrays__arrive_with_their_confidences(store):
    given = {"a": array(30), "b": array(50, seed=1)}
    given["a"][3, 1] = np.nan
    conf = {"a": np.random.default_rng(0).uniform(size=(30, 3))}
    result = ingest(
        store, arrays=given, confidences=conf, fps=50, keypoint_names=["nose", "neck", "tail"],
        anterior=["nose"], posterior=["tail"],
    )  # fmt: skip
    assert result.added == ("a", "b")
    assert result.notes == ()
    data = keypoints(store)
    assert list(data.keypoint.values) == ["nose", "neck", "tail"]
    assert data.n_frames.values.tolist() == [30, 50]
    np.testing.assert_array_equal(data.position[0, :30], given["a"].astype(np.float32))
    np.testing.assert_array_equal(data.confidence[0, :30], conf["a"].astype(np.float32))
    assert np.isnan(data.confidence[1]).all()
    assert ingest(store, arrays=given, confidences=conf, fps=50, keypoint_names=["nose", "neck", "tail"]).known == ("a", "b")  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("arrays", "confidences", "words"),
    [
        ({"a": np.zeros((5, 3))}, None, "(frames, keypoints, 2 or 3)"),
        ({"a": np.zeros((0, 3, 2))}, None, "(frames, keypoints, 2 or 3)"),
        ({"a": np.zeros((5, 3, 4))}, None, "(frames, keypoints, 2 or 3)"),
        ({"a": np.array([[["x", "y"]]])}, None, "of numbers"),
        ({"a": np.zeros((5, 3, 2))}, {"a": np.zeros((5, 2))}, "confidences"),
        ({"a": np.zeros((5, 3, 2))}, {"b": np.zeros((5, 3))}, "'b'"),
    ],
)
def test_arrays__that_cannot_be_used_are_refused(store, arrays, confidences, words):
    with pytest.raises(InputError) as caught:
        ingest(store, arrays=arrays, confidences=confidences)
    assert words in str(caught.value)
    assert not store.exists()


@pytest.mark.parametrize("plural", [True, False])
def test_movement_dataset__is_taken_like_arrays(store, plural):
    end = "s" if plural else ""
    values = array(12, 3 * 2).reshape(12, 2, 3, 2)
    dims = ("time", "space", f"keypoint{end}", f"individual{end}")
    dataset = xr.Dataset(
        {"position": (dims, values)},
        coords={dims[1]: ["x", "y"], dims[2]: ["nose", "neck", "tail"], dims[3]: ["ann", "bob"]},
        attrs={"fps": 40},
    )
    result = ingest(store, arrays={"day1": dataset})
    assert result.added == ("day1_ann", "day1_bob")
    data = keypoints(store)
    assert list(data.keypoint.values) == ["nose", "neck", "tail"]
    assert data.fps.values.tolist() == [40, 40]
    wanted = values.transpose(3, 0, 2, 1).astype(np.float32)
    np.testing.assert_array_equal(data.position, wanted)


# ------------------------------------------------------------------ frames


@pytest.mark.parametrize(
    ("text", "step", "frames"),
    [
        (None, 1, slice(0, 200)),
        ("20:", 1, slice(20, 200)),
        (":50", 1, slice(0, 50)),
        ("1s:4s", 1, slice(25, 100)),
        (None, 2, slice(0, 200, 2)),
        ("11:150", 3, slice(11, 150, 3)),
        ("0.05min:", 7, slice(75, 200, 7)),
        ("150:900", 1, slice(150, 200)),
    ],
)
def test_trim_and_downsample__take_these_frames(files, store, tmp_path, text, step, frames):
    whole = tmp_path / "whole.zarr"
    ingest(whole, files, fps=25)
    result = ingest(store, files, fps=25, trim=text, downsample=step)
    all_frames, some = keypoints(whole), keypoints(store)
    for name in ("position", "confidence"):
        np.testing.assert_array_equal(some[name], all_frames[name][:, frames])
    n = len(range(200)[frames])
    assert result.n_frames == 3 * n
    assert some.n_frames.values.tolist() == [n] * 3
    np.testing.assert_array_equal(
        some.first_frame.values[:, None] + some.frame_step.values[:, None] * np.arange(n),
        np.tile(np.arange(200)[frames], (3, 1)),
    )
    assert some.fps.values.tolist() == [25 / step] * 3
    how = json.loads(str(some.ingest.values[0]))
    assert how["downsample"] == step
    assert how["trim"] == [parse_trim(text).start, parse_trim(text).stop]


def test_trim__beyond_the_end_leaves_the_session_out(files, store, tmp_path):
    longer = write_dlc_csv(
        tmp_path / "longer", SyntheticStudy(lengths=(400,), n_keypoints=4, seed=3)
    )[0].rename(tmp_path / "longer.csv")
    result = ingest(store, [*files, longer], trim="300:")
    assert result.added == ("longer",)
    assert len([note for note in result.notes if "no frames left" in note]) == 3


@pytest.mark.parametrize("text", ["", "10", "5:5", "9:3", "a:b", "1s:0.5s", "-5:", "1:2:3"])
def test_trim__that_is_no_range_is_refused(files, store, text):
    with pytest.raises(InputError, match="trim="):
        ingest(store, files, trim=text)
    assert not store.exists()


@pytest.mark.parametrize("step", [0, -1, 1.5, True])
def test_downsample__that_is_no_whole_number_is_refused(files, store, step):
    with pytest.raises(InputError, match="downsample="):
        ingest(store, files, downsample=step)


def blocks_of(position, confidence, lengths):
    start = 0
    for n in lengths:
        part = slice(start, start + n)
        given = {} if confidence is None else {"": confidence[part]}
        yield PoseBlock(start, {"": position[part]}, given)
        start += n


@settings(max_examples=examples(60), deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    start=st.integers(0, 90),
    stop=st.none() | st.integers(1, 200),
    step=st.integers(1, 9),
    columns=st.permutations(range(3)).map(lambda p: tuple(p[:2])),
    has_confidence=st.booleans(),
    chunk=st.integers(1, 30),
)
def test_pieces__are_the_slice_whatever_the_blocks_of_the_parser(
    lengths, start, stop, step, columns, has_confidence, chunk
):
    position = array(sum(lengths)).astype(np.float32)
    confidence = position[..., 0] if has_confidence else None
    header = FileHeader("array", Path("x"), ("x", "y"), (TrackHeader("", ("a", "b", "c")),), True)
    window = loading.FrameWindow(start, stop, step)
    task = loading.LoadTask(
        "", "", header, ReadOptions(), (loading.TrackTask("", columns, window),)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "FRAMES_PER_CHUNK", chunk)
        pieces = loading._TrackPieces(task)
        patch.setattr(
            pieces,
            "_parser",
            type("P", (), {"read": lambda *_: blocks_of(position, confidence, lengths)}),
        )
        found = list(pieces.read())
    wanted = position[start:stop:step][:, list(columns)]
    assert [len(p.position) for p in found[:-1]] == [chunk] * max(0, len(found) - 1)
    assert [p.start for p in found] == [chunk * i for i in range(len(found))]
    assert sum(len(p.position) for p in found) == len(wanted)
    if len(wanted):
        np.testing.assert_array_equal(np.concatenate([p.position for p in found]), wanted)
        if has_confidence:
            np.testing.assert_array_equal(
                np.concatenate([p.confidence for p in found]),
                wanted[..., 0] if False else confidence[start:stop:step][:, list(columns)],
            )
    assert pieces.tallies[""].n_frames == len(wanted)


# ------------------------------------------------------------------ frame rates and metadata


def write(path, text):
    path.write_text(text)
    return path


def test_fps__by_table_and_by_mapping(files, store, tmp_path):
    table = write(
        tmp_path / "fps.csv",
        "file,fps\nsession_000.csv,20\nsession_001,25.5\nsession_002,60\nlost,1\n",
    )
    result = ingest(store, files, fps=table)
    assert keypoints(store).fps.values.tolist() == [20, 25.5, 60]
    assert [note for note in result.notes if "lost" in note]
    other = tmp_path / "other.zarr"
    ingest(other, files, fps={"session_000": 1, "session_001": 2, "session_002": 3})
    assert keypoints(other).fps.values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,fps\nsession_000,20\n", "session_001"),
        ("file,rate\nsession_000,20\n", "named fps"),
        ("file,fps\nsession_000,fast\n", "'fast'|fast"),
        ("file,fps\nsession_000,20\nsession_000,30\n", "second time"),
        ("file,fps\nsession_000,0\n", "positive"),
    ],
)
def test_fps__table_that_does_not_say_it_is_refused(files, store, tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        ingest(store, files, fps=write(tmp_path / "fps.csv", text))
    assert not store.exists()


def test_fps__that_is_neither_number_nor_file(files, store):
    with pytest.raises(InputError, match="a number of frames per second, or a csv file"):
        ingest(store, files, fps="many")


METADATA = (
    "session;group;weight;animal id;day\nsession_000;control;21.5;007;2\nsession_002;drug;;12;3\n"
)


def test_metadata__becomes_coordinates_and_selects(files, store, tmp_path):
    result = ingest(store, files, metadata=write(tmp_path / "m.csv", METADATA))
    assert [note for note in result.notes if "nothing about session_001" in note]
    data = keypoints(store)
    assert data.group.values.tolist() == ["control", "", "drug"]
    assert data.animal_id.values.tolist() == ["007", "", "12"]
    np.testing.assert_array_equal(data.weight.values, [21.5, np.nan, np.nan])
    assert set(data.coords) >= {"group", "weight", "animal_id", "day"}
    chosen = select_sessions(store, ["group=drug"])
    assert [s.name for s in chosen] == ["session_002"]
    # What is there already is what a reader of consolidated metadata sees, too.
    assert "group" in xr.open_zarr(store, group="keypoints").coords
    assert "group" in xr.open_datatree(store, engine="zarr")["keypoints"].coords


def test_annotate__changes_the_sessions_of_the_table_only(files, store, tmp_path):
    ingest(store, files, metadata=write(tmp_path / "m.csv", METADATA))
    second = "name,group,fps,video\nsession_001,control,50,/videos/1.mp4\nsession_002,drug2,,\n"
    result = kpms_zarr.annotate(store, write(tmp_path / "n.csv", second))
    assert result.n_sessions == 2
    assert [note for note in result.notes if "nothing about session_000" in note]
    data = keypoints(store)
    assert data.group.values.tolist() == ["control", "control", "drug2"]
    assert data.fps.values.tolist() == [30, 50, 30]
    assert data.video.values.tolist() == ["", "/videos/1.mp4", ""]
    # Text where there were numbers would have to convert those of other sessions.
    for text in ("heavy", ""):
        table = write(tmp_path / "o.csv", f"session,weight\nsession_001,{text}\n")
        if text:
            with pytest.raises(InputError, match="of the kind"):
                kpms_zarr.annotate(store, table)
        else:
            kpms_zarr.annotate(store, table)
        np.testing.assert_array_equal(keypoints(store).weight.values, [21.5, np.nan, np.nan])
    everyone = "session,weight\n" + "".join(f"session_00{i},w{i}\n" for i in range(3))
    kpms_zarr.annotate(store, write(tmp_path / "o.csv", everyone))
    assert keypoints(store).weight.values.tolist() == ["w0", "w1", "w2"]


def test_annotate__coordinates_that_other_tools_made_keep_their_values(files, store, tmp_path):
    ingest(store, files)
    made = {
        "is_pilot": [True, False, True],
        "day": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="datetime64[ns]"),
    }
    xr.Dataset({name: ("session", values) for name, values in made.items()}).to_zarr(
        store, group="keypoints", mode="a", consolidated=False
    )
    for name in made:
        with pytest.raises(InputError, match="of the kind"):
            kpms_zarr.annotate(store, write(tmp_path / "o.csv", f"session,{name}\nsession_001,1\n"))
    data = xr.open_zarr(store, group="keypoints", consolidated=False)
    for name, values in made.items():
        np.testing.assert_array_equal(data[name].values, values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("session,n_frames\nsession_000,3\n", "the store does not use"),
        ("session,1st\nsession_000,3\n", "a letter first"),
        ("session,a b,a_b\nsession_000,3,4\n", "more than once"),
        ("session,zarr.json\nsession_000,3\n", "a letter first"),
        ("session,fps\nsession_000,-3\n", "positive"),
        ("session,group\nnobody,3\n", "sessions, such as"),
        ("session\nsession_000\n", "header"),
        ("", "header"),
    ],
)
def test_annotate__table_that_cannot_be_used_changes_nothing(files, store, tmp_path, text, words):
    ingest(store, files)
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=words):
        kpms_zarr.annotate(store, write(tmp_path / "n.csv", text))
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before
    new = tmp_path / "new.zarr"
    if "such as" not in words:
        with pytest.raises(InputError, match=words):
            ingest(new, files, metadata=write(tmp_path / "n.csv", text))
        assert not new.exists()


def test_metadata__that_cannot_be_written_adds_no_session(files, store, tmp_path):
    ingest(store, files[:1], metadata=write(tmp_path / "m.csv", "session,weight\nsession_000,21\n"))
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    for text, words in [
        ("session,weight\nsession_001,heavy\n", "of the kind"),
        ("session,group\nnobody,a\n", "sessions, such as"),
    ]:
        with pytest.raises(InputError, match=words):
            ingest(store, files, metadata=write(tmp_path / "n.csv", text))
        assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before
    ingest(store, files, metadata=write(tmp_path / "n.csv", "session,weight\nsession_001,22\n"))
    np.testing.assert_array_equal(keypoints(store).weight.values, [21, 22, np.nan])


# ------------------------------------------------------------------ left out


def test_min_visible__leaves_sparse_tracks_out_and_says_so(store):
    dense, sparse, none = array(100), array(100, seed=1), np.full((100, 3, 2), np.nan)
    sparse[4:] = np.nan
    arrays = {"dense": dense, "none": none, "sparse": sparse}
    result = ingest(store, arrays=arrays, min_visible=0.05)
    assert result.added == ("dense",)
    assert [note for note in result.notes if note.startswith("sparse: 4 %")]
    assert [note for note in result.notes if note.startswith("none: none")]
    result = ingest(store, arrays=arrays, min_visible=0.04)
    assert (result.added, result.known) == (("sparse",), ("dense",))


def test_min_visible__counts_what_the_model_counts(store):
    seen, marked, low = array(100), array(100, seed=1), array(100, seed=2)
    confidence = {"seen": np.full((100, 3), 0.9), "low": np.full((100, 3), 0.01)}
    confidence["marked"] = np.full((100, 3), 0.9)
    marked[4:], confidence["marked"][4:] = -1.0, -1.0
    arrays = {"seen": seen, "marked": marked, "low": low}
    result = ingest(store, arrays=arrays, confidences=confidence, min_visible=0.05)
    assert result.added == ("seen", "low")
    assert [note for note in result.notes if note.startswith("marked: 4 %")]
    ingest(store, arrays=arrays, confidences=confidence)
    stored = keypoints(store).sel(session="marked")
    np.testing.assert_array_equal(stored.position[:100], marked.astype(np.float32))
    assert kpms_zarr.verify(store).is_sound


def test_min_visible__of_a_file_longer_than_what_is_kept(store, monkeypatch):
    monkeypatch.setattr(loading, "_KEPT_BYTES", 1000)
    n = 3 * FRAMES_PER_CHUNK + 5
    late = np.full((n, 2, 2), np.nan)
    late[n // 2 :] = array(n - n // 2, 2)
    early = array(n, 2, seed=2)
    early[n // 10 :] = np.nan
    arrays = {"early": early, "late": late}
    assert ingest(store, arrays=arrays, min_visible=0.3).added == ("late",)
    assert ingest(store, arrays=arrays).added == ("early",)
    data = keypoints(store)
    for name in arrays:
        np.testing.assert_array_equal(
            data.position.sel(session=name), arrays[name].astype(np.float32)
        )
    assert kpms_zarr.verify(store).is_sound


def test_skip_bad__takes_the_good_files_and_names_the_bad(files, store):
    bad = files[1].read_text().splitlines()
    bad[100] = bad[100].replace(".", "x", 1)
    files[1].write_text("\n".join(bad) + "\n")
    files[2].write_text("no tracking at all\n")
    result = ingest(store, files, skip_bad=True)
    assert result.added == ("session_000",)
    assert set(result.bad) == {str(files[1]), str(files[2])}
    assert set(result.reasons) == set(result.bad)
    assert "row 101" in result.reasons[str(files[1])]
    assert "no tracking at all" in result.reasons[str(files[2])]
    assert not result.is_whole
    assert [s.name for s in access.sessions(store)] == ["session_000"]
    assert keypoints(store).sizes["session"] == 1
    assert not kpms_zarr.verify(store).notes


def test_dry_run__says_what_would_be_added_and_writes_nothing(files, store):
    result = ingest(store, files[:2], dry_run=True)
    assert result.is_dry
    assert result.added == ("session_000", "session_001")
    assert result.recognised[str(files[0])].startswith("dlc_csv: ")
    assert not store.exists()
    ingest(store, files[:1])
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*")}
    again = ingest(store, files, dry_run=True)
    assert (again.added, again.known) == (("session_001", "session_002"), ("session_000",))
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*")} == before


# ------------------------------------------------------------------ many at once


def test_workers__give_the_same_store(files, store, tmp_path):
    one, done = tmp_path / "one.zarr", []
    ingest(one, files, workers=1)
    ingest(store, files, workers=3, on_progress=done.append)
    first, second = (keypoints(s).drop_vars("ingest").drop_attrs() for s in (one, store))
    xr.testing.assert_identical(first, second)
    assert [p.n_done for p in done if p.stage == "load"] == [1, 2, 3]
    assert done[-1].n_frames == 600


def test_workers__send_their_errors(files, store):
    lines = files[1].read_text().splitlines()
    files[1].write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:30])
    with pytest.raises(InputError) as caught:
        ingest(store, files, workers=2)
    assert str(files[1]) in str(caught.value)
    assert not store.exists()


_LONG = """
import sys
from kpms_zarr.store.ingest import rows
rows.COMMIT_SECONDS = 0.0
from kpms_zarr.store.ingest.ingest import ingest
ingest(sys.argv[1], sys.argv[2:], workers=2)
"""


@pytest.mark.slow
def test_killed_ingest__with_workers_at_random_moments(store, tmp_path, full):
    """Sessions are there as a whole or not at all, and the same call finishes the work."""
    study = SyntheticStudy(n_sessions=12 if full else 6, n_frames=4_000, n_keypoints=4)
    files = write_dlc_csv(tmp_path / "tracking", study)
    ingest(tmp_path / "clean.zarr", files)
    clean = keypoints(tmp_path / "clean.zarr").drop_vars("ingest").drop_attrs()
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    counts = []
    for _ in range(20 if full else 2):
        process = subprocess.Popen(
            [sys.executable, "-c", _LONG, store, *files],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        time.sleep(rng.uniform(1.5, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = access.sessions(store) if access.exists(store) else ()
        counts.append(len(there))
        data = access.dataset(store, "keypoints") if there else None
        for session in there:
            one = clean.sel(session=session.name)
            assert session.n_frames == int(one.n_frames)
            np.testing.assert_array_equal(
                data.position[session.index, : session.n_frames], one.position
            )
    ingest(store, files)
    found = keypoints(store).drop_vars("ingest").drop_attrs()
    xr.testing.assert_identical(found.sortby("session"), clean)
    assert kpms_zarr.verify(store).is_sound
    assert not kpms_zarr.verify(store).notes


# ------------------------------------------------------------------ remove


def test_remove__frees_the_row_for_the_next_session(files, store):
    ingest(store, files)
    result = kpms_zarr.remove(store, ["session_001"])
    assert (result.removed, result.n_frames) == (("session_001",), 200)
    assert [s.name for s in access.sessions(store)] == ["session_000", "session_002"]
    assert not (store / "keypoints/position/c/1").exists()
    assert kpms_zarr.quality(store).sizes["session"] == 2
    again = ingest(
        store, arrays={"short": array(20, 4)}, keypoint_names=[f"point{i}" for i in range(4)]
    )
    assert again.added == ("short",)
    assert [(s.name, s.index) for s in access.sessions(store)] == [
        ("session_000", 0), ("short", 1), ("session_002", 2),
    ]  # fmt: skip
    assert np.isnan(keypoints(store).position.sel(session="short")[20:]).all()
    assert kpms_zarr.verify(store).is_sound


def test_remove__last_and_all(files, store):
    ingest(store, files)
    kpms_zarr.remove(store, ["session_00[12]"])
    assert keypoints(store).sizes["session"] == 1
    kpms_zarr.remove(store, "*")
    assert access.sessions(store) == ()
    assert ingest(store, files).added == SMALL.session_names
    with pytest.raises(InputError, match="nobody"):
        kpms_zarr.remove(store, ["nobody"])
    with pytest.raises(InputError, match="names of sessions"):
        kpms_zarr.remove(store, [])


# ------------------------------------------------------------------ verify


def test_verify__names_what_is_damaged(files, store):
    ingest(store, files)
    kpms_zarr.quality(store)
    sound = kpms_zarr.verify(store)
    assert sound.is_sound
    assert (sound.n_sessions, sound.n_checksums, sound.notes) == (3, 3, [])
    chunk = store / "keypoints/position/c/1/0/0/0"
    original = chunk.read_bytes()
    flipped = bytearray(original)
    flipped[len(flipped) // 2] ^= 1
    for content in (bytes(flipped), original[:50], b""):
        chunk.write_bytes(content)
        found = kpms_zarr.verify(store).damages
        assert len(found) == 1
        assert "session_001" in found[0].where
        assert "kpms_zarr.remove" in found[0].fix
    chunk.unlink()
    found = kpms_zarr.verify(store).damages
    assert len(found) == 1
    assert "lost or altered" in found[0].what
    chunk.write_bytes(original)
    other = store / "quality/missing_fraction/c/0/0"
    other.write_bytes(other.read_bytes()[:-3])
    found = kpms_zarr.verify(store).damages
    assert len(found) == 1
    assert "quality/missing_fraction" in found[0].where
    assert found[0].fix == "run `kpms_zarr.quality` again"


def test_verify__repairs_what_killed_processes_left(files, store):
    ingest(store, files)
    left = store / "keypoints/position/c/7/0/0/0"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    notes = kpms_zarr.verify(store).notes
    assert len(notes) == 1
    assert "1 session " in notes[0]
    repaired = kpms_zarr.verify(store, repair=True)
    assert len(repaired.repaired) == 1
    assert not left.exists()
    assert kpms_zarr.verify(store).notes == []


def test_tracks__of_unlike_length_in_one_file(store):
    header = FileHeader(
        "array", Path("two"), ("x", "y"),
        (TrackHeader("ann", ("a", "b")), TrackHeader("bob", ("b", "a"), part="second", fps=20.0)),
        False,
    )  # fmt: skip
    tracks = Tracks(header, {"ann": array(10, 2), "second_bob": array(25, 2)}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kpms_zarr.store.ingest.ingest.tracks_in_memory", lambda *_: {"two": tracks})
        result = ingest(store, arrays={"two": None})
    assert result.added == ("two_ann", "two_second_bob")
    data = keypoints(store)
    assert data.n_frames.values.tolist() == [10, 25]
    assert data.recording.values.tolist() == ["two", "two_second"]
    assert data.individual.values.tolist() == ["ann", "bob"]
    assert data.fps.values.tolist() == [30, 20]
    wanted = tracks.position["second_bob"][:, ::-1].astype(np.float32)
    np.testing.assert_array_equal(data.position[1], wanted)
