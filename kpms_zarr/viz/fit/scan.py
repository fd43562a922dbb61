"""What a scan of settings has found: each figure against what varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.viz.shared.style import INK, LINE, MUTED, frame, hover_tool, load

_COLORS = (LINE, "#b45309", "#00796b", "#8e24aa", "#616161", "#c62828")
"""Of courses that differ in a second setting."""
_HEIGHT, _LEGEND = 270, 45  # px
_MOST_TICKS = 12
_TITLES = {
    "target_duration": "target duration (ms)",
    "kappa": "kappa",
    "latent_dim": "latent dims",
    "lags": "lags (frames)",
    "innovation_scale": "innovation scale S0",
    "innovation_dof": "innovation degrees of freedom",
}
_LOGARITHMIC = ("target_duration", "kappa", "innovation_scale")


class ScanLike(Protocol):
    """Scan of settings: what ``kpms_zarr.scan`` returns."""

    @property
    def store(self) -> str:
        """Path or URL."""
        ...

    @property
    def name(self) -> str:
        """Under which it is kept."""
        ...

    @property
    def axes(self) -> tuple[str, ...]:
        """Settings with more than one value."""
        ...

    @property
    def table(self) -> xr.Dataset:
        """Figures of each chain, (point, chain)."""
        ...

    @property
    def recommendation(self) -> Sequence[str]:
        """What the figures suggest."""
        ...

    @property
    def n_frames(self) -> int:
        """Of the sessions that chains were run on."""
        ...

    @property
    def n_held_out_frames(self) -> int:
        """Of the sessions held out."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was left out."""
        ...


@dataclass(frozen=True)
class Panel:
    """One figure of a scan.

    Attributes
    ----------
    names : tuple of str
        Variables; of a second one only the mean is drawn, dashed.
    title : str
        Of the axis.
    about : str
        What it is, and what to look for.
    digits : int
        Of its values.
    """

    names: tuple[str, ...]
    title: str
    about: str
    digits: int = 2


PANELS = {
    "duration": Panel(
        ("median_duration",),
        "median syllable (ms)",
        "Median bout of the labels. The dashed line is the target, where there is one.",
        0,
    ),
    "number": Panel(
        ("effective_number", "n_used"),
        "syllables",
        "Effective number, exp of the entropy of usage (points, line), and syllables with 0.5 % of "
        "the frames or more (dashed).",
        1,
    ),
    "held_out": Panel(
        ("held_out_log_likelihood",),
        "held out (nat/frame)",
        "Log likelihood of sessions that no chain has seen, labels summed out. Higher is better.",
        3,
    ),
    "agreement": Panel(
        ("adjusted_rand_index",),
        "ARI between chains",
        "Adjusted Rand index of each chain with the others of the same settings. Few syllables "
        "agree easily: read it beside their effective number.",
    ),
    "eml": Panel(
        ("expected_marginal_likelihood",),
        "EML (nat/frame)",
        "Expected marginal likelihood: of the pose of the other chains under the parameters of "
        "each, labels summed out. Higher is better.",
        3,
    ),
    "evidence": Panel(
        ("log_evidence",),
        "evidence (nat/frame)",
        "Log evidence of pose and labels, parameters integrated out; ranks chains of one pose.",
        3,
    ),
}
"""Panels by name, in the order in which they are looked at."""


def panels_of(scan: ScanLike) -> tuple[str, ...]:
    """Names of the panels for which a scan has numbers that can be compared."""
    return tuple(name for name, panel in PANELS.items() if is_shown(scan, panel.names[0]))


def is_shown(scan: ScanLike, name: str) -> bool:
    """Whether a figure is there, and of the same data at all points: the evidence is a density of
    all latent dims, so that those of several numbers of dims cannot be compared."""
    if name == "log_evidence" and "latent_dim" in scan.axes:
        return False
    return bool(np.isfinite(scan.table[name].values.astype(float)).any())


