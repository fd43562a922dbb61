"""Options that several commands share."""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from kpms_zarr.compute.cluster.connect import HELP as _CLUSTER
from kpms_zarr.store.core.names import parse_names, parse_selectors
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.label_tables import by_name
from kpms_zarr.store.wording import sentence

T = TypeVar("T")


ALL = "--help-all"
"""Option that prints what ``--help`` leaves out."""


class OptionParser(argparse.ArgumentParser):
    """Argument parser with a short usage, rare options apart, and errors that say what was meant.

    Attributes
    ----------
    is_mixed : bool
        Whether options may stand between arguments, ``STORE --model NAME SYLLABLE``, of which some
        can be left out: until Python 3.12 argparse reads none there.
    rare : list of argument group
        Options that ``--help`` leaves out and ``--help-all`` prints.
    about : str
        The command in one phrase.
    general : argument group
        Options that all commands have.
    typed : list of str
        Words that were parsed last.
    """

    is_mixed = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rare: list[Any] = []
        self.about = ""
        self.typed: list[str] = []
        self.general = self.add_argument_group("general options")
        self.add_argument(ALL, action=_HelpAll, nargs=0, help=argparse.SUPPRESS)

    def rare_group(self, title: str, about: str) -> Any:
        """Add a group of options that ``--help`` leaves out."""
        group = self.add_argument_group(title, about)
        self.rare.append(group)
        return group

    def format_usage(self) -> str:
        """Usage in a line: what has to be given, and ``[OPTIONS]``."""
        positions = [_shown(one) for one in self._actions if not one.option_strings]
        needed = [
            f"{one.option_strings[-1]} {one.metavar or str(one.dest).upper()}"
            for one in self._actions
            if one.option_strings and one.required
        ]
        return " ".join(["usage:", self.prog, *positions, *needed, "[OPTIONS]"]) + "\n"

    def format_help(self, *, is_whole: bool = False) -> str:
        """Help: usage, and the options by group."""
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        hidden = [] if is_whole else self.rare
        # Common options first; what all commands have, and the resources, come last.
        groups = [one for one in self._action_groups if one is not self.general]
        for group in [*groups, self.general]:
            if any(group is one for one in hidden):
                continue
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        n_hidden = sum(len(group._group_actions) for group in hidden)
        if n_hidden:
            titles = " and ".join(str(group.title) for group in hidden)
            formatter.add_text(f"{ALL} lists {n_hidden} more options: {titles}.")
        formatter.add_text(self.epilog)
        return f"{self.format_usage()}\n{formatter.format_help()}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse in one pass, or options first where options and positions may be mixed."""
        self.typed = [str(word) for word in args or ()]
        if not self.is_mixed:
            return super().parse_known_args(args, namespace)
        self.is_mixed = False  # each pass comes here again
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.is_mixed = True

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a whole line; an option that there is not ends in an error with the likely ones."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            command = self.commands.get(getattr(found, "command", ""), self)
            command.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    @property
    def commands(self) -> dict[str, OptionParser]:
        """Commands by name."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and what was likely meant, and end with 2."""
        wrong = re.search(r"argument COMMAND: invalid choice: '(.*?)' \(", message)
        if wrong:
            message = f"there is no command {wrong[1]!r}{meant(wrong[1], self.commands, WORDS)}"
        elif message.endswith(("expected one argument", "expected at least one argument")):
            message += " (one that begins with '-' is given behind '=', as in --anterior=-nose)"
        elif "unrecognized arguments: -" in message:
            typed = re.split(r"[ =]", message.partition(": ")[2])[0]
            known = [name for name in self._option_string_actions if name.startswith("--")]
            message += meant(typed, known) or _BEHIND
        elif "arguments are required" in message:
            known = [name for name in self._option_string_actions if name.startswith("--")]
            words = [word.partition("=")[0] for word in self.typed if word.startswith("--")]
            strange = [w for w in words if not any(name.startswith(w) for name in known)]
            near = [f"; there is no {word}{meant(word, known)}" for word in strange]
            message += "".join(near) or _BEHIND
        super().error(message)


