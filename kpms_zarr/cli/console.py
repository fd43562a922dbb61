"""Results as text or JSON, and the progress of a fit on a terminal or a pipe."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import xarray as xr
from tqdm import tqdm

from kpms_zarr.compute.events import (
    ChainEnded,
    ChainStarted,
    ClusterPlan,
    Committed,
    Event,
    Noted,
    PlanMade,
    Published,
    SessionsSettled,
    SweepEnded,
    SweepStarted,
    TileDone,
    TimePredicted,
)
from kpms_zarr.compute.memory import (
    device_memory,
    peak_resident_memory,
    resident_memory,
    size,
)
from kpms_zarr.store.core import attributes
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted

if TYPE_CHECKING:
    from kpms_zarr.compute.events import ResourcePlan

_SLOW_SECONDS = 5.0
tqdm.monitor_interval = 0  # no thread that draws bars


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


_HOMES = {"device": "on the device", "host": "in host memory", "disk": "in scratch files"}


def plan_line(plan: ResourcePlan) -> str:
    """The plan of a computation in two lines."""
    return (
        f"{counted(plan.n_sessions, 'session')}, {plan.n_frames:,} frames, "
        f"{counted(plan.n_latent, 'latent dimension')}; "
        f"tiles of {plan.n_segments} x {plan.n_segment_frames} frames, {plan.tiles_in_flight} in "
        f"flight\n"
        f"plan: {size(plan.device_bytes)} on the device, {size(plan.host_bytes)} on the host; "
        f"state ({size(plan.state_bytes)}) {_HOMES[plan.home]}; each sweep moves "
        f"{size(plan.moved_bytes)} and reads {size(plan.read_bytes)} from the store"
    )


def plan_table(plan: ResourcePlan) -> str:
    """The plan of a computation in full."""
    facts = {
        "data": f"{counted(plan.n_sessions, 'session')}, {plan.n_frames:,} frames",
        "model": f"{counted(plan.n_latent, 'latent dimension')}, {plan.n_states} states",
        "tiles": f"{plan.n_tiles} a sweep of {plan.n_segments} segments x "
        f"{plan.n_segment_frames} frames, {plan.tiles_in_flight} in flight",
        "device": f"{plan.device}: peak {size(plan.device_bytes)} of {size(plan.device_limit)}",
        "host": f"peak {size(plan.host_bytes)} of {size(plan.host_limit)}",
        "state": f"{size(plan.state_bytes)} {_HOMES[plan.home]}",
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


def chain_line(event: ChainEnded) -> str:
    """What a chain of a scan has found, in a line."""
    held_out = event.held_out_log_likelihood
    likelihood = "" if math.isnan(held_out) else f", held out {held_out:.3f} nat/frame"
    return (
        f"chain {event.number} of {event.n_chains}: {event.label}, seed {event.seed}: median "
        f"{event.median_duration:.0f} ms, {event.n_used} syllables in use{likelihood} "
        f"({event.seconds:.1f} s)"
    )


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


class _Lines(tqdm):
    """A bar for what is no terminal: whole lines of its text."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line."""
        self.fp.write(f"{self}\n")
        self.fp.flush()


class Line:
    """A line of progress: a bar on a terminal, a new line now and then on a pipe, or nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_terminal = stream, stream.isatty()
        self._bar: Any = tqdm(disable=True)

    def show(self, what: str, n: float, total: int, text: str, seconds: float = math.inf) -> None:
        """Show that ``n`` of ``total`` are done, with a text that may hold ``{remaining}`` time.

        Another ``what`` begins another bar, with a speed of its own. ``seconds`` lie between lines
        on a pipe, where without them nothing is shown.
        """
        if not self._is_terminal and math.isinf(seconds):
            return
        text = f"[{{bar}}] {text}" if self._is_terminal else text
        if self._bar.disable or self._bar.desc != what:
            self._bar.close()
            self._bar = (tqdm if self._is_terminal else _Lines)(
                file=self._stream, desc=what, initial=n, total=total, bar_format=text, ascii=".#",
                miniters=0, dynamic_ncols=True, gui=not self._is_terminal,
            )  # fmt: skip
            self._bar.last_print_t = -math.inf
        self._bar.bar_format, self._bar.total = text, total  # a fit may end before its last sweep
        self._bar.mininterval = 0 if n == total else 0.1 if self._is_terminal else seconds
        self._bar.update(n - self._bar.n)
        if n == total:
            self.close()

    def write(self, text: str) -> None:
        """Write a line that stays, above the bar."""
        if self._is_terminal:
            tqdm.write(text, file=self._stream)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the bar, which stays as it is."""
        self._bar.close()


class Progress(Line):
    """Shows what a fit tells."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._sweep: SweepStarted | None = None
        self._chain: ChainStarted | None = None
        self._began, self._is_slow, self._facts = 0.0, False, ""

    def __call__(self, event: Event) -> None:
        """Take an event of a fit."""
        match event:
            case PlanMade():
                self.write(plan_line(event.plan))
            case Noted():
                self.write(f"note: {for_shell(event.text)}")
            case TimePredicted():
                seconds = event.seconds_per_sweep
                text = f"{seconds:.2g} s" if seconds < 60 else tqdm.format_interval(seconds)
                self.write(f"{event.stage}: about {text} a sweep")
            case SweepStarted():
                self._sweep, self._began = event, time.monotonic()
            case TileDone() if self._sweep and time.monotonic() - self._began > _SLOW_SECONDS:
                done = event.n_done / (event.n_tiles + 1)  # the parameters follow
                tile = f", tile {event.n_done} of {event.n_tiles}"
                self._show_sweep(self._sweep, done - 1, tile, 60)
            case SweepEnded():
                self._is_slow = event.seconds > _SLOW_SECONDS
                self._facts = (
                    f", median {event.median_duration:.0f} ms, {event.n_used} syllables in use, "
                    f"kappa {event.kappa:.2g}, {event.log_likelihood:.3f} nat/frame"
                )
                if event.workers is not None:
                    self._facts += f", {counted(event.workers.n_workers, 'worker')}"
                self._show_sweep(event)
            case ChainStarted():
                self._chain = event
            case ChainEnded():
                self.write(chain_line(event))
            case SessionsSettled(sweep, n, total):
                text = f"sweep {sweep}: {n} of {total} sessions settled"
                self.show("settled", n, total, text, 5.0)
            case Committed() if self._is_slow:
                self.write(f"sweep {event.sweep} committed ({size(event.n_bytes)})")
            case Published():
                self.write(f"labels published: models/{event.model}/labels/{event.version}")

    def _show_sweep(
        self,
        event: SweepStarted | SweepEnded,
        more: float = 0,
        tile: str = "",
        seconds: float = 5.0,
    ) -> None:
        n, total = event.sweep, event.n_sweeps
        if self._chain is not None:
            done, total = self._chain.number - 1 + (n + more) / total, self._chain.n_chains
            text = f"chain {self._chain.number}/{total}, {self._chain.label}, {{remaining}} left"
            self.show("scan", done, total, text, seconds)
            return
        text = f"{event.stage} sweep {n}/{total}{tile}, {{remaining}} left{self._facts}"
        self.show(event.stage, n + more, total, text, seconds)
