"""Plausibility of the numbers of a recording: units, confidences, sizes of bodies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.wording import listed

HIGHEST_CONFIDENCE = 3.0
"""Scores of trackers exceed 1 (those of SLEAP reach 1.74); above this they are another scale."""

BODY_LENGTHS = (1e-6, 1e6)
"""Of an animal, in units of position, whatever these are (m, mm, px)."""

_AGAIN = "remove (`kpms_zarr.remove`) and ingest again with"
_EVERY = 16
_MANY = 0.01
_SCALES = ((100.0, "percent"), (255.0, "numbers from 0 to 255"), (65535.0, "numbers of 16 bits"))


@dataclass(frozen=True)
class Correction:
    """Corrections of the numbers in files.

    Attributes
    ----------
    confidence_scale : float or None
        Confidences are divided by it; None = they are not used.
    missing_value : float or None
        A position with this number in all coordinates is missing.
    """

    confidence_scale: float | None = 1.0
    missing_value: float | None = None

    @classmethod
    def of(cls, confidence_scale: float | str, missing_value: float | None) -> Correction:
        """Make corrections of the arguments of an ingest; an InputError for no such scale."""
        if confidence_scale == "none":
            return cls(None, missing_value)
        try:
            scale = float(confidence_scale)
        except (TypeError, ValueError):
            scale = math.nan
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(
                expected="what stands for full confidence, a number above 0, or none",
                found=str(confidence_scale),
                where="`confidence_scale=`",
                fix="give `confidence_scale=100` for percent, `confidence_scale='none'` to take "
                "the positions without confidences",
            )
        return cls(scale, missing_value)

    def apply(
        self, position: np.ndarray, confidence: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Correct positions (frame, keypoint, space) and confidences (frame, keypoint)."""
        if self.missing_value is not None:
            is_marked = (position == np.float32(self.missing_value)).all(-1)
            if is_marked.any():
                position = np.where(is_marked[..., None], np.float32(np.nan), position)
        if self.confidence_scale is None:
            return position, None
        if confidence is not None and self.confidence_scale != 1:
            confidence = confidence / np.float32(self.confidence_scale)
        return position, confidence


AS_IN_THE_FILE = Correction()


class Readings(NamedTuple):
    """Statistics of the numbers of some frames; those of all frames are sums of the parts.

    Attributes
    ----------
    n_tracked, n_rejected, n_unrated : ndarray, (keypoint,) int64
        Frames in which a keypoint is not missing, in which it has a position but a confidence of 0
        or below, and in which it has a position and no confidence beside others that have one.
    n_rated, n_high, n_negative : int
        Confidences of positions, those above 3, and those below 0.
    highest, lowest : float
        Confidence.
    n_zero, n_minus_one : int
        Positions without confidence that are 0, or -1, in all coordinates.
    log_length, n_lengths : float, int
        Sum and number of log10 of the spread of the keypoints, of every 16th frame.
    """

    n_tracked: np.ndarray
    n_rejected: np.ndarray
    n_unrated: np.ndarray
    n_rated: int
    n_high: int
    n_negative: int
    highest: float
    lowest: float
    n_zero: int
    n_minus_one: int
    log_length: float
    n_lengths: int

    @classmethod
    def of_block(cls, position: np.ndarray, confidence: np.ndarray | None) -> Readings:
        """Statistics of consecutive frames: (frame, keypoint, space), (frame, keypoint)."""
        has_position = ~is_missing(position, None)
        tracked = ~is_missing(position, confidence)
        if confidence is None:
            confidence = np.full(tracked.shape, np.nan, np.float32)
        is_given = has_position & ~np.isnan(confidence)
        given, bare = confidence[is_given], position[has_position & np.isnan(confidence)]
        length = _log_lengths(position[::_EVERY], tracked[::_EVERY])
        return cls(
            tracked.sum(0),
            (has_position & ~tracked).sum(0),
            (has_position & ~is_given).sum(0),
            given.size,
            int((given > HIGHEST_CONFIDENCE).sum()),
            int((given < 0).sum()),
            float(given.max(initial=-np.inf)),
            float(given.min(initial=np.inf)),
            int((bare == 0).all(-1).sum()),
            int((bare == -1).all(-1).sum()),
            float(length.sum()),
            length.size,
        )

    def add(self, other: Readings) -> Readings:
        """Add the counts of other frames."""
        both: list[Any] = [a + b for a, b in zip(self, other, strict=True)]  # type: ignore[operator]
        sums = Readings(*both)
        return sums._replace(
            highest=max(self.highest, other.highest), lowest=min(self.lowest, other.lowest)
        )


