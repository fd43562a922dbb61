"""Parts that all movies share: the opened model, checks of arguments, and progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kpms_zarr.store.core.schema import variable
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.wording import call
from kpms_zarr.viz.movies.cells import reach_of
from kpms_zarr.viz.shared.drawing import PAPER, Skeleton
from kpms_zarr.viz.shared.guessing import note_on
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.skeletons import bones, keypoint_colors
from kpms_zarr.viz.syllables.examples import Example, PoseReader, examples_in
from kpms_zarr.viz.video.encoding import FORMATS

_MEASURED = 120
"""Bouts from which the part of the world that a cell shows is taken."""


@dataclass(frozen=True)
class MoviesSummary(ShownAsTable):
    """Movies that were written.

    Attributes
    ----------
    files : tuple of str
        Names in the folder.
    n_bouts : int
        In all movies.
    n_frames : int
        Of all movies.
    bad_videos : dict of str to str
        Sessions that were left out, and what is wrong with their videos.
    notes : tuple of str
        What else a person should know.
    seconds : float
        That it took.
    """

    folder: str
    files: tuple[str, ...]
    n_bouts: int
    n_frames: int
    n_bytes: int
    bad_videos: Mapping[str, str]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class MoviesProgress:
    """Progress of movies that are being written.

    Attributes
    ----------
    file : str
        That is being written; "" at the end.
    n_done, n_movies : int
        Whole movies.
    share : float
        Of the movie that is being written.
    """

    file: str
    n_done: int
    n_movies: int
    share: float = 0.0


@dataclass(frozen=True)
class GridStyle:
    """Look of grid movies; see :func:`movies`.

    Raises
    ------
    InputError
        With everything that is wrong with it.
    """

    format: str
    rows: int
    columns: int
    before: float
    after: float
    speed: float
    cell: int

    def __post_init__(self) -> None:
        seconds = self.before + self.after
        checks = {
            "rows": (1 <= self.rows <= 20, "1 to 20 rows", self.rows),
            "columns": (1 <= self.columns <= 20, "1 to 20 columns", self.columns),
            "cell": (48 <= self.cell <= 1024, "a width of 48 to 1024 px", self.cell),
            "before, after": (
                self.before >= 0 and self.after > 0 and seconds <= 60,
                "0 s or more before the onset and some after it, 60 s together at most",
                f"{self.before:g} s and {self.after:g} s",
            ),
        }
        check_format(self.format, self.speed, checks)


def check_format(
    format: str, speed: float, others: Mapping[str, tuple[bool, str, object]] | None = None
) -> None:
    """Check what all movies have: a format and a speed.

    Parameters
    ----------
    others : mapping of str to (bool, str, object), optional
        Name -> whether it is right, what is expected, what was found.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    checks = {
        "format": (format in FORMATS, f"one of {', '.join(FORMATS)}", repr(format)),
        "speed": (0.01 <= speed <= 100, "a speed of 0.01 to 100, where 1 is as it was", speed),
        **(others or {}),
    }
    problems = [
        Problem(expected, str(found), name, "give another value, or leave it out")
        for name, (is_right, expected, found) in checks.items()
        if not is_right
    ]
    if problems:
        raise InputError.of(problems)


class MovieStudy:
    """Bouts, skeleton and words of movies about a model."""

    def __init__(self, opened: OpenModel) -> None:
        self.opened, self.poses = opened, PoseReader(opened)

    @property
    def origin(self) -> dict[str, str]:
        """Origin that identifies the labels, as JSON can hold it."""
        return {
            "store": store_name(self.opened.store),
            "model": self.opened.model,
            "labels": self.opened.version,
            "created": str(self.opened.provenance.get("created", "")),
        }

    @property
    def notes(self) -> list[str]:
        """Notes on how poses are drawn."""
        note = note_on(self.opened.settings)
        return [note] if note else []

    @property
    def is_flat(self) -> bool:
        """Whether positions are 2-D."""
        return self.poses.pose.n_space == 2

    def units(self, *, is_video: bool) -> str:
        """Units of positions; "" where nobody said."""
        known = str(self.opened.tracked["position"].attrs.get("units", ""))
        is_known = known and known != variable("keypoints", "position").units
        return "px" if is_video else known if is_known else ""

    def skeleton(self, *, is_video: bool, radius: float) -> Skeleton:
        """Style of the poses: on paper, or with white rims on pictures."""
        names, settings = self.poses.pose.keypoints, self.opened.settings
        colors = keypoint_colors(len(settings.keypoints))
        mine = tuple(colors[settings.keypoints.index(name)] for name in names)
        joined = tuple(bones(settings.skeleton, names))
        if is_video:
            return Skeleton(joined, mine, line=PAPER, halo=PAPER, radius=radius)
        return Skeleton(joined, mine, radius=radius)

    def states(self, syllables: Sequence[int] | None) -> list[int]:
        """Syllables to show: those that are given, or those in use.

        Raises
        ------
        InputError
            For numbers that are no syllables.
        """
        if syllables is None:
            return list(self.opened.used)
        n_states = int(self.opened.labels.sizes.get("state", 1 + np.iinfo(np.int16).max))
        wrong = [state for state in syllables if not 0 <= state < n_states]
        if wrong or not len(syllables):
            raise InputError(
                expected=f"syllables from 0 to {n_states - 1}",
                found=", ".join(map(str, wrong)) or "none",
                where="syllables",
                fix="list them with: "
                + call("summary", self.opened.store, model=self.opened.model),
            )
        return [int(state) for state in dict.fromkeys(syllables)]

    def examples(
        self, states: Sequence[int], style: GridStyle, *, n: int, seed: int = 0
    ) -> dict[int, tuple[Example, ...]]:
        """At most ``n`` bouts of each syllable whose surroundings lie inside the session."""
        return examples_in(
            self.opened.labels,
            syllables=states,
            per_syllable=n,
            before=style.before,
            after=style.after,
            seed=seed,
        )

    def reach(self, style: GridStyle, others: Mapping[int, Sequence[Example]]) -> float:
        """Reach of the cells: the same, whichever syllables in use are chosen.

        Parameters
        ----------
        others : mapping of int to sequence of Example
            What is measured where no syllable is in use.
        """
        found: Mapping[int, Sequence[Example]] = {}
        if "frequency" in self.opened.labels.variables:
            states = self.states(None)[:_MEASURED]
            found = self.examples(states, style, n=max(1, _MEASURED // max(1, len(states))))
        measured = [one for some in found.values() for one in some]
        measured = measured or [one for some in others.values() for one in some][:_MEASURED]
        return reach_of(self.poses, measured, after=style.after) if measured else 1.0


class ProgressReporter:
    """Reporter of how far a movie is."""

    def __init__(
        self,
        on_progress: Callable[[MoviesProgress], None] | None,
        name: str,
        n_done: int,
        n_movies: int,
    ) -> None:
        self._on_progress, self._name, self._n_done, self._n_movies = (
            on_progress,
            name,
            n_done,
            n_movies,
        )

    def report(self, share: float = 0.0) -> None:
        """Report which share of the movie is written."""
        if self._on_progress is not None:
            self._on_progress(MoviesProgress(self._name, self._n_done, self._n_movies, share))

    def reporting(
        self, frame: Callable[[int], np.ndarray], n_frames: int
    ) -> Callable[[int], np.ndarray]:
        """Wrap a function that gives frames, so that each is reported."""

        def reported(number: int) -> np.ndarray:
            self.report(number / n_frames)
            return frame(number)

        return reported
