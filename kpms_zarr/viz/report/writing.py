"""Pages that are written in one step, beside what is there."""

from __future__ import annotations

import os
from pathlib import Path

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.replacing import check_place, replaced


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
    check_place(path, what, f"{what}.html")


def write_page(path: Path, page: str) -> int:
    """Write beside the place and rename: readers see the old page or the new, never half.

    Returns
    -------
    int
        Bytes of the page.
    """
    data = page.encode()
    with replaced(path) as partial:
        partial.write_bytes(data)
    return len(data)
