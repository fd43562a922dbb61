"""One scan from its sessions to its table: which chains are missing, and how they are compared."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, groupby
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis.agreement import rand_index_of
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, ChainEnded, ChainStarted
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.bench import (
    Bench,
    Counted,
    chain_figures,
    kept_sweeps,
    opened_bench,
    rows_of,
)
from kpms_zarr.compute.runs.choosing import ChosenSessions
from kpms_zarr.compute.runs.commit import source_hashes
from kpms_zarr.compute.runs.grid import Point, ScanGrid
from kpms_zarr.compute.runs.interruption import Stop
from kpms_zarr.compute.runs.preparation import Preparation, prepare
from kpms_zarr.compute.runs.publish import Numbered, by_frequency, published_labels
from kpms_zarr.compute.runs.stages import begin, run
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.locking import Lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.scans import ScanGroup, blocks_of
from kpms_zarr.store.wording import counted, listed


class ScanInterrupted(KeyboardInterrupt):
    """A scan that was asked to stop; the chains that had ended are kept."""


def config_of(point: Point, config: FitConfig, number: int = 0) -> FitConfig:
    """Settings of the fit that chain ``number`` of a point is like."""
    settings = dict(point.settings)
    if "kappa" in settings:  # a target then only says which is wanted
        settings["target_duration"] = None
    return config.resolved(**settings, seed=config.seed + number)


@dataclass
class ScanJob:
    """Job: one scan.

    Attributes
    ----------
    config : FitConfig
        Settings that all points share; ``sessions`` are those of ``chosen``.
    n_chains : int
        Of each point.
    """

    store: StoreLike
    root: access.Group
    group: ScanGroup
    grid: ScanGrid
    config: FitConfig
    chosen: ChosenSessions
    n_chains: int
    budget: Budget
    notify: Callback
    lock: Lock
    stop: Stop

    def run(self, *, overwrite: bool) -> int:
        """Run the chains that are missing; returns how many."""
        known, request = self.group.request, self._request()
        is_same = known == request
        if known and not is_same and not overwrite:
            raise self._other(known, request)
        if is_same and self.group.is_done().all() and not self._uncompared():
            return 0
        try:
            with limit_workers(self.store, self.budget.host_memory, is_strict=False):
                preparation = prepare(self.store, self._widest(), None, self.notify)
            request = self._request()  # once more: there may be another PCA now
            if not is_same:
                self._begin(request)
            elif request != known:
                raise self._other(known or {}, request)
            points = list(enumerate(self.grid.points))
            parts = groupby(points, key=lambda item: _compiled(item[1]))
            return sum(self._run_alike(list(alike), preparation) for _, alike in parts)
        finally:
            self.group.finish()

    # -------------------------------------------------------------- what is asked for

    def _request(self) -> dict[str, Any]:
        """What is asked for, JSON-compatible: equal to what is kept where that is the same scan."""
        aside = ("sessions", "until_settled")
        settings = {k: v for k, v in self.config.to_dict().items() if k not in aside}
        hashes = source_hashes(self.root)
        request = {
            **{axis: list(values) for axis, values in self.grid.values.items()},
            "chains": self.n_chains,
            "config": settings,
            "sessions": {s.name: [s.n_frames, hashes[s.name]] for s in self.chosen.sampled},
            "held_out": {s.name: [s.n_frames, hashes[s.name]] for s in self.chosen.held_out},
            "pca": "" if self.config.use_keypoints else access.made(self.root, layout.PCA),
        }
        found: dict[str, Any] = json.loads(json.dumps(request))
        return found

    def _other(self, known: Mapping[str, Any], request: Mapping[str, Any]) -> InputError:
        """Error of a name under which something else is kept."""
        differs = [key for key in {**known, **request} if known.get(key) != request.get(key)]
        if "config" in differs:
            before, now = known["config"], request["config"]
            of_config = [key for key in now if before.get(key) != now[key]]
            differs = [key for key in differs if key != "config"] + of_config
        return InputError(
            expected=f"another `name=`, or the scan that is kept as {self.group.name!r}",
            found=f"one that differs in {listed(sorted(differs))}",
            where=os.fspath(self.store),
            fix="choose another `name=`, or add `overwrite=True` to drop what is kept",
        )

    def _begin(self, request: Mapping[str, Any]) -> None:
        self.group.begin(
            request,
            points=self.grid.coordinates(),
            seeds=[self.config.seed + number for number in range(self.n_chains)],
            sessions=self.chosen.sampled,
            held_out=[session.name for session in self.chosen.held_out],
            attrs={
                "stage": self.config.stage,
                "varies": [axis.setting for axis in self.grid.axes],
            },
        )

    def _widest(self) -> FitConfig:
        """Settings with the most latent dims of all points: the others have the first of these."""
        dims = self.grid.values.get("latent_dim")
        return self.config.resolved(latent_dim=max(dims)) if dims else self.config

    @property
    def _counted(self) -> Counted:
        dims = self.grid.values.get("latent_dim")
        lags = max(config_of(point, self.config).lags for point in self.grid.points)
        return Counted(min(dims) if dims else None, lags)

    # -------------------------------------------------------------- chains

    def _run_alike(self, points: Sequence[tuple[int, Point]], preparation: Preparation) -> int:
        """Run the missing chains of points of equal latent dims and lags, over one load."""
        is_done, uncompared = self.group.is_done(), self._uncompared()
        n_missing = sum(int((~is_done[row]).sum()) for row, _ in points)
        if not n_missing and not any(row in uncompared for row, _ in points):
            return 0
        config = config_of(points[0][1], self.config)
        n_latent = config.latent_dim or len(preparation.loading)
        preparation = replace(preparation, loading=preparation.loading[:n_latent])
        args = (self.chosen, preparation, config, self.budget, self._counted, self.notify)
        with opened_bench(*args) as bench:
            for row, point in points:
                for number in np.flatnonzero(~is_done[row]).tolist():
                    self._check()
                    self._run_chain(bench, row, point, number)
                self._compare(bench, row)
        return n_missing

    def _run_chain(self, bench: Bench, row: int, point: Point, number: int) -> None:
        """Run one chain and keep what it has found."""
        began = time.perf_counter()
        config = config_of(point, self.config, number)
        is_done = self.group.is_done()
        told = (int(is_done.sum()) + 1, is_done.size, point.label, config.seed)
        self.notify(ChainStarted(*told))
        sweeper = bench.begin(config)
        progress = begin(sweeper, config, None, 0)
        wanted, kept = kept_sweeps(config), []

        def after_sweep() -> bool:
            self.lock.renew()
            if progress.done in wanted:
                kept.append(progress.parameters)
            return not self.stop.is_asked

        notify = bench.pass_on(self.notify)
        run(sweeper, bench.preparation, config, progress, notify, after_sweep=after_sweep)
        if progress.done < config.all_sweeps:
            self._check()
        labels, is_full = published_labels(sweeper.chain), config.stage != "ar"
        counts = count_labels(labels, config.n_states)
        numbered = Numbered(labels, by_frequency(counts))
        figures = chain_figures(counts, progress, config)
        if not is_full:
            figures |= bench.likelihoods(progress.parameters, kept)
        figures["seconds"] = time.perf_counter() - began
        self.group.write_chain(
            row, number, figures, sessions=self.chosen.sampled,
            read=partial(rows_of, sweeper.chain, numbered, is_full),
            n_latent=sweeper.chain.n_latent if is_full else 0,
            parameters=progress.parameters.to_store() if is_full else None,
        )  # fmt: skip
        held_out = figures.get("held_out_log_likelihood", np.nan)
        shown = (figures["seconds"], figures["median_duration"], figures["n_used"], held_out)
        self.notify(ChainEnded(*told, *shown))

    def _check(self) -> None:
        """Stop where that was asked for."""
        if self.stop.is_asked:
            is_done = self.group.is_done()
            of = counted(is_done.size, "chain")
            raise ScanInterrupted(
                f"stopped; {int(is_done.sum())} of {of} are kept; ask for the same again to go on "
                "with the others"
            )

    # -------------------------------------------------------------- the chains of a point

    def _uncompared(self) -> list[int]:
        """Points whose chains are there and not yet compared."""
        if self.n_chains < 2:
            return []
        is_compared = np.isfinite(self.group.table()["adjusted_rand_index"].values).all(1)
        return np.flatnonzero(self.group.is_done().all(1) & ~is_compared).tolist()

    def _compare(self, bench: Bench, row: int) -> None:
        """Compare the chains of a point, when all are there."""
        if row not in self._uncompared():
            return
        found = {}
        if self.config.stage != "ar":
            found["expected_marginal_likelihood"] = self._crossed(bench, row)
        found["adjusted_rand_index"] = self._agreement(row, bench.sweeper.n_states)
        for number in range(self.n_chains):
            figures = {name: values[number] for name, values in found.items()}
            self.group.write_figures(row, number, figures)

    def _agreement(self, row: int, n_states: int) -> np.ndarray:
        """Mean adjusted Rand index of each chain with the others, block by block: (chain,)."""
        pairs = list(combinations(range(self.n_chains), 2))
        tables = np.zeros((len(pairs), n_states, n_states), np.int64)
        for block in blocks_of(self.chosen.sampled):
            labels = [
                self.group.read(row, number, "syllable", block).astype(np.int64)
                for number in range(self.n_chains)
            ]
            for table, (a, b) in zip(tables, pairs, strict=True):
                flat = labels[a] * n_states + labels[b]
                table += np.bincount(flat, minlength=n_states**2).reshape(n_states, n_states)
        index = np.full((self.n_chains, self.n_chains), np.nan)
        for table, (a, b) in zip(tables, pairs, strict=True):
            index[a, b] = index[b, a] = rand_index_of(table)
        return np.asarray(np.nanmean(index, 1))

    def _crossed(self, bench: Bench, row: int) -> np.ndarray:
        """EML of the chains of a point of the full stage: (chain,), see :func:`kpms_zarr.scan`."""
        parameters = [
            Parameters.from_store(self.group.parameters(row, number))
            for number in range(self.n_chains)
        ]
        found = np.full((self.n_chains, self.n_chains), np.nan)
        for j in range(self.n_chains):
            for block in blocks_of(self.chosen.sampled):
                bench.put_latent(block, self.group.read(row, j, "latent", block))
            for i in range(self.n_chains):
                if i != j:
                    found[i, j] = bench.per_frame(parameters[i])
        return np.asarray(np.nanmean(found, 1))


def _compiled(point: Point) -> tuple[Any, ...]:
    """What is compiled anew when it changes."""
    return tuple(point.settings.get(name) for name in ("latent_dim", "lags"))
