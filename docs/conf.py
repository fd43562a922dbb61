"""Settings of the site; `make docs` builds it. Reference pages are made of the package itself."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import kpms_zarr  # noqa: E402
import kpms_zarr.viz  # noqa: E402
from kpms_zarr.cli.entry import parser  # noqa: E402
from kpms_zarr.cli.options import OptionParser  # noqa: E402
from kpms_zarr.store.core import schema  # noqa: E402

project = "kpms_zarr"
author = "The kpms_zarr developers"
version = release = kpms_zarr.__version__
extensions = ["sphinx.ext.autosummary", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
html_theme = "pydata_sphinx_theme"
html_title = "kpms_zarr"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "icon_links": []}
html_show_sourcelink = False
exclude_patterns = ["_build", "_generated/*.md", "**.ipynb_checkpoints"]
templates_path: list[str] = []
autosummary_generate = True
autodoc_typehints = "none"
napoleon_google_docstring = False
nb_execution_mode = "off"  # tests run the notebooks
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["config.cache"]
GENERATED = HERE / "_generated"

TOPICS = {
    "The whole job": ["run", "demo", "simulate"],
    "Data into a store": [
        "ingest", "annotate", "epochs", "timestamps", "signals", "remove", "verify", "info",
        "import_keypoint_moseq", "set_storage_options",
    ],
    "Tracking and pose": ["quality", "calibrate", "pca", "changepoints"],
    "Fits": [
        "fit", "FitConfig", "Budget", "Progress", "plan", "scan", "consensus",
        "consensus_of_labels", "apply",
    ],
    "What was found": [
        "summary", "report", "explore", "movies", "overlay_movie", "trajectories", "name_syllable",
        "syllable_names", "compare", "reconstruct",
    ],
    "Syllables that are one": ["similarity", "merge", "versions"],
    "Numbers for the paper": [
        "tables", "syllable_table", "compare_groups", "triggered_average", "export",
    ],
    "Reading": [
        "open_labels", "open_parameters", "open_epochs", "open_timestamps", "open_signal",
        "open_changepoints", "open_levels", "build_levels", "open_scan", "open_progress",
    ],
    "This machine": ["doctor", "InputError"],
}  # fmt: skip


def _listing(title: str, names: list[str]) -> str:
    lines = "\n".join(f"   {name}" for name in names)
    return (
        f"{title}\n{'-' * len(title)}\n\n.. autosummary::\n   :toctree: reference\n"
        f"   :nosignatures:\n\n{lines}\n\n"
    )


def api() -> str:
    """Every public function, by topic: in the markup in which autosummary looks for names."""
    left = set(kpms_zarr.__all__) - {"__version__"} - {n for ns in TOPICS.values() for n in ns}
    topics = {**TOPICS, **({"Others": sorted(left)} if left else {})}
    text = "".join(
        _listing(title, [f"kpms_zarr.{n}" for n in names if n in kpms_zarr.__all__])
        for title, names in topics.items()
    )
    views = [f"kpms_zarr.viz.{name}" for name in kpms_zarr.viz.__all__]
    about = (
        "Python\n======\n\nEvery command is a function of the same name in ``kpms_zarr``; "
        "pictures are in ``kpms_zarr.viz``.\n\n"
    )
    return about + text + _listing("Pictures", views)


def of_repository(name: str) -> str:
    """A page of the repository, its links as the site has them."""
    text = (HERE.parent / name).read_text("utf-8")
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    return re.sub(r"\]\(benchmarks/README\.md", "](performance.md", text)


def commands() -> str:
    """Help of every command, as it is printed."""
    top = parser()
    parts = [f"```text\n{top.format_help()}```\n"]
    for name, command in top.commands.items():
        assert isinstance(command, OptionParser)
        text = re.sub(r"[ \t]+$", "", command.format_help(is_whole=True), flags=re.M)
        parts.append(f"## {name}\n\n```text\n{text}```\n")
    return "\n".join(parts)


def store_schema() -> str:
    """Tables of the groups, variables and dims of a store, from the registry."""
    lines = ["## Dims", "", "| dim | what it counts |", "| --- | --- |"]
    lines += [f"| `{name}` | {_cell(text)} |" for name, text in schema.DIMS.items()]
    tables = [
        (name, value)
        for name, value in inspect.getmembers(schema)
        if isinstance(value, tuple) and value and isinstance(value[0], schema.Variable)
    ]
    for name, variables in tables:
        title = name.lower().replace("_", " ")
        lines += ["", f"## {title}", "", "| variable | dims | kind | units | meaning |",
                  "| --- | --- | --- | --- | --- |"]  # fmt: skip
        lines += [
            f"| `{one.name}` | {', '.join(one.dims)} | {one.dtype} | {_cell(one.units)} | "
            f"{_cell(one.meaning)} |"
            for one in variables
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def setup(app: object) -> None:
    """Write the pages that are made of the package, and bring the notebooks along."""
    GENERATED.mkdir(exist_ok=True)
    pages = {
        "api.rst": api(),
        "commands.md": commands(),
        "schema.md": store_schema(),
        "changelog.md": of_repository("CHANGELOG.md"),
        "performance.md": of_repository("benchmarks/README.md"),
    }
    for name, text in pages.items():
        path = GENERATED / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    tutorials = HERE / "tutorials"
    tutorials.mkdir(exist_ok=True)
    for path in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        shutil.copyfile(path, tutorials / path.name)
