"""What stops a fit, Ctrl-C, SIGTERM or storage: where it stands then, and how to go on."""

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


@dataclass(frozen=True)
class PartOf:
    """What a fit is a part of, which is gone on with in its place.

    Attributes
    ----------
    words : str
        Which part of it the fit is, such as "chain 2 of 8 of the ensemble 'e'".
    how_to_resume : str
        The call that goes on with it.
    """

    words: str
    how_to_resume: str


class StorageRefused(OSError):
    """Storage that let a fit down, in words that say where it stands and how to go on."""


def refused(error: OSError, stands: str, how: str) -> StorageRefused:
    """Make an error of what the storage said.

    Parameters
    ----------
    error : OSError
    stands : str
        What is safe, such as "sweep 3 is committed".
    how : str
        What to do once it is mended, such as "go on with: ...".
    """
    what = str(error)
    if error.errno:
        what = f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    text = f"{what}; {stands}. Fix this, then {how}"
    return StorageRefused(error.errno, text) if error.errno else StorageRefused(text)


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
