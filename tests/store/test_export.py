"""Exports, read back by independent readers: h5py, pandas, xarray, movement, pynwb."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import kpms_zarr
from helpers.model import N_LATENT, Model, publish_model
from kpms_zarr import cli
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.export import packages
from kpms_zarr.store.export import source as source_module
from kpms_zarr.store.export.export import export, file_name
from kpms_zarr.store.export.source import ExportSource
from kpms_zarr.store.ingest.label_sources import source_of
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(lengths=(90, 120), n_keypoints=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "s.zarr"
    write_store(path, STUDY)
    return path


@pytest.fixture(scope="module")
def model(store: Path) -> Model:
    found = publish_model(store)
    kpms_zarr.name_syllable(store, "m", 1, name="rear", description="stands up")
    return found


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that sessions have several of."""
    monkeypatch.setattr(source_module, "_FRAMES", 32)


def filled(labels: np.ndarray) -> np.ndarray:
    """Labels as the published package begins: the first one stands for those that are missing."""
    first = int((labels >= 0).argmax())
    return np.concatenate([np.full(first, labels[first]), labels[first:]])


def test_kpms__is_read_by_h5py_and_by_our_own_reader(
    store: Path, model: Model, tmp_path: Path
) -> None:
    done = export(store, model="m", to="kpms", out=tmp_path)
    assert done.n_sessions == 2
    assert all((tmp_path / name).is_file() for name in done.files)
    with h5py.File(tmp_path / "results.h5") as file:
        assert set(file) == set(model.syllable)
        for name, group in file.items():
            assert group.attrs["type"] == "dict"
            assert group.attrs["fps"] == STUDY.fps
            assert group["syllable"].dtype == np.int64
            np.testing.assert_array_equal(group["syllable"], filled(model.syllable[name]))
            assert group.attrs["first_labelled_frame"] == 3
            for data, values in (
                ("latent_state", model.latent), ("centroid", model.centroid),
                ("heading", model.heading),
            ):  # fmt: skip
                assert group[data].dtype == np.float64
                assert group[data].compression is None
                np.testing.assert_array_equal(group[data], values[name])
    for given in (tmp_path / "results.h5", tmp_path / "results"):
        source = source_of(given, "results")
        for piece in source.pieces(source.keys):
            np.testing.assert_array_equal(piece.values, filled(model.syllable[piece.key]))


def test_kpms__tables_have_the_published_columns(store: Path, model: Model, tmp_path: Path) -> None:
    export(store, model="m", to="kpms", out=tmp_path / "a")
    export(store, model="m", to="csv", out=tmp_path / "b", sessions=["session_001"])
    published = ["syllable", "centroid x", "centroid y", "heading"]
    published += [f"latent_state {i}" for i in range(N_LATENT)]
    plain = pd.read_csv(tmp_path / "a" / "results" / "session_001.csv")
    assert list(plain) == published
    np.testing.assert_array_equal(plain["syllable"], filled(model.syllable["session_001"]))
    np.testing.assert_allclose(plain["heading"], model.heading["session_001"], atol=5.1e-5)
    assert not (tmp_path / "b" / "session_000.csv").exists()
    more = pd.read_csv(tmp_path / "b" / "session_001.csv")
    assert list(more)[: len(published)] == published
    assert list(more)[len(published) :] == ["frame", "time (s)", "certainty", "name"]
    np.testing.assert_allclose(more["time (s)"], more["frame"] / STUDY.fps, atol=5.1e-5)
    assert set(more["name"][more["syllable"] == 1]) == {"rear"}
    about = json.loads((tmp_path / "b" / "export.json").read_text("utf-8"))
    assert about["sessions"]["session_001"]["fps"] == STUDY.fps
    assert "px" in about["position_units"]


