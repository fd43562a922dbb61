"""Counts, durations and transitions of syllables: exact, and never across sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.chain import Chain
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.models import open_labels
from kpms_zarr.store.schema import USED_FRACTION

_MAX_DURATION_BINS = 300


@dataclass(frozen=True)
class LabelCounts:
    """What one pass over the labels gives.

    Attributes
    ----------
    frames : ndarray, (state,) int64
    transitions : ndarray, (state, state) int64
        Between consecutive frames of a session, stays included.
    durations : ndarray, (frame,) int64
        Bouts by length in frames; index 0 is unused.
    """

    frames: np.ndarray
    transitions: np.ndarray
    durations: np.ndarray

    @property
    def n_used(self) -> int:
        """Syllables with at least 0.5 % of the frames."""
        return int((self.frames >= USED_FRACTION * max(1, self.frames.sum())).sum())

    @property
    def median_duration(self) -> float:
        """Median bout length, in frames."""
        return median_of_counts(np.arange(len(self.durations)), self.durations)

    @property
    def smooth_median_duration(self) -> float:
        """Median of bout lengths spread evenly over +-0.5 frames: moves without steps."""
        total = np.cumsum(self.durations)
        if not len(total) or total[-1] == 0:
            return 0.0
        bin_index = int(np.searchsorted(total, total[-1] / 2))
        before = total[bin_index] - self.durations[bin_index]
        return bin_index - 0.5 + (total[-1] / 2 - before) / self.durations[bin_index]


def median_of_counts(values: np.ndarray, counts: np.ndarray) -> float:
    """Exact median of sorted ``values`` that occur ``counts`` times; NaN when there are none."""
    total = np.cumsum(counts)
    if not len(total) or total[-1] == 0:
        return float("nan")
    n = int(total[-1])
    middle = [int(np.searchsorted(total, k, side="right")) for k in ((n - 1) // 2, n // 2)]
    return float(np.mean(np.asarray(values, np.float64)[middle]))


def count_labels(chain: Chain, n_states: int) -> LabelCounts:
    """Count the labels of a chain, some million frames at a time."""
    frames = np.zeros(n_states, np.int64)
    transitions = np.zeros(n_states * n_states, np.int64)
    durations = np.zeros(1, np.int64)
    for start, stop in chain.index.groups():
        # The first frames of a session are -1, so no pair and no bout crosses a session.
        z = np.asarray(chain.syllable[start:stop]).astype(np.int32)
        frames += np.bincount(z[z >= 0], minlength=n_states)
        is_pair = (z[:-1] >= 0) & (z[1:] >= 0)
        pair = (z[:-1] * n_states + z[1:])[is_pair]
        transitions += np.bincount(pair, minlength=n_states * n_states)
        _, length = bouts(z)
        part = np.bincount(length)
        longer, shorter = (part, durations) if len(part) > len(durations) else (durations, part)
        durations = longer.copy()
        durations[: len(shorter)] += shorter
    return LabelCounts(frames, transitions.reshape(n_states, n_states), durations)


def bouts(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equal labels: (syllable, length in frames) of each bout; -1 is left out."""
    if not len(z):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    begin = np.concatenate([[0], np.flatnonzero(z[1:] != z[:-1]) + 1])
    length = np.diff(np.concatenate([begin, [len(z)]]))
    is_real = z[begin] >= 0
    return z[begin][is_real], length[is_real]


def label_statistics(chain: Chain, n_states: int) -> dict[str, Any]:
    """Statistics published beside the labels (``schema.LABELS``); durations in ms."""
    index = chain.index
    fastest = max(session.fps for session in index.sessions)
    by_bin = np.zeros((n_states, _MAX_DURATION_BINS), np.int64)
    tables: list[_Bouts] = []
    for session, first, length in zip(index.sessions, index.first, index.length, strict=True):
        syllable, n = bouts(np.asarray(chain.syllable[first : first + length]))
        bin_index = np.rint(n * fastest / session.fps).astype(np.int64)
        np.add.at(by_bin, (syllable, np.clip(bin_index, 1, _MAX_DURATION_BINS) - 1), 1)
        distinct, count = np.unique(np.stack([syllable, n]), axis=1, return_counts=True)
        tables.append(_Bouts(distinct[0], distinct[1] * 1000 / session.fps, count))
    every = _Bouts(*(np.concatenate(column) for column in zip(*tables, strict=True)))
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
        "duration": np.arange(1, _MAX_DURATION_BINS + 1) * 1000 / fastest,
        "transition_count": moves,
        "median_duration_overall": _median(every),
    }


class _Bouts(NamedTuple):
    """Distinct bouts: syllable, duration in ms, how often."""

    syllable: np.ndarray
    duration: np.ndarray
    number: np.ndarray


def _select(table: _Bouts, which: np.ndarray) -> _Bouts:
    return _Bouts(*(column[which] for column in table))


def _median(table: _Bouts) -> float:
    order = np.argsort(table.duration, kind="stable")
    return median_of_counts(table.duration[order], table.number[order])


def _mean(table: _Bouts) -> float:
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
        ``frequency``, ``n_bouts``, ``median_duration`` (ms) and ``mean_duration`` (ms) by
        ``state``; attributes ``median_duration_overall`` (ms), ``n_used``, ``version``.

    Raises
    ------
    InputError
        When there is no such store or model.
    """
    labels = open_labels(store, model)
    table = labels[["frequency", "n_bouts", "median_duration", "mean_duration"]].load()
    names = [name for name in table.coords if "state" not in table[name].dims]
    table = table.drop_vars(names).assign_coords(state=np.arange(table.sizes["state"]))
    used = int((table["frequency"].values >= USED_FRACTION).sum())
    table = table.isel(state=np.flatnonzero(table["n_bouts"].values > 0))
    table.attrs = {
        "model": model,
        "version": labels.encoding.get("group", ""),
        "n_used": used,
        "median_duration_overall": labels.attrs["median_duration_overall"],
    }
    return table
