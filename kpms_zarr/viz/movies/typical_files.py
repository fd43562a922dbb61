"""Files of typical trajectories: pages for print, pictures, and movies."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import xarray as xr
from PIL import Image

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.replacing import check_place, replaced
from kpms_zarr.store.wording import counted
from kpms_zarr.viz.movies.folder import MovieFolder
from kpms_zarr.viz.movies.grid import Caption, Cell, GridMovie, MovieClock, pose_cell, side_height
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.drawing import Camera, Skeleton, fitted, write
from kpms_zarr.viz.shared.guessing import drawn_settings
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.sheets import PaperSheet, pdf, png, svg
from kpms_zarr.viz.shared.skeletons import bones, keypoint_colors
from kpms_zarr.viz.shared.style import INK
from kpms_zarr.viz.syllables.changepoints import changepoints_sheet
from kpms_zarr.viz.syllables.triggered import triggered_sheet
from kpms_zarr.viz.syllables.typical import label_of, overview_sheet, syllable_sheet
from kpms_zarr.viz.video.encoding import FORMATS as MOVIES
from kpms_zarr.viz.video.encoding import write_movie
from kpms_zarr.viz.video.video import require_av

FORMATS = ("pdf", "png", "svg", *MOVIES)
PICTURES = (".pdf", ".png", ".svg", ".html")
_CELLS = (150, 260)
"""Width of a cell in px, of a movie of all syllables and of one."""
_COLUMNS = 6
_MOST_EXAMPLES = 11
"""Beside the typical one: two rows."""
_ROOM = 1.15


@dataclass(frozen=True)
class TrajectoryFiles:
    """Result of :func:`trajectory_files`.

    Attributes
    ----------
    folder : str
    files : tuple of str
        Names in it: all syllables first, then one of each.
    n_bytes : int
    left_out : tuple of int
        Syllables without a typical trajectory.
    notes : tuple of str
    """

    folder: str
    files: tuple[str, ...]
    n_bytes: int
    left_out: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every syllable has its file."""
        return not self.left_out


def check_format(format: str, speed: float = 1.0) -> None:
    """Refuse a format or a speed that there is not, and movies without PyAV (InputError)."""
    if format not in FORMATS:
        raise InputError(
            expected=f"one of {', '.join(FORMATS)}",
            found=repr(format),
            where="`format=`",
            fix="choose one of these",
        )
    if not 0.01 <= speed <= 100:
        raise InputError(
            expected="a speed of 0.01 to 100, where 1 is as it was",
            found=f"{speed:g}",
            where="`speed=`",
            fix="choose another, or leave it out",
        )
    if format in MOVIES:
        require_av()


def trajectory_files(
    found: xr.Dataset, *, out: str | os.PathLike[str], format: str = "pdf", speed: float = 0.25
) -> TrajectoryFiles:
    """Write typical trajectories: a file of all syllables, and one of each with its examples.

    Parameters
    ----------
    found : xarray.Dataset
        What ``kpms_zarr.trajectories`` returns.
    out : path
        Folder, made where it is missing; files of an earlier run of the same command are replaced,
        no others.
    format : str
        ``"pdf"``, ``"png"``, ``"svg"`` (skeletons coloured by time), ``"mp4"`` or ``"gif"``
        (skeletons that move; extra ``viz``).
    speed : float
        Of movies: 1 = as fast as it was.

    Returns
    -------
    TrajectoryFiles

    Raises
    ------
    InputError
        For another format, a place that cannot be written, or when no syllable has a trajectory.
    """
    check_format(format, speed)
    numbers = found["syllable"].values.tolist()
    has_one = (found["n_core"].values > 0).tolist()
    there = [one for one, is_there in zip(numbers, has_one, strict=True) if is_there]
    overview = overview_sheet(found)  # refuses where there is none
    attrs = found.attrs
    names = ("seed", "pre_s", "post_s", "neighbours", "candidates", "min_duration_s")
    settings = {
        "store": store_name(str(attrs["store"])), "model": attrs["model"],
        "labels": attrs["version"], **{name: attrs[name] for name in names},
        "format": format, "speed": speed,
    }  # fmt: skip
    folder = MovieFolder(out, settings, "files")
    files = {f"trajectories.{format}": None} | {
        f"trajectory_{one:03d}.{format}": one for one in there
    }
    notes = folder.replacing(files)
    total = 0
    for name, state in files.items():
        facts = {"syllable": state} if state is not None else {"syllables": there}
        path = folder.prepare(name, facts)
        if format in MOVIES:
            total += _write_movie(found, path, state, format, speed)
        else:
            total += write_sheets(
                path, [overview if state is None else syllable_sheet(found, state)]
            )
    left = tuple(one for one, is_there in zip(numbers, has_one, strict=True) if not is_there)
    return TrajectoryFiles(os.fspath(out), tuple(files), total, left, tuple(notes))


def check_picture(out: str | os.PathLike[str]) -> None:
    """Refuse a place for a picture that is none, or cannot hold one (InputError)."""
    path = Path(out)
    if path.suffix.lower() not in PICTURES:
        raise InputError(
            expected=f"a name that ends in one of {', '.join(PICTURES)}",
            found=repr(path.name),
            where="`out=`",
            fix=f"name it {path.stem or 'average'}.pdf",
        )
    check_place(path, "picture", "average.pdf")


