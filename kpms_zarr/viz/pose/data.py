"""Latent scores of a study, sampled within bounds and counted by group."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.shared.grouping import groups_of

MAX_BLOCKS = 48
"""Blocks of 16,384 frames that are read for all groups together."""

MAX_GROUPS = 12

_READERS = 8
_OUTSIDE = 0.005  # Share of the frames beyond either end of an axis.


@dataclass(frozen=True)
class Scores:
    """Density of the latent scores of some groups, on common axes.

    Attributes
    ----------
    by : str
        Coordinate of the sessions that makes the groups; "" = one group of all.
    dims : tuple of (int, int)
        Latent dimensions across and upwards.
    edges : tuple of (ndarray, ndarray)
        Of the cells, across and upwards.
    share : dict of str to ndarray, (row, column)
        Group -> share of its frames in each cell.
    n_frames, n_sessions : dict of str to int
        Group -> frames that were read, and its sessions.
    left_out : tuple of str
        Groups that are not shown, the smallest ones.
    """

    by: str
    dims: tuple[int, int]
    edges: tuple[np.ndarray, np.ndarray]
    share: dict[str, np.ndarray]
    n_frames: dict[str, int]
    n_sessions: dict[str, int]
    left_out: tuple[str, ...]


def groups(
    sessions: tuple[Session, ...], table: xr.Dataset, by: str | None
) -> dict[str, list[Session]]:
    """Sessions by the value of one of their coordinates, the largest groups first.

    Parameters
    ----------
    sessions : tuple of Session
        Rows of the labels.
    table : Dataset
        The group ``keypoints``; its sessions are found by name.
    by : str, optional
        Name of a coordinate (default: all sessions together); so it is, too, when ``"group"`` is
        asked for and the store has none.

    Raises
    ------
    InputError
        For a coordinate that the sessions do not have.
    """
    if by == "group" and by not in table.coords:
        by = None
    found: dict[str, list[Session]] = {}
    labels = groups_of([session.name for session in sessions], table, by or "")
    for session, label in zip(sessions, labels, strict=True):
        found.setdefault(label, []).append(session)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def choose_blocks(
    of_group: Mapping[str, list[Session]], *, seed: int, max_blocks: int = MAX_BLOCKS
) -> dict[str, list[Block]]:
    """Blocks to read, equally many of each group, drawn at random without repetition.

    Parameters
    ----------
    max_blocks : int
        Of all groups together; one of each group at least.
    """
    most = max(1, max_blocks // max(1, len(of_group)))
    chosen = {}
    for number, (name, sessions) in enumerate(of_group.items()):
        blocks = list(iter_blocks(sorted(sessions, key=lambda session: session.name)))
        rng = np.random.default_rng([seed, number])
        drawn = rng.permutation(len(blocks))[:most]
        chosen[name] = [blocks[i] for i in sorted(drawn)]
    return chosen


def sample_scores(
    labels: xr.Dataset,
    of_group: Mapping[str, list[Session]],
    *,
    by: str,
    dims: tuple[int, int] = (0, 1),
    n_cells: int | None = None,
    seed: int = 0,
) -> Scores:
    """Density of two latent dimensions by group, from a bounded sample of blocks.

    Parameters
    ----------
    labels : Dataset
        A version of labels with ``latent`` (session, frame, latent_dim).
    of_group : mapping of str to list of Session
        Result of :func:`groups`; at most the first 12 are read.
    dims : (int, int)
    n_cells : int, optional
        Across and upwards (default: 15 to 60, more the more frames there are).

    Raises
    ------
    InputError
        For latent dimensions that the model does not have.
    """
    n_latent = labels.sizes["latent_dim"]
    if len(dims) != 2 or not all(0 <= dim < n_latent for dim in dims):
        raise InputError(
            expected=f"two latent dimensions from 0 to {n_latent - 1}",
            found=str(dims),
            where="dims",
            fix="choose two of them",
        )
    shown = dict(list(of_group.items())[:MAX_GROUPS])
    blocks = choose_blocks(shown, seed=seed)
    values = _read(labels, blocks, dims)
    if n_cells is None:
        n_most = max(map(len, values.values()), default=0)
        n_cells = int(np.clip(2 * np.cbrt(n_most), 15, 60))
    edges = _edges(list(values.values()), n_cells)
    return Scores(
        by,
        (int(dims[0]), int(dims[1])),
        edges,
        {name: _density(points, edges) for name, points in values.items()},
        {name: len(points) for name, points in values.items()},
        {name: len(sessions) for name, sessions in shown.items()},
        tuple(of_group)[MAX_GROUPS:],
    )


def _read(
    labels: xr.Dataset, blocks: Mapping[str, list[Block]], dims: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Scores (frame, 2) of every group, several blocks at a time; frames without are left out."""

    def one(block: Block) -> np.ndarray:
        values = labels["latent"][block.session, block.start : block.stop].values[:, list(dims)]
        return values[np.isfinite(values).all(1)]

    with ThreadPoolExecutor(_READERS) as pool:
        return {
            name: np.concatenate([np.zeros((0, 2), np.float32), *pool.map(one, chosen)])
            for name, chosen in blocks.items()
        }


def _edges(values: list[np.ndarray], n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Common edges: those that leave at most 0.5 % of the frames of a group beyond an end."""
    ends = [
        np.quantile(points, [_OUTSIDE, 1 - _OUTSIDE], axis=0) for points in values if len(points)
    ]
    if not ends:
        return np.linspace(-1, 1, n_cells + 1), np.linspace(-1, 1, n_cells + 1)
    low, high = np.min([e[0] for e in ends], axis=0), np.max([e[1] for e in ends], axis=0)
    pad = np.maximum(0.02 * (high - low), 1e-6)
    across, up = (
        np.linspace(low[i] - pad[i], high[i] + pad[i], n_cells + 1, dtype=np.float64)
        for i in range(2)
    )
    return across, up


def _density(points: np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    count = np.histogram2d(points[:, 1], points[:, 0], bins=(edges[1], edges[0]))[0]
    return count / max(1, len(points))
