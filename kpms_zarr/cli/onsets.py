"""The commands about onsets of syllables: typical trajectories, signals, and their averages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, model_option, names, sessions_option
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted

_FORMATS = ("pdf", "png", "svg", "mp4", "gif")


def trajectories(commands: Any) -> None:
    """``kpms-zarr trajectories``."""
    added = add_command(
        commands,
        "trajectories",
        _run_trajectories,
        "typical trajectory of the pose around the onset of each syllable, as pages or movies",
    )
    model_option(added)
    added.add_argument(
        "--out", metavar="DIR", help="folder for a file of all syllables and one of each"
    )
    added.add_argument("--format", default="pdf", choices=_FORMATS, help="of the files")
    added.add_argument("--speed", type=float, default=0.25, help="of movies: 1 = as fast as it was")
    _window_options(added, 0.2, 0.5)
    added.add_argument("--bouts", type=int, default=12, help="examples of each syllable, at most")
    added.add_argument(
        "--candidates",
        type=int,
        default=500,
        help="bouts of each syllable that are compared, at most: a random sample",
    )
    added.add_argument(
        "--neighbours", type=int, default=50, help="by which the density of bouts is measured"
    )
    added.add_argument(
        "--min-duration",
        type=float,
        default=0.1,
        metavar="SECONDS",
        help="shorter bouts do not count",
    )
    _shared_options(added)


def triggered_average(commands: Any) -> None:
    """``kpms-zarr triggered-average``."""
    added = add_command(
        commands,
        "triggered-average",
        _run_triggered_average,
        "average of speed, or of any signal, around the onsets of each syllable, against shuffled "
        "onsets",
    )
    model_option(added)
    added.add_argument(
        "--signal",
        default="speed",
        metavar="NAME",
        help="speed, angular_velocity, height (3-D), or one that kpms-zarr signals has added",
    )
    added.add_argument(
        "--out",
        nargs="+",
        default=[],
        metavar="FILE",
        help="tables (.csv, .parquet) and pictures (.pdf, .png, .svg, .html)",
    )
    _window_options(added, 1.0, 2.0)
    added.add_argument(
        "--shuffles",
        type=int,
        default=1000,
        help="of the onsets: all of a session shifted in a circle",
    )
    added.add_argument(
        "--min-onsets",
        type=int,
        default=5,
        help="a session with fewer onsets of a syllable does not count for it",
    )
    _shared_options(added)


def _window_options(added: argparse.ArgumentParser, pre: float, post: float) -> None:
    for name, value, what in (("pre", pre, "before"), ("post", post, "after")):
        added.add_argument(
            f"--{name}", type=float, default=value, metavar="SECONDS", help=f"{what} the onset"
        )


def _shared_options(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--syllables", type=_numbers, metavar="0,3", help="which (none = those in use)"
    )
    added.add_argument("--version", help="of the labels, such as v1 (none = the current one)")
    added.add_argument(
        "--epochs",
        metavar="FILE|none",
        help="epochs in place of those of the store; none: sessions whole",
    )
    sessions_option(added, "sessions to take, all with labels by default")
    added.add_argument("--seed", type=int, default=0, help="of all that is drawn at random")


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers of syllables such as 0,3,12, found {text!r}"
        ) from None


def _run_trajectories(options: argparse.Namespace) -> tuple[object, str]:
    from kpms_zarr.viz.movies import typical_files

    if options.out is not None:
        typical_files.check_format(options.format, options.speed)
    found = call(kpms_zarr.trajectories, options)
    lines = [f"note: {note}" for note in found.attrs["notes"]]
    rows = []
    for place in range(found.sizes["syllable"]):
        one = found.isel(syllable=place)
        way = one["trajectory"].values[-1].mean(0)
        rows.append(
            (
                _label(found, place),
                *(f"{int(one[name]):,}" for name in ("n_bouts", "n_candidates", "n_core")),
                *(console.figure(float(value), 1) for value in way[:2]),
                console.figure(float(one["neighbour_distance"][0]), 1),
            )
        )
    header = ("syllable", "bouts", "compared", "core", "ahead", "across", "distance")
    lines.append(console.table(header, rows))
    lines.append(
        f"ahead, across: of the middle of the animal {found.attrs['post_s']:g} s after the onset; "
        "distance: of the densest bout to the last of its neighbours; in units of position"
    )
    if options.out is None:
        return found, "\n".join(lines)
    files = typical_files.trajectory_files(
        found, out=options.out, format=options.format, speed=options.speed
    )
    lines += [f"note: {note}" for note in files.notes]
    lines.append(
        f"{counted(len(files.files), 'file')} ({console.size(files.n_bytes)}) in {files.folder}: "
        f"{files.files[0]}, {files.files[1]}{' ...' if len(files.files) > 2 else ''}"
    )
    return files, "\n".join(lines)


def _label(found: Any, place: int) -> str:
    name = str(found["name"].values[place]) if "name" in found.coords else ""
    return f"{int(found['syllable'][place])} {name}".rstrip()


def _run_triggered_average(options: argparse.Namespace) -> tuple[object, str]:
    from kpms_zarr.compute.analysis.onsets.triggered_table import (
        TABLES,
        check_table,
        write_triggered_table,
    )
    from kpms_zarr.viz.movies import typical_files

    tables = [one for one in options.out if Path(one).suffix.lower() in TABLES]
    pictures = [one for one in options.out if one not in tables]
    for one in tables:
        check_table(one)
    for one in pictures:
        if Path(one).suffix.lower() not in typical_files.PICTURES:
            raise InputError(
                expected="names that end in one of "
                + ", ".join((*TABLES, *typical_files.PICTURES)),
                found=repr(Path(one).name),
                where="`out=`",
                fix="name it average.csv, or average.pdf",
            )
        typical_files.check_picture(one)
    found = call(kpms_zarr.triggered_average, options)
    lines = [f"note: {note}" for note in found.attrs["notes"]]
    rows = []
    for place in range(found.sizes["syllable"]):
        one = found.isel(syllable=place)
        at = float(one["time_of_largest"])
        near = one["mean"].sel(time=at).item() if np.isfinite(at) else np.nan
        base = one["baseline_mean"].sel(time=at).item() if np.isfinite(at) else np.nan
        rows.append(
            (
                _label(found, place),
                f"{int(one['n_onsets']):,}",
                int(one["n_sessions"]),
                "-" if not np.isfinite(at) else f"{at:+.2f}",
                *("-" if not np.isfinite(value) else f"{value:.4g}" for value in (near, base)),
                console.figure(float(one["largest_deviation"]), 1),
                *(
                    "-" if not np.isfinite(float(one[name])) else f"{float(one[name]):.2g}"
                    for name in ("p", "q")
                ),
            )
        )
    header = ("syllable", "onsets", "sessions", "at (s)", "mean", "shuffled", "deviation", "p", "q")
    lines.append(console.table(header, rows))
    units = f" ({found.attrs['units']})" if found.attrs["units"] else ""
    lines.append(
        f"{found.attrs['signal']}{units} where it is furthest from shuffled onsets, in their "
        f"standard deviations; p of the largest deviation over all times, of "
        f"{found.attrs['shuffles']:,} shuffles"
    )
    for one in options.out:
        write = write_triggered_table if one in tables else typical_files.triggered_average_file
        lines.append(f"{'table' if one in tables else 'picture'}: {one} "
                     f"({console.size(write(found, out=one))})")  # fmt: skip
    return found, "\n".join(lines)


def signals(commands: Any) -> None:
    """``kpms-zarr signals``."""
    added = add_command(
        commands,
        "signals",
        _run_signals,
        "add a signal such as photometry to sessions: a value for each frame",
    )
    added.add_argument(
        "file",
        metavar="FILE",
        help="csv or parquet with a row for each sample: session, time (s) or frame, and values; "
        "or NWB with a TimeSeries; or none: the signal --name is one no longer",
    )
    added.add_argument(
        "--session", metavar="NAME", help="of the file, where it has no column session"
    )
    added.add_argument(
        "--column",
        type=names,
        metavar="A,B",
        help="columns of values, or series of the NWB file, NAME[2] for a channel (none = all)",
    )
    added.add_argument("--name", help="of the signal, where it is one (none = that of the column)")
    added.add_argument(
        "--start",
        type=float,
        metavar="SECONDS",
        help="time of the first frame of the session on the clock of the file (none = its "
        "timestamp, 0 without)",
    )
    added.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="longest time between samples that is interpolated over",
    )
    added.add_argument("--units", help="of the values (none = those that the file says)")


def _run_signals(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.signals, options)
    lines = [f"note: {note}" for note in result.notes]
    for name, version, missing in zip(result.names, result.versions, result.missing, strict=True):
        lines.append(
            f"signal {name} of {counted(result.n_sessions, 'session')} written: {version}, "
            f"{console.percent(missing)} of the frames without a value"
        )
    if result.names:
        lines.append(
            "next: "
            + command("triggered_average", options.store, model="NAME", signal=result.names[0])
        )
    else:
        lines.append(f"{options.name} is a signal no longer")
    return result, "\n".join(lines)
