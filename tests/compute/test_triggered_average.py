"""Averages around onsets: planted ones are recovered, sums equal loops, whatever the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.labels import publish_labels
from helpers.posed import bouts_of, write_posed
from kpms_zarr.compute.analysis.onsets.deviation import deviation
from kpms_zarr.compute.analysis.onsets.frame_signals import frame_signal
from kpms_zarr.compute.analysis.onsets.posed_windows import TimeGrid
from kpms_zarr.compute.analysis.onsets.shifted_sums import CircularSums, onset_sums
from kpms_zarr.compute.analysis.onsets.triggered_average import (
    random_shifts,
    session_sums,
    stretch_onsets,
)
from kpms_zarr.compute.analysis.tables.bout_stream import session_blocks
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession, study_rows
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.timestamps import SessionTimes

FPS = 30.0


@st.composite
def trains(draw):
    """A signal with gaps, onsets, a window and shifts."""
    n = draw(st.integers(8, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = rng.normal(50, 3, n)
    values[rng.random(n) < draw(st.sampled_from([0, 0.2]))] = np.nan
    onset = np.flatnonzero(rng.random(n) < draw(st.sampled_from([0.1, 0.5, 1.0])))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    return values, onset, before, after, rng.integers(0, n, draw(st.integers(1, 6)))


@settings(deadline=None, max_examples=examples(300))
@given(trains())
def test_circular_sums__equal_a_loop(case):
    values, onset, before, after, shift = case
    total, number = CircularSums(values, before, after).sums(onset, shift)
    n = len(values)
    for place, by in enumerate(shift):
        for row, lag in enumerate(range(-before, after + 1)):
            moved = [(o + by) % n for o in onset]
            found = [values[o + lag] for o in moved if o >= before and o + after < n]
            there = [value for value in found if np.isfinite(value)]
            assert number[row, place] == len(there)
            assert total[row, place] == pytest.approx(sum(there), abs=1e-9)


@settings(deadline=None, max_examples=examples(100))
@given(trains())
def test_onset_sums__are_those_without_a_shift(case):
    values, onset, before, after, _ = case
    is_whole = (onset >= before) & (onset + after < len(values))
    item = np.zeros(is_whole.sum(), np.int64)
    total, square, number = onset_sums(values, onset[is_whole], item, 1, before, after)
    other, count = CircularSums(values, before, after).sums(onset, np.zeros(1, np.int64))
    np.testing.assert_allclose(total[0], other[:, 0], atol=1e-9)
    np.testing.assert_array_equal(number[0], count[:, 0])
    window = onset[is_whole][:, None] + np.arange(-before, after + 1)
    np.testing.assert_allclose(square[0], np.nansum(values[window] ** 2, 0), rtol=1e-12)


class Labels:
    """Labels of one session in memory."""

    n_states = 3

    def __init__(self, syllable):
        self._syllable = np.asarray(syllable, np.int16)

    def syllable(self, row, start, stop):
        return self._syllable[start:stop]


class Signal:
    """A signal in memory."""

    name, units = "signal", ""

    def __init__(self, values):
        self._values = values

    def has(self, session):
        return True

    def read(self, session, start, stop):
        return self._values[start:stop].copy()


@st.composite
def sessions(draw):
    labels = np.repeat(draw(st.lists(st.integers(-1, 2), min_size=4, max_size=60)), 2)
    n = len(labels)
    edges = sorted(draw(st.sets(st.integers(1, n - 1), max_size=3)) | {0, n})
    pairs = [p for p in itertools.pairwise(edges) if draw(st.booleans())] or [(0, n)]
    start, stop = np.array(pairs).T
    epochs = SessionEpochs.of([str(i) for i in range(len(pairs))], [""] * len(pairs), start, stop)
    return labels, epochs, draw(st.integers(1, n + 2)), draw(st.integers(5, n + 2))


@settings(deadline=None, max_examples=examples(150))
@given(sessions())
def test_session_sums__equal_loops_in_any_blocks_and_stretches(case):
    labels, epochs, block, stretch = case
    one = EpochSession(
        Session("one", 0, len(labels), FPS), epochs, 0, 0, 1, SessionTimes(len(labels), FPS)
    )
    values = np.random.default_rng(0).normal(size=len(labels))
    grid = TimeGrid(2 / FPS, 3 / FPS, [FPS])
    states = np.array([0, 2])
    settings_ = {"block_frames": block, "stretch_frames": stretch}
    sums = session_sums(Labels(labels), one, Signal(values), states, grid, 3, 0, **settings_)
    interval = epochs.at(0, len(labels))
    total = np.zeros((2, 6))
    shuffled = np.zeros((2, 6, 3))
    for first, last, *_ in stretch_onsets(Labels(labels), one, stretch, len(labels)):
        shifts = random_shifts(0, "one", first, last - first, 3)
        for t in range(max(1, first), last):
            same = interval[t] == interval[t - 1] >= 0
            if not (same and labels[t] != labels[t - 1] and min(labels[t], labels[t - 1]) >= 0):
                continue
            if labels[t] not in states or last - first < 6:
                continue
            row = list(states).index(labels[t])
            for column, moved in enumerate([t, *(first + (t - first + shifts) % (last - first))]):
                if moved - 2 >= first and moved + 3 < last:
                    window = values[moved - 2 : moved + 4]
                    if column:
                        shuffled[row, :, column - 1] += window
                    else:
                        total[row] += window
    np.testing.assert_allclose(sums.total, total, atol=1e-9)
    np.testing.assert_allclose(sums.shuffled_total, shuffled, atol=1e-9)


@pytest.mark.parametrize("n_shifts", [1, 19, 200])
def test_deviation__is_the_plus_one_rule_of_the_largest(n_shifts):
    rng = np.random.default_rng(n_shifts)
    observed, shifted = rng.normal(size=5), rng.normal(size=(5, n_shifts))
    found = deviation(observed, shifted)
    every = np.column_stack([observed, shifted])
    away = np.abs(every - every.mean(1, keepdims=True)) / every.std(1, keepdims=True)
    expected = (1 + (away[:, 1:].max(0) >= away[:, 0].max() * (1 - 1e-9)).sum()) / (1 + n_shifts)
    assert found.p == pytest.approx(expected)
    assert 1 / (1 + n_shifts) <= found.p <= 1
    assert found.at == away[:, 0].argmax()
    flat = deviation(np.ones(4), np.ones((4, n_shifts)))
    assert flat.p == 1  # nothing differs
    assert np.isnan(deviation(np.full(3, np.nan), np.ones((3, 2))).p)


# ------------------------------------------------------------------ of a store

LENGTHS = (6000, 5000, 7000, 6500)
AMPLITUDE, LAG = 2.0, 0.5


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Four sessions; the signal rises half a second after each onset of syllable 1."""
    store = str(tmp_path_factory.mktemp("planted") / "study.zarr")
    study = SyntheticStudy(lengths=LENGTHS, n_keypoints=4)
    write_store(store, study)
    rng = np.random.default_rng(5)
    labels, signal = {}, {}
    for name, n in zip(study.session_names, LENGTHS, strict=True):
        labels[name] = bouts_of(rng, n, 4, mean=15)
        onset = np.flatnonzero((labels[name][1:] == 1) & (labels[name][:-1] != 1)) + 1
        bump = np.zeros(n)
        for t in range(-8, 9):
            place = onset + round(LAG * FPS) + t
            place = place[(place >= 0) & (place < n)]
            np.add.at(bump, place, AMPLITUDE * np.exp(-((t / 4) ** 2)))
        signal[name] = bump + smooth_noise(rng, n)
    publish_labels(store, study, "m", labels)
    return store, labels, signal


