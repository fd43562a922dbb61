"""One chain of a scan, and how the chains of a point are compared: here, or on a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis.agreement import rand_index_of
from kpms_zarr.compute.cluster.worker import Leash, on_own_threads, passer, share_of_worker
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback
from kpms_zarr.compute.runs.bench import (
    Bench,
    Counted,
    chain_figures,
    kept_sweeps,
    opened_bench,
    rows_of,
)
from kpms_zarr.compute.runs.choosing import ChosenSessions
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.runs.publish import Numbered, by_frequency, published_labels
from kpms_zarr.compute.runs.stages import begin, run
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core import access
from kpms_zarr.store.model.scans import ScanGroup, blocks_of


@dataclass(frozen=True)
class ScanChain:
    """One chain of a scan.

    Attributes
    ----------
    row, number : int
        Of its point, and of itself among the chains of the point.
    label : str
        Settings of its point, in words.
    config : FitConfig
        Settings of the fit that it is like.
    """

    row: int
    number: int
    label: str
    config: FitConfig


@dataclass(frozen=True)
class ScanWork:
    """Work: chains of points that are compiled alike, over one load of the sessions.

    Attributes
    ----------
    store, name : str
        What is found is in the group ``scans/<name>``.
    config : FitConfig
        That the sessions are loaded with: of the first of the points.
    n_chains : int
        Of each point.
    """

    store: str
    name: str
    chosen: ChosenSessions
    preparation: Preparation
    config: FitConfig
    counted: Counted
    n_chains: int

    @contextmanager
    def loaded(self, budget: Budget, notify: Callback) -> Iterator[Bench]:
        """Context with the loaded sessions."""
        args = (self.chosen, self.preparation, self.config, budget, self.counted, notify)
        with opened_bench(*args) as bench:
            yield bench

    def run(
        self,
        bench: Bench,
        group: ScanGroup,
        one: ScanChain,
        notify: Callback,
        goes_on: Callable[[], bool],
    ) -> dict[str, Any] | None:
        """Run one chain and keep its labels.

        Parameters
        ----------
        goes_on : callable
            Whether to, asked after every sweep.

        Returns
        -------
        dict or None
            Figures by their names in the store, which are still to be kept; None where it was
            stopped.
        """
        began, config = time.perf_counter(), one.config
        sweeper = bench.begin(config)
        progress = begin(sweeper, config, None, 0)
        wanted, kept = kept_sweeps(config), []

        def after_sweep() -> bool:
            if progress.done in wanted:
                kept.append(progress.parameters)
            return goes_on()

        notify = bench.pass_on(notify)
        run(sweeper, bench.preparation, config, progress, notify, after_sweep=after_sweep)
        if progress.done < config.all_sweeps:
            return None
        labels, is_full = published_labels(sweeper.chain), config.stage != "ar"
        counts = count_labels(labels, config.n_states)
        numbered = Numbered(labels, by_frequency(counts))
        figures = chain_figures(counts, progress, config)
        if not is_full:
            figures |= bench.likelihoods(progress.parameters, kept)
        figures["seconds"] = time.perf_counter() - began
        group.write_chain(
            one.row, one.number, sessions=self.chosen.sampled,
            read=partial(rows_of, sweeper.chain, numbered, is_full),
            n_latent=sweeper.chain.n_latent if is_full else 0,
            parameters=progress.parameters.to_store() if is_full else None,
        )  # fmt: skip
        return figures

    # -------------------------------------------------------------- the chains of a point

    def compared(self, bench: Bench | None, group: ScanGroup, row: int) -> dict[str, np.ndarray]:
        """Compare the chains of a point, all of which are there: figures by name, (chain,) each.

        Parameters
        ----------
        bench : Bench or None
            Of the full stage.
        """
        found = {}
        if bench is not None and self.config.stage != "ar":
            found["expected_marginal_likelihood"] = self._crossed(bench, group, row)
        found["adjusted_rand_index"] = self._agreement(group, row)
        return found

    def _agreement(self, group: ScanGroup, row: int) -> np.ndarray:
        """Mean adjusted Rand index of each chain with the others, block by block: (chain,)."""
        pairs, n_states = list(combinations(range(self.n_chains), 2)), self.config.n_states
        tables = np.zeros((len(pairs), n_states, n_states), np.int64)
        for block in blocks_of(self.chosen.sampled):
            labels = [
                group.read(row, number, "syllable", block).astype(np.int64)
                for number in range(self.n_chains)
            ]
            for table, (a, b) in zip(tables, pairs, strict=True):
                flat = labels[a] * n_states + labels[b]
                table += np.bincount(flat, minlength=n_states**2).reshape(n_states, n_states)
        index = np.full((self.n_chains, self.n_chains), np.nan)
        for table, (a, b) in zip(tables, pairs, strict=True):
            index[a, b] = index[b, a] = rand_index_of(table)
        return np.asarray(np.nanmean(index, 1))

    def _crossed(self, bench: Bench, group: ScanGroup, row: int) -> np.ndarray:
        """EML of the chains of a point of the full stage: (chain,), see :func:`kpms_zarr.scan`."""
        parameters = [
            Parameters.from_store(group.parameters(row, number)) for number in range(self.n_chains)
        ]
        found = np.full((self.n_chains, self.n_chains), np.nan)
        for j in range(self.n_chains):
            for block in blocks_of(self.chosen.sampled):
                bench.put_latent(block, group.read(row, j, "latent", block))
            for i in range(self.n_chains):
                if i != j:
                    found[i, j] = bench.per_frame(parameters[i])
        return np.asarray(np.nanmean(found, 1))


# ------------------------------------------------------------------ on the workers of a cluster


def run_chain(work: ScanWork, one: ScanChain, leash: str) -> dict[str, Any] | None:
    """Run a chain on a worker; see :meth:`ScanWork.run`.

    A worker that is lost leaves nothing that counts: another one begins the chain anew.
    """
    is_pulled = Leash(leash).is_pulled
    if is_pulled():
        return None
    group, notify = _group_of(work), passer(leash)
    with on_own_threads(), work.loaded(share_of_worker()[1], notify) as bench:
        return work.run(bench, group, one, notify, lambda: not is_pulled())


def compare_chains(work: ScanWork, row: int, leash: str) -> dict[str, np.ndarray] | None:
    """Compare the chains of a point on a worker; None where that is not wanted any more."""
    if Leash(leash).is_pulled():
        return None
    group = _group_of(work)
    if work.config.stage == "ar":
        return work.compared(None, group, row)
    with on_own_threads(), work.loaded(share_of_worker()[1], lambda event: None) as bench:
        return work.compared(bench, group, row)


def _group_of(work: ScanWork) -> ScanGroup:
    return ScanGroup(access.open_group(work.store, "r+"), work.name)
