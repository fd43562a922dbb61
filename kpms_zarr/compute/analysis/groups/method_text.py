"""A paragraph on a comparison of groups, to paste into a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kpms_zarr.compute.analysis.groups.statistics import STATISTICS
from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.wording import counted, plural, sentence

if TYPE_CHECKING:
    from kpms_zarr.compute.analysis.groups.comparison import GroupComparison

REFERENCES = (
    "Anderson MJ (2001). A new method for non-parametric multivariate analysis of variance. "
    "Austral Ecology 26, 32–46.",
    "Benjamini Y, Hochberg Y (1995). Controlling the false discovery rate. Journal of the Royal "
    "Statistical Society B 57, 289–300.",
    "Dunn OJ (1964). Multiple comparisons using rank sums. Technometrics 6, 241–252.",
    "Hesterberg TC (2015). What teachers should know about the bootstrap. The American "
    "Statistician 69, 371–386.",
    "Hodges JL, Lehmann EL (1962). Rank methods for combination of independent experiments in "
    "analysis of variance. Annals of Mathematical Statistics 33, 482–497.",
    "Kruskal WH, Wallis WA (1952). Use of ranks in one-criterion variance analysis. Journal of the "
    "American Statistical Association 47, 583–621.",
    "Phipson B, Smyth GK (2010). Permutation p-values should never be zero. Statistical "
    "Applications in Genetics and Molecular Biology 9, 39.",
    "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE (2014). Permutation inference for "
    "the general linear model. NeuroImage 92, 381–397.",
)
"""Works that the paragraph cites, by first author and year."""


def method_text(result: GroupComparison) -> str:
    """Describe how groups were compared; only what was done is said."""
    parts = [
        _what(result),
        _test(result),
        _permutations(result),
        _corrected(result),
        _pairwise(result),
        _transitions(result),
        _classified(result),
        _chains(result),
    ]
    return " ".join(part for part in parts if part)


def references_of(text: str) -> tuple[str, ...]:
    """Works that a text cites."""

    def is_cited(work: str) -> bool:
        authors, rest = work.split(" (", 1)
        names = [author.split()[0] for author in authors.split(", ")]
        return f"{names[0]}" in text and rest[:4] in text

    return tuple(work for work in REFERENCES if is_cited(work))


def _what(result: GroupComparison) -> str:
    statistics = [STATISTICS[name].words for name in map(str, result.tests["statistic"].values)]
    tested = int(result.syllables["is_tested"].values.sum())
    limits = result.syllables.attrs
    chosen = (
        f"those with {100 * limits['min_frequency']:g} % of all frames or more and, where it was "
        f"known, a replicability (Jaccard index) of {limits['min_replicability']:g} or more, "
        "whatever the groups"
        if limits
        else "which were chosen beforehand"
    )
    model = f" of model {result.model}" if result.model else ""
    return (
        f"Groups were compared with kpms_zarr {package_version()} by {_joined(statistics)} of "
        f"{counted(tested, 'syllable')}{model}, {chosen}. The design: {result.design}."
    )


def _test(result: GroupComparison) -> str:
    if result.blocked_by:
        return (
            "Differences were tested by the Kruskal-Wallis statistic (Kruskal and Wallis, 1952) of "
            f"ranks aligned by {result.blocked_by} (Hodges and Lehmann, 1962), with mean ranks for "
            "ties."
        )
    return (
        "Differences were tested by the Kruskal-Wallis statistic (Kruskal and Wallis, 1952), with "
        "mean ranks for ties."
    )


def _permutations(result: GroupComparison) -> str:
    within = f" within each {result.blocked_by} (Winkler et al., 2014)" if result.blocked_by else ""
    if result.is_exact:
        how = (
            f"p is the share of all {result.n_assignments:,} assignments of the groups{within} "
            "with as large a statistic or a larger one"
        )
    else:
        how = (
            f"p is (1 + b) / (1 + n), where b of n = {result.n_permutations:,} random assignments "
            f"of the groups{within} had as large a statistic or a larger one (Phipson and Smyth, "
            f"2010; seed {result.seed})"
        )
    missing = (
        " Units without a bout of a syllable had no duration, speed or turning of it, and were not "
        "in those tests."
        if (result.tests["n_units"].values < result.groups["n_units"].values.sum()).any()
        else ""
    )
    least = f"the smallest p that the design allows is {result.smallest_p:.2g}"
    return sentence(f"{how}; {least}") + missing


def _corrected(result: GroupComparison) -> str:
    several = result.tests.sizes["statistic"] > 1
    across = ", and over those of all statistics (q across)" if several else ""
    return (
        "q is p adjusted by the method of Benjamini and Hochberg (1995) over the syllables of a "
        f"statistic{across}."
    )


def _pairwise(result: GroupComparison) -> str:
    resampled = f"whole {plural(result.blocked_by)}" if result.blocked_by else (
        f"{plural(result.unit)} within groups"
    )  # fmt: skip
    effects = (
        "Effect sizes are ε² (share of the variance of the ranks) over all groups, and for two "
        "groups the difference of their means and the rank-biserial correlation, with 95 % "
        f"expanded percentile intervals (Hesterberg, 2015) of {result.n_bootstrap:,} bootstrap "
        f"samples of {resampled}."
    )
    if result.groups.sizes["group"] < 3:
        return effects
    return (
        "Each two groups were compared by the statistic of Dunn (1964), its p by assignments of "
        "the groups among the units of these two alone, adjusted over all syllables and pairs of a "
        f"statistic. {effects}"
    )


def _transitions(result: GroupComparison) -> str:
    if result.transitions is None:
        return ""
    n = int(np.isfinite(result.transitions["p"].values).sum())
    return (
        "Which syllable follows which was compared in one test of the square roots of the shares "
        "of changes that go from a syllable to each other one (pseudo-F, Anderson, 2001; same "
        f"assignments), and in one Kruskal-Wallis test for each of the {n} changes with 1 % of the "
        "changes from their syllable or more, adjusted over these."
    )


def _classified(result: GroupComparison) -> str:
    left_out = result.blocked_by or result.unit
    return (
        "Groups were told from usage by the nearest mean of square roots of frequencies, in the "
        f"metric of their shrunk covariance, of all but the {left_out} that was classified; its "
        "balanced accuracy was compared with that after the same assignments of the groups."
    )


def _chains(result: GroupComparison) -> str:
    if "n_chains" not in result.tests:
        return ""
    n = int(result.tests["n_chains_tested"].values.max(initial=0))
    return (
        f"Every difference was tested again in each of {counted(n, 'chain')} of the ensemble, in "
        "which it was taken to hold where p was 0.05 or less and the same groups had the largest "
        "and the smallest mean."
    )


def _joined(texts: list[str]) -> str:
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last
