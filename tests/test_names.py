"""Any name goes through ingest, options, addresses, report and removal as it was given."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr import cli
from kpms_zarr.store.core import names
from kpms_zarr.store.core.access import sessions
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.study.settings import read_settings, subset_keypoints
from kpms_zarr.viz.explore import link
from kpms_zarr.viz.explore.state import IN_URL

NASTY = (
    "nose ", "a,b", "x=y", '"quoted"', "it's", "50 %", "é", "e\u0301", "漢字", "-dash",
    "--anterior", "a*", "[ab]", "wh?t", "001", "true", "None", "a  b", "tail\\base", "$HOME",
    "#1", "a;b&c", "<b>", "group=a", "ear-left", "nose-", '"', "\\", "a\tb", "\u00a0x", "{x}",
    "nan", "1e3", ":", "~",
)  # fmt: skip
NAME = st.sampled_from(NASTY) | st.text(min_size=1, max_size=12)
NAMES = st.lists(NAME.filter(names.tidy), min_size=4, max_size=4, unique_by=names.tidy)
SESSION = NAME.filter(lambda name: names.tidy(name) and not set("/\\") & set(name))


def run(*arguments: str) -> None:
    assert cli.main([str(argument) for argument in arguments]) == 0


@settings(
    deadline=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(keypoints=NAMES, called=st.lists(SESSION, min_size=2, max_size=2, unique_by=names.tidy))
@example(keypoints=["\0", "nose", "a,b", "x=y"], called=["\0", "a"])
def test_names__go_through_the_command_line(
    keypoints: list[str], called: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given_names, stored = keypoints, [names.tidy(name) for name in keypoints]
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(40, 4, 2)) for name in called}
    with TemporaryDirectory() as folder:
        store = f"{folder}/it's a study.zarr"
        kpms_zarr.ingest(store, arrays=arrays, keypoint_names=given_names, fps=30)
        assert read_settings(store).keypoints == tuple(stored)
        assert {one.name for one in sessions(store)} == {names.tidy(name) for name in called}
        front, rear = (f"--{side}={names.joined([n])}" for side, n in zip(
            ("anterior", "posterior"), given_names, strict=False))  # fmt: skip
        run("pca", store, front, rear)
        study = read_settings(store)
        assert (*study.anterior, *study.posterior) == tuple(stored[:2])
        use = f"--use-keypoints={names.joined(given_names[:3])}"
        which = f"--sessions={names.joined(called[:1])}"
        options = cli.parser().parse_args(["fit", store, "--model", "m", use, which])
        assert subset_keypoints(study, options.use_keypoints).keypoints == tuple(stored[:3])
        (one,) = select_sessions(store, options.sessions)
        assert one.name == names.tidy(called[0])
        chosen = {"session": names.tidy(called[0]), "keypoint": stored[0]}
        state: Any = SimpleNamespace(**{name: chosen.get(name, "") for name in IN_URL})
        found = link.read(link.write(state, "?token=1"))
        assert {name: found[name] for name in chosen} == chosen
        capsys.readouterr()
        run("remove", "--json", store, "--", called[1])
        assert json.loads(capsys.readouterr().out)["removed"] == [names.tidy(called[1])]
        run("remove", store, "--", names.quoted(called[0]))
        assert not sessions(store)


@settings(deadline=None, max_examples=examples(15))
@given(keypoints=NAMES)
def test_names__of_a_file_are_those_of_the_options(keypoints: list[str]) -> None:
    keypoints = [" ".join(name.splitlines()).replace("\0", "") or "x" for name in keypoints]
    keypoints = [name if names.tidy(name) else "x" for name in keypoints]
    if len({names.tidy(name) for name in keypoints}) < 4 or any(map(is_odd, keypoints)):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["scorer", *["s"] * 12])
            rows.writerow(["bodyparts", *(name for name in keypoints for _ in range(3))])
            rows.writerow(["coords", *["x", "y", "likelihood"] * 4])
            rows.writerows([i, *np.arange(12) % 3 / 3 + i] for i in range(5))
        bone = "-".join(names.quoted(name, "-") for name in keypoints[:2])
        run(
            "ingest", f"{folder}/s.zarr", str(path), "--fps", "30", f"--skeleton={bone}",
            f"--keypoints={names.joined(keypoints[:3])}",
            f"--anterior={names.quoted(keypoints[0])}", f"--posterior={names.quoted(keypoints[1])}",
        )  # fmt: skip
        study = read_settings(f"{folder}/s.zarr")
        stored = tuple(names.tidy(name) for name in keypoints[:3])
        assert study.keypoints == stored
        assert study.skeleton == (stored[:2],)


def is_odd(name: str) -> bool:
    """Control characters in a file are damage."""
    return any(not char.isprintable() and not char.isspace() for char in name)


@pytest.mark.parametrize(
    ("stored", "typed", "hint"),
    [
        ("Nose", "nose", "did you mean 'Nose' (upper and lower case differ)?"),
        ("tail base", "tailbase", "did you mean 'tail base' (blanks or '_' and '-' differ)?"),
        ("mouse, left", "mouse", "did you mean '\"mouse, left\"'?"),
        ("it's", "its", "did you mean 'it'\"'\"'s'?"),
    ],
)
def test_hints__can_be_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: str, typed: str, hint: str
) -> None:
    store = str(tmp_path / "s.zarr")
    array = np.random.default_rng(0).normal(size=(40, 3, 2))
    kpms_zarr.ingest(store, arrays={stored: array}, keypoint_names=[stored, "b", "c"], fps=30)
    for line in (
        ["pca", store, f"--anterior={typed}", "--posterior=b"],
        ["plan", store, "--sessions", typed],
    ):
        assert cli.main(line) == 2
        said = capsys.readouterr().err
        assert hint in said
        (word,) = shlex.split(hint.removeprefix("did you mean ").split("?")[0].split(" (upper")[0]
                              .split(" (blanks")[0])  # fmt: skip
        assert names.parse_names(word) == [stored]


def test_values_that_begin_with_a_dash__are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pca", "s.zarr", "--anterior", "-nose"])
    assert "--anterior=-nose" in capsys.readouterr().err


def test_names__that_are_one_without_blanks_are_refused(tmp_path: Path) -> None:
    rows = [
        ["scorer", *["s"] * 6],
        ["bodyparts", *["nose"] * 3, *["nose "] * 3],
        ["coords", *["x", "y", "likelihood"] * 2],
        *([frame, *range(6)] for frame in range(3)),
    ]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(kpms_zarr.InputError, match="'nose' and 'nose '"):
        kpms_zarr.ingest(tmp_path / "s.zarr", tmp_path / "a.csv")
    array = np.zeros((5, 2, 2))
    with pytest.raises(kpms_zarr.InputError, match="nose more than once"):
        kpms_zarr.ingest(tmp_path / "s.zarr", arrays={"a": array}, keypoint_names=["nose", "nose "])
    assert not (tmp_path / "s.zarr").exists()
