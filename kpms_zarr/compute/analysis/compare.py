"""Comparison of the labels of several models of the same sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.counting import Counts, Overlap, Usage, count
from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.analysis.pairs import PairAgreement, agree
from kpms_zarr.compute.analysis.shared import Labelling, Shared, shared_sessions
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.label_files import FileLabels
from kpms_zarr.store.ingest.label_sources import LabelsLike
from kpms_zarr.store.ingest.label_tables import (
    Rates,
    TableLabels,
    by_name,
    gaps_in_words,
    read_tables,
)
from kpms_zarr.store.model.replicability import reading
from kpms_zarr.store.model.syllable_names import read_names
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import counted, listed

_Labels = PublishedLabels | FileLabels | TableLabels


@dataclass(frozen=True)
class Comparison(ShownAsTable):
    """Comparison of some labellings of the same sessions.

    Attributes
    ----------
    store : str
        "" where files of labels were compared without one.
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
        words = [reading(float(one)) for one in index.values]
        found["reading"] = ("syllable", np.asarray(words, dtype=object))
        return found.isel(syllable=np.argsort(-found["n_frames"].values, kind="stable"))


def compare(
    store: StoreLike | None = None,
    *,
    models: Sequence[str] = (),
    labels: Mapping[str, LabelsLike] | Sequence[LabelsLike] | None = None,
    sessions: Sequence[str] | None = None,
    boundary_tolerance: int = 2,
    fps: Rates = None,
) -> Comparison:
    """Compare the labels of models, each two of them: how far do they agree?

    One pass over the labels, block by block, whatever the size of the study. Sessions that only
    one of two has, and frames that one of them leaves without a label, do not count, and are said.

    Parameters
    ----------
    store : path or URL, optional
        Without it, labels are compared alone, in memory; all must have the same sessions and
        frames.
    models : sequence of str
        Names of published models; ``NAME@v1`` for another version of their labels than the
        current one.
    labels : mapping of str to path or mapping, or sequence of these, optional
        Labels that another package gave to the same sessions, by a name for each (default: those
        of the files): arrays by session, or a file: npz (an array for each session), csv or parquet
        (columns session, frame and syllable, rows in order where there is no frame; or a column for
        each session; or a column syllable in a file called like its session), npy, h5 (a group
        with a dataset ``syllable`` for each session, as the ``results.h5`` of keypoint-MoSeq has,
        or a dataset for each), or a folder of csv or npy files called like the sessions. Labels are
        whole numbers, one for each frame of the session in the store, -1 or empty where there is
        none. Sessions are found by their names, recordings, files or videos, or by a beginning that
        no other has; without a store they are those of that name in each file.
    sessions : sequence of str, optional
        Only these: names, patterns, ``coordinate=value`` (default: all).
    boundary_tolerance : int
        Frames between two changes of label that count as one.
    fps : float, or mapping of str to float, optional
        Frames per second, of all sessions or of each, where there is no store: for durations.

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
    given = by_name(labels or {})
    _check(models, given, boundary_tolerance)
    _check_store(store, models, sessions, fps)
    with ExitStack() as stack:
        found: dict[str, _Labels] = {}
        wanted, further = None, list[str]()
        if store is None:
            tables = list(read_tables(given, fps))
            further = gaps_in_words(tables[-1])
            found = {one.name: replace(one, sessions=tables[-1].sessions) for one in tables}
        else:
            found = {name: PublishedLabels(store, name) for name in models}
            for name, file in given.items():
                one = found[name] = FileLabels(store, name, file)
                stack.callback(one.close)
            if sessions is not None:
                wanted = {s.name for s in select_sessions(store, sessions)}
        shared, rates, notes = shared_sessions(found, wanted)
        _require_common(found, shared)
        counts = count(list(found.values()), shared, tolerance=boundary_tolerance)
    pairs, left_out = _pairs(store, found, shared, counts)
    of_files = [note for one in found.values() for note in getattr(one, "notes", ())]
    return Comparison(
        "" if store is None else os.fspath(store),
        boundary_tolerance,
        _models(found, counts.usage, shared, rates),
        pairs,
        (*of_files, *further, *notes, *left_out),
    )


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


def _check_store(
    store: StoreLike | None, models: Sequence[str], sessions: Sequence[str] | None, fps: Rates
) -> None:
    """Refuse what only a store can give, or only labels without one (InputError)."""
    if store is not None and fps is not None:
        raise InputError(
            expected="frames per second as the store has them",
            found="others",
            where="`fps=`",
            fix="leave it out",
        )
    if store is None and (models or sessions is not None):
        raise InputError(
            expected="the store of the models and sessions",
            found="none",
            where="`models=`" if models else "`sessions=`",
            fix="name it, or leave them out to compare files of labels alone",
        )


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


def _pairs(
    store: StoreLike | None,
    labellings: Mapping[str, _Labels],
    shared: Sequence[Shared],
    counts: Counts,
) -> tuple[tuple[PairAgreement, ...], list[str]]:
    """Agreement of each two, and notes of frames that were left out.

    Raises
    ------
    InputError
        For two without a frame in common.
    """
    sides = [
        (name, _numbers(one, usage), _called(store, one))
        for (name, one), usage in zip(labellings.items(), counts.usage, strict=True)
    ]
    pairs, notes = [], []
    for (i, j), overlap in zip(combinations(range(len(sides)), 2), counts.overlaps, strict=True):
        a, b = sides[i][0], sides[j][0]
        if not overlap.frames.any():
            raise InputError(
                expected=f"frames that both {a} and {b} label",
                found="none",
                where="`models=`",
                fix="look at the labels with `kpms_zarr.summary`",
            )
        n_sessions = sum(min(one.rows[i], one.rows[j]) >= 0 for one in shared)
        pairs.append(agree((sides[i], sides[j]), overlap, n_sessions))
        notes += _left_out(a, b, overlap)
    return tuple(pairs), notes


def _left_out(a: str, b: str, overlap: Overlap) -> list[str]:
    parts = [
        f"{counted(int(n), 'frame')} that {name} alone labels"
        for name, n in zip((a, b), overlap.alone, strict=True)
        if n
    ]
    return [f"{a} and {b}: {' and '.join(parts)}, left out"] if parts else []


def _numbers(labels: _Labels, usage: Usage) -> np.ndarray:
    """Syllables as they are numbered, by the label that was counted."""
    if isinstance(labels, PublishedLabels):
        return np.arange(len(usage.frames))
    return np.asarray(labels.numbers, dtype=np.int64)


def _called(store: StoreLike | None, labels: _Labels) -> dict[int, str]:
    """Names that people gave to syllables."""
    if store is None or not isinstance(labels, PublishedLabels):
        return {}
    names = read_names(store, labels.model, labels.version).names
    return {number: name for number, name in enumerate(names) if name}


def _models(
    labellings: Mapping[str, _Labels],
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
