"""The command that names syllables."""

from __future__ import annotations

import argparse
from typing import Any

import kpms_zarr
from kpms_zarr.cli.options import add_command, call, model_option
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.errors import InputError


def name(commands: Any) -> None:
    """``kpms-zarr name``."""
    command = add_command(
        commands, "name", _run_name, "name a syllable, or list the names of all of them"
    )
    model_option(command)
    command.add_argument(
        "syllable", nargs="?", type=int, metavar="SYLLABLE", help="number (none = list the names)"
    )
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="such as rear; '' takes the name away"
    )
    command.add_argument(
        "--description", metavar="TEXT", help="what the animal does; '' takes it away"
    )
    command.is_mixed = True


def _run_name(options: argparse.Namespace) -> tuple[object, str]:
    if options.syllable is None and options.description is None:
        table = kpms_zarr.syllable_names(options.store, options.model)
        return table, _listed(table, options)
    if options.syllable is None:
        raise InputError(
            expected="the number of the syllable that is described",
            found="none",
            where="SYLLABLE",
            fix="give it behind the store",
        )
    result = call(kpms_zarr.name_syllable, options)
    saved = f"saved as version {result.version} of the names" if result.version else "no names"
    return result, f"syllable {result.label(options.syllable)}: {saved}"


def _listed(table: Any, options: argparse.Namespace) -> str:
    columns = (table[name].values for name in ("state", "name", "description"))
    texts = zip(*columns, strict=True)
    rows = [
        (f"{state}  {name or '-'}", " ".join(description.split()))
        for state, name, description in texts
        if name or description
    ]
    if not rows:
        return (
            "no names yet; give one: "
            + command("name", options.store, model=options.model)
            + " SYLLABLE NAME"
        )
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {description}".rstrip() for name, description in rows]
    version, parameters = table.attrs["version"], table.attrs["parameters"]
    return "\n".join([*lines, f"names {version}, of the syllables of parameters {parameters}"])
