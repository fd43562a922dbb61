"""Which syllables are tested, and why the others are not; never by how the groups differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.replicability import INTERPRETED
from kpms_zarr.store.wording import counted, listed

MIN_FREQUENCY, MIN_REPLICABILITY = USED_FRACTION, INTERPRETED


def choose_syllables(
    pooled: xr.Dataset,
    *,
    replicability: np.ndarray | None,
    syllables: Sequence[int] | None,
    min_frequency: float = MIN_FREQUENCY,
    min_replicability: float = MIN_REPLICABILITY,
) -> xr.Dataset:
    """Choose the syllables to test by what does not know the groups.

    Such a choice leaves the error rates of the tests as they are (Bourgon, Gentleman and Huber
    2010, PNAS 107:9546).

    Parameters
    ----------
    pooled : xarray.Dataset, (unit, state)
    replicability : ndarray, (state,), optional
        Jaccard index between halves of the chains; NaN = not known, which excludes no syllable.
    syllables : sequence of int, optional
        These, whatever their frequency and replicability.
    min_frequency, min_replicability : float
        Least share of the frames of all units, and least index where it is known.

    Returns
    -------
    xarray.Dataset, (state)
        ``frequency``, ``replicability``, ``is_tested``, ``why`` (in words, for each); the limits
        as attributes, unless syllables were asked for.

    Raises
    ------
    InputError
        When there is no such syllable, or none is left.
    """
    state = pooled["state"].values
    frames = pooled["n_frames"].values.sum(0)
    frequency = frames / frames.sum()
    index = np.full(len(state), np.nan) if replicability is None else np.asarray(replicability)
    if syllables is not None:
        unknown = sorted(set(syllables) - set(state.tolist()))
        if unknown:
            raise InputError(
                expected=f"syllables from {state.min()} to {state.max()}",
                found=listed(map(str, unknown)),
                where="`syllables=`",
                fix="look them up with `kpms_zarr.summary`",
            )
        chosen = np.isin(state, np.asarray(syllables, np.int64))
        why = np.where(chosen, "asked for", "not asked for").astype(object)
    else:
        is_rare, is_doubtful = frequency < min_frequency, index < min_replicability
        chosen = ~is_rare & ~is_doubtful
        why = np.array(
            [
                f"{100 * share:.2g} % of the frames, less than {100 * min_frequency:g} %"
                if rare
                else f"replicability {value:.2f}, less than {min_replicability:g}"
                if doubtful
                else "frequent enough" + ("" if np.isnan(value) else f", replicability {value:.2f}")
                for share, value, rare, doubtful in zip(
                    frequency, index, is_rare, is_doubtful, strict=True
                )
            ],
            dtype=object,
        )
    limits = {"min_frequency": min_frequency, "min_replicability": min_replicability}
    if not chosen.any():
        raise InputError(
            expected="a syllable to test",
            found=f"none of {counted(len(state), 'syllable')} that is frequent and replicates",
            where="`min_frequency=`",
            fix="lower `min_frequency=` or `min_replicability=`, or name some by `syllables=`",
        )
    return xr.Dataset(
        {
            "frequency": ("state", frequency),
            "replicability": ("state", np.asarray(index, dtype=np.float64)),
            "is_tested": ("state", chosen),
            "why": ("state", why),
        },
        {"state": state},
        {} if syllables is not None else limits,
    )
