"""The table that statistics of groups begin with: syllables of each session and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.bout_counts import EpochCounter, EpochCounts
from kpms_zarr.compute.analysis.tables.bout_stream import session_blocks
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession, StudyRows, study_rows
from kpms_zarr.compute.analysis.tables.syllable_statistics import (
    QUANTILES,
    duration_statistics,
    entropy,
    entropy_rate,
    motion_statistics,
)
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.ingest.epoch_tables import EpochsLike
from kpms_zarr.store.model.syllable_names import read_names
from kpms_zarr.store.study.timestamps import SessionTimes

_POSITION = "units of position"
_ABOUT: dict[str, tuple[str, str]] = {
    "n_frames": ("frames of the syllable", "frames"),
    "n_bouts": ("bouts of the syllable", ""),
    "frequency_by_frames": ("share of the labelled frames of the row", ""),
    "frequency_by_bouts": ("share of the bouts of the row", ""),
    "mean_duration": ("mean duration of its bouts", "ms"),
    "median_duration": ("median duration of its bouts", "ms"),
    "duration_quantile": ("quantile of the durations of its bouts", "ms"),
    "mean_certainty": ("mean certainty of its frames", ""),
    "mean_speed": ("mean speed of the centroid over its frames", f"{_POSITION} / s"),
    "std_speed": ("standard deviation of that speed over frames", f"{_POSITION} / s"),
    "mean_turning": ("circular mean of the change of heading, per second", "rad / s"),
    "mean_absolute_turning": ("mean amount of the change of heading, per second", "rad / s"),
    "turning_resultant_length": ("mean resultant length of the change of heading by frame", ""),
    "turning_circular_std": ("circular standard deviation of that change", "rad"),
    "mean_heading": ("circular mean of the heading", "rad"),
    "heading_resultant_length": ("mean resultant length of the heading", ""),
    "transition_count": ("changes from one syllable to another at consecutive frames", ""),
    "entropy": ("entropy of the syllables by frames", "bit"),
    "entropy_by_bouts": ("entropy of the syllables by bouts", "bit"),
    "entropy_rate": ("entropy of the next syllable given the one before", "bit / transition"),
    "n_transitions": ("changes of syllable behind the entropy rate", ""),
}
RESERVED = (*_ABOUT, "state", "state_next", "quantile", "row", "name", "family")
"""Names that coordinates of sessions cannot have beside those of the table."""


def syllable_table(
    store: StoreLike,
    *,
    model: str,
    version: str | None = None,
    epochs: EpochsLike | None = None,
    sessions: list[str] | None = None,
    block_frames: int = BLOCK_FRAMES,
) -> xr.Dataset:
    """Count and describe the syllables of each session and epoch.

    Bouts are runs of one label within an epoch: they are cut where an interval of an epoch begins
    or ends, and never cross sessions or frames without a label. Without epochs, the bouts of all
    rows together are those of ``summary``. Times are the timestamps of a session
    (:func:`kpms_zarr.timestamps`), or frame / fps. Nothing depends on ``block_frames``.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).
    epochs : path, DataFrame, mapping or ``"none"``, optional
        In place of those of the store, see :func:`kpms_zarr.epochs`; ``"none"`` = sessions whole.
    sessions : list of str, optional
        Names, patterns, ``coordinate=value`` (default: all that have labels).
    block_frames : int
        Frames in memory at once.

    Returns
    -------
    xarray.Dataset
        By ``row``, a session and an epoch of it, and ``state``: ``n_frames``, ``n_bouts`` (int64),
        ``frequency_by_frames``, ``frequency_by_bouts``; ``mean_duration``, ``median_duration`` and
        ``duration_quantile`` (also by ``quantile``), ms; ``mean_certainty``; ``mean_speed``,
        ``std_speed``, units of position / s; ``mean_turning``, ``mean_absolute_turning``, rad / s,
        ``turning_resultant_length``, ``turning_circular_std``, ``mean_heading``,
        ``heading_resultant_length``. ``transition_count`` (row, state, state_next) int64, between
        bouts, zero on the diagonal. By row ``entropy``, ``entropy_by_bouts`` (bit),
        ``entropy_rate`` (bit / transition), ``n_transitions``. NaN where a syllable does not occur
        or the model has neither centroid nor heading. Coordinates of ``row``: ``session``,
        ``epoch`` ("" = all of the session), ``condition`` (of the epoch; of a whole session its
        own) and every coordinate that people gave to sessions (as ``session_NAME`` where the name
        is one of the table); of ``state``: ``name``, where people named syllables, ``family``
        where the model has some. Attributes: ``model``, ``version``, ``epochs`` (their version in
        the store, "" = none from there) and ``notes``. Definitions and sources:
        :func:`~kpms_zarr.compute.analysis.tables.syllable_statistics.duration_statistics`,
        ``motion_statistics``, ``entropy`` and ``entropy_rate`` in the same file.

    Raises
    ------
    InputError
        When there is no such store, model or version; wrong epochs or sessions.
    """
    labels = PosedLabels(store, model, version)
    rows = study_rows(store, labels, epochs=epochs, sessions=sessions, taken=RESERVED)
    shape = (rows.n_rows, labels.n_states)
    found: dict[str, np.ndarray] = {}
    moves = np.zeros((*shape, labels.n_states), np.int64)
    for one, counts in counted_sessions(labels, rows, block_frames=block_frames):
        of = slice(one.first, one.first + len(one.epochs.names))
        for name, values in epoch_statistics(counts, one.times).items():
            if name not in found:
                found[name] = np.zeros((rows.n_rows, *values.shape[1:]), values.dtype)
            found[name][of] = values
        epoch, state, following, number = counts.sparse_transitions()
        moves[one.first + epoch, state, following] = number
    found["transition_count"] = moves
    return _dataset(found, rows, labels, state_coordinates(store, labels))


def counted_sessions(
    labels: PosedLabels,
    rows: StudyRows,
    *,
    ngrams: tuple[int, ...] = (),
    block_frames: int = BLOCK_FRAMES,
) -> Iterator[tuple[EpochSession, EpochCounts]]:
    """Count one session after the other."""
    for one in rows.sessions:
        counter = EpochCounter(len(one.epochs.names), labels.n_states, ngrams)
        for frames, bouts in session_blocks(labels, one, block_frames):
            counter.add(frames, bouts)
        yield one, counter.counts()


def epoch_statistics(counts: EpochCounts, times: SessionTimes) -> dict[str, np.ndarray]:
    """Describe a session: arrays by epoch, most of them by state.

    Parameters
    ----------
    counts : EpochCounts
    times : SessionTimes
        Of the session.
    """
    epoch, state, _, number = counts.sparse_transitions()
    bounds = np.searchsorted(epoch, np.arange(len(counts.n_frames) + 1))
    parts = [slice(*bounds[n : n + 2]) for n in range(len(counts.n_frames))]
    return {
        "n_frames": counts.n_frames,
        "n_bouts": counts.n_bouts,
        "frequency_by_frames": _shares(counts.n_frames),
        "frequency_by_bouts": _shares(counts.n_bouts),
        **duration_statistics(counts, times.tick_ms),
        **motion_statistics(counts, times.fps),
        "entropy": entropy(counts.n_frames),
        "entropy_by_bouts": entropy(counts.n_bouts),
        "entropy_rate": np.array([entropy_rate(state[one], number[one]) for one in parts]),
        "n_transitions": np.array([number[one].sum() for one in parts], np.int64),
    }


def _shares(counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(-1, keepdims=True))


def state_coordinates(store: StoreLike, labels: PosedLabels) -> dict[str, np.ndarray]:
    """What is known of syllables, (state,) each: ``name``, ``family``; what there is."""
    found = {}
    names = read_names(store, labels.model, labels.version)
    if names.version:
        texts = [names.custom_name(state) for state in range(labels.n_states)]
        found["name"] = np.array(texts, dtype=object)
    if labels.family is not None:
        found["family"] = labels.family
    return found


def _dataset(
    found: dict[str, np.ndarray],
    rows: StudyRows,
    labels: PosedLabels,
    states: dict[str, np.ndarray],
) -> xr.Dataset:
    by_dims = {1: ("row",), 2: ("row", "state"), 3: ("row", "state", "state_next")}
    variables: dict[str, Any] = {}
    for name, values in found.items():
        dims = by_dims[values.ndim]
        if name == "duration_quantile":
            dims = ("row", "state", "quantile")
        meaning, units = _ABOUT[name]
        variables[name] = (
            dims,
            values,
            {"long_name": meaning, **({"units": units} if units else {})},
        )
    number = np.arange(labels.n_states)
    coordinates: dict[str, Any] = {
        **{name: ("row", values) for name, values in rows.coordinates.items()},
        **{name: ("state", values) for name, values in states.items()},
        "state": number,
        "state_next": number,
        "quantile": np.array(QUANTILES),
    }
    attrs = {
        "model": labels.model,
        "version": labels.version,
        "epochs": rows.version,
        "notes": list(rows.notes),
    }
    return xr.Dataset(variables, coordinates, attrs)
