"""Groups of sessions: by which coordinates, and which session is in which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from kpms_zarr.store.core.schema import KEYPOINTS
from kpms_zarr.store.errors import InputError

ALL = "all sessions"
"""Name of the one group of a study without groups."""

NOT_GIVEN = "not given"
"""Name of the group of the sessions for which nothing is said."""

_MOST_GROUPS = 20
_MOST_LETTERS = 40
_OWN = {var.name for var in KEYPOINTS} - {"individual"}


def group_coordinates(table: xr.Dataset) -> tuple[str, ...]:
    """Coordinates by which sessions can be grouped: ``group`` first, then by name.

    Parameters
    ----------
    table : Dataset
        ``keypoints`` of a store.

    Returns
    -------
    tuple of str
        Those that a person gave, with 2 to 20 different values, fewer than sessions.
    """
    found = []
    for name, values in table.coords.items():
        if values.dims != ("session",) or name in _OWN:
            continue
        n_values = len({str(value) for value in values.values.tolist()})
        if 2 <= n_values <= min(_MOST_GROUPS, table.sizes["session"] - 1):
            found.append(str(name))
    return tuple(sorted(found, key=lambda name: (name != "group", name)))


def said_of_sessions(table: xr.Dataset) -> dict[str, str]:
    """What people said of each session, in a line: its group first, then all else that is short.

    Parameters
    ----------
    table : Dataset
        ``keypoints`` of a store.
    """
    first = group_coordinates(table)
    others = [
        str(name)
        for name, column in table.coords.items()
        if column.dims == ("session",) and name not in {*_OWN, *first, "recording", "video"}
    ]
    columns = [[str(one) for one in table[name].values] for name in (*first, *others)]
    return {
        str(name): ", ".join(
            one
            for one in row
            if one.strip() and one not in ("nan", str(name)) and len(one) <= _MOST_LETTERS
        )
        for name, *row in zip(table["session"].values, *columns, strict=True)
    }


def groups_of(names: Sequence[str], table: xr.Dataset, by: str) -> list[str]:
    """The group of each of some sessions.

    Parameters
    ----------
    names : sequence of str
        Sessions.
    table : Dataset
        ``keypoints`` of a store; sessions are found in it by name.
    by : str
        Any coordinate of the sessions; "" = all are one group.

    Raises
    ------
    InputError
        For a coordinate that the sessions do not have.
    """
    if not by:
        return [ALL] * len(names)
    if by not in table.coords or table[by].dims != ("session",):
        known = ", ".join(group_coordinates(table)) or "none that makes groups"
        raise InputError(
            expected=f"a coordinate of the sessions: {known}",
            found=repr(by),
            where="by",
            fix="choose one of them, or add it with: `kpms_zarr.annotate(STORE, 'FILE.csv')`",
        )
    keys = map(str, table["session"].values)
    value = dict(zip(keys, map(_text, table[by].values), strict=True))
    return [value.get(name, "") or NOT_GIVEN for name in names]


def _text(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:g}"
    return str(value)
