"""Attributes that every format can hold: text and numbers, JSON text for all else.

Zarr takes any JSON for an attribute, netCDF does not. A group that others copy with
``xarray.open_zarr(...).to_netcdf(...)`` therefore holds no dict, list, truth value or None. Groups
written before that rule are read by the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import zarr

_JSON = ("{", "[", '"')
"""With which JSON text begins that is more than a number."""


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert attributes for a store: text or numbers; what is None is left out.

    Truth values become 0 and 1. :func:`read` gives everything else back as it was.
    """
    return {name: _stored(value) for name, value in values.items() if value is not None}


def held(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert attributes for datasets: like :func:`stored`, lists of text or numbers kept.

    Both netCDF-4 and people who look at a dataset take those.
    """
    plain = read(stored(values))
    return {name: value if _is_flat(value) else _stored(value) for name, value in plain.items()}


def read(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Convert attributes back from :func:`stored` or :func:`held`, or as older releases wrote."""
    return {name: _read(value) for name, value in attributes.items()}


def write(group: zarr.Group, values: Mapping[str, Any]) -> None:
    """Change attributes of a group in one write; those that are None go."""
    group.attrs.put(changed(dict(group.attrs), values))


def changed(attributes: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Set some of the attributes, and return all as they are written."""
    return dict(stored({**read(attributes), **values}))


def _stored(value: Any) -> str | int | float:
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    is_text = isinstance(value, str) and not value.startswith(_JSON)
    return value if is_text else json.dumps(value, ensure_ascii=False)


def _read(value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith(_JSON)):
        return value
    try:
        return json.loads(value)
    except ValueError:  # written as it is by somebody else
        return value


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and (
        all(isinstance(one, str) for one in value)
        or all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
    )
