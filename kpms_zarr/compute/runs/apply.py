"""Label sessions with a model whose parameters stay as they are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis.partition import Votes
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import (
    Callback,
    Noted,
    Published,
    ResourcePlan,
    SessionsSettled,
    tell,
)
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.preparation import (
    Preparation,
    check_length,
    first_noise_variance,
    load,
    make_chain,
    plan_of,
    prepare,
    settings_of_model,
)
from kpms_zarr.compute.runs.publish import (
    SECOND,
    Numbered,
    add_levels,
    certainty_of,
    label_names,
    published_labels,
    write_labels,
)
from kpms_zarr.compute.runs.stages import make_sweeper, model_of, noise_by_keypoint, pipeline_of
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.voting import (
    Ballot,
    MemberLabeller,
    MemberLabels,
    VoteCertainty,
    bytes_of_another_space,
)
from kpms_zarr.compute.sampler.bouts import Labelled
from kpms_zarr.compute.sampler.certainty import PublishedCertainty
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.draws import AveragedLabels
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.sampler.warm import ANNEAL_SWEEPS, WARM_SWEEPS, annealed, warm_start
from kpms_zarr.compute.settings import check_sweeps
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import Lock, model_lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import LabelWriter, copy_labels, require_model
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import listed

_NO_VOTES = (
    "not all models of the consensus label new sessions by their parameters: labelled by the "
    "parameters of the consensus instead of by votes"
)
LEAST_SWEEPS = 10
"""Before a session can have settled: five sweeps to compare with the five before them."""
_WINDOW = 5
_STILL_FALLING = 0.97
"""A session has settled when its labels change from sweep to sweep hardly less than before."""
MOST_STARTS = 8
AGREED = 0.9
"""Share of the frames in which averages of half of the starts have the same label."""
DRAWS, EVERY = 12, 2
"""Draws that are kept from a start, and sweeps from one to the next."""


@dataclass(frozen=True)
class ApplySummary:
    """Result of :func:`apply`.

    Attributes
    ----------
    store, model, version : str
        The labels are in the group ``models/<model>/labels/<version>``.
    labelled : tuple of str
        Sessions that were labelled.
    n_frames : int
        Of these.
    sweeps : dict of str to int
        Session -> sweeps from all starts.
    settled : bool
        Whether all had, before the largest number of sweeps.
    again : tuple of str
        Of the labelled sessions, those of the fit.
    agreement : float
        Share of their frames that have the label of the fit; NaN without such sessions.
    own_agreement : float
        Share of their frames with the same label in the averages of two halves of the starts, which
        share nothing but the model: what agreement can be expected. NaN for one start, and for the
        votes of a consensus, in which nothing is drawn.
    as_new : str
        A session of the fit that was labelled as if the model had never seen it; "" for none.
    new_agreement, new_own_agreement : float
        The same two shares for that session: how much labels of new sessions are like those that
        a fit with them would have given.
    seconds : float
        Wall time.
    """

    store: str
    model: str
    version: str
    labelled: tuple[str, ...]
    n_frames: int
    sweeps: dict[str, int]
    settled: bool
    again: tuple[str, ...]
    agreement: float
    own_agreement: float
    as_new: str
    new_agreement: float
    new_own_agreement: float
    seconds: float
    notes: tuple[str, ...]


def apply(
    store: StoreLike,
    *,
    model: str,
    sessions: Sequence[str] | None = None,
    sweeps: int = 100,
    draw: bool = False,
    check: bool = True,
    budget: Budget | None = None,
    callbacks: Sequence[Callback] = (),
) -> ApplySummary:
    """Label sessions with a fitted model, its parameters fixed, and publish a new version.

    The sampler is that of the fit. A session begins with its aligned pose and labels drawn from
    it, several times; the first time, one of the fit begins with its state in the fit. From each
    start it is swept until its labels change from sweep to sweep no less than before, and draws
    are kept. The label of a frame is the one that it has in most draws of all starts, its
    certainty the share of these. A session ends when averages of two halves of its starts agree in
    90 % of its frames, or after 8 starts. Its result does not depend on the sessions beside it, to
    the bit. With a consensus (:func:`kpms_zarr.consensus`) its members vote instead, in which
    nothing is drawn, and the pose is drawn given their labels. Sessions that are not labelled now
    keep their labels in the new version.

    Parameters
    ----------
    store : path or URL
    model : str
    sessions : sequence of str, optional
        Names, patterns or ``coordinate=value``, see :attr:`FitConfig.sessions`; default: those
        without labels.
    sweeps : int
        At most, from one start, before draws are kept.
    draw : bool
        Publish one draw from one start, not an average.
    check : bool
        When there are new sessions, label one of the fit as if it were new, only to compare.
    budget : Budget, optional
    callbacks : sequence of callable
        Each is given the events of ``compute.events``.

    Returns
    -------
    ApplySummary

    Raises
    ------
    InputError
        When there is no such model or session, all sessions have labels and none was named, or no
        plan fits the budget.
    SamplingError
        When a draw has no finite result even in float64; nothing is published.
    """
    began = time.perf_counter()
    check_sweeps("sweeps", sweeps)
    budget = budget or Budget()
    root = access.open_group(store, "r+")
    messages: list[str] = []
    notify = partial(tell, callbacks, messages)
    require_model(store, model)  # the lock would make a group for any name
    with model_lock(root, store, model) as lock:
        start = StartModel.of(store, model)
        # As the fit left it, whatever has been applied since.
        fitted = StartModel.of(store, model, str(start.labels.attrs["parameters"]))
        chosen = _chosen(root, store, start, sessions)
        again = tuple(session for session in chosen if session.name in fitted.sessions)
        as_new = _one_to_compare(root, fitted) if check and len(again) < len(chosen) else None
        every = (*chosen, as_new) if as_new is not None and as_new not in chosen else chosen
        every = tuple(sorted(every, key=lambda session: session.index))
        config = settings_of_model(start, every)
        with limit_workers(store, budget.host_memory, is_strict=False):
            preparation = prepare(store, config, fitted, notify)
        voting = None if draw or fitted.members is None else fitted.members
        if voting is not None and not voting.are_applied:
            voting = None
            notify(Noted(_NO_VOTES))
        members = () if voting is None else voting.open(store)
        n_draws = len(members) or (0 if draw else MOST_STARTS * DRAWS)
        n_bytes = n_draws + (bytes_of_another_space(members[0], members) if members else 0)
        plan = plan_of(preparation, config, budget, notify, fixed_shape(config), n_bytes)
        labelled = replace(preparation, sessions=chosen)
        make = partial(
            make_chain, config=config, plan=plan, scratch=budget.scratch, n_draws=n_draws,
            draw_states=max((len(one.parameters.usage) for one in members), default=0),
        )  # fmt: skip
        with make(labelled) as chain:
            check_length(chain.index, store, notify)
            load(chain, labelled, config, fitted, plan.tiles_in_flight)
            voters = _Voters(store, members, plan, budget.scratch)
            run = _run_of(
                chain, labelled, config, fitted, plan.tiles_in_flight, notify, lock, voters
            )
            run.label(sweeps)
            certainty = run.certainty() if config.certainty else None
            writer = _write(root, start, run, preparation, config, chosen, certainty)
            # Only then published: what stops it here publishes nothing.
            compare = _Comparison(
                preparation=preparation, config=config, fitted=fitted, lock=lock,
                plan=replace(plan, kept_bytes=0), n_in_flight=run.pipeline.n,
                make=make, voters=voters,
            )  # fmt: skip
            like_fit = compare.with_the_fit(run, again)
            like_new = compare.of_a_new_session(as_new, sweeps)
            settings = {
                **config.to_dict(), "sessions": [session.name for session in chosen],
                "sweeps": sweeps, "notes": list(messages),
            }  # fmt: skip
            numbers = {"n_sweeps_in_all": max(run.next_number, start.n_sweeps)}
            statistics = {**_statistics(writer, config), **numbers}
            if certainty is not None:
                _count_kept(writer, certainty, chosen)
                statistics["mean_certainty"] = certainty.mean
            version = writer.publish("apply", settings, statistics)
            notify(Published(model, version))
            add_levels(root, model, version, notify)
            names = [session.name for session in chain.index.sessions]
            n_sweeps = dict(zip(names, run.n_sweeps.tolist(), strict=True))
    return ApplySummary(
        os.fspath(store),
        model,
        version,
        tuple(session.name for session in chosen),
        sum(session.n_frames for session in chosen),
        n_sweeps,
        run.has_settled,
        tuple(session.name for session in again),
        *like_fit,
        "" if as_new is None else as_new.name,
        *like_new,
        time.perf_counter() - began,
        tuple(messages),
    )


# ------------------------------------------------------------------ which sessions, which settings


def _chosen(
    root: access.Group, store: StoreLike, start: StartModel, selectors: Sequence[str] | None
) -> tuple[Session, ...]:
    found = select_sessions(root, selectors, "`sessions=`")
    if selectors is None:
        found = tuple(session for session in found if session.name not in start.sessions)
    if not found:
        raise InputError(
            expected=f"sessions that the model {start.name!r} has not labelled yet",
            found="none: all have labels",
            where=os.fspath(store),
            fix="name the sessions to label again with `sessions=`, or all with `sessions='*'`",
        )
    return found


def _one_to_compare(root: access.Group, fitted: StartModel) -> Session | None:
    """Choose a session of the fit, of median length."""
    found = [session for session in access.sessions(root) if session.name in fitted.sessions]
    found.sort(key=lambda session: (session.n_frames, session.name))
    return found[len(found) // 2] if found else None


def fixed_shape(config: FitConfig) -> TileShape:
    """One shape of tiles for any sessions, so that none can change the result of another."""
    assert config.tile_frames is not None
    lanes = max(8, config.tile_frames // config.segment_frames // 8 * 8)
    return TileShape(lanes, config.segment_frames)


# ------------------------------------------------------------------ the chain


@dataclass(frozen=True)
class _Voters:
    """Members of a consensus, and what labelling with them takes.

    Attributes
    ----------
    members : sequence of StartModel
        None for any other model.
    """

    store: StoreLike
    members: Sequence[StartModel]
    plan: ResourcePlan
    scratch: str | None


def _run_of(
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    fitted: StartModel,
    n_in_flight: int,
    notify: Callback,
    lock: Lock,
    voters: _Voters,
) -> _Run:
    """Make the run that labels sessions: by votes where there are members, else by draws."""
    if voters.members:
        return _VotedRun(chain, preparation, config, fitted, n_in_flight, notify, lock, voters)
    return _Run(chain, preparation, config, fitted, n_in_flight, notify, lock)


class _Run:
    """Labels of sessions by sweeps with fixed parameters, from several starts.

    Two sweeps of one chain are alike for longer than anybody would wait; only chains that begin
    anew show what a session leaves open. From each start a session is swept until its labels have
    settled, then some draws are kept, and it leaves when the averages of the even and of the odd
    starts agree.
    """

    def __init__(
        self,
        chain: Chain,
        preparation: Preparation,
        config: FitConfig,
        fitted: StartModel,
        n_in_flight: int,
        notify: Callback,
        lock: Lock,
    ) -> None:
        self.chain, self.preparation, self.config, self.fitted = chain, preparation, config, fitted
        self.notify, self.lock = notify, lock
        self.pipeline = pipeline_of(n_in_flight, notify)
        # Every segment is drawn as it would be without the segments beside it in the tile.
        self._model = model_of(
            config.stage, preparation, config, noise_by_keypoint(config, fitted, chain),
            keeps_sound_segments=True,
        )  # fmt: skip
        self._is_new = np.array([s.name not in fitted.sessions for s in chain.index.sessions])
        self._is_settled = np.ones(len(self._is_new), bool)
        self._number = fitted.n_sweeps
        self.n_sweeps = np.zeros(len(self._is_new), np.int64)
        self.agreement = np.full(len(self._is_new), np.nan)

    @property
    def next_number(self) -> int:
        """Number of the next sweep, for random numbers."""
        return self._number

    @property
    def has_settled(self) -> bool:
        """Whether the labels of all sessions had, from every start."""
        return bool(self._is_settled.all())

    @property
    def labels(self) -> Labelled:
        """Labels that are published."""
        return published_labels(self.chain)

    def label(self, max_sweeps: int) -> None:
        """Label every session; numbers of sweeps hang together with no other session."""
        draws, is_open = self.chain.draws, self.chain.index.n_modelled > 0
        for start in range(1 if draws is None else MOST_STARTS):
            if not is_open.any():
                break
            if start:
                self._begin_anew(is_open)
            self._settle(is_open, max_sweeps)
            if draws is not None:
                self._keep_draws(is_open, start * DRAWS)
                self._compare_starts(is_open, start + 1)
                is_open = is_open & ~(self.agreement >= AGREED)
        names = [session.name for session in self.chain.index.sessions]
        if not self.has_settled:
            rest = [names[row] for row in np.flatnonzero(~self._is_settled)]
            least = LEAST_SWEEPS + (0 if self.config.stage == "ar" else ANNEAL_SWEEPS)
            self.notify(Noted(_still_open(rest, max_sweeps, least)))
        if is_open.any() and draws is not None:
            low = [f"{names[row]} {self.agreement[row]:.0%}" for row in np.flatnonzero(is_open)]
            self.notify(
                Noted(
                    f"labels from {MOST_STARTS} independent starts still differ: averages of half "
                    f"of them agree in these shares of the frames: {listed(low)}; the certainty "
                    "of the labels says where"
                )
            )

    @property
    def by_frame(self) -> tuple[str, ...]:
        """Variables that are published of every frame."""
        return label_names(self.chain, self.config, self.labels)

    def _begin_anew(self, which: np.ndarray) -> None:
        """Give sessions a first state that nothing of the starts before has led to."""
        self._is_new = np.ones_like(self._is_new)
        anew = replace(self.fitted, scale={})
        load(self.chain, self.preparation, self.config, anew, self.pipeline.n, which)

    def _settle(self, which: np.ndarray, max_sweeps: int) -> None:
        """Sweep until the labels of some sessions have settled."""
        n_annealed = min(ANNEAL_SWEEPS, max_sweeps // 2) if self.config.stage != "ar" else 0
        parameters = self.fitted.parameters
        path = annealed(parameters, n_annealed)
        is_open, n_sweeps = which.copy(), np.zeros(len(which), np.int64)
        if (which & self._is_new).any():
            sweeper = self._sweeper(self.chain.only(which & self._is_new))
            warm_start(sweeper, path[0] if path else parameters, self._number)
        first = self._number + WARM_SWEEPS  # also without, as nothing may depend on other sessions
        self._number = first + max_sweeps
        changes: list[list[float]] = [[] for _ in which]
        for done in range(1, max_sweeps + 1):
            if not is_open.any():
                break
            is_annealed = done <= n_annealed
            groups = [(is_open & self._is_new, path[done - 1])] if is_annealed else []
            groups.append((is_open & ~self._is_new if is_annealed else is_open, parameters))
            for some, now in groups:
                shares = self._sweep(some, now, first + done - 1) if some.any() else {}
                for row, share in shares.items():
                    n_sweeps[row] = done
                    if now is parameters:
                        changes[row].append(share)
                        is_open[row] = not has_settled(changes[row])
            self.notify(SessionsSettled(done, int((~is_open).sum()), len(which)))
        self._is_settled &= ~is_open
        self.n_sweeps += n_sweeps

    def _keep_draws(self, which: np.ndarray, first: int) -> None:
        """Keep draws of some sessions, the first of them as that number."""
        assert self.chain.draws is not None
        for done in range(1, DRAWS * EVERY + 1):
            self._sweep(which, self.fitted.parameters, self._number)
            self._number += 1
            if done % EVERY == 0:
                self.chain.draws.keep(self.chain, first + done // EVERY - 1, which)
        self.n_sweeps += np.where(which, DRAWS * EVERY, 0)

    def _compare_starts(self, which: np.ndarray, n_starts: int) -> None:
        """Compare the averages of the even and of the odd starts, session by session."""
        if n_starts < 2:
            return
        draws = np.arange(n_starts * DRAWS)
        is_odd = (draws // DRAWS) % 2 == 1
        halves = [AveragedLabels(self.chain, draws[half]) for half in (~is_odd, is_odd)]
        for row in np.flatnonzero(which):
            one, two = (_of_session(labels, row) for labels in halves)
            self.agreement[row] = (one == two).mean()

    def _sweeper(self, chain: Chain) -> Sweeper:
        return make_sweeper(chain, self.config, self.pipeline, fixed_shape(self.config))

    def _sweep(self, which: np.ndarray, parameters: Parameters, number: int) -> dict[int, float]:
        """One sweep over some sessions; returns the share of changed labels by session."""
        rows = np.flatnonzero(which)
        changed, total = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        lock = threading.Lock()

        def watch(tile: Any, before: np.ndarray, after: np.ndarray) -> None:
            n = len(tile.length)
            is_own = np.arange(after.shape[1]) < tile.length[:, None]
            differs = ((before[:n] != after[:n]) & is_own).sum(1)
            with lock:
                np.add.at(changed, tile.session, differs)
                np.add.at(total, tile.session, tile.length)

        sweeper = self._sweeper(self.chain.only(which))
        sweeper.draw(self._model, parameters, number, watch=watch)
        self.lock.renew()
        shares = changed / np.maximum(1, total)
        return dict(zip(rows.tolist(), shares.tolist(), strict=True))

    def certainty(self) -> PublishedCertainty:
        """Certainty of the labels that are published."""
        return certainty_of(self.labels, self._sweeper(self.chain), self.fitted.parameters)

    def labels_of(self, row: Any) -> np.ndarray:
        """Labels of a session that are published, from its first one on."""
        return _of_session(self.labels, row)


class _VotedRun(_Run):
    """Labels of sessions by the votes of the members of a consensus, then a pose given them.

    Nothing in the labels is drawn: a session that is labelled again gets the same ones.
    """

    def __init__(
        self,
        chain: Chain,
        preparation: Preparation,
        config: FitConfig,
        fitted: StartModel,
        n_in_flight: int,
        notify: Callback,
        lock: Lock,
        voters: _Voters,
    ) -> None:
        super().__init__(chain, preparation, config, fitted, n_in_flight, notify, lock)
        assert fitted.members is not None
        self._voters = voters
        votes = Votes(fitted.members.syllable, config.n_states)
        self._ballot = Ballot(votes, fitted.members.price)
        self._labels_of = MemberLabels(chain)
        self._model = model_of(
            config.stage, preparation, config, noise_by_keypoint(config, fitted, chain),
            keeps_sound_segments=True, holds_labels=True,
        )  # fmt: skip

    def label(self, max_sweeps: int) -> None:
        """Label every session, and draw its pose given the labels in as many sweeps or fewer."""
        which = self.chain.index.n_modelled > 0
        self._begin_anew(np.ones_like(which))
        voters = self._voters
        labeller = MemberLabeller(
            voters.store, self._labels_of, self._sweeper(self.chain), voters.members[0],
            voters.plan, voters.scratch, fixed_shape(self.config),
        )  # fmt: skip
        for place, member in enumerate(voters.members):
            labeller.label(place, member)
        self._ballot.label(self._labels_of)
        self.lock.renew()
        n_annealed = min(ANNEAL_SWEEPS, max_sweeps // 2)
        path = annealed(self.fitted.parameters, n_annealed)
        path += [self.fitted.parameters] * min(ANNEAL_SWEEPS, max_sweeps - n_annealed)
        if which.any():
            for parameters in path:
                self._sweep(which, parameters, self._number)
                self._number += 1
        self.n_sweeps += np.where(which, len(path), 0)

    @property
    def labels(self) -> Labelled:
        """Labels that are published."""
        return self.chain

    @property
    def by_frame(self) -> tuple[str, ...]:
        """Variables that are published of every frame."""
        found = super().by_frame
        return found + tuple(name for name in SECOND if self.config.certainty)

    def certainty(self) -> PublishedCertainty:
        """Share of the votes."""
        return VoteCertainty(self._labels_of, self._ballot.votes)


def _of_session(labels: Labelled, row: Any) -> np.ndarray:
    index = labels.index
    first, length = int(index.first[row]), int(index.length[row])
    return np.array(labels.syllable[first + index.lags : first + length])


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Agreement of labels with those of the fit."""

    preparation: Preparation
    config: FitConfig
    fitted: StartModel
    plan: ResourcePlan
    n_in_flight: int
    make: Callable[..., Chain]
    lock: Lock
    voters: _Voters

    def with_the_fit(self, run: _Run, sessions: Sequence[Session]) -> tuple[float, float]:
        """Compare the labels of sessions of the fit that a run has labelled again.

        Returns
        -------
        tuple of float
            Share of their frames with the label of the fit, and with the same label in averages
            of two halves of the starts.
        """
        names, index = {session.name for session in sessions}, run.chain.index
        which = np.array([s.name in names for s in index.sessions]) & (index.n_modelled > 0)
        rows, n_frames = np.flatnonzero(which), index.n_modelled[which]
        if not len(rows):
            return float("nan"), float("nan")
        same = [
            float((run.labels_of(row) == self._labels_of_fit(index.sessions[row])).mean())
            for row in rows
        ]
        both = (np.array(same), run.agreement[rows])
        with_fit, halves = (float((share * n_frames).sum() / n_frames.sum()) for share in both)
        return with_fit, halves

    def of_a_new_session(self, session: Session | None, max_sweeps: int) -> tuple[float, float]:
        """Label a session of the fit as if it were new, and compare; see :meth:`with_the_fit`."""
        if session is None or session.n_frames <= self.config.lags:
            return float("nan"), float("nan")
        config = replace(self.config, sessions=(session.name,))
        preparation = replace(self.preparation, sessions=(session,))
        start = replace(self.fitted, scale={})
        with self.make(preparation, config=config, plan=self.plan) as chain:
            load(chain, preparation, config, start, self.n_in_flight)
            quiet = (self.n_in_flight, lambda _: None, self.lock, self.voters)
            run = _run_of(chain, preparation, config, start, *quiet)
            run.label(max_sweeps)
            same = run.labels_of(0) == self._labels_of_fit(session)
            return float(same.mean()), float(run.agreement[0])

    def _labels_of_fit(self, session: Session) -> np.ndarray:
        return self.fitted.labels_of(session.name, self.config.lags)


