"""Provenance of a group: who made it, when, from what and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

from kpms_zarr.store.core import attributes

_PACKAGES = ("zarr", "numpy", "xarray", "dask", "jax")


def package_version() -> str:
    """Version of the installed package, "unknown" from a bare source tree."""
    return _version("kpms_zarr") or "unknown"


@cache
def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def provenance_of(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Read the provenance of a group or dataset from its attributes; empty without."""
    return dict(attributes.read(holder).get("provenance") or {})


def provenance(action: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Attributes that every group carries.

    Parameters
    ----------
    action : str
        Public verb that wrote the group, such as ``"ingest"``.
    settings : mapping, optional
        JSON-compatible settings of that verb.
    """
    versions = {package: found for package in _PACKAGES if (found := _version(package))}
    return {
        "provenance": {
            "action": action,
            "created_by": f"kpms_zarr {package_version()}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions,
            "settings": dict(settings or {}),
        }
    }
