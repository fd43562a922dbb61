"""Results as analysis code written for keypoint-MoSeq reads them: an HDF5 file, or csv tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from kpms_zarr.store.export.source import ExportedSession, ExportSource

_DATASETS = {"latent_state": "latent", "centroid": "centroid", "heading": "heading"}
"""Name in the file -> variable of the labels."""
_ROWS_AT_ONCE = 65_536


class FilledLabels:
    """Labels of a session as the published package writes them: from the first frame on.

    It repeats the first label for the frames that lack one because the model needs frames before
    them; other frames without a label are -1.

    Parameters
    ----------
    source : ExportSource
    session : ExportedSession

    Attributes
    ----------
    first : int
        The first frame that has a label of its own.
    n_without : int
        Frames behind it without one, of those read so far.
    """

    def __init__(self, source: ExportSource, session: ExportedSession) -> None:
        self._source, self._session = source, session
        self.first, self.n_without = source.first_labelled(session), 0
        self._label = -1
        if self.first < session.n_frames:
            frame = slice(self.first, self.first + 1)
            self._label = int(source.read("syllable", session, frame)[0])

    def read(self, frames: slice) -> np.ndarray:
        """Labels of some frames, (frame,) int64."""
        labels = self._source.read("syllable", self._session, frames).astype(np.int64)
        labels[: max(0, self.first - frames.start)] = self._label
        self.n_without += int((labels < 0).sum())
        return labels

    def note(self) -> None:
        """Say what was filled in and what was not."""
        if 0 < self.first < self._session.n_frames:
            what = "before the first label, which they are given"
            self._source.note_unlabelled(self._session, self.first, what)
        self._source.note_unlabelled(self._session, self.n_without, "are -1")


def write_results(source: ExportSource, path: Path) -> None:
    """Write the results of all sessions into one HDF5 file, block by block.

    A group for each session, with ``syllable`` (frame,) int64, ``latent_state``
    (frame, latent_dim), ``centroid`` (frame, space) and ``heading`` (frame,) in rad, float64,
    uncompressed. Attributes that the published file does not have: of a group ``fps``,
    ``n_frames`` and ``first_labelled_frame``, of a dataset its ``units``, of the file its model and
    versions.
    """
    units = {"centroid": source.units, "heading": "rad", "latent_state": "model units"}
    with h5py.File(path, "w") as file:
        file.attrs.update(source.facts())
        for session in source.sessions:
            group = file.create_group(session.name)
            labels = FilledLabels(source, session)
            group.attrs.update(
                type="dict", fps=session.fps, n_frames=session.n_frames,
                first_labelled_frame=labels.first,
            )  # fmt: skip
            columns = {name: var for name, var in _DATASETS.items() if source.has(var)}
            arrays: dict[str, Any] = {
                "syllable": group.create_dataset("syllable", (session.n_frames,), np.int64)
            }
            for name, variable in columns.items():
                shape: tuple[int, ...] = (session.n_frames,)
                shape += () if name == "heading" else (source.length_of(variable),)
                arrays[name] = group.create_dataset(name, shape, np.float64)
                arrays[name].attrs["units"] = units[name]
            for frames in source.blocks(session):
                arrays["syllable"][frames] = labels.read(frames)
                for name, variable in columns.items():
                    arrays[name][frames] = source.read(variable, session, frames)
            labels.note()


def write_table(
    source: ExportSource, session: ExportedSession, path: Path, *, is_plain: bool = False
) -> None:
    """Write the results of a session as a table, a row for each frame, block by block.

    The columns of the published table in its order, ``syllable``, ``centroid x``, ``centroid y``
    [, ``centroid z``], ``heading`` (rad), ``latent_state 0`` ..., with 4 decimals; behind them,
    unless ``is_plain``, ``frame``, ``time (s)`` (timestamps with 6 decimals) and, where they are
    known, ``certainty`` and ``name``.
    """
    labels = FilledLabels(source, session)
    with path.open("w", encoding="utf-8", newline="") as file:
        for whole in source.blocks(session):
            for start in range(whole.start, whole.stop, _ROWS_AT_ONCE):
                frames = slice(start, min(start + _ROWS_AT_ONCE, whole.stop))
                table = pd.DataFrame(_columns(source, session, labels, frames, is_plain))
                table.to_csv(file, index=False, header=start == 0, float_format="%.4f")
    labels.note()


def _columns(
    source: ExportSource,
    session: ExportedSession,
    labels: FilledLabels,
    frames: slice,
    is_plain: bool,
) -> dict[str, Any]:
    found: dict[str, Any] = {"syllable": labels.read(frames)}
    if source.has("centroid"):
        values = source.read("centroid", session, frames)
        found |= {f"centroid {axis}": values[:, i] for i, axis in enumerate(source.settings.space)}
    if source.has("heading"):
        found["heading"] = source.read("heading", session, frames)
    if source.has("latent"):
        values = source.read("latent", session, frames)
        found |= {f"latent_state {i}": values[:, i] for i in range(values.shape[1])}
    if is_plain:
        return found
    frame = np.arange(frames.start, frames.stop)
    time: np.ndarray = session.times.at(frames.start, frames.stop)
    if session.times.is_given:  # to the microsecond, where other columns have 4 decimals
        time = np.char.mod("%.6f", time)
    found |= {"frame": frame, "time (s)": time}
    if source.has("certainty"):
        found["certainty"] = source.read("certainty", session, frames).astype(np.float32)
    if any(source.names.names):
        distinct, place = np.unique(found["syllable"], return_inverse=True)
        names = [source.names.custom_name(int(one)) for one in distinct]
        found["name"] = np.asarray(names, dtype=object)[place]
    return found
