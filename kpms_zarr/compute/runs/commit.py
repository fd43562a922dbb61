"""Commit a chain between two sweeps, and bring it back."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from kpms_zarr.compute.alignment.alignment import AlignmentSettings
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import WorkersUsed
from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.runs.course import sweeps_by_stage
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.runs.publish import Numbered, by_frequency
from kpms_zarr.compute.sampler.bouts import LabelCounts, count_labels
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex, Sized
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.compute.sampler.tracked import NoiseByConfidence
from kpms_zarr.compute.tracking.outliers import from_store, screen_of, to_attrs, to_store
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.model.checkpoints import Checkpoint, Checkpoints, write_rows
from kpms_zarr.store.study.settings import keypoint_columns, read_settings, subset_keypoints
from kpms_zarr.store.wording import as_typed

MINUTES = 5.0
"""A commit is made after so long at the latest."""


_BY_SHARD = "by shard"
"""How sums over frames are taken; fits of earlier versions took them over all sessions at once."""


class CommitRows(Protocol):
    """Frames of a chain that is committed, wherever they lie."""

    @property
    def sizes(self) -> Sized:
        """Sessions and dims of the chain."""
        ...

    @property
    def n_draws(self) -> int:
        """Draws of the labels that are kept so far."""
        ...

    @property
    def workers(self) -> WorkersUsed | None:
        """Workers that the frames lie with; None = with this process."""
        ...

    def count(self) -> LabelCounts:
        """Count the labels as they are."""
        ...

    def write(self, path: str, order: np.ndarray) -> int:
        """Write all frames to the commit at a path; returns bytes before compression.

        ``order``: states by frequency, (state,), in which they are numbered.
        """
        ...

    def committed(self, n_sweeps: int) -> None:
        """Take note that all was committed, and is what others would begin with."""
        ...


@dataclass(frozen=True)
class ChainRows:
    """Frames of a chain in this process.

    Attributes
    ----------
    place : ndarray, (session,), optional
        Row of each session of the chain in the commit (default: all sessions, in order).
    """

    root: access.Group
    chain: Chain
    n_states: int
    place: np.ndarray | None = None

    @property
    def sizes(self) -> Sized:
        """See :class:`CommitRows`."""
        return self.chain

    @property
    def n_draws(self) -> int:
        """See :class:`CommitRows`."""
        return 0 if self.chain.draws is None else self.chain.draws.n_kept

    @property
    def workers(self) -> WorkersUsed | None:
        """See :class:`CommitRows`."""
        return None

    def count(self) -> LabelCounts:
        """See :class:`CommitRows`."""
        return count_labels(self.chain, self.n_states)

    def write(self, path: str, order: np.ndarray) -> int:
        """See :class:`CommitRows`."""
        chain, n_draws = self.chain, self.n_draws
        numbered = Numbered(chain, order)
        sessions = chain.index.sessions
        place = np.arange(len(sessions)) if self.place is None else self.place
        first_of = dict(zip(place.tolist(), chain.index.first.tolist(), strict=True))

        def read(row: int, start: int, stop: int) -> tuple[np.ndarray, ...]:
            frames = slice(first_of[row] + start, first_of[row] + stop)
            draws = [chain.draws.read(frames.start, frames.stop)] if chain.draws and n_draws else []
            return numbered[frames], chain.local[frames], *draws

        rows = [
            replace(session, index=int(row)) for session, row in zip(sessions, place, strict=True)
        ]
        group = self.root[path]
        assert isinstance(group, access.Group)
        return write_rows(group, rows, read)

    def committed(self, n_sweeps: int) -> None:
        """See :class:`CommitRows`."""


@dataclass(kw_only=True)
class Committer:
    """Writer of commits, every so many sweeps or minutes.

    Attributes
    ----------
    hashes : dict of str to str
        Of the tracking files of the sessions.
    every : int
        Sweeps between two commits, at most.
    notes : list of str
        What was said so far.
    from_version : str or None
        Model that the fit went on from.
    committed : int or None
        Sweeps that are committed; None when nothing is yet.
    """

    checkpoints: Checkpoints
    rows: CommitRows
    preparation: Preparation
    config: FitConfig
    hashes: Mapping[str, str]
    every: int
    notes: list[str]
    from_version: str | None
    committed: int | None = None
    _when: float = field(default_factory=time.monotonic, init=False)

    def is_due(self, progress: ChainProgress) -> bool:
        """Whether enough sweeps or minutes have passed since the last commit."""
        n_new = progress.done - (-1 if self.committed is None else self.committed)
        return n_new >= self.every or (n_new > 0 and time.monotonic() - self._when > 60 * MINUTES)

    def commit(self, progress: ChainProgress) -> int | None:
        """Commit the state of the chain.

        Returns
        -------
        int or None
            Bytes before compression; None when that sweep is committed already.
        """
        if progress.done == self.committed:
            return None
        rows, preparation = self.rows, self.preparation
        order = by_frequency(rows.count())
        sessions = rows.sizes.index.sessions
        values, attrs = progress.to_store()
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        values |= {
            "state_number": number,
            "pose_loading": preparation.loading,
            "pose_mean": preparation.mean,
        }
        if preparation.screen is not None:
            values |= to_store(preparation.screen.model)
        n_bytes = self.checkpoints.commit(
            progress.done,
            n_sweeps_in_all=sum(sweeps_by_stage(self.config, progress.settling).values()),
            sessions=sessions,
            table=self._table(sessions),
            n_features=len(self._features()),
            dtype=self.config.precision,
            write=lambda path: rows.write(path, order),
            n_draws=rows.n_draws,
            values=values,
            traces=progress.trace.to_arrays(self.config.n_states),
            attrs={**attrs, **self._attrs()},
        )
        self.committed, self._when = progress.done, time.monotonic()
        rows.committed(progress.done)
        return n_bytes

    def _table(self, sessions: tuple[Session, ...]) -> dict[str, Any]:
        study = self.preparation.study
        text = {
            "keypoint": study.keypoints,
            "space": study.space,
            "source_hash": [self.hashes[session.name] for session in sessions],
            "feature": self._features(),
        }
        scale = np.array([self.preparation.scale[session.index] for session in sessions])
        return {**{k: np.asarray(v, dtype=object) for k, v in text.items()}, "scale": scale}

    def _features(self) -> list[str]:
        study, sizes = self.preparation.study, self.rows.sizes
        names = [f"latent {i}" for i in range(sizes.n_latent)]
        names += [f"centroid {axis}" for axis in study.space] + ["heading"]
        names += [f"noise scale {keypoint}" for keypoint in study.keypoints[: sizes.n_keypoints]]
        return names

    def _attrs(self) -> dict[str, Any]:
        preparation = self.preparation
        return {
            "config": self.config.to_dict(),
            "given": sorted(self.config.given),
            "step_variance": preparation.step_variance,
            "fix_heading": preparation.fix_heading,
            "is_turned": preparation.is_turned,
            **preparation.noise.to_attributes(),
            "sums": _BY_SHARD,
            "notes": list(self.notes),
            "from_version": self.from_version,
            "workers": {} if self.rows.workers is None else asdict(self.rows.workers),
            **to_attrs(None if preparation.screen is None else preparation.screen.model),
        }


def config_of(checkpoint: Checkpoint) -> FitConfig:
    """Settings of an unfinished fit; those of earlier releases took no keypoint for outlying,
    merged no states, and kept no draws."""
    earlier = {"outlier_scale": None, "merge_sweeps": 0, "average_sweeps": 1}
    settings = {**earlier, **checkpoint.attrs["config"]}
    return FitConfig.from_store(settings, checkpoint.attrs.get("given"))


def read_preparation(store: StoreLike, checkpoint: Checkpoint) -> tuple[FitConfig, Preparation]:
    """Read settings of an unfinished fit, and its preparation.

    Raises
    ------
    InputError
        When sessions of the fit are gone or not what they were.
    """
    config = config_of(checkpoint)
    root = access.open_group(store)
    sessions = _same_sessions(store, root, checkpoint)
    stored = read_settings(root)
    study = subset_keypoints(stored, config.use_keypoints) if config.use_keypoints else stored
    scale = {
        session.index: float(factor)
        for session, factor in zip(sessions, checkpoint.values["scale"], strict=True)
    }
    fix_heading = bool(checkpoint.attrs["fix_heading"])
    known = from_store(checkpoint.values, checkpoint.attrs)
    screen = None
    if known is not None:
        alignment = AlignmentSettings(known.confidence_threshold, fix_heading)
        screen = screen_of(store, study, alignment, known.scale, sessions=sessions, model=known)
    columns = keypoint_columns(stored, study.keypoints)
    reader = BlockReader(store, keypoints=columns, scale=scale, screen=screen)
    return config, Preparation(
        sessions,
        study,
        reader,
        None,
        scale,
        checkpoint.values["pose_loading"],
        checkpoint.values["pose_mean"],
        float(checkpoint.attrs["step_variance"]),
        fix_heading,
        bool(checkpoint.attrs["is_turned"]),
        NoiseByConfidence.from_attributes(checkpoint.attrs) or NoiseByConfidence.of(config),
        screen,
    )


def check_sums(checkpoint: Checkpoint, index: ChainIndex, store: StoreLike, how: str) -> None:
    """Refuse (InputError) an unfinished fit of an earlier version that would go on with other bits.

    ``how``: the call that begins it again.
    """
    if index.shard.max(initial=0) > 0 and checkpoint.attrs.get("sums") != _BY_SHARD:
        raise InputError(
            expected="an unfinished fit of this version",
            found="one of an earlier version, which added up its frames in another order",
            where=os.fspath(store),
            fix=f"begin it again, {how}, or end it with the version that began it",
        )


def source_hashes(root: access.Group) -> dict[str, str]:
    """Hash of the tracking file by session, "" where the store has none."""
    group = access.subgroup(root, layout.KEYPOINTS)
    assert group is not None
    sessions = access.sessions(root)
    hashes = np.asarray(group["source_hash"][:])  # type: ignore[index]
    return {session.name: str(hashes[session.index]) for session in sessions}


def _same_sessions(
    store: StoreLike, root: access.Group, checkpoint: Checkpoint
) -> tuple[Session, ...]:
    there = {session.name: session for session in access.require_sessions(root, str(store))}
    hashes = source_hashes(root)
    columns = (checkpoint.sessions, checkpoint.values["n_frames"], checkpoint.values["source_hash"])
    changed = [
        name
        for name, n_frames, was in zip(*columns, strict=True)
        if name not in there or there[name].n_frames != n_frames or hashes[name] != str(was)
    ]
    if changed:
        raise InputError(
            expected="the sessions that the fit was begun with",
            found=f"that these are gone or have other data now: {', '.join(changed[:10])}",
            where=str(store),
            fix="fit again with `overwrite=True`, or under another `model=`",
        )
    return tuple(there[name] for name in checkpoint.sessions)


def restore(chain: Chain, checkpoint: Checkpoint, config: FitConfig) -> ChainProgress:
    """Fill a chain with a commit, to the bit."""
    restore_rows(chain, checkpoint, config.n_states)
    return read_progress(checkpoint, count_labels(chain, config.n_states))


def read_progress(checkpoint: Checkpoint, counts: LabelCounts) -> ChainProgress:
    """State of a committed chain besides that of its frames; ``counts``: of its labels."""
    return ChainProgress.from_store(
        checkpoint.n_sweeps, checkpoint.values, checkpoint.attrs, checkpoint.traces, counts
    )


def restore_rows(chain: Chain, checkpoint: Checkpoint, n_states: int) -> None:
    """Fill a chain, of all sessions of a commit or of some, with their frames."""
    number = checkpoint.values["state_number"].astype(np.int64)
    state = np.full(n_states + 1, NO_STATE, np.int16)
    state[number] = np.arange(n_states, dtype=np.int16)
    lags = chain.index.lags
    place = {name: row for row, name in enumerate(checkpoint.sessions)}
    first_of = {
        place[s.name]: f for s, f in zip(chain.index.sessions, chain.index.first, strict=True)
    }
    rows = [replace(session, index=place[session.name]) for session in chain.index.sessions]
    for block in iter_blocks(rows, LABEL_FRAMES_PER_CHUNK):
        syllable, local, *draws = checkpoint.read(block.session, block.start, block.stop)
        labels = state[syllable]
        labels[: max(0, lags - block.start)] = NO_STATE
        first = int(first_of[block.session])
        frames = slice(first + block.start, first + block.stop)
        chain.syllable[frames] = labels
        chain.local[frames] = local
        if draws and chain.draws is not None:
            chain.draws.write(frames.start, draws[0])
            chain.draws.n_kept = draws[0].shape[1]


def check_same(config: FitConfig, requested: FitConfig | None) -> None:
    """Refuse (InputError) given settings that differ from those that a fit was begun with."""
    before, now = config.to_dict(), (requested or FitConfig()).to_dict()
    problems = [
        Problem(
            f"{as_typed(before[name])}, as in the fit that is resumed",
            as_typed(now[name]),
            f"`{name}=`",
            "leave it out, or begin again with `overwrite=True`",
        )
        for name in now
        if requested is not None and name in requested.given and now[name] != before[name]
    ]
    if problems:
        raise InputError.of(problems)
