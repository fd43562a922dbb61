"""Comparison of groups: hand-checked cases, and scipy, statsmodels and scikit-learn as oracles."""

from __future__ import annotations

import time
from itertools import combinations, permutations, product

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from helpers.group_studies import simulate_table, table_of
from kpms_zarr.compute.analysis.groups.bootstrap import expanded_levels, intervals
from kpms_zarr.compute.analysis.groups.chains import in_syllables_of
from kpms_zarr.compute.analysis.groups.classification import classify, whitened
from kpms_zarr.compute.analysis.groups.comparison import compare_groups_of
from kpms_zarr.compute.analysis.groups.correction import false_discovery_rate
from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.omnibus import kruskal_wallis
from kpms_zarr.compute.analysis.groups.pairs import compare_pairs
from kpms_zarr.compute.analysis.groups.permutation import centred, permuted, rank_scores
from kpms_zarr.compute.analysis.groups.statistics import values_of
from kpms_zarr.compute.analysis.groups.transitions import compare_transitions, outgoing
from kpms_zarr.compute.analysis.groups.units import units_of
from kpms_zarr.store.errors import InputError

MANY = {"n_permutations": 10_000, "seed": 0}
RNG = np.random.default_rng(1)


def free(*sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    return Design(group, np.zeros(len(group), np.int64))


def blocks(*rows):
    """A design of blocks, each a string of groups such as ``"aab"``."""
    group = np.array(["abcdef".index(one) for row in rows for one in row])
    return Design(group, np.repeat(np.arange(len(rows)), [len(row) for row in rows]))


def quick(table, **options):
    return compare_groups_of(table, **{"n_bootstrap": 200, "n_permutations": 500, **options})


# ------------------------------------------------------------------ designs


@pytest.mark.parametrize(
    ("design", "n_assignments", "smallest"),
    [
        (free(3, 3), 20, 0.1),
        (free(4, 4), 70, 2 / 70),
        (free(3, 4), 35, 1 / 35),
        (free(3, 3, 3), 1680, 6 / 1680),
        (free(1, 1), 2, 1.0),
        (free(1, 5), 6, 1 / 6),
        (free(1, 1, 1), 6, 1.0),
        (free(1, 1, 2), 12, 2 / 12),
        (blocks("ab", "ab", "ab"), 8, 2 / 8),
        (blocks("aab", "abb"), 9, 1 / 9),
        (blocks("abc", "abc"), 36, 6 / 36),
    ],
)
def test_design__counts_its_assignments(design, n_assignments, smallest):
    """By hand, and by a list of all of them, of which none stands twice."""
    assert design.n_assignments == n_assignments
    assert design.least_p(n_assignments) == pytest.approx(smallest)
    every = design.assignments(n_assignments, seed=0)
    assert len({tuple(row) for row in every.tolist()}) == len(every) == n_assignments
    assert (every == design.group).all(1).sum() == 1
    for one in np.unique(design.block):
        here = design.block == one
        assert (np.sort(every[:, here], axis=1) == np.sort(design.group[here])).all()


@pytest.mark.parametrize(
    ("design", "smallest"),
    [
        (free(3, 3), 2 / 20),
        (free(3, 4), 2 / 35),  # the 4 highest, or the 4 lowest
        (free(1, 5), 2 / 6),
        (free(2, 2, 2), 6 / 90),
        (blocks("ab", "ab", "ab"), 2 / 8),
        (blocks("aab", "abb", "ab"), 1 / 18),
    ],
)
def test_smallest_p__is_reached_and_never_passed(design, smallest):
    """Values that part the groups best have it; none without ties have a smaller one."""
    part = np.linspace(0, 1, len(design.group)) * 0.1 + design.group * 10.0
    others = RNG.normal(size=(200, len(design.group)))
    found = kruskal_wallis(np.vstack([part, others]), design, **MANY)
    np.testing.assert_allclose(found["smallest_p"], smallest)
    assert found["p"][0] == pytest.approx(smallest)
    assert (found["p"] >= smallest - 1e-12).all()


@pytest.mark.parametrize("design", [free(5, 6, 4), blocks("aabbb", "abab", "abbb", "aaab")])
def test_random_assignments__keep_blocks_and_are_uniform(design):
    found = design.assignments(200, seed=3)  # all would be more
    assert found.shape == (200, len(design.group))
    for one in np.unique(design.block):
        here = design.block == one
        assert (np.sort(found[:, here], axis=1) == np.sort(design.group[here])).all()
    assert (found == design.assignments(200, seed=3)).all()
    assert (found != design.assignments(200, seed=4)).any()
    small = blocks("ab", "aab")
    rows, n = np.unique(
        np.concatenate([small.assignments(4, seed) for seed in range(900)]), axis=0,
        return_counts=True,
    )  # fmt: skip
    assert len(rows) == 6
    assert stats.chisquare(n).pvalue > 1e-4


# ------------------------------------------------------------------ Kruskal-Wallis


def test_kruskal_wallis__by_hand():
    """1, 2, 3 against 4, 5, 6: rank sums 6 and 15, H = 12/42 (6²/3 + 15²/3) - 21 = 27/7."""
    found = kruskal_wallis(np.array([[1.0, 2, 3, 4, 5, 6]]), free(3, 3), **MANY)
    assert found["h"][0] == pytest.approx(27 / 7)
    assert found["p"][0] == pytest.approx(2 / 20)
    assert found["epsilon_squared"][0] == pytest.approx(27 / 7 / 5)


@pytest.mark.parametrize("sizes", [(4, 5), (3, 4, 5), (2, 3, 3, 4)])
@pytest.mark.parametrize("ties", [False, True])
def test_kruskal_wallis__is_that_of_scipy(sizes, ties):
    values = RNG.normal(size=(20, sum(sizes)))
    values = np.round(values) if ties else values
    design = free(*sizes)
    found = kruskal_wallis(values, design, n_permutations=50, seed=0)
    for row, h in zip(values, found["h"], strict=True):
        parts = [row[design.group == i] for i in range(len(sizes))]
        assert h == pytest.approx(stats.kruskal(*parts).statistic)


def test_p__of_all_assignments_is_that_of_scipy():
    values = np.round(RNG.normal(size=(6, 8)), 1)
    found = kruskal_wallis(values, free(4, 4), **MANY)
    for row, p in zip(values, found["p"], strict=True):
        done = stats.permutation_test(
            (row[:4], row[4:]), lambda a, b: stats.kruskal(a, b).statistic,
            alternative="greater", vectorized=False, n_resamples=np.inf,
        )  # fmt: skip
        assert p == pytest.approx(done.pvalue)


def test_p__of_random_assignments_is_near_that_of_all_and_never_0():
    values = np.vstack([RNG.normal(size=(5, 12)), np.arange(12.0)])
    exact = kruskal_wallis(values, free(6, 6), **MANY)["p"]
    drawn = kruskal_wallis(values, free(6, 6), n_permutations=900, seed=1)["p"]
    assert np.abs(exact - drawn).max() < 5 * np.sqrt(0.25 / 900)
    far = kruskal_wallis(np.arange(40.0)[None], free(20, 20), n_permutations=99, seed=0)
    assert far["p"][0] == far["smallest_p"][0] == 0.01
    paired = kruskal_wallis(
        np.tile([0.0, 1], 8)[None], blocks(*["ab"] * 8), n_permutations=200, seed=0
    )
    assert paired["p"][0] >= paired["smallest_p"][0] == 2 / 256


def test_paired_p__is_that_of_signed_ranks():
    """Two groups in blocks of two: sums of signs times (rank of the size - 1/2), by hand."""
    first, shift = RNG.normal(size=(10, 9)) * 5, RNG.normal(0.5, 1, size=(10, 9))
    values = np.stack([first, first + shift], axis=2).reshape(10, 18)
    found = kruskal_wallis(values, blocks(*["ab"] * 9), **MANY)
    signs = np.array(list(product((-1, 1), repeat=9)))
    for row, p in zip(shift, found["p"], strict=True):
        score = stats.rankdata(np.abs(row)) - 0.5
        every = np.abs(signs @ score)
        assert p == np.mean(every >= abs(np.sign(row) @ score) - 1e-9)


def test_aligned_ranks__do_not_know_what_blocks_add():
    values = RNG.normal(size=(4, 12))
    design = blocks("abc", "abc", "abc", "abc")
    moved = values + np.repeat(RNG.normal(size=4) * 100, 3)
    one, two = (kruskal_wallis(v, design, **MANY) for v in (values, moved))
    np.testing.assert_allclose(one["p"], two["p"])
    np.testing.assert_allclose(one["h"], two["h"])


def test_between__is_what_groups_explain_beyond_blocks():
    """The extra sum of squares of least squares with blocks and groups over blocks alone."""
    design = blocks("aab", "abbc", "cab", "ccb")
    scores = centred(RNG.normal(size=(3, len(design.group))), design.block)
    found = permuted(scores, design, n_permutations=20, seed=0).between
    of_block = (design.block[:, None] == np.arange(4)).astype(float)
    both = np.hstack([of_block, (design.group[:, None] == np.arange(3)).astype(float)])
    for row, value in zip(scores, found, strict=True):
        rest = [row - x @ np.linalg.lstsq(x, row, rcond=None)[0] for x in (of_block, both)]
        assert value == pytest.approx((rest[0] ** 2).sum() - (rest[1] ** 2).sum())


def test_ties_alone__are_no_difference():
    found = kruskal_wallis(np.ones((1, 8)), free(4, 4), **MANY)
    assert (found["p"][0], found["epsilon_squared"][0]) == (1.0, 0.0)


def test_missing_values__leave_a_test_of_the_units_that_have_one():
    values = RNG.normal(size=(3, 9))
    values[1, [0, 5]] = np.nan
    values[2, 1:] = np.nan
    found = kruskal_wallis(values, free(4, 5), **MANY)
    assert found["n_units"].tolist() == [9, 7, 1]
    kept = np.delete(values[1], [0, 5])
    assert found["p"][1] == kruskal_wallis(kept[None], free(3, 4), **MANY)["p"][0]
    assert found["smallest_p"][1] == pytest.approx(2 / 35)
    assert np.isnan(found["p"][2])
    assert np.isfinite(found["p"][0])


# ------------------------------------------------------------------ pairs and intervals


def test_dunn__by_hand():
    """Ranks 1 2 3 | 4 5 6 | 7 8 9: z = 3 / sqrt(9 * 10 / 12 * (1/3 + 1/3)) for neighbours."""
    found = compare_pairs(np.arange(9.0)[None], free(3, 3, 3), 3, n_bootstrap=200, **MANY)
    step = 3 / np.sqrt(7.5 * 2 / 3)
    np.testing.assert_allclose(found["z"][:, 0], [step, 2 * step, step])
    np.testing.assert_allclose(found["p"][:, 0], 0.1)
    np.testing.assert_allclose(found["rank_biserial"], 1.0)
    np.testing.assert_allclose(found["difference"][:, 0], [3, 6, 3])


def test_dunn__with_ties_is_its_formula():
    """Dunn (1964), equation for ties, written out."""
    values = np.round(RNG.normal(size=(10, 13)) * 2)
    design = free(4, 5, 4)
    found = compare_pairs(values, design, 3, n_permutations=50, n_bootstrap=100, seed=0)
    for item, row in enumerate(values):
        rank, n = stats.rankdata(row), len(row)
        _, ties = np.unique(row, return_counts=True)
        spread = n * (n + 1) / 12 - (ties**3 - ties).sum() / (12 * (n - 1))
        for number, (a, b) in enumerate(combinations(range(3), 2)):
            one, two = rank[design.group == a], rank[design.group == b]
            z = (two.mean() - one.mean()) / np.sqrt(spread * (1 / len(one) + 1 / len(two)))
            assert found["z"][number, item] == pytest.approx(z)


def test_pair__of_two_groups_has_the_p_of_the_test_of_all():
    for design in (free(5, 7), blocks("aab", "abb", "ab", "ab")):
        values = RNG.normal(size=(4, len(design.group)))
        one = kruskal_wallis(values, design, n_permutations=300, seed=2)["p"]
        two = compare_pairs(values, design, 2, n_bootstrap=100, n_permutations=300, seed=2)["p"]
        np.testing.assert_array_equal(one, two[0])


def test_pair__permutes_its_own_units_alone():
    """By all assignments of the two groups among their units, ranks being those of all units."""
    values = RNG.normal(size=(1, 9))
    found = compare_pairs(values, free(3, 3, 3), 3, n_bootstrap=100, **MANY)["p"]
    rank = stats.rankdata(values[0])
    for number, (a, b) in enumerate(combinations(range(3), 2)):
        both = np.concatenate([rank[3 * a : 3 * a + 3], rank[3 * b : 3 * b + 3]])
        every = [abs(2 * both[list(one)].sum() - both.sum()) for one in combinations(range(6), 3)]
        observed = abs(2 * both[:3].sum() - both.sum())
        assert found[number, 0] == np.mean([one >= observed for one in every])


def test_rank_biserial__is_that_of_u():
    values = np.round(RNG.normal(size=(6, 11)), 1)
    found = intervals(values, free(5, 6), n_bootstrap=100, seed=0)["rank_biserial"]
    for row, value in zip(values, found, strict=True):
        u = stats.mannwhitneyu(row[5:], row[:5]).statistic
        assert value == pytest.approx(2 * u / 30 - 1)


def test_intervals__are_those_of_scipy_at_the_expanded_level():
    values = RNG.normal(size=(3, 24))
    found = intervals(values, free(12, 12), n_bootstrap=20_000, seed=0)
    low, high = expanded_levels(24, 1)
    for item, row in enumerate(values):
        done = stats.bootstrap(
            (row[:12], row[12:]), lambda a, b, axis: b.mean(axis) - a.mean(axis),
            method="percentile", confidence_level=high - low, n_resamples=20_000, rng=0,
        ).confidence_interval  # fmt: skip
        np.testing.assert_allclose(
            [found["difference_low"][item], found["difference_high"][item]], done, atol=0.05
        )


def test_intervals__in_blocks_are_of_differences_within_blocks():
    first, shift = RNG.normal(size=(2, 12)) * 9, RNG.normal(1, 1, size=(2, 12))
    values = np.stack([first, first + shift], axis=2).reshape(2, 24)
    found = intervals(values, blocks(*["ab"] * 12), n_bootstrap=20_000, seed=0)
    np.testing.assert_allclose(found["difference"], shift.mean(1))
    np.testing.assert_allclose(found["rank_biserial"], np.sign(shift).mean(1))
    low, high = expanded_levels(24, 12)
    done = stats.bootstrap(
        (shift[0],), np.mean, method="percentile", confidence_level=high - low,
        n_resamples=20_000, rng=0,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(
        [found["difference_low"][0], found["difference_high"][0]], done, atol=0.05
    )


def test_intervals__of_one_unit_are_none():
    found = intervals(RNG.normal(size=(2, 4)), free(1, 3), n_bootstrap=100, seed=0)
    assert np.isfinite(found["difference"]).all()
    assert "difference_low" not in found


# ------------------------------------------------------------------ correction


def test_false_discovery_rate__by_hand_and_missing():
    """p times tests over rank, the least of what follows: 0.01 * 4 / 1, 0.03 * 4 / 3, ..."""
    p = np.array([[0.01, np.nan, 0.03], [0.02, 0.9, np.nan]])
    found = false_discovery_rate(p)
    np.testing.assert_allclose(found, [[0.04, np.nan, 0.04], [0.04, 0.9, np.nan]])


def test_false_discovery_rate__is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = RNG.random(50) ** 3
    expected = multitest.multipletests(p, method="fdr_bh")[1]
    np.testing.assert_allclose(false_discovery_rate(p), expected)


# ------------------------------------------------------------------ transitions


def test_outgoing__is_of_each_syllable():
    found = outgoing(np.array([[0, 3, 1], [0, 0, 0], [2, 2, 0]]))
    np.testing.assert_allclose(found[0], [0, 0.75, 0.25])
    assert np.isnan(found[1]).all()


def test_transitions__of_all_have_the_ratio_of_one_variable():
    """With one pair of changes, pseudo-R² is that of an analysis of variance of its roots."""
    n = RNG.integers(20, 60, (8, 2))
    changes = np.zeros((8, 3, 3), np.int64)
    changes[:, 0, 1], changes[:, 0, 2] = n[:, 0], n[:, 1]
    design = free(4, 4)
    found = compare_transitions(changes, np.arange(3), design, ("a", "b"), **MANY)
    share = np.sqrt(n / n.sum(1, keepdims=True))
    between = sum(4 * (share[g].mean(0) - share.mean(0)) ** 2 for g in (np.s_[:4], np.s_[4:]))
    ratio = between.sum() / ((share - share.mean(0)) ** 2).sum()
    assert found.attrs["r_squared"] == pytest.approx(ratio)
    every = []
    for first in combinations(range(8), 4):
        rest = [i for i in range(8) if i not in first]
        every.append(
            sum(4 * ((share[list(g)].mean(0) - share.mean(0)) ** 2).sum() for g in (first, rest))
        )
    assert found.attrs["p"] == np.mean(np.array(every) >= between.sum() * (1 - 1e-9))
    assert np.isfinite(found["p"].values).sum() == 2


# ------------------------------------------------------------------ classification


@pytest.mark.parametrize("sizes", [(5, 6), (4, 3, 5)])
def test_classify__is_the_nearest_centroid_of_scikit_learn(sizes):
    neighbors = pytest.importorskip("sklearn.neighbors")
    selection = pytest.importorskip("sklearn.model_selection")
    metrics = pytest.importorskip("sklearn.metrics")
    design, groups = free(*sizes), tuple("abc"[: len(sizes)])
    usage = RNG.dirichlet(np.ones(5) * 4, size=sum(sizes))
    found = classify(usage, design, groups, n_permutations=99, seed=0)
    points = whitened(usage, design.block)
    expected = selection.cross_val_predict(
        neighbors.NearestCentroid(), points, design.group, cv=selection.LeaveOneOut()
    )
    assert found["predicted"].values.tolist() == expected.tolist()
    assert found.attrs["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(design.group, expected)
    )


def test_classify__leaves_whole_blocks_out():
    """By a loop over blocks, means written out."""
    design = blocks("ab", "aab", "abb", "ab", "ba")
    usage = RNG.dirichlet(np.ones(4) * 9, size=len(design.group))
    usage[design.group == 1, 0] += 0.1
    found = classify(usage, design, ("a", "b"), n_permutations=99, seed=0)
    points = whitened(usage, design.block)
    for i, predicted in enumerate(found["predicted"].values):
        others = design.block != design.block[i]
        means = [points[others & (design.group == k)].mean(0) for k in (0, 1)]
        assert predicted == np.argmin([((points[i] - mean) ** 2).sum() for mean in means])


def test_whitened__has_the_shrunk_covariance():
    usage = RNG.dirichlet(np.ones(3) * 4, size=40)
    root = np.sqrt(usage)
    root -= root.mean(0)
    spread = root.T @ root / 39
    shrunk = 0.5 * spread + 0.5 * np.trace(spread) / 3 * np.eye(3)
    expected = root @ np.linalg.inv(shrunk) @ root.T
    found = whitened(usage, np.zeros(40, int))
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-9)


# ------------------------------------------------------------------ units


def test_units__sessions_are_units():
    found = units_of(simulate_table(RNG, ["a"] * 3 + ["b"] * 3), by="group")
    assert (found.unit, found.blocked_by, found.sizes) == ("session", "", (3, 3))
    assert found.design == (
        "group differs between sessions: 6 sessions, each one unit (3 a, 3 b); groups are "
        "exchanged between all of them"
    )


def test_units__animals_that_were_given_a_group_are_units():
    group, animal = ["a"] * 6 + ["b"] * 6, [f"m{i // 2}" for i in range(12)]
    table = simulate_table(RNG, group, animal=animal)
    alone = units_of(table, by="group")
    assert alone.sizes == (6, 6)
    assert "12 sessions of 6 animals are taken for independent" in " ".join(alone.notes)
    found = units_of(table, by="group", block="animal")
    assert (found.unit, found.blocked_by, found.sizes) == ("animal", "", (3, 3))
    frames = table["n_frames"].values
    np.testing.assert_array_equal(found.pooled["n_frames"].values[0], frames[:2].sum(0))
    bouts = table["n_bouts"].values[:2]
    mean = (bouts * np.nan_to_num(table["mean_duration"].values[:2])).sum(0) / bouts.sum(0)
    np.testing.assert_allclose(found.pooled["mean_duration"].values[0], mean)
    assert compare_groups_of(table, by="group", block="animal", n_bootstrap=100).smallest_p == 0.1


def test_units__conditions_within_sessions_are_paired():
    names = [f"s{i}" for i in range(5) for _ in range(3)]
    table = simulate_table(RNG, ["dark", "light", "dark"] * 5, session=names)
    table = table.assign_coords(epoch=("row", ["e1", "e2", "e3"] * 5))
    found = units_of(table, by="group")
    assert (found.unit, found.blocked_by, found.sizes) == ("session", "session", (5, 5))
    assert found.design.startswith("group differs within sessions: 5 sessions, each a block")
    frames = table["n_frames"].values
    np.testing.assert_array_equal(found.pooled["n_frames"].values[0], frames[0] + frames[2])
    assert Design(found.group, found.block).least_p(100) == 2 / 32
    nested = table.assign_coords(animal=("row", ["m1"] * 6 + ["m2"] * 6 + ["m3"] * 3))
    by_animal = units_of(nested, by="group", block="animal")
    assert (by_animal.unit, by_animal.blocked_by, by_animal.sizes) == ("animal", "animal", (3, 3))


def test_units__groups_within_animals_are_exchanged_within_animals():
    animal = [f"m{i // 4}" for i in range(12)]
    table = simulate_table(RNG, ["drug", "saline"] * 6, animal=animal)
    found = units_of(table, by="group", block="animal")
    assert (found.unit, found.blocked_by, found.sizes) == ("session", "animal", (6, 6))
    assert found.block.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    design = Design(found.group, found.block)
    assert (design.n_assignments, design.least_p(300)) == (6**3, 2 / 6**3)
    assert "`unit='animal'` compares one value of each animal" in " ".join(found.notes)
    pooled = units_of(table, by="group", block="animal", unit="animal")
    assert (pooled.unit, pooled.blocked_by, pooled.sizes) == ("animal", "animal", (3, 3))


def test_units__what_is_left_out_is_said():
    group = ["a", "a", "a", "", "b", "b", "b", "c"]
    animal = ["m1", "m2", "m3", "m4", "m5", "m6", "m6", ""]
    table = simulate_table(RNG, group, animal=animal)
    table["n_frames"][2] = 0
    found = units_of(table, by="group")
    assert found.sizes == (2, 3, 1)
    said = " / ".join(found.notes)
    assert "no value of group: s003, left out" in said
    assert "no labelled frames: s002, left out" in said
    assert "group c has one session only" in said
    said = " / ".join(units_of(table, by="group", block="animal").notes)
    assert "no value of animal: s007, left out" in said
    table["n_frames"][7] = 0
    assert "group c has no labelled frames at all" in " / ".join(units_of(table, by="group").notes)
    chosen = units_of(table, by="group", groups=["b", "a"])
    assert (chosen.groups, chosen.sizes) == (("b", "a"), (3, 2))
    blocked = simulate_table(RNG, list("ababaa"), animal=["m1"] * 2 + ["m2"] * 2 + ["m3"] * 2)
    found = units_of(blocked, by="group", block="animal")
    assert found.sizes == (2, 2)
    assert "one value of group only" in " ".join(found.notes)
    assert ": m3, left out" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "diet"}, "expected one of the coordinates animal, epoch, group, session"),
        ({"by": "epoch"}, "found none"),
        ({"by": "session"}, "every assignment of the groups differs as much as this one"),
        ({"by": "group", "block": "diet"}, "found 'diet'"),
        ({"by": "group", "groups": ["a", "z"]}, "expected different values of group, of a, b"),
        ({"by": "group", "statistic": ["speeed"]}, "expected some of frequency, bouts, duration"),
        ({"by": "group", "syllables": [99]}, "expected syllables from 0 to 5"),
        ({"by": "group", "min_frequency": 0.9}, "none of 6 syllables"),
        ({"by": "group", "n_permutations": 3}, "a whole number from 19 to 1,000,000"),
        ({"by": "group", "unit": "group"}, "expected a design that allows a test"),
    ],
)
def test_wrong_inputs__are_refused_in_words(options, said):
    table = simulate_table(np.random.default_rng(0), ["a"] * 3 + ["b"] * 3)
    with pytest.raises(InputError) as error:
        quick(table, **options)
    assert said in str(error.value)


