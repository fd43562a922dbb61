"""Numbers behind the views of how well all sessions are tracked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.tracking import PROBLEMS, row_of


@dataclass(frozen=True)
class QualityTable:
    """Some rows of the quality of a study, and what they were chosen from.

    Attributes
    ----------
    share : dict of str to ndarray, (session, keypoint)
        Problem -> share of the frames; NaN where there was nothing to count.
    longest_gap : ndarray, (session, keypoint)
        In s.
    worst : dict of str to ndarray, (session, keypoint)
        Problem -> where its worst 10 s begin, in s; NaN = nowhere, or not known.
    first, n_sessions : int
        Row of the first of the sessions, and number of all, in the order that was asked for.
    overall : ndarray, (keypoint,)
        Median over all sessions of the share that was asked for.
    """

    sessions: tuple[str, ...]
    keypoints: tuple[str, ...]
    share: dict[str, np.ndarray]
    longest_gap: np.ndarray
    worst: dict[str, np.ndarray]
    first: int
    n_sessions: int
    overall: np.ndarray


def check_problem(what: str) -> str:
    """Check the name of a problem (InputError)."""
    if what not in PROBLEMS:
        raise InputError(
            expected=f"one of {', '.join(PROBLEMS)}",
            found=repr(what),
            where="what",
            fix="choose one of them",
        )
    return what


def table(
    quality: xr.Dataset,
    sessions: Mapping[str, Session],
    *,
    what: str,
    order: str = "worst",
    first: int = 0,
    max_sessions: int = 40,
) -> QualityTable:
    """Rows of the quality of a study.

    Parameters
    ----------
    quality : Dataset
        The group ``quality``.
    sessions : mapping of str to Session
        Those of the study; others in ``quality`` were removed and are left out.
    what : str
        One of ``PROBLEMS``.
    order : str
        ``"worst"``: by the worst keypoint of the session, then by the mean over keypoints;
        ``"store"``: as they lie in the store.
    first, max_sessions : int
        Which rows of that order.

    Raises
    ------
    InputError
        For unknown problems and orders.
    """
    check_problem(what)
    if order not in ("worst", "store"):
        raise InputError(
            expected="worst or store", found=repr(order), where="order", fix="choose one of them"
        )
    names = [str(name) for name in quality["session"].values]
    known = np.array([row for row, name in enumerate(names) if name in sessions], dtype=np.int64)
    share = {name: quality[f"{name}_fraction"].values[known] for name in PROBLEMS}
    if order == "worst":
        filled = np.nan_to_num(share[what], nan=-1.0)
        by = np.lexsort((np.arange(len(known)), -filled.mean(1), -filled.max(1)))
    else:
        by = np.arange(len(known))
    first = int(np.clip(first, 0, max(0, len(known) - max_sessions)))
    rows = by[first : first + max_sessions]
    shown = tuple(names[row] for row in known[rows])
    rates = np.array([sessions[name].fps for name in shown]).reshape(-1, 1)
    worst = np.full((len(rows), quality.sizes["keypoint"], len(PROBLEMS)), -1)
    if "worst_start" in quality.variables:
        worst = quality["worst_start"].values[known[rows]]
    seconds = np.where(worst >= 0, worst, np.nan) / rates[..., None]
    return QualityTable(
        shown,
        tuple(str(name) for name in quality["keypoint"].values),
        {name: values[rows] for name, values in share.items()},
        quality["longest_gap"].values[known[rows]] / rates,
        {name: seconds[..., column] for column, name in enumerate(PROBLEMS)},
        first,
        len(known),
        _median(share[what]),
    )


def _median(share: np.ndarray) -> np.ndarray:
    """Medians over sessions; NaN, without a warning, where nothing was counted."""
    columns = (column[~np.isnan(column)] for column in share.T)
    return np.array([np.median(column) if len(column) else np.nan for column in columns])


# ------------------------------------------------------------------ confidences


@dataclass(frozen=True)
class Confidences:
    """Histogram of the confidences of one keypoint.

    Attributes
    ----------
    edges : ndarray, (edge,)
    share, share_of_all : ndarray, (bin,)
        Share of the frames with a confidence: of the session (or of all), and of all sessions.
        All zero where there are no confidences.
    n_frames : int
        Frames behind ``share``.
    low : float
        Share below the threshold; NaN without confidences.
    """

    keypoint: str
    edges: np.ndarray
    share: np.ndarray
    share_of_all: np.ndarray
    n_frames: int
    low: float


def confidences(
    quality: xr.Dataset,
    *,
    session: str | None = None,
    keypoint: str | None = None,
    max_keypoints: int = 12,
) -> list[Confidences]:
    """Histograms of the confidences, the keypoints with most low ones first.

    Parameters
    ----------
    quality : Dataset
        The group ``quality``.
    session : str, optional
        Name (default: all together).
    keypoint : str, optional
        Only this one (default: at most ``max_keypoints``).

    Raises
    ------
    InputError
        For names that are not there, and for a store of an earlier release, which lacks them.
    """
    if "confidence_count" not in quality.variables:
        raise InputError(
            expected="histograms of the confidences",
            found="a count by an earlier release, which made none",
            where="quality",
            fix="run `kpms_zarr.quality` again",
        )
    names = [str(name) for name in quality["keypoint"].values]
    count = quality["confidence_count"].values
    pooled = count.sum(0)
    chosen = pooled if session is None else count[row_of(quality, session)]
    low = quality["low_confidence_fraction"].values
    if session is not None:
        low = low[row_of(quality, session)]
    else:
        weight = np.where(np.isnan(low), 0, count.sum(-1))
        total = weight.sum(0)
        low = np.where(
            total > 0, (np.nan_to_num(low) * weight).sum(0) / np.maximum(total, 1), np.nan
        )
    columns = np.argsort(-np.nan_to_num(low, nan=-1.0), kind="stable")[:max_keypoints]
    if keypoint is not None:
        columns = np.array([keypoint_row(names, keypoint)])
    stop = quality["confidence_bin_stop"].values
    edges = np.append(quality["confidence_bin"].values, stop[-1])
    return [
        Confidences(
            names[column],
            edges,
            _normal(chosen[column]),
            _normal(pooled[column]),
            int(chosen[column].sum()),
            float(low[column]),
        )
        for column in columns
    ]


def _normal(count: np.ndarray) -> np.ndarray:
    return count / max(1, int(count.sum()))


def keypoint_row(names: Sequence[str], keypoint: str) -> int:
    """Row of a keypoint.

    Raises
    ------
    InputError
        With the names that there are.
    """
    if keypoint not in names:
        raise InputError(
            expected=f"one of the keypoints {', '.join(names)}",
            found=repr(keypoint),
            where="keypoint",
            fix="give the name as it is in the store",
        )
    return list(names).index(keypoint)
