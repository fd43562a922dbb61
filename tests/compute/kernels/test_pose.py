"""Pose, rotation and the evidence on the latent pose, against loops over keypoints."""

import jax
import numpy as np
import pytest

from kpms_zarr.compute.kernels import pose
from kpms_zarr.compute.kernels.pose import PoseMap

K, M, T, S = 5, 3, 4, 3
# Compiled, because one by one the operations take longer to compile.
pose_of, rotate, latent_evidence = map(jax.jit, (pose.pose_of, pose.rotate, pose.latent_evidence))


def problem(n_space: int, seed: int = 0) -> tuple[PoseMap, dict[str, np.ndarray]]:
    """Random latents, headings and keypoints, of which a third is missing."""
    rng = np.random.default_rng(seed)
    pose_map = PoseMap(rng.normal(size=(K, n_space, M)), rng.normal(size=(K, n_space)))
    weight = rng.gamma(1.0, size=(K, T, S)) * (rng.random((K, T, S)) > 1 / 3)
    return pose_map, {
        "x": rng.normal(size=(M, T, S)),
        "h": rng.uniform(-4, 4, size=(T, S)),
        "offset": rng.normal(size=(K, n_space, T, S)) * 3,
        "weight": weight,
    }


def turn(n_space: int, angle: float) -> np.ndarray:
    """R(h): from the first axis to the second."""
    matrix = np.eye(n_space)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


@pytest.mark.parametrize("n_space", [2, 3])
def test_pose__equals_the_loop_over_keypoints(n_space):
    pose_map, p = problem(n_space)
    with jax.enable_x64(True):
        found = np.asarray(pose_of(pose_map, p["x"]))
    for k, t, s in np.ndindex(K, T, S):
        wanted = pose_map.loading[k] @ p["x"][:, t, s] + pose_map.mean[k]
        np.testing.assert_allclose(found[k, :, t, s], wanted, rtol=1e-9)


@pytest.mark.parametrize("n_space", [2, 3])
def test_rotate__turns_the_first_two_dims_and_back(n_space):
    _, p = problem(n_space, 1)
    with jax.enable_x64(True):
        found = np.asarray(rotate(p["offset"], p["h"]))
        back = np.asarray(rotate(found, -p["h"]))
    for k, t, s in np.ndindex(K, T, S):
        wanted = turn(n_space, p["h"][t, s]) @ p["offset"][k, :, t, s]
        np.testing.assert_allclose(found[k, :, t, s], wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(back, p["offset"], rtol=1e-9)
    np.testing.assert_array_equal(found[:, 2:], p["offset"][:, 2:])
    # Wrong twin: the other sense of rotation.
    with jax.enable_x64(True):
        assert np.abs(rotate(p["offset"], -p["h"]) - found).max() > 1


@pytest.mark.parametrize("n_space", [2, 3])
def test_latent_evidence__equals_the_loop_over_observed_keypoints(n_space):
    pose_map, p = problem(n_space, 2)
    with jax.enable_x64(True):
        precision, information = map(
            np.asarray, latent_evidence(pose_map, p["weight"], p["offset"], p["h"])
        )
    for t, s in np.ndindex(T, S):
        j, g = np.zeros((M, M)), np.zeros(M)
        for k in range(K):
            if p["weight"][k, t, s] > 0:
                h = turn(n_space, p["h"][t, s])
                map_ = h @ pose_map.loading[k]
                seen = p["offset"][k, :, t, s] - h @ pose_map.mean[k]
                j += p["weight"][k, t, s] * map_.T @ map_
                g += p["weight"][k, t, s] * map_.T @ seen
        np.testing.assert_allclose(precision[:, :, t, s], j, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(information[:, t, s], g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_space", [2, 3])
def test_latent_evidence__is_the_log_likelihood_of_the_keypoints(n_space):
    """Differences over x, with a twin that turns the keypoints the wrong way."""
    pose_map, p = problem(n_space, 3)
    other = np.random.default_rng(4).normal(size=(M, T, S))

    def log_likelihood(x: np.ndarray) -> np.ndarray:
        total = np.zeros((T, S))
        for k, t, s in np.ndindex(K, T, S):
            placed = turn(n_space, p["h"][t, s]) @ (pose_map.loading[k] @ x[:, t, s])
            placed = placed + turn(n_space, p["h"][t, s]) @ pose_map.mean[k]
            e = p["offset"][k, :, t, s] - placed
            total[t, s] -= 0.5 * p["weight"][k, t, s] * e @ e
        return total

    def quadratic(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            j, g = map(np.asarray, latent_evidence(pose_map, p["weight"], p["offset"], h))
        return np.einsum("its,its->ts", g, x) - 0.5 * np.einsum("its,ijts,jts->ts", x, j, x)

    wanted = log_likelihood(p["x"]) - log_likelihood(other)
    found = quadratic(p["x"], p["h"]) - quadratic(other, p["h"])
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    twin = quadratic(p["x"], -p["h"]) - quadratic(other, -p["h"])
    assert np.abs(twin - wanted).max() > 1


def test_latent_evidence__ignores_where_missing_keypoints_are():
    pose_map, p = problem(2, 5)
    moved = np.where(p["weight"][:, None] > 0, p["offset"], 1e6)
    with jax.enable_x64(True):
        found = latent_evidence(pose_map, p["weight"], p["offset"], p["h"])
        again = latent_evidence(pose_map, p["weight"], moved, p["h"])
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a, b)
