"""Comparison of groups of sessions or animals of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.groups.chains import in_syllables_of
from kpms_zarr.compute.analysis.groups.comparison import GroupComparison, compare_groups_of
from kpms_zarr.compute.analysis.groups.tested import MIN_FREQUENCY, MIN_REPLICABILITY
from kpms_zarr.compute.analysis.tables.syllable_table import syllable_table
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.epoch_tables import EpochsLike
from kpms_zarr.store.model.models import open_labels, open_parameters
from kpms_zarr.store.model.replicability import open_replicability
from kpms_zarr.store.wording import listed


def compare_groups(
    store: StoreLike,
    *,
    model: str,
    by: str,
    block: str | None = None,
    unit: str = "session",
    statistic: Sequence[str] = ("frequency", "duration"),
    groups: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    epochs: EpochsLike | None = None,
    syllables: Sequence[int] | None = None,
    min_frequency: float = MIN_FREQUENCY,
    min_replicability: float = MIN_REPLICABILITY,
    chains: bool = True,
    n_permutations: int = 10_000,
    n_bootstrap: int = 10_000,
    seed: int = 0,
    version: str | None = None,
) -> GroupComparison:
    """Compare what groups of sessions or animals do: permutation tests, syllable by syllable.

    A unit is a session or an animal, never a bout or a frame. Epochs of a session in the same group
    are one; where ``by`` differs within sessions, it is compared within each; where it differs
    between the blocks, such as animals with several sessions, whole blocks are the units. The
    result says in ``design`` which case the data are.

    Parameters
    ----------
    store : path or URL
    model : str
    by : str
        Coordinate whose values are the groups, such as ``"group"``, or ``"condition"`` of epochs.
    block : str, optional
        Coordinate of what belongs together, such as ``"animal"``.
    unit : str
        Coordinate whose sessions are pooled to one unit for each group, whatever ``by`` is.
    statistic : sequence of str
        ``"frequency"`` (share of the frames), ``"bouts"`` (share of the bouts), ``"duration"``
        (mean, ms), ``"median_duration"`` (ms), ``"speed"`` (units/s), ``"turning"`` (rad/s,
        signed), ``"absolute_turning"`` (rad/s).
    groups : sequence of str, optional
        Values of ``by`` to compare, in this order (default: all, sorted).
    sessions : sequence of str, optional
        Names, patterns, ``coordinate=value`` (default: all that have labels).
    epochs : path, DataFrame, mapping or ``"none"``, optional
        In place of those of the store, see :func:`kpms_zarr.epochs`.
    syllables : sequence of int, optional
        These, in place of those that are frequent and replicate.
    min_frequency, min_replicability : float
        Least share of the frames, and least Jaccard index where it is known, of a syllable that is
        tested.
    chains : bool
        Whether to test again in every chain of an ensemble.
    n_permutations : int
        Random assignments of the groups; all, where there are no more.
    n_bootstrap : int
        Samples for the intervals of effect sizes.
    seed : int
    version : str, optional
        Of the labels (default: the current one).

    Returns
    -------
    GroupComparison

    Raises
    ------
    InputError
        When there is no such model or coordinate, or the design allows no test.
    """
    wanted = None if sessions is None else list(sessions)
    table = syllable_table(store, model=model, version=version, epochs=epochs, sessions=wanted)
    tables: list[xr.Dataset] = []
    notes: tuple[str, ...] = ()
    if chains:
        tables, notes = chain_tables(
            store, model, table.sizes["state"], version=version, epochs=epochs, sessions=wanted
        )
    result = compare_groups_of(
        table,
        by=by,
        block=block,
        unit=unit,
        statistic=statistic,
        groups=groups,
        syllables=syllables,
        min_frequency=min_frequency,
        min_replicability=min_replicability,
        replicability=replicability_of(store, model, version, table.sizes["state"]),
        chains=tables,
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    return replace(result, notes=(*result.notes, *notes))


def replicability_of(
    store: StoreLike, model: str, version: str | None, n_states: int
) -> np.ndarray:
    """Jaccard index of each syllable between halves of the chains, (state,); NaN = not known."""
    index = np.full(n_states, np.nan)
    labels = open_labels(store, model, version)
    if "frequency" in labels:
        found = open_replicability(store, model, labels).between_chains[:n_states]
        index[: len(found)] = found
    return index


def chain_tables(
    store: StoreLike,
    model: str,
    n_states: int,
    *,
    version: str | None = None,
    epochs: EpochsLike | None = None,
    sessions: list[str] | None = None,
) -> tuple[list[xr.Dataset], tuple[str, ...]]:
    """Tables of the chains of an ensemble in its syllables, and a note of chains that are gone.

    Parameters
    ----------
    n_states : int
        Of the ensemble.
    version : str, optional
        Of its labels (default: the current one), whose syllables these are.
    epochs, sessions
        See :func:`compare_groups`.

    Returns
    -------
    (list of xarray.Dataset, (row, state), tuple of str)
        None for a model that is no ensemble.
    """
    try:
        parameters = open_parameters(store, model, version)
    except (InputError, KeyError, FileNotFoundError):
        return [], ()
    if "member" not in parameters or "member_syllable" not in parameters:
        return [], ()
    found, gone = [], []
    votes = parameters["member_syllable"].values
    versions = map(str, parameters["member_version"].values)
    for name, version, syllable in zip(
        map(str, parameters["member"].values), versions, votes, strict=True
    ):
        try:
            table = syllable_table(
                store, model=name, version=version, epochs=epochs, sessions=sessions
            )
        except (InputError, KeyError, FileNotFoundError):
            gone.append(name)
            continue
        found.append(in_syllables_of(table, syllable, n_states))
    lost = (f"chains that are no longer in the store: {listed(gone)}",) if gone else ()
    return found, lost
