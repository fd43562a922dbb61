"""Memory of the host, of the control groups around this process, and of a device."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from kpms_zarr.store.errors import InputError

_ROOT = Path("/")
_UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGTP", 1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGTP", 1)},
}
_UNLIMITED = 2**60
"""Limits from here on mean none: control groups of version 1 have no word for it."""


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of these parameters for mallopt(3)."""


def keep_freed_memory() -> bool:
    """Let the allocator of this process hold on to what is freed, as that of others does.

    Dask sets ``MALLOC_TRIM_THRESHOLD_`` for its workers, and with it glibc no longer adapts its
    thresholds to what a program does: every buffer from 128 KiB on comes from the system anew, page
    by page, which made sweeps of the AR stage a quarter slower. These are the largest values that
    glibc comes to by itself. Nothing is done where that variable is not set, where thresholds were
    chosen by whoever began the process (``MALLOC_MMAP_THRESHOLD_``), or without glibc.

    Returns
    -------
    bool
        Whether something was done.
    """
    is_hindered = "MALLOC_TRIM_THRESHOLD_" in os.environ
    if not is_hindered or "MALLOC_MMAP_THRESHOLD_" in os.environ or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 2**25)) and bool(mallopt(_TRIM_THRESHOLD, 2**26))


def parse_size(text: str | int | float) -> int:
    """Parse a size as bytes.

    Parameters
    ----------
    text : str, int or float
        A whole number of bytes, or a number with a decimal (kB, MB, GB, TB, PB: powers of 1000) or
        binary (KiB, MiB, ...: powers of 1024) unit, as in ``"4GB"``, ``"1.5 GiB"``. Upper and lower
        case mean the same.

    Returns
    -------
    int
        Bytes, at least 1.
    """
    number: float | int | None = None
    if isinstance(text, str):
        match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text, re.ASCII)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match and unit:
            number = int(match[1]) * unit if match[1].isdigit() else float(match[1]) * unit
    elif not isinstance(text, bool) and isinstance(text, int | float) and math.isfinite(text):
        number = text
    n_bytes = 0 if number is None else round(number)
    if n_bytes < 1 or (isinstance(text, float) and text != n_bytes):
        raise InputError(
            expected="a size in bytes, or with a unit (kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
            found=repr(text),
            where="size of memory",
            fix='write for example "4GB" (4,000,000,000 bytes) or "4GiB" (4,294,967,296 bytes)',
        )
    return n_bytes


def size(n_bytes: int) -> str:
    """Format bytes for people, in decimal units (``dask.utils`` has binary ones only)."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


# ------------------------------------------------------------------ host


def free_host_memory(root: Path = _ROOT) -> int:
    """Memory of the host that this process may still take.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc`` and ``sys``; another one for tests.

    Returns
    -------
    int
        Bytes: what the machine has available, or what is left in the control groups of the process
        if that is less.
    """
    available = int(psutil.virtual_memory().available)
    left = cgroup_free(root)
    return available if left is None else min(available, left)


def total_host_memory() -> int:
    """Memory of the machine, bytes."""
    return int(psutil.virtual_memory().total)


@dataclass(frozen=True)
class _Version:
    """Names of the files of a version of control groups."""

    limit: str
    used: str
    reclaimable: str


_VERSIONS = (
    _Version("memory.max", "memory.current", "inactive_file"),
    _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cgroup_free(root: Path = _ROOT) -> int | None:
    """Bytes that are left in the control groups of this process.

    Files that the system keeps in memory and can drop at once (``inactive_file``) count as free.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc`` and ``sys``.

    Returns
    -------
    int or None
        Bytes: the least of all levels, of versions 1 and 2. None where nothing is limited.
    """
    left = [max(0, limit - used) for limit, used in _limits(root)]
    return min(left, default=None)


def cgroup_limit(root: Path = _ROOT) -> int | None:
    """The least limit of the control groups of this process, bytes; None where there is none."""
    return min((limit for limit, _ in _limits(root)), default=None)


def cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Folders of the control groups of this process, innermost first, up to the root of the tree.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc`` and ``sys``.
    controller : str
        ``"memory"`` or ``"cpu"``. For version 1; version 2 has one tree for all controllers.

    Returns
    -------
    list of Path
        Not all of them need exist: in a container the outer levels are out of sight, and its own
        group is the root of what it sees.
    """
    top = root / "sys" / "fs" / "cgroup"
    folders = []
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path:
            continue
        if not controllers:
            mounts = [top, top / "unified"]
        elif controller in controllers.split(","):
            mounts = [top / controller]
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in mounts:
            folders += [mount.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]
    return folders


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of every level that has a limit, bytes."""
    for folder in cgroup_folders(root, "memory"):
        for version in _VERSIONS:
            limit = _number(_text(folder / version.limit))
            used = _number(_text(folder / version.used))
            if limit is None or used is None or limit >= _UNLIMITED:
                continue
            kept = re.search(
                rf"^{version.reclaimable} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE
            )
            yield limit, max(0, used - (int(kept[1]) if kept else 0))


def _text(path: Path) -> str:
    """Text of a file of the system, "" where there is none for us."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """A whole number; None for "max" and for nothing."""
    return int(text) if text.strip().isdecimal() else None


# ------------------------------------------------------------------ this process


def resident_memory() -> int:
    """Memory that this process holds now (resident set), bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_memory(root: Path = _ROOT) -> int:
    """The most memory that this process has held (peak of the resident set), bytes.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc``.
    """
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    # Linux hands ru_maxrss of a parent on to the programs that it starts, this one not.
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", _text(root / "proc/self/status"), re.MULTILINE)
    if peak:
        return 1024 * int(peak[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ------------------------------------------------------------------ devices


@dataclass(frozen=True)
class DeviceMemory:
    """A device of JAX and its memory.

    Attributes
    ----------
    platform : str
        ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    kind : str
        Name of the model, such as ``"NVIDIA A100-SXM4-80GB"``.
    limit, free : int or None
        Bytes that JAX may take of it, and those not taken by this process; None where the backend
        does not say, as on a CPU, where memory is that of the host.
    """

    platform: str
    kind: str
    limit: int | None
    free: int | None


def device_memory() -> tuple[DeviceMemory, ...]:
    """The devices of the default JAX backend, the one that fits use first.

    Raises
    ------
    RuntimeError
        When JAX finds no backend that works.
    """
    import jax

    (chosen,) = jax.device_put(np.float32(0)).devices()
    devices = [chosen, *(device for device in jax.local_devices() if device != chosen)]
    return tuple(_describe(device) for device in devices)


def free_device_memory() -> int | None:
    """Memory of the default JAX device that is not in use.

    Returns
    -------
    int or None
        Bytes; None where the backend does not say, as on a CPU.
    """
    return device_memory()[0].free


def _describe(device: Any) -> DeviceMemory:
    try:
        stats = device.memory_stats() or {}
    except Exception:  # what a backend raises that does not count is up to it
        stats = {}
    limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use")
    free = None if limit is None or used is None else max(0, int(limit) - int(used))
    return DeviceMemory(
        str(device.platform), str(device.device_kind), None if limit is None else int(limit), free
    )
