"""A uniform random sample of the bouts of each syllable, of bounded size, in one pass."""

from __future__ import annotations

import hashlib

import numpy as np

from kpms_zarr.compute.analysis.onsets.whole_windows import Onsets

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class BoutSample:
    """Keeps the bouts of each syllable that have the smallest random numbers.

    Each bout has a number that follows from the seed, the name of its session and its onset
    (splitmix64 of Steele, Lea and Flood 2014, OOPSLA). Those with the ``size`` smallest ones are a
    uniform sample without replacement (bottom-k sketch, Cohen and Kaplan 2007, PODC), which does
    not depend on the order of sessions or on blocks. Memory is that of at most twice ``size``
    bouts of each syllable, whatever the number of frames.

    Parameters
    ----------
    n_states : int
    size : int
        Bouts of each syllable that are kept.
    seed : int

    Attributes
    ----------
    n_seen : ndarray, (state,) int64
        Bouts that were added.
    """

    def __init__(self, n_states: int, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self.n_seen = np.zeros(n_states, np.int64)
        self._limit = np.full(n_states, np.iinfo(np.uint64).max)
        self._key = np.zeros(0, np.uint64)
        self._rows = np.zeros((0, 4), np.int64)

    def add(self, session: str, row: int, onsets: Onsets) -> None:
        """Add bouts of a session.

        Parameters
        ----------
        session : str
            Its name.
        row : int
            Number by which it is known in the result.
        onsets : Onsets
        """
        self.n_seen += np.bincount(onsets.syllable, minlength=len(self.n_seen))
        key = random_keys(self._seed, session, onsets.start)
        small = np.flatnonzero(key <= self._limit[onsets.syllable])
        rows = np.stack([onsets.syllable, np.full(len(key), row), onsets.start, onsets.stop], 1)
        self._key = np.concatenate([self._key, key[small]])
        self._rows = np.concatenate([self._rows, rows[small]])
        if len(self._key) > 2 * self._size * len(self.n_seen):
            self._shrink()

    def sample(self) -> np.ndarray:
        """Bouts by syllable, those of one in random order.

        Returns
        -------
        ndarray, (bout, 4) int64
            Syllable, number of the session, onset, and the frame after the bout.
        """
        self._shrink()
        return self._rows

    def _shrink(self) -> None:
        order = np.lexsort((self._key, self._rows[:, 0]))
        key, rows = self._key[order], self._rows[order]
        first = np.searchsorted(rows[:, 0], np.arange(len(self.n_seen)))
        rank = np.arange(len(key)) - first[rows[:, 0]]
        last = rank == self._size - 1
        self._limit[rows[last, 0]] = key[last]
        self._key, self._rows = key[rank < self._size], rows[rank < self._size]


def random_keys(seed: int, name: str, number: np.ndarray) -> np.ndarray:
    """Random numbers, (entry,) uint64, that follow from a seed, a name and numbers (entry,)."""
    text = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    value = np.array([int.from_bytes(text, "little")], np.uint64)
    with np.errstate(over="ignore"):
        value = value + (number.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        for shift, factor in zip((30, 27), _MIX, strict=True):
            value = (value ^ (value >> np.uint64(shift))) * factor
    return np.asarray(value ^ (value >> np.uint64(31)))
