"""Files damaged in many ways: read in a watched process, as a library may never end on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.ingest.workers import Workers
from kpms_zarr.store.parsers import parser_named
from kpms_zarr.store.parsers.base import NO_OPTIONS, Parser, ReadOptions

_SECONDS = 1.0
"""Of computing for one small file."""


def survives(parser: Parser, path: Path, options: ReadOptions = NO_OPTIONS) -> bool:
    """Whether a file is read to its end; whatever its bytes, only an InputError may stop it."""
    parser.sniff(path)
    problems: list[Problem] = []
    for work in (parser.inspect, lambda path, options: list(parser.read(path, 16, options))):
        try:
            work(path, options)
        except InputError as error:
            problems += error.problems
    assert all(p.expected and p.found and p.where and p.fix for p in problems)
    return not problems


def damages(
    whole: bytes, n: int, *, seed: int = 0, most: int = 8, end: int | None = None
) -> Iterator[bytes]:
    """The content of a file, damaged in so many ways: cut off, or some bytes changed.

    ``most``: bytes that change, at most; ``end``: of the part in which they do.
    """
    rng = np.random.default_rng(seed)
    for number in range(n):
        data = bytearray(whole)
        if number % 4 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            for at in rng.integers(0, end or len(data), rng.integers(1, most + 1)):
                data[at] ^= int(rng.integers(1, 256))
        yield bytes(data)


def survives_damage(parser: Parser, path: Path, n: int, **how: Any) -> int:
    """Damage a file in many ways; returns how often it is read to its end."""
    tasks = []
    for number, content in enumerate(damages(path.read_bytes(), n, **how)):
        bad = path.with_name(f"bad_{number}{path.suffix}")
        bad.write_bytes(content)
        tasks.append((parser.name, bad))
    with closing(Workers("process", 1)) as staff:
        assert list(staff.run(_survives, [(parser.name, path)])) == [(0, True)]  # imports, too
        results = [result for _, result in staff.run(_survives, tasks, seconds=[_SECONDS] * n)]
    for result in results:
        # To be ended by who watches is a refusal too; to crash is not.
        if isinstance(result, Exception) and "reading it takes more than" not in str(result):
            raise result
    return results.count(True)


def _survives(task: tuple[str, Path], ask: object) -> bool:
    name, path = task
    return survives(parser_named(name), path)