def test_split_sessions_and_medians__are_refused_in_words():
    table = simulate_table(RNG, ["a", "b"] * 3, session=["s1", "s1", "s2", "s2", "s3", "s3"])
    table = table.assign_coords(half=("row", ["x", "y"] * 3))
    with pytest.raises(InputError, match="one value of half for each session"):
        quick(table, by="group", block="half")
    with pytest.raises(InputError, match="one value of half for each session"):
        quick(table, by="group", unit="half")
    animals = simulate_table(RNG, ["a"] * 4 + ["b"] * 4, animal=[f"m{i // 2}" for i in range(8)])
    with pytest.raises(InputError, match="their medians cannot be pooled"):
        quick(animals, by="group", block="animal", statistic=["median_duration"])
    without = animals.drop_vars("mean_speed")
    with pytest.raises(InputError, match="a table with mean_speed"):
        quick(without, by="group", statistic=["speed"])


# ------------------------------------------------------------------ the whole


def test_compare_groups_of__does_not_depend_on_the_order_of_rows():
    table = simulate_table(RNG, ["a"] * 5 + ["b"] * 6, animal=[f"m{i}" for i in range(11)])
    table["mean_duration"][2, 1] = np.nan
    order = RNG.permutation(11)
    one, two = (quick(t, by="group") for t in (table, table.isel(row=order)))
    for name in ("tests", "pairs", "transitions", "classification", "fingerprints", "syllables"):
        xr.testing.assert_identical(getattr(one, name), getattr(two, name))
    other = quick(table, by="group", n_permutations=50, seed=1)
    assert not other.tests["p"].equals(quick(table, by="group", n_permutations=50).tests["p"])


