"""Labels of a few frames kept from sweep to sweep, to see how far they have settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex

_MOST_WINDOWS = 8
_FRAMES = 600
_KEPT = 40
_PARTS = 100


@dataclass
class LabelWindows:
    """Labels of some frames of some sessions after the last few sweeps.

    Which frames and which sweeps depends on the sessions and on the length of the fit alone, so
    that a fit that was interrupted ends with the same.

    Attributes
    ----------
    session : tuple of str, (window,)
    start, length : ndarray, (window,) int64
        Frames of the session.
    sweep : list of int
        Sweeps done when the labels were kept.
    syllable : list of ndarray, (window, window_frame) int16
        States of the chain; -1 = none, as beyond the length of a window.
    """

    session: tuple[str, ...]
    start: np.ndarray
    length: np.ndarray
    sweep: list[int] = field(default_factory=list)
    syllable: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, index: ChainIndex) -> LabelWindows:
        """At most 8 sessions spread over all of them, 600 frames in the middle of each."""
        modelled = index.n_modelled
        rows = np.flatnonzero(modelled >= _FRAMES)
        rows = rows if len(rows) else np.flatnonzero(modelled > 0)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _MOST_WINDOWS).round().astype(int))]
        length = np.minimum(modelled[rows], _FRAMES)
        start = index.lags + (modelled[rows] - length) // 2
        return cls(tuple(index.sessions[row].name for row in rows), start, length)

    def read(self, chain: Chain) -> np.ndarray:
        """Labels of the windows of those sessions that a chain has: (window, window_frame) int16.

        -1 = none, as of other sessions.
        """
        place = dict(zip((s.name for s in chain.index.sessions), chain.index.first, strict=True))
        found = np.full((len(self.session), int(self.length.max(initial=0))), NO_STATE, np.int16)
        for row, name in enumerate(self.session):
            if name in place:
                first, length = int(place[name] + self.start[row]), int(self.length[row])
                found[row, :length] = chain.syllable[first : first + length]
        return found

    @staticmethod
    def is_due(n_done: int, n_sweeps: int) -> bool:
        """Whether labels are kept after sweep ``n_done`` of ``n_sweeps``.

        Of a fit of 100 sweeps or less every one is, of a longer one every second, third, ..., the
        last one always.
        """
        return (n_sweeps - n_done) % max(1, n_sweeps // _PARTS) == 0

    def keep(self, labels: np.ndarray, n_done: int) -> None:
        """Keep labels as :meth:`read` gives them; the last 40 of a fit stay."""
        self.sweep = [*self.sweep, n_done][-_KEPT:]
        self.syllable = [*self.syllable, labels][-_KEPT:]

    def to_store(self, number: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Variables of the store (``schema.WINDOWS``); none while nothing is kept.

        ``number``: of each state as a syllable, (state,); default: states as in the chain.
        """
        if not self.sweep:
            return {}
        syllable = np.stack(self.syllable)
        if number is not None:
            syllable = np.append(number, NO_STATE)[syllable].astype(np.int16)
        return {
            "window_syllable": syllable,
            "window_sweep": np.asarray(self.sweep, np.int64),
            "window_session": np.asarray(self.session, dtype=object),
            "window_start": self.start,
            "window_length": self.length,
        }

    @classmethod
    def from_store(cls, values: Mapping[str, np.ndarray]) -> LabelWindows | None:
        """Read what :meth:`to_store` wrote; None where there was nothing."""
        if "window_syllable" not in values:
            return None
        return cls(
            tuple(str(name) for name in values["window_session"]),
            values["window_start"],
            values["window_length"],
            values["window_sweep"].tolist(),
            list(values["window_syllable"]),
        )