def test_labels_alone__go_to_csv_and_not_to_kpms(store: Path, tmp_path: Path) -> None:
    from helpers.labels import publish_labels

    labels = {"session_000": np.full(90, -1, np.int16)}
    labels["session_000"][10:20] = 2
    publish_labels(store, STUDY, "labels", labels)
    export(store, model="labels", to="csv", out=tmp_path)
    table = pd.read_csv(tmp_path / "session_000.csv")
    assert set(table["syllable"][:20]) == {2}
    assert set(table["syllable"][20:]) == {-1}
    with pytest.raises(InputError, match="syllables only"):
        export(store, model="labels", to="kpms", out=tmp_path / "k")


def test_files__are_replaced_only_when_asked(store: Path, model: Model, tmp_path: Path) -> None:
    export(store, model="m", to="csv", out=tmp_path)
    with pytest.raises(InputError, match=r"session_000\.csv"):
        export(store, model="m", to="csv", out=tmp_path)
    export(store, model="m", to="csv", out=tmp_path, overwrite=True)
    for wrong, said in (
        ({"to": "xlsx"}, "one of the formats"),
        ({"to": "csv", "model": "none"}, "a fitted model"),
        ({"to": "csv", "sessions": ["mouse"]}, "mouse"),
        ({"to": "csv", "version": "v9"}, "v9"),
    ):
        with pytest.raises(InputError, match=said):
            export(**{"store": store, "model": "m", "out": tmp_path / "x", **wrong})  # type: ignore[arg-type]
    assert not list(tmp_path.glob(".*"))


def test_file_names__hold_no_folders() -> None:
    assert file_name("day 1/mouse\\a") == "day 1-mouse-a"
    assert file_name("..") == "__"


def test_bouts__go_on_over_blocks(store: Path, model: Model) -> None:
    source = ExportSource(store, "m")
    for session in source.sessions:
        syllable, start, stop = source.bouts(session)
        again = np.full(session.n_frames, -1)
        for one, a, b in zip(syllable, start, stop, strict=True):
            again[a:b] = one
        np.testing.assert_array_equal(again, model.syllable[session.name])
        assert not ((syllable[1:] == syllable[:-1]) & (start[1:] == stop[:-1])).any()


def test_movement__is_read_by_xarray_and_ingested_again(
    store: Path, model: Model, tmp_path: Path
) -> None:
    pytest.importorskip("h5netcdf")
    export(store, model="m", to="movement", out=tmp_path, units="mm")
    tracked = xr.open_zarr(store, group="keypoints")
    for row, name in enumerate(model.syllable):
        with xr.open_dataset(tmp_path / f"{name}.nc", engine="h5netcdf") as data:
            assert data["position"].dims == ("time", "space", "keypoints", "individuals")
            assert data["confidence"].dims == ("time", "keypoints", "individuals")
            assert {"syllable", "certainty", "syllable_name"} <= set(data.coords)
            assert data["syllable"].dims == ("time",)
            assert data["time"].values[30] == pytest.approx(30 / STUDY.fps)
            assert (data.attrs["fps"], data.attrs["time_unit"]) == (STUDY.fps, "seconds")
            assert (data.attrs["ds_type"], data["position"].attrs["units"]) == ("poses", "mm")
            np.testing.assert_array_equal(data["syllable"], model.syllable[name])
            assert set(data["syllable_name"].values[data["syllable"].values == 1]) == {"rear"}
            n_frames = data.sizes["time"]
            np.testing.assert_array_equal(
                data["position"][..., 0].transpose("time", "keypoints", "space"),
                tracked["position"][row, :n_frames],
            )
            np.testing.assert_array_equal(
                data["position_denoised"][..., 0].transpose("time", "keypoints", "space"),
                kpms_zarr.reconstruct(store, "m", name),
            )
    again = kpms_zarr.ingest(tmp_path / "again.zarr", sorted(tmp_path.glob("*.nc")), workers=1)
    assert set(again.added) == set(model.syllable)
    position = xr.open_zarr(tmp_path / "again.zarr", group="keypoints")
    assert position["fps"].values.tolist() == [STUDY.fps] * 2


