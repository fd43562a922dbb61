"""Change points of behaviour without a model: when the pose changes its velocity as a whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.alignment import thresholds
from kpms_zarr.compute.alignment.alignment import Aligner, AlignmentSettings
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.kinematics.change_score import (
    BINS,
    ChangeSums,
    Whitening,
    excess_of,
    heights,
    peaks_of,
    random_lags,
    score_of,
    threshold_of,
)
from kpms_zarr.compute.kinematics.intervals import Intervals
from kpms_zarr.compute.kinematics.onset_alignment import score_around_onsets, with_margin
from kpms_zarr.compute.kinematics.tracks import EgocentricTracks
from kpms_zarr.compute.mapreduce import BlockReader, Histogram, limit_workers, map_reduce
from kpms_zarr.compute.tracking.outliers import OUTLIER_SCALE, check_scale, screen_of
from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.locking import changepoints_lock
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.study.changepoints import ChangepointWriter, open_changepoints
from kpms_zarr.store.study.settings import read_settings, settings_from_names

_COPIES = 20
"""Of the data, shifted."""
_STEPS = 3
"""Of the covariance of changes: the first alone leaves correlations where variances differ much."""
_MOST_BINS = 4096
"""Of intervals: longer ones are counted in the last bin."""
_FEWEST_DIRECTIONS = 2


def changepoints(
    store: StoreLike,
    *,
    model: str | None = None,
    window: float = 100.0,
    false_rate: float = 0.1,
    version: str | None = None,
    shuffles: int = 1000,
    anterior: Sequence[str] | None = None,
    posterior: Sequence[str] | None = None,
    confidence_threshold: float | str = 0.5,
    outlier_scale: float | str | None = OUTLIER_SCALE,
    seed: int = 0,
    host_memory: str | int | None = None,
    cluster: ClusterLike = None,
) -> xr.Dataset:
    """Find when behaviour changes, without a model; kept in the store.

    The change of a coordinate of a keypoint is how much its mean velocity in egocentric coordinates
    differs before and after a frame, less what follows from the others, as the bones between them;
    its share, how many of the changes that are usual within 15 windows around are smaller. The
    change score of a frame is the mean share over coordinates, in standard deviations of
    independent ones. A change point is a peak of the score that is higher than those of shifted
    data: copies of the data whose keypoints are shifted against each other by random times of up to
    15 windows, so that what several do at once is chance, and how active each is stays (after
    Weinreb et al., 2024, *Nature Methods* 21:1329, Methods). Intervals between change points say on
    what timescale an animal behaves, and so what target duration a fit may be given.

    Parameters
    ----------
    store : path or URL
    model : str, optional
        Also say how the score runs around the onsets of its syllables, and how often these
        coincide with change points.
    window : float
        Of the mean velocities, in ms. Faster changes are averaged out, and change points are at
        least one window apart; the default is a third to a fifth of the syllables of a mouse. For
        an animal that is ten times slower, one that is ten times longer.
    false_rate : float
        Share of the change points that may be expected by chance (false discovery rate). A tenth
        spoils intervals little, and leaves more of them.
    version : str, optional
        Of the labels (default: the current one).
    shuffles : int
        Of the onsets.
    anterior, posterior : sequence of str, optional
        Keypoints at the front and at the rear of the animal (default: those of the study).
    confidence_threshold, outlier_scale
        Which keypoints count, as of :func:`kpms_zarr.pca`.
    seed : int
        Of the shifts.
    host_memory, cluster
        As of :func:`kpms_zarr.pca`.

    Returns
    -------
    xarray.Dataset
        ``change_score`` (session, frame), lazy, NaN = not known; ``changepoint`` (session, frame),
        1 = there; ``n_changepoints`` (session,) and ``median_interval`` (session,) in ms;
        ``interval_count`` (change_interval,); ``peak_count`` and ``shifted_count`` (height,),
        peaks of the data, and of shifted data per copy. Attributes: ``threshold``,
        ``n_changepoints``, ``false_share`` (of them, expected by chance), ``n_at_least`` (changes
        that there are, whether found or not: the most by which peaks outnumber those of shifted
        data), ``lower_quartile``, ``median_interval`` and ``upper_quartile`` of the intervals in
        ms, ``target_duration`` (ms: the median interval times the share of the changes that are
        found, as every one that is missed makes one interval of two; an upper bound, as
        ``n_at_least`` is a lower one), settings, ``notes``.
        With a model also, of all its onsets, ``onset_score`` (lag,), and of onsets shifted in a
        circle ``shifted_score`` (lag,) and ``shifted_quantile`` (quantile, lag), as of
        :func:`kpms_zarr.triggered_average`, and attributes ``onset_p``, ``onset_share`` (of the
        onsets that have a change point within a window), ``changepoint_share`` (of the change
        points that have an onset), each also ``..._by_chance``; none of these is written.

    Raises
    ------
    InputError
        For settings out of range, sessions that cannot be aligned, poses that never change, a
        model that does not exist.
    """
    _check(window, false_rate, shuffles, seed)
    labels = None if model is None else PosedLabels(store, model, version)
    scale = check_scale(outlier_scale)
    root = access.open_group(store, "r+")
    sessions = access.require_sessions(root, os.fspath(store))
    study = settings_from_names(
        read_settings(store), anterior=anterior, posterior=posterior, skeleton=None
    )
    with connected(cluster), limit_workers(store, host_memory):
        threshold = thresholds.resolve(confidence_threshold, BlockReader(store), sessions)
        alignment = AlignmentSettings(threshold.value)
        screen = screen_of(store, study, alignment, scale)
        aligner = Aligner.of(store, alignment, study=study, screen=screen)
        tracks = EgocentricTracks(aligner, sessions, float(window))
        whitening = _whitening(tracks, os.fspath(store))
        settings = {
            "window": float(window), "false_rate": false_rate, "seed": seed, **threshold.settings,
            "outlier_scale": scale, "anterior": list(study.anterior),
            "posterior": list(study.posterior), "keypoints": list(study.keypoints),
        }  # fmt: skip
        notes = [*aligner.notes, *(screen.notes if screen else ())]
        with changepoints_lock(root, store) as lock:
            writer = ChangepointWriter(root, sessions)
            try:
                place = (access.absolute(store), writer.path)
                scored = map_reduce(
                    partial(_score_block, place, tracks, whitening, seed), tracks.blocks(), _plus
                )
                height = threshold_of(scored.observed, scored.null, _COPIES, false_rate)
                points = map_reduce(
                    partial(_mark_block, place, tracks, height),
                    tracks.blocks(LABEL_FRAMES_PER_CHUNK), Intervals.plus,
                )  # fmt: skip
                values, attrs = _result(sessions, scored, points, height)
                notes += _notes(attrs)
                lock.renew()
                writer.publish(values, {**attrs, **settings, "notes": notes}, settings)
            except BaseException:
                writer.discard()
                raise
    found = open_changepoints(store)
    if labels is None:
        return found
    return score_around_onsets(
        found, store, labels, window=float(window), shuffles=shuffles, seed=seed
    )


def _check(window: float, false_rate: float, shuffles: int, seed: int) -> None:
    problems = []
    if not 0 < window <= 10_000:
        problems.append(
            Problem(
                "a window above 0 ms and up to 10 s",
                f"{window:g} ms",
                "`window=`",
                "give for example `window=100`, in ms",
            )
        )
    if not 0 < false_rate < 1:
        problems.append(
            Problem(
                "a share between 0 and 1",
                f"{false_rate:g}",
                "`false_rate=`",
                "give for example `false_rate=0.1`",
            )
        )
    for name, value, least in (("shuffles", shuffles, 1), ("seed", seed, 0)):
        if value < least:
            problems.append(
                Problem(
                    f"a whole number from {least} on", f"{value}", f"`{name}=`", "choose another"
                )
            )
    if problems:
        raise InputError.of(problems)


# ------------------------------------------------------------------ blocks of frames


def _whitening(tracks: EgocentricTracks, store: str) -> Whitening:
    found: Whitening | None = None
    for _ in range(_STEPS):
        sums = map_reduce(partial(tracks.sums, found), tracks.blocks(), ChangeSums.plus)
        found = Whitening.of(sums)
    assert found is not None
    if found.n_directions < _FEWEST_DIRECTIONS:
        raise InputError(
            expected="keypoints that move against each other in egocentric coordinates, so that "
            "several can do so at once",
            found=f"changes of velocity in {found.n_directions or 'no'} direction of the pose",
            where=f"{store}, {len(tracks.aligner.study.keypoints)} keypoints, windows of "
            f"{tracks.milliseconds:g} ms",
            fix="check with `kpms_zarr.quality` that keypoints are seen and not frozen, or give a "
            "shorter `window=` where sessions are short",
        )
    return found


class _Scored(NamedTuple):
    observed: Histogram
    null: Histogram


def _plus(a: _Scored, b: _Scored) -> _Scored:
    return _Scored(a.observed.add(b.observed), a.null.add(b.null))


def _score_block(
    place: tuple[str, str], tracks: EgocentricTracks, whitening: Whitening, seed: int, block: Block
) -> _Scored:
    """Write the change score of a block; heights of its peaks, and of those of shifted copies.

    ``place``: the store, and the group in it.
    """
    session, window = tracks.sessions[block.session], tracks.window(block.session)
    w, n = window.n_frames, block.n_frames
    margin = window.reach + w
    shares = tracks.shares(block, whitening, margin)

    def scored(lags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score = score_of(shares, lags, margin - w, n + 2 * w).astype(np.float32)
        return score[w : w + n], peaks_of(score, window)

    score, is_peak = scored(np.zeros(shares.shape[1], np.int64))
    regions.write(_array(place, "change_score"), block, score, n_frames=session.n_frames)
    null = Histogram.of_block(np.zeros(0, np.int64))
    rng = np.random.default_rng([seed, *session.name.encode()])  # of the session, not the block
    n_points = len(tracks.aligner.study.keypoints)
    point = whitening.kept // (len(whitening.weight) // n_points)
    for lags in random_lags(rng, _COPIES, n_points, window):
        copy, is_one = scored(lags[point])
        null = null.add(heights(copy[is_one].astype(np.float64) * np.sqrt(whitening.spread)))
    return _Scored(heights(score[is_peak].astype(np.float64)), null)


def _mark_block(
    place: tuple[str, str], tracks: EgocentricTracks, height: float, block: Block
) -> Intervals:
    """Mark the change points of a block, and find the intervals between them."""
    n_frames, window = tracks.sessions[block.session].n_frames, tracks.window(block.session)
    w = window.n_frames
    array = _array(place, "change_score")
    score = with_margin(array, block.session, block.start, block.stop, w, n_frames)
    is_one = peaks_of(score, window) & (score[w : len(score) - w] >= height)
    regions.write(_array(place, "changepoint"), block, is_one.astype(np.int16), n_frames=n_frames)
    return Intervals.of_block(block.session, block.start + np.flatnonzero(is_one))


def _array(place: tuple[str, str], name: str) -> Any:
    store, group = place
    return access.open_group(store, "r+")[f"{group}/{name}"]


# ------------------------------------------------------------------ the result


def _result(
    sessions: Sequence[Session], scored: _Scored, points: Intervals, height: float
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    fps = np.array([session.fps for session in sessions])
    milliseconds = points.frames * 1000 / fps[points.row]
    tick = np.rint(milliseconds * fps.max() / 1000).astype(np.int64)
    n_bins = int(min(_MOST_BINS, tick.max(initial=1)))
    count = np.zeros(n_bins, np.int64)
    np.add.at(count, np.clip(tick, 1, n_bins) - 1, points.number.number)
    number = np.zeros(len(sessions), np.int64)
    number[points.ends[:, 0]] = points.ends[:, 3]
    median = np.array([
        _quantile(milliseconds[points.row == row], points.number.number[points.row == row], 0.5)
        for row in range(len(sessions))
    ])  # fmt: skip
    every = np.concatenate([scored.observed.key, scored.null.key])
    keys = np.arange(every.min(), every.max() + 1) if len(every) else np.zeros(1, np.int64)
    peaks, null = (np.zeros(len(keys)) for _ in range(2))
    peaks[scored.observed.key - keys[0]] = scored.observed.number
    null[scored.null.key - keys[0]] = scored.null.number / _COPIES
    values = {
        **access.columns_of(sessions),
        "n_changepoints": number, "median_interval": median, "interval_count": count,
        "change_interval": np.arange(1, n_bins + 1) * 1000 / fps.max(),
        "peak_count": peaks.astype(np.int64), "shifted_count": null, "height": keys / BINS,
    }  # fmt: skip
    n_found = int(number.sum())
    by_chance = float(null[keys / BINS >= height].sum())
    at_least = excess_of(scored.observed, scored.null, _COPIES)
    quartiles = [_quantile(milliseconds, points.number.number, q) for q in (0.25, 0.5, 0.75)]
    true_share = min(1.0, max(0.0, n_found - by_chance) / max(1, at_least))
    attrs = {
        "threshold": height, "n_changepoints": n_found, "n_at_least": at_least,
        "false_share": by_chance / n_found if n_found else float("nan"),
        "lower_quartile": quartiles[0], "median_interval": quartiles[1],
        "upper_quartile": quartiles[2], "target_duration": quartiles[1] * true_share,
    }  # fmt: skip
    return values, attrs


def _quantile(values: np.ndarray, number: np.ndarray, share: float) -> float:
    """Lowest value that a share of all do not exceed; NaN without any."""
    if not number.sum():
        return float("nan")
    order = np.argsort(values, kind="stable")
    below = np.cumsum(number[order])
    return float(values[order][np.searchsorted(below, share * below[-1])])


def _notes(attrs: dict[str, Any]) -> list[str]:
    if not np.isfinite(attrs["threshold"]):
        return [
            "no peak of the change score is higher than those of shifted data: on the timescale "
            "of the window, keypoints do not change their velocities at once more often than by "
            "chance, or too few of them are seen; try another `window=`"
        ]
    if not np.isfinite(attrs["median_interval"]):
        return ["fewer than two change points in each session: no intervals between them"]
    return []
