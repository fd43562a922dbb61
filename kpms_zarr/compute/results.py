"""Results of a computation as datasets, and as groups of the store, both as the schema has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.schema import variable


def as_dataset(group: str, values: Mapping[str, Any], attrs: Mapping[str, Any]) -> xr.Dataset:
    """Make a dataset of arrays by the names of a group of the schema."""
    kinds: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, value in values.items():
        entry = variable(group, name)
        array = value.astype(str) if entry.dtype == "str" else value
        kinds[entry.is_coordinate][name] = (entry.dims, array, entry.attrs)
    return xr.Dataset(*kinds, attributes.held(dict(attrs)))


def write_group(
    root: access.Group, path: str, values: Mapping[str, Any], attrs: dict[str, Any]
) -> None:
    """Write a group anew, whose name in the schema is that of its path."""
    access.delete_group(root, path)
    group = root.create_group(path)
    layout.write_values(group, path, values)
    attributes.write(group, attrs)
    consolidate(root, [path])
