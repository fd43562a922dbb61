"""Denoised keypoint positions, computed from the labels of a model when they are read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.names import hint, match
from kpms_zarr.store.core.schema import variable
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.wording import listed

_MOST_NAMES = 12


def reconstruct(
    store: StoreLike, model: str, session: str | None = None, *, version: str | None = None
) -> xr.DataArray:
    """Denoised keypoint positions, lazily.

    ``centroid + scale * rotation(heading) @ (pose_mean + latent @ pose_loading)``, where the
    rotation turns the first two axes of space. For a model of the AR stage alone this is the
    reconstruction from the principal components; its centroid and heading are those of the
    tracking, with gaps interpolated.

    Parameters
    ----------
    store : path or URL
    model : str
    session : str, optional
        Name (default: all sessions).
    version : str, optional
        Of the labels (default: the current one).

    Returns
    -------
    DataArray, (frame, keypoint, space) or (session, frame, keypoint, space), float32
        ``position`` of the keypoints of the model, in units of position: Dask chunks of one
        session each, nothing computed. Of one session its real frames; of all sessions NaN from
        ``n_frames`` of a session on.

    Raises
    ------
    InputError
        When there is no such model, version or session, or the version has no poses.
    """
    path = models.labels_path(store, model, version)
    labels = access.dataset(store, path, chunks={})
    where = f"{store}, model {model!r}"
    _require(("latent", "centroid", "heading"), labels, "labels", where)
    if session is not None:
        labels = _one_session(labels, session, where)
    parameters = _parameters(store, model, path, where)
    loading = parameters["pose_loading"].transpose("latent_dim", "keypoint", "space")
    mean = parameters["pose_mean"].transpose("keypoint", "space")
    position = xr.apply_ufunc(
        place_pose,
        labels["latent"],
        labels["centroid"],
        labels["heading"],
        _scale(labels),
        input_core_dims=[["latent_dim"], ["space"], [], []],
        output_core_dims=[["keypoint", "space"]],
        kwargs={"loading": loading.values, "mean": mean.values},
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"keypoint": loading.sizes["keypoint"]}},
    )
    kept = {name: labels[name].variable.compute() for name in ("session", "n_frames", "fps")}
    names = {name: parameters[name].values for name in ("keypoint", "space")}
    position = position.reset_coords(drop=True).assign_coords({**kept, **names})
    position.attrs = {
        "long_name": f"keypoint position, denoised by the model {model}",
        "units": variable("keypoints", "position").units,
    }
    return position.rename("position")


def place_pose(
    latent: np.ndarray,
    centroid: np.ndarray,
    heading: np.ndarray,
    scale: np.ndarray | float,
    *,
    loading: np.ndarray,
    mean: np.ndarray,
) -> np.ndarray:
    """Keypoint positions of some frames, computed in float64 (see :func:`reconstruct`).

    Parameters
    ----------
    latent : ndarray, (..., latent_dim)
    centroid : ndarray, (..., space)
    heading : ndarray, (...)
        In rad.
    scale : ndarray or float, broadcasts to (...)
    loading : ndarray, (latent_dim, keypoint, space)
    mean : ndarray, (keypoint, space)

    Returns
    -------
    ndarray, (..., keypoint, space) float32
    """
    pose = mean + np.tensordot(latent.astype(np.float64), loading, axes=1)
    turned = rotate(pose, heading.astype(np.float64))
    turned *= np.asarray(scale)[..., None, None]
    turned += centroid[..., None, :]
    return turned.astype(np.float32)


def _scale(labels: xr.Dataset) -> xr.DataArray:
    """Units of position per unit of the model, by session; versions without it: 1."""
    if "scale" not in labels.variables:
        return xr.DataArray(1.0)
    return labels["scale"].reset_coords(drop=True).compute()


def _one_session(labels: xr.Dataset, session: str, where: str) -> xr.Dataset:
    """The real frames of a session."""
    names = [str(name) for name in labels["session"].values]
    known = match(str(session), names)
    if known is None:
        raise InputError(
            expected=f"one of the labelled sessions {listed(names, _MOST_NAMES)}",
            found=repr(session),
            where=where,
            fix=hint(str(session), names)
            + "list them with open_labels(store, model).session.values",
        )
    chosen = labels.isel(session=names.index(known))
    return chosen.isel(frame=slice(0, int(chosen["n_frames"])))


def _parameters(store: StoreLike, model: str, path: str, where: str) -> xr.Dataset:
    """Pose parameters behind the labels at a path."""
    version = path.rsplit("/", 1)[1]
    try:
        parameters = models.open_parameters(store, model, version)
    except (KeyError, FileNotFoundError):
        parameters = xr.Dataset()
    _require(("pose_loading", "pose_mean", "keypoint", "space"), parameters, "parameters", where)
    return parameters


def _require(names: Iterable[str], data: xr.Dataset, what: str, where: str) -> None:
    missing = [name for name in names if name not in data.variables]
    if missing:
        raise InputError(
            expected=", ".join(missing),
            found=f"a version of the {what} without",
            where=where,
            fix="fit a model with this release, which stores them; imported labels have none",
        )
