"""The command that looks for change points of behaviour without a model."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import (
    add_command,
    call,
    cluster_option,
    duration,
    heading_option,
    model_option,
    number_or_share,
    outlier_option,
)
from kpms_zarr.store.core.commands import command

_MOST_ROWS = 40


def changepoints(commands: Any) -> None:
    """``kpms-zarr changepoints``."""
    added = add_command(
        commands, "changepoints", _run_changepoints,
        "when behaviour changes, without a model: many keypoints change their velocity at once",
    )  # fmt: skip
    model_option(added, required=False)
    added.add_argument("--version", help="of the labels, such as v1 (none = the current one)")
    added.add_argument(
        "--window",
        type=duration,
        default="100ms",
        help="of the mean velocities that are compared: faster changes are averaged out; longer "
        "for slower animals",
    )
    added.add_argument(
        "--false-rate",
        type=float,
        default=0.1,
        help="share of the change points that may be expected by chance",
    )
    added.add_argument(
        "--out", metavar="FILE", help="picture of what was found: .pdf, .png, .svg or .html"
    )
    heading_option(added)
    added.add_argument(
        "--confidence-threshold",
        type=number_or_share,
        default=0.5,
        metavar="VALUE_OR_SHARE",
        help="keypoints with less confidence do not count; 10%%: the value below which 10 %% of "
        "all confidences lie",
    )
    outlier_option(added)
    added.add_argument(
        "--shuffles",
        type=int,
        default=1000,
        help="of the onsets of the model: all of a session shifted in a circle",
    )
    added.add_argument("--seed", type=int, default=0, help="of all that is drawn at random")
    added.add_argument(
        "--host-memory", metavar="16GB", help="of the process (none = what Dask's threads take)"
    )
    cluster_option(added)


def _run_changepoints(options: argparse.Namespace) -> tuple[object, str]:
    from kpms_zarr.viz.movies import typical_files

    if options.out is not None:
        typical_files.check_picture(options.out)
    found = call(kpms_zarr.changepoints, options)
    names, number = map(str, found["session"].values), found["n_changepoints"].values
    minutes = found["n_frames"].values / found["fps"].values / 60
    rows = [
        (name, f"{int(n):,}", f"{n / max(length, 1e-9):.1f}", console.milliseconds(float(median)))
        for name, n, length, median in zip(
            names, number, minutes, found["median_interval"].values, strict=True
        )
    ]
    header = ("session", "change points", "per minute", "median interval")
    lines = [console.table(header, rows[:_MOST_ROWS])]
    if len(rows) > _MOST_ROWS:
        lines.append(f"... and {len(rows) - _MOST_ROWS} sessions more (--json lists all)")
    facts = found.attrs
    if facts["n_changepoints"]:
        lines.append(
            f"{facts['n_changepoints']:,} change points, {console.percent(facts['false_share'])} "
            f"of them expected by chance, of at least {facts['n_at_least']:,} changes that there "
            "are"
        )
    if np.isfinite(facts["median_interval"]):
        lines += _interval_lines(facts, options)
    if "onset_score" in found:
        lines += _onset_lines(found)
    lines += [f"note: {text}" for text in facts.get("notes", ())]
    if options.out is not None:
        n_bytes = typical_files.changepoints_file(found, out=options.out)
        lines.append(f"picture: {options.out} ({console.size(n_bytes)})")
    whole = found.drop_vars(["change_score", "changepoint"])  # long, and for views only
    return whole, "\n".join(lines)


def _interval_lines(facts: dict[str, Any], options: argparse.Namespace) -> list[str]:
    low, middle, high = (
        console.milliseconds(facts[name])
        for name in ("lower_quartile", "median_interval", "upper_quartile")
    )
    target = max(20, 10 * round(facts["target_duration"] / 10))
    asked = f"{max(10, 10 * round(target / 20)):.0f}ms:{target:.0f}ms:5"
    return [
        f"intervals: median {middle}, half of them from {low} to {high}; less what was missed, "
        f"behaviour changes every {target:.0f} ms or more often",
        f"durations to try: {command('scan', options.store, target_durations=asked)}",
    ]


def _onset_lines(found: Any) -> list[str]:
    facts, at_onset = found.attrs, found.sel(lag=0, method="nearest")
    score = float(at_onset["onset_score"])
    least, most = at_onset["shifted_quantile"].values
    shares = (
        console.percent(facts[name]) if np.isfinite(facts[name]) else "-"
        for name in (
            "onset_share", "onset_share_by_chance",
            "changepoint_share", "changepoint_share_by_chance",
        )
    )  # fmt: skip
    onsets, by_chance, points, points_by_chance = shares
    return [
        f"onsets of {facts['model']}: change score {score:.2f} there, {least:.2f} to {most:.2f} "
        f"around shifted onsets; largest deviation p {facts['onset_p']:.2g}",
        f"{onsets} of the onsets have a change point within {facts['window']:g} ms "
        f"({by_chance} by chance), {points} of the change points an onset ({points_by_chance})",
    ]
