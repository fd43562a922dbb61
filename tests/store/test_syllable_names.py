"""Names of syllables: versions, several writers, processes that are killed, what is refused."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import kpms_zarr
from kpms_zarr.cli import main
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.errors import InputError, ReadOnlyError
from kpms_zarr.store.model import models, syllable_names
from kpms_zarr.store.model.syllable_names import name_syllable, read_names
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=1, n_frames=300)
N_STATES = 12

NAME = """
import sys
from kpms_zarr.store.model.syllable_names import name_syllable
store, first = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for syllable in range(first, first + 4):
    name_syllable(store, "m", syllable, name=f"name {syllable}")
"""

KILLED = """
import os, sys
from kpms_zarr.store.model import syllable_names
def die(*_, **__):
    os._exit(9)
def write(*a, original=syllable_names.layout.write_values, **k):
    original(*a, **k)
    die()
for place in sys.argv[1:]:
    child = os.fork()
    if not child:
        where = os.path.basename(place)
        if where == "arrays":
            syllable_names.layout.write_values = die
        elif where == "provenance":
            syllable_names.layout.write_values = write
        elif where == "current":
            syllable_names.update_attributes = die
        elif where == "consolidate":
            syllable_names.consolidate = die
        syllable_names.name_syllable(place, "m", 2, name="lost")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, place
