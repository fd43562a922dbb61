"""One stable colour per syllable, the same in every view."""

from __future__ import annotations

import numpy as np

NO_SYLLABLE = "#c4c4c4"
"""Colour of label -1: frames without a syllable."""

# The first six are Okabe & Ito (2008) without black and yellow; each further one was chosen as the
# farthest from all before it and from NO_SYLLABLE in OKLab, as seen with normal vision, with
# deuteranopia and with protanopia (Machado, Oliveira & Fernandes 2009).
# fmt: off
_FIRST = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#780f4b",
    "#3c0fb4", "#8769ff", "#78f078", "#694b00", "#b42d87", "#78c387", "#4b4be1",
    "#a54b4b", "#5ae1ff", "#690087", "#6987d2", "#e1d200", "#ff4b69",
)
# fmt: on

_GOLDEN_ANGLE = np.deg2rad(137.50776405)
_LIGHTNESS = (0.48, 0.74, 0.61)
_CHROMA = (0.15, 0.12, 0.16)


GROUP_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Of groups and conditions in their order (Tol 2021, "bright"), for colour-blind eyes as well."""


def group_color(number: int) -> str:
    """Colour of a group of sessions, or of a condition, by its place among them."""
    return GROUP_COLORS[number % len(GROUP_COLORS)]


def syllable_color(syllable: int) -> str:
    """Colour of a syllable; depends on its number alone.

    Parameters
    ----------
    syllable : int
        -1 = none.

    Returns
    -------
    str
        ``"#rrggbb"``.
    """
    if syllable < 0:
        return NO_SYLLABLE
    if syllable < len(_FIRST):
        return _FIRST[syllable]
    turn = syllable % len(_LIGHTNESS)
    return _hex(_LIGHTNESS[turn], _CHROMA[turn], syllable * _GOLDEN_ANGLE)


def palette(n_syllables: int) -> list[str]:
    """Colours of the labels -1, 0, ..., n_syllables - 1, in that order."""
    return [syllable_color(label) for label in range(-1, n_syllables)]


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """OKLCH to sRGB (Ottosson 2020), clipped to what a screen can show."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cone = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_rgb @ cone**3, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * float(value)):02x}" for value in encoded)
