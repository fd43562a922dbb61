from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import holoviews as hv
import numpy as np
import pytest
from bokeh.models import LogScale

from kpms_zarr.store.core import access
from kpms_zarr.store.model import models
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.viz.fit import traces as tracing
from kpms_zarr.viz.fit.traces import traces


def _curves(panel: hv.core.Dimensioned) -> list[hv.Curve]:
    return [panel] if isinstance(panel, hv.Curve) else list(panel.data.values())


def _of(layout: hv.Layout) -> dict[str, list[hv.Curve]]:
    """Curves by the quantity that they show, over all panels."""
    found: dict[str, list[hv.Curve]] = {}
    for panel in layout:
        for part in _curves(panel):
            if isinstance(part, hv.Curve):
                found.setdefault(part.vdims[0].name, []).append(part)
    return found


def _write_traces(store: Path, values: dict[str, Any]) -> None:
    """Publish the labels of the model ``m`` once more with other traces."""
    root = access.open_group(store, "r+")
    before = open_parameters(store, "m").load()
    kept = ("keypoint", "space", "pose_loading", "pose_mean")
    parameters = {name: before[name].values for name in kept}
    models.write_parameters(root, "m", "v1", {**parameters, **values}, {})


@pytest.fixture
def own(fresh: Path, helpers: SimpleNamespace) -> Path:
    helpers.publish(fresh, helpers.truth())
    return fresh


def test_traces__each_stage_has_a_log_likelihood_of_its_own(
    two_stages: Path, helpers: SimpleNamespace
) -> None:
    n_ar, n_full = helpers.n_sweeps
    layout = traces(two_stages, model="two")
    assert len(layout) == 8
    stored = open_parameters(two_stages, "two")["trace_log_likelihood"].values
    for curve, sweep in zip(
        _of(layout)["trace_log_likelihood"],
        (np.arange(n_ar), np.arange(n_ar, n_ar + n_full)),
        strict=True,
    ):
        np.testing.assert_array_equal(curve.dimension_values("sweep"), sweep)
        np.testing.assert_array_equal(curve.dimension_values(1), stored[sweep])
    titles = [hv.render(panel, backend="bokeh").title.text for panel in list(layout)[:2]]
    assert titles == ["AR stage: 30 sweeps", "full stage: 120 sweeps"]


def test_traces__each_stage_has_an_evidence_of_its_own(
    two_stages: Path, helpers: SimpleNamespace
) -> None:
    curves = _of(traces(two_stages, model="two"))["trace_log_evidence"]
    n_ar = helpers.n_sweeps[0]
    stored = open_parameters(two_stages, "two")["trace_log_evidence"].values
    for curve, part in zip(curves, (stored[:n_ar], stored[n_ar:]), strict=True):
        np.testing.assert_array_equal(curve.dimension_values(1), part)


def test_traces__show_how_many_labels_change(own: Path, helpers: SimpleNamespace) -> None:
    changed = np.concatenate([np.linspace(0.9, 0.2, 30), np.full(50, 0.1)])
    values = {**helpers.two_stage_traces(30, 50), "trace_label_change": changed}
    _write_traces(own, values)
    curves = _of(traces(own, model="m"))["trace_label_change"]
    found = np.concatenate([curve.dimension_values(1) for curve in curves])
    np.testing.assert_array_equal(found, changed)


def test_traces__of_fits_before_the_evidence_is_that_of_the_ar_stage(
    own: Path, helpers: SimpleNamespace
) -> None:
    values = helpers.two_stage_traces(30, 50)
    values["trace_log_evidence"][30:] = np.nan
    _write_traces(own, values)
    (curve,) = _of(traces(own, model="m"))["trace_log_evidence"]
    np.testing.assert_array_equal(curve.dimension_values(1), values["trace_log_evidence"][:30])


def test_traces__the_other_quantities_run_through_both_stages(
    two_stages: Path, helpers: SimpleNamespace
) -> None:
    stored = open_parameters(two_stages, "two")
    curves = _of(traces(two_stages, model="two"))
    for name in ("trace_kappa", "trace_median_duration", "trace_n_used"):
        column = "frames" if name == "trace_median_duration" else name
        values = np.concatenate([curve.dimension_values(column) for curve in curves[name]])
        np.testing.assert_array_equal(values, stored[name].values)
        first = [curve.dimension_values("sweep")[0] for curve in curves[name]]
        assert first == [0, helpers.n_sweeps[0]]
        colors = [
            hv.Store.lookup_options("bokeh", curve, "style").kwargs["color"]
            for curve in curves[name]
        ]
        assert len(set(colors)) == 2


def test_traces__border_and_names_of_the_stages(two_stages: Path) -> None:
    panels = list(traces(two_stages, model="two"))[2:5]
    for panel in panels:
        parts = list(panel.data.values())
        assert [p.data["x"].tolist() for p in parts if isinstance(p, hv.VLines)] == [[29.5]]
        assert [p.data[2] for p in parts if isinstance(p, hv.Text)] == ["AR stage", "full stage"]


