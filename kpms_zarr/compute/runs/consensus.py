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
from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Noted, Published, tell
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.agreeing import MemberAgreement, agree
from kpms_zarr.compute.runs.ballots import VoteCertainty
from kpms_zarr.compute.runs.fit import check_name, note
from kpms_zarr.compute.runs.plan import shard_frames_of
from kpms_zarr.compute.runs.pose_sweeps import PoseSampling
from kpms_zarr.compute.runs.preparation import (
    check_length,
    load,
    make_chain,
    plan_of,
    prepare,
    settings_of_model,
)
from kpms_zarr.compute.runs.publish import Extras, add_levels, publish
from kpms_zarr.compute.runs.stages import (
    make_sweeper,
    pipeline_of,
)
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.vote_work import (
    VoteWork,
    label_by_members,
    label_by_members_on,
    prior_of,
)
from kpms_zarr.compute.runs.voting import MemberLabels, bytes_of_another_space
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.chain import NO_STATE
from kpms_zarr.compute.settings import check_sweeps
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.checkpoints import Checkpoints
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import counted, listed

POSE_SWEEPS = 50
"""Of the full stage, labels held: pose, heading, centroid and noise of every frame."""


@dataclass(frozen=True)
class ConsensusSummary(ShownAsTable):
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
    n_families : int
        Groups of syllables, coarser and steadier.
    half_family_rand_index : float
        The same index of the families.
    session_rand_index, session_matched_share : float
        Agreement of members that were fitted to one half of the sessions with members that were
        fitted to the other; NaN where there are none.
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
    n_families: int
    half_family_rand_index: float
    session_rand_index: float
    session_matched_share: float
    seconds: float
    notes: tuple[str, ...]


