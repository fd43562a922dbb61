"""The command that writes movies."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from functools import partial
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.data import grouped
from kpms_zarr.cli.options import add_command, model_option
from kpms_zarr.progress import Line
from kpms_zarr.store.errors import InputError

_FORMATS = ("mp4", "gif")
_MOST_BAD = 10
_GRID = ("syllables", "rows", "columns", "before", "after", "cell", "seed")
"""Options that movies of syllables alone have."""
_WHOLE = ("start", "stop", "width")
"""Options that a movie of a session alone has."""


def movies(commands: Any) -> None:
    """``kpms-zarr movies``."""
    command = add_command(
        commands,
        "movies",
        _run_movies,
        "write movies of the syllables of a model: many bouts side by side",
    )
    model_option(command)
    command.add_argument("--out", default="movies", metavar="DIR", help="folder for the movies")
    command.add_argument("--format", default="mp4", choices=_FORMATS, help="of the movies")
    command.add_argument(
        "--speed", type=float, default=1.0, help="1 = as fast as it was, 0.5 = half as fast"
    )
    command.add_argument(
        "--videos",
        nargs="?",
        const=True,
        default=False,
        metavar="DIR_OR_CSV",
        help="cut the animals out of the videos: those that the store knows, or those of a folder "
        "or of a table with a column video",
    )
    command.add_argument(
        "--overlay", action="store_true", help="draw the denoised keypoints onto the videos"
    )
    _grid_options(command)
    _session_options(command)


def _grid_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("movies of syllables")
    group.add_argument(
        "--syllables", type=_numbers, metavar="0,1,5-8", help="which (none = those in use)"
    )
    _optional(group, "--rows", int, "of the grid, at most (default: 4)")
    _optional(group, "--columns", int, "of the grid, at most (default: 6)")
    _optional(group, "--before", float, "seconds before the onset (default: 1)")
    _optional(group, "--after", float, "seconds after the onset (default: 2)")
    _optional(group, "--cell", int, "width of a cell, px (default: 160)")
    _optional(group, "--seed", int, "which bouts are shown (default: 0)")


def _session_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("a movie of the video of one session, with --overlay")
    group.add_argument("--session", metavar="NAME", help="whose video is shown")
    _optional(group, "--start", float, "of the part that is shown, in seconds (default: 0)")
    _optional(group, "--stop", float, "of the part that is shown, in seconds (default: the end)")
    _optional(group, "--width", int, "of the picture, px, at most (default: 960)")


def _optional(group: Any, name: str, kind: type, about: str) -> None:
    """An option that is absent unless given: only some belong together."""
    group.add_argument(name, type=kind, default=argparse.SUPPRESS, help=about)


def _numbers(text: str) -> list[int]:
    """``0,1,5-8`` as a list of numbers."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers of syllables such as 0,1,5-8, found {text!r}"
        ) from None
    return found


def _run_movies(options: argparse.Namespace) -> tuple[object, str]:
    is_whole = options.session is not None
    _check_together(options, is_whole)
    given = {name: getattr(options, name) for name in (*_GRID, *_WHOLE) if name in options}
    shared: dict[str, Any] = {
        "model": options.model,
        "out": options.out,
        "format": options.format,
        "speed": options.speed,
    }
    try:
        with closing(Line(sys.stderr)) as line:
            shared["on_progress"] = partial(_show, line)
            if is_whole:
                given.pop("syllables")
                videos = options.videos or True
                result = kpms_zarr.overlay_movie(
                    options.store, session=options.session, videos=videos, **shared, **given
                )
            else:
                result = kpms_zarr.movies(
                    options.store, videos=options.videos, overlay=options.overlay, **shared, **given
                )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; movies that are there are whole") from None
    return result, "\n".join(_written(result))


def _check_together(options: argparse.Namespace, is_whole: bool) -> None:
    """Refuse options that would not do anything (InputError)."""
    if is_whole:
        names = [name for name in _GRID if getattr(options, name, None) is not None]
        fix = "leave them out, or leave --session out for movies of syllables"
    else:
        names = [name for name in _WHOLE if name in options]
        fix = "add --session NAME, whose video is shown"
    if names:
        raise InputError(
            expected="options of a movie of one session"
            if is_whole
            else "options of movies of syllables",
            found=", ".join(f"--{name}" for name in names),
            where="kpms-zarr movies",
            fix=fix,
        )
    if is_whole and not options.overlay:
        raise InputError(
            expected="--overlay with --session: the keypoints are drawn onto its video",
            found="--session alone",
            where="kpms-zarr movies",
            fix="add --overlay",
        )


def _written(result: Any) -> list[str]:
    """Lines that a person reads at the end."""
    bad = list(result.bad_videos.items())
    lines = [f"LEFT OUT: session {name}: {what}" for name, what in bad[:_MOST_BAD]]
    if len(bad) > _MOST_BAD:
        lines.append(f"and {len(bad) - _MOST_BAD} more sessions with videos that cannot be used")
    lines += [f"note: {note}" for note in grouped(result.notes)]
    n = len(result.files)
    bouts = f", {result.n_bouts} bouts" if result.n_bouts else ""
    lines.append(
        f"{n} movie{'' if n == 1 else 's'}{bouts} ({console.size(result.n_bytes)}) in "
        f"{result.folder}: {result.files[0]}{f' to {result.files[-1]}' if n > 1 else ''}"
    )
    return lines


def _show(line: Line, now: Any) -> None:
    text = f"{now.n_done} of {now.n_movies} movies"
    if now.file:
        text += f", {now.file.replace('{', '{{').replace('}', '}}')} {100 * now.share:.0f} %"
    line.show("movies", now.n_done + now.share, now.n_movies, text)
