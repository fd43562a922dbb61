"""Fewer points of a long line, marks and gaps, so that nothing short disappears."""

from __future__ import annotations

import numpy as np


def extremes(value: np.ndarray, max_points: int) -> np.ndarray:
    """Choose samples of a line to draw: the lowest and the highest of equal stretches.

    Parameters
    ----------
    value : ndarray, (sample,)
        NaN = none.
    max_points : int
        2 or more.

    Returns
    -------
    ndarray, (point,) int
        Ascending; all samples where there are no more than ``max_points``. A stretch without a
        value gives its first sample.
    """
    n_samples = len(value)
    if n_samples <= max_points:
        return np.arange(n_samples)
    width = -(-n_samples // max(1, max_points // 2))
    padded = np.full(-(-n_samples // width) * width, np.nan)
    padded[:n_samples] = value
    bins = padded.reshape(-1, width)
    is_none = np.isnan(bins)
    low = np.where(is_none, np.inf, bins).argmin(1)
    high = np.where(is_none, -np.inf, bins).argmax(1)
    first = width * np.arange(len(bins))
    return np.unique(np.concatenate([first + low, first + high]))


def thinned(at: np.ndarray, value: np.ndarray, stop: int, max_marks: int) -> np.ndarray:
    """Choose marks to draw: of each of many equal stretches of time the lowest and the highest.

    A mark that is alone in its stretch is always among them.

    Parameters
    ----------
    at : ndarray, (mark,) int
        Ascending samples, from 0 to ``stop``.
    value : ndarray, (mark,)
        Without NaN.
    max_marks : int
        2 or more.

    Returns
    -------
    ndarray, (drawn,) int
        Rows of ``at``, ascending.
    """
    if len(at) <= max_marks:
        return np.arange(len(at))
    stretch = at * max(1, max_marks // 2) // max(stop, 1)
    order = np.lexsort((value, stretch))
    border = np.flatnonzero(np.diff(stretch[order]))
    lowest = np.concatenate([[0], border + 1])
    highest = np.concatenate([border, [len(at) - 1]])
    return np.unique(order[np.concatenate([lowest, highest])])


def runs(is_true: np.ndarray) -> np.ndarray:
    """Find where runs begin and end.

    Parameters
    ----------
    is_true : ndarray, (sample,) bool

    Returns
    -------
    ndarray, (run, 2) int
        First sample, and the first one after the run.
    """
    edge = np.diff(np.concatenate([[0], is_true.astype(np.int8), [0]]))
    return np.column_stack([np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)])


def joined_runs(is_true: np.ndarray, max_runs: int) -> np.ndarray:
    """Find runs, those joined that lie closest when there would be too many.

    Parameters
    ----------
    is_true : ndarray, (sample,) bool
    max_runs : int
        1 or more.
    """
    found = runs(is_true)
    if len(found) <= max_runs:
        return found
    between = found[1:, 0] - found[:-1, 1]
    kept = np.sort(np.argsort(-between, kind="stable")[: max_runs - 1])
    start = found[np.concatenate([[0], kept + 1]), 0]
    stop = found[np.concatenate([kept, [len(found) - 1]]), 1]
    return np.column_stack([start, stop])
