"""A published model of simulated autoregressive states, its true labels split at will."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kpms_zarr
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.written import WrittenLabels
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model.models import LabelWriter, write_parameters
from kpms_zarr.store.study.settings import read_settings

LAGS, M, N = 2, 2, 8
LENGTHS = (900, 620, 2)
KEYPOINTS = ("tail", "nose", "ear")
SETTINGS = FitConfig(lags=LAGS, n_states=N, latent_dim=M).to_dict()
_ANGLE = (0.3, -0.5, 0.05, 0.9)
_TARGET = ((2.0, 0.0), (-2.0, 1.0), (0.0, -2.0), (1.5, 2.0))


class Simulated(NamedTuple):
    """What was written, by session: (frame,), (frame, latent), (frame, space), (frame,)."""

    syllable: dict[str, np.ndarray]
    latent: dict[str, np.ndarray]
    centroid: dict[str, np.ndarray]
    heading: dict[str, np.ndarray]


def turning(angle: float) -> np.ndarray:
    """Damped rotation, (latent, latent)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return 0.8 * np.array([[cos, -sin], [sin, cos]])


def simulate(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> Simulated:
    """Sessions of four states of different dynamics, in bouts of 8 to 20 frames."""
    rng = np.random.default_rng(seed)
    found = Simulated({}, {}, {}, {})
    for row, n in enumerate(lengths):
        z, state = np.zeros(n, np.int16), int(rng.integers(4))
        start = 0
        while start < n:
            length = int(rng.integers(8, 21))
            z[start : start + length] = state
            state, start = int((state + rng.integers(1, 4)) % 4), start + length
        x = np.zeros((n, M))
        for t in range(1, n):
            centre = np.asarray(_TARGET[z[t]])
            x[t] = centre + turning(_ANGLE[z[t]]) @ (x[t - 1] - centre) + rng.normal(0, 0.2, M)
        z[:LAGS] = z[min(LAGS, n - 1)]
        name = f"s{row}"
        found.syllable[name], found.latent[name] = z, x.astype(np.float32)
        found.centroid[name] = np.cumsum(rng.normal(0, 0.1, (n, 2)), 0).astype(np.float32)
        found.heading[name] = np.cumsum(rng.normal(0, 0.05, n)).astype(np.float32)
    return found


def make_store(path: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """Ingest a store with sessions of these lengths."""
    rng = np.random.default_rng(1)
    body = np.array([[-40.0, 0], [40, 0], [20, 15]])
    arrays = {
        f"s{row}": body + rng.normal(0, 5, (n, 1, 2)) + rng.normal(0, 2, (n, 3, 2))
        for row, n in enumerate(lengths)
    }
    kpms_zarr.ingest(
        path, arrays=arrays, keypoint_names=list(KEYPOINTS), fps=30, anterior=["nose"],
        posterior=["tail"],
    )  # fmt: skip
    return path


def publish(
    store: Path,
    data: Simulated,
    model: str = "m",
    *,
    relabel: Callable[[np.ndarray], np.ndarray] = lambda z: z,
    certainty: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    without: tuple[str, ...] = (),
    has_parameters: bool = True,
    parameters_version: str = "",
    statistics: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Publish the labels, changed by a function, with the pose; returns their version.

    ``certainty``: further variables by frame, by name and session; ``without``: variables that are
    left out; ``parameters_version``: of an earlier version whose syllables they have.
    """
    root = access.open_group(store, "r+")
    study = read_settings(root)
    sessions = tuple(one for one in access.sessions(root) if one.name in data.syllable)
    values: dict[str, Mapping[str, np.ndarray]] = {
        "syllable": {name: relabel(z) for name, z in data.syllable.items()},
        "latent": data.latent,
        "centroid": data.centroid,
        "heading": data.heading,
        **(certainty or {}),
    }
    values = {name: one for name, one in values.items() if name not in without}
    writer = LabelWriter(
        root, model, sessions=sessions, settings=study, names=tuple(values), n_latent=M,
        parameters_version=parameters_version,
    )  # fmt: skip
    for block in iter_blocks(sessions, writer.block_frames):
        name, part = sessions[block.session].name, slice(block.start, block.stop)
        writer.write(block, {key: one[name][part] for key, one in values.items()})
    every = np.concatenate([*values["syllable"].values()])
    frames = np.bincount(every[every >= 0], minlength=N)
    if has_parameters and not parameters_version:
        write_parameters(root, model, writer.version, _parameters(frames), SETTINGS)
    found = label_statistics(WrittenLabels(writer, 0), N)
    return writer.publish("fit", settings or {}, {**found, **(statistics or {})})


def _parameters(frames: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.ones(N), N) + 5 * np.eye(N)
    which = np.arange(N) % 4
    weight = np.zeros((N, M, LAGS * M))
    weight[:, :, -M:] = np.stack([turning(_ANGLE[one]) for one in which])
    bias = np.stack(
        [(np.eye(M) - turning(_ANGLE[one])) @ np.asarray(_TARGET[one]) for one in which]
    )
    return {
        "keypoint": np.asarray(KEYPOINTS, dtype=object),
        "space": np.asarray(("x", "y"), dtype=object),
        "pose_loading": rng.normal(size=(M, 3, 2)),
        "pose_mean": rng.normal(0, 20, (3, 2)),
        "ar_weight": weight,
        "ar_bias": bias,
        "ar_covariance": np.tile(0.04 * np.eye(M), (N, 1, 1)),
        "state_usage": frames / frames.sum(),
        "transition_probability": transition / transition.sum(1, keepdims=True),
        "trace_stage": np.asarray(["ar"], dtype=object),
        "trace_log_likelihood": np.zeros(1),
        "trace_kappa": np.array([50.0]),
        "trace_median_duration": np.array([10.0]),
        "trace_n_used": np.array([4]),
        "trace_usage": frames[None] / frames.sum(),
        "trace_seconds": np.zeros(1),
    }


def halved(state: int, new: int, seed: int = 5) -> Callable[[np.ndarray], np.ndarray]:
    """Label every second bout of a state, at random, with another number."""

    def relabel(z: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(seed)
        start = np.flatnonzero(np.append(True, z[1:] != z[:-1]))
        other = rng.random(len(start)) < 0.5
        bout = np.repeat(other, np.diff(np.append(start, len(z))))
        return np.where((z == state) & bout, new, z).astype(z.dtype)

    return relabel
