"""Onsets of syllables: averages of a signal around them, and the typical trajectory of the pose."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.store.wording import counted, sentence
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.cards import Cards
from kpms_zarr.viz.explore.page_frame import PictureFile, card_file
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.syllable_cards import PlayableBout, bout_cards
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.picture_data import PictureTable
from kpms_zarr.viz.shared.reading import label_sessions
from kpms_zarr.viz.syllables.drawing import draw
from kpms_zarr.viz.syllables.triggered import small_curve, triggered_average
from kpms_zarr.viz.syllables.typical import example_poses, typical_poses

if TYPE_CHECKING:
    import xarray as xr

TITLE = "Onsets"

_PRE, _POST = 1.0, 2.0
_SHUFFLES, _FEWEST_SHUFFLES = 1000, 200
_MOST_BYTES, _BYTES_EACH = 256 * 2**20, 32
"""Of the shuffles of all syllables, and of a syllable, time and shuffle."""
_AT_ONCE = (50e6, 5e6)
"""Frames that are averaged without being asked, on a disk and elsewhere: half a minute or so."""
_ALPHA = 0.05


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _OnsetsPage(state).view


class _OnsetsPage:
    """Page that averages when it is looked at, and again for other labels or another signal."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._signal = pn.widgets.Select(name="Signal", width=220)
        self._key: Any = None
        self._poses_key: Any = None
        self._found: xr.Dataset | None = None
        self._names: SyllableNames | None = None
        self._is_asked = False
        self._cards = Cards(label="Averages around the onsets of syllables")
        self._cards.offer(self._file)
        self._cards.param.watch(self._clicked, "clicks")
        self._all = parts.column()
        self._one = parts.column()
        self._poses = parts.column()
        self._place = parts.column()
        self.view = parts.column(self._signal, self._place)
        self._signal.param.watch(self._chosen, "value")
        parts.redraw(state, ["model", "news", "signal"], self._update, page="onsets")
        parts.redraw(state, ["syllable"], self._draw_one, page="onsets")

    def _chosen(self, event: Any) -> None:
        self.state.signal = event.new or ""

    def _clicked(self, event: Any) -> None:
        self.state.syllable = int(event.new[1])

    # -------------------------------------------------------------- averaging

    def _update(self) -> None:
        """Average, unless what is there is still right."""
        state, study = self.state, self.state.study
        if state.page != "onsets":
            return
        if not state.has_model:
            self._forget(None)
            self._place[:] = [parts.no_model(state)]
            return
        version = study.version(state.model)
        try:
            names = study.remember(
                ("signal names", state.model, version, tuple(sorted(study.signals))),
                partial(_signal_names, study.store, state.model, version),
            )
        except InputError as error:
            self._place[:] = [parts.text(error.problems[0].found)]
            return
        signal = state.signal if state.signal in names else next(iter(names), "")
        options = {name.replace("_", " "): name for name in names} or {"none": ""}
        self._signal.param.update(options=options, value=signal)
        key = (
            *(state.model, version, signal, study.signals.get(signal, ())),
            *(study.timestamps, study.epochs_version()),
        )
        names_now = study.opened(state.model).names
        if key == self._key:
            if names_now != self._names:
                self._names = names_now
                self._fill_cards()
                self._draw_one()
            return
        self._names = names_now
        if self._key is not None and key[:2] != self._key[:2]:
            self._is_asked = False
        self._forget(key)
        self._place[:] = [self._all, self._one, self._poses]
        if not self._is_asked and parts.is_much(state, _AT_ONCE):
            ask = parts.button("Average around onsets, which reads all frames", self._asked)
            self._place[:] = [ask]
            return
        self._begin()

    def _forget(self, key: Any) -> None:
        self._key, self._poses_key, self._found = key, None, None
        self._all[:], self._one[:], self._poses[:] = [], [], []

    def _asked(self, _event: Any) -> None:
        self._is_asked = True
        self._place[:] = [self._all, self._one, self._poses]
        self._begin()

    def _begin(self) -> None:
        key = self._key
        if not key[2]:
            self._all[:] = [
                parts.text("These labels have no positions and the store has no signals."),
                parts.code(command("signals", self.state.study.store, "FILE.csv")),
            ]
        else:
            self._all[:] = [parts.text("Averaging around the onsets ...")]
            parts.beside(parts.guarded(partial(self._average, key)), partial(self._take, key),
                         is_short=False)  # fmt: skip
        self._draw_one()

    def _average(self, key: tuple[Any, ...]) -> Any:
        from kpms_zarr.compute.analysis.onsets.triggered_average import triggered_average

        study, (model, version, signal, *_) = self.state.study, key
        opened = study.opened(model)
        syllables = list(opened.used) if "frequency" in opened.labels else None
        return study.remember(
            ("average", *key),
            lambda: triggered_average(
                study.store, model=model, version=version, signal=signal, syllables=syllables,
                pre=_PRE, post=_POST, shuffles=_affordable(opened),
            ),
        )  # fmt: skip

    def _take(self, key: Any, result: Any) -> None:
        if key != self._key:  # something else is wanted by now
            return
        if isinstance(result, pn.viewable.Viewable):
            self._all[:] = [result]
            return
        self._found = result
        self._fill_cards()
        unit = str(result.attrs["units"])
        over = str(result.attrs["sem_over"])
        signal = result.attrs["signal"].replace("_", " ")
        words = (
            f"Means of {signal}{f' ({unit})' if unit else ''} from "
            f"{_PRE:g} s before to {_POST:g} s after the onset, all on one scale; grey: 95 % of "
            f"{int(result.attrs['shuffles']):,} shuffles at each time. Units are "
            f"{counted(int(result.attrs['n_sessions']), 'session')}"
            f"{'' if over == 'sessions' else ', errors are over its onsets'}; q: of the largest "
            "deviation over all times, for the number of syllables. A click chooses a syllable."
        )
        self._all[:] = [
            parts.text(words),
            *(parts.text(sentence(note)) for note in result.attrs["notes"]),
            self._cards,
        ]
        self._draw_one()

    # -------------------------------------------------------------- drawing

    def _fill_cards(self) -> None:
        found = self._found
        if found is None:
            return
        names = self.state.study.opened(self.state.model).names
        has = found["n_sessions"].values > 0
        order = np.argsort(np.where(has, found["q"].values, np.inf), kind="stable")
        entries = []
        for place in order[: int(has.sum())].tolist():
            one = found.isel(syllable=place)
            syllable, q = int(one["syllable"]), float(one["q"])
            facts = [f"q {q:.2g}{' *' if q < _ALPHA else ''}, {int(one['n_onsets']):,} onsets"]
            label = f"Average around the onset of syllable {names.label(syllable)}"
            entries.append(
                {
                    "key": syllable,
                    "number": str(syllable),
                    "title": names.custom_name(syllable),
                    "color": syllable_color(syllable),
                    "lines": facts,
                    "hint": f"Syllable {names.label(syllable)}: {', '.join(facts)}",
                    "picture": small_curve(found, syllable, label),
                }
            )
        self._cards.cards = entries

    def _file(self, syllable: int, kind: str) -> PictureFile | None:
        """File of the small picture of a syllable."""
        from kpms_zarr.compute.analysis.onsets.triggered_table import triggered_table

        found = self._found
        if found is None or self._key is None:
            return None
        one = found.isel(syllable=found["syllable"].values == syllable)
        called = f"{self._key[2]} around syllable {syllable}"
        return card_file(self.state, called, kind, lambda: PictureTable(triggered_table(one)))

    def _syllable(self) -> int:
        """The chosen syllable, or the first of the cards; -1 = none."""
        if self.state.syllable >= 0:
            return self.state.syllable
        return int(self._cards.cards[0]["key"]) if self._found is not None else -1

    def _draw_one(self) -> None:
        """Draw the average of the chosen syllable, and its typical trajectory."""
        if self._key is None:
            return
        syllable = self._syllable()
        self._cards.chosen = syllable
        self._one[:] = [] if self._found is None else [parts.guarded(self._curve)(syllable)]
        if syllable >= 0:
            self._begin_poses(syllable)

    def _curve(self, syllable: int) -> Any:
        state, found = self.state, self._found
        assert found is not None
        called = state.study.opened(state.model).names.label(syllable)
        title = parts.heading(f"Syllable {called}: average around the onset", 3)
        there = found["syllable"].values.tolist()
        if syllable not in there or not int(found["n_sessions"][there.index(syllable)]):
            few = int(found.attrs["min_onsets"])
            why = f"It has fewer than {few} onsets in every session, or is not in use."
            return parts.column(title, parts.text(why))
        one = found.isel(syllable=there.index(syllable))
        at, away = float(one["time_of_largest"]), float(one["largest_deviation"])
        facts = (
            f"{int(one['n_onsets']):,} onsets in {counted(int(one['n_sessions']), 'session')}. "
            f"It is farthest from the shuffles {at:+.2f} s after the onset, by {away:.1f} of their "
            f"standard deviations: p {float(one['p']):.2g}, q {float(one['q']):.2g}. Colour: mean "
            "and standard error; dashed: mean of the shuffles."
        )
        view = triggered_average(found, syllables=[syllable], height=300, width=None)
        drawn = view.values()[0].opts(title="")
        called_so = f"{self._key[2]} around syllable {syllable}"
        line = command(
            "triggered_average", state.study.store, model=state.model, signal=self._key[2]
        )
        return parts.column(
            title, parts.text(facts), parts.plot(drawn, called_so, max_width=900), parts.code(line)
        )

    # -------------------------------------------------------------- trajectories

    def _begin_poses(self, syllable: int) -> None:
        state, study = self.state, self.state.study
        key = (state.model, study.version(state.model), syllable, study.epochs_version())
        if key == self._poses_key:
            return
        self._poses_key = key
        self._poses[:] = [parts.text("Looking for the typical trajectory ...")]
        parts.beside(parts.guarded(partial(self._find_poses, key)),
                     partial(self._take_poses, key), is_short=False)  # fmt: skip

    def _find_poses(self, key: tuple[Any, ...]) -> Any:
        from kpms_zarr.compute.analysis.onsets.trajectories import trajectories as find

        study, (model, version, syllable, _) = self.state.study, key
        return study.remember(
            ("trajectory", *key),
            lambda: find(study.store, model=model, version=version, syllables=[syllable]),
        )

    def _take_poses(self, key: Any, result: Any) -> None:
        if key != self._poses_key:
            return
        is_view = isinstance(result, pn.viewable.Viewable)
        called = self.state.study.opened(self.state.model).names.label(key[2])
        self._poses[:] = [
            parts.heading(f"Syllable {called}: typical trajectory", 3),
            result if is_view else parts.guarded(self._typical)(result, key[2]),
        ]

    def _typical(self, found: xr.Dataset, syllable: int) -> Any:
        n_core, n_all = (int(found[f"n_{what}"][0]) for what in ("core", "candidates"))
        if not n_core:
            return parts.text("No bout of 0.1 s or more has a whole window around its onset.")
        first, last = (1000 * float(found["time"][end]) for end in (0, -1))
        words = (
            f"From {-first:.0f} ms before the onset (light) to {last:.0f} ms after it (dark), seen "
            f"from the animal at the onset: the median of the {n_core} of {n_all:,} bouts where "
            "they lie densest. Below: some of these; a click plays one."
        )
        (typical,) = typical_poses(found).values()
        called = f"trajectory of syllable {syllable}"
        views = [parts.plot(one, called, sizing_mode=None) for one in draw(typical, width=400)]
        study, model = self.state.study, self.state.model
        rows = {one.name: one for one in label_sessions(study.opened(model).labels)}
        sessions, onsets = found["session"].values[0], found["onset_frame"].values[0]
        lengths = found["duration_s"].values[0]
        bouts = []
        for n, poses in enumerate(example_poses(found, syllable)):
            session, onset = rows[str(sessions[n])], int(onsets[n])
            stop = onset + round(float(lengths[n]) * session.fps)
            bouts.append(PlayableBout(syllable, session, onset, stop, poses))
        line = command("trajectories", study.store, model=model, out="trajectories")
        return parts.column(
            parts.text(words), pn.Row(*views), bout_cards(self.state, bouts), parts.code(line)
        )


def _signal_names(store: Any, model: str, version: str) -> tuple[str, ...]:
    from kpms_zarr.compute.analysis.onsets.frame_signals import signals_of
    from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels

    return signals_of(store, PosedLabels(store, model, version))


def _affordable(opened: Any) -> int:
    """Shuffles of all syllables that fit into memory."""
    fps = max(one.fps for one in label_sessions(opened.labels))
    n = len(opened.used) if "frequency" in opened.labels else 100
    each = _BYTES_EACH * max(1, n) * (1 + (_PRE + _POST) * fps)
    return int(np.clip(_MOST_BYTES / each // 100 * 100, _FEWEST_SHUFFLES, _SHUFFLES))
