"""Settings of a fit: frozen, with units, defaults and sources; unknown names are errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kpms_zarr.compute.memory import parse_size
from kpms_zarr.compute.settings import (
    FLAG,
    FOLDER,
    MODEL,
    NUMBER,
    POSITIVE,
    SIZE,
    UNKNOWN,
    choice,
    documented,
    names,
    problem,
    problems_of,
    remembering,
    setting,
    settings_of,
    whole,
)
from kpms_zarr.store.core.names import hint
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.wording import option

SCALES = ("none", "dataset", "session")
"""Positions as they are; divided by one number for all sessions; by one for each session."""
FRAMES_PER_TILE = 12_288
"""What two tiles of the full stage take (1.2 kB a frame) still fits the shared cache of a usual
processor: with 16,384 they did not fit 32 MB, and a sweep took half as long again. Small enough for
float32 sums over a tile, too; sums over tiles are float64."""
FRAMES_PER_DEVICE_TILE, FRAMES_PER_LARGE_DEVICE_TILE = 524_288, 2_097_152
"""On a GPU every step of a scan over frames costs the launch of its kernels, some 47 in the full
stage, which the segments beside each other share: the wider, the better, until some 40,000 of them
keep the memory of the device busy (benchmarks/gpu_bound.py). A tile of the full stage takes about
1 kB a frame there, and three are under way."""
AR_SWEEPS, FULL_SWEEPS = 50, 200
"""Sweeps of the stages of a fit that is not told how many."""
_MOST_AR_SWEEPS, _MOST_FULL_SWEEPS = 200, 600
"""The same of one that ends when it has settled: at most."""
HOMES = ("device", "host", "disk")
"""Where the state of a chain may lie."""


@documented
@remembering
@dataclass(frozen=True)
class FitConfig:
    """Settings of :func:`kpms_zarr.fit`.

    The model and the default hyperparameters are those of Weinreb et al., Nature Methods
    21:1329 (2024), and its supplement; the sticky HDP is Fox et al., Ann. Appl. Stat. 5:1020
    (2011). On the command line each setting is the option of its name.
    """

    stage: str = setting(
        "both",
        choice("ar", "full", "both"),
        "ar: syllables from the principal components of the aligned pose; full: the keypoint "
        "model, which also infers pose, heading, centroid and the noise of every keypoint; both: "
        "the first as the start of the second",
    )
    sweeps: int | None = setting(
        None,
        whole(1, 10**7),
        "Gibbs iterations of the stage that ends the fit; with until_settled, at most",
        open="50 for ar, 200 otherwise; with until_settled 200 and 600",
    )
    ar_sweeps: int | None = setting(
        None,
        whole(1, 10**7),
        "Gibbs iterations of the AR stage that both begins with; with until_settled, at most",
        open="50; with until_settled 200",
    )
    until_settled: bool = setting(
        False,
        FLAG,
        "end each stage when its log evidence, the number of syllables in use and the share of "
        "labels that a sweep changes no longer drift, in the last 40 sweeps against the 40 before "
        "them; the sweeps that are averaged come after that. A fit that has not settled in the "
        "most sweeps that it may take says so, as does one that does not wait for it",
    )
    kappa: float | None = setting(
        None,
        POSITIVE,
        "stickiness of the stage that ends the fit: larger means longer syllables; the value at "
        "the start where a target duration is given",
        open="1e6 for ar, 1e4 otherwise",
    )
    merge_sweeps: int = setting(
        0,
        whole(0, 10**7),
        "states that the evidence takes for one are merged within so many sweeps of the AR stage "
        "of a fit that begins anew, at intervals that grow: after 4, 10, 18, 28, ... sweeps; 0: "
        "never",
    )
    ar_kappa: float = setting(1e6, POSITIVE, "stickiness of the AR stage that both begins with")
    target_duration: float | None = setting(
        None,
        POSITIVE,
        "median duration of the syllables in use to reach: kappa is adapted during the first 60 % "
        "of the sweeps of each stage, with until_settled at most 30 of the AR and 120 of the full "
        "stage, and fixed afterwards",
        unit="ms",
        open="kappa is fixed",
    )
    from_model: str | None = setting(
        None,
        MODEL,
        "model of the same store whose state and parameters the fit begins with: the full stage "
        "after ar, or more sweeps of the same stage; sessions that it lacks are first labelled "
        "with its parameters",
        open="begin anew",
    )
    use_keypoints: tuple[str, ...] | None = setting(
        None, names("keypoints"), "keypoints of the store to use, in this order", open="all"
    )
    scale: str = setting(
        "dataset",
        choice(*SCALES),
        "priors are stated for bodies of about 100 units; dataset: positions are divided by one "
        "factor that makes the typical body 100 long, so that pixels and metres give the same "
        "model; session: by a factor for each session, for animals or cameras of different size; "
        "none: taken as they are. Published values are in units of position again",
    )
    fix_heading: bool | None = setting(
        None,
        FLAG,
        "heading 0 in every frame, for an animal that never turns",
        open="as in the PCA of the store",
    )
    refine_pose: bool = setting(
        True,
        FLAG,
        "before the first sweep of full and both, fit the components and the headings to each "
        "other, so that a few components hold the pose without the curvature that comes from "
        "turning it by the direction between keypoints; otherwise components of pca as they are, "
        "as the published package has it. A fit that begins with a model keeps its components",
    )
    outlier_scale: float | None = setting(
        6.0,
        POSITIVE,
        "confident keypoints that cannot be where they are are taken for missing, from the first "
        "look at the poses to the last sweep: those that the other keypoints of the frame, or the "
        "middle of the animal, put elsewhere, further off than median + this many median absolute "
        "deviations",
        none="all are believed",
    )
    n_states: int = setting(100, whole(2, 1000), "cap on the number of syllables")
    latent_dim: int | None = setting(
        None,
        whole(1, 100),
        "principal components to use",
        open="those for the variance given to pca",
    )
    lags: int = setting(3, whole(1, 20), "autoregressive order", unit="frames")
    seed: int = setting(0, whole(0, 2**63 - 1), "seed of all random numbers")
    precision: str = setting("float32", choice("float32", "float64"), "of what runs on the device")
    init: str = setting(
        "kmeans",
        choice("kmeans", "prior"),
        "kmeans: first labels from clusters of pose and velocity; prior: first parameters drawn "
        "from the prior, as the published package does",
    )
    alpha: float = setting(5.7, POSITIVE, "concentration of the rows of the transition matrix")
    gamma: float = setting(1e3, POSITIVE, "concentration of the global state weights")
    innovation_scale: float = setting(
        0.01,
        POSITIVE,
        "S0 = innovation_scale * I, inverse-Wishart prior of the innovation covariance",
    )
    innovation_dof: int = setting(
        2, whole(0, 10**6), "degrees of freedom of that prior beyond the latent dimension"
    )
    weight_scale: float = setting(
        10.0,
        POSITIVE,
        "K0 = weight_scale * I, matrix-normal prior of the autoregressive weights",
    )
    noise_dof: int = setting(
        5,
        whole(1, 1000),
        "degrees of freedom nu_s of the noise of a keypoint in a frame: s ~ nu_s s0 / chi2(nu_s)",
    )
    noise_slope: float = setting(
        -0.5,
        NUMBER,
        "s0 = 10^(2 (slope log10(confidence + pseudocount) + intercept)), in model units squared; "
        "1 for keypoints without a confidence; a confidence of 0 or below means missing",
    )
    noise_intercept: float = setting(0.25, NUMBER, "the intercept in that")
    confidence_pseudocount: float = setting(1e-3, POSITIVE, "the pseudocount in that")
    noise_variance: float = setting(
        1.0, POSITIVE, "global noise variance sigma2 of each keypoint, which multiplies s"
    )
    sample_noise_variance: str = setting(
        "shared",
        choice("none", "shared", "keypoint"),
        "global noise level; shared: draw one for all keypoints in every sweep, so that it is that "
        "of the data; keypoint: draw one for each keypoint, which with a weak prior may end with "
        "one keypoint that is fitted exactly; none: keep it, as the published package does",
    )
    noise_variance_dof: float = setting(
        10.0,
        POSITIVE,
        "degrees of freedom of its scaled inverse chi-squared prior around noise_variance",
    )
    centroid_step_variance: float | None = setting(
        None,
        POSITIVE,
        "sigma2_loc: variance of the step of the centroid from frame to frame along each axis, in "
        "model units squared",
        open="the squared median step of the centroid of the data",
    )
    latent_start_variance: float = setting(
        10.0, POSITIVE, "prior variance of the latent pose in the first frames of a session"
    )
    centroid_start_variance: float = setting(
        1e6, POSITIVE, "prior variance of the centroid in the first frames of a session"
    )
    save_noise_scale: bool = setting(
        False, FLAG, "publish the noise of every keypoint in every frame beside the labels"
    )
    certainty: bool = setting(
        True,
        FLAG,
        "publish the posterior probability of every label beside the labels, and where labels are "
        "averaged, the second choice and its probability; of one draw it takes about as long as a "
        "sweep",
    )
    average_sweeps: int = setting(
        100,
        whole(1, 10**6),
        "sweeps at the end of the fit over which the published labels are averaged, at most half "
        "of those of the last stage: the label of a frame is the one that it has most often, and "
        "its certainty the share of the sweeps in which it has it; 1: one draw, the last",
    )
    segment_frames: int = setting(
        256,
        whole(8, 4096),
        "length of the pieces that run side by side, in frames; speed only: pieces are conditioned "
        "on their neighbours and cut anew every sweep, so the posterior is that of the uncut "
        "sessions",
    )
    tile_frames: int | None = setting(
        None,
        whole(64, 2**24),
        "frames that are computed side by side, about, in segments; speed and memory only, but "
        "sums over tiles round by it",
        open=f"{FRAMES_PER_TILE:,} on a CPU, {FRAMES_PER_DEVICE_TILE:,} on another device, "
        f"{FRAMES_PER_LARGE_DEVICE_TILE:,} on one of 32 GB or more",
    )
    sessions: tuple[str, ...] | None = setting(
        None,
        names("sessions"),
        "sessions to fit: names, patterns such as mouse_*, or coordinate=value such as "
        "group=control",
        open="all",
    )
    given: frozenset[str] = field(default=UNKNOWN, kw_only=True, repr=False, compare=False)
    """Names of the settings that were given, be it with their defaults: no model that the fit
    begins with overrules them."""

    def __post_init__(self) -> None:
        if self.outlier_scale == "none":  # as it is typed
            object.__setattr__(self, "outlier_scale", None)
        problems = [*problems_of(self), *self._check_stages()]
        if problems:
            raise InputError.of(problems)

    @property
    def last_sweeps(self) -> int:
        """Sweeps of the stage that ends the fit; with ``until_settled``, at most."""
        return self.sweeps or (self._open_ar if self.stage == "ar" else self._open_full)

    @property
    def first_sweeps(self) -> int:
        """Sweeps of the AR stage that both begins with; with ``until_settled``, at most."""
        return self.ar_sweeps or self._open_ar

    @property
    def _open_ar(self) -> int:
        return _MOST_AR_SWEEPS if self.until_settled else AR_SWEEPS

    @property
    def _open_full(self) -> int:
        return _MOST_FULL_SWEEPS if self.until_settled else FULL_SWEEPS

    @property
    def all_sweeps(self) -> int:
        """Sweeps of all stages; with ``until_settled``, at most."""
        return self.last_sweeps + (self.first_sweeps if self.stage == "both" else 0)

    @property
    def n_averaged(self) -> int:
        """Sweeps over which labels are averaged."""
        return max(1, min(self.average_sweeps, self.last_sweeps // 2))

    @property
    def refines_pose(self) -> bool:
        """Whether components and headings are fitted to each other."""
        return self.refine_pose and self.stage != "ar"

    @property
    def last_kappa(self) -> float:
        """Stickiness of the stage that ends the fit, at its start."""
        return self.kappa or (1e6 if self.stage == "ar" else 1e4)

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
        are_numbers = isinstance(self.lags, int) and isinstance(self.segment_frames, int)
        if self.stage != "ar" and are_numbers and self.lags > self.segment_frames:
            expected = f"at least as many as lags ({self.lags})"
            problems.append(problem("segment_frames", expected, self.segment_frames))
        return problems

    def resolved(self, **changes: Any) -> FitConfig:
        """Settings with what was left open, or does not matter, settled; none of it is given."""
        given = changes.pop("given", self.given)
        found = replace(self, **changes)
        object.__setattr__(found, "given", given)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible settings."""
        found = asdict(self)
        del found["given"]
        return found

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FitConfig:
        """Settings from a mapping such as :meth:`to_dict` gives; all of them count as given.

        Raises
        ------
        InputError
            For names that are not settings.
        """
        known = [one.name for one, _ in settings_of(cls)]
        problems = []
        for name in settings:
            if name not in known:
                fix = hint(name, known).rstrip() or "remove it"
                problems.append(Problem(f"one of {', '.join(known)}", repr(name), "settings", fix))
        if problems:
            raise InputError.of(problems)
        return cls(**settings)

    @classmethod
    def from_store(cls, settings: Mapping[str, Any], given: Iterable[str] | None) -> FitConfig:
        """Settings as they were resolved, and which of them a person had given.

        Fits of before did not save that: what is no default was given then.
        """
        found = cls.from_dict(settings)
        if given is None:
            given = [
                one.name
                for one, _ in settings_of(cls)
                if getattr(found, one.name) != one.default
                and not (one.name == "tile_frames" and found.tile_frames in DEVICE_TILE_FRAMES)
            ]
        object.__setattr__(found, "given", frozenset(given))
        return found


