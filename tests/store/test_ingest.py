"""Tracking files -> store: what arrives there, what is left alone, and what is refused whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

from helpers.amount import some
from kpms_zarr.store.core import access
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.model.info import info
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_dlc_csv

SMALL = SyntheticStudy(n_sessions=3, n_frames=200, n_keypoints=4, missing_fraction=0.05)


@pytest.fixture
def files(tmp_path):
    return write_dlc_csv(tmp_path / "tracking", SMALL)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "study.zarr"


def tree(folder):
    """Relative path -> content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def stamps(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def write_csv(
    path, n_frames=10, *, keypoints="abc", coords=("x", "y", "likelihood"), individuals=()
):
    """A DeepLabCut csv; ``individuals`` maps a name to whether it is ever tracked."""
    people = dict(individuals) or {"": True}
    columns = [(who, k, c) for who in people for k in keypoints for c in coords]
    lines = [["scorer", *("net" for _ in columns)]]
    if individuals:
        lines.append(["individuals", *(who for who, _, _ in columns)])
    lines.append(["bodyparts", *(k for _, k, _ in columns)])
    lines.append(["coords", *(c for _, _, c in columns)])
    rng = np.random.default_rng(n_frames)
    for frame in range(n_frames):
        values = rng.uniform(0, 1, len(columns)).round(4)
        cells = [
            f"{v}" if people[who] else "" for v, (who, _, _) in zip(values, columns, strict=True)
        ]
        lines.append([str(frame), *cells])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return path


def refused(store, files, **options):
    """The InputError of an ingest that must leave everything as it was."""
    before = tree(store) if Path(store).is_dir() else Path(store).exists()
    with pytest.raises(InputError) as caught:
        ingest(store, files, **options)
    assert (tree(store) if Path(store).is_dir() else Path(store).exists()) == before
    return caught.value


# --- what arrives ----------------------------------------------------------------------


def test_ingest__values_and_settings_arrive(files, store):
    names = SMALL.settings
    result = ingest(
        store, files, fps=25, anterior=names.anterior, posterior=names.posterior,
        skeleton=names.skeleton,
    )  # fmt: skip
    assert result.added == SMALL.session_names
    assert result.n_frames == 600
    assert not result.notes
    assert not result.known
    assert read_settings(store) == names
    data = access.dataset(store, "keypoints").load()
    for i in range(3):
        truth = simulate_session(SMALL, i)
        np.testing.assert_allclose(data.position.values[i], truth.position, atol=6e-4)
        np.testing.assert_allclose(data.confidence.values[i], truth.confidence, atol=6e-4)


def test_ingest__keypoints_subset_in_the_order_asked(files, store, tmp_path):
    ingest(tmp_path / "all.zarr", files)
    ingest(store, files, keypoints=["point3", "point0"])
    whole = access.dataset(tmp_path / "all.zarr", "keypoints").load()
    some = access.dataset(store, "keypoints").load()
    assert [str(k) for k in whole.keypoint.values] == [f"point{i}" for i in range(4)]
    assert [str(k) for k in some.keypoint.values] == ["point3", "point0"]
    np.testing.assert_array_equal(some.position.values, whole.position.values[:, :, [3, 0]])
    np.testing.assert_array_equal(some.confidence.values, whole.confidence.values[:, :, [3, 0]])


def test_ingest__folder_and_pattern_find_the_same_files(files, tmp_path):
    folder = files[0].parent
    (folder / "notes.txt").write_text("weather: rain\n")
    (folder / "old.zarr").mkdir()
    shutil.copy(files[0], folder / "old.zarr" / "inside.csv")
    by_folder = ingest(tmp_path / "a.zarr", [folder])
    by_pattern = ingest(tmp_path / "b.zarr", [str(folder / "*.csv")])
    assert by_folder.added == by_pattern.added == SMALL.session_names
    assert [note for note in by_folder.notes if "notes.txt" in note]
    assert {note.split()[-1] for note in by_pattern.notes} == {"(`fps=`)", "`kpms_zarr.pca`"}


def test_ingest__unlike_lengths_pad_with_nothing(store, tmp_path):
    short = write_csv(tmp_path / "short.csv", 40)
    long = write_csv(tmp_path / "long.csv", FRAMES_PER_CHUNK + 10)
    ingest(store, [short, long])
    assert {s.name: s.n_frames for s in access.sessions(store)} == {
        "long": FRAMES_PER_CHUNK + 10,
        "short": 40,
    }
    chunks = {name for name in tree(store / "keypoints" / "position") if name.startswith("c/")}
    assert chunks == {"c/0/0/0/0", "c/0/1/0/0", "c/1/0/0/0"}
    padding = access.dataset(store, "keypoints").position.isel(session=1, frame=slice(40, None))
    assert np.isnan(padding.values).all()


def test_ingest__later_longer_session_rewrites_no_chunk(files, store, tmp_path):
    ingest(store, files)
    before, when = tree(store), stamps(store)
    ingest(
        store, [write_csv(tmp_path / "later.csv", 900, keypoints=read_settings(store).keypoints)]
    )
    after, then = tree(store), stamps(store)
    chunks = [
        name for name in before if "/c/" in name and ("position" in name or "confidence" in name)
    ]
    assert len(chunks) == 6
    for name in chunks:
        assert after[name] == before[name]
        assert then[name] == when[name]
    assert access.dataset(store, "keypoints").sizes["frame"] == 900
    assert [s.n_frames for s in access.sessions(store)] == [200, 200, 200, 900]


def test_ingest__same_files_again_change_nothing(files, store):
    ingest(store, files)
    before, when = tree(store), stamps(store)
    result = ingest(store, files)
    assert result.added == ()
    assert result.known == SMALL.session_names
    assert result.n_frames == 0
    assert (tree(store), stamps(store)) == (before, when)


def test_ingest__same_content_under_another_name_is_recognised(files, store, tmp_path):
    ingest(store, files)
    before = tree(store)
    result = ingest(store, [shutil.copy(files[1], tmp_path / "renamed.csv")])
    assert result.known == ("session_001",)
    assert "renamed.csv: same content as session 'session_001'" in result.notes
    assert tree(store) == before


def test_ingest__individual_that_never_appears_is_left_out(store, tmp_path):
    path = write_csv(tmp_path / "two.csv", individuals={"ann": True, "bob": False})
    result = ingest(store, [path])
    assert result.added == ("two_ann",)
    assert [note for note in result.notes if "bob" in note]


def test_ingest__individual_without_the_chosen_keypoints_is_left_out_twice(store, tmp_path):
    text = write_csv(tmp_path / "two.csv", 5, individuals={"ann": True, "bob": True}).read_text()
    lines = text.splitlines()
    rows = [line.split(",") for line in lines]
    for row in rows[4:]:
        row[10:13] = ["", "", ""]  # bob's first keypoint
    path = tmp_path / "two.csv"
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    first = ingest(store, [path], keypoints=["a"])
    assert first.added == ("two_ann",)
    assert "two_bob: none of the keypoints is ever tracked, left out" in first.notes
    before = tree(store)
    second = ingest(store, [path])
    assert (second.added, second.known) == ((), ("two_ann",))
    assert tree(store) == before


def test_ingest__file_without_anything_tracked_is_left_out(store, tmp_path):
    empty = write_csv(tmp_path / "nothing.csv", 50, individuals={})
    rows = [line.split(",") for line in empty.read_text().splitlines()]
    empty.write_text(
        "\n".join(",".join(r if i < 3 else [r[0]] + [""] * 9) for i, r in enumerate(rows)) + "\n"
    )
    good = write_csv(tmp_path / "good.csv", 20)
    result = ingest(store, [good, empty])
    assert result.added == ("good",)
    assert [note for note in result.notes if note.startswith("nothing")]
    assert access.dataset(store, "keypoints").sizes["frame"] == 20
    again = ingest(store, [good, empty])
    assert (again.added, again.known) == ((), ("good",))
    error = refused(tmp_path / "other.zarr", [empty])
    assert len(error.problems) == 1
    assert "nothing.csv" in str(error)


def test_ingest__without_likelihood_says_so_and_has_no_confidence(store, tmp_path):
    result = ingest(store, [write_csv(tmp_path / "plain.csv", coords=("x", "y"))])
    assert [note for note in result.notes if "likelihood" in note]
    data = access.dataset(store, "keypoints")
    assert np.isnan(data.confidence.values).all()
    assert data.confidence.shape == data.position.shape[:3]
    assert not [name for name in tree(store) if name.startswith("keypoints/confidence/c/")]


def test_ingest__three_dimensions(store, tmp_path):
    ingest(store, [write_csv(tmp_path / "deep.csv", coords=("x", "y", "z", "likelihood"))])
    assert [str(s) for s in access.dataset(store, "keypoints").space.values] == ["x", "y", "z"]


# --- what is refused -------------------------------------------------------------------


def spoil_text(path):
    path.write_text("once upon a time\n")


def spoil_empty(path):
    path.write_text("")


def spoil_truncated(path):
    text = path.read_text()
    path.write_text(text[: len(text) - 25])


def spoil_coordinate(path):
    lines = path.read_text().splitlines()
    cells = lines[-5].split(",")
    cells[4] = "tail"
    lines[-5] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "spoil", [spoil_text, spoil_empty, spoil_truncated, spoil_coordinate], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("is_new", [True, False])
def test_bad_file__last_of_three_leaves_the_store_as_it_was(spoil, is_new, files, store, tmp_path):
    if not is_new:
        names = read_names(files[0])
        ingest(store, [write_csv(tmp_path / "first.csv", 30, keypoints=names)])
    spoil(files[2])
    error = refused(store, files)
    assert len(error.problems) == 1
    assert str(files[2]) in str(error)
    assert store.exists() is not is_new
    ingest(store, files[:2])
    assert len(access.sessions(store)) == 2 + (not is_new)


def read_names(path):
    return list(dict.fromkeys(path.read_text().splitlines()[1].split(",")[1:]))


def test_bad_input__file_that_changed_after_it_was_ingested(files, store):
    ingest(store, files)
    write_csv(files[0], 20, keypoints=read_names(files[0]))
    error = refused(store, files)
    assert len(error.problems) == 1
    assert "`kpms_zarr.remove(STORE, 'session_000')`" in str(error)


def test_bad_input__array_of_a_name_that_is_taken(files, store):
    ingest(store, files[:1])
    names = read_names(files[0])
    with pytest.raises(InputError, match="taken by the store"):
        ingest(store, arrays={"session_000": np.zeros((5, 4, 2))}, keypoint_names=names)


@pytest.mark.parametrize("keypoints", ["ab", "abcd", "abx"])
def test_bad_input__keypoints_that_differ(keypoints, store, tmp_path):
    one = write_csv(tmp_path / "one.csv", keypoints="abc")
    two = write_csv(tmp_path / "two.csv", 12, keypoints=keypoints)
    error = refused(store, [one, two])
    assert len(error.problems) == 1
    assert "two.csv" in str(error)
    assert "`keypoints=['a', 'b'" in str(error)
    assert ingest(store, [one, two], keypoints=["a", "b"]).added == ("one", "two")


def test_bad_input__other_keypoints_than_the_store(files, store):
    ingest(store, files[:1])
    error = refused(store, files[1:], keypoints=["point1"])
    assert "`keypoints=['point1']`" in str(error)


def test_bad_input__two_dimensions_after_three(store, tmp_path):
    deep = write_csv(tmp_path / "deep.csv", coords=("x", "y", "z", "likelihood"))
    flat = write_csv(tmp_path / "flat.csv", 12)
    assert "flat.csv" in str(refused(store, [deep, flat]))
    ingest(store, [deep])
    error = refused(store, [flat])
    assert len(error.problems) == 1
    assert "2-D" in str(error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"anterior": ["point33"]}, "did you mean 'point3'"),
        ({"posterior": ["nose"]}, "'nose'"),
        ({"anterior": ["point1"], "posterior": ["point1"]}, "different keypoints"),
        ({"skeleton": [("point1", "tail")]}, "'tail'"),
        ({"fps": 0}, "frames per second"),
        ({"fps": float("nan")}, "frames per second"),
        ({"fps": -3}, "frames per second"),
        ({"format": "dlc"}, "`format=`"),
        ({"keypoints": ["point1", "point1"]}, "more than once"),
    ],
)
def test_bad_option__is_one_problem_and_no_store(options, said, files, store):
    error = refused(store, files, **options)
    assert len(error.problems) == 1
    assert said in str(error)
    assert not store.exists()
    ingest(store, files)
    refused(store, files, **options)


