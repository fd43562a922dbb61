"""The noise prior of a run: as given, that of a model, or from the calibration of the store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.tracked import NoiseByConfidence
from kpms_zarr.store.core import access
from kpms_zarr.store.study.calibration import SOURCES, NoiseCalibration, stored_calibration
from kpms_zarr.store.wording import listed

NOISE_SETTINGS = frozenset(("noise_slope", "noise_intercept", "confidence_pseudocount"))
"""Settings any of which, where it is given, overrules the calibration of the store."""


def noise_prior_of(
    root: access.Group,
    config: FitConfig,
    start: StartModel | None,
    scale: Mapping[int, float],
    notify: Callback,
) -> NoiseByConfidence:
    """Choose the noise prior of a run, and notify the caller where the store has a calibration.

    Settings that are given come first, then what a start model of the full stage had, then the
    calibration of the store, then defaults. The AR stage has no use for any.

    Parameters
    ----------
    scale : dict of int to float
        Index of the session -> units of position per model unit.
    """
    as_set = NoiseByConfidence.of(config)
    if config.stage == "ar":
        return as_set
    given = sorted(NOISE_SETTINGS & config.given)
    if not given and start is not None and start.stage != "ar":
        return start.noise or as_set
    found = stored_calibration(root)
    if found is None:
        return as_set
    if given:
        are = "is" if len(given) == 1 else "are"
        text = f"the noise calibration of the store is not used: {listed(given)} {are} given"
        notify(Noted(text))
        return as_set
    prior = in_model_units(found, scale)
    notify(
        Noted(
            f"noise prior from the calibration of the store ({prior.source}): slope "
            f"{prior.slope:.3g}, intercept {prior.intercept:.3g} in model units"
        )
    )
    return prior


def calibration_for(root: access.Group, config: FitConfig) -> NoiseCalibration | None:
    """The calibration that a run without a start model takes its noise prior from; None without."""
    is_used = config.stage != "ar" and not NOISE_SETTINGS & config.given
    return stored_calibration(root) if is_used else None


def in_model_units(found: NoiseCalibration, scale: Mapping[int, float]) -> NoiseByConfidence:
    """Noise prior of a calibration, which is in units of position; sessions differ by a median."""
    unit = float(np.median(list(scale.values())))
    intercept = found.intercept - float(np.log10(unit))
    return NoiseByConfidence(found.slope, intercept, found.pseudocount, SOURCES[found.source])
