from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import OpenModel


def _dataset(*rows: list[int], fps: float = 10.0) -> xr.Dataset:
    """Labels in memory; padding holds 9, which no view may ever show."""
    table = np.full((len(rows), max(map(len, rows))), 9, dtype=np.int16)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    coordinates = {
        "session": [f"s{i}" for i in range(len(rows))],
        "n_frames": ("session", [len(row) for row in rows]),
        "fps": ("session", [fps] * len(rows)),
    }
    return xr.Dataset({"syllable": (("session", "frame"), table)}, coordinates)


def _naive_modes(row: list[int], frames_per_bin: float) -> list[int]:
    bins: dict[int, list[int]] = {}
    for frame, label in enumerate(row):
        bins.setdefault(int(frame // frames_per_bin), []).append(label)
    order = [*range(10), -1]
    return [max(order, key=bins[i].count) for i in sorted(bins)]


def test_label_blocks__come_in_their_order_and_end_when_nobody_wants_more() -> None:
    data = _dataset([*range(40)], [*range(40, 95)])
    blocks = list(iter_blocks(reading.label_sessions(data), 3))
    assert len(blocks) > 20  # more than are read ahead
    found = list(reading.label_blocks(data, blocks))
    assert [block for block, _ in found] == blocks
    assert np.concatenate([values for _, values in found]).tolist() == [*range(95)]
    n_threads = threading.active_count()
    some = reading.label_blocks(data, blocks)
    assert next(some)[1].tolist() == [0, 1, 2]
    assert threading.active_count() > n_threads
    some.close()
    assert threading.active_count() == n_threads


def test_mode_bins__the_commonest_label_not_the_mean() -> None:
    data = _dataset([2, 2, 2, 8, 8, 1, 1, 7, 7, 7, 3])
    (session,) = reading.label_sessions(data)
    found = reading.mode_bins(data, session, frames_per_bin=5)
    assert found.tolist() == [2, 7, 3]
    # The wrong twin: means of labels name syllables that are not there at all.
    row = data["syllable"].values[0]
    assert [round(row[i : i + 5].mean()) for i in (0, 5, 10)] == [4, 5, 3]


def test_mode_bins__ties_go_to_the_lower_number_and_none_only_leads() -> None:
    data = _dataset([5, 5, 3, 3, -1, -1, 4, 4, -1, -1, -1, 0])
    (session,) = reading.label_sessions(data)
    assert reading.mode_bins(data, session, frames_per_bin=4).tolist() == [3, 4, -1]


@settings(max_examples=examples(60), deadline=None)
@given(
    row=st.lists(st.integers(-1, 8), min_size=1, max_size=60),
    frames_per_bin=st.sampled_from([1.0, 1.5, 2.0, 7.0, 100.0]),
    block_frames=st.integers(1, 70),
)
def test_mode_bins__any_split_into_blocks_gives_the_same(
    row: list[int], frames_per_bin: float, block_frames: int
) -> None:
    data = _dataset([0] * 80, row)
    session = reading.label_sessions(data)[1]
    found = reading.mode_bins(
        data, session, frames_per_bin=frames_per_bin, block_frames=block_frames
    )
    assert found.tolist() == _naive_modes(row, frames_per_bin)


def test_mode_bins__padding_never_shows() -> None:
    data = _dataset([0] * 50, [1] * 7)
    session = reading.label_sessions(data)[1]
    assert reading.mode_bins(data, session, frames_per_bin=5).tolist() == [1, 1]


def test_first_bouts__begin_in_time_and_are_not_cut_there() -> None:
    data = _dataset([0] * 6 + [1] * 9 + [2] * 5)
    (session,) = reading.label_sessions(data)
    found = reading.first_bouts(data, session, seconds=1.0)
    assert found.start.tolist() == [0, 6]
    assert found.stop.tolist() == [6, 15]
    assert found.syllable.tolist() == [0, 1]


def test_first_bouts__padding_never_shows() -> None:
    data = _dataset([0] * 50, [1] * 7)
    found = reading.first_bouts(data, reading.label_sessions(data)[1], seconds=5.0)
    assert (found.start.tolist(), found.stop.tolist()) == ([0], [7])
    assert found.syllable.tolist() == [1]


def test_overall_median__of_all_bouts_of_all_sessions(
    store: Path, labels: list[np.ndarray], helpers: SimpleNamespace
) -> None:
    lengths = []
    for row in labels:
        syllable, length = helpers.runs(row)
        lengths += list(length[syllable >= 0] * 1000 / helpers.study.fps)
    assert reading.overall_median(open_labels(store, "m")) == pytest.approx(np.median(lengths))


def test_overall_median__between_two_bins_and_without_bouts() -> None:
    def data(*count: int) -> xr.Dataset:
        return xr.Dataset(
            {"duration_count": (("state", "duration"), [count])}, {"duration": [10.0, 20.0, 30.0]}
        )

    assert reading.overall_median(data(2, 0, 2)) == 20.0
    assert reading.overall_median(data(1, 2, 0)) == 20.0
    assert np.isnan(reading.overall_median(data(0, 0, 0)))


def test_used_states__at_least_half_a_percent_most_frequent_first() -> None:
    data = xr.Dataset({"frequency": ("state", [0.004, 0.2, 0.0, 0.005, 0.791, np.nan])})
    assert reading.used_states(data).tolist() == [4, 1, 3]


def test_label_sessions__by_name_with_an_error_that_helps() -> None:
    data = _dataset([0, 1], [2], [3])
    assert [s.index for s in reading.label_sessions(data, names=["s2", "s0"])] == [2, 0]
    assert [s.name for s in reading.label_sessions(data, limit=2)] == ["s0", "s1"]
    with pytest.raises(InputError, match="'nobody'"):
        reading.label_sessions(data, names=["s0", "nobody"])
    with pytest.raises(InputError, match="at least one session"):
        reading.label_sessions(data, limit=0)


def test_stages__runs_of_sweeps() -> None:
    def data(*names: str) -> xr.Dataset:
        return xr.Dataset({"trace_stage": ("sweep", np.array(names, dtype=object))})

    found = reading.stages(data("ar", "ar", "full", "full", "full"))
    assert [(s.name, s.start, s.stop, s.label) for s in found] == [
        ("ar", 0, 2, "AR stage"),
        ("full", 2, 5, "full stage"),
    ]
    assert [s.n_sweeps for s in found] == [2, 3]
    assert [(s.name, s.start, s.stop) for s in reading.stages(data("full"))] == [("full", 0, 1)]


def test_stages__releases_before_there_were_any() -> None:
    (only,) = reading.stages(xr.Dataset({"trace_kappa": ("sweep", np.zeros(4))}))
    assert (only.name, only.label, only.n_sweeps) == ("", "", 4)
    assert reading.stages(xr.Dataset()) == ()


def test_parameters__labels_alone_are_said_to_be_so(fresh: Path, helpers: SimpleNamespace) -> None:
    helpers.publish(fresh, helpers.truth(), with_parameters=False)
    with pytest.raises(reading.MissingData, match="labels only"):
        OpenModel(fresh, "m").parameters_with()
