"""Shared fixtures; and what is compiled once serves all processes of a run."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Read by JAX when it is imported; workers and the processes that tests start inherit it.
    _CACHE = tempfile.mkdtemp(prefix="kpms_zarr_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
