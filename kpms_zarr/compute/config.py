"""Settings of a fit: frozen, with units, defaults and sources; unknown names are errors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.wording import option

STAGES = ("ar", "full", "both")
PRECISIONS = ("float32", "float64")
INITS = ("kmeans", "prior")
SHARINGS = ("none", "shared", "keypoint")


@dataclass(frozen=True)
class FitConfig:
    """Settings of :func:`kpms_zarr.fit`.

    The model and the default hyperparameters are those of Weinreb et al., Nature Methods
    21:1329 (2024), and its supplement; the sticky HDP is Fox et al., Ann. Appl. Stat. 5:1020
    (2011).

    Attributes
    ----------
    stage : str
        ``"ar"``: syllables from the principal components of the aligned pose; ``"full"``: the
        keypoint model, which also infers pose, heading, centroid and the noise of every keypoint;
        ``"both"``: the first as the start of the second.
    sweeps : int or None
        Gibbs iterations of the stage that ends the fit; None = 50 for ``"ar"``, 200 otherwise.
    ar_sweeps : int
        Iterations of the AR stage that ``"both"`` begins with.
    kappa : float or None
        Stickiness of the stage that ends the fit: larger means longer syllables. The value at
        the start when ``target_duration`` is given. None = 1e6 for ``"ar"``, 1e4 otherwise.
    ar_kappa : float
        Stickiness of the AR stage that ``"both"`` begins with.
    target_duration : float or None
        Median syllable duration to reach, in ms; kappa is then adapted during the first 60 %
        of the sweeps of each stage and fixed afterwards.
    from_model : str or None
        Model of the same store whose state and parameters the fit begins with: the ``"full"`` stage
        after ``"ar"``, or more sweeps of the same stage. Sessions that it lacks are first labelled
        with its parameters.
    use_keypoints : tuple of str or None
        Keypoints of the store to use, in this order; None = all.
    scale : str
        Priors are stated for bodies of about 100 units. ``"dataset"``: positions are divided by
        one factor that makes the typical body 100 long, so that pixels and metres give the same
        model; ``"session"``: by a factor for each session, for animals or cameras of different
        size; ``"none"``: taken as they are. Published values are in units of position again.
    fix_heading : bool or None
        Heading 0 in every frame, for an animal that never turns; None = as in the PCA of the
        store.
    refine_pose : bool
        Before the first sweep of ``"full"`` and ``"both"``, fit the components and the headings
        to each other, so that a few components hold the pose without the curvature that comes
        from turning it by the direction between keypoints; False = components of ``pca`` as
        they are, as the published package has it. With ``from_model``, those of the model.
    outlier_scale : float or None
        Confident keypoints that cannot be where they are are taken for missing, from the first
        look at the poses to the last sweep: those that the other keypoints of the frame predict
        too badly, see :func:`kpms_zarr.pca`. In median absolute deviations above the median;
        ``"none"`` or None = all are believed.
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
    noise_dof : int
        Degrees of freedom nu_s of the noise of a keypoint in a frame: s ~ nu_s s0 / chi2(nu_s).
    noise_slope, noise_intercept, confidence_pseudocount : float
        s0 = 10^(2 (slope log10(confidence + pseudocount) + intercept)), in model units squared;
        1 for keypoints without a confidence. A confidence of 0 or below means missing.
    noise_variance : float
        Global noise variance sigma2 of each keypoint, which multiplies s.
    sample_noise_variance : str
        ``"shared"``: draw one for all keypoints in every sweep, so that the noise level is that of
        the data; ``"keypoint"``: draw one for each keypoint, which with a weak prior may end with
        one keypoint that is fitted exactly; ``"none"``: keep it, as the published package does.
    noise_variance_dof : float
        Degrees of freedom of its scaled inverse chi-squared prior around ``noise_variance``.
    centroid_step_variance : float or None
        sigma2_loc: variance of the step of the centroid from frame to frame along each axis, in
        model units squared; None = the squared median step of the centroid of the data.
    latent_start_variance, centroid_start_variance : float
        Prior variance of latent pose and centroid in the first frames of a session.
    save_noise_scale : bool
        Publish the noise of every keypoint in every frame beside the labels.
    certainty : bool
        Publish the posterior probability of every label beside the labels; takes about as long as
        a sweep.
    segment_frames : int
        Length of the pieces that run side by side. Speed only: pieces are conditioned on their
        neighbours and cut anew every sweep, so the posterior is that of the uncut sessions.
    tile_frames : int or None
        Frames that are computed side by side, about, in segments; None = 16,384 on a CPU, 524,288
        on another device. Speed and memory only, but sums over tiles round by it.
    sessions : tuple of str or None
        Sessions to fit: names, patterns such as ``mouse_*``, or ``coordinate=value`` such as
        ``group=control``; None = all.
    """

    stage: str = "both"
    sweeps: int | None = None
    ar_sweeps: int = 50
    kappa: float | None = None
    ar_kappa: float = 1e6
    target_duration: float | None = None
    from_model: str | None = None
    use_keypoints: tuple[str, ...] | None = None
    scale: str = "dataset"
    fix_heading: bool | None = None
    refine_pose: bool = True
    outlier_scale: float | None = 6.0
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
    noise_dof: int = 5
    noise_slope: float = -0.5
    noise_intercept: float = 0.25
    confidence_pseudocount: float = 1e-3
    noise_variance: float = 1.0
    sample_noise_variance: str = "shared"
    noise_variance_dof: float = 10.0
    centroid_step_variance: float | None = None
    latent_start_variance: float = 10.0
    centroid_start_variance: float = 1e6
    save_noise_scale: bool = False
    certainty: bool = True
    segment_frames: int = 256
    tile_frames: int | None = None
    sessions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.outlier_scale == "none":  # as it is typed
            object.__setattr__(self, "outlier_scale", None)
        problems = [
            *self._check_choices(),
            *self._check_whole_numbers(),
            *self._check_numbers(),
            *self._check_stages(),
        ]
        if problems:
            raise InputError.of(problems)

    @property
    def last_sweeps(self) -> int:
        """Sweeps of the stage that ends the fit."""
        return self.sweeps or (50 if self.stage == "ar" else 200)

    @property
    def refines_pose(self) -> bool:
        """Whether components and headings are fitted to each other."""
        return self.refine_pose and self.stage != "ar"

    @property
    def last_kappa(self) -> float:
        """Stickiness of the stage that ends the fit, at its start."""
        return self.kappa or (1e6 if self.stage == "ar" else 1e4)

    def _check_choices(self) -> list[Problem]:
        choices = {
            "stage": STAGES,
            "precision": PRECISIONS,
            "init": INITS,
            "scale": SCALES,
            "sample_noise_variance": SHARINGS,
        }
        problems = [
            _problem(name, f"one of {', '.join(allowed)}", getattr(self, name))
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        for name in ("refine_pose", "save_noise_scale", "certainty", "fix_heading"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "fix_heading" and value is None):
                problems.append(_problem(name, "True or False", value))
        if self.from_model is not None and not isinstance(self.from_model, str):
            problems.append(_problem("from_model", "the name of a model", self.from_model))
        for setting, what in (("use_keypoints", "keypoints"), ("sessions", "sessions")):
            names = getattr(self, setting)
            if names is None:
                continue
            # A list, as JSON gives it, is welcome; what is kept can be compared and hashed.
            if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
                problems.append(_problem(setting, f"names of {what}", names))
            else:
                object.__setattr__(self, setting, tuple(names))
        return problems

    def _check_whole_numbers(self) -> list[Problem]:
        ranges = {
            "sweeps": (1, 10**7),
            "ar_sweeps": (1, 10**7),
            "n_states": (2, 1000),
            "lags": (1, 20),
            "latent_dim": (1, 100),
            "seed": (0, 2**63 - 1),
            "innovation_dof": (0, 10**6),
            "noise_dof": (1, 1000),
            "segment_frames": (8, 4096),
            "tile_frames": (64, 2**24),
        }
        problems = []
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is None and name in ("latent_dim", "sweeps", "tile_frames"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                problems.append(_problem(name, f"a whole number from {low} to {high}", value))
        return problems

    def _check_numbers(self) -> list[Problem]:
        problems = []
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_number(value) or value <= 0:
                problems.append(_problem(name, "a positive number", value))
        for name in ("noise_slope", "noise_intercept"):
            if not _is_number(getattr(self, name)):
                problems.append(_problem(name, "a number", getattr(self, name)))
        return problems

    def _check_stages(self) -> list[Problem]:
        problems = []
        if self.from_model is not None and self.stage == "both":
            problems.append(
                Problem(
                    "`from_model=` with one stage, full or ar",
                    option("stage", self.stage),
                    "`from_model=`",
                    "add `stage='full'` or `stage='ar'`, or leave `from_model=` out",
                )
            )
        if self.stage != "ar" and self.lags > self.segment_frames:
            problems.append(
                _problem("segment_frames", f"at least as many as lags ({self.lags})",
                         self.segment_frames)
            )  # fmt: skip
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


_POSITIVE = (
    "kappa",
    "ar_kappa",
    "target_duration",
    "alpha",
    "gamma",
    "innovation_scale",
    "weight_scale",
    "confidence_pseudocount",
    "noise_variance",
    "noise_variance_dof",
    "centroid_step_variance",
    "latent_start_variance",
    "centroid_start_variance",
    "outlier_scale",
)
_OPTIONAL = ("kappa", "target_duration", "centroid_step_variance", "outlier_scale")


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def _problem(name: str, expected: str, found: object) -> Problem:
    return Problem(expected, repr(found), f"`{name}=`", f"give {expected}")


SCALES = ("none", "dataset", "session")
"""Positions as they are; divided by one number for all sessions; by one for each session."""
