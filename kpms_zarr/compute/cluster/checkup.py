"""Look at the workers of a cluster: versions, devices, memory, clocks, and the store from there."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted, listed

PACKAGES = ("kpms_zarr", "jax", "jaxlib", "numpy", "zarr", "dask", "distributed")
"""Whose versions have to be alike: bits, and what processes send to each other, depend on them."""

_CLOCK_SECONDS = 5.0
"""Clocks that differ by more confuse leases, which say how long a model is held."""


@dataclass(frozen=True)
class WorkerReport:
    """What a worker is, and what it found.

    Attributes
    ----------
    versions : dict of str to (str or None)
        Of Python and packages; None = not installed.
    devices : tuple of str
        Kinds of the devices that JAX sees.
    memory_limit : int
        Bytes; 0 = none.
    clock : float
        Seconds that its clock is ahead of that of this process.
    storage : str
        What was wrong with the store; "" = nothing, or no store was named.
    """

    address: str
    host: str
    n_threads: int
    memory_limit: int
    versions: dict[str, str | None]
    devices: tuple[str, ...]
    clock: float
    storage: str


@dataclass(frozen=True)
class ClusterReport:
    """Workers of a cluster, and what could be better.

    Attributes
    ----------
    advice : tuple of str
        Empty when nothing.
    """

    store: str | None
    workers: tuple[WorkerReport, ...]
    advice: tuple[str, ...]


def check_workers(crew: Crew, store: StoreLike | None = None) -> ClusterReport:
    """Look at all workers that there are.

    Parameters
    ----------
    store : path or URL, optional
        Each worker reads there what this process writes, and this process what each writes; all of
        it is removed again.

    Raises
    ------
    InputError
        When this process cannot open or write the store.
    ClusterLost
        When there are no workers.
    """
    there = crew.workers()
    token, root = uuid.uuid4().hex, None
    group = f"check-{token}"
    if store is not None:
        root = access.open_group(store, "r+")
        try:
            attributes.write(root.create_group(group), {"token": token})
        except OSError as error:
            raise InputError(
                expected="a store that can be written to",
                found=str(error),
                where=os.fspath(store),
                fix="check the permissions, and the space that is left",
            ) from error
    try:
        place = None if store is None else access.absolute(store)
        began = time.time()
        found: dict[str, Any] = crew.client.run(look, place, group, token, on_error="return")
        middle = (began + time.time()) / 2
        reports = []
        for address in sorted(there):
            seen = found.get(address, RuntimeError("no answer"))
            reports.append(_report(address, there[address], seen, middle, root, group, token))
    finally:
        if root is not None and group in root:
            del root[group]
    own = versions()
    workers = tuple(reports)
    return ClusterReport(
        None if store is None else os.fspath(store), workers, tuple(advise(workers, own))
    )


def look(place: str | None, group: str, token: str) -> dict[str, Any]:
    """Facts of the process that this runs in; writes a group of its own below ``group``."""
    import jax

    name, storage = uuid.uuid4().hex, ""
    if place is not None:
        try:
            root = access.open_group(place, "r+")
            if root[group].attrs["token"] != token:
                raise ValueError("it holds something else")
            attributes.write(root.create_group(f"{group}/{name}"), {"token": token})
        except Exception as error:
            storage = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "devices": tuple(device.device_kind for device in jax.local_devices()),
        "time": time.time(),
        "name": name,
        "storage": storage,
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of packages in this process; None = not installed."""
    found: dict[str, str | None] = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _report(
    address: str,
    known: Mapping[str, Any],
    seen: Any,
    now: float,
    root: access.Group | None,
    group: str,
    token: str,
) -> WorkerReport:
    n_threads, limit = int(known.get("nthreads", 1)), int(known.get("memory_limit") or 0)
    if isinstance(seen, BaseException):
        problem = f"it could not be looked at ({type(seen).__name__}: {seen})"
        host = str(known.get("host", "?"))
        return WorkerReport(address, host, n_threads, limit, {}, (), 0.0, problem)
    storage = seen["storage"]
    if root is not None and not storage:
        try:
            if root[f"{group}/{seen['name']}"].attrs["token"] != token:
                raise ValueError("it holds something else")
        except Exception as error:
            storage = f"what it wrote is not found here ({type(error).__name__})"
    return WorkerReport(
        address, seen["host"], n_threads, limit, seen["versions"], seen["devices"],
        seen["time"] - now, storage,
    )  # fmt: skip


def advise(workers: tuple[WorkerReport, ...], own: Mapping[str, str | None]) -> list[str]:
    """What could be better, one sentence each, and how."""
    found = []
    for package, version in own.items():
        others = {
            worker.address: worker.versions[package]
            for worker in workers
            if worker.versions and worker.versions.get(package) != version
        }
        if others:
            kinds = Counter(str(other or "none") for other in others.values())
            found.append(
                f"{package} is {version} here and {listed(list(kinds))} on "
                f"{counted(len(others), 'worker')} ({listed(sorted(others)[:3])}): begin workers "
                "in the environment of this process"
            )
    kinds_of_device = {kind for worker in workers for kind in worker.devices}
    if len(kinds_of_device) > 1:
        found.append(
            f"devices of several kinds ({listed(sorted(kinds_of_device))}): labels then depend on "
            "which worker has which sessions; take workers of one kind for a fit that others "
            "shall repeat to the bit"
        )
    for worker in workers:
        if worker.storage:
            found.append(
                f"worker {worker.address} on {worker.host} does not reach the store: "
                f"{worker.storage}; put the store on a file system that all share, or on S3, and "
                "give workers the same credentials"
            )
        if abs(worker.clock) > _CLOCK_SECONDS:
            found.append(
                f"the clock of {worker.host} is {abs(worker.clock):.0f} s "
                f"{'ahead of' if worker.clock > 0 else 'behind'} that of this machine: set it (NTP)"
            )
        if 0 < worker.memory_limit < 1_500_000_000:
            found.append(
                f"worker {worker.address} has {worker.memory_limit / 1e9:.1f} GB: give it 2 GB or "
                "more"
            )
    return found


def as_lines(report: ClusterReport) -> list[str]:
    """Format the report: a line for each worker, then the advice."""
    n_threads = sum(worker.n_threads for worker in report.workers)
    memory = sum(worker.memory_limit for worker in report.workers)
    store = "" if report.store is None else f"; store {report.store}"
    lines = [
        f"{counted(len(report.workers), 'worker')}, {counted(n_threads, 'thread')}, "
        f"{memory / 1e9:.1f} GB{store}"
    ]
    for worker in report.workers:
        devices = ", ".join(f"{n} {kind}" for kind, n in Counter(worker.devices).items())
        is_read = " store read and written," if report.store and not worker.storage else ""
        lines.append(
            f"  {worker.address} on {worker.host}: {counted(worker.n_threads, 'thread')}, "
            f"{worker.memory_limit / 1e9:.1f} GB,{is_read} {devices or 'no device seen'}, clock "
            f"{worker.clock:+.1f} s"
        )
    lines += [f"advice: {text}" for text in report.advice] or ["advice: none, all is well"]
    return lines
