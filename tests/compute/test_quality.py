"""Tracking quality: exact for any split, equal to NumPy on whole sessions, readable warnings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import reduce

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.amount import examples
from kpms_zarr.compute.mapreduce import Histogram
from kpms_zarr.compute.tracking import quality as module
from kpms_zarr.compute.tracking.quality import (
    lower_histogram,
    median,
    pivot,
    quality,
    summarise,
    upper_histogram,
    warnings_of,
)
from kpms_zarr.compute.tracking.quality_counts import (
    MissingRuns,
    QualityCounts,
    bad_seconds,
    confidence_histogram,
    frames_per_second,
    worst_start,
)
from kpms_zarr.store.core import access, schema
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.verify import verify
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.tracking import (
    CONFIDENCE_EDGES,
    PROBLEMS,
    distance_from_middle,
    limits_of,
    open_quality,
)

STUDY = SyntheticStudy(
    n_sessions=3, n_frames=24_000, n_keypoints=4, missing_fraction=0.1, is_ragged=True, seed=3
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three sessions of 1 to 3 blocks, with a long gap across a block border, and outliers."""
    path = tmp_path_factory.mktemp("quality") / "study.zarr"
    write_store(path, STUDY)
    group = access.open_group(path, "r+")["keypoints"]
    longest = int(np.argmax(group["n_frames"][:]))
    group["position"][longest, 16_000:17_000, 2] = np.nan
    group["position"][longest, 300:340, 1] = 1e4
    group["confidence"][longest] = np.nan
    return path


@pytest.fixture(scope="module")
def found(store):
    return quality(store)


def cuts(n_frames: int):
    return st.lists(st.integers(1, n_frames - 1), max_size=5, unique=True).map(sorted)


def split(array: np.ndarray, at: list[int]) -> list[np.ndarray]:
    return np.split(array, at)


def longest_run(column) -> int:
    best = run = 0
    for is_missing in column:
        run = run + 1 if is_missing else 0
        best = max(best, run)
    return best


# ------------------------------------------------------------------ statistics that add up


