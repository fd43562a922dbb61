"""The commands about which syllables are alike: similarity, merge, versions of labels."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, model_option
from kpms_zarr.store.core.commands import command as shell_command
from kpms_zarr.store.wording import counted

_MOST_ROWS = 15
"""Pairs that are printed, the most alike."""


def similarity(commands: Any) -> None:
    """``kpms-zarr similarity``."""
    command = add_command(
        commands,
        "similarity",
        _run_similarity,
        "how alike syllables are, each with each, and their tree",
    )
    model_option(command)
    command.add_argument(
        "--kind",
        choices=("evidence", "prediction", "trajectories"),
        default="evidence",
        help="log evidence that two are one state; how well one predicts the frames of the other; "
        "distance of mean trajectories around onsets",
    )
    command.add_argument(
        "--syllables", type=_numbers, metavar="0,3", help="to compare (none = all that occur)"
    )
    command.add_argument("--version", help="of the labels, such as v1 (none = the current one)")
    command.add_argument("--all", action="store_true", help="all pairs, not the 15 most alike")


def merge(commands: Any) -> None:
    """``kpms-zarr merge``."""
    command = add_command(
        commands,
        "merge",
        _run_merge,
        "make syllables one, as a new version of the labels; the one before stays",
    )
    model_option(command)
    rule = command.add_mutually_exclusive_group(required=True)
    rule.add_argument(
        "--groups", metavar='"1,5;3,14"', help="syllables that become one, groups apart by ;"
    )
    rule.add_argument(
        "--families", action="store_true", help="each family of syllables of an ensemble"
    )
    rule.add_argument(
        "--evidence",
        action="store_true",
        help="pairs, the one that gains most first, while the log Bayes factor that they are one "
        "state is above --margin",
    )
    command.add_argument(
        "--margin", type=float, default=0.0, metavar="NAT", help="in nat, beside --evidence"
    )
    command.add_argument("--version", help="of the labels, such as v1 (none = the current one)")
    command.add_argument("--dry-run", action="store_true", help="only say what would become one")


def versions(commands: Any) -> None:
    """``kpms-zarr versions``."""
    command = add_command(
        commands,
        "versions",
        _run_versions,
        "list the versions of the labels of a model, or make an earlier one current again",
    )
    model_option(command)
    command.add_argument("--use", metavar="v1", help="version to make the current one")


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers of syllables such as 0,3,12, found {text!r}"
        ) from None


# ------------------------------------------------------------------ similarity


def _run_similarity(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.similarity, options)
    states, names = result["state"].values, result["name"].values
    called = [f"{state} {name}".rstrip() for state, name in zip(states, names, strict=True)]
    kind = options.kind
    factor = result["log_bayes_factor"].values if kind == "evidence" else None
    distance = result["distance"].values
    left, right = np.triu_indices(len(states), 1)
    near = distance[left, right] if factor is None else -factor[left, right]
    order = np.argsort(near, kind="stable")
    shown = order if options.all else order[:_MOST_ROWS]
    rows = [
        (
            called[a], called[b],
            *(() if factor is None else (f"{factor[a, b]:,.1f}",)),
            console.figure(float(distance[a, b]), 3),
            *(_further(result, int(a), int(b)) if kind == "prediction" else ()),
        )
        for a, b in ((left[i], right[i]) for i in shown)
    ]  # fmt: skip
    unit = result["distance"].attrs["units"]
    header = ["syllable", "and", *(["log Bayes factor (nat)"] if factor is not None else [])]
    header.append(f"distance ({unit})")
    header += ["first by second", "second by first"] if kind == "prediction" else []
    parts = [f"{kind}: {result.attrs['definition']}", console.table(header, rows)]
    if len(order) > len(shown):
        parts.append(f"and {len(order) - len(shown)} more pairs (--all)")
    if factor is not None:
        n_one = int((factor[left, right] > 0).sum())
        parts.append(f"{counted(n_one, 'pair')} with a log Bayes factor above 0: one state")
    leaves = ", ".join(map(str, result["leaf"].values))
    parts.append(f"in the order of the tree (average linkage): {leaves}")
    if result.attrs["pose"] == "tracked":
        parts.append(
            "the labels have no pose: that of the tracking, on the components of the store"
        )
    parts += [f"left out: {one}" for one in result.attrs["left_out"].split("\n") if one]
    return result, "\n\n".join(parts)


def _further(result: Any, a: int, b: int) -> tuple[str, str]:
    excess = result["excess"].values
    return console.figure(float(excess[a, b]), 3), console.figure(float(excess[b, a]), 3)


# ------------------------------------------------------------------ merge


def _run_merge(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.merge, options)
    if not result.groups:
        why = {
            "evidence": f"no pair has a log Bayes factor above {options.margin:g} nat",
            "families": "no family has two syllables that occur",
        }
        text = f"nothing to merge in {result.from_version}: {why[result.rule]}"
        return result, text + "; no version was written"
    rows = [
        (
            " + ".join(map(str, group.syllables)),
            f"{group.becomes} {group.name}".rstrip(),
            console.percent(group.frequency),
            "-" if np.isnan(group.log_bayes_factor) else f"{group.log_bayes_factor:,.1f}",
        )
        for group in result.groups
    ]
    parts = [console.table(("syllables", "become", "frequency", "log Bayes factor (nat)"), rows)]
    count = f"{counted(result.n_before, 'syllable')} become {result.n_after:,}"
    if options.dry_run:
        parts.append(f"{count}; nothing was written (--dry-run)")
        return result, "\n".join(parts)
    back = shell_command("versions", options.store, model=options.model, use=result.from_version)
    parts.append(f"{count}: labels {result.version} of {options.model}")
    parts.append(f"{result.from_version} stays; to take it back: {back}")
    parts += [f"note: {note}" for note in result.notes]
    return result, "\n".join(parts)


# ------------------------------------------------------------------ versions


def _run_versions(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.versions, options)
    rows = [
        (
            f"{one.version} *" if one.is_current else one.version,
            f"{one.action} of {one.from_version}" if one.from_version else one.action,
            one.created,
            one.n_sessions,
            "-" if one.n_syllables < 0 else one.n_syllables,
        )
        for one in result.versions
    ]
    text = console.table(("version", "made by", "at (UTC)", "sessions", "syllables"), rows)
    changed = f"; until now {result.before}" if result.before else ""
    return result, f"{text}\n* current{changed}"
