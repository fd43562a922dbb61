"""The command line for files of labels, without a store: consensus and compare as people type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kpms_zarr
from kpms_zarr import cli

LENGTHS = {"mouse 1": 300, "mouse 2": 260}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A csv for each of four fits: three that nearly agree, and one that does less."""
    folder = tmp_path_factory.mktemp("fits")
    rng = np.random.default_rng(0)
    truth = {name: np.repeat(rng.integers(0, 4, n), 10)[:n] for name, n in LENGTHS.items()}
    paths = []
    for fit, share in enumerate((0.05, 0.1, 0.1, 0.3)):
        number, parts = 10 * (fit + rng.permutation(4)), []
        for name, z in truth.items():
            wrong = np.where(rng.random(len(z)) < share, rng.integers(0, 4, len(z)), z)
            columns = {"session": name, "frame": np.arange(len(z)), "syllable": number[wrong]}
            parts.append(pd.DataFrame(columns))
        paths.append(folder / f"fit{'ABCD'[fit]}.csv")
        pd.concat(parts).to_csv(paths[-1], index=False)
    return paths


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run one command line; returns its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(str(stop.code))
        return status, *capsys.readouterr()

    return run


def test_consensus__of_files_prints_what_summary_prints(files, tmp_path, run):
    out = tmp_path / "consensus.csv"
    line = ["consensus", "--labels", *files, "--out", out, "--fps", 30]
    status, said, err = run(*line, "--target-duration", "300ms")
    assert (status, err) == (0, "")
    for words in ("labels", "ARI with the consensus", "fitA", "median (ms)", "the mean of 6 pairs",
                  "syllable", "frequency", "bouts", "certainty", "replicability", "reading",
                  "two halves of the 4 chains, which share none: adjusted Rand index",
                  "of the frames lie in syllables that other chains find again",
                  "effective number of syllables", "mean certainty", f"labels: {out}"):  # fmt: skip
        assert words in said, words
    assert max(map(len, said.splitlines())) < 220
    result = kpms_zarr.consensus_of_labels(files, fps=30, target_duration=300)
    table = pd.read_csv(out)
    assert len(table) == sum(LENGTHS.values())
    for name, one in table.groupby("session"):
        z = result["syllable"].sel(session=name).values[: LENGTHS[str(name)]]
        assert (one["syllable"].values == z).all()
    # Whoever reads the csv again, reads these labels.
    status, said, _ = run("compare", "--labels", out, f"again={out}")
    assert status == 0
    assert "consensus, again" in said
    found = json.loads(run(*line, "--json")[1], parse_constant=pytest.fail)
    assert found["dims"]["member"] == 4
    assert "syllable" not in found["variables"]


def test_compare__of_files_alone_prints_figures_and_writes_a_page(files, tmp_path, run):
    page = tmp_path / "page.html"
    status, said, err = run("compare", "--labels", *files[:2], "--fps", "30", "--out", page)
    assert (status, err) == (0, "")
    for words in ("fitA, fitB", "ARI", "syllable of fitA", "matched in fitB", f"page: {page}"):
        assert words in said, words
    text = page.read_text("utf-8")
    assert "How far do the labels of fitA and fitB agree?" in text
    assert "Store " not in text.split("<header>")[1].split("</header>")[0]
    status, said, _ = run("compare", "--labels", *files)
    assert status == 0
    assert "mean Jaccard, 3 others" in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["consensus"], "expected a STORE, or files of labels behind --labels"),
        (["consensus", "--models", "a,b", "--model", "m"], "neither for --models"),
        (["consensus", "s.zarr", "--models", "a,b"], "add it: --model NAME"),
        (["consensus", "--models", "a,b", "--model", "m", "s.zarr"], "s.zarr"),
        (["consensus", "s.zarr", "--models", "a,b", "--model", "m", "--fps", "3"], "leave --fps"),
        (["consensus", "s.zarr", "--labels", "A", "B", "--out", "o.csv"], "leave the store out"),
        (["consensus", "--labels", "A", "B"], "add --out consensus.csv"),
        (["consensus", "--labels", "A", "--out", "o.csv"], "labels of two fits or more"),
        (["consensus", "--labels", "A", "A", "--out", "o.csv"], "each file once"),
        (["consensus", "--labels", "x=A", "x=B", "--out", "o.csv"], "NAME=FILE"),
        (["consensus", "--labels", "A", "B", "--out", "o.doc"], "--out: expected a file whose"),
        (["consensus", "--labels", "A", "B", "--out", "A"], "one of these files"),
        (["consensus", "--labels", "A", "B", "--model", "m", "--out", "o.csv"], "for --model"),
        (["consensus", "--labels", "A", "B", "--sweeps", "9", "--out", "o.csv"], "for --sweeps"),
        (["consensus", "--labels", "A", "B", "--out", "o.csv", "--target-duration", "1s"],
         "give --fps, or leave the duration out"),
        (["consensus", "--labels", "A", "other", "--out", "o.csv"], "session 'mouse 2'"),
        (["compare"], "expected a STORE, or files of labels behind --labels"),
        (["compare", "--labels", "A", "B", "--sessions", "a"], "neither for --sessions"),
        (["compare", "--labels", "A", "--models", "m"], "neither for --models"),
        (["compare", "--labels", "A", "store"], "write the store in front of the options"),
    ],
)  # fmt: skip
def test_wrong_lines__end_with_one_message_in_options(files, tmp_path, run, line, words):
    other = tmp_path / "other.csv"
    table = pd.read_csv(files[1])
    table[:-1].to_csv(other, index=False)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "zarr.json").write_text("{}")
    places = {"A": files[0], "B": files[1], "x=A": f"x={files[0]}", "x=B": f"x={files[1]}",
              "other": other, "store": tmp_path / "store", "o.csv": tmp_path / "o.csv"}  # fmt: skip
    status, out, err = run(*(places.get(word, word) for word in line))
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert "`" not in err
    assert not (tmp_path / "o.csv").exists()
