"""Levels of detail of published labels: the commonest syllable of bins of 16, 64, ... frames.

Labels are names, not amounts: the mean of syllables 2 and 8 is not syllable 5. Every level counts
frames, not bins of the level below, so that a syllable of many short bouts is not lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate, is_consolidated
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.schema import LEVEL_FRAMES
from kpms_zarr.store.model.models import labels_path, make_group
from kpms_zarr.store.run_lengths import run_starts
from kpms_zarr.store.shown import ShownAsTable

_MOST_BINS = 1024
"""Bins of the longest session at the coarsest level, about."""
_PIECE_FRAMES = LEVEL_FRAMES[-1]
_READERS = 4


@dataclass(frozen=True)
class LevelsSummary(ShownAsTable):
    """Result of :func:`build_levels`.

    Attributes
    ----------
    model, version : str
        Labels that the levels are of.
    frames_per_bin : tuple of int
        Of each level, finest first.
    has_built : bool
        False when the levels were there already.
    seconds : float
    """

    model: str
    version: str
    frames_per_bin: tuple[int, ...]
    has_built: bool
    seconds: float


class Modes(NamedTuple):
    """Consecutive bins of one session.

    Attributes
    ----------
    syllable : ndarray, (bin,) int16
        The commonest of the frames of the bin; of equals the lower number, -1 last.
    share : ndarray, (bin,) float16
        Share of the frames that have it.
    certainty : ndarray or None, (bin,) float16
        Mean over the frames in which it is known; NaN where it is not.
    """

    syllable: np.ndarray
    share: np.ndarray
    certainty: np.ndarray | None = None


FillSessions = Callable[[str, Sequence[range]], None]
"""Version of the labels, rows of sessions that share chunks -> nothing, once all levels of these
are written, wherever (:func:`fill_sessions`)."""


def build_levels(
    store: StoreLike,
    model: str,
    *,
    version: str | None = None,
    overwrite: bool = False,
    fill: FillSessions | None = None,
) -> LevelsSummary:
    """Store the levels of detail of published labels, as fits of this release do by themselves.

    One pass over the labels, which are not changed. What a killed process left is made anew.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).
    overwrite : bool
        Build them even when they are there, as after damage.
    fill : callable, optional
        See ``FillSessions`` (default: in this process).

    Returns
    -------
    LevelsSummary

    Raises
    ------
    InputError
        When there is no such model or version, or another process fits the model.
    OSError
        When nothing can be written there.
    """
    began = time.perf_counter()
    root = access.open_group(store, "r+")
    version = labels_path(store, model, version).rpartition("/")[2]
    with model_lock(root, store, model):
        has_built = write_levels(root, model, version, overwrite=overwrite, fill=fill)
    group = _finished(root, model, version)
    assert group is not None
    return LevelsSummary(
        model, version, frames_per_bin(group), has_built, time.perf_counter() - began
    )


def open_levels(store: StoreLike, model: str, version: str | None = None) -> xr.Dataset | None:
    """Levels of detail of a version of labels, lazily; None where the store has none.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).

    Returns
    -------
    xarray.Dataset or None
        ``syllable_16`` (session, bin_16), ``syllable_64`` (session, bin_64), ... and ``share_16``,
        ... with the sessions of the labels (see ``schema.LEVELS``).

    Raises
    ------
    InputError
        When there is no such model or version.
    """
    version = labels_path(store, model, version).rpartition("/")[2]
    if _finished(access.open_group(store), model, version) is None:
        return None
    return access.dataset(store, _path(model, version))


def frames_per_bin(levels: xr.Dataset | zarr.Group) -> tuple[int, ...]:
    """Frames in a bin of each level that there is, finest first."""
    return tuple(n for n in LEVEL_FRAMES if f"syllable_{n}" in levels)


def level_frames(n_frames: int) -> tuple[int, ...]:
    """Frames in a bin of each level that labels have, finest first.

    Parameters
    ----------
    n_frames : int
        Of the longest session.
    """
    n_levels = 1 + sum(n_frames > n * _MOST_BINS for n in LEVEL_FRAMES[:-1])
    return LEVEL_FRAMES[:n_levels]


def bin_modes(syllable: np.ndarray, frames: int, certainty: np.ndarray | None = None) -> Modes:
    """Bins of consecutive frames of one session, the first of which begins a bin.

    Parameters
    ----------
    syllable : ndarray, (frame,) int
    frames : int
        In a bin; the last may have fewer.
    certainty : ndarray, optional, (frame,) float
    """
    counts = _coarser(_counts(syllable, frames), frames)
    return _modes(counts, frames, len(syllable), _sums(certainty, frames))


def write_levels(
    root: zarr.Group,
    model: str,
    version: str,
    *,
    overwrite: bool = False,
    fill: FillSessions | None = None,
) -> bool:
    """Store the levels of detail of a published version, for whoever holds the model.

    ``fill``: see ``FillSessions``.

    Returns
    -------
    bool
        Whether they were written; False when they were there already.
    """
    path = _path(model, version)
    if _finished(root, model, version) is not None and not overwrite:
        if not is_consolidated(root, path):
            consolidate(root, [layout.model_path(model)])
        return False
    labels = _labels(root, model, version)
    above = make_group(root, f"{layout.model_path(model)}/levels", "levels")
    access.delete_group(root, path)
    group = above.create_group(version)
    every = _make_room(group, labels)
    if fill is None:
        for rows in every:
            fill_sessions(root, model, version, rows)
    else:
        fill(version, every)
    # Without it, they are not there.
    attributes.write(group, {"labels": version, **provenance("levels")})
    consolidate(root, [layout.model_path(model)])
    return True


def _labels(root: zarr.Group, model: str, version: str) -> zarr.Group:
    labels = access.subgroup(root, f"{layout.model_path(model)}/labels/{version}")
    assert labels is not None
    return labels


def _path(model: str, version: str) -> str:
    return f"{layout.model_path(model)}/levels/{version}"


def _finished(root: zarr.Group, model: str, version: str) -> zarr.Group | None:
    group = access.subgroup(root, _path(model, version))
    return group if group is not None and "provenance" in group.attrs else None


def _make_room(group: zarr.Group, labels: zarr.Group) -> list[range]:
    """Create the arrays of all levels; returns rows of sessions that share chunks."""
    table = {name: np.asarray(labels[name][:]) for name in ("session", "n_frames", "fps")}  # type: ignore[index]
    n_frames = table["n_frames"].astype(int).tolist()
    levels = level_frames(max(n_frames, default=0))
    sizes = {f"bin_{n}": max(1, -(-max(n_frames, default=0) // n)) for n in levels}
    sizes["session"] = len(n_frames)
    layout.create_arrays(group, "levels", sizes, (*table, *_names(labels, levels)))
    for name, values in table.items():
        group[name][...] = values  # type: ignore[index]
    step = layout.level_sessions(max(n_frames, default=0))
    return [range(i, min(i + step, len(n_frames))) for i in range(0, len(n_frames), step)]


def _kinds(labels: zarr.Group) -> tuple[str, ...]:
    return ("syllable", "share", *(["certainty"] if "certainty" in labels else []))


def _names(labels: zarr.Group, levels: Sequence[int]) -> list[str]:
    return [f"{kind}_{n}" for n in levels for kind in _kinds(labels)]


def fill_sessions(root: zarr.Group, model: str, version: str, rows: range) -> None:
    """Fill all levels of some sessions, which share their chunks with no others.

    Parameters
    ----------
    root : zarr.Group
        The store, writable.
    rows : range
        Of the sessions of the labels.
    """
    labels, group = _labels(root, model, version), access.subgroup(root, _path(model, version))
    assert group is not None
    n_frames = np.asarray(labels["n_frames"][:]).astype(int).tolist()  # type: ignore[index]
    levels = level_frames(max(n_frames, default=0))
    arrays = {name: group[name] for name in _names(labels, levels)}
    filled = {
        name: np.full((len(rows), a.shape[1]), a.fill_value, a.dtype)  # type: ignore[union-attr]
        for name, a in arrays.items()
    }

    def fill(row: int) -> None:
        for n, start, modes in _session_levels(labels, row, n_frames[row], levels):
            for kind in _kinds(labels):
                found = getattr(modes, kind)
                filled[f"{kind}_{n}"][row - rows.start, start : start + len(found)] = found

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(fill, rows))
    for name, array in arrays.items():
        array[rows.start : rows.stop] = filled[name]  # type: ignore[index]


def _session_levels(
    labels: zarr.Group, row: int, n_frames: int, levels: Sequence[int]
) -> Iterator[tuple[int, int, Modes]]:
    """Yield the levels of a session (frames per bin, first bin, bins), in million frames."""
    has_certainty = "certainty" in labels
    for start in range(0, n_frames, _PIECE_FRAMES):
        stop = min(start + _PIECE_FRAMES, n_frames)
        syllable = np.asarray(labels["syllable"][row, start:stop])  # type: ignore[index]
        certainty = np.asarray(labels["certainty"][row, start:stop]) if has_certainty else None  # type: ignore[index]
        counts, sums = _counts(syllable, levels[0]), _sums(certainty, levels[0])
        for below, n in zip((levels[0], *levels), levels, strict=False):
            counts = _coarser(counts, n)
            sums = _added(sums, n // below)
            yield n, start // n, _modes(counts, n, stop - start, sums)


class _BinCounts(NamedTuple):
    """Counts of frames by label: one entry for a bin and a label, or several."""

    start: np.ndarray  # (entry,) a frame of the bin
    rank: np.ndarray  # (entry,) the label; -1 comes after all others
    number: np.ndarray  # (entry,)
    width: int  # ranks that there can be


def _counts(syllable: np.ndarray, frames: int) -> _BinCounts:
    """Count the runs of labels, cut at the edges of bins."""
    start = run_starts(syllable, slice(None, None, frames))
    width = int(syllable.max(initial=-1)) + 2
    rank = syllable[start].astype(np.int64) % width
    return _BinCounts(start, rank, np.diff(start, append=len(syllable)), width)


def _coarser(counts: _BinCounts, frames: int) -> _BinCounts:
    """Merge counts to one entry for each bin of so many frames and each of its labels."""
    # One number for bin, rank and count is sorted many times as fast as three.
    bits = int(frames).bit_length()
    place = (counts.start // frames) * counts.width + counts.rank
    key = (place << bits) | counts.number
    key.sort()
    place, number = key >> bits, key & ((1 << bits) - 1)
    first = run_starts(place)
    bins = place[first] // counts.width
    rank = place[first] - bins * counts.width
    return _BinCounts(bins * frames, rank, np.add.reduceat(number, first), counts.width)


def _modes(counts: _BinCounts, frames: int, n_frames: int, sums: _Sums | None) -> Modes:
    """The commonest label of each bin, of counts in order."""
    first = run_starts(counts.start)
    width = counts.width
    top = np.maximum.reduceat(counts.number * width + (width - 1 - counts.rank), first)
    rank = width - 1 - top % width
    syllable = np.where(rank == width - 1, -1, rank).astype(np.int16)
    length = np.minimum(frames, n_frames - counts.start[first])
    share = (top // width / length).astype(np.float16)
    if sums is None:
        return Modes(syllable, share)
    with np.errstate(invalid="ignore"):
        return Modes(syllable, share, (sums.total / sums.number).astype(np.float16))


class _Sums(NamedTuple):
    """Certainties of the frames of bins."""

    total: np.ndarray  # (bin,)
    number: np.ndarray  # (bin,) frames in which it is known


def _sums(certainty: np.ndarray | None, frames: int) -> _Sums | None:
    if certainty is None:
        return None
    values = certainty.astype(np.float32)
    is_known = np.isfinite(values)
    every = np.arange(0, len(values), frames)
    total = np.add.reduceat(np.where(is_known, values, 0), every)
    return _Sums(total.astype(np.float64), np.add.reduceat(is_known.astype(np.int64), every))


def _added(sums: _Sums | None, n_bins: int) -> _Sums | None:
    if sums is None:
        return None
    every = np.arange(0, len(sums.total), n_bins)
    return _Sums(*(np.add.reduceat(column, every) for column in sums))