def _still_open(names: Sequence[str], max_sweeps: int, least: int) -> str:
    """Message on sessions that had not settled."""
    why = "still changing" if max_sweeps >= least else "perhaps still changing"
    return (
        f"labels {why} after {max_sweeps} sweeps: {listed(names)}; give more `sweeps=` "
        f"(at least {max(least, 2 * LEAST_SWEEPS)} tell whether they have settled)"
    )


def has_settled(changes: Sequence[float]) -> bool:
    """Whether labels change from sweep to sweep hardly less than they did before.

    Labels are samples and never stop changing; they have settled when the mean share that changes
    is no longer falling: over the last five sweeps at least 97 % of that over the five before.
    """
    if len(changes) < LEAST_SWEEPS:
        return False
    before, now = np.mean(changes[-2 * _WINDOW : -_WINDOW]), np.mean(changes[-_WINDOW:])
    return bool(now >= _STILL_FALLING * before)


# ------------------------------------------------------------------ the new version


def _write(
    root: access.Group,
    start: StartModel,
    run: _Run,
    preparation: Preparation,
    config: FitConfig,
    labelled: Sequence[Session],
    certainty: PublishedCertainty | None,
) -> LabelWriter:
    """Write the labels of all sessions: the labelled ones from the chain, the others as before."""
    chain, labels = run.chain, run.labels
    new = {session.name for session in labelled}
    sessions = tuple(s for s in access.sessions(root) if s.name in new or s.name in start.sessions)
    names = run.by_frame
    # What sessions that are not labelled now have beside their labels stays.
    names += tuple(name for name in SECOND if name in start.labels and name not in names)
    writer = LabelWriter(
        root,
        start.name,
        sessions=sessions,
        settings=preparation.study,
        names=names,
        n_latent=chain.n_latent,
        parameters_version=str(start.labels.attrs["parameters"]),
        scale=[
            preparation.scale[s.index] if s.name in new else start.scale[s.name] for s in sessions
        ],
    )
    numbered = Numbered(labels, np.arange(config.n_states))
    variance = np.asarray(first_noise_variance(config, start))
    write_labels(writer, numbered, chain, names, variance, only=new, certainty=certainty)
    copy_labels(root, start.name, start.version, writer, names, without=new)
    return writer


