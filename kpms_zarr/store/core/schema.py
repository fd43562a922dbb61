"""Every group, dimension and variable of a store, declared once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

FORMAT_VERSION = 1
"""Version of the layout; a store with a larger one is refused, a smaller one is migrated."""

FRAMES_PER_CHUNK = 16_384
"""Frames in a chunk of pose-like arrays (measured: see layout.py)."""

LABEL_FRAMES_PER_CHUNK = 65_536
"""Frames in a chunk of label arrays, a multiple of FRAMES_PER_CHUNK."""

LEVEL_FRAMES = tuple(16 * 4**step for step in range(9))
"""Frames in a bin of each level of detail of labels, finest first."""

USED_FRACTION = 0.005
"""A syllable counts as used when it holds this share of the frames or more."""

DIMS: dict[str, str] = {
    "session": "one animal in one recording",
    "frame": "video frame, counted from the first frame of the session",
    "keypoint": "tracked body part",
    "space": "Cartesian axis: x, y[, z]",
    "keypoint_other": "tracked body part, of a pair of these",
    "space_other": "Cartesian axis, of a pair of these",
    "component": "principal component of the aligned pose, largest variance first",
    "latent_dim": "dimension of the latent pose used by a model",
    "state": "discrete state of a model; state i is syllable i",
    "state_next": "state at the following frame",
    "latent_dim_row": "row of a matrix over latent dimensions",
    "lagged_latent": "latent dimensions of the previous frames, oldest lag first",
    "duration": "bin of bout durations, one frame of the fastest video wide",
    "confidence_bin": "bin of tracker confidences",
    "side_pair": "a keypoint on the left and its mirror image on the right",
    "stretch": "stretch of frames, the longest first",
    "problem": "what is wrong with a keypoint in a frame: missing, low_confidence, outlier",
    "sweep": "one Gibbs iteration, counted from 0 over all stages",
    "term": "part of the model: syllable, latent, centroid, noise_scale, position, parameters",
    "feature": "column of the state of the chain: latent, centroid, heading, noise scales",
    "pair": "product of two features of a moment matrix",
    "kept_sweep": "sweep of which labels were kept, one of the last of the fit",
    "window": "some consecutive frames of a session whose labels were kept",
    "window_frame": "frame of a window, counted from its first",
    **{
        f"bin_{n}": f"bin of {n} frames, counted from the first frame of the session"
        for n in LEVEL_FRAMES
    },
}


@dataclass(frozen=True)
class Variable:
    """One array of a store.

    Attributes
    ----------
    name : str
    dims : tuple of str
    dtype : str
        NumPy dtype string, or ``"str"`` for variable-length text.
    meaning : str
    units : str
        "" where the quantity has none.
    fill : object
        Value of what was never written (padding of shorter sessions).
    is_coordinate : bool
        Whether xarray shows it as a coordinate.
    optional : bool
        Whether a group of this kind may lack it.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    meaning: str
    units: str = ""
    fill: Any = np.nan
    is_coordinate: bool = False
    optional: bool = False

    @property
    def attrs(self) -> dict[str, str]:
        """Attributes written beside the array."""
        attrs = {"long_name": self.meaning}
        if self.units:
            attrs["units"] = self.units
        return attrs


def _text(name: str, dims: tuple[str, ...], meaning: str) -> Variable:
    return Variable(name, dims, "str", meaning, fill="", is_coordinate=True)


_S = ("session",)
_SF = ("session", "frame")
_SK = ("session", "keypoint")

_SESSION = _text("session", _S, "session name")
_KEYPOINT = _text("keypoint", ("keypoint",), "keypoint name")
_SPACE = _text("space", ("space",), "Cartesian axis")
_N_FRAMES = Variable(
    "n_frames", _S, "int64", "real length of the session; 0 = does not exist", "frames", 0, True
)
_FPS = Variable(
    "fps", _S, "float64", "frames of the session per second", "frames / s", np.nan, True
)

KEYPOINTS = (
    Variable(
        "position",
        ("session", "frame", "keypoint", "space"),
        "float32",
        "tracked keypoint position; NaN = missing",
        "units of the tracking file, usually px",
    ),
    Variable(
        "confidence",
        ("session", "frame", "keypoint"),
        "float32",
        "tracker confidence of the keypoint; NaN = not given",
    ),
    _SESSION,
    _KEYPOINT,
    _SPACE,
    _N_FRAMES,
    _FPS,
    _text("individual", _S, "name of the individual in its file"),
    _text("recording", _S, "file the session came from, without folder and suffix"),
    _text("source", _S, "name of the tracking file"),
    _text("source_hash", _S, "SHA-256 of the tracking file and the individual"),
    _text("source_format", _S, "format of the tracking file"),
    replace(_text("video", _S, "path of the video, where known"), optional=True),
    Variable(
        "first_frame",
        _S,
        "int64",
        "frame of the video that is frame 0 of the session",
        "frames of the video",
        0,
        True,
        optional=True,
    ),
    Variable(
        "frame_step",
        _S,
        "int64",
        "frames of the video per frame of the session: "
        "frame of the video = first_frame + frame_step * frame",
        "frames of the video",
        1,
        True,
        optional=True,
    ),
    Variable(
        "checksum",
        _S,
        "int64",
        "CRC-32 of position and confidence, chunk after chunk; -1 = not known",
        "",
        -1,
        True,
        optional=True,
    ),
    replace(_text("ingest", _S, "how and when the session came in, JSON"), optional=True),
)

