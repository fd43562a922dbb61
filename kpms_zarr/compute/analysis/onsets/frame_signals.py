"""Signals with a value for each frame: of the animal, of the store, or given as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from kpms_zarr.compute.analysis.tables.bout_stream import speeds, turnings
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.study.signals import StoredSignal, signal_names
from kpms_zarr.store.study.timestamps import StudyTimes
from kpms_zarr.store.wording import listed

SignalLike: TypeAlias = "str | Mapping[str, Any]"
"""``"speed"``, ``"angular_velocity"``, ``"height"``, the name of a signal of the store, or arrays
(frame,) by session."""

_OF_ANIMAL = ("speed", "angular_velocity", "height")


class FrameSignal(Protocol):
    """A signal.

    Attributes
    ----------
    name, units : str
    """

    name: str
    units: str

    def has(self, session: Session) -> bool:
        """Whether there are values of a session."""
        ...

    def read(self, session: Session, start: int, stop: int) -> np.ndarray:
        """Read the values of some frames, (frame,) float64; NaN = missing."""
        ...


def frame_signal(store: StoreLike, labels: PosedLabels, signal: SignalLike) -> FrameSignal:
    """Find a signal.

    Parameters
    ----------
    store : path or URL
    labels : PosedLabels
    signal : str or mapping of str to array

    Raises
    ------
    InputError
        For a signal that is not there, or arrays that do not fit their sessions.
    """
    if not isinstance(signal, str):
        return _Given(signal, labels)
    if signal in _OF_ANIMAL:
        return _OfAnimal(signal, labels, StudyTimes(store))
    names = signal_names(store)
    if signal not in names:
        raise InputError(
            expected=f"one of the signals {', '.join((*_OF_ANIMAL, *names))}",
            found=repr(signal),
            where="`signal=`",
            fix="choose one of these, or add one: `kpms_zarr.signals(STORE, 'FILE.csv')`",
        )
    return StoredSignal(store, signal)


def signals_of(store: StoreLike, labels: PosedLabels) -> tuple[str, ...]:
    """Names of the signals that labels can be averaged around: of the animal, and of the store."""
    of_animal = (name for name in _OF_ANIMAL if not _lacks(name, labels))
    return (*of_animal, *(name for name in signal_names(store) if name not in _OF_ANIMAL))


def _lacks(name: str, labels: PosedLabels) -> bool:
    """Whether a signal of the animal does not follow from the labels."""
    return {
        "speed": not labels.space,
        "angular_velocity": not labels.has_heading,
        "height": len(labels.space) < 3,
    }[name]


class _OfAnimal:
    """Speed, angular velocity or height of the animal, as the model has it."""

    def __init__(self, name: str, labels: PosedLabels, times: StudyTimes) -> None:
        if _lacks(name, labels):
            raise InputError(
                expected=f"labels from which the {name.replace('_', ' ')} follows",
                found="a version without heading"
                if name == "angular_velocity"
                else f"positions in {len(labels.space)} dimensions"
                if labels.space
                else "a version without positions",
                where=f"model {labels.model!r}",
                fix="choose another signal with `signal=`",
            )
        self.name, self._labels, self._times = name, labels, times
        position = "units of position"
        self.units = {"speed": f"{position} / s", "angular_velocity": "rad / s"}.get(name, position)

    def has(self, session: Session) -> bool:
        return True

    def read(self, session: Session, start: int, stop: int) -> np.ndarray:
        labels, row = self._labels, session.index
        if self.name == "height":
            return labels.by_frame("centroid", row, start, stop)[:, 2].astype(np.float64)
        times = self._times.of(session)
        if self.name == "speed":
            speed = speeds(labels, row, times, start, stop)[1]
            assert speed is not None
            return speed
        turning = turnings(labels, row, start, stop)[1]
        assert turning is not None
        steps = times.steps(start, stop)
        return turning * times.fps / (1.0 if steps is None else steps)


class _Given:
    """Arrays by session."""

    def __init__(self, arrays: Mapping[str, Any], labels: PosedLabels) -> None:
        self.name, self.units = "signal", ""
        self._arrays = {str(name): values for name, values in arrays.items()}
        lengths = {session.name: session.n_frames for session in labels.sessions}
        unknown = [name for name in self._arrays if name not in lengths]
        problems = []
        if unknown or not self._arrays:
            problems.append(
                Problem(
                    f"arrays of labelled sessions, such as {next(iter(lengths), '-')!r}",
                    listed(map(repr, unknown)) or "none",
                    "`signal=`",
                    "give the sessions their names in the store",
                )
            )
        for name in self._arrays.keys() - set(unknown):
            shape = np.shape(self._arrays[name])
            if shape != (lengths[name],):
                problems.append(
                    Problem(
                        f"a value for each of the {lengths[name]:,} frames of session {name}",
                        f"an array of shape {shape}",
                        "`signal=`",
                        "give an array (frame,), NaN where there is no value",
                    )
                )
        if problems:
            raise InputError.of(problems)

    def has(self, session: Session) -> bool:
        return session.name in self._arrays

    def read(self, session: Session, start: int, stop: int) -> np.ndarray:
        return np.array(self._arrays[session.name][start:stop], np.float64)


def read_in_blocks(
    signal: FrameSignal, session: Session, start: int, stop: int, block_frames: int
) -> np.ndarray:
    """Read the values of some frames, so many at once; what is not finite becomes NaN."""

    def parts() -> Iterator[np.ndarray]:
        for first in range(start, stop, block_frames):
            yield signal.read(session, first, min(first + block_frames, stop))

    values = np.concatenate(list(parts()))
    values[~np.isfinite(values)] = np.nan
    return values
