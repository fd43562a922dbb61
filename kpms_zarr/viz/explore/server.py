"""Server of the pages, on this machine only unless asked; warm before it is announced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import panel as pn
from tornado.websocket import WebSocketClosedError  # of bokeh

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.nearby import store_at
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.app import PAGES, page_module, window
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.style import load

LOCAL = "127.0.0.1"


def explore(
    store: StoreLike = ".",
    *,
    address: str = LOCAL,
    port: int = 0,
    token: str | None = None,
    origins: Sequence[str] = (),
    show: bool = False,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve the pages about a store until it is interrupted.

    Parameters
    ----------
    store : path or URL
        Or the folder that it lies in (default: the current one).
    address : str
        Address of this machine to listen on; others than 127.0.0.1 make the pages visible in the
        network, to those who know the token.
    port : int
        0 = any free one.
    token : str, optional
        Secret part of the link (default: none on 127.0.0.1, a random one elsewhere).
    origins : sequence of str
        ``host:port`` under which browsers reach the server, where it is not its address.
    show : bool
        Open a browser.
    on_ready : callable
        Gets the link once everything is warm.

    Raises
    ------
    InputError
        When there is no store, there are several in the folder, or the port is taken.
    """
    # What pages compute is done by the CPU; a fit beside it may have all of the GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    study = Study(store_at(store))
    if token is None and not _is_local(address):
        token = secrets.token_urlsafe(16)
    port = _free_port(address, port)
    warm(study)
    server = pn.serve(
        {"/": lambda: _admitted(study, token)},
        address=address,
        port=port,
        websocket_origin=_origins(address, port, origins),
        show=False,
        start=False,
        verbose=False,
        title="kpms_zarr",
    )
    host = socket.gethostname() if address in ("0.0.0.0", "::") else address
    link = f"http://{host}:{port}/" + (f"?token={quote(token)}" if token else "")
    on_ready(link)
    if show:
        webbrowser.open(link)
    server.start()
    server.io_loop.asyncio_loop.set_exception_handler(_unless_closed)
    try:
        server.io_loop.start()
    finally:
        server.stop()


def _unless_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what went wrong in the loop, unless a browser left while it was being sent to."""
    if not isinstance(context.get("exception"), WebSocketClosedError):
        loop.default_exception_handler(context)


def warm(study: Study) -> None:
    """Draw every page once, so that the first visitor does not wait for imports and compilation."""
    load()
    state = State(study)
    for name in PAGES:
        parts.guarded(_render)(page_module(name).page, state)


def _render(page: Callable[[State], Any], state: State) -> None:
    page(state).get_root()


def _admitted(study: Study, token: str | None) -> Any:
    """Pages, for those who know the token."""
    given = (pn.state.session_args or {}).get("token", [b""])[0]
    if token and not secrets.compare_digest(given, token.encode()):
        return parts.empty("This page opens with the whole link, its token included.")
    return window(study)


def _is_local(address: str) -> bool:
    return address in (LOCAL, "localhost", "::1")


def _origins(address: str, port: int, more: Sequence[str]) -> list[str]:
    hosts = {address, "localhost", LOCAL} if _is_local(address) else {address}
    if address in ("0.0.0.0", "::"):
        name = socket.gethostname()
        hosts = {LOCAL, "localhost", name, socket.getfqdn()}
        with contextlib.suppress(OSError):
            hosts |= {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    return [*(f"{host}:{port}" for host in sorted(hosts)), *more]


def _free_port(address: str, port: int) -> int:
    """Check that a port is free (InputError)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(
                expected="an address of this machine and a free port",
                found=f"{error.strerror or error}",
                where=f"{address}:{port}",
                fix="name another with `port=` (0 = any free one) or `address=`",
            ) from error
        return int(probe.getsockname()[1])
