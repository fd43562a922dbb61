"""Files of a simulated study: tracking as trackers write it, and the tables that belong to it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from kpms_zarr.store.study.mouse.study import EPOCHS, SIGNAL_RATE, MouseStudy
from kpms_zarr.store.study.synthetic import write_dlc_session


def write_files(folder: str | Path, study: MouseStudy) -> list[Path]:
    """Write a study; returns the tracking files.

    Parameters
    ----------
    folder : path
        Gets ``tracking/NAME.csv``, of DeepLabCut in 2-D and of anipose in 3-D; ``groups.csv`` for
        ``annotate``; ``epochs.csv``; ``photometry.csv`` for ``signals``; and ``truth.csv``, a
        csv file of labels with the simulated syllable of each frame.
    study : MouseStudy
    """
    folder = Path(folder)
    tracking = folder / "tracking"
    tracking.mkdir(parents=True, exist_ok=True)
    paths = []
    names = study.session_names
    rows = [(name, study.group(i)) for i, name in enumerate(names)]
    _write(folder / "groups.csv", ("session", "group"), rows)
    _write(folder / "epochs.csv", ("session", "start_s", "stop_s", "condition"), _epochs(study))
    with (
        (folder / "photometry.csv").open("w", newline="") as signals,
        (folder / "truth.csv").open("w", newline="") as labels,
    ):
        signals.write("session,time_s,photometry\n")
        labels.write("session,frame,syllable\n")
        for index, name in enumerate(names):
            session = study.session(index)
            path = tracking / f"{name}.csv"
            write = write_dlc_session if study.n_space == 2 else write_anipose
            write(path, study.settings.keypoints, session.position, session.confidence)
            paths.append(path)
            time = np.arange(len(session.signal)) / SIGNAL_RATE
            _append(signals, name, np.column_stack([time, session.signal]), ["%.3f", "%.4f"])
            truth = np.column_stack([np.arange(study.n_frames), session.syllable])
            _append(labels, name, truth, ["%d", "%d"])
    return paths


def write_anipose(
    path: Path, keypoints: Sequence[str], position: np.ndarray, confidence: np.ndarray
) -> None:
    """Write (frame, keypoint, 3) positions and (frame, keypoint) confidences as anipose csv."""
    header = [f"{name}_{what}" for name in keypoints for what in ("x", "y", "z", "score")]
    table = np.concatenate([position, confidence[..., None]], -1).reshape(len(position), -1)
    with path.open("w", newline="") as file:
        csv.writer(file).writerow([*header, "fnum"])
        np.savetxt(
            file,
            np.column_stack([table, np.arange(len(table))]),
            fmt=[*["%.3f"] * len(header), "%d"],
            delimiter=",",
        )


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _epochs(study: MouseStudy) -> list[tuple[str, str, str, str]]:
    """Intervals of each session; the last is open, to its end."""
    first = [np.searchsorted(study.epoch, i) / study.fps for i in range(len(EPOCHS))]
    edges = [*(f"{one:.3f}" for one in first), ""]
    return [
        (name, edges[i], edges[i + 1], epoch)
        for name in study.session_names
        for i, epoch in enumerate(EPOCHS)
    ]


def _append(file: TextIO, session: str, table: np.ndarray, formats: list[str]) -> None:
    np.savetxt(file, table, fmt=[f"{session},{formats[0]}", *formats[1:]], delimiter=",")
