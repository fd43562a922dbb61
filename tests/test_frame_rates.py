"""Frame rates that are corrected after a fit: labels of that time are read at the new ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kpms_zarr
from helpers.whole_study import NAMES, write_study
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.store.ingest.annotate import AnnotateSummary
from kpms_zarr.viz.shared.reading import label_sessions

RATES = {"s0": 60.0, "s2": 25.0}


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("rates") / "s.zarr"
    write_study(store)
    return store


@pytest.fixture(scope="module")
def corrected(before, tmp_path_factory) -> tuple[Path, AnnotateSummary]:
    folder = tmp_path_factory.mktemp("corrected")
    store = shutil.copytree(before, folder / "s.zarr")
    table = folder / "fps.csv"
    table.write_text("session,fps\n" + "".join(f"{name},{fps}\n" for name, fps in RATES.items()))
    return store, kpms_zarr.annotate(store, table)


def test_times_of_labels__follow_new_frame_rates(before, corrected, tmp_path):
    store, _ = corrected
    now = [RATES.get(name, 30.0) for name in NAMES]
    labels = kpms_zarr.open_labels(store, "m")
    assert labels["fps"].values.tolist() == now
    assert [one.fps for one in label_sessions(labels)] == now
    assert [one.fps for one in PosedLabels(store, "m").sessions] == now
    old, new = (kpms_zarr.syllable_table(place, model="m") for place in (before, store))
    for row, fps in enumerate(now):
        np.testing.assert_allclose(
            new["mean_duration"].values[row], old["mean_duration"].values[row] * 30 / fps, rtol=1e-5
        )
    times = {}
    for kind, run in {
        "tables": lambda out: kpms_zarr.tables(store, model="m", out=out, to="csv"),
        "exported": lambda out: kpms_zarr.export(store, model="m", to="csv", out=out),
    }.items():
        run(tmp_path / kind)
        files = sorted((tmp_path / kind).rglob("*.csv"))
        times[kind] = {path.stem: pd.read_csv(path, comment="#") for path in files}
    frames = times["tables"]["frames"]
    ends = frames.groupby("session")["time_s"].max()
    lengths = dict(zip(NAMES, kpms_zarr.open_labels(store, "m")["n_frames"].values, strict=True))
    for name, fps in zip(NAMES, now, strict=True):
        assert ends[name] == pytest.approx((lengths[name] - 1) / fps, abs=1e-3)
        (one,) = (table for stem, table in times["exported"].items() if stem == name)
        assert one["time (s)"].max() == pytest.approx((lengths[name] - 1) / fps, abs=1e-3)


def test_annotate__says_what_does_not_follow(before, corrected, tmp_path):
    store, said = corrected
    assert any("frame rates" in note and "m labelled" in note for note in said.notes)
    stored = [kpms_zarr.summary(place, model="m")["median_duration"] for place in (before, store)]
    np.testing.assert_array_equal(*stored)
    same = tmp_path / "same.csv"
    same.write_text("session,fps\ns0,60\n")
    assert not any("frame rates" in note for note in kpms_zarr.annotate(store, same).notes)


def test_merge__of_labels_counts_durations_at_the_new_rates(corrected, tmp_path):
    store = shutil.copytree(corrected[0], tmp_path / "s.zarr")
    kpms_zarr.merge(store, model="m", groups="0,1")
    found = kpms_zarr.summary(store, model="m")
    own = kpms_zarr.syllable_table(store, model="m").sel(state=found["state"].values)
    weight = own["n_bouts"].values
    mean = np.nansum(own["mean_duration"].values * weight, 0) / weight.sum(0)
    np.testing.assert_allclose(found["mean_duration"], mean, rtol=1e-5)