DEVICE_TILE_FRAMES = (FRAMES_PER_TILE, FRAMES_PER_DEVICE_TILE, FRAMES_PER_LARGE_DEVICE_TILE)
"""Frames of a tile where a person leaves them open, by kind of device."""


@documented
@dataclass(frozen=True)
class Budget:
    """Budget: what a computation may take of the machine; nothing in it changes a result."""

    device_memory: str | int | None = setting(
        None,
        SIZE,
        "memory of the GPU or, on a CPU, for computing, such as 4GB, or in bytes",
        open="60 % of what the device has free; on a CPU, whose memory is that of the host, a "
        "third of that",
    )
    host_memory: str | int | None = setting(
        None,
        SIZE,
        "all that the process may take, such as 16GB, or in bytes; without the device memory where "
        "the device is a CPU",
        open="what the process holds and 60 % of what machine and cgroup have free, of which the "
        "device gets its third on a CPU",
    )
    tiles_in_flight: int | None = setting(
        None,
        whole(1, 256),
        "tiles that are computed at once",
        open="as many as the device can use and the budget allows",
    )
    home: str | None = setting(
        None,
        choice(*HOMES),
        "where the state of the chain lies",
        open="the first of these that the budget allows; on a CPU never the first, which is the "
        "second there",
    )
    scratch: str | None = setting(
        None, FOLDER, "for a chain on disk", open="that of the environment variable TMPDIR"
    )

    def __post_init__(self) -> None:
        for name in ("device_memory", "host_memory"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, parse_size(value))
        problems = problems_of(self)
        if problems:
            raise InputError.of(problems)
