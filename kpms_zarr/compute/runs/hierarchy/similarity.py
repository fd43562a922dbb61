"""How alike the syllables of a model are: by evidence, by prediction, by their trajectories."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from kpms_zarr.compute.kernels.ar import unpack
from kpms_zarr.compute.kernels.dynamics import Dynamics, posterior_of
from kpms_zarr.compute.kernels.evidence import merge_gains, recentred
from kpms_zarr.compute.runs.hierarchy.label_sums import LabelSums, count_frames, label_sums
from kpms_zarr.compute.runs.hierarchy.onset_poses import SECONDS, distances, onset_poses
from kpms_zarr.compute.runs.hierarchy.posed_frames import PosedFrames
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import variable
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import labels_path, open_labels
from kpms_zarr.store.model.replicability import Replicability, open_replicability
from kpms_zarr.store.model.syllable_names import read_names
from kpms_zarr.store.wording import call, counted, listed

KINDS = ("evidence", "prediction", "trajectories")
_PAIR = ("state", "state_other")


def similarity(
    store: StoreLike,
    *,
    model: str,
    kind: str = "evidence",
    version: str | None = None,
    syllables: Sequence[int] | None = None,
) -> xr.Dataset:
    """Measure how alike the syllables of a model are, each with each, and build a tree of them.

    ``"evidence"``: log Bayes factor that the frames of two syllables are those of one state, all
    parameters integrated out (matrix-normal inverse-Wishart dynamics, after Fox et al., IEEE Trans.
    Signal Process. 59:1569, 2011; sticky Dirichlet transitions): above 0 they are one. It is what
    ``merge(evidence=True)`` goes by. ``"prediction"``: by how much the dynamics of one syllable
    predict the frames of another worse than its own do. ``"trajectories"``: distance between the
    mean poses around onsets, seen from the animal. One pass over the frames, block by block.

    Parameters
    ----------
    store : path or URL
    model : str
    kind : str
        ``"evidence"``, ``"prediction"`` or ``"trajectories"``.
    version : str, optional
        Of the labels (default: the current one).
    syllables : sequence of int, optional
        To compare (default: all that occur).

    Returns
    -------
    xarray.Dataset
        ``distance`` (state, state_other), symmetric, that the tree is built on, and of evidence
        ``log_bayes_factor`` with its parts ``of_dynamics`` and ``of_transitions`` [nat]; of
        prediction ``log_density`` of frames of ``state`` under the dynamics of ``state_other``,
        ``excess`` over its own [nat / frame] and their mean in both directions; of trajectories
        ``n_bouts`` (state). ``linkage`` (merge, column) as :func:`scipy.cluster.hierarchy.linkage`
        gives it (average linkage), ``leaf`` (leaf): syllables in the order of the tree. By
        ``state`` the coordinates ``frequency``, ``name`` and, where they are known, ``family``.
        Attributes say what is measured, and of what: ``definition``, ``pose``, ``parameters_from``,
        ``left_out``.

    Raises
    ------
    InputError
        When there is no such model, version, kind or syllable; fewer than two occur; or neither
        the labels nor the store have a pose to go by.
    """
    if kind not in KINDS:
        raise InputError(
            expected=f"one of {', '.join(KINDS)}",
            found=repr(kind),
            where="`kind=`",
            fix="choose one of these",
        )
    found = labels_path(store, model, version).rsplit("/", 1)[1]
    frames = PosedFrames.of(store, model, found, needs_pose=kind == "trajectories")
    measure: Callable[[PosedFrames], tuple[dict[str, Any], np.ndarray, dict[str, Any]]] = {
        "evidence": _evidence,
        "prediction": _prediction,
        "trajectories": _trajectories,
    }[kind]
    values, n, attrs = measure(frames)
    states = _chosen(n, syllables, f"{os.fspath(store)}, model {model!r}, {found}", store, model)
    # All are 0 from themselves.
    is_measured = np.isfinite(values["distance"][1][np.ix_(states, states)]).sum(1) > 1
    left = [*attrs.pop("left_out"), *_unmeasured(states[~is_measured])]
    states = states[is_measured]
    table = _table(values, states)
    table.attrs = {
        "model": model,
        "version": found,
        "kind": kind,
        **attrs,
        "pose": frames.origin,
        "left_out": "\n".join(left),
    }
    _describe(table, store, model, found, states)
    return table.merge(_tree(table["distance"].values, states), combine_attrs="override")


def _chosen(
    n: np.ndarray, syllables: Sequence[int] | None, where: str, store: StoreLike, model: str
) -> np.ndarray:
    """Syllables to compare, of those with so many frames or bouts, (state,)."""
    occur = np.flatnonzero(n > 0)
    if syllables is None:
        wanted = occur
    else:
        odd = sorted({int(one) for one in syllables if int(one) not in occur})
        if odd:
            raise InputError(
                expected="syllables that occur",
                found=f"{listed(map(str, odd))}, which no frame has",
                where=f"{where}, `syllables=`",
                fix=f"list them with: {call('summary', store, model=model)}",
            )
        wanted = np.unique(np.asarray(syllables, np.int64))
    if len(wanted) < 2:
        raise InputError(
            expected="at least two syllables to compare",
            found=str(len(wanted)),
            where=where,
            fix="name others, or another version of the labels",
        )
    return wanted


def _unmeasured(states: np.ndarray) -> list[str]:
    if not len(states):
        return []
    names = listed(map(str, states), 20)
    return [f"{counted(len(states), 'syllable')} without a whole bout to go by: {names}"]


def _table(values: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]],
           states: np.ndarray) -> xr.Dataset:  # fmt: skip
    table = xr.Dataset(coords={"state": states, "state_other": states})
    for name, (dims, array, attrs) in values.items():
        where = tuple(states if dim in _PAIR else np.arange(array.shape[axis])
                      for axis, dim in enumerate(dims))  # fmt: skip
        table[name] = (dims, array[np.ix_(*where)], attrs)
    return table


def _describe(
    table: xr.Dataset, store: StoreLike, model: str, version: str, states: np.ndarray
) -> None:
    """Add what is known of each syllable: frequency, name, family."""
    labels, called = open_labels(store, model, version), read_names(store, model, version)
    names = np.asarray([called.custom_name(int(one)) for one in states], dtype=object)
    table.coords["name"] = ("state", names)
    if "frequency" not in labels:
        return
    table.coords["frequency"] = ("state", labels["frequency"].values[states])
    known: Replicability = open_replicability(store, model, labels)
    if known.has_families:
        table.coords["family"] = ("state", known.family[states])


def _tree(distance: np.ndarray, states: np.ndarray) -> xr.Dataset:
    """Tree of average linkage, neighbours in it as near as they can stand."""
    if len(states) > 1:
        linkage = hierarchy.linkage(
            squareform(distance, checks=False), "average", optimal_ordering=True
        )
        leaf = states[hierarchy.leaves_list(linkage)]
    else:
        linkage, leaf = np.zeros((0, 4)), states
    about = "rows: the two that join (numbers in the order of state, from n on earlier rows), at "
    return xr.Dataset(
        {
            "linkage": (("merge", "column"), linkage, {"long_name": f"{about}what, of how many"}),
            "leaf": ("leaf", leaf, {"long_name": "syllables in the order of the tree"}),
        },
        {"column": np.asarray(["left", "right", "distance", "size"], dtype=object)},
    )


def _symmetric(distance: np.ndarray) -> np.ndarray:
    """Distances that rounding has left alike from both sides, and 0 to itself."""
    found: np.ndarray = (distance + distance.T) / 2
    np.fill_diagonal(found, 0.0)
    return found


# ------------------------------------------------------------------ the measures


def _left_out(sums: LabelSums) -> list[str]:
    if not sums.n_left_out:
        return []
    return [f"{counted(sums.n_left_out, 'frame')} whose pose is not a number"]


def n_frames_of(sums: LabelSums, frames: PosedFrames) -> np.ndarray:
    """Frames of each state that the sums are of: (state,) int64."""
    count, *_ = unpack(sums.moments, frames.n_latent, frames.lags)
    return np.rint(count).astype(np.int64)


def reference_of(frames: PosedFrames) -> np.ndarray:
    """[A b] that the residuals of the sums are under, (state, latent, lag * latent + 1)."""
    mean = frames.prior.dynamics.mean
    return np.broadcast_to(mean, (frames.labels.n_states, *mean.shape))


def _evidence(frames: PosedFrames) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    sums = label_sums(frames)
    n = n_frames_of(sums, frames)
    gain = _gains(sums, sums.transitions, frames)
    dynamics = _gains(sums, np.zeros_like(sums.transitions), frames)
    with np.errstate(invalid="ignore"):
        transitions = gain - dynamics
        shared = n[:, None] * n / np.maximum(1, n[:, None] + n)
        distance = np.maximum(0.0, -gain) / shared
    distance[~np.isfinite(distance)] = np.nan
    for one in (gain, dynamics, transitions):
        one[~np.isfinite(one)] = np.nan
    nat = {"units": "nat"}
    about = "that the frames of both are those of one state"
    values = {
        "log_bayes_factor": (
            _PAIR, gain, {**nat, "long_name": f"log Bayes factor {about}; above 0: one"}
        ),
        "of_dynamics": (_PAIR, dynamics, {**nat, "long_name": "its part that the pose tells"}),
        "of_transitions": (
            _PAIR, transitions, {**nat, "long_name": "its part that the changes of label tell"}
        ),
        "distance": (
            _PAIR,
            _symmetric(distance),
            {
                "units": "nat / frame",
                "long_name": "evidence lost when both become one, over n m / (n + m), where n and "
                "m are their frames; 0 where evidence is won",
            },
        ),
        "n_frames": (("state",), n, {"long_name": "frames that the evidence is of"}),
    }  # fmt: skip
    prior = frames.prior
    attrs = {
        "definition": "log p(frames, labels | one state) - log p(frames, labels | two states); "
        "dynamics and transitions integrated out (model.md 3.9)",
        "kappa": float(prior.transition.kappa),
        "alpha": float(prior.transition.alpha),
        "innovation_scale": float(prior.dynamics.innovation_scale),
        "weight_scale": float(prior.dynamics.weight_scale),
        "dof": float(prior.dynamics.dof),
        "lags": frames.lags,
        "left_out": _left_out(sums),
    }
    return values, n, attrs


def _gains(sums: LabelSums, counts: np.ndarray, frames: PosedFrames) -> np.ndarray:
    prior = frames.prior
    found = merge_gains(
        sums.moments, reference_of(frames), counts, prior.dynamics, prior.transition
    )
    np.fill_diagonal(found, np.nan)
    return found


def dynamics_of(frames: PosedFrames, sums: LabelSums) -> tuple[Dynamics, str]:
    """Dynamics of all states and where they are from: the fit, or given the frames.

    Those of a model of labels alone are the posterior mean of [A b] and the mean of Q.
    """
    if frames.dynamics is not None:
        return frames.dynamics, "the parameters of the model"
    return posterior_mean(frames, sums.moments), "the posterior mean given the frames"


def posterior_mean(frames: PosedFrames, moments: np.ndarray) -> Dynamics:
    """Posterior mean of [A b] and of Q given moments of states (model.md 3.3)."""
    reference = np.broadcast_to(
        frames.prior.dynamics.mean, (len(moments), *frames.prior.dynamics.mean.shape)
    )
    posterior = posterior_of(moments, reference, frames.prior.dynamics)
    free = np.maximum(posterior.dof - frames.n_latent - 1, 1.0)
    return Dynamics(reference + posterior.mean, posterior.scatter / free[:, None, None])


def log_densities(moments: np.ndarray, reference: np.ndarray, dynamics: Dynamics) -> np.ndarray:
    """Mean log density of the frames of each state under the dynamics of each.

    log N(x_t; A xbar + b, Q) of all frames, from their moments alone.

    Parameters
    ----------
    moments : ndarray, (state, pair)
        Of residuals under ``reference``.
    reference : ndarray, (state, latent, lag * latent + 1)
    dynamics : Dynamics
        Of all states.

    Returns
    -------
    ndarray, (state, state)
        Frames of the row under the dynamics of the column, in nat per frame; NaN of a state
        without frames.
    """
    n_latent, d = dynamics.weight_bias.shape[1:]
    lags = (d - 1) // n_latent
    found = np.full((len(moments), len(dynamics.covariance)), np.nan)
    count, *_ = unpack(moments, n_latent, lags)
    there = np.flatnonzero(count > 0)
    for other, (weight_bias, covariance) in enumerate(zip(*dynamics, strict=True)):
        turned = recentred(moments[there], reference[there], weight_bias)
        square = unpack(turned, n_latent, lags)[3]
        mahalanobis = np.trace(np.linalg.solve(covariance, square), axis1=1, axis2=2)
        constant = n_latent * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1]
        found[there, other] = -0.5 * (constant + mahalanobis / count[there])
    return found


def _prediction(frames: PosedFrames) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    sums = label_sums(frames)
    dynamics, origin = dynamics_of(frames, sums)
    density = log_densities(sums.moments, reference_of(frames), dynamics)
    excess = np.diagonal(density)[:, None] - density
    distance = np.maximum(0.0, _symmetric(excess))
    unit = {"units": "nat / frame"}
    values = {
        "log_density": (
            _PAIR,
            density,
            {**unit, "long_name": "mean log density of frames of state under the dynamics of "
             "state_other"},
        ),
        "excess": (
            _PAIR,
            excess,
            {**unit, "long_name": "log density of frames of state under its own dynamics minus "
             "that under the dynamics of state_other"},
        ),
        "distance": (
            _PAIR, distance, {**unit, "long_name": "mean of the excess in both directions"}
        ),
    }  # fmt: skip
    attrs = {
        "definition": "by how much worse each predicts the next pose in the frames of the other",
        "parameters_from": origin,
        "lags": frames.lags,
        "left_out": _left_out(sums),
    }
    return values, n_frames_of(sums, frames), attrs


def _trajectories(frames: PosedFrames) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    sums = onset_poses(frames)
    rows = [one.index for one in frames.labels.sessions]
    scale = np.unique(frames.scale[rows])
    unit = variable("keypoints", "position").units
    factor = float(scale[0])
    if len(scale) > 1:  # sessions of other sizes have one body in common
        factor, unit = 1.0, "units of the model, of which a body has about 100"
    values = {
        "distance": (
            _PAIR,
            _symmetric(factor * distances(sums.mean)),
            {
                "units": unit,
                "long_name": "root mean square distance between mean poses, over keypoints and "
                "moments",
            },
        ),
        "n_bouts": (("state",), sums.n_bouts, {"long_name": "bouts that the mean is of"}),
    }
    n_frames = np.maximum(sums.n_bouts, count_frames(frames.labels))
    left = [f"{counted(sums.n_left_out, 'bout')} at the ends of sessions or without a pose"]
    attrs = {
        "definition": "distance between the mean poses around onsets; centroid and heading of the "
        "animal at the onset are the origin and the first axis",
        "seconds": ", ".join(f"{one:g}" for one in SECONDS),
        "left_out": left if sums.n_left_out else [],
    }
    return values, n_frames, attrs
