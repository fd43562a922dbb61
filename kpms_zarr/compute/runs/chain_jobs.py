"""Chains of an ensemble as jobs: one after the other here, or each on a worker of a cluster."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.cluster.worker import Leash, on_own_threads, passer, pull, share_of_worker
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.runs.fit import fit_one, note
from kpms_zarr.compute.runs.interruption import (
    FitInterrupted,
    PartOf,
    StorageRefused,
    refused,
    stoppable,
)
from kpms_zarr.compute.runs.plan import chain_index, settle_tiles
from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike, absolute
from kpms_zarr.store.core.locking import is_fitted_now
from kpms_zarr.store.model.checkpoints import Checkpoints, read_checkpoint
from kpms_zarr.store.model.models import CHAIN_OF, current_version, make_group, open_parameters
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import call, counted

_WAIT_SECONDS = 2.0
_LEAST_WORKERS = 2
"""For each chain that all workers fit together, at least."""
_BEGUN, _BEGUN_BY, FITTED = "begun_with", "begun_by", "fitted_with"


@dataclass(frozen=True)
class ChainJob:
    """Job: the chains of an ensemble that are not finished yet.

    Attributes
    ----------
    n_chains, n_plan : int
        As asked for, and with pilots and those of halves.
    overwrite : bool
        Begin all chains anew, but those that this job itself has begun: a worker that takes one
        over goes on with it.
    run_id : str
        Identifier of this job.
    """

    store: StoreLike
    model: str
    n_chains: int
    n_plan: int
    overwrite: bool
    save_every: int
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def how(self) -> str:
        """Call that goes on with the ensemble."""
        return call("fit", self.store, model=self.model, chains=self.n_chains, resume=True)

    def fit(
        self,
        number: int,
        one: PlannedChain,
        budget: Budget | None,
        callbacks: Sequence[Callback],
        is_stopped: Callable[[], bool] = lambda: False,
        crew: Crew | None = None,
    ) -> None:
        """Fit one chain, or what is left of it, in this process or with workers that sweep.

        ``number``: of the chain, from 1.
        """
        root = access.open_group(self.store, "r+")
        config = one.settled(self.store)
        wanted = _as_stored(config)
        state = _State.read(root, one.name)
        counts = not self.overwrite or state.begun_by == self.run_id
        if state.fitted == wanted and counts:
            return
        goes_on = state.is_unfinished and state.begun == wanted and counts
        part = PartOf(f"chain {number} of {self.n_plan} of the ensemble {self.model!r}", self.how)
        try:
            if not goes_on:
                if state.is_unfinished:  # of other settings: an ensemble that was begun again
                    Checkpoints(root, self.store, one.name).discard()
                begun = {CHAIN_OF: self.model, _BEGUN: wanted, _BEGUN_BY: self.run_id}
                state.write(root, one.name, {**begun, FITTED: None})
            note(callbacks, f"chain {number} of {self.n_plan}, {one.name}")
            fit_one(
                self.store, model=one.name, config=None if goes_on else config, budget=budget,
                callbacks=callbacks, resume=goes_on,
                overwrite=not goes_on and state.is_published, save_every=self.save_every,
                part=part, is_stopped=is_stopped, crew=crew,
            )  # fmt: skip
            root = access.open_group(self.store, "r+")
            state.write(root, one.name, {FITTED: wanted})
        except FitInterrupted as stop:
            text = (
                f"stopped in chain {number} of {self.n_plan}; sweep {stop.n_sweeps} of it is "
                f"committed; go on with: {self.how}"
            )
            raise FitInterrupted(text, self.model, stop.n_sweeps) from stop
        except StorageRefused:
            raise
        except OSError as error:  # before its first sweep, or after its last
            stands = f"{part.words} is not finished, those before it are"
            raise refused(error, stands, f"go on with: {self.how}") from error

    def fit_on(
        self,
        crew: Crew,
        plan: Sequence[PlannedChain],
        budget: Budget | None,
        callbacks: Sequence[Callback],
    ) -> None:
        """Fit all chains on the workers of a cluster: pilots first, then the others.

        A worker that is free takes the next one. What a killed worker has committed of a chain,
        the next one goes on with. Chains that would leave most workers without work are fitted by
        all of these together, one after the other; their bits are the same.
        """
        numbered = list(enumerate(plan, 1))
        pilots = [pair for pair in numbered if pair[1].is_pilot]
        others = [pair for pair in numbered if not pair[1].is_pilot]
        for batch in (pilots, others):
            missing = [pair for pair in batch if not self._is_finished(pair[1])]
            n_last = self._n_shared(crew, missing)
            alone = missing[: len(missing) - n_last]
            if alone:
                self._fit_batch(crew, alone, callbacks)
            for number, one in missing[len(alone) :]:
                self.fit(number, one, budget, callbacks, crew=crew)

    def _is_finished(self, one: PlannedChain) -> bool:
        """Whether a chain has published labels of these settings, and is not to be begun anew."""
        state = _State.read(access.open_group(self.store), one.name)
        wanted = _as_stored(one.settled(self.store))
        return state.fitted == wanted and (not self.overwrite or state.begun_by == self.run_id)

    def _n_shared(self, crew: Crew, batch: Sequence[tuple[int, PlannedChain]]) -> int:
        """Chains, the last of a batch, that all workers fit together.

        Those for which less than half of the workers would have work, if their sessions can be
        shared out to as many workers, which have tiles of the size that this process would choose.
        """
        n_workers = len(crew.workers())
        n_left = len(batch) % n_workers
        if not n_left or _LEAST_WORKERS * n_left > n_workers:
            return 0
        config = batch[-1][1].config
        root = access.open_group(self.store)
        sessions = select_sessions(root, config.sessions, "`sessions=`")
        n_shards = len(np.unique(chain_index(sessions, settle_tiles(config)).shard))
        if _LEAST_WORKERS * n_left > n_shards:
            return 0
        tiles = crew.client.run(_tile_frames, config)
        return n_left if set(tiles.values()) == {_tile_frames(config)} else 0

    def _fit_batch(
        self, crew: Crew, batch: Sequence[tuple[int, PlannedChain]], callbacks: Sequence[Callback]
    ) -> None:
        name = f"kpms_zarr-{uuid.uuid4().hex[:12]}"
        there = replace(self, store=absolute(self.store))
        first = next(iter(crew.workers()))
        parts = [Part(f"chain {n} of {self.n_plan}, {one.name},", first) for n, one in batch]
        stopped: list[int] = []

        def on_done(part: int, n_sweeps: int | None) -> None:
            if n_sweeps is not None:
                stopped.append(n_sweeps)
            else:
                done = f"chain {batch[part][0]} of {self.n_plan}, {batch[part][1].name}"
                note(callbacks, f"{done}, is finished")

        with stoppable() as stop, crew.listening(name, partial(_pass_notes, callbacks)):

            def on_poll() -> None:
                stop.report(partial(note, callbacks))
                if stop.is_asked:
                    crew.everywhere(pull, name)

            crew.check = stop.check
            try:
                crew.call(
                    parts, fit_chain, lambda part, _: (there, *batch[part], name),
                    anywhere=True, on_poll=on_poll, on_done=on_done,
                )  # fmt: skip
            except OSError as error:
                stands = "what chains have committed stays"
                raise refused(error, stands, f"go on with: {self.how}") from error
            except KeyboardInterrupt as error:  # at once, or while there was no worker
                text = f"stopped at once; what chains have committed stays; go on with: {self.how}"
                raise FitInterrupted(text, self.model, 0) from error
        if stopped:
            text = f"stopped; what {counted(len(stopped), 'chain')} had done is committed"
            raise FitInterrupted(f"{text}; go on with: {self.how}", self.model, min(stopped))


def fit_chain(job: ChainJob, number: int, one: PlannedChain, leash: str) -> int | None:
    """Fit a chain on a worker; returns the sweeps that are committed where it was stopped.

    A worker that was lost may still hold the chain, or a lease of it: until it is let go.
    """
    _, budget = share_of_worker()
    is_pulled = Leash(leash).is_pulled
    root = access.open_group(job.store, "r+")
    while is_fitted_now(root, job.store, one.name) and not is_pulled():
        time.sleep(_WAIT_SECONDS)
    if is_pulled():
        return 0
    try:
        with on_own_threads():
            job.fit(number, one, budget, [passer(leash)], is_pulled)
    except FitInterrupted as stop:  # no exception, which would stop the worker
        return stop.n_sweeps
    return None


def _tile_frames(config: FitConfig) -> int | None:
    """Frames of a tile in the process that this runs in."""
    return settle_tiles(config).tile_frames


def _pass_notes(callbacks: Sequence[Callback], event: Noted) -> None:
    note(callbacks, event.text)


@dataclass(frozen=True)
class _State:
    """How far a chain is.

    Attributes
    ----------
    begun, fitted : dict or None
        Settings that it was last begun with, and those of the labels that it has published.
    begun_by : str or None
        Identifier of the job that last began it.
    """

    is_published: bool
    is_unfinished: bool
    begun: dict[str, Any] | None
    fitted: dict[str, Any] | None
    begun_by: str | None

    @classmethod
    def read(cls, root: access.Group, name: str) -> _State:
        """State of a chain, from its model."""
        group = access.subgroup(root, layout.model_path(name))
        found = {} if group is None else attributes.read(group.attrs)
        is_published = current_version(root, name) is not None
        return cls(
            is_published,
            read_checkpoint(root, name) is not None,
            found.get(_BEGUN),
            found.get(FITTED) if is_published else None,
            found.get(_BEGUN_BY),
        )

    @staticmethod
    def write(root: access.Group, name: str, values: Mapping[str, Any]) -> None:
        """Change attributes of the model of a chain; those that are None go."""
        attributes.write(make_group(root, layout.model_path(name)), values)


def _as_stored(config: FitConfig) -> dict[str, Any]:
    """Settings as they are read back from a store."""
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    return found


@dataclass(frozen=True)
class PlannedChain:
    """One chain that is to be fitted.

    Attributes
    ----------
    name : str
        Of its model.
    config : FitConfig
    pilot : str
        Model whose last stickiness it takes; "" = as in its settings.
    is_pilot : bool
        Whether it only finds that, and has no vote.
    """

    name: str
    config: FitConfig
    pilot: str = ""
    is_pilot: bool = False

    def settled(self, store: StoreLike) -> FitConfig:
        """Settings with the stickiness that the pilot ended with."""
        if not self.pilot:
            return self.config
        kappa = float(open_parameters(store, self.pilot)["trace_kappa"].values[-1])
        return self.config.resolved(kappa=kappa, target_duration=None)
