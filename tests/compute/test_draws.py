"""Averaged labels: the commonest of some draws, how common it is, and the second choice."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import kpms_zarr
from helpers.amount import examples
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.runs.plan import Needs
from kpms_zarr.compute.sampler import draws
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.draws import (
    MOST_DRAWS,
    AveragedLabels,
    DrawSchedule,
    LabelDraws,
    commonest,
)
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.05, lengths=(700, 2, 260, 410)
)
CONFIG = replace(SMALL, sweeps=9)


# ------------------------------------------------------------------ the commonest label


def choices_of(labels: list[int]) -> tuple[int, float, int, float]:
    """Naive oracle for one frame."""
    real = [label for label in labels if label >= 0]
    if not real:
        return -1, np.nan, -1, np.nan
    ranked = sorted(Counter(real).items(), key=lambda item: (-item[1], item[0]))
    second, number = ranked[1] if len(ranked) > 1 else (-1, 0)
    return ranked[0][0], ranked[0][1] / len(real), second, number / len(real)


LABELS = st_numpy.arrays(
    np.int16, st.tuples(st.integers(1, 20), st.integers(1, 9)), elements=st.integers(-1, 4)
)


@settings(deadline=None, max_examples=examples(300))
@given(LABELS)
def test_commonest__is_that_of_frames_one_by_one(labels):
    found = commonest(labels)
    expected = [choices_of(row) for row in labels.tolist()]
    for ours, naive in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(ours, naive)


def test_commonest__of_missing_draws_counted_as_labels_would_not_pass():
    """The wrong twin: a session that ended earlier has fewer draws, not draws without a label."""
    labels = np.array([[2, -1, -1, -1]], np.int16)
    assert commonest(labels).share[0] == 1
    assert commonest(labels - labels.min()).share[0] == 0.75


# ------------------------------------------------------------------ which sweeps are kept


@settings(deadline=None, max_examples=examples(300))
@given(n_sweeps=st.integers(1, 400), data=st.data())
def test_schedule__keeps_the_last_sweep_and_others_evenly_before_it(n_sweeps, data):
    schedule = DrawSchedule(n_sweeps, data.draw(st.integers(1, n_sweeps)))
    kept = [done for done in range(1, n_sweeps + 1) if schedule.slot(done) is not None]
    assert [schedule.slot(done) for done in kept] == list(range(schedule.n_draws))
    assert kept[-1] == n_sweeps
    assert kept[0] > n_sweeps - schedule.n_averaged
    assert set(np.diff(kept)) <= {schedule.every}
    assert schedule.n_draws <= MOST_DRAWS
    for done in range(n_sweeps + 1):
        assert schedule.n_kept(done) == sum(sweep <= done for sweep in kept)


def test_schedule__averages_half_of_the_last_stage_at_most():
    assert kpms_zarr.FitConfig().n_averaged == 100
    assert kpms_zarr.FitConfig(sweeps=50).n_averaged == 25
    assert kpms_zarr.FitConfig(sweeps=1).n_averaged == 1
    assert kpms_zarr.FitConfig(average_sweeps=1).n_averaged == 1


# ------------------------------------------------------------------ where draws lie


@pytest.mark.parametrize("home", ["host", "disk", "device"])
@pytest.mark.parametrize("n_states", [20, 300])
def test_draws__are_read_as_they_were_kept(home, n_states, tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "_FRAMES_AT_ONCE", 7)  # blocks that end within sessions
    index = ChainIndex.of([Session("a", 0, 30, 30.0), Session("b", 1, 11, 30.0)], 3)
    kept = LabelDraws(index, 5, n_states, home=home, scratch=str(tmp_path))
    rng = np.random.default_rng(0)
    with Chain(index, n_latent=2, n_space=2, dtype="float32", home="host", draws=kept) as chain:
        expected = []
        for slot in range(4):
            chain.syllable[0:41] = rng.integers(-1, n_states, 41)
            which = np.array([True, slot != 1])
            kept.keep(chain, slot, which)
            expected.append(np.where(np.repeat(which, [30, 11]), chain.syllable[0:41], -1))
        expected = np.stack(expected, 1)
        np.testing.assert_array_equal(kept.read(0, 41), expected)
        np.testing.assert_array_equal(kept.read(5, 9, np.array([3, 0])), expected[5:9][:, [3, 0]])
        np.testing.assert_array_equal(AveragedLabels(chain)[3:38], commonest(expected).state[3:38])
        # States that are merged are so in the draws, too.
        target = np.arange(n_states)
        target[:9] = 0
        chain.relabel(target)
        merged = np.append(target, -1)[expected]
        np.testing.assert_array_equal(kept.read(0, 41), merged)
        kept.write(0, expected)
        found = [part.share for part in AveragedLabels(chain).of_session(1)]
        assert len(found) == 2
        np.testing.assert_array_equal(np.concatenate(found), commonest(expected[30:]).share)


# ------------------------------------------------------------------ what a fit publishes


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("draws") / "study.zarr"
    synthetic.write_store(path, STUDY)
    kpms_zarr.pca(path)
    return path


@pytest.mark.parametrize("stage", ["ar", "both"])
def test_fit__publishes_the_commonest_label_of_its_last_sweeps(store, monkeypatch, stage):
    kept = []
    keep = LabelDraws.keep

    def watched(self, chain, slot, which=None):
        keep(self, chain, slot, which)
        kept.append(np.array(chain.syllable[0 : chain.index.n_frames]))

    monkeypatch.setattr(LabelDraws, "keep", watched)
    kpms_zarr.fit(store, model=f"m_{stage}", config=replace(CONFIG, stage=stage))
    assert len(kept) == 4
    labels = kpms_zarr.open_labels(store, f"m_{stage}").load()
    expected = commonest(np.stack(kept, 1))
    first, lags = 0, CONFIG.lags
    number: dict[int, int] = {}
    for row, n_frames in enumerate(STUDY.lengths):
        own = slice(first + lags, first + n_frames)
        of_session = labels.isel(session=row, frame=slice(lags, n_frames))
        syllable, second = of_session["syllable"].values, of_session["second_syllable"].values
        for state, found in zip(expected.state[own], syllable, strict=True):
            assert number.setdefault(int(state), int(found)) == found
        for state, found in zip(expected.second[own], second, strict=True):
            assert number.setdefault(int(state), int(found)) == found
        np.testing.assert_allclose(of_session["certainty"], expected.share[own], atol=1 / 256)
        np.testing.assert_allclose(
            of_session["second_certainty"], expected.second_share[own], atol=1 / 256
        )
        first += n_frames
    assert len(set(number.values())) == len(number)
    real = labels["certainty"].values[np.isfinite(labels["certainty"].values)]
    assert real.min() < 1  # something was not certain
    assert (np.diff(labels["frequency"].values) <= 0).all()
    # Wrong twin: the last draw alone is something else.
    assert not np.array_equal(kept[-1], expected.state)


def test_fit__of_one_draw_has_no_second_choice(store):
    kpms_zarr.fit(store, model="one", config=replace(CONFIG, average_sweeps=1))
    labels = kpms_zarr.open_labels(store, "one")
    assert "second_syllable" not in labels
    assert "certainty" in labels


def test_fit__without_certainty_has_averaged_labels_and_no_shares(store):
    kpms_zarr.fit(store, model="bare", config=replace(CONFIG, certainty=False))
    kpms_zarr.fit(store, model="whole", config=CONFIG)
    bare, whole = (kpms_zarr.open_labels(store, name).load() for name in ("bare", "whole"))
    assert not {"certainty", "second_syllable", "second_certainty"} & set(bare)
    np.testing.assert_array_equal(bare["syllable"], whole["syllable"])


def test_plan__counts_a_byte_for_each_draw(store):
    def row(**settings):
        config = replace(CONFIG, **settings)
        sessions = [Session("a", 0, 100, 30.0)]
        index = ChainIndex.of(sessions, 3)
        needs = Needs(index=index, config=config, n_latent=3, n_keypoints=6, n_space=2)
        return needs.draws_row

    assert row() == 4
    assert row(sweeps=200) == 50
    assert row(sweeps=200, n_states=200) == 100
    assert row(average_sweeps=1) == 0
