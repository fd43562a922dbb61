"""Scans: what chains of several settings have found, kept as they come; models are not touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout, regions
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.provenance import provenance, provenance_of
from kpms_zarr.store.core.schema import LABEL_FRAMES_PER_CHUNK, SCANS
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import make_group
from kpms_zarr.store.wording import call, listed

_FIGURES = tuple(var.name for var in SCANS if var.dims[:2] == ("point", "chain"))
_LAST = "seconds"
"""Is written last of a chain: it says that all else of it is there."""

ReadChain = Callable[[int, int, int], Mapping[str, np.ndarray]]
"""(row of the session, start, stop) -> ``syllable`` (frame,) and, of the full stage, ``latent``
(frame, latent_dim)."""


class ScanGroup:
    """The group ``scans/NAME`` of a store: a table, and for each chain its labels.

    Parameters
    ----------
    root : zarr.Group
        The store.
    name : str
    """

    def __init__(self, root: zarr.Group, name: str) -> None:
        self._root, self.name = root, name
        self._path = layout.scan_path(name)

    @property
    def request(self) -> dict[str, Any] | None:
        """What was asked for when it was begun; None where nothing was."""
        group = access.subgroup(self._root, self._path)
        return None if group is None else provenance_of(dict(group.attrs)).get("settings")

    def begin(
        self,
        request: Mapping[str, Any],
        *,
        points: Mapping[str, Any],
        seeds: Sequence[int],
        sessions: Sequence[Session],
        held_out: Sequence[str],
        attrs: Mapping[str, Any],
    ) -> None:
        """Drop what is there and make room for a scan.

        Parameters
        ----------
        request : mapping
            JSON-compatible; kept as provenance.
        points : mapping
            Coordinates by point, (point,) each.
        seeds : sequence of int
            Of the chains.
        sessions : sequence of Session
            That the chains are run on.
        held_out : sequence of str
            Names of those that are kept from them.
        attrs : mapping
            Further attributes.
        """
        make_group(self._root, layout.SCANS, "scan")
        access.require_group(self._root, self._path)
        group = self._group()
        attributes.write(group, {"provenance": None})  # half of a scan must not look like one
        for name, _ in access.groups_below(group):
            if name != "lock":
                access.delete_group(self._root, f"{self._path}/{name}")
        for name, _ in access.arrays_below(group):
            del group[name]
        columns = access.columns_of(sessions)
        values = {
            "session": columns["session"],
            "n_frames": columns["n_frames"],
            **points,
            "seed": np.asarray(seeds, np.int64),
        }
        sizes = {"point": len(points["label"]), "chain": len(seeds), "held_out": len(held_out)}
        figures = _FIGURES
        if held_out:
            values["held_out"] = np.asarray(held_out, dtype=object)
        else:
            figures = tuple(one for one in _FIGURES if one != "held_out_by_session")
        layout.write_values(group, "scans", values)
        layout.create_arrays(group, "scans", sizes, figures)
        make_group(self._root, f"{self._path}/chains", "scan")
        attributes.write(group, {**attrs, **provenance("scan", request)})

    def table(self) -> xr.Dataset:
        """Figures of all chains so far, (point, chain); NaN of those that have not run."""
        group = self._group()
        kinds: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for var in SCANS:
            array = group.get(var.name)
            if not isinstance(array, zarr.Array):
                continue
            values = np.asarray(array[...])
            values = values.astype(object) if var.dtype == "str" else values
            kinds[var.is_coordinate][var.name] = (var.dims, values, var.attrs)
        attrs = attributes.held(attributes.read(dict(group.attrs)))
        attrs.pop("coordinates", None)
        return xr.Dataset(*kinds, attrs)

    def is_done(self) -> np.ndarray:
        """Mask of the chains that are there: (point, chain) bool."""
        return np.isfinite(np.asarray(self._array(_LAST)[...]))

    def write_chain(
        self,
        point: int,
        chain: int,
        *,
        sessions: Sequence[Session],
        read: ReadChain,
        n_latent: int = 0,
        parameters: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write what a chain has found beside its figures, which are to follow.

        What is there already of a chain whose figures are missing is left: chains of one request
        have the same labels, and another process may be reading or writing them.

        Parameters
        ----------
        sessions : sequence of Session
        read : callable
            See ``ReadChain``.
        n_latent : int
            Latent dims of the pose that is kept; 0 = it is not.
        parameters : mapping, optional
            Kept beside it.
        """
        below = f"/chains/{_key(point, chain)}"
        there = access.subgroup(self._root, f"{self._path}{below}")
        if there is not None and "provenance" in there.attrs:
            return
        group = self._group("/chains").create_group(_key(point, chain), overwrite=True)
        names = ("syllable", "latent") if n_latent else ("syllable",)
        columns = access.columns_of(sessions)
        sizes = {
            "session": len(sessions),
            "frame": max(session.n_frames for session in sessions),
            "latent_dim": n_latent,
        }
        layout.create_arrays(group, "scan_chains", sizes, names)
        values = {name: columns[name] for name in ("session", "n_frames")}
        layout.write_values(group, "scan_chains", {**values, **(parameters or {})})
        for block in iter_blocks(_rows(sessions), LABEL_FRAMES_PER_CHUNK):
            found = read(block.session, block.start, block.stop)
            for name in names:
                n_frames = sessions[block.session].n_frames
                regions.write(group[name], block, found[name], n_frames=n_frames)  # type: ignore[arg-type]
        attributes.write(group, provenance("scan"))

    def write_figures(self, point: int, chain: int, figures: Mapping[str, Any]) -> None:
        """Write some figures of a chain; by one process, as those of all share their chunks.

        Parameters
        ----------
        figures : mapping
            Value of each variable by (point, chain).
        """
        for name in sorted(figures, key=lambda name: name == _LAST):
            self._array(name)[point, chain] = figures[name]

    def read(self, point: int, chain: int, name: str, block: Block) -> np.ndarray:
        """Some frames of what was kept of a chain; ``block.session``: row among the sessions."""
        array = self._root[f"{self._path}/chains/{_key(point, chain)}/{name}"]
        return regions.read(array, block)  # type: ignore[arg-type]

    def parameters(self, point: int, chain: int) -> dict[str, np.ndarray]:
        """Arrays without a frame dim that were kept of a chain, by name."""
        group = self._group(f"/chains/{_key(point, chain)}")
        arrays = access.arrays_below(group)
        per_frame = ("syllable", "latent")
        return {name: np.asarray(a[...]) for name, a in arrays if name not in per_frame}

    def finish(self) -> None:
        """Let the store say in its metadata what there is."""
        consolidate(self._root, [self._path])

    def _group(self, below: str = "") -> zarr.Group:
        """Group of the scan, or one below it, as it is and not as consolidated metadata say."""
        group = access.subgroup(self._root, f"{self._path}{below}")
        assert group is not None
        return group

    def _array(self, name: str) -> Any:
        return self._root[f"{self._path}/{name}"]


