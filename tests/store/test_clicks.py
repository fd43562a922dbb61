"""Clicked positions: kept one by one, replaced, taken back, and of the frames that they are of."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.core import access, layout, writable
from kpms_zarr.store.errors import ReadOnlyError
from kpms_zarr.store.study import clicks as clicks_file
from kpms_zarr.store.study.clicks import (
    Click,
    click_table,
    forget_click,
    keep_click,
    stored_clicks,
)

NAMES = ["nose", "tail"]


def made(store, names=("a", "b"), seed=0):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(30, 2, 2)) for name in names}
    kpms_zarr.ingest(store, arrays=arrays, keypoint_names=NAMES, fps=30)
    return store


@pytest.fixture
def store(tmp_path):
    return made(tmp_path / "s.zarr")


POSITION = st.one_of(st.just(()), st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)))
CLICK = st.builds(
    Click, st.sampled_from(["a", "b"]), st.integers(0, 3), st.sampled_from(NAMES), POSITION
)


@settings(
    max_examples=examples(6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(CLICK, st.booleans()), min_size=1, max_size=6))
def test_clicks__are_those_kept_last_and_not_taken_back(tmp_path_factory, changes):
    place = made(tmp_path_factory.mktemp("clicks") / "s.zarr")
    expected = {}
    for click, is_kept in changes:
        (keep_click if is_kept else forget_click)(place, click)
        expected.pop(click.place, None)
        if is_kept:
            expected[click.place] = click
    assert stored_clicks(place) == tuple(expected.values())
    table = click_table(stored_clicks(place), ("x", "y"))
    assert list(table.columns) == ["session", "frame", "keypoint", "x", "y"]
    assert len(table) == sum(bool(click.position) for click in expected.values())
    assert kpms_zarr.verify(place).is_sound


def test_clicks__stay_with_the_frames_that_they_are_of(store):
    click = Click("a", 3, "nose", (1.0, 2.0))
    keep_click(store, click)
    keep_click(store, Click("b", 3, "nose"))
    kpms_zarr.remove(store, ["a"])
    assert [one.session for one in stored_clicks(store)] == ["b"]
    made(store, ("a",), seed=5)  # another recording under the name
    assert [one.session for one in stored_clicks(store)] == ["b"]
    kpms_zarr.remove(store, ["a"])
    arrays = {"a": np.random.default_rng(0).normal(size=(30, 2, 2))}
    kpms_zarr.ingest(store, arrays=arrays, keypoint_names=NAMES, fps=30)
    assert click in stored_clicks(store)


def test_click__that_is_not_written_to_its_end_changes_nothing(store, monkeypatch):
    keep_click(store, Click("a", 1, "nose", (1.0, 2.0)))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(clicks_file.attributes, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            keep_click(store, Click("a", 2, "nose", (3.0, 4.0)))
    assert [one.frame for one in stored_clicks(store)] == [1]
    assert kpms_zarr.verify(store).is_sound
    keep_click(store, Click("a", 3, "nose", (5.0, 6.0)))
    assert [one.frame for one in stored_clicks(store)] == [1, 3]


def test_click__into_a_store_that_can_only_be_read(store, monkeypatch):
    assert not writable.is_read_only(store)
    assert writable.is_read_only("https://example.org/study.zarr")

    def denied(*_):
        raise PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(clicks_file, "annotations_lock", denied)
    with pytest.raises(ReadOnlyError, match="Access Denied"):
        keep_click(store, Click("a", 1, "nose"))
    assert access.subgroup(access.open_group(store), layout.ANNOTATIONS) is None
