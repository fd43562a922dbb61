"""Write a finished chain into the store: parameters and traces, then labels, then the pointer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.chain import Chain
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.summaries import count_labels, label_statistics
from kpms_zarr.compute.sweep import Parameters, SweepResult
from kpms_zarr.store import access
from kpms_zarr.store.blocks import Block
from kpms_zarr.store.models import LabelWriter, write_parameters
from kpms_zarr.store.study import StudySettings

_BLOCK_FRAMES = 2_000_000


@dataclass
class Trace:
    """One value per sweep of what a person watches.

    Attributes
    ----------
    log_likelihood : list of float
        nat per frame.
    kappa : list of float
    median_duration : list of float
        In frames of the fastest video.
    n_used : list of int
    usage : list of ndarray, (state,)
    seconds : list of float
    """

    log_likelihood: list[float] = field(default_factory=list)
    kappa: list[float] = field(default_factory=list)
    median_duration: list[float] = field(default_factory=list)
    n_used: list[int] = field(default_factory=list)
    usage: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def append(self, result: SweepResult, kappa: float, seconds: float) -> None:
        """Add a sweep."""
        frames = result.counts.frames
        self.log_likelihood.append(result.log_likelihood)
        self.kappa.append(kappa)
        self.median_duration.append(result.counts.median_duration)
        self.n_used.append(result.counts.n_used)
        self.usage.append(frames / max(1, frames.sum()))
        self.seconds.append(seconds)


def publish(
    root: access.Group,
    model: str,
    *,
    chain: Chain,
    parameters: Parameters,
    trace: Trace,
    components: xr.Dataset,
    study: StudySettings,
    config: FitConfig,
    notes: list[str],
) -> str:
    """Number syllables by frequency, write everything, and make the version current.

    Returns
    -------
    str
        The version, such as ``"v1"``.
    """
    _label_first_frames(chain)
    order = np.argsort(-count_labels(chain, config.n_states).frames, kind="stable")
    _renumber(chain, order)
    sessions = tuple(sorted(chain.index.sessions, key=lambda session: session.index))
    settings = {**config.to_dict(), "notes": list(notes)}
    n_latent = chain.latent.shape[1]
    writer = LabelWriter(
        root,
        model,
        sessions=sessions,
        settings=study,
        names=("syllable", "latent", "centroid", "heading"),
        n_latent=n_latent,
    )
    _write_labels(writer, chain)
    values = _parameter_values(parameters, trace, order, components, n_latent)
    write_parameters(root, model, writer.version, values, settings)
    return writer.publish("fit", settings, label_statistics(chain, config.n_states))


def _label_first_frames(chain: Chain) -> None:
    """Give the ``lags`` frames that a session begins with, which have no state, its first label."""
    lags = chain.index.lags
    for first in chain.index.first[chain.index.n_modelled > 0]:
        chain.syllable[first : first + lags] = chain.syllable[first + lags]


def _renumber(chain: Chain, order: np.ndarray) -> None:
    """Give state ``order[i]`` the number i."""
    # One entry more than states: -1 indexes it and stays -1.
    number = np.full(len(order) + 1, -1, np.int16)
    number[order] = np.arange(len(order), dtype=np.int16)
    for start in range(0, chain.index.n_frames, _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        chain.syllable[block] = number[chain.syllable[block]]


def _write_labels(writer: LabelWriter, chain: Chain) -> None:
    rows = {session: row for row, session in enumerate(writer.sessions)}
    for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
        for start in range(0, session.n_frames, writer.block_frames):
            stop = min(start + writer.block_frames, session.n_frames)
            frames = slice(first + start, first + stop)
            values = {
                "syllable": chain.syllable[frames],
                "latent": chain.latent[frames],
                "centroid": chain.centroid[frames],
                "heading": chain.heading[frames],
            }
            writer.write(Block(rows[session], start, stop), values)


def _parameter_values(
    parameters: Parameters,
    trace: Trace,
    order: np.ndarray,
    components: xr.Dataset,
    n_latent: int,
) -> dict[str, Any]:
    weight_bias = parameters.dynamics.weight_bias[order]
    return {
        "keypoint": components["keypoint"].values.astype(object),
        "space": components["space"].values.astype(object),
        "pose_loading": components["pose_loading"].values[:n_latent],
        "pose_mean": components["pose_mean"].values,
        "ar_weight": weight_bias[..., :-1],
        "ar_bias": weight_bias[..., -1],
        "ar_covariance": parameters.dynamics.covariance[order],
        "state_usage": parameters.usage[order],
        "transition_probability": parameters.transition[order][:, order],
        "trace_log_likelihood": trace.log_likelihood,
        "trace_kappa": trace.kappa,
        "trace_median_duration": trace.median_duration,
        "trace_n_used": trace.n_used,
        "trace_usage": np.stack(trace.usage)[:, order],
        "trace_seconds": trace.seconds,
    }
