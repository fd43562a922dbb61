"""Every group, dimension and variable of a store, declared once."""

from __future__ import annotations

import re
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
    "state_before": "state of the version that merged labels are of",
    "latent_dim_row": "row of a matrix over latent dimensions",
    "lagged_latent": "latent dimensions of the previous frames, oldest lag first",
    "duration": "bin of bout durations, one frame of the fastest video wide",
    "confidence_bin": "bin of tracker confidences",
    "side_pair": "a keypoint on the left and its mirror image on the right",
    "stretch": "stretch of frames, the longest first",
    "change_interval": "bin of intervals between change points, one frame of the fastest video "
    "wide",
    "height": "bin of heights of peaks of the change score",
    "problem": "what is wrong with a keypoint in a frame: missing, low_confidence, outlier",
    "sweep": "one Gibbs iteration, counted from 0 over all stages",
    "member": "model that an ensemble consists of",
    "member_state": "state of a model that an ensemble consists of",
    "term": "part of the model: syllable, latent, centroid, noise_scale, position, parameters",
    "feature": "column of the state of the chain: latent, centroid, heading, noise scales",
    "pair": "product of two features of a moment matrix",
    "draw": "sweep whose labels are averaged, one of the last of the fit",
    "kept_sweep": "sweep of which labels were kept, one of the last of the fit",
    "window": "some consecutive frames of a session whose labels were kept",
    "window_frame": "frame of a window, counted from its first",
    "point": "combination of settings that a scan tries",
    "chain": "chain of a point of a scan; each has a seed of its own, the same at all points",
    "held_out": "session that a scan keeps from its chains",
    "interval": "consecutive frames of a session that belong to one epoch",
    "annotation": "keypoint in a frame of a video that a person looked at",
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


_DECLARATION = re.compile(
    r"(?P<optional>optional )?(?P<coordinate>coordinate )?(?P<dtype>\w+) (?P<name>\w+)"
    r"\((?P<dims>[\w, ]+)\)(?: = (?P<fill>\S+))?: (?P<meaning>.+?)(?: \[(?P<units>[^]]+)\])?"
)


def _declared(text: str) -> tuple[Variable, ...]:
    """Read declarations: ``[optional ][coordinate ]dtype name(dims)[ = fill]: meaning[ [units]]``.

    What is indented goes on with the line above. Unless it is said, floats are filled with NaN,
    integers with 0, text with "".
    """
    found = []
    for line in re.sub(r"\n +", " ", text).strip().splitlines():
        part = _DECLARATION.fullmatch(line)
        assert part is not None, line
        number: Any = {"f": float, "i": int}.get(part["dtype"][0])
        found.append(
            Variable(
                part["name"],
                tuple(part["dims"].split(", ")),
                part["dtype"],
                part["meaning"],
                part["units"] or "",
                "" if number is None else number(part["fill"] or (0 if number is int else "nan")),
                is_coordinate=part["coordinate"] is not None,
                optional=part["optional"] is not None,
            )
        )
    return tuple(found)


