"""First labels: clusters of the locally averaged latent pose and its velocity (model.md 5.4)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.cluster.vq import vq

from kpms_zarr.compute.kernels.rng import KMEANS, host_generator
from kpms_zarr.compute.sampler.chain import Chain

_HALF_WIDTH = 3
_SAMPLE_FRAMES = 20_000
_ITERATIONS = 20
_BLOCK_FRAMES = 65_536


def label_by_clusters(chain: Chain, n_clusters: int, seed: int) -> None:
    """Give every modelled frame the label of its cluster.

    Centres are fitted on an even sample of frames (k-means++ start, then Lloyd's iterations);
    the labels are assigned block by block.

    Parameters
    ----------
    chain : Chain
        Its ``syllable`` is written.
    """
    stride = max(1, -(-int(chain.index.n_modelled.sum()) // _SAMPLE_FRAMES))
    sample = _every(chain, stride)
    scale = np.maximum(sample.std(0), np.finfo(np.float32).tiny)
    rng = host_generator(seed, 0, KMEANS)
    centres = fit_centres(rng, sample / scale, min(n_clusters, len(sample)))
    for first, features in _features(chain):
        chain.syllable[first : first + len(features)] = vq(features / scale, centres)[0]


def _every(chain: Chain, stride: int) -> np.ndarray:
    """Features of every ``stride``-th modelled frame, counted across sessions."""
    found, seen = [], 0
    for _, features in _features(chain):
        # A copy: a view would keep the whole block.
        found.append(features[-seen % stride :: stride].copy())
        seen += len(features)
    return np.concatenate(found)


def fit_centres(rng: np.random.Generator, points: np.ndarray, n_clusters: int) -> np.ndarray:
    """Centres of k-means clusters: points (point, feature) -> (cluster, feature).

    Arthur and Vassilvitskii (2007) for the start; a centre that loses all its points stays.
    """
    chosen = [points[rng.integers(len(points))]]
    distance = ((points - chosen[0]) ** 2).sum(-1)
    for _ in range(n_clusters - 1):
        cumulative = np.cumsum(distance)
        if cumulative[-1] == 0:  # fewer distinct points than clusters
            break
        pick = np.searchsorted(cumulative, (1 - rng.random()) * cumulative[-1])
        chosen.append(points[min(pick, len(points) - 1)])
        distance = np.minimum(distance, ((points - chosen[-1]) ** 2).sum(-1))
    centres = np.stack(chosen)
    for _ in range(_ITERATIONS):
        label, _ = vq(points, centres)
        count = np.bincount(label, minlength=len(centres))
        total = np.stack(
            [np.bincount(label, column, minlength=len(centres)) for column in points.T], -1
        )
        centres = np.where(count[:, None] > 0, total / np.maximum(1, count)[:, None], centres)
    return centres


def _features(chain: Chain) -> Iterator[tuple[int, np.ndarray]]:
    """Local mean and slope over +-3 frames of every modelled frame, by blocks.

    Yields (first frame in the flat arrays, (frame, 2 latent) float64).
    """
    index = chain.index
    for origin, length in zip(index.first, index.length, strict=True):
        for start in range(index.lags, int(length), _BLOCK_FRAMES):
            stop = min(start + _BLOCK_FRAMES, int(length))
            # Beyond the ends of a session its first and last frames repeat.
            rows = np.arange(start - _HALF_WIDTH, stop + _HALF_WIDTH)
            low, high = max(0, start - _HALF_WIDTH), min(int(length), stop + _HALF_WIDTH)
            block = np.asarray(chain.latent[origin + low : origin + high], np.float64)
            x = block[np.clip(rows, low, high - 1) - low]
            yield int(origin) + start, _local_mean_and_slope(x)


def _local_mean_and_slope(x: np.ndarray) -> np.ndarray:
    offsets = np.arange(-_HALF_WIDTH, _HALF_WIDTH + 1)
    n = len(x) - 2 * _HALF_WIDTH
    shifted = [x[_HALF_WIDTH + d : _HALF_WIDTH + d + n] for d in offsets]
    mean = sum(shifted) / len(offsets)
    slope = sum(d * s for d, s in zip(offsets, shifted, strict=True)) / (offsets**2).sum()
    return np.concatenate([mean, slope], -1)
