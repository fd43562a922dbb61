"""Certainty of the label of every frame: its posterior probability in the uncut session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kpms_zarr.compute.kernels.hmm import HmmTables, window
from kpms_zarr.compute.kernels.marginals import label_marginals
from kpms_zarr.compute.sampler.chain import NO_STATE, ChainIndex
from kpms_zarr.compute.sampler.draws import AveragedLabels
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape, tiles
from kpms_zarr.compute.sampler.stream import Pipeline, gather_labels, gather_latent, pad, run_tasks
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters, on_device, tables_of
from kpms_zarr.store.run_lengths import run_starts

STEPS = 256
"""Certainty is rounded to multiples of 1 / 256: exact in float16, and it compresses well."""

_UNKNOWN = -1
_TOLERANCE = 1e-4
"""What a segment was given may differ by so much, in total variation of the posterior at its
border, from what its neighbour says in the end: far less than what is rounded."""

_PASSES_AT_ONCE = 8
_GROUP_FRAMES = 1_000_000
_GROUP_TILES = 4
_ROWS = 1024


@partial(jax.jit, static_argnames=("lags", "finds_best"))
def certainty_of_tile(
    tables: HmmTables,
    x: jax.Array,
    z: jax.Array,
    before: jax.Array,
    after: jax.Array,
    length: jax.Array,
    *,
    lags: int,
    finds_best: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Certainty of a tile, and the messages of its segments to their neighbours.

    Parameters
    ----------
    x : (segment, lag + frame, latent)
    z : (segment, frame) int32
    before, after : (segment, state)
        What the neighbours say (see :func:`label_marginals`).
    length : (segment,) int32
    finds_best : bool
        Of the most probable labels instead of ``z``.

    Returns
    -------
    certainty : (segment, frame) int16
        In steps of 1 / 256; -1 = not a number.
    label : (segment, frame) int16
    predicted, message : (segment, state)
    """
    windows = window(x.transpose(1, 2, 0), lags)
    found = label_marginals(tables, windows, z.T, before.T, after.T, length, finds_best=finds_best)
    steps = jnp.round(found.certainty * STEPS)
    steps = jnp.where(jnp.isnan(steps), _UNKNOWN, steps).astype(jnp.int16)
    return steps.T, found.label.astype(jnp.int16).T, found.predicted.T, found.message.T


class SegmentList(NamedTuple):
    """All segments of some sessions, one behind the other.

    Attributes
    ----------
    is_first, is_last : ndarray, (segment,) bool
        Whether it begins or ends its session.
    begin : ndarray, (segment,) int64
        Where its frames lie among those of all.
    n_frames : int
        Of a segment that does not end its session.
    """

    tile: Tile
    is_first: np.ndarray
    is_last: np.ndarray
    begin: np.ndarray
    n_frames: int

    def rows(self, tile: Tile) -> np.ndarray:
        """Indices of the segments of a tile."""
        first = np.searchsorted(self.tile.session, tile.session)
        return first + (tile.start - self.tile.start[first]) // self.n_frames


