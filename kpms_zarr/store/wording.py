"""Wording of messages: arguments as a Python caller knows them, numbers of things.

A message says `` `max_gap='10s'` ``, `` `max_gap=` `` or `` `kpms_zarr.pca('study.zarr')` ``; who
types commands is shown what :func:`kpms_zarr.store.core.commands.for_shell` makes of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


class Stand(str):
    """A name in capitals for what a person puts there: written without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


STORE = Stand("STORE")


def counted(number: int | str, noun: str) -> str:
    """Format a number of things: ``1 session``, ``1,200 sessions``."""
    text = number if isinstance(number, str) else f"{number:,}"
    return f"{text} {noun if text == '1' else plural(noun)}"


def plural(noun: str) -> str:
    """Form the plural of a noun, such as what somebody calls the animals: ``mice``, ``rats``."""
    return f"{noun.removesuffix('mouse')}mice" if noun.endswith("mouse") else f"{noun}s"


def listed(texts: Iterable[str], max_shown: int = 5, between: str = ", ") -> str:
    """List the first few, and how many more: ``a, b and 3 more``."""
    texts = list(texts)
    more = f" and {len(texts) - max_shown} more" if len(texts) > max_shown else ""
    return between.join(texts[:max_shown]) + more


def sentence(words: str, names: Iterable[str] = ()) -> str:
    """Form a sentence: a full stop, and a capital unless it begins with one of ``names``.

    What somebody calls a column or a signal stays as it is spelt.
    """
    begins = (words[len(name) :] for name in names if name and words.startswith(name))
    if not any(rest == "" or not (rest[0].isalnum() or rest[0] == "_") for rest in begins):
        words = words[:1].upper() + words[1:]
    return f"{words}."


def as_typed(value: object) -> str:
    """Format a value of a setting as a person types it."""
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def option(name: str, value: object) -> str:
    """Format an argument and its value as in Python: `` `keypoints=['a b', 'c']` ``."""
    return f"`{name}={_literal(value)}`"


def call(verb: str, *arguments: object, **options: object) -> str:
    """Format a call of a public function: `` `kpms_zarr.fit('study.zarr', model='m')` ``."""
    parts = [_literal(value) for value in arguments]
    parts += [f"{name}={_literal(value)}" for name, value in options.items()]
    return f"`kpms_zarr.{verb}({', '.join(parts)})`"


def _literal(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, tuple):
        value = list(value)
    return repr(value).replace("`", r"\x60")
