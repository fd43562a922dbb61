"""State of a chain besides that of its frames, and its traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpms_zarr.compute.sampler.bouts import LabelCounts
from kpms_zarr.compute.sampler.stickiness import KappaSchedule
from kpms_zarr.compute.sampler.sweep import SweepResult
from kpms_zarr.compute.sampler.tile_model import Parameters, SweepSums
from kpms_zarr.compute.sampler.windows import LabelWindows
from kpms_zarr.store.model.settling import StageSettling, from_attrs, to_attrs

TERMS = ("syllable", "latent", "centroid", "noise_scale", "position", "parameters")
"""Parts of the joint log probability of a sweep, in the order in which they are stored."""


@dataclass
class FitTrace:
    """Traces of a fit: one value per sweep.

    Attributes
    ----------
    log_likelihood : list of float
        nat per frame.
    median_duration : list of float
        Of the syllables in use, in frames of the fastest video.
    usage : list of ndarray, (state,)
    terms : list of dict
        Parts of the log likelihood by name.
    log_evidence : list of float
        Log density of all that the chain holds, dynamics and transitions integrated out, nat per
        frame; different quantities in the two stages.
    label_change : list of float
        Share of the modelled frames whose label is not that of the sweep before.
    """

    log_likelihood: list[float] = field(default_factory=list)
    kappa: list[float] = field(default_factory=list)
    median_duration: list[float] = field(default_factory=list)
    n_used: list[int] = field(default_factory=list)
    usage: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)
    log_evidence: list[float] = field(default_factory=list)
    label_change: list[float] = field(default_factory=list)

    def append(
        self,
        stage: str,
        result: SweepResult,
        kappa: float,
        seconds: float,
        log_evidence: float = np.nan,
    ) -> None:
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
        self.log_evidence.append(log_evidence)
        self.label_change.append(result.sums.n_changed / max(1, frames.sum()))

    def to_arrays(self, n_states: int) -> dict[str, np.ndarray]:
        """Variables of the store, a row per sweep, and the names of the terms."""
        n_sweeps = len(self.stage)
        terms = [[part.get(name, np.nan) for name in TERMS] for part in self.terms]
        return {
            "term": np.asarray(TERMS, dtype=object),
            "trace_stage": np.asarray(self.stage, dtype=object),
            "trace_log_likelihood": np.asarray(self.log_likelihood, np.float64),
            "trace_log_probability": np.asarray(terms, np.float64).reshape(n_sweeps, len(TERMS)),
            "trace_log_evidence": np.asarray(self.log_evidence, np.float64),
            "trace_label_change": np.asarray(self.label_change, np.float64),
            "trace_kappa": np.asarray(self.kappa, np.float64),
            "trace_median_duration": np.asarray(self.median_duration, np.float64),
            "trace_n_used": np.asarray(self.n_used, np.int64),
            "trace_usage": np.asarray(self.usage, np.float64).reshape(n_sweeps, n_states),
            "trace_seconds": np.asarray(self.seconds, np.float64),
        }

    @classmethod
    def from_arrays(cls, values: Mapping[str, np.ndarray]) -> FitTrace:
        """Make traces of the variables of :meth:`to_arrays`; fits of before lacked some."""
        lacking = np.full(len(values["trace_kappa"]), np.nan)
        names = [str(name) for name in values["term"]]
        terms = [
            {name: float(x) for name, x in zip(names, row, strict=True) if not np.isnan(x)}
            for row in values["trace_log_probability"]
        ]
        return cls(
            values["trace_log_likelihood"].tolist(),
            values["trace_kappa"].tolist(),
            values["trace_median_duration"].tolist(),
            values["trace_n_used"].tolist(),
            list(values["trace_usage"]),
            values["trace_seconds"].tolist(),
            [str(stage) for stage in values["trace_stage"]],
            terms,
            values.get("trace_log_evidence", lacking).tolist(),
            values.get("trace_label_change", lacking).tolist(),
        )


@dataclass
class ChainProgress:
    """State of a chain besides that of its frames: both together are what a resume needs.

    Attributes
    ----------
    done : int
        Sweeps done, over all stages of this fit.
    n_before : int
        Sweeps of the models that it goes on from, so that no two share random numbers.
    parameters : Parameters
        That the labels were drawn with.
    noise_variance : ndarray or None, (keypoint,)
        Of the full stage, likewise.
    result : SweepResult or None
        What the next draw of the parameters needs; None = they stay for the first sweep.
    kappa : KappaSchedule or None
        Of the stage of the last sweep.
    windows : LabelWindows or None
        Labels of the last few sweeps; None before the first.
    settling : dict of str to StageSettling
        Stages that have been judged.
    """

    done: int
    n_before: int
    parameters: Parameters
    noise_variance: np.ndarray | None
    result: SweepResult | None
    kappa: KappaSchedule | None = None
    trace: FitTrace = field(default_factory=FitTrace)
    windows: LabelWindows | None = None
    settling: dict[str, StageSettling] = field(default_factory=dict)

    def to_store(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Convert to small arrays (``schema.CHAIN``) and attributes."""
        values = self.parameters.to_store()
        if self.noise_variance is not None:
            values["noise_variance"] = self.noise_variance
        if self.result is not None:
            sums = self.result.sums
            values["moment"] = sums.moments
            if sums.noise_count.size:
                values["noise_square"] = sums.noise_square
                values["noise_count"] = sums.noise_count
        if self.windows is not None:
            values |= self.windows.to_store()
        kappa = None if self.kappa is None else self.kappa.state
        attrs = {"n_before": self.n_before, "kappa": kappa, **to_attrs(self.settling)}
        return values, attrs

    @classmethod
    def from_store(
        cls,
        done: int,
        values: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
        traces: Mapping[str, np.ndarray],
        counts: LabelCounts,
    ) -> ChainProgress:
        """Read what :meth:`to_store` wrote, with the counts of the labels that go with it."""
        result = None
        if "moment" in values:
            sums = SweepSums(values["moment"])
            if "noise_square" in values:
                sums = sums._replace(
                    noise_square=values["noise_square"], noise_count=values["noise_count"]
                )
            result = SweepResult(sums, counts, {})
        kappa = attrs.get("kappa")
        return cls(
            done,
            int(attrs["n_before"]),
            Parameters.from_store(values),
            values.get("noise_variance"),
            result,
            None if kappa is None else KappaSchedule.from_state(kappa),
            FitTrace.from_arrays(traces),
            LabelWindows.from_store(values),
            from_attrs(attrs),
        )
