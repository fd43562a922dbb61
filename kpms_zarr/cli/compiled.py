"""Compiled programs kept from one command to the next, in the user's cache folder.

JAX keeps them where the environment says; here it says so where the user has not, before JAX is
imported, for this process and those that it starts. What is kept is checked and bounded before it
is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import warnings
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

_MOST_BYTES = 400_000_000
_FOLDER, _OFF = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
_QUIET = (
    "Error reading persistent compilation cache",
    "Error writing persistent compilation cache",
)
_STAMP = ".checked"
_CPU_INFO = Path("/proc/cpuinfo")


def keep_programs() -> Path | None:
    """Have JAX keep compiled programs, unless the environment says where or that it shall not.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder, ``JAX_ENABLE_COMPILATION_CACHE=0`` keeps
    nothing. Does nothing where JAX has been imported already, nor where there is no folder to
    write to.

    Returns
    -------
    Path or None
        Folder of the programs, where this function has chosen it.
    """
    if "jax" in sys.modules or _FOLDER in os.environ or _OFF in os.environ:
        return None
    try:
        folder = user_cache() / "kpms_zarr" / "compiled" / _machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return None
        tidy(folder)
    except (OSError, RuntimeError):  # a home that is not there, read-only or full
        return None
    os.environ[_FOLDER] = os.fspath(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    # Where a program was compiled on this machine, what the loader says of others is not meant.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = os.environ.get("PYTHONWARNINGS")
    quiet = [f"ignore:{text}" for text in _QUIET]
    os.environ["PYTHONWARNINGS"] = ",".join([*([given] if given else []), *quiet])
    for text in _QUIET:  # an entry that cannot be read is compiled again
        warnings.filterwarnings("ignore", text)
    return folder


def user_cache() -> Path:
    """The user's cache folder, by the convention of the platform."""
    if sys.platform == "win32":
        given = os.environ.get("LOCALAPPDATA")
        return Path(given) if given else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    given = os.environ.get("XDG_CACHE_HOME", "")
    # By the convention of XDG a path that is not absolute does not count.
    return Path(given) if os.path.isabs(given) else Path.home() / ".cache"


def _machine() -> str:
    """Name of the kind of processor: homes are shared by machines, programs are not."""
    found = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
        names = ("model name", "flags", "Features")
        found += sorted({line for line in lines if line.startswith(names)})
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def tidy(folder: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Remove entries that a process did not finish, and those unused for longest beyond a size.

    An entry that is not whole would stay for ever: JAX never writes over one. Those that were
    written since the last call are looked at.
    """
    stamp = folder / _STAMP
    with contextlib.suppress(FileNotFoundError):
        checked = stamp.stat().st_mtime
        entries = _entries(folder)
        if all(status.st_mtime < checked for status in entries.values()):
            return
        for path in [path for path, status in entries.items() if status.st_mtime >= checked]:
            if not is_whole(path):
                _remove(path)
    stamp.touch()
    entries = _entries(folder)
    total = sum(status.st_size for status in entries.values())
    for path in sorted(
        entries, key=lambda path: max(entries[path].st_atime, entries[path].st_mtime)
    ):
        if total <= most_bytes:
            break
        total -= entries[path].st_size
        _remove(path)


def _entries(folder: Path) -> dict[Path, os.stat_result]:
    with os.scandir(folder) as found:
        return {
            Path(entry.path): entry.stat()
            for entry in found
            if entry.is_file() and entry.name != _STAMP
        }


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # another process was faster
        path.unlink()


def is_whole(path: Path) -> bool:
    """Whether a compressed entry can be read to its end."""
    try:
        data = path.read_bytes()
        decompress = _decompressor(data)
        if decompress is not None:
            decompress(data)
    except OSError:
        return True  # gone, or not for us to read
    except Exception:  # each library of compression has errors of its own
        return False
    return bool(data)


def _decompressor(data: bytes) -> Callable[[bytes], bytes] | None:
    """Function that reads what JAX has written: zlib, or zstandard where that is installed."""
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return zlib.decompress
    try:
        zstandard = import_module("zstandard")
    except ImportError:
        return None

    def read(data: bytes) -> bytes:
        found: bytes = zstandard.ZstdDecompressor().decompress(data)
        return found

    return read
