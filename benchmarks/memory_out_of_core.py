"""Peak memory of verbs on stores of growing size, each measured in a process of its own.

Of quality, pca and changepoints.

Run: python benchmarks/memory_out_of_core.py [--gigabytes 0.25 1] [--folder PLACE]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil

from kpms_zarr.compute.kinematics.changepoints import changepoints
from kpms_zarr.compute.pose.pca import pca
from kpms_zarr.compute.tracking.quality import quality
from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import write_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session

SESSION_FRAMES = 3 * FRAMES_PER_CHUNK + 4_848  # half an hour at 30 frames / s
STUDY = SyntheticStudy(n_sessions=1, n_frames=SESSION_FRAMES, missing_fraction=0.02)
FRAME_BYTES = 4 * STUDY.n_keypoints * (STUDY.n_space + 1)


def write_repeated(store: Path, n_sessions: int, n_frames: int = SESSION_FRAMES) -> int:
    """Write one simulated session over and over; returns the uncompressed bytes.

    Parameters
    ----------
    store : Path
    n_sessions : int
    n_frames : int
        Frames of each session; the simulated one is repeated to fill them.
    """
    session = simulate_session(STUDY, 0)
    root = access.create(store)
    write_settings(root, STUDY.settings)
    group = create_keypoints(root, STUDY.settings)
    set_session_count(group, n_sessions, n_frames)
    for row in range(n_sessions):
        for start in range(0, n_frames, FRAMES_PER_CHUNK):
            block = Block(row, start, min(start + FRAMES_PER_CHUNK, n_frames))
            frames = np.arange(block.start, block.stop) % SESSION_FRAMES
            for name in ("position", "confidence"):
                values = getattr(session, name)[frames]
                regions.write(group[name], block, values, n_frames=n_frames)
    names = [f"session_{row:06d}" for row in range(n_sessions)]
    columns = ("session", "recording", "source", "source_hash", "source_format", "individual")
    write_session_rows(group, 0, dict.fromkeys(columns, names), STUDY.fps)
    group["n_frames"][:] = np.full(n_sessions, n_frames)
    return n_sessions * n_frames * FRAME_BYTES


def hold_everything(store: str) -> None:
    """The wrong twin: reads all positions at once."""
    np.asarray(access.open_group(store)["keypoints/position"][...])


VERBS = {
    "quality": quality,
    "pca": pca,
    "changepoints": changepoints,
    "hold_everything": hold_everything,
}


def measure(store: Path, verbs: tuple[str, ...], n_workers: int = 2) -> dict[str, Any]:
    """Run verbs in a new process: rise of the peak memory in MB over that after imports, and s."""
    command = [sys.executable, __file__, "--measure", ",".join(verbs), str(store)]
    command += ["--workers", str(n_workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _measured(store: str, verbs: list[str], n_workers: int) -> dict[str, float]:
    begin, clock = psutil.Process().memory_info().rss, time.perf_counter()
    with dask.config.set(num_workers=n_workers):
        for verb in verbs:
            VERBS[verb](store)
    return {"megabytes": (_peak() - begin) / 1e6, "seconds": time.perf_counter() - clock}


def _peak() -> int:
    """Largest resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss on Linux counts the parent before exec as well
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _compare(gigabytes: list[float], folder: str | None, n_workers: int) -> None:
    print(f"{'store':>32} {'GB':>6} {'verb':>12} {'rise / MB':>10} {'s':>7}")
    for size in gigabytes:
        n_sessions = max(1, round(size * 1e9 / (SESSION_FRAMES * FRAME_BYTES)))
        shapes = ((n_sessions, SESSION_FRAMES), (1, n_sessions * SESSION_FRAMES))
        for n_rows, n_frames in shapes:
            place = Path(tempfile.mkdtemp(dir=folder))
            try:
                n_bytes = write_repeated(place / "study.zarr", n_rows, n_frames)
                for verb in ("quality", "pca", "changepoints"):
                    found = measure(place / "study.zarr", (verb,), n_workers)
                    print(
                        f"{n_rows:>8} sessions x {n_frames:>8} f {n_bytes / 1e9:6.2f} {verb:>12} "
                        f"{found['megabytes']:10.0f} {found['seconds']:7.1f}",
                        flush=True,
                    )
            finally:
                shutil.rmtree(place)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.25, 1.0])
    parser.add_argument("--folder", help="where the temporary stores lie")
    parser.add_argument("--workers", type=int, default=2, help="Dask threads")
    parser.add_argument("--measure", nargs=2, metavar=("VERBS", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        verbs, store = options.measure
        print(json.dumps(_measured(store, verbs.split(","), options.workers)))
    else:
        _compare(options.gigabytes, options.folder, options.workers)


if __name__ == "__main__":
    main()
