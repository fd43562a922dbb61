"""Label sessions with a model whose parameters stay as they are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import (
    Callback,
    Event,
    Noted,
    Published,
    ResourcePlan,
    SessionsSettled,
)
from kpms_zarr.compute.mapreduce import limit_workers
from kpms_zarr.compute.runs.plan import settle_tiles
from kpms_zarr.compute.runs.preparation import (
    Preparation,
    check_length,
    first_noise_variance,
    load,
    make_chain,
    plan_of,
    prepare,
)
from kpms_zarr.compute.runs.publish import Numbered, add_levels, label_names, write_labels
from kpms_zarr.compute.runs.stages import make_sweeper, model_of, noise_by_keypoint, pipeline_of
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.sampler.certainty import LabelCertainty
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.sampler.warm import ANNEAL_SWEEPS, WARM_SWEEPS, annealed, warm_start
from kpms_zarr.compute.settings import check_sweeps, settings_of
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import Lock, model_lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import LabelWriter, copy_labels, require_model
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import listed

LEAST_SWEEPS = 10
"""Before a session can have settled: five sweeps to compare with the five before them."""
_WINDOW = 5
_STILL_FALLING = 0.97
"""A session has settled when its labels change from sweep to sweep hardly less than before."""
_LONG_ENOUGH = 2_000
"""Frames of a session that tell how far two samples of the labels differ."""


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
        Session -> sweeps until its labels had settled.
    settled : bool
        Whether all had, before the largest number of sweeps.
    again : tuple of str
        Of the labelled sessions, those of the fit.
    agreement : float
        Share of their frames that have the label of the fit; NaN without such sessions.
    own_agreement : float
        Share of the frames of one of them that have the same label when it is labelled twice, with
        other random numbers: what agreement can be expected, as labels are samples.
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
    check: bool = True,
    budget: Budget | None = None,
    callbacks: Sequence[Callback] = (),
) -> ApplySummary:
    """Label sessions with a fitted model, its parameters fixed, and publish a new version.

    The sampler is that of the fit. A session that the model has not seen begins with its aligned
    pose and labels drawn from it; one of the fit begins with its state in the fit. Each ends when
    its labels change from sweep to sweep no less than before. Its result does not depend on the
    sessions beside it, to the bit. Sessions that are not labelled now keep their labels in the new
    version.

    Parameters
    ----------
    store : path or URL
    model : str
    sessions : sequence of str, optional
        Names, patterns or ``coordinate=value``, see :attr:`FitConfig.sessions`; default: those
        without labels.
    sweeps : int
        At most.
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
    notify = partial(_notify, callbacks, messages)
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
        config = _settings(start, every)
        with limit_workers(store, budget.host_memory, is_strict=False):
            preparation = prepare(store, config, fitted, notify)
        plan = plan_of(preparation, config, budget, notify, fixed_shape(config))
        labelled = replace(preparation, sessions=chosen)
        with make_chain(labelled, config, plan, budget.scratch) as chain:
            check_length(chain.index, store, notify)
            load(chain, labelled, config, fitted, plan.tiles_in_flight)
            run = _Run(chain, labelled, config, fitted, plan.tiles_in_flight, notify, lock)
            n_sweeps = run.settle(sweeps)
            certainty = run.certainty() if config.certainty else None
            writer = _write(root, start, chain, preparation, config, chosen, certainty)
            # Only then published: what stops it here publishes nothing.
            compare = _Comparison(
                preparation=preparation, config=config, fitted=fitted, lock=lock,
                plan=replace(plan, kept_bytes=0), n_in_flight=run.pipeline.n,
                scratch=budget.scratch,
            )  # fmt: skip
            like_fit = compare.with_the_fit(run, again, sweeps)
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
    return ApplySummary(
        os.fspath(store),
        model,
        version,
        tuple(session.name for session in chosen),
        sum(session.n_frames for session in chosen),
        {session.name: n_sweeps[session.name] for session in chosen},
        run.has_settled,
        tuple(session.name for session in again),
        *like_fit,
        "" if as_new is None else as_new.name,
        *like_new,
        time.perf_counter() - began,
        tuple(messages),
    )


def _notify(callbacks: Sequence[Callback], messages: list[str], event: Event) -> None:
    if isinstance(event, Noted):
        messages.append(event.text)
    for callback in callbacks:
        callback(event)


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


