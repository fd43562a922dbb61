"""First labels of sessions that a model has not seen: a few draws from their aligned pose."""

from __future__ import annotations

import numpy as np

from kpms_zarr.compute.segments import TileShape
from kpms_zarr.compute.sweep import Parameters, Sampler

WARM_SWEEPS = 3
"""Of the AR stage, in which segments without labels around them are drawn first."""


def warm_start(
    sampler: Sampler,
    which: np.ndarray,
    parameters: Parameters,
    first_number: int,
    shape: TileShape | None = None,
) -> int:
    """Draw labels of some sessions given the latent pose that they begin with.

    Parameters
    ----------
    sampler : Sampler
        Of the AR stage.
    which : ndarray, (session,) bool
    parameters : Parameters
    first_number : int
        Of the first sweep, for random numbers.
    shape : TileShape, optional
        Default: that of these sessions.

    Returns
    -------
    int
        Number of the next sweep.
    """
    view = sampler.chain.only(which)
    labeller = Sampler(
        view,
        n_states=sampler.n_states,
        segment_frames=sampler.segment_frames,
        flight=sampler.flight,
        seed=sampler.seed,
        precision=sampler.dtype.name,
        tile_frames=sampler.tile_frames,
        shape=shape,
    )
    for number in range(first_number, first_number + WARM_SWEEPS):
        labeller.draw(parameters, number)
    return first_number + WARM_SWEEPS
