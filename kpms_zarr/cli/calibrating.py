"""The command that calibrates the noise prior."""

from __future__ import annotations

import argparse
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, cluster_option
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.study.calibration import SOURCES
from kpms_zarr.store.wording import counted


def calibrate(commands: Any) -> None:
    """``kpms-zarr calibrate``."""
    added = add_command(
        commands,
        "calibrate",
        _run_calibrate,
        "estimate how the tracking error falls with the confidence, for the noise prior of fits",
    )
    added.add_argument(
        "--annotations",
        nargs="?",
        const=True,
        metavar="FILE.csv",
        help="positions annotated by hand, to compare the tracked ones with: columns session, "
        "frame (of the session, from 0 on), keypoint, x, y (and z); without a file those clicked "
        "on the page Calibration of explore; without the option each position is compared with a "
        "prediction from the frames around it",
    )
    added.add_argument(
        "--remove", action="store_true", help="remove the calibration; fits then have their own"
    )
    added.add_argument(
        "--host-memory", metavar="16GB", help="of the process (none = what Dask's threads take)"
    )
    cluster_option(added)


def _run_calibrate(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.calibrate, options)
    lines = [f"note: {note}" for note in result.notes]
    if not result.source:
        lines.append("the store has no calibration: fits have the noise prior of their settings")
        return result, "\n".join(lines)
    pairs = zip(result.confidences, result.errors, strict=True)
    rows = [(f"{confidence:.3g}", f"{error:.3g}") for confidence, error in pairs]
    lines.insert(0, console.table(("confidence", "error (units of position)"), rows))
    sign = "+" if result.intercept >= 0 else "-"
    lines += [
        f"log10(error) = {result.slope:.3f} log10(confidence + 0.001) {sign} "
        f"{abs(result.intercept):.3f}; standard errors {result.slope_error:.3f} and "
        f"{result.intercept_error:.3f}",
        f"from {SOURCES[result.source]}, {counted(f'{result.n_compared:,}', 'position')}; fits of "
        "the full stage use it, unless they are given --noise-slope or --noise-intercept",
        "next: " + command("fit", options.store, model="NAME"),
    ]
    return result, "\n".join(lines)
