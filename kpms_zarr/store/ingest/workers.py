"""Many files at once: tasks run in processes of this package, in threads, or one after another.

The processes are started as programs of their own rather than by ``multiprocessing``, which would
run the script of the user again in each of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, Literal

Kind = Literal["process", "thread"]
Ask = Callable[[Any], Any]
"""What a task calls to ask something of the process that handed it out."""
Task = Callable[[Any, Ask], Any]

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from kpms_zarr.store.ingest.workers import serve; serve()"
)


class WorkerLost(RuntimeError):
    """A worker that ended before its task did."""


class Workers:
    """Who works: this thread, some threads, or some processes that stay until they are closed.

    Parameters
    ----------
    kind : {"process", "thread"}
    n : int
        One: this thread, and no other.
    """

    def __init__(self, kind: Kind = "process", n: int = 1) -> None:
        self.kind, self.n = kind, n
        # Started here and not where they are fed: they end with the thread that starts them.
        self._processes = [_start() for _ in range(n if n > 1 and kind == "process" else 0)]

    def run(
        self,
        function: Task,
        tasks: Sequence[Any],
        answer: Callable[[int, Any], Any] = lambda index, question: None,
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

        Yields
        ------
        index : int
            Of the task.
        result : object
            Or the exception that the task ended with, not raised.
        """
        if self.n <= 1:
            for index, task in enumerate(tasks):
                yield index, _caught(function, task, partial(answer, index))
            return
        crew = _Crew(function, tasks, answer, self.n, self._processes)
        is_whole = False
        try:
            yield from crew.results()
            is_whole = True
        finally:
            if not is_whole:
                self._kill()
            crew.end()

    def close(self) -> None:
        """End all processes."""
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            # It closes its pipes, one of which may hold what the process no longer took.
            with contextlib.suppress(OSError), process:
                process.wait()


def _caught(function: Task, task: Any, ask: Ask) -> Any:
    try:
        return function(task, ask)
    except Exception as error:
        return error


class _Crew:
    """Threads that each work themselves or feed a process."""

    def __init__(
        self,
        function: Task,
        tasks: Sequence[Any],
        answer: Callable[[int, Any], Any],
        n: int,
        processes: Sequence[subprocess.Popen[bytes]],
    ) -> None:
        self._function, self._tasks, self._answer = function, tasks, answer
        self._next, self._lock = 0, threading.Lock()
        self._done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        workers: Sequence[subprocess.Popen[bytes] | None] = processes or [None] * n
        self._threads = [
            threading.Thread(target=self._work, args=(process,), daemon=True) for process in workers
        ]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[tuple[int, Any]]:
        """Results in the order in which they arrive."""
        for _ in range(len(self._tasks)):
            yield self._done.get()

    def end(self) -> None:
        """Hand out no more tasks, and wait until nobody works."""
        with self._lock:
            self._next = len(self._tasks)
        for thread in self._threads:
            thread.join()

    def _take(self) -> int | None:
        with self._lock:
            if self._next == len(self._tasks):
                return None
            self._next += 1
            return self._next - 1

    def _work(self, process: subprocess.Popen[bytes] | None) -> None:
        while (index := self._take()) is not None:
            task, ask = self._tasks[index], partial(self._answer, index)
            if process is None:
                self._done.put((index, _caught(self._function, task, ask)))
            else:
                converse = partial(self._converse, process)
                self._done.put((index, _caught(converse, task, ask)))

    def _converse(self, process: subprocess.Popen[bytes], task: Any, ask: Ask) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, (self._function, task))
            while True:
                word, content = _receive(process.stdout)
                if word == "done":
                    return content
                _send(process.stdin, ask(content))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise WorkerLost(
                f"a worker process ended by itself (exit status {process.poll()}); when memory ran "
                "out, use fewer workers"
            ) from error


def _start() -> subprocess.Popen[bytes]:
    paths = json.dumps([path for path in sys.path if isinstance(path, str)])
    return subprocess.Popen(
        [sys.executable, "-c", _START, paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


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


def serve() -> None:
    """Work for the process at the other end of standard input until it has gone."""
    _end_with_parent()
    # Whatever a library prints must not come between the messages.
    words, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr
    os.dup2(2, 1)
    given = sys.stdin.buffer

    def ask(question: Any) -> Any:
        _send(words, ("ask", question))
        return _receive(given)

    while True:
        try:
            function, task = _receive(given)
        except (EOFError, KeyboardInterrupt):
            return
        result = _caught(function, task, ask)
        try:
            if isinstance(result, Exception):
                pickle.loads(pickle.dumps(result))
        except Exception:  # one of a library, with arguments of its own
            result = RuntimeError(f"{type(result).__name__}: {result}")
        try:
            _send(words, ("done", result))
        except BrokenPipeError:
            return


def _end_with_parent() -> None:
    """Have the system end this process when its parent is killed, where it can."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        kill_on_death = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(kill_on_death, signal.SIGKILL, 0, 0, 0)
