"""Videos of sessions: which file, and whether it can be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.matching import Named
from kpms_zarr.store.study.tables import SessionTable, read_table
from kpms_zarr.store.wording import option
from kpms_zarr.viz.video.video import (
    VideoPool,
    VideoReader,
    check_length,
    find_video,
    video_frames,
    video_of,
)

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".webm", ".wmv")
"""Files that are taken for videos, in small letters."""

Videos = bool | str | os.PathLike[str] | Mapping[str, str]
"""True = the paths in the store; a folder; a csv table; or names of sessions and paths."""


class SessionVideos:
    """Videos of the sessions of a store, few of them open.

    Parameters
    ----------
    data : Dataset
        The group ``keypoints``.
    videos : True, path or mapping
        True = the paths that the store has, a relative one from the current folder or from the
        one that the store lies in; a folder in which files have the names of those paths, or
        begin like the name of the session, of its recording or of its tracking file; a csv table
        with a column ``video``; or a mapping of names of sessions to paths.
    max_open : int
        Most files open at a time.

    Attributes
    ----------
    errors : dict of str to InputError
        Session -> why its video cannot be used; whoever reads videos writes it.
    notes : list of str
        What else a person should know.

    Raises
    ------
    InputError
        When there is no such folder or table.
    """

    def __init__(
        self, store: StoreLike, data: xr.Dataset, videos: Videos, *, max_open: int = 4
    ) -> None:
        self._data, self._pool = data, VideoPool(max_open)
        self._rows = {str(name): row for row, name in enumerate(data["session"].values)}
        self._table: SessionTable | None = None
        self._given: Mapping[str, str] = {}
        self._folders: list[Path] = []
        self._files: list[Path] = []
        self.errors: dict[str, InputError] = {}
        self.notes: list[str] = []
        self._checked: set[str] = set()
        if isinstance(videos, Mapping):
            self._given = videos
        elif isinstance(videos, bool):
            self._folders = [] if access.is_remote(store) else [Path(store).resolve().parent]
        elif os.path.isdir(videos):
            self._folders = [Path(videos)]
            inside = sorted(Path(videos).iterdir())
            self._files = [path for path in inside if path.suffix.lower() in SUFFIXES]
        elif not os.path.exists(videos):
            raise InputError(
                expected="a folder of videos, or a csv table with a column video",
                found="nothing there",
                where=option("videos", videos),
                fix="check the path; without one, the paths in the store are used",
            )
        else:
            table = _with_videos(read_table(os.fspath(videos), "`videos=`"))
            names = [
                Named(name, *(self._text(one, row) for one in ("recording", "source", "video")))
                for name, row in self._rows.items()
            ]
            self._table = table.about(names, is_strict=False)
            self._folders = [Path(videos).resolve().parent]

    def __enter__(self) -> SessionVideos:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        self._pool.close()

    def path(self, session: str) -> str:
        """The video of a session; "" where none is known."""
        row = self._rows.get(session)
        if row is None:
            return ""
        names = [session, *(self._text(name, row) for name in ("recording", "source"))]
        if self._table is not None:
            key = self._table.row_of(session)
            named = self._table.rows[key]["video"] if key is not None else ""
        else:
            named = self._given.get(session, "") if self._given else video_of(self._data, row)
        if named:
            found = find_video(named, self._folders)
            if os.path.isfile(found) or not self._files:
                return found
        return _like(names, self._files) or named

    def reader(self, session: str) -> VideoReader:
        """The video of a session, checked; it may be closed when others are asked for.

        Raises
        ------
        InputError
            When there is none, it cannot be read, or it has fewer frames than the session needs.
        """
        path, row = self.path(session), self._rows.get(session, -1)
        if not path:
            raise InputError(
                expected="the path of its video",
                found="none",
                where=f"session {session}",
                fix="write it into the store (`kpms_zarr.annotate(STORE, 'FILE.csv')` with a "
                "column video), or name a folder or a table behind `videos=`",
            )
        reader = self._pool.open(path)
        if session not in self._checked:
            n_frames = int(self._data["n_frames"][row])
            check_length(reader, int(video_frames(self._data, row, np.array(n_frames - 1))) + 1)
            self._check_rate(reader, session, row)
            self._checked.add(session)
        return reader

    def frames(self, session: str, frames: np.ndarray) -> np.ndarray:
        """Frames of the video that frames of a session are."""
        return video_frames(self._data, self._rows[session], frames)

    @property
    def bad(self) -> dict[str, str]:
        """Reasons why videos cannot be used, by session."""
        found = {}
        for session, error in self.errors.items():
            problem = error.problems[0]
            where = "" if session in problem.where else f" ({problem.where})"
            found[session] = f"expected {problem.expected}, found {problem.found}{where}"
        return found

    def _check_rate(self, reader: VideoReader, session: str, row: int) -> None:
        """Note a frame rate that is not that of the store: times would be wrong."""
        step = int(video_frames(self._data, row, np.array(1)))
        step -= int(video_frames(self._data, row, np.array(0)))
        known = float(self._data["fps"][row]) * step
        if np.isfinite(reader.fps) and abs(reader.fps / known - 1) > 0.05:
            self.notes.append(
                f"{session}: its video has {reader.fps:.4g} frames per second, the store says "
                f"{known:.4g}; `kpms_zarr.annotate` sets fps"
            )

    def _text(self, name: str, row: int) -> str:
        return str(self._data[name][row].values) if name in self._data.variables else ""


def _with_videos(table: SessionTable) -> SessionTable:
    if "video" in table.columns:
        return table
    raise InputError(
        expected="a column named video, with the paths",
        found=f"the columns {', '.join((table.key, *table.columns))}",
        where=option("videos", table.path),
        fix="name the column with the paths of the videos video",
    )


def _like(names: list[str], files: list[Path]) -> str:
    """Find the file whose name begins one of some names, the longest one; "" without.

    Trackers add to the name of the video: ``day1.mp4`` becomes ``day1DLC_resnet50.csv``.
    """
    stems = [os.path.basename(name.replace("\\", "/")) for name in names if name]
    fitting = [path for path in files if any(_begins(stem, path.stem) for stem in stems)]
    fitting.sort(key=lambda path: len(path.stem))
    return os.fspath(fitting[-1]) if fitting else ""


def _begins(name: str, start: str) -> bool:
    """Whether a name begins with another, not within a number: mouse1 is not mouse10."""
    rest = name[len(start) :]
    return name.startswith(start) and not (start[-1:].isdigit() and rest[:1].isdigit())
