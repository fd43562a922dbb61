"""A folder of movies, and what each of them was made with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import listed

_RECORD = "movies.json"


class MovieFolder:
    """A folder in which files are replaced only by what the same command makes.

    Parameters
    ----------
    path : path
        Is made where it is missing.
    settings : mapping
        What the movies depend on, as JSON can hold it.
    what : str
        Kind of the files, in the plural.

    Raises
    ------
    InputError
        When the place is taken by a file.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], what: str = "movies"
    ) -> None:
        self.path, self._what = Path(path), what
        self._settings = json.loads(json.dumps(settings))
        if self.path.exists() and not self.path.is_dir():
            raise InputError(
                expected=f"a folder for the {what}",
                found="a file of that name",
                where=str(path),
                fix="name another folder behind `out=`",
            )
        self._movies: dict[str, Any] = self._read()

    def replacing(self, names: Iterable[str]) -> list[str]:
        """A note when some movies are there already and will be replaced.

        Raises
        ------
        InputError
            When one of them is there and was not made with the same settings.
        """
        there = [name for name in names if (self.path / name).exists()]
        others = [n for n in there if self._movies.get(n, {}).get("settings") != self._settings]
        if others:
            raise InputError(
                expected=f"a folder without {self._what}, or with those of the same command",
                found=f"{listed(others, 3)}, made with other settings or elsewhere",
                where=str(self.path),
                fix="name another folder behind `out=`, or remove these files",
            )
        what = self._what.removesuffix("s") if len(there) == 1 else self._what
        return [f"{len(there)} {what} of the same command replaced"] if there else []

    def prepare(self, name: str, facts: Mapping[str, Any]) -> Path:
        """Note what a movie is made with and shows, before it is written; returns its path."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._movies[name] = {"settings": self._settings, **facts}
        record = {"created_by": f"kpms_zarr {package_version()}", "movies": self._movies}
        partial = self.path / f".{_RECORD}.partial"
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, self.path / _RECORD)
        return self.path / name

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))["movies"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}
