"""Readers of what views need of a model, block by block."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.names import hint, match
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK, LABEL_FRAMES_PER_CHUNK, USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.run_lengths import run_bounds

MAX_BLOCKS = 8
"""Blocks of frames that stand for a long recording, unless told otherwise."""

_MARGIN_SECONDS = 60.0
_READERS = 8


class MissingData(InputError):
    """A version that lacks the variables a view needs; other views still work."""


@dataclass(frozen=True)
class Bouts:
    """Runs of one syllable in one session.

    Attributes
    ----------
    start, stop : ndarray, (bout,) int
        Frames; ``stop`` is the first frame after the bout.
    syllable : ndarray, (bout,) int
        -1 = none.
    """

    start: np.ndarray
    stop: np.ndarray
    syllable: np.ndarray


@dataclass(frozen=True)
class FitStage:
    """Consecutive sweeps of one stage of a fit.

    Attributes
    ----------
    name : str
        ``"ar"``, ``"full"``, or "" in models of releases that had the AR stage only.
    start, stop : int
        Sweeps; ``stop`` is the first one after the stage.
    """

    name: str
    start: int
    stop: int

    @property
    def n_sweeps(self) -> int:
        """Number of sweeps."""
        return self.stop - self.start

    @property
    def label(self) -> str:
        """Name for a person; "" where there is none."""
        return {"ar": "AR stage", "": ""}.get(self.name, f"{self.name} stage")


def require(data: xr.Dataset, names: Iterable[str], store: StoreLike, what: str) -> None:
    """Check that a group has some variables.

    Raises
    ------
    MissingData
        With the names of those that it lacks.
    """
    missing = [name for name in names if name not in data.variables]
    if missing:
        raise MissingData(
            expected=", ".join(missing),
            found=f"a version of the {what} without",
            where=str(store),
            fix="fit a model with this release, which stores them; imported labels have none",
        )


def stages(data: xr.Dataset) -> tuple[FitStage, ...]:
    """Stages of a fit, in the order in which they ran.

    Parameters
    ----------
    data : Dataset
        Parameters and traces of a model; without ``trace_stage`` (sweep) all sweeps are one
        stage without a name.
    """
    n_sweeps = data.sizes.get("sweep", 0)
    if "trace_stage" not in data.variables:
        return (FitStage("", 0, n_sweeps),) if n_sweeps else ()
    if not n_sweeps:
        return ()
    names = [str(name) for name in data["trace_stage"].values]
    start = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return tuple(
        FitStage(names[i], i, stop) for i, stop in zip(start, [*start[1:], n_sweeps], strict=True)
    )


def label_sessions(
    labels: xr.Dataset, *, names: Sequence[str] | None = None, limit: int | None = None
) -> tuple[Session, ...]:
    """Sessions of a version of labels, in its order.

    Parameters
    ----------
    names : sequence of str, optional
        Only these, in this order.
    limit : int, optional
        At most so many.

    Raises
    ------
    InputError
        For names that are not sessions of the version.
    """
    table = zip(
        labels["session"].values, labels["n_frames"].values, labels["fps"].values, strict=True
    )
    found = {
        str(name): Session(str(name), row, int(n_frames), float(fps))
        for row, (name, n_frames, fps) in enumerate(table)
        if n_frames > 0
    }
    called = {name: match(name, list(found)) for name in names or ()}
    unknown = [name for name, known in called.items() if known is None]
    if unknown:
        raise InputError(
            expected=f"names among the labelled sessions, such as {next(iter(found), '-')}",
            found=", ".join(map(repr, unknown)),
            where="sessions",
            fix=hint(unknown[0], list(found))
            + "list them with open_labels(store, model).session.values",
        )
    chosen = (
        tuple(found.values())
        if names is None
        else tuple(found[str(called[name])] for name in names)
    )
    if not chosen[:limit]:
        raise InputError(
            expected="at least one session to show",
            found="none",
            where="sessions",
            fix="name sessions, or let max_sessions be 1 or more",
        )
    return chosen[:limit]


def used_states(labels: xr.Dataset) -> np.ndarray:
    """Syllables in use (at least ``USED_FRACTION`` of the frames), most frequent first.

    Parameters
    ----------
    labels : Dataset
        With ``frequency`` (state).

    Returns
    -------
    ndarray, (used,) int
    """
    frequency = np.nan_to_num(labels["frequency"].values)
    order = np.argsort(-frequency, kind="stable")
    return order[frequency[order] >= USED_FRACTION]


def overall_median(labels: xr.Dataset) -> float:
    """Median duration of all bouts, in ms; NaN without bouts.

    Parameters
    ----------
    labels : Dataset
        With ``duration_count`` (state, duration) and ``duration`` (duration) in ms, and perhaps
        the exact value as attribute ``median_duration_overall``.
    """
    if "median_duration_overall" in labels.attrs:
        return float(labels.attrs["median_duration_overall"])
    count = labels["duration_count"].sum("state").values
    total = int(count.sum())
    if total == 0:
        return float("nan")
    middle = np.searchsorted(np.cumsum(count), [(total - 1) // 2, total // 2], side="right")
    return float(labels["duration"].values[middle].mean())


def mode_bins(
    labels: xr.Dataset,
    session: Session,
    *,
    frames_per_bin: float,
    block_frames: int = LABEL_FRAMES_PER_CHUNK,
) -> np.ndarray:
    """Most frequent syllable of each time bin of a session, in one pass over its blocks.

    Labels are names, not amounts: the mean of syllables 2 and 8 is not syllable 5. Ties go to
    the lower number; -1 is chosen only where it leads.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame).
    frames_per_bin : float
        At least 1; frame ``f`` belongs to bin ``floor(f / frames_per_bin)``.
    block_frames : int
        Frames read at once; the result does not depend on it.

    Returns
    -------
    ndarray, (bin,) int
        Bins of the real frames only; the last may be shorter.
    """
    n_bins = int((session.n_frames - 1) // frames_per_bin) + 1
    count = np.zeros((n_bins, 1), dtype=np.int64)
    for where, syllable in label_blocks(labels, iter_blocks([session], block_frames)):
        start, block = where.start, syllable.astype(np.int64)
        bins = ((start + np.arange(len(block))) // frames_per_bin).astype(np.int64)
        first, width = bins[0], int(block.max()) + 2
        cell = (bins - first) * width + block + 1
        part = np.bincount(cell, minlength=(bins[-1] - first + 1) * width).reshape(-1, width)
        if width > count.shape[1]:
            count = np.pad(count, ((0, 0), (0, width - count.shape[1])))
        count[first : bins[-1] + 1, :width] += part
    best = np.roll(count, -1, axis=1).argmax(1)
    return np.where(best == count.shape[1] - 1, -1, best)


def mean_bins(
    labels: xr.Dataset,
    session: Session,
    *,
    frames_per_bin: float,
    block_frames: int = LABEL_FRAMES_PER_CHUNK,
) -> np.ndarray:
    """Mean certainty of each time bin of a session, in one pass over its blocks.

    Parameters
    ----------
    labels : Dataset
        With ``certainty`` (session, frame).
    frames_per_bin, block_frames
        See :func:`mode_bins`.

    Returns
    -------
    ndarray, (bin,) float64
        Of the frames in which it is known; NaN where it is not.
    """
    n_bins = int((session.n_frames - 1) // frames_per_bin) + 1
    total, number = np.zeros(n_bins), np.zeros(n_bins)
    for block in iter_blocks([session], block_frames):
        values = labels["certainty"][block.session, block.start : block.stop].values
        is_known = np.isfinite(values)
        bins = ((block.start + np.arange(len(values))) // frames_per_bin).astype(np.int64)
        inside = slice(bins[0], bins[-1] + 1)
        bins -= bins[0]
        total[inside] += np.bincount(bins, np.where(is_known, values, 0.0).astype(np.float64))
        number[inside] += np.bincount(bins, is_known)
    return np.divide(total, number, out=np.full(n_bins, np.nan), where=number > 0)


def first_bouts(labels: xr.Dataset, session: Session, *, seconds: float) -> Bouts:
    """Bouts that begin in the first seconds of a session, at full frame resolution.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame).
    seconds : float
        A bout that begins before and ends within a minute after is not cut.
    """
    n_frames = min(session.n_frames, int(np.ceil((seconds + _MARGIN_SECONDS) * session.fps)))
    syllable = labels["syllable"][session.index, :n_frames].values.astype(np.int64)
    start, stop = run_bounds(syllable)
    keep = start < seconds * session.fps
    return Bouts(start[keep], stop[keep], syllable[start[keep]])


def bout_certainty(labels: xr.Dataset, session: Session, bouts: Bouts) -> np.ndarray:
    """Mean certainty of some bouts of a session, which follow each other from its first frame on.

    Parameters
    ----------
    labels : Dataset
        With ``certainty`` (session, frame).

    Returns
    -------
    ndarray, (bout,) float64
        Of the frames in which it is known; NaN where it is not.
    """
    if not len(bouts.start):
        return np.zeros(0)
    values = labels["certainty"][session.index, : bouts.stop[-1]].values.astype(np.float64)
    is_known = np.isfinite(values)
    total = np.add.reduceat(np.where(is_known, values, 0.0), bouts.start)
    number = np.add.reduceat(is_known.astype(np.int64), bouts.start)
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)


def label_blocks(
    labels: xr.Dataset, blocks: Iterable[Block]
) -> Generator[tuple[Block, np.ndarray], None, None]:
    """Labels of some blocks in their order, the next few read meanwhile.

    Parameters
    ----------
    labels : Dataset
        With ``syllable`` (session, frame).
    blocks : iterable of Block
        Rows of it; may be stopped at any of them.

    Yields
    ------
    Block, ndarray (frame,) int16
    """

    def read(block: Block) -> np.ndarray:
        return np.asarray(labels["syllable"][block.session, block.start : block.stop].values)

    pool = ThreadPoolExecutor(_READERS)
    try:
        under_way: deque[tuple[Block, Future[np.ndarray]]] = deque()
        for block in blocks:
            under_way.append((block, pool.submit(read, block)))
            if len(under_way) > _READERS:
                done, found = under_way.popleft()
                yield done, found.result()
        for done, found in under_way:
            yield done, found.result()
    finally:
        pool.shutdown(cancel_futures=True)


def duration_bins(
    count: np.ndarray, center: np.ndarray, *, max_bins: int, shown: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bouts by duration in at most some bins, whole frames wide, common to all rows.

    Parameters
    ----------
    count : ndarray, (row, duration) int
    center : ndarray, (duration,)
        Durations in ms, a frame apart.
    shown : float
        Share of the bouts of each row that the bins hold at least, unless they are longer than
        the last of ``center``.

    Returns
    -------
    edges : ndarray, (bin + 1,)
        In ms.
    count : ndarray, (row, bin) int
    """
    width = float(center[1] - center[0]) if len(center) > 1 else float(center[0])
    reached = np.cumsum(count, axis=1) >= shown * count.sum(1, keepdims=True)
    n_shown = min(max(5, int(reached.argmax(1).max(initial=0)) + 1), len(center))
    step = -(-n_shown // max_bins)
    n_bins = -(-n_shown // step)
    padded = np.zeros((len(count), n_bins * step), dtype=np.int64)
    padded[:, : min(len(center), n_bins * step)] = count[:, : n_bins * step]
    edges = center[0] + width * (step * np.arange(n_bins + 1) - 0.5)
    return edges, padded.reshape(len(count), n_bins, step).sum(2)


def sampled(start: int, stop: int, max_blocks: int = MAX_BLOCKS) -> tuple[tuple[int, int], ...]:
    """Ranges of frames to read: all, or blocks at equal distances, the first and last included.

    Parameters
    ----------
    start, stop : int
        Frames.
    max_blocks : int
        2 or more.
    """
    first, last = start // FRAMES_PER_CHUNK, (stop - 1) // FRAMES_PER_CHUNK
    if last - first < max_blocks:
        return ((start, stop),)
    blocks = np.linspace(first, last, max_blocks).round().astype(int)
    return tuple(
        (max(start, int(block) * FRAMES_PER_CHUNK), min(stop, (int(block) + 1) * FRAMES_PER_CHUNK))
        for block in blocks
    )


def store_name(store: StoreLike) -> str:
    """Name of a store without the folders, the host or the options around it."""
    text = os.fspath(store).split("?")[0].split("::")[0].replace("\\", "/").rstrip("/")
    name = text.rsplit("/", 1)[-1]
    return name if name not in ("", ".", "..") else os.path.basename(os.path.abspath(text))
