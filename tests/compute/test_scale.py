"""Body lengths and steps: right on known animals, whatever the units, blocks and order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from kpms_zarr.compute.alignment.alignment import Aligner
from kpms_zarr.compute.config import SCALES
from kpms_zarr.compute.mapreduce import weighted_median
from kpms_zarr.compute.pose.scale import (
    BODY_LENGTH,
    Lengths,
    body_length,
    measure_lengths,
    scale_of,
    steps,
)
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import read_settings, subset_keypoints
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def store(request, tmp_path_factory):
    """Three ragged sessions, one of them of two blocks."""
    path = tmp_path_factory.mktemp("scale") / "study.zarr"
    study = SyntheticStudy(
        n_sessions=3, n_frames=14_000, n_keypoints=6, n_space=request.param, seed=1,
        missing_fraction=0.01, is_ragged=True,
    )  # fmt: skip
    write_store(path, study)
    return path


@pytest.fixture(scope="module")
def lengths(store):
    return measure_lengths(Aligner.of(store))


@pytest.fixture
def small(tmp_path):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=3, n_frames=600, n_keypoints=5))
    return tmp_path / "s.zarr"


def put(path, session: int, centre: np.ndarray, body: np.ndarray) -> None:
    """Write a stiff animal (keypoint, space) that walks along ``centre`` (frame, space)."""
    group = access.open_group(path, "r+")["keypoints"]
    group["position"][session] = (centre[:, None] + body).astype(np.float32)
    group["confidence"][session] = 1.0


# ------------------------------------------------------------------ one block


def test_body_length__of_a_uniform_rod_is_its_length():
    rod = np.zeros((1, 2001, 3))
    rod[0, :, 1] = np.linspace(-35, 35, 2001)
    np.testing.assert_allclose(body_length(rod), 70, rtol=1e-3)


def test_body_length__does_not_depend_on_the_heading():
    pose = np.random.default_rng(0).normal(size=(1, 6, 2))
    pose -= pose.mean(1, keepdims=True)
    np.testing.assert_allclose(body_length(pose[..., ::-1] * [1, -1]), body_length(pose))


def test_steps__leave_out_jumps_of_two_frames():
    centroid = np.arange(100.0)[:, None] * [3.0, 4.0]
    np.testing.assert_allclose(steps(centroid), 5)
    centroid[50:52] += 900
    found = steps(centroid)
    assert found.max() < 30
    assert np.median(found) == pytest.approx(5)


@pytest.mark.parametrize("n_frames", [1, 5, 6, 7])
def test_steps__need_six_frames(n_frames):
    assert len(steps(np.zeros((n_frames, 3)))) == max(n_frames - 5, 0)


def test_steps__equal_scipy():
    centroid = np.random.default_rng(0).normal(size=(200, 3)).cumsum(0)
    smooth = median_filter(centroid, size=(5, 1))[2:-2]
    np.testing.assert_allclose(steps(centroid), np.linalg.norm(np.diff(smooth, axis=0), axis=1))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 6)), max_size=8), st.randoms())
def test_weighted_median__is_the_median_of_repeated_values(entries, random):
    values, weights = [float(v) for v, _ in entries], [w for _, w in entries]
    found = weighted_median(values, weights)
    repeated = np.repeat(values, weights)
    if not repeated.size:
        assert np.isnan(found)
        return
    assert found == np.median(repeated)
    random.shuffle(entries)
    assert weighted_median([float(v) for v, _ in entries], [w for _, w in entries]) == found


# ------------------------------------------------------------------ all sessions


def test_measure_lengths__is_close_to_the_medians_of_whole_sessions(store, lengths):
    aligner = Aligner.of(store)
    all_lengths, all_steps = [], []
    for session in aligner.sessions:
        whole = aligner.align(Block(session.index, 0, session.n_frames))
        all_lengths.append(body_length(whole.pose[whole.is_confident]))
        all_steps.append(steps(whole.centroid))
        found = lengths.body_length[session.index]
        assert found == pytest.approx(np.median(all_lengths[-1]), rel=0.02)
        assert lengths.step[session.index] == pytest.approx(np.median(all_steps[-1]), rel=0.1)
    dataset = np.median(np.concatenate(all_lengths))
    assert lengths.dataset_body_length == pytest.approx(dataset, rel=0.05)
    assert lengths.dataset_step == pytest.approx(np.median(np.concatenate(all_steps)), rel=0.2)
    assert any(session.n_frames > 16_384 for session in aligner.sessions)


def test_measure_lengths__does_not_depend_on_the_order_of_ingest(
    store, lengths, copy_store, tmp_path
):
    order = [2, 0, 1]
    other = measure_lengths(Aligner.of(copy_store(store, tmp_path / "s.zarr", order=order)))
    assert other.dataset_body_length == lengths.dataset_body_length
    assert other.dataset_step == lengths.dataset_step
    for row, session in enumerate(order):
        assert other.body_length[row] == lengths.body_length[session]
        assert other.step[row] == lengths.step[session]


def test_measure_lengths__reads_no_more_than_a_block(store, monkeypatch):
    seen = []
    align = Aligner.align
    monkeypatch.setattr(Aligner, "align", lambda self, b: seen.append(b) or align(self, b))
    aligner = Aligner.of(store)
    measure_lengths(aligner)
    assert sorted(seen) == sorted(iter_blocks(aligner.sessions))


def test_measure_lengths__a_keypoint_never_seen_changes_little(small):
    before = measure_lengths(Aligner.of(small))
    access.open_group(small, "r+")["keypoints/position"][1, :, 2] = np.nan
    after = measure_lengths(Aligner.of(small))
    assert after.body_length[1] == pytest.approx(before.body_length[1], rel=0.1)
    assert after.body_length[0] == before.body_length[0]
    assert after.dataset_body_length == pytest.approx(before.dataset_body_length, rel=0.1)


def test_measure_lengths__trusts_frames_whose_keypoints_are_all_valid(small):
    """A keypoint that is lost stays where it was while the animal walks on."""
    rng = np.random.default_rng(0)
    body = np.linspace(-30, 30, 5)[:, None] * [1.0, 0.0]
    walk = np.cumsum(rng.normal(size=(600, 2)) + np.array([2, 0]), axis=0)
    put(small, 0, walk, body)
    truth = body_length(body[None])[0]
    group = access.open_group(small, "r+")["keypoints"]
    group["confidence"][0, 10:, 0] = 0.0
    assert measure_lengths(Aligner.of(small)).body_length[0] == pytest.approx(truth, rel=1e-5)
    group["confidence"][0, 9:, 0] = 0.0  # one frame fewer: all of them count, most are wrong
    assert measure_lengths(Aligner.of(small)).body_length[0] > 1.5 * truth


def test_measure_lengths__a_block_without_a_valid_frame_counts_only_alone(tmp_path):
    path = tmp_path / "s.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=40_000, n_keypoints=5))
    body = np.linspace(-30, 30, 5)[:, None] * [1.0, 0.0]
    put(path, 0, np.arange(40_000)[:, None] * [0.5, 0.0], body)
    access.open_group(path, "r+")["keypoints/confidence"][0, 16_384:, 0] = 0.1
    found = measure_lengths(Aligner.of(path))
    truth = body_length(body[None])[0]
    assert found.body_length[0] == pytest.approx(truth, rel=1e-4)
    assert found.dataset_body_length == found.body_length[0]


def test_measure_lengths__a_session_without_extent_gets_the_length_of_the_others(small):
    put(small, 1, np.full((600, 2), 123.4), np.zeros((5, 2)))
    found = measure_lengths(Aligner.of(small))
    assert found.body_length[1] == found.dataset_body_length > 10
    assert found.step[1] == 0


def test_measure_lengths__a_short_session_gets_the_step_of_the_others(tmp_path, copy_store):
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=2, n_frames=600))
    access.open_group(tmp_path / "s.zarr", "r+")["keypoints/n_frames"][1] = 5
    found = measure_lengths(Aligner.of(tmp_path / "s.zarr"))
    assert found.step[1] == found.step[0] == found.dataset_step > 0
    assert found.body_length[1] > 10


def test_measure_lengths__refuses_points_without_extent(small):
    for session in range(3):
        put(small, session, np.full((600, 2), 1000.1), np.zeros((5, 2)))
    with pytest.raises(InputError) as error:
        measure_lengths(Aligner.of(small))
    text = str(error.value)
    assert f"{small}, all 3 sessions: expected keypoints that lie apart" in text
    assert "found all keypoints on the same spot in all frames" in text


def test_measure_lengths__finds_the_speed_of_a_walk(small):
    """Steps of a known length in a direction that wanders, tracked with a jitter of a tenth."""
    rng = np.random.default_rng(1)
    body = np.linspace(-30, 30, 5)[:, None] * [1.0, 0.0]
    for session, speed in enumerate((0.5, 3.0, 20.0)):
        angle = np.cumsum(rng.normal(size=600) * 0.2)
        walk = np.cumsum(speed * np.stack([np.cos(angle), np.sin(angle)], -1), axis=0)
        walk += rng.normal(size=walk.shape) * 0.1 * speed
        walk[rng.random(600) < 0.02] += 500 * speed  # lost for a frame
        put(small, session, walk, body)
    found = measure_lengths(Aligner.of(small))
    np.testing.assert_allclose([found.step[i] for i in range(3)], (0.5, 3.0, 20.0), rtol=0.2)


@pytest.mark.parametrize(("n_space", "filtered"), [(2, 0.478), (3, 0.704)])
def test_measure_lengths__of_independent_steps_is_that_of_the_filtered_walk(
    tmp_path, n_space, filtered
):
    """The filter shortens steps of unit variance that know nothing of each other."""
    path = tmp_path / "s.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=9000, n_keypoints=5, n_space=n_space))
    walk = np.cumsum(np.random.default_rng(2).normal(size=(9000, n_space)), axis=0)
    put(path, 0, walk, np.linspace(-30, 30, 5)[:, None] * np.eye(n_space)[0])
    assert measure_lengths(Aligner.of(path)).step[0] == pytest.approx(filtered, rel=0.2)


def test_measure_lengths__of_some_keypoints(small, copy_store, tmp_path):
    names = ("point4", "point0", "point1")
    study = subset_keypoints(read_settings(small), names)
    only = copy_store(small, tmp_path / "only.zarr", keypoints=names)
    assert measure_lengths(Aligner.of(small, study=study)) == measure_lengths(Aligner.of(only))


# ------------------------------------------------------------------ model units


def test_scale_of__has_three_modes(store, lengths):
    sessions = access.sessions(store)
    assert scale_of(lengths, sessions, "none") == {0: 1.0, 1: 1.0, 2: 1.0}
    whole = lengths.dataset_body_length / 100
    assert scale_of(lengths, sessions, "dataset") == dict.fromkeys(range(3), whole)
    each = {index: value / 100 for index, value in lengths.body_length.items()}
    assert scale_of(lengths, sessions, "session") == each
    with pytest.raises(InputError, match=r"`scale=`: expected one of none, dataset, session"):
        scale_of(lengths, sessions, "body")


@pytest.mark.parametrize("mode", SCALES[1:])
def test_scale_of__makes_bodies_a_hundred_units_long(store, lengths, mode):
    scale = scale_of(lengths, access.sessions(store), mode)
    again = measure_lengths(Aligner.of(store, scale=scale))
    assert again.dataset_body_length == pytest.approx(BODY_LENGTH, rel=0.05)
    if mode == "session":
        np.testing.assert_allclose(list(again.body_length.values()), BODY_LENGTH, rtol=1e-5)
    for index, step in again.step.items():
        assert step * scale[index] == pytest.approx(lengths.step[index], rel=1e-3)


def test_scale_of__makes_cameras_of_different_zoom_equal(small, copy_store, tmp_path):
    zoomed = copy_store(small, tmp_path / "zoomed.zarr", factor=[1.0, 3.0, 0.5])
    poses = []
    for path in (small, zoomed):
        scale = scale_of(measure_lengths(Aligner.of(path)), access.sessions(path), "session")
        aligner = Aligner.of(path, scale=scale)
        poses.append([aligner.align(Block(session, 0, 600)).pose for session in range(3)])
    np.testing.assert_allclose(poses[1], poses[0], atol=1e-5 * BODY_LENGTH)


def test_scale_of__makes_metres_and_pixels_equal(store, copy_store, tmp_path):
    metres = copy_store(store, tmp_path / "m.zarr", factor=1e-3)
    found = []
    for path in (store, metres):
        aligner = Aligner.of(path)
        scale = scale_of(measure_lengths(aligner), aligner.sessions, "dataset")
        found.append(Aligner.of(path, scale=scale).align(Block(0, 2000, 4000)))
    np.testing.assert_allclose(found[1].pose, found[0].pose, atol=1e-5 * BODY_LENGTH)
    np.testing.assert_allclose(found[1].centroid, found[0].centroid, atol=1e-5 * BODY_LENGTH)


def test_lengths__cannot_be_changed():
    with pytest.raises(AttributeError):
        Lengths({}, {}, 1.0, 1.0).dataset_step = 2.0
