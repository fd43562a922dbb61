"""Confident outlying points change neither components nor labels; with ``none`` they do."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.compute.alignment.alignment import Aligner, AlignmentSettings
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.tracking.outliers import (
    Screen,
    check_scale,
    from_store,
    screen_of,
    to_attrs,
    to_store,
)
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=3, n_frames=1500, seed=2)
BODY = 80.0


def jump(share):
    """Points jump by several body lengths."""

    def change(position, rng):
        is_bad = rng.random(position.shape[:2]) < share
        step = rng.normal(size=position.shape)
        step *= rng.uniform(2, 6, (*is_bad.shape, 1)) / np.linalg.norm(step, axis=-1, keepdims=True)
        return np.where(is_bad[..., None], position + BODY * step, position), is_bad

    return change


def one_value(position, rng):
    """One impossible value."""
    is_bad = np.zeros(position.shape[:2], bool)
    is_bad[100, 2] = True
    return np.where(is_bad[..., None], 1e6, position), is_bad


def exchange(a, b):
    """Two points are exchanged for a stretch of frames."""

    def change(position, rng):
        is_bad = np.zeros(position.shape[:2], bool)
        is_bad[200:275, [a, b]] = True
        position[200:275, [a, b]] = position[200:275, [b, a]]
        return position, is_bad

    return change


KINDS = {"3 %": jump(0.03), "0.2 %": jump(0.002), "one": one_value, "ends": exchange(-1, 0)}


def contaminate(store, kind, *, sessions=None) -> dict[int, np.ndarray]:
    """Change a store in place, all at a confidence of 0.97; session -> what is bad."""
    group, found = access.open_group(store, "r+")["keypoints"], {}
    for session in access.sessions(store):
        if sessions is not None and session.index not in sessions:
            continue
        rows = np.s_[session.index, : session.n_frames]
        rng = np.random.default_rng([7, session.index])
        position, is_bad = KINDS[kind](group["position"][rows].astype(float), rng)
        group["position"][rows] = position
        group["confidence"][rows] = np.where(is_bad, 0.97, group["confidence"][rows])
        found[session.index] = is_bad
    return found


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "s.zarr"
    write_store(path, STUDY)
    return path


@pytest.fixture
def store(clean, tmp_path, copy_store):
    return copy_store(clean, tmp_path / "s.zarr")


def screen_for(store, **options) -> Screen:
    found = screen_of(store, read_settings(store), AlignmentSettings(), 6.0, **options)
    assert found is not None
    return found


def found_in(screen, store) -> dict[int, np.ndarray]:
    group = access.open_group(store)["keypoints"]
    found = {}
    for session in access.sessions(store):
        parts = []
        for block in iter_blocks([session]):
            rows = np.s_[session.index, block.start : block.stop]
            parts.append(screen.find(block, group["position"][rows], group["confidence"][rows]))
        found[session.index] = np.concatenate(parts)
    return found


def cosines(a, b) -> np.ndarray:
    """Principal cosines of the first two components of two PCAs."""
    first, second = (
        np.linalg.qr(found["pose_loading"].values[:2].reshape(2, -1).T)[0] for found in (a, b)
    )
    return np.linalg.svd(first.T @ second, compute_uv=False)


# ------------------------------------------------------------------ components


@pytest.mark.parametrize("kind", list(KINDS))
def test_pca__is_that_of_the_clean_study(clean, store, kind):
    expected = kpms_zarr.pca(clean)
    contaminate(store, kind)
    found = kpms_zarr.pca(store)
    assert cosines(found, expected).min() > 0.98
    assert found.attrs["n_components"] == expected.attrs["n_components"]
    # The wrong twin believes every confident point.
    twin = kpms_zarr.pca(store, outlier_scale="none")
    assert (
        cosines(twin, expected).min() < 0.9
        or twin.attrs["n_components"] != expected.attrs["n_components"]
    )


def test_pca__says_what_it_left_out(store):
    contaminate(store, "3 %")
    found = kpms_zarr.pca(store)
    assert found.attrs["outlier_scale"] == 6
    assert (abs(found["outlier_fraction"] - 0.03) < 0.01).all()
    assert any("taken for missing because they are outlying: point0 " in n for n in found.notes)
    believed = kpms_zarr.pca(store, outlier_scale="none")
    assert believed.attrs["outlier_scale"] == "none"
    assert "outlier_fraction" not in access.dataset(store, "pca")


# ------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    ("kind", "least"), [("3 %", 0.99), ("0.2 %", 0.99), ("one", 1.0), ("ends", 0.9)]
)
def test_screen__finds_the_bad_and_little_else(store, kind, least):
    is_bad = contaminate(store, kind)
    found = found_in(screen_for(store), store)
    confidence = access.open_group(store)["keypoints/confidence"]
    bad, good = [], []
    for session, flags in found.items():
        is_sure = confidence[session, : len(flags)] >= 0.5
        bad.append(flags[is_bad[session] & is_sure])
        good.append(flags[~is_bad[session] & is_sure])
    assert np.concatenate(bad).mean() >= least
    assert np.concatenate(good).mean() < 0.005


def test_screen__does_not_depend_on_the_order_of_the_sessions(clean, tmp_path, copy_store):
    contaminated = copy_store(clean, tmp_path / "a.zarr")
    contaminate(contaminated, "3 %")
    other = copy_store(contaminated, tmp_path / "b.zarr", order=[2, 0, 1])
    ours = found_in(screen_for(contaminated), contaminated)
    theirs = found_in(screen_for(other), other)
    for here, there in ((0, 1), (1, 2), (2, 0)):
        np.testing.assert_array_equal(ours[here], theirs[there])


def test_screen__knows_cameras_that_see_the_animals_larger(clean, tmp_path, copy_store):
    """A power of two, so that rounding is the same: what is found is the same."""
    zoomed = copy_store(clean, tmp_path / "z.zarr", factor=[1.0, 8.0, 0.25])
    for place in (clean, zoomed):
        contaminate(place, "ends") if place is zoomed else None
    plain = copy_store(clean, tmp_path / "p.zarr")
    contaminate(plain, "ends")
    ours, theirs = found_in(screen_for(plain), plain), found_in(screen_for(zoomed), zoomed)
    differ = np.mean([(ours[i] != theirs[i]).mean() for i in ours])
    assert differ < 1e-3


def test_screen__with_a_model_sees_a_session_alone(clean, store):
    """As apply does it: what is found in a session does not depend on the others."""
    contaminate(store, "3 %")
    model = screen_for(store).model
    sessions = access.sessions(store)
    alone = screen_for(store, sessions=sessions[1:2], model=model)
    together = found_in(screen_for(store, model=model), store)[1]
    group = access.open_group(store)["keypoints"]
    n = sessions[1].n_frames
    found = alone.find(Block(1, 0, n), group["position"][1, :n], group["confidence"][1, :n])
    np.testing.assert_array_equal(found, together)


def test_screen__remembers_and_travels(store):
    contaminate(store, "3 %")
    screen = screen_for(store)
    first, again = found_in(screen, store), found_in(screen, store)
    elsewhere = found_in(pickle.loads(pickle.dumps(screen)), store)
    for session in first:
        np.testing.assert_array_equal(first[session], again[session])
        np.testing.assert_array_equal(first[session], elsewhere[session])


def test_screen__keeps_a_keypoint_that_is_another_one_in_a_session(store):
    """Two points that have each other's names all through a session are no outliers."""
    group = access.open_group(store, "r+")["keypoints"]
    group["n_frames"][1] = 300
    position = group["position"][1]
    position[:, [2, 5]] = position[:, [5, 2]]
    group["position"][1] = position
    screen = screen_for(store)
    assert found_in(screen, store)[1][:, [2, 5]].mean() < 0.2
    assert any("session_001" in note and "elsewhere than expected" in note for note in screen.notes)


