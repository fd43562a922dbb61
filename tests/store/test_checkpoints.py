"""Commits of an unfinished fit: whole or not at all, whatever happens between any two writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store import access
from kpms_zarr.store.access import Session
from kpms_zarr.store.checkpoints import Checkpoints, read_checkpoint

SESSIONS = tuple(Session(f"s{n}", row, n, 30.0) for row, n in enumerate((3, 70, 41)))
N_STATES, N_FEATURES, N_SWEEPS = 4, 6, 20


def state(sweep: int, row: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and state of some frames in a sweep; all differ from those of other sweeps."""
    rng = np.random.default_rng([sweep, row])
    n = SESSIONS[row].n_frames
    labels, local = rng.integers(0, N_STATES, n), rng.normal(size=(n, N_FEATURES))
    return labels[start:stop].astype(np.int16), local[start:stop].astype(np.float32)


def traces(sweep: int) -> dict[str, np.ndarray]:
    return {
        "term": np.array(["syllable", "latent"], dtype=object),
        "trace_stage": np.array(["ar"] * sweep, dtype=object),
        "trace_kappa": np.arange(1.0, sweep + 1),
        "trace_usage": np.arange(1.0, sweep * N_STATES + 1).reshape(sweep, N_STATES),
    }


def commit(checkpoints: Checkpoints, sweep: int, sessions=SESSIONS, read: Any = None) -> int:
    return checkpoints.commit(
        sweep,
        n_sweeps_in_all=N_SWEEPS,
        sessions=sessions,
        table={"scale": np.ones(len(sessions))},
        n_features=N_FEATURES,
        dtype="float32",
        read=read or (lambda *where: state(sweep, *where)),
        values={"state_usage": np.full(N_STATES, float(sweep))},
        traces=traces(sweep),
        attrs={"mark": sweep},
    )


def assert_is(store: str | Path, sweep: int) -> None:
    """What is committed is this sweep, all of it, and a person can look at it."""
    found = read_checkpoint(access.open_group(store), "m")
    assert found is not None
    assert (found.n_sweeps, found.attrs["mark"]) == (sweep, sweep)
    assert found.sessions == tuple(session.name for session in SESSIONS)
    np.testing.assert_array_equal(found.values["state_usage"], float(sweep))
    for name, values in traces(sweep).items():
        np.testing.assert_array_equal(found.traces[name], values)
    for row, session in enumerate(SESSIONS):
        for got, wanted in zip(
            found.read(row, 0, session.n_frames),
            state(sweep, row, 0, session.n_frames),
            strict=True,
        ):
            np.testing.assert_array_equal(got, wanted)
    seen = kpms_zarr.open_progress(store, "m").load()
    assert seen.attrs["n_sweeps"] == sweep
    assert seen["trace_kappa"].sizes["sweep"] == sweep
    for row, session in enumerate(SESSIONS):
        np.testing.assert_array_equal(
            seen["syllable"].values[row, : session.n_frames],
            state(sweep, row, 0, session.n_frames)[0],
        )
        assert (seen["syllable"].values[row, session.n_frames :] == -1).all()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    access.create(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.fixture
def checkpoints(store: Path) -> Checkpoints:
    return opened(store)


def opened(store: str | Path) -> Checkpoints:
    return Checkpoints(access.open_group(store, "r+"), store, "m")


def bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# ------------------------------------------------------------------ writes that fail


class Killed(BaseException):
    """In place of a signal: nothing that is written in Python can go on after it."""


@dataclass
class Faults:
    """Fails what changes files below a folder from the n-th change on, by an audit hook.

    ``error`` is raised instead of the change; with ``is_final`` also at all later ones, cleaning
    up included, as if the process were gone.
    """

    folder: str = ""
    at: int = 0
    error: Callable[[], BaseException] = Killed
    is_final: bool = True
    only: tuple[str, ...] = ()
    n: int = 0
    done: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or not _changes(event, arguments) or not self._is_below(arguments):
            return
        if self.only and event not in self.only:
            return
        self.n += 1
        self.done.append(event)
        if self.n == self.at or (self.is_final and self.n > self.at > 0):
            raise self.error()

    def _is_below(self, arguments: tuple[Any, ...]) -> bool:
        path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        # What rmtree removes is named relative to an open folder.
        return not os.path.isabs(path) or path.startswith(self.folder)


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")


_faults: list[Faults] = []
_is_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for faults in _faults:
        faults(event, arguments)


@contextmanager
def failing(folder: Path, **settings: Any) -> Iterator[Faults]:
    """Within it, changes of files below the folder fail as :class:`Faults` says."""
    global _is_hooked
    if not _is_hooked:  # there is no way to remove one
        sys.addaudithook(_hook)
        _is_hooked = True
    faults = Faults(str(folder), **settings)
    _faults.append(faults)
    try:
        yield faults
    finally:
        _faults.remove(faults)
