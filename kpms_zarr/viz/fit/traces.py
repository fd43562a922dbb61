"""The course of a fit over its sweeps and stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import FitStage
from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, load, second_axis
from kpms_zarr.viz.shared.views import view

_MAX_SWEEPS = 4000
_HEIGHT = 230
_HEIGHT_WITH_TITLE = 260
_LABEL_SHARE = 0.15  # Narrower stages have no room for their name.
_COLORS = {"ar": "#8a6d1d"}
_CURVES = {
    "trace_log_likelihood": "log likelihood (nat / frame)",
    "trace_median_duration": "median bout (frames)",
    "trace_kappa": "stickiness kappa",
    "trace_n_used": "syllables in use",
    "trace_log_evidence": "log evidence (nat / frame)",
    "trace_label_change": "labels that change (share)",
}
_TERMS = {
    "syllable": ("syllable", "#0b5394"),
    "latent": ("latent pose", "#b45309"),
    "centroid": ("centroid", "#4d7c0f"),
    "noise_scale": ("noise scale", "#86198f"),
    "position": ("position", "#1f2933"),
}


@view
def traces(opened: OpenModel) -> hv.Layout:
    """Course of the fit: log likelihood, median duration, stickiness, syllables, evidence, changes.

    A fit in progress is drawn by ``fit_views.fit_traces``.

    Returns
    -------
    holoviews.Layout
        Six Curves over sweep; those not stored are left out. Of a fit in several stages the
        log likelihood and the log evidence, which are of other quantities in each, have one Curve
        a stage, the others are Overlays of one Curve a stage. Of a full stage a last Overlay shows
        the parts of the log probability as differences from their last values. Of more than 4,000
        sweeps every second, third, ... is shown. A dashed line marks the target of the median
        duration, where the fit had one.

    Raises
    ------
    MissingData
        When the version has no traces.
    """
    data = opened.parameters_with(*([] if _names(opened.parameters) else ["trace_log_likelihood"]))
    settings = provenance_of(data.attrs).get("settings", {})
    return draw_traces(data, opened.rates, settings.get("target_duration"))


def draw_traces(data: xr.Dataset, rates: Sequence[float], target: float | None = None) -> hv.Layout:
    """Draw what :func:`traces` returns, of traces that are open already.

    Parameters
    ----------
    data : Dataset
        With ``trace_*`` (sweep), of one sweep or more.
    rates : sequence of float, (session,)
        Frames per second.
    target : float, optional
        Of the median duration, in ms.
    """
    load()
    frame_ms = 1000 / float(max(rates)) if len(rates) else None
    is_time = len(set(rates)) == 1
    stages = reading.stages(data)
    panels: list[hv.core.Dimensioned] = []
    for name in _names(data):
        values = data[name].values.astype(float)
        if name == "trace_log_likelihood" and len(stages) > 1:
            panels += [_stage_curve(name, values, stage) for stage in stages]
        elif name == "trace_log_evidence":
            panels += [
                _stage_curve(name, values, stage)
                for stage in stages
                if np.isfinite(values[stage.start : stage.stop]).any()
            ]
        elif name == "trace_median_duration" and frame_ms is not None:
            at = None if target is None else target / (1.0 if is_time else frame_ms)
            panels.append(_panel(name, values, stages, frame_ms if is_time else None, at))
        else:
            panels.append(_panel(name, values, stages, None))
    has_parts = bool(stages) and stages[-1].name == "full"
    parts = _parts(data, stages[-1]) if has_parts else None
    return hv.Layout([*panels, *([parts] if parts else [])]).cols(2)


def _names(data: xr.Dataset) -> list[str]:
    return [name for name in _CURVES if name in data]


def _panel(
    name: str,
    values: np.ndarray,
    stages: Sequence[FitStage],
    frame_ms: float | None,
    target: float | None = None,
) -> hv.core.Dimensioned:
    """One quantity over all sweeps: a Curve, or an Overlay of one Curve a stage.

    ``target``: where a dashed line is drawn, in units of the axis.
    """
    label, tooltips = _CURVES[name], [("sweep", "@sweep")]
    is_time = name == "trace_median_duration" and frame_ms is not None
    if is_time:
        label = "median bout (ms)"
        tooltips.append(("median bout", f"@{name}{{0}} ms = @frames frames"))
    else:
        tooltips.append((label.split(" (")[0], f"@{name}{{0.[000]}}"))
    factor = frame_ms if is_time and frame_ms is not None else 1.0
    is_log = not is_time and _is_log(name, values)
    style = {
        **frame(_HEIGHT, hover=hover_tool(*tooltips, mode="vline")),
        "logy": is_log,
        "ylim": _limits(
            np.append(factor * values, [] if target is None else target),
            is_log=is_log,
            headroom=0.25 if len(stages) > 1 or target else 0.05,
        ),
        "xlabel": "sweep",
        "ylabel": label,
    }
    curves = [_curve(name, values, stage, factor if is_time else None) for stage in stages]
    curves = [curve.opts(**style) for curve in curves]
    whole: dict[str, Any] = {**style, "show_legend": False} if len(stages) > 1 else {**style}
    if is_time:
        whole["hooks"] = [*style["hooks"], second_axis("frames", scale=factor)]
    more = _borders(stages, style["ylim"]) if stages[1:] else []
    if target is not None:
        line = hv.HLine(target)
        more.append(line.opts(color=INK, line_width=1.5, line_dash="dashed", default_tools=[]))
        # In the title, where no curve runs through the words.
        unit = label.rpartition("(")[2].rstrip(")")
        whole["title"] = f"dashed: the target, {target:.4g} {unit}"
    drawn = hv.Overlay([*curves, *more]) if more else curves[0]
    return drawn.opts(**({**whole, "show_legend": False} if more else whole))


def _stage_curve(name: str, values: np.ndarray, stage: FitStage) -> hv.Curve:
    """A log probability in one stage; its first sweeps may lie below the axis."""
    quantity_name = _CURVES[name].split(" (")[0]
    tooltips = [("sweep", "@sweep"), (f"{quantity_name}, {stage.label}", f"@{name}{{0.[000]}}")]
    # Axes with the labels of the stage: HoloViews links those of a layout that look alike.
    quantity = hv.Dimension(name, label=f"{name} of the {stage.label}")
    curve = _curve(name, values, stage, None).redim(**{"sweep": _sweep_of(stage), name: quantity})
    return curve.opts(
        **frame(_HEIGHT_WITH_TITLE, hover=hover_tool(*tooltips, mode="vline")),
        title=f"{stage.label}: {stage.n_sweeps:,} sweep{'s' if stage.n_sweeps > 1 else ''}",
        xlim=_stage_limits(stage),
        ylim=_limits(_settled(values[stage.start : stage.stop])),
        xlabel="sweep",
        ylabel=_CURVES[name],
    )


def _curve(name: str, values: np.ndarray, stage: FitStage, frame_ms: float | None) -> hv.Curve:
    """A quantity over the sweeps of one stage, in ms (and frames) with ``frame_ms``."""
    sweep = np.arange(stage.start, stage.stop, _step(len(values)))
    columns: tuple[np.ndarray, ...] = (sweep, values[sweep])
    vdims = [name]
    if frame_ms is not None:
        columns, vdims = (sweep, values[sweep] * frame_ms, values[sweep]), [name, "frames"]
    return hv.Curve(columns, kdims=["sweep"], vdims=vdims).opts(
        color=_color(stage),
        line_width=2,
        interpolation="steps-mid" if name == "trace_n_used" else "linear",
    )


def _borders(stages: Sequence[FitStage], ylim: tuple[float, float]) -> list[hv.Element]:
    """A dashed line between two stages, and their names at the top where there is room."""
    n_sweeps = stages[-1].stop
    lines = hv.VLines([stage.start - 0.5 for stage in stages[1:]]).opts(
        color=MUTED, line_width=1.5, line_dash="dashed", default_tools=[]
    )
    names = [
        hv.Text(stage.start + 0.015 * n_sweeps, ylim[1], stage.label, halign="left", valign="top")
        .opts(color=_color(stage), text_font_size="13px", default_tools=[])
        for stage in stages
        if stage.n_sweeps >= _LABEL_SHARE * n_sweeps
    ]  # fmt: skip
    return [lines, *names]


def _parts(data: xr.Dataset, stage: FitStage) -> hv.Overlay | None:
    """Parts of the log probability, each against its value at the last sweep."""
    if not {"trace_log_probability", "term"} <= set(data.variables):
        return None
    sweep = np.arange(stage.start, stage.stop, _step(data.sizes["sweep"]))
    values = data["trace_log_probability"].transpose("sweep", "term").values
    last = values[stage.stop - 1]
    curves, shown = [], []
    for column, name in enumerate(map(str, data["term"].values)):
        if not np.isfinite(last[column]):
            continue
        label, color = _TERMS.get(name, (name, MUTED))
        part = values[sweep, column]
        table = (sweep, part - last[column], part, np.full(len(sweep), label, dtype=object))
        shown.append(values[stage.start : stage.stop, column] - last[column])
        curve = hv.Curve(
            table, kdims=[_sweep_of(stage)], vdims=["change", "part", "term"], label=label
        )
        curves.append(curve.opts(color=color, line_width=2))
    if not curves:
        return None
    hover = hover_tool(
        ("sweep", "@sweep"),
        ("part of the model", "@term"),
        ("log probability", "@part{0.[000]} nat / frame"),
        ("against the last sweep", "@change{+0.[000]}"),
    )
    settled = np.concatenate([_settled(part) for part in shown])
    style = {
        **frame(_HEIGHT_WITH_TITLE, hover=hover),
        "title": f"{stage.label}: parts of the model",
        "xlim": _stage_limits(stage),
        "ylim": _limits(settled),
        "xlabel": "sweep",
        "ylabel": "against last sweep (nat / frame)",
    }
    return hv.Overlay([curve.opts(**style) for curve in curves]).opts(
        **style, legend_position="right", legend_opts=_LEGEND
    )


_LEGEND: dict[str, Any] = {
    "label_text_font_size": "12px",
    "label_text_color": INK,
    "border_line_color": None,
    "padding": 0,
    "margin": 6,
    "spacing": 1,
    "glyph_width": 14,
}


def _sweep_of(stage: FitStage) -> hv.Dimension:
    return hv.Dimension("sweep", label=f"sweep of the {stage.label}")


def _step(n_sweeps: int) -> int:
    return max(1, -(-n_sweeps // _MAX_SWEEPS))


def _color(stage: FitStage) -> str:
    """One colour a stage; a model of one stage has the colour of all lines."""
    return _COLORS.get(stage.name, LINE)


def _stage_limits(stage: FitStage) -> tuple[float, float]:
    margin = max(0.5, 0.02 * stage.n_sweeps)
    return stage.start - margin, stage.stop - 1 + margin


def _is_log(name: str, values: np.ndarray) -> bool:
    """Whether the axis is logarithmic: kappa alone spans powers of ten by design."""
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() <= 0:
        return False
    return name == "trace_kappa" or bool(finite.max() / finite.min() > 20)


def _settled(values: np.ndarray) -> np.ndarray:
    """Values without the first sweeps of a stage, where those would squash the rest.

    The first twentieth (three sweeps at least) is left out of what an axis must show when the
    others span less than a quarter of the whole.
    """
    rest = values[max(3, len(values) // 20) :]
    rest, finite = rest[np.isfinite(rest)], values[np.isfinite(values)]
    if len(rest) < 2 or not 0 < 4 * np.ptp(rest) < np.ptp(finite):
        return values
    return rest


def _limits(
    values: np.ndarray, *, is_log: bool = False, headroom: float = 0.05
) -> tuple[float, float]:
    """Limits of an axis around all finite values, with room above for what is written there."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (0.1, 1.0) if is_log else (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if is_log:
        low, high = np.log10(low), np.log10(high)
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):
        span = 1.0 if is_log else max(0.1 * abs(high), 1e-3)
        low, high = low - span / 2, high + span / 2
    low, high = low - 0.05 * span, high + headroom * span
    return (10**low, 10**high) if is_log else (low, high)
