"""Events that a computation passes to its callbacks while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kpms_zarr.store.shown import ShownAsTable


@dataclass(frozen=True)
class ResourcePlan(ShownAsTable):
    """Memory, time and sizes that a computation will take.

    Attributes
    ----------
    n_segments, n_segment_frames, n_tiles : int
        Shape of a tile, and how many there are in a sweep.
    home : str
        Where the state of the chain lies: ``"device"``, ``"host"`` or ``"disk"``.
    device_bytes, device_limit : int
        Predicted peak on the device, and what it may be.
    host_bytes, host_limit : int
        Predicted peak of the process, the device memory of a CPU left out.
    state_bytes, data_bytes, kept_bytes : int
        The state of the chain; the tracked data, and how much of them stays in memory.
    recent_bytes : int
        For data around the tiles in flight.
    moved_bytes : int
        Between host and device in a sweep of the last stage; on a CPU, between arrays.
    read_bytes : int
        From the store in a sweep of the last stage, uncompressed.
    scratch_bytes : int
        On local disk.
    device : str
        Kind of device.
    seconds_per_sweep : float or None
        Of the last stage, when tiles have been timed.
    cluster : ClusterPlan or None
        On workers, where some were named.
    """

    n_sessions: int
    n_frames: int
    n_latent: int
    n_states: int
    n_segments: int
    n_segment_frames: int
    n_tiles: int
    tiles_in_flight: int
    home: str
    device_bytes: int
    device_limit: int
    host_bytes: int
    host_limit: int
    state_bytes: int
    data_bytes: int
    kept_bytes: int
    recent_bytes: int
    moved_bytes: int
    read_bytes: int
    scratch_bytes: int
    device: str
    seconds_per_sweep: float | None = None
    cluster: ClusterPlan | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """Plan of the sweeps of a fit on the workers of a cluster.

    Attributes
    ----------
    n_workers, n_threads : int
        Threads of all workers.
    n_shards, n_parts : int
        Shards, whose sums are taken one by one, and parts that workers keep.
    largest_frames : int
        Of the largest part.
    bytes_up, bytes_down : int
        Sums that come and parameters that go in a sweep, over all workers.
    worker_bytes, worker_limit : int
        Predicted peak of a worker that has the largest part, and memory of the smallest worker;
        0 = no limit.
    seconds_part, seconds_serial : float
        Of a sweep of the last stage over the largest part, and of what this process does between
        two sweeps; as fast as this machine.
    efficiency : float
        Share of the time that a mean worker sweeps.
    bound : str
        What bounds it, in words.
    """

    n_workers: int
    n_threads: int
    n_shards: int
    n_parts: int
    largest_frames: int
    bytes_up: int
    bytes_down: int
    worker_bytes: int
    worker_limit: int
    seconds_part: float
    seconds_serial: float
    efficiency: float
    bound: str


@dataclass(frozen=True)
class WorkersUsed:
    """Workers of a cluster that a fit runs on.

    Attributes
    ----------
    n_workers, n_parts : int
        That have sessions, and into how many parts these are shared out.
    n_again : int
        Calls that were made again, as their worker was gone or did not know what it was told.
    """

    n_workers: int
    n_parts: int
    n_again: int


class Event:
    """What callbacks are given while a computation runs."""


@dataclass(frozen=True)
class PlanMade(Event):
    """Event before anything runs."""

    plan: ResourcePlan


@dataclass(frozen=True)
class Noted(Event):
    """Event with a message that a person should read."""

    text: str


@dataclass(frozen=True)
class SweepStarted(Event):
    """Event before each sweep.

    Attributes
    ----------
    sweep, n_sweeps : int
        Counted from 1 over all stages; of a fit that ends when it has settled, ``n_sweeps`` at
        most.
    stage : str
        ``"ar"`` or ``"full"``.
    """

    sweep: int
    n_sweeps: int
    stage: str


@dataclass(frozen=True)
class TileDone(Event):
    """Event after each tile of a sweep.

    Attributes
    ----------
    sweep : int
        Counted from 1 over all stages.
    n_done, n_tiles : int
        In this sweep.
    """

    sweep: int
    n_done: int
    n_tiles: int


@dataclass(frozen=True)
class TimePredicted(Event):
    """Event once some tiles of a stage have run.

    Attributes
    ----------
    seconds_per_sweep : float
        Predicted from three tiles.
    """

    stage: str
    seconds_per_sweep: float


@dataclass(frozen=True)
class SweepEnded(Event):
    """Event after each sweep.

    Attributes
    ----------
    sweep, n_sweeps : int
        Counted from 1 over all stages.
    seconds : float
        Wall time of the sweep.
    log_likelihood : float
        Of all that the stage samples, given the parameters, nat per frame; different quantities in
        the two stages.
    median_duration : float
        Of the syllables in use, in ms.
    n_used : int
        Syllables with at least 0.5 % of the frames.
    stage : str
        ``"ar"`` or ``"full"``.
    waiting : float
        Share of the time in which the device had nothing to do; 0 on workers.
    workers : WorkersUsed or None
        Where the sessions lie with the workers of a cluster.
    """

    sweep: int
    n_sweeps: int
    seconds: float
    log_likelihood: float
    median_duration: float
    n_used: int
    kappa: float
    stage: str = "ar"
    waiting: float = 0.0
    workers: WorkersUsed | None = None


@dataclass(frozen=True)
class Committed(Event):
    """Event after a sweep was committed: a resume goes on from it.

    Attributes
    ----------
    sweep : int
        Sweeps that led to it, over all stages; 0 = the state before the first.
    n_bytes : int
        Before compression.
    """

    sweep: int
    n_bytes: int
    seconds: float


@dataclass(frozen=True)
class SessionsSettled(Event):
    """Event after each sweep of labelling sessions with a model.

    Attributes
    ----------
    sweep : int
        Counted from 1.
    n_settled, n_sessions : int
        Sessions whose labels no longer change more than from sample to sample, of all.
    """

    sweep: int
    n_settled: int
    n_sessions: int


@dataclass(frozen=True)
class Published(Event):
    """Event after the labels became current."""

    model: str
    version: str


@dataclass(frozen=True)
class ChainStarted(Event):
    """Event before a chain of a scan.

    Attributes
    ----------
    number, n_chains : int
        Counted from 1, over all points; those that were there already count.
    label : str
        Settings of its point, in words.
    """

    number: int
    n_chains: int
    label: str
    seed: int


@dataclass(frozen=True)
class ChainEnded(Event):
    """Event after a chain of a scan was kept.

    Attributes
    ----------
    number, n_chains, label, seed
        As in :class:`ChainStarted`.
    median_duration : float
        Of the syllables in use, in ms.
    n_used : int
        Syllables with at least 0.5 % of the frames.
    held_out_log_likelihood : float
        nat per frame; NaN where nothing is held out.
    """

    number: int
    n_chains: int
    label: str
    seed: int
    seconds: float
    median_duration: float
    n_used: int
    held_out_log_likelihood: float


Callback = Callable[[Event], None]


def tell(callbacks: Sequence[Callback], messages: list[str], event: Event) -> None:
    """Give an event to callbacks, and keep what it notes."""
    if isinstance(event, Noted):
        messages.append(event.text)
    for callback in callbacks:
        callback(event)