def blocks_of(sessions: Sequence[Session]) -> Iterator[Block]:
    """Blocks in which chains of a scan are written and read, by row among its sessions."""
    return iter_blocks(_rows(sessions), LABEL_FRAMES_PER_CHUNK)


def _rows(sessions: Sequence[Session]) -> list[Session]:
    return [replace(session, index=row) for row, session in enumerate(sessions)]


def _key(point: int, chain: int) -> str:
    return f"p{point:03d}c{chain:03d}"


@dataclass(frozen=True)
class ScanInfo:
    """A scan.

    Attributes
    ----------
    name : str
    n_done, n_chains : int
        Chains that are there, and that it will have in all.
    """

    name: str
    n_done: int
    n_chains: int


def list_scans(store: StoreLike | zarr.Group) -> tuple[ScanInfo, ...]:
    """Scans of a store, finished or not, by name."""
    root = store if isinstance(store, zarr.Group) else access.open_group(store)
    above = access.subgroup(root, layout.SCANS)
    found = []
    for name, group in access.groups_below(above) if above is not None else ():
        if "provenance" in group.attrs:
            is_done = ScanGroup(root, name).is_done()
            found.append(ScanInfo(name, int(is_done.sum()), is_done.size))
    return tuple(found)


def open_scan(store: StoreLike, name: str) -> xr.Dataset:
    """Figures of a scan, finished or not.

    Parameters
    ----------
    store : path or URL
    name : str
        That of the scan, or what it varies, such as ``"kappa"``.

    Returns
    -------
    xarray.Dataset
        What ``kpms_zarr.scan(...).table`` is (``schema.SCANS``); NaN of chains that have not run.

    Raises
    ------
    InputError
        When there is no such scan.
    """
    root = access.open_group(store)
    group = ScanGroup(root, name)
    if not group.request:
        names = [one.name for one in list_scans(root)]
        raise InputError(
            expected=f"a scan named {name!r}",
            found=f"the scans {listed(names)}" if names else "no scan",
            where=os.fspath(store),
            fix=f"run it with: {call('scan', store, target_durations='200ms:800ms:5')}",
        )
    return group.table()
