"""What becomes of everything in a folder: a session, a note or a problem, never nothing."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr import cli
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.finding import FileFinder
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.parsers import recognise

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
HEADER = "scorer,net,net,net\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n"


def tracking(seed=0, n_frames=4):
    """A small DeepLabCut csv, another one for every seed."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0, 99, (n_frames, 3)).round(3).tolist()
    return HEADER + "".join(f"{i},{x},{y},0.9\n" for i, (x, y, _) in enumerate(rows))


def hdf5(path, **content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return path.read_bytes()


def workbook(path, text):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        archive.writestr("xl/sharedStrings.xml", f"<sst><t>{text}</t></sst>")


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, tracking())


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    (place / "good.csv").write_text(tracking())
    return place


def looked_at(folder, **options):
    return ingest(folder.parent / "dry.zarr", folder, skip_bad=True, dry_run=True, **options)


# ------------------------------------------------------------------ what cannot be used


def problems_in(folder):
    """Name -> words that say what is wrong."""
    whole = tracking(1)
    good = hdf5(folder / "made.h5", tracks=np.zeros((1, 2, 3, 2000)), node_names=[b"a"])
    (folder / "made.h5").unlink()
    texts = {
        "cut.csv": (whole[:20], "scorer,net"),
        "empty.csv": ("", "an empty file"),
        "lines.csv": ("\n\n", "text beginning with ''"),
        "story.csv": ("once upon a time\n", "once upon a time"),
        "other_tracker.csv": ("time,centre_x,centre_y,speed,colour\n0,1,2,3,red\n", "the columns"),
        "no_header.csv": ("1.5,2.5,0.9\n1,2,0.8\n", "1.5,2.5,0.9"),
        "lfs.csv": ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        "annex.csv": ("/annex/objects/SHA256E-s5--00.csv\n", "git-annex"),
        "page.h5": ("<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "a web page"),
        "denied.csv": ('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        "cut.json": ('[{"boxes": [1, 2], "kp', "breaks off"),
        "openpose.json": (json.dumps({"people": [{"pose_keypoints_2d": [1.5] * 9}]}), "people"),
        "text.h5": (whole[:-30], "row 6"),
    }
    found = {name: text.encode() for name, (text, _) in texts.items()}
    words = {name: word for name, (_, word) in texts.items()}
    raw = {
        "cut.h5": (good[:-500], "cut off"),
        "nothing.h5": (hdf5(folder / "made"), "nothing in it"),
        "half.h5": (hdf5(folder / "made", node_names=[b"a"], track_names=[b"b"]), "HDF5 with"),
        "zeros.slp": (bytes(3000), "zero bytes"),
        "noise.mat": (b"\x00\x01\x02\xff" * 50, "binary"),
        "cut.parquet": (b"PAR1" + bytes(90) + b"x", "breaks off"),
        "packed.csv.bz2": (bz2.compress(whole.encode()), "bzip2"),
        "packed.h5.gz": (gzip.compress(good), "gzip"),
        "photo.csv": (b"\x89PNG\r\n\x1a\n" + bytes(50), "an image"),
        "day.csv.crdownload": (whole.encode(), "still being copied"),
    }
    (folder / "made").unlink()
    for name, (content, word) in raw.items():
        found[name], words[name] = content, word
    for name, content in found.items():
        (folder / name).write_bytes(content)
    archive(folder / "moved.zip", "day1.csv", "day1.mp4")
    workbook(folder / "as_saved.xlsx", "bodyparts")
    workbook(folder / "renamed.csv", "group")
    words |= {"moved.zip": "day1.csv", "as_saved.xlsx": "tracking in it", "renamed.csv": "Excel"}
    (folder / "gone.csv").symlink_to("nowhere.csv")
    (folder / "away.h5").symlink_to("../.git/annex/objects/x/y/SHA256E-s5.h5")
    return words | {"gone.csv": "a link to nothing", "away.h5": "git-annex"}


def test_folder__every_file_that_may_be_tracking_is_a_problem(folder):
    words = problems_in(folder)
    result = looked_at(folder)
    assert result.added == ("good",)
    assert {Path(path).name for path in result.reasons} == set(words)
    assert set(result.bad) == set(result.reasons)
    for path, why in result.reasons.items():
        assert words[Path(path).name] in why, path
    with pytest.raises(InputError) as caught:
        ingest(folder.parent / "x.zarr", folder)
    # Frames, where text.h5 breaks off, are read only once all headers are right.
    assert len(caught.value.problems) == len(words) - 1
    assert all("`skip_bad=True`" in problem.fix for problem in caught.value.problems)
    assert not (folder.parent / "x.zarr").exists()


def test_folder__is_taken_without_them_when_asked_and_the_exit_code_says_so(folder, capsys):
    (folder / "bad.csv").write_text("once upon a time\n")
    store = folder.parent / "x.zarr"
    line = ["ingest", str(store), str(folder)]
    assert cli.main(line) == 2
    assert cli.main([*line, "--dry-run"]) == 2
    for options in (["--dry-run"], ["--dry-run", "--json"], [], ["--json"]):
        capsys.readouterr()
        assert cli.main([*line, "--skip-bad", *options]) == 3
        out = capsys.readouterr().out
        if "--json" in options:
            assert list(json.loads(out)["reasons"]) == [str(folder / "bad.csv")]
        else:
            assert out.splitlines()[-1].split()[0] == str(folder / "bad.csv")
            assert "once upon a time" in out.splitlines()[-1]
    (folder / "bad.csv").unlink()
    assert cli.main(line) == 0


def test_file__that_changed_after_it_was_ingested_can_be_left_out(folder):
    store = folder.parent / "x.zarr"
    ingest(store, folder)
    (folder / "good.csv").write_text(tracking(5))
    (folder / "new.csv").write_text(tracking(6))
    with pytest.raises(InputError, match="has changed since"):
        ingest(store, folder)
    result = ingest(store, folder, skip_bad=True)
    assert (result.added, result.bad) == (("new",), (str(folder / "good.csv"),))
    assert [s.name for s in access.sessions(store)] == ["good", "new"]


def test_folder__with_nothing_but_bad_files_is_refused_even_so(folder):
    (folder / "good.csv").write_text("once upon a time\n")
    store = folder.parent / "x.zarr"
    for dry_run in (True, False):
        with pytest.raises(InputError, match="once upon a time"):
            ingest(store, folder, skip_bad=True, dry_run=dry_run)
    assert not store.exists()


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder shared/cases is not there")
def test_case__folder_with_damaged_recordings_is_refused(tmp_path, capsys):
    place = CASES / "41_damaged_in_folder"
    line = ["ingest", str(tmp_path / "x.zarr"), str(place), "--fps", "30"]
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    for name in ("day3.h5", "day4.csv", "day6.slp", "day7.csv"):
        assert str(place / name) in said
    assert cli.main([*line, "--skip-bad"]) == 3


def test_folder__that_cannot_be_entered_is_a_problem(folder, monkeypatch):
    (folder / "secret").mkdir()
    listed = os.listdir

    def refuse(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("kpms_zarr.store.ingest.finding.os.listdir", refuse)
    assert looked_at(folder).reasons == {str(folder / "secret"): "Permission denied"}


def test_file__without_permission_is_a_problem(folder, monkeypatch):
    opened = Path.open
    (folder / "mine.csv").write_text(tracking(1))

    def refuse(path, *args, **options):
        if path.name == "mine.csv":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    reasons = looked_at(folder, workers=1).reasons
    assert "Permission denied" in reasons[str(folder / "mine.csv")]


_HOLD = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(1, flush=True); sys.stdin.read()"


def test_file__that_another_program_holds_open_is_said_to_be_so(folder):
    hdf5(folder / "busy.h5", tracks=np.zeros((1, 2, 3, 20)), node_names=[b"a"])
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, folder / "busy.h5"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdout.readline()
        found = looked_at(folder).reasons
        process.stdin.close()
    assert "another program holds open" in found[str(folder / "busy.h5")]


# ------------------------------------------------------------------ what is of another kind


def others_in(folder):
    labelled = HEADER + "labeled-data/day1/img003.png,1,2,0.9\n"
    texts = {
        "day1.mp4": "not looked at",
        "config.yaml": "Task: x\n",
        "notes.txt": "weather: rain\n",
        "~$table.csv": "locked",
        "good.csv.bak": tracking(7),
        "table.csv": "name;group;age\nday1;control;12\nday2;drug;13\n",
        "stamps.csv": "Item1\n2024-01-01T10:00:00.1\n2024-01-01T10:00:00.2\n",
        "angles.csv": "knee,hip,fnum\n10.5,33.1,0\n10.6,33.2,1\n",
        "CollectedData_ann.csv": labelled,
        "day1_skeleton.csv": ",a_b,a_b,a_b\n,length,orientation,likelihood\n0,30,0,0.9\n",
        "results.csv": "syllable,centroid x,centroid y,heading\n1,2,3,0.5\n",
        "package.json": json.dumps({"name": "x", "sizes": [1, 2, 3, 4, 5, 6, 7]}),
        "learning_stats.csv": "10,0.0123,0.005\n20,0.0100,0.005\n",
        "log.json": '{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    results = {"day1/syllable": np.zeros(5), "day1/centroid": np.zeros((5, 2))}
    hdf5(folder / "results.h5", **results)
    hdf5(folder / "photometry.h5", signal=np.zeros(5), stamps=np.zeros(5))
    hdf5(folder / "v7.mat", params=np.zeros(5))
    workbook(folder / "mice.xlsx", "group")
    archive(folder / "videos.zip", "day1.mp4")
    (folder / "old.zarr").mkdir()
    (folder / ".git").mkdir()
    (folder / "away").symlink_to("/not/mounted")
    return {*texts, "results.h5", "photometry.h5", "v7.mat", "mice.xlsx", "videos.zip",
            "old.zarr", ".git", "away"}  # fmt: skip


def test_folder__files_of_other_kinds_are_notes(folder):
    names = others_in(folder)
    result = looked_at(folder)
    assert result.reasons == {}
    assert result.added == ("good",)
    said = [note for note in result.notes if note.startswith(str(folder))]
    for name in names:
        where = str(folder) if name.startswith(".") else str(folder / name)
        assert [note for note in said if note.startswith(f"{where}: ")], name
    assert len(said) == len(names)
    # Named by itself, each of them is refused.
    for name in ("table.csv", "CollectedData_ann.csv", "results.h5", "package.json"):
        with pytest.raises(InputError):
            ingest(folder.parent / "x.zarr", folder / name)


def test_folder__with_a_table_of_another_option_leaves_it_out(folder):
    """Even one that could not be told from tracking."""
    table = folder / "mice.csv"
    table.write_text("session,x,y\ngood,1,2\n")
    assert str(table) in looked_at(folder).reasons
    result = ingest(folder.parent / "x.zarr", folder, metadata=table)
    assert f"{table}: not a tracking file, but a table named in another option" in result.notes


def test_folder__without_any_tracking_file_says_what_there_is(folder):
    (folder / "good.csv").unlink()
    others_in(folder)
    with pytest.raises(InputError, match="without any tracking file") as caught:
        ingest(folder.parent / "x.zarr", folder)
    assert "(8 .csv, 2 .json, 2 .h5, 1 .yaml)" in str(caught.value)
    with pytest.raises(InputError, match="none"):
        ingest(folder.parent / "x.zarr", str(folder / "*.json"))


def test_pattern__is_searched_like_a_folder(folder):
    others_in(folder)
    (folder / "bad.h5").write_text("once upon a time\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "more.csv").write_text(tracking(2))
    result = ingest(folder.parent / "x.zarr", str(folder / "*"), skip_bad=True)
    assert result.added == ("good", "more")
    assert result.bad == (str(folder / "bad.h5"),)


def test_format__given_for_a_folder_leaves_other_formats_out_with_a_note(folder):
    (folder / "table.csv").write_text("frame,keypoint,x,y\n0,nose,1,2\n1,nose,1,3\n")
    (folder / "notes.txt").write_text("weather: rain\n")
    (folder / "cut.csv").write_text(tracking(1)[:20])
    result = ingest(folder.parent / "x.zarr", folder, format="dlc_csv", skip_bad=True)
    assert result.added == ("good",)
    assert result.bad == (str(folder / "cut.csv"),)
    assert [note for note in result.notes if "one of the format table" in note]


def test_recognise__csv_with_a_table_of_no_coordinates_is_another_kind(tmp_path):
    path = tmp_path / "a.csv"
    for text, is_other in [
        ("name,group\na,b\n", True),
        ("name,group\na,b,c\n", False),
        ("frame,nose_x,nose_y,speed,colour\n1,2,3,4,red\n", False),
        ("frame,X centre,Y centre\n1,2,3\n", False),
        ("scorer,a,b\n", False),
    ]:
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            recognise(path)
        assert (type(caught.value).__name__ == "OtherKindError") is is_other, text


# ------------------------------------------------------------------ links


def test_links__to_folders_are_entered_once(folder, tmp_path):
    far = tmp_path / "disk" / "mouse2"
    far.mkdir(parents=True)
    (far / "far.csv").write_text(tracking(2))
    (folder / "linked").symlink_to(far)
    (folder / "again").symlink_to(far)
    (far / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (tmp_path / "outside.csv").write_text(tracking(3))
    (folder / "copy.csv").symlink_to(folder / "good.csv")
    result = ingest(tmp_path / "x.zarr", folder)
    assert result.added == ("far", "good")
    said = "\n".join(result.notes)
    for name in ("linked", "again/loop", "self", "copy.csv", "up"):
        assert f"{folder / name}: " in said, name
    assert len(access.sessions(tmp_path / "x.zarr")) == 2


def test_finder__the_store_itself_is_no_folder_to_search(folder):
    store = folder / "study.zarr"
    ingest(store, folder)
    assert [one.path.name for one in FileFinder(str(store)).find([folder])] == ["good.csv"]
    assert ingest(store, folder).notes == ingest(store, folder / "good.csv").notes


# ------------------------------------------------------------------ any tree


_WORDS = st.sampled_from(["a", "b", "a_b", "day 1", "cam"])
_NAMES = st.sampled_from(
    ["a.csv", "cam.csv", "cam_filtered.csv", "cam (1).csv", "b.csv", "b_a.csv", "t.json", "v.mp4",
     "n.txt", "x.h5", "noext", ".hidden", "z.csv.gz"]
)  # fmt: skip
_CONTENTS = {
    **{f"tracking {seed}": tracking(seed).encode() for seed in range(4)},
    "table": b"name,group\nx,y\n",
    "junk": b"once upon a time\n",
    "zeros": bytes(40),
    "packed": gzip.compress(b"x"),
}
_FILES = st.dictionaries(
    st.tuples(st.lists(_WORDS, max_size=3).map(tuple), _NAMES),
    st.sampled_from([*_CONTENTS, "link up", "link nowhere", "link file"]),
    min_size=1,
    max_size=8,
)


def _make(root, files):
    root.mkdir()
    for (folders, name), what in files.items():
        path = root.joinpath(*folders, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() or path.is_symlink():
            continue
        if what == "link up":
            path.symlink_to(root)
        elif what == "link nowhere":
            path.symlink_to(root / "nowhere")
        elif what == "link file":
            path.symlink_to(next(p for p in [*sorted(root.rglob("*.csv")), root]))
        else:
            path.write_bytes(_CONTENTS[what])


def _is_told(path, root, told):
    """Whether a file is named by itself, or hidden in a folder of which that is said."""
    if any(part.startswith(".") for part in path.relative_to(root).parts):
        return any("hidden, not looked at" in text for text in told)
    return any(str(path) in text for text in told)


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(files=_FILES, data=st.data())
def test_any_tree__has_a_word_for_every_file_and_names_that_last(tmp_path_factory, files, data):
    base = tmp_path_factory.mktemp("tree")
    root, store = base / "data", base / "x.zarr"
    _make(root, files)
    everything = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    good = {p for p in everything if p.is_file() and not p.is_symlink()
            and p.read_bytes() in list(_CONTENTS.values())[:4]
            and not p.name.startswith(".") and p.suffix != ".mp4"}  # fmt: skip
    first = data.draw(st.sets(st.sampled_from(sorted(good)))) if good else set()
    names = {}
    if first:
        names = _by_hash(store, ingest(store, sorted(first)))
    try:
        result = ingest(store, root, skip_bad=True)
    except InputError as error:
        told = [f"{problem.where}: {problem.found}" for problem in error.problems]
        assert not good or any("changed" in text for text in told)
        result = None
    if result is not None:
        now = _by_hash(store, result)
        assert now.items() >= names.items()
        assert len(set(now.values())) == len(now)
        assert len(now) == len({path.read_bytes() for path in good})
        told = [*result.notes, *result.reasons]
        silent = [path for path in everything if not _is_told(path, root, told)]
        assert set(silent) <= good
        # Those without a word are sessions, one for each content.
        assert len({path.read_bytes() for path in silent}) == len(silent)
        again = ingest(store, root, skip_bad=True)
        assert (again.added, _by_hash(store, again)) == ((), now)


def _by_hash(store, result):
    data = access.dataset(store, "keypoints")
    assert {*result.added, *result.known} <= set(data.session.values.tolist())
    return dict(zip(data.source_hash.values.tolist(), data.session.values.tolist(), strict=True))