def smooth_noise(rng, n, share=0.97):
    """Autoregressive noise of variance 1."""
    found = rng.normal(size=n)
    for t in range(1, n):
        found[t] = share * found[t - 1] + np.sqrt(1 - share**2) * found[t]
    return found


def test_triggered_average__recovers_amplitude_and_lag(planted):
    store, labels, signal = planted
    found = kpms_zarr.triggered_average(store, model="m", signal=signal, shuffles=499)
    assert found["mean"].dims == ("syllable", "time")
    one = found.sel(syllable=1)
    rise = (one["mean"] - one["baseline_mean"]).values
    assert found["time"].values[rise.argmax()] == pytest.approx(LAG, abs=0.07)
    assert rise.max() == pytest.approx(AMPLITUDE, rel=0.2)
    assert float(one["time_of_largest"]) == pytest.approx(LAG, abs=0.1)
    assert float(one["p"]) == pytest.approx(1 / 500)
    assert float(one["largest_deviation"]) > float(one["limit"])
    low, high = one["baseline_quantile"].values
    assert (low <= one["baseline_mean"]).all()
    assert (one["baseline_mean"] <= high).all()
    assert int(one["n_sessions"]) == 4
    # Of each session by a loop, and their mean and standard error.
    curves = []
    for name, values in signal.items():
        onset = np.flatnonzero((labels[name][1:] == 1) & (labels[name][:-1] != 1)) + 1
        onset = onset[(onset >= 30) & (onset + 60 < len(values))]
        curves.append(values[onset[:, None] + np.arange(-30, 61)].mean(0))
    np.testing.assert_allclose(one["mean"], np.mean(curves, 0), atol=1e-9)
    np.testing.assert_allclose(one["sem"], np.std(curves, 0, ddof=1) / 2, atol=1e-9)


def test_triggered_average__does_not_depend_on_blocks(planted):
    store, _, signal = planted
    one, two = (
        kpms_zarr.triggered_average(store, model="m", signal=signal, shuffles=9, block_frames=n)
        for n in (10_000, 611)
    )
    assert one.identical(two)


