"""The command that makes one model of several, and what is said of one."""

from __future__ import annotations

import argparse
import math
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, duration, model_option, names, sessions_option
from kpms_zarr.cli.running import (
    budget_of,
    callbacks_of,
    resource_options,
    watching_options,
)
from kpms_zarr.store.core.commands import command as shell_command
from kpms_zarr.store.wording import counted


def consensus(commands: Any) -> None:
    """``kpms-zarr consensus``."""
    command = add_command(
        commands,
        "consensus",
        _run_consensus,
        "one model on which several agree, such as fits of other seeds",
    )
    command.add_argument(
        "--models", type=names, default=[], metavar="A,B,C", help="names of published models"
    )
    model_option(command)
    sessions_option(command, "sessions to label, those that any of the models was fitted to by "
                    "default")  # fmt: skip
    command.add_argument(
        "--target-duration",
        type=duration,
        metavar="TIME",
        help="median duration, with its unit, such as 400ms (default: the mean of the models)",
    )
    command.add_argument(
        "--sweeps",
        type=int,
        default=50,
        help="Gibbs iterations for the pose given the labels",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="publish a new version of an existing model"
    )
    watching_options(command)
    resource_options(command)


def _run_consensus(options: argparse.Namespace) -> tuple[object, str]:
    with callbacks_of(options) as callbacks:
        choices = {"callbacks": callbacks, "budget": budget_of(options)}
        result = call(kpms_zarr.consensus, options, **choices)
    return result, consensus_text(result)


def consensus_text(result: Any) -> str:
    """What is said of a consensus."""
    lines = [
        f"{counted(result.n_used, 'syllable')} in use (effective number "
        f"{result.effective_number:.1f}), median duration {result.median_duration:.0f} ms, in "
        f"{result.seconds:.0f} s; consensus of {counted(len(result.members), 'model')}",
        f"mean certainty {console.percent(result.mean_certainty)}: the share of the models that "
        "have the label of a frame",
    ]
    if not math.isnan(result.half_rand_index):
        lines.append(
            "replicability: the consensus of one half of the models has the label of that of the "
            f"other in {console.percent(result.half_matched_share)} of the frames (ARI "
            f"{result.half_rand_index:.2f})"
        )
        lines.append(
            f"families of syllables: {result.n_families}, of which the halves agree with ARI "
            f"{result.half_family_rand_index:.2f}"
        )
    if not math.isnan(result.session_rand_index):
        lines.append(
            "other animals: chains fitted to one half of the sessions have the label of those "
            f"fitted to the other in {console.percent(result.session_matched_share)} of the frames "
            f"(ARI {result.session_rand_index:.2f}); more video raises it, fewer syllables do too"
        )
    report = shell_command("report", result.store, model=result.model, out="report.html")
    return "\n".join([*lines, f"next: {report}"])