def test_compare_groups_of__says_what_it_tested_and_why():
    table = simulate_table(RNG, ["a"] * 3 + ["b"] * 3, n_syllables=4)
    table["n_frames"][:, 3] = 1
    index = np.array([0.9, 0.3, np.nan, 0.9])
    found = quick(table, by="group", replicability=index)
    assert found.syllables["is_tested"].values.tolist() == [True, False, True, False]
    why = found.syllables["why"].values
    assert why[0] == "frequent enough, replicability 0.90"
    assert why[1] == "replicability 0.30, less than 0.75"
    assert why[2] == "frequent enough"
    assert "% of the frames, less than 0.5 %" in why[3]
    assert found.tests["state"].values.tolist() == [0, 2]
    assert found.smallest_p == 0.1
    assert any("no p can be below 0.1" in note for note in found.notes)
    asked = quick(table, by="group", syllables=[3])
    assert asked.syllables["why"].values.tolist()[3] == "asked for"


def test_q__is_within_and_across_statistics():
    table = simulate_table(RNG, ["a"] * 5 + ["b"] * 5 + ["c"] * 4)
    found = quick(table, by="group", statistic=("frequency", "speed", "turning"))
    p = found.tests["p"].values
    for row, q in zip(p, found.tests["q"].values, strict=True):
        np.testing.assert_allclose(q, stats.false_discovery_control(row))
    across = stats.false_discovery_control(p.ravel()).reshape(p.shape)
    np.testing.assert_allclose(found.tests["q_across"].values, across)
    pairs = found.pairs["p"].values
    for table_of_p, q in zip(pairs, found.pairs["q"].values, strict=True):
        np.testing.assert_allclose(q.ravel(), stats.false_discovery_control(table_of_p.ravel()))


