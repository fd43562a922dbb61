"""The command that makes one model of several, and what is said of one."""

from __future__ import annotations

import argparse
import math
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import (
    add_command,
    call,
    check_store,
    cluster_option,
    duration,
    label_files,
    labels_option,
    model_option,
    names,
    sessions_option,
)
from kpms_zarr.cli.running import (
    budget_of,
    callbacks_of,
    resource_options,
    watching_options,
)
from kpms_zarr.cli.summaries import syllable_table
from kpms_zarr.store.core.commands import command as shell_command
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted


def consensus(commands: Any) -> None:
    """``kpms-zarr consensus``."""
    command = add_command(
        commands,
        "consensus",
        _run_consensus,
        "one model on which several agree, such as fits of other seeds; or, with --labels, the "
        "labels on which files agree, such as those of another package, without a store",
        needs_store=False,
    )
    command.add_argument(
        "--models", type=names, default=[], metavar="A,B,C", help="names of published models"
    )
    model_option(command, required=False)
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
        default=argparse.SUPPRESS,
        help="Gibbs iterations for the pose given the labels (default: 50)",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="publish a new version of an existing model"
    )
    files = command.add_argument_group("labels in files", "in place of STORE and models")
    labels_option(files, "labels of each fit, of the same sessions and frames")
    files.add_argument(
        "--out",
        metavar="FILE",
        help="where to write the labels, certainties and second choices: csv, or npz",
    )
    files.add_argument(
        "--fps", type=float, help="frames per second; without it, durations are in frames"
    )
    files.add_argument(
        "--all", action="store_true", help="also the syllables with less than 0.5 %% of the frames"
    )
    cluster_option(command)
    watching_options(command)
    resource_options(command)


def _run_consensus(options: argparse.Namespace) -> tuple[object, str]:
    labels = label_files(options.labels)
    check_store(options, labels, *_OF_MODELS)
    if labels:
        return _of_labels(options, labels)
    given = [name for name in ("out", "fps", "all") if getattr(options, name)]
    if given:
        raise InputError(
            expected="files of labels behind `labels=`",
            found=f"none, for `{given[0]}=`",
            where="`labels=`",
            fix=f"leave `{given[0]}=` out: a consensus of models is a model of the store",
        )
    if options.model is None:
        raise InputError(
            expected="a name for the model that is made",
            found="none",
            where="`model=`",
            fix="add it: `model='NAME'`",
        )
    with callbacks_of(options) as callbacks:
        choices = {"callbacks": callbacks, "budget": budget_of(options)}
        result = call(kpms_zarr.consensus, options, **choices)
    return result, consensus_text(result)


_OF_MODELS = ("models", "model", "sessions", "sweeps", "overwrite", "cluster", "storage_option")


def _of_labels(options: argparse.Namespace, labels: dict[str, str]) -> tuple[object, str]:
    """Run a consensus of files; refuse what is only of models."""
    if options.store is not None:
        raise InputError(
            expected="either STORE with `models=`, or `labels=` alone",
            found="STORE and `labels=`",
            where="`labels=`",
            fix="leave the store out: files of labels need none",
        )
    if options.out is None:
        raise InputError(
            expected="a file for the labels",
            found="none",
            where="`out=`",
            fix="add `out='consensus.csv'`, or the name of an npz file",
        )
    with callbacks_of(options) as callbacks:
        result = call(kpms_zarr.consensus_of_labels, options, labels=labels, callbacks=callbacks)
    return result.drop_dims("frame"), labels_text(result, options.out, with_rare=options.all)


def labels_text(result: Any, out: str, *, with_rare: bool = False) -> str:
    """What is said of a consensus of files."""
    unit, attrs = result.attrs["duration_unit"], result.attrs
    pairs = console.figure(attrs["mean_pair_rand_index"])
    rows = [
        (
            str(name),
            console.figure(float(row["member_effective_number"]), 1),
            int(row["member_n_used"]),
            console.milliseconds(float(row["member_median_duration"])),
            console.figure(float(row["member_rand_index"])),
        )
        for name in result["member"].values
        for row in [result.sel(member=name)]
    ]
    header = ("labels", "effective", "in use", f"median ({unit})", "ARI with the consensus")
    n = result.sizes["member"]
    number = console.figure(attrs["effective_number"], 1)
    return "\n".join(
        [
            console.table(header, rows),
            f"adjusted Rand index of each two of them: {pairs}, the mean of "
            f"{counted(n * (n - 1) // 2, 'pair')}",
            "",
            syllable_table(result, with_rare=with_rare),
            f"effective number of syllables {number}, mean certainty "
            f"{console.percent(attrs['mean_certainty'])}: the share of the {n} that have the label "
            "of a frame",
            f"labels: {out}",
        ]
    )


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
