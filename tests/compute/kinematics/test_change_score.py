"""Change score: tiny cases by hand, chance at its nominal rate, twins that must fail."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import changing
from helpers.amount import IS_FULL, examples
from kpms_zarr.compute.kinematics.change_score import (
    LOCAL_WINDOWS,
    ChangeSums,
    Whitening,
    Window,
    change_of,
    excess_of,
    heights,
    peaks_of,
    random_lags,
    score_of,
    shares_of,
    threshold_of,
)
from kpms_zarr.compute.kinematics.intervals import Intervals
from kpms_zarr.compute.mapreduce import Histogram

COPIES = 20
RATE = 0.1


# ------------------------------------------------------------------ tiny cases, by hand


def test_window__is_odd_and_near_what_was_asked():
    assert [Window.of(ms, 30.0).n_frames for ms in (1, 33, 100, 400)] == [1, 1, 3, 13]
    assert Window.of(100, 120.0).n_frames == 13


def test_change__is_that_of_the_velocity_over_the_window():
    pose = np.zeros((13, 3, 2))
    pose[:, 0, 0] = np.maximum(np.arange(13.0) - 6, 0) * 2  # from standing to 2 units a frame
    window = Window(1)
    change, is_known = change_of(pose, np.ones((13, 3), bool), window)
    assert change.shape == (13 - 2 * window.margin, 6)
    assert is_known.all()
    mean = np.convolve(pose[:, 0, 0], np.ones(3) / 3, "valid")  # of frames 1 ... 11
    by_hand = [mean[t + 2] - 2 * mean[t - 1] + mean[t - 4] for t in range(4, 9)]
    np.testing.assert_allclose(change[:, 0], by_hand)
    assert change[:, 0].argmax() == 2
    assert not change[:, 1:].any()


def test_change__of_averages_that_are_mostly_unseen_is_not_known():
    valid = np.ones((13, 2), bool)
    valid[1:3, 0] = False  # two of the three frames of the first average of frame 4 + 1
    _, is_known = change_of(np.zeros((13, 2, 2)), valid, Window(1))
    np.testing.assert_array_equal(is_known[:, 0], [False] * 2 + [True] * 3)
    np.testing.assert_array_equal(is_known[:, 2:], True)


def test_whitening__takes_out_what_keypoints_share():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 8))
    change = rng.normal(size=(20_000, 8)) @ mix
    known = np.ones(change.shape, bool)
    found = None
    for _ in range(3):
        found = Whitening.of(ChangeSums.of_block(change, known, found))
    after = np.corrcoef((change @ found.weight).T)
    assert np.abs(after - np.eye(8)).max() < 0.1
    assert np.abs(np.corrcoef(change.T) - np.eye(8)).max() > 0.4
    assert found.spread == pytest.approx(1.0)
    assert found.n_directions == 8


def test_whitening__of_centred_poses_knows_that_a_direction_is_missing():
    """Wrong twin: 1 for any pose, as if coordinates of few keypoints could be independent."""
    rng = np.random.default_rng(0)
    change = rng.normal(size=(20_000, 4))
    change -= change.mean(1, keepdims=True)
    found = Whitening.of(ChangeSums.of_block(change, np.ones(change.shape, bool)))
    assert found.n_directions == 3
    assert found.spread == pytest.approx(1 + 3 / 9, rel=0.02)  # correlations of -1/3


def test_shares__are_uniform_for_normal_changes_and_follow_the_activity():
    rng = np.random.default_rng(0)
    size = np.abs(rng.normal(size=(40_000, 1)))
    size[20_000:] *= 1000
    shares = shares_of(size, Window(1))
    for part in (shares[:19_000], shares[21_000:]):
        assert np.abs(np.quantile(part, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.02


def test_shares__of_what_never_moves_are_not_known():
    size = np.zeros((200, 2))
    size[:, 1] = 1
    shares = shares_of(size, Window(1))
    assert np.isnan(shares[:, 0]).all()
    assert np.isfinite(shares[:, 1]).all()


def test_score__is_standard_normal_for_independent_coordinates():
    shares = np.random.default_rng(0).random((50_000, 20))
    shares[::7, :8] = np.nan
    score = score_of(shares, np.zeros(20, int), 0, 50_000)
    for part in (score[::7], score[1::7]):
        assert abs(part.mean()) < 0.03
        assert abs(part.std() - 1) < 0.03


def test_score__needs_half_of_the_coordinates_and_is_late_as_said():
    shares = np.full((30, 4), 0.5)
    shares[10, 0] = 1.0
    shares[20, :3] = np.nan
    score = score_of(shares, np.array([2, 0, 0, 0]), 5, 20)
    assert np.flatnonzero(score > 0).tolist() == [10 + 2 - 5]
    assert np.flatnonzero(np.isnan(score)).tolist() == []  # of 20 and 22 one each too few
    assert np.isnan(score_of(shares, np.zeros(4, int), 5, 20)[15])


def test_peaks__are_highest_within_the_window_and_of_equals_the_first():
    score = np.array([np.nan, 1, 2, 2, 1, 5, 1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(peaks_of(score, Window(0)), [0, 1, 0, 0, 1, 0, 0, 0])


def test_threshold__is_the_lowest_height_at_which_few_peaks_are_chance():
    observed = Histogram(np.array([64, 128, 192]), np.array([100, 50, 50]))
    null = Histogram(np.array([60, 64, 128]), np.array([900, 60, 4]))
    assert threshold_of(observed, null, 1, 0.05) == 2.0  # 5 of 100; at 1.0 they are 65 of 200
    assert threshold_of(observed, null, 1, 0.001) == np.inf
    assert excess_of(observed, null, 1) == 200 - 65


def test_heights__are_binned_by_their_lower_edge():
    np.testing.assert_array_equal(heights(np.array([0.5, 1.01])).key, [32, 64])


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 99), unique=True, max_size=8), min_size=1, max_size=4),
       st.lists(st.integers(1, 99), max_size=5))  # fmt: skip
def test_intervals__do_not_depend_on_the_blocks(sessions, cuts):
    edges = [0, *sorted(set(cuts)), 100]
    total = None
    for row, frames in enumerate(sessions):
        frames = np.sort(np.array(frames, np.int64))
        for begin, end in pairwise(edges):
            one = Intervals.of_block(row, frames[(frames >= begin) & (frames < end)])
            total = one if total is None else total.plus(one)
    whole = sorted((row, step) for row, frames in enumerate(sessions)
                   for step in np.diff(np.sort(frames)))  # fmt: skip
    found = sorted(
        pair for *pair, n in zip(total.row, total.frames, total.number.number, strict=True)
        for _ in range(n)
    )  # fmt: skip
    assert [tuple(pair) for pair in found] == whole
    np.testing.assert_array_equal(total.ends[:, 3], [len(frames) for frames in sessions])


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(0, 400), st.integers(1, 300), st.integers(0, 5))
def test_change__of_any_stretch_is_that_of_the_whole(begin, length, half):
    rng = np.random.default_rng(0)
    window = Window(half)
    pose, valid = rng.normal(size=(900, 3, 2)), rng.random((900, 3)) < 0.8
    whole = change_of(pose, valid, window)
    end = min(len(whole[0]), begin + length)
    part = slice(begin, end + 2 * window.margin)
    for found, one in zip(change_of(pose[part], valid[part], window), whole, strict=True):
        np.testing.assert_array_equal(found, one[begin:end])


# ------------------------------------------------------------------ chance


def search(position, fps=30.0, *, lag="keypoint", is_white=True):
    """Numbers of change points and of changes that there are at least, and their frames."""
    window = Window.of(100, fps)
    w, margin = window.n_frames, window.reach + window.n_frames
    pose = position.astype(np.float64)
    pose = pose - pose.mean(1, keepdims=True)
    change, known = change_of(pose, np.ones(pose.shape[:2], bool), window)
    white = None
    for _ in range(3):
        white = Whitening.of(ChangeSums.of_block(change, known, white))
    if not is_white:
        n = change.shape[1]
        white = Whitening(np.eye(n), np.arange(n), n, 1.0)
    size = np.abs(change @ white.weight)
    shares = shares_of(size, window)
    if lag == "session":  # of the size as it is, whatever the activity
        shares = size.argsort(0).argsort(0) / len(size)
    shares = np.pad(shares, ((margin, margin), (0, 0)), constant_values=np.nan)

    def scored(lags):
        score = score_of(shares, lags, margin - w, len(size) + 2 * w)
        return score[w:-w], peaks_of(score, window)

    score, is_peak = scored(np.zeros(shares.shape[1], int))
    observed, null = heights(score[is_peak]), Histogram.of_block(np.zeros(0, np.int64))
    n_points, n_space = position.shape[1:]
    rng = np.random.default_rng(0)
    for lags in random_lags(rng, COPIES, n_points, window):
        lags = lags[:1].repeat(n_points) if lag == "same" else lags
        if lag == "session":
            whole = rng.integers(0, len(size), n_points)[white.kept // n_space]
            rows = (np.arange(len(shares))[:, None] - whole) % len(shares)
            copied = np.take_along_axis(shares, rows, 0)
            score_then = score_of(copied, np.zeros(len(whole), int), margin - w, len(size) + 2 * w)
            copy, is_one = score_then[w:-w], peaks_of(score_then, window)
        else:
            copy, is_one = scored(lags[white.kept // n_space])
        null = null.add(heights(copy[is_one] * np.sqrt(white.spread)))
    height = threshold_of(observed, null, COPIES, RATE)
    frames = np.flatnonzero(is_peak & (score >= height)) + window.margin
    return frames, excess_of(observed, null, COPIES)


SEEDS = range(5)


def seeds_of(n_space: int) -> range:
    """Studies that are tried; in CI fewer of three axes, whose keypoints take longer."""
    return SEEDS if n_space == 2 or IS_FULL else SEEDS[:2]


@pytest.mark.parametrize("n_space", [2, 3])
@pytest.mark.parametrize("kind", [changing.smooth, changing.apart])
def test_chance__gives_points_at_no_more_than_the_nominal_rate(kind, n_space):
    """At a false discovery rate of 10 %, nearly no points where there are no joint changes."""
    found = [len(search(kind(120, 30.0, seed, n_space=n_space))[0]) for seed in seeds_of(n_space)]
    peaks = 120 * 30 / 8
    assert np.mean(found) < 0.01 * peaks


@pytest.mark.parametrize("n_space", [2, 3])
def test_chance__has_a_twin_that_does_not_take_out_what_keypoints_share(n_space):
    data = (changing.smooth(120, 30.0, seed, n_space=n_space) for seed in seeds_of(n_space))
    found = [len(search(one, is_white=False)[0]) for one in data]
    assert np.mean(found) > 0.05 * 120 * 30 / 8


@pytest.mark.parametrize("n_space", [2, 3])
def test_chance__has_a_twin_whose_shifts_do_not_follow_the_activity(n_space):
    data = (changing.smooth(120, 30.0, seed, n_space=n_space) for seed in seeds_of(n_space))
    found = [len(search(one, lag="session")[0]) for one in data]
    assert np.mean(found) > 0.05 * 120 * 30 / 8


@pytest.mark.parametrize("n_space", [2, 3])
def test_chance__has_a_twin_that_shifts_all_keypoints_alike_and_finds_nothing(n_space):
    position, _ = changing.together(120, 30.0, 0, n_space=n_space)
    assert len(search(position)[0]) > 50
    assert len(search(position, lag="same")[0]) == 0


# ------------------------------------------------------------------ planted ones


def judged(frames, times, fps):
    """Shares of the points that are true, and of the changes that are found, to 100 ms."""
    away = np.abs(frames[:, None] / fps - times)
    return (away.min(1) < 0.1).mean(), (away.min(0) < 0.1).mean()


@pytest.mark.parametrize(("fps", "n_space"), [(30.0, 2), (60.0, 2), (120.0, 2), (30.0, 3)])
def test_planted__are_found_at_any_frame_rate(fps, n_space):
    position, times = changing.together(120, fps, 1, n_space=n_space)
    frames, at_least = search(position, fps)
    precise, complete = judged(frames, times, fps)
    assert precise > 0.9
    assert complete > 0.6
    assert at_least < 1.1 * len(times)


def test_planted__do_not_depend_on_units():
    position, _ = changing.together(60, 30.0, 2)
    frames, _ = search(position)
    other, _ = search(position * 2.0**-10)
    np.testing.assert_array_equal(frames, other)


def test_reach__is_a_number_of_windows_at_any_frame_rate():
    for fps in (30.0, 60.0, 120.0):
        window = Window.of(100, fps)
        assert window.reach == LOCAL_WINDOWS * window.n_frames