@settings(deadline=None)
@given(st.data())
def test_gaps__are_the_same_for_any_split(data):
    is_missing = data.draw(hnp.arrays(bool, st.tuples(st.integers(2, 30), st.integers(1, 3))))
    whole = MissingRuns.of_block(is_missing)
    parts = [
        MissingRuns.of_block(part) for part in split(is_missing, data.draw(cuts(len(is_missing))))
    ]
    total = reduce(MissingRuns.add, parts)
    for a, b in zip(whole, total, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(total.longest, [longest_run(c) for c in is_missing.T])


def test_gaps__without_borders_are_too_short():
    """The wrong twin: the longest gap of the parts is not the longest gap."""
    is_missing = np.ones((10, 1), bool)
    parts = [MissingRuns.of_block(part) for part in split(is_missing, [5])]
    assert max(part.longest[0] for part in parts) < MissingRuns.add(*parts).longest[0] == 10


@settings(deadline=None, max_examples=examples(40))
@given(st.data())
def test_counts__are_the_same_for_any_split(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    position = np.where(rng.random((20, 3, 2)) < 0.3, np.nan, 1.0)
    confidence = np.where(rng.random((20, 3)) < 0.3, np.nan, rng.random((20, 3)))
    at = data.draw(cuts(20))
    whole = QualityCounts.of_block(position, confidence, 0.5)
    parts = zip(split(position, at), split(confidence, at), strict=True)
    total = reduce(QualityCounts.add, (QualityCounts.of_block(p, c, 0.5) for p, c in parts))
    np.testing.assert_equal(tuple(whole), tuple(total))


@settings(deadline=None)
@given(st.data())
def test_histogram__is_the_same_for_any_split(data):
    key = data.draw(hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(0, 9)))
    at = data.draw(cuts(len(key)))
    total = reduce(Histogram.add, (Histogram.of_block(part) for part in split(key, at)))
    np.testing.assert_equal(tuple(total), tuple(np.unique(key, return_counts=True)))


@settings(deadline=None)
@given(st.data())
def test_confidence_histogram__has_its_edges_where_they_are_said_to_be(data):
    edge = st.sampled_from([float(np.float32(e)) for e in CONFIDENCE_EDGES])
    value = st.one_of(edge, st.floats(-0.5, 1.5, width=32), st.just(np.nan))
    shape = st.tuples(st.integers(1, 30), st.integers(1, 3))
    confidence = data.draw(hnp.arrays(np.float32, shape, elements=value))
    expected = np.zeros((confidence.shape[1], 50), int)
    edges = [np.float32(edge) for edge in CONFIDENCE_EDGES]
    for row in confidence:
        for point, one in enumerate(row):
            if one == one:
                at = sum(one >= edge for edge in edges[1:-1])
                expected[point, at] += 1
    found = confidence_histogram(confidence)
    np.testing.assert_array_equal(found, expected)
    for at in (10, 25, 45):  # what counts as low for a threshold that is an edge
        is_low = confidence < float(CONFIDENCE_EDGES[at])
        np.testing.assert_array_equal(found[:, :at].sum(1), is_low.sum(0))


def naive_worst(is_bad: np.ndarray, bin_frames: int) -> list[int]:
    """Oracle: every stretch of ten whole seconds, frame by frame."""
    starts = []
    for column in is_bad.T:
        best, best_start = 0, -1
        for start in range(0, len(column), bin_frames):
            number = int(column[start : start + 10 * bin_frames].sum())
            if number > best:
                best, best_start = number, start
        n_bins = -(-len(column) // bin_frames)
        last = max(0, n_bins - 10) * bin_frames  # the stretch does not reach beyond the end
        assert best_start <= last
        starts.append(best_start)
    return starts


@settings(deadline=None, max_examples=examples(60))
@given(st.data())
def test_worst_start__is_the_same_for_any_split(data):
    n_frames, fps = data.draw(st.integers(2, 60)), data.draw(st.sampled_from([0.3, 1.4, 2, 3.0]))
    session = Session("s", 0, n_frames, fps)
    bin_frames = frames_per_second(session)
    bad = st.integers(0, 9).map(lambda number: number < 3)
    is_bad = {name: data.draw(hnp.arrays(bool, (n_frames, 3), elements=bad)) for name in PROBLEMS}
    at = data.draw(cuts(n_frames))
    total = Histogram(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for name, values in is_bad.items():
        for start, part in zip([0, *at], split(values, at), strict=True):
            total = total.add(bad_seconds(part, name, start, bin_frames))
    found = worst_start(total, session, 3)
    expected = np.transpose([naive_worst(values, bin_frames) for values in is_bad.values()])
    np.testing.assert_array_equal(found, expected)


def test_worst_start__without_where_the_frames_lie_is_wrong():
    """The wrong twin: seconds counted from the beginning of each part."""
    is_bad = np.zeros((400, 1), bool)
    is_bad[355:380] = True
    session = Session("s", 0, 400, 10.0)
    parts = [bad_seconds(part, "missing", 0, 10) for part in split(is_bad, [200])]
    right = worst_start(bad_seconds(is_bad, "missing", 0, 10), session, 1)[0, 0]
    assert right == 280
    assert worst_start(reduce(Histogram.add, parts), session, 1)[0, 0] != right


@pytest.mark.parametrize("fps", [np.nan, 0.0, 0.2, 30.0, 29.97])
def test_frames_per_second__is_a_whole_number_of_frames(fps):
    assert frames_per_second(Session("s", 0, 10, fps)) == {30.0: 30, 29.97: 30}.get(fps, 1)


def radix_median(parts: list[np.ndarray]) -> np.ndarray:
    where = pivot(reduce(Histogram.add, map(upper_histogram, parts)), parts[0].shape[1])
    lower = reduce(Histogram.add, (lower_histogram(part, where) for part in parts))
    return median(lower, where)


def numpy_median(values: np.ndarray) -> np.ndarray:
    columns = (column[~np.isnan(column)].astype(np.float64) for column in values.T)
    return np.array([np.median(column) if len(column) else np.nan for column in columns])


@settings(deadline=None, max_examples=examples(200))
@given(st.data())
def test_median__is_exact_for_any_numbers_and_any_split(data):
    numbers = st.one_of(
        st.floats(0, 2.0**100, width=32), st.sampled_from([0.0, 1.0, 1 + 2.0**-23, 3.5, np.nan])
    )
    shape = st.tuples(st.integers(2, 30), st.integers(1, 3))
    values = np.abs(data.draw(hnp.arrays(np.float32, shape, elements=numbers)))
    found = radix_median(split(values, data.draw(cuts(len(values)))))
    np.testing.assert_array_equal(found, numpy_median(values))


def test_median__is_nan_where_nothing_is_seen():
    values = np.array([[np.nan, 1.0], [np.nan, 2.0]], np.float32)
    np.testing.assert_array_equal(radix_median([values]), [np.nan, 1.5])


@pytest.mark.parametrize("n_space", [2, 3])
def test_distance_from_middle__is_that_from_the_median_of_those_present(n_space):
    rng = np.random.default_rng(0)
    position = rng.normal(size=(200, 5, n_space)).astype(np.float32) * 100
    position[rng.random((200, 5)) < 0.4, 0] = np.nan
    expected = np.full((200, 5), np.nan)
    for frame, points in enumerate(position):
        here = ~np.isnan(points).any(-1)
        if here.any():
            middle = np.median(points[here].astype(float), axis=0)
            expected[frame, here] = np.linalg.norm(points[here] - middle, axis=-1)
    np.testing.assert_allclose(distance_from_middle(position), expected, rtol=1e-6)


# ------------------------------------------------------------------ the public verb


def whole_sessions(store, threshold: float = 0.5, scale: float = 6.0):
    """Oracle: every session in memory, plain NumPy."""
    group = access.open_group(store)["keypoints"]
    for session in access.sessions(store):
        position = group["position"][session.index, : session.n_frames]
        confidence = group["confidence"][session.index, : session.n_frames]
        missing = np.isnan(position).any(-1) | (confidence <= 0)
        position[missing], confidence[missing] = np.nan, np.nan
        distance = distance_from_middle(position)
        centre = numpy_median(distance)
        mad = numpy_median(np.abs(distance - centre).astype(np.float32))
        rated = (~np.isnan(confidence)).sum(0)
        low = (confidence < threshold).sum(0)
        yield {
            "missing_fraction": missing.mean(0),
            "low_confidence_fraction": np.where(rated, low / np.maximum(rated, 1), np.nan),
            "outlier_fraction": (distance > centre + scale * mad).sum(0) / (~missing).sum(0),
            "longest_gap": np.array([longest_run(column) for column in missing.T]),
            "distance_median": centre,
            "distance_mad": mad,
            "confidence_count": confidence_histogram(confidence),
            "worst_start": np.transpose(
                [
                    naive_worst(is_bad, round(session.fps))
                    for is_bad in (missing, confidence < threshold, distance > centre + scale * mad)
                ]
            ),
        }


def test_quality__equals_numpy_on_whole_sessions(store, found):
    for row, expected in enumerate(whole_sessions(store)):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name][row], values, err_msg=name)


def test_quality__sees_what_was_planted(store, found):
    session = int(np.argmax(found["n_frames"].values))
    assert found["longest_gap"][session, 2] >= 1000
    assert found["outlier_fraction"][session, 1] * found["n_frames"][session] >= 36
    assert np.isnan(found["low_confidence_fraction"][session]).all()
    assert np.isfinite(found["low_confidence_fraction"]).all("keypoint").sum() == 2
    rate = round(STUDY.fps)
    worst = found["worst_start"][session].sel(problem=["missing", "outlier"])
    assert 16_000 - rate <= worst[2, 0] <= 17_000 - 10 * rate + rate
    assert 340 - 10 * rate <= worst[1, 1] <= 300
    assert (found["worst_start"][session].sel(problem="low_confidence") == -1).all()
    assert found["confidence_count"][session].sum() == 0


def test_quality__is_written_as_declared(store, found):
    stored = access.dataset(store, "quality").load()
    for entry in (one for one in schema.QUALITY if not one.optional or one.name in found):
        assert stored[entry.name].dims == entry.dims == found[entry.name].dims
        np.testing.assert_array_equal(stored[entry.name], found[entry.name])
        if entry.dtype != "str":
            assert stored[entry.name].dtype == found[entry.name].dtype == entry.dtype
    assert provenance_of(stored.attrs)["settings"]["outlier_scale"] == 6.0
    del stored.attrs["provenance"]
    assert stored.attrs == {k: v for k, v in found.attrs.items() if k != "provenance"}


def test_quality__can_be_run_again(store, found):
    again = quality(store)
    xr.testing.assert_identical(again.drop_attrs(), found.drop_attrs())


def test_open_quality__reads_stores_of_earlier_releases(store, found, tmp_path):
    older = tmp_path / "older.zarr"
    shutil.copytree(store, older)
    group = access.open_group(older, "r+")["quality"]
    for entry in schema.QUALITY:
        if entry.optional and entry.name in found.variables:
            del group[entry.name]
    group.attrs["coordinates"] = "n_frames"
    consolidate(access.open_group(older, "r+"), ["quality"])
    opened = open_quality(older)
    assert "confidence_count" not in opened.variables
    np.testing.assert_array_equal(opened["missing_fraction"], found["missing_fraction"])
    assert verify(older).damages == []


def test_limits_of__are_those_of_the_counts(store, found):
    stored = open_quality(store)
    for session in access.sessions(store):
        limits = limits_of(stored, session.name)
        distance = found["distance_median"] + 6 * found["distance_mad"]
        np.testing.assert_array_equal(limits.distance, distance.sel(session=session.name))
        assert limits.confidence == 0.5
    with pytest.raises(InputError, match=r"run `kpms_zarr\.quality` again"):
        limits_of(stored, "nobody")


def test_open_quality__says_what_to_run(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=50))
    with pytest.raises(InputError, match=r"kpms_zarr\.quality\(.*s\.zarr"):
        open_quality(tmp_path / "s.zarr")


