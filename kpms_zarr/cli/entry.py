"""The command line: parse, call one public function of the same name, print a table or JSON."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import kpms_zarr
from kpms_zarr.cli import calibrating as cli_calibrating
from kpms_zarr.cli import comparing as cli_comparing
from kpms_zarr.cli import compiled, console
from kpms_zarr.cli import data as cli_data
from kpms_zarr.cli import ensembles as cli_ensembles
from kpms_zarr.cli import exchange as cli_exchange
from kpms_zarr.cli import groups as cli_groups
from kpms_zarr.cli import hierarchy as cli_hierarchy
from kpms_zarr.cli import kinematics as cli_kinematics
from kpms_zarr.cli import movies as cli_movies
from kpms_zarr.cli import naming as cli_naming
from kpms_zarr.cli import onsets as cli_onsets
from kpms_zarr.cli import scanning as cli_scanning
from kpms_zarr.cli import summaries as cli_summaries
from kpms_zarr.cli import tables as cli_tables
from kpms_zarr.cli import views as cli_views
from kpms_zarr.cli import workflow as cli_workflow
from kpms_zarr.cli.options import (
    OptionParser,
    add_command,
    call,
    cluster_option,
    heading_option,
    model_option,
    number_or_share,
    outlier_option,
    sessions_option,
)
from kpms_zarr.cli.running import (
    budget_of,
    callbacks_of,
    config_of,
    resource_options,
    settings_options,
    watching_options,
)
from kpms_zarr.compute.errors import OutOfMemoryError, SamplingError
from kpms_zarr.progress import Progress
from kpms_zarr.store.core.access import set_storage_options
from kpms_zarr.store.core.commands import command, for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted

_WIDTH = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0; 2 for a wrong input (one message on standard error); 3 when files were left out because
        they cannot be used, as asked; 1 when the machine refused (disk full, no permission), or a
        store is damaged; 130 after Ctrl-C.
    """
    line = sys.argv[1:] if arguments is None else list(arguments)
    if not line:
        print(parser().format_help(), end="")
        return 0
    options = parser().parse_args(line)
    compiled.keep_programs()
    try:
        if getattr(options, "storage_option", None) and options.store is not None:
            set_storage_options(options.store, dict(options.storage_option))
        result, text = options.run(options)
    except InputError as error:
        return _refuse(options, str(error), 2)
    except OSError as error:
        return _refuse(options, f"the system refused: {error}", 1)
    except (SamplingError, OutOfMemoryError) as error:
        return _refuse(options, str(error), 1)
    except KeyboardInterrupt as error:
        print(file=sys.stderr)  # behind the ^C
        return _refuse(options, str(error) or "stopped; nothing was published", 130)
    try:
        print(console.to_json(result) if options.json else for_shell(text), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if not getattr(result, "is_whole", True):
        return 3
    return 0 if getattr(result, "is_sound", True) else 1


def _refuse(options: argparse.Namespace, text: str, code: int) -> int:
    print(f"kpms-zarr {options.command}: {for_shell(text)}", file=sys.stderr)
    return code


# ------------------------------------------------------------------ commands


def _quality(commands: Any) -> None:
    command = add_command(
        commands, "quality", _run_quality, "missing, doubtful and outlying keypoints"
    )
    command.add_argument("--breakdown", action="store_true", help="a row per session and keypoint")
    command.add_argument(
        "--confidence-threshold",
        type=number_or_share,
        default=0.5,
        metavar="VALUE_OR_SHARE",
        help="confidence below it is low; 10%%: the value below which 10 %% of all lie",
    )
    command.add_argument(
        "--outlier-scale",
        type=float,
        default=6.0,
        help="outlier: further from the middle of the animal than median + this many median "
        "absolute deviations",
    )
    _host_memory(command)


def _host_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--host-memory", metavar="16GB", help="of the process (none = what Dask's threads take)"
    )
    cluster_option(command)


def _run_quality(options: argparse.Namespace) -> tuple[object, str]:
    from kpms_zarr.compute.tracking.quality import exchanges_of, summarise, warnings_of

    result = call(kpms_zarr.quality, options)
    pooled = summarise(result)
    shares = ("missing_fraction", "low_confidence_fraction", "outlier_fraction")
    table = result if options.breakdown else pooled
    keys = [name for name in ("session", "keypoint") if name in table.dims]
    rows = []
    for key in itertools.product(*(table[name].values for name in keys)):
        one = table.sel(dict(zip(keys, key, strict=True)))
        cells = [console.percent(float(one[name])) for name in shares]
        rows.append([*key, *cells, int(one["longest_gap"])])
    header = [*keys, "missing", "low confidence", "outlier", "longest gap (frames)"]
    lines = [console.table(header, rows)]
    exchanged = exchanges_of(result) if options.breakdown else []
    if exchanged:
        texts = [(*one[:3], ", ".join(f"{a}-{b}" for a, b in one[3])) for one in exchanged]
        header = ["session", "left and right", "exchanged (frames)", "longest stretches"]
        lines.append(f"\n{console.table(header, texts)}\n")
    lines += [f"warning: {text}" for text in warnings_of(result)]
    lines += [f"note: {text}" for text in result.attrs.get("notes", ())]
    if not options.breakdown and exchanges_of(result):
        lines.append("note: --breakdown lists where left and right seem exchanged")
    whole = result.drop_dims("confidence_bin")  # long, and for views only
    return (whole if options.breakdown else pooled), "\n".join(lines)


def _pca(commands: Any) -> None:
    command = add_command(commands, "pca", _run_pca, "principal components of the aligned pose")
    command.add_argument(
        "--variance", type=float, default=0.9, help="share of the variance to keep, 0 to 1"
    )
    heading_option(command)
    command.add_argument(
        "--confidence-threshold",
        type=number_or_share,
        default=0.5,
        metavar="VALUE_OR_SHARE",
        help="keypoints with less confidence are interpolated, and their frames not counted; 10%%: "
        "the value below which 10 %% of all confidences lie",
    )
    command.add_argument(
        "--fix-heading", action="store_true", help="heading 0 in all frames: do not turn the animal"
    )
    outlier_option(command)
    _host_memory(command)


def _run_pca(options: argparse.Namespace) -> tuple[object, str]:
    result = call(kpms_zarr.pca, options)
    share = result["explained_variance_ratio"].values
    total = share.cumsum()
    used = int(result.attrs["n_components"])
    rows = [
        (f"{i + 1}{' *' if i < used else ''}", console.percent(share[i]), console.percent(total[i]))
        for i in range(min(len(share), max(used + 3, 6)))
    ]
    lines = [
        console.table(("component", "variance", "sum"), rows),
        f"{counted(used, 'component')} (*) hold{'s' if used == 1 else ''} "
        f"{console.percent(total[used - 1])} of the variance; "
        f"kpms-zarr fit uses them (--latent-dim changes that)",
        f"from {result.attrs['n_frames']:,} frames",
    ]
    lines += [f"note: {note}" for note in result.attrs["notes"]]
    return result, "\n".join(lines)


def _fit(commands: Any) -> None:
    command = add_command(commands, "fit", _run_fit, "fit a model and publish a syllable per frame")
    model_option(command)
    settings_options(command)
    command.add_argument(
        "--chains",
        type=int,
        default=1,
        help="chains of the AR stage that differ in the seed alone; labels are those on which most "
        "of them agree, certainties the share that does; labels of 8 replicate far better than "
        "those of one, and say how far",
    )
    command.add_argument(
        "--halves",
        action="store_true",
        help="with --chains: fit as many to every other session and to the rest, too, and say how "
        "far they agree: what to expect of other animals; takes twice as long",
    )
    command.add_argument(
        "--resume", action="store_true", help="go on with an unfinished fit from its last commit"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="publish a new version of an existing model"
    )
    command.add_argument(
        "--save-every", type=int, default=25, help="sweeps between commits; also every 5 minutes"
    )
    cluster_option(command)
    watching_options(command)
    resource_options(command)


def _plan(commands: Any) -> None:
    command = add_command(commands, "plan", _run_plan, "what a fit would take, without running it")
    settings_options(command)
    command.add_argument("--no-time", action="store_true", help="do not time any tiles")
    cluster_option(command)
    resource_options(command)


def _run_plan(options: argparse.Namespace) -> tuple[object, str]:
    choices = {"config": config_of(options), "budget": budget_of(options)}
    result = call(kpms_zarr.plan, options, time_tiles=not options.no_time, **choices)
    return result, console.plan_table(result)


def _apply(commands: Any) -> None:
    command = add_command(
        commands, "apply", _run_apply, "label sessions with a fitted model, its parameters fixed"
    )
    model_option(command)
    sessions_option(command, "sessions to label, those without labels by default")
    command.add_argument(
        "--sweeps",
        type=int,
        default=100,
        help="at most from one start; then labels have settled, after 30 at the earliest, and "
        "draws are kept; further starts follow until averages of half of them agree",
    )
    command.add_argument(
        "--draw",
        action="store_true",
        help="publish one draw from one start, not an average of several",
    )
    command.add_argument(
        "--no-check", action="store_true", help="do not label a session of the fit to compare"
    )
    cluster_option(command)
    watching_options(command)
    resource_options(command)


def _run_apply(options: argparse.Namespace) -> tuple[object, str]:
    with callbacks_of(options) as callbacks:
        choices = {"check": not options.no_check, "budget": budget_of(options)}
        result = call(kpms_zarr.apply, options, callbacks=callbacks, **choices)
    lines = [
        f"{counted(len(result.labelled), 'session')} labelled, {result.n_frames:,} frames, up to "
        f"{max(result.sweeps.values())} sweeps in {result.seconds:.0f} s: version {result.version}"
    ]
    if not result.settled:
        lines.append("not settled everywhere: give more --sweeps, or look at them before use")
    if result.again:
        lines.append(
            f"{counted(len(result.again), 'session')} of the fit, labelled again, "
            f"{'has' if len(result.again) == 1 else 'have'} the label of the fit in "
            f"{console.percent(result.agreement)} of the frames{_halves(result.own_agreement)}"
        )
    if result.as_new:
        lines.append(
            f"to compare, {result.as_new} of the fit was labelled as if it were new: it has the "
            f"label of the fit in {console.percent(result.new_agreement)} of the frames"
            f"{_halves(result.new_own_agreement)}"
        )
    lines.append("next: " + command("summary", options.store, model=options.model))
    return result, "\n".join(lines)


def _halves(share: float) -> str:
    if math.isnan(share):
        return ""
    return f"; averages of two halves of the starts agree in {console.percent(share)}"


def _run_fit(options: argparse.Namespace) -> tuple[object, str]:
    from kpms_zarr.compute.runs.consensus import ConsensusSummary

    with callbacks_of(options) as callbacks:
        choices = {"config": config_of(options), "budget": budget_of(options)}
        result = call(kpms_zarr.fit, options, callbacks=callbacks, **choices)
    if isinstance(result, ConsensusSummary):
        return result, cli_ensembles.consensus_text(result)
    text = (
        f"{counted(result.n_used, 'syllable')} in use, median duration "
        f"{result.median_duration:.0f} ms over all bouts, {counted(result.n_sweeps, 'sweep')} in "
        f"{result.seconds:.0f} s (kappa {result.kappa:.3g})\n"
        "next: " + command("report", options.store, model=options.model, out="report.html")
    )
    return result, text


def _report(commands: Any) -> None:
    command = add_command(
        commands, "report", _run_report, "write what a model found as one HTML page"
    )
    model_option(command)
    command.add_argument("--out", default="report.html", help="the page to write")


def _run_report(options: argparse.Namespace) -> tuple[object, str]:
    result = kpms_zarr.report(options.store, model=options.model, out=options.out)
    return result, f"report: {result.path} ({console.size(result.n_bytes)})"


def _demo(commands: Any) -> None:
    command = add_command(
        commands,
        "demo",
        _run_demo,
        "the whole job on simulated mice in two groups, in a minute or two",
        has_store=False,
    )
    command.add_argument(
        "folder", nargs="?", default="kpms-zarr-demo", metavar="DIR", help="where to put it"
    )
    command.add_argument(
        "--3d", dest="n_space", action="store_const", const=3, default=2,
        help="mice triangulated in 3-D, in place of a camera above",
    )  # fmt: skip


def _run_demo(options: argparse.Namespace) -> tuple[object, str]:
    with closing(Progress(sys.stderr, words=for_shell)) as progress:
        result = call(kpms_zarr.demo, options, callbacks=(progress,))
    table = kpms_zarr.summary(result.store, model=result.model)
    found = result.found or ("no difference between the groups",)
    lines = [
        cli_summaries.syllable_table(table),
        f"agreement with the {result.n_true_syllables} simulated syllables: adjusted Rand index "
        f"{result.adjusted_rand_index:.3f} (1 = the same)",
        f"what the mice mostly do in each: {', '.join(result.matches)}",
        *(f"planted: {one}" for one in result.planted),
        *(f"found:   {one}" for one in found),
        f"store:   {result.store}",
        f"report:  {result.report}",
        *(f"next:    {for_shell(one)}" for one in result.next_steps),
    ]
    return result, "\n".join(lines)


def _doctor(commands: Any) -> None:
    command = add_command(
        commands,
        "doctor",
        _run_doctor,
        "look at this machine: devices, memory, speed, advice",
        has_store=False,
    )
    command.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="of the speed test, compilation included; 0 = none",
    )
    cluster_option(command)
    command.add_argument(
        "--store",
        metavar="STORE",
        help="with --cluster: whether its workers reach this store, by a small write read back",
    )


