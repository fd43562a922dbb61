"""The sweeps of a fit: the AR stage, the full stage, or one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import (
    Callback,
    Noted,
    SweepEnded,
    SweepStarted,
    TileDone,
    TimePredicted,
)
from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, prior_mean
from kpms_zarr.compute.kernels.evidence import pooled
from kpms_zarr.compute.kernels.pose import PoseMap
from kpms_zarr.compute.kernels.transitions import TransitionPrior
from kpms_zarr.compute.runs.course import (
    burn_in_of,
    draw_schedule,
    judged,
    kappa_schedule,
    looked_at_again,
    sweeps_by_stage,
)
from kpms_zarr.compute.runs.plan import fixed_settings, tile_shape
from kpms_zarr.compute.runs.preparation import Preparation, first_noise_variance
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.ar_model import ArModel
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex, Sized
from kpms_zarr.compute.sampler.full_model import FullModel, Observation
from kpms_zarr.compute.sampler.initialize import label_by_clusters
from kpms_zarr.compute.sampler.prior import NoisePrior, ParameterPrior
from kpms_zarr.compute.sampler.resting import FEWEST_FRAMES, choosing_sweeps, states_drawn
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeper, SweepResult, Sweeps, n_modelled_of
from kpms_zarr.compute.sampler.tile_model import Parameters, SweepSums, TileModel
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.compute.sampler.windows import LabelWindows
from kpms_zarr.store.wording import counted


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a fit.

    Attributes
    ----------
    name : str
        ``"ar"`` or ``"full"``.
    prior : ParameterPrior
        With the stickiness at the start.
    """

    name: str
    n_sweeps: int
    prior: ParameterPrior


def stages_of(config: FitConfig, chain: Sized) -> tuple[Stage, ...]:
    """The stages of a fit, in order, with the sweeps that they may have."""

    def stage(name: str, n_sweeps: int, kappa: float) -> Stage:
        prior = ParameterPrior(
            dynamics=dynamics_prior(config, chain.n_latent),
            transition=TransitionPrior(config.alpha, config.gamma, kappa),
            noise=_noise_prior(config, chain.n_space) if name == "full" else None,
        )
        return Stage(name=name, n_sweeps=n_sweeps, prior=prior)

    *first, (name, n_sweeps) = sweeps_by_stage(config).items()
    last = stage(name, n_sweeps, config.last_kappa)
    return (*(stage(name, n_sweeps, config.ar_kappa) for name, n_sweeps in first), last)


def dynamics_prior(config: FitConfig, n_latent: int) -> DynamicsPrior:
    """Prior of the dynamics of a fit in so many latent dimensions."""
    return DynamicsPrior(
        prior_mean(n_latent, config.lags),
        config.weight_scale,
        config.innovation_scale,
        n_latent + config.innovation_dof,
    )


def _noise_prior(config: FitConfig, n_space: int) -> NoisePrior | None:
    if config.sample_noise_variance == "none":
        return None
    is_shared = config.sample_noise_variance == "shared"
    return NoisePrior(config.noise_variance, config.noise_variance_dof, is_shared, n_space)


def make_sweeper(
    chain: Chain, config: FitConfig, pipeline: Pipeline, shape: TileShape | None = None
) -> Sweeper:
    """Make the sweeper of a chain; ``shape`` overrides the one that follows from its sessions."""
    return Sweeper(
        chain=chain,
        n_states=config.n_states,
        seed=config.seed,
        shape=shape or tile_shape(chain.index, config),
        pipeline=pipeline,
    )


def pipeline_of(n_in_flight: int, notify: Callback) -> Pipeline:
    """Make the pipeline of a run, which notifies when the device has room for fewer tiles."""

    def on_less(n: int) -> None:
        notify(Noted(f"out of memory: from now on {counted(n, 'tile')} at a time"))

    return Pipeline(n_in_flight, on_less=on_less)


