"""Tables of syllables against naive loops; blocks of any size; what a user gets and is refused."""

from __future__ import annotations

import csv
import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.labels import publish_labels
from kpms_zarr.compute.analysis.tables.bout_counts import EpochCounter
from kpms_zarr.compute.analysis.tables.bout_stream import EpochBouts, session_blocks, wrapped
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession
from kpms_zarr.compute.analysis.tables.syllable_statistics import (
    QUANTILES,
    duration_statistics,
    entropy,
    entropy_rate,
    jensen_shannon,
)
from kpms_zarr.compute.analysis.tables.syllable_table import epoch_statistics
from kpms_zarr.compute.analysis.tables.table_columns import TABLES
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.timestamps import SessionTimes

N_STATES = 4
FPS = 25.0


class Arrays:
    """Labels of one session in memory."""

    n_states = N_STATES

    def __init__(self, syllable, n_space=2, seed=0):
        rng = np.random.default_rng(seed)
        n = len(syllable)
        self._syllable = np.array(syllable, np.int16)
        self._certainty = (rng.integers(0, 257, n) / 256).astype(np.float16)
        self._certainty[rng.random(n) < 0.1] = np.nan
        self._centroid = rng.normal(size=(n, n_space)).cumsum(0).astype(np.float32)
        self._centroid[rng.random(n) < 0.1] = np.nan
        self._heading = rng.uniform(-10, 10, n).astype(np.float32)

    def syllable(self, row, start, stop):
        return self._syllable[start:stop]

    def certainty(self, row, start, stop):
        return self._certainty[start:stop]

    def centroid(self, row, start, stop):
        return self._centroid[start:stop]

    def heading(self, row, start, stop):
        return self._heading[start:stop]


def session_of(epochs, n, times=None):
    return EpochSession(Session("one", 0, n, FPS), epochs, 0, 0, 1, times or SessionTimes(n, FPS))


@st.composite
def cases(draw):
    """Labels, intervals that do not overlap, and the length of a block."""
    labels = draw(st.lists(st.integers(-1, N_STATES - 1), min_size=1, max_size=60))
    repeated = np.repeat(labels, draw(st.integers(1, 3)))
    n = len(repeated)
    edges = sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=8)) | {n})
    if len(edges) < 2:
        edges = [0, n]
    pairs = [pair for pair in itertools.pairwise(edges) if draw(st.booleans())] or [(0, n)]
    names = [draw(st.sampled_from("abc")) for _ in pairs]
    start, stop = np.array(pairs).T
    return repeated, SessionEpochs.of(names, names, start, stop), draw(st.integers(1, n + 3))


def found_in_blocks(arrays, epochs, n, block, ngrams=(3, 4), times=None):
    one = session_of(epochs, n, times)
    counter = EpochCounter(len(epochs.names), N_STATES, ngrams)
    frames, bouts = [], []
    for part, ended in session_blocks(arrays, one, block):
        counter.add(part, ended)
        frames.append(part)
        bouts.append(ended)
    every = EpochBouts(*(np.concatenate(column) for column in zip(*bouts, strict=True)))
    speed, turning = (
        np.concatenate([getattr(part, name) for part in frames]) for name in ("speed", "turning")
    )
    return every, counter.counts(), speed, turning


def naive_bouts(labels, epochs):
    """Epoch, syllable, start, stop, frame after frame."""
    runs = []
    for interval, (start, stop) in enumerate(zip(epochs.start, epochs.stop, strict=True)):
        place = start
        for label, group in itertools.groupby(labels[start:stop]):
            n = len(list(group))
            if label >= 0:
                runs.append((interval, int(label), int(place), int(place + n)))
            place += n
    return runs


