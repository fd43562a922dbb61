"""Sweeps over sessions that lie with the workers of a cluster."""

from __future__ import annotations

import uuid
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import WorkersUsed
from kpms_zarr.compute.runs.bundle import (
    BundleResult,
    BundleWork,
    CountOrder,
    KeepOrder,
    Order,
    RelabelOrder,
    SweepOrder,
    TilesDone,
    bundles_of,
    forget,
    names_of,
    work,
    write,
)
from kpms_zarr.compute.runs.plan import chain_index, n_keypoints_of, shard_frames_of, tile_shape
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.sampler.ar_model import ArModel
from kpms_zarr.compute.sampler.bouts import LabelCounts
from kpms_zarr.compute.sampler.chain import ChainSizes
from kpms_zarr.compute.sampler.full_model import FullModel
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import InOrder, OnTile, SweepResult, result_of
from kpms_zarr.compute.sampler.tile_model import Parameters, TileModel
from kpms_zarr.compute.sampler.windows import LabelWindows
from kpms_zarr.store.core.access import StoreLike, absolute
from kpms_zarr.store.model.checkpoints import Checkpoint
from kpms_zarr.store.wording import counted

_PROGRESS_SECONDS = 1.0
"""Between two messages of a worker that say how far a sweep is, at least."""
_MOST_MESSAGES = 100
"""A second, of all workers together."""


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
    _tiles: _Tiles | None = None
    _listening: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        index = chain_index(self.preparation.sessions, self.config)
        study = self.preparation.study
        self.sizes = ChainSizes(
            index, len(self.preparation.loading), len(study.space),
            n_keypoints_of(self.config, study),
        )  # fmt: skip
        self.shape = tile_shape(index, self.config)
        self._fps = max(session.fps for session in index.sessions)
        self.n_draws = _draws_in(self.checkpoint)

    @property
    def n_states(self) -> int:
        """See :class:`Sweeps`."""
        return self.config.n_states

    @property
    def workers(self) -> WorkersUsed:
        """See :class:`Sweeps`."""
        used = len({part.worker for part in self._parts})
        return WorkersUsed(used, len(self._parts), self.crew.n_again)

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
            model.states,
        )  # fmt: skip
        assert is_full or isinstance(model, ArModel)
        index = self.sizes.index
        shards = deque(np.unique(index.shard).tolist())
        sums = InOrder(shards, model.no_sums(self.sizes, self.n_states))
        self._carry_out(order, on_tile, sums)
        assert self._counts is not None
        assert not sums.shards, (sums.shards, sorted(sums._waiting))
        return result_of(index, model, parameters, sums.total, self._counts)

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
        self._listening.close()
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
        if not self._id:
            self._id = f"{self.fit_id}-{uuid.uuid4().hex[:12]}"
            self._listening.enter_context(self.crew.listening(self._id, self._hear))
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
            fps=self._fps,
            shard_frames=shard_frames_of(self.config),
            topic=self._id,
            part=part,
            every=max(_PROGRESS_SECONDS, len(self._parts) / _MOST_MESSAGES),
        )

    def _hear(self, said: TilesDone) -> None:
        if self._tiles is not None:
            self._tiles.hear(said)

    def _carry_out(
        self,
        order: Order,
        on_tile: OnTile = lambda done, of: None,
        sums: InOrder | None = None,
    ) -> None:
        """Have all workers carry out an order; counts and windows are then those after it.

        ``sums``: takes those of a sweep.
        """
        if not self._parts:
            self._share_out()
        self._log.append(order)
        self._counts = self._windows = None
        tiles = _Tiles((self._n_layout, self._n_ordered), self.shape.n_tiles(self.sizes.index))

        def on_done(part: int, result: BundleResult) -> None:
            if sums is not None:
                sums.add(result.sums)
            counts, windows = result.counts, result.windows
            self._counts = counts if self._counts is None else self._counts.plus(counts)
            self._windows = windows if self._windows is None else np.maximum(self._windows, windows)
            tiles.done[part] = result.n_tiles

        def arguments(part: int, is_whole: bool) -> tuple[Any, ...]:
            return (self._work(part, is_whole),)

        self._tiles = tiles
        self.crew.call(
            self._parts, work, arguments, keep=False, on_done=on_done,
            on_poll=lambda: tiles.report(on_tile),
        )  # fmt: skip
        tiles.report(on_tile)
        self._known = [self._n_ordered] * len(self._parts)


@dataclass
class _Tiles:
    """Tiles of an order that are done, by part, as workers tell it.

    Attributes
    ----------
    order : tuple of int
        Layout, and orders up to this one.
    n_tiles : int
        Of all parts.
    """

    order: tuple[int, int]
    n_tiles: int
    done: dict[int, int] = field(default_factory=dict)
    _reported: int = 0

    def hear(self, said: TilesDone) -> None:
        """Take what a worker has passed on; from another thread."""
        if (said.n_layout, said.n_ordered) == self.order:
            self.done[said.part] = max(said.n_tiles, self.done.get(said.part, 0))

    def report(self, on_tile: OnTile) -> None:
        """Tell how many tiles are done, where there are more than before."""
        n_done = min(sum(list(self.done.values())), self.n_tiles)
        if n_done > self._reported:
            self._reported = n_done
            on_tile(n_done, self.n_tiles)


def _draws_in(checkpoint: Checkpoint) -> int:
    """Draws of the labels that a commit holds."""
    array: Any = checkpoint.group.get("draw")
    return 0 if array is None else int(array.shape[-1])
