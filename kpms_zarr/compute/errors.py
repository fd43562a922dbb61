"""Errors that stop a fit that had begun."""

from __future__ import annotations

from typing import Any


class SamplingError(RuntimeError):
    """Error: a draw has no finite result, not even in float64.

    Attributes
    ----------
    start, stop : int
        Frames of the segment that was being drawn.
    frame : int
        First frame without a finite result.
    state : int
        Its state.
    sweep : int
        Sweep that could not be finished, counted from 0 over all stages.
    """

    def __init__(
        self, session: str, start: int, stop: int, frame: int, state: int, sweep: int
    ) -> None:
        self.session, self.start, self.stop = session, start, stop
        self.frame, self.state, self.sweep = frame, state, sweep
        super().__init__(
            f"sweep {sweep + 1}: expected finite draws, found none at frame {frame} of session "
            f"{session!r} (frames {start} to {stop - 1}, state {state}), not even in float64.\n"
            "  What to do: look at the tracking around that frame with `kpms_zarr.quality`; remove "
            "values that are far out of range"
        )

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        arguments = (self.session, self.start, self.stop, self.frame, self.state, self.sweep)
        return type(self), arguments


class OutOfMemoryError(RuntimeError):
    """Error: not even one tile fits the memory that is free."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"out of memory: expected room for one tile of segments, found: {reason}\n"
            "  What to do: end what else uses the device or the machine, then go on: a fit with "
            "`resume=True`, everything else with the same command"
        )

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return type(self), (self.reason,)
