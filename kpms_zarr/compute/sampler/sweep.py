"""One Gibbs sweep of the AR stage: a map over tiles and a small reduction on the host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.ar import feature_pairs, tile_moments
from kpms_zarr.compute.kernels.dynamics import Dynamics, log_density
from kpms_zarr.compute.kernels.hmm import (
    TRANSITION_FLOOR,
    HmmTables,
    filter_forward,
    hmm_tables,
    sample_backward,
    window,
)
from kpms_zarr.compute.sampler.bouts import LabelCounts, count_labels
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.segments import FRAMES_PER_TILE, Task, Tile, TileShape, schedule
from kpms_zarr.compute.sampler.stream import (
    Flight,
    gather_labels,
    gather_latent,
    neighbours,
    pad,
    run_tasks,
    scatter_labels,
)


class Parameters(NamedTuple):
    """Everything a sweep is conditioned on.

    Attributes
    ----------
    dynamics : Dynamics
    usage : (state,)
        Global weights beta.
    transition : (state, state)
        pi.
    """

    dynamics: Dynamics
    usage: np.ndarray
    transition: np.ndarray


class NoiseSums(NamedTuple):
    """What the global noise variances need.

    Attributes
    ----------
    square : (keypoint,)
        Sum of |e|^2 / s over the frames in which the keypoint is observed.
    n_observed : (keypoint,)
        Number of these frames.
    """

    square: np.ndarray
    n_observed: np.ndarray


Watch = Callable[[Tile, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class SweepResult:
    """What one sweep leaves behind for the next draw of the parameters.

    Attributes
    ----------
    moments : ndarray, (state, pair)
        Of residuals under the parameters of the sweep.
    counts : LabelCounts
    terms : dict of str to float
        Log probability of each part given what it depends on, nat per modelled frame.
    noise : NoiseSums or None
        Of the full stage.
    """

    moments: np.ndarray
    counts: LabelCounts
    terms: dict[str, float]
    noise: NoiseSums | None = None

    @property
    def log_likelihood(self) -> float:
        """Log probability of all but the parameters, given these, nat per frame."""
        return sum(value for name, value in self.terms.items() if name != "parameters")


@partial(jax.jit, static_argnames=("lags", "n_frames"))
def sample_tile(
    tables: HmmTables,
    weight_bias: jax.Array,
    x: jax.Array,
    left: jax.Array,
    right: jax.Array,
    length: jax.Array,
    words: jax.Array,
    first_frame: jax.Array,
    seed_words: jax.Array,
    sweep: jax.Array,
    *,
    lags: int,
    n_frames: int,
) -> tuple[jax.Array, jax.Array]:
    """Draw the labels of a tile and add up its moments.

    Parameters
    ----------
    x : (segment, lag + frame, latent)

    Returns
    -------
    z : (segment, frame) int16
    moments : (state, pair)
    """
    x = x.transpose(1, 2, 0)
    keys = rng.stream_keys(seed_words, sweep, rng.SYLLABLE, words)
    u = rng.frame_uniforms(keys, first_frame, n_frames, x.dtype)
    filtered = filter_forward(tables, window(x, lags), left)
    z = sample_backward(tables, filtered, right, length, u)
    is_real = jnp.arange(n_frames)[:, None] < length
    return z.astype(jnp.int16).T, tile_moments(x, z, is_real, weight_bias, lags)


@partial(jax.jit, static_argnames=("lags",))
def moments_of_tile(
    weight_bias: jax.Array, x: jax.Array, z: jax.Array, length: jax.Array, *, lags: int
) -> jax.Array:
    """Moments of a tile with given labels: x (segment, lag + frame, latent), z (segment, frame)."""
    is_real = jnp.arange(z.shape[1])[:, None] < length
    return tile_moments(x.transpose(1, 2, 0), z.T, is_real, weight_bias, lags)


class Sampler:
    """Runs sweeps over a chain.

    Parameters
    ----------
    chain : Chain
    n_states : int
    segment_frames : int
    flight : Flight
        Shared with the samplers of other stages.
    seed : int
    precision : str
        ``"float32"`` or ``"float64"``.
    tile_frames : int
        Most frames of a tile, about.
    shape : TileShape, optional
        In place of what follows from the sessions.

    Attributes
    ----------
    shape : TileShape
    is_timed : bool
        Whether somebody has been told how long a sweep takes.
    watch : callable or None
        Is given each tile with its labels before and after, (segment, frame); from several threads.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        n_states: int,
        segment_frames: int,
        flight: Flight,
        seed: int,
        precision: str,
        tile_frames: int = FRAMES_PER_TILE,
        shape: TileShape | None = None,
    ) -> None:
        self.chain = chain
        self.n_states = n_states
        self.flight = flight
        self.segment_frames, self.tile_frames = segment_frames, tile_frames
        self.seed = seed
        self.dtype = np.dtype(precision)
        self.shape = shape or TileShape.of(chain.index, segment_frames, tile_frames)
        self.watch: Watch | None = None
        self.is_timed = False

    @property
    def _is_double(self) -> bool:
        return self.dtype == np.float64

    def sweep(self, parameters: Parameters, number: int) -> SweepResult:
        """Draw all labels once, even segments first, then odd ones given the even."""
        return self._result(parameters, self.draw(parameters, number))

    def draw(self, parameters: Parameters, number: int) -> np.ndarray:
        """Draw all labels once; returns the moments."""
        shared = self._on_device((tables_of(parameters), parameters.dynamics.weight_bias))
        return self._sum(partial(self._update, shared=shared, number=number), number)

    def measure(self, weight_bias: np.ndarray) -> tuple[np.ndarray, LabelCounts]:
        """Moments (under ``weight_bias``) and counts of the labels as they are."""
        shared = self._on_device(weight_bias)
        moments = self._sum(partial(self._measure, weight_bias=shared), 0)
        return moments, count_labels(self.chain, self.n_states)

    def tasks(self, number: int) -> list[Task]:
        """The tiles of a sweep in the order of their start."""
        return schedule(self.chain.index, self.shape, self.seed, number, self.flight.n)

    def _sum(self, update: Callable[[Task], np.ndarray], number: int) -> np.ndarray:
        """Sum over the tiles of a sweep, the same to the bit whatever is under way with what."""
        total = [self._no_moments(), self._no_moments()]
        tasks = self.tasks(number)
        with closing(run_tasks(update, tasks, self.flight, is_double=self._is_double)) as parts:
            for task, part in parts:
                total[task.is_odd] += part
        return total[0] + total[1]

    def _on_device(self, values: Any) -> Any:
        return on_device(values, self.dtype)

    @property
    def seed_words(self) -> np.ndarray:
        """The seed as two 32-bit words."""
        return np.array([self.seed >> 32, self.seed & 0xFFFFFFFF], np.uint32)

    def _no_moments(self) -> np.ndarray:
        rows, _ = feature_pairs(self.chain.n_latent, self.chain.index.lags)
        return np.zeros((self.n_states, len(rows)))

    def _update(
        self, task: Task, *, shared: tuple[HmmTables, jax.Array], number: int
    ) -> np.ndarray:
        tile = task.tile
        given = self.ar_input(tile)
        before = gather_labels(self.chain, tile, self.shape) if self.watch else None
        with self.flight.meter.busy():
            z, moments = jax.block_until_ready(
                sample_tile(
                    *shared,
                    *given,
                    self.seed_words,
                    np.int32(number),
                    lags=self.chain.index.lags,
                    n_frames=self.shape.n_frames,
                )
            )
        sums = np.asarray(moments, np.float64)
        if self.watch:
            self.watch(tile, np.asarray(before), np.asarray(z))
        scatter_labels(self.chain, tile, z)
        return sums

    def ar_input(self, tile: Tile) -> tuple[Any, ...]:
        """What :func:`sample_tile` is given of a tile."""
        shape = self.shape
        left, right = neighbours(self.chain, tile, self.n_states)
        return (
            gather_latent(self.chain, tile, shape),
            pad(left, shape, self.n_states),
            pad(right, shape, self.n_states),
            pad(tile.length.astype(np.int32), shape, 0),
            pad(self.chain.index.words[tile.session], shape, 0),
            pad(tile.start.astype(np.int32), shape, 0),
        )

    def _measure(self, task: Task, *, weight_bias: jax.Array) -> np.ndarray:
        chain, shape, tile = self.chain, self.shape, task.tile
        moments = moments_of_tile(
            weight_bias,
            gather_latent(chain, tile, shape),
            gather_labels(chain, tile, shape),
            pad(tile.length.astype(np.int32), shape, 0),
            lags=chain.index.lags,
        )
        return np.asarray(moments, np.float64)

    def _result(self, parameters: Parameters, moments: np.ndarray) -> SweepResult:
        counts = count_labels(self.chain, self.n_states)
        return SweepResult(moments, counts, self._terms(parameters, moments, counts))

    def _terms(
        self, parameters: Parameters, moments: np.ndarray, counts: LabelCounts
    ) -> dict[str, float]:
        """Log probability of labels and latent pose, nat per modelled frame."""
        of_latent = log_density(moments, parameters.dynamics)
        floored = np.maximum(parameters.transition, TRANSITION_FLOOR)
        of_labels = float((counts.transitions * np.log(floored)).sum())
        n_chains = int((self.chain.index.n_modelled > 0).sum())
        of_labels -= n_chains * np.log(self.n_states)
        return {
            "syllable": float(of_labels / self.n_modelled),
            "latent": float(of_latent / self.n_modelled),
        }

    @property
    def n_modelled(self) -> int:
        """Frames with a label, at least 1."""
        return max(1, int(self.chain.index.n_modelled.sum()))


def tables_of(parameters: Parameters) -> HmmTables:
    """Tables of the syllable kernel."""
    return hmm_tables(
        parameters.dynamics.weight_bias[..., :-1],
        parameters.dynamics.weight_bias[..., -1],
        parameters.dynamics.covariance,
        parameters.transition,
    )


def on_device(values: Any, dtype: np.dtype) -> Any:
    """Arrays in one precision on the device."""
    with jax.enable_x64(dtype == np.float64):
        return jax.device_put(jax.tree.map(lambda a: np.asarray(a, dtype), values))
