"""Ctrl-C and SIGTERM: finish the sweep, commit, and say how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


class FitInterrupted(KeyboardInterrupt):
    """A fit that was asked to stop, and stopped with its last sweep committed.

    Attributes
    ----------
    n_sweeps : int
        Sweeps that are committed.
    """

    def __init__(self, message: str, model: str, n_sweeps: int) -> None:
        self.model, self.n_sweeps = model, n_sweeps
        super().__init__(message)


@dataclass
class Stop:
    """Request to stop a fit, and whether it was reported."""

    is_asked: bool = False
    is_reported: bool = False

    def report(self, notify: Callable[[str], None]) -> None:
        """Report the request once; not from within the signal, which may come while
        somebody is writing."""
        if self.is_asked and not self.is_reported:
            self.is_reported = True
            notify("stopping once this sweep is done and committed; again to stop at once")

    def check(self) -> None:
        """Raise where there is nothing yet to finish or to commit (KeyboardInterrupt)."""
        if self.is_asked:
            raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn the first Ctrl-C (or SIGTERM, as batch systems send it) into a request.

    The second one stops at once. Outside the main thread, where Python delivers no signals,
    nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[Any, Any] = {}

    def ask(number: int, frame: Any) -> None:
        if stop.is_asked:
            raise KeyboardInterrupt
        stop.is_asked = True

    for number in _SIGNALS:
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