@pytest.mark.skipif(
    importlib.util.find_spec("movement") is None,
    reason="movement is not installed: its dependencies are not those of this package",
)
def test_movement__is_accepted_by_its_validators(store: Path, model: Model, tmp_path: Path) -> None:
    from movement.validators.datasets import ValidPosesInputs

    export(store, model="m", to="movement", out=tmp_path)
    with xr.open_dataset(tmp_path / "session_000.nc", engine="h5netcdf") as data:
        ValidPosesInputs.validate(data)


def test_nwb__is_read_by_pynwb_and_ingested_again(
    store: Path, model: Model, tmp_path: Path
) -> None:
    pynwb, _ = pytest.importorskip("pynwb"), pytest.importorskip("ndx_pose")
    done = export(
        store, model="m", to="nwb", out=tmp_path, units="px",
        session_start_time="2024-05-31T14:30:00+02:00",
    )  # fmt: skip
    is_ethogram = importlib.util.find_spec("ndx_ethogram") is not None
    assert any("ndx-ethogram is not installed" in note for note in done.notes) != is_ethogram
    for name, labels in model.syllable.items():
        path = tmp_path / f"{name}.nwb"
        assert not pynwb.validate(path=str(path))
        with pynwb.NWBHDF5IO(str(path), "r") as io:
            file = io.read()
            assert file.session_start_time.isoformat() == "2024-05-31T14:30:00+02:00"
            behavior = file.processing["behavior"]
            np.testing.assert_array_equal(behavior["syllable"].data[:], labels)
            assert behavior["syllable"].rate == STUDY.fps
            table = behavior["syllable_bouts"]
            assert table.neurodata_type == ("EthogramBouts" if is_ethogram else "TimeIntervals")
            bouts = table.to_dataframe()
            again = np.full(len(labels), -1)
            for one in bouts.itertuples():
                a, b = (round(time * STUDY.fps) for time in (one.start_time, one.stop_time))
                again[a:b] = int(one.label.split()[0])
            np.testing.assert_array_equal(again, labels)
            assert "1 rear" in set(bouts["label"])
            denoised = behavior["PoseEstimation_denoised"]
            position = kpms_zarr.reconstruct(store, "m", name)
            for keypoint in position["keypoint"].values:
                series = denoised[str(keypoint)]
                assert (series.unit, series.rate) == ("pixels", STUDY.fps)
                np.testing.assert_array_equal(series.data[:], position.sel(keypoint=keypoint))
    again = kpms_zarr.ingest(
        tmp_path / "again.zarr", sorted(tmp_path.glob("*.nwb")), workers=1,
        individuals=["*tracked*"],
    )  # fmt: skip
    assert again.n_frames == sum(map(len, model.syllable.values()))


def test_nwb__says_when_the_date_is_not_known(store: Path, model: Model, tmp_path: Path) -> None:
    pytest.importorskip("ndx_pose")
    done = export(store, model="m", to="nwb", out=tmp_path)
    assert any("1970-01-01" in note for note in done.notes)
    with pytest.raises(InputError, match="date and time"):
        export(store, model="m", to="nwb", out=tmp_path / "b", session_start_time="yesterday")


@pytest.mark.parametrize("to", ["movement", "nwb"])
def test_package_that_is_missing__leaves_no_folder(
    store: Path, model: Model, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "has_package", lambda name: False)
    with pytest.raises(InputError, match="not installed"):
        export(store, model="m", to=to, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_command__exports(
    store: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(store), "--model", "m", "--to", "csv", "--out", str(tmp_path)]
    assert cli.main(line) == 0
    assert "2 sessions" in capsys.readouterr().out
    assert cli.main(line) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["csv", "movement", "nwb"])
