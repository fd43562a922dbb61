"""Sessions labelled by a model whose parameters stay: in this process, or on a cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.cluster.worker import Leash, on_own_threads, passer, pull, share_of_worker
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, ResourcePlan, SessionsSettled
from kpms_zarr.compute.runs.labelling import SessionLabelling, Voters, fixed_shape, labelling_of
from kpms_zarr.compute.runs.preparation import (
    Preparation,
    first_noise_variance,
    load,
    make_chain,
    plan_of,
)
from kpms_zarr.compute.runs.publish import Numbered, write_labels
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.voting import bytes_of_another_space
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.locking import Lock
from kpms_zarr.store.model.models import LabelWriter
from kpms_zarr.store.wording import counted


@dataclass(frozen=True)
class LabelWork:
    """Work: label sessions with a model, wherever.

    Attributes
    ----------
    parameters : str
        Version of the parameters.
    n_draws : int
        Labels of a frame that are kept meanwhile.
    votes : bool
        Whether members of a consensus vote.
    again : frozenset of str
        Sessions of the fit among those that are labelled.
    """

    store: str
    model: str
    parameters: str
    preparation: Preparation
    config: FitConfig
    sweeps: int
    n_draws: int
    votes: bool
    again: frozenset[str]


@dataclass(frozen=True)
class LabelledSessions:
    """What was found of sessions that are labelled and written.

    Attributes
    ----------
    n_sweeps : dict of str to int
        By session.
    agreement : dict of str to tuple
        Session of the fit -> frames, share of them with the label of the fit, and share with the
        same label in averages of two halves of the starts.
    certainty : tuple of ndarray
        See :attr:`CertaintyCounts.sums`.
    """

    n_sweeps: dict[str, int]
    has_settled: bool
    next_number: int
    agreement: dict[str, tuple[int, float, float]]
    certainty: tuple[np.ndarray, np.ndarray]

    def plus(self, other: LabelledSessions) -> LabelledSessions:
        """Add other sessions."""
        pairs = zip(self.certainty, other.certainty, strict=True)
        total, number = (one + two for one, two in pairs)
        return LabelledSessions(
            {**self.n_sweeps, **other.n_sweeps},
            self.has_settled and other.has_settled,
            max(self.next_number, other.next_number),
            {**self.agreement, **other.agreement},
            (total, number),
        )

    @property
    def with_the_fit(self) -> tuple[float, float]:
        """Both shares over all sessions of the fit; NaN without any."""
        if not self.agreement:
            return float("nan"), float("nan")
        rows = np.array([self.agreement[name] for name in sorted(self.agreement)])
        n_frames = rows[:, 0]
        with_fit, halves = (
            float((share * n_frames).sum() / n_frames.sum()) for share in rows[:, 1:].T
        )
        return with_fit, halves


@dataclass(frozen=True)
class LabelBench:
    """Room in this process to label sessions."""

    work: LabelWork
    members: Sequence[StartModel]
    fitted: StartModel
    plan: ResourcePlan
    scratch: str | None
    notify: Callback
    lock: Lock

    @classmethod
    def of(
        cls,
        work: LabelWork,
        members: Sequence[StartModel],
        fitted: StartModel,
        budget: Budget,
        notify: Callback,
        lock: Lock,
    ) -> LabelBench:
        """Plan it for the sessions that are prepared."""
        n_bytes = work.n_draws + (bytes_of_another_space(members[0], members) if members else 0)
        shape = fixed_shape(work.config)
        plan = plan_of(work.preparation, work.config, budget, notify, shape, n_bytes)
        return cls(work, members, fitted, plan, budget.scratch, notify, lock)

    def label(
        self, sessions: Sequence[Session], begin: Callable[[], LabelWriter]
    ) -> tuple[LabelWriter, LabelledSessions]:
        """Label sessions and write them; ``begin`` gives the version where they go."""
        config = self.work.config
        labelled = replace(self.work.preparation, sessions=tuple(sessions))
        with self._chain(labelled, config, self.plan) as chain:
            load(chain, labelled, config, self.fitted, self.plan.tiles_in_flight)
            run = self._run(chain, labelled, config, self.fitted, self.notify)
            run.label(self.work.sweeps)
            certainty = run.certainty() if config.certainty else None
            writer = begin()
            write_labels(
                writer, Numbered(run.labels, np.arange(config.n_states)), chain, writer.names,
                np.asarray(first_noise_variance(config, self.fitted)),
                only={session.name for session in sessions}, certainty=certainty,
            )  # fmt: skip
            names = [session.name for session in chain.index.sessions]
            none = np.zeros(max(2, config.n_states), np.int64)
            return writer, LabelledSessions(
                dict(zip(names, run.n_sweeps.tolist(), strict=True)),
                run.has_settled,
                run.next_number,
                self._like_fit(run),
                (none, none) if certainty is None else certainty.sums,
            )

    def of_a_new_session(self, session: Session | None) -> tuple[float, float]:
        """Label a session of the fit as if it were new; returns the shares of its frames with the
        label of the fit, and with the same label in averages of two halves of the starts."""
        if session is None or session.n_frames <= self.work.config.lags:
            return float("nan"), float("nan")
        config = replace(self.work.config, sessions=(session.name,))
        preparation = replace(self.work.preparation, sessions=(session,))
        start = replace(self.fitted, scale={})
        with self._chain(preparation, config, replace(self.plan, kept_bytes=0)) as chain:
            load(chain, preparation, config, start, self.plan.tiles_in_flight)
            run = self._run(chain, preparation, config, start, lambda _: None)
            run.label(self.work.sweeps)
            same = run.labels_of(0) == self._labels_of_fit(session)
            return float(same.mean()), float(run.agreement[0])

    def _chain(self, preparation: Preparation, config: FitConfig, plan: ResourcePlan) -> Chain:
        states = max((len(one.parameters.usage) for one in self.members), default=0)
        return make_chain(
            preparation, config, plan, self.scratch, self.work.n_draws, draw_states=states
        )

    def _run(
        self,
        chain: Chain,
        preparation: Preparation,
        config: FitConfig,
        start: StartModel,
        notify: Callback,
    ) -> SessionLabelling:
        voters = Voters(self.work.store, self.members, self.plan, self.scratch)
        return labelling_of(
            chain, preparation, config, start, self.plan.tiles_in_flight, notify, self.lock, voters
        )

    def _like_fit(self, run: SessionLabelling) -> dict[str, tuple[int, float, float]]:
        index, found = run.chain.index, {}
        for row in np.flatnonzero(index.n_modelled > 0):
            session = index.sessions[row]
            if session.name in self.work.again:
                same = float((run.labels_of(row) == self._labels_of_fit(session)).mean())
                found[session.name] = (int(index.n_modelled[row]), same, float(run.agreement[row]))
        return found

    def _labels_of_fit(self, session: Session) -> np.ndarray:
        return self.fitted.labels_of(session.name, self.work.config.lags)


# ------------------------------------------------------------------ on the workers of a cluster

_PARTS_A_WORKER = 4


def label_on_workers(
    crew: Crew,
    work: LabelWork,
    sessions: Sequence[Session],
    begin: Callable[[], LabelWriter],
    notify: Callback,
    lock: Lock,
) -> tuple[LabelWriter, LabelledSessions]:
    """Label sessions on the workers of a cluster, each some of them; whoever is free the next."""
    workers = crew.workers()
    n_frames = sum(session.n_frames for session in sessions)
    shares = _shares(sessions, n_frames / (_PARTS_A_WORKER * len(workers)))
    parts = [
        Part(f"part {i + 1} of {counted(len(shares), 'part')} to label", next(iter(workers)))
        for i in range(len(shares))
    ]
    topic = f"kpms_zarr-{uuid.uuid4().hex[:12]}"
    there = replace(work, store=access.absolute(work.store))
    done: list[int] = []

    def on_done(part: int, found: LabelledSessions) -> None:
        done.append(len(found.n_sweeps))
        notify(SessionsSettled(max(found.n_sweeps.values()), sum(done), len(sessions)))

    writer = begin()
    try:
        with crew.listening(topic, notify):
            found = crew.call(
                parts, label_part,
                lambda part, _: (
                    replace(there, preparation=replace(work.preparation, sessions=shares[part])),
                    writer.version, topic,
                ),
                anywhere=True, on_poll=lock.renew, on_done=on_done,
            )  # fmt: skip
    except BaseException:
        crew.everywhere(pull, topic)
        writer.discard()
        raise
    return writer, reduce(LabelledSessions.plus, found)


class _OnLeash(Lock):
    """Lock that another process holds, and lets go of when it ends."""

    def __init__(self, leash: Leash) -> None:
        self._leash = leash

    def renew(self) -> None:
        """Raise where nobody waits for the labels any more."""
        if self._leash.is_pulled():
            raise RuntimeError("nobody waits for these labels any more")


def label_part(work: LabelWork, version: str, topic: str) -> LabelledSessions:
    """Label the prepared sessions on a worker, and write them to a version that is begun."""
    _, budget = share_of_worker()
    root = access.open_group(work.store, "r+")
    with on_own_threads():
        fitted = StartModel.of(work.store, work.model, work.parameters)
        members: Sequence[StartModel] = ()
        if work.votes:
            assert fitted.members is not None
            members = fitted.members.open(work.store)
        notify, lock = passer(topic), _OnLeash(Leash(topic))
        bench = LabelBench.of(work, members, fitted, budget, notify, lock)
        begin = partial(LabelWriter.attached, root, work.model, version)
        return bench.label(work.preparation.sessions, begin)[1]


def _shares(sessions: Sequence[Session], most: float) -> list[tuple[Session, ...]]:
    """Share sessions out, in order: so many frames in each share, or a single longer session."""
    shares: list[list[Session]] = []
    held = 0
    for session in sessions:
        if not shares or held + session.n_frames > most:
            shares.append([])
            held = 0
        shares[-1].append(session)
        held += session.n_frames
    return [tuple(share) for share in shares]
