"""Connection to a Dask cluster: by address, by scheduler file, local, or as a file says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kpms_zarr.compute.cluster.crew import ClusterLost, Crew
from kpms_zarr.compute.cluster.worker import prepared
from kpms_zarr.store.cores import n_cores
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted

if TYPE_CHECKING:
    from distributed import Client

ClusterLike: TypeAlias = "str | os.PathLike[str] | Client | None"
"""Address, scheduler file, ``local:N``, YAML file, or a client of the caller's."""

HELP = (
    "workers of a Dask cluster that do the work: an address (tcp://host:8786), a scheduler file, "
    "local:N (N processes of this machine), or a YAML file of dask-jobqueue"
)

_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "local": "LocalCluster",
}
"""Sections of the file of dask-jobqueue, and the class of each."""

_TIMEOUT = "30s"


@contextmanager
def connected(
    cluster: ClusterLike, notify: Callable[[str], None] = lambda text: None
) -> Iterator[Crew | None]:
    """Context with the workers of a cluster; None where there is none to be used.

    Parameters
    ----------
    cluster : str, path, distributed.Client or None
        See ``ClusterLike``. None: the client that is active in this process, if there is one.
        What is begun here ends here; a cluster that was there before stays.
    notify : callable
        Is given what is worth saying, such as that no worker has come yet.

    Raises
    ------
    InputError
        When there is no such cluster, or the file does not say how to begin one.
    ClusterLost
        In the place of what Dask says of workers that are lost for good, with what to do.
    """
    if cluster is None:
        client = active_client()
        if client is None:
            yield None
            return
        with prepared(client), _explained(client):
            yield Crew(client, notify)
        return
    if not isinstance(cluster, str | os.PathLike):
        with cluster.as_current(), prepared(cluster), _explained(cluster):
            yield Crew(cluster, notify)
        return
    distributed = _distributed()
    where = os.fspath(cluster)
    with ExitStack() as stack:
        is_own = where == "local" or where.startswith("local:")
        patience, revive = Crew.patience, _nothing
        if is_own:
            found = stack.enter_context(_local(distributed, where))
            client = stack.enter_context(distributed.Client(found))
        elif "://" in where:
            client = stack.enter_context(_client(distributed, where, address=where))
        elif where.endswith((".yaml", ".yml")):
            found, revive = stack.enter_context(_of_file(Path(where)))
            client = stack.enter_context(distributed.Client(found))
            patience = None  # jobs wait in the queue of the batch system
        else:
            _check_scheduler_file(where)
            client = stack.enter_context(_client(distributed, where, scheduler_file=where))
        stack.enter_context(prepared(client, is_own=is_own))
        stack.enter_context(_explained(client))
        yield Crew(client, notify, patience, revive=revive)


def _nothing() -> None:
    pass


@contextmanager
def _explained(client: Client) -> Iterator[None]:
    """Context in which what Dask says of lost workers becomes a sentence that says what to do."""
    from distributed.client import CancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    where = client.scheduler.address if client.scheduler else "that was given"
    try:
        yield
    except KilledWorker as error:
        raise ClusterLost(
            f"workers of the cluster {where} were lost "
            f"{counted(error.allowed_failures + 1, 'time')} under the same work, the last one "
            f"{error.last_worker.address}, as when memory runs out: give them more of it or fewer "
            "threads each, see "
            "`kpms_zarr.doctor(cluster=CLUSTER)`, and run the same again"
        ) from error
    except (CancelledError, CommClosedError, NoValidWorkerError) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ClusterLost(
            f"the cluster {where} does not answer any more ({reason}): look at its scheduler and "
            "its workers, and run the same again, with or without `cluster=`"
        ) from error


