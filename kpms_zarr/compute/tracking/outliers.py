"""Outlying keypoints: confident, found frame by frame to be impossible, taken for missing."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import add
from typing import Any, NamedTuple

import numpy as np

from kpms_zarr.compute.alignment.alignment import (
    AlignmentSettings,
    Compass,
    compass_of,
    heading_of,
    is_valid,
)
from kpms_zarr.compute.alignment.heading_names import require_heading
from kpms_zarr.compute.mapreduce import BlockReader, map_reduce
from kpms_zarr.compute.tracking.plausibility import FEWEST_POINTS, PoseDistribution, judge, learn
from kpms_zarr.compute.tracking.quality import distance_statistics
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.settings import StudySettings, keypoint_columns, read_settings
from kpms_zarr.store.study.tracking import distance_from_middle, outlier_distance

OUTLIER_SCALE = 6.0
"""Median absolute deviations above the median from where on a keypoint is outlying."""

_LEAST_DEVIATION = 0.05
"""Median absolute deviation of a distance from the middle, at least; in body lengths. Of a session
in which hardly anything moves it is 0, and of one in which the animal mostly sits it is small."""
_REACH = 0.75
"""From the middle, in body lengths, one and a half times as far as the end of the body: what is
nearer may be right in a pose that is rare, and only the other keypoints can tell."""
_SMALLEST = 0.02
"""What keypoints vary by around where the others have them, at least; in body lengths."""
_SMALLEST_REFERENCE = 0.1
_SAMPLE_FRAMES = 20_000
_SAMPLE_COORDINATES = 640_000
"""Of the frames of a sample together, so that many keypoints take no more memory than few."""
_FRAMES_PER_COORDINATE = 10
_MOST_IN_SESSION = 0.25
"""A keypoint that is off in more frames of a session than that moves in ways that the other frames
do not tell of, or is another part of the body there: it is not judged by the others."""
_FARTHEST = 1.0
"""In body lengths from the middle, twice as far as the end of the body: nothing belongs there."""
_MANY = 0.05
_CACHE_BYTES = 16_000_000


@dataclass(frozen=True)
class OutlierModel:
    """Model of outlying keypoints, for any session of animals of the same shape.

    Attributes
    ----------
    scale : float
        Median absolute deviations above the median from where on a keypoint is outlying.
    confidence_threshold : float
        Keypoints with less confidence do not count for the others.
    reference : ndarray, (keypoint,)
        Typical distance from the middle of the animal, in body lengths.
    pose : PoseDistribution or None
        How the keypoints of a frame predict each other; None = they are too few, or too few
        frames have enough of them.
    """

    scale: float
    confidence_threshold: float
    reference: np.ndarray
    pose: PoseDistribution | None


@dataclass(frozen=True)
class _Row:
    """Limits of one session: distances from the middle, body length, keypoints to judge."""

    limit: np.ndarray
    size: float
    is_judged: np.ndarray


@dataclass(frozen=True)
class Screen:
    """Screen for the outlying keypoints of any block of frames, each frame on its own.

    Make it with :func:`make_screen`. A keypoint is outlying when the other keypoints of the frame
    predict it too badly; where they cannot tell, when it is too far from the middle of the
    animal for its session.

    Attributes
    ----------
    fraction : ndarray, (keypoint,)
        Share of the confident observations that are outlying, over all sessions.
    notes : tuple of str
        What a person should know.
    """

    model: OutlierModel
    fraction: np.ndarray
    notes: tuple[str, ...]
    _rows: Mapping[int, _Row] = field(repr=False)
    _cache: _Cache = field(repr=False, compare=False)

    def find(self, block: Block, position: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Find the outlying keypoints of a block.

        Parameters
        ----------
        position : ndarray, (frame, keypoint, space)
            In units of position of the store.
        confidence : ndarray, (frame, keypoint)

        Returns
        -------
        ndarray, (frame, keypoint) bool
        """
        return self._cache.get(block, position.shape[:2], partial(self._find, block.session,
                               position, confidence))  # fmt: skip

    def _find(self, session: int, position: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        return _outlying(position, confidence, self.model, self._rows[session])


def _outlying(
    position: np.ndarray, confidence: np.ndarray, model: OutlierModel, row: _Row
) -> np.ndarray:
    valid = is_valid(position, confidence, model.confidence_threshold)
    is_far = _distance(position, valid) > row.limit
    if model.pose is None or not row.size > 0:
        return is_far
    is_trusted = valid & ~is_far & row.is_judged & np.isfinite(model.pose.limit)
    with np.errstate(over="ignore"):
        pose = position.astype(np.float64) / row.size
    found = judge(pose, is_trusted, model.pose)
    return np.where(found.is_clear[:, None] & row.is_judged, found.is_off, is_far)


def _distance(position: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Distances of the valid keypoints from the middle of these; NaN for the others."""
    return distance_from_middle(np.where(valid[..., None], position, np.float32(np.nan)))


class _Valid:
    """Positions of the valid keypoints only, block by block.

    Parameters
    ----------
    threshold : float
        Of the confidence.
    """

    def __init__(self, reader: BlockReader, threshold: float) -> None:
        self._reader, self._threshold = reader, threshold

    def tracked(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Positions, NaN where not valid, and confidences."""
        position, confidence = self._reader.tracked(block)
        valid = is_valid(position, confidence, self._threshold)
        return np.where(valid[..., None], position, np.float32(np.nan)), confidence


class _Cache:
    """Cache of outlying keypoints by block, as far as it fits: a bit a keypoint, compressed."""

    def __init__(self) -> None:
        self._found: dict[Block, bytes] = {}
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def forget(self, sessions: Container[int]) -> None:
        """Drop the blocks of some sessions."""
        with self._lock:
            for block in [block for block in self._found if block.session in sessions]:
                self._n_bytes -= len(self._found.pop(block))

    def get(
        self, block: Block, shape: tuple[int, ...], find: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Get what ``find`` returns, (frame, keypoint) bool."""
        packed = self._found.get(block)
        if packed is not None:
            bits = np.frombuffer(zlib.decompress(packed), np.uint8)
            return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).view(bool)
        found = find()
        packed = zlib.compress(np.packbits(found).tobytes(), 1)
        with self._lock:
            if block not in self._found and self._n_bytes + len(packed) <= _CACHE_BYTES:
                self._found[block] = packed
                self._n_bytes += len(packed)
        return found


# ------------------------------------------------------------------ a screen for some sessions


def screen_of(
    store: StoreLike,
    study: StudySettings,
    settings: AlignmentSettings,
    scale: float | None,
    *,
    sessions: Sequence[Session] | None = None,
    model: OutlierModel | None = None,
) -> Screen | None:
    """Make the screen of some sessions of a store; None without a scale.

    Parameters
    ----------
    study : StudySettings
        With the keypoints in use.
    scale : float, optional
        See :attr:`OutlierModel.scale`; None = nothing is outlying.
    sessions : sequence of Session, optional
        Default: all.
    model : OutlierModel, optional
        See :func:`make_screen`.

    Raises
    ------
    InputError
        When there are no sessions, or no keypoints for the heading.
    """
    if scale is None:
        return None
    root = access.open_group(store)
    found = tuple(sessions or access.require_sessions(root, os.fspath(store)))
    stored = read_settings(root)
    if not settings.fix_heading:
        require_heading(study, os.fspath(store), stored=stored)
    reader = BlockReader(store, keypoints=keypoint_columns(stored, study.keypoints))
    compass = compass_of(study, settings)
    return make_screen(reader, found, study.keypoints, compass, settings, scale=scale, model=model)


def make_screen(
    reader: BlockReader,
    sessions: Sequence[Session],
    keypoints: Sequence[str],
    compass: Compass,
    settings: AlignmentSettings,
    *,
    scale: float,
    model: OutlierModel | None = None,
) -> Screen:
    """Measure some sessions, and fit the outlier model to them.

    Parameters
    ----------
    reader : BlockReader
        Of the keypoints in use, in units of position of the store.
    compass : Compass
        Keypoints for the heading.
    scale : float
        See :attr:`OutlierModel.scale`.
    model : OutlierModel, optional
        What was learned before (default: learned from these sessions). Then what is found in a
        session does not depend on the others.
    """
    # By name: what is made of many sessions shall not depend on the order of their ingest.
    ordered = sorted(sessions, key=lambda session: session.name)
    threshold = settings.confidence_threshold if model is None else model.confidence_threshold
    positions = _Valid(reader, threshold)
    centre, deviation = distance_statistics(positions, ordered, n_keypoints=len(keypoints))
    is_new = model is None
    if model is None:
        reference = _reference([centre[session.index] for session in ordered])
        model = OutlierModel(scale, threshold, reference, None)
    rows = {i: _row(centre[i], deviation[i], model) for i in centre}
    if is_new and len(keypoints) >= FEWEST_POINTS:
        model = _learned(reader, ordered, compass, settings, model, rows)
    cache = _Cache()
    counts = _counted(reader, model, rows, cache, ordered)
    rows, exempt = _exempted(rows, counts)
    if exempt:
        cache.forget(exempt)
        again = [session for session in ordered if session.index in exempt]
        counts = {**counts, **_counted(reader, model, rows, cache, again)}
    total = np.sum([counts[session.index] for session in ordered], axis=0)
    fraction = total[1] / np.maximum(total[0], 1)
    notes = [*_share_notes(fraction, keypoints), *_exempt_notes(ordered, exempt, keypoints)]
    return Screen(model, fraction, tuple(notes), rows, cache)


def _reference(centre: Sequence[np.ndarray]) -> np.ndarray:
    """Typical distances from the middle in body lengths: (keypoint,); NaN = never seen.

    The body is twice as long as the keypoint furthest from the middle is away from it.
    """
    every = np.stack(centre)
    reference = _nan_median(every)
    for _ in range(2):
        size = np.array([_size(one, reference) for one in every])
        ratio = every / np.where(size > 0, size, np.nan)[:, None]
        found = _nan_median(ratio)
        longest = np.nanmax(found, initial=0.0)
        if not longest > 0:
            return reference
        reference = found / (2 * longest)
    return reference


def _size(centre: np.ndarray, reference: np.ndarray) -> float:
    """Body length of a session, in units of position; 0 = its keypoints lie on the same spot."""
    with np.errstate(invalid="ignore"):
        is_apart = reference > _SMALLEST_REFERENCE * np.nanmax(reference, initial=0.0)
    ratio = centre[is_apart] / reference[is_apart]
    ratio = ratio[np.isfinite(ratio)]
    return float(np.median(ratio)) if ratio.size else 0.0


def _nan_median(values: np.ndarray) -> np.ndarray:
    """Median over the first axis, NaN where there is nothing but NaN."""
    found = np.full(values.shape[1:], np.nan)
    seen = ~np.isnan(values).all(0)
    found[seen] = np.nanmedian(values[:, seen], axis=0)
    return found


def _row(centre: np.ndarray, deviation: np.ndarray, model: OutlierModel) -> _Row:
    size = _size(centre, model.reference)
    wide = np.maximum(deviation, _LEAST_DEVIATION * size)
    limit = np.maximum(outlier_distance(centre, wide, model.scale), _REACH * size)
    if not size > 0:
        limit = np.full_like(limit, np.inf)
    return _Row(limit, size, np.ones(len(centre), bool))


# ------------------------------------------------------------------ learning from a sample


class _Sample(NamedTuple):
    """Sample of poses in body lengths, (frame, keypoint, space), and a mask of those trusted."""

    pose: np.ndarray
    is_trusted: np.ndarray

    def add(self, after: _Sample) -> _Sample:
        return _Sample(*(np.concatenate(pair) for pair in zip(self, after, strict=True)))


def _learned(
    reader: BlockReader,
    sessions: Sequence[Session],
    compass: Compass,
    settings: AlignmentSettings,
    model: OutlierModel,
    rows: Mapping[int, _Row],
) -> OutlierModel:
    n_space = len(reader.believed(Block(sessions[0].index, 0, 1))[0, 0])
    most = min(_SAMPLE_FRAMES, _SAMPLE_COORDINATES // (len(model.reference) * n_space))
    stride = max(1, -(-sum(session.n_frames for session in sessions) // most))
    sample = map_reduce(
        partial(_every, reader, compass, model, rows, stride), iter_blocks(sessions), _Sample.add
    )
    n_points, n_space = sample.pose.shape[1:]
    needed = _FRAMES_PER_COORDINATE * n_points * n_space
    seen = sample.is_trusted.sum(0) >= needed
    enough = sample.is_trusted[:, seen].sum(1) >= FEWEST_POINTS
    if seen.sum() < FEWEST_POINTS or enough.sum() < needed:
        return model
    learned = learn(
        sample.pose[:, seen].astype(np.float64),
        sample.is_trusted[:, seen],
        scale=model.scale,
        smallest=_SMALLEST,
        is_turning=not settings.fix_heading,
    )
    return OutlierModel(
        model.scale, model.confidence_threshold, model.reference, _whole(learned, seen)
    )


def _whole(model: PoseDistribution, seen: np.ndarray) -> PoseDistribution:
    """Fit a pose model of all keypoints; those never seen are not judged."""
    if seen.all():
        return model
    n_space = model.mean.shape[1]
    mean, limit = np.zeros((len(seen), n_space)), np.full(len(seen), np.inf)
    mean[seen], limit[seen] = model.mean, model.limit
    size = len(seen) * n_space
    covariance = np.eye(size).reshape(len(seen), n_space, len(seen), n_space)
    at = np.flatnonzero(seen)
    covariance[at[:, None], :, at[None, :], :] = model.covariance.transpose(0, 2, 1, 3)
    return PoseDistribution(mean, covariance, limit, model.is_turning)


def _every(
    reader: BlockReader,
    compass: Compass,
    model: OutlierModel,
    rows: Mapping[int, _Row],
    stride: int,
    block: Block,
) -> _Sample:
    """Sample every so many frames of a block, turned to look along +x."""
    row = rows[block.session]
    chosen = np.arange(-block.start % stride, block.n_frames, stride)
    position = reader.position(block)[chosen]
    confidence = reader.confidence(block)[chosen]
    is_trusted = is_valid(position, confidence, model.confidence_threshold)
    is_trusted &= ~(_distance(position, is_trusted) > row.limit)
    pose = np.where(is_trusted[..., None], position, np.nan).astype(np.float64)
    pose = pose / (row.size or np.nan)
    heading = heading_of(_with_ends(pose, compass), compass)
    known = np.isfinite(heading) & (is_trusted.sum(1) >= FEWEST_POINTS) & (row.size > 0)
    turned = rotate(pose[known], -heading[known])
    return _Sample(turned.astype(np.float32), is_trusted[known])


def _with_ends(pose: np.ndarray, compass: Compass) -> np.ndarray:
    """Poses whose missing front and rear keypoints are where the other ones of their end are."""
    filled = pose.copy()
    for points in compass:
        if not points:
            continue
        part = filled[:, points]
        is_there = np.isfinite(part).all(-1, keepdims=True)
        n_there = is_there.sum(1, keepdims=True)
        with np.errstate(invalid="ignore"):
            mean = np.where(is_there, part, 0.0).sum(1, keepdims=True) / n_there
        filled[:, points] = np.where(is_there, part, mean)
    return filled


# ------------------------------------------------------------------ counting, and what is said


def _counted(
    reader: BlockReader,
    model: OutlierModel,
    rows: Mapping[int, _Row],
    cache: _Cache,
    sessions: Sequence[Session],
) -> dict[int, np.ndarray]:
    """Count confident and outlying observations: session -> (2, keypoint)."""
    return map_reduce(partial(_count, reader, model, rows, cache), iter_blocks(sessions), _merge)


def _count(
    reader: BlockReader,
    model: OutlierModel,
    rows: Mapping[int, _Row],
    cache: _Cache,
    block: Block,
) -> dict[int, np.ndarray]:
    """Count like :func:`_counted`, in one block."""
    position, confidence = reader.believed(block), reader.confidence(block)
    valid = is_valid(position, confidence, model.confidence_threshold)
    find = partial(_outlying, position, confidence, model, rows[block.session])
    found = cache.get(block, valid.shape, find)
    return {block.session: np.stack([valid.sum(0), (valid & found).sum(0)])}


def _merge(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {**a, **b, **{key: add(a[key], b[key]) for key in a.keys() & b.keys()}}


def _exempted(
    rows: Mapping[int, _Row], counts: Mapping[int, np.ndarray]
) -> tuple[dict[int, _Row], dict[int, np.ndarray]]:
    """Exempt keypoints that are off much of the time, and list them."""
    after, exempt = {}, {}
    for i, row in rows.items():
        is_off = counts[i][1] > _MOST_IN_SESSION * counts[i][0]
        farthest = np.maximum(row.limit, _FARTHEST * row.size)
        after[i] = _Row(np.where(is_off, farthest, row.limit), row.size, ~is_off)
        if is_off.any():
            exempt[i] = is_off
    return after, exempt


def _share_notes(fraction: np.ndarray, keypoints: Sequence[str]) -> list[str]:
    shares = [
        f"{name} {share:.1%}"
        for name, share in zip(keypoints, fraction, strict=True)
        if share >= 0.0005
    ]
    many = [name for name, share in zip(keypoints, fraction, strict=True) if share > _MANY]
    notes = []
    if fraction.any():
        listed = ", ".join(shares) or "less than 0.05 % of every keypoint"
        notes.append(f"confident points taken for missing because they are outlying: {listed}")
    if many:
        notes.append(
            f"many points of {', '.join(many)} are outlying: look at them with "
            "`kpms_zarr.explore`; where they are right, give a larger `outlier_scale=`, or none"
        )
    return notes


def _exempt_notes(
    sessions: Sequence[Session], exempt: Mapping[int, np.ndarray], keypoints: Sequence[str]
) -> list[str]:
    names = np.asarray(keypoints)
    return [
        f"{session.name}: {', '.join(names[exempt[session.index]])} elsewhere than expected in "
        f"more than {_MOST_IN_SESSION:.0%} of the frames: kept wherever the body can reach; check "
        "that they are parts of the body, and that their names are right"
        for session in sessions
        if session.index in exempt
    ]


# ------------------------------------------------------------------ in a store


def to_store(model: OutlierModel) -> dict[str, np.ndarray]:
    """Arrays of an outlier model by the names of ``schema.OUTLIERS``."""
    values = {"outlier_distance": model.reference}
    if model.pose is not None:
        values |= {
            "outlier_pose_mean": model.pose.mean,
            "outlier_pose_covariance": model.pose.covariance,
            "outlier_pose_limit": model.pose.limit,
        }
    return values


def to_attrs(model: OutlierModel | None) -> dict[str, Any]:
    """Attributes of an outlier model, besides its arrays."""
    if model is None:
        return {"outlier_scale": "none"}
    return {
        "outlier_scale": model.scale,
        "outlier_confidence_threshold": model.confidence_threshold,
        "outlier_is_turning": int(model.pose is not None and model.pose.is_turning),
    }


def from_store(values: Mapping[Any, Any], attrs: Mapping[str, Any]) -> OutlierModel | None:
    """The outlier model of a group of the store; None where there is none."""
    if attrs.get("outlier_scale", "none") == "none" or "outlier_distance" not in values:
        return None
    pose = None
    if "outlier_pose_mean" in values:
        names = ("outlier_pose_mean", "outlier_pose_covariance", "outlier_pose_limit")
        arrays = [np.asarray(values[name], np.float64) for name in names]
        pose = PoseDistribution(arrays[0], arrays[1], arrays[2], bool(attrs["outlier_is_turning"]))
    return OutlierModel(
        float(attrs["outlier_scale"]),
        float(attrs["outlier_confidence_threshold"]),
        np.asarray(values["outlier_distance"], np.float64),
        pose,
    )


def check_scale(scale: float | str | None) -> float | None:
    """Check a threshold in body lengths; None for ``"none"``.

    Raises
    ------
    InputError
        For anything but a positive number and ``"none"``.
    """
    if scale is None or scale == "none":
        return None
    if isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < np.inf:
        return float(scale)
    raise InputError(
        expected='a positive number of median absolute deviations, or "none"',
        found=repr(scale),
        where="`outlier_scale=`",
        fix="give for example `outlier_scale=6`, or `outlier_scale='none'`",
    )
