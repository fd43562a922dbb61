"""Versions of the labels of a model: what there is, and which one is the current one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model.models import current_version, labels_path, listed_versions
from kpms_zarr.store.shown import ShownAsTable


@dataclass(frozen=True)
class LabelVersion:
    """A published version of the labels of a model.

    Attributes
    ----------
    version : str
        Such as ``"v2"``.
    action : str
        What made it: ``"fit"``, ``"apply"``, ``"merge"``, ...
    created : str
        When, in UTC.
    n_sessions, n_syllables : int
        Sessions that it labels, and syllables that occur; -1 = not known.
    parameters : str
        Version of the parameters behind it.
    from_version : str
        That it was made from; "" = none.
    is_current : bool
        Whether it is what is opened where nobody asks for a version.
    """

    version: str
    action: str
    created: str
    n_sessions: int
    n_syllables: int
    parameters: str
    from_version: str
    is_current: bool


@dataclass(frozen=True)
class VersionsSummary(ShownAsTable):
    """Result of :func:`versions`.

    Attributes
    ----------
    store, model : str
    current : str
        The current version.
    before : str
        The one that was current until now; "" where nothing was changed.
    versions : tuple of LabelVersion
        Oldest first. A version that is only a step is left out, unless it is the current one:
        labels that ``apply`` added by the syllables before a merge, of which the merged version
        was made (its ``from_version``).
    """

    store: str
    model: str
    current: str
    before: str
    versions: tuple[LabelVersion, ...]


def versions(store: StoreLike, *, model: str, use: str | None = None) -> VersionsSummary:
    """List the versions of the labels of a model, or make one of them the current one.

    Nothing else changes: every version stays, and commands that are given no version take the
    current one. So a merge, or labels that ``apply`` added, are taken back and brought again.

    Parameters
    ----------
    store : path or URL
    model : str
    use : str, optional
        Version to make current, such as ``"v1"``.

    Returns
    -------
    VersionsSummary

    Raises
    ------
    InputError
        When there is no such model or version, or another process fits the model.
    """
    labels_path(store, model, use)
    before = ""
    root = access.open_group(store) if use is None else access.open_group(store, "r+")
    if use is not None:
        with model_lock(root, store, model):
            before = str(current_version(root, model))
            if before != use:
                path = f"{layout.model_path(model)}/labels"
                attributes.write(root[path], {"current": use})  # type: ignore[arg-type]
                consolidate(root, [layout.model_path(model)])
    current = str(current_version(root, model))
    labels = access.subgroup(root, f"{layout.model_path(model)}/labels")
    assert labels is not None
    found = tuple(_described(labels, one, current) for one in listed_versions(labels, current))
    return VersionsSummary(
        os.fspath(store), model, current, before if before != current else "", found
    )


def _described(labels: zarr.Group, version: str, current: str) -> LabelVersion:
    group: Any = labels[version]
    origin = provenance_of(dict(group.attrs))
    n_syllables = -1
    if "n_bouts" in group:
        n_syllables = int((np.asarray(group["n_bouts"][:]) > 0).sum())
    return LabelVersion(
        version,
        str(origin.get("action", "")),
        str(origin.get("created", "")),
        int(group["n_frames"].shape[0]),
        n_syllables,
        str(group.attrs.get("parameters", version)),
        str(origin.get("settings", {}).get("from_version", "")),
        version == current,
    )
