"""Choices around a scan: the sessions that it takes, and what its figures say in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.wording import counted, listed

ENOUGH_FRAMES = 200_000
"""Of the sessions that a scan takes unless it is told which: nearly two hours at 30 frames a
second."""
_LEAST_SESSIONS = 5
_HELD_OUT_SHARE = 1 / 5
TOLERANCE = 0.15
"""A median that is off by a larger share has missed its target, as in a fit."""


@dataclass(frozen=True)
class ChosenSessions:
    """Sessions of a scan, each by name.

    Attributes
    ----------
    sampled, held_out : tuple of Session
        Chains are run on the former, and never see the latter.
    notes : tuple of str
    """

    sampled: tuple[Session, ...]
    held_out: tuple[Session, ...]
    notes: tuple[str, ...]


def choose_sessions(
    root: access.Group,
    store: StoreLike,
    selectors: Sequence[str] | None,
    held_out: int | Sequence[str] | None,
    *,
    lags: int,
    holds_out: bool,
) -> ChosenSessions:
    """Choose the sessions of a scan, always the same of the same store.

    Unless it is said which: in the order of their names, as many sessions evenly spread over all as
    hold about 200,000 frames, 5 or more. Of these a fifth, evenly spread as well, is held out, one
    or more where there are two.

    Parameters
    ----------
    selectors : sequence of str or None
        Of all sessions of the scan.
    held_out : int, sequence of str or None
        How many, or which.
    lags : int
        Shorter sessions are left out.
    holds_out : bool
        Whether some are held out when nothing is said.

    Raises
    ------
    InputError
    """
    every = select_sessions(root, selectors, "`sessions=`")
    long = sorted((s for s in every if s.n_frames > lags), key=lambda session: session.name)
    if not long:
        raise InputError(
            expected=f"sessions of more than {lags} frames",
            found="only shorter ones",
            where=os.fspath(store),
            fix="add longer recordings, or lower `lags=`",
        )
    notes = []
    if len(long) < len(every):
        left = [session.name for session in every if session.n_frames <= lags]
        notes.append(f"too short for a label ({lags} frames or fewer): {listed(left)}")
    named = () if held_out is None or isinstance(held_out, int) else tuple(held_out)
    kept = select_sessions(root, named, "`held_out=`") if named else ()
    kept = tuple(s for s in kept if s.n_frames > lags)
    rest = [session for session in long if session not in kept]
    if selectors is None:
        rest = _spread(rest)
        if len(rest) + len(kept) < len(long):
            n_frames = sum(session.n_frames for session in (*rest, *kept))
            notes.append(
                f"{len(rest) + len(kept)} of {len(long)} sessions, evenly spread by name "
                f"({n_frames:,} frames); `sessions=` chooses others"
            )
    if not named:
        kept = _held_out(rest, held_out, holds_out)
        rest = [session for session in rest if session not in kept]
    if not rest:
        raise InputError(
            expected="fewer sessions that are held out than there are",
            found=counted(len(kept), "session") + " held out of as many",
            where="`held_out=`",
            fix="give a smaller number, or 0",
        )
    if not kept and holds_out:
        notes.append("no session is held out: there is no held-out log likelihood")
    by_name = sorted(kept, key=lambda session: session.name)
    return ChosenSessions(tuple(rest), tuple(by_name), tuple(notes))


def _spread(sessions: Sequence[Session]) -> list[Session]:
    """Evenly spread sessions that hold about enough frames."""
    total = sum(session.n_frames for session in sessions)
    n = -(-len(sessions) * ENOUGH_FRAMES // max(1, total))
    n = min(max(n, _LEAST_SESSIONS), len(sessions))
    return [sessions[row] for row in _evenly(len(sessions), n)]


def _held_out(sessions: Sequence[Session], asked: object, holds_out: bool) -> tuple[Session, ...]:
    n = asked
    if n is None:
        n = max(1, round(_HELD_OUT_SHARE * len(sessions))) if holds_out and len(sessions) > 1 else 0
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise InputError(
            expected="a number of sessions, 0 or more, or names of sessions",
            found=repr(asked),
            where="`held_out=`",
            fix="leave it out to hold out about a fifth of them",
        )
    return tuple(sessions[row] for row in _evenly(len(sessions), min(n, len(sessions))))


def _evenly(n_all: int, n: int) -> np.ndarray:
    """Places of ``n`` of ``n_all``, each in the middle of its part."""
    return ((np.arange(n) + 0.5) * n_all / max(1, n)).astype(int)


# ------------------------------------------------------------------ words


def recommend(table: xr.Dataset, target: float | None) -> tuple[str, ...]:
    """Say what the figures of a scan suggest, one sentence each.

    A mean over chains is told apart from the highest when it is lower by more than the standard
    error of the difference, over pairs of chains of one seed: these begin alike, and what a seed
    does is much the same at all points.

    Parameters
    ----------
    table : xarray.Dataset, (point, chain)
        With attribute ``varies``: settings with more than one value.
    target : float or None
        Median duration that is wanted, in ms, where kappa is scanned.
    """
    if table.sizes["point"] < 2:
        return ()
    varies, found = list(table.attrs["varies"]), []
    if "target_duration" in varies:
        found += _missed(table)
    if target is not None:
        found.append(_nearest(table, target))
    found += _best(table, "held_out_log_likelihood", "the held-out log likelihood", "nat/frame")
    if not np.isfinite(table["held_out_log_likelihood"]).any():
        text = "the expected marginal likelihood"
        found += _best(table, "expected_marginal_likelihood", text, "nat/frame")
    if "latent_dim" not in varies:
        found += _best(table, "log_evidence", "the log evidence", "nat/frame")
    found += _agreement(table)
    if {"target_duration", "kappa"} & set(varies):
        found.append(
            "the time scale is a choice: likelihoods mostly favour short syllables; look where "
            "they begin to fall steeply, and at agreement"
        )
    if "kappa" in varies:
        found.append(
            "kappa is weighed against the number of transitions: on more frames the same kappa "
            "gives shorter syllables; for all sessions give `target_duration=` to the fit"
        )
    return tuple(found)


def _label(table: xr.Dataset, point: Any) -> str:
    return str(table["label"].values[point])


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over chains and its standard error: (point, chain) -> (point,) each; NaN without."""
    number = np.isfinite(values).sum(1)
    total = np.where(np.isfinite(values), values, 0).sum(1)
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    square = np.where(np.isfinite(values), (values - mean[:, None]) ** 2, 0).sum(1)
    variance = np.where(number > 1, square / np.maximum(number - 1, 1), np.nan)
    return mean, np.sqrt(variance / np.maximum(number, 1))