def _optional(variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
    return tuple(replace(var, optional=True) for var in variables)


def _some(names: str, variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
    """Variables of these names, in the order of their declaration."""
    return tuple(var for var in variables if var.name in names.split())


_COMMON = _declared("""
coordinate str session(session): session name
coordinate str keypoint(keypoint): keypoint name
coordinate str space(space): Cartesian axis
coordinate int64 n_frames(session): real length of the session; 0 = does not exist [frames]
coordinate float64 fps(session): frames of the session per second [frames / s]
""")
"""Of several kinds of groups."""
_SESSION, _KEYPOINT, _SPACE, _N_FRAMES, _FPS = _COMMON

KEYPOINTS = (
    *_declared("""
float32 position(session, frame, keypoint, space): tracked keypoint position; NaN = missing
    [units of the tracking file, usually px]
float32 confidence(session, frame, keypoint): tracker confidence of the keypoint; NaN = not
    given
"""),
    *_COMMON,
    *_declared("""
coordinate str individual(session): name of the individual in its file
coordinate str recording(session): file the session came from, without folder and suffix
coordinate str source(session): name of the tracking file
coordinate str source_hash(session): SHA-256 of the tracking file and the individual
coordinate str source_format(session): format of the tracking file
optional coordinate str video(session): path of the video, where known
optional coordinate int64 first_frame(session): frame of the video that is frame 0 of the
    session [frames of the video]
optional coordinate int64 frame_step(session) = 1: frames of the video per frame of the session:
    frame of the video = first_frame + frame_step * frame [frames of the video]
optional coordinate int64 checksum(session) = -1: CRC-32 of position and confidence, chunk after
    chunk; -1 = not known
optional coordinate str ingest(session): how and when the session came in, JSON
"""),
)

QUALITY = (
    _SESSION,
    _KEYPOINT,
    _N_FRAMES,
    *_declared("""
float64 missing_fraction(session, keypoint): share of frames without a position
float64 low_confidence_fraction(session, keypoint): share of the frames with a position and its
    confidence in which that is below the threshold
float64 outlier_fraction(session, keypoint): share of the frames with a position in which it is
    an outlier
int64 longest_gap(session, keypoint): longest run of missing positions [frames]
float64 distance_median(session, keypoint): median distance from the middle of the animal [units
    of position]
float64 distance_mad(session, keypoint): median absolute deviation of that distance [units of
    position]
optional int64 confidence_count(session, keypoint, confidence_bin): frames with a position by
    its confidence; the first bin holds smaller ones too, the last larger ones [frames]
optional float64 heading_undefined_fraction(session): share of the frames with front and rear in
    which both are on the same spot
optional coordinate str side_pair(side_pair): the left and the right keypoint
optional int64 exchanged_frames(session, side_pair): frames in which the tracker seems to have
    exchanged left and right [frames]
optional int64 exchange_start(session, side_pair, stretch) = -1: first frame of the longest
    stretches in which they seem exchanged; -1 = none [frames]
optional int64 exchange_stop(session, side_pair, stretch) = -1: frame after the last of these
    stretches; -1 = none [frames]
optional float64 confidence_max(session, keypoint): largest confidence
optional coordinate float64 confidence_bin(confidence_bin): lower edge of the bin, which is part
    of it
optional coordinate float64 confidence_bin_stop(confidence_bin): upper edge of the bin
optional int64 worst_start(session, keypoint, problem) = -1: first frame of the 10 s in which
    most frames have the problem; -1 = none has it [frames]
optional coordinate str problem(problem): what is wrong with the keypoint
"""),
)

CHANGEPOINTS = (
    _SESSION,
    _N_FRAMES,
    _FPS,
    *_declared("""
float32 change_score(session, frame): how far the pose changes its velocity as a whole, in standard
    deviations of independent coordinates; NaN = not known
int16 changepoint(session, frame): 1 = behaviour changes here
int64 n_changepoints(session): change points
float64 median_interval(session): median interval between change points [ms]
int64 interval_count(change_interval): intervals between consecutive change points of a session;
    the last bin holds all longer ones
coordinate float64 change_interval(change_interval): interval between change points [ms]
int64 peak_count(height): peaks of the change score
float64 shifted_count(height): peaks of the change score of data whose keypoints are shifted
    against each other, per copy
coordinate float64 height(height): lower edge of the bin of heights
"""),
)

OUTLIERS = _optional(
    _declared("""
float64 outlier_distance(keypoint): typical distance from the middle of the animal
    [body lengths]
float64 outlier_pose_mean(keypoint, space): robust mean pose by which keypoints predict
    each other [body lengths]
float64 outlier_pose_covariance(keypoint, space, keypoint_other, space_other): robust
    covariance of that pose [body lengths squared]
float64 outlier_pose_limit(keypoint): largest Mahalanobis distance of a keypoint from
    where the others have it that is no outlier
float64 outlier_fraction(keypoint): share of the confident points that are taken for
    missing because they are outlying
""")
)
"""By what confident points are found to be outlying."""

PCA = (
    *OUTLIERS,
    _KEYPOINT,
    _SPACE,
    *_declared("""
float64 pose_loading(component, keypoint, space): displacement of the aligned pose for one
    standard deviation of the component [units of position]
float64 pose_mean(keypoint, space): mean aligned pose [units of position]
float64 explained_variance(component): variance along the component [units of position squared]
float64 explained_variance_ratio(component): share of the total variance
"""),
)

WINDOWS = _optional(
    _declared("""
int16 window_syllable(kept_sweep, window, window_frame) = -1: syllable of the frame
    after the sweep; -1 = none
int64 window_sweep(kept_sweep): sweeps done when labels were kept
str window_session(window): session of the window
int64 window_start(window): first frame in its session [frames]
int64 window_length(window): length of the window [frames]
""")
)
"""Labels of a few frames after some of the last sweeps: how far they have settled."""

PARAMETERS = (
    _KEYPOINT,
    _SPACE,
    *_declared("""
float64 pose_loading(latent_dim, keypoint, space): aligned pose = pose_mean + latent @
    pose_loading [model units (see scale of the labels)]
float64 pose_mean(keypoint, space): aligned pose at latent 0 [model units (see scale of the
    labels)]
float64 ar_weight(state, latent_dim, lagged_latent): autoregressive weights A, oldest lag first
float64 ar_bias(state, latent_dim): autoregressive bias b
float64 ar_covariance(state, latent_dim, latent_dim_row): innovation covariance Q
float64 state_usage(state): global state weights beta of the sticky HDP
float64 transition_probability(state, state_next): transition matrix pi; row = state, column =
    state at the next frame
optional float64 noise_variance(keypoint): global noise variance of the keypoint [model units
    squared]
optional str trace_stage(sweep): stage of the sweep: ar or full
float64 trace_log_likelihood(sweep): log p of everything sampled per frame, given the parameters
    (AR stage: latent, syllable) [nat / frame]
optional float64 trace_log_probability(sweep, term): log probability of each part of the model
    given what it depends on, per frame, that of the parameters under their priors included;
    their sum is the joint log probability; NaN = not part of the stage [nat / frame]
optional coordinate str term(term): part of the model
optional float64 trace_log_evidence(sweep): log density of all that the chain holds per frame,
    dynamics and transitions integrated out, by which chains of equal hyperparameters can be
    ranked: in the AR stage of latent and syllable; in the full stage also of position, centroid,
    noise scale and noise variance; NaN in the full stage of fits before [nat / frame]
optional float64 trace_label_change(sweep): share of the modelled frames whose label is not that of
    the sweep before
float64 trace_kappa(sweep): stickiness of the transitions
float64 trace_median_duration(sweep): median duration of the bouts of syllables in use, frames of
    the fastest video [frames]
int64 trace_n_used(sweep): syllables holding 0.5 % of the frames or more
float64 trace_usage(sweep, state): share of the frames in each state
float64 trace_seconds(sweep): wall time of the sweep [s]
"""),
    *WINDOWS,
    *OUTLIERS,
    *_optional(
        _declared("""
coordinate str member(member): model that has a vote
str member_version(member): version of its parameters
int16 member_is_applied(member): 1 = it labels any session by its parameters; 0 = by what it has
    published
int16 member_syllable(member, member_state) = -1: syllable that a state of the member votes for;
    -1 = none
""")
    ),
)

LABELS = (
    _SESSION,
    _SPACE,
    _N_FRAMES,
    _FPS,
    *_optional((_KEYPOINT,)),
    *_declared("""
optional coordinate float64 scale(session) = 1.0: units of position per unit of the model:
    position = centroid + scale * rotation(heading) @ (pose_mean + latent @ pose_loading) [units
    of position / model unit]
int16 syllable(session, frame) = -1: syllable of the frame, the commonest over the sweeps that
    are averaged; -1 = none
optional float16 certainty(session, frame): posterior probability of the syllable of the frame,
    in steps of 1/256: the share of the sweeps that are averaged, or where the syllable is one
    draw, its probability given the latent pose of the whole session and the parameters;
    NaN = not known
optional int16 second_syllable(session, frame) = -1: second choice for the frame; -1 = none
optional float16 second_certainty(session, frame): posterior probability of the second choice;
    NaN = not known
float32 latent(session, frame, latent_dim): latent pose
float32 centroid(session, frame, space): position of the animal [units of position]
float32 heading(session, frame): direction of the animal about the vertical axis [rad]
optional float32 noise_scale(session, frame, keypoint): noise variance of the keypoint in this
    frame [units of position squared]
float64 frequency(state): share of the labelled frames
int64 n_bouts(state): runs of the syllable
float64 median_duration(state): median bout duration [ms]
float64 mean_duration(state): mean bout duration [ms]
optional float64 mean_certainty(state): mean certainty of the frames of the syllable
optional int16 family(state) = -1: family of syllables that it belongs to, 0 = the most frequent
    one; -1 = none
optional float64 replicability(state): of a consensus, how alike the syllable is in the consensus
    of one half of the members and in that of the other: the least of the Jaccard indices of the
    three with each other
optional float64 session_replicability(state): of a consensus, the same between chains fitted to
    one half of the sessions and chains fitted to the other
optional float64 member_agreement(state): of a consensus, Jaccard index of the syllable with the
    state of a member that is nearest to it, mean over the members
int64 duration_count(state, duration): bouts of the syllable by duration; the last bin holds all
    longer ones
coordinate float64 duration(duration): bout duration [ms]
int64 transition_count(state, state_next): changes from one syllable to another at consecutive
    frames
optional int16 merged_syllable(state_before) = -1: of merged labels, what each syllable of the
    version that they are of has become
optional int16 merged_state(state_before) = -1: of merged labels, a number for each syllable of that
    version, those included that another has taken the frames of
"""),
)

LEVELS = (
    _SESSION,
    _N_FRAMES,
    _FPS,
    *(
        var
        for n in LEVEL_FRAMES
        for var in _declared(f"""
optional int16 syllable_{n}(session, bin_{n}) = -1: commonest syllable of the frames of the bin,
    the lower number of equals; -1 = none
optional float16 share_{n}(session, bin_{n}): share of the frames of the bin that have that
    syllable; NaN = no frames
optional float16 certainty_{n}(session, bin_{n}): mean certainty of the labels of the frames of
    the bin; NaN = not known
""")
    ),
)
"""Labels of one version in bins of more and more frames, for views of long spans."""

NAMES = _declared("""
str name(state): name that a person gave the syllable; "" = none
str description(state): what a person says about the syllable
""")
"""A version of the names of the syllables of one parameters version."""

CALIBRATION = (
    _KEYPOINT,
    *_declared("""
coordinate float64 confidence_bin(confidence_bin): lower edge of the bin of
    log10(confidence + pseudocount), which is part of it
float64 log_confidence(keypoint, confidence_bin): mean log10(confidence + pseudocount) of the
    positions that were compared
float64 tracking_error(keypoint, confidence_bin): scale of the tracking error along each axis, that
    of a Student t distribution with the degrees of freedom that attributes say; NaN = not known
    [units of position]
int64 n_compared(keypoint, confidence_bin): positions that were compared
"""),
)
"""Tracking error against confidence: of deviations from a local prediction, or of annotations."""

ANNOTATIONS = (
    _SPACE,
    *_declared("""
coordinate str session(annotation): session name
str source_hash(annotation): that of the session then
int64 first_frame(annotation): that of the session then
int64 frame_step(annotation): that of the session then
coordinate int64 frame(annotation): frame of the session [frames]
coordinate str keypoint(annotation): keypoint name
float64 position(annotation, space): where it is, as a person clicked in the video; NaN = not
    visible [units of position]
"""),
)
"""Positions that people clicked in frames of videos."""

EPOCHS = _declared("""
coordinate str session(interval): session name
coordinate str epoch(interval): name of the epoch; one epoch of a session may have several intervals
coordinate str condition(interval): condition that holds during the epoch; "" = not said
int64 start(interval): first frame of the session [frames]
int64 stop(interval): frame after the last one [frames]
""")
"""A version of the epochs of all sessions."""

TIMESTAMPS = (
    _SESSION,
    _N_FRAMES,
    *_some("source_hash first_frame frame_step", KEYPOINTS),  # which frames the times are of
    *_declared("""
float64 timestamp(session, frame): time of the frame, on the clock of the recording [s]
"""),
)
"""A version of the timestamps of some sessions."""
SIGNALS = (
    _SESSION,
    _N_FRAMES,
    _FPS,
    *_declared("""
float64 value(session, frame): value of the signal at the time of the frame; NaN = missing
"""),
)
"""A version of a signal: the sessions that it was added to at once."""

PROGRESS = (
    *(var for var in PARAMETERS if var.dims[0] == "sweep"),
    *_some("term", PARAMETERS),
)
"""Of an unfinished fit: appended to at every commit, states numbered as in its chain."""

CHAIN = (
    _SESSION,
    _SPACE,
    _KEYPOINT,
    _N_FRAMES,
    _FPS,
    *_some("source_hash", KEYPOINTS),
    *_declared("""
coordinate str feature(feature): what the column holds
int16 syllable(session, frame) = -1: syllable of the frame; -1 = none
float32 local(session, frame, feature): state of the chain beside the labels, in model units;
    float64 when sampled so
optional int16 draw(session, frame, draw) = -1: labels after the sweeps that are averaged, so far,
    numbered as the states of the chain
int64 state_number(state): state of the parameters -> number as a syllable
"""),
    *_some(
        "pose_loading pose_mean ar_weight ar_bias ar_covariance state_usage "
        "transition_probability noise_variance",
        PARAMETERS,
    ),
    *_declared("""
float64 moment(state, pair): sums of products of residuals by state
float64 noise_square(keypoint): sum of squared errors over noise scales
float64 noise_count(keypoint): frames in which the keypoint is observed
"""),
    *_some("scale", LABELS),
    *WINDOWS,  # numbered as the states of the chain
    *OUTLIERS,
)
"""One committed sweep of an unfinished fit: all that going on from it takes."""

SCANS = (
    _SESSION,
    _N_FRAMES,
    *_declared("""
coordinate str label(point): settings of the point, in words
optional coordinate float64 target_duration(point): median duration asked for [ms]
optional coordinate float64 kappa(point): stickiness
optional coordinate int64 latent_dim(point): latent dims
optional coordinate int64 lags(point): autoregressive order [frames]
optional coordinate float64 innovation_scale(point): S0 of the innovation covariance
optional coordinate int64 innovation_dof(point): degrees of freedom of that prior beyond the
    latent dims
coordinate int64 seed(chain): seed of the chain
optional coordinate str held_out(held_out): session that is kept from the chains
float64 median_duration(point, chain): median bout of the syllables in use, of the labels that a
    fit would publish [ms]
int64 n_used(point, chain): syllables holding 0.5 % of the frames or more
float64 effective_number(point, chain): exp of the entropy of the usage of the syllables
float64 final_kappa(point, chain): stickiness at the last sweep
float64 log_evidence(point, chain): log p(x, z | hyperparameters) per frame, mean over the sweeps
    whose labels are averaged; NaN in the full stage [nat / frame]
float64 held_out_log_likelihood(point, chain): log p(x | parameters) of the sessions that are held
    out, labels summed out, mean of the likelihood over draws of the parameters [nat / frame]
optional float64 held_out_by_session(point, chain, held_out): the same of each session [nat /
    frame]
float64 expected_marginal_likelihood(point, chain): log p(x of the other chains of the point |
    parameters of the chain), labels summed out, mean over these [nat / frame]
float64 adjusted_rand_index(point, chain): agreement of the labels with those of the other chains
    of the point, mean over these
float64 seconds(point, chain): wall time of the chain; NaN = it has not run [s]
"""),
)
"""What a scan has found: a row for each point, a column for each chain."""

SCAN_CHAINS = (
    _SESSION,
    _N_FRAMES,
    *_some("syllable", LABELS),
    *_optional(_some("latent", LABELS)),
    *_optional(
        _some(
            "ar_weight ar_bias ar_covariance state_usage transition_probability",
            PARAMETERS,
        )
    ),
)
"""Labels of one chain of a scan, and of the full stage its latent pose and parameters."""

GROUPS: dict[str, tuple[Variable, ...]] = {
    "keypoints": KEYPOINTS,
    "quality": QUALITY,
    "pca": PCA,
    "changepoints": CHANGEPOINTS,
    "parameters": PARAMETERS,
    "labels": LABELS,
    "names": NAMES,
    "epochs": EPOCHS,
    "timestamps": TIMESTAMPS,
    "signals": SIGNALS,
    "calibration": CALIBRATION,
    "annotations": ANNOTATIONS,
    "levels": LEVELS,
    "progress": PROGRESS,
    "chain": CHAIN,
    "scans": SCANS,
    "scan_chains": SCAN_CHAINS,
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