def test_bad_input__place_taken_by_something_else(files, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    zarr.create_array(str(tmp_path / "array"), shape=(3,), dtype="f4")
    zarr.create_group(str(tmp_path / "foreign"), zarr_format=3)
    zarr.create_group(str(tmp_path / "damaged"), zarr_format=3)
    (tmp_path / "damaged" / "zarr.json").write_text('{"zarr_for')
    for name in ("file", "folder", "array", "foreign", "damaged"):
        error = refused(tmp_path / name, files)
        assert len(error.problems) == 1
        assert str(tmp_path / name) in str(error)
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"


def test_bad_input__unknown_protocol(files):
    with pytest.raises(InputError, match="nope"):
        ingest("nope://bucket/study.zarr", files)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text")
def test_bad_input__file_name_that_is_no_text(files, store):
    odd = files[0].rename(files[0].with_name(os.fsdecode(b"m\xff.csv")))
    error = refused(store, [odd, *files[1:]])
    assert [problem.found for problem in error.problems] == ["one that is no text"]
    assert "m\\udcff.csv" in str(error)
    assert not store.exists()


def test_bad_input__very_many_keypoints(store, tmp_path):
    path = write_csv(tmp_path / "wide.csv", 3, keypoints=[f"k{i}" for i in range(1001)])
    assert "at most 1,000 keypoints" in str(refused(store, [path]))


def test_bad_input__nothing_to_read(store, tmp_path):
    (tmp_path / "bare").mkdir()
    for item in (tmp_path / "bare", tmp_path / "missing.csv", str(tmp_path / "*.nothing")):
        error = refused(store, [item])
        assert len(error.problems) == 1
        assert str(item) in str(error)
        assert not store.exists()
    assert "no files named" in str(refused(store, []))


def test_bad_input__all_problems_in_one_error(files, store, tmp_path):
    spoil_text(files[1])
    other = write_csv(tmp_path / "x" / files[0].name, 20, keypoints=read_names(files[0]))
    fewer = write_csv(tmp_path / "y" / "fewer.csv", 20, keypoints=read_names(files[0])[:2])
    error = refused(store, [*files, other, fewer, tmp_path / "missing.csv"], anterior=["nonsense"])
    found = [problem.where for problem in error.problems]
    assert len(found) == 4
    for where in (files[1], tmp_path / "missing.csv", fewer, "`anterior=`"):
        assert str(where) in found


def test_bad_input__all_damaged_files_in_one_error(files, store):
    spoil_truncated(files[0])
    spoil_coordinate(files[2])
    error = refused(store, files)
    assert len(error.problems) == 2
    assert not store.exists()


# --- killed ----------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from kpms_zarr.store.ingest import loading as module
from kpms_zarr.store.ingest.ingest import ingest
write, left = module._write_piece, [int(sys.argv[1])]
def write_then_die(*args):
    write(*args)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
module._write_piece = write_then_die
ingest(sys.argv[2], sys.argv[3:], workers=1)
"""


@pytest.mark.parametrize("is_new", [True, False])
def test_killed_ingest__is_invisible_and_repaired_by_the_next(is_new, files, store, tmp_path):
    first = () if is_new else files[:1]
    clean = tmp_path / "clean.zarr"
    for place in (store, clean):
        if first:
            ingest(place, first)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, "2", store, *files[len(first) :]], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert [s.name for s in access.sessions(store)] == list(SMALL.session_names[: len(first)])
    assert len(info(store).sessions) == len(first)
    ingest(store, files)
    ingest(clean, files)
    assert_same_store(store, clean)


def assert_same_store(one, other):
    # It says when the session came in.
    first, second = (
        access.dataset(s, "keypoints").drop_vars("ingest").load() for s in (one, other)
    )
    xr.testing.assert_identical(first.drop_attrs(), second.drop_attrs())
    assert read_settings(one) == read_settings(other)
    chunks = [
        {k: v for k, v in tree(s).items() if "/c/" in k and "/ingest/" not in k}
        for s in (one, other)
    ]
    assert chunks[0] == chunks[1]


@pytest.mark.parametrize("is_new", [True, False])
def test_killed_ingest__at_any_write(is_new, files, store, tmp_path, monkeypatch):
    """Replay an ingest stopped after every single write to the disk."""
    names = SMALL.settings
    options = {"anterior": names.anterior, "posterior": names.posterior}
    if not is_new:
        ingest(store, files[:1], **options)
    copies = []
    original = LocalStore.set

    async def set_and_copy(self, key, value):
        await original(self, key, value)
        copy = tmp_path / f"copy{len(copies)}.zarr"
        shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*.partial"))
        copies.append(copy)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", set_and_copy)
        ingest(store, files, workers=1, **options)
    assert len(copies) > 20
    before = 0 if is_new else 1
    for copy in some(copies, 5):
        assert len(access.sessions(copy)) in (before, 3)
        ingest(copy, files, **options)
        assert_same_store(copy, store)


def test_killed_ingest__binds_no_settings(store, files, tmp_path):
    """Rows without frames are no sessions: other keypoints may still be chosen."""
    subprocess.run([sys.executable, "-c", _KILLED, "1", store, *files], check=False)
    assert (store / "keypoints" / "zarr.json").exists()
    ingest(store, [write_csv(tmp_path / "other.csv", keypoints="def")])
    assert read_settings(store).keypoints == ("d", "e", "f")
    assert access.dataset(store, "keypoints").sizes["session"] == 1


def test_interrupted_ingest__leaves_the_store_as_it_was(files, store, monkeypatch):
    ingest(store, files[:1])

    def stop(*args):
        raise KeyboardInterrupt

    before = tree(store)
    monkeypatch.setattr("kpms_zarr.store.ingest.rows.RowAllocator._write", stop)
    with pytest.raises(KeyboardInterrupt):
        ingest(store, files)
    assert tree(store) == before
