"""Fit a model to a store and publish its labels there; commit on the way, and resume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.events import (
    Callback,
    Committed,
    Event,
    Noted,
    Published,
    ResourcePlan,
)
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.commit import (
    ChainRows,
    CommitRows,
    Committer,
    check_same,
    check_sums,
    read_preparation,
    read_progress,
    restore,
    source_hashes,
)
from kpms_zarr.compute.runs.interruption import (
    FitInterrupted,
    PartOf,
    Stop,
    refused,
    stoppable,
)
from kpms_zarr.compute.runs.plan import chain_index, settle_tiles
from kpms_zarr.compute.runs.preparation import (
    Preparation,
    check_length,
    load,
    load_data,
    make_chain,
    plan_of,
    prepare,
)
from kpms_zarr.compute.runs.publish import add_levels, certainty_of, publish, published_labels
from kpms_zarr.compute.runs.stages import (
    begin,
    make_sweeper,
    model_of,
    noise_by_keypoint,
    pipeline_of,
    planned_sweeps,
    run,
)
from kpms_zarr.compute.runs.start_model import StartModel, with_start
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.draws import DrawSchedule
from kpms_zarr.compute.sampler.sweep import Sweeper, Sweeps
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.compute.sampler.warm import ANNEAL_SWEEPS, annealed, warm_start
from kpms_zarr.compute.settings import check_sweeps
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.locking import Lock, model_lock
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.checkpoints import Checkpoint, Checkpoints, committed_sweeps
from kpms_zarr.store.model.models import (
    current_version,
    has_parameters,
    open_labels,
    stage_of,
)
from kpms_zarr.store.model.settling import in_words
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.wording import STORE, Stand, call, counted

if TYPE_CHECKING:
    from kpms_zarr.compute.cluster.crew import Crew
    from kpms_zarr.compute.runs.consensus import ConsensusSummary

_TARGET_TOLERANCE = 0.15
_MANY_RARE = 0.3
"""Share of the bouts from which on it is said that they are of rare syllables."""

R = TypeVar("R")


@dataclass(frozen=True)
class FitSummary(ShownAsTable):
    """Result of :func:`fit`.

    Attributes
    ----------
    store, model, version : str
        The labels are in the group ``models/<model>/labels/<version>``.
    n_used : int
        Syllables with at least 0.5 % of the frames.
    median_duration : float
        Median bout, in ms.
    kappa : float
        At the last sweep.
    log_likelihood : float
        Of all that the last stage samples given the parameters, at the last sweep, nat per frame.
    log_evidence : float
        The same, dynamics and transitions integrated out (model.md 3.9).
    is_settled : bool or None
        Whether the last stage had settled (model.md 3.11); None = too few sweeps to tell.
    seconds : float
        Wall time.
    """

    store: str
    model: str
    version: str
    n_sessions: int
    n_frames: int
    n_latent: int
    n_sweeps: int
    n_used: int
    median_duration: float
    kappa: float
    log_likelihood: float
    log_evidence: float
    is_settled: bool | None
    seconds: float
    notes: tuple[str, ...]


def fit(
    store: StoreLike,
    *,
    model: str,
    config: FitConfig | None = None,
    chains: int = 1,
    halves: bool = False,
    budget: Budget | None = None,
    cluster: ClusterLike = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    save_every: int = 25,
) -> FitSummary | ConsensusSummary:
    """Fit a model and publish a syllable for every frame.

    Data stream through the device in tiles of segments, within a budget of memory. Same store,
    settings, seed, precision and kind of device: the same labels to the bit, whatever the budget,
    the order of the sessions, and how often the fit was interrupted and resumed.

    Parameters
    ----------
    store : path or URL
    model : str
        Name of the model; labels go to ``models/<model>/labels/v1``.
    config : FitConfig, optional
        When resuming: default, or the same settings as before.
    chains : int
        More than one: fit so many chains of the AR stage, models ``NAME-01``, ``NAME-02``, ...
        that differ in the seed alone, one after the other or on the workers of a cluster, and make
        ``model`` the :func:`consensus` of them. When resuming, chains that are finished stay; a
        larger number adds some.
    halves : bool
        Fit as many chains to every other session, and as many to the rest, too, and publish how far
        the two agree on all sessions: what to expect of other animals. Takes about twice as long.
    budget : Budget, optional
        Memory to take, and where the chain's state lies.
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that sweep: an address, the file of a scheduler, ``local:4``, or
        a YAML file of dask-jobqueue (default: the client that is active, if there is one). Labels
        are the same to the bit with any number of workers, and whatever happens to these; a fit
        may go on elsewhere than where it began. The store must be where all of them reach it.
    callbacks : sequence of callable
        Each is given the events of ``compute.events``.
    resume : bool
        Go on with an unfinished fit from the last sweep that was committed.
    overwrite : bool
        When the model exists, publish a new version and make it current; the old one stays. What
        an unfinished fit has committed is dropped.
    save_every : int
        Sweeps between two commits; one is also made after five minutes.

    Returns
    -------
    FitSummary
        Or, for several chains, :class:`ConsensusSummary`.

    Raises
    ------
    InputError
        When the store has no sessions, the model exists or is being fitted, a setting does not
        fit the data, or no plan fits the budget.
    FitInterrupted
        After Ctrl-C or SIGTERM: the last sweep is committed.
    SamplingError
        When a draw has no finite result even in float64; what the last complete sweep left is
        published.
    OutOfMemoryError
        When not even one tile fits what is free; the last commit stays.
    OSError
        When the storage refuses; the last commit stays.
    """
    if chains != 1 or isinstance(chains, bool):
        from kpms_zarr.compute.runs.ensemble import fit_chains  # which fits each by this function

        with connected(cluster, partial(note, callbacks)) as crew:
            return fit_chains(
                store, model=model, chains=chains, config=config, budget=budget,
                callbacks=callbacks, resume=resume, overwrite=overwrite, save_every=save_every,
                halves=halves, crew=crew,
            )  # fmt: skip
    if halves:
        raise InputError(
            expected="several chains, of which halves are compared",
            found="`chains=1`",
            where="`halves=`",
            fix="add `chains=8`",
        )
    with connected(cluster, partial(note, callbacks)) as crew:
        return fit_one(
            store, model=model, config=config, budget=budget, callbacks=callbacks, resume=resume,
            overwrite=overwrite, save_every=save_every, crew=crew,
        )  # fmt: skip


def note(callbacks: Sequence[Callback], text: str) -> None:
    """Pass a text on to all callbacks."""
    for callback in callbacks:
        callback(Noted(text))


def fit_one(
    store: StoreLike,
    *,
    model: str,
    config: FitConfig | None = None,
    budget: Budget | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    save_every: int = 25,
    part: PartOf | None = None,
    crew: Crew | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> FitSummary:
    """Fit one chain and publish its labels; see :func:`fit`.

    Parameters
    ----------
    part : PartOf, optional
        What it is a part of, for messages that say how to go on.
    crew : Crew, optional
        Workers that sweep (default: this process).
    is_stopped : callable
        Whether to stop, asked after every sweep, where no signal can say it.
    """
    began = time.perf_counter()
    check_sweeps("save_every", save_every)
    root = access.open_group(store, "r+")
    access.require_sessions(root, os.fspath(store))
    messages: list[str] = []
    _check_request(root, store, model, resume=resume, overwrite=overwrite)
    with model_lock(root, store, model) as lock, stoppable() as stop:
        notify = partial(_notify, callbacks, messages, stop)
        checkpoints = Checkpoints(root, store, model)
        checkpoints.tidy()
        job = _Job(
            store, model, root, checkpoints, budget or Budget(), notify, messages, lock, stop, part,
            crew, is_stopped,
        )  # fmt: skip
        check_name(root, store, model, resume=resume, overwrite=overwrite)
        found = checkpoints.current() if resume else None
        if found is not None:
            return job.resume(found, config, save_every, began)
        return job.fit(config or FitConfig(), save_every, began)


# ------------------------------------------------------------------ one fit


@dataclass
class _Job:
    """Job: one fit, from its plan to its labels."""

    store: StoreLike
    model: str
    root: access.Group
    checkpoints: Checkpoints
    budget: Budget
    notify: Callback
    messages: list[str]
    lock: Lock
    stop: Stop
    part: PartOf | None = None
    crew: Crew | None = None
    is_stopped: Callable[[], bool] = lambda: False

    def fit(self, config: FitConfig, save_every: int, began: float) -> FitSummary:
        start = StartModel.of(self.store, config.from_model) if config.from_model else None
        if start is not None:
            config = _goes_on(with_start(config, start, self.notify), start, self.notify)
        config = settle_tiles(config)
        if self.crew is not None:
            self.crew.check = self.stop.check
            self.crew.workers()  # waits for the first, which Dask would do for ever
        with limit_workers(self.store, self.budget.host_memory, is_strict=False):
            preparation = prepare(self.store, config, start, self.notify)
        self.stop.check()
        plan = plan_of(preparation, config, self.budget, self.notify)
        with self.chain(preparation, config, plan) as chain:
            check_length(chain.index, self.store, self.notify)
            sweeper = make_sweeper(chain, config, pipeline_of(plan.tiles_in_flight, self.notify))
            load(chain, preparation, config, start, plan.tiles_in_flight)
            self.stop.check()
            first = start.n_sweeps if start else 0
            if start is not None:
                first = self.label_new(sweeper, preparation, config, start)
            progress = begin(sweeper, config, start, first)
            self.checkpoints.begin()
            committer = self.committer(
                ChainRows(self.root, chain, config.n_states), preparation, config, save_every,
                from_version=f"{start.name}/{start.version}" if start else None,
            )  # fmt: skip
            with self.explained(committer):
                if self.crew is None:
                    return self.sweep(sweeper, preparation, committer, progress, began)
                self.commit(committer, progress)
        found = self.checkpoints.current()
        assert found is not None
        return self.sweep_elsewhere(found, preparation, config, save_every, began)

    def chain(self, preparation: Preparation, config: FitConfig, plan: ResourcePlan) -> Chain:
        n_draws = DrawSchedule.of(config).n_draws
        return make_chain(preparation, config, plan, self.budget.scratch, n_draws)

    def label_new(
        self, sweeper: Sweeper, preparation: Preparation, config: FitConfig, start: StartModel
    ) -> int:
        """Labels for sessions that the model lacks; returns the number of the first sweep."""
        index = sweeper.chain.index
        is_new = np.array([s.name not in start.sessions for s in index.sessions])
        is_new &= index.n_modelled > 0
        if not is_new.any():
            return start.n_sweeps
        new = counted(int(is_new.sum()), "session")
        text = f"{new} that the model {start.name!r} lacks, labelled with it"
        self.notify(Noted(text))
        sweeper = make_sweeper(sweeper.chain.only(is_new), config, sweeper.pipeline)
        if start.stage == "ar":
            return warm_start(sweeper, start.parameters, start.n_sweeps)
        path = annealed(start.parameters, ANNEAL_SWEEPS)
        number = warm_start(sweeper, path[0], start.n_sweeps)
        variance = noise_by_keypoint(config, start, sweeper.chain)
        model = model_of("full", preparation, config, variance)
        for parameters in path:
            sweeper.draw(model, parameters, number)
            number += 1
        return number

    def resume(
        self, checkpoint: Checkpoint, requested: FitConfig | None, save_every: int, began: float
    ) -> FitSummary:
        config, preparation = read_preparation(self.store, checkpoint)
        check_same(config, requested)
        self.messages += [str(note) for note in checkpoint.attrs.get("notes", ())]
        n_sweeps = checkpoint.n_sweeps_in_all
        self.notify(Noted(f"going on after sweep {checkpoint.n_sweeps} of {n_sweeps}"))
        check_sums(
            checkpoint, chain_index(preparation.sessions, config), self.store,
            call("fit", self.store, model=self.model, overwrite=True),
        )  # fmt: skip
        if self.crew is not None:
            return self.sweep_elsewhere(checkpoint, preparation, config, save_every, began)
        plan = plan_of(preparation, config, self.budget, self.notify)
        with self.chain(preparation, config, plan) as chain:
            load_data(chain, preparation, config)
            sweeper = make_sweeper(chain, config, pipeline_of(plan.tiles_in_flight, self.notify))
            progress = restore(chain, checkpoint, config)
            committer = self.committer(
                ChainRows(self.root, chain, config.n_states), preparation, config, save_every,
                from_version=checkpoint.attrs.get("from_version"), committed=checkpoint.n_sweeps,
            )  # fmt: skip
            with self.explained(committer):
                return self.sweep(sweeper, preparation, committer, progress, began)

    @contextmanager
    def explained(self, committer: Committer) -> Iterator[None]:
        """Context in which errors say how to go on."""
        try:
            yield
        except OSError as error:
            raise self.refused(error, committer.committed) from error
        except FitInterrupted:
            raise
        except KeyboardInterrupt as error:
            if not self.stop.is_asked or committer.committed is None:
                raise
            raise self.interrupted(committer.committed, "stopped at once") from error

    def sweep(
        self,
        sweeper: Sweeper,
        preparation: Preparation,
        committer: Committer,
        progress: ChainProgress,
        began: float,
    ) -> FitSummary:
        """Run the remaining sweeps, commit on the way, publish."""
        go_back = partial(self.go_back, sweeper, committer.config)
        progress, failure = self.run_sweeps(sweeper, preparation, committer, progress, go_back)
        return self.finish(sweeper, preparation, committer, progress, failure, began)

    def go_back(self, sweeper: Sweeper, config: FitConfig) -> ChainProgress:
        """Bring the chain back to the last commit."""
        found = self.checkpoints.current()
        assert found is not None
        return restore(sweeper.chain, found, config)

    def sweep_elsewhere(
        self,
        checkpoint: Checkpoint,
        preparation: Preparation,
        config: FitConfig,
        save_every: int,
        began: float,
    ) -> FitSummary:
        """Run the remaining sweeps on a cluster, from a commit on, and publish from the last."""
        from kpms_zarr.compute.runs.remote import RemoteSweeper  # which alone needs distributed

        assert self.crew is not None
        self.crew.check = self.stop.check
        sweeper = RemoteSweeper(
            self.crew, self.store, self.model, self.checkpoints.fit_id, preparation, config,
            checkpoint,
        )  # fmt: skip
        committer = self.committer(
            sweeper, preparation, config, save_every,
            from_version=checkpoint.attrs.get("from_version"), committed=checkpoint.n_sweeps,
        )  # fmt: skip
        with self.explained(committer):

            def go_back() -> ChainProgress:
                found = self.checkpoints.current()
                assert found is not None
                sweeper.go_back(found)
                return read_progress(found, sweeper.count())

            try:
                progress = read_progress(checkpoint, sweeper.count())
                _, failure = self.run_sweeps(sweeper, preparation, committer, progress, go_back)
            finally:
                sweeper.close()
            plan = plan_of(preparation, config, self.budget, self.notify)
            last = self.checkpoints.current()
            assert last is not None
            with self.chain(preparation, config, plan) as chain:
                progress = restore(chain, last, config)
                pipeline = pipeline_of(plan.tiles_in_flight, self.notify)
                local = make_sweeper(chain, config, pipeline)
                return self.finish(local, preparation, committer, progress, failure, began)

    def run_sweeps(
        self,
        sweeper: Sweeps,
        preparation: Preparation,
        committer: Committer,
        progress: ChainProgress,
        go_back: Callable[[], ChainProgress],
    ) -> tuple[ChainProgress, SamplingError | None]:
        """Run the remaining sweeps, commit on the way and at the end.

        ``go_back`` brings the chain back to the last commit. A draw that has no finite result ends
        the fit with the last complete sweep: that commit, and the sweeps since then once more,
        which draw the same numbers.
        """
        config = committer.config

        def after_sweep() -> bool:
            self.lock.renew()
            self.stop.is_asked |= self.is_stopped()
            if self.stop.is_asked or committer.is_due(progress):
                self.commit(committer, progress)
            return not self.stop.is_asked

        self.commit(committer, progress)
        if self.stop.is_asked and progress.done < planned_sweeps(config, progress):
            raise self.interrupted(progress.done, "stopped")
        try:
            run(sweeper, preparation, config, progress, self.notify, after_sweep=after_sweep)
        except SamplingError as error:
            until = progress.done
            progress = go_back()
            run(sweeper, preparation, config, progress, lambda event: None, until=until)
            if not progress.done:
                self.checkpoints.discard()
                raise
            self.notify(Noted(f"stopped after {progress.done} sweeps: {error}"))
            self.commit(committer, progress)
            return progress, error
        self.commit(committer, progress)
        if progress.done < planned_sweeps(config, progress):
            raise self.interrupted(progress.done, "stopped")
        return progress, None

    def finish(
        self,
        sweeper: Sweeper,
        preparation: Preparation,
        committer: Committer,
        progress: ChainProgress,
        failure: SamplingError | None,
        began: float,
    ) -> FitSummary:
        """Publish a chain that has ended; raises what ended it early."""
        chain, config = sweeper.chain, committer.config
        if failure is None:
            _check_target(config, progress, chain.index, self.notify)
            _check_settled(config, progress, self.notify)
        self.lock.renew()
        labels = published_labels(chain)
        of_last = progress.parameters
        version = publish(
            self.root, self.model, chain=chain, progress=progress, preparation=preparation,
            config=config, from_version=committer.from_version,
            fit_id=self.checkpoints.fit_id, notes=self.messages,
            labels=labels,
            certainty=certainty_of(labels, sweeper, of_last) if config.certainty else None,
        )  # fmt: skip
        self.notify(Published(self.model, version))
        add_levels(self.root, self.model, version, self.notify)
        try:
            self.checkpoints.discard()
        except OSError as error:  # what matters is published; the next fit of the name tidies up
            self.notify(Noted(f"the progress of the fit could not be removed: {error}"))
        if failure is not None:
            raise failure
        return self.summary(chain, progress, version, began)

    def commit(self, committer: Committer, progress: ChainProgress) -> None:
        """Commit, unless that sweep is committed already."""
        began = time.perf_counter()
        n_bytes = committer.commit(progress)
        if n_bytes is not None:
            self.notify(Committed(progress.done, n_bytes, time.perf_counter() - began))

    def how_to_resume(self) -> str:
        if self.part is not None:
            return self.part.how_to_resume
        return call("fit", self.store, model=self.model, resume=True)

    def interrupted(self, n_sweeps: int, how: str) -> FitInterrupted:
        text = f"{how}; sweep {n_sweeps} is committed; go on with: {self.how_to_resume()}"
        return FitInterrupted(text, self.model, n_sweeps)

    def refused(self, error: OSError, n_sweeps: int | None) -> OSError:
        """Make an error of what the storage said, and how to go on."""
        of_part = f" of {self.part.words}" if self.part else ""
        if n_sweeps is not None:
            stands, how = f"sweep {n_sweeps}{of_part} is committed", self.how_to_resume()
            return refused(error, stands, f"go on with: {how}")
        again = f"go on with: {self.part.how_to_resume}" if self.part else "run the fit again"
        return refused(error, f"nothing{of_part} is committed yet", again)

    def committer(
        self,
        rows: CommitRows,
        preparation: Preparation,
        config: FitConfig,
        save_every: int,
        *,
        from_version: str | None,
        committed: int | None = None,
    ) -> Committer:
        return Committer(
            checkpoints=self.checkpoints, rows=rows, preparation=preparation, config=config,
            hashes=source_hashes(self.root), every=save_every, notes=self.messages,
            from_version=from_version, committed=committed,
        )  # fmt: skip

    def summary(
        self, chain: Chain, progress: ChainProgress, version: str, began: float
    ) -> FitSummary:
        trace = progress.trace
        found = progress.settling.get(trace.stage[-1])
        return FitSummary(
            os.fspath(self.store),
            self.model,
            version,
            len(chain.index.sessions),
            chain.index.n_frames,
            chain.n_latent,
            progress.done,
            trace.n_used[-1],
            float(open_labels(self.store, self.model).attrs["median_duration_overall"]),
            trace.kappa[-1],
            trace.log_likelihood[-1],
            trace.log_evidence[-1],
            None if found is None or not found.is_known else found.is_settled,
            time.perf_counter() - began,
            tuple(self.messages),
        )


# ------------------------------------------------------------------ before the first sweep


def _goes_on(config: FitConfig, start: StartModel, notify: Callback) -> FitConfig:
    """Settings of a fit that goes on from a model: the same stage keeps its stickiness."""
    if config.stage == "ar" and start.stage != "ar":
        raise InputError(
            expected=f"`stage='full'` to go on from {start.name!r}, a model of the full stage",
            found="`stage='ar'`",
            where="`from_model=`",
            fix="leave `stage=` out, or begin without `from_model=`",
        )
    if config.stage != start.stage or config.kappa is not None:
        return config
    notify(Noted(f"kappa {start.kappa:.3g}, as the model {start.name!r} ended with"))
    return config.resolved(kappa=start.kappa)


def _notify(callbacks: Sequence[Callback], messages: list[str], stop: Stop, event: Event) -> None:
    def pass_on(event: Event) -> None:
        for callback in callbacks:
            callback(event)

    stop.report(lambda text: pass_on(Noted(text)))
    if isinstance(event, Noted):
        messages.append(event.text)
    pass_on(event)


def _check_request(
    root: access.Group, store: StoreLike, model: str, *, resume: bool, overwrite: bool
) -> None:
    """Refuse arguments that contradict each other, before anything is touched."""
    path = layout.model_path(model)
    if resume and overwrite:
        raise InputError(
            expected="one of `resume=True` and `overwrite=True`",
            found="both",
            where=f"{os.fspath(store)}, model {model!r}",
            fix="`resume=True` goes on with an unfinished fit, `overwrite=True` begins again",
        )
    if resume and access.subgroup(root, path) is None:
        check_name(root, store, model, resume=resume, overwrite=overwrite)


def check_name(
    root: access.Group, store: StoreLike, model: str, *, resume: bool, overwrite: bool
) -> None:
    """Refuse a name that is taken, and a resume of what is not there."""
    where = f"{os.fspath(store)}, model {model!r}"
    is_published = current_version(root, model) is not None
    n_sweeps = committed_sweeps(root, model)
    if resume and n_sweeps is None:
        is_fitted = is_published and has_parameters(store, model)
        state = "labels that no fit of this package has made" if is_published else "no such fit"
        raise InputError(
            expected="an unfinished fit to go on with",
            found="a fit that is finished" if is_fitted else state,
            where=where,
            fix=f"{_more_of(store, model)} gives it more sweeps or sessions"
            if is_fitted
            else "choose another `model=` and leave `resume=` out"
            if is_published
            else "leave `resume=` out to begin it",
        )
    if resume or overwrite:
        return
    if n_sweeps is not None:
        raise InputError(
            expected="a model name that is not in use",
            found=f"{model!r}, a fit that was interrupted after sweep {n_sweeps}",
            where=os.fspath(store),
            fix="add `resume=True` to go on with it, `overwrite=True` to begin again, or choose "
            "another `model=`",
        )
    if is_published:
        raise InputError(
            expected="a model name that is not in use",
            found=f"{model!r}, which is fitted already",
            where=os.fspath(store),
            fix="choose another `model=`, or add `overwrite=True` to publish a new version of it "
            "(the old one stays in the store)",
        )


def _more_of(store: StoreLike, model: str) -> str:
    config = Stand(f"FitConfig(from_model={model!r}, stage={stage_of(store, model)!r})")
    return call("fit", store, model="NEW", config=config)


def _check_settled(config: FitConfig, progress: ChainProgress, notify: Callback) -> None:
    """Say which stages had settled, where that was waited for; else, when the last had not."""
    last = progress.trace.stage[-1]
    for stage, found in progress.settling.items():
        if config.until_settled or (stage == last and found.is_known and not found.is_settled):
            notify(Noted(in_words(stage, found)))


def _check_target(
    config: FitConfig, progress: ChainProgress, index: ChainIndex, notify: Callback
) -> None:
    """Say when a target duration was missed, and when many bouts are none that it is about."""
    if config.target_duration is None:
        return
    fps = max(session.fps for session in index.sessions)
    found = progress.trace.median_duration[-1] * 1000 / fps
    if abs(found / config.target_duration - 1) > _TARGET_TOLERANCE:
        notify(
            Noted(
                f"the target duration of {config.target_duration:g} ms was not reached: the median "
                f"is {found:.0f} ms; give more sweeps, or a target that the sessions and frame "
                "rate allow"
            )
        )
    counts = None if progress.result is None else progress.result.counts
    if counts is not None and counts.n_used and counts.rare_share > _MANY_RARE:
        notify(
            Noted(
                f"{counts.rare_share:.0%} of the bouts are of syllables with less than "
                f"{USED_FRACTION:.1%} of the frames, as jumps of the tracking make them; the "
                f"target duration is that of the others, whose median is {found:.0f} ms, while "
                f"over all bouts it is {counts.median_of_all * 1000 / fps:.0f} ms; look at "
                f"{call('quality', STORE)}, and leave keypoints or sessions that jump out"
            )
        )
