"""Stickiness: fixed, or adapted until the median duration of syllables in use is the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kpms_zarr.compute.sampler.bouts import LabelCounts

_ADAPT_SHARE = 0.6
_GAIN = 6.0
_RANGE = (1e-2, 1e15)


class KappaSchedule:
    """Robbins-Monro on log kappa for the first 60 % of the sweeps, then constant.

    log kappa grows by gain * log(target / median duration), the median over the bouts of syllables
    in use (:attr:`LabelCounts.median_duration` says why). The gain falls off as 1 / (1 + c),
    c = how often the error has changed its sign (Kesten, Ann. Math. Stat. 29:41, 1958), so that
    far targets are reached with large steps: durations answer slowly, by a few per cent per
    doubling of kappa.

    Parameters
    ----------
    kappa : float
        The value at the start.
    sweeps : int
        Of the stage.
    target_duration : float or None
        In ms; None keeps kappa.
    """

    def __init__(self, kappa: float, sweeps: int, target_duration: float | None) -> None:
        self.value = float(kappa)
        self._target = target_duration
        self._n_adaptive = int(_ADAPT_SHARE * sweeps)
        self._step = 0
        self._sign_changes = 0
        self._last_error = 0.0

    @property
    def n_adaptive(self) -> int:
        """Sweeps of the stage before those of one stickiness."""
        return 0 if self._target is None else self._n_adaptive

    @property
    def state(self) -> dict[str, Any]:
        """State of the schedule, JSON-compatible."""
        return {
            "value": self.value,
            "target": self._target,
            "n_adaptive": self._n_adaptive,
            "step": self._step,
            "sign_changes": self._sign_changes,
            "last_error": self._last_error,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> KappaSchedule:
        """Make a schedule of its :attr:`state`."""
        found = cls(state["value"], 1, state["target"])
        found._n_adaptive, found._step = int(state["n_adaptive"]), int(state["step"])
        found._sign_changes = int(state["sign_changes"])
        found._last_error = float(state["last_error"])
        return found

    def update(self, counts: LabelCounts) -> None:
        """Move kappa after a sweep, given the labels that it left."""
        if self._target is None or self._step >= self._n_adaptive:
            return
        median = max(0.5, counts.smooth_median_duration) * 1000 / counts.fps
        error = float(np.log(self._target / median))
        self._sign_changes += int(error * self._last_error < 0)
        self._last_error = error
        log_kappa = np.log(self.value) + _GAIN / (1 + self._sign_changes) * error
        self.value = float(np.clip(np.exp(log_kappa), *_RANGE))
        self._step += 1
