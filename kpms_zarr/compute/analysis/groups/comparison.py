"""Comparison of groups by a syllable table: all tests, and what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.bootstrap import mean_intervals
from kpms_zarr.compute.analysis.groups.chains import chains_that_agree
from kpms_zarr.compute.analysis.groups.classification import classify
from kpms_zarr.compute.analysis.groups.correction import false_discovery_rate
from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.fingerprints import fingerprints
from kpms_zarr.compute.analysis.groups.method_text import method_text, references_of
from kpms_zarr.compute.analysis.groups.omnibus import kruskal_wallis, smallest_p
from kpms_zarr.compute.analysis.groups.pairs import compare_pairs, pairs_of
from kpms_zarr.compute.analysis.groups.statistics import (
    check_statistics,
    group_means,
    values_of,
)
from kpms_zarr.compute.analysis.groups.tested import (
    MIN_FREQUENCY,
    MIN_REPLICABILITY,
    choose_syllables,
)
from kpms_zarr.compute.analysis.groups.transitions import compare_transitions
from kpms_zarr.compute.analysis.groups.units import Units, units_of
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.wording import counted, option, plural

ALPHA = 0.05
_MOST_PERMUTATIONS = 1_000_000


@dataclass(frozen=True)
class GroupComparison(ShownAsTable):
    """Comparison of groups of units.

    Attributes
    ----------
    model, version, by, unit, blocked_by : str
        ``unit``: what each unit is; ``blocked_by``: coordinate within whose values groups were
        exchanged, "" = none.
    design : str
        The design in a sentence.
    n_assignments : int
        Ways in which the groups could have been assigned.
    smallest_p : float
        That a test of ranks without ties can have in this design.
    n_permutations, n_bootstrap, seed : int
    is_exact : bool
        Whether all assignments were taken.
    groups : xarray.Dataset, (group)
        ``n_units``, ``n_sessions``, ``n_frames``.
    syllables : xarray.Dataset, (state)
        ``frequency``, ``replicability``, ``is_tested`` and ``why``.
    tests : xarray.Dataset, (statistic, state)
        Of the syllables tested: ``h``, ``p``, ``q`` (Benjamini and Hochberg over the syllables of
        the statistic), ``q_across`` (over those of all statistics), ``epsilon_squared``,
        ``n_units``, ``smallest_p``; ``mean`` (statistic, state, group), over units, with
        ``mean_low`` and ``mean_high`` of its 95 % interval; of an ensemble ``n_chains`` in which
        the finding holds, of ``n_chains_tested``.
    values : xarray.Dataset, (statistic, unit, state)
        ``value`` of each unit, in the units of the statistic; coordinate ``group`` of units.
    pairs : xarray.Dataset, (statistic, pair, state)
        Of each two groups, ``first`` and ``second``: ``z``, ``p``, ``q`` (over the syllables and
        pairs of the statistic), ``q_across`` (over those of all statistics), ``smallest_p``,
        ``difference`` (second minus first, in the units of the statistic), ``rank_biserial``, both
        with ``_low`` and ``_high`` of their 95 % intervals.
    transitions : xarray.Dataset, (state, state_next), or None
        See ``compare_transitions``; None for fewer than two syllables, or a table without counts.
    classification : xarray.Dataset
        See ``classify``.
    fingerprints : xarray.Dataset, (statistic, unit, state)
        See ``fingerprints``.
    notes : tuple of str
        What was left out, and what to think of.
    methods : str
        A paragraph to paste.
    references : tuple of str
        Works that it cites.
    """

    model: str
    version: str
    by: str
    unit: str
    blocked_by: str
    design: str
    n_assignments: int
    smallest_p: float
    n_permutations: int
    n_bootstrap: int
    seed: int
    is_exact: bool
    groups: xr.Dataset
    syllables: xr.Dataset
    tests: xr.Dataset
    values: xr.Dataset
    pairs: xr.Dataset
    transitions: xr.Dataset | None
    classification: xr.Dataset
    fingerprints: xr.Dataset
    notes: tuple[str, ...]
    methods: str
    references: tuple[str, ...]


def compare_groups_of(
    table: xr.Dataset,
    *,
    by: str,
    block: str | None = None,
    unit: str = "session",
    statistic: Sequence[str] = ("frequency", "duration"),
    groups: Sequence[str] | None = None,
    syllables: Sequence[int] | None = None,
    min_frequency: float = MIN_FREQUENCY,
    min_replicability: float = MIN_REPLICABILITY,
    replicability: np.ndarray | None = None,
    chains: Sequence[xr.Dataset] = (),
    n_permutations: int = 10_000,
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> GroupComparison:
    """Compare groups of sessions or animals by a table of their syllables.

    The result does not depend on the order of the rows.

    Parameters
    ----------
    table : xarray.Dataset, (row, state)
        ``n_frames``, ``n_bouts``, ``mean_duration`` (ms) and, for further statistics,
        ``median_duration`` (ms), ``mean_speed`` (units/s), ``mean_turning`` and
        ``mean_absolute_turning`` (rad/s),
        ``transition_count`` (row, state, state_next); a row is a session, or an epoch of one, with
        coordinates ``session`` and those that are named below.
    by, block, unit, groups
        See :func:`kpms_zarr.compare_groups`.
    statistic : sequence of str
    syllables : sequence of int, optional
    min_frequency, min_replicability : float
    replicability : ndarray, (state,), optional
        Jaccard index of each syllable between halves of the chains; NaN = not known.
    chains : sequence of xarray.Dataset, (row, state)
        Tables of the chains of an ensemble, their states those of ``table``.
    n_permutations, n_bootstrap, seed : int

    Raises
    ------
    InputError
        When a name is unknown, or the design allows no test.
    """
    statistics = check_statistics(statistic)
    _check_numbers(n_permutations, n_bootstrap, seed)
    units = units_of(table, by=by, block=block, unit=unit, groups=groups)
    design = Design(units.group, units.block)
    _require_test(units, design, n_permutations)
    found = choose_syllables(
        units.pooled,
        replicability=replicability,
        syllables=syllables,
        min_frequency=min_frequency,
        min_replicability=min_replicability,
    )
    places = np.flatnonzero(found["is_tested"].values)
    values = {name: values_of(units.pooled, name)[places] for name in statistics}
    states = found["state"].values[places]
    tests = _tests(values, states, units, design, n_permutations, n_bootstrap, seed)
    if chains:
        tests = chains_that_agree(
            tests, chains, units, n_permutations=n_permutations, seed=seed, alpha=ALPHA
        )
    changes = _changes(units, places)
    result = GroupComparison(
        model=str(table.attrs.get("model", "")),
        version=str(table.attrs.get("version", "")),
        by=by,
        unit=units.unit,
        blocked_by=units.blocked_by,
        design=units.design,
        n_assignments=design.n_assignments,
        smallest_p=smallest_p(design, n_permutations),
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        seed=seed,
        is_exact=design.is_exact(n_permutations),
        groups=_groups(units),
        syllables=found,
        tests=tests,
        values=_values(values, states, units),
        pairs=_pairs(values, states, units, design, n_permutations, n_bootstrap, seed),
        transitions=None
        if changes is None
        else compare_transitions(
            changes, states, design, units.groups, n_permutations=n_permutations, seed=seed
        ),
        classification=_classified(units, places, design, n_permutations, seed),
        fingerprints=fingerprints(units, states),
        notes=(*units.notes, *_limits(design, units, len(places), n_permutations)),
        methods="",
        references=(),
    )
    methods = method_text(result)
    return replace(result, methods=methods, references=references_of(methods))


def _check_numbers(n_permutations: int, n_bootstrap: int, seed: int) -> None:
    """Refuse impossible numbers (InputError)."""
    limits = {
        "n_permutations": (n_permutations, 19, _MOST_PERMUTATIONS),
        "n_bootstrap": (n_bootstrap, 100, _MOST_PERMUTATIONS),
        "seed": (seed, 0, 2**32 - 1),
    }
    problems = []
    for name, (value, low, high) in limits.items():
        is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not is_whole or not low <= value <= high:
            problems.append(
                Problem(
                    f"a whole number from {low:,} to {high:,}",
                    repr(value),
                    option(name, value),
                    "choose one of these",
                )
            )
    if problems:
        raise InputError.of(problems)


def _require_test(units: Units, design: Design, n_permutations: int) -> None:
    """Refuse a design in which no p can be below 1 (InputError)."""
    if design.least_p(n_permutations) < 1:
        return
    sizes = ", ".join(f"{n} {name}" for name, n in zip(units.groups, units.sizes, strict=True))
    within = f" in {counted(int(units.block.max()) + 1, units.blocked_by)}" * bool(units.blocked_by)
    raise InputError(
        expected="a design that allows a test: groups of several units, or several blocks",
        found=f"{sizes}{within}, unit {units.unit}: every assignment of the groups differs as much "
        "as this one",
        where=option("by", units.by),
        fix=f"add {plural(units.unit)}, or compare groups that have several; frames and bouts of "
        f"one {units.unit} are not independent of each other and cannot stand in for more",
    )


def _limits(design: Design, units: Units, n_tested: int, n_permutations: int) -> tuple[str, ...]:
    """What the design cannot find."""
    least = smallest_p(design, n_permutations)
    if least > ALPHA:
        return (
            f"no p can be below {least:.2g} with so few {plural(units.blocked_by or units.unit)}, "
            f"whatever the effect: no test can reach {ALPHA:g}",
        )
    if least * n_tested > ALPHA:
        n = int(np.ceil(least * n_tested / ALPHA))
        return (
            f"with {counted(n_tested, 'syllable')} tested, a difference can reach q = {ALPHA:g} "
            f"only if {n} of them have the smallest p together",
        )
    return ()


def _tests(
    values: dict[str, np.ndarray],
    states: np.ndarray,
    units: Units,
    design: Design,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
) -> xr.Dataset:
    found = [
        kruskal_wallis(one, design, n_permutations=n_permutations, seed=seed)
        for one in values.values()
    ]
    columns = {name: np.stack([one[name] for one in found]) for name in found[0]}
    columns["q"] = np.stack([false_discovery_rate(row) for row in columns["p"]])
    columns["q_across"] = false_discovery_rate(columns["p"])
    dims = ("statistic", "state")
    n_groups = len(units.groups)
    ends = [
        mean_intervals(v, units.group, n_groups, n_bootstrap=n_bootstrap, seed=seed)
        for v in values.values()
    ]
    means = {
        "mean": [group_means(v, units) for v in values.values()],
        "mean_low": [low for low, _ in ends],
        "mean_high": [high for _, high in ends],
    }
    return xr.Dataset(
        {
            **{name: (dims, column) for name, column in columns.items()},
            **{name: ((*dims, "group"), np.stack(column)) for name, column in means.items()},
        },
        {
            "statistic": np.asarray([*values], dtype=object),
            "state": states,
            "group": np.asarray(units.groups, dtype=object),
        },
    )


def _values(values: dict[str, np.ndarray], states: np.ndarray, units: Units) -> xr.Dataset:
    return xr.Dataset(
        {"value": (("statistic", "unit", "state"), np.stack([v.T for v in values.values()]))},
        {
            "statistic": np.asarray([*values], dtype=object),
            "unit": np.asarray(units.names, dtype=object),
            "group": ("unit", np.asarray([units.groups[i] for i in units.group], dtype=object)),
            "state": states,
        },
    )


def _pairs(
    values: dict[str, np.ndarray],
    states: np.ndarray,
    units: Units,
    design: Design,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
) -> xr.Dataset:
    n_groups = len(units.groups)
    found = [
        compare_pairs(
            one,
            design,
            n_groups,
            n_permutations=n_permutations,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
        for one in values.values()
    ]
    columns = {name: np.stack([one[name] for one in found]) for name in found[0]}
    columns["q"] = np.stack([false_discovery_rate(table) for table in columns["p"]])
    columns["q_across"] = false_discovery_rate(columns["p"])
    names = [tuple(units.groups[i] for i in pair) for pair in pairs_of(n_groups)]
    return xr.Dataset(
        {name: (("statistic", "pair", "state"), column) for name, column in columns.items()},
        {
            "statistic": np.asarray([*values], dtype=object),
            "first": ("pair", np.asarray([pair[0] for pair in names], dtype=object)),
            "second": ("pair", np.asarray([pair[1] for pair in names], dtype=object)),
            "state": states,
        },
    )


def _changes(units: Units, places: np.ndarray) -> np.ndarray | None:
    if "transition_count" not in units.pooled or len(places) < 2:
        return None
    changes = units.pooled["transition_count"].values[:, places][:, :, places].copy()
    changes[:, np.arange(len(places)), np.arange(len(places))] = 0
    return changes


def _classified(
    units: Units, places: np.ndarray, design: Design, n_permutations: int, seed: int
) -> xr.Dataset:
    usage = values_of(units.pooled, "frequency")[places].T
    found = classify(usage, design, units.groups, n_permutations=n_permutations, seed=seed)
    return found.assign_coords(
        unit=np.asarray(units.names, dtype=object),
        true=("unit", np.asarray([units.groups[i] for i in units.group], dtype=object)),
    )


def _groups(units: Units) -> xr.Dataset:
    member = units.group == np.arange(len(units.groups))[:, None]
    frames = units.pooled["n_frames"].values.sum(1)
    return xr.Dataset(
        {
            "n_units": ("group", member.sum(1)),
            "n_sessions": ("group", member @ units.pooled["n_sessions"].values),
            "n_frames": ("group", (member @ frames).astype(np.int64)),
        },
        {"group": np.asarray(units.groups, dtype=object)},
    )
