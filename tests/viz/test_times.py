"""Times as mm:ss: written, read again, and by timestamps."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from bokeh.models import ColumnDataSource
from hypothesis import given, settings
from hypothesis import strategies as st

from kpms_zarr.store.study.timestamps import SessionTimes
from kpms_zarr.viz.shared.times import (
    CLOCK_JS,
    PLAIN,
    clock,
    clock_ticker,
    exact_clock,
    parse_clock,
    session_clock,
    span_words,
)

SECONDS = st.floats(0, 1e6, allow_nan=False)
NODE = shutil.which("node")


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [
        (0, 0, "00:00"),
        (5, 0, "00:05"),
        (65.25, 2, "01:05.25"),
        (59.999, 2, "01:00.00"),
        (3599.6, 0, "1:00:00"),
        (3600, 0, "1:00:00"),
        (36_000 + 61, 1, "10:01:01.0"),
        (-1.5, 1, "-00:01.5"),
        (-0.001, 1, "00:00.0"),
        (float("nan"), 2, "-"),
        (float("inf"), 0, "-"),
    ],
)
def test_clock__is_written_as_people_read_it(seconds: float, decimals: int, text: str) -> None:
    assert clock(seconds, decimals) == text


@settings(deadline=None)
@given(seconds=SECONDS, decimals=st.integers(0, 6))
def test_clock__is_read_again(seconds: float, decimals: int) -> None:
    text = clock(seconds, decimals)
    assert re.fullmatch(r"(\d+:[0-5]\d|[0-5]\d):[0-5]\d(\.\d+)?", text)
    found = parse_clock(text)
    assert found is not None
    assert abs(found - seconds) <= 0.5 * 10.0**-decimals + 1e-9 * (1 + seconds)


@settings(deadline=None)
@given(milliseconds=st.integers(0, 10**8))
def test_exact_clock__loses_nothing_that_an_address_holds(milliseconds: int) -> None:
    text = exact_clock(milliseconds / 1000)
    assert parse_clock(text) == pytest.approx(milliseconds / 1000, abs=1e-9)
    assert not text.endswith(".")


@settings(deadline=None)
@given(a=SECONDS, b=SECONDS)
def test_clock__keeps_the_order(a: float, b: float) -> None:
    first, second = (parse_clock(clock(one, 1)) for one in sorted((a, b)))
    assert first is not None
    assert second is not None
    assert first <= second


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90 s", 90), ("1:30", 90), ("01:30.5", 90.5), ("1:01:30", 3690),
        ("90:00", 5400), (".5", 0.5), (" 2:05 ", 125), ("125.25", 125.25),
        ("1:60", None), ("1:60:00", None), ("", None), ("-5", None), ("1:2:3:4", None),
        ("a", None), ("1e3", None), ("nan", None), ("1:", None), (":30", None),
    ],
)  # fmt: skip
def test_parse__takes_times_and_nothing_else(text: str, seconds: float | None) -> None:
    assert parse_clock(text) == seconds


def test_span__of_two_moments() -> None:
    assert span_words(5, 80) == "00:05 to 01:20"


# ------------------------------------------------------------------ timestamps


def test_session_clock__without_timestamps_is_that_of_the_frames() -> None:
    assert session_clock(SessionTimes(100, 30.0)) is PLAIN


@settings(deadline=None)
@given(
    steps=st.lists(st.floats(0.01, 0.5), min_size=2, max_size=60),
    first=st.floats(-100, 1e4),
    share=st.floats(0, 1),
)
def test_session_clock__is_that_of_the_timestamps(
    steps: list[float], first: float, share: float
) -> None:
    times, fps = first + np.cumsum(steps), 30.0
    found = session_clock(SessionTimes.of_array(times, fps, window=7))
    frame = round(share * (len(times) - 1))
    assert found.shown(frame / fps) == pytest.approx(times[frame] - times[0], abs=1e-6)
    # A time that is shown is found again, to the frame.
    assert round(found.placed(found.shown(frame / fps)) * fps) == frame
    middle = found.shown((frame + 0.5) / fps)
    assert found.shown(frame / fps) <= middle <= found.shown((frame + 1) / fps)
    placed, written = found.knots
    assert (np.diff(placed) > 0).all()
    assert (np.diff(written) > 0).all()
    np.testing.assert_allclose([found.shown(one) for one in placed], written, atol=1e-6)


def test_ticker__has_ticks_at_whole_seconds_minutes_and_hours() -> None:
    below, seconds, hours = clock_ticker().tickers
    assert (below.max_interval, seconds.min_interval, hours.min_interval) == (0.5, 1, 3600)


@pytest.mark.skipif(NODE is None, reason="needs node on PATH")
def test_browser__writes_times_as_python_does() -> None:
    values = [0, 5, 59.999, 65.25, 3599.6, 3600, 360_061.5, -1.5, -0.001]
    code = (
        f"{CLOCK_JS};console.log([{','.join(map(str, values))}]"
        ".flatMap((v) => [0, 1, 2].map((d) => clock(v, d))).join(' '))"
    )
    done = subprocess.run([str(NODE), "-e", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [clock(v, d) for v in values for d in (0, 1, 2)]


def test_source__of_a_window_is_what_clocks_need() -> None:
    from kpms_zarr.viz.player.clocks import axis_clock, frame_clock, hover_clock

    source = ColumnDataSource({"frame": [0], "time": [0.0], "clock": [0.0]})
    for made in (axis_clock(source), frame_clock(source), hover_clock(source)):
        assert made.args["frames"] is source
        assert "function clock" in made.code
