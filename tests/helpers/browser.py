"""The real server in a process of its own, and a headless browser that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONTROLS = {"button", "textbox", "combobox", "slider", "checkbox", "radio", "tab", "spinbutton"}
PICTURES = Path(__file__).resolve().parents[2] / "build" / "screenshots"
"""Where screenshots of the tests are kept; not committed."""

SIZES = [(1280, 800), pytest.param((1920, 1080), marks=pytest.mark.full)]
"""Of windows in which pages are looked at."""

PATIENCE = 240_000
"""Milliseconds after which a page is taken to hang: other tests may have all cores meanwhile."""

MAIN = "import sys; from kpms_zarr.cli import main; sys.exit(main())"
_IDLE = "window.Bokeh && Bokeh.documents.length && Bokeh.documents.every(d => d.is_idle)"


class Server:
    """``kpms-zarr explore`` as a person starts it."""

    def __init__(self, store: Any, *options: str) -> None:
        command = [sys.executable, "-c", MAIN, "explore", str(store), "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.log: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.match(r"ready: (\S+)", line)
        assert found, (line, self.log)
        self.link = found[1]

    def _listen(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)

    def url(self, **choices: Any) -> str:
        """A link that holds some choices."""
        return f"{self.link}{'&' if '?' in self.link else '?'}{urlencode(choices)}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; a skip with a reason where none can be had."""
    if CHROMIUM is None:
        pytest.skip("needs chromium on PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Window:
    """A page in the browser, and what it complained of."""

    def __init__(self, browser: Any, *, size: tuple[int, int] = (1280, 800)) -> None:
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.page.set_default_timeout(PATIENCE)
        self.problems: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def _asked(self, request: Any) -> None:
        if not re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", request.url):
            self.foreign.append(request.url)

    def open(self, url: str) -> Any:
        """Go there and wait until nothing more is drawn."""
        self.page.goto(url)
        self.settle()
        return self.page

    def settle(self, milliseconds: int = 600) -> None:
        """Wait until the documents are idle, and a little more."""
        self.page.wait_for_function(_IDLE)
        self.page.wait_for_timeout(milliseconds)

    def unnamed(self) -> list[str]:
        """Controls without a name for those who do not see them, as the browser tells them."""
        client = self.page.context.new_cdp_session(self.page)
        client.send("Accessibility.enable")
        nodes = client.send("Accessibility.getFullAXTree")["nodes"]
        client.detach()
        return [
            node["role"]["value"]
            for node in nodes
            if not node.get("ignored")
            and node.get("role", {}).get("value") in CONTROLS
            and not node.get("name", {}).get("value", "").strip()
        ]

    def picture(self, name: str) -> None:
        """Keep a screenshot."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def close(self) -> None:
        self.page.close()


def download(page: Any, name: str, kind: str) -> tuple[str, bytes]:
    """Choose a kind of file of a picture in its menu, by keyboard; its name and content."""
    button = page.get_by_role("button", name=name).first
    button.scroll_into_view_if_needed()
    button.focus()
    page.keyboard.press("Enter")
    item = page.locator(f'[role=menuitem][data-kind="{kind}"]')
    item.wait_for()
    with page.expect_download() as waiting:
        while page.evaluate(_FOCUSED) != kind:
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    found = waiting.value
    return found.suggested_filename, Path(found.path()).read_bytes()


_FOCUSED = """() => {
  let one = document.activeElement;
  while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
  return one?.dataset?.kind ?? "";
}"""
