"""Progress of a computation: a bar on a terminal or in a notebook, lines now and then on a pipe."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import TqdmWarning, tqdm

from kpms_zarr.compute.events import (
    ChainEnded,
    ChainStarted,
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
from kpms_zarr.compute.memory import size
from kpms_zarr.store.wording import counted

if TYPE_CHECKING:
    from kpms_zarr.compute.events import ResourcePlan

_SLOW_SECONDS = 5.0
tqdm.monitor_interval = 0  # no thread that draws bars
# Where the state of a chain lies, in words.
HOMES = {"device": "on the device", "host": "in host memory", "disk": "in scratch files"}


def plan_line(plan: ResourcePlan) -> str:
    """The plan of a computation in two lines."""
    return (
        f"{counted(plan.n_sessions, 'session')}, {plan.n_frames:,} frames, "
        f"{counted(plan.n_latent, 'latent dimension')}; "
        f"tiles of {plan.n_segments} x {plan.n_segment_frames} frames, {plan.tiles_in_flight} in "
        f"flight\n"
        f"plan: {size(plan.device_bytes)} on the device, {size(plan.host_bytes)} on the host; "
        f"state ({size(plan.state_bytes)}) {HOMES[plan.home]}; each sweep moves "
        f"{size(plan.moved_bytes)} and reads {size(plan.read_bytes)} from the store"
    )


def chain_line(event: ChainEnded) -> str:
    """What a chain of a scan has found, in a line."""
    held_out = event.held_out_log_likelihood
    likelihood = "" if math.isnan(held_out) else f", held out {held_out:.3f} nat/frame"
    return (
        f"chain {event.number} of {event.n_chains}: {event.label}, seed {event.seed}: median "
        f"{event.median_duration:.0f} ms, {event.n_used} syllables in use{likelihood} "
        f"({event.seconds:.1f} s)"
    )


class _Lines(tqdm):
    """A bar for what is no terminal: whole lines of its text."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line."""
        self.fp.write(f"{self}\n")
        self.fp.flush()


def _in_notebook() -> bool:
    """Whether this process answers a notebook, which renders bars itself."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _bar_of_notebooks() -> type[tqdm]:
    """Bar as a notebook renders it; as text where it has no widgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm as bar
    return bar


class Line:
    """A line of progress: a bar on a terminal or in a notebook, lines now and then on a pipe."""

    def __init__(self, stream: TextIO | None = None) -> None:
        is_notebook = stream is None and _in_notebook()
        self._stream = stream or (sys.stdout if is_notebook else sys.stderr)
        self._is_terminal = is_notebook or self._stream.isatty()
        plain = tqdm if self._is_terminal else _Lines
        self._kind: type[tqdm] = _bar_of_notebooks() if is_notebook else plain
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
            self._bar = self._kind(
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
    """Callback that shows how far a computation is: ``fit(..., callbacks=[Progress()])``.

    A bar on a terminal and in a notebook (as widgets where it has them), a line now and then
    elsewhere; with sweep, time left, median duration, syllables in use and likelihood of a fit.

    Parameters
    ----------
    stream : file, optional
        Where to write; without it to stderr, or to the notebook that this is.
    words : callable, optional
        Puts messages into the words of the caller; those of Python without it.
    """

    def __init__(self, stream: TextIO | None = None, *, words: Callable[[str], str] = str) -> None:
        super().__init__(stream)
        self._words = words
        self._sweep: SweepStarted | None = None
        self._chain: ChainStarted | None = None
        self._began, self._is_slow, self._facts = 0.0, False, ""

    def __call__(self, event: Event) -> None:
        """Take an event of a fit."""
        match event:
            case PlanMade():
                self.write(plan_line(event.plan))
            case Noted():
                self.write(f"note: {self._words(event.text)}")
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
