"""A published model that no fit has made: labels, pose and parameters at random."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model.models import LabelWriter, write_parameters
from kpms_zarr.store.study.settings import read_settings

N_LATENT, N_STATES = 3, 5


@dataclass
class Model:
    """What was written, by session."""

    syllable: dict[str, np.ndarray]
    latent: dict[str, np.ndarray]
    centroid: dict[str, np.ndarray]
    heading: dict[str, np.ndarray]


def bouts_of(rng: np.random.Generator, n_frames: int, n_without: int = 3) -> np.ndarray:
    """Labels in runs of 5 frames, the first frames without one."""
    labels = np.repeat(rng.integers(0, N_STATES, n_frames // 5 + 1), 5)[:n_frames]
    labels[:n_without] = -1
    return labels.astype(np.int16)


def publish_model(store: Path, model: str = "m", *, has_parameters: bool = True) -> Model:
    """Publish a model of all sessions of a store."""
    rng = np.random.default_rng(0)
    root = access.open_group(store, "r+")
    sessions, settings = access.sessions(root), read_settings(root)
    n_space, n_keypoints = len(settings.space), len(settings.keypoints)
    names = ("syllable", "certainty", "latent", "centroid", "heading")
    writer = LabelWriter(
        root, model, sessions=sessions, settings=settings, names=names, n_latent=N_LATENT
    )
    values: dict[str, dict[str, np.ndarray]] = {
        "syllable": {s.name: bouts_of(rng, s.n_frames) for s in sessions}
    }
    shapes = {"certainty": (), "latent": (N_LATENT,), "centroid": (n_space,), "heading": ()}
    for name, shape in shapes.items():
        values[name] = {
            s.name: rng.random((s.n_frames, *shape)).astype(np.float32) for s in sessions
        }
    for block in iter_blocks(sessions, writer.block_frames):
        name, part = sessions[block.session].name, slice(block.start, block.stop)
        writer.write(block, {key: arrays[name][part] for key, arrays in values.items()})
    if has_parameters:
        parameters = {
            "keypoint": np.asarray(settings.keypoints, dtype=object),
            "space": np.asarray(settings.space, dtype=object),
            "pose_loading": rng.normal(size=(N_LATENT, n_keypoints, n_space)),
            "pose_mean": rng.normal(size=(n_keypoints, n_space)),
        }
        write_parameters(root, model, writer.version, parameters, {})
    writer.publish("fit", {})
    return Model(*(values[name] for name in ("syllable", "latent", "centroid", "heading")))