def _log_lengths(position: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """log10 of the largest extent of the tracked keypoints along an axis, where there is one."""
    known = position[tracked.sum(1) > 1].astype(np.float64)
    seen = tracked[tracked.sum(1) > 1][..., None]
    extent = np.where(seen, known, -np.inf).max(1) - np.where(seen, known, np.inf).min(1)
    extent = extent.max(-1) if len(extent) else np.zeros(0)
    return np.asarray(np.log10(extent[extent > 0]))


# ------------------------------------------------------------------ in words


def doubts(readings: Readings, keypoints: Sequence[str]) -> list[str]:
    """Doubts about the numbers of a track, each with what to do about it."""
    found = [*_of_confidences(readings, keypoints), *_of_positions(readings)]
    if readings.n_lengths:
        found += body_doubts(10 ** (readings.log_length / readings.n_lengths))
    return found


def scale_doubts(highest: float) -> list[str]:
    """Doubts about confidences far above 1, by the largest of them."""
    if not highest > HIGHEST_CONFIDENCE:
        return []
    reading = next(((top, name) for top, name in _SCALES if highest <= 1.005 * top), None)
    if reading is None:
        return [
            f"confidences far above 1, on no scale that is known: {_AGAIN} "
            "`confidence_scale=` and what stands for full confidence, or `confidence_scale='none'` "
            "to take the positions without"
        ]
    top, name = reading
    return [
        f"confidences far above 1, which look like {name}, so that low ones count as high: "
        f"{_AGAIN} `confidence_scale={top:g}` (`confidence_scale='none'` to take the positions "
        "without)"
    ]


def body_doubts(length: float) -> list[str]:
    """Doubts about a body whose size is no animal's in any unit that people use."""
    low, high = BODY_LENGTHS
    if low <= length <= high:
        return []
    power = round(math.log10(length))
    likely = "a column that is no coordinate" if length > high else "coordinates divided twice"
    return [
        f"keypoints lie about 1e{power} units apart: look for {likely}, or a wrong mapping; if the "
        "numbers are right, fit with `scale='dataset'` (or session), which measures in body lengths"
    ]


def _of_confidences(readings: Readings, keypoints: Sequence[str]) -> list[str]:
    found = []
    if readings.n_high > _MANY * readings.n_rated:
        found += scale_doubts(readings.highest)
    elif readings.n_high:
        found.append("a few confidences are far above 1: check where they come from")
    has_some = readings.n_tracked > 0
    never = (readings.n_rejected > 0) & ~has_some
    if never.any() and has_some.any():
        found.append(
            f"{_listed(keypoints, never)} never tracked: a position in the file, but in no frame a "
            "confidence above 0"
        )
    if not has_some.any() and readings.n_rejected.any():
        found.append(
            "all confidences are 0 or below, so that nothing counts as tracked: if the positions "
            "are good, ingest with `confidence_scale='none'`"
        )
    elif readings.n_negative > _MANY * readings.n_rated and readings.lowest != -1:
        found.append("many confidences are below 0, where a keypoint counts as missing")
    bare = readings.n_unrated > 0
    if bare.any() and readings.n_rated:
        found.append(f"no confidence for {_listed(keypoints, bare)} in some frames: taken as high")
    return found


def _of_positions(readings: Readings) -> list[str]:
    n_points = int(readings.n_tracked.sum())
    return [
        f"many positions without confidence are exactly {text}: if that means not found, "
        f"{_AGAIN} `missing_value={value}`"
        for n, text, value in (
            (readings.n_zero, "0", 0),
            (readings.n_minus_one, "-1", -1),
        )
        if n > _MANY * n_points
    ]


def _listed(keypoints: Sequence[str], which: np.ndarray) -> str:
    names = [keypoints[int(at)] for at in np.flatnonzero(which)]
    return "keypoints" if len(names) == len(keypoints) else listed(names)