def active_client() -> Client | None:
    """The ``distributed.Client`` that is active in this process; imports nothing."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client: Client = distributed.default_client()
    except ValueError:
        return None
    return client


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise InputError(
            expected="the package distributed, which speaks to workers",
            found="that it is not installed",
            where="`cluster=`",
            fix="pip install 'kpms_zarr[cluster]'",
        ) from error


def _local(distributed: Any, where: str) -> Any:
    number = where.partition(":")[2]
    if where != "local" and not (number.isdigit() and 1 <= int(number) <= 1024):
        raise InputError(
            expected="local:N, N processes of this machine",
            found=repr(where),
            where="`cluster=`",
            fix="give a whole number, such as local:4",
        )
    n_workers = int(number) if number else max(1, n_cores() // 2)
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=max(1, n_cores() // n_workers),
        dashboard_address=None,
    )  # fmt: skip


def _client(distributed: Any, where: str, **options: Any) -> Any:
    try:
        return distributed.Client(**options, timeout=_TIMEOUT)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            expected="a Dask scheduler that answers",
            found=f"none within {_TIMEOUT.rstrip('s')} seconds "
            f"({(str(error).splitlines() or [''])[0] or type(error).__name__})",
            where=where,
            fix="begin it (dask scheduler), and look whether this machine can reach it",
        ) from error


def _check_scheduler_file(where: str) -> None:
    try:
        with open(where, encoding="utf-8") as file:
            is_one = "address" in json.load(file)
        found = "a file without an address"
    except (OSError, ValueError) as error:
        is_one, found = False, f"{where!r} ({getattr(error, 'strerror', None) or error})"
    if not is_one:
        raise InputError(
            expected="an address such as tcp://host:8786, local:N, a YAML file, or the file that "
            "a scheduler writes for its workers",
            found=found,
            where="`cluster=`",
            fix="give one of these",
        )


@contextmanager
def _of_file(path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Cluster that a file of dask-jobqueue describes, with ``jobs:`` beside it, and what asks for
    these jobs anew."""
    given = _read(path)
    jobs = given.pop("jobs", None)
    if "class" in given:
        make = _class(path, str(given.pop("class")))
        options = given
        settings: dict[str, Any] = {}
    else:
        make, settings = _of_jobqueue(path, given)
        options = {}
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise _wrong(
            path, "`jobs: N`, the number of jobs, at the top", repr(jobs) if jobs else "none",
            "add `jobs: 4` for four jobs",
        )  # fmt: skip
    import dask

    with dask.config.set(settings):
        try:
            cluster = make(**options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise _wrong(path, "settings of a cluster", str(error), "see its documentation") from (
                error
            )
        scale = {"jobs": jobs} if hasattr(cluster, "job_script") else {"n": jobs}
        with cluster:
            cluster.scale(**scale)
            yield cluster, lambda: cluster.scale(**scale)


def _read(path: Path) -> dict[str, Any]:
    yaml: Any = import_module("yaml")  # of dask
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(path, "a file that can be read", str(error.strerror), "check it") from error
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise _wrong(path, "YAML", first, "check its indentation") from error
    if not isinstance(found, dict):
        raise _wrong(path, "names and values", type(found).__name__, "see docs/cluster.md")
    return found


def _of_jobqueue(path: Path, given: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    systems = given.get("jobqueue")
    systems = systems if isinstance(systems, dict) else {}
    names = list(systems)
    if len(names) != 1 or names[0] not in _SYSTEMS:
        raise _wrong(
            path, f"a section `jobqueue:` with one of {', '.join(_SYSTEMS)}, or `class:`",
            ", ".join(map(str, names)) or ", ".join(map(str, given)) or "nothing",
            "write `jobqueue:`, below it `slurm:`, and below that cores, memory and walltime, as "
            "in the documentation of dask-jobqueue",
        )  # fmt: skip
    (name,) = names
    make = _class(path, f"dask_jobqueue.{'local.' if name == 'local' else ''}{_SYSTEMS[name]}")
    # Any port: many may run a scheduler on the machine from which jobs are sent.
    wanted = {"scheduler-options": {"dashboard_address": ":0"}, **(systems[name] or {})}
    return make, {f"jobqueue.{name}.{key}": value for key, value in wanted.items()}


def _class(path: Path, name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        package = module.partition(".")[0].replace("_", "-")
        raise _wrong(
            path, "a kind of cluster that is installed", f"{name} ({error})",
            f"pip install {package}" if package else "write `class: dask_jobqueue.SLURMCluster`",
        ) from error  # fmt: skip
    return found


def _wrong(path: Path, expected: str, found: str, fix: str) -> InputError:
    return InputError(expected=expected, found=found, where=os.fspath(path), fix=fix)