class CertaintyCounts:
    """Mean certainty by syllable, of frames that are counted as they are written."""

    def __init__(self, n_states: int) -> None:
        self._n_states = n_states
        self._total = np.zeros(n_states, np.int64)
        self._number = np.zeros(n_states, np.int64)

    def add(self, syllable: np.ndarray, certainty: np.ndarray) -> None:
        """Count some frames, both (frame,)."""
        is_known = (syllable >= 0) & np.isfinite(certainty)
        steps = np.rint(certainty[is_known].astype(np.float64) * STEPS).astype(np.int64)
        number = np.bincount(syllable[is_known], minlength=self._n_states)
        # Sums of whole numbers below 2^53: exact in any order.
        total = np.bincount(syllable[is_known], steps, minlength=self._n_states)
        self._number += number
        self._total += total.astype(np.int64)

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Certainties by syllable, in steps, and frames: (state,) int64 each."""
        return self._total, self._number

    def add_sums(self, total: np.ndarray, number: np.ndarray) -> None:
        """Add what :attr:`sums` gave elsewhere."""
        self._total = self._total + total
        self._number = self._number + number

    @property
    def mean(self) -> np.ndarray:
        """Mean certainty by syllable, (state,); NaN for those that do not occur."""
        number = np.where(self._number, self._number, 1)
        return np.where(self._number, self._total / number / STEPS, np.nan)


class PublishedCertainty(Protocol):
    """Certainty of published labels, read session after session and counted as it is written."""

    @property
    def mean(self) -> np.ndarray:
        """See :class:`CertaintyCounts`."""
        ...

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`CertaintyCounts`."""
        ...

    def add(self, syllable: np.ndarray, certainty: np.ndarray) -> None:
        """See :class:`CertaintyCounts`."""
        ...

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield what is published of each session: arrays (frame,) by name, states as labels."""
        ...


class AveragedCertainty(CertaintyCounts):
    """Share of the draws of a chain that have its averaged label, session after session.

    It is the posterior probability averaged over the sweeps that were kept: with parameters and
    latent pose summed out as far as the chain has moved in them.

    Parameters
    ----------
    labels : AveragedLabels
    n_states : int
    """

    def __init__(self, labels: AveragedLabels, n_states: int) -> None:
        super().__init__(n_states)
        self._labels = labels

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield what is published of each session: arrays (frame,) by name, states as labels."""
        for row in range(len(self._labels.index.sessions)):
            parts = [
                (in_steps(part.share), part.second, in_steps(part.second_share))
                for part in self._labels.of_session(row)
            ]
            names = ("certainty", "second_syllable", "second_certainty")
            arrays = (np.concatenate(values) for values in zip(*parts, strict=True))
            yield dict(zip(names, arrays, strict=True))


def in_steps(share: np.ndarray) -> np.ndarray:
    """Round probabilities to multiples of 1 / 256, as float16."""
    return (np.rint(share * STEPS) / STEPS).astype(np.float16)


