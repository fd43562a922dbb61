"""Course of a fit, while it runs and afterwards: traces, durations, settling of labels."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.models import CustomJSHover

from kpms_zarr.store.core import attributes
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.checkpoints import open_progress
from kpms_zarr.store.model.settling import from_attrs
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.viz.fit.traces import draw_traces
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import palette
from kpms_zarr.viz.shared.histograms import draw_durations
from kpms_zarr.viz.shared.opened import ModelLike, OpenModel
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.shared.style import LINE, frame, hover_tool, load, syllable_name
from kpms_zarr.viz.shared.times import TIME_AXIS, clock_hover, span_words

TARGET_COLOR = "#b45309"
"""Of the target of the median duration, line and words."""

_MOST_BLOCKS = 32
_N_BINS = 300
_MOST_TICKS = 8
_LAST_SWEEPS = 5
_LEFT = 72  # px; room for the labels of the y axis, equal in views above each other


@dataclass(frozen=True)
class Course:
    """Course of a fit, in progress or published.

    Attributes
    ----------
    version : str
        Of the labels; "" of a fit in progress.
    data : Dataset
        Traces (``trace_*``) and, perhaps, ``window_*``.
    labels : Dataset
        ``syllable`` (session, frame), lazy; with the durations where they are published.
    n_sweeps, n_planned : int
        Sweeps committed, and in all.
    target : float or None
        Of the median duration, in ms.
    created : str
        When that was committed or published; ISO 8601.
    may_end_early : bool
        Whether it ends when it has settled, after ``n_planned`` sweeps at most.
    workers : dict of str to int
        Of a cluster that it runs on, by ``n_workers``, ``n_parts`` and ``n_again`` (calls that were
        made again); empty = none.
    """

    model: str
    version: str
    data: xr.Dataset
    labels: xr.Dataset
    n_sweeps: int
    n_planned: int
    target: float | None
    created: str
    may_end_early: bool = False
    workers: dict[str, int] = field(default_factory=dict)

    @property
    def rates(self) -> list[float]:
        """Frames per second, by session."""
        return [session.fps for session in reading.label_sessions(self.labels)]

    @property
    def seconds_left(self) -> float:
        """Seconds that the remaining sweeps take at the pace of the last ones; NaN = not known."""
        if not self.n_sweeps:
            return np.nan
        last = self.data["trace_seconds"].values[-_LAST_SWEEPS:]
        return float(np.mean(last)) * (self.n_planned - self.n_sweeps)


@dataclass(frozen=True)
class Stability:
    """Labels of some consecutive frames after several of the last sweeps.

    Attributes
    ----------
    start : int
        First frame in the session.
    sweep : ndarray, (sweep,) int
        Sweeps done when the labels were kept.
    syllable : ndarray, (sweep, frame) int
        -1 = none.
    """

    session: str
    fps: float
    start: int
    sweep: np.ndarray
    syllable: np.ndarray

    @property
    def agreement(self) -> np.ndarray:
        """Share of the sweeps in which each frame has its last label: (frame,)."""
        return np.asarray((self.syllable == self.syllable[-1]).mean(0))

    @property
    def seconds(self) -> tuple[float, float]:
        """Begin and end of the window in its session, in s."""
        return self.start / self.fps, (self.start + self.syllable.shape[1]) / self.fps


def read_course(store: StoreLike, *, model: ModelLike, version: str | None = None) -> Course:
    """Read a fit in progress, if there is one of that name; else what it has published.

    Parameters
    ----------
    version : str, optional
        Of published labels; a fit in progress is then left out of account.

    Raises
    ------
    InputError
        When there is no such model.
    """
    if version is None and isinstance(model, str):
        with suppress(InputError):
            return course_in_progress(open_progress(store, model))
    return published_course(OpenModel.of(store, model, version))


def course_in_progress(data: xr.Dataset) -> Course:
    """Describe a fit in progress, of what ``open_progress`` gives."""
    facts = attributes.read(data.attrs)
    target = facts["settings"].get("target_duration")
    n_sweeps, n_planned = int(facts["n_sweeps"]), int(facts["n_sweeps_in_all"])
    last = "ar" if facts["settings"].get("stage") == "ar" else "full"
    waits = bool(facts["settings"].get("until_settled")) and last not in from_attrs(facts)
    shown = (data, data, n_sweeps, n_planned, target)
    workers = facts.get("workers", {})
    return Course(facts["model"], "", *shown, facts["created"], waits, workers)


def published_course(opened: OpenModel) -> Course:
    """Describe the fit behind a version of the labels."""
    data = opened.parameters
    origin = provenance_of(data.attrs)
    target = origin.get("settings", {}).get("target_duration")
    n_sweeps = int(data.sizes.get("sweep", 0))
    created = origin.get("created", "")
    shown = (data, opened.labels, n_sweeps, n_sweeps)
    return Course(opened.model, opened.version, *shown, target, created)


# ------------------------------------------------------------------ traces and durations


def fit_traces(store: StoreLike, *, model: ModelLike, version: str | None = None) -> hv.Layout:
    """Course of a fit over its sweeps, also of one in progress (see ``viz.traces``).

    Parameters
    ----------
    store : path or URL
    model : str or OpenModel
    version : str, optional
        Of published labels (default: the fit in progress, else the current version).

    Returns
    -------
    holoviews.Layout

    Raises
    ------
    InputError
        When there is no such model.
    MissingData
        When no sweep is committed yet.
    """
    return draw_course(read_course(store, model=model, version=version))


def draw_course(course: Course) -> hv.Layout:
    """Draw the traces of a fit; see :func:`fit_traces`."""
    if not course.n_sweeps:
        raise MissingData(
            expected="a committed sweep",
            found="none yet",
            where=f"the fit of {course.model!r}",
            fix="wait for the first commit; `save_every=` sets how often one is made",
        )
    return draw_traces(course.data, course.rates, course.target)


def fit_durations(store: StoreLike, *, model: ModelLike, version: str | None = None) -> hv.Overlay:
    """Durations of all bouts, the median and the target of the fit marked.

    Of a fit in progress, of the labels of its last committed sweep; of a large study, of 2 million
    frames spread over it.

    Parameters
    ----------
    store : path or URL
    model : str or OpenModel
    version : str, optional
        Of published labels (default: the fit in progress, else the current version).

    Returns
    -------
    holoviews.Overlay

    Raises
    ------
    InputError
        When there is no such model.
    MissingData
        When there are no bouts.
    """
    return draw_course_durations(read_course(store, model=model, version=version), store)


def draw_course_durations(course: Course, store: StoreLike) -> hv.Overlay:
    """Draw the durations of the bouts of a fit; see :func:`fit_durations`."""
    if course.version:
        reading.require(course.labels, ("duration_count", "duration"), store, "labels")
        counts = course.labels
    else:
        counts = sampled_durations(course.labels)
    if not counts["duration_count"].values.any():
        raise MissingData(
            expected="any bout",
            found="labels without",
            where=str(store),
            fix="look at the tracking with `kpms_zarr.quality` and fit again",
        )
    drawn = draw_durations(counts)
    if course.target is None:
        return drawn
    line = hv.VLine(course.target).opts(
        color=TARGET_COLOR, line_width=2, line_dash="dotted", default_tools=[]
    )
    top = hv.Store.lookup_options("bokeh", drawn, "plot").kwargs["ylim"][1]
    text = hv.Text(course.target, 0.82 * top, f"  target {course.target:.4g} ms", halign="left")
    return drawn * line * text.opts(color=TARGET_COLOR, text_font_size="13px", default_tools=[])


def sampled_durations(
    labels: xr.Dataset,
    *,
    max_blocks: int = _MOST_BLOCKS,
    block_frames: int = LABEL_FRAMES_PER_CHUNK,
) -> xr.Dataset:
    """Durations of the bouts in some blocks of labels, spread over all of them.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame), ``n_frames`` and ``fps``.
    max_blocks : int
        That are read. Bouts that are cut by the edge of a block do not count.
    block_frames : int
        Frames of a block.

    Returns
    -------
    Dataset
        ``duration_count`` (state, duration), of all syllables together; ``duration`` in ms, a bin
        for each frame of the fastest video, the last one for all longer ones; the attribute
        ``median_duration_overall`` in ms.
    """
    sessions = {session.index: session for session in reading.label_sessions(labels)}
    blocks = list(iter_blocks(sessions.values(), block_frames))
    if len(blocks) > max_blocks:
        chosen = np.linspace(0, len(blocks) - 1, max_blocks).round().astype(int)
        blocks = [blocks[i] for i in chosen]
    milliseconds = np.concatenate(
        [
            _whole_bouts(syllable, block, sessions[block.session])
            for block, syllable in reading.label_blocks(labels, blocks)
        ]
    )
    tick = 1000 / max(session.fps for session in sessions.values())
    bins = np.clip(np.rint(milliseconds / tick).astype(int), 1, _N_BINS) - 1
    count = np.bincount(bins, minlength=_N_BINS)[None]
    median = float(np.median(milliseconds)) if len(milliseconds) else np.nan
    return xr.Dataset(
        {"duration_count": (("state", "duration"), count)},
        coords={"duration": tick * np.arange(1, _N_BINS + 1)},
        attrs={"median_duration_overall": median},
    )


def _whole_bouts(syllable: np.ndarray, block: Block, session: Session) -> np.ndarray:
    """Durations in ms of the bouts that neither end of a block cuts: (bout,)."""
    start, stop = run_bounds(syllable)
    is_whole = syllable[start] >= 0
    is_whole[0] &= block.start == 0
    is_whole[-1] &= block.stop == session.n_frames
    return np.asarray((stop - start)[is_whole] * 1000 / session.fps)


# ------------------------------------------------------------------ how far labels settle


def read_stability(course: Course, window: int = 0) -> Stability:
    """Labels of one of the windows that a fit keeps.

    Parameters
    ----------
    window : int
        Number of the window (see :func:`window_names`).

    Raises
    ------
    MissingData
        When the fit keeps none, as one of an older release.
    InputError
        When there is no such window.
    """
    names = window_names(course)
    if not 0 <= window < len(names):
        raise InputError(
            expected=f"a window from 0 to {len(names) - 1}",
            found=str(window),
            where=f"the fit of {course.model!r}",
            fix="choose one of these",
        )
    data = course.data
    session = str(data["window_session"].values[window])
    start, length = (int(data[f"window_{n}"].values[window]) for n in ("start", "length"))
    return Stability(
        session,
        _fps(course, session),
        start,
        data["window_sweep"].values,
        data["window_syllable"][:, window, :length].values.astype(int),
    )


def window_names(course: Course) -> list[str]:
    """The windows that a fit keeps, in words: session, and the seconds of it.

    Raises
    ------
    MissingData
        When it keeps none.
    """
    names = ("window_syllable", "window_sweep", "window_session", "window_start", "window_length")
    if any(name not in course.data for name in names):
        raise MissingData(
            expected="labels kept from sweep to sweep",
            found="none" if course.n_sweeps else "no committed sweep yet",
            where=f"the fit of {course.model!r}",
            fix="wait for the next commit" if not course.version else "fit again with this release",
        )
    data = course.data
    parts = zip(*(data[f"window_{n}"].values for n in ("session", "start", "length")), strict=True)
    return [
        f"{session}, "
        + span_words(start / _fps(course, session), (start + length) / _fps(course, session), 1)
        for session, start, length in ((str(s), int(a), int(n)) for s, a, n in parts)
    ]


def label_stability(
    store: StoreLike, *, model: ModelLike, window: int = 0, version: str | None = None
) -> hv.Layout:
    """Labels of some frames after the last sweeps of a fit, and how often they were the last ones.

    Parameters
    ----------
    store : path or URL
    model : str or OpenModel
    window : int
        A fit keeps up to eight windows of 600 frames, spread over the sessions.
    version : str, optional
        Of published labels (default: the fit in progress, else the current version).

    Returns
    -------
    holoviews.Layout
        An Image (sweep, time), the last sweep at the bottom, in the colours of the syllables; and
        a Curve: share of these sweeps (%) in which the frame has its last label.

    Raises
    ------
    InputError
        When there is no such model or window.
    MissingData
        When the fit keeps no windows, as one of an older release.
    """
    course = read_course(store, model=model, version=version)
    image, share = draw_stability(read_stability(course, window))
    return hv.Layout([image, share]).cols(1)


def draw_stability(stability: Stability) -> tuple[hv.Image, hv.Curve]:
    """Draw both views of :func:`label_stability`."""
    load()
    begin, end = stability.seconds
    n_rows = len(stability.sweep)
    image = hv.Image(
        stability.syllable.astype(np.float32),
        kdims=["time", "row"],
        vdims=["syllable"],
        bounds=(begin, 0, end, n_rows),
    )
    shown = np.unique(np.linspace(0, n_rows - 1, _MOST_TICKS).round().astype(int))
    n_syllables = max(1, int(stability.syllable.max()) + 1)
    image = image.opts(
        **_window_frame(stability, 320, _sweep_hover(stability)),
        cmap=palette(n_syllables),
        clim=(-1.5, n_syllables - 0.5),
        yticks=[(n_rows - row - 0.5, str(stability.sweep[row])) for row in shown],
        ylabel="sweep",
        title=f"{stability.session}: labels after the last {n_rows} kept sweeps",
    )
    time = (stability.start + np.arange(stability.syllable.shape[1]) + 0.5) / stability.fps
    table = (time, 100 * stability.agreement, stability.syllable[-1])
    curve = hv.Curve(table, kdims=["time"], vdims=["agreement", "last"])
    hover = hover_tool(
        ("time", "@time{custom}"),
        ("last label", "@last{custom}"),
        ("in so many of the sweeps", "@agreement{0} %"),
        formatters={"@last": syllable_name(), "@time": clock_hover()},
        mode="vline",
    )
    curve = curve.opts(
        **_window_frame(stability, 190, hover),
        color=LINE,
        interpolation="steps-mid",
        ylim=(0, 105),
        ylabel="same label (%)",
        title="Sweeps in which a frame has its last label: "
        f"{100 * stability.agreement.mean():.0f} %",
    )
    return image, curve


def _window_frame(stability: Stability, height: int, hover: Any) -> dict[str, Any]:
    """Options of a view over the time of a window, from which frames can be chosen."""
    options = frame(height, hover=hover, xlim=stability.seconds, xlabel=TIME_AXIS)
    options["tools"] = ["xbox_select", *options["tools"][1:]]
    options["active_tools"] = ["xbox_select"]
    options["hooks"] = [*options["hooks"], partial(_align, min_border=_LEFT)]
    return options


def _align(plot: Any, _element: Any, *, min_border: int) -> None:
    """Hook: views above each other begin at the same place."""
    plot.state.min_border_left = min_border


def _sweep_hover(stability: Stability) -> Any:
    sweeps = [str(sweep) for sweep in stability.sweep]
    sweep = CustomJSHover(
        args={"sweeps": sweeps},
        code="return sweeps[Math.max(0, Math.floor(sweeps.length - value))];",
    )
    return hover_tool(
        ("sweep", "$y{custom}"),
        ("time", "$x{time}"),
        ("frame", "$x{frame}"),
        ("syllable", "@image{custom}"),
        formatters={"$y": sweep, "$x": clock_hover(fps=stability.fps), "@image": syllable_name()},
    )


def _fps(course: Course, session: str) -> float:
    names = course.labels["session"].values
    return float(course.labels["fps"].values[np.flatnonzero(names == session)[0]])
