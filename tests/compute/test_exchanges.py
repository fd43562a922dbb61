"""Left and right that a tracker exchanged are found with their frames, turning animals are not."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.compute.tracking.exchanges import Sides, pairs_by_geometry, pairs_by_name
from kpms_zarr.compute.tracking.quality import exchanges_of, quality, warnings_of
from kpms_zarr.store.core import access

NAMES = ["nose", "earL", "earR", "hipL", "hipR", "tail"]
POSE = np.array([[50, 0], [30, 12], [30, -12], [-25, 15], [-25, -15], [-50, 0]], float)
N_FRAMES = 3000


class Walk(NamedTuple):
    """An animal that walks, turns often and fast, and bends."""

    position: np.ndarray
    confidence: np.ndarray


def walk(seed: int = 0, n_frames: int = N_FRAMES, n_space: int = 2, noise: float = 1.0) -> Walk:
    rng = np.random.default_rng(seed)
    heading = np.cumsum(0.15 * rng.normal(size=n_frames))
    bend = 8 * np.sin(np.cumsum(0.1 * rng.normal(size=n_frames)))
    pose = np.repeat(POSE[None], n_frames, 0)
    pose[:, 0, 1] += bend
    pose[:, 5, 1] -= bend
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    x = cos * pose[..., 0] - sin * pose[..., 1]
    y = sin * pose[..., 0] + cos * pose[..., 1]
    place = 500 + np.cumsum(2 * np.stack([cos, sin], -1), 0)
    position = np.stack([x, y], -1) + place + noise * rng.normal(size=(n_frames, 6, 2))
    if n_space == 3:
        position = np.concatenate([position, 20 + rng.normal(size=(n_frames, 6, 1))], -1)
    return Walk(position, rng.uniform(0.8, 1, (n_frames, 6)))


def exchange(walk: Walk, pair: tuple[int, int], *stretches: tuple[int, int]) -> Walk:
    position = walk.position.copy()
    for start, stop in stretches:
        position[start:stop, list(pair)] = position[start:stop, list(pair)[::-1]]
    return walk._replace(position=position)


def looked(tmp_path, walks: dict[str, Walk], names=NAMES, **options):
    store = tmp_path / "s.zarr"
    kpms_zarr.ingest(
        store, arrays={name: one.position for name, one in walks.items()},
        confidences={name: one.confidence for name, one in walks.items()},
        keypoint_names=names, anterior=[names[0]], posterior=[names[5]], **options,
    )  # fmt: skip
    return store, quality(store)


@pytest.mark.parametrize("n_space", [2, 3])
def test_exchanges__that_were_planted_are_found_with_their_frames(tmp_path, n_space):
    clean = walk(n_space=n_space)
    planted = ((300, 420), (1000, 1004), (2500, 2790))
    walks = {"clean": clean, "odd": exchange(clean, (1, 2), *planted)}
    store, found = looked(tmp_path, walks)
    assert found["side_pair"].values.tolist() == ["earL, earR", "hipL, hipR"]
    np.testing.assert_array_equal(found["exchanged_frames"], [[0, 0], [414, 0]])
    assert exchanges_of(found) == [
        ("odd", "earL, earR", 414, tuple((a, b - 1) for a, b in planted))
    ]
    (said,) = [text for text in warnings_of(found) if "exchanged" in text]
    assert "earL, earR seem exchanged in 414 frames of odd" in said
    assert "longest in odd from frame 2,500 to 2,789" in said
    stored = access.dataset(store, "quality")
    np.testing.assert_array_equal(stored["exchange_start"][1, 0, :3], [2500, 300, 1000])


@pytest.mark.parametrize("names", [NAMES, ["nose", "b", "c", "d", "e", "tail"]])
def test_exchanges__of_a_turning_animal_are_none(tmp_path, names):
    walks = {f"s{seed}": walk(seed, noise=3.0) for seed in range(3)}
    _, found = looked(tmp_path, walks, names)
    assert found["exchanged_frames"].shape == (3, 2)
    assert found["exchanged_frames"].sum() <= 3  # of 18,000
    assert not [text for text in warnings_of(found) if "exchanged" in text]


def test_exchanges__are_found_without_names(tmp_path):
    walks = {"odd": exchange(walk(), (3, 4), (700, 900))}
    _, found = looked(tmp_path, walks, ["nose", "b", "c", "d", "e", "tail"])
    ((session, pair, number, stretches),) = exchanges_of(found)
    assert (session, set(pair.split(", ")), number) == ("odd", {"d", "e"}, 200)
    assert stretches == ((700, 899),)


def test_exchanges__an_animal_that_rolls_carries_its_sides_along(tmp_path):
    rolling = walk(noise=0.2)
    angle = np.zeros(N_FRAMES)
    angle[1000:1030], angle[1030:1200] = np.linspace(0, np.pi, 30), np.pi
    angle[1200:1230] = np.linspace(np.pi, 0, 30)
    middle = rolling.position.mean(1, keepdims=True)
    axis = rolling.position[:, :1] - rolling.position[:, 5:]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    gap = rolling.position - middle
    along = (gap * axis).sum(-1, keepdims=True) * axis
    flat = middle + along + (gap - along) * np.cos(angle)[:, None, None]
    _, found = looked(tmp_path, {"rolling": rolling._replace(position=flat)})
    assert found["exchanged_frames"].sum() == 0


def test_exchanges__without_a_heading_are_not_looked_for(tmp_path):
    kpms_zarr.ingest(tmp_path / "s.zarr", arrays={"a": walk().position}, keypoint_names=NAMES)
    found = quality(tmp_path / "s.zarr")
    assert "exchanged_frames" not in found
    assert exchanges_of(found) == []


def test_front_on_the_rear__is_said_with_its_share(tmp_path):
    odd = walk()
    odd.position[:600, 0] = odd.position[:600, 5]
    store, found = looked(tmp_path, {"clean": walk(1), "odd": odd})
    np.testing.assert_allclose(found["heading_undefined_fraction"], [0, 0.2])
    (said,) = [text for text in warnings_of(found) if "same spot" in text]
    assert "20 % of the frames of odd" in said
    (note,) = [text for text in kpms_zarr.pca(store).attrs["notes"] if "same spot" in text]
    assert "nose and tail are on the same spot in 10 % of the frames" in note


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("ear_left", "ear_right"), ("leftEar", "rightEar"), ("LeftEar", "RightEar"),
        ("L_hip", "R_hip"), ("hip_l", "hip_r"), ("earL", "earR"), ("lefteye", "righteye"),
        ("left ear", "right ear"), ("Left_Ear", "Right_Ear"), ("hind.left.paw", "hind.right.paw"),
        ("earl", "earr"),
    ],
)  # fmt: skip
def test_pairs_by_name__of_common_spellings(left, right):
    names = ["nose", right, "spine", left, "tail"]
    assert pairs_by_name(names) == ((3, 1),)


@pytest.mark.parametrize(
    "names", [["nose", "tail", "collar", "lips"], ["tl", "tr"], ["L", "R"], ["left ear"]]
)
def test_pairs_by_name__are_not_made_of_other_words(names):
    assert pairs_by_name(names) == ()


def test_pairs_by_geometry__are_mirror_images():
    assert pairs_by_geometry(POSE / 100) == ((1, 2), (3, 4))
    assert pairs_by_geometry(POSE[[0, 1, 3, 5]] / 100) == ()


@settings(deadline=None, max_examples=examples(60))
@given(st.data())
def test_sides__are_the_same_for_any_split(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    across = np.repeat(rng.choice([1.0, -1.0, 0.1, np.nan], 12), rng.integers(1, 5, 12))
    n = len(across)
    place = np.stack([np.zeros((n, 2)), np.full((n, 2), 5.0)], 1)
    flipped = np.nan_to_num(across) < 0
    place[flipped] = place[flipped][:, ::-1]
    place += 0.1 * rng.normal(size=place.shape)
    at = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=5)))
    whole = Sides.of_block(across, place, 0, 3)
    parts = zip([0, *at], np.split(across, at), np.split(place, at), strict=True)
    total = reduce(
        lambda a, b: a.add(b, 3), (Sides.of_block(one, where, i, 3) for i, one, where in parts)
    )
    np.testing.assert_array_equal(whole.stretches(), total.stretches())
    for a, b in zip(whole, total, strict=True):
        np.testing.assert_array_equal(a, b)
