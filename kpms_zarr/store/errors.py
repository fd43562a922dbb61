"""Errors that say what was expected, what was found, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def readable(text: str, max_length: int = 4000) -> str:
    """Text that can be printed and stored, whatever file it is from; cut where it is very long."""
    text = text if len(text) <= max_length else f"{text[:max_length]}..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Parameters
    ----------
    expected, found : str
        What should have been there, and what is there instead.
    where : str
        File, store, group, session or option.
    fix : str
        What the person can do about it.
    """

    expected: str
    found: str
    where: str
    fix: str

    def __post_init__(self) -> None:
        for part in ("expected", "found", "where", "fix"):
            object.__setattr__(self, part, readable(getattr(self, part)))

    def __str__(self) -> str:
        return (
            f"{self.where}: expected {self.expected}, found {self.found}.\n  What to do: {self.fix}"
        )


class InputError(ValueError):
    """An input that cannot be used; nothing was changed.

    Build it from one problem by keyword, or from several with :meth:`of`.
    """

    def __init__(
        self,
        *,
        expected: str = "",
        found: str = "",
        where: str = "",
        fix: str = "",
        problems: Iterable[Problem] = (),
    ) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems) or (
            Problem(expected, found, where, fix),
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, tuple[tuple[Problem, ...]]]:
        # Pickle calls a class with positional arguments; workers send their errors that way.
        return type(self).of, (self.problems,)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> InputError:
        """One error for all the problems of an input."""
        return cls(problems=problems)


class OtherKindError(InputError):
    """A sound file that is clearly no tracking of a video: of a folder, it is left out and noted.

    Labels made by hand, tables of sessions, settings, results. Named by itself it is refused like
    any other wrong input.
    """


class ReadOnlyError(InputError):
    """A store that can be read and not written to."""


def unreadable(path: Path, error: OSError) -> InputError:
    """Error for a file that the operating system does not let anybody read."""
    return InputError(
        expected="a file that can be read",
        found=error.strerror or str(error),
        where=str(path),
        fix="check the path and the permissions",
    )
