"""What the documents promise: sections that are cited are there, rooms say what they hold."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import kpms_zarr
import kpms_zarr.viz
from kpms_zarr.cli.entry import parser

PACKAGE = Path(kpms_zarr.__file__).parent
MODEL = PACKAGE.parent / "docs" / "model.md"
KERNELS = [p for p in (PACKAGE / "compute" / "kernels").glob("*.py") if p.name != "__init__.py"]
_CITED = re.compile(r"model\.md\W+(?:section )?(\d(?:\.\d+)?(?:(?:,| and) \d(?:\.\d+)?)*)")


def cited_in(text):
    """Numbers of the sections of the model that a text cites."""
    return {number for found in _CITED.findall(text) for number in re.split(r", | and ", found)}


def sections():
    return set(re.findall(r"^##+ (\d(?:\.\d+)?)\.? ", MODEL.read_text("utf-8"), re.MULTILINE))


def test_cited_in__finds_all_forms():
    assert cited_in("(model.md 3.4, 3.8). model.md, section 7; see model.md 1 and 5.2") == {
        "3.4", "3.8", "7", "1", "5.2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_cited_sections__are_there(path):
    assert cited_in(path.read_text("utf-8")) <= sections()


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: p.stem)
def test_kernels__cite_the_section_that_they_implement(path):
    assert cited_in(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "room", ["store", "store/parsers", "compute", "compute/kernels", "viz", "cli"]
)
def test_rooms__say_what_they_hold(room):
    """And the files that a README of a room names are there."""
    folder = PACKAGE / room
    text = (folder / "README.md").read_text("utf-8")
    named = re.findall(r"`([\w./]+\.(?:py|js))`", text)
    missing = [
        name for name in named if not (list(folder.rglob(name)) or (PACKAGE.parent / name).exists())
    ]
    assert named
    assert not missing


PAGES = [
    PACKAGE.parent / "README.md",
    *sorted((PACKAGE.parent / "docs").glob("*.md")),
    PACKAGE.parent / "benchmarks" / "README.md",
]


def commands_of(text):
    """Command lines that a page says to type: those that are indented."""
    typed = re.findall(r"^    kpms-zarr .*$", text, re.M)
    return [line.strip() for line in typed]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_commands__of_pages_are_lines_that_are_read(page, capsys):
    for line in commands_of(page.read_text("utf-8")):
        words = shlex.split(line, comments=True)[1:]
        try:
            parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{line}: {capsys.readouterr().err}")


def test_commands__of_pages_are_found():
    found = [len(commands_of(page.read_text("utf-8"))) for page in PAGES]
    assert found[0] > 10
    assert sum(found) > 40
    with pytest.raises(SystemExit):
        parser().parse_args(["fit", "study.zarr", "--model", "m", "--no-such-option"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_code__of_pages_calls_functions_that_there_are_by_their_parameters(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if not name.startswith("kpms_zarr.") or "(" in name:
                continue
            *homes, last = name.split(".")
            function = getattr(kpms_zarr.viz if homes[1:] == ["viz"] else kpms_zarr, last)
            known = inspect.signature(function).parameters
            given = {keyword.arg for keyword in node.keywords}
            assert given <= set(known), f"{page.name}: {ast.unparse(node)}"


def test_links__between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            path, _, _ = target.partition("#")
            if not path or "://" in target:
                continue
            assert (page.parent / path).exists(), f"{page.name}: {target}"