def _run_doctor(options: argparse.Namespace) -> tuple[object, str]:
    from kpms_zarr.diagnosis import as_text

    result = call(kpms_zarr.doctor, options)
    return result, as_text(result)


# ------------------------------------------------------------------ the whole line


_COMMANDS: tuple[tuple[str, tuple[Callable[[Any], None], ...]], ...] = (
    ("The whole job at once", (cli_workflow.run, _demo)),
    ("1. Data into a store", (
        cli_data.ingest, cli_data.info, cli_data.annotate, cli_tables.epochs, cli_tables.timestamps,
        cli_onsets.signals, cli_data.remove, cli_data.verify, cli_exchange.import_keypoint_moseq,
    )),
    ("2. Look at the tracking", (
        _quality, cli_calibrating.calibrate, _pca, cli_kinematics.changepoints,
    )),
    ("3. Fit syllables", (_plan, cli_scanning.scan, _fit, cli_ensembles.consensus, _apply)),
    ("4. Look at what was found", (
        cli_summaries.summary, _report, cli_views.explore, cli_movies.movies,
        cli_onsets.trajectories, cli_naming.name, cli_comparing.compare,
    )),
    ("5. Syllables that are one", (
        cli_hierarchy.similarity, cli_hierarchy.merge, cli_hierarchy.versions,
    )),
    ("6. Numbers for the paper", (
        cli_tables.tables, cli_groups.compare_groups, cli_onsets.triggered_average,
        cli_exchange.export,
    )),
    ("This machine", (_doctor, cli_workflow.completion)),
)  # fmt: skip
"""Commands in the order of the work, under headings."""


