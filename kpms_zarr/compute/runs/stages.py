"""The sweeps of a fit: the AR stage, the full stage, or one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import (
    Event,
    Noted,
    SweepEnded,
    SweepStarted,
    TileDone,
    TimePredicted,
)
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
from kpms_zarr.compute.runs.plan import fixed_settings
from kpms_zarr.compute.runs.preparation import Preparation, first_noise_variance
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.full_sweep import FullSampler, Observation
from kpms_zarr.compute.sampler.initialize import label_by_clusters
from kpms_zarr.compute.sampler.stickiness import KappaSchedule
from kpms_zarr.compute.sampler.sweep import Parameters, Sampler, SweepResult
from kpms_zarr.compute.sampler.trace import Progress, Trace
from kpms_zarr.compute.sampler.windows import LabelWindows

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


def n_sweeps_of(config: FitConfig) -> int:
    """Sweeps of all stages."""
    return sum(stage.sweeps for stage in stages_of(config))


def run(
    sampler: Sampler,
    preparation: Preparation,
    config: FitConfig,
    progress: Progress,
    tell: Tell,
    *,
    until: int | None = None,
    after_sweep: Callable[[], bool] = lambda: True,
) -> None:
    """Run the sweeps that are left over a loaded chain.

    Parameters
    ----------
    sampler : Sampler
        Of the AR stage.
    preparation : Preparation
    config : FitConfig
    progress : Progress
        Is brought forward sweep by sweep; between two of them it belongs to the chain.
    tell : callable
    until : int, optional
        Sweeps to be done in all (default: those of the stages).
    after_sweep : callable
        Whether to go on.
    """
    n_sweeps = n_sweeps_of(config)
    active: Sampler | None = None
    while progress.done < (n_sweeps if until is None else until):
        stage, step = _place(config, progress.done)
        if active is None or not step:
            if active is not None:
                _note_repeats(active, tell)
            active = _sampler_of(stage, sampler, preparation, config, progress)
        began = time.perf_counter()
        if not step or progress.kappa is None:
            progress.kappa = KappaSchedule(stage.kappa, stage.sweeps, config.target_duration)
        elif progress.result is not None:
            # The schedule answers to sweeps of its own stage only.
            progress.kappa.update(progress.result.counts)
        kappa = progress.kappa.value
        number = progress.n_before + progress.done
        _announce(active, stage, progress.done, n_sweeps, tell)
        if progress.result is not None:
            progress.parameters = _next_parameters(
                config, progress.parameters, progress.result, kappa, number
            )
            _update_noise(active, config, progress, number)
        result = active.sweep(progress.parameters, number)
        result.terms["parameters"] = (
            _log_prior(active, config, progress.parameters, kappa) / active.n_modelled
        )
        progress.result = result
        progress.done += 1
        progress.trace.append(stage.name, result, kappa, time.perf_counter() - began)
        if progress.windows is None:
            progress.windows = LabelWindows.of(sampler.chain.index)
        progress.windows.keep(sampler.chain, progress.done, n_sweeps)
        waiting = sampler.flight.meter.restart()
        tell(_ended(stage, progress.done, n_sweeps, progress.trace, result, waiting))
        if not after_sweep():
            break
    if active is not None:
        _note_repeats(active, tell)


def _place(config: FitConfig, done: int) -> tuple[Stage, int]:
    """The stage of the next sweep, and how many sweeps of it are done."""
    for stage in stages_of(config):
        if done < stage.sweeps:
            return stage, done
        done -= stage.sweeps
    raise ValueError("all sweeps are done")


def _announce(active: Sampler, stage: Stage, done: int, n_sweeps: int, tell: Tell) -> None:
    """Say that a sweep begins, what becomes of its tiles, and how long it will take."""
    flight = active.flight
    tell(SweepStarted(done + 1, n_sweeps, stage.name))
    n_first = flight.n  # these may still be compiling
    times: list[float] = []

    def on_tile(n_done: int, n_tiles: int) -> None:
        tell(TileDone(done + 1, n_done, n_tiles))
        if active.is_timed:
            return
        times.append(time.perf_counter())
        if len(times) == n_first + 3:
            active.is_timed = True
            tell(TimePredicted(stage.name, (times[-1] - times[n_first - 1]) / 3 * n_tiles))

    flight.on_tile = on_tile
    flight.meter.restart()


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
    stage: Stage,
    number: int,
    n_sweeps: int,
    trace: Trace,
    result: SweepResult,
    waiting: float,
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
        waiting,
    )


def _note_repeats(active: Sampler, tell: Tell) -> None:
    if isinstance(active, FullSampler) and active.n_repeated:
        text = (
            f"{active.n_repeated} tiles were computed again in float64, because float32 had lost "
            "too many digits; `precision='float64'` does so for all"
        )
        tell(Noted(text))
        active.n_repeated = 0


# ------------------------------------------------------------------ where the chain begins


def begin(sampler: Sampler, config: FitConfig, start: StartModel | None, n_before: int) -> Progress:
    """First parameters; with a model to go on from, also the statistics of its state.

    ``n_before``: sweeps before the first, so that no two share random numbers.
    """
    stages = stages_of(config)
    noise_variance = None
    if sampler.chain.n_keypoints:
        first = first_noise_variance(config, start)
        noise_variance = np.broadcast_to(first, sampler.chain.n_keypoints).astype(np.float64)
    if start is not None:
        moments, counts = sampler.measure(start.parameters.dynamics.weight_bias)
        result = SweepResult(moments, counts, {})
        return Progress(0, n_before, start.parameters, noise_variance, result)
    parameters = _first_parameters(sampler, config, stages[0].kappa)
    return Progress(0, 0, parameters, noise_variance, None)


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


def _sampler_of(
    stage: Stage,
    sampler: Sampler,
    preparation: Preparation,
    config: FitConfig,
    progress: Progress,
) -> Sampler:
    if stage.name == "ar":
        return sampler
    assert progress.noise_variance is not None
    return full_sampler(sampler, preparation, config, progress.noise_variance)


def full_sampler(
    sampler: Sampler, preparation: Preparation, config: FitConfig, noise_variance: np.ndarray
) -> FullSampler:
    """The sampler of the full stage over the chain of that of the AR stage."""
    pose = PoseMap(preparation.loading.transpose(1, 2, 0), preparation.mean)
    settings = fixed_settings(config, fix_heading=preparation.fix_heading)
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


def _update_noise(active: Sampler, config: FitConfig, progress: Progress, number: int) -> None:
    """Draw the global noise variances when they are sampled."""
    result = progress.result
    if not isinstance(active, FullSampler) or result is None or result.noise is None:
        return
    if config.sample_noise_variance == "none":
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
    progress.noise_variance = variance
