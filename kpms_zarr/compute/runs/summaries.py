"""Counts, durations and transitions of syllables: exact, and never across sessions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.mapreduce import weighted_median
from kpms_zarr.compute.sampler.bouts import (
    _MAX_DURATION_BINS,
    Labelled,
    count_labels,
    iter_bouts,
)
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels, open_parameters, require_model
from kpms_zarr.store.model.replicability import Replicability, open_replicability, reading, to_attrs
from kpms_zarr.store.model.settling import course_in_words, evidence_by_stage
from kpms_zarr.store.model.syllable_names import read_names


def label_statistics(chain: Labelled, n_states: int) -> dict[str, Any]:
    """Statistics published beside the labels (``schema.LABELS``); durations in ms."""
    fps = np.array([session.fps for session in chain.index.sessions])
    by_bin = np.zeros((n_states, _MAX_DURATION_BINS), np.int64)
    tables = [_Distinct(*(np.zeros(0, np.int64) for _ in range(3)))]
    for part in iter_bouts(chain):
        tick = np.rint(part.length * (fps.max() / fps[part.session])).astype(np.int64)
        np.add.at(by_bin, (part.syllable, np.clip(tick, 1, _MAX_DURATION_BINS) - 1), 1)
        milliseconds = part.length * 1000 / fps[part.session]
        pairs = np.stack([part.syllable, milliseconds])
        distinct, number = np.unique(pairs, axis=1, return_counts=True)
        tables.append(_Distinct(distinct[0], distinct[1], number))
    every = _Distinct(*(np.concatenate(column) for column in zip(*tables, strict=True)))
    by_state = [_select(every, every.syllable == i) for i in range(n_states)]
    counts = count_labels(chain, n_states)
    moves = counts.transitions.copy()
    np.fill_diagonal(moves, 0)
    return {
        "frequency": counts.frames / max(1, counts.frames.sum()),
        "n_bouts": np.array([table.number.sum() for table in by_state]),
        "median_duration": np.array([_median(table) for table in by_state]),
        "mean_duration": np.array([_mean(table) for table in by_state]),
        "duration_count": by_bin,
        "duration": np.arange(1, _MAX_DURATION_BINS + 1) * 1000 / fps.max(),
        "transition_count": moves,
        "median_duration_overall": _median(every),
    }


class _Distinct(NamedTuple):
    """Distinct bouts: syllable, duration in ms, how often."""

    syllable: np.ndarray
    duration: np.ndarray
    number: np.ndarray


def _select(table: _Distinct, which: np.ndarray) -> _Distinct:
    return _Distinct(*(column[which] for column in table))


def _median(table: _Distinct) -> float:
    return weighted_median(table.duration, table.number)


def _mean(table: _Distinct) -> float:
    total = table.number.sum()
    return float(table.duration @ table.number / total) if total else float("nan")


def summary(store: StoreLike, *, model: str) -> xr.Dataset:
    """Table of the syllables of a model that occur, most frequent first.

    Parameters
    ----------
    store : path or URL
    model : str

    Returns
    -------
    xarray.Dataset
        ``frequency``, ``n_bouts``, ``median_duration`` (ms), ``mean_duration`` (ms) and, where it
        is known, ``mean_certainty`` by ``state``; where people named syllables, ``name``;
        of an ensemble ``replicability`` (Jaccard index of the syllable between halves of the
        chains), ``session_replicability`` (between halves of the sessions), what they mean
        (``replicability_reading``, ``session_reading``: "stable", "fairly stable", "doubtful", "do
        not interpret") and ``family``, as far as they are known. Attributes
        ``median_duration_overall`` (ms), ``n_used``, ``version``; ``replicability_in_words`` and
        the figures behind it: agreement of halves (``half_rand_index``, ...) and the share of the
        frames in syllables that may be interpreted (``interpreted_share``, ...); of a fit
        ``log_evidence_ar``, ``log_evidence_full`` (nat per frame, last sweep of the stage) and
        ``course_in_words``: these, and whether the fit had settled.

    Raises
    ------
    InputError
        When there is no such store or model.
    """
    version = require_model(store, model)
    labels = open_labels(store, model, version)
    wanted = ["frequency", "n_bouts", "median_duration", "mean_duration"]
    wanted += ["mean_certainty"] if "mean_certainty" in labels else []
    table = labels[wanted].load()
    others = [name for name in table.coords if "state" not in table[name].dims]
    table = table.drop_vars(others).assign_coords(state=np.arange(table.sizes["state"]))
    called = read_names(store, model)
    if called.version:
        names = [called.custom_name(state) for state in range(table.sizes["state"])]
        table["name"] = ("state", np.asarray(names, dtype=object))
    found = open_replicability(store, model, labels)
    add_replicability(table, found)
    used = int((table["frequency"].values >= USED_FRACTION).sum())
    table = table.isel(state=np.flatnonzero(table["n_bouts"].values > 0))
    table.attrs = {
        "model": model,
        "version": version,
        "n_used": used,
        "median_duration_overall": labels.attrs["median_duration_overall"],
        **to_attrs(found),
        **_course(store, model, version),
    }
    return table


def _course(store: StoreLike, model: str, version: str) -> dict[str, Any]:
    """What is known of the fit that gave the syllables, as attributes of their table."""
    try:
        parameters = open_parameters(store, model, version)
    except (InputError, KeyError, FileNotFoundError):  # labels alone
        return {}
    found: dict[str, Any] = {
        f"log_evidence_{stage}": value for stage, value in evidence_by_stage(parameters).items()
    }
    words = course_in_words(parameters)
    return found | ({"course_in_words": "\n".join(words)} if words else {})


def add_replicability(table: xr.Dataset, found: Replicability) -> None:
    """Add what is known of each syllable to a table of all of them."""
    for name, words, index, is_known in (
        ("replicability", "replicability_reading", found.between_chains, found.is_known),
        (
            "session_replicability",
            "session_reading",
            found.between_sessions,
            found.is_known_between_sessions,
        ),
    ):
        if is_known:
            table[name] = ("state", index)
            said = [reading(float(one)) for one in index]
            table[words] = ("state", np.asarray(said, dtype=object))
    if found.has_families:
        table["family"] = ("state", found.family)
