"""Views of a store as functions that return HoloViews objects; nothing is loaded before it is used.

``kpms_zarr.viz.ethogram("study.zarr", model="first")`` in a notebook shows what the page of
``kpms-zarr explore`` shows.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    # tracking
    "quality_map": "tracking.views",
    "confidence_histograms": "tracking.views",
    "keypoint_traces": "tracking.views",
    "noise_calibration": "tracking.calibration_view",
    # pose space
    "scree": "pose.views",
    "components": "pose.views",
    "scores": "pose.views",
    # the fit
    "traces": "fit.traces",
    "fit_traces": "fit.views",
    "fit_durations": "fit.views",
    "label_stability": "fit.views",
    "denoised": "fit.denoised",
    # syllables in time
    "ethogram": "ethograms.views",
    "bouts": "ethograms.views",
    "ethogram_raster": "ethograms.raster",
    "strip": "ethograms.raster",
    "session_player": "player.player",
    "occupancy": "player.places",
    # syllables one by one
    "frequencies": "syllables.usage",
    "durations": "syllables.usage",
    "poses": "pose.latent",
    "trajectory": "syllables.views",
    "example_bouts": "syllables.views",
    "compare": "syllables.views",
    "frequency_by_group": "syllables.views",
    "neighbours": "syllables.views",
    "replicability": "syllables.agreement",
    # how far labels agree: of what kpms_zarr.compare returns
    "confusion": "syllables.agreement",
    "calibration": "syllables.agreement",
    "comparison_page": "report.comparison",
    # what groups do otherwise: of what kpms_zarr.compare_groups returns
    "group_statistics": "groups.drawing",
    "transition_differences": "groups.drawing",
    "fingerprint_map": "groups.fingerprints",
    # which syllables are alike: of what kpms_zarr.similarity returns
    "dendrogram": "syllables.dendrogram",
    # what happens around onsets: of what kpms_zarr.trajectories and .triggered_average return
    "trajectories": "syllables.typical",
    "trajectory_files": "movies.typical_files",
    "triggered_average": "syllables.triggered",
    "triggered_average_file": "movies.typical_files",
    # when behaviour changes: of what kpms_zarr.changepoints returns
    "changepoints": "syllables.changepoints",
    "changepoints_file": "movies.typical_files",
    # what a scan has found: of what kpms_zarr.scan returns
    "scan_panel": "fit.scan",
    "scan_page": "report.scan",
    # what follows what
    "transition_matrix": "syllables.transition_views",
    "transition_graph": "syllables.transition_views",
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
