"""Statistics of syllables, from counts: durations, turning, entropy, distance."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon

from kpms_zarr.compute.analysis.tables.bout_counts import EpochCounts, lengths_of

QUANTILES = (0.05, 0.25, 0.75, 0.95)
"""Of durations, beside the median."""


def duration_statistics(counts: EpochCounts, tick_ms: float) -> dict[str, np.ndarray]:
    """Durations of the bouts of each cell, in ms.

    Parameters
    ----------
    counts : EpochCounts
    tick_ms : float
        Duration of a tick: of a frame, or with timestamps a microsecond, to which they are rounded.

    Returns
    -------
    dict of str to ndarray
        ``mean_duration`` and ``median_duration``, (epoch, state); ``duration_quantile``,
        (epoch, state, quantile) of :data:`QUANTILES`. NaN where there are no bouts. Quantiles are
        those of type 7 of Hyndman and Fan (1996, The American Statistician 50:361), as of NumPy,
        exact: taken from the number of bouts of every length.
    """
    cell, length = lengths_of(counts.lengths.key)
    number = counts.lengths.number
    n_bouts = counts.n_bouts.ravel()
    total = np.zeros(len(n_bouts), np.int64)
    np.add.at(total, cell, length * number)
    below = np.cumsum(n_bouts) - n_bouts
    upto = np.cumsum(number)
    has = n_bouts > 0
    found = np.full((1 + len(QUANTILES), len(n_bouts)), np.nan)
    for row, share in enumerate((0.5, *QUANTILES)):
        place = (n_bouts[has] - 1) * share
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, n_bouts[has] - 1)
        at = [length[np.searchsorted(upto, below[has] + rank, "right")] for rank in (low, high)]
        found[row, has] = at[0] + (place - low) * (at[1] - at[0])
    with np.errstate(invalid="ignore"):
        mean = total / n_bouts
    shape = counts.n_bouts.shape
    quantiles = np.moveaxis(found[1:].reshape(len(QUANTILES), *shape), 0, -1)
    return {
        "mean_duration": mean.reshape(shape) * tick_ms,
        "median_duration": found[0].reshape(shape) * tick_ms,
        "duration_quantile": quantiles * tick_ms,
    }


def motion_statistics(counts: EpochCounts, fps: float) -> dict[str, np.ndarray]:
    """Speed, turning and heading of each cell, (epoch, state) each; NaN where not known.

    Parameters
    ----------
    counts : EpochCounts
    fps : float
        Frames per second.

    Returns
    -------
    dict of str to ndarray
        ``mean_certainty``; ``mean_speed`` and ``std_speed`` (sample standard deviation over
        frames), units of position / s; ``mean_turning``, rad / s: mean direction of the changes of
        heading from frame to frame (Mardia and Jupp 2000, Directional Statistics, section 2.2)
        times frames per second, with timestamps divided by their mean interval;
        ``turning_resultant_length``: their mean resultant length R
        (section 2.3.1), 1 = all the same; ``turning_circular_std``: sqrt(-2 ln R), rad, their
        circular standard deviation (the same section); ``mean_absolute_turning``, rad / s, the
        arithmetic mean of their amounts; ``mean_heading`` (rad) and ``heading_resultant_length``,
        the same of headings.
    """
    sums, known = counts.sums, counts.known
    nothing = np.full(counts.n_frames.shape, np.nan)

    def mean(part: str, of: str) -> np.ndarray:
        return sums[part] / known[of] if part in sums else nothing

    with np.errstate(invalid="ignore", divide="ignore"):
        step = mean("turning_step", "turning") if "turning_step" in sums else 1.0
        speed = mean("speed", "speed")
        spread = nothing
        if "speed" in sums:
            n = known["speed"]
            square = np.maximum(sums["speed_square"] - sums["speed"] * speed, 0)
            spread = np.where(n > 1, np.sqrt(square / (n - 1)), np.nan)
        length = np.hypot(mean("turning_cos", "turning"), mean("turning_sin", "turning"))
        length = np.minimum(length, 1)
        turning = np.arctan2(mean("turning_sin", "turning"), mean("turning_cos", "turning"))
        heading = np.arctan2(mean("heading_sin", "heading"), mean("heading_cos", "heading"))
        facing = np.hypot(mean("heading_cos", "heading"), mean("heading_sin", "heading"))
        return {
            "mean_certainty": mean("certainty", "certainty"),
            "mean_speed": speed,
            "std_speed": spread,
            "mean_turning": turning * fps / step,
            "mean_absolute_turning": mean("turning_amount", "turning") * fps,
            "turning_resultant_length": length,
            "turning_circular_std": np.sqrt(-2 * np.log(length)),
            "mean_heading": heading,
            "heading_resultant_length": np.minimum(facing, 1),
        }


def entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy of shares (Shannon 1948, The Bell System Technical Journal 27:379), in bits.

    Parameters
    ----------
    counts : ndarray, (..., state)

    Returns
    -------
    ndarray, (...)
        ``-sum p log2 p`` of the shares p that were counted, which is less than the entropy behind
        them where counts are small; NaN without counts.
    """
    total = counts.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / total
        terms = np.where(counts > 0, -share * np.log2(share), 0.0)
    return np.where(total[..., 0] > 0, terms.sum(-1), np.nan)


def entropy_rate(state: np.ndarray, count: np.ndarray) -> float:
    """Entropy rate of the sequence of bouts as a Markov chain, in bits per transition.

    Parameters
    ----------
    state : ndarray, (entry,)
        Where transitions lead from, one entry for each pair of states.
    count : ndarray, (entry,)
        How often.

    Returns
    -------
    float
        ``-sum_i mu_i sum_j P_ij log2 P_ij`` (Cover and Thomas 2006, Elements of Information
        Theory, theorem 4.2.4), P the shares of the transitions from each state, mu the share of
        all transitions that begin there. Biased low where counts are small; NaN without any.
    """
    total = count.sum()
    if not total:
        return float("nan")
    of_state = np.bincount(state, weights=count)[state]
    return float(-(count / total * np.log2(count / of_state)).sum())


def jensen_shannon(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance of counts from others: 0 = the same shares, 1 = none in common.

    The square root of the divergence of Lin (1991, IEEE Transactions on Information Theory 37:145,
    section IV) in bits, which is a metric (Endres and Schindelin 2003, the same 49:1858).

    Parameters
    ----------
    one : ndarray, (state,)
    others : ndarray, (row, state)

    Returns
    -------
    ndarray, (row,)
        NaN where either has no counts.
    """
    total = others.sum(-1)
    if not one.sum() or not len(others):
        return np.full(len(others), np.nan)
    found = np.full(len(others), np.nan)
    has = total > 0
    if has.any():
        with np.errstate(invalid="ignore"):  # the root of what rounding puts below 0
            distance = jensenshannon(one[None].astype(np.float64), others[has], base=2, axis=1)
        found[has] = np.nan_to_num(distance, nan=0.0)
    return found