@settings(deadline=None, max_examples=examples(200))
@given(cases())
def test_bouts__equal_a_loop_in_blocks_of_any_size(case):
    labels, epochs, block = case
    arrays = Arrays(labels)
    bouts, counts, _, _ = found_in_blocks(arrays, epochs, len(labels), block)
    runs = naive_bouts(labels, epochs)
    expected = [(epochs.epoch[i], k, a, b) for i, k, a, b in runs]
    assert list(zip(*bouts[:4], strict=True)) == expected
    touches = [one[0] == two[0] and one[3] == two[2] for one, two in itertools.pairwise(runs)]
    following = [two[1] if t else -1 for t, two in zip(touches, runs[1:], strict=True)]
    previous = [one[1] if t else -1 for t, one in zip(touches, runs[:-1], strict=True)]
    assert bouts.following.tolist() == [*following, -1][: len(runs)]
    assert bouts.previous.tolist() == [-1, *previous][: len(runs)]
    moves = np.zeros((len(epochs.names), N_STATES, N_STATES), int)
    for i, (one, two) in enumerate(itertools.pairwise(runs)):
        if touches[i]:
            moves[epochs.epoch[one[0]], one[1], two[1]] += 1
    epoch, state, after, number = counts.sparse_transitions()
    dense = np.zeros_like(moves)
    dense[epoch, state, after] = number
    np.testing.assert_array_equal(dense, moves)
    assert not dense[:, range(N_STATES), range(N_STATES)].any()
    for n, histogram in counts.ngrams.items():
        naive = {}
        for i in range(len(runs) - n + 1):
            if all(touches[i : i + n - 1]):
                key = epochs.epoch[runs[i][0]]
                for run in runs[i : i + n]:
                    key = key * N_STATES + run[1]
                naive[int(key)] = naive.get(int(key), 0) + 1
        assert dict(zip(histogram.key.tolist(), histogram.number.tolist(), strict=True)) == naive
    for run, certainty in zip(runs, bouts.certainty, strict=True):
        own = arrays._certainty[run[2] : run[3]].astype(float)
        own = own[np.isfinite(own)]
        assert certainty == pytest.approx(own.mean()) if own.size else np.isnan(certainty)


@settings(deadline=None, max_examples=examples(200))
@given(cases(), st.integers(2, 3))
def test_statistics__are_the_same_to_the_bit_in_blocks_of_any_size(case, n_space):
    labels, epochs, block = case
    arrays = Arrays(labels, n_space)
    whole = found_in_blocks(arrays, epochs, len(labels), len(labels))
    parts = found_in_blocks(arrays, epochs, len(labels), block)
    for one, two in zip(whole[0], parts[0], strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(whole[2:], parts[2:], strict=True):
        np.testing.assert_array_equal(one, two)
    one, two = (epoch_statistics(found[1], SessionTimes(1, FPS)) for found in (whole, parts))
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)
    bouts = naive_bouts(labels, epochs)
    for epoch, state in np.ndindex(one["n_bouts"].shape):
        own = [(a, b) for i, k, a, b in bouts if (epochs.epoch[i], k) == (epoch, state)]
        assert one["n_bouts"][epoch, state] == len(own)
        assert one["n_frames"][epoch, state] == sum(b - a for a, b in own)
        if own:
            ms = [(b - a) * 1000 / FPS for a, b in own]
            assert one["median_duration"][epoch, state] == pytest.approx(np.median(ms))
            assert one["mean_duration"][epoch, state] == pytest.approx(np.mean(ms))
            np.testing.assert_allclose(
                one["duration_quantile"][epoch, state], np.quantile(ms, QUANTILES)
            )
        frames = np.concatenate([np.arange(a, b) for a, b in own]) if own else np.zeros(0, int)
        speed = whole[2][frames]
        speed = speed[np.isfinite(speed)]
        if speed.size > 1:
            assert one["mean_speed"][epoch, state] == pytest.approx(speed.mean())
            assert one["std_speed"][epoch, state] == pytest.approx(speed.std(ddof=1), abs=1e-4)
        turning = whole[3][frames]
        turning = turning[np.isfinite(turning)]
        if turning.size:
            vector = np.exp(1j * turning).mean()
            assert one["mean_turning"][epoch, state] == pytest.approx(np.angle(vector) * FPS)
            assert one["turning_resultant_length"][epoch, state] == pytest.approx(abs(vector))
            absolute = np.abs(turning).mean() * FPS
            assert one["mean_absolute_turning"][epoch, state] == pytest.approx(absolute)


