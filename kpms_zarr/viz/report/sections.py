"""The sections of a report: what each is called, how to read it, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.layouts import row

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.model import models
from kpms_zarr.viz.ethograms import views as ethograms
from kpms_zarr.viz.fit import denoised as fit_denoised
from kpms_zarr.viz.fit import traces as fit_traces
from kpms_zarr.viz.fit import views as fit_views
from kpms_zarr.viz.fit.denoised import CONFIDENCE_THRESHOLD
from kpms_zarr.viz.player.data import open_session, read_window
from kpms_zarr.viz.player.player import build_player
from kpms_zarr.viz.pose import latent, rotating
from kpms_zarr.viz.pose import views as pose_space
from kpms_zarr.viz.report.cards import Card, cards
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.grouping import group_coordinates
from kpms_zarr.viz.shared.guessing import drawn_settings, note_on
from kpms_zarr.viz.syllables import transition_views, usage
from kpms_zarr.viz.tracking import views as quality_views

_MAX_BOUT_FRAMES = 60_000
_MAX_QUALITY_SESSIONS = 40
_PLAYED_SECONDS = 20.0
_PLAYED_BYTES = 2_500_000
_LOOKED_THROUGH = 65_536
"""Frames at the beginning of a session in which a window to play is looked for."""
_ZOOM = "Drag across the plot to zoom in; the circular arrow of its toolbar goes back."


@dataclass(frozen=True)
class Bokeh:
    """Drawings that are Bokeh models already."""

    models: Sequence[Any]


@dataclass(frozen=True)
class Cards:
    """Cards of syllables."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A heading, how to read what is below it, and how to draw that.

    Attributes
    ----------
    heading, anchor, sentence : str
    alt : str
        What those hear who do not see it.
    draw : callable
        May raise MissingData or InputError: the section then says what is to be done first.
    layout : str
        Class of the element around it in the page.
    """

    heading: str
    anchor: str
    sentence: str
    alt: str
    draw: Callable[[], hv.core.Dimensioned | Bokeh | Cards]
    layout: str = ""


def sections_of(
    store: StoreLike,
    model: str,
    version: str,
    sessions: tuple[Session, ...],
    max_sessions: int,
) -> list[Section]:
    """The sections of the report of a version of a model, in the order of the page.

    Parameters
    ----------
    store : path or URL
    model, version : str
    sessions : tuple of Session
        With labels.
    max_sessions : int
        In the ethograms.
    """
    of: dict[str, Any] = {"model": model, "version": version}
    stages = _stages(store, model, version)
    has_poses = any(stage.name == "full" for stage in stages)
    return [
        _looks(store, of),
        *_in_time(store, of, sessions, max_sessions),
        _player(store, of, sessions[0]),
        *_statistics(store, of),
        *_following(store, of),
        *_fit(store, of, stages),
        *_tracking(store),
        *([_denoised(store, of, sessions[0])] if has_poses else []),
        *_pose_space(store, of),
    ]


# ------------------------------------------------------------------ syllables


def _looks(store: StoreLike, of: dict[str, Any]) -> Section:
    return Section(
        "What they look like",
        "cards",
        "The typical pose of each syllable at six moments from its onset to its median duration, "
        "lighter ones earlier, seen from above (in three dimensions from the side too), the animal "
        "facing right at the onset. Open the example bouts to see how far single ones differ "
        "from it." + _about_lines(store),
        "A card for each syllable with drawings of its poses.",
        lambda: Cards(cards(store, **of)),
        "cards",
    )


def _in_time(
    store: StoreLike, of: dict[str, Any], sessions: tuple[Session, ...], max_sessions: int
) -> list[Section]:
    shown = sessions[:max_sessions]
    n_shown, n_sessions = len(shown), len(sessions)
    which = f"The first {n_shown} of {n_sessions} sessions. " if n_shown < n_sessions else ""
    seconds = min(60, max(1, int(_MAX_BOUT_FRAMES / sum(session.fps for session in shown))))
    return [
        Section(
            "Whole sessions",
            "ethogram",
            f"{which}Each row is a session, time runs to the right, and the colour tells the "
            "syllable that holds most of the frames of a short stretch of time; grey means no "
            f"syllable. {_ZOOM}",
            "Ethogram: a row of coloured stretches for each session over time in seconds.",
            partial(ethograms.ethogram, store, **of, max_sessions=n_shown),
        ),
        Section(
            f"First {seconds} seconds",
            "bouts",
            f"{which}The same colours frame by frame: each block is one bout, and pointing at it "
            f"tells when it starts and how long it lasts. {_ZOOM}",
            "Ethogram of the first seconds of each session, one block for each bout.",
            partial(ethograms.bouts, store, **of, max_sessions=n_shown, seconds=seconds),
        ),
    ]


def _player(store: StoreLike, of: dict[str, Any], session: Session) -> Section:
    return Section(
        "Watch",
        "player",
        f"A lively part of {session.name}, as tracked (orange; pale points are of low confidence) "
        "and as the model sees it (blue). Press Play, or click into the labels or a trace below; "
        "other sessions and their videos: kpms-zarr explore." + _about_lines(store),
        "A player: moving skeleton, place in the arena, labels and traces over time.",
        partial(_played, store, of, session),
    )


def _played(store: StoreLike, of: dict[str, Any], session: Session) -> Bokeh:
    opened = open_session(store, **of, session=session.name)
    n_keypoints, n_space = len(opened.settings.keypoints), len(opened.settings.space)
    per_second = session.fps * (n_keypoints * (2 * n_space + 1) * 16 / 3 + 100)
    seconds = float(np.clip(_PLAYED_BYTES / per_second, 1.0, _PLAYED_SECONDS))
    start = lively_start(models.open_labels(store, of["model"], of["version"]), session, seconds)
    window = read_window(opened, start, start + seconds)
    return Bokeh([build_player(opened, window).layout])


def lively_start(labels: xr.Dataset, session: Session, seconds: float) -> float:
    """Second at which the window with most syllables in use begins, near the start of a session.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame).
    session : Session
    seconds : float
        How long the window is.
    """
    n_frames = min(session.n_frames, _LOOKED_THROUGH)
    length = max(1, round(seconds * session.fps))
    n_windows = n_frames // length
    if n_windows < 2:
        return 0.0
    syllable = labels["syllable"][session.index, : n_windows * length].values
    if "frequency" in labels:  # rare ones are often lost tracking
        syllable = np.where(np.isin(syllable, reading.used_states(labels)), syllable, -1)
    ordered = np.sort(syllable.reshape(n_windows, length), axis=1)
    n_different = (np.diff(ordered, axis=1) > 0).sum(1) - (ordered[:, 0] < 0)
    return float(n_different.argmax() * length / session.fps)


def _statistics(store: StoreLike, of: dict[str, Any]) -> list[Section]:
    return [
        Section(
            "How often",
            "frequencies",
            "A tall bar is a syllable that takes up much of the video; a flat tail of many small "
            "bars is usual, one bar far above all others often means that the tracking was lost.",
            "Bar chart: share of the frames of each syllable, the most frequent first.",
            partial(usage.frequencies, store, **of),
        ),
        Section(
            "How long",
            "durations",
            "How long bouts last, over all syllables; half of them are no longer than the "
            "dashed line. A peak at one or two frames means that labels flicker: raise kappa or "
            "look at the tracking. The axis ends where 99 % of the bouts are shown.",
            "Histogram of bout durations in milliseconds with the median marked.",
            partial(usage.durations, store, **of),
        ),
    ]


def _following(store: StoreLike, of: dict[str, Any]) -> list[Section]:
    return [
        Section(
            "What follows what",
            "transitions",
            "Row: a syllable; column: the one that comes next. The darker the cell, the larger the "
            "share of the changes from the row to the column; an evenly coloured row means that "
            "anything may follow.",
            "Matrix of the shares of changes from each syllable to each other.",
            partial(transition_views.transitions, store, **of),
            "square",
        ),
        Section(
            "The commonest changes",
            "graph",
            "Circles are syllables, the larger the more frequent; an arrow has the colour of the "
            "syllable that it leaves, and is the wider the larger its share of all changes. "
            "Syllables that often follow each other lie beside each other. Point at an arrow head "
            "to read its share.",
            "Graph: syllables around a circle, joined by arrows for the commonest changes.",
            partial(transition_views.transition_graph, store, **of),
        ),
    ]


# ------------------------------------------------------------------ the fit


def _stages(store: StoreLike, model: str, version: str) -> tuple[reading.Stage, ...]:
    """Stages of the fit; none where the version has labels only."""
    try:
        return reading.stages(reading.parameters(store, model, version))
    except reading.MissingData:
        return ()


def _fit(store: StoreLike, of: dict[str, Any], stages: tuple[reading.Stage, ...]) -> list[Section]:
    return [
        Section(
            "Course of the fit",
            "traces",
            "Each point is one sweep of the sampler. Curves that have become level mean that more "
            "sweeps would change little; curves that still climb or fall at the right mean that "
            f"the fit should go on.{_how_to_read(stages)}",
            "Line charts over sweeps: log likelihood, median bout, kappa, syllables in use.",
            partial(fit_traces.traces, store, **of),
            "grid",
        ),
        Section(
            "How far labels have settled",
            "stability",
            "Labels of one window of frames after each of the last kept sweeps, the last at the "
            "bottom: rows that look alike mean labels that have settled. The line below is the "
            "share of these sweeps in which a frame has its last label; frames that change from "
            "sweep to sweep are ones that the model is not sure of.",
            "Heat map of the labels of a window over sweeps, and a line of their agreement.",
            partial(_stability, store, of),
        ),
    ]


def _stability(store: StoreLike, of: dict[str, Any]) -> hv.Layout:
    parameters = reading.parameters(store, of["model"], of["version"])
    reading.require(parameters, ("window_syllable",), store, "parameters")
    return fit_views.label_stability(store, **of)


def _how_to_read(stages: tuple[reading.Stage, ...]) -> str:
    """What the curves of a fit in several stages need said besides."""
    if len(stages) < 2:
        return ""
    return (
        " The log likelihoods of the stages are of different quantities, so each has its own "
        "drawing, which may leave out the first steep sweeps; in the others a dashed line parts "
        f"the stages ({', then '.join(stage.label for stage in stages)})."
    )


# ------------------------------------------------------------------ tracking and poses


def _tracking(store: StoreLike) -> list[Section]:
    return [
        Section(
            "Quality of the tracking",
            "quality",
            "Share of the frames in which a keypoint is missing, of low confidence, or jumps away "
            f"from where it was (outliers); up to {_MAX_QUALITY_SESSIONS} sessions, the worst "
            "first. A column that is dark everywhere is a keypoint to leave out of the fit "
            "(setting use_keypoints), a dark row a session to look at.",
            "Heat maps, sessions by keypoints, of missing, low-confidence and outlying frames.",
            partial(_quality, store),
            "grid",
        ),
        Section(
            "Confidence of the tracker",
            "confidence",
            "How confident the tracker was of each keypoint, the least certain ones first. Frames "
            "left of the line count as of low confidence.",
            "Histograms of the confidences of the keypoints.",
            partial(quality_views.confidence_histograms, store),
            "grid",
        ),
    ]


def _quality(store: StoreLike) -> hv.Layout:
    return hv.Layout(
        [
            quality_views.quality_map(store, what=what, max_sessions=_MAX_QUALITY_SESSIONS)
            for what in ("missing", "low_confidence", "outlier")
        ]
    )


def _denoised(store: StoreLike, of: dict[str, Any], session: Session) -> Section:
    return Section(
        "Tracked and denoised",
        "denoised",
        f"The x coordinate of the worst tracked keypoints of {session.name} around a bad stretch. "
        "Dots are what was tracked, hollow orange ones with a confidence below "
        f"{CONFIDENCE_THRESHOLD:g}, grey is missing; the blue line is what the model makes of it: "
        "it should follow the dots and pass the tracking errors by.",
        "Scatter charts over time: tracked and denoised x coordinate of a few keypoints.",
        partial(fit_denoised.denoised, store, **of),
    )


def _pose_space(store: StoreLike, of: dict[str, Any]) -> list[Section]:
    return [
        Section(
            "Variance of the pose",
            "scree",
            "Poses are centred, turned so that the animal faces right, and described by principal "
            "components. Bars: the share of the variance of each component; line: of all up to it.",
            "Scree plot: share of the variance by component, and the cumulative share.",
            partial(pose_space.scree, store),
        ),
        Section(
            "Principal components",
            "components",
            "What each component does to the mean pose (grey): two standard deviations less in "
            "blue, two more in orange. In three dimensions the sliders turn all of them."
            + _about_lines(store),
            "Skeletons of the mean pose and of two standard deviations to either side.",
            partial(_components, store),
            "small",
        ),
        Section(
            "Latent poses",
            "poses",
            "The model sees a pose as a few latent numbers; each drawing shows what one of them "
            "does, from above, the animal facing right: the mean pose in grey, two standard "
            "deviations less in blue, two more in orange.",
            "Skeletons of the mean pose and of two standard deviations to either side.",
            partial(latent.poses, store, **of),
            "small",
        ),
        Section(
            "Where groups are in pose space",
            "scores",
            "Where the frames of each group of sessions lie along the first two latent numbers: "
            "the darker a cell, the larger its share of the frames of the group. Groups whose "
            "frames lie elsewhere differ in posture, or in size or tracking.",
            "Heat maps of two latent dimensions, one for each group of sessions.",
            partial(_scores, store, of),
            "grid",
        ),
    ]


def _about_lines(store: StoreLike) -> str:
    said = note_on(drawn_settings(store))
    return f" {said}" if said else ""


def _components(store: StoreLike) -> Bokeh:
    sliders, figures = rotating.draw_rotating(
        pose_space.open_pca(store), drawn_settings(store), max_components=8
    )
    return Bokeh([*([row(*sliders)] if sliders else []), *figures])


def _scores(store: StoreLike, of: dict[str, Any]) -> hv.Layout:
    labels = models.open_labels(store, of["model"], of["version"])
    reading.require(labels, ("latent",), store, "labels")
    coordinates = group_coordinates(access.dataset(store, layout.KEYPOINTS))
    n_latent = int(labels.sizes["latent_dim"])
    by = coordinates[0] if coordinates else None
    return pose_space.scores(store, **of, by=by, dims=(0, min(1, n_latent - 1)))
