"""Limits on the time of a recording: frame rates of cameras, lengths of gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.loading import FrameWindow
from kpms_zarr.store.ingest.trimming import parse_length
from kpms_zarr.store.parsers.base import TrackHeader
from kpms_zarr.store.parsers.time.clock import TIME_UNITS
from kpms_zarr.store.parsers.time.stamps import FASTEST, SLOWEST, is_plausible
from kpms_zarr.store.wording import option

DEFAULT_MAX_GAP = "10min"
# Frames of the longest gap that anybody can ask for: two years of video.
_LONGEST_GAP = 2**31
# Two frame rates that are nearer than this are the same.
_SAME_RATE = 0.005


@dataclass(frozen=True)
class MaxGap:
    """Longest gap that is filled in, in frames (int) or seconds (float)."""

    length: int | float

    def problem(
        self, path: Path, track: TrackHeader, fps: float, window: FrameWindow
    ) -> Problem | None:
        """Problem of a track with a longer gap in the frames that are taken.

        Parameters
        ----------
        path : Path
        track : TrackHeader
        fps : float
            Frames of the video per second.
        window : FrameWindow
            Frames of the track that are taken.
        """
        if track.gaps is None:
            return None
        frames, before = track.gaps.longest_within(window.start, window.stop)
        seconds = frames * track.frame_step / fps
        is_frames = isinstance(self.length, int)
        if (frames if is_frames else seconds) <= self.length and frames <= _LONGEST_GAP:
            return None
        most = f"{self.length:,} frames" if is_frames else _span(self.length)
        place = track.first_frame + track.frame_step * before
        n = len(track.gaps.row)
        of_all = f", the longest of {n:,} gaps" if n > 1 else ""
        fix = f"`trim=':{before + 1}'` takes the frames before it; or split the file there"
        if frames <= _LONGEST_GAP:
            more = frames if is_frames else f"{math.ceil(seconds)}s"
            fix = f"{option('max_gap', more)} fills it in as missing frames; {fix}"
        return Problem(
            f"at most {most} missing between two frames",
            f"{frames:,} frames ({_span(seconds)}) missing after frame {place}{of_all}, as "
            f"{track.gaps.source} say",
            str(path),
            f"{fix}; or `time_unit='rows'` takes the rows as consecutive frames",
        )


def parse_max_gap(value: str | int) -> MaxGap:
    """Parse ``"10min"``, ``"30s"`` or a number of frames; an InputError of anything else."""
    length = parse_length(str(value)) if not isinstance(value, bool) else None
    if length is None:
        raise InputError(
            expected="a length in frames, seconds or minutes",
            found=repr(value),
            where="`max_gap=`",
            fix="write for example `max_gap=300`, `max_gap='10s'` or `max_gap='30min'`",
        )
    return MaxGap(length)


def check_time_unit(unit: str) -> str:
    """Check that a unit of time is a known one; an InputError otherwise."""
    if unit in TIME_UNITS:
        return unit
    raise InputError(
        expected=f"one of {', '.join(TIME_UNITS)}",
        found=repr(unit),
        where="`time_unit=`",
        fix="say what row indices, frame numbers and time stamps count, or leave it out",
    )


def rate_problem(path: Path, fps: float) -> Problem | None:
    """Problem of a frame rate in a file that no camera has."""
    if is_plausible(fps):
        return None
    likely = _likely(fps)
    return Problem(
        f"{SLOWEST:g} to {FASTEST:,.0f} frames per second, as cameras take them",
        f"{fps:.6g}" + (f", which looks like {likely[1]}: {likely[0]:g}" if likely else ""),
        str(path),
        f"say the right one, such as `fps={likely[0] if likely else 30:g}`, or `fps={fps:.6g}` if "
        "it is right",
    )


def rate_note(fps: float, stated: float | None, who: str) -> str:
    """Note on a frame rate that a person gave, "" if it is plausible."""
    notes = []
    if not is_plausible(fps):
        likely = _likely(fps)
        meant = f" (did you mean {likely[0]:g}? it looks like {likely[1]})" if likely else ""
        notes.append(
            f"`fps={fps:g}` is taken, though cameras take {SLOWEST:g} to {FASTEST:,.0f} frames per "
            f"second{meant}"
        )
    if stated is not None and abs(stated - fps) > _SAME_RATE * fps:
        notes.append(f"`fps={fps:g}` is taken, though the file says {stated:g} frames per second")
    return f"{who}: {'; '.join(notes)}" if notes else ""


def _likely(fps: float) -> tuple[float, str] | None:
    """Guess which rate was meant, and say why."""
    readings = (
        (1 / fps, "the seconds from frame to frame"),
        (fps / 1000, "a thousandfold"),
        (1000 * fps, "frames per millisecond"),
        (fps / 1e6, "a millionfold"),
        (1e6 / fps, "the microseconds from frame to frame"),
    )
    return next(((round(fps, 4), words) for fps, words in readings if is_plausible(fps)), None)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.3g} {unit}"
    return f"{seconds:.3g} s"
