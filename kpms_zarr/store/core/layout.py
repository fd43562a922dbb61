"""Layout of a store: paths of groups, chunks and compression of arrays.

One rectangle (session, frame, ...) holds all sessions; chunks belong to one session each, so
that one writer per session needs no lock, and padding is never written. Blosc zstd level 1 with
bitshuffle halves the write time of plain zstd at 1.41x instead of 1.20x compression on keypoint
data (float32, 16,384 frames a chunk).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from kpms_zarr.store.core import attributes
from kpms_zarr.store.core.schema import (
    FRAMES_PER_CHUNK,
    GROUPS,
    LABEL_FRAMES_PER_CHUNK,
    Variable,
    variable,
)
from kpms_zarr.store.core.zarr_internals import default_buffer_prototype, sync
from kpms_zarr.store.errors import InputError

KEYPOINTS = "keypoints"
QUALITY = "quality"
PCA = "pca"
CHANGEPOINTS = "changepoints"
MODELS = "models"
SCANS = "scans"
EPOCHS = "epochs"
TIMESTAMPS = "timestamps"
SIGNALS = "signals"
CALIBRATION = "calibration"
ANNOTATIONS = "annotations"

_SESSIONS_PER_CHUNK = 16_384
_SWEEPS_PER_CHUNK = 1024
_BINS_PER_CHUNK = 4096
_LEVEL_SESSIONS, _LEVEL_FRAMES = 256, 2**27
"""Sessions that chunks of levels of detail have at most, and their frames, about."""
_METADATA = "zarr.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def model_path(model: str) -> str:
    """Group path of a model.

    Raises
    ------
    InputError
        When the name cannot be a folder name on every storage.
    """
    return f"{MODELS}/{_checked(model, 'model', 'open-field-1')}"


def scan_path(name: str) -> str:
    """Group path of a scan; raises as :func:`model_path` does."""
    return f"{SCANS}/{_checked(name, 'name', 'kappa-1')}"


def signal_path(name: str) -> str:
    """Group path of a signal; raises as :func:`model_path` does."""
    return f"{SIGNALS}/{_checked(name, 'name', 'photometry')}"


def _checked(name: str, argument: str, example: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            expected="a name of letters, digits, '.', '_' and '-', a letter or digit first",
            found=repr(name),
            where=f"`{argument}=`",
            fix=f"choose another name, such as {example!r}",
        )
    return name


def chunk_shape(var: Variable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Chunk lengths of a variable: one session a chunk, whole trailing dims."""
    is_small = var.dtype in ("int16", "float16")
    frames = LABEL_FRAMES_PER_CHUNK if is_small else FRAMES_PER_CHUNK
    rule = {"session": 1 if "frame" in var.dims else _SESSIONS_PER_CHUNK, "frame": frames}
    rule["sweep"] = _SWEEPS_PER_CHUNK
    for dim, length in zip(var.dims, shape, strict=True):
        if dim.startswith("bin_"):
            n_sessions = level_sessions(length * int(dim.removeprefix("bin_")))
            rule |= {"session": min(n_sessions, max(1, shape[0]))}
            rule |= {dim: min(_BINS_PER_CHUNK, max(1, length))}
    return tuple(rule.get(dim, max(1, length)) for dim, length in zip(var.dims, shape, strict=True))


def level_sessions(n_frames: int) -> int:
    """Sessions in a chunk of levels of detail: many short ones, few long ones; a power of 2.

    Parameters
    ----------
    n_frames : int
        Of the longest session.
    """
    return int(2 ** int(np.log2(max(1, min(_LEVEL_SESSIONS, _LEVEL_FRAMES // max(1, n_frames))))))


def create_array(group: zarr.Group, var: Variable, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """Create one declared array, empty (all fill)."""
    is_text = var.dtype == "str"
    codec = BloscCodec(
        cname="zstd",
        clevel=1,
        shuffle="noshuffle" if is_text else "bitshuffle",
    )
    return group.create_array(
        var.name,
        shape=shape,
        dtype=str if is_text else var.dtype,
        chunks=chunk_shape(var, shape),
        fill_value=var.fill,
        # A checksum behind it, so that a chunk that was altered is an error and no data.
        compressors=(codec, Crc32cCodec()),
        dimension_names=var.dims,
        attributes=attributes.stored(var.attrs),
        config={"write_empty_chunks": False},
        overwrite=True,
    )


def write_array(group: zarr.Group, var: Variable, values: np.ndarray) -> None:
    """Write a small declared array so that it is there with its values or not at all.

    Its metadata come last. One of another type that has its name is deleted first.
    """
    place = MemoryStore()
    create_array(zarr.open_group(place, mode="w"), var, values.shape)[...] = values
    if var.name in group:
        del group[var.name]
    target = group.store_path

    async def copy() -> None:
        names = [name async for name in place.list_prefix(f"{var.name}/")]
        for name in sorted(names, key=lambda name: name.endswith(_METADATA)):
            content = await place.get(name, default_buffer_prototype())
            if content is not None:
                await target.store.set("/".join(filter(None, (target.path, name))), content)

    sync(copy())


def create_arrays(
    group: zarr.Group, kind: str, sizes: Mapping[str, int], names: tuple[str, ...] | None = None
) -> None:
    """Create the declared arrays of a kind of group, empty, with xarray's coordinate attribute.

    Parameters
    ----------
    group : zarr.Group
    kind : str
        Key of ``schema.GROUPS``.
    sizes : mapping of dim to length
    names : tuple of str, optional
        Only these variables (default: all).
    """
    coordinates = []
    for var in GROUPS[kind]:
        if names is not None and var.name not in names:
            continue
        create_array(group, var, tuple(sizes[dim] for dim in var.dims))
        if var.is_coordinate and var.dims != (var.name,):
            coordinates.append(var.name)
    if coordinates:
        earlier = str(group.attrs.get("coordinates", "")).split()
        both = dict.fromkeys([*earlier, *coordinates])
        attributes.write(group, {"coordinates": " ".join(both)})


def write_values(group: zarr.Group, kind: str, values: Mapping[str, Any]) -> None:
    """Create and fill small arrays of a group (no frame dimension), sizes from the values."""
    arrays = {
        name: np.asarray(value, dtype=object if variable(kind, name).dtype == "str" else None)
        for name, value in values.items()
    }
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        for dim, length in zip(variable(kind, name).dims, array.shape, strict=True):
            if sizes.setdefault(dim, length) != length:
                raise ValueError(f"{kind}/{name}: dim {dim} has length {length}, not {sizes[dim]}")
    create_arrays(group, kind, sizes, tuple(arrays))
    for name, array in arrays.items():
        if array.size:
            group[name][...] = array  # type: ignore[index]
