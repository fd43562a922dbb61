"""Detail of one syllable: poses, name, durations, groups, neighbours and example bouts."""

from __future__ import annotations

import html
from typing import Any

import holoviews as hv
import panel as pn

from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.syllable_names import MOST_LETTERS, SyllableNames, name_syllable
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.syllable_cards import bout_cards, bouts_of
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.grouping import group_coordinates
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.syllables import views as syllables
from kpms_zarr.viz.syllables.agreement import replicability_lines
from kpms_zarr.viz.syllables.data import Gallery, session_frames

_COUNTED_AT_ONCE = (200e6, 20e6)
"""Frames that are counted without being asked, on a disk and elsewhere: some seconds."""
_ALL = "all sessions together"
_NONE = -1


class Detail:
    """Part of the page below the cards: all about one syllable.

    Parameters
    ----------
    gallery : Gallery
        Of the current labels.
    """

    def __init__(self, state: State, gallery: Gallery, syllable: int) -> None:
        self.state, self.gallery, self.syllable = state, gallery, syllable
        self.model, self.version = state.model, state.study.version(state.model)
        self.opened.check_syllable(syllable)
        self._heading = pn.pane.HTML(sizing_mode="stretch_width", margin=(10, 5, 0, 5))
        self._neighbours = pn.Row(sizing_mode="stretch_width")
        self._form = _Form(self)
        self._other = pn.widgets.Select(name="Compare with", width=260)
        self._compared = parts.column()
        self._other.param.watch(lambda _: self._compare(), "value")
        self.view = parts.column(
            self._heading,
            # Not a FlexBox, in which Bokeh draws plots before they have a size.
            pn.Row(
                self._poses(),
                self._form.view,
                sizing_mode="stretch_width",
                styles={"flex-wrap": "wrap", "column-gap": "24px"},
            ),
        )
        self.rename()
        self._rest = [self._counts, self._bouts_below, self._comparison]
        pn.state.execute(self._go_on, schedule=True)

    def _go_on(self) -> None:
        """Add what lies further below, one part after the other, so that nobody waits for all."""
        is_left = self.state.syllable != self.syllable
        if is_left or not self._rest:
            return
        self.view.extend(self._rest.pop(0)())
        pn.state.execute(self._go_on, schedule=True)

    def _counts(self) -> list[Any]:
        both = pn.Row(self._durations(), self._groups(), sizing_mode="stretch_width")
        return [both, self._neighbours]

    def _bouts_below(self) -> list[Any]:
        return [parts.heading("Example bouts", 3), self._bouts()]

    def _comparison(self) -> list[Any]:
        return [parts.heading("Compare two syllables", 3), self._other, self._compared]

    @property
    def opened(self) -> OpenModel:
        """The model, with the names of its syllables as they are now."""
        return self.state.study.opened(self.model)

    @property
    def names(self) -> SyllableNames:
        """Names as they are now."""
        return self.opened.names

    def rename(self) -> None:
        """Show the names as they are now; what a person is writing is left alone."""
        self._heading.object = self._words()
        self._form.fill()
        self._neighbours[:] = [self._beside()]
        others = [one for one in self.gallery.used if one != self.syllable]
        options = {"none": _NONE, **{self.names.label(one): one for one in others}}
        chosen = self._other.value if self._other.value in others else _NONE
        self._other.param.update(options=options, value=chosen)

    def _words(self) -> str:
        labels, one = self.gallery.labels, self.syllable
        share, n_bouts = 100 * float(labels["frequency"][one]), int(labels["n_bouts"][one])
        median = float(labels["median_duration"][one])
        facts = f"{share:.2g} % of the frames, {n_bouts:,} bouts"
        facts += f", median {median:.0f} ms" if n_bouts else ""
        color = syllable_color(one)
        return (
            f'<h2 style="margin:0;border-left:14px solid {color};padding-left:10px">'
            f"Syllable {html.escape(self.names.label(one))}</h2>"
            f'<p style="margin:4px 0;font-size:14px">{facts}</p>'
            f'<p style="margin:4px 0;font-size:14px">{html.escape(self._replicates())}</p>'
        )

    def _replicates(self) -> str:
        """How far it would be found again, and which others are of its family."""
        said = dict(replicability_lines(self.opened, self.syllable))
        parts_of_it = [
            f"{name} {said[key]}"
            for key, name in (
                ("seeds", "Jaccard index between halves of the chains"),
                ("sessions", "between halves of the sessions"),
                ("family", "family"),
            )
            if key in said
        ]
        found = self.opened.replicability
        if not parts_of_it:
            n = found.n_members
            why = "one chain was fitted" if n == 1 else f"a consensus of {n} has no halves"
            return f"Whether other seeds find this syllable is not known: {why}."
        return f"{'; '.join(parts_of_it)}."

    @parts.guarded
    def _poses(self) -> Any:
        found = self.gallery.trajectory(self.syllable)
        if not found.n_examples:
            return parts.empty(
                "No bout of this syllable of 0.1 s or more was found to draw its poses from."
            )
        width = 300 if found.is_3d else 420
        drawn = syllables.trajectory(
            self.state.study.store,
            model=self.opened,
            syllable=self.syllable,
            gallery=self.gallery,
            width=width,
        )
        views = list(drawn) if isinstance(drawn, hv.Layout) else [drawn]
        words = (
            f"Typical poses from the onset (light) to {1000 * found.seconds[-1]:.0f} ms after "
            f"it (dark): medians of {found.n_examples} bouts, turned so that the animal looks "
            "to the right at the onset."
        )
        called = f"poses of syllable {self.syllable}"
        panes = [parts.plot(view, called, sizing_mode=None) for view in views]
        return pn.Column(parts.text(words), pn.Row(*panes), width=(width + 85) * len(views))

    @parts.guarded
    def _durations(self) -> Any:
        store = self.state.study.store
        drawn = syllables.durations(store, model=self.opened, syllable=self.syllable)
        return parts.plot(drawn, f"durations of syllable {self.syllable}")

    @parts.guarded
    def _groups(self) -> Any:
        study = self.state.study
        choices = [*group_coordinates(study.keypoints()), _ALL]
        by = pn.widgets.Select(name="Frequency by", options=choices, width=220)
        place = parts.column()

        def draw(*_: Any) -> None:
            place[:] = [self._frequency("" if by.value == _ALL else by.value)]

        by.param.watch(draw, "value")
        n_frames = sum(session.n_frames for session in reading.label_sessions(self.gallery.labels))
        if n_frames > _COUNTED_AT_ONCE[access.is_remote(study.store)]:
            place.append(parts.button(f"Count the {n_frames:,} frames by session", draw))
        else:
            draw()
        return parts.column(by, place)

    @parts.guarded
    def _frequency(self, coordinate: str) -> Any:
        study, labels = self.state.study, self.gallery.labels
        key = ("session_frames", self.model, self.version)
        frames = study.remember(key, lambda: session_frames(labels))
        return parts.plot(
            syllables.frequency(
                study.store,
                model=self.opened,
                syllable=self.syllable,
                coordinate=coordinate,
                frames=frames,
            ),
            f"frequency of syllable {self.syllable}",
        )

    @parts.guarded
    def _beside(self) -> Any:
        views = syllables.neighbours(
            self.state.study.store, model=self.opened, syllable=self.syllable
        )
        panes = (
            parts.plot(view, f"{side} syllable {self.syllable}")
            for view, side in zip(views, ("before", "after"), strict=True)
        )
        return pn.Row(*panes, sizing_mode="stretch_width")

    @parts.guarded
    def _bouts(self) -> Any:
        found = bouts_of(self.gallery, self.syllable)
        if not found:
            return parts.text("No bout of 0.1 s or more was found.")
        words = "Aligned at the onset, lighter poses are earlier, at most 1.5 s of each bout."
        return parts.column(parts.text(words), bout_cards(self.state, found))

    def _compare(self) -> None:
        other = self._other.value
        if other is None or other == _NONE:
            self._compared[:] = []
            return
        self._compared[:] = [self._both(other)]

    @parts.guarded
    def _both(self, other: int) -> Any:
        store, both = self.state.study.store, (self.syllable, other)
        drawn = syllables.compare(
            store,
            model=self.opened,
            syllables=both,
            gallery=self.gallery,
            width=380,
        )
        of = f"of syllables {both[0]} and {both[1]}"
        views = [parts.plot(view, f"poses {of}", sizing_mode=None) for view in drawn]
        lengths = syllables.durations(store, model=self.opened, syllable=both)
        rows = [pn.Row(*views[i : i + 2]) for i in range(0, len(views), 2)]
        called = self.names.label
        words = f"Syllable {called(both[0])} and syllable {called(other)}, on the same axes."
        return parts.column(parts.text(words), *rows, parts.plot(lengths, f"durations {of}"))


