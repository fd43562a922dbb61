"""Many files at once: tasks run in guarded processes of this package, in threads, or right here.

The processes are started as programs of their own rather than by ``multiprocessing``, which would
run the script of the user again in each of them. Whoever hands out a task watches the process: a
library that loops over a damaged file, or takes all memory, is ended, and the file is named.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import psutil  # type: ignore[import-untyped]

Kind = Literal["process", "thread"]
Ask = Callable[[Any], Any]
"""What a task calls to ask something of the process that handed it out."""
Task = Callable[[Any, Ask], Any]

MAX_BYTES = 8_000_000_000
"""Memory of one process, or half of what is free, if that is less."""
MAX_SECONDS = 30.0
"""Time of computing for one small file; large ones have more, by `_BYTES_PER_SECOND`."""
_BYTES_PER_SECOND = 500_000
_LEAST_BYTES = 1_000_000_000
# Threads that are started later reserve stacks, which they hardly use.
_RESERVED_BYTES = 1_000_000_000 + 20_000_000 * (os.cpu_count() or 1)
_WATCH_SECONDS = 0.2
_SPARE_SECONDS = 60.0
"""A process waits for so long for the next ingest, which then need not start one."""

# Ctrl-C comes to all processes of a terminal, and this one is ended by who started it.
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from kpms_zarr.store.ingest.workers import serve; serve(int(sys.argv[2]))"
)


class WorkerLost(RuntimeError):
    """A worker that ended before its task did, or that had to be ended."""


def seconds_for(path: Path) -> float:
    """Time of computing that a file may take; what comes from memory has a name and no file."""
    with contextlib.suppress(OSError, ValueError):
        return MAX_SECONDS + path.stat().st_size / _BYTES_PER_SECOND
    return MAX_SECONDS


class Workers:
    """Who works: this thread, some threads, or some processes that stay until they are closed.

    Parameters
    ----------
    kind : {"process", "thread"}
    n : int
        None: this thread, and no other, with nobody to watch it.
    """

    def __init__(self, kind: Kind = "process", n: int = 0) -> None:
        self.n = n
        self._is_closed = False
        processes = [_process() for _ in range(n)] if kind == "process" else []
        self._processes = processes
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for number in range(n):
            self._idle.put(processes[number] if processes else None)

    def run(
        self,
        function: Task,
        tasks: Sequence[Any],
        answer: Callable[[int, Any], Any] = lambda index, question: None,
        seconds: Sequence[float] = (),
        stop: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[int, Any], None, None]:
        """Run a function on every task; results come as they are ready.

        Close the generator when its results are no longer wanted: nobody works on when it is
        closed.

        Parameters
        ----------
        function : callable (task, ask) -> result
            Of a module, so that another process finds it. Tasks are begun in their order.
        tasks : sequence
            Can be pickled, as can the results.
        answer : callable (index, question) -> reply
            Answers what a task asks, in a thread of its own per worker.
        seconds : sequence of float, optional
            Of computing that each task may take in a process; default: no limit.
        stop : callable, optional
            Is called when no more results are wanted, and ends all waiting in `answer`.

        Yields
        ------
        index : int
            Of the task.
        result : object
            Or the exception that the task ended with, not raised.
        """
        if not self.n:
            for index, task in enumerate(tasks):
                yield index, _caught(function, task, partial(answer, index))
            return
        with ThreadPoolExecutor(self.n, "ingest") as pool:
            limits = seconds or [float("inf")] * len(tasks)
            futures = {
                pool.submit(self._work, function, task, partial(answer, index), limit): index
                for index, (task, limit) in enumerate(zip(tasks, limits, strict=True))
            }
            is_whole = False
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
                is_whole = True
            finally:
                if not is_whole:
                    pool.shutdown(wait=False, cancel_futures=True)
                    stop()
                    self._end()

    def close(self) -> None:
        """End all processes, but for one that the next ingest may have."""
        if not self._is_closed:
            for process in self._processes[:1]:
                process.spare()
        self._end(self._processes[1:])

    def _end(self, processes: Sequence[_Process] | None = None) -> None:
        self._is_closed = True
        for process in self._processes if processes is None else processes:
            process.end()

    def _work(self, function: Task, task: Any, ask: Ask, seconds: float) -> Any:
        process = self._idle.get()
        try:
            if process is None:
                return _caught(function, task, ask)
            return _caught(partial(process.call, function, seconds), task, ask)
        finally:
            self._idle.put(process)


def _caught(function: Task, task: Any, ask: Ask) -> Any:
    try:
        return function(task, ask)
    except Exception as error:
        return error


# ------------------------------------------------------------------ a process, from outside


class _Process:
    """A process that does one task after another, watched while it does, started anew if lost."""

    def __init__(self) -> None:
        self._lock, self._is_ended = threading.Lock(), False
        self._start()

    def _start(self) -> None:
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        free = int(psutil.virtual_memory().available)
        self._max_bytes = min(MAX_BYTES, max(_LEAST_BYTES, free // 2))
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, paths, str(self._max_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        # It ends with the thread that has started it, see `_end_with_parent`.
        self._starter, self._owner = threading.current_thread(), os.getpid()
        self._is_ready = False

    def is_usable(self) -> bool:
        """Whether this process and thread may give it a task."""
        return (
            self._popen.poll() is None
            and self._starter.is_alive()
            and self._owner == os.getpid()
            and not self._is_ended
        )

    def call(self, function: Task, seconds: float, task: Any, ask: Ask) -> Any:
        """Have a task done.

        Raises
        ------
        WorkerLost
        OSError
            When there is no process to do it.
        """
        popen = self._ready()
        done, why = threading.Event(), list[str]()
        watch = threading.Thread(target=self._watch, args=(popen, seconds, done, why), daemon=True)
        watch.start()
        is_whole = False
        message: Any = (os.getcwd(), function, task)
        try:
            while True:
                word, content = _exchange(popen, message, why)
                if word == "done":
                    is_whole = True
                    return content
                message = ask(content)
        finally:
            done.set()
            watch.join()
            if not is_whole:  # it may still be at its task
                popen.kill()
                popen.wait()

    def _ready(self) -> subprocess.Popen[bytes]:
        """The process, when it waits for a task."""
        with self._lock:
            if self._is_ended:
                raise WorkerLost("the ingest has ended")
            if not self.is_usable():
                self._kill()
                self._start()
            popen = self._popen
        if not self._is_ready:
            try:
                self._is_ready = _receive(popen.stdout) == "ready"
            except (EOFError, ValueError) as error:
                raise OSError(
                    f"a process that reads files could not be started ({sys.executable}, status "
                    f"{popen.wait()}); with `workers=1` they are read in this process"
                ) from error
        return popen

    def _watch(
        self, popen: subprocess.Popen[bytes], seconds: float, done: threading.Event, why: list[str]
    ) -> None:
        """End the process when a task takes more than it may."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(popen.pid)
            start, held = _computing(process), _memory(process)
            while not done.wait(_WATCH_SECONDS):
                if _computing(process) - start > seconds:
                    why.append(f"that reading it takes more than {seconds:.0f} s of computing")
                elif _memory(process) - held > self._max_bytes:
                    why.append(
                        f"that reading it takes more than {self._max_bytes / 1e9:.3g} GB of memory"
                    )
                if why:
                    popen.kill()
                    return

    def spare(self) -> None:
        """Wait for the next ingest of this process; not for long."""
        if _spare or not self.is_usable():
            self.end()
            return
        _spare.append(self)
        timer = threading.Timer(_SPARE_SECONDS, self._no_longer_spare)
        timer.daemon = True
        self._timer = timer
        timer.start()

    def _no_longer_spare(self) -> None:
        with contextlib.suppress(ValueError):  # somebody has it
            _spare.remove(self)
            self.end()

    def taken(self) -> _Process:
        """Stay; somebody has work."""
        self._timer.cancel()
        return self

    def end(self) -> None:
        """End it for good."""
        with self._lock:
            self._is_ended = True
            if self._owner == os.getpid():
                self._kill()

    def _kill(self) -> None:
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):  # it may hold what the process no longer took
                pipe.close()  # type: ignore[union-attr]


