"""Whether the traces of a stage still drift: two windows of sweeps are compared (model.md 3.11)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kpms_zarr.store.model.settling import WINDOW, Drift

TOLERANCES = {"log_evidence": 0.004, "n_used": 0.5, "label_change": 0.005}
"""Trace -> change from window to window that is small in practice, whatever its error: in nat per
frame, in syllables, in shares of the frames."""

_BATCH = 8
"""Sweeps whose mean stands for one independent value, or nearly."""
_CRITICAL = 2.5
"""Standard errors that a change must exceed to be one: 5 % of stationary traces do, about, as the
error is known from nine differences alone."""


def drift_of(
    values: np.ndarray,
    tolerance: float = 0.0,
    *,
    window: int = WINDOW,
    batch: int = _BATCH,
) -> Drift | None:
    """Compare the mean of the last window of a trace with that of the window before.

    After Geweke (Bayesian Statistics 4:169, 1992), who compares parts of a chain by a standard
    error that allows for autocorrelation. Here it comes from means of batches of sweeps, and of
    these from differences between one and the next (von Neumann, Ann. Math. Stat. 12:367, 1941), to
    which a drift or a single step adds little: it would otherwise excuse itself by the error that
    it makes.

    Parameters
    ----------
    values : ndarray, (sweep,)
    tolerance : float
        Change that is small in practice.
    window, batch : int
        Sweeps.

    Returns
    -------
    Drift or None
        None where there are too few sweeps, or values that are not finite.
    """
    last = np.asarray(values, np.float64)[-2 * window :]
    if len(last) < 2 * window or not np.isfinite(last).all():
        return None
    change = float(last[window:].mean() - last[:window].mean())
    n_batches = window // batch
    batches = last[-2 * n_batches * batch :].reshape(-1, batch).mean(1)
    variance = 0.5 * np.square(np.diff(batches)).mean()
    error = float(np.sqrt(2 * variance / n_batches))
    return Drift(change, error, abs(change) <= max(tolerance, _CRITICAL * error))


def drifts_of(traces: Mapping[str, np.ndarray]) -> dict[str, Drift]:
    """Drift of each trace that is judged, by name; empty where one of them cannot be.

    Parameters
    ----------
    traces : mapping of str to ndarray, (sweep,)
        Of sweeps of one model: one stage, one stickiness, nothing merged.
    """
    found = {name: drift_of(traces[name], tolerance) for name, tolerance in TOLERANCES.items()}
    return {name: one for name, one in found.items() if one} if all(found.values()) else {}
