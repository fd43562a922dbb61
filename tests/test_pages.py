"""Commands and code of README and site, executed as they stand on files of a small study.

Every run of indented lines is executed in a folder of its own, which has what the lines take for
granted. What is named below as left out is executed elsewhere.
"""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import kpms_zarr
import kpms_zarr.viz
from helpers.browser import Server
from kpms_zarr import cli, demonstration
from kpms_zarr.compute.events import Committed
from kpms_zarr.store.study.clicks import Click, keep_click
from kpms_zarr.store.study.mouse.study import MouseStudy

HOME = Path(kpms_zarr.__file__).parents[1]
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]
# Called as the pages call them.
NAMES = {"tail_base": "tailbase", "mid_back": "spine", "left_ear": "ear"}
STUDY = MouseStudy(n_animals=3, n_frames=900)
MICE = tuple(f"mouse{i + 1}" for i in range(5))
KEYPOINTS = tuple(NAMES.get(name, name) for name in STUDY.settings.keypoints)
PROJECT_MODEL = "2024_05_31-10_00_00"
QUICK = ("--ar-sweeps", "3", "--sweeps", "3")

# Places that no test has, and what stands for them.
ELSEWHERE = {"/shared/": "", "s3://lab/": ""}
# Commands that do not end by themselves: begun, asked for their page, ended.
SERVERS = {"explore"}
# Executed by the tests of the command line, on nothing but their own terms.
LEFT_OUT = {"demo": "test_cli.py", "completion": "test_cli.py"}


class Block(NamedTuple):
    """Consecutive lines of one page."""

    page: str
    line: int
    commands: tuple[str, ...]

    @property
    def begins_with(self) -> str:
        """Fixture that it begins with: tracking files, a store without or with models, a demo."""
        text = "\n".join(self.commands)
        if "kpms-zarr-demo/" in text:
            return "simulated"
        if "tracking/" in text or "study.zarr" not in text:
            return "inputs"
        return "bare" if re.search(r" fit .*--model (first|agreed|ours)\b", text) else "base"


def blocks() -> Iterator[Block]:
    """Yield what pages say to type: indented lines, and commands in the text."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in re.finditer(r"(?:^    kpms-zarr .*\n)+", text, re.M):
            lines = tuple(line.strip() for line in found[0].splitlines())
            yield Block(page.name, text.count("\n", 0, found.start()) + 1, lines)
        for found in re.finditer(r"`(kpms-zarr [^`]*(?:study\.zarr|--labels) ?[^`]*)`", text):
            command = " ".join(found[1].split())
            yield Block(page.name, text.count("\n", 0, found.start()) + 1, (command,))


def codes() -> Iterator[tuple[str, int, str]]:
    """Yield the blocks of Python of all pages."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
            yield page.name, text.count("\n", 0, found.start()) + 1, found[1]


BLOCKS, CODES = list(blocks()), list(codes())


def elsewhere(text: str) -> str:
    for place, here in ELSEWHERE.items():
        text = text.replace(place, here)
    return text


def typed(command: str, *more: str) -> int:
    """Do what a shell does with a line; returns the exit code."""
    words = shlex.split(elsewhere(command), comments=True)
    assert words.pop(0) == "kpms-zarr"
    expanded = [
        name
        for word in words
        for name in (sorted(glob.glob(word)) or [word] if "*" in word else [word])
    ]
    return cli.main([*expanded, *more])


def write_tracking(folder: Path, numbers: range) -> None:
    """Write files of mice, called as people call them."""
    made = kpms_zarr.simulate(folder / "made", n_animals=3, n_frames=STUDY.n_frames)
    for i in numbers:
        text = made[i].read_text("utf-8")
        for before, name in NAMES.items():
            text = text.replace(before, name)
        (folder / f"{MICE[i]}.csv").write_text(text, "utf-8")
    shutil.rmtree(folder / "made")


def write_labels(path: Path, seed: int) -> None:
    """Write labels of the first four mice as csv or npz: the true ones, some of them changed."""
    rng = np.random.default_rng(seed)
    labels = {}
    for i, mouse in enumerate(MICE[:4]):
        true = STUDY.session(i).syllable
        labels[mouse] = np.where(rng.random(len(true)) < 0.1, rng.integers(0, 5, len(true)), true)
    if path.suffix == ".npz":
        np.savez(path, **labels)
        return
    pd.concat(
        pd.DataFrame({"session": name, "frame": np.arange(len(row)), "syllable": row})
        for name, row in labels.items()
    ).to_csv(path, index=False)


