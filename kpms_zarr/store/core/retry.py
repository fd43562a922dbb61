"""Retries of requests while a storage does not answer, then an error."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")

WAIT_SECONDS = 120.0
"""How long storage may be away, in all."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_SECONDS_BETWEEN_WORDS = 10.0
_said = -math.inf
_FINAL = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOENT}
_HOPELESS = (
    "NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound",
    "InvalidConfigError", "UnauthorizedSSOTokenError", "NoRegionError",
)  # fmt: skip
"""Of clients of clouds: what no waiting mends."""
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "obstore", "requests", "urllib3", "s3fs", "gcsfs")


class StorageError(OSError):
    """Error: a storage does not answer."""


def is_passing(error: BaseException) -> bool:
    """Whether an error of remote storage may be gone on the next try."""
    if isinstance(error, FileNotFoundError | PermissionError | StorageError):
        return False
    if isinstance(error, OSError):
        return error.errno not in _FINAL
    if type(error).__name__ in _HOPELESS:
        return False
    return type(error).__module__.split(".")[0] in _CLIENTS


def wait_seconds() -> float:
    """How long storage may be away; ``KPMS_ZARR_WAIT`` in the environment sets other seconds."""
    try:
        return float(os.environ["KPMS_ZARR_WAIT"])
    except (KeyError, ValueError):
        return WAIT_SECONDS


async def patiently(request: Callable[[], Awaitable[R]], place: str) -> R:
    """Make a request that can be made again, until the storage is back.

    Parameters
    ----------
    request : callable
    place : str
        URL, for messages: a warning is logged before the first wait, which goes to standard error
        where nobody has set up logging.

    Raises
    ------
    StorageError
        When the storage is still away after two minutes of waiting.
    """
    waited, pause = 0.0, _FIRST_PAUSE
    while True:
        try:
            return await request()
        except Exception as error:
            if not is_passing(error):
                raise
            # Only pauses count: a large object that fails twice has not waited long.
            if waited + pause > wait_seconds():
                raise StorageError(
                    f"{place} could not be reached for {waited:.0f} s: {error}"
                ) from error
            _say(f"{place} does not answer ({type(error).__name__}: {error}); trying again")
        await asyncio.sleep(pause)
        waited += pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _say(text: str) -> None:
    """Print a message once, not for each of many requests that wait at the same time."""
    global _said
    now = time.monotonic()
    if now - _said > _SECONDS_BETWEEN_WORDS:
        _said = now
        logging.getLogger("kpms_zarr").warning(text)