def consensus(
    store: StoreLike,
    *,
    models: Sequence[str],
    model: str,
    sessions: Sequence[str] | None = None,
    session_halves: tuple[Sequence[str], Sequence[str]] | None = None,
    target_duration: float | None = None,
    sweeps: int = POSE_SWEEPS,
    budget: Budget | None = None,
    cluster: ClusterLike = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
) -> ConsensusSummary:
    """Make one model of several, and publish the labels on which they agree.

    Each of the models has one vote for the label of a frame. Which of their states are one
    syllable is the partition of least expected variation of information (see
    :mod:`kpms_zarr.compute.analysis.partition`); how many there are follows from how far the models
    agree. Labels are the best path through the votes with one price for every change, so that
    bouts are as long as asked for. The certainty of a label is its share of the votes.

    Models of the AR stage label every session by their parameters, those that they were not fitted
    to included; of others, the published labels vote. Then dynamics, pose, heading, centroid and
    noise are sampled given these labels, on the components of the first model, and published as for
    a fit.

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
    session_halves : tuple of two sequences of str, optional
        Models of the AR stage that were fitted to one half of the sessions, and to the other: how
        far the consensus of these labels all sessions as that of those is published as
        ``session_replicability``. They have no vote.
    target_duration : float, optional
        Median bout in ms (default: the mean of those of the models).
    sweeps : int
        Gibbs iterations for the pose given the labels.
    budget : Budget, optional
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster, as of :func:`kpms_zarr.fit`, on which members label sessions and
        the pose is sampled, to the same bits.
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
    with connected(cluster, partial(note, callbacks)) as crew:
        return make_consensus(
            store, models=models, model=model, sessions=sessions, session_halves=session_halves,
            target_duration=target_duration, sweeps=sweeps, budget=budget, callbacks=callbacks,
            overwrite=overwrite, crew=crew,
        )  # fmt: skip


def make_consensus(
    store: StoreLike,
    *,
    models: Sequence[str],
    model: str,
    sessions: Sequence[str] | None = None,
    session_halves: tuple[Sequence[str], Sequence[str]] | None = None,
    target_duration: float | None = None,
    sweeps: int = POSE_SWEEPS,
    budget: Budget | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    crew: Crew | None = None,
) -> ConsensusSummary:
    """Make one model of several; see :func:`consensus`.

    Parameters
    ----------
    crew : Crew, optional
        Workers that label and sample the pose (default: this process).
    """
    began = time.perf_counter()
    budget = budget or Budget()
    root = access.open_group(store, "r+")
    messages: list[str] = []
    notify = partial(tell, callbacks, messages)
    names = [models] if isinstance(models, str) else list(models)
    check_sweeps("sweeps", sweeps)
    _check_models(store, names, model)
    halves = [list(half) for half in session_halves or ()]
    every = [_member(store, name) for name in (*names, *(n for half in halves for n in half))]
    members = every[: len(names)]
    check_name(root, store, model, resume=False, overwrite=overwrite)
    by_parameters = [member.stage == "ar" for member in every]
    _check_halves(store, halves, by_parameters[len(names) :])
    ends = np.cumsum([len(names), *map(len, halves)])
    groups = [np.arange(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    chosen = _sessions(root, store, every, by_parameters, sessions, notify)
    with model_lock(root, store, model) as lock:
        target = target_duration or _mean_duration(store, names)
        config = _settings(every, chosen, sweeps)
        with limit_workers(store, budget.host_memory, is_strict=False):
            preparation = prepare(store, config, members[0], notify)
        n_bytes = len(every) + bytes_of_another_space(members[0], every)
        plan = plan_of(preparation, config, budget, notify, None, n_bytes)
        with make_chain(preparation, config, plan, budget.scratch, len(every)) as chain:
            check_length(chain.index, store, notify)
            anew = replace(members[0], scale={})
            load(chain, preparation, config, anew, plan.tiles_in_flight)
            sweeper = make_sweeper(chain, config, pipeline_of(plan.tiles_in_flight, notify))
            prior = prior_of(config, sweeper)
            if crew is None:
                moments = label_by_members(
                    store, every, sweeper, prior, plan, budget.scratch, lock.renew
                )
            else:
                versions = tuple(member.version for member in every)
                voters = tuple(member.name for member in every)
                work = VoteWork(
                    os.fspath(store), voters, versions, preparation, config,
                    shard_frames_of(config),
                )  # fmt: skip
                moments = label_by_members_on(crew, work, sweeper, lock.renew)
            merged = [one.merged(chain, prior) for one in moments]
            labels = MemberLabels(chain)
            found = agree(labels, merged, groups, target, notify)
            lock.renew()
            config = config.resolved(n_states=max(2, found.ballot.votes.n_syllables))
            sampling = PoseSampling(
                chain, preparation, config, sweeper.pipeline, members[0].n_sweeps, lock.renew
            )
            progress = sampling.here() if crew is None else sampling.on_workers(crew, store, model)
            certainty = VoteCertainty(labels, found.ballot.votes, groups[0])
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
    published, nan = open_labels(store, model, version), float("nan")
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
        found.of_members.rand_index,
        found.of_members.matched_share,
        int(_family(found).max(initial=-1)) + 1,
        found.of_members.family_rand_index,
        nan if found.of_sessions is None else found.of_sessions.rand_index,
        nan if found.of_sessions is None else found.of_sessions.matched_share,
        time.perf_counter() - began,
        tuple(messages),
    )


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


def _check_halves(
    store: StoreLike, halves: Sequence[Sequence[str]], by_parameters: Sequence[bool]
) -> None:
    if halves and (len(halves) != 2 or not all(halves) or not all(by_parameters)):
        raise InputError(
            expected="two lists of models of the AR stage",
            found=listed([repr(name) for half in halves for name in half]) or "none",
            where=f"{os.fspath(store)}, `session_halves=`",
            fix="`kpms_zarr.fit(STORE, model=NAME, chains=8, halves=True)` fits such models",
        )


def _member(store: StoreLike, name: str) -> StartModel:
    """A model with the parameters behind its current labels."""
    current = StartModel.of(store, name)
    return StartModel.of(store, name, str(current.labels.attrs["parameters"]))


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


# ------------------------------------------------------------------ what is published


def _extras(
    found: MemberAgreement,
    members: Sequence[StartModel],
    names: Sequence[str],
    by_parameters: Sequence[bool],
    target: float,
    n_states: int,
) -> Extras:
    """What a consensus has that a fit has not."""
    versions, family = [member.version for member in members], _family(found)

    def by_state(values: np.ndarray) -> np.ndarray:
        return np.append(values, np.full(n_states - len(values), np.nan))

    by_sessions: dict[str, Any] = {}
    if found.of_sessions is not None:
        by_sessions = {
            "session_replicability": by_state(found.of_sessions.jaccard),
            **found.of_sessions.to_attrs("session_half", "family_session_half"),
        }
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
            "member_is_applied": np.asarray(by_parameters[: len(names)], dtype=np.int16),
            "member_syllable": found.ballot.votes.syllable,
        },
        statistics={
            "family": np.append(family, np.full(n_states - len(family), NO_STATE)),
            "replicability": by_state(found.of_members.jaccard),
            "member_agreement": by_state(found.jaccard),
            **found.of_members.to_attrs("half", "family_half"),
            **by_sessions,
        },
    )


def _family(found: MemberAgreement) -> np.ndarray:
    """Family of each syllable of a consensus of models: (syllable,) int16."""
    assert found.family is not None
    return found.family
