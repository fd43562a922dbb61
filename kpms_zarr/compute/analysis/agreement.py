"""Agreement of two labellings of the same frames, from a table of how often labels coincide."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def contingency(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count frames by pair of labels, without those that either labelling leaves out (-1).

    Parameters
    ----------
    a, b : ndarray, (frame,) int

    Returns
    -------
    ndarray, (syllable of a, syllable of b) int64
    """
    both = (a >= 0) & (b >= 0)
    a, b = a[both].astype(np.int64), b[both].astype(np.int64)
    width = int(b.max(initial=-1)) + 1
    height = int(a.max(initial=-1)) + 1
    return np.bincount(a * width + b, minlength=height * width).reshape(height, width)


def adjusted_rand_index(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index of two labellings, (frame,) int; see :func:`rand_index_of`."""
    return rand_index_of(contingency(a, b))


def normalized_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised mutual information of two labellings, (frame,) int; see :func:`information_of`."""
    return information_of(contingency(a, b))


def rand_index_of(table: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985): 1 = equal partitions, 0 = unrelated on average.

    Parameters
    ----------
    table : ndarray, (syllable of a, syllable of b)
        Frames by pair of labels.

    Returns
    -------
    float
        1 where both have one syllable only.
    """
    table = table.astype(np.float64)
    cells, rows, columns = (_pairs(v).sum() for v in (table, table.sum(1), table.sum(0)))
    expected = rows * columns / max(1.0, _pairs(table.sum()))
    most = (rows + columns) / 2
    return float((cells - expected) / (most - expected)) if most != expected else 1.0


def information_of(table: np.ndarray) -> float:
    """Mutual information over the mean of the two entropies: 1 = equal partitions, 0 = unrelated.

    Parameters
    ----------
    table : ndarray, (syllable of a, syllable of b)
        Frames by pair of labels.
    """
    p = table / max(1, table.sum())
    entropies = _entropy(p.sum(1)) + _entropy(p.sum(0))
    if entropies == 0:
        return 1.0
    return float(2 * (entropies - _entropy(p.ravel())) / entropies)


def effective_number(frames: np.ndarray) -> float:
    """Effective number of syllables, exp of the entropy of their usage; NaN without frames.

    Parameters
    ----------
    frames : ndarray, (syllable,)
        Frames of each.
    """
    total = frames.sum()
    return float(np.exp(_entropy(frames / total))) if total else float("nan")


def match_syllables(table: np.ndarray) -> np.ndarray:
    """Match syllables one to one so that most frames have matched labels (Kuhn 1955; Munkres).

    Parameters
    ----------
    table : ndarray, (syllable of a, syllable of b)
        Frames by pair of labels.

    Returns
    -------
    ndarray, (syllable of a,) int64
        Syllable of b; -1 = none: too few of them, or no frame in common.
    """
    matched = np.full(len(table), -1, np.int64)
    rows, columns = linear_sum_assignment(table, maximize=True)
    has_frames = table[rows, columns] > 0
    matched[rows[has_frames]] = columns[has_frames]
    return matched


def matched_frames(table: np.ndarray, matched: np.ndarray) -> int:
    """Count the frames whose two labels are matched.

    Parameters
    ----------
    table : ndarray, (syllable of a, syllable of b) int
    matched : ndarray, (syllable of a,) int
        See :func:`match_syllables`.
    """
    rows = np.flatnonzero(matched >= 0)
    return int(table[rows, matched[rows]].sum())


def jaccard(table: np.ndarray) -> np.ndarray:
    """Jaccard index of each pair of syllables: frames of both over frames of either.

    Parameters
    ----------
    table : ndarray, (syllable of a, syllable of b)

    Returns
    -------
    ndarray, (syllable of a, syllable of b) float64
        0 where neither has a frame.
    """
    either = table.sum(1)[:, None] + table.sum(0)[None] - table
    return np.asarray(table / np.maximum(either, 1))


def _pairs(n: np.ndarray) -> np.ndarray:
    return n * (n - 1) / 2


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
