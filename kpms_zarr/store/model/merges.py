"""Which syllables of an earlier version merged labels have, as these say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model.models import open_labels


@dataclass(frozen=True)
class MergeRecord:
    """From which version labels were merged, and what its syllables are called now.

    Attributes
    ----------
    from_version : str
    number : ndarray, (state_before,) int64
        Syllable that each of that version has become.
    own : ndarray, (state_before,) int64
        A number for each, those that are gone included: a permutation of all.
    """

    from_version: str
    number: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, labels: xr.Dataset | zarr.Group) -> MergeRecord | None:
        """Read it from a version of labels; None for those that were not merged."""
        if "merged_syllable" not in labels:
            return None
        settings = provenance_of(dict(labels.attrs)).get("settings", {})
        columns = (
            np.asarray(labels[name][:], dtype=np.int64)  # type: ignore[index]
            for name in ("merged_syllable", "merged_state")
        )
        return cls(str(settings["from_version"]), *columns)

    def to_store(self) -> dict[str, np.ndarray]:
        """Variables of the labels (``schema.LABELS``)."""
        return {
            "merged_syllable": self.number.astype(np.int16),
            "merged_state": self.own.astype(np.int16),
        }

    def settings(self) -> dict[str, Any]:
        """What the provenance of the labels says of it."""
        return {"from_version": self.from_version}

    def members(self, syllable: int) -> tuple[int, ...]:
        """Syllables of the version before that are one now."""
        return tuple(int(one) for one in np.flatnonzero(self.number == syllable))


def unmerged(store: StoreLike, model: str, version: str) -> str:
    """Find the version that merged labels are of, through all merges; others are their own."""
    while (record := MergeRecord.of(open_labels(store, model, version))) is not None:
        version = record.from_version
    return version
