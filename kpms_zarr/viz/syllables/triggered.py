"""Averages around onsets as ``kpms_zarr.triggered_average`` finds them: a view, and a sheet."""

from __future__ import annotations

import html

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.sheets import PaperSheet
from kpms_zarr.viz.shared.style import INK, MUTED, frame, hover_tool, load, short
from kpms_zarr.viz.syllables.drawing import faded
from kpms_zarr.viz.syllables.typical import label_of

_BAND = "#dfe3e8"
_BASELINE = "#7b8794"


def triggered_average(
    found: xr.Dataset,
    *,
    syllables: list[int] | None = None,
    height: int = 240,
    width: int | None = 320,
) -> hv.Layout:
    """Averages of a signal around the onsets of syllables, and the band of shuffled onsets.

    Parameters
    ----------
    found : xarray.Dataset
        What ``kpms_zarr.triggered_average`` returns.
    syllables : list of int, optional
        Only these (default: all that have one).
    height, width : int
        Of each drawing, in px; ``width=None`` = as wide as its place.

    Returns
    -------
    holoviews.Layout
        For each syllable an Area (95 % of the shuffles at each time), a dashed Curve (their mean),
        a Spread (mean and its standard error), a Curve (mean), and a line at the onset.

    Raises
    ------
    InputError
        For syllables that it does not have.
    """
    load()
    places = _places(found, syllables)
    time, unit = found["time"].values, str(found.attrs["units"])
    low, high = _limits(found, places)
    hover = hover_tool(("time", "@time{0.00} s"), ("mean", "@mean{0.000}"))
    views = []
    for place in places:
        one = found.isel(syllable=place)
        color = syllable_color(int(one["syllable"]))
        band = one["baseline_quantile"].values
        parts = [
            hv.Area((time, band[0], band[1]), kdims=["time"], vdims=["low", "high"]).opts(
                color=_BAND, line_width=0, default_tools=[]
            ),
            hv.Curve((time, one["baseline_mean"].values), kdims=["time"], vdims=["mean"]).opts(
                color=_BASELINE, line_dash="dashed", line_width=1, default_tools=[]
            ),
            hv.Spread(
                (time, one["mean"].values, np.nan_to_num(one["sem"].values)),
                kdims=["time"], vdims=["mean", "error"],
            ).opts(color=color, fill_alpha=0.3, line_width=0, default_tools=[]),
            hv.Curve((time, one["mean"].values), kdims=["time"], vdims=["mean"]).opts(
                color=color, line_width=2, tools=[hover], default_tools=[]
            ),
            hv.VLine(0).opts(color=INK, line_width=1, line_dash="dotted", default_tools=[]),
        ]  # fmt: skip
        style = {
            **frame(height),
            "active_tools": [],
            **({} if width is None else {"responsive": False, "width": width}),
            "xlim": (float(time[0]), float(time[-1])),
            "ylim": (low, high),
            "xlabel": "time after the onset (s)",
            "ylabel": short(f"{found.attrs['signal']} ({unit})" if unit else _name(found), 30),
            "title": f"{label_of(found, place)}: {_p_words(one)}",
        }
        views.append(hv.Overlay(parts).opts(**style, show_legend=False))
    return hv.Layout(views).cols(3)


def triggered_sheet(found: xr.Dataset, columns: int = 3) -> PaperSheet:
    """All averages of a result on one sheet, on the same axes."""
    places = _places(found, None)
    columns = min(columns, len(places))
    rows = -(-len(places) // columns)
    low, high = _limits(found, places)
    width, height, gap = 150.0, 96.0, (44.0, 40.0)
    sheet = PaperSheet(max(columns * (width + gap[0]) + 16, 360), 66 + rows * (height + gap[1]))
    unit = str(found.attrs["units"])
    title = f"{_name(found)}{f' ({unit})' if unit else ''} around onsets of syllables"
    sheet.words((10, 16), title, 12)
    over = str(found.attrs["sem_over"])
    words = (
        f"colour: mean \u00b1 standard error over {over}; grey: 95 % of "
        f"{int(found.attrs['shuffles']):,} shuffles at each time"
    )
    sheet.words((10, 32), words, 7.5, MUTED)
    sheet.words(
        (10, 43), "p: largest deviation over all times; q: for the number of syllables", 7.5, MUTED
    )
    for number, place in enumerate(places):
        left = 40 + (number % columns) * (width + gap[0])
        top = 70 + (number // columns) * (height + gap[1])
        _draw(sheet, found, place, (left, top, width, height), (low, high))
    return sheet


def small_curve(found: xr.Dataset, syllable: int, label: str) -> str:
    """An average without axes as SVG, all of a result on the same scale.

    Parameters
    ----------
    found : xarray.Dataset
    syllable : int
        That has an average.
    label : str
        What those hear who do not see it.
    """
    places = _places(found, None)
    (place,) = _places(found, [syllable])
    low, high = _limits(found, places)
    one, time = found.isel(syllable=place), found["time"].values
    width, height = 200.0, 90.0
    x = width * (time - time[0]) / (time[-1] - time[0])

    def line(values: np.ndarray) -> list[str]:
        y = height * (high - np.clip(values, low, high)) / (high - low)
        return [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b)]

    band = one["baseline_quantile"].values
    around = " ".join([*line(band[0]), *reversed(line(band[1]))])
    onset = width * (0 - time[0]) / (time[-1] - time[0])
    color = syllable_color(int(one["syllable"]))
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg"><polygon points="{around}" fill="{_BAND}"/>'
        f'<path d="M{onset:.1f},0V{height:g}" stroke="{MUTED}" stroke-dasharray="3 3"/>'
        f'<polyline points="{" ".join(line(one["mean"].values))}" fill="none" stroke="{color}" '
        'stroke-width="3" stroke-linejoin="round"/></svg>'
    )


