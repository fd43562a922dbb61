"""Labels of a version that is being written, as they will be published."""

from __future__ import annotations

import numpy as np

from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.store.model.models import LabelWriter


class WrittenLabels:
    """Labels of a version that has just been written, sessions end to end."""

    def __init__(self, writer: LabelWriter, lags: int) -> None:
        self._writer = writer
        self.index = ChainIndex.of(writer.sessions, lags)
        self._row = {session.name: row for row, session in enumerate(writer.sessions)}

    @property
    def syllable(self) -> WrittenLabels:
        return self

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.index.n_frames)
        first, parts = self.index.first, []
        low, high = np.searchsorted(first, [start, stop - 1], side="right") - 1
        for session in range(int(low), int(high) + 1):
            begin, length = int(first[session]), int(self.index.length[session])
            a, b = max(0, start - begin), min(length, stop - begin)
            row = self._row[self.index.sessions[session].name]
            parts.append(self._writer.read("syllable", row, a, b))
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
