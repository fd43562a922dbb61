"""What a run leaves besides the state of its frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.sweep import Parameters, SweepResult


@dataclass
class Trace:
    """One value per sweep of what a person watches.

    Attributes
    ----------
    log_likelihood : list of float
        nat per frame.
    kappa : list of float
    median_duration : list of float
        In frames of the fastest video.
    n_used : list of int
    usage : list of ndarray, (state,)
    seconds : list of float
    stage : list of str
    terms : list of dict
        Parts of the log likelihood by name.
    """

    log_likelihood: list[float] = field(default_factory=list)
    kappa: list[float] = field(default_factory=list)
    median_duration: list[float] = field(default_factory=list)
    n_used: list[int] = field(default_factory=list)
    usage: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)

    def append(self, stage: str, result: SweepResult, kappa: float, seconds: float) -> None:
        """Add a sweep."""
        self.stage.append(stage)
        self.terms.append(result.terms)
        frames = result.counts.frames
        self.log_likelihood.append(result.log_likelihood)
        self.kappa.append(kappa)
        self.median_duration.append(result.counts.median_duration)
        self.n_used.append(result.counts.n_used)
        self.usage.append(frames / max(1, frames.sum()))
        self.seconds.append(seconds)


@dataclass
class Outcome:
    """Where the chain ended.

    Attributes
    ----------
    parameters : Parameters
        That the last labels were drawn with.
    noise_variance : ndarray or None, (keypoint,)
        Of the full stage, likewise.
    trace : Trace
    failure : SamplingError or None
        What ended the run before its last sweep; the chain is as the sweep before left it.
    """

    parameters: Parameters
    noise_variance: np.ndarray | None
    trace: Trace
    failure: SamplingError | None = None
