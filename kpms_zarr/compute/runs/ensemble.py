"""Ensemble of chains that differ in the seed alone, and the consensus of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Event
from kpms_zarr.compute.runs.chain_jobs import FITTED, ChainJob, PlannedChain
from kpms_zarr.compute.runs.consensus import POSE_SWEEPS, ConsensusSummary, make_consensus
from kpms_zarr.compute.runs.interruption import (
    refused,
)
from kpms_zarr.compute.runs.preparation import ensure_components
from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.checkpoints import committed_sweeps
from kpms_zarr.store.model.models import current_version, make_group
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import listed

MOST_CHAINS = 99
MERGE_SWEEPS = 18
"""Of a chain, unless it is given: chains that merge states by evidence in their burn-in agree twice
as well, and so do ensembles of them (docs/replicability.md)."""
_REQUEST = "ensemble"


@dataclass(frozen=True)
class Request:
    """What an ensemble was begun with, as it stands in the store.

    Attributes
    ----------
    chains : int
    config : FitConfig
    halves : bool
        Whether chains are also fitted to halves of the sessions.
    """

    chains: int
    config: FitConfig
    halves: bool = False

    @classmethod
    def read(cls, root: access.Group, model: str) -> Request | None:
        """Request of an ensemble; None where none was begun."""
        group = access.subgroup(root, layout.model_path(model))
        found = None if group is None else attributes.read(group.attrs).get(_REQUEST)
        if found is None:
            return None
        config = FitConfig.from_store(found["config"], found["given"])
        return cls(int(found["chains"]), config, bool(found.get("halves")))

    def write(self, root: access.Group, model: str, *, is_done: bool = False) -> None:
        """Keep the request, for going on with it, and whether the model is what it ended in."""
        found = {
            "chains": self.chains,
            "config": self.config.to_dict(),
            "given": sorted(self.config.given),
            "halves": self.halves,
        }
        group = make_group(root, layout.model_path(model))
        attributes.write(group, {_REQUEST: found, FITTED: is_done})


def is_unfinished(root: access.Group, model: str) -> bool:
    """Whether a fit or an ensemble of this name was begun, and can be gone on with."""
    if committed_sweeps(root, model) is not None:
        return True
    group = access.subgroup(root, layout.model_path(model))
    found = {} if group is None else attributes.read(group.attrs)
    return _REQUEST in found and not found.get(FITTED)


def chain_names(model: str, chains: int) -> list[str]:
    """Names of the models that the chains of an ensemble are."""
    return [f"{model}-{number:02d}" for number in range(1, chains + 1)]


def chain_config(config: FitConfig, number: int) -> FitConfig:
    """Settings of a chain: those of the AR stage, with a seed of its own.

    Parameters
    ----------
    config : FitConfig
        Of the ensemble.
    number : int
        Of the chain, from 1.
    """
    words = np.random.SeedSequence([config.seed, number]).generate_state(2, np.uint32)
    both = config.stage == "both"
    is_open = "merge_sweeps" not in config.given
    return config.resolved(
        stage="ar",
        seed=int(words[0]) << 31 | int(words[1]) >> 1,
        sweeps=config.first_sweeps if both else config.last_sweeps,
        kappa=config.ar_kappa if both else config.kappa,
        merge_sweeps=MERGE_SWEEPS if is_open else config.merge_sweeps,
        average_sweeps=1,
        certainty=False,
    )


def fit_chains(
    store: StoreLike,
    *,
    model: str,
    chains: int,
    config: FitConfig | None,
    budget: Budget | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    save_every: int = 25,
    halves: bool = False,
    crew: Crew | None = None,
) -> ConsensusSummary:
    """Fit chains, and make the model on which they agree; see ``fit``.

    One after the other, or with a crew, each on a worker; its workers then sample the pose of the
    consensus.

    Raises
    ------
    InputError, FitInterrupted, SamplingError, OutOfMemoryError, OSError
        As ``fit``; chains that are finished stay, and the ensemble can be resumed.
    """
    began = time.perf_counter()
    root = access.open_group(store, "r+")
    request = _request(
        root, store, model, chains, config, halves=halves, resume=resume, overwrite=overwrite
    )
    plan = _chains(root, model, request)
    request.write(root, model)
    job = ChainJob(store, model, request.chains, len(plan), overwrite, save_every)
    if crew is None:
        for number, one in enumerate(plan, 1):
            job.fit(number, one, budget, callbacks)
    else:
        # Once, before chains that begin together would each do it.
        ensure_components(store, plan[0].config, lambda event: _pass(callbacks, event))
        job.fit_on(crew, plan, budget, callbacks)
    names = [one.name for one in plan if not one.is_pilot]
    n = request.chains
    of_halves = (names[n : 2 * n], names[2 * n :]) if request.halves else None
    try:
        found = make_consensus(
            store, models=names[:n], model=model, session_halves=of_halves,
            target_duration=request.config.target_duration,
            sweeps=request.config.sweeps or POSE_SWEEPS, budget=budget, callbacks=callbacks,
            overwrite=overwrite or current_version(root, model) is not None, crew=crew,
        )  # fmt: skip
    except OSError as error:
        stands = f"all {len(plan)} chains of the ensemble {model!r} are finished"
        raise refused(error, stands, f"go on with: {job.how}") from error
    request.write(access.open_group(store, "r+"), model, is_done=True)
    return replace(found, seconds=time.perf_counter() - began)


def _pass(callbacks: Sequence[Callback], event: Event) -> None:
    for callback in callbacks:
        callback(event)


def _chains(root: access.Group, model: str, request: Request) -> list[PlannedChain]:
    """All chains of an ensemble: of all sessions, then of either half.

    Where a median duration is asked for, a pilot finds the stickiness, which the others keep from
    their first sweep on: while it is adapted, it is too low and too high by turns, and merges that
    are made then cannot be taken back. Halves are every other session, by name.
    """
    config, n = request.config, request.chains
    found = group_of(model, config, n, 0)
    if not request.halves:
        return found
    sessions = sorted(
        session.name for session in select_sessions(root, config.sessions, "`sessions=`")
    )
    if len(sessions) < 2:
        raise InputError(
            expected="two sessions or more, to fit halves of them",
            found=listed(sessions),
            where="`halves=`",
            fix="leave it out",
        )
    for half, letter in enumerate("ab"):
        of_half = config.resolved(sessions=tuple(sessions[half::2]))
        found += group_of(f"{model}-{letter}", of_half, n, 1000 * (half + 1))
    return found


def group_of(model: str, config: FitConfig, chains: int, first: int) -> list[PlannedChain]:
    """Chains of the same sessions; ``first``: the number for the seed of their pilot."""
    pilot = "" if config.target_duration is None else f"{model}-00"
    found = [PlannedChain(pilot, chain_config(config, first), is_pilot=True)] if pilot else []
    return found + [
        PlannedChain(name, chain_config(config, first + number), pilot)
        for number, name in enumerate(chain_names(model, chains), 1)
    ]


def _request(
    root: access.Group,
    store: StoreLike,
    model: str,
    chains: int,
    config: FitConfig | None,
    *,
    halves: bool,
    resume: bool,
    overwrite: bool,
) -> Request:
    """What shall be done, checked before anything is."""
    where = f"{os.fspath(store)}, model {model!r}"
    if isinstance(chains, bool) or not isinstance(chains, int) or not 2 <= chains <= MOST_CHAINS:
        raise InputError(
            expected=f"a whole number of chains, 1 to {MOST_CHAINS}",
            found=repr(chains),
            where="`chains=`",
            fix="give 8, or 16",
        )
    if resume and overwrite:
        raise InputError(
            expected="one of `resume=True` and `overwrite=True`",
            found="both",
            where=where,
            fix="`resume=True` goes on with an unfinished fit, `overwrite=True` begins again",
        )
    before = Request.read(root, model)
    if resume:
        return _resumed(root, model, chains, config, halves, before, where)
    request = Request(chains, config or FitConfig(), halves)
    _check_stage(request.config)
    if overwrite:
        return request
    taken = [
        name
        for name in (model, *(one.name for one in _chains(root, model, request)))
        if current_version(root, name) is not None or committed_sweeps(root, name) is not None
    ]
    if taken:
        raise InputError(
            expected="a name that neither a model nor one of its chains has",
            found=", ".join(map(repr, taken)),
            where=os.fspath(store),
            fix="add `resume=True` to go on with these chains, `overwrite=True` to begin again, or "
            "choose another `model=`",
        )
    return request


def _resumed(
    root: access.Group,
    model: str,
    chains: int,
    config: FitConfig | None,
    halves: bool,
    before: Request | None,
    where: str,
) -> Request:
    if before is None:
        raise InputError(
            expected="an ensemble to go on with",
            found="none of that name",
            where=where,
            fix="leave `resume=` out to begin it",
        )
    if config is not None and config.to_dict() != before.config.to_dict():
        given = {
            name
            for name, value in config.to_dict().items()
            if name in config.given and before.config.to_dict()[name] != value
        }
        if given:
            raise InputError(
                expected=f"the settings that the ensemble {model!r} was begun with",
                found=f"other values of {', '.join(sorted(given))}",
                where=where,
                fix="leave them out, or choose another `model=`",
            )
    request = Request(max(chains, before.chains), before.config, halves or before.halves)
    group = access.subgroup(root, layout.model_path(model))
    is_done = group is not None and bool(attributes.read(group.attrs).get(FITTED))
    if is_done and request == before:
        raise InputError(
            expected="an unfinished ensemble to go on with, or a larger number of chains",
            found=f"{before.chains} chains, all finished",
            where=where,
            fix=f"`chains={2 * before.chains}` adds as many again",
        )
    return request


def _check_stage(config: FitConfig) -> None:
    if config.from_model is not None or config.stage == "full":
        raise InputError(
            expected="chains that begin anew, of the AR stage: `stage='both'` or `stage='ar'`",
            found="`from_model=`" if config.from_model is not None else "`stage='full'`",
            where="`chains=`",
            fix="leave it out; to join fits of the full stage use "
            "`kpms_zarr.consensus(STORE, models=[...], model=NAME)`",
        )