def _count_kept(
    writer: LabelWriter, certainty: PublishedCertainty, labelled: Sequence[Session]
) -> None:
    """Add the sessions that keep their labels to the mean certainty by syllable."""
    new = {session.name for session in labelled}
    for row, session in enumerate(writer.sessions):
        if session.name in new:
            continue
        for start in range(0, session.n_frames, writer.block_frames):
            block = (row, start, min(start + writer.block_frames, session.n_frames))
            certainty.add(writer.read("syllable", *block), writer.read("certainty", *block))


class _Written:
    """Labels of a version that has just been written, sessions end to end."""

    def __init__(self, writer: LabelWriter, lags: int) -> None:
        self._writer = writer
        self.index = ChainIndex.of(writer.sessions, lags)
        self._row = {session.name: row for row, session in enumerate(writer.sessions)}

    @property
    def syllable(self) -> _Written:
        return self

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.index.n_frames)
        first, parts = self.index.first, []
        low, high = np.searchsorted(first, [start, stop - 1], side="right") - 1
        for session in range(int(low), int(high) + 1):
            begin, length = int(first[session]), int(self.index.length[session])
            a, b = max(0, start - begin), min(length, stop - begin)
            row = self._row[self.index.sessions[session].name]
            parts.append(self._writer.read("syllable", row, a, b))
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _statistics(writer: LabelWriter, config: FitConfig) -> dict[str, Any]:
    return label_statistics(_Written(writer, config.lags), config.n_states)
