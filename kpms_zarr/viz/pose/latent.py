"""Effect of each latent dimension on the pose."""

from __future__ import annotations

import holoviews as hv
import numpy as np

from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.skeletons import bones as bones_of
from kpms_zarr.viz.shared.skeletons import moved_poses
from kpms_zarr.viz.shared.style import fixed_frame
from kpms_zarr.viz.shared.views import view

_POSE_SIZE = 250


@view
def poses(opened: OpenModel, *, max_latent: int = 8) -> hv.Layout:
    """Skeletons of what each latent dimension does to the aligned pose, in the first two axes.

    Parameters
    ----------
    max_latent : int

    Returns
    -------
    holoviews.Layout
        An Overlay of skeletons at -2, 0 and +2 standard deviations for each dimension.

    Raises
    ------
    MissingData
        When the version has no pose components.
    """
    data = opened.parameters_with("pose_loading", "pose_mean", "keypoint")
    names = [str(name) for name in data["keypoint"].values]
    mean = data["pose_mean"].values[:, :2]
    loading = data["pose_loading"].values[:max_latent, :, :2]
    joined = bones_of(opened.settings.skeleton, names)
    points = mean + 2 * np.concatenate([loading, -loading])
    middle = (points.max((0, 1)) + points.min((0, 1))) / 2
    half = 0.55 * np.maximum(np.ptp(points, axis=(0, 1)), 1e-9)
    half = np.maximum(half, half[::-1] * np.array([0.7, 0.4]))
    style = fixed_frame(middle, half, width=_POSE_SIZE)
    panels = [
        hv.Overlay(moved_poses(mean, move, joined, names)).opts(title=f"latent {index}", **style)
        for index, move in enumerate(loading)
    ]
    return hv.Layout(panels).cols(4)
