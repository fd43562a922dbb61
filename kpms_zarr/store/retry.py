"""Storage that is away for a while: wait and try again, then say so."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from kpms_zarr.store.access import StoreLike, is_remote

R = TypeVar("R")

WAIT_SECONDS = 120.0
"""How long storage may be away, in all."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
_FINAL = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOENT}
_HOPELESS = (
    "NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound",
    "InvalidConfigError", "UnauthorizedSSOTokenError", "NoRegionError",
)  # fmt: skip
"""Of clients of clouds: what no waiting mends."""
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "obstore", "requests", "urllib3", "s3fs", "gcsfs")


class StorageError(OSError):
    """Storage that stayed away."""


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


def patiently(
    function: Callable[[], R],
    store: StoreLike,
    *,
    tell: Callable[[str], None] = lambda text: None,
    limit: float | None = None,
) -> R:
    """Call a function that can be called again; on remote storage until it is back.

    Parameters
    ----------
    function : callable
    store : path or URL
    tell : callable
        Is given a sentence before the first wait.
    limit : float, optional
        In s; default: 120 s.

    Raises
    ------
    StorageError
        When the storage is still away after that time.
    """
    limit = wait_seconds() if limit is None else limit
    waited = 0.0
    pause = FIRST_PAUSE
    while True:
        try:
            return function()
        except Exception as error:
            if not is_remote(store) or not is_passing(error):
                raise
            # Only pauses count: a long write that fails twice has not waited long.
            if waited + pause > limit:
                raise StorageError(
                    f"{os.fspath(store)} could not be reached for {waited:.0f} s: {error}"
                ) from error
            if not waited:
                tell(f"storage does not answer ({type(error).__name__}: {error}); trying again")
        time.sleep(pause)
        waited += pause
        pause = min(2 * pause, LONGEST_PAUSE)
