"""Whether the stages of a fit had settled, and the log evidence at their ends, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import xarray as xr

from kpms_zarr.store.core.attributes import read
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.wording import counted

ATTRIBUTE = "settling"
"""Of parameters: what was judged, by stage."""

WINDOW = 40
"""Sweeps of each of the two windows whose means are compared."""

_STAGES = {"ar": "AR stage", "full": "full stage"}
_TRACES = {
    "log_evidence": ("the log evidence", "{:+.3f} nat per frame"),
    "n_used": ("the number of syllables in use", "{:+.1f}"),
    "label_change": (
        "the share of labels that a sweep changes",
        "{:+.1%}",
    ),
}


@dataclass(frozen=True)
class Drift:
    """Change of a trace from one window of sweeps to the next.

    Attributes
    ----------
    change : float
        Mean of the last window minus that of the window before.
    error : float
        Standard error of that, autocorrelation allowed for.
    is_settled : bool
        Whether it is small in practice, or small against its error.
    """

    change: float
    error: float
    is_settled: bool


@dataclass(frozen=True)
class StageSettling:
    """What was judged of a stage of a fit.

    Attributes
    ----------
    n_sweeps : int
        Of the stage, after which it was judged.
    n_of_one_model : int
        The last of them, in which stickiness was fixed and nothing was merged.
    drifts : dict of str to Drift
        By trace; empty where there were too few sweeps to tell.
    at_end : dict of str to Drift
        The same at the end of a fit that waited, after the sweeps that are averaged.
    """

    n_sweeps: int
    n_of_one_model: int
    drifts: dict[str, Drift] = field(default_factory=dict)
    at_end: dict[str, Drift] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether there were enough sweeps to tell."""
        return bool(self.drifts)

    @property
    def is_settled(self) -> bool:
        """Whether none of the traces still drifted, as far as that is known."""
        return self.is_known and all(drift.is_settled for drift in self.drifts.values())


def to_attrs(settling: Mapping[str, StageSettling]) -> dict[str, Any]:
    """Attributes of what was judged, by stage; JSON-compatible."""
    return {
        ATTRIBUTE: {
            stage: {**asdict(found), "is_settled": found.is_settled if found.is_known else None}
            for stage, found in settling.items()
        }
    }


def from_attrs(attrs: Mapping[str, Any]) -> dict[str, StageSettling]:
    """What :func:`to_attrs` gave; empty for fits that were not judged."""
    found = read(attrs).get(ATTRIBUTE) or {}
    return {
        stage: StageSettling(
            int(one["n_sweeps"]),
            int(one["n_of_one_model"]),
            *(
                {name: Drift(**drift) for name, drift in one[which].items()}
                for which in ("drifts", "at_end")
            ),
        )
        for stage, one in found.items()
    }


def in_words(stage: str, found: StageSettling) -> str:
    """Whether a stage had settled, and if not, what still changed."""
    name, sweeps = _STAGES.get(stage, stage), counted(found.n_sweeps, "sweep")
    if not found.is_known:
        return (
            f"whether the {name} had settled after {sweeps} cannot be told: it takes "
            f"{2 * WINDOW} sweeps of one stickiness, and there were {found.n_of_one_model}"
        )
    windows = f"over the last {WINDOW}, against the {WINDOW} before"
    if found.is_settled:
        moved = _moved(found.at_end)
        again = f", but moved again while labels were averaged: {windows}, {moved}" if moved else ""
        return f"the {name} had settled after {sweeps}{again}"
    return f"the {name} had not settled after {sweeps}: {windows}, {_moved(found.drifts)}"


def _moved(drifts: Mapping[str, Drift]) -> str:
    """What still changed, and by how much; "" where nothing did."""
    return " and ".join(
        f"{_TRACES[trace][0]} changed by {_TRACES[trace][1].format(drift.change)}"
        for trace, drift in drifts.items()
        if not drift.is_settled
    )


def words_of(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether a fit had settled, a line for each stage that tells something; of its parameters.

    Of a fit that goes on with the full stage, the AR stage is no more than where it begins, and is
    named only where settling was waited for.
    """
    found = from_attrs(attrs)
    last = "full" if "full" in found else "ar"
    waited = bool(_settings(attrs).get("until_settled"))
    return tuple(in_words(stage, one) for stage, one in found.items() if waited or stage == last)


def evidence_by_stage(parameters: xr.Dataset) -> dict[str, float]:
    """Log evidence after the last sweep of each stage of a fit, nat per frame; what is known of it.

    Nothing of a consensus, whose sweeps only give it a pose.
    """
    if not {"trace_log_evidence", "trace_stage"} <= set(parameters.variables):
        return {}
    if "member" in parameters:
        return {}
    pairs = zip(
        map(str, parameters["trace_stage"].values),
        parameters["trace_log_evidence"].values.tolist(),
        strict=True,
    )
    return {stage: value for stage, value in dict(pairs).items() if math.isfinite(value)}


def course_in_words(parameters: xr.Dataset) -> tuple[str, ...]:
    """Lines on a fit: whether it had settled, a noise prior from the data, its log evidence.

    None where nothing is known.
    """
    lines = words_of(parameters.attrs)
    found = [
        f"{value:.3f} of the {_STAGES.get(stage, stage)}"
        for stage, value in evidence_by_stage(parameters).items()
    ]
    noise = parameters.attrs
    if noise.get("noise_source"):
        lines += (
            f"noise prior calibrated from {noise['noise_source']}: slope "
            f"{noise['noise_slope']:.3g}, intercept {noise['noise_intercept']:.3g} in model units",
        )
    if found:
        lines += (f"log evidence at the end, nat per frame: {', '.join(found)}",)
    return lines


def _settings(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = provenance_of(attrs).get("settings", {})
    return settings
