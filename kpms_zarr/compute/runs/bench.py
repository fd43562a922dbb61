"""Loaded sessions over which the chains of a scan run one after the other, and their figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from kpms_zarr.compute.analysis.agreement import effective_number
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Event, TimePredicted
from kpms_zarr.compute.runs.choosing import ChosenSessions
from kpms_zarr.compute.runs.preparation import Preparation, load, make_chain, plan_of
from kpms_zarr.compute.runs.publish import Numbered
from kpms_zarr.compute.runs.stages import make_sweeper, pipeline_of
from kpms_zarr.compute.sampler.bouts import LabelCounts
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.draws import DrawSchedule
from kpms_zarr.compute.sampler.likelihood import session_log_likelihoods
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.store.core.blocks import Block

_DRAWS = 5
"""Draws of the parameters over which the held-out likelihood is averaged."""
_SETTLED_SHARE = 0.4
"""Of the sweeps, the last, from which these are taken: kappa is no longer adapted then."""


@dataclass(frozen=True)
class Counted:
    """What the likelihoods of all points of a scan are of.

    Attributes
    ----------
    n_scored : int or None
        So many of the first latent dims; None = all.
    first_frame : int
        Frames of every session from this one on.
    """

    n_scored: int | None
    first_frame: int

    def n_frames(self, chain: Chain) -> np.ndarray:
        """Frames of each session that count: (session,)."""
        return np.maximum(0, chain.index.length - self.first_frame)

    def of(self, sweeper: Sweeper, parameters: Parameters) -> np.ndarray:
        """Log p(x | parameters) of each session, labels summed out, in nat: (session,)."""
        return session_log_likelihoods(
            sweeper, parameters, n_scored=self.n_scored, first_frame=self.first_frame
        )


@dataclass
class Bench:
    """Chain over loaded sessions that one run after the other uses anew; one shape of tiles.

    Attributes
    ----------
    sweeper : Sweeper
        Of the chain.
    held_out : Sweeper or None
        Of a chain with the sessions that are held out, of which only the pose is used.
    is_fresh : bool
        Whether the latent pose is that of the data.
    timed : set of str
        Stages whose time was predicted.
    """

    preparation: Preparation
    sweeper: Sweeper
    held_out: Sweeper | None
    n_in_flight: int
    counted: Counted
    is_fresh: bool = True
    timed: set[str] = field(default_factory=set)

    def begin(self, config: FitConfig) -> Sweeper:
        """Bring the chain to where it begins; returns its sweeper."""
        chain = self.sweeper.chain
        if not self.is_fresh:
            part = replace(self.preparation, sessions=chain.index.sessions)
            load(chain, part, config, None, self.n_in_flight)
        if chain.draws is not None:
            chain.draws.n_kept = 0
        self.is_fresh = config.stage == "ar"  # which draws labels alone
        return replace(self.sweeper, seed=config.seed)

    def likelihoods(self, last: Parameters, kept: Sequence[Parameters]) -> dict[str, Any]:
        """Likelihoods of the AR stage, by their names in the store.

        Of the sessions of the chain given the ``last`` parameters; of those held out, averaged over
        the ``kept`` ones.
        """
        found: dict[str, Any] = {"expected_marginal_likelihood": self.per_frame(last)}
        if self.held_out is None:
            return found
        draws = np.stack([self.counted.of(self.held_out, one) for one in kept])
        by_session = logsumexp(draws, axis=0) - np.log(len(draws))
        n_frames = self.counted.n_frames(self.held_out.chain)
        found["held_out_log_likelihood"] = float(by_session.sum()) / max(1, int(n_frames.sum()))
        found["held_out_by_session"] = by_session / np.maximum(1, n_frames)
        return found

    def per_frame(self, parameters: Parameters) -> float:
        """Log p(x of the chain | parameters), labels summed out, nat per frame."""
        n_frames = self.counted.n_frames(self.sweeper.chain).sum()
        return float(self.counted.of(self.sweeper, parameters).sum()) / max(1, int(n_frames))

    def put_latent(self, block: Block, latent: np.ndarray) -> None:
        """Give some frames of a session, by its row, another latent pose (frame, latent)."""
        chain = self.sweeper.chain
        first = int(chain.index.first[block.session])
        frames = slice(first + block.start, first + block.stop)
        local = np.array(chain.local[frames])
        local[:, chain.columns["latent"]] = latent
        chain.local[frames] = local
        self.is_fresh = False

    def pass_on(self, notify: Callback) -> Callback:
        """Make the callback of a chain: the predicted time of a sweep is passed on once."""

        def found(event: Event) -> None:
            if isinstance(event, TimePredicted):
                if event.stage in self.timed:
                    return
                self.timed.add(event.stage)
            notify(event)

        return found


@contextmanager
def opened_bench(
    chosen: ChosenSessions,
    preparation: Preparation,
    config: FitConfig,
    budget: Budget,
    counted: Counted,
    notify: Callback,
) -> Iterator[Bench]:
    """Load the sessions of a scan within a budget, as a fit does; they are freed behind it."""
    plan = plan_of(preparation, config, budget, notify)
    with ExitStack() as stack:
        chains: list[Chain] = []
        for sessions in (chosen.sampled, chosen.held_out):
            if not sessions:
                continue
            part = replace(preparation, sessions=sessions)
            n_draws = 0 if chains else DrawSchedule.of(config).n_draws
            chains.append(
                stack.enter_context(make_chain(part, config, plan, budget.scratch, n_draws))
            )
            load(chains[-1], part, config, None, plan.tiles_in_flight)
        pipeline = pipeline_of(plan.tiles_in_flight, notify)
        sweeper = make_sweeper(chains[0], config, pipeline)
        held_out = replace(sweeper, chain=chains[1]) if len(chains) > 1 else None
        yield Bench(preparation, sweeper, held_out, plan.tiles_in_flight, counted)


def kept_sweeps(config: FitConfig) -> set[int]:
    """Sweeps after which parameters are kept, spread evenly over the last; the last one is."""
    n = config.all_sweeps
    first = n - int(_SETTLED_SHARE * config.last_sweeps)
    return {round(one) for one in np.linspace(n, first, _DRAWS, endpoint=False)}


def chain_figures(
    counts: LabelCounts, progress: ChainProgress, config: FitConfig
) -> dict[str, Any]:
    """Figures of the labels of a chain, and of its trace, by their names in the store."""
    evidence = np.asarray(progress.trace.log_evidence[-config.n_averaged :])
    return {
        "median_duration": counts.median_duration * 1000 / counts.fps,
        "n_used": counts.n_used,
        "effective_number": effective_number(counts.frames),
        "final_kappa": progress.trace.kappa[-1],
        "log_evidence": float(evidence.mean()) if config.stage == "ar" else np.nan,
    }


def rows_of(
    chain: Chain, numbered: Numbered, has_latent: bool, row: int, start: int, stop: int
) -> dict[str, np.ndarray]:
    """Some frames of a session as the store keeps them of a chain."""
    first = int(chain.index.first[row])
    frames = slice(first + start, first + stop)
    found = {"syllable": numbered[frames]}
    if has_latent:
        found["latent"] = np.asarray(chain.local[frames])[:, chain.columns["latent"]]
    return found
