"""Consensus of labels that lie in files or arrays, such as those of another package's fits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.events import Callback, Noted, tell
from kpms_zarr.compute.mapreduce import weighted_median
from kpms_zarr.compute.runs.agreeing import LEAST_FOR_HALVES, MemberAgreement, agree
from kpms_zarr.compute.runs.ballots import MemberVotes, VoteCertainty, add_tables
from kpms_zarr.compute.runs.summaries import add_replicability, label_statistics
from kpms_zarr.compute.sampler.chain import NO_STATE, ChainIndex
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.label_sources import LabelsLike
from kpms_zarr.store.ingest.label_tables import (
    Rates,
    TableLabels,
    by_name,
    gaps_in_words,
    read_tables,
)
from kpms_zarr.store.ingest.label_writing import LabelledSession, check_labels_place, write_labels
from kpms_zarr.store.model.replicability import (
    Replicability,
    halves_in_words,
    interpreted_in_words,
    to_attrs,
)
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.store.wording import counted, listed

_NO_FPS = 1000.0
"""Frame rate at which durations in ms are durations in frames."""
_BY_FRAME = ("syllable", "certainty", "second_syllable", "second_certainty")


def consensus_of_labels(
    labels: Mapping[str, LabelsLike] | Sequence[LabelsLike],
    *,
    fps: Rates = None,
    target_duration: float | None = None,
    out: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
) -> xr.Dataset:
    """Find the labels on which several labellings agree, with neither a store nor a fit.

    What :func:`kpms_zarr.consensus` does with the labels of models: each labelling has one vote for
    the label of a frame, which of their labels are one syllable is the partition of least expected
    variation of information, labels are the best path through the votes, and the certainty of a
    label is its share of them. From four labellings on, halves of them are compared: how far
    syllables replicate.

    Labels lie in memory, 2 bytes for each frame and labelling, and some 20 for each frame of the
    longest session times the number of sessions.

    Parameters
    ----------
    labels : mapping of str to path or mapping, or sequence of these
        Two or more, such as fits with other seeds, by a name for each (default: those of the
        files). Each is a file or folder as :func:`kpms_zarr.compare` takes it, or arrays by
        session: csv or parquet with the columns ``session``, ``frame`` (either may be missing) and
        ``syllable`` (or ``label``, ``state``, ...), npz with an array for each session, ... Labels
        are whole numbers, in each labelling others; a negative one or none is no label: no vote. A
        frame in which no labelling has one has none. All must have the same sessions and
        frames.
    fps : float, or mapping of str to float, optional
        Frames per second, of all sessions or of each; without it, durations are in frames.
    target_duration : float, optional
        Median bout in ms, for which ``fps`` must be known (default: the mean of the labellings).
    out : path, optional
        A csv table of session, frame, syllable, certainty, second_syllable and second_certainty, or
        an npz: the labels of each session under its name, the others under ``NAME/certainty``, ...
    callbacks : sequence of callable
        Each is given the events of ``compute.events``: notes.

    Returns
    -------
    xarray.Dataset
        By (session, frame): ``syllable`` (-1 = none), ``certainty``, ``second_syllable``,
        ``second_certainty`` (NaN = nobody votes), ``frame_number`` where frames are not numbered
        from 0 on; ``n_frames`` by session. By ``state``, what :func:`kpms_zarr.summary` says of the
        syllables of a consensus. By ``member``: its ``member_effective_number``, ``member_n_used``,
        ``member_median_duration``, the adjusted Rand index with the consensus
        (``member_rand_index``) and with each other member (``pair_rand_index``), and for which
        syllable its labels vote (``member_number``, ``member_syllable``). Attributes: those of
        ``summary``, ``effective_number``, ``mean_certainty``, ``mean_pair_rand_index``,
        ``change_price``, ``duration_unit`` ("ms" or "frames"), ``notes``.

    Raises
    ------
    InputError
        For fewer than two labellings, a file that cannot be read, other sessions or frames in one
        than in another, or a place that cannot be written.
    """
    given = by_name(labels)
    _check(given, fps, target_duration)
    if out is not None:
        check_labels_place(out, given.values())
    messages: list[str] = []
    notify = partial(tell, callbacks, messages)
    votes, members = _gathered(given, fps, notify)
    names = [member.name for member in members]
    target = target_duration or float(np.mean([member.median_duration for member in members]))
    found = agree(votes, None, [np.arange(len(members))], target, notify)
    certainty = VoteCertainty(votes, found.ballot.votes)
    result = _of_frames(votes, certainty, members[-1].frames)
    _add_syllables(result, votes, found, certainty)
    _add_members(result, votes, found, members)
    tables = {pair: _crossed(votes, *pair) for pair in combinations(range(len(names)), 2)}
    index = np.eye(len(names))
    for (i, j), table in tables.items():
        index[i, j] = index[j, i] = agreement.rand_index_of(table)
    result["pair_rand_index"] = (("member", "member_other"), index)
    result = result.assign_coords(member=np.asarray(names, object))
    result.attrs |= {
        "mean_pair_rand_index": float(np.mean([index[pair] for pair in tables])),
        "change_price": found.ballot.price,
        "target_duration": target,
        "duration_unit": "frames" if fps is None else "ms",
        "notes": "\n".join(messages),
    }
    if out is not None:
        write_labels(out, _to_write(result, members[-1].frames))
    return result


def _check(labels: Mapping[str, LabelsLike], fps: Rates, target: float | None) -> None:
    if len(labels) < 2:
        raise InputError(
            expected="labels of two fits or more",
            found=listed(map(repr, labels)) or "none",
            where="`labels=`",
            fix="name the files of several fits, such as those with other seeds",
        )
    if target is not None and fps is None:
        raise InputError(
            expected="frames per second, for a median duration in ms",
            found="none",
            where="`target_duration=`",
            fix="give `fps=`, or leave the duration out: then it is the mean of the labellings",
        )
    if target is not None and not 0 < target < np.inf:
        raise InputError(
            expected="a duration above 0, in ms",
            found=f"{target:g}",
            where="`target_duration=`",
            fix="leave it out to have the mean of the labellings",
        )


# ------------------------------------------------------------------ the members


@dataclass(frozen=True)
class _FlatLabels:
    """Labels of sessions end to end: those that are agreed on; see ``Labelled``."""

    index: ChainIndex
    syllable: np.ndarray


@dataclass(frozen=True)
class _Columns(MemberVotes):
    """Labels of members in memory.

    Attributes
    ----------
    label : ndarray, (frame, member) int16
        Of all sessions end to end.
    """

    label: np.ndarray

    def read(self, start: int, stop: int, members: np.ndarray | None = None) -> np.ndarray:
        """Read labels: (frame, member) int16."""
        rows = self.label[start:stop]
        return rows if members is None else rows[:, members]


@dataclass(frozen=True)
class _Member:
    """What is kept of a labelling beside its labels.

    Attributes
    ----------
    numbers : ndarray, (label,)
        As its file has them.
    frames : tuple of range or ndarray, (frame,)
        Numbers of the frames of each session, in the order of the files.
    usage : ndarray, (label,)
        Frames of each.
    median_duration : float
        Of its bouts, in ms.
    """

    name: str
    numbers: np.ndarray
    frames: tuple[range | np.ndarray, ...]
    usage: np.ndarray
    median_duration: float


def _gathered(
    given: Mapping[str, LabelsLike], fps: Rates, notify: Callback
) -> tuple[_Columns, list[_Member]]:
    """Read one labelling after the other."""
    label = np.zeros((0, 0), np.int16)
    members: list[_Member] = []
    index = ChainIndex.of((), 0)
    table: TableLabels | None = None
    for place, table in enumerate(read_tables(given, fps, _NO_FPS)):
        index = ChainIndex.of(table.sessions, 0)  # which the last of them has named
        if not place:
            label = np.empty((index.n_frames, len(given)), np.int16)
        bouts = []
        for session, first in zip(index.sessions, index.first, strict=True):
            own = table.labels[session.index]
            label[first : first + len(own), place] = own
            start, stop = run_bounds(own)
            bouts.append((stop - start)[own[start] >= 0] * 1000 / session.fps)
        lengths = np.concatenate(bouts)
        usage = np.bincount(label[label[:, place] >= 0, place], minlength=len(table.numbers))
        median = weighted_median(lengths, np.ones(len(lengths), np.int64))
        members.append(_Member(table.name, table.numbers, table.frames, usage, median))
    assert table is not None
    for note in gaps_in_words(table):
        notify(Noted(note))
    chain = _FlatLabels(index, np.full(index.n_frames, NO_STATE, np.int16))
    return _Columns(chain, label), members


# ------------------------------------------------------------------ what is returned


def _order(votes: _Columns) -> list[int]:
    """Rows of the sessions in the order of the files."""
    sessions = votes.chain.index.sessions
    return sorted(range(len(sessions)), key=lambda row: sessions[row].index)


def _of_frames(
    votes: _Columns, certainty: VoteCertainty, frames: Sequence[range | np.ndarray]
) -> xr.Dataset:
    """Labels, certainties and second choices as a rectangle, in the order of the files."""
    index = votes.chain.index
    order = _order(votes)
    shape = (len(order), int(index.length.max(initial=0)))
    fill: dict[str, np.ndarray] = {
        name: np.full(shape, -1, np.int16)
        if name.endswith("syllable")
        else np.full(shape, np.nan, np.float32)
        for name in _BY_FRAME
    }
    for session, first, known in zip(index.sessions, index.first, certainty, strict=True):
        n = session.n_frames
        z = np.asarray(votes.chain.syllable[int(first) : int(first) + n])
        certainty.add(z, known["certainty"])
        for name, values in {"syllable": z, **known}.items():
            fill[name][session.index, :n] = values
    sessions = [index.sessions[row] for row in order]
    result = xr.Dataset(
        {name: (("session", "frame"), values) for name, values in fill.items()},
        {"session": np.asarray([session.name for session in sessions], object)},
    )
    result["n_frames"] = ("session", np.array([session.n_frames for session in sessions]))
    if any(not isinstance(one, range) or one != range(len(one)) for one in frames):
        number = np.full(shape, -1, np.int64)
        for row, one in enumerate(frames):
            number[row, : len(one)] = np.asarray(one)
        result["frame_number"] = (("session", "frame"), number)
    return result


def _add_syllables(
    result: xr.Dataset, votes: _Columns, found: MemberAgreement, certainty: VoteCertainty
) -> None:
    """Add what is known of each syllable, and of all of them."""
    n = found.ballot.votes.n_syllables
    statistics = label_statistics(votes.chain, n)
    for name in ("frequency", "n_bouts", "median_duration", "mean_duration"):
        result[name] = ("state", statistics[name])
    frames = votes.frames(n)
    result["mean_certainty"] = ("state", certainty.mean[:n])
    result["member_agreement"] = ("state", found.jaccard)
    result.attrs |= found.of_members.to_attrs("half", "family_half")
    known = xr.Dataset({"frequency": result["frequency"]}, attrs=result.attrs)
    known["replicability"] = ("state", found.of_members.jaccard)
    how_far = replace(Replicability.of(known), n_members=votes.label.shape[1])
    add_replicability(result, how_far)
    result.attrs = {
        "n_used": int((result["frequency"].values >= USED_FRACTION).sum()),
        "effective_number": agreement.effective_number(frames),
        "median_duration_overall": statistics["median_duration_overall"],
        "mean_certainty": float(np.nansum(certainty.mean[:n] * frames) / max(1, frames.sum())),
        **to_attrs(how_far),
        "replicability_in_words": "\n".join(_in_words(how_far)),
    }


def _in_words(found: Replicability) -> Iterable[str]:
    """What is known of how far syllables replicate, a line for each figure."""
    if found.is_known:
        return (*halves_in_words(found), interpreted_in_words(found))
    return (
        f"a consensus of {counted(found.n_members, 'labelling')} has no halves that could be "
        f"compared, for which it takes {LEAST_FOR_HALVES}: which syllables may be interpreted is "
        "not known",
    )


def _add_members(
    result: xr.Dataset, votes: _Columns, found: MemberAgreement, members: Sequence[_Member]
) -> None:
    """Add what is known of each labelling, and for what it votes."""
    of_member: dict[str, list[Any]] = {
        "member_effective_number": [agreement.effective_number(one.usage) for one in members],
        "member_n_used": [
            int((one.usage >= USED_FRACTION * one.usage.sum()).sum()) for one in members
        ],
        "member_median_duration": [one.median_duration for one in members],
        "member_rand_index": [
            agreement.rand_index_of(_crossed(votes, place)) for place in range(len(members))
        ],
    }
    for name, values in of_member.items():
        result[name] = ("member", np.array(values))
    voted = found.ballot.votes.syllable
    numbers = np.full(voted.shape, NO_STATE, np.int64)
    for place, one in enumerate(members):
        own = one.numbers[: voted.shape[1]]
        numbers[place, : len(own)] = own
    result["member_number"] = (("member", "member_label"), numbers)
    result["member_syllable"] = (("member", "member_label"), voted)


def _crossed(votes: _Columns, place: int, other: int | None = None) -> np.ndarray:
    """Frames by the labels of a member, and by those of another or the ones agreed on."""
    total = np.zeros((0, 0), np.int64)
    for row in votes.rows:
        found, done = votes.of_chain(row), 0
        for block in votes.blocks(row):
            own = found[done : done + len(block)] if other is None else block[:, other]
            done += len(block)
            total = add_tables(total, agreement.contingency(block[:, place], own))
    return total


def _to_write(
    result: xr.Dataset, frames: Sequence[range | np.ndarray]
) -> Iterator[LabelledSession]:
    for row, name in enumerate(result["session"].values):
        n = int(result["n_frames"].values[row])
        values = {one: result[one].values[row, :n] for one in _BY_FRAME}
        yield LabelledSession(str(name), frames[row], values)
