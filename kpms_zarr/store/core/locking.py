"""One fit of a model at a time, and one process that adds or removes sessions, or names syllables.

On a local disk the lock is on a folder and goes with the process, however it ends. Elsewhere it is
a lease in a group of its own, which its holder renews. Where storage puts an object on condition
that nobody else has (S3), the first takes it; elsewhere the last of those who found it free.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.remote import PatientStore
from kpms_zarr.store.core.zarr_internals import sync
from kpms_zarr.store.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LEASE_SECONDS = 600.0
"""A lease that was not renewed for so long belongs to a process that is gone."""
_RENEW_SECONDS = 30.0
_POLL_SECONDS = 1.0
_NAMES_POLL_SECONDS = 0.2
_NAMES_LEASE_SECONDS = 60.0
"""Saving a name takes a few seconds on any storage."""
_NAMES_WAIT_SECONDS = 75.0
"""Longer than the lease of a process that was killed."""
_GLANCE_SECONDS = 0.05
_SETTLE_SECONDS = 1.5
"""Longer than it takes from looking at a lease to writing one."""


_Held = Callable[[str, str], InputError]
"""Makes the error of a lock that another has, from who that is and what more can be done."""


class Lock:
    """Held while a model is fitted."""

    def renew(self) -> None:
        """Say that the holder lives, and make sure that it still holds the model.

        Raises
        ------
        InputError
            When another process has taken it, as after a night in which this machine slept.
        """

    def close(self) -> None:
        """Let it go."""


class _FolderLock(Lock):
    """A lock on an open folder of a local disk, which goes with the process."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def close(self) -> None:
        os.close(self._handle)


class _Lease(Lock):
    """A group below what it protects, in whose attributes a thread says that the holder lives."""

    def __init__(
        self, root: zarr.Group, path: str, held: _Held, seconds: float = LEASE_SECONDS
    ) -> None:
        self._root, self._path, self._held = root, path, held
        self._mutex, self._end = threading.Lock(), threading.Event()
        self._lost: InputError | None = None
        self._own: dict[str, Any] = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "seconds": seconds,
        }
        if not self._take():
            self._write()
            # Somebody else may have found it free at the same moment; the later of both has it.
            time.sleep(_SETTLE_SECONDS)
            self._check()
            if self._lost is not None:
                raise self._lost
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """See :class:`Lock`."""
        with self._mutex:
            # A missed renewal is not worth a fit: the lease lasts much longer.
            with contextlib.suppress(Exception):
                # Not the monotonic clock, which stands still while a machine sleeps.
                if self._lost is None and abs(time.time() - self._renewed) >= _RENEW_SECONDS:
                    self._check()
                    if self._lost is None:  # else it belongs to somebody else by now
                        self._write()
            if self._lost is not None:
                raise self._lost

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            self._check()
            if self._lost is None:
                del self._root[self._path]

    def _live(self) -> None:
        while not self._end.wait(_RENEW_SECONDS):
            with contextlib.suppress(InputError):
                self.renew()

    def _take(self) -> bool:
        """Take the lease if it is free; False where others may have taken it just as well."""
        store, key = self._root.store, f"{self._root.path}/{self._path}/zarr.json".lstrip("/")
        while True:
            # Before the lease is read: what changes in between is another version.
            version = sync(store.version(key)) if isinstance(store, PatientStore) else None
            found = self._read()
            if found.get("owner") == self._own["owner"]:  # an answer was lost, not the lease
                return True
            left = _seconds_left(found)
            if left > 0:
                raise self._refusal(found, f"; if it is gone, try again in {left:.0f} s")
            if not isinstance(store, PatientStore):
                return False
            self._renewed = time.time()
            attrs = attributes.stored({**self._own, "renewed": self._renewed})
            group = {"zarr_format": 3, "node_type": "group", "attributes": attrs}
            lease = json.dumps(group).encode()
            is_put = sync(store.replace(key, lease, version))
            if is_put is None:
                return False
            if is_put:
                # That would put it again tells of a storage that ignores the condition.
                return sync(store.replace(key, lease, version)) is False

    def _check(self) -> None:
        found = self._read()
        if found and found.get("owner") != self._own["owner"]:
            self._lost = self._refusal(found, "")

    def _read(self) -> dict[str, Any]:
        group = access.subgroup(self._root, self._path)
        return {} if group is None else dict(group.attrs)

    def _write(self) -> None:
        group = access.require_group(self._root, self._path)
        attributes.write(group, {**self._own, "renewed": time.time()})
        self._renewed = time.time()

    def _refusal(self, found: dict[str, Any], more: str) -> InputError:
        return self._held(f"process {found.get('process')} on {found.get('host')}", more)


def _seconds_left(found: dict[str, Any]) -> float:
    seconds = float(found.get("seconds", LEASE_SECONDS))
    return float(found.get("renewed", 0)) + seconds - time.time()


@contextmanager
def model_lock(root: zarr.Group, store: StoreLike, model: str) -> Iterator[Lock]:
    """Hold the model; the group of the model is made where it is missing.

    Raises
    ------
    InputError
        When another process holds it.
    OSError
        When nothing can be written there.
    """
    path = layout.model_path(model)
    access.require_group(root, path)
    held = _held_by(
        store,
        f"a model that nobody is fitting, as {model!r}",
        "fitting it",
        ", or choose another `model=`",
    )
    with closing(_take(root, store, path, held)) as lock:
        yield lock


