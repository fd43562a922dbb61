"""Skeletons: bones, and colours that everybody can see."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest

from kpms_zarr.viz.shared import skeletons, style


def test_bones__go_over_keypoints_that_are_not_there() -> None:
    spine = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")]
    assert skeletons.bones(spine, ["a", "b", "c", "d", "e"]) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert skeletons.bones(spine, ["e", "a", "d"]) == [(0, 2), (1, 2)]
    # Where three or more meet, or at an end, nothing takes the place of the bones.
    star = [("a", "x"), ("b", "x"), ("c", "x"), ("a", "b")]
    assert skeletons.bones(star, ["a", "b", "c"]) == [(0, 1)]
    assert skeletons.bones(spine, ["b", "c"]) == [(0, 1)]
    assert skeletons.bones([], ["b", "c"]) == []


def test_bones__are_rows_of_the_names_that_are_given() -> None:
    assert skeletons.bones([("c", "a"), ("a", "c"), ("b", "b")], ["a", "b", "c"]) == [(0, 2)]


@pytest.mark.parametrize("n_keypoints", [0, 1, 2, 9, 60])
def test_keypoint_colors__are_dark_enough_for_white(n_keypoints: int) -> None:
    colors = skeletons.keypoint_colors(n_keypoints)
    assert len(set(colors)) == len(colors) == n_keypoints
    light = [luminance(color) for color in colors]
    assert all(1.05 / (value + 0.05) >= 2.6 for value in light)
    assert light == sorted(light)


def luminance(color: str) -> float:
    """Of the web content accessibility guidelines."""
    encoded = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_moved_poses__are_the_mean_and_two_deviations_to_either_side() -> None:
    style.load()
    mean, move = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, -1.0]])
    drawn = skeletons.moved_poses(mean, move, [(0, 1)], ["a", "b"])
    points = [part for part in drawn if isinstance(part, hv.Points)]
    assert [part["amount"][0] for part in points] == ["-2", "+0", "+2"]
    assert points[0].columns(["x", "y"])["y"].tolist() == [-2, 2]
    assert points[2].columns(["x", "y"])["y"].tolist() == [2, -2]
    lines = [part for part in drawn if isinstance(part, hv.Path)]
    assert np.asarray(lines[2].split()[0].array())[:, 1].tolist() == [2, -2]