class _TopParser(OptionParser):
    """Parser of the whole line, whose help lists the commands in the order of the work."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.headings: list[tuple[str, tuple[str, ...]]] = []

    def format_help(self, *, is_whole: bool = False) -> str:
        commands = self.commands
        width = max(map(len, commands)) + 2
        lines = [f"usage: {self.prog} COMMAND [OPTIONS]", "", str(self.description)]
        for title, names in self.headings:
            lines += ["", title]
            for name in names:
                filled = textwrap.wrap(commands[name].about, 96 - width)
                lines += [f"  {name:<{width}}{filled[0]}"]
                lines += [f"  {'':<{width}}{more}" for more in filled[1:]]
        lines += [
            "",
            f"{self.prog} COMMAND --help says what a command takes; {self.prog} --version which "
            "version this is.",
        ]
        return "\n".join(lines) + "\n"


def parser() -> OptionParser:
    """The whole command line."""
    top = _TopParser(
        prog="kpms-zarr",
        description="Syllables of behaviour from tracked keypoints, in one Zarr store per study.",
    )
    top.add_argument("--version", action="version", version=f"kpms-zarr {kpms_zarr.__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=OptionParser
    )
    for title, adds in _COMMANDS:
        before = len(top.commands)
        for add in adds:
            add(commands)
        top.headings.append((title, tuple(top.commands)[before:]))
    return top
