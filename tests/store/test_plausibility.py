"""Numbers that cannot be what they are taken for are said to be so, with what to do about it."""

from __future__ import annotations

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.compute.tracking.quality import quality, warnings_of
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.plausibility import Readings

NAMES = ["nose", "earL", "earR", "tail"]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "s.zarr"


def good(n_frames=300, seed=0):
    rng = np.random.default_rng(seed)
    position = rng.normal(size=(n_frames, 4, 2)) + 30 * rng.normal(size=(4, 2)) + 300
    return position, rng.uniform(0.5, 1, (n_frames, 4))


def said(store, position, confidence, **options):
    """Notes of the ingest and warnings of quality on the session ``s``."""
    confidences = None if confidence is None else {"s": confidence}
    result = kpms_zarr.ingest(
        store, arrays={"s": position}, confidences=confidences, keypoint_names=NAMES, **options
    )
    notes = [note for note in result.notes if note.startswith("s: ")]
    if not access.sessions(store):
        return notes, []
    return notes, warnings_of(quality(store))


@pytest.mark.parametrize("highest", [0.02, 0.9, 1.0, 1.74])
def test_confidences__of_usual_scales_are_not_doubted(store, highest):
    position, confidence = good()
    notes, warned = said(store, position, confidence * highest)
    assert notes == []
    assert not [text for text in warned if "scale" in text]


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (100, ["percent", "`confidence_scale=100`"]),
        (255, ["from 0 to 255", "`confidence_scale=255`"]),
        (60_000, ["`confidence_scale=65535`"]),
        (1e9, ["no scale that is known", "`confidence_scale='none'`"]),
    ],
)
def test_confidences__of_another_scale_are_named_at_ingest_and_in_quality(store, factor, words):
    position, confidence = good()
    notes, warned = said(store, position, confidence * factor)
    assert len(notes) == 1
    for word in words:
        assert word in notes[0]
        assert [text for text in warned if word in text]


def test_confidence_scale__stores_what_was_meant(store, tmp_path):
    position, confidence = good()
    percent = np.float32(confidence * 100)
    notes, warned = said(store, position, percent, confidence_scale=100)
    assert (notes, warned) == ([], [])
    group = access.open_group(store)["keypoints"]
    np.testing.assert_array_equal(group["confidence"][0, :300], percent / np.float32(100))
    np.testing.assert_array_equal(group["position"][0, :300], position.astype(np.float32))
    assert json.loads(str(group["ingest"][0]))["confidence_scale"] == 100
    assert kpms_zarr.verify(store).is_sound
    none = tmp_path / "none.zarr"
    said(none, position, -confidence, confidence_scale="none")
    group = access.open_group(none)["keypoints"]
    assert np.isnan(group["confidence"][0, :300]).all()
    assert kpms_zarr.verify(none).is_sound


@pytest.mark.parametrize("scale", [0, -1, "many", float("nan"), float("inf")])
def test_confidence_scale__that_is_none_is_refused(store, scale):
    position, confidence = good()
    with pytest.raises(InputError, match="`confidence_scale=100` for percent"):
        said(store, position, confidence, confidence_scale=scale)
    assert not access.exists(store)


def test_confidences__of_one_point_never_above_zero_are_named(store):
    position, confidence = good()
    confidence[:, 2] = 0
    notes, _ = said(store, position, confidence)
    assert notes[0].startswith("s: earR never tracked: a position in the file")


def test_confidences__that_leave_nothing_say_so(store):
    position, confidence = good()
    other = {"s": position, "fine": good(seed=1)[0]}
    result = kpms_zarr.ingest(
        store, arrays=other, confidences={"s": -confidence}, keypoint_names=NAMES
    )
    assert result.added == ("fine",)
    assert any("s: all confidences are 0 or below" in note for note in result.notes)


def test_confidences__that_lack_in_some_frames_are_said_to_count_as_high(store):
    position, confidence = good()
    confidence[::2, 1] = np.nan
    notes, _ = said(store, position, confidence)
    assert notes == ["s: no confidence for earL in some frames: taken as high"]


@pytest.mark.parametrize("value", [0, -1])
def test_missing_value__is_suggested_and_does_what_it_says(store, tmp_path, value):
    position, _ = good()
    lost = np.random.default_rng(1).random((300, 4)) < 0.2
    position[lost] = value
    notes, _ = said(store, position, None)
    assert f"`missing_value={value}`" in notes[0]
    other = tmp_path / "other.zarr"
    notes, _ = said(other, position, None, missing_value=value)
    assert notes == []
    np.testing.assert_allclose(quality(other)["missing_fraction"][0], lost.mean(0))
    assert kpms_zarr.verify(other).is_sound


@pytest.mark.parametrize(("factor", "is_odd"), [(1e-4, 0), (1e-9, 1), (1e3, 0), (1e9, 1)])
def test_bodies__of_impossible_size_are_named(store, factor, is_odd):
    position, confidence = good()
    notes, warned = said(store, position * factor, confidence)
    assert bool([note for note in notes if "`scale='dataset'`" in note]) is bool(is_odd)
    assert bool([text for text in warned if "`scale='dataset'`" in text]) is bool(is_odd)


@settings(deadline=None, max_examples=examples(50))
@given(st.data())
def test_readings__are_the_same_for_any_split(data):
    value = st.sampled_from([-1.0, 0.0, 1.0, 2.5, 1e6, np.nan])
    position = data.draw(hnp.arrays(np.float32, (48, 3, 2), elements=value))
    confidence = data.draw(hnp.arrays(np.float32, (48, 3), elements=value))
    whole = Readings.of_block(position, confidence)
    parts = zip(np.split(position, [16]), np.split(confidence, [16]), strict=True)
    total = reduce(Readings.add, (Readings.of_block(*part) for part in parts))
    for a, b in zip(whole, total, strict=True):
        np.testing.assert_allclose(a, b)
