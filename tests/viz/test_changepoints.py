"""Pictures of change points."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from kpms_zarr import viz
from kpms_zarr.viz.syllables.changepoints import curves_of

POINTS = xr.Dataset(
    {
        "peak_count": ("height", np.array([9, 4, 2])),
        "shifted_count": ("height", np.array([11.0, 2.0, 0.05])),
        "interval_count": ("change_interval", np.array([0, 3, 1, 0, 1])),
        "onset_score": ("lag", np.array([0.0, 1.0, 0.1])),
        "shifted_score": ("lag", np.zeros(3)),
        "shifted_quantile": (("quantile", "lag"), np.array([[-0.1] * 3, [0.1] * 3])),
    },
    {
        "height": [0.0, 1.0, 2.0],
        "change_interval": np.arange(1, 6) * 100.0,
        "lag": [-100.0, 0.0, 100.0],
        "session": ["a"],
    },
    {
        "threshold": 1.0, "median_interval": 200.0, "upper_quartile": 300.0,
        "target_duration": 150.0, "n_changepoints": 6, "window": 100.0, "model": "m",
        "n_onsets": 7, "onset_p": 0.01,
    },
)  # fmt: skip


def test_curves__are_what_was_counted():
    peaks, intervals, onsets = curves_of(POINTS)
    np.testing.assert_array_equal(peaks.lines[1][1], [15, 6, 2])
    assert intervals.bars[1].sum() == 5
    assert [at for at, _ in intervals.marks] == [200, 150]
    np.testing.assert_array_equal(onsets.band[2], [0.1] * 3)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg", "html"])
def test_file__is_written(tmp_path, suffix):
    path = tmp_path / f"points.{suffix}"
    assert viz.changepoints_file(POINTS, out=path) == path.stat().st_size > 1000
    if suffix == "png":
        assert (
            len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)) > 5
        )


def test_view__has_a_drawing_for_what_there_is():
    hv.renderer("bokeh").get_plot(viz.changepoints(POINTS))
    none = POINTS.drop_vars(["onset_score"]).assign_attrs(
        median_interval=np.nan, threshold=np.inf, n_changepoints=0
    )
    assert len(viz.changepoints(none)) == 1
    viz.changepoints(none)