@given(cases(), st.integers(1, 9), st.integers(0, 99))
def test_statistics__of_timestamps_are_alike_in_any_blocks(case, window, seed):
    labels, epochs, block = case
    n = len(labels)
    rng = np.random.default_rng(seed)
    given_times = 1e5 + np.cumsum(rng.exponential(1 / FPS, n) + 1e-4)
    times = SessionTimes.of_array(given_times, FPS, window)
    arrays = Arrays(labels)
    arrays._centroid = np.nan_to_num(arrays._centroid)
    whole = found_in_blocks(arrays, epochs, n, n, times=times)
    parts = found_in_blocks(arrays, epochs, n, block, times=times)
    for one, two in zip(whole[0], parts[0], strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole[2], parts[2])
    found = epoch_statistics(whole[1], times)
    for name, values in epoch_statistics(parts[1], times).items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)
    ends = np.append(given_times, times.end)
    step = np.diff(given_times)
    speed = np.linalg.norm(np.diff(arrays._centroid.astype(float), axis=0), axis=1) / step
    np.testing.assert_allclose(whole[2][1:], speed)
    turning = (np.diff(arrays._heading.astype(float)) + np.pi) % (2 * np.pi) - np.pi
    inside = epochs.at(0, n)
    for epoch, state in itertools.product(range(len(epochs.names)), range(N_STATES)):
        ms = [
            1000 * (ends[b] - ends[a])
            for i, k, a, b in naive_bouts(labels, epochs)
            if (epochs.epoch[i], k) == (epoch, state)
        ]
        if ms:
            mean, median = (found[f"{kind}_duration"][epoch, state] for kind in ("mean", "median"))
            np.testing.assert_allclose([mean, median], [np.mean(ms), np.median(ms)], atol=2e-3)
        of = (labels == state) & (inside >= 0) & (epochs.epoch[inside] == epoch)
        of = of[1:]
        if of.any():
            rate = np.abs(turning[of] / step[of]).mean()
            assert found["mean_absolute_turning"][epoch, state] == pytest.approx(rate)
            rate = np.angle(np.exp(1j * turning[of]).mean()) / step[of].mean()
            assert found["mean_turning"][epoch, state] == pytest.approx(rate)
            assert found["mean_speed"][epoch, state] == pytest.approx(speed[of].mean())


def test_timestamps__of_a_clock_that_goes_evenly_change_nothing():
    """The twin: evenly spaced times give what frames per second give."""
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, N_STATES, 30), rng.integers(1, 6, 30))
    arrays, n = Arrays(labels), len(labels)
    times = SessionTimes.of_array(77.25 + np.arange(n) / FPS, FPS)
    plain = found_in_blocks(arrays, SessionEpochs.whole(n), n, 13)
    timed = found_in_blocks(arrays, SessionEpochs.whole(n), n, 13, times=times)
    one = epoch_statistics(plain[1], SessionTimes(n, FPS))
    for name, values in epoch_statistics(timed[1], times).items():
        np.testing.assert_allclose(values, one[name], rtol=1e-9, err_msg=name)


def test_speed_and_turning__lead_to_a_frame_from_the_one_before():
    arrays = Arrays([0, 0, 1, 1])
    arrays._centroid = np.array([[0, 0], [3, 4], [3, 4], [3, 6]], np.float32)
    arrays._heading = np.array([0, 0.5, 3.1, -3.1], np.float32)
    epochs = SessionEpochs.whole(4)
    _, counts, speed, turning = found_in_blocks(arrays, epochs, 4, 3)
    np.testing.assert_allclose(speed, [np.nan, 5 * FPS, 0, 2 * FPS])
    np.testing.assert_allclose(turning, [np.nan, 0.5, 2.6, 2 * np.pi - 6.2], rtol=1e-5)
    found = epoch_statistics(counts, SessionTimes(4, FPS))
    np.testing.assert_allclose(found["mean_speed"][0, :2], [5 * FPS, FPS])
    np.testing.assert_allclose(found["mean_turning"][0, 0], 0.5 * FPS, rtol=1e-5)
    assert np.isnan(found["mean_speed"][0, 2])


def test_wrapped__is_the_short_way_round():
    angle = np.array([0, np.pi, -np.pi, 3 * np.pi / 2, -3 * np.pi / 2, 7])
    expected = [0, -np.pi, -np.pi, -np.pi / 2, np.pi / 2, 7 - 2 * np.pi]
    np.testing.assert_allclose(wrapped(angle), expected)


