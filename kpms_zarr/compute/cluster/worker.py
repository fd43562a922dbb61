"""What runs on a worker: its share of the machine, a request to stop, events on their way back."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask

from kpms_zarr.compute.config import Budget
from kpms_zarr.compute.events import Event, Noted
from kpms_zarr.compute.memory import resident_memory
from kpms_zarr.store.core.access import given_storage_options
from kpms_zarr.store.cores import n_cores

MEMORY_SHARE = 0.6
"""Of the memory limit of a worker that a task may take: from 0.6 on Dask itself writes to disk what
it holds, from 0.8 on it begins nothing new."""
MOST_SHARE = 0.75
"""The same, of a worker that takes over what another one had."""


def share_of_worker() -> tuple[int, Budget]:
    """Threads of the worker that this runs on, and what a task may take of its memory."""
    worker = _worker()
    if worker is None:
        return n_cores(), Budget()
    limit = worker.memory_manager.memory_limit
    n_threads, scratch = worker.state.nthreads, worker.local_directory
    if not limit:
        return n_threads, Budget(scratch=scratch)
    import jax  # heavy; whoever connects to a cluster imports this module

    # What a bundle took that this worker has besides must not keep it from taking one over.
    host = max(MEMORY_SHARE * limit, min(MOST_SHARE * limit, resident_memory() + 0.2 * limit))
    device = int(0.2 * limit) if jax.default_backend() == "cpu" else None
    return n_threads, Budget(host_memory=int(host), device_memory=device, scratch=scratch)


@contextmanager
def on_own_threads() -> Iterator[None]:
    """Context in which Dask uses the threads of this worker, and asks no others for help.

    A task that waits for tasks of its own, while all workers do, waits for ever.
    """
    with dask.config.set(scheduler="threads", num_workers=share_of_worker()[0]):
        yield


@contextmanager
def prepared(client: Any, *, is_own: bool = False) -> Iterator[None]:
    """Context in which all workers, also those that come later, do as this process does.

    Options of :func:`kpms_zarr.set_storage_options` go to them by way of the scheduler, and are
    forgotten at the end. Workers share the GPU of a machine.

    Parameters
    ----------
    is_own : bool
        Whether the workers were begun here: a Ctrl-C that reaches them, too, is for this process.
    """
    from distributed import WorkerPlugin

    given, here = given_storage_options(), os.getpid()

    class HereAsThere(WorkerPlugin):  # here, so that it travels by value
        name = f"kpms_zarr-{uuid.uuid4().hex[:12]}"

        def setup(self, worker: Any) -> None:
            import os
            import signal
            import threading

            from kpms_zarr.compute.memory import keep_freed_memory
            from kpms_zarr.store.core.access import use_storage_options

            keep_freed_memory()
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            self.before = use_storage_options(given)
            is_main = threading.current_thread() is threading.main_thread()
            if is_own and is_main and os.getpid() != here:
                signal.signal(signal.SIGINT, signal.SIG_IGN)

        def teardown(self, worker: Any) -> None:
            from kpms_zarr.store.core.access import restore_storage_options

            restore_storage_options(self.before)

    client.register_plugin(HereAsThere())
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            client.unregister_worker_plugin(HereAsThere.name)


_PULLED: set[str] = set()


def pull(name: str) -> None:
    """Ask all tasks of this process that are on the leash ``name`` to stop."""
    _PULLED.add(name)


@dataclass(frozen=True)
class Leash:
    """Whether the task that this runs in shall stop: asked to, or nobody waits for it any more."""

    name: str

    def is_pulled(self) -> bool:
        """Whether to stop."""
        worker = _worker()
        if self.name in _PULLED or worker is None:
            return self.name in _PULLED
        task = worker.state.tasks.get(worker.get_current_task())
        return task is None or task.state == "cancelled"


def passer(topic: str) -> Callable[[Event], None]:
    """Callback that passes what is said in words to whoever listens to a topic.

    Sweeps of many jobs at once would be told apart by nobody.
    """
    worker = _worker()

    def pass_on(event: Event) -> None:
        if worker is not None and isinstance(event, Noted):
            worker.log_event(topic, pickle.dumps(event))

    return pass_on


def progress_passer(topic: str, every: float) -> Callable[[Any], None]:
    """Callback that passes what is done so far on to whoever listens to a topic.

    ``every``: seconds that lie between two messages, at least; what is done in them is not said.
    """
    worker = _worker()
    last = time.monotonic()

    def pass_on(done: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if worker is not None and now - last > every:
            last = now
            worker.log_event(topic, pickle.dumps(done))

    return pass_on


def _worker() -> Any:
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:  # called directly
        return None