def _settings(start: StartModel, sessions: Sequence[Session]) -> FitConfig:
    """Settings of the fit, for these sessions."""
    # What a newer or older version has saved besides says nothing about the labels.
    known = {one.name for one, _ in settings_of(FitConfig)}
    names = {name: value for name, value in start.settings.items() if name in known}
    fitted = FitConfig.from_store(names, start.settings.get("given"))
    # What was left open is so again: the device at hand may be another.
    is_open = "tile_frames" not in fitted.given
    config = fitted.resolved(
        tile_frames=None if is_open else fitted.tile_frames,
        stage=start.stage,
        from_model=None,
        use_keypoints=start.settled["use_keypoints"],
        fix_heading=start.settled["fix_heading"],
        latent_dim=start.settled["latent_dim"],
        outlier_scale=start.settled["outlier_scale"],
        sessions=tuple(session.name for session in sessions),
        save_noise_scale="noise_scale" in start.labels,
        # Only says where a fit begins; the model has its own.
        noise_variance=FitConfig().noise_variance,
        given=frozenset(),
    )
    return settle_tiles(config)


def fixed_shape(config: FitConfig) -> TileShape:
    """One shape of tiles for any sessions, so that none can change the result of another."""
    assert config.tile_frames is not None
    lanes = max(8, config.tile_frames // config.segment_frames // 8 * 8)
    return TileShape(lanes, config.segment_frames)


# ------------------------------------------------------------------ the chain


class _Run:
    """Sweeps over a chain with fixed parameters, sessions leaving it as they settle."""

    def __init__(
        self,
        chain: Chain,
        preparation: Preparation,
        config: FitConfig,
        fitted: StartModel,
        n_in_flight: int,
        notify: Callback,
        lock: Lock,
    ) -> None:
        self.chain, self.preparation, self.config, self.fitted = chain, preparation, config, fitted
        self.notify, self.lock = notify, lock
        self.pipeline = pipeline_of(n_in_flight, notify)
        # Every segment is drawn as it would be without the segments beside it in the tile.
        self._model = model_of(
            config.stage, preparation, config, noise_by_keypoint(config, fitted, chain),
            keeps_sound_segments=True,
        )  # fmt: skip
        self.has_settled = True
        self._number = fitted.n_sweeps
        self._is_new = np.array([s.name not in fitted.sessions for s in chain.index.sessions])

    @property
    def next_number(self) -> int:
        """Number of the next sweep, for random numbers."""
        return self._number

    def _sweeper(self, chain: Chain) -> Sweeper:
        return make_sweeper(chain, self.config, self.pipeline, fixed_shape(self.config))

    def settle(self, max_sweeps: int) -> dict[str, int]:
        """Sweep until the labels of every session have settled; returns sweeps by session."""
        index = self.chain.index
        names = [session.name for session in index.sessions]
        is_open = index.n_modelled > 0
        n_sweeps = dict.fromkeys(names, 0)
        parameters = self.fitted.parameters
        n_annealed = min(ANNEAL_SWEEPS, max_sweeps // 2) if self.config.stage != "ar" else 0
        path = annealed(parameters, n_annealed)
        is_new = is_open & self._is_new
        if is_new.any():
            sweeper = self._sweeper(self.chain.only(is_new))
            warm_start(sweeper, path[0] if path else parameters, self._number)
        self._number += WARM_SWEEPS  # also without, as nothing may depend on other sessions
        changes: list[list[float]] = [[] for _ in names]
        for done in range(1, max_sweeps + 1):
            if not is_open.any():
                break
            is_annealed = done <= n_annealed
            groups = [(is_open & self._is_new, path[done - 1])] if is_annealed else []
            groups.append((is_open & ~self._is_new if is_annealed else is_open, parameters))
            for which, now in groups:
                for row, share in (self._sweep(which, now) if which.any() else {}).items():
                    n_sweeps[names[row]] = done
                    if now is parameters:
                        changes[row].append(share)
                        is_open[row] = not has_settled(changes[row])
            self._number += 1
            self.notify(SessionsSettled(done, int((~is_open).sum()), len(names)))
        self.has_settled = not is_open.any()
        if not self.has_settled:
            rest = [names[row] for row in np.flatnonzero(is_open)]
            self.notify(Noted(_still_open(rest, max_sweeps, n_annealed + LEAST_SWEEPS)))
        return n_sweeps

    def _sweep(self, which: np.ndarray, parameters: Parameters) -> dict[int, float]:
        """One sweep over some sessions; returns the share of changed labels by session."""
        rows = np.flatnonzero(which)
        changed, total = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        lock = threading.Lock()

        def watch(tile: Any, before: np.ndarray, after: np.ndarray) -> None:
            n = len(tile.length)
            is_own = np.arange(after.shape[1]) < tile.length[:, None]
            differs = ((before[:n] != after[:n]) & is_own).sum(1)
            with lock:
                np.add.at(changed, tile.session, differs)
                np.add.at(total, tile.session, tile.length)

        sweeper = self._sweeper(self.chain.only(which))
        sweeper.draw(self._model, parameters, self._number, watch=watch)
        self.lock.renew()
        shares = changed / np.maximum(1, total)
        return dict(zip(rows.tolist(), shares.tolist(), strict=True))

    def certainty(self) -> LabelCertainty:
        """Certainty of the labels as they are."""
        return LabelCertainty(self._sweeper(self.chain), self.fitted.parameters)

    def labels_of(self, row: int) -> np.ndarray:
        index = self.chain.index
        first, length = int(index.first[row]), int(index.length[row])
        return np.array(self.chain.syllable[first + index.lags : first + length])


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Agreement of labels with those of the fit, and of repeated labels of one session.

    Two samples of the labels of a session are two runs with different random numbers: sweeps of
    one chain are alike for longer than anybody would wait.
    """

    preparation: Preparation
    config: FitConfig
    fitted: StartModel
    plan: ResourcePlan
    n_in_flight: int
    lock: Lock
    scratch: str | None

    def with_the_fit(
        self, run: _Run, sessions: Sequence[Session], max_sweeps: int
    ) -> tuple[float, float]:
        """Compare the labels of sessions of the fit that a run has labelled again."""
        names = {session.name for session in sessions}
        index = run.chain.index
        which = np.array([s.name in names for s in index.sessions]) & (index.n_modelled > 0)
        rows = np.flatnonzero(which).tolist()
        if not rows:
            return float("nan"), float("nan")
        same = n_frames = 0
        for row in rows:
            now = run.labels_of(row)
            same += int((now == self._labels_of_fit(index.sessions[row])).sum())
            n_frames += len(now)
        long_enough = [row for row in rows if index.length[row] >= _LONG_ENOUGH]
        # The shortest that tells enough, else the longest.
        one = min(long_enough, key=lambda row: index.length[row], default=None)
        if one is None:
            one = max(rows, key=lambda row: index.length[row])
        twin = self._labels(index.sessions[one], max_sweeps, seed=1, is_new=False)
        return same / n_frames, float((twin == run.labels_of(one)).mean())

    def of_a_new_session(self, session: Session | None, max_sweeps: int) -> tuple[float, float]:
        """Compare the labels of a session of the fit that is labelled as if it were new."""
        if session is None or session.n_frames <= self.config.lags:
            return float("nan"), float("nan")
        first, second = (self._labels(session, max_sweeps, seed=n, is_new=True) for n in (0, 1))
        fit = self._labels_of_fit(session)
        return float((first == fit).mean()), float((first == second).mean())

    def _labels_of_fit(self, session: Session) -> np.ndarray:
        return self.fitted.labels_of(session.name, self.config.lags)

    def _labels(self, session: Session, max_sweeps: int, *, seed: int, is_new: bool) -> np.ndarray:
        """Labels of one session by a run of its own."""
        seed = (self.config.seed + seed) % 2**63
        config = replace(self.config, sessions=(session.name,), seed=seed)
        preparation = replace(self.preparation, sessions=(session,))
        start = replace(self.fitted, scale={}) if is_new else self.fitted
        with make_chain(preparation, config, self.plan, self.scratch) as chain:
            load(chain, preparation, config, start, self.n_in_flight)
            quiet = (self.n_in_flight, lambda _: None, self.lock)
            run = _Run(chain, preparation, config, start, *quiet)
            run.settle(max_sweeps)
            return run.labels_of(0)


def _still_open(names: Sequence[str], max_sweeps: int, least: int) -> str:
    """Message on sessions that had not settled."""
    why = "still changing" if max_sweeps >= least else "perhaps still changing"
    return (
        f"labels {why} after {max_sweeps} sweeps: {listed(names)}; give more `sweeps=` "
        f"(at least {max(least, 2 * LEAST_SWEEPS)} tell whether they have settled)"
    )


def has_settled(changes: Sequence[float]) -> bool:
    """Whether labels change from sweep to sweep hardly less than they did before.

    Labels are samples and never stop changing; they have settled when the mean share that changes
    is no longer falling: over the last five sweeps at least 97 % of that over the five before.
    """
    if len(changes) < LEAST_SWEEPS:
        return False
    before, now = np.mean(changes[-2 * _WINDOW : -_WINDOW]), np.mean(changes[-_WINDOW:])
    return bool(now >= _STILL_FALLING * before)


# ------------------------------------------------------------------ the new version


def _write(
    root: access.Group,
    start: StartModel,
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    labelled: Sequence[Session],
    certainty: LabelCertainty | None,
) -> LabelWriter:
    """Write the labels of all sessions: the labelled ones from the chain, the others as before."""
    new = {session.name for session in labelled}
    sessions = tuple(s for s in access.sessions(root) if s.name in new or s.name in start.sessions)
    names = label_names(chain, config)
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
    numbered = Numbered(chain, np.arange(config.n_states))
    variance = np.asarray(first_noise_variance(config, start))
    write_labels(writer, numbered, chain, names, variance, only=new, certainty=certainty)
    copy_labels(root, start.name, start.version, writer, names, without=new)
    return writer


def _count_kept(
    writer: LabelWriter, certainty: LabelCertainty, labelled: Sequence[Session]
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