def test_values__of_syllables_that_do_not_occur():
    table = table_of(np.array([[100.0, 200], [100, np.nan], [100, 300], [50, 400]]),
                     group=["a", "a", "b", "b"])  # fmt: skip
    table["n_bouts"][1, 1] = table["n_frames"][1, 1] = 0
    units = units_of(table, by="group")
    np.testing.assert_allclose(values_of(units.pooled, "frequency")[1], [0.5, 0, 0.5, 0.5])
    assert np.isnan(values_of(units.pooled, "duration")[1, 1])


def test_chains__count_where_a_finding_holds():
    group = ["a"] * 6 + ["b"] * 6
    rng = np.random.default_rng(0)
    table = simulate_table(rng, group, effect=2.0, on="b", n_syllables=4)
    turned = simulate_table(rng, group, effect=-2.0, on="b", n_syllables=4)
    unlike = simulate_table(rng, group, n_syllables=4)
    fewer, one_group = table.isel(row=slice(1, None)), table.isel(row=slice(0, 6))
    chains = [table, table, turned, unlike, fewer, one_group]
    found = quick(table, by="group", chains=chains, n_permutations=2000).tests
    one = found.sel(statistic="frequency", state=0)
    assert (int(one["n_chains"]), int(one["n_chains_tested"])) == (2, 4)
    assert "in each of" in quick(table, by="group", chains=chains).methods