_BEHIND = " (what begins with '-' and is no option stands behind --)"
WORDS = {
    "add": "ingest", "load": "ingest", "convert": "ingest", "show": "info", "status": "info",
    "delete": "remove", "rm": "remove", "check": "verify", "train": "fit", "cluster": "fit",
    "model": "fit", "predict": "apply", "label": "apply", "transform": "apply", "view": "explore",
    "gui": "explore", "open": "explore", "plot": "report", "stats": "compare-groups",
    "groups": "compare-groups", "rename": "name", "video": "movies", "grid-movies": "movies",
    "kappa": "scan", "dendrogram": "similarity", "import": "import-keypoint-moseq",
    "all": "run", "start": "run", "test": "doctor",
}  # fmt: skip
"""Words of other tools, and the command that does what they mean there."""


def meant(typed: str, known: Iterable[str], words: Mapping[str, str] | None = None) -> str:
    """What a mistyped word was likely meant to be: ``; did you mean 'fit'?``, or nothing."""
    near = difflib.get_close_matches(typed.lower(), list(known), n=3, cutoff=0.6)
    first = (words or {}).get(typed.lower())
    found = list(dict.fromkeys([first, *near] if first else near))
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _shown(action: argparse.Action) -> str:
    """An argument as usage shows it."""
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else None
    name = str(action.metavar or choices or action.dest)
    # While options and arguments that are mixed are read, argparse keeps the number elsewhere.
    number = getattr(action, "save_nargs", action.nargs)
    many = {"?": "[{}]", "*": "[{} ...]", "+": "{0} [{0} ...]", argparse.PARSER: "{}"}
    return many.get(str(number), "{}").format(name)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Formatter that tells defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_none = action.default is None or action.default is False or action.default == []
        return action.help if is_none else super()._get_help_string(action)


class _HelpAll(argparse.Action):
    """Print the whole help, and end."""

    def __call__(self, parser: Any, *_: Any) -> None:
        sys.stdout.write(parser.format_help(is_whole=True))
        parser.exit()


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], tuple[object, str]],
    about: str,
    *,
    has_store: bool = True,
    needs_store: bool = True,
) -> OptionParser:
    """Add a subcommand: its name, the function that runs it, and its help in one phrase.

    Parameters
    ----------
    has_store, needs_store : bool
        Whether it works on a store, and whether it does nothing without one.
    """
    command: OptionParser = commands.add_parser(
        name,
        help=about,
        description=sentence(about),
        formatter_class=_Formatter,
    )
    command.general.add_argument("--json", action="store_true", help="print JSON instead of text")
    command.about = about
    command.set_defaults(run=run)
    if has_store:
        _store_option(command, needs_store)
        command.is_mixed = not needs_store
    return command


def _store_option(command: OptionParser, is_needed: bool) -> None:
    """Add the argument for the store, and the options that say how to reach it."""
    command.add_argument(
        "store",
        metavar="STORE",
        nargs=None if is_needed else "?",
        help="the Zarr store of the study: path or URL",
    )
    command.general.add_argument(
        "--storage-option",
        type=key_value,
        action="append",
        metavar="KEY=VALUE",
        help="for the library that reaches a URL, such as endpoint_url=http://... or anon=true for "
        "s3://; can be repeated; never saved",
    )


def key_value(text: str) -> tuple[str, Any]:
    """Parse ``key=value``; a value that is JSON is read as such."""
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        # Without the text: it may be a secret.
        raise argparse.ArgumentTypeError("expected KEY=VALUE, found no '=' or nothing before it")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value


def call(function: Callable[..., T], options: argparse.Namespace, **others: Any) -> T:
    """Call a function with the options that have the names of its parameters, and with others."""
    names = inspect.signature(function).parameters
    found = {name: value for name, value in vars(options).items() if name in names}
    return function(**{**found, **others})


