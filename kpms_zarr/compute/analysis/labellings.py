"""Labels to be compared: those of a published model, and those of files of other packages."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.model.models import at_present_rates, labels_path


class PublishedLabels:
    """Labels of a published model; travels to other processes as the path of the store.

    Parameters
    ----------
    store : path or URL
    model : str
        Name of the model, or ``NAME@v2`` for another version of its labels than the current one.

    Attributes
    ----------
    model, version : str

    Raises
    ------
    InputError
        When there is no such store, model or version.
    """

    def __init__(self, store: StoreLike, model: str) -> None:
        self.model, _, version = model.partition("@")
        self._store = os.fspath(store)
        self._path = labels_path(store, self.model, version or None)
        self.version = self._path.rsplit("/", 1)[1]
        self._arrays: dict[str, Any] = {}
        table = [np.asarray(self._array(name)[:]) for name in ("session", "n_frames", "fps")]
        labelled = [
            Session(str(name), row, int(n_frames), float(fps))
            for row, (name, n_frames, fps) in enumerate(zip(*table, strict=True))
            if n_frames > 0
        ]
        self._sessions = at_present_rates(store, labelled)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Labelled sessions, each with its row as index."""
        return self._sessions

    def syllable(self, row: int, start: int, stop: int) -> np.ndarray:
        """Read labels, (frame,) int16; -1 = none."""
        return np.asarray(self._array("syllable")[row, start:stop])

    def certainty(self, row: int, start: int, stop: int) -> np.ndarray | None:
        """Read certainties, (frame,) float16, NaN = not known; None where none is."""
        array = self._array("certainty")
        return None if array is None else np.asarray(array[row, start:stop])

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = access.open_group(self._store).get(f"{self._path}/{name}")
        return self._arrays[name]
