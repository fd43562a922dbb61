"""Labels of sessions with fixed parameters: by sweeps from several starts, or by votes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis.partition import Votes
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted, ResourcePlan, SessionsSettled
from kpms_zarr.compute.runs.ballots import Ballot, VoteCertainty
from kpms_zarr.compute.runs.preparation import Preparation, load
from kpms_zarr.compute.runs.publish import certainty_of, published_labels
from kpms_zarr.compute.runs.stages import make_sweeper, model_of, noise_by_keypoint, pipeline_of
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.voting import MemberLabeller, MemberLabels
from kpms_zarr.compute.sampler.bouts import Labelled
from kpms_zarr.compute.sampler.certainty import PublishedCertainty
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.draws import AveragedLabels
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.sampler.warm import ANNEAL_SWEEPS, WARM_SWEEPS, annealed, warm_start
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.locking import Lock
from kpms_zarr.store.wording import listed

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


def fixed_shape(config: FitConfig) -> TileShape:
    """One shape of tiles for any sessions, so that none can change the result of another."""
    assert config.tile_frames is not None
    lanes = max(8, config.tile_frames // config.segment_frames // 8 * 8)
    return TileShape(lanes, config.segment_frames)


@dataclass(frozen=True)
class Voters:
    """Members of a consensus, and what labelling with them takes.

    Attributes
    ----------
    members : sequence of StartModel
        Empty for any other model.
    """

    store: StoreLike
    members: Sequence[StartModel]
    plan: ResourcePlan
    scratch: str | None


def labelling_of(
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    fitted: StartModel,
    n_in_flight: int,
    notify: Callback,
    lock: Lock,
    voters: Voters,
) -> SessionLabelling:
    """Make the run that labels sessions: by votes where there are members, else by draws."""
    if voters.members:
        return VotedLabelling(chain, preparation, config, fitted, n_in_flight, notify, lock, voters)
    return SessionLabelling(chain, preparation, config, fitted, n_in_flight, notify, lock)


class SessionLabelling:
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
            self.notify(Noted(still_open(rest, max_sweeps, least)))
        if is_open.any() and draws is not None:
            low = [f"{names[row]} {self.agreement[row]:.0%}" for row in np.flatnonzero(is_open)]
            self.notify(
                Noted(
                    f"labels from {MOST_STARTS} independent starts still differ: averages of half "
                    f"of them agree in these shares of the frames: {listed(low)}; the certainty "
                    "of the labels says where"
                )
            )

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
            one, two = (of_session(labels, row) for labels in halves)
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
        return of_session(self.labels, row)


class VotedLabelling(SessionLabelling):
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
        voters: Voters,
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

    def certainty(self) -> PublishedCertainty:
        """Share of the votes."""
        return VoteCertainty(self._labels_of, self._ballot.votes)


def of_session(labels: Labelled, row: Any) -> np.ndarray:
    index = labels.index
    first, length = int(index.first[row]), int(index.length[row])
    return np.array(labels.syllable[first + index.lags : first + length])


def still_open(names: Sequence[str], max_sweeps: int, least: int) -> str:
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
