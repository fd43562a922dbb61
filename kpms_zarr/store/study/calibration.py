"""The noise calibration that a store holds: how the tracking error falls with the confidence."""

from __future__ import annotations

import os
from dataclasses import dataclass

import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import call

SOURCES = {
    "prediction": "deviations from a local prediction",
    "annotations": "hand annotations",
}
"""Source of a calibration -> what it is called in words."""


@dataclass(frozen=True)
class NoiseCalibration:
    """Line of the log tracking error against the log confidence.

    log10(error) = slope log10(confidence + pseudocount) + intercept; the error is the scale along
    each axis, in units of position.

    Attributes
    ----------
    slope, intercept : float
    pseudocount : float
    source : str
        Key of ``SOURCES``.
    """

    slope: float
    intercept: float
    pseudocount: float
    source: str


def stored_calibration(root: zarr.Group) -> NoiseCalibration | None:
    """Read the noise calibration of a store; None without."""
    if not access.made(root, layout.CALIBRATION):
        return None
    group = access.subgroup(root, layout.CALIBRATION)
    assert group is not None
    attrs = attributes.read(dict(group.attrs))
    slope, intercept, pseudocount = (
        float(attrs[name]) for name in ("slope", "intercept", "pseudocount")
    )
    return NoiseCalibration(slope, intercept, pseudocount, str(attrs["source"]))


def open_calibration(store: StoreLike) -> xr.Dataset:
    """The group ``calibration`` of a store, lazily (see ``schema.CALIBRATION``).

    Raises
    ------
    InputError
        When the store has none.
    """
    if not access.made(access.open_group(store), layout.CALIBRATION):
        raise InputError(
            expected="a noise calibration",
            found="a store without one",
            where=os.fspath(store),
            fix=f"run: {call('calibrate', store)}",
        )
    return access.dataset(store, layout.CALIBRATION)
