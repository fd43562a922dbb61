"""Labels on which several models agree: each gives its own, each has one vote a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kpms_zarr.compute.analysis.agreement import contingency, jaccard
from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.analysis.partition import Votes
from kpms_zarr.compute.analysis.patterns import Patterns, patterns_of_blocks
from kpms_zarr.compute.analysis.smoothing import BLOCK_FRAMES, best_path, scores_of
from kpms_zarr.compute.events import ResourcePlan
from kpms_zarr.compute.runs.preparation import load, make_chain, prepare, settings_of_model
from kpms_zarr.compute.runs.stages import make_sweeper
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.certainty import BestLabels, CertaintyCounts, in_steps
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain
from kpms_zarr.compute.sampler.draws import LabelDraws
from kpms_zarr.compute.sampler.prior import ParameterPrior
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK

_TUNING_FRAMES = 300_000
"""Of the sessions by which the price of a change is found."""


@dataclass(frozen=True)
class MemberLabels:
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

    @property
    def n_members(self) -> int:
        """Members whose labels are there."""
        return self._draws.n_kept

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

    def merged(
        self, place: int, sweeper: Sweeper, member: StartModel, prior: ParameterPrior
    ) -> np.ndarray:
        """State that each state of a member becomes when evidence merges them: (state,).

        The labels of the chain are those of the member afterwards.
        """
        chain, which = self.chain, np.array([place])
        for start in range(0, chain.index.n_frames, LABEL_FRAMES_PER_CHUNK):
            stop = min(start + LABEL_FRAMES_PER_CHUNK, chain.index.n_frames)
            chain.syllable[start:stop] = self._draws.read(start, stop, which)[:, 0]
        n_states = len(member.parameters.usage)
        reference = np.broadcast_to(prior.dynamics.mean, (n_states, *prior.dynamics.mean.shape))
        moments, counts = replace(sweeper, n_states=n_states).measure(reference)
        return prior.merge(moments, counts.transitions, reference)

    def of_chain(self, row: int) -> np.ndarray:
        """Labels of the chain of the modelled frames of a session: (frame,) int16."""
        index = self.chain.index
        first, stop = int(index.first[row]), int(index.first[row] + index.length[row])
        return np.array(self.chain.syllable[first + index.lags : stop])

    def patterns(self) -> Patterns:
        """Patterns of the labels of all modelled frames."""
        rows = np.flatnonzero(self.chain.index.n_modelled > 0)
        return patterns_of_blocks(block for row in rows for block in self.blocks(int(row)))

    def blocks(self, row: int, members: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Labels of the modelled frames of a session, (frame, member), block by block."""
        index = self.chain.index
        first, stop = int(index.first[row]), int(index.first[row] + index.length[row])
        for start in range(first + index.lags, stop, BLOCK_FRAMES):
            yield self._draws.read(start, min(start + BLOCK_FRAMES, stop), members)


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


@dataclass(frozen=True)
class Ballot:
    """How the labels of members become those that are published.

    Attributes
    ----------
    votes : Votes
    price : float
        Of a change of label, in nat.
    """

    votes: Votes
    price: float

    def of_session(
        self, labels: MemberLabels, row: int, members: np.ndarray | None = None
    ) -> np.ndarray:
        """Labels of the modelled frames of a session, (frame,) int16.

        ``members``: to which of them the rows of the votes belong (default: all).
        """
        scores = (scores_of(self.votes.shares(block)) for block in labels.blocks(row, members))
        return best_path(scores, self.price)

    def label(self, labels: MemberLabels, members: np.ndarray | None = None) -> None:
        """Give every modelled frame of the chain its label; ``members``: as above."""
        chain = labels.chain
        for row in np.flatnonzero(chain.index.n_modelled > 0):
            begin = int(chain.index.first[row]) + chain.index.lags
            found = self.of_session(labels, int(row), members)
            for start in range(0, len(found), LABEL_FRAMES_PER_CHUNK):
                part = found[start : start + LABEL_FRAMES_PER_CHUNK]
                chain.syllable[begin + start : begin + start + len(part)] = part


def tuning_rows(chain: Chain) -> np.ndarray:
    """Sessions by which the price of a change is found: evenly over all, as many as are needed."""
    n_frames = chain.index.n_modelled
    rows = np.flatnonzero(n_frames > 0)
    order = np.random.default_rng(0).permutation(rows)
    taken = np.cumsum(n_frames[order]) - n_frames[order] < _TUNING_FRAMES
    return np.sort(order[taken])


class VoteCertainty(CertaintyCounts):
    """Share of the votes that the label of a frame has, and the next one; session after session.

    Calibrated by as many members as there are: that another ensemble gives the frame a matching
    label is as probable (docs/replicability.md).

    Parameters
    ----------
    labels : MemberLabels
        Of a chain whose labels are those of the ballot.
    votes : Votes
    members : ndarray, optional
        To which of them the rows of the votes belong (default: all).
    """

    def __init__(
        self, labels: MemberLabels, votes: Votes, members: np.ndarray | None = None
    ) -> None:
        super().__init__(max(2, votes.n_syllables))
        self._labels, self._votes, self._members = labels, votes, members

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield what is published of each session: arrays (frame,) by name."""
        chain = self._labels.chain
        index = chain.index
        for row, (first, length) in enumerate(zip(index.first, index.length, strict=True)):
            certainty = np.full(int(length), np.nan, np.float16)
            second = np.full(int(length), NO_STATE, np.int16)
            second_certainty = np.full(int(length), np.nan, np.float16)
            done = index.lags
            for block in self._labels.blocks(row, self._members):
                some = slice(done, done + len(block))
                label = np.asarray(chain.syllable[int(first) + done : int(first) + some.stop])
                done = some.stop
                found = _choices(self._votes.shares(block), label)
                certainty[some], second[some], second_certainty[some] = found
            yield {
                "certainty": certainty,
                "second_syllable": second,
                "second_certainty": second_certainty,
            }


def _choices(share: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of the label, the most voted other one, and its share; none where nobody votes."""
    frame = np.arange(len(label))
    of_label = share[frame, label]
    rest = share.copy()
    rest[frame, label] = 0
    second = rest.argmax(1)
    of_second = rest[frame, second]
    has_votes = share.any(1)
    return (
        np.where(has_votes, in_steps(of_label), np.float16(np.nan)),
        np.where(of_second > 0, second, NO_STATE).astype(np.int16),
        np.where(has_votes, in_steps(of_second), np.float16(np.nan)),
    )


def overlap_of(labels: MemberLabels, members: np.ndarray) -> list[np.ndarray]:
    """Frames by label of the chain and by state of each member: (label, state) int64 each."""
    tables = [np.zeros((0, 0), np.int64) for _ in members]
    for row in np.flatnonzero(labels.chain.index.n_modelled > 0):
        found, done = labels.of_chain(int(row)), 0
        for block in labels.blocks(int(row), members):
            own = found[done : done + len(block)]
            done += len(block)
            tables = [
                _sum(table, contingency(own, states))
                for table, states in zip(tables, block.T, strict=True)
            ]
    return tables


def best_jaccard(table: np.ndarray, n: int) -> np.ndarray:
    """Largest Jaccard index of each of ``n`` labels with any of the columns: (label,)."""
    found = np.zeros(n)
    if table.size:
        found[: len(table)] = jaccard(table).max(1)
    return found


def _sum(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    total = np.zeros(np.maximum(one.shape, two.shape), np.int64)
    for table in (one, two):
        total[tuple(slice(n) for n in table.shape)] += table
    return total
