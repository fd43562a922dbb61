"""The same recording under two names: which is taken, and what is asked."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpms_zarr import cli
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.ingest.twins import cleanest
from kpms_zarr.store.study.result_names import result_of

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
HEADER = "scorer,net,net,net\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n"
DLC = "m1DLC_resnet50_ofJan1shuffle1_5000"


def write(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{i},{seed}.5,{i}.25,0.9\n" for i in range(3)))
    return path


def write_sleap(path, video=""):
    with h5py.File(path, "w") as file:
        file["tracks"] = np.random.default_rng(len(path.name)).uniform(0, 9, (1, 2, 1, 4))
        file["node_names"] = [b"nose"]
        file["track_names"] = [b"one"]
        file["track_occupancy"] = np.ones((4, 1))
        file["video_path"] = video
    return path


@pytest.fixture
def store(tmp_path):
    return tmp_path / "x.zarr"


@pytest.mark.parametrize(
    ("name", "video", "is_filtered"),
    [
        (f"{DLC}.csv", "m1", False),
        (f"{DLC}_filtered.csv", "m1", True),
        (f"{DLC}.h5", "m1", False),
        ("m1DLC_resnet50_ofJan1shuffle1_100000.csv", "m1", False),
        ("m1DLC_dlcrnetms5_ofJan1shuffle1_5000_el_filtered.h5", "m1", True),
        ("m1DLC_Resnet50_ofJan1shuffle1_snapshot_200.h5", "m1", False),
        ("m1DeepCut_resnet50_ofJan1shuffle1_5000.csv", "m1", False),
        ("m1_superanimal_topviewmouse_hrnetw32.h5", "m1", False),
        (f"{DLC} (1).csv", "m1", False),
        (f"{DLC} - Copy (2).csv", "m1", False),
        (f"Copy of {DLC}.csv", "m1", False),
        (f"{DLC} copy 2.csv", "m1", False),
        (f"{DLC}.csv.gz", "m1", False),
        ("m1.slp", "m1", False),
        ("m1.mp4.predictions.slp", "m1", False),
        ("m1.predictions.analysis.h5", "m1", False),
        ("labels.v001.000_m1.analysis.h5", "m1", False),
        ("m1_filtered.csv", "m1", True),
        ("filtered_m1.csv", "m1", True),
        ("m1_unfiltered.csv", "m1_unfiltered", False),
        ("m1.2.csv", "m1.2", False),
        ("m1_cam2.csv", "m1_cam2", False),
        ("raw_clip1DLC_resnet50_x.csv", "raw_clip1", False),
    ],
)
def test_name__tells_video_and_filter(name, video, is_filtered):
    result = result_of(name)
    assert (result.video, result.is_filtered) == (video, is_filtered)


@given(st.permutations(["x.csv", "x (1).csv", "x - Copy.csv", "Copy of x.csv", "x copy.csv"]))
def test_copies__leave_their_names_to_the_first(names):
    assert cleanest([Path(name) for name in names]) == Path("x.csv")
    assert cleanest([Path("b/longer.csv"), Path("a/short.csv")]) == Path("a/short.csv")


def test_same_content__is_one_session_under_the_cleaner_name(store, tmp_path):
    path = write(tmp_path / "data" / f"{DLC}.csv")
    copies = [shutil.copy(path, path.with_name(f"{DLC}{mark}.csv")) for mark in (" (1)", " - Copy")]
    for number, files in enumerate(itertools.permutations([path, *map(Path, copies)])):
        result = ingest(tmp_path / f"{number}.zarr", files)
        assert (result.added, result.known) == ((DLC,), ())
        assert not result.warnings
        for copy in copies:
            assert f"{copy}: the same content as {path}, left out" in result.notes
    # Later, the session keeps the name that it has.
    ingest(store, copies[0])
    assert ingest(store, tmp_path / "data").known == (f"{DLC} (1)",)


def test_raw_and_filtered__are_both_taken_with_a_warning_that_asks(store, tmp_path, capsys):
    raw = write(tmp_path / "data" / f"{DLC}.csv")
    filtered = write(tmp_path / "data" / f"{DLC}_filtered.csv", 1)
    write(tmp_path / "data" / "m2DLC_resnet50_ofJan1shuffle1_5000.csv", 2)
    result = ingest(store, tmp_path / "data")
    assert len(result.added) == 3
    assert len(result.warnings) == 1
    for word in (str(raw), str(filtered), "prefer='filtered'", "prefer='raw'", "1 video has"):
        assert word in result.warnings[0]
    assert "m2" not in result.warnings[0]
    assert not ingest(store, tmp_path / "data").warnings
    line = ["ingest", str(tmp_path / "y.zarr"), str(tmp_path / "data")]
    assert cli.main([*line, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "warning: 1 video has" in out
    assert "--prefer filtered" in out
    assert cli.main([*line, "--prefer", "filtered"]) == 0
    out = capsys.readouterr().out
    assert "warning" not in out
    assert f"note: {raw}: left out, another result" in out
    names = [session.name for session in access.sessions(tmp_path / "y.zarr")]
    assert names == [f"{DLC}_filtered", "m2DLC_resnet50_ofJan1shuffle1_5000"]


@pytest.mark.parametrize("word", ["raw", "filtered"])
def test_prefer__takes_what_there_is_of_every_video(store, tmp_path, word):
    for mouse, marks in {"m1": ("", "_filtered"), "m2": ("",), "m3": ("_filtered",)}.items():
        for mark in marks:
            write(
                tmp_path / "data" / f"{mouse}DLC_net{mark}.csv", len(mouse + mark) + ord(mouse[1])
            )
    result = ingest(store, tmp_path / "data", prefer=word)
    first = "m1DLC_net" + ("_filtered" if word == "filtered" else "")
    assert result.added == (first, "m2DLC_net", "m3DLC_net_filtered")
    assert not result.warnings


def test_prefer__other_words_are_refused(store, tmp_path):
    with pytest.raises(InputError, match="prefer="):
        ingest(store, write(tmp_path / "a.csv"), prefer="best")


def test_session_that_is_there__is_named_when_its_twin_comes(store, tmp_path):
    ingest(store, write(tmp_path / f"{DLC}.csv"))
    result = ingest(store, write(tmp_path / f"{DLC}_filtered.csv", 1))
    assert len(result.warnings) == 1
    assert f"the session '{DLC}'" in result.warnings[0]
    assert not ingest(store, write(tmp_path / "other" / "m9DLC_net.csv", 2)).warnings


def test_filtered_in_a_folder_of_its_own__is_a_twin(store, tmp_path):
    write(tmp_path / "raw" / "m1.csv")
    write(tmp_path / "smooth" / "m1_filtered.csv", 1)
    assert len(ingest(store, tmp_path, dry_run=True).warnings) == 1
    # With two candidates there is no telling.
    write(tmp_path / "day2" / "m1.csv", 2)
    assert not ingest(store, tmp_path, dry_run=True).warnings


def test_networks_and_formats__of_one_video_are_twins(store, tmp_path):
    for names in (
        ["m1DLC_resnet50_ofJan1shuffle1_5000.csv", "m1DLC_resnet50_ofJan1shuffle1_9000.csv"],
        ["m1 (1).csv", "m1.csv"],
    ):
        files = [write(tmp_path / names[0][:9] / n, i) for i, n in enumerate(names)]
        result = ingest(store, files, dry_run=True)
        assert len(result.added) == 2
        assert all(str(path) in result.warnings[0] for path in files)
    exported = write_sleap(tmp_path / "day1.analysis.h5", "/videos/clip.mp4")
    other = write(tmp_path / "clipDLC_net.csv", 3)
    result = ingest(store, [exported, other], dry_run=True)
    assert str(other) in result.warnings[0]
    # Two files of one format on a video are of two animals.
    animals = [write_sleap(tmp_path / f"clip_{n}.h5", "C:\\v\\clip.mp4") for n in ("ann", "bobby")]
    assert not ingest(store, animals, dry_run=True).warnings


def test_recordings_that_are_counted__are_no_copies(store, tmp_path):
    """Windows numbers files that are renamed together: mouse (1), mouse (2), ..."""
    files = [write(tmp_path / f"mouse ({number}).csv", number) for number in range(1, 4)]
    result = ingest(store, files, dry_run=True)
    assert (len(result.added), result.warnings) == (3, ())
    folders = [write(tmp_path / f"day{n}" / f"{DLC}.csv", n) for n in range(3)]
    result = ingest(store, folders, dry_run=True)
    assert (len(result.added), result.warnings) == (3, ())


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder shared/cases is not there")
def test_csv_and_h5_of_one_analysis__are_one_session(store, tmp_path):
    original = CASES / "39_rows_not_consecutive" / "vidDLC_dlcrnetms5_x_el.h5"
    h5 = Path(shutil.copy(original, tmp_path / "v1DLC_net.h5"))
    csv = write(tmp_path / "v1DLC_net.csv")
    names = {"h5": h5, "csv": csv}
    for prefer, taken in [(None, "h5"), ("h5", "h5"), ("csv", "csv")]:
        result = ingest(store, [csv, h5], prefer=prefer, keypoints=["nose"], dry_run=True)
        assert len({name.removeprefix("v1DLC_net") for name in result.added}) == len(result.added)
        other = names["csv" if taken == "h5" else "h5"]
        assert [note for note in result.notes if note.startswith(f"{other}: left out")]
        assert not result.warnings
    # What is in the store already stays, and its twin is not added to it.
    ingest(store, csv)
    again = ingest(store, [csv, h5])
    assert (again.added, again.known) == ((), ("v1DLC_net",))


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder shared/cases is not there")
def test_case__folder_of_deeplabcut(store):
    result = ingest(store, CASES / "07_dlc_video_folder")
    assert result.added == (DLC, f"{DLC}_filtered")
    assert result.known == ()
    assert len(result.warnings) == 1
