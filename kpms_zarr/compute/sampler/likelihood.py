"""Log likelihood of whole sessions given parameters, their labels summed out (model.md 3.10)."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import jax
import numpy as np

from kpms_zarr.compute.kernels.hmm import HmmTables, window
from kpms_zarr.compute.kernels.likelihood import predictive_log_likelihood, tables_of_first
from kpms_zarr.compute.sampler.certainty import (
    SegmentList,
    cut_in_order,
    first_of_each,
    groups,
)
from kpms_zarr.compute.sampler.segments import Task, Tile, tiles
from kpms_zarr.compute.sampler.stream import gather_latent, pad, run_tasks
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters, on_device, tables_of

_TOLERANCE = 1e-4
"""What a segment was given may differ by this factor in any state from what the segment before it
says in the end: its log likelihood then differs by no more than this, in nat."""

_PASSES_AT_ONCE = 8
_ROWS = 1024


@partial(jax.jit, static_argnames=("lags",))
def likelihood_of_tile(
    tables: HmmTables,
    scored: HmmTables | None,
    x: jax.Array,
    before: jax.Array,
    *,
    lags: int,
) -> tuple[jax.Array, jax.Array]:
    """Log likelihood of the frames of a tile, and what its segments tell the next ones.

    Parameters
    ----------
    x : (segment, lag + frame, latent)
    before : (segment, state)

    Returns
    -------
    gained : (segment, frame)
    predicted : (segment, state)
    """
    windows = window(x.transpose(1, 2, 0), lags)
    gained, predicted = predictive_log_likelihood(tables, scored, windows, before.T)
    return gained.T, predicted.T


def session_log_likelihoods(
    sweeper: Sweeper, parameters: Parameters, *, n_scored: int | None = None, first_frame: int = 0
) -> np.ndarray:
    """Log p(x | parameters) of each session given its first ``lags`` frames, in nat.

    Sessions are cut into segments, all of which run side by side, each given what the one before it
    said in the pass before (at first nothing is known); those for which that has changed run again,
    until nothing changes: the result of the uncut session. Some million frames are worked on at a
    time, however long sessions are.

    Parameters
    ----------
    sweeper : Sweeper
        Of a chain with the latent pose of the sessions, which is only read; its labels are not.
    parameters : Parameters
    n_scored : int, optional
        Density of so many of the first latent dims given the past of all of them, so that models
        of several numbers of dims can be compared (default: of all dims).
    first_frame : int
        Frames before it are not counted, so that models of several numbers of lags can be compared.

    Returns
    -------
    ndarray, (session,) float64
        0 of a session that has no such frames.
    """
    of_all = on_device(tables_of(parameters), sweeper.dtype)
    of_some = None
    if n_scored is not None and n_scored < sweeper.chain.n_latent:
        tables = tables_of_first(parameters.dynamics, parameters.transition, n_scored)
        of_some = on_device(tables, sweeper.dtype)
    job = _ForwardPasses(sweeper, of_all, of_some, first_frame)
    found = np.zeros(len(sweeper.chain.index.sessions))
    for rows in groups(sweeper.chain.index, sweeper.shape):
        segments = cut_in_order(sweeper.chain.index, rows, sweeper.shape.n_frames)
        np.add.at(found, segments.tile.session, job.settle(segments))
    return found


class _ForwardPasses:
    """Log likelihoods of segments, in passes over those whose past has changed."""

    def __init__(
        self, sweeper: Sweeper, of_all: HmmTables, of_some: HmmTables | None, first_frame: int
    ) -> None:
        self._sweeper, self._tables, self._first = sweeper, (of_all, of_some), first_frame

    def settle(self, segments: SegmentList) -> np.ndarray:
        """Run segments until no border changes; returns (segment,) in nat."""
        n, n_states = len(segments.tile.length), self._sweeper.n_states
        gained = np.zeros(n)
        before = np.full((n, n_states), 1 / n_states, self._sweeper.dtype)
        predicted = before.copy()
        is_open, n_passes = np.ones(n, bool), 0
        while is_open.any():
            which = np.flatnonzero(is_open)
            self._run(segments, which, before, predicted, gained)
            is_open = _differs(before, predicted, segments.is_first)
            n_passes += 1
            if n_passes >= _PASSES_AT_ONCE:
                # Where the past matters for long, one after the other: the fewest in all.
                is_open = first_of_each(is_open, segments.is_first)
            which = np.flatnonzero(is_open)
            before[which] = predicted[which - 1]
        return gained

    def _run(
        self,
        segments: SegmentList,
        which: np.ndarray,
        before: np.ndarray,
        predicted: np.ndarray,
        gained: np.ndarray,
    ) -> None:
        """Run some segments once; fills their rows of ``predicted`` and ``gained``."""
        sweeper, every = self._sweeper, segments.tile
        chosen = Tile(every.session[which], every.start[which], every.length[which])
        tasks = [Task(False, tile, 0) for tile in tiles(chosen, sweeper.shape)]

        def update(task: Task) -> tuple[np.ndarray, np.ndarray]:
            found = likelihood_of_tile(
                *self._tables,
                gather_latent(sweeper.chain, task.tile, sweeper.shape),
                pad(before[segments.rows(task.tile)], sweeper.shape, 1),
                lags=sweeper.chain.index.lags,
            )
            of_frames, following = jax.block_until_ready(found)
            return self._sums(task.tile, np.asarray(of_frames, np.float64)), np.asarray(following)

        is_double = sweeper.dtype == np.float64
        results = run_tasks(update, tasks, sweeper.pipeline, is_double=is_double)
        with closing(results):
            for task, (sums, following) in results:
                rows = segments.rows(task.tile)
                gained[rows] = sums
                predicted[rows] = following[: len(rows)]

    def _sums(self, tile: Tile, of_frames: np.ndarray) -> np.ndarray:
        """Sum over the frames of each segment that count: (segment,)."""
        frames = np.arange(of_frames.shape[1])
        counts = frames < tile.length[:, None]
        counts &= tile.start[:, None] + frames >= self._first
        return np.where(counts, of_frames[: len(tile.length)], 0).sum(1)


def _differs(before: np.ndarray, predicted: np.ndarray, is_first: np.ndarray) -> np.ndarray:
    """Mask of the segments that the one before them now tells something else: (segment,)."""
    found = np.zeros(len(before), bool)
    rights = np.flatnonzero(~is_first)
    for start in range(0, len(rights), _ROWS):
        right = rights[start : start + _ROWS]
        now = predicted[right - 1]
        found[right] = (np.abs(before[right] - now) > _TOLERANCE * now).any(1)
    return found
