from __future__ import annotations

import logging
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import holoviews as hv
import numpy as np
import pytest
from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.viz.ethograms import views as ethograms
from kpms_zarr.viz.fit import denoised as fit_denoised
from kpms_zarr.viz.fit import traces as fit_traces
from kpms_zarr.viz.pose import latent
from kpms_zarr.viz.shared.colors import palette, syllable_color
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables import transition_views, usage

_ALL = (
    ethograms.ethogram,
    ethograms.bouts,
    usage.frequencies,
    usage.durations,
    fit_traces.traces,
    transition_views.transitions,
    latent.poses,
)
_MODELS = {"store": "m", "two_stages": "two"}


def _image(overlay: hv.Overlay) -> hv.Image:
    return overlay.get(0)


def test_package__importing_it_does_not_import_holoviews() -> None:
    code = "import sys, kpms_zarr; raise SystemExit('holoviews' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("fixture", "draw"),
    [
        *(("store", draw) for draw in _ALL),
        *(
            ("two_stages", draw)
            for draw in (fit_traces.traces, latent.poses, fit_denoised.denoised)
        ),
    ],
)
def test_plots__render_without_complaints(
    request: pytest.FixtureRequest, fixture: str, draw: object, caplog: pytest.LogCaptureFixture
) -> None:
    store = request.getfixturevalue(fixture)
    with caplog.at_level(logging.WARNING):
        drawn = draw(store, model=_MODELS[fixture])  # type: ignore[operator]
        for part in drawn if isinstance(drawn, hv.Layout) else [drawn]:
            figure = hv.render(part, backend="bokeh")
            assert figure.toolbar.logo is None
            components(figure)
            (hover,) = set(figure.select(HoverTool))
            columns = {name for source in figure.select(ColumnDataSource) for name in source.data}
            assert set(re.findall(r"@(\w+)", hover.tooltips)) <= columns
    assert caplog.text == ""


