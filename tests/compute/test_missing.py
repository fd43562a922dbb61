"""What is missing is missing everywhere: one definition for all who count, compute and draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kpms_zarr.compute.alignment import is_valid
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.quality import quality
from kpms_zarr.compute.tracked import observe
from kpms_zarr.store import access
from kpms_zarr.store.blocks import Block
from kpms_zarr.store.ingest import ingest
from kpms_zarr.store.tracking import (
    PROBLEMS,
    find_problems,
    is_missing,
    limits_of,
    read_tracked,
    without_missing,
)

N_FRAMES, N_KEYPOINTS = 60, 4

WAYS = {
    "nan": (np.nan, 0.9),
    "one_coordinate": ((np.nan, 3.0), 0.9),
    "zero": (0.0, 0.0),
    "minus_one": (-1.0, -1.0),
    "somewhere": (17.0, 0.0),
    "minus_zero": (3.0, -0.0),
}
"""How trackers write that they did not find a keypoint: position, confidence."""


def made(way: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, confidences and what is missing of them."""
    rng = np.random.default_rng(0)
    position = rng.normal(size=(N_FRAMES, N_KEYPOINTS, 2)) * 10 + 200
    confidence = rng.uniform(0.6, 1, (N_FRAMES, N_KEYPOINTS))
    confidence[rng.random(confidence.shape) < 0.1] = 0.2
    missing = rng.random(confidence.shape) < 0.3
    if way is not None:
        position[missing], confidence[missing] = WAYS[way]
    return position, confidence, missing


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, (5, 3, 2), elements=st.floats(width=32)),
    st.none() | hnp.arrays(np.float32, (5, 3), elements=st.floats(width=32)),
)
def test_is_missing__is_what_it_says(position, confidence):
    found, kept = is_missing(position, confidence), without_missing(position, confidence)
    for frame in range(5):
        for point in range(3):
            values = position[frame, point]
            expected = not all(np.isfinite(values))
            expected |= confidence is not None and bool(confidence[frame, point] <= 0)
            assert found[frame, point] == expected
            np.testing.assert_array_equal(kept[frame, point], [np.nan] * 2 if expected else values)


@pytest.mark.parametrize("way", WAYS)
def test_missing__is_the_same_for_all_who_read(tmp_path: Path, way: str) -> None:
    position, confidence, missing = made(way)
    store = tmp_path / "s.zarr"
    ingest(
        store, arrays={"s": position}, confidences={"s": confidence},
        keypoint_names=list("abcd"), anterior=["a"], posterior=["d"],
    )  # fmt: skip
    found = quality(store)
    np.testing.assert_allclose(found["missing_fraction"][0], missing.mean(0))
    low = (confidence < 0.5) & ~missing
    np.testing.assert_allclose(found["low_confidence_fraction"][0], low.sum(0) / (~missing).sum(0))
    assert found["confidence_count"].sum() == (~missing).sum()
    reader, block = BlockReader(store), Block(0, 0, N_FRAMES)
    data = observe(reader, block, FitConfig())
    for view in (
        np.isnan(data[:, : 2 * N_KEYPOINTS].reshape(position.shape)),
        np.isnan(reader.tracked(block)[0]),
        np.isnan(read_tracked(access.dataset(store, "keypoints"), 0, slice(N_FRAMES))[0]),
        find_problems(*reader.tracked(block), limits_of(found, "s"))[PROBLEMS.index("missing")],
        ~is_valid(reader.position(block), reader.confidence(block), -np.inf),
    ):
        np.testing.assert_array_equal(view if view.ndim == 2 else view.all(-1), missing)
        np.testing.assert_array_equal(view if view.ndim == 2 else view.any(-1), missing)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "nan"])
def test_quality__does_not_depend_on_how_missing_is_written(tmp_path: Path, way: str) -> None:
    found = []
    for one in ("nan", way):
        position, confidence, _ = made(one)
        store = tmp_path / f"{one}.zarr"
        ingest(store, arrays={"s": position}, confidences={"s": confidence})
        found.append(quality(store).drop_attrs())
    xr.testing.assert_identical(*found)
