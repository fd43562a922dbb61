"""What runs on a worker: its share of the machine, a request to stop, events on their way back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask

from kpms_zarr.compute.config import Budget
from kpms_zarr.store.core.access import given_storage_options
from kpms_zarr.store.cores import n_cores

MEMORY_SHARE = 0.6
"""Of the memory limit of a worker that a task may take: from 0.6 on Dask itself writes to disk what
it holds, from 0.8 on it begins nothing new."""


def share_of_worker() -> tuple[int, Budget]:
    """Threads of the worker that this runs on, and what a task may take of its memory."""
    worker = _worker()
    if worker is None:
        return n_cores(), Budget()
    limit = worker.memory_manager.memory_limit
    memory = int(MEMORY_SHARE * limit) if limit else None
    n_threads = worker.state.nthreads
    return n_threads, Budget(
        host_memory=memory, tiles_in_flight=None, scratch=worker.local_directory
    )


@contextmanager
def on_own_threads() -> Iterator[None]:
    """Context in which Dask uses the threads of this worker, and asks no others for help.

    A task that waits for tasks of its own, while all workers do, waits for ever.
    """
    with dask.config.set(scheduler="threads", num_workers=share_of_worker()[0]):
        yield


def prepare_workers(client: Any) -> None:
    """Have all workers, also those that come later, reach storage as this process does.

    Options of :func:`kpms_zarr.set_storage_options` go to them by way of the scheduler.
    """
    from distributed import WorkerPlugin

    given = given_storage_options()

    class StorageOptions(WorkerPlugin):
        """Settings of this process, on a worker."""

        name = "kpms_zarr"
        idempotent = False

        def setup(self, worker: Any) -> None:
            from kpms_zarr.store.core.access import use_storage_options

            use_storage_options(given)

    client.register_plugin(StorageOptions())


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


def passer(topic: str) -> Callable[[Any], None]:
    """Function that passes events to whoever listens to a topic."""
    worker = _worker()

    def pass_on(event: Any) -> None:
        if worker is not None:
            worker.log_event(topic, pickle.dumps(event))

    return pass_on


def _worker() -> Any:
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:  # called directly
        return None
