"""Text files of other people: opened, and refused in the same way."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kpms_zarr.store.errors import InputError

# Far more than a real line; stops at once in a large file without line ends.
LONGEST_LINE = 4_000_000


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open for reading; what the operating system or a decoder dislikes is an InputError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(
            expected="text in UTF-8",
            found=f"the byte {error.object[error.start : error.start + 1]!r}",
            where=str(path),
            fix="save the file as UTF-8; if it should be that already, it may be damaged",
        ) from error
    except csv.Error as error:
        raise InputError(
            expected="fields with commas between them",
            found=str(error),
            where=str(path),
            fix="the file is damaged: copy or export it again",
        ) from error
    except OSError as error:
        raise InputError(
            expected="a file that can be read",
            found=error.strerror or str(error),
            where=str(path),
            fix="check the path and the permissions",
        ) from error


def fields(line: str) -> list[str]:
    """Fields of a line of a csv file."""
    if '"' not in line:
        return line.rstrip("\n").split(",")
    return next(csv.reader([line.rstrip("\n")]), [])


def lines(file: TextIO) -> Iterator[str]:
    """Lines of a file, none of them too long to be held."""
    while line := file.readline(LONGEST_LINE):
        yield line