def scan_panel(scan: ScanLike, panel: str = "held_out") -> hv.Overlay:
    """One figure of a scan against the setting that varies: points of chains, a line the mean.

    Parameters
    ----------
    scan : Scan
        What ``kpms_zarr.scan`` returns.
    panel : str
        ``"duration"``, ``"number"``, ``"held_out"``, ``"agreement"``, ``"eml"`` or ``"evidence"``.

    Returns
    -------
    holoviews.Overlay
        Points (setting, value, seed), a Path of thin lines that join those of one seed, and a Curve
        of the mean, for each combination of the other settings that vary.
    """
    load()
    found, table = PANELS[panel], scan.table
    axis = _axis(scan)
    parts: list[hv.Element] = []
    for label, rows, color in _courses(scan, axis):
        parts += _course(table.isel(point=rows), axis, found, label, color)
    if panel == "duration":
        parts += _targets(scan, axis)
    x = table[axis].values.astype(float)
    is_log = axis in _LOGARITHMIC and len(np.unique(x)) > 1
    # Named: on a logarithmic axis Bokeh would round them to powers of ten.
    more: dict[str, Any] = {}
    if len(set(x)) <= _MOST_TICKS:
        more["xticks"] = [(value, f"{value:g}") for value in sorted(set(x.tolist()))]
    return hv.Overlay(parts).opts(
        **frame(
            _HEIGHT + (_LEGEND if len(scan.axes) > 1 else 0),
            xlabel=_TITLES[axis],
            ylabel=found.title,
            logx=is_log,
            xlim=_limits(x, is_log),
            padding=(0, 0.12),
            legend_position="top",
            show_legend=len(scan.axes) > 1,
            **more,
        )
    )


def _axis(scan: ScanLike) -> str:
    """Setting along the axis: that with most values."""
    table = scan.table
    return max(scan.axes, key=lambda name: len(np.unique(table[name].values)))


def _courses(scan: ScanLike, axis: str) -> list[tuple[str, np.ndarray, str]]:
    """Points along the axis for each combination of the others: label, rows, colour."""
    others = [name for name in scan.axes if name != axis]
    table = scan.table
    keys = list(zip(*(table[name].values.tolist() for name in others), strict=True))
    if not others:
        keys = [()] * table.sizes["point"]
    found = []
    for number, key in enumerate(dict.fromkeys(keys)):
        rows = np.array([row for row, one in enumerate(keys) if one == key])
        rows = rows[np.argsort(table[axis].values[rows], kind="stable")]
        texts = [f"{_TITLES[name]} {value:g}" for name, value in zip(others, key, strict=True)]
        found.append((", ".join(texts), rows, _COLORS[number % len(_COLORS)]))
    return found


def _course(table: xr.Dataset, axis: str, panel: Panel, label: str, color: str) -> list[hv.Element]:
    x, name = table[axis].values.astype(float), panel.names[0]
    values = table[name].values.astype(float)
    seeds = np.broadcast_to(table["seed"].values, values.shape)
    wide = np.broadcast_to(x[:, None], values.shape)
    is_there = np.isfinite(values)
    hover = hover_tool(
        (_TITLES[axis], "@setting{0,0.[000]}"),
        (panel.title, f"@value{{0,0.{'0' * panel.digits or '[0]'}}}"),
        ("seed", "@seed"),
    )
    points = hv.Points(
        (wide[is_there], values[is_there], seeds[is_there]),
        kdims=["setting", "value"],
        vdims=["seed"],
        label=label,
    ).opts(color=color, size=7, alpha=0.75, line_color=INK, line_width=0.4, tools=[hover],
           default_tools=[])  # fmt: skip
    of_seeds = [np.stack([x, column], 1) for column in values.T]
    thin = hv.Path(of_seeds, kdims=["setting", "value"])
    parts: list[hv.Element] = [thin.opts(color=color, alpha=0.3, line_width=1)]
    for one, dash in zip(panel.names, ("solid", "dashed"), strict=False):
        mean = _mean(table[one].values.astype(float))
        curve = hv.Curve((x, mean), kdims=["setting"], vdims=["value"], label=label)
        parts.append(curve.opts(color=color, line_width=1.8, line_dash=dash))
    return [*parts, points]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the chains that there are: (point, chain) -> (point,)."""
    number = np.isfinite(values).sum(1)
    total = np.where(np.isfinite(values), values, 0).sum(1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _targets(scan: ScanLike, axis: str) -> list[hv.Element]:
    """Line of the durations that were asked for."""
    table = scan.table
    if "target_duration" not in table.coords:
        return []
    x, order = table[axis].values.astype(float), np.argsort(table[axis].values)
    target = table["target_duration"].values[order]
    curve = hv.Curve((x[order], target), kdims=["setting"], vdims=["value"], label="target")
    return [curve.opts(color=MUTED, line_width=1, line_dash="dashed")]


def _limits(x: np.ndarray, is_log: bool) -> tuple[float, float]:
    low, high = float(x.min()), float(x.max())
    if low == high:
        return low - 1, high + 1
    if is_log:
        margin = (high / low) ** 0.06
        return low / margin, high * margin
    margin = 0.06 * (high - low)
    return low - margin, high + margin
