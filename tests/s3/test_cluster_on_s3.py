"""A store on a real S3-compatible server, fitted by workers that know of it by the client alone."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec
import pytest
from distributed import Client, LocalCluster, WorkerPlugin

import kpms_zarr
from helpers.on_cluster import CONFIG, assert_same, make_study, published
from kpms_zarr.compute.runs import plan
from kpms_zarr.store.core import access

pytestmark = [
    pytest.mark.s3,
    # Of aiohttp, for connections that the end of a process closes.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY, SECRET = "kpmskey", "kpmssecret123"


def small_shards() -> WorkerPlugin:
    """Shards of few frames, so that each worker has some."""

    class SmallShards(WorkerPlugin):  # here, as workers do not know this module
        name = "small shards"

        def setup(self, worker: Any) -> None:
            from kpms_zarr.compute.runs import plan

            plan.SHARD_FRAMES = 320

    return SmallShards()


@pytest.mark.full
@pytest.mark.slow
def test_fit__on_s3_by_workers_has_the_bits_of_one_process_and_of_a_disk(
    server: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options reach the workers, whose environment says nothing, and are forgotten at the end."""
    monkeypatch.setattr(plan, "SHARD_FRAMES", 320)
    local = make_study(tmp_path / "study.zarr")
    fs, path = fsspec.core.url_to_fs(url)
    fs.put(f"{local}/", f"{path}/", recursive=True)
    kpms_zarr.fit(local, model="m", config=CONFIG)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(access, "_GIVEN", {})
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit="2GB"
            )
        )
        client = stack.enter_context(Client(cluster, set_as_default=False))
        client.register_plugin(small_shards())
        endpoint = f"http://127.0.0.1:{server.port}"
        kpms_zarr.set_storage_options(url, {"key": KEY, "secret": SECRET, "endpoint_url": endpoint})
        seen: list[Any] = []

        def look(event: object) -> None:
            if not seen and type(event).__name__ == "SweepEnded":
                seen.append(client.run(lambda: dict(__import__("fsspec").config.conf["s3"])))

        kpms_zarr.fit(url, model="m", config=CONFIG, cluster=client, save_every=4, callbacks=[look])
        after = client.run(lambda: "s3" in __import__("fsspec").config.conf)
        there = kpms_zarr.verify(url, cluster=client)
    assert [found["endpoint_url"] for found in seen[0].values()] == [endpoint] * 2
    assert not any(after.values())
    assert_same(published(local), published(url))
    assert there.is_sound
    assert not there.notes
