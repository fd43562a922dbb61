"""Transitions between syllables as a matrix and as a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import holoviews as hv
import numpy as np
from bokeh.models import PrintfTickFormatter

from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import (
    INK,
    frame,
    hover_tool,
    load,
    short,
    size_from_frame,
)
from kpms_zarr.viz.shared.views import view
from kpms_zarr.viz.syllables.transition_counts import (
    NORMALISATIONS,
    TransitionCounts,
    count_transitions,
)

Naming = Callable[[int], str]

_SIDE = 470  # px
_REACH = 1.28
_NODE_SIZES = (12.0, 44.0)  # px
_WIDTHS = (0.7, 7.0)  # px
_STEPS = np.linspace(0, 1, 25)
_ARROW_AT = 15


@view
def transition_matrix(
    opened: OpenModel,
    *,
    sessions: Sequence[str] | None = None,
    normalise: str = "row",
) -> hv.HeatMap:
    """Matrix of which syllable follows which, for those in use (at most 40), by frequency.

    Parameters
    ----------
    sessions : sequence of str, optional
        Selectors (see :func:`count_transitions`).
    normalise : str
        ``"row"``: share of the changes from the syllable; ``"overall"``: of all changes.

    Returns
    -------
    holoviews.HeatMap
        kdims next and syllable; vdims share (%, of all changes, also those to syllables that are
        not shown) and changes (count).

    Raises
    ------
    MissingData
        When no frame has a syllable.
    """
    counts = count_transitions(opened, sessions=sessions)
    return draw_matrix(counts, normalise, opened.names.label)


def draw_matrix(
    counts: TransitionCounts, normalise: str = "row", naming: Naming = str
) -> hv.HeatMap:
    """Draw what :func:`transition_matrix` returns, of counts that are there already."""
    load()
    used = counts.used
    share = counts.share(normalise)
    row, column = (grid.ravel() for grid in np.meshgrid(used, used, indexing="ij"))
    name = {int(state): short(naming(int(state)), 16) for state in used}
    table = (
        np.array([name[int(state)] for state in column], dtype=object),
        np.array([name[int(state)] for state in row], dtype=object),
        share[row, column],
        counts.changes[row, column],
    )
    hover = hover_tool(
        ("from", "@syllable"),
        ("to", "@next"),
        (f"share {NORMALISATIONS[normalise]}", "@share{0.0[0]} %"),
        ("changes", "@changes{0,0}"),
    )
    heat = hv.HeatMap(table, kdims=["next", "syllable"], vdims=["share", "changes"])
    is_long = max((len(text) for text in name.values()), default=0) > 3
    return heat.opts(
        **frame(
            int(np.clip(130 + 22 * len(used), 300, 760)),
            hover=hover,
            cmap=["#ffffff", *hv.plotting.util.process_cmap("Blues", 64)[4:]],
            clim=(0, max(float(np.max(share[row, column], initial=0)), 1e-9)),
            line_color="#ffffff",
            invert_yaxis=True,
            colorbar=True,
            clabel="",
            colorbar_opts={"formatter": PrintfTickFormatter(format="%g %%")},
            xlabel="next syllable",
            ylabel="syllable",
            xrotation=90 if is_long else 0,
        )
    )


def state_of(label: Any) -> int:
    """The syllable that a label of an axis stands for; -1 when it is none."""
    number = str(label).split(" ")[0]
    return int(number) if number.isdigit() else -1


# ------------------------------------------------------------------ graph


@dataclass(frozen=True)
class TransitionGraph:
    """Places of nodes and edges.

    Attributes
    ----------
    state : ndarray, (node,) int
    position : ndarray, (node, 2)
        On a circle of radius 1 about 0; strongly linked ones mostly beside each other.
    source, target : ndarray, (edge,) int
        Rows of ``state``.
    share : ndarray, (edge,)
        In %, largest last, so that strong ones are drawn above weak ones.
    path : ndarray, (edge, point, 2)
        Bent, so that the two directions between a pair lie beside each other.
    """

    state: np.ndarray
    position: np.ndarray
    source: np.ndarray
    target: np.ndarray
    share: np.ndarray
    path: np.ndarray

    def nearest(self, x: float, y: float, reach: float = 0.15) -> int:
        """The syllable whose node is at a place, -1 when there is none."""
        if not len(self.state):
            return -1
        distance = np.hypot(*(self.position - (x, y)).T)
        node = int(distance.argmin())
        return int(self.state[node]) if distance[node] <= reach else -1


def lay_out(
    counts: TransitionCounts, normalise: str = "overall", max_edges: int = 80
) -> TransitionGraph:
    """Place the syllables in use, at most 40, and their strongest links.

    The same counts give the same picture: each syllable is followed, clockwise, by the one that it
    is linked to most of those that have no place yet.

    Parameters
    ----------
    normalise : str
        What edges are chosen and drawn by.
    """
    state = counts.used
    changes = counts.changes[np.ix_(state, state)]
    order = _ring(changes + changes.T)
    angle = np.pi / 2 - 2 * np.pi * np.argsort(order) / max(1, len(order))
    position = np.column_stack([np.cos(angle), np.sin(angle)])
    share = counts.share(normalise)[np.ix_(state, state)]
    flat = np.argsort(share.ravel(), kind="stable")[-max_edges:]
    flat = flat[share.ravel()[flat] > 0]
    source, target = np.divmod(flat, max(1, len(state)))
    return TransitionGraph(
        state, position, source, target, share.ravel()[flat],
        _bent(position[source], position[target]),
    )  # fmt: skip


def _ring(link: np.ndarray) -> list[int]:
    """Rows of a symmetric matrix of links, one after another around a circle."""
    order: list[int] = []
    left = list(range(len(link)))
    while left:
        chosen = max(left, key=lambda row: link[order[-1], row]) if order else left[0]
        order.append(chosen)
        left.remove(chosen)
    return order


def _bent(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Curves (edge, point, 2) from start to stop, (edge, 2), bent to their right."""
    along = stop - start
    right = np.column_stack([along[:, 1], -along[:, 0]])
    middle = 0.75 * (start + stop) / 2 + 0.16 * right
    t = _STEPS[:, None]
    return np.asarray(
        (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * middle[:, None] + t**2 * stop[:, None]
    )


@view
def transition_graph(
    opened: OpenModel,
    *,
    sessions: Sequence[str] | None = None,
    normalise: str = "overall",
    max_edges: int = 80,
) -> hv.Overlay:
    """Syllables in use as nodes, by frequency, and the commonest changes between them as edges.

    Parameters
    ----------
    sessions : sequence of str, optional
        Selectors (see :func:`count_transitions`).
    normalise : str
        ``"overall"``: edges by the share of all changes (bigrams); ``"row"``: of the changes from
        the syllable.
    max_edges : int
        The strongest ones.

    Returns
    -------
    holoviews.Overlay
        A Graph, whose edges have the colour of the syllable that they leave; arrow heads, with a
        hover box; names.

    Raises
    ------
    MissingData
        When no frame has a syllable.
    """
    counts = count_transitions(opened, sessions=sessions)
    graph = lay_out(counts, normalise, max_edges)
    return draw_graph(counts, graph, normalise, opened.names.label)


def draw_graph(
    counts: TransitionCounts,
    graph: TransitionGraph,
    normalise: str = "overall",
    naming: Naming = str,
    syllable: int = -1,
) -> hv.Overlay:
    """Draw a graph that is laid out; ``syllable``: syllable. See :func:`transition_graph`."""
    load()
    names = np.array([naming(int(state)) for state in graph.state], dtype=object)
    colors = np.array([syllable_color(int(state)) for state in graph.state], dtype=object)
    parts = [
        _nodes_and_edges(counts, graph, names, colors, syllable),
        _arrows(counts, graph, names, colors, normalise),
        _node_names(graph, names),
    ]
    return hv.Overlay(parts).opts(
        hooks=[*frame(0, xgrid=False, ygrid=False)["hooks"], size_from_frame],
        frame_width=_SIDE,
        frame_height=_SIDE,
        xlim=(-_REACH, _REACH),
        ylim=(-_REACH, _REACH),
        xaxis=None,
        yaxis=None,
        show_legend=False,
        default_tools=[],
        active_tools=[],
    )


def _nodes_and_edges(
    counts: TransitionCounts,
    graph: TransitionGraph,
    names: np.ndarray,
    colors: np.ndarray,
    syllable: int,
) -> hv.Graph:
    frequency = 100 * counts.frequency[graph.state]
    size = np.interp(
        np.sqrt(frequency), (0, np.sqrt(max(frequency.max(initial=0), 1))), _NODE_SIZES
    )
    is_chosen = graph.state == syllable
    nodes = hv.Nodes(
        (
            *graph.position.T, np.arange(len(names)), names, frequency, size, colors,
            np.where(is_chosen, 5.0, 1.0),
        ),
        vdims=["name", "frequency", "size", "color", "ring"],
    )  # fmt: skip
    width = np.interp(graph.share, (0, graph.share.max(initial=1e-9)), _WIDTHS)
    edges = (graph.source, graph.target, width, colors[graph.source])
    hover = hover_tool(("syllable", "@name"), ("share of the frames", "@frequency{0.0} %"))
    return hv.Graph(
        (edges, nodes, hv.EdgePaths(list(graph.path))), vdims=["width", "edge_color"]
    ).opts(
        node_size="size",
        node_color="color",
        node_line_color=INK,
        node_line_width="ring",
        edge_line_width="width",
        edge_color="edge_color",
        edge_alpha=0.55,
        edge_hover_line_color=INK,
        inspection_policy="nodes",
        tools=[hover, "reset"],
        default_tools=[],
    )


def _arrows(
    counts: TransitionCounts,
    graph: TransitionGraph,
    names: np.ndarray,
    colors: np.ndarray,
    normalise: str,
) -> hv.Points:
    """Heads in the second half of each edge, which say what it stands for."""
    place = graph.path[:, _ARROW_AT]
    along = graph.path[:, _ARROW_AT + 1] - graph.path[:, _ARROW_AT - 1]
    angle = np.degrees(np.arctan2(along[:, 1], along[:, 0])) - 90  # a triangle points upwards
    changes = counts.changes[graph.state[graph.source], graph.state[graph.target]]
    size = np.interp(graph.share, (0, graph.share.max(initial=1e-9)), (5, 13))
    table = (
        place[:, 0], place[:, 1], angle, size, colors[graph.source], names[graph.source],
        names[graph.target], graph.share, changes,
    )  # fmt: skip
    hover = hover_tool(
        ("from", "@from"),
        ("to", "@to"),
        (f"share {NORMALISATIONS[normalise]}", "@share{0.0[0]} %"),
        ("changes", "@changes{0,0}"),
    )
    vdims = ["angle", "size", "color", "from", "to", "share", "changes"]
    return hv.Points(table, kdims=["x", "y"], vdims=vdims).opts(
        marker="triangle",
        angle="angle",
        size="size",
        color="color",
        line_color=INK,
        line_width=0.5,
        tools=[hover],
        default_tools=[],
    )


def _node_names(graph: TransitionGraph, names: np.ndarray) -> hv.Labels:
    texts = np.array([short(str(name), 12) for name in names], dtype=object)
    return hv.Labels((*(1.19 * graph.position).T, texts), vdims=["text"]).opts(
        text_color=INK, text_font_size="12px", default_tools=[]
    )


@view
def transitions(opened: OpenModel) -> hv.HeatMap:
    """Matrix of which syllable follows which, for those in use (at most 40), by frequency.

    Returns
    -------
    holoviews.HeatMap
        kdims next and syllable; vdims share (% of all changes from the syllable, also those to
        syllables that are not shown) and changes (count).

    Raises
    ------
    MissingData
        When the version has no statistics.
    """
    labels = opened.labels_with("transition_count", "frequency")
    opened.require_bouts()
    changes, frequency = labels["transition_count"].values, labels["frequency"].values
    n_sessions = len(opened.sessions)
    return draw_matrix(TransitionCounts(changes, np.nan_to_num(frequency), n_sessions))
