"""Commands that put data into a store, describe it and keep it in order."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from functools import partial
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import (
    add_command,
    call,
    cluster_option,
    heading_option,
    names,
    selectors,
)
from kpms_zarr.progress import Line
from kpms_zarr.store.core.commands import command
from kpms_zarr.store.core.names import quoted
from kpms_zarr.store.ingest.ingest import IngestProgress, IngestSummary
from kpms_zarr.store.ingest.timeline import DEFAULT_MAX_GAP
from kpms_zarr.store.model.info import StoreInfo
from kpms_zarr.store.parsers import formats
from kpms_zarr.store.parsers.time.clock import TIME_UNITS
from kpms_zarr.store.study.tables import is_number
from kpms_zarr.store.wording import counted, listed

_WIDTH = 12


def ingest(commands: Any) -> None:
    """``kpms-zarr ingest``."""
    command = add_command(commands, "ingest", _run_ingest, "add tracking files to a store")
    command.add_argument("files", nargs="+", metavar="FILE_OR_DIR_OR_GLOB", help="tracking files")
    command.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help=f"of the files: auto, which looks at their content, or {', '.join(formats())}",
    )
    command.add_argument(
        "--fps",
        type=rate,
        metavar="FPS_OR_CSV",
        help="frames of the video per second, or a csv file with a column fps and one of sessions, "
        "recordings or files (none = as the file says, else 30)",
    )
    command.add_argument(
        "--keypoints", type=names, metavar="A,B,C", help="take these, in this order (none = all)"
    )
    command.add_argument(
        "--individuals",
        type=selectors,
        metavar="A,B*",
        help="take these individuals, or parts of a file (cameras, pose objects), by name or "
        "pattern (none = all)",
    )
    command.add_argument(
        "--name-by",
        default="stem",
        metavar="HOW",
        help="names of sessions: stem (the file), parent (its folder), path (all folders), or a "
        "template such as {parent}_{stem}; fields: stem, name, parent, parent2 ..., path; files "
        "that would have the same name get those of their folders, too",
    )
    command.add_argument(
        "--prefer",
        type=names,
        metavar="A,B",
        help="of several results of one video take filtered, raw, or those with a suffix such as "
        "h5 (none = all, with a warning)",
    )
    command.add_argument(
        "--keypoint-names",
        type=names,
        metavar="A,B,C",
        help="names for the keypoints of files that hold none (DANNCE, SLEAP-anipose, FreiPose)",
    )
    command.add_argument(
        "--ignore-case",
        action="store_true",
        help="take keypoints whose names differ in upper and lower case only: Nose for nose",
    )
    heading_option(command)
    command.add_argument(
        "--skeleton",
        metavar="A-B,B-C",
        help="bones, for drawing only; names that hold '-' in double quotes where need be",
    )
    command.add_argument(
        "--mapping", metavar="FILE.json", help="what the columns of csv or parquet tables hold"
    )
    command.add_argument(
        "--trim",
        metavar="START:STOP",
        help="frames to take, in frames of the file or in seconds: 300:9000, 10s:300s, 1min:",
    )
    command.add_argument(
        "--downsample", type=int, default=1, metavar="N", help="take one frame of N"
    )
    command.add_argument(
        "--max-gap",
        default=DEFAULT_MAX_GAP,
        metavar="LENGTH",
        help="longest gap in frame numbers or time stamps that is filled in with missing frames, "
        f"in frames or in time: 300, 30s, 10min (default {DEFAULT_MAX_GAP}); files with a longer "
        "one are refused",
    )
    command.add_argument(
        "--time-unit",
        default="auto",
        metavar="UNIT",
        help="what row indices, frame numbers and time stamps count: "
        f"{', '.join(TIME_UNITS)} (rows = ignore them, rows are consecutive frames)",
    )
    command.add_argument(
        "--min-visible",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="leave tracks out of which less is tracked, such as 0.05",
    )
    command.add_argument(
        "--confidence-scale",
        default=1.0,
        metavar="NUMBER",
        help="what stands for full confidence in the files: 100 for percent, 255 for bytes; none: "
        "take the positions without confidences",
    )
    command.add_argument(
        "--missing-value",
        type=float,
        metavar="NUMBER",
        help="what trackers without confidences write for the coordinates of a keypoint that they "
        "did not find, such as 0",
    )
    command.add_argument(
        "--metadata",
        metavar="FILE.csv",
        help="what is known of the sessions, a row for each: becomes coordinates, see annotate",
    )
    command.add_argument(
        "--timestamps",
        action="append",
        metavar="FILE",
        help="time of each frame, see timestamps; can be repeated, for files of one session each",
    )
    command.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave files out that cannot be used, list them at the end, and exit with code 3",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="write nothing, only say what would be added"
    )
    command.add_argument(
        "--calibrate",
        action="store_true",
        help="calibrate the noise prior when the sessions are there, see calibrate; where that "
        "cannot be done a note says why",
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="files at once (none = as the machine allows)"
    )


def rate(text: str) -> float | str:
    """Parse a frame rate, or keep the path of a table of them."""
    return float(text) if is_number(text) else text


def _run_ingest(options: argparse.Namespace) -> tuple[object, str]:
    with closing(Line(sys.stderr)) as line:
        result = call(kpms_zarr.ingest, options, on_progress=partial(show_ingest, line))
    return result, "\n".join(_ingested(result, options.store))


def show_ingest(line: Line, now: IngestProgress) -> None:
    """Show how far an ingest has come."""
    what = "looked at" if now.stage == "look" else "loaded"
    frames = f", {now.n_frames:,} frames" if now.n_frames else ""
    line.show(what, now.n_done, now.n_files, f"{what} {now.n_done} of {now.n_files} files{frames}")


def _ingested(result: IngestSummary, store: str) -> list[str]:
    lines = [f"note: {note}" for note in grouped(result.notes)]
    lines += [f"warning: {text}" for text in result.warnings]
    if result.added or result.is_dry:
        by_reason: dict[str, list[str]] = {}
        for path, reason in result.recognised.items():
            by_reason.setdefault(reason, []).append(os.path.basename(path))
        lines += [
            f"recognised {reason.replace(': ', ' by ', 1)} ({listed(names, 2)})"
            for reason, names in by_reason.items()
        ]
    if result.added:
        what = "would be added" if result.is_dry else "added"
        frames = counted(result.n_frames, "frame")
        lines.append(f"{counted(len(result.added), 'session')} {what}, {frames}")
        lines += [f"  {name}" for name in result.added]
    if result.known:
        were = "was" if len(result.known) == 1 else "were"
        known = counted(len(result.known), "session")
        lines.append(f"{known} {were} there already and {were} left alone")
    if result.added and not result.is_dry:
        lines.append("next: " + command("quality", store))
    if result.bad:
        left_out = "would be" if result.is_dry else "was" if len(result.bad) == 1 else "were"
        lines.append(f"{counted(len(result.bad), 'file')} cannot be used and {left_out} left out:")
        width = max(map(len, result.reasons))
        lines += [f"  {path:<{width}}  {why}" for path, why in result.reasons.items()]
    return lines


def grouped(notes: tuple[str, ...]) -> list[str]:
    """Notes of the same kind together, the first few of them in full.

    Two are of the same kind when they say the same behind the name of the file or session.
    """
    by_kind: dict[str, list[str]] = {}
    for note in notes:
        by_kind.setdefault(note.partition(": ")[2] or note, []).append(note)
    found = []
    for kind, same in by_kind.items():
        if len(same) == 1:
            found.append(same[0])
            continue
        who = [note.partition(": ")[0] for note in same]
        found.append(f"{kind} ({len(who)}: {listed(who)})")
    return found


def info(commands: Any) -> None:
    """``kpms-zarr info``."""
    add_command(commands, "info", _run_info, "show what is inside a store")


def _run_info(options: argparse.Namespace) -> tuple[object, str]:
    result = kpms_zarr.info(options.store)
    study = result.settings
    models = [
        f"{model.name} (labels {model.current}, {counted(model.n_sessions, 'session')}; versions "
        f"{', '.join(model.versions)})"
        for model in result.models
        if not model.ensemble
    ]
    ensembles = list(dict.fromkeys(model.ensemble for model in result.models if model.ensemble))
    for ensemble in ensembles:
        chains = [model.name for model in result.models if model.ensemble == ensemble]
        models.append(f"{counted(len(chains), 'chain')} of {ensemble} ({listed(chains)})")
    models += [
        f"{fit.name} (unfinished, {counted(fit.n_sweeps, 'sweep')}; "
        f"{command('fit', options.store, model=fit.name, resume=True)})"
        for fit in result.unfinished
    ]
    sizes = ", ".join(f"{k} {console.size(v)}" for k, v in result.bytes_by_group.items())
    facts = {
        "store": f"{result.store} (format {result.format_version}, {result.created_by})",
        "sessions": f"{len(result.sessions)}, {result.n_frames:,} frames, {result.hours:.2f} h",
        "keypoints": f"{', '.join(map(quoted, study.keypoints)) or 'none'} ({len(study.space)}-D)",
        "heading": f"{', '.join(study.posterior) or '?'} -> {', '.join(study.anterior) or '?'}",
        "models": "; ".join(models)
        or "none; fit one: " + command("fit", options.store, model="NAME"),
        "on disk": f"{console.size(sum(result.bytes_by_group.values()))}: {sizes}"
        if sizes
        else "not known over the web",
    }
    facts |= _of_frames(result)
    if result.scans:
        of = [f"{scan.name} ({scan.n_done} of {scan.n_chains} chains)" for scan in result.scans]
        facts["scans"] = "; ".join(of)
    lines = [f"{name:<{_WIDTH}}{value}" for name, value in facts.items()]
    rows = [
        (
            s.name,
            f"{s.n_frames:,}",
            f"{s.fps:g}",
            f"{s.seconds:.1f}",
            "-" if s.visible is None else f"{100 * s.visible:.1f} %",
            s.individual or "-",
            s.source,
        )
        for s in result.sessions
    ]
    header = ("session", "frames", "fps", "seconds", "tracked", "individual", "file")
    return result, "\n".join([*lines, "", console.table(header, rows)])


def _of_frames(result: StoreInfo) -> dict[str, str]:
    """What is known of frames besides poses: epochs, timestamps, signals; what there is."""
    n_all = len(result.sessions)
    facts: dict[str, str] = {}

    def of(sessions: tuple[str, ...]) -> str:
        return f"{len(sessions)} of {counted(n_all, 'session')}"

    epochs, times = result.epochs, result.timestamps
    if epochs is not None:
        conditions = f", conditions {listed(epochs.conditions)}" if epochs.conditions else ""
        facts["epochs"] = (
            f"{listed(epochs.epochs)}{conditions}; {of(epochs.sessions)}, "
            f"{counted(epochs.n_intervals, 'interval')} ({epochs.version})"
        )
    if times is not None:
        facts["timestamps"] = f"{of(times.sessions)} ({', '.join(times.versions)})"
    if result.signals:
        facts["signals"] = "; ".join(
            f"{quoted(one.name)}{f' [{one.units}]' if one.units else ''}, {of(one.sessions)} "
            f"({', '.join(one.versions)})"
            for one in result.signals
        )
    return facts


def annotate(commands: Any) -> None:
    """``kpms-zarr annotate``."""
    command = add_command(
        commands, "annotate", _run_annotate, "say more about sessions: group, animal, date, video"
    )
    command.add_argument(
        "table",
        metavar="FILE.csv",
        help="a row for each session; the first column holds names of sessions, recordings or "
        "files, the others become coordinates (fps and video are those of the store)",
    )


def _run_annotate(options: argparse.Namespace) -> tuple[object, str]:
    result = kpms_zarr.annotate(options.store, options.table)
    lines = [f"note: {note}" for note in result.notes]
    lines.append(f"{', '.join(result.columns)} set for {counted(result.n_sessions, 'session')}")
    example = next((name for name in result.columns if name not in ("fps", "video")), "")
    if example:
        lines.append(
            f"use it: {command('fit', options.store, model='NAME')} --sessions {example}=..."
        )
    return result, "\n".join(lines)


def remove(commands: Any) -> None:
    """``kpms-zarr remove``."""
    command = add_command(commands, "remove", _run_remove, "take sessions out of a store")
    command.add_argument(
        "sessions",
        nargs="+",
        metavar="SESSION",
        help="names, patterns, or coordinate=value such as group=pilot",
    )


def _run_remove(options: argparse.Namespace) -> tuple[object, str]:
    result = kpms_zarr.remove(options.store, options.sessions)
    lines = [f"note: {note}" for note in result.notes]
    lines.append(
        f"{counted(len(result.removed), 'session')} removed, {counted(result.n_frames, 'frame')}"
    )
    lines += [f"  {name}" for name in result.removed]
    return result, "\n".join(lines)


def verify(commands: Any) -> None:
    """``kpms-zarr verify``."""
    command = add_command(
        commands, "verify", _run_verify, "read every chunk of a store and name what is damaged"
    )
    command.add_argument("--repair", action="store_true", help="tidy up what killed processes left")
    cluster_option(command)


def _run_verify(options: argparse.Namespace) -> tuple[object, str]:
    result = kpms_zarr.verify(options.store, repair=options.repair, cluster=options.cluster)
    lines = [f"note: {note}" for note in result.notes]
    lines += [f"repaired: {what}" for what in result.repaired]
    lines += [f"DAMAGED: {d.where}: {d.what}\n  What to do: {d.fix}" for d in result.damages]
    lines.append(
        f"{counted(result.n_chunks, 'chunk')} read, {counted(result.n_sessions, 'session')}, "
        f"{result.n_checksums} of them against a checksum: "
        + ("all as written" if result.is_sound else f"{len(result.damages)} damaged")
    )
    return result, "\n".join(lines)
