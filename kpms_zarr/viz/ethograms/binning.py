"""The labels of many sessions in the bins that a screen can show: data behind the raster."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK, LEVEL_FRAMES
from kpms_zarr.store.model import levels as stored
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import OpenModel

AFTER_END = -2
"""What a bin holds in place of a label when the session has ended before it."""

MOST_COLUMNS = 2800
"""Columns of a view by default: up to two for a pixel of a wide window."""

_MOST_CHUNKS = 128
"""Chunks of labels that a view of single frames may read: 0.1 s on a disk."""
_FINE = tuple(2**power for power in range(1, LEVEL_FRAMES[0].bit_length() - 1))
"""Frames in a bin between single frames and the finest level: such bins are counted now."""
_MOST_COUNTED = 2**20
"""Labels that are counted for a view in such bins: below 0.1 s."""
_MOST_FRAMES = 2**23
"""Labels that are read for a view of a store without levels of detail: 1 s on a disk."""


@dataclass(frozen=True)
class BinnedView:
    """Labels and certainties of some sessions over some time.

    Attributes
    ----------
    syllable : ndarray, (row, column) int16
        Commonest label of the frames of the bin in which the middle of the column lies; -1 = none,
        ``AFTER_END`` = the session has ended.
    certainty : ndarray, (row, column) float16
        Mean certainty of these labels, or where the version has none, share of the frames of the
        bin that have that label; NaN = not known.
    shown : ndarray, (row,) int
        Places of the sessions in the list that they are shown from.
    first, step : int
        Row ``i`` stands for places ``first + step * i`` to ``first + step * (i + 1) - 1``.
    start, seconds : float
        Begin of the first column, and length of a column, in s.
    frames_per_bin : int
        Of the fastest session.
    note : str
        What is not shown as it should be; "" as a rule.
    """

    syllable: np.ndarray
    certainty: np.ndarray
    shown: np.ndarray
    first: int
    step: int
    start: float
    seconds: float
    frames_per_bin: int
    note: str = ""

    @property
    def stop(self) -> float:
        """End of the last column, in s."""
        return self.start + self.syllable.shape[1] * self.seconds


class Binned:
    """Labels of a list of sessions, read in bins as coarse as a view needs.

    Parameters
    ----------
    labels : Dataset
        A version of the labels of a model.
    levels : Dataset, optional
        Its levels of detail.
    model : str
        For messages.
    sessions : sequence of str, optional
        Names, in the order in which they are shown (default: all, in the order of the labels).

    Attributes
    ----------
    sessions : tuple of Session
        Rows of the labels, in the order of the list.
    seconds : float
        Length of the longest session.

    Raises
    ------
    InputError
        For sessions that do not exist.
    """

    def __init__(
        self,
        labels: xr.Dataset,
        levels: xr.Dataset | None = None,
        *,
        model: str,
        sessions: Sequence[str] | None = None,
    ) -> None:
        self.labels, self.levels, self.model = labels, levels, model
        self.sessions = reading.label_sessions(labels, names=sessions)
        self.seconds = max(session.n_frames / session.fps for session in self.sessions)

    @classmethod
    def of(cls, opened: OpenModel, sessions: Sequence[str] | None = None) -> Binned:
        """Labels of a model, in its levels of detail where it has them.

        Raises
        ------
        InputError
            For sessions that do not exist.
        """
        return cls(opened.labels, opened.levels, model=opened.model, sessions=sessions)

    @property
    def has_levels(self) -> bool:
        """Whether the store has levels of detail."""
        return self.levels is not None

    @property
    def n_states(self) -> int:
        """Syllables that the model can have; 1,000 where the version does not say."""
        return int(self.labels.sizes.get("state", 1000))

    @property
    def certainty_name(self) -> str:
        """Name of what :attr:`BinnedView.certainty` holds."""
        return "certainty" if "certainty" in self.labels else "share of the column"

    def only(self, session: str) -> Binned:
        """Copy with one of the sessions alone.

        Raises
        ------
        InputError
            When it is none of them.
        """
        one = copy.copy(self)
        one.sessions = reading.label_sessions(self.labels, names=[session])
        one.seconds = one.sessions[0].n_frames / one.sessions[0].fps
        return one

    def view(
        self,
        start: float = 0.0,
        stop: float | None = None,
        first_row: int = 0,
        last_row: int | None = None,
        *,
        n_columns: int = MOST_COLUMNS,
        n_rows: int = 500,
    ) -> BinnedView:
        """Read what a viewport shows.

        Parameters
        ----------
        start, stop : float
            In s; brought into the sessions.
        first_row, last_row : int
            Places in the list of sessions, both included.
        n_columns, n_rows : int
            At most so many; of more sessions, every second, third, ... one is taken.
        """
        fastest = max(session.fps for session in self.sessions)
        stop = self.seconds if stop is None else min(stop, self.seconds)
        start = min(max(0.0, start), max(0.0, stop - 1 / fastest))
        stop = max(stop, start + 1 / fastest)
        n = len(self.sessions)
        last = n - 1 if last_row is None else min(max(0, last_row), n - 1)
        first = min(max(0, first_row), last)
        step = -(-(last - first + 1) // n_rows)
        frames = self._frames_per_bin((stop - start) * fastest / n_columns)
        n_shown = len(range(first, last + 1, step))
        is_long = frames > 1 and n_shown * (stop - start) * fastest > _MOST_COUNTED
        if frames < LEVEL_FRAMES[0] and (
            is_long or self._n_chunks(start, stop) * n_shown > _MOST_CHUNKS
        ):
            frames = LEVEL_FRAMES[0]
        note = ""
        if not self.has_levels and frames >= LEVEL_FRAMES[0]:
            step, note = self._bounded(first, last, step, (stop - start) * fastest)
        first -= first % step  # the same sessions, wherever a view begins
        shown = np.minimum(np.arange(first, last + 1, step) + step // 2, n - 1)
        seconds = frames / fastest
        columns = range(math.floor(start / seconds + 1e-9), math.ceil(stop / seconds - 1e-9))
        middle = (np.asarray(columns) + 0.5) * seconds
        may_count = frames < LEVEL_FRAMES[0]
        syllable, certainty = self._read(shown, middle, seconds, may_count=may_count)
        return BinnedView(
            syllable, certainty, shown, first, step, columns[0] * seconds, seconds, frames, note
        )

    # ------------------------------------------------------------------ how coarse

    @property
    def _levels(self) -> tuple[int, ...]:
        coarse = LEVEL_FRAMES if self.levels is None else stored.frames_per_bin(self.levels)
        return (1, *_FINE, *coarse)

    def _frames_per_bin(self, at_least: float, *, may_count: bool = True) -> int:
        levels = (n for n in self._levels if may_count or n not in _FINE)
        enough = [n for n in levels if n >= at_least - 1e-9]
        return enough[0] if enough else self._levels[-1]

    def _n_chunks(self, start: float, stop: float) -> int:
        fastest = max(session.fps for session in self.sessions)
        return 1 + int((stop - start) * fastest / LABEL_FRAMES_PER_CHUNK)

    def _bounded(self, first: int, last: int, step: int, n_frames: float) -> tuple[int, str]:
        """Limit the sessions to those that can be read in time."""
        most = max(1, int(_MOST_FRAMES / max(n_frames, LABEL_FRAMES_PER_CHUNK)))
        needed = -(-(last - first + 1) // most)
        what = f"one session of {needed} is shown" if needed > step else ""
        if n_frames > _MOST_FRAMES:
            what = "the first frames of each bin are shown"
        if not what:
            return step, ""
        return max(step, needed), (
            f"{what}: the store has no levels of detail of these labels; whoever may write to it "
            f"makes them with kpms_zarr.build_levels(store, {self.model!r})"
        )

    # ------------------------------------------------------------------ bins

    def _read(
        self, shown: np.ndarray, middle: np.ndarray, seconds: float, *, may_count: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        sessions = [self.sessions[place] for place in shown]
        shape = (len(shown), len(middle))
        syllable = np.full(shape, AFTER_END, np.int16)
        certainty = np.full(shape, np.nan, np.float16)
        for fps in {session.fps for session in sessions}:
            places = [i for i, session in enumerate(sessions) if session.fps == fps]
            frames = self._frames_per_bin(seconds * fps, may_count=may_count)
            # By their middles, which are far from the edges of bins in floating point.
            bins = np.floor(middle * (fps / frames)).astype(np.int64)
            length = np.array([-(-sessions[i].n_frames // frames) for i in places])
            stop = min(int(bins[-1]) + 1, int(length.max()))
            if stop <= bins[0]:
                continue
            rows = [sessions[i].index for i in places]
            found = self._bins(rows, int(bins[0]), stop, frames)
            inside = bins < stop
            at = bins[inside] - bins[0]
            is_real = bins[inside] < length[:, None]
            block = np.ix_(np.array(places), np.flatnonzero(inside))
            syllable[block] = np.where(is_real, found[0][:, at], AFTER_END)
            certainty[block] = np.where(is_real, found[1][:, at], np.nan)
        return syllable, certainty

    def _bins(
        self, rows: list[int], start: int, stop: int, frames: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bins of some rows of the labels: syllable and certainty, (row, bin)."""
        order = np.unique(rows)  # storage is read in order
        back = np.searchsorted(order, rows)
        if frames == 1:
            where = (_selection(order), slice(start, stop))
            syllable, known = self._frames(where)
            certainty = np.ones(syllable.shape, np.float16) if known is None else known
        elif frames < LEVEL_FRAMES[0]:
            syllable, certainty = self._counted(order, start, stop, frames)
        elif self.levels is not None:
            where = (_selection(order), slice(start, stop))
            kind = "certainty" if f"certainty_{frames}" in self.levels else "share"
            syllable = self.levels[f"syllable_{frames}"][where].values
            certainty = self.levels[f"{kind}_{frames}"][where].values
        else:
            parts = [self._from_frames(row, start, stop, frames) for row in order]
            syllable, certainty = (np.stack(column) for column in zip(*parts, strict=True))
        return syllable[back], certainty[back]

    def _frames(self, where: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels of some frames, and their certainties where the version has some."""
        known = self.labels["certainty"][where].values if "certainty" in self.labels else None
        return self.labels["syllable"][where].values, known

    def _counted(
        self, rows: np.ndarray, start: int, stop: int, frames: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bins of a few frames of some rows, counted now."""
        where = (_selection(rows), slice(start * frames, stop * frames))
        syllable, known = self._frames(where)
        shape = (len(rows), stop - start)
        modes, certainty = np.full(shape, AFTER_END, np.int16), np.full(shape, np.nan, np.float16)
        n_frames = self.labels["n_frames"].values[rows] - start * frames
        for row in np.flatnonzero(n_frames > 0):
            within = slice(0, int(n_frames[row]))
            found = stored.bin_modes(
                syllable[row, within], frames, None if known is None else known[row, within]
            )
            at = slice(0, len(found.syllable))
            modes[row, at] = found.syllable
            certainty[row, at] = found.share if found.certainty is None else found.certainty
        return modes, certainty

    def _from_frames(
        self, row: int, start: int, stop: int, frames: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bins of one row, counted now; of an endless one by the first frames of each."""
        n_frames = min(stop * frames, int(self.labels["n_frames"].values[row]))
        syllable = np.full(stop - start, AFTER_END, np.int16)
        certainty = np.full(stop - start, np.nan, np.float16)
        piece = read = frames * max(1, _MOST_FRAMES // 8 // frames)
        if n_frames - start * frames > _MOST_FRAMES:
            piece, read = frames, max(1, _MOST_FRAMES // (stop - start))
        for begin in range(start * frames, n_frames, piece):
            where = (row, slice(begin, min(begin + read, begin + piece, n_frames)))
            values, known = self._frames(where)
            found = stored.bin_modes(values, frames, known)
            at = slice(begin // frames - start, begin // frames - start + len(found.syllable))
            syllable[at] = found.syllable
            certainty[at] = found.share if found.certainty is None else found.certainty
        return syllable, certainty


def _selection(rows: np.ndarray) -> slice | np.ndarray:
    """Rows in order; a slice where they are evenly spaced, which is read several times as fast."""
    steps = np.diff(rows)
    if len(rows) == 1 or (steps == steps[0]).all():
        step = int(steps[0]) if len(steps) else 1
        return slice(int(rows[0]), int(rows[-1]) + 1, step)
    return rows
