"""Label sessions with a model whose parameters stay as they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Noted, Published, ResourcePlan, tell
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.labelling import (
    DRAWS,
    MOST_STARTS,
    SessionLabelling,
    Voters,
    fixed_shape,
    labelling_of,
)
from kpms_zarr.compute.runs.preparation import (
    Preparation,
    check_length,
    first_noise_variance,
    load,
    make_chain,
    plan_of,
    prepare,
    settings_of_model,
)
from kpms_zarr.compute.runs.publish import SECOND, Numbered, add_levels, write_labels
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.voting import bytes_of_another_space
from kpms_zarr.compute.sampler.certainty import PublishedCertainty
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.settings import check_sweeps
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import Lock, model_lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import LabelWriter, copy_labels, require_model
from kpms_zarr.store.study.selection import select_sessions

_NO_VOTES = (
    "not all models of the consensus label new sessions by their parameters: labelled by the "
    "parameters of the consensus instead of by votes"
)


@dataclass(frozen=True)
class ApplySummary:
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
    keep their labels in the new version.

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
        # As the fit left it, whatever has been applied since.
        fitted = StartModel.of(store, model, str(start.labels.attrs["parameters"]))
        chosen = _chosen(root, store, start, sessions)
        again = tuple(session for session in chosen if session.name in fitted.sessions)
        as_new = _one_to_compare(root, fitted) if check and len(again) < len(chosen) else None
        every = (*chosen, as_new) if as_new is not None and as_new not in chosen else chosen
        every = tuple(sorted(every, key=lambda session: session.index))
        config = settings_of_model(start, every)
        with limit_workers(store, budget.host_memory, is_strict=False):
            preparation = prepare(store, config, fitted, notify)
        voting = None if draw or fitted.members is None else fitted.members
        if voting is not None and not voting.are_applied:
            voting = None
            notify(Noted(_NO_VOTES))
        members = () if voting is None else voting.open(store)
        n_draws = len(members) or (0 if draw else MOST_STARTS * DRAWS)
        n_bytes = n_draws + (bytes_of_another_space(members[0], members) if members else 0)
        plan = plan_of(preparation, config, budget, notify, fixed_shape(config), n_bytes)
        labelled = replace(preparation, sessions=chosen)
        make = partial(
            make_chain, config=config, plan=plan, scratch=budget.scratch, n_draws=n_draws,
            draw_states=max((len(one.parameters.usage) for one in members), default=0),
        )  # fmt: skip
        with make(labelled) as chain:
            check_length(chain.index, store, notify)
            load(chain, labelled, config, fitted, plan.tiles_in_flight)
            voters = Voters(store, members, plan, budget.scratch)
            run = labelling_of(
                chain, labelled, config, fitted, plan.tiles_in_flight, notify, lock, voters
            )
            run.label(sweeps)
            certainty = run.certainty() if config.certainty else None
            writer = _write(root, start, run, preparation, config, chosen, certainty)
            # Only then published: what stops it here publishes nothing.
            compare = _Comparison(
                preparation=preparation, config=config, fitted=fitted, lock=lock,
                plan=replace(plan, kept_bytes=0), n_in_flight=run.pipeline.n,
                make=make, voters=voters,
            )  # fmt: skip
            like_fit = compare.with_the_fit(run, again)
            like_new = compare.of_a_new_session(as_new, sweeps)
            settings = {
                **config.to_dict(), "sessions": [session.name for session in chosen],
                "sweeps": sweeps, "notes": list(messages),
            }  # fmt: skip
            numbers = {"n_sweeps_in_all": max(run.next_number, start.n_sweeps)}
            statistics = {**_statistics(writer, config), **numbers}
            if certainty is not None:
                _count_kept(writer, certainty, chosen)
                statistics["mean_certainty"] = certainty.mean
            version = writer.publish("apply", settings, statistics)
            notify(Published(model, version))
            add_levels(root, model, version, notify)
            names = [session.name for session in chain.index.sessions]
            n_sweeps = dict(zip(names, run.n_sweeps.tolist(), strict=True))
    return ApplySummary(
        os.fspath(store),
        model,
        version,
        tuple(session.name for session in chosen),
        sum(session.n_frames for session in chosen),
        n_sweeps,
        run.has_settled,
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


# ------------------------------------------------------------------ agreement with the fit


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Agreement of labels with those of the fit."""

    preparation: Preparation
    config: FitConfig
    fitted: StartModel
    plan: ResourcePlan
    n_in_flight: int
    make: Callable[..., Chain]
    lock: Lock
    voters: Voters

    def with_the_fit(
        self, run: SessionLabelling, sessions: Sequence[Session]
    ) -> tuple[float, float]:
        """Compare the labels of sessions of the fit that a run has labelled again.

        Returns
        -------
        tuple of float
            Share of their frames with the label of the fit, and with the same label in averages
            of two halves of the starts.
        """
        names, index = {session.name for session in sessions}, run.chain.index
        which = np.array([s.name in names for s in index.sessions]) & (index.n_modelled > 0)
        rows, n_frames = np.flatnonzero(which), index.n_modelled[which]
        if not len(rows):
            return float("nan"), float("nan")
        same = [
            float((run.labels_of(row) == self._labels_of_fit(index.sessions[row])).mean())
            for row in rows
        ]
        both = (np.array(same), run.agreement[rows])
        with_fit, halves = (float((share * n_frames).sum() / n_frames.sum()) for share in both)
        return with_fit, halves

    def of_a_new_session(self, session: Session | None, max_sweeps: int) -> tuple[float, float]:
        """Label a session of the fit as if it were new, and compare; see :meth:`with_the_fit`."""
        if session is None or session.n_frames <= self.config.lags:
            return float("nan"), float("nan")
        config = replace(self.config, sessions=(session.name,))
        preparation = replace(self.preparation, sessions=(session,))
        start = replace(self.fitted, scale={})
        with self.make(preparation, config=config, plan=self.plan) as chain:
            load(chain, preparation, config, start, self.n_in_flight)
            quiet = (self.n_in_flight, lambda _: None, self.lock, self.voters)
            run = labelling_of(chain, preparation, config, start, *quiet)
            run.label(max_sweeps)
            same = run.labels_of(0) == self._labels_of_fit(session)
            return float(same.mean()), float(run.agreement[0])

    def _labels_of_fit(self, session: Session) -> np.ndarray:
        return self.fitted.labels_of(session.name, self.config.lags)


