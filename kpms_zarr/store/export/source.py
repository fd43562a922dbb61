"""A published model as exports read it: its sessions one by one, their frames by blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK, variable
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.missing import without_missing
from kpms_zarr.store.model import models
from kpms_zarr.store.model.reconstruction import place_pose
from kpms_zarr.store.model.syllable_names import SyllableNames, read_names
from kpms_zarr.store.run_lengths import run_bounds
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.study.timestamps import SessionTimes, StudyTimes
from kpms_zarr.store.wording import counted, listed

_FRAMES = LABEL_FRAMES_PER_CHUNK


@dataclass(frozen=True)
class ExportedSession:
    """One labelled session.

    Attributes
    ----------
    name : str
    row : int
        Along the session dimension of the labels.
    index : int or None
        Along that of the tracked keypoints; None = no longer there.
    n_frames : int
    fps : float
        Frames per second.
    times : SessionTimes
        Of its frames: its timestamps, or frame / fps.
    about : mapping of str to str or float
        Coordinates of the session in the store that are known: ``video``, ``individual``, ...
    """

    name: str
    row: int
    index: int | None
    n_frames: int
    fps: float
    times: SessionTimes
    about: Mapping[str, Any] = field(default_factory=dict)

    def text(self, *names: str) -> str:
        """The first of some coordinates that is known, as text; "" without any."""
        return next((str(self.about[name]) for name in names if name in self.about), "")


@dataclass(frozen=True)
class _PoseParameters:
    """Parameters by which latent poses become positions."""

    keypoints: tuple[str, ...]
    loading: np.ndarray
    mean: np.ndarray


class ExportSource:
    """One version of the labels of a model, and the tracking that they are of.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).
    sessions : sequence of str, optional
        Names, patterns or ``coordinate=value`` (default: all that have labels).
    units : str, optional
        Of positions (default: as :data:`schema.KEYPOINTS` says).

    Attributes
    ----------
    sessions : tuple of ExportedSession
    names : SyllableNames
    settings : StudySettings
    notes : list of str

    Raises
    ------
    InputError
        For no such store, model, version or session.
    """

    def __init__(
        self,
        store: StoreLike,
        model: str,
        *,
        version: str | None = None,
        sessions: Sequence[str] | None = None,
        units: str | None = None,
    ) -> None:
        self.store, self.model = store, model
        path = models.labels_path(store, model, version)
        self.version = path.rsplit("/", 1)[1]
        root = access.open_group(store)
        self._labels: Any = access.subgroup(root, path)
        self._tracked: Any = access.keypoints_group(root)
        self.names: SyllableNames = read_names(store, model, self.version)
        self.settings: StudySettings = read_settings(root)
        self.units = units or variable("keypoints", "position").units
        self.notes: list[str] = []
        self.sessions = self._found(root, sessions)
        exported = [access.Session(s.name, s.row, s.n_frames, s.fps) for s in self.sessions]
        self.notes += self._study_times.notes(exported)

    def _found(
        self, root: access.Group, wanted: Sequence[str] | None
    ) -> tuple[ExportedSession, ...]:
        known = {one.name: one for one in access.sessions(root)}
        about = self._about(len(known))
        names = [str(name) for name in np.asarray(self._labels["session"][:])]
        lengths = np.asarray(self._labels["n_frames"][:])
        found, times = {}, StudyTimes(root)
        for row, name in enumerate(names):
            one = known.get(name)
            n_frames = int(lengths[row])
            index = None if one is None or one.n_frames != n_frames else one.index
            fps = float(self._labels["fps"][row]) if one is None else one.fps
            more = about.get(index, {}) if index is not None else {}
            of = times.of(access.Session(name, row, n_frames, fps))
            found[name] = ExportedSession(name, row, index, n_frames, fps, of, more)
        self._study_times = times
        if wanted is None:
            return tuple(found.values())
        chosen = [one.name for one in select_sessions(self.store, wanted)]
        without = [name for name in chosen if name not in found]
        if not set(chosen) & set(found):
            raise InputError(
                expected=f"sessions that the model {self.model!r} has labelled",
                found=listed(map(repr, without)),
                where="`sessions=`",
                fix="label them first, with `kpms_zarr.apply`",
            )
        if without:
            self.notes.append(f"without labels, left out: {listed(without)}")
        return tuple(one for name, one in found.items() if name in chosen)

    def _about(self, n_sessions: int) -> dict[int, dict[str, Any]]:
        """What is known of each session of the store, by its index."""
        if self._tracked is None or not n_sessions:
            return {}
        n_rows = self._tracked["n_frames"].shape[0]
        found: dict[int, dict[str, Any]] = {row: {} for row in range(n_rows)}
        for name, array in access.arrays_below(self._tracked):
            if array.shape != (n_rows,) or name in ("session", "n_frames", "fps", "ingest"):
                continue
            for row, value in enumerate(np.asarray(array[:])):
                is_text = isinstance(value, str) or array.dtype.kind in "TOU"
                if (is_text and str(value)) or (not is_text and value == value):
                    found[row][name] = str(value) if is_text else value.item()
        return found

    # -------------------------------------------------------------- frames

    def has(self, name: str) -> bool:
        """Whether the version has a variable of the labels."""
        return name in self._labels

    def require(self, *names: str) -> None:
        """Refuse a version that lacks some variable (InputError)."""
        lacking = [name for name in names if not self.has(name)]
        if lacking:
            raise InputError(
                expected=f"labels with {listed(lacking)}",
                found="a version that has syllables only",
                where=f"{self.store}, model {self.model!r}",
                fix="export another model, or to csv, which needs syllables alone",
            )

    def blocks(self, session: ExportedSession) -> Iterator[slice]:
        """Stretches of frames of a session, in order."""
        for start in range(0, session.n_frames, _FRAMES):
            yield slice(start, min(start + _FRAMES, session.n_frames))

    def read(self, name: str, session: ExportedSession, frames: slice) -> np.ndarray:
        """Read some frames of a variable of the labels, (frame, ...)."""
        return regions.read(self._labels[name], Block(session.row, frames.start, frames.stop))

    def length_of(self, name: str) -> int:
        """Length of the last dimension of a variable of the labels."""
        return int(self._labels[name].shape[-1])

    def tracked(
        self, session: ExportedSession, frames: slice
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Tracked keypoints of some frames; None for a session that has left the store.

        Returns
        -------
        position : ndarray, (frame, keypoint, space) float32
            NaN = missing.
        confidence : ndarray, (frame, keypoint) float32
            NaN = not given.
        """
        if session.index is None or self._tracked is None:
            return None
        block = Block(session.index, frames.start, frames.stop)
        position = regions.read(self._tracked["position"], block)
        if "confidence" in self._tracked:
            confidence = regions.read(self._tracked["confidence"], block)
        else:
            confidence = np.full(position.shape[:-1], np.nan, np.float32)
        return without_missing(position, confidence), confidence

    @cached_property
    def decoder(self) -> _PoseParameters | None:
        """Parameters behind denoised positions; None for a model of labels alone."""
        if not all(self.has(name) for name in ("latent", "centroid", "heading")):
            return None
        try:
            found = models.open_parameters(self.store, self.model, self.version)
        except (KeyError, FileNotFoundError):
            return None
        loading = found["pose_loading"].transpose("latent_dim", "keypoint", "space").values
        mean = found["pose_mean"].transpose("keypoint", "space").values
        return _PoseParameters(tuple(str(one) for one in found["keypoint"].values), loading, mean)

    def denoised(self, session: ExportedSession, frames: slice) -> np.ndarray:
        """Denoised keypoints of the model, (frame, keypoint, space) float32.

        As :func:`kpms_zarr.reconstruct` places them.
        """
        assert self.decoder is not None
        scale = float(self._labels["scale"][session.row]) if self.has("scale") else 1.0
        latent, centroid, heading = (
            self.read(name, session, frames) for name in ("latent", "centroid", "heading")
        )
        return place_pose(
            latent, centroid, heading, scale, loading=self.decoder.loading, mean=self.decoder.mean
        )

    # -------------------------------------------------------------- labels

    def first_labelled(self, session: ExportedSession) -> int:
        """The first frame with a label; ``n_frames`` without any."""
        for frames in self.blocks(session):
            is_labelled = self.read("syllable", session, frames) >= 0
            if is_labelled.any():
                return frames.start + int(is_labelled.argmax())
        return session.n_frames

    def bouts(self, session: ExportedSession) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Runs of one label, without frames that have none.

        Returns
        -------
        syllable, start, stop : ndarray, (bout,) int64
            Frames ``start`` to ``stop - 1`` have the syllable.
        """
        parts: list[np.ndarray] = []
        for frames in self.blocks(session):
            labels = self.read("syllable", session, frames).astype(np.int64)
            start, stop = run_bounds(labels)
            if not len(start):
                continue
            part = np.stack([labels[start], start + frames.start, stop + frames.start])
            if parts and parts[-1][0, -1] == part[0, 0]:  # goes on from the block before
                part[1, 0] = parts[-1][1, -1]
                parts[-1] = parts[-1][:, :-1]
            parts.append(part)
        every = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
        syllable, start, stop = every[:, every[0] >= 0]
        return syllable, start, stop

    def facts(self) -> dict[str, str]:
        """What every file says of where it is from."""
        from kpms_zarr.store.core.provenance import package_version

        return {
            "source_software": "kpms_zarr",
            "source_software_version": package_version(),
            "model": self.model,
            "labels_version": self.version,
            "position_units": self.units,
        }

    def note_unlabelled(self, session: ExportedSession, n_frames: int, what: str) -> None:
        """Note frames that have no label."""
        if n_frames:
            self.notes.append(
                f"{session.name}: {counted(n_frames, 'frame')} without a label {what}"
            )
