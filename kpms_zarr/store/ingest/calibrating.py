"""Calibration of the noise prior at the end of an ingest, which it can never fail."""

from __future__ import annotations

import logging

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.calibration import stored_calibration

_LOG = logging.getLogger("kpms_zarr")


def calibrated(store: StoreLike) -> list[str]:
    """Calibrate the noise prior of a store, and say how that went.

    Returns
    -------
    list of str
        Notes: the line, or why there is none.
    """
    try:
        return _notes(store)
    except InputError as error:
        one = error.problems[0]
        return [f"not calibrated: expected {one.expected}, found {one.found} ({one.where})"]
    except Exception as error:  # the sessions are there, whatever happens afterwards
        _LOG.exception("the calibration after an ingest failed")
        return [f"not calibrated ({type(error).__name__}: {error})"]


def _notes(store: StoreLike) -> list[str]:
    # The verb of another part, which is imported when a person asks for it.
    from kpms_zarr.compute.tracking.calibrate import calibrate

    root = access.open_group(store)
    if not access.sessions(root):
        return ["not calibrated: there are no sessions"]
    before = stored_calibration(root)
    if before is not None and before.source == "annotations":
        return ["not calibrated: the calibration from hand annotations stays as it is"]
    found = calibrate(store)
    sign = "+" if found.intercept >= 0 else "-"
    line = f"{found.slope:.3f} log10(confidence + 0.001) {sign} {abs(found.intercept):.3f}"
    return [
        f"noise prior calibrated: log10(error) = {line}; fits of the full stage use it",
        *(f"calibration: {note}" for note in found.notes),
    ]
