"""Calls to the workers of a Dask cluster that each remember a part of a job."""

from __future__ import annotations

import contextlib
import pickle
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import getitem
from typing import TYPE_CHECKING, Any

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted

if TYPE_CHECKING:
    from distributed import Client, Future

_POLL_SECONDS = 0.5
_ASK_SECONDS = 60.0
_MOST_TRIES = 4
"""Of one call, when workers die under it."""
_MOST_FORGOTTEN = 3
"""Times that a worker may not know what it is told, though it is given all that it takes."""
_SLOW = 5.0
_SLOW_SECONDS = 20.0
"""A call is made a second time elsewhere when it takes this many times as long as the median of
those that are done, and longer than these seconds."""


class ClusterLost(ConnectionError):
    """Error: there is no cluster any more that could go on."""


class Forgotten(RuntimeError):
    """Error of a worker that does not remember what it was asked to go on from."""


@dataclass(frozen=True)
class Part:
    """Part of a job that one worker keeps.

    Attributes
    ----------
    worker : str
        Address; another one may do.
    """

    name: str
    worker: str


@dataclass
class _Try:
    """Call that is under way."""

    part: int
    key: str
    future: Future
    began: float
    is_whole: bool
    worker: str


@dataclass
class Crew:
    """Workers of a cluster, and calls to all parts of a job at once.

    Nothing depends on which worker answers: a call that finds nothing remembered is made again
    with all that it takes to begin anew.

    Attributes
    ----------
    notify : callable
        Is given what is worth saying.
    patience : float or None
        Seconds that a job waits for workers when it has none; None = until some come, as from the
        queue of a batch system.
    check : callable
        Is called while the job waits for workers; raises where it shall not.
    revive : callable
        Is called now and then while there is no worker, to ask for some anew.
    n_again : int
        Calls that were made again.
    """

    client: Client
    notify: Callable[[str], None] = field(default=lambda text: None)
    patience: float | None = 120.0
    check: Callable[[], None] = field(default=lambda: None)
    revive: Callable[[], None] = field(default=lambda: None)
    n_again: int = 0

    def workers(self) -> dict[str, Mapping[str, Any]]:
        """Workers by address: threads, memory limit, and so on; waits for the first one.

        Raises
        ------
        ClusterLost
            When none comes.
        """
        began = asked = time.monotonic()
        is_said = False
        while True:
            found = self.there()
            if found:
                return found
            self.check()
            now = time.monotonic()
            if self.patience is not None and now - began > self.patience:
                raise ClusterLost(
                    f"no worker has come to the cluster {self._where} in {self.patience:.0f} s"
                )
            if not is_said:
                is_said = True
                self.notify(f"no workers at {self._where}: waiting for one")
            if now - asked > _ASK_SECONDS:
                asked = now
                self.revive()
            time.sleep(_POLL_SECONDS)

    @property
    def _where(self) -> str:
        return self.client.scheduler.address if self.client.scheduler else "(closed)"

    def there(self) -> dict[str, Mapping[str, Any]]:
        """Workers that there are now; waits while the connection is being made again."""
        while self.client.status == "connecting":
            time.sleep(_POLL_SECONDS)
        if self.client.status != "running":
            raise ClusterLost("the scheduler of the cluster is gone")
        try:
            return dict(self.client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterLost(f"the scheduler of the cluster does not answer ({error})") from error

    def call(
        self,
        parts: list[Part],
        function: Callable[..., Any],
        arguments: Callable[[int, bool], tuple[Any, ...]],
        *,
        anywhere: bool = False,
        keep: bool = True,
        on_poll: Callable[[], None] = lambda: None,
        on_done: Callable[[int, Any], None] = lambda part, result: None,
    ) -> list[Any]:
        """Call a function for every part, and wait for all results.

        Parameters
        ----------
        parts : list of Part
            Is told which worker has answered for each: that one is asked the next time.
        function : callable
            May run twice for a part, also at the same time on two workers; raises
            :class:`Forgotten` where it needs all that it takes to begin anew. Once for each part,
            an OSError has it tried by another worker.
        arguments : callable
            Is given (position of the part, whether to give all that it takes).
        anywhere : bool
            Whichever worker is free takes the next one.
        keep : bool
            Whether results are returned; of a thousand workers they may take more than all else.
        on_poll : callable
            Is called about twice a second.
        on_done : callable
            Is given (position of the part, its result) as they come.

        Returns
        -------
        list
            In the order of the parts; of None where results are not kept.

        Raises
        ------
        ClusterLost
            When scheduler or workers are gone for good.
        Exception
            What the function has raised.
        """
        done: queue.Queue[_Try] = queue.Queue()
        under_way: dict[Any, _Try] = {}
        tries, forgotten = [0] * len(parts), [0] * len(parts)
        refused: set[int] = set()
        elsewhere: list[tuple[int, str]] = []
        results: dict[int, Any] = {}
        seconds: list[float] = []

        def submit(which: Sequence[int], *, is_whole: bool, workers: Sequence[str] = ()) -> None:
            """Submit the calls of some parts, each to a worker of its own, if these are given."""
            keys = [f"{parts[part].name}-{uuid.uuid4().hex[:12]}" for part in which]
            given = [arguments(part, is_whole) for part in which]
            try:
                futures = self._submit(keys, function, given, workers)
            except Exception as error:
                self.there()
                raise ClusterLost(f"the cluster takes no calls any more ({error})") from error
            began = time.monotonic()
            for i, (part, key, future) in enumerate(zip(which, keys, futures, strict=True)):
                tries[part] += 1
                one = _Try(part, key, future, began, is_whole, workers[i] if workers else "")
                under_way[key] = one
                future.add_done_callback(lambda _, one=one: done.put(one))

        waiting = deque(range(len(parts)))
        if anywhere:  # one for each worker, however many threads it has; whoever is free the next
            first = list(self.workers())[: len(parts)]
            submit([waiting.popleft() for _ in first], is_whole=True, workers=first)
        else:
            submit(waiting, is_whole=False, workers=[part.worker for part in parts])
            waiting.clear()
        try:
            while len(results) < len(parts):
                on_poll()
                # Not while that worker is busy: from its queue the one that failed, which is idle,
                # would take the call back.
                busy = {one.worker for one in under_way.values()}
                for part, worker in list(elsewhere):
                    if worker not in busy or worker not in self.there():
                        elsewhere.remove((part, worker))
                        busy.add(worker)
                        submit([part], is_whole=True, workers=[worker])
                ended = _all_in(done)
                if not ended:
                    there = self.there() or self.workers()
                    for one in self._stranded(under_way, there):
                        del under_way[one.key]
                        one.future.cancel()
                        tries[one.part] -= 1  # nobody has tried it
                        submit([one.part], is_whole=True)
                    if anywhere:  # whole jobs, which take as long as they take
                        busy = {one.worker for one in under_way.values()}
                        for worker in there:  # those that have come later
                            if waiting and worker not in busy:
                                submit([waiting.popleft()], is_whole=True, workers=[worker])
                        continue
                    for part in self._slow(under_way, results, seconds, tries):
                        self.notify(f"{parts[part].name} takes long: tried elsewhere as well")
                        submit([part], is_whole=True)
                    continue
                answers = self._answers([one for one in ended if one.part not in results])
                for one in ended:
                    under_way.pop(one.key, None)
                    if one.part in results:
                        continue
                    error, answer = answers[one.key]
                    if error is None:
                        worker, result = answer
                        results[one.part] = result if keep else None
                        parts[one.part] = replace(parts[one.part], worker=worker)
                        seconds.append(time.monotonic() - one.began)
                        on_done(one.part, result)
                        if waiting:
                            submit([waiting.popleft()], is_whole=True, workers=[worker])
                        continue
                    if any(other.part == one.part for other in under_way.values()):
                        continue  # tried elsewhere as well
                    lost = parts[one.part]
                    other = self._other_than(one.worker or lost.worker)
                    if isinstance(error, Forgotten):
                        forgotten[one.part] += one.is_whole
                        if forgotten[one.part] >= _MOST_FORGOTTEN:
                            raise _unseen(lost, error) from error
                        time.sleep(_POLL_SECONDS * forgotten[one.part])
                        other = other if forgotten[one.part] else ""
                    elif _is_of_storage(error) and other and one.part not in refused:
                        refused.add(one.part)  # a disk of that worker, or one that all share
                        self.notify(f"{lost.name} failed ({_first_line(error)}): tried elsewhere")
                    else:
                        self._failed(error, lost, tries[one.part])
                        other = ""
                    self.n_again += 1
                    is_there = not anywhere and lost.worker in self.there()
                    if other:
                        elsewhere.append((one.part, other))
                    else:
                        again = [lost.worker] if is_there else []
                        submit([one.part], is_whole=True, workers=again)
        finally:
            for one in under_way.values():
                with contextlib.suppress(Exception):  # of a client that is closed
                    one.future.cancel()
        return [results[part] for part in range(len(parts))]

    def _submit(
        self,
        keys: Sequence[str],
        function: Callable[..., Any],
        given: Sequence[tuple[Any, ...]],
        workers: Sequence[str],
    ) -> list[Future]:
        """Submit calls as one graph, in which what their arguments share is held once.

        ``workers``: for each call the one that is to take it, though any other may; or none.
        """
        import dask

        where: dict[str, Any] = {}
        if workers:
            of_key = dict(zip(keys, workers, strict=True))
            where = {"workers": partial(getitem, of_key), "allow_other_workers": True}
        with dask.annotate(**where):
            found: list[Future] = self.client.map(
                partial(_answer, function), list(given), key=list(keys), pure=False
            )
        return found

    def _answers(
        self, ended: Sequence[_Try]
    ) -> dict[str, tuple[Exception | None, tuple[str, Any]]]:
        """What calls have come to, by key: (error, (worker, result)); one message for many."""
        there: dict[str, Any] = {}
        finished = {one.key: one.future for one in ended if one.future.status == "finished"}
        if len(finished) > 1:
            with contextlib.suppress(Exception):
                there = self.client.gather(finished, errors="skip")
        found: dict[str, tuple[Exception | None, tuple[str, Any]]] = {}
        for one in ended:
            answer, error = there.get(one.key), None
            if answer is None:
                try:
                    # Also of a call that was finished: its worker may die before it is asked.
                    answer = one.future.result()
                except Exception as raised:
                    error = raised
            found[one.key] = (error, answer or ("", None))
        return found

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on all workers that there are, as far as they answer."""
        if self.client.status != "running":
            return
        with contextlib.suppress(Exception):
            self.client.run(function, *arguments, on_error="ignore")

    @contextmanager
    def listening(self, topic: str, handler: Callable[[Any], None]) -> Iterator[None]:
        """Context in which a handler is given what workers pass on (``worker.passer``)."""

        def handle(event: tuple[float, bytes]) -> None:
            handler(pickle.loads(event[1]))

        self.client.subscribe_topic(topic, handle)
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(topic)

    def _failed(self, error: BaseException, part: Part, n_tries: int) -> None:
        """Raise what makes no sense to try again; say what is tried again."""
        if not _is_of_workers(error):
            raise error
        self.workers()
        reason = _first_line(error)
        if n_tries >= _MOST_TRIES:
            raise ClusterLost(
                f"{part.name} was lost {counted(n_tries, 'time')}, the last time: {reason}"
            ) from error
        self.notify(f"{part.name} was lost ({reason}): begun again")

    def _other_than(self, worker: str) -> str:
        """A worker that is not that one; "" without."""
        return next((other for other in sorted(self.there()) if other != worker), "")

    def _stranded(self, under_way: Mapping[Any, _Try], there: Mapping[str, Any]) -> list[_Try]:
        """Calls that wait for a worker that is gone, though others are there.

        Dask offers a call that was meant for one worker, and came when there was none at all, to
        that one alone, also where others may take it.
        """
        found = {one.key: one for one in under_way.values() if one.worker not in ("", *there)}
        waiting: list[str] = []
        if found and there:
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                waiting = self.client.run_on_scheduler(_without_worker, list(found))
        return [found[key] for key in waiting]

    def _slow(
        self,
        under_way: Mapping[Any, _Try],
        results: Mapping[int, Any],
        seconds: Sequence[float],
        tries: Sequence[int],
    ) -> list[int]:
        """Parts that take far longer than those that are done."""
        if 2 * len(results) < len(tries) or not seconds:
            return []
        usual = sorted(seconds)[len(seconds) // 2]
        limit = max(_SLOW * usual, _SLOW_SECONDS)
        now = time.monotonic()
        found = [one.part for one in under_way.values() if now - one.began > limit]
        return [part for part in found if tries[part] == 1 and len(self.there()) > 1]


def _unseen(part: Part, error: Forgotten) -> InputError:
    return InputError(
        expected="a store that all workers see, under the name that it has here",
        found=f"a worker that does not find what was written: {error}",
        where=f"{part.worker}, {part.name}",
        fix="put the store on a file system that all share, or on S3; "
        "`kpms_zarr.doctor(cluster=CLUSTER, store=STORE)` looks at all workers",
    )


def _all_in(done: queue.Queue[_Try]) -> list[_Try]:
    """All that is in a queue; waits for the first for a while."""
    found: list[_Try] = []
    with contextlib.suppress(queue.Empty):
        found.append(done.get(timeout=_POLL_SECONDS))
        while True:
            found.append(done.get_nowait())
    return found


def _without_worker(keys: list[str], dask_scheduler: Any = None) -> list[str]:
    """Those of some calls for which the scheduler knows no worker; runs there."""
    tasks = (dask_scheduler.tasks.get(key) for key in keys)
    return [str(task.key) for task in tasks if task is not None and task.state == "no-worker"]


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Call a function on a worker; returns who that was, and the result."""
    from distributed import get_worker

    return get_worker().address, function(*arguments)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _is_of_storage(error: BaseException) -> bool:
    """Whether an error is one of the disk or network of a worker, which another may not have."""
    return isinstance(error, OSError) and not _is_of_workers(error)


def _is_of_workers(error: BaseException) -> bool:
    """Whether an error is one of the cluster rather than of what ran on it."""
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    return isinstance(
        error, KilledWorker | NoValidWorkerError | CommClosedError | FutureCancelledError
    )