def test_entropies__of_known_shares():
    counts = np.array([[1, 1, 1, 1], [5, 0, 0, 0], [2, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(entropy(counts), [2, 0, 1.5, np.nan])
    # Always 0 -> 1, and from 1 half to 0 and half to 2: half of the time one bit.
    assert entropy_rate(np.array([0, 1, 1]), np.array([4, 2, 2])) == pytest.approx(0.5)
    assert np.isnan(entropy_rate(np.zeros(0, int), np.zeros(0, int)))


def test_jensen_shannon__of_known_shares():
    others = np.array([[2, 2, 0], [0, 0, 7], [3, 0, 0], [0, 0, 0]])
    found = jensen_shannon(np.array([1, 1, 0]), others)
    # (1/2, 1/2) and (1, 0): entropy of (3/4, 1/4) less half a bit.
    half_way = np.sqrt(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5)
    np.testing.assert_allclose(found, [0, 1, half_way, np.nan], atol=1e-7)
    assert np.isnan(jensen_shannon(np.zeros(3), others)).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_durations__are_those_of_numpy(lengths):
    labels = np.repeat(np.arange(len(lengths)) % 2, lengths)
    _, counts, _, _ = found_in_blocks(
        Arrays(labels), SessionEpochs.whole(len(labels)), len(labels), 7
    )
    found = duration_statistics(counts, 1000 / FPS)
    for state in range(2):
        own = np.array(lengths[state::2]) * 1000 / FPS
        if own.size:
            expected = np.quantile(own, QUANTILES)
            np.testing.assert_allclose(found["duration_quantile"][0, state], expected)


# ------------------------------------------------------------------ stores

STUDY = SyntheticStudy(n_sessions=3, lengths=(40, 30, 20), n_keypoints=3, fps=10)
LABELS = {
    "session_000": np.repeat([0, 1, 0, 2], [10, 5, 15, 10]),
    "session_001": np.repeat([1, -1, 1, 2], [10, 5, 5, 10]),
    "session_002": np.repeat([2, 0], [10, 10]),
}


@pytest.fixture
def store(tmp_path):
    """Three sessions with labels of three syllables, in two groups."""
    place = tmp_path / "s.zarr"
    write_store(place, STUDY)
    rng = np.random.default_rng(0)
    lengths = {name: len(values) for name, values in LABELS.items()}
    publish_labels(
        place, STUDY, "m", LABELS,
        {name: np.full(n, 0.5) for name, n in lengths.items()},
        centroid={name: rng.normal(size=(n, 2)) for name, n in lengths.items()},
        heading={name: rng.uniform(-3, 3, n) for name, n in lengths.items()},
    )  # fmt: skip
    table = tmp_path / "groups.csv"
    table.write_text("session,group,weight,epoch\nsession_000,a,20,x\nsession_001,b,21,y\n")
    kpms_zarr.annotate(place, table)
    return place


def test_syllable_table__without_epochs(store):
    found = kpms_zarr.syllable_table(store, model="m")
    assert found.session.values.tolist() == list(LABELS)
    assert found.epoch.values.tolist() == ["", "", ""]
    assert found.group.values.tolist() == ["a", "b", ""]
    assert found.session_epoch.values.tolist() == ["x", "y", ""]
    np.testing.assert_array_equal(found.weight, [20, 21, np.nan])
    assert found.n_frames.values.tolist() == [[25, 5, 10], [0, 15, 10], [10, 0, 10]]
    assert found.n_bouts.values.tolist() == [[2, 1, 1], [0, 2, 1], [1, 0, 1]]
    assert found.mean_duration.values[0].tolist() == [1250, 500, 1000]
    assert found.transition_count.values[0].tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    # The bouts of 1 in the second session do not touch: between them frames have no label.
    assert found.transition_count.values[1].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert found.n_frames.dtype == found.n_bouts.dtype == found.transition_count.dtype == np.int64
    assert (found.attrs["model"], found.attrs["version"], found.attrs["epochs"]) == ("m", "v1", "")
    assert found.mean_speed.attrs["units"] == "units of position / s"
    assert np.isfinite(found.mean_speed.values[found.n_frames.values > 1]).all()


def test_syllable_table__bouts_are_cut_at_epochs(store):
    table = pd.DataFrame(
        {
            "session": ["session_000", "session_000", "session_002"],
            "start_frame": [0, 12, 5],
            "stop_frame": [12, 30, None],
            "condition": ["dark", "light", "dark"],
        }
    )
    found = kpms_zarr.syllable_table(store, model="m", epochs=table)
    assert found.epoch.values.tolist() == ["dark", "light", "", "dark"]
    assert found.condition.values.tolist() == ["dark", "light", "", "dark"]
    assert found.group.values.tolist() == ["a", "a", "b", ""]
    assert found.n_bouts.values.tolist() == [[1, 1, 0], [1, 1, 0], [0, 2, 1], [1, 0, 1]]
    assert found.n_frames.values.tolist() == [[10, 2, 0], [15, 3, 0], [0, 15, 10], [10, 0, 5]]
    assert "15 frames are in no epoch" in " ".join(found.attrs["notes"])
    kpms_zarr.epochs(store, table)
    stored = kpms_zarr.syllable_table(store, model="m")
    assert stored.attrs["epochs"] == "v1"
    for name in ("n_bouts", "n_frames", "transition_count"):
        np.testing.assert_array_equal(stored[name], found[name])
    whole = kpms_zarr.syllable_table(store, model="m", epochs="none")
    assert whole.sizes["row"] == 3
    one = kpms_zarr.syllable_table(store, model="m", sessions=["group=a"])
    assert one.session.values.tolist() == ["session_000"] * 2


def test_syllable_table__of_labels_alone(tmp_path):
    write_store(tmp_path / "s.zarr", STUDY)
    publish_labels(tmp_path / "s.zarr", STUDY, "m", LABELS)
    found = kpms_zarr.syllable_table(tmp_path / "s.zarr", model="m")
    assert found.n_bouts.values.tolist()[0] == [2, 1, 1]
    assert found.mean_speed.isnull().all()
    assert found.mean_turning.isnull().all()
    tables = kpms_zarr.tables(tmp_path / "s.zarr", model="m", out=tmp_path / "t", to="csv")
    assert [one.table for one in tables.files] == list(TABLES)
    header = (tmp_path / "t" / "frames.csv").read_text().splitlines()[0]
    assert header == "session,epoch,condition,frame,time_s,video_frame,syllable"


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_tables__hold_what_the_labels_say(store, tmp_path, to):
    if to == "parquet":
        pytest.importorskip("pyarrow")
    result = kpms_zarr.tables(store, model="m", out=tmp_path / "t", to=to, block_frames=7)
    assert {one.table: one.n_rows for one in result.files} == {
        "epochs": 3, "frames": 90, "bouts": 9, "syllables": 7, "transitions": 5, "ngrams": 2,
        "distances": 3,
    }  # fmt: skip
    read = pd.read_parquet if to == "parquet" else pd.read_csv
    found = {name: read(tmp_path / "t" / f"{name}.{to}") for name in TABLES}
    with (tmp_path / "t" / "columns.csv").open() as file:
        said = {(row["table"], row["column"]) for row in csv.DictReader(file)}
    assert said == {(name, column) for name in TABLES for column in found[name].columns}
    frames = found["frames"]
    assert frames.frame.tolist() == [*range(40), *range(30), *range(20)]
    assert frames.time_s.tolist()[:3] == [0, 0.1, 0.2]
    labels = np.concatenate(list(LABELS.values())).astype(float)
    labels[labels < 0] = np.nan
    np.testing.assert_array_equal(frames.syllable.astype(float), labels)
    assert (
        frames.speed_units_per_s.isna().sum() == frames.angular_velocity_rad_per_s.isna().sum() == 3
    )
    bouts = found["bouts"]
    assert bouts.onset_s.tolist()[:4] == [0, 1, 1.5, 3]
    assert bouts.offset_frame.tolist()[:4] == [10, 15, 30, 40]
    assert bouts.previous_syllable.fillna(-1).tolist() == [-1, 0, 1, 0, -1, -1, 1, -1, 2]
    assert bouts.next_syllable.fillna(-1).tolist() == [1, 0, 2, -1, -1, 2, -1, 0, -1]
    assert (bouts.mean_certainty == 0.5).all()
    transitions = found["transitions"].query("session == 'session_000'")
    assert transitions[["syllable", "next_syllable", "count"]].values.tolist() == [
        [0, 1, 1], [0, 2, 1], [1, 0, 1],
    ]  # fmt: skip
    np.testing.assert_allclose(transitions.bigram, 1 / 3)
    assert transitions.row.tolist() == [0.5, 0.5, 1]
    assert transitions.column.tolist() == [1, 1, 1]
    assert found["ngrams"].syllables.tolist() == ["0-1-0", "1-0-2"]
    table = kpms_zarr.syllable_table(store, model="m")
    syllables = found["syllables"]
    assert syllables.group.fillna("").tolist()[:3] == ["a", "a", "a"]
    first = syllables.query("session == 'session_000'")
    for column, name in (("mean_duration_ms", "mean_duration"), ("n_bouts", "n_bouts"),
                         ("mean_speed_units_per_s", "mean_speed"),
                         ("frequency_by_bouts", "frequency_by_bouts")):  # fmt: skip
        np.testing.assert_allclose(first[column], table[name].values[0])
    np.testing.assert_allclose(found["epochs"].entropy_rate_bits_per_transition, table.entropy_rate)
    assert found["epochs"].n_labelled_frames.tolist() == [40, 25, 20]
    assert found["distances"].jensen_shannon_by_frames.between(0, 1).all()
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == sorted(
        ["columns.csv", *(f"{name}.{to}" for name in TABLES)]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "xlsx"}, "parquet or csv"),
        ({"include": ["cake"]}, "'cake'"),
        ({"include": []}, "some of the tables"),
        ({"ngrams": 1}, "2 or more"),
        ({"ngrams": 60}, "runs of at most"),
        ({"model": "other"}, "a fitted model named 'other'"),
        ({"version": "v9"}, "'v9'"),
        ({"sessions": ["nobody"]}, "nobody"),
        ({"epochs": "nothing.csv"}, "nothing.csv"),
        ({"out": "no/such/folder"}, "a folder that exists"),
        ({"out": "taken"}, "a folder for the tables"),
    ],
    ids=str,
)
def test_tables__refuse_what_cannot_be_and_change_nothing(store, tmp_path, options, words):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "frames.csv").write_text("old")
    out = tmp_path / options.pop("out", "t")
    with pytest.raises(InputError, match=words):
        kpms_zarr.tables(store, **{"model": "m", "to": "csv", **options}, out=out)
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["frames.csv"]
    assert (tmp_path / "t" / "frames.csv").read_text() == "old"
    assert (tmp_path / "taken").read_text() == "mine"


