"""Timing of frames by row indices, frame numbers or time stamps, for all formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import TrackHeader
from kpms_zarr.store.parsers.time.gaps import LARGEST_FRAME, Count, Gaps, RowConflict
from kpms_zarr.store.parsers.time.stamps import (
    FASTEST,
    SECONDS,
    SLOWEST,
    UNIT_NAMES,
    Stamps,
    is_plausible,
    likely_unit,
)
from kpms_zarr.store.wording import option

AUTO, FRAMES, ROWS = "auto", "frames", "rows"
TIME_UNITS = (AUTO, *UNIT_NAMES, FRAMES, ROWS)
"""What ``--time-unit`` may say."""

_AS_ROWS = f"{option('time_unit', ROWS)} takes the rows as consecutive frames, whatever {{}} say"
# Numbers that are looked at together at first, so that the usual step is known.
_AT_FIRST = 4097
# Whole time stamps so far apart are milliseconds rather than every so manieth frame.
_AT_LEAST_MS = 10
# Whole numbers at least so far apart, but not evenly, are rounded times.
_AT_LEAST_ROUNDED = 5


@dataclass(frozen=True)
class Timing:
    """Timing of the frames; see `TrackHeader`.

    `unit` is that of time stamps, where numbers are such; `scale` its seconds, 0 where the numbers
    are no times of frames.
    """

    fps: float | None = None
    first_frame: int = 0
    frame_step: int = 1
    gaps: Gaps | None = None
    notes: tuple[str, ...] = ()
    unit: str = ""
    scale: float = 0.0

    def of(self, track: TrackHeader) -> TrackHeader:
        """Track with this timing; its own frame rate stays where there is none here."""
        return replace(
            track,
            fps=track.fps if self.fps is None else self.fps,
            first_frame=self.first_frame,
            frame_step=self.frame_step,
            gaps=self.gaps,
            time_scale=self.scale,
        )


class Clock:
    """Inference of the timing from numbers, one for every row, block after block.

    Parameters
    ----------
    source : str
        What the numbers are, in plural, for messages: "the time stamps".
    kind : str
        ``"frames"`` for what numbers frames, ``"time"`` for what is said to be a time,
        ``"samples"`` for what counts either.
    unit : str
        What a person says of them: one of `TIME_UNITS`.
    stated : str, optional
        Unit that the file says.
    where : str
        Named in errors.
    first_row : int
        Number of the first row, as people count them.
    """

    def __init__(
        self,
        source: str = "the time stamps",
        kind: Literal["frames", "time", "samples"] = "time",
        *,
        unit: str = AUTO,
        stated: str | None = None,
        where: str = "",
        first_row: int = 1,
    ) -> None:
        self._source, self._kind, self._unit, self._stated = source, kind, unit, stated
        self._where, self._first_row = where, first_row
        self._count, self._stamps = Count(), Stamps()
        self._waiting: list[np.ndarray] | None = []
        self._n_waiting = 0

    def add(self, numbers: np.ndarray) -> None:
        """Look at the next numbers."""
        numbers = np.asarray(numbers, dtype=np.float64).ravel()
        if self._waiting is None:
            self._look(numbers)
            return
        self._waiting.append(numbers)
        self._n_waiting += len(numbers)
        if self._n_waiting >= _AT_FIRST:
            self._look_at_waiting()

    def _look_at_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting:
            self._look(np.concatenate(waiting))

    def _look(self, numbers: np.ndarray) -> None:
        self._count.add(numbers)
        self._stamps.add(numbers)

    @property
    def steps_mostly(self) -> int:
        """Usual difference between whole numbers, 0 where they are none."""
        if self._waiting is not None:
            self._look_at_waiting()
        return self._count.step if self._count.is_whole else 0

    def timing(self) -> Timing:
        """Timing by the numbers.

        Raises
        ------
        InputError
            They contradict themselves: they go back or repeat, or cannot be times of a camera.
        """
        if self._waiting is not None:
            self._look_at_waiting()
        self._stamps.end()
        count, stamps = self._count, self._stamps
        if self._unit == ROWS or not (stamps.n or not stamps.is_finite):
            return Timing()
        if not stamps.is_finite:
            return self._unused("are missing in some rows")
        if stamps.n == 1:
            is_number = self._kind == "frames" and count.is_whole and count.first >= 0
            return Timing(first_frame=count.first if is_number else 0)
        if stamps.is_constant and self._kind != "frames" and self._unit == AUTO:
            return self._unused("are the same in all rows")
        if self._is_numbering():
            return self._numbering()
        return self._times()

    def _unused(self, why: str) -> Timing:
        what = "rows are read as consecutive frames"
        if self._kind == "time":
            what += ", and no frame rate is taken from them"
        return Timing(notes=(f"{self._source} {why}: {what}",))

    # ------------------------------------------------------------------ frame numbers

    def _is_numbering(self) -> bool:
        """Whether the numbers count frames."""
        count = self._count
        if self._unit == FRAMES or not count.is_whole:
            return self._unit == FRAMES or (self._kind == "frames" and self._is_too_large())
        if count.step == 1 and self._kind != "time":
            return True  # of an index, also where others in the same call are times
        if self._unit != AUTO:
            return False
        is_even = count.common_step == count.step
        if self._kind == "frames":
            is_time = self._stamps.is_regular and count.step >= _AT_LEAST_ROUNDED
            return is_even or bool(count.fault) or not is_time
        return count.step == 1 or (is_even and self._kind == "time" and count.step < _AT_LEAST_MS)

    def _is_too_large(self) -> bool:
        """Whether only some are too large to number anything."""
        return not self._count.has_fractions and abs(self._stamps.first) < LARGEST_FRAME

    def _numbering(self) -> Timing:
        count = self._count
        if count.fault:
            raise self._goes_back(count.fault, "frame ")
        if not count.is_whole or count.has_too_many_gaps or count.common_step != count.step:
            raise self._no_numbers()
        notes = []
        if self._kind == "time":
            notes.append(f"{self._source} are numbers of frames: no frame rate taken from them")
        if count.step > 1:
            notes.append(
                f"{self._source} are {count.step} apart: one of {count.step} frames of the video "
                "is here"
            )
        first = count.first
        if first < 0:
            notes.append(f"{self._source} begin at {first}: taken as frame 0 of the video")
        if self._kind == "samples" and first == 1:
            first = 0  # MATLAB counts from 1
        first, gaps = max(0, first), count.gaps(self._source)
        return Timing(None, first, count.step, gaps, (*notes, *told(gaps, first, count.step)))

    def _goes_back(self, fault: RowConflict, what: str) -> InputError:
        more = f" (and in {fault.n - 1:,} more rows)" if fault.n > 1 else ""
        order = "the same again" if fault.after == fault.before else "before it"
        return InputError(
            expected=f"{self._source} that increase from row to row",
            found=f"{what}{_plain(fault.after)} in the row after {what}{_plain(fault.before)}"
            f"{more}: the order of the rows says that it is later, the number that it is {order}",
            where=self._row(fault.row),
            fix="sort the rows, take doubled ones away, or split the file if it holds several "
            f"recordings; {_AS_ROWS.format(self._source)}",
        )

    def _no_numbers(self) -> InputError:
        count = self._count
        if not count.is_whole:
            found = "others, or ones that are too large to number frames"
        elif count.has_too_many_gaps:
            found = "too many gaps to be lost frames"
        else:
            found = (
                f"most of them {count.step} apart, others {count.common_step} or another distance "
                f"that is no multiple of {count.step}: one of {count.step} frames of the video, "
                "or all of them"
            )
        return InputError(
            expected=f"{self._source} that number the frames: whole numbers, evenly apart",
            found=found,
            where=self._where,
            fix=f"correct them, or split the file where they change; `time_unit='ms'` (or s) if "
            f"they are times; {_AS_ROWS.format(self._source)}",
        )

    def _row(self, row: int) -> str:
        return f"{self._where}, row {self._first_row + row}" if self._where else f"row {row}"

    # ------------------------------------------------------------------ times

    def _times(self) -> Timing:
        stamps = self._stamps
        if stamps.fault:
            raise self._goes_back(stamps.fault, "")
        if not stamps.is_regular or stamps.has_too_many_gaps:
            unit = self._unit if self._unit in SECONDS else self._stated
            scale = SECONDS[unit] if unit and self._kind == "time" else 0.0
            return replace(self._unused("are irregular"), scale=scale)
        gaps = stamps.gaps(self._source)
        if self._kind == "samples" and self._unit == AUTO:
            return Timing(gaps=gaps, notes=(self._of_what(), *told(gaps)))
        unit, notes = self._unit_of_time()
        return Timing(
            stamps.fps(unit), gaps=gaps, notes=(*notes, *told(gaps)), unit=unit, scale=SECONDS[unit]
        )

    def _of_what(self) -> str:
        """Guess what the numbers count, where neither the file nor anybody says so."""
        step, first = self._stamps.step, self._stamps.first
        return (
            f"{self._source} count from {first:g} in steps of {step:.6g}, and the file does not "
            f"say of what (frames; or milliseconds, which would be {1000 / step:.4g} frames per "
            "second): no frame rate taken from them, so say it with `time_unit='frames'` or ms, or "
            "give the fps of these rows"
        )

    def _unit_of_time(self) -> tuple[str, tuple[str, ...]]:
        """Unit of the time stamps: as a person says, as the file says, or the likely one."""
        step = self._stamps.step
        if self._unit != AUTO:
            return self._unit, ()
        if self._stated and is_plausible(self._stamps.fps(self._stated)):
            return self._stated, ()
        unit = likely_unit(step)
        if unit is None:
            raise self._no_times()
        fps = self._stamps.fps(unit)
        said = self._stated or "s"
        if unit == said and self._kind == "time":
            return unit, ()
        wrong = f", which in {UNIT_NAMES[said]} would be {self._stamps.fps(said):.4g} frames per "
        return unit, (
            f"{self._source} are {step:.6g} apart"
            + (f"{wrong}second" if unit != said else "")
            + f": read as {UNIT_NAMES[unit]}, {fps:g} frames per second (`time_unit=` says "
            "another)",
        )

    def _no_times(self) -> InputError:
        step = self._stamps.step
        return InputError(
            expected=f"{SLOWEST:g} to {FASTEST:,.0f} frames per second, as cameras take them",
            found=f"{self._source} that are {step:.6g} apart, which in no unit is such a rate",
            where=self._where,
            fix=f"correct them, or say what they are: `time_unit=` {' or '.join(UNIT_NAMES)}; "
            f"{_AS_ROWS.format(self._source)}",
        )


def told(gaps: Gaps | None, first_frame: int = 0, frame_step: int = 1) -> tuple[str, ...]:
    """Note on gaps: how many, and where the longest is."""
    if gaps is None:
        return ()
    n = len(gaps.row)
    longest, before = gaps.longest_within(0, None)
    where = f"after frame {first_frame + frame_step * before}"
    of_all = f"in {n:,} gaps, the longest of {longest:,} {where}" if n > 1 else where
    are = "frames are" if gaps.total > 1 else "frame is"
    return (f"{gaps.total:,} {are} missing {of_all}, as {gaps.source} say: filled in as missing",)


def _plain(number: float) -> str:
    return f"{number:.0f}" if number == np.floor(number) else f"{number:g}"
