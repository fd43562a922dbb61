"""Units that are compared: rows of a syllable table pooled, and which of them can be exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.wording import counted, listed, option, plural

_ANIMALS = ("animal", "animal_id", "mouse", "mouse_id", "rat", "rat_id", "subject", "subject_id")
"""Names of coordinates that tell animals apart, for a hint."""
BY_FRAME = ("mean_speed", "mean_turning", "mean_absolute_turning")
"""Variables that are means over frames."""


@dataclass(frozen=True)
class Units:
    """Units that are compared, each of one group; in order of their names and groups.

    Attributes
    ----------
    names : tuple of str
        Of the sessions or animals; one that has several groups stands there once for each.
    group : ndarray, (unit,) int64
        Place in ``groups``.
    block : ndarray, (unit,) int64
        Units that can be exchanged with each other, by number; all 0 where all can.
    groups : tuple of str
        Values of ``by``.
    by, unit : str
        Coordinates that told groups and units apart.
    blocked_by : str
        Coordinate within whose values groups are exchanged; "" where all units can be.
    pooled : xarray.Dataset, (unit, state)
        ``n_frames``, ``n_bouts`` and ``transition_count`` summed; means over bouts (durations) and
        frames (speed, turning).
    design : str
        The design in a sentence.
    notes : tuple of str
        What was left out, and what to think of.
    """

    names: tuple[str, ...]
    group: np.ndarray
    block: np.ndarray
    groups: tuple[str, ...]
    by: str
    unit: str
    blocked_by: str
    pooled: xr.Dataset
    design: str
    notes: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each group."""
        return tuple(np.bincount(self.group, minlength=len(self.groups)).tolist())


def units_of(
    table: xr.Dataset,
    *,
    by: str,
    block: str | None = None,
    unit: str = "session",
    groups: Sequence[str] | None = None,
) -> Units:
    """Pool the rows of a syllable table to units, and find which of them can be exchanged.

    Rows of one unit and one group are one: epochs of a session are not independent. Where ``by``
    differs within units, each unit is a block. Where ``block`` is given and ``by`` is the same in
    all of a block, the block is the unit; where it differs within units that lie in a block, the
    unit is the block, with one value for each group; else groups are exchanged within the block
    alone (exchangeability blocks: Winkler et al. 2014, NeuroImage 92:381; 2015, NeuroImage
    123:253).

    Parameters
    ----------
    table : xarray.Dataset, (row, state)
        As ``syllable_table`` returns it.
    by, block, unit : str
        Coordinates of ``row``.
    groups : sequence of str, optional
        Values of ``by`` to compare, in this order (default: all, sorted).

    Raises
    ------
    InputError
        When there is no such coordinate, fewer than two groups are left, or units lie in several
        blocks.
    """
    notes: list[str] = []
    value, names = (_texts_of(table, one, where) for one, where in ((by, "by"), (unit, "unit")))
    blocks = None if block is None else _texts_of(table, block, "block")
    keep = _kept(table, value, names, blocks, (by, unit, block or ""), groups, notes)
    order = keep[np.lexsort((_texts(table, "epoch")[keep], _texts(table, "session")[keep]))]
    table, value, names = table.isel(row=order), value[order], names[order]
    if unit != "session":
        _require_nested(_texts(table, "session"), names, "session", unit, "unit")
    if blocks is not None and block is not None:
        blocks = blocks[order]
        _require_nested(names, blocks, unit, block, "block")
        if not _differs(blocks, value) or (_differs(names, value) and block != unit):
            unit, names, blocks = block, blocks, None
    blocked_by, within = block if blocks is not None else "", blocks
    if within is None and _differs(names, value):
        blocked_by, within = unit, names
    if within is not None:
        is_alone = np.array([len(set(value[within == one])) < 2 for one in within], bool)
        if is_alone.any() and not is_alone.all():
            alone = sorted(set(within[is_alone]))
            notes.append(
                f"one value of {by} only, which says nothing of a difference within {blocked_by}: "
                f"{listed(alone)}, left out"
            )
            kept = np.flatnonzero(~is_alone)
            table, value, names = table.isel(row=kept), value[kept], names[kept]
            within = within[kept]
    return _pool(table, value, names, within, (by, unit, blocked_by or ""), groups, notes)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    text = f"{value:g}" if isinstance(value, float | np.floating) else str(value).strip()
    return "" if text.lower() in ("nan", "nat") else text


