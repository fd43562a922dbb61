"""Times of the frames of a window in the browser, by the timestamps where the session has some."""

from __future__ import annotations

from bokeh.models import ColumnDataSource, CustomJSHover, CustomJSTickFormatter

from kpms_zarr.viz.shared.times import CLOCK_JS

_TIME_AT = """
// Times are placed as frames count them, and written as the clock of the session has them.
function time_at(seconds) {
  const {time, clock: clocks} = frames.data, last = time.length - 1;
  const step = last > 0 ? (time[last] - time[0]) / last : 1;
  const i = Math.max(0, Math.min(last, Math.floor((seconds - time[0]) / step + 1e-6)));
  return clocks[i] + seconds - time[i];
}
"""


def axis_clock(frames: ColumnDataSource) -> CustomJSTickFormatter:
    """Texts of the ticks of an axis of time; ``frames`` are those of the window."""
    return CustomJSTickFormatter(
        args={"frames": frames},
        code=f"""{CLOCK_JS}{_TIME_AT}
        const apart = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
        const decimals = Math.max(0, Math.min(3, Math.ceil(-Math.log10(apart) - 1e-6)));
        return clock(time_at(tick), decimals);
        """,
    )


def hover_clock(frames: ColumnDataSource) -> CustomJSHover:
    """Hover text of a time; see :func:`axis_clock`."""
    return CustomJSHover(
        args={"frames": frames}, code=f"{CLOCK_JS}{_TIME_AT} return clock(time_at(value), 2);"
    )


def frame_clock(frames: ColumnDataSource) -> CustomJSTickFormatter:
    """Text of the slider, whose value is a frame of the session: its time, then its number."""
    return CustomJSTickFormatter(
        args={"frames": frames},
        code=f"""{CLOCK_JS}
        const i = Math.round(tick) - frames.data.frame[0], time = frames.data.clock[i];
        const number = Math.round(tick).toLocaleString("en");
        return time === undefined ? `frame ${{number}}` : `${{clock(time, 2)}} (frame ${{number}})`;
        """,
    )
