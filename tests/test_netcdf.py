"""What a store holds and what verbs return goes to netCDF and to other Zarr stores as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr import viz
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=2, n_frames=600, n_keypoints=N_KEYPOINTS, missing_fraction=0.01)
CONFIG = replace(SMALL, stage="ar", sweeps=2)


def stop(event: object) -> None:
    """Ctrl-C as soon as something is committed."""
    if type(event).__name__ == "Committed":
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With everything that a store can hold: also names, and a fit that was interrupted."""
    path = tmp_path_factory.mktemp("netcdf") / "study.zarr"
    write_store(path, STUDY)
    kpms_zarr.quality(path)
    kpms_zarr.pca(path)
    kpms_zarr.fit(path, model="m", config=CONFIG)
    kpms_zarr.name_syllable(path, "m", 0, name="[rear]", description='"high"')
    with pytest.raises(KeyboardInterrupt):
        kpms_zarr.fit(path, model="half", config=CONFIG, callbacks=(stop,), save_every=1)
    return path


def groups(group: zarr.Group, path: str = "") -> Iterator[str]:
    """Paths of a group and of all below it."""
    yield path
    for name, below in access.groups_below(group):
        yield from groups(below, f"{path}/{name}".lstrip("/"))


def netcdf3(data: xr.Dataset) -> xr.Dataset:
    """With the numbers that netCDF-3 has; the text and the attributes are those of the group."""
    narrow = {"float16": "float32", "int64": "int32", "uint64": "int32"}
    found = {
        name: array.astype(narrow.get(str(array.dtype), array.dtype))
        for name, array in data.variables.items()
    }
    for array in found.values():
        array.encoding = {}
    return data.assign({name: (array.dims, array) for name, array in found.items()})


def test_groups__go_to_netcdf_and_back(store: Path, tmp_path: Path) -> None:
    paths = list(groups(access.open_group(store)))
    kinds = ("keypoints", "quality", "pca", "models/m/labels/v1", "models/m/levels/v1",
             "models/m/parameters/v1", "models/m/names/v1", "models/half/chain")  # fmt: skip
    assert {*kinds} <= {*paths}
    for number, path in enumerate(paths):
        with xr.open_zarr(store, group=path or None, consolidated=False) as data:
            data.load()
        data.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as again:
            assert attributes.read(again.attrs) == attributes.read(data.attrs)
            for name in data.variables:
                assert again[name].dims == data[name].dims
                np.testing.assert_array_equal(again[name].values, data[name].values)
        netcdf3(data).to_netcdf(tmp_path / f"{number}.3.nc", engine="scipy")
        data.to_zarr(tmp_path / f"{number}.zarr", consolidated=False)
        with xr.open_zarr(tmp_path / f"{number}.zarr", consolidated=False) as again:
            xr.testing.assert_identical(again.load(), data)


def test_store__goes_to_netcdf_as_a_whole(store: Path, tmp_path: Path) -> None:
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        tree.load().to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "all.nc", engine="h5netcdf") as again:
        assert again["models/m/labels/v1/syllable"].shape == (2, 600)


def test_results__go_to_netcdf(store: Path, tmp_path: Path) -> None:
    kpms_zarr.quality(store).to_netcdf(tmp_path / "quality.nc", engine="h5netcdf")
    results: dict[str, Any] = {
        "pca": kpms_zarr.pca(store),
        "summary": kpms_zarr.summary(store, model="m"),
        "labels": kpms_zarr.open_labels(store, "m"),
        "names": kpms_zarr.syllable_names(store, "m"),
        "parameters": open_parameters(store, "m"),
        "reconstruct": kpms_zarr.reconstruct(store, "m").to_dataset(),
        "progress": kpms_zarr.open_progress(store, "half"),
    }
    for name, result in results.items():
        result.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{name}.nc", engine="h5netcdf") as again:
            assert dict(again.sizes) == dict(result.sizes)


def test_earlier_stores__are_read_and_written(store: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.zarr"
    shutil.copytree(store, old)
    root = access.open_group(old, "r+")
    for path in groups(root):
        group = root[path] if path else root
        found = attributes.read(dict(group.attrs))
        if "fix_heading" in found:
            found["fix_heading"] = bool(found["fix_heading"])
        group.attrs.put(found)  # type: ignore[union-attr]
    assert isinstance(access.open_group(old)["pca"].attrs["provenance"], dict)
    assert read_settings(old) == read_settings(store)
    assert kpms_zarr.summary(old, model="m").identical(kpms_zarr.summary(store, model="m"))
    settings = attributes.read(open_parameters(old, "m").attrs)["provenance"]["settings"]
    assert settings["n_states"] == CONFIG.n_states
    names = [kpms_zarr.syllable_names(place, "m") for place in (old, store)]
    assert names[0].identical(names[1])
    assert kpms_zarr.name_syllable(old, "m", 1, name="walk").label(0) == "0 [rear]"
    assert kpms_zarr.fit(old, model="half", config=CONFIG, resume=True).n_sweeps == 2
    one, two = (kpms_zarr.open_labels(old, name)["syllable"] for name in ("half", "m"))
    assert one.identical(two)
    kpms_zarr.open_labels(old, "half").to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    viz.fit_traces(old, model="half")
