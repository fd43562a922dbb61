"""One scan from its sessions to its table: which chains are missing, and how they are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.compute.cluster.jobs import run_jobs
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, ChainEnded, ChainStarted
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.bench import Bench, Counted
from kpms_zarr.compute.runs.choosing import ChosenSessions
from kpms_zarr.compute.runs.commit import source_hashes
from kpms_zarr.compute.runs.grid import Point, ScanGrid
from kpms_zarr.compute.runs.interruption import Stop
from kpms_zarr.compute.runs.noise_prior import calibration_for
from kpms_zarr.compute.runs.preparation import Preparation, prepare
from kpms_zarr.compute.runs.scan_work import ScanChain, ScanWork, compare_chains, run_chain
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.locking import Lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.scans import ScanGroup
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
    crew : Crew or None
        Workers that run the chains; None = this process.
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
    crew: Crew | None = None

    def run(self, *, overwrite: bool) -> int:
        """Run the chains that are missing; returns how many."""
        known, request = self.group.request, self._request()
        is_same = known == request
        if known and not is_same and not overwrite:
            raise self._other(known, request)
        if is_same and self.group.is_done().all() and not self._uncompared():
            return 0
        try:
            if self.crew is not None:
                self.crew.workers()  # waits for the first, which Dask would do for ever
            with limit_workers(self.store, self.budget.host_memory, is_strict=False):
                preparation = prepare(self.store, self._widest(), None, self.notify)
            request = self._request()  # once more: there may be another PCA now
            if not is_same:
                self._begin(request)
            elif request != known:
                raise self._other(known or {}, request)
            points = list(enumerate(self.grid.points))
            parts = groupby(points, key=lambda item: _compiled(item[1]))
            alike = [list(part) for _, part in parts]
            if self.crew is not None:
                return self._run_elsewhere(alike, preparation)
            return sum(self._run_here(part, preparation) for part in alike)
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
        calibration = calibration_for(self.root, self.config)
        if calibration is not None:
            request["calibration"] = list(astuple(calibration))
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

    def _work(self, points: Sequence[tuple[int, Point]], preparation: Preparation) -> ScanWork:
        """Work on points of equal latent dims and lags."""
        config = config_of(points[0][1], self.config)
        n_latent = config.latent_dim or len(preparation.loading)
        return ScanWork(
            access.absolute(self.store), self.group.name, self.chosen,
            replace(preparation, loading=preparation.loading[:n_latent]), config, self._counted,
            self.n_chains,
        )  # fmt: skip

    def _missing(self, points: Sequence[tuple[int, Point]]) -> list[ScanChain]:
        """Chains of some points that are not there yet."""
        is_done = self.group.is_done()
        return [
            ScanChain(row, number, point.label, config_of(point, self.config, number))
            for row, point in points
            for number in np.flatnonzero(~is_done[row]).tolist()
        ]

    def _run_here(self, points: Sequence[tuple[int, Point]], preparation: Preparation) -> int:
        """Run the missing chains of points of equal latent dims and lags, over one load."""
        missing, uncompared = self._missing(points), self._uncompared()
        if not missing and not any(row in uncompared for row, _ in points):
            return 0
        work = self._work(points, preparation)
        with work.loaded(self.budget, self.notify) as bench:
            for row, _ in points:
                for one in missing:
                    if one.row == row:
                        self._run_chain(work, bench, one)
                if row in self._uncompared():
                    self._keep_compared(row, work.compared(bench, self.group, row))
        return len(missing)

    def _run_chain(self, work: ScanWork, bench: Bench, one: ScanChain) -> None:
        """Run one chain and keep what it has found."""
        self._check()
        is_done = self.group.is_done()
        told = (int(is_done.sum()) + 1, is_done.size, one.label, one.config.seed)
        self.notify(ChainStarted(*told))

        def goes_on() -> bool:
            self.lock.renew()
            return not self.stop.is_asked

        figures = work.run(bench, self.group, one, self.notify, goes_on)
        if figures is None:
            self._check()
        else:
            self._keep(one, figures)

    def _keep(self, one: ScanChain, figures: Mapping[str, Any]) -> None:
        """Keep the figures of a chain, which say that it is there."""
        self.group.write_figures(one.row, one.number, figures)
        is_done = self.group.is_done()
        self.notify(
            ChainEnded(
                int(is_done.sum()), is_done.size, one.label, one.config.seed, figures["seconds"],
                figures["median_duration"], figures["n_used"],
                figures.get("held_out_log_likelihood", np.nan),
            )
        )  # fmt: skip

    def _run_elsewhere(
        self, alike: Sequence[Sequence[tuple[int, Point]]], preparation: Preparation
    ) -> int:
        """Run the missing chains on the workers of a cluster, then compare those of each point."""
        works = [self._work(points, preparation) for points in alike]
        jobs = [
            (work, one)
            for work, points in zip(works, alike, strict=True)
            for one in self._missing(points)
        ]

        def on_chain(job: int, figures: Mapping[str, Any] | None) -> None:
            if figures is not None:
                self._keep(jobs[job][1], figures)

        names = [f"the chain of {one.label}, seed {one.config.seed}," for _, one in jobs]
        self._on_workers(names, run_chain, jobs, on_chain)
        work_of = {
            row: work for work, points in zip(works, alike, strict=True) for row, _ in points
        }
        rows = self._uncompared()

        def on_compared(job: int, found: Mapping[str, np.ndarray] | None) -> None:
            if found is not None:
                self._keep_compared(rows[job], found)

        names = [f"the comparison of {self.grid.points[row].label}" for row in rows]
        self._on_workers(names, compare_chains, [(work_of[row], row) for row in rows], on_compared)
        return len(jobs)

    def _on_workers(
        self,
        names: Sequence[str],
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        on_done: Callable[[int, Any], None],
    ) -> None:
        assert self.crew is not None
        try:
            found = run_jobs(
                self.crew, names, function, arguments, notify=self.notify,
                is_stopped=lambda: self.stop.is_asked, on_poll=self.lock.renew, on_done=on_done,
            )  # fmt: skip
        except KeyboardInterrupt:
            self._check()  # asked for while there was no worker
            raise
        if any(one is None for one in found):
            self._check()

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

    def _keep_compared(self, row: int, found: Mapping[str, np.ndarray]) -> None:
        for number in range(self.n_chains):
            figures = {name: values[number] for name, values in found.items()}
            self.group.write_figures(row, number, figures)


def _compiled(point: Point) -> tuple[Any, ...]:
    """What is compiled anew when it changes."""
    return tuple(point.settings.get(name) for name in ("latent_dim", "lags"))
