"""How far two labellings agree: which syllable is which, and whether certainties are true."""

from __future__ import annotations

from typing import Protocol

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.models import PrintfTickFormatter

from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, load, short
from kpms_zarr.viz.syllables.transition_counts import MOST_SHOWN

_SECOND = "#b45309"
"""Of the second of two labellings; the first has that of lines."""
_POINT_SIZES = (5.0, 16.0)  # px


class PairLike(Protocol):
    """Agreement of two labellings, one of ``kpms_zarr.compare(...).pairs``."""

    @property
    def a(self) -> str:
        """Name of the first."""
        ...

    @property
    def b(self) -> str:
        """Name of the second."""
        ...

    @property
    def confusion(self) -> xr.DataArray:
        """Frames by pair of labels, (syllable_a, syllable_b), matched ones first."""
        ...

    @property
    def calibration_a(self) -> xr.Dataset:
        """Frames by certainty of a, (certainty_bin)."""
        ...

    @property
    def calibration_b(self) -> xr.Dataset:
        """Frames by certainty of b, (certainty_bin)."""
        ...


def confusion(pair: PairLike) -> hv.HeatMap:
    """Confusion matrix of two labellings: what the frames of each syllable of a are in b.

    Parameters
    ----------
    pair : PairAgreement
        One of ``kpms_zarr.compare(...).pairs``.

    Returns
    -------
    holoviews.HeatMap
        kdims other (syllable of b) and syllable (of a); vdims share (% of the frames of the
        syllable of a), share_other (% of those of b), frames and jaccard. Matched syllables lie on
        the diagonal, the commonest first; shown are those with 0.5 % of the frames or more, at most
        40 of each.
    """
    load()
    table = pair.confusion
    every = table.values
    rows, columns = _used(every.sum(1)), _used(every.sum(0))
    frames = every[np.ix_(rows, columns)]
    of_a, of_b = every.sum(1)[rows, None], every.sum(0)[None, columns]
    names_a, names_b = _names(table, "a")[rows], _names(table, "b")[columns]
    row, column = (grid.ravel() for grid in np.indices(frames.shape))
    cells = (
        names_b[column],
        names_a[row],
        (100 * frames / np.maximum(of_a, 1)).ravel(),
        (100 * frames / np.maximum(of_b, 1)).ravel(),
        frames.ravel(),
        (frames / np.maximum(of_a + of_b - frames, 1)).ravel(),
    )
    a, b = short(pair.a), short(pair.b)
    heat = hv.HeatMap(
        cells,
        kdims=["other", "syllable"],
        vdims=["share", "share_other", "frames", "jaccard"],
    )
    hover = hover_tool(
        (f"syllable of {_text(a)}", "@syllable"),
        (f"syllable of {_text(b)}", "@other"),
        ("frames of both", "@frames{0,0}"),
        (f"of the frames of {_text(a)}", "@share{0.0} %"),
        (f"of the frames of {_text(b)}", "@share_other{0.0} %"),
        ("Jaccard index", "@jaccard{0.00}"),
    )
    is_long = max((len(name) for name in names_b), default=0) > 3
    return heat.opts(
        **frame(
            int(np.clip(130 + 22 * len(frames), 300, 960)),
            hover=hover,
            cmap=["#ffffff", *hv.plotting.util.process_cmap("Blues", 64)[4:]],
            clim=(0, 100),
            line_color="#ffffff",
            invert_yaxis=True,
            colorbar=True,
            clabel="",
            colorbar_opts={"formatter": PrintfTickFormatter(format="%g %%")},
            xlabel=f"syllable of {b}",
            ylabel=f"syllable of {a}",
            xrotation=90 if is_long else 0,
        )
    )


def _used(frames: np.ndarray) -> np.ndarray:
    return np.flatnonzero(frames >= USED_FRACTION * frames.sum())[:MOST_SHOWN]


def _names(table: xr.DataArray, side: str) -> np.ndarray:
    """Numbers and names of the syllables of a side, for an axis."""
    numbers, names = table[f"syllable_{side}"].values, table[f"name_{side}"].values
    texts = [short(f"{n} {name}".rstrip(), 16) for n, name in zip(numbers, names, strict=True)]
    return np.array(texts, dtype=object)


def _text(name: str) -> str:
    """Name in the text of a hover box, where it stands between tags and as no column."""
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("@", "&#64;").replace("$", "&#36;")


def calibration(pair: PairLike) -> hv.Overlay:
    """Calibration of the certainties of two labellings: what they say, and what the other has.

    Parameters
    ----------
    pair : PairAgreement
        One of ``kpms_zarr.compare(...).pairs``.

    Returns
    -------
    holoviews.Overlay
        The line on which certainties are true, and for each labelling that has certainties a Curve
        and Points: mean certainty of a bin (%), share of its frames with the matched label in the
        other (%), frames. Below the line, certainties promise too much.
    """
    load()
    line = hv.Curve(([0, 100], [0, 100]), kdims=["certainty"], vdims=["same"], label="as true")
    parts = [line.opts(color=MUTED, line_dash="dashed", line_width=1)]
    sides = (
        (pair.a, pair.b, pair.calibration_a, LINE),
        (pair.b, pair.a, pair.calibration_b, _SECOND),
    )
    for name, other, table, color in sides:
        if table.attrs["n_frames"]:
            parts += _course(short(name), short(other), table, color)
    return hv.Overlay(parts).opts(
        **frame(
            330,
            xlim=(-3, 103),
            ylim=(-3, 103),
            xlabel="certainty that is published (%)",
            ylabel="same label in the other (%)",
            legend_position="top_left",
        )
    )


def _course(name: str, other: str, table: xr.Dataset, color: str) -> list[hv.Element]:
    frames = table["n_frames"].values
    is_there = frames > 0
    said, true = (100 * table[key].values[is_there] for key in ("mean_certainty", "same_share"))
    size = np.interp(np.sqrt(frames[is_there] / frames.max()), (0, 1), _POINT_SIZES)
    hover = hover_tool(
        ("certainty of", _text(name)),
        ("says", "@certainty{0.0} %"),
        (f"the same in {_text(other)}", "@same{0.0} %"),
        ("frames", "@frames{0,0}"),
    )
    error = f"{name}: error {100 * table.attrs['error']:.1f} %"
    curve = hv.Curve((said, true), kdims=["certainty"], vdims=["same"], label=error)
    points = hv.Points(
        (said, true, frames[is_there], size),
        kdims=["certainty", "same"],
        vdims=["frames", "size"],
        label=error,
    )
    return [
        curve.opts(color=color, line_width=1.5),
        points.opts(
            color=color, size="size", line_color=INK, line_width=0.5, tools=[hover],
            default_tools=[],
        ),
    ]  # fmt: skip
