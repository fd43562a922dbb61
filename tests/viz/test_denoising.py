from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import holoviews as hv
import numpy as np
import pytest

from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.reconstruction import reconstruct
from kpms_zarr.viz.fit.denoised import denoised, find_stretch
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData


@pytest.fixture
def own(two_stages: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_stages, tmp_path / "own.zarr"))


def test_find_stretch__holds_what_was_tracked_and_what_was_made_of_it(
    two_stages: Path, helpers: SimpleNamespace
) -> None:
    found = find_stretch(OpenModel(two_stages, "two"), session="session_001", seconds=4)
    assert found.session.name == "session_001"
    assert len(found.keypoints) == 3
    assert set(found.keypoints) <= set(helpers.keypoints)
    frames = slice(found.start, found.start + 120)
    data = access.dataset(two_stages, "keypoints").isel(session=1, frame=frames).load()
    model = reconstruct(two_stages, "two", "session_001")[frames].load()
    stored = [str(name) for name in data["keypoint"].values]
    for column, name in enumerate(found.keypoints):
        raw = data["position"].values[:, stored.index(name)]
        np.testing.assert_array_equal(found.tracked[:, column], raw[:, 0])
        confidence = data["confidence"].values[:, stored.index(name)]
        np.testing.assert_array_equal(found.confidence[:, column], confidence)
        poor = np.isnan(raw[:, 0]) | (confidence < 0.5)
        np.testing.assert_array_equal(found.is_poor[:, column], poor)
        np.testing.assert_array_equal(found.denoised[:, column], model.sel(keypoint=name)[:, 0])
    good = np.abs(found.tracked - found.denoised)[~found.is_poor]
    assert np.median(good) < 2  # The model of the fixture is the truth.


def test_find_stretch__goes_where_bad_tracking_is_beside_good(own: Path) -> None:
    group = access.open_group(own, "r+")["keypoints"]
    position, confidence = group["position"], group["confidence"]
    n = position.shape[1]
    clean = np.zeros((n, *position.shape[2:]), np.float32)
    sure = np.ones((n, position.shape[2]), np.float32)
    clean[:400], sure[:400] = np.nan, 0.0  # no animal yet
    sure[900:960:2, 5] = 0.1  # point5 flickers
    clean[910:925, 2] = np.nan  # point2 is away for a while
    sure[:, 1] = 0.1  # not a keypoint of the model
    position[0], confidence[0] = clean, sure
    found = find_stretch(OpenModel(own, "two"), seconds=3)
    assert found.start <= 905
    assert found.start + 90 >= 955
    assert found.keypoints == ("point5", "point2")
    assert found.is_poor.sum(0).tolist() == [30, 15]


def test_find_stretch__outliers_without_low_confidence(own: Path) -> None:
    group = access.open_group(own, "r+")["keypoints"]
    smooth = reconstruct(own, "two", "session_000").values
    position = group["position"][0]
    position[:, [0, 2, 3, 5, 7]] = smooth
    position[1200:1210, 3] += 300
    group["position"][0] = position
    group["confidence"][0] = np.nan
    found = find_stretch(OpenModel(own, "two"), seconds=2)
    assert found.start <= 1200 < 1210 <= found.start + 60
    assert found.keypoints[0] == "point3"
    assert len(found.keypoints) == 2
    assert not found.is_poor.any()


@pytest.mark.parametrize("seconds", [1e-3, 1e6])
def test_find_stretch__of_any_length(two_stages: Path, seconds: float) -> None:
    found = find_stretch(OpenModel(two_stages, "two"), seconds=seconds, max_keypoints=99)
    assert len(found.tracked) == (2 if seconds < 1 else 1500)
    assert hv.render(next(iter(denoised(two_stages, model="two", seconds=seconds))))


def test_denoised__dots_hollow_dots_gaps_and_a_line(two_stages: Path) -> None:
    stretch = find_stretch(OpenModel(two_stages, "two"))
    for column, panel in enumerate(denoised(two_stages, model="two")):
        gaps, good, line, bad = panel.data.values()
        raw = stretch.tracked[:, column]
        poor, missing = stretch.is_poor[:, column], np.isnan(raw)
        np.testing.assert_array_equal(
            line.dimension_values("denoised"), stretch.denoised[:, column]
        )
        time = (stretch.start + np.arange(len(raw))) / 30
        np.testing.assert_allclose(line.dimension_values("time"), time)
        np.testing.assert_array_equal(good.dimension_values("x"), raw[~poor])
        np.testing.assert_array_equal(bad.dimension_values("x"), raw[poor & ~missing])
        assert len(good) + len(bad) + missing.sum() == len(raw)
        is_gap = np.zeros(len(raw), bool)
        for start, stop in zip(*(gaps.dimension_values(i) for i in (0, 1)), strict=True):
            is_gap |= (start < time) & (time < stop)
        np.testing.assert_array_equal(is_gap, missing)
        assert stretch.keypoints[column] in hv.render(panel).title.text


def test_denoised__far_outliers_do_not_squash_the_line(own: Path) -> None:
    group = access.open_group(own, "r+")["keypoints"]
    start = find_stretch(OpenModel(own, "two")).start
    group["position"][0, start + 20] = 1e6
    group["confidence"][0, start + 20] = 0.1
    for panel in denoised(own, model="two"):
        figure = hv.render(panel)
        line = panel.data.values()
        smooth = list(line)[2].dimension_values("denoised")
        assert figure.y_range.end - figure.y_range.start < 4 * np.ptp(smooth)


def test_denoised__names_what_is_wrong(
    two_stages: Path, store: Path, fresh: Path, helpers: SimpleNamespace
) -> None:
    with pytest.raises(InputError, match="'nobody'"):
        denoised(two_stages, model="two", session="nobody")
    with pytest.raises(MissingData, match="latent"):
        denoised(store, model="m")
    helpers.publish(fresh, helpers.truth(), with_parameters=False)
    with pytest.raises(MissingData):
        denoised(fresh, model="m")