def model_option(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the option that names the model."""
    command.add_argument("--model", required=required, metavar="NAME", help="name of the model")


def cluster_option(command: Any) -> None:
    """Add the option for the workers of a cluster."""
    command.add_argument("--cluster", metavar="WHERE", help=_CLUSTER)


def labels_option(command: Any, of_what: str) -> None:
    """Add the option for files of labels, each with a name or without."""
    command.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]FILE",
        help=f"{of_what}: csv or parquet (columns session, frame, syllable; or a column for each "
        "session), npz (an array for each session), npy, h5 such as results.h5, or a folder of csv "
        "or npy files called like the sessions; under a name, or that of the file",
    )


def label_files(texts: Sequence[str]) -> dict[str, str]:
    """Files of labels by their names, as they were typed.

    Raises
    ------
    InputError
        For a name that stands twice.
    """
    given: list[tuple[str, str]] = []  # in the order of the line: even and odd ones are halves
    for text in texts:
        name, equals, path = text.partition("=")
        is_named = equals and name.strip() and path.strip() and not os.path.exists(text)
        given.append((name.strip(), path) if is_named else ("", text))
    rest = iter(by_name([path for name, path in given if not name]))
    found = [(name or next(rest), path) for name, path in given]
    if len(dict(found)) < len(found):
        raise InputError(
            expected="a name of its own for each file of labels",
            found=", ".join(name for name, _ in found),
            where="`labels=`",
            fix="give each another name in front of the file: NAME=FILE",
        )
    return dict(found)


def check_store(options: argparse.Namespace, labels: Mapping[str, str], *of_store: str) -> None:
    """Refuse a line without a store that has what only a store can give, or no labels.

    Parameters
    ----------
    labels : mapping of str to str
        Files by their names.
    of_store : str
        Options that are given only with a store.

    Raises
    ------
    InputError
    """
    if options.store is not None:
        return
    stores = [path for path in labels.values() if os.path.exists(os.path.join(path, "zarr.json"))]
    if stores:
        raise InputError(
            expected="files of labels behind `labels=`",
            found=f"a store, {stores[0]}",
            where="`labels=`",
            fix="write the store in front of the options",
        )
    given = [name for name in of_store if getattr(options, name, None)]
    if given or not labels:
        raise InputError(
            expected="a STORE, or files of labels behind `labels=`",
            found=f"neither for `{given[0]}=`" if given else "neither",
            where=f"kpms-zarr {options.command}",
            fix="write the store behind the command, as in "
            f"kpms-zarr {options.command} study.zarr ..., or leave these options out",
        )


def names(text: str) -> list[str]:
    """Parse ``a,"b,c"`` as a list of names."""
    try:
        found = parse_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected names separated by commas, {error}") from None
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names separated by commas, found {text!r}")
    return found


def number_or_share(text: str) -> float | str:
    """Parse ``0.5`` as a number; keep ``10%`` as text."""
    if re.fullmatch(r"\s*[0-9.]+\s*%\s*", text):
        return text.strip()
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number such as 0.5, or a share such as 10%, found {text!r}"
        ) from None


def selectors(text: str) -> tuple[str, ...]:
    """Parse ``a,b*,group="c,d"`` as selectors of sessions."""
    try:
        return parse_selectors(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected sessions, found {error}") from None


def duration(text: str) -> float:
    """Parse ``400ms`` or ``0.4s`` as ms."""
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(ms|s)\s*", text)
    try:
        return float(match[1]) * (1000 if match[2] == "s" else 1)  # type: ignore[index]
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"expected a duration with its unit, such as 400ms or 0.4s, found {text!r}"
        ) from None


def scale_or_none(text: str) -> float | str:
    """Parse a number, or ``none``."""
    if text.strip().lower() == "none":
        return "none"
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or none, found {text!r}") from None


def outlier_option(command: argparse.ArgumentParser) -> None:
    """Add the option for the threshold above which a confident keypoint counts as missing."""
    command.add_argument(
        "--outlier-scale",
        type=scale_or_none,
        default=6.0,
        metavar="X|none",
        help="take confident keypoints for missing that the other keypoints of the frame, or the "
        "middle of the animal, put elsewhere: further off than median + this many median absolute "
        "deviations (none: believe all)",
    )


def heading_option(command: argparse.ArgumentParser) -> None:
    """Add the options for the keypoints that define the heading."""
    command.add_argument(
        "--anterior", type=names, metavar="A", help="keypoints at the front of the animal"
    )
    command.add_argument(
        "--posterior", type=names, metavar="B", help="keypoints at the rear of the animal"
    )


def sessions_option(command: argparse.ArgumentParser, which: str) -> None:
    """Add the option that selects sessions."""
    command.add_argument(
        "--sessions",
        type=selectors,
        metavar="A,B*,group=C",
        help=f"{which}: names, patterns, or coordinate=value such as group=control",
    )
