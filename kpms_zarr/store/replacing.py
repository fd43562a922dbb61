"""Files that are written beside their place and then take it: readers see the old or the new."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kpms_zarr.store.errors import InputError


def check_place(path: Path, what: str, example: str) -> None:
    """Refuse a place that cannot hold a file (InputError).

    Parameters
    ----------
    path : Path
    what : str
        What is in the file.
    example : str
        A name of one.
    """
    if path.is_dir():
        raise InputError(
            expected=f"a file name for the {what}",
            found="a folder of that name",
            where=str(path),
            fix=f"name a file in it, such as {path / example}",
        )
    if not path.parent.is_dir():
        raise InputError(
            expected="a folder that exists",
            found="no such folder",
            where=str(path.parent),
            fix="make the folder first, or name another place with `out=`",
        )


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a file beside the place to write into; it takes the place unless something is raised."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
