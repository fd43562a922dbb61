"""Definition of badly tracked keypoints, for statistics and views alike."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import is_missing, without_missing
from kpms_zarr.store.wording import call

PROBLEMS = ("missing", "low_confidence", "outlier")
"""What can be wrong with a keypoint in a frame."""

CONFIDENCE_EDGES = np.linspace(0.0, 1.0, 51)
"""Edges of the bins of confidences; the first holds smaller ones too, the last larger ones."""

STRETCH_SECONDS = 10
"""Length of the stretch that counts as the worst of a session."""


@dataclass(frozen=True)
class Limits:
    """Limits beyond which a keypoint counts as badly tracked in one session.

    Attributes
    ----------
    confidence : float
        Confidences below it are low.
    distance : ndarray, (keypoint,)
        A keypoint further than this from the middle of the animal is an outlier, in units of
        position; NaN where it was never seen.
    """

    confidence: float
    distance: np.ndarray


def read_tracked(data: xr.Dataset, row: int, frames: slice) -> tuple[np.ndarray, np.ndarray]:
    """Some frames of a session of the group ``keypoints``.

    Parameters
    ----------
    data : Dataset
    row : int
        Along the session dimension.
    frames : slice

    Returns
    -------
    position : ndarray, (frame, keypoint, space) float32
        NaN wherever :func:`is_missing` says so.
    confidence : ndarray, (frame, keypoint) float32
        NaN = not given.
    """
    position = data["position"][row, frames].values
    if "confidence" in data.variables:
        confidence = data["confidence"][row, frames].values
    else:
        confidence = np.full(position.shape[:-1], np.nan, dtype=np.float32)
    return without_missing(position, confidence), confidence


def outlier_distance(median: np.ndarray, deviation: np.ndarray, scale: float) -> np.ndarray:
    """Largest distance from the middle of the animal that is no outlier.

    Parameters
    ----------
    median, deviation : ndarray, (..., keypoint)
        Of the distance: its median and its median absolute deviation.
    scale : float
    """
    return median + scale * deviation


def distance_from_middle(position: np.ndarray) -> np.ndarray:
    """Distance of every keypoint from the coordinate-wise median of those in the same frame.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)

    Returns
    -------
    ndarray, (frame, keypoint) float32
        In units of position; NaN for missing keypoints.
    """
    is_present = np.isfinite(position).all(-1)
    known = np.where(is_present[..., None], position, np.inf)
    ordered = np.sort(known, axis=1)
    n_present = np.maximum(is_present.sum(1), 1)
    frame = np.arange(len(position))
    low, high = ordered[frame, (n_present - 1) // 2], ordered[frame, n_present // 2]
    middle = low.astype(np.float64) / 2 + high.astype(np.float64) / 2
    gap = np.where(is_present[..., None], position, np.nan) - middle[:, None]
    return np.sqrt(np.einsum("tkd,tkd->tk", gap, gap)).astype(np.float32)


def find_problems(position: np.ndarray, confidence: np.ndarray, limits: Limits) -> np.ndarray:
    """Find what is wrong with every keypoint in every frame.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
    confidence : ndarray, (frame, keypoint)
        NaN = not given.
    limits : Limits

    Returns
    -------
    ndarray, (problem, frame, keypoint) bool
        In the order of ``PROBLEMS``; a missing keypoint is nothing else.
    """
    position = without_missing(position, confidence)
    missing = is_missing(position, None)
    is_far = distance_from_middle(position) > limits.distance
    return np.stack([missing, ~missing & (confidence < limits.confidence), is_far])


def open_quality(store: StoreLike) -> xr.Dataset:
    """The group ``quality`` of a store, lazily (see ``schema.QUALITY``).

    Raises
    ------
    InputError
        When the store has none yet.
    """
    root = access.open_group(store)
    group = access.subgroup(root, layout.QUALITY)
    if group is None or "provenance" not in group.attrs:
        raise InputError(
            expected="the quality of the tracking, counted",
            found="a store in which it was not counted yet",
            where=os.fspath(store),
            fix=f"run: {call('quality', store)}",
        )
    return access.dataset(store, layout.QUALITY)


def limits_of(quality: xr.Dataset, session: str) -> Limits:
    """The limits that the counts of a session were made with.

    Parameters
    ----------
    quality : Dataset
        Result of :func:`open_quality`, or of the verb ``quality``.
    session : str

    Raises
    ------
    InputError
        When the session was added after the counting.
    """
    row = row_of(quality, session)
    median, deviation = (
        np.asarray(quality[name][row].values) for name in ("distance_median", "distance_mad")
    )
    scale = float(quality.attrs["outlier_scale"])
    threshold = float(quality.attrs["confidence_threshold"])
    return Limits(threshold, outlier_distance(median, deviation, scale))


def row_of(quality: xr.Dataset, session: str) -> int:
    """Row of a session in the group ``quality``.

    Raises
    ------
    InputError
        When the session was added after the counting.
    """
    names = [str(name) for name in quality["session"].values]
    if session not in names:
        raise InputError(
            expected="a session whose tracking was counted",
            found=f"{session!r}, which came later or is none",
            where="session",
            fix="run `kpms_zarr.quality` again",
        )
    return names.index(session)