def triggered_average_file(found: xr.Dataset, *, out: str | os.PathLike[str]) -> int:
    """Write averages around onsets as a picture.

    Parameters
    ----------
    found : xarray.Dataset
        What ``kpms_zarr.triggered_average`` returns.
    out : path
        ``.pdf``, ``.png``, ``.svg`` or ``.html``; an older one is replaced in one step.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    InputError
        For a place that cannot be written.
    """
    check_picture(out)
    return write_sheets(Path(out), [triggered_sheet(found)])


def changepoints_file(points: xr.Dataset, *, out: str | os.PathLike[str]) -> int:
    """Write change points as a picture.

    Parameters
    ----------
    points : xarray.Dataset
        What ``kpms_zarr.changepoints`` returns.
    out : path
        ``.pdf``, ``.png``, ``.svg`` or ``.html``; an older one is replaced in one step.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    InputError
        For a place that cannot be written.
    """
    check_picture(out)
    return write_sheets(Path(out), [changepoints_sheet(points)])


def write_sheets(path: Path, sheets: list[PaperSheet]) -> int:
    """Write sheets in the format that the name of the file says; all but PDF hold the first.

    Returns
    -------
    int
        Bytes of the file.
    """
    kind = path.suffix.lower()
    with replaced(path) as partial:
        if kind == ".pdf":
            partial.write_bytes(pdf(sheets, path.stem))
        elif kind == ".png":
            png(sheets[0]).save(partial, format="PNG", dpi=(144, 144))
        elif kind == ".svg":
            partial.write_text(svg(sheets[0]), encoding="utf-8")
        else:
            page = (
                '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>'
                f"{path.stem}</title>{svg(sheets[0])}</html>\n"
            )
            partial.write_text(page, encoding="utf-8")
    return path.stat().st_size


# ------------------------------------------------------------------ movies


def _write_movie(
    found: xr.Dataset, path: Path, state: int | None, format: str, speed: float
) -> int:
    """Skeletons that move: the typical ones of all syllables, or one and its examples."""
    numbers = found["syllable"].values.tolist()
    time = found["time"].values
    rate = 1 / float(time[1] - time[0]) if len(time) > 1 else 30.0
    step = max(1, int(np.ceil(rate * speed / MOVIES[format] - 1e-9)))
    first = int(np.abs(time).argmin()) % step  # so that the onset is one of them
    shown = np.arange(first, len(time), step)
    clock = MovieClock(time[shown], Fraction(rate * speed / step).limit_denominator(1001))
    if state is None:
        places = [n for n in range(len(numbers)) if int(found["n_core"][n]) > 0]
        poses = [found["trajectory"].values[n] for n in places]
        labels = [label_of(found, n) for n in places]
        title, color = f"Typical trajectories, model {found.attrs['model']}", INK
        detail = counted(len(places), "syllable")
    else:
        place = numbers.index(state)
        n = min(int(found["n_examples"][place]), _MOST_EXAMPLES)
        poses = [found["trajectory"].values[place], *found["example"].values[place, :n]]
        labels = ["typical", *(str(name) for name in found["session"].values[place, :n])]
        title, color = f"Syllable {label_of(found, place)}", syllable_color(state)
        detail = f"typical, and {counted(n, 'example')}"
    detail += f", {speed:g} x speed"
    width = _CELLS[0] if len(poses) > 1 else _CELLS[1]
    reach = _ROOM * float(np.nanmax(np.abs(np.concatenate(poses)[..., :2])))
    camera = Camera(width, width / 2 / reach)
    skeleton = _skeleton(found, max(1.6, width / 60))
    is_inside = time[shown] >= -1e-9
    cells = [
        Cell(_labelled(pose_cell(pose[shown], camera, skeleton), label, width), is_inside)
        for pose, label in zip(poses, labels, strict=True)
    ]
    side = side_height(width) if found.sizes["space"] == 3 else 0
    movie = GridMovie(
        cells, size=(width, width + side), columns=_COLUMNS, clock=clock,
        caption=Caption(title, detail, color), scale=camera.scale,
    )  # fmt: skip
    return write_movie(
        path, movie.frame, n_frames=len(shown), fps=clock.fps, format=format, title=title
    )


def _skeleton(found: xr.Dataset, radius: float) -> Skeleton:
    settings = drawn_settings(str(found.attrs["store"]))
    names = tuple(map(str, found["keypoint"].values))
    colors = keypoint_colors(len(settings.keypoints))
    mine = tuple(colors[settings.keypoints.index(name)] for name in names)
    return Skeleton(tuple(bones(settings.skeleton, names)), mine, radius=radius)


def _labelled(
    picture: Callable[[int], Image.Image], label: str, width: int
) -> Callable[[int], Image.Image]:
    """Pictures with a line of words in the upper left corner."""

    def labelled(number: int) -> Image.Image:
        image = picture(number)
        write(image, (5, 10), fitted(label, 12, width - 10), size=12, color=INK)
        return image

    return labelled
