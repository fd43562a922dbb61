"""Workers that are processes of this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from distributed import Client, LocalCluster, WorkerPlugin

from kpms_zarr.compute.runs import plan

SHARD_FRAMES = 320


def _small_shards() -> WorkerPlugin:
    """Shards of few frames, also on workers that come later."""

    class SmallShards(WorkerPlugin):  # here, as workers do not know this module
        name = "small shards"

        def setup(self, worker: Any) -> None:
            from kpms_zarr.compute.runs import plan

            plan.SHARD_FRAMES = n_frames

    n_frames = SHARD_FRAMES
    return SmallShards()


@contextmanager
def _workers(n: int, threads: int = 1, **options: Any) -> Iterator[tuple[LocalCluster, Client]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            LocalCluster(
                n_workers=n, threads_per_worker=threads, dashboard_address=None, memory_limit="2GB",
                **options,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):  # fmt: skip
            client.register_plugin(_small_shards())
            yield cluster, client


@pytest.fixture(scope="session")
def workers() -> Any:
    """The context ``workers(n, threads)`` with a cluster of n processes and its client."""
    return _workers


@pytest.fixture(scope="module")
def two_workers() -> Iterator[tuple[LocalCluster, Client]]:
    """Two workers that tests of a module share, and leave as they were."""
    with _workers(2) as found:
        yield found


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of few frames in this process, too."""
    monkeypatch.setattr(plan, "SHARD_FRAMES", SHARD_FRAMES)


@pytest.fixture
def small_shards_plugin() -> WorkerPlugin:
    """The plugin, for workers that a test begins itself."""
    return _small_shards()
