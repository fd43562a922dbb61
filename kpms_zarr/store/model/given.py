"""Models of given parameters: the true ones of simulated sessions, or those of another model.

``apply`` labels with them as with a fitted model. They have labels of one session only, so that it
begins anew in all the others: nothing of a fit leads to what it finds there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model.models import (
    LabelWriter,
    copy_labels,
    open_labels,
    open_parameters,
    write_parameters,
)
from kpms_zarr.store.study.close_pairs import ClosePairs
from kpms_zarr.store.study.settings import read_settings

_BY_FRAME = ("syllable", "latent", "centroid", "heading")


def write_truth(
    store: StoreLike,
    study: ClosePairs,
    *,
    model: str,
    settings: Mapping[str, Any],
    session: int,
) -> str:
    """Publish the true parameters of simulated sessions as a model.

    Parameters
    ----------
    store : path or URL
        With the sessions of the study, by their names.
    study : ClosePairs
    model : str
    settings : mapping
        Of the fit that would have found them, such as ``FitConfig.to_dict`` gives.
    session : int
        Whose true labels and pose are published, too.

    Returns
    -------
    str
        The version.
    """
    root = access.open_group(store, "r+")
    truth, n_states = study.truth, 2 * study.n_pairs
    known = _session(root, study.session_names[session])
    writer = LabelWriter(
        root, model, sessions=(known,), settings=read_settings(root), names=_BY_FRAME,
        n_latent=study.n_latent,
    )  # fmt: skip
    drawn = study.session(session)
    for block in iter_blocks([known]):
        rows = slice(block.start, block.stop)
        values = {name: getattr(drawn, name)[rows] for name in _BY_FRAME}
        writer.write(replace(block, session=0), values)
    values = {
        "keypoint": np.asarray(study.settings.keypoints, dtype=object),
        "space": np.asarray(study.settings.space, dtype=object),
        "pose_loading": truth.loading,
        "pose_mean": truth.mean,
        "ar_weight": truth.weight,
        "ar_bias": truth.bias,
        "ar_covariance": truth.covariance,
        "state_usage": truth.usage,
        "transition_probability": truth.transition,
        "noise_variance": np.full(study.n_keypoints, study.noise_variance),
        "trace_stage": np.asarray(["full"], dtype=object),
        "trace_log_likelihood": np.array([np.nan]),
        "trace_kappa": np.array([float(settings.get("kappa") or 1.0)]),
        "trace_median_duration": np.array([study.mean_duration * np.log(2)]),
        "trace_n_used": np.array([n_states]),
        "trace_usage": truth.usage[None],
        "trace_seconds": np.zeros(1),
    }
    attrs = {
        "fix_heading": False,
        "is_turned": True,
        "centroid_step_variance": study.step_variance,
        "n_sweeps_in_all": 1,
        "outlier_scale": "none",
    }
    write_parameters(root, model, writer.version, values, settings, attrs)
    return writer.publish("fit", settings)


def write_reseeded(store: StoreLike, *, model: str, name: str, seed: int, session: str) -> str:
    """Publish the parameters of a model once more, for labels by other random numbers.

    Parameters
    ----------
    store : path or URL
    model : str
        Name of the model, or ``NAME@v1`` for a version of its labels.
    name : str
        Of the new one.
    seed : int
    session : str
        Whose labels are taken along.

    Returns
    -------
    str
        The version.
    """
    root = access.open_group(store, "r+")
    of, _, version = model.partition("@")
    labels = open_labels(store, of, version or None)
    version = version or str(root[f"models/{of}/labels"].attrs["current"])
    found = open_parameters(store, of, version).load()
    settings = {**provenance_of(found.attrs)["settings"], "seed": seed}
    told = attributes.read(found.attrs)
    attrs = {k: v for k, v in told.items() if k not in ("provenance", "fit_id")}
    known = _session(root, session)
    row = labels["session"].values.tolist().index(session)
    study = read_settings(root)
    study = replace(study, keypoints=tuple(map(str, found["keypoint"].values)))
    names = tuple(name for name in (*_BY_FRAME, *_BESIDE) if name in labels)
    writer = LabelWriter(
        root, name, sessions=(known,), settings=study, names=names,
        n_latent=found.sizes["latent_dim"], scale=[float(labels["scale"].values[row])],
    )  # fmt: skip
    copy_labels(root, of, version, writer, names, without=())
    values = {str(one): found[one].values for one in found.variables}
    write_parameters(root, name, writer.version, values, settings, attrs)
    return writer.publish("fit", settings)


_BESIDE = ("certainty", "second_syllable", "second_certainty", "noise_scale")


def _session(root: access.Group, name: str) -> Session:
    return next(session for session in access.sessions(root) if session.name == name)