def test_tables__say_what_parquet_needs(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"kpms_zarr\[table\]"):
        kpms_zarr.tables(store, model="m", out=tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_tables__that_fail_on_the_way_leave_the_old_ones(store, tmp_path, monkeypatch):
    kpms_zarr.tables(store, model="m", out=tmp_path / "t", to="csv")
    before = {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()}
    where = "kpms_zarr.compute.analysis.tables.tables.write_distances"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, full)
    with pytest.raises(OSError, match="No space"):
        kpms_zarr.tables(store, model="m", out=tmp_path / "t", to="csv", epochs="none", ngrams=4)
    assert {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()} == before


# --- timestamps --------------------------------------------------------------------------


def test_tables__go_by_timestamps(store, tmp_path):
    """A hand-made case: frames 0.04 s apart, one that came 0.5 s late, five dropped before it."""
    session = kpms_zarr.info(store).sessions[0]
    n, fps = session.n_frames, session.fps
    plain = kpms_zarr.syllable_table(store, model="m", epochs="none")
    times = 500 + np.arange(n) / fps
    times[20:] += 0.5
    kpms_zarr.timestamps(store, {session.name: times})
    try:
        said = kpms_zarr.tables(store, model="m", out=tmp_path / "t", to="csv", epochs="none")
        timed = kpms_zarr.syllable_table(store, model="m", epochs="none")
        assert any("sessions without timestamps" in note for note in said.notes)
        frames, bouts, epochs = (
            pd.read_csv(tmp_path / "t" / f"{name}.csv") for name in ("frames", "bouts", "epochs")
        )
        own = frames[frames.session == session.name]
        np.testing.assert_allclose(own.time_s, times, atol=5e-7)
        way = np.hypot(*np.diff(own[["centroid_x_units", "centroid_y_units"]], axis=0).T)
        np.testing.assert_allclose(own.speed_units_per_s[1:], way / np.diff(times), rtol=1e-5)
        ends = np.append(times, times[-1] + 1 / fps)
        mine = bouts[bouts.session == session.name]
        np.testing.assert_allclose(mine.onset_s, ends[mine.onset_frame], atol=5e-7)
        np.testing.assert_allclose(mine.offset_s, ends[mine.offset_frame], atol=5e-7)
        duration = ends[mine.offset_frame] - ends[mine.onset_frame]
        np.testing.assert_allclose(mine.duration_s, duration, atol=1e-6)
        assert (mine.duration_s > (mine.offset_frame - mine.onset_frame) / fps + 0.4).sum() == 1
        (duration_s,) = epochs.duration_s[epochs.session == session.name]
        assert duration_s == pytest.approx(n / fps + 0.5)
        other = bouts[bouts.session != session.name]
        np.testing.assert_allclose(other.onset_s, other.onset_frame / fps, atol=5e-7)
        row = timed.session.values.tolist().index(session.name)
        total = [(one.mean_duration * one.n_bouts).sum("state")[row] for one in (plain, timed)]
        assert float(total[1] - total[0]) == pytest.approx(500, abs=0.01)
        others = [one.drop_isel(row=row) for one in (plain, timed)]
        assert others[0].equals(others[1])
    finally:
        kpms_zarr.timestamps(store, "none")
    assert kpms_zarr.syllable_table(store, model="m", epochs="none").equals(plain)
