"""Egocentric alignment: every block of frames on its own, exactly as if the session were whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.alignment import thresholds
from kpms_zarr.compute.alignment.heading_names import require_heading
from kpms_zarr.compute.mapreduce import BlockReader, OutlierFinder, map_reduce
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.settings import StudySettings, keypoint_columns, read_settings
from kpms_zarr.store.wording import option


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of the alignment of positions to poses.

    Attributes
    ----------
    confidence_threshold : float
        A keypoint whose confidence is below, or not above 0, is interpolated; one without
        confidence is not.
    fix_heading : bool
        Leave the animal as the camera sees it: heading 0 in all frames.
    """

    confidence_threshold: float = 0.5
    fix_heading: bool = False


class Borders(NamedTuple):
    """Nearest valid observation of each keypoint outside a block; frame -1 = there is none.

    Attributes
    ----------
    before_frame, after_frame : ndarray, (keypoint,) int64
        Frames of the session.
    before_value, after_value : ndarray, (keypoint, space)
        Positions in these frames.
    """

    before_frame: np.ndarray
    before_value: np.ndarray
    after_frame: np.ndarray
    after_value: np.ndarray


class Compass(NamedTuple):
    """Indices of the keypoints that define the heading; both empty = heading 0."""

    anterior: tuple[int, ...]
    posterior: tuple[int, ...]


class AlignedBlock(NamedTuple):
    """A block of frames in the frame of reference of the animal.

    Attributes
    ----------
    pose : ndarray, (frame, keypoint, space) float64
        Centred on the mean of the keypoints, turned so that the animal faces +x.
    centroid : ndarray, (frame, space) float64
        ``position = rotation(heading) pose + centroid``.
    heading : ndarray, (frame,) float64
        In rad, from -pi to pi.
    is_confident : ndarray, (frame,) bool
        Whether all keypoints were valid, so that none is interpolated.
    """

    pose: np.ndarray
    centroid: np.ndarray
    heading: np.ndarray
    is_confident: np.ndarray


# ------------------------------------------------------------------ one block of frames


def is_valid(position: np.ndarray, confidence: np.ndarray, threshold: float) -> np.ndarray:
    """Mask of the keypoints that are not missing, with no confidence below the threshold.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
    confidence : ndarray, (frame, keypoint)
        NaN = not given, which counts as fine.

    Returns
    -------
    ndarray, (frame, keypoint) bool
    """
    return ~(is_missing(position, confidence) | (confidence < threshold))


def interpolate(
    position: np.ndarray, valid: np.ndarray, borders: Borders, start: int
) -> np.ndarray:
    """Put invalid keypoints on the line between their nearest valid observations in time.

    The nearest one is taken as it is before the first and after the last one of the session.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
    valid : ndarray, (frame, keypoint) bool
    start : int
        Frame of the session of the first row.

    Returns
    -------
    ndarray, (frame, keypoint, space) float64
        NaN for keypoints without any observation.
    """
    filled = position.astype(np.float64)
    row, point = np.nonzero(~valid)
    if not row.size:
        return filled
    n_rows = len(position) + 2
    known = np.concatenate(
        [borders.before_frame[None] >= 0, valid, borders.after_frame[None] >= 0], axis=0
    )
    rows = np.arange(n_rows)[:, None]
    left = np.maximum.accumulate(np.where(known, rows, -1), axis=0)[row + 1, point]
    right = np.minimum.accumulate(np.where(known, rows, n_rows)[::-1], axis=0)[::-1][row + 1, point]
    is_lost = (left < 0) & (right == n_rows)
    left, right = np.where(left < 0, right, left), np.where(right == n_rows, left, right)
    left[is_lost] = right[is_lost] = 0
    left_frame, left_value = _observation(position, borders, start, left, point)
    right_frame, right_value = _observation(position, borders, start, right, point)
    weight = (row + start - left_frame) / np.maximum(right_frame - left_frame, 1)
    weight = np.where(right_frame > left_frame, weight, 0.0)[:, None]
    line = left_value + (right_value - left_value) * weight
    filled[row, point] = np.where(is_lost[:, None], np.nan, line)
    return filled


