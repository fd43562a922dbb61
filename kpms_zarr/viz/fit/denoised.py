"""Tracked against denoised positions, where the tracking is bad."""

from __future__ import annotations

from dataclasses import dataclass

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.model.reconstruction import reconstruct
from kpms_zarr.store.study.tracking import read_tracked
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import LINE, MUTED, frame, hover_tool
from kpms_zarr.viz.shared.times import TIME_AXIS, clock_hover
from kpms_zarr.viz.shared.views import view

CONFIDENCE_THRESHOLD = 0.5
"""Below it a keypoint is drawn as badly tracked."""

_SCANNED_FRAMES = 65_536
_MAX_SHOWN_FRAMES = 5_000
_POOR = "#d55e00"
_MISSING = "#d5dbe1"


@dataclass(frozen=True)
class DenoisedStretch:
    """Some frames of a session with the first coordinate of some keypoints, worst first.

    Attributes
    ----------
    start : int
        First frame.
    tracked, denoised : ndarray, (frame, keypoint)
        In units of position; a missing position is NaN in ``tracked``.
    confidence : ndarray, (frame, keypoint)
        NaN = not given.
    is_poor : ndarray, (frame, keypoint) bool
        Missing, or of low confidence.
    """

    session: Session
    start: int
    keypoints: tuple[str, ...]
    tracked: np.ndarray
    denoised: np.ndarray
    confidence: np.ndarray
    is_poor: np.ndarray


@view
def denoised(
    opened: OpenModel,
    *,
    session: str | None = None,
    seconds: float = 10.0,
    max_keypoints: int = 3,
) -> hv.Layout:
    """Stretch of a session with bad tracking: tracked positions, and those of the model.

    Parameters
    ----------
    session : str, optional
        Name (default: the first).
    seconds : float
        Length of the stretch, which is found in the first 65,536 frames.
    max_keypoints : int
        At most so many, those of the worst tracking.

    Returns
    -------
    holoviews.Layout
        An Overlay a keypoint of its first coordinate over time in s: frames without a position
        as VSpans, the denoised one as a Curve, the tracked ones as two Scatters (confident, and
        of low confidence).

    Raises
    ------
    MissingData
        When the version has no poses.
    """
    stretch = find_stretch(opened, session=session, seconds=seconds, max_keypoints=max_keypoints)
    panels = [_panel(stretch, column) for column in range(len(stretch.keypoints))]
    return hv.Layout(panels).cols(1)


def find_stretch(
    opened: OpenModel,
    *,
    session: str | None = None,
    seconds: float = 10.0,
    max_keypoints: int = 3,
) -> DenoisedStretch:
    """Find the stretch of frames and the keypoints that :func:`denoised` shows.

    What helps a person is bad tracking beside good, not frames without an animal: runs of bad
    frames longer than a quarter of the stretch count only when there are no others, and a keypoint
    that is bad in a share ``p`` of the frames counts ``min(p, 1 - p)``. Where nothing is missing
    or of low confidence, positions far from the denoised ones count as bad.
    """
    names = opened.pose.keypoints
    which = None if session is None else [session]
    chosen = reading.label_sessions(opened.labels, names=which)[0]
    n_frames = min(chosen.n_frames, _SCANNED_FRAMES)
    position = reconstruct(opened.store, opened.model, chosen.name, version=opened.version)
    smooth = position[:n_frames, :, 0].values
    raw, confidence = _tracked(opened.tracked, chosen.name, names, n_frames)
    is_poor = np.isnan(raw) | (confidence < CONFIDENCE_THRESHOLD)
    distance = np.abs(raw - smooth)
    width = min(n_frames, _MAX_SHOWN_FRAMES, max(2, round(seconds * chosen.fps)))
    start, worst = _worst(is_poor, distance, width, max_keypoints)
    rows = slice(start, start + width)
    return DenoisedStretch(
        chosen,
        start,
        tuple(names[column] for column in worst),
        raw[rows, worst],
        smooth[rows, worst],
        confidence[rows, worst],
        is_poor[rows, worst],
    )


