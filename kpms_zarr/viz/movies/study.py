"""What all movies have: a model that was opened, checks of what a person wants, and progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import variable
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.model import models
from kpms_zarr.store.model.syllable_names import SyllableNames, read_names
from kpms_zarr.store.wording import call
from kpms_zarr.viz.movies.cells import reach_of
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.drawing import PAPER, Skeleton
from kpms_zarr.viz.shared.guessing import drawn_settings, note_on
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.skeletons import bones, keypoint_colors
from kpms_zarr.viz.syllables.examples import Example, PoseReader, examples_in
from kpms_zarr.viz.video.encoding import FORMATS

_MEASURED = 120
"""Bouts from which the part of the world that a cell shows is taken."""


@dataclass(frozen=True)
class MoviesSummary:
    """Movies that were written.

    Attributes
    ----------
    folder : str
    files : tuple of str
        Names in the folder.
    n_bouts : int
        In all movies.
    n_frames : int
        Of all movies.
    n_bytes : int
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
    """How far it is.

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
class Look:
    """What grid movies look like; see :func:`movies`.

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
    format : str
    speed : float
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
    """What movies need of a model, opened once.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).

    Attributes
    ----------
    data, labels : Dataset
        The groups ``keypoints`` and of the labels, lazy.
    poses : PoseReader
    names : SyllableNames
    origin : dict
        What identifies the labels, as JSON can hold it.
    """

    def __init__(self, store: StoreLike, model: str, version: str | None = None) -> None:
        version = version or models.require_model(store, model)
        self.store, self.model = store, model
        self.labels = models.open_labels(store, model, version)
        self.poses = PoseReader(store, model=model, version=version, labels=self.labels)
        self.data: xr.Dataset = access.dataset(store, layout.KEYPOINTS)
        self.names: SyllableNames = read_names(store, model, version)
        self._settings = drawn_settings(store)
        created = provenance_of(self.labels.attrs).get("created", "")
        self.origin = {
            "store": store_name(store),
            "model": model,
            "labels": version,
            "created": str(created),
        }

    @property
    def notes(self) -> list[str]:
        """What a person should know of how poses are drawn."""
        said = note_on(self._settings)
        return [said] if said else []

    @property
    def is_flat(self) -> bool:
        """Whether positions are 2-D."""
        return self.poses.n_space == 2

    def units(self, *, is_video: bool) -> str:
        """Units of positions; "" where nobody said."""
        known = str(self.data["position"].attrs.get("units", ""))
        is_known = known and known != variable("keypoints", "position").units
        return "px" if is_video else known if is_known else ""

    def skeleton(self, *, is_video: bool, radius: float) -> Skeleton:
        """How poses are drawn: on paper, or with white rims on pictures."""
        names = self.poses.keypoints
        colors = keypoint_colors(len(self._settings.keypoints))
        mine = tuple(colors[self._settings.keypoints.index(name)] for name in names)
        joined = tuple(bones(self._settings.skeleton, names))
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
            reading.require(self.labels, ("frequency",), self.store, "labels")
            return [int(state) for state in reading.used_states(self.labels)]
        n_states = int(self.labels.sizes.get("state", 1 + np.iinfo(np.int16).max))
        wrong = [state for state in syllables if not 0 <= state < n_states]
        if wrong or not len(syllables):
            raise InputError(
                expected=f"syllables from 0 to {n_states - 1}",
                found=", ".join(map(str, wrong)) or "none",
                where="syllables",
                fix="list them with: " + call("summary", self.store, model=self.model),
            )
        return [int(state) for state in dict.fromkeys(syllables)]

    def examples(
        self, states: Sequence[int], look: Look, *, n: int, seed: int = 0
    ) -> dict[int, tuple[Example, ...]]:
        """At most ``n`` bouts of each syllable whose surroundings lie inside the session."""
        return examples_in(
            self.labels,
            syllables=states,
            per_syllable=n,
            before=look.before,
            after=look.after,
            seed=seed,
        )

    def reach(self, look: Look, others: Mapping[int, Sequence[Example]]) -> float:
        """How far cells reach: the same, whichever syllables in use are chosen.

        Parameters
        ----------
        look : Look
        others : mapping of int to sequence of Example
            What is measured where no syllable is in use.
        """
        found: Mapping[int, Sequence[Example]] = {}
        if "frequency" in self.labels.variables:
            states = self.states(None)[:_MEASURED]
            found = self.examples(states, look, n=max(1, _MEASURED // max(1, len(states))))
        measured = [one for some in found.values() for one in some]
        measured = measured or [one for some in others.values() for one in some][:_MEASURED]
        return reach_of(self.poses, measured, after=look.after) if measured else 1.0


class Telling:
    """Tells how far a movie is."""

    def __init__(
        self,
        tell: Callable[[MoviesProgress], None] | None,
        name: str,
        n_done: int,
        n_movies: int,
    ) -> None:
        self._tell, self._name, self._n_done, self._n_movies = tell, name, n_done, n_movies

    def tell(self, share: float = 0.0) -> None:
        """Tell which share of the movie is written."""
        if self._tell is not None:
            self._tell(MoviesProgress(self._name, self._n_done, self._n_movies, share))

    def watching(
        self, frame: Callable[[int], np.ndarray], n_frames: int
    ) -> Callable[[int], np.ndarray]:
        """A function that gives frames and tells so."""

        def told(number: int) -> np.ndarray:
            self.tell(number / n_frames)
            return frame(number)

        return told
