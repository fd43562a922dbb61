"""How far labellings agree: which syllable is which, how stable it is, whether certainties hold."""

from __future__ import annotations

from typing import Protocol

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.models import PrintfTickFormatter

from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.model.replicability import ENSEMBLE, READINGS, reading
from kpms_zarr.store.wording import listed
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, load, short
from kpms_zarr.viz.shared.views import view
from kpms_zarr.viz.syllables.transition_counts import MOST_SHOWN

_SECOND = "#b45309"
"""Of the second of two labellings; the first has that of lines."""
_POINT_SIZES = (5.0, 16.0)  # px
_SYLLABLE_SIZES = (9.0, 34.0)  # px
_BANDS = {
    "stable": "#d7efe0",
    "fairly stable": "#ebf5e6",
    "doubtful": "#fdf3d8",
    "do not interpret": "#f9e3e0",
}
"""Colour behind the Jaccard indices of each reading."""
_MOST_SIBLINGS = 4
_INDEX_LIMITS = (-0.05, 1.06)


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


@view
def replicability(opened: OpenModel) -> hv.Overlay:
    """How far each syllable in use replicates, most frequent first, and how that is to be read.

    Returns
    -------
    holoviews.Overlay
        A band and its words for each reading (see ``store.model.replicability``), and Points over
        the place of the syllable, the larger the more frequent: Jaccard index between halves of the
        chains, and where halves of the sessions were compared, hollow squares for that between
        these. vdims syllable, frequency (%), reading, family (-1 = none), color, size.

    Raises
    ------
    MissingData
        For a model of one chain, or of fewer than four models.
    """
    found = opened.replicability
    if not found.is_known:
        n = found.n_members
        raise MissingData(
            expected="replicability of its syllables",
            found="a model of one chain, without" if n == 1 else f"a consensus of {n}, without",
            where=str(opened.store),
            fix=f"fit several chains: {ENSEMBLE}",
        )
    used = np.asarray(opened.used)
    ends = (-0.7, len(used) - 0.3 + max(1.0, 0.16 * len(used)))  # with room for words
    style = {
        **frame(380, xgrid=False, ygrid=False),
        "xlim": ends,
        "ylim": _INDEX_LIMITS,
        "xticks": [(place, str(state)) for place, state in enumerate(used)],
        "xlabel": "syllable, the most frequent first",
        "ylabel": "Jaccard index between halves",
        "title": "dots: halves of the chains"
        + (", squares: halves of the sessions" if found.is_known_between_sessions else ""),
    }
    points = [_replicated(opened, used, found.between_chains, "between chains")]
    if found.is_known_between_sessions:
        index = found.between_sessions
        points.append(_replicated(opened, used, index, "between sessions", is_second=True))
    bands, words = _bands(*ends)
    # HoloViews leaves out the tools of an overlay whose first element has none.
    return hv.Overlay([bands.opts(**style), words, *points]).opts(**style, show_legend=False)


def _bands(left: float, right: float) -> tuple[hv.Rectangles, hv.Labels]:
    """What Jaccard indices mean: coloured bands, and their words at the right end."""
    low, high = _INDEX_LIMITS
    edges = [high, *(least for least, _ in READINGS[:-1]), low]
    names = [words for _, words in READINGS]
    boxes = [
        (left, below, right, above, _BANDS[words])
        for words, above, below in zip(names, edges, edges[1:], strict=False)
    ]
    rectangles = hv.Rectangles(boxes, kdims=["x0", "y0", "x1", "y1"], vdims=["band"])
    middles = [(below + above) / 2 for _, below, _, above, _ in boxes]
    words = hv.Labels((np.full(len(names), right), middles, names), vdims=["words"])
    return (
        rectangles.opts(fill_color="band", line_color="#ffffff", line_width=1.5),
        words.opts(
            text_align="right",
            text_color=INK,
            text_font_size="9pt",
            xoffset=-0.008 * (right - left),
            default_tools=[],
        ),
    )


def _replicated(
    opened: OpenModel, used: np.ndarray, index: np.ndarray, label: str, *, is_second: bool = False
) -> hv.Points:
    """Points of the syllables; those of a second index are smaller squares beside the first."""
    found = opened.replicability
    share = found.frequency[used]
    size = np.interp(np.sqrt(share / share.max()), (0, 1), _SYLLABLE_SIZES) * (
        0.5 if is_second else 1
    )
    colors = np.asarray([syllable_color(int(state)) for state in used], dtype=object)
    table = (
        np.arange(len(used)) + (0.3 if is_second else 0.0),
        index[used],
        np.asarray([opened.names.label(int(state)) for state in used], dtype=object),
        100 * share,
        np.asarray([reading(float(one)) for one in index[used]], dtype=object),
        found.family[used],
        colors,
        size,
    )
    hover = hover_tool(
        ("syllable", "@syllable"),
        ("frames", "@frequency{0.0} %"),
        (f"Jaccard index {label}", "@jaccard{0.00}"),
        ("reading", "@reading"),
        *([("family", "@family")] if found.has_families else []),
    )
    names = ["syllable", "frequency", "reading", "family", "color", "size"]
    points = hv.Points(table, kdims=["place", "jaccard"], vdims=names, label=label)
    return points.opts(
        marker="square" if is_second else "circle",
        size="size",
        fill_color="#ffffff" if is_second else "color",
        line_color="color" if is_second else INK,
        line_width=2.5 if is_second else 0.8,
        tools=[hover],
        default_tools=[],
    )


def replicability_lines(
    opened: OpenModel, syllable: int, *, with_others: bool = True
) -> list[tuple[str, str]]:
    """Names and values for a card: how far a syllable replicates, its family; what is known.

    ``with_others``: name others of the family, too.
    """
    found = opened.replicability
    indices = (("seeds", found.between_chains), ("sessions", found.between_sessions))
    lines = [
        (name, f"{index[syllable]:.2f}, {reading(float(index[syllable]))}")
        for name, index in indices
        if np.isfinite(index[syllable])
    ]
    if found.family[syllable] >= 0:
        others = listed(map(opened.names.label, found.siblings(syllable)), _MOST_SIBLINGS)
        beside = f" (with {others})" if others and with_others else ""
        lines.append(("family", f"{found.family[syllable]}{beside}"))
    return lines
