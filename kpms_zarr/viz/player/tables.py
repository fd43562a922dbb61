"""Tables of what the figures of a player show: the frames of its window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from kpms_zarr.viz.player.controls import LATENT
from kpms_zarr.viz.player.data import PlayerWindow
from kpms_zarr.viz.shared.picture_data import PictureTable

_AXES = ("x", "y", "z")


def window_table(
    window: PlayerWindow, figure: str, naming: Callable[[int], str], detail: str
) -> PictureTable:
    """Table behind one of the figures of a player.

    Parameters
    ----------
    figure : str
        Name of the figure; see :class:`~kpms_zarr.viz.player.figures.Figures`.
    naming : callable
        Name of a syllable.
    detail : str
        What the last trace is of: a keypoint, or the latent pose.

    Returns
    -------
    PictureTable
        A row for each frame, in the pose for each frame and keypoint, in the strip for each bout;
        ``frame`` of the session, and ``time_s`` since its first frame.
    """
    of_window = f"the {window.n_frames:,} frames of the window that is shown"
    if figure == "strip":
        return PictureTable(_bouts(window, naming), (f"bouts in {of_window}; cut at its ends",))
    if figure == "pose":
        return PictureTable(_poses(window), (of_window,))
    columns = {
        "speed": lambda: {"speed": window.speed},
        "heading": lambda: {"heading_rad": _or_none(window.heading, window)},
        "certainty": lambda: {"certainty": _or_none(window.certainty, window)},
        "arena": lambda: _by_axis("centroid", window.centroid),
        "video": lambda: {"video_frame": window.video_frame},
        "detail": lambda: _detail(window, detail),
    }.get(figure)
    rows = _frames(window) if columns is None else _frames(window).assign(**columns())
    if window.syllable is not None and figure in ("arena", "video", "epochs"):
        rows["syllable"] = window.syllable
    return PictureTable(rows, (of_window,))


def _frames(window: PlayerWindow) -> pd.DataFrame:
    return pd.DataFrame({"frame": window.frame, "time_s": window.clock})


def _or_none(values: np.ndarray | None, window: PlayerWindow) -> np.ndarray:
    return np.full(window.n_frames, np.nan) if values is None else values


def _by_axis(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}_{_AXES[axis]}": values[:, axis] for axis in range(values.shape[1])}


def _detail(window: PlayerWindow, detail: str) -> dict[str, np.ndarray]:
    if detail == LATENT:
        latent = window.latent
        n = 0 if latent is None else latent.shape[1]
        return {} if latent is None else {f"latent_{k}": latent[:, k] for k in range(n)}
    found: dict[str, np.ndarray] = {}
    if detail in window.keypoints:
        column = window.keypoints.index(detail)
        found |= _by_axis(f"{detail}_tracked", window.observed[:, column])
        found[f"{detail}_confidence"] = window.confidence[:, column]
    if window.denoised is not None and detail in window.model_keypoints:
        column = window.model_keypoints.index(detail)
        found |= _by_axis(f"{detail}_denoised", window.denoised[:, column])
    return found


def _poses(window: PlayerWindow) -> pd.DataFrame:
    names, n = window.keypoints, window.n_frames
    rows = _frames(window).loc[np.repeat(np.arange(n), len(names))].reset_index(drop=True)
    rows["keypoint"] = np.tile(np.array(names, dtype=object), n)
    for axis in range(window.n_space):
        rows[f"tracked_{_AXES[axis]}"] = window.observed[..., axis].reshape(-1)
    rows["confidence"] = window.confidence.reshape(-1)
    if window.denoised is not None:
        for axis in range(window.n_space):
            values = np.full((n, len(names)), np.nan, np.float32)
            for column, name in enumerate(window.model_keypoints):
                if name in names:
                    values[:, names.index(name)] = window.denoised[:, column, axis]
            rows[f"denoised_{_AXES[axis]}"] = values.reshape(-1)
    return rows


def _bouts(window: PlayerWindow, naming: Callable[[int], str]) -> pd.DataFrame:
    bouts = window.bouts()
    ends = np.append(window.clock, window.clock[-1] + 1 / window.session.fps)
    return pd.DataFrame({
        "start_frame": window.frame[bouts.start], "stop_frame": window.frame[0] + bouts.stop,
        "start_s": ends[bouts.start], "stop_s": ends[bouts.stop], "syllable": bouts.syllable,
        "name": [naming(one) if one >= 0 else "none" for one in bouts.syllable.tolist()],
    })  # fmt: skip
