"""Positions that people clicked in frames of videos, kept to calibrate the noise prior."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.locking import annotations_lock
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.writable import writing
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.timestamps import FramesOf, frames_in

_PLACES = ("first", "second")
"""Groups that are written in turn, so that what holds is always whole."""
_ATTEMPTS = 3
_Key = tuple[str, str, int, int, int, str]


@dataclass(frozen=True)
class Click:
    """Position of a keypoint in a frame, as a person saw it.

    Attributes
    ----------
    session : str
    frame : int
        Of the session.
    keypoint : str
    position : tuple of float
        In units of position of the store; empty = it cannot be seen.
    """

    session: str
    frame: int
    keypoint: str
    position: tuple[float, ...] = ()

    @property
    def place(self) -> tuple[str, int, str]:
        """What was looked at."""
        return self.session, self.frame, self.keypoint


def stored_clicks(store: StoreLike | zarr.Group) -> tuple[Click, ...]:
    """Read the clicks that a store holds, in the order in which they were made.

    Those in sessions that are there no more, or of which other frames were taken since, are left
    out; they come back with these sessions.
    """
    root = store if isinstance(store, zarr.Group) else access.open_group(store)
    there = {_frames_key(one) for one in frames_in(root)}
    return tuple(click for key, click in _read(root).items() if key[:4] in there)


def click_table(clicks: Sequence[Click], space: Sequence[str]) -> pd.DataFrame:
    """Table of annotated positions: ``session``, ``frame``, ``keypoint`` and the axes.

    Parameters
    ----------
    clicks : sequence of Click
        Those of keypoints that cannot be seen are left out.
    space : sequence of str
    """
    rows = [(*click.place, *click.position) for click in clicks if click.position]
    return pd.DataFrame(rows, columns=["session", "frame", "keypoint", *space])


def keep_click(store: StoreLike, click: Click) -> None:
    """Write a click into the store; it takes the place of one at the same keypoint and frame.

    Raises
    ------
    InputError
        When there is no such session, or nothing can be written there.
    """
    _change(store, click, is_kept=True)


def forget_click(store: StoreLike, click: Click) -> None:
    """Take the click at a keypoint and frame out of the store."""
    _change(store, click, is_kept=False)


def _change(store: StoreLike, click: Click, *, is_kept: bool) -> None:
    with writing(store):
        root = access.open_group(store, "r+")
        with annotations_lock(root, store):
            frames = {one.session: one for one in frames_in(root)}
            if click.session not in frames:
                raise InputError(
                    expected="a session of the store",
                    found=repr(click.session),
                    where=os.fspath(store),
                    fix="look which there are: `kpms_zarr.info(STORE)`",
                )
            found = _read(root)
            key = (*_frames_key(frames[click.session]), click.frame, click.keypoint)
            found.pop(key, None)
            if is_kept:
                found[key] = click
            _write(root, found)


def _frames_key(frames: FramesOf) -> tuple[str, str, int, int]:
    return frames.session, frames.source_hash, frames.first_frame, frames.frame_step


def _read(root: zarr.Group) -> dict[_Key, Click]:
    """All clicks, by which frames they are of."""
    for attempt in range(_ATTEMPTS):
        above = access.subgroup(root, layout.ANNOTATIONS)
        current = "" if above is None else attributes.read(dict(above.attrs)).get("current", "")
        if not current:
            return {}
        try:
            return _read_place(root[f"{layout.ANNOTATIONS}/{current}"])
        except (KeyError, FileNotFoundError):  # written anew, twice, in between
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def _read_place(group: zarr.Group | zarr.Array) -> dict[_Key, Click]:
    names = ("session", "source_hash", "first_frame", "frame_step", "frame", "keypoint", "position")
    columns = [np.asarray(group[name][:]).tolist() for name in names]  # type: ignore[index]
    found: dict[_Key, Click] = {}
    for session, source_hash, first, step, frame, keypoint, position in zip(*columns, strict=True):
        key = (str(session), str(source_hash), first, step, frame, str(keypoint))
        is_seen = bool(np.isfinite(position).all())
        found[key] = Click(key[0], frame, key[5], tuple(position) if is_seen else ())
    return found


def _write(root: zarr.Group, clicks: dict[_Key, Click]) -> None:
    """Write all clicks to the place that does not hold, then have it hold; the lock is held."""
    space = read_settings(root).space
    above = access.subgroup(root, layout.ANNOTATIONS)
    if not clicks:
        if above is not None:
            update_attributes(root, layout.ANNOTATIONS, {}, without=["current"])
            access.delete_group(root, layout.ANNOTATIONS)
            consolidate(root)
        return
    if above is None:
        above = root.create_group(
            layout.ANNOTATIONS, attributes=attributes.stored(provenance("calibrate"))
        )
    current = attributes.read(dict(above.attrs)).get("current", _PLACES[1])
    place = _PLACES[current == _PLACES[0]]
    access.delete_group(root, f"{layout.ANNOTATIONS}/{place}")
    group = above.create_group(place)
    rows = list(clicks)
    nothing = (np.nan,) * len(space)
    names = ("session", "source_hash", "first_frame", "frame_step", "frame", "keypoint")
    values = {
        **dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)),
        "space": list(space),
        "position": np.array([clicks[key].position or nothing for key in rows], np.float64),
    }
    layout.write_values(group, "annotations", values)
    attributes.write(group, provenance("calibrate"))
    update_attributes(root, layout.ANNOTATIONS, {"current": place})
    consolidate(root, [layout.ANNOTATIONS])
