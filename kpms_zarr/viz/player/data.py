"""Some seconds of a session with all that a player shows of them, read from the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.names import hint, match
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import is_missing, without_missing
from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.store.study.epochs import stored_epochs
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.study.timestamps import SessionTimes, StudyTimes
from kpms_zarr.store.wording import call
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.bands import EpochBand, epoch_bands
from kpms_zarr.viz.shared.guessing import drawn_settings
from kpms_zarr.viz.shared.opened import POSE_BY_FRAME, ModelLike, OpenModel, PoseDecoder
from kpms_zarr.viz.video.video import video_frames, video_of

MAX_FRAMES = 20_000
"""Longest window, so that neither the page nor the wire gets too much."""

_BY_FRAME = ("syllable", "certainty", *POSE_BY_FRAME)
_ROUNDING = 1e-6  # Of a frame: seconds that were frames before are those frames again.


@dataclass(frozen=True)
class OpenSession:
    """A session from which windows are read one after the other.

    Attributes
    ----------
    session : Session
        Row of ``keypoints``.
    data : Dataset
        The group ``keypoints``, lazily.
    video : str
        Path of the video; "" where none is known.
    labels : Dataset or None
        The session's row of a version of labels, lazily; None without a model, or where the
        model has not labelled the session.
    row : int
        Of the session in the labels of the model.
    bands : tuple of EpochBand
        Epochs of the session.
    times : SessionTimes or None
        Timestamps of the session; None without.
    """

    session: Session
    settings: StudySettings
    data: xr.Dataset
    video: str
    model: OpenModel | None = None
    labels: xr.Dataset | None = None
    row: int = -1
    bands: tuple[EpochBand, ...] = ()
    times: SessionTimes | None = None

    @property
    def syllables(self) -> tuple[int, ...]:
        """Syllables in use by the model, most frequent first."""
        has_any = self.model is not None and "frequency" in self.model.labels.variables
        return self.model.used if self.model is not None and has_any else ()

    @property
    def names(self) -> SyllableNames:
        """Names of the syllables."""
        return SyllableNames("") if self.model is None else self.model.names

    @property
    def pose(self) -> PoseDecoder | None:
        """Decoder from latent poses to positions; None where the version has no poses."""
        if self.model is None or self.labels is None:
            return None
        try:
            return self.model.pose
        except reading.MissingData:
            return None


@dataclass(frozen=True)
class PlayerWindow:
    """Consecutive frames of a session.

    Attributes
    ----------
    frame : ndarray, (frame,) int
        Frames of the session.
    video_frame : ndarray, (frame,) int
        The frames of the video that they are.
    time : ndarray, (frame,)
        Seconds of the session at which the frames begin, as frames count them.
    clock : ndarray, (frame,)
        Seconds since the first frame by the timestamps of the session; without any the same.
    keypoints : tuple of str
        Of ``observed``.
    observed : ndarray, (frame, keypoint, space) float32
        As tracked, in units of position; NaN = missing.
    confidence : ndarray, (frame, keypoint) float32
        NaN = not given.
    model_keypoints : tuple of str
        Of ``denoised``; a model may know fewer than the store.
    denoised : ndarray, (frame, keypoint, space) float32, or None
        None without a model, or where it has no poses.
    syllable : ndarray, (frame,) int, or None
        -1 = none; None where there is no model, or no labels of this session.
    certainty : ndarray, (frame,) float32, or None
        0 to 1; NaN = not known.
    latent : ndarray, (frame, latent_dim) float32, or None
    centroid : ndarray, (frame, space) float32
        Of the model; without one the median of the tracked keypoints, gaps interpolated.
    heading : ndarray, (frame,) float32, or None
        In rad; of the model, or from the rear to the front keypoints as tracked, gaps
        interpolated; None where neither is known.
    """

    session: Session
    frame: np.ndarray
    video_frame: np.ndarray
    time: np.ndarray
    clock: np.ndarray
    keypoints: tuple[str, ...]
    observed: np.ndarray
    confidence: np.ndarray
    model_keypoints: tuple[str, ...]
    denoised: np.ndarray | None
    syllable: np.ndarray | None
    certainty: np.ndarray | None
    latent: np.ndarray | None
    centroid: np.ndarray
    heading: np.ndarray | None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.frame)

    @property
    def n_space(self) -> int:
        """Number of axes, 2 or 3."""
        return int(self.observed.shape[2])

    @property
    def speed(self) -> np.ndarray:
        """Speed of the centroid, (frame,), in units of position per s."""
        if self.n_frames < 2:
            return np.zeros(self.n_frames)
        step = np.gradient(self.centroid.astype(np.float64), axis=0)
        return np.sqrt((step**2).sum(-1)) * self.session.fps

    def bouts(self) -> reading.Bouts:
        """Runs of one syllable, in frames of the window; those at its ends may be cut."""
        if self.syllable is None:
            nothing = np.zeros(0, dtype=np.int64)
            return reading.Bouts(nothing, nothing, nothing)
        start, stop = run_bounds(self.syllable)
        return reading.Bouts(start, stop, self.syllable[start])


def open_session(
    store: StoreLike,
    *,
    model: ModelLike | None = None,
    version: str | None = None,
    session: str | None = None,
    data: xr.Dataset | None = None,
) -> OpenSession:
    """Open what the windows of a session are read from.

    Parameters
    ----------
    session : str, optional
        Name (default: the first).
    data : Dataset, optional
        The group ``keypoints``, where it is open already.

    Raises
    ------
    InputError
        For a model or a session that does not exist.
    """
    data = access.dataset(store, layout.KEYPOINTS) if data is None else data
    row = _row(data, session, os.fspath(store))
    chosen = Session(
        str(data["session"].values[row]),
        row,
        int(data["n_frames"].values[row]),
        float(data["fps"].values[row]),
    )
    settings, video = drawn_settings(store), video_of(data, row)
    bands, found = epoch_bands(stored_epochs(store)[1], chosen), StudyTimes(store).of(chosen)
    times = found if found.is_given else None
    if not model:
        return OpenSession(chosen, settings, data, video, bands=bands, times=times)
    opened = OpenModel.of(store, model, version)
    labelled = [str(name) for name in opened.labels["session"].values]
    if chosen.name not in labelled:
        return OpenSession(chosen, settings, data, video, opened, bands=bands, times=times)
    row = labelled.index(chosen.name)
    labels = opened.labels.isel(session=row)
    return OpenSession(chosen, settings, data, video, opened, labels, row, bands, times)


def read_window(opened: OpenSession, start: float, stop: float) -> PlayerWindow:
    """Some seconds of an open session; nothing else of it is read.

    Parameters
    ----------
    start, stop : float
        In s of the session.

    Returns
    -------
    PlayerWindow
        The frames that lie at least in part between the two moments.

    Raises
    ------
    InputError
        For a window that is empty or has more than 20,000 frames.
    """
    session = opened.session
    first, last = _bounds(session, start, stop)
    frame = np.arange(first, last)
    found = _read(opened, first, last)
    position, confidence = found["position"], found.get("confidence")
    position = without_missing(position, confidence)
    pose, denoised, times = opened.pose, None, opened.times
    if pose is not None:
        by_frame = (found["latent"], found["centroid"], found["heading"])
        denoised = pose.place(*by_frame, opened.row)
    centroid, heading = found.get("centroid"), found.get("heading")
    if centroid is None:
        centroid = _tracked_centroid(position)
    if heading is None:
        heading = _tracked_heading(position, opened.settings)
    return PlayerWindow(
        session,
        frame,
        video_frames(opened.data, session.index, frame),
        frame / session.fps,
        frame / session.fps if times is None else times.at(first, last) - times.first,
        opened.settings.keypoints,
        position,
        np.full(position.shape[:2], np.nan, np.float32) if confidence is None else confidence,
        pose.keypoints if pose is not None else (),
        denoised,
        found["syllable"].astype(np.int64) if "syllable" in found else None,
        found["certainty"].astype(np.float32) if "certainty" in found else None,
        found.get("latent"),
        centroid,
        heading,
    )


def find_bout(
    opened: OpenSession,
    syllable: int,
    frame: int,
    *,
    forward: bool,
    block_frames: int = LABEL_FRAMES_PER_CHUNK,
) -> int | None:
    """The nearest onset of a syllable after or before a frame, block by block outwards.

    Parameters
    ----------
    syllable : int
        -1 = whichever.
    frame : int
        Of the session.
    forward : bool
        Whether the onset must lie after the frame, or before it.
    block_frames : int
        Frames read at once; the result does not depend on it.

    Returns
    -------
    int or None
        Frame of the session; None where there is no further one.
    """
    if opened.labels is None:
        return None
    width, n_frames = block_frames, opened.session.n_frames
    here, end = frame // width, -(-n_frames // width)
    for block in range(here, end) if forward else range(here, -1, -1):
        first, last = block * width, min((block + 1) * width, n_frames)
        # One frame more on the left, so that an onset at the border is seen as one.
        before = max(0, first - 1)
        values = opened.labels["syllable"][before:last].values.astype(np.int64)
        is_onset = np.diff(values, prepend=-2 if before == first else values[0]) != 0
        is_onset &= (values == syllable) if syllable >= 0 else (values >= 0)
        onset = before + np.flatnonzero(is_onset)
        onset = onset[(onset >= first) & ((onset > frame) if forward else (onset < frame))]
        if len(onset):
            return int(onset[0] if forward else onset[-1])
    return None


def _row(data: xr.Dataset, session: str | None, where: str) -> int:
    n_frames = data["n_frames"].values
    names = [str(name) for name in data["session"].values]
    real = [row for row in range(len(names)) if n_frames[row] > 0]
    if session is None and real:
        return real[0]
    known = match(str(session), [names[row] for row in real])
    if known is not None:
        return names.index(known)
    raise InputError(
        expected="the name of a session of the store" if real else "a session in the store",
        found=repr(session) if real else "none",
        where=where,
        fix=f"{hint(str(session), names)}list them with: {call('info', where)}",
    )


def no_time(session: Session, start: float, stop: float) -> InputError:
    """Make the error for a range of seconds without a frame."""
    return InputError(
        expected=f"some of the {session.n_frames / session.fps:.2f} s of the session",
        found=f"{start:g} s to {stop:g} s",
        where=f"session {session.name}",
        fix="choose a start before the end of the session, and an end after the start",
    )


def _bounds(session: Session, start: float, stop: float) -> tuple[int, int]:
    """Frames of a window, the second one the first after it."""
    first = max(0, int(np.floor(start * session.fps + _ROUNDING)))
    last = min(session.n_frames, int(np.ceil(stop * session.fps - _ROUNDING)))
    if first >= last:
        raise no_time(session, start, stop)
    if last - first > MAX_FRAMES:
        raise InputError(
            expected=f"at most {MAX_FRAMES:,} frames at once "
            f"({MAX_FRAMES / session.fps:.0f} s of this session)",
            found=f"{last - first:,} frames",
            where=f"session {session.name}",
            fix="choose fewer seconds",
        )
    return first, last


def _read(opened: OpenSession, first: int, last: int) -> Mapping[str, np.ndarray]:
    """Read all variables at once, so that a remote store is waited for once and not seven times."""
    lazy = {
        name: opened.data[name][opened.session.index, first:last]
        for name in ("position", "confidence")
        if name in opened.data.variables
    }
    if opened.labels is not None:
        labels = opened.labels
        lazy |= {name: labels[name][first:last] for name in _BY_FRAME if name in labels.variables}
    with ThreadPoolExecutor(len(lazy)) as pool:
        values = pool.map(lambda array: array.values, lazy.values())
        return dict(zip(lazy, values, strict=True))


def tracked_middle(position: np.ndarray) -> np.ndarray:
    """Median of the keypoints of a frame, axis by axis; NaN where none was tracked.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
        A keypoint that lacks one coordinate counts as missing.

    Returns
    -------
    ndarray, (frame, space) float32
    """
    missing = is_missing(position, None)
    n_seen = (~missing).sum(1)
    # NaN come last. Much faster than nanmedian, which goes frame by frame.
    ordered = np.sort(np.where(missing[..., None], np.float32(np.nan), position), axis=1)
    middle = [
        np.take_along_axis(ordered, np.maximum(i, 0)[:, None, None], axis=1)[:, 0]
        for i in ((n_seen - 1) // 2, n_seen // 2)
    ]
    return np.asarray((middle[0] + middle[1]) / 2, np.float32)


def _tracked_centroid(position: np.ndarray) -> np.ndarray:
    """Median of the keypoints of a frame, (frame, space) float32; gaps interpolated."""
    middle = tracked_middle(position)
    seen = np.isfinite(middle).all(1)
    if seen.any():
        frame = np.arange(len(position))
        for axis in range(position.shape[2]):
            middle[:, axis] = np.interp(frame, frame[seen], middle[seen, axis])
    return middle


def _tracked_heading(position: np.ndarray, settings: StudySettings) -> np.ndarray | None:
    """Direction from the rear to the front keypoints, (frame,) float32 in rad."""
    ends = []
    for names in (settings.posterior, settings.anterior):
        columns = [settings.keypoints.index(name) for name in names if name in settings.keypoints]
        part = position[:, columns, :2].astype(np.float64)
        count = (~np.isnan(part[..., 0])).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ends.append(np.nansum(part, axis=1) / np.where(count, count, np.nan)[:, None])
    direction = ends[1] - ends[0]
    known = np.isfinite(direction).all(1) & (direction != 0).any(1)
    if not known.any():
        return None
    frame = np.arange(len(position))
    angle = np.unwrap(np.arctan2(direction[known, 1], direction[known, 0]))
    angle = np.interp(frame, frame[known], angle)
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi, dtype=np.float32)
