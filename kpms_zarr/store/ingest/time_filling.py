"""Times of consecutive frames from those of some, checked; the blocks leave no trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import Problem
from kpms_zarr.store.parsers.time.stamps import SECONDS, UNIT_NAMES

_LOOKED_AT = 4096
"""Intervals from which the usual one is taken."""
_MOST, _LIKELY = 20.0, 3.0
"""Times the interval that the frame rate says: more is refused, and less is that of a unit."""
_LARGEST = 2.0**53
_SAME = 0.05
"""Share by which it may differ without a word."""


class TimeFiller:
    """Times of consecutive frames: given ones, and those between them interpolated linearly."""

    def __init__(self) -> None:
        self.next = 0
        self.n_filled = 0
        self._last = np.nan

    def add(self, frame: np.ndarray, time: np.ndarray) -> Iterator[np.ndarray]:
        """Fill up to the last of some frames, from the one after those before.

        Parameters
        ----------
        frame : ndarray, (row,) int64
            Ascending, the first one of a session 0.
        time : ndarray, (row,) float64

        Yields
        ------
        ndarray, (frame,) float64
            At most a chunk of them.
        """
        if not len(frame):
            return
        last = int(frame[-1])
        self.n_filled += last + 1 - self.next - len(frame)
        if self.next:
            frame, time = np.append(self.next - 1, frame), np.append(self._last, time)
        for start in range(self.next, last + 1, FRAMES_PER_CHUNK):
            stop = min(start + FRAMES_PER_CHUNK, last + 1)
            low, high = np.searchsorted(frame, (start, stop - 1))
            part = slice(max(0, int(low) - 1), int(high) + 1)
            yield np.interp(np.arange(start, stop), frame[part], time[part])
        self.next, self._last = last + 1, float(time[-1])


class TimeAudit:
    """Audit of the times of one session, rows in their order.

    Parameters
    ----------
    session : Session
    where : str
        Table that they are from.
    counts : str
        ``"frame"``, ``"video_frame"`` or "": what numbers of frames are.
    first_frame, frame_step : int
        Frame of the video = first_frame + frame_step * frame.
    """

    def __init__(
        self, session: Session, where: str, counts: str, first_frame: int = 0, frame_step: int = 1
    ) -> None:
        self.session, self._where, self._counts = session, where, counts
        self._first_frame, self._frame_step = first_frame, frame_step
        self.problem: Problem | None = None
        self.n_rows = self.n_taken = 0
        self._first = -1
        self._last, self._last_time = -1, -np.inf
        self._intervals: list[np.ndarray] = []
        self._n_intervals = 0
        self._is_counting = True

    def taken(
        self, time: np.ndarray, frame: np.ndarray | None, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Look at the next rows, and find those that are of frames of the session.

        Parameters
        ----------
        time : ndarray, (row,) float64
        frame : ndarray or None, (row,) float64
        row : ndarray, (row,) int64
            Their numbers, for errors.

        Returns
        -------
        frame : ndarray, (row,) int64
        time : ndarray, (row,) float64
            None of them once there is a problem.
        """
        number = np.arange(self.n_rows, self.n_rows + len(time)) if frame is None else frame
        self.n_rows += len(time)
        if self.problem is None:
            place, time, row = self._placed(number, time, row)
        if self.problem is None:
            self._check(place, time, row)
        if self.problem is not None:
            return np.zeros(0, np.int64), np.zeros(0)
        self.n_taken += len(place)
        if len(place):
            self._first = int(place[0]) if self._first < 0 else self._first
            self._last, self._last_time = int(place[-1]), float(time[-1])
        return place, time

    def _placed(
        self, number: np.ndarray, time: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames of the session by their numbers."""
        with np.errstate(invalid="ignore"):
            is_whole = (number == np.rint(number)) & (np.abs(number) < _LARGEST)
        if not is_whole.all():
            wrong = int(np.argmin(is_whole))
            found = "none" if np.isnan(number[wrong]) else f"{number[wrong]:g}"
            self._fail("a whole number for each frame", found, row[wrong], "correct this row")
            return number, time, row
        place = number.astype(np.int64)
        if self._counts != "video_frame":
            return place, time, row
        back = np.flatnonzero(np.diff(place) <= 0)
        if len(back):
            at = int(back[0]) + 1
            self._backwards(place[at], place[at - 1], row[at])
        place, rest = np.divmod(place - self._first_frame, self._frame_step)
        is_in = (rest == 0) & (place >= 0) & (place < self.session.n_frames)
        return place[is_in], time[is_in], row[is_in]

    def _check(self, place: np.ndarray, time: np.ndarray, row: np.ndarray) -> None:
        n_frames = self.session.n_frames
        name, numbered = self.session.name, bool(self._counts)
        is_out = (place < 0) | (place >= n_frames)
        if is_out.any() and numbered:
            at = int(np.argmax(is_out))
            self._fail(
                f"frames 0 to {n_frames - 1:,} of session {name}",
                f"frame {place[at]:,}",
                row[at],
                "number frames from the first frame of the session in the store, from 0 on; those "
                "of the video belong into a column video_frame",
            )
            return
        frames = np.append(self._last, place)
        back = np.flatnonzero(np.diff(frames) <= 0)
        if len(back):
            at = int(back[0])
            self._backwards(place[at], frames[at], row[at])
            return
        if not np.isfinite(time).all():
            at = int(np.argmin(np.isfinite(time)))
            found = "no number" if np.isnan(time[at]) else f"{time[at]:g}"
            fix = "correct this row; or take it away, and number the frames of the others in a "
            self._fail("a time in s in every row", found, row[at], f"{fix}column frame")
            return
        times = np.append(self._last_time, time)
        step = np.diff(times)
        if (step <= 0).any():
            at = int(np.argmax(step <= 0))
            self._fail(
                f"times of session {name} that increase from frame to frame",
                f"{time[at]:.12g} s after {times[at]:.12g} s",
                row[at],
                "sort the rows, and take doubled ones away; times of a clock that was set back "
                "have to be made continuous",
            )
            return
        first = int(self._last < 0)
        self._is_counting &= bool((time == np.rint(time)).all() and (step[first:] == 1).all())
        if self._n_intervals < _LOOKED_AT:
            each = (step / np.diff(frames))[first:][: _LOOKED_AT - self._n_intervals]
            self._intervals.append(each)
            self._n_intervals += len(each)

    def _backwards(self, frame: int, before: int, row: int | None) -> None:
        found = f"frame {frame:,} after frame {before:,}"
        fix = "sort the rows by session and frame, and take doubled ones away"
        name = self.session.name
        self._fail(f"frames of session {name} in their order, each once", found, row, fix)

    def _fail(self, expected: str, found: str, row: int | None, fix: str) -> None:
        where = self._where if row is None else f"{self._where}, row {row}"
        self.problem = self.problem or Problem(expected, found, where, fix)

    def again(self) -> TimeAudit:
        """One of the same session that has seen nothing yet."""
        return TimeAudit(
            self.session, self._where, self._counts, self._first_frame, self._frame_step
        )

    @property
    def interval(self) -> float:
        """Median interval between two frames, s; NaN with fewer than two."""
        every = np.concatenate(self._intervals) if self._intervals else np.zeros(0)
        return float(np.median(every)) if len(every) else float("nan")

    def end(self) -> None:
        """Look at all of them: whether they are as many as the frames, and in s."""
        if self.problem is not None:
            return
        session = self.session
        name, n_frames = session.name, session.n_frames
        if not self._counts and self.n_rows != n_frames:
            self._fail(
                f"a time for each of the {n_frames:,} frames of session {name}",
                f"{self.n_rows:,}",
                None,
                "say which frame each is of: in a column frame (of the session, from 0 on; times "
                "between them are interpolated), or video_frame (of the video)",
            )
        elif not self.n_taken or self._first > 0 or self._last < n_frames - 1:
            found = f"times of frames {self._first:,} to {self._last:,}"
            self._fail(
                f"times of the first and the last of the {n_frames:,} frames of session {name}",
                found if self.n_taken else "times of none of its frames",
                None,
                "add them; only between two frames with a time are times interpolated",
            )
        else:
            self._check_unit()

    def _check_unit(self) -> None:
        interval, fps = self.interval, self.session.fps
        ratio = interval * fps
        if self.session.n_frames < 2:
            return
        apart = f"times of session {self.session.name} that are {interval:.6g} apart"
        expected = f"times in s, about {1 / fps:.4g} s apart at {fps:g} frames per second"
        rate = "if the frame rate is wrong, correct it: `kpms_zarr.annotate` with a column fps"
        rate += f" of {1 / interval:.4g}"
        if self._is_counting and self.session.n_frames > 2 and abs(ratio - 1) > _SAME:
            fix = "give the time of each frame in s; numbers of frames belong into a column frame"
            self._fail(expected, f"{apart}, as numbers of frames are", None, fix)
        elif not 1 / _MOST < ratio < _MOST:
            unit = next(
                (u for u, s in SECONDS.items() if u != "s" and 1 / _LIKELY < ratio * s < _LIKELY),
                None,
            )
            looks = f": they look like {UNIT_NAMES[unit]}" if unit else ""
            fix = f"convert them to s; {rate}"
            if unit in ("ms", "us", "ns"):
                fix = f"divide them by {1 / SECONDS[unit]:,.0f}, or call the column time_{unit}; "
                fix += rate
            self._fail(expected, apart + looks, None, fix)

    def notes(self) -> list[str]:
        """What a person should know of times that are right."""
        found, fps = [], self.session.fps
        n_filled = self.session.n_frames - self.n_taken
        if n_filled:
            found.append(
                f"{self.session.name}: times of {n_filled:,} frames interpolated between others"
            )
        if self.session.n_frames > 1 and abs(self.interval * fps - 1) > _SAME:
            found.append(
                f"{self.session.name}: {1 / self.interval:.4g} frames per second by its timestamps,"
                f" {fps:g} by its frame rate, by which the model goes (`kpms_zarr.annotate` with a "
                "column fps corrects it)"
            )
        return found
