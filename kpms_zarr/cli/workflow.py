"""The command that does the whole job, and the one that completes words of a shell."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

import kpms_zarr
from kpms_zarr.cli.data import rate
from kpms_zarr.cli.options import OptionParser, add_command, call, duration, heading_option
from kpms_zarr.cli.summaries import syllable_table
from kpms_zarr.progress import Progress
from kpms_zarr.store.core.commands import command as shell_command
from kpms_zarr.store.core.commands import for_shell

_SHELLS = ("bash", "zsh", "tcsh")
_FOLDERS = ("STORE", "DIR", "PROJECT")


def run(commands: Any) -> None:
    """``kpms-zarr run``."""
    command = add_command(
        commands,
        "run",
        _run,
        "from tracking files to the report with defaults, and say what was decided",
    )
    command.add_argument("files", nargs="*", metavar="FILE_OR_DIR_OR_GLOB", help="tracking files")
    command.add_argument("--model", default="first", metavar="NAME", help="name of the model")
    command.add_argument(
        "--fps", type=rate, metavar="FPS_OR_CSV", help="frames of the video per second (none = as "
        "the files say, else 30)"
    )  # fmt: skip
    heading_option(command)
    command.add_argument(
        "--fix-heading", action="store_true", help="for an animal that never turns"
    )
    command.add_argument(
        "--target-duration",
        type=duration,
        metavar="TIME",
        help="median duration of a syllable to reach, with its unit (none = 400ms)",
    )
    command.add_argument(
        "--chains", type=int, default=1, help="8: labels on which eight chains agree, and how far"
    )
    command.add_argument(
        "--out", metavar="PAGE.html", help="the report (none = report.html beside the store)"
    )
    command.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave files out that cannot be used, and exit with code 3",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="fit again although there is nothing new"
    )
    command.add_argument("--quiet", action="store_true", help="no progress, no decisions")


def _run(options: argparse.Namespace) -> tuple[object, str]:
    with closing(Progress(sys.stderr, words=for_shell)) as progress:
        callbacks = () if options.quiet else (progress,)
        result = call(kpms_zarr.run, options, callbacks=callbacks)
    table = kpms_zarr.summary(options.store, model=options.model)
    lines = [
        syllable_table(table),
        f"store:   {result.store}",
        f"report:  {result.report}",
        f"next:    {shell_command('explore', options.store, show=True)}",
    ]
    return result, "\n".join(lines)


def completion(commands: Any) -> None:
    """``kpms-zarr completion``."""
    command = add_command(
        commands,
        "completion",
        _run_completion,
        "print what makes a shell complete commands and options",
        has_store=False,
    )
    command.add_argument("shell", choices=_SHELLS, help="the shell")
    command.epilog = (
        "bash: kpms-zarr completion bash > ~/.local/share/bash-completion/completions/kpms-zarr; "
        "zsh: kpms-zarr completion zsh > a folder of $fpath, as _kpms-zarr"
    )


def _run_completion(options: argparse.Namespace) -> tuple[object, str]:
    import shtab

    from kpms_zarr.cli.entry import parser

    top = parser()
    for command in top.commands.values():
        _complete_paths(command, shtab)
    script = shtab.complete(top, options.shell)
    return {"shell": options.shell, "script": script}, script


def _complete_paths(command: OptionParser, shtab: Any) -> None:
    """Say which arguments are files or folders."""
    for action in command._actions:
        metavar = str(action.metavar or "")
        if metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif "FILE" in metavar or ".html" in metavar:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
