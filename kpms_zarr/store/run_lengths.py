"""Runs of equal values: bouts of a syllable, entries of a bin, stretches of frames."""

from __future__ import annotations

import numpy as np


def run_starts(values: np.ndarray, cuts: np.ndarray | slice | None = None) -> np.ndarray:
    """Find where runs of equal values begin.

    Parameters
    ----------
    values : ndarray, (frame,)
    cuts : ndarray or slice, optional
        Where a run begins whatever the values are.

    Returns
    -------
    ndarray, (run,) int64
        Ascending from 0; empty when there are no values.
    """
    is_start = np.ones(len(values), bool)
    is_start[1:] = values[1:] != values[:-1]
    if cuts is not None:
        is_start[cuts] = True
    return np.flatnonzero(is_start)


def run_bounds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find where runs of equal values begin and end.

    Parameters
    ----------
    values : ndarray, (frame,)

    Returns
    -------
    start, stop : ndarray, (run,) int64
        ``values[start[i]:stop[i]]`` is run i.
    """
    start = run_starts(values)
    return start, np.append(start, len(values))[1:]
