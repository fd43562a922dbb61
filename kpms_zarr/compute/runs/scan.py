"""Scan of settings: several short chains of each, and the figures by which to choose among them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import xarray as xr

from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Event, Noted
from kpms_zarr.compute.runs.choosing import choose_sessions, recommend
from kpms_zarr.compute.runs.grid import ScanGrid, Values, grid_of
from kpms_zarr.compute.runs.interruption import stoppable
from kpms_zarr.compute.runs.plan import settle_tiles
from kpms_zarr.compute.runs.scan_job import ScanJob, config_of
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.locking import scan_lock
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.model.scans import ScanGroup
from kpms_zarr.store.shown import ShownAsTable


@dataclass(frozen=True)
class Scan(ShownAsTable):
    """Result of :func:`scan`.

    Attributes
    ----------
    store, name : str
        What was found is in the group ``scans/<name>``.
    stage : str
        Of the chains: ``"ar"``, ``"full"`` or ``"both"``.
    axes : tuple of str
        Settings with more than one value.
    table : xarray.Dataset, (point, chain)
        ``median_duration`` (ms), ``n_used``, ``effective_number``, ``final_kappa``,
        ``held_out_log_likelihood``, ``expected_marginal_likelihood`` and ``log_evidence`` (nat per
        frame), ``adjusted_rand_index`` with the other chains of the point, ``seconds``; settings
        and ``label`` by point, ``seed`` by chain.
    recommendation : tuple of str
        What the figures suggest.
    n_frames, n_held_out_frames : int
        Of the sessions that chains were run on, and of those that were held out.
    n_chains : int
        That this call has run; those that were there already are not run again.
    seconds : float
        Wall time of this call.
    notes : tuple of str
    """

    store: str
    name: str
    stage: str
    axes: tuple[str, ...]
    table: xr.Dataset
    recommendation: tuple[str, ...]
    n_frames: int
    n_held_out_frames: int
    n_chains: int
    seconds: float
    notes: tuple[str, ...]


def scan(
    store: StoreLike,
    *,
    target_durations: Values = None,
    kappa: Values = None,
    latent_dim: Values = None,
    lags: Values = None,
    innovation_scale: Values = None,
    innovation_dof: Values = None,
    chains: int = 3,
    held_out: int | Sequence[str] | None = None,
    name: str | None = None,
    config: FitConfig | None = None,
    budget: Budget | None = None,
    cluster: ClusterLike = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
) -> Scan:
    """Run short chains over a grid of settings, and say by which figures to choose among them.

    Chains of the AR stage, unless ``config`` says otherwise, on a part of the sessions. All run in
    one process over one preparation of the data; what runs on the device is compiled once, for
    latent dims and lags once for each of their values; or each on a worker of a cluster. Each chain
    is kept in the store when it ends; the same call goes on with those that are missing. Models and
    labels are not touched.

    Of each point (combination of settings) and chain:

    - median syllable, syllables in use and their effective number: of the labels that a fit with
      these settings and this seed would publish;
    - held-out log likelihood, AR stage: log p(x | parameters) of sessions that the chain has not
      seen, given their first frames, labels summed out by the forward algorithm, per frame. Of each
      session the likelihood is averaged over draws theta_1..theta_D of the last 40 % of the sweeps,
      log (1/D sum_d p(x_s | theta_d)), before the logarithms of the sessions are added. Components
      and scale of the pose are those of the store, which know all sessions;
    - expected marginal likelihood (EML), after the score of that name by which Weinreb et al.
      (Nature Methods 21:1329, 2024) rank the models of an ensemble. Here, of chain i among the R
      chains of its point, EML_i = 1/(R-1) sum_{j != i} log p(x_j | theta_i) / frames, labels summed
      out, with x_j the latent pose that chain j ended with and theta_i the parameters that chain i
      ended with. In the AR stage all chains have one pose, x_j = x, and EML_i = log p(x | theta_i)
      / frames;
    - log evidence, AR stage: log p(x, z | hyperparameters), parameters integrated out (model.md
      3.9), mean over the last sweeps;
    - adjusted Rand index with the other chains of the point, mean over these.

    Where ``latent_dim`` varies, likelihoods are of the latent dims that all points have, given the
    past of all dims of the point; else densities of different data would be compared (the evidence
    is such a one). Where ``lags`` varies, they are of the same frames.

    Parameters
    ----------
    store : path or URL
    target_durations, kappa, latent_dim, lags, innovation_scale, innovation_dof
        What varies, at least one: a range ``"FROM:TO:NUMBER"`` (evenly spread in the logarithm, or
        whole numbers), values ``"a,b,c"``, or a sequence. Durations in ms, or with their unit,
        ``"200ms:0.8s:5"``. Of several all combinations are tried.
    chains : int
        Of each point; their seeds are that of ``config`` and those behind it.
    held_out : int or sequence of str, optional
        How many of the sessions, or which, no chain sees (default: about a fifth, at least one
        where there are two; none in the full stage, where the pose of a new session would have to
        be sampled).
    name : str, optional
        What is found is kept in the group ``scans/<name>`` (default: what varies, such as
        ``"kappa"``).
    config : FitConfig, optional
        All other settings. ``sessions`` chooses the sessions (default: about 200,000 frames, evenly
        spread over the names of the sessions); with ``kappa``, ``target_duration`` is the median
        that is wanted, and kappa is not adapted.
    budget : Budget, optional
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster, as of :func:`kpms_zarr.fit`: each chain is a job, with the
        figures that it has in one process. A chain whose worker is lost is begun anew.
    callbacks : sequence of callable
        Each is given the events of ``compute.events``; of sweeps on workers there are none.
    overwrite : bool
        Drop what another scan of that name has found.

    Returns
    -------
    Scan

    Raises
    ------
    InputError
        For ranges that cannot be read, settings that do not fit the data, a name under which
        another scan is kept, or a budget that no plan fits.
    ScanInterrupted
        After Ctrl-C or SIGTERM: chains that had ended are kept.
    """
    began = time.perf_counter()
    given = {
        "target_durations": target_durations, "kappa": kappa, "latent_dim": latent_dim,
        "lags": lags, "innovation_scale": innovation_scale, "innovation_dof": innovation_dof,
    }  # fmt: skip
    grid = grid_of(given)
    name = "-".join(axis.name for axis in grid.axes) if name is None else name
    config = _settled(config or FitConfig(), grid, chains)
    root = access.open_group(store, "r+")
    access.require_sessions(root, os.fspath(store))
    group = ScanGroup(root, name)
    most_lags = max(config_of(point, config).lags for point in grid.points)
    chosen = choose_sessions(
        root, store, config.sessions, held_out, lags=most_lags, holds_out=config.stage == "ar"
    )
    if chosen.held_out and config.stage != "ar":
        raise _not_held_out(config)
    names = [session.name for session in (*chosen.sampled, *chosen.held_out)]
    config = config.resolved(sessions=tuple(names))
    messages: list[str] = []
    notify = partial(_notify, callbacks, messages)
    with (
        scan_lock(root, store, name) as lock,
        stoppable() as stop,
        connected(cluster, lambda text: notify(Noted(text))) as crew,
    ):
        if crew is not None:
            crew.check = stop.check
        job = ScanJob(
            store, root, group, grid, config, chosen, chains, budget or Budget(), notify, lock,
            stop, crew,
        )  # fmt: skip
        for note in chosen.notes:
            notify(Noted(note))
        n_run = job.run(overwrite=overwrite)
    table = group.table()
    return Scan(
        os.fspath(store),
        name,
        config.stage,
        tuple(axis.setting for axis in grid.axes),
        table,
        recommend(table, config.target_duration if kappa is not None else None),
        sum(session.n_frames for session in chosen.sampled),
        sum(session.n_frames for session in chosen.held_out),
        n_run,
        time.perf_counter() - began,
        tuple(messages),
    )


# ------------------------------------------------------------------ what is asked for


def _settled(config: FitConfig, grid: ScanGrid, chains: int) -> FitConfig:
    """Settings that all points share; refuses what no scan can do."""
    problems = []
    if config.until_settled:
        problems.append(
            Problem(
                "chains of equal length, which can be compared",
                "`until_settled=True`",
                "`until_settled=`",
                "leave it out, and give `sweeps=`",
            )
        )
    config = config.resolved(ar_sweeps=config.first_sweeps)
    if "stage" not in config.given:
        config = config.resolved(stage="ar")
    if config.from_model is not None:
        problems.append(
            Problem(
                "chains that begin anew",
                repr(config.from_model),
                "`from_model=`",
                "leave it out",
            )
        )
    if len(grid.values.get("latent_dim", ())) > 1 and config.stage != "ar":
        problems.append(
            Problem(
                "`stage='ar'` where latent dims vary, as each number of them has a pose space of "
                "its own in the full stage",
                f"`stage={config.stage!r}`",
                "`latent_dim=`",
                "leave `stage=` out, or give one number of latent dims",
            )
        )
    if isinstance(chains, bool) or not isinstance(chains, int) or chains < 1:
        problems.append(
            Problem(
                "a whole number, 1 or more", repr(chains), "`chains=`", "leave it out to have 3"
            )
        )
    if problems:
        raise InputError.of(problems)
    for point in grid.points:
        config_of(point, config)  # all of them, before the first runs
    # Likelihoods take the memory that certainty would, for which the plan then has room.
    return settle_tiles(config.resolved(certainty=True))


def _not_held_out(config: FitConfig) -> InputError:
    return InputError(
        expected="`stage='ar'` to hold sessions out: in the full stage their pose is not known",
        found=f"`stage={config.stage!r}`",
        where="`held_out=`",
        fix="leave it out; the expected marginal likelihood compares such chains",
    )


def _notify(callbacks: Sequence[Callback], messages: list[str], event: Event) -> None:
    if isinstance(event, Noted):
        if event.text in messages:  # of a chain before
            return
        messages.append(event.text)
    for callback in callbacks:
        callback(event)
