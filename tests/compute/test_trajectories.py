"""Typical trajectories: planted ones are found, whatever the blocks, in 2-D and in 3-D."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.posed import bouts_of, publish_posed, write_posed
from kpms_zarr.compute.analysis.onsets.bout_sample import BoutSample
from kpms_zarr.compute.analysis.onsets.posed_windows import TimeGrid
from kpms_zarr.compute.analysis.onsets.typical import densest
from kpms_zarr.compute.analysis.onsets.whole_windows import Onsets, WholeWindows
from kpms_zarr.compute.analysis.tables.bout_stream import session_bouts
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.timestamps import SessionTimes

N_STATES = 3


class Labels:
    """Labels of one session in memory."""

    n_states = N_STATES

    def __init__(self, syllable):
        self._syllable = np.asarray(syllable, np.int16)

    def syllable(self, row, start, stop):
        return self._syllable[start:stop]


@st.composite
def cases(draw):
    """Labels, intervals that do not overlap, a window, and the length of a block."""
    labels = np.repeat(draw(st.lists(st.integers(-1, 2), min_size=1, max_size=60)), 2)
    n = len(labels)
    edges = sorted(draw(st.sets(st.integers(0, n), max_size=5)) | {0, n})
    pairs = [pair for pair in itertools.pairwise(edges) if draw(st.booleans())] or [(0, n)]
    start, stop = np.array(pairs).T
    epochs = SessionEpochs.of([str(i) for i in range(len(pairs))], [""] * len(pairs), start, stop)
    window = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    return labels, epochs, window, draw(st.integers(1, n + 3))


def naive_windows(labels, epochs, before, after):
    """Bouts whose window is whole, frame after frame."""
    found = []
    interval = epochs.at(0, len(labels))
    for t in range(1, len(labels)):
        is_onset = labels[t] != labels[t - 1] and min(labels[t], labels[t - 1]) >= 0
        if not is_onset or t - before < 0 or t + after >= len(labels):
            continue
        window = slice(t - min(before, t), t + after + 1)
        one = slice(min(window.start, t - 1), window.stop)  # and the frame that it follows
        if (labels[one] >= 0).all() and (interval[one] == interval[t]).all() and interval[t] >= 0:
            stop = t
            while stop < len(labels) and (labels[stop], interval[stop]) == (labels[t], interval[t]):
                stop += 1
            found.append((int(labels[t]), t, stop))
    return found


@settings(deadline=None, max_examples=examples(300))
@given(cases())
def test_whole_windows__equal_a_loop_in_any_blocks(case):
    labels, epochs, (before, after), block = case
    one = EpochSession(
        Session("one", 0, len(labels), 25.0), epochs, 0, 0, 1, SessionTimes(len(labels), 25.0)
    )
    finder = WholeWindows(before, after)
    parts = [finder.add(bouts) for bouts in session_bouts(Labels(labels), one, block)]
    found = [np.concatenate(column).tolist() for column in zip(*parts, strict=True)]
    assert list(zip(*found, strict=True)) == naive_windows(labels, epochs, before, after)


@settings(deadline=None, max_examples=examples(100))
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5), st.permutations(range(4)))
def test_bout_sample__is_the_same_in_any_order_and_blocks(size, block, seed, order):
    rng = np.random.default_rng(seed)
    bouts = {name: rng.integers(0, N_STATES, 50) for name in range(4)}

    def sampled(order, block):
        sample = BoutSample(N_STATES, size, seed)
        for name in order:
            for first in range(0, 50, block):
                start = np.arange(first, min(first + block, 50))
                sample.add(f"s{name}", name, Onsets(bouts[name][start], start, start + 1))
        return sample.sample(), sample.n_seen

    (found, seen), (other, _) = sampled(order, block), sampled(range(4), 50)
    np.testing.assert_array_equal(found, other)
    every = np.bincount(np.concatenate(list(bouts.values())), minlength=N_STATES)
    np.testing.assert_array_equal(seen, every)
    np.testing.assert_array_equal(np.bincount(found[:, 0], minlength=N_STATES),
                                  np.minimum(every, size))  # fmt: skip
    assert len({tuple(row) for row in found}) == len(found)


def test_bout_sample__is_uniform():
    """Every bout is as often in it as any other, within binomial error."""
    n, size, n_seeds = 60, 12, 400
    number = np.zeros(n)
    onset = np.arange(n)
    for seed in range(n_seeds):
        sample = BoutSample(1, size, seed)
        sample.add("a", 0, Onsets(np.zeros(n, np.int64), onset, onset + 1))
        number[sample.sample()[:, 2]] += 1
    share = size / n
    error = np.sqrt(n_seeds * share * (1 - share))
    assert (np.abs(number - n_seeds * share) < 4.5 * error).all()
    # Sum of squares of n standardised counts (their sum is fixed): a chi-square.
    chi = (((number - n_seeds * share) / error) ** 2).sum()
    assert n - 5 * np.sqrt(2 * n) < chi * n / (n - 1) < n + 5 * np.sqrt(2 * n)


# ------------------------------------------------------------------ density


def planted(rng, n_space, n_planted=60, n_others=140, noise=0.3):
    """Trajectories around one, and others around nothing; True = planted."""
    shape = (10, 4, n_space)
    common = rng.normal(size=shape).cumsum(0)
    close = common + noise * rng.normal(size=(n_planted, *shape))
    far = 3 * rng.normal(size=(n_others, *shape)).cumsum(1)
    order = rng.permutation(n_planted + n_others)
    return np.concatenate([close, far])[order], order < n_planted, common


@pytest.mark.parametrize("n_space", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_densest__are_the_planted_ones_and_random_ones_are_not(n_space, seed):
    rng = np.random.default_rng(seed)
    every, is_planted, common = planted(rng, n_space)
    core = densest(every, 50).core
    assert len(core) == len(set(core)) == 51
    assert is_planted[core].mean() > 0.95
    error = np.abs(np.median(every[core], 0) - common).max()
    assert error < 0.3
    # The wrong twin, bouts chosen at random, has few of them, and a median that is another one.
    chosen = rng.choice(len(every), len(core), replace=False)
    assert is_planted[chosen].mean() < 0.6
    assert np.abs(np.median(every[chosen], 0) - common).max() > 2 * error


def test_densest__distances_equal_a_loop():
    rng = np.random.default_rng(0)
    every = rng.normal(size=(9, 3, 2, 2))
    found = densest(every, 2)
    for i, one in enumerate(every):
        away = sorted(np.sqrt(((one - other) ** 2).sum() / 6) for other in np.delete(every, i, 0))
        assert found.distance[i] == pytest.approx(away[1])
    assert found.core[0] == found.distance.argmin()


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_densest__takes_few(n):
    every = np.random.default_rng(n).normal(size=(n, 3, 2, 2))
    core = densest(every, 50).core
    assert 1 <= len(core) <= n


# ------------------------------------------------------------------ of a store


@pytest.fixture(scope="module", params=[2, 3])
def posed(request, tmp_path_factory):
    store = str(tmp_path_factory.mktemp(f"posed{request.param}") / "study.zarr")
    return store, *write_posed(store, n_space=request.param)


def naive_window(found, common, onset, before, after):
    """Poses around an onset, frame after frame."""
    loading, mean = common["loading"], common["mean"]
    angle, middle = float(found["heading"][onset]), found["centroid"][onset].astype(float)
    poses = []
    for t in range(onset - before, onset + after + 1):
        pose = mean + np.tensordot(found["latent"][t].astype(float), loading, 1)
        turn, back = (rotation(a, mean.shape[1]) for a in (float(found["heading"][t]), -angle))
        world = found["centroid"][t].astype(float) + pose @ turn.T
        poses.append((world - middle) @ back.T)
    return np.array(poses)


def rotation(angle, n_space):
    matrix = np.eye(n_space)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def test_trajectories__are_the_poses_seen_from_the_animal(posed):
    store, study, sessions = posed
    found = kpms_zarr.trajectories(store, model="m", pre=0.2, post=0.4, bouts=5)
    assert found.sizes["time"] == 19
    assert found["time"].values[6] == 0
    assert found["trajectory"].dims == ("syllable", "time", "keypoint", "space")
    assert found.sizes["space"] == study.n_space
    n_checked = 0
    for state in range(3):
        for bout in range(int(found["n_examples"][state])):
            one = found.isel(syllable=state, bout=bout)
            name, onset = str(one["session"].values), int(one["onset_frame"])
            labels = sessions[name]["syllable"]
            assert labels[onset] == state != labels[onset - 1]
            expected = naive_window(sessions[name], sessions["#"], onset, 6, 12)
            np.testing.assert_allclose(one["example"].values, expected, atol=2e-3)
            n_checked += 1
    assert n_checked == 15
    n = sum(int((row["syllable"][1:] != row["syllable"][:-1]).sum())
            for name, row in sessions.items() if name != "#")  # fmt: skip
    assert 0.9 * n < int(found["n_bouts"].sum()) <= n
    assert (found["n_core"] <= 51).all()
    middle = found["spread"].sel(quantile=0.5)
    assert (found["spread"].sel(quantile=0.1) <= middle).all()
    assert (middle <= found["spread"].sel(quantile=0.9)).all()


@settings(deadline=None, max_examples=examples(15))
@given(block=st.integers(40, 2000), seed=st.integers(0, 3), candidates=st.integers(1, 60))
def test_trajectories__do_not_depend_on_blocks(posed_flat, block, seed, candidates):
    given_ = {"model": "m", "seed": seed, "candidates": candidates, "post": 0.3}
    one = kpms_zarr.trajectories(posed_flat, **given_)
    two = kpms_zarr.trajectories(posed_flat, **given_, block_frames=block)
    assert one.identical(two)
    assert (one["n_candidates"] <= candidates).all()


@pytest.fixture(scope="module")
def posed_flat(tmp_path_factory):
    store = str(tmp_path_factory.mktemp("flat") / "study.zarr")
    write_posed(store, n_space=2)
    return store


def test_trajectories__keep_to_epochs_and_sessions(posed_flat):
    name = kpms_zarr.info(posed_flat).sessions[0].name
    table = {name: np.repeat(["a", "b"], [750, 750])}
    found = kpms_zarr.trajectories(
        posed_flat, model="m", sessions=[name], epochs=table, bouts=60, pre=0.5, post=1.0
    )
    onset = found["onset_frame"].values
    onset = onset[onset >= 0]
    assert set(np.unique(found["session"].values)) <= {name, ""}
    assert len(onset) > 30
    assert not ((onset + 30 >= 750) & (onset - 15 < 750)).any()
    assert ((onset >= 15) & (onset + 30 < 1500)).all()


def test_trajectories__other_frame_rates_are_interpolated():
    grid = TimeGrid(0.2, 0.4, [30, 30, 60])
    assert grid.rate == 30
    before, after = grid.margins(60)
    assert (before, after) == (12, 24)
    at = np.arange(-before, after + 1) / 60
    np.testing.assert_allclose(grid.resample(at[None], 60, 1)[0], grid.times, atol=1e-12)
    before, after = grid.margins(25)
    at = np.arange(-before, after + 1) / 25
    np.testing.assert_allclose(grid.resample(2 * at, 25, 0), 2 * grid.times, atol=1e-12)


def test_trajectories__find_what_was_planted(tmp_path):
    """A third of the bouts of syllable 0 goes one way; density finds them, chance does not."""
    store, n = str(tmp_path / "study.zarr"), 4000
    study = SyntheticStudy(lengths=(n,), n_keypoints=4)
    write_store(store, study)
    rng = np.random.default_rng(1)
    syllable = bouts_of(rng, n, 2, mean=20, least=12)
    starts = np.append(0, np.flatnonzero(np.diff(syllable)) + 1)
    step = rng.normal(0, 3, (n, 2))
    is_planted = {}
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        is_planted[int(start)] = syllable[start] == 0 and rng.random() < 0.35
        if is_planted[int(start)]:
            step[start:stop] = np.array([5, 0]) + rng.normal(0, 0.2, (stop - start, 2))
    sessions = {study.session_names[0]: {
        "syllable": syllable, "latent": rng.normal(0, 0.1, (n, 1)).astype(np.float32),
        "centroid": step.cumsum(0).astype(np.float32), "heading": np.zeros(n, np.float32),
    }}  # fmt: skip
    mean = np.array([[-20.0, 0], [-5, 0], [5, 0], [20, 0]])
    publish_posed(store, study, "m", sessions, loading=rng.normal(size=(1, 4, 2)), mean=mean)
    found = kpms_zarr.trajectories(store, model="m", syllables=[0], pre=0, post=0.33, bouts=20)
    chosen = found["onset_frame"].values[0]
    share = np.mean([is_planted[int(onset)] for onset in chosen[chosen >= 0]])
    every = [one for start, one in is_planted.items() if syllable[start] == 0]
    assert share > 0.9 > 0.6 > np.mean(every)  # the last is what chance has
    way = found["trajectory"].values[0, -1].mean(0)
    np.testing.assert_allclose(way, [50, 0], atol=3)
    wide = found["spread"].sel(quantile=[0.1, 0.9]).values[:, 0, -1, :, 1].mean(1)
    assert wide[1] - wide[0] > 10  # of all bouts, not of those that are alike


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "other"}, "fitted model"),
        ({"pre": -1}, "before the onset"),
        ({"post": 0.0}, "before the onset"),
        ({"post": float("nan")}, "before the onset"),
        ({"bouts": 0}, "`bouts=`"),
        ({"candidates": 2.5}, "`candidates=`"),
        ({"neighbours": 0, "bouts": -1}, "`neighbours=`"),
        ({"seed": -1}, "`seed=`"),
        ({"syllables": [99]}, "99"),
        ({"syllables": []}, "none"),
        ({"min_duration": -1}, "`min_duration=`"),
        ({"sessions": ["nobody"]}, "nobody"),
    ],
)
def test_trajectories__refuse_what_cannot_be(posed_flat, options, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.trajectories(posed_flat, **{"model": "m", **options})


def test_trajectories__say_what_is_not_there(posed_flat):
    found = kpms_zarr.trajectories(posed_flat, model="m", min_duration=30)
    assert found["n_candidates"].values.tolist() == [0, 0, 0]
    assert np.isnan(found["trajectory"]).all()
    assert "3 syllables" in found.attrs["notes"][-1]


def test_trajectories__need_poses(tmp_path):
    from helpers.labels import publish_labels

    store = str(tmp_path / "study.zarr")
    study = SyntheticStudy(lengths=(300,), n_keypoints=4)
    write_store(store, study)
    publish_labels(store, study, "m", {study.session_names[0]: np.zeros(300, np.int16)})
    with pytest.raises(InputError, match="denoised poses"):
        kpms_zarr.trajectories(store, model="m")
