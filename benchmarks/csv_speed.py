"""Speed of reading DeepLabCut csv files, next to readers of whole tables.

    python benchmarks/csv_speed.py [--frames 1000000] [--keypoints 8] [--repeats 3]

Simulates a file in a temporary folder (``--folder`` to choose where), reads it in several ways, in
turns, and prints a Markdown table of the best of all turns: megabytes of text and frames a second,
and how that compares to the fastest of the others. polars and pyarrow are measured if installed;
they read all columns into memory, on as many cores as they like, and check nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.parsers.dlc import csv as dlc_csv
from kpms_zarr.store.parsers.text import reading as text
from kpms_zarr.store.parsers.text import rows as text_rows

HEADER_LINES = 3
OTHER = "other: "


def write_file(path: Path, n_frames: int, n_keypoints: int, missing: float) -> None:
    """Write random numbers as DeepLabCut writes them, with all their digits."""
    rng = np.random.default_rng(0)
    names = [f"keypoint{k}" for k in range(n_keypoints) for _ in range(3)]
    with path.open("w") as file:
        file.write("scorer" + ",DLC" * len(names) + "\n" + ",".join(["bodyparts", *names]) + "\n")
        file.write("coords" + ",x,y,likelihood" * n_keypoints + "\n")
        for start in range(0, n_frames, 10_000):
            n = min(10_000, n_frames - start)
            values = rng.normal(300, 100, (n, n_keypoints, 3))
            # Mostly near 1, and near 0 at times.
            values[..., 2] = rng.beta(0.3, 0.03, (n, n_keypoints))
            values[rng.random((n, n_keypoints)) < missing] = np.nan
            for frame, row in enumerate(values.reshape(n, -1).tolist(), start=start):
                cells = ",".join("" if value != value else repr(value) for value in row)
                file.write(f"{frame},{cells}\n")


def readers(path: Path, n_fields: int) -> dict[str, Callable[[], object]]:
    """Ways of reading the file, by name."""
    columns = tuple(range(1, n_fields))
    table = text.Table(path, HEADER_LINES, n_fields, columns, tuple(map(str, columns)))

    def blocks(*engines: text_rows.Engine, threads: int | None = None) -> None:
        for _ in text.read_blocks(table, FRAMES_PER_CHUNK, engines=engines, threads=threads):
            pass

    def parser() -> None:
        for _ in dlc_csv.PARSER.read(path, FRAMES_PER_CHUNK):
            pass

    found: dict[str, Callable[[], object]] = {
        "dlc_csv parser": parser,
        "rows by Arrow": lambda: blocks(text_rows.by_arrow),
        "rows by pandas": lambda: blocks(text_rows.by_pandas),
        "rows by pandas, one thread": lambda: blocks(text_rows.by_pandas, threads=1),
        "rows line by line": blocks,
    }
    if not text_rows.has_arrow():
        del found["rows by Arrow"]
    if find_spec("polars"):
        import polars

        schema = {f"c{n}": polars.Float32 for n in range(n_fields)}
        found[f"{OTHER}polars.scan_csv, float32"] = lambda: polars.scan_csv(
            path, has_header=False, skip_rows=HEADER_LINES, schema=schema
        ).collect()
    if find_spec("pyarrow"):
        import pyarrow
        from pyarrow import csv

        names = [f"c{n}" for n in range(n_fields)]
        read = csv.ReadOptions(column_names=names, skip_rows=HEADER_LINES)
        convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.float64()))
        found[f"{OTHER}pyarrow.csv.read_csv"] = lambda: csv.read_csv(
            path, read_options=read, convert_options=convert
        )
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--frames", type=int, default=1_000_000)
    options.add_argument("--keypoints", type=int, default=8)
    options.add_argument("--missing", type=float, default=0.0, help="share of empty keypoints")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "simulated.csv"
        write_file(path, given.frames, given.keypoints, given.missing)
        ways = readers(path, 1 + 3 * given.keypoints)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(given.repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                best[name] = min(best[name], time.perf_counter() - start)
        megabytes = path.stat().st_size / 1e6
    limit = min([best[name] for name in ways if name.startswith(OTHER)] or best.values())
    print(f"{given.frames:,} frames, {given.keypoints} keypoints, {megabytes:,.0f} MB\n")
    print("| reader | MB/s | frames/s | of the fastest other |\n|---|---|---|---|")
    for name, seconds in best.items():
        speed = f"{megabytes / seconds:.0f} | {given.frames / seconds:,.0f}"
        print(f"| {name} | {speed} | {limit / seconds:.2f} |")


if __name__ == "__main__":
    main()
