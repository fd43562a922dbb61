"""Sweeps over sessions that lie with the workers of a cluster."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.runs.bundle import (
    BundleResult,
    BundleWork,
    CountOrder,
    KeepOrder,
    Order,
    RelabelOrder,
    SweepOrder,
    bundles_of,
    forget,
    names_of,
    work,
    write,
)
from kpms_zarr.compute.runs.plan import chain_index, n_keypoints_of, tile_shape
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.sampler.ar_model import ArModel
from kpms_zarr.compute.sampler.bouts import LabelCounts
from kpms_zarr.compute.sampler.chain import ChainSizes
from kpms_zarr.compute.sampler.full_model import FullModel
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import OnTile, SweepResult, result_of
from kpms_zarr.compute.sampler.tile_model import Parameters, SweepSums, TileModel
from kpms_zarr.compute.sampler.windows import LabelWindows
from kpms_zarr.store.core.access import StoreLike, absolute
from kpms_zarr.store.model.checkpoints import Checkpoint
from kpms_zarr.store.wording import counted


@dataclass
class RemoteSweeper:
    """Sweeps, commits and counts by the workers of a cluster, from a commit on.

    Its results are those of a :class:`Sweeper` to the bit: sums are taken by shard, and folded in
    the order of the shards.

    Attributes
    ----------
    crew : Crew
    checkpoint : Checkpoint
        That the workers begin with.
    n_draws : int
        Draws of the labels that are kept so far.
    """

    crew: Crew
    store: StoreLike
    model: str
    fit_id: str
    preparation: Preparation
    config: FitConfig
    checkpoint: Checkpoint
    n_draws: int = 0
    pipeline: Pipeline = field(default_factory=lambda: Pipeline(1))
    _log: list[Order] = field(default_factory=list)
    _n_committed: int = 0
    _n_layout: int = 0
    _id: str = ""
    _parts: list[Part] = field(default_factory=list)
    _sessions: list[tuple[str, ...]] = field(default_factory=list)
    _known: list[int] = field(default_factory=list)
    _workers: frozenset[str] = frozenset()
    _counts: LabelCounts | None = None
    _windows: np.ndarray | None = None

    def __post_init__(self) -> None:
        index = chain_index(self.preparation.sessions, self.config)
        study = self.preparation.study
        self.sizes = ChainSizes(
            index, len(self.preparation.loading), len(study.space),
            n_keypoints_of(self.config, study),
        )  # fmt: skip
        self.shape = tile_shape(index, self.config)
        self.n_draws = _draws_in(self.checkpoint)

    @property
    def n_states(self) -> int:
        """See :class:`Sweeps`."""
        return self.config.n_states

    def sweep(
        self,
        model: TileModel,
        parameters: Parameters,
        number: int,
        on_tile: OnTile = lambda done, of: None,
    ) -> SweepResult:
        """See :meth:`Sweeper.sweep`."""
        is_full = isinstance(model, FullModel)
        order = SweepOrder(
            "full" if is_full else "ar", number, parameters,
            model.observation.noise_variance if isinstance(model, FullModel) else None,
            model.settings.holds_labels if isinstance(model, FullModel) else False,
        )  # fmt: skip
        assert is_full or isinstance(model, ArModel)
        results = self._carry_out(order, on_tile)
        sums: dict[int, SweepSums] = {}
        for result in results:
            sums |= result.sums
        in_order = [sums[shard] for shard in sorted(sums)]
        total = reduce(SweepSums.plus, in_order, model.no_sums(self.sizes, self.n_states))
        assert self._counts is not None
        return result_of(self.sizes.index, model, parameters, total, self._counts)

    def relabel(self, target: np.ndarray) -> LabelCounts:
        """See :meth:`Sweeps.relabel`."""
        self._carry_out(RelabelOrder(target))
        return self.count()

    def labels_in(self, windows: LabelWindows) -> np.ndarray:
        """See :meth:`Sweeps.labels_in`."""
        if self._windows is None:
            self._carry_out(CountOrder())
        assert self._windows is not None
        return self._windows

    def keep_draw(self, slot: int) -> None:
        """See :meth:`Sweeps.keep_draw`; it is carried out with what is ordered next."""
        self._log.append(KeepOrder(slot))
        self.n_draws = max(self.n_draws, slot + 1)

    # -------------------------------------------------------------- commits

    def count(self) -> LabelCounts:
        """See :meth:`CommitRows.count`."""
        if self._counts is None:
            self._carry_out(CountOrder())
        assert self._counts is not None
        return self._counts

    def write(self, path: str, order: np.ndarray) -> int:
        """See :meth:`CommitRows.write`."""
        if not self._parts:
            self._share_out()

        def arguments(part: int, is_whole: bool) -> tuple[Any, ...]:
            return self._work(part, is_whole), path, order

        n_bytes = self.crew.call(self._parts, write, arguments)
        self._known = [self._n_ordered] * len(self._parts)
        return sum(n_bytes)

    def committed(self, n_sweeps: int) -> None:
        """Let workers that begin anew do so with this commit, and share out when they changed."""
        self._n_committed += len(self._log)
        self._log.clear()
        self.checkpoint = replace(self.checkpoint, name=f"s{n_sweeps:09d}", n_sweeps=n_sweeps)
        there = frozenset(self.crew.there())
        has_moved = len({part.worker for part in self._parts}) < len(self._parts)
        if there and (there != self._workers or has_moved):
            self._parts = []

    def go_back(self, checkpoint: Checkpoint) -> None:
        """Begin anew with the last commit."""
        self.close()
        self._id = ""
        self._log.clear()
        self._counts = self._windows = None
        self.checkpoint, self.n_draws = checkpoint, _draws_in(checkpoint)
        self._parts = []

    def close(self) -> None:
        """Let the workers forget the fit."""
        if self._id:
            self.crew.everywhere(forget, self._id)

    # -------------------------------------------------------------- orders

    @property
    def _n_ordered(self) -> int:
        return self._n_committed + len(self._log)

    def _share_out(self) -> None:
        """Share the sessions out among the workers that there are."""
        workers = self.crew.workers()
        index = self.sizes.index
        bundles = bundles_of(index.shard, index.length, len(workers))
        # The same workers get the same, so that little moves when one comes or goes.
        names = sorted(workers)
        self._n_layout += 1
        # Of this run alone: what workers remember of an earlier one is not that of a commit.
        self._id = self._id or f"{self.fit_id}-{uuid.uuid4().hex[:12]}"
        self._workers = frozenset(workers)
        self._sessions = [names_of(index.sessions, which) for which in bundles]
        what = f"{counted(len(bundles), 'part')} of {self.model!r}"
        self._parts = [
            Part(f"part {i + 1} of {what}", worker)
            for i, worker in enumerate(names[: len(bundles)])
        ]
        self._known = [-1] * len(bundles)

    def _work(self, part: int, is_whole: bool) -> BundleWork:
        known = self._known[part]
        is_whole = is_whole or known < self._n_committed
        first = self._n_committed if is_whole else known
        return BundleWork(
            store=absolute(self.store),
            model=self.model,
            fit_id=self._id,
            n_layout=self._n_layout,
            sessions=self._sessions[part],
            commit=self.checkpoint.name,
            n_committed=self._n_committed,
            first=first,
            orders=tuple(self._log[first - self._n_committed :]),
            fps=max(session.fps for session in self.sizes.index.sessions),
        )

    def _carry_out(
        self, order: Order, on_tile: OnTile = lambda done, of: None
    ) -> list[BundleResult]:
        if not self._parts:
            self._share_out()
        self._log.append(order)
        n_tiles, n_done = self.shape.n_tiles(self.sizes.index), 0

        def on_done(part: int, result: BundleResult) -> None:
            nonlocal n_done
            n_done += result.n_tiles
            on_tile(min(n_done, n_tiles), n_tiles)

        def arguments(part: int, is_whole: bool) -> tuple[Any, ...]:
            return (self._work(part, is_whole),)

        results: list[BundleResult] = self.crew.call(self._parts, work, arguments, on_done=on_done)
        self._known = [self._n_ordered] * len(self._parts)
        self._counts = reduce(LabelCounts.plus, [result.counts for result in results])
        self._windows = np.maximum.reduce([result.windows for result in results])
        return results


def _draws_in(checkpoint: Checkpoint) -> int:
    """Draws of the labels that a commit holds."""
    array: Any = checkpoint.group.get("draw")
    return 0 if array is None else int(array.shape[-1])