def write_project(folder: Path) -> None:
    """Write a project of keypoint-MoSeq, without its tracking files."""
    import h5py

    (folder / PROJECT_MODEL).mkdir(parents=True)
    settings = {
        "bodyparts": KEYPOINTS, "use_bodyparts": KEYPOINTS, "anterior_bodyparts": ["nose"],
        "posterior_bodyparts": ["tailbase"], "skeleton": [], "fps": 30, "latent_dim": 3,
    }  # fmt: skip
    (folder / "config.yml").write_text(json.dumps(settings), "utf-8")
    with h5py.File(folder / PROJECT_MODEL / "results.h5", "w") as file:
        for i, mouse in enumerate(MICE[:4]):
            one, n = file.create_group(mouse), STUDY.n_frames
            one.attrs["type"] = "dict"
            one["syllable"] = STUDY.session(i).syllable.astype(np.int64)
            one["latent_state"] = np.zeros((n, 3))
            one["centroid"] = np.zeros((n, 2))
            one["heading"] = np.zeros(n)


def write_inputs(folder: Path) -> None:
    """Write every file that a page names."""
    write_tracking(folder / "tracking", range(4))
    write_tracking(folder / "new", range(4, 5))
    write_project(folder / "my_project")
    for i, name in enumerate(["fit1.csv", "fit2.csv", "fit3.npz", "A.csv", "B.csv"]):
        write_labels(folder / name, i)
    shutil.copy(folder / "my_project" / PROJECT_MODEL / "results.h5", folder)
    times = np.arange(STUDY.n_frames) / 30 + 100
    pd.DataFrame({"session": "mouse1", "frame": np.arange(len(times)), "time_s": times}).to_csv(
        folder / "times.csv", index=False
    )
    pd.concat(
        pd.DataFrame({"session": mouse, "time": times[::2] - 100, "dFF": np.sin(times[::2] + i)})
        for i, mouse in enumerate(MICE[:4])
    ).to_csv(folder / "photometry.csv", index=False)
    pd.DataFrame(
        {"session": ["mouse1"] * 2, "start_s": [0, 10], "stop_s": [10, None],
         "condition": ["saline", "drug"]}
    ).to_csv(folder / "epochs.csv", index=False)  # fmt: skip
    pd.DataFrame(
        {"session": MICE[:4], "group": ["a", "a", "b", "b"], "animal": MICE[:4]}
    ).to_csv(folder / "groups.csv", index=False)  # fmt: skip
    pd.DataFrame({"session": MICE[:4], "video": [f"{m}.mp4" for m in MICE[:4]]}).to_csv(
        folder / "table.csv", index=False
    )
    truth, rng = STUDY.session(0).position, np.random.default_rng(0)
    rows = [
        ("mouse1", frame, name, *(truth[frame, k] + rng.normal(size=2)))
        for frame in range(0, STUDY.n_frames, 5)
        for k, name in enumerate(KEYPOINTS)
        if np.isfinite(truth[frame, k]).all()
    ]
    pd.DataFrame(rows, columns=["session", "frame", "keypoint", "x", "y"]).to_csv(
        folder / "annotated.csv", index=False
    )
    (folder / "cluster.yaml").write_text(
        "jobs: 2\njobqueue:\n  local:\n    cores: 1\n    memory: 2GB\n"
        f"    log-directory: {folder}\n    local-directory: {folder}\n"
        f"    python: {sys.executable}\n    interface: lo\n"
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def bare(inputs, tmp_path_factory) -> Path:
    """A folder with all files and a store that is ready for fits."""
    folder = tmp_path_factory.mktemp("bare") / "folder"
    shutil.copytree(inputs, folder)
    store = str(folder / "study.zarr")
    heading = ("--anterior", "nose", "--posterior", "tailbase")
    for words in (
        ("ingest", store, str(folder / "tracking"), "--fps", "30", *heading),
        ("annotate", store, str(folder / "groups.csv")),
        ("quality", store),
        ("pca", store),
    ):
        assert cli.main(list(words)) == 0
    return folder


@pytest.fixture(scope="module")
def base(bare, tmp_path_factory) -> Path:
    """A folder with all files and a store with models, another one, and clicks."""
    folder = Path(shutil.copytree(bare, tmp_path_factory.mktemp("base") / "folder"))
    store = str(folder / "study.zarr")
    for words in (
        ("fit", store, "--model", "first", *QUICK),
        ("fit", store, "--model", "agreed", "--chains", "2", *QUICK),
        ("fit", store, "--model", "ours", "--stage", "ar", "--sweeps", "3"),
    ):
        assert cli.main(list(words)) == 0
    shutil.copytree(store, folder / "slow.zarr")
    session = STUDY.session(0)
    for frame in range(0, STUDY.n_frames, 2):
        place = session.position[frame, -1]
        if np.isfinite(place).all():
            keep_click(store, Click("mouse1", frame, KEYPOINTS[-1], tuple(map(float, place + 1))))
    return folder


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """A folder with the demonstration, made of fewer and shorter sessions."""
    folder = tmp_path_factory.mktemp("simulated") / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "STUDY", MouseStudy(n_animals=6, n_frames=600))
        patch.setattr(demonstration, "SWEEPS", 3)
        kpms_zarr.demo(folder / "kpms-zarr-demo")
    return folder


