"""Labels that the models of an ensemble give to the sessions of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.events import ResourcePlan
from kpms_zarr.compute.runs.ballots import MemberVotes
from kpms_zarr.compute.runs.preparation import load, make_chain, prepare, settings_of_model
from kpms_zarr.compute.runs.stages import make_sweeper
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.ar_model import no_moments
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.certainty import BestLabels
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, Sized
from kpms_zarr.compute.sampler.draws import LabelDraws
from kpms_zarr.compute.sampler.prior import ParameterPrior
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK


@dataclass(frozen=True)
class MemberLabels(MemberVotes):
    """Labels that the members of an ensemble give to the sessions of a chain.

    They lie where the draws of the chain do, a byte for each frame and member.

    Attributes
    ----------
    chain : Chain
        With room for as many draws as there are members.
    """

    chain: Chain

    @property
    def _draws(self) -> LabelDraws:
        draws = self.chain.draws
        assert draws is not None
        return draws

    def read(self, start: int, stop: int, members: np.ndarray | None = None) -> np.ndarray:
        """Read labels: (frame, member) int16."""
        return self._draws.read(start, stop, members)

    def label(self, place: int, sweeper: Sweeper, member: StartModel) -> None:
        """Label all sessions with a member: the most probable label of each frame.

        Parameters
        ----------
        place : int
            Of the member.
        sweeper : Sweeper
            Of a chain of the same sessions, whose latent pose is in the space of the member.
        """
        first = self.chain.index.first
        of_member = replace(sweeper, n_states=len(member.parameters.usage))
        for row, labels in BestLabels(of_member, member.parameters).of_sessions():
            self._draws.put(place, int(first[row]), labels)

    def take(self, place: int, labels: PublishedLabels) -> None:
        """Take the published labels of a member; sessions that it lacks have none."""
        index, rows = self.chain.index, {s.name: s.index for s in labels.sessions}
        for session, first in zip(index.sessions, index.first, strict=True):
            for start in range(0, session.n_frames, LABEL_FRAMES_PER_CHUNK):
                stop = min(start + LABEL_FRAMES_PER_CHUNK, session.n_frames)
                found = np.full(stop - start, NO_STATE, np.int16)
                if session.name in rows:
                    found = labels.syllable(rows[session.name], start, stop)
                found[: max(0, index.lags - start)] = NO_STATE
                self._draws.put(place, int(first) + start, found)

    def measure(
        self, place: int, sweeper: Sweeper, member: StartModel, prior: ParameterPrior
    ) -> MemberMoments:
        """Measure what the labels of a member say of its states.

        The labels of the chain are those of the member afterwards.
        """
        chain, which = self.chain, np.array([place])
        for start in range(0, chain.index.n_frames, LABEL_FRAMES_PER_CHUNK):
            stop = min(start + LABEL_FRAMES_PER_CHUNK, chain.index.n_frames)
            chain.syllable[start:stop] = self._draws.read(start, stop, which)[:, 0]
        n_states = len(member.parameters.usage)
        of_member = replace(sweeper, n_states=n_states)
        by_shard = dict(of_member.measure_by_shard(_reference(prior, n_states)))
        return MemberMoments(by_shard, count_labels(chain, n_states).transitions)


@dataclass(frozen=True)
class MemberMoments:
    """Moments of the labels that a member gives to some sessions, and changes between them.

    Attributes
    ----------
    by_shard : dict of int to ndarray, (state, pair)
        Of each shard.
    transitions : ndarray, (state, state)
    """

    by_shard: dict[int, np.ndarray]
    transitions: np.ndarray

    def plus(self, other: MemberMoments) -> MemberMoments:
        """Add those of other shards."""
        by_shard = {**self.by_shard, **other.by_shard}
        return MemberMoments(by_shard, self.transitions + other.transitions)

    def merged(self, chain: Sized, prior: ParameterPrior) -> np.ndarray:
        """State that each becomes when evidence merges them: (state,); ``chain``: of all shards."""
        n_states = len(self.transitions)
        in_order = [self.by_shard[shard] for shard in sorted(self.by_shard)]
        moments = reduce(np.add, in_order, no_moments(chain, n_states))
        return prior.merge(moments, self.transitions, _reference(prior, n_states))


def _reference(prior: ParameterPrior, n_states: int) -> np.ndarray:
    """Dynamics under which moments are taken: (state, ...)."""
    return np.broadcast_to(prior.dynamics.mean, (n_states, *prior.dynamics.mean.shape))


@dataclass(frozen=True)
class MemberLabeller:
    """Labels of sessions by the parameters of members, each on its own components.

    Attributes
    ----------
    store : path or URL
    labels : MemberLabels
        Where they go.
    sweeper : Sweeper
        Of the chain of these, as it was loaded.
    space : StartModel
        Model of the AR stage whose latent pose that is.
    plan : ResourcePlan
        Of the chain.
    scratch : path, optional
    shape : TileShape, optional
        Of all tiles (default: the one that follows from the sessions).
    """

    store: StoreLike
    labels: MemberLabels
    sweeper: Sweeper
    space: StartModel
    plan: ResourcePlan
    scratch: str | None
    shape: TileShape | None = None

    def label(self, place: int, member: StartModel) -> None:
        """Label all sessions with the member at that place."""
        if shares_space(self.space, member):
            self.labels.label(place, self.sweeper, member)
            return
        sessions = self.labels.chain.index.sessions
        config = settings_of_model(member, sorted(sessions, key=lambda one: one.index))
        preparation = prepare(self.store, config, member, lambda event: None)
        with make_chain(preparation, config, self.plan, self.scratch) as chain:
            anew = replace(member, scale={})
            load(chain, preparation, config, anew, self.plan.tiles_in_flight)
            sweeper = make_sweeper(chain, config, self.sweeper.pipeline, self.shape)
            self.labels.label(place, sweeper, member)


def bytes_of_another_space(space: StartModel, members: Sequence[StartModel]) -> int:
    """Bytes of a frame in the chain of a member that has another latent pose; 0 without one.

    For the plan, to which labels of a member are a byte of a frame each.
    """
    others = [one for one in members if one.stage == "ar" and not shares_space(space, one)]
    itemsize = 8 if any(one.settings.get("precision") == "float64" for one in others) else 4
    return max(
        (itemsize * (len(one.loading) + one.mean.shape[1] + 1) + 2 for one in others), default=0
    )


def shares_space(one: StartModel, other: StartModel) -> bool:
    """Whether both label a latent pose by their parameters, and the same latent pose.

    Models of other sessions may have other units: scores on components are the same in any.
    """
    if not one.stage == other.stage == "ar":
        return False
    settled = [{**model.settled, "n_states": 0} for model in (one, other)]
    if settled[0] != settled[1] or one.loading.shape != other.loading.shape:
        return False
    if one.settled.get("scale") == "session":
        return np.array_equal(one.loading, other.loading) and np.array_equal(one.mean, other.mean)
    units = [next(iter(model.scale.values())) for model in (one, other)]
    pairs = ((one.loading, other.loading), (one.mean, other.mean))
    return all(np.allclose(a * units[0], b * units[1], rtol=1e-6) for a, b in pairs)
