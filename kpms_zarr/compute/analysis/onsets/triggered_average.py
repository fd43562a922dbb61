"""Averages of a signal around the onsets of syllables, against onsets that were shifted."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.correction import false_discovery_rate
from kpms_zarr.compute.analysis.onsets.bout_sample import random_keys
from kpms_zarr.compute.analysis.onsets.chosen_syllables import (
    chosen_syllables,
    count_problems,
    window_problems,
)
from kpms_zarr.compute.analysis.onsets.deviation import LEVEL, SHARES, deviation
from kpms_zarr.compute.analysis.onsets.frame_signals import (
    FrameSignal,
    SignalLike,
    frame_signal,
    read_in_blocks,
)
from kpms_zarr.compute.analysis.onsets.posed_windows import TimeGrid
from kpms_zarr.compute.analysis.onsets.shifted_sums import CircularSums, onset_sums
from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.bout_stream import session_bouts
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession, study_rows
from kpms_zarr.compute.analysis.tables.syllable_table import state_coordinates
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.epoch_tables import EpochsLike
from kpms_zarr.store.wording import counted, listed

STRETCH_FRAMES = 2**20
"""Longest stretch within which onsets are shifted: 9.7 hours at 30 frames per second."""
_MOST_BYTES = 2**30
_BYTES_EACH = 32
"""Of a syllable, time and shift, while a session is added."""


def triggered_average(
    store: StoreLike,
    *,
    model: str,
    signal: SignalLike = "speed",
    version: str | None = None,
    syllables: Sequence[int] | None = None,
    pre: float = 1.0,
    post: float = 2.0,
    shuffles: int = 1000,
    min_onsets: int = 5,
    sessions: Sequence[str] | None = None,
    epochs: EpochsLike | None = None,
    seed: int = 0,
    block_frames: int = BLOCK_FRAMES,
) -> xr.Dataset:
    """Average a signal around the onsets of each syllable, and compare with shuffled onsets.

    Onsets are those of bouts that follow another bout, and whose window lies in one session and one
    interval of an epoch; values that are missing are left out. The average is that of each session
    first, then over sessions, which count alike: sessions are the units. The shuffled baseline
    moves all onsets of a session by one random number of frames, in a circle within each interval
    of its epochs (within pieces of at most 2**20 frames), so that their order, their
    intervals and the course of the signal stay as they are and only their relation is broken. The
    same average is taken of each shuffle. p is that of the largest deviation from the baseline over
    all times of the window, so that times need no further correction; q corrects it for the number
    of syllables.

    A shift test takes for granted that the signal is alike at all times of an interval: one that
    drifts, as bleaching does, is detrended first. See Harris 2020 (bioRxiv
    2020.11.29.402719) on what can be said of two series that both change slowly.

    Parameters
    ----------
    store : path or URL
    model : str
    signal : str or mapping of str to array
        ``"speed"`` (of the centroid, units of position / s), ``"angular_velocity"`` (rad / s),
        ``"height"`` (3-D), the name of a signal of the store (see :func:`kpms_zarr.signals`), or
        arrays (frame,) by session, NaN = missing.
    version : str, optional
        Of the labels (default: the current one).
    syllables : sequence of int, optional
        Default: those with 0.5 % of the frames or more.
    pre, post : float
        In s before and after the onset.
    shuffles : int
        Of the onsets.
    min_onsets : int
        A session with fewer onsets of a syllable does not count for it.
    sessions : sequence of str, optional
        Names, patterns, ``coordinate=value`` (default: all that have labels).
    epochs : path, DataFrame, mapping or ``"none"``, optional
        In place of those of the store, see :func:`kpms_zarr.epochs`.
    seed : int
    block_frames : int
        Frames that are read at once; the result does not depend on it.

    Returns
    -------
    xarray.Dataset
        By ``syllable`` and ``time`` (s after the onset; sessions of other frame rates than the
        commonest are interpolated): ``mean``; ``sem``, its standard error over sessions, or over
        the onsets of the only session (attribute ``sem_over``); ``baseline_mean``,
        ``baseline_sd`` and ``baseline_quantile`` (quantile, syllable, time) of the shuffles; of
        each syllable ``n_onsets``, ``n_sessions``, ``largest_deviation`` (in ``baseline_sd``),
        ``time_of_largest`` (s), ``limit`` (a curve that leaves ``baseline_mean`` plus or minus
        this times ``baseline_sd`` does so in 5 % of the shuffles), ``p`` and ``q`` (Benjamini
        and Hochberg). ``name`` of the syllables, where people named them. Attributes: ``signal``,
        ``units``, ``model``, ``version``, ``notes`` and the settings.

    Raises
    ------
    InputError
        When there is no such model, version, session, syllable or signal, no session has enough
        onsets, or windows and shuffles take more than 1 GB.
    """
    problems = [
        *window_problems(pre, post, 600),
        *count_problems(shuffles=shuffles, min_onsets=min_onsets),
        *count_problems(0, seed=seed),
    ]
    if problems:
        raise InputError.of(problems)
    labels = PosedLabels(store, model, version)
    rows = study_rows(store, labels, epochs=epochs, sessions=sessions)
    values = frame_signal(store, labels, signal)
    states = chosen_syllables(store, labels, rows, syllables)
    taken = [one for one in rows.sessions if values.has(one.session)]
    notes = list(rows.notes)
    if len(taken) < len(rows.sessions):
        gone = [one.session.name for one in rows.sessions if not values.has(one.session)]
        notes.append(
            f"{counted(len(gone), 'session')} without the signal, left out: {listed(gone)}"
        )
    if not taken:
        raise InputError(
            expected=f"sessions that have the signal {values.name!r} and labels",
            found="none",
            where="`signal=`",
            fix="add it to them: `kpms_zarr.signals(STORE, 'FILE.csv')`, or choose other sessions",
        )
    grid = TimeGrid(pre, post, [one.session.fps for one in taken])
    _check_memory(len(states), len(grid.times), shuffles)
    average = SessionAverage(len(states), len(grid.times), shuffles, min_onsets)
    for one in taken:
        sums = session_sums(
            labels, one, values, states, grid, shuffles, seed, block_frames=block_frames
        )
        average.add(sums, grid, one.session.fps)
    if not average.n_sessions.any():
        raise InputError(
            expected=f"{counted(min_onsets, 'onset')} of a syllable in a session, with {pre:g} s "
            f"before and {post:g} s after them",
            found=f"{average.most_onsets} at most",
            where=f"{os.fspath(store)}, model {model!r}",
            fix="shorten `pre=` and `post=`, or lower `min_onsets=`",
        )
    few = states[average.n_sessions == 0]
    if len(few):
        notes.append(
            f"{counted(len(few), 'syllable')} with fewer than {min_onsets} onsets in every "
            f"session, left out: {listed(map(str, few.tolist()))}"
        )
    about = {
        "signal": values.name, "units": values.units, "store": os.fspath(store), "model": model,
        "version": labels.version, "epochs": rows.version,
        "sem_over": "sessions" if len(taken) > 1 else "onsets",
        "n_sessions": len(taken), "shuffles": int(shuffles), "min_onsets": int(min_onsets),
        "pre_s": float(pre), "post_s": float(post), "seed": int(seed), "level": LEVEL,
        "notes": notes,
    }  # fmt: skip
    return _dataset(average, states, grid, state_coordinates(store, labels), about)


def _check_memory(n_states: int, n_times: int, shuffles: int) -> None:
    needed = _BYTES_EACH * n_states * n_times * shuffles
    if needed > _MOST_BYTES:
        raise InputError(
            expected="shuffles of curves in at most 1 GB",
            found=f"{n_states} syllables, {n_times} times, {shuffles:,} shuffles: "
            f"{needed / 1e9:.1f} GB",
            where="`shuffles=`",
            fix="take fewer shuffles or `syllables=`, or shorten `pre=` and `post=`",
        )


# ------------------------------------------------------------------ one session


class SessionSums(NamedTuple):
    """Sums of a signal around the onsets of one session, at its own frames.

    Attributes
    ----------
    total, square : ndarray, (syllable, lag)
    number : ndarray, (syllable, lag) int64
        Values behind them.
    shuffled_total, shuffled_number : ndarray, (syllable, lag, shuffle)
    """

    total: np.ndarray
    square: np.ndarray
    number: np.ndarray
    shuffled_total: np.ndarray
    shuffled_number: np.ndarray

    @property
    def n_onsets(self) -> np.ndarray:
        """Onsets with a value at any time of their windows, at least, (syllable,) int64."""
        return np.asarray(self.number.max(1))


def session_sums(
    labels: PosedLabels,
    one: EpochSession,
    signal: FrameSignal,
    states: np.ndarray,
    grid: TimeGrid,
    shuffles: int,
    seed: int,
    *,
    block_frames: int = BLOCK_FRAMES,
    stretch_frames: int = STRETCH_FRAMES,
) -> SessionSums:
    """Add up a signal around the onsets of a session, as they are and shifted.

    Parameters
    ----------
    labels : PosedLabels
    one : EpochSession
    signal : FrameSignal
    states : ndarray, (syllable,) int64
        Syllables, ascending.
    grid : TimeGrid
    shuffles, seed : int
    block_frames : int
        Frames read at once.
    stretch_frames : int
        Longest stretch within which onsets are shifted.
    """
    before, after = grid.margins(one.session.fps)
    n_lags = before + after + 1
    total, square = (np.zeros((len(states), n_lags)) for _ in range(2))
    number = np.zeros((len(states), n_lags), np.int64)
    shuffled_total, shuffled_number = (np.zeros((len(states), n_lags, shuffles)) for _ in range(2))
    for start, stop, syllable, onset in stretch_onsets(labels, one, stretch_frames, block_frames):
        if stop - start < n_lags:
            continue
        item = np.searchsorted(states, syllable)
        is_mine = np.isin(syllable, states)
        item, onset = item[is_mine], onset[is_mine] - start
        values = read_in_blocks(signal, one.session, start, stop, block_frames)
        is_whole = (onset >= before) & (onset + after < stop - start)
        found = onset_sums(values, onset[is_whole], item[is_whole], len(states), before, after)
        for sums, added in zip((total, square, number), found, strict=True):
            sums += added
        circle = CircularSums(values, before, after)
        shift = random_shifts(seed, one.session.name, start, stop - start, shuffles)
        for place in np.unique(item).tolist():
            sums_of, number_of = circle.sums(onset[item == place], shift)
            shuffled_total[place] += sums_of
            shuffled_number[place] += number_of
    return SessionSums(total, square, number, shuffled_total, shuffled_number)


def random_shifts(seed: int, session: str, start: int, n_frames: int, shuffles: int) -> np.ndarray:
    """Shifts of a stretch, (shuffle,) int64: 0 to its number of frames, all alike probable."""
    key = random_keys(seed, session, np.array([start]))
    return np.random.default_rng(key).integers(0, n_frames, shuffles)


def stretch_onsets(
    labels: PosedLabels, one: EpochSession, stretch_frames: int, block_frames: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Onsets of a session by stretches: intervals of its epochs, long ones in equal pieces.

    Yields
    ------
    start, stop : int
        Frames.
    syllable, onset : ndarray, (onset,) int64
        Of the bouts in it that follow another one.
    """
    bouts = session_bouts(labels, one, block_frames)
    waiting: deque[tuple[np.ndarray, np.ndarray]] = deque()
    seen, is_over = -1, False
    for start, stop in _stretches(one, stretch_frames):
        while seen < stop and not is_over:
            found = next(bouts, None)
            if found is None:
                is_over = True
                break
            if len(found.start):
                seen = int(found.start[-1])
                follows = found.previous >= 0
                waiting.append((found.syllable[follows], found.start[follows]))
        syllable, onset = (
            np.concatenate([np.zeros(0, np.int64), *column])
            for column in (zip(*waiting, strict=True) if waiting else ((), ()))
        )
        is_in, is_later = (onset >= start) & (onset < stop), onset >= stop
        waiting.clear()
        waiting.append((syllable[is_later], onset[is_later]))
        yield start, stop, syllable[is_in], onset[is_in]


