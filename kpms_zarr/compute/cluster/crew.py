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
            :class:`Forgotten` where it needs all that it takes to begin anew.
        arguments : callable
            Is given (position of the part, whether to give all that it takes).
        anywhere : bool
            Whichever worker is free takes the next one.
        on_poll : callable
            Is called about twice a second.
        on_done : callable
            Is given (position of the part, its result) as they come.

        Returns
        -------
        list
            In the order of the parts.

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
        results: dict[int, Any] = {}
        seconds: list[float] = []

        def submit(part: int, *, is_whole: bool, worker: str = "") -> None:
            tries[part] += 1
            key = f"{parts[part].name}-{uuid.uuid4().hex[:12]}"
            where: dict[str, Any] = {"workers": [worker]} if worker else {}
            try:
                future = self.client.submit(
                    _answer, function, *arguments(part, is_whole), key=key, pure=False,
                    allow_other_workers=bool(where), **where,
                )  # fmt: skip
            except Exception as error:
                self.there()
                raise ClusterLost(f"the cluster takes no calls any more ({error})") from error
            one = _Try(part, future, time.monotonic(), is_whole, worker)
            under_way[key] = one
            future.add_done_callback(lambda _, one=one: done.put(one))

        waiting = deque(range(len(parts)))
        if anywhere:  # one for each worker, however many threads it has; whoever is free the next
            for worker in list(self.workers())[: len(parts)]:
                submit(waiting.popleft(), is_whole=True, worker=worker)
        else:
            while waiting:
                part = waiting.popleft()
                submit(part, is_whole=False, worker=parts[part].worker)
        try:
            while len(results) < len(parts):
                on_poll()
                try:
                    one = done.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    there = self.there() or self.workers()
                    if anywhere:  # whole jobs, which take as long as they take
                        busy = {one.worker for one in under_way.values()}
                        for worker in there:  # those that have come later
                            if waiting and worker not in busy:
                                submit(waiting.popleft(), is_whole=True, worker=worker)
                        continue
                    for part in self._slow(under_way, results, seconds, tries):
                        self.notify(f"{parts[part].name} takes long: tried elsewhere as well")
                        submit(part, is_whole=True)
                    continue
                under_way.pop(one.future.key, None)
                if one.part in results:
                    continue
                error: BaseException | None = None
                try:
                    # Also of a call that was finished: its worker may die before it is asked.
                    worker, results[one.part] = one.future.result()
                except Exception as found:
                    error = found
                if error is None:
                    parts[one.part] = replace(parts[one.part], worker=worker)
                    seconds.append(time.monotonic() - one.began)
                    on_done(one.part, results[one.part])
                    if waiting:
                        submit(waiting.popleft(), is_whole=True, worker=worker)
                    continue
                if any(other.part == one.part for other in under_way.values()):
                    continue  # tried elsewhere as well
                lost = parts[one.part]
                if isinstance(error, Forgotten):
                    forgotten[one.part] += one.is_whole
                    if forgotten[one.part] >= _MOST_FORGOTTEN:
                        raise _unseen(lost, error) from error
                    time.sleep(_POLL_SECONDS * forgotten[one.part])
                else:
                    self._failed(error, lost, tries[one.part])
                self.n_again += 1
                is_there = not anywhere and lost.worker in self.there()
                submit(one.part, is_whole=True, worker=lost.worker if is_there else "")
        finally:
            for one in under_way.values():
                with contextlib.suppress(Exception):  # of a client that is closed
                    one.future.cancel()
        return [results[part] for part in range(len(parts))]

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
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if n_tries >= _MOST_TRIES:
            raise ClusterLost(
                f"{part.name} was lost {counted(n_tries, 'time')}, the last time: {reason}"
            ) from error
        self.notify(f"{part.name} was lost ({reason}): begun again")

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


def _answer(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Call a function on a worker; returns who that was, and the result."""
    from distributed import get_worker

    return get_worker().address, function(*arguments)


def _is_of_workers(error: BaseException) -> bool:
    """Whether an error is one of the cluster rather than of what ran on it."""
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    return isinstance(
        error, KilledWorker | NoValidWorkerError | CommClosedError | FutureCancelledError
    )
