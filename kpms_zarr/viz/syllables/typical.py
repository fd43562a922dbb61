"""Typical trajectories as ``kpms_zarr.trajectories`` finds them: views, and sheets of paper."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.palettes import Plasma256

from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.shared.drawing import fitted
from kpms_zarr.viz.shared.guessing import drawn_settings
from kpms_zarr.viz.shared.sheets import PaperSheet
from kpms_zarr.viz.shared.skeletons import bones
from kpms_zarr.viz.shared.style import INK, MUTED, UNIT, load, short
from kpms_zarr.viz.syllables.data import Trajectory
from kpms_zarr.viz.syllables.drawing import draw, extent

MOMENTS = 8
"""Skeletons of a drawing, evenly over the window."""
_ASPECT = 0.8
_LATEST = 190  # Of 256 colours: later ones are hard to see on white.
_EDGE = "#d5dbe1"


def trajectories(
    found: xr.Dataset, *, syllables: list[int] | None = None, width: int = 260
) -> hv.Layout:
    """Typical trajectories of syllables side by side on the same axes, lighter ones earlier.

    Parameters
    ----------
    found : xarray.Dataset
        What ``kpms_zarr.trajectories`` returns.
    syllables : list of int, optional
        Only these (default: all that have one).
    width : int
        Of each drawing, in px.

    Returns
    -------
    holoviews.Layout
        An Overlay for each syllable; in three dimensions from above and from the side.

    Raises
    ------
    InputError
        For syllables that it does not have.
    """
    load()
    chosen = typical_poses(found, syllables)
    half = extent(list(chosen.values()))
    views = []
    for title, one in chosen.items():
        views += draw(one, width=width, half=half, title=title, labels=False)
    return hv.Layout(views).cols(4)


def label_of(found: xr.Dataset, place: int) -> str:
    """Number and name of a syllable of a result."""
    number = str(int(found["syllable"][place]))
    name = str(found["name"].values[place]) if "name" in found.coords else ""
    return short(f"{number} {name}".rstrip(), 26)


def typical_poses(
    found: xr.Dataset, syllables: list[int] | None = None, moments: int = MOMENTS
) -> dict[str, Trajectory]:
    """Typical poses of syllables at some moments, by what the syllables are called.

    Raises
    ------
    InputError
        For syllables that the result does not have, and where there is none.
    """
    numbers = found["syllable"].values.tolist()
    there = [one for one, n in zip(numbers, found["n_core"].values, strict=True) if n > 0]
    wanted = there if syllables is None else syllables
    wrong = [one for one in wanted if one not in there]
    if wrong or not wanted:
        raise InputError(
            expected=f"syllables with a typical trajectory: {', '.join(map(str, there)) or 'none'}",
            found=", ".join(map(str, wrong)) or "none",
            where="`syllables=`",
            fix="choose some of these, or shorten `pre=`, `post=` and `min_duration=`",
        )
    return {
        label_of(found, numbers.index(one)): _typical(found, numbers.index(one), moments)
        for one in wanted
    }


def _typical(found: xr.Dataset, place: int, moments: int) -> Trajectory:
    pose = found["trajectory"].values[place]
    return _trajectory(found, place, pose, int(found["n_core"][place]), moments)


def example_poses(found: xr.Dataset, syllable: int, moments: int = MOMENTS) -> list[Trajectory]:
    """Poses of the examples of a syllable of a result at some moments, the densest first."""
    place = found["syllable"].values.tolist().index(syllable)
    shown = found["example"].values[place, : int(found["n_examples"][place])]
    return [_trajectory(found, place, pose, 1, moments) for pose in shown]


def _trajectory(
    found: xr.Dataset, place: int, pose: np.ndarray, n: int, moments: int
) -> Trajectory:
    settings = drawn_settings(str(found.attrs["store"]))
    names = tuple(map(str, found["keypoint"].values))
    front = tuple(names.index(name) for name in settings.anterior if name in names)
    chosen = np.unique(np.linspace(0, len(pose) - 1, moments).round().astype(int))
    joined = tuple(bones(settings.skeleton, names))
    state, seconds = int(found["syllable"][place]), found["time"].values[chosen]
    return Trajectory(state, seconds, pose[chosen], n, names, joined, front)


# ------------------------------------------------------------------ paper


def time_colors(n: int) -> list[str]:
    """Colours of moments, from dark blue over red to orange."""
    return [str(Plasma256[place]) for place in np.linspace(0, _LATEST, n).round().astype(int)]


def overview_sheet(found: xr.Dataset, columns: int = 4, width: float = 150) -> PaperSheet:
    """All typical trajectories on one sheet, on the same axes."""
    chosen = typical_poses(found)
    half = extent(list(chosen.values()), _ASPECT)
    n_views = 2 if next(iter(chosen.values())).is_3d else 1
    columns = max(1, min(columns // n_views, len(chosen)))
    rows = -(-len(chosen) // columns)
    cell = ((width + 10) * n_views + (8 if n_views > 1 else 0), width * _ASPECT + 24)
    sheet = PaperSheet(max(columns * cell[0] + 12, 330), 62 + rows * cell[1])
    _head(sheet, found, f"Typical trajectories, model {found.attrs['model']}")
    for number, (label, one) in enumerate(chosen.items()):
        left, top = 10 + (number % columns) * cell[0], 62 + (number // columns) * cell[1]
        sheet.words((left + 2, top + 7), label, 9)
        _draw(sheet, one, half, (left, top + 16), width)
    return sheet


def syllable_sheet(found: xr.Dataset, syllable: int, width: float = 320) -> PaperSheet:
    """The typical trajectory of a syllable, and examples beside each other on the same axes."""
    place = found["syllable"].values.tolist().index(syllable)
    (label,) = typical_poses(found, [syllable])
    one, shown = _typical(found, place, MOMENTS), example_poses(found, syllable)
    n = len(shown)
    n_views = 2 if one.is_3d else 1
    half = extent([one, *shown], _ASPECT)
    columns = 4 // n_views
    total = width * n_views + 10 * (n_views - 1)
    small = (total - 10 * (columns - 1)) / columns
    small_view = small / n_views
    cell = small_view * _ASPECT + 22
    top = 62 + width * _ASPECT + 16
    sheet = PaperSheet(total + 20, top + 14 + -(-n // columns) * cell + 4)
    _head(sheet, found, f"Syllable {label}")
    _draw(sheet, one, half, (10, 62), width)
    sheet.words(
        (10, top),
        f"median of {one.n_examples} of {int(found['n_candidates'][place]):,} bouts that were "
        f"compared; below: {n} of these {one.n_examples}",
        8,
        MUTED,
    )
    for number, example in enumerate(shown):
        x = 10 + (number % columns) * (small + 10)
        y = top + 14 + (number // columns) * cell
        name = str(found["session"].values[place, number])
        frame = int(found["onset_frame"][place, number])
        text = fitted(f"{short(name, 16)}, frame {frame:,}", 60, 10 * (small - 2))
        sheet.words((x + 1, y + 5), text, 6, MUTED)
        _draw(sheet, example, half, (x, y + 12), small_view - (5 if n_views > 1 else 0), thin=0.5)
    return sheet


def _head(sheet: PaperSheet, found: xr.Dataset, title: str) -> None:
    """A title, and the colours of the times."""
    sheet.words((10, 16), title, 12)
    time = found["time"].values
    left, right = 60.0, 200.0
    colors = time_colors(40)
    for number, color in enumerate(colors):
        x = left + (right - left) * np.array([number, number + 1.3]) / len(colors)
        box = [(x[0], 32), (min(x[1], right), 32), (min(x[1], right), 39), (x[0], 39)]
        sheet.area(np.array(box), color)
    onset = left + (right - left) * (0 - time[0]) / (time[-1] - time[0])
    sheet.line(np.array([(onset, 30), (onset, 41)]), INK, 1)
    sheet.words((left - 4, 35.5), f"{time[0]:+.2f} s", 8, MUTED, "r")
    sheet.words((right + 4, 35.5), f"{time[-1]:+.2f} s", 8, MUTED)
    sheet.words((onset, 47), "onset", 7, MUTED, "m")


def _draw(
    sheet: PaperSheet,
    one: Trajectory,
    half: np.ndarray,
    corner: tuple[float, float],
    width: float,
    *,
    thin: float = 1.0,
) -> None:
    """Skeletons coloured by time; in three dimensions from above, and beside it from the side."""
    colors = time_colors(len(one.seconds))
    scale = width / 2 / half[1, 0]
    for number, axis in enumerate((1, 2) if one.is_3d else (1,)):
        left, top = corner[0] + number * (width + 10 * thin), corner[1]
        bottom = top + 2 * half[1, axis] * scale
        box = [(left, top), (left + width, top), (left + width, bottom), (left, bottom)]
        sheet.line(np.array([*box, box[0]]), _EDGE, 0.6)
        if one.is_3d and thin == 1:
            sheet.words((left + width - 3, bottom - 6), ("above", "side")[number], 6.5, MUTED, "r")
        # In two dimensions the second axis goes down, as in videos.
        down = -1 if one.is_3d else 1
        place = np.stack(
            [
                left + width / 2 + scale * (one.pose[..., 0] - half[0, 0]),
                (top + bottom) / 2 + down * scale * (one.pose[..., axis] - half[0, axis]),
            ],
            axis=-1,
        )
        for points, color in zip(place, colors, strict=True):
            for a, b in one.bones:
                sheet.line(points[[a, b]], color, 1.4 * thin)
            for row in one.front if one.bones else range(len(points)):
                sheet.disc(points[row], 2.4 * thin, color, PAPER_RIM)
        if number == 0 and thin == 1:
            _scale_bar(sheet, scale, left, bottom, width)


PAPER_RIM = "#ffffff"
"""Around discs, so that those that overlap are told apart."""


def _scale_bar(sheet: PaperSheet, scale: float, left: float, bottom: float, width: float) -> None:
    power = 10.0 ** np.floor(np.log10(0.4 * width / scale))
    length = max(step * power for step in (1, 2, 5) if step * power <= 0.4 * width / scale)
    end = left + 5 + length * scale
    sheet.line(np.array([(left + 5, bottom - 5), (end, bottom - 5)]), INK, 1.2)
    sheet.words(
        (left + 5, bottom - 11), f"{length:g} {UNIT}" if width > 200 else f"{length:g}", 6.5
    )
