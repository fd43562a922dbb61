"""Consolidated metadata: one object, so that a store opens with one request, not hundreds.

Our own code never reads it: what it says may be older than the store, as while a fit runs.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import zarr

from kpms_zarr.store.core.attributes import changed
from kpms_zarr.store.core.zarr_internals import default_buffer_prototype, sync

_FILE = "zarr.json"
_PASSING = re.compile(
    r"lock|models/[^/]+/(chain|lock|progress|labels/lock)|(scans/[^/]+|changepoints)/lock"
)
"""Groups that come and go while a fit or an ingest runs, or syllables are named."""
_EMPTY = {"kind": "inline", "must_understand": False, "metadata": {}}


def consolidate(root: zarr.Group, changed: Iterable[str] | None = None) -> None:
    """Write the metadata of all groups and arrays into those of the root.

    Groups below the root that have arrays get theirs as well, and those above the changed ones,
    where they have theirs already.

    Parameters
    ----------
    root : zarr.Group
    changed : iterable of str, optional
        Paths of the groups whose metadata have changed since the last time; default: all.
    """
    sync(_consolidate(root.store_path.store, root.store_path.path, changed))


def update_attributes(
    root: zarr.Group, path: str, changes: Mapping[str, Any], without: Iterable[str] = ()
) -> None:
    """Change attributes of a group in one write, its consolidated metadata kept.

    Those are taken that are stored now, not those that somebody read some time ago.
    """
    sync(_update(root.store_path.store, root.store_path.path, path, changes, tuple(without)))


def is_consolidated(root: zarr.Group, path: str) -> bool:
    """Whether a group below the root holds the metadata of what is in it."""
    node = sync(_Store(root.store_path.store, root.store_path.path).get(path))
    return node is not None and bool(node.get("consolidated_metadata"))


def is_current(root: zarr.Group) -> bool:
    """Whether the consolidated metadata of the root say what the groups and arrays say."""
    place = _Store(root.store_path.store, root.store_path.path)
    top = sync(place.get(""))
    return bool(_known(top) == sync(place.walk("")))


async def _update(
    store: Any, base: str, path: str, changes: Mapping[str, Any], without: tuple[str, ...]
) -> None:
    place = _Store(store, base)
    node = await place.get(path)
    if node is None:
        return
    gone = dict.fromkeys(without)
    node["attributes"] = changed(node["attributes"], {**changes, **gone})
    await place.set(path, node)
    top = await place.get("") if path else None
    known = _known(top)
    if top is not None and path in known:
        known[path]["attributes"] = node["attributes"]
        await place.set("", top)


async def _consolidate(store: Any, base: str, changed: Iterable[str] | None) -> None:
    place = _Store(store, base)
    found: dict[str, Any] = {}
    known = _known(await place.get(""))
    paths = [""] if changed is None or not known else list(changed)
    for path in paths:
        found.update(await place.walk(path))
        for parent in _parents(path):
            node = await place.get(parent)
            if parent and node is not None:
                found[parent] = _plain(node)
    for name, node in found.items():
        if node["node_type"] == "group" and any(_is_below(name, path) for path in paths):
            await place.put(name, await place.get(name), _children(found, name))
    for name in sorted({parent for path in paths for parent in _parents(path)}):
        node = await place.get(name)
        if _known(node):
            await _renew(place, name, node, _children(found, name), _inside(paths, name))
    await _renew(place, "", await place.get(""), found, paths)


async def _renew(
    place: _Store, name: str, node: dict[str, Any] | None, found: dict[str, Any], paths: list[str]
) -> None:
    """Write the metadata found below some paths of a group, and those stored for the others."""
    # As it is now: somebody else may have written other groups meanwhile.
    kept = {n: v for n, v in _known(node).items() if not any(_is_below(n, p) for p in paths)}
    await place.put(name, node, dict(sorted({**kept, **found}.items())))


def _inside(paths: Iterable[str], name: str) -> list[str]:
    """Select the paths below a group, relative to it."""
    return [path[len(name) + 1 :] for path in paths if path.startswith(f"{name}/")]


def _known(top: dict[str, Any] | None) -> dict[str, Any]:
    """What consolidated metadata say; changes to it change them."""
    return ((top or {}).get("consolidated_metadata") or {}).get("metadata") or {}


def _is_below(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(f"{path}/")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _children(metadata: dict[str, Any], name: str) -> dict[str, Any]:
    start = f"{name}/"
    return {path[len(start) :]: node for path, node in metadata.items() if path.startswith(start)}


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    if node["node_type"] == "group":
        return {**node, "consolidated_metadata": _EMPTY}
    return node


class _Store:
    """A Zarr store below a path, by names relative to it."""

    def __init__(self, store: Any, base: str) -> None:
        self._store, self._base = store, base

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._base, name) if part)

    async def get(self, name: str) -> dict[str, Any] | None:
        found = await self._store.get(
            self._key(f"{name}/{_FILE}" if name else _FILE), default_buffer_prototype()
        )
        return None if found is None else dict(json.loads(found.to_bytes()))

    async def put(self, name: str, node: dict[str, Any] | None, below: dict[str, Any]) -> None:
        """Write metadata of a group with those below it, where that changes anything."""
        if node is None:
            return
        new = {**node, "consolidated_metadata": {**_EMPTY, "metadata": below}}
        if new != node:
            await self.set(name, new)

    async def set(self, name: str, node: dict[str, Any]) -> None:
        """Write metadata."""
        content = json.dumps(node, indent=2, allow_nan=True).encode()
        buffer = default_buffer_prototype().buffer.from_bytes(content)
        await self._store.set(self._key(f"{name}/{_FILE}" if name else _FILE), buffer)

    async def walk(self, name: str) -> dict[str, Any]:
        """Metadata of a group or array and of all below it, by path; the root itself left out."""
        node = await self.get(name)
        if node is None:
            return {}
        found = {name: _plain(node)} if name else {}
        if node["node_type"] == "group":
            children = [
                f"{name}/{child.rstrip('/')}".lstrip("/")
                async for child in self._store.list_dir(self._key(name))
                if child.rstrip("/") != _FILE
            ]
            parts = await asyncio.gather(
                *(self.walk(path) for path in sorted(children) if not _PASSING.fullmatch(path))
            )
            for part in parts:
                found.update(part)
        return found
