"""Fit a model to a store and publish its labels there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kpms_zarr.compute.budget import tile_bytes
from kpms_zarr.compute.chain import ChainIndex
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Event, Noted, PlanMade, Published
from kpms_zarr.compute.preparation import check_length, load, make_chain, prepare, with_start
from kpms_zarr.compute.publish import publish
from kpms_zarr.compute.stages import run
from kpms_zarr.compute.start_model import StartModel
from kpms_zarr.compute.sweep import Sampler
from kpms_zarr.compute.trace import Trace
from kpms_zarr.store import access, layout
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.models import current_version, open_labels

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
        Of all that the last stage samples given the parameters, at the last sweep, nat per frame.
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
    SamplingError
        When a draw has no finite result even in float64; what the last complete sweep left is
        published.
    """
    config = config or FitConfig()
    began = time.perf_counter()
    root = access.open_group(store, "r+")
    access.require_sessions(root, os.fspath(store))
    _check_name(store, model, is_taken=current_version(root, model) is not None and not overwrite)
    start = StartModel.of(store, config.from_model) if config.from_model else None
    said: list[str] = []
    tell = partial(_tell, callbacks, said)
    if start is not None:
        config = with_start(config, start, tell)
    preparation = prepare(store, config, start, tell)
    with make_chain(preparation, config) as chain:
        check_length(chain.index, store, tell)
        sampler = Sampler(
            chain,
            n_states=config.n_states,
            segment_frames=config.segment_frames,
            n_in_flight=config.tiles_in_flight,
            seed=config.seed,
            precision=config.precision,
        )
        tell(_plan(sampler, config))
        load(chain, preparation, config, start)
        outcome = run(sampler, preparation, config, start, tell)
        trace = outcome.trace
        if outcome.failure is None:
            _check_target(config, trace, chain.index, tell)
        else:
            tell(Noted(f"stopped after {len(trace.stage)} sweeps: {outcome.failure}"))
        version = publish(
            root, model, chain=chain, outcome=outcome, preparation=preparation, config=config,
            start=start,
            notes=said,
        )  # fmt: skip
    tell(Published(model, version))
    if outcome.failure is not None:
        raise outcome.failure
    return FitSummary(
        os.fspath(store),
        model,
        version,
        len(preparation.sessions),
        chain.index.n_frames,
        chain.n_latent,
        len(trace.stage),
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


def _plan(sampler: Sampler, config: FitConfig) -> PlanMade:
    chain, shape = sampler.chain, sampler.shape
    one = tile_bytes(
        shape,
        n_states=config.n_states,
        n_latent=chain.n_latent,
        lags=config.lags,
        itemsize=sampler.dtype.itemsize,
        n_keypoints=chain.n_keypoints,
        n_space=chain.n_space,
    )
    return PlanMade(
        len(chain.index.sessions),
        chain.index.n_frames,
        chain.n_latent,
        config.n_states,
        shape.n_segments,
        shape.n_frames,
        config.tiles_in_flight,
        one * config.tiles_in_flight,
        chain.n_bytes,
    )


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
