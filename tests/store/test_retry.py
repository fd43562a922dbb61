"""Storage that is away for a while: waited for, then said; what is final is not waited for."""

from __future__ import annotations

import asyncio
import errno
import math

import pytest

from kpms_zarr.store.core import retry
from kpms_zarr.store.core.retry import StorageError, is_passing, patiently


class Clock:
    """Time that passes only while somebody sleeps or works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.pauses = 1000.0, []
        monkeypatch.setattr(retry.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(retry.asyncio, "sleep", self.sleep)
        monkeypatch.setattr(retry, "_said", -math.inf)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Away:
    """Fails so many times, each after a while."""

    def __init__(self, clock: Clock, n: float, error: Exception, seconds: float = 0.0) -> None:
        self.clock, self.left, self.error, self.seconds = clock, n, error, seconds
        self.n_calls = 0

    async def __call__(self) -> str:
        self.n_calls += 1
        self.clock.now += self.seconds
        if self.left > 0:
            self.left -= 1
            raise self.error
        return "done"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


GONE = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
URL = "s3://bucket/study.zarr"


def test_patiently__waits_longer_each_time_and_says_so_now_and_then(clock, caplog):
    call = Away(clock, 9, GONE)
    assert asyncio.run(patiently(call, URL)) == "done"
    assert call.n_calls == 10
    assert clock.pauses[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    assert max(clock.pauses) == 10
    assert 1 <= len(caplog.records) < 5
    assert "ConnectionResetError" in caplog.text
    assert URL in caplog.text


@pytest.mark.parametrize("seconds", [0.0, 7.0, 500.0])
def test_patiently__ends_with_what_went_wrong(clock, seconds, monkeypatch):
    """However long a call takes until it fails, the first one does not count as waiting."""
    monkeypatch.setenv("KPMS_ZARR_WAIT", "60")
    call = Away(clock, float("inf"), GONE, seconds)
    with pytest.raises(StorageError, match="could not be reached") as caught:
        asyncio.run(patiently(call, URL))
    assert URL in str(caught.value)
    assert "Connection reset" in str(caught.value)
    assert caught.value.__cause__ is GONE
    assert call.n_calls >= 2
    assert sum(clock.pauses) <= 60


def test_patiently__other_errors_are_not_waited_for(clock):
    for error in [
        ValueError("wrong shape"),
        FileNotFoundError(errno.ENOENT, "no such bucket"),
        PermissionError(errno.EACCES, "forbidden"),
        OSError(errno.ENOSPC, "No space left on device"),
    ]:
        call = Away(clock, 1, error)
        with pytest.raises(type(error)) as caught:
            asyncio.run(patiently(call, URL))
        assert caught.value is error
        assert call.n_calls == 1
    assert not clock.pauses


def test_is_passing__knows_errors_of_clients():
    """Of clients that are not installed here, by the name of their module."""
    of_client = type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"})
    assert is_passing(of_client("Could not connect to the endpoint URL"))
    assert is_passing(TimeoutError("timed out"))
    assert not is_passing(KeyError("x"))