QUALITY = (
    _SESSION,
    _KEYPOINT,
    _N_FRAMES,
    Variable("missing_fraction", _SK, "float64", "share of frames without a position"),
    Variable(
        "low_confidence_fraction",
        _SK,
        "float64",
        "share of the frames with a position and its confidence in which that is below the "
        "threshold",
    ),
    Variable(
        "outlier_fraction",
        _SK,
        "float64",
        "share of the frames with a position in which it is an outlier",
    ),
    Variable("longest_gap", _SK, "int64", "longest run of missing positions", "frames", 0),
    Variable(
        "distance_median",
        _SK,
        "float64",
        "median distance from the middle of the animal",
        "units of position",
    ),
    Variable(
        "distance_mad",
        _SK,
        "float64",
        "median absolute deviation of that distance",
        "units of position",
    ),
    Variable(
        "confidence_count",
        ("session", "keypoint", "confidence_bin"),
        "int64",
        "frames with a position by its confidence; the first bin holds smaller ones too, the "
        "last larger ones",
        "frames",
        0,
        optional=True,
    ),
    Variable(
        "heading_undefined_fraction",
        ("session",),
        "float64",
        "share of the frames with front and rear in which both are on the same spot",
        optional=True,
    ),
    Variable(
        "side_pair",
        ("side_pair",),
        "str",
        "the left and the right keypoint",
        "",
        "",
        True,
        optional=True,
    ),
    Variable(
        "exchanged_frames",
        ("session", "side_pair"),
        "int64",
        "frames in which the tracker seems to have exchanged left and right",
        "frames",
        0,
        optional=True,
    ),
    Variable(
        "exchange_start",
        ("session", "side_pair", "stretch"),
        "int64",
        "first frame of the longest stretches in which they seem exchanged; -1 = none",
        "frames",
        -1,
        optional=True,
    ),
    Variable(
        "exchange_stop",
        ("session", "side_pair", "stretch"),
        "int64",
        "frame after the last of these stretches; -1 = none",
        "frames",
        -1,
        optional=True,
    ),
    Variable(
        "confidence_max",
        _SK,
        "float64",
        "largest confidence",
        optional=True,
    ),
    Variable(
        "confidence_bin",
        ("confidence_bin",),
        "float64",
        "lower edge of the bin, which is part of it",
        "",
        np.nan,
        True,
        optional=True,
    ),
    Variable(
        "confidence_bin_stop",
        ("confidence_bin",),
        "float64",
        "upper edge of the bin",
        "",
        np.nan,
        True,
        optional=True,
    ),
    Variable(
        "worst_start",
        ("session", "keypoint", "problem"),
        "int64",
        "first frame of the 10 s in which most frames have the problem; -1 = none has it",
        "frames",
        -1,
        optional=True,
    ),
    replace(_text("problem", ("problem",), "what is wrong with the keypoint"), optional=True),
)

OUTLIERS = tuple(
    replace(var, optional=True)
    for var in (
        Variable(
            "outlier_distance",
            ("keypoint",),
            "float64",
            "typical distance from the middle of the animal",
            "body lengths",
        ),
        Variable(
            "outlier_pose_mean",
            ("keypoint", "space"),
            "float64",
            "robust mean pose by which keypoints predict each other",
            "body lengths",
        ),
        Variable(
            "outlier_pose_covariance",
            ("keypoint", "space", "keypoint_other", "space_other"),
            "float64",
            "robust covariance of that pose",
            "body lengths squared",
        ),
        Variable(
            "outlier_pose_limit",
            ("keypoint",),
            "float64",
            "largest Mahalanobis distance of a keypoint from where the others have it that is no "
            "outlier",
        ),
        Variable(
            "outlier_fraction",
            ("keypoint",),
            "float64",
            "share of the confident points that are taken for missing because they are outlying",
        ),
    )
)
"""By what confident points are found to be outlying."""

