"""Several individuals in a file: which become sessions, and what is said about the others."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from kpms_zarr import cli
from kpms_zarr.store.core import access
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.bodies import Individuals, kinds_of
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.parsers.base import FileHeader, TrackHeader
from kpms_zarr.store.study.settings import read_settings

PREY = {"mouse": "nose neck tail", "cricket": "head body"}


def write(path, individuals=PREY, seed=0):
    """A DeepLabCut csv with several individuals, and the keypoints of each."""
    columns = [(who, k, c) for who in individuals for k in individuals[who].split() for c in "xy"]
    rows = [["scorer", *["net"] * len(columns)]]
    for number, level in enumerate(("individuals", "bodyparts", "coords")):
        rows.append([level, *(column[number] for column in columns)])
    values = np.random.default_rng(seed).uniform(0, 99, (6, len(columns))).round(2)
    rows += [[str(i), *map(str, line)] for i, line in enumerate(values.tolist())]
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    return path


@pytest.fixture
def store(tmp_path):
    return tmp_path / "x.zarr"


@pytest.mark.parametrize(
    ("options", "added", "left_out"),
    [
        ({"individuals": ["mouse"]}, "mouse", "cricket"),
        ({"individuals": "m*"}, "mouse", "cricket"),
        ({"individuals": ["cricket", "c*"]}, "cricket", "mouse"),
        ({"keypoints": ["nose", "tail"]}, "mouse", "cricket"),
        ({"keypoints": ["body"]}, "cricket", "mouse"),
    ],
)
def test_individuals__that_are_asked_for_become_sessions(store, tmp_path, options, added, left_out):
    path = write(tmp_path / "day.csv")
    for dry_run in (True, False):
        result = ingest(store, path, dry_run=dry_run, **options)
        assert result.added == (f"day_{added}",)
        assert [note for note in result.notes if f"left out: `{left_out}`" in note]
    individual = access.dataset(store, "keypoints").individual.values.tolist()
    assert individual == [added]
    assert ingest(store, path, **options).known == (f"day_{added}",)


def test_several_bodies__are_refused_with_the_options_that_choose(store, tmp_path, capsys):
    """Each option that the message names does what it says."""
    three = {"mouse 1": PREY["mouse"], "mouse2": PREY["mouse"], "prey": PREY["cricket"]}
    for individuals in (PREY, three):
        path = write(tmp_path / "day.csv", individuals)
        with pytest.raises(InputError) as caught:
            ingest(store, path)
        problem = caught.value.problems[0]
        assert len(caught.value.problems) == 1
        words = shlex.split(re.sub("[;,] ", " ", for_shell(problem.fix)))
        options = [words[i : i + 2] for i, word in enumerate(words) if word.startswith("--")]
        assert [name for name, _ in options] == ["--individuals", "--individuals", "--keypoints"]
        for option in options:
            assert cli.main(["ingest", str(store), str(path), *option, "--dry-run"]) == 0
            assert not store.exists()


def test_several_bodies__in_all_files_are_one_problem(store, tmp_path):
    files = [write(tmp_path / f"day{i}.csv", seed=i) for i in range(3)]
    with pytest.raises(InputError) as caught:
        ingest(store, files)
    assert [p.where for p in caught.value.problems] == [
        f"{files[0]} and 2 more with the same bodies"
    ]
    assert ingest(store, files[:1], individuals=["mouse"]).added == ("day0_mouse",)
    # The study has its body now, so that the one which fits comes first.
    path = write(tmp_path / "day9.csv", dict(reversed(PREY.items())))
    with pytest.raises(InputError, match=r"one kind: `individuals=\['mouse'\]` or"):
        ingest(store, path)
    assert read_settings(store).keypoints == ("nose", "neck", "tail")


def test_individuals__that_no_file_has_are_a_problem_that_lists_them(store, tmp_path):
    path = write(tmp_path / "day.csv")
    with pytest.raises(InputError, match="`mouse`, `cricket`, found nothing for `rat\\*`"):
        ingest(store, path, individuals=["mouse", "rat*"])
    assert not store.exists()
    array = {"alone": np.zeros((5, 2, 2)) + np.arange(5)[:, None, None]}
    with pytest.raises(InputError, match="files that name their individuals"):
        ingest(store, arrays=array, individuals=["mouse"])


def test_individuals__by_name_part_or_both():
    tracks = (
        TrackHeader("ann", ("a",), part="top"),
        TrackHeader("bob", ("a",), part="top"),
        TrackHeader("ann", ("a",), part="side"),
        TrackHeader("", ("a", "b"), part="arena"),
    )
    header = FileHeader("nwb", Path("x.nwb"), ("x", "y"), tracks, False)
    for patterns, taken in [
        (["ann"], [0, 2]), (["top"], [0, 1]), (["top_ann"], [0]), (["*_ann", "bob"], [0, 1, 2]),
        (["ar[ea]na"], [3]), (["[x"], []),
    ]:  # fmt: skip
        chosen = Individuals(patterns)
        assert chosen.of(header)[0] == tuple(tracks[i] for i in taken)
        assert bool(chosen.problems()) is not bool(taken)
    assert [names for _, names in kinds_of(tracks)] == [("ann", "bob"), ("arena",)]
    same = (TrackHeader("one", ("a",), part="p"), TrackHeader("one", ("b",), part="q"))
    assert [names for _, names in kinds_of(same)] == [("p",), ("q",)]


def write_nwb(path, poses):
    """`poses`: by name of the object, names of its keypoints."""
    with h5py.File(path, "w") as file:
        file.attrs["neurodata_type"] = "NWBFile"
        for name, keypoints in poses.items():
            pose = file.create_group(f"processing/behavior/{name}")
            pose.attrs.update(neurodata_type="PoseEstimation", namespace="ndx-pose")
            for keypoint in keypoints.split():
                series = pose.create_group(keypoint)
                series.attrs.update(neurodata_type="PoseEstimationSeries", namespace="ndx-pose")
                series["data"] = np.random.default_rng(len(keypoint)).uniform(0, 9, (8, 2))
                series["starting_time"] = 0.0
                series["starting_time"].attrs["rate"] = 30.0
    return path


def test_individuals__of_several_pose_objects_are_chosen_by_object(store, tmp_path):
    path = write_nwb(tmp_path / "day.nwb", {"PoseMouse": "nose tail", "PoseArena": "corner"})
    with pytest.raises(InputError, match=r"individuals=\['PoseMouse"):
        ingest(store, path)
    assert ingest(store, path, individuals=["*Mouse"]).added == ("day_PoseMouse",)
    assert read_settings(store).keypoints == ("nose", "tail")
