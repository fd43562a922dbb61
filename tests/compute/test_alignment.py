"""Egocentric alignment: exact whatever the blocks, interpolation, unseen keypoints, errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.compute.alignment import alignment
from kpms_zarr.compute.alignment.alignment import (
    Aligner,
    AlignmentSettings,
    Borders,
    Compass,
    align_block,
    interpolate,
    is_valid,
)
from kpms_zarr.compute.alignment.heading_names import require_heading, suggest_heading
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.settings import StudySettings, read_settings, subset_keypoints
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

N_FRAMES = 40_000
COMPASS = Compass((3,), (0,))


def alone(n_keypoints: int, n_space: int) -> Borders:
    """Borders of a block that is a whole session."""
    none, value = np.full(n_keypoints, -1), np.zeros((n_keypoints, n_space))
    return Borders(none, value, none, value)


def by_numpy(position: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Oracle: interpolate a whole session with numpy.interp."""
    frames = np.arange(len(position))
    filled = np.full(position.shape, np.nan)
    for k in range(position.shape[1]):
        seen = np.flatnonzero(valid[:, k])
        for d in range(position.shape[2]) if seen.size else ():
            filled[:, k, d] = np.interp(frames, seen, position[seen, k, d].astype(float))
    return filled


def rigid(seed: int, n_frames: int, n_space: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A rigid animal of 5 keypoints that walks about: position, its pose, its heading."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(size=(5, n_space)) * 20
    pose[0, :2], pose[3, :2] = (-30, 1), (30, 1)
    heading = np.cumsum(rng.normal(size=n_frames) * 0.1)
    centre = np.cumsum(rng.normal(size=(n_frames, n_space)), axis=0) + 300
    poses = np.broadcast_to(pose, (n_frames, *pose.shape))
    return rotate(poses, heading) + centre[:, None], pose - pose.mean(0), heading


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def n_space(request):
    return request.param


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two sessions of three blocks; a keypoint is lost for longer than a block in one of them."""
    path = tmp_path_factory.mktemp("alignment") / "study.zarr"
    study = SyntheticStudy(n_sessions=2, n_frames=N_FRAMES, n_keypoints=4, missing_fraction=0.05)
    write_store(path, study)
    group = access.open_group(path, "r+")["keypoints"]
    group["position"][0, 9_000:36_000, 2] = np.nan
    group["position"][0, :20_000, 1] = np.nan
    group["confidence"][1, 35_000:, 3] = 0.1
    group["confidence"][1, 100:200] = np.nan
    return path


@pytest.fixture(scope="module")
def aligner(store):
    return Aligner.of(store)


def raw(store, session: int) -> tuple[np.ndarray, np.ndarray]:
    group = access.open_group(store)["keypoints"]
    return group["position"][session, :N_FRAMES], group["confidence"][session, :N_FRAMES]


def equal(a, b) -> None:
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


# ------------------------------------------------------------------ one block


def test_align_block__turns_every_animal_to_plus_x(n_space):
    position, pose, heading = rigid(0, 500, n_space)
    confidence = np.ones(position.shape[:2])
    kept = position.copy(), confidence.copy()
    got = align_block(position, confidence, alone(5, n_space), start=0, compass=COMPASS)
    np.testing.assert_allclose(got.pose, np.broadcast_to(pose, got.pose.shape), atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * got.heading), np.exp(1j * heading), atol=1e-9)
    np.testing.assert_allclose(got.centroid, position.mean(1))
    np.testing.assert_allclose(
        rotate(got.pose, got.heading) + got.centroid[:, None], position, atol=1e-9
    )
    assert got.is_confident.all()
    np.testing.assert_array_equal(position, kept[0])
    np.testing.assert_array_equal(confidence, kept[1])


def test_align_block__in_3d_turns_about_the_vertical_axis_only():
    position, _, _ = rigid(1, 50, 3)
    position[:, 3, 2] += np.linspace(0, 80, 50)  # rears
    got = align_block(position, np.ones((50, 5)), alone(5, 3), start=0, compass=COMPASS)
    heights = position[..., 2] - position[..., 2].mean(1, keepdims=True)
    np.testing.assert_allclose(got.pose[..., 2], heights, atol=1e-9)


def test_align_block__heading_is_between_the_means_of_both_ends(n_space):
    position, _, _ = rigid(2, 60, n_space)
    compass = Compass((3, 4), (0, 1))
    got = align_block(position, np.ones((60, 5)), alone(5, n_space), start=0, compass=compass)
    line = got.pose[:, [3, 4]].mean(1) - got.pose[:, [0, 1]].mean(1)
    np.testing.assert_allclose(line[:, 1], 0, atol=1e-9)
    assert (line[:, 0] > 0).all()


def test_is_valid__needs_a_position_and_no_low_confidence():
    position = np.zeros((5, 1, 2))
    position[0, 0, 1], position[4, 0, 0] = np.nan, np.inf
    confidence = np.array([[1.0], [0.49], [0.5], [np.nan], [1.0]])
    assert is_valid(position, confidence, 0.5)[:, 0].tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1e-9, 0.5])
def test_is_valid__a_confidence_of_zero_or_below_never_counts(threshold):
    confidence = np.array([[0.0], [-0.0], [0.7], [np.nan], [-1e-9]])
    valid = is_valid(np.zeros((5, 1, 2)), confidence, threshold)
    assert valid[:, 0].tolist() == [False, False, True, True, False]


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 1.0))
def test_interpolate__equals_numpy(seed, share):
    rng = np.random.default_rng(seed)
    position = rng.normal(size=(30, 3, 2)).astype(np.float32)
    valid = rng.random((30, 3)) < share
    filled = interpolate(np.where(valid[..., None], position, np.nan), valid, alone(3, 2), 0)
    np.testing.assert_allclose(filled, by_numpy(position, valid), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------ any blocks


@settings(deadline=None, max_examples=examples(40))
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.9), length=st.integers(1, 40))
def test_interpolate__is_the_same_to_the_bit_for_any_block_length(seed, share, length):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, 3)
    sessions = [rng.normal(size=(n, 3, 2)).astype(np.float32) for n in sizes]
    valids = [rng.random((n, 3)) < share for n in sizes]
    pieces = [range(0, n, length) for n in sizes]
    observations = [
        alignment.observations_of_block(p[s : s + length], v[s : s + length], s)
        for p, v, starts in zip(sessions, valids, pieces, strict=True)
        for s in starts
    ]
    together = observations[0]
    for more in observations[1:]:
        together = alignment.add_observations(together, more)
    first_row = np.cumsum([0, *map(len, pieces)])[:-1]
    earlier, later = alignment._neighbours(together, first_row)
    for session, (position, valid) in enumerate(zip(sessions, valids, strict=True)):
        whole = interpolate(position, valid, alone(3, 2), 0)
        for i, start in enumerate(pieces[session]):
            row, point = first_row[session] + i, np.arange(3)
            borders = Borders(
                np.where(earlier[row] < 0, -1, together.last_frame[earlier[row], point]),
                together.last_value[earlier[row], point],
                np.where(later[row] < 0, -1, together.first_frame[later[row], point]),
                together.first_value[later[row], point],
            )
            cut = slice(start, start + length)
            part = interpolate(position[cut], valid[cut], borders, start)
            np.testing.assert_array_equal(part, whole[cut])


def test_aligner__equals_the_whole_session_at_once(store, aligner):
    for session in range(2):
        position, confidence = raw(store, session)
        whole = align_block(position, confidence, alone(4, 2), start=0, compass=COMPASS)
        equal(aligner.align(Block(session, 0, N_FRAMES)), whole)
        filled = by_numpy(position, is_valid(position, confidence, 0.5))
        got = rotate(whole.pose, whole.heading) + whole.centroid[:, None]
        np.testing.assert_allclose(got, filled, atol=1e-8)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 16_384), (5_000, 40_000), (16_383, 16_386), (39_999, 40_000)]
)
def test_aligner__aligns_any_frames(aligner, start, stop):
    for session in range(2):
        whole = aligner.align(Block(session, 0, N_FRAMES))
        part = aligner.align(Block(session, start, stop))
        equal(part, type(part)(*(values[start:stop] for values in whole)))


def test_aligner__without_borders_would_be_wrong(store, aligner):
    """The wrong twin: a block that does not know its neighbours gives other numbers."""
    position, confidence = (values[16_384:32_768] for values in raw(store, 0))
    lost = align_block(position, confidence, alone(4, 2), start=16_384, compass=COMPASS)
    got = aligner.align(Block(0, 16_384, 32_768))
    assert not np.allclose(lost.pose, got.pose, equal_nan=True)


def test_aligner__keeps_a_long_lost_keypoint_on_the_animal(store, aligner):
    """Defect 18 of users.md: a keypoint that is low for long must not land somewhere else."""
    position, _ = raw(store, 0)
    got = aligner.align(Block(0, 0, N_FRAMES))
    filled = rotate(got.pose, got.heading) + got.centroid[:, None]
    low, high = np.nanmin(position, (0, 1)), np.nanmax(position, (0, 1))
    assert (filled >= low - 1e-6).all()
    assert (filled <= high + 1e-6).all()


def test_aligner__travels_between_processes(aligner):
    twin = pickle.loads(pickle.dumps(aligner))
    equal(twin.align(Block(1, 30_000, 40_000)), aligner.align(Block(1, 30_000, 40_000)))


def test_aligner__can_leave_the_heading_alone(store):
    fixed = Aligner.of(store, AlignmentSettings(fix_heading=True), study=no_heading(store))
    got = fixed.align(Block(0, 0, 20_000))
    assert not got.heading.any()
    filled = by_numpy(raw(store, 0)[0], is_valid(*raw(store, 0), 0.5))[:20_000]
    np.testing.assert_allclose(got.pose + got.centroid[:, None], filled, atol=1e-8)


def test_aligner__has_a_threshold(store):
    strict = Aligner.of(store, AlignmentSettings(confidence_threshold=0.999))
    loose = Aligner.of(store, AlignmentSettings(confidence_threshold=0.0))
    block = Block(1, 0, 16_384)
    assert strict.align(block).is_confident.sum() < 200 < loose.align(block).is_confident.sum()


def no_heading(store) -> StudySettings:
    return StudySettings(tuple(f"point{i}" for i in range(4)), ("x", "y"))


# ------------------------------------------------------------------ keypoints never seen


def rigid_store(path, n_space: int, hidden: dict[int, list[int]], n_frames: int = 300):
    """A store of three sessions of the same rigid animal, with keypoints hidden by session."""
    write_store(
        path, SyntheticStudy(n_sessions=3, n_frames=n_frames, n_keypoints=5, n_space=n_space)
    )
    root = access.open_group(path, "r+")
    root.attrs["anterior_keypoints"] = ["point3", "point4"]
    root.attrs["posterior_keypoints"] = ["point0"]
    base = rigid(0, 1, n_space)[1]
    for row in range(3):
        position, _, heading = rigid(row, n_frames, n_space)
        centre = position.mean(1, keepdims=True)
        poses = np.broadcast_to(base, (n_frames, *base.shape))
        root["keypoints/position"][row] = (rotate(poses, heading) + centre).astype(np.float32)
        for point in hidden.get(row, []):
            root["keypoints/position"][row, :, point] = np.nan
    root["keypoints/confidence"][...] = 1.0
    return path


@pytest.mark.parametrize("hidden", [[2], [4], [3, 1], [4, 1, 2]], ids=str)
def test_aligner__puts_a_never_seen_keypoint_where_it_is_on_the_others(tmp_path, n_space, hidden):
    path = rigid_store(tmp_path / "s.zarr", n_space, {1: hidden})
    aligner = Aligner.of(path)
    blocks = [Block(row, 0, 300) for row in range(3)]
    seen, unseen, other = (aligner.align(block) for block in blocks)
    np.testing.assert_allclose(seen.pose, other.pose, atol=1e-3)
    np.testing.assert_allclose(unseen.pose, seen.pose, atol=1e-3)
    assert not unseen.is_confident.any()
    names = ", ".join(f"point{k}" for k in sorted(hidden))
    assert len(aligner.notes) == 1
    assert aligner.notes[0].startswith(f"session_001: {names} never tracked")


def test_aligner__measures_offsets_on_frames_without_interpolation(tmp_path):
    path = rigid_store(tmp_path / "s.zarr", 2, {1: [2]})
    group = access.open_group(path, "r+")["keypoints"]
    group["position"][0, 10:, 2] = np.nan  # held where it was while the animal walks on
    group["position"][2, 10:, 2] = np.nan
    aligner = Aligner.of(path)
    seen, unseen = aligner.align(Block(0, 0, 10)), aligner.align(Block(1, 0, 10))
    np.testing.assert_allclose(unseen.pose, seen.pose, atol=1e-3)


def test_aligner__fills_several_patterns(tmp_path):
    path = rigid_store(tmp_path / "s.zarr", 3, {0: [1], 2: [2, 4]})
    aligner = Aligner.of(path)
    first, second, third = (aligner.align(Block(row, 0, 300)) for row in range(3))
    np.testing.assert_allclose(first.pose, second.pose, atol=1e-3)
    np.testing.assert_allclose(third.pose, second.pose, atol=1e-3)
    assert len(aligner.notes) == 2


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ({0: [0]}, "session_000: expected a sighting of the posterior keypoints (point0)"),
        ({1: [3, 4]}, "the anterior keypoints (point3, point4)"),
        ({2: [0, 1, 2, 3, 4]}, "session_002: expected a sighting of any keypoint"),
        ({0: [1], 1: [2], 2: [1]}, "`keypoints=['point0', 'point3', 'point4']`"),
    ],
    ids=["posterior", "anterior", "all", "no complete session"],
)
def test_aligner__refuses_sessions_that_see_too_little(tmp_path, hidden, expected):
    path = rigid_store(tmp_path / "s.zarr", 2, hidden)
    with pytest.raises(InputError) as error:
        Aligner.of(path)
    assert expected in str(error.value)


def test_aligner__names_all_bad_sessions_at_once(tmp_path):
    path = rigid_store(tmp_path / "s.zarr", 2, {0: [0], 1: [3, 4]})
    with pytest.raises(InputError) as error:
        Aligner.of(path)
    assert [problem.where for problem in error.value.problems] == [
        "session session_000",
        "session session_001",
    ]


# ------------------------------------------------------------------ some keypoints, other units


@pytest.mark.parametrize(
    "names", [("point3", "point0", "point2"), ("point0", "point2", "point3", "point1")], ids=len
)
def test_aligner__of_some_keypoints_equals_a_store_of_them(store, copy_store, tmp_path, names):
    only = copy_store(store, tmp_path / "only.zarr", keypoints=names)
    study = subset_keypoints(read_settings(store), names)
    ours, theirs = Aligner.of(store, study=study), Aligner.of(only)
    assert ours.study.keypoints == theirs.study.keypoints == names
    for block in (Block(0, 0, N_FRAMES), Block(1, 15_000, 36_000)):
        equal(ours.align(block), theirs.align(block))
    equal(ours.observations, theirs.observations)


def test_aligner__all_keypoints_in_another_order_give_the_same_animal(store, aligner):
    names = ("point2", "point0", "point3", "point1")
    other = Aligner.of(store, study=subset_keypoints(read_settings(store), names))
    ours, theirs = other.align(Block(0, 0, 9_000)), aligner.align(Block(0, 0, 9_000))
    np.testing.assert_allclose(ours.pose, theirs.pose[:, [2, 0, 3, 1]], atol=1e-9)
    np.testing.assert_array_equal(ours.is_confident, theirs.is_confident)


def test_aligner__of_some_keypoints_puts_those_never_seen(tmp_path, copy_store):
    path = rigid_store(tmp_path / "s.zarr", 2, {1: [2]})
    names = ("point4", "point2", "point0")
    only = copy_store(path, tmp_path / "only.zarr", keypoints=names)
    ours = Aligner.of(path, study=subset_keypoints(read_settings(path), names))
    equal(ours.align(Block(1, 0, 300)), Aligner.of(only).align(Block(1, 0, 300)))
    assert "session_001: point2 never tracked" in ours.notes[0]


def test_aligner__without_the_keypoints_that_sessions_lack_needs_no_offsets(tmp_path):
    path = rigid_store(tmp_path / "s.zarr", 2, {0: [1], 1: [2], 2: [1]})
    with pytest.raises(InputError, match="use_keypoints=") as error:
        Aligner.of(path)
    assert "`keypoints=['point0', 'point3', 'point4']`" in str(error.value)
    study = subset_keypoints(read_settings(path), ("point0", "point3", "point4"))
    assert Aligner.of(path, study=study).notes == ()


@pytest.mark.parametrize("scale", [0.9, 250.0, 1.3e-3])
def test_aligner__in_model_units_equals_a_store_in_these(
    store, aligner, copy_store, tmp_path, scale
):
    other = copy_store(store, tmp_path / "other.zarr", factor=[1 / scale, 1.0])
    ours = Aligner.of(store, scale={0: scale})
    theirs = Aligner.of(other)
    for block in (Block(0, 9_000, N_FRAMES), Block(1, 0, 100)):
        got, expected = ours.align(block), theirs.align(block)
        size = np.abs(expected.centroid).max()
        for name in ("pose", "centroid"):
            a, b = getattr(got, name), getattr(expected, name)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * size)
        np.testing.assert_allclose(np.cos(got.heading - expected.heading), 1, atol=1e-8)
        np.testing.assert_array_equal(got.is_confident, expected.is_confident)
    equal(ours.align(Block(1, 0, 100)), aligner.align(Block(1, 0, 100)))


def test_aligner__in_model_units_puts_never_seen_keypoints_there(tmp_path):
    path = rigid_store(tmp_path / "s.zarr", 2, {1: [2]})
    root = access.open_group(path, "r+")
    root["keypoints/position"][1] = root["keypoints/position"][1] * 4  # a nearer camera
    aligner = Aligner.of(path, scale={1: 4.0})
    seen, unseen = aligner.align(Block(0, 0, 300)), aligner.align(Block(1, 0, 300))
    np.testing.assert_allclose(unseen.pose, seen.pose, atol=1e-3)
    # The wrong twin: without the scale the keypoint lands too near.
    wrong = Aligner.of(path).align(Block(1, 0, 300)).pose / 4
    assert np.abs(wrong - seen.pose).max() > 1


def test_aligner__refuses_keypoints_that_the_store_lacks(store):
    study = StudySettings(("point0", "pont3", "point3"), ("x", "y"), ("point3",), ("point0",))
    with pytest.raises(InputError, match=r"^`use_keypoints=`: .* found 'pont3'") as error:
        Aligner.of(store, study=study)
    assert "did you mean 'point3'?" in str(error.value)


# ------------------------------------------------------------------ where the front is


def test_aligner__asks_for_the_heading_keypoints(store):
    with pytest.raises(InputError, match=r"pca\(.*, anterior=\['X'\], posterior=\['Y'\]\)"):
        Aligner.of(store, study=no_heading(store))


def test_require_heading__suggests_names():
    study = StudySettings(("tail1", "tailBase", "spine2", "ear_L", "Nose"), ("x", "y"))
    with pytest.raises(InputError) as error:
        require_heading(study, "s.zarr")
    assert (
        "did you mean: `kpms_zarr.pca('s.zarr', anterior=['Nose'], posterior=['tailBase'])"
        in str(error.value)
    )
    assert "no anterior and posterior keypoint" in str(error.value)


def test_require_heading__keeps_the_side_that_is_known():
    study = StudySettings(("a", "tailbase", "nose"), ("x", "y"), anterior=("a",))
    with pytest.raises(InputError, match=r"anterior=\['a'\], posterior=\['tailbase'\]") as error:
        require_heading(study, "s.zarr")
    assert "no posterior keypoint" in str(error.value)


def test_require_heading__of_some_keypoints_says_which_to_add():
    names = ("tail", "tailbase", "spine", "ear", "nose")
    stored = StudySettings(names, ("x", "y"), ("nose", "ear"), ("tailbase",))
    with pytest.raises(InputError) as error:
        require_heading(subset_keypoints(stored, ("spine", "tailbase")), "s.zarr", stored=stored)
    text = str(error.value)
    assert "s.zarr: expected anterior and posterior keypoints" in text
    assert "among those used, found no anterior keypoint among spine, tailbase" in text
    assert "add nose,ear to `use_keypoints=`" in text
    assert "kpms-zarr pca s.zarr --anterior X --posterior tailbase" in for_shell(text)
    assert "`fix_heading=True`" in text
    assert "kpms_zarr.ingest" not in text


def test_require_heading__of_some_keypoints_suggests_among_those():
    stored = StudySettings(("tail", "tailbase", "spine", "ear", "nose"), ("x", "y"))
    with pytest.raises(InputError, match=r"did you mean: `kpms_zarr.pca\(.s\.zarr") as error:
        require_heading(subset_keypoints(stored, ("ear", "spine")), "s.zarr", stored=stored)
    assert "anterior=['ear'], posterior=['spine']" in str(error.value)
    assert "add" not in str(error.value)


def test_aligner__of_some_keypoints_asks_for_those_of_the_heading(store):
    study = subset_keypoints(read_settings(store), ("point0", "point1"))
    with pytest.raises(InputError, match="add point3 to `use_keypoints=`"):
        Aligner.of(store, study=study)
    fixed = Aligner.of(store, AlignmentSettings(fix_heading=True), study=study)
    assert fixed.align(Block(0, 0, 10)).pose.shape == (10, 2, 2)


@pytest.mark.parametrize(
    ("keypoints", "front", "rear"),
    [
        (("nose", "left ear", "right ear", "tail_base", "tail_tip"), "nose", "tail_base"),
        (("leftEar", "earR", "spine 1", "spine 10", "spine 2"), "leftEar,earR", "spine 10"),
        (("rear_paw", "forearm", "neck", "hip"), "neck", "hip"),
        (("snout", "lower_spine", "hip_l"), "snout", "lower_spine"),
        (("head", "tail2", "tail1"), "head", "tail1"),
        (("Nose", "BaseTail"), "Nose", "BaseTail"),
        (("p0", "p1"), "", ""),
    ],
)
def test_suggest_heading__reads_names(keypoints, front, rear):
    assert suggest_heading(keypoints) == (
        tuple(filter(None, front.split(","))),
        tuple(filter(None, rear.split(","))),
    )


def test_aligner__refuses_an_empty_store(tmp_path):
    access.create(tmp_path / "empty.zarr")
    with pytest.raises(InputError, match="at least one session"):
        Aligner.of(tmp_path / "empty.zarr")