def model_of(
    stage: str,
    preparation: Preparation,
    config: FitConfig,
    noise_variance: np.ndarray | None,
    *,
    keeps_sound_segments: bool = False,
    holds_labels: bool = False,
    states: np.ndarray | None = None,
) -> TileModel:
    """Make the tile model of a stage; ``noise_variance``: (keypoint,), of the full stage.

    ``holds_labels``: the full stage draws all but the labels; ``states``: see :class:`TileModel`.
    """
    if stage == "ar":
        return ArModel(states)
    assert noise_variance is not None
    pose = PoseMap(preparation.loading.transpose(1, 2, 0), preparation.mean)
    return FullModel(
        observation=Observation(pose, noise_variance, preparation.step_variance),
        settings=fixed_settings(
            config, fix_heading=preparation.fix_heading, holds_labels=holds_labels
        ),
        keeps_sound_segments=keeps_sound_segments,
        states=states,
    )


def run(
    sweeper: Sweeps,
    preparation: Preparation,
    config: FitConfig,
    progress: ChainProgress,
    notify: Callback,
    *,
    until: int | None = None,
    holds_labels: bool = False,
    after_sweep: Callable[[], bool] = lambda: True,
) -> None:
    """Run the remaining sweeps over a loaded chain.

    Parameters
    ----------
    progress : ChainProgress
        Is brought forward sweep by sweep; between two of them it belongs to the chain.
    until : int, optional
        Sweeps to be done in all (default: those of the stages).
    holds_labels : bool
        Draw all but the labels, in the full stage.
    after_sweep : callable
        Whether to go on.
    """
    index = sweeper.sizes.index
    stages = {stage.name: stage for stage in stages_of(config, sweeper.sizes)}
    timed: set[str] = set()
    n_repeated = 0
    while progress.done < (planned_sweeps(config, progress) if until is None else until):
        n_sweeps = planned_sweeps(config, progress)
        name, step = _place(sweeps_by_stage(config, progress.settling), progress.done)
        stage = stages[name]
        if not step:
            n_repeated = _report_repeats(n_repeated, notify)
        began = time.perf_counter()
        if not step or progress.kappa is None:
            progress.kappa = kappa_schedule(
                config, stage.name, stage.n_sweeps, stage.prior.transition.kappa
            )
        elif progress.result is not None:
            # The schedule answers to sweeps of its own stage only.
            progress.kappa.update(progress.result.counts)
        kappa = progress.kappa.value
        prior = stage.prior.with_kappa(kappa)
        number = progress.n_before + progress.done
        notify(SweepStarted(progress.done + 1, n_sweeps, stage.name))
        sweeper.pipeline.meter.restart()
        _draw_parameters(prior, config.seed, progress, number)
        states = None if holds_labels else _states_drawn(config, index, name, step, progress)
        model = model_of(
            stage.name, preparation, config, progress.noise_variance, holds_labels=holds_labels,
            states=states,
        )  # fmt: skip
        on_tile = _tile_reporter(stage.name, progress.done, sweeper.pipeline.n, timed, notify)
        result = sweeper.sweep(model, progress.parameters, number, on_tile)
        result.terms["parameters"] = prior.log_density(
            progress.parameters, progress.noise_variance
        ) / n_modelled_of(index)
        n_repeated += result.sums.n_repeated
        progress.result = result
        progress.done += 1
        log_evidence = _log_evidence(sweeper, prior, progress, result)
        _, merge_sweeps = burn_in_of(config, name)
        if _merges_after(step + 1, stage, merge_sweeps):
            progress.result = _merged(sweeper, prior, progress.parameters, result)
        seconds = time.perf_counter() - began
        progress.trace.append(stage.name, result, kappa, seconds, log_evidence)
        look = (config, stage.name, step + 1, progress.kappa, progress.trace)
        if stage.name in progress.settling:
            progress.settling[stage.name] = looked_at_again(*look, progress.settling)
        else:
            found = judged(*look)
            progress.settling |= {} if found is None else {stage.name: found}
            n_sweeps = planned_sweeps(config, progress)
        if progress.windows is None:
            progress.windows = LabelWindows.of(index)
        if progress.windows.is_due(progress.done, n_sweeps):
            progress.windows.keep(sweeper.labels_in(progress.windows), progress.done)
        slot = draw_schedule(config, progress.settling).slot(progress.done)
        if slot is not None:
            sweeper.keep_draw(slot)
        waiting = sweeper.pipeline.meter.restart()
        trace, fps = progress.trace, result.counts.fps
        notify(
            SweepEnded(
                progress.done, n_sweeps, trace.seconds[-1], result.log_likelihood,
                trace.median_duration[-1] * 1000 / fps, trace.n_used[-1], kappa, stage.name,
                0.0 if sweeper.workers else waiting, sweeper.workers,
            )
        )  # fmt: skip
        if not after_sweep():
            break
    _report_repeats(n_repeated, notify)


