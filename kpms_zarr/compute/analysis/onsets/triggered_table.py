"""Averages around onsets as one plain table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from kpms_zarr.compute.analysis.tables.table_files import require_format
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.replacing import check_place, replaced

TABLES = (".csv", ".parquet")


def check_table(out: str | os.PathLike[str]) -> None:
    """Refuse a place for a table that is none, or cannot hold one (InputError)."""
    path = Path(out)
    kind = path.suffix.lower()
    if kind not in TABLES:
        raise InputError(
            expected="a name that ends in .csv or .parquet",
            found=repr(path.name),
            where="`out=`",
            fix=f"name it {path.stem or 'average'}.csv",
        )
    require_format(kind[1:])
    check_place(path, "table", "average.csv")


def triggered_table(found: xr.Dataset) -> pd.DataFrame:
    """Convert what ``kpms_zarr.triggered_average`` returns to a row for each syllable and time."""
    n_times = found.sizes["time"]
    states = found["syllable"].values
    columns = {"syllable": np.repeat(states, n_times)}
    if "name" in found.coords:
        columns["name"] = np.repeat(found["name"].values.astype(str), n_times)
    columns["time_s"] = np.tile(found["time"].values, len(states))
    for name in ("mean", "sem", "baseline_mean", "baseline_sd"):
        columns[name] = found[name].values.ravel()
    for name, values in zip(("low", "high"), found["baseline_quantile"].values, strict=True):
        columns[f"baseline_{name}"] = values.ravel()
    for name in ("n_onsets", "n_sessions", "largest_deviation", "time_of_largest", "p", "q"):
        key = "time_of_largest_s" if name == "time_of_largest" else name
        columns[key] = np.repeat(found[name].values, n_times)
    return pd.DataFrame(columns)


def write_triggered_table(found: xr.Dataset, *, out: str | os.PathLike[str]) -> int:
    """Write averages around onsets as csv or parquet; an older file is replaced in one step.

    Returns
    -------
    int
        Bytes of the file.
    """
    check_table(out)
    path, table = Path(out), triggered_table(found)
    with replaced(path) as partial:
        if path.suffix.lower() == ".csv":
            table.to_csv(partial, index=False)
        else:
            table.to_parquet(partial, index=False)
    return path.stat().st_size