# ------------------------------------------------------------------ the new version


def _write(
    root: access.Group,
    start: StartModel,
    run: SessionLabelling,
    preparation: Preparation,
    config: FitConfig,
    labelled: Sequence[Session],
    certainty: PublishedCertainty | None,
) -> LabelWriter:
    """Write the labels of all sessions: the labelled ones from the chain, the others as before."""
    chain, labels = run.chain, run.labels
    new = {session.name for session in labelled}
    sessions = tuple(s for s in access.sessions(root) if s.name in new or s.name in start.sessions)
    names = run.by_frame
    # What sessions that are not labelled now have beside their labels stays.
    names += tuple(name for name in SECOND if name in start.labels and name not in names)
    writer = LabelWriter(
        root,
        start.name,
        sessions=sessions,
        settings=preparation.study,
        names=names,
        n_latent=chain.n_latent,
        parameters_version=str(start.labels.attrs["parameters"]),
        scale=[
            preparation.scale[s.index] if s.name in new else start.scale[s.name] for s in sessions
        ],
    )
    numbered = Numbered(labels, np.arange(config.n_states))
    variance = np.asarray(first_noise_variance(config, start))
    write_labels(writer, numbered, chain, names, variance, only=new, certainty=certainty)
    copy_labels(root, start.name, start.version, writer, names, without=new)
    return writer


def _count_kept(
    writer: LabelWriter, certainty: PublishedCertainty, labelled: Sequence[Session]
) -> None:
    """Add the sessions that keep their labels to the mean certainty by syllable."""
    new = {session.name for session in labelled}
    for row, session in enumerate(writer.sessions):
        if session.name in new:
            continue
        for start in range(0, session.n_frames, writer.block_frames):
            block = (row, start, min(start + writer.block_frames, session.n_frames))
            certainty.add(writer.read("syllable", *block), writer.read("certainty", *block))


class _Written:
    """Labels of a version that has just been written, sessions end to end."""

    def __init__(self, writer: LabelWriter, lags: int) -> None:
        self._writer = writer
        self.index = ChainIndex.of(writer.sessions, lags)
        self._row = {session.name: row for row, session in enumerate(writer.sessions)}

    @property
    def syllable(self) -> _Written:
        return self

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.index.n_frames)
        first, parts = self.index.first, []
        low, high = np.searchsorted(first, [start, stop - 1], side="right") - 1
        for session in range(int(low), int(high) + 1):
            begin, length = int(first[session]), int(self.index.length[session])
            a, b = max(0, start - begin), min(length, stop - begin)
            row = self._row[self.index.sessions[session].name]
            parts.append(self._writer.read("syllable", row, a, b))
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _statistics(writer: LabelWriter, config: FitConfig) -> dict[str, Any]:
    return label_statistics(_Written(writer, config.lags), config.n_states)