PCA = (
    *OUTLIERS,
    _KEYPOINT,
    _SPACE,
    Variable(
        "pose_loading",
        ("component", "keypoint", "space"),
        "float64",
        "displacement of the aligned pose for one standard deviation of the component",
        "units of position",
    ),
    Variable(
        "pose_mean", ("keypoint", "space"), "float64", "mean aligned pose", "units of position"
    ),
    Variable(
        "explained_variance",
        ("component",),
        "float64",
        "variance along the component",
        "units of position squared",
    ),
    Variable("explained_variance_ratio", ("component",), "float64", "share of the total variance"),
)

WINDOWS = tuple(
    replace(var, optional=True)
    for var in (
        Variable(
            "window_syllable",
            ("kept_sweep", "window", "window_frame"),
            "int16",
            "syllable of the frame after the sweep; -1 = none",
            "",
            -1,
        ),
        Variable(
            "window_sweep", ("kept_sweep",), "int64", "sweeps done when labels were kept", "", 0
        ),
        Variable("window_session", ("window",), "str", "session of the window", "", ""),
        Variable("window_start", ("window",), "int64", "first frame in its session", "frames", 0),
        Variable("window_length", ("window",), "int64", "length of the window", "frames", 0),
    )
)
"""Labels of a few frames after some of the last sweeps: how far they have settled."""

PARAMETERS = (
    _KEYPOINT,
    _SPACE,
    Variable(
        "pose_loading",
        ("latent_dim", "keypoint", "space"),
        "float64",
        "aligned pose = pose_mean + latent @ pose_loading",
        "model units (see scale of the labels)",
    ),
    Variable(
        "pose_mean",
        ("keypoint", "space"),
        "float64",
        "aligned pose at latent 0",
        "model units (see scale of the labels)",
    ),
    Variable(
        "ar_weight",
        ("state", "latent_dim", "lagged_latent"),
        "float64",
        "autoregressive weights A, oldest lag first",
    ),
    Variable("ar_bias", ("state", "latent_dim"), "float64", "autoregressive bias b"),
    Variable(
        "ar_covariance",
        ("state", "latent_dim", "latent_dim_row"),
        "float64",
        "innovation covariance Q",
    ),
    Variable("state_usage", ("state",), "float64", "global state weights beta of the sticky HDP"),
    Variable(
        "transition_probability",
        ("state", "state_next"),
        "float64",
        "transition matrix pi; row = state, column = state at the next frame",
    ),
    Variable(
        "noise_variance",
        ("keypoint",),
        "float64",
        "global noise variance of the keypoint",
        "model units squared",
        optional=True,
    ),
    Variable(
        "trace_stage",
        ("sweep",),
        "str",
        "stage of the sweep: ar or full",
        fill="",
        optional=True,
    ),
    Variable(
        "trace_log_likelihood",
        ("sweep",),
        "float64",
        "log p of everything sampled per frame, given the parameters (AR stage: latent, syllable)",
        "nat / frame",
    ),
    Variable(
        "trace_log_probability",
        ("sweep", "term"),
        "float64",
        "log probability of each part of the model given what it depends on, per frame, that of "
        "the parameters under their priors included; their sum is the joint log probability; "
        "NaN = not part of the stage",
        "nat / frame",
        optional=True,
    ),
    replace(_text("term", ("term",), "part of the model"), optional=True),
    Variable("trace_kappa", ("sweep",), "float64", "stickiness of the transitions"),
    Variable(
        "trace_median_duration",
        ("sweep",),
        "float64",
        "median duration, frames of the fastest video",
        "frames",
    ),
    Variable(
        "trace_n_used", ("sweep",), "int64", "syllables holding 0.5 % of the frames or more", "", 0
    ),
    Variable("trace_usage", ("sweep", "state"), "float64", "share of the frames in each state"),
    Variable("trace_seconds", ("sweep",), "float64", "wall time of the sweep", "s"),
    *WINDOWS,
    *OUTLIERS,
)

