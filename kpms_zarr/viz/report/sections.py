"""The sections of a report: what each is called, how to read it, and how it is drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.layouts import row

from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import call
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
from kpms_zarr.viz.report.replication import READ_SO, Replication, replication
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.grouping import group_coordinates
from kpms_zarr.viz.shared.guessing import note_on
from kpms_zarr.viz.shared.opened import OpenModel, certainty_words
from kpms_zarr.viz.syllables import transition_views, usage
from kpms_zarr.viz.syllables.dendrogram import dendrogram
from kpms_zarr.viz.tracking import views as quality_views

_MAX_BOUT_FRAMES = 60_000
_MAX_QUALITY_SESSIONS = 40
_PLAYED_SECONDS = 20.0
_PLAYED_BYTES = 2_500_000
_LOOKED_THROUGH = 65_536
"""Frames at the beginning of a session in which a window to play is looked for."""
_COMPARED_FRAMES = 2_000_000
"""Most frames whose syllables are compared: 18 hours at 30 frames per second, some seconds."""
_ZOOM = "Drag across the plot to zoom in; the circular arrow of its toolbar goes back."


@dataclass(frozen=True)
class BokehModels:
    """Drawings that are Bokeh models already."""

    models: Sequence[Any]


@dataclass(frozen=True)
class SyllableCards:
    """Cards of syllables."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A heading, how to read what is below it, and how to draw that.

    Attributes
    ----------
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
    draw: Callable[[], hv.core.Dimensioned | BokehModels | SyllableCards | Replication]
    layout: str = ""


def sections_of(opened: OpenModel, max_sessions: int) -> list[Section]:
    """The sections of the report of a version of a model, in the order of the page.

    Parameters
    ----------
    max_sessions : int
        In the ethograms.
    """
    stages = _stages(opened)
    has_poses = any(stage.name == "full" for stage in stages)
    return [
        _replication(opened),
        _looks(opened),
        _alike(opened),
        *_in_time(opened, max_sessions),
        _player(opened),
        *_statistics(opened),
        *_following(opened),
        *_fit(opened, stages),
        *_tracking(opened.store),
        *([_denoised(opened)] if has_poses else []),
        *_pose_space(opened),
    ]


# ------------------------------------------------------------------ syllables


def _replication(opened: OpenModel) -> Section:
    return Section(
        "Replicability",
        "replicability",
        "Would other seeds have found the same syllables? The chains were parted into two halves "
        f"that share nothing but the data, and what each half agrees on was compared. {READ_SO} "
        "Larger dots are more frequent syllables.",
        "Dots: how far each syllable replicates, over bands that say how that is to be read.",
        partial(replication, opened),
    )


def _looks(opened: OpenModel) -> Section:
    return Section(
        "What they look like",
        "cards",
        "The typical pose of each syllable at six moments from its onset to its median duration, "
        "lighter ones earlier, seen from above (in three dimensions from the side too), the animal "
        "facing right at the onset. Open the example bouts to see how far single ones differ "
        f"from it.{_card_words(opened)}" + _about_lines(opened),
        "A card for each syllable with drawings of its poses.",
        lambda: SyllableCards(cards(opened)),
        "cards",
    )


def _card_words(opened: OpenModel) -> str:
    """What the lines on replicability of a card mean, where it has some."""
    found = opened.replicability if "frequency" in opened.labels else None
    if found is None or not found.is_known:
        return ""
    sessions = "; sessions: between halves of these" if found.is_known_between_sessions else ""
    return f" Seeds: how far a syllable replicates between halves of the chains{sessions}."


def _alike(opened: OpenModel) -> Section:
    return Section(
        "Which are alike",
        "similarity",
        "The lower two branches join, the more alike the syllables that they hold: the height is "
        "the evidence that is lost when both become one, per frame. Where branches join at 0, the "
        "data do not ask for two syllables: look at both, and make them one with kpms-zarr merge; "
        "the page Similarity of kpms-zarr explore shows what would be one.",
        "Tree of the syllables: those that are alike join at a small height.",
        partial(_tree, opened),
    )


