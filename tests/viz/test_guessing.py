"""Lines between keypoints where nobody has given a skeleton."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.study.settings import StudySettings, read_settings, write_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.shared.guessing import GUESSED, drawn_settings, guessed_bones, note_on

CHAIN = [(0, 1), (1, 2), (2, 3), (3, 4), (2, 5)]


def limbs(n_frames: int = 300, n_space: int = 2, seed: int = 0) -> np.ndarray:
    """Poses of a chain with a branch whose bones keep their lengths and turn freely."""
    rng = np.random.default_rng(seed)
    pose = np.zeros((n_frames, 6, n_space))
    pose[:, 0] = rng.normal(size=(n_frames, n_space)) * 50
    for a, b in CHAIN:
        turn = rng.normal(size=(n_frames, n_space))
        pose[:, b] = pose[:, a] + (5 + b) * turn / np.linalg.norm(turn, axis=-1, keepdims=True)
    return pose + rng.normal(size=pose.shape) * 0.05


@pytest.mark.parametrize("n_space", [2, 3])
def test_guessed_bones__join_what_keeps_its_distance(n_space: int) -> None:
    pose = limbs(n_space=n_space)
    assert guessed_bones(pose) == sorted(CHAIN)
    rng = np.random.default_rng(1)
    pose[rng.random(pose.shape[:2]) < 0.2] = np.nan
    is_jump = rng.random(pose.shape[:2]) < 0.03
    pose[is_jump] += 1000
    assert guessed_bones(pose) == sorted(CHAIN)


def test_guessed_bones__are_the_shortest_of_a_stiff_body() -> None:
    pose = np.zeros((50, 4, 2)) + np.array([[0, 0], [1, 0], [3, 0], [7, 0]])
    assert guessed_bones(pose) == [(0, 1), (1, 2), (2, 3)]


def test_guessed_bones__leave_out_what_is_never_seen() -> None:
    pose = limbs()
    pose[:, 3] = np.nan
    assert all(3 not in bone for bone in guessed_bones(pose))
    assert len(guessed_bones(pose)) == 4
    assert guessed_bones(np.full((5, 3, 2), np.nan)) == []
    assert guessed_bones(np.zeros((5, 3, 2))) != []


def test_drawn_settings__guess_only_where_nobody_said(tmp_path: Path) -> None:
    study = SyntheticStudy(n_sessions=2, n_frames=400, n_keypoints=6, missing_fraction=0.02)
    store = tmp_path / "s.zarr"
    write_store(store, study)
    given = drawn_settings(store)
    assert given.skeleton == study.settings.skeleton == read_settings(store).skeleton
    assert note_on(given) == ""
    write_settings(access.open_group(store, "r+"), StudySettings(study.settings.keypoints))
    guessed = drawn_settings(store)
    assert len(guessed.skeleton) == 5
    assert note_on(guessed) == GUESSED
    assert read_settings(store).skeleton == ()


def test_drawn_settings__of_animals_that_are_not_seen(tmp_path: Path) -> None:
    arrays = {"a": np.full((20, 3, 2), np.nan), "b": np.zeros((20, 3, 2))}
    arrays["a"][3, 0] = 1.0
    kpms_zarr.ingest(tmp_path / "s.zarr", arrays=arrays, fps=30)
    assert len(drawn_settings(tmp_path / "s.zarr").keypoints) == 3


def test_drawn_settings__of_numbers_whose_squares_no_float32_holds(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=2, n_frames=300))
    access.open_group(tmp_path / "s.zarr", "r+")["keypoints/position"][1, ::7, 0] = 3e38
    study = read_settings(tmp_path / "s.zarr")
    write_settings(access.open_group(tmp_path / "s.zarr", "r+"), replace(study, skeleton=()))
    assert drawn_settings(tmp_path / "s.zarr").skeleton


def test_drawn_settings__of_real_mice_follow_the_spine(nine_mice: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    kpms_zarr.ingest(store, sorted(nine_mice.glob("*.csv"))[:2], fps=30)
    lines = {frozenset(bone) for bone in drawn_settings(store).skeleton}
    spine = ("tail", "spine4", "spine3", "spine2", "spine1")
    assert {frozenset(pair) for pair in pairwise(spine)} <= lines
    assert {frozenset(("head", name)) for name in ("nose", "left ear", "right ear")} <= lines
