"""A window of a session as the columns that a player in the browser moves through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kpms_zarr.viz.player.data import PlayerWindow
from kpms_zarr.viz.shared.bands import EpochBand
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.style import short

_MARGIN = 1.12
_ROBUST = (0.5, 99.5)  # Percentiles: one lost keypoint must not make the animal small.
_TEXT_SHARE = 0.011
"""A letter takes up about this share of the width of the strip."""

Columns = dict[str, Any]


def frame_columns(window: PlayerWindow) -> Columns:
    """Columns of what changes from frame to frame, one row a frame; NaN = not known.

    Returns
    -------
    dict of str to ndarray, (frame,) or (frame, ...)
        ``frame``, ``video_frame``, ``time``, ``clock``, ``syllable``, ``certainty``, ``heading``,
        ``centroid`` (frame, space), ``confidence`` (frame, keypoint), and ``observed``,
        ``denoised`` (frame, keypoint x space).
    """
    n = window.n_frames
    unknown = np.full(n, np.nan, dtype=np.float32)
    none = np.full(n, -1, dtype=np.int32)
    columns = {
        "frame": window.frame.astype(np.int32),
        "video_frame": window.video_frame.astype(np.int32),
        "time": window.time,
        "clock": window.clock,
        "syllable": none if window.syllable is None else window.syllable.astype(np.int32),
        "certainty": unknown if window.certainty is None else window.certainty,
        "heading": unknown if window.heading is None else window.heading,
        "centroid": window.centroid,
        "confidence": window.confidence,
        "observed": window.observed.reshape(n, -1),
    }
    if window.denoised is not None:
        columns["denoised"] = window.denoised.reshape(n, -1)
    if window.latent is not None and window.latent.shape[1]:
        columns["latent"] = window.latent
    return columns


def bout_columns(window: PlayerWindow, name: Callable[[int], str]) -> Columns:
    """Bouts of the strip, one row each.

    Parameters
    ----------
    name : callable
        Name of a syllable.

    Returns
    -------
    dict of str to ndarray
        ``left``, ``right`` in s; ``onset``, the frame of the window at which the bout begins (-1
        where that lies before the window); ``syllable``, ``name``, ``color``; ``text`` that fits
        into the bout, its ``middle`` in s and its ``text_color``; ``duration`` in words.
    """
    bouts, fps = window.bouts(), window.session.fps
    syllable = bouts.syllable
    left = window.time[0] + bouts.start / fps if len(syllable) else np.zeros(0)
    right = left + (bouts.stop - bouts.start) / fps
    starts_before = (bouts.start == 0) & bool(window.frame[0] > 0)
    ends_after = (bouts.stop == window.n_frames) & bool(
        window.frame[-1] + 1 < window.session.n_frames
    )
    names = {int(one): name(int(one)) if one >= 0 else "none" for one in np.unique(syllable)}
    share = (bouts.stop - bouts.start) / window.n_frames / _TEXT_SHARE
    rows = list(zip(syllable.tolist(), share.tolist(), strict=True))
    length = zip((right - left).tolist(), (starts_before | ends_after).tolist(), strict=True)
    colors = {one: syllable_color(one) for one in names}
    return {
        "left": left,
        "right": right,
        "middle": (left + right) / 2,
        "onset": np.where(starts_before, -1, bouts.start).astype(np.int32),
        "syllable": syllable.astype(np.int32),
        "name": [names[one] for one, _ in rows],
        "color": [colors[one] for one, _ in rows],
        "text": [_fitting(one, names[one], space) for one, space in rows],
        "text_color": [ink_on(colors[one]) for one, _ in rows],
        "duration": [
            f"{'at least ' if cut else ''}{1000 * seconds:.0f} ms" for seconds, cut in length
        ],
    }


def band_columns(bands: tuple[EpochBand, ...], window: PlayerWindow) -> Columns:
    """Epochs of a session, one row an interval.

    Returns
    -------
    dict of str to list
        ``left``, ``right`` in s; ``name``, ``color``; ``text``, the name where it fits into what
        the window shows of the interval, and the ``middle`` of that in s.
    """
    first = float(window.time[0])
    length = window.n_frames / window.session.fps
    shown = [np.clip([one.start, one.stop], first, first + length).tolist() for one in bands]
    fits = [_TEXT_SHARE * len(one.name) < (b - a) / length
            for one, (a, b) in zip(bands, shown, strict=True)]  # fmt: skip
    return {
        "left": [one.start for one in bands],
        "right": [one.stop for one in bands],
        "name": [one.name for one in bands],
        "color": [one.color for one in bands],
        "text": [one.name if fit else "" for one, fit in zip(bands, fits, strict=True)],
        "middle": [sum(ends) / 2 for ends in shown],
    }


def path_columns(window: PlayerWindow) -> Columns:
    """Path of the centroid, one row a bout: ``xs``, ``ys``, ``color``."""
    bouts = window.bouts()
    start, stop = bouts.start, bouts.stop
    color = [syllable_color(int(one)) for one in bouts.syllable]
    if window.syllable is None:
        start, stop, color = np.array([0]), np.array([window.n_frames]), ["#52606d"]
    parts = [window.centroid[first : last + 1] for first, last in zip(start, stop, strict=True)]
    return {
        "xs": [part[:, 0] for part in parts],
        "ys": [part[:, 1] for part in parts],
        "color": color,
    }


def trace_columns(window: PlayerWindow) -> Columns:
    """Traces over time: ``time``, ``speed``, ``heading`` (broken where it goes round)."""
    columns = {"time": window.time, "speed": window.speed.astype(np.float32)}
    heading = np.full(window.n_frames, np.nan, dtype=np.float32)
    if window.heading is not None:
        heading = window.heading.astype(np.float32)
        goes_round = np.abs(np.diff(heading, prepend=heading[:1])) > np.pi
        heading = np.where(goes_round, np.float32(np.nan), heading)
    certainty = window.certainty
    columns["heading"] = heading
    columns["certainty"] = np.full(window.n_frames, np.nan) if certainty is None else certainty
    return columns


def extent(window: PlayerWindow) -> dict[str, list[float]]:
    """Extent that the views must show, in units of position.

    Returns
    -------
    dict
        ``radius``: of the animal around its centroid. ``low``, ``high``: corners of the box, one
        number for each axis of space, in which it moves in this window.
    """
    pose = window.observed if window.denoised is None else window.denoised
    # In float64: the square of what a file may hold is not one of float32.
    gap = np.linalg.norm(pose.astype(np.float64) - window.centroid[:, None], axis=-1)
    gap = gap[np.isfinite(gap)]
    radius = float(np.percentile(gap, _ROBUST[1])) if len(gap) else 1.0
    radius = _MARGIN * radius if radius > 0 else 1.0
    center = window.centroid[np.isfinite(window.centroid).all(1)]
    low, high = np.zeros(window.n_space), np.zeros(window.n_space)
    if len(center):
        low, high = np.percentile(center, _ROBUST, axis=0)
    return {"radius": [radius], "low": (low - radius).tolist(), "high": (high + radius).tolist()}


def ink_on(color: str) -> str:
    """Black or white, whichever is easier to read on a colour (WCAG 2 contrast)."""
    channel = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _fitting(syllable: int, name: str, n_letters: float) -> str:
    """The name of a syllable, as much of it as fits; its number where hardly any does."""
    if syllable < 0:
        return ""
    if len(name) <= n_letters:
        return name
    if n_letters >= 6:
        return short(name, int(n_letters))
    return str(syllable) if len(str(syllable)) <= n_letters else ""
