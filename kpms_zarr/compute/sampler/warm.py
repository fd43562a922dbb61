"""First labels of sessions that a model has not seen: a few draws from their aligned pose."""

from __future__ import annotations

import numpy as np

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.sampler.ar_model import ArModel
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters

WARM_SWEEPS = 3
"""Of the AR stage, in which segments without labels around them are drawn first."""


ANNEAL_SWEEPS = 20
"""Of the full stage, after those of the AR stage. Measured on real sessions of the set of nine:
without them a chain is 0.8 nat per frame below the fit after 60 sweeps; with them it is level."""
_HOTTEST = 8.0


def annealed(parameters: Parameters, n_sweeps: int) -> list[Parameters]:
    """Parameters for sweeps that lead up to those with the parameters themselves.

    The aligned pose that a session begins with holds the noise of the tracker, which dynamics
    fitted to denoised poses find so unlikely that only states of large innovations take it, and
    these states let the noise stay. So innovations may be larger at first, and become smaller from
    sweep to sweep. Only where the chain begins depends on it: what is kept is drawn after it.

    Returns
    -------
    list of Parameters
        Covariances 8 times as large, falling by the same factor from sweep to sweep.
    """
    weight_bias, covariance = parameters.dynamics.weight_bias, parameters.dynamics.covariance
    factors = _HOTTEST ** (1 - np.arange(n_sweeps) / max(1, n_sweeps))
    return [parameters._replace(dynamics=Dynamics(weight_bias, f * covariance)) for f in factors]


def warm_start(sweeper: Sweeper, parameters: Parameters, first_number: int) -> int:
    """Draw labels given the latent pose that sessions begin with.

    Parameters
    ----------
    sweeper : Sweeper
        Of these sessions.
    first_number : int
        Of the first sweep, for random numbers.

    Returns
    -------
    int
        Number of the next sweep.
    """
    for number in range(first_number, first_number + WARM_SWEEPS):
        sweeper.draw(ArModel(), parameters, number)
    return first_number + WARM_SWEEPS
