"""Sweeps that draw all but the labels, as of a consensus: in this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.runs.commit import (
    ChainRows,
    Committer,
    read_progress,
    restore,
    source_hashes,
)
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.runs.stages import (
    make_sweeper,
    noise_by_keypoint,
    parameters_of_labels,
    run,
    stages_of,
)
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeps
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.model.checkpoints import Checkpoint, Checkpoints

_SAVE_EVERY = 25


@dataclass(frozen=True)
class PoseSampling:
    """Sampling of dynamics, pose, heading, centroid and noise given the labels of a chain.

    Attributes
    ----------
    chain : Chain
        Its draws are left alone.
    n_before : int
        Sweeps before the first, so that no two share random numbers.
    after_sweep : callable
        Is called after every sweep.
    """

    chain: Chain
    preparation: Preparation
    config: FitConfig
    pipeline: Pipeline
    n_before: int
    after_sweep: Callable[[], None]

    def here(self) -> ChainProgress:
        """Run all sweeps in this process; the chain has the pose afterwards."""
        view, progress = self._begun()
        sweeper = make_sweeper(view, self.config, self.pipeline)
        self._run(sweeper, progress, self.after_sweep)
        return progress

    def on_workers(self, crew: Crew, store: StoreLike, model: str) -> ChainProgress:
        """Run all sweeps on a cluster, to the same bits, and read the pose back.

        The progress of the model holds what is committed meanwhile, which no fit goes on with.

        Raises
        ------
        ClusterLost
            When scheduler or workers are gone for good.
        """
        from kpms_zarr.compute.runs.remote import RemoteSweeper  # which alone needs distributed

        view, progress = self._begun()
        root = access.open_group(store, "r+")
        checkpoints = Checkpoints(root, store, model)
        checkpoints.begin("consensus")
        try:
            committer = Committer(
                checkpoints=checkpoints, rows=ChainRows(root, view, self.config.n_states),
                preparation=self.preparation, config=self.config, hashes=source_hashes(root),
                every=_SAVE_EVERY, notes=[], from_version=None,
            )  # fmt: skip
            committer.commit(progress)
            first = _current(checkpoints)
            sweeper = RemoteSweeper(
                crew, store, model, checkpoints.fit_id, self.preparation, self.config, first
            )
            committer = replace(committer, rows=sweeper)

            def after_sweep() -> None:
                self.after_sweep()
                if committer.is_due(progress):
                    committer.commit(progress)

            try:
                progress = read_progress(first, sweeper.count())
                self._run(sweeper, progress, after_sweep)
                committer.commit(progress)
            finally:
                sweeper.close()
            return restore(view, _current(checkpoints), self.config)
        finally:
            checkpoints.discard()

    def _begun(self) -> tuple[Chain, ChainProgress]:
        """The chain without its draws, and the first parameters given its labels."""
        view = self.chain.only(np.ones(len(self.chain.index.sessions), bool))
        view.draws = None
        sweeper = make_sweeper(view, self.config, self.pipeline)
        prior = stages_of(self.config, view)[0].prior
        parameters = parameters_of_labels(sweeper, self.config.seed, prior)
        noise = noise_by_keypoint(self.config, None, view)
        return view, ChainProgress(0, self.n_before, parameters, noise, None)

    def _run(
        self, sweeper: Sweeps, progress: ChainProgress, after_sweep: Callable[[], None]
    ) -> None:
        def go_on() -> bool:
            after_sweep()
            return True

        run(
            sweeper, self.preparation, self.config, progress, lambda event: None,
            holds_labels=True, after_sweep=go_on,
        )  # fmt: skip


def _current(checkpoints: Checkpoints) -> Checkpoint:
    found = checkpoints.current()
    assert found is not None
    return found