def _texts(table: xr.Dataset, name: str) -> np.ndarray:
    if name not in table.coords:
        return np.full(table.sizes["row"], "", dtype=object)
    return np.array([_text(one) for one in table[name].values.tolist()], dtype=object)


def _texts_of(table: xr.Dataset, name: str, where: str) -> np.ndarray:
    """Values of a coordinate of the rows as text, "" = missing (InputError: there is none)."""
    if name in table.coords and table[name].dims == ("row",):
        return _texts(table, name)
    there = sorted(str(one) for one in table.coords if table[one].dims == ("row",))
    raise InputError(
        expected=f"one of the coordinates {', '.join(there)}",
        found=repr(name),
        where=option(where, name),
        fix="name one of these, or add it with `kpms_zarr.annotate`",
    )


def _kept(
    table: xr.Dataset,
    value: np.ndarray,
    names: np.ndarray,
    blocks: np.ndarray | None,
    called: tuple[str, str, str],
    groups: Sequence[str] | None,
    notes: list[str],
) -> np.ndarray:
    """Rows that are compared; what is left out is noted."""
    keep = np.ones(len(value), bool)
    sessions = _texts(table, "session")

    def leave_out(which: np.ndarray, why: str) -> None:
        gone = keep & which
        if gone.any():
            notes.append(f"{why}: {listed(sorted(set(sessions[gone])))}, left out")
            keep[gone] = False

    leave_out(value == "", f"no value of {called[0]}")
    if groups is not None:
        wanted = [_text(one) for one in groups]
        there = sorted(set(value[keep]))
        absent = [one for one in wanted if one not in there]
        if absent or len(set(wanted)) < len(wanted):
            raise InputError(
                expected=f"different values of {called[0]}, of {', '.join(there) or 'none'}",
                found=", ".join(map(repr, wanted)),
                where="`groups=`",
                fix="name values that sessions have, each once",
            )
        others = sorted({one for one in there if one not in wanted})
        if others:
            notes.append(f"not compared, as asked: {called[0]} {listed(others)}")
        keep &= np.isin(value, wanted)
    if called[1] != "session":
        leave_out(names == "", f"no value of {called[1]}")
    if blocks is not None:
        leave_out(blocks == "", f"no value of {called[2]}")
    before = sorted(set(value[keep]))
    leave_out(table["n_frames"].values.sum(1) == 0, "no labelled frames")
    empty = [one for one in before if one not in set(value[keep])]
    if empty:
        notes.append(f"{called[0]} {listed(empty)} has no labelled frames at all: no group of it")
    found = sorted(set(value[keep]))
    if len(found) < 2:
        raise InputError(
            expected=f"sessions with two values of {called[0]} or more",
            found=f"only {found[0]!r}" if found else "none",
            where=option("by", called[0]),
            fix="choose another coordinate, or add values with `kpms_zarr.annotate`",
        )
    return np.flatnonzero(keep)


def _differs(names: np.ndarray, value: np.ndarray) -> bool:
    """Whether any of the names has several values."""
    return len({*zip(names, value, strict=True)}) > len(set(names))


def _require_nested(inner: np.ndarray, outer: np.ndarray, a: str, b: str, where: str) -> None:
    """Refuse an inner thing that lies in several outer ones (InputError)."""
    split = sorted(one for one in set(inner) if len(set(outer[inner == one])) > 1)
    if split:
        raise InputError(
            expected=f"one value of {b} for each {a}",
            found=f"several for {listed(split)}",
            where=option(where, b),
            fix=f"give a coordinate that holds whole {plural(a)}, such as the animal; for "
            f"conditions within a {a} leave it out, and name them by `by=`",
        )


def _pool(
    table: xr.Dataset,
    value: np.ndarray,
    names: np.ndarray,
    within: np.ndarray | None,
    called: tuple[str, str, str],
    groups: Sequence[str] | None,
    notes: list[str],
) -> Units:
    by, unit, blocked_by = called
    order = [_text(one) for one in groups] if groups is not None else _sorted(set(value))
    order = [one for one in order if one in set(value)]
    keys = sorted({*zip(names, value, strict=True)}, key=lambda key: (key[0], order.index(key[1])))
    place = {key: i for i, key in enumerate(keys)}
    at = np.array([place[key] for key in zip(names, value, strict=True)])
    share = np.zeros((len(keys), len(at)))
    share[at, np.arange(len(at))] = 1
    block = np.zeros(len(keys), np.int64)
    if within is not None:
        number = {one: i for i, one in enumerate(sorted(set(within)))}
        block[at] = [number[one] for one in within]
    sessions = _texts(table, "session")
    pooled = _sums(table, share)
    pooled["n_sessions"] = ("unit", [len(set(sessions[at == i])) for i in range(len(keys))])
    group = np.array([order.index(one) for _, one in keys])
    names_of = tuple(name for name, _ in keys)
    found = Units(
        names_of, group, block, tuple(order), by, unit, blocked_by, pooled, design="", notes=()
    )
    said = (*notes, *_hints(table, found, sessions))
    return replace(found, design=_design(found, len(set(sessions))), notes=said)


