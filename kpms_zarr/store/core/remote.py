"""Stores behind a URL: every request is tried again while the storage is away."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from zarr.storage import FsspecStore, WrapperStore

from kpms_zarr.store.core.retry import patiently

R = TypeVar("R")


def remote_store(url: str, *, read_only: bool) -> PatientStore:
    """The Zarr store at a URL that fsspec understands."""
    return PatientStore(FsspecStore.from_url(url, read_only=read_only), url)


def _patient(name: str) -> Any:
    """Method of a Zarr store that makes its request again while the storage is away."""

    async def method(self: PatientStore, *args: Any, **kwargs: Any) -> Any:
        return await self._try(lambda: getattr(self._store, name)(*args, **kwargs))

    return method


def _patient_list(name: str) -> Any:
    """The same of one that lists keys, which begins anew then."""

    async def method(self: PatientStore, *args: Any) -> AsyncIterator[str]:
        async def keys() -> list[str]:
            return [key async for key in getattr(self._store, name)(*args)]

        for key in await self._try(keys):
            yield key

    return method


class PatientStore(WrapperStore[FsspecStore]):
    """Waits and tries again when a request fails for a reason that may pass.

    Requests put, get or delete whole objects, so that a second try does what the first would have
    done. After two minutes of waiting, :class:`retry.StorageError` is raised.

    Parameters
    ----------
    store : FsspecStore
    url : str
        For messages.
    """

    def __init__(self, store: FsspecStore, url: str = "") -> None:
        super().__init__(store)
        self._url = url

    def _with_store(self, store: FsspecStore) -> PatientStore:
        return PatientStore(store, self._url)

    def __str__(self) -> str:
        return self._url or str(self._store)

    async def _try(self, request: Callable[[], Awaitable[R]]) -> R:
        return await patiently(request, str(self))

    async def _get_many(self, requests: Iterable[Any]) -> AsyncGenerator[Any, None]:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    async def _set_many(self, values: Iterable[Any]) -> None:
        await asyncio.gather(*(self.set(key, value) for key, value in values))

    async def version(self, key: str) -> str | None:
        """What is another after every change of an object; None where there is no object.

        On S3 only, elsewhere None.
        """
        if not self._has_conditions:
            return None
        try:
            found = await self._try(lambda: self._store.fs._info(f"{self._store.path}/{key}"))
        except FileNotFoundError:
            return None
        return found.get("ETag")

    async def replace(self, key: str, value: bytes, version: str | None) -> bool | None:
        """Put an object if it has not changed since; in one step, so that of many one succeeds.

        A storage that ignores conditions puts the object all the same.

        Parameters
        ----------
        key : str
        value : bytes
        version : str or None
            See :meth:`version`; None = if there is no object.

        Returns
        -------
        bool or None
            Whether it was put; None where the storage says that it knows no conditions. False also
            follows an answer that was lost, after which the client has put it a second time.
        """
        if not self._has_conditions:
            return None
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}

        async def put() -> bool | None:
            try:
                await self._store.fs._pipe_file(f"{self._store.path}/{key}", value, **condition)
            except OSError as error:
                status = _status(error)
                if status == 412 or (status == 404 and version is not None):
                    return False
                if status == 501 or (status == 400 and error.errno == errno.EINVAL):
                    return None
                raise
            return True

        return await self._try(put)

    @property
    def _has_conditions(self) -> bool:
        return "s3" in self._store.fs.protocol

    get: Any = _patient("get")
    get_partial_values: Any = _patient("get_partial_values")
    exists: Any = _patient("exists")
    getsize: Any = _patient("getsize")
    set: Any = _patient("set")
    delete: Any = _patient("delete")
    delete_dir: Any = _patient("delete_dir")
    list: Any = _patient_list("list")
    list_prefix: Any = _patient_list("list_prefix")
    list_dir: Any = _patient_list("list_dir")


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of s3fs."""
    response = getattr(error.__cause__, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