def planned_sweeps(config: FitConfig, progress: ChainProgress) -> int:
    """Sweeps of all stages, as far as it is known when they end."""
    return sum(sweeps_by_stage(config, progress.settling).values())


def _place(sweeps: Mapping[str, int], done: int) -> tuple[str, int]:
    """The stage of the next sweep, and how many sweeps of it are done."""
    for stage, n_sweeps in sweeps.items():
        if done < n_sweeps:
            return stage, done
        done -= n_sweeps
    raise ValueError("all sweeps are done")


def _states_drawn(
    config: FitConfig, index: ChainIndex, stage: str, step: int, progress: ChainProgress
) -> np.ndarray | None:
    """States among which sweep ``step`` of a stage draws labels; None = all.

    At first those that have frames, later those that had some at the end of that (model.md 3.12).
    """
    result = progress.result
    if result is None or n_modelled_of(index) < FEWEST_FRAMES[stage]:
        return None
    n_choosing = choosing_sweeps(*burn_in_of(config, stage))
    has_frames = result.counts.frames > 0
    if step >= n_choosing:
        has_frames = progress.trace.usage[n_choosing - 1 - step] > 0
    return states_drawn(has_frames, step)


def _draw_parameters(
    prior: ParameterPrior, seed: int, progress: ChainProgress, number: int
) -> None:
    """Draw the parameters of a sweep, given the state that the one before left."""
    if progress.result is None:
        return
    sums, before = progress.result.sums, progress.parameters
    progress.parameters = prior.draw(
        seed, number, moments=sums.moments, transitions=progress.result.counts.transitions,
        weight_bias=before.dynamics.weight_bias, usage=before.usage,
    )  # fmt: skip
    if progress.noise_variance is not None:
        progress.noise_variance = prior.draw_noise_variance(
            seed, number, sums, progress.noise_variance
        )


def _log_evidence(
    sweeper: Sweeps, prior: ParameterPrior, progress: ChainProgress, result: SweepResult
) -> float:
    """Log density of all that the chain holds after a sweep, nat per modelled frame.

    Dynamics and transitions are integrated out (model.md 3.9), so that the terms of the sweep that
    are given these do not count; the sums of the tiles, which only the full stage has, are given
    neither.
    """
    total = prior.log_evidence(
        result.sums.moments,
        result.counts.transitions,
        progress.parameters.dynamics.weight_bias,
    )
    index = sweeper.sizes.index
    total -= int((index.n_modelled > 0).sum()) * np.log(sweeper.n_states)
    total += result.sums.log_probability.sum() + prior.log_density_of_noise(progress.noise_variance)
    return float(total) / n_modelled_of(index)


def _merges_after(n_done: int, stage: Stage, merge_sweeps: int) -> bool:
    """Whether states are merged after sweep ``n_done`` of a stage: 4, 10, 18, 28, ..., n (n + 3).

    Never after the last, as what is published is drawn.
    """
    root = round((np.sqrt(9 + 4 * n_done) - 3) / 2)
    return n_done <= merge_sweeps and n_done < stage.n_sweeps and root * (root + 3) == n_done


