"""What the server of the pages says of its own troubles."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("panel")

from tornado.websocket import WebSocketClosedError

from kpms_zarr.viz.explore.server import _unless_closed


@pytest.mark.parametrize(
    ("error", "is_told"), [(WebSocketClosedError(), False), (KeyError("x"), True)]
)
def test_browser_that_leaves__is_no_trouble(error, is_told, caplog):
    loop = asyncio.new_event_loop()
    try:
        _unless_closed(loop, {"message": "Task exception was never retrieved", "exception": error})
    finally:
        loop.close()
    assert bool(caplog.records) == is_told
