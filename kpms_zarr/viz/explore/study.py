"""The data behind the pages, opened once and shared by all browser windows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.locking import is_fitted_now
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.annotate import table_stamp
from kpms_zarr.store.model import models
from kpms_zarr.store.model.checkpoints import open_progress, pulse, unfinished
from kpms_zarr.store.model.syllable_names import SyllableNames, read_names
from kpms_zarr.store.study.changepoints import changepoints_path, current_changepoints
from kpms_zarr.store.study.epochs import SessionEpochs, current_epochs, stored_epochs
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.study.signals import holding_versions, signal_names
from kpms_zarr.store.study.timestamps import StudyTimes, versions_in_force
from kpms_zarr.viz.shared.bands import EpochBand, epoch_bands, epoch_colors
from kpms_zarr.viz.shared.grouping import said_of_sessions
from kpms_zarr.viz.shared.guessing import drawn_settings
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.times import PLAIN, SessionClock, session_clock

_LOG = logging.getLogger(__name__)
_MADE = (layout.QUALITY, layout.CALIBRATION, layout.PCA)
_GLANCE_SECONDS = (1.5, 4.0)
"""Between two looks at the fits alone, on a disk and elsewhere."""
_REFRESH_SECONDS = (10.0, 30.0)
"""Between two looks at everything, while the fits show nothing new."""


class Study:
    """A store as the pages see it; what is in it is looked up again by :meth:`refresh`.

    Attributes
    ----------
    sessions : dict of str to Session
        Rows of ``keypoints`` by name.
    models : dict of str to ModelInfo
        Published models.
    unfinished : dict of str to int
        Sweeps committed by fits that run or were interrupted.
    running : frozenset of str
        Models that a process is fitting now.
    signals : dict of str to tuple of str
        Versions that hold, by name of the signal.
    timestamps : tuple of str
        Versions that hold.
    table : str
        Stamp of what is known of the sessions; another one after ``annotate``.
    revision : int
        Goes up whenever something new was found.
    """

    def __init__(self, store: StoreLike) -> None:
        self.store = store
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._pulse: Any = None
        self._glanced = self._refreshed = 0.0
        self._opened: dict[tuple[str, ...], xr.Dataset] = {}
        self.sessions: dict[str, Session] = {}
        self.models: dict[str, models.ModelInfo] = {}
        self.unfinished: dict[str, int] = {}
        self.running: frozenset[str] = frozenset()
        self.settings = StudySettings()
        self._made: dict[str, str] = {}
        self._epochs = ""
        self.signals: dict[str, tuple[str, ...]] = {}
        self.timestamps: tuple[str, ...] = ()
        self.table = ""
        self._models_open: dict[tuple[str, str], OpenModel] = {}
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._making: dict[tuple[Any, ...], threading.Lock] = {}
        self.revision = 0
        self._root = access.open_group(store)
        self.refresh()

    def refresh(self) -> bool:
        """Look at the store again; return whether anything is new."""
        root = access.open_group(self.store)
        sessions = {session.name: session for session in access.sessions(root)}
        found = {info.name: info for info in models.list_models(root)}
        begun = {fit.name: fit.n_sweeps for fit in unfinished(root)}
        running = self._running(begun)
        settings = drawn_settings(self.store, root)
        made = {name: access.made(root, name) for name in _MADE}
        made[layout.CHANGEPOINTS] = current_changepoints(root)
        renamed = self._renamed(found)
        epochs, times, table = current_epochs(root), versions_in_force(root), table_stamp(root)
        signals = {name: tuple(holding_versions(root, name)) for name in signal_names(root)}
        with self._lock:
            before = (
                *(self.sessions, self.models, self.unfinished, self.running, self.settings),
                *(self._made, self._epochs, self.timestamps, self.table, self.signals),
            )
            now = (
                sessions, found, begun, running, settings, made, epochs, times, table, signals
            )  # fmt: skip
            if (sessions, settings, table) != (self.sessions, self.settings, self.table):
                self._opened = {k: v for k, v in self._opened.items() if k[0] != "keypoints"}
                self._models_open = {}
            self.sessions, self.models, self.unfinished, self.running, self.settings = now[:5]
            self._made, self._epochs, self.timestamps, self.table, self.signals = now[5:]
            self._root, self._refreshed = root, time.monotonic()
            is_new = before != now or bool(renamed)
            self._models_open |= renamed
            self.revision += is_new
            return is_new

    def poll(self) -> None:
        """Begin to look for something new, unless that was done just now; nobody waits for it.

        Mostly at the fits alone, with few small requests, so that commits are seen soon.
        """
        if time.monotonic() - self._glanced < _GLANCE_SECONDS[access.is_remote(self.store)]:
            return
        if self._looking.acquire(blocking=False):
            threading.Thread(target=self._poll, name="poll", daemon=True).start()

    def _poll(self) -> None:
        try:
            now, begun = pulse(self._root), self._running(self.unfinished)
            age = time.monotonic() - self._refreshed
            is_old = age > _REFRESH_SECONDS[access.is_remote(self.store)]
            if is_old or now != self._pulse or begun != self.running:
                self.refresh()
            self._pulse = now
        except Exception as error:  # storage that is away: what was found before stays
            _LOG.warning("the store cannot be looked at now: %s", error)
        finally:
            self._glanced = time.monotonic()
            self._looking.release()

    def _running(self, begun: Iterable[str]) -> frozenset[str]:
        return frozenset(n for n in begun if is_fitted_now(self._root, self.store, n))

    def version(self, model: str) -> str:
        """The current version of the labels of a model; "" without."""
        info = self.models.get(model)
        return info.current if info else ""

    def n_states(self, model: str) -> int:
        """Number of syllables that a model can have; 0 without labels."""
        if model not in self.models:
            return 0
        labels = self.opened(model).labels
        return int(labels.sizes.get("state", 0)) or 1 + np.iinfo(np.int16).max

    def shares(self, model: str) -> dict[int, float]:
        """Share of the frames of each syllable of a model; empty where that was not counted."""

        def count() -> dict[int, float]:
            labels = self.opened(model).labels
            if "frequency" not in labels:
                return {}
            return dict(enumerate(np.nan_to_num(labels["frequency"].values).tolist()))

        found: dict[int, float] = self.remember(("shares", model, self.version(model)), count)
        return found

    def keypoints(self) -> xr.Dataset:
        """Tracked data and the table of sessions, lazily."""
        return self._open(("keypoints",), lambda: access.dataset(self.store, layout.KEYPOINTS))

    def epochs_version(self) -> str:
        """The version of the epochs that holds; "" = the store has none."""
        return self._epochs

    def _epochs_of_all(self) -> dict[str, SessionEpochs]:
        version = self._epochs
        if not version:
            return {}
        found: dict[str, SessionEpochs] = self.remember(
            ("epochs", version), lambda: stored_epochs(self._root)[1]
        )
        return found

    def epoch_bands(self, session: str) -> tuple[EpochBand, ...]:
        """Epochs of a session, for drawing; none where it has none."""
        row = self.sessions.get(session)
        return () if row is None else epoch_bands(self._epochs_of_all(), row)

    def epoch_colors(self) -> dict[str, str]:
        """Colours of conditions of epochs; empty where there are no epochs."""
        return epoch_colors(self._epochs_of_all())

    def quality(self) -> xr.Dataset | None:
        """Quality of the tracking, in memory; None when it was not counted yet."""
        return self._made_once(layout.QUALITY)

    def calibration(self) -> xr.Dataset | None:
        """Noise calibration, in memory; None without."""
        return self._made_once(layout.CALIBRATION)

    def pca(self) -> xr.Dataset | None:
        """Principal components of the pose, in memory; None without."""
        return self._made_once(layout.PCA)

    def changepoints(self) -> xr.Dataset | None:
        """Change points, lazily; None without."""
        made = self._made.get(layout.CHANGEPOINTS, "")
        if not made:
            return None
        return self._open(
            (layout.CHANGEPOINTS, made),
            lambda: access.dataset(self.store, changepoints_path(made)),
        )

    def clock(self, session: str) -> SessionClock:
        """SessionClock of a session: by its timestamps where it has some that can be read."""
        row = self.sessions.get(session)
        if row is None or not self.timestamps:
            return PLAIN

        def make() -> SessionClock:
            try:
                return session_clock(StudyTimes(self._root).of(row))
            except Exception as error:
                _LOG.warning("the timestamps of %s cannot be read: %s", row.name, error)
                return PLAIN

        found: SessionClock = self.remember(("clock", row, self.timestamps), make)
        return found

    def said_of_sessions(self) -> dict[str, str]:
        """What people said of each session, such as its group, in a line."""
        key = ("said", self.table, tuple(self.sessions))
        found: dict[str, str] = self.remember(key, lambda: said_of_sessions(self.keypoints()))
        return found

    def _made_once(self, group: str) -> xr.Dataset | None:
        made = self._made.get(group, "")
        if not made:
            return None
        return self._open((group, made), lambda: access.dataset(self.store, group).load())

    def opened(self, model: str) -> OpenModel:
        """The current version of a model, open."""
        key = (model, self.version(model))
        with self._lock:
            if key not in self._models_open:
                self._models_open[key] = OpenModel(self.store, *key)
            return self._models_open[key]

    def take_names(self, names: SyllableNames) -> None:
        """Show names that were saved just now, in all windows."""
        with self._lock:
            key = (names.model, self.version(names.model))
            self._models_open[key] = self.opened(names.model).renamed(names)
            self.revision += 1

    def _renamed(self, models_now: dict[str, models.ModelInfo]) -> dict[tuple[str, str], OpenModel]:
        """Models that are looked at, with the names that others gave to their syllables."""
        with self._lock:
            shown = dict(self._models_open)
        now = {
            (model, version): (opened, read_names(self.store, model, version))
            for (model, version), opened in shown.items()
            if model in models_now and version in models_now[model].versions
        }
        return {
            key: opened.renamed(names)
            for key, (opened, names) in now.items()
            if names != opened.names
        }

    def remember(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Make what takes long once for all windows; its version is part of ``key``."""
        with self._lock:
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]

    def progress(self, model: str) -> xr.Dataset | None:
        """Progress that an unfinished fit has committed; None without."""
        if model not in self.unfinished:
            return None
        key = ("progress", model, str(self.revision))
        with self._lock:
            self._opened = {k: v for k, v in self._opened.items() if k[:2] != key[:2] or k == key}
        try:
            return self._open(key, lambda: open_progress(self.store, model))
        except (InputError, KeyError, FileNotFoundError):  # finished or gone on just now
            return None

    def _open(self, key: tuple[str, ...], make: Any) -> xr.Dataset:
        # Versions never change once published, so what was opened stays right.
        with self._lock:
            if key not in self._opened:
                self._opened[key] = make()
            return self._opened[key]
