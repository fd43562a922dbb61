"""One Gibbs sweep: a map over tiles and a small reduction on the host."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, Protocol, TypeVar

import numpy as np

from kpms_zarr.compute.events import WorkersUsed
from kpms_zarr.compute.kernels.dynamics import log_density
from kpms_zarr.compute.kernels.hmm import TRANSITION_FLOOR
from kpms_zarr.compute.sampler.ar_model import moments_of_tile, no_moments
from kpms_zarr.compute.sampler.bouts import LabelCounts, count_labels
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex, Sized
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape, schedule
from kpms_zarr.compute.sampler.stream import (
    Pipeline,
    gather_labels,
    gather_latent,
    pad,
    run_tasks,
    scatter_all,
    scatter_labels,
)
from kpms_zarr.compute.sampler.tile_model import (
    Parameters,
    SweepAddress,
    SweepSums,
    TileModel,
    on_device,
)
from kpms_zarr.compute.sampler.windows import LabelWindows

T = TypeVar("T")
Watch = Callable[[Tile, np.ndarray, np.ndarray], None]
OnTile = Callable[[int, int], None]


@dataclass(frozen=True)
class SweepResult:
    """Result of a sweep, for the next draw of the parameters.

    Attributes
    ----------
    terms : dict of str to float
        Log probability of each part given what it depends on, nat per modelled frame.
    """

    sums: SweepSums
    counts: LabelCounts
    terms: dict[str, float]

    @property
    def log_likelihood(self) -> float:
        """Log probability of all but the parameters, given these, nat per frame."""
        return sum(value for name, value in self.terms.items() if name != "parameters")


class Sweeps(Protocol):
    """Sweeps over all sessions, wherever these lie: what the course of a fit needs of them."""

    @property
    def sizes(self) -> Sized:
        """Sessions and dims of the chain."""
        ...

    @property
    def n_states(self) -> int:
        """States of the chain."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """How many tiles are under way, and how busy they keep the device."""
        ...

    @property
    def workers(self) -> WorkersUsed | None:
        """Workers that sweep; None = this process does."""
        ...

    def sweep(
        self, model: TileModel, parameters: Parameters, number: int, on_tile: OnTile
    ) -> SweepResult:
        """See :meth:`Sweeper.sweep`."""
        ...

    def relabel(self, target: np.ndarray) -> LabelCounts:
        """Give every frame of state ``i`` the state ``target[i]``, and count the labels."""
        ...

    def labels_in(self, windows: LabelWindows) -> np.ndarray:
        """Labels of the frames of windows: (window, window_frame) int16."""
        ...

    def keep_draw(self, slot: int) -> None:
        """Keep the labels as they are as the draw ``slot``, where labels are averaged."""
        ...


def n_modelled_of(index: ChainIndex) -> int:
    """Frames with a label, at least 1."""
    return max(1, int(index.n_modelled.sum()))


@dataclass(frozen=True, kw_only=True)
class Sweeper:
    """Mover of the tiles of a chain through the model of a stage, sweep by sweep.

    Attributes
    ----------
    pipeline : Pipeline
        Shared with what else runs over the chain.
    """

    chain: Chain
    n_states: int
    seed: int
    shape: TileShape
    pipeline: Pipeline

    @property
    def sizes(self) -> Sized:
        """See :class:`Sweeps`."""
        return self.chain

    @property
    def workers(self) -> WorkersUsed | None:
        """See :class:`Sweeps`."""
        return None

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers on the device."""
        return np.dtype(self.chain.local.dtype)

    @property
    def n_modelled(self) -> int:
        """Frames with a label, at least 1."""
        return n_modelled_of(self.chain.index)

    def relabel(self, target: np.ndarray) -> LabelCounts:
        """See :meth:`Sweeps.relabel`."""
        self.chain.relabel(target)
        return count_labels(self.chain, self.n_states)

    def labels_in(self, windows: LabelWindows) -> np.ndarray:
        """See :meth:`Sweeps.labels_in`."""
        return windows.read(self.chain)

    def keep_draw(self, slot: int) -> None:
        """See :meth:`Sweeps.keep_draw`."""
        if self.chain.draws is not None:
            self.chain.draws.keep(self.chain, slot)

    def sweep(
        self,
        model: TileModel,
        parameters: Parameters,
        number: int,
        on_tile: OnTile = lambda done, of: None,
    ) -> SweepResult:
        """Draw everything local once, even segments first, then odd ones given the even.

        Parameters
        ----------
        number : int
            Of the sweep, for random numbers.
        on_tile : callable
            Is given (tiles done, all tiles) after each.

        Raises
        ------
        SamplingError
            When a tile has no finite result even in float64; the chain is then half swept.
        """
        sums = self.draw(model, parameters, number, on_tile=on_tile)
        counts = count_labels(self.chain, self.n_states)
        return result_of(self.chain.index, model, parameters, sums, counts)

    def draw(
        self,
        model: TileModel,
        parameters: Parameters,
        number: int,
        *,
        watch: Watch | None = None,
        on_tile: OnTile = lambda done, of: None,
    ) -> SweepSums:
        """Draw everything local once; see :meth:`sweep`.

        Parameters
        ----------
        model, parameters, number, on_tile
        watch : callable, optional
            Is given each tile with its labels before and after, (segment, frame); from several
            threads.
        """
        parts = self.draw_by_shard(model, parameters, number, watch=watch, on_tile=on_tile)
        return fold(parts, model.no_sums(self.chain, self.n_states), SweepSums.plus)

    def draw_by_shard(
        self,
        model: TileModel,
        parameters: Parameters,
        number: int,
        *,
        watch: Watch | None = None,
        on_tile: OnTile = lambda done, of: None,
    ) -> Generator[tuple[int, SweepSums]]:
        """Draw everything local once, the sums of each shard on its own; see :meth:`draw`.

        Yields (number of the shard, its sums), in order.
        """
        tables = model.tables(parameters)
        update = partial(
            self._update, model=model, tables=tables, shared=on_device(tables, self.dtype),
            address=SweepAddress(self.seed, number), watch=watch,
        )  # fmt: skip
        return self._by_shard(
            update, SweepSums.plus, number,
            read_ahead=lambda task: model.read_ahead(self.chain, task.tile), on_tile=on_tile,
        )  # fmt: skip

    def measure(self, weight_bias: np.ndarray) -> tuple[np.ndarray, LabelCounts]:
        """Moments (under ``weight_bias``) and counts of the labels as they are."""
        parts = self.measure_by_shard(weight_bias)
        moments = fold(parts, no_moments(self.chain, self.n_states), np.add)
        return moments, count_labels(self.chain, self.n_states)

    def measure_by_shard(self, weight_bias: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        """Moments of the labels as they are, (state, pair), of each shard on its own, in order."""
        update = partial(self._measure, weight_bias=on_device(weight_bias, self.dtype))
        return self._by_shard(update, np.add, 0)

    def _by_shard(
        self,
        update: Callable[[Task], T],
        add: Callable[[T, T], T],
        number: int,
        **options: Callable[..., None],
    ) -> Generator[tuple[int, T]]:
        """Sums over the tiles of each shard, in order: those of even segments, then of odd ones.

        Yields (number of the shard, sum) once all of its tiles are done.
        """
        tasks = schedule(self.chain.index, self.shape, self.seed, number, self.pipeline.n)
        left = Counter(task.shard for task in tasks)
        order = deque(sorted(left))
        sums: dict[tuple[int, bool], T] = {}
        parts = run_tasks(
            update, tasks, self.pipeline, is_double=self.dtype == np.float64, **options
        )
        # Closed before an error goes on: no thread may still write.
        with closing(parts):
            for task, part in parts:
                key = (task.shard, task.is_odd)
                sums[key] = add(sums[key], part) if key in sums else part
                left[task.shard] -= 1
                while order and not left[order[0]]:
                    shard = order.popleft()
                    keys = [key for key in ((shard, False), (shard, True)) if key in sums]
                    yield shard, reduce(add, [sums.pop(key) for key in keys])

    def _update(
        self,
        task: Task,
        *,
        model: TileModel,
        tables: Any,
        shared: Any,
        address: SweepAddress,
        watch: Watch | None,
    ) -> SweepSums:
        chain, tile = self.chain, task.tile
        given = model.gather(chain, tile, self.shape, self.n_states)
        before = np.asarray(gather_labels(chain, tile, self.shape))
        with self.pipeline.meter.busy():
            drawn = model.draw(chain, task, given, tables, shared, address)
        z = np.asarray(drawn.z)
        if watch:
            watch(tile, before, z)
        # Last: what is written must not be drawn again from what it has changed.
        if drawn.local is None:
            scatter_labels(chain, tile, drawn.z)
        else:
            scatter_all(chain, tile, drawn.z, drawn.local)
        is_own = np.arange(z.shape[1]) < tile.length[:, None]
        n_changed = int(((before != z)[: len(is_own)] & is_own).sum())
        return drawn.sums._replace(n_changed=n_changed)

    def _measure(self, task: Task, *, weight_bias: Any) -> np.ndarray:
        chain, shape, tile = self.chain, self.shape, task.tile
        moments = moments_of_tile(
            weight_bias,
            gather_latent(chain, tile, shape),
            gather_labels(chain, tile, shape),
            pad(tile.length.astype(np.int32), shape, 0),
            lags=chain.index.lags,
        )
        return np.asarray(moments, np.float64)


@dataclass
class InOrder:
    """Sum of the shards in their order, of sums that come in any.

    Attributes
    ----------
    shards : deque of int
        That have yet to be added, in order.
    total : SweepSums
        Of those before them.
    """

    shards: deque[int]
    total: SweepSums
    _waiting: dict[int, SweepSums] = field(default_factory=dict)

    def add(self, sums: Mapping[int, SweepSums]) -> None:
        """Take the sums of some shards."""
        self._waiting |= sums
        while self.shards and self.shards[0] in self._waiting:
            self.total = self.total.plus(self._waiting.pop(self.shards.popleft()))


def fold(parts: Generator[tuple[int, T]], nothing: T, add: Callable[[T, T], T]) -> T:
    """Sum of the shards, in their order."""
    total = nothing
    with closing(parts):
        for _, part in parts:
            total = add(total, part)
    return total


def result_of(
    index: ChainIndex,
    model: TileModel,
    parameters: Parameters,
    sums: SweepSums,
    counts: LabelCounts,
) -> SweepResult:
    """Result of a sweep over all sessions, of its sums."""
    terms = _log_probabilities(index, parameters, sums.moments, counts)
    for name, value in zip(model.terms, sums.log_probability, strict=True):
        terms[name] = terms.get(name, 0.0) + float(value) / n_modelled_of(index)
    return SweepResult(sums, counts, terms)


def _log_probabilities(
    index: ChainIndex, parameters: Parameters, moments: np.ndarray, counts: LabelCounts
) -> dict[str, float]:
    """Log probability of labels and latent pose, nat per modelled frame."""
    of_latent = log_density(moments, parameters.dynamics)
    floored = np.maximum(parameters.transition, TRANSITION_FLOOR)
    of_labels = float((counts.transitions * np.log(floored)).sum())
    of_labels -= int((index.n_modelled > 0).sum()) * np.log(len(floored))
    n_modelled = max(1, int(index.n_modelled.sum()))
    return {
        "syllable": float(of_labels / n_modelled),
        "latent": float(of_latent / n_modelled),
    }
