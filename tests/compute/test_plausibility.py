"""Keypoints that the others do not predict: equal to a dense Gaussian, wherever the animal is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.tracking.plausibility import (
    PoseDistribution,
    _free,
    _Predictor,
    judge,
    learn,
)
from kpms_zarr.store.rotation import rotate

N_POINTS = 7


def poses(n_frames: int, *, n_space: int = 2, seed: int = 0) -> np.ndarray:
    """A rod of seven points that bends in three ways, about one long, along +x."""
    rng = np.random.default_rng(seed)
    base = np.zeros((N_POINTS, n_space))
    base[:, 0] = np.linspace(-0.5, 0.5, N_POINTS)
    ways = np.random.default_rng(1).normal(size=(3, N_POINTS, n_space)) * 0.06
    found = base + np.tensordot(rng.normal(size=(n_frames, 3)), ways, 1)
    return found + rng.normal(size=found.shape) * 0.005


def anywhere(pose: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same poses, each turned and moved in its own way."""
    rng = np.random.default_rng(seed)
    turned = rotate(pose, rng.uniform(-np.pi, np.pi, len(pose)))
    return turned + rng.normal(size=(len(pose), 1, pose.shape[-1])) * 10


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def model(request) -> PoseDistribution:
    pose = poses(3000, n_space=request.param)
    every = np.ones(pose.shape[:2], bool)
    return learn(pose, every, scale=6.0, smallest=0.02, is_turning=True)


def space_of(model: PoseDistribution) -> int:
    return model.mean.shape[1]


# ------------------------------------------------------------------ distances


def test_distances__equal_a_dense_conditional_gaussian(model):
    """Of every keypoint given the kept others, frame by frame, by the textbook formula."""
    rng = np.random.default_rng(2)
    n_space = space_of(model)
    gap = rng.normal(size=(6, N_POINTS, n_space)) * 0.1
    kept = rng.random((6, N_POINTS)) < 0.7
    kept[0], kept[1:, :3] = True, True
    found = _Predictor(model).distances(gap, kept)
    covariance = _free(model).reshape(N_POINTS, n_space, N_POINTS, n_space)
    for frame, point in product(range(6), range(N_POINTS)):
        others = np.flatnonzero(kept[frame] & (np.arange(N_POINTS) != point))
        inside = covariance[others][:, :, others].reshape(len(others) * n_space, -1)
        cross = covariance[point][:, others].reshape(n_space, -1) @ np.linalg.inv(inside)
        left = covariance[point, :, point] - cross @ covariance[others][:, :, point].reshape(
            -1, n_space
        )
        error = gap[frame, point] - cross @ gap[frame, others].ravel()
        assert found[frame, point] == pytest.approx(error @ np.linalg.solve(left, error), rel=1e-3)


# ------------------------------------------------------------------ judging


def judged(pose: np.ndarray, model: PoseDistribution, **kwargs):
    return judge(anywhere(pose), np.isfinite(pose).all(-1), model, **kwargs)


def test_judge__leaves_clean_poses_alone(model):
    found = judged(poses(2000, n_space=space_of(model), seed=3), model)
    assert found.is_clear.mean() > 0.99
    assert found.is_off.mean() < 0.005


@pytest.mark.parametrize("n_bad", [1, 2, 3])
def test_judge__finds_what_is_elsewhere_and_nothing_else(model, n_bad):
    pose = poses(500, n_space=space_of(model), seed=4)
    rng = np.random.default_rng(5)
    bad = rng.permuted(np.tile(np.arange(N_POINTS), (500, 1)), axis=1)[:, :n_bad]
    is_bad = np.zeros(pose.shape[:2], bool)
    np.put_along_axis(is_bad, bad, True, axis=1)
    pose[is_bad] += rng.choice([-1, 1], (is_bad.sum(), 1)) * rng.uniform(0.5, 2, pose[is_bad].shape)
    found = judged(pose, model)
    assert found.is_off[is_bad].mean() > (0.97, 0.84, 0.54)[n_bad - 1]
    assert found.is_off[~is_bad].mean() < 0.01


def test_judge__finds_exchanged_ends(model):
    """Both of them, and not the others, although the heading of the frame is turned round."""
    pose = poses(500, n_space=space_of(model), seed=6)
    pose[:, [0, -1]] = pose[:, [-1, 0]]
    found = judged(pose, model)
    assert found.is_off[:, [0, -1]].mean() > 0.95
    assert found.is_off[:, 1:-1].mean() < 0.02