def _merged(
    sweeper: Sweeps, prior: ParameterPrior, parameters: Parameters, result: SweepResult
) -> SweepResult:
    """Merge states by evidence (model.md 3.9); labels and sums are then those of the rest."""
    sums, weight_bias = result.sums, parameters.dynamics.weight_bias
    target = prior.merge(sums.moments, result.counts.transitions, weight_bias)
    counts = sweeper.relabel(target)
    moments = pooled(sums.moments, weight_bias, target)
    return SweepResult(sums._replace(moments=moments), counts, result.terms)


def _tile_reporter(
    stage: str, done: int, n_first: int, timed: set[str], notify: Callback
) -> Callable[[int, int], None]:
    """Make the callback that reports tiles of a sweep and, once a stage, its predicted time.

    ``n_first``: tiles that may still be compiling when they begin.
    """
    first: tuple[int, float] | None = None

    def on_tile(n_done: int, n_tiles: int) -> None:
        nonlocal first
        notify(TileDone(done + 1, n_done, n_tiles))
        if stage in timed or n_done < n_first:
            return
        now = time.perf_counter()
        if first is None:
            first = n_done, now
        elif n_done >= first[0] + 3:
            timed.add(stage)
            notify(TimePredicted(stage, (now - first[1]) / (n_done - first[0]) * n_tiles))

    return on_tile


def _report_repeats(n_repeated: int, notify: Callback) -> int:
    """Say how many tiles float32 could not draw; returns 0, from where they are counted on."""
    if n_repeated:
        text = (
            f"{n_repeated} tiles were computed again in float64, because float32 had lost "
            "too many digits; `precision='float64'` does so for all"
        )
        notify(Noted(text))
    return 0


# ------------------------------------------------------------------ where the chain begins


def begin(
    sweeper: Sweeper, config: FitConfig, start: StartModel | None, n_before: int
) -> ChainProgress:
    """First parameters; with a model to go on from, also the statistics of its state.

    ``n_before``: sweeps before the first, so that no two share random numbers.
    """
    noise_variance = None
    if sweeper.chain.n_keypoints:
        noise_variance = noise_by_keypoint(config, start, sweeper.chain)
    if start is not None:
        moments, counts = sweeper.measure(start.parameters.dynamics.weight_bias)
        result = SweepResult(SweepSums(moments), counts, {})
        return ChainProgress(0, n_before, start.parameters, noise_variance, result)
    prior = stages_of(config, sweeper.chain)[0].prior
    return ChainProgress(0, 0, _first_parameters(sweeper, config, prior), noise_variance, None)


def noise_by_keypoint(config: FitConfig, start: StartModel | None, chain: Chain) -> np.ndarray:
    """Global noise variances before the first sweep: (keypoint,) float64."""
    first = first_noise_variance(config, start)
    return np.broadcast_to(first, chain.n_keypoints).astype(np.float64)


def _first_parameters(sweeper: Sweeper, config: FitConfig, prior: ParameterPrior) -> Parameters:
    n_states = config.n_states
    if config.init == "prior":
        return prior.first(config.seed, n_states)
    label_by_clusters(sweeper.chain, n_states, config.seed)
    return parameters_of_labels(sweeper, config.seed, prior)


def parameters_of_labels(sweeper: Sweeper, seed: int, prior: ParameterPrior) -> Parameters:
    """Draw first parameters given the labels and the latent pose of a chain."""
    n_states = sweeper.n_states
    mean = np.broadcast_to(prior.dynamics.mean, (n_states, *prior.dynamics.mean.shape))
    moments, counts = sweeper.measure(mean)
    return prior.draw(
        seed, 0, moments=moments, transitions=counts.transitions, weight_bias=mean,
        usage=np.full(n_states, 1 / n_states),
    )  # fmt: skip
