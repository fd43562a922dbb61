"""Command lines in processes that are killed when they are about to write or delete something.

As a script: ``killing.py JOBS`` with JOBS = [[moment or null, [word, ...]], ...], each in a fork of
one process that has imported everything; prints [[status, changes to the store], ...].
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

Job = tuple[int | None, Sequence[object]]
"""The number of the change that is not made any more, from 1 on (None = all are); words."""


class Ended(NamedTuple):
    """How a process ended, and how many changes it has made or begun."""

    status: int
    n_changes: int


def run_and_kill(jobs: Sequence[Job], modules: Sequence[str] = ()) -> list[Ended]:
    """Run command lines one after the other, each in a process that is killed at its moment."""
    text = json.dumps([[moment, list(map(str, words))] for moment, words in jobs])
    done = subprocess.run(
        [sys.executable, __file__, text, *modules],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Ended(*one) for one in json.loads(done.stdout.splitlines()[-1])]


class _Counter:
    """Counts what changes stores on local paths, and dies at a moment."""

    def __init__(self, moment: int | None, count: Path) -> None:
        self._moment, self._count = moment, count
        self._n, self._lock = 0, threading.Lock()

    def before(self, path: Path, *, is_deleted: bool) -> None:
        with self._lock:
            self._n += 1
            self._count.write_text(str(self._n))
            if self._n == self._moment:
                (_half_deleted if is_deleted else _half_written)(path)
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        from zarr.storage import LocalStore

        def wrap(name: str, *, is_deleted: bool, is_async: bool) -> None:
            if not hasattr(LocalStore, name):
                return
            original: Any = getattr(LocalStore, name)

            def changed(store: Any, key: str, *args: Any, **options: Any) -> Any:
                self.before(store.root / key, is_deleted=is_deleted)
                return original(store, key, *args, **options)

            async def changed_then(store: Any, key: str, *args: Any, **options: Any) -> Any:
                self.before(store.root / key, is_deleted=is_deleted)
                return await original(store, key, *args, **options)

            setattr(LocalStore, name, changed_then if is_async else changed)

        for name in ("_set", "delete", "delete_dir"):
            wrap(name, is_deleted=name != "_set", is_async=True)
        for name in ("set_sync", "delete_sync"):
            wrap(name, is_deleted=name != "set_sync", is_async=False)


def _half_written(path: Path) -> None:
    """What a write leaves that was cut short: a file of another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".cut.partial").write_bytes(b'{"zarr_')


def _half_deleted(path: Path) -> None:
    """What deleting a folder leaves at worst: the metadata of a group without its arrays."""
    if path.is_dir():
        for below in path.iterdir():
            if below.is_dir():
                shutil.rmtree(below)


def _main() -> None:
    import importlib

    for name in ("kpms_zarr.cli.entry", *sys.argv[2:]):
        importlib.import_module(name)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (moment, words) in enumerate(json.loads(sys.argv[1])):
            count = Path(folder) / str(number)
            count.write_text("0")
            child = os.fork()
            if not child:
                _child(moment, words, count)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            found.append([status, int(count.read_text() or 0)])
    sys.stdout.write(json.dumps(found))


def _child(moment: int | None, words: list[str], count: Path) -> None:
    from kpms_zarr.cli import main

    _Counter(moment, count).install()
    status = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        status = main(words)
    finally:
        os._exit(status)


if __name__ == "__main__":
    _main()
