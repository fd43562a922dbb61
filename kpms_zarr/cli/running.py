"""Options and values of commands that run chains: settings, resources, progress."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import kpms_zarr
from kpms_zarr.cli import console
from kpms_zarr.cli.options import OptionParser
from kpms_zarr.cli.settings import add_settings, given_settings
from kpms_zarr.progress import Progress
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import stage_of


def settings_options(command: OptionParser) -> None:
    """Add the settings of a fit: the common ones, and the others in a group of their own."""
    before, how = (command.add_mutually_exclusive_group() for _ in range(2))
    places = {"from_model": before, "kappa": how, "target_duration": how}
    rare = command.rare_group("model settings", "Each has a default that seldom needs a change.")
    averaged = rare.add_mutually_exclusive_group()
    add_settings(command, kpms_zarr.FitConfig, {**places, "average_sweeps": averaged}, others=rare)
    averaged.add_argument(
        "--draw",
        dest="average_sweeps",
        action="store_const",
        const=1,
        default=argparse.SUPPRESS,
        help="publish the labels of the last sweep, one draw, not an average",
    )
    before.add_argument(
        "--continue-from",
        metavar="NAME",
        help="give this model more sweeps or sessions, under the new name",
    )
    file_option(command)


def file_option(command: argparse.ArgumentParser) -> None:
    """Add the option for a file of settings."""
    command.add_argument(
        "--config",
        metavar="FILE.json",
        help="settings by their Python names, such as noise_dof; options that are given win",
    )


def watching_options(command: argparse.ArgumentParser) -> None:
    """Add the options for what is said while a command runs."""
    command.add_argument("--quiet", action="store_true", help="no progress")
    command.add_argument("--log", metavar="FILE", help="append every event as a line of JSON")


def resource_options(command: argparse.ArgumentParser) -> None:
    """Add the budget."""
    group = command.add_argument_group(
        "resources", "what may be taken of the machine; nothing here changes a result"
    )
    add_settings(group, kpms_zarr.Budget)


def budget_of(options: argparse.Namespace) -> kpms_zarr.Budget:
    """Budget as it was typed."""
    return kpms_zarr.Budget(**given_settings(options, kpms_zarr.Budget))


@contextmanager
def callbacks_of(options: argparse.Namespace) -> Iterator[tuple[Callable[[Any], None], ...]]:
    """Progress, a watch over memory, and the log that was asked for."""
    with ExitStack() as stack:
        progress = stack.enter_context(closing(Progress(sys.stderr, words=for_shell)))
        found: list[Callable[[Any], None]] = [
            console.MemoryWatch(lambda text: progress.write(f"note: {text}"))
        ]
        if not options.quiet:
            found.insert(0, progress)
        if options.log is not None:
            found.append(stack.enter_context(closing(console.JsonLog(options.log))))
        yield tuple(found)


def config_of(options: argparse.Namespace) -> kpms_zarr.FitConfig:
    """Settings of a fit."""
    settings = typed_settings(options)
    if options.continue_from is not None:
        settings["from_model"] = options.continue_from
        settings.setdefault("stage", stage_of(options.store, options.continue_from))
    if settings.get("from_model") is not None:
        settings.setdefault("stage", "full")
    return kpms_zarr.FitConfig.from_dict(settings)


def typed_settings(options: argparse.Namespace, without: Collection[str] = ()) -> dict[str, Any]:
    """Settings that were given: in a file, then as options; ``without``: no settings, of these."""
    given = given_settings(options, kpms_zarr.FitConfig)
    given = {name: value for name, value in given.items() if name not in without}
    return {**_settings_file(options.config), **given}


def _settings_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, OSError) as error:
        found = error
    if not isinstance(found, dict):
        is_error = isinstance(found, ValueError | OSError)
        raise InputError(
            expected="a file with a JSON object of settings",
            found=str(found) if is_error else type(found).__name__,
            where=path,
            fix='write for example {"noise_dof": 5, "scale": "dataset"}',
        )
    return found
