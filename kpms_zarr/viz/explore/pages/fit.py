"""Fit."""

from __future__ import annotations

import panel as pn

from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State

TITLE = "Fit"


def page(state: State) -> pn.viewable.Viewable:
    """The page, for one browser window."""
    return parts.text("Fit")
