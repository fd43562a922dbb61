"""Attributes that every format can hold, and everything that is written as such."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

import kpms_zarr
from kpms_zarr.store.core import attributes

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
SCALARS = NUMBERS | st.text() | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
# Where SciPy keeps attributes of a file it keeps what it needs itself, such as `fp`.
TAKEN = {"dim", "sizes", *dir(netcdf_file(io.BytesIO(), "w"))}
NAMES = st.from_regex("[a-z_]{1,20}", fullmatch=True).filter(lambda n: n not in TAKEN)
ENGINES = ("h5netcdf", "scipy")


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_stored__is_text_and_numbers_that_come_back(values: dict) -> None:
    stored = attributes.stored(values)
    assert {type(value) for value in stored.values()} <= {str, int, float}
    known = {name: value for name, value in values.items() if value is not None}
    assert attributes.read(stored) == known == attributes.read(attributes.held(values))
    assert json.loads(json.dumps(stored)) == stored


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None)
@given(values=st.dictionaries(NAMES, VALUES, max_size=3))
def test_stored__can_be_written_to_netcdf(engine: str, values: dict) -> None:
    stored = attributes.stored(values)
    wide = any(isinstance(v, int) and abs(v) >= 2**31 for v in stored.values())
    if engine == "scipy" and wide:
        return  # netCDF-3 has no such numbers
    if any("\0" in value for value in stored.values() if isinstance(value, str)):
        return  # nor HDF5 such text, which JSON text never is
    file = io.BytesIO()
    xr.Dataset(attrs=stored).to_netcdf(file, engine=engine)  # type: ignore[call-overload]


# --- nobody writes attributes past the one function ------------------------------------


PACKAGE = Path(kpms_zarr.__file__).parent
# Exports set attributes of HDF5 and of datasets in memory, which are of others' layouts.
EXPORTS = PACKAGE / "store" / "export"
SOURCES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.name != "attributes.py" and EXPORTS not in path.parents
)


def writes(tree: ast.AST) -> Iterator[int]:
    """Lines that set attributes of a group or array of Zarr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            calls = ("update", "put", "setdefault", "update_attributes")
            is_method = isinstance(node.func, ast.Attribute) and node.func.attr in calls
            if is_method and _is_attrs(node.func.value):  # type: ignore[union-attr]
                yield node.lineno
            for keyword in node.keywords:
                if keyword.arg == "attributes" and not _is_stored(keyword.value):
                    yield node.lineno
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if any(isinstance(one, ast.Subscript) and _is_attrs(one.value) for one in targets):
            yield node.lineno  # type: ignore[attr-defined]


def _is_attrs(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "attrs"


def _is_stored(node: ast.AST) -> bool:
    """Whether it is ``attributes.stored(...)``, or a name that was given its result."""
    return ast.unparse(node).startswith("attributes.stored(") or ast.unparse(node) == "attrs"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_groups__get_attributes_by_one_function(path: Path) -> None:
    assert list(writes(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "group.attrs.update(x)",
        "group.attrs.put(x)",
        "root['a'].attrs['b'] = {}",
        "root.create_group('a', attributes={'b': []})",
    ],
)
def test_writes__finds_what_goes_past_it(code: str) -> None:
    assert list(writes(ast.parse(code))) == [1]