def test_ethogram__modes_of_real_frames_first_session_on_top(
    store: Path, labels: list[np.ndarray]
) -> None:
    image = _image(ethograms.ethogram(store, model="m", n_bins=200))
    values = image.dimension_values("syllable", flat=False)[::-1]
    longest = max(map(len, labels))
    width = -(-longest // 200)
    assert values.shape == (3, -(-longest // width))
    for shown, row in zip(values, labels, strict=True):
        n_bins = -(-len(row) // width)
        for i in range(n_bins):
            count = np.bincount(row[i * width : (i + 1) * width] + 1)
            assert count[int(shown[i]) + 1] == count.max()
        assert np.isnan(shown[n_bins:]).all()
    left, low, right, high = image.bounds.lbrt()
    assert (left, low, high) == (0, 0, 3)
    assert right == pytest.approx(values.shape[1] * width / 30)


def test_ethogram__a_short_study_is_shown_frame_by_frame(
    store: Path, labels: list[np.ndarray]
) -> None:
    name = open_labels(store, "m")["session"].values[1]
    image = _image(ethograms.ethogram(store, model="m", sessions=[name], n_bins=10**6))
    values = image.dimension_values("syllable", flat=False)
    np.testing.assert_array_equal(values[0], labels[1])


def test_ethogram__colours_by_number_and_sessions_limited(store: Path) -> None:
    overlay = ethograms.ethogram(store, model="m", max_sessions=2)
    image = _image(overlay)
    options = hv.Store.lookup_options("bokeh", image, "style").kwargs
    n_syllables = int(np.nanmax(image.dimension_values("syllable"))) + 1
    assert image.interface.shape(image, gridded=True)[0] == 2
    assert options["cmap"] == palette(n_syllables)
    assert hv.Store.lookup_options("bokeh", image, "plot").kwargs["clim"] == (
        -1.5,
        n_syllables - 0.5,
    )


def test_ethogram__unknown_names_are_errors(store: Path) -> None:
    with pytest.raises(InputError, match="nobody"):
        ethograms.ethogram(store, model="m", sessions=["nobody"])
    with pytest.raises(InputError, match="a fitted model named 'other'"):
        ethograms.ethogram(store, model="other")


def test_bouts__every_bout_of_the_first_seconds(
    store: Path, labels: list[np.ndarray], helpers: SimpleNamespace
) -> None:
    rectangles = ethograms.bouts(store, model="m", seconds=20).get(0)
    session = open_labels(store, "m")["session"].values
    for row, name in zip(labels, session, strict=True):
        mine = rectangles.select(session=str(name))
        syllable, length = helpers.runs(row)
        n_bouts = int((np.cumsum(length) - length < 20 * 30).sum())
        np.testing.assert_array_equal(mine.dimension_values("syllable"), syllable[:n_bouts])
        np.testing.assert_allclose(mine.dimension_values("duration"), length[:n_bouts] / 30 * 1000)
        assert np.ptp(mine.dimension_values("row")) == 0


def test_frequencies__syllables_in_use_most_frequent_first(
    store: Path, labels: list[np.ndarray]
) -> None:
    bars = usage.frequencies(store, model="m")
    every = np.concatenate(labels)
    state = bars.dimension_values("syllable").astype(int)
    share = [100 * (every[every >= 0] == i).mean() for i in state]
    np.testing.assert_allclose(bars.dimension_values("share"), share)
    assert np.all(np.diff(share) <= 0)
    assert set(state) == set(every[every >= 0])
    assert list(bars.dimension_values("color")) == [syllable_color(i) for i in state]


def test_durations__99_percent_of_the_bouts_and_the_median(store: Path) -> None:
    histogram, line, _ = usage.durations(store, model="m")
    labels = open_labels(store, "m")
    total = int(labels["duration_count"].sum())
    shown = histogram.dimension_values("count")
    assert 0.99 * total <= shown.sum() <= total
    np.testing.assert_allclose(histogram.dimension_values("share"), 100 * shown / total)
    edges = histogram.interface.coords(histogram, "duration", edges=True)
    np.testing.assert_allclose(np.diff(edges), 1000 / 30)
    first = labels["duration_count"].sum("state").values[0]
    assert edges[0] < 1000 / 30 < edges[1]
    assert shown[0] == first
    count = labels["duration_count"].sum("state").values
    assert line.data == pytest.approx(np.median(np.repeat(labels["duration"].values, count)))


def test_durations__long_axes_are_rebinned_without_losing_bouts(
    fresh: Path, helpers: SimpleNamespace
) -> None:
    rng = np.random.default_rng(0)
    labels = []
    for row in helpers.truth():
        n = len(row) // 100
        long = np.repeat(np.arange(n + 20) % 7, rng.integers(1, 280, n + 20))
        labels.append(long[: len(row)].astype(np.int16))
    helpers.publish(fresh, labels)
    histogram = usage.durations(fresh, model="m").get(0)
    total = int(open_labels(fresh, "m")["duration_count"].sum())
    assert len(histogram.dimension_values("count")) <= 150
    assert histogram.dimension_values("count").sum() >= 0.99 * total


def test_traces__in_ms_and_frames_over_sweeps(store: Path) -> None:
    curves = {curve.vdims[0].name: curve for curve in fit_traces.traces(store, model="m")}
    assert list(curves) == [
        "trace_log_likelihood",
        "trace_median_duration",
        "trace_kappa",
        "trace_n_used",
    ]
    median = curves["trace_median_duration"]
    frames = median.dimension_values("frames")
    np.testing.assert_allclose(median.dimension_values(1), frames * 1000 / 30)
    assert {tuple(c.dimension_values("sweep")) for c in curves.values()} == {tuple(range(30))}


def test_transitions__rows_are_shares_of_all_changes(
    store: Path, labels: list[np.ndarray], helpers: SimpleNamespace
) -> None:
    heat = transition_views.transitions(store, model="m")
    count = np.zeros((helpers.n_states, helpers.n_states))
    for row in labels:
        syllable = helpers.runs(row)[0]
        for a, b in pairwise(syllable):
            count[a, b] += min(a, b) >= 0
    for to, start, share, changes in zip(
        *(heat.dimension_values(i) for i in ("next", "syllable", "share", "changes")), strict=True
    ):
        assert changes == count[int(start), int(to)]
        assert share == pytest.approx(100 * changes / count[int(start)].sum())
    used = usage.frequencies(store, model="m").dimension_values("syllable")
    assert len(heat) == len(used) ** 2


def test_poses__one_drawing_a_latent_dimension_of_true_shape(store: Path) -> None:
    layout = latent.poses(store, model="m", max_latent=3)
    assert len(layout) == 3
    figure = hv.render(next(iter(layout)), backend="bokeh")
    per_pixel = [
        (axis.end - axis.start) / size
        for axis, size in (
            (figure.x_range, figure.frame_width),
            (figure.y_range, figure.frame_height),
        )
    ]
    assert per_pixel[0] == pytest.approx(per_pixel[1], rel=0.02)


def test_poses__of_some_of_the_keypoints(two_stages: Path, helpers: SimpleNamespace) -> None:
    layout = latent.poses(two_stages, model="two")
    assert len(layout) == helpers.two_stage_study.n_latent
    lines, points = list(next(iter(layout)))[:2]
    assert list(points.dimension_values("keypoint")) == list(helpers.keypoints)
    # The spine of eight keypoints is still one line.
    assert len(lines.data) == len(helpers.keypoints) - 1


def test_plots__missing_statistics_are_named(fresh: Path, helpers: SimpleNamespace) -> None:
    helpers.publish(fresh, helpers.truth(), with_statistics=False, with_parameters=False)
    for draw in (usage.frequencies, usage.durations, transition_views.transitions):
        with pytest.raises(MissingData, match=r"frequency|duration_count"):
            draw(fresh, model="m")
    for draw in (fit_traces.traces, latent.poses):
        with pytest.raises(MissingData, match="labels only"):
            draw(fresh, model="m")
    assert _image(ethograms.ethogram(fresh, model="m"))


def test_plots__a_version_without_any_syllable(fresh: Path, helpers: SimpleNamespace) -> None:
    helpers.publish(fresh, [np.full_like(row, -1) for row in helpers.truth()])
    values = _image(ethograms.ethogram(fresh, model="m")).dimension_values("syllable")
    assert set(values[~np.isnan(values)]) == {-1}
    for draw in (usage.frequencies, usage.durations, transition_views.transitions):
        with pytest.raises(MissingData, match="any syllable"):
            draw(fresh, model="m")


def test_plots__older_versions_can_be_drawn(fresh: Path, helpers: SimpleNamespace) -> None:
    helpers.publish(fresh, [np.full_like(row, 3) for row in helpers.truth()])
    helpers.publish(fresh, [np.full_like(row, 5) for row in helpers.truth()])
    now, before = (
        _image(ethograms.ethogram(fresh, model="m", version=version)).dimension_values("syllable")
        for version in (None, "v1")
    )
    assert (np.nanmax(now), np.nanmax(before)) == (5, 3)
