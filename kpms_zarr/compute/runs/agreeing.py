"""Syllables on which members agree, by their votes alone, and how far halves of them do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.partition import Votes, vote
from kpms_zarr.compute.analysis.patterns import Patterns
from kpms_zarr.compute.analysis.smoothing import price_for
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.runs.ballots import (
    Ballot,
    MemberVotes,
    add_tables,
    best_jaccard,
    overlap_of,
    tuning_rows,
)
from kpms_zarr.compute.sampler.chain import NO_STATE
from kpms_zarr.store.run_lengths import run_bounds

LEAST_FOR_HALVES = 4
"""Members of which halves are compared."""
_PATTERNS_AT_ONCE = 65_536


@dataclass(frozen=True)
class _Levels:
    """Syllables that some members agree on, and families of these.

    Attributes
    ----------
    places : ndarray
        Of the members.
    family : ndarray or None, (syllable,) int16
    """

    places: np.ndarray
    ballot: Ballot
    family: np.ndarray | None

    def of_session(self, labels: MemberVotes, row: int) -> np.ndarray:
        """Syllables of the modelled frames of a session: (frame,) int16."""
        return self.ballot.of_session(labels, row, self.places)


@dataclass(frozen=True)
class HalfAgreement:
    """Agreement of what two halves of something end in, which share nothing but the data.

    Attributes
    ----------
    jaccard : ndarray, (syllable,)
        Of each syllable of the whole, with those of either half that are nearest to it: the least
        of the Jaccard indices of the three with each other.
    rand_index, matched_share, effective_number : float
    family_rand_index, family_effective_number : float
    """

    jaccard: np.ndarray
    rand_index: float = float("nan")
    matched_share: float = float("nan")
    effective_number: float = float("nan")
    family_rand_index: float = float("nan")
    family_effective_number: float = float("nan")

    def to_attrs(self, name: str, family: str) -> dict[str, float]:
        """Attributes that say how far halves agree, of syllables and of families."""
        return {
            f"{name}_rand_index": self.rand_index,
            f"{name}_matched_share": self.matched_share,
            f"{name}_effective_number": self.effective_number,
            f"{family}_rand_index": self.family_rand_index,
            f"{family}_effective_number": self.family_effective_number,
        }


@dataclass(frozen=True)
class MemberAgreement:
    """What members agree on, and how far.

    Attributes
    ----------
    ballot : Ballot
        Its syllables are numbered by frequency.
    family : ndarray or None, (syllable,) int16
        Coarser groups; None where nothing says which states of a member are one.
    jaccard : ndarray, (syllable,)
        Mean over the members of the best Jaccard index with one of their states.
    of_members : HalfAgreement
        Of the consensus of the even and of the odd members.
    of_sessions : HalfAgreement or None
        Of the consensus of members fitted to one half of the sessions, and to the other.
    """

    ballot: Ballot
    family: np.ndarray | None
    jaccard: np.ndarray
    of_members: HalfAgreement
    of_sessions: HalfAgreement | None


def agree(
    labels: MemberVotes,
    merged: Sequence[np.ndarray] | None,
    groups: Sequence[np.ndarray],
    target: float,
    notify: Callback,
) -> MemberAgreement:
    """Label all frames as their members agree, and find how far halves of these do.

    Parameters
    ----------
    labels : MemberVotes
        Its chain has the labels afterwards.
    merged : sequence of ndarray, (state,), or None
        Of each member: the state that evidence makes of each of its states. None: there are no
        families.
    groups : sequence of ndarray
        Places of the members, and of those that were fitted to halves of the sessions.
    target : float
        Median bout, in ms.
    """
    every = labels.patterns()
    if every.n_dropped:
        share = every.n_dropped / max(1, labels.chain.index.n_modelled.sum())
        notify(Noted(f"{share:.1%} of the frames, whose labels are rare, only count by the votes"))
    places = groups[0]
    votes = vote(every.only(places))
    ballot = Ballot(votes, _price(labels, places, votes, target))
    ballot.label(labels, places)
    # By frequency, before anything else: between equal votes the lower number wins.
    frames = labels.frames(max(1, votes.n_syllables))
    number = np.empty(len(frames), np.int64)
    number[np.argsort(-frames, kind="stable")] = np.arange(len(frames))
    ballot = Ballot(votes.renumbered(number), ballot.price)
    ballot.label(labels, places)
    family = _families(every.only(places), ballot.votes, merged, places)
    n = ballot.votes.n_syllables
    own = np.mean([best_jaccard(table, n) for table in overlap_of(labels, places)], axis=0)

    def levels(which: np.ndarray) -> _Levels:
        patterns = every.only(which)
        found = vote(patterns)
        of_state = _families(patterns, found, merged, which)
        return _Levels(which, Ballot(found, ballot.price), of_state)

    unknown = HalfAgreement(np.full(n, np.nan))
    by_members = unknown
    if len(places) >= LEAST_FOR_HALVES:
        by_members = _compare(labels, n, levels(places[0::2]), levels(places[1::2]))
    by_sessions = None
    if len(groups) > 1:
        by_sessions = _compare(labels, n, levels(groups[1]), levels(groups[2]))
    return MemberAgreement(ballot, family, own, by_members, by_sessions)


def _families(
    patterns: Patterns, votes: Votes, merged: Sequence[np.ndarray] | None, places: np.ndarray
) -> np.ndarray | None:
    """Family of each syllable, (syllable,) int16, the most frequent family first.

    Families are what members agree on once each has merged its states by evidence; a syllable
    belongs to that in which most of its frames are.
    """
    if merged is None:
        return None
    targets, label = [merged[place] for place in places], patterns.label.copy()
    for column, target in enumerate(targets):
        label[:, column] = np.append(target, NO_STATE)[label[:, column]]
    usage = tuple(
        np.bincount(target[: len(frames)], weights=frames).astype(np.int64)
        for target, frames in zip(targets, patterns.usage, strict=True)
    )
    coarse = patterns._replace(label=label, usage=usage)
    of_coarse = vote(coarse)
    table = np.zeros((votes.n_syllables, max(1, of_coarse.n_syllables)))
    for start in range(0, len(label), _PATTERNS_AT_ONCE):
        some = slice(start, start + _PATTERNS_AT_ONCE)
        share = votes.shares(patterns.label[some])
        if not share.size:
            continue
        weight = patterns.n_frames[some, None] * of_coarse.shares(label[some])
        np.add.at(table, share.argmax(1), weight)
    family = table.argmax(1)
    frames = np.bincount(family, weights=table.sum(1), minlength=table.shape[1])
    number = np.empty(len(frames), np.int64)
    number[np.argsort(-frames, kind="stable")] = np.arange(len(frames))
    return np.asarray(number[family], np.int16)


def _compare(labels: MemberVotes, n: int, one: _Levels, two: _Levels) -> HalfAgreement:
    """Compare what two halves end in, and both with the labels of all; ``n``: syllables."""
    shape = (one.ballot.votes.n_syllables, two.ballot.votes.n_syllables)
    with_one, with_two = (np.zeros((n, m), np.int64) for m in shape)
    between = np.zeros(shape, np.int64)
    for row in labels.rows:
        z = labels.of_chain(row)
        a, b = (half.of_session(labels, row) for half in (one, two))
        with_one = add_tables(with_one, agreement.contingency(z, a))
        with_two = add_tables(with_two, agreement.contingency(z, b))
        between = add_tables(between, agreement.contingency(a, b))
    matched = agreement.match_syllables(between)
    to_one, to_two = (agreement.jaccard(table) for table in (with_one, with_two))
    first, second = to_one.argmax(1), to_two.argmax(1)
    alike = np.minimum(to_one.max(1), to_two.max(1))
    of_families: dict[str, float] = {}
    if one.family is not None and two.family is not None:
        families = np.zeros((one.family.max() + 1, two.family.max() + 1), np.int64)
        np.add.at(families, (one.family[:, None], two.family[None]), between)
        of_families = {
            "family_rand_index": agreement.rand_index_of(families),
            "family_effective_number": _effective(families),
        }
    return HalfAgreement(
        np.minimum(alike, agreement.jaccard(between)[first, second]),
        agreement.rand_index_of(between),
        agreement.matched_frames(between, matched) / max(1, int(between.sum())),
        _effective(between),
        **of_families,
    )


def _effective(table: np.ndarray) -> float:
    """Effective number of the labels of a table, the mean of its two sides."""
    return float(np.mean([agreement.effective_number(table.sum(axis)) for axis in (0, 1)]))


def _price(labels: MemberVotes, places: np.ndarray, votes: Votes, target: float) -> float:
    """Price of a change of label at which the median bout is as long as asked for, in ms."""
    index = labels.chain.index
    rows = tuning_rows(index)

    def median_bout(price: float) -> float:
        ballot, lengths = Ballot(votes, price), []
        for row in rows:
            z = ballot.of_session(labels, int(row), places)
            start, stop = run_bounds(z)
            lengths.append((stop - start)[z[start] >= 0] * 1000 / index.sessions[row].fps)
        every = np.concatenate(lengths)
        return float(np.median(every)) if every.size else float("inf")

    return price_for(median_bout, target)
