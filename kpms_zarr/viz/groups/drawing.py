"""What groups do otherwise: statistics of syllables by group, and transitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.shared.colors import group_color
from kpms_zarr.viz.shared.style import INK, MUTED, frame, hover_tool, load, short

Naming = Callable[[int], str]

MOST_SYLLABLES = 40
"""In one picture."""
ALPHA = 0.05
"""Below which q counts as a difference."""
_REACH = 0.34
"""Half of the room that the groups of a syllable have."""
_SPREAD = 0.35
"""Of the points of a group, by the room that it has."""
LABELS = {
    "frequency": "share of the frames (%)",
    "bouts": "share of the bouts (%)",
    "duration": "mean duration (ms)",
    "median_duration": "median duration (ms)",
    "speed": "speed (tracking units/s)",
    "turning": "turning (rad/s)",
    "absolute_turning": "absolute turning (rad/s)",
}
"""Of axes, by statistic."""
_IN_PERCENT = ("frequency", "bouts")


def in_order(tests: xr.Dataset, statistic: str) -> list[int]:
    """Order syllables for a picture: of two groups by difference of means, else by the mean.

    Parameters
    ----------
    tests : xarray.Dataset, (statistic, state)
        ``kpms_zarr.compare_groups(...).tests``.

    Returns
    -------
    list of int
        Numbers of at most 40 syllables, those of the smallest p.
    """
    one = chosen(tests, statistic)
    mean = one["mean"].values
    key = mean[:, 0] - mean[:, 1] if mean.shape[1] == 2 else -mean.mean(1)
    p = np.where(np.isfinite(one["p"].values), one["p"].values, np.inf)
    kept = np.sort(np.argsort(p, kind="stable")[:MOST_SYLLABLES])
    key = np.where(np.isfinite(key), key, np.inf)[kept]
    return [int(one["state"].values[i]) for i in kept[np.argsort(key, kind="stable")]]


def group_statistics(
    tests: xr.Dataset,
    values: xr.Dataset,
    *,
    statistic: str = "frequency",
    syllables: Sequence[int] | None = None,
    naming: Naming = str,
    highlight: int = -1,
) -> hv.Overlay:
    """A statistic of each syllable by group: a point for each unit, mean and its 95 % interval.

    Parameters
    ----------
    tests, values : xarray.Dataset
        Of ``kpms_zarr.compare_groups(...)``.
    statistic : str
        One of those that were compared.
    syllables : sequence of int, optional
        In this order (default: see :func:`in_order`).
    naming : callable
        What a syllable is called.
    highlight : int
        Syllable that is marked; -1 = none.

    Returns
    -------
    holoviews.Overlay
        Places of syllables on the x axis count from 0; a star marks q < 0.05.

    Raises
    ------
    InputError
        When there is no such statistic.
    """
    load()
    states = in_order(tests, statistic) if syllables is None else list(syllables)
    one = chosen(tests, statistic).sel(state=states)
    scale = 100.0 if statistic in _IN_PERCENT else 1.0
    units = chosen(values, statistic).sel(state=states)
    groups = [str(name) for name in one["group"].values]
    half = _REACH / len(groups)
    means = [scale * one[name].values for name in ("mean", "mean_low", "mean_high")]
    drawn: list[hv.Element] = []
    top, of_unit = 0.0, scale * units["value"].values
    hover = hover_tool(
        ("syllable", "@syllable"), ("unit", "@unit"), ("group", "@group"),
        (statistic.replace("_", " "), "@value{0.000}"),
    )  # fmt: skip
    called = np.asarray([naming(state) for state in states], dtype=object)
    for number, group in enumerate(groups):
        middle = np.arange(len(states)) + (2 * number + 1 - len(groups)) * half
        mine = of_unit[units["group"].values.astype(str) == group]
        named = units["unit"].values[units["group"].values.astype(str) == group]
        # Evenly beside each other in the order of the values, so that points do not hide others.
        rank = np.argsort(np.argsort(mine, axis=0, kind="stable"), axis=0, kind="stable")
        aside = _SPREAD * half * (2 * ((rank * 0.618034) % 1) - 1)
        row, column = (grid.ravel() for grid in np.indices(mine.shape))
        points = hv.Points(
            (
                (middle + aside).ravel(), mine.ravel(), called[column],
                named[row].astype(object), np.full(row.shape, group, dtype=object),
            ),
            kdims=["place", "value"], vdims=["syllable", "unit", "group"], label=group,
        )  # fmt: skip
        color = group_color(number)
        drawn.append(points.opts(color=color, alpha=0.45, size=6, line_color=None, tools=[hover]))
        mean, low, high = (column[:, number] for column in means)
        lines = [(x - half * 0.8, y, x + half * 0.8, y) for x, y in zip(middle, mean, strict=True)]
        bars = [(x, a, x, b) for x, a, b in zip(middle, low, high, strict=True) if np.isfinite(a)]
        drawn.append(_segments(lines).opts(color=color, line_width=3))
        drawn.append(_segments(bars).opts(color=INK, line_width=1.5))
        top = max([top, *mine[np.isfinite(mine)].tolist(), *high[np.isfinite(high)].tolist()])
    low_end = min(0.0, *of_unit[np.isfinite(of_unit)].tolist()) if of_unit.size else 0.0
    is_found = one["q"].values < ALPHA
    stars = [(x, top * 1.06, "★") for x in np.flatnonzero(is_found)]
    drawn.append(
        hv.Labels(stars, kdims=["place", "value"], vdims=["text"]).opts(
            text_color=INK, text_font_size="13px"
        )
    )
    if highlight in states:
        place = states.index(highlight)
        box = hv.VSpan(place - 0.5, place + 0.5).opts(color=MUTED, alpha=0.13)
        drawn.insert(0, box)
    ticks = [(i, short(text, 14)) for i, text in enumerate(called)]
    is_long = max((len(text) for _, text in ticks), default=0) > 3
    return hv.Overlay(drawn).opts(
        **{
            **frame(360, xgrid=False),
            "xlim": (-0.6, len(states) - 0.4),
            "ylim": (1.1 * low_end, max(1.13 * top, 1e-9)),
            "xticks": ticks,
            "xrotation": 60 if is_long and len(states) > 8 else 0,
            "xlabel": "syllable",
            "ylabel": LABELS.get(statistic, statistic),
        },
        show_legend=True,
        legend_position="top",
        legend_cols=len(groups),
    )


def transition_differences(
    transitions: xr.Dataset,
    *,
    first: str | None = None,
    second: str | None = None,
    naming: Naming = str,
) -> hv.Overlay:
    """Difference between two groups in which syllable follows which.

    Parameters
    ----------
    transitions : xarray.Dataset, (state, state_next)
        ``kpms_zarr.compare_groups(...).transitions``.
    first, second : str, optional
        Groups; what is drawn is the share in the second minus that in the first (default: the
        first two).
    naming : callable
        What a syllable is called.

    Returns
    -------
    holoviews.Overlay
        A HeatMap, kdims next and syllable, vdims difference (in points of the % of the changes
        from the syllable), the two shares (%), p and q; a dot where q < 0.05. Changes that are
        too rare to be tested are white.

    Raises
    ------
    InputError
        When there is no such group.
    """
    load()
    groups = [str(name) for name in transitions["group"].values]
    first, second = first or groups[0], second or groups[1]
    for name, where in ((first, "`first=`"), (second, "`second=`")):
        if name not in groups:
            raise InputError(
                expected=f"one of {', '.join(groups)}", found=repr(name), where=where,
                fix="choose one of these",
            )  # fmt: skip
    states = _commonest(transitions)
    one = transitions.sel(state=states, state_next=states)
    share = 100 * one["share"].values
    before, after = (share[groups.index(name)] for name in (first, second))
    q, p = one["q"].values, one["p"].values
    difference = np.where(np.isfinite(p), after - before, np.nan)
    called = np.asarray([short(naming(state), 16) for state in states], dtype=object)
    row, column = (grid.ravel() for grid in np.indices(difference.shape))
    cells = (
        called[column], called[row],
        *(table.ravel() for table in (difference, before, after, p, q)),
    )  # fmt: skip
    hover = hover_tool(
        ("from", "@syllable"),
        ("to", "@next"),
        (first, "@before{0.0} %"),
        (second, "@after{0.0} %"),
        ("p", "@p{0.0000}"),
        ("q", "@q{0.0000}"),
    )
    heat = hv.HeatMap(
        cells,
        kdims=["next", "syllable"],
        vdims=["difference", "before", "after", "p", "q"],
    )
    reach = max(float(np.nanmax(np.abs(difference), initial=0.0)), 1e-9)
    is_long = max((len(text) for text in called), default=0) > 3
    heat = heat.opts(
        **frame(
            int(np.clip(140 + 22 * len(states), 300, 760)),
            hover=hover,
            cmap=hv.plotting.util.process_cmap("RdBu", 64)[::-1],
            clim=(-reach, reach),
            clipping_colors={"NaN": "#ffffff"},
            line_color="#eef0f2",
            invert_yaxis=True,
            colorbar=True,
            clabel=f"{short(second, 14)} − {short(first, 14)} (points)",
            xlabel="next syllable",
            ylabel="syllable",
            xrotation=90 if is_long else 0,
        )
    )
    found = np.flatnonzero(q.ravel() < ALPHA)
    dots = hv.Labels(
        ([cells[0][i] for i in found], [cells[1][i] for i in found], ["●"] * len(found)),
        kdims=["next", "syllable"], vdims=["text"],
    ).opts(text_color=INK, text_font_size="9px")  # fmt: skip
    return heat * dots


def _commonest(transitions: xr.Dataset) -> list[int]:
    """At most 40 syllables: those of the smallest p of any change from or to them, in order."""
    states = transitions["state"].values
    p = np.where(np.isfinite(transitions["p"].values), transitions["p"].values, np.inf)
    best = np.minimum(p.min(0, initial=np.inf), p.min(1, initial=np.inf))
    kept = np.sort(np.argsort(best, kind="stable")[:MOST_SYLLABLES])
    return [int(state) for state in states[kept]]


def _segments(rows: Sequence[tuple[float, ...]]) -> hv.Segments:
    return hv.Segments(rows, kdims=["x0", "y0", "x1", "y1"])


def chosen(table: xr.Dataset, statistic: str) -> xr.Dataset:
    """One statistic of a table by statistic (InputError: it has it not)."""
    there = [str(name) for name in table["statistic"].values]
    if statistic not in there:
        raise InputError(
            expected=f"one of {', '.join(there)}",
            found=repr(statistic),
            where="`statistic=`",
            fix="choose one of these",
        )
    return table.sel(statistic=statistic)
