"""What the code promises about itself: who may import whom, and that importing does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import kpms_zarr

ROOT = Path(kpms_zarr.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# room -> rooms below it, from which it may import; a file at the top of a part is in the room of
# its part, and every room may import from that (errors, settings, ...) but the kernels
BELOW = {
    "store": set(),
    "store.parsers": {"store"},
    "store.core": {"store"},
    "store.study": {"store", "store.core"},
    "store.model": {"store", "store.core", "store.study"},
    "store.export": {"store", "store.core", "store.study", "store.model"},
    "store.ingest": {"store", "store.core", "store.study", "store.model", "store.parsers"},
    "compute": set(),
    "compute.kernels": set(),
    "compute.analysis": {"compute"},
    "compute.alignment": {"compute"},
    "compute.tracking": {"compute", "compute.alignment", "compute.cluster"},
    "compute.pose": {"compute", "compute.alignment", "compute.tracking", "compute.cluster"},
    "compute.kinematics": {
        "compute", "compute.alignment", "compute.tracking", "compute.cluster", "compute.analysis",
    },
    "compute.sampler": {"compute", "compute.kernels"},
    "compute.cluster": {"compute"},
    "compute.runs": {
        "compute.cluster",
        "compute", "compute.analysis", "compute.kernels", "compute.alignment",
        "compute.tracking", "compute.pose", "compute.sampler",
    },
    "viz": set(),
    "viz.shared": set(),
    "viz.video": {"viz.shared"},
    "viz.tracking": {"viz.shared", "viz.video"},
    "viz.pose": {"viz.shared", "viz.video"},
    "viz.fit": {"viz.shared", "viz.video"},
    "viz.ethograms": {"viz.shared", "viz.video"},
    "viz.syllables": {"viz.shared", "viz.video"},
    "viz.groups": {"viz.shared"},
    "viz.player": {"viz.shared", "viz.video"},
}  # fmt: skip
_CHAPTERS = {name for name in BELOW if name.startswith("viz.")}
BELOW["viz.movies"] = _CHAPTERS
BELOW["viz.report"] = BELOW["viz.explore"] = {*_CHAPTERS, "viz.movies"}

# part of the package -> other parts that it may import, and packages that only it may import
MAY_IMPORT = {"store": set(), "compute": {"store"}, "viz": {"store"}}
# What depends on choices that are made in the browser is computed there and then, and what is
# cheap for a report.
ASKS = {
    "viz.explore": (
        "compute.analysis", "compute.kinematics", "compute.tracking", "compute.runs.hierarchy",
    ),
    "viz.report": ("compute.runs.hierarchy",),
}  # fmt: skip
ONLY_IN = {
    "zarr": "store",
    "h5py": "store",
    "fsspec": "store",
    "jax": "compute",
    "jaxlib": "compute",
    "distributed": "compute",
    "holoviews": "viz",
    "bokeh": "viz",
    "panel": "viz",
    "av": "viz",
    "PIL": "viz",
}

# names of classes that several parsers may have, each for what its format calls so
WITHIN_A_PARSER = {"_Header", "Variable"}


def room_of(module):
    """``kpms_zarr.compute.kernels.hmm`` -> ``compute.kernels``; "" for the top level and cli."""
    below = module.split(".")[1:]
    if not below or below[0] not in MAY_IMPORT:
        return ""
    room = ".".join(below[:2])
    return room if room in BELOW else below[0]


def module_of(path):
    return ".".join(("kpms_zarr", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


@cache
def tree_of(path):
    return ast.parse(path.read_text())


@cache
def imports_of(path):
    """Every module that a file imports, wherever in it; ``from a import b`` counts as a and a.b."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports__point_one_way(path):
    room = room_of(module_of(path))
    part = room.split(".")[0]
    found = imports_of(path)
    for name in found:
        if name.split(".")[0] != "kpms_zarr":
            owner = ONLY_IN.get(name.split(".")[0])
            assert owner in (None, part), f"{path} imports {name}"
            continue
        if not room or (ROOT / Path(*name.split(".")[1:])).is_dir():
            # A folder is named in "from folder import file", which counts on its own.
            assert not room or any(other.startswith(f"{name}.") for other in found), path
            continue
        other = room_of(name)
        if other.split(".")[0] == part:
            assert other == room or other in BELOW[room], f"{path} imports {name}"
        else:
            assert room != "compute.kernels", f"{path} imports {name}"
            is_asked = name.startswith(tuple(f"kpms_zarr.{one}." for one in ASKS.get(room, ())))
            assert is_asked or other.split(".")[0] in MAY_IMPORT[part], f"{path} imports {name}"


