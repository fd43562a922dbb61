"""Error rates and power of comparisons of groups, over simulated studies; wrong twins that fail.

A part of the studies in CI, 300 and more in full runs. Rates are compared with nominal ones within
four standard errors of a binomial.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from helpers.amount import IS_FULL
from helpers.group_studies import simulate_table
from kpms_zarr.compute.analysis.groups.bootstrap import intervals
from kpms_zarr.compute.analysis.groups.classification import classify
from kpms_zarr.compute.analysis.groups.correction import false_discovery_rate
from kpms_zarr.compute.analysis.groups.design import Design
from kpms_zarr.compute.analysis.groups.omnibus import kruskal_wallis
from kpms_zarr.compute.analysis.groups.pairs import compare_pairs
from kpms_zarr.compute.analysis.groups.permutation import centred, permuted, rank_scores
from kpms_zarr.compute.analysis.groups.statistics import values_of
from kpms_zarr.compute.analysis.groups.transitions import compare_transitions
from kpms_zarr.compute.analysis.groups.units import units_of

N_STUDIES = 300 if IS_FULL else 40
ALPHA = 0.05
N = 199
"""Permutations: (1 + N) times ALPHA is whole, so that a valid test rejects as often as ALPHA."""

pytestmark = pytest.mark.slow


def is_nominal(rate: float, n: int, alpha: float = ALPHA, least: float | None = None) -> bool:
    """Whether a rate is within binomial error of alpha; ``least``: attainable one, if lower."""
    error = 4 * np.sqrt(alpha * (1 - alpha) / n)
    return (alpha if least is None else least) - error <= rate <= alpha + error


def studies(n: int = N_STUDIES) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(n)]


def rate_of(reject: Callable[[np.random.Generator], bool], n: int = N_STUDIES) -> float:
    found = float(np.mean([reject(rng) for rng in studies(n)]))
    print(f"{getattr(reject, '__name__', '')}: {found:.3f} of {n}")
    return found


# ------------------------------------------------------------------ designs, null studies


def between_sessions(rng, effect=0.0):
    return simulate_table(rng, ["a"] * 8 + ["b"] * 8, effect=effect, on="b", n_syllables=4), None


def between_animals(rng, effect=0.0):
    """Three sessions of each of ten animals, which differ more than their sessions do."""
    animal = [f"m{i // 3}" for i in range(30)]
    group = ["a"] * 15 + ["b"] * 15
    table = simulate_table(
        rng, group, animal=animal, animal_spread=0.4, session_spread=0.15, effect=effect, on="b",
        n_syllables=4,
    )  # fmt: skip
    return table, "animal"


def within_sessions(rng, effect=0.0):
    """Two epochs of each of twelve sessions, which differ more than their epochs do."""
    session = [f"s{i // 2:02d}" for i in range(24)]
    table = simulate_table(
        rng, ["dark", "light"] * 12, session=session, animal=session, animal_spread=0.6,
        session_spread=0.15, effect=effect, on="light", n_syllables=4,
    )  # fmt: skip
    return table, None


def within_animals(rng, effect=0.0):
    """Four sessions of each of eight animals; half of these had the drug three times, half once."""
    group = ["drug", "drug", "drug", "saline"] * 4 + ["drug", "saline", "saline", "saline"] * 4
    animal = [f"m{i // 4}" for i in range(32)]
    table = simulate_table(
        rng, group, animal=animal, animal_spread=0.6, session_spread=0.15, effect=effect,
        on="drug", n_syllables=4,
    )  # fmt: skip
    return table, "animal"


DESIGNS = (between_sessions, between_animals, within_sessions, within_animals)


def p_of(made, statistic: str = "frequency", n: int = N) -> np.ndarray:
    """p of each syllable, of a table and its block."""
    table, block = made
    units = units_of(table, by="group", block=block)
    design = Design(units.group, units.block)
    return kruskal_wallis(
        values_of(units.pooled, statistic), design, n_permutations=n, seed=len(table.row)
    )["p"]


@pytest.mark.parametrize("make", DESIGNS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("statistic", ["frequency", "duration"])
def test_null_studies__are_rejected_as_often_as_said(make, statistic):
    found = np.array([p_of(make(rng), statistic) for rng in studies()])
    rate = float((found[:, 0] <= ALPHA).mean())
    any_q = np.mean([(false_discovery_rate(row) <= ALPHA).any() for row in found])
    print(f"{make.__name__}, {statistic}: p {rate:.3f}, any q {any_q:.3f} of {N_STUDIES}")
    assert is_nominal(rate, N_STUDIES, least=0.03)
    assert any_q <= ALPHA + 4 * np.sqrt(ALPHA * (1 - ALPHA) / N_STUDIES)
    # p of valid tests are uniform, but for the steps that few assignments of ranks leave
    for alpha in (0.1, 0.2, 0.5):
        rate = float((found[:, 0] <= alpha).mean())
        assert is_nominal(rate, N_STUDIES, alpha, least=0.8 * alpha), alpha


@pytest.mark.parametrize("make", DESIGNS, ids=lambda one: one.__name__)
def test_planted_effects__are_found(make):
    rate = rate_of(lambda rng: p_of(make(rng, 1.2))[0] <= ALPHA)
    print(f"power, {make.__name__}: {rate:.3f}")
    assert rate > 0.7


# ------------------------------------------------------------------ wrong twins


def test_wrong_twin__that_permutes_bouts_finds_what_is_not_there():
    """Every bout a unit: sessions differ, and so do their bouts."""

    def p_of_bouts(rng):
        made = [rng.exponential(np.exp(rng.normal(0, 0.3)), 100) for _ in range(8)]
        bouts = np.concatenate(made)[None]
        design = Design(np.repeat([0, 1], 400), np.zeros(800, np.int64))
        return kruskal_wallis(bouts, design, n_permutations=N, seed=0)["p"][0]

    rate = rate_of(lambda rng: p_of_bouts(rng) <= ALPHA)
    assert rate > 0.3


def test_wrong_twin__that_takes_sessions_of_an_animal_for_independent_fails():
    rate = rate_of(lambda rng: p_of((between_animals(rng)[0], None))[0] <= ALPHA)
    assert not is_nominal(rate, N_STUDIES)
    assert rate > 0.12


def test_wrong_twin__that_ignores_blocks_fails():
    """Animals that had the drug more often are no animals drawn at random for it."""

    def p_without(rng):
        table, _ = within_animals(rng)
        # Animals of one kind are heavier users of syllable 0, whatever they are given.
        heavy = np.arange(32) < 16
        frames = table["n_frames"].values.copy()
        frames[heavy, 0] *= 4
        table["n_frames"].values[:] = frames
        return p_of((table, None))[0], p_of((table, "animal"))[0]

    found = np.array([p_without(rng) for rng in studies()])
    ignoring, blocked = (found <= ALPHA).mean(0)
    print(f"ignoring blocks {ignoring:.3f}, within blocks {blocked:.3f}")
    assert ignoring > 0.2
    assert is_nominal(float(blocked), N_STUDIES, least=0.03)


def test_wrong_twin__that_ignores_pairs_finds_less():
    """Epochs of different sessions exchanged: valid here, but blind."""
    twin = rate_of(lambda rng: _unpaired(within_sessions(rng, 0.5)[0]) <= ALPHA)
    right = rate_of(lambda rng: p_of(within_sessions(rng, 0.5))[0] <= ALPHA)
    assert right > twin + 0.2


def _unpaired(table):
    units = units_of(table, by="group")
    design = Design(units.group, np.zeros_like(units.block))
    values = values_of(units.pooled, "frequency")
    return kruskal_wallis(values, design, n_permutations=N, seed=0)["p"][0]


def test_wrong_twin__without_the_one_reports_findings_of_p_0():
    """b / n in place of (1 + b) / (1 + n), of few permutations and many syllables."""
    design = Design(np.repeat([0, 1], 8), np.zeros(16, np.int64))
    n_permutations = 99

    def findings(rng):
        values = rng.normal(size=(60, 16))
        p = kruskal_wallis(
            values, design, n_permutations=n_permutations, seed=int(rng.integers(99))
        )
        twin = (p["p"] * (1 + n_permutations) - 1) / n_permutations
        return [(false_discovery_rate(one) <= ALPHA).any() for one in (p["p"], twin)]

    right, twin = np.mean([findings(rng) for rng in studies()], axis=0)
    print(f"any finding: +1 rule {right:.3f}, twin {twin:.3f}")
    assert right <= ALPHA + 4 * np.sqrt(ALPHA * (1 - ALPHA) / N_STUDIES)
    assert twin > 0.25


def test_wrong_twin__that_does_not_correct_finds_something_in_most_studies():
    design = Design(np.repeat([0, 1], 8), np.zeros(16, np.int64))

    def any_p(rng):
        values = rng.normal(size=(60, 16))
        return (kruskal_wallis(values, design, n_permutations=N, seed=1)["p"] <= ALPHA).any()

    assert rate_of(any_p) > 0.8


def test_wrong_twin__of_pairs_that_permutes_the_third_group_too_fails():
    """The third group lies between the other two's values, and widens nothing when it is shuffled.

    Dunn's statistic is compared with assignments of all three groups, which holds only where none
    of the three differs.
    """
    group = np.repeat([0, 1, 2], [6, 6, 24])
    design = Design(group, np.zeros(36, np.int64))

    def both(rng):
        values = np.concatenate([rng.normal(size=12), rng.normal(0, 0.01, 24)])[None]
        right = compare_pairs(
            values, design, 3, n_permutations=N, n_bootstrap=100, seed=int(rng.integers(1 << 30))
        )["p"][0, 0]
        rank = rank_scores(values, design.block)[0]
        size = [
            abs(rank[one == 0].mean() - rank[one == 1].mean())
            for one in (group, *design.assignments(N, int(rng.integers(1 << 30))))
        ]
        return right <= ALPHA, np.mean(np.array(size) >= size[0]) <= ALPHA

    right, twin = np.mean([both(rng) for rng in studies(300)], axis=0)
    print(f"pair of three: own units {right:.3f}, all units {twin:.3f}")
    assert is_nominal(float(right), 300, least=0.03)
    assert twin > 0.1


# ------------------------------------------------------------------ transitions, classification


def p_of_transitions(rng, shift=0.0, twin=False):
    """Of all transitions: a group that differs in usage alone, and by ``shift`` in what follows."""
    group = ["a"] * 7 + ["b"] * 7
    table = simulate_table(rng, group, effect=0.8, on="b", n_syllables=4, session_spread=0.1)
    changes = np.zeros((14, 4, 4), np.int64)
    for i, n in enumerate(table["n_bouts"].values):
        for a in range(4):
            weight = np.exp(rng.normal(0, 0.15, 4))
            weight[a] = 0
            weight[(a + 1) % 4] *= np.exp(shift * (group[i] == "b"))
            changes[i, a] = rng.multinomial(n[a], weight / weight.sum())
    design = Design(np.repeat([0, 1], 7), np.zeros(14, np.int64))
    if twin:  # shares of all changes, which usage alone changes
        flat = np.sqrt(changes.reshape(14, -1) / changes.sum((1, 2))[:, None]).T
        scores = centred(flat, design.block)
        return permuted(scores, design, n_permutations=N, seed=0).joint_p
    found = compare_transitions(changes, np.arange(4), design, ("a", "b"), n_permutations=N, seed=0)
    return found.attrs["p"]


def test_transitions__are_rejected_as_often_as_said_and_found():
    null = rate_of(lambda rng: p_of_transitions(rng) <= ALPHA)
    assert is_nominal(null, N_STUDIES, least=0.03)
    assert rate_of(lambda rng: p_of_transitions(rng, 0.4) <= ALPHA) > 0.7


def test_wrong_twin__of_transitions_that_takes_usage_for_order_fails():
    assert rate_of(lambda rng: p_of_transitions(rng, twin=True) <= ALPHA) > 0.5


def usage_of(made):
    table, block = made
    units = units_of(table, by="group", block=block)
    usage = values_of(units.pooled, "frequency").T
    return usage, Design(units.group, units.block), units.groups


def test_classification__is_at_chance_without_an_effect_and_above_it_with_one():
    def p(rng, effect=0.0):
        usage, design, groups = usage_of(between_animals(rng, effect))
        return classify(usage, design, groups, n_permutations=N, seed=0).attrs

    null = [p(rng) for rng in studies()]
    rate = float(np.mean([one["p"] <= ALPHA for one in null]))
    accuracy = float(np.mean([one["balanced_accuracy"] for one in null]))
    baseline = float(np.mean([one["baseline"] for one in null]))
    print(f"classification: p {rate:.3f}, accuracy {accuracy:.3f}, baseline {baseline:.3f}")
    # accuracies have few steps, so that p is larger than it could be
    assert rate <= ALPHA + 4 * np.sqrt(ALPHA * (1 - ALPHA) / N_STUDIES)
    assert accuracy < 0.55
    assert abs(accuracy - baseline) < 0.05
    assert rate_of(lambda rng: p(rng, 1.6)["p"] <= ALPHA) > 0.5


def test_wrong_twin__that_leaves_out_a_session_and_not_its_animal_tells_animals_apart():
    def p(rng):
        table, _ = between_animals(rng)
        usage, design, groups = usage_of((table, None))
        return classify(usage, design, groups, n_permutations=N, seed=0).attrs["p"]

    assert rate_of(lambda rng: p(rng) <= ALPHA) > 0.15


# ------------------------------------------------------------------ intervals


@pytest.mark.parametrize(
    "n", [pytest.param(4, marks=pytest.mark.full), 6, pytest.param(12, marks=pytest.mark.full)]
)
def test_intervals__cover_as_often_as_said(n):
    """Differences of means of two groups of n, 95 %; plain percentiles, the twin, cover less."""
    n_sets = 2000
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n_sets, 2 * n))
    design = Design(np.repeat([0, 1], n), np.zeros(2 * n, np.int64))
    found = intervals(values, design, n_bootstrap=2000, seed=0)
    covers = (found["difference_low"] <= 0) & (found["difference_high"] >= 0)
    paired = intervals(
        values, Design(np.tile([0, 1], n), np.repeat(np.arange(n), 2)), n_bootstrap=2000, seed=0
    )
    in_blocks = (paired["difference_low"] <= 0) & (paired["difference_high"] >= 0)
    plain = []
    for row in values[: n_sets // 4]:
        drawn = rng.integers(0, n, (2, 500, n))
        shift = row[n:][drawn[1]].mean(1) - row[:n][drawn[0]].mean(1)
        low, high = np.quantile(shift, (0.025, 0.975))
        plain.append(low <= 0 <= high)
    print(
        f"coverage, {n} each: {covers.mean():.3f}, in {n} blocks {in_blocks.mean():.3f}, plain "
        f"{np.mean(plain):.3f}"
    )
    assert covers.mean() > (0.90 if n < 6 else 0.92)
    assert in_blocks.mean() > (0.85 if n < 6 else 0.89)
    assert covers.mean() > np.mean(plain)