def test_judge__condemns_no_majority(model):
    """A frame in which nothing fits says nothing about any of its keypoints."""
    rng = np.random.default_rng(7)
    found = judge(rng.normal(size=(300, N_POINTS, space_of(model))),
                  np.ones((300, N_POINTS), bool), model)  # fmt: skip
    assert not found.is_off[~found.is_clear].any()
    assert found.is_off.sum(1).max() <= N_POINTS // 2
    assert found.is_clear.mean() < 0.1


def test_judge__needs_four_keypoints_to_judge_one(model):
    pose = poses(50, n_space=space_of(model), seed=8)
    pose[:, 3:] = np.nan
    pose[:, 0] += 5
    assert not judged(pose, model).is_off.any()


def test_judge__judges_the_doubtful_by_the_trusted(model):
    """A keypoint that is not trusted is judged, and harms no other."""
    pose = poses(200, n_space=space_of(model), seed=9)
    is_trusted = np.ones(pose.shape[:2], bool)
    is_trusted[:, 2] = False
    pose[:100, 2] += 3
    found = judge(anywhere(pose), is_trusted, model)
    assert found.is_off[:100, 2].mean() > 0.95
    assert found.is_off[100:, 2].mean() < 0.05
    assert found.is_off[:, [0, 1, 3, 4, 5, 6]].mean() < 0.01


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.3), cut=st.integers(1, 39))
@settings(max_examples=examples(20), deadline=None)
def test_judge__depends_on_nothing_but_the_frame(model, seed, share, cut):
    """Not on where the animal is, where it looks, nor on the frames beside it."""
    rng = np.random.default_rng(seed)
    pose = poses(40, n_space=space_of(model), seed=seed)
    pose[rng.random(pose.shape[:2]) < share] += 1
    pose[rng.random(pose.shape[:2]) < share / 2] = np.nan
    is_trusted = np.isfinite(pose).all(-1)
    one = judge(anywhere(pose, seed), is_trusted, model).is_off
    parts = [judge(anywhere(pose, seed)[part], is_trusted[part], model).is_off
             for part in (slice(cut), slice(cut, None))]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(parts), one)
    # Turned by a step of the search for the heading, so that it tries the same headings.
    quarter = rotate(anywhere(pose, seed), np.full(40, np.pi / 2)) + 3
    np.testing.assert_array_equal(judge(quarter, is_trusted, model).is_off, one)


# ------------------------------------------------------------------ learning


def test_learn__finds_the_model_of_clean_poses_among_bad_ones():
    """A tenth of the points anywhere, a tenth missing: the same mean and nearly the covariance."""
    pose = poses(4000)
    every = np.ones(pose.shape[:2], bool)
    options = {"scale": 6.0, "smallest": 0.02, "is_turning": True}
    clean = learn(pose, every, **options)
    rng = np.random.default_rng(10)
    is_bad, is_lost = rng.random(every.shape) < 0.1, rng.random(every.shape) < 0.1
    bad = np.where(is_bad[..., None], pose + rng.normal(size=pose.shape) * 0.7, pose)
    found = learn(bad, ~is_lost, **options)
    np.testing.assert_allclose(found.mean, clean.mean, atol=0.02)
    size = 2 * N_POINTS
    a, b = (m.covariance.reshape(size, size) for m in (found, clean))
    assert np.linalg.norm(a - b) < 0.3 * np.linalg.norm(b)
    naive = np.cov(bad.reshape(len(bad), -1).T)
    assert np.linalg.norm(naive - b) > 2 * np.linalg.norm(b)  # the wrong twin


def test_learn__of_poses_that_never_change():
    """Nothing moves: no deviation is 0, so that a small move is no outlier."""
    pose = np.tile(poses(1), (500, 1, 1))
    every = np.ones(pose.shape[:2], bool)
    found = learn(pose, every, scale=6.0, smallest=0.02, is_turning=False)
    assert np.isfinite(found.limit).all()
    moved = pose.copy()
    moved[:, 2] += 0.01
    assert not judge(moved, every, found).is_off.any()
    moved[:, 2] += 0.5
    assert judge(moved, every, found).is_off[:, 2].all()
