"""The commands that write epochs and timestamps into the store, and tables out of it."""

from __future__ import annotations

import argparse
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import add_command, call, model_option, names, sessions_option
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.wording import counted


def epochs(commands: Any) -> None:
    """``kpms-zarr epochs``."""
    added = add_command(
        commands,
        "epochs",
        _run_epochs,
        "say which frames belong to which epoch of a session, such as before and after a drug",
    )
    added.add_argument(
        "table",
        metavar="FILE",
        help="csv with a row for each interval: session, start_s and stop_s (or start_frame and "
        "stop_frame), condition, and epoch where several rows are one; or csv or parquet with a "
        "row for each frame: session, frame, condition; or none: sessions are whole again",
    )


def _run_epochs(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.epochs, options)
    lines = [f"note: {note}" for note in result.notes]
    if result.version:
        lines.append(
            f"{counted(result.n_epochs, 'epoch')} of {counted(result.n_sessions, 'session')} "
            f"written: epochs {result.version}"
        )
        lines.append("next: " + command("tables", options.store, model="NAME", out="DIR"))
    else:
        lines.append("sessions have no epochs: each is one")
    return result, "\n".join(lines)


def timestamps(commands: Any) -> None:
    """``kpms-zarr timestamps``."""
    added = add_command(
        commands,
        "timestamps",
        _run_timestamps,
        "give the time of each frame, by which tables and exports go in place of frame / fps",
    )
    added.add_argument(
        "table",
        nargs="+",
        metavar="FILE",
        help="csv or parquet with the columns session, time_s and perhaps frame; or a file for "
        "each session, called like it, with a time in each row (csv, txt, npy); or none: times "
        "are frame / fps again",
    )
    added.add_argument(
        "--session", metavar="NAME", help="what a single file is of, where its name does not say so"
    )


def _run_timestamps(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.timestamps, options)
    lines = [f"note: {note}" for note in result.notes]
    if result.version:
        lines.append(
            f"times of {counted(result.n_frames, 'frame')} of "
            f"{counted(len(result.sessions), 'session')} written: timestamps {result.version}"
        )
        lines.append("next: " + command("tables", options.store, model="NAME", out="DIR"))
    else:
        lines.append("no timestamps are in force: times are frame / fps")
    return result, "\n".join(lines)


def tables(commands: Any) -> None:
    """``kpms-zarr tables``."""
    added = add_command(
        commands,
        "tables",
        _run_tables,
        "write frames, bouts, syllables, transitions and distances as plain files",
    )
    model_option(added)
    added.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the files, made where it is missing"
    )
    added.add_argument(
        "--to",
        default="parquet",
        metavar="parquet|csv",
        help="kind of the files; parquet needs the extra table",
    )
    added.add_argument(
        "--include",
        type=names,
        metavar="A,B",
        help="only these of the tables epochs, frames, bouts, syllables, transitions, ngrams, "
        "distances",
    )
    added.add_argument("--version", metavar="V", help="of the labels, the current one by default")
    added.add_argument(
        "--epochs",
        metavar="FILE|none",
        help="epochs in place of those of the store, as for kpms-zarr epochs; none: sessions whole",
    )
    sessions_option(added, "sessions to write, all with labels by default")
    added.add_argument(
        "--ngrams", type=int, default=3, metavar="N", help="longest run of bouts that is counted"
    )


def _run_tables(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.tables, options)
    rows = [(one.table, f"{one.n_rows:,}", console.size(one.n_bytes), one.path)
            for one in result.files]  # fmt: skip
    lines = [f"note: {note}" for note in result.notes]
    lines.append(console.table(("table", "rows", "size", "file"), rows))
    lines.append(
        f"model {result.model}, labels {result.version}, "
        f"{'epochs ' + result.epochs + ', ' if result.epochs else ''}"
        f"{counted(result.n_rows, 'row')} (session, epoch); columns.csv says what columns mean"
    )
    return result, "\n".join(lines)
