from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from kpms_zarr.viz.fit import views as fit_views
from kpms_zarr.viz.player import figures as player_figures
from kpms_zarr.viz.shared import style
from kpms_zarr.viz.shared.colors import NO_SYLLABLE, palette, syllable_color

_TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def _oklab(color: str, vision: np.ndarray) -> np.ndarray:
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return _TO_LAB @ np.cbrt(_TO_CONE @ np.clip(vision @ linear, 0, 1))


def test_syllable_color__depends_on_the_number_alone() -> None:
    assert palette(30)[1:] == [syllable_color(i) for i in range(30)]
    assert palette(200)[:31] == palette(30)


def test_palette__begins_with_grey_for_no_syllable() -> None:
    assert palette(3)[0] == NO_SYLLABLE == syllable_color(-1)


def test_palette__no_colour_twice() -> None:
    assert len(set(palette(200))) == 201


def test_palette__first_colours_far_apart_for_everyone() -> None:
    for name, vision in _VISION.items():
        points = [_oklab(color, vision) for color in palette(20)]
        nearest = min(np.linalg.norm(a - b) for a, b in combinations(points, 2))
        assert nearest > (0.1 if name == "normal" else 0.06), name


def _contrast(color: str, ground: str = "#ffffff") -> float:
    """WCAG 2."""

    def luminance(one: str) -> float:
        value = np.array([int(one[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted([luminance(color), luminance(ground)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("color", "least"),
    [
        (style.INK, 7.0),  # text
        (style.MUTED, 4.5),
        (fit_views.TARGET_COLOR, 4.5),
        (style.LINE, 4.5),
        (player_figures.TRACKED_COLOR, 3.0),  # lines and dots
        (player_figures.DENOISED_COLOR, 3.0),
    ],
)
def test_contrast__is_enough_on_white_and_on_the_grey_of_the_page(color: str, least: float) -> None:
    assert _contrast("#000000") == pytest.approx(21)
    assert _contrast(color) >= least
    assert _contrast(color, "#f5f7fa") >= least