def _sorted(values: set[str]) -> list[str]:
    try:
        return sorted(values, key=float)
    except ValueError:
        return sorted(values)


def _sums(table: xr.Dataset, share: np.ndarray) -> xr.Dataset:
    """Sums and means of the rows of each unit; share: (unit, row), 1 = is of it."""
    frames = table["n_frames"].values.astype(np.float64)
    bouts = table["n_bouts"].values.astype(np.float64)
    found = xr.Dataset({"n_frames": (("unit", "state"), share @ frames),
                        "n_bouts": (("unit", "state"), share @ bouts)},
                       {"state": table["state"].values})  # fmt: skip
    weights = {"mean_duration": bouts, **dict.fromkeys(BY_FRAME, frames)}
    for name, weight in weights.items():
        if name not in table:
            continue
        number = table[name].values.astype(np.float64)
        known = np.isfinite(number) & (weight > 0)
        total = share @ np.where(known, weight, 0)
        with np.errstate(invalid="ignore"):
            mean = share @ np.where(known, weight * np.nan_to_num(number), 0) / total
        found[name] = (("unit", "state"), mean)
    if "median_duration" in table and (share.sum(1) <= 1).all():
        found["median_duration"] = (("unit", "state"), share @ np.nan_to_num(
            table["median_duration"].values))  # fmt: skip
        found["median_duration"] = found["median_duration"].where(found["n_bouts"] > 0)
    if "transition_count" in table:
        changes = table["transition_count"].values.astype(np.float64)
        found["transition_count"] = (
            ("unit", "state", "state_next"), np.tensordot(share, changes, 1)
        )  # fmt: skip
    return found


def _hints(table: xr.Dataset, found: Units, sessions: np.ndarray) -> list[str]:
    notes = []
    ones = [name for name, n in zip(found.groups, found.sizes, strict=True) if n == 1]
    if ones:
        notes.append(
            f"{found.by} {listed(ones)} has one {found.unit} only: nothing tells how far another "
            "would differ from it"
        )
    for name in _ANIMALS if found.unit == "session" and not found.blocked_by else ():
        animals = _texts(table, name)
        n = len(set(animals))
        if "" not in animals and n < len(set(sessions)):
            notes.append(
                f"{counted(len(set(sessions)), 'session')} of {counted(n, name)} are taken for "
                f"independent; if {plural(name)} were given their {found.by}, "
                f"{option('block', name)} makes them the units"
            )
            break
    if found.blocked_by not in ("", found.unit):
        notes.append(
            f"{plural(found.unit)} of one {found.blocked_by} are exchanged as if it answered to "
            f"{found.by} like any other; {option('unit', found.blocked_by)} compares one value of "
            f"each {found.blocked_by} for each group, and holds where answers differ"
        )
    return notes


def _design(found: Units, n_sessions: int) -> str:
    """The design in words."""
    sizes = ", ".join(f"{n} {name}" for name, n in zip(found.groups, found.sizes, strict=True))
    units, n_units = plural(found.unit), counted(len(found.names), found.unit)
    if not found.blocked_by:
        of = "" if found.unit == "session" else f" of {counted(n_sessions, 'session')}"
        pooled = "" if found.unit == "session" else ", its sessions pooled"
        return (
            f"{found.by} differs between {units}: {n_units}"
            f"{of}, each one unit{pooled} ({sizes}); groups are exchanged between all of them"
        )
    n_blocks = counted(int(found.block.max()) + 1, found.blocked_by)
    if found.blocked_by == found.unit:
        return (
            f"{found.by} differs within {units}: {n_blocks}, each a block with one value for "
            f"each of its groups ({sizes}); groups are exchanged within each {found.unit} alone"
        )
    return (
        f"{found.by} differs within {plural(found.blocked_by)}: {n_units}, "
        f"each one unit ({sizes}), in {counted(int(found.block.max()) + 1, 'block')} by "
        f"{found.blocked_by}; groups are exchanged within each {found.blocked_by} alone"
    )
