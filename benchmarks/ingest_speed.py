"""Speed of ingest, next to merely reading the same files.

    python benchmarks/ingest_speed.py [--files 1000] [--csv-frames 10000000] [--layout]

Writes DeepLabCut h5 files of 5,000 frames and one csv file in a temporary folder (``--folder`` to
choose where), reads the h5 files one after the other with h5py in one process, scans the csv file
with polars and pyarrow, ingests both, and prints a Markdown table. ``--layout`` compares lengths of
chunks and codecs instead: ratio, MB/s, and requests that a session takes.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

import kpms_zarr
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session

STUDY = SyntheticStudy(n_sessions=1, n_frames=50_000, n_keypoints=8, missing_fraction=0.01)


def tracked(n_frames: int, seed: int = 0) -> np.ndarray:
    """(frame, column): x, y, likelihood of 8 keypoints, as trackers give them."""
    session = simulate_session(STUDY, 0)
    rows = (np.arange(n_frames) + 977 * seed) % len(session.position)
    values = np.concatenate([session.position, session.confidence[..., None]], -1)[rows]
    return values.reshape(n_frames, -1).astype(np.float64)


def write_h5(path: Path, values: np.ndarray) -> None:
    """A table as DeepLabCut writes it: by pandas, or where PyTables is absent, much like it."""
    if find_spec("tables"):
        import pandas

        levels = [("net", f"point{k}", c) for k in range(8) for c in ("x", "y", "likelihood")]
        names = ["scorer", "bodyparts", "coords"]
        header = pandas.MultiIndex.from_tuples(levels, names=names)
        pandas.DataFrame(values, columns=header).to_hdf(path, key="df_with_missing", format="table")
        return

    def pickled(value: object) -> np.bytes_:
        return np.bytes_(pickle.dumps(value, protocol=0))

    columns = [("net", f"point{k}", c) for k in range(8) for c in ("x", "y", "likelihood")]
    rows = np.zeros(len(values), dtype=[("index", "i8"), ("values_block_0", "f8", (24,))])
    rows["index"], rows["values_block_0"] = np.arange(len(values)), values
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs.update(
            pandas_type=np.bytes_("frame_table"),
            non_index_axes=pickled([(1, columns)]),
            info=pickled({1: {"names": ["scorer", "bodyparts", "coords"]}, "index": {}}),
        )
        table = group.create_dataset("table", data=rows, maxshape=(None,), chunks=(512,))
        table.attrs.update(NROWS=len(values), values_block_0_kind=pickled(columns))


def write_csv(path: Path, n_frames: int) -> None:
    """A csv file with all the digits that DeepLabCut writes."""
    names = ",".join(f"point{k}" for k in range(8) for _ in range(3))
    with path.open("w") as file:
        file.write("scorer" + ",net" * 24 + f"\nbodyparts,{names}\n")
        file.write("coords" + ",x,y,likelihood" * 8 + "\n")
        for start in range(0, n_frames, 10_000):
            n = min(10_000, n_frames - start)
            for frame, row in enumerate(tracked(n, start // 10_000).tolist(), start=start):
                file.write(f"{frame}," + ",".join(map(repr, row)).replace("nan", "") + "\n")


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def read_all(files: list[Path]) -> None:
    for path in files:
        with h5py.File(path, "r") as file:
            file["df_with_missing/table"][...]


def compare_h5(folder: Path, n_files: int) -> None:
    files = [folder / f"mouse_{i:04}.h5" for i in range(n_files)]
    for i, path in enumerate(files):
        write_h5(path, tracked(5_000, i))
    read_all(files[: n_files // 10])
    limit = min(timed(lambda: read_all(files)) for _ in range(2))
    rows = [("read with h5py, one process: the numbers as they are stored", limit)]
    if find_spec("tables"):
        import pandas

        rows.append(
            ("read with pandas, one process", timed(lambda: [pandas.read_hdf(p) for p in files]))
        )
        limit = rows[-1][1]
    for workers in (1, 2):
        store = folder / f"h5_{workers}.zarr"
        seconds = timed(
            lambda store=store, workers=workers: kpms_zarr.ingest(
                store, files, fps=30, workers=workers
            )
        )
        rows.append((f"ingest, {workers} at once", seconds))
    again = timed(lambda: kpms_zarr.ingest(folder / "h5_2.zarr", files, fps=30))
    rows.append(("ingest again: all known", again))
    title = f"{n_files:,} DeepLabCut h5 files of 5,000 frames"
    show(title, rows, n_files * 5_000, limit, "pandas" if find_spec("tables") else "h5py")


def compare_csv(folder: Path, n_frames: int) -> None:
    path = folder / "long.csv"
    write_csv(path, n_frames)
    rows = []
    if find_spec("polars"):
        import polars

        schema = {f"c{n}": polars.Float32 for n in range(25)}
        scan = polars.scan_csv(path, has_header=False, skip_rows=3, schema=schema)
        sums = scan.select(polars.all().sum())
        rows.append(("polars scan: sum of every column, streaming", timed(
            lambda: sums.collect(engine="streaming")
        )))  # fmt: skip
    if find_spec("pyarrow"):
        from pyarrow import csv

        read = csv.ReadOptions(column_names=[f"c{n}" for n in range(25)], skip_rows=3)

        def scan_arrow() -> None:
            with csv.open_csv(path, read_options=read) as batches:
                for _ in batches:
                    pass

        rows.append(("pyarrow scan: open_csv, batch by batch", timed(scan_arrow)))
    limit = min((seconds for _, seconds in rows), default=float("nan"))
    rows.append(("ingest", timed(lambda: kpms_zarr.ingest(folder / "csv.zarr", path, fps=30))))
    title = f"one csv file, {n_frames:,} frames, {path.stat().st_size / 1e9:.1f} GB"
    show(title, rows, n_frames, limit, "the faster scan")


def show(
    title: str, rows: list[tuple[str, float]], n_frames: int, limit: float, limit_name: str
) -> None:
    print(f"\n{title}\n\n| what | s | frames/s | times {limit_name} |", flush=True)
    print("| --- | --- | --- | --- |")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.1f} | {n_frames / seconds:,.0f} | {seconds / limit:.2f} |")


def positions(store: str | None) -> np.ndarray:
    """(session, frame, keypoint, space) of eight sessions: simulated, or all frames of a store.

    Eight times the same, each in chunks of its own; within a session no frame comes twice.
    """
    if store is None:
        one = tracked(65_536).reshape(65_536, 8, 3)[..., :2].astype(np.float32)
    else:
        data = xr.open_zarr(store, group="keypoints", chunks=None)
        lengths = [int(n) for n in data.n_frames]
        one = np.concatenate([data.position[i, :n].values for i, n in enumerate(lengths)])
    return np.stack([one[:65_536]] * 8)


def compare_layouts(folder: Path, store: str | None) -> None:
    values = positions(store)
    crc = Crc32cCodec()
    zstd = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    lz4 = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    choices = [
        *(
            (f"zstd 1 + bitshuffle + crc32c, {n:,}", n, (zstd, crc))
            for n in (1024, 4096, 16384, 65536)
        ),
        ("zstd 1 + bitshuffle, 16,384", 16384, (zstd,)),
        ("lz4 + bitshuffle + crc32c, 16,384", 16384, (lz4, crc)),
        ("zarr's own zstd, 16,384", 16384, (ZstdCodec(level=0),)),
    ]
    print("| codec, frames a chunk | ratio | write MB/s | read MB/s | requests per session |")
    print("| --- | --- | --- | --- | --- |")
    for name, chunk, codecs in choices:
        best = [float("inf"), float("inf")]
        for _ in range(3):
            place = folder / "layout.zarr"
            shutil.rmtree(place, ignore_errors=True)
            array = zarr.create_array(
                place,
                shape=values.shape,
                chunks=(1, chunk, *values.shape[2:]),
                dtype="f4",
                compressors=codecs,
            )

            def write(array: zarr.Array = array) -> None:
                for row in range(8):
                    array[row] = values[row]

            def read(array: zarr.Array = array) -> None:
                for row in range(8):
                    array[row]

            best = [min(best[0], timed(write)), min(best[1], timed(read))]
        stored = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        speed = " | ".join(f"{values.nbytes / s / 1e6:.0f}" for s in best)
        print(
            f"| {name} | {values.nbytes / stored:.2f} | {speed} | {-(-values.shape[1] // chunk)} |"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--files", type=int, default=1000)
    options.add_argument("--csv-frames", type=int, default=10_000_000)
    options.add_argument("--layout", action="store_true")
    options.add_argument("--store", help="for --layout: real positions (none = simulated ones)")
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        if given.layout:
            compare_layouts(folder, given.store)
            return
        if given.files:
            compare_h5(folder, given.files)
        if given.csv_frames:
            compare_csv(folder, given.csv_frames)


if __name__ == "__main__":
    main()
