"""Syllables of behaviour from tracked keypoints, in one shared Zarr store per study."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kpms_zarr.store.provenance import package_version

if TYPE_CHECKING:
    from kpms_zarr.compute.apply import apply
    from kpms_zarr.compute.budget import Budget
    from kpms_zarr.compute.config import FitConfig
    from kpms_zarr.compute.fit import fit
    from kpms_zarr.compute.pca import pca
    from kpms_zarr.compute.plan import plan
    from kpms_zarr.compute.quality import quality
    from kpms_zarr.compute.summaries import summary
    from kpms_zarr.demonstration import demo
    from kpms_zarr.diagnosis import doctor
    from kpms_zarr.store.access import set_storage_options
    from kpms_zarr.store.annotate import annotate
    from kpms_zarr.store.checkpoints import open_progress
    from kpms_zarr.store.errors import InputError
    from kpms_zarr.store.info import info
    from kpms_zarr.store.ingest import ingest
    from kpms_zarr.store.levels import build_levels, open_levels
    from kpms_zarr.store.models import open_labels, open_parameters
    from kpms_zarr.store.reconstruction import reconstruct
    from kpms_zarr.store.remove import remove
    from kpms_zarr.store.syllable_names import name_syllable, syllable_names
    from kpms_zarr.store.verify import verify
    from kpms_zarr.viz.explore.server import explore
    from kpms_zarr.viz.movies import movies
    from kpms_zarr.viz.overlays import overlay_movie
    from kpms_zarr.viz.report import report

__version__ = package_version()

_HOME = {
    "ingest": "kpms_zarr.store.ingest",
    "annotate": "kpms_zarr.store.annotate",
    "remove": "kpms_zarr.store.remove",
    "verify": "kpms_zarr.store.verify",
    "set_storage_options": "kpms_zarr.store.access",
    "info": "kpms_zarr.store.info",
    "quality": "kpms_zarr.compute.quality",
    "pca": "kpms_zarr.compute.pca",
    "fit": "kpms_zarr.compute.fit",
    "FitConfig": "kpms_zarr.compute.config",
    "Budget": "kpms_zarr.compute.budget",
    "plan": "kpms_zarr.compute.plan",
    "apply": "kpms_zarr.compute.apply",
    "summary": "kpms_zarr.compute.summaries",
    "explore": "kpms_zarr.viz.explore.server",
    "report": "kpms_zarr.viz.report",
    "movies": "kpms_zarr.viz.movies",
    "overlay_movie": "kpms_zarr.viz.overlays",
    "demo": "kpms_zarr.demonstration",
    "doctor": "kpms_zarr.diagnosis",
    "open_labels": "kpms_zarr.store.models",
    "open_parameters": "kpms_zarr.store.models",
    "open_levels": "kpms_zarr.store.levels",
    "build_levels": "kpms_zarr.store.levels",
    "open_progress": "kpms_zarr.store.checkpoints",
    "reconstruct": "kpms_zarr.store.reconstruction",
    "name_syllable": "kpms_zarr.store.syllable_names",
    "syllable_names": "kpms_zarr.store.syllable_names",
    "InputError": "kpms_zarr.store.errors",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'kpms_zarr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
