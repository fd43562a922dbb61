"""Denoised poses in windows around onsets, seen from the animal at the onset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.store.model.reconstruction import place_pose
from kpms_zarr.store.rotation import rotate

_WINDOWS_AT_ONCE = 2048


class TimeGrid:
    """Times around an onset, and the frames of a session that they lie between.

    Parameters
    ----------
    before, after : float
        In s around the onset, 0 or more.
    rates : sequence of float
        Frames per second of the sessions; the commonest one is that of the times.

    Attributes
    ----------
    times : ndarray, (time,) float64
        In s after the onset, which is one of them.
    """

    def __init__(self, before: float, after: float, rates: Sequence[float]) -> None:
        values, number = np.unique(np.asarray(rates, np.float64), return_counts=True)
        self.rate = float(values[number.argmax()])
        first, last = round(before * self.rate), round(after * self.rate)
        self.times = np.arange(-first, last + 1) / self.rate

    def margins(self, fps: float) -> tuple[int, int]:
        """Frames before and after the onset that the times of a session take."""
        at = self.times * fps
        return int(np.ceil(-at[0] - 1e-6)), int(np.ceil(at[-1] - 1e-6))

    def resample(self, values: np.ndarray, fps: float, axis: int) -> np.ndarray:
        """Values at the times, by linear interpolation between the frames of the margins."""
        before, after = self.margins(fps)
        if fps == self.rate:
            return values
        at = np.clip(self.times * fps + before, 0, before + after)
        first = np.clip(np.floor(at).astype(int), 0, max(0, before + after - 1))
        second = np.minimum(first + 1, before + after)
        shape = [1] * values.ndim
        shape[axis] = len(at)
        part = (at - first).reshape(shape)
        left, right = values.take(first, axis), values.take(second, axis)
        return np.asarray(np.where(part > 0, left + part * (right - left), left))


class PosedWindows:
    """Reader of denoised poses around onsets.

    Parameters
    ----------
    store : path or URL
    labels : PosedLabels

    Attributes
    ----------
    keypoints, space : tuple of str
    common_scale : float
        Median scale of the sessions: animals or cameras of different size are brought to it.

    Raises
    ------
    InputError
        When the version has no poses.
    """

    def __init__(self, store: StoreLike, labels: PosedLabels) -> None:
        self._labels = labels
        try:
            parameters = open_parameters(store, labels.model, labels.version)
        except (KeyError, FileNotFoundError):
            parameters = None
        missing = [name for name in ("latent", "centroid", "heading") if not labels.has(name)]
        if parameters is not None:
            missing += [n for n in ("pose_loading", "pose_mean", "keypoint") if n not in parameters]
        if parameters is None or missing:
            raise InputError(
                expected="denoised poses: latent, centroid and heading by frame, and pose_loading",
                found=f"labels without {', '.join(missing or ['parameters'])}",
                where=f"{store}, model {labels.model!r}",
                fix="fit a model with this release, which stores them; imported labels have none",
            )
        assert parameters is not None
        self.keypoints = tuple(map(str, parameters["keypoint"].values))
        self.space = labels.space
        order = ("latent_dim", "keypoint", "space")
        self._loading = parameters["pose_loading"].transpose(*order).values
        self._mean = parameters["pose_mean"].transpose(*order[1:]).values
        n = 1 + max(session.index for session in labels.sessions)
        scale = labels.column("scale")
        self._scale = np.ones(n) if scale is None else scale
        self.common_scale = float(np.median([self._scale[s.index] for s in labels.sessions]))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of keypoints and of axes."""
        return self._mean.shape[0], self._mean.shape[1]

    def read(
        self, row: int, onset: np.ndarray, before: int, after: int
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Read the windows of some onsets of a session, each chunk of frames once.

        Parameters
        ----------
        row : int
            Of the session in the labels.
        onset : ndarray, (window,) int64
            Ascending; windows lie in the session.
        before, after : int
            In frames.

        Yields
        ------
        slice, ndarray (window, frame, keypoint, space) float32
            Windows, and their poses: the centroid at the onset is 0, the heading then points along
            the first axis.
        """
        chunk = onset // FRAMES_PER_CHUNK
        edges = np.append(np.flatnonzero(np.diff(chunk, prepend=-1)), len(onset))
        for first, last in pairwise(edges.tolist()):
            low, high = int(onset[first]) - before, int(onset[last - 1]) + after + 1
            latent, centroid, heading = (
                self._labels.by_frame(name, row, low, high)
                for name in ("latent", "centroid", "heading")
            )
            for start in range(first, last, _WINDOWS_AT_ONCE):
                part = slice(start, min(start + _WINDOWS_AT_ONCE, last))
                frame = onset[part, None] - low + np.arange(-before, after + 1)
                yield (
                    part,
                    self._aligned(row, latent[frame], centroid[frame], heading[frame], before),
                )

    def _aligned(
        self, row: int, latent: np.ndarray, centroid: np.ndarray, heading: np.ndarray, at: int
    ) -> np.ndarray:
        """Poses of windows (window, frame, ...) seen from the animal in frame ``at`` of each."""
        heading, scale = heading.astype(np.float64), float(self._scale[row])
        angle = heading[:, at]
        way = centroid.astype(np.float64)
        turned = rotate(way - way[:, at, None], -angle)
        pose = place_pose(
            latent, turned, heading - angle[:, None], scale, loading=self._loading, mean=self._mean
        )
        return np.asarray(pose * np.float32(self.common_scale / scale))
