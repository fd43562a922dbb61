"""Pose space: principal components, and densities of the groups of a study."""

from __future__ import annotations

from typing import Any

import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.pose import views
from kpms_zarr.viz.pose.data import MAX_BLOCKS, groups, sample_scores
from kpms_zarr.viz.pose.rotating import IN_A_ROW, draw_rotating
from kpms_zarr.viz.shared.grouping import ALL, group_coordinates
from kpms_zarr.viz.shared.guessing import note_on

TITLE = "Pose space"

_MAX_COMPONENTS = 8
_IN_A_ROW = 3
_HOW_TO_READ_SCREE = (
    "Poses are centred, turned so that the animal faces right, and described by principal "
    "components. Bars: the share of the variance of each component. Line: the share of all up to "
    "it. A fit of all keypoints takes the components left of the dashed line, unless told "
    "otherwise by the setting latent_dim."
)
_HOW_TO_READ_COMPONENTS = (
    "What each component does to the mean pose (grey): two standard deviations less in blue, two "
    "more in orange. A component in which one keypoint alone moves is often a badly tracked one."
)
_HOW_TO_READ_SCORES = (
    "Where the frames of each group lie along two latent dimensions of the model {model}: the "
    "darker a cell, the larger its share of the frames of that group. Groups whose frames lie "
    "elsewhere differ in posture, or in size or tracking. Up to {n_blocks} blocks of 16,384 "
    "frames, drawn at random, are read."
)


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    by = pn.widgets.Select(name="Groups by", width=180)
    across = pn.widgets.Select(name="Latent dimension across", width=180)
    upwards = pn.widgets.Select(name="Latent dimension upwards", width=180)
    choices = pn.Row(by, across, upwards)

    def fill() -> None:
        choices.visible = state.has_model
        if not state.has_model:
            return
        names = group_coordinates(state.study.keypoints())
        of = {**{name: name for name in names}, ALL: ""}
        usual = "group" if "group" in names else ""
        by.param.update(options=of, value=by.value if by.value in of.values() else usual)
        n_latent = state.study.opened(state.model).labels.sizes.get("latent_dim", 0)
        for widget, first in ((across, 0), (upwards, min(1, max(0, n_latent - 1)))):
            old = widget.value
            widget.param.update(
                options=list(range(n_latent)),
                value=old if old in range(n_latent) else first if n_latent else None,
            )

    parts.redraw(state, ["model", "news"], fill)
    return parts.column(
        parts.follow(state, ["news"], lambda: _components(state)),
        parts.heading("Scores by group"),
        choices,
        parts.follow(
            state,
            ["model", "news", by, across, upwards],
            lambda: _scores(state, by.value, (across.value, upwards.value)),
        ),
    )


def _components(state: State) -> Any:
    data = state.study.pca()
    if data is None:
        return parts.empty(
            "No principal components yet:", command("pca", state.study.store, variance=0.9)
        )
    scree = parts.plot(views.draw_scree(data), "variance of components")
    sliders, figures = draw_rotating(data, state.study.settings, max_components=_MAX_COMPONENTS)
    panes = [parts.figure(one, f"component {n}") for n, one in enumerate(figures, 1)]
    turn = " The sliders turn all of them." if data.sizes["space"] == 3 else ""
    return parts.column(
        parts.heading("Principal components"),
        parts.text(_HOW_TO_READ_SCREE),
        *(parts.text(f"Note: {note}.") for note in data.attrs.get("notes", ())),
        scree,
        parts.text(" ".join((_HOW_TO_READ_COMPONENTS + turn, note_on(state.study.settings)))),
        pn.Row(*map(pn.pane.Bokeh, sliders)),
        *(pn.Row(*panes[i : i + IN_A_ROW]) for i in range(0, len(panes), IN_A_ROW)),
    )


def _scores(state: State, by: str | None, dims: tuple[int | None, int | None]) -> Any:
    if not state.has_model:
        return parts.no_model(state)
    opened = state.study.opened(state.model)
    labels = opened.labels_with("latent")
    across, upwards = dims
    if across is None or upwards is None:
        return None
    of_group = groups(opened.sessions, state.study.keypoints(), by)
    found = sample_scores(labels, of_group, by=by or "", dims=(across, upwards))
    words = _HOW_TO_READ_SCORES.format(model=state.model, n_blocks=MAX_BLOCKS)
    if found.left_out:
        words += f" {len(found.left_out)} smaller groups are left out."
    # Rows, not a Layout: that is not drawn inside of tabs before the window is resized.
    called = f"scores {across} and {upwards}"
    panes: list[Any] = [parts.plot(panel, called) for panel in views.draw_scores(found)]
    panes += [pn.Spacer(sizing_mode="stretch_width") for _ in range(-len(panes) % _IN_A_ROW)]
    rows = [
        pn.Row(*panes[i : i + _IN_A_ROW], sizing_mode="stretch_width")
        for i in range(0, len(panes), _IN_A_ROW)
    ]
    return parts.column(parts.text(words), *rows)
