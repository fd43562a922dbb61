"""Change points: when behaviour changes without a model, and how that lies to a model's onsets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.wording import counted
from kpms_zarr.viz.ethograms.binning import Binned
from kpms_zarr.viz.ethograms.raster import strip
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.shared.style import INK
from kpms_zarr.viz.shared.times import span_words, time_axis_hook
from kpms_zarr.viz.syllables import changepoints as views

if TYPE_CHECKING:
    import xarray as xr

TITLE = "Change points"
KEYS = (("Tab Enter", "Earlier, Later, Closer and Wider move and zoom the strip of the session"),)

_SHUFFLES = 1000
_AT_ONCE = (50e6, 5e6)
"""Frames around whose onsets is averaged without being asked, on a disk and elsewhere."""
_FIRST_SECONDS = 60.0
"""Shown before somebody chooses."""
_MOST_LINES = 200
_CALLED = ("peaks", "intervals", "score around onsets")

_HOW_TO_READ = (
    "A change point is a frame at which many keypoints change their velocity at once, more than "
    "in copies of the data whose keypoints are shifted against each other (dashed). No model is "
    "needed. Dotted: the threshold; the median interval, and the longest duration to try. "
    "Intervals between change points say on what timescale the animal behaves."
)
_HOW_TO_READ_STRIP = (
    "Line: the change score; dots: change points; dotted: the threshold. Below: the syllables of "
    "the chosen model, with the change points as lines. A click on a syllable chooses it."
)


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _ChangePointsPage(state).view


class _ChangePointsPage:
    """Page of what is in the store; what a model's onsets have to do with it is averaged here."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._key: Any = None
        self._onsets_key: Any = None
        self._is_asked = False
        self._onsets = parts.column()
        below = {
            "rates": parts.follow(state, ["news", "session"], self._rates, page="changepoints"),
            "strip": parts.follow(
                state, ["news", "model", "session", "start", "stop"], self._strip,
                page="changepoints",
            ),
        }  # fmt: skip
        self.view = parts.column(
            parts.follow(state, ["news"], self._summary, page="changepoints"),
            self._onsets,
            *below.values(),
        )
        parts.redraw(state, ["news", "model"], self._follow_model, page="changepoints")

    @property
    def _points(self) -> xr.Dataset | None:
        return self.state.study.changepoints()

    # -------------------------------------------------------------- of the study

    def _summary(self) -> Any:
        study, points = self.state.study, self._points
        if points is None:
            self._key = None
            return parts.empty(
                "Change points were not looked for yet. This needs tracking and a heading, no "
                "model:",
                command("changepoints", study.store),
            )
        key = (str(points.attrs.get("provenance")), tuple(study.sessions))
        if key == self._key:
            return parts.SAME
        self._key = key
        facts = points.attrs
        known = set(map(str, points["session"].values))
        later = [one for one in study.sessions if one not in known]
        notes = [f"Note: {note}." for note in facts.get("notes", ())]
        if later:
            notes.append(f"{counted(len(later), 'session')} came later, such as {later[0]}; again:")
        drawn = views.changepoints(points)
        return parts.column(
            parts.text(_HOW_TO_READ),
            parts.text(found_in_words(facts, points.sizes["session"])),
            *map(parts.text, notes),
            *([parts.code(command("changepoints", study.store))] if later else []),
            pn.Row(
                *(
                    parts.plot(one.opts(title=called), called, sizing_mode=None)
                    for one, called in zip(drawn, _CALLED, strict=False)
                ),
                styles={"flex-wrap": "wrap"},
            ),
            *_durations_to_try(facts, study.store),
        )

    def _rates(self) -> Any:
        points = self._points
        if points is None:
            return None
        drawn = views.session_rates(points, chosen=self.state.session)
        dots = next(iter(drawn))
        names, rates = (dots.dimension_values(name) for name in ("session", "rate"))

        def tapped(x: float | None, y: float | None) -> None:
            if x is not None and y is not None and len(names):
                place = int(np.clip(round(x) - 1, 0, len(names) - 1))
                if abs(rates[place] - y) <= 0.12 * max(rates.max(), 1e-9):
                    self.state.show(str(names[place]))

        hv.streams.Tap(source=dots).add_subscriber(tapped)
        return parts.column(
            parts.heading("Sessions"),
            parts.text("Each dot is a session; a click chooses it, the ring is the chosen one."),
            parts.plot(drawn, "rates of the sessions"),
        )

    # -------------------------------------------------------------- onsets of the model

    def _follow_model(self) -> None:
        """Average the score around the onsets of the model, unless that is there already."""
        state, study, points = self.state, self.state.study, self._points
        if points is None or state.page != "changepoints":
            return
        key = (
            *(state.model, study.version(state.model), str(points.attrs.get("provenance"))),
            study.timestamps,
        )
        if key == self._onsets_key:
            return
        self._onsets_key = key
        heading = parts.heading("Around the onsets of a model")
        if not state.has_model:
            self._onsets[:] = [heading, parts.no_model(state)]
        elif not self._is_asked and parts.is_much(state, _AT_ONCE):
            ask = parts.button("Average the score around all onsets", self._asked)
            self._onsets[:] = [heading, ask]
        else:
            self._begin()

    def _asked(self, _event: Any) -> None:
        self._is_asked = True
        self._begin()

    def _begin(self) -> None:
        key = self._onsets_key
        self._onsets[:] = [
            parts.heading("Around the onsets of a model"),
            parts.text("Averaging the change score around the onsets ..."),
        ]
        parts.beside(parts.guarded(partial(self._average, key)), partial(self._take, key),
                     is_short=False)  # fmt: skip

    def _average(self, key: tuple[Any, ...]) -> Any:
        from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
        from kpms_zarr.compute.kinematics.onset_alignment import score_around_onsets

        study, points, (model, version, *_) = self.state.study, self._points, key
        assert points is not None
        facts = points.attrs
        return study.remember(
            ("score around onsets", *key),
            lambda: score_around_onsets(
                points, study.store, PosedLabels(study.store, model, version),
                window=float(facts["window"]), shuffles=_SHUFFLES, seed=int(facts["seed"]),
            ),
        )  # fmt: skip

    def _take(self, key: Any, result: Any) -> None:
        if key != self._onsets_key:  # something else is wanted by now
            return
        heading = parts.heading(f"Around the onsets of {key[0]}")
        if isinstance(result, pn.viewable.Viewable):
            self._onsets[:] = [heading, result]
            return
        self._onsets[:] = [heading, parts.guarded(self._around)(result)]

    def _around(self, found: xr.Dataset) -> Any:
        drawn = list(views.changepoints(found))[-1]
        words = parts.text(onsets_in_words(found))
        line = command("changepoints", self.state.study.store, model=self.state.model)
        return parts.column(
            words, parts.plot(drawn, _CALLED[-1], sizing_mode=None), parts.code(line)
        )

    # -------------------------------------------------------------- of a session

    def _span(self) -> tuple[float, float]:
        """Span to show: as chosen, or the beginning of a long session."""
        state = self.state
        start, stop = state.span
        is_chosen = state.start > 0 or state.stop > 0
        return start, stop if is_chosen else min(stop, start + _FIRST_SECONDS)

    def _strip(self) -> Any:
        state, study, points = self.state, self.state.study, self._points
        if points is None or state.session_row is None:
            return None
        start, stop = self._span()
        found = views.read_strip(points, state.session, start, stop)
        if found is None:
            return parts.column(
                parts.heading(state.session),
                parts.empty(
                    "Change points of this session, or of this time of it, are not in the store:",
                    command("changepoints", study.store),
                ),
            )
        clock = study.clock(state.session)
        shared: dict[str, Any] = {}

        def share(plot: Any, _element: Any) -> None:
            plot.state.x_range = shared.setdefault("x", plot.state.x_range)

        hooks = [time_axis_hook(clock), share]
        above = views.score_strip(found, float(points.attrs["threshold"]), clock_of=clock)
        above = above.opts(hooks=[*parts.hooks_of(above), *hooks])
        title = span_words(clock.shown(found.start), clock.shown(found.stop))
        return parts.column(
            parts.heading(f"{state.session}, {title}"),
            parts.text(f"{counted(found.n_points, 'change point')} in this time. "
                       + _HOW_TO_READ_STRIP),
            parts.plot(above, "score", session=state.session),
            *self._syllables(found, hooks),
            parts.span_buttons(state, self._span),
        )  # fmt: skip

    def _syllables(self, found: views.ScoreStrip, hooks: list[Any]) -> list[Any]:
        """Draw the syllables of the same time, with the change points as lines."""
        state = self.state
        if not state.has_model:
            return [parts.no_model(state)]
        opened = state.study.opened(state.model)
        binned = Binned.of(opened)
        if state.session not in {one.name for one in binned.sessions}:
            return [parts.text(f"{state.session} has no labels of the model {state.model}.")]
        image, view = strip(binned, state.session, found.start, found.stop, names=opened.names,
                            height=120)  # fmt: skip

        def choose(x: float | None, y: float | None) -> None:
            column = -1 if x is None else int((x - view.start) // view.seconds)
            if 0 <= column < view.syllable.shape[1]:
                state.syllable = max(-1, int(view.syllable[0, column]))

        hv.streams.Tap(source=image).add_subscriber(choose)
        drawn = image
        if 0 < len(found.point_time) <= _MOST_LINES:
            lines = hv.VLines(found.point_time).opts(
                color=INK, line_width=1.5, line_dash="dotted", default_tools=[]
            )
            drawn = image * lines
        drawn = drawn.opts(hooks=[*parts.hooks_of(image), *hooks])
        return [parts.plot(drawn, "syllables", session=state.session)]


# ------------------------------------------------------------------ words


def found_in_words(facts: dict[str, Any], n_sessions: int) -> str:
    """How many change points were found, and how many of them by chance."""
    n = int(facts["n_changepoints"])
    words = f"{counted(f'{n:,}', 'change point')} in {counted(n_sessions, 'session')}"
    if n:
        words += (
            f", {100 * float(facts['false_share']):.0f} % of them expected by chance, of at least "
            f"{int(facts['n_at_least']):,} changes that there are"
        )
    return f"{words}; velocities are means over {float(facts['window']):g} ms."


def target_of(facts: dict[str, Any]) -> tuple[int, int] | None:
    """Durations to try, from half to the whole of the suggested one, in ms; None without any."""
    target = float(facts.get("target_duration", float("nan")))
    if not np.isfinite(target):
        return None
    most = max(20, 10 * round(target / 10))
    return max(10, 10 * round(most / 20)), most


def _durations_to_try(facts: dict[str, Any], store: Any) -> list[Any]:
    found = target_of(facts)
    if found is None:
        return []
    low, middle, high = (
        float(facts[name]) for name in ("lower_quartile", "median_interval", "upper_quartile")
    )
    least, most = found
    return [
        parts.text(
            f"Intervals: median {middle:,.0f} ms, half of them from {low:,.0f} to {high:,.0f} ms. "
            f"Less what was missed, behaviour changes every {most} ms or more often. Durations to "
            "try:"
        ),
        parts.code(command("scan", store, target_durations=f"{least}ms:{most}ms:5")),
    ]


def onsets_in_words(found: xr.Dataset) -> str:
    """How the change score runs around the onsets of a model, and how often both coincide."""
    facts, at_onset = found.attrs, found.sel(lag=0, method="nearest")
    low, high = at_onset["shifted_quantile"].values.tolist()

    def share(name: str) -> str:
        value = float(facts[name])
        return f"{100 * value:.0f} %" if np.isfinite(value) else "-"

    return (
        f"At the {int(facts['n_onsets']):,} onsets the change score is "
        f"{float(at_onset['onset_score']):.2f}; around shifted onsets {low:.2f} to {high:.2f} "
        f"(grey: 95 % of them; p {float(facts['onset_p']):.2g}). {share('onset_share')} of the "
        f"onsets have a change point within {float(facts['window']):g} ms "
        f"({share('onset_share_by_chance')} by chance), {share('changepoint_share')} of the change "
        f"points an onset ({share('changepoint_share_by_chance')} by chance)."
    )
