"""The sweeps of a fit: the AR stage, the full stage, or one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.events import Event, Noted, SweepEnded
from kpms_zarr.compute.full_sweep import FullSampler, Observation
from kpms_zarr.compute.full_tile import FixedSettings
from kpms_zarr.compute.initialize import label_by_clusters
from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.dynamics import (
    DynamicsPrior,
    draw_dynamics,
    draw_prior_dynamics,
    prior_mean,
)
from kpms_zarr.compute.kernels.dynamics import log_prior as log_prior_dynamics
from kpms_zarr.compute.kernels.noise import draw_noise_variance
from kpms_zarr.compute.kernels.noise import log_prior as log_prior_noise_variance
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.kernels.transitions import (
    TransitionPrior,
    draw_prior_transitions,
    draw_transitions,
)
from kpms_zarr.compute.kernels.transitions import log_prior as log_prior_transitions
from kpms_zarr.compute.preparation import Preparation, first_noise_variance
from kpms_zarr.compute.start_model import StartModel
from kpms_zarr.compute.stickiness import KappaSchedule
from kpms_zarr.compute.sweep import Parameters, Sampler, SweepResult
from kpms_zarr.compute.trace import Outcome, Trace

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Stage:
    """One stage of a fit.

    Attributes
    ----------
    name : str
        ``"ar"`` or ``"full"``.
    sweeps : int
    kappa : float
        At the start.
    """

    name: str
    sweeps: int
    kappa: float


def stages_of(config: FitConfig) -> tuple[Stage, ...]:
    """The stages of a fit, in order."""
    last = Stage("ar" if config.stage == "ar" else "full", config.last_sweeps, config.last_kappa)
    if config.stage == "both":
        return (Stage("ar", config.ar_sweeps, config.ar_kappa), last)
    return (last,)


def run(
    sampler: Sampler,
    preparation: Preparation,
    config: FitConfig,
    start: StartModel | None,
    tell: Tell,
) -> Outcome:
    """Run all sweeps of all stages over a loaded chain.

    Sweeps are numbered through, also over the models that a fit goes on from, so that no two of
    them share random numbers.
    """
    stages = stages_of(config)
    parameters, result = _begin(sampler, config, stages[0], start)
    trace = Trace()
    outcome = Outcome(parameters, None, trace)
    n_sweeps = sum(stage.sweeps for stage in stages)
    done = 0
    before = start.n_sweeps if start else 0
    for stage in stages:
        kappa = KappaSchedule(stage.kappa, stage.sweeps, config.target_duration)
        active = sampler if stage.name == "ar" else _full(sampler, preparation, config, start)
        if isinstance(active, FullSampler):
            outcome.noise_variance = active.observation.noise_variance
        for step in range(stage.sweeps):
            began = time.perf_counter()
            number = before + done
            if result is not None:
                # The schedule answers to sweeps of its own stage only.
                if step:
                    kappa.update(result.counts)
                parameters = _next_parameters(config, parameters, result, kappa.value, number)
                _update_noise(active, config, result, number)
            try:
                result = active.sweep(parameters, number)
            except SamplingError as error:
                if not done:
                    raise
                outcome.failure = error
                return outcome
            done += 1
            outcome.parameters = parameters
            if isinstance(active, FullSampler):
                outcome.noise_variance = active.observation.noise_variance
            result.terms["parameters"] = (
                _log_prior(active, config, parameters, kappa.value) / active.n_modelled
            )
            trace.append(stage.name, result, kappa.value, time.perf_counter() - began)
            tell(_ended(stage, done, n_sweeps, trace, result))
        _note_repeats(active, tell)
    return outcome


def _log_prior(active: Sampler, config: FitConfig, parameters: Parameters, kappa: float) -> float:
    """Log density of all parameters under their priors."""
    sticky = TransitionPrior(config.alpha, config.gamma, kappa)
    prior = _dynamics_prior(config, active.chain.n_latent)
    total = log_prior_dynamics(parameters.dynamics, prior)
    total += log_prior_transitions(parameters.usage, parameters.transition, sticky)
    if isinstance(active, FullSampler) and config.sample_noise_variance != "none":
        variance = active.observation.noise_variance
        variance = variance[:1] if config.sample_noise_variance == "shared" else variance
        of_noise = log_prior_noise_variance(
            variance, scale=config.noise_variance, dof=config.noise_variance_dof
        )
        total += of_noise
    return total


def _ended(
    stage: Stage, number: int, n_sweeps: int, trace: Trace, result: SweepResult
) -> SweepEnded:
    return SweepEnded(
        number,
        n_sweeps,
        trace.seconds[-1],
        result.log_likelihood,
        trace.median_duration[-1] * 1000 / result.counts.fps,
        trace.n_used[-1],
        trace.kappa[-1],
        stage.name,
    )


def _note_repeats(active: Sampler, tell: Tell) -> None:
    if isinstance(active, FullSampler) and active.n_repeated:
        text = (
            f"{active.n_repeated} tiles were computed again in float64, because float32 had lost "
            "too many digits; --precision float64 does so for all"
        )
        tell(Noted(text))


# ------------------------------------------------------------------ where the chain begins


def _begin(
    sampler: Sampler, config: FitConfig, stage: Stage, start: StartModel | None
) -> tuple[Parameters, SweepResult | None]:
    """First parameters; with a model to go on from, also the statistics of its state."""
    if start is not None:
        moments, counts = sampler.measure(start.parameters.dynamics.weight_bias)
        return start.parameters, SweepResult(moments, counts, {})
    return _first_parameters(sampler, config, stage.kappa), None


def _dynamics_prior(config: FitConfig, n_latent: int) -> DynamicsPrior:
    return DynamicsPrior(
        prior_mean(n_latent, config.lags),
        config.weight_scale,
        config.innovation_scale,
        n_latent + config.innovation_dof,
    )


def _first_parameters(sampler: Sampler, config: FitConfig, kappa: float) -> Parameters:
    n_latent = sampler.chain.n_latent
    prior = _dynamics_prior(config, n_latent)
    sticky = TransitionPrior(config.alpha, config.gamma, kappa)
    of_transitions = rng.host_generator(config.seed, 0, rng.TRANSITION)
    of_dynamics = rng.host_generator(config.seed, 0, rng.DYNAMICS)
    if config.init == "prior":
        dynamics = draw_prior_dynamics(of_dynamics, config.n_states, prior)
        usage, transition = draw_prior_transitions(of_transitions, config.n_states, sticky)
        return Parameters(dynamics, usage, transition)
    label_by_clusters(sampler.chain, config.n_states, config.seed)
    mean = np.broadcast_to(prior.mean, (config.n_states, *prior.mean.shape))
    moments, counts = sampler.measure(mean)
    dynamics = draw_dynamics(of_dynamics, moments, mean, prior)
    even = np.full(config.n_states, 1 / config.n_states)
    usage, transition = draw_transitions(of_transitions, counts.transitions, even, sticky)
    return Parameters(dynamics, usage, transition)


def _full(
    sampler: Sampler, preparation: Preparation, config: FitConfig, start: StartModel | None
) -> FullSampler:
    n_keypoints = sampler.chain.n_keypoints
    noise_variance = np.broadcast_to(first_noise_variance(config, start), n_keypoints).copy()
    pose = PoseMap(preparation.loading.transpose(1, 2, 0), preparation.mean)
    settings = FixedSettings(
        config.noise_dof,
        config.latent_start_variance,
        config.centroid_start_variance,
        preparation.fix_heading,
    )
    observation = Observation(pose, noise_variance, preparation.step_variance)
    return FullSampler(sampler, observation, settings)


# ------------------------------------------------------------------ parameters given the labels


def _next_parameters(
    config: FitConfig, parameters: Parameters, result: SweepResult, kappa: float, number: int
) -> Parameters:
    """Draw the parameters of sweep ``number`` given the state that the one before left."""
    weight_bias = parameters.dynamics.weight_bias
    dynamics = draw_dynamics(
        rng.host_generator(config.seed, number, rng.DYNAMICS),
        result.moments,
        weight_bias,
        _dynamics_prior(config, weight_bias.shape[1]),
    )
    usage, transition = draw_transitions(
        rng.host_generator(config.seed, number, rng.TRANSITION),
        result.counts.transitions,
        parameters.usage,
        TransitionPrior(config.alpha, config.gamma, kappa),
    )
    return Parameters(dynamics, usage, transition)


def _update_noise(active: Sampler, config: FitConfig, result: SweepResult, number: int) -> None:
    """Draw the global noise variances when they are sampled."""
    if not isinstance(active, FullSampler):
        return
    if config.sample_noise_variance == "none" or result.noise is None:
        return
    square, n_observed = result.noise
    if config.sample_noise_variance == "shared":
        square, n_observed = square.sum(keepdims=True), n_observed.sum(keepdims=True)
    drawn = draw_noise_variance(
        rng.host_generator(config.seed, number, rng.NOISE_VARIANCE),
        square,
        n_observed,
        scale=config.noise_variance,
        dof=config.noise_variance_dof,
        n_space=active.chain.n_space,
    )
    variance = np.broadcast_to(drawn, active.observation.noise_variance.shape).copy()
    active.observation = active.observation._replace(noise_variance=variance)
