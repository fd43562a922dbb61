"""Partition of the frames that is nearest to several labellings at once, and its votes.

Labellings of the same frames, such as those of chains with other seeds, number and cut syllables
differently. The partition of least expected variation of information lies nearest to all of them
(Wade and Ghahramani, Bayesian Analysis 13:559, 2018; search by single moves as in SALSO: Dahl,
Johnson and Müller, J. Comput. Graph. Stat. 31:1189, 2022). It says which states of which labelling
are one syllable; each labelling then has one vote for the syllable of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from kpms_zarr.compute.analysis.patterns import Patterns

LEAST_STATE = 0.002
"""States with a smaller share of the frames of a labelling have no vote."""
LEAST_SYLLABLE = 0.003
"""Syllables that win fewer of the frames are dropped."""
MOST_SYLLABLES = 60
MOST_ITEMS = 100_000
"""Patterns that take part in the search, those of most frames."""

_CUTS = (12, 20, 40)
"""Clusters of states that searches begin with."""
_ROUNDS = 30
_MOVED = 1e-4
"""A search ends when no larger share of the patterns moves in a round."""


class Votes(NamedTuple):
    """For which syllable the states of labellings vote.

    Attributes
    ----------
    syllable : ndarray, (labelling, state) int16
        -1 = no vote.
    n_syllables : int
    """

    syllable: np.ndarray
    n_syllables: int

    def shares(self, label: np.ndarray) -> np.ndarray:
        """Share of the votes that each syllable has: (frame, syllable) float32.

        Rows sum up to 1 where any labelling votes, else they are 0.

        Parameters
        ----------
        label : ndarray, (frame, labelling) int
        """
        n_frames = len(label)
        found = np.zeros((n_frames, self.n_syllables), np.float32)
        frame = np.arange(n_frames)
        width = self.syllable.shape[1]
        if not (width and self.n_syllables):
            return found
        for column, syllable in zip(label.T, self.syllable, strict=True):
            known = (column >= 0) & (column < width)
            vote = np.where(known, syllable[np.where(known, column, 0)], -1)
            votes = vote >= 0
            found[frame[votes], vote[votes]] += 1
        total = found.sum(1, keepdims=True)
        return np.divide(found, total, out=found, where=total > 0)

    def renumbered(self, number: np.ndarray) -> Votes:
        """Votes for other numbers; ``number``: (syllable,) int, -1 = dropped."""
        new = np.append(number, -1)[self.syllable].astype(np.int16)
        return Votes(new, int(number.max(initial=-1)) + 1)


def vote(patterns: Patterns) -> Votes:
    """Find the syllables on which labellings agree best, most frequent first.

    How many there are follows from the labellings. Frames whose pattern is too rare to take part
    in the search still count by the votes.

    Parameters
    ----------
    patterns : Patterns
        Of two labellings or more.
    """
    nodes, width = _nodes(patterns)
    n_nodes = int(nodes.max(initial=-1)) + 1
    if n_nodes == 0:
        return Votes(np.full(width, -1, np.int16), 0)
    heaviest = np.sort(np.argsort(-patterns.n_frames, kind="stable")[:MOST_ITEMS])
    item, weight = nodes[heaviest], patterns.n_frames[heaviest].astype(np.float64)
    order = np.random.default_rng(0).permutation(len(item))
    found = [
        least_variation(item, weight, start, order, n_nodes)
        for start in first_partitions(item, weight, n_nodes)
    ]
    cluster = min(found, key=lambda one: one[1])[0]
    votes = _votes(patterns, nodes, item, weight, cluster, n_nodes)
    # Syllables that hardly ever win go, and with them the votes for them.
    wins = _wins(votes, patterns)
    order = np.argsort(-wins, kind="stable")
    order = order[wins[order] >= max(1, LEAST_SYLLABLE * wins.sum())]
    number = np.full(votes.n_syllables, -1, np.int64)
    number[order] = np.arange(len(order))
    return votes.renumbered(number)


def _nodes(patterns: Patterns) -> tuple[np.ndarray, tuple[int, int]]:
    """Number the frequent states of all labellings: (pattern, labelling), -1 = none; shape of
    a table of all states."""
    n_labellings = patterns.label.shape[1]
    width = max((len(usage) for usage in patterns.usage), default=0)
    nodes, n_nodes = np.full(patterns.label.shape, -1, np.int32), 0
    for column, usage in enumerate(patterns.usage):
        frequent = np.flatnonzero(usage > LEAST_STATE * usage.sum())
        number = np.full(width + 1, -1, np.int32)
        number[frequent] = n_nodes + np.arange(len(frequent))
        n_nodes += len(frequent)
        nodes[:, column] = number[patterns.label[:, column]]
    return nodes, (n_labellings, width)


def first_partitions(item: np.ndarray, weight: np.ndarray, n_nodes: int) -> Iterator[np.ndarray]:
    """Yield clusters of items to begin with, (item,), by states with similar company.

    States are clustered by Ward's method on the distance of Hellinger between the rows of the
    table of how often two states occur together; an item has the cluster of most of its states.

    Parameters
    ----------
    item : ndarray, (item, labelling) int
        States, numbered over all labellings; -1 = none.
    weight : ndarray, (item,)
    """
    table = np.zeros((n_nodes, n_nodes))
    for a in item.T:
        for b in item.T:
            both = (a >= 0) & (b >= 0)
            np.add.at(table, (a[both], b[both]), weight[both])
    if n_nodes == 1:
        yield np.zeros(len(item), np.int64)
        return
    profile = np.sqrt(table / np.maximum(1, table.sum(1, keepdims=True)))
    distance = np.sqrt(np.maximum(0, 1 - profile @ profile.T))
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "ward")
    for n in _CUTS:
        cluster = fcluster(tree, n, "maxclust") - 1
        counts = np.zeros((len(item), int(cluster.max()) + 1), np.int32)
        for states in item.T:
            there = np.flatnonzero(states >= 0)
            counts[there, cluster[states[there]]] += 1
        yield counts.argmax(1)


def least_variation(
    item: np.ndarray, weight: np.ndarray, start: np.ndarray, order: np.ndarray, n_nodes: int
) -> tuple[np.ndarray, float]:
    """Move items one at a time to the cluster of least expected variation of information.

    With n_k the weight of cluster k and n_rjk that of cluster k and state j of labelling r,
    R n E[VI] = R sum_k n_k ln n_k - 2 sum_rjk n_rjk ln n_rjk + constant.

    Parameters
    ----------
    item : ndarray, (item, labelling) int
        States, numbered over all labellings; -1 = none.
    weight : ndarray, (item,)
    start : ndarray, (item,) int
        First clusters.
    order : ndarray, (item,) int
        In which items are looked at.

    Returns
    -------
    tuple
        Clusters, (item,) int64, and R n E[VI] but for the constant.
    """
    with jax.enable_x64(True):  # sums of millions of frames, of which single frames are taken
        states = jnp.asarray(np.where(item < 0, n_nodes, item), jnp.int32)
        given = jnp.asarray(weight, jnp.float64)
        cluster = jnp.asarray(np.minimum(start, MOST_SYLLABLES - 1), jnp.int32)
        table, total = _tables(states, given, cluster, n_nodes)
        for _ in range(_ROUNDS):
            cluster, table, total, n_moved = _round(
                states, given, cluster, table, total, jnp.asarray(order)
            )
            if int(n_moved) <= _MOVED * len(item):
                break
        value = item.shape[1] * _entropy(total).sum() - 2 * _entropy(table[:-1]).sum()
        return np.asarray(cluster, np.int64), float(value)


def _entropy(n: jax.Array) -> jax.Array:
    return jnp.where(n > 0, n * jnp.log(jnp.where(n > 0, n, 1)), 0)


@partial(jax.jit, static_argnames="n_nodes")
def _tables(
    states: jax.Array, weight: jax.Array, cluster: jax.Array, n_nodes: int
) -> tuple[jax.Array, jax.Array]:
    """Weights by (state, cluster), with a last row for no state, and by (cluster,)."""
    by_cluster = jnp.zeros(MOST_SYLLABLES, weight.dtype).at[cluster].add(weight)
    table = jnp.zeros((n_nodes + 1, MOST_SYLLABLES), weight.dtype)
    return table.at[states, cluster[:, None]].add(weight[:, None]), by_cluster


@jax.jit
def _round(
    states: jax.Array,
    weight: jax.Array,
    cluster: jax.Array,
    table: jax.Array,
    total: jax.Array,
    order: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Look at every item once; returns clusters, tables and how many items moved."""
    none, n_labellings = table.shape[0] - 1, states.shape[1]

    def move(s: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        cluster, table, total, n_moved = carry
        one, w, before = states[order[s]], weight[order[s]], cluster[order[s]]
        total = total.at[before].add(-w)
        table = table.at[one, before].add(-w)
        rows = table[one]
        gain = jnp.where((one < none)[:, None], _entropy(rows + w) - _entropy(rows), 0).sum(0)
        cost = n_labellings * (_entropy(total + w) - _entropy(total)) - 2 * gain
        best = jnp.argmin(cost).astype(cluster.dtype)
        return (
            cluster.at[order[s]].set(best),
            table.at[one, best].add(w),
            total.at[best].add(w),
            n_moved + (best != before),
        )

    first = (cluster, table, total, jnp.zeros((), jnp.int32))
    found = jax.lax.fori_loop(0, len(order), move, first)
    return found[0], found[1], found[2], found[3]


def _votes(
    patterns: Patterns,
    nodes: np.ndarray,
    item: np.ndarray,
    weight: np.ndarray,
    cluster: np.ndarray,
    n_nodes: int,
) -> Votes:
    """Each state votes for the cluster in which it has most frames."""
    distinct, cluster = np.unique(cluster, return_inverse=True)
    table = np.zeros((n_nodes, len(distinct)))
    for column in item.T:
        there = column >= 0
        np.add.at(table, (column[there], cluster[there]), weight[there])
    of_node = table.argmax(1)
    width = max(len(usage) for usage in patterns.usage)
    found = np.full((patterns.label.shape[1], width), -1, np.int16)
    for row, (states, names) in enumerate(zip(patterns.label.T, nodes.T, strict=True)):
        there = names >= 0
        found[row, states[there]] = of_node[names[there]]
    return Votes(found, len(distinct))


def _wins(votes: Votes, patterns: Patterns) -> np.ndarray:
    """Frames in which each syllable has most votes, those of equals shared: (syllable,)."""
    wins = np.zeros(votes.n_syllables)
    for start in range(0, len(patterns.label), 65_536):
        some = slice(start, start + 65_536)
        share = votes.shares(patterns.label[some])
        is_top = (share == share.max(1, keepdims=True)) & (share > 0)
        n_top = np.maximum(1, is_top.sum(1))
        wins += (patterns.n_frames[some] / n_top) @ is_top
    return wins
