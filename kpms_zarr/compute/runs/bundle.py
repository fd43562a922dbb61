"""What a worker of a cluster does: the sweeps over its sessions, which it remembers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpms_zarr.compute.cluster.crew import Forgotten
from kpms_zarr.compute.cluster.worker import on_own_threads, progress_passer, share_of_worker
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.runs.commit import ChainRows, read_preparation, restore_rows
from kpms_zarr.compute.runs.plan import chain_index, tile_shape
from kpms_zarr.compute.runs.preparation import Preparation, load_data, make_chain, plan_of
from kpms_zarr.compute.runs.stages import make_sweeper, model_of
from kpms_zarr.compute.sampler.bouts import LabelCounts, count_labels
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.draws import DrawSchedule
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import OnTile, Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters, SweepSums
from kpms_zarr.compute.sampler.windows import LabelWindows
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.checkpoints import read_checkpoint


@dataclass(frozen=True)
class SweepOrder:
    """Order: one sweep with these parameters.

    Attributes
    ----------
    number : int
        Of the sweep, for random numbers.
    noise_variance : ndarray or None, (keypoint,)
        Of the full stage.
    states : ndarray or None, (drawn,)
        Among which labels are drawn; None = all.
    """

    stage: str
    number: int
    parameters: Parameters
    noise_variance: np.ndarray | None
    holds_labels: bool
    states: np.ndarray | None = None


@dataclass(frozen=True)
class RelabelOrder:
    """Order: every frame of state ``i`` gets the state ``target[i]``, (state,)."""

    target: np.ndarray


@dataclass(frozen=True)
class KeepOrder:
    """Order: keep the labels as the draw ``slot``."""

    slot: int


@dataclass(frozen=True)
class CountOrder:
    """Order: count the labels."""


Order = SweepOrder | RelabelOrder | KeepOrder | CountOrder


@dataclass(frozen=True)
class BundleWork:
    """Work on a bundle of sessions: from which commit, and what was ordered since.

    A worker that has carried out all orders up to ``first`` goes on there; any other one begins
    with the commit, for which ``first`` has to be ``n_committed``.

    Attributes
    ----------
    fit_id : str
        Identifier of the client's run of the fit since it began or went back to a commit.
    n_layout : int
        Number of the sharing out of sessions, which changes at commits alone.
    sessions : tuple of str
        Of the bundle.
    commit : str
        Name of the commit.
    n_committed : int
        Orders before the commit.
    first : int
        Orders before those that are given.
    orders : tuple of Order
    fps : float
        Of the fastest video of all sessions.
    shard_frames : int or None
        Of a shard, as the client has it.
    topic, part, every
        By which progress is passed on, the number of the bundle, and seconds between messages.
    """

    store: str
    model: str
    fit_id: str
    n_layout: int
    sessions: tuple[str, ...]
    commit: str
    n_committed: int
    first: int
    orders: tuple[Order, ...]
    fps: float
    shard_frames: int | None = None
    topic: str = ""
    part: int = 0
    every: float = 1.0

    @property
    def last(self) -> int:
        """Orders up to the last of these."""
        return self.first + len(self.orders)


@dataclass(frozen=True)
class TilesDone:
    """How far a worker is with the last order of a bundle.

    Attributes
    ----------
    n_layout, n_ordered, part : int
        Of the work: its layout, orders up to this one, and the number of the bundle.
    n_tiles : int
        That are done.
    """

    n_layout: int
    n_ordered: int
    part: int
    n_tiles: int


@dataclass(frozen=True)
class BundleResult:
    """Result of the last order.

    Attributes
    ----------
    sums : dict of int to SweepSums
        By shard; of a sweep.
    counts : LabelCounts
        Of the labels of the bundle.
    windows : ndarray, (window, window_frame) int16
        Labels of those windows that lie in the bundle; -1 elsewhere.
    n_tiles : int
    """

    sums: dict[int, SweepSums]
    counts: LabelCounts
    windows: np.ndarray
    n_tiles: int


@dataclass
class _Bundle:
    """Sessions that this worker keeps, after so many orders."""

    chain: Chain
    sweeper: Sweeper
    preparation: Preparation
    config: FitConfig
    root: access.Group
    place: np.ndarray
    windows: LabelWindows
    fps: float
    done: int
    result: BundleResult | None = None

    def carry_out(self, order: Order, on_tile: OnTile) -> None:
        sums: dict[int, SweepSums] = {}
        if isinstance(order, SweepOrder):
            model = model_of(
                order.stage, self.preparation, self.config, order.noise_variance,
                holds_labels=order.holds_labels, states=order.states,
            )  # fmt: skip
            sums = dict(self.sweeper.draw_by_shard(
                model, order.parameters, order.number, on_tile=on_tile
            ))  # fmt: skip
        elif isinstance(order, RelabelOrder):
            self.chain.relabel(order.target)
        elif isinstance(order, KeepOrder):
            self.sweeper.keep_draw(order.slot)
        if not isinstance(order, KeepOrder):
            counts = count_labels(self.chain, self.config.n_states, self.fps)
            labels = self.windows.read(self.chain)
            n_tiles = self.sweeper.shape.n_tiles(self.chain.index)
            self.result = BundleResult(sums, counts, labels, n_tiles)
        self.done += 1


@dataclass
class _Memory:
    """What this process remembers of fits: bundles by (store, model, fit, layout, sessions)."""

    bundles: dict[tuple[Any, ...], _Bundle] = field(default_factory=dict)
    locks: dict[tuple[Any, ...], threading.Lock] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lock_of(self, key: tuple[Any, ...]) -> threading.Lock:
        with self.lock:
            return self.locks.setdefault(key, threading.Lock())

    def forget(self, is_old: Any) -> None:
        with self.lock:
            gone = [key for key in self.bundles if is_old(key)]
            found = [self.bundles.pop(key) for key in gone]
            for key in gone:
                self.locks.pop(key, None)
        for bundle in found:
            bundle.chain.close()


_MEMORY = _Memory()


def work(work: BundleWork) -> BundleResult:
    """Carry out the orders that this worker has not carried out yet; the result of the last.

    Raises
    ------
    Forgotten
        When the worker would have to begin anew, and was not given all that it takes.
    SamplingError, InputError, OSError
        As a fit in one process would.
    """
    with _MEMORY.lock_of(_key(work)):
        bundle = _brought_up(work)
        assert bundle.result is not None
        return bundle.result


def write(work: BundleWork, path: str, order: np.ndarray) -> int:
    """Write the frames of a bundle to the commit at ``path``; see :meth:`CommitRows.write`."""
    with _MEMORY.lock_of(_key(work)):
        bundle = _brought_up(work)
        if access.subgroup(bundle.root, path) is None:  # a disk that is no longer there
            raise Forgotten(f"the commit at {path} is not seen")
        rows = ChainRows(bundle.root, bundle.chain, bundle.config.n_states, bundle.place)
        return rows.write(path, order)


def forget(fit_id: str) -> None:
    """Give the memory of a fit free."""
    _MEMORY.forget(lambda key: key[2] == fit_id)


def _key(work: BundleWork) -> tuple[Any, ...]:
    return (work.store, work.model, work.fit_id, work.n_layout, work.sessions)


def _brought_up(work: BundleWork) -> _Bundle:
    """The bundle after all orders; one that fails half way is forgotten."""
    key = _key(work)
    bundle = _MEMORY.bundles.get(key)
    if bundle is not None and bundle.done > work.last:
        raise Forgotten(f"{work.model!r} is further on: nobody waits for this")
    if bundle is None or not work.first <= bundle.done <= work.last:
        if work.first != work.n_committed:
            raise Forgotten(f"{len(work.sessions)} sessions of {work.model!r}")
        # Those of an earlier layout hold the same sessions; who began the others is gone: one
        # process at a time fits a model.
        model, fit = (work.store, work.model), (work.fit_id, work.n_layout)
        _MEMORY.forget(
            lambda old: old == key or (old[:2] == model and (old[2] != fit[0] or old[3] < fit[1]))
        )
        bundle = _begin(work)
        _MEMORY.bundles[key] = bundle
    pass_on = progress_passer(work.topic, work.every) if work.topic else None

    def on_tile(n_done: int, _: int) -> None:
        if pass_on is not None and bundle.done == work.last - 1:  # not of what is done once more
            pass_on(TilesDone(work.n_layout, work.last, work.part, n_done))

    try:
        for order in work.orders[bundle.done - work.first :]:
            bundle.carry_out(order, on_tile)
    except BaseException:
        _MEMORY.forget(lambda old: old == key)
        raise
    return bundle


def _begin(work: BundleWork) -> _Bundle:
    """Read a bundle from the commit."""
    try:
        root = access.open_group(work.store, "r+")
    except InputError as error:  # the store was there when the fit began
        raise Forgotten(str(error)) from error
    checkpoint = read_checkpoint(root, work.model)
    if checkpoint is None or checkpoint.name != work.commit:
        raise Forgotten(f"the commit {work.commit} of {work.model!r} is gone")
    with on_own_threads():
        config, preparation = read_preparation(work.store, checkpoint)
    every = chain_index(preparation.sessions, config, work.shard_frames)
    shape = tile_shape(every, config)
    names = set(work.sessions)
    which = np.array([session.name in names for session in every.sessions])
    index = every.alone(which)
    n_threads, budget = share_of_worker()
    plan = plan_of(preparation, config, budget, lambda event: None, fixed=shape, index=index)
    n_draws = DrawSchedule.of(config).n_draws
    chain = make_chain(preparation, config, plan, budget.scratch, n_draws, index=index)
    try:
        load_data(chain, preparation, config)
        restore_rows(chain, checkpoint, config.n_states)
    except BaseException:
        chain.close()
        raise
    # One more than threads: while a tile is gathered and written back another one is computed.
    pipeline = Pipeline(min(n_threads + 1, plan.tiles_in_flight))
    sweeper = make_sweeper(chain, config, pipeline, shape)
    place = {name: row for row, name in enumerate(checkpoint.sessions)}
    rows = np.array([place[session.name] for session in index.sessions], np.int64)
    return _Bundle(
        chain, sweeper, preparation, config, root, rows, LabelWindows.of(every), work.fps,
        work.n_committed,
    )  # fmt: skip


def bundles_of(shard: np.ndarray, frames: np.ndarray, n_bundles: int) -> list[np.ndarray]:
    """Share shards out: the longest first, each to the bundle that has the fewest frames.

    Parameters
    ----------
    shard, frames : ndarray, (session,)
        Shard of each session, and its frames.

    Returns
    -------
    list of ndarray, (session,) bool
        At most ``n_bundles``, none of them empty.
    """
    numbers = np.unique(shard)
    sizes = np.bincount(shard, frames)[numbers]
    held = np.zeros(max(1, min(n_bundles, len(numbers))))
    owner = {}
    for i in np.lexsort((numbers, -sizes)):
        where = int(np.argmin(held))
        owner[int(numbers[i])] = where
        held[where] += sizes[i]
    of_session = np.array([owner[int(number)] for number in shard])
    return [of_session == where for where in range(len(held))]


def names_of(sessions: Sequence[access.Session], which: np.ndarray) -> tuple[str, ...]:
    """Names of some sessions."""
    return tuple(s.name for s, is_in in zip(sessions, which, strict=True) if is_in)
