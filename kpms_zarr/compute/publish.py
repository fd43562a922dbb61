"""Write a finished chain into the store: parameters and traces, then labels, then the pointer."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpms_zarr.compute.chain import Chain
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.preparation import Preparation
from kpms_zarr.compute.start_model import StartModel
from kpms_zarr.compute.summaries import count_labels, label_statistics
from kpms_zarr.compute.trace import Outcome
from kpms_zarr.store import access
from kpms_zarr.store.blocks import Block
from kpms_zarr.store.models import LabelWriter, write_parameters

_BLOCK_FRAMES = 2_000_000

TERMS = ("syllable", "latent", "centroid", "noise_scale", "position", "parameters")
"""Parts of the joint log probability of a sweep, in the order in which they are stored."""


def publish(
    root: access.Group,
    model: str,
    *,
    chain: Chain,
    outcome: Outcome,
    preparation: Preparation,
    config: FitConfig,
    start: StartModel | None,
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
    names = ["syllable", "latent", "centroid", "heading"]
    if config.save_noise_scale and chain.n_keypoints:
        names.append("noise_scale")
    writer = LabelWriter(
        root,
        model,
        sessions=sessions,
        settings=preparation.study,
        names=tuple(names),
        n_latent=chain.n_latent,
        scale=[preparation.scale[session.index] for session in sessions],
    )
    _write_labels(writer, chain, names, outcome.noise_variance)
    values = _parameter_values(outcome, order, preparation)
    attrs: dict[str, Any] = {
        "fix_heading": preparation.fix_heading,
        "centroid_step_variance": preparation.step_variance,
        "n_sweeps_in_all": len(outcome.trace.stage) + (start.n_sweeps if start else 0),
    }
    if start is not None:
        attrs["from_version"] = f"{start.name}/{start.version}"
    write_parameters(root, model, writer.version, values, settings, attrs)
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


def _write_labels(
    writer: LabelWriter, chain: Chain, names: list[str], noise_variance: np.ndarray | None
) -> None:
    rows = {session: row for row, session in enumerate(writer.sessions)}
    for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
        scale = writer.scale[rows[session]]
        for start in range(0, session.n_frames, writer.block_frames):
            stop = min(start + writer.block_frames, session.n_frames)
            frames = slice(first + start, first + stop)
            values = {name: np.asarray(getattr(chain, name)[frames]) for name in names}
            values["centroid"] = values["centroid"] * scale
            if "noise_scale" in values:
                values["noise_scale"] = values["noise_scale"] * (noise_variance * scale**2)
            writer.write(Block(rows[session], start, stop), values)


def _parameter_values(
    outcome: Outcome, order: np.ndarray, preparation: Preparation
) -> dict[str, Any]:
    parameters, trace = outcome.parameters, outcome.trace
    weight_bias = parameters.dynamics.weight_bias[order]
    terms = [[part.get(name, np.nan) for name in TERMS] for part in trace.terms]
    values = {
        "keypoint": np.asarray(preparation.study.keypoints, dtype=object),
        "space": np.asarray(preparation.study.space, dtype=object),
        "term": np.asarray(TERMS, dtype=object),
        "pose_loading": preparation.loading,
        "pose_mean": preparation.mean,
        "ar_weight": weight_bias[..., :-1],
        "ar_bias": weight_bias[..., -1],
        "ar_covariance": parameters.dynamics.covariance[order],
        "state_usage": parameters.usage[order],
        "transition_probability": parameters.transition[order][:, order],
        "trace_stage": np.asarray(trace.stage, dtype=object),
        "trace_log_likelihood": trace.log_likelihood,
        "trace_log_probability": np.asarray(terms),
        "trace_kappa": trace.kappa,
        "trace_median_duration": trace.median_duration,
        "trace_n_used": trace.n_used,
        "trace_usage": np.stack(trace.usage)[:, order],
        "trace_seconds": trace.seconds,
    }
    if outcome.noise_variance is not None:
        values["noise_variance"] = outcome.noise_variance
    return values
