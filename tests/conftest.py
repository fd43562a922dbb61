"""Shared fixtures."""

import os
from pathlib import Path

import pytest

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
