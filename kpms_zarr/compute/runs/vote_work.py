"""Sessions labelled by all members of a consensus: in this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.compute.cluster.jobs import run_jobs
from kpms_zarr.compute.cluster.worker import Leash, on_own_threads, share_of_worker
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import ResourcePlan
from kpms_zarr.compute.runs.bundle import bundles_of, names_of
from kpms_zarr.compute.runs.plan import chain_index, tile_shape
from kpms_zarr.compute.runs.preparation import Preparation, load, make_chain, plan_of
from kpms_zarr.compute.runs.stages import make_sweeper, stages_of
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.voting import (
    MemberLabeller,
    MemberLabels,
    MemberMoments,
    bytes_of_another_space,
)
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.draws import draw_dtype
from kpms_zarr.compute.sampler.prior import ParameterPrior
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.wording import counted

_PARTS_A_WORKER = 4


def prior_of(config: FitConfig, sweeper: Sweeper) -> ParameterPrior:
    """Prior of the states that members have, in the AR stage."""
    return stages_of(config.resolved(stage="ar"), sweeper.chain)[0].prior


def label_by_members(
    store: StoreLike,
    members: Sequence[StartModel],
    sweeper: Sweeper,
    prior: ParameterPrior,
    plan: ResourcePlan,
    scratch: str | None,
    after_member: Callable[[], None] = lambda: None,
) -> list[MemberMoments]:
    """Label the sessions of a chain with all members, and measure what these say of their states.

    Models of the AR stage label by their parameters; of others, the published labels are taken.

    Parameters
    ----------
    sweeper : Sweeper
        Of the chain, which has room for as many draws as there are members and the latent pose of
        the first.
    plan : ResourcePlan
        Of the chain.
    after_member : callable
        Is called after each.
    """
    labels, found = MemberLabels(sweeper.chain), []
    labeller = MemberLabeller(store, labels, sweeper, members[0], plan, scratch)
    for place, member in enumerate(members):
        if member.stage == "ar":
            labeller.label(place, member)
        else:
            labels.take(place, PublishedLabels(store, member.name))
        found.append(labels.measure(place, sweeper, member, prior))
        after_member()
    return found


# ------------------------------------------------------------------ on the workers of a cluster


@dataclass(frozen=True)
class VoteWork:
    """Work: label some sessions with all members.

    Attributes
    ----------
    names, versions : tuple of str
        Of the members, and of their labels.
    preparation : Preparation
        Of all sessions, in the space of the first member.
    shard_frames : int
        Of a shard, as the client has it.
    """

    store: str
    names: tuple[str, ...]
    versions: tuple[str, ...]
    preparation: Preparation
    config: FitConfig
    shard_frames: int


@dataclass(frozen=True)
class MemberPart:
    """Labels that the members give to some sessions.

    Attributes
    ----------
    labels : dict of str to ndarray, (frame, member)
        By session; -1 = none.
    moments : list of MemberMoments
        Of each member.
    """

    labels: dict[str, np.ndarray]
    moments: list[MemberMoments]


def label_by_members_on(
    crew: Crew, work: VoteWork, sweeper: Sweeper, on_poll: Callable[[], None]
) -> list[MemberMoments]:
    """Have the workers of a cluster label the sessions of a chain; see :func:`label_by_members`.

    What each finds is sent back and laid where the draws of the chain are.
    """
    chain = sweeper.chain
    index, draws = chain.index, chain.draws
    assert draws is not None
    n_parts = _PARTS_A_WORKER * len(crew.workers())
    parts = [
        names_of(index.sessions, which) for which in bundles_of(index.shard, index.length, n_parts)
    ]
    names = [f"part {i + 1} of {counted(len(parts), 'part')} to vote on" for i in range(len(parts))]
    first = {s.name: int(f) for s, f in zip(index.sessions, index.first, strict=True)}
    moments: list[list[MemberMoments]] = []

    def on_done(job: int, part: MemberPart) -> None:
        for session, labels in part.labels.items():
            for place, column in enumerate(labels.T):
                draws.put(place, first[session], column)
        moments.append(part.moments)

    there = replace(work, store=access.absolute(work.store))
    arguments = [(there, part) for part in parts]
    # Not kept: labels of all sessions would take as much memory again.
    run_jobs(crew, names, label_part, arguments, keep=False, on_poll=on_poll, on_done=on_done)
    total = moments[0]
    for more in moments[1:]:
        total = [one.plus(two) for one, two in zip(total, more, strict=True)]
    return total


def label_part(work: VoteWork, sessions: tuple[str, ...], leash: str) -> MemberPart:
    """Label some sessions on a worker, which are all of some shards."""
    is_pulled = Leash(leash).is_pulled

    def check() -> None:
        if is_pulled():
            raise RuntimeError("nobody waits for these labels any more")

    check()
    config = work.config.resolved(stage="ar")
    n_threads, budget = share_of_worker()
    with on_own_threads():
        members = [
            StartModel.of(work.store, name, version)
            for name, version in zip(work.names, work.versions, strict=True)
        ]
        every = chain_index(work.preparation.sessions, config, work.shard_frames)
        names, shape = set(sessions), tile_shape(every, config)
        index = every.alone(np.array([session.name in names for session in every.sessions]))
        preparation = replace(work.preparation, sessions=index.sessions)
        n_bytes = len(members) + bytes_of_another_space(members[0], members)
        plan = plan_of(preparation, config, budget, lambda event: None, shape, n_bytes, index)
        with make_chain(
            preparation, config, plan, budget.scratch, len(members), index=index
        ) as chain:
            start = replace(members[0], scale={})
            load(chain, preparation, config, start, plan.tiles_in_flight)
            pipeline = Pipeline(min(n_threads, plan.tiles_in_flight))
            sweeper = make_sweeper(chain, config, pipeline, shape)
            moments = label_by_members(
                work.store, members, sweeper, prior_of(config, sweeper), plan, budget.scratch,
                check,
            )  # fmt: skip
            return MemberPart(_labels_of(chain, draw_dtype(config.n_states)), moments)


def _labels_of(chain: Chain, dtype: str) -> dict[str, np.ndarray]:
    """Labels that lie where the draws of a chain do, (frame, member), by session."""
    index, draws = chain.index, chain.draws
    assert draws is not None
    rows = zip(index.sessions, index.first, index.length, strict=True)
    return {
        session.name: draws.read(int(first), int(first + length)).astype(dtype)
        for session, first, length in rows
    }
