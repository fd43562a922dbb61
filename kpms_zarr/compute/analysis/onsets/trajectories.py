"""Typical trajectories of syllables: the pose around onsets, where the bouts lie densest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.onsets.bout_sample import BoutSample
from kpms_zarr.compute.analysis.onsets.chosen_syllables import (
    chosen_syllables,
    count_problems,
    window_problems,
)
from kpms_zarr.compute.analysis.onsets.posed_windows import PosedWindows, TimeGrid
from kpms_zarr.compute.analysis.onsets.typical import densest
from kpms_zarr.compute.analysis.onsets.whole_windows import Onsets, WholeWindows
from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.compute.analysis.tables.bout_stream import session_bouts
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import StudyRows, study_rows
from kpms_zarr.compute.analysis.tables.syllable_table import state_coordinates
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import variable
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.epoch_tables import EpochsLike
from kpms_zarr.store.wording import counted, listed

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_MOST_BYTES = 2**29
"""Of the windows of all candidates."""
_LEAST_CANDIDATES = 20


def trajectories(
    store: StoreLike,
    *,
    model: str,
    version: str | None = None,
    syllables: Sequence[int] | None = None,
    pre: float = 0.2,
    post: float = 0.5,
    bouts: int = 12,
    candidates: int = 500,
    neighbours: int = 50,
    min_duration: float = 0.1,
    sessions: Sequence[str] | None = None,
    epochs: EpochsLike | None = None,
    seed: int = 0,
    block_frames: int = BLOCK_FRAMES,
) -> xr.Dataset:
    """Find the typical trajectory of each syllable: the pose around the onset of its bouts.

    Poses are the denoised ones, seen from the animal at the onset: its centroid is then 0, its
    heading along the first axis (2-D and 3-D); animals of different size are brought to the median
    one. A bout counts when all frames from ``pre`` before its onset to ``post`` after it have
    labels and lie in one session and one interval of an epoch, and it lasts ``min_duration``.

    Of each syllable a uniform random sample of such bouts, at most ``candidates``, is compared: the
    bout whose ``neighbours`` nearest others are nearest (a quarter of the others, where these are
    few) is where the trajectories of the syllable lie densest. It and these neighbours are the
    core: its median is the typical trajectory, and ``bouts`` of it, drawn at random, are examples.
    Quantiles are those of all candidates: the spread of the syllable, not of the core. The sample,
    and so all of the result, depends on ``seed`` alone, and on no blocks or order of sessions.
    Memory is that of the candidates, 0.5 GB at most; with more syllables than that holds, there are
    fewer candidates of each, which the notes say.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).
    syllables : sequence of int, optional
        Default: those with 0.5 % of the frames or more.
    pre, post : float
        In s before and after the onset.
    bouts : int
        Examples of each syllable, at most.
    candidates : int
        Bouts of each syllable that are compared, at most.
    neighbours : int
        Neighbours by which the density is measured.
    min_duration : float
        In s; shorter bouts are no candidates.
    sessions : sequence of str, optional
        Names, patterns, ``coordinate=value`` (default: all that have labels).
    epochs : path, DataFrame, mapping or ``"none"``, optional
        In place of those of the store, see :func:`kpms_zarr.epochs`.
    seed : int
    block_frames : int
        Frames of labels in memory at once.

    Returns
    -------
    xarray.Dataset
        By ``syllable``, ``time`` (s after the onset; sessions of other frame rates than the
        commonest are interpolated), ``keypoint``, ``space``, ``quantile`` and ``bout``:
        ``trajectory`` (syllable, time, keypoint, space) in units of position, the median of the
        core; ``spread`` (quantile, syllable, time, keypoint, space) of the candidates;
        ``example`` (syllable, bout, time, keypoint, space), the densest first, and of these
        ``session``, ``onset_frame``, ``duration_s`` and ``neighbour_distance`` (syllable, bout) to
        the last of its neighbours, in units of position; ``n_bouts`` with a whole window,
        ``n_candidates``, ``n_core`` and ``n_examples`` (syllable). What a syllable lacks is NaN,
        "" or -1. ``name`` of the syllables, where people named them. Attributes: ``store``,
        ``model``, ``version``, ``seed``, ``units``, ``notes`` and the settings.

    Raises
    ------
    InputError
        When there is no such model, version, session or syllable, or the model has no poses.
    """
    problems = window_problems(pre, post)
    problems += count_problems(bouts=bouts, candidates=candidates, neighbours=neighbours)
    problems += count_problems(0, seed=seed)
    if not (np.isfinite(min_duration) and min_duration >= 0):
        problems.append(
            Problem("0 s or more", repr(min_duration), "`min_duration=`", "give another duration")
        )
    if problems:
        raise InputError.of(problems)
    labels = PosedLabels(store, model, version)
    rows = study_rows(store, labels, epochs=epochs, sessions=sessions)
    poses = PosedWindows(store, labels)
    states = chosen_syllables(store, labels, rows, syllables)
    grid = TimeGrid(pre, post, [one.session.fps for one in rows.sessions])
    notes = list(rows.notes)
    shape = (len(grid.times), *poses.shape)
    size = _affordable(candidates, len(states), shape, notes)
    sample = _sampled(labels, rows, grid, size, min_duration, seed, block_frames)
    chosen = sample.sample()
    chosen = chosen[np.isin(chosen[:, 0], states)]
    windows = _windows(poses, rows, grid, chosen)
    is_whole = np.isfinite(windows).all((1, 2, 3))
    if not is_whole.all():
        notes.append(f"{counted(int((~is_whole).sum()), 'bout')} without a whole pose, left out")
    found = _Found(states, shape, bouts)
    for place, state in enumerate(states.tolist()):
        mine = np.flatnonzero((chosen[:, 0] == state) & is_whole)
        if len(mine):
            found.add(place, windows[mine], chosen[mine], rows, neighbours, seed)
    without = states[found.arrays["n_candidates"] == 0].tolist()
    if without:
        notes.append(
            f"no bout with {pre:g} s before and {post:g} s after its onset within one session "
            f"and epoch, and {min_duration:g} s long: {counted(len(without), 'syllable')} "
            f"({listed(map(str, without))})"
        )
    found.arrays["n_bouts"] = sample.n_seen[states]
    settings = {
        "seed": int(seed), "pre_s": float(pre), "post_s": float(post),
        "neighbours": int(neighbours), "candidates": int(size),
        "min_duration_s": float(min_duration),
    }  # fmt: skip
    about = {
        "store": os.fspath(store), "model": model, "version": labels.version,
        "epochs": rows.version, "units": variable("keypoints", "position").units, **settings,
        "notes": notes,
    }  # fmt: skip
    return found.dataset(grid, poses, state_coordinates(store, labels), about)


def _affordable(candidates: int, n_states: int, shape: tuple[int, ...], notes: list[str]) -> int:
    """Candidates of each syllable whose windows fit into memory."""
    each = int(np.prod(shape)) * 4
    size = min(candidates, max(_LEAST_CANDIDATES, _MOST_BYTES // (n_states * each)))
    if size < candidates:
        notes.append(
            f"{size} bouts of each syllable are compared, not {candidates}: windows of all of them "
            "would take too much memory"
        )
    return size


def _sampled(
    labels: PosedLabels,
    rows: StudyRows,
    grid: TimeGrid,
    size: int,
    min_duration: float,
    seed: int,
    block_frames: int,
) -> BoutSample:
    sample = BoutSample(labels.n_states, size, seed)
    for number, one in enumerate(rows.sessions):
        fps = one.session.fps
        windows = WholeWindows(*grid.margins(fps))
        for bouts in session_bouts(labels, one, block_frames):
            found = windows.add(bouts)
            lasts = found.stop - found.start >= min_duration * fps - 1e-9
            sample.add(one.session.name, number, Onsets(*(part[lasts] for part in found)))
    return sample


def _windows(
    poses: PosedWindows, rows: StudyRows, grid: TimeGrid, chosen: np.ndarray
) -> np.ndarray:
    """Poses of the sampled bouts, (bout, time, keypoint, space) float32."""
    windows = np.empty((len(chosen), len(grid.times), *poses.shape), np.float32)
    order = np.lexsort((chosen[:, 2], chosen[:, 1]))
    of = chosen[order, 1]
    for number in np.unique(of).tolist():
        mine = order[np.searchsorted(of, number) : np.searchsorted(of, number, side="right")]
        session = rows.sessions[number].session
        read = poses.read(session.index, chosen[mine, 2], *grid.margins(session.fps))
        for part, pose in read:
            windows[mine[part]] = grid.resample(pose, session.fps, axis=1)
    return windows


class _Found:
    """Arrays of the result, filled syllable by syllable."""

    def __init__(self, states: np.ndarray, shape: tuple[int, ...], bouts: int) -> None:
        n = len(states)
        self._states, self._bouts = states, bouts
        self.arrays: dict[str, np.ndarray] = {
            "trajectory": np.full((n, *shape), np.nan, np.float32),
            "spread": np.full((len(QUANTILES), n, *shape), np.nan, np.float32),
            "example": np.full((n, bouts, *shape), np.nan, np.float32),
            "session": np.full((n, bouts), "", object),
            "onset_frame": np.full((n, bouts), -1, np.int64),
            "duration_s": np.full((n, bouts), np.nan),
            "neighbour_distance": np.full((n, bouts), np.nan),
            **{f"n_{what}": np.zeros(n, np.int64) for what in ("candidates", "core", "examples")},
        }

    def add(
        self,
        place: int,
        windows: np.ndarray,
        chosen: np.ndarray,
        rows: StudyRows,
        neighbours: int,
        seed: int,
    ) -> None:
        """Add the candidates of a syllable."""
        found = densest(windows, neighbours)
        core = found.core
        rng = np.random.default_rng([seed, int(chosen[0, 0])])
        others = rng.permutation(len(core) - 1)[: self._bouts - 1] + 1
        shown = core[np.append(0, np.sort(others))]
        n, arrays = len(shown), self.arrays
        arrays["trajectory"][place] = np.median(windows[core], axis=0)
        arrays["spread"][:, place] = np.quantile(windows, QUANTILES, axis=0)
        arrays["example"][place, :n] = windows[shown]
        sessions = [rows.sessions[number].session for number in chosen[shown, 1].tolist()]
        fps = np.array([session.fps for session in sessions])
        arrays["session"][place, :n] = [session.name for session in sessions]
        arrays["onset_frame"][place, :n] = chosen[shown, 2]
        arrays["duration_s"][place, :n] = (chosen[shown, 3] - chosen[shown, 2]) / fps
        arrays["neighbour_distance"][place, :n] = found.distance[shown]
        arrays["n_candidates"][place], arrays["n_core"][place] = len(windows), len(core)
        arrays["n_examples"][place] = n

    def dataset(
        self, grid: TimeGrid, poses: PosedWindows, named: Any, attrs: dict[str, Any]
    ) -> xr.Dataset:
        """All of it."""
        pose = ("time", "keypoint", "space")
        dims = {
            "trajectory": ("syllable", *pose),
            "spread": ("quantile", "syllable", *pose),
            "example": ("syllable", "bout", *pose),
        }
        about = {
            "trajectory": "median pose of the bouts where they lie densest",
            "spread": "quantile of the pose of all candidates",
            "example": "pose of example bouts where they lie densest",
            "session": "session of the example",
            "onset_frame": "frame of its onset",
            "duration_s": "duration of the example",
            "neighbour_distance": "distance to the last of its neighbours, root mean square over "
            "keypoints and times",
            "n_bouts": "bouts with a whole window",
            "n_candidates": "bouts that were compared",
            "n_core": "bouts behind the typical trajectory",
            "n_examples": "examples",
        }
        units = {"onset_frame": "frames", "duration_s": "s"}
        units |= dict.fromkeys((*dims, "neighbour_distance"), str(attrs["units"]))
        variables = {
            name: (
                dims.get(name, ("syllable", "bout")[: values.ndim]),
                values,
                {"long_name": about[name], **({"units": units[name]} if name in units else {})},
            )
            for name, values in self.arrays.items()
        }
        coordinates: dict[str, Any] = {
            "syllable": self._states,
            "time": ("time", grid.times, {"units": "s", "long_name": "time after the onset"}),
            "keypoint": list(poses.keypoints),
            "space": list(poses.space),
            "quantile": np.array(QUANTILES),
        }
        if "name" in named:
            coordinates["name"] = ("syllable", named["name"][self._states])
        return xr.Dataset(variables, coordinates, attrs)
