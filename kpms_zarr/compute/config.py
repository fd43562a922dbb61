"""Settings of a fit: frozen, with units, defaults and sources; unknown names are errors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from kpms_zarr.store.errors import InputError, Problem

STAGES = ("ar",)
PRECISIONS = ("float32", "float64")
INITS = ("kmeans", "prior")


@dataclass(frozen=True)
class FitConfig:
    """Settings of :func:`kpms_zarr.fit`.

    The model and the default hyperparameters are those of Weinreb et al., Nature Methods
    21:1329 (2024), and its supplement; the sticky HDP is Fox et al., Ann. Appl. Stat. 5:1020
    (2011).

    Attributes
    ----------
    stage : str
        ``"ar"``: syllables from the principal components of the aligned pose.
    sweeps : int
        Gibbs iterations.
    kappa : float
        Stickiness: larger means longer syllables. The value at the start when
        ``target_duration`` is given.
    target_duration : float or None
        Median syllable duration to reach, in ms; kappa is then adapted during the first 60 %
        of the sweeps and fixed afterwards.
    n_states : int
        Cap on the number of syllables.
    latent_dim : int or None
        Principal components to use; None = those for the variance given to ``pca``.
    lags : int
        Autoregressive order, in frames.
    seed : int
    precision : str
        ``"float32"`` or ``"float64"``, of what runs on the device.
    init : str
        ``"kmeans"``: first labels from clusters of pose and velocity; ``"prior"``: first
        parameters drawn from the prior, as the published package does.
    alpha, gamma : float
        Concentrations of the rows of the transition matrix and of the global state weights.
    innovation_scale : float
        S0 = innovation_scale * I, inverse-Wishart prior of the innovation covariance.
    innovation_dof : int
        Degrees of freedom of that prior beyond the latent dimension.
    weight_scale : float
        K0 = weight_scale * I, matrix-normal prior of the autoregressive weights.
    segment_frames : int
        Length of the pieces that run side by side. Speed only: pieces are conditioned on their
        neighbours and cut anew every sweep, so the posterior is that of the uncut sessions.
    tiles_in_flight : int
        Tiles of segments computed at the same time. Speed and memory only.
    """

    stage: str = "ar"
    sweeps: int = 50
    kappa: float = 1e6
    target_duration: float | None = None
    n_states: int = 100
    latent_dim: int | None = None
    lags: int = 3
    seed: int = 0
    precision: str = "float32"
    init: str = "kmeans"
    alpha: float = 5.7
    gamma: float = 1e3
    innovation_scale: float = 0.01
    innovation_dof: int = 2
    weight_scale: float = 10.0
    segment_frames: int = 256
    tiles_in_flight: int = 2

    def __post_init__(self) -> None:
        problems = [
            *self._check_choices(),
            *self._check_whole_numbers(),
            *self._check_positive_numbers(),
        ]
        if problems:
            raise InputError.of(problems)

    def _check_choices(self) -> list[Problem]:
        choices = {"stage": STAGES, "precision": PRECISIONS, "init": INITS}
        return [
            _problem(name, f"one of {', '.join(allowed)}", getattr(self, name))
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]

    def _check_whole_numbers(self) -> list[Problem]:
        ranges = {
            "sweeps": (1, 10**7),
            "n_states": (2, 1000),
            "lags": (1, 20),
            "latent_dim": (1, 100),
            "seed": (0, 2**63 - 1),
            "innovation_dof": (0, 10**6),
            "segment_frames": (8, 4096),
            "tiles_in_flight": (1, 256),
        }
        problems = []
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is None and name == "latent_dim":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                problems.append(_problem(name, f"a whole number from {low} to {high}", value))
        return problems

    def _check_positive_numbers(self) -> list[Problem]:
        names = ["kappa", "alpha", "gamma", "innovation_scale", "weight_scale"]
        if self.target_duration is not None:
            names.append("target_duration")
        problems = []
        for name in names:
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value <= 0:
                problems.append(_problem(name, "a positive number", value))
        return problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible settings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FitConfig:
        """Settings from a mapping such as :meth:`to_dict` gives.

        Raises
        ------
        InputError
            For names that are not settings.
        """
        known = [field.name for field in fields(cls)]
        problems = []
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "remove it"
                problems.append(Problem(f"one of {', '.join(known)}", repr(name), "settings", hint))
        if problems:
            raise InputError.of(problems)
        return cls(**settings)


def _problem(name: str, expected: str, found: object) -> Problem:
    option = "--" + name.replace("_", "-")
    return Problem(expected, repr(found), option, f"give {expected}")