def test_times__are_the_timestamps(store: Path, model: Model, tmp_path: Path, to: str) -> None:
    pytest.importorskip({"csv": "pandas", "movement": "h5netcdf", "nwb": "ndx_pose"}[to])
    name, rng = "session_000", np.random.default_rng(0)
    times = 71.5 + np.round(np.cumsum(rng.uniform(0.02, 0.05, 90)), 6)
    times[50:] += 3
    ends = np.append(times, times[-1] + np.median(np.diff(times)))
    kpms_zarr.timestamps(store, {name: times})
    try:
        done = export(store, model="m", to=to, out=tmp_path)
    finally:
        kpms_zarr.timestamps(store, "none")
    assert any("without timestamps" in note and "session_001" in note for note in done.notes)
    about = json.loads((tmp_path / "export.json").read_text("utf-8"))
    assert about["sessions"][name]["timestamps"]
    assert not about["sessions"]["session_001"]["timestamps"]
    if to == "csv":
        table = pd.read_csv(tmp_path / f"{name}.csv")
        np.testing.assert_allclose(table["time (s)"], times, rtol=0, atol=5.1e-7)
    elif to == "movement":
        with xr.open_dataset(tmp_path / f"{name}.nc", engine="h5netcdf") as data:
            np.testing.assert_array_equal(data["time"], times)
    else:
        import pynwb

        assert not pynwb.validate(path=str(tmp_path / f"{name}.nwb"))
        with pynwb.NWBHDF5IO(str(tmp_path / f"{name}.nwb"), "r") as io:
            behavior = io.read().processing["behavior"]
            labels = behavior["syllable"]
            assert labels.rate is None
            np.testing.assert_array_equal(labels.timestamps[:], times)
            for kind in ("tracked", "denoised"):
                poses = behavior[f"PoseEstimation_{kind}"].pose_estimation_series
                for series in poses.values():
                    np.testing.assert_array_equal(series.timestamps[:], times)
            bouts = behavior["syllable_bouts"].to_dataframe()
            start, stop = (np.searchsorted(ends, bouts[f"{of}_time"]) for of in ("start", "stop"))
            np.testing.assert_array_equal(ends[start], bouts["start_time"])
            np.testing.assert_array_equal(ends[stop], bouts["stop_time"])
            np.testing.assert_array_equal(
                np.repeat([int(text.split()[0]) for text in bouts["label"]], stop - start),
                model.syllable[name][model.syllable[name] >= 0],
            )
        again = tmp_path / "again.zarr"
        path = tmp_path / f"{name}.nwb"
        kpms_zarr.ingest(again, path, workers=1, individuals=["*tracked*"], max_gap="1min")
        found = kpms_zarr.open_timestamps(again).timestamp.values[0]
        # Too irregular for frames to be counted as lost: row by row they are as they were.
        np.testing.assert_array_equal(found, times)


def test_nwb__of_timestamps_of_a_regular_clock_has_a_rate(
    store: Path, model: Model, tmp_path: Path
) -> None:
    """As NWB's inspector asks for; by the same rate they come back."""
    pynwb, name = pytest.importorskip("pynwb"), "session_000"
    times = 12.25 + np.arange(90) / 29.97
    kpms_zarr.timestamps(store, {name: times})
    try:
        export(store, model="m", to="nwb", out=tmp_path, sessions=[name])
    finally:
        kpms_zarr.timestamps(store, "none")
    with pynwb.NWBHDF5IO(str(tmp_path / f"{name}.nwb"), "r") as io:
        labels = io.read().processing["behavior"]["syllable"]
        assert labels.timestamps is None
        assert labels.starting_time == 12.25
        assert labels.rate == pytest.approx(29.97)
    again = tmp_path / "again.zarr"
    kpms_zarr.ingest(again, tmp_path / f"{name}.nwb", workers=1, individuals=["*tracked*"])
    found = kpms_zarr.open_timestamps(again).timestamp.values[0]
    np.testing.assert_allclose(found, times, rtol=0, atol=1e-6)
