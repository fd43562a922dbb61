"""Which syllable follows which: counts against naive ones, and what is drawn of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import holoviews as hv
import numpy as np
import pytest

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.annotate import annotate
from kpms_zarr.store.model import models
from kpms_zarr.viz.explore.pages import transitions
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables import transition_counts
from kpms_zarr.viz.syllables.transition_counts import (
    TransitionCounts,
    count_blocks,
    count_transitions,
    neighbours_of,
)
from kpms_zarr.viz.syllables.transition_views import (
    draw_graph,
    draw_matrix,
    lay_out,
    state_of,
    transition_graph,
    transition_matrix,
)


def naive(rows: list[np.ndarray], n: int) -> np.ndarray:
    """Oracle: frame by frame."""
    found = np.zeros((n, n), int)
    for row in rows:
        for a, b in pairwise(row.tolist()):
            if a != b and a >= 0 and b >= 0:
                found[a, b] += 1
    return found


@pytest.fixture
def counts() -> TransitionCounts:
    rng = np.random.default_rng(0)
    changes = rng.integers(0, 200, (12, 12))
    np.fill_diagonal(changes, 0)
    frequency = rng.dirichlet(np.ones(12))
    frequency[[2, 7]] = 0.001  # hardly ever
    return TransitionCounts(changes, frequency, 3)


# ------------------------------------------------------------------ counting


@pytest.mark.parametrize("block_frames", [7, 1000, 65_536])
def test_count_blocks__is_what_frames_one_by_one_give(store, labels, helpers, block_frames):
    data = models.open_labels(store, "m")
    sessions = reading.label_sessions(data)
    for chosen in ([0], [2, 1], [0, 1, 2]):
        rows = [sessions[i] for i in chosen]
        found = count_blocks(data, rows, block_frames=block_frames)
        real = [labels[i] for i in chosen]
        np.testing.assert_array_equal(found.changes, naive(real, helpers.n_states))
        every = np.concatenate(real)
        frames = np.bincount(every[every >= 0], minlength=helpers.n_states)
        np.testing.assert_allclose(found.frequency, frames / frames.sum())


def test_count_blocks__does_not_join_sessions_nor_what_lies_around_a_gap(fresh, helpers):
    rows = [np.full_like(row, i) for i, row in enumerate(helpers.truth())]
    rows[1][100:] = 4
    rows[1][95:105] = -1
    helpers.publish(fresh, rows)
    data = models.open_labels(fresh, "m")
    found = count_blocks(data, reading.label_sessions(data), block_frames=100)
    assert found.changes.sum() == 0


def test_count_transitions__of_all_is_what_was_published(store, labels, helpers):
    found = count_transitions(OpenModel(store, "m"))
    np.testing.assert_array_equal(found.changes, naive(labels, helpers.n_states))
    every = count_transitions(OpenModel(store, "m"), sessions=["session_*"])
    np.testing.assert_array_equal(every.changes, found.changes)
    np.testing.assert_allclose(every.frequency, found.frequency)
    assert found.n_sessions == every.n_sessions == 3


def test_count_transitions__takes_names_patterns_and_coordinates(
    fresh, helpers, labels, tmp_path: Path
):
    helpers.publish(fresh, labels)
    table = tmp_path / "groups.csv"
    table.write_text("session,group\nsession_000,a\nsession_001,b\nsession_002,a\n")
    annotate(fresh, table)
    for selectors, rows in (
        (["session_001"], [1]),
        (["group=a"], [0, 2]),
        (["session_00[01]"], [0, 1]),
        (["session_001", "group=a"], [0, 1, 2]),
    ):
        found = count_transitions(OpenModel(fresh, "m"), sessions=selectors)
        wanted = naive([labels[i] for i in rows], helpers.n_states)
        np.testing.assert_array_equal(found.changes, wanted)
        assert found.n_sessions == len(rows)
    with pytest.raises(InputError, match="group=c"):
        count_transitions(OpenModel(fresh, "m"), sessions=["group=c"])


def test_count_transitions__reads_the_same_sessions_once(store, monkeypatch):
    transition_counts._counted.cache_clear()
    calls = []

    def count(*arguments: object) -> TransitionCounts:
        calls.append(arguments)
        return count_blocks(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(transition_counts, "count_blocks", count)
    for _ in range(2):
        count_transitions(OpenModel(store, "m"), sessions=["session_000"])
        count_transitions(OpenModel(store, "m"), sessions=["session_00[12]"])
    assert len(calls) == 2


def test_count_transitions__without_statistics_counts_all(fresh, helpers, labels):
    helpers.publish(fresh, labels, with_statistics=False)
    n = max(int(row.max()) for row in labels) + 1
    np.testing.assert_array_equal(
        count_transitions(OpenModel(fresh, "m")).changes, naive(labels, n)
    )


def test_count_transitions__says_what_is_missing(fresh, helpers):
    helpers.publish(fresh, [np.full_like(row, -1) for row in helpers.truth()])
    with pytest.raises(MissingData):
        count_transitions(OpenModel(fresh, "m"))
    with pytest.raises(InputError, match="nobody"):
        count_transitions(OpenModel(fresh, "nobody"))


# ------------------------------------------------------------------ shares


def test_share__adds_up_to_all(counts):
    np.testing.assert_allclose(counts.share("row").sum(1), 100)
    np.testing.assert_allclose(counts.share("overall").sum(), 100)
    assert counts.share("row")[1, 2] == pytest.approx(
        100 * counts.changes[1, 2] / counts.changes[1].sum()
    )
    with pytest.raises(InputError, match="'row' or 'overall'"):
        counts.share("column")


def test_share__of_a_syllable_that_never_changes_is_zero():
    found = TransitionCounts(np.array([[0, 0], [3, 0]]), np.array([0.9, 0.1]), 1)
    np.testing.assert_array_equal(found.share("row"), [[0, 0], [100, 0]])


def test_neighbours__are_the_commonest(counts):
    before, after = neighbours_of(counts.changes, 4, max_neighbours=3)
    for side, changes in ((before, counts.changes[:, 4]), (after, counts.changes[4])):
        assert side.syllable.tolist() == np.argsort(-changes, kind="stable")[:3].tolist()
    assert after.share[0] == pytest.approx(100 * counts.changes[4].max() / counts.changes[4].sum())


# ------------------------------------------------------------------ matrix


def test_matrix__shows_every_pair_in_use_under_its_name(counts):
    heat = draw_matrix(counts, "overall", lambda state: f"{state} name{state}")
    rows = zip(*(heat.dimension_values(i) for i in range(4)), strict=True)
    found = {(state_of(a), state_of(b)): (share, n) for b, a, share, n in rows}
    used = counts.used.tolist()
    assert set(found) == {(a, b) for a in used for b in used}
    assert not {2, 7} & set(used)
    share = counts.share("overall")
    for (a, b), values in found.items():
        assert values == (share[a, b], counts.changes[a, b])


def test_matrix__of_some_sessions(store, labels, helpers):
    heat = transition_matrix(store, model="m", sessions=["session_001"], normalise="row")
    one = naive([labels[1]], helpers.n_states)
    rows = zip(*(heat.dimension_values(i) for i in range(4)), strict=True)
    for b, a, share, n in rows:
        assert n == one[int(a), int(b)]
        assert share == pytest.approx(100 * n / max(1, one[int(a)].sum()))


def test_state_of__reads_the_label_of_an_axis():
    assert [state_of(text) for text in ("3", "12 rear", "3 4", None, "", "none")] == [
        *(3, 12, 3),
        *(-1, -1, -1),
    ]


# ------------------------------------------------------------------ graph


def test_graph__has_the_strongest_links_of_the_syllables_in_use(counts):
    graph = lay_out(counts, "overall", max_edges=20)
    share = counts.share("overall")
    used = counts.used
    pairs = sorted(((share[a, b], a, b) for a in used for b in used), reverse=True)[:20]
    source, target = graph.state[graph.source], graph.state[graph.target]
    assert set(zip(source.tolist(), target.tolist(), strict=True)) == {
        (int(a), int(b)) for _, a, b in pairs
    }
    np.testing.assert_allclose(graph.share, share[source, target])
    assert (np.diff(graph.share) >= 0).all()


def test_graph__lies_on_a_circle_and_is_the_same_every_time(counts):
    graph, again = lay_out(counts), lay_out(counts)
    np.testing.assert_array_equal(graph.path, again.path)
    np.testing.assert_allclose(np.hypot(*graph.position.T), 1)
    gaps = np.hypot(*(graph.position[:, None] - graph.position[None]).T)
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() > 0.9 * 2 * np.sin(np.pi / len(graph.state))
    np.testing.assert_allclose(graph.path[:, 0], graph.position[graph.source])
    np.testing.assert_allclose(graph.path[:, -1], graph.position[graph.target], atol=1e-12)


def test_graph__puts_linked_syllables_beside_each_other():
    changes = np.ones((6, 6), int) - np.eye(6, dtype=int)
    for a, b in ((0, 3), (3, 5), (5, 1), (1, 4), (4, 2)):
        changes[a, b] = changes[b, a] = 50
    graph = lay_out(TransitionCounts(changes, np.full(6, 1 / 6), 1))
    order = [0, 3, 5, 1, 4, 2]
    angle = np.pi / 2 - 2 * np.pi * np.arange(6) / 6
    np.testing.assert_allclose(
        graph.position[np.argsort(graph.state)][order],
        np.column_stack([np.cos(angle), np.sin(angle)]),
    )


def test_graph__finds_the_syllable_at_a_place(counts):
    graph = lay_out(counts)
    for state, place in zip(graph.state, graph.position, strict=True):
        assert graph.nearest(*(place + 0.03)) == state
    assert graph.nearest(0, 0) == -1


def test_graph__of_hardly_anything(counts):
    one = TransitionCounts(np.zeros((3, 3), int), np.array([1.0, 0, 0]), 1)
    none = TransitionCounts(np.zeros((3, 3), int), np.zeros(3), 1)
    for found in (one, none):
        hv.render(draw_graph(found, lay_out(found)), backend="bokeh")
    assert lay_out(none).nearest(0, 1) == -1


def test_graph__draws_nodes_by_frequency_in_the_colours_of_the_syllables(counts):
    overlay = draw_graph(counts, lay_out(counts, max_edges=30), syllable=5)
    graph = overlay.get(0)
    assert isinstance(graph, hv.Graph)
    nodes = graph.nodes.dframe()
    assert nodes["name"].tolist() == [str(state) for state in counts.used]
    assert nodes["color"].tolist() == [syllable_color(int(state)) for state in counts.used]
    np.testing.assert_allclose(nodes["frequency"], 100 * counts.frequency[counts.used])
    assert (np.diff(nodes["size"]) <= 0).all()
    assert nodes["ring"].idxmax() == counts.used.tolist().index(5)
    assert len(graph.edgepaths.data) == 30
    arrows = overlay.get(1).dframe()
    first = arrows.iloc[-1]
    assert first["changes"] == counts.changes[int(first["from"]), int(first["to"])]
    hv.render(overlay, backend="bokeh")


def test_graph__of_a_store(store):
    hv.render(transition_graph(store, model="m", sessions=["session_000"]), backend="bokeh")
    hv.render(transition_matrix(store, model="m"), backend="bokeh")


# ------------------------------------------------------------------ page


def test_page__counts_again_for_other_sessions_and_chooses_what_is_tapped(store):
    state = State(Study(store), page="transitions")
    column = transitions._Column(state)
    assert column._counts is not None
    assert column._counts.n_sessions == 3
    column.sessions.value = "session_00[01]"
    assert column._counts.n_sessions == 2
    column._choose(4)
    assert state.syllable == 4
    column._choose(-1)
    assert state.syllable == 4
    words = column._in_words(column._counts, str)
    assert words.startswith("Syllable 4 comes mostly after")
    column.sessions.value = "nobody"
    assert column._counts is None
    assert "nobody" in column._place[0].object
    column.sessions.value = ""
    assert column._counts.n_sessions == 3