@pytest.mark.parametrize("n_keypoints", [2, 3, 4])
def test_screen__of_few_keypoints_goes_by_the_middle(tmp_path, n_keypoints):
    path = tmp_path / "few.zarr"
    write_store(path, SyntheticStudy(n_sessions=1, n_frames=800, n_keypoints=n_keypoints))
    group = access.open_group(path, "r+")["keypoints"]
    group["position"][0, 50, -1], group["confidence"][0, 50] = 1e5, 1.0
    screen = screen_for(path)
    assert (screen.model.pose is None) == (n_keypoints < 4)
    assert found_in(screen, path)[0][50, -1]
    assert found_in(screen, path)[0].mean() < 0.05


@pytest.mark.parametrize("case", ["still", "one spot", "one frame", "nothing seen", "never seen"])
def test_screen__of_sessions_with_nothing_to_measure(store, case):
    """Nothing is outlying where there is nothing to go by, and nothing is warned of."""
    group = access.open_group(store, "r+")["keypoints"]
    position = group["position"][...]
    if case == "still":
        position[1] = position[1, :1]
    elif case == "one spot":
        position[1] = 7.0
    elif case == "one frame":
        group["n_frames"][1] = 1
    elif case == "nothing seen":
        position[1] = np.nan
    else:
        position[1, :, 3] = np.nan
    group["position"][...] = position
    found = found_in(screen_for(store), store)[1]
    is_sure = access.open_group(store)["keypoints/confidence"][1, : len(found)] >= 0.5
    seen = np.isfinite(position[1, : len(found)]).all(-1) & is_sure
    assert found[seen].mean() < 0.02 if seen.any() else True