class _Form:
    """Fields for the name and the description, and the button that saves them."""

    def __init__(self, detail: Detail) -> None:
        self._detail = detail
        self._shown = ("", "")
        self._name = pn.widgets.TextInput(
            name="Name", max_length=MOST_LETTERS["name"], placeholder="such as rear", width=380
        )
        self._description = pn.widgets.TextAreaInput(
            name="Description",
            max_length=MOST_LETTERS["description"],
            placeholder="what the animal does",
            rows=5,
            width=380,
        )
        self._save = parts.button("Save", parts.guarded(self._saved), width=120)
        self._message = pn.pane.HTML(
            "<p style='margin:0'>Names are kept in the store, for all who use it.</p>",
            width=380,
            min_height=40,
        )
        self.view = pn.Column(
            self._name, self._description, self._save, self._message, margin=(20, 0, 0, 0)
        )

    def fill(self) -> None:
        """Show what is saved, unless a person is writing something else."""
        names, one = self._detail.names, self._detail.syllable
        now = (names.custom_name(one), names.description(one))
        if (self._name.value, self._description.value) in (("", ""), self._shown):
            self._name.value, self._description.value = now
        self._shown = now

    def _saved(self, _event: Any) -> None:
        study, detail = self._detail.state.study, self._detail
        before = detail.names
        try:
            after = name_syllable(
                study.store,
                detail.model,
                detail.syllable,
                name=self._name.value,
                description=self._description.value,
                version=detail.version,
            )
        except InputError as error:
            problems = "; ".join(
                f"expected {p.expected}, found {p.found}. What to do: {p.fix}"
                for p in error.problems
            )
            self._notify(f"Not saved: {problems}.")
            return
        except OSError as error:
            self._notify(f"Not saved: the store could not be written to ({error}).")
            return
        if after.version == before.version:
            self._notify("Nothing has changed.")
            return
        one = detail.syllable
        self._shown = (after.custom_name(one), after.description(one))
        self._name.value, self._description.value = self._shown
        self._notify(
            f"Saved as version {after.version[1:]} of the names of the model {after.model}."
        )
        study.take_names(after)
        detail.state.refresh(wait=False)

    def _notify(self, words: str) -> None:
        self._message.object = f'<p role="status" style="margin:0">{html.escape(words)}</p>'