@pytest.mark.parametrize(("scheduler", "n_workers"), [("synchronous", 1), ("threads", 5)])
def test_quality__does_not_depend_on_the_scheduler(store, found, scheduler, n_workers):
    with dask.config.set(scheduler=scheduler, num_workers=n_workers):
        xr.testing.assert_identical(quality(store).drop_attrs(), found.drop_attrs())


def test_quality__does_not_depend_on_the_groups_of_sessions(store, found, monkeypatch):
    monkeypatch.setattr(module, "_BLOCKS_PER_GROUP", 1)
    xr.testing.assert_identical(quality(store).drop_attrs(), found.drop_attrs())


@pytest.mark.parametrize("error", [PermissionError(13, "no"), NotImplementedError(), OSError(30)])
def test_quality__only_reads_a_read_only_store(store, found, monkeypatch, error):
    open_group = access.open_group

    def guarded(place, mode="r"):
        if mode != "r":
            raise error
        return open_group(place, mode)

    if isinstance(error, OSError):
        error.errno = error.errno or 30
    monkeypatch.setattr(access, "open_group", guarded)
    result = quality(store)
    xr.testing.assert_identical(result.drop_attrs(), found.drop_attrs())
    assert "not stored" in result.attrs["notes"][0]


def test_quality__passes_on_a_full_disk(store, monkeypatch):
    open_group = access.open_group

    def full(place, mode="r"):
        if mode != "r":
            raise OSError(28, "No space left on device")
        return open_group(place, mode)

    monkeypatch.setattr(access, "open_group", full)
    with pytest.raises(OSError, match="No space"):
        quality(store)


