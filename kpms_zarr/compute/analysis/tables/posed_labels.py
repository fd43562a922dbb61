"""Labels of a model with the position and heading that were published beside them."""

from __future__ import annotations

import numpy as np

from kpms_zarr.compute.analysis.labellings import PublishedLabels
from kpms_zarr.compute.analysis.shared import BLOCK_FRAMES
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.model.models import labels_path, open_labels
from kpms_zarr.store.model.replicability import open_replicability


class PosedLabels(PublishedLabels):
    """Labels of a published model, read by blocks, with centroid and heading where it has them.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).

    Attributes
    ----------
    model, version : str
    n_states : int
        States that the labels can have.
    space : tuple of str
        Axes of the centroid; () without.
    has_heading, has_certainty : bool
    family : ndarray or None, (state,) int16
        Families of syllables, -1 = none; None where the model has none.

    Raises
    ------
    InputError
        When there is no such store, model or version.
    """

    def __init__(self, store: StoreLike, model: str, version: str | None = None) -> None:
        found = labels_path(store, model, version).rsplit("/", 1)[1]
        super().__init__(store, f"{model}@{found}")
        centroid = self._array("centroid")
        self.space = () if centroid is None else tuple(map(str, self._array("space")[:]))
        self.has_heading = self._array("heading") is not None
        self.has_certainty = self._array("certainty") is not None
        self.family = self._families(store, found)
        frequency = self._array("frequency")
        self.n_states = self._largest() + 1 if frequency is None else int(frequency.shape[0])

    def centroid(self, row: int, start: int, stop: int) -> np.ndarray | None:
        """Read positions of the animal, (frame, space) float32; None where there are none."""
        return np.asarray(self._array("centroid")[row, start:stop]) if self.space else None

    def heading(self, row: int, start: int, stop: int) -> np.ndarray | None:
        """Read headings, (frame,) float32 in rad; None where there are none."""
        return np.asarray(self._array("heading")[row, start:stop]) if self.has_heading else None

    def has(self, name: str) -> bool:
        """Whether the version has a variable."""
        return self._array(name) is not None

    def by_frame(self, name: str, row: int, start: int, stop: int) -> np.ndarray:
        """Read a variable that the version has, (frame, ...)."""
        return np.asarray(self._array(name)[row, start:stop])

    def column(self, name: str) -> np.ndarray | None:
        """Read a variable without frames; None where there is none."""
        return np.asarray(self._array(name)[...]) if self.has(name) else None

    def _families(self, store: StoreLike, version: str) -> np.ndarray | None:
        """Families of this version, or of that whose syllables it has, as `apply` writes them."""
        if self.has("family"):
            return self.column("family")
        labels = open_labels(store, self.model, version)
        if "frequency" not in labels:
            return None
        found = open_replicability(store, self.model, labels)
        return found.family.astype(np.int16) if found.has_families else None

    def _largest(self) -> int:
        """Largest label of a version without statistics."""
        return max(
            (
                int(self.syllable(one.index, start, start + BLOCK_FRAMES).max(initial=-1))
                for one in self.sessions
                for start in range(0, one.n_frames, BLOCK_FRAMES)
            ),
            default=-1,
        )
