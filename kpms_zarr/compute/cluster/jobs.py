"""Jobs on the workers of a cluster: each is whole, and whoever is free takes the next one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from kpms_zarr.compute.cluster.crew import Crew, Part
from kpms_zarr.compute.cluster.worker import pull
from kpms_zarr.compute.events import Callback


def run_jobs(
    crew: Crew,
    names: Sequence[str],
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    keep: bool = True,
    notify: Callback | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    on_poll: Callable[[], None] = lambda: None,
    on_done: Callable[[int, Any], None] = lambda job, result: None,
) -> list[Any]:
    """Call a function for every job on whichever worker is free, and wait for all results.

    Parameters
    ----------
    names : sequence of str
        Of the jobs, for what is said of them.
    function : callable
        Is given the arguments of a job and, at last, the name of its leash, which is also that of
        the topic on which it may pass notes on; may run again for a job whose worker was lost.
    arguments : sequence of tuple
        Of each job.
    keep : bool
        See :meth:`Crew.call`.
    notify : callable, optional
        Is given what workers pass on.
    is_stopped : callable
        Whether all jobs shall stop.
    on_poll, on_done : callable
        See :meth:`Crew.call`.

    Returns
    -------
    list
        In the order of the jobs.

    Raises
    ------
    ClusterLost
        When scheduler or workers are gone for good.
    Exception
        What the function has raised.
    """
    if not names:
        return []
    leash = f"kpms_zarr-{uuid.uuid4().hex[:12]}"
    first = next(iter(crew.workers()))
    parts = [Part(name, first) for name in names]

    def poll() -> None:
        on_poll()
        if is_stopped():
            crew.everywhere(pull, leash)

    try:
        with nullcontext() if notify is None else crew.listening(leash, notify):
            return crew.call(
                parts, function, lambda job, _: (*arguments[job], leash),
                anywhere=True, keep=keep, on_poll=poll, on_done=on_done,
            )  # fmt: skip
    except BaseException:
        crew.everywhere(pull, leash)  # whoever is at one need not go on
        raise