def test_quality__works_in_memory():
    write_store("memory://quality.zarr", SyntheticStudy(n_sessions=2, n_frames=200))
    found = quality("memory://quality.zarr")
    assert found["missing_fraction"].sizes == {"session": 2, "keypoint": 8}


def test_quality__of_a_keypoint_never_seen_is_nan_without_warnings(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=100, n_keypoints=3))
    group = access.open_group(tmp_path / "s.zarr", "r+")["keypoints"]
    group["position"][0, :, 0] = np.nan
    group["position"][0, 10:20] = np.nan
    found = quality(tmp_path / "s.zarr")
    assert found["missing_fraction"][0, 0] == 1
    assert found["longest_gap"].values.tolist() == [[100, 10, 10]]
    for name in ("outlier_fraction", "distance_median", "distance_mad"):
        assert np.isnan(found[name][0]).values.tolist() == [True, False, False]


def test_quality__refuses_an_empty_store(tmp_path):
    access.create(tmp_path / "empty.zarr")
    with pytest.raises(InputError, match="at least one session"):
        quality(tmp_path / "empty.zarr")


@pytest.mark.parametrize(
    "options", [{"outlier_scale": 0}, {"outlier_scale": np.nan}, {"confidence_threshold": np.nan}]
)
def test_quality__refuses_settings_out_of_range(store, options):
    with pytest.raises(InputError, match=r"`[a-z_]+=`"):
        quality(store, **options)


