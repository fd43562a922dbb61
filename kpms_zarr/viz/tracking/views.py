"""Views of the tracking quality: sessions by keypoints, confidences, traces of keypoints."""

from __future__ import annotations

from collections.abc import Sequence

import holoviews as hv
import numpy as np

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.tracking import open_quality
from kpms_zarr.viz.shared.style import load
from kpms_zarr.viz.tracking.data import QualityTable, confidences, table
from kpms_zarr.viz.tracking.drawing import draw_confidences, draw_map, draw_traces
from kpms_zarr.viz.tracking.frames import read_traces


def quality_map(
    store: StoreLike,
    *,
    what: str = "missing",
    order: str = "worst",
    first: int = 0,
    max_sessions: int = 40,
) -> hv.HeatMap:
    """Heat map of how much of each keypoint of each session is badly tracked.

    Parameters
    ----------
    store : path or URL
    what : str
        ``"missing"``, ``"low_confidence"`` or ``"outlier"``.
    order : str
        ``"worst"``: sessions with the worst keypoint first; ``"store"``: as in the store.
    first, max_sessions : int
        Rows of that order that are drawn.

    Returns
    -------
    holoviews.HeatMap
        kdims keypoint and session; vdims band (of the share, for the colour), the three shares
        in %, longest gap and beginning of the worst 10 s in s.

    Raises
    ------
    InputError
        When the quality was not counted yet, or for an unknown ``what`` or ``order``.
    """
    load()
    sessions = {session.name: session for session in access.sessions(store)}
    found = table(
        open_quality(store).load(),
        sessions,
        what=what,
        order=order,
        first=first,
        max_sessions=max_sessions,
    )
    return draw_map(found, what=what)


def confidence_histograms(
    store: StoreLike,
    *,
    session: str | None = None,
    keypoint: str | None = None,
    max_keypoints: int = 12,
) -> hv.Layout:
    """Histograms of how confident the tracker was of each keypoint.

    Parameters
    ----------
    store : path or URL
    session : str, optional
        Name (default: all sessions together).
    keypoint : str, optional
        Only this one (default: those with most low confidences).
    max_keypoints : int

    Returns
    -------
    holoviews.Layout
        An Overlay a keypoint: a Histogram of the shares of the frames in %, with a session a
        Curve of all sessions beside it, and a line at the threshold.

    Raises
    ------
    InputError
        When the quality was not counted yet, or by an earlier release, and for unknown names.
    """
    load()
    quality = open_quality(store).load()
    found = confidences(quality, session=session, keypoint=keypoint, max_keypoints=max_keypoints)
    threshold = float(quality.attrs["confidence_threshold"])
    return draw_confidences(found, threshold=threshold, with_all=session is not None)


def keypoint_traces(
    store: StoreLike,
    *,
    session: str,
    start: float = 0.0,
    stop: float | None = None,
    keypoints: Sequence[str] | None = None,
) -> hv.Layout:
    """Keypoints over time: missing frames, low confidences and outliers are marked.

    What is marked is what ``kpms-zarr quality`` counts, with the thresholds of its last run. No
    trace has more than 2,000 points: of a long range the highest and the lowest positions of
    many short stretches are drawn, and of many marks those at the edges, so that a single bad
    frame is always seen. At most eight blocks of 16,384 frames are read.

    Parameters
    ----------
    store : path or URL
    session : str
        Name.
    start : float
        In s.
    stop : float, optional
        In s (default: the end).
    keypoints : sequence of str, optional
        (Default: the one that is missing, of low confidence or outlying most often.)

    Returns
    -------
    holoviews.Layout
        An Overlay for each keypoint and axis of space: VSpans of missing frames and of frames
        that were not read, a Curve of the position, Scatters of the marked frames.

    Raises
    ------
    InputError
        When the quality was not counted yet, for unknown names, and for an empty range.
    """
    load()
    quality = open_quality(store).load()
    data = access.dataset(store, layout.KEYPOINTS)
    row = _session(store, session)
    names = keypoints or [worst_keypoint(table(quality, {session: row}, what="missing"))]
    first, last = frames_between(row, start, stop)
    return draw_traces(
        read_traces(data, quality, row, start=first, stop=last, keypoints=list(names))
    )


def worst_keypoint(table: QualityTable) -> str:
    """Find the keypoint of the first session with the largest of all shares."""
    largest = np.nanmax([np.nan_to_num(share[0]) for share in table.share.values()], axis=0)
    return table.keypoints[int(largest.argmax())]


def frames_between(session: Session, start: float, stop: float | None) -> tuple[int, int]:
    """Convert a range of seconds to frames, at least one.

    Raises
    ------
    InputError
        When it lies outside the session, or ends before it begins.
    """
    end = session.n_frames / session.fps
    stop = end if stop is None else min(stop, end)
    if not (0 <= start < stop):
        raise InputError(
            expected=f"a range of seconds between 0 and {end:g}",
            found=f"{start:g} to {stop:g}",
            where=session.name,
            fix="begin before the end of the session, and end after the beginning",
        )
    first = min(int(start * session.fps + 1e-6), session.n_frames - 1)
    return first, min(session.n_frames, max(first + 1, int(np.ceil(stop * session.fps - 1e-6))))


def _session(store: StoreLike, name: str) -> Session:
    found = {session.name: session for session in access.sessions(store)}
    if name not in found:
        raise InputError(
            expected=f"a session of the store, such as {next(iter(found), '-')}",
            found=repr(name),
            where="session",
            fix="list them with: `kpms_zarr.info(STORE)`",
        )
    return found[name]
