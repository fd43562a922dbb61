"""A small study that every command takes: confidences, groups, change points, a posed model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import kpms_zarr
from helpers import changing
from helpers.ar_labels import publish, simulate

LENGTHS = (900, 620, 700, 640)
NAMES = tuple(f"s{row}" for row in range(len(LENGTHS)))
FPS = 30
# The front comes first; the model has three of these.
KEYPOINTS = ("nose", "ear", *(f"p{i}" for i in range(2, changing.N_POINTS - 1)), "tail")


class Tables(NamedTuple):
    """Files that commands read."""

    groups: Path
    regrouped: Path
    epochs: Path
    times: Path
    signal: Path


def write_study(store: Path) -> None:
    """Write sessions s0 to s3 with a model ``m`` of four syllables, one of them split in two."""
    rng = np.random.default_rng(0)
    arrays, confidences = {}, {}
    for row, (name, n) in enumerate(zip(NAMES, LENGTHS, strict=True)):
        position, _ = changing.together(n / FPS + 1, FPS, row)
        confidence = rng.uniform(0.4, 1, (n, len(KEYPOINTS)))
        error = rng.normal(size=(n, len(KEYPOINTS), 2)) * (0.1 / confidence)[..., None]
        arrays[name], confidences[name] = position[:n] + error, confidence
    kpms_zarr.ingest(
        store, arrays=arrays, confidences=confidences, keypoint_names=list(KEYPOINTS), fps=FPS,
        anterior=["nose"], posterior=["tail"],
    )  # fmt: skip
    publish(store, simulate(lengths=LENGTHS))
    kpms_zarr.build_levels(store, "m")


def write_tables(folder: Path) -> Tables:
    """Write tables of the sessions into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Tables(*(folder / f"{name}.csv" for name in Tables._fields))
    rows = [f"{name},{'ab'[row % 2]},mouse{row}" for row, name in enumerate(NAMES)]
    found.groups.write_text("\n".join(["session,group,animal", *rows]) + "\n")
    rows = [f"{name},{row},mouse{row % 2}" for row, name in enumerate(NAMES)]
    found.regrouped.write_text("\n".join(["session,group,animal", *rows]) + "\n")
    rows = [f"{name},{10 * i},{10 * i + 9},{'xy'[i]}" for name in NAMES for i in (0, 1)]
    found.epochs.write_text("\n".join(["session,start_s,stop_s,condition", *rows]) + "\n")
    rows = [
        f"{name},{frame},{frame / 29.5:.6f}"
        for name, n in zip(NAMES, LENGTHS, strict=True)
        for frame in range(n)
    ]
    found.times.write_text("\n".join(["session,frame,time_s", *rows]) + "\n")
    rows = [
        f"{name},{i / 10},{np.sin(i / 7):.4f}"
        for name, n in zip(NAMES, LENGTHS, strict=True)
        for i in range(n // 3)
    ]
    found.signal.write_text("\n".join(["session,time_s,dff", *rows]) + "\n")
    return found
