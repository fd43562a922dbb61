"""What the code promises about itself: who may import whom, and that importing does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import kpms_zarr

ROOT = Path(kpms_zarr.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# part of the package -> parts that it may import, and outside packages that only it may import
MAY_IMPORT = {
    "store": {"store"},
    "compute.kernels": {"compute.kernels"},
    "compute": {"compute", "compute.kernels", "store"},
    "viz": {"viz", "store"},
}
ONLY_IN = {
    "zarr": "store",
    "h5py": "store",
    "fsspec": "store",
    "jax": "compute",
    "jaxlib": "compute",
    "holoviews": "viz",
    "bokeh": "viz",
    "panel": "viz",
    "av": "viz",
    "PIL": "viz",
}


def part_of(module):
    """``kpms_zarr.compute.kernels.hmm`` -> ``compute.kernels``; "" for the top level."""
    below = module.split(".")[1:]
    if below[:2] == ["compute", "kernels"]:
        return "compute.kernels"
    return below[0] if below and below[0] in MAY_IMPORT else ""


def module_of(path):
    return ".".join(("kpms_zarr", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def imports_of(path):
    """Every module that a file imports, wherever in it; ``from a import b`` counts as a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports__point_one_way(path):
    part = part_of(module_of(path))
    for name in imports_of(path):
        if name.split(".")[0] != "kpms_zarr":
            owner = ONLY_IN.get(name.split(".")[0])
            assert owner in (None, part.split(".")[0]), f"{path.name} imports {name}"
        elif part and name not in ("kpms_zarr", "kpms_zarr.compute"):
            assert part_of(name) in MAY_IMPORT[part], f"{path.name} imports {name}"
        elif part:
            assert part_of(name) == "compute" == part or _only_prefix(path, name), path


def _only_prefix(path, name):
    """Whether a bare package is named only in ``from package import part``."""
    return any(other.startswith(f"{name}.") for other in imports_of(path))


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["kpms_zarr", "kpms_zarr.cli", "kpms_zarr.store.ingest.ingest"])
def test_import__loads_nothing_heavy(module):
    found = run_python(
        f"import sys, {module}\n"
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
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not path.read_text().strip()
    if module_of(path) == "kpms_zarr.cli.entry":
        return
    names = [
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    assert "print" not in names
