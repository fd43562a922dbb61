"""What a fit on the workers of a cluster would take, and what bounds it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kpms_zarr.compute.cluster.worker import MEMORY_SHARE
from kpms_zarr.compute.config import Budget
from kpms_zarr.compute.events import ClusterPlan
from kpms_zarr.compute.kernels.ar import feature_pairs
from kpms_zarr.compute.runs.budget import time_of_tile
from kpms_zarr.compute.runs.bundle import bundles_of
from kpms_zarr.compute.runs.plan import Needs, fixed_settings, make_plan
from kpms_zarr.compute.runs.stages import stages_of
from kpms_zarr.compute.sampler.chain import ChainSizes
from kpms_zarr.compute.sampler.prior import ParameterPrior
from kpms_zarr.compute.sampler.tile_model import Parameters

_NUMBER = 8
_TRIES = 3


def plan_on_workers(needs: Needs, workers: Mapping[str, Mapping[str, Any]]) -> ClusterPlan:
    """Plan a sweep on workers; tiles and parameters are timed on this machine.

    Parameters
    ----------
    workers : mapping
        By address: ``nthreads``, ``memory_limit``.

    Raises
    ------
    InputError
        When the largest part does not fit the memory of a worker.
    """
    index, shape = needs.index, needs.shape
    threads = [int(worker["nthreads"]) for worker in workers.values()]
    limits = [int(worker.get("memory_limit") or 0) for worker in workers.values()]
    bundles = bundles_of(index.shard, index.length, len(workers))
    parts = [index.alone(which) for which in bundles]
    largest = max(parts, key=shape.n_tiles)
    limit = int(MEMORY_SHARE * min(limits)) if min(limits) else None
    budget = Budget(host_memory=limit, tiles_in_flight=None)
    plan = make_plan(replace(needs, index=largest, fixed=shape), budget)
    settings = fixed_settings(needs.config, fix_heading=needs.fix_heading)
    of_tile = time_of_tile(needs.sizes, settings, min(threads))
    sizes = ChainSizes(index, needs.n_latent, needs.n_space, needs.n_keypoints)
    prior = stages_of(needs.config, sizes)[-1].prior
    serial, parameters = _serial(prior, needs)
    of_largest = of_tile * shape.n_tiles(largest)
    every = of_tile * shape.n_tiles(index)
    total = of_largest + serial
    n_shards = int(index.shard.max(initial=0)) + 1
    n_numbers = len(feature_pairs(needs.n_latent, needs.config.lags)[0]) * needs.config.n_states
    return ClusterPlan(
        n_workers=len(workers),
        n_threads=sum(threads),
        n_shards=n_shards,
        n_parts=len(parts),
        largest_frames=largest.n_frames,
        bytes_up=_NUMBER * n_shards * n_numbers,
        bytes_down=len(parts) * parameters,
        worker_bytes=plan.host_bytes + plan.device_bytes,
        worker_limit=min(limits),
        seconds_part=of_largest,
        seconds_serial=serial,
        efficiency=min(1.0, every / (len(workers) * total)),
        bound=_bound(needs, parts, len(workers), serial / total),
    )


def _serial(prior: ParameterPrior, needs: Needs) -> tuple[float, int]:
    """Seconds that parameters take between two sweeps, and their bytes; of any moments."""
    n_states = needs.config.n_states
    first = prior.first(0, n_states)
    moments = np.zeros((n_states, len(feature_pairs(needs.n_latent, needs.config.lags)[0])))
    transitions = np.eye(n_states, dtype=np.int64)

    def draw() -> Parameters:
        drawn = prior.draw(
            0, 0, moments=moments, transitions=transitions,
            weight_bias=first.dynamics.weight_bias, usage=first.usage,
        )  # fmt: skip
        prior.log_density(drawn, None)
        prior.log_evidence(moments, transitions, first.dynamics.weight_bias)
        return drawn

    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        drawn = draw()
        seconds.append(time.perf_counter() - began)
    arrays = (*drawn.dynamics, drawn.usage, drawn.transition)
    return sorted(seconds)[_TRIES // 2], sum(np.asarray(values).nbytes for values in arrays)


def _bound(needs: Needs, parts: list[Any], n_workers: int, serial_share: float) -> str:
    """What keeps the workers from being used in full, in words."""
    index = needs.index
    if len(parts) < n_workers:
        longest = int(index.length.max(initial=0))
        return (
            f"{n_workers - len(parts)} of {n_workers} workers have nothing to do: sessions make "
            f"{len(parts)} parts (the longest session has {longest:,} frames, which stay together)"
        )
    frames = [part.n_frames for part in parts]
    if max(frames) > 1.2 * np.mean(frames):
        return f"the largest part has {max(frames) / np.mean(frames):.1f} times the mean"
    if serial_share > 0.1:
        return "parameters, drawn by this process between two sweeps"
    return "the sweeps themselves: more workers make it faster"