def test_traces__kappa_is_on_a_log_axis(two_stages: Path, store: Path) -> None:
    for place, model in ((two_stages, "two"), (store, "m")):
        for panel in traces(place, model=model):
            figure = hv.render(panel, backend="bokeh")
            is_kappa = figure.yaxis[0].axis_label == "stickiness kappa"
            assert isinstance(figure.y_scale, LogScale) == is_kappa


def test_traces__steep_first_sweeps_do_not_squash_the_rest(two_stages: Path) -> None:
    stored = open_parameters(two_stages, "two")["trace_log_likelihood"].values[30:]
    assert np.ptp(stored) > 5 * np.ptp(stored[6:])
    figure = hv.render(list(traces(two_stages, model="two"))[1], backend="bokeh")
    low, high = figure.y_range.start, figure.y_range.end
    assert low < stored[6:].min() < stored[6:].max() < high
    assert high - low < 1.5 * np.ptp(stored[6:])
    # A curve that is steep all the way is shown whole.
    steady = np.linspace(-9, -3, 200)
    assert tracing._settled(steady) is steady


def test_traces__parts_of_the_model_against_the_last_sweep(
    two_stages: Path, helpers: SimpleNamespace
) -> None:
    stored = open_parameters(two_stages, "two")["trace_log_probability"].values[30:]
    parts = _of(traces(two_stages, model="two"))["change"]
    shown = ["syllable", "latent pose", "centroid", "noise scale", "position"]
    assert [curve.label for curve in parts] == shown
    for column, curve in enumerate(parts):
        np.testing.assert_allclose(curve.dimension_values("part"), stored[:, column])
        change = stored[:, column] - stored[-1, column]
        np.testing.assert_allclose(curve.dimension_values("change"), change)
        assert curve.dimension_values("sweep")[0] == helpers.n_sweeps[0]


def test_traces__in_one_notebook_the_stages_have_their_own_axes(two_stages: Path) -> None:
    grid = hv.render(traces(two_stages, model="two"), backend="bokeh")
    figures = [child[0] for child in grid.children]
    spans = [(figure.x_range.start, figure.x_range.end) for figure in figures]
    assert spans[0][1] < 35
    assert spans[1][0] > 25
    assert spans[2][0] <= 0 < 148 < spans[2][1]
    assert figures[0].y_range is not figures[1].y_range


@pytest.mark.parametrize("n_ar", [1, 3])
def test_traces__short_stages_constant_or_missing_values(
    own: Path, helpers: SimpleNamespace, caplog: pytest.LogCaptureFixture, n_ar: int
) -> None:
    values = helpers.two_stage_traces(n_ar, 60)
    values["trace_log_likelihood"] = np.full(n_ar + 60, -3.0)
    values["trace_median_duration"] = np.full(n_ar + 60, np.nan)
    values["trace_kappa"] = np.full(n_ar + 60, 1e6)
    values["trace_log_probability"][:, 2] = np.nan
    _write_traces(own, values)
    with caplog.at_level(logging.WARNING):
        layout = traces(own, model="m")
        for panel in layout:
            figure = hv.render(panel, backend="bokeh")
            assert figure.y_range.start < figure.y_range.end
    assert caplog.text == ""
    assert len(_of(layout)["change"]) == 4
    # There is no room for the name of the short stage.
    texts = [p.data[2] for p in list(layout)[2].data.values() if isinstance(p, hv.Text)]
    assert texts == ["full stage"]


def test_traces__many_sweeps_are_thinned_in_every_stage(
    own: Path, helpers: SimpleNamespace
) -> None:
    _write_traces(own, helpers.two_stage_traces(5_001, 7_000))
    curves = _of(traces(own, model="m"))
    for name in ("trace_log_likelihood", "trace_kappa", "trace_n_used"):
        sweep = [curve.dimension_values("sweep") for curve in curves[name]]
        assert sum(map(len, sweep)) <= 4000
        assert sweep[0][0] == 0
        assert sweep[1][0] == 5_001


def test_traces__a_full_stage_alone_has_its_parts_too(own: Path, helpers: SimpleNamespace) -> None:
    _write_traces(own, helpers.two_stage_traces(0, 50))
    layout = traces(own, model="m")
    assert len(layout) == 6
    assert all(isinstance(panel, hv.Curve) for panel in list(layout)[:5])
    assert len(_of(layout)["change"]) == 5


def test_traces__one_stage_by_name_looks_like_one_without(
    own: Path, helpers: SimpleNamespace
) -> None:
    values = helpers.two_stage_traces(40, 0)
    _write_traces(own, values)
    layout = traces(own, model="m")
    assert len(layout) == 5
    assert all(isinstance(panel, hv.Curve) for panel in layout)
