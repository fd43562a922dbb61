"""Votes of members for the label of every frame, whoever they are, and the labels made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kpms_zarr.compute.analysis.agreement import contingency, jaccard
from kpms_zarr.compute.analysis.partition import Votes
from kpms_zarr.compute.analysis.patterns import Patterns, patterns_of_blocks
from kpms_zarr.compute.analysis.smoothing import BLOCK_FRAMES, best_path, scores_of
from kpms_zarr.compute.sampler.bouts import Labelled
from kpms_zarr.compute.sampler.certainty import CertaintyCounts, in_steps
from kpms_zarr.compute.sampler.chain import NO_STATE, ChainIndex
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK

_TUNING_FRAMES = 300_000
"""Of the sessions by which the price of a change is found."""


@dataclass(frozen=True)
class MemberVotes:
    """Labels that members give to the frames of some sessions, and those that are made of them.

    Attributes
    ----------
    chain : Labelled
        Has the labels that are made of them, laid end to end.
    """

    chain: Labelled

    def read(self, start: int, stop: int, members: np.ndarray | None = None) -> np.ndarray:
        """Read labels of members: (frame, member) int16; -1 = none.

        Parameters
        ----------
        start, stop : int
            Frames of all sessions, end to end.
        members : ndarray, optional
            Places of some of them (default: all).
        """
        raise NotImplementedError

    @property
    def rows(self) -> list[int]:
        """Sessions that have labels."""
        return [int(row) for row in np.flatnonzero(self.chain.index.n_modelled > 0)]

    def of_chain(self, row: int) -> np.ndarray:
        """Labels of the chain of the modelled frames of a session: (frame,) int16."""
        index = self.chain.index
        first, stop = int(index.first[row]), int(index.first[row] + index.length[row])
        return np.array(self.chain.syllable[first + index.lags : stop])

    def frames(self, n: int) -> np.ndarray:
        """Count the modelled frames of each of ``n`` labels of the chain: (label,) int64."""
        found = np.zeros(n, np.int64)
        for row in self.rows:
            z = self.of_chain(row)
            found += np.bincount(z[z >= 0], minlength=n)
        return found

    def patterns(self) -> Patterns:
        """Patterns of the labels of all modelled frames."""
        return patterns_of_blocks(block for row in self.rows for block in self.blocks(row))

    def blocks(self, row: int, members: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Labels of the modelled frames of a session, (frame, member), block by block."""
        index = self.chain.index
        first, stop = int(index.first[row]), int(index.first[row] + index.length[row])
        for start in range(first + index.lags, stop, BLOCK_FRAMES):
            yield self.read(start, min(start + BLOCK_FRAMES, stop), members)


@dataclass(frozen=True)
class Ballot:
    """How the labels of members become those that are published.

    Attributes
    ----------
    votes : Votes
    price : float
        Of a change of label, in nat.
    """

    votes: Votes
    price: float

    def of_session(
        self, labels: MemberVotes, row: int, members: np.ndarray | None = None
    ) -> np.ndarray:
        """Labels of the modelled frames of a session, (frame,) int16; -1 where no member has one.

        ``members``: to which of them the rows of the votes belong (default: all).
        """
        silent: list[np.ndarray] = [np.zeros(0, bool)]

        def scores() -> Iterator[np.ndarray]:
            for block in labels.blocks(row, members):
                silent.append(np.asarray((block < 0).all(1)))
                yield scores_of(self.votes.shares(block))

        found = best_path(scores(), self.price)
        found[np.concatenate(silent)] = NO_STATE
        return found

    def label(self, labels: MemberVotes, members: np.ndarray | None = None) -> None:
        """Give every modelled frame of the chain its label; ``members``: as above."""
        chain = labels.chain
        for row in labels.rows:
            begin = int(chain.index.first[row]) + chain.index.lags
            found = self.of_session(labels, row, members)
            for start in range(0, len(found), LABEL_FRAMES_PER_CHUNK):
                part = found[start : start + LABEL_FRAMES_PER_CHUNK]
                chain.syllable[begin + start : begin + start + len(part)] = part


def tuning_rows(index: ChainIndex) -> np.ndarray:
    """Sessions by which the price of a change is found: evenly over all, as many as are needed."""
    n_frames = index.n_modelled
    rows = np.flatnonzero(n_frames > 0)
    order = np.random.default_rng(0).permutation(rows)
    taken = np.cumsum(n_frames[order]) - n_frames[order] < _TUNING_FRAMES
    return np.sort(order[taken])


class VoteCertainty(CertaintyCounts):
    """Share of the votes that the label of a frame has, and the next one; session after session.

    Calibrated by as many members as there are: that another ensemble gives the frame a matching
    label is as probable (docs/replicability.md).

    Parameters
    ----------
    labels : MemberVotes
        Of a chain whose labels are those of the ballot.
    votes : Votes
    members : ndarray, optional
        To which of them the rows of the votes belong (default: all).
    """

    def __init__(
        self, labels: MemberVotes, votes: Votes, members: np.ndarray | None = None
    ) -> None:
        super().__init__(max(2, votes.n_syllables))
        self._labels, self._votes, self._members = labels, votes, members

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield what is published of each session: arrays (frame,) by name."""
        chain = self._labels.chain
        index = chain.index
        for row, (first, length) in enumerate(zip(index.first, index.length, strict=True)):
            certainty = np.full(int(length), np.nan, np.float16)
            second = np.full(int(length), NO_STATE, np.int16)
            second_certainty = np.full(int(length), np.nan, np.float16)
            done = index.lags
            for block in self._labels.blocks(row, self._members):
                some = slice(done, done + len(block))
                label = np.asarray(chain.syllable[int(first) + done : int(first) + some.stop])
                done = some.stop
                found = _choices(self._votes.shares(block), label)
                certainty[some], second[some], second_certainty[some] = found
            yield {
                "certainty": certainty,
                "second_syllable": second,
                "second_certainty": second_certainty,
            }


def _choices(share: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of the label, the most voted other one, and its share; none where nobody votes."""
    frame = np.arange(len(label))
    of_label = share[frame, label]
    rest = share.copy()
    rest[frame, label] = 0
    second = rest.argmax(1)
    of_second = rest[frame, second]
    has_votes = share.any(1)
    return (
        np.where(has_votes, in_steps(of_label), np.float16(np.nan)),
        np.where(of_second > 0, second, NO_STATE).astype(np.int16),
        np.where(has_votes, in_steps(of_second), np.float16(np.nan)),
    )


def overlap_of(labels: MemberVotes, members: np.ndarray) -> list[np.ndarray]:
    """Frames by label of the chain and by state of each member: (label, state) int64 each."""
    tables = [np.zeros((0, 0), np.int64) for _ in members]
    for row in labels.rows:
        found, done = labels.of_chain(row), 0
        for block in labels.blocks(row, members):
            own = found[done : done + len(block)]
            done += len(block)
            tables = [
                add_tables(table, contingency(own, states))
                for table, states in zip(tables, block.T, strict=True)
            ]
    return tables


def best_jaccard(table: np.ndarray, n: int) -> np.ndarray:
    """Largest Jaccard index of each of ``n`` labels with any of the columns: (label,)."""
    found = np.zeros(n)
    if table.size:
        found[: len(table)] = jaccard(table).max(1)
    return found


def add_tables(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Add tables of which each has room for the labels that it met."""
    total = np.zeros(np.maximum(one.shape, two.shape), np.int64)
    for table in (one, two):
        total[tuple(slice(n) for n in table.shape)] += table
    return total
