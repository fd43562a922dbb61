"""Settings that are declared once: checks, help, units and options follow from the fields."""

from __future__ import annotations

import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from kpms_zarr.store.errors import InputError, Problem

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Check:
    """Check of a setting: the values that it may have.

    Attributes
    ----------
    expected : str
        In words.
    holds : callable
        Whether a value is such.
    """

    expected: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Choice(Check):
    """Check for one of some words."""

    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class NameList(Check):
    """Check for names of keypoints or sessions; kept as a tuple, which can be hashed."""


def choice(*words: str) -> Choice:
    """Check for one of some words."""
    return Choice(f"one of {', '.join(words)}", lambda value: value in words, words)


def names(what: str) -> NameList:
    """Check for several names."""
    return NameList(
        f"names of {what}",
        lambda value: isinstance(value, list | tuple) and all(isinstance(n, str) for n in value),
    )


def whole(low: int, high: int) -> Check:
    """Check for a whole number within limits."""
    return Check(
        f"a whole number from {low} to {high}",
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        ),
    )


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


UNKNOWN: Any = frozenset({""})
"""In place of the names of settings that were given: find them out."""
NUMBER = Check("a number", _is_number)
POSITIVE = Check("a positive number", lambda value: _is_number(value) and value > 0)
FLAG = Check("True or False", lambda value: isinstance(value, bool))
MODEL = Check("the name of a model", lambda value: isinstance(value, str))
FOLDER = Check("a folder", lambda value: isinstance(value, str))
SIZE = Check("a size such as 4GB, or bytes", lambda value: isinstance(value, str | int | float))


@dataclass(frozen=True)
class Setting:
    """Declaration of a setting beside its name, type and default.

    Attributes
    ----------
    help : str
        What it is, for the documentation of the class and for the command line.
    open : str
        What None stands for where it leaves the choice open; "" where None is not allowed, or is
        a value.
    none : str
        What None stands for where it is a value like others.
    """

    check: Check
    help: str
    unit: str = ""
    open: str = ""
    none: str = ""

    @property
    def takes_none(self) -> bool:
        """Whether None is allowed."""
        return bool(self.open or self.none)

    @property
    def text(self) -> str:
        """Help text of the setting."""
        unit = f", in {self.unit}" if self.unit else ""
        meaning = self.open or self.none
        return f"{self.help}{unit}{f' (none = {meaning})' if meaning else ''}"


def setting(
    default: object, check: Check, help: str, *, unit: str = "", open: str = "", none: str = ""
) -> Any:
    """Declare a field of a settings class; see :class:`Setting`."""
    return field(default=default, metadata={"setting": Setting(check, help, unit, open, none)})


def settings_of(cls: type) -> Iterator[tuple[Field[Any], Setting]]:
    """Fields of a class that are settings."""
    for one in fields(cls):
        if "setting" in one.metadata:
            yield one, one.metadata["setting"]


def problems_of(instance: Any) -> list[Problem]:
    """List the settings of an instance that are not valid; names become tuples."""
    problems = []
    for one, known in settings_of(type(instance)):
        value = getattr(instance, one.name)
        if value is None and known.takes_none:
            continue
        if not known.check.holds(value):
            problems.append(problem(one.name, known.check.expected, value))
        elif isinstance(known.check, NameList):
            object.__setattr__(instance, one.name, tuple(value))
    return problems


def problem(name: str, expected: str, found: object) -> Problem:
    """Describe a setting whose value is not valid."""
    return Problem(expected, repr(found), f"`{name}=`", f"give {expected}")


def check_sweeps(name: str, value: object) -> None:
    """Refuse (InputError) what is no number of sweeps."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            expected="a whole number of sweeps, 1 or more",
            found=repr(value),
            where=f"`{name}=`",
            fix="leave it out, or give one",
        )


def documented(cls: T) -> T:
    """Add what is declared of the settings to the documentation of their class."""
    lines = ["", "", "Attributes", "----------"]
    for one, known in settings_of(cls):
        text = known.text.replace("(none = ", "(None = ") + "."
        lines += [f"{one.name} : {one.type}", textwrap.fill(text, 88, initial_indent="    ",
                  subsequent_indent="    ")]  # fmt: skip
    cls.__doc__ = inspect.cleandoc(cls.__doc__ or "") + "\n".join(lines) + "\n"
    return cls


def remembering(cls: T) -> T:
    """Let a settings class with a field ``given`` know which of its settings were given.

    None that leaves a choice open counts as not given. ``dataclasses.replace`` adds what it
    changes.
    """
    plain = cls.__init__  # type: ignore[misc]
    order = [one.name for one in fields(cls)]

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        before = kwargs.get("given", UNKNOWN)
        if before is UNKNOWN:
            kwargs["given"] = frozenset({*order[: len(args)], *kwargs}) - {"given"}
        plain(self, *args, **kwargs)
        found = set(self.given)
        for one, known in settings_of(cls):
            value = getattr(self, one.name)
            if value is None and known.open:
                found.discard(one.name)
            elif before is not UNKNOWN and value != one.default:
                found.add(one.name)
        object.__setattr__(self, "given", frozenset(found))

    cls.__init__ = init  # type: ignore[misc]
    return cls
