"""A small store with a published model whose labels are the simulated truth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kpms_zarr.store import access, models
from kpms_zarr.store.blocks import iter_blocks
from kpms_zarr.store.synthetic import SyntheticStudy, simulate_session, write_store

STUDY = SyntheticStudy(n_sessions=3, n_frames=3000, is_ragged=True)
N_STATES = STUDY.n_syllables + 3
SETTINGS = {"kappa": 1e4, "data": {"folder": "/home/someone/secret/videos"}, "seed": 0}


def runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Naive oracle: syllable and length of every run."""
    found = [[int(labels[0]), 0]]
    for label in labels:
        if label != found[-1][0]:
            found.append([int(label), 0])
        found[-1][1] += 1
    return np.array(found).T[0], np.array(found).T[1]


def statistics(
    labels: list[np.ndarray], *, fps: float = STUDY.fps, n_states: int = N_STATES, n_bins: int = 300
) -> dict[str, Any]:
    """Statistics of a version, bout by bout."""
    frames = np.zeros(n_states)
    duration_count = np.zeros((n_states, n_bins), dtype=int)
    transition_count = np.zeros((n_states, n_states), dtype=int)
    lengths: list[list[float]] = [[] for _ in range(n_states)]
    for row in labels:
        syllable, length = runs(row)
        for state, n in zip(syllable, length, strict=True):
            if state >= 0:
                frames[state] += n
                duration_count[state, min(n, n_bins) - 1] += 1
                lengths[state].append(n * 1000 / fps)
        for a, b in pairwise(syllable):
            if min(a, b) >= 0:
                transition_count[a, b] += 1
    return {
        "frequency": frames / max(1, frames.sum()),
        "n_bouts": np.array([len(values) for values in lengths]),
        "median_duration": np.array([np.median(v) if v else np.nan for v in lengths]),
        "mean_duration": np.array([np.mean(v) if v else np.nan for v in lengths]),
        "duration_count": duration_count,
        "duration": np.arange(1, n_bins + 1) * 1000 / fps,
        "transition_count": transition_count,
    }


def truth(study: SyntheticStudy = STUDY) -> list[np.ndarray]:
    """The simulated labels, the first two frames of each session without a syllable."""
    labels = []
    for index in range(study.n_sessions):
        row = simulate_session(study, index).syllable.copy()
        row[:2] = -1
        labels.append(row)
    return labels


def publish(
    store: Path,
    labels: list[np.ndarray],
    *,
    model: str = "m",
    study: SyntheticStudy = STUDY,
    with_statistics: bool = True,
    with_parameters: bool = True,
) -> None:
    """Publish labels as a new version of a model."""
    root = access.open_group(store, "r+")
    writer = models.LabelWriter(
        root,
        model,
        sessions=access.sessions(root),
        settings=study.settings,
        names=("syllable",),
    )
    if with_parameters:
        n, decay = 30, np.exp(-np.arange(30) / 6)
        rng = np.random.default_rng(0)
        values = {
            "keypoint": list(study.settings.keypoints),
            "space": list(study.settings.space),
            "pose_loading": rng.normal(size=(4, study.n_keypoints, study.n_space)) * 5,
            "pose_mean": rng.normal(size=(study.n_keypoints, study.n_space)) * 20,
            "trace_log_likelihood": -3 - 4 * decay,
            "trace_kappa": 10 ** (5 - 3 * decay),
            "trace_median_duration": 12.0 - np.rint(10 * decay),
            "trace_n_used": 12 + np.rint(3 * decay).astype(int),
            "trace_usage": np.full((n, N_STATES), 1 / N_STATES),
            "trace_seconds": np.ones(n),
        }
        models.write_parameters(root, model, writer.version, values, SETTINGS)
    for block in iter_blocks(access.sessions(root), writer.block_frames):
        writer.write(block, {"syllable": labels[block.session][block.start : block.stop]})
    writer.publish("fit", SETTINGS, statistics(labels, fps=study.fps) if with_statistics else None)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store with the model ``m``; tests only read it."""
    path = tmp_path_factory.mktemp("viz") / "study.zarr"
    write_store(path, STUDY)
    publish(path, truth())
    return path


@pytest.fixture
def labels() -> list[np.ndarray]:
    """The labels in ``store``, one array a session."""
    return truth()


@pytest.fixture(scope="session")
def helpers() -> SimpleNamespace:
    """The functions and constants of this file, for tests that publish on their own."""
    return SimpleNamespace(
        study=STUDY,
        n_states=N_STATES,
        runs=runs,
        statistics=statistics,
        truth=truth,
        publish=publish,
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A store of its own without a model."""
    path = tmp_path / "own.zarr"
    write_store(path, STUDY)
    return path