def _observation(
    position: np.ndarray, borders: Borders, start: int, row: np.ndarray, point: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frame and position of observations by row, from 1; row 0 and the last are the borders."""
    frame = row - 1 + start
    value = position[np.clip(row - 1, 0, len(position) - 1), point].astype(np.float64)
    for at, border_frame, border_value in (
        (0, borders.before_frame, borders.before_value),
        (len(position) + 1, borders.after_frame, borders.after_value),
    ):
        here = row == at
        frame[here] = border_frame[point[here]]
        value[here] = border_value[point[here]]
    return frame, value


def heading_of(position: np.ndarray, compass: Compass) -> np.ndarray:
    """Direction from the mean of the posterior to the mean of the anterior keypoints.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)

    Returns
    -------
    ndarray, (frame,)
        In rad; 0 without keypoints for it.
    """
    if not compass.anterior:
        return np.zeros(len(position))
    front = position[:, compass.anterior, :2].mean(1)
    rear = position[:, compass.posterior, :2].mean(1)
    return np.arctan2(*(front - rear).T[::-1])


def compass_of(study: StudySettings, settings: AlignmentSettings) -> Compass:
    """Indices of the keypoints of a study that define the heading."""
    if settings.fix_heading:
        return Compass((), ())
    index = study.keypoints.index
    return Compass(
        tuple(index(name) for name in study.anterior),
        tuple(index(name) for name in study.posterior),
    )


def place_unseen(position: np.ndarray, offset: np.ndarray, compass: Compass) -> np.ndarray:
    """Put keypoints that a session never sees at a fixed offset from the others.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
    offset : ndarray, (keypoint, space)
        From the mean of the seen keypoints, in the frame of reference of the animal; NaN for
        the seen ones.
    compass : Compass
        Of all keypoints; the unseen ones are left out.
    """
    unseen = np.isfinite(offset).all(-1)
    centre = position[:, ~unseen].mean(1, keepdims=True)
    heading = heading_of(position, without(compass, unseen))
    placed = position.copy()
    shifts = np.broadcast_to(offset[unseen], (len(position), unseen.sum(), offset.shape[-1]))
    placed[:, unseen] = centre + rotate(shifts, heading)
    return placed


def without(compass: Compass, unseen: np.ndarray) -> Compass:
    """Compass with the keypoints that are seen, the others left out."""
    return Compass(*(tuple(k for k in points if not unseen[k]) for points in compass))


def align_block(
    position: np.ndarray,
    confidence: np.ndarray,
    borders: Borders,
    *,
    start: int,
    compass: Compass,
    confidence_threshold: float = 0.5,
    offset: np.ndarray | None = None,
) -> AlignedBlock:
    """Align one block of frames.

    Parameters
    ----------
    position : ndarray, (frame, keypoint, space)
    confidence : ndarray, (frame, keypoint)
    borders : Borders
        What lies outside the block.
    start : int
        Frame of the session of the first row.
    offset : ndarray, (keypoint, space), optional
        See :func:`place_unseen`.
    """
    valid = is_valid(position, confidence, confidence_threshold)
    filled = interpolate(position, valid, borders, start)
    if offset is not None:
        filled = place_unseen(filled, offset, compass)
    centroid = filled.mean(1)
    heading = heading_of(filled, compass)
    pose = rotate(filled - centroid[:, None], -heading)
    return AlignedBlock(pose, centroid, heading, np.asarray(valid.all(1)))


# ------------------------------------------------------------------ what lies around the blocks


class Observations(NamedTuple):
    """First and last valid observation of each keypoint in some blocks; frame -1 = none.

    Attributes
    ----------
    first_frame, last_frame : ndarray, (block, keypoint) int64
    first_value, last_value : ndarray, (block, keypoint, space) float32
    """

    first_frame: np.ndarray
    first_value: np.ndarray
    last_frame: np.ndarray
    last_value: np.ndarray


def observations_of_block(position: np.ndarray, valid: np.ndarray, start: int) -> Observations:
    """First and last valid observations of one block."""
    point = np.arange(valid.shape[1])
    seen = valid.any(0)
    first = valid.argmax(0)
    last = len(valid) - 1 - valid[::-1].argmax(0)
    found = (
        np.where(seen, first + start, -1),
        position[first, point],
        np.where(seen, last + start, -1),
        position[last, point],
    )
    return Observations(*(values[None] for values in found))


def add_observations(a: Observations, b: Observations) -> Observations:
    """Observations of the blocks of ``a``, then of ``b``."""
    return Observations(*(np.concatenate(pair) for pair in zip(a, b, strict=True)))


def _observe(reader: BlockReader, threshold: float, block: Block) -> Observations:
    position = reader.position(block)
    valid = is_valid(position, reader.confidence(block), threshold)
    return observations_of_block(position, valid, block.start)


def _neighbours(observations: Observations, first_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the nearest earlier and later block of the session with an observation, or -1.

    Parameters
    ----------
    first_row : ndarray, (session,)
        First block of each session.
    """
    seen = observations.first_frame >= 0
    n_rows = len(seen)
    rows = np.arange(n_rows)[:, None]
    count = np.diff(np.append(first_row, n_rows))
    begin = np.repeat(first_row, count)[:, None]
    end = np.repeat(first_row + count, count)[:, None]
    earlier = np.full(seen.shape, -1)
    earlier[1:] = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)[:-1]
    later = np.full(seen.shape, n_rows)
    later[:-1] = np.minimum.accumulate(np.where(seen, rows, n_rows)[::-1], axis=0)[::-1][1:]
    return np.where(earlier >= begin, earlier, -1), np.where(later < end, later, -1)