def test_triggered_average__of_one_session_and_missing_values(planted):
    store, labels, signal = planted
    name, values = next(iter(signal.items()))
    values = values.copy()
    values[1000:2000] = np.nan
    found = kpms_zarr.triggered_average(store, model="m", signal={name: values}, shuffles=9)
    assert found.attrs["sem_over"] == "onsets"
    assert "3 sessions without the signal" in found.attrs["notes"][0]
    onset = np.flatnonzero((labels[name][1:] == 2) & (labels[name][:-1] != 2)) + 1
    onset = onset[(onset >= 30) & (onset + 60 < len(values))]
    window = values[onset[:, None] + np.arange(-30, 61)]
    one = found.sel(syllable=2)
    np.testing.assert_allclose(one["mean"], np.nanmean(window, 0), atol=1e-9)
    n = np.isfinite(window).sum(0)
    np.testing.assert_allclose(one["sem"], np.nanstd(window, 0, ddof=1) / np.sqrt(n), atol=1e-9)
    assert int(one["n_onsets"]) == n.max()


@pytest.mark.parametrize("n_space", [2, 3])
def test_triggered_average__of_speed_turning_and_height(tmp_path, n_space):
    store = str(tmp_path / "study.zarr")
    _, sessions = write_posed(store, n_space=n_space, lengths=(900,))
    found = next(iter(sessions.values()))
    of_frame = {
        "speed": np.append(np.nan, np.linalg.norm(np.diff(found["centroid"], axis=0), axis=1)) * 30,
        "angular_velocity": np.append(np.nan, np.diff(found["heading"])) * 30,
        **({"height": found["centroid"][:, 2]} if n_space == 3 else {}),
    }
    labels = found["syllable"]
    onset = np.flatnonzero((labels[1:] == 0) & (labels[:-1] != 0)) + 1
    onset = onset[(onset >= 6) & (onset + 15 < 900)]
    for name, values in of_frame.items():
        one = kpms_zarr.triggered_average(
            store, model="m", signal=name, pre=0.2, post=0.5, shuffles=9
        ).sel(syllable=0)
        expected = values[onset[:, None] + np.arange(-6, 16)].mean(0)
        np.testing.assert_allclose(one["mean"], expected, rtol=1e-4, atol=1e-3)
    if n_space == 2:
        with pytest.raises(InputError, match="2 dimensions"):
            kpms_zarr.triggered_average(store, model="m", signal="height")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "other"}, "fitted model"),
        ({"signal": "cake"}, "angular_velocity"),
        ({"signal": {}}, "none"),
        ({"signal": {"nobody": np.zeros(3)}}, "nobody"),
        ({"signal": {"session_000": np.zeros(3)}}, r"shape \(3,\)"),
        ({"signal": "speed"}, "without positions"),
        ({"signal": "angular_velocity"}, "without heading"),
        ({"post": -1}, "before the onset"),
        ({"shuffles": 0}, "`shuffles=`"),
        ({"shuffles": 10**7}, "1 GB"),
        ({"min_onsets": 10**6}, "at most"),
        ({"syllables": [9]}, "9"),
    ],
)
def test_triggered_average__refuses_what_cannot_be(planted, options, words):
    store, _, signal = planted
    with pytest.raises(InputError, match=words):
        kpms_zarr.triggered_average(store, **{"model": "m", "signal": signal, **options})


def test_speed__around_onsets_goes_by_timestamps_as_that_of_tables(tmp_path):
    store = str(tmp_path / "study.zarr")
    write_posed(store, n_space=2)
    session = access.sessions(store)[0]
    step = np.full(session.n_frames, 1 / session.fps)
    step[7::50] *= 6  # lost frames
    kpms_zarr.timestamps(store, {session.name: np.cumsum(step)})
    labels = PosedLabels(store, "m")
    rows = study_rows(store, labels, epochs=None)
    one = next(row for row in rows.sessions if row.session.name == session.name)
    frames = [frames for frames, _ in session_blocks(labels, one)]
    speed = frame_signal(store, labels, "speed")
    found = speed.read(one.session, 0, session.n_frames)
    np.testing.assert_array_equal(found, np.concatenate([one.speed for one in frames]))
    turning = frame_signal(store, labels, "angular_velocity").read(one.session, 0, 60)
    kpms_zarr.timestamps(store, "none")
    even = frame_signal(store, labels, "speed").read(one.session, 0, session.n_frames)
    np.testing.assert_allclose(found[7], even[7] / 6)
    np.testing.assert_allclose(found[8], even[8], rtol=1e-6)
    twin = frame_signal(store, labels, "angular_velocity").read(one.session, 0, 60)
    np.testing.assert_allclose(turning[[7, 8]], twin[[7, 8]] / (6, 1), rtol=1e-6)
