"""How far the syllables of a model replicate, for its report: picture, words and a table."""

from __future__ import annotations

from dataclasses import dataclass

import holoviews as hv
import numpy as np

from kpms_zarr.store.model import replicability
from kpms_zarr.store.model.replicability import Replicability
from kpms_zarr.store.wording import sentence
from kpms_zarr.viz.report.cells import Cells
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.syllables import agreement

READ_SO = (
    "The index of a syllable is the share of frames that both halves give to it, of those that "
    "either gives (Jaccard), and no more than either half shares with the syllable itself; read "
    "after Hennig (2007): stable from 0.85 on, fairly stable from 0.75, doubtful from 0.6; below "
    "that the syllable should not be interpreted."
)


@dataclass(frozen=True)
class Replication:
    """Picture, sentences and table."""

    picture: hv.Overlay
    words: tuple[str, ...]
    table: Cells


def replication(opened: OpenModel) -> Replication:
    """What a report shows of how far syllables replicate.

    Raises
    ------
    MissingData
        Where it was not measured.
    """
    picture = agreement.replicability(opened.store, model=opened)
    found = opened.replicability
    words = [sentence(line) for line in replicability.in_words(found)]
    return Replication(picture, (*words, *_listed(opened, found)), _table(opened, found))


def _listed(opened: OpenModel, found: Replicability) -> list[str]:
    """The syllables in use by their reading."""
    parts = [
        f"{words}: {', '.join(map(opened.names.label, states))}"
        for words, states in found.grouped().items()
        if states
    ]
    return [f"Syllables in use, by their index between halves of the chains: {'; '.join(parts)}."]


def _table(opened: OpenModel, found: Replicability) -> Cells:
    labels = opened.labels
    header = ["Syllable", "Share of frames", "Between chains", "Reading"]
    if found.is_known_between_sessions:
        header += ["Between sessions", "Reading"]
    has_members = "member_agreement" in labels
    header += ["Single chains"] if has_members else []
    header += ["Family"] if found.has_families else []
    rows = []
    for state in opened.used:
        row = [opened.names.label(state), replicability.percent(float(found.frequency[state]))]
        row += _index(float(found.between_chains[state]))
        if found.is_known_between_sessions:
            row += _index(float(found.between_sessions[state]))
        if has_members:
            row.append(_figure(float(labels["member_agreement"][state])))
        if found.has_families:
            row.append(str(found.family[state]) if found.family[state] >= 0 else "none")
        rows.append(row)
    return Cells(header, rows)


def _index(index: float) -> tuple[str, str]:
    return _figure(index), replicability.reading(index) or "not known"


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"