LABELS = (
    _SESSION,
    _SPACE,
    _N_FRAMES,
    _FPS,
    replace(_KEYPOINT, optional=True),
    Variable(
        "scale",
        _S,
        "float64",
        "units of position per unit of the model: "
        "position = centroid + scale * rotation(heading) @ (pose_mean + latent @ pose_loading)",
        "units of position / model unit",
        1.0,
        True,
        optional=True,
    ),
    Variable("syllable", _SF, "int16", "syllable of the frame; -1 = none", "", -1),
    Variable(
        "certainty",
        _SF,
        "float16",
        "posterior probability of the syllable of the frame, given the latent pose of the whole "
        "session and the parameters, in steps of 1/256; NaN = not known",
        optional=True,
    ),
    Variable("latent", ("session", "frame", "latent_dim"), "float32", "latent pose"),
    Variable(
        "centroid",
        ("session", "frame", "space"),
        "float32",
        "position of the animal",
        "units of position",
    ),
    Variable("heading", _SF, "float32", "direction of the animal about the vertical axis", "rad"),
    Variable(
        "noise_scale",
        ("session", "frame", "keypoint"),
        "float32",
        "noise variance of the keypoint in this frame",
        "units of position squared",
        optional=True,
    ),
    Variable("frequency", ("state",), "float64", "share of the labelled frames"),
    Variable("n_bouts", ("state",), "int64", "runs of the syllable", "", 0),
    Variable("median_duration", ("state",), "float64", "median bout duration", "ms"),
    Variable("mean_duration", ("state",), "float64", "mean bout duration", "ms"),
    Variable(
        "mean_certainty",
        ("state",),
        "float64",
        "mean certainty of the frames of the syllable",
        optional=True,
    ),
    Variable(
        "duration_count",
        ("state", "duration"),
        "int64",
        "bouts of the syllable by duration; the last bin holds all longer ones",
        "",
        0,
    ),
    Variable("duration", ("duration",), "float64", "bout duration", "ms", np.nan, True),
    Variable(
        "transition_count",
        ("state", "state_next"),
        "int64",
        "changes from one syllable to another at consecutive frames",
        "",
        0,
    ),
)


def _level(n: int) -> tuple[Variable, ...]:
    dims = ("session", f"bin_{n}")
    return (
        Variable(
            f"syllable_{n}",
            dims,
            "int16",
            "commonest syllable of the frames of the bin, the lower number of equals; -1 = none",
            "",
            -1,
            optional=True,
        ),
        Variable(
            f"share_{n}",
            dims,
            "float16",
            "share of the frames of the bin that have that syllable; NaN = no frames",
            optional=True,
        ),
        Variable(
            f"certainty_{n}",
            dims,
            "float16",
            "mean certainty of the labels of the frames of the bin; NaN = not known",
            optional=True,
        ),
    )


LEVELS = (
    _SESSION,
    _N_FRAMES,
    _FPS,
    *(var for n in LEVEL_FRAMES for var in _level(n)),
)
"""Labels of one version in bins of more and more frames, for views of long spans."""

NAMES = (
    Variable("name", ("state",), "str", 'name that a person gave the syllable; "" = none', fill=""),
    Variable("description", ("state",), "str", "what a person says about the syllable", fill=""),
)
"""A version of the names of the syllables of one parameters version."""

_TRACES = tuple(var for var in PARAMETERS if var.dims and var.dims[0] == "sweep")

PROGRESS = (*_TRACES, replace(_text("term", ("term",), "part of the model"), optional=True))
"""Of an unfinished fit: appended to at every commit, states numbered as in its chain."""

CHAIN = (
    _SESSION,
    _SPACE,
    _KEYPOINT,
    _N_FRAMES,
    _FPS,
    _text("source_hash", _S, "SHA-256 of the tracking file and the individual"),
    _text("feature", ("feature",), "what the column holds"),
    Variable("syllable", _SF, "int16", "syllable of the frame; -1 = none", "", -1),
    Variable(
        "local",
        ("session", "frame", "feature"),
        "float32",
        "state of the chain beside the labels, in model units; float64 when sampled so",
    ),
    Variable(
        "state_number",
        ("state",),
        "int64",
        "state of the parameters -> number as a syllable",
        "",
        0,
    ),
    *(
        var
        for var in PARAMETERS
        if var.name
        in (
            "pose_loading",
            "pose_mean",
            "ar_weight",
            "ar_bias",
            "ar_covariance",
            "state_usage",
            "transition_probability",
            "noise_variance",
        )
    ),
    Variable("moment", ("state", "pair"), "float64", "sums of products of residuals by state"),
    Variable("noise_square", ("keypoint",), "float64", "sum of squared errors over noise scales"),
    Variable("noise_count", ("keypoint",), "float64", "frames in which the keypoint is observed"),
    *(var for var in LABELS if var.name == "scale"),
    *WINDOWS,  # numbered as the states of the chain
    *OUTLIERS,
)
"""One committed sweep of an unfinished fit: all that going on from it takes."""

GROUPS: dict[str, tuple[Variable, ...]] = {
    "keypoints": KEYPOINTS,
    "quality": QUALITY,
    "pca": PCA,
    "parameters": PARAMETERS,
    "labels": LABELS,
    "names": NAMES,
    "levels": LEVELS,
    "progress": PROGRESS,
    "chain": CHAIN,
}
"""Kind of group -> its variables."""


def variable(kind: str, name: str) -> Variable:
    """Look up one variable of a kind of group.

    Raises
    ------
    KeyError
        When the registry has no such variable (a programming error).
    """
    for entry in GROUPS[kind]:
        if entry.name == name:
            return entry
    raise KeyError(f"{name!r} is not declared for {kind!r} groups in schema.py")
