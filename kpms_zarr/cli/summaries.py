"""The command that prints the table of the syllables of a model, and that table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, model_option
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.core.schema import USED_FRACTION


def summary(commands: Any) -> None:
    """``kpms-zarr summary``."""
    command = add_command(commands, "summary", _run_summary, "table of the syllables of a model")
    model_option(command)
    command.add_argument(
        "--all", action="store_true", help="also the syllables with less than 0.5 %% of the frames"
    )


def _run_summary(options: argparse.Namespace) -> tuple[object, str]:
    result = kpms_zarr.summary(options.store, model=options.model)
    return result, syllable_table(result, with_rare=options.all)


def syllable_table(result: Any, *, with_rare: bool = False) -> str:
    """Table of syllables, and what is known of how far they replicate.

    Parameters
    ----------
    result : Dataset, (state)
        As ``kpms_zarr.summary`` and ``kpms_zarr.consensus_of_labels`` return it.
    with_rare : bool
        Also those with less than 0.5 % of the frames.
    """
    unit = result.attrs.get("duration_unit", "ms")
    is_rare = result["frequency"].values < (0 if with_rare else USED_FRACTION)
    rare = result.isel(state=is_rare)
    result = result.isel(state=~is_rare)
    further = _further_columns(result)
    rows = [
        (
            f"{state} {row['name'].item() if 'name' in row else ''}".rstrip(),
            console.percent(float(row["frequency"])),
            console.milliseconds(float(row["median_duration"])),
            console.milliseconds(float(row["mean_duration"])),
            int(row["n_bouts"]),
            *(cell(row[name].item()) for name, _, cell in further),
        )
        for state in result["state"].values
        for row in [result.sel(state=state)]
    ]
    header = ["syllable", "frequency", f"median ({unit})", f"mean ({unit})", "bouts"]
    header += [title for _, title, _ in further]
    lines = [console.table(header, rows)]
    if rare.sizes["state"]:
        share = console.percent(float(rare["frequency"].sum()))
        lines.append(
            f"and {rare.sizes['state']} rarer ones, {share} of the frames together (--all)"
        )
    lines.append(
        f"{result.attrs['n_used']} syllables hold 0.5 % of the frames or more; median duration "
        f"{console.milliseconds(result.attrs['median_duration_overall'])} {unit} over all bouts"
    )
    words = [result.attrs.get(name) for name in ("course_in_words", "replicability_in_words")]
    return "\n".join([*lines, *(for_shell(text) for text in words if text)])


def _further_columns(table: Any) -> list[tuple[str, str, Callable[[Any], str]]]:
    """Variables of the summary that not every model has, their headers and their text."""
    every: list[tuple[str, str, Callable[[Any], str]]] = [
        ("mean_certainty", "certainty", console.percent),
        ("replicability", "replicability", console.figure),
        ("replicability_reading", "reading", _or_dash),
        ("session_replicability", "between sessions", console.figure),
        ("session_reading", "reading", _or_dash),
        ("family", "family", lambda number: "-" if number < 0 else str(number)),
    ]
    return [column for column in every if column[0] in table]


def _or_dash(words: str) -> str:
    return words or "-"