def test_in_syllables_of__pools_states():
    table = simulate_table(RNG, ["a", "b"], n_syllables=4)
    found = in_syllables_of(table, np.array([1, 0, 1, -1]), 3)
    frames = table["n_frames"].values
    np.testing.assert_array_equal(
        found["n_frames"].values, np.stack([frames[:, 1], frames[:, 0] + frames[:, 2],
                                            np.zeros(2)], axis=1)
    )  # fmt: skip
    bouts, duration = table["n_bouts"].values, table["mean_duration"].values
    mean = (bouts[:, 0] * duration[:, 0] + bouts[:, 2] * duration[:, 2]) / (
        bouts[:, 0] + bouts[:, 2]
    )
    np.testing.assert_allclose(found["mean_duration"].values[:, 1], mean)
    assert np.isnan(found["mean_duration"].values[:, 2]).all()
    assert list(found["group"].values) == ["a", "b"]


def test_fingerprints__stand_by_group():
    table = simulate_table(RNG, ["b", "a", "b", "a"])
    found = quick(table, by="group").fingerprints
    assert found["group"].values.tolist() == ["a", "a", "b", "b"]
    assert found["statistic"].values.tolist() == ["frequency", "speed", "turning"]
    usage = found["value"].sel(statistic="frequency").values
    frames = table["n_frames"].values[[1, 3, 0, 2]]
    np.testing.assert_allclose(usage, frames / frames.sum(1, keepdims=True))
    np.testing.assert_allclose(found["standardised"].mean("unit"), 0, atol=1e-9)


