"""Times of frames: the timestamps that a store holds of a session, or frame / fps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, TIMESTAMPS
from kpms_zarr.store.wording import listed

_WINDOW = 16 * FRAMES_PER_CHUNK
"""Frames whose times are read at once."""
_WINDOWS_KEPT = 4
_STEADY = 1e-6
"""Seconds by which frames of a regular clock may be off."""
_LAST_INTERVALS = 1000
"""Intervals whose median stands for the duration of the last frame of a session."""
_TICKS_PER_SECOND = 1_000_000
_FRAME_SLACK, _SECONDS_SLACK = 1e-6, 1e-6
"""By what a time may miss that of a frame: a share of a frame, or s: tables round to the latter."""


class SessionTimes:
    """Times of the frames of one session, in s on the clock of the recording.

    Without timestamps, frame k is at k / fps. A frame lasts until the next one; the last frame of a
    session with timestamps for the median of its last 1,000 intervals.

    Parameters
    ----------
    n_frames : int
    fps : float
        Frames per second.
    read : callable, optional
        Reads the timestamps of a window: number -> (frame,) float64, those of frames
        ``number * window`` on; None = no timestamps.
    window : int
        Frames of a window.
    version : str
        Of the timestamps.
    """

    def __init__(
        self,
        n_frames: int,
        fps: float,
        read: Callable[[int], np.ndarray] | None = None,
        *,
        window: int = _WINDOW,
        version: str = "",
    ) -> None:
        self.n_frames, self.fps, self.version = n_frames, fps, version
        self._read, self._window = read, window

    @classmethod
    def of_array(cls, times: np.ndarray, fps: float, window: int = _WINDOW) -> SessionTimes:
        """Times in memory, (frame,) float64, strictly increasing."""

        def read(number: int) -> np.ndarray:
            return times[number * window : (number + 1) * window]

        return cls(len(times), fps, read, window=window)

    @property
    def is_given(self) -> bool:
        """Whether the session has timestamps."""
        return self._read is not None

    @property
    def first(self) -> float:
        """Time of the first frame, s."""
        return float(self.at(0, 1)[0])

    @cached_property
    def end(self) -> float:
        """Time at which the last frame ends, s."""
        if self._read is None:
            return self.n_frames / self.fps
        last = self.at(max(0, self.n_frames - 1 - _LAST_INTERVALS), self.n_frames)
        interval = np.median(np.diff(last)) if len(last) > 1 else 1 / self.fps
        return float(last[-1] + interval)

    @cached_property
    def steady_rate(self) -> float | None:
        """Frames per second by which timestamps lie within 1 us of a regular clock; None = none."""
        if self._read is None or self.n_frames < 2:
            return None
        first, last = self.first, float(self.at(self.n_frames - 1, self.n_frames)[0])
        rates = [self.fps, (self.n_frames - 1) / (last - first)]
        for start in range(0, self.n_frames, self._window):
            times = self.at(start, min(start + self._window, self.n_frames))
            frames = np.arange(start, start + len(times))
            rates = [
                rate for rate in rates if (np.abs(times - first - frames / rate) < _STEADY).all()
            ]
        return rates[0] if rates else None

    def at(self, start: int, stop: int) -> np.ndarray:
        """Times of consecutive frames, (frame,) float64 in s."""
        if self._read is None:
            return np.arange(start, stop) / self.fps
        parts = [
            self._read(number)[max(0, start - number * self._window) : stop - number * self._window]
            for number in range(start // self._window, -(-stop // self._window))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0), *parts])

    def of(self, frame: np.ndarray) -> np.ndarray:
        """Times of any frames, (...,) float64 in s; ``n_frames`` stands for the end of the last."""
        frame = np.asarray(frame, np.int64)
        if self._read is None:
            return np.asarray(frame / self.fps)
        found = np.full(frame.shape, np.nan)
        found[frame == self.n_frames] = self.end
        is_inside = frame < self.n_frames
        number = frame // self._window
        for one in np.unique(number[is_inside]).tolist():
            here = is_inside & (number == one)
            found[here] = self._read(one)[frame[here] - one * self._window]
        return found

    def elapsed(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Time from the beginning of frames to that of others, (...,) float64 in s."""
        if self._read is None:
            return np.asarray((np.asarray(stop) - np.asarray(start)) / self.fps)
        return self.of(stop) - self.of(start)

    @property
    def tick_ms(self) -> float:
        """Duration of a tick in ms: of a frame, or with timestamps a microsecond."""
        return 1000 / self.fps if self._read is None else 1000 / _TICKS_PER_SECOND

    def ticks(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Time elapsed in whole ticks, (...,) int64."""
        if self._read is None:
            return np.asarray(stop) - np.asarray(start)
        return np.rint(self.elapsed(start, stop) * _TICKS_PER_SECOND).astype(np.int64)

    def steps(self, start: int, stop: int) -> np.ndarray | None:
        """Time from the frame before, in units of 1 / fps, (frame,) float64.

        NaN for the first frame of the session; None without timestamps, where all are 1.
        """
        if self._read is None:
            return None
        steps = np.diff(self.at(max(0, start - 1), stop)) * self.fps
        return steps if start else np.append(np.nan, steps)[:stop]

    def frame_after(self, seconds: float) -> int:
        """Find the first frame that was taken at a time since the first frame, or later.

        Parameters
        ----------
        seconds : float
            Tables round to the microsecond: a frame that is earlier by less is taken.

        Returns
        -------
        int
            ``n_frames`` for a time up to the end of the last frame, more for later ones.
        """
        if self._read is None:
            return int(np.ceil(seconds * self.fps - _FRAME_SLACK))
        time = self.first + seconds - _SECONDS_SLACK
        if time > self.end:
            return self.n_frames + 1
        number = max(0, int(np.searchsorted(self._window_starts, time)) - 1)
        within = int(np.searchsorted(self._read(number), time))
        return number * self._window + within

    @cached_property
    def _window_starts(self) -> np.ndarray:
        assert self._read is not None
        n_windows = -(-self.n_frames // self._window)
        return np.array([self._read(number)[0] for number in range(n_windows)])


@dataclass(frozen=True)
class FramesOf:
    """Frames that timestamps are of: a session of this name may have been another once.

    Attributes
    ----------
    session : str
    n_frames : int
    source_hash : str
    first_frame, frame_step : int
    """

    session: str
    n_frames: int
    source_hash: str
    first_frame: int
    frame_step: int


class StudyTimes:
    """Times of the sessions of a store; some windows of them are in memory.

    Parameters
    ----------
    store : path, URL or open group

    Attributes
    ----------
    versions : tuple of str
        Versions of the timestamps that are in force, oldest first.
    held : dict of FramesOf to (str, int)
        What these have timestamps of: the newest version, and the row in it.
    """

    def __init__(self, store: StoreLike | zarr.Group) -> None:
        self._root = store if isinstance(store, zarr.Group) else access.open_group(store)
        self.versions = versions_in_force(self._root)
        self.held: dict[FramesOf, tuple[str, int]] = {}
        for version in self.versions:
            group = access.subgroup(self._root, f"{layout.TIMESTAMPS}/{version}")
            assert group is not None
            for row, frames in enumerate(_frames_of(group)):
                self.held[frames] = version, row
        self._there = {one.session: one for one in frames_in(self._root)} if self.held else {}
        self._named: dict[tuple[str, int], FramesOf] = {
            (frames.session, frames.n_frames): frames for frames in self.held
        }
        self._arrays: dict[str, Any] = {}
        self._windows: OrderedDict[tuple[str, int, int], np.ndarray] = OrderedDict()

    def place(self, session: str, n_frames: int) -> tuple[str, int] | None:
        """Version and row of the timestamps of a session; None without.

        Those of another recording that had the name are none of its. Of a session that has left the
        store and has labels still, those of the name and length.
        """
        there = self._there.get(session)
        if there is not None and there.n_frames == n_frames:
            return self.held.get(there)
        found = self._named.get((session, n_frames))
        return None if found is None else self.held[found]

    def of(self, session: Session) -> SessionTimes:
        """Times of a session of the store or of labels."""
        place = self.place(session.name, session.n_frames)
        if place is None:
            return SessionTimes(session.n_frames, session.fps)
        version, row = place
        read = partial(self._window, version, row, session.n_frames)
        return SessionTimes(session.n_frames, session.fps, read, version=version)

    def notes(self, sessions: Iterable[Session]) -> list[str]:
        """What a person should know of the times of some sessions of which some have timestamps."""
        sessions = list(sessions)
        without = [one.name for one in sessions if self.place(one.name, one.n_frames) is None]
        notes = self._others(without)
        if without and len(without) < len(sessions):
            notes.append(
                f"sessions without timestamps, whose times are frame / fps: {listed(without)}"
            )
        return notes

    def _others(self, names: Iterable[str]) -> list[str]:
        """Note on sessions whose names have timestamps of other frames."""
        known = {frames.session for frames in self.held}
        stale = [name for name in names if name in known]
        if not stale:
            return []
        return [
            f"timestamps of other frames that had the name, not used: {listed(stale)} (write them "
            "again: `kpms_zarr.timestamps(STORE, 'FILE.csv')`)"
        ]

    def _window(self, version: str, row: int, n_frames: int, number: int) -> np.ndarray:
        key = version, row, number
        if key in self._windows:
            self._windows.move_to_end(key)
            return self._windows[key]
        if version not in self._arrays:
            group = access.subgroup(self._root, f"{layout.TIMESTAMPS}/{version}")
            assert group is not None
            self._arrays[version] = group["timestamp"]
        start = number * _WINDOW
        found = np.asarray(self._arrays[version][row, start : min(start + _WINDOW, n_frames)])
        self._windows[key] = found
        if len(self._windows) > _WINDOWS_KEPT:
            self._windows.popitem(last=False)
        return found


def versions_in_force(root: zarr.Group) -> tuple[str, ...]:
    """Versions of the timestamps that hold, oldest first; a later one stands for its sessions."""
    above = access.subgroup(root, layout.TIMESTAMPS)
    found = [] if above is None else attributes.read(dict(above.attrs)).get("current") or []
    return tuple(
        str(version)
        for version in found
        if access.subgroup(root, f"{layout.TIMESTAMPS}/{version}") is not None
    )


def frames_in(root: zarr.Group) -> list[FramesOf]:
    """Frames of each session of a store."""
    group = access.keypoints_group(root)
    return [] if group is None else [one for one in _frames_of(group) if one.n_frames > 0]


def _frames_of(group: zarr.Group) -> Iterator[FramesOf]:
    columns = [
        np.asarray(group[name][:]).tolist() if name in group else []  # type: ignore[index]
        for name in ("session", "n_frames", "source_hash", "first_frame", "frame_step")
    ]
    n_rows = min(len(columns[0]), len(columns[1]))
    defaults = ("", 0, "", 0, 1)
    full = [
        column + [default] * (n_rows - len(column))
        for column, default in zip(columns, defaults, strict=True)
    ]
    for session, n_frames, source_hash, first, step in zip(*full, strict=False):
        yield FramesOf(str(session), int(n_frames), str(source_hash), int(first), int(step))


def open_timestamps(store: StoreLike) -> xr.Dataset:
    """Open the timestamps of a store: of its sessions, those that hold.

    Parameters
    ----------
    store : path or URL

    Returns
    -------
    xarray.Dataset
        ``timestamp`` (session, frame) float64, s on the clock of the recording, as Dask arrays; NaN
        behind ``n_frames`` of the session. Only sessions that have timestamps, in the order of the
        store; none where there are no timestamps. Coordinates ``session``, ``n_frames`` and
        ``version``, from which each is.

    Raises
    ------
    InputError
        When there is no such store.
    """
    times = StudyTimes(store)
    wanted: dict[str, list[tuple[str, int, int]]] = {}
    for session in access.sessions(store):
        place = times.place(session.name, session.n_frames)
        if place is not None:
            version, row = place
            wanted.setdefault(version, []).append((session.name, session.n_frames, row))
    longest = max((n for rows in wanted.values() for _, n, _ in rows), default=0)
    parts = []
    for version, rows in wanted.items():
        found = access.dataset(store, f"{layout.TIMESTAMPS}/{version}", chunks={})["timestamp"]
        found = found.isel(session=[row for _, _, row in rows]).reset_coords(drop=True)
        found = found.isel(frame=slice(0, longest))
        parts.append(found.pad(frame=(0, longest - found.sizes["frame"])).drop_vars("session"))
    coordinates = {
        "session": [name for rows in wanted.values() for name, _, _ in rows],
        "n_frames": [n for rows in wanted.values() for _, n, _ in rows],
        "version": [version for version, rows in wanted.items() for _ in rows],
    }
    kinds = {"session": object, "n_frames": np.int64, "version": object}
    coords = {n: ("session", np.array(v, kinds[n])) for n, v in coordinates.items()}
    var = TIMESTAMPS[-1]
    data = xr.concat(parts, "session") if parts else np.zeros((0, 0))
    values = data.data if isinstance(data, xr.DataArray) else data
    every = xr.Dataset({var.name: (var.dims, values, var.attrs)}, coords)
    order = [one.name for one in access.sessions(store)]
    names = every["session"].values.tolist()
    return every.isel(session=[names.index(name) for name in order if name in names])
