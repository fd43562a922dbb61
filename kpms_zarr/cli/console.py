"""Results as text or JSON, the log of a fit for machines, and a watch over its memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.events import ClusterPlan, Committed, Event, PlanMade, SweepEnded, TileDone
from kpms_zarr.compute.memory import (
    device_memory,
    peak_resident_memory,
    resident_memory,
    size,
)
from kpms_zarr.progress import HOMES
from kpms_zarr.store.core import attributes
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted

if TYPE_CHECKING:
    from kpms_zarr.compute.events import ResourcePlan


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def percent(share: float) -> str:
    """0.123 -> ``12.3 %``; NaN -> ``-``."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def milliseconds(value: float) -> str:
    """Whole ms; NaN -> ``-``."""
    return "-" if math.isnan(value) else f"{value:.0f}"


def figure(value: float, digits: int = 2) -> str:
    """0.123 -> ``0.12``; NaN -> ``-``."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def to_json(result: object) -> str:
    """A summary or dataset as JSON; NaN becomes null."""
    return json.dumps(_plain(result), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, xr.Dataset):
        return {
            "dims": {str(name): int(length) for name, length in value.sizes.items()},
            "coords": {str(n): _plain(np.asarray(v)) for n, v in value.coords.items()},
            "variables": {
                str(n): {"dims": [str(d) for d in v.dims], "values": _plain(np.asarray(v))}
                for n, v in value.data_vars.items()
            },
            "attrs": _plain(attributes.read(value.attrs)),
        }
    if isinstance(value, xr.DataArray):
        return {
            "dims": [str(d) for d in value.dims],
            "coords": {str(n): _plain(np.asarray(v)) for n, v in value.coords.items()},
            "values": _plain(np.asarray(value)),
            "attrs": _plain(attributes.read(value.attrs)),
        }
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return for_shell(value)
    if isinstance(value, int | float | bool) or value is None:
        return value
    return str(value)


def plan_table(plan: ResourcePlan) -> str:
    """The plan of a computation in full."""
    facts = {
        "data": f"{counted(plan.n_sessions, 'session')}, {plan.n_frames:,} frames",
        "model": f"{counted(plan.n_latent, 'latent dimension')}, {plan.n_states} states",
        "tiles": f"{plan.n_tiles} a sweep of {plan.n_segments} segments x "
        f"{plan.n_segment_frames} frames, {plan.tiles_in_flight} in flight",
        "device": f"{plan.device}: peak {size(plan.device_bytes)} of {size(plan.device_limit)}",
        "host": f"peak {size(plan.host_bytes)} of {size(plan.host_limit)}",
        "state": f"{size(plan.state_bytes)} {HOMES[plan.home]}",
        "tracked data": f"{size(plan.data_bytes)}, {size(plan.kept_bytes)} of it kept in memory",
        "each sweep": f"{size(plan.moved_bytes)} between host and device, "
        f"{size(plan.read_bytes)} from the store",
        "scratch": size(plan.scratch_bytes),
    }
    if plan.seconds_per_sweep is not None:
        facts["time"] = f"about {plan.seconds_per_sweep:.2g} s a sweep of the last stage"
    if plan.cluster is not None:
        facts |= _on_workers(plan.cluster)
    width = max(len(name) for name in facts) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in facts.items())


def _on_workers(plan: ClusterPlan) -> dict[str, str]:
    limit = f" of {size(plan.worker_limit)}" if plan.worker_limit else ""
    return {
        "cluster": f"{counted(plan.n_workers, 'worker')}, {counted(plan.n_threads, 'thread')}",
        "parts": f"{plan.n_parts} of {counted(plan.n_shards, 'shard')}, the largest of "
        f"{plan.largest_frames:,} frames",
        "worker": f"peak {size(plan.worker_bytes)}{limit}",
        "network": f"{size(plan.bytes_up)} up and {size(plan.bytes_down)} down a sweep",
        "sweep": f"about {plan.seconds_part:.2g} s of the largest part (last stage), "
        f"{1000 * plan.seconds_serial:.0f} ms of this process between two",
        "efficiency": f"{plan.efficiency:.0%}; bounded by {plan.bound}",
    }


class JsonLog:
    """Writes every event as one line of JSON, with the time and the memory in use.

    Parameters
    ----------
    path : str
        Is appended to.
    """

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                expected="a file that can be written",
                found=str(error.strerror),
                where=path,
                fix="name another file behind --log",
            ) from error

    def __call__(self, event: Event) -> None:
        """Take an event."""
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": type(event).__name__,
            **_plain(event),
            "resident_bytes": resident_memory(),
        }
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MemoryWatch:
    """Compares the memory in use with the plan, and says so once when it is exceeded.

    Parameters
    ----------
    tell : callable
        Is given a sentence.

    Attributes
    ----------
    host_peak, device_peak : int
        In bytes; 0 on the device where the backend does not say.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.host_peak = self.device_peak = 0
        self._tell, self._is_told = tell, False
        self._plan: ResourcePlan | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, PlanMade):
            self._plan, self._is_told = event.plan, False
        if not isinstance(event, SweepEnded | TileDone | Committed):
            return
        self.host_peak = max(self.host_peak, peak_resident_memory())
        device = device_memory()[0]
        if device.limit is not None and device.free is not None:
            self.device_peak = max(self.device_peak, device.limit - device.free)
        plan = self._plan
        if plan is None or self._is_told:
            return
        limit = plan.host_bytes + (plan.device_bytes if device.limit is None else 0)
        if self.host_peak > 1.25 * limit:
            self._is_told = True
            self._tell(
                f"{size(self.host_peak)} of memory in use, more than planned ({size(limit)})"
            )
