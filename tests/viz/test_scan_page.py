"""Panels of a scan, and the page with all of them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz import scan_page, scan_panel
from kpms_zarr.viz.fit.scan import PANELS, panels_of
from kpms_zarr.viz.report.scan import check_page


def scan_of(axes=("kappa",), missing=()):
    """A scan as ``kpms_zarr.scan`` gives it, of numbers that are made up."""
    kappa, dims = np.array([1e5, 1e3, 1e4]), np.array([3, 3, 3])
    if len(axes) > 1:
        kappa, dims = np.tile(kappa, 2), np.repeat([3, 4], 3)
    n = len(kappa)
    rng = np.random.default_rng(0)
    names = (
        "median_duration", "n_used", "effective_number", "final_kappa", "log_evidence",
        "held_out_log_likelihood", "expected_marginal_likelihood", "adjusted_rand_index",
    )  # fmt: skip
    values = {name: rng.uniform(1, 9, (n, 3)) for name in names}
    values["final_kappa"] = np.tile(kappa[:, None], 3)
    for name in missing:
        values[name][:] = np.nan
    values["held_out_log_likelihood"][0, 2] = np.nan  # a chain that has not run
    labels = [f"kappa {k:g} <b> & @co" for k in kappa]
    table = xr.Dataset(
        {name: (("point", "chain"), value) for name, value in values.items()},
        {
            "kappa": ("point", kappa),
            "latent_dim": ("point", dims),
            "label": ("point", np.asarray(labels, dtype=object)),
            "seed": ("chain", [5, 6, 7]),
            "session": np.asarray(["a", "b"], dtype=object),
            "held_out": np.asarray(["c"], dtype=object),
        },
        {"stage": "ar", "varies": list(axes)},
    )
    return SimpleNamespace(
        store="/home/someone/secret/study.zarr", name="first", axes=axes, table=table,
        recommendation=("give `target_duration=` to the fit",), n_frames=2000,
        n_held_out_frames=1000, notes=("something was left out",),
    )  # fmt: skip


def test_panel__has_a_point_each_chain_and_the_mean_of_those_that_there_are():
    scan = scan_of()
    overlay = scan_panel(scan, "held_out")
    values = scan.table["held_out_log_likelihood"].values
    (points,) = (part for part in overlay if isinstance(part, hv.Points))
    assert len(points) == 8
    assert set(points.dimension_values("seed")) == {5, 6, 7}
    (curve,) = (part for part in overlay if isinstance(part, hv.Curve))
    np.testing.assert_allclose(curve.dimension_values(0), [1e3, 1e4, 1e5])
    np.testing.assert_allclose(curve.dimension_values(1), np.nanmean(values, 1)[[1, 2, 0]])
    figure = hv.render(overlay, backend="bokeh")
    assert figure.xaxis[0].axis_label == "kappa"
    assert "held out" in figure.yaxis[0].axis_label
    # Each value is named as it is, not as the nearest power of ten.
    assert set(figure.xaxis[0].major_label_overrides.values()) == {"1000", "10000", "100000"}


def test_panel__of_two_settings_has_a_course_for_each_of_the_second():
    scan = scan_of(("latent_dim", "kappa"))
    overlay = scan_panel(scan, "number")
    curves = [part for part in overlay if isinstance(part, hv.Curve)]
    assert [curve.label for curve in curves] == ["latent dims 3"] * 2 + ["latent dims 4"] * 2
    mean = scan.table["effective_number"].values.mean(1)
    np.testing.assert_allclose(curves[2].dimension_values(1), mean[3:][[1, 2, 0]])
    hv.render(overlay, backend="bokeh")


def test_panels__are_those_with_numbers_that_can_be_compared():
    assert panels_of(scan_of()) == tuple(PANELS)
    without = scan_of(missing=("adjusted_rand_index", "held_out_log_likelihood"))
    assert panels_of(without) == ("duration", "number", "eml", "evidence")
    # Of several numbers of latent dims the evidence is a density of different data.
    assert "evidence" not in panels_of(scan_of(("latent_dim", "kappa")))


def test_panel__of_durations_has_the_target():
    scan = scan_of()
    table = scan.table.assign_coords(target_duration=("point", [800.0, 200.0, 400.0]))
    scan.table, scan.axes = table, ("target_duration",)
    curves = [part for part in scan_panel(scan, "duration") if isinstance(part, hv.Curve)]
    np.testing.assert_allclose(curves[-1].dimension_values(1), [200, 400, 800])
    assert curves[-1].label == "target"


@pytest.mark.parametrize("axes", [("kappa",), ("latent_dim", "kappa")])
def test_page__has_all_figures_and_opens_alone(tmp_path, axes):
    out, scan = tmp_path / "page.html", scan_of(axes)
    n_bytes = scan_page(scan, out=out)
    text = out.read_text("utf-8")
    assert n_bytes == len(text.encode()) == out.stat().st_size
    mean = scan.table["held_out_log_likelihood"].values[1]
    error = mean.std(ddof=1) / np.sqrt(3)
    for words in ("Scan of ", "study.zarr, scan first", "give --target-duration to the fit",
                  "something was left out", "1 session held out (1,000 frames)",
                  f"{mean.mean():.3f} ± {error:.3f}", "Adjusted Rand index"):  # fmt: skip
        assert words in text, words
    assert "/home/someone" not in text
    assert "<b> &" not in text.split("<body>")[1].split("<script")[0]
    assert ("Evidence" in text) == (axes == ("kappa",))
    without_scripts = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"", without_scripts)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_page__needs_a_place(tmp_path):
    for out, words in (
        (tmp_path / "page.png", "ends in .html"),
        (tmp_path / "nowhere" / "page.html", "a folder that exists"),
    ):
        with pytest.raises(InputError, match=words):
            check_page(out)
