"""The command that compares groups of sessions or animals."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, model_option, names, sessions_option
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.wording import counted, listed

_MOST_ROWS = 15
"""Rows of a table that is printed, those of the smallest p."""


def compare_groups(commands: Any) -> None:
    """``kpms-zarr compare-groups``."""
    command = add_command(
        commands,
        "compare-groups",
        _run_compare_groups,
        "what groups of sessions or animals do otherwise: permutation tests, syllable by syllable",
    )
    model_option(command)
    command.add_argument(
        "--by",
        required=True,
        metavar="COORDINATE",
        help="whose values are the groups, such as group, or condition of epochs",
    )
    command.add_argument(
        "--block", metavar="COORDINATE", help="of what belongs together, such as animal"
    )
    command.add_argument(
        "--unit",
        default="session",
        metavar="COORDINATE",
        help="whose sessions are pooled to one unit for each group",
    )
    command.add_argument(
        "--statistic",
        type=names,
        default=["frequency", "duration"],
        metavar="A,B",
        help="of frequency, bouts, duration, median_duration, speed, turning, absolute_turning",
    )
    command.add_argument(
        "--groups", type=names, metavar="A,B", help="values to compare, in this order (none = all)"
    )
    sessions_option(command, "sessions to compare, all by default")
    command.add_argument(
        "--epochs", metavar="FILE", help="table of epochs in place of those of the store"
    )
    command.add_argument(
        "--syllables",
        type=_numbers,
        metavar="0,3",
        help="in place of those that are frequent and replicate",
    )
    command.add_argument(
        "--min-frequency",
        type=float,
        default=0.005,
        help="least share of the frames of a syllable that is tested",
    )
    command.add_argument(
        "--min-replicability",
        type=float,
        default=0.75,
        help="least Jaccard index between halves of the chains, where it is known",
    )
    command.add_argument(
        "--no-chains", action="store_true", help="do not test again in every chain of an ensemble"
    )
    command.add_argument(
        "--n-permutations",
        type=int,
        default=10_000,
        help="random assignments of the groups; all, where there are no more",
    )
    command.add_argument(
        "--n-bootstrap", type=int, default=10_000, help="samples for intervals of effect sizes"
    )
    command.add_argument("--seed", type=int, default=0, help="of assignments and samples")
    command.add_argument("--version", help="of the labels, such as v1 (none = the current one)")
    command.add_argument("--all", action="store_true", help="also rows behind the first 15")


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers of syllables such as 0,3,12, found {text!r}"
        ) from None


def _run_compare_groups(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.compare_groups, options, chains=not options.no_chains)
    parts = [_design(result), _tested(result)]
    parts += [_tests(result, str(name), options.all) for name in result.tests["statistic"].values]
    if result.groups.sizes["group"] > 2:
        parts.append(_pairs(result, options.all))
    parts += [*_transitions(result, options.all), _classification(result)]
    if result.notes:
        parts.append("\n".join(f"note: {for_shell(note)}" for note in result.notes))
    parts.append("\n".join([f"methods: {result.methods}", *result.references]))
    return result, "\n\n".join(parts)


def _design(result: Any) -> str:
    rows = [
        (name, int(row["n_units"]), int(row["n_sessions"]), f"{int(row['n_frames']):,}")
        for name in result.groups["group"].values
        for row in [result.groups.sel(group=name)]
    ]
    ways = (
        f"all {result.n_assignments:,} assignments of the groups are compared"
        if result.is_exact
        else f"{result.n_permutations:,} random assignments of the groups are compared"
    )
    return (
        f"{result.design}\n"
        f"smallest p that this design allows: {result.smallest_p:.2g} ({ways})\n\n"
        + console.table((result.by, "units", "sessions", "frames"), rows)
    )


def _tested(result: Any) -> str:
    table = result.syllables
    is_tested = table["is_tested"].values
    states, why = table["state"].values, table["why"].values
    chosen = listed(map(str, states[is_tested]), 40)
    lines = [f"tested: {counted(int(is_tested.sum()), 'syllable')}: {chosen}"]
    occurs = ~is_tested & (table["frequency"].values > 0)
    n_absent = int((~is_tested & ~occurs).sum())
    lines += [
        f"not tested: {state} ({reason})"
        for state, reason in zip(states[occurs][:_MOST_ROWS], why[occurs], strict=False)
    ]
    more = int(occurs.sum()) - _MOST_ROWS
    lines += [f"not tested: {more} more"] if more > 0 else []
    lines += [f"not tested: {n_absent} that do not occur"] if n_absent else []
    return "\n".join(lines)


def _first(p: np.ndarray, with_all: bool) -> Iterator[int]:
    """Places of the smallest p first, those without one last."""
    order = np.argsort(np.where(np.isfinite(p), p, np.inf), kind="stable")
    yield from (int(i) for i in (order if with_all else order[:_MOST_ROWS]))


def _rest(n: int, with_all: bool) -> list[str]:
    return [f"and {n - _MOST_ROWS} more (--all)"] if n > _MOST_ROWS and not with_all else []


def _tests(result: Any, statistic: str, with_all: bool) -> str:
    table = result.tests.sel(statistic=statistic)
    groups = [str(name) for name in table["group"].values]
    has_chains = "n_chains" in table
    rows = []
    for i in _first(table["p"].values, with_all):
        row = table.isel(state=i)
        of_chains = f"{int(row['n_chains'])} of {int(row['n_chains_tested'])}" if has_chains else ""
        rows.append(
            (
                row["state"].item(),
                *(_value(statistic, float(one)) for one in row["mean"].values),
                int(row["n_units"]),
                *(_p(float(row[name])) for name in ("p", "q", "q_across")),
                console.figure(float(row["epsilon_squared"])),
                *(_effects(result, statistic, i) if len(groups) == 2 else ()),
                *((of_chains,) if has_chains else ()),
            )
        )
    header = [statistic, *groups, "units", "p", "q", "q across", "ε²"]
    header += ["difference", "rank-biserial"] if len(groups) == 2 else []
    header += ["chains"] if has_chains else []
    return "\n".join([console.table(header, rows), *_rest(table.sizes["state"], with_all)])


def _effects(result: Any, statistic: str, place: int, pair: int = 0) -> tuple[str, str]:
    row = result.pairs.sel(statistic=statistic).isel(pair=pair, state=place)

    def between(name: str, shown: Any) -> str:
        low, high = (float(row[f"{name}_{end}"]) for end in ("low", "high"))
        if not np.isfinite(low):
            return str(shown(float(row[name])))
        return f"{shown(float(row[name]))} [{shown(low)}, {shown(high)}]"

    return (
        between("difference", lambda value: _value(statistic, value)),
        between("rank_biserial", console.figure),
    )


def _value(statistic: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if statistic in ("frequency", "bouts"):
        return f"{100 * value:.2f} %"
    return f"{value:.0f} ms" if "duration" in statistic else f"{value:.3g}"


def _p(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.2g}"


def _pairs(result: Any, with_all: bool) -> str:
    table = result.pairs
    flat = table["p"].values.ravel()
    rows = []
    for place in _first(flat, with_all):
        s, k, i = np.unravel_index(place, table["p"].shape)
        row = table.isel(statistic=int(s), pair=int(k), state=int(i))
        name = str(row["statistic"].item())
        rows.append(
            (
                f"{row['first'].item()}, {row['second'].item()}",
                name,
                row["state"].item(),
                console.figure(float(row["z"])),
                *(_p(float(row[one])) for one in ("p", "q", "q_across")),
                *_effects(result, name, int(i), int(k)),
            )
        )
    header = (
        "pair", "statistic", "syllable", "Dunn's z", "p", "q", "q across", "difference",
        "rank-biserial",
    )  # fmt: skip
    return "\n".join([console.table(header, rows), *_rest(len(flat), with_all)])


def _transitions(result: Any, with_all: bool) -> list[str]:
    table = result.transitions
    if table is None:
        return []
    line = (
        f"transitions, all at once: p {_p(float(table.attrs['p']))}, groups explain "
        f"{console.percent(float(table.attrs['r_squared']))} of their variation"
    )
    p = table["p"].values
    tested = np.flatnonzero(np.isfinite(p))
    if not len(tested):
        return [line]
    rows = []
    for place in _first(p.ravel()[tested], with_all):
        a, b = np.unravel_index(tested[place], p.shape)
        row = table.isel(state=int(a), state_next=int(b))
        rows.append(
            (
                f"{row['state'].item()} to {row['state_next'].item()}",
                *(console.percent(float(one)) for one in row["share"].values),
                *(_p(float(row[name])) for name in ("p", "q")),
                console.figure(float(row["epsilon_squared"])),
            )
        )
    header = ["transition", *map(str, table["group"].values), "p", "q", "ε²"]
    return [f"{line}\n\n" + "\n".join([console.table(header, rows), *_rest(len(tested), with_all)])]


def _classification(result: Any) -> str:
    table = result.classification
    attrs = table.attrs
    groups = [str(name) for name in table["group"].values]
    rows = [(name, *map(int, row)) for name, row in zip(groups, table["confusion"].values,
                                                        strict=True)]  # fmt: skip
    return (
        console.table(("told from usage", *groups), rows)
        + f"\nbalanced accuracy {console.percent(attrs['balanced_accuracy'])}, after other "
        f"assignments {console.percent(attrs['baseline'])} (up to "
        f"{console.percent(attrs['baseline_high'])} in 95 % of them), p {_p(attrs['p'])}; "
        f"each {result.blocked_by or result.unit} by the others"
    )
