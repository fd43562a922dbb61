"""Movies of syllables: many bouts side by side, as keypoints or cut out of the videos."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted
from kpms_zarr.viz.movies.cells import CellSetup, CellSource, KeypointCells, VideoCells
from kpms_zarr.viz.movies.folder import MovieFolder
from kpms_zarr.viz.movies.grid import Caption, Cell, GridMovie, MovieClock
from kpms_zarr.viz.movies.study import (
    GridStyle,
    MoviesProgress,
    MoviesSummary,
    MovieStudy,
    ProgressReporter,
)
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.syllables.examples import Example
from kpms_zarr.viz.video.encoding import FORMATS, write_movie
from kpms_zarr.viz.video.sources import SessionVideos, Videos
from kpms_zarr.viz.video.video import require_av

_SPARE = 3
"""Examples for each cell, where some videos may be bad."""


def movies(
    store: StoreLike,
    *,
    model: str,
    version: str | None = None,
    out: str | os.PathLike[str] = "movies",
    syllables: Sequence[int] | None = None,
    format: str = "mp4",
    rows: int = 4,
    columns: int = 6,
    before: float = 1.0,
    after: float = 2.0,
    speed: float = 1.0,
    cell: int = 160,
    videos: Videos = False,
    overlay: bool = False,
    seed: int = 0,
    on_progress: Callable[[MoviesProgress], None] | None = None,
) -> MoviesSummary:
    """Write a movie of each syllable: examples of its bouts side by side, onsets together.

    Each cell looks at an animal from above, its centroid at the onset in the middle and its
    heading at the onset to the right, and stays there; all cells of all movies show a part of the
    world of the same size. While a bout lasts its cell has a dot and an edge in the colour of the
    syllable. Without videos the denoised keypoints are drawn, of 3-D ones a view from above and
    one from the side. With videos, the same part of the video is cut out and turned.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).
    out : path
        Folder; files of an earlier run of the same command are replaced, no others.
    syllables : sequence of int, optional
        Default: those in use.
    format : str
        ``"mp4"`` or ``"gif"``.
    rows, columns : int
        Of the grid, at most.
    before, after : float
        In s around the onset.
    speed : float
        1 = as fast as it was, 0.5 = half as fast.
    cell : int
        Width of a cell, in px.
    videos : bool, path or mapping
        False = keypoints only; True = the videos that the store knows; or a folder, a csv table
        or a mapping of sessions to paths (see :class:`SessionVideos`). A session whose video
        cannot be used is left out, and named in the summary. At most four files are open.
    overlay : bool
        Whether the denoised keypoints are drawn onto the videos.
    seed : int
        The same seed shows the same bouts.
    on_progress : callable, optional
        Is given :class:`MoviesProgress`.

    Returns
    -------
    MoviesSummary

    Raises
    ------
    InputError
        For a model or syllables that do not exist, a place that cannot be written, videos of
        which none can be used, or when PyAV is not installed.
    MissingData
        When the version has no poses.
    """
    require_av()
    began = time.monotonic()
    style = GridStyle(format, int(rows), int(columns), before, after, speed, int(cell) // 2 * 2)
    study = MovieStudy(OpenModel(store, model, version))
    states = study.states(syllables)
    settings = {**study.origin, "grid": asdict(style), "videos": _kind(videos), "overlay": overlay}
    folder = MovieFolder(out, {**settings, "seed": seed})
    notes = study.notes + folder.replacing([_file_name(state, format) for state in states])
    most = style.rows * style.columns
    n = most if videos is False else _SPARE * most
    examples = study.examples(states, style, n=n, seed=seed)
    done: list[tuple[str, int, int]] = []
    errors: Mapping[str, InputError] = {}
    bad: Mapping[str, str] = {}
    with _source(study, style, examples, videos, overlay, folder) as (cells, setup, source):
        n_frames = len(setup.clock.seconds)
        for state in states:
            made = cells.make(examples[state], most)
            if not made:
                notes.append(_nothing(study.opened.names.label(state), style, examples[state]))
                continue
            name = _file_name(state, format)
            movie = _grid(study, state, made, setup, cells.size, style, source is not None)
            progress = ProgressReporter(on_progress, name, len(done), len(states))
            n_bytes = write_movie(
                folder.prepare(name, {"syllable": state, "bouts": _bouts(made)}),
                progress.reporting(movie.frame, n_frames),
                n_frames=n_frames,
                fps=setup.clock.fps,
                format=format,
                is_photo=source is not None,
                title=f"syllable {study.opened.names.label(state)} of model {model}",
            )
            done.append((name, len(made), n_bytes))
        if source is not None:
            errors, bad, notes = source.errors, source.bad, [*notes, *source.notes]
    if not done:
        raise _nothing_at_all(study, notes, errors)
    ProgressReporter(on_progress, "", len(done), len(done)).report()
    return MoviesSummary(
        os.fspath(out),
        tuple(name for name, *_ in done),
        n_bouts=sum(n for _, n, _ in done),
        n_frames=len(done) * n_frames,
        n_bytes=sum(n for *_, n in done),
        bad_videos=bad,
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )


def _file_name(state: int, format: str) -> str:
    return f"syllable_{state:03d}.{format}"


def _kind(videos: Videos) -> Any:
    """Kind of the source of videos, as it is stored: without paths."""
    return videos if isinstance(videos, bool) else "given"


@contextmanager
def _source(
    study: MovieStudy,
    style: GridStyle,
    examples: Mapping[int, Sequence[Example]],
    videos: Videos,
    overlay: bool,
    folder: MovieFolder,
) -> Iterator[tuple[CellSource, CellSetup, SessionVideos | None]]:
    """Open the source of the cells, their common settings, and the videos behind them."""
    is_video = videos is not False
    if is_video and not study.is_flat:
        raise InputError(
            expected="positions in the picture of a camera, for movies from videos",
            found="3-D positions",
            where=str(study.opened.store),
            fix="leave `videos=` out: the keypoints are shown from above and from the side",
        )
    if overlay and not is_video:
        raise InputError(
            expected="videos on which the keypoints are drawn",
            found="none",
            where="overlay",
            fix="add `videos=`, or `session=` for a whole video with its keypoints",
        )
    reach = study.reach(style, examples)
    rates, counts = np.unique(study.opened.labels["fps"].values, return_counts=True)
    clock = MovieClock.around_onset(
        float(rates[counts.argmax()]),
        before=style.before,
        after=style.after,
        speed=style.speed,
        max_rate=FORMATS[style.format],
    )
    skeleton = study.skeleton(is_video=is_video, radius=max(1.6, style.cell / 60))
    setup = CellSetup(study.opened.labels, study.poses, clock, style.cell, reach, skeleton)
    if not is_video:
        yield KeypointCells(setup), setup, None
        return
    with ExitStack() as stack:
        source = stack.enter_context(
            SessionVideos(study.opened.store, study.opened.tracked, videos)
        )
        folder.path.mkdir(parents=True, exist_ok=True)
        cells = VideoCells(setup, source, Path(folder.path), overlay=overlay)
        yield stack.enter_context(cells), setup, source


def _grid(
    study: MovieStudy,
    state: int,
    made: Sequence[tuple[Example, Cell]],
    setup: CellSetup,
    size: tuple[int, int],
    style: GridStyle,
    is_video: bool,
) -> GridMovie:
    """The movie of a syllable, from its cells."""
    n_sessions = len({example.session.name for example, _ in made})
    detail = f"{counted(len(made), 'bout')} of {counted(n_sessions, 'session')}"
    if style.speed != 1:
        detail += f", {style.speed:g} x speed"
    if not study.is_flat:
        detail += ", from above and from the side"
    colors = zip(study.poses.pose.keypoints, setup.skeleton.colors, strict=True)
    caption = Caption(
        f"Syllable {study.opened.names.label(state)}",
        detail,
        syllable_color(state),
        study.units(is_video=is_video),
        () if is_video else tuple(colors),
    )
    cells = [cell for _, cell in made]
    return GridMovie(
        cells,
        size=size,
        columns=style.columns,
        clock=setup.clock,
        caption=caption,
        scale=setup.scale,
    )


def _bouts(cells: Sequence[tuple[Example, Cell]]) -> list[dict[str, Any]]:
    """Bouts of a movie, row by row."""
    return [
        {
            "session": example.session.name,
            "onset_frame": example.onset,
            "onset_seconds": round(example.onset / example.session.fps, 3),
            "duration_ms": round(1000 * example.seconds),
        }
        for example, _ in cells
    ]


def _nothing(label: str, style: GridStyle, examples: Sequence[Example]) -> str:
    if examples:
        return f"syllable {label}: no bout with a video that can be used, no movie"
    return (
        f"syllable {label}: no bout found with {style.before:g} s before and {style.after:g} s "
        "after its onset in the session, no movie"
    )


def _nothing_at_all(
    study: MovieStudy, notes: Sequence[str], errors: Mapping[str, InputError]
) -> InputError:
    if not errors:
        return InputError(
            expected="a syllable with bouts to show",
            found="; ".join(notes[:3]) or "none",
            where=f"{study.opened.store}, model {study.opened.model!r}",
            fix="show less before and after the onset, or other syllables",
        )
    more = f"; {len(errors) - 1} more sessions cannot be shown" if len(errors) > 1 else ""
    session, error = next(iter(errors.items()))
    problem = error.problems[0]
    return InputError(
        expected=problem.expected,
        found=f"{problem.found}{more}",
        where=problem.where if session in problem.where else f"session {session}, {problem.where}",
        fix=f"{problem.fix}; without `videos=` the keypoints are shown",
    )
