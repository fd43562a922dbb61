"""Agreement of two labellings: figures, confusion matrix, syllables, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.calibration import calibration
from kpms_zarr.compute.analysis.counting import Overlap
from kpms_zarr.store.model.replicability import READINGS, reading

Side = tuple[str, np.ndarray, Mapping[int, str]]
"""Name of a labelling, numbers of its syllables, and names of some of them."""


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two labellings, over the frames that both label.

    Attributes
    ----------
    a, b : str
        Names of the two.
    n_sessions, n_frames : int
        Sessions that both have, and frames of them that both label.
    adjusted_rand_index : float
        1 = the same partition of the frames, 0 = as unrelated ones on average.
    normalized_mutual_information : float
        Mutual information over the mean of the entropies, 0 to 1.
    matched_share : float
        Share of the frames with the same label, once syllables are matched one to one so that it
        is largest.
    ceiling : float
        Share of the frames in which the labels could be expected to be the same, if they were as
        uncertain as published: the lower of the mean certainties of a and of b. The certainty of
        a frame is the posterior probability of its label: it is how often an independent draw from
        that posterior would have the same label, so its mean is how often two labellings by one
        model would agree if nothing but that posterior came between them. What is missing to it
        are other modes, chains that have not mixed, or another model. NaN where neither has
        certainties.
    boundary_f1 : float
        Harmonic mean of two shares: of the changes of label of a that have a change of b within
        the tolerance, and of those of b that have one of a.
    boundary_f1_by_chance : float
        The same for changes that lie anywhere, as often as they do.
    effective_number_a, effective_number_b : float
        Effective numbers of syllables in these frames: exp of the entropy of their usage. A
        figure of agreement means little without them: few syllables agree easily.
    confusion : xarray.DataArray, (syllable_a, syllable_b)
        Frames by pair of labels, of the syllables that occur. Matched syllables come first, the
        commonest of a before the others, so that what agrees lies on the diagonal; coordinates
        ``name_a`` and ``name_b`` hold what people called them.
    syllables_a, syllables_b : xarray.Dataset, (syllable)
        Of each syllable of a, or of b: ``n_frames``, ``matched`` (its syllable of the other; -1 =
        none), ``best`` (the one with the largest Jaccard index; several may have the same),
        ``jaccard`` (frames of both over frames of either) and its ``reading`` after Hennig (2007):
        stable from 0.85 on, fairly stable from 0.75, doubtful from 0.6, below do not interpret.
    reading_share_a, reading_share_b : dict of str to float
        Share of the frames in syllables of a, or of b, of each reading.
    calibration_a, calibration_b : xarray.Dataset, (certainty_bin)
        Frames by the certainty that a, or b, publishes, and the share of them that has the matched
        label in the other (see :func:`kpms_zarr.compute.analysis.calibration.calibration`).
    """

    a: str
    b: str
    n_sessions: int
    n_frames: int
    adjusted_rand_index: float
    normalized_mutual_information: float
    matched_share: float
    ceiling: float
    boundary_f1: float
    boundary_f1_by_chance: float
    effective_number_a: float
    effective_number_b: float
    confusion: xr.DataArray
    syllables_a: xr.Dataset
    syllables_b: xr.Dataset
    reading_share_a: dict[str, float]
    reading_share_b: dict[str, float]
    calibration_a: xr.Dataset
    calibration_b: xr.Dataset


