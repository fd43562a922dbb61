"""What time stamps say of the frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from kpms_zarr.store.parsers.clock import Clock


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
    assert "1 gaps" in found.notes[0]


def test_whole_numbers__are_frame_numbers():
    found = timing(np.arange(17, 99), cuts=[3])
    assert (found.fps, found.first_frame) == (None, 17)
    assert "numbers of frames" in found.notes[0]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (np.arange(50) * 40, "40 apart"),
        (np.arange(50) * 33.3333 * 1000, "cannot be seconds"),
        (np.cumsum(np.arange(50) % 7 + 0.5), "irregular"),
        (np.arange(50)[::-1] / 30, "do not increase"),
        (np.zeros(50), "do not increase"),
        ([0.0, np.nan, 0.2], "missing"),
    ],
)
def test_other_times__give_no_rate_but_a_note(times, said):
    found = timing(times)
    assert found.fps is None
    assert said in found.notes[0]


@pytest.mark.parametrize("times", [[], [3.0]])
def test_too_few__say_nothing(times):
    assert timing(times) == timing([])