def _tracked(
    data: xr.Dataset, session: str, keypoints: tuple[str, ...], n_frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """First coordinate and confidence (frame, keypoint) as tracked; NaN = missing, not given."""
    row = [str(name) for name in data["session"].values].index(session)
    stored = [str(name) for name in data["keypoint"].values]
    columns = [stored.index(name) for name in keypoints]
    position, confidence = read_tracked(data, row, slice(0, n_frames))
    return position[:, columns, 0], confidence[:, columns]


def _worst(
    is_poor: np.ndarray, distance: np.ndarray, width: int, max_keypoints: int
) -> tuple[int, list[int]]:
    """First frame of the stretch, and columns of the keypoints to show."""
    is_bad = _short_runs(is_poor, width // 4)
    if not is_bad.any():
        is_bad = is_poor
    if not (is_bad.any(0) & ~is_bad.all(0)).any():
        usual = np.nanmedian(np.where(np.isnan(distance).all(0), 0, distance), axis=0)
        is_bad = distance > 5 * usual
    total = np.concatenate([np.zeros((1, is_bad.shape[1]), int), np.cumsum(is_bad, axis=0)])
    starts = np.arange(0, len(is_bad) - width + 1, max(1, width // 20))
    share = (total[starts + width] - total[starts]) / width
    score = np.minimum(share, 1 - share)
    best = int(np.sort(score, axis=1)[:, -max_keypoints:].sum(1).argmax())
    start = int(starts[best])
    near = np.nan_to_num(distance[start : start + width]).mean(0)
    order = np.lexsort((-near, -score[best]))
    n_bad = int((score[best] > 0).sum())
    return start, [int(column) for column in order[: min(max_keypoints, max(2, n_bad))]]


def _short_runs(which: np.ndarray, longest: int) -> np.ndarray:
    """Keep the runs along axis 0 of at most ``longest`` frames."""
    kept = np.zeros_like(which)
    for column, values in enumerate(which.T):
        edge = np.diff(np.concatenate([[0], values.astype(np.int8), [0]]))
        length = np.flatnonzero(edge == -1) - np.flatnonzero(edge == 1)
        kept[values, column] = np.repeat(length <= longest, length)
    return kept


def _panel(stretch: DenoisedStretch, column: int) -> hv.Overlay:
    """Panel of one keypoint; the axis shows as much again on either side of the denoised ones."""
    name, fps = stretch.keypoints[column], stretch.session.fps
    time = (stretch.start + np.arange(len(stretch.tracked))) / fps
    raw, smooth = stretch.tracked[:, column], stretch.denoised[:, column]
    poor, confidence = stretch.is_poor[:, column], stretch.confidence[:, column]
    hover = hover_tool(
        ("time", "@time{custom}"), ("tracked x", "@x{0.0}"), ("confidence", "@confidence{0.00}"),
        formatters={"@time": clock_hover()},
    )  # fmt: skip
    style = {
        **frame(250),
        "title": f"{name}: missing or of low confidence in {100 * poor.mean():.0f} % of the frames",
        "xlim": (float(time[0]), float(time[-1])),
        "ylim": _limits(raw, smooth),
        "xlabel": TIME_AXIS,
        "ylabel": "x (tracking units)",
    }
    line = hv.Curve((time, smooth), kdims=["time"], vdims=["denoised"], label="denoised")
    good = _dots(time, raw, confidence, ~poor, "tracked")
    bad = _dots(time, raw, confidence, poor & ~np.isnan(raw), "tracked, low confidence")
    parts = [
        _gaps(np.isnan(raw), time, 1 / fps),
        good.opts(color=MUTED, line_color=None, size=5, alpha=0.5, tools=[hover], default_tools=[]),
        line.opts(**style, color=LINE, line_width=2),
        bad.opts(
            line_color=_POOR,
            fill_alpha=0,
            line_width=1.5,
            size=6,
            tools=[hover],
            default_tools=[],
        ),
    ]
    return hv.Overlay(parts).opts(**style, show_legend=False)


def _dots(
    time: np.ndarray, x: np.ndarray, confidence: np.ndarray, which: np.ndarray, label: str
) -> hv.Scatter:
    table = (time[which], x[which], confidence[which])
    return hv.Scatter(table, kdims=["time"], vdims=["x", "confidence"], label=label)


def _gaps(is_missing: np.ndarray, time: np.ndarray, step: float) -> hv.VSpans:
    """Grey spans where there is no position."""
    edge = np.diff(np.concatenate([[0], is_missing.astype(int), [0]]))
    first, last = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1) - 1
    spans = (time[first] - step / 2, time[last] + step / 2)
    return hv.VSpans(spans).opts(color=_MISSING, line_width=0, alpha=0.7, default_tools=[])


def _limits(raw: np.ndarray, smooth: np.ndarray) -> tuple[float, float]:
    finite = smooth[np.isfinite(smooth)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    span = max(high - low, 1e-6 * max(abs(low), abs(high), 1e-9))
    seen = raw[~np.isnan(raw)]
    if len(seen):
        low = min(low, max(float(seen.min()), low - span))
        high = max(high, min(float(seen.max()), high + span))
    pad = 0.06 * max(high - low, span)
    return low - pad, high + pad
