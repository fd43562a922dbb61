"""Label sessions with a model whose parameters stay as they are."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import (
    Callback,
    Noted,
    Published,
    tell,
)
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.hierarchy.merge import merge_again
from kpms_zarr.compute.runs.label_work import LabelBench, LabelWork, label_on_workers
from kpms_zarr.compute.runs.labelling import (
    DRAWS,
    MOST_STARTS,
)
from kpms_zarr.compute.runs.preparation import (
    check_length,
    prepare,
    settings_of_model,
)
from kpms_zarr.compute.runs.publish import (
    SECOND,
    add_levels,
    label_names,
)
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.written import WrittenLabels
from kpms_zarr.compute.sampler.certainty import CertaintyCounts
from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.compute.settings import check_sweeps
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.merges import MergeRecord, unmerged
from kpms_zarr.store.model.models import LabelWriter, copy_labels, require_model
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.selection import select_sessions

_NO_VOTES = (
    "not all models of the consensus label new sessions by their parameters: labelled by the "
    "parameters of the consensus instead of by votes"
)
_MERGED = "labelled by the syllables before they were merged ({0}), then merged as in {1}"


@dataclass(frozen=True)
class ApplySummary(ShownAsTable):
    """Result of :func:`apply`.

    Attributes
    ----------
    store, model, version : str
        The labels are in the group ``models/<model>/labels/<version>``.
    labelled : tuple of str
        Sessions that were labelled.
    n_frames : int
        Of these.
    sweeps : dict of str to int
        Session -> sweeps from all starts.
    settled : bool
        Whether all had, before the largest number of sweeps.
    again : tuple of str
        Of the labelled sessions, those of the fit.
    agreement : float
        Share of their frames that have the label of the fit; NaN without such sessions.
    own_agreement : float
        Share of their frames with the same label in the averages of two halves of the starts, which
        share nothing but the model: what agreement can be expected. NaN for one start, and for the
        votes of a consensus, in which nothing is drawn.
    as_new : str
        A session of the fit that was labelled as if the model had never seen it; "" for none.
    new_agreement, new_own_agreement : float
        The same two shares for that session: how much labels of new sessions are like those that
        a fit with them would have given.
    seconds : float
        Wall time.
    """

    store: str
    model: str
    version: str
    labelled: tuple[str, ...]
    n_frames: int
    sweeps: dict[str, int]
    settled: bool
    again: tuple[str, ...]
    agreement: float
    own_agreement: float
    as_new: str
    new_agreement: float
    new_own_agreement: float
    seconds: float
    notes: tuple[str, ...]


def apply(
    store: StoreLike,
    *,
    model: str,
    sessions: Sequence[str] | None = None,
    sweeps: int = 100,
    draw: bool = False,
    check: bool = True,
    budget: Budget | None = None,
    cluster: ClusterLike = None,
    callbacks: Sequence[Callback] = (),
) -> ApplySummary:
    """Label sessions with a fitted model, its parameters fixed, and publish a new version.

    The sampler is that of the fit. A session begins with its aligned pose and labels drawn from
    it, several times; the first time, one of the fit begins with its state in the fit. From each
    start it is swept until its labels change from sweep to sweep no less than before, and draws
    are kept. The label of a frame is the one that it has in most draws of all starts, its
    certainty the share of these. A session ends when averages of two halves of its starts agree in
    90 % of its frames, or after 8 starts. Its result does not depend on the sessions beside it, to
    the bit. With a consensus (:func:`kpms_zarr.consensus`) its members vote instead, in which
    nothing is drawn, and the pose is drawn given their labels. Sessions that are not labelled now
    keep their labels in the new version. Where syllables were merged, sessions are labelled by
    those before, and then merged in the same way.

    Parameters
    ----------
    store : path or URL
    model : str
    sessions : sequence of str, optional
        Names, patterns or ``coordinate=value``, see :attr:`FitConfig.sessions`; default: those
        without labels.
    sweeps : int
        At most, from one start, before draws are kept.
    draw : bool
        Publish one draw from one start, not an average.
    check : bool
        When there are new sessions, label one of the fit as if it were new, only to compare.
    budget : Budget, optional
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that label sessions, as of :func:`kpms_zarr.fit`; labels are the
        same to the bit.
    callbacks : sequence of callable
        Each is given the events of ``compute.events``.

    Returns
    -------
    ApplySummary

    Raises
    ------
    InputError
        When there is no such model or session, all sessions have labels and none was named, or no
        plan fits the budget.
    SamplingError
        When a draw has no finite result even in float64; nothing is published.
    """
    began = time.perf_counter()
    check_sweeps("sweeps", sweeps)
    budget = budget or Budget()
    root = access.open_group(store, "r+")
    messages: list[str] = []
    notify = partial(tell, callbacks, messages)
    require_model(store, model)  # the lock would make a group for any name
    with model_lock(root, store, model) as lock:
        start = StartModel.of(store, model)
        merged = start.version if MergeRecord.of(start.labels) is not None else ""
        if merged:
            start = StartModel.of(store, model, unmerged(store, model, merged))
            notify(Noted(_MERGED.format(start.version, merged)))
        # As the fit left it, whatever has been applied since.
        fitted = StartModel.of(store, model, str(start.labels.attrs["parameters"]))
        chosen = _chosen(root, store, start, sessions)
        again = tuple(session for session in chosen if session.name in fitted.sessions)
        as_new = _one_to_compare(root, fitted) if check and len(again) < len(chosen) else None
        every = (*chosen, as_new) if as_new is not None and as_new not in chosen else chosen
        every = tuple(sorted(every, key=lambda session: session.index))
        config = settings_of_model(start, every)
        voting = None if draw or fitted.members is None else fitted.members
        if voting is not None and not voting.are_applied:
            voting = None
            notify(Noted(_NO_VOTES))
        members = () if voting is None else voting.open(store)
        check_length(ChainIndex.of(chosen, config.lags), store, notify)
        with connected(cluster, partial(_say, notify)) as crew:
            if crew is not None:
                crew.workers()  # waits for the first, which Dask would do for ever
            with limit_workers(store, budget.host_memory, is_strict=False):
                preparation = prepare(store, config, fitted, notify)
            work = LabelWork(
                os.fspath(store), model, str(start.labels.attrs["parameters"]), preparation,
                config, sweeps, n_draws=len(members) or (0 if draw else MOST_STARTS * DRAWS),
                votes=bool(members), again=frozenset(session.name for session in again),
            )  # fmt: skip
            bench = LabelBench.of(work, members, fitted, budget, notify, lock)
            begin = partial(_begin, root, start, work, chosen)
            if crew is None:
                writer, found = bench.label(chosen, begin)
            else:
                writer, found = label_on_workers(crew, work, chosen, begin, notify, lock)
        variables = writer.names
        copy_labels(
            root, start.name, start.version, writer, variables,
            without={session.name for session in chosen},
        )  # fmt: skip
        # Only then published: what stops it here publishes nothing.
        like_new = bench.of_a_new_session(as_new)
        settings = {
            **config.to_dict(), "sessions": [session.name for session in chosen],
            "sweeps": sweeps, "notes": list(messages),
        }  # fmt: skip
        numbers = {"n_sweeps_in_all": max(found.next_number, start.n_sweeps)}
        statistics = {**_statistics(writer, config), **numbers}
        if config.certainty:
            counts = CertaintyCounts(len(found.certainty[0]))
            counts.add_sums(*found.certainty)
            _count_kept(writer, counts, chosen)
            statistics["mean_certainty"] = counts.mean
        version = writer.publish("apply", settings, statistics, is_current=not merged)
        if merged:
            version = merge_again(root, store, model, version, merged, lock)
        notify(Published(model, version))
        add_levels(root, model, version, notify)
        names = sorted(session.name for session in chosen)
        like_fit = found.with_the_fit
    return ApplySummary(
        os.fspath(store),
        model,
        version,
        tuple(session.name for session in chosen),
        sum(session.n_frames for session in chosen),
        {name: found.n_sweeps[name] for name in names},
        found.has_settled,
        tuple(session.name for session in again),
        *like_fit,
        "" if as_new is None else as_new.name,
        *like_new,
        time.perf_counter() - began,
        tuple(messages),
    )


# ------------------------------------------------------------------ which sessions, which settings


def _chosen(
    root: access.Group, store: StoreLike, start: StartModel, selectors: Sequence[str] | None
) -> tuple[Session, ...]:
    found = select_sessions(root, selectors, "`sessions=`")
    if selectors is None:
        found = tuple(session for session in found if session.name not in start.sessions)
    if not found:
        raise InputError(
            expected=f"sessions that the model {start.name!r} has not labelled yet",
            found="none: all have labels",
            where=os.fspath(store),
            fix="name the sessions to label again with `sessions=`, or all with `sessions='*'`",
        )
    return found


def _one_to_compare(root: access.Group, fitted: StartModel) -> Session | None:
    """Choose a session of the fit, of median length."""
    found = [session for session in access.sessions(root) if session.name in fitted.sessions]
    found.sort(key=lambda session: (session.n_frames, session.name))
    return found[len(found) // 2] if found else None


def _say(notify: Callback, text: str) -> None:
    notify(Noted(text))


# ------------------------------------------------------------------ the new version


def _begin(
    root: access.Group, start: StartModel, work: LabelWork, labelled: Sequence[Session]
) -> LabelWriter:
    """Begin a version: sessions that are labelled now, and those that have labels."""
    new, preparation = {session.name for session in labelled}, work.preparation
    sessions = tuple(s for s in access.sessions(root) if s.name in new or s.name in start.sessions)
    names = label_names(work.config, has_second=work.votes or work.n_draws > 1)
    # What sessions that are not labelled now have beside their labels stays.
    names += tuple(name for name in SECOND if name in start.labels and name not in names)
    return LabelWriter(
        root,
        start.name,
        sessions=sessions,
        settings=preparation.study,
        names=names,
        n_latent=len(preparation.loading),
        parameters_version=work.parameters,
        scale=[
            preparation.scale[s.index] if s.name in new else start.scale[s.name] for s in sessions
        ],
    )


def _count_kept(
    writer: LabelWriter, certainty: CertaintyCounts, labelled: Sequence[Session]
) -> None:
    """Add the sessions that keep their labels to the mean certainty by syllable."""
    new = {session.name for session in labelled}
    for row, session in enumerate(writer.sessions):
        if session.name in new:
            continue
        for start in range(0, session.n_frames, writer.block_frames):
            block = (row, start, min(start + writer.block_frames, session.n_frames))
            certainty.add(writer.read("syllable", *block), writer.read("certainty", *block))


def _statistics(writer: LabelWriter, config: FitConfig) -> dict[str, Any]:
    return label_statistics(WrittenLabels(writer, config.lags), config.n_states)