def test_quality_and_pca__do_not_import_jax():
    code = (
        "import sys, kpms_zarr.compute.tracking.quality, kpms_zarr.compute.pose.pca\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------------ what a person reads


def test_summarise__weights_sessions_by_their_frames(store, found):
    pooled = summarise(found)
    missing = total = 0
    group = access.open_group(store)["keypoints"]
    for session in access.sessions(store):
        position = group["position"][session.index, : session.n_frames]
        missing = missing + np.isnan(position).any(-1).sum(0)
        total += session.n_frames
    np.testing.assert_allclose(pooled["missing_fraction"], missing / total, rtol=1e-12)
    assert not np.allclose(found["missing_fraction"].mean("session"), missing / total, rtol=1e-6)
    np.testing.assert_array_equal(pooled["longest_gap"], found["longest_gap"].max("session"))
    assert pooled["low_confidence_fraction"].dims == ("keypoint",)
    assert np.isfinite(pooled["low_confidence_fraction"]).all()
    assert pooled.attrs["n_frames"] == total


def with_missing(rows: list[list[float]]) -> xr.Dataset:
    values = np.array(rows)
    return xr.Dataset(
        {"missing_fraction": (("session", "keypoint"), values)},
        {
            "session": [f"s{i}" for i in range(len(values))],
            "keypoint": [f"k{i}" for i in range(values.shape[1])],
        },
    )


def test_warnings_of__says_nothing_about_good_tracking(found):
    assert warnings_of(found) == []


def test_warnings_of__groups_keypoints_with_the_same_sessions():
    said = warnings_of(with_missing([[0.9, 0.9, 0.1, 0.6], [0.1, 0.0, 0.0, 0.7]]))
    assert len(said) == 2
    assert "k0, k1 missing in more than half of the frames of s0:" in said[0]
    assert "k3 missing in more than half of the frames of all 2 sessions:" in said[1]
    assert all("`keypoints=['k2']`" in text for text in said)


def test_warnings_of__shortens_long_lists():
    said = warnings_of(with_missing([[0.9, 0.0]] * 12 + [[0.0, 0.0]]))
    assert said[0].count("s1") == 1
    assert "and 7 more sessions" in said[0]


def test_warnings_of__does_not_offer_to_drop_everything():
    said = warnings_of(with_missing([[0.9, 0.9], [0.1, 0.1]]))
    assert said == [
        "k0, k1 missing in more than half of the frames of s0: "
        "check these recordings, or leave them out"
    ]