@contextmanager
def scan_lock(root: zarr.Group, store: StoreLike, name: str) -> Iterator[Lock]:
    """Hold a scan; its group is made where it is missing.

    Raises
    ------
    InputError
        When another process holds it.
    OSError
        When nothing can be written there.
    """
    path = layout.scan_path(name)
    access.require_group(root, path)
    expected = f"a scan that nobody is running, as {name!r}"
    held = _held_by(store, expected, "running it", ", or choose another `name=`")
    with closing(_take(root, store, path, held)) as lock:
        yield lock


@contextmanager
def changepoints_lock(root: zarr.Group, store: StoreLike) -> Iterator[Lock]:
    """Hold the change points; their group is made where it is missing.

    Raises
    ------
    InputError
        When another process looks for them.
    OSError
        When nothing can be written there.
    """
    access.require_group(root, layout.CHANGEPOINTS)
    held = _held_by(store, "that nobody else looks for change points", "doing so")
    with closing(_take(root, store, layout.CHANGEPOINTS, held)) as lock:
        yield lock


def _take(
    root: zarr.Group, store: StoreLike, path: str, held: _Held, seconds: float = LEASE_SECONDS
) -> Lock:
    """Take the lock on a group; ``seconds`` = of a lease."""
    if fcntl is not None and not access.is_remote(store):
        handle = _lock_folder(Path(os.fspath(store)) / path, held)
        if handle is not None:
            return _FolderLock(handle)
    return _Lease(root, f"{path}/lock".lstrip("/"), held, seconds)


def _lock_folder(folder: Path, held: _Held) -> int | None:
    if not os.access(folder, os.W_OK):  # now, not after the first sweeps
        raise OSError(errno.EROFS, "this cannot be written to", os.fspath(folder))
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _flock(handle):
            time.sleep(_GLANCE_SECONDS)  # somebody may just be looking whether it is held
            if not _flock(handle):
                raise BlockingIOError
    except BlockingIOError:
        os.close(handle)
        raise held("another process on this machine", "") from None
    except OSError:  # a network disk without such locks
        os.close(handle)
        return None
    return handle


def _flock(handle: int, how: str = "LOCK_EX") -> bool:
    """Lock an open folder, unless others have it."""
    try:
        fcntl.flock(handle, getattr(fcntl, how) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_fitted_now(root: zarr.Group, store: StoreLike, model: str) -> bool:
    """Whether a process holds the model, as far as can be seen from here.

    A lease counts until it ends, ten minutes after a process on another machine was killed.
    """
    path = layout.model_path(model)
    if fcntl is not None and not access.is_remote(store):
        with contextlib.suppress(OSError):
            handle = os.open(Path(os.fspath(store)) / path, os.O_RDONLY)
            try:
                if not _flock(handle, "LOCK_SH"):
                    return True
            finally:
                os.close(handle)
    lease = access.subgroup(root, f"{path}/lock")
    return lease is not None and _seconds_left(dict(lease.attrs)) > 0


@contextmanager
def sessions_lock(
    root: zarr.Group, store: StoreLike, tell: Callable[[str], None]
) -> Iterator[Lock]:
    """Hold the table of sessions, to add or to remove some; waits for whoever has it.

    Raises
    ------
    OSError
        When nothing can be written there.
    """
    held = _held_by(store, "that nobody else adds or removes sessions", "doing so")
    has_said = False
    while True:
        try:
            lock = _take(root, store, "", held)
            break
        except InputError as error:
            if not has_said:
                tell(f"waited: {error.problems[0].found} to {os.fspath(store)}")
                has_said = True
        time.sleep(_POLL_SECONDS)
    with closing(lock):
        yield lock


@contextmanager
def names_lock(root: zarr.Group, store: StoreLike, model: str) -> Iterator[Lock]:
    """Hold the names of the syllables of a published model; waits a while for whoever has them.

    Raises
    ------
    InputError
        When another process keeps them.
    OSError
        When nothing can be written there.
    """
    path = f"{layout.model_path(model)}/labels"  # which is there; the group of the names may not
    with _soon(root, store, path, f"that nobody else names syllables of {model!r}") as lock:
        yield lock


@contextmanager
def annotations_lock(root: zarr.Group, store: StoreLike) -> Iterator[Lock]:
    """Hold the annotations of positions; waits a while for whoever has them.

    Raises
    ------
    InputError
        When another process keeps them.
    OSError
        When nothing can be written there.
    """
    with _soon(root, store, layout.KEYPOINTS, "that nobody else annotates positions") as lock:
        yield lock


@contextmanager
def _soon(root: zarr.Group, store: StoreLike, path: str, expected: str) -> Iterator[Lock]:
    """Hold the lock on a group, which others hold for seconds only."""
    held = _held_by(store, expected, "doing so")
    end = time.monotonic() + _NAMES_WAIT_SECONDS
    while True:
        try:
            lock = _take(root, store, path, held, _NAMES_LEASE_SECONDS)
            break
        except InputError:
            if time.monotonic() > end:
                raise
        time.sleep(_NAMES_POLL_SECONDS)
    with closing(lock):
        yield lock


def _held_by(store: StoreLike, expected: str, doing: str, otherwise: str = "") -> _Held:
    def error(who: str, more: str) -> InputError:
        return InputError(
            expected=expected,
            found=f"that {who} is {doing}",
            where=os.fspath(store),
            fix=f"wait for it{otherwise}{more}",
        )

    return error
