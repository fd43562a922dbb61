"""Ethogram: all sessions at once, and some seconds of one of them frame by frame."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn
import param

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.core.schema import KEYPOINTS
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.viz.ethograms.binning import Binned
from kpms_zarr.viz.ethograms.raster import Raster, strip
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.bands import draw_bands
from kpms_zarr.viz.shared.opened import OpenModel, certainty_words
from kpms_zarr.viz.shared.times import span_words

TITLE = "Ethogram"
KEYS = (("Tab Enter", "Earlier, Later, Closer and Wider move and zoom the strip, Play shows it"),)

_SECONDS = 30.0
"""Shown around a moment that was clicked, unless less is shown already."""
_MOST_SECONDS = 120.0
_BANDS = (1.04, 1.26)
"""Where epochs are drawn: the labels reach from 0 to 1."""
_AS_STORED, _BY_NAME = "", "session"
_OWN = {var.name for var in KEYPOINTS} - {"individual", "recording"}


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _EthogramPage(state).view


class _EthogramPage(param.Parameterized):
    """Page whose raster is made anew for other labels or another order only: a zoom stays."""

    raster = param.Parameter(None, doc="What is shown of all sessions; None without a model")

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        self._made: tuple[Any, ...] = ()
        self._names: SyllableNames | None = None
        self._order = pn.widgets.Select(name="Order of the sessions", width=220)
        self._pale = pn.widgets.Checkbox(name="Pale where uncertain", value=True)
        self._alone = pn.widgets.Checkbox(name="Colour only the chosen syllable", value=True)
        choices = ["session", "start", "stop", "syllable", self._pale, self._alone]
        choices.append(self.param.raster)
        parts.redraw(state, choices, self._restyle)
        self._chosen = parts.follow(state, choices, self._strip, later=True)
        self.view = parts.follow(state, ["model", "news", self._order], self._make)

    def _make(self) -> pn.viewable.Viewable:
        """Draw the page, unless what is there is still right."""
        state = self.state
        if not state.has_model:
            self.raster, self._made = None, ()
            return parts.no_model(state)
        self._order.options = orders(state)
        study, model, order = state.study, state.model, str(self._order.value or "")
        opened = study.opened(model)
        self._names = opened.names
        wanted = (model, study.version(model), order, self._names, study.epochs_version())
        if wanted == self._made:
            return parts.SAME
        self._made = wanted
        sessions, rows = in_order(state, order)
        binned = Binned.of(opened, sessions)
        bands = [study.epoch_bands(session.name) for session in binned.sessions]
        self.raster = Raster(binned, self._names, rows=rows, on_tap=self._tapped, bands=bands)
        controls = pn.Row(self._order, pn.Column(self._pale, self._alone))
        return parts.column(
            controls,
            parts.plot(self.raster.plot, "all sessions"),
            parts.text(
                "Click to choose a session and a moment; drag a box to zoom in, as far as single "
                f"frames; the circling arrow of the toolbar zooms out. {self._paleness(opened)}"
            ),
            *_legend(study),
            *self._below(),
        )

    def _paleness(self, opened: OpenModel) -> str:
        """What pale colours mean."""
        if "certainty" in opened.labels:
            return certainty_words(opened)
        return "Columns that hold frames of many syllables are pale."

    def _below(self) -> tuple[pn.viewable.Viewable, ...]:
        """Draw the chosen time of the chosen session."""
        acts: dict[str, Callable[[Any], object]] = {
            "Earlier": lambda _: self._move(-1),
            "Later": lambda _: self._move(1),
            "Closer": lambda _: self._resize(0.5),
            "Wider": lambda _: self._resize(2.0),
            "Play": lambda _: self.state.param.update(page="player"),
        }
        buttons = (parts.button(name, act, width=90) for name, act in acts.items())
        return self._chosen, pn.Row(*buttons)

    def _strip(self) -> pn.viewable.Viewable | None:
        state = self.state
        if self.raster is None:
            return None
        known = {session.name for session in self.raster.binned.sessions}
        if state.session not in known:
            return parts.empty(
                f"{state.session or 'No session'} has no labels of this model. To label all that "
                "have none:",
                command("apply", state.study.store, model=state.model),
            )
        start, stop = state.span
        image, view = strip(
            self.raster.binned,
            state.session,
            start,
            stop,
            names=self._names,
            highlight=self._highlight,
            by_certainty=self._pale.value,
            clock_of=state.study.clock(state.session),
        )
        dragged = hv.streams.BoundsX(source=image)
        tapped = hv.streams.Tap(source=image)

        def choose_time(boundsx: tuple[float, float] | None) -> None:
            if boundsx is not None:
                self._choose(state.session, *boundsx)

        def choose_syllable(x: float | None, y: float | None) -> None:
            column = -1 if x is None else int((x - view.start) // view.seconds)
            if 0 <= column < view.syllable.shape[1]:
                state.syllable = max(-1, int(view.syllable[0, column]))

        dragged.add_subscriber(choose_time)
        tapped.add_subscriber(choose_syllable)
        bands = state.study.epoch_bands(state.session)
        drawn = image
        if any(one.start < stop and one.stop > start for one in bands):
            above = draw_bands(bands, start, stop, *_BANDS)
            drawn = (image * above).opts(ylim=(0, _BANDS[1]))
        return parts.column(
            parts.heading(f"{state.session}, {self._written(start, stop)}", 3),
            parts.plot(drawn, "strip", session=state.session),
            parts.text("Drag to choose a time; click to choose the syllable."),
        )

    def _written(self, start: float, stop: float) -> str:
        shown = self.state.study.clock(self.state.session).shown
        return span_words(shown(start), shown(stop), 2)

    @property
    def _highlight(self) -> int:
        return self.state.syllable if self._alone.value else -1

    def _restyle(self) -> None:
        if self.raster is not None:
            self.raster.style.param.update(
                highlight=self._highlight,
                by_certainty=self._pale.value,
                marked=(self.state.session, *self.state.span),
            )

    def _tapped(self, session: Session, seconds: float, _syllable: int) -> None:
        end = session.n_frames / session.fps
        if seconds >= end:
            self.state.show(session.name)
            return
        start, stop = self.state.span
        length = min(stop - start if stop - start <= _MOST_SECONDS else _SECONDS, end)
        first = min(max(0.0, seconds - length / 2), end - length)
        self._choose(session.name, first, first + length)

    def _move(self, step: int) -> None:
        start, stop = self.state.span
        self._show(start + step * (stop - start), stop - start)

    def _resize(self, factor: float) -> None:
        start, stop = self.state.span
        length = factor * (stop - start)
        self._show((start + stop - length) / 2, length)

    def _show(self, start: float, length: float) -> None:
        session = self.state.session_row
        if session is not None:
            end = session.n_frames / session.fps
            length = min(max(length, 4 / session.fps), end)
            start = min(max(0.0, start), end - length)
            self._choose(session.name, start, start + length)

    def _choose(self, name: str, start: float, stop: float) -> None:
        self.state.show(name, round(start, 3), round(stop, 3))  # ms are enough for an address


def _legend(study: Study) -> list[pn.viewable.Viewable]:
    """What the thin bands below the rows are, where there are epochs."""
    colors = study.epoch_colors()
    if not colors:
        return []
    chips = "".join(
        f'<span style="white-space:nowrap;margin-right:1rem"><span style="color:{color}">■</span> '
        f"{html.escape(kind)}</span>"
        for kind, color in colors.items()
    )
    return [pn.pane.HTML(f"<p>Bands below the rows: {chips}</p>", sizing_mode="stretch_width")]


def orders(state: State) -> dict[str, str]:
    """Orders that sessions can be shown in: what a person reads, and the coordinate."""
    found = {"as in the store": _AS_STORED, "name": _BY_NAME}
    table = state.study.keypoints()
    for name, column in table.coords.items():
        if column.dims == ("session",) and name not in _OWN and len(np.unique(column.values)) > 1:
            found[str(name)] = str(name)
    return found


def in_order(state: State, order: str) -> tuple[list[str], list[str]]:
    """Names of the labelled sessions in an order, and what stands beside their rows."""
    labels = state.study.opened(state.model).labels
    is_real = labels["n_frames"].values > 0
    names = [str(name) for name in labels["session"].values[is_real]]
    if order == _AS_STORED:
        return names, names
    if order == _BY_NAME:
        names = sorted(names)
        return names, names
    table = state.study.keypoints()
    values = dict(zip(map(str, table["session"].values), table[order].values, strict=True))
    is_text = table[order].dtype.kind not in "iufb"
    # Those of which nothing is known come last.
    known = {
        name: values[name] for name in names if name in values and values[name] == values[name]
    }
    known = {name: value for name, value in known.items() if str(value)}
    names.sort(key=lambda name: (name not in known, known.get(name, "" if is_text else 0), name))
    return names, [f"{known[name]}: {name}" if name in known else name for name in names]
