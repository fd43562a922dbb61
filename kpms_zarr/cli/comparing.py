"""The command that compares the labels of models."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import (
    add_command,
    call,
    check_store,
    label_files,
    labels_option,
    names,
    sessions_option,
)
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.wording import counted

_MOST_COLUMNS = 25
"""Syllables of the matrix that is printed."""


def compare(commands: Any) -> None:
    """``kpms-zarr compare``."""
    command = add_command(
        commands,
        "compare",
        _run_compare,
        "how far the labels of models, or of files, of the same sessions agree",
        needs_store=False,
    )
    command.add_argument(
        "--models",
        type=names,
        default=[],
        metavar="A,B",
        help="names of published models; NAME@v1 for another version of the labels of a model",
    )
    labels_option(command, "labels of another package; without STORE, of files alone, which must "
                  "have the same sessions and frames")  # fmt: skip
    command.add_argument(
        "--fps", type=float, help="frames per second, for durations, where there is no STORE"
    )
    sessions_option(command, "sessions to compare, all by default")
    command.add_argument(
        "--boundary-tolerance",
        type=int,
        default=2,
        metavar="FRAMES",
        help="changes of label that lie no further apart count as one",
    )
    command.add_argument(
        "--all", action="store_true", help="also the syllables with less than 0.5 %% of the frames"
    )
    command.add_argument(
        "--out", metavar="PAGE.html", help="draw the confusion matrices and calibrations as a page"
    )


def _run_compare(options: argparse.Namespace) -> tuple[object, str]:
    if options.out is not None:
        from kpms_zarr.viz.report.comparison import check_page, comparison_page

        check_page(options.out)
    labels = label_files(options.labels)
    check_store(options, labels, "models", "sessions")
    result = call(kpms_zarr.compare, options, labels=labels)
    lines = [_overview(result), _pairs(result)]
    if len(result.pairs) == 1:
        lines += _details(result.pairs[0], with_rare=options.all)
    else:
        lines += [_replicability(result, str(result.models["model"].values[0]), options.all)]
    lines += ["\n".join(f"note: {note}" for note in result.notes)] if result.notes else []
    if options.out is not None:
        n_bytes = comparison_page(result, out=options.out)
        lines.append(f"page: {options.out} ({console.size(n_bytes)})")
    return result, "\n\n".join(lines)


def _overview(result: Any) -> str:
    rows = [
        (
            name,
            int(row["n_sessions"]),
            f"{int(row['n_frames']):,}",
            console.figure(float(row["effective_number"]), 1),
            int(row["n_used"]),
            console.milliseconds(float(row["median_duration"])),
            console.percent(float(row["mean_certainty"])),
        )
        for name in result.models["model"].values
        for row in [result.models.sel(model=name)]
    ]
    header = ("model", "sessions", "frames", "effective", "in use", "median (ms)", "certainty")
    return console.table(header, rows)


def _pairs(result: Any) -> str:
    rows = [
        (
            f"{one.a}, {one.b}",
            f"{one.n_frames:,}",
            console.figure(one.adjusted_rand_index),
            console.figure(one.normalized_mutual_information),
            console.percent(one.matched_share),
            console.percent(one.ceiling),
            f"{console.figure(one.boundary_f1)} ({console.figure(one.boundary_f1_by_chance)})",
            f"{one.effective_number_a:.1f}, {one.effective_number_b:.1f}",
        )
        for one in result.pairs
    ]
    header = (
        "both label", "frames", "ARI", "NMI", "matched", "ceiling", "boundary F1 (chance)",
        "effective",
    )  # fmt: skip
    frames = counted(result.boundary_tolerance, "frame")
    return (
        f"{console.table(header, rows)}\n"
        "matched: frames with the same label after syllables were matched one to one\n"
        "ceiling: share of the frames that the published certainties would let expect\n"
        f"boundary F1: changes of label within {frames}; in brackets what chance would give"
    )


def _details(one: Any, *, with_rare: bool) -> list[str]:
    lines = [_syllables(one, with_rare), _matrix(one)]
    return lines + [
        _calibration(*side)
        for side in ((one.a, one.b, one.calibration_a), (one.b, one.a, one.calibration_b))
        if side[2].attrs["n_frames"]
    ]


def _is_shown(frames: np.ndarray, with_rare: bool) -> np.ndarray:
    return np.asarray(frames >= (0 if with_rare else USED_FRACTION) * frames.sum())


def _syllables(one: Any, with_rare: bool) -> str:
    table = one.syllables_a
    shown = _is_shown(table["n_frames"].values, with_rare)
    names = one.confusion["name_a"].values
    rows = [
        (
            f"{row['syllable'].item()} {name}".rstrip(),
            f"{int(row['n_frames']):,}",
            "-" if row["matched"] < 0 else int(row["matched"]),
            int(row["best"]),
            console.figure(float(row["jaccard"])),
            str(row["reading"].item()),
        )
        for place, name in enumerate(names)
        if shown[place]
        for row in [table.isel(syllable=place)]
    ]
    header = (f"syllable of {one.a}", "frames", f"matched in {one.b}", "best", "Jaccard", "reading")
    shares = ", ".join(
        f"{console.percent(share)} {words}" for words, share in one.reading_share_a.items()
    )
    said = f"frames of {one.a} by the reading of their syllables: {shares}"
    return "\n".join([console.table(header, rows), *_rarer(shown), said])


def _rarer(shown: np.ndarray) -> list[str]:
    n = int((~shown).sum())
    return [f"and {counted(n, 'rarer one')} (--all)"] if n else []


def _matrix(one: Any) -> str:
    """Rows of a, columns of b, in % of the frames of the row."""
    frames = one.confusion.values
    rows = np.flatnonzero(_is_shown(frames.sum(1), False))[:_MOST_COLUMNS]
    columns = np.flatnonzero(_is_shown(frames.sum(0), False))[:_MOST_COLUMNS]
    share = 100 * frames / np.maximum(1, frames.sum(1, keepdims=True))
    lines = [
        [
            str(one.confusion["syllable_a"].values[i]),
            *(f"{value:.0f}" if value >= 0.5 else "." for value in share[i, columns]),
        ]
        for i in rows
    ]
    header = [f"{one.a} \\ {one.b}", *map(str, one.confusion["syllable_b"].values[columns])]
    return f"{console.table(header, lines)}\nin % of the frames of the row"


def _calibration(name: str, other: str, table: Any) -> str:
    rows = [
        (
            f"{float(row['certainty_bin']):.1f} to {float(row['certainty_bin_stop']):.1f}",
            f"{int(row['n_frames']):,}",
            console.percent(float(row["mean_certainty"])),
            console.percent(float(row["same_share"])),
        )
        for place in range(table.sizes["certainty_bin"])
        for row in [table.isel(certainty_bin=place)]
        if row["n_frames"] > 0
    ]
    header = (f"certainty of {name}", "frames", "mean", f"same in {other}")
    said, true, error = (
        console.percent(table.attrs[key]) for key in ("mean_certainty", "same_share", "error")
    )
    return (
        f"{console.table(header, rows)}\n"
        f"{name} says {said}, {true} have the matched label in {other}; calibration error {error}"
    )


def _replicability(result: Any, name: str, with_rare: bool) -> str:
    table = result.replicability(name)
    shown = _is_shown(table["n_frames"].values, with_rare)
    rows = [
        (
            row["syllable"].item(),
            f"{int(row['n_frames']):,}",
            console.figure(float(row["jaccard"])),
            str(row["reading"].item()),
        )
        for place in np.flatnonzero(shown)
        for row in [table.isel(syllable=place)]
    ]
    n = result.models.sizes["model"] - 1
    header = (f"syllable of {name}", "frames", f"mean Jaccard, {n} others", "reading")
    return "\n".join([console.table(header, rows), *_rarer(shown)])
