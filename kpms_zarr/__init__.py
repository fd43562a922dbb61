"""Syllables of behaviour from tracked keypoints, in one shared Zarr store per study."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kpms_zarr.store.core.provenance import package_version

if TYPE_CHECKING:
    from kpms_zarr.compute.analysis.compare import compare
    from kpms_zarr.compute.analysis.groups.compare_groups import compare_groups
    from kpms_zarr.compute.analysis.onsets.trajectories import trajectories
    from kpms_zarr.compute.analysis.onsets.triggered_average import triggered_average
    from kpms_zarr.compute.analysis.tables.syllable_table import syllable_table
    from kpms_zarr.compute.analysis.tables.tables import tables
    from kpms_zarr.compute.cluster.store_work import build_levels, verify
    from kpms_zarr.compute.config import Budget, FitConfig
    from kpms_zarr.compute.kinematics.changepoints import changepoints
    from kpms_zarr.compute.pose.pca import pca
    from kpms_zarr.compute.runs.apply import apply
    from kpms_zarr.compute.runs.consensus import consensus
    from kpms_zarr.compute.runs.fit import fit
    from kpms_zarr.compute.runs.hierarchy.merge import merge
    from kpms_zarr.compute.runs.hierarchy.similarity import similarity
    from kpms_zarr.compute.runs.import_project import import_keypoint_moseq
    from kpms_zarr.compute.runs.label_consensus import consensus_of_labels
    from kpms_zarr.compute.runs.plan import plan
    from kpms_zarr.compute.runs.scan import scan
    from kpms_zarr.compute.runs.summaries import summary
    from kpms_zarr.compute.tracking.calibrate import calibrate
    from kpms_zarr.compute.tracking.ingesting import ingest
    from kpms_zarr.compute.tracking.quality import quality
    from kpms_zarr.demonstration import demo
    from kpms_zarr.diagnosis import doctor
    from kpms_zarr.progress import Progress
    from kpms_zarr.store.core.access import set_storage_options
    from kpms_zarr.store.errors import InputError
    from kpms_zarr.store.export.export import export
    from kpms_zarr.store.ingest.annotate import annotate
    from kpms_zarr.store.ingest.epochs import epochs
    from kpms_zarr.store.ingest.remove import remove
    from kpms_zarr.store.ingest.signals import signals
    from kpms_zarr.store.ingest.timestamps import timestamps
    from kpms_zarr.store.model.checkpoints import open_progress
    from kpms_zarr.store.model.info import info
    from kpms_zarr.store.model.levels import open_levels
    from kpms_zarr.store.model.models import open_labels, open_parameters
    from kpms_zarr.store.model.reconstruction import reconstruct
    from kpms_zarr.store.model.scans import open_scan
    from kpms_zarr.store.model.syllable_names import name_syllable, syllable_names
    from kpms_zarr.store.model.versions import versions
    from kpms_zarr.store.study.changepoints import open_changepoints
    from kpms_zarr.store.study.epochs import open_epochs
    from kpms_zarr.store.study.signals import open_signal
    from kpms_zarr.store.study.simulate import simulate
    from kpms_zarr.store.study.timestamps import open_timestamps
    from kpms_zarr.viz.explore.server import explore
    from kpms_zarr.viz.movies.movies import movies
    from kpms_zarr.viz.movies.overlays import overlay_movie
    from kpms_zarr.viz.report.report import report
    from kpms_zarr.workflow import run

__version__ = package_version()

_HOME = {
    "ingest": "kpms_zarr.compute.tracking.ingesting",
    "annotate": "kpms_zarr.store.ingest.annotate",
    "epochs": "kpms_zarr.store.ingest.epochs",
    "timestamps": "kpms_zarr.store.ingest.timestamps",
    "signals": "kpms_zarr.store.ingest.signals",
    "remove": "kpms_zarr.store.ingest.remove",
    "verify": "kpms_zarr.compute.cluster.store_work",
    "export": "kpms_zarr.store.export.export",
    "import_keypoint_moseq": "kpms_zarr.compute.runs.import_project",
    "set_storage_options": "kpms_zarr.store.core.access",
    "info": "kpms_zarr.store.model.info",
    "quality": "kpms_zarr.compute.tracking.quality",
    "calibrate": "kpms_zarr.compute.tracking.calibrate",
    "pca": "kpms_zarr.compute.pose.pca",
    "changepoints": "kpms_zarr.compute.kinematics.changepoints",
    "fit": "kpms_zarr.compute.runs.fit",
    "FitConfig": "kpms_zarr.compute.config",
    "Budget": "kpms_zarr.compute.config",
    "plan": "kpms_zarr.compute.runs.plan",
    "apply": "kpms_zarr.compute.runs.apply",
    "summary": "kpms_zarr.compute.runs.summaries",
    "consensus": "kpms_zarr.compute.runs.consensus",
    "consensus_of_labels": "kpms_zarr.compute.runs.label_consensus",
    "tables": "kpms_zarr.compute.analysis.tables.tables",
    "syllable_table": "kpms_zarr.compute.analysis.tables.syllable_table",
    "compare": "kpms_zarr.compute.analysis.compare",
    "compare_groups": "kpms_zarr.compute.analysis.groups.compare_groups",
    "similarity": "kpms_zarr.compute.runs.hierarchy.similarity",
    "merge": "kpms_zarr.compute.runs.hierarchy.merge",
    "versions": "kpms_zarr.store.model.versions",
    "trajectories": "kpms_zarr.compute.analysis.onsets.trajectories",
    "triggered_average": "kpms_zarr.compute.analysis.onsets.triggered_average",
    "scan": "kpms_zarr.compute.runs.scan",
    "explore": "kpms_zarr.viz.explore.server",
    "report": "kpms_zarr.viz.report.report",
    "movies": "kpms_zarr.viz.movies.movies",
    "overlay_movie": "kpms_zarr.viz.movies.overlays",
    "run": "kpms_zarr.workflow",
    "demo": "kpms_zarr.demonstration",
    "simulate": "kpms_zarr.store.study.simulate",
    "doctor": "kpms_zarr.diagnosis",
    "Progress": "kpms_zarr.progress",
    "open_labels": "kpms_zarr.store.model.models",
    "open_parameters": "kpms_zarr.store.model.models",
    "open_epochs": "kpms_zarr.store.study.epochs",
    "open_timestamps": "kpms_zarr.store.study.timestamps",
    "open_signal": "kpms_zarr.store.study.signals",
    "open_changepoints": "kpms_zarr.store.study.changepoints",
    "open_levels": "kpms_zarr.store.model.levels",
    "build_levels": "kpms_zarr.compute.cluster.store_work",
    "open_scan": "kpms_zarr.store.model.scans",
    "open_progress": "kpms_zarr.store.model.checkpoints",
    "reconstruct": "kpms_zarr.store.model.reconstruction",
    "name_syllable": "kpms_zarr.store.model.syllable_names",
    "syllable_names": "kpms_zarr.store.model.syllable_names",
    "InputError": "kpms_zarr.store.errors",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'kpms_zarr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
