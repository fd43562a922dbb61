"""What packages say of themselves agrees with pyproject.toml, which alone is edited."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import kpms_zarr

HOME = Path(kpms_zarr.__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lower_bounds(*requirements):
    """Oldest version by package."""
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", one) for one in requirements)
    return {one[1].lower(): one[2] for one in found if one}


def test_lowest_constraints__are_the_lower_bounds():
    """Of all but what tests and the site take, and of GPUs, whose versions are those of jax."""
    extras = [x for name, ones in EXTRAS.items() for x in ones
              if name not in ("test", "docs", "cuda12", "cuda13")]  # fmt: skip
    lines = (HOME / "constraints-lowest.txt").read_text("utf-8").split()
    assert dict(line.split("==") for line in lines) == lower_bounds(
        *PROJECT["dependencies"], *extras
    )


def test_extras__are_those_that_people_ask_for():
    assert {"s3", "formats", "viz", "cluster", "cuda12", "cuda13", "all"} <= set(EXTRAS)
    (everything,) = EXTRAS["all"]
    named = re.findall(r"\w+", everything.partition("[")[2])
    others = {"docs", "test", "cuda12", "cuda13", "all"}
    within = {n for name in named for x in EXTRAS[name]
              for n in re.findall(r"kpms_zarr\[([\w,]+)\]", x)}  # fmt: skip
    reached = {*named, *(n for one in within for n in one.split(","))}
    assert reached == set(EXTRAS) - others


def test_conda_recipe__asks_for_the_same_packages():
    text = (HOME / "packaging" / "meta.yaml").read_text("utf-8")
    run = text.partition("  run:\n")[2].partition("\ntest:")[0]
    found = {line.strip("- ").replace(" ", "") for line in run.splitlines() if line.strip()}
    python = "python" + PROJECT["requires-python"]
    assert found == {python, *PROJECT["dependencies"]}


def test_versions__agree():
    version = PROJECT["version"]
    for name, pattern in (
        ("packaging/meta.yaml", rf'version: "{version}"'),
        ("CITATION.cff", rf"^version: \"?{version}\"?$"),
        ("CHANGELOG.md", rf"^## {version}"),
    ):
        assert re.search(pattern, (HOME / name).read_text("utf-8"), re.M), name


def test_container__copies_what_there_is():
    text = (HOME / "packaging" / "Dockerfile").read_text("utf-8")
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        for name in line.split()[:-1]:
            assert (HOME / name).exists(), name
    for extras in re.findall(r"EXTRA=([\w,]+)", text):
        assert set(extras.split(",")) <= set(EXTRAS)


def test_source_distribution__lists_what_there_is():
    for line in (HOME / "MANIFEST.in").read_text("utf-8").splitlines():
        kind, *names = line.split()
        if kind in ("include", "graft"):
            for name in names:
                assert (HOME / name).exists(), name