class _SessionRows(NamedTuple):
    first_row: int
    n_frames: int


@dataclass(frozen=True)
class Aligner:
    """Alignment of any frames of a store; make it with :meth:`of`.

    Attributes
    ----------
    reader : BlockReader
        Of the keypoints of ``study``, in model units when a scale was given.
    observations : Observations
        One row per block of 16,384 frames.
    notes : tuple of str
        What a person should know: keypoints that count in no frame of a session.
    """

    reader: BlockReader
    settings: AlignmentSettings
    study: StudySettings
    sessions: tuple[Session, ...] = field(repr=False)
    observations: Observations = field(repr=False)
    notes: tuple[str, ...] = ()
    _earlier: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    _later: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    _place: dict[int, _SessionRows] = field(default_factory=dict, repr=False)
    _offset: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        store: StoreLike,
        settings: AlignmentSettings | None = None,
        *,
        study: StudySettings | None = None,
        scale: Mapping[int, float] | None = None,
        sessions: Sequence[Session] | None = None,
        typical_pose: np.ndarray | None = None,
        screen: OutlierFinder | None = None,
    ) -> Aligner:
        """Read a store once and make an aligner of it.

        Parameters
        ----------
        study : StudySettings, optional
            In place of what the store says (default). Its keypoints may be some of those of the
            store, in any order: only they are read. See :func:`study.subset_keypoints`.
        scale : mapping of int to float, optional
            Index of a session -> units of position for one model unit: all that is returned is
            in model units. 1 for a session that it lacks.
        sessions : sequence of Session, optional
            Default: all.
        typical_pose : ndarray, optional, (keypoint, space)
            In the units of what is returned: says where keypoints are put that a session never
            sees, so that nothing depends on the other sessions (default: these say it).
        screen : OutlierFinder, optional
            What it finds outlying is missing. See :func:`outliers.make_screen`.

        Raises
        ------
        InputError
            When there are no sessions, no keypoints for the heading, keypoints that the store
            lacks, or sessions in which too little is seen to align them.
        """
        settings = settings or AlignmentSettings()
        root = access.open_group(store)
        sessions = tuple(sessions or access.require_sessions(root, os.fspath(store)))
        stored = read_settings(root)
        study = study or stored
        columns = keypoint_columns(stored, study.keypoints)
        if not settings.fix_heading:
            require_heading(study, os.fspath(store), stored=stored)
        reader = BlockReader(store, keypoints=columns, scale=scale, screen=screen)
        look = partial(_observe, reader, settings.confidence_threshold)
        observations = map_reduce(look, iter_blocks(sessions, FRAMES_PER_CHUNK), add_observations)
        n_blocks = [-(-session.n_frames // FRAMES_PER_CHUNK) for session in sessions]
        first_row = np.cumsum([0, *n_blocks[:-1]])
        place = {
            s.index: _SessionRows(int(r), s.n_frames)
            for s, r in zip(sessions, first_row, strict=True)
        }
        around = _neighbours(observations, first_row)
        found = cls(reader, settings, study, sessions, observations, (), *around, place)
        seen = np.maximum.reduceat(observations.first_frame, first_row, axis=0) >= 0
        if seen.all():
            return found
        if typical_pose is None:
            return _with_offsets(found, seen)
        return _with_typical_offsets(found, seen, typical_pose)

    @property
    def compass(self) -> Compass:
        """Indices of the keypoints that define the heading."""
        return compass_of(self.study, self.settings)

    def borders(self, block: Block) -> Borders:
        """Nearest valid observations outside one block of 16,384 frames."""
        row = self._place[block.session].first_row + block.start // FRAMES_PER_CHUNK
        point = np.arange(self._earlier.shape[1])
        earlier, later = self._earlier[row], self._later[row]
        return Borders(
            np.where(earlier < 0, -1, self.observations.last_frame[earlier, point]),
            self.observations.last_value[earlier, point],
            np.where(later < 0, -1, self.observations.first_frame[later, point]),
            self.observations.first_value[later, point],
        )

    def interpolated(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Positions (frame, keypoint, space) without gaps, and which frames had none (frame,)."""
        position = self.reader.position(block)
        threshold = self.settings.confidence_threshold
        valid = is_valid(position, self.reader.confidence(block), threshold)
        filled = interpolate(position, valid, self.borders(block), block.start)
        return filled, np.asarray(valid.all(1))

    def align(self, block: Block) -> AlignedBlock:
        """Align any frames of a session; the same numbers however the session is cut.

        Parameters
        ----------
        block : Block
            Read 16,384 frames at a time.
        """
        n_frames = self._place[block.session].n_frames
        first = block.start - block.start % FRAMES_PER_CHUNK
        parts = []
        for start in range(first, block.stop, FRAMES_PER_CHUNK):
            whole = Block(block.session, start, min(start + FRAMES_PER_CHUNK, n_frames))
            cut = slice(max(block.start - start, 0), block.stop - start)
            parts.append(AlignedBlock(*(values[cut] for values in self._align_whole(whole))))
        if len(parts) == 1:
            return parts[0]
        return AlignedBlock(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _align_whole(self, block: Block) -> AlignedBlock:
        return align_block(
            self.reader.position(block),
            self.reader.confidence(block),
            self.borders(block),
            start=block.start,
            compass=self.compass,
            confidence_threshold=self.settings.confidence_threshold,
            offset=self._offset.get(block.session),
        )


# ------------------------------------------------------------------ keypoints never seen


def _with_offsets(aligner: Aligner, seen: np.ndarray) -> Aligner:
    """Add the offsets of keypoints that some sessions never see; ``seen``: (session, keypoint)."""
    why = _check_seen(aligner, seen)
    pairs = zip(aligner.sessions, seen, strict=True)
    complete = sorted((s for s, row in pairs if row.all()), key=lambda session: session.name)
    patterns = np.unique(~seen[~seen.all(1)], axis=0)
    measure = partial(_offset_sums, aligner, patterns)
    total, count = map_reduce(measure, iter_blocks(complete, FRAMES_PER_CHUNK), _add_pairs)
    which = 0 if count[0] else 1
    mean = total[:, which] / count[which]
    offsets = np.where(patterns[..., None], mean, np.nan)
    by_pattern = {pattern.tobytes(): o for pattern, o in zip(patterns, offsets, strict=True)}
    offset, notes = {}, []
    for session, row in zip(aligner.sessions, seen, strict=True):
        if not row.all():
            offset[session.index] = by_pattern[(~row).tobytes()]
            notes.append(
                f"{session.name}: {why[session.index]}: put at the mean offset from the other "
                "keypoints over the sessions that see all keypoints"
            )
    return replace(aligner, notes=tuple(notes), _offset=offset)


def _with_typical_offsets(aligner: Aligner, seen: np.ndarray, pose: np.ndarray) -> Aligner:
    """Add offsets like :func:`_with_offsets`, from one pose in place of the other sessions."""
    why = _check_seen(aligner, seen, has_typical=True)
    offset, notes = {}, []
    for session, row in zip(aligner.sessions, seen, strict=True):
        if row.all():
            continue
        heading = heading_of(pose[None], without(aligner.compass, ~row))
        centred = pose - pose[row].mean(0)
        offset[session.index] = np.where(~row[:, None], rotate(centred[None], -heading)[0], np.nan)
        notes.append(f"{session.name}: {why[session.index]}: put where usual")
    return replace(aligner, notes=tuple(notes), _offset=offset)


def _offset_sums(
    aligner: Aligner, patterns: np.ndarray, block: Block
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of egocentric offsets (pattern, 2, keypoint, space) and numbers of frames (2,).

    The first of the two counts the frames without interpolation, the second all frames.
    """
    position, is_confident = aligner.interpolated(block)
    sums = np.zeros((len(patterns), 2, *position.shape[1:]))
    for pattern, unseen in enumerate(patterns):
        centre = position[:, ~unseen].mean(1, keepdims=True)
        heading = heading_of(position, without(aligner.compass, unseen))
        shifts = rotate(position - centre, -heading)
        sums[pattern] = shifts[is_confident].sum(0), shifts.sum(0)
    return sums, np.array([is_confident.sum(), len(position)])


def _add_pairs(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    return a[0] + b[0], a[1] + b[1]


def _check_seen(aligner: Aligner, seen: np.ndarray, *, has_typical: bool = False) -> dict[int, str]:
    """Say why keypoints count in no frame, by session, and refuse what cannot be aligned.

    Raises
    ------
    InputError
        For all sessions at once.
    """
    threshold = aligner.settings.confidence_threshold
    names = aligner.study.keypoints
    pairs = zip(aligner.sessions, seen, strict=True)
    unseen = {s.index: np.flatnonzero(~row).tolist() for s, row in pairs if not row.all()}
    lacking = [session for session in aligner.sessions if session.index in unseen]
    ratings = thresholds.rate(aligner.reader, lacking)

    def why(index: int, points: Sequence[int]) -> str:
        return thresholds.why_unseen(names, points, ratings[index], threshold)

    lower = thresholds.suggestion((ratings[index], points) for index, points in unseen.items())
    problems = _lost_parts(aligner, seen, why, lower)
    if not problems and not has_typical and not seen.all(1).any():
        first = min(lacking, key=lambda session: session.name)
        example = f"{first.name}: {why(first.index, unseen[first.index])}"
        problems.append(_nowhere_whole(aligner, seen, lower, example))
    if problems:
        raise InputError.of(problems)
    return {index: why(index, points) for index, points in unseen.items()}


def _lost_parts(
    aligner: Aligner, seen: np.ndarray, why: Callable[[int, Sequence[int]], str], lower: str
) -> list[Problem]:
    """Sessions without any keypoint, or without those of one end of the animal."""
    names = np.asarray(aligner.study.keypoints)
    parts: list[tuple[str, Sequence[int]]] = [("any keypoint", range(len(names)))]
    parts += [
        (f"the {side} keypoints ({', '.join(names[list(points)])})", points)
        for side, points in aligner.compass._asdict().items()
        if points
    ]
    threshold = aligner.settings.confidence_threshold
    problems = []
    for session, row in zip(aligner.sessions, seen, strict=True):
        lost = [(part, points) for part, points in parts if not row[list(points)].any()][:1]
        for part, points in lost:
            found = why(session.index, list(points))
            leave = "leave the session out of the store, or choose keypoints that all sessions see"
            is_low = "are below" in found
            problems.append(
                Problem(
                    f"a sighting of {part} in some frame"
                    + (f", with a confidence of {threshold:g} or more" if is_low else ""),
                    found if is_low else f"none: {found}",
                    f"session {session.name}",
                    f"{thresholds.advice(lower)}; else {leave}" if is_low else leave,
                )
            )
    return problems


def _nowhere_whole(aligner: Aligner, seen: np.ndarray, lower: str, example: str) -> Problem:
    """Make the error for a study in which no session shows how its keypoints lie to each other."""
    names = np.asarray(aligner.study.keypoints)
    gone = ", ".join(names[~seen.all(0)])
    kept = option("keypoints", names[seen.all(0)].tolist() or ["NAMES"])
    fix = (
        f"make the store with the keypoints that all sessions see: {kept} "
        "(or fit with the same ones as `use_keypoints=`)"
    )
    found = f"none; {gone} missing altogether from one session or more"
    if lower:
        found = f"none (for example {example})"
        fix = f"{thresholds.advice(lower)}; else {fix}"
    return Problem(
        "at least one session in which every keypoint is seen",
        found,
        f"all {len(seen)} sessions",
        fix,
    )
