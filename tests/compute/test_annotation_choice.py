"""Keypoints chosen for a person to look at: of all confidences and sessions, each once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.tracking import annotation_choice
from kpms_zarr.compute.tracking.annotation_choice import choose_points
from kpms_zarr.store.core import access

LEVELS = (0.95, 0.2, 0.05, 0.006)
SHARES = (0.97, 0.01, 0.01, 0.01)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three sessions, 3 of 100 keypoints with confidences of three low levels."""
    store = tmp_path_factory.mktemp("choice") / "s.zarr"
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(6000, 4, 2)) * 50 for name in "abc"}
    confidences = {name: rng.choice(LEVELS, (6000, 4), p=SHARES) for name in "abc"}
    arrays["a"][::2] = np.nan
    kpms_zarr.ingest(store, arrays=arrays, confidences=confidences, fps=30)
    return store, access.sessions(access.open_group(store)), arrays, confidences


@settings(max_examples=examples(15), deadline=None)
@given(seed=st.integers(0, 2**31), number=st.integers(1, 60))
@example(seed=0, number=6)
def test_points__are_of_all_confidences_and_sessions(study, seed, number):
    store, sessions, arrays, confidences = study
    names = [f"keypoint_{i}" for i in range(4)]
    found = choose_points(store, sessions, number, seed=seed)
    assert len(found) == number
    assert found[0].place == choose_points(store, sessions, number, seed=seed)[0].place
    for point in found:
        which = names.index(point.keypoint)
        assert confidences[point.session][point.frame, which] == pytest.approx(point.confidence)
        np.testing.assert_allclose(arrays[point.session][point.frame], point.position, rtol=1e-5)
    for kind in (
        Counter(min(LEVELS, key=lambda x, p=p: abs(x - p.confidence)) for p in found),
        Counter(p.session for p in found),
    ):
        n_kinds = len(LEVELS) if set(kind) <= set(LEVELS) else len(sessions)
        if number >= n_kinds * 2:
            assert len(kind) == n_kinds
            assert min(kind.values()) >= number / n_kinds / 3
    by_bin = Counter((p.session, min(LEVELS, key=lambda x: abs(x - p.confidence))) for p in found)
    if number >= 2 * len(LEVELS) * len(sessions):
        assert len(by_bin) == len(LEVELS) * len(sessions)
    # Taken at random from all, nearly all would be confident: the wrong twin.
    high = np.mean([point.confidence > 0.9 for point in found])
    assert number < 8 or high <= 0.5


def test_points__lie_apart_and_are_not_those_known_already(study):
    store, sessions, _, _ = study
    before = choose_points(store, sessions, 50, seed=3)
    after = choose_points(store, sessions, 50, seed=3, without={one.place for one in before})
    for point in after:
        for other in (*before, *after):
            if other is not point and (other.session, other.keypoint) == (
                point.session,
                point.keypoint,
            ):
                assert abs(other.frame - point.frame) > 10


def test_points__are_read_from_few_blocks(study, monkeypatch):
    store, sessions, _, _ = study
    read = []
    tracked = BlockReader.tracked
    monkeypatch.setattr(
        BlockReader, "tracked", lambda self, block: read.append(block) or tracked(self, block)
    )
    monkeypatch.setattr(annotation_choice, "MOST_SESSIONS", 2)
    choose_points(store, sessions, 10)
    assert len({block.session for block in read}) == len(read) == 2


def test_points__without_confidences_are_none(tmp_path):
    store = tmp_path / "s.zarr"
    kpms_zarr.ingest(store, arrays={"a": np.random.default_rng(0).normal(size=(50, 3, 2))}, fps=30)
    sessions = access.sessions(access.open_group(store))
    assert choose_points(store, sessions, 10) == []
    assert choose_points(store, [], 10) == []
