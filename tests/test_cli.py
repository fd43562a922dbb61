"""The command line: what it parses, prints and refuses, and that it only maps to functions."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import types
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import kpms_zarr
from helpers.amount import some
from helpers.labels import publish_labels
from helpers.small import SMALL
from kpms_zarr import cli, demonstration
from kpms_zarr.cli import console, options
from kpms_zarr.cli.settings import COMMON
from kpms_zarr.store.core import access
from kpms_zarr.store.model.models import list_models, open_labels
from kpms_zarr.store.study.mouse.study import MouseStudy
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv, write_store

STUDY = SyntheticStudy(n_sessions=3, n_frames=1500, n_keypoints=6, missing_fraction=0.01)
HEADING = ["--anterior", STUDY.settings.anterior[0], "--posterior", STUDY.settings.posterior[0]]
SMALL_FIT = ["--stage", "ar", "--sweeps", "2", "--n-states", "10", "--latent-dim", "3"]
COMMANDS = (
    "run", "demo", "ingest", "info", "annotate", "epochs", "timestamps", "signals", "remove",
    "verify", "import-keypoint-moseq", "quality", "calibrate", "pca", "changepoints", "plan",
    "scan", "fit", "consensus", "apply", "summary", "report", "explore", "movies", "trajectories",
    "name", "compare", "similarity", "merge", "versions", "tables", "compare-groups",
    "triggered-average", "export", "doctor", "completion",
)  # fmt: skip


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return write_dlc_csv(tmp_path_factory.mktemp("tracking"), STUDY)[0].parent


@pytest.fixture(scope="module")
def store(tracking, tmp_path_factory):
    """Ingested, checked, with PCA and the model ``m``."""
    place = str(tmp_path_factory.mktemp("store") / "study.zarr")
    for line in (
        ["ingest", place, str(tracking), *HEADING],
        ["quality", place],
        ["pca", place],
        ["fit", place, "--model", "m", "--quiet", *SMALL_FIT],
    ):
        assert cli.main(line) == 0
    return place


@pytest.fixture
def run(capsys):
    """Run one command line; returns its exit status, standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# --- parsing ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help__every_option_explains_itself(command, run):
    status, out, err = run(command, "--help-all")
    assert (status, err) == (0, "")
    commands = cli.parser().commands
    assert tuple(commands) == COMMANDS
    flat = " ".join(out.split())
    for action in commands[command]._actions:
        if action.option_strings == [options.ALL]:
            continue
        assert action.help, action.dest
        if action.option_strings:
            assert action.option_strings[-1] in out
        if isinstance(action.default, int | float) and not isinstance(action.default, bool):
            assert f"(default: {action.default})" in flat


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ingest", "frames of the video per second"),
        ("ingest", "take one frame of N (default: 1)"),
        (
            "quality",
            "confidence below it is low; 10%: the value below which 10 % of all lie (default: 0.5)",
        ),
        ("pca", "share of the variance to keep, 0 to 1 (default: 0.9)"),
        ("fit", "(ms or s)"),
        ("fit", "order, in frames (default: 3)"),
    ],
)
def test_help__has_units_and_defaults(command, said, run):
    assert said in " ".join(run(command, "--help-all")[1].split())


@pytest.mark.parametrize("line", [[], ["--help"], ["--help-all"]])
def test_top__lists_all_commands_in_the_order_of_the_work(line, run):
    status, out, err = run(*line)
    assert (status, err) == (0, "")
    assert tuple(re.findall(r"^  ([a-z-]+)  ", out, re.M)) == COMMANDS
    assert "\x1b" not in out
    assert run("--version")[:2] == (0, f"kpms-zarr {kpms_zarr.__version__}\n")


def test_help__of_a_fit_has_common_options_and_says_where_the_others_are(run):
    out = run("fit", "--help")[1]
    assert out.startswith("usage: kpms-zarr fit STORE --model NAME [OPTIONS]\n")
    shown = set(re.findall(r"^  (--[a-z-]+)", out, re.M))
    assert {"--target-duration", "--sweeps", "--chains", "--resume"} <= shown
    assert not {"--noise-dof", "--gamma"} & shown
    hidden = set(re.findall(r"^  (--[a-z-]+)", run("fit", "--help-all")[1], re.M)) - shown
    assert {"--noise-dof", "--gamma", "--draw"} <= hidden
    assert f"--help-all lists {len(hidden)} more options: model settings." in out
    assert set(COMMON) <= {field.name for field in fields(kpms_zarr.FitConfig)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["fitt"], "there is no command 'fitt'; did you mean fit?"),
        (["Ingest"], "did you mean ingest?"),
        (["train"], "did you mean fit?"),
        (["compare_groups"], "did you mean compare-groups"),
        (["xyzzy"], "there is no command 'xyzzy'\n"),
        (["fit", "s.zarr", "--model", "m", "--kapa", "3"], "--kapa 3; did you mean --kappa"),
        (["quality", "s.zarr", "--brakedown"], "did you mean --breakdown?"),
        (["name", "s.zarr", "--modle", "m"], "did you mean --model?"),
        (["info", "s.zarr", "--spice"], "(what begins with '-' and is no option stands behind --)"),
    ],
)
def test_near_miss__is_named(line, said, run):
    status, out, err = run(*line)
    assert (status, out) == (2, "")
    assert said in err


