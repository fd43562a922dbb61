"""Many files at once: tasks run in processes of this package, in threads, or one after another.

The processes are started as programs of their own rather than by ``multiprocessing``, which would
run the script of the user again in each of them.
"""

from __future__ import annotations

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
    "from kpms_zarr.store.workers import serve; serve()"
)


class WorkerLost(RuntimeError):
    """A worker that ended before its task did."""


def run_tasks(
    function: Task,
    tasks: Sequence[Any],
    *,
    answer: Callable[[int, Any], Any] = lambda index, question: None,
    kind: Kind = "process",
    n_workers: int = 1,
) -> Generator[tuple[int, Any], None, None]:
    """Run a function on every task; results come as they are ready.

    Parameters
    ----------
    function : callable (task, ask) -> result
        Of a module, so that another process finds it. Tasks are begun in their order.
    tasks : sequence
        Can be pickled, as can the results.
    answer : callable (index, question) -> reply
        Answers what a task asks, in a thread of its own per worker.
    kind : {"process", "thread"}
    n_workers : int
        One: no process and no thread is started.

    Yields
    ------
    index : int
        Of the task.
    result : object
        Or the exception that the task ended with, not raised.
    """
    if n_workers <= 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, _caught(function, task, partial(answer, index))
        return
    # Close the generator when its results are no longer wanted: that ends the workers.
    crew = _Crew(function, tasks, answer, kind, min(n_workers, len(tasks)))
    try:
        yield from crew.results()
    finally:
        crew.end()


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
        kind: Kind,
        n_workers: int,
    ) -> None:
        self._function, self._tasks, self._answer = function, tasks, answer
        self._next, self._lock = 0, threading.Lock()
        self._done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_over = False
        work = self._in_process if kind == "process" else self._in_thread
        self._threads = [threading.Thread(target=work, daemon=True) for _ in range(n_workers)]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[tuple[int, Any]]:
        """Results in the order in which they arrive."""
        for _ in range(len(self._tasks)):
            yield self._done.get()

    def end(self) -> None:
        """Hand out no more tasks; processes end, threads finish the task they are at."""
        with self._lock:
            self._is_over = True
            processes = list(self._processes)
        for process in processes:
            process.kill()
        for thread in self._threads:
            thread.join()
        for process in processes:
            with process:  # closes its pipes
                process.wait()

    def _take(self) -> int | None:
        with self._lock:
            if self._is_over or self._next == len(self._tasks):
                return None
            self._next += 1
            return self._next - 1

    def _in_thread(self) -> None:
        while (index := self._take()) is not None:
            ask = partial(self._answer, index)
            self._done.put((index, _caught(self._function, self._tasks[index], ask)))

    def _in_process(self) -> None:
        process: subprocess.Popen[bytes] | None = None
        while (index := self._take()) is not None:
            try:
                if process is None:
                    process = self._start()
                result = self._converse(process, index)
            except Exception as error:
                result = error
                process = None  # the next task gets a new one
            self._done.put((index, result))
        if process is not None:
            process.stdin.close()  # type: ignore[union-attr]

    def _start(self) -> subprocess.Popen[bytes]:
        import json

        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START,
                json.dumps([path for path in sys.path if isinstance(path, str)]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with self._lock:
            self._processes.append(process)
            if self._is_over:
                process.kill()
        return process

    def _converse(self, process: subprocess.Popen[bytes], index: int) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, (self._function, self._tasks[index]))
            while True:
                word, content = _receive(process.stdout)
                if word == "done":
                    return content
                _send(process.stdin, self._answer(index, content))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            code = process.wait()
            raise WorkerLost(
                f"a worker process ended by itself (exit status {code}); when memory ran out, use "
                "fewer workers"
            ) from error


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
    import contextlib
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        kill_on_death = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(kill_on_death, signal.SIGKILL, 0, 0, 0)
