"""Syllables that are looked at: those that are asked for, or those in use."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kpms_zarr.compute.analysis.tables.bout_stream import session_bouts
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import StudyRows
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.wording import call, listed


def chosen_syllables(
    store: StoreLike, labels: PosedLabels, rows: StudyRows, syllables: Sequence[int] | None
) -> np.ndarray:
    """Syllables asked for, or those with 0.5 % of the labelled frames or more, ascending.

    Parameters
    ----------
    store : path or URL
        For errors.
    labels : PosedLabels
    rows : StudyRows
        Whose frames are counted, where the labels have no statistics.
    syllables : sequence of int, optional

    Returns
    -------
    ndarray, (syllable,) int64

    Raises
    ------
    InputError
        For numbers that are no syllables, and where no frame has one.
    """
    if syllables is not None:
        wrong = [one for one in syllables if not _is_number(one) or not 0 <= one < labels.n_states]
        if wrong or not len(syllables):
            raise InputError(
                expected=f"syllables from 0 to {labels.n_states - 1}",
                found=listed(map(repr, wrong)) or "none",
                where="`syllables=`",
                fix="list them with: " + call("summary", os.fspath(store), model=labels.model),
            )
        return np.unique(np.asarray(list(syllables), np.int64))
    share = labels.column("frequency")
    if share is None:
        frames = np.zeros(labels.n_states, np.int64)
        for one in rows.sessions:
            for bouts in session_bouts(labels, one):
                np.add.at(frames, bouts.syllable, bouts.stop - bouts.start)
        share = frames / max(1, frames.sum())
    used = np.flatnonzero(np.nan_to_num(share) >= USED_FRACTION)
    if not len(used):
        raise InputError(
            expected="frames with a syllable",
            found="none",
            where=f"{store}, model {labels.model!r}",
            fix="look at the tracking with `kpms_zarr.quality` and fit again",
        )
    return used


def _is_number(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def window_problems(pre: float, post: float, longest: float = 60.0) -> list[Problem]:
    """What is wrong with a window around onsets, in s."""
    is_right = np.isfinite([pre, post]).all() and pre >= 0 and post > 0 and pre + post <= longest
    if is_right:
        return []
    return [
        Problem(
            f"0 s or more before the onset and some after it, {longest:g} s together at most",
            f"{pre:g} s and {post:g} s",
            "`pre=` and `post=`",
            "give other numbers of seconds, or leave them out",
        )
    ]


def count_problems(least: int = 1, **given: object) -> list[Problem]:
    """What is wrong with numbers of things, by the names of their arguments."""
    return [
        Problem(f"a whole number, {least} or more", repr(value), f"`{name}=`", "give another one")
        for name, value in given.items()
        if not _is_number(value) or value < least  # type: ignore[operator]
    ]
