"""Groups of sessions: what they do otherwise, which syllables differ, and how sure that is."""

from __future__ import annotations

import html
from functools import partial
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import panel as pn

from kpms_zarr.store.core.commands import command
from kpms_zarr.store.wording import counted, plural, sentence
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.cards import Cards
from kpms_zarr.viz.explore.pages.ethogram import orders
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.syllable_cards import offer_poses, pictures_of
from kpms_zarr.viz.groups import drawing
from kpms_zarr.viz.groups.fingerprints import fingerprint_map
from kpms_zarr.viz.shared.colors import group_color, syllable_color
from kpms_zarr.viz.syllables.transition_views import state_of

if TYPE_CHECKING:
    from kpms_zarr.compute.analysis.groups.comparison import GroupComparison

TITLE = "Groups"

STATISTICS = ("frequency", "duration", "speed", "turning", "absolute_turning")
"""That are compared, as far as the labels have what they take."""
_NO_BLOCK = {"none": ""}
_CONDITION = "condition"
_MOST_CARDS = 12


def page(state: State) -> pn.viewable.Viewable:
    """Build the page for one browser window."""
    return _GroupsPage(state).view


class _GroupsPage:
    """Page that compares when it is looked at first, and again for other labels or groups."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._by = pn.widgets.Select(name="Groups by", width=200)
        self._block = pn.widgets.Select(name="What belongs together", width=200)
        self._statistic = pn.widgets.Select(name="Statistic", width=200)
        self._in_chains = pn.widgets.Checkbox(name="Again in every chain", value=False)
        self._again = parts.button("Read again", self._read_again, width=110, align="end")
        self._key: Any = None
        self._result: GroupComparison | None = None
        self._order: list[int] = []
        self._cards = Cards(label="Syllables that differ")
        offer_poses(self._cards, state)
        self._cards.param.watch(self._clicked, "clicks")
        self._place = parts.column()
        self._picture = parts.column()
        self.view = parts.column(
            pn.FlexBox(
                self._by, self._block, self._statistic, self._in_chains, self._again,
                align_items="end",
            ),
            self._place,
        )  # fmt: skip
        for widget, name in ((self._by, "by"), (self._block, "block")):
            widget.param.watch(partial(self._chosen, name), "value")
        parts.redraw(
            state, ["model", "news", "by", "block", self._in_chains], self._update, page="groups"
        )
        parts.redraw(state, ["syllable", self._statistic], self._draw_picture, page="groups")

    def _chosen(self, name: str, event: Any) -> None:
        setattr(self.state, name, event.new or "")

    def _read_again(self, _event: Any) -> None:
        self.state.refresh()

    # -------------------------------------------------------------- comparing

    def _update(self) -> None:
        """Compare, unless what is there is still right."""
        state, study = self.state, self.state.study
        if not state.has_model:
            self._key = self._result = None
            self._place[:] = [parts.no_model(state)]
            return
        candidates = self._coordinates()
        if not candidates:
            self._key = self._result = None
            self._place[:] = [
                parts.empty(
                    "Sessions are in no groups yet. Say which is in which, in a table with a row "
                    "for each session:",
                    command("annotate", study.store, "TABLE.csv"),
                )
            ]
            return
        by = state.by if state.by in candidates else candidates[0]
        block = state.block if state.block in candidates and state.block != by else ""
        others = {name: name for name in candidates if name != by}
        self._by.param.update(options=candidates, value=by)
        self._block.param.update(options={**_NO_BLOCK, **others}, value=block)
        opened = study.opened(state.model)
        n_members = opened.replicability.n_members if "frequency" in opened.labels else 1
        self._in_chains.visible = n_members > 1
        version = study.version(state.model)
        key = (state.model, version, by, block, self._in_chains.value, study.table, self._epochs())
        if key == self._key:
            return
        self._key, self._result = key, None
        self._place[:] = [parts.text("Comparing the groups ...")]
        parts.beside(parts.guarded(partial(self._compare, key)), partial(self._take, key),
                     is_short=False)  # fmt: skip

    def _coordinates(self) -> list[str]:
        """Coordinates of sessions, and conditions of epochs, that may be groups."""
        table = self.state.study.keypoints()
        found = [name for name in orders(self.state).values() if name not in ("", "session")]
        # Where each session has its own value there is nothing to compare.
        found = [name for name in found if len(np.unique(table[name])) < table.sizes["session"]]
        if self._epochs() and _CONDITION not in found:
            found.append(_CONDITION)
        return found

    def _epochs(self) -> str:
        return self.state.study.epochs_version()

    def _compare(self, key: tuple[Any, ...]) -> GroupComparison:
        model, version, by, block, in_chains, sessions, epochs = key
        study = self.state.study
        from kpms_zarr.compute.analysis.groups import compare_groups as comparing
        from kpms_zarr.compute.analysis.groups.comparison import compare_groups_of
        from kpms_zarr.compute.analysis.groups.statistics import STATISTICS as KNOWN
        from kpms_zarr.compute.analysis.tables.syllable_table import syllable_table

        which = (model, version, epochs, sessions)
        table = study.remember(
            ("syllable_table", *which),
            lambda: syllable_table(study.store, model=model, version=version),
        )
        n_states = table.sizes["state"]
        chains: list[Any] = []
        if in_chains:
            chains = study.remember(
                ("chain_tables", *which),
                lambda: comparing.chain_tables(study.store, model, n_states, version=version),
            )[0]
        return study.remember(
            ("groups", *key),
            lambda: compare_groups_of(
                table,
                by=by,
                block=block or None,
                statistic=[name for name in STATISTICS if KNOWN[name].needs in table],
                replicability=comparing.replicability_of(study.store, model, version, n_states),
                chains=chains,
            ),
        )

    def _take(self, key: Any, result: Any) -> None:
        if key != self._key:  # something else is wanted by now
            return
        if isinstance(result, pn.viewable.Viewable):
            self._place[:] = [result]
            return
        self._result = result
        self._place[:] = [parts.guarded(self._views)(result)]

    # -------------------------------------------------------------- drawing

    def _views(self, result: GroupComparison) -> pn.viewable.Viewable:
        statistics = {_words(str(name)): str(name) for name in result.tests["statistic"].values}
        value = self._statistic.value if self._statistic.value in statistics.values() else None
        self._statistic.param.update(
            options=statistics, value=value or next(iter(statistics.values()))
        )
        self._draw_picture()
        n_differ = self._fill_cards(result)
        least = (
            f"The smallest p that this design allows is {result.smallest_p:.2g} "
            f"({'all' if result.is_exact else f'{result.n_permutations:,} random'} assignments of "
            "the groups)."
        )
        return parts.column(
            parts.text(f"{sentence(result.design, [result.by])} {least}"),
            _table_of_groups(result),
            *(parts.text(sentence(note, [result.by])) for note in result.notes),
            parts.heading(f"Syllables that differ: {n_differ}", 3),
            self._cards,
            self._picture,
            *self._transitions(result),
            parts.heading("Fingerprints", 3),
            *self._fingerprints(result),
            parts.heading("Groups told from usage", 3),
            parts.text(_classified(result)),
            parts.heading("Methods, to paste", 3),
            parts.text(result.methods),
            *(parts.text(one) for one in result.references),
        )

    def _naming(self, syllable: int) -> str:
        return self.state.study.opened(self.state.model).names.label(syllable)

    def _draw_picture(self) -> None:
        result, statistic = self._result, self._statistic.value
        if result is None or statistic not in result.tests["statistic"].values:
            return

        def build() -> Any:
            self._order = drawing.in_order(result.tests, statistic)
            picture = drawing.group_statistics(
                result.tests, result.values, statistic=statistic, syllables=self._order,
                naming=self._naming, highlight=self.state.syllable,
            )  # fmt: skip
            tapped = hv.streams.Tap(source=picture.get(0))
            tapped.add_subscriber(self._tapped)
            n_out = result.tests.sizes["state"] - len(self._order)
            left_out = f" {n_out} of larger p are not drawn." if n_out else ""
            return parts.column(
                parts.plot(picture, f"{_words(statistic)} by group"),
                parts.text(
                    f"A point is one {result.unit}; lines are means, and bootstrap intervals of "
                    "95 % of each mean by itself. A star: q < 0.05 (Benjamini and Hochberg, over "
                    "the syllables of this statistic). A click chooses the syllable." + left_out
                ),
            )

        self._picture[:] = [parts.guarded(build)()]

    def _tapped(self, x: float | None, y: float | None) -> None:
        place = -1 if x is None else round(x)
        if 0 <= place < len(self._order):
            self.state.syllable = self._order[place]

    def _transitions(self, result: GroupComparison) -> list[Any]:
        table = result.transitions
        if table is None:
            return []
        groups = [str(name) for name in table["group"].values]
        first = pn.widgets.Select(name="First", options=groups, value=groups[0], width=160)
        second = pn.widgets.Select(name="Second", options=groups, value=groups[1], width=160)

        def build() -> Any:
            picture = drawing.transition_differences(
                table, first=first.value, second=second.value, naming=self._naming
            )
            tapped = hv.streams.Tap(source=picture.get(0))
            tapped.add_subscriber(self._tapped_change)
            called = f"transitions {second.value} less {first.value}"
            return parts.plot(picture, called, max_width=860)

        p, share = float(table.attrs["p"]), 100 * float(table.attrs["r_squared"])
        said = (
            f"All changes tested at once: p {p:.2g}, groups explain {share:.1f} % of their "
            "variation. Colours: share in the second group less that in the first; a dot: "
            "q < 0.05. A click chooses the syllable that is left."
        )
        choice = [pn.Row(first, second)] if len(groups) > 2 else []
        return [
            parts.heading("Which syllable follows which", 3),
            parts.text(said),
            *choice,
            parts.follow(self.state, [first, second], build, page="groups"),
        ]

    def _tapped_change(self, x: Any, y: Any) -> None:
        syllable = state_of(y) if y is not None else -1
        if syllable >= 0:
            self.state.syllable = syllable

    def _fingerprints(self, result: GroupComparison) -> list[Any]:
        there = [str(name) for name in result.fingerprints["statistic"].values]
        chosen = pn.widgets.Select(
            name="Of", options={_words(name): name for name in there}, value=there[0], width=200
        )

        def build() -> Any:
            drawn = fingerprint_map(result.fingerprints, statistic=chosen.value)
            return parts.plot(drawn, f"fingerprints of {_words(str(chosen.value))}")

        return [chosen, parts.follow(self.state, [chosen], build, page="groups")]

    # -------------------------------------------------------------- cards

    def _fill_cards(self, result: GroupComparison) -> str:
        """Show a card for each syllable that differs; return how many do, in words."""
        tests = result.tests
        q = tests["q"].values
        least = np.where(np.isfinite(q), q, np.inf).min(0, initial=np.inf)
        places = [int(i) for i in np.argsort(least, kind="stable") if least[i] < drawing.ALPHA]
        states = [int(tests["state"].values[i]) for i in places]
        pictures = pictures_of(self.state, states[:_MOST_CARDS])
        self._cards.cards = [self._card(result, place, pictures) for place in places[:_MOST_CARDS]]
        self._cards.chosen = self.state.syllable
        of = f"{len(states)} of {counted(tests.sizes['state'], 'syllable')} tested"
        shown = f", the first {_MOST_CARDS} are shown" if len(states) > _MOST_CARDS else ""
        return f"{of}{shown}" if states else f"none of {tests.sizes['state']} tested, at q < 0.05"

    def _card(
        self, result: GroupComparison, place: int, pictures: dict[int, str]
    ) -> dict[str, Any]:
        row = result.tests.isel(state=place)
        syllable = int(row["state"])
        lines = []
        for number, name in enumerate(row["statistic"].values):
            q = float(row["q"].values[number])
            if q < drawing.ALPHA:
                means = (_value(str(name), float(one)) for one in row["mean"].values[number])
                pairs = zip(row["group"].values, means, strict=True)
                lines.append(f"{_words(str(name))}: {', '.join(f'{a} {b}' for a, b in pairs)}")
                lines.append(f"q {q:.2g}" + _in_chains(row, number))
        names = self.state.study.opened(self.state.model).names
        return {
            "key": syllable,
            "number": str(syllable),
            "title": names.custom_name(syllable),
            "color": syllable_color(syllable),
            "lines": lines,
            "hint": f"Syllable {names.label(syllable)}: {', '.join(lines)}",
            "picture": pictures.get(syllable, ""),
        }

    def _clicked(self, event: Any) -> None:
        self.state.param.update(syllable=int(event.new[1]), page="syllables")


def _words(statistic: str) -> str:
    return statistic.replace("_", " ")


def _value(statistic: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if statistic in ("frequency", "bouts"):
        return f"{100 * value:.1f} %"
    return f"{value:.0f} ms" if "duration" in statistic else f"{value:.3g}"


def _in_chains(row: Any, number: int) -> str:
    if "n_chains" not in row:
        return ""
    n, of = (int(row[name].values[number]) for name in ("n_chains", "n_chains_tested"))
    return f", in {n} of {of} chains"


def _classified(result: GroupComparison) -> str:
    attrs = result.classification.attrs
    return (
        f"Balanced accuracy {100 * attrs['balanced_accuracy']:.0f} %, after other assignments of "
        f"the groups {100 * attrs['baseline']:.0f} % (up to {100 * attrs['baseline_high']:.0f} % "
        f"in 95 % of them), p {attrs['p']:.2g}; each {result.blocked_by or result.unit} by the "
        "others."
    )


def _table_of_groups(result: GroupComparison) -> pn.viewable.Viewable:
    is_session = result.unit == "session"

    def units(row: Any) -> str:
        return "" if is_session else f"<td>{int(row['n_units'])}</td>"

    rows = "".join(
        f'<tr><td><span style="color:{group_color(number)}">■</span> '
        f"{html.escape(str(name))}</td>{units(row)}"
        f"<td>{int(row['n_sessions'])}</td><td>{int(row['n_frames']):,}</td></tr>"
        for number, name in enumerate(result.groups["group"].values)
        for row in [result.groups.isel(group=number)]
    )
    unit = "" if is_session else f"<th>{html.escape(plural(result.unit))}</th>"
    return pn.pane.HTML(
        f"<table><thead><tr><th>{html.escape(result.by)}</th>{unit}<th>sessions</th>"
        f"<th>frames</th></tr></thead><tbody>{rows}</tbody></table>",
        stylesheets=[_TABLE],
    )


_TABLE = """
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: right; padding: .15rem .9rem .15rem 0; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; border-bottom: 1px solid #d5dbe1; }
"""
