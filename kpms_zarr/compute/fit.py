"""Fit a model to a store and publish its labels there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from kpms_zarr.compute import pca as pca_module
from kpms_zarr.compute.alignment import Aligner, AlignmentSettings
from kpms_zarr.compute.budget import tile_bytes
from kpms_zarr.compute.chain import Chain, ChainIndex
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Event, Noted, PlanMade, Published, SweepEnded
from kpms_zarr.compute.initialize import label_by_clusters
from kpms_zarr.compute.kernels import rng
from kpms_zarr.compute.kernels.dynamics import (
    Dynamics,
    DynamicsPrior,
    draw_dynamics,
    draw_prior_dynamics,
    prior_mean,
)
from kpms_zarr.compute.kernels.transitions import (
    TransitionPrior,
    draw_prior_transitions,
    draw_transitions,
)
from kpms_zarr.compute.publish import Trace, publish
from kpms_zarr.compute.stickiness import KappaSchedule
from kpms_zarr.compute.stream import in_flight
from kpms_zarr.compute.summaries import LabelCounts
from kpms_zarr.compute.sweep import Parameters, Sampler, SweepResult
from kpms_zarr.store import access, layout
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.models import current_version, open_labels
from kpms_zarr.store.study import StudySettings, read_settings

_TARGET_TOLERANCE = 0.15


@dataclass(frozen=True)
class FitSummary:
    """What :func:`fit` did.

    Attributes
    ----------
    store, model, version : str
        The labels are in the group ``models/<model>/labels/<version>``.
    n_sessions, n_frames, n_latent : int
    n_sweeps : int
    n_used : int
        Syllables with at least 0.5 % of the frames.
    median_duration : float
        Median bout, in ms.
    kappa : float
        At the last sweep.
    log_likelihood : float
        log p(latent, syllable | parameters) at the last sweep, nat per frame.
    seconds : float
        Wall time.
    notes : tuple of str
    """

    store: str
    model: str
    version: str
    n_sessions: int
    n_frames: int
    n_latent: int
    n_sweeps: int
    n_used: int
    median_duration: float
    kappa: float
    log_likelihood: float
    seconds: float
    notes: tuple[str, ...]


def fit(
    store: StoreLike,
    *,
    model: str,
    config: FitConfig | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
) -> FitSummary:
    """Fit a model and publish a syllable for every frame.

    Data stream through the device in tiles of segments; the per-frame state of the chain lies in
    a scratch file (``TMPDIR``). Same store, seed, precision and kind of device: the same labels to
    the bit, whatever the tiles in flight and the order of the sessions.

    Parameters
    ----------
    store : path or URL
    model : str
        Name of the model; labels go to ``models/<model>/labels/v1``.
    config : FitConfig, optional
    callbacks : sequence of callable
        Each is given the events of ``compute.events``.
    overwrite : bool
        When the model exists, publish a new version and make it current; the old one stays.

    Returns
    -------
    FitSummary

    Raises
    ------
    InputError
        When the store has no sessions, the model exists, or a setting does not fit the data.
    """
    config = config or FitConfig()
    began = time.perf_counter()
    root = access.open_group(store, "r+")
    sessions = access.require_sessions(root, os.fspath(store))
    _check_name(store, model, is_taken=current_version(root, model) is not None and not overwrite)
    said: list[str] = []
    tell = partial(_tell, callbacks, said)
    study = read_settings(root)
    components = _components(store, study, tell)
    n_latent = config.latent_dim or int(components.attrs["n_components"])
    pca_module.projection(components, n_latent)  # fails early when there are fewer components
    index = ChainIndex.of(sessions, config.lags)
    _check_length(index, store, tell)
    with Chain(index, n_latent=n_latent, n_space=len(study.space), dtype=config.precision) as chain:
        sampler = _sampler(chain, config)
        tell(_plan(sampler, config))
        _project(chain, store, components, config, tell)
        parameters, trace = _run(sampler, config, tell)
        _check_target(config, trace, chain.index, tell)
        version = publish(
            root, model, chain=chain, parameters=parameters, trace=trace,
            components=components, study=study, config=config, notes=said,
        )  # fmt: skip
    tell(Published(model, version))
    return FitSummary(
        os.fspath(store),
        model,
        version,
        len(sessions),
        index.n_frames,
        n_latent,
        config.sweeps,
        trace.n_used[-1],
        float(open_labels(store, model).attrs["median_duration_overall"]),
        trace.kappa[-1],
        trace.log_likelihood[-1],
        time.perf_counter() - began,
        tuple(said),
    )


# ------------------------------------------------------------------ before the first sweep


def _tell(callbacks: Sequence[Callback], said: list[str], event: Event) -> None:
    if isinstance(event, Noted):
        said.append(event.text)
    for callback in callbacks:
        callback(event)


def _check_name(store: StoreLike, model: str, *, is_taken: bool) -> None:
    layout.model_path(model)
    if is_taken:
        raise InputError(
            expected="a model name that is not in use",
            found=f"{model!r}, which is fitted already",
            where=os.fspath(store),
            fix="choose another --model, or add --overwrite to publish a new version of it "
            "(the old one stays in the store)",
        )


def _components(
    store: StoreLike, study: StudySettings, tell: Callable[[Event], None]
) -> xr.Dataset:
    """The PCA of the store, computed when it is missing or was made for another alignment."""
    root = access.open_group(store)
    if access.subgroup(root, layout.PCA) is None:
        tell(Noted("no PCA in the store yet: computed with the defaults of kpms-zarr pca"))
        return pca_module.pca(store)
    found = access.dataset(store, layout.PCA).load()
    names = ("anterior", "posterior", "keypoints")
    if all(tuple(found.attrs.get(name, ())) == getattr(study, name) for name in names):
        return found
    tell(Noted("keypoints or heading changed since the PCA: computed again"))
    kept = ("variance", "confidence_threshold", "fix_heading")
    return pca_module.pca(store, **{k: found.attrs[k] for k in kept if k in found.attrs})


def _check_length(index: ChainIndex, store: StoreLike, tell: Callable[[Event], None]) -> None:
    short = [s.name for s in index.sessions if s.n_frames <= index.lags]
    if len(short) == len(index.sessions):
        raise InputError(
            expected=f"sessions of more than {index.lags} frames",
            found="only shorter ones",
            where=os.fspath(store),
            fix="add longer recordings, or lower --lags",
        )
    if short:
        tell(Noted(f"too short for a label ({index.lags} frames or fewer): {', '.join(short)}"))


def _sampler(chain: Chain, config: FitConfig) -> Sampler:
    return Sampler(
        chain,
        n_states=config.n_states,
        segment_frames=config.segment_frames,
        n_in_flight=config.tiles_in_flight,
        seed=config.seed,
        precision=config.precision,
    )


def _plan(sampler: Sampler, config: FitConfig) -> PlanMade:
    chain, shape = sampler.chain, sampler.shape
    arrays = (chain.latent, chain.syllable, chain.centroid, chain.heading)
    n_latent = chain.latent.shape[1]
    one = tile_bytes(
        shape,
        n_states=config.n_states,
        n_latent=n_latent,
        lags=config.lags,
        itemsize=sampler.dtype.itemsize,
    )
    return PlanMade(
        len(chain.index.sessions),
        chain.index.n_frames,
        n_latent,
        config.n_states,
        shape.n_segments,
        shape.n_frames,
        config.tiles_in_flight,
        one * config.tiles_in_flight,
        sum(array.nbytes for array in arrays),
    )


def _project(
    chain: Chain,
    store: StoreLike,
    components: xr.Dataset,
    config: FitConfig,
    tell: Callable[[Event], None],
) -> None:
    """Latent pose, centroid and heading of every frame, block by block."""
    attrs = components.attrs
    alignment = AlignmentSettings(float(attrs["confidence_threshold"]), bool(attrs["fix_heading"]))
    aligner = Aligner.of(store, alignment)
    for note in aligner.notes:
        tell(Noted(note))
    matrix, mean = pca_module.projection(components, chain.latent.shape[1])
    inverse = np.linalg.pinv(matrix)
    origin = {
        session.index: int(first)
        for session, first in zip(chain.index.sessions, chain.index.first, strict=True)
    }

    def place(block: Block) -> None:
        aligned = aligner.align(block)
        rows = slice(origin[block.session] + block.start, origin[block.session] + block.stop)
        chain.latent[rows] = (aligned.pose.reshape(block.n_frames, -1) - mean) @ inverse
        chain.centroid[rows] = aligned.centroid
        chain.heading[rows] = aligned.heading

    blocks = iter_blocks(chain.index.sessions)
    for _ in in_flight(place, blocks, config.tiles_in_flight, is_double=False):
        pass


# ------------------------------------------------------------------ the chain


def _run(
    sampler: Sampler, config: FitConfig, tell: Callable[[Event], None]
) -> tuple[Parameters, Trace]:
    """All sweeps; returns the parameters that the last labels were drawn with."""
    kappa = KappaSchedule(config)
    parameters = _first_parameters(sampler, config)
    trace = Trace()
    result: SweepResult | None = None
    for number in range(config.sweeps):
        began = time.perf_counter()
        if result is not None:
            kappa.update(result.counts)
            parameters = _next_parameters(config, parameters, result, kappa.value, number)
        result = sampler.sweep(parameters, number)
        trace.append(result, kappa.value, time.perf_counter() - began)
        tell(
            SweepEnded(
                number + 1,
                config.sweeps,
                trace.seconds[-1],
                result.log_likelihood,
                trace.median_duration[-1] * 1000 / result.counts.fps,
                trace.n_used[-1],
                kappa.value,
            )
        )
    return parameters, trace


def _check_target(
    config: FitConfig, trace: Trace, index: ChainIndex, tell: Callable[[Event], None]
) -> None:
    if config.target_duration is None:
        return
    fps = max(session.fps for session in index.sessions)
    found = trace.median_duration[-1] * 1000 / fps
    if abs(found / config.target_duration - 1) > _TARGET_TOLERANCE:
        text = (
            f"the target duration of {config.target_duration:g} ms was not reached: the median is "
            f"{found:.0f} ms; give more sweeps, or a target that the sessions and frame rate allow"
        )
        tell(Noted(text))


def _dynamics_prior(config: FitConfig, n_latent: int) -> DynamicsPrior:
    return DynamicsPrior(
        prior_mean(n_latent, config.lags),
        config.weight_scale,
        config.innovation_scale,
        n_latent + config.innovation_dof,
    )


def _first_parameters(sampler: Sampler, config: FitConfig) -> Parameters:
    n_latent = sampler.chain.latent.shape[1]
    prior = _dynamics_prior(config, n_latent)
    sticky = TransitionPrior(config.alpha, config.gamma, config.kappa)
    of_transitions = rng.host_generator(config.seed, 0, rng.TRANSITION)
    of_dynamics = rng.host_generator(config.seed, 0, rng.DYNAMICS)
    if config.init == "prior":
        dynamics = draw_prior_dynamics(of_dynamics, config.n_states, prior)
        usage, transition = draw_prior_transitions(of_transitions, config.n_states, sticky)
        return Parameters(dynamics, usage, transition)
    label_by_clusters(sampler.chain, config.n_states, config.seed)
    start = np.broadcast_to(prior.mean, (config.n_states, *prior.mean.shape))
    moments, counts = sampler.measure(start)
    dynamics = draw_dynamics(of_dynamics, moments, start, prior)
    even = np.full(config.n_states, 1 / config.n_states)
    usage, transition = draw_transitions(of_transitions, counts.transitions, even, sticky)
    return Parameters(dynamics, usage, transition)


def _next_parameters(
    config: FitConfig, parameters: Parameters, result: SweepResult, kappa: float, number: int
) -> Parameters:
    """Draw the parameters of sweep ``number`` given the labels of the one before."""
    weight_bias = parameters.dynamics.weight_bias
    dynamics: Dynamics = draw_dynamics(
        rng.host_generator(config.seed, number, rng.DYNAMICS),
        result.moments,
        weight_bias,
        _dynamics_prior(config, weight_bias.shape[1]),
    )
    counts: LabelCounts = result.counts
    usage, transition = draw_transitions(
        rng.host_generator(config.seed, number, rng.TRANSITION),
        counts.transitions,
        parameters.usage,
        TransitionPrior(config.alpha, config.gamma, kappa),
    )
    return Parameters(dynamics, usage, transition)
