"""Demonstration on simulated tracking files: store -> quality -> PCA -> fit -> report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback
from kpms_zarr.compute.pose.pca import pca
from kpms_zarr.compute.runs.fit import FitSummary, fit_one
from kpms_zarr.compute.tracking.quality import quality
from kpms_zarr.store.core import access
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_dlc_csv
from kpms_zarr.viz.report.report import report

STUDY = SyntheticStudy(n_sessions=6, n_frames=6_000, missing_fraction=0.01)
MODEL = "demo"


@dataclass(frozen=True)
class DemoSummary(ShownAsTable):
    """Result of :func:`demo`.

    Attributes
    ----------
    folder, store, report : str
        Where everything is, the store, and the HTML page.
    adjusted_rand_index : float
        Agreement of the syllables with the simulated truth; 1 = the same partition.
    """

    folder: str
    store: str
    report: str
    model: str
    fit: FitSummary
    adjusted_rand_index: float
    n_true_syllables: int


def demo(
    folder: str | Path = "kpms-zarr-demo", *, callbacks: Sequence[Callback] = ()
) -> DemoSummary:
    """Simulate tracking files and run the whole job on them.

    Parameters
    ----------
    folder : path
        Gets ``tracking/*.csv`` (DeepLabCut format), ``study.zarr`` and ``report.html``. Run
        again, it finds its files in the store and fits a new version of its model.
    callbacks : sequence of callable
        As in :func:`kpms_zarr.fit`.
    """
    folder = Path(folder)
    store, page = folder / "study.zarr", folder / "report.html"
    files = write_dlc_csv(folder / "tracking", STUDY)
    names = STUDY.settings
    ingest(
        store,
        files,
        fps=STUDY.fps,
        anterior=names.anterior,
        posterior=names.posterior,
        skeleton=names.skeleton,
    )
    quality(store)
    pca(store, variance=0.99)
    fitted = fit_one(
        store, model=MODEL, config=FitConfig(sweeps=50), callbacks=callbacks, overwrite=True
    )
    report(store, model=MODEL, out=page)
    return DemoSummary(
        str(folder), str(store), str(page), MODEL, fitted, _agreement(store), STUDY.n_syllables
    )


def _agreement(store: Path) -> float:
    """Agreement with the truth, which is simulated once more."""
    labels = open_labels(store, MODEL)
    row = {name: i for i, name in enumerate(STUDY.session_names)}
    found, truth = [], []
    for session in access.sessions(store):
        found.append(np.asarray(labels["syllable"][session.index, : session.n_frames]))
        truth.append(simulate_session(STUDY, row[session.name]).syllable)
    return adjusted_rand_index(np.concatenate(found), np.concatenate(truth))