def _best(table: xr.Dataset, name: str, text: str, unit: str) -> list[str]:
    mean, error = mean_and_error(table[name].values)
    if np.isfinite(mean).sum() < 2:
        return []
    best = int(np.nanargmax(mean))
    n_chains = table.sizes["chain"]
    said = f"{text} is highest at {_label(table, best)} ({mean[best]:.3f} {unit}"
    if n_chains > 1:
        said += f", standard error over {counted(n_chains, 'chain')} {error[best]:.3f}"
    said += ")"
    values = table[name].values
    less, of_less = mean_and_error(values[best] - values)
    close = np.flatnonzero(less <= of_less)
    others = [_label(table, point) for point in close if point != best]
    if others:
        said += f"; not told apart from it: {listed(others)}"
    return [said]


def _agreement(table: xr.Dataset) -> list[str]:
    mean, _ = mean_and_error(table["adjusted_rand_index"].values)
    if np.isfinite(mean).sum() < 2:
        return []
    best = int(np.nanargmax(mean))
    effective, _ = mean_and_error(table["effective_number"].values)
    return [
        f"chains agree most at {_label(table, best)} (adjusted Rand index {mean[best]:.2f}, with "
        f"an effective number of {effective[best]:.1f} syllables: few agree easily)"
    ]


def _nearest(table: xr.Dataset, target: float) -> str:
    median, _ = mean_and_error(table["median_duration"].values)
    # As a ratio: 200 ms are as far from 400 ms as 800 ms are.
    distance = np.abs(np.log(np.maximum(median, 1e-9) / target))
    nearest = int(np.nanargmin(distance))
    said = (
        f"{_label(table, nearest)} gives a median syllable ({median[nearest]:.0f} ms) nearest to "
        f"the target of {target:g} ms"
    )
    if abs(median[nearest] / target - 1) > TOLERANCE:
        said += ", and misses it: scan another range"
    return said


def _missed(table: xr.Dataset) -> list[str]:
    target = table["target_duration"].values
    median, _ = mean_and_error(table["median_duration"].values)
    missed = np.flatnonzero(np.abs(median / target - 1) > TOLERANCE)
    if not len(missed):
        return []
    texts = [f"{_label(table, point)} ({median[point]:.0f} ms)" for point in missed]
    return [f"not reached: {listed(texts)}; give more `sweeps=`, or other targets"]
