"""Comparison of the labels of several models of the same sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.calibration import calibration
from kpms_zarr.compute.analysis.counting import Labelling, Overlap, Shared, Usage, count
from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.label_files import FileLabels, LabelsLike
from kpms_zarr.store.model.syllable_names import read_names
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import counted, listed


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


@dataclass(frozen=True)
class Comparison:
    """Comparison of some labellings of the same sessions.

    Attributes
    ----------
    store : str
    boundary_tolerance : int
        Frames.
    models : xarray.Dataset, (model)
        Of each labelling, over all frames that it labels: ``n_sessions``, ``n_frames``,
        ``effective_number`` of syllables, ``n_used`` (with 0.5 % of the frames or more),
        ``median_duration`` of its bouts (ms), ``mean_certainty`` (NaN where it has none) and
        ``version`` of the labels ("" for those of a file).
    pairs : tuple of PairAgreement
        Each two.
    notes : tuple of str
        What was left out, and how the sessions of files were found.
    """

    store: str
    boundary_tolerance: int
    models: xr.Dataset
    pairs: tuple[PairAgreement, ...]
    notes: tuple[str, ...]

    def pair(self, a: str, b: str) -> PairAgreement:
        """Agreement of two of the labellings, in the order in which they were compared.

        Raises
        ------
        InputError
            When they were not compared.
        """
        found = next((one for one in self.pairs if {one.a, one.b} == {a, b}), None)
        if found is None:
            names = ", ".join(map(str, self.models["model"].values))
            raise InputError(
                expected=f"two of {names}",
                found=f"{a!r} and {b!r}",
                where="pair",
                fix="compare them with `kpms_zarr.compare`",
            )
        return found

    def replicability(self, model: str) -> xr.Dataset:
        """Mean Jaccard index of each syllable of a labelling over all the others.

        Returns
        -------
        xarray.Dataset
            By ``syllable``, most frequent first: ``n_frames``, ``jaccard`` and ``reading`` (see
            :class:`PairAgreement`).

        Raises
        ------
        InputError
            When it was not compared.
        """
        tables = [
            one.syllables_a if one.a == model else one.syllables_b
            for one in self.pairs
            if model in (one.a, one.b)
        ]
        if not tables:
            raise InputError(
                expected=f"one of {', '.join(map(str, self.models['model'].values))}",
                found=repr(model),
                where="model",
                fix="compare it with `kpms_zarr.compare`",
            )
        every = xr.concat([one[["n_frames", "jaccard"]] for one in tables], "other", join="outer")
        index = every["jaccard"].mean("other")
        found = xr.Dataset({"n_frames": every["n_frames"].max("other"), "jaccard": index})
        found["n_frames"] = found["n_frames"].astype(np.int64)
        words = [agreement.reading(float(one)) for one in index.values]
        found["reading"] = ("syllable", np.asarray(words, dtype=object))
        return found.isel(syllable=np.argsort(-found["n_frames"].values, kind="stable"))


def compare(
    store: StoreLike,
    *,
    models: Sequence[str] = (),
    labels: Mapping[str, LabelsLike] | None = None,
    sessions: Sequence[str] | None = None,
    boundary_tolerance: int = 2,
) -> Comparison:
    """Compare the labels of models, each two of them: how far do they agree?

    One pass over the labels, block by block, whatever the size of the study. Sessions that only
    one of two has, and frames that one of them leaves without a label, do not count, and are said.

    Parameters
    ----------
    store : path or URL
    models : sequence of str
        Names of published models; ``NAME@v1`` for another version of their labels than the
        current one.
    labels : mapping of str to path or mapping, optional
        Labels that another package gave to the same sessions, by a name for each: arrays by
        session, or a file: npz (an array for each session), csv or parquet (columns session, frame
        and syllable; or a column for each session; or a column syllable in a file called like its
        session), npy, h5 (a group with a dataset ``syllable`` for each session, as the
        ``results.h5`` of keypoint-MoSeq has, or a dataset for each), or a folder of csv or npy
        files called like the sessions. Labels are whole numbers, one for each frame of the session
        in the store, -1 or empty where there is none. Sessions are found by their names,
        recordings, files or videos, or by a beginning that no other has.
    sessions : sequence of str, optional
        Only these: names, patterns, ``coordinate=value`` (default: all).
    boundary_tolerance : int
        Frames between two changes of label that count as one.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        Fewer than two labellings, one of them twice, none of that name, a file that cannot be
        read, or two without a frame in common.
    """
    models = [models] if isinstance(models, str) else list(models)
    given = dict(labels or {})
    _check(models, given, boundary_tolerance)
    with ExitStack() as stack:
        found: dict[str, PublishedLabels | FileLabels] = {
            name: PublishedLabels(store, name) for name in models
        }
        for name, file in given.items():
            found[name] = FileLabels(store, name, file)
            stack.callback(found[name].close)  # type: ignore[union-attr]
        wanted = None if sessions is None else {s.name for s in select_sessions(store, sessions)}
        shared, rates, notes = _shared(found, wanted)
        _require_common(found, shared)
        counts = count(list(found.values()), shared, tolerance=boundary_tolerance)
    names = list(found)
    numbers = [
        _numbers(one, usage) for one, usage in zip(found.values(), counts.usage, strict=True)
    ]
    called = [_called(store, one) for one in found.values()]
    pairs = []
    for (a, b), overlap in zip(combinations(range(len(names)), 2), counts.overlaps, strict=True):
        n_sessions = sum(min(one.rows[a], one.rows[b]) >= 0 for one in shared)
        sides = [(names[i], numbers[i], called[i]) for i in (a, b)]
        pairs.append(_pair(sides, overlap, n_sessions))
        notes += _left_out(names[a], names[b], overlap)
    _require_frames(pairs)
    notes = [
        note for one in found.values() if isinstance(one, FileLabels) for note in one.notes
    ] + notes
    table = _models(found, counts.usage, shared, rates)
    return Comparison(os.fspath(store), boundary_tolerance, table, tuple(pairs), tuple(notes))


def _check(models: Sequence[str], labels: Mapping[str, Any], tolerance: int) -> None:
    """Refuse what cannot be compared (InputError)."""
    problems = []
    names = [*models, *labels]
    if len(names) < 2:
        problems.append(
            Problem(
                "two models or more, or a model and labels of another package",
                listed(map(repr, names)) or "none",
                "`models=`",
                "name them: `models=['first', 'second']`; labels of another package with `labels=`",
            )
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems.append(
            Problem(
                "different names for all that is compared",
                f"{listed(map(repr, twice))} more than once",
                "`models=`",
                "name each once; another version of the labels of a model is NAME@v1",
            )
        )
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | np.integer) or tolerance < 0:
        problems.append(
            Problem(
                "a number of frames, 0 or more",
                repr(tolerance),
                "`boundary_tolerance=`",
                "leave it out to have 2",
            )
        )
    if problems:
        raise InputError.of(problems)


def _shared(
    labellings: Mapping[str, Labelling], wanted: set[str] | None
) -> tuple[list[Shared], list[float], list[str]]:
    """Sessions that are read, frame rates by number, and notes of what is left out."""
    tables = [{s.name: s for s in one.sessions} for one in labellings.values()]
    every = list(dict.fromkeys(name for table in tables for name in table))
    if wanted is not None:
        every = [name for name in every if name in wanted]
    shared: list[Shared] = []
    rates: list[float] = []
    notes: list[str] = []
    unequal: list[str] = []
    for name in every:
        have = [table[name] for table in tables if name in table]
        if len({session.n_frames for session in have}) > 1:
            unequal.append(name)
            continue
        if have[0].fps not in rates:
            rates.append(have[0].fps)
        rows = tuple(table[name].index if name in table else -1 for table in tables)
        rate = rates.index(have[0].fps)
        shared.append(Shared(len(shared), rate, have[0].n_frames, rows))
    if unequal:
        verb = "has" if len(unequal) == 1 else "have"
        notes.append(f"{listed(unequal)} {verb} not the same length in all of them, left out")
    for name, table in zip(labellings, tables, strict=True):
        without = [one for one in every if one not in table and one not in unequal]
        if without:
            sessions = counted(len(without), "session")
            notes.append(
                f"{name} has no labels of {sessions}: {listed(without, 3)}; left out there"
            )
    return shared, rates, notes


def _require_common(labellings: Mapping[str, Labelling], shared: Sequence[Shared]) -> None:
    """Refuse two labellings without a session in common (InputError)."""
    for (i, a), (j, b) in combinations(enumerate(labellings), 2):
        if any(min(one.rows[i], one.rows[j]) >= 0 for one in shared):
            continue
        have = [", ".join(s.name for s in labellings[one].sessions[:3]) for one in (a, b)]
        raise InputError(
            expected=f"sessions that both {a} and {b} label",
            found=f"none: {a} has {have[0]}, {b} has {have[1]}",
            where="`models=`",
            fix=f"label the same sessions with both: `kpms_zarr.apply(STORE, model={a!r})`",
        )


def _require_frames(pairs: Sequence[PairAgreement]) -> None:
    """Refuse two labellings without a frame in common (InputError)."""
    for one in pairs:
        if not one.n_frames:
            raise InputError(
                expected=f"frames that both {one.a} and {one.b} label",
                found="none",
                where="`models=`",
                fix="look at the labels with `kpms_zarr.summary`",
            )


def _left_out(a: str, b: str, overlap: Overlap) -> list[str]:
    parts = [
        f"{counted(int(n), 'frame')} that {name} alone labels"
        for name, n in zip((a, b), overlap.alone, strict=True)
        if n
    ]
    return [f"{a} and {b}: {' and '.join(parts)}, left out"] if parts else []


def _numbers(labels: PublishedLabels | FileLabels, usage: Usage) -> np.ndarray:
    """Syllables as they are numbered, by the label that was counted."""
    if isinstance(labels, FileLabels):
        return np.asarray(labels.numbers, dtype=np.int64)
    return np.arange(len(usage.frames))


def _called(store: StoreLike, labels: PublishedLabels | FileLabels) -> dict[int, str]:
    """Names that people gave to syllables."""
    if isinstance(labels, FileLabels):
        return {}
    names = read_names(store, labels.model, labels.version).names
    return {number: name for number, name in enumerate(names) if name}


def _models(
    labellings: Mapping[str, PublishedLabels | FileLabels],
    usages: Sequence[Usage],
    shared: Sequence[Shared],
    rates: Sequence[float],
) -> xr.Dataset:
    rows = []
    for place, (labels, usage) in enumerate(zip(labellings.values(), usages, strict=True)):
        total = int(usage.frames.sum())
        rows.append(
            {
                "version": getattr(labels, "version", ""),
                "n_sessions": sum(one.rows[place] >= 0 for one in shared),
                "n_frames": total,
                "effective_number": agreement.effective_number(usage.frames),
                "n_used": int((usage.frames >= USED_FRACTION * max(1, total)).sum()),
                "median_duration": usage.bouts.median(rates) if usage.bouts else np.nan,
                "mean_certainty": usage.certainty / usage.n_certain if usage.n_certain else np.nan,
            }
        )
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    columns["version"] = columns["version"].astype(object)
    return xr.Dataset(
        {name: ("model", values) for name, values in columns.items()},
        {"model": np.asarray(list(labellings), dtype=object)},
    )


_Side = tuple[str, np.ndarray, Mapping[int, str]]
"""Name of a labelling, numbers of its syllables, and names of some of them."""


def _pair(sides: Sequence[_Side], overlap: Overlap, n_sessions: int) -> PairAgreement:
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
    return {one: float(frames[words == one].sum() / total) for _, one in agreement.READINGS}


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
    sides: Sequence[_Side], table: np.ndarray, rows: np.ndarray, columns: np.ndarray
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
    table: np.ndarray, matched: np.ndarray, sides: Sequence[_Side], rows: np.ndarray
) -> xr.Dataset:
    numbers, others = sides[0][1], np.append(sides[1][1], -1)
    index = agreement.jaccard(table)
    best = index.argmax(1) if index.size else np.zeros(len(index), np.int64)
    largest = index.max(1, initial=0)[rows]
    words = [agreement.reading(float(one)) for one in largest]
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
