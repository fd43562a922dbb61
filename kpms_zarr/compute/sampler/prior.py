"""Draw the parameters given what a sweep has left, on the host (model.md 3.2, 3.3, 3.7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, draw_dynamics, draw_prior_dynamics
from kpms_zarr.compute.kernels.dynamics import log_prior as log_prior_dynamics
from kpms_zarr.compute.kernels.evidence import log_evidence, merge_states
from kpms_zarr.compute.kernels.noise import draw_noise_variance
from kpms_zarr.compute.kernels.noise import log_prior as log_prior_noise_variance
from kpms_zarr.compute.kernels.transitions import (
    TransitionPrior,
    draw_prior_transitions,
    draw_transitions,
)
from kpms_zarr.compute.kernels.transitions import log_prior as log_prior_transitions
from kpms_zarr.compute.sampler.tile_model import Parameters, SweepSums

MERGE_KAPPA = 100.0
"""Stickiness at which merges are judged, at most. At one that gives bouts of 400 ms every switch
that a merge takes away is worth 13 nat, so that states are merged for being brief; measured on nine
mice, an effective number of 3.6 then, and of 4.6 with this (docs/replicability.md)."""


class NoisePrior(NamedTuple):
    """Prior of the global noise variances.

    Attributes
    ----------
    scale, dof : float
        Of a scaled inverse chi-squared distribution.
    is_shared : bool
        Whether there is one for all keypoints.
    """

    scale: float
    dof: float
    is_shared: bool
    n_space: int


@dataclass(frozen=True, kw_only=True)
class ParameterPrior:
    """Priors of everything that a sweep is conditioned on (model.md 2).

    Attributes
    ----------
    noise : NoisePrior or None
        None = the noise variances stay as they are.
    """

    dynamics: DynamicsPrior
    transition: TransitionPrior
    noise: NoisePrior | None = None

    def with_kappa(self, kappa: float) -> ParameterPrior:
        """Priors with another stickiness."""
        return replace(self, transition=self.transition._replace(kappa=kappa))

    def first(self, seed: int, n_states: int) -> Parameters:
        """Draw parameters from the prior."""
        dynamics = draw_prior_dynamics(
            rng.host_generator(seed, 0, rng.DYNAMICS), n_states, self.dynamics
        )
        of_transitions = rng.host_generator(seed, 0, rng.TRANSITION)
        return Parameters(
            dynamics, *draw_prior_transitions(of_transitions, n_states, self.transition)
        )

    def draw(
        self,
        seed: int,
        number: int,
        *,
        moments: np.ndarray,
        transitions: np.ndarray,
        weight_bias: np.ndarray,
        usage: np.ndarray,
    ) -> Parameters:
        """Draw the parameters of sweep ``number`` given the state that the one before left.

        Parameters
        ----------
        moments : ndarray, (state, pair)
            Of residuals under ``weight_bias``.
        transitions : ndarray, (state, state)
            Counts.
        weight_bias : ndarray, (state, latent, lag * latent + 1)
        usage : ndarray, (state,)
        """
        dynamics = draw_dynamics(
            rng.host_generator(seed, number, rng.DYNAMICS), moments, weight_bias, self.dynamics
        )
        of_transitions = rng.host_generator(seed, number, rng.TRANSITION)
        return Parameters(
            dynamics, *draw_transitions(of_transitions, transitions, usage, self.transition)
        )

    def draw_noise_variance(
        self, seed: int, number: int, sums: SweepSums, current: np.ndarray
    ) -> np.ndarray:
        """Draw the global noise variances, (keypoint,), when they are sampled and there are sums.

        Parameters
        ----------
        current : ndarray, (keypoint,)
        """
        square, count = sums.noise_square, sums.noise_count
        if self.noise is None or not count.size:
            return current
        if self.noise.is_shared:
            square, count = square.sum(keepdims=True), count.sum(keepdims=True)
        generator = rng.host_generator(seed, number, rng.NOISE_VARIANCE)
        drawn = draw_noise_variance(
            generator, square, count,
            scale=self.noise.scale, dof=self.noise.dof, n_space=self.noise.n_space,
        )  # fmt: skip
        return np.broadcast_to(drawn, current.shape).copy()

    def log_evidence(
        self, moments: np.ndarray, transitions: np.ndarray, weight_bias: np.ndarray
    ) -> float:
        """Log p(x, z | kappa and the other hyperparameters), in nat (model.md 3.9).

        Without the first ``lags`` frames of the sessions and their first labels; parameters as in
        :meth:`draw`.
        """
        return sum(log_evidence(moments, weight_bias, transitions, self.dynamics, self.transition))

    def merge(
        self, moments: np.ndarray, transitions: np.ndarray, weight_bias: np.ndarray
    ) -> np.ndarray:
        """State that each becomes when pairs are merged while evidence grows: (state,)."""
        kappa = min(self.transition.kappa, MERGE_KAPPA)
        transition = self.transition._replace(kappa=kappa)
        return merge_states(moments, weight_bias, transitions, self.dynamics, transition)

    def log_density(self, parameters: Parameters, noise_variance: np.ndarray | None) -> float:
        """Log density of all parameters that are sampled."""
        total = log_prior_dynamics(parameters.dynamics, self.dynamics)
        total += log_prior_transitions(parameters.usage, parameters.transition, self.transition)
        return total + self.log_density_of_noise(noise_variance)

    def log_density_of_noise(self, noise_variance: np.ndarray | None) -> float:
        """Log density of the global noise variances, (keypoint,); 0 where they are not sampled."""
        if self.noise is None or noise_variance is None:
            return 0.0
        variance = noise_variance[:1] if self.noise.is_shared else noise_variance
        return log_prior_noise_variance(variance, scale=self.noise.scale, dof=self.noise.dof)
