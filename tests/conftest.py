"""Shared fixtures; and what is compiled once serves all processes of a run."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Read by JAX when it is imported; workers and the processes that tests start inherit it.
    _CACHE = tempfile.mkdtemp(prefix="kpms_zarr_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
    # What some versions say of programs that they compiled on the same machine a moment ago.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

if not os.environ.get("KPMS_ZARR_FULL"):
    # Compiles a sweep in two thirds of the time; small sweeps run as fast.
    _LEVEL = "--xla_backend_optimization_level=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_LEVEL}".strip()

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# Tests that take longest begin first, so that no worker is left with one of them at the end.
_LONGEST = (
    "notebooks",
    "statistical",
    "s3",
    "test_resume",
    "test_budget",
    "test_full_fit",
    "test_explore_fit",
    "test_consensus",
    "test_settling",
    "test_odd_sessions",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is marked ``full`` to full runs, and put long tests first."""
    if not os.environ.get("KPMS_ZARR_FULL"):
        left = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if not item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left)

    def rank(item: pytest.Item) -> int:
        found = (i for i, part in enumerate(_LONGEST) if f"{part}" in item.nodeid.split("::")[0])
        return next(found, len(_LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def _freeze() -> Iterator[None]:
    """Spare the garbage collector what modules have left: it would walk through it for good.

    A full run leaves more than fits into memory, so that what is no longer in use goes.
    """
    yield
    if os.environ.get("KPMS_ZARR_FULL"):
        gc.unfreeze()
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
    gc.collect()
    gc.freeze()


@pytest.fixture
def full() -> bool:
    """Whether slow tests run at their full length (`make test-full`)."""
    return bool(os.environ.get("KPMS_ZARR_FULL"))


@pytest.fixture
def nine_mice() -> Path:
    """The real data set of nine sessions."""
    folder = DATA / "dlc_csv" / "Rensykes_dlc-keypoint-moseq-utils"
    if not DATA.is_dir():
        pytest.skip("the folder shared/data with real tracking files is not beside the checkout")
    return folder
