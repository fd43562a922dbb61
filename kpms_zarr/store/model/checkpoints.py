"""Progress of an unfinished fit: one committed sweep, made current by one small write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout, regions
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.provenance import provenance, provenance_of
from kpms_zarr.store.core.schema import CHAIN, LABEL_FRAMES_PER_CHUNK, PROGRESS, WINDOWS, variable
from kpms_zarr.store.core.zarr_internals import default_buffer_prototype, sync
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.settling import ATTRIBUTE

_WRITERS = 4
_PER_FRAME = ("syllable", "local", "draw")
_OLD_SECONDS = 3600.0
_MOST_READS = 20
_COMMIT = re.compile(r"s\d{9,}")

Read = TypeVar("Read")

ReadRows = Callable[[int, int, int], tuple[np.ndarray, ...]]
"""(row of the session, start, stop) -> labels (frame,), state (frame, feature) and, when there are
draws, these (frame, draw)."""


WriteElsewhere = Callable[[str], int]
"""Path of a commit that is begun -> bytes, once others have written all of its rows."""


def write_rows(group: zarr.Group, sessions: Sequence[Session], read: ReadRows) -> int:
    """Write the rows of some sessions of a commit, each session its own chunks.

    Parameters
    ----------
    group : zarr.Group
        Of the commit.
    sessions : sequence of Session
        ``index`` is the row in the commit, of which ``read`` is asked.
    read : callable

    Returns
    -------
    int
        Bytes before compression.
    """
    n_frames = {session.index: session.n_frames for session in sessions}

    def write(block: Block) -> int:
        found = read(block.session, block.start, block.stop)
        for name, values in zip(_PER_FRAME, found, strict=False):
            array: Any = group[name]
            regions.write(array, block, values, n_frames=n_frames[block.session])
        return sum(values.nbytes for values in found)

    total = 0
    with ThreadPoolExecutor(_WRITERS) as pool:
        # Not all at once: each holds the rows of its block.
        blocks = iter_blocks(sessions, LABEL_FRAMES_PER_CHUNK)
        for batch in _batches(blocks, 2 * _WRITERS):
            total += sum(pool.map(write, batch))
    return total


@dataclass(frozen=True)
class Checkpoint:
    """One committed sweep.

    Attributes
    ----------
    name : str
        Of its group within ``models/<model>/chain``.
    n_sweeps : int
        Sweeps that led to it.
    attrs : dict
    values : dict of str to ndarray
        Small arrays by name.
    traces : dict of str to ndarray
        One row per sweep.
    sessions : tuple of str
    group : zarr.Group
    n_sweeps_in_all : int
        That the fit will have.
    """

    name: str
    n_sweeps: int
    attrs: dict[str, Any]
    values: dict[str, np.ndarray]
    traces: dict[str, np.ndarray]
    sessions: tuple[str, ...]
    group: zarr.Group
    n_sweeps_in_all: int

    def read(self, session: int, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Some frames of a session, as ``ReadRows`` gave them."""
        block = Block(session, start, stop)
        arrays = _arrays(self.group, _PER_FRAME).values()
        return tuple(regions.read(array, block) for array in arrays)