"""


def damaged_names(store) -> list:
    """What verify finds; these labels have no poses, which is not what is tested here."""
    return [found for found in kpms_zarr.verify(store).damages if "names" in found.where]


def publish(store, *, parameters: str = "") -> str:
    """A version of labels; "" = with parameters of its own."""
    root = access.open_group(store, "r+")
    sessions = access.sessions(root)
    writer = models.LabelWriter(
        root, "m", sessions=sessions, settings=STUDY.settings, parameters_version=parameters
    )
    labels = np.arange(300) // 25 % N_STATES
    for session in sessions:
        writer.write(Block(session.index, 0, 300), {"syllable": labels[: session.n_frames]})
    statistics = {
        "frequency": np.full(N_STATES, 1 / N_STATES),
        "n_bouts": np.ones(N_STATES, int),
        "median_duration": np.full(N_STATES, 833.0),
        "mean_duration": np.full(N_STATES, 833.0),
        "duration_count": np.zeros((N_STATES, 3), int),
        "duration": np.arange(3.0),
        "transition_count": np.zeros((N_STATES, N_STATES), int),
        "median_duration_overall": 833.0,
    }
    return writer.publish("fit", {}, statistics)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "s.zarr"
    write_store(path, STUDY)
    publish(path)
    return path


@pytest.fixture
def store(tmp_path: Path, published: Path) -> Path:
    return shutil.copytree(published, tmp_path / "s.zarr")


# ------------------------------------------------------------------ versions


def test_names__nobody_gave_any(store):
    names = read_names(store, "m")
    assert (names.version, names.name(3), names.label(3), names.description(3)) == (
        "",
        "3",
        "3",
        "",
    )
    assert names.name(-1) == "none"
    assert kpms_zarr.syllable_names(store, "m").sizes["state"] == 0


def test_names__every_change_is_a_version_and_the_old_ones_stay(store):
    name_syllable(store, "m", 3, name="rear", description="stands up")
    before = {p: p.read_bytes() for p in (store / "models/m/names/v1").rglob("*") if p.is_file()}
    after = name_syllable(store, "m", 5, name="  walk ")
    assert after.version == "v2"
    assert after == read_names(store, "m")
    assert [after.name(one) for one in (3, 4, 5)] == ["rear", "4", "walk"]
    assert after.label(3) == "3 rear"
    assert after.description(3) == "stands up"
    name_syllable(store, "m", 3, description="")
    assert read_names(store, "m").description(3) == ""
    assert read_names(store, "m").name(3) == "rear"
    assert name_syllable(store, "m", 3, name="").name(3) == "3"
    assert before == {path: path.read_bytes() for path in before}
    old = xr.open_zarr(store, group="models/m/names/v1", consolidated=False)
    assert old["name"].values[3] == "rear"
    assert old.attrs["parameters"] == "v1"


def test_names__the_same_again_writes_nothing(store):
    name_syllable(store, "m", 3, name="rear")
    assert name_syllable(store, "m", 3, name="rear").version == "v1"
    assert name_syllable(store, "m", 4, name="").version == "v1"
    assert not (store / "models/m/names/v2").exists()


def test_names__of_another_fit_are_not_inherited_those_of_apply_are(store):
    name_syllable(store, "m", 3, name="rear")
    publish(store, parameters="v1")
    assert read_names(store, "m").name(3) == "rear"
    publish(store)
    assert read_names(store, "m").name(3) == "3"
    name_syllable(store, "m", 3, name="groom")
    assert read_names(store, "m").name(3) == "groom"
    # Each keeps its own, whatever is named later.
    assert read_names(store, "m", "v2").name(3) == "rear"
    name_syllable(store, "m", 4, name="walk", version="v1")
    assert read_names(store, "m", "v1").name(4) == "walk"
    assert read_names(store, "m").name(4) == "4"


def test_names__consolidated_metadata_and_verify_agree(store):
    name_syllable(store, "m", 3, name="rear")
    name_syllable(store, "m", 4, name="walk")
    root = access.open_group(store)
    assert is_current(root)
    assert not damaged_names(store)
    assert kpms_zarr.verify(store).notes == []
    alone = xr.open_zarr(store, group="models/m/names/v2", consolidated=True)
    assert alone["name"].values[[3, 4]].tolist() == ["rear", "walk"]
    # The model, which has its own, says the same as the root.
    tree = xr.open_datatree(store, group="models/m", engine="zarr", consolidated=True)
    assert set(tree["names"].children) == {"v1", "v2"}
    assert json.loads(tree["names"].attrs["current"]) == {"v1": "v2"}


def test_names__table_is_what_xarray_users_want(store):
    name_syllable(store, "m", 3, name="rear", description="up")
    table = kpms_zarr.syllable_names(store, "m")
    assert table["name"].sel(state=3).item() == "rear"
    assert table.attrs == {"model": "m", "version": "v1", "parameters": "v1"}
    assert kpms_zarr.summary(store, model="m")["name"].sel(state=3).item() == "rear"


# ------------------------------------------------------------------ several at once


def test_names__two_processes_lose_nothing(store):
    command = [sys.executable, "-c", NAME, str(store)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, str(first)], **streams) for first in (0, 4)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    names = read_names(store, "m")
    assert [names.custom_name(one) for one in range(9)] == [
        *(f"name {one}" for one in range(8)),
        "",
    ]
    assert names.version == "v8"
    assert is_current(access.open_group(store))


def test_names__may_be_given_while_the_model_is_fitted(store):
    with model_lock(access.open_group(store, "r+"), store, "m"):
        assert name_syllable(store, "m", 1, name="rear").version == "v1"


def test_names__a_killed_writer_leaves_the_version_before_it(store, tmp_path):
    name_syllable(store, "m", 3, name="rear")
    places = [tmp_path / where for where in ("arrays", "provenance", "current", "consolidate")]
    for place in places:
        shutil.copytree(store, place)
    subprocess.run([sys.executable, "-c", KILLED, *places], timeout=120, check=True)
    for place in places:
        names = read_names(place, "m")
        assert names.name(3) == "rear"
        assert names.name(2) == ("lost" if place.name == "consolidate" else "2")
        assert not damaged_names(place)
        after = name_syllable(place, "m", 4, name="walk")
        assert [after.name(one) for one in (2, 3, 4)] == [names.name(2), "rear", "walk"]
        assert read_names(place, "m") == after
        assert is_current(access.open_group(place))


def test_names__on_remote_storage(tmp_path, monkeypatch):
    monkeypatch.setattr("kpms_zarr.store.core.locking._SETTLE_SECONDS", 0.05)
    url = f"memory://{tmp_path.name}/s.zarr"
    try:
        write_store(url, STUDY)
        publish(url)
        name_syllable(url, "m", 3, name="rear")
        assert name_syllable(url, "m", 4, name="walk").version == "v2"
        assert read_names(url, "m").name(3) == "rear"
        # The lease is gone, and nobody was told of it.
        assert "lock" not in access.open_group(url)["models/m/labels"]
        assert is_current(access.open_group(url))
    finally:
        fsspec.filesystem("memory").store.clear()


# ------------------------------------------------------------------ what is refused


def refusal(store, syllable=3, **texts) -> InputError:
    with pytest.raises(InputError) as caught:
        name_syllable(store, "m", syllable, **texts)
    for problem in caught.value.problems:
        assert all((problem.expected, problem.found, problem.where, problem.fix))
    assert not (store / "models/m/names").exists()
    return caught.value


@pytest.mark.parametrize("syllable", [-1, N_STATES, 10**6])
def test_names__of_a_syllable_that_is_none(store, syllable):
    assert f"0 to {N_STATES - 1}" in str(refusal(store, syllable, name="rear"))


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "\x00", "a\u202eb", "a\u2028b", "\x7f"])
def test_names__with_control_characters(store, text):
    assert f"U+{ord(text.strip('ab')):04X}" in str(refusal(store, name=text))


def test_names__all_problems_at_once(store):
    error = refusal(store, name="a" * 61, description="b\x00")
    assert len(error.problems) == 2
    assert "61 letters" in str(error)
    assert refusal(store)


def test_names__any_language_and_line_breaks_in_descriptions(store):
    name_syllable(store, "m", 3, name="Aufrichten (立ち上がる)", description="one\ntwo")
    assert read_names(store, "m").name(3) == "Aufrichten (立ち上がる)"
    assert read_names(store, "m").description(3) == "one\ntwo"
    # The same letter, composed and not, is the same name.
    name_syllable(store, "m", 4, name="e\u0301")
    assert read_names(store, "m").name(4) == "\u00e9"


def test_names__of_a_model_or_version_that_is_none(store):
    for call in (
        lambda: read_names(store, "nobody"),
        lambda: read_names(store, "m", "v7"),
        lambda: name_syllable(store, "nobody", 3, name="rear"),
    ):
        with pytest.raises(InputError):
            call()


def test_names__of_a_store_that_can_only_be_read(store, monkeypatch):
    # Root may write everywhere; what a read-only disk answers is simulated.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert isinstance(refusal(store, name="rear"), ReadOnlyError)

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(syllable_names, "names_lock", denied)
    assert "Access Denied" in str(refusal(store, name="rear"))


# ------------------------------------------------------------------ on the command line


@pytest.mark.parametrize(
    "order",
    [
        ["STORE", "--model", "m", "3", "rear", "--description", "up"],
        ["STORE", "3", "rear", "--model", "m", "--description", "up"],
        ["--model", "m", "STORE", "3", "--description", "up", "rear"],
    ],
)
def test_command__names_and_lists(store, capsys, order):
    words = [str(store) if word == "STORE" else word for word in order]
    assert main(["name", *words]) == 0
    assert capsys.readouterr().out == "syllable 3 rear: saved as version v1 of the names\n"
    assert main(["name", str(store), "--model", "m"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["3", "rear", "up"]
    assert main(["summary", str(store), "--model", "m"]) == 0
    assert "3 rear " in capsys.readouterr().out


def test_command__says_what_is_wrong(store, capsys):
    assert main(["name", str(store), "--model", "m"]) == 0
    assert "no names yet" in capsys.readouterr().out
    assert main(["name", str(store), "--model", "m", "99", "rear"]) == 2
    assert "0 to 11" in capsys.readouterr().err
    assert main(["name", str(store), "--model", "m", "--description", "up"]) == 2
    assert "SYLLABLE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["name", str(store), "--model", "m", "1", "rear", "more"])
