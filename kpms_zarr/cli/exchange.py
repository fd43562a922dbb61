"""Commands that exchange models with other packages: export, import-keypoint-moseq."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from functools import partial
from typing import Any

import kpms_zarr
from kpms_zarr.cli.data import grouped, show_ingest
from kpms_zarr.cli.options import add_command, call, model_option, names, sessions_option
from kpms_zarr.progress import Line
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.export.export import FORMATS
from kpms_zarr.store.wording import counted


def export(commands: Any) -> None:
    """``kpms-zarr export``."""
    command = add_command(
        commands, "export", _run_export, "write labels and poses of a model for other packages"
    )
    model_option(command)
    command.add_argument(
        "--to",
        required=True,
        choices=FORMATS,
        help="kpms: results.h5 and csv tables as analysis code written for keypoint-MoSeq reads "
        "them; csv: the tables alone, with times; movement: poses datasets with labels, netCDF; "
        "nwb: NWB with ndx-pose and ndx-ethogram",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder for the files")
    sessions_option(command, "sessions to export, all that have labels by default")
    command.add_argument(
        "--version", metavar="VN", help="version of the labels, such as v1 (none = the current one)"
    )
    command.add_argument(
        "--units",
        metavar="UNIT",
        help="units of positions, such as mm (none = those of the tracking files, usually px)",
    )
    command.add_argument(
        "--session-start-time",
        metavar="TIME",
        help="of the sessions, for NWB: 2024-05-31T14:30:00+02:00 (none = the coordinate "
        "session_start_time, start_time or date of the store)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace files that are there")


def _run_export(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.export, options)
    lines = [f"note: {note}" for note in grouped(result.notes)]
    lines.append(
        f"{counted(result.n_sessions, 'session')}, {counted(result.n_frames, 'frame')} of "
        f"{result.model} ({result.version}) in {counted(len(result.files), 'file')} below "
        f"{result.out}"
    )
    return result, "\n".join(lines)


def import_keypoint_moseq(commands: Any) -> None:
    """``kpms-zarr import-keypoint-moseq``."""
    command = add_command(
        commands,
        "import-keypoint-moseq",
        _run_import,
        "take a project of keypoint-MoSeq into a store: tracking, labels, groups, names",
        has_store=False,
    )
    command.add_argument("project", metavar="PROJECT", help="folder of the project")
    command.add_argument("store", metavar="STORE", help="the Zarr store of the study: path or URL")
    command.add_argument(
        "--files",
        nargs="+",
        default=[],
        metavar="FILE_OR_DIR_OR_GLOB",
        help="tracking files (none = in video_dir of the settings, unless STORE has sessions)",
    )
    command.add_argument(
        "--models", type=names, metavar="A,B", help="folders of models (none = all with results)"
    )
    command.add_argument(
        "--fps", type=float, help="frames per second (none = as the settings of the project say)"
    )
    command.add_argument(
        "--name-by", default="stem", metavar="HOW", help="names of sessions, as for ingest"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="publish a new version of existing models"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="files at once (none = as the machine allows)"
    )


def _run_import(options: argparse.Namespace) -> tuple[object, str]:
    with closing(Line(sys.stderr)) as line:
        result = call(
            kpms_zarr.import_keypoint_moseq, options, on_progress=partial(show_ingest, line)
        )
    lines = [f"note: {note}" for note in grouped(result.notes)]
    lines.append(f"{counted(len(result.added), 'session')} added")
    if result.columns:
        lines.append(f"{', '.join(result.columns)} set for the sessions")
    lines += [f"model {name}: labels {version}" for name, version in result.models.items()]
    if result.n_named:
        lines.append(f"{counted(result.n_named, 'syllable')} named")
    lines += [
        "next: " + command("summary", options.store, model=name) for name in list(result.models)[:1]
    ]
    return result, "\n".join(lines)
