"""Pages that are written in one step, beside what is there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kpms_zarr.store.errors import InputError


def check_place(path: Path, what: str) -> None:
    """Refuse a place that cannot hold a page (InputError); ``what`` is in it."""
    if path.is_dir():
        raise InputError(
            expected=f"a file name for the {what}",
            found="a folder of that name",
            where=str(path),
            fix=f"name a file in it, such as {path / f'{what}.html'}",
        )
    if not path.parent.is_dir():
        raise InputError(
            expected="a folder that exists",
            found="no such folder",
            where=str(path.parent),
            fix="make the folder first, or name another place with `out=`",
        )


def check_named_page(out: str | os.PathLike[str], what: str, stem: str) -> None:
    """Refuse (InputError) a place that is no page, or cannot hold one.

    Parameters
    ----------
    what : str
        What is in it.
    stem : str
        Name of the file to suggest.
    """
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(
            expected="a page, whose name ends in .html",
            found=repr(path.name),
            where="`out=`",
            fix=f"name it {path.stem or stem}.html; a browser can save its pictures",
        )
    check_place(path, what)


def write_page(path: Path, page: str) -> int:
    """Write beside the place and rename: readers see the old page or the new, never half.

    Returns
    -------
    int
        Bytes of the page.
    """
    data = page.encode()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return len(data)
