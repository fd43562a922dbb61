"""Concentration of the variance of the pose in few frames, which components then describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.mapreduce import map_reduce
from kpms_zarr.store.core.blocks import Block

_FEW = 0.01
_MOST = 0.5
_BINS_PER_OCTAVE = 8
_N_BINS = 256 * _BINS_PER_OCTAVE
_NAMED = 3


class Spread(NamedTuple):
    """Squared distances of frames from the mean pose; those of a union follow from the parts.

    Attributes
    ----------
    number, total : ndarray, (bin,)
        Number of frames by the logarithm of the squared distance, and their sum.
    worst : tuple of (float, int, int)
        Largest squared distances, with session and frame.
    """

    number: np.ndarray
    total: np.ndarray
    worst: tuple[tuple[float, int, int], ...]

    @classmethod
    def of_block(cls, square: np.ndarray, frame: np.ndarray, session: int) -> Spread:
        """Spread of a block, of squared distances (frame,) and frames of the session (frame,)."""
        tiny = np.finfo(float).tiny
        octave = np.log2(np.maximum(square, tiny)) + 128
        bins = np.clip(octave * _BINS_PER_OCTAVE, 0, _N_BINS - 1).astype(np.int64)
        order = np.lexsort((frame, -square))[:_NAMED]
        return cls(
            np.bincount(bins, minlength=_N_BINS),
            np.bincount(bins, square, minlength=_N_BINS),
            tuple((float(square[i]), session, int(frame[i])) for i in order),
        )

    def add(self, other: Spread) -> Spread:
        """Add the distances of other frames."""
        worst = sorted((*self.worst, *other.worst), key=lambda one: (-one[0], one[1:]))[:_NAMED]
        return Spread(self.number + other.number, self.total + other.total, tuple(worst))

    def fewest(self) -> tuple[float, float]:
        """Find the fewest frames far from the mean that hold most of the variance, and how much
        these hold."""
        count, total = np.cumsum(self.number[::-1]), np.cumsum(self.total[::-1])
        if not total[-1] > 0:
            return 1.0, 1.0
        at = int(np.argmax(total >= _MOST * total[-1]))
        return float(count[at] / count[-1]), float(total[at] / total[-1])


def concentration_note(
    square_of: Callable[[Block], tuple[np.ndarray, np.ndarray]],
    blocks: Iterable[Block],
    names: Mapping[int, str],
) -> list[str]:
    """Note that few frames hold most of the variance; nothing where they do not.

    Parameters
    ----------
    square_of : callable
        Block -> squared distances from the mean pose (frame,), and frames of the session (frame,).
    names : mapping of int to str
        Index of a session -> its name.
    """
    found = map_reduce(partial(_spread, square_of), blocks, Spread.add)
    few, held = found.fewest()
    if few > _FEW:
        return []
    listed = "; ".join(f"{names[session]}, frame {frame}" for _, session, frame in found.worst)
    return [
        f"{few:.2g} of the frames hold {held:.0%} of the variance: what the components show is "
        f"likely to be tracking errors. Furthest from the mean pose: {listed}. Look at them with "
        "`kpms_zarr.explore`; a smaller `outlier_scale=` leaves out more"
    ]


def _spread(square_of: Callable[[Block], tuple[np.ndarray, np.ndarray]], block: Block) -> Spread:
    return Spread.of_block(*square_of(block), block.session)
