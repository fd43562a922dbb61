"""Example bouts and their aligned poses, against loops over frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model import models
from kpms_zarr.store.model.reconstruction import reconstruct
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables import examples
from kpms_zarr.viz.syllables.examples import PoseReader, examples_in


def find_examples(store, *, model, syllables=None, **options):
    """Find examples of the syllables of a model, by default of those in use."""
    opened = OpenModel(store, model)
    return examples_in(
        opened.labels, syllables=opened.used if syllables is None else syllables, **options
    )


def aligned(store, *, model, example, before, after):
    return PoseReader(OpenModel(store, model)).aligned(example, before, after)


def all_bouts(labels: list[np.ndarray], helpers) -> set[tuple[int, int, int, int]]:
    """Naive: (syllable, session, onset, stop) of every bout."""
    found = set()
    for session, row in enumerate(labels):
        start = 0
        for state, n in zip(*helpers.runs(row), strict=True):
            found.add((int(state), session, start, start + int(n)))
            start += int(n)
    return found


def test_find_examples__are_bouts_whose_window_lies_inside(store, labels, helpers):
    fps = helpers.study.fps
    found = find_examples(store, model="m", per_syllable=10_000, before=0.4, after=1.0)
    wanted = {
        bout
        for bout in all_bouts(labels, helpers)
        if bout[0] in found
        and bout[3] - bout[2] >= 0.1 * fps
        and bout[2] >= round(0.4 * fps)
        and bout[2] + round(1.0 * fps) < len(labels[bout[1]])
    }
    every = {
        (state, one.session.index, one.onset, one.stop) for state in found for one in found[state]
    }
    assert every == wanted
    assert sum(map(len, found.values())) == len(wanted)
    assert len(wanted) > 100


def test_find_examples__few_are_spread_over_the_sessions_and_the_same_again(store):
    found = find_examples(store, model="m", per_syllable=6)
    for bouts in found.values():
        sessions = [one.session.index for one in bouts]
        assert len(bouts) == 6
        assert sorted(map(sessions.count, range(3))) == [2, 2, 2]
    assert find_examples(store, model="m", per_syllable=6) == found
    assert find_examples(store, model="m", per_syllable=6, seed=1) != found


def test_find_examples__answers_for_every_syllable_that_was_asked_for(store, helpers):
    unused = helpers.n_states - 1
    found = find_examples(store, model="m", syllables=[2, unused])
    assert list(found) == [2, unused]
    assert found[unused] == ()
    assert find_examples(store, model="m", syllables=[2], min_duration=1e6) == {2: ()}


def test_find_examples__bouts_cut_by_a_block_are_none(store, labels, helpers, monkeypatch):
    """Where a block begins or ends inside a bout, its onset or end is not known."""
    monkeypatch.setattr(examples, "LABEL_FRAMES_PER_CHUNK", 100)
    found = find_examples(store, model="m", per_syllable=10_000, before=0, after=0, min_duration=0)
    real = all_bouts(labels, helpers)
    every = {(s, one.session.index, one.onset, one.stop) for s in found for one in found[s]}
    assert every <= real
    assert not [bout for bout in every if bout[2] // 100 != (bout[3] - 1) // 100]
    assert len(every) > 50


def test_find_examples__reads_a_bounded_number_of_blocks(store, monkeypatch):
    monkeypatch.setattr(examples, "LABEL_FRAMES_PER_CHUNK", 10)
    read = []
    monkeypatch.setattr(
        examples, "_bouts", lambda s, block, *a: read.append(block) or original(s, block, *a)
    )
    find_examples(store, model="m", per_syllable=10_000)
    assert len(read) == len(set(read)) == examples._MOST_BLOCKS
    assert {block.session for block in read} == {0, 1, 2}


original = examples._bouts


def test_aligned__is_the_denoised_pose_seen_from_the_animal(two_stages):
    example = find_examples(two_stages, model="two")[0][0]
    labels = models.open_labels(two_stages, "two")
    position = reconstruct(two_stages, "two", example.session.name).values.astype(float)
    fps, row = example.session.fps, example.session.index
    before, after = round(0.2 * fps), round(0.5 * fps)
    pose = aligned(two_stages, model="two", example=example, before=0.2, after=0.5)
    centroid = labels["centroid"].values[row, example.onset]
    angle = float(labels["heading"].values[row, example.onset])
    assert len(pose) == before + after + 1
    for i, frame in enumerate(range(example.onset - before, example.onset + after + 1)):
        for keypoint in range(pose.shape[1]):
            x, y = (position[frame, keypoint] - centroid)[:2]
            wanted = (
                x * np.cos(angle) + y * np.sin(angle),
                -x * np.sin(angle) + y * np.cos(angle),
            )
            np.testing.assert_allclose(pose[i, keypoint, :2], wanted, atol=2e-3)


def test_aligned__outside_the_session_is_nan(two_stages):
    example = find_examples(two_stages, model="two")[0][0]
    before = example.onset / example.session.fps + 1
    pose = aligned(two_stages, model="two", example=example, before=before, after=0)
    n_outside = round(before * example.session.fps) - example.onset
    assert np.isnan(pose[:n_outside]).all()
    assert np.isfinite(pose[n_outside:]).all()


def test_sampled__interpolates_between_frames_and_needs_no_more(two_stages):
    reader = PoseReader(OpenModel(two_stages, "two"), chunk_frames=64)  # windows across chunks
    bouts = find_examples(two_stages, model="two")[0][:5]
    fps = bouts[0].session.fps
    times = np.array([-0.2, 0.0, 1.25 / fps, 0.5])
    found = reader.sampled(bouts, times)
    for one, poses in zip(bouts, found, strict=True):
        frames = reader.aligned(one, 1.0, 1.0)
        for time, pose in zip(times, poses, strict=True):
            at = round(1.0 * fps) + time * fps
            low = int(np.floor(at + 1e-9))
            part = at - low
            wanted = frames[low] * (1 - part) + frames[low + 1] * part
            np.testing.assert_allclose(pose, wanted, atol=1e-3)
    assert reader.sampled([], times).shape == (0, 4, 5, 2)


def test_sampled__animals_of_different_size_are_brought_to_one(two_stages):
    reader = PoseReader(OpenModel(two_stages, "two"))
    bouts = find_examples(two_stages, model="two")[0][:4]
    before = reader.sampled(bouts, np.array([0.0]))
    reader.pose = replace(reader.pose, scale=reader.pose.scale * np.array([1.0, 3.0]))
    after = reader.sampled(bouts, np.array([0.0]))
    # At the onset the pose is scale times a shape; the median of scale 1 and 3 is 2.
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4)


def test_poses__labels_without_say_so(store):
    with pytest.raises(MissingData, match="latent"):
        PoseReader(OpenModel(store, "m"))


def test_block_order__goes_through_the_sessions_in_turn(store):
    sessions = access.sessions(store)
    order = examples._block_order(sessions, np.random.default_rng(0))
    assert sorted(order) == sorted(iter_blocks(sessions, examples.LABEL_FRAMES_PER_CHUNK))
