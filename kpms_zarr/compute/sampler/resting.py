"""Which states a sweep draws labels among: not always all (model.md 3.12)."""

from __future__ import annotations

import numpy as np

FEWEST_FRAMES = {"ar": 20_000, "full": 200_000}
"""Of a study, for which it is worth compiling a tile of the stage more."""
ALL_EVERY = 5
"""Sweeps of which one draws among all states."""
_CHOOSING_SHARE = 0.2
_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128)


def choosing_sweeps(n_sweeps: int, merge_sweeps: int) -> int:
    """First sweeps of a stage, in which it is chosen again each time which states rest.

    A fifth of the stage, and those in which states are merged; the last of them draws among all.
    """
    least = max(int(_CHOOSING_SHARE * n_sweeps), merge_sweeps)
    return least + (-least) % ALL_EVERY + 1


def states_drawn(has_frames: np.ndarray, step: int) -> np.ndarray | None:
    """States among which a sweep draws labels: (drawn,) int, increasing; None = all.

    As many as a tile is compiled for, and half of all at most; more is not worth a tile of its own.

    Parameters
    ----------
    has_frames : ndarray, (state,) bool
        Which states are not to rest; others are taken to make up the number.
    step : int
        Sweeps of the stage before this one.
    """
    n_states, n_used = len(has_frames), int(has_frames.sum())
    sizes = [size for size in _SIZES if n_used <= size <= n_states // 2]
    if not sizes or step % ALL_EVERY == 0:
        return None
    return np.sort(np.argsort(~has_frames, kind="stable")[: sizes[0]])
