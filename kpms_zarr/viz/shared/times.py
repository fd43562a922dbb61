"""Times as people read them: mm:ss, and h:mm:ss from an hour on; axes and hover texts with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import AdaptiveTicker, CompositeTicker, CustomJSHover, CustomJSTickFormatter

from kpms_zarr.store.study.timestamps import SessionTimes

TIME_AXIS = "time (mm:ss)"
"""Label of an axis of times."""

_MOST_KNOTS = 500
_PARTS = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
_MOST_DECIMALS = 6


def clock(seconds: float, decimals: int = 0) -> str:
    """Format a time: ``02:05``, ``02:05.25``, ``1:02:05``; "-" for none.

    Parameters
    ----------
    seconds : float
        Below 0 with a minus in front.
    decimals : int
        Of the seconds.
    """
    if not math.isfinite(seconds):
        return "-"
    # Rounded once, so that nothing is 60 seconds, and as the browser rounds.
    ticks = math.floor(abs(seconds) * 10**decimals + 0.5)
    whole, rest = divmod(ticks, 10**decimals)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
    sign = "-" if seconds < 0 and ticks else ""
    return f"{sign}{text}" + (f".{rest:0{decimals}d}" if decimals else "")


def exact_clock(seconds: float) -> str:
    """Format a time with as many decimals as it has, at most six."""
    text = clock(seconds, _MOST_DECIMALS)
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_clock(text: str) -> float | None:
    """Parse a time that a person has typed: ``2:05``, ``1:02:05.5`` or seconds, as in ``125``.

    Returns
    -------
    float or None
        Seconds; None for what is no time.
    """
    found = _PARTS.fullmatch(text.strip().removesuffix("s").strip())
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    if (minutes is not None and float(seconds) >= 60) or (hours is not None and int(minutes) >= 60):
        return None
    value = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)
    return value if math.isfinite(value) else None


def span_words(start: float, stop: float, decimals: int = 0) -> str:
    """Format a span: ``00:05 to 01:20``."""
    return f"{clock(start, decimals)} to {clock(stop, decimals)}"


# ------------------------------------------------------------------ timestamps


class SessionClock(NamedTuple):
    """SessionClock of a session: from the seconds that count its frames to those that passed.

    Views place a frame at frame / fps. Where the session has timestamps, what is written beside it
    is the time since its first frame by these.

    Attributes
    ----------
    shown : callable
        Seconds as frames count them -> seconds as they are written.
    placed : callable
        The other way round.
    knots : tuple of ndarray
        Moments of both kinds (knot,), in order, or () where they are the same.
    """

    shown: Callable[[float], float]
    placed: Callable[[float], float]
    knots: tuple[np.ndarray, ...] = ()

    def write(self, seconds: float, decimals: int = 0) -> str:
        """Format a moment that is given as frames count it."""
        return clock(self.shown(seconds), decimals)


PLAIN = SessionClock(float, float)
"""Of a session without timestamps."""


def session_clock(times: SessionTimes) -> SessionClock:
    """SessionClock of a session, from its timestamps where it has some."""
    if not times.is_given or not times.n_frames:
        return PLAIN
    first, fps, n_frames = times.first, times.fps, times.n_frames

    def shown(seconds: float) -> float:
        frame = min(max(0.0, seconds * fps), float(n_frames))
        before = min(int(frame + 1e-6), n_frames - 1)
        ends = times.of(np.array([before, before + 1])) - first
        return float(ends[0] + (frame - before) * (ends[1] - ends[0]))

    def placed(seconds: float) -> float:
        return min(times.frame_after(seconds), n_frames) / fps

    frames = np.unique(np.linspace(0, n_frames, _MOST_KNOTS).round().astype(np.int64))
    return SessionClock(shown, placed, (frames / fps, times.of(frames) - first))


# ------------------------------------------------------------------ in the browser


def clock_ticker() -> CompositeTicker:
    """Ticks at whole seconds, minutes and hours; below a second at tenths and so on."""
    return CompositeTicker(
        tickers=[
            AdaptiveTicker(mantissas=[1, 2, 5], base=10, min_interval=0, max_interval=0.5),
            AdaptiveTicker(
                mantissas=[1, 2, 5, 10, 15, 20, 30], base=60, min_interval=1, max_interval=30 * 60
            ),
            AdaptiveTicker(
                mantissas=[1, 2, 4, 6, 8, 12, 24, 48, 120], base=240, min_interval=3600,
                max_interval=100 * 86400,
            ),
        ]
    )  # fmt: skip


def clock_formatter(clock_of: SessionClock = PLAIN) -> CustomJSTickFormatter:
    """Texts of ticks as times, with as many decimals as their distance asks for."""
    return CustomJSTickFormatter(
        args=_knots(clock_of),
        code=f"""{CLOCK_JS}
        const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
        const decimals = Math.max(0, Math.min(3, Math.ceil(-Math.log10(step) - 1e-6)));
        return clock(shown(tick, knots, times), decimals);
        """,
    )


def clock_hover(clock_of: SessionClock = PLAIN, *, fps: float = 0.0) -> CustomJSHover:
    """Hover text of a time; with ``fps`` and the format ``frame`` that of its frame."""
    return CustomJSHover(
        args=_knots(clock_of),
        code=f"""{CLOCK_JS}
        if (format == "frame") return Math.floor(value * {fps} + 1e-6).toLocaleString("en");
        return clock(shown(value, knots, times), 2);
        """,
    )


def on_time_axis(axis: Any, clock_of: SessionClock = PLAIN) -> None:
    """Let an axis of seconds read as times."""
    axis.update(ticker=clock_ticker(), formatter=clock_formatter(clock_of))


def time_axis_hook(
    clock_of: SessionClock = PLAIN, *, with_label: bool = True
) -> Callable[[Any, Any], None]:
    """Hook of HoloViews: the x axis reads as times of a session."""
    done: set[str] = set()  # HoloViews calls it at every change

    def hook(plot: Any, _element: Any) -> None:
        for axis in plot.state.xaxis:
            if axis.id not in done:
                done.add(axis.id)
                on_time_axis(axis, clock_of)
                if with_label:
                    axis.axis_label = TIME_AXIS

    return hook


def _knots(clock_of: SessionClock) -> dict[str, Any]:
    placed, written = clock_of.knots or ((), ())
    return {"knots": list(map(float, placed)), "times": list(map(float, written))}


CLOCK_JS = """
function clock(seconds, decimals) {
  if (!Number.isFinite(seconds)) return "-";
  const scale = 10 ** decimals, ticks = Math.round(Math.abs(seconds) * scale);
  const whole = Math.floor(ticks / scale), rest = ticks - whole * scale;
  const two = (value) => String(value).padStart(2, "0");
  const hour = Math.floor(whole / 3600), minute = Math.floor(whole / 60) % 60;
  const text = (hour ? hour + ":" : "") + two(minute) + ":" + two(whole % 60);
  return (seconds < 0 && ticks ? "-" : "") + text +
    (decimals ? "." + String(rest).padStart(decimals, "0") : "");
}
function shown(seconds, knots, times) {
  if (knots.length < 2) return seconds;
  let [low, high] = [0, knots.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (knots[middle] <= seconds) low = middle; else high = middle;
  }
  const share = (seconds - knots[low]) / (knots[high] - knots[low]);
  return times[low] + Math.min(1, Math.max(0, share)) * (times[high] - times[low]);
}
"""
"""The same in the browser: ``clock(seconds, decimals)`` and ``shown(seconds, knots, times)``."""