def _tree(opened: OpenModel) -> hv.Overlay:
    """The tree of the syllables in use, of studies for which it takes some seconds."""
    n_frames = sum(session.n_frames for session in opened.sessions)
    if n_frames > _COMPARED_FRAMES:
        raise InputError(
            expected=f"a study of {_COMPARED_FRAMES:,} frames at most, to be compared in passing",
            found=f"{n_frames:,}",
            where=f"{os.fspath(opened.store)}, model {opened.model!r}",
            fix=f"Of any size: {call('similarity', opened.store, model=opened.model)}",
        )
    # It brings JAX along, for which those who draw nothing of it need not wait.
    from kpms_zarr.compute.runs.hierarchy.similarity import similarity

    return dendrogram(
        similarity(
            opened.store, model=opened.model, version=opened.version, syllables=list(opened.used)
        )
    )


def _in_time(opened: OpenModel, max_sessions: int) -> list[Section]:
    sessions = opened.sessions
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
            f"syllable.{_paleness(opened)} {_ZOOM}",
            "Ethogram: a row of coloured stretches for each session over time in seconds.",
            partial(ethograms.ethogram, opened.store, model=opened, max_sessions=n_shown),
        ),
        Section(
            f"First {seconds} seconds",
            "bouts",
            f"{which}The same colours frame by frame: each block is one bout, and pointing at it "
            f"tells when it starts and how long it lasts.{_paleness(opened)} {_ZOOM}",
            "Ethogram of the first seconds of each session, one block for each bout.",
            partial(
                ethograms.bouts, opened.store, model=opened, max_sessions=n_shown, seconds=seconds
            ),
        ),
    ]


def _paleness(opened: OpenModel) -> str:
    return f" {certainty_words(opened)}" if "certainty" in opened.labels else ""


def _player(opened: OpenModel) -> Section:
    session = opened.sessions[0]
    return Section(
        "Watch",
        "player",
        f"A lively part of {session.name}, as tracked (orange; pale points are of low confidence) "
        "and as the model sees it (blue). Press Play, or click into the labels or a trace below; "
        "other sessions and their videos: kpms-zarr explore." + _about_lines(opened),
        "A player: moving skeleton, place in the arena, labels and traces over time.",
        partial(_played, opened, session),
    )


def _played(opened: OpenModel, session: Session) -> BokehModels:
    played = open_session(opened.store, model=opened, session=session.name)
    n_keypoints, n_space = len(played.settings.keypoints), len(played.settings.space)
    per_second = session.fps * (n_keypoints * (2 * n_space + 1) * 16 / 3 + 100)
    seconds = float(np.clip(_PLAYED_BYTES / per_second, 1.0, _PLAYED_SECONDS))
    start = lively_start(opened.labels, session, seconds)
    window = read_window(played, start, start + seconds)
    return BokehModels([build_player(played, window).layout])


