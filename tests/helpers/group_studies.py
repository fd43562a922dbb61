"""Syllable tables of simulated studies: sessions and animals in groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr


def simulate_table(
    rng: np.random.Generator,
    group: Sequence[str],
    *,
    animal: Sequence[str] | None = None,
    session: Sequence[str] | None = None,
    n_syllables: int = 6,
    n_bouts: int = 400,
    session_spread: float = 0.3,
    animal_spread: float = 0.0,
    effect: float = 0.0,
    on: str = "",
) -> xr.Dataset:
    """A row for each session, or epoch, with spreads of log usage, durations and speed.

    Parameters
    ----------
    group : sequence of str
        Of each row.
    animal, session : sequence of str, optional
        Of each row (default: each its own).
    session_spread, animal_spread : float
        Standard deviations of the log of usage, duration and speed.
    effect : float
        Added to the logs of syllable 0 in the group ``on``.
    """
    n = len(group)
    names = list(session) if session is not None else [f"s{i:03d}" for i in range(n)]
    animals = list(animal) if animal is not None else names
    spread = {one: rng.normal(0, animal_spread, (3, n_syllables)) for one in sorted({*animals})}
    rows: dict[str, list[np.ndarray]] = {}
    for i in range(n):
        log = spread[animals[i]] + rng.normal(0, session_spread, (3, n_syllables))
        if group[i] == on:
            log[:, 0] += effect
        usage = np.exp(log[0] - np.linspace(0, 1, n_syllables))
        bouts = rng.multinomial(n_bouts, usage / usage.sum())
        mean = 10 * np.exp(log[1])
        frames = rng.gamma(np.maximum(1, bouts), mean)
        frames = np.where(bouts > 0, np.maximum(np.rint(frames), bouts), 0).astype(np.int64)
        follows = usage / usage.sum()
        changes = np.zeros((n_syllables, n_syllables), np.int64)
        for a in range(n_syllables):
            others = np.where(np.arange(n_syllables) == a, 0, follows)
            changes[a] = rng.multinomial(bouts[a], others / others.sum())
        with np.errstate(invalid="ignore"):
            duration = np.where(bouts > 0, frames / bouts * 1000 / 30, np.nan)
        speed = np.where(bouts > 0, 5 * np.exp(log[2]), np.nan)
        for name, value in {
            "n_frames": frames, "n_bouts": bouts, "mean_duration": duration,
            "median_duration": duration * 0.7, "mean_speed": speed, "mean_turning": speed / 10,
            "transition_count": changes,
        }.items():  # fmt: skip
            rows.setdefault(name, []).append(value)
    found = xr.Dataset(
        {
            name: (("row", "state", "state_next")[: np.ndim(value[0]) + 1], np.stack(value))
            for name, value in rows.items()
        },
        {
            "session": ("row", np.asarray(names, dtype=object)),
            "epoch": ("row", np.asarray([""] * n, dtype=object)),
            "group": ("row", np.asarray(group, dtype=object)),
            "animal": ("row", np.asarray(animals, dtype=object)),
            "state": np.arange(n_syllables),
            "state_next": np.arange(n_syllables),
        },
        {"model": "m", "version": "v1"},
    )
    return found


def table_of(
    values: np.ndarray, n_frames: int = 10_000, **coordinates: Sequence[str]
) -> xr.Dataset:
    """A table whose durations are the values (row, state); the syllables are equally frequent."""
    n, k = values.shape
    names = coordinates.pop("session", None) or [f"s{i:03d}" for i in range(n)]
    whole = np.full((n, k), n_frames // k)
    return xr.Dataset(
        {
            "n_frames": (("row", "state"), whole),
            "n_bouts": (("row", "state"), whole // 10),
            "mean_duration": (("row", "state"), values),
        },
        {
            "session": ("row", np.asarray(names, dtype=object)),
            **{name: ("row", np.asarray(one, dtype=object)) for name, one in coordinates.items()},
            "state": np.arange(k),
        },
        {"model": "m", "version": "v1"},
    )
