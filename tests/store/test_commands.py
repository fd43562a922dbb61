"""Messages in the words of who reads them: arguments in Python, options on the command line."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kpms_zarr
from kpms_zarr.cli.options import names as names_option
from kpms_zarr.store.core.commands import command, for_shell
from kpms_zarr.store.wording import STORE, Stand, call, counted, option, sentence

ROOT = Path(kpms_zarr.__file__).parent
INNER = sorted(path for part in ("store", "compute", "viz") for path in (ROOT / part).rglob("*.py"))
SPELLED = re.compile(r"(?<![\w-])--[a-z]")
NOT_OURS = re.compile(r"(var\(|\"|^)--least|pip install --upgrade")
TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("leave `max_gap=` out", "leave --max-gap out"),
        ("`max_gap='10s'` fills it", "--max-gap 10s fills it"),
        ("`fps=30`", "--fps 30"),
        ("`keypoints=['a b', 'c']`", "--keypoints 'a b,c'"),
        ("`keypoints=['a,b', 'c']`", "--keypoints '\"a,b\",c'"),
        ("`anterior='-nose'`", "--anterior=-nose"),
        ("`skip_bad=True`", "--skip-bad"),
        ("`certainty=False`", "--no-certainty"),
        ("`outlier_scale=None`", "--outlier-scale none"),
        ("look with `kpms_zarr.quality`", "look with kpms-zarr quality"),
        ("`help(kpms_zarr.ingest)`", "kpms-zarr ingest --help"),
        ("`kpms_zarr.ingest(STORE, [FILES, ...])`", "kpms-zarr ingest STORE FILES..."),
        (
            "`kpms_zarr.fit('my s.zarr', model='m', resume=True)`",
            "kpms-zarr fit 'my s.zarr' --model m --resume",
        ),
        (
            "`kpms_zarr.fit(STORE, config=FitConfig(from_model='m', stage='ar'))`",
            "kpms-zarr fit STORE --from-model m --stage ar",
        ),
    ],
)
def test_for_shell__spells_arguments_as_options(text, expected):
    assert for_shell(text) == expected


@pytest.mark.parametrize(
    "text", ["`nose`", "`a=b`c", "no `series = x`", "`fps=[`", "`kpms_zarr.`", "`A=1`", "x = '1'"]
)
def test_for_shell__leaves_other_text_alone(text):
    assert for_shell(text) == text


@given(st.lists(TEXTS.map(str.strip).filter(bool), min_size=1), TEXTS, TEXTS)
def test_for_shell__gives_a_shell_what_was_meant(names, store, session):
    first, *rest = shlex.split(for_shell(option("keypoints", names)))
    (value,) = rest or [first.removeprefix("--keypoints=")]
    assert first.startswith("--keypoints")
    assert names_option(value) == names
    words = shlex.split(command("remove", store, session, model=session))
    assert words[:4] == ["kpms-zarr", "remove", store, session]
    assert words[4:] in (["--model", session], [f"--model={session}"])


@given(TEXTS, st.lists(TEXTS))
def test_option__is_python(text, names):
    for value in (text, names):
        name, _, literal = option("x", value).strip("`").partition("=")
        assert (name, ast.literal_eval(literal)) == ("x", value)
    made = call("fit", STORE, sessions=names, config=Stand("None")).strip("`")
    assert isinstance(ast.parse(made, mode="eval").body, ast.Call)


def texts_of(path):
    """Strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documents:
            yield NOT_OURS.sub("", node.value)


def test_inner_rooms__know_no_option():
    found = [
        f"{path.relative_to(ROOT)}: {text.strip():.60}"
        for path in INNER
        if path.name != "commands.py"  # the one place that spells them
        for text in texts_of(path)
        if SPELLED.search(text)
    ]
    assert not found


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 sessions"), (1, "1 session"), (1200, "1,200 sessions"), ("1", "1 session")],
)
def test_counted__is_one_or_many(number, text):
    assert counted(number, "session") == text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("no p is below it", "No p is below it."),
        ("strain differs between mice", "strain differs between mice."),
        ("strain: a, b", "strain: a, b."),
        ("strain", "strain."),
        ("strains are no name", "Strains are no name."),
        ("strain_b is another", "Strain_b is another."),
        ("+lem and -lem", "+lem and -lem."),
        ("", "."),
    ],
)
def test_sentence__leaves_names_as_they_are_spelt(words: str, expected: str) -> None:
    assert sentence(words, ["strain", ""]) == expected
