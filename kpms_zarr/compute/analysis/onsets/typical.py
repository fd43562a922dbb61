"""Which trajectories of a syllable are typical: those where they lie densest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist


class Densest(NamedTuple):
    """Trajectories where those of a syllable lie densest.

    Attributes
    ----------
    core : ndarray, (core,) int64
        The one whose neighbours are nearest, and then these, the nearest first.
    distance : ndarray, (trajectory,) float64
        Of each to the last of its own so many neighbours, root mean square over keypoints and
        times: the smaller, the denser.
    """

    core: np.ndarray
    distance: np.ndarray


def densest(trajectories: np.ndarray, neighbours: int) -> Densest:
    """Find the densest trajectories by the distance to the k-th nearest neighbour.

    The density at a point is taken as inverse to that distance (Loftsgaarden and Quesenberry 1965,
    Ann Math Stat 36:1049). k is ``neighbours``, or a quarter of the others where these are few, so
    that what is denser than the rest may be as little as that.

    Parameters
    ----------
    trajectories : ndarray, (trajectory, time, keypoint, space)
        At least one, none missing.
    neighbours : int
    """
    n = len(trajectories)
    points = trajectories.reshape(n, -1).astype(np.float64)
    between = cdist(points, points) / np.sqrt(np.prod(trajectories.shape[1:3]))
    k = number_of_neighbours(n, neighbours)
    nearest = np.sort(between, axis=1)[:, k] if n > 1 else np.zeros(1)
    center = int(nearest.argmin())
    order = np.argsort(between[center], kind="stable")
    core = np.append(center, order[order != center][:k])
    return Densest(core, nearest)


def number_of_neighbours(n: int, neighbours: int) -> int:
    """Neighbours that the density of n trajectories is taken from."""
    return int(min(neighbours, max(1, -(-(n - 1) // 4)), max(0, n - 1)))
