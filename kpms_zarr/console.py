"""Results as text or JSON, and the progress of a fit on a terminal or a pipe."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TextIO

import numpy as np
import xarray as xr

from kpms_zarr.compute.events import Event, Noted, PlanMade, Published, SweepEnded

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


def size(n_bytes: int) -> str:
    """Bytes for people."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


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
            "attrs": _plain(dict(value.attrs)),
        }
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


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

    def __call__(self, event: Event) -> None:
        """Take an event of a fit."""
        if isinstance(event, PlanMade):
            self._line(
                f"{event.n_sessions} sessions, {event.n_frames:,} frames, {event.n_latent} latent "
                f"dimensions; tiles of {event.n_segments} x {event.n_segment_frames} frames, "
                f"{event.tiles_in_flight} in flight: {size(event.device_bytes)} on the device, "
                f"{size(event.scratch_bytes)} of scratch files"
            )
        elif isinstance(event, Noted):
            self._line(f"note: {event.text}")
        elif isinstance(event, SweepEnded):
            self._sweep(event)
        elif isinstance(event, Published):
            self._line(f"labels published: models/{event.model}/labels/{event.version}")

    def _line(self, text: str) -> None:
        clear = "\r\x1b[2K" if self._is_terminal else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()

    def _sweep(self, event: SweepEnded) -> None:
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
