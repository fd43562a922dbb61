"""Similarity of syllables: their tree, which would be one where it is cut, and merging them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.store.wording import counted, listed
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.cards import Cards
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.syllable_cards import (
    bout_cards,
    bouts_of,
    gallery_of,
    offer_poses,
    pictures_of,
)
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables.dendrogram import dendrogram, nearest_node

if TYPE_CHECKING:
    import xarray as xr

    from kpms_zarr.compute.runs.hierarchy.cutting import SyllableTree

TITLE = "Similarity"

MEASURES = {
    "evidence that they are one state": "evidence",
    "how one predicts the other": "prediction",
    "trajectories around onsets": "trajectories",
}
_AT_ONCE = (30e6, 3e6)
"""Frames that are compared without being asked, on a disk and elsewhere: half a minute or so."""
_MOST_CARDS = 12
_MOST_BOUTS = 12


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _SimilarityPage(state).view


class _SimilarityPage:
    """Page that compares when it is looked at, and again for other labels or another measure."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._measure = pn.widgets.Select(name="How alike", options=MEASURES, width=260)
        self._left = pn.widgets.IntSlider(name="Syllables left", start=1, end=2, width=320)
        self._key: Any = None
        self._found: xr.Dataset | None = None
        self._tree: SyllableTree | None = None
        self._names: SyllableNames | None = None
        self._is_asked = False
        self._place = parts.column()
        self._picture = parts.column()
        self._cut = parts.column()
        self._branch = parts.column()
        self._message = parts.column()
        self.view = parts.column(
            pn.FlexBox(self._measure, self._left, align_items="end"), self._message, self._place
        )
        self._measure.param.watch(self._measured, "value")
        self._left.param.watch(self._slid, "value_throttled")
        parts.redraw(state, ["model", "news", "measure"], self._update, page="similarity")
        parts.redraw(state, ["n_left", "node"], self._draw, page="similarity")

    def _measured(self, event: Any) -> None:
        if event.new == self.state.measure:
            return
        # Nodes are those of a tree.
        self.state.param.update(measure=event.new, node=-1)

    def _slid(self, event: Any) -> None:
        tree = self._tree
        self.state.n_left = 0 if tree is None or event.new >= tree.n_leaves else int(event.new)

    # -------------------------------------------------------------- comparing

    def _update(self) -> None:
        """Compare, unless what is there is still right."""
        state, study = self.state, self.state.study
        if state.page != "similarity":
            return
        if not state.has_model:
            self._forget(None)
            self._place[:] = [parts.no_model(state)]
            return
        kind = state.measure if state.measure in MEASURES.values() else "evidence"
        self._measure.value = kind
        key = (state.model, study.version(state.model), kind, study.timestamps)
        names = study.opened(state.model).names
        if key == self._key:
            if names != self._names:
                self._names = names
                self._draw()
            return
        before, self._names = self._key, names
        self._forget(key)
        if before is not None and key[:2] != before[:2]:  # syllables have other numbers
            self._is_asked = False
            if key[0] != before[0]:
                self._message[:] = []
            state.param.update(node=-1, n_left=0)
        if not self._is_asked and parts.is_much(state, _AT_ONCE):
            ask = parts.button("Compare the syllables, which reads all frames", self._asked)
            self._place[:] = [ask]
            return
        self._begin()

    def _forget(self, key: Any) -> None:
        self._key, self._found, self._tree = key, None, None

    def _asked(self, _event: Any) -> None:
        self._is_asked = True
        self._begin()

    def _begin(self) -> None:
        key = self._key
        self._place[:] = [parts.text("Comparing the syllables ...")]
        parts.beside(parts.guarded(partial(self._compare, key)), partial(self._take, key),
                     is_short=False)  # fmt: skip

    def _compare(self, key: tuple[Any, ...]) -> Any:
        from kpms_zarr.compute.runs.hierarchy.similarity import similarity

        study, (model, version, kind, _) = self.state.study, key
        opened = study.opened(model)
        used = list(opened.used) if "frequency" in opened.labels else None
        return study.remember(
            ("similarity", *key),
            lambda: similarity(
                study.store, model=model, version=version, kind=kind, syllables=used
            ),
        )

    def _take(self, key: Any, result: Any) -> None:
        if key != self._key:  # something else is wanted by now
            return
        if isinstance(result, pn.viewable.Viewable):
            self._place[:] = [result]
            return
        from kpms_zarr.compute.runs.hierarchy.cutting import SyllableTree

        if result.sizes["state"] < 2:
            self._place[:] = [parts.text("Fewer than two syllables have bouts to compare.")]
            return
        self._found, self._tree = result, SyllableTree.of(result)
        self._draw()
        left_out = str(result.attrs.get("left_out", "")).replace("\n", "; ")
        self._place[:] = [
            parts.text(_about(result)),
            *([parts.text(f"Left out: {left_out}.")] if left_out else []),
            self._picture,
            self._cut,
            self._branch,
        ]

    # -------------------------------------------------------------- drawing

    def _draw(self) -> None:
        """Draw the tree, where it is cut, and the branch that is chosen."""
        if self._found is None or self._tree is None:
            return
        tree, n_left = self._tree, self._n_left()
        self._left.param.update(start=1, end=tree.n_leaves, value=n_left)
        self._picture[:] = [parts.guarded(self._tree_view)()]
        self._cut[:] = [parts.guarded(self._groups_view)()]
        self._branch[:] = [parts.guarded(self._branch_view)()]

    def _n_left(self) -> int:
        assert self._tree is not None
        n, wanted = self._tree.n_leaves, self.state.n_left
        return wanted if 0 < wanted < n else n

    def _naming(self, syllable: int) -> str:
        return self.state.study.opened(self.state.model).names.label(syllable)

    def _members(self) -> tuple[int, ...]:
        """Syllables of the chosen node."""
        assert self._tree is not None
        node = self.state.node
        return self._tree.members[node] if 0 <= node < len(self._tree.members) else ()

    def _tree_view(self) -> Any:
        assert self._found is not None
        assert self._tree is not None
        names = self.state.study.opened(self.state.model).names
        called = np.asarray([names.custom_name(one) for one in self._tree.states], dtype=object)
        n_left = self._n_left()
        cut = self._tree.cut_height(n_left) if n_left < self._tree.n_leaves else None
        drawn = dendrogram(
            self._found.assign_coords(name=("state", called)), cut=cut, chosen=self._members()
        )
        tapped = hv.streams.Tap(source=drawn.get(0))
        tapped.add_subscriber(self._tapped)
        return parts.plot(drawn, f"tree by {self._measure.value}")

    def _tapped(self, x: float | None, y: float | None) -> None:
        if x is None or y is None or self._found is None or self._tree is None:
            return
        node = nearest_node(self._found, float(x), float(y))
        if node < 0:
            return
        if node < self._tree.n_leaves:
            self.state.param.update(node=node, syllable=self._tree.states[node])
        else:
            self.state.node = node

    def _groups_view(self) -> Any:
        assert self._tree is not None
        groups, n_left = self._tree.cut(self._n_left()), self._n_left()
        if not groups:
            return parts.text(
                "Move the slider to see which syllables would be one if fewer were left; a click "
                "on a leaf or a branching shows the syllables below it."
            )
        words = f"Cut at the dashed line, {counted(n_left, 'syllable')} are left; one would be:"
        return self._offer(words, groups)

    def _branch_view(self) -> Any:
        members = self._members()
        if not members:
            return parts.column()
        bouts = self._bouts(members)
        rest = f" The first {_MOST_CARDS} are shown." if len(members) > _MOST_CARDS else ""
        title = "Syllable of the leaf" if len(members) == 1 else "Syllables below the branching"
        return parts.column(
            parts.heading(f"{title}: {listed(map(str, members), 20)}", 3),
            parts.text(f"A click on a card shows all about a syllable.{rest}"),
            self._cards(members[:_MOST_CARDS]),
            *([parts.text("Bouts of these syllables; a click plays one."), bouts] if bouts else []),
            *([self._offer("To make these alone one:", [members])] if len(members) > 1 else []),
        )

    def _cards(self, members: Sequence[int]) -> Cards:
        opened = self.state.study.opened(self.state.model)
        drawn, labels = pictures_of(self.state, members), opened.labels
        entries = []
        for one in members:
            facts = []
            if "frequency" in labels:
                facts = [f"{100 * float(labels['frequency'][one]):.1f} % of the frames"]
            if "median_duration" in labels:
                facts += [f"median {float(labels['median_duration'][one]):.0f} ms"]
            entries.append(
                {
                    "key": one,
                    "number": str(one),
                    "title": opened.names.custom_name(one),
                    "color": syllable_color(one),
                    "lines": facts,
                    "hint": f"Syllable {self._naming(one)}: {', '.join(facts)}",
                    "picture": drawn.get(one, ""),
                }
            )
        cards = Cards(label="Syllables of the branch", cards=entries, chosen=self.state.syllable)
        offer_poses(cards, self.state)
        cards.param.watch(self._clicked, "clicks")
        return cards

    def _clicked(self, event: Any) -> None:
        self.state.param.update(syllable=int(event.new[1]), page="syllables")

    def _bouts(self, members: Sequence[int]) -> Cards | None:
        """Some bouts of each of the syllables, the first ones of each."""
        each = max(1, _MOST_BOUTS // len(members))
        try:
            gallery = gallery_of(self.state)
            found = [one for m in members[:_MOST_BOUTS] for one in bouts_of(gallery, m, each)]
        except MissingData:
            return None
        return bout_cards(self.state, found, has_syllable=True) if found else None

    # -------------------------------------------------------------- merging

    def _offer(self, words: str, groups: Sequence[Sequence[int]]) -> pn.viewable.Viewable:
        """Say which syllables would be one, with the command, and a button that does it."""
        from kpms_zarr.compute.runs.hierarchy.cutting import as_groups

        text = as_groups(groups)
        which = "; ".join(", ".join(map(self._naming, group)) for group in groups)
        line = command("merge", self.state.study.store, model=self.state.model, groups=text)
        return parts.column(
            parts.text(f"{words} {which}."),
            pn.Row(
                parts.code(line),
                parts.button(
                    "Merge, as a new version", partial(self._merge, text), width=190, align="center"
                ),
                sizing_mode="stretch_width",
            ),
        )

    def _merge(self, groups: str, event: Any) -> None:
        state, study = self.state, self.state.study
        model, version = state.model, study.version(state.model)
        event.obj.disabled = True
        self._say("Merging ...")

        def work() -> str:
            from kpms_zarr.compute.runs.hierarchy.merge import merge

            try:
                done = merge(study.store, model=model, groups=groups, version=version)
            except InputError as error:
                problem = error.problems[0]
                return (
                    f"Not merged: expected {problem.expected}, found {problem.found}. What to do: "
                    f"{problem.fix}."
                )
            except OSError as error:
                return f"Not merged: the store could not be written to ({error})."
            back = command("versions", study.store, model=model, use=done.from_version)
            return (
                f"Merged: {done.version} of the labels of {model} has {done.n_after} syllables. "
                f"The version before is there still: {back}"
            )

        def take(said: Any) -> None:
            event.obj.disabled = False
            self._say(said)
            state.refresh()

        parts.beside(work, take, is_short=False)

    def _say(self, words: str) -> None:
        self._message[:] = [
            pn.pane.HTML(f'<p role="status">{html.escape(words)}</p>', sizing_mode="stretch_width")
        ]


def _about(found: xr.Dataset) -> str:
    """What the heights of the tree are."""
    kind = found.attrs["kind"]
    which = f"{counted(found.sizes['state'], 'syllable')} in use (0.5 % of the frames or more). "
    pose = "" if found.attrs["pose"] == "published" else " Poses are those of the tracking."
    if kind != "evidence":
        words = str(found.attrs["definition"])
        return f"{which}Height: {words}.{pose}"
    factor = found["log_bayes_factor"].values
    n = int((factor[np.triu_indices(len(factor), 1)] > 0).sum())
    return (
        f"{which}Height: evidence that is lost when two become one, per frame; 0 where it is won, "
        f"as for {counted(n, 'pair')} of syllables.{pose}"
    )
