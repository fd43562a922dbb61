"""How change points and the onsets of syllables lie to each other, beside shifted onsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.onsets.deviation import SHARES, deviation
from kpms_zarr.compute.analysis.onsets.frame_signals import read_in_blocks
from kpms_zarr.compute.analysis.onsets.posed_windows import TimeGrid
from kpms_zarr.compute.analysis.onsets.shifted_sums import CircularSums, onset_sums
from kpms_zarr.compute.analysis.onsets.triggered_average import (
    STRETCH_FRAMES,
    SessionAverage,
    SessionSums,
    random_shifts,
    stretch_onsets,
)
from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession, study_rows
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.changepoints import changepoints_path, current_changepoints
from kpms_zarr.store.wording import call, counted, listed

_REACH_SECONDS = 1.0
_MORE_WINDOWS = 10


def with_margin(
    array: Any, row: int, start: int, stop: int, margin: int, n_frames: int
) -> np.ndarray:
    """Frames of a session with some before and after, (margin + frame + margin,) float64.

    NaN beyond the session.
    """
    first, last = max(0, start - margin), min(n_frames, stop + margin)
    values = np.asarray(array[row, first:last], np.float64)
    pad = (margin - (start - first), margin - (last - stop))
    return np.pad(values, pad, constant_values=np.nan)


@dataclass
class _Written:
    """Change scores of the store, as a signal by frame; and its change points."""

    store: str
    group: str
    rows: dict[str, int]
    name: str = "change score"
    units: str = ""

    def has(self, session: Session) -> bool:
        return session.name in self.rows

    def read(self, session: Session, start: int, stop: int) -> np.ndarray:
        return self._read("change_score", session, start, stop)

    def points(self, session: Session, start: int, stop: int) -> np.ndarray:
        """Frames of the change points, from ``start`` on."""
        return np.flatnonzero(self._read("changepoint", session, start, stop))

    def _read(self, name: str, session: Session, start: int, stop: int) -> np.ndarray:
        array = access.open_group(self.store)[f"{self.group}/{name}"]
        row: Any = self.rows[session.name]
        return np.asarray(array[row, start:stop], np.float64)  # type: ignore[index]


class _Near(NamedTuple):
    """Numbers of events that have one of the others close by.

    Attributes
    ----------
    near, by_chance, number : float
        Events that have; such events where the onsets are shifted, on average; events.
    """

    near: float
    by_chance: float
    number: int

    def plus(self, other: _Near) -> _Near:
        return _Near(
            self.near + other.near, self.by_chance + other.by_chance, self.number + other.number
        )

    def shares(self) -> tuple[float, float]:
        """Share of the events, and by chance; NaN without any."""
        if not self.number:
            return float("nan"), float("nan")
        return self.near / self.number, self.by_chance / self.number


def score_around_onsets(
    found: xr.Dataset,
    store: StoreLike,
    labels: PosedLabels,
    *,
    window: float,
    shuffles: int,
    seed: int,
) -> xr.Dataset:
    """Add to change points how their score runs around all onsets of a model.

    Averages, shifts and p are those of :func:`kpms_zarr.triggered_average`, all syllables taken
    for one.

    Parameters
    ----------
    found : xarray.Dataset
        The group ``changepoints``.
    window : float
        In ms: within which an onset and a change point coincide.

    Raises
    ------
    InputError
        When no session has labels of the length of its keypoints, or onsets.
    """
    where = labels.model
    lengths = {
        str(name): (row, int(n))
        for row, (name, n) in enumerate(
            zip(found["session"].values, found["n_frames"].values, strict=True)
        )
    }
    group = changepoints_path(current_changepoints(access.open_group(store)))
    at = {name: row for name, (row, _) in lengths.items()}
    signal = _Written(access.absolute(store), group, at)
    rows = study_rows(store, labels, epochs=None)
    taken: list[EpochSession] = []
    gone: list[EpochSession] = []
    for one in rows.sessions:
        is_there = lengths.get(one.session.name, (0, -1))[1] == one.session.n_frames
        (taken if is_there else gone).append(one)
    if not taken:
        raise InputError(
            expected=f"sessions of the store that the model {where!r} has labelled",
            found="none of the same length",
            where=str(store),
            fix=f"label them first: {call('apply', store, model=where)}",
        )
    reach = max(_REACH_SECONDS, _MORE_WINDOWS * window / 1000)
    grid = TimeGrid(reach, reach, [one.session.fps for one in taken])
    average = SessionAverage(1, len(grid.times), shuffles, 1)
    onsets = points = _Near(0.0, 0.0, 0)
    for one in taken:
        sums, at_onsets, at_points = _session(labels, one, signal, grid, window, shuffles, seed)
        average.add(sums, grid, one.session.fps)
        onsets, points = onsets.plus(at_onsets), points.plus(at_points)
    if not average.n_sessions[0]:
        raise InputError(
            expected=f"an onset with {reach:g} s before and after it",
            found="none",
            where=f"{store}, model {where!r}",
            fix="give a shorter `window=`, or leave out `model=`",
        )
    test = deviation(average.curve(0), average.shuffled(0))
    ms = {"units": "ms", "long_name": "time after the onset"}
    found = found.assign_coords(lag=("lag", grid.times * 1000, ms), quantile=list(SHARES))
    found = found.assign(
        onset_score=("lag", average.curve(0), {"long_name": "change score around onsets"}),
        shifted_score=("lag", test.mean, {"long_name": "change score around shifted onsets"}),
        shifted_quantile=(("quantile", "lag"), test.quantile),
    )
    (share, by_chance), (of_points, of_points_by_chance) = onsets.shares(), points.shares()
    found.attrs |= {
        "model": labels.model, "version": labels.version, "shuffles": int(shuffles),
        "n_onsets": onsets.number, "onset_p": test.p,
        "onset_share": share, "onset_share_by_chance": by_chance,
        "changepoint_share": of_points, "changepoint_share_by_chance": of_points_by_chance,
    }  # fmt: skip
    notes = list(rows.notes)
    if gone:
        names = listed([one.session.name for one in gone])
        notes.append(
            f"{counted(len(gone), 'session')} whose labels are not of the frames of the store, "
            f"left out around onsets: {names}"
        )
    found.attrs |= {"notes": [*attributes.read(found.attrs).get("notes", []), *notes]}
    return found


def _session(
    labels: PosedLabels,
    one: EpochSession,
    signal: _Written,
    grid: TimeGrid,
    window: float,
    shuffles: int,
    seed: int,
) -> tuple[SessionSums, _Near, _Near]:
    before, after = grid.margins(one.session.fps)
    near = max(0, int(window * one.session.fps / 1000 + 1e-6))
    n_lags = before + after + 1
    total, square = (np.zeros((1, n_lags)) for _ in range(2))
    number = np.zeros((1, n_lags), np.int64)
    shuffled_total, shuffled_number = (np.zeros((1, n_lags, shuffles)) for _ in range(2))
    at_onsets = at_points = _Near(0.0, 0.0, 0)
    for start, stop, _, onset in stretch_onsets(labels, one, STRETCH_FRAMES, BLOCK_FRAMES):
        onset = onset - start
        if stop - start < n_lags or not len(onset):
            continue
        values = read_in_blocks(signal, one.session, start, stop, BLOCK_FRAMES)
        inside = onset[(onset >= before) & (onset + after < stop - start)]
        found = onset_sums(values, inside, np.zeros(len(inside), np.int64), 1, before, after)
        for sums, added in zip((total, square, number), found, strict=True):
            sums += added
        shift = random_shifts(seed, one.session.name, start, stop - start, shuffles)
        sums_of, number_of = CircularSums(values, before, after).sums(onset, shift)
        shuffled_total[0] += sums_of
        shuffled_number[0] += number_of
        points = signal.points(one.session, start, stop)
        at_onsets = at_onsets.plus(_near(onset, points, near, stop - start, shift))
        at_points = at_points.plus(_near(points, onset, near, stop - start, -shift))
    return (
        SessionSums(total, square, number, shuffled_total, shuffled_number), at_onsets, at_points
    )  # fmt: skip


def _near(
    events: np.ndarray, others: np.ndarray, near: int, n_frames: int, shift: np.ndarray
) -> _Near:
    """Events with another one within so many frames, as they are and shifted in a circle.

    Whether there is one close by is a signal by frame, whose sums at the events are those of any
    signal; to shift the others is to shift the events the other way.
    """
    if not len(events):
        return _Near(0.0, 0.0, 0)
    edges = np.zeros(n_frames + 1)
    np.add.at(edges, np.maximum(others - near, 0), 1)
    np.add.at(edges, np.minimum(others + near + 1, n_frames), -1)
    is_near = (np.cumsum(edges)[:-1] > 0).astype(np.float64)
    moved, _ = CircularSums(is_near, 0, 0).sums(events, shift % n_frames)
    return _Near(float(is_near[events].sum()), float(moved.mean()), len(events))
