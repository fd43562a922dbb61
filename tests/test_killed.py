"""Commands that write to a store, killed at any moment: what was there, or what was to be there."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

import kpms_zarr
from helpers.killing import run_and_kill
from helpers.whole_study import Tables, write_study, write_tables
from kpms_zarr.cli import main
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.study.calibration import stored_calibration

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")

MANY, FEW = 16, 3
"""Moments at which each command is killed: in full, and in CI."""


# ------------------------------------------------------------------ what readers see


def digest(found: xr.Dataset | None) -> Any:
    """Something that differs when any value does; attributes say when and by whom it was made."""
    if found is None:
        return None
    parts = {}
    for name in sorted(map(str, found.variables)):
        values = found[name].values
        content = repr(values.tolist()).encode() if values.dtype.kind in "OTU" else values.tobytes()
        parts[name] = (values.shape, hashlib.sha256(content).hexdigest())
    return parts


def group_of(store: Path, path: str) -> xr.Dataset | None:
    made = access.made(access.open_group(store), path)
    return access.dataset(store, path) if made else None


def levels_of(store: Path) -> xr.Dataset | None:
    found = kpms_zarr.open_levels(store, "m")
    return None if found is None else found.load()


def points_of(store: Path) -> xr.Dataset | None:
    try:
        return kpms_zarr.open_changepoints(store)
    except kpms_zarr.InputError:
        return None


def signals_of(store: Path) -> Any:
    try:
        return {n: kpms_zarr.open_signal(store, "dff", n).values.tobytes() for n in ("s0", "s3")}
    except kpms_zarr.InputError:
        return None


def times_of(store: Path) -> Any:
    """Times of frames; the number of their version counts the tries."""
    found = kpms_zarr.open_timestamps(store)
    return None if found is None else digest(found.drop_vars("version"))


def table_of(store: Path) -> xr.Dataset:
    """The sessions that there are, with all that is known of them, and their frames."""
    found = access.dataset(store, layout.KEYPOINTS).load()
    rows = found["n_frames"].values > 0
    return found.isel(session=rows).drop_vars("ingest")


READERS: dict[str, Callable[[Path], Any]] = {
    "sessions": lambda store: digest(table_of(store)),
    "quality": lambda store: digest(group_of(store, layout.QUALITY)),
    "pca": lambda store: digest(group_of(store, layout.PCA)),
    "calibration": lambda store: stored_calibration(access.open_group(store)),
    "changepoints": lambda store: digest(points_of(store)),
    "epochs": lambda store: digest(kpms_zarr.open_epochs(store)),
    "timestamps": times_of,
    "signals": signals_of,
    "labels": lambda store: digest(kpms_zarr.open_labels(store, "m")),
    "parameters": lambda store: digest(kpms_zarr.open_parameters(store, "m")),
    "levels": lambda store: digest(levels_of(store)),
    "names": lambda store: digest(kpms_zarr.syllable_names(store, "m")),
}


def seen(store: Path) -> dict[str, Any]:
    """Everything that a reader sees in a store."""
    return {name: read(store) for name, read in READERS.items()}


# ------------------------------------------------------------------ commands


class Command(NamedTuple):
    """A command that is killed.

    Attributes
    ----------
    words : function of the store and tables
    before : function of the same
        Command lines that come before it, so that it has something to replace.
    modules : tuple of str
        That it imports, imported once for all its processes.
    may_lack : tuple of str
        What is not there after some moments: made by one pass, anew by the same command, and said
        to be missing by all that need it.
    one_by_one : tuple of str
        What has parts that change one after the other, each of them at once.
    goes_on : function of the store, optional
        What brings the rest when the labels are there but not all that belongs to them.
    """

    words: Callable[[Path, Tables], Sequence[object]]
    before: Callable[[Path, Tables], Sequence[Sequence[object]]] = lambda store, tables: ()
    modules: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = ()
    goes_on: Callable[[Path], Any] | None = None
    one_by_one: tuple[str, ...] = ()

    def is_between(self, part: str, found: Any, before: Any, after: Any) -> bool:
        """Whether what readers see is neither the old nor the new."""
        if found in (before, after) or (found is None and part in self.may_lack):
            return False
        if part not in self.one_by_one:
            return True
        states = [state or {} for state in (found, before, after)]
        return any(
            states[0].get(name) not in (states[1].get(name), states[2].get(name))
            for name in set().union(*states)
        )


FAST = ("--outlier-scale", "none")
_KINEMATICS = ("kpms_zarr.compute.kinematics.changepoints",)
_HIERARCHY = ("kpms_zarr.compute.runs.hierarchy.merge",)
_CALIBRATE = ("kpms_zarr.compute.tracking.calibrate",)

COMMANDS = {
    "changepoints": Command(
        lambda store, _: ["changepoints", store, *FAST, "--window", "200ms"],
        lambda store, _: [["changepoints", store, *FAST]],
        _KINEMATICS,
    ),
    "merge": Command(
        lambda store, _: ["merge", store, "--model", "m", "--groups", "0,1"],
        lambda store, _: [["name", store, "--model", "m", "1", "rear"]],
        _HIERARCHY,
        ("levels",),
        lambda store: kpms_zarr.build_levels(store, "m"),
    ),
    "name": Command(
        lambda store, _: ["name", store, "--model", "m", "1", "rear"],
        lambda store, _: [["name", store, "--model", "m", "1", "rise"]],
    ),
    "calibrate": Command(
        lambda store, _: ["calibrate", store],
        modules=_CALIBRATE,
        may_lack=("calibration",),
    ),
    "epochs": Command(lambda store, tables: ["epochs", store, tables.epochs]),
    "annotate": Command(
        lambda store, tables: ["annotate", store, tables.groups],
        one_by_one=("sessions",),
    ),
    "annotate again": Command(
        lambda store, tables: ["annotate", store, tables.regrouped],
        lambda store, tables: [["annotate", store, tables.groups]],
        one_by_one=("sessions",),
    ),
    "quality": Command(
        lambda store, _: ["quality", store, "--confidence-threshold", "0.7"],
        lambda store, _: [["quality", store]],
        ("kpms_zarr.compute.tracking.quality",),
        may_lack=("quality",),
    ),
    "pca": Command(
        lambda store, _: ["pca", store, "--confidence-threshold", "0.7"],
        lambda store, _: [["pca", store]],
        ("kpms_zarr.compute.pose.pca",),
        may_lack=("pca",),
    ),
    "timestamps": Command(lambda store, tables: ["timestamps", store, tables.times]),
    "signals": Command(
        lambda store, tables: ["signals", store, tables.signal],
        one_by_one=("signals",),
    ),
    "remove": Command(
        lambda store, _: ["remove", store, "s1"],
        lambda store, _: [["quality", store], ["pca", store]],
        may_lack=("quality", "pca"),
    ),
    "versions": Command(
        lambda store, _: ["versions", store, "--model", "m", "--use", "v1"],
        lambda store, _: [["merge", store, "--model", "m", "--groups", "0,1"]],
        _HIERARCHY,
        ("levels",),
        lambda store: kpms_zarr.build_levels(store, "m"),
    ),
}  # fmt: skip
IN_CI = ("name",)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Tables]:
    folder = tmp_path_factory.mktemp("killed")
    write_study(folder / "s.zarr")
    return folder / "s.zarr", write_tables(folder / "tables")


@pytest.mark.parametrize(
    "name",
    [name if name in IN_CI else pytest.param(name, marks=pytest.mark.full) for name in COMMANDS],
)
def test_killed__leaves_the_old_or_the_new_and_nothing_between(name, made, tmp_path, full, capsys):
    """Killed before any of its changes, with what a cut write or half a deletion leaves."""
    command, (study, tables) = COMMANDS[name], made
    first = shutil.copytree(study, tmp_path / "first.zarr")
    for words in command.before(first, tables):
        assert main([str(word) for word in words]) == 0
    before = seen(first)
    whole = shutil.copytree(first, tmp_path / "whole.zarr")
    (ended,) = run_and_kill([(None, command.words(whole, tables))], command.modules)
    assert ended.status == 0
    after = seen(whole)
    assert after != before
    number = min(ended.n_changes, MANY if full else FEW)
    moments = np.unique(np.linspace(1, ended.n_changes, number).round().astype(int)).tolist()
    places = [shutil.copytree(first, tmp_path / f"{moment}.zarr") for moment in moments]
    jobs = [(moment, command.words(place, tables))
            for moment, place in zip(moments, places, strict=True)]  # fmt: skip
    for one, moment in zip(run_and_kill(jobs, command.modules), moments, strict=True):
        assert one == (-signal.SIGKILL, moment)
    for moment, place in zip(moments, places, strict=True):
        found = seen(place)
        for part, value in found.items():
            between = command.is_between(part, value, before[part], after[part])
            assert not between, (part, moment)
        checked = kpms_zarr.verify(place)
        assert checked.is_sound, (moment, checked.damages)
        if found != after:
            is_there = command.goes_on is not None and found["labels"] == after["labels"]
            if is_there:
                command.goes_on(place)
            else:
                assert main([str(word) for word in command.words(place, tables)]) == 0
        assert seen(place) == after, moment
        kpms_zarr.verify(place, repair=True)
        assert kpms_zarr.verify(place).is_sound
        assert is_current(access.open_group(place))
    capsys.readouterr()
