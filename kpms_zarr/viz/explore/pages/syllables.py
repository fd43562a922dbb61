"""Syllables: a card for each one in use, and all about the one that is chosen."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import panel as pn

from kpms_zarr.store.model.replicability import (
    beyond_in_words,
    halves_in_words,
    in_words,
    interpreted_in_words,
)
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.store.wording import sentence
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.cards import Cards
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.syllable_cards import gallery_of, offer_poses
from kpms_zarr.viz.explore.syllable_cards import pictures as syllable_pictures
from kpms_zarr.viz.explore.syllable_detail import Detail
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.guessing import note_on
from kpms_zarr.viz.syllables import agreement
from kpms_zarr.viz.syllables.agreement import replicability_lines
from kpms_zarr.viz.syllables.data import Gallery

TITLE = "Syllables"
KEYS = (("Tab Enter", "from card to card, and the syllable of a card"),)

_PER_PAGE = 12
_BY_REPLICABILITY = "most replicable first"
_ORDERS: dict[str, Callable[[Gallery, int], float]] = {
    "most frequent first": lambda found, one: -float(found.labels["frequency"][one]),
    "number": lambda found, one: one,
    "longest first": lambda found, one: -float(np.nan_to_num(found.labels["median_duration"][one])),
    _BY_REPLICABILITY: lambda found, one: (
        -float(np.nan_to_num(found.replicability.between_chains[one], nan=-1.0))
    ),
}


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _SyllablesPage(state).view


class _SyllablesPage:
    """Page whose cards and detail are made when they are looked at, and anew for other labels."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._made: tuple[str, str] | None = None
        self._gallery: Gallery | None = None
        self._detail: Detail | None = None
        self._names: SyllableNames | None = None
        self._first = 0
        self._cards = Cards(label="Syllables in use")
        offer_poses(self._cards, state)
        self._order = pn.widgets.Select(name="Order", options=list(_ORDERS), width=180)
        self._find = pn.widgets.TextInput(name="Find by number or name", width=180)
        self._before, self._after = (
            parts.button(name, partial(self._turned, by), width=90, align="end")
            for name, by in (("Previous", -_PER_PAGE), ("Next", _PER_PAGE))
        )
        self._count = pn.pane.HTML("", align="end", min_width=200)
        self._below = parts.column()
        self._replicability = parts.column()
        self._whole = parts.column(
            pn.FlexBox(
                self._order, self._find, self._before, self._after, self._count, align_items="end"
            ),
            self._replicability,
            self._cards,
            self._below,
        )
        self._listen()
        self.view = parts.follow(
            state, ["model", "news", "syllable"], self._follow, page="syllables"
        )

    def _listen(self) -> None:
        self._cards.param.watch(self._clicked, "clicks")
        for widget in (self._order, self._find):
            widget.param.watch(lambda _: self._turn(0), "value")

    def _follow(self) -> pn.viewable.Viewable:
        """Draw what has changed."""
        state, study = self.state, self.state.study
        if not state.has_model:
            self._made = None
            return parts.no_model(state)
        now = (state.model, study.version(state.model))
        is_other = now != self._made
        if is_other:
            self._gallery = gallery_of(state)
            self._made, self._detail, self._first, self._names = now, None, 0, None
        names = study.opened(state.model).names
        is_renamed = names != self._names
        self._names = names
        if is_other:
            self._fill_orders()
        is_chosen = self._detail is None or self._detail.syllable != state.syllable
        if is_other or is_chosen:
            self._go_to(state.syllable)
        if is_other or is_renamed:
            self._fill()
        self._cards.chosen = state.syllable
        if is_other or is_chosen:
            self._open()
        elif is_renamed and self._detail is not None:
            self._detail.rename()
        return self._whole if is_other else parts.SAME

    def _fill_orders(self) -> None:
        """Offer the orders that there are, and say which syllables may be interpreted."""
        assert self._gallery is not None
        found = self._gallery.replicability
        orders = [name for name in _ORDERS if name != _BY_REPLICABILITY or found.is_known]
        value = self._order.value if self._order.value in orders else orders[0]
        self._order.param.update(options=orders, value=value)
        known = (interpreted_in_words(found), beyond_in_words(found))
        self._replicability[:] = [_sentences(known if found.is_known else in_words(found))]

    def _open(self) -> None:
        """Show the detail of the chosen syllable."""
        self._detail = None
        if self.state.syllable < 0:
            words = "Choose a card to see more of a syllable, to name it and to compare it."
            words = f"{words} {note_on(self.state.study.settings)}"
            self._below[:] = [parts.text(words), *self._picture()]
            return

        def build() -> Any:
            assert self._gallery is not None
            self._detail = Detail(self.state, self._gallery, self.state.syllable)
            return self._detail.view

        self._below[:] = [parts.guarded(build)()]

    def _picture(self) -> list[Any]:
        """How far all of them replicate, where that is known."""
        assert self._gallery is not None
        if not self._gallery.replicability.is_known:
            return []

        def build() -> Any:
            study = self.state.study
            opened = study.opened(self.state.model)
            drawn = agreement.replicability(study.store, model=opened)
            picture = parts.plot(drawn, "replicability")
            return parts.column(_sentences(halves_in_words(opened.replicability)), picture)

        return [parts.heading("How far they replicate", 3), parts.guarded(build)()]

    def _clicked(self, event: Any) -> None:
        self.state.syllable = int(event.new[1])

    # -------------------------------------------------------------- cards

    def _found(self) -> list[int]:
        """Syllables whose cards are shown, in order."""
        gallery, names = self._gallery, self._names
        assert gallery is not None
        assert names is not None
        wanted = (self._find.value or "").strip().casefold()
        found = [
            one
            for one in gallery.used
            if not wanted or wanted == str(one) or wanted in names.custom_name(one).casefold()
        ]
        key = _ORDERS[self._order.value]
        return sorted(found, key=lambda one: key(gallery, one))

    def _turned(self, by: int, _event: Any) -> None:
        self._turn(self._first + by)

    def _turn(self, first: int) -> None:
        self._first = max(0, first)
        if self._gallery is not None:
            self._fill()

    def _go_to(self, syllable: int) -> None:
        """Turn to the cards among which a syllable is."""
        found = self._found()
        if syllable in found:
            first = found.index(syllable) // _PER_PAGE * _PER_PAGE
            if first != self._first:
                self._first = first
                self._fill()

    def _fill(self) -> None:
        gallery, found = self._gallery, self._found()
        assert gallery is not None
        self._first = min(self._first, max(0, len(found) - 1) // _PER_PAGE * _PER_PAGE)
        shown = found[self._first : self._first + _PER_PAGE]
        pictures, why_not = syllable_pictures(gallery, shown)
        self._cards.cards = [self._card(one, pictures.get(one, "")) for one in shown]
        self._before.disabled = self._first == 0
        self._after.disabled = self._first + _PER_PAGE >= len(found)
        last = self._first + len(shown)
        which = f"{self._first + 1} to {last} of {len(found)}" if shown else "None found among"
        words = f"{which} syllables in use (0.5 % of the frames or more). {why_not}"
        self._count.object = f'<p style="margin:0 0 6px" role="status">{html.escape(words)}</p>'

    def _card(self, one: int, drawing: str) -> dict[str, Any]:
        assert self._gallery is not None
        assert self._names is not None
        labels = self._gallery.labels
        share, median = 100 * float(labels["frequency"][one]), float(labels["median_duration"][one])
        facts = [f"{share:.1f} % of the frames", f"median {median:.0f} ms"]
        opened = self.state.study.opened(self.state.model)
        facts += [
            f"{name}: {words}"
            for name, words in replicability_lines(opened, one, with_others=False)
        ]
        return {
            "key": one,
            "number": str(one),
            "title": self._names.custom_name(one),
            "color": syllable_color(one),
            "lines": facts,
            "hint": f"Syllable {self._names.label(one)}: {', '.join(facts)}",
            "picture": drawing,
        }


def _sentences(lines: Sequence[str]) -> pn.viewable.Viewable:
    return parts.text(" ".join(map(sentence, lines)))
