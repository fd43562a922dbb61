"""Commands on a store on a real S3-compatible server: what they print, write and export locally."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import h5py
import numpy as np
import pytest

import kpms_zarr
from helpers.whole_study import Tables, write_study, write_tables
from kpms_zarr.cli import main
from kpms_zarr.store.core import access

pytestmark = [
    pytest.mark.s3,
    # Of aiohttp, for connections to a server that has been killed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

URL = "s3://lab/commands/study.zarr"

Words = Callable[[str, Path, Tables], Sequence[object]]
"""Store, folder for files, tables -> words."""

COMMANDS: dict[str, Words] = {
    "changepoints": lambda store, out, _: [
        "changepoints", store, "--model", "m", "--shuffles", "20", "--out", out / "points.svg",
    ],
    "merge": lambda store, _, __: ["merge", store, "--model", "m", "--groups", "0,1"],
    "versions": lambda store, _, __: ["versions", store, "--model", "m", "--use", "v1"],
    "calibrate": lambda store, _, __: ["calibrate", store],
    "annotate": lambda store, _, tables: ["annotate", store, tables.groups],
    "epochs": lambda store, _, tables: ["epochs", store, tables.epochs],
    "timestamps": lambda store, _, tables: ["timestamps", store, tables.times],
    "signals": lambda store, _, tables: ["signals", store, tables.signal],
    "tables, csv": lambda store, out, _: [
        "tables", store, "--model", "m", "--to", "csv", "--out", out / "tables",
    ],
    "tables, parquet": lambda store, out, _: [
        "tables", store, "--model", "m", "--out", out / "tables",
    ],
    **{
        f"export, {kind}": lambda store, out, _, kind=kind: [
            "export", store, "--model", "m", "--to", kind, "--out", out / "exported",
        ]
        for kind in ("csv", "kpms", "movement", "nwb")
    },
    "compare-groups": lambda store, _, __: [
        "compare-groups", store, "--model", "m", "--by", "session_half", "--n-permutations", "99",
        "--n-bootstrap", "100",
    ],
    "similarity": lambda store, out, _: ["similarity", store, "--model", "m"],
    "trajectories": lambda store, out, _: [
        "trajectories", store, "--model", "m", "--out", out / "typical",
    ],
    "triggered-average": lambda store, out, _: [
        "triggered-average", store, "--model", "m", "--signal", "speed", "--shuffles", "20",
        "--out", out / "average.csv",
    ],
    "name": lambda store, _, __: ["name", store, "--model", "m", "1", "rear"],
    "remove": lambda store, _, __: ["remove", store, "s3"],
}  # fmt: skip
"""In an order in which one can follow the other, also where some are left out."""
IN_CI = ("changepoints",)


class Both(NamedTuple):
    """The same study on a local path and on the server."""

    local: Path
    tables: Tables


@pytest.fixture(scope="module")
def both(server: Any, reaching: Any, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("commands")
    store, tables = folder / "study.zarr", write_tables(folder / "tables")
    write_study(store)
    halves = folder / "halves.csv"
    halves.write_text("session,session_half\ns0,a\ns1,b\ns2,a\ns3,b\n")
    kpms_zarr.annotate(store, halves)
    with reaching() as reach:
        reach(server.port)
        fs, place = fsspec.core.url_to_fs(URL)
        fs.put(str(store), place, recursive=True)
    return Both(store, tables)


@pytest.mark.parametrize(
    "name",
    [name if name in IN_CI else pytest.param(name, marks=pytest.mark.full) for name in COMMANDS],
)
def test_command__does_on_s3_what_it_does_on_a_local_path(
    name, both, reach, server, tmp_path, capsys
):
    reach(server.port)
    printed, files = [], []
    for store in (str(both.local), URL):
        out = tmp_path / ("remote" if store == URL else "local")
        out.mkdir()
        words = [str(word) for word in COMMANDS[name](store, out, both.tables)]
        assert main([*words, "--json"]) == 0
        text = capsys.readouterr().out.replace(store, "STORE").replace(str(out), "OUT")
        printed.append(without_times(json.loads(text)))
        files.append({path.relative_to(out): path for path in out.rglob("*") if path.is_file()})
    assert printed[0] == printed[1]
    assert files[0].keys() == files[1].keys()
    for path, local in files[0].items():
        same_file(local, files[1][path])
    same_stores(str(both.local), URL)
    assert kpms_zarr.verify(URL).is_sound


def without_times(found: Any) -> Any:
    """What is printed, without how long it took, and when and in which version it was made."""
    if isinstance(found, dict):
        left = ("seconds", "provenance", "n_bytes", "created")
        return {name: without_times(one) for name, one in found.items() if name not in left}
    return [without_times(one) for one in found] if isinstance(found, list) else found


def same_file(one: Path, other: Path) -> None:
    if one.suffix in (".h5", ".nwb", ".nc"):
        with h5py.File(one) as first, h5py.File(other) as second:
            assert content(first) == content(second), one
    elif one.suffix in (".csv", ".parquet", ".svg"):
        assert one.read_bytes() == other.read_bytes(), one
    else:
        assert other.stat().st_size > 0


def content(file: h5py.File) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def take(name: str, node: Any) -> None:
        is_of_the_file = name.split("/")[-1] in ("file_create_date", "identifier")
        if isinstance(node, h5py.Dataset) and not is_of_the_file:
            values = np.asarray(node[()])
            is_text = values.dtype.kind == "O"
            found[name] = values.tolist() if is_text else (values.shape, values.tobytes())

    file.visititems(take)
    return found


def same_stores(one: str, other: str) -> None:
    """Every array of both, but the one that says when a session came in."""
    first, second = (arrays(access.open_group(store)) for store in (one, other))
    assert first.keys() == second.keys()
    for path, array in first.items():
        if path != "keypoints/ingest":
            np.testing.assert_array_equal(array[...], second[path][...], err_msg=path)


def arrays(group: access.Group, path: str = "") -> dict[str, Any]:
    found = {f"{path}{name}": array for name, array in access.arrays_below(group)}
    for name, below in access.groups_below(group):
        if name != "lock":
            found |= arrays(below, f"{path}{name}/")
    return found


def test_same_stores__tells_one_value(both, reach, server, tmp_path):
    """The twin: a store that differs in one frame is told from the other."""
    copy = shutil.copytree(both.local, tmp_path / "s.zarr")
    same_stores(str(both.local), str(copy))
    labels: Any = access.open_group(copy, "r+")["models/m/labels/v1/syllable"]
    labels[1, 100] = 7
    with pytest.raises(AssertionError, match="syllable"):
        same_stores(str(both.local), str(copy))