def agree(sides: Sequence[Side], overlap: Overlap, n_sessions: int) -> PairAgreement:
    """Describe the agreement of two labellings by what was counted.

    Parameters
    ----------
    sides : sequence of Side
        Of a and of b.
    overlap : Overlap
    n_sessions : int
        Sessions that both have.
    """
    (a, _, _), (b, _, _) = sides
    table = overlap.frames
    matched = agreement.match_syllables(table)
    back = _inverse(matched, table.shape[1])
    n_frames = int(table.sum())
    calibration_a = calibration(overlap.by_certainty_a, overlap.certainty_a, matched)
    by_certainty_b = overlap.by_certainty_b.transpose(0, 2, 1)
    calibration_b = calibration(by_certainty_b, overlap.certainty_b, back)
    said = [one.attrs["mean_certainty"] for one in (calibration_a, calibration_b)]
    rows, columns = _order(table, matched)
    syllables_a = _syllables(table, matched, sides, rows)
    syllables_b = _syllables(table.T, back, sides[::-1], columns)
    return PairAgreement(
        a=a,
        b=b,
        n_sessions=n_sessions,
        n_frames=n_frames,
        adjusted_rand_index=agreement.rand_index_of(table),
        normalized_mutual_information=agreement.information_of(table),
        matched_share=agreement.matched_frames(table, matched) / max(1, n_frames),
        ceiling=float(np.nan if np.isnan(said).all() else np.nanmin(said)),
        boundary_f1=overlap.changes.f1,
        boundary_f1_by_chance=overlap.changes.f1_by_chance,
        effective_number_a=agreement.effective_number(table.sum(1)),
        effective_number_b=agreement.effective_number(table.sum(0)),
        confusion=_confusion(sides, table, rows, columns),
        syllables_a=syllables_a,
        syllables_b=syllables_b,
        reading_share_a=_reading_share(syllables_a),
        reading_share_b=_reading_share(syllables_b),
        calibration_a=calibration_a,
        calibration_b=calibration_b,
    )


def _reading_share(syllables: xr.Dataset) -> dict[str, float]:
    frames, words = syllables["n_frames"].values, syllables["reading"].values
    total = max(1, int(frames.sum()))
    return {one: float(frames[words == one].sum() / total) for _, one in READINGS}


def _inverse(matched: np.ndarray, n: int) -> np.ndarray:
    back = np.full(n, -1, np.int64)
    rows = np.flatnonzero(matched >= 0)
    back[matched[rows]] = rows
    return back


def _order(table: np.ndarray, matched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Syllables of a and of b that occur: matched ones first, by frames of a; then the others."""
    frames_a, frames_b = table.sum(1), table.sum(0)
    rows = np.argsort(-frames_a, kind="stable")
    rows = rows[np.argsort(matched[rows] < 0, kind="stable")]
    first = matched[rows][matched[rows] >= 0]
    rest = np.setdiff1d(np.argsort(-frames_b, kind="stable"), first, assume_unique=True)
    columns = np.concatenate([first, rest[np.argsort(-frames_b[rest], kind="stable")]])
    return rows[frames_a[rows] > 0], columns[frames_b[columns] > 0].astype(np.int64)


def _confusion(
    sides: Sequence[Side], table: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> xr.DataArray:
    coords: dict[str, Any] = {}
    for letter, (_, numbers, called), places in zip("ab", sides, (rows, columns), strict=True):
        syllable = numbers[places]
        names = [called.get(int(number), "") for number in syllable]
        coords[f"syllable_{letter}"] = syllable
        coords[f"name_{letter}"] = (f"syllable_{letter}", np.asarray(names, dtype=object))
    return xr.DataArray(
        table[np.ix_(rows, columns)],
        coords,
        ("syllable_a", "syllable_b"),
        name="n_frames",
        attrs={"a": sides[0][0], "b": sides[1][0], "units": "frames"},
    )


def _syllables(
    table: np.ndarray, matched: np.ndarray, sides: Sequence[Side], rows: np.ndarray
) -> xr.Dataset:
    numbers, others = sides[0][1], np.append(sides[1][1], -1)
    index = agreement.jaccard(table)
    best = index.argmax(1) if index.size else np.zeros(len(index), np.int64)
    largest = index.max(1, initial=0)[rows]
    words = [reading(float(one)) for one in largest]
    values = {
        "n_frames": table.sum(1)[rows],
        "matched": others[matched[rows]],  # -1 is the last
        "best": others[best[rows]],
        "jaccard": largest,
        "reading": np.asarray(words, dtype=object),
    }
    return xr.Dataset(
        {name: ("syllable", column) for name, column in values.items()},
        {"syllable": numbers[rows]},
        {"model": sides[0][0], "other": sides[1][0]},
    )
