"""The command that shows a store in the browser."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

import kpms_zarr
from kpms_zarr.cli.options import add_command, call


def explore(commands: Any) -> None:
    """``kpms-zarr explore``."""
    command = add_command(
        commands,
        "explore",
        _run_explore,
        "look at a store in the browser, while fits run or later; without STORE at the one in "
        "this folder",
        needs_store=False,
    )
    command.add_argument("--port", type=int, default=5006, help="of the pages; 0 = any free one")
    command.add_argument(
        "--address",
        default="127.0.0.1",
        help="of this machine to listen on; with another than 127.0.0.1 the pages are seen in the "
        "network, by those who have the link, which then holds a token",
    )
    command.add_argument(
        "--token", help="secret part of the link (none = a random one where one is needed)"
    )
    command.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="name under which browsers reach the pages through a proxy or tunnel",
    )
    command.add_argument("--show", action="store_true", help="open a browser")


def _run_explore(options: argparse.Namespace) -> tuple[object, str]:
    def ready(link: str) -> None:
        sys.stdout.write(f"ready: {link}\nCtrl-C ends it\n")
        sys.stdout.flush()

    options.store = options.store or "."
    sys.stderr.write("warming up ...\n")
    with contextlib.suppress(KeyboardInterrupt):
        call(kpms_zarr.explore, options, origins=options.origin, on_ready=ready)
    return None, ""
