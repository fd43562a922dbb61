"""The data behind the pages, opened once and shared by all browser windows."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store import access, layout, models
from kpms_zarr.store.access import Session, StoreLike
from kpms_zarr.store.checkpoints import open_progress, unfinished
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study import StudySettings, read_settings


class Study:
    """A store as the pages see it; what is in it is looked up again by :meth:`refresh`.

    Parameters
    ----------
    store : path or URL

    Attributes
    ----------
    sessions : dict of str to Session
        Rows of ``keypoints`` by name.
    models : dict of str to ModelInfo
        Published models.
    unfinished : dict of str to int
        Sweeps committed by fits that run or were interrupted.
    settings : StudySettings
    """

    def __init__(self, store: StoreLike) -> None:
        self.store = store
        self._lock = threading.RLock()
        self._opened: dict[tuple[str, ...], xr.Dataset] = {}
        self.sessions: dict[str, Session] = {}
        self.models: dict[str, models.ModelInfo] = {}
        self.unfinished: dict[str, int] = {}
        self.settings = StudySettings()
        self.refresh()

    def refresh(self) -> bool:
        """Look at the store again; whether anything is new."""
        root = access.open_group(self.store)
        sessions = {session.name: session for session in access.sessions(root)}
        found = {info.name: info for info in models.list_models(root)}
        running = {fit.name: fit.n_sweeps for fit in unfinished(root)}
        settings = read_settings(root)
        with self._lock:
            before = (self.sessions, self.models, self.unfinished, self.settings)
            now = (sessions, found, running, settings)
            if sessions != self.sessions:
                self._opened = {k: v for k, v in self._opened.items() if k[0] != "keypoints"}
            self.sessions, self.models, self.unfinished, self.settings = now
            return before != now

    def version(self, model: str) -> str:
        """The current version of the labels of a model; "" without."""
        info = self.models.get(model)
        return info.current if info else ""

    def n_states(self, model: str) -> int:
        """Number of syllables that a model can have; 0 without labels."""
        if model not in self.models:
            return 0
        labels = self.labels(model)
        return int(labels.sizes.get("state", 0)) or 1 + np.iinfo(np.int16).max

    def keypoints(self) -> xr.Dataset:
        """Tracked data and the table of sessions, lazily."""
        return self._open(("keypoints",), lambda: access.dataset(self.store, layout.KEYPOINTS))

    def labels(self, model: str) -> xr.Dataset:
        """Labels of the current version of a model, lazily."""
        version = self.version(model)
        return self._open(
            ("labels", model, version), lambda: models.open_labels(self.store, model, version)
        )

    def parameters(self, model: str) -> xr.Dataset:
        """Parameters and traces behind those labels."""
        version = self.version(model)
        return self._open(
            ("parameters", model, version),
            lambda: models.open_parameters(self.store, model, version),
        )

    def progress(self, model: str) -> xr.Dataset | None:
        """What a fit that runs or was interrupted has committed; None without."""
        try:
            return open_progress(self.store, model)
        except InputError:
            return None

    def _open(self, key: tuple[str, ...], make: Any) -> xr.Dataset:
        # Versions never change once published, so what was opened stays right.
        with self._lock:
            if key not in self._opened:
                self._opened[key] = make()
            return self._opened[key]
