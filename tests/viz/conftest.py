"""A small store with a published model whose labels are the simulated truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kpms_zarr
from helpers.browser import Server
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model import models
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store

STUDY = SyntheticStudy(n_sessions=3, n_frames=3000, is_ragged=True)
N_STATES = STUDY.n_syllables + 3
TWO_STAGES = SyntheticStudy(
    n_sessions=2, n_frames=1500, outlier_fraction=0.03, missing_fraction=0.02, seed=3
)
WHOLE = SyntheticStudy(
    n_sessions=4, n_frames=900, n_keypoints=6, n_latent=3, n_syllables=5, outlier_fraction=0.12,
    missing_fraction=0.02,
)  # fmt: skip
N_SWEEPS = (30, 120)
KEYPOINTS = ("point0", "point2", "point3", "point5", "point7")
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


def two_stage_traces(n_ar: int = N_SWEEPS[0], n_full: int = N_SWEEPS[1]) -> dict[str, Any]:
    """Traces of a fit in two stages, much like those of a real one."""
    ar, full = np.arange(n_ar), np.arange(n_full)
    terms = ["syllable", "latent", "centroid", "noise_scale", "position"]
    part = np.full((n_ar + n_full, len(terms)), np.nan)
    part[:n_ar, 0], part[:n_ar, 1] = -0.4, 7.3 - np.exp(-ar / 5)
    for column, (level, size) in enumerate(
        [(-0.5, 0.1), (6.0, 1.0), (-3.0, 0.2), (-9.0, 2.0), (-20.0, 30.0)]
    ):
        part[n_ar:, column] = level - size * np.exp(-full / 3) + 0.01 * np.sin(full)
    both = np.concatenate
    return {
        "term": terms,
        "trace_stage": ["ar"] * n_ar + ["full"] * n_full,
        "trace_log_probability": part,
        "trace_log_likelihood": np.nansum(part, axis=1),
        "trace_log_evidence": both([-2 - 1 / (1 + ar), -26 - 5 / (1 + full)]),
        "trace_kappa": both([10 ** (6 - 0.02 * ar), np.full(n_full, 1e4)]),
        "trace_median_duration": both([2 + ar // 4, 9 + np.minimum(full // 20, 3)]).astype(float),
        "trace_n_used": both([40 - ar // 2, 25 - np.minimum(full // 20, 5)]),
        "trace_usage": np.full((n_ar + n_full, N_STATES), 1 / N_STATES),
        "trace_seconds": np.ones(n_ar + n_full),
    }


def publish_two_stages(
    store: Path,
    *,
    model: str = "two",
    study: SyntheticStudy = TWO_STAGES,
    keypoints: tuple[str, ...] = KEYPOINTS,
    scale: float = 0.5,
    settings: dict[str, Any] | None = None,
) -> None:
    """Publish the simulated truth as if the full stage had found it, for some keypoints.

    The pose parameters are those of least squares on the frames in which all is well tracked.
    """
    root = access.open_group(store, "r+")
    sessions = access.sessions(root)
    chosen = [study.settings.keypoints.index(name) for name in keypoints]
    data = [simulate_session(study, i) for i in range(study.n_sessions)]
    rows, poses = [], []
    for one in data:
        turn = np.exp(-1j * one.heading)[:, None]
        moved = (one.position - one.centroid[:, None])[:, chosen]
        plane = (moved[..., 0] + 1j * moved[..., 1]) * turn
        pose = moved.copy()
        pose[..., 0], pose[..., 1] = plane.real, plane.imag
        good = (one.confidence[:, chosen] > 0.5).all(1)
        rows.append(np.column_stack([np.ones(good.sum()), one.latent[good]]))
        poses.append(pose[good] / scale)
    pose = np.concatenate(poses)
    found = np.linalg.lstsq(np.concatenate(rows), pose.reshape(len(pose), -1), rcond=None)[0]
    found = found.reshape(-1, len(chosen), study.n_space)
    writer = models.LabelWriter(
        root,
        model,
        sessions=sessions,
        settings=replace(study.settings, keypoints=keypoints),
        names=("syllable", "latent", "centroid", "heading", "noise_scale"),
        n_latent=study.n_latent,
        scale=[scale] * len(sessions),
    )
    values = {
        "keypoint": list(keypoints),
        "space": list(study.settings.space),
        "pose_loading": found[1:],
        "pose_mean": found[0],
        "noise_variance": np.ones(len(keypoints)),
        **two_stage_traces(),
    }
    settings = SETTINGS if settings is None else settings
    models.write_parameters(root, model, writer.version, values, settings)
    for block in iter_blocks(sessions, writer.block_frames):
        one, rows_of = data[block.session], slice(block.start, block.stop)
        per_frame = {n: getattr(one, n)[rows_of] for n in ("latent", "centroid", "heading")}
        noise = np.ones((block.n_frames, len(keypoints)))
        writer.write(block, {**per_frame, "syllable": one.syllable[rows_of], "noise_scale": noise})
    writer.publish("fit", settings, statistics(truth(study), fps=study.fps))


@pytest.fixture(scope="session")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store whose model ``two`` was fitted in two stages on five of the eight keypoints."""
    path = tmp_path_factory.mktemp("viz") / "two.zarr"
    write_store(path, TWO_STAGES)
    publish_two_stages(path)
    return path


