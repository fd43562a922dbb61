"""What is missing is missing everywhere: one definition for all who count, compute and draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.amount import examples
from kpms_zarr.compute.alignment.alignment import is_valid
from kpms_zarr.compute.alignment.thresholds import Ratings, resolve, why_unseen
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.mapreduce import BlockReader, Histogram
from kpms_zarr.compute.pose.pca import pca
from kpms_zarr.compute.sampler.tracked import NoiseByConfidence, observe
from kpms_zarr.compute.tracking.quality import quality, warnings_of
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.missing import is_missing, without_missing
from kpms_zarr.store.study.tracking import PROBLEMS, find_problems, limits_of, read_tracked

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
    data = observe(reader, block, NoiseByConfidence.of(FitConfig()))
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


# ------------------------------------------------------------------ not tracked, or not trusted


def low_store(tmp_path: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> Path:
    """A session with all confidences high, and one that is changed."""
    rng = np.random.default_rng(3)
    position = 50 * rng.normal(size=(4, 2)) + rng.normal(size=(2, 400, 4, 2)).cumsum(1)
    confidence = rng.uniform(0.6, 1.0, (2, 400, 4))
    change(position[1], confidence[1])
    store = tmp_path / "s.zarr"
    ingest(
        store,
        arrays={"fine": position[0], "odd": position[1]},
        confidences={"fine": confidence[0], "odd": confidence[1]},
        keypoint_names=list("abcd"), anterior=["a"], posterior=["d"],
    )  # fmt: skip
    return store


def test_pca__of_low_confidences_says_so_and_what_to_do(tmp_path: Path) -> None:
    def change(_: np.ndarray, confidence: np.ndarray) -> None:
        confidence *= 0.3

    store = low_store(tmp_path, change)
    with pytest.raises(InputError) as caught:
        pca(store)
    said = str(caught.value)
    assert "all confidences of a, b, c, d are below 0.5 (median 0.24, largest 0.3" in said
    assert "`confidence_threshold=0.1`" in said
    assert "`confidence_threshold='10%'`" in said
    assert "never" not in said
    # What it says to do is enough, and it was not the tracking: the same without confidences.
    assert pca(store, confidence_threshold=0.1).attrs["n_frames"] == 800
    warned = warnings_of(quality(store))
    assert any("confidences of odd are below 0.5 (median about 0.2" in text for text in warned)


def test_pca__tells_what_was_not_tracked_from_what_is_low(tmp_path: Path) -> None:
    def change(position: np.ndarray, confidence: np.ndarray) -> None:
        confidence[:, 1] *= 0.2
        position[:, 2] = np.nan

    notes = pca(low_store(tmp_path, change)).attrs["notes"]
    assert notes[0].startswith(
        "odd: c never tracked; all confidences of b are below 0.5 (median 0.16, largest 0.2"
    )


def test_pca__of_nothing_tracked_does_not_speak_of_confidences(tmp_path: Path) -> None:
    def change(position: np.ndarray, confidence: np.ndarray) -> None:
        position[:, 0] = np.nan

    with pytest.raises(InputError, match="never tracked") as caught:
        pca(low_store(tmp_path, change))
    assert "confidence" not in str(caught.value)


def test_why_unseen__of_confident_points_blames_neither_tracking_nor_confidence() -> None:
    histogram = Histogram.of_block(np.array([0.9, 0.8], np.float32).view(np.uint32) >> 16)
    said = why_unseen(["a"], [0], Ratings(histogram, np.array([2])), 0.5)
    assert said == "a never where it can be, or never with enough confidence"


@settings(deadline=None, max_examples=examples(10))
@given(st.integers(0, 99), st.integers(0, 1000), st.booleans())
def test_threshold__of_a_share_is_exact(
    tmp_path_factory: pytest.TempPathFactory, percent: int, seed: int, is_coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(n, 3, 2)) for name, n in (("a", 40), ("b", 70))}
    confidence = {name: rng.uniform(-0.1, 1.7, (len(one), 3)) for name, one in arrays.items()}
    for values in confidence.values():
        values[rng.random(values.shape) < 0.2] = np.nan
        if is_coarse:
            np.round(values, 1, out=values)
    arrays["a"][3:9, 1] = np.nan
    store = tmp_path_factory.mktemp("share") / "s.zarr"
    ingest(store, arrays=arrays, confidences=confidence)
    found = resolve(f"{percent}%", BlockReader(store), access.sessions(store))
    tracked = [
        confidence[name][np.isfinite(one).all(-1)].astype(np.float32)
        for name, one in arrays.items()
    ]
    kept = np.concatenate(tracked)
    kept = np.sort(kept[kept > 0])
    assert found.value == kept[int(percent * len(kept) // 100)]
    assert (kept < found.value).mean() <= percent / 100
    assert found.share == f"{percent}%"


def test_threshold__of_a_share_is_stored_as_a_number(tmp_path: Path) -> None:
    store = low_store(tmp_path, lambda position, confidence: None)
    for found in (
        pca(store, confidence_threshold="25%"),
        quality(store, confidence_threshold="25%"),
    ):
        value = found.attrs["confidence_threshold"]
        assert 0.65 < value < 0.75
        assert found.attrs["confidence_share"] == "25%"
        assert provenance_of(found.attrs)["settings"]["confidence_threshold"] == value
    low = found["low_confidence_fraction"].values
    np.testing.assert_allclose(low.mean(), 0.25, atol=1e-3)
    limits = limits_of(found, "odd")
    assert limits.confidence == value


@pytest.mark.parametrize("given", ["0.4", "-1%", "100%", "x%", "nan", float("nan"), "many"])
@pytest.mark.parametrize("verb", [pca, quality])
def test_threshold__that_is_none_is_refused(tmp_path: Path, given: object, verb: Any) -> None:
    store = low_store(tmp_path, lambda position, confidence: None)
    if given == "0.4":
        verb(store, confidence_threshold=given)
        return
    with pytest.raises(InputError, match="share of the confidences"):
        verb(store, confidence_threshold=given)


def test_threshold__of_a_share_without_confidences_is_refused(tmp_path: Path) -> None:
    ingest(tmp_path / "s.zarr", arrays={"a": np.random.default_rng(0).normal(size=(30, 4, 2))})
    with pytest.raises(InputError, match="leave `confidence_threshold=` out"):
        quality(tmp_path / "s.zarr", confidence_threshold="10%")
