"""A model of a store, opened once: all that views read of it, each part when it is first used."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.model.levels import open_levels
from kpms_zarr.store.model.reconstruction import place_pose
from kpms_zarr.store.model.replicability import Replicability, open_replicability
from kpms_zarr.store.model.syllable_names import SyllableNames, read_names
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.guessing import DrawnSettings, drawn_settings
from kpms_zarr.viz.shared.reading import MissingData

POSE_BY_FRAME = ("latent", "centroid", "heading")
"""Variables of the labels from which poses are made."""


@dataclass(frozen=True)
class PoseDecoder:
    """Decoder from latent poses to positions; see ``store.model.reconstruction``.

    Attributes
    ----------
    loading : ndarray, (latent_dim, keypoint, space)
    mean : ndarray, (keypoint, space)
    scale : ndarray, (session,)
        Units of position per unit of the model; sessions are those of the labels.
    """

    keypoints: tuple[str, ...]
    loading: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @property
    def n_space(self) -> int:
        """Number of axes, 2 or 3."""
        return int(self.mean.shape[1])

    def place(
        self, latent: np.ndarray, centroid: np.ndarray, heading: np.ndarray, row: int
    ) -> np.ndarray:
        """Place poses of a session: (frame, keypoint, space) float32, in units of position.

        Parameters
        ----------
        latent : ndarray, (frame, latent_dim)
        centroid : ndarray, (frame, space)
        heading : ndarray, (frame,)
            In rad.
        row : int
            Of the session in the labels.
        """
        scale = np.asarray(self.scale[row])
        return place_pose(latent, centroid, heading, scale, loading=self.loading, mean=self.mean)


class OpenModel:
    """One version of the labels of a model, and what is behind it.

    Everything is read when it is first used, and kept: a published version never changes.

    Parameters
    ----------
    version : str, optional
        Of the labels (default: the current one).

    Attributes
    ----------
    store, model, version
        As given; the version is never left open.

    Raises
    ------
    InputError
        For a model that does not exist; for a version that does not, when it is read.
    """

    def __init__(self, store: StoreLike, model: str, version: str | None = None) -> None:
        self.store, self.model = store, model
        self.version = version or models.require_model(store, model)
        self._levels: xr.Dataset | None = None

    @classmethod
    def of(cls, store: StoreLike, model: ModelLike, version: str | None = None) -> OpenModel:
        """Open a model, unless ``model`` is one that is open already."""
        return model if isinstance(model, OpenModel) else cls(store, model, version)

    # -------------------------------------------------------------- groups

    @cached_property
    def labels(self) -> xr.Dataset:
        """Labels, lazily: ``syllable`` (session, frame) and more (see ``schema.LABELS``)."""
        return models.open_labels(self.store, self.model, self.version)

    @cached_property
    def parameters(self) -> xr.Dataset:
        """Parameters and traces, lazily.

        Raises
        ------
        MissingData
            When the version has labels only.
        """
        try:
            return models.open_parameters(self.store, self.model, self.version)
        except (KeyError, FileNotFoundError) as error:
            raise MissingData(
                expected="parameters and traces",
                found="a version that has labels only",
                where=str(self.store),
                fix="fit a model with this release, which stores them; imported labels have none",
            ) from error

    @property
    def levels(self) -> xr.Dataset | None:
        """Levels of detail of the labels, lazily; None until the store has some."""
        if self._levels is None:
            self._levels = open_levels(self.store, self.model, self.version)
        return self._levels

    @cached_property
    def tracked(self) -> xr.Dataset:
        """Tracked data and the table of sessions, lazily."""
        return access.dataset(self.store, layout.KEYPOINTS)

    def labels_with(self, *names: str) -> xr.Dataset:
        """Labels with some variables.

        Raises
        ------
        MissingData
            With the names of those that they lack.
        """
        reading.require(self.labels, names, self.store, "labels")
        return self.labels

    def parameters_with(self, *names: str) -> xr.Dataset:
        """Parameters with some variables; see :meth:`labels_with`."""
        reading.require(self.parameters, names, self.store, "parameters")
        return self.parameters

    # -------------------------------------------------------------- what is in them

    @cached_property
    def names(self) -> SyllableNames:
        """Names that people gave to the syllables."""
        return read_names(self.store, self.model, self.version)

    @cached_property
    def replicability(self) -> Replicability:
        """How far its syllables replicate, as far as that was measured.

        Raises
        ------
        MissingData
            When the version has no statistics.
        """
        return open_replicability(self.store, self.model, self.labels_with("frequency"))

    @cached_property
    def settings(self) -> DrawnSettings:
        """Settings of the study, with a skeleton also where nobody has given one."""
        return drawn_settings(self.store)

    @cached_property
    def sessions(self) -> tuple[Session, ...]:
        """Labelled sessions, in the order of the labels."""
        return reading.label_sessions(self.labels)

    @property
    def rates(self) -> list[float]:
        """Frames per second of each labelled session."""
        return [session.fps for session in self.sessions]

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Syllables in use, most frequent first; see ``reading.used_states``.

        Raises
        ------
        MissingData
            When the version has no statistics.
        """
        return tuple(int(one) for one in reading.used_states(self.labels_with("frequency")))

    @cached_property
    def pose(self) -> PoseDecoder:
        """Map from the latent poses of the labels to positions.

        Raises
        ------
        MissingData
            When the version has no poses.
        """
        labels = self.labels_with(*POSE_BY_FRAME)
        data = self.parameters_with("pose_loading", "pose_mean", "keypoint")
        scale = labels["scale"].values if "scale" in labels.variables else None
        return PoseDecoder(
            tuple(str(name) for name in data["keypoint"].values),
            data["pose_loading"].transpose("latent_dim", "keypoint", "space").values,
            data["pose_mean"].transpose("keypoint", "space").values,
            np.ones(labels.sizes["session"]) if scale is None else scale,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """Provenance of the labels."""
        return provenance_of(self.labels.attrs)

    def check_syllable(self, syllable: int) -> None:
        """Refuse a syllable that the model does not have (InputError)."""
        n_states = self.labels.sizes.get("state", 0)
        if not 0 <= syllable < n_states:
            raise InputError(
                expected=f"a syllable from 0 to {n_states - 1}",
                found=str(syllable),
                where=str(self.store),
                fix="kpms_zarr.summary(store, model=...) lists those that occur",
            )

    def require_bouts(self) -> None:
        """Check that at least one frame has a syllable (MissingData)."""
        if not np.nansum(self.labels["frequency"].values) > 0:
            raise MissingData(
                expected="any syllable",
                found="a version of the labels without",
                where=str(self.store),
                fix="look at the tracking with `kpms_zarr.quality` and fit again",
            )

    def renamed(self, names: SyllableNames) -> OpenModel:
        """Copy with other names of the syllables; all else that was read is shared."""
        other = copy.copy(self)
        other.__dict__["names"] = names
        return other


ModelLike = str | OpenModel
"""Name of a model, or one that is open already, with its store and version."""


def certainty_words(opened: OpenModel) -> str:
    """A sentence on what pale labels mean, by what the certainty of the model is."""
    n = opened.replicability.n_members if "frequency" in opened.labels else 1
    if n > 1:
        why = f"the fewer of the {n} chains have that label"
    elif "second_certainty" in opened.labels:
        why = "the fewer of the last sweeps have that label; other chains may have others"
    else:
        why = "the less probable they are given the pose and the parameters of this one chain"
    return f"Labels are the paler, {why}."