def test_methods__say_what_was_done():
    table = simulate_table(RNG, ["a"] * 3 + ["b"] * 3)
    text = quick(table, by="group").methods
    assert "the smallest p that the design allows is 0.1" in text
    assert "all 20 assignments" in text
    assert "Dunn" not in text
    assert "those with 0.5 % of all frames or more" in text
    works = quick(table, by="group").references
    assert [work.split(" ")[0] for work in works] == [
        "Anderson", "Benjamini", "Hesterberg", "Kruskal",
    ]  # fmt: skip
    table = simulate_table(RNG, ["a", "b", "c"] * 9, session=[f"s{i // 3}" for i in range(27)])
    text = quick(table, by="group").methods
    for words in ("aligned by session", "Dunn (1964)", "(1 + b) / (1 + n)", "Winkler et al., 2014"):
        assert words in text


def test_hundred_syllables__take_seconds():
    """10,000 permutations of 100 syllables and 24 sessions; CPU time, others use the machine."""
    values, design = RNG.normal(size=(100, 24)), free(8, 8, 8)
    began = time.process_time()
    kruskal_wallis(values, design, **MANY)
    assert time.process_time() - began < 5


def test_all_orders__of_groups_are_the_same():
    """Names of groups do not matter: p of every renaming is the same where all are listed."""
    values = RNG.normal(size=(3, 7))
    design = free(2, 2, 3)
    expected = kruskal_wallis(values, design, **MANY)["p"]
    for order in permutations(range(3)):
        renamed = Design(np.array(order)[design.group], design.block)
        np.testing.assert_array_equal(kruskal_wallis(values, renamed, **MANY)["p"], expected)


def test_rank_scores__have_mean_ranks_for_ties():
    found = rank_scores(np.array([[3.0, 1, 1, 2]]), np.zeros(4, int))
    np.testing.assert_allclose(found, [[1.5, -1, -1, 0.5]])
