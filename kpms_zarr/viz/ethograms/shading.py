"""Syllables and how certain they are as colours of one image."""

from __future__ import annotations

from functools import lru_cache

import holoviews as hv
import numpy as np
from bokeh.models import CustomJSHover

from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.viz.ethograms.binning import AFTER_END, BinnedView
from kpms_zarr.viz.shared.colors import palette

SHADES = 8
"""Steps of opacity between uncertain and certain."""

PALEST = 0.25
"""Opacity of the least certain."""
_OTHERS = "#e4e7eb"


def code_image(
    view: BinnedView,
    n_states: int,
    bounds: tuple[float, float, float, float],
    highlight: int = -1,
    by_certainty: bool = True,
) -> hv.Image:
    """A view as an image of :func:`codes`, in their colours."""
    values = codes(view)
    # One row or column alone has no size for HoloViews.
    for axis in (0, 1):
        values = np.repeat(values, 2 if values.shape[axis] == 1 else 1, axis=axis)
    colors = code_colors(n_states, highlight, by_certainty)
    return hv.Image(values, kdims=["time", "row"], vdims=["code"], bounds=bounds).opts(
        cmap=list(colors), clim=(-0.5, len(colors) - 0.5)
    )


def codes(view: BinnedView) -> np.ndarray:
    """Syllable and certainty as one number, (row, column) uint16.

    0 = after the end of the session; else ``1 + (syllable + 1) * SHADES + shade``, shade
    ``SHADES - 1`` where the label is certain or its certainty is not known.
    """
    shade = np.nan_to_num(view.certainty.astype(np.float32), nan=1.0) * SHADES
    shade = np.clip(shade, 0, SHADES - 1).astype(np.uint16)
    code = (view.syllable.astype(np.int32) + 1) * SHADES + 1 + shade
    return np.where(view.syllable == AFTER_END, 0, code).astype(np.uint16)


@lru_cache(maxsize=32)
def code_colors(n_states: int, highlight: int = -1, by_certainty: bool = True) -> tuple[str, ...]:
    """Colours of :func:`codes`, that of code 0 first."""
    of_label = np.array([_rgb(color) for color in palette(n_states)])
    if highlight >= 0:
        of_label[np.arange(-1, n_states) != highlight] = _rgb(_OTHERS)
    opacity = np.linspace(PALEST, 1, SHADES) if by_certainty else np.ones(SHADES)
    opacity = np.broadcast_to(opacity, (len(of_label), SHADES)).copy()
    if highlight >= 0:
        opacity[np.arange(-1, n_states) != highlight] = 1
    shown = of_label[:, None] * opacity[..., None] + 255 * (1 - opacity[..., None])
    return (
        "#ffffff",
        *(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.rint(shown.reshape(-1, 3)).astype(int)),
    )


def _rgb(color: str) -> tuple[float, ...]:
    return tuple(float(int(color[i : i + 2], 16)) for i in (1, 3, 5))


def code_text(names: SyllableNames | None) -> CustomJSHover:
    """Hover text of one of :func:`codes`: the syllable, or how certain it is."""
    given = {} if names is None else {str(i): names.label(i) for i in range(len(names.names))}
    return CustomJSHover(
        args={"given": given},
        code=f"""
        if (!(value >= 1)) return format == "share" ? "-" : "after the end";
        const part = 100 * ((value - 1) % {SHADES}) / {SHADES};
        if (format == "share")
          return Math.round(part) + " to " + Math.round(part + {100 / SHADES}) + " %";
        const label = Math.floor((value - 1) / {SHADES}) - 1;
        return label < 0 ? "none" : given[label] ?? String(label);
        """,
    )