class LabelCertainty(CertaintyCounts):
    """Certainty of the labels of a chain, session after session, and its mean by syllable.

    The certainty of a frame is p(z_t = its label | x, parameters), with the latent pose x of the
    whole session and all other labels summed out. Sessions are cut into segments at fixed places.
    All segments of some sessions run side by side, each given what its neighbours said in the
    pass before (at first nothing); those for which that has changed run again, until nothing
    does. That is message passing on a chain, which ends with the result of the uncut session; as a
    segment is longer than the past matters, two or three passes do. What was under way with what,
    and which sessions lie beside, changes nothing.

    Parameters
    ----------
    sweeper : Sweeper
        Of the chain; neither is changed.
    parameters : Parameters
        Those that the labels were drawn with.
    """

    _finds_best = False

    def __init__(self, sweeper: Sweeper, parameters: Parameters) -> None:
        self._chain, self._shape, self._dtype = sweeper.chain, sweeper.shape, sweeper.dtype
        super().__init__(sweeper.n_states)
        self._is_double = self._dtype == np.float64
        self._tables = on_device(tables_of(parameters), self._dtype)
        self._pipeline = Pipeline(sweeper.pipeline.n, on_less=sweeper.pipeline.on_less)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the ``certainty`` of each session: (frame,) float16, NaN where not known."""
        for rows in groups(self._chain.index, self._shape):
            for certainty, _ in self._of_group(rows):
                yield {"certainty": certainty}

    def _of_group(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield certainties and labels of each session, (frame,)."""
        index = self._chain.index
        segments = cut_in_order(index, rows, self._shape.n_frames)
        steps = np.full(int(segments.tile.length.sum()), _UNKNOWN, np.int16)
        labels = np.full(len(steps) if self._finds_best else 0, NO_STATE, np.int16)
        self._settle(segments, steps, labels)
        stop = np.cumsum(index.n_modelled[rows])
        for row, end in zip(rows, stop, strict=True):
            found = np.full(int(index.length[row]), np.nan, np.float16)
            modelled = slice(end - int(index.n_modelled[row]), end)
            of_session = steps[modelled]
            known = (of_session / np.float32(STEPS)).astype(np.float16)
            found[index.lags :] = np.where(of_session == _UNKNOWN, np.float16(np.nan), known)
            yield found, labels[modelled]

    def _settle(self, segments: SegmentList, steps: np.ndarray, labels: np.ndarray) -> None:
        """Run segments until no border changes; fills ``steps``, (frame of the segments,), and
        where they are wanted, ``labels``."""
        n = len(segments.tile.length)
        borders = _Messages(segments, self._n_states, self._dtype)
        is_open, n_passes = np.ones(n, bool), 0
        while is_open.any():
            which = np.flatnonzero(is_open)
            self._pass(segments, which, borders, steps, labels)
            n_passes += 1
            # Where the past matters for long, one after the other: the fewest in all.
            is_open = borders.open(which, one_by_one=n_passes >= _PASSES_AT_ONCE)

    def _pass(
        self,
        segments: SegmentList,
        which: np.ndarray,
        borders: _Messages,
        steps: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """Run some of the segments once, all with the messages of the pass before."""
        every = segments.tile
        chosen = Tile(every.session[which], every.start[which], every.length[which])
        tasks = [Task(False, tile, 0) for tile in tiles(chosen, self._shape)]
        borders.take(which)
        update = partial(self._update, segments=segments, borders=borders)
        results = run_tasks(update, tasks, self._pipeline, is_double=self._is_double)
        with closing(results):
            for task, (certainty, label, predicted, message) in results:
                rows = segments.rows(task.tile)
                borders.predicted[rows] = predicted[: len(rows)]
                borders.message[rows] = message[: len(rows)]
                length = task.tile.length
                for lane, (begin, n) in enumerate(zip(segments.begin[rows], length, strict=True)):
                    steps[begin : begin + n] = certainty[lane, :n]
                    if self._finds_best:
                        labels[begin : begin + n] = label[lane, :n]

    def _update(
        self, task: Task, *, segments: SegmentList, borders: _Messages
    ) -> tuple[np.ndarray, ...]:
        tile, shape, rows = task.tile, self._shape, segments.rows(task.tile)
        found = certainty_of_tile(
            self._tables,
            gather_latent(self._chain, tile, shape),
            gather_labels(self._chain, tile, shape),
            pad(borders.before[rows], shape, 1),
            pad(borders.after[rows], shape, 1),
            pad(tile.length.astype(np.int32), shape, 0),
            lags=self._chain.index.lags,
            finds_best=self._finds_best,
        )
        return tuple(np.asarray(part) for part in jax.block_until_ready(found))


class BestLabels(LabelCertainty):
    """Most probable label of every frame given latent pose and parameters, session after session.

    argmax p(z_t | x, parameters), all other labels summed out: what many draws with these
    parameters would have most often. The labels of the chain play no part.
    """

    _finds_best = True

    def of_sessions(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each session and its labels, (frame,) int16; -1 in the first ``lags`` frames."""
        index = self._chain.index
        for rows in groups(index, self._shape):
            for row, (_, label) in zip(rows, self._of_group(rows), strict=True):
                found = np.full(int(index.length[row]), NO_STATE, np.int16)
                found[index.lags :] = label
                yield int(row), found


class _Messages:
    """Messages between segments: (segment, state) each, segments in order.

    Attributes
    ----------
    before, after : ndarray
        What each segment was last given.
    predicted, message : ndarray
        What it then said to the right and to the left.
    """

    def __init__(self, segments: SegmentList, n_states: int, dtype: np.dtype) -> None:
        shape = (len(segments.tile.length), n_states)
        self._is_first, self._is_last = segments.is_first, segments.is_last
        self.before, self.after = np.full(shape, 1 / n_states, dtype), np.ones(shape, dtype)
        self.predicted, self.message = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self._forward, self._backward = np.zeros(shape[0], bool), np.zeros(shape[0], bool)
        self._is_new = True

    def take(self, which: np.ndarray) -> None:
        """Give segments the present messages of their neighbours; uniform ones at first."""
        if self._is_new:
            self._is_new = False
            return
        right, left = which[~self._is_first[which]], which[~self._is_last[which]]
        self.before[right] = self.predicted[right - 1]
        self.after[left] = self.message[left + 1]

    def open(self, ran: np.ndarray, *, one_by_one: bool) -> np.ndarray:
        """Mask of the segments whose messages have changed since they were run: (segment,).

        Parameters
        ----------
        ran : ndarray
            Those that ran since the last call.
        one_by_one : bool
            Of each session only the first and the last.
        """
        rights = np.unique(np.concatenate([ran, ran + 1]))
        rights = rights[rights < len(self._is_first)]
        rights = rights[~self._is_first[rights]]
        for start in range(0, len(rights), _ROWS):
            right = rights[start : start + _ROWS]
            left = right - 1
            self._forward[right] = self._differs(
                self.before[right], self.predicted[left], self.message[right]
            )
            self._backward[left] = self._differs(
                self.after[left], self.message[right], self.predicted[left]
            )
        forward, backward = self._forward, self._backward
        if one_by_one:
            forward = first_of_each(forward, self._is_first)
            backward = first_of_each(backward[::-1], self._is_last[::-1])[::-1]
        return forward | backward

    @staticmethod
    def _differs(received: np.ndarray, now: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether the posterior at a border, a product of both sides, changes with one of them.

        It cannot change by more at any frame behind, as the rest of the chain is the same.
        """
        was, found = (side.astype(np.float64) * other for side in (received, now))
        was /= was.sum(1, keepdims=True)
        found /= found.sum(1, keepdims=True)
        return np.abs(was - found).sum(1) / 2 > _TOLERANCE


def first_of_each(is_open: np.ndarray, is_start: np.ndarray) -> np.ndarray:
    """The first open segment of each session; ``is_start``: where sessions begin."""
    which = np.flatnonzero(is_open)
    session = np.cumsum(is_start)[which]
    kept = np.zeros_like(is_open)
    kept[which[run_starts(session)]] = True
    return kept


def cut_in_order(index: ChainIndex, rows: np.ndarray, n_frames: int) -> SegmentList:
    """Segments of some sessions, from their first label on; only the last of each is shorter."""
    n_modelled = index.n_modelled[rows]
    n_segments = -(-n_modelled // n_frames)
    session = np.repeat(rows, n_segments)
    rank = np.arange(len(session)) - np.repeat(np.cumsum(n_segments) - n_segments, n_segments)
    start = rank * n_frames
    length = np.minimum(n_frames, np.repeat(n_modelled, n_segments) - start)
    is_last = rank == np.repeat(n_segments, n_segments) - 1
    begin = np.cumsum(length) - length
    return SegmentList(
        Tile(session, start + index.lags, length), rank == 0, is_last, begin, n_frames
    )


def groups(index: ChainIndex, shape: TileShape) -> list[np.ndarray]:
    """Sessions that are worked on together: a million frames or a few tiles, or a single one."""
    most = max(_GROUP_FRAMES, _GROUP_TILES * shape.n_segments * shape.n_frames)
    groups: list[list[int]] = []
    held = 0
    for row, n_frames in enumerate(index.length.tolist()):
        if not groups or held + n_frames > most:
            groups.append([])
            held = 0
        groups[-1].append(row)
        held += n_frames
    return [np.array(rows, np.int64) for rows in groups]


def held_bytes(index: ChainIndex, shape: TileShape, n_states: int, precision: str) -> int:
    """Bytes held on the host while a chain is worked on, tiles in flight left out."""
    row = n_states * np.dtype(precision).itemsize
    most = 0
    for rows in groups(index, shape):
        n_segments = int((-(-index.n_modelled[rows] // shape.n_frames)).sum())
        # Borders and places of segments; certainty of the group, and of a session on its way out.
        longest = int(index.length[rows].max())
        n_bytes = n_segments * (4 * row + 64) + 2 * int(index.length[rows].sum()) + 12 * longest
        most = max(most, n_bytes)
    return most + 8 * _ROWS * n_states * 8


def synthetic_messages(shape: TileShape, n_states: int, dtype: np.dtype) -> tuple[Any, ...]:
    """Synthetic labels, messages and lengths, for a tile without data."""
    even = np.full((shape.n_segments, n_states), 1 / n_states, dtype)
    z = np.zeros((shape.n_segments, shape.n_frames), np.int32)
    return z, even, np.ones_like(even), np.full(shape.n_segments, shape.n_frames, np.int32)
