"""Thresholds of the confidence: as numbers or as shares, and words for what lies below them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.mapreduce import BlockReader, Histogram, map_reduce
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.wording import listed

_HALF = 1 << 16
_SUGGESTED_SHARE = 0.1
_OPTION = "`confidence_threshold=`"
_listed = partial(listed, max_shown=8)


class Threshold(NamedTuple):
    """A threshold of the confidence.

    Attributes
    ----------
    value : float
        Confidences below it are low.
    share : str
        ``"10%"`` when it was given as the share of the confidences that lie below; else "".
    """

    value: float
    share: str = ""

    @property
    def settings(self) -> dict[str, float | str]:
        """Attributes of what was made with the threshold."""
        number: dict[str, float | str] = {"confidence_threshold": self.value}
        return {**number, "confidence_share": self.share} if self.share else number


def resolve(threshold: float | str, reader: BlockReader, sessions: Sequence[Session]) -> Threshold:
    """Resolve a threshold to a number: a share is looked up among the confidences.

    Parameters
    ----------
    threshold : float or str
        A number, or such as ``"10%"``: the confidence below which 10 % of those of all keypoints
        that are not missing lie, exactly, in two passes over the data.

    Raises
    ------
    InputError
        For what is neither, and for a share where there are no confidences.
    """
    share = _share_of(threshold)
    if share is None:
        return Threshold(_number_of(threshold))
    blocks = list(iter_blocks(sessions))
    upper = map_reduce(partial(_upper, reader), blocks, Histogram.add)
    total = int(upper.number.sum())
    if not total:
        raise InputError(
            expected="confidences, of which a share can lie below the threshold",
            found="none in these sessions",
            where=_OPTION,
            fix=f"leave {_OPTION} out: keypoints without a confidence count as confident",
        )
    rank = min(math.floor(share * total), total - 1)
    bits, inside = upper.at_rank(rank)
    lower = map_reduce(partial(_lower, reader, bits), blocks, Histogram.add)
    value = np.uint32(bits << 16 | lower.at_rank(inside)[0]).view(np.float32)
    return Threshold(float(value), f"{100 * share:g}%")


def _share_of(threshold: float | str) -> float | None:
    """Parse ``"10%"`` as 0.1; None for what is no share."""
    if not isinstance(threshold, str) or not threshold.strip().endswith("%"):
        return None
    try:
        share = float(threshold.strip()[:-1]) / 100
    except ValueError:
        raise _wrong(threshold) from None
    if not 0 <= share < 1:
        raise _wrong(threshold)
    return share


def _number_of(threshold: float | str) -> float:
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        raise _wrong(threshold) from None
    if not math.isfinite(value):
        raise _wrong(threshold)
    return value


def _wrong(threshold: object) -> InputError:
    return InputError(
        expected="a number, or a share of the confidences from 0% to below 100%",
        found=str(threshold),
        where=_OPTION,
        fix="give for example `confidence_threshold=0.5`, or `confidence_threshold='10%'`",
    )


def check(threshold: float | str) -> None:
    """Refuse what is no threshold, before anything is read (InputError)."""
    if _share_of(threshold) is None:
        _number_of(threshold)


# ------------------------------------------------------------------ order statistics, by radix


def _bits(reader: BlockReader, block: Block) -> np.ndarray:
    """Bit patterns of the confidences of what is not missing: those of floats > 0 are ordered."""
    confidence = reader.confidence(block)
    kept = ~(is_missing(reader.position(block), confidence) | np.isnan(confidence))
    return np.ascontiguousarray(confidence[kept], np.float32).view(np.uint32).astype(np.int64)


def _upper(reader: BlockReader, block: Block) -> Histogram:
    return Histogram.of_block(_bits(reader, block) >> 16)


def _lower(reader: BlockReader, upper: int, block: Block) -> Histogram:
    bits = _bits(reader, block)
    return Histogram.of_block(bits[bits >> 16 == upper] & (_HALF - 1))


# ------------------------------------------------------------------ words for what lies below


class Ratings(NamedTuple):
    """Confidences of the keypoints of a session, to the 8 binary digits that words need.

    Attributes
    ----------
    histogram : Histogram
        Keys are ``keypoint * 65,536 +`` the upper 16 bits of a confidence.
    n_tracked : ndarray, (keypoint,) int64
        Frames in which the keypoint is not missing.
    """

    histogram: Histogram
    n_tracked: np.ndarray

    def add(self, other: Ratings) -> Ratings:
        """Add the counts of other frames."""
        return Ratings(self.histogram.add(other.histogram), self.n_tracked + other.n_tracked)

    def quantile(self, share: float, points: Iterable[int]) -> float:
        """The confidence below which a share of those of some keypoints lies; NaN without any."""
        point, upper = np.divmod(self.histogram.key, _HALF)
        chosen = np.isin(point, list(points))
        if not chosen.any():
            return math.nan
        keys, place = np.unique(upper[chosen], return_inverse=True)
        number = np.bincount(place, self.histogram.number[chosen]).astype(np.int64)
        rank = min(math.floor(share * number.sum()), int(number.sum()) - 1)
        key, _ = Histogram(keys, number).at_rank(rank)
        return float(np.uint32(key << 16).view(np.float32))


def rate(reader: BlockReader, sessions: Iterable[Session]) -> dict[int, Ratings]:
    """Count confidences by index of the session, in one pass."""
    return map_reduce(partial(_ratings, reader), iter_blocks(sessions), _merged)


def _ratings(reader: BlockReader, block: Block) -> dict[int, Ratings]:
    confidence = reader.confidence(block)
    is_tracked = ~is_missing(reader.position(block), confidence)
    frame, point = np.nonzero(is_tracked & ~np.isnan(confidence))
    kept = np.ascontiguousarray(confidence[frame, point], np.float32)
    upper = (kept.view(np.uint32) >> 16).astype(np.int64)
    histogram = Histogram.of_block(point * _HALF + upper)
    return {block.session: Ratings(histogram, is_tracked.sum(0))}


def _merged(a: dict[int, Ratings], b: dict[int, Ratings]) -> dict[int, Ratings]:
    return {**a, **b, **{i: a[i].add(b[i]) for i in a.keys() & b.keys()}}


def why_unseen(
    names: Sequence[str], points: Iterable[int], ratings: Ratings, threshold: float
) -> str:
    """Why keypoints of a session count in no frame: not tracked, low, or outlying throughout.

    Parameters
    ----------
    names : sequence of str
        Of all keypoints.
    points : iterable of int
        Keypoints that count in no frame.
    """
    points = list(points)
    tracked = [point for point in points if ratings.n_tracked[point]]
    low = [point for point in tracked if ratings.quantile(1.0, [point]) < threshold]
    lost = [names[point] for point in points if not ratings.n_tracked[point]]
    far = [names[point] for point in tracked if point not in low]
    parts = [f"{_listed(lost)} never tracked"] if lost else []
    parts += (
        [f"{_listed(far)} never where it can be, or never with enough confidence"] if far else []
    )
    if low:
        whose = _listed([names[point] for point in low])
        median, most = ratings.quantile(0.5, low), ratings.quantile(1.0, low)
        parts.append(
            f"all confidences of {whose} are below {threshold:g} (median {median:.2g}, largest "
            f"{most:.2g})"
        )
    return "; ".join(parts)


def suggestion(ratings: Iterable[tuple[Ratings, Iterable[int]]]) -> str:
    """A threshold that nine tenths of the confidences reach, in one digit; "" without any.

    Parameters
    ----------
    ratings : iterable of (Ratings, iterable of int)
        Of sessions, with the keypoints that matter.
    """
    found = [one.quantile(_SUGGESTED_SHARE, points) for one, points in ratings]
    lowest = min((value for value in found if value > 0), default=0.0)
    if not lowest:
        return ""
    digit = 10.0 ** math.floor(math.log10(lowest))
    return f"{math.floor(lowest / digit * (1 + 1e-9)) * digit:.1g}"


def advice(value: str) -> str:
    """Advice on a threshold that is too high for a tracker."""
    return (
        f"if the tracking is good, lower the threshold: `kpms_zarr.pca` with "
        f"`confidence_threshold={value}`, or "
        "`confidence_threshold='10%'` for the value below which a tenth of all confidences lie"
    )
