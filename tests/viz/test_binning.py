"""The data behind the raster: exact modes of the frames in which columns lie."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.levels import bin_modes
from kpms_zarr.viz.ethograms import binning
from kpms_zarr.viz.ethograms.binning import AFTER_END, Binned

LEVELS = (16, 64, 256)


def labels_of(
    rows: list[np.ndarray], fps: list[float], certainty: list[np.ndarray] | None = None
) -> xr.Dataset:
    """Labels in memory; padding holds 9, which no view may ever show."""
    table = np.full((len(rows), max(map(len, rows))), 9, np.int16)
    known = np.full(table.shape, 0.125, np.float16)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
        if certainty:
            known[i, : len(row)] = certainty[i]
    data = {"syllable": (("session", "frame"), table)}
    if certainty:
        data["certainty"] = (("session", "frame"), known)
    coordinates = {
        "session": [f"s{i}" for i in range(len(rows))],
        "n_frames": ("session", [len(row) for row in rows]),
        "fps": ("session", fps),
    }
    return xr.Dataset(data, coordinates)


def levels_of(labels: xr.Dataset) -> xr.Dataset:
    """Their levels of detail, as a store has them."""
    found: dict[str, tuple[tuple[str, str], np.ndarray]] = {}
    for n in LEVELS:
        shape = (labels.sizes["session"], -(-labels.sizes["frame"] // n))
        arrays = {
            "syllable": np.full(shape, -1, np.int16),
            "share": np.full(shape, np.nan, np.float16),
            "certainty": np.full(shape, np.nan, np.float16),
        }
        for i, length in enumerate(labels["n_frames"].values):
            row = [labels[v].values[i, :length] for v in ("syllable", "certainty") if v in labels]
            modes = bin_modes(row[0], n, *row[1:])
            for name, array in arrays.items():
                values = getattr(modes, name)
                if values is not None:
                    array[i, : len(values)] = values
        for name, array in arrays.items():
            if name != "certainty" or "certainty" in labels:
                found[f"{name}_{n}"] = (("session", f"bin_{n}"), array)
    return xr.Dataset(found)


def bouts(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    return np.repeat(rng.integers(-1, 8, n_frames), rng.geometric(0.1, n_frames))[:n_frames]


def naive(rows: list[np.ndarray], fps: list[float], view: binning.View, levels: list[int]):
    """Label and share of every cell, one frame after the other."""
    syllable = np.full(view.syllable.shape, AFTER_END)
    share = np.full(view.syllable.shape, np.nan)
    for i, place in enumerate(view.shown):
        rate = fps[place]
        wanted = [n for n in levels if n >= view.seconds * rate - 1e-9]
        n = wanted[0] if wanted else levels[-1]
        for column in range(view.syllable.shape[1]):
            time = view.start + (column + 0.5) * view.seconds
            part = rows[place][int(time * rate) // n * n :][:n].tolist()
            if part:
                count = Counter(part)
                best = min(count, key=lambda k: (-count[k], k if k >= 0 else 99))
                syllable[i, column], share[i, column] = best, count[best] / len(part)
    return syllable, share


SEVERAL = [30.0, 60.0, 25.0, 30.0]


@settings(max_examples=examples(60), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    has_levels=st.booleans(),
    rates=st.sampled_from([[30.0] * 4, SEVERAL]),
    window=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    n_columns=st.integers(1, 90),
    n_rows=st.integers(1, 5),
)
def test_view__shows_the_mode_of_the_frames_of_each_column(
    seed: int,
    has_levels: bool,
    rates: list[float],
    window: tuple[float, float],
    n_columns: int,
    n_rows: int,
) -> None:
    rng = np.random.default_rng(seed)
    rows = [bouts(rng, n) for n in (700, 333, 16, 1)]
    data = labels_of(rows, rates)
    binned = Binned(data, levels_of(data) if has_levels else None, model="m")
    start, stop = sorted(part * binned.seconds for part in window)
    view = binned.view(start, stop, n_columns=n_columns, n_rows=n_rows)
    fine = (2, 4, 8) if view.frames_per_bin < 16 else ()
    coarse = LEVELS if has_levels else binning.LEVEL_FRAMES
    syllable, share = naive(rows, rates, view, [1, *fine, *coarse])
    np.testing.assert_array_equal(view.syllable, syllable)
    np.testing.assert_allclose(view.certainty, share, atol=1e-3)
    assert view.start <= start + 1e-9
    assert view.stop >= min(stop, binned.seconds) - 1e-9
    assert len(view.shown) <= n_rows
    if view.frames_per_bin < 256:
        assert view.syllable.shape[1] <= n_columns + 1
    assert view.note == ""


def test_view__bins_of_few_frames_are_counted_where_that_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [bouts(np.random.default_rng(i), 900) for i in range(4)]
    data = labels_of(rows, [30.0] * 4)
    binned = Binned(data, levels_of(data), model="m")
    assert binned.view(n_columns=450).frames_per_bin == 2
    assert binned.view(n_columns=150).frames_per_bin == 8
    assert binned.view(n_columns=100).frames_per_bin == 16
    monkeypatch.setattr(binning, "_MOST_COUNTED", 4 * 900 - 1)
    assert binned.view(n_columns=450).frames_per_bin == 16
    assert binned.view(n_columns=900).frames_per_bin == 1


def test_view__rows_in_the_order_asked_for() -> None:
    rows = [np.full(40, i) for i in range(5)]
    binned = Binned(labels_of(rows, [30.0] * 5), model="m", sessions=["s3", "s0", "s4"])
    assert binned.view().syllable[:, 0].tolist() == [3, 0, 4]
    assert binned.view(first_row=1, last_row=1).syllable[:, 0].tolist() == [0]
    assert binned.only("s4").view().syllable[:, 0].tolist() == [4]
    with pytest.raises(InputError):
        Binned(labels_of(rows, [30.0] * 5), model="m", sessions=["s9"])


def test_view__the_same_rows_wherever_it_begins() -> None:
    rows = [np.full(40, i) for i in range(100)]
    binned = Binned(labels_of(rows, [30.0] * 100), model="m")
    whole = binned.view(n_rows=25)
    assert (whole.step, whole.shown[:3].tolist()) == (4, [2, 6, 10])
    part = binned.view(first_row=5, last_row=95, n_rows=25)
    assert set(part.shown) <= set(whole.shown)
    assert part.first == 4
    assert (part.syllable[:, 0] == part.shown).all()


def test_view__outside_of_what_there_is() -> None:
    binned = Binned(labels_of([np.arange(5)], [30.0]), model="m")
    assert binned.view(-5.0, 99.0).syllable.tolist() == [[0, 1, 2, 3, 4]]
    assert binned.view(7.0, 9.0).syllable.tolist() == [[4]]
    assert binned.view(first_row=-3, last_row=8).shown.tolist() == [0]


def test_view__certainty_of_the_labels_where_it_is_known() -> None:
    rng = np.random.default_rng(0)
    rows = [bouts(rng, 640)]
    known = [rng.uniform(size=640).astype(np.float16)]
    known[0][:16] = np.nan
    data = labels_of(rows, [30.0], known)
    for levels in (levels_of(data), None):
        binned = Binned(data, levels, model="m")
        assert binned.certainty_name == "certainty"
        frames = binned.view(n_columns=640)
        np.testing.assert_array_equal(frames.certainty, known)
        bins = binned.view(n_columns=40)
        wanted = known[0].reshape(40, 16).astype(np.float32).mean(1)
        np.testing.assert_allclose(bins.certainty[0], wanted, atol=1e-3)


def test_view__many_sessions_are_not_read_frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a chunk of its own: too many requests for a zoom."""
    rows = [np.full(640, i % 7) for i in range(6)]
    data = labels_of(rows, [30.0] * 6)
    monkeypatch.setattr(binning, "_MOST_CHUNKS", 4)
    binned = Binned(data, levels_of(data), model="m")
    assert binned.view(0.0, 1.0).frames_per_bin == 16
    assert binned.view(0.0, 1.0, 0, 3).frames_per_bin == 1


def test_view__without_levels_reads_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [bouts(rng, 4096) for _ in range(8)]
    data = labels_of(rows, [30.0] * 8)
    monkeypatch.setattr(binning, "LABEL_FRAMES_PER_CHUNK", 1024)
    monkeypatch.setattr(binning, "_MOST_FRAMES", 3 * 4096)
    binned = Binned(data, None, model="m")
    view = binned.view(n_columns=64)
    assert (view.frames_per_bin, view.step) == (64, 3)
    assert "one session of 3" in view.note
    assert "build_levels(store, 'm')" in view.note
    with_levels = Binned(data, levels_of(data), model="m").view(n_columns=64)
    np.testing.assert_array_equal(view.syllable, with_levels.syllable[view.shown])
    assert with_levels.note == ""

    monkeypatch.setattr(binning, "_MOST_FRAMES", 1024)
    view = binned.view(n_columns=64)
    assert "first frames of each bin" in view.note
    assert len(view.shown) == 1
    first = [bin_modes(rows[view.shown[0]][i : i + 16], 16).syllable[0] for i in range(0, 4096, 64)]
    assert view.syllable[0].tolist() == first
