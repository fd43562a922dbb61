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

from kpms_zarr.compute.events import (
    Committed,
    Event,
    Noted,
    PlanMade,
    Published,
    SessionsSettled,
    SweepEnded,
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
    from kpms_zarr.compute.events import Plan

_BAR = 24
_PIPE_SECONDS = 5.0


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


def plan_line(plan: Plan) -> str:
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


def plan_table(plan: Plan) -> str:
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
    width = max(len(name) for name in facts) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in facts.items())


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
        self._plan: Plan | None = None

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


class Progress:
    """Shows a fit: one line that is rewritten on a terminal, a line every 5 s on a pipe.

    Parameters
    ----------
    stream : text stream
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._last = -math.inf
        self._recent: list[float] = []
        self._stage = ""
        self._swept = time.monotonic()
        self._is_slow = False

    def __call__(self, event: Event) -> None:
        """Take an event of a fit."""
        if isinstance(event, PlanMade):
            self._line(plan_line(event.plan))
        elif isinstance(event, Noted):
            self._line(f"note: {for_shell(event.text)}")
        elif isinstance(event, SweepEnded):
            self._sweep(event)
        elif isinstance(event, TimePredicted):
            seconds = event.seconds_per_sweep
            text = f"{seconds:.2g} s" if seconds < 60 else _clock(seconds)
            self._line(f"{event.stage}: about {text} a sweep")
        elif isinstance(event, TileDone):
            self._tile(event)
        elif isinstance(event, SessionsSettled):
            self._settled(event)
        elif isinstance(event, Committed) and self._is_slow:
            self._line(f"sweep {event.sweep} committed ({size(event.n_bytes)})")
        elif isinstance(event, Published):
            self._line(f"labels published: models/{event.model}/labels/{event.version}")

    def _line(self, text: str) -> None:
        clear = "\r\x1b[2K" if self._is_terminal else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()

    def _settled(self, event: SessionsSettled) -> None:
        is_last = event.n_settled == event.n_sessions
        text = f"sweep {event.sweep}: {event.n_settled} of {event.n_sessions} sessions settled"
        if self._is_terminal:
            self._stream.write(f"\r\x1b[2K{text}" + ("\n" if is_last else ""))
            self._stream.flush()
        elif is_last or time.monotonic() - self._last >= _PIPE_SECONDS:
            self._last = time.monotonic()
            self._line(text)

    def _tile(self, event: TileDone) -> None:
        """Within a sweep, when it is a long one."""
        now = time.monotonic()
        self._is_slow = now - self._swept > _PIPE_SECONDS
        if not self._is_slow or now - self._last < (0.5 if self._is_terminal else 60):
            return
        self._last = now
        text = f"sweep {event.sweep}: tile {event.n_done} of {event.n_tiles}"
        if self._is_terminal:
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()
        else:
            self._line(text)

    def _sweep(self, event: SweepEnded) -> None:
        self._swept = time.monotonic()
        left = "?"  # the first sweep of a stage compiles and tells nothing about the others
        if event.stage != self._stage:
            self._stage, self._recent = event.stage, []
        else:
            self._recent = [*self._recent[-9:], event.seconds]
            left = _clock((event.n_sweeps - event.sweep) * float(np.median(self._recent)))
        done = round(_BAR * event.sweep / event.n_sweeps)
        text = (
            f"{event.stage} sweep {event.sweep}/{event.n_sweeps}  {left} left  median "
            f"{event.median_duration:.0f} ms  {event.n_used} syllables in use  "
            f"kappa {event.kappa:.2g}  {event.log_likelihood:.3f} nat/frame"
        )
        is_last = event.sweep == event.n_sweeps
        if self._is_terminal:
            bar = "#" * done + "." * (_BAR - done)
            self._stream.write(f"\r\x1b[2K[{bar}] {text}" + ("\n" if is_last else ""))
            self._stream.flush()
        elif is_last or time.monotonic() - self._last >= _PIPE_SECONDS:
            self._last = time.monotonic()
            self._line(text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
