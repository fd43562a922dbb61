"""Agreement of two labellings of the same frames."""

from __future__ import annotations

import numpy as np


def contingency(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Frames by (label of a, label of b), without those that either leaves unlabelled (-1)."""
    both = (a >= 0) & (b >= 0)
    a, b = a[both].astype(np.int64), b[both].astype(np.int64)
    width = int(b.max(initial=-1)) + 1
    height = int(a.max(initial=-1)) + 1
    return np.bincount(a * width + b, minlength=height * width).reshape(height, width)


def adjusted_rand_index(a: np.ndarray, b: np.ndarray) -> float:
    """Hubert and Arabie (1985): 1 for equal partitions, 0 on average for unrelated ones."""
    table = contingency(a, b).astype(np.float64)
    cells, rows, columns = (_pairs(v).sum() for v in (table, table.sum(1), table.sum(0)))
    expected = rows * columns / max(1.0, _pairs(table.sum()))
    most = (rows + columns) / 2
    return float((cells - expected) / (most - expected)) if most != expected else 1.0


def normalized_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information over the mean of the two entropies."""
    p = contingency(a, b) / max(1, contingency(a, b).sum())
    entropies = _entropy(p.sum(1)) + _entropy(p.sum(0))
    if entropies == 0:
        return 1.0
    return float(2 * (entropies - _entropy(p.ravel())) / entropies)


def _pairs(n: np.ndarray) -> np.ndarray:
    return n * (n - 1) / 2


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
