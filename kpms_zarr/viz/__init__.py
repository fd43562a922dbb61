"""Views of a store as functions that return HoloViews objects; nothing is loaded before it is used.

``kpms_zarr.viz.ethogram("study.zarr", model="first")`` in a notebook shows what the page of
``kpms-zarr explore`` shows.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    # tracking
    "quality_map": "quality_views",
    "confidence_histograms": "quality_views",
    "keypoint_traces": "quality_views",
    # pose space
    "scree": "pose_space",
    "components": "pose_space",
    "scores": "pose_space",
    # the fit
    "traces": "tracing",
    "fit_traces": "fit_views",
    "fit_durations": "fit_views",
    "label_stability": "fit_views",
    "denoised": "denoising",
    # syllables in time
    "ethogram": "ethograms",
    "bouts": "ethograms",
    "ethogram_raster": "raster",
    "strip": "raster",
    "session_player": "player",
    "occupancy": "places",
    # syllables one by one
    "frequencies": "plots",
    "durations": "plots",
    "poses": "plots",
    "trajectory": "syllables",
    "example_bouts": "syllables",
    "compare": "syllables",
    "frequency_by_group": "syllables",
    "neighbours": "syllables",
    # what follows what
    "transition_matrix": "transition_views",
    "transition_graph": "transition_views",
}

_RENAMED = {
    # A function and a module of one name would hide each other.
    "ethogram_raster": "raster",
    "example_bouts": "examples",
    "frequency_by_group": "frequency",
    "session_player": "player",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"kpms_zarr.viz.{_HOME[name]}"), _RENAMED.get(name, name))
    raise AttributeError(f"module 'kpms_zarr.viz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
