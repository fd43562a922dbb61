"""Correction for the number of tests."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """Adjusted p of Benjamini and Hochberg (1995, J R Stat Soc B 57:289), over all entries.

    Parameters
    ----------
    p : ndarray, of any shape
        NaN = not tested, and not counted.

    Returns
    -------
    ndarray, of that shape
        Reject those up to q, and q is the expected share of false ones among these.
    """
    found = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        found[tested] = false_discovery_control(p[tested], method="bh")
    return found
