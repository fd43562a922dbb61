"""Transitions between syllables, in the whole study or in chosen sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import holoviews as hv
import panel as pn

from kpms_zarr.store.core.names import parse_selectors
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.syllables import transition_views
from kpms_zarr.viz.syllables.transition_counts import (
    NORMALISATIONS,
    Neighbours,
    TransitionCounts,
    count_transitions,
    neighbours_of,
)

TITLE = "Transitions"

_HELP = (
    "Names, patterns such as mouse_*, or coordinate=value such as group=control, with commas "
    "between them. Empty: all sessions with labels."
)


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    # Columns beside each other, one for each set of sessions.
    return pn.FlexBox(_Column(state).view, sizing_mode="stretch_width", gap="24px")


class _Column:
    """One set of sessions: what chooses it, its matrix and its graph."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.sessions = pn.widgets.TextInput(
            name="Sessions",
            placeholder="all; or mouse_*, group=control",
            description=_HELP,
            width=330,
        )
        self.share = pn.widgets.Select(
            name="Share", options={words: key for key, words in NORMALISATIONS.items()}, width=250
        )
        self.edges = pn.widgets.IntSlider(
            name="Changes drawn in the graph, the commonest", start=10, end=300, step=10, value=80,
            width=290,
        )  # fmt: skip
        self._counts: TransitionCounts | None = None
        self._counted: Any = None
        self._place = parts.column()
        controls = pn.FlexBox(self.sessions, self.share, self.edges, sizing_mode="stretch_width")
        self.view = pn.Column(
            controls, self._place, sizing_mode="stretch_width", styles={"flex": "1 1 480px"}
        )
        choices = ["model", "news", "syllable", self.sessions, self.share, self.edges]
        parts.redraw(state, choices, self._update, page="transitions")

    def _update(self) -> None:
        """Count again if other sessions are chosen, and draw."""
        state = self.state
        if not state.has_model:
            self._counts, self._counted = None, None
            self._place[:] = [parts.no_model(state)]
            return
        key = (state.model, state.study.version(state.model), self.sessions.value)
        if key == self._counted:
            self._draw()
            return
        self._counted, self._counts = key, None
        selectors = parse_selectors(self.sessions.value or "") or None
        opened = state.study.opened(state.model)
        count = partial(count_transitions, opened, sessions=selectors)
        if selectors is not None:
            self._place[:] = [parts.text("Counting the changes in these sessions ...")]
        parts.beside(parts.guarded(count), partial(self._take, key), is_short=selectors is None)

    def _take(self, key: Any, result: Any) -> None:
        """Show what was counted, or in words why it could not be."""
        if key != self._counted:  # something else is wanted by now
            return
        if isinstance(result, TransitionCounts):
            self._counts = result
            self._draw()
        else:
            self._place[:] = [result]

    def _draw(self) -> None:
        if self._counts is not None:
            self._place[:] = [parts.guarded(self._views)(self._counts)]

    def _views(self, counts: TransitionCounts) -> pn.viewable.Viewable:
        state = self.state
        naming = state.study.opened(state.model).names.label
        matrix = transition_views.draw_matrix(counts, self.share.value, naming)
        tapped = hv.streams.Tap(source=matrix)
        tapped.add_subscriber(lambda x, y: self._choose(transition_views.state_of(y)))
        graph = transition_views.lay_out(counts, self.share.value, self.edges.value or 0)
        drawn = transition_views.draw_graph(counts, graph, self.share.value, naming, state.syllable)
        on_graph = hv.streams.Tap(source=drawn.get(0))
        on_graph.add_subscriber(lambda x, y: self._choose(graph.nearest(x, y)))
        n = counts.n_sessions
        summary = (
            f"{n} session{'s' if n != 1 else ''}, {counts.changes.sum():,} changes. A click on a "
            "cell or a node chooses a syllable. Lines have the colour of the syllable that they "
            "leave."
        )
        return parts.column(
            parts.text(summary),
            parts.text(self._in_words(counts, naming)),
            pn.FlexBox(
                parts.plot(
                    matrix, "matrix", min_width=440, max_width=760, styles={"flex": "1 1 440px"}
                ),
                parts.plot(drawn, "graph", sizing_mode=None),
                sizing_mode="stretch_width",
                align_items="flex-start",
            ),
        )

    def _choose(self, syllable: int) -> None:
        if syllable >= 0:
            self.state.syllable = syllable

    def _in_words(self, counts: TransitionCounts, naming: Callable[[int], str]) -> str:
        """Describe what the chosen syllable comes after, and what follows it."""
        syllable = self.state.syllable
        if syllable < 0:
            return "No syllable is chosen."
        is_known = syllable < len(counts.changes)
        sides = neighbours_of(counts.changes, syllable, max_neighbours=3) if is_known else ()
        if not any(len(side.syllable) for side in sides):
            return f"Syllable {naming(syllable)} does not change into another in these sessions."

        def listed(side: Neighbours) -> str:
            pairs = zip(side.syllable.tolist(), side.share, strict=True)
            return ", ".join(f"{naming(i)} ({share:.0f} %)" for i, share in pairs) or "none"

        before, after = map(listed, sides)
        return (
            f"Syllable {naming(syllable)} comes mostly after {before}; "
            f"it is followed mostly by {after}."
        )
