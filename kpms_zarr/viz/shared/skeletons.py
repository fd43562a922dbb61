"""Skeletons: which keypoints a line joins, the colours of keypoints, and poses as drawings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import holoviews as hv
import numpy as np
from bokeh.palettes import Plasma256

from kpms_zarr.viz.shared.style import hover_tool

POSE_COLORS = ("#0072b2", "#7b8794", "#d55e00")
"""Of a pose moved down, the mean one, and a pose moved up along a component."""

_LIGHTEST = 175  # Of 256: lighter ones are hard to see on white.


def bones(skeleton: Iterable[tuple[str, str]], names: Sequence[str]) -> list[tuple[int, int]]:
    """Bones as rows of ``names``; over a keypoint that is not there one bone takes two's place.

    Parameters
    ----------
    skeleton : iterable of (str, str)
        Names of the two ends of each bone, such as ``StudySettings.skeleton``.
    names : sequence of str
        Keypoints that are drawn.

    Returns
    -------
    list of (int, int)
        Ascending, each bone once.
    """
    found = {frozenset(bone) for bone in skeleton}
    for gone in sorted({name for bone in found for name in bone} - set(names)):
        ends = sorted({name for bone in found if gone in bone for name in bone} - {gone})
        found = {bone for bone in found if gone not in bone}
        found |= {frozenset(ends)} if len(ends) == 2 else set()
    row = {name: index for index, name in enumerate(names)}
    rows = (sorted(row[name] for name in bone) for bone in found if len(bone) == 2)
    return sorted((pair[0], pair[1]) for pair in rows)


def keypoint_colors(n_keypoints: int) -> list[str]:
    """Colours of the keypoints of a study, in its order: from dark blue over red to orange.

    They differ in lightness, for colour-blind eyes, and none is too light on white. Neighbours
    are alike, so that a name or a hover box must say which keypoint is meant.

    Returns
    -------
    list of str
        ``"#rrggbb"``.
    """
    places = np.linspace(0, _LIGHTEST, n_keypoints).round().astype(int)
    return [str(Plasma256[place]) for place in places]


def moved_poses(
    mean: np.ndarray, move: np.ndarray, joined: Sequence[tuple[int, int]], names: Sequence[str]
) -> list[hv.Element]:
    """Skeletons at minus two, zero and plus two standard deviations of one component.

    Parameters
    ----------
    mean, move : ndarray, (keypoint, 2)
        Mean pose, and what one standard deviation adds to it.
    joined : sequence of (int, int)
        Result of :func:`bones`.
    names : sequence of str
        Keypoints.

    Returns
    -------
    list of holoviews.Element
        A Path and Points for each of the three.
    """
    parts: list[hv.Element] = []
    hover = hover_tool(("keypoint", "@keypoint"), ("standard deviations", "@amount"))
    for color, amount in zip(POSE_COLORS, (-2, 0, 2), strict=True):
        point = mean + amount * move
        table = (point[:, 0], point[:, 1], list(names), np.full(len(names), f"{amount:+d}"))
        lines = [point[list(bone)] for bone in joined]
        parts += [
            hv.Path(lines, kdims=["x", "y"]).opts(color=color, line_width=2, default_tools=[]),
            hv.Points(table, kdims=["x", "y"], vdims=["keypoint", "amount"]).opts(
                color=color, size=6, default_tools=[], tools=[hover]
            ),
        ]
    return parts