def _stretches(one: EpochSession, stretch_frames: int) -> Iterator[tuple[int, int]]:
    for first, last in zip(one.epochs.start.tolist(), one.epochs.stop.tolist(), strict=True):
        n = -(-(last - first) // stretch_frames)
        edges = first + (last - first) * np.arange(n + 1) // max(1, n)
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


# ------------------------------------------------------------------ all sessions


class SessionAverage:
    """Averages over sessions, which count alike.

    Parameters
    ----------
    n_states, n_times, shuffles, min_onsets : int

    Attributes
    ----------
    mean : ndarray, (syllable, time)
        Over sessions so far.
    n_sessions, n_onsets : ndarray, (syllable,) int64
        Sessions with enough onsets, and the onsets of these.
    most_onsets : int
        Of a syllable in a session, also where these are too few.
    """

    def __init__(self, n_states: int, n_times: int, shuffles: int, min_onsets: int) -> None:
        self._min_onsets = min_onsets
        self.n_sessions, self.n_onsets = (np.zeros(n_states, np.int64) for _ in range(2))
        self.most_onsets = 0
        shape = (n_states, n_times)
        self._known = np.zeros(shape, np.int64)
        self.mean, self._square, self._within = (np.zeros(shape) for _ in range(3))
        self._shuffled = np.zeros((*shape, shuffles))
        self._shuffled_known = np.zeros((*shape, shuffles), np.int32)

    def add(self, sums: SessionSums, grid: TimeGrid, fps: float) -> None:
        """Add a session."""
        self.most_onsets = max(self.most_onsets, int(sums.n_onsets.max(initial=0)))
        for place in np.flatnonzero(sums.n_onsets >= self._min_onsets).tolist():
            self.n_sessions[place] += 1
            self.n_onsets[place] += sums.n_onsets[place]
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = sums.total[place] / sums.number[place]
                n = sums.number[place]
                variance = np.maximum(0, sums.square[place] - n * mean**2) / (n - 1)
                shuffled = sums.shuffled_total[place] / sums.shuffled_number[place]
                error = np.where(n > 1, variance / n, np.nan)
            mean, error = grid.resample(mean, fps, 0), grid.resample(error, fps, 0)
            shuffled = grid.resample(shuffled, fps, 0)
            is_known = np.isfinite(mean)
            self._known[place] += is_known
            away = np.where(is_known, mean - self.mean[place], 0.0)
            self.mean[place] += away / np.maximum(1, self._known[place])
            self._square[place] += away * np.where(is_known, mean - self.mean[place], 0.0)
            self._within[place] = error
            is_known = np.isfinite(shuffled)
            self._shuffled[place] += np.where(is_known, shuffled, 0.0)
            self._shuffled_known[place] += is_known

    def curve(self, place: int) -> np.ndarray:
        """Average of a syllable, (time,); NaN = none."""
        return np.where(self._known[place] > 0, self.mean[place], np.nan)

    def error(self, place: int, over: str) -> np.ndarray:
        """Standard error of the average, (time,), over ``"sessions"`` or ``"onsets"``."""
        if over == "onsets":
            return np.sqrt(np.where(self._known[place] > 0, self._within[place], np.nan))
        n = self._known[place]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 1, np.sqrt(self._square[place] / (n - 1) / n), np.nan)

    def shuffled(self, place: int) -> np.ndarray:
        """Averages of the shuffles, (time, shuffle)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._shuffled[place] / self._shuffled_known[place])


_ABOUT = {
    "mean": "average of the signal around the onset, over sessions",
    "sem": "standard error of the average",
    "baseline_mean": "mean of the average of shuffled onsets",
    "baseline_sd": "standard deviation of the average of shuffled onsets",
    "baseline_quantile": "quantile of the average of shuffled onsets",
    "n_onsets": "onsets behind the average",
    "n_sessions": "sessions behind the average",
    "largest_deviation": "largest deviation from the baseline, in its standard deviations",
    "time_of_largest": "time of the largest deviation",
    "limit": "largest deviation that 95 % of the shuffles do not exceed",
    "p": "share of the shuffles with as large a deviation, (1 + b) / (1 + n)",
    "q": "p corrected for the number of syllables, Benjamini and Hochberg",
}


def _dataset(
    average: SessionAverage,
    states: np.ndarray,
    grid: TimeGrid,
    named: dict[str, Any],
    attrs: dict[str, Any],
) -> xr.Dataset:
    tests = []
    for place in range(len(states)):
        is_there = average.n_sessions[place] > 0
        shuffled = average.shuffled(place)
        tests.append(deviation(average.curve(place), shuffled if is_there else shuffled[:, :0]))
    at = np.array([test.at for test in tests])
    p = np.array([test.p for test in tests])
    units = str(attrs["units"])
    by_time = ("syllable", "time")
    found: dict[str, tuple[tuple[str, ...], np.ndarray, str]] = {
        "mean": (by_time, np.stack([average.curve(n) for n in range(len(states))]), units),
        "sem": (
            by_time,
            np.stack([average.error(n, str(attrs["sem_over"])) for n in range(len(states))]),
            units,
        ),
        "baseline_mean": (by_time, np.stack([test.mean for test in tests]), units),
        "baseline_sd": (by_time, np.stack([test.sd for test in tests]), units),
        "baseline_quantile": (
            ("quantile", *by_time), np.stack([test.quantile for test in tests], axis=1), units,
        ),
        "n_onsets": (("syllable",), average.n_onsets, ""),
        "n_sessions": (("syllable",), average.n_sessions, ""),
        "largest_deviation": (("syllable",), np.array([test.largest for test in tests]), ""),
        "time_of_largest": (("syllable",), np.where(at >= 0, grid.times[at], np.nan), "s"),
        "limit": (("syllable",), np.array([test.limit for test in tests]), ""),
        "p": (("syllable",), p, ""),
        "q": (("syllable",), false_discovery_rate(p), ""),
    }  # fmt: skip
    coordinates: dict[str, Any] = {
        "syllable": states,
        "time": ("time", grid.times, {"units": "s", "long_name": "time after the onset"}),
        "quantile": np.array(SHARES),
    }
    if "name" in named:
        coordinates["name"] = ("syllable", named["name"][states])
    variables = {
        name: (dims, values, {"long_name": _ABOUT[name], **({"units": unit} if unit else {})})
        for name, (dims, values, unit) in found.items()
    }
    return xr.Dataset(variables, coordinates, attrs)