# ------------------------------------------------------------------ settings and stores


def test_check_scale__takes_numbers_and_none():
    assert check_scale(4) == 4.0
    assert check_scale("none") is None is check_scale(None)
    for wrong in (0, -1, np.nan, np.inf, True, "six"):
        with pytest.raises(InputError, match="outlier_scale="):
            check_scale(wrong)


def test_config__holds_the_scale_through_json():
    for given, held in ((6.0, 6.0), (3.5, 3.5), ("none", None), (None, None)):
        config = kpms_zarr.FitConfig(outlier_scale=given)
        again = kpms_zarr.FitConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert config.outlier_scale == again.outlier_scale == held
        assert config == again
    with pytest.raises(InputError, match="outlier_scale="):
        kpms_zarr.FitConfig(outlier_scale=-1)


def test_model__comes_back_from_the_store(store):
    kpms_zarr.pca(store)
    dataset = access.dataset(store, "pca").load()
    found, expected = from_store(dataset.variables, dataset.attrs), screen_for(store).model
    assert found.scale == expected.scale == 6
    assert found.confidence_threshold == expected.confidence_threshold == 0.5
    for a, b in zip((found.reference, *found.pose), (expected.reference, *expected.pose),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    assert from_store({}, to_attrs(None)) is None
    assert from_store(to_store(expected), {}) is None  # a store of before


def test_aligner__interpolates_what_the_screen_finds(store):
    contaminate(store, "one")
    screen = screen_for(store)
    with_screen, believing = Aligner.of(store, screen=screen), Aligner.of(store)
    block = Block(0, 0, 1500)
    assert not with_screen.align(block).is_confident[100]
    assert np.abs(with_screen.align(block).pose[100]).max() < 2 * BODY
    assert np.abs(believing.align(block).pose[100]).max() > 1e5  # the wrong twin


@pytest.fixture(scope="module")
def fitted(clean, tmp_path_factory, copy_store):
    """A contaminated store with a model of two of its three sessions."""
    path = copy_store(clean, tmp_path_factory.mktemp("fitted") / "s.zarr")
    contaminate(path, "one")
    config = kpms_zarr.FitConfig(
        ar_sweeps=2, sweeps=2, n_states=8, sessions=("session_000", "session_001"),
        refine_pose=False, certainty=False,
    )  # fmt: skip
    kpms_zarr.fit(path, model="m", config=config)
    return path


@pytest.mark.full
@pytest.mark.slow
def test_fit__leaves_out_and_apply_goes_on_with_it(fitted):
    start = StartModel.of(fitted, "m")
    assert start.outliers.scale == 6
    assert start.settled["outlier_scale"] == 6
    noise = start.noise_variance.mean()
    assert noise < 30  # the impossible value has no weight
    done = kpms_zarr.apply(fitted, model="m", sweeps=2, check=False)
    assert done.labelled == ("session_002",)


@pytest.mark.full
@pytest.mark.slow
def test_apply__of_a_model_of_before_believes_every_point(fitted, tmp_path, copy_store):
    """What a model that knows nothing of outliers is applied with is what it was fitted with."""
    import shutil

    path = tmp_path / "old.zarr"
    shutil.copytree(fitted, path)
    parameters = access.open_group(path, "r+")["models/m/parameters/v1"]
    attrs = dict(parameters.attrs)
    for name in list(attrs):
        if name.startswith("outlier"):
            del parameters.attrs[name]
    provenance = attrs["provenance"]
    if isinstance(provenance, str):
        provenance = json.loads(provenance)
    del provenance["settings"]["outlier_scale"]
    same_kind = json.dumps(provenance) if isinstance(attrs["provenance"], str) else provenance
    parameters.attrs["provenance"] = same_kind
    assert StartModel.of(path, "m").outliers is None
    done = kpms_zarr.apply(path, model="m", sessions=["session_002"], sweeps=2, check=False)
    assert not any("outlying" in note for note in done.notes)
    now = kpms_zarr.apply(fitted, model="m", sessions=["session_002"], sweeps=2, check=False)
    assert any("outlying" in note for note in now.notes)
