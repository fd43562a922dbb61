"""Simulated sessions of close pairs: draws of the model, with as much missing as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.close_pairs import LAGS, ClosePairs, TrueParameters

STUDY = ClosePairs(lengths=(20_000, 300), seed=3)


@pytest.fixture(scope="module")
def session():
    return STUDY.session(0)


def innovations(latent: np.ndarray, syllable: np.ndarray, truth: TrueParameters) -> np.ndarray:
    """Innovations in units of their standard deviations: (frame, latent)."""
    past = np.concatenate([latent[i : len(latent) - LAGS + i] for i in range(LAGS)], 1)
    z = syllable[LAGS:]
    error = latent[LAGS:] - np.einsum("tij,tj->ti", truth.weight[z], past) - truth.bias[z]
    root = np.linalg.cholesky(truth.covariance)
    found: np.ndarray = np.linalg.solve(root[z], error[..., None])[..., 0]
    return found


def test_latent_pose__is_drawn_from_the_dynamics_that_are_told(session):
    found = innovations(session.latent, session.syllable, STUDY.truth)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(found.T), np.eye(4), atol=0.05)
    lagged = np.concatenate([found[1:-1], found[:-2]], 1)
    assert np.abs(found[2:].T @ lagged / len(lagged)).max() < 0.05
    # Wrong twins: every syllable taken for the other of its pair, labels one frame late.
    swapped = innovations(session.latent, session.syllable ^ 1, STUDY.truth)
    assert np.cov(swapped.T).trace() / 4 > 1.2
    late = innovations(session.latent, np.roll(session.syllable, 1), STUDY.truth)
    assert np.cov(late.T).trace() / 4 > 1.1


def test_syllables__follow_the_transitions_that_are_told(session):
    z = session.syllable[LAGS:].astype(int)
    counts = np.zeros((24, 24))
    np.add.at(counts, (z[:-1], z[1:]), 1)
    np.testing.assert_allclose(STUDY.truth.transition.sum(1), 1)
    stays = np.trace(counts) / counts.sum()
    assert stays == pytest.approx(1 - 1 / 12, abs=0.005)
    hop = (z[1:] - z[:-1]) % 24
    shares = np.bincount(hop[hop > 0], minlength=24) / (hop > 0).sum()
    told = STUDY.truth.transition[0] * 12
    np.testing.assert_allclose(shares[1:], told[1:], atol=0.03)
    assert shares.max() > 0.1  # which syllable follows is not a matter of chance


def test_pairs__of_speed_share_path_and_spread(session):
    truth, m = STUDY.truth, STUDY.n_latent
    speed_pairs = np.arange(0, 12, 2)
    one, two = truth.weight[:, :, -m:], truth.weight[:, :, m : 2 * m]
    target = np.linalg.solve(np.eye(m) - one - two, truth.bias[..., None])[..., 0]
    np.testing.assert_allclose(target[speed_pairs], target[speed_pairs + 1])
    assert (np.abs(target[12::2] - target[13::2]).max(1) > 0.02).all()
    # Roots of the oscillations: those of the faster one are powers of those of the slower.
    for slow in speed_pairs:
        roots = []
        for state in (slow, slow + 1):
            both = np.block([[np.zeros((m, m)), np.eye(m)], [two[state], one[state]]])
            found = np.linalg.eigvals(both)
            found = np.log(found[found.imag > 0])
            roots.append(found[np.argsort(found.real)])
        np.testing.assert_allclose(roots[1], roots[0] * STUDY.speed, rtol=1e-6)


def test_keypoints__are_missing_and_outlying_as_often_as_asked_for(session):
    is_missing = np.isnan(session.position[..., 0])
    assert is_missing.mean() == pytest.approx(0.6, abs=0.03)
    assert (session.confidence[is_missing] == 0).all()
    assert (~is_missing).all(1).mean() == pytest.approx(0.2, abs=0.06)
    low = session.confidence[~is_missing] < 0.5
    assert low.mean() == pytest.approx(0.02, abs=0.005)
    truth = STUDY.truth
    pose = truth.mean + np.tensordot(session.latent, truth.loading, 1)
    error = session.position - rotate(pose, session.heading) - session.centroid[:, None]
    spread = np.nanstd(error[~is_missing][low]) / np.nanstd(error[~is_missing][~low])
    assert spread > 4


def test_sessions__are_the_same_each_time_and_independent_of_the_others():
    other = ClosePairs(lengths=(300, 300), seed=3)
    np.testing.assert_array_equal(other.session(1).position, STUDY.session(1).position)
    assert (other.session(0).syllable != other.session(1).syllable).any()
    complete = ClosePairs(lengths=(300,), missing_fraction=0.0).session(0)
    assert not np.isnan(complete.position).any()
