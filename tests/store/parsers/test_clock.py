"""What time stamps say of the frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.time.clock import Clock


def timing(times, *, cuts=()):
    clock = Clock()
    for part in np.split(np.asarray(times, dtype=float), cuts):
        clock.add(part)
    return clock.timing()


@pytest.mark.parametrize("fps", [1.5, 25, 29.97, 30, 60, 119.88, 1000])
@pytest.mark.parametrize("start", [0, 86_400])
def test_regular_times__give_the_frame_rate(fps, start):
    found = timing(start + np.arange(5000) / fps, cuts=[1, 2, 4097])
    assert found.fps == pytest.approx(fps, rel=1e-6)
    assert not found.notes


def test_jitter__does_not_matter():
    rng = np.random.default_rng(0)
    found = timing(np.arange(3000) / 30 + rng.uniform(-0.005, 0.005, 3000))
    assert found.fps == pytest.approx(30, rel=1e-3)


def test_a_lost_frame__is_noted_and_the_rate_is_that_of_the_others():
    found = timing(np.delete(np.arange(1000) / 25, 500))
    assert found.fps == pytest.approx(25)
    assert "1 frame is missing after frame 499" in found.notes[0]
    assert (found.gaps.row.tolist(), found.gaps.n_missing.tolist()) == ([500], [1])


def test_whole_numbers__are_frame_numbers():
    found = timing(np.arange(17, 99), cuts=[3])
    assert (found.fps, found.first_frame) == (None, 17)
    assert "numbers of frames" in found.notes[0]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (np.cumsum(np.arange(50) % 7 + 0.5), "irregular"),
        (np.zeros(50), "the same in all rows"),
        ([0.0, np.nan, 0.2], "missing"),
    ],
)
def test_other_times__give_no_rate_but_a_note(times, said):
    found = timing(times)
    assert found.fps is None
    assert said in found.notes[0]


@pytest.mark.parametrize(
    ("times", "fps", "unit"),
    [
        (np.arange(50) * 40, 25, "milliseconds"),
        (np.rint(np.arange(5000) * 1000 / 30), 30, "milliseconds"),
        (np.arange(50) * 33.3333 * 1000, 30, "microseconds"),
        (1.7e18 + np.arange(50) * 8.333333e6, 120, "nanoseconds"),
        (7e5 + np.arange(50) / 50 / 86_400, 50, "days"),
    ],
)
def test_times_in_another_unit__are_recognised_by_what_cameras_do(times, fps, unit):
    found = timing(times)
    assert found.fps == pytest.approx(fps, rel=1e-3)
    assert f"read as {unit}" in found.notes[0]


@pytest.mark.parametrize(
    ("times", "found"),
    [
        (np.arange(50)[::-1] / 30, "1.6 in the row after 1.63333 (and in 48 more rows)"),
        ([0, 0.1, 0.2, 0.2, 0.3], "0.2 in the row after 0.2"),
        (np.arange(50) * 1e5 * 86_400, None),
    ],
)
def test_times_that_cannot_be__are_refused(times, found):
    with pytest.raises(InputError) as error:
        timing(times)
    assert (found or "in no unit is such a rate") in str(error.value)
    assert "`time_unit='rows'`" in str(error.value)


@pytest.mark.parametrize("times", [[], [3.0]])
def test_too_few__say_nothing(times):
    assert timing(times) == timing([])


def test_late_time_stamps__are_no_lost_frames():
    """One that is late, and several given at once after a stall."""
    times = np.arange(9000) / 30
    times[700] += 0.7 / 30
    times[2000:2020] = times[2019] + 1e-4 * np.arange(20)
    found = timing(times, cuts=[5000, 5001, 7000])
    assert (found.fps, found.gaps, found.notes) == (30, None, ())


def test_lost_frames__are_found_among_jitter_in_blocks_of_any_size():
    rng = np.random.default_rng(0)
    frames = np.delete(np.arange(60_000), [4500, 4600, 4601, *range(30_000, 30_500)])
    times = 1.7e9 + (frames + rng.uniform(-0.2, 0.2, len(frames))) / 29.97
    for cuts in ([], range(4300, 50_000, 37), [4500, 30_000]):
        found = timing(times, cuts=cuts)
        assert found.fps == pytest.approx(29.97, rel=1e-4)
        np.testing.assert_array_equal(found.gaps.frames(0, len(frames)), frames)