def interrupt(store: Path, model: str) -> None:
    """Begin a fit that does not come to its end."""

    def stop(event: object) -> None:
        if isinstance(event, Committed):
            raise ZeroDivisionError

    config = kpms_zarr.FitConfig(stage="ar", sweeps=3)
    with pytest.raises(ZeroDivisionError):
        kpms_zarr.fit(store, model=model, config=config, save_every=1, callbacks=[stop])


def prepare(block: Block, folder: Path) -> None:
    """Do what a page takes for granted: a fit that was interrupted, sessions that came later."""
    for command in block.commands:
        if found := re.search(r" fit .*--model (\w+).*--resume", command):
            interrupt(folder / "study.zarr", found[1])
    if " apply " in block.commands[0]:
        assert cli.main(["ingest", str(folder / "study.zarr"), str(folder / "new")]) == 0


def visit(command: str) -> None:
    """Begin a server, ask for its page, end it."""
    store = Path(shlex.split(command)[2]).resolve()
    server = Server(store)
    try:
        with urllib.request.urlopen(server.link, timeout=60) as answer:
            assert answer.status == 200
    finally:
        server.stop()


def is_shortened(command: str, page: str, full: bool) -> bool:
    """Whether a fit is made short: all but those of README where a run is full."""
    begins_anew = command.split()[1] == "fit" and "--resume" not in command
    return begins_anew and not (full and page == "README.md")


def do(block: Block, folder: Path, full: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for command in block.commands:
        name = command.split()[1]
        if name in LEFT_OUT:
            continue
        if name in SERVERS:
            visit(command)
            continue
        code = typed(command, *(QUICK if is_shortened(command, block.page, full) else ()))
        assert code == 0, f"{block.page}:{block.line}: {command}\n{capsys.readouterr().err}"


def test_blocks__are_found():
    assert len(BLOCKS) > 25
    assert sum(block.page == "README.md" for block in BLOCKS) > 4
    assert len(CODES) >= 4
    assert len(QUICKLY) > 2
    for words in LEFT_OUT.values():
        assert (HOME / "tests" / words).exists()


def test_block__with_a_command_that_fails_is_told(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(inputs, tmp_path / "folder"))
    bad = Block("x.md", 7, ("kpms-zarr info no.zarr",))
    with pytest.raises(AssertionError, match=r"x\.md:7"):
        do(bad, tmp_path, False, capsys)


# Of the others each fits models, as the demonstration and the workflow do in every run.
QUICKLY = [b for b in BLOCKS if not re.search(r"study\.zarr|doctor", " ".join(b.commands))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        block if block in QUICKLY else pytest.param(block, marks=pytest.mark.full)
        for block in BLOCKS
    ],
    ids=lambda block: f"{block.page}:{block.line}",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_commands__of_pages_do_what_they_say(block, tmp_path, monkeypatch, full, capsys, request):
    folder = Path(shutil.copytree(request.getfixturevalue(block.begins_with), tmp_path / "folder"))
    prepare(block, folder)
    monkeypatch.chdir(folder)
    do(block, folder, full, capsys)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "line", "code"), CODES, ids=lambda value: value if str(value).endswith("md") else ""
)
def test_code__of_pages_does_what_it_says(page, line, code, base, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(base, tmp_path / "folder"))
    monkeypatch.chdir(folder)
    session = STUDY.session(0)
    given = {
        "kpms_zarr": kpms_zarr,
        "times": np.arange(STUDY.n_frames) / 30 + 100,
        "position": session.position,
        "confidence": session.confidence,
    }
    if "arrays=" in code:
        shutil.rmtree(folder / "study.zarr")
    exec(compile(elsewhere(code), f"{page}:{line}", "exec"), given)
