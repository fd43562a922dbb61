"""Validated reads and writes of blocks: inside a session, and never half a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core.blocks import Block

_MANY_SESSIONS, _MANY_FRAMES = 2**31, 2**44


def read(array: zarr.Array[Any], block: Block) -> np.ndarray:
    """The frames of a block, without the session dimension."""
    return np.asarray(array[block.session, block.start : block.stop])


def unbounded(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Copy of an array object with room for any session of any length, for this process alone.

    What is written beyond the shape on disk stays unseen until that is enlarged, so that many
    writers fill sessions of lengths not known before, and one makes them visible.
    """
    shape = (_MANY_SESSIONS, _MANY_FRAMES, *array.shape[2:])
    metadata: Any = array.metadata.update_shape(shape)
    config: Any = {"order": "C", "write_empty_chunks": False}
    return zarr.Array(zarr.AsyncArray(metadata, store_path=array.store_path, config=config))


def write(array: zarr.Array[Any], block: Block, values: np.ndarray, *, n_frames: int) -> None:
    """Write the frames of a block.

    Parameters
    ----------
    array : zarr.Array, (session, frame, ...)
    block : Block
    values : ndarray, (frame, ...)
    n_frames : int
        Real length of the session: the block must end there or on a chunk edge before it, so
        that two writers never share a chunk and padding is never written.

    Raises
    ------
    ValueError
        A programming error: the block is not aligned, or the values do not fit it.
    """
    chunk = array.chunks[1]
    if block.start % chunk or (block.stop % chunk and block.stop != n_frames):
        raise ValueError(f"{array.path}: {block} is not aligned to chunks of {chunk} frames")
    if block.stop > n_frames:
        raise ValueError(f"{array.path}: {block} reaches beyond the {n_frames} frames there are")
    if values.shape != (block.n_frames, *array.shape[2:]):
        raise ValueError(f"{array.path}: {block} cannot hold values of shape {values.shape}")
    array[block.session, block.start : block.stop] = values.astype(array.dtype, copy=False)
