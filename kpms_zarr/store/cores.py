"""Number of processor cores that this process may use."""

from __future__ import annotations

import os


def n_cores() -> int:
    """Number of cores that this process may use; those of the machine where nothing limits it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
