"""Description of a store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import fsspec
import numpy as np
import zarr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.model.checkpoints import Unfinished, unfinished
from kpms_zarr.store.model.models import ModelInfo, list_models
from kpms_zarr.store.model.scans import ScanInfo, list_scans
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.epochs import stored_epochs
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.study.signals import StoredSignal, holding_versions, signal_names
from kpms_zarr.store.study.timestamps import StudyTimes


@dataclass(frozen=True)
class SessionInfo:
    """One session: name, length in frames and in s, frame rate, individual, file and format.

    ``visible`` is the share of the positions that are not missing, as the model counts them; None
    for sessions that came in before this was kept.
    """

    name: str
    n_frames: int
    fps: float
    seconds: float
    individual: str
    source: str
    source_format: str
    visible: float | None = None


@dataclass(frozen=True)
class EpochsInfo:
    """Epochs that hold.

    Attributes
    ----------
    version : str
    epochs, conditions : tuple of str
        Their names, sorted; without those that have none.
    n_intervals : int
    sessions : tuple of str
        Of the store, that are in epochs.
    """

    version: str
    epochs: tuple[str, ...]
    conditions: tuple[str, ...]
    n_intervals: int
    sessions: tuple[str, ...]


@dataclass(frozen=True)
class TimestampsInfo:
    """Timestamps that hold.

    Attributes
    ----------
    versions : tuple of str
        Oldest first; a later one stands for its sessions.
    sessions : tuple of str
        Of the store, whose frames have some.
    """

    versions: tuple[str, ...]
    sessions: tuple[str, ...]


@dataclass(frozen=True)
class SignalInfo:
    """A signal that holds.

    Attributes
    ----------
    name, units : str
    versions : tuple of str
        Oldest first; of a session the newest that has it holds.
    sessions : tuple of str
        Of the store, that have it.
    """

    name: str
    units: str
    versions: tuple[str, ...]
    sessions: tuple[str, ...]


@dataclass(frozen=True)
class StoreInfo(ShownAsTable):
    """Result of :func:`info`.

    Attributes
    ----------
    store : str
    format_version : int
    created_by : str
    n_frames : int
        Of all sessions.
    hours : float
        Of all sessions.
    settings : StudySettings
    sessions : tuple of SessionInfo
    models : tuple of ModelInfo
    unfinished : tuple of Unfinished
        Fits that run or were interrupted.
    scans : tuple of ScanInfo
    bytes_by_group : dict of str to int
        Bytes stored, by top-level group; empty for web addresses, which cannot be listed.
    epochs : EpochsInfo or None
        None without.
    timestamps : TimestampsInfo or None
        None without.
    signals : tuple of SignalInfo
    """

    store: str
    format_version: int
    created_by: str
    n_frames: int
    hours: float
    settings: StudySettings
    sessions: tuple[SessionInfo, ...]
    models: tuple[ModelInfo, ...]
    unfinished: tuple[Unfinished, ...]
    scans: tuple[ScanInfo, ...]
    bytes_by_group: dict[str, int]
    epochs: EpochsInfo | None = None
    timestamps: TimestampsInfo | None = None
    signals: tuple[SignalInfo, ...] = ()


def info(store: StoreLike) -> StoreInfo:
    """Describe a store: sessions, keypoints, epochs, timestamps, signals, models, sizes on disk.

    Parameters
    ----------
    store : path or URL

    Raises
    ------
    InputError
        When there is no store.
    """
    root = access.open_group(store)
    found = access.sessions(root)
    group = access.keypoints_group(root)
    columns = ("individual", "source", "source_format")
    text = {
        name: np.asarray(group[name][:]) if group is not None else np.zeros(0)  # type: ignore[index]
        for name in columns
    }
    has_entries = group is not None and "ingest" in group
    entries = np.asarray(group["ingest"][:]) if has_entries else np.zeros(0)  # type: ignore[index]
    rows = tuple(
        SessionInfo(
            session.name,
            session.n_frames,
            session.fps,
            session.n_frames / session.fps,
            **{name: str(text[name][session.index]) for name in columns},
            visible=_visible(entries, session.index),
        )
        for session in found
    )
    return StoreInfo(
        os.fspath(store),
        int(root.attrs["kpms_zarr_format"]),  # type: ignore[arg-type]
        str(root.attrs.get("created_by", "")),
        sum(row.n_frames for row in rows),
        sum(row.seconds for row in rows) / 3600,
        read_settings(root),
        rows,
        list_models(root),
        unfinished(root),
        list_scans(root),
        _bytes_by_group(store),
        _epochs(root, found),
        _timestamps(root, found),
        _signals(root, store, found),
    )


def _epochs(root: zarr.Group, sessions: Sequence[Session]) -> EpochsInfo | None:
    version, of_all = stored_epochs(root)
    if not version:
        return None
    found = {one.name: of_all[one.name] for one in sessions if one.name in of_all}
    names = {name for one in found.values() for name in one.names}
    conditions = {name for one in found.values() for name in one.conditions if name}
    n_intervals = sum(len(one.start) for one in found.values())
    return EpochsInfo(
        version, tuple(sorted(names)), tuple(sorted(conditions)), n_intervals, tuple(found)
    )


def _timestamps(root: zarr.Group, sessions: Sequence[Session]) -> TimestampsInfo | None:
    times = StudyTimes(root)
    if not times.versions:
        return None
    held = [one.name for one in sessions if times.place(one.name, one.n_frames) is not None]
    return TimestampsInfo(times.versions, tuple(held))


def _signals(
    root: zarr.Group, store: StoreLike, sessions: Sequence[Session]
) -> tuple[SignalInfo, ...]:
    found = []
    for name in signal_names(root):
        signal = StoredSignal(store, name)
        there = tuple(one.name for one in sessions if one.name in signal.sessions)
        found.append(SignalInfo(name, signal.units, tuple(holding_versions(root, name)), there))
    return tuple(found)


def _visible(entries: np.ndarray, row: int) -> float | None:
    """Share of positions that are there, as the entry of a session says, (session,) JSON text."""
    try:
        return float(json.loads(str(entries[row]))["visible"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _bytes_by_group(store: StoreLike) -> dict[str, int]:
    where = os.fspath(store)
    sizes: dict[str, int] = {}
    if access.is_web(where):  # which lists no folders
        return sizes
    if access.is_remote(where):
        fs, base = fsspec.core.url_to_fs(where)
        files = fs.find(base, detail=True).items()
        pairs = [(name[len(base) :].strip("/"), int(entry["size"] or 0)) for name, entry in files]
    else:
        pairs = list(_local_files(where))
    for name, size in pairs:
        top = name.split("/")[0] if "/" in name else "(metadata)"
        sizes[top] = sizes.get(top, 0) + size
    return dict(sorted(sizes.items()))


def _local_files(where: str) -> Iterator[tuple[str, int]]:
    """Files below a folder, by their paths from there, and their bytes.

    Five times as fast as ``Path.rglob``, which counts for one file a session and array. What a
    writer moves or removes meanwhile is left out.
    """
    folders = [("", where)]
    while folders:
        above, folder = folders.pop()
        with suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
            for entry in entries:
                name = f"{above}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{name}/", entry.path))
                elif entry.is_file():
                    with suppress(FileNotFoundError):
                        yield name, entry.stat().st_size
