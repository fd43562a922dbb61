"""Which syllables become one: groups that a person gives, families, or what evidence says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kpms_zarr.compute.kernels.evidence import log_evidence, merge_states, pooled
from kpms_zarr.compute.runs.hierarchy.label_sums import LabelSums
from kpms_zarr.compute.runs.hierarchy.posed_frames import PosedFrames
from kpms_zarr.compute.runs.hierarchy.similarity import reference_of
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.wording import call, listed

Groups = str | Sequence[Sequence[int]]
_GROUP = re.compile(r"\s*\d+\s*(,\s*\d+\s*)*")


@dataclass(frozen=True)
class Grouping:
    """Syllables that become one, of a version of labels.

    Attributes
    ----------
    target : ndarray, (state,) int64
        Syllable that each becomes, in the numbers of the version: of a group the most frequent one.
    number : ndarray, (state,) int64
        Number of each in the labels that are merged; the others of a group have that of its target.
    own : ndarray, (state,) int64
        A number for each state, those that are gone included: a permutation of all.
    """

    target: np.ndarray
    number: np.ndarray
    own: np.ndarray

    @classmethod
    def of(
        cls, groups: Iterable[Sequence[int]], n_frames: np.ndarray, *, keeps_numbers: bool = False
    ) -> Grouping:
        """Number what groups leave by frequency, as fits do.

        Parameters
        ----------
        groups : iterable of sequence of int
            Disjoint.
        n_frames : ndarray, (state,)
            Frames of each state; the lower number wins where they are equal.
        keeps_numbers : bool
            Whether syllables keep their numbers, as those of other packages do; a group then has
            that of its most frequent syllable.
        """
        target, frames = np.arange(len(n_frames)), np.array(n_frames)
        for group in groups:
            members = np.unique(np.asarray(group, np.int64))
            stays = members[np.argmax(n_frames[members])]
            target[members] = stays
            total = frames[members].sum()
            frames[members] = 0
            frames[stays] = total
        own = np.arange(len(frames))
        if not keeps_numbers:
            own[np.argsort(-frames, kind="stable")] = np.arange(len(frames))
        return cls(target, own[target], own)

    @classmethod
    def of_numbers(cls, number: np.ndarray, own: np.ndarray) -> Grouping:
        """Grouping by the numbers that it has given, see :class:`Grouping`."""
        return cls(np.argsort(own)[number], np.asarray(number), np.asarray(own))

    @property
    def is_gone(self) -> np.ndarray:
        """Whether another syllable has taken the frames of a state: (state,) bool."""
        return np.asarray(self.target != np.arange(len(self.target)))

    def then(self, other: Grouping) -> Grouping:
        """Both merges, this one first, as one of the labels before both."""
        # Of the states that become one, the first merge names the target; where the second joins
        # several of these, its own.
        back = np.argsort(self.own)
        target = back[other.target[self.own[self.target]]]
        return Grouping(target, other.number[self.number], other.own[self.own])

    def groups(self, n_frames: np.ndarray) -> tuple[tuple[int, ...], ...]:
        """Groups of two or more, syllables of each the most frequent first, by their new number."""
        found = []
        for stays in np.flatnonzero(np.bincount(self.target, minlength=len(self.target)) > 1):
            members = np.flatnonzero(self.target == stays)
            members = members[np.argsort(-n_frames[members], kind="stable")]
            found.append(tuple(int(one) for one in members))
        return tuple(sorted(found, key=lambda group: int(self.number[group[0]])))


# ------------------------------------------------------------------ groups of a person


def read_groups(
    groups: Groups, n_frames: np.ndarray, store: StoreLike, model: str, version: str
) -> list[list[int]]:
    """Check groups of syllables: ``"1,5;3,14"``, or a sequence of sequences of numbers.

    Parameters
    ----------
    n_frames : ndarray, (state,)
        Frames of each syllable.

    Raises
    ------
    InputError
        For text that is no such list, syllables that are not there or that no frame has, groups of
        one or that share a syllable; all that is wrong at once.
    """
    where = f"{os.fspath(store)}, model {model!r}, {version}, `groups=`"
    found = _parsed(groups, where)
    problems: list[Problem] = []
    listing = f"list them with: {call('summary', store, model=model)}"
    if not found:
        problems.append(
            Problem("groups of syllables, such as 1,5;3,14", "none", where, "name some")
        )
    every = [one for group in found for one in group]
    unknown = sorted({one for one in every if not 0 <= one < len(n_frames)})
    if unknown:
        expected = f"syllables from 0 to {len(n_frames) - 1}"
        problems.append(Problem(expected, listed(map(str, unknown)), where, listing))
    absent = sorted({one for one in every if one not in unknown and n_frames[one] == 0})
    if absent:
        what = f"{listed(map(str, absent))}, which no frame has"
        problems.append(Problem("syllables that occur", what, where, listing))
    for group in found:
        if len(set(group)) < 2:
            what = listed(map(str, group)) or "an empty group"
            fix = "name the syllables that become one with it, or leave the group out"
            problems.append(Problem("two syllables or more in a group", what, where, fix))
    twice = sorted({one for one in every if every.count(one) > 1})
    if twice:
        what = f"{listed(map(str, twice))} more than once"
        fix = "put all that become one into one group"
        problems.append(Problem("each syllable in one group", what, where, fix))
    if problems:
        raise InputError.of(problems)
    return found


def _parsed(groups: Groups, where: str) -> list[list[int]]:
    if isinstance(groups, str):
        parts = groups.split(";")
        odd = [part for part in parts if not _GROUP.fullmatch(part)]
        if odd:
            raise InputError(
                expected="numbers of syllables, groups apart by ';', such as 1,5;3,14",
                found=repr(groups),
                where=where,
                fix="write those that become one with ',' between them",
            )
        return [[int(one) for one in part.split(",")] for part in parts]
    try:
        found = [[int(one) for one in group] for group in groups]
        if all(value == one for group, ints in zip(groups, found, strict=True)
               for value, one in zip(group, ints, strict=True)):  # fmt: skip
            return found
    except (TypeError, ValueError):
        pass
    raise InputError(
        expected="a list of groups of syllables, such as [[1, 5], [3, 14]]",
        found=repr(groups),
        where=where,
        fix="write whole numbers",
    )


# ------------------------------------------------------------------ families


def family_groups(
    family: np.ndarray, n_frames: np.ndarray, store: StoreLike, model: str, version: str
) -> list[list[int]]:
    """Families of two syllables or more that occur.

    Parameters
    ----------
    family : ndarray, (state,) int
        -1 = none.
    n_frames : ndarray, (state,)

    Raises
    ------
    InputError
        When no syllable has a family.
    """
    occurs = (family >= 0) & (n_frames > 0)
    if not occurs.any():
        raise InputError(
            expected="families of syllables, as the ensembles of this package have",
            found="none",
            where=f"{os.fspath(store)}, model {model!r}, {version}",
            fix=f"fit one with {call('fit', store, model=model, chains=8)}, or name groups with "
            "`groups=`",
        )
    members = [np.flatnonzero(occurs & (family == one)) for one in np.unique(family[occurs])]
    return [[int(one) for one in group] for group in members if len(group) > 1]


# ------------------------------------------------------------------ evidence


def evidence_groups(frames: PosedFrames, sums: LabelSums, margin: float) -> list[list[int]]:
    """Groups that greedy merging by evidence ends in (model.md 3.9).

    Parameters
    ----------
    margin : float
        Gain, in nat, that a merge of two must exceed.
    """
    prior = frames.prior
    target = merge_states(
        sums.moments, reference_of(frames), sums.transitions, prior.dynamics, prior.transition,
        margin=margin,
    )  # fmt: skip
    members = [np.flatnonzero(target == one) for one in np.unique(target)]
    return [[int(one) for one in group] for group in members if len(group) > 1]


def log_bayes_factors(
    frames: PosedFrames, sums: LabelSums, groups: Sequence[Sequence[int]]
) -> list[float]:
    """Log Bayes factor, in nat, that all syllables of a group are one, each group alone.

    All other syllables stay as they are.
    """
    before = _evidence(frames, sums.moments, sums.transitions)
    found = []
    for group in groups:
        target = np.arange(len(sums.moments))
        target[list(group)] = group[0]
        moments = pooled(sums.moments, reference_of(frames), target)
        found.append(_evidence(frames, moments, _joined(sums.transitions, target)) - before)
    return found


def _evidence(frames: PosedFrames, moments: np.ndarray, transitions: np.ndarray) -> float:
    prior = frames.prior
    return sum(
        log_evidence(moments, reference_of(frames), transitions, prior.dynamics, prior.transition)
    )


def _joined(counts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Counts of pairs of states, (state, state), after each has become its target."""
    found = np.zeros_like(counts)
    np.add.at(found, (target[:, None], target), counts)
    return found


def n_left(groups: Sequence[Sequence[int]], n_frames: np.ndarray) -> int:
    """Count syllables that occur after merging."""
    return int((n_frames > 0).sum()) - sum(len(group) - 1 for group in groups)