def lively_start(labels: xr.Dataset, session: Session, seconds: float) -> float:
    """Second at which the window with most syllables in use begins, near the start of a session.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame).
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


def _statistics(opened: OpenModel) -> list[Section]:
    return [
        Section(
            "How often",
            "frequencies",
            "A tall bar is a syllable that takes up much of the video; a flat tail of many small "
            "bars is usual, one bar far above all others often means that the tracking was lost.",
            "Bar chart: share of the frames of each syllable, the most frequent first.",
            partial(usage.frequencies, opened.store, model=opened),
        ),
        Section(
            "How long",
            "durations",
            "How long bouts last, over all syllables; half of them are no longer than the "
            "dashed line. A peak at one or two frames means that labels flicker: raise kappa or "
            "look at the tracking. The axis ends where 99 % of the bouts are shown.",
            "Histogram of bout durations in milliseconds with the median marked.",
            partial(usage.durations, opened.store, model=opened),
        ),
    ]


def _following(opened: OpenModel) -> list[Section]:
    return [
        Section(
            "What follows what",
            "transitions",
            "Row: a syllable; column: the one that comes next. The darker the cell, the larger the "
            "share of the changes from the row to the column; an evenly coloured row means that "
            "anything may follow.",
            "Matrix of the shares of changes from each syllable to each other.",
            partial(transition_views.transitions, opened.store, model=opened),
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
            partial(transition_views.transition_graph, opened.store, model=opened),
        ),
    ]


# ------------------------------------------------------------------ the fit


def _stages(opened: OpenModel) -> tuple[reading.FitStage, ...]:
    """Stages of the fit; none where the version has labels only."""
    try:
        return reading.stages(opened.parameters)
    except reading.MissingData:
        return ()


def _fit(opened: OpenModel, stages: tuple[reading.FitStage, ...]) -> list[Section]:
    return [
        Section(
            "Course of the fit",
            "traces",
            "Each point is one sweep of the sampler. Curves that have become level mean that more "
            "sweeps would change little; curves that still climb or fall at the right mean that "
            "the fit should go on. The log evidence is the joint log density of all that is "
            "sampled, with dynamics and transitions integrated out: of chains of one study with "
            f"equal settings, the higher explains the data better.{_how_to_read(stages)}",
            "Line charts over sweeps: log likelihood, median bout, kappa, syllables in use, log "
            "evidence.",
            partial(fit_traces.traces, opened.store, model=opened),
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
            partial(_stability, opened),
        ),
    ]


def _stability(opened: OpenModel) -> hv.Layout:
    opened.parameters_with("window_syllable")
    return fit_views.label_stability(opened.store, model=opened)


def _how_to_read(stages: tuple[reading.FitStage, ...]) -> str:
    """Explain the curves of a fit in several stages."""
    if len(stages) < 2:
        return ""
    return (
        " Log likelihoods and log evidences of the stages are of different quantities, so each has "
        "its own drawing, which may leave out the first steep sweeps; in the others a dashed line "
        "parts "
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


def _denoised(opened: OpenModel) -> Section:
    return Section(
        "Tracked and denoised",
        "denoised",
        f"The x coordinate of the worst tracked keypoints of {opened.sessions[0].name} around a "
        "bad stretch. "
        "Dots are what was tracked, hollow orange ones with a confidence below "
        f"{CONFIDENCE_THRESHOLD:g}, grey is missing; the blue line is what the model makes of it: "
        "it should follow the dots and pass the tracking errors by.",
        "Scatter charts over time: tracked and denoised x coordinate of a few keypoints.",
        partial(fit_denoised.denoised, opened.store, model=opened),
    )


def _pose_space(opened: OpenModel) -> list[Section]:
    return [
        Section(
            "Variance of the pose",
            "scree",
            "Poses are centred, turned so that the animal faces right, and described by principal "
            "components. Bars: the share of the variance of each component; line: of all up to it.",
            "Scree plot: share of the variance by component, and the cumulative share.",
            partial(pose_space.scree, opened.store),
        ),
        Section(
            "Principal components",
            "components",
            "What each component does to the mean pose (grey): two standard deviations less in "
            "blue, two more in orange. In three dimensions the sliders turn all of them."
            + _about_lines(opened),
            "Skeletons of the mean pose and of two standard deviations to either side.",
            partial(_components, opened),
            "small",
        ),
        Section(
            "Latent poses",
            "poses",
            "The model sees a pose as a few latent numbers; each drawing shows what one of them "
            "does, from above, the animal facing right: the mean pose in grey, two standard "
            "deviations less in blue, two more in orange.",
            "Skeletons of the mean pose and of two standard deviations to either side.",
            partial(latent.poses, opened.store, model=opened),
            "small",
        ),
        Section(
            "Where groups are in pose space",
            "scores",
            "Where the frames of each group of sessions lie along the first two latent numbers: "
            "the darker a cell, the larger its share of the frames of the group. Groups whose "
            "frames lie elsewhere differ in posture, or in size or tracking.",
            "Heat maps of two latent dimensions, one for each group of sessions.",
            partial(_scores, opened),
            "grid",
        ),
    ]


def _about_lines(opened: OpenModel) -> str:
    note = note_on(opened.settings)
    return f" {note}" if note else ""


def _components(opened: OpenModel) -> BokehModels:
    sliders, figures = rotating.draw_rotating(
        pose_space.open_pca(opened.store), opened.settings, max_components=8
    )
    return BokehModels([*([row(*sliders)] if sliders else []), *figures])


def _scores(opened: OpenModel) -> hv.Layout:
    n_latent = int(opened.labels_with("latent").sizes["latent_dim"])
    coordinates = group_coordinates(opened.tracked)
    by = coordinates[0] if coordinates else None
    return pose_space.scores(opened.store, model=opened, by=by, dims=(0, min(1, n_latent - 1)))
