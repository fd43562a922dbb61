"""Data behind the views of single syllables: typical poses, example bouts, groups, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.model.replicability import Replicability
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.grouping import groups_of
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.skeletons import bones
from kpms_zarr.viz.syllables.examples import Example, PoseReader, examples_in

BEFORE, AFTER = 0.5, 1.5
"""Seconds around the onset of example bouts that lie inside the session."""

MOMENTS = 6
"""Skeletons of a picture of a bout."""

_PER_SYLLABLE = 40
_FOR_TRAJECTORY = 20
_FEW = 3
_SHORTEST = 0.1


@dataclass(frozen=True)
class Trajectory:
    """Poses at some moments after the onset of bouts, seen from the animal at the onset.

    Attributes
    ----------
    seconds : ndarray, (moment,)
        After the onset.
    pose : ndarray, (moment, keypoint, space)
        In units of position; the centroid at the onset is 0, the heading then points along the
        first axis.
    n_examples : int
        Bouts behind it; 0 = there are none, and ``pose`` is NaN.
    bones : tuple of (int, int)
        Rows of ``keypoints``.
    front : tuple of int
        Rows of the keypoints at the front of the animal.
    """

    syllable: int
    seconds: np.ndarray
    pose: np.ndarray
    n_examples: int
    keypoints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    front: tuple[int, ...]

    @property
    def is_3d(self) -> bool:
        """Whether there is a third axis."""
        return self.pose.shape[-1] > 2


class Gallery:
    """Example bouts of the syllables of a model, found once and read when they are looked at.

    Attributes
    ----------
    labels : Dataset
        With statistics.
    used : tuple of int
        Syllables in use, most frequent first.

    Raises
    ------
    MissingData
        When the version has no statistics.
    """

    def __init__(self, opened: OpenModel) -> None:
        self._opened = opened
        self.labels = opened.labels_with("frequency", "n_bouts", "median_duration")
        self.used = opened.used
        self._rare: dict[int, tuple[Example, ...]] = {}
        self._trajectories: dict[int, Trajectory] = {}

    @property
    def replicability(self) -> Replicability:
        """How far the syllables replicate, as far as that was measured."""
        return self._opened.replicability

    @cached_property
    def reader(self) -> PoseReader:
        """Reader of the poses around bouts."""
        return PoseReader(self._opened)

    @cached_property
    def _found(self) -> dict[int, tuple[Example, ...]]:
        return self._examples(self.used)

    def _examples(self, syllables: Sequence[int]) -> dict[int, tuple[Example, ...]]:
        return examples_in(
            self.labels,
            syllables=syllables,
            per_syllable=_PER_SYLLABLE,
            before=BEFORE,
            after=AFTER,
        )

    def examples(self, syllable: int) -> tuple[Example, ...]:
        """At most 40 bouts of a syllable, spread over the sessions."""
        if syllable in self.used:
            return self._found[syllable]
        if syllable not in self._rare:
            self._rare[syllable] = self._examples([syllable])[syllable]
        return self._rare[syllable]

    def trajectory(self, syllable: int) -> Trajectory:
        """Typical poses of a syllable: of each coordinate the median over example bouts.

        From the onset to the median duration of the syllable, 0.1 to 1.5 s; bouts that last at
        least as long, where there are some.
        """
        if syllable not in self._trajectories:
            median = float(self.labels["median_duration"][syllable]) / 1000
            length = float(np.clip(median if np.isfinite(median) else BEFORE, _SHORTEST, AFTER))
            every = self.examples(syllable)
            lasting = [example for example in every if example.seconds >= length - 1e-9]
            chosen = (lasting if len(lasting) >= _FEW else every)[:_FOR_TRAJECTORY]
            seconds = np.linspace(0, length, MOMENTS)
            self._trajectories[syllable] = self._of(syllable, seconds, chosen)
        return self._trajectories[syllable]

    def snapshots(self, syllable: int, max_examples: int = 8) -> list[tuple[Example, Trajectory]]:
        """Example bouts with their poses from the onset to the end, at most 1.5 s after it."""
        chosen = self.examples(syllable)[:max_examples]
        ends = np.array([min(example.seconds, AFTER) for example in chosen])
        seconds = np.linspace(0, ends, MOMENTS, axis=-1)
        poses = self.reader.sampled(chosen, seconds.reshape(len(chosen), MOMENTS))
        return [
            (example, self._drawn(syllable, times, pose, 1))
            for example, times, pose in zip(chosen, seconds, poses, strict=True)
        ]

    def _of(self, syllable: int, seconds: np.ndarray, examples: Sequence[Example]) -> Trajectory:
        if not examples:
            shape = (len(seconds), *self.reader.pose.mean.shape)
            return self._drawn(syllable, seconds, np.full(shape, np.nan), 0)
        # Windows lie inside their sessions, so that there is no NaN.
        pose = np.median(self.reader.sampled(examples, seconds), axis=0)
        return self._drawn(syllable, seconds, pose, len(examples))

    def _drawn(self, syllable: int, seconds: np.ndarray, pose: np.ndarray, n: int) -> Trajectory:
        names, settings = self.reader.pose.keypoints, self._opened.settings
        front = tuple(names.index(name) for name in settings.anterior if name in names)
        joined = tuple(bones(settings.skeleton, names))
        return Trajectory(syllable, seconds, pose, n, names, joined, front)


def session_frames(labels: xr.Dataset, *, block_frames: int = LABEL_FRAMES_PER_CHUNK) -> np.ndarray:
    """Frames of each syllable in each session, in one pass over the blocks that exist.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame) and ``frequency`` (state).
    block_frames : int
        Frames read at once; the result does not depend on it.

    Returns
    -------
    ndarray, (session, state) int64
        Frames without a syllable are not counted.
    """
    n_states = labels.sizes["state"]
    frames = np.zeros((labels.sizes["session"], n_states), dtype=np.int64)
    blocks = iter_blocks(reading.label_sessions(labels), block_frames)
    for block, syllable in reading.label_blocks(labels, blocks):
        of_label = np.bincount(syllable.astype(np.int64) + 1, minlength=n_states + 1)
        frames[block.session] += of_label[1:]
    return frames


def frequency_by_group(
    opened: OpenModel,
    *,
    syllable: int,
    coordinate: str = "",
    frames: np.ndarray | None = None,
) -> xr.Dataset:
    """Share of the labelled frames that a syllable has in each session, and the group of each.

    The parameters are those of :func:`~kpms_zarr.viz.syllables.views.frequency`.

    Returns
    -------
    Dataset
        ``share`` (%) and ``group`` (str) by ``session``; sessions without labelled frames are
        left out.

    Raises
    ------
    InputError
        For a model or a coordinate that does not exist.
    """
    if frames is None:
        frames = session_frames(opened.labels_with("frequency"))
    names = [str(name) for name in opened.labels["session"].values]
    total = frames.sum(1)
    share = 100 * frames[:, syllable] / np.maximum(total, 1)
    groups = groups_of(names, opened.tracked, coordinate)
    found = xr.Dataset(
        {
            "share": ("session", share, {"units": "%", "long_name": "share of the frames"}),
            "group": ("session", np.asarray(groups, dtype=object)),
        },
        coords={"session": names},
        attrs={"syllable": syllable, "coordinate": coordinate},
    )
    return found.isel(session=np.flatnonzero(total > 0))
