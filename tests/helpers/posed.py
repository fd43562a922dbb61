"""Small studies whose model has poses of known trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model import models
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store


def publish_posed(
    store: Any,
    study: SyntheticStudy,
    model: str,
    sessions: Mapping[str, Mapping[str, np.ndarray]],
    *,
    loading: np.ndarray,
    mean: np.ndarray,
) -> str:
    """Publish labels with poses of all sessions; returns their version.

    Parameters
    ----------
    sessions : mapping of str to mapping of str to ndarray
        By session: syllable (frame,), latent (frame, latent_dim), centroid (frame, space) and
        heading (frame,).
    loading : ndarray, (latent_dim, keypoint, space)
    mean : ndarray, (keypoint, space)
    """
    root = access.open_group(store, "r+")
    rows = access.sessions(root)
    writer = models.LabelWriter(
        root, model, sessions=rows, settings=study.settings, n_latent=len(loading),
        names=("syllable", "latent", "centroid", "heading"),
    )  # fmt: skip
    for block in iter_blocks(rows, writer.block_frames):
        part = slice(block.start, block.stop)
        found = sessions[rows[block.session].name]
        writer.write(block, {name: values[part] for name, values in found.items()})
    values = {
        "keypoint": list(study.settings.keypoints),
        "space": list(study.settings.space),
        "pose_loading": loading,
        "pose_mean": mean,
    }
    models.write_parameters(root, model, writer.version, values, {})
    return writer.publish("fit", {})


def bouts_of(
    rng: np.random.Generator, n_frames: int, n_states: int, mean: float = 12.0, least: int = 4
) -> np.ndarray:
    """Draw labels of bouts (frame,) int16, none followed by the same syllable."""
    n = n_frames // least + 2
    state = np.cumsum(rng.integers(1, n_states, n)) % n_states
    length = least + rng.geometric(1 / (mean - least), n) - 1
    return np.repeat(state, length)[:n_frames].astype(np.int16)


def write_posed(
    store: Any, *, n_space: int, lengths: tuple[int, ...] = (1500, 1200), seed: int = 0
) -> tuple[SyntheticStudy, dict[str, dict[str, np.ndarray]]]:
    """Write a study of random walks with a model ``m`` of three syllables; returns both."""
    study = SyntheticStudy(lengths=lengths, n_keypoints=4, n_space=n_space, seed=seed)
    write_store(store, study)
    rng = np.random.default_rng(seed)
    sessions = {}
    for name, n in zip(study.session_names, lengths, strict=True):
        sessions[name] = {
            "syllable": bouts_of(rng, n, 3),
            "latent": rng.normal(size=(n, 2)).astype(np.float32),
            "centroid": rng.normal(size=(n, n_space)).cumsum(0).astype(np.float32),
            "heading": rng.normal(0, 0.3, n).cumsum().astype(np.float32),
        }
    loading = rng.normal(size=(2, 4, n_space))
    mean = 10 * rng.normal(size=(4, n_space))
    publish_posed(store, study, "m", sessions, loading=loading, mean=mean)
    sessions["#"] = {"loading": loading, "mean": mean}
    return study, sessions
