"""What the documents promise: sections that are cited are there, rooms say what they hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kpms_zarr

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