def annotated(store: Path, n: int = 400) -> pd.DataFrame:
    """Annotations of the first session, as far off the tracking as its confidences say."""
    data, rng = access.dataset(store, "keypoints").isel(session=0), np.random.default_rng(0)
    confidence = data["confidence"].values
    chosen = [rng.choice(np.argwhere(which), n // 2) for which in
              ((confidence > 0) & (confidence < 0.5), confidence > 0.8)]  # fmt: skip
    frame, point = np.concatenate(chosen).T
    spread = 0.5 / np.sqrt(confidence[frame, point])
    at = data["position"].values[frame, point] + rng.normal(size=(len(frame), 2)) * spread[:, None]
    columns = {"session": str(data["session"].values), "frame": frame, "x": at[:, 0], "y": at[:, 1]}
    names = [str(one) for one in data["keypoint"].values]
    return pd.DataFrame(columns).assign(keypoint=[names[one] for one in point])


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study in which every page of explore has something to draw; tests only read it."""
    folder = tmp_path_factory.mktemp("whole")
    path, table = folder / "study.zarr", folder / "table.csv"
    write_store(path, WHOLE)
    rows = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(WHOLE.session_names)]
    table.write_text("\n".join(["session,group", *rows, ""]))
    kpms_zarr.annotate(path, table)
    kpms_zarr.quality(path)
    kpms_zarr.calibrate(path, annotations=annotated(path))
    kpms_zarr.pca(path)
    kpms_zarr.changepoints(path)
    publish_two_stages(path, study=WHOLE, keypoints=WHOLE.settings.keypoints)
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store with the model ``m``; tests only read it."""
    path = tmp_path_factory.mktemp("viz") / "study.zarr"
    write_store(path, STUDY)
    publish(path, truth())
    return path


@pytest.fixture(scope="session")
def served(store: Path) -> Iterator[Server]:
    """The application on that store."""
    one = Server(store)
    yield one
    one.stop()


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
        publish_two_stages=publish_two_stages,
        two_stage_traces=two_stage_traces,
        two_stage_study=TWO_STAGES,
        whole_study=WHOLE,
        n_sweeps=N_SWEEPS,
        keypoints=KEYPOINTS,
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A store of its own without a model."""
    path = tmp_path / "own.zarr"
    write_store(path, STUDY)
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """A function that writes pictures (row, column, rgb) as a video file."""
    av = pytest.importorskip("av")

    def write(
        path: Path,
        pictures: Iterable[np.ndarray],
        *,
        codec: str = "mpeg4",
        fps: int = 30,
        times: Sequence[int] | None = None,
        keyframe_every: int = 40,
        b_frames: int | None = 2,
        pixels: str = "yuv420p",
        options: dict[str, str] | None = None,
    ) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps, options=options or {})
            stream.pix_fmt = pixels
            stream.codec_context.gop_size = keyframe_every
            if b_frames is not None:
                stream.codec_context.max_b_frames = b_frames
            base = Fraction(1, 1000 if times else fps)  # times are in ms
            stream.codec_context.time_base = base
            for number, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if not number:
                    stream.width, stream.height = frame.width, frame.height
                frame.pts, frame.time_base = times[number] if times else number, base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write
