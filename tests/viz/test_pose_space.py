"""The space of poses: numbers against NumPy, projections, sampling within bounds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import Column, ColumnDataSource, CustomJS

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.annotate import annotate
from kpms_zarr.store.model import models
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.pose import views as pose_space
from kpms_zarr.viz.pose.data import (
    MAX_BLOCKS,
    MAX_GROUPS,
    choose_blocks,
    groups,
    sample_scores,
)
from kpms_zarr.viz.pose.rotating import draw_rotating
from kpms_zarr.viz.shared.grouping import ALL, group_coordinates
from kpms_zarr.viz.shared.reading import MissingData, label_sessions


@pytest.fixture(scope="module")
def study(two_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions in two groups, components, and a model with latent poses."""
    folder = tmp_path_factory.mktemp("poses")
    path = folder / "two.zarr"
    shutil.copytree(two_stages, path)
    (folder / "groups.csv").write_text("session,group\nsession_000,drug\nsession_001,vehicle\n")
    annotate(path, folder / "groups.csv")
    kpms_zarr.pca(path)
    return path


@pytest.fixture(scope="module")
def solid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in 3-D with components."""
    path = tmp_path_factory.mktemp("poses") / "solid.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=1000, n_keypoints=5, n_space=3))
    kpms_zarr.pca(path)
    return path


# ------------------------------------------------------------------ components


def test_scree__shows_shares_their_sum_and_what_a_fit_takes(study: Path) -> None:
    data = pose_space.open_pca(study)
    ratio = 100 * data["explained_variance_ratio"].values
    drawn = pose_space.scree(study)
    bars, total = list(drawn)[:2]
    np.testing.assert_allclose(bars.dimension_values("share"), ratio)
    np.testing.assert_allclose(total.dimension_values("cumulative"), np.cumsum(ratio))
    (line,) = (part for part in drawn if isinstance(part, hv.VLine))
    taken = data.attrs["n_components"]
    assert line.data == taken + 0.5
    figure = hv.render(drawn, backend="bokeh")
    assert f"{taken} components hold {ratio[:taken].sum():.1f} %" in figure.title.text


def test_components__are_the_mean_and_two_deviations(study: Path) -> None:
    data = pose_space.open_pca(study)
    panels = list(pose_space.components(study, max_components=3))
    assert len(panels) == 3
    for number, panel in enumerate(panels):
        points = [part for part in panel if isinstance(part, hv.Points)]
        for amount, part in zip((-2, 0, 2), points, strict=True):
            expected = data["pose_mean"].values + amount * data["pose_loading"].values[number]
            np.testing.assert_allclose(part.array([0, 1]), expected)


def test_components__that_move_nothing_are_left_out(study: Path) -> None:
    data = pose_space.open_pca(study).load()
    flat = data.copy()
    flat["explained_variance_ratio"] = (
        "component",
        np.r_[1.0, np.zeros(data.sizes["component"] - 1)],
    )
    assert len(pose_space.shown_loading(flat, 8)) == 1


@pytest.mark.parametrize(
    ("azimuth", "elevation", "right", "up"),
    [
        (0, 90, [1, 0, 0], [0, 1, 0]),  # from above, the animal facing right
        (0, 0, [1, 0, 0], [0, 0, 1]),  # from its right side
        (90, 0, [0, 1, 0], [0, 0, 1]),  # from the front
        (90, 90, [0, 1, 0], [-1, 0, 0]),
    ],
)
def test_project__looks_from_where_it_says(azimuth, elevation, right, up) -> None:
    pose = np.random.default_rng(0).normal(size=(2, 4, 3))
    found = pose_space.project(pose, azimuth, elevation)
    np.testing.assert_allclose(found, np.stack([pose @ right, pose @ up], -1), atol=1e-12)


def test_project__keeps_lengths_in_its_plane_and_poses_in_2d() -> None:
    rng = np.random.default_rng(1)
    pose = rng.normal(size=(5, 3))
    found = pose_space.project(pose, 33, 21)
    assert (np.linalg.norm(found, axis=1) <= np.linalg.norm(pose, axis=1) + 1e-12).all()
    turned = [pose_space.project(np.eye(3), a, e) for a in (10, 200) for e in (5, 60)]
    for axes in turned:  # orthonormal rows of the projection
        np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-12)
    flat = rng.normal(size=(5, 2))
    assert pose_space.project(flat, 33, 21) is flat


def test_components__in_3d_follow_the_angles(solid: Path) -> None:
    data = pose_space.open_pca(solid)
    panel = next(iter(pose_space.components(solid, azimuth=0, elevation=90)))
    points = [part for part in panel if isinstance(part, hv.Points)][1]
    np.testing.assert_allclose(points.array([0, 1]), data["pose_mean"].values[:, :2])


def sources(layout: Any) -> tuple[Any, CustomJS]:
    (script, *_) = (model for model in layout.references() if isinstance(model, CustomJS))
    return script.args, script


def test_rotating_components__hold_what_their_script_needs(solid: Path) -> None:
    data = pose_space.open_pca(solid)
    sliders, figures = draw_rotating(data, read_settings(solid), max_components=2)
    layout = Column(children=[*sliders, *figures])
    args, _ = sources(layout)
    mean, loading = data["pose_mean"].values, data["pose_loading"].values
    expected = [mean + amount * move for move in loading[:2] for amount in (-2, 0, 2)]
    np.testing.assert_allclose(args["poses"], expected, atol=1e-4)
    azimuth, elevation = args["azimuth"].value, args["elevation"].value
    for pose, point, line in zip(expected, args["points"], args["lines"], strict=True):
        assert isinstance(point, ColumnDataSource)
        seen = pose_space.project(pose, azimuth, elevation)
        np.testing.assert_allclose(np.stack([point.data["x"], point.data["y"]], -1), seen)
        ends = [[seen[a, 0], seen[b, 0]] for a, b in args["bones"]]
        np.testing.assert_allclose(line.data["xs"], ends)


def test_rotating_components__of_a_study_in_2d_have_no_sliders(study: Path) -> None:
    data = pose_space.open_pca(study)
    sliders, figures = draw_rotating(data, read_settings(study), max_components=3)
    assert sliders == []
    assert len(figures) == 3
    found = [model for one in figures for model in one.references()]
    assert not [model for model in found if isinstance(model, CustomJS)]


def test_components__say_what_to_run_first(fresh: Path) -> None:
    for view in (pose_space.scree, pose_space.components):
        with pytest.raises(InputError, match=r"kpms_zarr\.pca\(.*own\.zarr"):
            view(fresh)


# ------------------------------------------------------------------ scores


def test_scores__count_the_frames_of_each_group(study: Path) -> None:
    labels = models.open_labels(study, "two")
    table = access.dataset(study, "keypoints")
    of_group = groups(label_sessions(labels), table, "group")
    assert {name: [s.name for s in rows] for name, rows in of_group.items()} == {
        "drug": ["session_000"], "vehicle": ["session_001"],
    }  # fmt: skip
    found = sample_scores(labels, of_group, by="group", dims=(2, 0))
    for name, (session,) in of_group.items():
        latent = labels["latent"][session.index, : session.n_frames].values
        assert found.n_frames[name] == session.n_frames
        across, up = found.edges
        expected, _, _ = np.histogram2d(latent[:, 2], latent[:, 0], bins=(across, up))
        np.testing.assert_allclose(found.share[name], expected.T / session.n_frames)
        for column, edges in ((2, across), (0, up)):
            values = latent[:, column]
            assert ((values < edges[0]) | (values > edges[-1])).mean() <= 0.0105


def test_scores__have_common_axes_and_names(study: Path) -> None:
    panels = list(pose_space.scores(study, dims=(1, 3)))
    figures = [hv.render(panel, backend="bokeh") for panel in panels]
    assert [f.title.text for f in figures] == ["drug (1 session)", "vehicle (1 session)"]
    assert {(f.xaxis.axis_label, f.yaxis.axis_label) for f in figures} == {("latent 1", "latent 3")}
    assert len({(f.x_range.start, f.x_range.end, f.y_range.start) for f in figures}) == 1


def test_scores__without_groups_are_of_all_sessions(two_stages: Path) -> None:
    (panel,) = pose_space.scores(two_stages, model="two")
    assert hv.render(panel, backend="bokeh").title.text == f"{ALL} (2 sessions)"
    (panel,) = pose_space.scores(two_stages, by=None)
    assert hv.render(panel, backend="bokeh").title.text == f"{ALL} (2 sessions)"


def test_groups__are_any_coordinate_of_the_sessions() -> None:
    sessions = tuple(Session(f"s{i}", i, 10, 30.0) for i in range(5))
    table = xr.Dataset(
        coords={
            "session": [f"s{i}" for i in (4, 3, 2, 1, 0)],
            "dose": ("session", [np.nan, 2.0, 2.0, 0.5, 2.0]),
            "note": ("session", ["", "a", "b", "a", "b"]),
            "checksum": ("session", np.arange(5)),
        }
    )
    named = {name: [s.name for s in rows] for name, rows in groups(sessions, table, "dose").items()}
    assert named == {"2": ["s0", "s2", "s3"], "0.5": ["s1"], "not given": ["s4"]}
    assert list(groups(sessions, table, "note")) == ["a", "b", "not given"]
    assert group_coordinates(table) == ("dose", "note")
    assert list(groups(sessions, table, None)) == list(groups(sessions, table, "group")) == [ALL]
    with pytest.raises(InputError, match="dose, note"):
        groups(sessions, table, "diet")


def test_choose_blocks__are_few_spread_and_the_same_again() -> None:
    of_group = {
        name: [Session(f"{name}{i}", i, 10**6, 30.0) for i in range(40)] for name in ("a", "b", "c")
    }
    found = choose_blocks(of_group, seed=1)
    assert {name: len(blocks) for name, blocks in found.items()} == dict.fromkeys(
        "abc", MAX_BLOCKS // 3
    )
    assert len(set(found["a"])) == MAX_BLOCKS // 3
    assert len({block.session for block in found["a"]}) > 8
    again = choose_blocks({"a": of_group["a"][::-1], "b": [], "c": of_group["c"]}, seed=1)
    assert again["a"] == found["a"]
    assert again["b"] == []
    assert choose_blocks(of_group, seed=2) != found


def test_sample_scores__shows_the_largest_groups_only(study: Path) -> None:
    labels = models.open_labels(study, "two")
    session = label_sessions(labels)[0]
    of_group = {f"g{i}": [session] for i in range(MAX_GROUPS + 3)}
    found = sample_scores(labels, of_group, by="animal")
    assert len(found.share) == MAX_GROUPS
    assert found.left_out == ("g12", "g13", "g14")


def test_scores__leave_out_frames_without_a_pose(study: Path) -> None:
    labels = models.open_labels(study, "two").load()
    labels["latent"][0, 100:300] = np.nan
    session = label_sessions(labels)[0]
    found = sample_scores(labels, {"all": [session]}, by="")
    assert found.n_frames == {"all": session.n_frames - 200}
    labels["latent"][0] = np.nan
    nothing = sample_scores(labels, {"all": [session]}, by="")
    assert nothing.n_frames == {"all": 0}
    assert nothing.share["all"].sum() == 0


@pytest.mark.parametrize("dims", [(0, 99), (-1, 0), (0,)])
def test_scores__refuse_dimensions_that_are_not_there(study: Path, dims: Any) -> None:
    with pytest.raises(InputError, match="latent dimensions from 0 to"):
        pose_space.scores(study, dims=dims)


def test_scores__say_what_to_run_first(fresh: Path, store: Path) -> None:
    with pytest.raises(InputError, match=r"kpms_zarr.fit\(.*model=.first"):
        pose_space.scores(fresh)
    with pytest.raises(MissingData, match="latent"):
        pose_space.scores(store)