def test_words_of_other_tools__lead_to_commands_that_there_are():
    assert set(options.WORDS.values()) <= set(COMMANDS)
    assert not set(options.WORDS) & set(COMMANDS)


@pytest.mark.parametrize(
    ("typed", "found"),
    [("kpms-zarr comp", {"compare", "compare-groups", "completion"}),
     ("kpms-zarr fit --target", {"--target-duration"}),
     ("kpms-zarr fit --stage ", {"ar", "full", "both"})],
)  # fmt: skip
def test_completion__works_in_a_shell(typed, found, run, tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    status, script, _ = run("completion", "bash")
    assert status == 0
    (tmp_path / "kpms-zarr").write_text(script)
    words = typed.split() + ([""] if typed.endswith(" ") else [])
    code = (
        f"source {tmp_path}/kpms-zarr\nCOMP_WORDS=({' '.join(w or repr(w) for w in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n_shtab_kpms_zarr\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True)
    assert {word.strip() for word in done.stdout.split()} == found


@pytest.mark.parametrize(
    "line",
    [
        ["cook"],
        ["ingest"],
        ["ingest", "s.zarr"],
        ["info"],
        ["info", "s.zarr", "--spice"],
        ["fit", "s.zarr"],
        ["summary", "s.zarr"],
        ["report", "s.zarr"],
        ["compare", "s.zarr", "--models", "a,,b"],
        ["compare-groups", "s.zarr", "--model", "m"],
        ["compare-groups", "s.zarr", "--model", "m", "--by", "group", "--syllables", "one"],
        ["similarity", "s.zarr", "--model", "m", "--kind", "taste"],
        ["similarity", "s.zarr", "--model", "m", "--syllables", "one"],
        ["merge", "s.zarr", "--model", "m"],
        ["merge", "s.zarr", "--model", "m", "--families", "--evidence"],
        ["versions", "s.zarr"],
        ["trajectories", "s.zarr", "--model", "m", "--format", "docx"],
        ["triggered-average", "s.zarr", "--model", "m", "--syllables", "one"],
        ["compare", "s.zarr", "--models", "a", "--labels"],
        ["compare", "s.zarr", "--models", "a,b", "--boundary-tolerance", "some"],
        ["ingest", "s.zarr", "f.csv", "--keypoints", "a,,b"],
        ["scan", "s.zarr", "--kappa", "1:2:3", "--from-model", "m"],
        ["scan", "s.zarr", "--kappa", "1:2:3", "--chains", "few"],
        ["fit", "s.zarr", "--model", "m", "--stage", "final"],
        ["fit", "s.zarr", "--model", "m", "--target-duration", "400"],
        ["fit", "s.zarr", "--model", "m", "--target-duration", "long"],
        ["fit", "s.zarr", "--model", "m", "--kappa", "1e4", "--target-duration", "400ms"],
    ],
    ids=" ".join,
)
def test_wrong_usage__exits_2_with_a_message_only_on_stderr(line, run):
    status, out, err = run(*line)
    assert (status, out) == (2, "")
    assert err.startswith("usage: kpms-zarr")
    assert err.count("error:") == 1


@pytest.mark.parametrize(
    ("text", "ms"),
    [("400ms", 400), ("0.4s", 400), ("1e-1 s", 100), (" 250 ms ", 250), ("2s", 2000)],
)
def test_duration__needs_its_unit(text, ms):
    assert options.duration(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["400", "ms", "4 min", "..s", "", "4msec"])
def test_duration__refuses_the_rest(text):
    with pytest.raises(argparse.ArgumentTypeError, match="400ms"):
        options.duration(text)


# --- wrong inputs ----------------------------------------------------------------------


def wrong_inputs(store, tracking, tmp_path):
    new, missing = tmp_path / "new.zarr", tmp_path / "missing.zarr"
    text = tmp_path / "text.csv"
    text.write_text("once upon a time\n")
    fit = ["fit", store, "--model", "other", *SMALL_FIT]
    return {
        "no file": ["ingest", new, tmp_path / "nothing.csv"],
        "no tracking file": ["ingest", new, text],
        "fps": ["ingest", new, tracking, "--fps", "0"],
        "format": ["ingest", new, tracking, "--format", "cake"],
        "anterior": ["ingest", new, tracking, "--anterior", "beak"],
        "skeleton": ["ingest", new, tracking, "--skeleton", "point0"],
        "taken": ["ingest", text, tracking],
        "no store, info": ["info", missing],
        "no store, quality": ["quality", missing],
        "no store, pca": ["pca", missing],
        "no store, fit": ["fit", missing, "--model", "m"],
        "no store, summary": ["summary", missing, "--model", "m"],
        "no store, report": ["report", missing, "--model", "m", "--out", tmp_path / "r.html"],
        "variance": ["pca", store, "--variance", "1.5"],
        "changepoints, window": ["changepoints", store, "--window", "0ms"],
        "changepoints, no model": ["changepoints", store, "--model", "never"],
        "changepoints, picture": ["changepoints", store, "--out", tmp_path / "a.bmp"],
        "pca anterior": ["pca", store, "--anterior", "beak"],
        "model name taken": ["fit", store, "--model", "m", *SMALL_FIT],
        "model name": ["fit", store, "--model", "a/b", *SMALL_FIT],
        "sweeps": [*fit, "--sweeps", "0"],
        "kappa": [*fit, "--kappa", "-1"],
        "negative duration": [*fit, "--target-duration=-5ms"],
        "latent dim": [*fit, "--latent-dim", "99"],
        "no model, summary": ["summary", store, "--model", "other"],
        "no store, compare": ["compare", missing, "--models", "a,b"],
        "one model, compare": ["compare", store, "--models", "m"],
        "no model, compare": ["compare", store, "--models", "m,other"],
        "no version, compare": ["compare", store, "--models", "m,m@v9"],
        "no labels, compare": ["compare", store, "--models", "m", "--labels", f"x={text}"],
        "no model, groups": ["compare-groups", store, "--model", "other", "--by", "session"],
        "no coordinate": ["compare-groups", store, "--model", "m", "--by", "diet"],
        "no test": ["compare-groups", store, "--model", "m", "--by", "session"],
        "no model, similarity": ["similarity", store, "--model", "other"],
        "absent syllable": ["similarity", store, "--model", "m", "--syllables", "0,99"],
        "no model, merge": ["merge", store, "--model", "other", "--families"],
        "no families": ["merge", store, "--model", "m", "--families"],
        "group of one": ["merge", store, "--model", "m", "--groups", "0"],
        "no groups": ["merge", store, "--model", "m", "--groups", "a;b"],
        "margin": ["merge", store, "--model", "m", "--groups", "0,1", "--margin", "3"],
        "no version": ["versions", store, "--model", "m", "--use", "v9"],
        "labels twice": ["compare", store, "--labels", "x=a.npz", "--labels", "x=b.npz"],
        "picture, compare": ["compare", store, "--models", "m,m@v1", "--out", tmp_path / "p.png"],
        "no store, scan": ["scan", missing, "--kappa", "1:2:3"],
        "nothing varies": ["scan", store],
        "range": ["scan", store, "--kappa", "1e7:1e3:5"],
        "target durations": ["scan", store, "--target-durations", "200ms:800ms"],
        "both": ["scan", store, "--kappa", "1:2:3", "--target-durations", "200"],
        "scan name": ["scan", store, "--kappa", "1:2:3", "--name", "a/b"],
        "held out": ["scan", store, "--kappa", "1:2:3", "--held-out", "nobody"],
        "picture, scan": ["scan", store, "--kappa", "1:2:3", "--out", tmp_path / "p.png"],
        "no model, tables": ["tables", store, "--model", "other", "--out", tmp_path / "t"],
        "kind, tables": ["tables", store, "--model", "m", "--out", tmp_path / "t", "--to", "xlsx"],
        "no table": ["tables", store, "--model", "m", "--out", tmp_path / "t", "--include", "cake"],
        "no model, trajectories": ["trajectories", store, "--model", "other", "--out", tmp_path],
        "window": ["trajectories", store, "--model", "m", "--post", "0"],
        "no model, average": ["triggered-average", store, "--model", "other"],
        "no signal": ["triggered-average", store, "--model", "m", "--signal", "cake"],
        "kind, average": ["triggered-average", store, "--model", "m", "--out", tmp_path / "a.xls"],
        "no file, signals": ["signals", store, missing, "--session", STUDY.session_names[0]],
        "no values, signals": ["signals", store, text, "--session", STUDY.session_names[0]],
        "no file, epochs": ["epochs", store, missing],
        "no table, epochs": ["epochs", store, text],
        "no file, timestamps": ["timestamps", store, missing],
        "no times": ["timestamps", store, text],
        "files of one session": ["timestamps", store, text, text, "--session", "session_000"],
        "no store, calibrate": ["calibrate", missing],
        "no file, calibrate": ["calibrate", store, "--annotations", missing],
        "no table, calibrate": ["calibrate", store, "--annotations", text],
        "no model, report": ["report", store, "--model", "other", "--out", tmp_path / "r.html"],
    }


def test_wrong_input__exits_2_with_one_message_only_on_stderr(store, tracking, tmp_path, run):
    lines = wrong_inputs(store, tracking, tmp_path)
    for name, line in lines.items():
        for flags in ([], ["--json"]) if name in some([*lines], 8) else ([],):
            status, out, err = run(*line, *flags)
            assert (status, out) == (2, ""), name
            said = [text for text in err.splitlines() if not text.startswith("note: ")]
            assert said[0].startswith(f"kpms-zarr {line[0]}: "), name
            assert err.count("expected ") == 1, f"{name}: {err}"
            assert err.count("What to do: ") == 1, f"{name}: {err}"
            assert "Traceback" not in err
    assert not (tmp_path / "new.zarr").exists()
    assert not (tmp_path / "missing.zarr").exists()
    assert not (tmp_path / "r.html").exists()
    assert not (tmp_path / "t").exists()
    assert [model.name for model in list_models(store)] == ["m"]


def test_refusal_of_the_machine__exits_1(store, run, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kpms_zarr.store.model.info.info", full)
    status, out, err = run("info", store)
    assert (status, out) == (1, "")
    assert err == "kpms-zarr info: the system refused: [Errno 28] No space left on device\n"


def test_interrupt__exits_130(store, run, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("kpms_zarr.store.model.info.info", stop)
    status, out, err = run("info", store)
    assert (status, out) == (130, "")
    assert "stopped" in err


# --- results ---------------------------------------------------------------------------


def test_text__of_each_command(store, tracking, tmp_path, run, monkeypatch):
    new = tmp_path / "new.zarr"
    page = tmp_path / "page.html"
    # The page itself is written below.
    written = types.SimpleNamespace(path=str(page), n_bytes=12_000)
    monkeypatch.setattr(kpms_zarr, "report", lambda *_, **__: written, raising=False)
    said = {
        ("ingest", new, tracking): ["3 sessions added, 4,500 frames", "next: kpms-zarr quality"],
        ("info", store): [
            "3, 4,500 frames",
            "session_002",
            "m (labels v1, 3 sessions; versions v1)",
        ],
        ("quality", store): ["point0", "low confidence"],
        ("quality", store, "--breakdown"): ["session_001", "point5"],
        ("pca", new, *HEADING): ["component", "components (*) hold"],
        ("changepoints", new, "--out", tmp_path / "points.png"): [
            "per minute",
            "change points, ",
            "durations to try: kpms-zarr scan",
            "picture: ",
        ],
        ("summary", store, "--model", "m"): ["syllable", "median"],
        ("report", store, "--model", "m", "--out", page): [f"report: {page} (12.0 kB)"],
    }
    for line, words in said.items():
        status, out, _ = run(*line)
        assert status == 0, line
        for word in words:
            assert word in out, line
    status, out, _ = run("ingest", new, tracking)
    assert out == "3 sessions were there already and were left alone\n"


def test_compare__prints_figures_and_writes_a_page(store, tmp_path, run):
    labels = open_labels(store, "m")
    rows = zip(labels.session.values, labels.syllable.values, labels.n_frames.values, strict=True)
    arrays = {str(name): np.roll(row[:n], 2) for name, row, n in rows}
    file, page = tmp_path / "other.npz", tmp_path / "page.html"
    np.savez(file, **arrays)
    line = ["compare", store, "--models", "m", "--labels", f"other={file}"]
    status, out, err = run(*line, "--out", page)
    assert (status, err) == (0, "")
    for words in ("both label", "m, other", "ARI", "boundary F1 (chance)", "ceiling",
                  "syllable of m", "matched in other", "m \\ other", "certainty of m",
                  "calibration error", "other: 3 sessions found", f"page: {page}"):  # fmt: skip
        assert words in out, words
    assert max(map(len, out.splitlines())) < 160
    assert page.stat().st_size > 10_000
    found = json.loads(run(*line, "--json")[1], parse_constant=pytest.fail)
    (pair,) = found["pairs"]
    result = kpms_zarr.compare(store, models=["m"], labels={"other": file}).pairs[0]
    assert pair["adjusted_rand_index"] == result.adjusted_rand_index
    assert pair["confusion"]["values"] == result.confusion.values.tolist()
    assert pair["confusion"]["dims"] == ["syllable_a", "syllable_b"]
    assert pair["syllables_a"]["variables"]["jaccard"]["dims"] == ["syllable"]
    status, out, _ = run(*line, "--models", "m,m@v1", "--sessions", "session_00[01]")
    assert status == 0
    assert "mean Jaccard, 2 others" in out
    assert "m, m@v1" in out


def test_epochs_and_tables__say_what_was_written(store, tmp_path, run):
    table, out = tmp_path / "epochs.csv", tmp_path / "out"
    table.write_text("session,start_s,stop_s,condition\nsession_000,0,10,light\n")
    status, said, _ = run("epochs", store, table)
    assert status == 0
    assert "1 epoch of 1 session written: epochs v1" in said
    assert "sessions without epochs are one epoch each: 2 of 3" in said
    line = ["tables", store, "--model", "m", "--out", out, "--to", "csv"]
    status, said, err = run(*line)
    assert (status, err) == (0, "")
    for words in ("syllables", "distances", "epochs v1, 3 rows", "1,200 frames are in no epoch"):
        assert words in said, words
    found = json.loads(run(*line, "--epochs", "none", "--json")[1], parse_constant=pytest.fail)
    assert found["epochs"] == ""
    assert {one["table"]: one["n_rows"] for one in found["files"]}["frames"] == 4500
    table = kpms_zarr.syllable_table(store, model="m", epochs="none")
    counted = kpms_zarr.summary(store, model="m")
    assert table.n_bouts.sum("row").sel(state=counted.state).equals(counted.n_bouts)
    assert "sessions have no epochs" in run("epochs", store, "none")[1]


def test_timestamps__say_what_was_written(store, tmp_path, run):
    times = tmp_path / "session_000_timestamps.txt"
    times.write_text("\n".join(map(str, (5 + np.arange(1500) / 30).tolist())))
    status, said, err = run("timestamps", store, times)
    assert (status, err) == (0, "")
    assert "times of 1,500 frames of 1 session written: timestamps v1" in said
    assert "sessions without timestamps, whose times are frame / fps: session_001" in said
    line = ["timestamps", store, times, "--session", "session_001"]
    assert json.loads(run(*line, "--json")[1])["sessions"] == ["session_001"]
    times.write_text("\n".join(map(str, range(1500))))
    status, said, err = run("timestamps", store, times)
    assert (status, said) == (2, "")
    assert "as numbers of frames are" in err
    assert "kpms-zarr annotate" in run("timestamps", store, _slow(tmp_path))[2]
    assert "no timestamps are in force" in run("timestamps", store, "none")[1]


def _slow(folder):
    """Times in minutes of a session."""
    path = folder / "session_002.txt"
    path.write_text("\n".join(map(str, (np.arange(1500) / 1800).tolist())))
    return path


def test_scan__prints_figures_and_goes_on(store, tmp_path, run):
    page = tmp_path / "page.html"
    settings = ["--sweeps", "2", "--n-states", "10", "--latent-dim", "3", "--chains", "2"]
    line = ["scan", store, "--kappa", "1e2:1e6:2", "--name", "two", *settings]
    line += ["--target-duration", "200ms"]
    status, out, err = run(*line, "--out", page)
    assert status == 0
    for words in ("point", "median (ms)", "kappa 100", "held out", "EML", "ARI",
                  "nearest to the target of 200 ms", "the held-out log likelihood is highest at",
                  "give --target-duration to the fit", "2 points, 2 chains each, on 3,000 frames",
                  "1,500 frames held out", "kept as scans/two", f"page: {page}"):  # fmt: skip
        assert words in out, words
    assert max(map(len, out.splitlines())) < 180
    assert "chain 4 of 4: kappa 1e+06, seed 1: median" in err
    assert page.stat().st_size > 10_000
    status, out, err = run(*line, "--breakdown")
    assert (status, err) == (0, "")  # nothing has run
    assert "kappa 100, seed 1" in out
    found = json.loads(run(*line, "--json")[1], parse_constant=pytest.fail)
    assert found["axes"] == ["kappa"]
    assert found["table"]["dims"]["point"] == found["table"]["dims"]["chain"] == 2
    config = kpms_zarr.FitConfig(sweeps=2, n_states=10, seed=0, target_duration=200)
    result = kpms_zarr.scan(
        store, kappa=[1e2, 1e6], latent_dim=3, chains=2, name="two", config=config
    )
    assert result.n_chains == 0
    median = result.table["median_duration"].values.tolist()
    assert found["table"]["variables"]["median_duration"]["values"] == median
    assert "scans       two (4 of 4 chains)" in run("info", store)[1]
    status, out, err = run(*line[:3], "1e2:1e6:3", *line[4:])
    assert (status, out) == (2, "")
    assert "differs in kappa" in err
    assert "add --overwrite" in err


def test_json__of_each_command(store, tracking, tmp_path, run):
    new = tmp_path / "new.zarr"
    page = tmp_path / "page.html"
    lines = {
        "ingest": ["ingest", new, tracking, *HEADING],
        "info": ["info", new],
        "quality": ["quality", new],
        "breakdown": ["quality", new, "--breakdown"],
        "pca": ["pca", new],
        "changepoints": ["changepoints", new],
        "fit": ["fit", new, "--model", "m", *SMALL_FIT],
        "summary": ["summary", new, "--model", "m"],
        "report": ["report", new, "--model", "m", "--out", page],
    }
    found = {}
    for name, line in lines.items():
        status, out, _ = run(*line, "--json")
        assert status == 0, name
        found[name] = json.loads(out, parse_constant=pytest.fail)
    assert found["ingest"]["added"] == list(STUDY.session_names)
    assert found["info"]["n_frames"] == 4500
    assert found["quality"]["dims"] == {"keypoint": 6}
    assert found["breakdown"]["dims"] == {"session": 3, "keypoint": 6, "problem": 3}
    assert found["pca"]["variables"]["explained_variance"]["dims"] == ["component"]
    assert "change_score" not in found["changepoints"]["variables"]
    assert found["changepoints"]["variables"]["n_changepoints"]["dims"] == ["session"]
    assert found["fit"]["version"] == "v1"
    assert found["fit"]["n_sweeps"] == 2
    assert found["summary"]["variables"]["frequency"]["dims"] == ["state"]
    assert found["report"]["path"] == str(page)
    assert page.stat().st_size > 10_000
    # The same settings through the command line twice: the same labels.
    one, two = (open_labels(s, "m").syllable.values for s in (store, str(new)))
    np.testing.assert_array_equal(one, two)


def test_functions__give_what_the_command_line_gives(store, tracking, tmp_path, run):
    place = tmp_path / "f.zarr"
    names = STUDY.settings
    kpms_zarr.ingest(place, [tracking], anterior=names.anterior, posterior=names.posterior)
    kpms_zarr.quality(place)
    kpms_zarr.pca(place)
    config = kpms_zarr.FitConfig(stage="ar", sweeps=2, n_states=10, latent_dim=3)
    kpms_zarr.fit(place, model="m", config=config)
    for group in ("keypoints", "quality", "pca", "models/m/labels/v1"):
        one, two = (access.dataset(s, group).load().drop_attrs() for s in (store, place))
        # It says when the session came in.
        one, two = (data.drop_vars("ingest", errors="ignore") for data in (one, two))
        assert one.identical(two), group
    assert (
        kpms_zarr.summary(place, model="m")
        .drop_attrs()
        .identical(kpms_zarr.summary(store, model="m").drop_attrs())
    )
    assert run("info", store, "--json")[1] == console.to_json(kpms_zarr.info(store)) + "\n"


def test_fit_options__reach_the_configuration(run, monkeypatch):
    seen = {}

    def fit(store, *, model, config, budget, callbacks, resume, overwrite, save_every):
        seen.update(store=store, model=model, config=config, budget=budget)
        seen.update(resume=resume, overwrite=overwrite, save_every=save_every)
        seen["is_quiet"] = not any(isinstance(call, kpms_zarr.Progress) for call in callbacks)
        raise KeyboardInterrupt

    monkeypatch.setattr("kpms_zarr.compute.runs.fit.fit", fit)
    run("fit", "s.zarr", "--model", "x")
    assert seen["config"] == kpms_zarr.FitConfig()
    assert seen["config"].given == frozenset()
    assert (seen["model"], seen["overwrite"], seen["is_quiet"]) == ("x", False, False)
    fit_x = ["fit", "s.zarr", "--model", "x"]
    given = ["--sweeps", "7", "--target-duration", "0.4s", "--n-states", "9", "--latent-dim", "2"]
    given += ["--lags", "2", "--seed", "5", "--precision", "float64", "--init", "prior"]
    given += ["--stage", "full", "--from-model", "a", "--use-keypoints", "x,y", "--scale", "none"]
    given += ["--fix-heading", "--no-refine-pose", "--save-noise-scale", "--ar-sweeps", "3"]
    given += ["--ar-kappa", "1e5", "--no-certainty", "--until-settled"]
    given += ["--sessions", "a*,group=control"]
    given += ["--device-memory", "1GB", "--host-memory", "2GiB", "--tiles-in-flight", "3"]
    given += ["--home", "disk", "--scratch", "/scratch", "--save-every", "7", "--resume"]
    run(*fit_x, *given, "--overwrite", "--quiet")
    assert seen["budget"] == kpms_zarr.Budget("1GB", "2GiB", 3, "disk", "/scratch")
    assert (seen["save_every"], seen["resume"]) == (7, True)
    # All that was typed, and nothing else, is held against the fit that is resumed.
    assert {"seed", "stage"} <= seen["config"].given
    assert "kappa" not in seen["config"].given
    assert seen["config"] == kpms_zarr.FitConfig(
        sweeps=7, target_duration=400.0, n_states=9, latent_dim=2, lags=2, seed=5,
        precision="float64", init="prior", stage="full", from_model="a",
        use_keypoints=("x", "y"), scale="none", fix_heading=True, refine_pose=False,
        save_noise_scale=True, certainty=False, ar_sweeps=3, ar_kappa=1e5, until_settled=True,
        sessions=("a*", "group=control"),
    )  # fmt: skip
    assert (seen["overwrite"], seen["is_quiet"]) == (True, True)
    run(*fit_x, "--kappa", "1e5")
    assert seen["config"].kappa == 1e5


def test_fit_settings__come_from_a_file_and_options_win(run, monkeypatch, tmp_path):
    seen = {}

    def fit(store, *, config, **_):
        seen["config"] = config
        raise KeyboardInterrupt

    monkeypatch.setattr("kpms_zarr.compute.runs.fit.fit", fit)
    file = tmp_path / "settings.json"
    file.write_text('{"noise_dof": 4, "scale": "session", "n_states": 9}')
    # Also where what is given is the default.
    line = ["fit", "s.zarr", "--model", "x", "--config", file, "--scale", "dataset"]
    run(*line, "--use-keypoints", "a,b")
    assert seen["config"] == kpms_zarr.FitConfig(
        noise_dof=4, scale="dataset", n_states=9, use_keypoints=("a", "b")
    )
    run("fit", "s.zarr", "--model", "x", "--from-model", "a")
    assert seen["config"].stage == "full"
    missing = ["fit", "s.zarr", "--model", "x", "--config", tmp_path / "nobody.json"]
    assert run(*missing)[0] == 2
    for text, words in (
        ("{", "JSON"),
        ('{"use_keypoints": 5}', "--use-keypoints"),
        ("[1]", "JSON object"),
        ('{"noise_dfo": 4}', "noise_dof"),
    ):
        file.write_text(text)
        status, _, err = run("fit", "s.zarr", "--model", "x", "--config", file)
        assert status == 2
        assert words in err


def test_log__is_one_line_of_json_for_each_event(store, tmp_path, run):
    log = tmp_path / "fit.jsonl"
    line = ["fit", store, "--model", "logged", "--quiet", "--log", log, *SMALL_FIT, "--overwrite"]
    assert run(*line)[0] == 0
    events = [json.loads(text, parse_constant=pytest.fail) for text in log.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names[:2] == ["Noted", "PlanMade"]  # of points taken for missing
    assert names.count("SweepEnded") == 2
    assert names[-1] == "Published"
    assert all(event["resident_bytes"] > 10**7 for event in events)
    assert run(*line[:-2], "--log", tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--device-memory", "lots"], "size in bytes"),
        (["--host-memory", "1MB"], "--host-memory of at least"),
        (["--sessions", "nobody"], "nobody"),
        (["--resume"], "leave --resume out"),
        (["--save-every", "0"], "--save-every"),
    ],
)
def test_fit__refuses_what_cannot_be_and_changes_nothing(store, run, given, words):
    before = sorted(path.name for path in (Path(store) / "models").iterdir())
    status, _, err = run("fit", store, "--model", "never", *given, *SMALL_FIT)
    assert status == 2
    assert words in err
    after = sorted(path.name for path in (Path(store) / "models").iterdir())
    assert set(after) - set(before) <= {"never"}  # the lock makes its folder
    assert "never" not in run("info", store)[1]


def test_fit__labels_alone_have_nothing_to_go_on_from(tmp_path, run):
    place = tmp_path / "study.zarr"
    write_store(place, STUDY)
    labels = {name: np.zeros(STUDY.n_frames, np.int16) for name in STUDY.session_names}
    publish_labels(place, STUDY, "labels", labels)
    status, out, err = run("fit", place, "--model", "new", "--continue-from", "labels")
    assert (status, out) == (2, "")
    assert "expected a model with parameters" in err
    assert "labels only" in err
    status, out, err = run("fit", place, "--model", "labels", "--resume")
    assert (status, out) == (2, "")
    assert "labels that no fit of this package has made" in err
    assert [model.versions for model in list_models(access.open_group(place))] == [("v1",)]


def test_fit__name_in_use_needs_overwrite_and_keeps_the_old_version(store, run):
    before = open_labels(store, "m", "v1").load()
    try:
        line = ["fit", store, "--model", "again", "--quiet", *SMALL_FIT]
        assert run(*line)[0] == 0
        status, _, err = run(*line)
        assert status == 2
        assert "--overwrite" in err
        first = open_labels(store, "again", "v1").load()
        assert run(*line, "--overwrite", "--seed", "1")[0] == 0
        model = next(m for m in list_models(store) if m.name == "again")
        assert (model.current, model.versions) == ("v2", ("v1", "v2"))
        assert open_labels(store, "again", "v1").load().identical(first)
        assert not open_labels(store, "again", "v2").syllable.load().equals(first.syllable)
    finally:
        del access.open_group(store, "r+")["models/again"]
    assert open_labels(store, "m", "v1").load().identical(before)


def test_progress__is_plain_lines_on_a_pipe(store):
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, "fit", store, "--model", "piped", *SMALL_FIT],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        del access.open_group(store, "r+")["models/piped"]
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert lines[0].startswith("3 sessions, 4,500 frames, 3 latent dimensions")
    assert [line for line in lines if line.startswith("ar sweep 2/2")]
    assert lines[-1] == "labels published: models/piped/labels/v1"
    assert "syllables in use" in done.stdout


_MAIN = "import sys; from kpms_zarr.cli import main; sys.exit(main())"


@pytest.mark.parametrize("n_space", [2, pytest.param(3, marks=pytest.mark.full)])
def test_demo__does_the_whole_job_and_can_be_repeated(n_space, tmp_path, run, monkeypatch):
    monkeypatch.setattr(demonstration, "STUDY", MouseStudy(n_animals=3, n_frames=450))
    used = []

    def small(*, use_keypoints, **_):
        used.append(use_keypoints)
        return replace(SMALL, stage="ar", sweeps=2, use_keypoints=use_keypoints)

    monkeypatch.setattr(demonstration, "FitConfig", small)
    folder = tmp_path / "demo"
    options = ["--3d"] if n_space == 3 else []
    status, out, err = run("demo", folder, *options)
    assert status == 0
    assert "adjusted Rand index" in out
    assert "planted: drug: groom is chosen 1.8 times as often" in out
    assert "found:   " in out
    assert f"next:    kpms-zarr explore {folder}/study.zarr --show" in out
    assert "6 simulated mice of 15 s each, 3 in the group saline, 3 in the group drug" in err
    assert "nose" in used[0]
    assert "tail_tip" not in used[0]
    # From above the forepaws are hidden.
    assert ("left_forepaw" in used[0]) == (n_space == 3)
    assert (folder / "report.html").exists()
    sessions = access.sessions(folder / "study.zarr")
    assert len(sessions) == 6
    # The page is the same again.
    monkeypatch.setattr(demonstration, "report", lambda *_, **__: None)
    status, out, _ = run("demo", folder, *options, "--json")
    assert status == 0
    again = json.loads(out)
    assert again["fit"]["version"] == "v2"
    assert len(again["planted"]) == 2
    assert access.sessions(folder / "study.zarr") == sessions
    assert kpms_zarr.open_epochs(folder / "study.zarr").attrs["version"] == "v1"
    # In the other number of dimensions it needs a folder of its own.
    status, _, err = run("demo", folder, *([] if options else ["--3d"]))
    assert status == 2
    assert "another folder" in err
