"""One model on which several agree: the consensus of chains, or of any models of a store."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.analysis.partition import Votes, vote
from kpms_zarr.compute.analysis.smoothing import price_for
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Event, Noted, Published
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.apply import settings_of_model
from kpms_zarr.compute.runs.fit import check_name
from kpms_zarr.compute.runs.preparation import (
    Preparation,
    check_length,
    load,
    make_chain,
    plan_of,
    prepare,
)
from kpms_zarr.compute.runs.publish import Extras, add_levels, publish
from kpms_zarr.compute.runs.stages import (
    make_sweeper,
    noise_by_keypoint,
    parameters_of_labels,
    pipeline_of,
    run,
    stages_of,
)
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.voting import (
    Ballot,
    MemberLabels,
    VoteCertainty,
    best_jaccard,
    overlap_of,
    tuning_rows,
)
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.compute.settings import check_sweeps
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.checkpoints import Checkpoints
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import counted, listed

POSE_SWEEPS = 50
"""Of the full stage, labels held: pose, heading, centroid and noise of every frame."""
_LEAST_FOR_HALVES = 4


@dataclass(frozen=True)
class ConsensusSummary:
    """Result of :func:`consensus`.

    Attributes
    ----------
    store, model, version : str
        The labels are in the group ``models/<model>/labels/<version>``.
    members : tuple of str
    n_used : int
        Syllables with at least 0.5 % of the frames.
    effective_number : float
        exp of the entropy of their usage.
    median_duration : float
        Median bout, in ms.
    mean_certainty : float
        Of all frames: the share of the members that a label has.
    half_rand_index, half_matched_share : float
        Agreement of the consensus of one half of the members with that of the other, which share
        nothing but the data: adjusted Rand index, and share of the frames with matched labels. NaN
        for fewer than four members.
    seconds : float
    """

    store: str
    model: str
    version: str
    members: tuple[str, ...]
    n_sessions: int
    n_frames: int
    n_used: int
    effective_number: float
    median_duration: float
    mean_certainty: float
    half_rand_index: float
    half_matched_share: float
    seconds: float
    notes: tuple[str, ...]


def consensus(
    store: StoreLike,
    *,
    models: Sequence[str],
    model: str,
    sessions: Sequence[str] | None = None,
    target_duration: float | None = None,
    sweeps: int = POSE_SWEEPS,
    budget: Budget | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
) -> ConsensusSummary:
    """Make one model of several, and publish the labels on which they agree.

    Each of the models has one vote for the label of a frame. Which of their states are one
    syllable is the partition of least expected variation of information (see
    :mod:`kpms_zarr.compute.analysis.partition`); how many there are follows from how far the models
    agree. Labels are the best path through the votes with one price for every change, so that
    bouts are as long as asked for. The certainty of a label is its share of the votes.

    Models of the AR stage on the same components label every session by their parameters, those
    that they were not fitted to included; of others, the published labels vote. Then dynamics,
    pose, heading, centroid and noise are sampled given these labels, and published as for a fit.

    Parameters
    ----------
    store : path or URL
    models : sequence of str
        Two or more, such as fits with other seeds.
    model : str
        Name of the new one.
    sessions : sequence of str, optional
        Names, patterns or ``coordinate=value`` (default: those that any of the models was fitted
        to).
    target_duration : float, optional
        Median bout in ms (default: the mean of those of the models).
    sweeps : int
        Gibbs iterations for the pose given the labels.
    budget : Budget, optional
    callbacks : sequence of callable
        Each is given the events of ``compute.events``.
    overwrite : bool
        When the model exists, publish a new version and make it current.

    Returns
    -------
    ConsensusSummary

    Raises
    ------
    InputError
        For fewer than two models, one that there is not, a name that is in use, or models without
        a session in common.
    """
    began = time.perf_counter()
    budget = budget or Budget()
    root = access.open_group(store, "r+")
    messages: list[str] = []
    notify = partial(_notify, callbacks, messages)
    names = [models] if isinstance(models, str) else list(models)
    check_sweeps("sweeps", sweeps)
    _check_models(store, names, model)
    members = [_member(store, name) for name in names]
    check_name(root, store, model, resume=False, overwrite=overwrite)
    by_parameters = [_shares_space(members[0], one) for one in members]
    chosen = _sessions(root, store, members, by_parameters, sessions, notify)
    with model_lock(root, store, model) as lock:
        target = target_duration or _mean_duration(store, names)
        config = _settings(members, chosen, sweeps)
        with limit_workers(store, budget.host_memory, is_strict=False):
            preparation = prepare(store, config, members[0], notify)
        plan = plan_of(preparation, config, budget, notify, None, len(members))
        with make_chain(preparation, config, plan, budget.scratch, len(members)) as chain:
            check_length(chain.index, store, notify)
            anew = replace(members[0], scale={})
            load(chain, preparation, config, anew, plan.tiles_in_flight)
            sweeper = make_sweeper(chain, config, pipeline_of(plan.tiles_in_flight, notify))
            labels = MemberLabels(chain)
            for place, member in enumerate(members):
                if by_parameters[place]:
                    labels.label(place, sweeper, member)
                else:
                    labels.take(place, PublishedLabels(store, names[place]))
                lock.renew()
            found = _agree(labels, target, notify)
            lock.renew()
            config = config.resolved(n_states=max(2, found.ballot.votes.n_syllables))
            progress = _sample_pose(chain, preparation, config, sweeper, members[0], lock.renew)
            certainty = VoteCertainty(labels, found.ballot.votes)
            extras = _extras(found, members, names, by_parameters, target, config.n_states)
            lock.renew()
            version = publish(
                root, model, chain=chain, progress=progress, preparation=preparation,
                config=config, fit_id="", labels=chain, certainty=certainty, notes=messages,
                extras=extras,
            )  # fmt: skip
            Checkpoints(root, store, model).discard()
            notify(Published(model, version))
            add_levels(root, model, version, notify)
            frames = count_labels(chain, config.n_states).frames
    published = open_labels(store, model, version)
    return ConsensusSummary(
        os.fspath(store),
        model,
        version,
        tuple(names),
        len(chosen),
        sum(session.n_frames for session in chosen),
        int((frames >= USED_FRACTION * max(1, frames.sum())).sum()),
        agreement.effective_number(frames),
        float(published.attrs["median_duration_overall"]),
        float(np.nansum(certainty.mean * frames) / max(1, frames.sum())),
        found.half_rand_index,
        found.half_matched_share,
        time.perf_counter() - began,
        tuple(messages),
    )


def _notify(callbacks: Sequence[Callback], messages: list[str], event: Event) -> None:
    if isinstance(event, Noted):
        messages.append(event.text)
    for callback in callbacks:
        callback(event)


# ------------------------------------------------------------------ which models, which sessions


def _check_models(store: StoreLike, names: Sequence[str], model: str) -> None:
    where = f"{os.fspath(store)}, `models=`"
    if len(names) < 2:
        raise InputError(
            expected="two models or more",
            found=listed(map(repr, names)) or "none",
            where=where,
            fix="name them: `models=['first', 'second']`; `kpms_zarr.fit(STORE, model=NAME, "
            "chains=8)` fits some and does this",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or model in names:
        raise InputError(
            expected="different models, and another name for the new one",
            found=f"{listed(map(repr, twice or [model]))} more than once",
            where=where,
            fix="name each once, and choose another `model=`",
        )


def _member(store: StoreLike, name: str) -> StartModel:
    """A model with the parameters behind its current labels."""
    current = StartModel.of(store, name)
    return StartModel.of(store, name, str(current.labels.attrs["parameters"]))


def _shares_space(one: StartModel, other: StartModel) -> bool:
    """Whether both label a latent pose by their parameters, and the same latent pose."""
    are_ar = one.stage == other.stage == "ar"
    same = one.settled == other.settled or {
        name: value for name, value in one.settled.items() if name != "n_states"
    } == {name: value for name, value in other.settled.items() if name != "n_states"}
    return (
        are_ar
        and same
        and one.loading.shape == other.loading.shape
        and np.array_equal(one.loading, other.loading)
        and np.array_equal(one.mean, other.mean)
    )


def _sessions(
    root: access.Group,
    store: StoreLike,
    members: Sequence[StartModel],
    by_parameters: Sequence[bool],
    selectors: Sequence[str] | None,
    notify: Callback,
) -> tuple[Session, ...]:
    found = select_sessions(root, selectors, "`sessions=`")
    if selectors is None:
        found = tuple(s for s in found if any(s.name in member.sessions for member in members))
    published = [m for m, by in zip(members, by_parameters, strict=True) if not by]
    common = tuple(s for s in found if all(s.name in member.sessions for member in published))
    if not common:
        raise InputError(
            expected="sessions that all of the models label",
            found="none",
            where=os.fspath(store),
            fix="label the same sessions with each: `kpms_zarr.apply(STORE, model=NAME)`",
        )
    if len(common) < len(found):
        left_out = [s.name for s in found if s not in common]
        sessions = counted(len(left_out), "session")
        notify(Noted(f"{sessions} that not all of the models label, left out: {listed(left_out)}"))
    return common


def _mean_duration(store: StoreLike, names: Sequence[str]) -> float:
    found = [float(open_labels(store, name).attrs["median_duration_overall"]) for name in names]
    return float(np.mean(found))


def _settings(members: Sequence[StartModel], sessions: Sequence[Session], sweeps: int) -> FitConfig:
    """Settings of the full stage on the components of the first model."""
    return settings_of_model(members[0], sessions).resolved(
        stage="full",
        n_states=max(len(member.parameters.usage) for member in members),
        sweeps=sweeps,
        kappa=members[0].kappa,
        target_duration=None,
        merge_sweeps=0,
        average_sweeps=1,
        certainty=True,
    )


# ------------------------------------------------------------------ what they agree on


@dataclass(frozen=True)
class _Agreement:
    """What members agree on.

    Attributes
    ----------
    ballot : Ballot
    jaccard : ndarray, (syllable,)
        Mean over the members of the best Jaccard index with one of their states.
    half_jaccard : ndarray, (syllable,)
        Jaccard index of the syllables that it matches best in the consensus of either half; NaN for
        fewer than four members.
    half_rand_index, half_matched_share : float
    half_effective_number : tuple of float
    """

    ballot: Ballot
    jaccard: np.ndarray
    half_jaccard: np.ndarray
    half_rand_index: float = float("nan")
    half_matched_share: float = float("nan")
    half_effective_number: tuple[float, float] = (float("nan"), float("nan"))


def _agree(labels: MemberLabels, target: float, notify: Callback) -> _Agreement:
    """Label a chain as its members agree, and find how far halves of them do; ``target``: ms."""
    chain = labels.chain
    patterns = labels.patterns()
    if patterns.n_dropped:
        share = patterns.n_dropped / max(1, chain.index.n_modelled.sum())
        notify(Noted(f"{share:.1%} of the frames, whose labels are rare, only count by the votes"))
    votes = vote(patterns)
    ballot = Ballot(votes, _price(labels, votes, target))
    ballot.label(labels)
    # By frequency, before anything else: between equal votes the lower number wins.
    frames = count_labels(chain, max(1, votes.n_syllables)).frames
    number = np.empty(len(frames), np.int64)
    number[np.argsort(-frames, kind="stable")] = np.arange(len(frames))
    votes = votes.renumbered(number)
    ballot = Ballot(votes, ballot.price)
    ballot.label(labels)
    places = np.arange(labels.n_members)
    n = votes.n_syllables
    tables = overlap_of(labels, partial(ballot.of_session, labels), places.tolist())
    own = np.mean([best_jaccard(table, n) for table in tables], axis=0)
    if labels.n_members < _LEAST_FOR_HALVES:
        return _Agreement(ballot, own, np.full(n, np.nan))
    halves = [Ballot(vote(patterns.only(places[i::2])), ballot.price) for i in range(2)]
    return _compare_halves(labels, ballot, halves, own)


def _compare_halves(
    labels: MemberLabels, ballot: Ballot, halves: list[Ballot], own: np.ndarray
) -> _Agreement:
    places, n = np.arange(labels.n_members), len(own)
    shape = [ballot.votes.n_syllables, *(half.votes.n_syllables for half in halves)]
    with_first, with_second = (np.zeros((n, m), np.int64) for m in shape[1:])
    between = np.zeros(shape[1:], np.int64)
    for row in np.flatnonzero(labels.chain.index.n_modelled > 0):
        z = ballot.of_session(labels, int(row))
        a, b = (half.of_session(labels, int(row), places[i::2]) for i, half in enumerate(halves))
        for total, one, two in ((with_first, z, a), (with_second, z, b), (between, a, b)):
            np.add.at(total, (one, two), 1)
    matched = agreement.match_syllables(between)
    first, second = (agreement.jaccard(t).argmax(1) for t in (with_first, with_second))
    return _Agreement(
        ballot,
        own,
        agreement.jaccard(between)[first, second],
        agreement.rand_index_of(between),
        agreement.matched_frames(between, matched) / max(1, int(between.sum())),
        (
            agreement.effective_number(between.sum(1)),
            agreement.effective_number(between.sum(0)),
        ),
    )


def _price(labels: MemberLabels, votes: Votes, target: float) -> float:
    """Price of a change of label at which the median bout is as long as asked for, in ms."""
    index = labels.chain.index
    rows = tuning_rows(labels.chain)

    def median_bout(price: float) -> float:
        ballot, lengths = Ballot(votes, price), []
        for row in rows:
            z = ballot.of_session(labels, int(row))
            ends = np.append(np.flatnonzero(np.diff(z)) + 1, len(z))
            lengths.append(np.diff(np.append(0, ends)) * 1000 / index.sessions[row].fps)
        return float(np.median(np.concatenate(lengths)))

    return price_for(median_bout, target)


# ------------------------------------------------------------------ the generative model


def _sample_pose(
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    sweeper: Sweeper,
    start: StartModel,
    after_sweep: Any,
) -> ChainProgress:
    """Sample dynamics, pose, heading, centroid and noise given the labels of a chain."""
    view = chain.only(np.ones(len(chain.index.sessions), bool))
    view.draws = None  # they hold the labels of the members
    sweeper = make_sweeper(view, config, sweeper.pipeline)
    prior = stages_of(config, view)[0].prior
    parameters = parameters_of_labels(sweeper, config.seed, prior)
    noise = noise_by_keypoint(config, None, view)
    progress = ChainProgress(0, start.n_sweeps, parameters, noise, None)

    def go_on() -> bool:
        after_sweep()
        return True

    run(
        sweeper, preparation, config, progress, lambda event: None, holds_labels=True,
        after_sweep=go_on,
    )  # fmt: skip
    return progress


def _extras(
    found: _Agreement,
    members: Sequence[StartModel],
    names: Sequence[str],
    by_parameters: Sequence[bool],
    target: float,
    n_states: int,
) -> Extras:
    """What a consensus has that a fit has not."""
    versions = [member.version for member in members]

    def by_state(values: np.ndarray) -> np.ndarray:
        return np.append(values, np.full(n_states - len(values), np.nan))

    return Extras(
        action="consensus",
        settings={
            "models": [f"{name}@{version}" for name, version in zip(names, versions, strict=True)],
            "target_duration": target,
        },
        attrs={"change_price": found.ballot.price},
        by_frame=("second_syllable", "second_certainty"),
        parameters={
            "member": np.asarray(names, dtype=object),
            "member_version": np.asarray(versions, dtype=object),
            "member_is_applied": np.asarray(by_parameters, dtype=np.int16),
            "member_syllable": found.ballot.votes.syllable,
        },
        statistics={
            "replicability": by_state(found.half_jaccard),
            "member_agreement": by_state(found.jaccard),
            "half_rand_index": found.half_rand_index,
            "half_matched_share": found.half_matched_share,
            "half_effective_number": float(np.mean(found.half_effective_number)),
        },
    )
