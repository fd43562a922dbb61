"""False positives of the shuffled baseline over studies without an effect, and wrong twins.

A part of the studies in CI, 400 in full runs. Rates are compared with the nominal one within four
standard errors of a binomial.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from helpers.amount import IS_FULL
from helpers.posed import bouts_of
from kpms_zarr.compute.analysis.onsets.deviation import deviation
from kpms_zarr.compute.analysis.onsets.shifted_sums import CircularSums

N_STUDIES = 400 if IS_FULL else 100
ALPHA = 0.05
N = 199
"""Shuffles: (1 + N) times ALPHA is whole, so that a valid test rejects as often as ALPHA."""
N_FRAMES, BEFORE, AFTER = 3000, 10, 20

pytestmark = pytest.mark.slow


def null_study(rng, n_sessions):
    """Signals and onsets of the same slow pace that have nothing to do with each other."""
    found = []
    for _ in range(n_sessions):
        signal = lfilter([1], [1, -0.99], rng.normal(size=N_FRAMES + 1000))[1000:]
        labels = bouts_of(rng, N_FRAMES, 3, mean=8)
        # Bouts of syllable 0 come in clusters, as behaviour does.
        slow = lfilter([1], [1, -0.99], rng.normal(size=N_FRAMES + 1000))[1000:]
        onset = np.flatnonzero((labels[1:] == 0) & (labels[:-1] != 0)) + 1
        found.append((signal, onset[slow[onset] > np.quantile(slow[onset], 0.8)]))
    return found


def p_of(study, rng, *, shuffle="circle"):
    """p of a study of several sessions, by shifted onsets, or by a wrong twin of these."""
    curves = []
    for signal, onset in study:
        circle = CircularSums(signal, BEFORE, AFTER)
        total, number = circle.sums(onset, np.zeros(1, np.int64))
        parts = [total / number]
        if shuffle == "circle":
            total, number = circle.sums(onset, rng.integers(0, N_FRAMES, N))
            parts.append(total / number)
        else:  # the wrong twin: each onset anywhere, by itself
            for _ in range(N):
                anywhere = np.sort(rng.choice(N_FRAMES, len(onset), replace=False))
                total, number = circle.sums(anywhere, np.zeros(1, np.int64))
                parts.append(total / number)
        curves.append(np.concatenate(parts, axis=1))
    mean = np.mean(curves, axis=0)
    return deviation(mean[:, 0], mean[:, 1:]).p


def rate(n_sessions, n=N_STUDIES, **options):
    found = []
    for i in range(n):
        rng = np.random.default_rng([11, n_sessions, i])
        found.append(p_of(null_study(rng, n_sessions), rng, **options) <= ALPHA)
    share = float(np.mean(found))
    print(f"{n_sessions} sessions, {options or ''}: {share:.3f} of {n}")
    return share


@pytest.mark.parametrize("n_sessions", [1, 4])
def test_circular_shifts__reject_as_often_as_they_say(n_sessions):
    error = 4 * np.sqrt(ALPHA * (1 - ALPHA) / N_STUDIES)
    assert abs(rate(n_sessions) - ALPHA) <= error


def test_onsets_shuffled_one_by_one__reject_far_too_often():
    """The wrong twin takes a slow signal, and onsets in clusters, for many independent values."""
    n = N_STUDIES if IS_FULL else 60
    error = 4 * np.sqrt(ALPHA * (1 - ALPHA) / n)
    assert rate(1, n, shuffle="each") > ALPHA + error