def test_command_line__is_imported_by_nothing_else():
    others = [p for p in FILES if not module_of(p).startswith("kpms_zarr.cli")]
    knows = [p for p in others if any(n.startswith("kpms_zarr.cli") for n in imports_of(p))]
    assert [module_of(path) for path in knows if path.name != "__main__.py"] == []


def test_internals_of_zarr__are_taken_in_one_file():
    taken = {module_of(p) for p in FILES if any(n.startswith("zarr.core") for n in imports_of(p))}
    assert taken == {"kpms_zarr.store.core.zarr_internals"}


def test_class_names__stand_for_one_thing_each():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, n in names.items() if n > 1} <= WITHIN_A_PARSER


def test_rooms__are_those_that_there_are():
    folders = {
        f"{part}.{folder.name}"
        for part in MAY_IMPORT
        for folder in (ROOT / part).iterdir()
        if (folder / "__init__.py").exists()
    }
    assert folders | set(MAY_IMPORT) == set(BELOW)


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import__loads_nothing_heavy():
    found = run_python(
        "import sys, kpms_zarr, kpms_zarr.cli, kpms_zarr.store.ingest.ingest\n"
        "print([n for n in ('jax', 'holoviews', 'bokeh', 'panel') if n in sys.modules])"
    )
    assert found.strip() == "[]"


def test_import__leaves_the_process_as_it_was():
    modules = [module_of(path) for path in FILES if path.name != "__main__.py"]
    # What others do when they are imported is not ours: they are imported first.
    outside = sorted(
        {
            name.split(".")[0]
            for path in FILES
            for name in imports_of(path)
            if name.split(".")[0] not in ("kpms_zarr", "__future__")
        }
    )
    code = f"""
import importlib, json, logging, os, warnings
def load(names):
    for name in names:
        importlib.import_module(name)
load({outside!r} + ["bokeh.embed", "dask.array", "scipy.stats", "jax.numpy", "numpy.random"])
import jax, numpy, zarr
def state():
    return [
        repr(warnings.filters),
        len(logging.getLogger().handlers), logging.getLogger().level,
        [logging.getLogger(n).level for n in ("jax", "zarr", "dask", "kpms_zarr")],
        len(logging.getLogger("kpms_zarr").handlers),
        jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision,
        jax.config.jax_default_device, repr(jax.config.jax_platforms), numpy.geterr(),
        zarr.config.to_dict() if hasattr(zarr.config, "to_dict") else repr(zarr.config.config),
        dict(os.environ),
    ]
before = state()
load({modules!r})
after = state()
print(json.dumps([[repr(a), repr(b)] for a, b in zip(before, after) if a != b]))
print(jax.config.jax_enable_x64)
"""
    changed, x64 = run_python(code).strip().splitlines()
    assert json.loads(changed) == []
    assert x64 == "False"


def test_public_names__exist_and_are_documented():
    for name in kpms_zarr.__all__:
        value = getattr(kpms_zarr, name)
        assert name == "__version__" or value.__doc__
    assert sorted(kpms_zarr.__all__) == dir(kpms_zarr)
    with pytest.raises(AttributeError):
        kpms_zarr.no_such_thing  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_module__has_a_docstring_and_prints_nothing(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not path.read_text().strip()
    if module_of(path) == "kpms_zarr.cli.entry":
        return
    names = [
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    assert "print" not in names
