"""Confusion matrices and calibrations, and the page with both."""

from __future__ import annotations

import re
from types import SimpleNamespace

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz import calibration, comparison_page, confusion
from kpms_zarr.viz.report.comparison import check_page
from kpms_zarr.viz.syllables.transition_counts import MOST_SHOWN


def pair_of(frames, names=None, certainty=(0.5, 0.9), same=(0.4, 0.8)):
    """A pair as ``kpms_zarr.compare`` gives it, of numbers that are made up."""
    n, m = frames.shape
    names = names or [""] * n
    confusion = xr.DataArray(
        frames,
        {
            "syllable_a": np.arange(n) + 10,
            "syllable_b": np.arange(m) + 50,
            "name_a": ("syllable_a", np.asarray(names, dtype=object)),
            "name_b": ("syllable_b", np.asarray([""] * m, dtype=object)),
        },
        ("syllable_a", "syllable_b"),
    )
    values = {
        "n_frames": frames.sum(1),
        "matched": np.where(np.arange(n) < m, np.arange(n) + 50, -1),
        "best": np.full(n, 50),
        "jaccard": np.full(n, 0.7),
        "reading": np.full(n, "doubtful", dtype=object),
    }
    syllables = xr.Dataset(
        {key: ("syllable", value) for key, value in values.items()}, {"syllable": np.arange(n) + 10}
    )
    bins = len(certainty)
    table = xr.Dataset(
        {
            "n_frames": ("certainty_bin", np.arange(bins) * 100),
            "mean_certainty": ("certainty_bin", np.asarray(certainty, float)),
            "same_share": ("certainty_bin", np.asarray(same, float)),
        },
        attrs={"n_frames": 100 * (bins - 1), "error": 0.1, "mean_certainty": 0.9},
    )
    nothing = xr.Dataset(
        {key: ("certainty_bin", np.full(bins, np.nan)) for key in table.data_vars},
        attrs={"n_frames": 0, "error": np.nan},
    )
    return SimpleNamespace(
        a="first", b="<b> & @co", confusion=confusion, calibration_a=table, calibration_b=nothing,
        n_frames=int(frames.sum()), n_sessions=1, adjusted_rand_index=0.5,
        normalized_mutual_information=0.25, matched_share=0.125, ceiling=0.9, boundary_f1=0.75,
        boundary_f1_by_chance=0.3, effective_number_a=3.0, effective_number_b=2.5,
        syllables_a=syllables, syllables_b=syllables,
        reading_share_a={"stable": 0.25, "fairly stable": 0.125, "doubtful": 0.625},
    )  # fmt: skip


FRAMES = np.array([[40, 2, 0], [10, 30, 8], [0, 0, 10]])


def comparison_of(*pairs):
    names = ["first", "<b> & @co"]
    models = xr.Dataset(
        {
            "version": ("model", np.asarray(["v1", ""], dtype=object)),
            **{key: ("model", [2, 2]) for key in ("n_sessions", "n_frames", "n_used")},
            **{key: ("model", [2.0, np.nan]) for key in
               ("effective_number", "median_duration", "mean_certainty")},
        },
        {"model": np.asarray(names, dtype=object)},
    )  # fmt: skip
    return SimpleNamespace(
        store="/home/someone/secret/study.zarr", boundary_tolerance=2, models=models, pairs=pairs,
        notes=("something was left out",),
    )  # fmt: skip


def test_confusion__shows_shares_of_both_sides():
    pair = pair_of(FRAMES, ["rear", "", ""])
    heat = confusion(pair)
    rows = list(zip(*(heat.dimension_values(i) for i in range(6)), strict=True))
    assert len(rows) == FRAMES.size
    for other, syllable, share, share_other, frames, index in rows:
        i, j = int(syllable.split()[0]) - 10, int(other) - 50
        assert syllable == ["10 rear", "11", "12"][i]
        assert frames == FRAMES[i, j]
        assert share == pytest.approx(100 * frames / FRAMES[i].sum())
        assert share_other == pytest.approx(100 * frames / FRAMES[:, j].sum())
        either = FRAMES[i].sum() + FRAMES[:, j].sum() - frames
        assert index == pytest.approx(frames / either)
    figure = hv.render(heat, backend="bokeh")
    assert figure.y_range.factors[-1] == "10 rear"  # from the top: on the diagonal
    assert figure.x_range.factors[0] == "50"
    assert figure.xaxis[0].axis_label == "syllable of <b> & @co"


def test_confusion__shows_at_most_so_many_with_shares_of_all():
    n = MOST_SHOWN + 5
    frames = np.ones((n, n), int)
    heat = confusion(pair_of(frames))
    assert len(heat) == MOST_SHOWN**2
    np.testing.assert_allclose(heat.dimension_values("share"), 100 / n)


def test_confusion__leaves_rare_syllables_out_with_shares_of_all():
    frames = np.array([[900, 4], [96, 0]])
    heat = confusion(pair_of(frames))
    assert heat.dimension_values("syllable").tolist() == ["10", "11"]
    assert heat.dimension_values("other").tolist() == ["50", "50"]
    np.testing.assert_allclose(sorted(heat.dimension_values("share")), [100 * 900 / 904, 100])


def test_calibration__shows_bins_with_frames_of_those_that_have_certainties():
    overlay = calibration(pair_of(FRAMES))
    points = [part for part in overlay if isinstance(part, hv.Points)]
    assert len(points) == 1
    np.testing.assert_allclose(points[0].dimension_values("certainty"), [90])
    np.testing.assert_allclose(points[0].dimension_values("same"), [80])
    assert points[0].dimension_values("frames").tolist() == [100]
    hv.render(overlay, backend="bokeh")


def test_page__has_all_figures_and_opens_alone(tmp_path):
    out = tmp_path / "page.html"
    without = pair_of(FRAMES)
    without.calibration_a, without.ceiling = without.calibration_b, np.nan
    n_bytes = comparison_page(comparison_of(pair_of(FRAMES), without), out=out)
    text = out.read_text("utf-8")
    assert n_bytes == len(text.encode()) == out.stat().st_size
    for words in ("adjusted Rand index 0.50", "12.5 % of the frames", "would let expect 90.0 %",
                  "3.0 and 2.5", "37.5 % of the frames of first in", "F1 0.75, by chance 0.30",
                  "something was left out",
                  "Neither has certainties", "doubtful", "study.zarr"):  # fmt: skip
        assert words in text, words
    assert "/home/someone" not in text
    assert "<b> &" not in text.split("<body>")[1].split("<script")[0]
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
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="a folder of that name"):
        comparison_page(comparison_of(), out=tmp_path / "folder.html")