class Checkpoints:
    """The commits of one model.

    Parameters
    ----------
    root : zarr.Group
        The store, writable.
    store : path or URL
    model : str
    """

    def __init__(self, root: zarr.Group, store: StoreLike, model: str) -> None:
        self._root, self._store, self._model = root, store, model
        self._path = f"{layout.model_path(model)}/chain"

    def begin(self, action: str = "fit") -> None:
        """Discard earlier progress and make room for a new fit, or for what is like one.

        ``action``: what commits; only a fit is gone on with.
        """
        self.discard()
        group = self._root.create_group(self._path, overwrite=True)
        attributes.write(group, {"id": uuid.uuid4().hex, **provenance(action)})

    @property
    def fit_id(self) -> str:
        """Identifier that tells this fit from others of the same name."""
        return str(self._root[self._path].attrs.get("id", ""))

    def discard(self) -> None:
        """Remove the progress of the model, finished or not."""
        chain = access.subgroup(self._root, self._path)
        if chain is not None and chain.attrs.get("current") is not None:
            # First the pointer: half of a commit must not look like one.
            attributes.write(chain, {"current": None})
        if chain is not None or self._names():
            _remove(self._root, self._path)

    def tidy(self) -> None:
        """Remove what a killed process left half written; only while the model is held."""
        if not access.is_remote(self._store):
            model = Path(os.fspath(self._store)) / layout.model_path(self._model)
            for folder in (model, model / "labels", model / "levels", model / "parameters"):
                _unlink(folder.glob("*.partial"))
            _unlink((model / "chain").rglob("*.partial"))
            # Above the model others may be writing: only what nobody can be at any more.
            for folder in (model.parent, model.parent.parent):
                _unlink(file for file in folder.glob("*.partial") if _is_old(file))
        chain = access.subgroup(self._root, self._path)
        if chain is None or chain.attrs.get("current") is None:
            self.discard()
        else:
            self._sweep_up(chain)

    def current(self) -> Checkpoint | None:
        """The last commit; None when there is none."""
        return read_checkpoint(self._root, self._model)

    def commit(
        self,
        n_sweeps: int,
        *,
        n_sweeps_in_all: int,
        sessions: Sequence[Session],
        table: Mapping[str, Any],
        n_features: int,
        dtype: str,
        read: ReadRows | None = None,
        write: WriteElsewhere | None = None,
        n_draws: int = 0,
        values: Mapping[str, Any],
        traces: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> int:
        """Write one sweep and make it current; until then, the one before stays.

        Parameters
        ----------
        n_sweeps : int
            Sweeps that led to it.
        n_sweeps_in_all : int
            Of the whole fit, as far as it is known when it ends: at the first commit, rows that the
            traces may have.
        sessions : sequence of Session
        table : mapping
            Text columns by session and other coordinates.
        n_features : int
        dtype : str
            Of the state.
        read : callable, optional
            See ``ReadRows``; without it, ``write`` (``WriteElsewhere``) has the rows written.
        n_draws : int
        values : mapping
            Small arrays.
        traces : mapping
            One row per sweep so far; those since the last commit are written.
        attrs : mapping

        Returns
        -------
        int
            Bytes before compression.
        """
        chain = self._root[self._path]
        assert isinstance(chain, zarr.Group)
        self._sweep_up(chain)
        name = f"s{n_sweeps:09d}"
        if chain.attrs.get("current") == name:
            return 0
        group = chain.create_group(name, overwrite=True)
        try:
            sizes = {
                "session": len(sessions),
                "frame": max(session.n_frames for session in sessions),
                "feature": n_features,
                "draw": n_draws,
            }
            self._create_per_frame(group, sizes, dtype)
            if write is None:
                assert read is not None
                rows = [replace(session, index=row) for row, session in enumerate(sessions)]
                n_bytes = write_rows(group, rows, read)
            else:
                n_bytes = write(f"{self._path}/{name}")
            layout.write_values(group, "chain", {**access.columns_of(sessions), **table, **values})
            numbers = {"n_sweeps": n_sweeps, "n_sweeps_in_all": n_sweeps_in_all}
            attributes.write(group, {**attrs, **numbers, **provenance("fit")})
            _write_traces(chain, traces, n_sweeps, n_sweeps_in_all)
        except BaseException:
            # What is current stays; a half-written one goes, as far as the storage lets it.
            with contextlib.suppress(Exception):
                _remove(chain, name)
            raise
        before = chain.attrs.get("current")
        attributes.write(chain, {"current": name, "previous": before})
        self._sweep_up(chain)
        return n_bytes

    def _create_per_frame(self, group: zarr.Group, sizes: Mapping[str, int], dtype: str) -> None:
        for name in _PER_FRAME if sizes["draw"] else _PER_FRAME[:2]:
            var = variable("chain", name)
            if name == "local":
                var = replace(var, dtype=dtype)
            layout.create_array(group, var, tuple(sizes[dim] for dim in var.dims))

    def _sweep_up(self, chain: zarr.Group) -> None:
        """Remove what commits before the last left: one state is kept, and the labels before it."""
        current, previous = chain.attrs.get("current"), chain.attrs.get("previous")
        for name in self._names():
            if name == current or not _COMMIT.fullmatch(name):
                continue
            # Somebody may be reading the labels that were current until now.
            below = [""] if name != previous else {"local", "draw"} & set(self._names(name))
            for part in sorted(below):
                _remove(chain, f"{name}/{part}".rstrip("/"))

    def _names(self, below: str = "") -> list[str]:
        """Names in the group, whole or half removed."""
        return access.names_below(self._root.store_path / f"{self._path}/{below}".rstrip("/"))


def committed_sweeps(root: zarr.Group, model: str) -> int | None:
    """Sweeps of an unfinished fit that are committed; None where there is no fit to go on with."""
    chain = access.subgroup(root, f"{layout.model_path(model)}/chain")
    name = _current(chain)
    if chain is None or name is None:
        return None
    is_fit = provenance_of(dict(chain.attrs)).get("action", "fit") == "fit"
    return int(name[1:]) if is_fit else None


def read_checkpoint(root: zarr.Group, model: str) -> Checkpoint | None:
    """The last commit of an unfinished fit; None when there is none."""
    return _undisturbed(root, model, _read)


def _undisturbed(
    root: zarr.Group, model: str, read: Callable[[zarr.Group, zarr.Group], Read]
) -> Read | None:
    """Read something of the last commit, all of one: again, when it was replaced meanwhile.

    What is removed under a reader has no chunks, which reads as if nothing had been written. A
    commit that is still current when all is read was whole.

    Parameters
    ----------
    read : callable
        Is given the group of the progress, and that of the commit.

    Returns
    -------
    object or None
        None when there is no commit, or no longer.
    """
    path, problem = f"{layout.model_path(model)}/chain", None
    for _ in range(_MOST_READS):
        chain = access.subgroup(root, path)
        name = _current(chain)
        if chain is None or name is None:
            return None
        try:
            found = read(chain, chain[name])  # type: ignore[arg-type]
        except (KeyError, ValueError, OSError, IndexError) as error:
            found, problem = None, error
        if _current(access.subgroup(root, path)) == name:
            if found is None:
                assert problem is not None
                raise problem
            return found
    return None


def _current(chain: zarr.Group | None) -> str | None:
    """Name of the last commit; None when there is none."""
    name = None if chain is None else chain.attrs.get("current")
    return name if isinstance(name, str) else None


def _read(chain: zarr.Group, group: zarr.Group) -> Checkpoint:
    n_sweeps = int(group.attrs["n_sweeps"])  # type: ignore[arg-type]
    # By name: what is listed may be half removed.
    values = _arrays(group, (var.name for var in CHAIN if var.name not in _PER_FRAME))
    traces = _arrays(chain, (var.name for var in PROGRESS))
    attrs = attributes.read(dict(group.attrs))
    n_rows = next((array.shape[0] for name, array in traces.items() if name != "term"), n_sweeps)
    return Checkpoint(
        group.basename,
        n_sweeps,
        attrs,
        {n: np.asarray(array[...]) for n, array in values.items()},
        {n: np.asarray(a[...] if n == "term" else a[:n_sweeps]) for n, a in traces.items()},
        tuple(str(session) for session in group["session"][:]),  # type: ignore[index, union-attr]
        group,
        int(attrs.get("n_sweeps_in_all", n_rows)),  # as of an earlier release
    )


@dataclass(frozen=True)
class Unfinished:
    """Unfinished fit: it runs or was interrupted.

    Attributes
    ----------
    name : str
        Of the model.
    n_sweeps : int
        Sweeps that are committed.
    """

    name: str
    n_sweeps: int


def unfinished(root: zarr.Group) -> tuple[Unfinished, ...]:
    """All unfinished fits of a store, by name."""
    models = access.subgroup(root, layout.MODELS)
    found = []
    for name, _ in access.groups_below(models) if models is not None else ():
        n_sweeps = committed_sweeps(root, name)
        if n_sweeps is not None:
            found.append(Unfinished(name, n_sweeps))
    return tuple(found)


def pulse(root: zarr.Group) -> tuple[tuple[str, bytes | None], ...]:
    """Stamp that changes with every commit, and when a fit begins or ends.

    Reads one small object or two of each model, all at once: for those who look again and again.
    """
    if root.metadata.consolidated_metadata is not None:
        return ()  # a web address, which lists nothing
    models = root.store_path / layout.MODELS
    keys = [
        f"{models.path}/{name}/{part}/zarr.json"
        for name in sorted(access.names_below(models))
        if name != "zarr.json"
        for part in ("chain", "lock")
    ]

    async def read() -> list[Any]:
        prototype = default_buffer_prototype()
        return await asyncio.gather(*(models.store.get(key, prototype) for key in keys))

    found = [None if buffer is None else buffer.to_bytes() for buffer in sync(read())]
    return tuple(zip(keys, found, strict=True))


def _write_traces(
    chain: zarr.Group, traces: Mapping[str, np.ndarray], n_sweeps: int, n_rows: int
) -> None:
    """Write the rows since the last commit; the first one makes room for all."""
    current = chain.attrs.get("current")
    committed = int(current[1:]) if isinstance(current, str) else 0
    for name, values in traces.items():
        is_new = not isinstance(current, str) or name not in chain  # as of an earlier release
        if is_new:
            shape = values.shape if name == "term" else (n_rows, *values.shape[1:])
            layout.create_array(chain, variable("progress", name), shape)
            if name == "term":
                chain[name][...] = values  # type: ignore[index]
        first = 0 if is_new else committed
        if name != "term" and n_sweeps > committed:
            chain[name][first:n_sweeps] = values[first:n_sweeps]  # type: ignore[index]


def _arrays(group: zarr.Group, names: Iterable[str]) -> dict[str, zarr.Array[Any]]:
    found = {name: group.get(name) for name in names}
    return {name: array for name, array in found.items() if isinstance(array, zarr.Array)}


def _remove(group: zarr.Group, name: str) -> None:
    """Remove a group or array, also one that is half gone."""
    if name not in group:
        group.create_group(name, overwrite=True)
    del group[name]


def _is_old(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - file.stat().st_mtime > _OLD_SECONDS
    return False


def _unlink(files: Iterable[Path]) -> None:
    for file in list(files):
        file.unlink(missing_ok=True)


def _batches(items: Any, size: int) -> Any:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def open_progress(store: StoreLike, model: str) -> xr.Dataset:
    """Labels of the last committed sweep of a fit that runs or was interrupted.

    Parameters
    ----------
    store : path or URL
    model : str

    Returns
    -------
    xarray.Dataset
        ``syllable`` (session, frame), lazy, with -1 beyond ``n_frames``, numbered by frequency in
        that sweep, and so ``window_syllable`` (kept_sweep, window, window_frame) of some frames
        after the last sweeps; a row per sweep of each trace, such as ``trace_log_likelihood``;
        attributes ``n_sweeps``, ``n_sweeps_in_all`` (of a fit that ends when it has settled, at
        most), ``created`` (when it was committed), ``settings`` (of the fit), ``settling`` (what
        was judged of its stages) and ``workers`` (of a cluster, that it runs on). Stays readable
        until the next commit but one.

    Raises
    ------
    InputError
        When the model has no unfinished fit.
    """
    path = f"{layout.model_path(model)}/chain"

    def read(chain: zarr.Group, group: zarr.Group) -> tuple[Checkpoint, xr.Dataset]:
        opened = access.dataset(store, f"{path}/{group.basename}")
        coords = {name: opened[name].load() for name in ("n_frames", "fps")}
        return _read(chain, group), opened[["syllable"]].assign_coords(coords)

    both = _undisturbed(access.open_group(store), model, read)
    if both is None:
        raise InputError(
            expected=f"an unfinished fit of the model {model!r}",
            found="none",
            where=os.fspath(store),
            fix="open_labels gives the labels of a finished one",
        )
    found, opened = both
    for var in PROGRESS:
        if var.name in found.traces and var.name != "term":
            opened[var.name] = (var.dims, found.traces[var.name], var.attrs)
    if "term" in found.traces:
        opened = opened.assign_coords(term=("term", found.traces["term"]))
    for var in WINDOWS:
        if var.name in found.values:
            opened[var.name] = (var.dims, found.values[var.name], var.attrs)
    if "window_syllable" in opened:
        number = np.append(found.values["state_number"], -1).astype(np.int16)
        opened["window_syllable"].values = number[found.values["window_syllable"]]
    opened.attrs = attributes.held(
        {
            "model": model,
            "n_sweeps": found.n_sweeps,
            "n_sweeps_in_all": found.n_sweeps_in_all,
            "created": found.attrs["provenance"]["created"],
            "settings": found.attrs.get("config", {}),
            ATTRIBUTE: found.attrs.get(ATTRIBUTE, {}),
            "workers": found.attrs.get("workers", {}),
        }
    )
    return opened
