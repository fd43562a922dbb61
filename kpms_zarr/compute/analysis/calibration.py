"""Whether certainties are true: shares of frames with the same label, by what was said."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def calibration(by_certainty: np.ndarray, certainty: np.ndarray, matched: np.ndarray) -> xr.Dataset:
    """Compare the certainty of labels with how often another labelling has the matched label.

    Parameters
    ----------
    by_certainty : ndarray, (certainty_bin, syllable, syllable of the other) int
        Frames of which the certainty is known; bins are equally wide from 0 to 1.
    certainty : ndarray, (certainty_bin,)
        Sums of the certainties of these frames.
    matched : ndarray, (syllable,) int
        Syllable of the other, -1 = none: a frame of such a syllable is never labelled the same.

    Returns
    -------
    xarray.Dataset
        By ``certainty_bin`` (lower edge; ``certainty_bin_stop``, the upper one): ``n_frames``,
        ``mean_certainty`` and ``same_share``, the share of them with the matched label; NaN for
        bins without frames. Attributes over all bins: ``n_frames``, ``mean_certainty``,
        ``same_share``, and ``error``, the expected calibration error: the mean over frames of
        the distance between ``mean_certainty`` and ``same_share`` of their bin (Naeini et al.
        2015; Guo et al. 2017).
    """
    n_bins = len(certainty)
    frames = by_certainty.sum((1, 2))
    other = matched[: by_certainty.shape[1]]
    # The table has room for the syllables of frames of known certainty only.
    rows = np.flatnonzero((other >= 0) & (other < by_certainty.shape[2]))
    same = by_certainty[:, rows, other[rows]].sum(1)
    with np.errstate(invalid="ignore"):
        said, true = certainty / frames, same / frames
    total = frames.sum()
    error = np.nansum(np.abs(said - true) * frames) / total if total else np.nan
    attrs: dict[str, Any] = {
        "n_frames": int(total),
        "mean_certainty": float(certainty.sum() / total) if total else np.nan,
        "same_share": float(same.sum() / total) if total else np.nan,
        "error": float(error),
    }
    values = {"n_frames": frames, "mean_certainty": said, "same_share": true}
    edges = np.arange(n_bins + 1) / n_bins
    return xr.Dataset(
        {name: ("certainty_bin", column) for name, column in values.items()},
        {"certainty_bin": edges[:-1], "certainty_bin_stop": ("certainty_bin", edges[1:])},
        attrs,
    )