def _draw(
    sheet: PaperSheet,
    found: xr.Dataset,
    place: int,
    box: tuple[float, float, float, float],
    limits: tuple[float, float],
) -> None:
    left, top, width, height = box
    one, time = found.isel(syllable=place), found["time"].values
    color = syllable_color(int(one["syllable"]))
    x = left + width * (time - time[0]) / (time[-1] - time[0])

    def at(values: np.ndarray) -> np.ndarray:
        y = top + height * (limits[1] - values) / (limits[1] - limits[0])
        return np.stack([x, np.clip(y, top, top + height)], axis=1)

    def band(low: np.ndarray, high: np.ndarray, fill: str) -> None:
        sheet.area(np.concatenate([at(low), at(high)[::-1]]), fill)

    low, high = one["baseline_quantile"].values
    band(low, high, _BAND)
    mean, error = one["mean"].values, np.nan_to_num(one["sem"].values)
    band(mean - error, mean + error, faded(color, 0.35))
    sheet.line(at(one["baseline_mean"].values), _BASELINE, 0.8, is_dashed=True)
    onset = left + width * (0 - time[0]) / (time[-1] - time[0])
    sheet.line(np.array([(onset, top), (onset, top + height)]), MUTED, 0.6, is_dashed=True)
    sheet.line(at(mean), color, 1.4)
    sheet.line(np.array([(left, top), (left, top + height), (left + width, top + height)]), MUTED,
               0.8)  # fmt: skip
    for value in _ticks(*limits, 4):
        y = top + height * (limits[1] - value) / (limits[1] - limits[0])
        sheet.line(np.array([(left - 3, y), (left, y)]), MUTED, 0.8)
        sheet.words((left - 5, y), _number(value), 7, INK, "r")
    for value in _ticks(time[0], time[-1], 5):
        tick = left + width * (value - time[0]) / (time[-1] - time[0])
        sheet.line(np.array([(tick, top + height), (tick, top + height + 3)]), MUTED, 0.8)
        sheet.words((tick, top + height + 9), _number(value), 7, INK, "m")
    sheet.words((left + width, top + height + 18), "s after the onset", 6.5, MUTED, "r")
    sheet.words((left, top - 7), f"{label_of(found, place)}: {_p_words(one)}", 7.5)


def _places(found: xr.Dataset, syllables: list[int] | None) -> list[int]:
    numbers = found["syllable"].values.tolist()
    there = [n for n, k in zip(numbers, found["n_sessions"].values, strict=True) if k > 0]
    wanted = there if syllables is None else syllables
    wrong = [one for one in wanted if one not in there]
    if wrong or not wanted:
        raise InputError(
            expected=f"syllables with an average: {', '.join(map(str, there)) or 'none'}",
            found=", ".join(map(str, wrong)) or "none",
            where="`syllables=`",
            fix="choose some of these",
        )
    return [numbers.index(one) for one in wanted]


def _limits(found: xr.Dataset, places: list[int]) -> tuple[float, float]:
    one = found.isel(syllable=places)
    error = np.nan_to_num(one["sem"].values)
    every = np.concatenate(
        [
            (one["mean"].values - error).ravel(),
            (one["mean"].values + error).ravel(),
            one["baseline_quantile"].values.ravel(),
        ]
    )
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _ticks(low: float, high: float, n: int) -> list[float]:
    """Round numbers between two limits, about n of them."""
    raw = (high - low) / n
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((one * power for one in (1, 2, 5, 10)), key=lambda one: abs(one - raw))
    return [
        float(k * step) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)
    ]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _name(found: xr.Dataset) -> str:
    return str(found.attrs["signal"]).replace("_", " ")


def _p_words(one: xr.Dataset) -> str:
    p, q = float(one["p"]), float(one["q"])
    return f"p {p:.2g}, q {q:.2g}, {int(one['n_onsets']):,} onsets"
