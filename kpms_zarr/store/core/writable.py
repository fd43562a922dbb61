"""Stores that cannot be written to, in plain words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import ReadOnlyError

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def is_read_only(store: StoreLike) -> bool:
    """Whether a store is known to be one that can be read only; of buckets it shows later."""
    if access.is_remote(store):
        return access.is_web(store)
    return not os.access(store, os.W_OK)


@contextmanager
def writing(store: StoreLike) -> Iterator[None]:
    """Context that turns errors of writing into plain words."""
    try:
        yield
    except OSError as error:
        if not (isinstance(error, PermissionError) or error.errno in _READ_ONLY):
            raise
        raise ReadOnlyError(
            expected="a store that can be written to",
            found=f"one that can be read only ({error.strerror or type(error).__name__})",
            where=os.fspath(store),
            fix="ask its owner for permission to write, or copy the store to a place of yours",
        ) from error
