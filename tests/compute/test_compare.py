"""Agreement of labellings against naive loops; laws; what a user gets and is refused."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass, field, replace

import dask
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import comb

import kpms_zarr
from helpers.amount import examples
from helpers.labels import publish_labels
from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.boundaries import count_changes
from kpms_zarr.compute.analysis.calibration import calibration
from kpms_zarr.compute.analysis.counting import N_BINS, count
from kpms_zarr.compute.analysis.durations import BoutLengths
from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.analysis.shared import Shared
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.replicability import reading
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store

TABLE = st.integers(1, 4).flatmap(
    lambda n: st.integers(1, 4).flatmap(
        lambda m: st.lists(st.lists(st.integers(0, 9), min_size=m, max_size=m), min_size=n,
                           max_size=n).map(np.array)
    )
)  # fmt: skip
LABELS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=40)


# ------------------------------------------------------------------ tables of two labellings


def naive_ari(table) -> float:
    """Formula of Hubert and Arabie, with the binomials of SciPy."""
    pairs, rows, columns, every = (
        comb(n, 2).sum() for n in (table, table.sum(1), table.sum(0), table.sum())
    )
    expected = rows * columns / every if every else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (pairs - expected) / (most - expected)


def naive_nmi(table) -> float:
    total = table.sum()
    if not total:
        return 1.0
    information = 0.0
    for i, j in np.ndindex(*table.shape):
        if table[i, j]:
            ratio = table[i, j] * total / (table[i].sum() * table[:, j].sum())
            information += table[i, j] / total * np.log(ratio)
    entropy = [-sum(n / total * np.log(n / total) for n in margin if n)
               for margin in (table.sum(1), table.sum(0))]  # fmt: skip
    return 1.0 if not sum(entropy) else 2 * information / sum(entropy)


def naive_most(table) -> int:
    """Largest number of matched frames over all ways to match one to one."""
    if table.shape[0] > table.shape[1]:
        table = table.T
    n, m = table.shape
    return max(
        sum(table[i, j] for i, j in enumerate(way)) for way in itertools.permutations(range(m), n)
    )


@settings(deadline=None, max_examples=examples(100))
@given(TABLE)
def test_figures__equal_their_formulas(table):
    assert agreement.rand_index_of(table) == pytest.approx(naive_ari(table))
    assert agreement.information_of(table) == pytest.approx(naive_nmi(table), abs=1e-9)
    matched = agreement.match_syllables(table)
    assert agreement.matched_frames(table, matched) == naive_most(table)
    used = matched[matched >= 0]
    assert len(set(used.tolist())) == len(used)
    index = agreement.jaccard(table)
    for i, j in np.ndindex(*table.shape):
        either = table[i].sum() + table[:, j].sum() - table[i, j]
        assert index[i, j] == pytest.approx(table[i, j] / either if either else 0)


@settings(deadline=None, max_examples=examples(60))
@given(TABLE, st.randoms(use_true_random=False))
def test_figures__do_not_depend_on_sides_and_numbers(table, random):
    rows, columns = (random.sample(range(n), n) for n in table.shape)
    for other in (table.T, table[rows][:, columns]):
        assert agreement.rand_index_of(other) == pytest.approx(agreement.rand_index_of(table))
        assert agreement.information_of(other) == pytest.approx(agreement.information_of(table))
        assert naive_most(other) == agreement.matched_frames(
            other, agreement.match_syllables(other)
        )


def greedy(table) -> np.ndarray:
    """The wrong twin: the largest cell first."""
    left, matched = table.astype(float), np.full(len(table), -1)
    for _ in range(min(table.shape)):
        i, j = np.unravel_index(left.argmax(), left.shape)
        matched[i] = j
        left[i], left[:, j] = -1, -1
    return matched


def test_match__is_better_than_taking_the_largest_first():
    table = np.array([[10, 9], [9, 0]])
    assert agreement.matched_frames(table, agreement.match_syllables(table)) == 18
    assert agreement.matched_frames(table, greedy(table)) == 10


def test_match__of_syllables_without_common_frames_is_none():
    table = np.array([[5, 0, 0], [3, 0, 0]])
    assert agreement.match_syllables(table).tolist() == [0, -1]
    assert agreement.match_syllables(np.zeros((0, 0), int)).tolist() == []


def test_effective_number__is_that_of_equal_syllables():
    assert agreement.effective_number(np.array([7, 7, 0, 7])) == pytest.approx(3)
    assert agreement.effective_number(np.array([90, 5, 5])) == pytest.approx(
        np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.05))
    )
    assert np.isnan(agreement.effective_number(np.zeros(3, int)))


# ------------------------------------------------------------------ changes of label


def naive_changes(a, b, tolerance):
    """Changes and places frame by frame; as ``Changes``."""
    n = len(a)
    places = [t for t in range(1, n) if min(a[t], b[t], a[t - 1], b[t - 1]) >= 0]
    of_a, of_b = ([t for t in places if z[t] != z[t - 1]] for z in (a, b))

    def near(some, others):
        return [t for t in some if any(abs(t - other) <= tolerance for other in others)]

    lists = (of_a, of_b, near(of_a, of_b), near(of_b, of_a), near(places, of_a),
             near(places, of_b), places)  # fmt: skip
    return tuple(map(len, lists))


@settings(deadline=None, max_examples=examples(150))
@given(LABELS, st.integers(0, 4), st.integers(1, 9))
def test_changes__equal_a_loop_over_frames_in_any_blocks(pairs, tolerance, length):
    a, b = np.array(pairs).T
    expected = naive_changes(a, b, tolerance)
    total = None
    for start in range(0, len(a), length):
        first, stop = max(0, start - tolerance - 1), min(start + length, len(a))
        wide = slice(first, min(len(a), stop + tolerance))
        one = count_changes(
            a[wide], b[wide], start=start - first, stop=stop - first, tolerance=tolerance
        )
        total = one if total is None else total.add(one)
    assert tuple(total) == expected
    n_a, n_b, met_a, met_b = expected[:4]
    if n_a and n_b:
        recall, precision = met_a / n_a, met_b / n_b
        both = recall + precision
        assert total.f1 == pytest.approx(2 * recall * precision / both if both else 0)
    elif n_a or n_b:
        assert total.f1 == 0
    else:
        assert np.isnan(total.f1)


def test_changes__too_small_a_margin_misses_some():
    """The wrong twin reads no frames beyond the block."""
    a, b = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    options = {"tolerance": 1}
    right = count_changes(a[:4], b[:4], start=0, stop=3, **options)
    assert (right.a, right.a_met) == (1, 1)
    twin = count_changes(a[:3], b[:3], start=0, stop=3, **options)
    assert (twin.a, twin.a_met) == (1, 0)


def test_changes__of_unrelated_labels_meet_as_often_as_by_chance():
    rng = np.random.default_rng(0)
    a, b = (np.cumsum(rng.random(200_000) < rate) for rate in (0.1, 0.04))
    found = count_changes(a, b, start=0, stop=len(a), tolerance=2)
    assert found.f1 == pytest.approx(found.f1_by_chance, abs=0.01)
    same = count_changes(a, a, start=0, stop=len(a), tolerance=2)
    assert same.f1 == 1
    assert same.f1_by_chance < 0.5


# ------------------------------------------------------------------ bouts


@settings(deadline=None, max_examples=examples(100))
@given(
    st.lists(st.lists(st.integers(-1, 2), min_size=1, max_size=20), min_size=1, max_size=4),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_bouts__are_those_of_whole_sessions_in_any_blocks(sessions, length, random):
    fps = [30.0, 60.0]
    parts, expected = [], []
    for number, labels in enumerate(sessions):
        labels = np.array(labels)
        for start in range(0, len(labels), length):
            part = labels[start : start + length]
            parts.append(BoutLengths.of_block(part, session=number, rate=number % 2))
        for label, run in itertools.groupby(labels.tolist()):
            expected += [len(list(run)) * 1000 / fps[number % 2]] if label >= 0 else []
    while len(parts) > 1:  # added in any grouping, always neighbours
        at = random.randrange(len(parts) - 1)
        parts[at : at + 2] = [parts[at].add(parts[at + 1])]
    median = parts[0].median(fps)
    assert median == pytest.approx(np.median(expected)) if expected else np.isnan(median)


# ------------------------------------------------------------------ calibration


def test_calibration__is_the_share_of_matched_labels_by_certainty():
    rng = np.random.default_rng(1)
    n = 5_000
    certainty = rng.integers(0, 257, n) / 256
    a = rng.integers(0, 4, n)
    b = np.where(rng.random(n) < certainty, a, rng.integers(0, 5, n))
    counts = two(a, b, certainty)
    matched = agreement.match_syllables(counts.frames)
    found = calibration(counts.by_certainty_a, counts.certainty_a, matched)
    is_same = matched[a] == b
    error = 0.0
    for place in range(N_BINS):
        inside = np.minimum((certainty * N_BINS).astype(int), N_BINS - 1) == place
        row = found.isel(certainty_bin=place)
        assert row["n_frames"] == inside.sum()
        assert row["mean_certainty"] == pytest.approx(certainty[inside].mean())
        assert row["same_share"] == pytest.approx(is_same[inside].mean())
        error += inside.mean() * abs(certainty[inside].mean() - is_same[inside].mean())
    assert found.attrs["error"] == pytest.approx(error)
    assert found.attrs["same_share"] == pytest.approx(is_same.mean())
    assert found.attrs["mean_certainty"] == pytest.approx(certainty.mean())


def test_calibration__tells_true_certainties_from_bold_ones():
    rng = np.random.default_rng(2)
    n = 50_000
    true = rng.integers(64, 257, n) / 256
    a = rng.integers(0, 20, n)
    b = np.where(rng.random(n) < true, a, 20 + rng.integers(0, 9, n))
    errors = []
    for said in (true, np.full(n, 0.95)):
        counts = two(a, b, said)
        matched = agreement.match_syllables(counts.frames)
        table = calibration(counts.by_certainty_a, counts.certainty_a, matched)
        errors.append(table.attrs["error"])
    assert errors[0] < 0.02
    assert errors[1] > 0.25


def test_calibration__without_certainties_is_empty():
    counts = two(np.array([0, 1, 1]), np.array([0, 1, 0]), np.full(3, np.nan))
    found = calibration(counts.by_certainty_a, counts.certainty_a, np.array([0, 1]))
    assert found.attrs["n_frames"] == 0
    assert np.isnan(found.attrs["error"])


# ------------------------------------------------------------------ one pass over blocks


@dataclass
class Arrays:
    """Labels in memory, which notes the frames that are read at once."""

    rows: list[np.ndarray]
    certainties: list[np.ndarray] | None = None
    fps: tuple[float, ...] = (30.0, 60.0, 30.0, 60.0, 30.0)
    longest: list[int] = field(default_factory=list)

    @property
    def sessions(self):
        return tuple(Session(f"s{i}", i, len(row), self.fps[i]) for i, row in enumerate(self.rows))

    def syllable(self, row, start, stop):
        self.longest.append(stop - start)
        return self.rows[row][start:stop].astype(np.int16)

    def certainty(self, row, start, stop):
        return None if self.certainties is None else self.certainties[row][start:stop]


def shared(n_frames, n_labellings=2):
    return [Shared(i, i % 2, n, (i,) * n_labellings) for i, n in enumerate(n_frames)]


def two(a, b, certainty=None, tolerance=2):
    labellings = [Arrays([a], None if certainty is None else [certainty]), Arrays([b])]
    return count(labellings, shared([len(a)]), tolerance=tolerance).overlaps[0]


SESSIONS = st.lists(
    st.lists(
        st.tuples(st.integers(-1, 3), st.integers(-1, 2), st.integers(-1, 256)),
        min_size=1,
        max_size=30,
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=examples(60))
@given(SESSIONS, st.integers(1, 12), st.integers(0, 3))
def test_count__does_not_depend_on_the_blocks(sessions, block_frames, tolerance):
    columns = [np.array(one).T for one in sessions]
    a, b = ([column[i] for column in columns] for i in range(2))
    certainty = [np.where(c[2] < 0, np.nan, c[2] / 256).astype(np.float16) for c in columns]
    labellings = [Arrays(a, certainty), Arrays(b)]
    places = shared([len(row) for row in a])
    found, whole = (
        count(labellings, places, tolerance=tolerance, block_frames=n)
        for n in (block_frames, 10**6)
    )
    for one, two_ in zip(found.overlaps + found.usage, whole.overlaps + whole.usage, strict=True):
        for value, expected in zip(one, two_, strict=True):
            if isinstance(value, BoutLengths):
                value, expected = value.median([30, 60]), expected.median([30, 60])
            np.testing.assert_array_equal(value, expected)
    every_a, every_b, known = (np.concatenate(rows) for rows in (a, b, certainty))
    both = (every_a >= 0) & (every_b >= 0)
    np.testing.assert_array_equal(found.overlaps[0].frames, agreement.contingency(every_a, every_b))
    assert found.overlaps[0].alone.tolist() == [
        ((every_a >= 0) & (every_b < 0)).sum(), ((every_b >= 0) & (every_a < 0)).sum()
    ]  # fmt: skip
    is_known = both & np.isfinite(known)
    assert found.overlaps[0].by_certainty_a.sum() == is_known.sum()
    assert found.overlaps[0].certainty_a.sum() == known[is_known].astype(float).sum()
    assert max(labellings[0].longest[: -len(a)]) <= block_frames + 2 * tolerance + 1


def test_count__of_many_blocks_is_the_same_with_any_scheduler():
    rng = np.random.default_rng(0)
    rows = [rng.integers(-1, 6, n) for n in (4_000, 900, 2_500)]
    labellings = [Arrays(rows), Arrays([np.roll(row, 1) for row in rows])]
    expected = count(labellings, shared([4_000, 900, 2_500]), tolerance=2)
    with dask.config.set(scheduler="threads", num_workers=3):
        found = count(labellings, shared([4_000, 900, 2_500]), tolerance=2, block_frames=100)
    np.testing.assert_array_equal(found.overlaps[0].frames, expected.overlaps[0].frames)
    assert found.overlaps[0].changes == expected.overlaps[0].changes


def test_count__of_unrelated_labels_is_no_agreement():
    rng = np.random.default_rng(3)
    a, b = (np.repeat(rng.integers(0, 10, 8_000), 5) for _ in range(2))
    table = two(a, b).frames
    assert abs(agreement.rand_index_of(table)) < 0.01
    assert agreement.information_of(table) < 0.02
    assert agreement.matched_frames(table, agreement.match_syllables(table)) / len(a) < 0.15
    assert agreement.rand_index_of(two(a, (a + 3) % 10).frames) == 1


# ------------------------------------------------------------------ models of a store

FIGURES = (
    "n_frames", "adjusted_rand_index", "normalized_mutual_information", "matched_share", "ceiling",
    "boundary_f1", "boundary_f1_by_chance",
)  # fmt: skip
STUDY = SyntheticStudy(n_sessions=3, n_frames=2500, is_ragged=True)


def noisy(labels, share, seed):
    rng = np.random.default_rng(seed)
    return {
        name: np.where(rng.random(len(row)) < share, rng.integers(0, 12, len(row)), row)
        for name, row in labels.items()
    }


@pytest.fixture(scope="module")
def truth():
    rows = [simulate_session(STUDY, i).syllable.astype(int) for i in range(STUDY.n_sessions)]
    return dict(zip(STUDY.session_names, rows, strict=True))


@pytest.fixture(scope="module")
def store(truth, tmp_path_factory):
    """Models ``a``, of the truth, and ``b``, which also names an extra frame and errs."""
    place = str(tmp_path_factory.mktemp("compare") / "study.zarr")
    write_store(place, STUDY)
    a = {name: np.where(np.arange(len(row)) < 2, -1, row) for name, row in truth.items()}
    certainty = {name: np.where(row < 6, 0.5, 0.75) for name, row in a.items()}
    publish_labels(place, STUDY, "a", a, certainty)
    b = {name: (row + 5) % 12 for name, row in noisy(a, 0.2, 0).items()}
    publish_labels(place, STUDY, "b", b, {name: np.full(len(r), 0.875) for name, r in b.items()})
    return place


def flat(store, model):
    labels = kpms_zarr.open_labels(store, model)
    rows = zip(labels["syllable"].values, labels["n_frames"].values, strict=True)
    return np.concatenate([row[:n] for row, n in rows]).astype(int)


def test_compare__gives_what_loops_over_frames_give(store):
    result = kpms_zarr.compare(store, models=["a", "b"])
    a, b = flat(store, "a"), flat(store, "b")
    both = (a >= 0) & (b >= 0)
    (pair,) = result.pairs
    table = agreement.contingency(a, b)
    assert (pair.a, pair.b, pair.n_sessions) == ("a", "b", 3)
    assert pair.n_frames == both.sum()
    assert pair.adjusted_rand_index == pytest.approx(naive_ari(table))
    assert pair.normalized_mutual_information == pytest.approx(naive_nmi(table))
    assert pair.matched_share == pytest.approx((((a + 5) % 12) == b)[both].mean())
    assert pair.ceiling == pytest.approx(np.where(a < 6, 0.5, 0.75)[both].mean())
    assert pair.calibration_b.attrs["error"] == pytest.approx(abs(0.875 - pair.matched_share))
    rows, columns = (pair.confusion[f"syllable_{side}"].values for side in "ab")
    np.testing.assert_array_equal(pair.confusion.values, table[np.ix_(rows, columns)])
    np.testing.assert_array_equal((rows + 5) % 12, columns)
    frames = pair.syllables_a["n_frames"].values
    assert (np.diff(frames) <= 0).all()
    for row in pair.syllables_a["syllable"].values:
        one = pair.syllables_a.sel(syllable=row)
        index = [((a == row) & (b == j))[both].sum() / ((a == row) | (b == j))[both].sum()
                 for j in range(12)]  # fmt: skip
        assert one["jaccard"] == pytest.approx(max(index))
        assert one["best"] == np.argmax(index)
        assert one["matched"] == (row + 5) % 12
        assert one["reading"] == reading(max(index))
    for words, share in pair.reading_share_a.items():
        inside = pair.syllables_a["reading"].values == words
        assert share == pytest.approx(frames[inside].sum() / frames.sum())
    assert sum(pair.reading_share_b.values()) == pytest.approx(1)
    assert result.notes == (f"a and b: {((b >= 0) & (a < 0)).sum()} frames that b alone labels, "
                            "left out",)  # fmt: skip


def test_compare__says_of_each_model_what_its_summary_says(store):
    table = kpms_zarr.compare(store, models=["a", "b"]).models
    for name in ("a", "b"):
        labels = flat(store, name)
        frames = np.bincount(labels[labels >= 0])
        one = table.sel(model=name)
        assert one["n_frames"] == frames.sum()
        assert one["n_used"] == (frames >= 0.005 * frames.sum()).sum()
        assert one["effective_number"] == pytest.approx(agreement.effective_number(frames))
        rows = kpms_zarr.open_labels(store, name)
        bouts = [
            len(list(run)) * 1000 / STUDY.fps
            for row, n in zip(rows["syllable"].values, rows["n_frames"].values, strict=True)
            for label, run in itertools.groupby(row[:n].tolist())
            if label >= 0
        ]
        assert one["median_duration"] == pytest.approx(np.median(bouts))
    assert table.sel(model="b")["mean_certainty"] == pytest.approx(0.875)


def test_compare__is_the_same_from_both_sides(store):
    one, other = (kpms_zarr.compare(store, models=m).pairs[0] for m in (["a", "b"], ["b", "a"]))
    for name in FIGURES:
        assert getattr(one, name) == pytest.approx(getattr(other, name)), name
    assert one.effective_number_a == other.effective_number_b
    assert one.calibration_a.identical(other.calibration_b)
    side, back = (x.sortby("syllable").drop_attrs() for x in (one.syllables_a, other.syllables_b))
    assert side.equals(back)


@settings(
    deadline=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(numbers=st.permutations(range(12)), step=st.integers(1, 5))
def test_compare__does_not_depend_on_the_numbers_of_syllables(store, truth, numbers, step):
    other = noisy(truth, 0.3, 1)
    renumbered = {name: step * np.array(numbers)[row] + 4 for name, row in other.items()}
    one, two_ = (
        kpms_zarr.compare(store, models=["a"], labels={"x": labels}).pairs[0]
        for labels in (other, renumbered)
    )
    for name in FIGURES:
        assert getattr(one, name) == pytest.approx(getattr(two_, name)), name
    assert one.reading_share_a == pytest.approx(two_.reading_share_a)
    new = step * np.array(numbers)[one.syllables_a["best"].values] + 4
    np.testing.assert_array_equal(two_.syllables_a["best"].values, new)


def test_compare__with_itself_is_whole_agreement(store):
    (pair,) = kpms_zarr.compare(store, models=["a", "a@v1"]).pairs
    assert pair.adjusted_rand_index == pair.normalized_mutual_information == 1
    assert pair.matched_share == pair.boundary_f1 == 1
    assert set(pair.syllables_a["reading"].values) == {"stable"}
    assert np.count_nonzero(pair.confusion) == pair.confusion.shape[0]


def test_compare__takes_sessions_and_names_of_syllables(store):
    name = STUDY.session_names[1]
    pair = kpms_zarr.compare(store, models=["a", "b"], sessions=[name]).pairs[0]
    rows = [kpms_zarr.open_labels(store, m)["syllable"][1, : len_of(store, 1)] for m in "ab"]
    table = agreement.contingency(*(row.values for row in rows))
    assert pair.n_sessions == 1
    assert pair.adjusted_rand_index == pytest.approx(naive_ari(table))
    kpms_zarr.name_syllable(store, "a", 3, name="rear")
    confusion = kpms_zarr.compare(store, models=["a", "b"]).pairs[0].confusion
    assert confusion.sel(syllable_a=3)["name_a"].item() == "rear"


def len_of(store, row):
    return int(kpms_zarr.open_labels(store, "a")["n_frames"][row])


def test_compare__leaves_out_what_one_lacks_and_says_so(store, truth):
    some = {name: truth[name] for name in STUDY.session_names[:2]}
    publish_labels(store, STUDY, "some", some)
    result = kpms_zarr.compare(store, models=["a", "some"])
    assert result.pairs[0].n_sessions == 2
    assert np.isnan(result.models.sel(model="some")["mean_certainty"])
    assert result.pairs[0].ceiling == result.pairs[0].calibration_a.attrs["mean_certainty"]
    assert any("some has no labels of 1 session: session_002" in note for note in result.notes)
    rest = {STUDY.session_names[2]: truth[STUDY.session_names[2]]}
    publish_labels(store, STUDY, "rest", rest)
    with pytest.raises(InputError, match="sessions that both some and rest label"):
        kpms_zarr.compare(store, models=["some", "rest"])
    nothing = {name: np.full(len(row), -1) for name, row in truth.items()}
    publish_labels(store, STUDY, "nothing", nothing)
    with pytest.raises(InputError, match="frames that both a and nothing label, found none"):
        kpms_zarr.compare(store, models=["a", "nothing"])


def test_compare__of_three_means_over_the_others(store, truth):
    result = kpms_zarr.compare(store, models=["a", "b"], labels={"true": truth})
    assert [(one.a, one.b) for one in result.pairs] == [("a", "b"), ("a", "true"), ("b", "true")]
    mean = result.replicability("a")
    both = [result.pair("a", "b").syllables_a, result.pair("a", "true").syllables_a]
    for row in range(12):
        expected = np.mean([one.sel(syllable=row)["jaccard"] for one in both])
        assert mean.sel(syllable=row)["jaccard"] == pytest.approx(expected)
    assert (result.replicability("true")["jaccard"] > 0.5).all()
    with pytest.raises(InputError, match="one of a, b, true"):
        result.replicability("c")
    with pytest.raises(InputError, match="two of a, b, true"):
        result.pair("a", "c")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ["a"]}, "two models or more"),
        ({"models": "a"}, "two models or more"),
        ({}, "found none"),
        ({"models": ["a", "a"]}, "'a' more than once"),
        ({"models": ["a", "b"], "labels": {"a": {}}}, "'a' more than once"),
        ({"models": ["a", "nobody"]}, "a fitted model named 'nobody'"),
        ({"models": ["a", "b@v7"]}, "one of the label versions v1"),
        ({"models": ["a", "b"], "boundary_tolerance": -1}, "0 or more"),
        ({"models": ["a", "b"], "boundary_tolerance": 0.5}, "0 or more"),
        ({"models": ["a", "b"], "sessions": ["nobody"]}, "nobody"),
    ],
)
def test_compare__refuses_what_cannot_be_compared(store, options, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.compare(store, **options)


def test_published_labels__travel_as_a_path(store):
    labels = PublishedLabels(store, "a")
    labels.syllable(0, 0, 10)
    data = pickle.dumps(labels)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).syllable(1, 5, 50), labels.syllable(1, 5, 50))
    with dask.config.set(scheduler="processes", num_workers=2):
        assert kpms_zarr.compare(store, models=["a", "b"]).pairs[0].n_sessions == 3


def test_compare__leaves_out_sessions_of_other_lengths(store, truth, tmp_path):
    other = tmp_path / "other.zarr"
    study = replace(STUDY, n_sessions=2)
    write_store(other, study)
    labels = {name: truth[name] for name in study.session_names}
    publish_labels(other, study, "a", labels)
    root = kpms_zarr.store.core.access.open_group(other, "r+")
    publish_labels(other, study, "b", labels)
    # As after a session was removed and added again with fewer frames.
    root["models/b/labels/v1/n_frames"][1] = 100
    from kpms_zarr.store.core.consolidation import consolidate

    consolidate(root, ["models/b"])
    result = kpms_zarr.compare(other, models=["a", "b"])
    assert result.pairs[0].n_sessions == 1
    assert any("session_001 has not the same length" in note for note in result.notes)