_spare: list[_Process] = []


def _process() -> _Process:
    """The process of the ingest before, or a new one."""
    with contextlib.suppress(IndexError):
        spare = _spare.pop().taken()
        if spare.is_usable():
            return spare
        spare.end()
    return _Process()


@atexit.register
def _end_spare() -> None:
    while _spare:
        _spare.pop().taken().end()


def _computing(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> int:
    """Bytes in use, without files that are mapped, where the system tells them apart."""
    info = process.memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def _exchange(popen: subprocess.Popen[bytes], message: Any, why: list[str]) -> Any:
    """Say something to a process; returns what it says next."""
    try:
        _send(popen.stdin, message)
        return _receive(popen.stdout)
    except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise WorkerLost(*why or [_how_it_ended(popen)]) from error


def _how_it_ended(popen: subprocess.Popen[bytes]) -> str:
    try:
        status = popen.wait(10.0)
    except subprocess.TimeoutExpired:
        return "that the process which read it answered something else"
    if status == -9:  # nobody else sends this
        return "that the system ended the process which read it, as memory ran out, most likely"
    with contextlib.suppress(ValueError):
        return f"that the process which read it crashed ({signal.Signals(-status).name})"
    return f"that the process which read it ended by itself (status {status})"


def _send(pipe: BinaryIO | Any, message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> Any:
    size = pipe.read(8)
    if len(size) < 8:
        raise EOFError("the other side has gone")
    data = pipe.read(int.from_bytes(size, "little"))
    return pickle.loads(data)


# ------------------------------------------------------------------ inside the process


def serve(max_bytes: int) -> None:
    """Work for the process at the other end of standard input until it has gone.

    Parameters
    ----------
    max_bytes : int
        Memory that tasks may take. On Linux, what asks for far more at once has a MemoryError;
        what takes more little by little is seen by the process at the other end, on any system.
    """
    _end_with_parent()
    _limit_memory(max_bytes)
    # Whatever a library prints must not come between the messages.
    words, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr
    os.dup2(2, 1)
    given = sys.stdin.buffer

    def ask(question: Any) -> Any:
        _send(words, ("ask", question))
        return _receive(given)

    _send(words, "ready")
    while True:
        try:
            folder, function, task = _receive(given)
        except (EOFError, KeyboardInterrupt):
            return
        with contextlib.suppress(OSError):  # one that was deleted; then nothing in it is found
            os.chdir(folder)
        result = _caught(function, task, ask)
        try:
            if isinstance(result, Exception):
                # What led to it stays here: tblib, which dask.distributed installs, would pickle
                # that as well, errors of libraries that cannot be read back.
                result.__cause__ = result.__context__ = result.__traceback__ = None
                pickle.loads(pickle.dumps(result))
        except Exception:  # one of a library, with arguments of its own
            result = RuntimeError(f"{type(result).__name__}: {result}")
        try:
            _send(words, ("done", result))
        except BrokenPipeError:
            return


def _limit_memory(max_bytes: int) -> None:
    """Limit what can be asked for at once; files that are mapped do not count."""
    if sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(OSError, ValueError):
        limit = int(psutil.Process().memory_info().data) + max_bytes + _RESERVED_BYTES
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    with contextlib.suppress(OSError):  # if memory runs out, this process is to be ended first
        Path("/proc/self/oom_score_adj").write_text("500")


def _end_with_parent() -> None:
    """Have the system end this process when its parent is killed, where it can."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        kill_on_death = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(kill_on_death, signal.SIGKILL, 0, 0, 0)
