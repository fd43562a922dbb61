"""A published model of the same store that another fit goes on from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.sweep import Parameters
from kpms_zarr.store import access
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.models import open_labels, open_parameters, require_model

_SETTLED = ("n_states", "lags", "scale")


@dataclass(frozen=True)
class StartModel:
    """State and parameters of a published model.

    Attributes
    ----------
    name : str
    labels : xarray.Dataset
        Lazy.
    parameters : Parameters
    noise_variance : ndarray or None, (keypoint,)
    loading : ndarray, (latent, keypoint, space)
    mean : ndarray, (keypoint, space)
        In model units.
    scale : dict of str to float
        Name of the session -> units of position per model unit.
    step_variance : float or None
        sigma2_loc, in model units squared.
    n_sweeps : int
        Sweeps that led to it, those of the models before it included.
    version : str
        Of its labels.
    settled : dict
        Settings that a fit which goes on from it shares with it.
    """

    name: str
    labels: xr.Dataset
    parameters: Parameters
    noise_variance: np.ndarray | None
    loading: np.ndarray
    mean: np.ndarray
    scale: dict[str, float]
    step_variance: float | None
    n_sweeps: int
    version: str
    settled: dict[str, Any]

    @classmethod
    def of(cls, store: StoreLike, name: str) -> StartModel:
        """Open a model.

        Raises
        ------
        InputError
            When there is no such model, or it lacks sessions of the store.
        """
        labels = open_labels(store, name)
        found = open_parameters(store, name).load()
        sessions = [str(session) for session in labels["session"].values]
        root = access.open_group(store)
        lost = [
            session.name
            for session in access.require_sessions(root, os.fspath(store))
            if session.name not in sessions
        ]
        if lost:
            raise InputError(
                expected=f"a model of all sessions of the store as --from-model {name}",
                found=f"no labels of {', '.join(lost)}",
                where=os.fspath(store),
                fix="fit a new model with --stage both, which includes them",
            )
        weight_bias = np.concatenate(
            [found["ar_weight"].values, found["ar_bias"].values[..., None]], -1
        )
        parameters = Parameters(
            Dynamics(weight_bias, found["ar_covariance"].values),
            found["state_usage"].values,
            found["transition_probability"].values,
        )
        scale = labels["scale"].values if "scale" in labels else np.ones(len(sessions))
        settings = found.attrs["provenance"]["settings"]
        keypoints = tuple(str(keypoint) for keypoint in found["keypoint"].values)
        settled = {name: settings[name] for name in _SETTLED if name in settings}
        settled |= {
            "latent_dim": found.sizes["latent_dim"],
            "use_keypoints": keypoints,
            "refine_pose": False,  # its components are kept
            "fix_heading": bool(found.attrs.get("fix_heading", False)),
        }
        return cls(
            name,
            labels,
            parameters,
            found["noise_variance"].values if "noise_variance" in found else None,
            found["pose_loading"].values,
            found["pose_mean"].values,
            dict(zip(sessions, scale.tolist(), strict=True)),
            found.attrs.get("centroid_step_variance"),
            int(found.attrs.get("n_sweeps_in_all", found.sizes["sweep"])),
            require_model(store, name),
            settled,
        )

    def read(self, session: str, start: int, stop: int) -> dict[str, np.ndarray]:
        """Labels, latent pose, centroid, heading and, where saved, noise of some frames."""
        row = self.labels["session"].values.tolist().index(session)
        every = ("syllable", "latent", "centroid", "heading", "noise_scale")
        names = [name for name in every if name in self.labels]
        return {name: self.labels[name][row, start:stop].values for name in names}

    def conflict(self, name: str, given: object, value: object) -> Problem:
        """What to say about a setting that differs from that of the model."""
        option = "--" + name.replace("_", "-")
        return Problem(
            f"{as_typed(value)}, as in the model {self.name!r} that the fit goes on from",
            as_typed(given),
            option,
            f"leave {option} out, or fit with --stage both",
        )


def as_typed(value: object) -> str:
    """A value of a setting as a person types it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
