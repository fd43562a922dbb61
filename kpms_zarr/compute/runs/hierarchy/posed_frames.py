"""Labels of a model with the latent pose of their frames, published or aligned anew."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.kernels.transitions import TransitionPrior
from kpms_zarr.compute.runs.preparation import Preparation, aligned_pose, prepare
from kpms_zarr.compute.runs.stages import dynamics_prior
from kpms_zarr.compute.sampler.prior import MERGE_KAPPA, ParameterPrior
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.settings import settings_of
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels, open_parameters
from kpms_zarr.store.wording import STORE, call

PUBLISHED, TRACKED = "published", "tracked"
"""Where the latent pose is from: it stands beside the labels, or was aligned for the purpose."""


@dataclass(frozen=True)
class PosedFrames:
    """Labels, latent pose, centroid and heading of all frames of a version, read by blocks.

    Attributes
    ----------
    labels : PosedLabels
    origin : str
        :data:`PUBLISHED` or :data:`TRACKED`.
    n_latent, lags : int
    prior : ParameterPrior
        Of the fit, or the defaults of this package where no fit of it made the labels; its
        stickiness is that at which states are merged, :data:`MERGE_KAPPA` at most.
    dynamics : Dynamics or None
        Of the states; None where the model has labels alone.
    loading : ndarray or None, (latent, keypoint, space)
        In units of the model; None where only the latent pose itself is known.
    mean : ndarray or None, (keypoint, space)
    scale : ndarray, (session,)
        Units of position per unit of the model, by row of the labels.
    """

    labels: PosedLabels
    origin: str
    n_latent: int
    lags: int
    prior: ParameterPrior
    dynamics: Dynamics | None
    loading: np.ndarray | None
    mean: np.ndarray | None
    scale: np.ndarray
    _tracked: tuple[Preparation, dict[int, int]] | None = None

    @classmethod
    def of(
        cls, store: StoreLike, model: str, version: str | None = None, *, needs_pose: bool = False
    ) -> PosedFrames:
        """Open a version of the labels of a model.

        Parameters
        ----------
        needs_pose : bool
            Whether positions of keypoints are needed, not the latent pose alone.

        Raises
        ------
        InputError
            When there is no such model or version; or it has no latent pose, and the store no
            components to which the tracked pose could be projected.
        """
        labels = PosedLabels(store, model, version)
        opened = open_labels(store, model, labels.version)
        parameters = parameters_of(store, model, labels.version)
        settings = {} if parameters is None else provenance_of(parameters.attrs)["settings"]
        config = _config(settings)
        has_loading = parameters is not None and "pose_loading" in parameters
        has_place = {"centroid", "heading"} <= set(opened.variables)
        if "latent" in opened and (not needs_pose or (has_loading and has_place)):
            scale = opened["scale"].values if "scale" in opened.variables else None
            n_latent = int(opened.sizes["latent_dim"])
            loading = mean = None
            if parameters is not None and has_loading:
                axes = ("latent_dim", "keypoint", "space")
                loading = parameters["pose_loading"].transpose(*axes).values
                mean = parameters["pose_mean"].transpose("keypoint", "space").values
            return cls(
                labels, PUBLISHED, n_latent, config.lags, _prior(config, n_latent, parameters),
                _dynamics(parameters), loading, mean,
                np.ones(opened.sizes["session"]) if scale is None else scale,
            )  # fmt: skip
        return cls._aligned(store, labels, config)

    @classmethod
    def _aligned(cls, store: StoreLike, labels: PosedLabels, config: FitConfig) -> PosedFrames:
        """Frames whose pose is that of the tracking, on the components of the store."""
        root = access.open_group(store)
        if access.subgroup(root, layout.PCA) is None:
            raise InputError(
                expected="a latent pose of the frames: beside the labels, or of the tracking",
                found="labels without one, and no components in the store",
                where=f"{os.fspath(store)}, model {labels.model!r}, {labels.version}",
                fix=f"find the components with: {call('pca', STORE)}",
            )
        known = {one.name: one.index for one in access.sessions(root)}
        names = tuple(one.name for one in labels.sessions)
        gone = [name for name in names if name not in known]
        if gone:
            raise InputError(
                expected="the tracking of all labelled sessions, for the labels have no pose",
                found=f"no session {gone[0]!r} in the store",
                where=f"{os.fspath(store)}, model {labels.model!r}, {labels.version}",
                fix="add its tracking again, or label the sessions that there are",
            )
        config = config.resolved(sessions=names, refine_pose=False)
        preparation = prepare(store, config, None, lambda event: None)
        rows = {one.index: known[one.name] for one in labels.sessions}
        scale = np.ones(1 + max((one.index for one in labels.sessions), default=0))
        for row, index in rows.items():
            scale[row] = preparation.scale[index]
        n_latent = len(preparation.loading)
        return cls(
            labels, TRACKED, n_latent, config.lags, _prior(config, n_latent, None), None,
            preparation.loading, preparation.mean, scale, (preparation, rows),
        )  # fmt: skip

    def latent(self, row: int, start: int, stop: int) -> np.ndarray:
        """Read the latent pose: (frame, latent) float64."""
        if self._tracked is None:
            found = np.asarray(self.labels._array("latent")[row, start:stop])
            return found.astype(np.float64)
        return self.place(row, start, stop)[0]

    def place(self, row: int, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Read latent pose, centroid (frame, space) and heading (frame,), in model units, rad."""
        if self._tracked is None:
            centroid = self.labels.centroid(row, start, stop)
            heading = self.labels.heading(row, start, stop)
            assert centroid is not None
            assert heading is not None
            latent = self.latent(row, start, stop)
            return latent, centroid.astype(np.float64) / self.scale[row], heading.astype(np.float64)
        preparation, rows = self._tracked
        return aligned_pose(preparation, Block(rows[row], start, stop))


def parameters_of(store: StoreLike, model: str, version: str) -> xr.Dataset | None:
    """Parameters behind a version of labels, in memory; None where it has labels alone."""
    try:
        return open_parameters(store, model, version).load()
    except (KeyError, FileNotFoundError):
        return None


def _config(settings: dict[str, Any]) -> FitConfig:
    """Settings of a fit, or the defaults for what it does not say."""
    known = {one.name for one, _ in settings_of(FitConfig)}
    names = {name: value for name, value in settings.items() if name in known}
    return FitConfig.from_store(names, settings.get("given")) if names else FitConfig()


def _prior(config: FitConfig, n_latent: int, parameters: xr.Dataset | None) -> ParameterPrior:
    kappa = MERGE_KAPPA
    if parameters is not None and parameters.sizes.get("sweep"):
        kappa = min(kappa, float(parameters["trace_kappa"].values[-1]))
    return ParameterPrior(
        dynamics=dynamics_prior(config, n_latent),
        transition=TransitionPrior(config.alpha, config.gamma, kappa),
    )


def _dynamics(parameters: xr.Dataset | None) -> Dynamics | None:
    if parameters is None or "ar_weight" not in parameters:
        return None
    return Parameters.from_store(parameters.variables).dynamics
