"""States that rest: which, in which sweeps, and the same bits however a fit is interrupted."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.events import SweepEnded
from kpms_zarr.compute.runs import stages
from kpms_zarr.compute.sampler.resting import ALL_EVERY, choosing_sweeps, states_drawn
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.05, lengths=(700, 260, 410)
)
CONFIG = replace(SMALL, n_states=20, ar_sweeps=10, merge_sweeps=4, sweeps=5)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("resting") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


@pytest.fixture
def asked(monkeypatch) -> list[tuple[int, np.ndarray, np.ndarray | None]]:
    """For each sweep: its number in the stage, states that shall not rest, states drawn."""
    found: list[tuple[int, np.ndarray, np.ndarray | None]] = []

    def noted(has_frames: np.ndarray, step: int) -> np.ndarray | None:
        states = states_drawn(has_frames, step)
        found.append((step, has_frames, states))
        return states

    monkeypatch.setattr(stages, "states_drawn", noted)
    monkeypatch.setattr(stages, "FEWEST_FRAMES", {"ar": 0, "full": 0})
    return found


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(0, 30))
def test_states__all_that_may_not_rest_and_half_at_most(has_frames, step):
    used = np.array(has_frames)
    found = states_drawn(used, step)
    if found is None:
        assert step % ALL_EVERY == 0 or used.sum() > len(used) / 4 or len(used) < 16
        return
    assert step % ALL_EVERY
    assert (np.diff(found) > 0).all()
    assert set(np.flatnonzero(used)) <= set(found)
    assert found.max() < len(used)
    assert len(found) in (8, 12, 16, 24, 32, 48, 64, 96, 128)
    assert len(found) <= len(used) / 2


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_choosing__ends_with_a_sweep_among_all_after_the_last_merge(n_sweeps, merge_sweeps):
    found = choosing_sweeps(n_sweeps, merge_sweeps)
    assert (found - 1) % ALL_EVERY == 0
    assert merge_sweeps < found
    assert found <= max(n_sweeps // 5, merge_sweeps) + ALL_EVERY


def fitted(original: Path, store: Path, *stops: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and usage after each sweep of a fit that is interrupted after some sweeps."""
    shutil.copytree(original, store)
    for number, stop in enumerate([*stops, 0]):

        def at(event: object, stop: int = stop) -> None:
            if isinstance(event, SweepEnded) and event.sweep == stop:
                raise ZeroDivisionError

        try:
            kpms_zarr.fit(
                store, model="m", config=CONFIG, callbacks=[at], resume=number > 0, save_every=1
            )
        except ZeroDivisionError:
            continue
    labels = kpms_zarr.open_labels(store, "m")["syllable"].values
    return labels, kpms_zarr.open_parameters(store, "m")["trace_usage"].values


@pytest.mark.slow
def test_fit__draws_among_states_with_frames_and_has_the_same_bits_when_interrupted(
    original, tmp_path, asked
):
    labels, usage = fitted(original, tmp_path / "quiet.zarr")
    steps = [step for step, *_ in asked]
    assert steps == [*range(1, 10), *range(5)]  # nothing is known before the first sweep
    n_choosing = {"ar": choosing_sweeps(10, 4), "full": choosing_sweeps(5, 0)}
    assert n_choosing == {"ar": 6, "full": 6}
    for i, (step, has_frames, states) in enumerate(asked, 1):
        stage, first = ("ar", 0) if i < 10 else ("full", 10)
        at = first + min(step, n_choosing[stage]) - 1  # the sweep after which these had frames
        if step and not (stage == "ar" and step == 4):  # not right after a merge
            assert has_frames.sum() == (usage[at] > 0).sum()
        if states is not None and step <= n_choosing[stage]:
            assert (usage[i] > 0).sum() <= len(states)  # none comes that was not drawn
    assert sum(states is not None for *_, states in asked) >= 5
    again = fitted(original, tmp_path / "stopped.zarr", 2, 7, 9, 13)
    np.testing.assert_array_equal(again[0], labels)
    np.testing.assert_array_equal(again[1], usage)
