"""Numbers of syllables as files have them, and their places among those that were met."""

from __future__ import annotations

import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.label_sources import LabelPiece

MAX_SYLLABLES = 1_000
"""Distinct labels that a file may have: with more, it holds no syllables."""


class LabelNumbers:
    """Numbers of the syllables of a file, in the order in which they were met.

    Parameters
    ----------
    where : str
        What messages call the file.
    """

    def __init__(self, where: str) -> None:
        self._where, self._place = where, dict[int, int]()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers by place."""
        return tuple(self._place)

    def codes(self, piece: LabelPiece) -> np.ndarray:
        """Convert labels to places among the numbers, (frame,) int16; -1 = none.

        Raises
        ------
        InputError
            For labels that are no whole numbers, or too many different ones.
        """
        values = _whole(piece.values, f"{self._where}, {piece.key!r}")
        is_label = values >= 0
        distinct, place = np.unique(values[is_label], return_inverse=True)
        for number in distinct.tolist():
            self._place.setdefault(number, len(self._place))
        if len(self._place) > MAX_SYLLABLES:
            raise InputError(
                expected=f"at most {MAX_SYLLABLES:,} different syllables",
                found="more",
                where=f"{self._where}, {piece.key!r}",
                fix="name the array or column that holds a syllable for each frame",
            )
        codes = np.full(len(values), -1, np.int16)
        if distinct.size:
            known = np.array([self._place[number] for number in distinct.tolist()], np.int16)
            codes[is_label] = known[place.ravel()]
        return codes


def _whole(values: np.ndarray, where: str) -> np.ndarray:
    """Labels as int64, -1 where there is none; an InputError for what is no whole number."""
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(
            expected="one whole number for each frame, -1 where there is no syllable",
            found=f"an array of {values.dtype} of shape {values.shape}",
            where=where,
            fix="write one array of labels (frame) for each session",
        )
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)
        wrong = values[(values != np.rint(values)) | (np.abs(values) > 2**53)]
        if wrong.size:
            raise InputError(
                expected="whole numbers of syllables",
                found=f"{wrong[0]:g}",
                where=where,
                fix="name the array or column that holds the syllables",
            )
    return values.astype(np.int64)
