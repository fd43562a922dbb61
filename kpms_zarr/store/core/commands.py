"""Messages in the words of the command line: arguments of Python become options.

``--max-gap 10s`` is made of `` `max_gap='10s'` ``, and ``kpms-zarr pca study.zarr`` of
`` `kpms_zarr.pca('study.zarr')` ``. The command line does so with all that it prints; nothing else
has to know how an option is spelled.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from typing import Any

from kpms_zarr.store.core.names import joined
from kpms_zarr.store.wording import Stand, call

_MARK = re.compile(r"`(?:(?P<name>[a-z][a-z_]*)=|(?P<help>help\()?kpms_zarr\.)(?P<rest>[^`\n]*)`")


def command(verb: str, *arguments: object, **options: object) -> str:
    """Command of a page, to copy into a shell: ``kpms-zarr fit study.zarr ...``."""
    return for_shell(call(verb, *arguments, **options))


def for_shell(text: str) -> str:
    """Convert a message: options and commands in place of arguments and calls."""
    return _MARK.sub(_translated, text) if "`" in text else text


def _translated(mark: re.Match[str]) -> str:
    name, rest = mark["name"], mark["rest"]
    try:
        if mark["help"]:
            return f"kpms-zarr {rest.rstrip(')')} --help"
        if name is None:
            return _command(ast.parse(rest, mode="eval").body)
        return " ".join(_option(name, ast.literal_eval(rest))) if rest else _spelled(name)
    except (SyntaxError, ValueError):  # somebody's own text that only looks like it
        return mark[0]


def _command(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return f"kpms-zarr {node.id}"
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError
    verb = node.func.id.replace("_", "-")
    words = [word for argument in node.args for word in _words(argument)]
    return " ".join(["kpms-zarr", verb, *words, *_options(node)])


def _options(node: ast.Call) -> Iterator[str]:
    for keyword in node.keywords:
        if isinstance(keyword.value, ast.Call):  # settings: their own names are the options
            yield from _options(keyword.value)
        else:
            yield from _option(str(keyword.arg), _value(keyword.value))


def _words(argument: ast.expr) -> Iterator[str]:
    """Words of a positional argument; a name in capitals stands for what a person puts there."""
    value = _value(argument)
    for one in value if isinstance(value, list) else [value]:
        yield shlex.quote(str(one)) if not isinstance(one, Stand) else one


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return Stand(node.id)
    if isinstance(node, ast.List):
        values = [_value(one) for one in node.elts if not _is_more(one)]
        if any(map(_is_more, node.elts)) and values:
            values[-1] = Stand(f"{values[-1]}...")
        return values
    return ast.literal_eval(node)


def _is_more(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def _option(name: str, value: Any) -> list[str]:
    """Words of an option and its value, quoted for a shell."""
    if isinstance(value, bool):
        return [_spelled(name if value else f"no_{name}")]
    if isinstance(value, Stand):
        return [_spelled(name), value]
    text = joined(value) if isinstance(value, list) else "none" if value is None else str(value)
    if text.startswith("-"):
        return [f"{_spelled(name)}={shlex.quote(text)}"]
    return [_spelled(name), shlex.quote(text)]
