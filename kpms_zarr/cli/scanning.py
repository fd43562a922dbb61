"""The command that helps to choose settings of a fit."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, cluster_option, selectors
from kpms_zarr.cli.running import (
    budget_of,
    callbacks_of,
    file_option,
    resource_options,
    typed_settings,
    watching_options,
)
from kpms_zarr.cli.settings import add_settings
from kpms_zarr.compute.runs.choosing import mean_and_error
from kpms_zarr.compute.runs.grid import AXES
from kpms_zarr.store.wording import counted

_NOT_SETTINGS = (
    "from_model", "stage", "seed", "certainty", "save_noise_scale", "until_settled"
)  # fmt: skip
"""Of a fit, without an option here, or one of their own, besides what is varied."""


def scan(commands: Any) -> None:
    """``kpms-zarr scan``."""
    about = "try settings in short chains: durations, kappa, latent dims, lags, innovation prior"
    command = add_command(commands, "scan", _run_scan, about)
    group = command.add_argument_group(
        "what varies",
        "one of these or more: a range FROM:TO:NUMBER, evenly spread in the logarithm or whole "
        "numbers, or values separated by commas",
    )
    for axis in AXES:
        group.add_argument(
            "--" + axis.name.replace("_", "-"), metavar=axis.example, help=f"{axis.title} to try"
        )
    command.add_argument("--chains", type=int, default=3, help="of each combination, by seed")
    command.add_argument("--seed", type=int, default=0, help="of the first chain")
    command.add_argument(
        "--held-out",
        type=_number_or_sessions,
        metavar="N|A,B*",
        help="sessions that no chain sees, by which they are compared: how many, or which (none = "
        "about a fifth; 0 in the full stage)",
    )
    command.add_argument(
        "--name",
        help="under which it is kept; the same command goes on with it (none = what varies, such "
        "as kappa)",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="drop what another scan of that name has found"
    )
    command.add_argument("--breakdown", action="store_true", help="a row for each chain")
    command.add_argument("--out", metavar="PAGE.html", help="draw the figures as a page")
    settings = command.add_argument_group(
        "settings",
        "of every chain; sessions are a part of all with about 200,000 frames, unless it is said "
        "which",
    )
    settings.add_argument(
        "--stage",
        choices=("ar", "full", "both"),
        default=argparse.SUPPRESS,
        help="of the chains: ar is cheap, and compares by sessions that are held out; full and "
        "both run the keypoint model, and compare by the expected marginal likelihood (default: "
        "ar)",
    )
    varied = {axis.setting for axis in AXES} - {"target_duration"}
    rare = command.rare_group("model settings", "Each has a default that seldom needs a change.")
    add_settings(settings, kpms_zarr.FitConfig, without={*varied, *_NOT_SETTINGS}, others=rare)
    file_option(command)
    cluster_option(command)
    watching_options(command)
    resource_options(command)


def _number_or_sessions(text: str) -> int | tuple[str, ...]:
    return int(text) if text.strip().isdigit() else selectors(text)


def _run_scan(options: argparse.Namespace) -> tuple[object, str]:
    if options.out is not None:
        from kpms_zarr.viz.report.scan import check_page, scan_page

        check_page(options.out)
    varied = {axis.setting for axis in AXES} - {"target_duration"}
    settings = typed_settings(options, without=varied)
    with callbacks_of(options) as callbacks:
        choices = {
            "config": kpms_zarr.FitConfig.from_dict(settings),
            "budget": budget_of(options),
        }
        result = call(kpms_zarr.scan, options, callbacks=callbacks, **choices)
    lines = [_table(result, by_chain=options.breakdown), "\n".join(result.recommendation)]
    lines.append(_about(result))
    if options.out is not None:
        n_bytes = scan_page(result, out=options.out)
        lines.append(f"page: {options.out} ({console.size(n_bytes)})")
    return result, "\n\n".join(line for line in lines if line)


def _table(result: Any, *, by_chain: bool) -> str:
    table = result.table
    columns = {
        "median (ms)": ("median_duration", 0),
        "in use": ("n_used", 1),
        "effective": ("effective_number", 1),
        "held out": ("held_out_log_likelihood", 3),
        "EML": ("expected_marginal_likelihood", 3),
        "evidence": ("log_evidence", 3),
        "ARI": ("adjusted_rand_index", 2),
    }
    shown = {
        title: (table[name].values.astype(float), digits)
        for title, (name, digits) in columns.items()
        if np.isfinite(table[name].values.astype(float)).any()
        # A density of all latent dims: not to be compared between numbers of them.
        and not (name == "log_evidence" and "latent_dim" in result.axes)
    }
    kappa = table["final_kappa"].values
    rows = []
    for point, label in enumerate(table["label"].values):
        parts = [slice(None)]
        if by_chain:
            parts = [slice(chain, chain + 1) for chain in range(table.sizes["chain"])]
        for part in parts:
            cells = [
                _mean(values[point, part], digits, name) for name, (values, digits) in shown.items()
            ]
            seeds = table["seed"].values[part]
            name = f"{label}, seed {seeds[0]}" if by_chain else label
            geometric = np.exp(np.log(kappa[point, part]).mean())
            rows.append((name, *cells, f"{geometric:.2g}"))
    first = "point, chain" if by_chain else "point"
    return console.table((first, *shown, "kappa"), rows)


def _mean(values: np.ndarray, digits: int, name: str) -> str:
    """Mean over chains, of likelihoods with its standard error."""
    mean, error = (part[0] for part in mean_and_error(values[None]))
    text = console.figure(float(mean), digits)
    if name == "held out" and np.isfinite(error):
        text += f" ± {error:.{digits}f}"
    return text


def _about(result: Any) -> str:
    n_points, n_chains = result.table.sizes["point"], result.table.sizes["chain"]
    held_out = counted(result.n_held_out_frames, "frame")
    return (
        f"{counted(n_points, 'point')}, {counted(n_chains, 'chain')} each, on "
        f"{counted(result.n_frames, 'frame')}, {held_out} held out; likelihoods and evidence in nat"
        f" per frame, ± standard error over chains; kept as scans/{result.name}"
    )
