"""How many sweeps the stages of a fit have, and whether they had settled (model.md 3.11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kpms_zarr.compute.config import AR_SWEEPS, FULL_SWEEPS, FitConfig
from kpms_zarr.compute.sampler.draws import DrawSchedule
from kpms_zarr.compute.sampler.settling import TOLERANCES, drifts_of
from kpms_zarr.compute.sampler.stickiness import KappaSchedule
from kpms_zarr.compute.sampler.trace import FitTrace
from kpms_zarr.store.model.settling import StageSettling

CHECK_EVERY = 10
"""Sweeps of a stage between two looks at whether it has settled."""


def sweeps_by_stage(
    config: FitConfig, settling: Mapping[str, StageSettling] | None = None
) -> dict[str, int]:
    """Sweeps of each stage, in order: those asked for, or of what has settled, as many as it takes.

    The stage that ends the fit goes on after it has settled, for the sweeps that are averaged.
    """
    last = "ar" if config.stage == "ar" else "full"
    found = {"ar": config.first_sweeps} if config.stage == "both" else {}
    found[last] = config.last_sweeps
    for stage, one in (settling or {}).items():
        if config.until_settled and one.is_settled:
            found[stage] = one.n_sweeps + (config.n_averaged if stage == last else 0)
    return found


def draw_schedule(config: FitConfig, settling: Mapping[str, StageSettling]) -> DrawSchedule:
    """Which sweeps of a fit are averaged, as far as it is known when it ends."""
    return DrawSchedule(sum(sweeps_by_stage(config, settling).values()), config.n_averaged)


def kappa_schedule(config: FitConfig, stage: str, n_sweeps: int, kappa: float) -> KappaSchedule:
    """Schedule of the stickiness of a stage of ``n_sweeps`` at most.

    Where it is not known how many there will be, as in a stage of the usual length.
    """
    return KappaSchedule(kappa, _usual(config, stage, n_sweeps), config.target_duration)


def burn_in_of(config: FitConfig, stage: str) -> tuple[int, int]:
    """Sweeps of a stage, where it is not known at most the usual ones; those that merge states."""
    merges = config.merge_sweeps if stage == "ar" and config.from_model is None else 0
    return _usual(config, stage, sweeps_by_stage(config)[stage]), merges


def _usual(config: FitConfig, stage: str, n_sweeps: int) -> int:
    usual = AR_SWEEPS if stage == "ar" else FULL_SWEEPS
    return min(n_sweeps, usual) if config.until_settled else n_sweeps


def judged(
    config: FitConfig, stage: str, n_done: int, schedule: KappaSchedule, trace: FitTrace
) -> StageSettling | None:
    """Judge a stage after so many of its sweeps, where that is due; None otherwise.

    Due is the last sweep; where the fit waits for it, every tenth one, and of the stage that ends
    the fit the last before those that are averaged. What has not settled counts at the last alone.

    Parameters
    ----------
    schedule : KappaSchedule
        Of the stage.
    trace : FitTrace
        Of the fit so far.
    """
    by_stage = sweeps_by_stage(config)
    last = by_stage[stage]
    if config.until_settled and stage == list(by_stage)[-1]:
        last = max(1, last - config.n_averaged)
    is_due = config.until_settled and n_done < last and n_done % CHECK_EVERY == 0
    if not is_due and n_done != last:
        return None
    found = _look(config, stage, n_done, schedule, trace)
    return found if n_done == last or found.is_settled else None


def looked_at_again(
    config: FitConfig,
    stage: str,
    n_done: int,
    schedule: KappaSchedule,
    trace: FitTrace,
    settling: Mapping[str, StageSettling],
) -> StageSettling:
    """What was judged of a stage; behind the sweeps that are averaged, with how it then stood."""
    found = settling[stage]
    is_end = n_done == sweeps_by_stage(config, settling)[stage] and n_done > found.n_sweeps
    if not (is_end and found.is_settled):
        return found
    return replace(found, at_end=_look(config, stage, n_done, schedule, trace).drifts)


def _look(
    config: FitConfig, stage: str, n_done: int, schedule: KappaSchedule, trace: FitTrace
) -> StageSettling:
    _, merges = burn_in_of(config, stage)
    n_same = max(0, n_done - max(schedule.n_adaptive, merges))
    traces = {name: np.asarray(getattr(trace, name)[-n_same:]) for name in TOLERANCES}
    return StageSettling(n_done, n_same, drifts_of(traces) if n_same else {})
