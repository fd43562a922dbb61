"""A published model of the same store that another fit goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.sampler.tracked import NoiseByConfidence
from kpms_zarr.compute.tracking.outliers import OutlierModel, from_store
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.model.models import open_labels, require_model, require_parameters
from kpms_zarr.store.wording import as_typed

_SETTLED = ("n_states", "lags", "scale")


class Members(NamedTuple):
    """Models that a consensus is made of, and how they vote.

    Attributes
    ----------
    names, versions : tuple of str
        Of the models and of their parameters.
    are_applied : bool
        Whether all of them label any session by their parameters.
    syllable : ndarray, (member, member_state) int16
        That a state votes for; -1 = none.
    price : float
        Of a change of label.
    """

    names: tuple[str, ...]
    versions: tuple[str, ...]
    are_applied: bool
    syllable: np.ndarray
    price: float

    @classmethod
    def from_store(cls, parameters: xr.Dataset) -> Members:
        """Members of a published consensus."""
        return cls(
            tuple(map(str, parameters["member"].values)),
            tuple(map(str, parameters["member_version"].values)),
            bool(parameters["member_is_applied"].values.all()),
            parameters["member_syllable"].values,
            float(parameters.attrs["change_price"]),
        )

    def open(self, store: StoreLike) -> tuple[StartModel, ...]:
        """Open all members.

        Raises
        ------
        InputError
            When one is no longer in the store.
        """
        found = []
        for name, version in zip(self.names, self.versions, strict=True):
            try:
                found.append(StartModel.of(store, name, version))
            except InputError as error:
                raise InputError(
                    expected=f"the models {', '.join(self.names)}, which vote for its labels",
                    found=f"no model {name!r} with the parameters {version}",
                    where=os.fspath(store),
                    fix="fit them again, or publish one draw of the consensus itself: `draw=True`",
                ) from error
        return tuple(found)


@dataclass(frozen=True)
class StartModel:
    """State and parameters of a published model.

    Attributes
    ----------
    labels : xarray.Dataset
        Lazy.
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
    stage : str
        That it ended with: ``"ar"`` or ``"full"``.
    kappa : float
        At its end.
    is_turned : bool
        Whether headings were fitted together with the components.
    settings : dict
        Of its fit.
    settled : dict
        Settings that a fit which goes on from it shares with it.
    outliers : OutlierModel or None
        By what its keypoints were found to be outlying; None = all were believed.
    members : Members or None
        Models that it is the consensus of.
    noise : NoiseByConfidence or None
        In model units; None = not kept, as by earlier releases and by the AR stage.
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
    stage: str
    kappa: float
    is_turned: bool
    settings: dict[str, Any]
    settled: dict[str, Any]
    outliers: OutlierModel | None = None
    members: Members | None = None
    noise: NoiseByConfidence | None = None

    @classmethod
    def of(cls, store: StoreLike, name: str, version: str | None = None) -> StartModel:
        """Open a model.

        Parameters
        ----------
        version : str, optional
            Of its labels (default: the current one).

        Raises
        ------
        InputError
            When there is no such model, or it has labels only.
        """
        version = version or require_model(store, name)
        labels = open_labels(store, name, version)
        found = require_parameters(store, name, version).load()
        sessions = [str(session) for session in labels["session"].values]
        scale = labels["scale"].values if "scale" in labels else np.ones(len(sessions))
        settings = provenance_of(found.attrs)["settings"]
        keypoints = tuple(str(keypoint) for keypoint in found["keypoint"].values)
        settled = {name: settings[name] for name in _SETTLED if name in settings}
        settled |= {
            "latent_dim": found.sizes["latent_dim"],
            "use_keypoints": keypoints,
            "refine_pose": False,  # its components are kept
            "fix_heading": bool(found.attrs.get("fix_heading", False)),
            "outlier_scale": settings.get("outlier_scale"),  # models of before lack it
        }
        stage = "ar" if settings.get("stage", "ar") == "ar" else "full"
        return cls(
            name,
            labels,
            Parameters.from_store(found.variables),
            found["noise_variance"].values if "noise_variance" in found else None,
            found["pose_loading"].values,
            found["pose_mean"].values,
            dict(zip(sessions, scale.tolist(), strict=True)),
            found.attrs.get("centroid_step_variance"),
            # Labels that were applied have used the numbers of further sweeps.
            max(
                int(found.attrs.get("n_sweeps_in_all", found.sizes["sweep"])),
                int(labels.attrs.get("n_sweeps_in_all", 0)),
            ),
            version,
            stage,
            float(found["trace_kappa"].values[-1]),
            bool(found.attrs.get("is_turned", settings.get("refine_pose") and stage != "ar")),
            dict(settings),
            settled,
            from_store(found.variables, found.attrs),
            Members.from_store(found) if "member_syllable" in found else None,
            NoiseByConfidence.from_attributes(found.attrs),
        )

    def read(self, session: str, start: int, stop: int | None) -> dict[str, np.ndarray]:
        """Labels, latent pose, centroid, heading and, where saved, noise of some frames."""
        row = self._rows[session]
        stop = int(self.labels["n_frames"].values[row]) if stop is None else stop
        every = ("syllable", "latent", "centroid", "heading", "noise_scale")
        names = [name for name in every if name in self.labels]
        return {name: self.labels[name][row, start:stop].values for name in names}

    @cached_property
    def sessions(self) -> frozenset[str]:
        """Sessions with labels."""
        return frozenset(self.scale)

    @cached_property
    def _rows(self) -> dict[str, int]:
        names = self.labels["session"].values.tolist()
        return {str(name): row for row, name in enumerate(names)}

    def labels_of(self, session: str, start: int) -> np.ndarray:
        """Labels of a session from a frame on: (frame,)."""
        row = self._rows[session]
        stop = int(self.labels["n_frames"].values[row])
        return np.asarray(self.labels["syllable"][row, start:stop].values)

    def scale_of(
        self, sessions: Sequence[Session], measured: Mapping[int, float]
    ) -> dict[int, float]:
        """Units of position per model unit: those of the model, also for sessions new to it.

        Parameters
        ----------
        measured : mapping of int to float
            What a fit of these sessions alone would take; used for new sessions when every
            session has its own.
        """
        has_own = self.settled.get("scale") == "session"
        common = next(iter(self.scale.values()))
        return {
            session.index: self.scale.get(
                session.name, measured[session.index] if has_own else common
            )
            for session in sessions
        }

    def conflict(self, name: str, requested: object, value: object) -> Problem:
        """Message on a setting that differs from that of the model."""
        option = f"`{name}=`"
        return Problem(
            f"{as_typed(value)}, as in the model {self.name!r} that the fit goes on from",
            as_typed(requested),
            option,
            f"leave {option} out, or fit with `stage='both'`",
        )


def with_start(config: FitConfig, start: StartModel, notify: Callback) -> FitConfig:
    """Replace settings by those that a start model fixes: keypoints, units, size of the model.

    Raises
    ------
    InputError
        For settings that were given and differ.
    """
    problems = []
    changes = {}
    for name, value in start.settled.items():
        given = getattr(config, name)
        if given != value and name in config.given:
            problems.append(start.conflict(name, given, value))
        if given != value:
            changes[name] = value
    if problems:
        raise InputError.of(problems)
    if changes:
        listed = ", ".join(f"{name} {as_typed(value)}" for name, value in changes.items())
        notify(Noted(f"as in the model {start.name!r}: {listed}"))
    return config.resolved(**changes)
